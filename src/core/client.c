/*
 * client.c - what clients do: attach (new, resume, gap), publish, abort, acknowledge, detach.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "wire/event.h"
#include "wire/json.h"
#include "wire/json_text.h"

#define SUBS_KEPT 10000

void eg_identity_free(struct eg_identity *i)
{
    free(i->sub);
    for (char **p = i->agents; p && *p; p++) {
        free(*p);
    }
    for (char **p = i->sessions; p && *p; p++) {
        free(*p);
    }
    free(i->agents);
    free(i->sessions);
    *i = (struct eg_identity){0};
}

/* --- subs --- */

static const char source_start[] = "client:";

struct eg_sub *eg_sub_get(struct eg_machine *m, struct eg_slice sub)
{
    struct eg_sub *u = NULL, *next;
    HASH_FIND(hh, m->subs, sub.p, sub.n, u);
    if (u) {
        return u;
    }
    if (HASH_COUNT(m->subs) >= m->subs_sweep) {
        HASH_ITER(hh, m->subs, u, next)
        {
            if (u->refs == 0) {
                HASH_DELETE(hh, m->subs, u);
                free(u->source);
                free(u);
            }
        }
        /* Those that are connected stay: not again before there are as many others. */
        m->subs_sweep = 2 * HASH_COUNT(m->subs) + SUBS_KEPT;
    }
    u = calloc(1, sizeof *u);
    if (u) {
        u->source = malloc(sizeof(source_start) + sub.n);
    }
    if (!u || !u->source) {
        free(u);
        m->failed = true;
        return NULL;
    }
    memcpy(u->source, source_start, sizeof(source_start) - 1);
    u->sub = u->source + sizeof(source_start) - 1;
    if (sub.n) {
        memcpy(u->sub, sub.p, sub.n);
    }
    u->sub[sub.n] = '\0';
    HASH_ADD_KEYPTR(hh, m->subs, u->sub, sub.n, u);
    return u;
}

bool eg_sub_is_full(struct eg_machine *m, struct eg_slice sub)
{
    const int64_t max = m->settings->max_sessions_per_sub;
    int64_t open = 0;
    if (max > 0 && m->storage->ops->count_open_sessions(m->storage, sub, &open) != EG_OK) {
        m->failed = true;
        return false;
    }
    return max > 0 && open >= max;
}

static void sub_drop(struct eg_machine *m, struct eg_sub *u)
{
    /* With a rate in force its buckets outlive the connection; else nothing is worth keeping. */
    if (--u->refs == 0 && m->settings->message_rate_per_sub == 0 &&
        m->settings->byte_rate_per_sub == 0) {
        HASH_DELETE(hh, m->subs, u);
        free(u->source);
        free(u);
    }
}

/* --- connections --- */

struct eg_conn *eg_conn_attach(struct eg_machine *m, struct eg_cmd *cmd)
{
    struct eg_conn *c = calloc(1, sizeof *c);
    struct eg_sub *u = c ? eg_sub_get(m, eg_slice_cstr(cmd->identity.sub)) : NULL;
    if (!u) {
        free(c);
        m->failed = true;
        return NULL;
    }
    u->refs++;
    c->id = cmd->conn;
    c->sub = u;
    c->caps = (unsigned char)cmd->frame.caps;
    c->fresh = true;
    c->fresh_next = m->fresh;
    m->fresh = c;
    HASH_ADD(hh, m->conns, id, sizeof c->id, c);
    return c;
}

static void follow(struct eg_conn *c, struct eg_session *s)
{
    s->followers[EG_CONN_REACTOR(c->id)]++;
    c->session = s;
    DL_APPEND(s->conns, c);
}

void eg_conn_detach(struct eg_machine *m, struct eg_conn *c)
{
    struct eg_session *s = c->session;
    if (s) {
        eg_session_touch(m, s);
        if (c->presence) {
            eg_presence_leave(m, c);
        }
        DL_DELETE(s->conns, c);
        s->followers[EG_CONN_REACTOR(c->id)]--;
    }
    if (c->worker) {
        eg_worker_detach(m, c->worker);
    }
    for (struct eg_conn **p = &m->fresh; c->fresh && *p; p = &(*p)->fresh_next) {
        if (*p == c) {
            *p = c->fresh_next;
            break;
        }
    }
    HASH_DELETE(hh, m->conns, c);
    sub_drop(m, c->sub);
    free(c->presence);
    free(c->presence_data);
    free(c);
}

/* --- attach --- */

static void refuse(struct eg_machine *m, struct eg_cmd *cmd, enum eg_code code, const char *message,
                   const char *field, int retry_after_s)
{
    eg_out_refuse(m, cmd->conn, code, message, field, retry_after_s);
}

/* Finds or makes the session that hello asks for; NULL when refused. */
static struct eg_session *session_for(struct eg_machine *m, struct eg_cmd *cmd,
                                      struct eg_agent *agent, bool *created)
{
    const struct eg_frame *f = &cmd->frame;
    const struct eg_slice owner = eg_slice_cstr(cmd->identity.sub);
    enum eg_code code = EG_CODE_NONE;
    struct eg_slice id = f->session_id;
    char made[37];
    if (id.n) {
        struct eg_session *s = eg_session_find(m, id, &code);
        if (s) {
            if (!eg_session_enter(s, &cmd->identity) || (agent && s->agent != agent)) {
                refuse(m, cmd, EG_CODE_auth_unauthorized, NULL, NULL, -1);
                return NULL;
            }
            if (s->state == EG_SESSION_CLOSED && !cmd->stream) {
                refuse(m, cmd, EG_CODE_session_closed, NULL, NULL, -1);
                return NULL;
            }
            return s;
        }
        if (code != EG_CODE_session_not_found || !f->create) {
            refuse(m, cmd, code, NULL, NULL, code == EG_CODE_storage_unavailable ? 1 : -1);
            return NULL;
        }
    }
    if (eg_sub_is_full(m, owner)) {
        refuse(m, cmd, EG_CODE_rate_limited, EG_SUB_FULL, NULL, EG_SUB_FULL_WAIT_S);
        return NULL;
    }
    if (id.n == 0) {
        eg_uuid7(m->now.wall_ms, made);
        id = (struct eg_slice){made, 36};
    }
    struct eg_session *s = eg_session_create(m, id, agent, owner, EG_SESSION_OPEN);
    if (!s) {
        refuse(m, cmd, EG_CODE_storage_unavailable, eg_session_not_created(m), NULL, 1);
        return NULL;
    }
    *created = true;
    return s;
}

static uint64_t acked_cursor(struct eg_machine *m, struct eg_session *s, struct eg_slice sub)
{
    uint64_t cursor = 0;
    const bool owner = eg_slice_is(sub, s->owner);
    if (owner && s->unacked) {
        return 0;
    }
    const enum eg_err e = m->storage->ops->ack_get(m->storage, s->sid, sub, &cursor);
    if (e != EG_OK && e != EG_ENOTFOUND) {
        m->failed = true;
    }
    s->unacked = owner && e == EG_ENOTFOUND;
    return cursor;
}

/* Decides between replay, live only and a snapshot. */
static void position(struct eg_machine *m, const struct eg_session *s, const struct eg_frame *f,
                     struct eg_welcome *w)
{
    const bool asked = f->since >= 0 || f->since_acked;
    const uint64_t since = f->since_acked ? w->acked : asked ? (uint64_t)f->since : s->cursor;
    eg_epoch_of(&m->epoch, s->sid, w->epoch);
    if (f->epoch.n && !eg_slice_is(f->epoch, w->epoch)) {
        w->resync = EG_RESYNC_EPOCH;
    } else if (asked && since > s->cursor) {
        w->resync = EG_RESYNC_AHEAD;
    } else if (asked && since + 1 < s->oldest) {
        w->resync = EG_RESYNC_TRIMMED;
    }
    w->replay = asked && !w->resync;
    w->sequence = w->replay ? since : s->cursor;
}

void eg_client_attach(struct eg_machine *m, struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    struct eg_agent *agent = NULL;
    bool created = false;
    if (!cmd->stream) {
        agent = eg_agent_find(m, f->agent_id);
        if (!agent || !agent->registered) {
            refuse(m, cmd, EG_CODE_agent_not_found, NULL, "agent_id", -1);
            return;
        }
    }
    struct eg_session *s = session_for(m, cmd, agent, &created);
    struct eg_conn *c = s ? eg_conn_attach(m, cmd) : NULL;
    if (!c) {
        return;
    }
    follow(c, s);
    struct eg_welcome w = {.resumed = !created,
                           .legacy = cmd->legacy,
                           .sid = s->sid,
                           .cursor = s->cursor,
                           .oldest = s->oldest,
                           .guest = !eg_slice_is(eg_slice_cstr(cmd->identity.sub), s->owner),
                           .closed = s->state == EG_SESSION_CLOSED};
    memcpy(w.session_id, s->id, strlen(s->id));
    memcpy(w.agent_id, s->agent->id, strlen(s->agent->id));
    w.acked = created ? 0 : acked_cursor(m, s, eg_slice_cstr(cmd->identity.sub));
    position(m, s, f, &w);
    eg_out_welcome(m, cmd->conn, &w);
    eg_metric_add(EG_M_handshakes_ok_total, 1);
}

/* --- publish --- */

enum eg_repeat eg_repeat_look(struct eg_machine *m, struct eg_session *s, const uint8_t *idkey,
                              uint64_t *cursor, struct eg_bytes **body)
{
    const enum eg_err e = m->storage->ops->event_by_idkey(m->storage, s->sid, idkey, cursor, body);
    if (e == EG_ENOTFOUND) {
        return EG_REPEAT_NONE;
    }
    if (e != EG_OK) {
        m->failed = true;
        return EG_REPEAT_FAILED;
    }
    return EG_REPEAT_SAME;
}

static void message_tail(const struct eg_publish *p, struct eg_buf *out)
{
    struct eg_frame f = {.type = EG_FRAME_MESSAGE,
                         .content = p->content,
                         .metadata = p->metadata,
                         .message_id = p->message_id};
    eg_frame_tail(&f, out);
}

static enum eg_code append_message(struct eg_machine *m, struct eg_session *s,
                                   const struct eg_publish *p, const uint8_t *idkey,
                                   uint64_t *cursor)
{
    struct eg_buf made = {0};
    struct eg_bytes *body = NULL;
    struct eg_slice tail = p->tail;
    if (tail.n == 0) {
        message_tail(p, &made);
        tail = (struct eg_slice){made.p, made.n};
    }
    *cursor = made.err ? 0
                       : eg_session_append(m, s,
                                           &(struct eg_append){.type = EG_LIT("message"),
                                                               .source = p->source,
                                                               .tail = tail,
                                                               .traceparent = p->traceparent,
                                                               .idkey = idkey,
                                                               .turn = EG_TURN_SELF,
                                                               .except = p->except,
                                                               .keep = &body});
    eg_buf_free(&made);
    if (*cursor == 0 || !eg_turn_push(m, s, *cursor)) {
        eg_bytes_unref(body);
        return EG_CODE_storage_unavailable;
    }
    eg_bytes_unref(s->head_body);
    s->head_body = body;
    eg_metric_add(EG_M_turns_queued_total, 1);
    return EG_CODE_NONE;
}

enum eg_code eg_client_publish(struct eg_machine *m, struct eg_session *s,
                               const struct eg_publish *p, struct eg_sub *sub, uint64_t *cursor,
                               bool *duplicate)
{
    uint8_t idkey[EG_IDKEY_BYTES];
    struct eg_bytes *body = NULL;
    *duplicate = false;
    if (p->message_id.n) {
        eg_idkey('m', p->sub, p->message_id, idkey);
        const enum eg_repeat r = eg_repeat_look(m, s, idkey, cursor, &body);
        if (r == EG_REPEAT_FAILED) {
            return EG_CODE_storage_unavailable;
        }
        if (r == EG_REPEAT_SAME) {
            *duplicate =
                eg_json_same(eg_event_field(eg_bytes_slice(body), "data.content"), p->content);
            eg_bytes_unref(body);
            eg_metric_add(EG_M_duplicates_total, 1);
            return *duplicate ? EG_CODE_NONE : EG_CODE_id_conflict;
        }
    }
    if (s->state != EG_SESSION_OPEN) {
        return EG_CODE_session_closed;
    }
    if (!eg_machine_write(m)) {
        return EG_CODE_storage_unavailable;
    }
    if (s->turn_count >= m->settings->max_queued_turns) {
        return EG_CODE_queue_full;
    }
    if (sub &&
        (!eg_bucket_take(&sub->messages, m->settings->message_rate_per_sub, 1, m->now.mono_ms) ||
         !eg_bucket_take(&sub->bytes, m->settings->byte_rate_per_sub, (int64_t)p->content.n,
                         m->now.mono_ms))) {
        eg_metric_add(EG_M_rate_limited_total, 1);
        return EG_CODE_rate_limited;
    }
    return append_message(m, s, p, p->message_id.n ? idkey : NULL, cursor);
}

/* Written in one go, since it answers every message. */
static void accepted(struct eg_machine *m, struct eg_conn *c, struct eg_slice message_id,
                     uint64_t cursor, bool duplicate)
{
    static const char words[] = "{'type':'response','status':'accepted','session_id':,"
                                "'message_id':,'cursor':,'turn':,'duplicate':false}";
    const struct eg_slice session = eg_slice_cstr(c->session->id);
    struct eg_decimal at;
    eg_decimal_set(&at, cursor);
    struct eg_bytes *bytes = eg_bytes_new(sizeof words + eg_json_quoted_size(session) +
                                          eg_json_quoted_size(message_id) + 2 * eg_decimal(&at).n);
    if (bytes) {
        char *o = eg_put(bytes->data, EG_LIT("{\"type\":\"response\",\"status\":\"accepted\","
                                             "\"session_id\":"));
        o = eg_json_quote_to(o, session);
        if (message_id.n) {
            o = eg_json_quote_to(eg_put(o, EG_LIT(",\"message_id\":")), message_id);
        }
        o = eg_put(eg_put(o, EG_LIT(",\"cursor\":")), eg_decimal(&at));
        o = eg_put(eg_put(o, EG_LIT(",\"turn\":")), eg_decimal(&at));
        o = eg_put(o, duplicate ? EG_LIT(",\"duplicate\":true}") : EG_LIT(",\"duplicate\":false}"));
        *o = '\0';
        bytes->n = (size_t)(o - bytes->data);
    }
    eg_out_frame(m, c->id, c->session->sid, duplicate ? 0 : cursor, bytes);
}

/* How long to wait before trying again, by code; -1: not worth telling. */
static int retry_after(enum eg_code code)
{
    return code == EG_CODE_rate_limited || code == EG_CODE_storage_unavailable ||
                   code == EG_CODE_queue_full
               ? 1
               : -1;
}

static void frame_message(struct eg_machine *m, struct eg_conn *c, struct eg_cmd *cmd)
{
    const struct eg_frame *f = &cmd->frame;
    uint64_t cursor = 0;
    bool duplicate = false;
    const struct eg_publish p = {.content = f->content,
                                 .metadata = f->metadata,
                                 .message_id = f->message_id,
                                 .traceparent = f->traceparent,
                                 .tail = {cmd->tail.p, cmd->tail.n},
                                 .sub = eg_slice_cstr(c->sub->sub),
                                 .source = eg_slice_cstr(c->sub->source),
                                 .except = c->id};
    const enum eg_code code = eg_client_publish(m, c->session, &p, c->sub, &cursor, &duplicate);
    if (code != EG_CODE_NONE) {
        eg_out_error(m, c->id, code, NULL, NULL, f->message_id, retry_after(code));
        return;
    }
    accepted(m, c, f->message_id, cursor, duplicate);
    if (!duplicate && c->session->turn_count == 1) {
        eg_dispatch_session(m, c->session);
    }
}

/* --- abort, ack --- */

enum eg_code eg_client_abort(struct eg_machine *m, struct eg_session *s, int64_t turn,
                             struct eg_slice reason, uint64_t *aborted)
{
    struct eg_turn *t = turn < 0 ? eg_turn_head(s) : eg_turn_named(s, (uint64_t)turn);
    struct eg_buf tail = {0};
    if (!t) {
        return EG_CODE_conflict;
    }
    *aborted = t->turn;
    if (t->state == EG_TURN_ABORTING) {
        return EG_CODE_NONE;
    }
    if (!eg_machine_write(m)) {
        return EG_CODE_storage_unavailable;
    }
    if (reason.n == 0) {
        reason = EG_LIT("aborted");
    }
    eg_buf_str(&tail, "\"data\":{\"reason\":");
    eg_json_quote(&tail, reason);
    eg_buf_char(&tail, '}');
    const uint64_t cursor =
        tail.err ? 0
                 : eg_session_append(m, s,
                                     &(struct eg_append){.type = EG_LIT("message_abort"),
                                                         .source = EG_LIT("gateway"),
                                                         .turn = t->turn,
                                                         .tail = {tail.p, tail.n}});
    eg_buf_free(&tail);
    if (cursor == 0) {
        return EG_CODE_storage_unavailable;
    }
    if (t->state == EG_TURN_RUNNING) {
        eg_turn_abort_running(m, s, t, reason);
    } else {
        eg_turn_end_aborted(m, s, t, EG_IN_ABORT);
    }
    return EG_CODE_NONE;
}

static void frame_abort(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f)
{
    struct eg_buf b = {0};
    uint64_t turn = 0;
    const enum eg_code code = eg_client_abort(m, c->session, f->turn, f->reason, &turn);
    if (code != EG_CODE_NONE && code != EG_CODE_conflict) {
        eg_out_error(m, c->id, code, NULL, NULL, (struct eg_slice){0}, retry_after(code));
        return;
    }
    eg_buf_printf(&b, "{\"type\":\"%s\"", code == EG_CODE_NONE ? "aborted" : "no_active_turn");
    eg_json_kcstr(&b, "session_id", c->session->id);
    if (code == EG_CODE_NONE) {
        eg_json_kint(&b, "turn", (int64_t)turn);
    }
    eg_buf_char(&b, '}');
    eg_out_buf(m, c->id, &b);
}

static void frame_ack(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f)
{
    const struct eg_slice sub = eg_slice_cstr(c->sub->sub);
    const struct eg_slice none = {0};
    if (f->cursor > (int64_t)c->session->cursor) {
        eg_out_error(m, c->id, EG_CODE_invalid_request, "cursor is past the end of the log",
                     "cursor", none, -1);
    } else if (!eg_machine_write(m)) {
        eg_out_error(m, c->id, EG_CODE_storage_unavailable, NULL, NULL, none, 1);
    } else if (acked_cursor(m, c->session, sub) < (uint64_t)f->cursor) {
        c->session->unacked = false;
        m->storage->ops->ack_put(m->storage, c->session->sid, sub, (uint64_t)f->cursor);
    }
}

void eg_client_frame(struct eg_machine *m, struct eg_conn *c, struct eg_cmd *cmd)
{
    eg_session_touch(m, c->session);
    switch (cmd->frame.type) {
    case EG_FRAME_MESSAGE:
        frame_message(m, c, cmd);
        break;
    case EG_FRAME_ABORT:
        frame_abort(m, c, &cmd->frame);
        break;
    case EG_FRAME_ACK:
        frame_ack(m, c, &cmd->frame);
        break;
    case EG_FRAME_PRESENCE:
        eg_presence_frame(m, c, &cmd->frame);
        break;
    case EG_FRAME_TYPING:
        eg_presence_typing(m, c);
        break;
    default:
        eg_out_error(m, c->id, EG_CODE_insufficient_scope, NULL, NULL, (struct eg_slice){0}, -1);
        break;
    }
}
