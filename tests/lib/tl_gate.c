/*
 * tl_gate: a gateway process for tests. See tl_gate.h.
 *
 * Layout of the folder: data/ (the daemon's), gate.conf, gate.log (stderr of every run, appended),
 * san.* (sanitizer reports).
 */
#define _GNU_SOURCE 1
#include "tl_gate.h"
#include "tl_buf.h"
#include "tl_ws.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define TL_MAX_ARGS 64

struct tl_gate {
    struct tl_gate *next;
    pid_t pid;
    int out; /* the daemon's stdout, kept open while it runs */
    int exit_code;
    int port;
    int admin;
    int ready_timeout_ms;
    bool has_config;
    char base[96];
    char data[128];
    char conf[128];
    char log[128];
    char ready[256];
    char listen[64];
    char **args;
    char **env;
    char error[4096];
};

static struct tl_gate *all_gates;

const char *tl_gate_bin(void)
{
    const char *bin = getenv("EBBGATE_BIN");
    return bin && *bin ? bin : "build/ebbgate";
}

/* A NULL-terminated copy of a list of strings. */
static char **copy_list(const char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    char **copy = calloc(n + 1, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        copy[i] = strdup(list[i]);
    return copy;
}

static void free_list(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

static char *read_all(const char *path)
{
    struct tl_buf b = {0};
    FILE *f = fopen(path, "r");
    char chunk[4096];
    size_t n;

    tl_buf_room(&b, 1);
    b.p[0] = 0;
    while (f && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        tl_buf_add(&b, chunk, n);
    if (f)
        fclose(f);
    return (char *)b.p;
}

char *tl_gate_log(const struct tl_gate *g)
{
    return read_all(g->log);
}

static bool fail(struct tl_gate *g, const char *what)
{
    char *log = tl_gate_log(g);
    size_t len = strlen(log);
    snprintf(g->error, sizeof g->error, "%s; end of the log:\n%s", what,
             log + (len > 3000 ? len - 3000 : 0));
    free(log);
    return false;
}

bool tl_gate_config(struct tl_gate *g, const char *config)
{
    g->has_config = config != NULL;
    if (!config)
        return true;
    FILE *f = fopen(g->conf, "w");
    if (!f)
        return fail(g, "cannot write the configuration");
    fputs(config, f);
    return fclose(f) == 0;
}

struct tl_gate *tl_gate_prepare(const struct tl_gate_opts *o)
{
    static const struct tl_gate_opts none = {0};
    struct tl_gate *g = calloc(1, sizeof *g);
    const char *tmp = getenv("TMPDIR");

    if (!g)
        return NULL;
    if (!o)
        o = &none;
    g->out = -1;
    snprintf(g->base, sizeof g->base, "%.60s/ebbgate-test.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(g->base)) {
        perror(g->base);
        free(g);
        return NULL;
    }
    snprintf(g->data, sizeof g->data, "%s/data", g->base);
    snprintf(g->conf, sizeof g->conf, "%s/gate.conf", g->base);
    snprintf(g->log, sizeof g->log, "%s/gate.log", g->base);
    snprintf(g->listen, sizeof g->listen, "%s", o->listen ? o->listen : "127.0.0.1:0");
    mkdir(g->data, 0700);
    g->ready_timeout_ms = o->ready_timeout_ms ? o->ready_timeout_ms : 30000;
    g->args = copy_list(o->args);
    g->env = copy_list(o->env);
    g->next = all_gates;
    all_gates = g;
    tl_gate_config(g, o->config);
    return g;
}

struct tl_gate *tl_gate_new(const struct tl_gate_opts *o)
{
    struct tl_gate *g = tl_gate_prepare(o);

    if (g && !tl_gate_start(g)) {
        fprintf(stderr, "gate: %s\n", g->error);
        tl_gate_free(g);
        g = NULL;
    }
    return g;
}

/* In the child: sanitizer options that write to files, then the gate's own environment. */
static void set_child_env(const struct tl_gate *g)
{
    static const char *const names[] = {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
                                        "LSAN_OPTIONS", NULL};
    char value[1024];

    for (size_t i = 0; names[i]; i++) {
        const char *old = getenv(names[i]);
        snprintf(value, sizeof value, "%s%slog_path=%s/san%s", old ? old : "", old ? ":" : "",
                 g->base, i == 1 ? ":print_stacktrace=1" : "");
        setenv(names[i], value, 1);
    }
    for (size_t i = 0; g->env[i]; i++) {
        char *pair = strdup(g->env[i]);
        char *eq = pair ? strchr(pair, '=') : NULL;
        if (eq) {
            *eq = 0;
            setenv(pair, eq + 1, 1);
        }
        free(pair);
    }
}

/*
 * Starts the program with its output on the given descriptors. The child dies with this thread.
 * Returns its pid or -1.
 */
static pid_t spawn(const struct tl_gate *g, char *const argv[], int out, int err)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int in = open("/dev/null", O_RDONLY);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    close_range(3, ~0U, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    set_child_env(g);
    execv(argv[0], argv);
    dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Reads the one ready line. */
static bool read_ready(struct tl_gate *g)
{
    int64_t deadline = tl_now_ms() + g->ready_timeout_ms;
    size_t len = 0;

    g->ready[0] = 0;
    for (;;) {
        int64_t left = deadline - tl_now_ms();
        struct pollfd p = {.fd = g->out, .events = POLLIN};
        if (left <= 0 || poll(&p, 1, (int)left) == 0)
            return fail(g, "no ready line in time");
        ssize_t n = read(g->out, g->ready + len, 1);
        if (n == 0)
            return fail(g, "the gateway ended before its ready line");
        if (n < 0)
            continue;
        if (g->ready[len] == '\n')
            break;
        if (++len == sizeof g->ready - 1)
            return fail(g, "the ready line is too long");
    }
    g->ready[len] = 0;
    char host[64];
    int used = 0;
    if (sscanf(g->ready, "ebbgate ready public=%63[^: ]:%d admin=%63[^: ]:%d%n", host, &g->port,
               host, &g->admin, &used) != 4 ||
        g->ready[used])
        return fail(g, "the ready line is not as promised");
    return true;
}

bool tl_gate_start(struct tl_gate *g)
{
    char *argv[TL_MAX_ARGS];
    int n = 0, pipe_fd[2];
    char bin[PATH_MAX];

    if (g->pid > 0)
        return fail(g, "already running");
    if (!realpath(tl_gate_bin(), bin))
        return fail(g, "no program to test: set EBBGATE_BIN");
    argv[n++] = bin;
    argv[n++] = "serve";
    argv[n++] = "--data";
    argv[n++] = g->data;
    argv[n++] = "--listen";
    argv[n++] = g->listen;
    argv[n++] = "--admin";
    argv[n++] = "127.0.0.1:0";
    if (g->has_config) {
        argv[n++] = "-c";
        argv[n++] = g->conf;
    }
    for (size_t i = 0; g->args[i] && n < TL_MAX_ARGS - 1; i++)
        argv[n++] = g->args[i];
    argv[n] = NULL;

    int log = open(g->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || pipe2(pipe_fd, O_CLOEXEC))
        return fail(g, "cannot open log or pipe");
    g->pid = spawn(g, argv, pipe_fd[1], log);
    close(log);
    close(pipe_fd[1]);
    g->out = pipe_fd[0];
    if (g->pid < 0)
        return fail(g, "fork failed");
    return read_ready(g);
}

/* Forgets the ended process. */
static int reaped(struct tl_gate *g, int status)
{
    g->pid = 0;
    if (g->out >= 0)
        close(g->out);
    g->out = -1;
    g->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return g->exit_code;
}

/* Waits for a child with a deadline. Returns true with its status. */
static bool wait_pid(pid_t pid, int timeout_ms, int *status)
{
    int64_t deadline = tl_now_ms() + timeout_ms;

    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid)
            return true;
        if (got < 0 && errno != EINTR)
            return false;
        if (tl_now_ms() >= deadline)
            return false;
        usleep(2000);
    }
}

int tl_gate_wait(struct tl_gate *g, int timeout_ms)
{
    int status = 0;

    if (g->pid <= 0)
        return g->exit_code;
    if (!wait_pid(g->pid, timeout_ms, &status)) {
        fail(g, "did not end in time");
        return -1;
    }
    return reaped(g, status);
}

void tl_gate_signal(struct tl_gate *g, int sig)
{
    if (g->pid > 0)
        kill(g->pid, sig);
}

int tl_gate_stop(struct tl_gate *g, int timeout_ms)
{
    tl_gate_signal(g, SIGTERM);
    return tl_gate_wait(g, timeout_ms);
}

void tl_gate_kill(struct tl_gate *g)
{
    int status = 0;

    if (g->pid <= 0)
        return;
    kill(g->pid, SIGKILL);
    waitpid(g->pid, &status, 0);
    reaped(g, status);
}

bool tl_gate_running(struct tl_gate *g)
{
    int status;

    if (g->pid <= 0)
        return false;
    if (waitpid(g->pid, &status, WNOHANG) == g->pid)
        reaped(g, status);
    return g->pid > 0;
}

pid_t tl_gate_pid(const struct tl_gate *g)
{
    return g->pid;
}

int tl_gate_port(const struct tl_gate *g)
{
    return g->port;
}

int tl_gate_admin(const struct tl_gate *g)
{
    return g->admin;
}

const char *tl_gate_dir(const struct tl_gate *g)
{
    return g->data;
}

const char *tl_gate_ready(const struct tl_gate *g)
{
    return g->ready;
}

const char *tl_gate_error(const struct tl_gate *g)
{
    return g->error;
}

/* Reads what was written to an unlinked file. */
static char *slurp_fd(int fd)
{
    struct tl_buf b = {0};
    char chunk[4096];
    ssize_t n;

    tl_buf_room(&b, 1);
    b.p[0] = 0;
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, chunk, sizeof chunk)) > 0)
        tl_buf_add(&b, chunk, (size_t)n);
    return (char *)b.p;
}

int tl_gate_run(const struct tl_gate *g, const char *const *args, char **out, char **err,
                int timeout_ms)
{
    char *argv[TL_MAX_ARGS];
    char bin[PATH_MAX];
    int n = 0, status = 0, code = -1;

    if (!realpath(tl_gate_bin(), bin))
        return -1;
    argv[n++] = bin;
    for (size_t i = 0; args[i] && n < TL_MAX_ARGS - 1; i++) {
        memcpy(&argv[n], &args[i], sizeof argv[n]); /* execv takes char *const[] */
        n++;
    }
    argv[n] = NULL;
    int o = memfd_create("out", MFD_CLOEXEC), e = memfd_create("err", MFD_CLOEXEC);
    pid_t pid = spawn(g, argv, o, e);
    if (pid > 0) {
        if (wait_pid(pid, timeout_ms, &status)) {
            code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        } else {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        }
    }
    if (out)
        *out = slurp_fd(o);
    if (err)
        *err = slurp_fd(e);
    close(o);
    close(e);
    return code;
}

char *tl_gate_token(struct tl_gate *g, const struct tl_claims *c)
{
    static const struct tl_claims none = {0};
    const char *args[20];
    char ttl[32], *out = NULL, *err = NULL;
    int n = 0;

    if (!c)
        c = &none;
    args[n++] = "token";
    args[n++] = "--data";
    args[n++] = g->data;
    args[n++] = "--sub";
    args[n++] = c->sub ? c->sub : "alice";
    args[n++] = "--scope";
    args[n++] = c->scope ? c->scope : "read write";
    if (c->agents) {
        args[n++] = "--agents";
        args[n++] = c->agents;
    }
    if (c->sessions) {
        args[n++] = "--sessions";
        args[n++] = c->sessions;
    }
    if (c->ttl) {
        snprintf(ttl, sizeof ttl, "%ld", c->ttl);
        args[n++] = "--ttl";
        args[n++] = ttl;
    }
    args[n] = NULL;
    int code = tl_gate_run(g, args, &out, &err, 20000);
    out[strcspn(out, "\r\n")] = 0;
    if (code != 0 || !*out) {
        snprintf(g->error, sizeof g->error, "token: exit %d: %.3000s", code, err);
        fprintf(stderr, "gate: %s\n", g->error);
        free(out);
        out = NULL;
    }
    free(err);
    return out;
}

char *tl_gate_reports(const struct tl_gate *g)
{
    struct tl_buf b = {0};
    DIR *d = opendir(g->base);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char path[PATH_MAX];
        if (strncmp(e->d_name, "san.", 4))
            continue;
        snprintf(path, sizeof path, "%s/%s", g->base, e->d_name);
        char *text = read_all(path);
        if (*text)
            tl_buf_addf(&b, "%s:\n%s\n", e->d_name, text);
        free(text);
    }
    if (d)
        closedir(d);
    return (char *)b.p;
}

long tl_gate_fds(const struct tl_gate *g)
{
    char path[64];
    long n = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)g->pid);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

long tl_gate_rss(const struct tl_gate *g)
{
    char path[64];
    long size, rss = -1;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)g->pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    if (fscanf(f, "%ld %ld", &size, &rss) != 2)
        rss = -1;
    fclose(f);
    return rss < 0 ? -1 : rss * sysconf(_SC_PAGESIZE);
}

bool tl_gate_sanitized(void)
{
    int fd = open(tl_gate_bin(), O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool found = false;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
        size_t size = (size_t)st.st_size;
        void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            found = memmem(p, size, "__asan_init", 11) || memmem(p, size, "__tsan_init", 11);
            munmap(p, size);
        }
    }
    if (fd >= 0)
        close(fd);
    return found;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void tl_gate_free(struct tl_gate *g)
{
    if (!g)
        return;
    tl_gate_kill(g);
    for (struct tl_gate **p = &all_gates; *p; p = &(*p)->next) {
        if (*p == g) {
            *p = g->next;
            break;
        }
    }
    if (getenv("TL_KEEP"))
        fprintf(stderr, "gate: kept %s\n", g->base);
    else
        nftw(g->base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free_list(g->args);
    free_list(g->env);
    free(g);
}

void tl_gate_free_all(void)
{
    while (all_gates)
        tl_gate_free(all_gates);
}
