/*
 * worker.c - what workers do: attach, emit, end or fail turns, publish outside of turns, leave.
 *
 * A frame for a turn is taken only from the worker that has it now: a late one is answered
 * turn_closed and stores nothing, so two workers never both write into a turn. What a worker
 * repeats under the same event_id is answered from the log, even when the turn has ended meanwhile.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "wire/event.h"
#include "wire/json.h"

void eg_worker_attach(struct eg_machine *m, struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    struct eg_agent *agent = eg_agent_find(m, f->agent_id);
    if (!agent || !agent->registered) {
        /* Serving makes an agent known, for good. */
        if (!eg_machine_write(m)) {
            eg_out_refuse(m, cmd->conn, EG_CODE_storage_unavailable, NULL, NULL, 1);
            return;
        }
        agent = eg_agent_add(m, f->agent_id);
        if (!agent) {
            return;
        }
        eg_agent_row(m, agent, true);
    }
    struct eg_conn *c = eg_conn_attach(m, cmd);
    struct eg_worker *w = c ? calloc(1, sizeof *w) : NULL;
    if (!w) {
        m->failed = true;
        return;
    }
    w->conn = c;
    w->agent = agent;
    w->concurrency = (int)f->concurrency;
    w->since_ms = m->now.wall_ms;
    memcpy(w->id, "w-", 2);
    eg_uuid7(m->now.wall_ms, w->id + 2);
    memcpy(w->name, f->client_name.p ? f->client_name.p : "",
           f->client_name.n < sizeof w->name ? f->client_name.n : sizeof w->name - 1);
    c->worker = w;
    DL_APPEND(agent->workers, w);
    struct eg_welcome welcome = {.worker = true, .legacy = cmd->legacy, .oldest = 1};
    memcpy(welcome.agent_id, agent->id, strlen(agent->id));
    memcpy(welcome.worker_id, w->id, strlen(w->id));
    eg_epoch_of(&m->epoch, 0, welcome.epoch);
    eg_out_welcome(m, cmd->conn, &welcome);
    eg_metric_add(EG_M_handshakes_ok_total, 1);
    eg_metric_add(EG_M_workers, 1);
    eg_dispatch(m, agent);
}

bool eg_worker_hold(struct eg_machine *m, struct eg_worker *w, struct eg_session *s)
{
    if (w->running == w->held_cap) {
        const int cap = w->held_cap ? w->held_cap * 2 : 1;
        struct eg_session **const grown = realloc(w->held, (size_t)cap * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return false;
        }
        w->held = grown;
        w->held_cap = cap;
    }
    s->held_at = w->running;
    w->held[w->running++] = s;
    m->running++;
    return true;
}

void eg_worker_let_go(struct eg_machine *m, struct eg_worker *w, const struct eg_session *s)
{
    struct eg_session *const last = w->held[--w->running];
    w->held[s->held_at] = last;
    last->held_at = s->held_at;
    m->running--;
}

/* All sessions whose head is at w give it back: they are in memory, never evicted. */
void eg_worker_detach(struct eg_machine *m, struct eg_worker *w)
{
    DL_DELETE(w->agent->workers, w);
    while (w->running) {
        struct eg_session *const s = w->held[0];
        eg_turn_attempt_over(m, s, eg_turn_head(s), true, false, 0,
                             EG_LIT("the worker disconnected"));
    }
    w->conn->worker = NULL;
    eg_metric_add(EG_M_workers, -1);
    free(w->held);
    free(w);
}

/* --- answers --- */

static void error(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f,
                  enum eg_code code, const char *message, const char *field)
{
    eg_out_error(m, c->id, code, message, field, f->event_id,
                 code == EG_CODE_storage_unavailable ? 1 : -1);
}

static void emitted(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f,
                    uint64_t cursor, bool duplicate)
{
    if (!(c->caps & EG_CAP_ACK)) {
        return;
    }
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"emitted\"");
    eg_json_kstr(&b, "session_id", f->session_id);
    if (f->turn >= 0) {
        eg_json_kint(&b, "turn", f->turn);
    }
    if (f->event_id.n) {
        eg_json_kstr(&b, "event_id", f->event_id);
    }
    eg_json_kint(&b, "cursor", (int64_t)cursor);
    eg_json_kbool(&b, "duplicate", duplicate);
    eg_buf_char(&b, '}');
    eg_out_buf(m, c->id, &b);
}

/* --- appending --- */

/* Whether a stored event is what f says. */
static bool same_event(struct eg_slice body, const struct eg_frame *f)
{
    struct eg_event_head head;
    if (eg_event_read(body, &head) != EG_OK || head.turn != (f->turn < 0 ? 0 : (uint64_t)f->turn)) {
        return false;
    }
    if (f->type == EG_FRAME_FINAL) {
        return eg_slice_is(head.type, "response") &&
               eg_json_same(eg_event_field(body, "content"),
                            f->content.n ? f->content : EG_LIT("\"\""));
    }
    return eg_slice_eq(head.type, f->event) &&
           eg_json_same(eg_event_field(body, "data"), f->data.n ? f->data : EG_LIT("{}"));
}

/* Answers a repeat; false when f is new and is to be stored under idkey. */
static bool repeated(struct eg_machine *m, struct eg_conn *c, struct eg_session *s,
                     const struct eg_frame *f, uint8_t *idkey)
{
    uint64_t cursor = 0;
    struct eg_bytes *body = NULL;
    if (f->event_id.n == 0) {
        return false;
    }
    eg_idkey('e', eg_slice_cstr(s->agent->id), f->event_id, idkey);
    const enum eg_repeat r = eg_repeat_look(m, s, idkey, &cursor, &body);
    if (r == EG_REPEAT_NONE) {
        return false;
    }
    if (r == EG_REPEAT_FAILED) {
        error(m, c, f, EG_CODE_storage_unavailable, NULL, NULL);
    } else if (same_event(eg_bytes_slice(body), f)) {
        eg_metric_add(EG_M_duplicates_total, 1);
        emitted(m, c, f, cursor, true);
    } else {
        error(m, c, f, EG_CODE_id_conflict, NULL, "event_id");
    }
    eg_bytes_unref(body);
    return true;
}

/* Who speaks: agent:<id>, not quoted. */
static void source_of(const struct eg_session *s, struct eg_buf *out)
{
    eg_buf_str(out, "agent:");
    eg_buf_str(out, s->agent->id);
}

static uint64_t append(struct eg_machine *m, struct eg_session *s, const struct eg_frame *f,
                       struct eg_slice type, struct eg_slice tail, const uint8_t *idkey,
                       bool stream)
{
    struct eg_buf source = {0};
    source_of(s, &source);
    const uint64_t cursor =
        source.err
            ? 0
            : eg_session_append(m, s,
                                &(struct eg_append){.type = type,
                                                    .source = {source.p, source.n},
                                                    .event_id = f->event_id,
                                                    .tail = tail,
                                                    .traceparent = f->traceparent,
                                                    .idkey = f->event_id.n ? idkey : NULL,
                                                    .turn = f->turn < 0 ? 0 : (uint64_t)f->turn,
                                                    .stream = stream});
    eg_buf_free(&source);
    return cursor;
}

/* --- frames --- */

/* The session of f when it belongs to this worker's agent, else NULL. */
static struct eg_session *own_session(struct eg_machine *m, const struct eg_conn *c,
                                      const struct eg_frame *f)
{
    enum eg_code code;
    struct eg_session *s = eg_session_find(m, f->session_id, &code);
    return s && s->agent == c->worker->agent ? s : NULL;
}

/* Whether f is not about another log that had the id of s. */
static bool same_log(const struct eg_machine *m, const struct eg_session *s,
                     const struct eg_frame *f)
{
    char epoch[EG_EPOCH_MAX + 1];
    if (f->epoch.n == 0) {
        return true;
    }
    eg_epoch_of(&m->epoch, s->sid, epoch);
    return eg_slice_is(f->epoch, epoch);
}

/* The turn of f when it is c's now, else NULL. The number is not enough: that of a session which
 * was deleted and begun anew has the same one, and may be at the same worker. */
static struct eg_turn *own_turn(const struct eg_machine *m, const struct eg_conn *c,
                                const struct eg_session *s, const struct eg_frame *f)
{
    struct eg_turn *t = s ? eg_turn_head(s) : NULL;
    return t && t->worker == c->worker && t->turn == (uint64_t)f->turn && same_log(m, s, f) ? t
                                                                                            : NULL;
}

static void ephemeral(struct eg_machine *m, struct eg_session *s, const struct eg_frame *f,
                      struct eg_slice tail)
{
    struct eg_buf b = {0}, source = {0};
    source_of(s, &source);
    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "type", f->event);
    eg_json_kcstr(&b, "session_id", s->id);
    if (f->event_id.n) {
        eg_json_kstr(&b, "event_id", f->event_id);
    }
    eg_json_ktime(&b, "timestamp", m->now.wall_ms);
    eg_json_kstr(&b, "source", (struct eg_slice){source.p, source.n});
    eg_json_kint(&b, "turn", f->turn);
    eg_json_kbool(&b, "ephemeral", true);
    eg_buf_char(&b, ',');
    eg_buf_slice(&b, tail);
    eg_buf_char(&b, '}');
    m->failed = m->failed || source.err;
    eg_buf_free(&source);
    eg_out_notice(m, s, EG_CAP_STREAMING, 0, false, &b);
}

static void frame_emit(struct eg_machine *m, struct eg_conn *c, struct eg_session *s,
                       struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    const struct eg_slice tail = {cmd->tail.p, cmd->tail.n};
    uint8_t idkey[EG_IDKEY_BYTES];
    struct eg_turn *t = own_turn(m, c, s, f);
    if (t) {
        eg_turn_lease(m, t); /* a repeat is a sign of life, too */
    }
    if (s && !f->ephemeral && repeated(m, c, s, f, idkey)) {
        return;
    }
    if (!t) {
        error(m, c, f, EG_CODE_turn_closed, NULL, NULL);
        return;
    }
    if (f->ephemeral) {
        ephemeral(m, s, f, tail);
        return;
    }
    const uint64_t cursor = append(m, s, f, f->event, tail, idkey, true);
    if (cursor == 0) {
        error(m, c, f, EG_CODE_storage_unavailable, NULL, NULL);
        return;
    }
    emitted(m, c, f, cursor, false);
}

static void count_outcome(enum eg_outcome outcome)
{
    static const enum eg_metric metric[] = {EG_M_turns_ok_total, EG_M_turns_error_total,
                                            EG_M_turns_aborted_total, EG_M_turns_rejected_total};
    eg_metric_add(metric[outcome], 1);
}

/* The response of an aborted turn says so, whatever its worker made of it. */
static void aborted_tail(const struct eg_frame *f, struct eg_buf *out)
{
    struct eg_frame g = *f;
    g.outcome = EG_LIT("{\"status\":\"aborted\"}");
    g.outcome_status = EG_OUTCOME_ABORTED;
    eg_frame_tail(&g, out);
}

static void frame_final(struct eg_machine *m, struct eg_conn *c, struct eg_session *s,
                        struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    uint8_t idkey[EG_IDKEY_BYTES];
    struct eg_buf aborted = {0};
    struct eg_slice tail = {cmd->tail.p, cmd->tail.n};
    enum eg_outcome outcome = f->outcome_status;
    if (s && repeated(m, c, s, f, idkey)) {
        return;
    }
    struct eg_turn *t = own_turn(m, c, s, f);
    if (!t) {
        error(m, c, f, EG_CODE_turn_closed, NULL, NULL);
        return;
    }
    if (t->state == EG_TURN_ABORTING && outcome != EG_OUTCOME_ABORTED) {
        aborted_tail(f, &aborted);
        tail = (struct eg_slice){aborted.p, aborted.n};
        outcome = EG_OUTCOME_ABORTED;
        m->failed = m->failed || aborted.err;
    }
    const uint64_t cursor = append(m, s, f, EG_LIT("response"), tail, idkey, false);
    eg_buf_free(&aborted);
    if (cursor == 0) {
        error(m, c, f, EG_CODE_storage_unavailable, NULL, NULL);
        return;
    }
    emitted(m, c, f, cursor, false);
    count_outcome(outcome);
    eg_turn_finish(m, s, t);
}

static void frame_fail(struct eg_machine *m, struct eg_conn *c, struct eg_session *s,
                       const struct eg_frame *f)
{
    struct eg_buf text = {0};
    struct eg_turn *t = own_turn(m, c, s, f);
    if (!t) {
        error(m, c, f, EG_CODE_turn_closed, NULL, NULL);
    } else if (!eg_machine_write(m)) {
        error(m, c, f, EG_CODE_storage_unavailable, NULL, NULL);
    } else {
        if (f->error.n && f->error.p[0] == '"') {
            eg_json_unquote(f->error, &text);
        } else {
            eg_buf_slice(&text, f->error.n ? f->error : EG_LIT("the worker failed"));
        }
        m->failed = m->failed || text.err;
        eg_turn_attempt_over(m, s, t, f->retry, true, f->retry_after_ms,
                             (struct eg_slice){text.p, text.n});
    }
    eg_buf_free(&text);
}

static void frame_publish(struct eg_machine *m, struct eg_conn *c, struct eg_session *s,
                          struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    uint8_t idkey[EG_IDKEY_BYTES];
    if (!s) {
        error(m, c, f, EG_CODE_invalid_request, "not a session of this agent", "session_id");
        return;
    }
    if (repeated(m, c, s, f, idkey)) {
        return;
    }
    if (s->state == EG_SESSION_CLOSED) {
        error(m, c, f, EG_CODE_session_closed, NULL, NULL);
        return;
    }
    const uint64_t cursor = append(m, s, f, f->event, (struct eg_slice){cmd->tail.p, cmd->tail.n},
                                   idkey, eg_event_is_stream(f->event));
    if (cursor == 0) {
        error(m, c, f, EG_CODE_storage_unavailable, NULL, NULL);
        return;
    }
    emitted(m, c, f, cursor, false);
}

void eg_worker_frame(struct eg_machine *m, struct eg_conn *c, struct eg_cmd *cmd)
{
    struct eg_session *s = own_session(m, c, &cmd->frame);
    struct eg_turn *t;
    switch (cmd->frame.type) {
    case EG_FRAME_EMIT:
        frame_emit(m, c, s, cmd);
        break;
    case EG_FRAME_FINAL:
        frame_final(m, c, s, cmd);
        break;
    case EG_FRAME_FAIL:
        frame_fail(m, c, s, &cmd->frame);
        break;
    case EG_FRAME_EXTEND:
        t = own_turn(m, c, s, &cmd->frame);
        if (t) {
            eg_turn_lease(m, t);
        } else {
            error(m, c, &cmd->frame, EG_CODE_turn_closed, NULL, NULL);
        }
        break;
    case EG_FRAME_PUBLISH:
        frame_publish(m, c, s, cmd);
        break;
    default:
        error(m, c, &cmd->frame, EG_CODE_insufficient_scope, NULL, NULL);
        break;
    }
}
