/*
 * storage.h - what the core asks of a database: one writer, one transaction at a time.
 *
 * A table of functions, so that the same core runs on SQLite (store/sqlite.h), on another database,
 * or on memory in tests. All calls come from one thread. Inside a transaction every read sees what
 * was written before. A failing write is latched: the following writes do nothing, and commit
 * reports it and rolls back.
 *
 * Commit: EG_OK: on disk. EG_EUNKNOWN: the flush failed, the outcome is unknown, the process must
 * end (exit 75); every later begin fails the same way. Anything else (EG_EFULL, EG_EIO, EG_EBUSY,
 * EG_ENOMEM, EG_ECORRUPT, EG_EEXISTS, EG_ENOTFOUND): rolled back, nothing of it remains; the last
 * three are of what is stored of one session, others can go on.
 * After a failure commit has rolled back already; rollback then does nothing.
 *
 * Callbacks may call other functions of the table, but not the one they are called from, and may
 * not write. Between a latched failure and the end of its transaction reads return that failure.
 */
#ifndef EG_STORE_STORAGE_H
#define EG_STORE_STORAGE_H

#include "base/bytes.h"
#include "base/hash.h"
#include "ebbgate/protocol.h"
#include "store/epoch.h"

enum eg_session_state {
    EG_SESSION_OPEN,
    EG_SESSION_CLOSED,
    EG_SESSION_DELETING,
    EG_SESSION_FORKING
};

/* A session as stored. Ids are NUL-terminated. */
struct eg_session_row {
    int64_t sid; /* the database's own number, never reused */
    char id[EG_ID_MAX + 1];
    char agent[EG_ID_MAX + 1];
    char owner[EG_ID_MAX + 1];
    enum eg_session_state state;
    uint64_t cursor;                    /* head of the log; 0: no event yet */
    uint64_t oldest;                    /* first cursor still there; cursor + 1 when none is */
    uint8_t hash[EG_CHAIN_BYTES];       /* of the event at cursor */
    uint8_t floor_hash[EG_CHAIN_BYTES]; /* of the event at oldest - 1 */
    int64_t created_ms, updated_ms, closed_ms;
    int64_t bytes;                   /* of the events still there */
    char last_worker[EG_ID_MAX + 1]; /* worker name that served it last; "" none */
};

enum eg_turn_state {
    EG_TURN_QUEUED,
    EG_TURN_RUNNING,
    EG_TURN_WAITING,
    EG_TURN_ABORTING,
    EG_TURN_DEAD
};

/* A turn that has not ended, or is dead. Ended turns have no row: their response event tells. */
struct eg_turn_row {
    int64_t sid;
    uint64_t turn; /* cursor of its message */
    enum eg_turn_state state;
    int attempt;                /* how often it was handed out */
    int64_t created_ms;         /* all wall clock */
    int64_t until_ms;           /* WAITING: not before; RUNNING: lease ends; ABORTING: grace ends */
    char worker[EG_ID_MAX + 1]; /* RUNNING, ABORTING: worker id */
    char error[256];            /* last failure; "" none */
};

struct eg_event_row {
    int64_t sid;
    uint64_t cursor;
    const uint8_t *hash;  /* EG_CHAIN_BYTES */
    const uint8_t *idkey; /* EG_IDKEY_BYTES or NULL */
    struct eg_slice body;
};

typedef void eg_turn_fn(void *arg, const struct eg_turn_row *row);
typedef void eg_open_turn_fn(void *arg, int64_t sid, const char *agent, enum eg_turn_state head);
typedef void eg_text_fn(void *arg, const char *text, int64_t number);
typedef void eg_event_fn(void *arg, uint64_t cursor, struct eg_slice body);

struct eg_storage;

struct eg_storage_ops {
    enum eg_err (*begin)(struct eg_storage *s);
    enum eg_err (*commit)(struct eg_storage *s);
    void (*rollback)(struct eg_storage *s);
    /* Inside a transaction: the failure that it has latched, EG_OK none. */
    enum eg_err (*latched)(struct eg_storage *s);
    void (*close)(struct eg_storage *s);
    /* Outside a transaction: whether a durable write works (again). */
    enum eg_err (*probe)(struct eg_storage *s);
    /* Outside a transaction, after the answers of a batch have left: checkpoints and the like.
     * EG_EUNKNOWN as for commit; other failures are tried again by themselves. */
    enum eg_err (*maintain)(struct eg_storage *s);
    /* Outside a transaction: moves the journal into the database now. Results as for maintain. May
     * be NULL. */
    enum eg_err (*checkpoint)(struct eg_storage *s);
    /* Path and errno text of the last failure, for the log. */
    const char *(*why)(struct eg_storage *s);

    /* Reads: EG_OK, EG_ENOTFOUND, or a failure. */
    enum eg_err (*session_by_id)(struct eg_storage *s, struct eg_slice id,
                                 struct eg_session_row *out);
    enum eg_err (*session_by_sid)(struct eg_storage *s, int64_t sid, struct eg_session_row *out);
    /* Open turns of a session, by turn. DEAD ones are left out. */
    enum eg_err (*turns)(struct eg_storage *s, int64_t sid, eg_turn_fn *fn, void *arg);
    enum eg_err (*turn_get)(struct eg_storage *s, int64_t sid, uint64_t turn,
                            struct eg_turn_row *out);
    /* Sessions with an open turn (not DEAD), oldest open turn first; once a session, with the state
     * of its first open turn. */
    enum eg_err (*open_turns)(struct eg_storage *s, eg_open_turn_fn *fn, void *arg);
    /* The event that idkey stands for; body is the caller's to unref. */
    enum eg_err (*event_by_idkey)(struct eg_storage *s, int64_t sid, const uint8_t *idkey,
                                  uint64_t *cursor, struct eg_bytes **body);
    enum eg_err (*event_get)(struct eg_storage *s, int64_t sid, uint64_t cursor,
                             struct eg_bytes **body);
    /* The chained hash of a stored event: what floor_hash becomes when the floor moves past it. */
    enum eg_err (*event_hash)(struct eg_storage *s, int64_t sid, uint64_t cursor,
                              uint8_t hash[EG_CHAIN_BYTES]);
    /* Events from cursor on, at most max; body is borrowed during the call. */
    enum eg_err (*events)(struct eg_storage *s, int64_t sid, uint64_t from, int max,
                          eg_event_fn *fn, void *arg);
    enum eg_err (*ack_get)(struct eg_storage *s, int64_t sid, struct eg_slice sub,
                           uint64_t *cursor);
    enum eg_err (*count_open_sessions)(struct eg_storage *s, struct eg_slice owner, int64_t *out);
    enum eg_err (*agents)(struct eg_storage *s, eg_text_fn *fn, void *arg); /* number: created_ms */
    /* text is "jti:..." or "sub:...", number the wall ms after which it may be forgotten. */
    enum eg_err (*revoked)(struct eg_storage *s, eg_text_fn *fn, void *arg);
    enum eg_err (*epoch)(struct eg_storage *s, struct eg_epoch *out);

    /* Writes: latched. */
    void (*session_insert)(struct eg_storage *s, struct eg_session_row *row); /* sets row->sid */
    /* state, cursor, oldest, hashes, updated, closed, bytes, last_worker of row->sid */
    void (*session_update)(struct eg_storage *s, const struct eg_session_row *row);
    /* Cursors of a session rise. EG_EEXISTS: the cursor or the idkey is in use. */
    void (*event_append)(struct eg_storage *s, const struct eg_event_row *row);
    void (*turn_put)(struct eg_storage *s, const struct eg_turn_row *row);
    void (*turn_delete)(struct eg_storage *s, int64_t sid, uint64_t turn);
    void (*ack_put)(struct eg_storage *s, int64_t sid, struct eg_slice sub, uint64_t cursor);
    void (*agent_put)(struct eg_storage *s, struct eg_slice id, int64_t created_ms);
    void (*agent_delete)(struct eg_storage *s, struct eg_slice id);
    void (*revoke)(struct eg_storage *s, const char *what, int64_t until_ms);
    void (*audit)(struct eg_storage *s, int64_t at_ms, struct eg_slice who, struct eg_slice from,
                  struct eg_slice action, struct eg_slice detail);
    /* Removes up to max events of sid with cursor < before; *removed says how many. */
    void (*events_trim)(struct eg_storage *s, int64_t sid, uint64_t before, int max, int *removed,
                        int64_t *removed_bytes);
    /* Removes the session row, its acks and turns; its events must be gone. The first one sets
     * epoch.until_sid to the highest number given out so far. */
    void (*session_delete)(struct eg_storage *s, int64_t sid);
};

/* The head of every implementation. */
struct eg_storage {
    const struct eg_storage_ops *ops;
};

#endif
