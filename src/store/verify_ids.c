/*
 * verify_ids.c - part of the deep check: the table ids and the log say the same.
 *
 * Threads and transactions as in verify.c: pages, each in a short transaction.
 */
#include <stdio.h>
#include <string.h>

#include "store/db.h"
#include "store/gate.h"
#include "store/sqlite_int.h"

#define PAGE_ROWS 5000

struct pass {
    sqlite3 *db;
    const struct eg_verify *how;
    struct eg_check_result *result;
    sqlite3_stmt *rows, *other;
};

static void fault(struct pass *p, const char *what, int64_t sid, int64_t cursor)
{
    char text[160];
    p->result->faults++;
    (void)snprintf(text, sizeof(text), "session number %lld: %s %lld", (long long)sid, what,
                   (long long)cursor);
    if (p->how->fault != NULL) {
        p->how->fault(p->how->arg, text);
    }
}

/* Every id of the log up to ids_upto is in the table. */
static int check_log_row(struct pass *p)
{
    struct eg_slice k = eg_db_blob(p->rows, 3);
    int64_t sid = sqlite3_column_int64(p->rows, 1);
    int64_t cursor = sqlite3_column_int64(p->rows, 2);
    if (k.n != EG_IDKEY_BYTES) {
        fault(p, "a key of the wrong length at event", sid, cursor);
        return SQLITE_ROW;
    }
    (void)sqlite3_bind_int64(p->other, 1, sid);
    (void)sqlite3_bind_int64(p->other, 2, eg_sq_ids_key((const uint8_t *)k.p));
    int rc = sqlite3_step(p->other);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && sqlite3_column_int64(p->other, 0) != cursor)) {
        fault(p, "the id is not known of event", sid, cursor);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->other);
    return rc;
}

/* Every id in the table is that of an event. */
static int check_table_row(struct pass *p)
{
    int64_t sid = sqlite3_column_int64(p->rows, 0);
    int64_t cursor = sqlite3_column_int64(p->rows, 2);
    (void)sqlite3_bind_int64(p->other, 1, sid);
    (void)sqlite3_bind_int64(p->other, 2, cursor);
    int rc = sqlite3_step(p->other);
    struct eg_slice k = rc == SQLITE_ROW ? eg_db_blob(p->other, 0) : (struct eg_slice){NULL, 0};
    if (rc == SQLITE_DONE ||
        (rc == SQLITE_ROW && (k.n != EG_IDKEY_BYTES || eg_sq_ids_key((const uint8_t *)k.p) !=
                                                           sqlite3_column_int64(p->rows, 1)))) {
        fault(p, "an id is kept that is not that of event", sid, cursor);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->other);
    return rc;
}

/* Walks rows in pages; its last two columns are the position of the next page (?1, ?2). */
static int walk(struct pass *p, const char *rows, const char *other, int columns,
                int (*check)(struct pass *))
{
    int64_t at[2] = {INT64_MIN, INT64_MIN};
    int n = PAGE_ROWS;
    int rc = sqlite3_prepare_v2(p->db, rows, -1, &p->rows, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(p->db, other, -1, &p->other, NULL);
    }
    while (rc == SQLITE_OK && n == PAGE_ROWS) {
        eg_gate_enter();
        (void)sqlite3_bind_int64(p->rows, 1, at[0]);
        (void)sqlite3_bind_int64(p->rows, 2, at[1]);
        (void)sqlite3_bind_int(p->rows, 3, PAGE_ROWS);
        for (n = 0; (rc = sqlite3_step(p->rows)) == SQLITE_ROW; n++) {
            at[0] = sqlite3_column_int64(p->rows, columns);
            at[1] = sqlite3_column_int64(p->rows, columns + 1);
            rc = check(p);
            if (rc != SQLITE_ROW) {
                break;
            }
        }
        (void)sqlite3_reset(p->rows);
        eg_gate_leave();
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(p->rows);
    (void)sqlite3_finalize(p->other);
    return rc;
}

enum eg_err eg_db_verify_ids(sqlite3 *db, const char *path, const struct eg_verify *how,
                             struct eg_check_result *out, char *why, size_t why_size)
{
    struct pass p = {.db = db, .how = how, .result = out};
    int rc = walk(&p,
                  "SELECT seq, sid, cursor, idkey, seq, 0 FROM events WHERE seq>?1 AND ?2<>1"
                  " AND idkey IS NOT NULL"
                  " AND seq<=(SELECT value FROM meta WHERE key='ids_upto') ORDER BY seq LIMIT ?3",
                  "SELECT cursor FROM ids WHERE sid=?1 AND key=?2", 4, check_log_row);
    if (rc == SQLITE_OK) {
        rc = walk(&p,
                  "SELECT sid, key, cursor, sid, key FROM ids WHERE (sid,key)>(?1,?2)"
                  " ORDER BY sid, key LIMIT ?3",
                  "SELECT idkey FROM events WHERE sid=?1 AND cursor=?2", 3, check_table_row);
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "check", db, rc);
    }
    return eg_db_map(rc);
}
