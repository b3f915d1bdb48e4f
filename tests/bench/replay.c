/*
 * replay.c - missed events: many to one, some to many, and everybody at once after a restart.
 */
#include "bench.h"
#include "live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char (*session)[64];
    int sessions, ready, done, wanted_done;
    bool all_ready, all_done;
    unsigned long events;
    struct lat lat;
    int64_t start;
} r;

static void learn_text(struct lc *c, const char *text, size_t n)
{
    if (load_has(text, n, "\"hello_ok\"")) {
        snprintf(r.session[c->user[0]], 64, "%.36s",
                 (const char *)memmem(text, n, "\"session_id\":\"", 14) + 14);
        r.all_ready = ++r.ready == r.sessions;
    }
}

static void learn_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\"}");
}

/* Fills sessions with events each, published by a worker, 500 in flight. */
static struct {
    unsigned long sent, answered, total;
    bool done;
} fill;

static void fill_more(struct lc *w)
{
    char frame[400];
    while (fill.sent < fill.total && fill.sent - fill.answered < 500) {
        const int n = snprintf(frame, sizeof frame,
                               "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.bench\","
                               "\"data\":\"%0100lu\"}",
                               r.session[fill.sent % (unsigned)r.sessions], fill.sent);
        load_queue(w, frame, (size_t)n);
        fill.sent++;
    }
    load_flush(w);
}

static void fill_text(struct lc *w, const char *text, size_t n)
{
    if (load_has(text, n, "\"emitted\"")) {
        fill.done = ++fill.answered == fill.total;
        if (fill.sent - fill.answered < 250) {
            fill_more(w);
        }
    }
}

static void fill_sessions(struct bench *b, int sessions, int events)
{
    struct lc w, *conns = calloc((size_t)sessions, sizeof *conns);
    memset(&r, 0, sizeof r);
    memset(&fill, 0, sizeof fill);
    r.sessions = sessions;
    r.session = calloc((size_t)sessions, sizeof *r.session);
    for (int i = 0; i < sessions; i++) {
        conns[i] = (struct lc){.on_open = learn_open, .on_text = learn_text, .user = {(uint64_t)i}};
        load_connect(&conns[i], &b->client);
    }
    if (!load_run(&r.all_ready, 60000000)) {
        load_die("replay: %d of %d sessions", r.ready, sessions);
    }
    for (int i = 0; i < sessions; i++) {
        load_close(&conns[i]);
    }
    free(conns);
    bench_worker(b, &w, 1, fill_text);
    fill.total = (unsigned long)sessions * (unsigned long)events;
    fill_more(&w);
    if (!load_run(&fill.done, 120000000)) {
        load_die("replay: the log is not filled");
    }
    load_close(&w);
}

static void resume_text(struct lc *c, const char *text, size_t n)
{
    if (load_has(text, n < 20 ? n : 20, "\"replay\"")) {
        r.events++;
    } else if (load_has(text, n < 30 ? n : 30, "\"replay_end\"")) {
        lat_add(&r.lat, load_now_us() - r.start);
        r.all_done = ++r.done == r.wanted_done;
    } else if (load_has(text, n < 30 ? n : 30, "error\"")) {
        load_die("resume: %.*s", (int)n, text);
    }
    (void)c;
}

static void resume_open(struct lc *c)
{
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"%s\",\"since\":0,"
               "\"capabilities\":[\"streaming\"]}",
               r.session[c->user[0] % (uint64_t)r.sessions]);
}

/* n clients resume, client i in session i modulo sessions; reports the time until all are done. */
static void resume(struct bench *b, int n, const char *name)
{
    struct lc *conns = calloc((size_t)n, sizeof *conns);
    r.done = 0;
    r.all_done = false;
    r.events = 0;
    r.wanted_done = n;
    r.start = load_now_us();
    for (int i = 0; i < n; i++) {
        conns[i] =
            (struct lc){.on_open = resume_open, .on_text = resume_text, .user = {(uint64_t)i}};
        load_connect(&conns[i], &b->client);
    }
    if (!load_run(&r.all_done, 120000000)) {
        load_die("%s: %d of %d resumed", name, r.done, n);
    }
    const double ms = (double)(load_now_us() - r.start) / 1000;
    report(name, ms, "ms", lat_q(&r.lat, 0.5), lat_q(&r.lat, 0.99));
    char rate[80];
    snprintf(rate, sizeof rate, "%.40s, events", name);
    report(rate, (double)r.events / ms * 1000, "events/s", -1, -1);
    for (int i = 0; i < n; i++) {
        load_close(&conns[i]);
    }
    lat_free(&r.lat);
    free(conns);
}

void bench_replay(struct bench *b)
{
    bench_gate(b, NULL);
    fill_sessions(b, 1, 10000);
    resume(b, 1, "replay 10,000 events to one");
    free(r.session);
    fill_sessions(b, 1, 1000);
    resume(b, 100, "replay 1,000 events to each of 100");
    free(r.session);
}

void bench_storm(struct bench *b)
{
    const int n = 5000 / b->scale;
    char name[64];
    bench_gate(b, NULL);
    fill_sessions(b, n, 100);
    tl_gate_kill(b->gate);
    if (!tl_gate_start(b->gate)) {
        load_die("the gateway does not start again: %s", tl_gate_error(b->gate));
    }
    b->client.port = tl_gate_port(b->gate);
    struct live *const live = live_start(&b->client);
    usleep(2000000);
    live_next(live);
    snprintf(name, sizeof name, "%d clients resume after kill -9", n);
    resume(b, n, name);
    double quiet_us, storm_us;
    live_end(live, &quiet_us, &storm_us);
    report("live traffic before that, 99th percentile", quiet_us / 1000, "ms", -1, -1);
    report("live traffic during that, 99th percentile", storm_us / 1000, "ms", -1, -1);
    free(r.session);
}
