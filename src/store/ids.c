/*
 * ids.c - see ids.h. Open addressing with linear probing; entries leave a generation only in the
 * reverse order of their coming (a rollback), so freeing their slots never breaks a probe.
 */
#include "store/ids.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ENTRIES 1024

static uint32_t slot_of(const struct eg_ids_generation *g, int64_t sid, int64_t key)
{
    uint64_t h = (uint64_t)key ^ (uint64_t)sid * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    return (uint32_t)h & (g->slots - 1);
}

static void occupy(struct eg_ids_generation *g, uint32_t index)
{
    uint32_t at = slot_of(g, g->v[index].sid, g->v[index].key);
    while (g->slot[at] != 0) {
        at = (at + 1) & (g->slots - 1);
    }
    g->slot[at] = index + 1;
}

/* Index of the living entry, or n. */
static uint32_t look(const struct eg_ids_generation *g, int64_t sid, int64_t key)
{
    if (g->n == 0) {
        return 0;
    }
    for (uint32_t at = slot_of(g, sid, key); g->slot[at] != 0; at = (at + 1) & (g->slots - 1)) {
        const struct eg_ids_entry *e = &g->v[g->slot[at] - 1];
        if (e->sid == sid && e->key == key && e->cursor != 0) {
            return g->slot[at] - 1;
        }
    }
    return g->n;
}

static void generation_free(struct eg_ids_generation *g)
{
    free(g->v);
    free(g->slot);
    *g = (struct eg_ids_generation){NULL, NULL, 0, 0, 0};
}

static enum eg_err grow(struct eg_ids_generation *g)
{
    uint32_t cap = g->cap > 0 ? g->cap * 2 : FIRST_ENTRIES;
    struct eg_ids_entry *v = realloc(g->v, cap * sizeof(*v));
    if (v == NULL) {
        return EG_ENOMEM;
    }
    g->v = v;
    uint32_t *slot = calloc((size_t)cap * 2, sizeof(*slot));
    if (slot == NULL) {
        return EG_ENOMEM; /* v has grown, cap has not: harmless */
    }
    free(g->slot);
    g->slot = slot;
    g->slots = cap * 2;
    g->cap = cap;
    for (uint32_t i = 0; i < g->n; i++) {
        occupy(g, i);
    }
    return EG_OK;
}

void eg_ids_free(struct eg_ids *ids)
{
    generation_free(&ids->fill);
    generation_free(&ids->frozen);
    free(ids->order);
    free(ids->removed);
    memset(ids, 0, sizeof(*ids));
}

bool eg_ids_find(const struct eg_ids *ids, int64_t sid, int64_t key, uint64_t *cursor)
{
    const struct eg_ids_generation *const in[] = {&ids->fill, &ids->frozen};
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = look(in[i], sid, key);
        if (at < in[i]->n) {
            *cursor = in[i]->v[at].cursor;
            return true;
        }
    }
    return false;
}

enum eg_err eg_ids_add(struct eg_ids *ids, int64_t sid, int64_t key, uint64_t cursor)
{
    struct eg_ids_generation *g = &ids->fill;
    if (g->n == g->cap) {
        enum eg_err e = grow(g);
        if (e != EG_OK) {
            return e;
        }
    }
    g->v[g->n] = (struct eg_ids_entry){sid, key, cursor};
    occupy(g, g->n++);
    return EG_OK;
}

enum eg_err eg_ids_remove(struct eg_ids *ids, int64_t sid, int64_t key)
{
    struct eg_ids_generation *const in[] = {&ids->fill, &ids->frozen};
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = look(in[i], sid, key);
        if (at >= in[i]->n) {
            continue;
        }
        if (ids->removals == ids->removals_cap) {
            uint32_t cap = ids->removals_cap > 0 ? ids->removals_cap * 2 : 64;
            struct eg_ids_removal *r = realloc(ids->removed, cap * sizeof(*r));
            if (r == NULL) {
                return EG_ENOMEM;
            }
            ids->removed = r;
            ids->removals_cap = cap;
        }
        ids->removed[ids->removals++] = (struct eg_ids_removal){i == 1, at, in[i]->v[at].cursor};
        in[i]->v[at].cursor = 0;
    }
    return EG_OK;
}

void eg_ids_keep(struct eg_ids *ids)
{
    ids->kept = ids->fill.n;
    ids->merged_kept = ids->merged;
    ids->removals = 0;
}

void eg_ids_undo(struct eg_ids *ids)
{
    struct eg_ids_generation *g = &ids->fill;
    while (ids->removals > 0) {
        const struct eg_ids_removal *r = &ids->removed[--ids->removals];
        (r->frozen ? &ids->frozen : g)->v[r->index].cursor = r->cursor;
    }
    while (g->n > ids->kept) {
        uint32_t index = --g->n;
        uint32_t at = slot_of(g, g->v[index].sid, g->v[index].key);
        while (g->slot[at] != index + 1) {
            at = (at + 1) & (g->slots - 1);
        }
        g->slot[at] = 0;
    }
    ids->merged = ids->merged_kept;
}

/* One pass of a counting sort of the indexes by 16 bits of the session number. */
static void sort_pass(const struct eg_ids_generation *g, const uint32_t *from, uint32_t *to,
                      uint32_t *count, int shift)
{
    memset(count, 0, 65536 * sizeof(*count));
    for (uint32_t i = 0; i < g->n; i++) {
        count[((uint64_t)g->v[i].sid >> shift) & 0xffff]++;
    }
    for (uint32_t i = 0, sum = 0; i < 65536; i++) {
        uint32_t n = count[i];
        count[i] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < g->n; i++) {
        to[count[((uint64_t)g->v[from[i]].sid >> shift) & 0xffff]++] = from[i];
    }
}

enum eg_err eg_ids_freeze(struct eg_ids *ids, int64_t seq)
{
    uint32_t n = ids->fill.n;
    uint32_t *order = malloc((n + 1) * sizeof(*order));
    uint32_t *other = malloc((n + 1) * sizeof(*other));
    uint32_t *count = malloc(65536 * sizeof(*count));
    if (order == NULL || other == NULL || count == NULL) {
        free(order);
        free(other);
        free(count);
        return EG_ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    /* 32 bits of the number are enough: beyond them sessions would only be less well sorted. */
    sort_pass(&ids->fill, order, other, count, 0);
    sort_pass(&ids->fill, other, order, count, 16);
    free(other);
    free(count);
    ids->frozen = ids->fill;
    ids->order = order;
    ids->merged = ids->merged_kept = 0;
    ids->frozen_seq = seq;
    memset(&ids->fill, 0, sizeof(ids->fill));
    ids->kept = 0;
    return EG_OK;
}

bool eg_ids_merging(const struct eg_ids *ids)
{
    return ids->order != NULL;
}

const struct eg_ids_entry *eg_ids_next(struct eg_ids *ids)
{
    while (ids->order != NULL && ids->merged < ids->frozen.n) {
        const struct eg_ids_entry *e = &ids->frozen.v[ids->order[ids->merged++]];
        if (e->cursor != 0) {
            return e;
        }
    }
    return NULL;
}

void eg_ids_thaw(struct eg_ids *ids)
{
    generation_free(&ids->frozen);
    free(ids->order);
    ids->order = NULL;
    ids->merged = ids->merged_kept = 0;
}
