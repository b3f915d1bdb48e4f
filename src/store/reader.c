/*
 * reader.c - a read-only connection: sessions, pages of events, turns and the small tables.
 * Listings, statistics and retention are in reader_list.c.
 *
 * Threads: one at a time a reader. Owns its connection. Each call is one read transaction between
 * gate.h's enter and leave, with no statement open when it returns; so a socket that drains slowly
 * never keeps the write-ahead log from being started over. Memory: 4 MiB of page cache a reader.
 *
 * Failure modes: EG_EBUSY when the database is being recovered by another process for more than
 * two seconds; EG_EIO and EG_ECORRUPT with the text in eg_reader_why. A failed call changes
 * nothing and may be repeated.
 */
#include "store/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/gate.h"
#include "store/reader_int.h"

static const char *const reader_sql[EG_RS_COUNT] = {
#define EG_RS_SQL(name, sql) sql,
    EG_READER_STATEMENTS(EG_RS_SQL)
#undef EG_RS_SQL
};

enum eg_err eg_reader_open(const char *dir, struct eg_reader **out, char *why, size_t why_size)
{
    *out = NULL;
    struct eg_reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return EG_ENOMEM;
    }
    enum eg_err e = eg_db_path(r->path, dir, EG_DB_NAME);
    if (e == EG_OK) {
        e = eg_db_open_ro(r->path, false, &r->db, why, why_size);
    } else {
        (void)snprintf(why, why_size, "%s: the name is too long", dir);
    }
    if (e != EG_OK) {
        eg_reader_close(r);
        return e;
    }
    eg_walk_open(&r->walk, r->db);
    e = eg_reader_heads_open(r);
    if (e != EG_OK) {
        (void)snprintf(why, why_size, "%s", r->why);
        eg_reader_close(r);
        return e;
    }
    *out = r;
    return EG_OK;
}

void eg_reader_close(struct eg_reader *r)
{
    if (r == NULL) {
        return;
    }
    for (int i = 0; i < EG_RS_COUNT; i++) {
        (void)sqlite3_finalize(r->st[i]);
    }
    eg_walk_close(&r->walk);
    (void)sqlite3_close(r->db);
    eg_heads_free(r->heads);
    free(r);
}

const char *eg_reader_why(const struct eg_reader *r)
{
    return r->why;
}

enum eg_err eg_reader_failed(struct eg_reader *r, int rc)
{
    eg_db_explain(r->why, sizeof(r->why), r->path, "read", r->db, rc);
    return eg_db_map(rc);
}

sqlite3_stmt *eg_reader_statement(struct eg_reader *r, enum eg_reader_statement which,
                                  enum eg_err *e)
{
    if (r->st[which] == NULL) {
        int rc = sqlite3_prepare_v3(r->db, reader_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &r->st[which], NULL);
        *e = rc == SQLITE_OK ? EG_OK : eg_reader_failed(r, rc);
    }
    return r->st[which];
}

sqlite3_stmt *eg_reader_begin(struct eg_reader *r, enum eg_reader_statement which, enum eg_err *e)
{
    *e = EG_OK;
    eg_gate_enter();
    const int rc = eg_db_leave(r->db);
    if (rc != SQLITE_OK) {
        *e = eg_reader_failed(r, rc);
    }
    sqlite3_stmt *st = rc == SQLITE_OK ? eg_reader_statement(r, which, e) : NULL;
    if (st == NULL) {
        eg_gate_leave();
    }
    return st;
}

void eg_reader_end(struct eg_reader *r, sqlite3_stmt *st)
{
    (void)sqlite3_reset(st);
    (void)eg_db_leave(r->db);
    eg_gate_leave();
}

bool eg_reader_step(struct eg_reader *r, sqlite3_stmt *st, enum eg_err *e)
{
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return true;
    }
    *e = rc == SQLITE_DONE ? EG_OK : eg_reader_failed(r, rc);
    return false;
}

/* ---- sessions and events ---- */

/* Beside the writer of this process: its heads are asked. The row is as it was in the read or
 * newer, never older. */
static enum eg_err shared_session(struct eg_reader *r, struct eg_tail *tail, sqlite3_stmt *st,
                                  struct eg_session_row *out, bool *again)
{
    enum eg_err e = EG_OK;
    *again = false;
    if (eg_reader_step(r, st, &e)) {
        eg_db_session(st, out);
        *again = !eg_heads_look(tail->heads, sqlite3_column_int64(st, EG_DB_SESSION_COUNT), out);
    } else if (e == EG_OK) {
        e = EG_ENOTFOUND;
    }
    eg_reader_end(r, st);
    return e;
}

static enum eg_err own_session(struct eg_reader *r, sqlite3_stmt *st, struct eg_session_row *out)
{
    enum eg_err e = EG_OK;
    if (eg_reader_step(r, st, &e)) {
        eg_db_session(st, out);
        eg_heads_patch(r->heads, out);
    } else if (e == EG_OK) {
        e = EG_ENOTFOUND;
    }
    eg_reader_end(r, st);
    return e;
}

/* By id, or by sid where id is empty. */
static enum eg_err one_session(struct eg_reader *r, struct eg_slice id, int64_t sid,
                               struct eg_session_row *out)
{
    const enum eg_reader_statement which =
        id.p != NULL ? EG_RS_SESSION_BY_ID : EG_RS_SESSION_BY_SID;
    enum eg_err e;
    for (bool again = true; again;) {
        struct eg_tail *tail = eg_walk_shared(&r->walk, r->path);
        sqlite3_stmt *st =
            tail != NULL ? eg_reader_begin(r, which, &e) : eg_reader_begin_heads(r, which, &e);
        if (st == NULL) {
            return e;
        }
        if (id.p != NULL) {
            eg_db_bind(st, 1, id);
        } else {
            (void)sqlite3_bind_int64(st, 1, sid);
        }
        again = false;
        e = tail != NULL ? shared_session(r, tail, st, out, &again) : own_session(r, st, out);
    }
    return e;
}

enum eg_err eg_reader_session(struct eg_reader *r, struct eg_slice id, struct eg_session_row *out)
{
    return one_session(r, id.p != NULL ? id : EG_LIT(""), 0, out);
}

enum eg_err eg_reader_session_sid(struct eg_reader *r, int64_t sid, struct eg_session_row *out)
{
    return one_session(r, (struct eg_slice){NULL, 0}, sid, out);
}

struct page {
    eg_event_fn *fn;
    void *arg;
    size_t bytes, max_bytes;
    bool any;
};

static bool page_event(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct page *p = arg;
    struct eg_slice body = eg_db_blob(st, 1);
    if (p->any && (p->bytes >= p->max_bytes || body.n > p->max_bytes - p->bytes)) {
        return false;
    }
    p->any = true;
    p->bytes += body.n;
    p->fn(p->arg, cursor, body);
    return true;
}

/* Runs a statement without rows. */
static enum eg_err once(struct eg_reader *r, enum eg_reader_statement which)
{
    enum eg_err e = EG_OK;
    sqlite3_stmt *st = eg_reader_statement(r, which, &e);
    if (st != NULL) {
        (void)eg_reader_step(r, st, &e);
        (void)sqlite3_reset(st);
    }
    return e;
}

enum eg_err eg_reader_events(struct eg_reader *r, const struct eg_page *page, eg_event_fn *fn,
                             void *arg)
{
    struct page p = {fn, arg, 0, page->max_bytes, false};
    const struct eg_span span = {page->sid, page->from, page->to, page->max > 0 ? page->max : 0,
                                 page->descending};
    eg_gate_enter();
    int rc = eg_db_leave(r->db);
    if (rc == SQLITE_OK) {
        rc = eg_walk_look(&r->walk, r->path, &span); /* before the transaction: see tail.h */
    }
    enum eg_err e = rc == SQLITE_OK ? once(r, EG_RS_BEGIN) : eg_reader_failed(r, rc);
    if (e == EG_OK) {
        rc = eg_walk_run(&r->walk, &span, page_event, &p);
        e = rc == SQLITE_OK ? EG_OK : eg_reader_failed(r, rc);
    }
    if (!sqlite3_get_autocommit(r->db)) {
        enum eg_err end = once(r, EG_RS_COMMIT);
        e = e == EG_OK ? end : e;
    }
    eg_gate_leave();
    return e;
}

/* ---- small tables ---- */

static enum eg_err texts(struct eg_reader *r, sqlite3_stmt *st, eg_text_fn *fn, void *arg)
{
    enum eg_err e;
    char text[EG_ID_MAX + 8];
    while (eg_reader_step(r, st, &e)) {
        eg_db_text(st, 0, text, sizeof(text));
        fn(arg, text, sqlite3_column_int64(st, 1));
    }
    eg_reader_end(r, st);
    return e;
}

enum eg_err eg_reader_acks(struct eg_reader *r, int64_t sid, eg_text_fn *fn, void *arg)
{
    enum eg_err e;
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_ACKS, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    return texts(r, st, fn, arg);
}

enum eg_err eg_reader_agents(struct eg_reader *r, eg_text_fn *fn, void *arg)
{
    enum eg_err e;
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_AGENTS, &e);
    return st != NULL ? texts(r, st, fn, arg) : e;
}

enum eg_err eg_reader_revoked(struct eg_reader *r, eg_text_fn *fn, void *arg)
{
    enum eg_err e;
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_REVOKED, &e);
    return st != NULL ? texts(r, st, fn, arg) : e;
}

enum eg_err eg_reader_ack(struct eg_reader *r, int64_t sid, struct eg_slice sub, uint64_t *out)
{
    enum eg_err e;
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_ACK, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    eg_db_bind(st, 2, sub);
    if (eg_reader_step(r, st, &e)) {
        *out = (uint64_t)sqlite3_column_int64(st, 0);
    } else if (e == EG_OK) {
        e = EG_ENOTFOUND;
    }
    eg_reader_end(r, st);
    return e;
}

static const char *text_at(sqlite3_stmt *st, int col)
{
    const char *p = (const char *)sqlite3_column_text(st, col);
    return p != NULL ? p : "";
}

enum eg_err eg_reader_audit(struct eg_reader *r, int64_t before, int limit, eg_audit_fn *fn,
                            void *arg)
{
    enum eg_err e;
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_AUDIT, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int64(st, 1, before > 0 ? before : INT64_MAX);
    (void)sqlite3_bind_int(st, 2, limit > 0 ? limit : 0);
    while (eg_reader_step(r, st, &e)) {
        fn(arg, sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1), text_at(st, 2),
           text_at(st, 3), text_at(st, 4), text_at(st, 5));
    }
    eg_reader_end(r, st);
    return e;
}
