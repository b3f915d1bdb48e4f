/*
 * catchup.c - from a cursor to live events, each exactly once, however busy the session is.
 *
 * A connection that catches up reads pages of the log, never past the head that the core has told
 * this reactor of (so whatever stands in place of an event on this connection is known before the
 * event could be read). Live events that arrive meanwhile only move the head: they are in the log.
 * Frames that stand in place of an event are kept and put in its place; other frames of the core
 * are kept and sent once the connection has come to the cursor known when they arrived. Up to
 * replay_to events are wrapped as replay, then comes replay_end, then they have their live shape;
 * when a page ends at the head there is nothing left to read and the connection is live.
 *
 * Bounds: one page is asked for ahead of what is being written, none while more waits; frames that
 * are kept are limited like those of a slow consumer: past that, frames that are not stored
 * anywhere are dropped, oldest first, and when none of these is left the connection is closed as a
 * slow consumer.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "edge/pool.h"

struct eg_held {
    struct eg_held *next;
    uint64_t cursor; /* in_place: of the event; else: not before this one */
    bool in_place;
    bool loose; /* may be dropped: it is stored nowhere and answers nothing */
    struct eg_bytes *bytes;
};

struct eg_catchup {
    uint64_t replay_to;
    bool wrapped;       /* replay_end is still to come */
    bool waiting;       /* a job is under way */
    struct eg_job *job; /* that one */
    struct eg_held *first, *last;
    size_t held_bytes, held_count;
};

static struct eg_catchup *begin(struct eg_peer *p)
{
    p->catchup = calloc(1, sizeof *p->catchup);
    if (p->catchup) {
        eg_metric_add(EG_M_replays, 1);
    }
    return p->catchup;
}

void eg_catchup_free(struct eg_peer *p)
{
    struct eg_catchup *const c = p->catchup;
    eg_job_abandon(c->job);
    while (c->first) {
        struct eg_held *const h = c->first;
        c->first = h->next;
        eg_bytes_unref(h->bytes);
        free(h);
    }
    free(c);
    p->catchup = NULL;
    eg_metric_add(EG_M_replays, -1);
}

enum eg_err eg_catchup_begin(struct eg_peer *p, bool replay, uint64_t replay_to)
{
    struct eg_catchup *const c = begin(p);
    if (!c) {
        return EG_ENOMEM;
    }
    c->wrapped = replay;
    c->replay_to = replay_to;
    if (!(p->scopes & EG_SCOPE_READ)) {
        p->sent = p->head; /* gets none of them, is complete all the same */
    }
    eg_catchup_step(p);
    return EG_OK;
}

enum eg_err eg_catchup_snapshot(struct eg_peer *p, const struct eg_welcome *w)
{
    struct eg_catchup *const c = begin(p);
    struct eg_job *const job = c ? eg_job_new(EG_JOB_SNAPSHOT, p) : NULL;
    if (!job) {
        return EG_ENOMEM;
    }
    job->from = 1;
    job->to = w->cursor;
    memcpy(job->epoch, w->epoch, sizeof job->epoch);
    job->descending = job->only_answers = true;
    job->max_bytes = (size_t)p->r->settings->max_payload;
    if (!(p->scopes & EG_SCOPE_READ)) {
        job->from = w->cursor + 1;
    }
    c->waiting = true;
    c->job = job;
    p->sent = 0; /* complete up to nothing before the snapshot is on its way */
    eg_pool_give(p->r->set->pool, job);
    return EG_OK;
}

/* Takes the first of the kept frames out. */
static struct eg_held *unhold(struct eg_catchup *c)
{
    struct eg_held *const h = c->first;
    c->first = h->next;
    if (!c->first) {
        c->last = NULL;
    }
    c->held_bytes -= h->bytes->n;
    c->held_count--;
    return h;
}

/* Drops the oldest loose frame; false when there is none. */
static bool drop_one(struct eg_catchup *c)
{
    struct eg_held **at = &c->first, *before = NULL;
    while (*at && !(*at)->loose) {
        before = *at;
        at = &(*at)->next;
    }
    struct eg_held *const h = *at;
    if (!h) {
        return false;
    }
    *at = h->next;
    if (c->last == h) {
        c->last = before;
    }
    c->held_bytes -= h->bytes->n;
    c->held_count--;
    eg_bytes_unref(h->bytes);
    free(h);
    return true;
}

void eg_catchup_hold(struct eg_peer *p, uint64_t cursor, bool loose, struct eg_bytes *bytes)
{
    struct eg_catchup *const c = p->catchup;
    const struct eg_settings *const s = p->r->settings;
    struct eg_held *const h = malloc(sizeof *h);
    if (!h) {
        eg_bytes_unref(bytes);
        eg_peer_end(p);
        return;
    }
    *h = (struct eg_held){.cursor = cursor ? cursor : p->head,
                          .in_place = cursor != 0,
                          .loose = loose,
                          .bytes = bytes};
    if (cursor > p->head) {
        p->head = cursor;
    }
    if (c->last) {
        c->last->next = h;
    } else {
        c->first = h;
    }
    c->last = h;
    c->held_bytes += bytes->n;
    c->held_count++;
    while (c->held_bytes > (size_t)s->max_buffered_bytes ||
           c->held_count > (size_t)s->max_queued_frames) {
        if (!drop_one(c)) {
            eg_metric_add(EG_M_slow_consumers_total, 1);
            eg_peer_cut(p, EG_CLOSE_TRY_LATER, "slow_consumer");
            return;
        }
    }
}

bool eg_catchup_crowded(const struct eg_peer *p)
{
    const struct eg_settings *const s = p->r->settings;
    return p->catchup && (p->catchup->held_count >= (size_t)s->max_queued_frames / 2 ||
                          p->catchup->held_bytes >= (size_t)s->max_buffered_bytes / 2);
}

bool eg_catchup_owes(const struct eg_peer *p)
{
    const struct eg_held *h = p->catchup ? p->catchup->first : NULL;
    while (h && h->loose) {
        h = h->next;
    }
    return h != NULL;
}

/* Sends the kept frames whose place has come. */
static void release_held(struct eg_peer *p)
{
    while (p->catchup && p->catchup->first) {
        struct eg_held *const next = p->catchup->first;
        if (next->in_place ? next->cursor > p->sent + 1 : next->cursor > p->sent) {
            break;
        }
        struct eg_held *const h = unhold(p->catchup);
        if (h->in_place && h->cursor == p->sent + 1) {
            p->sent = h->cursor;
        }
        eg_peer_send(p, h->bytes);
        free(h);
    }
}

/* Whether a kept frame stands in place of the next event. */
static bool next_is_held(const struct eg_peer *p)
{
    for (const struct eg_held *h = p->catchup->first; h; h = h->next) {
        if (h->in_place) {
            return h->cursor == p->sent + 1;
        }
    }
    return false;
}

/* Asks for the page after p->sent. */
static void ask(struct eg_peer *p)
{
    struct eg_catchup *const c = p->catchup;
    struct eg_job *const job = eg_job_new(EG_JOB_PAGE, p);
    if (!job) {
        eg_peer_end(p);
        return;
    }
    job->from = p->sent + 1;
    job->to = c->wrapped ? c->replay_to : p->head;
    for (const struct eg_held *h = c->first; h; h = h->next) {
        if (h->in_place) {
            job->to = h->cursor - 1 < job->to ? h->cursor - 1 : job->to;
            break;
        }
    }
    job->shape = p->mode == EG_CONN_SSE ? EG_SHAPE_SSE
                 : c->wrapped           ? EG_SHAPE_REPLAY
                                        : EG_SHAPE_LIVE;
    job->streaming = p->caps & EG_CAP_STREAMING;
    job->max_bytes = EG_PAGE_BYTES;
    c->waiting = true;
    c->job = job;
    eg_pool_give(p->r->set->pool, job);
}

static void send_replay_end(struct eg_peer *p)
{
    p->catchup->wrapped = false;
    if (p->mode == EG_CONN_SSE) {
        return;
    }
    eg_buf_reset(&p->r->text);
    eg_buf_printf(&p->r->text, "{\"type\":\"replay_end\",\"cursor\":%llu}",
                  (unsigned long long)p->catchup->replay_to);
    eg_peer_send_text(p);
}

/* Live: there is nothing left to read, and all that was read is written. */
static void go_live(struct eg_peer *p)
{
    eg_catchup_free(p);
    if (p->closed_session) {
        eg_peer_close(p, EG_CLOSE_NORMAL, "session_closed");
    }
}

void eg_catchup_step(struct eg_peer *p)
{
    while (!p->gone && p->catchup && !p->catchup->waiting &&
           eg_outbox_page_bytes(&p->out) <= EG_PAGE_AHEAD_BYTES) {
        struct eg_catchup *const c = p->catchup;
        if (c->wrapped && p->sent >= c->replay_to) {
            send_replay_end(p);
            continue;
        }
        if (eg_outbox_page_bytes(&p->out) == 0) {
            release_held(p); /* not on top of pages that wait for a slow reader */
        }
        if (!p->catchup) { /* closed meanwhile */
            return;
        }
        if (p->leaving && p->syncs == 0 && !eg_catchup_owes(p)) {
            eg_method_left(p);
            return;
        }
        if (p->sent < p->head && !next_is_held(p)) {
            ask(p);
            return;
        }
        if (c->first || eg_outbox_page_bytes(&p->out)) {
            return;
        }
        go_live(p);
    }
}

/* Adds what a job made; the next is asked for when it is written. */
static void add_page(struct eg_peer *p, struct eg_job *job)
{
    struct eg_outent ent;
    if (!job->bytes) {
        return;
    }
    eg_outent_raw(&ent, job->bytes, job->frames);
    if (job->kind == EG_JOB_SNAPSHOT) {
        eg_outent_frame(&ent, job->bytes, EG_WS_OP_TEXT);
    }
    ent.paged = true;
    job->bytes = NULL;
    eg_peer_take(p, &ent);
}

void eg_catchup_page(struct eg_peer *p, struct eg_job *job)
{
    if (p && p->catchup && p->catchup->job == job) {
        p->catchup->job = NULL;
    }
    if (!p || p->gone || p->broken || !p->catchup || p->state != EG_PEER_JOINED) {
        return;
    }
    p->catchup->waiting = false;
    if (p->closed_session && (job->gap || job->err == EG_ENOTFOUND)) {
        eg_peer_close(p, EG_CLOSE_NORMAL, "session_closed"); /* it is being removed */
        return;
    }
    if (job->err != EG_OK) {
        eg_log_limited(EG_LOG_ERROR, "replay.failed", "conn=" EG_CONN_HEX EG_F "why=%s",
                       eg_peer_id(p), eg_err_text(job->err));
        eg_peer_close(p, EG_CLOSE_TRY_LATER, "storage_unavailable");
        return;
    }
    p->sent = job->kind == EG_JOB_PAGE ? job->last : job->to;
    add_page(p, job);
    if (job->gap) { /* trimmed while it was replayed: the peer comes back and is told so */
        eg_peer_close(p, EG_CLOSE_TRY_LATER, "replay_gap");
        return;
    }
    eg_peer_touch(p);
    eg_catchup_step(p);
}
