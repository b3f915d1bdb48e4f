/*
 * peer.c - the life of a connection, from the adopted socket to the closed one.
 *
 * Owns: the descriptor, the place in the reactor's table, everything struct eg_peer points to.
 * Happy path: open, (hello, frames), close frame written, our half shut, the peer's end read, gone.
 * Failure modes: a broken socket or no memory ends it at once; a peer that does not read loses what
 * waits for it, is sent the close frame if it still takes it, and ends at a deadline.
 */
#include "edge/peer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/table.h"
#include "edge/pool.h"

#define SLOT_MAX (1U << 24)

eg_conn_id eg_peer_id(const struct eg_peer *p)
{
    return (uint64_t)p->r->ix << 56 | (uint64_t)p->slot << 32 | p->generation;
}

struct eg_peer *eg_peer_find(struct eg_reactor *r, eg_conn_id id)
{
    const uint32_t slot = (uint32_t)(id >> 32) & (SLOT_MAX - 1);
    if (slot >= r->slot_count || r->slots[slot].generation != (uint32_t)id) {
        return NULL;
    }
    return r->slots[slot].peer;
}

static bool take_slot(struct eg_reactor *r, struct eg_peer *p)
{
    uint32_t slot = r->slot_free;
    if (slot != UINT32_MAX) {
        r->slot_free = r->slots[slot].next_free;
    } else {
        if (r->slot_count == r->slot_cap) {
            const uint32_t cap = r->slot_cap ? r->slot_cap * 2 : 64;
            struct eg_slot *const slots =
                cap > SLOT_MAX ? NULL : realloc(r->slots, cap * sizeof *slots);
            if (!slots) {
                return false;
            }
            r->slots = slots;
            r->slot_cap = cap;
        }
        slot = r->slot_count++;
        r->slots[slot].generation = 0;
    }
    r->slots[slot].peer = p;
    p->slot = slot;
    p->generation = ++r->slots[slot].generation;
    return true;
}

static void give_slot(struct eg_reactor *r, uint32_t slot)
{
    r->slots[slot].peer = NULL;
    r->slots[slot].next_free = r->slot_free;
    r->slot_free = slot;
}

static void free_peer(struct eg_peer *p)
{
    free(p->texts);
    free(p->rates);
    free(p->stash);
    if (p->greet) {
        free(p->greet->token);
        free(p->greet);
    }
    free(p);
}

/* What adopt handed over, when nothing became of it. */
static void drop_adopted(struct eg_reactor *r, struct eg_adopted *a)
{
    if (a->fd >= 0) {
        close(a->fd);
    }
    if (a->refuse == EG_CODE_NONE && a->addr[0]) {
        eg_limits_leave(r->set->limits, a->addr, false);
    }
    free(a->token);
    free(a->epoch);
    eg_claims_free(&a->claims);
}

static struct eg_peer *make_peer(struct eg_reactor *r, struct eg_adopted *a)
{
    struct eg_peer *const p = calloc(1, sizeof *p);
    const char *texts[EG_TEXT_COUNT] = {[EG_TEXT_ADDR] = a->addr};
    if (!p) {
        return NULL;
    }
    p->r = r;
    p->fd = a->fd;
    p->mode = (unsigned char)a->mode;
    p->alarm = UINT32_MAX;
    p->since_ms = r->now.wall_ms;
    p->last_in_ms = r->now.mono_ms;
    p->deadline_ms = r->now.mono_ms + r->settings->handshake_timeout_ms;
    p->state = a->mode == EG_CONN_WS ? EG_PEER_OPEN : EG_PEER_JOINED;
    bool ok = eg_peer_texts(p, texts) == EG_OK;
    if (ok && a->mode == EG_CONN_WS) {
        p->greet = calloc(1, sizeof *p->greet);
        ok = p->greet != NULL;
    }
    if (!ok || !take_slot(r, p)) {
        free_peer(p);
        return NULL;
    }
    return p;
}

struct eg_peer *eg_peer_open(struct eg_reactor *r, struct eg_adopted *a)
{
    struct eg_peer *const p = make_peer(r, a);
    if (!p) {
        drop_adopted(r, a);
        return NULL;
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
    if (epoll_ctl(r->epfd, EPOLL_CTL_ADD, p->fd, &ev) != 0) {
        give_slot(r, p->slot);
        free_peer(p);
        drop_adopted(r, a);
        return NULL;
    }
    p->reading = p->watch_in = true;
    p->counted = a->refuse == EG_CODE_NONE && a->addr[0];
    r->peers++;
    eg_metric_add(EG_M_connections, 1);
    eg_metric_add(EG_M_connections_accepted_total, 1);
    if (p->greet) {
        *p->greet = (struct eg_greet){.token = a->token,
                                      .token_from_query = a->token_from_query,
                                      .origin_allowed = a->origin_allowed,
                                      .draining = a->draining,
                                      .refuse = a->refuse};
        a->token = NULL;
    }
    if (a->mode == EG_CONN_SSE) {
        eg_hello_stream(p, a);
    }
    free(a->token);
    free(a->epoch);
    eg_claims_free(&a->claims);
    if (!p->gone) {
        eg_live_schedule(p);
    }
    return p;
}

void eg_peer_detach(struct eg_peer *p)
{
    struct eg_reactor *const r = p->r;
    if (p->sid) {
        eg_follow_remove(&r->follows, p);
    }
    if (p->catchup) {
        eg_catchup_free(p);
    }
    eg_job_abandon(p->history_job);
    p->history_job = NULL;
    if (p->attached) {
        struct eg_cmd *const cmd = eg_cmd_new(EG_CMD_DETACH, eg_peer_id(p));
        p->attached = false;
        if (cmd) {
            eg_loop_post(r, cmd);
        } else {
            /* The core would go on giving turns to a worker that is gone. */
            eg_table_fatal("the core cannot be told of a connection's end");
        }
    }
    free(p->stash);
    p->stash = NULL;
}

void eg_peer_end(struct eg_peer *p)
{
    struct eg_reactor *const r = p->r;
    if (p->gone) {
        return;
    }
    eg_peer_detach(p);
    eg_input_leave(p);
    p->gone = true;
    if (p->state == EG_PEER_LINGER) {
        r->lingering--;
    }
    eg_alarm_clear(&r->alarms, p);
    eg_ws_drop(&r->readers, &p->reader);
    eg_outbox_free(&p->out);
    epoll_ctl(r->epfd, EPOLL_CTL_DEL, p->fd, NULL);
    close(p->fd);
    if (p->counted) {
        eg_limits_leave(r->set->limits, eg_peer_text(p, EG_TEXT_ADDR), p->established);
    }
    give_slot(r, p->slot);
    r->peers--;
    eg_metric_add(EG_M_connections, -1);
    p->next = r->dead; /* freed when nothing of this turn can name it any more */
    r->dead = p;
}

void eg_peer_bury(struct eg_reactor *r)
{
    while (r->dead) {
        struct eg_peer *const p = r->dead;
        r->dead = p->next;
        free_peer(p);
    }
}

/* Appends the close frame, past the limits. */
static enum eg_err add_close_frame(struct eg_peer *p, unsigned code, const char *reason)
{
    uint8_t body[EG_WS_CONTROL_MAX];
    struct eg_outent ent;
    size_t n = 0;
    if (code) {
        const size_t len = reason ? strlen(reason) : 0;
        n = len > sizeof body - 2 ? sizeof body : len + 2;
        body[0] = (uint8_t)(code >> 8);
        body[1] = (uint8_t)code;
        memcpy(body + 2, reason ? reason : "", n - 2);
    }
    struct eg_bytes *const bytes = eg_bytes_copy(body, n);
    if (!bytes) {
        return EG_ENOMEM;
    }
    eg_outent_frame(&ent, bytes, EG_WS_OP_CLOSE);
    return eg_outbox_take(&p->out, &ent);
}

void eg_peer_close(struct eg_peer *p, unsigned code, const char *reason)
{
    if (p->gone || p->state >= EG_PEER_CLOSING) {
        return;
    }
    if (p->broken) {
        eg_peer_end(p);
        return;
    }
    eg_log(EG_LOG_DEBUG, "conn.close", "conn=" EG_CONN_HEX EG_F "code=%u" EG_F "reason=%s",
           eg_peer_id(p), code, reason ? reason : "");
    eg_peer_detach(p);
    eg_ws_drop(&p->r->readers, &p->reader);
    if (p->mode != EG_CONN_SSE && add_close_frame(p, code, reason) != EG_OK) {
        eg_peer_end(p);
        return;
    }
    p->state = EG_PEER_CLOSING;
    p->deadline_ms = p->r->now.mono_ms + EG_CLOSE_MS;
    eg_loop_interest(p);
    eg_live_schedule(p);
    eg_peer_touch(p);
}

void eg_peer_cut(struct eg_peer *p, unsigned code, const char *reason)
{
    if (p->gone || p->state >= EG_PEER_CLOSING) {
        return;
    }
    if (p->mode == EG_CONN_SSE) {
        eg_peer_end(p);
        return;
    }
    eg_outbox_cut(&p->out);
    eg_peer_close(p, code, reason);
}

void eg_peer_touch(struct eg_peer *p)
{
    if (!p->dirty) {
        p->dirty = true;
        p->dirty_next = p->r->dirty;
        p->r->dirty = p;
    }
}

static bool too_much(const struct eg_peer *p)
{
    const struct eg_settings *const s = p->r->settings;
    return eg_outbox_frames(&p->out) > (uint64_t)s->max_queued_frames ||
           (eg_outbox_bytes(&p->out) > (uint64_t)s->max_buffered_bytes &&
            eg_outbox_behind(&p->out) > (uint64_t)s->max_buffered_bytes);
}

void eg_peer_lost(struct eg_peer *p)
{
    if (p->state >= EG_PEER_CLOSING || p->mode != EG_CONN_WS || (p->leaving && p->syncs == 0)) {
        eg_peer_end(p); /* it has said all, or nothing of it is wanted */
        return;
    }
    p->broken = true;
    p->writable_wait = false;
    eg_outbox_free(&p->out);
    if (p->sid) {
        eg_follow_remove(&p->r->follows, p);
    }
    if (p->catchup) {
        eg_catchup_free(p);
    }
    eg_job_abandon(p->history_job);
    p->history_job = NULL;
    p->history = false;
    p->muted = p->muted || !p->reading; /* its end has been told, and stays */
    eg_loop_interest(p);
    eg_input_resume(p);
}

/* Writes what the socket takes. EG_EIO: the connection is gone, or broken. */
static enum eg_err write_out(struct eg_peer *p)
{
    size_t written = 0;
    const enum eg_err err = eg_outbox_write(&p->out, p->fd, &p->r->outbuf, &written);
    p->r->tally.bytes_out += (int64_t)written;
    if (written) {
        p->written += written;
        p->last_out_ms = p->r->now.mono_ms;
    }
    if (err == EG_EIO) {
        eg_peer_lost(p);
    } else if ((err == EG_EAGAIN) != p->writable_wait) {
        p->writable_wait = err == EG_EAGAIN;
        eg_loop_interest(p);
    }
    return err;
}

void eg_peer_take(struct eg_peer *p, const struct eg_outent *ent)
{
    if (p->gone || p->broken || p->state >= EG_PEER_CLOSING) {
        eg_bytes_unref(ent->bytes);
        return;
    }
    if (eg_outbox_take(&p->out, ent) != EG_OK) {
        eg_peer_end(p);
        return;
    }
    p->frames_out += ent->frames;
    p->r->tally.frames_out += ent->frames;
    eg_peer_touch(p);
    if (!ent->paged && too_much(p) && write_out(p) != EG_EIO && too_much(p)) {
        eg_metric_add(EG_M_slow_consumers_total, 1);
        eg_log_limited(EG_LOG_INFO, "conn.slow",
                       "conn=" EG_CONN_HEX EG_F "addr=%s" EG_F "frames=%u" EG_F "bytes=%zu",
                       eg_peer_id(p), eg_peer_text(p, EG_TEXT_ADDR), eg_outbox_frames(&p->out),
                       eg_outbox_bytes(&p->out));
        eg_peer_cut(p, EG_CLOSE_TRY_LATER, "slow_consumer");
    }
}

void eg_peer_send(struct eg_peer *p, struct eg_bytes *bytes)
{
    struct eg_outent ent;
    if (!bytes) {
        eg_peer_end(p);
        return;
    }
    eg_outent_frame(&ent, bytes, EG_WS_OP_TEXT);
    eg_peer_take(p, &ent);
}

void eg_peer_send_text(struct eg_peer *p)
{
    struct eg_buf *const text = &p->r->text;
    struct eg_bytes *const bytes = eg_buf_bytes(text);
    eg_buf_reset(text);
    eg_peer_send(p, bytes);
}

void eg_peer_control(struct eg_peer *p, enum eg_ws_opcode opcode, struct eg_slice payload)
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

void eg_peer_refused(struct eg_peer *p, enum eg_code code)
{
    const uint32_t now_s = (uint32_t)(p->r->now.mono_ms / 1000);
    if (code != EG_CODE_insufficient_scope && code != EG_CODE_invalid_json &&
        code != EG_CODE_invalid_frame && code != EG_CODE_invalid_request &&
        code != EG_CODE_auth_unauthorized) { /* a signature costs as much as fifty frames */
        return;
    }
    if (p->refused == 0 || now_s - p->refused_s >= 60) {
        p->refused = 0;
        p->refused_s = now_s;
    }
    if (++p->refused >= (uint64_t)p->r->settings->max_refused_frames) {
        eg_peer_close(p, EG_CLOSE_BAD_FRAMES, "too many refused frames");
    }
}

void eg_peer_error(struct eg_peer *p, enum eg_code code, const char *message, const char *field,
                   struct eg_slice ref, const char *scope, int64_t retry_after_s)
{
    eg_metric_add(EG_M_frames_refused_total, 1);
    eg_metric_error(code);
    eg_buf_reset(&p->r->text);
    eg_error_frame(&p->r->text, code, message, field, ref, scope, retry_after_s);
    eg_peer_send_text(p);
    eg_peer_refused(p, code);
}

/* The close frame is written: our half is shut, and the peer's end awaited. */
static void closing_written(struct eg_peer *p)
{
    shutdown(p->fd, SHUT_WR);
    p->state = EG_PEER_LINGER;
    p->r->lingering++;
    p->deadline_ms = p->r->now.mono_ms + EG_LINGER_MS;
    eg_live_schedule(p);
}

void eg_peer_flush(struct eg_peer *p)
{
    if (p->gone) {
        return;
    }
    const enum eg_err err = write_out(p);
    if (p->gone) {
        return;
    }
    if (err == EG_OK && p->state == EG_PEER_CLOSING) {
        closing_written(p);
        return;
    }
    if (p->catchup) {
        eg_catchup_step(p);
    }
    if (!p->gone && eg_outbox_page_bytes(&p->out) == 0 && p->state == EG_PEER_JOINED) {
        if (p->history && !p->history_job) {
            p->history = false;
        }
        if (!p->reading) {
            eg_input_resume(p);
        }
    }
}

const char *eg_peer_text(const struct eg_peer *p, enum eg_peer_text which)
{
    const char *s = p->texts;
    for (int i = 0; i < (int)which; i++) {
        s += strlen(s) + 1;
    }
    return s;
}

enum eg_err eg_peer_texts(struct eg_peer *p, const char *const text[EG_TEXT_COUNT])
{
    const char *parts[EG_TEXT_COUNT];
    size_t n = 0;
    for (int i = 0; i < EG_TEXT_COUNT; i++) {
        parts[i] = text[i] ? text[i] : p->texts ? eg_peer_text(p, (enum eg_peer_text)i) : "";
        n += strlen(parts[i]) + 1;
    }
    char *const block = malloc(n);
    if (!block) {
        return EG_ENOMEM;
    }
    char *at = block;
    for (int i = 0; i < EG_TEXT_COUNT; i++) {
        at = stpcpy(at, parts[i]) + 1;
    }
    free(p->texts);
    p->texts = block;
    return EG_OK;
}
