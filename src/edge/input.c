/*
 * input.c - bytes from a socket, through the frame decoder, to the handshake or the methods.
 *
 * A connection is visited: one piece is read from it, and its frames are taken up to a cost. Those
 * that send little are visited whenever they have something, at once. Those that shake hands, fill
 * the buffer, do not get through their piece, or leave, stand in line, first come first served,
 * and each turn of the loop visits as many of them as its cost allows: whatever they send, the
 * others wait for one such share of it. Then the line rests (rest.h), but for agents, who have a
 * line of their own: what they say is what the others wait for.
 *
 * Input is not looked at while something is in the way (the core was asked to attach, a large text
 * is being read elsewhere (parser.c), too many commands are on their way to it, a page of history
 * is being read): what was read is stashed, and the socket is not read from, so that TCP slows the
 * peer down.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "edge/parser.h"
#include "edge/rest.h"

/* Undelivered echo bytes above which a peer is not read from. */
#define ECHO_WAITING_MAX (1U << 20)

/* Costs are bytes, or what takes as long as so many plain bytes. */
#define COST_VISIT (128U << 10) /* a visit ends when it has cost this much */
#define COST_BUSY (80U << 10)   /* whose visit cost more, more than a hello, stands in line next */
#define COST_TURN (128U << 10)  /* visits to those in line end when they have cost this much */
#define COST_FRAME 1024U
#define COST_HELLO (64U << 10) /* a signature */
#define COST_END (16U << 10)   /* closing a socket */

static bool blocked(const struct eg_peer *p)
{
    return p->state == EG_PEER_ATTACHING || p->parsing || p->syncs >= EG_SYNCS_MAX || p->history ||
           p->leaving || eg_catchup_crowded(p) ||
           (p->mode == EG_CONN_ECHO && eg_outbox_bytes(&p->out) > ECHO_WAITING_MAX);
}

static uint64_t longest(const struct eg_peer *p)
{
    const uint64_t max = p->max_payload ? p->max_payload : (uint64_t)p->r->settings->max_payload;
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

static void large(struct eg_peer *p, struct eg_slice text)
{
    if (eg_parser_give(p->r->set->parser, p, text) == EG_OK) {
        p->parsing = true;
    } else {
        eg_peer_end(p);
    }
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
        } else if (item->payload.n > EG_LARGE_BYTES && p->r->set->parser) {
            large(p, item->payload);
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

static size_t cost_of(const struct eg_peer *p, enum eg_ws_what what, size_t n)
{
    if (what == EG_WS_TEXT && p->state == EG_PEER_OPEN) {
        return COST_HELLO;
    }
    return COST_FRAME + n;
}

/* --- the line of those that have their share each turn --- */

static struct eg_peer **line_of(const struct eg_peer *p)
{
    return p->role == EG_ROLE_AGENT ? &p->r->agent_line : &p->r->line;
}

static void stand_in_line(struct eg_peer *p)
{
    if (!p->queued) {
        struct eg_peer **const line = line_of(p);
        p->queued = true;
        DL_APPEND2(*line, p, queue_prev, queue_next);
    }
}

void eg_input_leave(struct eg_peer *p)
{
    if (p->queued) {
        struct eg_peer **const line = line_of(p);
        p->queued = false;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): p is in the list */
        DL_DELETE2(*line, p, queue_prev, queue_next);
    }
}

/* --- a visit --- */

/* Keeps what was read and not looked at. kept: where it is already, or NULL. */
static bool keep(struct eg_peer *p, struct eg_stash *kept, struct eg_slice in)
{
    if (in.n == 0) {
        free(kept);
        return true;
    }
    if (!kept) {
        kept = malloc(sizeof *kept + in.n);
        if (!kept) {
            return false;
        }
        kept->n = in.n;
        memcpy(kept->data, in.p, in.n);
    }
    kept->at = kept->n - in.n;
    p->stash = kept;
    return true;
}

/* Takes the frames of in, as far as this visit may go, and decides how p goes on. */
static void process(struct eg_peer *p, struct eg_slice in, struct eg_stash *kept)
{
    struct eg_reactor *const r = p->r;
    size_t cost = 0;
    while (cost < COST_VISIT && !blocked(p)) {
        struct eg_ws_item item;
        const size_t before = in.n;
        const enum eg_ws_what what = eg_ws_read(&r->readers, &p->reader, longest(p), &in, &item);
        cost += before - in.n;
        if (what == EG_WS_NONE) {
            break;
        }
        cost += cost_of(p, what, item.payload.n);
        take_item(p, what, &item);
        if (p->gone || p->state >= EG_PEER_CLOSING) {
            free(kept);
            r->visited += cost;
            return;
        }
    }
    r->visited += cost;
    p->busy = p->busy || cost > COST_BUSY;
    eg_ws_rest(&r->readers, &p->reader);
    if (!keep(p, kept, in)) {
        eg_peer_end(p);
        return;
    }
    if (blocked(p)) {
        p->reading = false; /* epoll is told when something comes all the same */
    } else if (p->stash) {
        stand_in_line(p);
    } else if (!p->reading) {
        p->reading = true;
        eg_loop_interest(p);
    }
}

/* in_line: p has come to the front of the line. */
static void visit(struct eg_peer *p, bool in_line)
{
    struct eg_reactor *const r = p->r;
    struct eg_stash *const kept = p->stash;
    if (kept) {
        p->stash = NULL;
        p->busy = true;
        process(p, (struct eg_slice){kept->data + kept->at, kept->n - kept->at}, kept);
        return;
    }
    if (!p->reading && p->state < EG_PEER_CLOSING) {
        return;
    }
    const ssize_t n = recv(p->fd, r->inbuf, EG_IN_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return;
    }
    if (n <= 0 && !in_line) {
        stand_in_line(p); /* others may leave as well, and an end takes its time */
        return;
    }
    if (n <= 0) {
        r->visited += COST_END;
        eg_peer_end(p);
        return;
    }
    r->visited += COST_FRAME;
    if (p->state >= EG_PEER_CLOSING || p->mode == EG_CONN_SSE) {
        return; /* nothing that comes now is wanted */
    }
    p->last_in_ms = r->now.mono_ms;
    p->pinged = false;
    p->busy = n == EG_IN_BYTES;
    process(p, (struct eg_slice){r->inbuf, (size_t)n}, NULL);
}

void eg_input_readable(struct eg_peer *p)
{
    if (p->queued && !p->muted && p->r->rest_until_us) {
        p->muted = true;
        eg_loop_interest(p);
    } else if (!p->reading && p->state < EG_PEER_CLOSING) {
        eg_loop_interest(p);
    } else if (p->state == EG_PEER_JOINED && !p->busy && !p->queued) {
        visit(p, false);
        if (!p->queued) {
            eg_rest_seen(p->r->set, p->r->now.mono_ms);
        }
    } else {
        stand_in_line(p);
    }
}

void eg_input_resume(struct eg_peer *p)
{
    if (p->gone || p->reading || p->state >= EG_PEER_CLOSING || blocked(p)) {
        return;
    }
    p->last_in_ms = p->r->now.mono_ms;
    p->reading = !p->stash;
    if (p->stash || p->muted) {
        stand_in_line(p);
    } else {
        eg_loop_interest(p);
    }
}

int eg_input_line_wait(const struct eg_reactor *r)
{
    if (r->agent_line) {
        return 0;
    }
    if (!r->line) {
        return -1;
    }
    const int64_t us = r->rest_until_us - eg_clock_mono_us();
    return us > 0 ? (int)((us + 999) / 1000) : 0;
}

static void serve(struct eg_reactor *r, struct eg_peer **line)
{
    r->visited = 0;
    while (*line && r->visited < COST_TURN) {
        struct eg_peer *const p = *line;
        eg_input_leave(p);
        visit(p, true);
        if (p->muted && !p->queued) {
            p->muted = false;
            eg_loop_interest(p);
        }
    }
}

void eg_input_line(struct eg_reactor *r)
{
    serve(r, &r->agent_line);
    const int64_t start = eg_clock_mono_us();
    if (r->line && start >= r->rest_until_us) {
        serve(r, &r->line);
        const int64_t rest = eg_rest_us(r->set, start);
        r->rest_until_us = rest ? eg_clock_mono_us() + rest : 0;
    }
}
