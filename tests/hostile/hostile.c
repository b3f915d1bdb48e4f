/*
 * hostile.c - twenty well-behaved clients beside hostile ones.
 *
 *   hostile [--seconds N] [--rounds N] [--scale N] [--events N] [--crowd N] [ATTACK...]
 *
 * The good clients publish and wait for their answers all the time; printed is the 99th percentile
 * of that wait, alone just before and beside each attack (of several rounds the median), how long
 * the gateway computed in such a wait (which others on this machine do not make longer), and the
 * gateway's memory beside the bound that its configuration implies. Asserted: nobody good is
 * dropped, refused or left waiting for 10 s, memory stays under the bound, the gateway lives, stops
 * cleanly, and its log is whole. The wait itself is not asserted: attackers, gateway and the good
 * ones share the processors of this machine. The good ones run before the gateway, attackers when
 * nobody else does: as if on machines of their own.
 */
#include "../bench/load.h"
#include "tl_gate.h"

#include "attack.h"

#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GOOD 20
#define EVERY_US 20000
#define PATIENCE_US 10000000
#define MIB 1048576L
/* What the configuration below allows. */
#define MAX_PAYLOAD (1L << 20)
#define MAX_BUFFERED (2L << 20)
/* A connection: a message that is being read, two on their way to the log, what waits for it. */
#define EACH (3 * MAX_PAYLOAD + MAX_BUFFERED)
#define FIXED (192 * MIB) /* database cache, tail of the log, one batch, threads */

/* No rates: what is tested is what the gateway does by itself. */
static const char config[] = "agents = [\"a\", \"b\"];\n"
                             "max_buffered_bytes = 2097152;\n"
                             "handshake_timeout = \"2s\";\n"
                             "max_connections_per_address = 500;\n"
                             "max_handshakes_per_address = 64;\n"
                             "handshake_rate = 500;\n"
                             "max_queued_turns = 1000000;\n"
                             "log_level = \"error\";\n";

struct good {
    struct lc c; /* first */
    int number;
    bool joined, waiting;
    int64_t asked_at, act_at, computed_at;
    uint64_t accepted;
};

/* What an attack did to the good ones. */
struct figures {
    double p50_ms, p99_ms;
    double computed_ms; /* 99th percentile: time the gateway computed, all threads, while they
                           waited */
    size_t n;
    long peak; /* memory */
};

static struct good good[GOOD];
static struct lat waits, computed;
static struct load_target target;
static clockid_t gate_clock;

#define ATTACKS_MAX 32
#define ROUNDS_MAX 31

/* What a name came to, round by round. */
static struct outcome {
    const char *name;
    double p99_ms[ROUNDS_MAX], times[ROUNDS_MAX], computed_ms[ROUNDS_MAX];
    int rounds;
} outcomes[ATTACKS_MAX];
static int ran; /* outcomes there are */
static double quiet_ms;

static int64_t gate_us(void)
{
    struct timespec t = {0};
    clock_gettime(gate_clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void on_text(struct lc *c, const char *text, size_t n)
{
    struct good *k = (struct good *)c;
    const size_t head = n < 60 ? n : 60;
    if (load_has(text, head, "\"hello_ok\"")) {
        k->joined = true;
    } else if (load_has(text, head, "\"accepted\"")) {
        lat_add(&waits, load_now_us() - k->asked_at);
        lat_add(&computed, gate_us() - k->computed_at);
        k->waiting = false;
        k->accepted++;
        if ((uint64_t)load_int(text, n, "\"cursor\":") != k->accepted) {
            load_die("good client %d: cursor %" PRId64 " for message %" PRIu64, k->number,
                     load_int(text, n, "\"cursor\":"), k->accepted);
        }
    } else if (load_has(text, head, "error\"")) {
        load_die("good client %d: %.*s", k->number, (int)n, text);
    }
}

static void on_open(struct lc *c)
{
    struct good *k = (struct good *)c;
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"good-%d\",\"create\":true,"
               "\"since\":%" PRIu64 "}",
               k->number, k->accepted);
}

static void play(int64_t us)
{
    static const bool never = false;
    const int64_t end = load_now_us() + us;
    for (int64_t now; (now = load_now_us()) < end;) {
        for (int i = 0; i < GOOD; i++) {
            struct good *k = &good[i];
            if (k->c.closed) {
                load_die("good client %d was dropped, code %u", i, k->c.close_code);
            }
            if (k->waiting && now - k->asked_at > PATIENCE_US) {
                load_die("good client %d waits for 10 s", i);
            }
            if (k->joined && !k->waiting && k->act_at <= now) {
                k->waiting = true;
                k->asked_at = now;
                k->computed_at = gate_us();
                k->act_at = now + EVERY_US;
                load_sendf(&k->c, "{\"type\":\"message\",\"content\":\"hello from %d\"}", i);
            }
        }
        load_run(&never, 500);
    }
}

/* What is measured is the gateway's share of the wait. What this process starts runs as usual. */
static void run_first(void)
{
    const struct sched_param first = {.sched_priority = 1};
    (void)sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK,
                             &first); /* refused: beside others */
}

/* All of them, for the first time or again. */
static void come_in(struct tl_gate *g)
{
    target.port = tl_gate_port(g);
    clock_getcpuclockid(tl_gate_pid(g), &gate_clock);
    for (int i = 0; i < GOOD; i++) {
        good[i] = (struct good){.number = i,
                                .accepted = good[i].accepted,
                                .c = {.on_text = on_text, .on_open = on_open}};
        load_connect(&good[i].c, &target);
    }
}

static struct figures figures(long peak)
{
    const struct figures f = {.p50_ms = lat_q(&waits, 0.5) / 1000,
                              .p99_ms = lat_q(&waits, 0.99) / 1000,
                              .computed_ms = lat_q(&computed, 0.99) / 1000,
                              .n = waits.n,
                              .peak = peak};
    lat_free(&waits);
    lat_free(&computed);
    return f;
}

static void print(const char *name, const struct figures *f, long bound, const char *what)
{
    char times[16] = "", of[24] = "";
    if (quiet_ms > 0) {
        snprintf(times, sizeof times, "= %5.1f x", f->p99_ms / quiet_ms);
    }
    if (bound) {
        snprintf(of, sizeof of, " of %4ld", bound / MIB);
    }
    printf(
        "%-13s p50 %6.2f ms  p99 %7.2f ms %9s  computing %6.2f ms  memory %4ld%s MiB  %s (%zu)\n",
        name, f->p50_ms, f->p99_ms, times, f->computed_ms, f->peak / MIB, of, what, f->n);
}

/* Plays while the process runs, to its end; returns the highest memory seen. */
static long beside(pid_t pid, struct tl_gate *g, const char *name)
{
    long peak = 0;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        play(50000);
        const long rss = tl_gate_rss(g);
        peak = rss > peak ? rss : peak;
        if (!tl_gate_running(g)) {
            load_die("%s: the gateway ended with %d", name, tl_gate_wait(g, 0));
        }
    }
    if (status) {
        load_die("%s: did not go as it should", name);
    }
    return peak;
}

/* The good ones alone, for later comparison. */
static void alone(const struct tl_gate *g, int64_t us)
{
    lat_free(&waits);
    lat_free(&computed);
    play(us);
    quiet_ms = 0;
    const struct figures f = figures(tl_gate_rss(g));
    print("alone", &f, 0, "");
    quiet_ms = f.p99_ms;
}

/* Where name's rounds, which follow each other, are kept. */
static struct outcome *outcome_of(const char *name)
{
    if (ran == 0 || strcmp(outcomes[ran - 1].name, name) != 0) {
        outcomes[ran++].name = name;
    }
    return &outcomes[ran - 1];
}

static void judge(const char *name, const char *what, int conns, long peak)
{
    const long bound = FIXED + (conns + GOOD) * EACH;
    const struct figures f = figures(peak);
    struct outcome *const o = outcome_of(name);
    print(name, &f, bound, what);
    o->p99_ms[o->rounds] = f.p99_ms;
    o->times[o->rounds] = f.p99_ms / quiet_ms;
    o->computed_ms[o->rounds++] = f.computed_ms;
    if (peak > bound) {
        load_die("%s: memory is over the bound", name);
    }
}

/* Medians of the rounds. How many are above three times as long as alone. */
static int sum_up(void)
{
    int over = 0;
    for (int i = 0; i < ran; i++) {
        struct outcome *const o = &outcomes[i];
        const double times = load_median(o->times, o->rounds);
        over += times > 3;
        if (o->rounds > 1) {
            printf("median of %d   %-13s p99 %7.2f ms = %5.1f x  computing %6.2f ms\n", o->rounds,
                   o->name, load_median(o->p99_ms, o->rounds), times,
                   load_median(o->computed_ms, o->rounds));
        }
    }
    return over;
}

/* What is left of an attack goes. */
static void rest(void)
{
    play(300000);
}

/* Nobody waits for an answer any more. */
static void settle(void)
{
    static const bool never = false;
    const int64_t end = load_now_us() + PATIENCE_US;
    bool waiting = true;
    while (waiting && load_now_us() < end) {
        load_run(&never, 500);
        waiting = false;
        for (int i = 0; i < GOOD; i++) {
            waiting = waiting || good[i].waiting;
        }
    }
}

/* The gateway is started anew, and everybody comes at once. */
static void storm(struct tl_gate *g, struct attack_at *at)
{
    alone(g, (int64_t)at->seconds * 500000);
    settle();
    for (int i = 0; i < GOOD; i++) {
        load_close(&good[i].c);
    }
    if (tl_gate_stop(g, 30000) != 0 || !tl_gate_start(g)) {
        load_die("storm: the gateway does not start anew: %s", tl_gate_error(g));
    }
    at->port = tl_gate_port(g);
    lat_free(&waits);
    lat_free(&computed);
    come_in(g);
    const long peak = beside(crowd_start(CROWD_RETURN, at), g, "storm");
    judge("storm", "all come back at once after a restart", at->crowd, peak);
    rest();
}

static bool wanted(const char *name, char **names)
{
    bool any = !*names;
    for (; *names; names++) {
        any = any || strcmp(*names, name) == 0;
    }
    return any;
}

/* Whether each of names is an attack; says which is not. */
static bool known(char **names)
{
    for (; *names; names++) {
        size_t i = 0;
        while (attack_name(i) && strcmp(*names, attack_name(i)) != 0) {
            i++;
        }
        if (!attack_name(i) && strcmp(*names, "storm") != 0) {
            printf("FAILED: no attack has the name %s\n", *names);
            return false;
        }
    }
    return true;
}

static void attack_all(struct tl_gate *g, struct attack_at *at, int rounds, char **names)
{
    bool filled = false;
    for (size_t i = 0; attack_name(i); i++) {
        const char *const name = attack_name(i);
        if (!wanted(name, names)) {
            continue;
        }
        if (!filled && (strcmp(name, "million") == 0 || strcmp(name, "unread") == 0)) {
            (void)beside(crowd_start(CROWD_LONG_SESSION, at), g, "a long session");
            filled = true;
            rest();
        }
        for (int r = 0; r < rounds; r++) {
            alone(g, (int64_t)at->seconds * 500000);
            const long peak = beside(attack_start(i, at), g, name);
            judge(name, attack_text(i), attack_conns(i, at->scale), peak);
            rest();
        }
    }
    if (wanted("storm", names)) {
        (void)beside(crowd_start(CROWD_SETTLE, at), g, "storm");
        rest();
        for (int r = 0; r < rounds; r++) {
            storm(g, at);
        }
    }
}

/* The log, and whatever sanitizers have to say. */
static void examine(struct tl_gate *g)
{
    const char *args[] = {"verify", "--data", tl_gate_dir(g), NULL};
    char *out = NULL;
    if (tl_gate_stop(g, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(g));
    }
    if (tl_gate_run(g, args, &out, NULL, 300000) != 0) {
        load_die("verify: %s", out ? out : "");
    }
    char *reports = tl_gate_reports(g);
    if (reports) {
        load_die("sanitizer: %s", reports);
    }
    free(out);
}

static bool options(int argc, char **argv, struct attack_at *at, int *rounds)
{
    static const struct option known[] = {
        {"seconds", required_argument, NULL, 'n'}, {"rounds", required_argument, NULL, 'r'},
        {"scale", required_argument, NULL, 's'},   {"events", required_argument, NULL, 'e'},
        {"crowd", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        int *const to = c == 'n'   ? &at->seconds
                        : c == 'r' ? rounds
                        : c == 's' ? &at->scale
                        : c == 'e' ? &at->events
                        : c == 'c' ? &at->crowd
                                   : NULL;
        if (!to) {
            return false;
        }
        *to = atoi(optarg);
    }
    return *rounds > 0 && *rounds <= ROUNDS_MAX;
}

int main(int argc, char **argv)
{
    static const struct tl_claims bad = {.sub = "bad", .scope = "read write"};
    static const struct tl_claims nice = {.sub = "good", .scope = "read write"};
    static const struct tl_claims worker = {.sub = "worker", .scope = "agent", .agents = "b"};
    const struct tl_gate_opts o = {.config = config};
    struct attack_at at = {.seconds = 2, .scale = 1, .events = 1000000, .crowd = 5000};
    int rounds = 1;
    if (!options(argc, argv, &at, &rounds) || !known(argv + optind)) {
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct tl_gate *g = tl_gate_new(&o);
    if (!g) {
        load_die("the gateway does not start");
    }
    at.port = tl_gate_port(g);
    at.token = tl_gate_token(g, &bad);
    at.worker = tl_gate_token(g, &worker);
    target = (struct load_target){.path = "/ws", .token = tl_gate_token(g, &nice)};
    run_first();
    come_in(g);
    rest();
    attack_all(g, &at, rounds, argv + optind);
    alone(g, (int64_t)at.seconds * 500000);
    for (int i = 0; i < GOOD; i++) {
        load_close(&good[i].c);
    }
    examine(g);
    const int over = sum_up();
    printf(
        "%d attacks, %d of them above 3 x the quiet 99th percentile; nobody good dropped, the log "
        "whole\n%d passed, 0 failed\n",
        ran, over, ran);
    tl_gate_free(g);
    return 0;
}
