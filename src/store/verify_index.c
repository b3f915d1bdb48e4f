/*
 * verify_index.c - part of the check: the log itself, from its first row to its last, and the
 * tables of its index.
 *
 * Threads and transactions as in verify.c: pages, each in a short transaction.
 */
#include <stdio.h>
#include <string.h>

#include "store/db.h"
#include "store/gate.h"
#include "store/walk.h"

#define PAGE_ROWS 5000

struct pass {
    sqlite3 *db;
    const struct eg_verify *how;
    struct eg_check_result *result;
    sqlite3_stmt *rows, *other, *third;
    int64_t last_sid, orphan_sid;
};

static void fault(struct pass *p, const char *what, int64_t sid, int64_t number)
{
    char text[160];
    p->result->faults++;
    (void)snprintf(text, sizeof(text), "%s %lld of session number %lld", what, (long long)number,
                   (long long)sid);
    if (p->how->fault != NULL) {
        p->how->fault(p->how->arg, text);
    }
}

/* The number that a statement with two parameters gives; SQLITE_DONE without. */
static int ask(sqlite3_stmt *st, int64_t a, int64_t b, int64_t *out)
{
    (void)sqlite3_bind_int64(st, 1, a);
    if (sqlite3_bind_parameter_count(st) > 1) {
        (void)sqlite3_bind_int64(st, 2, b);
    }
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        *out = sqlite3_column_int64(st, 0);
    }
    (void)sqlite3_reset(st);
    return rc;
}

/* rows: seq, sid. Events of no session; each session is asked for once in a row. */
static int check_owner(struct pass *p)
{
    int64_t sid = sqlite3_column_int64(p->rows, 1);
    int64_t found = 0;
    if (sid == p->last_sid || sid == p->orphan_sid) {
        return SQLITE_ROW;
    }
    int rc = ask(p->other, sid, 0, &found);
    if (rc == SQLITE_DONE) {
        p->orphan_sid = sid;
        fault(p, "no session has the number: event in row", sid, sqlite3_column_int64(p->rows, 0));
        return SQLITE_ROW;
    }
    p->last_sid = sid;
    return rc;
}

/* rows: seq, sid, cursor, idkey. Each is in the tables. */
static int check_indexed(struct pass *p)
{
    struct eg_slice k = eg_db_blob(p->rows, 3);
    int64_t seq = sqlite3_column_int64(p->rows, 0);
    int64_t sid = sqlite3_column_int64(p->rows, 1);
    int64_t cursor = sqlite3_column_int64(p->rows, 2);
    int64_t found = 0;
    int rc = ask(p->other, sid, cursor, &found);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && found != seq)) {
        fault(p, "the index does not lead to event", sid, cursor);
        rc = SQLITE_ROW;
    }
    if (rc != SQLITE_ROW || sqlite3_column_type(p->rows, 3) == SQLITE_NULL) {
        return rc;
    }
    if (k.n != EG_IDKEY_BYTES) {
        fault(p, "a key of the wrong length is in event", sid, cursor);
        return rc;
    }
    rc = ask(p->third, sid, eg_walk_key((const uint8_t *)k.p), &found);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && found != seq)) {
        fault(p, "the id is not known of event", sid, cursor);
        rc = SQLITE_ROW;
    }
    return rc;
}

/* rows: sid, cursor, seq. Each leads to its event. */
static int check_place(struct pass *p)
{
    int64_t sid = sqlite3_column_int64(p->rows, 0);
    int64_t cursor = sqlite3_column_int64(p->rows, 1);
    (void)sqlite3_bind_int64(p->other, 1, sqlite3_column_int64(p->rows, 2));
    int rc = sqlite3_step(p->other);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && (sqlite3_column_int64(p->other, 0) != sid ||
                                                   sqlite3_column_int64(p->other, 1) != cursor))) {
        fault(p, "the index has a place for what is not event", sid, cursor);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->other);
    return rc;
}

/* rows: sid, key, seq. Each is the id of its event. */
static int check_id(struct pass *p)
{
    int64_t sid = sqlite3_column_int64(p->rows, 0);
    int64_t key = sqlite3_column_int64(p->rows, 1);
    int64_t seq = sqlite3_column_int64(p->rows, 2);
    (void)sqlite3_bind_int64(p->other, 1, seq);
    int rc = sqlite3_step(p->other);
    struct eg_slice k = rc == SQLITE_ROW ? eg_db_blob(p->other, 2) : (struct eg_slice){NULL, 0};
    bool same = rc == SQLITE_ROW && sqlite3_column_int64(p->other, 0) == sid &&
                k.n == EG_IDKEY_BYTES && eg_walk_key((const uint8_t *)k.p) == key;
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && !same)) {
        fault(p, "an id is kept that is not in row", sid, seq);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->other);
    return rc;
}

struct tour {
    const char *rows; /* from the position (?1, ?2) on, at most ?3 */
    int position;     /* the column of the next position and the one after it */
    const char *other, *third;
    int (*check)(struct pass *); /* SQLITE_ROW to go on */
};

static const struct tour owners = {
    "SELECT seq, sid, seq, 0 FROM events WHERE seq>?1 AND ?2<>1 ORDER BY seq LIMIT ?3", 2,
    "SELECT 1 FROM sessions WHERE sid=?1", "SELECT 1", check_owner};

static const struct tour tours[] = {
    {"SELECT seq, sid, cursor, idkey, seq, 0 FROM events WHERE seq>?1 AND ?2<>1"
     " AND seq<=(SELECT value FROM meta WHERE key='indexed') ORDER BY seq LIMIT ?3",
     4, "SELECT seq FROM places WHERE sid=?1 AND cursor=?2",
     "SELECT seq FROM ids WHERE sid=?1 AND key=?2", check_indexed},
    {"SELECT sid, cursor, seq, sid, cursor FROM places WHERE (sid,cursor)>(?1,?2)"
     " ORDER BY sid, cursor LIMIT ?3",
     3, "SELECT sid, cursor FROM events WHERE seq=?1", "SELECT 1", check_place},
    {"SELECT sid, key, seq, sid, key FROM ids WHERE (sid,key)>(?1,?2) ORDER BY sid, key LIMIT ?3",
     3, "SELECT sid, cursor, idkey FROM events WHERE seq=?1", "SELECT 1", check_id},
};

static int make(struct pass *p, const struct tour *t)
{
    int64_t at[2] = {INT64_MIN, INT64_MIN};
    int n = PAGE_ROWS;
    int rc = sqlite3_prepare_v2(p->db, t->rows, -1, &p->rows, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(p->db, t->other, -1, &p->other, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(p->db, t->third, -1, &p->third, NULL);
    }
    while (rc == SQLITE_OK && n == PAGE_ROWS) {
        eg_gate_enter();
        (void)sqlite3_bind_int64(p->rows, 1, at[0]);
        (void)sqlite3_bind_int64(p->rows, 2, at[1]);
        (void)sqlite3_bind_int(p->rows, 3, PAGE_ROWS);
        for (n = 0; (rc = sqlite3_step(p->rows)) == SQLITE_ROW; n++) {
            at[0] = sqlite3_column_int64(p->rows, t->position);
            at[1] = sqlite3_column_int64(p->rows, t->position + 1);
            rc = t->check(p);
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
    (void)sqlite3_finalize(p->third);
    p->rows = p->other = p->third = NULL;
    return rc;
}

enum eg_err eg_db_verify_index(sqlite3 *db, const char *path, const struct eg_verify *how,
                               struct eg_check_result *out, char *why, size_t why_size)
{
    struct pass p = {.db = db, .how = how, .result = out};
    int rc = make(&p, &owners);
    for (size_t i = 0; rc == SQLITE_OK && how->deep && i < sizeof(tours) / sizeof(tours[0]); i++) {
        rc = make(&p, &tours[i]);
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "check", db, rc);
    }
    return eg_db_map(rc);
}
