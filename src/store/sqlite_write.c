/*
 * sqlite_write.c - struct eg_storage_ops on SQLite: one sticky transaction, statements prepared
 * once.
 *
 * Threads: the core's only. A failing step latches the first error; what follows does nothing;
 * commit rolls back and reports it.
 *
 * What a failed COMMIT means. In WAL mode the last write of a COMMIT is the frame that makes the
 * transaction valid, then comes the flush, then the index in shared memory. So: a refusal by a
 * lock, or a failed or short write, comes before the transaction is valid: rolled back. A failure
 * of the flush, or of anything after it (shared memory), leaves a log that may or may not contain
 * the transaction when it is read again: unknown. What is not plainly the first kind is taken as
 * the second.
 */
#include <assert.h>
#include <string.h>

#include "store/sqlite_int.h"

static struct eg_sqlite *self(struct eg_storage *base)
{
    return (struct eg_sqlite *)base;
}

/* ---- transaction ---- */

static enum eg_err op_begin(struct eg_storage *base)
{
    struct eg_sqlite *s = self(base);
    assert(!s->in_tx);
    if (s->dead) {
        return EG_EUNKNOWN;
    }
    int rc = sqlite3_step(s->st[EG_ST_BEGIN]);
    (void)sqlite3_reset(s->st[EG_ST_BEGIN]);
    if (rc != SQLITE_DONE) {
        return eg_sqlite_failed(s, "begin", rc);
    }
    s->err = EG_OK;
    s->in_tx = true;
    return EG_OK;
}

static void op_rollback(struct eg_storage *base)
{
    struct eg_sqlite *s = self(base);
    if (!s->in_tx) {
        return;
    }
    s->in_tx = false;
    s->err = EG_OK;
    memset(s->seen, 0, EG_SEEN_SLOTS * sizeof(*s->seen));
    if (!sqlite3_get_autocommit(s->db)) { /* some failures have rolled back already */
        (void)sqlite3_step(s->st[EG_ST_ROLLBACK]);
        (void)sqlite3_reset(s->st[EG_ST_ROLLBACK]);
    }
}

static enum eg_err commit_error(int rc)
{
    int kind = rc & 0xff;
    if (kind == SQLITE_FULL || kind == SQLITE_BUSY) {
        return eg_db_map(rc);
    }
    return rc == SQLITE_IOERR_WRITE ? EG_EIO : EG_EUNKNOWN;
}

static enum eg_err op_commit(struct eg_storage *base)
{
    struct eg_sqlite *s = self(base);
    assert(s->in_tx);
    enum eg_err e = s->err;
    if (e == EG_OK) {
        int rc = sqlite3_step(s->st[EG_ST_COMMIT]);
        (void)sqlite3_reset(s->st[EG_ST_COMMIT]);
        if (rc == SQLITE_DONE) {
            s->in_tx = false;
            return EG_OK;
        }
        (void)eg_sqlite_failed(s, "commit", rc);
        e = commit_error(rc);
        s->dead = e == EG_EUNKNOWN;
    }
    op_rollback(base);
    return e;
}

/* ---- steps ---- */

/* A statement ready to be bound; NULL when this transaction has failed already. */
static sqlite3_stmt *writing(struct eg_sqlite *s, enum eg_statement which)
{
    assert(s->in_tx);
    return s->err == EG_OK ? s->st[which] : NULL;
}

/* Notes a failed step. A flush can fail here too, when a large transaction spills into the log. */
static enum eg_err latch(struct eg_sqlite *s, const char *what, int rc)
{
    enum eg_err e = eg_sqlite_failed(s, what, rc);
    if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC) {
        s->dead = true;
        e = EG_EUNKNOWN;
    }
    if (s->in_tx) {
        s->err = e; /* the transaction may be gone: nothing may be decided on it any more */
    }
    return e;
}

/* Runs a bound statement that gives no rows. */
static void run(struct eg_sqlite *s, sqlite3_stmt *st, const char *what)
{
    int rc = sqlite3_step(st);
    if (rc != SQLITE_DONE) {
        (void)latch(s, what, rc);
    }
    (void)sqlite3_reset(st);
}

/* The first row: EG_OK (then read columns and reset), EG_ENOTFOUND, or a failure. */
static enum eg_err first(struct eg_sqlite *s, sqlite3_stmt *st, const char *what)
{
    if (s->in_tx && s->err != EG_OK) {
        return s->err;
    }
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return EG_OK;
    }
    enum eg_err e = rc == SQLITE_DONE ? EG_ENOTFOUND : latch(s, what, rc);
    (void)sqlite3_reset(st);
    return e;
}

/* The row after the first; false at the end or on failure, which goes to *e. Resets. */
static bool next(struct eg_sqlite *s, sqlite3_stmt *st, const char *what, enum eg_err *e)
{
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return true;
    }
    *e = rc == SQLITE_DONE ? EG_OK : latch(s, what, rc);
    (void)sqlite3_reset(st);
    return false;
}

/* ---- reads ---- */

static enum eg_err read_session(struct eg_sqlite *s, sqlite3_stmt *st, struct eg_session_row *out)
{
    enum eg_err e = first(s, st, "read session");
    if (e == EG_OK) {
        eg_db_session(st, out);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err op_session_by_id(struct eg_storage *base, struct eg_slice id,
                                    struct eg_session_row *out)
{
    struct eg_sqlite *s = self(base);
    eg_db_bind(s->st[EG_ST_SESSION_BY_ID], 1, id);
    return read_session(s, s->st[EG_ST_SESSION_BY_ID], out);
}

static enum eg_err op_session_by_sid(struct eg_storage *base, int64_t sid,
                                     struct eg_session_row *out)
{
    struct eg_sqlite *s = self(base);
    (void)sqlite3_bind_int64(s->st[EG_ST_SESSION_BY_SID], 1, sid);
    return read_session(s, s->st[EG_ST_SESSION_BY_SID], out);
}

static enum eg_err op_turns(struct eg_storage *base, int64_t sid, eg_turn_fn *fn, void *arg)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_TURNS];
    struct eg_turn_row row;
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int(st, 2, EG_TURN_DEAD);
    enum eg_err e = first(s, st, "read turns");
    if (e == EG_ENOTFOUND) {
        return EG_OK;
    }
    if (e == EG_OK) {
        do {
            eg_db_turn(st, &row);
            fn(arg, &row);
        } while (next(s, st, "read turns", &e));
    }
    return e;
}

static enum eg_err op_turn_get(struct eg_storage *base, int64_t sid, uint64_t turn,
                               struct eg_turn_row *out)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_TURN_GET];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)turn);
    enum eg_err e = first(s, st, "read turn");
    if (e == EG_OK) {
        eg_db_turn(st, out);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err op_open_turns(struct eg_storage *base, eg_open_turn_fn *fn, void *arg)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_OPEN_TURNS];
    char agent[EG_ID_MAX + 1];
    (void)sqlite3_bind_int(st, 1, EG_TURN_DEAD);
    enum eg_err e = first(s, st, "read open turns");
    if (e == EG_ENOTFOUND) {
        return EG_OK;
    }
    if (e == EG_OK) {
        do {
            eg_db_text(st, 1, agent, sizeof(agent));
            fn(arg, sqlite3_column_int64(st, 0), agent,
               (enum eg_turn_state)sqlite3_column_int(st, 2));
        } while (next(s, st, "read open turns", &e));
    }
    return e;
}

/* The event that a bound statement (cursor, body) finds. cursor may be NULL. */
static enum eg_err read_event(struct eg_sqlite *s, sqlite3_stmt *st, uint64_t *cursor,
                              struct eg_bytes **body)
{
    enum eg_err e = first(s, st, "read event");
    if (e != EG_OK) {
        return e;
    }
    if (cursor != NULL) {
        *cursor = (uint64_t)sqlite3_column_int64(st, 0);
    }
    struct eg_slice b = eg_db_blob(st, 1);
    *body = eg_bytes_copy(b.p, b.n);
    (void)sqlite3_reset(st);
    return *body != NULL ? EG_OK : EG_ENOMEM;
}

static enum eg_err op_event_by_idkey(struct eg_storage *base, int64_t sid, const uint8_t *idkey,
                                     uint64_t *cursor, struct eg_bytes **body)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_EVENT_BY_IDKEY];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_blob(st, 2, idkey, EG_IDKEY_BYTES, SQLITE_STATIC);
    return read_event(s, st, cursor, body);
}

static enum eg_err op_event_get(struct eg_storage *base, int64_t sid, uint64_t cursor,
                                struct eg_bytes **body)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_EVENT_GET];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)cursor);
    return read_event(s, st, NULL, body);
}

static enum eg_err op_event_hash(struct eg_storage *base, int64_t sid, uint64_t cursor,
                                 uint8_t hash[EG_CHAIN_BYTES])
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_EVENT_HASH];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)cursor);
    enum eg_err e = first(s, st, "read hash");
    if (e == EG_OK) {
        struct eg_slice h = eg_db_blob(st, 0);
        if (h.n == EG_CHAIN_BYTES) {
            memcpy(hash, h.p, EG_CHAIN_BYTES);
        } else {
            e = EG_ECORRUPT;
        }
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err op_events(struct eg_storage *base, int64_t sid, uint64_t from, int max,
                             eg_event_fn *fn, void *arg)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_EVENTS];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)from);
    (void)sqlite3_bind_int(st, 3, max > 0 ? max : 0);
    enum eg_err e = first(s, st, "read events");
    if (e == EG_ENOTFOUND) {
        return EG_OK;
    }
    if (e == EG_OK) {
        do {
            fn(arg, (uint64_t)sqlite3_column_int64(st, 0), eg_db_blob(st, 1));
        } while (next(s, st, "read events", &e));
    }
    return e;
}

static enum eg_err op_ack_get(struct eg_storage *base, int64_t sid, struct eg_slice sub,
                              uint64_t *cursor)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_ACK_GET];
    (void)sqlite3_bind_int64(st, 1, sid);
    eg_db_bind(st, 2, sub);
    enum eg_err e = first(s, st, "read ack");
    if (e == EG_OK) {
        *cursor = (uint64_t)sqlite3_column_int64(st, 0);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err op_count_open_sessions(struct eg_storage *base, struct eg_slice owner,
                                          int64_t *out)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_COUNT_OPEN];
    eg_db_bind(st, 1, owner);
    (void)sqlite3_bind_int(st, 2, EG_SESSION_OPEN);
    enum eg_err e = first(s, st, "count sessions");
    if (e == EG_OK) {
        *out = sqlite3_column_int64(st, 0);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err read_texts(struct eg_sqlite *s, sqlite3_stmt *st, eg_text_fn *fn, void *arg)
{
    char text[EG_ID_MAX + 8];
    enum eg_err e = first(s, st, "read list");
    if (e == EG_ENOTFOUND) {
        return EG_OK;
    }
    if (e == EG_OK) {
        do {
            eg_db_text(st, 0, text, sizeof(text));
            fn(arg, text, sqlite3_column_int64(st, 1));
        } while (next(s, st, "read list", &e));
    }
    return e;
}

static enum eg_err op_agents(struct eg_storage *base, eg_text_fn *fn, void *arg)
{
    return read_texts(self(base), self(base)->st[EG_ST_AGENTS], fn, arg);
}

static enum eg_err op_revoked(struct eg_storage *base, eg_text_fn *fn, void *arg)
{
    return read_texts(self(base), self(base)->st[EG_ST_REVOKED], fn, arg);
}

static enum eg_err op_epoch(struct eg_storage *base, char out[37])
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = s->st[EG_ST_EPOCH];
    enum eg_err e = first(s, st, "read epoch");
    if (e == EG_OK) {
        eg_db_text(st, 0, out, 37);
        (void)sqlite3_reset(st);
    }
    return e;
}

/* ---- writes ---- */

static int64_t hour_of(int64_t ms)
{
    return ms / 3600000;
}

static struct eg_seen *seen_slot(struct eg_sqlite *s, int64_t sid)
{
    return &s->seen[(uint64_t)sid & (EG_SEEN_SLOTS - 1)];
}

static void bind_hash(sqlite3_stmt *st, int at, const uint8_t *hash, bool may_be_empty)
{
    static const uint8_t zero[EG_CHAIN_BYTES];
    bool empty = may_be_empty && memcmp(hash, zero, EG_CHAIN_BYTES) == 0;
    (void)sqlite3_bind_blob(st, at, hash, empty ? 0 : EG_CHAIN_BYTES, SQLITE_STATIC);
}

static void op_session_insert(struct eg_storage *base, struct eg_session_row *row)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_SESSION_INSERT);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, eg_slice_cstr(row->id));
    eg_db_bind(st, 2, eg_slice_cstr(row->agent));
    eg_db_bind(st, 3, eg_slice_cstr(row->owner));
    (void)sqlite3_bind_int(st, 4, (int)row->state);
    (void)sqlite3_bind_int64(st, 5, hour_of(row->updated_ms));
    (void)sqlite3_bind_int64(st, 6, (int64_t)row->cursor);
    (void)sqlite3_bind_int64(st, 7, (int64_t)row->oldest);
    bind_hash(st, 8, row->hash, false);
    bind_hash(st, 9, row->floor_hash, true);
    (void)sqlite3_bind_int64(st, 10, row->created_ms);
    (void)sqlite3_bind_int64(st, 11, row->updated_ms);
    (void)sqlite3_bind_int64(st, 12, row->closed_ms);
    (void)sqlite3_bind_int64(st, 13, row->bytes);
    eg_db_bind(st, 14, eg_slice_cstr(row->last_worker));
    run(s, st, "insert session");
    if (s->err == EG_OK) {
        row->sid = sqlite3_last_insert_rowid(s->db);
        *seen_slot(s, row->sid) =
            (struct eg_seen){row->sid, hour_of(row->updated_ms), (int)row->state};
    }
}

/* State and hour are in indexes: they are written only when they are not known to be the same. */
static void move_session(struct eg_sqlite *s, const struct eg_session_row *row)
{
    struct eg_seen now = {row->sid, hour_of(row->updated_ms), (int)row->state};
    struct eg_seen *slot = seen_slot(s, row->sid);
    sqlite3_stmt *st = writing(s, EG_ST_SESSION_MOVE);
    if (st == NULL ||
        (slot->sid == now.sid && slot->hour == now.hour && slot->state == now.state)) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, row->sid);
    (void)sqlite3_bind_int(st, 2, now.state);
    (void)sqlite3_bind_int64(st, 3, now.hour);
    run(s, st, "update session");
    *slot = now;
}

static void op_session_update(struct eg_storage *base, const struct eg_session_row *row)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_SESSION_UPDATE);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, row->sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)row->cursor);
    (void)sqlite3_bind_int64(st, 3, (int64_t)row->oldest);
    bind_hash(st, 4, row->hash, false);
    bind_hash(st, 5, row->floor_hash, true);
    (void)sqlite3_bind_int64(st, 6, row->updated_ms);
    (void)sqlite3_bind_int64(st, 7, row->closed_ms);
    (void)sqlite3_bind_int64(st, 8, row->bytes);
    eg_db_bind(st, 9, eg_slice_cstr(row->last_worker));
    run(s, st, "update session");
    if (s->err == EG_OK && sqlite3_changes(s->db) != 1) {
        s->err = EG_ENOTFOUND;
        return;
    }
    move_session(s, row);
}

static void op_event_append(struct eg_storage *base, const struct eg_event_row *row)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_EVENT_APPEND);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, row->sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)row->cursor);
    (void)sqlite3_bind_blob(st, 3, row->hash, EG_CHAIN_BYTES, SQLITE_STATIC);
    if (row->idkey != NULL) {
        (void)sqlite3_bind_blob(st, 4, row->idkey, EG_IDKEY_BYTES, SQLITE_STATIC);
    } else {
        (void)sqlite3_bind_null(st, 4);
    }
    (void)sqlite3_bind_blob64(st, 5, row->body.n > 0 ? row->body.p : "", row->body.n,
                              SQLITE_STATIC);
    run(s, st, "append event");
}

static void op_turn_put(struct eg_storage *base, const struct eg_turn_row *row)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_TURN_PUT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, row->sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)row->turn);
    (void)sqlite3_bind_int(st, 3, (int)row->state);
    (void)sqlite3_bind_int(st, 4, row->attempt);
    (void)sqlite3_bind_int64(st, 5, row->created_ms);
    (void)sqlite3_bind_int64(st, 6, row->until_ms);
    eg_db_bind(st, 7, eg_slice_cstr(row->worker));
    eg_db_bind(st, 8, eg_slice_cstr(row->error));
    run(s, st, "put turn");
}

static void op_turn_delete(struct eg_storage *base, int64_t sid, uint64_t turn)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_TURN_DELETE);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)turn);
    run(s, st, "delete turn");
}

static void op_ack_put(struct eg_storage *base, int64_t sid, struct eg_slice sub, uint64_t cursor)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_ACK_PUT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    eg_db_bind(st, 2, sub);
    (void)sqlite3_bind_int64(st, 3, (int64_t)cursor);
    run(s, st, "put ack");
}

static void op_agent_put(struct eg_storage *base, struct eg_slice id, int64_t created_ms)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_AGENT_PUT);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, id);
    (void)sqlite3_bind_int64(st, 2, created_ms);
    run(s, st, "put agent");
}

static void op_agent_delete(struct eg_storage *base, struct eg_slice id)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_AGENT_DELETE);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, id);
    run(s, st, "delete agent");
}

static void op_revoke(struct eg_storage *base, const char *what, int64_t until_ms)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_REVOKE);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, eg_slice_cstr(what));
    (void)sqlite3_bind_int64(st, 2, until_ms);
    run(s, st, "revoke");
}

static void op_audit(struct eg_storage *base, int64_t at_ms, struct eg_slice who,
                     struct eg_slice from, struct eg_slice action, struct eg_slice detail)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_AUDIT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, at_ms);
    eg_db_bind(st, 2, who);
    eg_db_bind(st, 3, from);
    eg_db_bind(st, 4, action);
    eg_db_bind(st, 5, detail);
    run(s, st, "audit");
}

static void op_events_trim(struct eg_storage *base, int64_t sid, uint64_t before, int max,
                           int *removed, int64_t *removed_bytes)
{
    struct eg_sqlite *s = self(base);
    sqlite3_stmt *st = writing(s, EG_ST_TRIM_COUNT);
    *removed = 0;
    *removed_bytes = 0;
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)before);
    (void)sqlite3_bind_int(st, 3, max > 0 ? max : 0);
    if (first(s, st, "trim events") != EG_OK) {
        return;
    }
    int count = sqlite3_column_int(st, 0);
    int64_t bytes = sqlite3_column_int64(st, 1);
    int64_t last = sqlite3_column_int64(st, 2);
    (void)sqlite3_reset(st);
    if (count == 0) {
        return;
    }
    st = s->st[EG_ST_TRIM];
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, last);
    run(s, st, "trim events");
    if (s->err == EG_OK) {
        *removed = count;
        *removed_bytes = bytes;
    }
}

static void op_session_delete(struct eg_storage *base, int64_t sid)
{
    static const enum eg_statement steps[] = {EG_ST_TURNS_DELETE, EG_ST_ACKS_DELETE,
                                              EG_ST_SESSION_DELETE};
    struct eg_sqlite *s = self(base);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        sqlite3_stmt *st = writing(s, steps[i]);
        if (st == NULL) {
            return;
        }
        (void)sqlite3_bind_int64(st, 1, sid);
        run(s, st, "delete session");
    }
    seen_slot(s, sid)->sid = 0;
}

const struct eg_storage_ops eg_sqlite_write_ops = {
    .begin = op_begin,
    .commit = op_commit,
    .rollback = op_rollback,
    .close = eg_sqlite_close,
    .probe = eg_sqlite_probe,
    .maintain = eg_sqlite_maintain,
    .checkpoint = eg_sqlite_checkpoint,
    .why = eg_sqlite_why,
    .session_by_id = op_session_by_id,
    .session_by_sid = op_session_by_sid,
    .turns = op_turns,
    .turn_get = op_turn_get,
    .open_turns = op_open_turns,
    .event_by_idkey = op_event_by_idkey,
    .event_get = op_event_get,
    .event_hash = op_event_hash,
    .events = op_events,
    .ack_get = op_ack_get,
    .count_open_sessions = op_count_open_sessions,
    .agents = op_agents,
    .revoked = op_revoked,
    .epoch = op_epoch,
    .session_insert = op_session_insert,
    .session_update = op_session_update,
    .event_append = op_event_append,
    .turn_put = op_turn_put,
    .turn_delete = op_turn_delete,
    .ack_put = op_ack_put,
    .agent_put = op_agent_put,
    .agent_delete = op_agent_delete,
    .revoke = op_revoke,
    .audit = op_audit,
    .events_trim = op_events_trim,
    .session_delete = op_session_delete,
};
