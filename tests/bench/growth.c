/*
 * growth.c - the log by itself: raw group commit, the start with many sessions, and what changes
 * as the log grows.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raw.h"

#define GROWTH_SESSIONS 200
#define GROWTH_RESUMES 100
#define GROWTH_EVENTS 1000
#define GROWTH_REPLAYS 5
#define GROWTH_LAST 2000000
#define GROWTH_REST_S 180

static void raw_commit(struct bench *b, long sessions, long batch)
{
    char dir[] = "/tmp/ebbgate-bench.XXXXXX", command[64], name[64];
    const struct raw_options o = {.sessions = sessions, .batch = batch, .ids = true, .turns = true};
    struct lat lat = {0};
    if (!mkdtemp(dir)) {
        load_die("no folder in /tmp");
    }
    struct raw *w = raw_open(dir, &o);
    raw_run(w, -1, b->measure_us / 3, NULL);
    const double rate = raw_run(w, -1, b->measure_us, &lat);
    snprintf(name, sizeof name, "raw group commit, %ld sessions, batch %ld", sessions, batch);
    report(name, rate, "events/s", lat_q(&lat, 0.5), lat_q(&lat, 0.99));
    lat_free(&lat);
    raw_close(w);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0) {
        load_die("%s fails", command);
    }
}

void bench_raw(struct bench *b)
{
    raw_commit(b, 500, 1);
    raw_commit(b, 500, 50);
    raw_commit(b, 500, 500);
    raw_commit(b, 100000, 500);
}

/* Starts the gateway on what is in its folder; reports how long that took. */
static void start_timed(struct bench *b, const char *name)
{
    const int64_t start = load_now_us();
    if (!tl_gate_start(b->gate)) {
        load_die("the gateway does not start: %s", tl_gate_error(b->gate));
    }
    report(name, (double)(load_now_us() - start) / 1000, "ms", -1, -1);
    b->client.port = b->worker.port = tl_gate_port(b->gate);
}

void bench_start(struct bench *b)
{
    const struct raw_options o = {
        .sessions = b->start_sessions / b->scale, .batch = 1000, .ids = true, .agent = "bench"};
    char name[64];
    bench_gate(b, NULL);
    tl_gate_stop(b->gate, 10000);
    struct raw *w = raw_open(tl_gate_dir(b->gate), &o);
    raw_run(w, o.sessions * b->start_events, -1, NULL);
    const long events = raw_events(w);
    raw_close(w);
    report("database for the start", (double)raw_disk_bytes(tl_gate_dir(b->gate)) / 1e6, "MB", -1,
           -1);
    snprintf(name, sizeof name, "start, %ld sessions, %ld events", o.sessions, events);
    start_timed(b, name);
    report("gateway after that start", (double)tl_gate_rss(b->gate) / 1048576, "MiB resident", -1,
           -1);
    tl_gate_kill(b->gate);
    start_timed(b, "  and after kill -9");
}

/* --- growth --- */

static struct {
    const struct raw *w;
    int ready;
    bool all_ready;
    unsigned long events;
} grown;

static void resume_open(struct lc *c)
{
    const uint64_t head = raw_cursor(grown.w, (long)c->user[0]);
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"%s\",\"since\":%llu}",
               raw_session(grown.w, (long)c->user[0]),
               (unsigned long long)(head > GROWTH_EVENTS ? head - GROWTH_EVENTS : 0));
}

static void resume_text(struct lc *c, const char *text, size_t n)
{
    (void)c;
    if (load_has(text, n < 20 ? n : 20, "\"replay\"")) {
        grown.events++;
    } else if (load_has(text, n < 30 ? n : 30, "\"replay_end\"")) {
        grown.all_ready = ++grown.ready == GROWTH_RESUMES;
    } else if (load_has(text, n < 30 ? n : 30, "error\"")) {
        load_die("growth: %.*s", (int)n, text);
    }
}

/* The newest events of half the sessions, all at once; how many a second. */
static double replay_once(const struct load_target *t)
{
    static struct lc conns[GROWTH_RESUMES];
    grown.ready = 0;
    grown.all_ready = false;
    grown.events = 0;
    const int64_t start = load_now_us();
    for (int i = 0; i < GROWTH_RESUMES; i++) {
        conns[i] = (struct lc){
            .on_open = resume_open, .on_text = resume_text, .user = {(uint64_t)(2 * i)}};
        load_connect(&conns[i], t);
    }
    if (!load_run(&grown.all_ready, 60000000)) {
        load_die("growth: %d of %d resumed", grown.ready, GROWTH_RESUMES);
    }
    const double seconds = (double)(load_now_us() - start) / 1e6;
    for (int i = 0; i < GROWTH_RESUMES; i++) {
        load_close(&conns[i]);
    }
    return (double)grown.events / seconds;
}

/* The gateway on the grown log. One replay takes a fifth of a second, so it is done some times. */
static void replay_grown(struct bench *b, const char *size)
{
    static const struct tl_claims all = {
        .sub = "reader", .scope = "read", .sessions = "*", .ttl = 86400};
    char name[64];
    snprintf(name, sizeof name, "start, log of %s events", size);
    start_timed(b, name);
    char *token = tl_gate_token(b->gate, &all);
    const struct load_target t = {.port = tl_gate_port(b->gate), .path = "/ws", .token = token};
    snprintf(name, sizeof name, "replay, log of %s events", size);
    for (int i = 0; i < GROWTH_REPLAYS; i++) {
        report(name, replay_once(&t), "events/s", -1, -1);
    }
    free(token);
    tl_gate_stop(b->gate, 10000);
}

/* After gigabytes many a disk asks back what it lent for a burst, and stays slow for minutes: waits
 * until a flush takes about what it did before. */
static void rest_disk(double before_us, const char *size)
{
    double now_us = bench_flush_us();
    for (int s = 0; now_us > before_us * 1.3 && s < GROWTH_REST_S; s++) {
        sleep(1);
        now_us = bench_flush_us();
    }
    char name[64];
    snprintf(name, sizeof name, "a flush before that, log of %s events", size);
    report(name, now_us, "µs", -1, -1);
}

void bench_growth(struct bench *b)
{
    static const long events[] = {1000000, 4000000, 16000000, 50000000};
    const struct raw_options o = {
        .sessions = GROWTH_SESSIONS, .batch = 500, .ids = true, .agent = "bench"};
    const double flush_us = bench_flush_us();
    for (int i = 0; i < 4 && events[i] <= b->growth_events; i++) {
        /* A database of its own each time, so that the writer's caches begin alike. */
        char name[64], size[16];
        struct lat lat = {0};
        bench_gate(b, NULL);
        tl_gate_stop(b->gate, 10000);
        struct raw *w = raw_open(tl_gate_dir(b->gate), &o);
        /* What is measured holds some times over what is gathered for a run of the index, so that
         * the work of merging is in it as it is in the long run. */
        const long want = events[i] / b->scale;
        const long most = GROWTH_LAST / b->scale;
        const long last = want / 2 < most ? want / 2 : most;
        snprintf(size, sizeof size, "%.6gM", (double)want / 1e6);
        raw_run(w, want - last, -1, NULL);
        rest_disk(flush_us, size);
        const double rate = raw_run(w, last, -1, &lat);
        const long have = raw_events(w);
        snprintf(name, sizeof name, "group commit, log of %s events", size);
        report(name, rate, "events/s", lat_q(&lat, 0.5), lat_q(&lat, 0.99));
        lat_free(&lat);
        grown.w = w;
        /* The gateway needs the lock; the rows that resume reads stay. */
        raw_release(w);
        const double bytes = (double)raw_disk_bytes(tl_gate_dir(b->gate)) / (double)have;
        snprintf(name, sizeof name, "on disk beside the event, log of %s", size);
        report(name, bytes - RAW_EVENT_BYTES, "bytes/event", -1, -1);
        replay_grown(b, size);
        raw_close(w);
    }
}
