/*
 * conns.c - handshakes a second, and what an idle connection costs.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

static struct {
    int ready, wanted;
    bool all_ready;
    unsigned long hellos;
    struct load_target *target;
    bool over;
} h;

static void churn_open(struct lc *c)
{
    load_sendf(
        c, "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"c%llu\",\"create\":true}",
        (unsigned long long)c->user[0]);
}

/* Welcomed: away, and again. */
static void churn_text(struct lc *c, const char *text, size_t n)
{
    if (!load_has(text, n, "\"hello_ok\"")) {
        load_die("hello: %.*s", (int)n, text);
    }
    h.hellos++;
    const uint64_t number = c->user[0];
    load_close(c);
    if (!h.over) {
        *c = (struct lc){.on_open = churn_open, .on_text = churn_text, .user = {number}};
        load_connect(c, h.target);
    }
}

void bench_hello(struct bench *b)
{
    static const bool never = false;
    enum { CONNS = 100 };
    static struct lc conns[CONNS];
    bench_gate(b, NULL);
    h.target = &b->client;
    h.over = false;
    for (int i = 0; i < CONNS; i++) {
        conns[i] = (struct lc){.on_open = churn_open, .on_text = churn_text, .user = {(uint64_t)i}};
        load_connect(&conns[i], &b->client);
    }
    load_run(&never, b->measure_us / 3);
    h.hellos = 0;
    const int64_t start = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    h.over = true;
    report("new connections welcomed", (double)h.hellos / seconds, "hello_ok/s", -1, -1);
    for (int i = 0; i < CONNS; i++) {
        load_close(&conns[i]);
    }
}

static void idle_open(struct lc *c)
{
    (void)c;
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\"}");
}

static void idle_text(struct lc *c, const char *text, size_t n)
{
    (void)c;
    if (load_has(text, n, "\"hello_ok\"")) {
        h.all_ready = ++h.ready == h.wanted;
    }
}

/* Memory that n connections take, each with a session of its own. */
static void idle(struct bench *b, int n, const char *name)
{
    static const bool never = false;
    struct lc *conns = calloc((size_t)n, sizeof *conns);
    const long before = tl_gate_rss(b->gate);
    h.ready = 0;
    h.all_ready = false;
    h.wanted = n;
    for (int i = 0; i < n; i++) {
        conns[i] = (struct lc){.on_open = idle_open, .on_text = idle_text};
        load_connect(&conns[i], &b->client);
        if (i % 200 == 199) {
            load_run(&never, 20000);
        }
    }
    if (!load_run(&h.all_ready, 60000000)) {
        load_die("idle: %d of %d welcomed", h.ready, n);
    }
    load_run(&never, 2000000);
    report(name, (double)(tl_gate_rss(b->gate) - before) / n, "bytes resident", -1, -1);
    for (int i = 0; i < n; i++) {
        load_close(&conns[i]);
    }
    free(conns);
}

void bench_idle(struct bench *b)
{
    static const bool never = false;
    static const char *const many[] = {"--max-connections", "20000", NULL};
    bench_gate(b, NULL);
    load_run(&never, 500000);
    report("idle gateway", (double)tl_gate_rss(b->gate) / 1048576, "MiB resident", -1, -1);
    idle(b, 10000 / b->scale, "idle connection");
    bench_gate(b, many);
    load_run(&never, 500000);
    idle(b, 19000 / b->scale, "idle connection, 19,000 of them");
}
