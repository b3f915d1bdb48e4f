/*
 * publish.c - how many messages a second are durable and acknowledged, and how long that takes.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTENT_BYTES 256

/* A group of clients, each with a session of its own. */
struct group {
    struct lc *conns;
    int n, ready;
    bool all_ready, over, measuring;
    struct lat lat;
    int64_t last_us, stall_us; /* when any answer came last, the longest time without one */
    int64_t interval_us; /* paced: between two messages of one client; 0: as soon as answered */
    char content[CONTENT_BYTES + 1];
};

enum { SENT_AT, NEXT_ID };

static void say(struct lc *c)
{
    const struct group *g = c->scenario;
    char frame[CONTENT_BYTES + 128];
    const int n = snprintf(frame, sizeof frame,
                           "{\"type\":\"message\",\"message_id\":\"m%llu\",\"content\":\"%s\"}",
                           (unsigned long long)c->user[NEXT_ID]++, g->content);
    c->user[SENT_AT] = (uint64_t)load_now_us();
    load_send(c, frame, (size_t)n);
}

static void on_text(struct lc *c, const char *text, size_t n)
{
    struct group *g = c->scenario;
    if (load_has(text, n < 60 ? n : 60, "\"accepted\"")) {
        if (g->measuring) {
            const int64_t now = load_now_us();
            lat_add(&g->lat, now - (int64_t)c->user[SENT_AT]);
            g->stall_us = now - g->last_us > g->stall_us ? now - g->last_us : g->stall_us;
            g->last_us = now;
        }
        c->user[SENT_AT] = 0;
        if (!g->over && g->interval_us == 0) {
            say(c);
        }
    } else if (load_has(text, n, "\"hello_ok\"")) {
        g->all_ready = ++g->ready == g->n;
    } else if (!load_has(text, n, "\"ping\"")) {
        load_die("publish: %.*s", (int)n, text);
    }
}

static void on_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\"}");
}

static void connect_all(struct bench *b, struct group *g, int n)
{
    *g = (struct group){.n = n, .conns = calloc((size_t)n, sizeof *g->conns)};
    memset(g->content, 'x', CONTENT_BYTES);
    for (int i = 0; i < n; i++) {
        g->conns[i] = (struct lc){.on_open = on_open, .on_text = on_text, .scenario = g};
        load_connect(&g->conns[i], &b->client);
    }
    if (!load_run(&g->all_ready, 30000000)) {
        load_die("only %d of %d clients were welcomed", g->ready, n);
    }
}

static void free_all(struct group *g)
{
    for (int i = 0; i < g->n; i++) {
        load_close(&g->conns[i]);
    }
    free(g->conns);
    lat_free(&g->lat);
}

static void closed_loop(struct bench *b, int n)
{
    static const bool never = false;
    struct group g;
    char name[64];
    connect_all(b, &g, n);
    for (int i = 0; i < n; i++) {
        say(&g.conns[i]);
    }
    load_run(&never, b->measure_us / 3); /* warm */
    g.measuring = true;
    const int64_t start = g.last_us = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    g.measuring = false;
    g.over = true;
    snprintf(name, sizeof name, "publish, %d clients", n);
    const double rate = (double)g.lat.n / seconds;
    report(name, rate, "accepted/s", lat_q(&g.lat, 0.5), lat_q(&g.lat, 0.99));
    /* Checkpoints run after the answers of a batch: this is what they cost at worst. */
    snprintf(name, sizeof name, "longest stall, %d clients", n);
    report(name, (double)g.stall_us / 1000, "ms", -1, -1);
    free_all(&g);
}

void bench_publish(struct bench *b)
{
    static const int sizes[] = {1, 50, 500};
    for (int i = 0; i < 3; i++) {
        bench_gate(b, NULL);
        closed_loop(b, sizes[i]);
    }
}

/* One message of some client every interval, whatever the answers do. */
void bench_paced(struct bench *b)
{
    static const bool never = false;
    const int clients = 100, rate = 2000;
    struct group g;
    bench_gate(b, NULL);
    connect_all(b, &g, clients);
    g.interval_us = 1000000 / rate;
    g.measuring = true;
    const int64_t start = load_now_us();
    int64_t due = start;
    for (int i = 0; due < start + b->measure_us; i++) {
        while (load_now_us() < due) {
            load_run(&never, due - load_now_us() > 0 ? due - load_now_us() : 0);
        }
        struct lc *c = &g.conns[i % clients];
        if (c->user[SENT_AT] == 0) {
            say(c);
        }
        due += g.interval_us;
    }
    load_run(&never, 200000);
    report("latency at 2,000 messages/s", (double)g.lat.n / ((double)b->measure_us / 1e6),
           "accepted/s", lat_q(&g.lat, 0.5), lat_q(&g.lat, 0.99));
    free_all(&g);
}

/* --- one connection, many sessions: a worker publishing outside of turns --- */

#define PIPE_SESSIONS 100
#define PIPE_WINDOW 100

static struct pipe {
    char session[PIPE_SESSIONS][64];
    int64_t sent_at[PIPE_WINDOW];
    unsigned long sent, answered;
    bool measuring, over;
    struct lat lat;
    char content[CONTENT_BYTES + 1];
} pipe_state;

static void pipe_say(struct lc *w)
{
    struct pipe *p = &pipe_state;
    char frame[CONTENT_BYTES + 256];
    const int n = snprintf(frame, sizeof frame,
                           "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.bench\","
                           "\"event_id\":\"e%lu\",\"data\":\"%s\"}",
                           p->session[p->sent % PIPE_SESSIONS], p->sent, p->content);
    p->sent_at[p->sent++ % PIPE_WINDOW] = load_now_us();
    load_queue(w, frame, (size_t)n);
}

static void pipe_text(struct lc *w, const char *text, size_t n)
{
    struct pipe *p = &pipe_state;
    if (!load_has(text, n, "\"emitted\"")) {
        return;
    }
    if (p->measuring) {
        lat_add(&p->lat, load_now_us() - p->sent_at[p->answered % PIPE_WINDOW]);
    }
    p->answered++;
    if (!p->over) {
        pipe_say(w);
        if (p->answered % 16 == 0 || p->sent - p->answered >= PIPE_WINDOW) {
            load_flush(w);
        }
    }
}

static void learn_session(struct lc *c, const char *text, size_t n)
{
    struct group *g = c->scenario;
    const char *at = memmem(text, n, "\"session_id\":\"", 14);
    if (at && load_has(text, n, "\"hello_ok\"")) {
        const int i = (int)(c - g->conns);
        snprintf(pipe_state.session[i], sizeof pipe_state.session[i], "%.36s", at + 14);
        g->all_ready = ++g->ready == g->n;
    }
}

void bench_pipelined(struct bench *b)
{
    static const bool never = false;
    struct group g = {.n = PIPE_SESSIONS, .conns = calloc(PIPE_SESSIONS, sizeof *g.conns)};
    struct lc w;
    bench_gate(b, NULL);
    pipe_state = (struct pipe){.sent = 0};
    memset(pipe_state.content, 'x', CONTENT_BYTES);
    for (int i = 0; i < g.n; i++) {
        g.conns[i] = (struct lc){.on_open = on_open, .on_text = learn_session, .scenario = &g};
        load_connect(&g.conns[i], &b->client);
    }
    if (!load_run(&g.all_ready, 30000000)) {
        load_die("no sessions");
    }
    free_all(&g);
    bench_worker(b, &w, 1, pipe_text);
    for (int i = 0; i < PIPE_WINDOW; i++) {
        pipe_say(&w);
    }
    load_flush(&w);
    load_run(&never, b->measure_us / 3);
    pipe_state.measuring = true;
    const int64_t start = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    pipe_state.over = true;
    report("publish, 1 connection, 100 in flight", (double)pipe_state.lat.n / seconds, "accepted/s",
           lat_q(&pipe_state.lat, 0.5), lat_q(&pipe_state.lat, 0.99));
    lat_free(&pipe_state.lat);
    load_close(&w);
}
