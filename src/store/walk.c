/*
 * walk.c - see walk.h.
 *
 * A session's events are dense in its cursors, and what is merged into the tables of them is their
 * older part. So a rising walk takes the tables first and then the tail from where they end; a
 * falling one the other way round. An event may be in both. One that has been removed since the
 * tail was looked at is passed over.
 */
#include "store/walk.h"

#include <stdlib.h>
#include <string.h>

#define OWN_MAX 400000 /* entries of an own tail after which it is read anew */
#define RUN_GAP 8      /* events of others that are cheaper to read over than to look up anew */

#define EVENT_COLUMNS "e.cursor, e.body, e.hash, e.sid, e.idkey, e.seq"

static const char up_sql[] =
    "SELECT " EVENT_COLUMNS " FROM places p CROSS JOIN events e ON e.seq=p.seq"
    " WHERE p.sid=?1 AND p.cursor BETWEEN ?2 AND ?3 ORDER BY p.cursor LIMIT ?4";
static const char down_sql[] =
    "SELECT " EVENT_COLUMNS " FROM places p CROSS JOIN events e ON e.seq=p.seq"
    " WHERE p.sid=?1 AND p.cursor BETWEEN ?2 AND ?3 ORDER BY p.cursor DESC LIMIT ?4";
static const char run_sql[] = "SELECT " EVENT_COLUMNS " FROM events e WHERE e.seq BETWEEN ?1 AND ?2"
                              " AND e.sid=?3 ORDER BY e.seq";
static const char at_sql[] = "SELECT " EVENT_COLUMNS " FROM events e WHERE e.seq=?1 AND e.sid=?2";

int64_t eg_walk_key(const uint8_t *idkey)
{
    uint64_t k = 0;
    for (int i = 0; i < 8; i++) {
        k = k << 8 | idkey[i];
    }
    return k != 0 ? (int64_t)k : 1;
}

void eg_walk_open(struct eg_walk *w, sqlite3 *db)
{
    memset(w, 0, sizeof(*w));
    w->db = db;
}

void eg_walk_close(struct eg_walk *w)
{
    (void)sqlite3_finalize(w->up);
    (void)sqlite3_finalize(w->down);
    (void)sqlite3_finalize(w->at);
    (void)sqlite3_finalize(w->run);
    eg_tail_unref(w->shared);
    eg_tail_unref(w->own);
    free(w->places);
    memset(w, 0, sizeof(*w));
}

static int prepare(struct eg_walk *w, const char *sql, sqlite3_stmt **st)
{
    if (*st != NULL) {
        return SQLITE_OK;
    }
    return sqlite3_prepare_v3(w->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL);
}

static int64_t limited(uint64_t v)
{
    return v < INT64_MAX ? (int64_t)v : INT64_MAX;
}

static int room(struct eg_walk *w, int max)
{
    if (max > w->places_cap) {
        struct eg_tail_place *p = realloc(w->places, (size_t)max * sizeof(*p));
        if (p == NULL) {
            return SQLITE_NOMEM;
        }
        w->places = p;
        w->places_cap = max;
    }
    return SQLITE_OK;
}

static int range(struct eg_walk *w, struct eg_tail *tail, const struct eg_span *span, bool all)
{
    int rc = room(w, span->max);
    if (rc == SQLITE_OK) {
        w->found = eg_tail_range(tail, span->sid, span->from, span->to, span->max, span->descending,
                                 all, w->places);
    }
    return rc;
}

int eg_walk_look(struct eg_walk *w, const char *path, const struct eg_span *span)
{
    w->found = 0;
    if (w->shared != NULL && eg_tail_gone(w->shared)) {
        eg_tail_unref(w->shared);
        w->shared = NULL;
    }
    if (w->shared == NULL && path != NULL) {
        w->shared = eg_tail_attach(path);
    }
    return w->shared != NULL ? range(w, w->shared, span, false) : SQLITE_OK;
}

/* One number from the database. */
static int number(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        *out = sqlite3_column_int64(st, 0);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(st);
    return rc;
}

/* Reads into the own tail what the log has beyond the tables, in the running read transaction. */
static int catch_up(struct eg_walk *w)
{
    sqlite3_stmt *st = NULL;
    int64_t upto = 0;
    int64_t end = 0;
    if (w->own == NULL && (w->own = eg_tail_new()) == NULL) {
        return SQLITE_NOMEM;
    }
    int rc =
        number(w->db, "SELECT coalesce((SELECT value FROM meta WHERE key='indexed'),0)", &upto);
    if (rc == SQLITE_OK) {
        rc = number(w->db, "SELECT coalesce(max(seq),0) FROM events", &end);
    }
    if (end < w->own_last || w->own->fill.n > OWN_MAX) {
        eg_tail_clear(w->own);
        w->own_last = 0;
    }
    w->own_last = w->own_last > upto ? w->own_last : upto;
    if (rc != SQLITE_OK || end <= w->own_last) {
        return rc;
    }
    rc = sqlite3_prepare_v2(w->db, "SELECT seq, sid, cursor FROM events WHERE seq>?1 ORDER BY seq",
                            -1, &st, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(st, 1, w->own_last);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
            w->own_last = sqlite3_column_int64(st, 0);
            if (eg_tail_add(w->own, sqlite3_column_int64(st, 1),
                            (uint64_t)sqlite3_column_int64(st, 2), w->own_last, 0) != EG_OK) {
                rc = SQLITE_NOMEM;
                break;
            }
        }
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(st);
    eg_tail_keep(w->own);
    return rc;
}

/* The part that is in the tables. *left: how many may still come; 0 also when fn had enough.
 * *last: the cursor given last. */
static int walk_tables(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg,
                       int *left, uint64_t *last)
{
    sqlite3_stmt **slot = span->descending ? &w->down : &w->up;
    int rc = prepare(w, span->descending ? down_sql : up_sql, slot);
    if (rc != SQLITE_OK) {
        return rc;
    }
    sqlite3_stmt *st = *slot;
    (void)sqlite3_bind_int64(st, 1, span->sid);
    (void)sqlite3_bind_int64(st, 2, limited(span->from));
    (void)sqlite3_bind_int64(st, 3, limited(span->to));
    (void)sqlite3_bind_int(st, 4, *left);
    while (*left > 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        *last = (uint64_t)sqlite3_column_int64(st, 0);
        *left = fn(arg, *last, st) ? *left - 1 : 0;
    }
    (void)sqlite3_reset(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Place i of what was found in the tail. */
static int place(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg,
                 int *left, int i)
{
    int rc = prepare(w, at_sql, &w->at);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(w->at, 1, w->places[i].seq);
    (void)sqlite3_bind_int64(w->at, 2, span->sid);
    rc = sqlite3_step(w->at);
    if (rc == SQLITE_ROW && (uint64_t)sqlite3_column_int64(w->at, 0) == w->places[i].cursor) {
        *left = fn(arg, w->places[i].cursor, w->at) ? *left - 1 : 0;
    }
    (void)sqlite3_reset(w->at);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Places i to end - 1, which lie close together in the log, in one sweep. */
static int sweep(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg,
                 int *left, int i, int end)
{
    int rc = prepare(w, run_sql, &w->run);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(w->run, 1, w->places[i].seq);
    (void)sqlite3_bind_int64(w->run, 2, w->places[end - 1].seq);
    (void)sqlite3_bind_int64(w->run, 3, span->sid);
    while (*left > 0 && (rc = sqlite3_step(w->run)) == SQLITE_ROW) {
        const int64_t seq = sqlite3_column_int64(w->run, 5);
        while (i < end && w->places[i].seq < seq) {
            i++;
        }
        if (i < end && w->places[i].seq == seq &&
            (uint64_t)sqlite3_column_int64(w->run, 0) == w->places[i].cursor) {
            *left = fn(arg, w->places[i].cursor, w->run) ? *left - 1 : 0;
        }
    }
    (void)sqlite3_reset(w->run);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* The part that was found in the tail, beyond `last` where rising. */
static int walk_tail(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg,
                     int *left, uint64_t last)
{
    int rc = SQLITE_OK;
    int end;
    for (int i = 0; rc == SQLITE_OK && *left > 0 && i < w->found; i = end) {
        end = i + 1;
        if (!span->descending && w->places[i].cursor <= last) {
            continue;
        }
        while (!span->descending && end < w->found && end - i < *left &&
               w->places[end].seq > w->places[end - 1].seq &&
               w->places[end].seq - w->places[end - 1].seq <= RUN_GAP) {
            end++;
        }
        rc = end - i > 1 ? sweep(w, span, fn, arg, left, i, end) : place(w, span, fn, arg, left, i);
    }
    return rc;
}

/* With what was found in the tail. */
static int walk(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg)
{
    int left = span->max > 0 ? span->max : 0;
    uint64_t last = 0;
    int rc = SQLITE_OK;
    struct eg_span rest = *span;
    if (span->from > span->to) {
        return SQLITE_OK;
    }
    if (!span->descending) {
        bool all_in_tail = w->found > 0 && w->places[0].cursor <= (span->from > 0 ? span->from : 1);
        if (!all_in_tail) {
            rc = walk_tables(w, span, fn, arg, &left, &last);
        }
        return rc == SQLITE_OK ? walk_tail(w, span, fn, arg, &left, last) : rc;
    }
    rc = walk_tail(w, span, fn, arg, &left, 0);
    if (w->found > 0) {
        rest.to = w->places[w->found - 1].cursor - 1;
    }
    if (rc == SQLITE_OK && left > 0 && rest.to >= rest.from) {
        rc = walk_tables(w, &rest, fn, arg, &left, &last);
    }
    return rc;
}

int eg_walk_run(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg)
{
    int rc = SQLITE_OK;
    if (w->shared == NULL) {
        rc = catch_up(w);
        if (rc == SQLITE_OK) {
            rc = range(w, w->own, span, false);
        }
    }
    return rc == SQLITE_OK ? walk(w, span, fn, arg) : rc;
}

int eg_walk_write(struct eg_walk *w, struct eg_tail *tail, const struct eg_span *span,
                  eg_walk_fn *fn, void *arg)
{
    int rc = range(w, tail, span, true);
    return rc == SQLITE_OK ? walk(w, span, fn, arg) : rc;
}
