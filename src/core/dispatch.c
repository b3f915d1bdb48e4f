/*
 * dispatch.c - agents, and which worker gets which turn.
 *
 * Each agent has a ring of sessions whose head turn waits, oldest first: one turn of a session,
 * then the next session, so that no session starves another. Invariant: a session whose head is
 * QUEUED stands in its agent's ring, loaded or not; an entry whose session has moved on is dropped
 * when it comes up. The exception: a head whose message is damaged on the disk undid the batch that
 * read it, and would undo every one. It is let go, and waits for a restart.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"

struct eg_agent *eg_agent_find(struct eg_machine *m, struct eg_slice id)
{
    struct eg_agent *a = NULL;
    HASH_FIND(hh, m->agents, id.p, id.n, a);
    return a;
}

struct eg_agent *eg_agent_add(struct eg_machine *m, struct eg_slice id)
{
    struct eg_agent *a = eg_agent_find(m, id);
    if (a) {
        return a;
    }
    a = calloc(1, sizeof *a);
    if (a) {
        a->id = eg_slice_dup(id);
    }
    if (!a || !a->id) {
        free(a);
        m->failed = true;
        return NULL;
    }
    HASH_ADD_KEYPTR(hh, m->agents, a->id, id.n, a);
    return a;
}

void eg_agent_row(struct eg_machine *m, struct eg_agent *a, bool there)
{
    if (there) {
        m->storage->ops->agent_put(m->storage, eg_slice_cstr(a->id), m->now.wall_ms);
        a->registering = true;
    } else {
        m->storage->ops->agent_delete(m->storage, eg_slice_cstr(a->id));
        a->unregistering = !a->registering; /* else it has no row that could come back */
    }
    a->registered = there;
    m->agents_moved = true;
}

bool eg_agent_ready(struct eg_machine *m, struct eg_agent *a, int64_t sid)
{
    if (a->ready_count == a->ready_cap) {
        const unsigned cap = a->ready_cap ? a->ready_cap * 2 : 64;
        int64_t *grown = malloc(cap * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return false;
        }
        for (unsigned i = 0; i < a->ready_count; i++) {
            grown[i] = a->ready[(a->ready_first + i) & (a->ready_cap - 1)];
        }
        free(a->ready);
        a->ready = grown;
        a->ready_cap = cap;
        a->ready_first = 0;
    }
    a->ready[(a->ready_first + a->ready_count++) & (a->ready_cap - 1)] = sid;
    return true;
}

int64_t eg_agent_next_ready(const struct eg_agent *a)
{
    return a->ready[a->ready_first];
}

void eg_agent_drop_ready(struct eg_agent *a)
{
    a->ready_first = (a->ready_first + 1) & (a->ready_cap - 1);
    a->ready_count--;
}

/* The worker that is to have the head of s: the one that had the last turn if it has room, else the
 * one with the smallest part of its concurrency in use; equal ones take turns. One that let the
 * lease of this very turn run out gets it again only when no other has room. NULL when all are
 * full. */
static struct eg_worker *choose(struct eg_agent *a, const struct eg_session *s)
{
    struct eg_worker *w, *best = NULL, *hung = NULL;
    DL_FOREACH(a->workers, w)
    {
        if (w->running >= w->concurrency) {
            continue;
        }
        if (s && w->conn->id == s->hung_worker) {
            hung = w;
            continue;
        }
        if (s && w->conn->id == s->last_worker) {
            best = w;
            break;
        }
        if (!best ||
            (int64_t)w->running * best->concurrency < (int64_t)best->running * w->concurrency) {
            best = w;
        }
    }
    best = best ? best : hung;
    if (best && s) {
        DL_DELETE(a->workers, best);
        DL_APPEND(a->workers, best);
    }
    return best;
}

void eg_dispatch(struct eg_machine *m, struct eg_agent *a)
{
    if (a->dispatching) {
        return; /* what was made ready is taken by the loop that is under way */
    }
    a->dispatching = true;
    while (a->ready_count && !m->draining && !m->readonly && !m->failed && choose(a, NULL)) {
        struct eg_session *s = eg_session_find_sid(m, eg_agent_next_ready(a));
        if (!s && m->failed) { /* not read, not gone: it keeps its place */
            break;
        }
        eg_agent_drop_ready(a);
        if (!s) {
            continue;
        }
        s->in_ready = false;
        const struct eg_turn *head = eg_turn_head(s);
        if (head && head->state == EG_TURN_QUEUED && head->turn == s->unreadable) {
            s->in_ready = true; /* as if: nobody is to put it there again before a restart */
            eg_log_limited(EG_LOG_WARN, "turn.unreadable", "session=%s" EG_F "turn=%llu", s->id,
                           (unsigned long long)head->turn);
        } else if (head && head->state == EG_TURN_QUEUED) {
            eg_turn_hand_out(m, s, choose(a, s));
        }
    }
    a->dispatching = false;
}

void eg_dispatch_session(struct eg_machine *m, struct eg_session *s)
{
    eg_session_touch(m, s);
    if (!s->in_ready) {
        s->in_ready = eg_agent_ready(m, s->agent, s->sid);
    }
    eg_dispatch(m, s->agent);
}
