/*
 * reader_list.c - a reader's larger questions: listing sessions, statistics, what retention has to
 * do.
 *
 * Listing goes down the index on whole hours and sorts within the hour, so a page costs what the
 * hours it touches cost, not the table. A filter that matches few sessions reads further.
 *
 * Retention walks the sessions by number in bounded steps, all or those that can have work. Within
 * a session timestamps never go back, so the first event to keep by age is found by bisection over
 * cursors.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/gate.h"
#include "store/reader_int.h"
#include "wire/event.h"

#define SCAN_SESSIONS 2000 /* looked at in one call */
#define SCAN_EVENTS 5000   /* sizes added up in one call and session */

/* ---- listing ---- */

static void list_sql(const struct eg_session_query *q, struct eg_buf *sql)
{
    eg_buf_str(sql, "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s WHERE ");
    eg_buf_str(sql, q->state < 0 ? "s.state<2" : "s.state=:state");
    if (q->agent.n > 0) {
        eg_buf_str(sql, " AND s.agent=:agent");
    }
    if (q->owner.n > 0) {
        eg_buf_str(sql, " AND s.owner=:owner");
    }
    if (q->text.n > 0) {
        eg_buf_str(sql, " AND instr(s.id,:text)>0");
    }
    if (q->active_since_ms > 0) {
        eg_buf_str(sql, " AND s.active_hour>=:since/3600000"
                        " AND eg_updated(s.sid,s.updated_ms)>=:since");
    }
    if (q->after_sid > 0) {
        eg_buf_str(sql, " AND s.active_hour<=:updated/3600000"
                        " AND (eg_updated(s.sid,s.updated_ms),s.sid)<(:updated,:sid)");
    }
    eg_buf_str(sql, " ORDER BY s.active_hour DESC, eg_updated(s.sid,s.updated_ms) DESC, s.sid DESC"
                    " LIMIT :limit");
    eg_buf_char(sql, '\0');
}

static void bind_int(sqlite3_stmt *st, const char *name, int64_t v)
{
    int at = sqlite3_bind_parameter_index(st, name);
    if (at > 0) {
        (void)sqlite3_bind_int64(st, at, v);
    }
}

static void bind_text(sqlite3_stmt *st, const char *name, struct eg_slice s)
{
    int at = sqlite3_bind_parameter_index(st, name);
    if (at > 0) {
        eg_db_bind(st, at, s);
    }
}

enum eg_err eg_reader_sessions(struct eg_reader *r, const struct eg_session_query *q,
                               eg_session_fn *fn, void *arg)
{
    struct eg_buf sql = {0};
    struct eg_session_row row;
    sqlite3_stmt *st = NULL;
    list_sql(q, &sql);
    enum eg_err e = sql.err;
    if (e != EG_OK) {
        goto out;
    }
    int rc = sqlite3_prepare_v2(r->db, sql.p, -1, &st, NULL);
    if (rc != SQLITE_OK) {
        eg_db_explain(r->why, sizeof(r->why), r->path, "list sessions", r->db, rc);
        e = eg_db_map(rc);
        goto out;
    }
    e = eg_reader_enter(r);
    if (e != EG_OK) {
        goto out;
    }
    bind_int(st, ":state", q->state);
    bind_text(st, ":agent", q->agent);
    bind_text(st, ":owner", q->owner);
    bind_text(st, ":text", q->text);
    bind_int(st, ":since", q->active_since_ms);
    bind_int(st, ":updated", q->after_updated_ms);
    bind_int(st, ":sid", q->after_sid);
    bind_int(st, ":limit", q->limit > 0 ? q->limit : 0);
    while (eg_reader_step(r, st, &e)) {
        eg_db_session(st, &row);
        eg_heads_patch(r->heads, &row);
        fn(arg, &row);
    }
    eg_reader_end(r, st);
    eg_reader_relax(r);
out:
    (void)sqlite3_finalize(st);
    eg_buf_free(&sql);
    return e;
}

/* ---- statistics ---- */

enum eg_err eg_reader_stats(struct eg_reader *r, struct eg_store_stats *out)
{
    enum eg_err e;
    char wal[PATH_MAX + 16];
    struct stat file;
    memset(out, 0, sizeof(*out));
    sqlite3_stmt *st = eg_reader_begin(r, EG_RS_STATS, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int(st, 1, EG_SESSION_OPEN);
    if (eg_reader_step(r, st, &e)) {
        out->sessions = sqlite3_column_int64(st, 0);
        out->open_sessions = sqlite3_column_int64(st, 1);
        out->db_bytes = sqlite3_column_int64(st, 2);
    }
    eg_reader_end(r, st);
    (void)snprintf(wal, sizeof(wal), "%s-wal", r->path);
    if (e == EG_OK && stat(wal, &file) == 0) {
        out->wal_bytes = (int64_t)file.st_size;
    }
    return e;
}

/* ---- retention ---- */

struct when {
    enum eg_err err;
    int64_t at_ms;
};

static bool read_time(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct when *w = arg;
    struct eg_event_head head;
    (void)cursor;
    w->err = eg_event_read(eg_db_blob(st, 1), &head);
    w->at_ms = w->err == EG_OK ? head.timestamp_ms : 0;
    return false;
}

/* Walks inside the read transaction that the caller's statement holds open. What is merged between
 * the two may be missed: such a session has its turn the next time. */
static enum eg_err walk(struct eg_reader *r, const struct eg_span *span, eg_walk_fn *fn, void *arg)
{
    int rc = eg_walk_look(&r->walk, r->path, span);
    if (rc == SQLITE_OK) {
        rc = eg_walk_run(&r->walk, span, fn, arg);
    }
    return rc == SQLITE_OK ? EG_OK : eg_reader_failed(r, rc);
}

/* The time of the event at cursor. EG_ENOTFOUND when there is none. */
static enum eg_err event_time(struct eg_reader *r, int64_t sid, uint64_t cursor, int64_t *out)
{
    struct when w = {EG_ENOTFOUND, 0};
    enum eg_err e = walk(r, &(struct eg_span){sid, cursor, cursor, 1, false}, read_time, &w);
    *out = w.at_ms;
    return e == EG_OK ? w.err : e;
}

/* The first cursor whose event is not older than before_ms; cursor + 1 when all are. */
static enum eg_err keep_by_age(struct eg_reader *r, const struct eg_session_row *row,
                               int64_t before_ms, uint64_t *keep)
{
    uint64_t low = row->oldest;
    uint64_t high = row->cursor + 1;
    int64_t at = 0;
    enum eg_err e = EG_OK;
    if (row->updated_ms < before_ms) {
        *keep = high;
        return EG_OK;
    }
    /* Most sessions have nothing to give: look at the oldest event first. */
    e = event_time(r, row->sid, low, &at);
    if (e == EG_OK && at < before_ms) {
        low++;
    } else {
        high = low;
    }
    while (e == EG_OK && low < high) {
        uint64_t middle = low + (high - low) / 2;
        e = event_time(r, row->sid, middle, &at);
        if (at < before_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *keep = low;
    return e;
}

struct excess {
    int64_t bytes;
    uint64_t keep;
};

static bool take_off(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct excess *x = arg;
    x->bytes -= sqlite3_column_bytes(st, 1);
    x->keep = cursor + 1;
    return x->bytes > 0;
}

/* Whether events below the floor are still there: a trim is under way, or was when the gateway
 * ended. */
static enum eg_err is_left(struct eg_reader *r, const struct eg_session_row *row, bool *left)
{
    int64_t at = 0;
    const enum eg_err e =
        row->oldest > 1 ? event_time(r, row->sid, row->oldest - 1, &at) : EG_ENOTFOUND;
    *left = e == EG_OK;
    return e == EG_ENOTFOUND ? EG_OK : e;
}

/* The first cursor to keep so that about max_bytes remain; looks at no more than SCAN_EVENTS. While
 * events below the floor are left they are still counted: they are waited for. */
static enum eg_err keep_by_bytes(struct eg_reader *r, const struct eg_session_row *row,
                                 int64_t max_bytes, bool left, uint64_t *keep)
{
    struct excess x = {row->bytes - max_bytes, row->oldest};
    enum eg_err e = EG_OK;
    if (!left) {
        e = walk(r, &(struct eg_span){row->sid, row->oldest, row->cursor, SCAN_EVENTS, false},
                 take_off, &x);
    }
    *keep = x.keep;
    return e;
}

/* Whether rule has work on row, and from which cursor on to keep (0: delete it all; its oldest: to
 * go on with what is left of an earlier trim). */
static enum eg_err judge(struct eg_reader *r, const struct eg_retention *rule,
                         const struct eg_session_row *row, bool *work, uint64_t *keep)
{
    enum eg_err e;
    uint64_t k = 0;
    bool left = false;
    *work = false;
    *keep = row->oldest;
    if (row->state == EG_SESSION_DELETING ||
        (row->state == EG_SESSION_CLOSED && rule->closed_before_ms > 0 &&
         row->closed_ms < rule->closed_before_ms)) {
        *work = true;
        *keep = 0;
        return EG_OK;
    }
    if (row->state == EG_SESSION_FORKING) {
        return EG_OK;
    }
    e = is_left(r, row, &left);
    if (e != EG_OK || row->oldest > row->cursor) {
        *work = left;
        return e;
    }
    if (rule->max_events > 0 && row->cursor - row->oldest + 1 > (uint64_t)rule->max_events) {
        *keep = row->cursor - (uint64_t)rule->max_events + 1;
    }
    if (e == EG_OK && rule->max_bytes > 0 && row->bytes > rule->max_bytes) {
        e = keep_by_bytes(r, row, rule->max_bytes, left, &k);
        *keep = k > *keep ? k : *keep;
    }
    if (e == EG_OK && rule->events_before_ms > 0) {
        e = keep_by_age(r, row, rule->events_before_ms, &k);
        *keep = k > *keep ? k : *keep;
    }
    *work = e == EG_OK && (left || *keep > row->oldest);
    return e;
}

enum eg_err eg_reader_retention(struct eg_reader *r, const struct eg_retention *rule,
                                int64_t after_sid, int max, eg_retain_fn *fn, void *arg,
                                int64_t *last_sid)
{
    enum eg_err e;
    struct eg_session_row row;
    int looked = 0;
    int found = 0;
    bool work = false;
    uint64_t keep = 0;
    *last_sid = 0;
    const enum eg_reader_statement which = rule->hour == EG_RETAIN_ALL         ? EG_RS_FROM_SID
                                           : rule->hour == EG_RETAIN_UNSETTLED ? EG_RS_UNSETTLED
                                                                               : EG_RS_OF_HOUR;
    sqlite3_stmt *st = eg_reader_begin_heads(r, which, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int64(st, 1, after_sid);
    (void)sqlite3_bind_int(st, 2, SCAN_SESSIONS);
    if (which == EG_RS_OF_HOUR) {
        (void)sqlite3_bind_int64(st, 3, rule->hour);
    }
    while (found < max && eg_reader_step(r, st, &e)) {
        eg_db_session(st, &row);
        eg_heads_patch(r->heads, &row);
        looked++;
        *last_sid = row.sid;
        e = judge(r, rule, &row, &work, &keep);
        if (e == EG_ECORRUPT || e == EG_ENOTFOUND) {
            work = false; /* damage is for the check to report; the others still have their turn */
            e = EG_OK;
        }
        if (e != EG_OK) {
            break;
        }
        if (work) {
            found++;
            fn(arg, &row, keep);
        }
    }
    eg_reader_end(r, st);
    eg_reader_relax(r);
    if (e == EG_OK && found < max && looked < SCAN_SESSIONS) {
        *last_sid = 0;
    }
    return e;
}
