/*
 * calls.c - what operators and HTTP clients ask of the core. Each is answered after the commit that
 * holds it, with its entry in the audit log in the same transaction.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"

/* The session of the call, or NULL with *code. */
static struct eg_session *session_of(struct eg_machine *m, const struct eg_call *call,
                                     enum eg_code *code)
{
    struct eg_session *s = eg_session_find(m, call->session_id, code);
    if (s && call->sid && s->sid != call->sid) {
        *code = EG_CODE_session_not_found;
        return NULL;
    }
    if (s && call->identity && !eg_session_enter(s, call->identity)) {
        *code = EG_CODE_auth_unauthorized;
        return NULL;
    }
    return s;
}

static void say_session(const struct eg_machine *m, struct eg_call *call,
                        const struct eg_session *s)
{
    memset(call->out_session_id, 0, sizeof call->out_session_id);
    memcpy(call->out_session_id, s->id, strlen(s->id));
    call->out_cursor = s->cursor;
    eg_epoch_of(&m->epoch, s->sid, call->out_epoch);
}

static enum eg_code call_create(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_session_not_found;
    struct eg_agent *agent = eg_agent_find(m, call->agent);
    char made[37];
    struct eg_slice id = call->session_id;
    if (!agent || !agent->registered) {
        return EG_CODE_agent_not_found;
    }
    struct eg_session *s = id.n ? session_of(m, call, &code) : NULL;
    if (s) {
        if (s->agent != agent) {
            return EG_CODE_auth_unauthorized;
        }
        say_session(m, call, s);
        call->created = false;
        return s->state == EG_SESSION_CLOSED ? EG_CODE_session_closed : EG_CODE_NONE;
    }
    if (code != EG_CODE_session_not_found) {
        return code;
    }
    const struct eg_slice owner = eg_slice_cstr(call->identity->sub);
    if (eg_sub_is_full(m, owner)) {
        call->message = EG_SUB_FULL;
        call->retry_after_s = EG_SUB_FULL_WAIT_S;
        return EG_CODE_rate_limited;
    }
    if (id.n == 0) {
        eg_uuid7(m->now.wall_ms, made);
        id = (struct eg_slice){made, 36};
    }
    s = eg_session_create(m, id, agent, owner, EG_SESSION_OPEN);
    if (!s) {
        call->message = eg_session_not_created(m);
        call->retry_after_s = call->message ? 1 : 0;
        return EG_CODE_storage_unavailable;
    }
    say_session(m, call, s);
    call->created = true;
    return EG_CODE_NONE;
}

static enum eg_code call_message(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_buf source = {0};
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    struct eg_sub *sub = call->identity ? eg_sub_get(m, eg_slice_cstr(call->identity->sub)) : NULL;
    if (call->source.n) {
        eg_buf_slice(&source, call->source);
    } else if (call->identity) {
        eg_buf_str(&source, "client:");
        eg_buf_str(&source, call->identity->sub);
    }
    const struct eg_slice who = {source.p, source.n};
    const struct eg_publish p = {.content = call->content,
                                 .metadata = call->metadata,
                                 .message_id = call->message_id,
                                 .traceparent = call->traceparent,
                                 .sub = sub ? eg_slice_cstr(sub->sub) : who,
                                 .source = who};
    code = source.err ? EG_CODE_storage_unavailable
                      : eg_client_publish(m, s, &p, sub, &call->out_cursor, &call->duplicate);
    eg_buf_free(&source);
    call->out_turn = call->out_cursor;
    if (code == EG_CODE_NONE && !call->duplicate && s->turn_count == 1) {
        eg_dispatch_session(m, s);
    }
    return code;
}

static enum eg_code call_abort(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_session *s = session_of(m, call, &code);
    return s ? eg_client_abort(m, s, call->turn, call->reason, &call->out_turn) : code;
}

/* Ends all turns of s, oldest first; no worker gets one of them meanwhile. */
static void end_turns(struct eg_machine *m, struct eg_session *s, const char *reason)
{
    const bool dispatching = s->agent->dispatching;
    s->agent->dispatching = true;
    while (s->turn_count && !m->failed) {
        struct eg_turn *t = eg_turn_head(s);
        enum eg_turn_input in = EG_IN_ABORT;
        if (t->state == EG_TURN_RUNNING) {
            eg_turn_abort_running(m, s, t, eg_slice_cstr(reason));
        }
        if (t->state == EG_TURN_ABORTING) {
            in = EG_IN_GRACE;
        }
        eg_turn_end_aborted(m, s, t, in);
    }
    s->agent->dispatching = dispatching;
    eg_dispatch(m, s->agent);
}

bool eg_session_close(struct eg_machine *m, struct eg_session *s, const char *reason)
{
    struct eg_conn *c;
    struct eg_buf tail = {0};
    if (!eg_machine_write(m)) {
        return false;
    }
    end_turns(m, s, reason);
    eg_buf_str(&tail, "\"data\":{\"reason\":");
    eg_json_quote(&tail, eg_slice_cstr(reason));
    eg_buf_char(&tail, '}');
    const bool told =
        !tail.err && eg_session_append(m, s,
                                       &(struct eg_append){.type = EG_LIT("session_end"),
                                                           .source = EG_LIT("gateway"),
                                                           .tail = {tail.p, tail.n}});
    eg_buf_free(&tail);
    if (!told) {
        return false;
    }
    s->state = EG_SESSION_CLOSED;
    s->closed_ms = m->now.wall_ms;
    eg_session_changed(m, s);
    DL_FOREACH(s->conns, c)
    {
        eg_out_end(m, s, c->id);
    }
    return true;
}

static enum eg_code call_close(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    if (s->state == EG_SESSION_CLOSED) {
        return EG_CODE_session_closed;
    }
    return eg_session_close(m, s, "closed by operator") ? EG_CODE_NONE
                                                        : EG_CODE_storage_unavailable;
}

static enum eg_code call_delete(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    if (!eg_machine_write(m) ||
        (s->state == EG_SESSION_OPEN && !eg_session_close(m, s, "deleted by operator"))) {
        return EG_CODE_storage_unavailable;
    }
    s->state = EG_SESSION_DELETING;
    eg_session_changed(m, s);
    eg_chore_add(m, EG_CHORE_DELETE, s->sid, 0, 0, NULL);
    return EG_CODE_NONE;
}

static enum eg_code call_fork(struct eg_machine *m, struct eg_call *call, bool *later)
{
    enum eg_code code = EG_CODE_NONE;
    char id[37];
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    if (call->cursor > s->cursor || call->cursor + 1 < s->oldest) {
        return EG_CODE_invalid_request;
    }
    eg_uuid7(m->now.wall_ms, id);
    struct eg_session *to = eg_session_create(m, (struct eg_slice){id, 36}, s->agent,
                                              eg_slice_cstr(s->owner), EG_SESSION_FORKING);
    if (!to) {
        return EG_CODE_storage_unavailable;
    }
    to->oldest = s->oldest;
    to->cursor = s->oldest - 1;
    memcpy(to->floor_hash, s->floor_hash, sizeof to->floor_hash);
    memcpy(to->hash, s->floor_hash, sizeof to->hash);
    eg_session_changed(m, to);
    say_session(m, call, to);
    call->out_cursor = call->cursor;
    eg_chore_add(m, EG_CHORE_FORK, s->sid, to->sid, call->cursor, call);
    *later = true;
    return EG_CODE_NONE;
}

/* Nothing new is to go. What a restart left of an earlier trim still is: rows below the floor. */
static enum eg_code go_on_trimming(struct eg_machine *m, const struct eg_session *s)
{
    uint8_t hash[EG_CHAIN_BYTES];
    const enum eg_err e = s->oldest > 1
                              ? m->storage->ops->event_hash(m->storage, s->sid, s->oldest - 1, hash)
                              : EG_ENOTFOUND;
    if (e == EG_OK) {
        eg_chore_add(m, EG_CHORE_TRIM, s->sid, 0, 0, NULL);
    }
    return e == EG_OK || e == EG_ENOTFOUND ? EG_CODE_NONE : EG_CODE_storage_unavailable;
}

static enum eg_code call_trim(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    uint64_t keep = call->cursor <= s->cursor + 1 ? call->cursor : s->cursor + 1;
    const struct eg_turn *head = eg_turn_head(s);
    if (head && head->turn < keep) {
        keep = head->turn; /* what an agent still has to answer stays */
    }
    if (keep <= s->oldest) {
        return go_on_trimming(m, s);
    }
    if (!eg_machine_write(m) ||
        m->storage->ops->event_hash(m->storage, s->sid, keep - 1, s->floor_hash) != EG_OK) {
        return EG_CODE_storage_unavailable;
    }
    s->oldest = keep;
    eg_session_changed(m, s);
    eg_chore_add(m, EG_CHORE_TRIM, s->sid, 0, 0, NULL);
    return EG_CODE_NONE;
}

static enum eg_code call_reap(struct eg_machine *m, const struct eg_call *call)
{
    const struct eg_session *s = eg_session_find_sid(m, (int64_t)call->cursor);
    if (!s || s->state != EG_SESSION_DELETING) {
        return EG_CODE_session_not_found;
    }
    eg_chore_add(m, EG_CHORE_DELETE, s->sid, 0, 0, NULL);
    return EG_CODE_NONE;
}

/* A dead turn's message is said once more, by the same client: a new turn, so that each turn ends
 * once. */
static enum eg_code call_turn_retry(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_turn_row row;
    struct eg_bytes *body = NULL;
    struct eg_event_head head;
    struct eg_buf source = {0};
    bool duplicate;
    struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    enum eg_err e = m->storage->ops->turn_get(m->storage, s->sid, (uint64_t)call->turn, &row);
    if (e == EG_OK && (row.state != EG_TURN_DEAD || row.turn < s->oldest)) {
        e = EG_ENOTFOUND;
    }
    if (e == EG_OK && !eg_machine_write(m)) {
        return EG_CODE_storage_unavailable;
    }
    if (e == EG_OK) {
        e = m->storage->ops->event_get(m->storage, s->sid, row.turn, &body);
    }
    if (e == EG_OK) {
        e = eg_event_read(eg_bytes_slice(body), &head);
    }
    if (e != EG_OK) {
        eg_bytes_unref(body);
        return e == EG_ENOTFOUND ? EG_CODE_not_found : EG_CODE_storage_unavailable;
    }
    const struct eg_slice stored = eg_bytes_slice(body);
    eg_json_unquote((struct eg_slice){head.source.p - 1, head.source.n + 2}, &source);
    const struct eg_publish p = {.content = eg_event_field(stored, "data.content"),
                                 .metadata = eg_event_field(stored, "data.metadata"),
                                 .source = {source.p, source.n}};
    code = source.err ? EG_CODE_storage_unavailable
                      : eg_client_publish(m, s, &p, NULL, &call->out_turn, &duplicate);
    if (code == EG_CODE_NONE) {
        call->out_cursor = call->out_turn;
        m->storage->ops->turn_delete(m->storage, s->sid, row.turn);
        if (s->turn_count == 1) {
            eg_dispatch_session(m, s);
        }
    }
    eg_buf_free(&source);
    eg_bytes_unref(body);
    return code;
}

static enum eg_code call_agent_put(struct eg_machine *m, struct eg_call *call)
{
    struct eg_agent *a = eg_agent_find(m, call->agent);
    call->created = !a || !a->registered;
    if (!call->created) {
        return EG_CODE_NONE;
    }
    if (!eg_machine_write(m) || !(a = eg_agent_add(m, call->agent))) {
        return EG_CODE_storage_unavailable;
    }
    eg_agent_row(m, a, true);
    return EG_CODE_NONE;
}

/* Whether a session of a has open turns. Those whose head waits for a worker stand in the ring,
 * with entries that nothing is left of; all others are in memory. */
static bool has_turns(struct eg_machine *m, struct eg_agent *a)
{
    struct eg_session *s, *next;
    while (a->ready_count && !m->failed) {
        s = eg_session_find_sid(m, eg_agent_next_ready(a));
        if (s && s->turn_count) {
            return true;
        }
        if (!m->failed) { /* read, and nothing waits */
            eg_agent_drop_ready(a);
            if (s) {
                s->in_ready = false;
            }
        }
    }
    HASH_ITER(hh_sid, m->by_sid, s, next)
    {
        if (s->agent == a && s->turn_count) {
            return true;
        }
    }
    return false;
}

static enum eg_code call_agent_delete(struct eg_machine *m, const struct eg_call *call)
{
    struct eg_agent *a = eg_agent_find(m, call->agent);
    if (!a || !a->registered) {
        return EG_CODE_agent_not_found;
    }
    if (a->workers || has_turns(m, a)) {
        return EG_CODE_conflict;
    }
    if (!eg_machine_write(m)) {
        return EG_CODE_storage_unavailable;
    }
    eg_agent_row(m, a, false);
    return EG_CODE_NONE;
}

static enum eg_code call_revoke(struct eg_machine *m, const struct eg_call *call)
{
    char *what = eg_slice_dup(call->text);
    if (!eg_machine_write(m) || !what) {
        free(what);
        return EG_CODE_storage_unavailable;
    }
    m->storage->ops->revoke(m->storage, what, call->until_ms);
    eg_machine_revoked(m, what, call->until_ms);
    return EG_CODE_NONE;
}

/* --- live information --- */

static void json_worker(struct eg_buf *b, const struct eg_worker *w)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "worker_id", w->id);
    eg_json_kcstr(b, "name", w->name);
    eg_json_kcstr(b, "sub", w->conn->sub->sub);
    eg_buf_printf(b, ",\"connection_id\":\"" EG_CONN_HEX "\"", w->conn->id);
    eg_json_kint(b, "concurrency", w->concurrency);
    eg_json_kint(b, "running", w->running);
    eg_json_ktime(b, "since", w->since_ms);
    eg_buf_char(b, '}');
}

static enum eg_code call_agents_info(struct eg_machine *m, struct eg_call *call)
{
    struct eg_buf *b = &call->json;
    struct eg_agent *a, *next;
    eg_buf_char(b, '[');
    HASH_ITER(hh, m->agents, a, next)
    {
        if (!a->registered || (call->agent.n && !eg_slice_is(call->agent, a->id))) {
            continue;
        }
        eg_buf_str(b, b->n > 1 ? ",{" : "{");
        eg_json_kcstr(b, "id", a->id);
        eg_buf_str(b, ",\"workers\":[");
        struct eg_worker *w;
        DL_FOREACH(a->workers, w)
        {
            if (w != a->workers) {
                eg_buf_char(b, ',');
            }
            json_worker(b, w);
        }
        eg_buf_str(b, "]}");
    }
    eg_buf_char(b, ']');
    return EG_CODE_NONE;
}

static enum eg_code call_session_info(struct eg_machine *m, struct eg_call *call)
{
    enum eg_code code = EG_CODE_NONE;
    struct eg_buf *b = &call->json;
    struct eg_conn *c;
    const struct eg_session *s = session_of(m, call, &code);
    if (!s) {
        return code;
    }
    eg_buf_str(b, "{\"connections\":[");
    DL_FOREACH(s->conns, c)
    {
        eg_buf_printf(b, "%s\"" EG_CONN_HEX "\"", c == s->conns ? "" : ",", c->id);
    }
    eg_buf_str(b, "],\"turns\":[");
    for (unsigned i = 0; i < s->turn_count && i < 500; i++) {
        const struct eg_turn *t = eg_turn_at(s, i);
        eg_buf_str(b, i ? ",{" : "{");
        eg_json_kint(b, "turn", (int64_t)t->turn);
        eg_json_kcstr(b, "state", eg_turn_state_name(t->state));
        eg_json_kint(b, "attempt", t->attempt);
        eg_json_ktime(b, "created", t->created_ms);
        if (t->worker) {
            eg_json_kcstr(b, "worker_id", t->worker->id);
        }
        eg_buf_char(b, '}');
    }
    eg_buf_str(b, "]");
    eg_json_kint(b, "queue", s->turn_count);
    eg_buf_char(b, '}');
    return EG_CODE_NONE;
}

static enum eg_code call_stats(struct eg_machine *m, struct eg_call *call)
{
    struct eg_buf *b = &call->json;
    eg_buf_char(b, '{');
    eg_json_kint(b, "attached", HASH_COUNT(m->conns));
    eg_json_kint(b, "agents", HASH_COUNT(m->agents));
    eg_json_kint(b, "turns_running", m->running);
    eg_json_kint(b, "sessions_in_memory", HASH_COUNT(m->sessions));
    eg_json_kbool(b, "draining", m->draining);
    eg_json_kbool(b, "storage_ok", !m->readonly);
    eg_buf_char(b, '}');
    return EG_CODE_NONE;
}

static enum eg_code run(struct eg_machine *m, struct eg_call *call, bool *later)
{
    switch (call->kind) {
    case EG_CALL_CREATE:
        return call_create(m, call);
    case EG_CALL_MESSAGE:
        return call_message(m, call);
    case EG_CALL_ABORT:
        return call_abort(m, call);
    case EG_CALL_CLOSE:
        return call_close(m, call);
    case EG_CALL_DELETE:
        return call_delete(m, call);
    case EG_CALL_FORK:
        return call_fork(m, call, later);
    case EG_CALL_TRIM:
        return call_trim(m, call);
    case EG_CALL_REAP:
        return call_reap(m, call);
    case EG_CALL_TURN_RETRY:
        return call_turn_retry(m, call);
    case EG_CALL_AGENT_PUT:
        return call_agent_put(m, call);
    case EG_CALL_AGENT_DELETE:
        return call_agent_delete(m, call);
    case EG_CALL_REVOKE:
        return call_revoke(m, call);
    case EG_CALL_AGENTS_INFO:
        return call_agents_info(m, call);
    case EG_CALL_SESSION_INFO:
        return call_session_info(m, call);
    case EG_CALL_STATS:
        return call_stats(m, call);
    case EG_CALL_KICK:
        eg_out_close(m, call->conn, NULL, EG_CLOSE_NORMAL, "disconnected by operator");
        break;
    case EG_CALL_AUDIT:
    case EG_CALL_CHECKPOINT: /* the core thread does it itself, before the batch */
        break;
    }
    return EG_CODE_NONE;
}

void eg_call_step(struct eg_machine *m, struct eg_call *call)
{
    bool later = false;
    /* Of a batch that was taken back. */
    eg_buf_free(&call->json);
    call->message = NULL;
    call->retry_after_s = 0;
    enum eg_code code = run(m, call, &later);
    if (code == EG_CODE_NONE && call->audit_who.n) {
        if (eg_machine_write(m)) {
            m->storage->ops->audit(m->storage, m->now.wall_ms, call->audit_who, call->audit_from,
                                   call->audit_action, call->audit_detail);
        } else {
            code = EG_CODE_storage_unavailable;
        }
    }
    if (!later || code != EG_CODE_NONE) {
        eg_out_done(m, call, code);
    }
}
