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
#include <stdio.h>
#include <string.h>

#include "ebbgate/settings.h"
#include "store/sqlite_int.h"

struct eg_sqlite *eg_sq_self(struct eg_storage *base)
{
    return (struct eg_sqlite *)base;
}

/* ---- transaction ---- */

static enum eg_err op_begin(struct eg_storage *base)
{
    struct eg_sqlite *s = eg_sq_self(base);
    assert(!s->in_tx);
    if (s->dead) {
        return EG_EUNKNOWN;
    }
    if (eg_sqlite_lock_lost(s->lock_path, s->lock_fd)) {
        (void)snprintf(s->why, sizeof(s->why),
                       "%.400s: the lock was removed, or the data folder moved away", s->lock_path);
        s->dead = true;
        return EG_EUNKNOWN;
    }
    int rc = sqlite3_step(s->st[EG_ST_BEGIN]);
    (void)sqlite3_reset(s->st[EG_ST_BEGIN]);
    if (rc != SQLITE_DONE) {
        return eg_sqlite_failed(s, "begin", rc);
    }
    s->err = EG_OK;
    s->in_tx = true;
    s->appended = s->removed = 0;
    s->absent = false;
    return EG_OK;
}

static void op_rollback(struct eg_storage *base)
{
    struct eg_sqlite *s = eg_sq_self(base);
    if (!s->in_tx) {
        return;
    }
    s->in_tx = false;
    s->err = EG_OK;
    memset(s->seen, 0, EG_SEEN_SLOTS * sizeof(*s->seen));
    eg_sq_batch_drop(s);
    eg_sq_index_undo(s);
    eg_sq_heads_clear(s);
    if (!sqlite3_get_autocommit(s->db)) { /* some failures have rolled back already */
        (void)sqlite3_step(s->st[EG_ST_ROLLBACK]);
        (void)sqlite3_reset(s->st[EG_ST_ROLLBACK]);
    }
}

static enum eg_err op_latched(struct eg_storage *base)
{
    return eg_sq_self(base)->err;
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
    struct eg_sqlite *s = eg_sq_self(base);
    assert(s->in_tx);
    eg_sq_batch_flush(s);
    eg_sq_index_merge(s);
    eg_sq_heads_write(s);
    enum eg_err e = s->err;
    if (e == EG_OK) {
        int rc = sqlite3_step(s->st[EG_ST_COMMIT]);
        (void)sqlite3_reset(s->st[EG_ST_COMMIT]);
        if (rc == SQLITE_DONE) {
            s->in_tx = false;
            eg_sq_index_committed(s);
            eg_sq_heads_committed(s);
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

sqlite3_stmt *eg_sq_writing(struct eg_sqlite *s, enum eg_statement which)
{
    assert(s->in_tx);
    return s->err == EG_OK ? s->st[which] : NULL;
}

/* A flush can fail here too, when a large transaction spills into the log. */
enum eg_err eg_sq_latch(struct eg_sqlite *s, const char *what, int rc)
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

void eg_sq_run(struct eg_sqlite *s, sqlite3_stmt *st, const char *what)
{
    int rc = sqlite3_step(st);
    if (rc != SQLITE_DONE) {
        (void)eg_sq_latch(s, what, rc);
    }
    (void)sqlite3_reset(st);
}

enum eg_err eg_sq_first(struct eg_sqlite *s, sqlite3_stmt *st, const char *what)
{
    if (s->in_tx && s->err != EG_OK) {
        return s->err;
    }
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return EG_OK;
    }
    enum eg_err e = rc == SQLITE_DONE ? EG_ENOTFOUND : eg_sq_latch(s, what, rc);
    (void)sqlite3_reset(st);
    return e;
}

bool eg_sq_next(struct eg_sqlite *s, sqlite3_stmt *st, const char *what, enum eg_err *e)
{
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return true;
    }
    *e = rc == SQLITE_DONE ? EG_OK : eg_sq_latch(s, what, rc);
    (void)sqlite3_reset(st);
    return false;
}

/* ---- writes ---- */

static int64_t hour_of(int64_t ms)
{
    return ms / EG_HOUR_MS;
}

static struct eg_seen *seen_slot(struct eg_sqlite *s, int64_t sid)
{
    return &s->seen[(uint64_t)sid & (EG_SEEN_SLOTS - 1)];
}

void eg_sq_bind_hash(sqlite3_stmt *st, int at, const uint8_t *hash, bool may_be_empty)
{
    bool empty = may_be_empty && eg_db_no_hash(hash);
    (void)sqlite3_bind_blob(st, at, hash, empty ? 0 : EG_CHAIN_BYTES, SQLITE_STATIC);
}

static void op_session_insert(struct eg_storage *base, struct eg_session_row *row)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_SESSION_INSERT);
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
    eg_sq_bind_hash(st, 8, row->hash, false);
    eg_sq_bind_hash(st, 9, row->floor_hash, true);
    (void)sqlite3_bind_int64(st, 10, row->created_ms);
    (void)sqlite3_bind_int64(st, 11, row->updated_ms);
    (void)sqlite3_bind_int64(st, 12, row->closed_ms);
    (void)sqlite3_bind_int64(st, 13, row->bytes);
    eg_db_bind(st, 14, eg_slice_cstr(row->last_worker));
    eg_sq_run(s, st, "insert session");
    if (s->err == EG_OK) {
        row->sid = sqlite3_last_insert_rowid(s->db);
        *seen_slot(s, row->sid) =
            (struct eg_seen){row->sid, hour_of(row->updated_ms), (int)row->state};
    }
}

/* State and hour are in indexes: they are written at once, and only when they are not known to be
 * the same. Latches EG_ENOTFOUND when there is no such session. */
static void move_session(struct eg_sqlite *s, const struct eg_session_row *row)
{
    struct eg_seen now = {row->sid, hour_of(row->updated_ms), (int)row->state};
    struct eg_seen *slot = seen_slot(s, row->sid);
    sqlite3_stmt *st = s->st[EG_ST_SESSION_SEEN];
    if (slot->sid != now.sid) {
        (void)sqlite3_bind_int64(st, 1, row->sid);
        const enum eg_err e = eg_sq_first(s, st, "update session");
        if (e == EG_ENOTFOUND) {
            (void)snprintf(s->why, sizeof(s->why), "session number %lld has no row",
                           (long long)row->sid);
        }
        if (e != EG_OK) {
            s->err = s->err == EG_OK ? e : s->err;
            return;
        }
        *slot = (struct eg_seen){row->sid, sqlite3_column_int64(st, 1), sqlite3_column_int(st, 0)};
        (void)sqlite3_reset(st);
    }
    if (slot->hour == now.hour && slot->state == now.state) {
        return;
    }
    st = s->st[EG_ST_SESSION_MOVE];
    (void)sqlite3_bind_int64(st, 1, row->sid);
    (void)sqlite3_bind_int(st, 2, now.state);
    (void)sqlite3_bind_int64(st, 3, now.hour);
    eg_sq_run(s, st, "update session");
    *slot = now;
}

static void op_session_update(struct eg_storage *base, const struct eg_session_row *row)
{
    struct eg_sqlite *s = eg_sq_self(base);
    if (eg_sq_writing(s, EG_ST_SESSION_UPDATE) != NULL) {
        move_session(s, row);
        eg_change_session(&s->change, row);
    }
}

static void op_event_append(struct eg_storage *base, const struct eg_event_row *row)
{
    struct eg_sqlite *s = eg_sq_self(base);
    if (eg_sq_writing(s, EG_ST_EVENTS_APPEND) == NULL) {
        return;
    }
    eg_sq_index_check(s, row);
    if (s->err == EG_OK) {
        const int64_t seq = s->next_seq++;
        s->appended++;
        s->large = s->large || row->body.n >= EG_SQ_LARGE;
        eg_sq_index_add(s, row, seq);
        eg_sq_batch_add(s, row, seq);
    }
}

static void op_turn_put(struct eg_storage *base, const struct eg_turn_row *row)
{
    struct eg_sqlite *s = eg_sq_self(base);
    if (eg_sq_writing(s, EG_ST_TURN_PUT) != NULL) {
        eg_change_turn(&s->change, row, eg_sq_heads_born(s, row->sid, row->turn));
    }
}

static void op_turn_delete(struct eg_storage *base, int64_t sid, uint64_t turn)
{
    struct eg_sqlite *s = eg_sq_self(base);
    if (eg_sq_writing(s, EG_ST_TURN_DELETE) != NULL) {
        eg_change_turn_gone(&s->change, sid, turn);
    }
}

static void op_ack_put(struct eg_storage *base, int64_t sid, struct eg_slice sub, uint64_t cursor)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_ACK_PUT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    eg_db_bind(st, 2, sub);
    (void)sqlite3_bind_int64(st, 3, (int64_t)cursor);
    eg_sq_run(s, st, "put ack");
}

static void op_agent_put(struct eg_storage *base, struct eg_slice id, int64_t created_ms)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_AGENT_PUT);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, id);
    (void)sqlite3_bind_int64(st, 2, created_ms);
    eg_sq_run(s, st, "put agent");
}

static void op_agent_delete(struct eg_storage *base, struct eg_slice id)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_AGENT_DELETE);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, id);
    eg_sq_run(s, st, "delete agent");
}

static void op_revoke(struct eg_storage *base, const char *what, int64_t until_ms)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_REVOKE);
    if (st == NULL) {
        return;
    }
    eg_db_bind(st, 1, eg_slice_cstr(what));
    (void)sqlite3_bind_int64(st, 2, until_ms);
    eg_sq_run(s, st, "revoke");
}

static void op_audit(struct eg_storage *base, int64_t at_ms, struct eg_slice who,
                     struct eg_slice from, struct eg_slice action, struct eg_slice detail)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_AUDIT);
    if (st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, at_ms);
    eg_db_bind(st, 2, who);
    eg_db_bind(st, 3, from);
    eg_db_bind(st, 4, action);
    eg_db_bind(st, 5, detail);
    eg_sq_run(s, st, "audit");
}

static void op_session_delete(struct eg_storage *base, int64_t sid)
{
    static const enum eg_statement steps[] = {EG_ST_TURNS_DELETE, EG_ST_ACKS_DELETE,
                                              EG_ST_SESSION_DELETE};
    struct eg_sqlite *s = eg_sq_self(base);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        sqlite3_stmt *st = eg_sq_writing(s, steps[i]);
        if (st == NULL) {
            return;
        }
        (void)sqlite3_bind_int64(st, 1, sid);
        eg_sq_run(s, st, "delete session");
    }
    sqlite3_stmt *end = eg_sq_writing(s, EG_ST_EPOCH_END);
    if (end != NULL) {
        eg_sq_run(s, end, "end epoch");
    }
    seen_slot(s, sid)->sid = 0;
    eg_sq_heads_forget(s, sid);
}

const struct eg_storage_ops eg_sqlite_write_ops = {
    .begin = op_begin,
    .commit = op_commit,
    .rollback = op_rollback,
    .latched = op_latched,
    .close = eg_sqlite_close,
    .probe = eg_sqlite_probe,
    .maintain = eg_sqlite_maintain,
    .checkpoint = eg_sqlite_checkpoint,
    .why = eg_sqlite_why,
    .session_by_id = eg_sq_session_by_id,
    .session_by_sid = eg_sq_session_by_sid,
    .turns = eg_sq_turns,
    .turn_get = eg_sq_turn_get,
    .open_turns = eg_sq_open_turns,
    .event_by_idkey = eg_sq_event_by_idkey,
    .event_get = eg_sq_event_get,
    .event_hash = eg_sq_event_hash,
    .events = eg_sq_events,
    .ack_get = eg_sq_ack_get,
    .count_open_sessions = eg_sq_count_open_sessions,
    .agents = eg_sq_agents,
    .revoked = eg_sq_revoked,
    .epoch = eg_sq_epoch,
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
    .events_trim = eg_sq_trim,
    .session_delete = op_session_delete,
};
