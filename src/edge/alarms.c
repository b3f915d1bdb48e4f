/*
 * alarms.c - when to look at which connection: a binary heap by time. A connection that lives on
 * leaves its entry where it is; when it comes up it is set anew, so that traffic costs nothing.
 */
#include <stdlib.h>

#include "edge/peer.h"

static void put(struct eg_alarms *a, uint32_t i, struct eg_peer *p)
{
    a->heap[i] = p;
    p->alarm = i;
}

static void up(struct eg_alarms *a, uint32_t i, struct eg_peer *p)
{
    while (i > 0) {
        const uint32_t parent = (i - 1) / 2;
        if (a->heap[parent]->due_ms <= p->due_ms) {
            break;
        }
        put(a, i, a->heap[parent]);
        i = parent;
    }
    put(a, i, p);
}

static void down(struct eg_alarms *a, uint32_t i, struct eg_peer *p)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= a->n) {
            break;
        }
        if (child + 1 < a->n && a->heap[child + 1]->due_ms < a->heap[child]->due_ms) {
            child++;
        }
        if (p->due_ms <= a->heap[child]->due_ms) {
            break;
        }
        put(a, i, a->heap[child]);
        i = child;
    }
    put(a, i, p);
}

enum eg_err eg_alarm_set(struct eg_alarms *a, struct eg_peer *p, int64_t due_ms)
{
    if (p->alarm != UINT32_MAX) {
        const bool sooner = due_ms < p->due_ms;
        p->due_ms = due_ms;
        (sooner ? up : down)(a, p->alarm, p);
        return EG_OK;
    }
    if (a->n == a->cap) {
        const uint32_t cap = a->cap ? a->cap * 2 : 64;
        struct eg_peer **const heap = realloc(a->heap, cap * sizeof *heap);
        if (!heap) {
            return EG_ENOMEM;
        }
        a->heap = heap;
        a->cap = cap;
    }
    p->due_ms = due_ms;
    up(a, a->n++, p);
    return EG_OK;
}

void eg_alarm_clear(struct eg_alarms *a, struct eg_peer *p)
{
    const uint32_t i = p->alarm;
    if (i == UINT32_MAX) {
        return;
    }
    p->alarm = UINT32_MAX;
    struct eg_peer *const last = a->heap[--a->n];
    if (last != p) {
        if (i > 0 && a->heap[(i - 1) / 2]->due_ms > last->due_ms) {
            up(a, i, last);
        } else {
            down(a, i, last);
        }
    }
}

struct eg_peer *eg_alarm_due(struct eg_alarms *a, int64_t now_ms)
{
    if (a->n == 0 || a->heap[0]->due_ms > now_ms) {
        return NULL;
    }
    struct eg_peer *const p = a->heap[0];
    eg_alarm_clear(a, p);
    return p;
}

int eg_alarm_wait(const struct eg_alarms *a, int64_t now_ms)
{
    if (a->n == 0) {
        return -1;
    }
    const int64_t left = a->heap[0]->due_ms - now_ms;
    return left <= 0 ? 0 : left > 3600000 ? 3600000 : (int)left;
}
