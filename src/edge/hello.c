/*
 * hello.c - the first frame: who asks for what, and may they? The core answers the rest.
 *
 * The order of the checks is part of the protocol: origin and limits, shape of the frame, token,
 * protocol version, agent, session; the first failure is the one told. The last two are the
 * core's. One message for every reason why a token is not good enough; the reason goes to the log.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "edge/peer.h"
#include "wire/json.h"

#define RETRY_AFTER_S 2

/* What the sender called the frame, when it can be told although the frame is refused. */
static enum eg_frame_type named_type(struct eg_slice text)
{
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) != EG_OK) {
        return EG_FRAME_COUNT;
    }
    const struct eg_json_member *const m = eg_json_get(&doc, "type");
    for (int t = 0; m && m->kind == EG_JSON_STRING && t < EG_FRAME_COUNT; t++) {
        const struct eg_slice inner = {m->value.p + 1, m->value.n - 2};
        if (eg_slice_is(inner, eg_frame_name((enum eg_frame_type)t))) {
            return (enum eg_frame_type)t;
        }
    }
    return EG_FRAME_COUNT;
}

static void refusal_text(struct eg_buf *out, enum eg_code code, const char *message,
                         const char *field, const char *next_step, int64_t retry_after_s)
{
    const struct eg_code_info *const info = eg_code_info(code);
    eg_buf_str(out, "{\"type\":\"hello_error\"");
    eg_json_kcstr(out, "code", info->name);
    eg_json_kcstr(out, "message", message ? message : info->text);
    eg_json_kcstr(out, "next_step", next_step);
    eg_json_kcstr(out, "next", next_step);
    if (retry_after_s >= 0) {
        eg_json_kint(out, "retry_after_seconds", retry_after_s);
    }
    if (field && *field) {
        eg_json_kcstr(out, "field", field);
    }
    if (code == EG_CODE_protocol_unsupported) {
        eg_buf_str(out, ",\"supported\":{");
        eg_json_kint(out, "min", EG_PROTOCOL_MIN);
        eg_json_kint(out, "max", EG_PROTOCOL_MAX);
        eg_buf_char(out, '}');
    }
    eg_buf_char(out, '}');
}

void eg_hello_refuse(struct eg_peer *p, enum eg_code code, const char *message, const char *field,
                     const char *next_step, int64_t retry_after_s, bool join)
{
    const struct eg_code_info *const info = eg_code_info(code);
    const char *const step = next_step ? next_step : info->next_step;
    if (retry_after_s < 0 && strcmp(step, "wait_then_retry") == 0) {
        retry_after_s = RETRY_AFTER_S;
    }
    eg_metric_error(code);
    eg_log_limited(EG_LOG_INFO, "hello.refused", "conn=" EG_CONN_HEX EG_F "addr=%s" EG_F "code=%s",
                   eg_peer_id(p), eg_peer_text(p, EG_TEXT_ADDR), info->name);
    eg_buf_reset(&p->r->text);
    if (join) {
        eg_error_frame(&p->r->text, code, message, field, (struct eg_slice){0}, NULL,
                       retry_after_s);
    } else {
        refusal_text(&p->r->text, code, message, field, step, retry_after_s);
    }
    eg_peer_send_text(p);
    eg_peer_close(p, info->close_code, info->name);
}

/* Origin and limits: judged when the connection was accepted, told now. */
static enum eg_code judge_entry(const struct eg_peer *p)
{
    const struct eg_greet *const g = p->greet;
    if (!g->origin_allowed) {
        return EG_CODE_origin_not_allowed;
    }
    if (g->refuse != EG_CODE_NONE) {
        return g->refuse;
    }
    return g->draining || __atomic_load_n(&p->r->set->draining, __ATOMIC_ACQUIRE) ? EG_CODE_draining
                                                                                  : EG_CODE_NONE;
}

/* A first frame that is no good hello. */
static void refuse_shape(struct eg_peer *p, struct eg_slice text, const struct eg_frame_error *why)
{
    const enum eg_frame_type type = named_type(text);
    if (type == EG_FRAME_HELLO || type == EG_FRAME_JOIN) {
        eg_hello_refuse(p, why->code, why->message, why->field, NULL, -1, type == EG_FRAME_JOIN);
    } else if (type != EG_FRAME_COUNT) {
        eg_peer_error(p, EG_CODE_not_joined, NULL, NULL, eg_slice_cstr(why->ref), NULL, -1);
    } else {
        eg_peer_error(p, why->code, why->message, why->field, eg_slice_cstr(why->ref), NULL, -1);
    }
}

/* Whether the token's rights reach for what hello asks. */
static const char *lacking(const struct eg_frame *f, const struct eg_claims *claims)
{
    if (f->role == EG_ROLE_AGENT) {
        if (!(claims->scopes & EG_SCOPE_AGENT)) {
            return "scope agent is missing";
        }
        if (!eg_claims_list_has(claims->agents, f->agent_id, false)) {
            return "agents does not hold this id";
        }
        return NULL;
    }
    if (!(claims->scopes & (EG_SCOPE_READ | EG_SCOPE_WRITE))) {
        return "neither scope read nor write";
    }
    return eg_claims_list_has(claims->agents, f->agent_id, true) ? NULL
                                                                 : "agents does not hold this id";
}

static enum eg_code check_token(struct eg_peer *p, const struct eg_frame *f,
                                struct eg_claims *claims)
{
    const struct eg_greet *const g = p->greet;
    struct eg_slice token = eg_slice_cstr(g->token);
    const char *cause = NULL;
    if (f->token.n && (token.n == 0 || g->token_from_query)) {
        token = f->token;
    }
    if (token.n == 0) {
        return EG_CODE_auth_required;
    }
    const enum eg_err err =
        eg_auth_check(p->r->set->auth, token, p->r->now.wall_ms, claims, &cause);
    if (err == EG_ENOMEM) {
        return EG_CODE_internal;
    }
    if (err == EG_OK) {
        cause = lacking(f, claims);
        if (!cause) {
            return EG_CODE_NONE;
        }
        eg_claims_free(claims);
    }
    *claims = (struct eg_claims){0};
    eg_log_limited(EG_LOG_WARN, "auth.refused", "addr=%s" EG_F "cause=%s",
                   eg_peer_text(p, EG_TEXT_ADDR), cause ? cause : "unknown");
    return EG_CODE_auth_unauthorized;
}

/* Remembers what the connection is; the strings it is asked for later. */
static enum eg_err settle(struct eg_peer *p, const struct eg_frame *f,
                          const struct eg_claims *claims)
{
    char *const agent = eg_slice_dup(f->agent_id);
    char *const session = eg_slice_dup(f->session_id);
    char *const name = eg_slice_dup(f->client_name);
    char *const version = eg_slice_dup(f->client_version);
    const char *texts[EG_TEXT_COUNT] = {
        [EG_TEXT_SUB] = claims->sub,        [EG_TEXT_JTI] = claims->jti,
        [EG_TEXT_KID] = claims->kid,        [EG_TEXT_AGENT] = agent,
        [EG_TEXT_SESSION] = session,        [EG_TEXT_CLIENT_NAME] = name,
        [EG_TEXT_CLIENT_VERSION] = version,
    };
    enum eg_err err = EG_ENOMEM;
    if (agent && session && name && version) {
        err = eg_peer_texts(p, texts);
    }
    free(agent);
    free(session);
    free(name);
    free(version);
    p->role = (unsigned char)f->role;
    p->caps = (unsigned char)f->caps;
    p->scopes = (unsigned char)claims->scopes;
    p->legacy = f->type == EG_FRAME_JOIN;
    eg_live_until(p, claims->exp_s);
    return err;
}

/* Asks the core. Takes the frame and the claims' strings. */
static void attach(struct eg_peer *p, struct eg_frame *f, struct eg_claims *claims)
{
    struct eg_cmd *const cmd = eg_cmd_new(EG_CMD_ATTACH, eg_peer_id(p));
    if (!cmd || settle(p, f, claims) != EG_OK) {
        eg_cmd_free(cmd);
        eg_frame_free(f);
        eg_claims_free(claims);
        eg_peer_end(p);
        return;
    }
    cmd->legacy = p->legacy;
    cmd->stream = p->mode == EG_CONN_SSE;
    cmd->frame = *f;
    cmd->identity = (struct eg_identity){.sub = claims->sub,
                                         .scopes = claims->scopes,
                                         .agents = claims->agents,
                                         .sessions = claims->sessions};
    claims->sub = NULL;
    claims->agents = claims->sessions = NULL;
    eg_claims_free(claims);
    p->attached = true;
    p->state = EG_PEER_ATTACHING;
    eg_loop_post(p->r, cmd);
}

static void check_hello(struct eg_peer *p, struct eg_frame *f)
{
    const bool join = f->type == EG_FRAME_JOIN;
    struct eg_claims claims = {0};
    const char *step = NULL, *field = NULL;
    enum eg_code code = EG_CODE_NONE;
    if (f->protocol_min > f->protocol_max) {
        code = EG_CODE_invalid_request;
        field = join ? "min_version" : "protocol_min";
    } else {
        code = check_token(p, f, &claims);
    }
    if (code == EG_CODE_NONE &&
        (f->protocol_max < EG_PROTOCOL_MIN || f->protocol_min > EG_PROTOCOL_MAX)) {
        code = EG_CODE_protocol_unsupported;
        step = f->protocol_max < EG_PROTOCOL_MIN ? "upgrade_client" : "downgrade_client";
    }
    if (code != EG_CODE_NONE) {
        eg_frame_free(f);
        eg_claims_free(&claims);
        eg_hello_refuse(p, code, NULL, field, step, -1, join);
        return;
    }
    attach(p, f, &claims);
}

void eg_hello_frame(struct eg_peer *p, struct eg_slice text)
{
    struct eg_frame frame;
    struct eg_frame_error why = {0};
    const enum eg_err err = eg_frame_parse(text, &frame, &why);
    const enum eg_code entry = judge_entry(p);
    if (entry != EG_CODE_NONE) {
        const bool join = (err == EG_OK ? frame.type : named_type(text)) == EG_FRAME_JOIN;
        if (err == EG_OK) {
            eg_frame_free(&frame);
        }
        eg_hello_refuse(p, entry, NULL, NULL, NULL, -1, join);
    } else if (err == EG_EINVALID) {
        refuse_shape(p, text, &why);
    } else if (err != EG_OK) {
        eg_peer_end(p);
    } else if (frame.type != EG_FRAME_HELLO && frame.type != EG_FRAME_JOIN) {
        eg_peer_error(p, EG_CODE_not_joined, NULL, NULL,
                      frame.message_id.n ? frame.message_id : frame.event_id, NULL, -1);
        eg_frame_free(&frame);
    } else {
        check_hello(p, &frame);
    }
}

void eg_hello_stream(struct eg_peer *p, struct eg_adopted *a)
{
    struct eg_claims claims = a->claims;
    struct eg_frame f = {.type = EG_FRAME_HELLO,
                         .protocol_min = 1,
                         .protocol_max = 1,
                         .caps = EG_CAP_STREAMING,
                         .role = EG_ROLE_CLIENT,
                         .concurrency = 1,
                         .since = a->since,
                         .before = -1,
                         .limit = -1,
                         .cursor = -1,
                         .turn = -1,
                         .retry_after_ms = -1,
                         .retry = true};
    const size_t id_n = strlen(a->sse_session), epoch_n = a->epoch ? strlen(a->epoch) : 0;
    a->claims = (struct eg_claims){0};
    eg_buf_add(&f.scratch, a->sse_session, id_n);
    eg_buf_add(&f.scratch, a->epoch ? a->epoch : "", epoch_n);
    if (f.scratch.err) {
        eg_frame_free(&f);
        eg_claims_free(&claims);
        eg_peer_end(p);
        return;
    }
    f.session_id = (struct eg_slice){f.scratch.p, id_n};
    f.epoch = (struct eg_slice){f.scratch.p + id_n, epoch_n};
    attach(p, &f, &claims);
    if (!p->gone) {
        eg_live_judge(p); /* its token was verified some time ago, in another thread */
    }
}
