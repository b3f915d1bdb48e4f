/*
 * client.c - plain HTTP for clients, on the public listener: begin a session, say something, abort.
 * (Events are in events.c, the key set in access.c.)
 *
 * HTTP threads. The core judges whether the token may enter the session; what the token's claim
 * `agents` allows is judged here, as at a handshake.
 */
#include <string.h>

#include "http/http_int.h"
#include "wire/frame.h"

/* A gateway that drains takes in nothing new. */
static bool open_for_business(struct eg_exchange *x)
{
    if (!eg_metric_get(EG_M_draining))
        return true;
    eg_x_problem(x, 0, EG_CODE_draining, NULL, NULL);
    return false;
}

/* Whether the token may talk to the agent of the session; an unknown session is the core's to
 * tell. */
static bool may_talk(struct eg_exchange *x)
{
    struct eg_session_row row;
    if (!x->claims.agents)
        return true;
    struct eg_reader *r = eg_x_reader(x);
    if (!r)
        return false;
    const bool found = eg_x_session(x, r, eg_x_id(x), &row);
    eg_x_return(x, r);
    if (!found)
        return false;
    if (eg_claims_list_has(x->claims.agents, eg_slice_cstr(row.agent), true))
        return true;
    eg_x_problem(x, 0, EG_CODE_auth_unauthorized, NULL, NULL);
    return false;
}

void eg_h_client_create(struct eg_exchange *x)
{
    const struct eg_identity who = eg_x_identity(x);
    struct eg_call call = {.kind = EG_CALL_CREATE, .identity = &who, .turn = -1};
    struct eg_buf b = {0};
    if (!open_for_business(x) || !eg_x_check_body(x, "agent_id session_id") ||
        !eg_x_text(x, "agent_id", true, 1, EG_ID_MAX, 0, &call.agent) ||
        !eg_x_text(x, "session_id", false, 1, EG_ID_MAX, 1, &call.session_id))
        return;
    if (call.session_id.p && !eg_session_id_valid(call.session_id)) {
        eg_x_invalid(x, "session_id", "must be of A-Z a-z 0-9 . _ : -");
        return;
    }
    if (!eg_claims_list_has(x->claims.agents, call.agent, true)) {
        eg_x_problem(x, 0, EG_CODE_auth_unauthorized, NULL, NULL);
        return;
    }
    eg_core_call(x->http->config.core, &call);
    if (call.code != EG_CODE_NONE) {
        x->retry_s = call.retry_after_s;
        eg_x_problem(x, 0, call.code, call.message,
                     call.code == EG_CODE_agent_not_found ? "agent_id" : NULL);
        return;
    }
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "session_id", call.out_session_id);
    eg_json_kstr(&b, "agent_id", call.agent);
    eg_json_kcstr(&b, "epoch", call.out_epoch);
    eg_json_kint(&b, "cursor", (int64_t)call.out_cursor);
    eg_buf_char(&b, '}');
    eg_x_json(x, call.created ? 201 : 200, &b);
}

void eg_h_client_message(struct eg_exchange *x)
{
    const struct eg_identity who = eg_x_identity(x);
    if (open_for_business(x) && eg_x_check_body(x, EG_MESSAGE_FIELDS) && may_talk(x))
        eg_x_message(x, &who, (struct eg_slice){NULL, 0});
}

void eg_h_client_abort(struct eg_exchange *x)
{
    const struct eg_identity who = eg_x_identity(x);
    if (eg_x_check_body(x, EG_ABORT_FIELDS) && may_talk(x))
        eg_x_abort(x, &who);
}
