/*
 * bench.c - runs the scenarios that are named, or all, against a gateway of its own.
 *
 *   bench [--seconds S] [--rounds N] [--scale N] [--json FILE] [--peers] [--list] [--sessions N]
 *         [--events N] [--growth N] [SCENARIO ...]
 *
 * Every scenario runs once in each round, so that a busy moment of the machine hits one round and
 * not one scenario; those that fill large logs or open very many connections run in the first round
 * only. Needs EBBGATE_BIN or build/ebbgate. One thread makes all the load, on the same cores as
 * the gateway.
 */
#include "bench.h"
#include "peers.h"
#include "ebbgate/protocol.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum when { EACH, FIRST, NAMED }; /* in each round, the first only, that only where it is named */

static const struct scenario {
    const char *name;
    void (*run)(struct bench *b);
    enum when when;
} scenarios[] = {
    {"fdatasync", bench_fdatasync, EACH},
    {"echo", bench_echo, EACH},
    {"raw", bench_raw, EACH},
    {"publish", bench_publish, EACH},
    {"pipelined", bench_pipelined, EACH},
    {"paced", bench_paced, EACH},
    {"turns", bench_turns, EACH},
    {"fanout", bench_fanout, EACH},
    {"replay", bench_replay, EACH},
    {"hello", bench_hello, EACH},
    {"storm", bench_storm, EACH},
    {"idle", bench_idle, FIRST},
    {"start", bench_start, FIRST},
    {"growth", bench_growth, FIRST},
    {"instructions", bench_instructions, NAMED},
};

#define SCENARIOS (int)(sizeof scenarios / sizeof *scenarios)

void bench_end(struct bench *b)
{
    tl_gate_free(b->gate);
    free(b->client_token);
    free(b->worker_token);
    b->gate = NULL;
    b->client_token = b->worker_token = NULL;
}

void bench_gate(struct bench *b, const char *const *args)
{
    static const struct tl_claims client = {.sub = "bench", .scope = "read write", .ttl = 86400};
    static const struct tl_claims worker = {
        .sub = "worker", .scope = "agent", .agents = "bench", .ttl = 86400};
    struct tl_gate_opts o = {.config = "agents = [\"bench\"];\nmax_queued_turns = 1000000;\n",
                             .args = args};
    bench_end(b);
    b->gate = tl_gate_new(&o);
    if (!b->gate) {
        load_die("the gateway does not start");
    }
    b->client_token = tl_gate_token(b->gate, &client);
    b->worker_token = tl_gate_token(b->gate, &worker);
    if (!b->client_token || !b->worker_token) {
        load_die("no tokens");
    }
    b->client = (struct load_target){
        .port = tl_gate_port(b->gate), .path = "/ws", .token = b->client_token};
    b->worker = (struct load_target){
        .port = tl_gate_port(b->gate), .path = "/ws", .token = b->worker_token};
}

struct worker_start {
    bool done;
    int concurrency;
    lc_text_fn *then;
};

static void worker_open(struct lc *c)
{
    const struct worker_start *s = c->scenario;
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"bench\",\"role\":\"agent\",\"concurrency\":%d,"
               "\"capabilities\":[\"ack\"]}",
               s->concurrency);
}

static void worker_text(struct lc *c, const char *text, size_t n)
{
    struct worker_start *s = c->scenario;
    if (!load_has(text, n, "\"hello_ok\"")) {
        load_die("worker: %.*s", (int)n, text);
    }
    c->on_text = s->then;
    s->done = true;
}

void bench_worker(struct bench *b, struct lc *w, int concurrency, lc_text_fn *on_text)
{
    struct worker_start s = {.concurrency = concurrency, .then = on_text};
    *w = (struct lc){.on_open = worker_open, .on_text = worker_text, .scenario = &s};
    load_connect(w, &b->worker);
    if (!load_run(&s.done, 10000000)) {
        load_die("the worker gets no answer");
    }
    w->scenario = NULL;
}

static int named(const char *name)
{
    for (int i = 0; i < SCENARIOS; i++) {
        if (strcmp(name, scenarios[i].name) == 0) {
            return i;
        }
    }
    fprintf(stderr, "bench: no scenario is named %s (--list shows them)\n", name);
    exit(64);
}

static void run(struct bench *b, int rounds, const char *json, char **names, int n)
{
    bool wanted[SCENARIOS];
    for (int i = 0; i < SCENARIOS; i++) {
        wanted[i] = n == 0 && scenarios[i].when != NAMED;
    }
    for (int i = 0; i < n; i++) {
        wanted[named(names[i])] = true;
    }
    figures_machine("start");
    figures_fact("ebbgate", "version", "ebbgate %s", EG_VERSION);
    for (int round = 0; round < rounds; round++) {
        if (rounds > 1) {
            printf("== round %d of %d\n", round + 1, rounds);
        }
        for (int i = 0; i < SCENARIOS; i++) {
            if (wanted[i] && (round == 0 || scenarios[i].when == EACH)) {
                figures_who("ebbgate");
                scenarios[i].run(b);
                if (b->peers) {
                    bench_end(b); /* not beside the others */
                    peers_scenario(b, scenarios[i].name);
                }
            }
        }
        figures_machine("end");
        if (json && !figures_json(json)) { /* each time: a run that is ended early has told */
            load_die("%s cannot be written", json);
        }
    }
}

/* A number of at least one after option c, or the program ends. */
static long number(const char *text)
{
    char *end;
    const long n = strtol(text, &end, 10);
    if (*end || n < 1) {
        fprintf(stderr, "bench: %s is not a number above zero\n", text);
        exit(64);
    }
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'},  {"rounds", required_argument, NULL, 'r'},
        {"scale", required_argument, NULL, 'n'},    {"json", required_argument, NULL, 'j'},
        {"sessions", required_argument, NULL, 'S'}, {"events", required_argument, NULL, 'E'},
        {"growth", required_argument, NULL, 'G'},   {"peers", no_argument, NULL, 'P'},

        {"list", no_argument, NULL, 'l'},           {NULL, 0, NULL, 0}};
    struct bench b = {.measure_us = 3000000,
                      .scale = 1,
                      .start_sessions = 200000,
                      .start_events = 5,
                      .growth_events = 4000000};
    const char *json = NULL;
    int rounds = 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            b.measure_us = (int64_t)(strtod(optarg, NULL) * 1e6);
            break;
        case 'r':
            rounds = (int)number(optarg);
            break;
        case 'n':
            b.scale = (int)number(optarg);
            break;
        case 'j':
            json = optarg;
            break;
        case 'S':
            b.start_sessions = number(optarg);
            break;
        case 'E':
            b.start_events = number(optarg);
            break;
        case 'G':
            b.growth_events = number(optarg);
            break;
        case 'P':
            b.peers = true;
            break;
        case 'l':
            for (int i = 0; i < SCENARIOS; i++) {
                puts(scenarios[i].name);
            }
            return 0;
        default:
            return 64;
        }
    }
    load_heed_signals();
    atexit(tl_gate_free_all);
    run(&b, rounds, json, argv + optind, argc - optind);
    figures_summary();
    bench_end(&b);
    return 0;
}
