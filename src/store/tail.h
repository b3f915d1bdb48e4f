/*
 * tail.h - private to src/store: the newest part of the log's index, in memory.
 *
 * The log grows at its end, whoever the events belong to. Its index (which event of a session, or
 * which id, is where in the log) does not: written with each event it dirties a page or two an
 * event. So the index of the newest events is kept here; when enough have gathered they are frozen,
 * sorted, and written out as a run (runs.h), some with each commit. After a restart what was not
 * yet written out is read from the log again.
 *
 * Threads: one writer adds, removes, freezes; readers of the same process look things up with
 * eg_tail_range, which takes the lock. The writer's own look-ups need no lock. What the running
 * transaction did is undone or kept with it, and hidden from readers until then.
 *
 * A reader copies its places from here before it begins its read transaction. Then nothing is
 * missed: what leaves the tail meanwhile is in a run before.
 */
#ifndef EG_STORE_TAIL_H
#define EG_STORE_TAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/lock.h"

/* One event. prev and jump name earlier events of its session in the same generation (index + 1, 0
 * none); jump leads far back, so that a search takes the logarithm of the distance. */
struct eg_tail_entry {
    int64_t sid;
    uint64_t cursor;
    int64_t seq; /* 0: removed */
    int64_t key; /* of its id; 0: none */
    uint32_t prev, jump, depth;
};

struct eg_tail_session {
    int64_t sid;
    uint32_t first, last; /* index + 1; last 0: a free slot */
};

/* Events in the order they came. keys and sessions are open hash tables into v. */
struct eg_tail_generation {
    struct eg_tail_entry *v;
    uint32_t n, cap;
    uint32_t *key; /* index + 1; 0 free; twice cap slots */
    struct eg_tail_session *session;
    uint32_t sessions, session_slots;
};

struct eg_tail_removal {
    bool frozen;
    uint32_t index;
    int64_t seq;
};

EG_MUTEX(eg_tail);

struct eg_heads;

/* What the lock guards is changed by the writer alone, which therefore reads it without. */
struct eg_tail {
    struct eg_tail_mutex lock;
    struct eg_heads *heads; /* of the same database (heads.h); owned; NULL in private tails */
    struct eg_tail_generation fill EG_GUARDED_BY(eg_tail_mutex);
    struct eg_tail_generation frozen EG_GUARDED_BY(eg_tail_mutex);
    uint32_t kept EG_GUARDED_BY(eg_tail_mutex); /* entries of fill that are committed */
    /* The writer's own: */
    uint32_t *order; /* of frozen, by session and cursor; NULL: nothing is frozen */
    uint32_t *by_id; /* those of frozen with an id, by its hash */
    uint32_t ids;
    int64_t upto; /* the log's index is in runs and frozen up to this seq */
    struct eg_tail_removal *removed;
    uint32_t removals, removals_cap;
    /* Registry: so that readers find the tail of their database. */
    struct eg_tail *next;
    uint64_t dev, ino;
    int refs; /* atomic */
    int gone; /* atomic: the writer has ended */
};

struct eg_tail_place {
    uint64_t cursor;
    int64_t seq;
};

struct eg_tail *eg_tail_new(void);
void eg_tail_unref(struct eg_tail *t);
/* Offers t to the readers of the database file at path. */
void eg_tail_publish(struct eg_tail *t, const char *path);
/* The writer ends: readers that hold it see that it is gone. */
void eg_tail_withdraw(struct eg_tail *t);
/* The tail of the database at path, with a reference; NULL when this process does not write it. */
struct eg_tail *eg_tail_attach(const char *path);
bool eg_tail_gone(struct eg_tail *t);

/* Forgets everything (private tails). */
void eg_tail_clear(struct eg_tail *t);
/* key 0: none. Cursors of a session come in rising order. */
enum eg_err eg_tail_add(struct eg_tail *t, int64_t sid, uint64_t cursor, int64_t seq,
                        int64_t key) EG_MUST;
/* Removes the event where it is here. */
enum eg_err eg_tail_remove(struct eg_tail *t, int64_t sid, uint64_t cursor) EG_MUST;
/* The transaction was committed, or rolled back. */
void eg_tail_keep(struct eg_tail *t);
void eg_tail_undo(struct eg_tail *t);

/* The writer's look-ups: the running transaction's too. False: not here. */
bool eg_tail_find(const struct eg_tail *t, int64_t sid, uint64_t cursor, int64_t *seq);
bool eg_tail_find_key(const struct eg_tail *t, int64_t sid, int64_t key, int64_t *seq);
/* The newest cursor of sid. */
bool eg_tail_newest(const struct eg_tail *t, int64_t sid, uint64_t *cursor);

/*
 * Places of sid with from <= cursor <= to, at most max, rising from the lowest or falling from the
 * highest; returns how many. all: the running transaction's too (writer only), else what is
 * committed (any thread).
 */
int eg_tail_range(struct eg_tail *t, int64_t sid, uint64_t from, uint64_t to, int max,
                  bool descending, bool all, struct eg_tail_place *out);

/* Freezes what has gathered, which covers the log up to seq. Between transactions, when nothing is
 * frozen. On EG_ENOMEM everything stays as it was. */
enum eg_err eg_tail_freeze(struct eg_tail *t, int64_t seq) EG_MUST;
bool eg_tail_merging(const struct eg_tail *t);
/* What is frozen, by session and cursor; seq 0: removed. NULL at the end. */
const struct eg_tail_entry *eg_tail_place_at(const struct eg_tail *t, uint32_t i);
/* The entries with an id, by eg_pack_hash and seq. */
const struct eg_tail_entry *eg_tail_id_at(const struct eg_tail *t, uint32_t i);
/* All of it is in a run, and committed. */
void eg_tail_thaw(struct eg_tail *t);

#endif
