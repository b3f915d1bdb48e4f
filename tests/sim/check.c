/*
 * check.c - what has to be true of the log, whatever happened: holds it against all that clients
 * and workers were told in a schedule.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"

#define EVENTS_MAX 4096

struct entry {
    struct eg_bytes *body;
    struct eg_event_head head;
};

struct log {
    struct sim *w;
    int session;
    struct entry *entry; /* by cursor - 1 */
    unsigned n;
};

static void collect(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct log *l = arg;
    if (l->n >= EVENTS_MAX || cursor != l->n + 1) {
        sim_fault(l->w, "s%d: cursor %llu after %u", l->session, (unsigned long long)cursor, l->n);
        return;
    }
    struct entry *e = &l->entry[l->n++];
    e->body = eg_bytes_copy(body.p, body.n);
    if (eg_event_read(eg_bytes_slice(e->body), &e->head) != EG_OK || e->head.cursor != cursor) {
        sim_fault(l->w, "s%d: event %llu cannot be read", l->session, (unsigned long long)cursor);
    }
}

static void check_chain(const struct log *l, const struct eg_session_row *row)
{
    uint8_t hash[EG_CHAIN_BYTES] = {0};
    for (unsigned i = 0; i < l->n; i++) {
        eg_chain_next(hash, eg_bytes_slice(l->entry[i].body), hash);
    }
    if (row->cursor != l->n || memcmp(hash, row->hash, sizeof hash) != 0) {
        sim_fault(l->w, "s%d: head %llu of %u events, or its hash, is wrong", l->session,
                  (unsigned long long)row->cursor, l->n);
    }
    for (unsigned i = 1; i < l->n; i++) {
        if (l->entry[i].head.timestamp_ms < l->entry[i - 1].head.timestamp_ms) {
            sim_fault(l->w, "s%d: time goes back at %u", l->session, i + 1);
        }
    }
}

/* The connection that wrote an event, 0 for the gateway. */
static eg_conn_id writer_of(const struct entry *e)
{
    const bool final = eg_slice_is(e->head.type, "response");
    const struct eg_slice v = eg_event_field(eg_bytes_slice(e->body), final ? "content" : "data");
    return v.n > 2 && v.p[0] == '"' ? strtoull(v.p + 1, NULL, 10) : 0;
}

/* One turn: exactly one response, nothing after it, and writers in the order in which it was handed
 * out. */
static void check_turn(const struct log *l, unsigned at)
{
    const uint64_t turn = l->entry[at].head.cursor;
    unsigned responses = 0, hand = 0;
    for (unsigned i = at + 1; i < l->n; i++) {
        const struct entry *e = &l->entry[i];
        if (e->head.turn != turn) {
            continue;
        }
        if (responses) {
            sim_fault(l->w, "s%d turn %llu: %.*s at %u after its end", l->session,
                      (unsigned long long)turn, (int)e->head.type.n, e->head.type.p, i + 1);
        }
        const eg_conn_id writer = writer_of(e);
        while (writer && hand < l->w->hands &&
               !(l->w->handed[hand].conn == writer && l->w->handed[hand].turn == turn &&
                 l->w->handed[hand].session == l->session)) {
            hand++;
        }
        if (writer && hand == l->w->hands) {
            sim_fault(l->w, "s%d turn %llu: connection %llu wrote event %u out of its time",
                      l->session, (unsigned long long)turn, (unsigned long long)writer, i + 1);
        }
        responses += eg_slice_is(e->head.type, "response");
    }
    if (responses != 1) {
        sim_fault(l->w, "s%d turn %llu: %u responses", l->session, (unsigned long long)turn,
                  responses);
    }
}

/* A worker may write into a turn only when all turns before it have ended. */
static void check_order(const struct log *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        const struct entry *e = &l->entry[i];
        if (!e->head.turn || eg_slice_is(e->head.type, "message") || !writer_of(e)) {
            continue;
        }
        for (unsigned j = 0; j < e->head.turn - 1; j++) {
            bool ended = !eg_slice_is(l->entry[j].head.type, "message");
            for (unsigned k = j + 1; k < i && !ended; k++) {
                ended = l->entry[k].head.turn == j + 1 &&
                        eg_slice_is(l->entry[k].head.type, "response");
            }
            if (!ended) {
                sim_fault(l->w, "s%d: turn %llu is served before %u ended", l->session,
                          (unsigned long long)e->head.turn, j + 1);
            }
        }
    }
}

static void check_promises(const struct log *l)
{
    char id[32];
    for (unsigned i = 0; i < l->w->promises; i++) {
        const struct promise *p = &l->w->promise[i];
        unsigned stored = 0;
        if (p->session != l->session) {
            continue;
        }
        snprintf(id, sizeof id, "\"m%u-%u\"", p->client, p->id);
        for (unsigned j = 0; j < l->n; j++) {
            if (eg_slice_is(l->entry[j].head.type, "message") &&
                eg_slice_is(eg_event_field(eg_bytes_slice(l->entry[j].body), "data.message_id"),
                            id)) {
                stored++;
                if (j + 1 != p->cursor) {
                    sim_fault(l->w, "%s was accepted at %llu and is at %u", id,
                              (unsigned long long)p->cursor, j + 1);
                }
            }
        }
        if (stored != 1) {
            sim_fault(l->w, "%s was accepted and is stored %u times", id, stored);
        }
    }
}

/* What was confirmed as aborted was asked to end, once. */
static void check_aborts(const struct log *l)
{
    for (unsigned i = 0; i < l->w->stops; i++) {
        unsigned asked = 0;
        for (unsigned j = 0; j < l->n && l->w->stopped[i].session == l->session; j++) {
            asked += l->entry[j].head.turn == l->w->stopped[i].turn &&
                     eg_slice_is(l->entry[j].head.type, "message_abort");
        }
        if (asked != 1 && l->w->stopped[i].session == l->session) {
            sim_fault(l->w, "s%d turn %llu was aborted, and the log says so %u times", l->session,
                      (unsigned long long)l->w->stopped[i].turn, asked);
        }
    }
}

static void check_clients(const struct log *l)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        const struct sim_client *c = &l->w->client[i];
        if (c->session != l->session) {
            continue;
        }
        if (c->have != l->n) {
            sim_fault(l->w, "client %d has %llu of %u events of s%d", i,
                      (unsigned long long)c->have, l->n, l->session);
        }
        for (unsigned j = 0; j < c->logged && j < l->n; j++) {
            if (!eg_slice_eq(eg_bytes_slice(c->log[j].bytes), eg_bytes_slice(l->entry[j].body))) {
                sim_fault(l->w, "client %d saw another event %u than the log has", i, j + 1);
            }
        }
    }
}

void sim_check(struct sim *w)
{
    struct log l = {.w = w, .entry = calloc(EVENTS_MAX, sizeof *l.entry)};
    char name[32];
    for (int s = 0; s < SIM_SESSIONS && l.entry; s++) {
        struct eg_session_row row;
        l.session = s;
        l.n = 0;
        sim_session_name(s, name);
        if (w->storage->ops->session_by_id(w->storage, eg_slice_cstr(name), &row) != EG_OK) {
            continue;
        }
        if (w->storage->ops->events(w->storage, row.sid, 1, EVENTS_MAX, collect, &l) != EG_OK) {
            sim_fault(w, "s%d cannot be read", s);
        }
        check_chain(&l, &row);
        for (unsigned i = 0; i < l.n && !w->fault[0]; i++) {
            /* A turn whose message is damaged waits, and those behind it: they have no end yet. */
            if (eg_slice_is(l.entry[i].head.type, "message") && row.sid != w->damaged_sid) {
                check_turn(&l, i);
            }
        }
        if (!w->fault[0]) {
            check_order(&l);
            check_promises(&l);
            check_aborts(&l);
            check_clients(&l);
        }
        for (unsigned i = 0; i < l.n; i++) {
            eg_bytes_unref(l.entry[i].body);
        }
    }
    free(l.entry);
}
