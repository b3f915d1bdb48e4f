/*
 * operate.c - what operators do: close, delete, trim and copy sessions, try dead turns again,
 * abort, speak, make agents known and forget them, disconnect somebody, revoke, reload, drain.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"

const char *const sim_act_name[EG_CALL_KICK + 1] = {[EG_CALL_MESSAGE] = "message",
                                                    [EG_CALL_CREATE] = "create",
                                                    [EG_CALL_REVOKE] = "revoke",
                                                    [EG_CALL_ABORT] = "abort",
                                                    [EG_CALL_CLOSE] = "close",
                                                    [EG_CALL_DELETE] = "delete",
                                                    [EG_CALL_FORK] = "fork",
                                                    [EG_CALL_TRIM] = "trim",
                                                    [EG_CALL_REAP] = "reap",
                                                    [EG_CALL_TURN_RETRY] = "retry",
                                                    [EG_CALL_AGENT_PUT] = "make known",
                                                    [EG_CALL_AGENT_DELETE] = "forget",
                                                    [EG_CALL_KICK] = "disconnect"};

struct sim_call *sim_new_call(struct sim *w, enum eg_call_kind kind)
{
    for (int i = 0; i < SIM_CALLS; i++) {
        struct sim_call *k = &w->call[i];
        if (!k->waits) {
            memset(k, 0, sizeof *k);
            k->call.kind = kind;
            k->call.turn = -1;
            k->call.audit_who = EG_LIT("op");
            k->call.audit_action = EG_LIT("simulated");
            return k;
        }
    }
    return NULL; /* too many wait */
}

void sim_ask(struct sim *w, struct sim_call *k)
{
    struct eg_cmd *cmd = sim_command(w, EG_CMD_CALL, 0, NULL);
    cmd->call = &k->call;
    k->waits = sim_post(w, cmd);
}

/* The first turn of l that was given up, from the given event on; 0: none was. */
static uint64_t dead_turn(const struct life *l, uint64_t from)
{
    for (uint64_t i = 0; i < l->kept; i++) {
        const struct eg_slice body = eg_bytes_slice(l->event[(from + i) % l->kept].bytes);
        struct eg_event_head head;
        if (eg_slice_is(eg_event_field(body, "outcome.code"), "\"dead_letter\"") &&
            eg_event_read(body, &head) == EG_OK) {
            return head.turn;
        }
    }
    return 0;
}

/* A session, which may have ended long ago; for what is dead, one that has such a turn if there is
 * one. */
static unsigned some_life(struct sim *w, enum eg_call_kind kind)
{
    const unsigned from = (unsigned)sim_random(w, w->lives_kept);
    for (unsigned i = 0; i < w->lives_kept && kind == EG_CALL_TURN_RETRY; i++) {
        const unsigned life = (from + i) % w->lives_kept;
        if (w->life[life].state == LIFE_OPEN && dead_turn(&w->life[life], 0)) {
            return life;
        }
    }
    return from;
}

static struct sim_call *about(struct sim *w, enum eg_call_kind kind)
{
    struct sim_call *k = w->lives_kept ? sim_new_call(w, kind) : NULL;
    if (k) {
        k->life = some_life(w, kind);
        const struct life *l = &w->life[k->life];
        memcpy(k->name, l->name, sizeof k->name);
        k->floor = l->floor;
        k->call.session_id = eg_slice_cstr(k->name);
        /* Without a number it is about whoever has the name by then. */
        k->call.sid = kind == EG_CALL_FORK || sim_random(w, 2) ? l->sid : 0;
    }
    return k;
}

static uint64_t some_cursor(struct sim *w, const struct life *l)
{
    return sim_random(w, sim_life_last(l) + 3);
}

/* A turn to be tried again: mostly a dead one. */
static uint64_t some_turn(struct sim *w, const struct life *l)
{
    const uint64_t from = some_cursor(w, l);
    const uint64_t dead = dead_turn(l, from);
    return dead && sim_random(w, 8) ? dead : from;
}

static void asks_about_session(struct sim *w, enum eg_call_kind kind)
{
    struct sim_call *k = about(w, kind);
    if (!k) {
        return;
    }
    const struct life *l = &w->life[k->life];
    if (kind == EG_CALL_TRIM || kind == EG_CALL_FORK) {
        k->call.cursor = some_cursor(w, l);
    } else if (kind == EG_CALL_TURN_RETRY) {
        k->call.turn = (int64_t)some_turn(w, l);
    } else if (kind == EG_CALL_ABORT && sim_random(w, 2)) {
        k->call.turn = (int64_t)some_cursor(w, l);
    }
    sim_tell(w, "operator: %s %s at %llu, turn %lld", sim_act_name[kind], k->name,
             (unsigned long long)k->call.cursor, (long long)k->call.turn);
    sim_ask(w, k);
}

/* Says something, or the last again, as if no answer had come. */
static void speaks(struct sim *w)
{
    struct sim_call *k = about(w, EG_CALL_MESSAGE);
    if (k) {
        k->serial = w->serial - (w->serial > 0 && sim_random(w, 3) == 0);
        w->serial = k->serial + 1;
        snprintf(k->text, sizeof k->text, "\"o%u\"", k->serial);
        snprintf(k->id, sizeof k->id, "m%d-%u", SIM_OPERATOR, k->serial);
        k->call.content = eg_slice_cstr(k->text);
        k->call.message_id = eg_slice_cstr(k->id);
        k->call.source = EG_LIT("operator:op");
        sim_tell(w, "operator says %s in %s", k->id, k->name);
        sim_ask(w, k);
    }
}

static void asks_about_agent(struct sim *w)
{
    struct sim_call *k =
        sim_new_call(w, sim_random(w, 2) ? EG_CALL_AGENT_PUT : EG_CALL_AGENT_DELETE);
    if (k) {
        k->name[0] = "abbc"[sim_random(w, 4)];
        k->call.agent = eg_slice_cstr(k->name);
        sim_tell(w, "operator: %s agent %s", sim_act_name[k->call.kind], k->name);
        sim_ask(w, k);
    }
}

static void kicks(struct sim *w)
{
    const uint64_t who = sim_random(w, SIM_CLIENTS + SIM_WORKERS);
    const bool client = who < SIM_CLIENTS;
    const eg_conn_id conn = client ? w->client[who].conn : w->worker[who - SIM_CLIENTS].conn;
    const bool there = client ? w->client[who].attached : w->worker[who - SIM_CLIENTS].attached;
    struct sim_call *k = there ? sim_new_call(w, EG_CALL_KICK) : NULL;
    if (k) {
        k->call.conn = conn;
        sim_tell(w, "operator disconnects %llu", (unsigned long long)conn);
        sim_ask(w, k);
    }
}

void sim_operator_acts(struct sim *w)
{
    const uint64_t what = sim_random(w, 40);
    static const enum eg_call_kind kind[] = {
        EG_CALL_DELETE,     EG_CALL_DELETE,     EG_CALL_DELETE,     EG_CALL_FORK,
        EG_CALL_FORK,       EG_CALL_FORK,       EG_CALL_FORK,       EG_CALL_TRIM,
        EG_CALL_TRIM,       EG_CALL_TRIM,       EG_CALL_TRIM,       EG_CALL_TRIM,
        EG_CALL_CLOSE,      EG_CALL_CLOSE,      EG_CALL_TURN_RETRY, EG_CALL_TURN_RETRY,
        EG_CALL_TURN_RETRY, EG_CALL_TURN_RETRY, EG_CALL_TURN_RETRY, EG_CALL_ABORT,
        EG_CALL_ABORT};
    if (what < sizeof kind / sizeof *kind) {
        asks_about_session(w, kind[what]);
    } else if (what < 24) {
        speaks(w);
    } else if (what < 27) {
        asks_about_agent(w);
    } else if (what < 29) {
        kicks(w);
    } else if (what == 29) {
        sim_maintain(w);
    } else if (what == 30 && sim_random(w, 4) == 0) {
        sim_tell(w, "the gateway drains");
        w->machine->draining = true;
    } else if (what >= 36) {
        sim_creates(w);
    } else if (what >= 34) {
        sim_reloads(w);
    } else if (what >= 32) {
        sim_revokes(w);
    }
}

void sim_maintain(struct sim *w)
{
    for (unsigned i = 0; i < w->lives_kept; i++) {
        const struct life *l = &w->life[i];
        const bool removed = l->state == LIFE_REMOVED;
        struct sim_call *k =
            sim_life_left(w, l) ? sim_new_call(w, removed ? EG_CALL_REAP : EG_CALL_TRIM) : NULL;
        if (k) {
            k->life = i;
            k->call.cursor = removed ? (uint64_t)l->sid : l->floor;
            memcpy(k->name, l->name, sizeof k->name);
            k->call.session_id = eg_slice_cstr(removed ? "" : k->name);
            k->call.sid = l->sid;
            sim_ask(w, k);
        }
    }
}

void sim_calls_forget(struct sim *w)
{
    for (int i = 0; i < SIM_CALLS; i++) {
        w->call[i].waits = false;
    }
}
