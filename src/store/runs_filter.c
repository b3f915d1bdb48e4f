/*
 * runs_filter.c - part of runs.h: what is known in memory of the ids of a run, so that one that is
 * new costs no read: a filter of blocks (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient
 * Bloom Filters, 2007), one block looked at for an id.
 */
#include <stdlib.h>

#include "store/runs_int.h"

#define BLOCK_WORDS 8
#define FILTER_BITS 5 /* looked at for each id */
/* Entries a block. A filter that is mistaken costs a read of the run: with 16 bits an entry that is
 * once in some five hundred ids, with 8, for want of room, once in forty. */
#define BLOCK_IDS 32
#define BLOCK_IDS_MOST 64

size_t eg_runs_filter_bytes = 128 << 20;

/* The block of a hash. */
static uint64_t *filter_block(const struct eg_run *run, uint64_t hash)
{
    return run->filter + (size_t)((hash * run->blocks) >> EG_PACK_HASH_BITS) * BLOCK_WORDS;
}

uint64_t eg_run_filter_bits(uint64_t hash)
{
    uint64_t h = hash * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 31;
}

static void filter_add(struct eg_run *run, uint64_t hash)
{
    uint64_t bits = eg_run_filter_bits(hash);
    uint64_t *const block = filter_block(run, hash);
    for (int i = 0; i < FILTER_BITS; i++, bits >>= 9) {
        block[bits >> 6 & 7] |= UINT64_C(1) << (bits & 63);
    }
}

bool eg_run_filter_has(const struct eg_run *run, uint64_t hash, uint64_t bits)
{
    const uint64_t *const block = filter_block(run, hash);
    for (int i = 0; i < FILTER_BITS; i++, bits >>= 9) {
        if ((block[bits >> 6 & 7] & UINT64_C(1) << (bits & 63)) == 0) {
            return false;
        }
    }
    return true;
}

bool eg_run_filter_new(const struct eg_runs *r, struct eg_run *run)
{
    const size_t block = BLOCK_WORDS * sizeof(uint64_t);
    size_t room = eg_runs_filter_bytes / block;
    for (int i = 0; i < r->n; i++) {
        room -= r->v[i].blocks;
    }
    size_t blocks = (size_t)run->entries / BLOCK_IDS + 1;
    if (blocks > room) {
        blocks = (size_t)run->entries / BLOCK_IDS_MOST + 1;
    }
    run->filter = blocks <= room ? calloc(blocks, block) : NULL;
    if (run->filter == NULL) {
        return false;
    }
    run->blocks = (uint32_t)blocks;
    run->read_to = 0;
    return true;
}

void eg_runs_fill(struct eg_runs *r, const struct eg_pack_ids *ids)
{
    for (int i = 0; r->filling != NULL && i < ids->n; i++) {
        filter_add(r->filling, ids->v[i].hash);
    }
}

/* A run whose filter has to be read, with memory for it; the newest first. */
static struct eg_run *unfiltered(struct eg_runs *r)
{
    for (int i = r->n - 1; i >= 0; i--) {
        struct eg_run *run = &r->v[i];
        if (run->state != EG_RUN_LIVE || run->whole) {
            continue;
        }
        if (run->filter != NULL || eg_run_filter_new(r, run)) {
            return run;
        }
    }
    return NULL;
}

void eg_runs_filter_read(struct eg_sqlite *s, int64_t rows)
{
    struct eg_run *run = unfiltered(&s->runs);
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_RUN_IDS_UP);
    struct eg_packed_ids ids;
    if (run == NULL || st == NULL) {
        return;
    }
    (void)sqlite3_bind_int64(st, 1, eg_runs_place(run->run, run->read_to));
    (void)sqlite3_bind_int64(st, 2, eg_runs_place(run->run, EG_PACK_HASH_MASK));
    enum eg_err e = eg_sq_first(s, st, "read ids");
    run->whole = e == EG_ENOTFOUND;
    bool more = e == EG_OK;
    while (more && rows-- > 0) {
        const uint64_t first = (uint64_t)sqlite3_column_int64(st, 0) & EG_PACK_HASH_MASK;
        if (!eg_packed_ids_open(&ids, first, eg_db_blob(st, 1))) {
            s->err = eg_sq_latch(s, "read ids", SQLITE_CORRUPT);
            break;
        }
        for (int i = 0; i < ids.n; i++) {
            filter_add(run, eg_packed_ids_at(&ids, i).hash);
        }
        run->read_to = first + 1;
        more = eg_sq_next(s, st, "read ids", &e);
        run->whole = !more && e == EG_OK;
    }
    (void)sqlite3_reset(st);
}

void eg_runs_expect(const struct eg_runs *r, int64_t sid, int64_t key)
{
    const uint64_t hash = eg_pack_hash(sid, key);
    for (int i = 0; i < r->n; i++) {
        if (r->v[i].whole) {
            __builtin_prefetch(filter_block(&r->v[i], hash));
        }
    }
}
