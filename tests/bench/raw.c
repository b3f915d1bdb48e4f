/*
 * raw.c - see raw.h.
 */
#include "raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "store/sqlite.h"

struct raw {
    struct eg_storage *store;
    struct raw_options o;
    struct eg_session_row *rows;
    int *touched;
    long *stamp; /* batch that touched the session last */
    long batches, events;
    uint64_t random;
};

static uint64_t next_random(struct raw *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static void must(enum eg_err e, struct raw *w, const char *what)
{
    if (e != EG_OK) {
        load_die("%s: %s (%s)", what, eg_err_text(e),
                 w->store != NULL ? eg_sqlite_why(w->store) : "");
    }
}

static void make_sessions(struct raw *w)
{
    struct eg_storage *s = w->store;
    must(s->ops->begin(s), w, "begin");
    for (long i = 0; i < w->o.sessions; i++) {
        struct eg_session_row *r = &w->rows[i];
        eg_uuid7(1700000000000 + i, r->id);
        if (w->o.agent) {
            (void)snprintf(r->agent, sizeof(r->agent), "%s", w->o.agent);
        } else {
            (void)snprintf(r->agent, sizeof(r->agent), "agent-%ld", i % 7);
        }
        (void)snprintf(r->owner, sizeof(r->owner), "user-%ld", i);
        r->oldest = 1;
        r->created_ms = r->updated_ms = 1700000000000 + i;
        s->ops->session_insert(s, r);
    }
    must(s->ops->commit(s), w, "commit");
}

static void publish(struct raw *w, struct eg_session_row *row, int64_t now)
{
    struct eg_storage *s = w->store;
    char body[RAW_EVENT_BYTES + 1];
    uint8_t idkey[EG_IDKEY_BYTES];
    char id[40];
    row->cursor++;
    int n = snprintf(body, sizeof(body),
                     "{\"type\":\"message\",\"session_id\":\"%s\",\"cursor\":%llu,\"seq\":%llu,"
                     "\"event_id\":\"%s\",\"timestamp\":1795350871.896,\"source\":\"client:u\","
                     "\"data\":{\"content\":\"",
                     row->id, (unsigned long long)row->cursor, (unsigned long long)row->cursor,
                     row->id);
    memset(body + n, 'x', (size_t)(RAW_EVENT_BYTES - n));
    memcpy(body + RAW_EVENT_BYTES - 3, "\"}}", 4);
    struct eg_slice text = {body, RAW_EVENT_BYTES};
    if (w->o.ids) {
        uint64_t found = 0;
        struct eg_bytes *old = NULL;
        (void)snprintf(id, sizeof(id), "m-%ld", w->events);
        eg_idkey('m', eg_slice_cstr(row->owner), eg_slice_cstr(id), idkey);
        if (s->ops->event_by_idkey(s, row->sid, idkey, &found, &old) != EG_ENOTFOUND) {
            must(EG_EEXISTS, w, "id");
        }
    }
    eg_chain_next(row->hash, text, row->hash);
    struct eg_event_row event = {row->sid, row->cursor, row->hash, w->o.ids ? idkey : NULL, text};
    s->ops->event_append(s, &event);
    if (w->o.turns) {
        struct eg_turn_row turn = {.sid = row->sid, .turn = row->cursor, .created_ms = now};
        s->ops->turn_put(s, &turn);
        if (row->cursor > 2) {
            s->ops->turn_delete(s, row->sid, row->cursor - 2);
        }
    }
    row->bytes += RAW_EVENT_BYTES;
    row->updated_ms = now;
    w->events++;
}

static void run_batch(struct raw *w, long batch)
{
    struct eg_storage *s = w->store;
    long touched = 0;
    int64_t now = 1700000000000 + load_now_us() / 1000;
    w->batches++;
    must(s->ops->begin(s), w, "begin");
    for (long i = 0; i < batch; i++) {
        long at = (long)(next_random(w) % (uint64_t)w->o.sessions);
        publish(w, &w->rows[at], now);
        if (w->stamp[at] != w->batches) {
            w->stamp[at] = w->batches;
            w->touched[touched++] = (int)at;
        }
    }
    for (long i = 0; i < touched; i++) {
        s->ops->session_update(s, &w->rows[w->touched[i]]);
    }
    must(s->ops->commit(s), w, "commit");
    must(s->ops->maintain(s), w, "maintain");
}

struct raw *raw_open(const char *dir, const struct raw_options *o)
{
    char why[256] = "";
    struct raw *w = calloc(1, sizeof *w);
    if (w) {
        w->o = *o;
        w->random = 88172645463325252u;
        w->rows = calloc((size_t)o->sessions, sizeof(*w->rows));
        w->stamp = calloc((size_t)o->sessions, sizeof(*w->stamp));
        w->touched = calloc((size_t)o->batch, sizeof(*w->touched));
    }
    if (!w || !w->rows || !w->stamp || !w->touched) {
        load_die("out of memory");
    }
    if (eg_sqlite_open(dir, &w->store, why, sizeof(why)) != EG_OK) {
        load_die("%s", why);
    }
    make_sessions(w);
    return w;
}

double raw_run(struct raw *w, long events, int64_t us, struct lat *lat)
{
    const int64_t start = load_now_us();
    const long before = w->events;
    int64_t now = start;
    while ((events < 0 || w->events - before < events) && (us < 0 || now - start < us)) {
        const long left = events < 0 ? w->o.batch : events - (w->events - before);
        run_batch(w, left < w->o.batch ? left : w->o.batch);
        const int64_t then = load_now_us();
        if (lat) {
            lat_add(lat, then - now);
        }
        now = then;
    }
    return (double)(w->events - before) / ((double)(now - start) / 1e6);
}

long raw_events(const struct raw *w)
{
    return w->events;
}

const char *raw_session(const struct raw *w, long i)
{
    return w->rows[i % w->o.sessions].id;
}

uint64_t raw_cursor(const struct raw *w, long i)
{
    return w->rows[i % w->o.sessions].cursor;
}

void raw_release(struct raw *w)
{
    if (w->store) {
        w->store->ops->close(w->store);
    }
    w->store = NULL;
}

void raw_close(struct raw *w)
{
    raw_release(w);
    free(w->rows);
    free(w->stamp);
    free(w->touched);
    free(w);
}

long long raw_disk_bytes(const char *dir)
{
    static const char *const names[] = {"ebbgate.db", "ebbgate.db-wal"};
    long long n = 0;
    for (int i = 0; i < 2; i++) {
        char path[512];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        n += stat(path, &st) == 0 ? (long long)st.st_size : 0;
    }
    return n;
}
