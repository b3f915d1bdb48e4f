/*
 * heads.h - private to src/store: what sessions and turns are now, ahead of their tables.
 *
 * Nearly every event changes its session's row, and every message puts a turn's row and takes it
 * away again. Written to their tables each dirties a page. So a transaction writes all of it as one
 * row of the table changes, at the end of a log; what it says is kept here, and brought to the
 * tables in sorted bulk (sqlite_heads.c). After a restart the changes since the last such round are
 * read again.
 *
 * A generation holds the newest state of each session and turn that changed while it was filled. A
 * turn that came and went within one never reaches the table. Only what is in no index is held
 * back: a session's state and active_hour are always written at once, and so is a new session.
 *
 * Threads: the writer changes and looks things up; readers of the same process ask with
 * eg_heads_look, which takes the lock. A reader may also fill heads of its own from the changes
 * that its read transaction sees (eg_heads_catch_up), which then match that transaction exactly.
 */
#ifndef EG_STORE_HEADS_H
#define EG_STORE_HEADS_H

#include <sqlite3.h>
#include <stdbool.h>

#include "base/lock.h"
#include "store/storage.h"

#define EG_TURN_GONE 255 /* state of a turn that has no row any more */

struct eg_head {
    int64_t sid;
    int64_t seq; /* of the last change */
    uint64_t cursor, oldest;
    int64_t updated_ms, closed_ms, bytes;
    uint32_t worker; /* place in the text */
    uint8_t worker_n;
    uint8_t hash[EG_CHAIN_BYTES], floor_hash[EG_CHAIN_BYTES];
};

struct eg_head_turn {
    int64_t sid;
    int64_t seq;
    uint64_t turn;
    int64_t created_ms, until_ms;
    int32_t attempt;
    uint32_t text; /* place of the worker, followed by the error */
    uint32_t prev; /* the session's turn before it in this generation (index + 1, 0 none) */
    uint8_t worker_n, error_n, state;
    bool born; /* came within this generation and life of the process: no table has it */
};

/* The slots are open hash tables of index + 1; twice as many as there is room for entries. */
struct eg_heads_gen {
    struct eg_head *v;
    struct eg_head_turn *t;
    uint32_t n, cap, tn, tcap;
    uint32_t *slot;     /* v by sid */
    uint32_t *tslot;    /* t by sid and turn */
    uint32_t *last;     /* t by sid: the newest */
    struct eg_buf text; /* workers and errors */
    uint32_t records;   /* applied */
    size_t bytes;       /* of them */
    int64_t upto;       /* the last of them */
};

EG_MUTEX(eg_heads);

/* What the lock guards is changed by the writer alone, which therefore reads it without. */
struct eg_heads {
    struct eg_heads_mutex lock;
    struct eg_heads_gen fill EG_GUARDED_BY(eg_heads_mutex);
    struct eg_heads_gen frozen EG_GUARDED_BY(eg_heads_mutex);
    int64_t settled EG_GUARDED_BY(eg_heads_mutex); /* up to this the tables have every change */
    /* The writer's own. The frozen generation in the order of sessions, NULL while nothing is
     * frozen; how much of it is in the tables, and was when the last transaction ended. */
    uint32_t *order;
    uint32_t merged, merged_kept;
};

struct eg_heads *eg_heads_new(void);
void eg_heads_free(struct eg_heads *h);

/* ---- records: what one transaction changed ---- */

/* All zeros is an empty one. A failed allocation is latched in body.err. */
struct eg_change {
    struct eg_buf body;
    uint32_t sessions, turns; /* entries in it */
};
void eg_change_session(struct eg_change *c, const struct eg_session_row *row);
/* born: the turn's message was appended in this very transaction. */
void eg_change_turn(struct eg_change *c, const struct eg_turn_row *row, bool born);
void eg_change_turn_gone(struct eg_change *c, int64_t sid, uint64_t turn);
void eg_change_reset(struct eg_change *c); /* keeps the memory */

/* ---- a generation ---- */

/* Room for all that c says: applying it cannot fail then. */
EG_REQUIRES(eg_heads_mutex)
enum eg_err eg_heads_reserve(struct eg_heads_gen *g, const struct eg_change *c) EG_MUST;
/* Takes a record in. EG_ECORRUPT: it is none. */
enum eg_err eg_heads_apply(struct eg_heads_gen *g, struct eg_slice record, int64_t seq) EG_MUST;
void eg_heads_empty(struct eg_heads_gen *g); /* keeps the memory */
void eg_heads_drop(struct eg_heads_gen *g);  /* frees it */
const struct eg_head *eg_heads_session(const struct eg_heads_gen *g, int64_t sid);
const struct eg_head_turn *eg_heads_turn(const struct eg_heads_gen *g, int64_t sid, uint64_t turn);
/* The session's newest turn here; those before it by prev. */
const struct eg_head_turn *eg_heads_turns(const struct eg_heads_gen *g, int64_t sid);
void eg_heads_to_row(const struct eg_heads_gen *g, const struct eg_head *from,
                     struct eg_session_row *row);
void eg_heads_to_turn(const struct eg_heads_gen *g, const struct eg_head_turn *from,
                      struct eg_turn_row *row);

/* ---- the two generations of a writer ---- */

/* Between transactions, when nothing is frozen. On EG_ENOMEM everything stays as it was. */
enum eg_err eg_heads_freeze(struct eg_heads *h) EG_MUST;
/* What is frozen is in the tables, and committed. */
void eg_heads_thaw(struct eg_heads *h);

/*
 * For readers of this process, any thread: brings row, as read in a transaction in which
 * meta.settled was `settled`, up to date. False: the tables have gone on meanwhile, read again.
 */
bool eg_heads_look(struct eg_heads *h, int64_t settled, struct eg_session_row *row);

/* ---- heads of one's own (heads_view.c) ---- */

/* Meta.settled, 0 where there is none. SQLite result codes. */
int eg_heads_settled(sqlite3 *db, int64_t *out);
/* Reads into h->fill the changes that the running read transaction sees beyond the tables. SQLite
 * result codes; SQLITE_CORRUPT for a record that is none. */
int eg_heads_catch_up(struct eg_heads *h, sqlite3 *db);
/* Begins a read transaction and catches up with it. An SQLite result code; after another than
 * SQLITE_OK the transaction may be open (eg_db_leave). */
int eg_heads_begin(struct eg_heads *h, sqlite3 *db);
/* Brings a row of the same transaction up to date. */
void eg_heads_patch(const struct eg_heads *h, struct eg_session_row *row);

/* A turn of a merged walk; false: enough. */
typedef bool eg_heads_turn_fn(void *arg, const struct eg_turn_row *row);
/*
 * Calls fn for each turn, rising by (sid, turn), from after (after_sid, after_turn) on; sid > 0:
 * of this session only. st gives the table's rows (EG_DB_TURN_COLUMNS) of that range in that order
 * and is reset; h is h's truth over them, in generations from the newest: gens[0..n-1].
 */
struct eg_turn_span {
    int64_t sid, after_sid;
    uint64_t after_turn;
};
int eg_heads_walk_turns(const struct eg_heads_gen *const *gens, int n, sqlite3_stmt *st,
                        const struct eg_turn_span *span, eg_heads_turn_fn *fn, void *arg);

#endif
