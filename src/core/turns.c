/*
 * turns.c - the life of a turn: its table of moves, the queue of a session, attempts, leases,
 * deadlines.
 *
 * A turn is QUEUED, is handed out (RUNNING), and ends by its worker's final; or an attempt fails
 * and it waits (WAITING) or queues again; or it is aborted (ABORTING until the worker agrees or the
 * grace is over); or no attempt is left (DEAD). Only the head of a session's queue moves, but for
 * aborts of queued turns.
 */
#include "core/machine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "wire/event.h"
#include "wire/json.h"

#define BACKOFF_MAX_MS 60000
#define WAIT_MAX_MS EG_HOUR_MS /* whatever a worker asks for, and however the wall clock jumped */

static const char *const state_name[] = {"queued",   "running", "waiting",
                                         "aborting", "dead",    "ended"};
static const char *const input_name[] = {"hand_out", "final", "give_back", "fail",
                                         "exhaust",  "due",   "abort",     "grace"};

#define NEVER EG_TURN_NEVER
static const unsigned char moves[EG_TURN_ENDED][EG_TURN_INPUTS] = {
    /* hand_out, final, give_back, fail, exhaust, due, abort, grace */
    [EG_TURN_QUEUED] = {EG_TURN_RUNNING, NEVER, NEVER, NEVER, EG_TURN_DEAD, NEVER, EG_TURN_ENDED,
                        NEVER},
    [EG_TURN_RUNNING] = {NEVER, EG_TURN_ENDED, EG_TURN_QUEUED, EG_TURN_WAITING, EG_TURN_DEAD, NEVER,
                         EG_TURN_ABORTING, NEVER},
    [EG_TURN_WAITING] = {NEVER, NEVER, NEVER, NEVER, NEVER, EG_TURN_QUEUED, EG_TURN_ENDED, NEVER},
    [EG_TURN_ABORTING] = {NEVER, EG_TURN_ENDED, NEVER, NEVER, NEVER, NEVER, NEVER, EG_TURN_ENDED},
    [EG_TURN_DEAD] = {NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER},
};

unsigned eg_turn_move(unsigned state, enum eg_turn_input input)
{
    return state < EG_TURN_ENDED ? moves[state][input] : EG_TURN_NEVER;
}

const char *eg_turn_state_name(unsigned state)
{
    return state <= EG_TURN_ENDED ? state_name[state] : "unknown";
}

const char *eg_turn_input_name(enum eg_turn_input input)
{
    return input_name[input];
}

/* --- deadlines: a binary heap, entries outlive what they were made for and are then ignored --- */

static void timer_push(struct eg_machine *m, int64_t at_mono, int64_t sid)
{
    if (m->timer_count == m->timer_cap) {
        const unsigned cap = m->timer_cap ? m->timer_cap * 2 : 64;
        struct eg_timer *grown = realloc(m->timers, cap * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return;
        }
        m->timers = grown;
        m->timer_cap = cap;
    }
    unsigned i = m->timer_count++;
    while (i > 0 && m->timers[(i - 1) / 2].at_mono > at_mono) {
        m->timers[i] = m->timers[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->timers[i] = (struct eg_timer){at_mono, sid};
}

static struct eg_timer timer_pop(struct eg_machine *m)
{
    const struct eg_timer top = m->timers[0];
    const struct eg_timer last = m->timers[--m->timer_count];
    unsigned i = 0;
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= m->timer_count) {
            break;
        }
        if (child + 1 < m->timer_count && m->timers[child + 1].at_mono < m->timers[child].at_mono) {
            child++;
        }
        if (m->timers[child].at_mono >= last.at_mono) {
            break;
        }
        m->timers[i] = m->timers[child];
        i = child;
    }
    if (m->timer_count) {
        m->timers[i] = last;
    }
    return top;
}

/* Has the heap name s at this time, or before: a session has one entry, whatever comes and goes,
 * but for those that a sooner time has made useless. */
static void watch(struct eg_machine *m, struct eg_session *s, int64_t at_mono)
{
    if (s->timer_mono == 0 || at_mono < s->timer_mono) {
        timer_push(m, at_mono, s->sid);
        s->timer_mono = m->failed ? s->timer_mono : at_mono;
    }
}

static void set_deadline(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                         int64_t in_ms)
{
    t->deadline_mono = m->now.mono_ms + in_ms;
    t->until_ms = m->now.wall_ms + in_ms;
    watch(m, s, t->deadline_mono);
}

/* --- the queue of a session --- */

struct eg_turn *eg_turn_at(const struct eg_session *s, unsigned i)
{
    return &s->turns[(s->turn_first + i) & (s->turn_cap - 1)];
}

struct eg_turn *eg_turn_head(const struct eg_session *s)
{
    return s->turn_count ? eg_turn_at(s, 0) : NULL;
}

struct eg_turn *eg_turn_named(const struct eg_session *s, uint64_t turn)
{
    unsigned low = 0, high = s->turn_count;
    while (low < high) {
        const unsigned middle = low + (high - low) / 2;
        if (eg_turn_at(s, middle)->turn < turn) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->turn_count && eg_turn_at(s, low)->turn == turn ? eg_turn_at(s, low) : NULL;
}

struct eg_turn *eg_turn_push(struct eg_machine *m, struct eg_session *s, uint64_t turn)
{
    if (s->turn_count == s->turn_cap) {
        const unsigned cap = s->turn_cap ? s->turn_cap * 2 : 2;
        struct eg_turn *grown = malloc(cap * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return NULL;
        }
        for (unsigned i = 0; i < s->turn_count; i++) {
            grown[i] = *eg_turn_at(s, i);
        }
        free(s->turns);
        s->turns = grown;
        s->turn_cap = cap;
        s->turn_first = 0;
    }
    struct eg_turn *t = eg_turn_at(s, s->turn_count++);
    *t = (struct eg_turn){
        .turn = turn, .created_ms = m->now.wall_ms, .state = EG_TURN_QUEUED, .dirty = true};
    return t;
}

/* Takes t, wherever it stands, off the queue; its row goes with the batch unless it is kept as
 * dead. */
static void take_off(struct eg_machine *m, struct eg_session *s, struct eg_turn *t, bool keep_row)
{
    if (t->stored && !keep_row) {
        if (m->ended_count == m->ended_cap) {
            const unsigned cap = m->ended_cap ? m->ended_cap * 2 : 64;
            struct eg_ended *grown = realloc(m->ended, cap * sizeof *grown);
            if (!grown) {
                m->failed = true;
                return;
            }
            m->ended = grown;
            m->ended_cap = cap;
        }
        m->ended[m->ended_count++] = (struct eg_ended){s->sid, t->turn};
    }
    const unsigned at = ((unsigned)(t - s->turns) - s->turn_first) & (s->turn_cap - 1);
    if (at == 0) {
        s->hung_worker = 0;
    }
    if (at + 1 == s->turn_count) { /* the newest, whose message head_body is */
        eg_bytes_unref(s->head_body);
        s->head_body = NULL;
    }
    if (at < s->turn_count / 2) { /* the shorter side moves up: queues may be long */
        for (unsigned i = at; i > 0; i--) {
            *eg_turn_at(s, i) = *eg_turn_at(s, i - 1);
        }
        s->turn_first = (s->turn_first + 1) & (s->turn_cap - 1);
    } else {
        for (unsigned i = at; i + 1 < s->turn_count; i++) {
            *eg_turn_at(s, i) = *eg_turn_at(s, i + 1);
        }
    }
    s->turn_count--;
    eg_session_touch(m, s);
}

static void move(struct eg_turn *t, enum eg_turn_input input)
{
    const unsigned next = eg_turn_move(t->state, input);
    assert(next != EG_TURN_NEVER);
    t->state = (unsigned char)next;
    t->dirty = true;
}

static void release_worker(struct eg_machine *m, struct eg_session *s, struct eg_turn *t)
{
    if (t->worker) {
        eg_worker_let_go(m, t->worker, s);
        t->worker = NULL;
    }
    t->deadline_mono = 0;
}

static void remember_worker(struct eg_machine *m, struct eg_session *s, const struct eg_worker *w)
{
    s->last_worker = w->conn->id;
    eg_session_worker(m, s, w->id);
}

static void next_turn(struct eg_machine *m, struct eg_session *s)
{
    const struct eg_turn *head = eg_turn_head(s);
    if (head && head->state == EG_TURN_QUEUED) {
        eg_dispatch_session(m, s);
    }
}

/* Names t to its worker. */
static void name_turn(struct eg_buf *b, const struct eg_machine *m, const struct eg_session *s,
                      const struct eg_turn *t)
{
    char epoch[EG_EPOCH_MAX + 1];
    eg_epoch_of(&m->epoch, s->sid, epoch);
    eg_json_kcstr(b, "session_id", s->id);
    eg_json_kint(b, "turn", (int64_t)t->turn);
    eg_json_kcstr(b, "epoch", epoch);
}

/* --- ends --- */

/* Appends the gateway's own response to t. */
static bool respond(struct eg_machine *m, struct eg_session *s, const struct eg_turn *t,
                    struct eg_slice tail)
{
    return eg_session_append(m, s,
                             &(struct eg_append){.type = EG_LIT("response"),
                                                 .source = EG_LIT("gateway"),
                                                 .turn = t->turn,
                                                 .tail = tail}) != 0;
}

void eg_turn_end_aborted(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                         enum eg_turn_input in)
{
    const bool was_head = t == eg_turn_head(s);
    if (!respond(
            m, s, t,
            EG_LIT("\"status\":\"final\",\"content\":null,\"outcome\":{\"status\":\"aborted\"}"))) {
        return;
    }
    move(t, in);
    if (t->worker) {
        remember_worker(m, s, t->worker);
    }
    struct eg_agent *agent = t->worker ? s->agent : NULL;
    release_worker(m, s, t);
    take_off(m, s, t, false);
    eg_metric_add(EG_M_turns_aborted_total, 1);
    if (was_head) {
        next_turn(m, s);
    }
    if (agent) {
        eg_dispatch(m, agent);
    }
}

void eg_turn_finish(struct eg_machine *m, struct eg_session *s, struct eg_turn *t)
{
    move(t, EG_IN_FINAL);
    remember_worker(m, s, t->worker);
    release_worker(m, s, t);
    take_off(m, s, t, false);
    next_turn(m, s);
    eg_dispatch(m, s->agent);
}

/* As much of text as fits into size bytes with a NUL, no character cut in two. */
static size_t fitting(struct eg_slice text, size_t size)
{
    size_t n = text.n < size ? text.n : size - 1;
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xc0) == 0x80) {
        n--;
    }
    return n;
}

/* The turn is given up: a response that says so, and a row that operators find. */
static void bury(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                 struct eg_slice error)
{
    struct eg_buf tail = {0};
    eg_buf_str(&tail, "\"status\":\"final\",\"content\":null,\"outcome\":{\"status\":\"error\","
                      "\"code\":\"dead_letter\"");
    eg_json_kstr(&tail, "message", error);
    eg_json_kint(&tail, "attempts", t->attempt);
    eg_buf_char(&tail, '}');
    const bool told = !tail.err && respond(m, s, t, (struct eg_slice){tail.p, tail.n});
    m->failed = m->failed || tail.err;
    eg_buf_free(&tail);
    if (!told) {
        return;
    }
    struct eg_turn_row row = {.sid = s->sid,
                              .turn = t->turn,
                              .state = EG_TURN_DEAD,
                              .attempt = t->attempt,
                              .created_ms = t->created_ms,
                              .until_ms = m->now.wall_ms};
    memcpy(row.error, error.p, fitting(error, sizeof row.error));
    m->storage->ops->turn_put(m->storage, &row);
    move(t, EG_IN_EXHAUST);
    take_off(m, s, t, true);
    eg_metric_add(EG_M_turns_dead_total, 1);
}

static void notice(struct eg_machine *m, struct eg_session *s, const struct eg_turn *t,
                   const char *type, int attempt, struct eg_slice error, int64_t retry_after_ms)
{
    struct eg_buf b = {0};
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "type", type);
    eg_json_kcstr(&b, "session_id", s->id);
    eg_json_kint(&b, "turn", (int64_t)t->turn);
    eg_json_kint(&b, "attempt", attempt);
    if (error.n) {
        eg_json_kstr(&b, "error", error);
    }
    if (retry_after_ms >= 0) {
        eg_json_kint(&b, "retry_after_ms", retry_after_ms);
    }
    eg_buf_char(&b, '}');
    eg_out_notice(m, s, EG_CAP_ACK, 0, false, &b);
}

static int64_t backoff_ms(const struct eg_machine *m, int attempt)
{
    int64_t ms = m->settings->retry_backoff_ms;
    for (int i = 1; i < attempt && ms < BACKOFF_MAX_MS; i++) {
        ms *= 2;
    }
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

static bool exhausted(const struct eg_machine *m, const struct eg_turn *t)
{
    return t->attempt >= m->settings->max_attempts ||
           (t->attempt > 0 && m->now.wall_ms - t->created_ms >= m->settings->max_turn_age_ms);
}

void eg_turn_attempt_over(struct eg_machine *m, struct eg_session *s, struct eg_turn *t, bool retry,
                          bool wait, int64_t after_ms, struct eg_slice error)
{
    eg_session_touch(m, s);
    if (t->state == EG_TURN_ABORTING) {
        struct eg_agent *agent = s->agent;
        release_worker(m, s, t);
        if (eg_machine_write(m)) {
            eg_turn_end_aborted(m, s, t, EG_IN_GRACE);
        } else {
            set_deadline(m, s, t, 1000);
        }
        eg_dispatch(m, agent);
        return;
    }
    release_worker(m, s, t);
    notice(m, s, t, "message_nack", t->attempt, error, -1);
    if ((!retry || exhausted(m, t)) && eg_machine_write(m)) {
        bury(m, s, t, error);
        next_turn(m, s);
    } else {
        int64_t delay = !wait ? 0 : after_ms >= 0 ? after_ms : backoff_ms(m, t->attempt);
        delay = delay < WAIT_MAX_MS ? delay : WAIT_MAX_MS;
        eg_metric_add(EG_M_turns_retried_total, 1);
        notice(m, s, t, "delivery_retry", t->attempt + 1, (struct eg_slice){0}, delay);
        move(t, delay ? EG_IN_FAIL : EG_IN_GIVE_BACK);
        if (delay) {
            set_deadline(m, s, t, delay);
        } else {
            eg_dispatch_session(m, s);
        }
    }
    eg_dispatch(m, s->agent);
}

void eg_turn_abort_running(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                           struct eg_slice reason)
{
    struct eg_buf b = {0};
    move(t, EG_IN_ABORT);
    set_deadline(m, s, t, t->worker ? m->settings->abort_grace_ms : 0);
    eg_session_touch(m, s);
    if (!t->worker) {
        return; /* it was at one when the gateway ended; the tick of this batch ends it */
    }
    eg_buf_str(&b, "{\"type\":\"abort\"");
    name_turn(&b, m, s, t);
    eg_json_kstr(&b, "reason", reason);
    eg_buf_char(&b, '}');
    eg_out_buf(m, t->worker->conn->id, &b);
}

void eg_turn_lease(struct eg_machine *m, struct eg_turn *t)
{
    if (t->state == EG_TURN_RUNNING) {
        /* The heap's entry stays; when it comes up it is put back at this time. */
        t->deadline_mono = m->now.mono_ms + m->settings->turn_lease_ms;
        t->until_ms = m->now.wall_ms + m->settings->turn_lease_ms;
    }
}

/* --- handing one out --- */

/* Gives the head of s to w. The message is read from the log unless it came in this very batch. */
static void hand_out(struct eg_machine *m, struct eg_session *s, struct eg_worker *w)
{
    struct eg_turn *t = eg_turn_head(s);
    struct eg_bytes *body = eg_bytes_ref(s->head_body);
    struct eg_event_head head;
    struct eg_buf b = {0};
    if (body && s->turn_count > 1) {
        eg_bytes_unref(body); /* head_body is of the newest turn, not of this */
        body = NULL;
    }
    if (!body) {
        const enum eg_err e = m->storage->ops->event_get(m->storage, s->sid, t->turn, &body);
        if (e == EG_ENOTFOUND) { /* damage: it would fail for ever, and every batch with it */
            bury(m, s, t, EG_LIT("its message is missing in the log"));
            next_turn(m, s);
            return;
        }
        if (e != EG_OK) {
            s->unreadable = e == EG_ECORRUPT ? t->turn : 0; /* not to be tried with every batch */
            m->failed = true;
            return;
        }
    }
    if (!eg_worker_hold(m, w, s)) {
        eg_bytes_unref(body);
        return;
    }
    move(t, EG_IN_HAND_OUT);
    t->attempt++;
    t->worker = w;
    set_deadline(m, s, t, m->settings->turn_lease_ms);
    eg_session_touch(m, s);
    eg_buf_str(&b, "{\"type\":\"turn\"");
    name_turn(&b, m, s, t);
    eg_json_kint(&b, "attempt", t->attempt);
    eg_json_kraw(&b, "message", eg_bytes_slice(body));
    eg_json_kint(&b, "history_cursor", (int64_t)s->cursor);
    if (eg_event_read(eg_bytes_slice(body), &head) == EG_OK && head.traceparent.n) {
        eg_json_kstr(&b, "traceparent", head.traceparent);
    }
    eg_buf_char(&b, '}');
    eg_out_buf(m, w->conn->id, &b);
    notice(m, s, t, "message_ack", t->attempt, (struct eg_slice){0}, -1);
    eg_bytes_unref(body);
    eg_metric_add(EG_M_turns_started_total, 1);
}

void eg_turn_hand_out(struct eg_machine *m, struct eg_session *s, struct eg_worker *w)
{
    struct eg_turn *t = eg_turn_head(s);
    if (!eg_machine_write(m)) {
        return;
    }
    if (exhausted(m, t)) {
        bury(m, s, t, EG_LIT("no attempt is left"));
        next_turn(m, s);
        return;
    }
    hand_out(m, s, w);
}

/* --- time --- */

static void due(struct eg_machine *m, struct eg_session *s, struct eg_turn *t)
{
    if (t->state == EG_TURN_RUNNING) {
        s->hung_worker = t->worker ? t->worker->conn->id : 0;
        eg_turn_attempt_over(m, s, t, true, false, 0, EG_LIT("the lease ran out"));
    } else if (t->state == EG_TURN_WAITING) {
        t->deadline_mono = 0;
        move(t, EG_IN_DUE);
        eg_session_touch(m, s);
        eg_dispatch_session(m, s);
    } else {
        eg_turn_end_aborted(m, s, t, EG_IN_GRACE); /* no other state has a deadline */
    }
}

void eg_turns_due(struct eg_machine *m)
{
    while (m->timer_count && m->timers[0].at_mono <= m->now.mono_ms && !m->readonly && !m->failed) {
        const struct eg_timer timer = timer_pop(m);
        struct eg_session *s = NULL;
        HASH_FIND(hh_sid, m->by_sid, &timer.sid, sizeof timer.sid, s);
        if (s && s->timer_mono == timer.at_mono) {
            s->timer_mono = 0;
        }
        struct eg_turn *t = s ? eg_turn_head(s) : NULL;
        if (!t || t->deadline_mono == 0) {
            continue;
        }
        if (t->deadline_mono > m->now.mono_ms) {
            watch(m, s, t->deadline_mono);
            continue;
        }
        eg_session_touch(m, s); /* should this batch fail, its time is found anew */
        if (eg_machine_write(m)) {
            due(m, s, t);
        }
    }
}

void eg_turn_recover(struct eg_machine *m, struct eg_session *s)
{
    struct eg_turn *t = eg_turn_head(s);
    if (!t || t->state == EG_TURN_QUEUED) {
        return;
    }
    if (t->state != EG_TURN_WAITING && !t->worker) {
        t->deadline_mono = m->now.mono_ms; /* its worker is gone: at once */
    } else if (s->due_mono) {
        t->deadline_mono = s->due_mono; /* a batch was taken back: as before it */
    } else {
        int64_t left = t->until_ms - m->now.wall_ms;
        left = left < 0 ? 0 : left > WAIT_MAX_MS ? WAIT_MAX_MS : left;
        t->deadline_mono = m->now.mono_ms + left;
    }
    watch(m, s, t->deadline_mono);
}
