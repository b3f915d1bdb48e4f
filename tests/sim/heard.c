/*
 * heard.c - what clients and workers are told, and what each makes of it: kept for check.c, and
 * held at once against what must be true by then.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include "memstore.h"
#include "wire/event.h"
#include "wire/json.h"

static int session_number(struct eg_slice id)
{
    return id.n == 2 && id.p[0] == 's' ? id.p[1] - '0' : -1;
}

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
    c->log[c->logged++] = (struct seen){cursor, eg_bytes_copy(body.p, body.n)};
    c->have = cursor;
}

static void replay_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    void **both = arg;
    struct sim *w = both[0];
    struct sim_client *c = both[1];
    if (cursor <= *(uint64_t *)both[2]) {
        client_saw(w, c, cursor, body);
    }
}

static void client_read_log(struct sim *w, struct sim_client *c, int64_t sid, uint64_t upto)
{
    void *both[] = {w, c, &upto};
    if (upto > c->have &&
        w->storage->ops->events(w->storage, sid, c->have + 1, (int)(upto - c->have), replay_event,
                                both) != EG_OK) {
        sim_fault(w, "the log cannot be read");
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

static struct eg_slice field(struct eg_slice frame, const char *key)
{
    struct eg_json_doc doc;
    if (eg_json_scan(frame, EG_JSON_DEPTH_MAX, &doc) == EG_OK && eg_json_get(&doc, key)) {
        const struct eg_slice v = eg_json_get(&doc, key)->value;
        return v.n > 1 && v.p[0] == '"' ? (struct eg_slice){v.p + 1, v.n - 2} : v;
    }
    return (struct eg_slice){0};
}

/* message_id is "m<client>-<id>". */
static void promise(struct sim *w, struct sim_client *c, uint64_t cursor,
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
    if (w->promises == w->promise_cap) {
        w->promise_cap = w->promise_cap ? w->promise_cap * 2 : 64;
        w->promise = realloc(w->promise, w->promise_cap * sizeof *w->promise);
    }
    w->promise[w->promises++] = (struct promise){c->session, cursor, (unsigned)(c - w->client), id};
}

static void confirmed(struct sim *w, const struct sim_client *c, uint64_t turn)
{
    if (w->stops == w->stop_cap) {
        w->stop_cap = w->stop_cap ? w->stop_cap * 2 : 64;
        w->stopped = realloc(w->stopped, w->stop_cap * sizeof *w->stopped);
    }
    w->stopped[w->stops++] = (struct stopped){c->session, turn};
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
    const struct eg_slice type = field(text, "type");
    const eg_conn_id who = strtoull(field(text, "connection_id").p, NULL, 16);
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

/* After each batch: nobody knows of one that is gone, or misses one that is there. */
void sim_check_presence(struct sim *w)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *c = &w->client[i];
        for (int k = 0; k < SIM_CLIENTS && c->attached; k++) {
            const struct sim_client *o = &w->client[k];
            if (o != c && c->present && o->attached && o->present && o->session == c->session &&
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

static void client_frame(struct sim *w, struct sim_client *c, const struct eg_out *o)
{
    const struct eg_slice text = eg_bytes_slice(o->bytes);
    const struct eg_slice type = field(text, "type");
    if (eg_slice_is(type, "response")) {
        /* In place of its own event: read it as the client library would from its own copy. */
        if (o->cursor) {
            client_read_log(w, c, o->sid, o->cursor);
        }
        promise(w, c, (uint64_t)field_int(text, "cursor"), field(text, "message_id"));
    } else if (eg_slice_is(type, "aborted")) {
        confirmed(w, c, (uint64_t)field_int(text, "turn"));
    } else if (eg_slice_is(type, "presence_join")) {
        learn(w, c, text, true);
    } else if (eg_slice_is(type, "error")) {
        const struct eg_slice code = field(text, "code");
        if (!eg_slice_is(code, "storage_unavailable") && !eg_slice_is(code, "queue_full")) {
            sim_fault(w, "client %d was told %.*s", (int)(c - w->client), (int)code.n, code.p);
        }
    }
}

static struct held_turn *held(struct sim_worker *k, int session, uint64_t turn)
{
    for (int i = 0; i < k->held_count; i++) {
        if (k->held[i].session == session && k->held[i].turn == turn) {
            return &k->held[i];
        }
    }
    return NULL;
}

void sim_let_go(struct sim_worker *k, struct held_turn *h)
{
    *h = k->held[--k->held_count];
}

/* Notes who was given a turn. The worker may be gone before it hears of it, and what it wrote into
 * an attempt of before is then taken for this one, rightly: the turn is its own again. */
static void note_hand(struct sim *w, eg_conn_id conn, struct eg_slice text)
{
    struct eg_session_row row;
    struct eg_bytes *body = NULL;
    if (!eg_slice_is(field(text, "type"), "turn")) {
        return;
    }
    if (w->hands == w->hand_cap) {
        w->hand_cap = w->hand_cap ? w->hand_cap * 2 : 64;
        w->handed = realloc(w->handed, w->hand_cap * sizeof *w->handed);
    }
    w->handed[w->hands++] = (struct handed){session_number(field(text, "session_id")),
                                            (uint64_t)field_int(text, "turn"), conn};
    /* It comes with its own message, as it is in the log. */
    const struct handed *h = &w->handed[w->hands - 1];
    if (w->storage->ops->session_by_id(w->storage, field(text, "session_id"), &row) != EG_OK ||
        w->storage->ops->event_get(w->storage, row.sid, h->turn, &body) != EG_OK ||
        !eg_slice_eq(field(text, "message"), eg_bytes_slice(body))) {
        sim_fault(w, "s%d: turn %llu was handed out with another message", h->session,
                  (unsigned long long)h->turn);
    }
    eg_bytes_unref(body);
}

static void worker_frame(struct sim *w, struct sim_worker *k, struct eg_slice text)
{
    const struct eg_slice type = field(text, "type");
    const int session = session_number(field(text, "session_id"));
    const uint64_t turn = (uint64_t)field_int(text, "turn");
    if (eg_slice_is(type, "turn")) {
        struct held_turn *h = held(k, session, turn);
        if (!h && k->held_count == k->concurrency) {
            /* One of ours ran out of its lease and we have not noticed: the oldest is it. */
            sim_let_go(k, &k->held[0]);
        }
        h = h ? h : &k->held[k->held_count++];
        *h = (struct held_turn){session, turn, (int)field_int(text, "attempt"), 0};
        sim_tell(w, "  worker %d gets s%d turn %llu attempt %d", (int)(k - w->worker), session,
                 (unsigned long long)turn, h->attempt);
    } else if (eg_slice_is(type, "error") && !eg_slice_is(field(text, "code"), "turn_closed") &&
               !eg_slice_is(field(text, "code"), "storage_unavailable")) {
        sim_fault(w, "worker %d was told %.*s", (int)(k - w->worker), (int)text.n, text.p);
    }
}

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

static void welcome(struct sim *w, struct sim_client *c, const struct eg_welcome *wel)
{
    c->attached = true;
    c->sid = wel->sid;
    if (wel->resync) {
        sim_fault(w, "client %d: resync %d at %llu of %llu", (int)(c - w->client), (int)wel->resync,
                  (unsigned long long)c->have, (unsigned long long)wel->cursor);
        return;
    }
    if (wel->sequence != c->have) {
        sim_fault(w, "client %d: sequence %llu, asked from %llu", (int)(c - w->client),
                  (unsigned long long)wel->sequence, (unsigned long long)c->have);
    }
    client_read_log(w, c, wel->sid, wel->cursor);
}

void sim_deliver(struct sim *w, const struct eg_out *o)
{
    struct sim_client *c = client_of(w, o->conn);
    struct sim_worker *k = worker_of(w, o->conn);
    switch (o->kind) {
    case EG_OUT_WELCOME:
        if (c) {
            welcome(w, c, o->welcome);
        } else if (k) {
            k->attached = true;
        }
        break;
    case EG_OUT_REFUSE:
        if (o->code != EG_CODE_storage_unavailable) {
            sim_fault(w, "refused: %s", eg_code_info(o->code)->name);
        }
        if (c) {
            c->conn = 0;
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
        for (int i = 0; i < SIM_CLIENTS; i++) {
            struct sim_client *f = &w->client[i];
            if (f->attached && f->conn != o->except && f->sid == o->sid) {
                client_saw(w, f, o->cursor, eg_bytes_slice(o->bytes));
            }
        }
        break;
    case EG_OUT_NOTICE:
        for (int i = 0; i < SIM_CLIENTS && (o->caps & EG_CAP_PRESENCE); i++) {
            struct sim_client *f = &w->client[i];
            if (f->attached && f->conn != o->except && f->sid == o->sid) {
                learn(w, f, eg_bytes_slice(o->bytes), false);
            }
        }
        break;
    default:
        break;
    }
}
