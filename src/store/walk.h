/*
 * walk.h - private to src/store: the events of a session in order, from runs and the tail.
 *
 * Threads: that of its connection. With the tail that this process's writer shares (a reader), or
 * one of its own that it fills from the log (no writer in this process, or a check).
 */
#ifndef EG_STORE_WALK_H
#define EG_STORE_WALK_H

#include <sqlite3.h>

#include "base/bytes.h"
#include "store/tail.h"

/* Which events. */
struct eg_span {
    int64_t sid;
    uint64_t from, to;
    int max;
    bool descending;
};

struct eg_walk {
    sqlite3 *db;
    sqlite3_stmt *runs[2], *rows[2]; /* rising, falling */
    sqlite3_stmt *at, *run;
    struct eg_tail *shared, *own;
    int64_t own_last; /* seq up to which own was read */
    int64_t own_sid;  /* of that event; 0: none was read */
    uint64_t own_cursor;
    struct eg_tail_place *places, *packed; /* found in the tail; in runs */
    int places_cap, packed_cap, found;
};

/* st stands on an event: columns 0 cursor, 1 body, 2 hash, 3 seq. False: enough. */
typedef bool eg_walk_fn(void *arg, uint64_t cursor, sqlite3_stmt *st);

void eg_walk_open(struct eg_walk *w, sqlite3 *db);
void eg_walk_close(struct eg_walk *w);

/* The tail of path's writer in this process, borrowed; NULL when there is none now. */
struct eg_tail *eg_walk_shared(struct eg_walk *w, const char *path);

/*
 * The two steps of a walk. eg_walk_look comes before the read transaction begins: it takes what the
 * shared tail has of the span, where path's writer is in this process (path NULL: it is not asked
 * for). eg_walk_run comes in the transaction and calls fn. SQLite result codes; SQLITE_OK.
 */
int eg_walk_look(struct eg_walk *w, const char *path, const struct eg_span *span);
int eg_walk_run(struct eg_walk *w, const struct eg_span *span, eg_walk_fn *fn, void *arg);

/* The writer's walk: with its own tail, the running transaction's events too. */
int eg_walk_write(struct eg_walk *w, struct eg_tail *tail, const struct eg_span *span,
                  eg_walk_fn *fn, void *arg);

/* In the running transaction: where runs have the event, 0 when none has it. It may have been
 * removed. */
int eg_walk_place(struct eg_walk *w, int64_t sid, uint64_t cursor, int64_t *seq);

/* The newest cursor of sid in runs; 0: none. */
int eg_walk_newest(struct eg_walk *w, int64_t sid, uint64_t *cursor);

/* In the running transaction, with the writer's tail or NULL for an own one: the lowest cursor of
 * sid up to `to` whose event has not been removed, to + 1 when all have. Events are removed from
 * the lowest on. */
int eg_walk_lowest(struct eg_walk *w, struct eg_tail *tail, int64_t sid, uint64_t to,
                   uint64_t *lowest);

/* The idkey, whole or as stored, as the index's key; never 0. */
int64_t eg_walk_key(const uint8_t *idkey);

#endif
