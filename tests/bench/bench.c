/*
 * bench.c - runs the scenarios that are named, or all, against a gateway of its own.
 *
 *   bench [--seconds S] [--scale N] [--list] [SCENARIO ...]
 *
 * Needs EBBGATE_BIN or build/ebbgate. One thread makes all the load, on the same cores as the
 * gateway.
 */
#include "bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} scenarios[] = {
    {"fdatasync", bench_fdatasync}, {"echo", bench_echo},     {"publish", bench_publish},
    {"pipelined", bench_pipelined}, {"paced", bench_paced},   {"turns", bench_turns},
    {"fanout", bench_fanout},       {"replay", bench_replay}, {"storm", bench_storm},
    {"hello", bench_hello},         {"idle", bench_idle},
};

void report(const char *name, double value, const char *unit, double p50, double p99)
{
    printf("%-34s %14.1f %-14s", name, value, unit);
    if (p50 >= 0) {
        printf(" p50 %8.0f us  p99 %8.0f us", p50, p99);
    }
    putchar('\n');
    fflush(stdout);
}

void bench_gate(struct bench *b, const char *const *args)
{
    static const struct tl_claims client = {.sub = "bench", .scope = "read write", .ttl = 86400};
    static const struct tl_claims worker = {
        .sub = "worker", .scope = "agent", .agents = "bench", .ttl = 86400};
    struct tl_gate_opts o = {.config = "agents = [\"bench\"];\nmax_queued_turns = 1000000;\n",
                             .args = args};
    tl_gate_free(b->gate);
    free(b->client_token);
    free(b->worker_token);
    b->gate = tl_gate_new(&o);
    if (!b->gate) {
        load_die("the gateway does not start");
    }
    b->client_token = tl_gate_token(b->gate, &client);
    b->worker_token = tl_gate_token(b->gate, &worker);
    if (!b->client_token || !b->worker_token) {
        load_die("no tokens");
    }
    b->client = (struct load_target){tl_gate_port(b->gate), "/ws", b->client_token};
    b->worker = (struct load_target){tl_gate_port(b->gate), "/ws", b->worker_token};
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

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                            {"scale", required_argument, NULL, 'n'},
                                            {"list", no_argument, NULL, 'l'},
                                            {NULL, 0, NULL, 0}};
    struct bench b = {.measure_us = 3000000, .scale = 1};
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's') {
            b.measure_us = (int64_t)(strtod(optarg, NULL) * 1e6);
        } else if (c == 'n') {
            b.scale = atoi(optarg) > 0 ? atoi(optarg) : 1;
        } else if (c == 'l') {
            for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
                puts(scenarios[i].name);
            }
            return 0;
        } else {
            return 64;
        }
    }
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        bool wanted = optind == argc;
        for (int a = optind; a < argc; a++) {
            wanted = wanted || strcmp(argv[a], scenarios[i].name) == 0;
        }
        if (wanted) {
            scenarios[i].run(&b);
        }
    }
    tl_gate_free(b.gate);
    free(b.client_token);
    free(b.worker_token);
    return 0;
}
