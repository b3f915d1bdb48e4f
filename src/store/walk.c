/*
 * walk.c - see walk.h.
 *
 * A session's events are dense in its cursors, and those in runs are its older ones, each run's
 * after those of the run before. So a rising walk takes the runs first and then the tail from where
 * they end; a falling one the other way round. An event may be in both. One that has been removed
 * is passed over: runs keep its place, and the tail may have been looked at before.
 */
#include "store/walk.h"

#include <stdlib.h>
#include <string.h>

#include "store/pack.h"

#define OWN_MAX 400000 /* entries of an own tail after which it is read anew */
#define RUN_GAP 8      /* events of others that are cheaper to read over than to look up anew */

#define EVENT_COLUMNS "e.cursor, e.body, e.hash, e.seq"

/* The runs a session may be in, its older events first, or last. */
#define RUNS_OF "SELECT run FROM runs WHERE state=1 AND max_sid>=?1 ORDER BY first_seq"
static const char runs_up_sql[] = RUNS_OF;
static const char runs_down_sql[] = RUNS_OF " DESC";
/* Rows of a run from the one with cursor ?3 on; down to it, from the one with ?4. */
static const char up_sql[] = "SELECT last, seqs FROM run_places WHERE run=?1 AND sid=?2"
                             " AND last>=?3 ORDER BY last";
static const char down_sql[] =
    "SELECT last, seqs FROM run_places WHERE run=?1 AND sid=?2 AND last>=?3 AND last<=coalesce("
    "(SELECT last FROM run_places WHERE run=?1 AND sid=?2 AND last>=?4 ORDER BY last LIMIT 1),?4)"
    " ORDER BY last DESC";
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
    for (int i = 0; i < 2; i++) {
        (void)sqlite3_finalize(w->rows[i]);
        (void)sqlite3_finalize(w->runs[i]);
    }
    (void)sqlite3_finalize(w->at);
    (void)sqlite3_finalize(w->run);
    eg_tail_unref(w->shared);
    eg_tail_unref(w->own);
    free(w->places);
    free(w->packed);
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

static int room(struct eg_tail_place **v, int *cap, int max)
{
    if (max > *cap) {
        struct eg_tail_place *p = realloc(*v, (size_t)max * sizeof(*p));
        if (p == NULL) {
            return SQLITE_NOMEM;
        }
        *v = p;
        *cap = max;
    }
    return SQLITE_OK;
}

static int range(struct eg_walk *w, struct eg_tail *tail, const struct eg_span *span, bool all)
{
    int rc = room(&w->places, &w->places_cap, span->max);
    if (rc == SQLITE_OK) {
        w->found = eg_tail_range(tail, span->sid, span->from, span->to, span->max, span->descending,
                                 all, w->places);
    }
    return rc;
}

struct eg_tail *eg_walk_shared(struct eg_walk *w, const char *path)
{
    if (w->shared != NULL && eg_tail_gone(w->shared)) {
        eg_tail_unref(w->shared);
        w->shared = NULL;
    }
    if (w->shared == NULL && path != NULL) {
        w->shared = eg_tail_attach(path);
    }
    return w->shared;
}

int eg_walk_look(struct eg_walk *w, const char *path, const struct eg_span *span)
{
    w->found = 0;
    return eg_walk_shared(w, path) != NULL ? range(w, w->shared, span, false) : SQLITE_OK;
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

/* Whether the event that was read last is there no more: it was removed, and after a restart the
 * writer may have given its number, and those before it, to others. */
static int last_replaced(struct eg_walk *w, bool *replaced)
{
    *replaced = false;
    if (w->own_sid == 0) {
        return SQLITE_OK;
    }
    int rc = prepare(w, at_sql, &w->at);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(w->at, 1, w->own_last);
        (void)sqlite3_bind_int64(w->at, 2, w->own_sid);
        rc = sqlite3_step(w->at);
        *replaced = rc == SQLITE_DONE ||
                    (rc == SQLITE_ROW && (uint64_t)sqlite3_column_int64(w->at, 0) != w->own_cursor);
        (void)sqlite3_reset(w->at);
    }
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Reads into the own tail what the log has beyond the runs, in the running read transaction. */
static int catch_up(struct eg_walk *w)
{
    sqlite3_stmt *st = NULL;
    int64_t upto = 0;
    int64_t end = 0;
    bool replaced = false;
    if (w->own == NULL && (w->own = eg_tail_new()) == NULL) {
        return SQLITE_NOMEM;
    }
    int rc =
        number(w->db, "SELECT coalesce((SELECT value FROM meta WHERE key='indexed'),0)", &upto);
    if (rc == SQLITE_OK) {
        rc = number(w->db, "SELECT coalesce(max(seq),0) FROM events", &end);
    }
    if (rc == SQLITE_OK) {
        rc = last_replaced(w, &replaced);
    }
    eg_tail_only_writer(&w->own->lock);
    /* Anew, too, when more than it holds has gone into runs: it would have a hole. */
    if (replaced || upto > w->own_last || w->own->fill.n > OWN_MAX) {
        eg_tail_clear(w->own);
        w->own_last = w->own_sid = 0;
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
            const int64_t seq = sqlite3_column_int64(st, 0);
            if (eg_tail_add(w->own, sqlite3_column_int64(st, 1),
                            (uint64_t)sqlite3_column_int64(st, 2), seq, 0) != EG_OK) {
                rc = SQLITE_NOMEM;
                break;
            }
            w->own_last = seq;
            w->own_sid = sqlite3_column_int64(st, 1);
            w->own_cursor = (uint64_t)sqlite3_column_int64(st, 2);
        }
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(st);
    eg_tail_keep(w->own);
    return rc;
}

/* One packed row's places within the span, appended to w->packed; *n of max. False: damaged. */
static bool take_row(struct eg_walk *w, const struct eg_span *span, sqlite3_stmt *st, int max,
                     int *n)
{
    int64_t seq[EG_PACK_PLACES];
    const uint64_t last = (uint64_t)sqlite3_column_int64(st, 0);
    const char *p = sqlite3_column_blob(st, 1);
    const struct eg_slice blob = {p, p != NULL ? (size_t)sqlite3_column_bytes(st, 1) : 0};
    const int have = blob.n > 0 ? eg_unpack_places(blob, seq) : -1;
    if (have < 0 || (uint64_t)have > last) {
        return false;
    }
    const uint64_t first = last - (uint64_t)have + 1;
    for (int i = 0; i < have && *n < max; i++) {
        const int at = span->descending ? have - 1 - i : i;
        const uint64_t cursor = first + (uint64_t)at;
        if (cursor >= span->from && cursor <= span->to) {
            w->packed[(*n)++] = (struct eg_tail_place){cursor, seq[at]};
        }
    }
    return true;
}

/* The places of a span in one run, see gather. */
static int gather_run(struct eg_walk *w, const struct eg_span *span, int64_t run, int max, int *n)
{
    sqlite3_stmt **slot = &w->rows[span->descending];
    int rc = prepare(w, span->descending ? down_sql : up_sql, slot);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(*slot, 1, run);
    (void)sqlite3_bind_int64(*slot, 2, span->sid);
    (void)sqlite3_bind_int64(*slot, 3, limited(span->from));
    if (span->descending) {
        (void)sqlite3_bind_int64(*slot, 4, limited(span->to));
    }
    rc = SQLITE_DONE;
    while (*n < max && (rc = sqlite3_step(*slot)) == SQLITE_ROW) {
        const int before = *n;
        if (!take_row(w, span, *slot, max, n)) {
            rc = SQLITE_CORRUPT;
            break;
        }
        if (*n == before && !span->descending) {
            break; /* beyond the span */
        }
    }
    (void)sqlite3_reset(*slot);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* At most max places of the span that runs hold, in w->packed, in the span's order; *n says how
 * many. */
static int gather(struct eg_walk *w, const struct eg_span *span, int max, int *n)
{
    sqlite3_stmt **runs = &w->runs[span->descending];
    *n = 0;
    int rc = prepare(w, span->descending ? runs_down_sql : runs_up_sql, runs);
    if (rc == SQLITE_OK) {
        rc = room(&w->packed, &w->packed_cap, max);
    }
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(*runs, 1, span->sid);
    while (*n < max && (rc = sqlite3_step(*runs)) == SQLITE_ROW) {
        rc = gather_run(w, span, sqlite3_column_int64(*runs, 0), max, n);
        if (rc != SQLITE_OK) {
            break;
        }
    }
    (void)sqlite3_reset(*runs);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* What is read of places found: n of them, in the span's order, and what comes of it. */
struct reading {
    const struct eg_span *span;
    const struct eg_tail_place *v;
    int n;
    eg_walk_fn *fn;
    void *arg;
    int left;      /* how many may still come; 0 also when fn had enough */
    uint64_t last; /* the cursor given last */
};

static void give(struct reading *r, uint64_t cursor, sqlite3_stmt *st)
{
    r->last = cursor;
    r->left = r->fn(r->arg, cursor, st) ? r->left - 1 : 0;
}

/* Place i by itself. */
static int read_place(struct eg_walk *w, struct reading *r, int i)
{
    int rc = prepare(w, at_sql, &w->at);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(w->at, 1, r->v[i].seq);
    (void)sqlite3_bind_int64(w->at, 2, r->span->sid);
    rc = sqlite3_step(w->at);
    if (rc == SQLITE_ROW && (uint64_t)sqlite3_column_int64(w->at, 0) == r->v[i].cursor) {
        give(r, r->v[i].cursor, w->at);
    }
    (void)sqlite3_reset(w->at);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Places i to end - 1, which lie close together in the log, in one sweep. */
static int sweep(struct eg_walk *w, struct reading *r, int i, int end)
{
    int rc = prepare(w, run_sql, &w->run);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(w->run, 1, r->v[i].seq);
    (void)sqlite3_bind_int64(w->run, 2, r->v[end - 1].seq);
    (void)sqlite3_bind_int64(w->run, 3, r->span->sid);
    while (r->left > 0 && (rc = sqlite3_step(w->run)) == SQLITE_ROW) {
        const int64_t seq = sqlite3_column_int64(w->run, 3);
        while (i < end && r->v[i].seq < seq) {
            i++;
        }
        if (i < end && r->v[i].seq == seq &&
            (uint64_t)sqlite3_column_int64(w->run, 0) == r->v[i].cursor) {
            give(r, r->v[i].cursor, w->run);
        }
    }
    (void)sqlite3_reset(w->run);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* All places of r, the rising ones beyond r->last only. */
static int read_places(struct eg_walk *w, struct reading *r)
{
    const bool rising = !r->span->descending;
    int rc = SQLITE_OK;
    int end;
    for (int i = 0; rc == SQLITE_OK && r->left > 0 && i < r->n; i = end) {
        end = i + 1;
        if (rising && r->v[i].cursor <= r->last) {
            continue;
        }
        while (rising && end < r->n && end - i < r->left && r->v[end].seq > r->v[end - 1].seq &&
               r->v[end].seq - r->v[end - 1].seq <= RUN_GAP) {
            end++;
        }
        rc = end - i > 1 ? sweep(w, r, i, end) : read_place(w, r, i);
    }
    return rc;
}

/* The part that is in runs. */
static int walk_runs(struct eg_walk *w, struct reading *r, struct eg_span *rest)
{
    int rc = SQLITE_OK;
    while (rc == SQLITE_OK && r->left > 0 && rest->from <= rest->to) {
        const int asked = r->left;
        rc = gather(w, rest, asked, &r->n);
        if (rc != SQLITE_OK || r->n == 0) {
            break;
        }
        const uint64_t end = w->packed[r->n - 1].cursor;
        r->v = w->packed;
        rc = read_places(w, r);
        if (r->n < asked) {
            break;
        }
        if (rest->descending) {
            rest->to = end - 1;
        } else {
            rest->from = end + 1;
        }
    }
    return rc;
}

/* With what was found in the tail. */
static int walk(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg)
{
    struct reading r = {.span = span, .fn = fn, .arg = arg, .left = span->max > 0 ? span->max : 0};
    struct eg_span rest = *span;
    int rc = SQLITE_OK;
    if (span->from > span->to) {
        return SQLITE_OK;
    }
    const bool all_in_tail =
        w->found > 0 && w->places[0].cursor <= (span->from > 0 ? span->from : 1);
    if (!span->descending && !all_in_tail) {
        rc = walk_runs(w, &r, &rest);
    }
    if (rc == SQLITE_OK) {
        r.v = w->places;
        r.n = w->found;
        rc = read_places(w, &r);
    }
    if (rc == SQLITE_OK && span->descending) {
        if (w->found > 0) {
            rest.to = w->places[w->found - 1].cursor - 1;
        }
        rc = walk_runs(w, &r, &rest);
    }
    return rc;
}

int eg_walk_place(struct eg_walk *w, int64_t sid, uint64_t cursor, int64_t *seq)
{
    /* From the newest run on: most of what is asked for is young. */
    const struct eg_span span = {sid, cursor, cursor, 1, true};
    int n = 0;
    const int rc = gather(w, &span, 1, &n);
    *seq = n > 0 ? w->packed[0].seq : 0;
    return rc;
}

int eg_walk_newest(struct eg_walk *w, int64_t sid, uint64_t *cursor)
{
    const struct eg_span span = {sid, 0, UINT64_MAX, 1, true};
    int n = 0;
    const int rc = gather(w, &span, 1, &n);
    *cursor = n > 0 ? w->packed[0].cursor : 0;
    return rc;
}

static bool note(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    (void)cursor;
    (void)st;
    *(bool *)arg = true;
    return false;
}

int eg_walk_lowest(struct eg_walk *w, struct eg_tail *tail, int64_t sid, uint64_t to,
                   uint64_t *lowest)
{
    uint64_t low = 1;
    uint64_t high = to + 1;
    int rc = SQLITE_OK;
    while (rc == SQLITE_OK && low < high) {
        const uint64_t middle = low + (high - low) / 2;
        const struct eg_span one = {sid, middle, middle, 1, false};
        bool there = false;
        rc = tail != NULL ? eg_walk_write(w, tail, &one, note, &there)
                          : eg_walk_run(w, &one, note, &there);
        if (there) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *lowest = low;
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
