/*
 * cmd_chat.c - `ebbgate chat`: options, input, signals. See chat.h.
 *
 * Happy path: connect, each line of stdin is a message, answers stream to stdout, the end of input
 * leaves after the last answer. Failure modes: a broken connection is mended for as long as it
 * takes once there was one; a refusal is one line and exit code 1, and so is a turn that did not
 * end well with --once.
 */
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "app/chat.h"
#include "base/clock.h"

#define LEAVE_MS 1500
#define UNSENT_MAX 100 /* lines of a pipe that wait */

/* A line typed or piped. */
static void take_line(struct eg_chat *c, struct eg_slice line)
{
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    c->view.prompt = false;
    c->view.at_start = c->view.at_start || c->view.tty; /* the terminal echoed the newline */
    c->interrupts = 0;
    if (line.n == 0)
        return;
    if (c->view.tty && (eg_slice_is(line, "/quit") || eg_slice_is(line, "/exit"))) {
        eg_chat_leave(c);
        return;
    }
    if (c->view.tty && eg_slice_is(line, "/stop")) {
        eg_chat_abort(c);
        return;
    }
    eg_chat_publish(c, line);
}

/* What came in, line by line; with --once all of it is one message at the end. */
static void take_input(struct eg_chat *c)
{
    struct eg_buf *b = &c->line;
    size_t at = 0;
    const char *end;
    while (!c->once && at < b->n && (end = memchr(b->p + at, '\n', b->n - at)) != NULL) {
        size_t n = (size_t)(end - (b->p + at));
        take_line(c, (struct eg_slice){b->p + at, n});
        at += n + 1;
    }
    if (at > 0) {
        memmove(b->p, b->p + at, b->n - at);
        b->n -= at;
    }
    if (c->input_ended && b->n > 0) {
        if (c->once && b->p[b->n - 1] == '\n')
            b->n--;
        if (b->n > 0)
            eg_chat_publish(c, (struct eg_slice){b->p, b->n});
        eg_buf_reset(b);
    }
}

static void read_input(struct eg_chat *c)
{
    char *to = eg_buf_reserve(&c->line, 65536);
    ssize_t n = to ? read(0, to, 65536) : 0;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0)
        c->line.n += (size_t)n;
    else
        c->input_ended = true;
    take_input(c);
}

/* Ctrl-C: the first aborts what runs, the second leaves. */
static void interrupt(struct eg_chat *c)
{
    if (c->interrupts++ == 0 && eg_chat_busy(c)) {
        eg_view_note(&c->view, c->welcome ? "aborting; Ctrl-C again leaves"
                                          : "not connected; Ctrl-C again leaves");
        eg_chat_abort(c);
        return;
    }
    c->exit_code = c->interrupts > 1 ? EG_EXIT_SIGINT : EG_EXIT_OK;
    eg_chat_leave(c);
}

static bool too_many(const struct eg_chat *c)
{
    int n = 0;
    for (const struct eg_unsent *u = c->first; u && n < UNSENT_MAX; u = u->next)
        n++;
    return n >= UNSENT_MAX;
}

static void talk(struct eg_chat *c, int signals)
{
    while (!c->done) {
        struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
        if (!c->input_ended && !c->leaving && c->ever && !too_many(c))
            fds[1].fd = 0;
        if (c->caught_up && c->view.at_start && !eg_chat_busy(c) && !c->input_ended)
            eg_view_prompt(&c->view);
        eg_wsc_run(c->wsc, fds, 2, c->leaving || c->resend_ms != 0 ? 100 : 5000);
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
            if (info.ssi_signo == SIGINT) {
                interrupt(c);
            } else {
                c->exit_code = 128 + (int)info.ssi_signo;
                eg_chat_leave(c);
            }
        }
        if (fds[1].fd == 0 && fds[1].revents)
            read_input(c);
        if (c->resend_ms != 0)
            eg_chat_send(c);
        /* Without a connection there is nothing to wait for either. */
        if (c->input_ended && (c->caught_up || (c->ever && !c->welcome)) && !eg_chat_busy(c))
            eg_chat_leave(c);
        if (c->leaving && eg_clock_mono_ms() - c->leave_ms > LEAVE_MS)
            c->done = true;
    }
}

static int chat(struct eg_chat *c)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        eg_complain(c->cmd, "cannot wait for signals: %s", strerror(errno));
        return EG_EXIT_RETRY;
    }
    talk(c, signals);
    close(signals);
    if (c->view.tty && (!c->view.at_start || c->view.prompt))
        putchar('\n');
    if (c->session && c->view.tty && c->ever)
        fprintf(stderr, "Come back with: ebbgate chat --agent %s --session %s\n", c->agent,
                c->session);
    if (c->exit_code == EG_EXIT_OK && c->failed)
        c->exit_code = EG_EXIT_FAILED;
    return eg_cli_done(c->cmd, c->exit_code);
}

/* Who a token of our own is for: the user at this machine. */
static const char *user_name(void)
{
    const struct passwd *pw = getpwuid(getuid());
    return pw && pw->pw_name && *pw->pw_name ? pw->pw_name : "local";
}

static int start(struct eg_chat *c, const struct eg_gate_opts *where)
{
    char why[256] = "";
    const struct eg_mint mint = {.sub = user_name(), .scope = "read write"};
    const struct eg_wsc_hooks hooks = {eg_chat_open, eg_chat_text, eg_chat_lost, c};
    int code = eg_gate_init(&c->gate, c->cmd, where, &mint);
    if (code != EG_PROCEED)
        return code;
    if (eg_wsc_new(c->gate.url, c->gate.token.p, &hooks, &c->wsc, why, sizeof why) != EG_OK)
        return eg_usage(c->cmd, "%s", *why ? why : "out of memory");
    return chat(c);
}

static int run(const struct eg_command *cmd, int argc, char **argv)
{
    static struct eg_chat c;
    struct eg_gate_opts where = {{0}, NULL, NULL};
    const char *message = NULL, *session = NULL;
    const char *agent = getenv("EBBGATE_AGENT");
    int n = 0;
    c = (struct eg_chat){.cmd = cmd, .history = -1, .max_payload = 1048576};
    c.last = &c.first;
    const struct eg_opt opts[] = {
        {"agent", 0, EG_OPT_TEXT, "A", "the agent to talk to (default $EBBGATE_AGENT, else echo)",
         &agent, 0, 0},
        {"session", 0, EG_OPT_TEXT, "S", "resume this session, or begin it (default: a new one)",
         &session, 0, 0},
        {"once", 0, EG_OPT_FLAG, NULL, "all of stdin is one message; leave after its answer",
         &c.once, 0, 0},
        {"json", 0, EG_OPT_FLAG, NULL, "print events as JSON, one a line", &c.view.json, 0, 0},
        {"history", 0, EG_OPT_INT, "N",
         "messages to show when a session is resumed (default 20 on a terminal, else 0)",
         &c.history, 0, 10000},
        EG_GATE_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, &message, 1, &n, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    c.agent = c.view.agent = agent && *agent ? agent : "echo";
    code = eg_cli_id(cmd, "--agent", c.agent);
    if (code == EG_PROCEED && session)
        code = eg_cli_id(cmd, "--session", session);
    if (code != EG_PROCEED)
        return code;
    c.view.screen = isatty(1);
    c.view.tty = isatty(0) && c.view.screen && !c.view.json && !c.once && n == 0;
    const char *term = getenv("TERM");
    c.view.colour = c.view.tty && !getenv("NO_COLOR") && term && *term && strcmp(term, "dumb") != 0;
    c.view.at_start = true;
    c.raw = c.once || n > 0;
    if (c.history < 0)
        c.history = c.view.tty ? 20 : 0;
    if (session) {
        c.session = strdup(session);
        c.chosen = true;
    }
    if (n > 0) { /* a message on the command line */
        c.once = c.input_ended = true;
        eg_chat_publish(&c, eg_slice_cstr(message));
    }
    code = start(&c, &where);
    eg_chat_free(&c);
    return code;
}

const struct eg_command eg_cmd_chat = {
    .name = "chat",
    .summary = "Talk to an agent in the terminal",
    .usage = "[--agent A] [--session S] [--url U] [--token T] [--once] [--json] [MESSAGE]",
    .details =
        "Reconnects and resumes by itself; nothing is lost or shown twice. Ctrl-C aborts the\n"
        "running turn, a second one leaves. In a pipe each line is a message; with --once, or\n"
        "with MESSAGE, there is one message, and the exit code is 0 when it was answered well,\n"
        "1 when its answer went with a log that was trimmed, deleted, or restored from a\n"
        "backup, or cannot be known behind such a gap.\n",
    .run = run,
    .group = "Taking part"};
