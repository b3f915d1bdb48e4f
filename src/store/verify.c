/*
 * verify.c - proves that the log is whole: for every session the cursors from the floor to the head
 * are all there, each event's hash follows from the one before, floor and head agree with the
 * session's row, and each event names the session and cursor it is stored under.
 *
 * Threads: any, with a connection of its own. Reads in short transactions (1,000 events), so that
 * it can run beside a busy gateway: the head is fixed when a session is begun, and a floor that
 * moves meanwhile makes it begin that session again; one that is trimmed faster than it is read,
 * time and again, is given up and counted as missed. Sessions being deleted or forked are only
 * counted: their logs are incomplete by design.
 *
 * Faults are data and go to the callback; after a broken link the check goes on from the hash that
 * is stored, so one alteration is one fault (see follow). A page that SQLite cannot read is a fault
 * of that session. Only what makes the check itself impossible is returned as an error.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/db.h"
#include "store/gate.h"
#include "store/heads.h"
#include "store/walk.h"
#include "wire/event.h"

#define PAGE_EVENTS 1000
#define RESTARTS_MAX 100 /* of one session whose floor keeps moving */

static const char row_sql[] = "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s WHERE s.sid=?1";

struct check {
    sqlite3 *db;
    const char *path;
    const struct eg_verify *how;
    struct eg_check_result *result;
    int64_t done, total;
    sqlite3_stmt *row;
    struct eg_walk events;
    struct eg_heads *heads; /* up to the running transaction */
    enum eg_err turns_err;
    char *why;
    size_t why_size;
};

/* Where the walk along one session is. */
struct walk {
    struct eg_session_row start; /* as found when it was begun */
    uint64_t next;               /* cursor to come */
    uint8_t prev[EG_CHAIN_BYTES];
    bool linked;   /* prev is the hash of the event before next */
    bool doubtful; /* the last event did not fit, and what is stored of its hash is not all of it */
    int64_t bytes; /* of the events seen */
};

static void fault(struct check *c, const char *fmt, ...) EG_PRINTF(2, 3);

static void fault(struct check *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    c->result->faults++;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (c->how->fault != NULL) {
        c->how->fault(c->how->arg, text);
    }
}

static void progress(struct check *c)
{
    if (c->how->progress != NULL) {
        int64_t done = c->done < c->total ? c->done : c->total;
        c->how->progress(c->how->arg, done, c->total);
    }
}

static enum eg_err failed(struct check *c, int rc)
{
    eg_db_explain(c->why, c->why_size, c->path, "check", c->db, rc);
    return eg_db_map(rc);
}

static enum eg_err begin(struct check *c)
{
    eg_gate_enter();
    const int rc = eg_heads_begin(c->heads, c->db);
    if (rc == SQLITE_OK) {
        return EG_OK;
    }
    const enum eg_err e = failed(c, rc);
    (void)eg_db_leave(c->db);
    eg_gate_leave();
    return e;
}

static void end(struct check *c)
{
    (void)sqlite3_reset(c->row);
    (void)eg_db_leave(c->db);
    eg_gate_leave();
}

/* The session's row: EG_OK, EG_ENOTFOUND or a failure. */
static enum eg_err read_row(struct check *c, int64_t sid, struct eg_session_row *out)
{
    (void)sqlite3_bind_int64(c->row, 1, sid);
    int rc = sqlite3_step(c->row);
    if (rc == SQLITE_ROW) {
        eg_db_session(c->row, out);
        eg_heads_patch(c->heads, out);
    }
    (void)sqlite3_reset(c->row);
    return rc == SQLITE_ROW ? EG_OK : rc == SQLITE_DONE ? EG_ENOTFOUND : failed(c, rc);
}

/* Walks over at most max events of a session from..to, in the running transaction. */
static enum eg_err each_event(struct check *c, int64_t sid, uint64_t from, uint64_t to, int max,
                              eg_walk_fn *fn, void *arg)
{
    const struct eg_span span = {sid, from, to, max, false};
    int rc = eg_walk_run(&c->events, &span, fn, arg);
    return rc == SQLITE_OK ? EG_OK : failed(c, rc);
}

/* ---- one session ---- */

struct one_event {
    uint64_t cursor; /* 0: there is none */
    uint8_t hash[EG_CHAIN_BYTES];
    size_t hash_n; /* how much of it is stored */
};

static bool take_one(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct one_event *o = arg;
    struct eg_slice h = eg_db_blob(st, 2);
    o->cursor = cursor;
    if (h.n == EG_CHAIN_BYTES || h.n == EG_HASH_SHORT) {
        memcpy(o->hash, h.p, h.n);
        o->hash_n = h.n;
    }
    return false;
}

/* What the row alone tells, and its ends: called in the transaction that read it. */
static enum eg_err check_row(struct check *c, const struct eg_session_row *row)
{
    struct one_event beyond = {0};
    struct one_event floor = {0};
    if (row->oldest < 1 || row->oldest > row->cursor + 1) {
        fault(c, "session %s: its floor %" PRIu64 " does not fit its head %" PRIu64, row->id,
              row->oldest, row->cursor);
    }
    if (row->oldest == 1 && !eg_db_no_hash(row->floor_hash)) {
        fault(c, "session %s: nothing was removed, yet there is a hash for it", row->id);
    }
    if (row->oldest == row->cursor + 1 && memcmp(row->hash, row->floor_hash, EG_CHAIN_BYTES) != 0) {
        fault(c, "session %s: head and floor meet, but their hashes differ", row->id);
    }
    enum eg_err e = each_event(c, row->sid, row->cursor + 1, UINT64_MAX, 1, take_one, &beyond);
    if (e == EG_OK && beyond.cursor != 0) {
        fault(c, "session %s: event %" PRIu64 " lies beyond the head %" PRIu64, row->id,
              beyond.cursor, row->cursor);
    }
    if (e == EG_OK && row->oldest > 1) {
        e = each_event(c, row->sid, row->oldest - 1, row->oldest - 1, 1, take_one, &floor);
        /* Not yet removed: it can vouch for the floor. */
        if (e == EG_OK && floor.cursor != 0 &&
            memcmp(floor.hash, row->floor_hash, floor.hash_n) != 0) {
            fault(c, "session %s: the floor's hash is not that of event %" PRIu64, row->id,
                  row->oldest - 1);
        }
    }
    return e;
}

static void missing(struct check *c, const struct walk *w, uint64_t to)
{
    if (to == w->next) {
        fault(c, "session %s: event %" PRIu64 " is missing", w->start.id, to);
    } else {
        fault(c, "session %s: events %" PRIu64 " to %" PRIu64 " are missing", w->start.id, w->next,
              to);
    }
}

/*
 * Goes on from an event that fits (now: its hash) or does not. From a whole stored hash the chain
 * goes on in any case. From a part of one it may: when the event after it fits, only the stored
 * part was wrong. Else the next whole one takes it up again.
 */
static void follow(struct walk *w, bool fits, const uint8_t now[EG_CHAIN_BYTES],
                   struct eg_slice stored)
{
    if (stored.n == EG_CHAIN_BYTES) {
        memcpy(w->prev, stored.p, EG_CHAIN_BYTES);
        w->linked = true;
        w->doubtful = false;
    } else if (w->linked) {
        memcpy(w->prev, now, EG_CHAIN_BYTES);
        w->linked = fits || !w->doubtful;
        w->doubtful = !fits && !w->doubtful;
    }
}

static void check_event(struct check *c, struct walk *w, uint64_t cursor, struct eg_slice hash,
                        struct eg_slice body)
{
    uint8_t now[EG_CHAIN_BYTES];
    struct eg_event_head head;
    const char *id = w->start.id;
    if (cursor > w->next) {
        missing(c, w, cursor - 1);
        w->linked = w->doubtful = false;
    }
    if (hash.n != EG_CHAIN_BYTES && hash.n != EG_HASH_SHORT) {
        fault(c, "session %s: event %" PRIu64 " has no hash", id, cursor);
        w->linked = w->doubtful = false;
    } else {
        eg_chain_next(w->prev, body, now);
        const bool fits = memcmp(now, hash.p, hash.n) == 0;
        if (w->linked && !fits && !w->doubtful) {
            fault(c, "session %s: event %" PRIu64 " is not what was written, or not in its place",
                  id, cursor);
        }
        follow(w, fits, now, hash);
    }
    if (eg_event_read(body, &head) != EG_OK) {
        fault(c, "session %s: event %" PRIu64 " is not an event", id, cursor);
    } else if (head.cursor != cursor || !eg_slice_is(head.session_id, id)) {
        fault(c, "session %s: event %" PRIu64 " says it is event %" PRIu64 " of %.*s", id, cursor,
              head.cursor, (int)head.session_id.n, head.session_id.p);
    }
    w->bytes += (int64_t)body.n;
    w->next = cursor + 1;
    c->result->events++;
    c->done++;
}

struct page {
    struct check *c;
    struct walk *w;
    int n;
};

static bool page_event(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct page *p = arg;
    check_event(p->c, p->w, cursor, eg_db_blob(st, 2), eg_db_blob(st, 1));
    p->n++;
    return true;
}

/* One page inside the running transaction; *more when it was full. */
static enum eg_err check_page(struct check *c, struct walk *w, bool *more)
{
    struct page p = {c, w, 0};
    enum eg_err e =
        each_event(c, w->start.sid, w->next, w->start.cursor, PAGE_EVENTS, page_event, &p);
    *more = p.n == PAGE_EVENTS;
    return e;
}

struct sum {
    int64_t bytes;
    uint64_t next;
};

static bool add_bytes(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct sum *s = arg;
    s->bytes += sqlite3_column_bytes(st, 1);
    s->next = cursor + 1;
    return true;
}

/* After the last page, in its transaction; now is the row as it is there. */
static enum eg_err check_end(struct check *c, const struct walk *w,
                             const struct eg_session_row *now)
{
    enum eg_err e = EG_OK;
    struct sum below = {0, 0};
    if (w->next <= w->start.cursor) {
        missing(c, w, w->start.cursor);
    } else if (w->linked && !w->doubtful && w->start.cursor >= w->start.oldest &&
               memcmp(w->prev, w->start.hash, EG_CHAIN_BYTES) != 0) {
        fault(c, "session %s: the hash of its head is not that of event %" PRIu64, w->start.id,
              w->start.cursor);
    }
    if (now->cursor != w->start.cursor || now->bytes != w->start.bytes) {
        return EG_OK;
    }
    uint64_t from = 1;
    if (w->start.oldest > 1) {
        const int rc = eg_walk_lowest(&c->events, NULL, w->start.sid, w->start.oldest - 1, &from);
        e = rc == SQLITE_OK ? EG_OK : failed(c, rc);
    }
    for (; e == EG_OK && from > 0 && from < w->start.oldest; from = below.next) {
        below.next = 0;
        e = each_event(c, w->start.sid, from, w->start.oldest - 1, PAGE_EVENTS, add_bytes, &below);
    }
    const int64_t bytes = w->bytes + below.bytes;
    if (e == EG_OK && bytes != now->bytes) {
        fault(c, "session %s: holds %lld bytes of events, its row says %lld", w->start.id,
              (long long)bytes, (long long)now->bytes);
    }
    return e;
}

static bool settled(const struct eg_session_row *row)
{
    return row->state == EG_SESSION_OPEN || row->state == EG_SESSION_CLOSED;
}

/* Walks once. *again: the floor moved meanwhile. EG_ENOTFOUND: the session has gone. */
static enum eg_err walk_session(struct check *c, int64_t sid, bool *again)
{
    struct walk w = {.linked = true};
    struct eg_session_row now;
    bool more = true;
    *again = false;
    for (bool fresh = true; more; fresh = false) {
        enum eg_err e = begin(c);
        if (e != EG_OK) {
            return e;
        }
        e = read_row(c, sid, &now);
        if (e != EG_OK) {
            end(c);
            return e;
        }
        if (!settled(&now) || (!fresh && now.oldest > w.next)) {
            *again = settled(&now);
            end(c);
            return EG_OK;
        }
        if (fresh) {
            w.start = now;
            w.next = now.oldest;
            if (now.oldest > 1) {
                memcpy(w.prev, now.floor_hash, EG_CHAIN_BYTES);
            }
            e = check_row(c, &now);
        }
        if (e == EG_OK) {
            e = check_page(c, &w, &more);
        }
        if (e == EG_OK && !more) {
            e = check_end(c, &w, &now);
        }
        end(c);
        progress(c);
        if (e != EG_OK) {
            return e;
        }
    }
    return EG_OK;
}

static enum eg_err check_session(struct check *c, int64_t sid)
{
    enum eg_err e = EG_OK;
    bool again = true;
    c->result->sessions++;
    for (int i = 0; again && i < RESTARTS_MAX; i++) {
        int64_t events = c->result->events;
        e = walk_session(c, sid, &again);
        if (again) {
            c->result->events = events; /* they are counted when they are walked again */
        }
    }
    c->result->missed += again && e == EG_OK;
    if (e == EG_ECORRUPT) {
        fault(c, "session number %lld: cannot be read: %s", (long long)sid, c->why);
        e = EG_OK;
    }
    return e == EG_ENOTFOUND ? EG_OK : e;
}

/* ---- all of it ---- */

/* The next number after `after` that a query gives; EG_ENOTFOUND at the end. */
static enum eg_err next_number(struct check *c, const char *sql, int64_t after, int64_t *out)
{
    sqlite3_stmt *st = NULL;
    eg_gate_enter();
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(st, 1, after);
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
            *out = sqlite3_column_int64(st, 0);
        }
    }
    enum eg_err e = rc == SQLITE_ROW ? EG_OK : rc == SQLITE_DONE ? EG_ENOTFOUND : failed(c, rc);
    (void)sqlite3_finalize(st);
    eg_gate_leave();
    return e;
}

/* As next_number, of a number above `after`. In a damaged table the next may be none, and reading
 * would never end. */
static enum eg_err next_above(struct check *c, const char *sql, int64_t after, int64_t *out)
{
    const enum eg_err e = next_number(c, sql, after, out);
    if (e == EG_OK && *out <= after) {
        (void)snprintf(c->why, c->why_size, "%s: the rows are out of order", c->path);
        return EG_ECORRUPT;
    }
    return e;
}

/* Rows of a table that belong to no session. Each query jumps from session to session. */
static enum eg_err check_orphans(struct check *c, const char *table)
{
    char sql[256];
    int64_t sid = 0;
    enum eg_err e = EG_OK;
    (void)snprintf(sql, sizeof(sql), "SELECT sid FROM %s t WHERE t.sid>?1 ORDER BY t.sid LIMIT 1",
                   table);
    while ((e = next_above(c, sql, sid, &sid)) == EG_OK) {
        int64_t there = 0;
        char exists[160];
        /* Deleted between the two questions: then the rows have gone with it. */
        (void)snprintf(exists, sizeof(exists),
                       "SELECT 1 WHERE EXISTS (SELECT 1 FROM sessions WHERE sid=?1)"
                       " OR NOT EXISTS (SELECT 1 FROM %s WHERE sid=?1)",
                       table);
        e = next_number(c, exists, sid, &there);
        if (e == EG_ENOTFOUND) {
            fault(c, "%s of session number %lld, which does not exist", table, (long long)sid);
        } else if (e != EG_OK) {
            break;
        }
    }
    if (e == EG_ECORRUPT) {
        fault(c, "%s: cannot be read: %s", table, c->why);
        e = EG_OK;
    }
    return e == EG_ENOTFOUND ? EG_OK : e;
}

static bool check_turn(void *arg, const struct eg_turn_row *turn)
{
    struct check *c = arg;
    struct eg_session_row row = {0};
    const enum eg_err e = read_row(c, turn->sid, &row);
    if (e == EG_OK && row.state < EG_SESSION_DELETING &&
        (turn->turn < 1 || turn->turn > row.cursor)) {
        fault(c, "session %s: turn %" PRIu64 " has no message", row.id, turn->turn);
    }
    c->turns_err = e == EG_ENOTFOUND ? EG_OK : e;
    return c->turns_err == EG_OK;
}

/* Turns whose message is not in the log. */
static enum eg_err check_turns(struct check *c)
{
    sqlite3_stmt *st = NULL;
    const struct eg_heads_gen *const gens[] = {&c->heads->fill};
    const struct eg_turn_span span = {0, 0, 0};
    enum eg_err e = begin(c);
    if (e != EG_OK) {
        return e;
    }
    int rc = sqlite3_prepare_v2(
        c->db, "SELECT " EG_DB_TURN_COLUMNS " FROM turns t ORDER BY t.sid, t.turn", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = eg_heads_walk_turns(gens, 1, st, &span, check_turn, c);
    }
    e = rc == SQLITE_OK ? c->turns_err : failed(c, rc);
    (void)sqlite3_finalize(st);
    end(c);
    return e;
}

static enum eg_err check_integrity(struct check *c)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(c->db, "PRAGMA integrity_check", -1, &st, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(st, 0);
        if (text != NULL && strcmp(text, "ok") != 0) {
            fault(c, "database: %s", text);
        }
        rc = SQLITE_OK;
    }
    enum eg_err e = rc == SQLITE_DONE ? EG_OK : failed(c, rc);
    (void)sqlite3_finalize(st);
    if (e == EG_ECORRUPT) {
        fault(c, "database: %s", c->why);
        e = EG_OK;
    }
    return e;
}

static enum eg_err check_all(struct check *c)
{
    static const char *const tables[] = {"turns", "acks"};
    int64_t sid = 0;
    enum eg_err e =
        eg_db_int(c->db, "SELECT total(cursor-oldest+1) FROM sessions WHERE state<2", &c->total);
    if (e != EG_OK && e != EG_ECORRUPT) {
        return e;
    }
    progress(c);
    while ((e = next_above(c, "SELECT sid FROM sessions WHERE sid>?1 ORDER BY sid LIMIT 1", sid,
                           &sid)) == EG_OK) {
        e = check_session(c, sid);
        if (e != EG_OK) {
            return e;
        }
    }
    if (e == EG_ECORRUPT) {
        fault(c, "sessions after number %lld cannot be read: %s", (long long)sid, c->why);
    } else if (e != EG_ENOTFOUND) {
        return e;
    }
    e = EG_OK;
    for (size_t i = 0; e == EG_OK && i < sizeof(tables) / sizeof(tables[0]); i++) {
        e = check_orphans(c, tables[i]);
    }
    return e == EG_OK ? check_turns(c) : e;
}

static enum eg_err check_one(struct check *c)
{
    sqlite3_stmt *st = NULL;
    int64_t sid = 0;
    int rc = sqlite3_prepare_v2(c->db, "SELECT sid, cursor-oldest+1 FROM sessions WHERE id=?1", -1,
                                &st, NULL);
    if (rc == SQLITE_OK) {
        eg_db_bind(st, 1, eg_slice_cstr(c->how->session));
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
            sid = sqlite3_column_int64(st, 0);
            c->total = sqlite3_column_int64(st, 1);
        }
    }
    enum eg_err e = EG_OK;
    if (rc == SQLITE_DONE) {
        (void)snprintf(c->why, c->why_size, "%s: no session %s", c->path, c->how->session);
        c->result->no_such = true;
        e = EG_ENOTFOUND;
    } else if (rc != SQLITE_ROW) {
        e = failed(c, rc);
    }
    (void)sqlite3_finalize(st);
    return e == EG_OK ? check_session(c, sid) : e;
}

enum eg_err eg_db_verify(sqlite3 *db, const char *path, const struct eg_verify *how,
                         struct eg_check_result *out, char *why, size_t why_size)
{
    struct check c = {
        .db = db, .path = path, .how = how, .result = out, .why = why, .why_size = why_size};
    enum eg_err e = EG_OK;
    *out = (struct eg_check_result){0};
    int rc = sqlite3_prepare_v2(db, row_sql, -1, &c.row, NULL);
    e = rc == SQLITE_OK ? EG_OK : failed(&c, rc);
    eg_walk_open(&c.events, db);
    c.heads = eg_heads_new();
    if (e == EG_OK && c.heads == NULL) {
        e = EG_ENOMEM;
    }
    if (e == EG_OK && how->deep) {
        e = check_integrity(&c);
    }
    if (e == EG_OK) {
        e = how->session != NULL ? check_one(&c) : check_all(&c);
    }
    if (e == EG_OK && how->session == NULL) {
        e = eg_db_verify_index(db, path, how, out, why, why_size);
        if (e == EG_ECORRUPT) {
            fault(&c, "the log or its index cannot be read: %s", why);
            e = EG_OK;
        }
    }
    eg_walk_close(&c.events);
    eg_heads_free(c.heads);
    (void)sqlite3_finalize(c.row);
    return e;
}

enum eg_err eg_sqlite_verify(const char *dir, const char *session, bool deep,
                             void (*fault_fn)(void *arg, const char *text),
                             void (*progress_fn)(void *arg, int64_t done, int64_t total), void *arg,
                             struct eg_check_result *out, char *why, size_t why_size)
{
    char path[PATH_MAX];
    sqlite3 *db = NULL;
    const struct eg_verify how = {session, deep, fault_fn, progress_fn, arg};
    *out = (struct eg_check_result){0};
    enum eg_err e = eg_db_path(path, dir, EG_DB_NAME);
    if (e != EG_OK) {
        (void)snprintf(why, why_size, "%s: the name is too long", dir);
        return e;
    }
    e = eg_db_open_ro(path, false, &db, why, why_size);
    if (e == EG_OK) {
        e = eg_db_verify(db, path, &how, out, why, why_size);
    }
    (void)sqlite3_close(db);
    return e;
}
