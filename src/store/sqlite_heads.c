/*
 * sqlite_heads.c - the writer's side of heads.h: what a transaction makes of sessions and turns is
 * gathered as one record and written with its commit; the tables sessions and turns follow in bulk.
 *
 * Threads: the writer's. Happy path: writes add to the record; before COMMIT the record becomes a
 * row of changes, and a few entries of the frozen generation go to the tables; after it the record
 * is applied to what is being filled, which is frozen when enough has gathered. meta.settled is
 * written with the last entry of a generation; rows of changes up to it are removed some at a time.
 * On closing everything is brought to the tables. Failure modes: an undone transaction undoes its
 * record and its merging; a full disk leaves the changes where they are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_int.h"

#define MERGE_MIN 64    /* with each commit, beside twice what it changes */
#define TRIM_RECORDS 64 /* removed at once */
#define GATHER_TEXT (4 << 20)
#define GATHER_RECORDS 65536
#define GATHER_BYTES (4 << 20) /* of records: more than eg_sq_gather_heads different ones take */

uint32_t eg_sq_gather_heads = 32768;

/* ---- opening ---- */

static int load_changes(struct eg_sqlite *s, int64_t *first)
{
    const enum eg_err e = eg_db_int(s->db, "SELECT coalesce(min(seq),0) FROM changes", first);
    const int rc =
        e == EG_OK ? eg_heads_catch_up(s->heads, s->db) : sqlite3_extended_errcode(s->db);
    eg_heads_unshared(&s->heads->lock);
    /* A merge that was cut short may have brought any of them to the table. */
    for (uint32_t i = 0; i < s->heads->fill.tn; i++) {
        s->heads->fill.t[i].born = false;
    }
    return rc;
}

enum eg_err eg_sq_heads_load(struct eg_sqlite *s)
{
    int64_t first = 0;
    s->heads = s->tail->heads = eg_heads_new();
    if (s->heads == NULL) {
        return EG_ENOMEM;
    }
    const int rc = load_changes(s, &first);
    if (rc != SQLITE_OK) {
        return eg_sqlite_failed(s, "cannot read the changes", rc);
    }
    eg_heads_unshared(&s->heads->lock);
    s->next_change = s->heads->fill.upto + 1;
    s->trimmed = s->trimmed_kept = first > 0 ? first - 1 : s->heads->settled;
    return EG_OK;
}

/* ---- what is true now ---- */

/* The generations from the newest, this transaction's first; how many. A record that cannot be
 * taken in fails the transaction. */
static int generations(struct eg_sqlite *s, const struct eg_heads_gen *gens[3])
{
    const struct eg_buf *b = &s->change.body;
    int n = 0;
    if (b->n > s->opened && b->err == EG_OK) {
        const enum eg_err e = eg_heads_apply(
            &s->open, (struct eg_slice){b->p + s->opened, b->n - s->opened}, s->next_change);
        s->opened = b->n;
        s->err = s->err == EG_OK ? e : s->err;
    }
    if (s->opened > 0) {
        gens[n++] = &s->open;
    }
    gens[n++] = &s->heads->fill;
    gens[n++] = &s->heads->frozen;
    return n;
}

void eg_sq_heads_patch(struct eg_sqlite *s, struct eg_session_row *row)
{
    const struct eg_heads_gen *gens[3];
    const int n = generations(s, gens);
    for (int i = 0; i < n; i++) {
        const struct eg_head *h = eg_heads_session(gens[i], row->sid);
        if (h != NULL) {
            eg_heads_to_row(gens[i], h, row);
            return;
        }
    }
}

bool eg_sq_heads_turn(struct eg_sqlite *s, int64_t sid, uint64_t turn, struct eg_turn_row *out,
                      enum eg_err *e)
{
    const struct eg_heads_gen *gens[3];
    const int n = generations(s, gens);
    for (int i = 0; i < n; i++) {
        const struct eg_head_turn *t = eg_heads_turn(gens[i], sid, turn);
        if (t != NULL) {
            *e = t->state == EG_TURN_GONE ? EG_ENOTFOUND : EG_OK;
            if (*e == EG_OK) {
                eg_heads_to_turn(gens[i], t, out);
            }
            return true;
        }
    }
    return false;
}

enum eg_err eg_sq_heads_turns(struct eg_sqlite *s, int64_t sid, eg_heads_turn_fn *fn, void *arg)
{
    const struct eg_heads_gen *gens[3];
    const struct eg_turn_span span = {sid, 0, 0};
    sqlite3_stmt *st = s->st[EG_ST_TURNS];
    const int n = generations(s, gens);
    if (s->in_tx && s->err != EG_OK) {
        return s->err;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    const int rc = eg_heads_walk_turns(gens, n, st, &span, fn, arg);
    return rc == SQLITE_OK ? EG_OK : eg_sq_latch(s, "read turns", rc);
}

/* ---- sessions with open turns ---- */

struct open_session {
    int64_t sid, created_ms; /* of the oldest open turn */
    int head;                /* state of the first */
    bool any;
};

static bool look_at_open(void *arg, const struct eg_turn_row *row)
{
    struct open_session *o = arg;
    if (row->state != EG_TURN_DEAD) {
        o->head = o->any ? o->head : (int)row->state;
        o->created_ms = o->any && o->created_ms < row->created_ms ? o->created_ms : row->created_ms;
        o->any = true;
    }
    return true;
}

static int by_sid(const void *a, const void *b)
{
    const struct open_session *x = a;
    const struct open_session *y = b;
    return x->sid < y->sid ? -1 : x->sid > y->sid;
}

static int by_age(const void *a, const void *b)
{
    const struct open_session *x = a;
    const struct open_session *y = b;
    if (x->created_ms != y->created_ms) {
        return x->created_ms < y->created_ms ? -1 : 1;
    }
    return by_sid(a, b);
}

/* The sessions whose turns have changed, with their open turns as they are now. */
static enum eg_err changed_sessions(struct eg_sqlite *s, struct open_session **out, size_t *count)
{
    const struct eg_heads_gen *gens[3];
    const int n = generations(s, gens);
    size_t most = 1;
    size_t got = 0;
    size_t kept = 0;
    enum eg_err e = EG_OK;
    for (int i = 0; i < n; i++) {
        most += gens[i]->tn;
    }
    struct open_session *v = calloc(most, sizeof(*v));
    if (v == NULL) {
        return EG_ENOMEM;
    }
    for (int i = 0; i < n; i++) {
        for (uint32_t k = 0; k < gens[i]->tn; k++) {
            v[got++].sid = gens[i]->t[k].sid;
        }
    }
    qsort(v, got, sizeof(*v), by_sid);
    for (size_t i = 0; e == EG_OK && i < got; i++) {
        if (kept == 0 || v[kept - 1].sid != v[i].sid) {
            v[kept] = (struct open_session){.sid = v[i].sid};
            e = eg_sq_heads_turns(s, v[kept].sid, look_at_open, &v[kept]);
            kept++;
        }
    }
    *out = v;
    *count = kept;
    return e;
}

static enum eg_err tell_changed(struct eg_sqlite *s, const struct open_session *o,
                                eg_open_turn_fn *fn, void *arg)
{
    struct eg_session_row row;
    const enum eg_err e = eg_sq_session_by_sid(&s->base, o->sid, &row);
    if (e == EG_OK) {
        fn(arg, o->sid, row.agent, (enum eg_turn_state)o->head);
    }
    return e == EG_ENOTFOUND ? EG_OK : e;
}

enum eg_err eg_sq_open_turns(struct eg_storage *base, eg_open_turn_fn *fn, void *arg)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = s->st[EG_ST_OPEN_TURNS];
    struct open_session *changed = NULL;
    struct open_session *aged = NULL;
    char agent[EG_ID_MAX + 1];
    size_t n = 0;
    size_t open = 0;
    size_t at = 0;
    enum eg_err e = changed_sessions(s, &changed, &n);
    if (e == EG_OK && (aged = calloc(n + 1, sizeof(*aged))) == NULL) {
        e = EG_ENOMEM;
    }
    if (e != EG_OK) {
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        if (changed[i].any) {
            aged[open++] = changed[i];
        }
    }
    qsort(aged, open, sizeof(*aged), by_age);
    (void)sqlite3_bind_int(st, 1, EG_TURN_DEAD);
    e = eg_sq_first(s, st, "read open turns");
    for (bool row = e == EG_OK; row; row = eg_sq_next(s, st, "read open turns", &e)) {
        const struct open_session here = {.sid = sqlite3_column_int64(st, 0),
                                          .created_ms = sqlite3_column_int64(st, 3)};
        if (n > 0 && bsearch(&here, changed, n, sizeof(*changed), by_sid) != NULL) {
            continue;
        }
        while (e == EG_OK && at < open && by_age(&aged[at], &here) < 0) {
            e = tell_changed(s, &aged[at++], fn, arg);
        }
        eg_db_text(st, 1, agent, sizeof(agent));
        fn(arg, here.sid, agent, (enum eg_turn_state)sqlite3_column_int(st, 2));
    }
    e = e == EG_ENOTFOUND ? EG_OK : e;
    while (e == EG_OK && at < open) {
        e = tell_changed(s, &aged[at++], fn, arg);
    }
out:
    free(aged);
    free(changed);
    return e;
}

/* ---- a transaction ---- */

bool eg_sq_heads_born(const struct eg_sqlite *s, int64_t sid, uint64_t turn)
{
    int64_t seq = 0;
    return s->next_seq > s->next_seq_kept && eg_tail_find(s->tail, sid, turn, &seq) &&
           seq >= s->next_seq_kept;
}

void eg_sq_heads_forget(struct eg_sqlite *s, int64_t sid)
{
    const struct eg_heads_gen *gens[3];
    const int n = generations(s, gens);
    for (int i = 0; i < n && s->err == EG_OK; i++) {
        const struct eg_head_turn *t = eg_heads_turns(gens[i], sid);
        for (; t != NULL; t = t->prev != 0 ? &gens[i]->t[t->prev - 1] : NULL) {
            eg_change_turn_gone(&s->change, sid, t->turn);
        }
    }
}

static void merge_session(struct eg_sqlite *s, const struct eg_heads_gen *g,
                          const struct eg_head *h)
{
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_SESSION_UPDATE);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, h->sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)h->cursor);
    (void)sqlite3_bind_int64(st, 3, (int64_t)h->oldest);
    eg_sq_bind_hash(st, 4, h->hash, false);
    eg_sq_bind_hash(st, 5, h->floor_hash, true);
    (void)sqlite3_bind_int64(st, 6, h->updated_ms);
    (void)sqlite3_bind_int64(st, 7, h->closed_ms);
    (void)sqlite3_bind_int64(st, 8, h->bytes);
    eg_db_bind(st, 9, (struct eg_slice){g->text.p + h->worker, h->worker_n});
    eg_sq_run(s, st, "merge sessions");
}

/* Whether there is such a session still. */
static bool exists(struct eg_sqlite *s, int64_t sid)
{
    sqlite3_stmt *st = s->st[EG_ST_SESSION_SEEN];
    (void)sqlite3_bind_int64(st, 1, sid);
    const bool there = eg_sq_first(s, st, "merge turns") == EG_OK;
    (void)sqlite3_reset(st);
    return there;
}

/* Of a session that is gone nothing is put. *sid is the last one that was found to be there. */
static void merge_turn(struct eg_sqlite *s, const struct eg_heads_gen *g,
                       const struct eg_head_turn *t, int64_t *sid)
{
    const bool gone = t->state == EG_TURN_GONE;
    if (!gone && *sid != t->sid && !exists(s, t->sid)) {
        return;
    }
    sqlite3_stmt *st = eg_sq_writing(s, gone ? EG_ST_TURN_DELETE : EG_ST_TURN_PUT);
    if (st == NULL) {
        return;
    }
    *sid = gone ? *sid : t->sid;
    (void)sqlite3_bind_int64(st, 1, t->sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)t->turn);
    if (!gone) {
        const char *text = g->text.p + t->text;
        (void)sqlite3_bind_int(st, 3, t->state);
        (void)sqlite3_bind_int(st, 4, t->attempt);
        (void)sqlite3_bind_int64(st, 5, t->created_ms);
        (void)sqlite3_bind_int64(st, 6, t->until_ms);
        eg_db_bind(st, 7, (struct eg_slice){text, t->worker_n});
        eg_db_bind(st, 8, (struct eg_slice){text + t->worker_n, t->error_n});
    }
    eg_sq_run(s, st, "merge turns");
}

/* Brings at most budget entries of the frozen generation to the tables. */
static void merge(struct eg_sqlite *s, uint32_t budget)
{
    struct eg_heads *h = s->heads;
    const struct eg_heads_gen *g = &h->frozen;
    int64_t there = 0;
    if (h->order == NULL) {
        return;
    }
    while (s->err == EG_OK && budget-- > 0) {
        const uint32_t at = h->order[h->merged];
        if (at == UINT32_MAX) {
            sqlite3_stmt *st = s->st[EG_ST_SETTLED];
            (void)sqlite3_bind_int64(st, 1, g->upto);
            eg_sq_run(s, st, "merge sessions");
            s->settles = true;
            return;
        }
        if (h->merged < g->n) {
            merge_session(s, g, &g->v[at]);
        } else {
            merge_turn(s, g, &g->t[at], &there);
        }
        h->merged++;
    }
}

static void trim(struct eg_sqlite *s, int64_t upto)
{
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_CHANGES_TRIM);
    if (st != NULL) {
        (void)sqlite3_bind_int64(st, 1, upto);
        eg_sq_run(s, st, "trim changes");
        s->trimmed = upto;
    }
}

void eg_sq_heads_write(struct eg_sqlite *s)
{
    const struct eg_change *c = &s->change;
    if (c->body.n == 0 && c->body.err == EG_OK) {
        return;
    }
    /* Readers look at what may move. */
    eg_heads_lock(&s->heads->lock);
    if (s->err == EG_OK &&
        (c->body.err != EG_OK || eg_heads_reserve(&s->heads->fill, c) != EG_OK)) {
        s->err = EG_ENOMEM;
    }
    eg_heads_unlock(&s->heads->lock);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_CHANGE_PUT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, s->next_change);
    (void)sqlite3_bind_blob64(st, 2, c->body.p, c->body.n, SQLITE_STATIC);
    eg_sq_run(s, st, "write changes");
    merge(s, 2 * (c->sessions + c->turns) + MERGE_MIN);
    eg_heads_only_writer(&s->heads->lock);
    if (s->heads->settled - s->trimmed >= TRIM_RECORDS) {
        trim(s, s->trimmed + TRIM_RECORDS);
    }
}

void eg_sq_heads_committed(struct eg_sqlite *s)
{
    struct eg_heads *h = s->heads;
    if (s->change.body.n > 0) {
        eg_heads_lock(&h->lock);
        /* There is room; and we have written it ourselves. */
        const enum eg_err e = eg_heads_apply(
            &h->fill, (struct eg_slice){s->change.body.p, s->change.body.n}, s->next_change);
        eg_heads_unlock(&h->lock);
        if (e != EG_OK) {
            abort(); /* cannot be: memory and disk would differ */
        }
        s->next_change++;
    }
    h->merged_kept = h->merged;
    s->trimmed_kept = s->trimmed;
    if (s->settles) {
        eg_heads_thaw(h);
    }
    eg_heads_only_writer(&h->lock);
    if (h->order == NULL &&
        (h->fill.n + h->fill.tn >= eg_sq_gather_heads || h->fill.text.n >= GATHER_TEXT ||
         h->fill.records >= GATHER_RECORDS || h->fill.bytes >= GATHER_BYTES)) {
        /* Without memory it is tried again after the next commit. */
        (void)!eg_heads_freeze(h);
    }
    eg_sq_heads_clear(s);
}

void eg_sq_heads_clear(struct eg_sqlite *s)
{
    s->heads->merged = s->heads->merged_kept;
    s->trimmed = s->trimmed_kept;
    s->settles = false;
    if (s->change.body.err != EG_OK || s->change.body.cap > (1 << 20)) {
        eg_buf_free(&s->change.body);
    }
    eg_change_reset(&s->change);
    if (s->opened > 0) {
        eg_heads_drop(&s->open);
        s->opened = 0;
    }
}

/* One transaction that brings all of the frozen generation to the tables. */
static enum eg_err settle(struct eg_sqlite *s)
{
    enum eg_err e = s->base.ops->begin(&s->base);
    if (e == EG_OK) {
        merge(s, UINT32_MAX);
        if (s->settles) {
            eg_heads_only_writer(&s->heads->lock);
            trim(s, s->heads->frozen.upto);
        }
        e = s->base.ops->commit(&s->base);
    }
    return e;
}

enum eg_err eg_sq_heads_settle(struct eg_sqlite *s)
{
    enum eg_err e = s->heads->order != NULL ? settle(s) : EG_OK;
    eg_heads_only_writer(&s->heads->lock);
    if (e == EG_OK && s->heads->order == NULL && s->heads->fill.records > 0) {
        e = eg_heads_freeze(s->heads);
        e = e == EG_OK ? settle(s) : e;
    }
    return e;
}
