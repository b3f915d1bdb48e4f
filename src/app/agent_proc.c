/*
 * agent_proc.c - child processes of the agent, each the leader of its own process group.
 *
 * Threads: the main one. Owns pipes and the child until it is reaped. A child dies with the agent
 * (PR_SET_PDEATHSIG); whatever is left in its group after it ended is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/agent.h"
#include "base/clock.h"

#define LISTEN_ROUNDS 16 /* of 4 KiB: a pipe's worth; who writes without end must not hold us */

void eg_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* In the child, between fork and exec: async-signal-safe calls only. */
static void __attribute__((noreturn))
become(char **argv, char **env, int in, int out, int err, pid_t parent)
{
    static const char text[] = "cannot run the command: ";
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    dup2(in, 0);
    dup2(out, 1);
    if (err >= 0)
        dup2(err, 2);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    execvpe(argv[0], argv, env);
    const char *why = strerrorname_np(errno);
    (void)!write(2, text, sizeof text - 1);
    (void)!write(2, argv[0], strlen(argv[0]));
    (void)!write(2, ": ", 2);
    (void)!write(2, why, strlen(why));
    (void)!write(2, "\n", 1);
    _exit(127);
}

/* Ours without the token, and more. NULL without memory; the strings are borrowed. */
static char **make_env(const char *const *more)
{
    size_t n = 0, m = 0, k = 0;
    while (environ[n])
        n++;
    while (more[m])
        m++;
    char **env = calloc(n + m + 1, sizeof *env);
    for (size_t i = 0; env && i < n; i++) {
        if (strncmp(environ[i], "EBBGATE_TOKEN=", 14) != 0)
            env[k++] = environ[i];
    }
    for (size_t i = 0; env && i < m; i++)
        env[k++] = (char *)(uintptr_t)more[i];
    return env;
}

static void own_end(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

enum eg_err eg_proc_start(struct eg_proc *p, char **argv, const char *const *more, bool stderr_too)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    pid_t self = getpid(), pid = -1;
    char **env = make_env(more);
    int saved = ENOMEM;
    p->pid = p->group = 0;
    p->in = p->out = p->err = -1;
    p->reaped = false;
    p->kill_at_ms = 0;
    if (!env || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 ||
        (stderr_too && pipe2(err, O_CLOEXEC) != 0))
        goto out;
    pid = fork();
    if (pid == 0)
        become(argv, env, in[0], out[1], err[1], self);
    if (pid < 0)
        goto out;
    setpgid(pid, pid);
    p->pid = p->group = pid;
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    in[1] = out[0] = err[0] = -1;
    own_end(p->in);
    own_end(p->out);
    if (p->err >= 0)
        own_end(p->err);
out:
    saved = errno;
    for (int i = 0; i < 2; i++) {
        eg_close(&in[i]);
        eg_close(&out[i]);
        eg_close(&err[i]);
    }
    free(env);
    errno = saved;
    return pid > 0 ? EG_OK : EG_EIO;
}

void eg_proc_feed(struct eg_proc *p)
{
    while (p->in >= 0 && p->input_at < p->input.n) {
        ssize_t n = write(p->in, p->input.p + p->input_at, p->input.n - p->input_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) { /* it does not want to read: that is its right */
            eg_close(&p->in);
            break;
        }
        p->input_at += (size_t)n;
    }
    eg_buf_reset(&p->input);
    p->input_at = 0;
    if (!p->keep_input)
        eg_close(&p->in);
}

size_t eg_proc_waiting(int fd)
{
    int n = 0;
    return fd >= 0 && ioctl(fd, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

void eg_proc_listen(struct eg_proc *p, bool quiet)
{
    char text[4096];
    for (int rounds = 0; p->err >= 0 && rounds < LISTEN_ROUNDS; rounds++) {
        ssize_t n = read(p->err, text, sizeof text);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            eg_close(&p->err);
            return;
        }
        if (!quiet)
            (void)!write(2, text, (size_t)n);
        eg_buf_add(&p->last_words, text, (size_t)n);
        if (p->last_words.n > 4 * EG_AGENT_STDERR_KEPT) {
            size_t cut = p->last_words.n - EG_AGENT_STDERR_KEPT;
            memmove(p->last_words.p, p->last_words.p + cut, EG_AGENT_STDERR_KEPT);
            p->last_words.n = EG_AGENT_STDERR_KEPT;
        }
    }
}

void eg_proc_end(struct eg_proc *p, int64_t now_ms)
{
    if (p->pid == 0 || p->kill_at_ms != 0)
        return;
    kill(-p->group, SIGTERM);
    kill(-p->group, SIGCONT); /* a stopped one too */
    p->kill_at_ms = now_ms + EG_AGENT_KILL_MS;
}

void eg_proc_tick(struct eg_proc *p, int64_t now_ms)
{
    if (p->pid != 0 && p->kill_at_ms != 0 && now_ms >= p->kill_at_ms) {
        kill(-p->group, SIGKILL);
        p->kill_at_ms = now_ms + EG_AGENT_KILL_MS;
    }
}

bool eg_proc_reap(struct eg_proc *p)
{
    if (p->pid == 0 || waitpid(p->pid, &p->status, WNOHANG) != p->pid)
        return false;
    kill(-p->group, SIGKILL);
    p->pid = 0;
    p->reaped = true;
    return true;
}

void eg_proc_free(struct eg_proc *p)
{
    if (p->pid != 0) {
        kill(-p->group, SIGKILL);
        waitpid(p->pid, &p->status, 0);
        p->pid = 0;
    }
    eg_close(&p->in);
    eg_close(&p->out);
    eg_close(&p->err);
    eg_buf_free(&p->input);
    eg_buf_free(&p->last_words);
}

/* Where the last lines begin, at most three of them. */
static size_t last_lines(const char *p, size_t n)
{
    int lines = 0;
    size_t from = n > EG_AGENT_STDERR_KEPT ? n - EG_AGENT_STDERR_KEPT : 0;
    for (size_t i = n; i > from; i--) {
        if (p[i - 1] == '\n' && i != n && ++lines == 3)
            return i;
    }
    while (from > 0 && from < n && ((uint8_t)p[from] & 0xc0) == 0x80)
        from++;
    return from;
}

void eg_proc_obituary(const struct eg_proc *p, char *out, size_t size)
{
    size_t n = p->last_words.n;
    while (n > 0 && (p->last_words.p[n - 1] == '\n' || p->last_words.p[n - 1] == ' '))
        n--;
    size_t from = n ? last_lines(p->last_words.p, n) : 0;
    char how[64];
    if (WIFSIGNALED(p->status))
        snprintf(how, sizeof how, "the command was ended by signal %d (SIG%s)", WTERMSIG(p->status),
                 sigabbrev_np(WTERMSIG(p->status)));
    else
        snprintf(how, sizeof how, "the command exited with status %d", WEXITSTATUS(p->status));
    snprintf(out, size, "%s%s%.*s", how, n ? ": " : "", (int)(n - from),
             n ? p->last_words.p + from : "");
}
