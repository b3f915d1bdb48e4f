/*
 * runs_int.h - private to runs.c, runs_move.c and runs_filter.c.
 */
#ifndef EG_STORE_RUNS_INT_H
#define EG_STORE_RUNS_INT_H

#include "store/sqlite_int.h"

/* The key of the row of run_ids that begins with hash. */
static inline int64_t eg_runs_place(int64_t run, uint64_t hash)
{
    return (int64_t)((uint64_t)run << EG_PACK_HASH_BITS | hash);
}

/* ---- runs_filter.c ---- */

/* Gives a run an empty filter; false: no memory for it. */
bool eg_run_filter_new(const struct eg_runs *r, struct eg_run *run);
/* The bits of a hash in its block, as numbers of nine bits. */
uint64_t eg_run_filter_bits(uint64_t hash);
/* False: the run, whose filter is whole, has no such id. */
bool eg_run_filter_has(const struct eg_run *run, uint64_t hash, uint64_t bits);
/* Reads so many rows of a run into its filter, where one is not whole. */
void eg_runs_filter_read(struct eg_sqlite *s, int64_t rows);
/* Takes ids that are written into the filter of the run. */
void eg_runs_fill(struct eg_runs *r, const struct eg_pack_ids *ids);

/* ---- runs_move.c ---- */

/* Moves entries into the run that is being made, while there is credit. True when all are in it.
 * Failures are latched. */
bool eg_runs_move(struct eg_sqlite *s, struct eg_run_work *w);
/* Sets w behind the last row that its run has. */
enum eg_err eg_runs_behind(struct eg_sqlite *s, struct eg_run_work *w) EG_MUST;
void eg_runs_inputs_free(struct eg_runs *r);

#endif
