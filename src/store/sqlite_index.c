/*
 * sqlite_index.c - the writer's side of the log's index: the newest part in memory (tail.h), the
 * rest in the tables places and ids, all of it in the events themselves.
 *
 * Threads: the writer's. The tables hold every event up to seq meta.indexed, and some of those
 * after it. At opening the events after it are read from the log. The tables say no more than the
 * log does: an id is only a hint until its event has been compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_int.h"

#define MERGE_MIN 64 /* with each commit that appends, beside twice what it appends */

uint32_t eg_sq_gather = 65536;

/* ---- opening ---- */

static int load_rows(struct eg_sqlite *s, sqlite3_stmt *st)
{
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct eg_slice k = eg_db_blob(st, 3);
        int64_t key = k.n == EG_IDKEY_BYTES ? eg_walk_key((const uint8_t *)k.p) : 0;
        if (eg_tail_add(s->tail, sqlite3_column_int64(st, 1), (uint64_t)sqlite3_column_int64(st, 2),
                        sqlite3_column_int64(st, 0), key) != EG_OK) {
            return SQLITE_NOMEM;
        }
    }
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

enum eg_err eg_sq_index_load(struct eg_sqlite *s)
{
    sqlite3_stmt *st = NULL;
    int64_t upto = 0;
    int64_t last = 0;
    s->tail = eg_tail_new();
    if (s->tail == NULL) {
        return EG_ENOMEM;
    }
    eg_walk_open(&s->walk, s->db);
    enum eg_err e =
        eg_db_int(s->db, "SELECT coalesce((SELECT value FROM meta WHERE key='indexed'),0)", &upto);
    if (e == EG_OK) {
        e = eg_db_int(s->db, "SELECT coalesce(max(seq),0) FROM events", &last);
    }
    if (e != EG_OK) {
        return eg_sqlite_failed(s, "cannot read the log's end", sqlite3_extended_errcode(s->db));
    }
    s->tail->upto = upto;
    /* The newest events may have been removed; their numbers are behind us all the same. */
    s->next_seq = s->next_seq_kept = (last > upto ? last : upto) + 1;
    int rc = sqlite3_prepare_v2(
        s->db, "SELECT seq, sid, cursor, idkey FROM events WHERE seq>?1 ORDER BY seq", -1, &st,
        NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(st, 1, upto);
        rc = load_rows(s, st);
    }
    if (rc != SQLITE_OK) {
        e = eg_sqlite_failed(s, "cannot read the log", rc);
    }
    (void)sqlite3_finalize(st);
    eg_tail_keep(s->tail);
    if (e == EG_OK) {
        eg_tail_publish(s->tail, s->path);
    }
    return e;
}

/* ---- finding ---- */

/* A number from one of the index's tables. */
static enum eg_err ask(struct eg_sqlite *s, enum eg_statement which, int64_t sid, int64_t key,
                       int64_t *seq)
{
    sqlite3_stmt *st = s->st[which];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, key);
    enum eg_err e = eg_sq_first(s, st, "read the index");
    if (e == EG_OK) {
        *seq = sqlite3_column_int64(st, 0);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err stand_on(struct eg_sqlite *s, int64_t sid, int64_t seq)
{
    sqlite3_stmt *st = s->st[EG_ST_EVENT_AT];
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
        e = ask(s, EG_ST_PLACE_GET, sid, (int64_t)cursor, &seq);
    }
    return e == EG_OK ? stand_on(s, sid, seq) : e;
}

enum eg_err eg_sq_index_find_id(struct eg_sqlite *s, int64_t sid, const uint8_t *idkey)
{
    int64_t key = eg_walk_key(idkey);
    int64_t seq = 0;
    enum eg_err e = s->in_tx ? s->err : EG_OK;
    if (e == EG_OK && !eg_tail_find_key(s->tail, sid, key, &seq)) {
        e = ask(s, EG_ST_ID_GET, sid, key, &seq);
    }
    if (e == EG_OK) {
        e = stand_on(s, sid, seq);
    }
    if (e == EG_OK) {
        struct eg_slice k = eg_db_blob(s->st[EG_ST_EVENT_AT], 4);
        if (k.n != EG_IDKEY_BYTES || memcmp(k.p, idkey, EG_IDKEY_BYTES) != 0) {
            (void)sqlite3_reset(s->st[EG_ST_EVENT_AT]);
            e = EG_ENOTFOUND;
        }
    }
    if (e == EG_ENOTFOUND && s->in_tx) {
        s->absent = true;
        s->absent_sid = sid;
        memcpy(s->absent_idkey, idkey, EG_IDKEY_BYTES);
    }
    return e;
}

/* ---- adding ---- */

void eg_sq_index_check(struct eg_sqlite *s, const struct eg_event_row *row)
{
    uint64_t newest = 0;
    int64_t seq = 0;
    bool taken = false;
    /* Beyond the newest of the tail there is nothing; a session that is not in it is asked for. */
    if (!eg_tail_newest(s->tail, row->sid, &newest) || row->cursor <= newest) {
        taken = eg_tail_find(s->tail, row->sid, row->cursor, &seq) ||
                ask(s, EG_ST_PLACE_GET, row->sid, (int64_t)row->cursor, &seq) == EG_OK;
    }
    bool known_absent = s->absent && s->absent_sid == row->sid && row->idkey != NULL &&
                        memcmp(s->absent_idkey, row->idkey, EG_IDKEY_BYTES) == 0;
    if (s->err == EG_OK && !taken && row->idkey != NULL && !known_absent &&
        eg_sq_index_find_id(s, row->sid, row->idkey) == EG_OK) {
        (void)sqlite3_reset(s->st[EG_ST_EVENT_AT]);
        taken = true;
    }
    if (s->err == EG_OK && taken) {
        (void)snprintf(s->why, sizeof(s->why), "append event: cursor or id is in use");
        s->err = EG_EEXISTS;
    }
}

void eg_sq_index_add(struct eg_sqlite *s, const struct eg_event_row *row, int64_t seq)
{
    s->absent = false;
    if (s->err == EG_OK) {
        s->err = eg_tail_add(s->tail, row->sid, row->cursor, seq,
                             row->idkey != NULL ? eg_walk_key(row->idkey) : 0);
    }
}

/* ---- trimming ---- */

struct doomed {
    uint64_t cursor;
    int64_t seq, key;
};

struct trim {
    struct doomed *v;
    int n;
    int64_t bytes;
};

static bool collect(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct trim *t = arg;
    struct eg_slice k = eg_db_blob(st, 4);
    t->bytes += sqlite3_column_bytes(st, 1);
    t->v[t->n++] = (struct doomed){cursor, sqlite3_column_int64(st, 5),
                                   k.n == EG_IDKEY_BYTES ? eg_walk_key((const uint8_t *)k.p) : 0};
    return true;
}

static void delete_row(struct eg_sqlite *s, enum eg_statement which, int64_t a, int64_t b)
{
    sqlite3_stmt *st = eg_sq_writing(s, which);
    if (st != NULL) {
        (void)sqlite3_bind_int64(st, 1, a);
        if (sqlite3_bind_parameter_count(st) > 1) {
            (void)sqlite3_bind_int64(st, 2, b);
        }
        eg_sq_run(s, st, "trim events");
    }
}

void eg_sq_trim(struct eg_storage *base, int64_t sid, uint64_t before, int max, int *removed,
                int64_t *removed_bytes)
{
    struct eg_sqlite *s = eg_sq_self(base);
    struct trim t = {NULL, 0, 0};
    *removed = 0;
    *removed_bytes = 0;
    if (eg_sq_writing(s, EG_ST_EVENT_DELETE) == NULL || max <= 0 || before == 0) {
        return;
    }
    t.v = malloc((size_t)max * sizeof(*t.v));
    if (t.v == NULL) {
        s->err = EG_ENOMEM;
        return;
    }
    const struct eg_span span = {sid, 0, before - 1, max, false};
    int rc = eg_walk_write(&s->walk, s->tail, &span, collect, &t);
    if (rc != SQLITE_OK) {
        (void)eg_sq_latch(s, "trim events", rc);
    }
    for (int i = 0; s->err == EG_OK && i < t.n; i++) {
        delete_row(s, EG_ST_EVENT_DELETE, t.v[i].seq, 0);
        delete_row(s, EG_ST_PLACE_DELETE, sid, (int64_t)t.v[i].cursor);
        if (t.v[i].key != 0) {
            delete_row(s, EG_ST_ID_DELETE, sid, t.v[i].key);
        }
        if (s->err == EG_OK) {
            s->err = eg_tail_remove(s->tail, sid, t.v[i].cursor);
        }
    }
    if (s->err == EG_OK) {
        *removed = t.n;
        *removed_bytes = t.bytes;
    }
    free(t.v);
}

/* ---- merging ---- */

static void put(struct eg_sqlite *s, enum eg_statement which, int64_t sid, int64_t key, int64_t seq)
{
    sqlite3_stmt *st = eg_sq_writing(s, which);
    if (st != NULL) {
        (void)sqlite3_bind_int64(st, 1, sid);
        (void)sqlite3_bind_int64(st, 2, key);
        (void)sqlite3_bind_int64(st, 3, seq);
        eg_sq_run(s, st, "merge the index");
    }
}

void eg_sq_index_merge(struct eg_sqlite *s)
{
    int budget = 2 * s->appended + MERGE_MIN;
    const struct eg_tail_entry *e = NULL;
    if (s->appended == 0 || !eg_tail_merging(s->tail)) {
        return;
    }
    while (s->err == EG_OK && budget-- > 0 && (e = eg_tail_next(s->tail)) != NULL) {
        put(s, EG_ST_PLACE_PUT, e->sid, (int64_t)e->cursor, e->seq);
        if (e->key != 0) {
            put(s, EG_ST_ID_PUT, e->sid, e->key, e->seq);
        }
    }
    if (s->err == EG_OK && e == NULL && budget >= 0) {
        sqlite3_stmt *st = s->st[EG_ST_INDEXED];
        (void)sqlite3_bind_int64(st, 1, s->tail->upto);
        eg_sq_run(s, st, "merge the index");
        s->merged = true;
    }
}

void eg_sq_index_committed(struct eg_sqlite *s)
{
    eg_tail_keep(s->tail);
    s->next_seq_kept = s->next_seq;
    if (s->merged) {
        eg_tail_thaw(s->tail);
        s->merged = false;
    }
    if (!eg_tail_merging(s->tail) && s->tail->kept >= eg_sq_gather) {
        /* Without memory it is tried again after the next commit. */
        (void)!eg_tail_freeze(s->tail, s->next_seq - 1);
    }
}

void eg_sq_index_undo(struct eg_sqlite *s)
{
    eg_tail_undo(s->tail);
    s->merged = false;
    s->next_seq = s->next_seq_kept;
}
