/*
 * live.c - what time does to a connection: the deadline of hello, heartbeats, silence, the end of a
 * token, the end of a close. Each connection has one alarm, at the earliest of what may happen.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "edge/peer.h"
#include "wire/json.h"

/* How late the alarm of a token's announcement may be and still say the round number. */
#define EXPIRY_GRAIN_MS 250

static void set_alarm(struct eg_peer *p, int64_t due_ms)
{
    const int64_t soonest = p->r->now.mono_ms + 1;
    if (eg_alarm_set(&p->r->alarms, p, due_ms > soonest ? due_ms : soonest) != EG_OK) {
        eg_peer_end(p);
    }
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Milliseconds until the token ends; INT64_MAX: never. */
static int64_t token_left(const struct eg_peer *p)
{
    return p->exp_s ? p->exp_s * 1000 - p->r->now.wall_ms : INT64_MAX;
}

/* Whether p is still to be told that its token will end; hello is answered first. */
static bool to_be_told(const struct eg_peer *p)
{
    return !p->expiry_told && p->mode == EG_CONN_WS && p->state == EG_PEER_JOINED;
}

void eg_live_until(struct eg_peer *p, int64_t exp_s)
{
    p->exp_s = exp_s && exp_s * 1000 <= p->r->now.wall_ms ? exp_s + EG_LEEWAY_S : exp_s;
}

void eg_live_schedule(struct eg_peer *p)
{
    const int64_t now = p->r->now.mono_ms, beat = p->r->settings->heartbeat_ms;
    if (p->gone) {
        return;
    }
    if (p->state == EG_PEER_OPEN || p->state >= EG_PEER_CLOSING) {
        set_alarm(p, p->deadline_ms);
        return;
    }
    if (p->mode == EG_CONN_ECHO) {
        return;
    }
    int64_t due = p->mode == EG_CONN_SSE || p->state == EG_PEER_ATTACHING
                      ? now + beat
                      : p->last_in_ms + (p->pinged ? 2 * beat : beat);
    const int64_t left = token_left(p);
    if (left != INT64_MAX) {
        due = min64(due, now + left);
        if (to_be_told(p)) {
            due = min64(due, now + left - EG_EXPIRY_NOTICE_MS);
        }
    }
    set_alarm(p, due);
}

/* The token's end, and its announcement. */
static void check_token(struct eg_peer *p)
{
    const int64_t left = token_left(p);
    if (left <= 0) {
        eg_peer_close(p, EG_CLOSE_CREDENTIALS, "token expired");
    } else if (left <= EG_EXPIRY_NOTICE_MS && to_be_told(p)) {
        p->expiry_told = true;
        eg_buf_reset(&p->r->text);
        eg_buf_str(&p->r->text, "{\"type\":\"token_expiring\"");
        /* On time, give or take the timer's grain, is said as it was meant. */
        const bool on_time = left > EG_EXPIRY_NOTICE_MS - EXPIRY_GRAIN_MS;
        eg_json_kint(&p->r->text, "expires_in_ms", on_time ? EG_EXPIRY_NOTICE_MS : left);
        eg_buf_char(&p->r->text, '}');
        eg_peer_send_text(p);
    }
}

/* Lets p go when it has taken nothing for two heartbeats though something waits, or is gone. */
static bool cut_deaf(struct eg_peer *p)
{
    const int64_t beat = p->r->settings->heartbeat_ms;
    if (!p->writable_wait || p->r->now.mono_ms - p->last_out_ms < 2 * beat) {
        return false;
    }
    eg_metric_add(EG_M_slow_consumers_total, 1);
    eg_peer_cut(p, EG_CLOSE_TRY_LATER, "slow_consumer");
    return true;
}

/* What the other side has taken by now of the bytes that were written; what it had when last looked
 * at where that cannot be told. Over a slow link the kernel may keep the rest for longer than two
 * heartbeats. */
static uint64_t taken_by_now(const struct eg_peer *p)
{
    int kept;
    if (ioctl(p->fd, SIOCOUTQ, &kept) != 0 || kept < 0 || (uint64_t)kept > p->written) {
        return p->taken;
    }
    return p->written - (uint64_t)kept;
}

static void ping(struct eg_peer *p)
{
    p->taken = taken_by_now(p);
    const uint64_t ahead = p->written - p->taken + eg_outbox_waiting(&p->out);
    p->pinged = true;
    eg_peer_control(p, EG_WS_OP_PING, (struct eg_slice){0});
    eg_buf_reset(&p->r->text);
    eg_buf_str(&p->r->text, "{\"type\":\"ping\"}");
    eg_peer_send_text(p);
    p->ping_end = ahead ? p->written + eg_outbox_waiting(&p->out) : 0;
}

/* Whether p is still taking what stood before its ping, or has only just taken it. */
static bool takes_up_to_ping(struct eg_peer *p)
{
    const uint64_t before = p->taken;
    if (!p->ping_end) {
        return false;
    }
    p->taken = taken_by_now(p);
    if (p->taken >= p->ping_end) {
        p->ping_end = 0;
    }
    return p->taken > before;
}

static void check_silence(struct eg_peer *p)
{
    const int64_t now = p->r->now.mono_ms, beat = p->r->settings->heartbeat_ms;
    if (!p->reading) {
        if (cut_deaf(p)) {
            return;
        }
        p->last_in_ms = now; /* it is we who do not listen */
    }
    const int64_t silent = now - p->last_in_ms;
    if (silent >= beat && !p->pinged) {
        p->last_in_ms = now - beat; /* asked late, it has a beat to answer, too */
        ping(p);
    } else if (silent >= 2 * beat && takes_up_to_ping(p)) {
        p->last_in_ms = now - beat;
    } else if (silent >= 2 * beat) {
        eg_metric_add(EG_M_liveness_timeouts_total, 1);
        eg_peer_close(p, EG_CLOSE_LIVENESS, "liveness_timeout");
    }
}

void eg_live_alarm(struct eg_peer *p)
{
    if (p->state >= EG_PEER_CLOSING) {
        eg_peer_end(p);
        return;
    }
    if (p->state == EG_PEER_OPEN) {
        if (p->r->spread_ms >= 0) { /* it came after the farewell */
            eg_peer_close(p, EG_CLOSE_RESTART, "drain");
        } else {
            eg_peer_close(p, EG_CLOSE_REFUSED, "handshake_timeout");
        }
    } else if (p->mode != EG_CONN_ECHO) {
        check_token(p);
        if (p->state == EG_PEER_JOINED && p->mode == EG_CONN_WS) {
            check_silence(p);
        } else if (p->state == EG_PEER_JOINED && p->mode == EG_CONN_SSE && !cut_deaf(p)) {
            eg_sse_say(p, ":\n\n");
        }
    }
    eg_live_schedule(p);
}

void eg_live_judge(struct eg_peer *p)
{
    const char *const sub = eg_peer_text(p, EG_TEXT_SUB);
    if (*sub && !eg_auth_stands(p->r->set->auth, sub, eg_peer_text(p, EG_TEXT_JTI),
                                eg_peer_text(p, EG_TEXT_KID))) {
        eg_peer_close(p, EG_CLOSE_CREDENTIALS, "token revoked");
    }
}
