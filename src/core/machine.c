/*
 * machine.c - life of the state machine: start from what is stored, one batch after the other, back
 * to what is stored when a batch could not be committed.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "base/table.h"

#define RENEW_BYTES_MAX 2048 /* of text memory kept in a command that is used again */

struct eg_cmd *eg_cmd_new(enum eg_cmd_kind kind, eg_conn_id conn)
{
    struct eg_cmd *cmd = calloc(1, sizeof *cmd);
    if (cmd) {
        cmd->kind = kind;
        cmd->conn = conn;
    }
    return cmd;
}

void eg_cmd_free(struct eg_cmd *cmd)
{
    if (cmd) {
        eg_frame_free(&cmd->frame);
        eg_buf_free(&cmd->tail);
        eg_identity_free(&cmd->identity);
        free(cmd);
    }
}

void eg_cmds_free(struct eg_cmd *first)
{
    while (first) {
        struct eg_cmd *const cmd = first;
        first = (struct eg_cmd *)cmd->node.next;
        eg_cmd_free(cmd);
    }
}

static void empty(struct eg_buf *b)
{
    if (b->cap > RENEW_BYTES_MAX) {
        eg_buf_free(b);
    } else {
        eg_buf_reset(b);
    }
}

void eg_cmd_renew(struct eg_cmd *cmd)
{
    struct eg_buf scratch = cmd->frame.scratch, tail = cmd->tail;
    empty(&scratch);
    empty(&tail);
    eg_identity_free(&cmd->identity);
    *cmd = (struct eg_cmd){.frame = {.scratch = scratch}, .tail = tail};
}

/* --- start --- */

static void load_agent(void *arg, const char *text, int64_t number)
{
    struct eg_agent *a = eg_agent_add(arg, eg_slice_cstr(text));
    (void)number;
    if (a) {
        a->registered = true;
    }
}

void eg_machine_revoked(struct eg_machine *m, char *what, int64_t until_ms)
{
    if (m->revoked_count == m->revoked_cap) {
        const unsigned cap = m->revoked_cap ? m->revoked_cap * 2 : 16;
        struct eg_revocation *grown = realloc(m->revoked, cap * sizeof *grown);
        if (!grown) {
            free(what);
            m->failed = true;
            return;
        }
        m->revoked = grown;
        m->revoked_cap = cap;
    }
    m->revoked[m->revoked_count++] = (struct eg_revocation){what, until_ms};
}

static void load_revoked(void *arg, const char *text, int64_t number)
{
    struct eg_machine *m = arg;
    char *what = strdup(text);
    if (what) {
        eg_machine_revoked(m, what, number);
    } else {
        m->failed = true;
    }
}

/* What waited, or was at work, when the process ended. */
struct open_turns {
    struct eg_machine *m;
    int64_t *sids; /* whose head was not simply waiting in the queue */
    size_t n, cap;
};

static void load_open_turn(void *arg, int64_t sid, const char *agent, enum eg_turn_state head)
{
    struct open_turns *o = arg;
    struct eg_agent *a = eg_agent_add(o->m, eg_slice_cstr(agent));
    if (a) {
        eg_agent_ready(o->m, a, sid);
    }
    if (head == EG_TURN_QUEUED) {
        return;
    }
    if (o->n == o->cap) {
        const size_t cap = o->cap ? o->cap * 2 : 64;
        int64_t *grown = realloc(o->sids, cap * sizeof *grown);
        if (!grown) {
            o->m->failed = true;
            return;
        }
        o->sids = grown;
        o->cap = cap;
    }
    o->sids[o->n++] = sid;
}

/* Agents that the configuration names are remembered like all others. */
static void name_agents(struct eg_machine *m)
{
    for (char **id = m->settings->agents; id && *id; id++) {
        struct eg_agent *a = eg_agent_add(m, eg_slice_cstr(*id));
        if (a && !a->registered && eg_machine_write(m)) {
            eg_agent_row(m, a, true);
        }
    }
}

enum eg_err eg_machine_new(struct eg_storage *storage, struct eg_settings *settings,
                           unsigned reactors, struct eg_now now, struct eg_machine **out)
{
    const struct eg_storage_ops *ops = storage->ops;
    struct open_turns o = {0};
    struct eg_machine *m = calloc(1, sizeof *m);
    enum eg_err e = EG_ENOMEM;
    if (!m) {
        return e;
    }
    o.m = m;
    m->storage = storage;
    m->settings = eg_settings_ref(settings);
    m->reactors = reactors;
    m->now = now;
    m->trim_rows = EG_TRIM_ROWS;
    m->copy_rows = EG_COPY_ROWS;
    m->release = calloc(reactors, sizeof(struct eg_release *));
    if (m->release && !(e = ops->epoch(storage, &m->epoch)) &&
        !(e = ops->agents(storage, load_agent, m)) &&
        !(e = ops->revoked(storage, load_revoked, m)) &&
        !(e = ops->open_turns(storage, load_open_turn, &o))) {
        for (size_t i = 0; i < o.n; i++) {
            eg_session_find_sid(m, o.sids[i]);
        }
        name_agents(m);
        m->revoked_stored = m->revoked_count;
        e = m->failed ? EG_EIO : EG_OK;
    }
    free(o.sids);
    if (e) {
        eg_machine_free(m);
        return e;
    }
    *out = m;
    return EG_OK;
}

void eg_machine_free(struct eg_machine *m)
{
    struct eg_conn *c, *next_conn;
    struct eg_session *s, *next_session;
    struct eg_agent *a, *next_agent;
    struct eg_sub *u, *next_sub;
    struct eg_chore *chore, *next_chore;
    if (!m) {
        return;
    }
    m->readonly = true; /* nothing more is written */
    m->draining = true;
    HASH_ITER(hh, m->conns, c, next_conn)
    {
        eg_conn_detach(m, c);
    }
    HASH_ITER(hh, m->sessions, s, next_session)
    {
        eg_session_forget(m, s);
    }
    HASH_ITER(hh, m->agents, a, next_agent)
    {
        HASH_DELETE(hh, m->agents, a);
        free(a->ready);
        free(a->id);
        free(a);
    }
    HASH_ITER(hh, m->subs, u, next_sub)
    {
        HASH_DELETE(hh, m->subs, u);
        free(u->source);
        free(u);
    }
    DL_CONCAT(m->chores, m->resting);
    DL_FOREACH_SAFE(m->chores, chore, next_chore)
    {
        free(chore);
    }
    for (unsigned r = 0; m->release && r < m->reactors; r++) {
        eg_release_free(m->release[r]); /* also what would stay */
        m->release[r] = NULL;
    }
    m->revoked_stored = 0;
    if (m->release) {
        eg_out_drop(m);
    }
    free(m->release);
    free(m->done);
    free(m->revoked);
    free(m->timers);
    free(m->ended);
    eg_settings_unref(m->settings);
    free(m);
}

void eg_machine_settings(struct eg_machine *m, struct eg_settings *settings)
{
    eg_settings_ref(settings);
    eg_settings_unref(m->settings);
    m->settings = settings;
    name_agents(m);
}

/* --- a batch --- */

static struct eg_conn *conn_of(struct eg_machine *m, eg_conn_id id)
{
    struct eg_conn *c = NULL;
    HASH_FIND(hh, m->conns, &id, sizeof id, c);
    return c;
}

uint64_t eg_machine_sub_key(const char *sub)
{
    uint64_t key = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; sub && *sub; sub++) {
        key = (key ^ (unsigned char)*sub) * UINT64_C(1099511628211);
    }
    return key;
}

uint64_t eg_machine_group(struct eg_machine *m, eg_conn_id conn, uint64_t otherwise)
{
    const struct eg_conn *const c = conn_of(m, conn);
    return !c ? otherwise : c->worker ? c->id : eg_machine_sub_key(c->sub->sub);
}

static void sync_out(struct eg_machine *m, eg_conn_id conn)
{
    eg_out_close(m, conn, NULL, 0, NULL);
    struct eg_release *r = m->release[EG_CONN_REACTOR(conn)];
    if (r && r->n) {
        r->out[r->n - 1].kind = EG_OUT_SYNC;
    }
}

void eg_machine_step(struct eg_machine *m, struct eg_cmd *cmd, struct eg_now now)
{
    struct eg_conn *c = conn_of(m, cmd->conn);
    m->now = now;
    switch (cmd->kind) {
    case EG_CMD_ATTACH:
        if (cmd->frame.role == EG_ROLE_AGENT) {
            eg_worker_attach(m, cmd);
        } else {
            eg_client_attach(m, cmd);
        }
        break;
    case EG_CMD_DETACH:
        if (c) {
            eg_conn_detach(m, c);
        }
        break;
    case EG_CMD_FRAME:
        if (c && c->worker) {
            eg_worker_frame(m, c, cmd);
        } else if (c) {
            eg_client_frame(m, c, cmd);
        }
        break;
    case EG_CMD_SYNC:
        sync_out(m, cmd->conn);
        break;
    case EG_CMD_CALL:
        eg_call_step(m, cmd->call);
        break;
    }
}

void eg_machine_tick(struct eg_machine *m, struct eg_now now)
{
    m->now = now;
    eg_turns_due(m);
    eg_chores_step(m);
}

static void write_turn(struct eg_machine *m, const struct eg_session *s, struct eg_turn *t)
{
    struct eg_turn_row row = {.sid = s->sid,
                              .turn = t->turn,
                              .state = t->state,
                              .attempt = t->attempt,
                              .created_ms = t->created_ms,
                              .until_ms = t->until_ms};
    if (t->worker) {
        memcpy(row.worker, t->worker->id, strlen(t->worker->id));
    }
    m->storage->ops->turn_put(m->storage, &row);
    t->stored = true;
    t->dirty = false;
}

/* The head and the newest are the only turns that can have changed. */
static void write_turns(struct eg_machine *m, const struct eg_session *s)
{
    struct eg_turn *head = eg_turn_head(s);
    if (head && head->dirty) {
        write_turn(m, s, head);
    }
    for (unsigned i = s->turn_count; i > 1 && eg_turn_at(s, i - 1)->dirty; i--) {
        write_turn(m, s, eg_turn_at(s, i - 1));
    }
}

static bool changed(const struct eg_session *s)
{
    return s->dirty ||
           (s->turn_count && (eg_turn_head(s)->dirty || eg_turn_at(s, s->turn_count - 1)->dirty));
}

bool eg_machine_flush(struct eg_machine *m)
{
    struct eg_session_row row;
    for (unsigned i = 0; i < m->ended_count && eg_machine_write(m); i++) {
        m->storage->ops->turn_delete(m->storage, m->ended[i].sid, m->ended[i].turn);
    }
    for (struct eg_session *s = m->touched; s; s = s->touch_next) {
        if (!changed(s) || !eg_machine_write(m)) {
            continue;
        }
        if (s->dirty) {
            eg_session_row(s, &row);
            m->storage->ops->session_update(m->storage, &row);
            s->dirty = false;
        }
        write_turns(m, s);
    }
    return m->writing;
}

/* Lets go of what was touched; what could not be written stays on the list. */
static void untouch(struct eg_machine *m)
{
    struct eg_session *s = m->touched;
    m->touched = NULL;
    while (s) {
        struct eg_session *next = s->touch_next;
        s->touched = false;
        s->fresh = false;
        eg_bytes_unref(s->head_body);
        s->head_body = NULL;
        if (s->gone) {
            while (s->conns) {
                eg_conn_detach(m, s->conns);
            }
            if (s->touched) { /* detaching touched it again */
                m->touched = s->touch_next;
            }
            eg_session_forget(m, s);
        } else if (changed(s)) {
            eg_session_touch(m, s);
        } else {
            eg_session_idle(m, s);
        }
        s = next;
    }
}

static void settle(struct eg_machine *m)
{
    struct eg_agent *a, *next;
    m->writing = false;
    m->batch++;
    m->fresh = NULL;
    m->ended_count = 0;
    m->events_in_batch = m->bytes_in_batch = 0;
    if (m->agents_moved) { /* there may be many of them */
        HASH_ITER(hh, m->agents, a, next)
        {
            a->registering = a->unregistering = false;
        }
        m->agents_moved = false;
    }
    untouch(m);
    eg_metric_set(EG_M_turns_running, m->running);
}

void eg_machine_committed(struct eg_machine *m)
{
    m->lost = false;
    m->revoked_stored = 0;
    for (struct eg_conn *c = m->fresh; c; c = c->fresh_next) {
        c->fresh = false;
    }
    eg_metric_add(EG_M_events_total, m->events_in_batch);
    eg_metric_add(EG_M_event_bytes_total, m->bytes_in_batch);
    eg_chores_committed(m);
    settle(m);
}

/* Turns at workers, counted anew from the sessions that were read again. */
static void recount(struct eg_machine *m)
{
    struct eg_agent *a, *next_agent;
    struct eg_session *s, *next;
    struct eg_worker *w;
    m->running = 0;
    HASH_ITER(hh, m->agents, a, next_agent)
    {
        if (a->registering || a->unregistering) {
            a->registered = a->unregistering;
        }
        DL_FOREACH(a->workers, w)
        {
            w->running = 0;
        }
    }
    HASH_ITER(hh_sid, m->by_sid, s, next)
    {
        const struct eg_turn *head = eg_turn_head(s);
        if (head && head->worker && !eg_worker_hold(m, head->worker, s)) {
            eg_table_fatal("a batch cannot be taken back"); /* its place was there before */
        }
    }
}

/* A session that cannot be read any more: its connections are sent away to come again. */
static void lose(struct eg_machine *m, struct eg_session *s)
{
    while (s->conns) {
        eg_out_close(m, s->conns->id, NULL, EG_CLOSE_TRY_LATER, "storage_unavailable");
        eg_conn_detach(m, s->conns);
    }
    s->turn_count = 0;
    eg_agent_ready(m, s->agent, s->sid);
    s->gone = true;
    m->lost = true;
}

void eg_machine_rolled_back(struct eg_machine *m)
{
    if (m->writing) {
        m->storage->ops->rollback(m->storage);
        m->writing = false;
    }
    m->readonly = true;
    if (m->lost) { /* those sent away were not told yet, and now would not be */
        eg_table_fatal("a batch cannot be taken back");
    }
    while (m->fresh) {
        eg_conn_detach(m, m->fresh);
    }
    eg_presence_rolled_back(m);
    eg_chores_rolled_back(m);
    eg_out_drop(m);
    m->ended_count = 0;
    for (struct eg_session *s = m->touched; s; s = s->touch_next) {
        m->failed = false;
        s->gone = false;
        if (s->fresh) {
            s->turn_count = 0;
            s->dirty = false;
            s->gone = true; /* it was never stored */
        } else if (!eg_session_reload(m, s)) {
            m->failed = false;
            lose(m, s);
        } else {
            const struct eg_turn *head = eg_turn_head(s);
            if (head && head->state == EG_TURN_QUEUED) {
                s->in_ready = eg_agent_ready(m, s->agent, s->sid);
            }
            eg_turn_recover(m, s);
        }
        if (m->failed) { /* a turn without its place or its time would wait for ever */
            eg_table_fatal("a batch cannot be taken back");
        }
    }
    m->failed = false;
    recount(m);
    settle(m);
}

void eg_machine_resume(struct eg_machine *m)
{
    struct eg_agent *a, *next;
    m->readonly = false;
    name_agents(m); /* a reload may have come meanwhile */
    HASH_ITER(hh, m->agents, a, next)
    {
        eg_dispatch(m, a);
    }
}

int64_t eg_machine_deadline(const struct eg_machine *m)
{
    if (m->readonly) {
        return INT64_MAX;
    }
    const int64_t chore = eg_chores_due(m);
    const int64_t timer = m->timer_count ? m->timers[0].at_mono : INT64_MAX;
    return chore < timer ? chore : timer;
}
