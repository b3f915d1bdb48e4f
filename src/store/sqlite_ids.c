/*
 * sqlite_ids.c - the ids of senders: the newest in memory, the others in the table ids, all of them
 * in the events themselves.
 *
 * Threads: the writer's. The table says no more than the log does: it holds every id of the events
 * up to seq meta.ids_upto, and some of those after it. At opening the ids after it are read from
 * the log. A find in memory or table is only a hint: the event has to be there and to carry the
 * whole idkey.
 */
#include <string.h>

#include "store/sqlite_int.h"

#define MERGE_MIN 64 /* with each commit that appends, beside twice what it appends */
#define SEQ_FACTOR 4 /* frozen at the latest when the log has grown by so many times the number */

uint32_t eg_sq_ids_gather = 32768;

int64_t eg_sq_ids_key(const uint8_t *idkey)
{
    uint64_t k = 0;
    for (int i = 0; i < 8; i++) {
        k = k << 8 | idkey[i];
    }
    return (int64_t)k;
}

enum eg_err eg_sq_ids_load(struct eg_sqlite *s)
{
    sqlite3_stmt *st = NULL;
    int64_t upto = 0;
    int64_t last = 0;
    enum eg_err e =
        eg_db_int(s->db, "SELECT coalesce((SELECT value FROM meta WHERE key='ids_upto'),0)", &upto);
    if (e == EG_OK) {
        e = eg_db_int(s->db, "SELECT coalesce(max(seq),0) FROM events", &last);
    }
    if (e != EG_OK) {
        return eg_sqlite_failed(s, "cannot read the log's end", sqlite3_extended_errcode(s->db));
    }
    s->ids.frozen_seq = upto;
    /* The newest events may have been removed; their numbers are behind us all the same. */
    s->next_seq = s->next_seq_kept = (last > upto ? last : upto) + 1;
    int rc = sqlite3_prepare_v2(
        s->db, "SELECT sid, cursor, idkey FROM events WHERE seq>?1 AND idkey IS NOT NULL", -1, &st,
        NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(st, 1, upto);
        while (e == EG_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
            struct eg_slice k = eg_db_blob(st, 2);
            if (k.n == EG_IDKEY_BYTES) {
                e = eg_ids_add(&s->ids, sqlite3_column_int64(st, 0),
                               eg_sq_ids_key((const uint8_t *)k.p),
                               (uint64_t)sqlite3_column_int64(st, 1));
            }
        }
    }
    if (e == EG_OK && rc != SQLITE_DONE) {
        e = eg_sqlite_failed(s, "cannot read the log", rc);
    }
    (void)sqlite3_finalize(st);
    eg_ids_keep(&s->ids);
    return e;
}

enum eg_err eg_sq_ids_find(struct eg_sqlite *s, int64_t sid, const uint8_t *idkey)
{
    int64_t key = eg_sq_ids_key(idkey);
    uint64_t cursor = 0;
    enum eg_err e = EG_OK;
    if (s->in_tx && s->err != EG_OK) {
        return s->err;
    }
    if (!eg_ids_find(&s->ids, sid, key, &cursor)) {
        sqlite3_stmt *st = s->st[EG_ST_ID_GET];
        (void)sqlite3_bind_int64(st, 1, sid);
        (void)sqlite3_bind_int64(st, 2, key);
        e = eg_sq_first(s, st, "read id");
        if (e == EG_OK) {
            cursor = (uint64_t)sqlite3_column_int64(st, 0);
            (void)sqlite3_reset(st);
        }
    }
    if (e == EG_OK) {
        sqlite3_stmt *st = s->st[EG_ST_EVENT_OF_ID];
        (void)sqlite3_bind_int64(st, 1, sid);
        (void)sqlite3_bind_int64(st, 2, (int64_t)cursor);
        (void)sqlite3_bind_blob(st, 3, idkey, EG_IDKEY_BYTES, SQLITE_STATIC);
        e = eg_sq_first(s, st, "read event");
    }
    if (e == EG_ENOTFOUND && s->in_tx) {
        s->absent = true;
        s->absent_sid = sid;
        memcpy(s->absent_idkey, idkey, EG_IDKEY_BYTES);
    }
    return e;
}

void eg_sq_ids_appended(struct eg_sqlite *s, int64_t sid, const uint8_t *idkey, uint64_t cursor)
{
    s->absent = false;
    if (s->err == EG_OK) {
        s->err = eg_ids_add(&s->ids, sid, eg_sq_ids_key(idkey), cursor);
    }
}

void eg_sq_ids_trim(struct eg_sqlite *s, int64_t sid, int64_t last)
{
    sqlite3_stmt *st = s->st[EG_ST_TRIM_IDS];
    enum eg_err e = EG_OK;
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, last);
    while (s->err == EG_OK && eg_sq_next(s, st, "read ids", &e)) {
        struct eg_slice k = eg_db_blob(st, 0);
        if (k.n != EG_IDKEY_BYTES) {
            continue;
        }
        int64_t key = eg_sq_ids_key((const uint8_t *)k.p);
        s->err = eg_ids_remove(&s->ids, sid, key);
        if (s->err == EG_OK) {
            sqlite3_stmt *gone = s->st[EG_ST_ID_DELETE];
            (void)sqlite3_bind_int64(gone, 1, sid);
            (void)sqlite3_bind_int64(gone, 2, key);
            eg_sq_run(s, gone, "remove id");
        }
    }
    (void)sqlite3_reset(st);
}

void eg_sq_ids_merge(struct eg_sqlite *s)
{
    int budget = 2 * s->appended + MERGE_MIN;
    if (s->appended == 0 || !eg_ids_merging(&s->ids)) {
        return;
    }
    const struct eg_ids_entry *e = NULL;
    while (s->err == EG_OK && budget-- > 0 && (e = eg_ids_next(&s->ids)) != NULL) {
        sqlite3_stmt *st = s->st[EG_ST_ID_PUT];
        (void)sqlite3_bind_int64(st, 1, e->sid);
        (void)sqlite3_bind_int64(st, 2, e->key);
        (void)sqlite3_bind_int64(st, 3, (int64_t)e->cursor);
        eg_sq_run(s, st, "merge ids");
    }
    if (s->err == EG_OK && e == NULL && budget >= 0) {
        sqlite3_stmt *st = s->st[EG_ST_IDS_UPTO];
        (void)sqlite3_bind_int64(st, 1, s->ids.frozen_seq);
        eg_sq_run(s, st, "merge ids");
        s->ids_merged = true;
    }
}

void eg_sq_ids_committed(struct eg_sqlite *s)
{
    eg_ids_keep(&s->ids);
    s->next_seq_kept = s->next_seq;
    if (s->ids_merged) {
        eg_ids_thaw(&s->ids);
        s->ids_merged = false;
    }
    int64_t last = s->next_seq - 1;
    if (!eg_ids_merging(&s->ids) &&
        (s->ids.kept >= eg_sq_ids_gather ||
         last - s->ids.frozen_seq >= (int64_t)SEQ_FACTOR * eg_sq_ids_gather)) {
        /* Without memory it is tried again after the next commit. */
        (void)!eg_ids_freeze(&s->ids, last);
    }
}
