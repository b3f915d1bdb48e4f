/*
 * ids.h - private to src/store: the newest ids of senders, in memory.
 *
 * Which event an id stands for is looked up for every publish that carries one. Written straight to
 * its B-tree, each such id dirties a page of its own, since ids are spread like random numbers. So
 * new ids are only kept here, and in the event's row; when enough have gathered they are frozen,
 * sorted by session, and merged into the table a few with each commit, many to a page. After a
 * restart those not yet merged are read from the log again.
 *
 * A key is the first eight bytes of the id key; who finds an entry still compares the whole key
 * with the event's.
 *
 * Threads: the writer's. Owns its memory. Additions and removals belong to the running transaction
 * until eg_ids_keep or eg_ids_undo.
 */
#ifndef EG_STORE_IDS_H
#define EG_STORE_IDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct eg_ids_entry {
    int64_t sid, key;
    uint64_t cursor; /* 0: removed */
};

/* Entries in the order they came, and a table of slots that finds them (index + 1; 0 is free). */
struct eg_ids_generation {
    struct eg_ids_entry *v;
    uint32_t *slot;
    uint32_t n, cap, slots;
};

/* An entry removed by the running transaction, and the cursor it had. */
struct eg_ids_removal {
    bool frozen;
    uint32_t index;
    uint64_t cursor;
};

struct eg_ids {
    struct eg_ids_generation fill, frozen;
    uint32_t kept;   /* entries of fill that are committed */
    uint32_t *order; /* of frozen, by session; NULL: nothing is frozen */
    uint32_t merged, merged_kept;
    int64_t frozen_seq; /* the log is covered by frozen and the table up to here */
    struct eg_ids_removal *removed;
    uint32_t removals, removals_cap;
};

void eg_ids_free(struct eg_ids *ids);
/* Whether the key is here; *cursor of its event. */
bool eg_ids_find(const struct eg_ids *ids, int64_t sid, int64_t key, uint64_t *cursor);
enum eg_err eg_ids_add(struct eg_ids *ids, int64_t sid, int64_t key, uint64_t cursor) EG_MUST;
/* Forgets the key where it is here. */
enum eg_err eg_ids_remove(struct eg_ids *ids, int64_t sid, int64_t key) EG_MUST;

/* The transaction was committed, or rolled back. */
void eg_ids_keep(struct eg_ids *ids);
void eg_ids_undo(struct eg_ids *ids);

/* Freezes what has gathered, which covers the log up to seq. Between transactions, when nothing is
 * frozen. On EG_ENOMEM everything stays as it was. */
enum eg_err eg_ids_freeze(struct eg_ids *ids, int64_t seq) EG_MUST;
bool eg_ids_merging(const struct eg_ids *ids);
/* The next entry to be merged, NULL when all are; removed ones are passed over. */
const struct eg_ids_entry *eg_ids_next(struct eg_ids *ids);
/* All of it is in the table, and committed. */
void eg_ids_thaw(struct eg_ids *ids);

#endif
