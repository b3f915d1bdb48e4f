/*
 * sqlite_read.c - the reads of struct eg_storage_ops: by the writer's own connection, so that they
 * see what its transaction has written.
 *
 * Threads: the core's only. A read that fails inside a transaction fails the transaction: what was
 * decided on it could be wrong.
 */
#include <string.h>

#include "store/sqlite_int.h"

static enum eg_err read_session(struct eg_sqlite *s, sqlite3_stmt *st, struct eg_session_row *out)
{
    enum eg_err e = eg_sq_first(s, st, "read session");
    if (e == EG_OK) {
        eg_db_session(st, out);
        (void)sqlite3_reset(st);
        eg_sq_heads_patch(s, out);
    }
    return e;
}

enum eg_err eg_sq_session_by_id(struct eg_storage *base, struct eg_slice id,
                                struct eg_session_row *out)
{
    struct eg_sqlite *s = eg_sq_self(base);
    eg_db_bind(s->st[EG_ST_SESSION_BY_ID], 1, id);
    return read_session(s, s->st[EG_ST_SESSION_BY_ID], out);
}

enum eg_err eg_sq_session_by_sid(struct eg_storage *base, int64_t sid, struct eg_session_row *out)
{
    struct eg_sqlite *s = eg_sq_self(base);
    (void)sqlite3_bind_int64(s->st[EG_ST_SESSION_BY_SID], 1, sid);
    return read_session(s, s->st[EG_ST_SESSION_BY_SID], out);
}

struct tell_turns {
    eg_turn_fn *fn;
    void *arg;
};

static bool tell_turn(void *arg, const struct eg_turn_row *row)
{
    const struct tell_turns *t = arg;
    if (row->state != EG_TURN_DEAD) {
        t->fn(t->arg, row);
    }
    return true;
}

enum eg_err eg_sq_turns(struct eg_storage *base, int64_t sid, eg_turn_fn *fn, void *arg)
{
    struct tell_turns t = {fn, arg};
    return eg_sq_heads_turns(eg_sq_self(base), sid, tell_turn, &t);
}

enum eg_err eg_sq_turn_get(struct eg_storage *base, int64_t sid, uint64_t turn,
                           struct eg_turn_row *out)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = s->st[EG_ST_TURN_GET];
    enum eg_err e = s->in_tx ? s->err : EG_OK;
    if (e != EG_OK || eg_sq_heads_turn(s, sid, turn, out, &e)) {
        return e;
    }
    (void)sqlite3_bind_int64(st, 1, sid);
    (void)sqlite3_bind_int64(st, 2, (int64_t)turn);
    e = eg_sq_first(s, st, "read turn");
    if (e == EG_OK) {
        eg_db_turn(st, out);
        (void)sqlite3_reset(st);
    }
    return e;
}

/* The event on whose row (cursor, body) the statement stands; resets it. cursor may be NULL. */
static enum eg_err take_event(sqlite3_stmt *st, uint64_t *cursor, struct eg_bytes **body)
{
    if (cursor != NULL) {
        *cursor = (uint64_t)sqlite3_column_int64(st, 0);
    }
    struct eg_slice b = eg_db_blob(st, 1);
    *body = eg_bytes_copy(b.p, b.n);
    (void)sqlite3_reset(st);
    return *body != NULL ? EG_OK : EG_ENOMEM;
}

enum eg_err eg_sq_event_by_idkey(struct eg_storage *base, int64_t sid, const uint8_t *idkey,
                                 uint64_t *cursor, struct eg_bytes **body)
{
    struct eg_sqlite *s = eg_sq_self(base);
    enum eg_err e = eg_sq_index_find_id(s, sid, idkey);
    return e == EG_OK ? take_event(s->st[EG_ST_EVENT_AT], cursor, body) : e;
}

enum eg_err eg_sq_event_get(struct eg_storage *base, int64_t sid, uint64_t cursor,
                            struct eg_bytes **body)
{
    struct eg_sqlite *s = eg_sq_self(base);
    enum eg_err e = eg_sq_index_find(s, sid, cursor);
    return e == EG_OK ? take_event(s->st[EG_ST_EVENT_AT], NULL, body) : e;
}

/* On the way to the hash of the event at `to`. */
struct chain {
    uint64_t floor, next; /* next: whose hash follows from hash; 0: none does yet */
    uint8_t floor_hash[EG_CHAIN_BYTES], hash[EG_CHAIN_BYTES];
};

static bool chain_event(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    struct chain *c = arg;
    struct eg_slice stored = eg_db_blob(st, 2);
    if (c->next != cursor && cursor == c->floor) {
        memcpy(c->hash, c->floor_hash, EG_CHAIN_BYTES);
        c->next = cursor;
    }
    if (stored.n == EG_CHAIN_BYTES) {
        memcpy(c->hash, stored.p, EG_CHAIN_BYTES);
        c->next = cursor + 1;
    } else if (c->next == cursor) {
        eg_chain_next(c->hash, eg_db_blob(st, 1), c->hash);
        c->next = cursor + 1;
    }
    return true;
}

/* Read where it is stored, else made from the last one that is, or from the floor's. */
enum eg_err eg_sq_event_hash(struct eg_storage *base, int64_t sid, uint64_t cursor,
                             uint8_t hash[EG_CHAIN_BYTES])
{
    struct eg_sqlite *s = eg_sq_self(base);
    struct eg_session_row row;
    struct chain c = {0};
    const struct eg_span span = {sid, cursor - cursor % EG_HASH_EVERY, cursor, EG_HASH_EVERY,
                                 false};
    enum eg_err e = eg_sq_session_by_sid(base, sid, &row);
    if (e != EG_OK) {
        return e;
    }
    c.floor = row.oldest;
    memcpy(c.floor_hash, row.floor_hash, EG_CHAIN_BYTES);
    eg_sq_batch_flush(s);
    int rc = eg_walk_write(&s->walk, s->tail, &span, chain_event, &c);
    if (rc != SQLITE_OK) {
        return eg_sq_latch(s, "read events", rc);
    }
    if (c.next != cursor + 1) {
        return EG_ENOTFOUND;
    }
    memcpy(hash, c.hash, EG_CHAIN_BYTES);
    return EG_OK;
}

struct give {
    eg_event_fn *fn;
    void *arg;
};

static bool give_event(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    const struct give *g = arg;
    g->fn(g->arg, cursor, eg_db_blob(st, 1));
    return true;
}

enum eg_err eg_sq_events(struct eg_storage *base, int64_t sid, uint64_t from, int max,
                         eg_event_fn *fn, void *arg)
{
    struct eg_sqlite *s = eg_sq_self(base);
    struct give g = {fn, arg};
    const struct eg_span span = {sid, from, UINT64_MAX, max > 0 ? max : 0, false};
    if (s->in_tx && s->err != EG_OK) {
        return s->err;
    }
    eg_sq_batch_flush(s);
    int rc = eg_walk_write(&s->walk, s->tail, &span, give_event, &g);
    return rc == SQLITE_OK ? EG_OK : eg_sq_latch(s, "read events", rc);
}

enum eg_err eg_sq_ack_get(struct eg_storage *base, int64_t sid, struct eg_slice sub,
                          uint64_t *cursor)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = s->st[EG_ST_ACK_GET];
    (void)sqlite3_bind_int64(st, 1, sid);
    eg_db_bind(st, 2, sub);
    enum eg_err e = eg_sq_first(s, st, "read ack");
    if (e == EG_OK) {
        *cursor = (uint64_t)sqlite3_column_int64(st, 0);
        (void)sqlite3_reset(st);
    }
    return e;
}

enum eg_err eg_sq_count_open_sessions(struct eg_storage *base, struct eg_slice owner, int64_t *out)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = s->st[EG_ST_COUNT_OPEN];
    eg_db_bind(st, 1, owner);
    (void)sqlite3_bind_int(st, 2, EG_SESSION_OPEN);
    enum eg_err e = eg_sq_first(s, st, "count sessions");
    if (e == EG_OK) {
        *out = sqlite3_column_int64(st, 0);
        (void)sqlite3_reset(st);
    }
    return e;
}

static enum eg_err read_texts(struct eg_sqlite *s, sqlite3_stmt *st, eg_text_fn *fn, void *arg)
{
    char text[EG_ID_MAX + 8];
    enum eg_err e = eg_sq_first(s, st, "read list");
    if (e == EG_ENOTFOUND) {
        return EG_OK;
    }
    if (e == EG_OK) {
        do {
            eg_db_text(st, 0, text, sizeof(text));
            fn(arg, text, sqlite3_column_int64(st, 1));
        } while (eg_sq_next(s, st, "read list", &e));
    }
    return e;
}

enum eg_err eg_sq_agents(struct eg_storage *base, eg_text_fn *fn, void *arg)
{
    return read_texts(eg_sq_self(base), eg_sq_self(base)->st[EG_ST_AGENTS], fn, arg);
}

enum eg_err eg_sq_revoked(struct eg_storage *base, eg_text_fn *fn, void *arg)
{
    return read_texts(eg_sq_self(base), eg_sq_self(base)->st[EG_ST_REVOKED], fn, arg);
}

enum eg_err eg_sq_epoch(struct eg_storage *base, struct eg_epoch *out)
{
    struct eg_sqlite *s = eg_sq_self(base);
    sqlite3_stmt *st = s->st[EG_ST_EPOCH];
    enum eg_err e = eg_sq_first(s, st, "read epoch");
    if (e == EG_OK) {
        eg_db_text(st, 0, out->id, sizeof out->id);
        out->until_sid =
            sqlite3_column_type(st, 1) == SQLITE_INTEGER ? sqlite3_column_int64(st, 1) : INT64_MAX;
        (void)sqlite3_reset(st);
    }
    return e;
}
