/*
 * runs.c - see runs.h: the list of runs, their life, and finding ids in them. The entries are moved
 * in runs_move.c; the filters are in runs_filter.c.
 *
 * Failure modes: what a transaction did is undone with it; the list in memory is read again. A
 * damaged row is EG_ECORRUPT for the transaction that meets it, and told by the check.
 */
#include "store/runs.h"

#include <stdlib.h>
#include <string.h>

#include "store/runs_int.h"

#define FILTER_ROWS 4 /* read into a filter with each transaction, and one for 512 events */
#define ROW_IDS 1500
#define CREDIT_MOST 200000

/* ---- the list ---- */

static struct eg_run *find_run(struct eg_runs *r, int64_t run)
{
    for (int i = 0; i < r->n; i++) {
        if (r->v[i].run == run) {
            return &r->v[i];
        }
    }
    return NULL;
}

static void free_list(struct eg_run *v, int n)
{
    for (int i = 0; i < n; i++) {
        free(v[i].filter);
    }
    free(v);
}

/* Reads the table; runs that stay keep their filters. */
static enum eg_err read_list(struct eg_sqlite *s)
{
    struct eg_runs *r = &s->runs;
    sqlite3_stmt *st = s->st[EG_ST_RUNS];
    struct eg_run *v = NULL;
    int n = 0;
    enum eg_err e = eg_sq_first(s, st, "read the runs");
    for (bool more = e == EG_OK; more; more = eg_sq_next(s, st, "read the runs", &e)) {
        struct eg_run *grown = n % 64 == 0 ? realloc(v, ((size_t)n + 64) * sizeof(*v)) : v;
        if (grown == NULL) {
            (void)sqlite3_reset(st);
            free(v);
            return EG_ENOMEM;
        }
        v = grown;
        struct eg_run *old = find_run(r, sqlite3_column_int64(st, 0));
        v[n] = old != NULL ? *old : (struct eg_run){0};
        v[n].run = sqlite3_column_int64(st, 0);
        v[n].state = (enum eg_run_state)sqlite3_column_int(st, 1);
        v[n].level = sqlite3_column_int(st, 2);
        v[n].first_seq = sqlite3_column_int64(st, 3);
        v[n].last_seq = sqlite3_column_int64(st, 4);
        v[n].entries = sqlite3_column_int64(st, 5);
        v[n].stale = sqlite3_column_int64(st, 6);
        v[n].max_sid = sqlite3_column_int64(st, 7);
        if (v[n].state == EG_RUN_BUILDING && v[n].level == 0 && v[n].run != r->work[0].run) {
            v[n].state = EG_RUN_GONE; /* begun before a restart: its events are in the tail again */
        }
        n++;
    }
    if (e != EG_OK && e != EG_ENOTFOUND) {
        free(v);
        return e;
    }
    for (int i = 0; i < n; i++) {
        struct eg_run *old = find_run(r, v[i].run);
        if (old != NULL && v[i].state != EG_RUN_GONE) {
            old->filter = NULL; /* it has moved */
        } else if (old != NULL) {
            v[i].filter = NULL;
            v[i].blocks = 0;
            v[i].whole = false;
        }
    }
    free_list(r->v, r->n);
    r->v = v;
    r->n = n;
    return EG_OK;
}

/* ---- finding ids ---- */

static enum eg_err find_in(struct eg_sqlite *s, const struct eg_run *run, uint64_t hash,
                           eg_runs_fn *fn, const void *arg)
{
    sqlite3_stmt *st = s->st[EG_ST_RUN_IDS_AT];
    struct eg_packed_ids ids;
    (void)sqlite3_bind_int64(st, 1, eg_runs_place(run->run, 0));
    (void)sqlite3_bind_int64(st, 2, eg_runs_place(run->run, hash));
    enum eg_err e = eg_sq_first(s, st, "read ids");
    if (e != EG_OK) {
        return e;
    }
    const uint64_t first = (uint64_t)sqlite3_column_int64(st, 0) & EG_PACK_HASH_MASK;
    if (!eg_packed_ids_open(&ids, first, eg_db_blob(st, 1))) {
        (void)sqlite3_reset(st);
        return eg_sq_latch(s, "read ids", SQLITE_CORRUPT);
    }
    e = EG_ENOTFOUND;
    int i = eg_packed_ids_find(&ids, (struct eg_pack_id){hash, 0});
    for (; e == EG_ENOTFOUND && i < ids.n; i++) {
        const struct eg_pack_id id = eg_packed_ids_at(&ids, i);
        if (id.hash != hash) {
            break;
        }
        e = fn(s, id.seq, arg);
    }
    (void)sqlite3_reset(st);
    return e;
}

enum eg_err eg_runs_find_id(struct eg_sqlite *s, int64_t sid, int64_t key, eg_runs_fn *fn,
                            const void *arg)
{
    const struct eg_runs *r = &s->runs;
    const uint64_t hash = eg_pack_hash(sid, key);
    const uint64_t bits = eg_run_filter_bits(hash);
    enum eg_err e = EG_ENOTFOUND;
    for (int i = r->n - 1; e == EG_ENOTFOUND && i >= 0; i--) {
        const struct eg_run *run = &r->v[i];
        if (run->state == EG_RUN_LIVE && run->max_sid >= sid &&
            (!run->whole || eg_run_filter_has(run, hash, bits))) {
            e = find_in(s, run, hash, fn, arg);
        }
    }
    return e;
}

/* ---- life ---- */

static void set_state(struct eg_sqlite *s, int64_t run, enum eg_run_state state)
{
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_STATE);
    if (st != NULL) {
        (void)sqlite3_bind_int64(st, 1, run);
        (void)sqlite3_bind_int(st, 2, (int)state);
        eg_sq_run(s, st, "write the runs");
        s->runs.changed = true;
    }
}

/* A new run of state BUILDING; its number goes to *run. */
static void add_run(struct eg_sqlite *s, const struct eg_run *run, int64_t *number)
{
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_ADD);
    if (st != NULL) {
        (void)sqlite3_bind_int(st, 1, run->level);
        (void)sqlite3_bind_int64(st, 2, run->first_seq);
        (void)sqlite3_bind_int64(st, 3, run->last_seq);
        (void)sqlite3_bind_int64(st, 4, run->entries);
        (void)sqlite3_bind_int64(st, 5, run->max_sid);
        eg_sq_run(s, st, "write the runs");
        *number = sqlite3_last_insert_rowid(s->db);
        s->runs.changed = true;
    }
}

/* What is frozen becomes a run. */
static void begin_frozen(struct eg_sqlite *s)
{
    const struct eg_tail *t = s->tail;
    eg_tail_only_writer(&t->lock);
    struct eg_run run = {
        .first_seq = s->runs.indexed + 1, .last_seq = t->upto, .entries = 0, .max_sid = 0};
    for (uint32_t i = 0; i < t->frozen.n; i++) {
        run.entries += t->frozen.v[i].seq != 0; /* the others have been removed */
        run.max_sid = t->frozen.v[i].sid > run.max_sid ? t->frozen.v[i].sid : run.max_sid;
    }
    s->runs.work[0] = (struct eg_run_work){.size = t->frozen.n, .fill = true};
    add_run(s, &run, &s->runs.work[0].run);
}

/* The inputs v[from..from + n - 1] become one run of level `to`. */
static void begin_merge(struct eg_sqlite *s, struct eg_run_work *w, int from, int n, int to)
{
    const struct eg_run *v = &s->runs.v[from];
    struct eg_run run = {.level = to, .first_seq = v[0].first_seq, .last_seq = v[n - 1].last_seq};
    *w = (struct eg_run_work){.ins = n, .fill = true};
    for (int i = 0; i < n; i++) {
        const int64_t stale = v[i].stale + v[i].going;
        run.entries += v[i].entries - stale;
        run.max_sid = v[i].max_sid > run.max_sid ? v[i].max_sid : run.max_sid;
        w->check = w->check || stale > 0;
        w->in[i] = v[i].run;
        w->size += v[i].entries;
    }
    add_run(s, &run, &w->run);
}

/* The runs of the last level go on as they are, but for those with little left in them. */
static bool gathers(const struct eg_run *run, int level)
{
    return level < EG_RUNS_LEVELS - 1 || run->entries - run->stale <= (int64_t)eg_sq_gather;
}

/* Looks for EG_RUNS_FAN runs of a level side by side, or one that is half stale. No merge of the
 * level is under way: none of its runs is an input already. */
static void begin_level(struct eg_sqlite *s, int level)
{
    struct eg_runs *r = &s->runs;
    struct eg_run_work *w = &r->work[1 + level];
    int from = 0;
    int n = 0;
    for (int i = 0; i < r->n && w->run == 0; i++) {
        const struct eg_run *run = &r->v[i];
        if (run->state != EG_RUN_LIVE) {
            continue;
        }
        if (run->level != level) {
            n = 0;
            continue;
        }
        if (run->stale * 2 > run->entries) {
            begin_merge(s, w, i, 1, level > 0 ? level : 1); /* 0: what was frozen */
        } else if (!gathers(run, level)) {
            n = 0;
        } else {
            from = n == 0 ? i : from;
            /* Runs that are no longer in use may lie between them. */
            if (++n == EG_RUNS_FAN && i - from + 1 == n) {
                begin_merge(s, w, from, n, level < EG_RUNS_LEVELS - 1 ? level + 1 : level);
            }
        }
    }
}

static void finish(struct eg_sqlite *s, struct eg_run_work *w, struct eg_run *run)
{
    set_state(s, w->run, EG_RUN_LIVE);
    run->whole = w->fill; /* nobody looks before the commit */
    for (int i = 0; i < w->ins; i++) {
        set_state(s, w->in[i], EG_RUN_GONE);
    }
    if (w->ins == 0) {
        sqlite3_stmt *st = eg_sq_writing(s, EG_ST_INDEXED);
        if (st != NULL) {
            (void)sqlite3_bind_int64(st, 1, s->tail->upto);
            eg_sq_run(s, st, "write the runs");
            s->merged = true;
        }
    }
    *w = (struct eg_run_work){0};
}

/* Removes rows of a run that is no longer in use; true when there were none left. */
static bool cut(struct eg_sqlite *s, enum eg_statement some, enum eg_statement all, int64_t a,
                int64_t b, int64_t rows)
{
    sqlite3_stmt *st = eg_sq_writing(s, some);
    for (int i = 0; i < 2 && st != NULL; i++, st = eg_sq_writing(s, all)) {
        (void)sqlite3_bind_int64(st, 1, a);
        (void)sqlite3_bind_int64(st, 2, b);
        if (i == 0) {
            (void)sqlite3_bind_int64(st, 3, rows);
        }
        eg_sq_run(s, st, "remove a run");
        if (s->err != EG_OK || (i == 0 && sqlite3_changes(s->db) > 0)) {
            return false;
        }
    }
    return s->err == EG_OK;
}

/* True when there was nothing to remove. */
static bool remove_gone(struct eg_sqlite *s, int64_t n)
{
    for (int i = 0; i < s->runs.n; i++) {
        const int64_t run = s->runs.v[i].run;
        if (s->runs.v[i].state != EG_RUN_GONE) {
            continue;
        }
        if (cut(s, EG_ST_RUN_PLACES_CUT, EG_ST_RUN_PLACES_DELETE, run, 0, 2 * n + 16) &&
            cut(s, EG_ST_RUN_IDS_CUT, EG_ST_RUN_IDS_DELETE, eg_runs_place(run, 0),
                eg_runs_place(run, EG_PACK_HASH_MASK), n / 256 + 2)) {
            sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_DELETE);
            if (st != NULL) {
                (void)sqlite3_bind_int64(st, 1, run);
                eg_sq_run(s, st, "remove a run");
                s->runs.changed = true;
            }
        }
        return false;
    }
    return true;
}

/* Moves entries into the run that w makes, about 2n. One that was begun by this transaction waits
 * for the next: it is in the list then. */
static void advance(struct eg_sqlite *s, struct eg_run_work *w, int64_t n)
{
    struct eg_runs *r = &s->runs;
    struct eg_run *run = find_run(r, w->run);
    if (run == NULL) {
        return;
    }
    w->credit += 2 * n + 64;
    w->credit = w->credit < CREDIT_MOST ? w->credit : CREDIT_MOST;
    /* Whole rows only: it waits until there is enough for a large one. */
    const int64_t least = w->size < ROW_IDS ? w->size : ROW_IDS;
    if (w->credit < least) {
        return;
    }
    w->fill = w->fill && (run->filter != NULL || eg_run_filter_new(r, run));
    r->filling = w->fill ? run : NULL;
    if (eg_runs_move(s, w)) {
        finish(s, w, run);
    }
    r->filling = NULL;
}

enum eg_err eg_runs_again(struct eg_sqlite *s)
{
    const enum eg_err e = s->runs.lost ? read_list(s) : EG_OK;
    s->runs.lost = e != EG_OK;
    return e;
}

bool eg_runs_work(struct eg_sqlite *s, int64_t n)
{
    struct eg_runs *r = &s->runs;
    if (r->lost) {
        (void)!eg_runs_again(s);
        return false;
    }
    bool idle = remove_gone(s, n); /* first: what follows takes the room */
    if (r->work[0].run == 0 && eg_tail_merging(s->tail)) {
        begin_frozen(s);
    }
    for (int level = 0; level < EG_RUNS_LEVELS; level++) {
        if (r->work[1 + level].run == 0) {
            begin_level(s, level);
        }
    }
    for (int i = 0; i <= EG_RUNS_LEVELS && s->err == EG_OK; i++) {
        struct eg_run_work *w = &r->work[i];
        if (w->run == 0) {
            continue;
        }
        idle = false;
        advance(s, w, n);
    }
    eg_runs_filter_read(s, FILTER_ROWS + n / 512);
    return idle;
}

void eg_runs_removed(struct eg_sqlite *s, const int64_t *seq, int n)
{
    struct eg_runs *r = &s->runs;
    for (int i = 0; i < r->n; i++) {
        int64_t stale = 0;
        for (int k = 0; k < n; k++) {
            stale += seq[k] >= r->v[i].first_seq && seq[k] <= r->v[i].last_seq;
        }
        sqlite3_stmt *st = stale > 0 ? eg_sq_writing(s, EG_ST_RUN_STALE) : NULL;
        if (st != NULL) {
            (void)sqlite3_bind_int64(st, 1, r->v[i].run);
            (void)sqlite3_bind_int64(st, 2, stale);
            eg_sq_run(s, st, "write the runs");
            r->changed = true;
            r->v[i].going += stale;
        }
    }
}

/* Without the new list: that of before still leads to all there is, since nothing is removed before
 * it is read, but for a run that has just been finished, which is no longer in the tail. */
static void finished_live(struct eg_runs *r)
{
    for (int i = 0; i < r->n; i++) {
        bool works = false;
        for (int k = 0; k <= EG_RUNS_LEVELS; k++) {
            works = works || r->work[k].run == r->v[i].run;
        }
        if (r->v[i].state == EG_RUN_BUILDING && !works) {
            r->v[i].state = EG_RUN_LIVE;
        }
    }
}

static void none_going(struct eg_runs *r)
{
    for (int i = 0; i < r->n; i++) {
        r->v[i].going = 0;
    }
}

void eg_runs_committed(struct eg_sqlite *s)
{
    struct eg_runs *r = &s->runs;
    if (s->merged) {
        r->indexed = s->tail->upto;
    }
    memcpy(r->kept, r->work, sizeof(r->kept));
    none_going(r);
    if (r->changed && read_list(s) != EG_OK) {
        r->lost = true;
        finished_live(r);
    }
    r->changed = false;
}

void eg_runs_undo(struct eg_sqlite *s)
{
    struct eg_runs *r = &s->runs;
    memcpy(r->work, r->kept, sizeof(r->work));
    none_going(r);
    r->changed = false;
}

/* ---- opening ---- */

/* A merge that a restart interrupted: from the table's last row on. */
static enum eg_err resume(struct eg_sqlite *s, const struct eg_run *run)
{
    struct eg_runs *r = &s->runs;
    struct eg_run_work w = {.run = run->run, .size = run->entries};
    int level = -1;
    for (int i = 0; i < r->n; i++) {
        const struct eg_run *in = &r->v[i];
        if (in->state == EG_RUN_LIVE && in->first_seq >= run->first_seq &&
            in->last_seq <= run->last_seq && w.ins < EG_RUNS_INPUTS) {
            w.in[w.ins++] = in->run;
            w.check = w.check || in->stale > 0;
            level = in->level;
        }
    }
    if (level < 0 || level >= EG_RUNS_LEVELS || r->work[1 + level].run != 0) {
        return EG_ECORRUPT;
    }
    const enum eg_err e = eg_runs_behind(s, &w);
    r->work[1 + level] = w;
    return e;
}

enum eg_err eg_runs_open(struct eg_sqlite *s)
{
    struct eg_runs *r = &s->runs;
    enum eg_err e = eg_db_int(
        s->db, "SELECT coalesce((SELECT value FROM meta WHERE key='indexed'),0)", &r->indexed);
    if (e == EG_OK) {
        e = read_list(s);
    }
    for (int i = 0; e == EG_OK && i < r->n; i++) {
        struct eg_run *run = &r->v[i];
        if (run->state == EG_RUN_BUILDING) {
            e = resume(s, run);
        }
    }
    memcpy(r->kept, r->work, sizeof(r->kept));
    return e;
}

void eg_runs_close(struct eg_sqlite *s)
{
    struct eg_runs *r = &s->runs;
    free_list(r->v, r->n);
    eg_pack_ids_free(&r->ids);
    eg_buf_free(&r->row);
    eg_runs_inputs_free(r);
    *r = (struct eg_runs){0};
}
