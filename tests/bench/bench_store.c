/*
 * bench_store.c - what the schema costs: group commit into the real store, no network.
 *
 *   bench_store [--sessions N] [--batch N] [--seconds S] [--ids 0|1] [--turns 0|1] [--preload N]
 *
 * As many publishes as a batch holds are outstanding; each batch is one transaction in which a
 * publish does what the core does for it: look for its id, append an event, queue and end a turn,
 * and at the end one update a session touched. Sessions are hit evenly at random, which is the
 * expensive case. Checkpoints run as in the daemon. Prints one line.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/sqlite.h"

#define BODY 300

struct bench {
    struct eg_storage *store;
    struct eg_session_row *rows;
    int *touched;
    long *stamp; /* batch that touched the session last */
    long sessions, batch, batches, events, ids, turns;
    uint64_t random;
    int64_t *latency_us;
    long latencies;
};

static uint64_t next_random(struct bench *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

static void must(enum eg_err e, struct bench *b, const char *what)
{
    if (e != EG_OK) {
        fprintf(stderr, "bench_store: %s: %s (%s)\n", what, eg_err_text(e),
                b->store != NULL ? eg_sqlite_why(b->store) : "");
        exit(1);
    }
}

static void make_sessions(struct bench *b)
{
    struct eg_storage *s = b->store;
    must(s->ops->begin(s), b, "begin");
    for (long i = 0; i < b->sessions; i++) {
        struct eg_session_row *r = &b->rows[i];
        eg_uuid7(1700000000000 + i, r->id);
        (void)snprintf(r->agent, sizeof(r->agent), "agent-%ld", i % 7);
        (void)snprintf(r->owner, sizeof(r->owner), "user-%ld", i);
        r->oldest = 1;
        r->created_ms = r->updated_ms = 1700000000000 + i;
        s->ops->session_insert(s, r);
    }
    must(s->ops->commit(s), b, "commit");
}

static void publish(struct bench *b, struct eg_session_row *row, int64_t now)
{
    struct eg_storage *s = b->store;
    char body[BODY + 1];
    uint8_t idkey[EG_IDKEY_BYTES];
    char id[40];
    row->cursor++;
    int n = snprintf(body, sizeof(body),
                     "{\"type\":\"message\",\"session_id\":\"%s\",\"cursor\":%llu,\"pad\":\"",
                     row->id, (unsigned long long)row->cursor);
    memset(body + n, 'x', (size_t)(BODY - n));
    memcpy(body + BODY - 2, "\"}", 3);
    struct eg_slice text = {body, BODY};
    if (b->ids != 0) {
        uint64_t found = 0;
        struct eg_bytes *old = NULL;
        (void)snprintf(id, sizeof(id), "m-%ld", b->events);
        eg_idkey('m', eg_slice_cstr(row->owner), eg_slice_cstr(id), idkey);
        if (s->ops->event_by_idkey(s, row->sid, idkey, &found, &old) != EG_ENOTFOUND) {
            must(EG_EEXISTS, b, "id");
        }
    }
    eg_chain_next(row->hash, text, row->hash);
    struct eg_event_row event = {row->sid, row->cursor, row->hash, b->ids != 0 ? idkey : NULL,
                                 text};
    s->ops->event_append(s, &event);
    if (b->turns != 0) {
        struct eg_turn_row turn = {.sid = row->sid, .turn = row->cursor, .created_ms = now};
        s->ops->turn_put(s, &turn);
        if (row->cursor > 2) {
            s->ops->turn_delete(s, row->sid, row->cursor - 2);
        }
    }
    row->bytes += BODY;
    row->updated_ms = now;
    b->events++;
}

static void run_batch(struct bench *b)
{
    struct eg_storage *s = b->store;
    long touched = 0;
    int64_t start = eg_clock_mono_us();
    int64_t now = 1700000000000 + start / 1000;
    b->batches++;
    must(s->ops->begin(s), b, "begin");
    for (long i = 0; i < b->batch; i++) {
        long at = (long)(next_random(b) % (uint64_t)b->sessions);
        publish(b, &b->rows[at], now);
        if (b->stamp[at] != b->batches) {
            b->stamp[at] = b->batches;
            b->touched[touched++] = (int)at;
        }
    }
    for (long i = 0; i < touched; i++) {
        s->ops->session_update(s, &b->rows[b->touched[i]]);
    }
    must(s->ops->commit(s), b, "commit");
    if (b->latency_us != NULL && b->latencies < 10000000) {
        b->latency_us[b->latencies++] = eg_clock_mono_us() - start;
    }
    if (eg_sqlite_wal_pages(s) >= 500) {
        must(eg_sqlite_checkpoint(s), b, "checkpoint");
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec +
           u.ru_stime.tv_usec;
}

static long long written_bytes(void)
{
    long long n = 0;
    char line[128];
    FILE *f = fopen("/proc/self/io", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        (void)sscanf(line, "wchar: %lld", &n);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"sessions", 1, 0, 's'},
                                            {"batch", 1, 0, 'b'},
                                            {"seconds", 1, 0, 't'},
                                            {"ids", 1, 0, 'i'},
                                            {"turns", 1, 0, 'q'},
                                            {"preload", 1, 0, 'p'},
                                            {0, 0, 0, 0}};
    struct bench b = {
        .sessions = 500, .batch = 500, .ids = 1, .turns = 1, .random = 88172645463325252u};
    char dir[] = "/tmp/bench_store.XXXXXX";
    char why[256] = "";
    char command[64];
    long seconds = 5;
    long preload = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        long v = optarg != NULL ? atol(optarg) : -1;
        switch (c) {
        case 's':
            b.sessions = v;
            break;
        case 'b':
            b.batch = v;
            break;
        case 't':
            seconds = v;
            break;
        case 'i':
            b.ids = v;
            break;
        case 'q':
            b.turns = v;
            break;
        case 'p':
            preload = v;
            break;
        default:
            return 64;
        }
    }
    if (b.sessions < 1 || b.batch < 1 || mkdtemp(dir) == NULL) {
        return 64;
    }
    b.rows = calloc((size_t)b.sessions, sizeof(*b.rows));
    b.stamp = calloc((size_t)b.sessions, sizeof(*b.stamp));
    b.touched = calloc((size_t)b.batch, sizeof(*b.touched));
    if (b.rows == NULL || b.stamp == NULL || b.touched == NULL ||
        eg_sqlite_open(dir, &b.store, why, sizeof(why)) != EG_OK) {
        fprintf(stderr, "bench_store: %s\n", why);
        return 1;
    }
    make_sessions(&b);
    long batch = b.batch;
    b.batch = batch > 1000 ? batch : 1000;
    b.touched = realloc(b.touched, (size_t)b.batch * sizeof(*b.touched));
    while (b.events < preload) {
        run_batch(&b);
    }
    b.batch = batch;
    long before = b.events;
    b.latency_us = calloc(10000000, sizeof(*b.latency_us));
    int64_t start = eg_clock_mono_us();
    int64_t cpu = cpu_us();
    long long io = written_bytes();
    while (eg_clock_mono_us() - start < seconds * 1000000) {
        run_batch(&b);
    }
    double took = (double)(eg_clock_mono_us() - start) / 1e6;
    double n = (double)(b.events - before);
    qsort(b.latency_us, (size_t)b.latencies, sizeof(*b.latency_us), by_value);
    printf(
        "sessions=%ld batch=%ld ids=%ld turns=%ld preload=%ld events_per_s=%.0f cpu_us_per_event="
        "%.2f written_bytes_per_event=%.0f commit_p50_us=%lld commit_p99_us=%lld\n",
        b.sessions, b.batch, b.ids, b.turns, preload, n / took, (double)(cpu_us() - cpu) / n,
        (double)(written_bytes() - io) / n, (long long)b.latency_us[b.latencies / 2],
        (long long)b.latency_us[b.latencies * 99 / 100]);
    b.store->ops->close(b.store);
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) == 0 ? 0 : 1;
}
