/*
 * sqlite_index.c - the writer's side of the log's index: the newest part in memory (tail.h), the
 * rest in runs (runs.h), all of it in the events themselves.
 *
 * Threads: the writer's. The runs hold every event up to seq meta.indexed. At opening the events
 * after it are read from the log, and written out at once where they are many (the index was made
 * anew by a migration). The index says no more than the log does: an id is only a hint until its
 * event has been compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_int.h"

#define MANY 4            /* times eg_sq_gather, at opening */
#define SETTLE_LEAST 5000 /* events in the tail that are worth a run of their own at closing */

uint32_t eg_sq_gather = 32768;

/* ---- opening ---- */

/* Rows of the log into the tail, until it holds `most`. */
static int load_rows(struct eg_sqlite *s, sqlite3_stmt *st, uint32_t most, int64_t *last)
{
    int rc = SQLITE_DONE;
    eg_tail_only_writer(&s->tail->lock);
    while (s->tail->fill.n < most && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct eg_slice k = eg_db_blob(st, 3);
        int64_t key = eg_db_is_idkey(k) ? eg_walk_key((const uint8_t *)k.p) : 0;
        *last = sqlite3_column_int64(st, 0);
        if (eg_tail_add(s->tail, sqlite3_column_int64(st, 1), (uint64_t)sqlite3_column_int64(st, 2),
                        *last, key) != EG_OK) {
            return SQLITE_NOMEM;
        }
    }
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* Writes out what is frozen. Runs are merged beside it as when n events come. */
static enum eg_err write_frozen(struct eg_sqlite *s, int64_t n)
{
    enum eg_err e = EG_OK;
    while (e == EG_OK && eg_tail_merging(s->tail)) {
        int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        s->in_tx = rc == SQLITE_OK;
        if (rc == SQLITE_OK) {
            s->err = EG_OK;
            s->runs.work[0].credit = s->runs.work[0].size;
            (void)eg_runs_work(s, n);
            e = s->err;
            s->in_tx = false;
            rc = sqlite3_exec(s->db, e == EG_OK ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
        }
        if (e == EG_OK && rc != SQLITE_OK) {
            e = eg_sqlite_failed(s, "cannot write the log's index", rc);
            if (!sqlite3_get_autocommit(s->db)) {
                (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
            }
        }
        if (e == EG_OK) {
            eg_sq_index_committed(s);
            e = eg_runs_again(s); /* without the list nothing goes on */
        } else {
            eg_sq_index_undo(s);
        }
    }
    return e;
}

/* Writes out all that the tail holds, the log's index up to seq. */
static enum eg_err write_out(struct eg_sqlite *s, int64_t seq, int64_t n)
{
    eg_tail_keep(s->tail);
    const enum eg_err e = eg_tail_freeze(s->tail, seq);
    return e == EG_OK ? write_frozen(s, n) : e;
}

void eg_sq_index_settle(struct eg_sqlite *s)
{
    enum eg_err e = write_frozen(s, 0);
    eg_tail_only_writer(&s->tail->lock);
    if (e == EG_OK && s->tail->kept >= SETTLE_LEAST) {
        e = write_out(s, s->next_seq - 1, 0);
    }
    (void)e; /* what was not written is read from the log the next time */
}

/* What the log has beyond the runs. */
static enum eg_err load(struct eg_sqlite *s)
{
    const uint32_t most = MANY * eg_sq_gather;
    enum eg_err e = EG_OK;
    bool more = true;
    eg_tail_only_writer(&s->tail->lock);
    while (e == EG_OK && more) {
        sqlite3_stmt *st = NULL;
        int64_t last = s->runs.indexed;
        int rc = sqlite3_prepare_v2(
            s->db, "SELECT seq, sid, cursor, idkey FROM events WHERE seq>?1 ORDER BY seq", -1, &st,
            NULL);
        if (rc == SQLITE_OK) {
            (void)sqlite3_bind_int64(st, 1, last);
            rc = load_rows(s, st, most, &last);
        }
        if (rc != SQLITE_OK) {
            e = eg_sqlite_failed(s, "cannot read the log", rc);
        }
        (void)sqlite3_finalize(st);
        more = s->tail->fill.n >= most;
        if (e == EG_OK && more) {
            e = write_out(s, last, most);
            (void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        }
    }
    eg_tail_keep(s->tail);
    return e;
}

enum eg_err eg_sq_index_load(struct eg_sqlite *s)
{
    int64_t last = 0;
    s->tops = calloc(EG_TOP_SLOTS, sizeof(*s->tops));
    if (s->tops == NULL) {
        return EG_ENOMEM;
    }
    eg_walk_open(&s->walk, s->db);
    /* All of the events are read once: their pages need not stay in memory. */
    (void)sqlite3_exec(s->db, "PRAGMA cache_size=-1024", NULL, NULL, NULL);
    s->why[0] = '\0';
    enum eg_err e = eg_runs_open(s);
    if (e != EG_OK) {
        if (s->why[0] == '\0') { /* no failure of SQLite */
            (void)snprintf(s->why, sizeof(s->why), "%.400s: cannot read the log's index: %s",
                           s->path, eg_err_text(e));
        }
        return e;
    }
    e = eg_db_int(s->db, "SELECT coalesce(max(seq),0) FROM events", &last);
    if (e != EG_OK) {
        (void)eg_sqlite_failed(s, "cannot read the log's end", sqlite3_extended_errcode(s->db));
        return e;
    }
    s->tail->upto = s->runs.indexed;
    /* The newest events may have been removed; their numbers are behind us all the same. */
    s->next_seq = s->next_seq_kept = (last > s->runs.indexed ? last : s->runs.indexed) + 1;
    e = load(s);
    (void)sqlite3_exec(s->db, "PRAGMA cache_size=-65536", NULL, NULL, NULL);
    return e;
}

/* ---- finding ---- */

static enum eg_err stand_on(struct eg_sqlite *s, int64_t sid, int64_t seq)
{
    sqlite3_stmt *st = s->st[EG_ST_EVENT_AT];
    if (s->batch.n > 0 && seq >= s->batch.v[0].seq) {
        eg_sq_batch_flush(s);
    }
    (void)sqlite3_bind_int64(st, 1, seq);
    enum eg_err e = eg_sq_first(s, st, "read event");
    if (e == EG_OK && sqlite3_column_int64(st, 3) != sid) {
        (void)sqlite3_reset(st);
        e = EG_ENOTFOUND;
    }
    return e;
}

enum eg_err eg_sq_index_find(struct eg_sqlite *s, int64_t sid, uint64_t cursor)
{
    int64_t seq = 0;
    enum eg_err e = s->in_tx ? s->err : EG_OK;
    if (e == EG_OK && !eg_tail_find(s->tail, sid, cursor, &seq)) {
        const int rc = eg_walk_place(&s->walk, sid, cursor, &seq);
        e = rc != SQLITE_OK ? eg_sq_latch(s, "read the index", rc)
            : seq == 0      ? EG_ENOTFOUND
                            : EG_OK;
    }
    return e == EG_OK ? stand_on(s, sid, seq) : e;
}

/* What an id is looked for with. */
struct wanted {
    int64_t sid;
    const uint8_t *idkey;
};

/* Stands on the event when it is the one. */
static enum eg_err is_wanted(struct eg_sqlite *s, int64_t seq, const void *arg)
{
    const struct wanted *w = arg;
    enum eg_err e = stand_on(s, w->sid, seq);
    if (e == EG_OK) {
        struct eg_slice k = eg_db_blob(s->st[EG_ST_EVENT_AT], 4);
        if (!eg_db_is_idkey(k) || memcmp(k.p, w->idkey, EG_IDKEY_KEPT) != 0) {
            (void)sqlite3_reset(s->st[EG_ST_EVENT_AT]);
            e = EG_ENOTFOUND;
        }
    }
    return e;
}

enum eg_err eg_sq_index_find_id(struct eg_sqlite *s, int64_t sid, const uint8_t *idkey)
{
    const struct wanted w = {sid, idkey};
    int64_t key = eg_walk_key(idkey);
    int64_t seq = 0;
    enum eg_err e = s->in_tx ? s->err : EG_OK;
    if (e == EG_OK) {
        eg_runs_expect(&s->runs, sid, key);
        e = eg_tail_find_key(s->tail, sid, key, &seq) ? is_wanted(s, seq, &w) : EG_ENOTFOUND;
    }
    if (e == EG_ENOTFOUND) {
        e = eg_runs_find_id(s, sid, key, is_wanted, &w);
    }
    if (e == EG_ENOTFOUND && s->in_tx) {
        s->absent = true;
        s->absent_sid = sid;
        memcpy(s->absent_idkey, idkey, EG_IDKEY_KEPT);
    }
    return e;
}

/* ---- adding ---- */

static struct eg_top *top_of(struct eg_sqlite *s, int64_t sid)
{
    return &s->tops[(uint64_t)sid & (EG_TOP_SLOTS - 1)];
}

/* The newest cursor of a session; 0 when the index knows none. */
static uint64_t newest_of(struct eg_sqlite *s, int64_t sid)
{
    struct eg_top *top = top_of(s, sid);
    uint64_t newest = 0;
    if (eg_tail_newest(s->tail, sid, &newest)) {
        return newest;
    }
    if (top->sid != sid) {
        const int rc = eg_walk_newest(&s->walk, sid, &newest);
        if (rc != SQLITE_OK) {
            (void)eg_sq_latch(s, "read the index", rc);
            return 0;
        }
        *top = (struct eg_top){sid, newest};
    }
    return top->cursor;
}

void eg_sq_index_check(struct eg_sqlite *s, const struct eg_event_row *row)
{
    bool taken = false;
    if (row->cursor <= newest_of(s, row->sid)) {
        taken = eg_sq_index_find(s, row->sid, row->cursor) == EG_OK;
        (void)sqlite3_reset(s->st[EG_ST_EVENT_AT]);
    }
    bool known_absent = s->absent && s->absent_sid == row->sid && row->idkey != NULL &&
                        memcmp(s->absent_idkey, row->idkey, EG_IDKEY_KEPT) == 0;
    if (s->err == EG_OK && !taken && row->idkey != NULL && !known_absent &&
        eg_sq_index_find_id(s, row->sid, row->idkey) == EG_OK) {
        (void)sqlite3_reset(s->st[EG_ST_EVENT_AT]);
        taken = true;
    }
    if (s->err == EG_OK && taken) {
        (void)snprintf(s->why, sizeof(s->why),
                       "session number %lld has an event %llu, or of this id, already",
                       (long long)row->sid, (unsigned long long)row->cursor);
        s->err = EG_EEXISTS;
    }
}

void eg_sq_index_add(struct eg_sqlite *s, const struct eg_event_row *row, int64_t seq)
{
    s->absent = false;
    if (s->err == EG_OK) {
        s->err = eg_tail_add(s->tail, row->sid, row->cursor, seq,
                             row->idkey != NULL ? eg_walk_key(row->idkey) : 0);
        *top_of(s, row->sid) = (struct eg_top){row->sid, row->cursor};
    }
}

/* ---- trimming ---- */

struct trim {
    uint64_t *cursor;
    int64_t *seq;
    int n;
    int64_t bytes;
};

static bool collect(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct trim *t = arg;
    t->bytes += sqlite3_column_bytes(st, 1);
    t->cursor[t->n] = cursor;
    t->seq[t->n++] = sqlite3_column_int64(st, 3);
    return true;
}

static void delete_event(struct eg_sqlite *s, int64_t seq)
{
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_EVENT_DELETE);
    if (st != NULL) {
        (void)sqlite3_bind_int64(st, 1, seq);
        eg_sq_run(s, st, "trim events");
    }
}

/* Reads what is to go: from the lowest there is, which the last call may have left behind. */
static void find_doomed(struct eg_sqlite *s, int64_t sid, uint64_t before, int max, struct trim *t)
{
    uint64_t from = s->trimmed_to;
    int rc = SQLITE_OK;
    if (s->trimmed_sid != sid) {
        rc = eg_walk_lowest(&s->walk, s->tail, sid, before - 1, &from);
    }
    const struct eg_span span = {sid, from, before - 1, max, false};
    if (rc == SQLITE_OK) {
        rc = eg_walk_write(&s->walk, s->tail, &span, collect, t);
    }
    if (rc != SQLITE_OK) {
        (void)eg_sq_latch(s, "trim events", rc);
    }
}

void eg_sq_trim(struct eg_storage *base, int64_t sid, uint64_t before, int max, int *removed,
                int64_t *removed_bytes)
{
    struct eg_sqlite *s = eg_sq_self(base);
    struct trim t = {NULL, NULL, 0, 0};
    *removed = 0;
    *removed_bytes = 0;
    if (eg_sq_writing(s, EG_ST_EVENT_DELETE) == NULL || max <= 0 || before == 0) {
        return;
    }
    t.cursor = malloc((size_t)max * sizeof(*t.cursor));
    t.seq = malloc((size_t)max * sizeof(*t.seq));
    if (t.cursor == NULL || t.seq == NULL) {
        s->err = EG_ENOMEM;
        goto out;
    }
    eg_sq_batch_flush(s);
    find_doomed(s, sid, before, max, &t);
    for (int i = 0; s->err == EG_OK && i < t.n; i++) {
        delete_event(s, t.seq[i]);
        if (s->err == EG_OK) {
            s->err = eg_tail_remove(s->tail, sid, t.cursor[i]);
        }
    }
    eg_runs_removed(s, t.seq, t.n);
    if (s->err == EG_OK) {
        *removed = t.n;
        *removed_bytes = t.bytes;
        s->removed += t.n;
        s->trimmed_sid = sid;
        s->trimmed_to = t.n > 0 ? t.cursor[t.n - 1] + 1 : before;
    }
out:
    free(t.cursor);
    free(t.seq);
}

/* ---- writing out ---- */

void eg_sq_index_merge(struct eg_sqlite *s)
{
    const int64_t n = (int64_t)s->appended + s->removed;
    if (n > 0 && s->err == EG_OK) {
        (void)eg_runs_work(s, n);
    }
}

void eg_sq_index_committed(struct eg_sqlite *s)
{
    eg_tail_keep(s->tail);
    s->next_seq_kept = s->next_seq;
    eg_runs_committed(s);
    if (s->merged) {
        eg_tail_thaw(s->tail);
        s->merged = false;
    }
    eg_tail_only_writer(&s->tail->lock);
    if (!eg_tail_merging(s->tail) && s->tail->kept >= eg_sq_gather) {
        /* Without memory it is tried again after the next commit. */
        (void)!eg_tail_freeze(s->tail, s->next_seq - 1);
    }
}

void eg_sq_index_undo(struct eg_sqlite *s)
{
    eg_tail_undo(s->tail);
    eg_runs_undo(s);
    memset(s->tops, 0, EG_TOP_SLOTS * sizeof(*s->tops));
    s->trimmed_sid = 0;
    s->merged = false;
    s->next_seq = s->next_seq_kept;
}
