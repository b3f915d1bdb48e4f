/*
 * welcome.c - the answer to hello and join: what was agreed, and the way into the stream of events.
 */
#include <stdlib.h>

#include "base/log.h"
#include "edge/peer.h"
#include "wire/json.h"

/* An event that the gateway may send unasked; need: capabilities; read: only with scope read. */
struct offer {
    const char *name;
    unsigned char need;
    bool read, client, agent;
};

static const struct offer offers[] = {
    {"message", 0, true, true, false},
    {"response", 0, true, true, false},
    {"message_abort", 0, true, true, false},
    {"session_end", 0, true, true, false},
    {"token_stream", EG_CAP_STREAMING, true, true, false},
    {"tool_call_stream", EG_CAP_STREAMING, true, true, false},
    {"tool_result_stream", EG_CAP_STREAMING, true, true, false},
    {"reasoning_stream", EG_CAP_STREAMING, true, true, false},
    {"tool_progress_stream", EG_CAP_STREAMING, true, true, false},
    {"stream_error", EG_CAP_STREAMING, true, true, false},
    {"stream_end", EG_CAP_STREAMING, true, true, false},
    {"model_fallback_stream", EG_CAP_STREAMING, true, true, false},
    {"retry_stream", EG_CAP_STREAMING, true, true, false},
    {"todo_stream", EG_CAP_STREAMING, true, true, false},
    {"status", EG_CAP_STREAMING, true, true, false},
    {"x.*", EG_CAP_STREAMING, true, true, false},
    {"*", 0, true, true, false}, /* whatever name a worker chooses for what it publishes */
    {"message_ack", EG_CAP_ACK, true, true, false},
    {"message_nack", EG_CAP_ACK, true, true, false},
    {"delivery_retry", EG_CAP_ACK, true, true, false},
    {"presence_join", EG_CAP_PRESENCE, true, true, false},
    {"presence_update", EG_CAP_PRESENCE, true, true, false},
    {"presence_leave", EG_CAP_PRESENCE, true, true, false},
    {"typing", EG_CAP_PRESENCE, true, true, false},
    {"replay", 0, true, true, false},
    {"replay_end", 0, false, true, false},
    {"snapshot", 0, false, true, false},
    {"turn", 0, false, false, true},
    {"abort", 0, false, false, true},
    {"emitted", EG_CAP_ACK, false, false, true},
    {"error", 0, false, true, true},
    {"ping", 0, false, true, true},
    {"token_expiring", 0, false, true, true},
    {"reconnect", 0, false, true, true},
};

static void list_item(struct eg_buf *out, const char *name, int *n)
{
    if ((*n)++) {
        eg_buf_char(out, ',');
    }
    eg_json_quote(out, eg_slice_cstr(name));
}

/* Whether an offer holds for p. Stream events are those the wire layer calls so. */
static bool offered(const struct eg_peer *p, const struct offer *o)
{
    unsigned need = o->need;
    if (need == EG_CAP_STREAMING && !eg_event_is_stream(eg_slice_cstr(o->name))) {
        need = 0;
    }
    return (p->role == EG_ROLE_AGENT ? o->agent : o->client) && (p->caps & need) == need &&
           (!o->read || (p->scopes & EG_SCOPE_READ));
}

static void write_features(const struct eg_peer *p, struct eg_buf *out)
{
    int n = 0;
    eg_buf_str(out, ",\"features\":{\"methods\":[");
    for (int t = 0; t < EG_FRAME_COUNT; t++) {
        const char *scope;
        if (t != EG_FRAME_HELLO && t != EG_FRAME_JOIN && t != EG_FRAME_PONG &&
            eg_method_allowed(p, (enum eg_frame_type)t, &scope)) {
            list_item(out, eg_frame_name((enum eg_frame_type)t), &n);
        }
    }
    n = 0;
    eg_buf_str(out, "],\"events\":[");
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) {
        if (offered(p, &offers[i])) {
            list_item(out, offers[i].name, &n);
        }
    }
    eg_buf_str(out, "]}");
}

/* They depend on role, capabilities and scopes alone; most connections have the same. */
static void features(const struct eg_peer *p, struct eg_buf *out)
{
    struct eg_reactor *const r = p->r;
    const uint32_t key =
        UINT32_C(1) << 24 | (uint32_t)p->role << 16 | (uint32_t)p->caps << 8 | p->scopes;
    struct eg_features *kept = NULL;
    for (size_t i = 0; i < EG_FEATURES_KEPT && !kept; i++) {
        kept = r->features[i].key == key ? &r->features[i] : NULL;
    }
    if (!kept) {
        kept = &r->features[r->features_next++ % EG_FEATURES_KEPT];
        eg_buf_reset(&kept->text);
        write_features(p, &kept->text);
        kept->key = kept->text.err ? 0 : key;
    }
    if (kept->text.err) {
        out->err = kept->text.err;
    }
    eg_buf_add(out, kept->text.p, kept->text.n);
}

/* The limits in force; a worker is told its lease too, so that it knows when to extend. */
static void policy(const struct eg_settings *s, bool worker, struct eg_buf *out)
{
    eg_buf_str(out, ",\"policy\":{");
    eg_json_kint(out, "max_payload", s->max_payload);
    eg_json_kint(out, "max_buffered_bytes", s->max_buffered_bytes);
    eg_json_kint(out, "max_queued_frames", s->max_queued_frames);
    eg_json_kint(out, "heartbeat_ms", s->heartbeat_ms);
    if (worker) {
        eg_json_kint(out, "turn_lease_ms", s->turn_lease_ms);
    }
    eg_buf_char(out, '}');
}

const char *eg_resync_reason(enum eg_resync why)
{
    switch (why) {
    case EG_RESYNC_TRIMMED:
        return "trimmed";
    case EG_RESYNC_AHEAD:
        return "cursor_ahead";
    case EG_RESYNC_EPOCH:
        return "epoch_changed";
    case EG_RESYNC_NONE:
        break;
    }
    return "";
}

static void position(const struct eg_welcome *w, struct eg_buf *out)
{
    eg_json_kbool(out, "resumed", w->resumed);
    eg_json_kint(out, "cursor", (int64_t)w->cursor);
    eg_json_kint(out, "sequence", (int64_t)w->sequence);
    eg_json_kint(out, "oldest_cursor", (int64_t)w->oldest);
    eg_json_kbool(out, "resync_required", w->resync != EG_RESYNC_NONE);
    if (w->resync != EG_RESYNC_NONE) {
        eg_json_kcstr(out, "resync_reason", eg_resync_reason(w->resync));
    }
}

static void hello_ok(const struct eg_peer *p, const struct eg_welcome *w, struct eg_buf *out)
{
    eg_buf_str(out, "{\"type\":\"hello_ok\"");
    eg_json_kint(out, "protocol", EG_PROTOCOL_MAX);
    features(p, out);
    policy(p->r->settings, w->worker, out);
    if (w->worker) {
        eg_json_kcstr(out, "worker_id", w->worker_id);
    } else {
        eg_json_kcstr(out, "session_id", w->session_id);
        position(w, out);
        eg_json_kint(out, "acked_cursor", (int64_t)w->acked);
    }
    eg_json_kcstr(out, "epoch", w->epoch);
    eg_buf_str(out, ",\"server\":{\"name\":\"ebbgate\",\"version\":\"" EG_VERSION "\"}}");
}

static void joined(const struct eg_welcome *w, struct eg_buf *out)
{
    eg_buf_str(out, "{\"type\":\"joined\"");
    eg_json_kcstr(out, "session_id", w->session_id);
    eg_json_kcstr(out, "agent_id", w->agent_id);
    position(w, out);
    eg_json_kint(out, "protocol_version", EG_PROTOCOL_MAX);
    eg_json_kint(out, "server_min_version", EG_PROTOCOL_MIN);
    eg_json_kint(out, "server_max_version", EG_PROTOCOL_MAX);
    eg_buf_char(out, '}');
}

/* The way from the handshake into live events. */
static enum eg_err enter(struct eg_peer *p, const struct eg_welcome *w)
{
    p->sid = w->sid;
    p->head = w->cursor;
    p->sent = w->replay ? w->sequence : w->cursor;
    if (eg_follow_add(&p->r->follows, p) != EG_OK) {
        p->sid = 0;
        return EG_ENOMEM;
    }
    if (w->resync != EG_RESYNC_NONE && p->mode == EG_CONN_WS) {
        return eg_catchup_snapshot(p, w);
    }
    return w->replay ? eg_catchup_begin(p, true, w->cursor) : EG_OK;
}

static enum eg_err remember(struct eg_peer *p, const struct eg_welcome *w)
{
    const char *const texts[EG_TEXT_COUNT] = {[EG_TEXT_AGENT] = w->agent_id[0] ? w->agent_id : NULL,
                                              [EG_TEXT_SESSION] = w->session_id,
                                              [EG_TEXT_WORKER] = w->worker_id};
    const enum eg_err err = eg_peer_texts(p, texts);
    if (p->greet) {
        free(p->greet->token);
        free(p->greet);
        p->greet = NULL;
    }
    p->closed_session = w->closed;
    p->by_sessions = w->guest;
    p->state = EG_PEER_JOINED;
    p->max_payload = (uint32_t)p->r->settings->max_payload;
    p->last_in_ms = p->r->now.mono_ms;
    if (p->counted) {
        eg_limits_established(p->r->set->limits, eg_peer_text(p, EG_TEXT_ADDR));
        p->established = true;
    }
    return err;
}

void eg_welcome(struct eg_peer *p, const struct eg_welcome *w)
{
    struct eg_buf *const text = &p->r->text;
    if (p->gone || p->state != EG_PEER_ATTACHING) {
        return;
    }
    if (remember(p, w) != EG_OK) {
        eg_peer_end(p);
        return;
    }
    eg_log(EG_LOG_DEBUG, "conn.joined",
           "conn=" EG_CONN_HEX EG_F "sub=%s" EG_F "agent=%s" EG_F "session=%s", eg_peer_id(p),
           eg_peer_text(p, EG_TEXT_SUB), w->agent_id, w->session_id);
    if (p->mode == EG_CONN_SSE) {
        eg_sse_welcome(p, w);
    } else {
        eg_buf_reset(text);
        if (p->legacy) {
            joined(w, text);
        } else {
            hello_ok(p, w, text);
        }
        eg_peer_send_text(p);
    }
    if (!p->gone && !p->broken && !w->worker && p->state == EG_PEER_JOINED &&
        enter(p, w) != EG_OK) {
        eg_peer_end(p);
    }
    if (!p->gone && p->state == EG_PEER_JOINED) {
        if (p->closed_session && !p->catchup) {
            eg_peer_close(p, EG_CLOSE_NORMAL, "session_closed");
            return;
        }
        eg_live_schedule(p);
        eg_input_resume(p);
    }
}
