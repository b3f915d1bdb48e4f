/*
 * cmd_agent.c - `ebbgate agent`: options, the connection, and what the gateway says. See agent.h.
 *
 * Threads: the main one; signals come through a signalfd. Happy path: connect, hello as worker,
 * turns become tasks, their frames go out and are answered, until SIGTERM or SIGINT, which ends the
 * commands and leaves (the gateway hands the turns to others). Failure modes: a refusal that trying
 * again does not mend is one line and exit code 1; everything else is tried again for ever.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "app/agent.h"
#include "base/clock.h"

/* ---- what the gateway says ---- */

static void on_open(void *arg)
{
    struct eg_agent *a = arg;
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"hello\",\"role\":\"agent\",\"protocol_min\":1,\"protocol_max\":1,"
                   "\"capabilities\":[\"ack\"]");
    eg_json_kcstr(&b, "agent_id", a->id);
    eg_json_kint(&b, "concurrency", a->concurrency);
    eg_buf_str(&b, ",\"client\":{\"name\":\"ebbgate-agent\",\"version\":\"" EG_VERSION "\"}}");
    if (b.err == EG_OK)
        eg_wsc_send(a->wsc, (struct eg_slice){b.p, b.n});
    eg_buf_free(&b);
}

static void take_welcome(struct eg_agent *a, const struct eg_json_doc *doc)
{
    struct eg_json_doc policy;
    int64_t heartbeat_ms = 15000, lease_ms = 3 * EG_AGENT_EXTEND_MS;
    if (eg_field_object(doc, "policy", &policy)) {
        heartbeat_ms = eg_field_int_or(&policy, "heartbeat_ms", heartbeat_ms);
        a->max_payload = eg_field_int_or(&policy, "max_payload", a->max_payload);
        lease_ms = eg_field_int_or(&policy, "turn_lease_ms", lease_ms);
    }
    a->extend_ms = lease_ms / 3 < EG_AGENT_EXTEND_MS ? lease_ms / 3 : EG_AGENT_EXTEND_MS;
    eg_wsc_settled(a->wsc, heartbeat_ms);
    a->welcome = true;
    a->trouble[0] = '\0';
    a->resend_ms = 0;
    a->welcome_ms = eg_clock_mono_ms();
    if (!a->quiet)
        fprintf(stderr, "ebbgate agent: %s is attached to %s\n", a->id, a->gate.url);
    eg_say_again(a, NULL);
}

/*
 * Turns of the session for other messages are over: the gateway hands out one at a time. A log that
 * was restored, or begun anew under the same id, has another message under the same number.
 */
static void drop_others(struct eg_agent *a, const char *session, const char *message)
{
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (strcmp(j->message, message) != 0 && j->state != EG_TASK_DROPPED &&
            strcmp(j->session, session) == 0)
            eg_task_drop(a, j);
    }
}

static void take_turn(struct eg_agent *a, const struct eg_json_doc *doc, struct eg_slice text)
{
    int64_t turn = 0;
    struct eg_json_doc event;
    char *session = eg_field_text(doc, "session_id");
    char *message =
        eg_field_object(doc, "message", &event) ? eg_field_text(&event, "event_id") : NULL;
    if (!session || !message || !eg_field_int(doc, "turn", &turn))
        goto out;
    drop_others(a, session, message);
    struct eg_task *j = eg_task_find(a, session, turn);
    if (!j) {
        j = eg_task_new(a, session, turn, message);
        if (!j)
            goto out;
        j->epoch = eg_field_text(doc, "epoch");
        eg_buf_slice(&j->frame, text);
    }
    j->attempt = eg_field_int_or(doc, "attempt", 1);
    j->attached = true;
    j->spoke_ms = eg_clock_mono_ms();
    eg_say_again(a, j);
out:
    free(session);
    free(message);
}

static void take_abort(struct eg_agent *a, const struct eg_json_doc *doc)
{
    int64_t now = eg_clock_mono_ms();
    char *session = eg_field_text(doc, "session_id");
    char *reason = eg_field_text(doc, "reason");
    struct eg_task *j = session ? eg_task_find(a, session, eg_field_int_or(doc, "turn", 0)) : NULL;
    if (j && j->state == EG_TASK_WAITING) {
        eg_task_fail(a, j, "aborted", false);
    } else if (j && !j->aborted) {
        j->aborted = true;
        j->abort_ms = now;
        if (a->jsonl)
            eg_jsonl_abort(a, j, reason ? reason : "");
        else
            eg_proc_end(&j->proc, now);
    }
    free(session);
    free(reason);
}

static void take_error(struct eg_agent *a, const struct eg_json_doc *doc)
{
    char *ref = eg_field_text(doc, "ref");
    char *message = eg_field_text(doc, "message");
    if (!a->welcome)
        eg_gate_note(&a->gate, doc);
    else if (ref)
        eg_task_refused(a, ref, doc);
    else if (!eg_field_is(doc, "code", "turn_closed") && !a->quiet)
        eg_complain(a->cmd, "the gateway says: %s", message ? message : "error");
    free(ref);
    free(message);
}

static void renew(struct eg_agent *a)
{
    struct eg_buf b = {0};
    if (eg_gate_renew(&a->gate, &b)) {
        eg_wsc_send(a->wsc, (struct eg_slice){b.p, b.n});
        (void)eg_wsc_token(a->wsc, a->gate.token.p);
    }
    eg_buf_free(&b);
}

static void on_text(void *arg, struct eg_slice text)
{
    struct eg_agent *a = arg;
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX + 2, &doc) != EG_OK || doc.kind != EG_JSON_OBJECT)
        return;
    if (eg_field_is(&doc, "type", "turn")) {
        take_turn(a, &doc, text);
    } else if (eg_field_is(&doc, "type", "emitted")) {
        char *id = eg_field_text(&doc, "event_id");
        if (id)
            eg_task_answered(a, id);
        free(id);
    } else if (eg_field_is(&doc, "type", "abort")) {
        take_abort(a, &doc);
    } else if (eg_field_is(&doc, "type", "hello_ok")) {
        take_welcome(a, &doc);
    } else if (eg_field_is(&doc, "type", "hello_error")) {
        eg_gate_note(&a->gate, &doc);
    } else if (eg_field_is(&doc, "type", "error")) {
        take_error(a, &doc);
    } else if (eg_field_is(&doc, "type", "ping")) {
        eg_wsc_send(a->wsc, EG_LIT("{\"type\":\"pong\"}"));
    } else if (eg_field_is(&doc, "type", "token_expiring")) {
        renew(a);
    } else if (eg_field_is(&doc, "type", "reconnect")) {
        eg_wsc_retry_after(a->wsc, eg_field_int_or(&doc, "retry_after_ms", 1000));
    }
}

static void on_lost(void *arg, const struct eg_wsc_end *end)
{
    struct eg_agent *a = arg;
    bool was = a->welcome;
    a->welcome = false;
    a->resend_ms = 0;
    eg_tasks_detach(a);
    if (a->stopping) {
        eg_wsc_stop(a->wsc);
        return;
    }
    int code = eg_gate_lost(&a->gate, a->wsc, end, true);
    if (code != EG_PROCEED) {
        a->exit_code = code;
        a->stopping = true;
    } else if (!a->quiet && (was || end->http_status)) {
        eg_complain(a->cmd, "connection lost%s%s; trying again", *end->reason ? ": " : "",
                    end->reason);
    } else if (!a->quiet && strcmp(a->trouble, end->reason) != 0) {
        snprintf(a->trouble, sizeof a->trouble, "%s", end->reason);
        eg_complain(a->cmd, "%s (is the gateway running at %s?); trying again", end->reason,
                    a->gate.url);
    }
}

/* ---- the loop ---- */

/* Starts tasks while there are free places. */
static void start_tasks(struct eg_agent *a, int64_t now)
{
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->state != EG_TASK_WAITING || eg_tasks_working(a) >= a->concurrency)
            continue;
        if (a->jsonl && a->proc.pid == 0 && now < a->restart_ms)
            continue;
        if (a->jsonl)
            eg_jsonl_start(a, j);
        else
            eg_exec_start(a, j);
    }
}

static void check_times(struct eg_agent *a, int64_t now)
{
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        eg_proc_tick(&j->proc, now);
        if (j->state != EG_TASK_WORKING)
            continue;
        if (a->timeout_ms > 0 && !j->timed_out && !j->aborted &&
            now - j->started_ms >= a->timeout_ms) {
            j->timed_out = true;
            j->abort_ms = now;
            if (a->jsonl)
                eg_jsonl_abort(a, j, "timeout");
            else
                eg_proc_end(&j->proc, now);
        }
        if (a->jsonl && j->abort_ms != 0 && now - j->abort_ms >= EG_AGENT_ABORT_MS) {
            bool alone = eg_tasks_working(a) == 1;
            eg_task_fail(a, j, j->timed_out ? "the command took too long" : "aborted", true);
            if (alone)
                eg_proc_end(&a->proc, now);
        }
    }
    eg_proc_tick(&a->proc, now);
    eg_tasks_tick(a, now);
}

static void reap(struct eg_agent *a, int64_t now)
{
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (eg_proc_reap(&j->proc))
            eg_exec_ended(a, j);
    }
    if (a->jsonl && eg_proc_reap(&a->proc)) {
        eg_jsonl_ended(a);
        a->quick_ends = a->quick_ends < 6 ? a->quick_ends + 1 : 6;
        a->restart_ms = now + (250LL << a->quick_ends);
    }
}

enum { FDS_MAX = 1000 };

struct watch {
    struct pollfd fd[FDS_MAX];
    nfds_t n;
};

static void watch(struct watch *w, int fd, short events)
{
    if (fd >= 0 && w->n < FDS_MAX)
        w->fd[w->n++] = (struct pollfd){.fd = fd, .events = events};
}

static void watch_proc(struct watch *w, const struct eg_proc *p, bool read_output)
{
    if (p->input_at < p->input.n)
        watch(w, p->in, POLLOUT);
    watch(w, read_output ? p->out : -1, POLLIN);
    watch(w, p->err, POLLIN);
}

static bool has_room(const struct eg_task *j)
{
    return j->pending < EG_AGENT_PENDING_MAX && j->pending_bytes < EG_AGENT_PENDING_BYTES;
}

/* jsonl: a publish or a turn that is not answered holds up the whole command. */
static bool has_room_all(const struct eg_agent *a)
{
    int n = 0;
    for (const struct eg_said *s = a->first; s; s = s->next)
        n++;
    for (const struct eg_task *j = a->tasks; j; j = j->next)
        n += j->pending;
    return n < EG_AGENT_PENDING_MAX * 4;
}

static bool ready(const struct watch *w, int fd)
{
    for (nfds_t i = 0; fd >= 0 && i < w->n; i++) {
        if (w->fd[i].fd == fd && w->fd[i].revents)
            return true;
    }
    return false;
}

static void serve_proc(struct eg_agent *a, const struct watch *w, struct eg_proc *p)
{
    if (ready(w, p->in))
        eg_proc_feed(p);
    if (ready(w, p->err))
        eg_proc_listen(p, a->quiet);
}

/* One round: wait, then processes, then time. */
static void round_trip(struct eg_agent *a, int signals)
{
    static struct watch w;
    w.n = 0;
    watch(&w, signals, POLLIN);
    for (struct eg_task *j = a->tasks; j; j = j->next)
        watch_proc(&w, &j->proc, j->state == EG_TASK_DROPPED || has_room(j));
    watch_proc(&w, &a->proc, has_room_all(a));
    int64_t tick_ms = a->extend_ms / 2 < 200 ? a->extend_ms / 2 : 200;
    eg_wsc_run(a->wsc, w.fd, w.n, a->tasks || a->proc.pid != 0 ? tick_ms : 5000);

    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD)
            a->stopping = true;
    }
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        serve_proc(a, &w, &j->proc);
        if (ready(&w, j->proc.out))
            eg_exec_readable(a, j);
    }
    serve_proc(a, &w, &a->proc);
    if (ready(&w, a->proc.out))
        (void)eg_jsonl_readable(a);
    int64_t now = eg_clock_mono_ms();
    reap(a, now);
    check_times(a, now);
    eg_tasks_sweep(a);
    start_tasks(a, now);
}

/* Ends the commands, politely first, and says goodbye. */
static void stop(struct eg_agent *a)
{
    bool alive = true;
    int64_t until = eg_clock_mono_ms() + EG_AGENT_KILL_MS + 500;
    eg_wsc_close(a->wsc, 1000);
    for (struct eg_task *j = a->tasks; j; j = j->next)
        eg_proc_end(&j->proc, eg_clock_mono_ms());
    eg_proc_end(&a->proc, eg_clock_mono_ms());
    while (alive && eg_clock_mono_ms() < until) {
        eg_wsc_run(a->wsc, NULL, 0, 20);
        int64_t now = eg_clock_mono_ms();
        alive = a->proc.pid != 0 && !eg_proc_reap(&a->proc);
        for (struct eg_task *j = a->tasks; j; j = j->next) {
            eg_proc_tick(&j->proc, now);
            alive = (j->proc.pid != 0 && !eg_proc_reap(&j->proc)) || alive;
        }
        eg_proc_tick(&a->proc, now);
    }
}

static int work(struct eg_agent *a)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        eg_complain(a->cmd, "cannot wait for signals: %s", strerror(errno));
        return EG_EXIT_RETRY;
    }
    while (!a->stopping)
        round_trip(a, signals);
    stop(a);
    close(signals);
    return a->exit_code;
}

static void agent_free(struct eg_agent *a)
{
    while (a->tasks) {
        struct eg_task *j = a->tasks;
        a->tasks = j->next;
        eg_task_free(j);
    }
    while (a->first) {
        struct eg_said *s = a->first;
        a->first = s->next;
        free(s->event_id);
        eg_buf_free(&s->text);
        free(s);
    }
    eg_proc_free(&a->proc);
    eg_buf_free(&a->line);
    eg_wsc_free(a->wsc);
    eg_gate_free(&a->gate);
}

static int run(const struct eg_command *cmd, int argc, char **argv)
{
    static struct eg_agent a;
    struct eg_gate_opts where = {{0}, NULL, NULL};
    const char *mode = "exec", *exec = NULL;
    char **tail = NULL;
    char sub[EG_ID_MAX + 16], why[256] = "";
    static char sh[] = "/bin/sh", dash_c[] = "-c";
    static char *shell[4] = {sh, dash_c, NULL, NULL};
    a = (struct eg_agent){
        .cmd = cmd, .concurrency = 1, .max_payload = 1048576, .extend_ms = EG_AGENT_EXTEND_MS};
    a.last = &a.first;
    a.proc.in = a.proc.out = a.proc.err = -1;
    const struct eg_opt opts[] = {
        {"id", 0, EG_OPT_TEXT, "A", "the agent id to serve (needed)", &a.id, 0, 0},
        {"exec", 0, EG_OPT_TEXT, "CMD...",
         "the command and its arguments; the last option (one word with blanks is a shell command)",
         &exec, 0, 0},
        {"concurrency", 0, EG_OPT_INT, "N", "turns at once, at most 250 (default 1)",
         &a.concurrency, 1, 250},
        {"timeout", 0, EG_OPT_SECONDS, "TIME", "a turn may take this long (default: no limit)",
         &a.timeout_ms, 1, EG_DAY_MS * 365},
        {"mode", 0, EG_OPT_TEXT, "MODE",
         "how CMD runs: once for each turn (exec, the default) or for all of them (jsonl)", &mode,
         0, 0},
        {"quiet", 'q', EG_OPT_FLAG, NULL, "nothing on stderr but failures", &a.quiet, 0, 0},
        EG_GATE_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, "exec", &tail);
    if (code != EG_PROCEED)
        return code;
    if (!a.id || !*a.id)
        return eg_usage(cmd, "--id is needed, before --exec");
    code = eg_cli_id(cmd, "--id", a.id);
    if (code != EG_PROCEED)
        return code;
    if (exec) { /* --exec=CMD */
        shell[2] = (char *)(uintptr_t)exec;
        tail = shell;
    } else if (tail && !tail[1] && strpbrk(tail[0], " \t|&;<>$`")) {
        shell[2] = tail[0];
        tail = shell;
    }
    if (!tail)
        return eg_usage(cmd, "--exec is needed, as the last option");
    a.argv = tail;
    a.jsonl = strcmp(mode, "jsonl") == 0;
    if (!a.jsonl && strcmp(mode, "exec") != 0)
        return eg_usage(cmd, "--mode is exec or jsonl, not \"%s\"", mode);
    snprintf(sub, sizeof sub, "agent-%.120s", a.id);
    const struct eg_mint mint = {.sub = sub, .scope = "agent", .agents = a.id};
    const struct eg_wsc_hooks hooks = {on_open, on_text, on_lost, &a};
    code = eg_gate_init(&a.gate, cmd, &where, &mint);
    if (code == EG_PROCEED) {
        if (eg_wsc_new(a.gate.url, a.gate.token.p, &hooks, &a.wsc, why, sizeof why) != EG_OK)
            code = eg_usage(cmd, "%s", *why ? why : "out of memory");
        else
            code = work(&a);
    }
    agent_free(&a);
    return code;
}

const struct eg_command eg_cmd_agent = {
    .name = "agent",
    .summary = "Make any command a durable, streaming agent",
    .usage = "--id A [OPTIONS] --exec CMD...",
    .details =
        "Each turn starts CMD with the message on stdin and EBBGATE_SESSION, EBBGATE_TURN,\n"
        "EBBGATE_ATTEMPT, EBBGATE_AGENT and EBBGATE_SOURCE in its environment. What it prints is\n"
        "streamed; exit code 0 ends the turn with all of it, any other fails the attempt with the\n"
        "last lines of stderr. An abort sends TERM, then KILL, to its process group.\n\n"
        "With --mode jsonl one CMD lives on: it reads `turn` and `abort` frames as lines and\n"
        "writes `emit`, `final`, `fail`, `extend` and `publish` frames as lines\n"
        "(docs/protocol.md). The `epoch` of a turn, given back, tells it from one of the same\n"
        "number in a session that was deleted and begun anew.\n",
    .run = run,
    .group = "Taking part"};
