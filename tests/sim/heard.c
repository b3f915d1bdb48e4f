/*
 * heard.c - what clients and workers are told, and what each makes of it: kept for check.c, and
 * held at once against what must be true by then.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memstore.h"
#include "wire/event.h"
#include "wire/json.h"

static void client_saw(struct sim *w, struct sim_client *c, uint64_t cursor, struct eg_slice body)
{
    if (cursor != c->have + 1) {
        sim_fault(w, "client %d: event %llu after %llu", (int)(c - w->client),
                  (unsigned long long)cursor, (unsigned long long)c->have);
        return;
    }
    if (c->logged == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 64;
        c->log = realloc(c->log, c->cap * sizeof *c->log);
    }
    c->log[c->logged++] = (struct seen){.cursor = cursor, .bytes = eg_bytes_copy(body.p, body.n)};
    c->have = cursor;
    w->events++;
}

struct replay {
    struct sim *w;
    struct sim_client *c;
    uint64_t upto;
};

static void replay_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    const struct replay *r = arg;
    const bool gap = r->c->have + 1 < sim_life(r->w, r->c->sid)->floor;
    if (cursor <= r->upto && !gap) {
        client_saw(r->w, r->c, cursor, body);
    }
}

/* The gateway closes the connection, or is about to be told that it is gone. */
static void hangs_up(struct sim_client *c)
{
    c->attached = false;
    c->closing = true;
}

/* Reads the log up to a cursor. What was trimmed meanwhile ends the connection: the client comes
 * back and is told so. */
static void client_read_log(struct sim *w, struct sim_client *c, uint64_t upto)
{
    struct replay r = {w, c, upto};
    if (upto > c->have &&
        w->storage->ops->events(w->storage, c->sid, c->have + 1, (int)(upto - c->have),
                                replay_event, &r) != EG_OK) {
        sim_fault(w, "the log cannot be read");
    }
    if (c->have < upto && c->have + 1 < sim_life(w, c->sid)->floor) {
        hangs_up(c);
    } else if (c->have < upto) {
        sim_fault(w, "client %d misses event %llu", (int)(c - w->client),
                  (unsigned long long)c->have + 1);
    }
}

static int64_t field_int(struct eg_slice frame, const char *key)
{
    struct eg_json_doc doc;
    int64_t v = -1;
    if (eg_json_scan(frame, EG_JSON_DEPTH_MAX, &doc) == EG_OK && eg_json_get(&doc, key)) {
        eg_json_integer(eg_json_get(&doc, key)->value, &v);
    }
    return v;
}

struct eg_slice sim_field(struct eg_slice frame, const char *key)
{
    struct eg_json_doc doc;
    if (eg_json_scan(frame, EG_JSON_DEPTH_MAX, &doc) == EG_OK && eg_json_get(&doc, key)) {
        const struct eg_slice v = eg_json_get(&doc, key)->value;
        return v.n > 1 && v.p[0] == '"' ? (struct eg_slice){v.p + 1, v.n - 2} : v;
    }
    return (struct eg_slice){0};
}

void sim_promise(struct sim *w, struct promise p)
{
    if (w->promises == w->promise_cap) {
        w->promise_cap = w->promise_cap ? w->promise_cap * 2 : 64;
        w->promise = realloc(w->promise, w->promise_cap * sizeof *w->promise);
    }
    w->promise[w->promises++] = p;
}

/* message_id is "m<client>-<id>". */
static void accepted(struct sim *w, struct sim_client *c, uint64_t cursor,
                     struct eg_slice message_id)
{
    const char *dash = message_id.n ? memchr(message_id.p, '-', message_id.n) : NULL;
    const unsigned id = dash ? (unsigned)strtoul(dash + 1, NULL, 10) : 0;
    unsigned i = 0;
    while (i < c->pendings && c->pending[i] != id) {
        i++;
    }
    if (i == c->pendings) {
        return; /* said twice, and accepted before */
    }
    c->pending[i] = c->pending[--c->pendings];
    sim_promise(w, (struct promise){(unsigned)(sim_life(w, c->sid) - w->life), cursor,
                                    (unsigned)(c - w->client), id});
}

void sim_turn_note(struct turn_list *l, unsigned life, uint64_t turn)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->v = realloc(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n++] = (struct life_turn){life, turn};
}

bool sim_turn_noted(const struct turn_list *l, unsigned life, uint64_t turn)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (l->v[i].life == life && l->v[i].turn == turn) {
            return true;
        }
    }
    return false;
}

/* --- presence: who knows of whom --- */

static eg_conn_id *knows(struct sim_client *c, eg_conn_id who)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        if (c->knows[i] == who) {
            return &c->knows[i];
        }
    }
    return NULL;
}

static void learn(struct sim *w, struct sim_client *c, struct eg_slice text, bool snapshot)
{
    const struct eg_slice type = sim_field(text, "type");
    const eg_conn_id who = strtoull(sim_field(text, "connection_id").p, NULL, 16);
    eg_conn_id *known = knows(c, who);
    if (eg_slice_is(type, "presence_leave")) {
        if (known) {
            *known = 0;
        }
    } else if (eg_slice_is(type, "presence_join") || eg_slice_is(type, "presence_update")) {
        if (eg_slice_is(type, "presence_join") && known && !snapshot) {
            sim_fault(w, "client %d was told twice that %llu joins", (int)(c - w->client),
                      (unsigned long long)who);
        }
        known = known ? known : knows(c, 0);
        if (known) {
            *known = who;
        } else {
            sim_fault(w, "client %d knows more than there are", (int)(c - w->client));
        }
    }
}

/* After each batch: nobody follows what has ended, knows of one that is gone, or misses one that is
 * there. */
void sim_check_presence(struct sim *w)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *c = &w->client[i];
        if (c->attached && sim_life(w, c->sid)->ended) {
            sim_fault(w, "client %d is still in %s, which has ended", i, c->name);
        }
        for (int k = 0; k < SIM_CLIENTS && c->attached; k++) {
            const struct sim_client *o = &w->client[k];
            if (o != c && c->present && o->attached && o->present && o->sid == c->sid &&
                !knows(c, o->conn)) {
                sim_fault(w, "client %d was not told of client %d", i, k);
            }
            bool there = c->knows[k] == 0;
            for (int j = 0; j < SIM_CLIENTS && !there; j++) {
                there = w->client[j].present && w->client[j].conn == c->knows[k];
            }
            if (!there) {
                sim_fault(w, "client %d was not told that %llu left", i,
                          (unsigned long long)c->knows[k]);
            }
        }
    }
}

/* Something was refused, and for a reason. */
static void check_error(struct sim *w, const struct sim_client *c, const struct life *l,
                        struct eg_slice code)
{
    if (!eg_slice_is(code, "storage_unavailable") &&
        !(eg_slice_is(code, "queue_full") && sim_queue_full(w, l)) &&
        !(eg_slice_is(code, "rate_limited") && sim_rate_used(w, c->sub)) &&
        !(eg_slice_is(code, "invalid_request") && c->past) &&
        !(eg_slice_is(code, "session_closed") && l->ended)) {
        sim_fault(w, "client %d was told %.*s", (int)(c - w->client), (int)code.n, code.p);
    }
}

static void client_frame(struct sim *w, struct sim_client *c, const struct eg_out *o)
{
    const struct eg_slice text = eg_bytes_slice(o->bytes);
    const struct eg_slice type = sim_field(text, "type");
    const struct life *l = sim_life(w, c->sid);
    if (eg_slice_is(type, "response")) {
        /* In place of its own event, of which it has a copy. */
        const struct seen *own = o->cursor ? sim_life_event(l, o->cursor) : NULL;
        if (own) {
            client_saw(w, c, o->cursor, eg_bytes_slice(own->bytes));
        }
        accepted(w, c, (uint64_t)field_int(text, "cursor"), sim_field(text, "message_id"));
    } else if (eg_slice_is(type, "aborted")) {
        sim_turn_note(&w->stopped, (unsigned)(l - w->life), (uint64_t)field_int(text, "turn"));
    } else if (eg_slice_is(type, "presence_join")) {
        learn(w, c, text, true);
    } else if (eg_slice_is(type, "error")) {
        check_error(w, c, l, sim_field(text, "code"));
        if (!sim_field(text, "ref").n) {
            sim_acks_not_stored(w, c);
        }
    }
}

/* --- workers --- */

static struct held_turn *held(struct sim_worker *k, unsigned life, uint64_t turn)
{
    for (int i = 0; i < k->held_count; i++) {
        if (k->held[i].life == life && k->held[i].turn == turn) {
            return &k->held[i];
        }
    }
    return NULL;
}

void sim_let_go(struct sim_worker *k, struct held_turn *h)
{
    *h = k->held[--k->held_count];
}

/* Notes who was given a turn, which has to be one of a session that goes on. The worker may be gone
 * before it hears of it, and what it wrote into an attempt of before is then taken for this one,
 * rightly: the turn is its own again. */
static void note_hand(struct sim *w, eg_conn_id conn, struct eg_slice text)
{
    if (!eg_slice_is(sim_field(text, "type"), "turn")) {
        return;
    }
    const uint64_t turn = (uint64_t)field_int(text, "turn");
    const struct life *l = sim_life_named(w, sim_field(text, "session_id"));
    const struct seen *message = l ? sim_life_event(l, turn) : NULL;
    if (!message || !eg_slice_eq(sim_field(text, "message"), eg_bytes_slice(message->bytes))) {
        sim_fault(w, "turn %llu was handed out with another message than was written",
                  (unsigned long long)turn);
        return;
    }
    if ((l->ended && l->ended < w->batches) || w->draining) {
        sim_fault(w, "%s: turn %llu was handed out after the end", l->name,
                  (unsigned long long)turn);
    }
    if (w->hands == w->hand_cap) {
        w->hand_cap = w->hand_cap ? w->hand_cap * 2 : 64;
        w->handed = realloc(w->handed, w->hand_cap * sizeof *w->handed);
    }
    struct handed *h = &w->handed[w->hands++];
    *h = (struct handed){.life = (unsigned)(l - w->life), .turn = turn, .conn = conn};
    sim_limits_hand(w, message, h, (int)field_int(text, "attempt"));
}

static void worker_frame(struct sim *w, struct sim_worker *k, struct eg_slice text)
{
    const struct eg_slice type = sim_field(text, "type");
    const uint64_t turn = (uint64_t)field_int(text, "turn");
    const struct life *l = sim_life_named(w, sim_field(text, "session_id"));
    if (eg_slice_is(type, "turn") && l) {
        const unsigned life = (unsigned)(l - w->life);
        struct held_turn *h = held(k, life, turn);
        if (!h && k->held_count == k->concurrency) {
            /* One of ours ran out of its lease and we have not noticed: the oldest is it. */
            sim_let_go(k, &k->held[0]);
        }
        h = h ? h : &k->held[k->held_count++];
        *h = (struct held_turn){
            .life = life, .turn = turn, .attempt = (int)field_int(text, "attempt")};
        const struct eg_slice epoch = sim_field(text, "epoch");
        snprintf(h->epoch, sizeof h->epoch, "%.*s", (int)epoch.n, epoch.p);
        sim_tell(w, "  worker %d gets %s turn %llu attempt %d", (int)(k - w->worker), l->name,
                 (unsigned long long)turn, h->attempt);
    } else if (eg_slice_is(type, "error") && !eg_slice_is(sim_field(text, "code"), "turn_closed") &&
               !eg_slice_is(sim_field(text, "code"), "storage_unavailable")) {
        sim_fault(w, "worker %d was told %.*s", (int)(k - w->worker), (int)text.n, text.p);
    }
}

/* --- who is told --- */

static struct sim_client *client_of(struct sim *w, eg_conn_id conn)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        if (w->client[i].conn == conn && conn) {
            return &w->client[i];
        }
    }
    return NULL;
}

static struct sim_worker *worker_of(struct sim *w, eg_conn_id conn)
{
    for (int i = 0; i < SIM_WORKERS; i++) {
        if (w->worker[i].conn == conn && conn) {
            return &w->worker[i];
        }
    }
    return NULL;
}

/* Whether a client that has this much is to be told of a gap. When the floor moved in this batch it
 * depends on what came first. */
static void check_gap(struct sim *w, const struct sim_client *c, const struct life *l,
                      const struct eg_welcome *wel)
{
    const bool trimmed = wel->resync == EG_RESYNC_TRIMMED;
    const uint64_t floor = l->state == LIFE_REMOVED ? l->floor_most : l->floor;
    if (trimmed ? c->have + 1 >= floor : c->have + 1 < l->floor_before) {
        sim_fault(w, "client %d has %llu of %s, which begins at %llu: resync %d",
                  (int)(c - w->client), (unsigned long long)c->have, l->name,
                  (unsigned long long)l->floor, (int)wel->resync);
    }
}

/* It has missed what is not there any more, and knows it. */
static void goes_on_from(struct sim *w, struct sim_client *c, const struct eg_welcome *wel)
{
    sim_tell(w, "client %d has a gap from %llu to %llu", (int)(c - w->client),
             (unsigned long long)c->have, (unsigned long long)wel->cursor);
    c->have = wel->cursor;
}

static void welcome(struct sim *w, struct sim_client *c, const struct eg_welcome *wel)
{
    const struct life *l = sim_life_named(w, eg_slice_cstr(c->name));
    if (!l || l->sid != wel->sid || l->state == LIFE_COPYING ||
        (l->ended && l->ended < w->batches && !(l->state == LIFE_CLOSED && c->reads)) ||
        (wel->closed && l->state == LIFE_OPEN)) {
        sim_fault(w, "client %d was let into what is not %s", (int)(c - w->client), c->name);
        return;
    }
    if (c->sid && (c->sid == wel->sid) != (strcmp(c->epoch, wel->epoch) == 0)) {
        sim_fault(w, "client %d: epoch %s of %s, which had %s", (int)(c - w->client), wel->epoch,
                  c->name, c->epoch);
        return;
    }
    if (c->sid && c->sid != wel->sid) { /* the one it knew was removed: nothing of it remains */
        if (wel->resync != EG_RESYNC_EPOCH) {
            sim_fault(w, "client %d was not told that %s is another one", (int)(c - w->client),
                      c->name);
        }
        sim_client_forgets(w, c);
        hangs_up(c);
        return;
    }
    if (c->reads && l->state == LIFE_OPEN) { /* another has taken the place of the closed one */
        c->reads = false;
        hangs_up(c);
        return;
    }
    c->sid = wel->sid;
    c->attached = true;
    if (wel->resync == EG_RESYNC_AHEAD || wel->resync == EG_RESYNC_EPOCH) {
        sim_fault(w, "client %d: resync %d at %llu of %llu", (int)(c - w->client), (int)wel->resync,
                  (unsigned long long)c->have, (unsigned long long)wel->cursor);
        return;
    }
    sim_acks_welcome(w, c, l, wel);
    c->sid = wel->sid;
    memcpy(c->epoch, wel->epoch, sizeof c->epoch);
    check_gap(w, c, l, wel);
    if (wel->resync || l->state == LIFE_REMOVED) {
        goes_on_from(w, c, wel);
    } else if (wel->sequence != c->have) {
        sim_fault(w, "client %d: sequence %llu, asked from %llu", (int)(c - w->client),
                  (unsigned long long)wel->sequence, (unsigned long long)c->have);
    } else {
        client_read_log(w, c, wel->cursor);
    }
    if (wel->closed && c->attached) { /* a reader is let go at the end, which this is */
        if (c->have != sim_life_last(l)) {
            sim_fault(w, "client %d has not read %s to its end", (int)(c - w->client), c->name);
        }
        sim_client_moves(w, c);
        hangs_up(c);
    }
}

/* A handshake is refused only for a reason. */
static void refused(struct sim *w, struct sim_client *c, enum eg_code code)
{
    const struct life *l = sim_life_named(w, eg_slice_cstr(c->name));
    const bool there = l && l->state != LIFE_COPYING && l->state != LIFE_REMOVED;
    const bool now = l && (l->born == w->batches || l->ended == w->batches);
    bool right =
        code == EG_CODE_storage_unavailable &&
        (w->refuses || (l && l->state == LIFE_REMOVED && (!l->gone || l->gone == w->batches)));
    if (code == EG_CODE_agent_not_found) {
        right = !w->known_before || !w->known || w->forgotten == w->batches;
    } else if (code == EG_CODE_session_closed) {
        right = (there && l->state == LIFE_CLOSED) || now;
    } else if (code == EG_CODE_rate_limited) {
        right = (!there || now) && c->creates && !c->reads && sim_sessions_full(w, c->sub);
    } else if (code == EG_CODE_session_not_found) {
        right = (!there || now) && (!c->creates || c->reads);
    }
    if (!right) {
        sim_fault(w, "client %d is refused %s: %s", (int)(c - w->client), c->name,
                  eg_code_info(code)->name);
    }
    c->conn = 0;
    c->reads = c->reads || code == EG_CODE_session_closed;
    if (code == EG_CODE_session_not_found) {
        sim_client_moves(w, c);
    }
}

/* The gateway closes a connection: of a session that has ended, once all of it was sent; or an
 * operator wanted it. */
static void closes(struct sim *w, const struct eg_out *o, struct sim_client *c,
                   struct sim_worker *k)
{
    unsigned kick = 0;
    while (kick < w->kicks && (o->sid || w->kicked[kick].conn != o->conn)) {
        kick++;
    }
    if (kick < w->kicks) {
        w->kicked[kick].conn = 0;
    } else if (!o->sid || !sim_life(w, o->sid) || sim_life(w, o->sid)->ended != w->batches) {
        sim_fault(w, "connection %llu is closed for nothing", (unsigned long long)o->conn);
    } else if (c && c->attached && c->have != sim_life_last(sim_life(w, o->sid))) {
        sim_fault(w, "client %d was not told all of %s before its end", (int)(c - w->client),
                  c->name);
    }
    if (c) {
        hangs_up(c);
    } else if (k) {
        k->attached = false;
        k->closing = true;
    }
}

static void event(struct sim *w, const struct eg_out *o)
{
    const struct life *l = sim_life(w, o->sid);
    if (!l || (l->ended && l->ended < w->batches)) {
        sim_fault(w, "event %llu of session %lld after its end", (unsigned long long)o->cursor,
                  (long long)o->sid);
    }
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *f = &w->client[i];
        if (f->attached && f->conn != o->except && f->sid == o->sid) {
            client_saw(w, f, o->cursor, eg_bytes_slice(o->bytes));
        }
    }
}

void sim_deliver_nobody(struct sim *w, const struct eg_out *o)
{
    if (o->kind == EG_OUT_FRAME) {
        note_hand(w, o->conn, eg_bytes_slice(o->bytes));
    }
}

void sim_deliver(struct sim *w, const struct eg_out *o)
{
    struct sim_client *c = client_of(w, o->conn);
    struct sim_worker *k = worker_of(w, o->conn);
    switch (o->kind) {
    case EG_OUT_WELCOME:
        if (c && !c->closing) {
            welcome(w, c, o->welcome);
        } else if (k && !k->closing) {
            k->attached = true;
        }
        w->known = w->known || o->welcome->worker;
        break;
    case EG_OUT_REFUSE:
        if (c) {
            refused(w, c, o->code);
        } else if (k) {
            k->conn = 0;
        }
        break;
    case EG_OUT_FRAME:
        note_hand(w, o->conn, eg_bytes_slice(o->bytes));
        if (c && c->attached) {
            client_frame(w, c, o);
        } else if (k && k->attached) {
            worker_frame(w, k, eg_bytes_slice(o->bytes));
        }
        break;
    case EG_OUT_EVENT:
        event(w, o);
        break;
    case EG_OUT_NOTICE:
        if (eg_slice_is(sim_field(eg_bytes_slice(o->bytes), "error"), "the lease ran out")) {
            sim_lease_over(w, (unsigned)(sim_life(w, o->sid) - w->life),
                           (uint64_t)field_int(eg_bytes_slice(o->bytes), "turn"));
        }
        for (int i = 0; i < SIM_CLIENTS && (o->caps & EG_CAP_PRESENCE); i++) {
            struct sim_client *f = &w->client[i];
            if (f->attached && f->conn != o->except && f->sid == o->sid) {
                learn(w, f, eg_bytes_slice(o->bytes), false);
            }
        }
        break;
    case EG_OUT_CLOSE:
        closes(w, o, c, k);
        break;
    case EG_OUT_SYNC:
        break;
    }
}
