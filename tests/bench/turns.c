/*
 * turns.c - whole turns, every event durable; and one session followed by many.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS 200
#define TOKENS 20

static struct {
    struct lc conns[SESSIONS];
    struct lc worker;
    int ready;
    bool all_ready, measuring, over;
    unsigned long turns;
    struct lat lat;
} t;

static void say(struct lc *c)
{
    c->user[0] = (uint64_t)load_now_us();
    load_sendf(c, "{\"type\":\"message\",\"content\":\"hello there, what is the weather like?\"}");
}

static void client_text(struct lc *c, const char *text, size_t n)
{
    if (load_has(text, n, "\"status\":\"final\"")) {
        if (t.measuring) {
            t.turns++;
            lat_add(&t.lat, load_now_us() - (int64_t)c->user[0]);
        }
        if (!t.over) {
            say(c);
        }
    } else if (load_has(text, n, "\"hello_ok\"")) {
        t.all_ready = ++t.ready == SESSIONS;
    }
}

static void client_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\",\"capabilities\":[\"streaming\"]}");
}

static void worker_text(struct lc *w, const char *text, size_t n)
{
    char frame[300];
    const char *sid = memmem(text, n, "\"session_id\":\"", 14);
    if (!sid || !load_has(text, n < 20 ? n : 20, "\"turn\"")) {
        return;
    }
    const long long turn = load_int(text, n, "\"turn\":");
    for (int i = 0; i < TOKENS; i++) {
        const int len = snprintf(frame, sizeof frame,
                                 "{\"type\":\"emit\",\"session_id\":\"%.36s\",\"turn\":%lld,"
                                 "\"event\":\"token_stream\",\"data\":{\"token\":\" word%d\"}}",
                                 sid + 14, turn, i);
        load_queue(w, frame, (size_t)len);
    }
    const int len = snprintf(frame, sizeof frame,
                             "{\"type\":\"final\",\"session_id\":\"%.36s\",\"turn\":%lld,"
                             "\"content\":\"the weather is fine\"}",
                             sid + 14, turn);
    load_queue(w, frame, (size_t)len);
    load_flush(w);
}

void bench_turns(struct bench *b)
{
    static const bool never = false;
    bench_gate(b, NULL);
    memset(&t, 0, sizeof t);
    bench_worker(b, &t.worker, SESSIONS, worker_text);
    for (int i = 0; i < SESSIONS; i++) {
        t.conns[i] = (struct lc){.on_open = client_open, .on_text = client_text};
        load_connect(&t.conns[i], &b->client);
    }
    if (!load_run(&t.all_ready, 30000000)) {
        load_die("turns: no welcome");
    }
    for (int i = 0; i < SESSIONS; i++) {
        say(&t.conns[i]);
    }
    load_run(&never, b->measure_us / 3);
    t.measuring = true;
    const int64_t start = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    t.over = true;
    report("whole turns, 200 sessions", (double)t.turns * (TOKENS + 2) / seconds, "events/s",
           lat_q(&t.lat, 0.5), lat_q(&t.lat, 0.99));
    for (int i = 0; i < SESSIONS; i++) {
        load_close(&t.conns[i]);
    }
    load_close(&t.worker);
    lat_free(&t.lat);
}

/* --- fan-out --- */

static struct {
    struct lc *conns;
    int n, ready;
    bool all_ready, measuring, over;
    unsigned long deliveries;
    char session[64];
    struct lc publisher;
    unsigned long published;
} f;

static void follower_text(struct lc *c, const char *text, size_t n)
{
    (void)c;
    if (load_has(text, n < 30 ? n : 30, "\"x.bench\"")) {
        f.deliveries += f.measuring;
    } else if (load_has(text, n, "\"hello_ok\"")) {
        if (!f.session[0]) {
            snprintf(f.session, sizeof f.session, "%.36s",
                     (const char *)memmem(text, n, "\"session_id\":\"", 14) + 14);
        }
        f.all_ready = ++f.ready == f.n;
    }
}

static void follower_open(struct lc *c)
{
    if (f.session[0]) {
        load_sendf(c,
                   "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"%s\","
                   "\"capabilities\":[\"streaming\"]}",
                   f.session);
    } else {
        load_sendf(c,
                   "{\"type\":\"hello\",\"agent_id\":\"bench\",\"capabilities\":[\"streaming\"]}");
    }
}

static void publish(struct lc *w)
{
    char frame[400];
    const int n = snprintf(frame, sizeof frame,
                           "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.bench\","
                           "\"data\":\"%0100lu\"}",
                           f.session, f.published++);
    load_queue(w, frame, (size_t)n);
}

static void publisher_text(struct lc *w, const char *text, size_t n)
{
    if (load_has(text, n, "\"emitted\"") && !f.over) {
        publish(w);
        load_flush(w);
    }
}

static void fan_out(struct bench *b, int n)
{
    static const bool never = false;
    char name[64];
    memset(&f, 0, sizeof f);
    f.conns = calloc((size_t)n, sizeof *f.conns);
    bench_gate(b, NULL);
    f.n = 1;
    for (int i = 0; i < n; i++) {
        f.conns[i] = (struct lc){.on_open = follower_open, .on_text = follower_text};
        load_connect(&f.conns[i], &b->client);
        if (i == 0) {
            load_run(&f.all_ready, 10000000);
            f.n = n;
            f.all_ready = n == 1;
        }
    }
    if (!load_run(&f.all_ready, 30000000)) {
        load_die("fan-out: no welcome");
    }
    bench_worker(b, &f.publisher, 1, publisher_text);
    for (int i = 0; i < 8; i++) {
        publish(&f.publisher);
    }
    load_flush(&f.publisher);
    load_run(&never, b->measure_us / 3);
    f.measuring = true;
    const int64_t start = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    f.over = true;
    snprintf(name, sizeof name, "fan-out, %d followers", n);
    report(name, (double)f.deliveries / seconds, "deliveries/s", -1, -1);
    for (int i = 0; i < n; i++) {
        if (f.conns[i].closed) {
            load_die("fan-out: a follower was closed, code %d", f.conns[i].close_code);
        }
        load_close(&f.conns[i]);
    }
    load_close(&f.publisher);
    free(f.conns);
}

void bench_fanout(struct bench *b)
{
    fan_out(b, 100);
    fan_out(b, 1000);
}
