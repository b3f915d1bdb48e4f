/*
 * check.c - what has to be true of the log, whatever happened: holds all that was ever written, and
 * what the storage has of it, against all that clients, workers and operators were told in a
 * schedule.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"

/* A session's events as they were written, with their heads: cursor first + i. */
struct log {
    struct sim *w;
    const struct life *life;
    unsigned number; /* of the life */
    struct eg_event_head *head;
    unsigned n;
    uint64_t next; /* of what the storage has */
    int64_t bytes;
};

static struct eg_slice body(const struct log *l, unsigned i)
{
    return eg_bytes_slice(l->life->event[i].bytes);
}

static bool is(const struct log *l, unsigned i, const char *type)
{
    return eg_slice_is(l->head[i].type, type);
}

static unsigned long long at(const struct log *l, unsigned i)
{
    return l->life->event[i].cursor;
}

/* --- what is stored --- */

static void collect(void *arg, uint64_t cursor, struct eg_slice stored)
{
    struct log *l = arg;
    const struct seen *e = sim_life_event(l->life, cursor);
    if (cursor != l->next || !e || !eg_slice_eq(stored, eg_bytes_slice(e->bytes))) {
        sim_fault(l->w, "%s: event %llu, where %llu as it was written belongs", l->life->name,
                  (unsigned long long)cursor, (unsigned long long)l->next);
    }
    l->next = cursor + 1;
    l->bytes += (int64_t)stored.n;
}

/* From the floor on all is there, and before it nothing. */
static void check_stored(struct log *l, const struct eg_session_row *row)
{
    uint8_t hash[EG_CHAIN_BYTES];
    l->next = l->life->floor;
    l->bytes = 0;
    if (l->w->storage->ops->events(l->w->storage, row->sid, 1, (int)l->n + 1, collect, l) !=
            EG_OK ||
        l->next != sim_life_last(l->life) + 1 || l->bytes != row->bytes) {
        sim_fault(l->w,
                  "%s: of its events until %llu with %lld bytes there are those until %llu "
                  "with %lld",
                  l->life->name, (unsigned long long)sim_life_last(l->life), (long long)row->bytes,
                  (unsigned long long)l->next - 1, (long long)l->bytes);
    }
    sim_life_hash(l->life, row->cursor, hash);
    if (memcmp(hash, row->hash, sizeof hash) != 0) {
        sim_fault(l->w, "%s: the hash of the head is wrong", l->life->name);
    }
    sim_life_hash(l->life, l->life->floor - 1, hash);
    if (memcmp(hash, row->floor_hash, sizeof hash) != 0) {
        sim_fault(l->w, "%s: the hash of the floor is wrong", l->life->name);
    }
}

static void count(void *arg, uint64_t cursor, struct eg_slice stored)
{
    (void)cursor;
    (void)stored;
    ++*(unsigned *)arg;
}

/* Of a session that was removed nothing is left. */
static void check_removed(const struct log *l)
{
    const struct eg_storage_ops *ops = l->w->storage->ops;
    struct eg_session_row row;
    uint64_t cursor;
    unsigned left = 0;
    const int64_t sid = l->life->sid;
    for (int sub = 0; sub < SIM_SUBS; sub++) {
        left +=
            ops->ack_get(l->w->storage, sid, eg_slice_cstr(sim_sub[sub]), &cursor) != EG_ENOTFOUND;
    }
    if (ops->session_by_sid(l->w->storage, sid, &row) != EG_ENOTFOUND ||
        ops->events(l->w->storage, sid, 0, 1, count, &left) != EG_OK || left) {
        sim_fault(l->w, "%s was removed, and something is left", l->life->name);
    }
}

/* --- turns --- */

/* The connection that wrote an event, 0 for the gateway, and the log that it was meant for. */
static eg_conn_id written_by(const struct log *l, unsigned i, unsigned *life)
{
    const struct eg_slice v = eg_event_field(body(l, i), is(l, i, "response") ? "content" : "data");
    char *end = NULL;
    const eg_conn_id conn = v.n > 2 && v.p[0] == '"' ? strtoull(v.p + 1, &end, 10) : 0;
    *life = conn && *end == '.' ? (unsigned)strtoul(end + 1, NULL, 10) : l->number;
    return conn;
}

static eg_conn_id writer_of(const struct log *l, unsigned i)
{
    unsigned life;
    return written_by(l, i, &life);
}

/* The next hand, from the given on, by which conn got the turn. */
static unsigned hand_of(const struct log *l, unsigned hand, eg_conn_id conn, uint64_t turn)
{
    const struct handed *h = l->w->handed;
    while (hand < l->w->hands &&
           !(h[hand].conn == conn && h[hand].turn == turn && h[hand].life == l->number)) {
        hand++;
    }
    return hand;
}

/* One turn: exactly one response, nothing after it, and writers in the order in which it was handed
 * out. */
static void check_turn(const struct log *l, unsigned i)
{
    const uint64_t turn = l->head[i].cursor;
    unsigned responses = 0, hand = 0, life;
    while (++i < l->n) {
        if (l->head[i].turn != turn) {
            continue;
        }
        if (responses) {
            sim_fault(l->w, "%s turn %llu: %.*s at %llu after its end", l->life->name,
                      (unsigned long long)turn, (int)l->head[i].type.n, l->head[i].type.p,
                      at(l, i));
        }
        const eg_conn_id writer = written_by(l, i, &life);
        if (life != l->number) {
            sim_fault(l->w, "%s turn %llu: event %llu is of a session that had its id before",
                      l->life->name, (unsigned long long)turn, at(l, i));
        }
        hand = writer ? hand_of(l, hand, writer, turn) : hand;
        if (writer && hand == l->w->hands) {
            sim_fault(l->w, "%s turn %llu: connection %llu wrote event %llu out of its time",
                      l->life->name, (unsigned long long)turn, (unsigned long long)writer,
                      at(l, i));
        }
        responses += is(l, i, "response");
    }
    if (responses != 1) {
        sim_fault(l->w, "%s turn %llu: %u responses", l->life->name, (unsigned long long)turn,
                  responses);
    }
}

/* Turns of the session itself: those that were copied are no more than history. */
static void check_turns(const struct log *l)
{
    for (unsigned i = l->life->copied; i < l->n && !l->w->fault[0]; i++) {
        /* A turn whose message is damaged waits, and those behind it: they have no end yet. */
        if (is(l, i, "message") && l->life->sid != l->w->damaged_sid) {
            check_turn(l, i);
        }
        if (l->head[i].turn && l->head[i].turn < l->life->first + l->life->copied) {
            sim_fault(l->w, "%s: event %llu is of a turn that was copied", l->life->name, at(l, i));
        }
    }
}

/* A worker may write into a turn only when all turns before it have ended. */
static void check_order(const struct log *l)
{
    for (unsigned i = l->life->copied; i < l->n; i++) {
        if (!l->head[i].turn || is(l, i, "message") || !writer_of(l, i)) {
            continue;
        }
        for (unsigned j = l->life->copied; at(l, j) < l->head[i].turn; j++) {
            bool ended = !is(l, j, "message");
            for (unsigned k = j + 1; k < i && !ended; k++) {
                ended = l->head[k].turn == at(l, j) && is(l, k, "response");
            }
            if (!ended) {
                sim_fault(l->w, "%s: turn %llu is served before %llu ended", l->life->name,
                          (unsigned long long)l->head[i].turn, at(l, j));
            }
        }
    }
}

/* A turn that was given up is listed until it was tried again, and that was only when asked. */
static void check_dead(const struct log *l)
{
    struct eg_turn_row row;
    unsigned again = 0;
    for (unsigned i = l->life->copied; i < l->n; i++) {
        again += is(l, i, "message") && eg_event_field(body(l, i), "data.message_id").n == 0;
        if (!is(l, i, "response") ||
            !eg_slice_is(eg_event_field(body(l, i), "outcome.code"), "\"dead_letter\"")) {
            continue;
        }
        const bool listed = l->w->storage->ops->turn_get(l->w->storage, l->life->sid,
                                                         l->head[i].turn, &row) == EG_OK &&
                            row.state == EG_TURN_DEAD;
        if (listed == (l->life->state == LIFE_REMOVED ||
                       sim_turn_noted(&l->w->again, l->number, l->head[i].turn))) {
            sim_fault(l->w, "%s turn %llu is dead, and %slisted", l->life->name,
                      (unsigned long long)l->head[i].turn, listed ? "" : "not ");
        }
    }
    if (again != l->life->again) {
        sim_fault(l->w, "%s: %u messages were said again, and %u were asked for", l->life->name,
                  again, l->life->again);
    }
}

/* --- what was promised --- */

/* An accepted message is where it was said to be, and nowhere else: only when it has been trimmed
 * is it new once more. */
static void check_promise(const struct log *l, const struct promise *p)
{
    char id[32];
    unsigned there = 0;
    uint64_t last = 0;
    snprintf(id, sizeof id, "\"m%u-%u\"", p->client, p->id);
    for (unsigned i = l->life->copied; i < l->n; i++) {
        if (!is(l, i, "message") ||
            !eg_slice_is(eg_event_field(body(l, i), "data.message_id"), id)) {
            continue;
        }
        if (last && last >= l->life->event[i].floor) {
            sim_fault(l->w, "%s is stored twice, at %llu and %llu", id, (unsigned long long)last,
                      at(l, i));
        }
        last = at(l, i);
        there += last == p->cursor;
    }
    if (there != 1) {
        sim_fault(l->w, "%s was accepted at %llu and is not there", id,
                  (unsigned long long)p->cursor);
    }
}

static void check_promises(const struct log *l)
{
    for (unsigned i = 0; i < l->w->promises; i++) {
        if (l->w->promise[i].life == l->number) {
            check_promise(l, &l->w->promise[i]);
        }
    }
}

/* What was confirmed as aborted was asked to end, once. */
static void check_aborts(const struct log *l)
{
    for (unsigned i = 0; i < l->w->stopped.n; i++) {
        const struct life_turn *t = &l->w->stopped.v[i];
        unsigned asked = 0;
        for (unsigned j = l->life->copied; j < l->n && t->life == l->number; j++) {
            asked += l->head[j].turn == t->turn && is(l, j, "message_abort");
        }
        if (asked != 1 && t->life == l->number) {
            sim_fault(l->w, "%s turn %llu was aborted, and the log says so %u times", l->life->name,
                      (unsigned long long)t->turn, asked);
        }
    }
}

/* A session that was closed, or removed while it was open, says so in its last event. */
static void check_end(const struct log *l)
{
    unsigned ends = 0;
    for (unsigned i = l->life->copied; i < l->n; i++) {
        ends += is(l, i, "session_end");
        if (ends && i + 1 < l->n) {
            sim_fault(l->w, "%s goes on after its end at %llu", l->life->name, at(l, i));
        }
    }
    if (ends != l->life->closed) {
        sim_fault(l->w, "%s has %u ends", l->life->name, ends);
    }
}

static void check_time(const struct log *l)
{
    for (unsigned i = 1; i < l->n; i++) {
        if (l->head[i].timestamp_ms < l->head[i - 1].timestamp_ms) {
            sim_fault(l->w, "%s: time goes back at %llu", l->life->name, at(l, i));
        }
    }
}

static void check_clients(const struct log *l)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *c = &l->w->client[i];
        if (c->sid != l->life->sid) {
            continue;
        }
        if (c->have != sim_life_last(l->life)) {
            sim_fault(l->w, "client %d has %llu of %llu events of %s", i,
                      (unsigned long long)c->have, (unsigned long long)sim_life_last(l->life),
                      l->life->name);
        }
        sim_client_forgets(l->w, c); /* after holding it against the log */
    }
}

static void check_life(struct log *l)
{
    struct eg_session_row row;
    for (unsigned i = 0; i < l->n; i++) {
        if (eg_event_read(body(l, i), &l->head[i]) != EG_OK || l->head[i].cursor != at(l, i)) {
            sim_fault(l->w, "%s: event %llu cannot be read", l->life->name, at(l, i));
            return;
        }
    }
    if (l->life->state == LIFE_REMOVED) {
        check_removed(l);
    } else if (l->w->storage->ops->session_by_sid(l->w->storage, l->life->sid, &row) == EG_OK) {
        check_stored(l, &row);
    } else {
        sim_fault(l->w, "%s cannot be read", l->life->name);
    }
    check_turns(l);
    check_order(l);
    check_dead(l);
    check_promises(l);
    check_aborts(l);
    check_end(l);
    check_time(l);
    check_clients(l);
}

void sim_check(struct sim *w)
{
    for (unsigned i = 0; i < w->lives && !w->fault[0]; i++) {
        struct log l = {.w = w, .life = &w->life[i], .number = i, .n = w->life[i].n};
        l.head = calloc(l.n + 1, sizeof *l.head);
        if (l.head) {
            check_life(&l);
        }
        free(l.head);
    }
}
