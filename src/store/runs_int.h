/*
 * runs_int.h - private to runs.c and runs_move.c.
 */
#ifndef EG_STORE_RUNS_INT_H
#define EG_STORE_RUNS_INT_H

#include "store/sqlite_int.h"

/* The key of the row of run_ids that begins with hash. */
static inline int64_t eg_runs_place(int64_t run, uint64_t hash)
{
    return (int64_t)((uint64_t)run << EG_PACK_HASH_BITS | hash);
}

/* Takes ids that are written into the filter of the run. */
void eg_runs_fill(struct eg_runs *r, const struct eg_pack_ids *ids);
/* Moves entries into the run that is being made, while there is credit. True when all are in it.
 * Failures are latched. */
bool eg_runs_move(struct eg_sqlite *s, struct eg_run_work *w);
/* Sets w behind the last row that its run has. */
enum eg_err eg_runs_behind(struct eg_sqlite *s, struct eg_run_work *w) EG_MUST;
void eg_runs_inputs_free(struct eg_runs *r);

#endif
