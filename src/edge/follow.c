/*
 * follow.c - which connections of this reactor follow a session: open addressing over sid, the
 * connections of one session in a ring-less list through the connections themselves. Sixteen bytes
 * a session, none for a connection: with many idle sessions this is what counts.
 */
#include <stdlib.h>

#include "edge/peer.h"

static uint32_t place(int64_t sid, uint32_t cap)
{
    const uint64_t h = (uint64_t)sid * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32) & (cap - 1);
}

static struct eg_follow *find(const struct eg_follows *f, int64_t sid)
{
    if (f->cap == 0) {
        return NULL;
    }
    uint32_t i = place(sid, f->cap);
    while (f->table[i].sid && f->table[i].sid != sid) {
        i = (i + 1) & (f->cap - 1);
    }
    return &f->table[i];
}

static bool grow(struct eg_follows *f)
{
    const struct eg_follows old = *f;
    const uint32_t cap = old.cap ? old.cap * 2 : 64;
    struct eg_follow *const table = calloc(cap, sizeof *table);
    if (!table) {
        return false;
    }
    f->table = table;
    f->cap = cap;
    for (uint32_t i = 0; i < old.cap; i++) {
        if (old.table[i].sid) {
            *find(f, old.table[i].sid) = old.table[i];
        }
    }
    free(old.table);
    return true;
}

enum eg_err eg_follow_add(struct eg_follows *f, struct eg_peer *p)
{
    if ((f->used + 1) * 4 > f->cap * 3 && !grow(f)) {
        return EG_ENOMEM;
    }
    struct eg_follow *const at = find(f, p->sid);
    if (!at->sid) {
        at->sid = p->sid;
        at->first = NULL;
        f->used++;
    }
    p->prev = NULL;
    p->next = at->first;
    if (p->next) {
        p->next->prev = p;
    }
    at->first = p;
    return EG_OK;
}

/* Frees the place, moving back later entries of the same run. */
static void erase(struct eg_follows *f, struct eg_follow *at)
{
    uint32_t hole = (uint32_t)(at - f->table);
    uint32_t i = hole;
    for (;;) {
        i = (i + 1) & (f->cap - 1);
        if (!f->table[i].sid) {
            break;
        }
        const uint32_t home = place(f->table[i].sid, f->cap);
        if (((i - home) & (f->cap - 1)) >= ((i - hole) & (f->cap - 1))) {
            f->table[hole] = f->table[i];
            hole = i;
        }
    }
    f->table[hole] = (struct eg_follow){0};
    f->used--;
}

void eg_follow_remove(struct eg_follows *f, struct eg_peer *p)
{
    if (p->next) {
        p->next->prev = p->prev;
    }
    if (p->prev) {
        p->prev->next = p->next;
    } else {
        struct eg_follow *const at = find(f, p->sid);
        at->first = p->next;
        if (!at->first) {
            erase(f, at);
        }
    }
    p->next = p->prev = NULL;
    p->sid = 0;
}

struct eg_peer *eg_follow_first(const struct eg_follows *f, int64_t sid)
{
    const struct eg_follow *const at = find(f, sid);
    return at ? at->first : NULL;
}
