/*
 * batch.c - commands on their way to the machine, batches, commits that fail, crashes.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memstore.h"

struct eg_cmd *sim_command(struct sim *w, enum eg_cmd_kind kind, eg_conn_id conn, const char *json)
{
    struct eg_cmd *cmd = eg_cmd_new(kind, conn);
    struct eg_frame_error err;
    if (json) {
        if (eg_frame_parse(eg_slice_cstr(json), &cmd->frame, &err) != EG_OK) {
            sim_fault(w, "the simulator sent a bad frame: %s: %s", json, err.message);
            eg_cmd_free(cmd);
            return NULL;
        }
        eg_frame_tail(&cmd->frame, &cmd->tail);
    }
    return cmd;
}

bool sim_post(struct sim *w, struct eg_cmd *cmd)
{
    if (cmd && w->queued < SIM_QUEUE) {
        w->queue[w->queued++] = cmd;
        return true;
    }
    eg_cmd_free(cmd);
    return false;
}

bool sim_post_frame(struct sim *w, eg_conn_id conn, const char *json)
{
    return sim_post(w, sim_command(w, EG_CMD_FRAME, conn, json));
}

static void empty_queue(struct sim *w)
{
    for (int i = 0; i < w->queued; i++) {
        eg_cmd_free(w->queue[i]);
    }
    w->queued = 0;
    w->saids = 0;
}

/* --- start and end of the gateway --- */

void sim_start(struct sim *w)
{
    sim_lives_watch(w);
    if (eg_machine_new(w->storage, w->settings, 1, w->now, &w->machine) != EG_OK) {
        sim_fault(w, "the machine does not start");
        return;
    }
    /* Few, so that sessions of some events take several batches; either is the faster. */
    w->machine->trim_rows = 1 + (int)(w->seed % 5);
    w->machine->copy_rows = 1 + (int)(w->seed / 5 % 5);
}

struct looked_for {
    const char *id;
    bool found;
};

static void look_at_agent(void *arg, const char *text, int64_t number)
{
    struct looked_for *l = arg;
    (void)number;
    l->found = l->found || strcmp(text, l->id) == 0;
}

bool sim_agent_stored(struct sim *w, const char *id)
{
    struct looked_for l = {.id = id};
    if (w->storage->ops->agents(w->storage, look_at_agent, &l) != EG_OK) {
        sim_fault(w, "the agents cannot be read");
    }
    return l.found;
}

/* A worker may have made "a" known without being told so. */
static void check_agents(struct sim *w)
{
    const bool stored = sim_agent_stored(w, "a");
    if ((w->known && !stored) || w->other_known != sim_agent_stored(w, "b") ||
        w->named != sim_agent_stored(w, "c")) {
        sim_fault(w, "the agents that are known are not those that are stored");
    }
    w->known = stored;
}

void sim_crash(struct sim *w)
{
    sim_tell(w, "CRASH");
    w->crashes++;
    if (w->machine->writing) {
        w->storage->ops->rollback(w->storage);
    }
    sim_lives_drop(w);
    eg_machine_free(w->machine);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        sim_client_gone(&w->client[i]);
    }
    for (int i = 0; i < SIM_WORKERS; i++) {
        sim_worker_gone(&w->worker[i]);
    }
    empty_queue(w);
    sim_calls_forget(w);
    w->draining = false;
    w->kicks = 0;
    w->storage = memstore_restart(w->storage);
    sim_tokens_restarted(w);
    sim_limits_restarted(w);
    sim_lives_restarted(w);
    sim_start(w);
    sim_lives_check(w);
    sim_acks_check(w);
    sim_batch(w); /* before anybody is let in */
}

/* --- a batch --- */

static void release(struct sim *w)
{
    struct eg_machine *m = w->machine;
    struct eg_release *r = m->release[0];
    m->release[0] = NULL;
    for (int i = 0; r && i < r->n; i++) {
        sim_deliver(w, &r->out[i]);
    }
    eg_release_free(r);
    sim_tokens_told(w);
}

enum outcome { COMMITTED, UNDONE, UNKNOWN };

/* One go at the queue. */
static enum outcome attempt(struct sim *w)
{
    struct eg_machine *m = w->machine;
    for (int i = 0; i < w->queued; i++) {
        eg_machine_step(m, w->queue[i], w->now);
    }
    eg_machine_tick(m, w->now);
    const bool writes = eg_machine_flush(m);
    if (m->failed) {
        eg_machine_rolled_back(m);
        return UNDONE;
    }
    if (writes) {
        const enum eg_err e = m->storage->ops->commit(m->storage);
        m->writing = false;
        if (e == EG_EUNKNOWN) {
            return UNKNOWN;
        }
        if (e != EG_OK) {
            w->failures++;
            sim_tell(w, "commit failed: %s", eg_err_text(e));
            eg_machine_rolled_back(m);
            return UNDONE;
        }
    }
    eg_machine_committed(m);
    return COMMITTED;
}

/* What the next commit does, or whether a write before it fails. */
static enum memstore_fate order_failures(struct sim *w, bool *any)
{
    static const enum memstore_fate fate[] = {MEMSTORE_FULL, MEMSTORE_IO, MEMSTORE_UNKNOWN_GONE,
                                              MEMSTORE_UNKNOWN_KEPT};
    if (!w->calm && sim_random(w, 40) == 0) {
        const enum memstore_fate f = fate[sim_random(w, 4)];
        memstore_fail_commits(w->storage, f, 0, 1);
        *any = true;
        return f;
    }
    if (!w->calm && sim_random(w, 60) == 0) {
        memstore_fail_write(w->storage, 1 + (int)sim_random(w, 6), EG_EFULL);
        *any = true;
    }
    return MEMSTORE_OK;
}

void sim_batch(struct sim *w)
{
    enum outcome how;
    bool fails = false, undone = false;
    w->batches++;
    if (w->machine->readonly && (w->calm || sim_random(w, 3) == 0)) {
        w->machine->now = w->now;
        eg_machine_resume(w->machine);
        w->naming = w->naming || sim_names_agent(w);
    }
    w->refuses = w->machine->readonly;
    w->known_before = w->known;
    sim_lives_begin(w);
    sim_limits_begin(w);
    const enum memstore_fate fate = order_failures(w, &fails);
    while ((how = attempt(w)) == UNDONE && !w->fault[0]) {
        sim_lives_drop(w);
        w->refuses = undone = true;
    }
    if (undone && !fails && !w->damaged_sid) {
        sim_fault(w, "a batch is taken back, and nothing failed");
    }
    memstore_fail_commits(w->storage, MEMSTORE_OK, 0, 0);
    memstore_fail_write(w->storage, 0, EG_OK);
    if (how == UNKNOWN && fate == MEMSTORE_UNKNOWN_GONE) {
        sim_lives_drop(w);
    } else {
        sim_lives_keep(w);
        sim_answered(w); /* of a commit that is there all the same nobody is told */
        sim_acks_keep(w);
    }
    if (how == UNKNOWN) {
        const struct eg_release *r = w->machine->release[0];
        for (int i = 0; r && i < r->n && fate == MEMSTORE_UNKNOWN_KEPT; i++) {
            sim_deliver_nobody(w, &r->out[i]);
        }
        sim_crash(w);
        return;
    }
    sim_lives_check(w);
    release(w);
    sim_acks_refused(w);
    sim_tokens_check(w);
    check_agents(w);
    sim_leases_keep(w);
    for (; w->kicks; w->kicks--) {
        const struct kicked *k = &w->kicked[w->kicks - 1];
        if (k->conn && !k->refused) {
            sim_fault(w, "connection %llu is not closed", (unsigned long long)k->conn);
        }
    }
    w->draining = w->machine->draining; /* what was handed out before is told by now */
    sim_check_presence(w);
    empty_queue(w);
}
