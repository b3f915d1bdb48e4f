/*
 * runs_move.c - part of runs.h: writing entries into a new run, from what is frozen of the tail or
 * from the runs that it takes the place of.
 *
 * Each call goes on behind the last whole row that it wrote, and ends with one; what was collected
 * for a row that did not become whole is looked at again by the next call.
 */
#include <stdlib.h>
#include <string.h>

#include "store/runs_int.h"

/* A run that is merged: where it is, and statements of its own. */
struct eg_merge_input {
    sqlite3_stmt *places, *rows;
    bool more;
    int i, n; /* of the present row */
    int64_t sid;
    uint64_t cursor; /* of places[i] */
    int64_t seq[EG_PACK_PLACES];
    struct eg_packed_ids ids;
    struct eg_pack_id id; /* at i */
};

/* Consecutive places of one session that become a row. */
struct places {
    int64_t sid;
    uint64_t last;
    int n;
    int64_t seq[EG_PACK_PLACES];
};

/* ---- writing ---- */

static void put_places(struct eg_sqlite *s, struct eg_run_work *w, struct places *p)
{
    struct eg_buf *row = &s->runs.row;
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_PLACES_PUT);
    if (p->n == 0 || st == NULL) {
        return;
    }
    eg_buf_reset(row);
    eg_pack_places(row, p->seq, p->n);
    if (row->err != EG_OK) {
        s->err = row->err;
        return;
    }
    (void)sqlite3_bind_int64(st, 1, w->run);
    (void)sqlite3_bind_int64(st, 2, p->sid);
    (void)sqlite3_bind_int64(st, 3, (int64_t)p->last);
    (void)sqlite3_bind_blob64(st, 4, row->p, row->n, SQLITE_STATIC);
    eg_sq_run(s, st, "write a run");
    p->n = 0;
}

static void put_ids(struct eg_sqlite *s, struct eg_run_work *w)
{
    struct eg_pack_ids *ids = &s->runs.ids;
    struct eg_buf *row = &s->runs.row;
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_IDS_PUT);
    if (ids->n == 0 || st == NULL) {
        return;
    }
    const uint64_t first = ids->v[0].hash;
    eg_runs_fill(&s->runs, ids);
    eg_buf_reset(row);
    eg_pack_ids_take(ids, row);
    if (row->err != EG_OK) {
        s->err = row->err;
        return;
    }
    (void)sqlite3_bind_int64(st, 1, eg_runs_place(w->run, first));
    (void)sqlite3_bind_blob64(st, 2, row->p, row->n, SQLITE_STATIC);
    eg_sq_run(s, st, "write a run");
}

/* Whether the place fits behind those that are collected. */
static bool fits(const struct places *p, int64_t sid, uint64_t cursor)
{
    return p->n == 0 || (p->n < EG_PACK_PLACES && p->sid == sid && p->last + 1 == cursor);
}

static void collect(struct places *p, int64_t sid, uint64_t cursor, int64_t seq)
{
    p->sid = sid;
    p->last = cursor;
    p->seq[p->n++] = seq;
}

static void collect_id(struct eg_sqlite *s, struct eg_pack_id id)
{
    const enum eg_err e = eg_pack_ids_add(&s->runs.ids, id);
    s->err = s->err == EG_OK ? e : s->err;
}

/* ---- from what is frozen ---- */

static bool frozen_places(struct eg_sqlite *s, struct eg_run_work *w)
{
    struct places p = {.n = 0};
    const struct eg_tail_entry *e;
    for (uint32_t i = w->at; s->err == EG_OK && (e = eg_tail_place_at(s->tail, i)) != NULL; i++) {
        if (!fits(&p, e->sid, e->cursor)) {
            put_places(s, w, &p);
            w->at = i;
            if (w->credit <= 0) {
                return false;
            }
        }
        w->credit--;
        if (e->seq != 0) {
            collect(&p, e->sid, e->cursor, e->seq);
        }
    }
    put_places(s, w, &p);
    return s->err == EG_OK;
}

static bool frozen_ids(struct eg_sqlite *s, struct eg_run_work *w)
{
    const struct eg_tail_entry *e;
    for (uint32_t i = w->at; s->err == EG_OK && (e = eg_tail_id_at(s->tail, i)) != NULL; i++) {
        const struct eg_pack_id id = {eg_pack_hash(e->sid, e->key), e->seq};
        if (e->seq == 0) {
            continue;
        }
        if (!eg_pack_ids_room(&s->runs.ids, id)) {
            put_ids(s, w);
            w->at = i;
            if (w->credit <= 0) {
                return false;
            }
        }
        w->credit--;
        collect_id(s, id);
    }
    put_ids(s, w);
    return s->err == EG_OK;
}

/* ---- from runs ---- */

/* The next row of a statement; false at the end or on failure, which is latched. */
static bool step(struct eg_sqlite *s, struct eg_merge_input *in, sqlite3_stmt *st)
{
    const int rc = s->err == EG_OK ? sqlite3_step(st) : SQLITE_DONE;
    in->more = rc == SQLITE_ROW;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        (void)eg_sq_latch(s, "read a run", rc);
    }
    if (!in->more) {
        (void)sqlite3_reset(st);
    }
    return in->more;
}

static void damaged(struct eg_sqlite *s, struct eg_merge_input *in)
{
    in->more = false;
    (void)eg_sq_latch(s, "read a run", SQLITE_CORRUPT);
}

static void next_places(struct eg_sqlite *s, struct eg_merge_input *in)
{
    if (!step(s, in, in->places)) {
        return;
    }
    const uint64_t last = (uint64_t)sqlite3_column_int64(in->places, 1);
    in->sid = sqlite3_column_int64(in->places, 0);
    const struct eg_slice row = eg_db_blob(in->places, 2);
    in->n = row.n > 0 ? eg_unpack_places(row, in->seq) : -1;
    in->i = 0;
    if (in->n < 0 || (uint64_t)in->n > last) {
        damaged(s, in);
    } else {
        in->cursor = last - (uint64_t)in->n + 1;
    }
}

static void next_id(struct eg_sqlite *s, struct eg_merge_input *in)
{
    if (++in->i >= in->n) {
        if (!step(s, in, in->rows)) {
            return;
        }
        const uint64_t first = (uint64_t)sqlite3_column_int64(in->rows, 0) & EG_PACK_HASH_MASK;
        if (!eg_packed_ids_open(&in->ids, first, eg_db_blob(in->rows, 1))) {
            damaged(s, in);
            return;
        }
        in->n = in->ids.n;
        in->i = 0;
    }
    in->id = eg_packed_ids_at(&in->ids, in->i);
}

static enum eg_err make_inputs(struct eg_sqlite *s, const struct eg_run_work *w)
{
    if (s->runs.input == NULL) {
        s->runs.input = calloc(EG_RUNS_INPUTS, sizeof(*s->runs.input));
    }
    for (int i = 0; s->runs.input != NULL && i < w->ins; i++) {
        struct eg_merge_input *in = &s->runs.input[i];
        if (in->places == NULL &&
            sqlite3_prepare_v3(s->db, EG_RUNS_PLACES_SQL, -1, SQLITE_PREPARE_PERSISTENT,
                               &in->places, NULL) != SQLITE_OK) {
            return EG_ENOMEM;
        }
        if (in->rows == NULL &&
            sqlite3_prepare_v3(s->db, EG_RUNS_IDS_SQL, -1, SQLITE_PREPARE_PERSISTENT, &in->rows,
                               NULL) != SQLITE_OK) {
            return EG_ENOMEM;
        }
    }
    return s->runs.input != NULL ? EG_OK : EG_ENOMEM;
}

/* Sets the inputs behind w's position. */
static void begin_places(struct eg_sqlite *s, const struct eg_run_work *w,
                         struct eg_merge_input *in, int64_t run)
{
    (void)sqlite3_bind_int64(in->places, 1, run);
    (void)sqlite3_bind_int64(in->places, 2, (int64_t)w->a);
    (void)sqlite3_bind_int64(in->places, 3, w->b);
    next_places(s, in);
    if (in->more && (uint64_t)in->sid == w->a && (int64_t)in->cursor <= w->b) {
        in->i = (int)((uint64_t)w->b + 1 - in->cursor);
        in->cursor = (uint64_t)w->b + 1;
    }
}

static void begin_ids(struct eg_sqlite *s, const struct eg_run_work *w, struct eg_merge_input *in,
                      int64_t run)
{
    const struct eg_pack_id behind = {w->a, w->b + 1};
    (void)sqlite3_bind_int64(in->rows, 1, eg_runs_place(run, 0));
    (void)sqlite3_bind_int64(in->rows, 2, eg_runs_place(run, w->a));
    (void)sqlite3_bind_int64(in->rows, 3, eg_runs_place(run, EG_PACK_HASH_MASK));
    in->i = in->n = 0;
    next_id(s, in);
    if (in->more) {
        in->i = eg_packed_ids_find(&in->ids, behind) - 1;
        next_id(s, in);
    }
}

/* Whether the event of an entry is still there; asked only where some have been removed. */
static bool lives(struct eg_sqlite *s, const struct eg_run_work *w, int64_t seq)
{
    if (!w->check) {
        return true;
    }
    sqlite3_stmt *st = s->st[EG_ST_EVENT_THERE];
    (void)sqlite3_bind_int64(st, 1, seq);
    const enum eg_err e = eg_sq_first(s, st, "read event");
    (void)sqlite3_reset(st);
    return e == EG_OK;
}

/* The input that comes first; NULL at the end. */
static struct eg_merge_input *lowest(struct eg_merge_input *in, int n, bool ids)
{
    struct eg_merge_input *low = NULL;
    for (int i = 0; i < n; i++) {
        if (!in[i].more) {
            continue;
        }
        const bool first =
            low == NULL ||
            (ids ? in[i].id.hash < low->id.hash ||
                       (in[i].id.hash == low->id.hash && in[i].id.seq < low->id.seq)
                 : in[i].sid < low->sid || (in[i].sid == low->sid && in[i].cursor < low->cursor));
        low = first ? &in[i] : low;
    }
    return low;
}

/* Writes what is collected; w goes on behind it. */
static void put_merged(struct eg_sqlite *s, struct eg_run_work *w, struct places *p)
{
    if (p->n > 0) {
        w->a = (uint64_t)p->sid;
        w->b = (int64_t)p->last;
        put_places(s, w, p);
    }
}

/* False when the credit is used up. */
static bool merge_places(struct eg_sqlite *s, struct eg_run_work *w)
{
    struct eg_merge_input *in;
    struct places p = {.n = 0};
    while (s->err == EG_OK && (in = lowest(s->runs.input, w->ins, false)) != NULL) {
        /* A row holds one session's places, and those of the other inputs are later ones. */
        for (; in->i < in->n && s->err == EG_OK; in->i++, in->cursor++) {
            if (!fits(&p, in->sid, in->cursor)) {
                put_merged(s, w, &p);
            }
            if (p.n == 0 && w->credit <= 0) {
                return false;
            }
            w->credit--;
            if (lives(s, w, in->seq[in->i])) {
                collect(&p, in->sid, in->cursor, in->seq[in->i]);
            } else if (p.n == 0) {
                w->a = (uint64_t)in->sid;
                w->b = (int64_t)in->cursor;
            }
        }
        next_places(s, in);
    }
    put_merged(s, w, &p);
    return s->err == EG_OK;
}

static bool merge_ids(struct eg_sqlite *s, struct eg_run_work *w)
{
    struct eg_merge_input *in;
    struct eg_pack_ids *ids = &s->runs.ids;
    while ((in = lowest(s->runs.input, w->ins, true)) != NULL && s->err == EG_OK) {
        const struct eg_pack_id id = in->id;
        if (lives(s, w, id.seq)) {
            if (!eg_pack_ids_room(ids, id)) {
                const struct eg_pack_id last = ids->v[ids->n - 1];
                put_ids(s, w);
                w->a = last.hash;
                w->b = last.seq;
            }
            if (ids->n == 0 && w->credit <= 0) {
                return false;
            }
            collect_id(s, id);
        } else if (ids->n == 0) {
            w->a = id.hash;
            w->b = id.seq;
            if (w->credit <= 0) {
                return false;
            }
        }
        w->credit--;
        next_id(s, in);
    }
    put_ids(s, w);
    return s->err == EG_OK;
}

static bool merge(struct eg_sqlite *s, struct eg_run_work *w)
{
    s->err = s->err == EG_OK ? make_inputs(s, w) : s->err;
    if (s->err != EG_OK) {
        return false;
    }
    for (int i = 0; i < w->ins; i++) {
        (w->ids ? begin_ids : begin_places)(s, w, &s->runs.input[i], w->in[i]);
    }
    const bool done = (w->ids ? merge_ids : merge_places)(s, w);
    for (int i = 0; i < w->ins; i++) {
        (void)sqlite3_reset(s->runs.input[i].places);
        (void)sqlite3_reset(s->runs.input[i].rows);
    }
    return done;
}

/* ---- the steps of a work ---- */

bool eg_runs_move(struct eg_sqlite *s, struct eg_run_work *w)
{
    while (s->err == EG_OK && w->credit > 0) {
        bool done;
        s->runs.ids.n = 0;
        if (w->ins == 0) {
            done = w->ids ? frozen_ids(s, w) : frozen_places(s, w);
        } else {
            done = merge(s, w);
        }
        if (!done) {
            return false;
        }
        if (w->ids) {
            return true;
        }
        w->ids = true;
        w->at = 0;
        w->a = 0;
        w->b = -1;
    }
    return false;
}

enum eg_err eg_runs_behind(struct eg_sqlite *s, struct eg_run_work *w)
{
    sqlite3_stmt *st = s->st[EG_ST_RUN_IDS_AT];
    struct eg_packed_ids ids;
    (void)sqlite3_bind_int64(st, 1, eg_runs_place(w->run, 0));
    (void)sqlite3_bind_int64(st, 2, eg_runs_place(w->run, EG_PACK_HASH_MASK));
    enum eg_err e = eg_sq_first(s, st, "read a run");
    if (e == EG_OK) {
        const uint64_t first = (uint64_t)sqlite3_column_int64(st, 0) & EG_PACK_HASH_MASK;
        e = eg_packed_ids_open(&ids, first, eg_db_blob(st, 1)) ? EG_OK : EG_ECORRUPT;
        if (e == EG_OK) {
            const struct eg_pack_id last = eg_packed_ids_at(&ids, ids.n - 1);
            w->ids = true;
            w->a = last.hash;
            w->b = last.seq;
        }
        (void)sqlite3_reset(st);
        return e;
    }
    st = s->st[EG_ST_RUN_PLACES_LAST];
    (void)sqlite3_bind_int64(st, 1, w->run);
    e = e == EG_ENOTFOUND ? eg_sq_first(s, st, "read a run") : e;
    if (e == EG_OK) {
        w->a = (uint64_t)sqlite3_column_int64(st, 0);
        w->b = sqlite3_column_int64(st, 1);
        (void)sqlite3_reset(st);
    }
    return e == EG_ENOTFOUND ? EG_OK : e;
}

void eg_runs_inputs_free(struct eg_runs *r)
{
    for (int i = 0; r->input != NULL && i < EG_RUNS_INPUTS; i++) {
        (void)sqlite3_finalize(r->input[i].places);
        (void)sqlite3_finalize(r->input[i].rows);
    }
    free(r->input);
    r->input = NULL;
}
