/*
 * core_check.c - see core_check.h.
 */
#include "core_check.h"

#include <string.h>

#include "wire/event.h"

/* --- the machine --- */

static bool has_timer(const struct eg_machine *m, int64_t sid, int64_t at_mono)
{
    for (unsigned i = 0; i < m->timer_count; i++) {
        if (m->timers[i].sid == sid && m->timers[i].at_mono <= at_mono) {
            return true;
        }
    }
    return false;
}

static bool in_ring(const struct eg_agent *a, int64_t sid)
{
    for (unsigned i = 0; i < a->ready_count; i++) {
        if (a->ready[(a->ready_first + i) & (a->ready_cap - 1)] == sid) {
            return true;
        }
    }
    return false;
}

static void check_session(const struct eg_machine *m, const struct eg_session *s)
{
    const struct eg_turn *head = eg_turn_head(s);
    const struct eg_conn *c;
    unsigned conns = 0, followers = 0;
    DL_FOREACH(s->conns, c)
    {
        must(c->session == s && !c->fresh && !c->worker);
        conns++;
    }
    for (unsigned r = 0; s->followers && r < REACTORS; r++) {
        followers += s->followers[r];
    }
    must(conns == followers);
    must(!s->touched || m->readonly);
    must(!s->gone && s->cursor + 1 >= s->oldest && s->head_body == NULL);
    must(s->state == EG_SESSION_OPEN || s->turn_count == 0);
    for (unsigned i = 0; i < s->turn_count; i++) {
        const struct eg_turn *t = eg_turn_at(s, i);
        must(t->turn >= s->oldest && t->turn <= s->cursor && t->stored);
        must(i == 0 || (t->state == EG_TURN_QUEUED && t->turn > eg_turn_at(s, i - 1)->turn));
        must(t->state != EG_TURN_DEAD && (i == 0 || !t->worker));
    }
    if (!head || m->readonly) {
        return;
    }
    must(head->state != EG_TURN_RUNNING || head->worker);
    must(head->state == EG_TURN_QUEUED || has_timer(m, s->sid, head->deadline_mono));
    if (head->state == EG_TURN_QUEUED) {
        must(s->in_ready && in_ring(s->agent, s->sid));
        const struct eg_worker *k;
        DL_FOREACH(s->agent->workers, k)
        {
            must(m->draining || k->running == k->concurrency);
        }
    }
}

void core_check_machine(const struct eg_machine *m)
{
    const struct eg_session *s, *next;
    const struct eg_agent *a, *next_agent;
    const struct eg_worker *k;
    const struct eg_conn *c, *next_conn;
    const struct eg_chore *chore;
    int64_t running = 0, at_workers = 0;
    unsigned idle = 0;
    must(!m->writing && !m->failed && !m->fresh && m->ended_count == 0);
    must(HASH_COUNT(m->sessions) == HASH_CNT(hh_sid, m->by_sid));
    HASH_ITER(hh_sid, m->by_sid, s, next)
    {
        const struct eg_turn *head = eg_turn_head(s);
        running += head && head->worker;
        must(!head || !head->worker || head->worker->held[s->held_at] == s);
        idle += s->on_lru;
        check_session(m, s);
    }
    HASH_ITER(hh, m->agents, a, next_agent)
    {
        DL_FOREACH(a->workers, k)
        {
            must(k->running >= 0 && k->running <= k->concurrency && k->conn->worker == k);
            at_workers += k->running;
        }
    }
    HASH_ITER(hh, m->conns, c, next_conn)
    {
        must((c->session != NULL) != (c->worker != NULL) && c->sub->refs > 0);
    }
    DL_FOREACH(m->chores, chore)
    {
        must(!chore->fresh && !chore->stepped && !chore->finished);
    }
    must(running == at_workers && running == m->running);
    must(idle == m->lru_count && idle <= CACHE_MOST);
}

/* --- a log --- */

struct log {
    struct eg_session_row row;
    struct eg_event_head head[1024]; /* slices point into body */
    struct eg_bytes *body[1024];
    unsigned n;
    uint8_t hash[EG_CHAIN_BYTES];
    int64_t bytes;
    uint64_t open[64];
    unsigned opens;
};

static void collect(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct log *l = arg;
    l->bytes += (int64_t)body.n;
    if (cursor < l->row.oldest) {
        return; /* a trim that a restart cut short; the next one goes on */
    }
    must(cursor == l->row.oldest + l->n && l->n < 1024);
    l->body[l->n] = eg_bytes_copy(body.p, body.n);
    must(eg_event_read(eg_bytes_slice(l->body[l->n]), &l->head[l->n]) == EG_OK);
    must(l->head[l->n].cursor == cursor);
    must(l->n == 0 || l->head[l->n].timestamp_ms >= l->head[l->n - 1].timestamp_ms);
    eg_chain_next(l->hash, body, l->hash);
    l->n++;
}

static void note_open(void *arg, const struct eg_turn_row *row)
{
    struct log *l = arg;
    must(l->opens < 64);
    l->open[l->opens++] = row->turn;
}

static void check_turn(const struct log *l, unsigned at)
{
    unsigned ends = 0;
    for (unsigned i = at + 1; i < l->n; i++) {
        if (l->head[i].turn == l->head[at].cursor) {
            must(!ends);
            ends += eg_slice_is(l->head[i].type, "response");
        }
    }
    for (unsigned i = 0; i < l->opens; i++) {
        ends += l->open[i] == l->head[at].cursor;
    }
    must(ends == 1);
}

void core_check_log(struct eg_storage *storage, int64_t sid)
{
    static struct log l;
    l.n = l.opens = 0;
    l.bytes = 0;
    if (storage->ops->session_by_sid(storage, sid, &l.row) != EG_OK) {
        return;
    }
    if (l.row.state < EG_SESSION_DELETING) {
        memcpy(l.hash, l.row.floor_hash, sizeof l.hash);
        must(storage->ops->events(storage, sid, 1, 1024, collect, &l) == EG_OK);
        must(l.row.oldest + l.n == l.row.cursor + 1 && l.bytes == l.row.bytes);
        must(memcmp(l.hash, l.row.hash, sizeof l.hash) == 0);
        must(storage->ops->turns(storage, sid, note_open, &l) == EG_OK);
        /* A fork (its id was made) has the messages, but not the turns, of what it was made of. */
        for (unsigned i = 0; i < l.n && l.row.id[0] == 's'; i++) {
            if (eg_slice_is(l.head[i].type, "message")) {
                check_turn(&l, i);
            }
        }
    }
    for (unsigned i = 0; i < l.n; i++) {
        eg_bytes_unref(l.body[i]);
    }
}
