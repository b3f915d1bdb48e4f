/*
 * walk.h - private to src/store: the events of a session in order, from the tables and the tail.
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
    sqlite3_stmt *up, *down, *at, *run;
    struct eg_tail *shared, *own;
    int64_t own_last; /* seq up to which own was read */
    struct eg_tail_place *places;
    int places_cap, found;
};

/* st stands on an event: columns 0 cursor, 1 body, 2 hash, 3 sid, 4 idkey, 5 seq. False: enough. */
typedef bool eg_walk_fn(void *arg, uint64_t cursor, sqlite3_stmt *st);

void eg_walk_open(struct eg_walk *w, sqlite3 *db);
void eg_walk_close(struct eg_walk *w);

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

/* The idkey (EG_IDKEY_BYTES) as the tables' key; never 0. */
int64_t eg_walk_key(const uint8_t *idkey);

#endif
