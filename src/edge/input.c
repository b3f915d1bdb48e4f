/*
 * input.c - bytes from a socket, through the frame decoder, to the handshake or the methods.
 *
 * Input is not looked at while something is in the way (the core was asked to attach, too many
 * commands are on their way to it, a page of history is being read): what was read is stashed, and
 * the socket is not read from, so that TCP slows the peer down.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "edge/peer.h"

/* Undelivered echo bytes above which a peer is not read from. */
#define ECHO_WAITING_MAX (1U << 20)

static bool blocked(const struct eg_peer *p)
{
    return p->state == EG_PEER_ATTACHING || p->syncs >= EG_SYNCS_MAX || p->history || p->leaving ||
           eg_catchup_crowded(p) || (p->mode == EG_CONN_ECHO && p->out.bytes > ECHO_WAITING_MAX);
}

static uint64_t longest(const struct eg_peer *p)
{
    const uint64_t max = (uint64_t)p->r->settings->max_payload;
    return p->state == EG_PEER_JOINED || max < EG_HELLO_BYTES_MAX ? max : EG_HELLO_BYTES_MAX;
}

static void echo(struct eg_peer *p, enum eg_ws_opcode opcode, struct eg_slice payload)
{
    struct eg_outent ent;
    struct eg_bytes *const bytes = eg_bytes_copy(payload.p, payload.n);
    if (!bytes) {
        eg_peer_end(p);
        return;
    }
    eg_outent_frame(&ent, bytes, opcode);
    eg_peer_take(p, &ent);
}

static void take_item(struct eg_peer *p, enum eg_ws_what what, const struct eg_ws_item *item)
{
    switch (what) {
    case EG_WS_TEXT:
        p->frames_in++;
        p->r->tally.frames_in++;
        p->r->tally.bytes_in += (int64_t)item->payload.n;
        if (p->mode == EG_CONN_ECHO) {
            echo(p, EG_WS_OP_TEXT, item->payload);
        } else if (p->state == EG_PEER_OPEN) {
            eg_hello_frame(p, item->payload);
        } else {
            eg_method_frame(p, item->payload);
        }
        break;
    case EG_WS_BINARY:
        if (p->mode == EG_CONN_ECHO) {
            echo(p, EG_WS_OP_BINARY, item->payload);
        } else {
            eg_peer_error(p, EG_CODE_invalid_frame, "binary frames are not taken; send text", NULL,
                          (struct eg_slice){0}, NULL, -1);
        }
        break;
    case EG_WS_PING:
        eg_peer_control(p, EG_WS_OP_PONG, item->payload);
        break;
    case EG_WS_CLOSED:
        eg_peer_close(p, item->code, NULL);
        break;
    case EG_WS_BROKEN:
        eg_peer_close(p, item->code, item->reason);
        break;
    case EG_WS_PONG:
    case EG_WS_NONE:
        break;
    }
}

/* Keeps what may not be looked at yet. */
static void stash(struct eg_peer *p, struct eg_slice in)
{
    if (in.n) {
        p->stash = malloc(sizeof *p->stash + in.n);
        if (!p->stash) {
            eg_peer_end(p);
            return;
        }
        p->stash->n = in.n;
        memcpy(p->stash->data, in.p, in.n);
    }
    if (p->reading) {
        p->reading = false;
        eg_loop_interest(p);
    }
}

static void process(struct eg_peer *p, struct eg_slice in)
{
    while (!blocked(p)) {
        struct eg_ws_item item;
        const enum eg_ws_what what = eg_ws_read(&p->r->readers, &p->reader, longest(p), &in, &item);
        if (what == EG_WS_NONE) {
            break;
        }
        take_item(p, what, &item);
        if (p->gone || p->state >= EG_PEER_CLOSING) {
            return;
        }
    }
    eg_ws_rest(&p->r->readers, &p->reader);
    if (blocked(p)) {
        stash(p, in);
    }
}

void eg_input_readable(struct eg_peer *p)
{
    struct eg_reactor *const r = p->r;
    if (!p->reading && p->state < EG_PEER_CLOSING) {
        return;
    }
    const ssize_t n = recv(p->fd, r->inbuf, EG_IN_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        eg_peer_end(p);
        return;
    }
    if (p->state >= EG_PEER_CLOSING || p->mode == EG_CONN_SSE) {
        return; /* nothing that comes now is wanted */
    }
    p->last_in_ms = r->now.mono_ms;
    p->pinged = false;
    process(p, (struct eg_slice){r->inbuf, (size_t)n});
}

void eg_input_resume(struct eg_peer *p)
{
    if (p->gone || p->reading || p->state >= EG_PEER_CLOSING || blocked(p)) {
        return;
    }
    struct eg_stash *const kept = p->stash;
    p->stash = NULL;
    p->last_in_ms = p->r->now.mono_ms;
    if (kept) {
        process(p, (struct eg_slice){kept->data, kept->n});
        free(kept);
    }
    if (!p->gone && p->state < EG_PEER_CLOSING && !blocked(p)) {
        p->reading = true;
        eg_loop_interest(p);
    }
}
