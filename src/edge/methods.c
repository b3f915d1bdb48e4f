/*
 * methods.c - frames after the handshake: which connection may use which, and those that need no
 * core: ping, history, leave, auth. All others become commands.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "edge/parser.h"
#include "edge/pool.h"
#include "wire/json.h"

enum who { NOBODY = 0, CLIENT = 1, AGENT = 2, BOTH = 3 };

struct rule {
    enum who who;
    unsigned char scope; /* needed of a client */
    unsigned char cap;
    bool core; /* handed to the core */
};

static const struct rule rules[EG_FRAME_COUNT] = {
    [EG_FRAME_MESSAGE] = {CLIENT, EG_SCOPE_WRITE, 0, true},
    [EG_FRAME_ABORT] = {CLIENT, EG_SCOPE_WRITE, 0, true},
    [EG_FRAME_LEAVE] = {BOTH, 0, 0, false},
    [EG_FRAME_ACK] = {CLIENT, EG_SCOPE_READ, 0, true},
    [EG_FRAME_HISTORY] = {BOTH, EG_SCOPE_READ, 0, false},
    [EG_FRAME_PING] = {BOTH, 0, 0, false},
    [EG_FRAME_PONG] = {BOTH, 0, 0, false},
    [EG_FRAME_PRESENCE] = {CLIENT, 0, EG_CAP_PRESENCE, true},
    [EG_FRAME_TYPING] = {CLIENT, 0, EG_CAP_PRESENCE, true},
    [EG_FRAME_AUTH] = {BOTH, 0, 0, false},
    [EG_FRAME_EMIT] = {AGENT, 0, 0, true},
    [EG_FRAME_FINAL] = {AGENT, 0, 0, true},
    [EG_FRAME_FAIL] = {AGENT, 0, 0, true},
    [EG_FRAME_EXTEND] = {AGENT, 0, 0, true},
    [EG_FRAME_PUBLISH] = {AGENT, 0, 0, true},
};

/* The scope that a method needs of a client. */
static const char *scope_of(const struct rule *rule)
{
    return rule->scope == EG_SCOPE_READ ? "read" : "write";
}

bool eg_method_allowed(const struct eg_peer *p, enum eg_frame_type type, const char **scope)
{
    const struct rule *const rule = &rules[type];
    const bool agent = p->role == EG_ROLE_AGENT;
    *scope = NULL;
    if (!(rule->who & (agent ? AGENT : CLIENT))) {
        *scope = rule->who == AGENT ? "agent" : rule->scope ? scope_of(rule) : NULL;
        return false;
    }
    if (!agent && rule->scope && !(p->scopes & rule->scope)) {
        *scope = scope_of(rule);
        return false;
    }
    return (p->caps & rule->cap) == rule->cap;
}

static struct eg_slice ref_of(const struct eg_frame *f)
{
    return f->message_id.n ? f->message_id : f->event_id;
}

/* Says no to a method that is not this connection's. A scope is named only where one is missing. */
static void refuse(struct eg_peer *p, const struct eg_frame *f, const char *scope)
{
    const char *const why = rules[f->type].who == NOBODY ? "the handshake is over"
                            : p->role == EG_ROLE_AGENT
                                ? "only clients send this"
                                : "the capability presence was not agreed on";
    if (scope) {
        eg_peer_error(p, EG_CODE_insufficient_scope, NULL, NULL, ref_of(f), scope, -1);
    } else {
        eg_peer_error(p, EG_CODE_invalid_request, why, "type", ref_of(f), NULL, -1);
    }
}

/* Whether the rates allow one more frame of n bytes. */
static bool within_rates(struct eg_peer *p, size_t n)
{
    const struct eg_settings *const s = p->r->settings;
    if (!s->message_rate && !s->byte_rate) {
        return true;
    }
    if (!p->rates) {
        p->rates = calloc(1, sizeof *p->rates);
        if (!p->rates) {
            return false;
        }
    }
    return eg_bucket_take(&p->rates->messages, s->message_rate, 1, p->r->now.mono_ms) &&
           eg_bucket_take(&p->rates->bytes, s->byte_rate, (int64_t)n, p->r->now.mono_ms);
}

/* Asks the core to say when it is done with all that p sent it; false without memory. */
static bool ask_sync(struct eg_peer *p)
{
    struct eg_cmd *const sync = eg_cmd_new(EG_CMD_SYNC, eg_peer_id(p));
    if (sync) {
        p->owed = p->owed_bytes = 0;
        p->syncs++;
        eg_loop_post(p->r, sync);
    }
    return sync != NULL;
}

/* Counts what is on its way to the core, and asks it now and then how far it is: often enough that
 * the answers to all that is on its way fill at most half of the peer's queue. A frame of half of
 * what may be on its way is asked after twice, so that there are never more than two of these. */
static void owe(struct eg_peer *p, size_t n)
{
    const int64_t share = p->r->settings->max_queued_frames / (2 * EG_SYNCS_MAX);
    const uint32_t most = share < EG_OWED_SYNC ? (uint32_t)share : EG_OWED_SYNC;
    const bool large = n >= EG_OWED_SYNC_BYTES * (EG_SYNCS_MAX / 2);
    p->owed++;
    p->owed_bytes += (uint32_t)n;
    if (large || p->owed >= most || p->owed_bytes >= EG_OWED_SYNC_BYTES) {
        (void)(ask_sync(p) && large && ask_sync(p)); /* asked again with the next frame */
    }
}

static bool appends(enum eg_frame_type type)
{
    return type == EG_FRAME_MESSAGE || type == EG_FRAME_ABORT || type == EG_FRAME_EMIT ||
           type == EG_FRAME_FINAL || type == EG_FRAME_PUBLISH;
}

/* Takes the frame. */
static void to_core(struct eg_peer *p, struct eg_reading *in)
{
    struct eg_frame *const f = &in->frame;
    struct eg_cmd *const cmd = eg_loop_command(p->r, eg_peer_id(p));
    if (!cmd) {
        eg_frame_free(f);
        eg_peer_end(p);
        return;
    }
    eg_frame_free(&cmd->frame); /* of a used one: the frame brings its own memory */
    cmd->frame = *f;
    if (in->tail.n) {
        eg_buf_free(&cmd->tail);
        cmd->tail = in->tail;
        in->tail = (struct eg_buf){0};
    }
    if (appends(f->type) && cmd->tail.n == 0) {
        eg_frame_tail(&cmd->frame, &cmd->tail);
        if (cmd->tail.err) {
            eg_cmd_free(cmd);
            eg_peer_end(p);
            return;
        }
    }
    eg_loop_post(p->r, cmd);
    owe(p, in->n);
}

static void pong(struct eg_peer *p, const struct eg_frame *f)
{
    struct eg_buf *const out = &p->r->text;
    eg_buf_reset(out);
    eg_buf_str(out, "{\"type\":\"pong\"");
    if (f->id.n) {
        eg_json_kraw(out, "id", f->id);
    }
    eg_json_kint(out, "cursor", (int64_t)p->sent);
    eg_buf_char(out, '}');
    eg_peer_send_text(p);
}

/* The answers to what was sent before come first. */
static void leave(struct eg_peer *p)
{
    if (ask_sync(p)) {
        p->leaving = true;
    } else {
        eg_peer_end(p);
    }
}

void eg_method_left(struct eg_peer *p)
{
    struct eg_buf *const out = &p->r->text;
    eg_buf_reset(out);
    eg_buf_str(out, "{\"type\":\"left\"");
    if (p->role == EG_ROLE_CLIENT) {
        eg_json_kcstr(out, "session_id", eg_peer_text(p, EG_TEXT_SESSION));
    }
    eg_buf_char(out, '}');
    eg_peer_send_text(p);
    eg_peer_close(p, EG_CLOSE_NORMAL, "left");
}

/* Whether a fresh token allows at least what the connection uses now. */
static const char *falls_short(const struct eg_peer *p, const struct eg_claims *claims)
{
    const unsigned used =
        p->scopes & (p->role == EG_ROLE_AGENT ? EG_SCOPE_AGENT : EG_SCOPE_READ | EG_SCOPE_WRITE);
    const struct eg_slice agent = eg_slice_cstr(eg_peer_text(p, EG_TEXT_AGENT));
    const struct eg_slice session = eg_slice_cstr(eg_peer_text(p, EG_TEXT_SESSION));
    if (strcmp(claims->sub, eg_peer_text(p, EG_TEXT_SUB)) != 0) {
        return "refresh: another sub";
    }
    if ((claims->scopes & used) != used) {
        return "refresh: fewer scopes";
    }
    if (!eg_claims_list_has(claims->agents, agent, p->role == EG_ROLE_CLIENT)) {
        return "refresh: agents does not hold this id";
    }
    if (p->by_sessions && !eg_claims_list_has(claims->sessions, session, false)) {
        return "refresh: sessions does not hold this id";
    }
    return NULL;
}

static void refresh(struct eg_peer *p, const struct eg_frame *f)
{
    struct eg_claims claims = {0};
    const char *cause = NULL;
    struct eg_buf *const out = &p->r->text;
    enum eg_err err = eg_auth_check(p->r->set->auth, f->token, p->r->now.wall_ms, &claims, &cause);
    if (err == EG_OK) {
        cause = falls_short(p, &claims);
    }
    if (err == EG_OK && !cause) {
        const char *const texts[EG_TEXT_COUNT] = {
            [EG_TEXT_JTI] = claims.jti, [EG_TEXT_KID] = claims.kid ? claims.kid : ""};
        err = eg_peer_texts(p, texts);
    }
    if (err == EG_OK && !cause) {
        eg_live_until(p, claims.exp_s);
        p->expiry_told = false;
        eg_buf_reset(out);
        eg_buf_str(out, "{\"type\":\"auth_ok\"");
        eg_json_kint(out, "expires_at", claims.exp_s);
        eg_buf_char(out, '}');
        eg_peer_send_text(p);
        if (!p->gone && p->state == EG_PEER_JOINED) {
            eg_live_schedule(p);
        }
    } else {
        eg_log_limited(EG_LOG_WARN, "auth.refused", "conn=" EG_CONN_HEX EG_F "cause=%s",
                       eg_peer_id(p), cause ? cause : eg_err_text(err));
        eg_peer_error(p, EG_CODE_auth_unauthorized, NULL, NULL, (struct eg_slice){0}, NULL, -1);
    }
    eg_claims_free(&claims);
}

static void history(struct eg_peer *p, const struct eg_frame *f)
{
    const bool worker = p->role == EG_ROLE_AGENT;
    if (p->broken) {
        return; /* there is nobody to tell */
    }
    if (f->since >= 0 && f->before >= 0) {
        eg_peer_error(p, EG_CODE_invalid_request, "since and before exclude each other", "before",
                      (struct eg_slice){0}, NULL, -1);
        return;
    }
    if (worker && (f->session_id.n == 0 || f->session_id.n > EG_ID_MAX)) {
        eg_peer_error(p, EG_CODE_invalid_request, "session_id is required", "session_id",
                      (struct eg_slice){0}, NULL, -1);
        return;
    }
    struct eg_job *const job = eg_job_new(EG_JOB_HISTORY, p);
    if (!job) {
        eg_peer_end(p);
        return;
    }
    if (worker) {
        memcpy(job->session, f->session_id.p, f->session_id.n);
        stpcpy(job->agent, eg_peer_text(p, EG_TEXT_AGENT));
    }
    job->descending = f->since < 0;
    job->from = f->since >= 0 ? (uint64_t)f->since + 1 : 1;
    job->to = f->before >= 0 ? (uint64_t)(f->before > 0 ? f->before - 1 : 0) : EG_JSON_INT_MAX;
    job->limit = f->limit > 0 && f->limit < EG_HISTORY_MAX ? (int)f->limit : EG_HISTORY_MAX;
    job->streaming = worker || (p->caps & EG_CAP_STREAMING);
    job->max_bytes = (size_t)p->r->settings->max_payload;
    p->history = true;
    p->history_job = job;
    eg_pool_give(p->r->set->pool, job);
}

void eg_method_history(struct eg_peer *p, struct eg_job *job)
{
    struct eg_outent ent;
    if (!p || p->gone || p->broken || p->state != EG_PEER_JOINED) {
        return;
    }
    p->history_job = NULL;
    if (job->err == EG_OK) {
        eg_outent_frame(&ent, job->bytes, EG_WS_OP_TEXT);
        ent.paged = true;
        job->bytes = NULL;
        eg_peer_take(p, &ent);
    } else if (job->err == EG_ENOTFOUND) {
        eg_peer_error(p, EG_CODE_invalid_request, "no session of this agent has this id",
                      "session_id", (struct eg_slice){0}, NULL, -1);
    } else {
        eg_peer_error(p, EG_CODE_storage_unavailable, NULL, NULL, (struct eg_slice){0}, NULL, 1);
    }
    if (!p->gone) {
        eg_peer_touch(p);
    }
}

/* Takes the frame. */
static void act(struct eg_peer *p, struct eg_reading *in)
{
    struct eg_frame *const f = &in->frame;
    const char *scope;
    if (f->type == EG_FRAME_MESSAGE && !(p->caps & EG_CAP_RAW) && p->role == EG_ROLE_CLIENT &&
        eg_slice_is(f->content_text, "/stop")) {
        f->type = EG_FRAME_ABORT;
        f->turn = -1;
        eg_buf_free(&in->tail);
    }
    if (!eg_method_allowed(p, f->type, &scope)) {
        refuse(p, f, scope);
    } else if (rules[f->type].core) {
        to_core(p, in);
        return;
    } else if (f->type == EG_FRAME_PING) {
        pong(p, f);
    } else if (f->type == EG_FRAME_LEAVE) {
        leave(p);
    } else if (f->type == EG_FRAME_AUTH) {
        refresh(p, f);
    } else if (f->type == EG_FRAME_HISTORY) {
        history(p, f);
    }
    eg_frame_free(f);
}

void eg_method_read(struct eg_slice text, struct eg_buf *spare, struct eg_reading *out)
{
    out->n = text.n;
    out->err = eg_frame_parse_into(text, spare, &out->frame, &out->why);
    if (out->err == EG_OK && text.n > EG_LARGE_BYTES && appends(out->frame.type)) {
        eg_frame_tail(&out->frame, &out->tail);
        if (out->tail.err) {
            eg_frame_free(&out->frame);
            out->err = EG_ENOMEM;
        }
    }
}

/* Takes the frame and the tail of in. */
static void take(struct eg_peer *p, struct eg_reading *in)
{
    const bool allowed = within_rates(p, in->n);
    if (!allowed) {
        const struct eg_slice ref =
            in->err == EG_OK ? ref_of(&in->frame) : eg_slice_cstr(in->why.ref);
        eg_metric_add(EG_M_rate_limited_total, 1);
        eg_peer_error(p, EG_CODE_rate_limited, NULL, NULL, ref, NULL, 1);
        if (in->err == EG_OK) {
            eg_frame_free(&in->frame);
        }
    } else if (in->err == EG_EINVALID) {
        eg_peer_error(p, in->why.code, in->why.message, in->why.field, eg_slice_cstr(in->why.ref),
                      NULL, -1);
    } else if (in->err != EG_OK) {
        eg_peer_end(p);
    } else {
        act(p, in);
    }
    eg_buf_free(&in->tail);
}

void eg_method_frame(struct eg_peer *p, struct eg_slice text)
{
    struct eg_reading in;
    struct eg_buf none = {0};
    struct eg_cmd *const spare = p->r->spare;
    in.why = (struct eg_frame_error){0};
    in.tail = (struct eg_buf){0};
    eg_method_read(text, spare ? &spare->frame.scratch : &none, &in);
    take(p, &in);
}

void eg_method_large(struct eg_peer *p, struct eg_large *large)
{
    if (!p || p->gone || p->state != EG_PEER_JOINED) {
        eg_large_free(large);
        return;
    }
    p->parsing = false;
    take(p, &large->reading);
    free(large);
    eg_input_resume(p);
}
