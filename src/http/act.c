/*
 * act.c - changes: everything that changes something goes through the core, with its entry in the
 * audit log in the same transaction, and is answered after the commit.
 */
#include <string.h>

#include "http/http_int.h"
#include "wire/frame.h"

struct eg_slice eg_x_id(const struct eg_exchange *x)
{
    return x->param[0];
}

struct eg_identity eg_x_identity(const struct eg_exchange *x)
{
    return (struct eg_identity){.sub = x->claims.sub,
                                .scopes = x->claims.scopes,
                                .agents = x->claims.agents,
                                .sessions = x->claims.sessions};
}

/* What the code of a refused call leaves open; NULL when it says enough. */
static const char *why_not(const struct eg_call *call)
{
    if (call->kind == EG_CALL_AGENT_DELETE && call->code == EG_CODE_conflict)
        return "it has workers, or turns that wait or run";
    if (call->kind == EG_CALL_TURN_RETRY && call->code == EG_CODE_not_found)
        return "the session has no such dead turn";
    return NULL;
}

bool eg_x_call(struct eg_exchange *x, struct eg_call *call, const char *action, const char *detail)
{
    if (x->admin) {
        call->audit_who = eg_slice_cstr(x->claims.sub);
        call->audit_from = eg_slice_cstr(x->addr);
        call->audit_action = eg_slice_cstr(action);
        call->audit_detail = eg_slice_cstr(detail ? detail : "");
    }
    eg_core_call(x->http->config.core, call);
    if (call->code == EG_CODE_NONE)
        return true;
    eg_x_problem(x, 0, call->code, why_not(call), NULL);
    return false;
}

bool eg_x_audit(struct eg_exchange *x, const char *action, const char *detail)
{
    struct eg_call call = {.kind = EG_CALL_AUDIT, .turn = -1};
    return eg_x_call(x, &call, action, detail);
}

/* A traceparent header, as a frame may have one; else nothing (W3C Trace Context 3.2.2). */
static struct eg_slice trace_of(const struct eg_exchange *x)
{
    const struct eg_slice s = eg_slice_cstr(eg_x_header(x, "Traceparent"));
    return eg_traceparent_valid(s) ? s : (struct eg_slice){NULL, 0};
}

/* Content as a client may say it; compact, so that it is stored as a frame's would be. */
static bool take_content(struct eg_exchange *x, struct eg_call *call)
{
    const struct eg_json_member *content = eg_json_get(&x->doc, "content");
    const struct eg_json_member *metadata = eg_json_get(&x->doc, "metadata");
    if (!content || content->kind == EG_JSON_NULL || eg_slice_is(content->value, "\"\"")) {
        eg_x_invalid(x, "content", "is required, and neither null nor empty");
        return false;
    }
    eg_json_compact(&x->texts[0], content->value);
    call->content = (struct eg_slice){x->texts[0].p, x->texts[0].n};
    if (metadata && metadata->kind != EG_JSON_NULL) {
        if (metadata->kind != EG_JSON_OBJECT) {
            eg_x_invalid(x, "metadata", "must be an object");
            return false;
        }
        eg_json_compact(&x->texts[1], metadata->value);
        call->metadata = (struct eg_slice){x->texts[1].p, x->texts[1].n};
    }
    if (x->texts[0].err == EG_OK && x->texts[1].err == EG_OK)
        return true;
    eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
    return false;
}

static bool take_key(struct eg_exchange *x, struct eg_call *call)
{
    size_t bad;
    call->message_id = eg_slice_cstr(eg_x_header(x, "Idempotency-Key"));
    if (!call->message_id.p || (call->message_id.n >= 1 && call->message_id.n <= EG_ID_MAX &&
                                eg_utf8_valid(call->message_id, &bad)))
        return true;
    eg_x_invalid(x, "Idempotency-Key", "must be 1 to 128 bytes of UTF-8");
    return false;
}

bool eg_x_message(struct eg_exchange *x, const struct eg_identity *who, struct eg_slice source)
{
    struct eg_call call = {.kind = EG_CALL_MESSAGE,
                           .session_id = eg_x_id(x),
                           .identity = who,
                           .source = source,
                           .traceparent = trace_of(x),
                           .turn = -1};
    struct eg_buf b = {0};
    if (!take_content(x, &call) || !take_key(x, &call))
        return false;
    if (!eg_x_call(x, &call, "session.message", x->path))
        return false;
    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "session_id", call.session_id);
    if (call.message_id.n)
        eg_json_kstr(&b, "message_id", call.message_id);
    eg_json_kint(&b, "cursor", (int64_t)call.out_cursor);
    eg_json_kint(&b, "turn", (int64_t)call.out_turn);
    eg_json_kbool(&b, "duplicate", call.duplicate);
    eg_buf_char(&b, '}');
    eg_x_json(x, 202, &b);
    return true;
}

bool eg_x_abort(struct eg_exchange *x, const struct eg_identity *who)
{
    struct eg_call call = {
        .kind = EG_CALL_ABORT, .session_id = eg_x_id(x), .identity = who, .turn = -1};
    struct eg_buf b = {0};
    if (!eg_x_int(x, "turn", false, 1, EG_JSON_INT_MAX, &call.turn) ||
        !eg_x_text(x, "reason", false, 0, (size_t)x->settings->max_payload, 0, &call.reason))
        return false;
    if (x->admin) {
        call.audit_who = eg_slice_cstr(x->claims.sub);
        call.audit_from = eg_slice_cstr(x->addr);
        call.audit_action = EG_LIT("turn.abort");
        call.audit_detail = eg_slice_cstr(x->path);
    }
    eg_core_call(x->http->config.core, &call);
    if (call.code != EG_CODE_NONE && call.code != EG_CODE_conflict) {
        eg_x_problem(x, 0, call.code, NULL, NULL);
        return false;
    }
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "status", call.code == EG_CODE_NONE ? "aborted" : "no_active_turn");
    eg_json_kstr(&b, "session_id", call.session_id);
    if (call.code == EG_CODE_NONE)
        eg_json_kint(&b, "turn", (int64_t)call.out_turn);
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
    return true;
}
