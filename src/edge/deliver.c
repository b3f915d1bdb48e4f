/*
 * deliver.c - what the core releases after a commit, to the connections it is for.
 *
 * An event goes to each follower's outbox: shared bytes, a frame head made once. Nothing is written
 * here; each connection is written once at the end of the turn.
 */
#include "edge/peer.h"

/* Whether p is sent events of this kind at all. */
static bool wants(const struct eg_peer *p, bool stream)
{
    return (p->scopes & EG_SCOPE_READ) && (!stream || (p->caps & EG_CAP_STREAMING));
}

static void fall_behind(struct eg_peer *p)
{
    if (eg_catchup_begin(p, false, 0) != EG_OK) {
        eg_peer_end(p);
    }
}

static void event_to(struct eg_peer *p, const struct eg_out *o, const struct eg_outent *ent)
{
    if (o->cursor <= p->head) {
        return; /* sent already, or about to be read from the log */
    }
    p->head = o->cursor;
    if (p->catchup) {
        if (p->mode == EG_CONN_SSE && eg_sse_is_end(eg_bytes_slice(o->bytes))) {
            p->closed_session = true; /* the stream ends when it has come so far */
        }
        return;
    }
    if (o->cursor != p->sent + 1 && (p->scopes & EG_SCOPE_READ)) {
        fall_behind(p); /* reads what it missed */
        return;
    }
    p->sent = o->cursor;
    if (!wants(p, o->stream)) {
        return;
    }
    if (p->mode == EG_CONN_SSE) {
        eg_sse_send(p, eg_bytes_ref(o->bytes));
        return;
    }
    eg_bytes_ref(ent->bytes);
    eg_peer_take(p, ent);
}

static void event(struct eg_reactor *r, const struct eg_out *o)
{
    struct eg_outent ent;
    struct eg_peer *p = eg_follow_first(&r->follows, o->sid);
    eg_outent_frame(&ent, o->bytes, EG_WS_OP_TEXT);
    while (p) {
        struct eg_peer *const next = p->next;
        if (!o->except || eg_peer_id(p) != o->except) {
            event_to(p, o, &ent);
        }
        p = next;
    }
}

static void notice(struct eg_reactor *r, const struct eg_out *o)
{
    struct eg_outent ent;
    struct eg_peer *p = eg_follow_first(&r->follows, o->sid);
    eg_outent_frame(&ent, o->bytes, EG_WS_OP_TEXT);
    while (p) {
        struct eg_peer *const next = p->next;
        if (p->mode == EG_CONN_WS && (p->caps & o->caps) == o->caps && wants(p, false) &&
            (!o->except || eg_peer_id(p) != o->except)) {
            eg_bytes_ref(o->bytes);
            if (p->catchup) {
                eg_catchup_hold(p, 0, true, o->bytes);
            } else {
                eg_peer_take(p, &ent);
            }
        }
        p = next;
    }
}

/* A frame for one connection. */
static void frame(struct eg_peer *p, const struct eg_out *o)
{
    const bool in_place = p->sid && o->sid == p->sid && o->cursor > p->head;
    if (p->mode == EG_CONN_SSE) {
        return;
    }
    if (in_place && !p->catchup && o->cursor != p->sent + 1 && (p->scopes & EG_SCOPE_READ)) {
        p->head = o->cursor - 1;
        fall_behind(p);
        if (p->gone) {
            return;
        }
    }
    eg_bytes_ref(o->bytes);
    if (p->catchup) {
        eg_catchup_hold(p, in_place ? o->cursor : 0, false, o->bytes);
    } else {
        if (in_place) {
            p->sent = p->head = o->cursor;
        }
        eg_peer_send(p, o->bytes);
    }
    if (o->code != EG_CODE_NONE) {
        eg_metric_add(EG_M_frames_refused_total, 1);
        eg_metric_error(o->code);
        eg_peer_refused(p, o->code);
    }
}

static void refuse(struct eg_peer *p, const struct eg_out *o)
{
    if (p->state != EG_PEER_ATTACHING) {
        return;
    }
    p->attached = false;
    if (p->mode == EG_CONN_SSE) {
        eg_sse_refuse(p, o->code, o->message);
    } else {
        eg_hello_refuse(p, o->code, o->message, o->field, NULL, o->retry_after_s, p->legacy);
    }
}

static void to_one(struct eg_peer *p, const struct eg_out *o)
{
    switch (o->kind) {
    case EG_OUT_WELCOME:
        eg_welcome(p, o->welcome);
        break;
    case EG_OUT_REFUSE:
        refuse(p, o);
        break;
    case EG_OUT_FRAME:
        frame(p, o);
        break;
    case EG_OUT_SYNC:
        p->syncs -= p->syncs > 0;
        if (p->leaving && p->syncs == 0) {
            if (!eg_catchup_owes(p)) { /* else it leaves when these are sent */
                eg_method_left(p);
            }
        } else {
            eg_input_resume(p);
        }
        break;
    case EG_OUT_CLOSE:
        if (o->sid && p->catchup) {
            p->closed_session = true; /* closed when it has come to the end */
            break;
        }
        if (o->bytes && p->mode == EG_CONN_WS) {
            eg_peer_send(p, eg_bytes_ref(o->bytes));
        }
        eg_peer_close(p, o->close_code, o->reason);
        break;
    case EG_OUT_EVENT:
    case EG_OUT_NOTICE:
        break;
    }
}

void eg_deliver(struct eg_reactor *r, struct eg_release *release)
{
    for (int i = 0; i < release->n; i++) {
        const struct eg_out *const o = &release->out[i];
        if (o->kind == EG_OUT_EVENT) {
            event(r, o);
        } else if (o->kind == EG_OUT_NOTICE) {
            notice(r, o);
        } else {
            struct eg_peer *const p = eg_peer_find(r, o->conn);
            if (p && !p->gone) {
                to_one(p, o);
            }
        }
    }
    eg_loop_keep(r, release);
    eg_release_free(release);
}
