/*
 * memstore.h - struct eg_storage_ops in memory, for tests of the state machine and its simulator.
 *
 * Same contract as the real store (tests/unit/test_storage.c runs against both). One thread.
 * Failures can be ordered, so that a test decides what the next commits do.
 */
#ifndef EG_TEST_MEMSTORE_H
#define EG_TEST_MEMSTORE_H

#include "store/storage.h"

enum memstore_fate {
    MEMSTORE_OK,
    MEMSTORE_FULL,         /* rolled back, EG_EFULL */
    MEMSTORE_IO,           /* rolled back, EG_EIO */
    MEMSTORE_UNKNOWN_GONE, /* EG_EUNKNOWN, and the transaction is not in the data */
    MEMSTORE_UNKNOWN_KEPT  /* EG_EUNKNOWN, and it is */
};

/* An empty store with the given epoch (at most 36 characters); NULL without memory. */
struct eg_storage *memstore_new(const char *epoch);

/* What the commits from now on do: the first `after` succeed, the next `times` end as fate says
 * (times < 0: all of them). Replaces an earlier order. */
void memstore_fail_commits(struct eg_storage *s, enum memstore_fate fate, int after, int times);

/* While set, every read fails with EG_EIO. */
void memstore_fail_reads(struct eg_storage *s, bool fail);

/* The write number n from now on (1: the next) is latched as e. 0: none. */
void memstore_fail_write(struct eg_storage *s, int n, enum eg_err e);

/* From now on, and after restarts, the text of this event cannot be read: EG_ECORRUPT. */
void memstore_damage(struct eg_storage *s, int64_t sid, uint64_t cursor);

/*
 * A new store with the same committed data, as a process that starts again would find it (copies
 * that were not finished are on their way out); frees s.
 * A store whose commit was EG_EUNKNOWN refuses to begin; its restart does not.
 */
struct eg_storage *memstore_restart(struct eg_storage *s);

/* Revocations that ran out by then go, as when a database is opened. */
void memstore_forget(struct eg_storage *s, int64_t wall_ms);

/* How many commits succeeded; how many audit entries there are, and the action of the newest. */
long memstore_commits(const struct eg_storage *s);
long memstore_audits(const struct eg_storage *s, const char **last_action);

#endif
