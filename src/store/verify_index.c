/*
 * verify_index.c - part of the check: the log itself, from its first row to its last, and the runs
 * of its index: that they lead to every event and id they cover, and to nothing else but events
 * that have been removed.
 *
 * Threads and transactions as in verify.c: pages, each in a short transaction. Runs that are
 * merged meanwhile are looked at again.
 */
#include <stdio.h>
#include <string.h>

#include "store/db.h"
#include "store/gate.h"
#include "store/pack.h"
#include "store/walk.h"

#define PAGE_ROWS 5000

struct pass {
    sqlite3 *db;
    const struct eg_verify *how;
    struct eg_check_result *result;
    sqlite3_stmt *rows, *other, *third;
    sqlite3_stmt *run;
    int64_t covering, first_seq, last_seq; /* a run, and what it covers */
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

/* The run that covers seq, which stays the same for most of its events. */
static int find_run(struct pass *p, int64_t seq)
{
    if (seq >= p->first_seq && seq <= p->last_seq) {
        return SQLITE_ROW;
    }
    (void)sqlite3_bind_int64(p->run, 1, seq);
    const int rc = sqlite3_step(p->run);
    p->covering = rc == SQLITE_ROW ? sqlite3_column_int64(p->run, 0) : 0;
    p->first_seq = rc == SQLITE_ROW ? sqlite3_column_int64(p->run, 1) : seq;
    p->last_seq = rc == SQLITE_ROW ? sqlite3_column_int64(p->run, 2) : seq;
    (void)sqlite3_reset(p->run);
    return rc == SQLITE_DONE ? SQLITE_ROW : rc;
}

static bool leads_to(sqlite3_stmt *st, uint64_t cursor, int64_t seq)
{
    int64_t v[EG_PACK_PLACES];
    const struct eg_slice row = eg_db_blob(st, 1);
    const uint64_t last = (uint64_t)sqlite3_column_int64(st, 0);
    const int n = row.n > 0 ? eg_unpack_places(row, v) : -1;
    return n > 0 && cursor <= last && last - cursor < (uint64_t)n &&
           v[(uint64_t)n - 1 - (last - cursor)] == seq;
}

static bool holds_id(sqlite3_stmt *st, uint64_t hash, int64_t seq)
{
    struct eg_packed_ids ids;
    const uint64_t first = (uint64_t)sqlite3_column_int64(st, 0) & EG_PACK_HASH_MASK;
    if (!eg_packed_ids_open(&ids, first, eg_db_blob(st, 1))) {
        return false;
    }
    const int at = eg_packed_ids_find(&ids, (struct eg_pack_id){hash, seq});
    return at < ids.n && eg_packed_ids_at(&ids, at).hash == hash &&
           eg_packed_ids_at(&ids, at).seq == seq;
}

/* rows: seq, sid, cursor, idkey. Each is in the run that covers it. */
static int check_indexed(struct pass *p)
{
    struct eg_slice k = eg_db_blob(p->rows, 3);
    const int64_t seq = sqlite3_column_int64(p->rows, 0);
    const int64_t sid = sqlite3_column_int64(p->rows, 1);
    const int64_t cursor = sqlite3_column_int64(p->rows, 2);
    int rc = find_run(p, seq);
    if (rc != SQLITE_ROW) {
        return rc;
    }
    (void)sqlite3_bind_int64(p->other, 1, p->covering);
    (void)sqlite3_bind_int64(p->other, 2, sid);
    (void)sqlite3_bind_int64(p->other, 3, cursor);
    rc = sqlite3_step(p->other);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && !leads_to(p->other, (uint64_t)cursor, seq))) {
        fault(p, "the index does not lead to event", sid, cursor);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->other);
    if (rc != SQLITE_ROW || k.n == 0) {
        return rc;
    }
    if (!eg_db_is_idkey(k)) {
        fault(p, "a key of the wrong length is in event", sid, cursor);
        return rc;
    }
    const uint64_t hash = eg_pack_hash(sid, eg_walk_key((const uint8_t *)k.p));
    (void)sqlite3_bind_int64(p->third, 1, p->covering);
    (void)sqlite3_bind_int64(p->third, 2, (int64_t)hash);
    rc = sqlite3_step(p->third);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && !holds_id(p->third, hash, seq))) {
        fault(p, "the id is not known of event", sid, cursor);
        rc = SQLITE_ROW;
    }
    (void)sqlite3_reset(p->third);
    return rc;
}

/* One place of a run: seq is event cursor of sid, or has been removed. (Whether it should have
 * been, the check of the chain says.) */
static int check_place(struct pass *p, int64_t sid, int64_t cursor, int64_t seq)
{
    (void)sqlite3_bind_int64(p->other, 1, seq);
    const int rc = sqlite3_step(p->other);
    if (rc == SQLITE_ROW &&
        (sqlite3_column_int64(p->other, 0) != sid || sqlite3_column_int64(p->other, 1) != cursor)) {
        fault(p, "the index has a place for what is not event", sid, cursor);
    }
    (void)sqlite3_reset(p->other);
    return rc == SQLITE_DONE ? SQLITE_ROW : rc;
}

/* rows: run, sid, last, seqs. */
static int check_places(struct pass *p)
{
    int64_t seq[EG_PACK_PLACES];
    const int64_t sid = sqlite3_column_int64(p->rows, 1);
    const int64_t last = sqlite3_column_int64(p->rows, 2);
    const struct eg_slice row = eg_db_blob(p->rows, 3);
    const int n = row.n > 0 ? eg_unpack_places(row, seq) : -1;
    int rc = SQLITE_ROW;
    if (n < 0 || n > last) {
        fault(p, "the index is damaged at event", sid, last);
    }
    for (int i = 0; i < n && n <= last && rc == SQLITE_ROW; i++) {
        rc = check_place(p, sid, last - n + 1 + i, seq[i]);
    }
    return rc;
}

/* rows: place, ids. Each is the id of its event, or the event has been removed. */
static int check_ids(struct pass *p)
{
    struct eg_packed_ids ids;
    const int64_t place = sqlite3_column_int64(p->rows, 0);
    int rc = SQLITE_ROW;
    if (!eg_packed_ids_open(&ids, (uint64_t)place & EG_PACK_HASH_MASK, eg_db_blob(p->rows, 1))) {
        fault(p, "ids are damaged in row", 0, place);
        return rc;
    }
    for (int i = 0; i < ids.n && rc == SQLITE_ROW; i++) {
        const struct eg_pack_id id = eg_packed_ids_at(&ids, i);
        (void)sqlite3_bind_int64(p->other, 1, id.seq);
        rc = sqlite3_step(p->other);
        if (rc == SQLITE_ROW) {
            const struct eg_slice k = eg_db_blob(p->other, 1);
            const int64_t sid = sqlite3_column_int64(p->other, 0);
            if (!eg_db_is_idkey(k) ||
                eg_pack_hash(sid, eg_walk_key((const uint8_t *)k.p)) != id.hash) {
                fault(p, "an id is kept that is not in row", sid, id.seq);
            }
        }
        rc = rc == SQLITE_DONE ? SQLITE_ROW : rc;
        (void)sqlite3_reset(p->other);
    }
    return rc;
}

struct tour {
    const char *rows; /* from the position (?1, ?2, ?3) on, at most ?4 */
    int position;     /* the columns of the next position from here on */
    const char *other, *third;
    int (*check)(struct pass *); /* SQLITE_ROW to go on */
};

static const struct tour owners = {
    "SELECT seq, sid, seq, 0, 0 FROM events WHERE seq>?1 AND ?2<>1 AND ?3<>1 ORDER BY seq LIMIT ?4",
    2, "SELECT 1 FROM sessions WHERE sid=?1", "SELECT 1", check_owner};

#define LIVE_RUNS "(SELECT run FROM runs WHERE state=1)"
static const struct tour tours[] = {
    {"SELECT seq, sid, cursor, idkey, seq, 0, 0 FROM events WHERE seq>?1 AND ?2<>1 AND ?3<>1"
     " AND seq<=(SELECT value FROM meta WHERE key='indexed') ORDER BY seq LIMIT ?4",
     4,
     "SELECT last, seqs FROM run_places WHERE run=?1 AND sid=?2 AND last>=?3 ORDER BY last LIMIT 1",
     "SELECT place, ids FROM run_ids WHERE place BETWEEN ?1<<40 AND ?1<<40|?2"
     " ORDER BY place DESC LIMIT 1",
     check_indexed},
    {"SELECT run, sid, last, seqs, run, sid, last FROM run_places WHERE (run,sid,last)>(?1,?2,?3)"
     " AND run IN " LIVE_RUNS " ORDER BY run, sid, last LIMIT ?4",
     4, "SELECT sid, cursor FROM events WHERE seq=?1", "SELECT 1", check_places},
    {"SELECT place, ids, place, 0, 0 FROM run_ids WHERE place>?1 AND ?2<>1 AND ?3<>1"
     " AND place>>40 IN " LIVE_RUNS " ORDER BY place LIMIT ?4",
     2, "SELECT sid, idkey FROM events WHERE seq=?1", "SELECT 1", check_ids},
};

static int make(struct pass *p, const struct tour *t)
{
    int64_t at[3] = {INT64_MIN, INT64_MIN, INT64_MIN};
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
        p->first_seq = p->last_seq = -1; /* another may cover it now */
        (void)sqlite3_bind_int64(p->rows, 1, at[0]);
        (void)sqlite3_bind_int64(p->rows, 2, at[1]);
        (void)sqlite3_bind_int64(p->rows, 3, at[2]);
        (void)sqlite3_bind_int(p->rows, 4, PAGE_ROWS);
        for (n = 0; (rc = sqlite3_step(p->rows)) == SQLITE_ROW; n++) {
            at[0] = sqlite3_column_int64(p->rows, t->position);
            at[1] = sqlite3_column_int64(p->rows, t->position + 1);
            at[2] = sqlite3_column_int64(p->rows, t->position + 2);
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
    int rc = sqlite3_prepare_v2(
        db,
        "SELECT run, first_seq, last_seq FROM runs WHERE state=1 AND ?1 BETWEEN first_seq AND"
        " last_seq",
        -1, &p.run, NULL);
    if (rc == SQLITE_OK) {
        rc = make(&p, &owners);
    }
    for (size_t i = 0; rc == SQLITE_OK && how->deep && i < sizeof(tours) / sizeof(tours[0]); i++) {
        rc = make(&p, &tours[i]);
    }
    (void)sqlite3_finalize(p.run);
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "check", db, rc);
    }
    return eg_db_map(rc);
}
