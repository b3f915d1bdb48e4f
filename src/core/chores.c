/*
 * chores.c - work on one session that would take too long for one batch: trimming behind the floor,
 * deleting, forking. Some rows each batch; where it stands is told by the rows themselves, so a
 * rollback or a crash costs nothing.
 *
 * Failure modes: a batch that is undone takes its step with it, and the step comes again. One that
 * fails again and again (a session that is damaged on the disk) would undo every batch, and nobody
 * could publish anything: it rests, each time twice as long. A copy does not: somebody waits for
 * it, and what it cannot read ends it.
 */
#include "core/machine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "wire/event.h"
#include "wire/json.h"

#define TRIES 3 /* in a row */
#define REST_MS 1000
#define REST_MS_MOST 3600000

static bool is_in(const struct eg_chore *list, enum eg_chore_kind kind, int64_t sid)
{
    const struct eg_chore *c;
    DL_FOREACH(list, c)
    {
        if (c->kind == kind && c->sid == sid) {
            return true;
        }
    }
    return false;
}

void eg_chore_add(struct eg_machine *m, enum eg_chore_kind kind, int64_t sid, int64_t to_sid,
                  uint64_t last, struct eg_call *call)
{
    struct eg_chore *c;
    if (kind != EG_CHORE_FORK && (is_in(m->chores, kind, sid) || is_in(m->resting, kind, sid))) {
        return; /* it will see the new floor */
    }
    c = calloc(1, sizeof *c);
    if (!c) {
        m->failed = true;
        return;
    }
    *c = (struct eg_chore){
        .kind = kind, .sid = sid, .to_sid = to_sid, .last = last, .call = call, .fresh = true};
    DL_APPEND(m->chores, c);
}

static void trim(struct eg_machine *m, struct eg_chore *c, struct eg_session *s)
{
    int removed = 0;
    int64_t bytes = 0;
    m->storage->ops->events_trim(m->storage, s->sid, s->oldest, m->trim_rows, &removed, &bytes);
    s->bytes -= bytes;
    eg_session_changed(m, s);
    eg_metric_add(EG_M_trimmed_events_total, removed);
    c->finished = removed < m->trim_rows;
}

/* Ids may be begun again from now on. */
static void end_epoch(struct eg_machine *m)
{
    struct eg_epoch now;
    if (m->epoch.until_sid < INT64_MAX) {
        return;
    }
    if (m->storage->ops->epoch(m->storage, &now) != EG_OK) {
        m->failed = true;
        return;
    }
    m->epoch_ends = true;
    __atomic_store_n(&m->epoch.until_sid, now.until_sid, __ATOMIC_RELAXED);
}

static void erase(struct eg_machine *m, struct eg_chore *c, struct eg_session *s)
{
    int removed = 0;
    int64_t bytes = 0;
    m->storage->ops->events_trim(m->storage, s->sid, s->cursor + 1, m->trim_rows, &removed, &bytes);
    if (removed < m->trim_rows) {
        m->storage->ops->session_delete(m->storage, s->sid);
        end_epoch(m);
        s->gone = true;
        s->dirty = false;
        c->finished = true;
    }
}

struct copies {
    struct eg_bytes *body[EG_COPY_ROWS];
    int n;
    uint64_t last;
    bool failed;
};

static void collect(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct copies *k = arg;
    assert(k->n < EG_COPY_ROWS);
    if (cursor > k->last) {
        return;
    }
    k->body[k->n] = eg_bytes_copy(body.p, body.n);
    k->failed = k->failed || !k->body[k->n];
    k->n++;
}

/* A head's strings are still escaped: decodes one into out, which has room for all of them. */
static struct eg_slice plain(struct eg_buf *out, struct eg_slice escaped)
{
    const size_t at = out->n;
    if (escaped.n == 0) {
        return escaped;
    }
    eg_json_unquote((struct eg_slice){escaped.p - 1, escaped.n + 2}, out);
    return (struct eg_slice){out->p + at, out->n - at};
}

/* Appends a copy of an event under the name of session to; false when the event is broken. */
static bool copy_event(struct eg_machine *m, struct eg_session *to, struct eg_slice body)
{
    struct eg_event_head h;
    struct eg_buf scratch = {0};
    if (eg_event_read(body, &h) != EG_OK) {
        return false;
    }
    /* Decoding never grows a string: with this much room the buffer does not move. */
    eg_buf_reserve(&scratch, h.type.n + h.event_id.n + h.source.n + h.traceparent.n);
    struct eg_event e = {.type = plain(&scratch, h.type),
                         .event_id = plain(&scratch, h.event_id),
                         .source = plain(&scratch, h.source),
                         .traceparent = plain(&scratch, h.traceparent),
                         .session_id = eg_slice_cstr(to->id),
                         .cursor = h.cursor,
                         .turn = h.turn,
                         .timestamp_ms = h.timestamp_ms,
                         .tail = h.tail};
    struct eg_bytes *bytes = scratch.err ? NULL : eg_event_make(&e);
    eg_buf_free(&scratch);
    if (!bytes) {
        m->failed = true;
        return true;
    }
    eg_chain_next(to->hash, eg_bytes_slice(bytes), to->hash);
    m->storage->ops->event_append(
        m->storage,
        &(struct eg_event_row){
            .sid = to->sid, .cursor = h.cursor, .hash = to->hash, .body = eg_bytes_slice(bytes)});
    to->cursor = h.cursor;
    to->bytes += (int64_t)bytes->n;
    to->updated_ms = h.timestamp_ms > to->updated_ms ? h.timestamp_ms : to->updated_ms;
    m->events_in_batch++;
    m->bytes_in_batch += (int64_t)bytes->n;
    eg_bytes_unref(bytes);
    return true;
}

static void fork_done(struct eg_machine *m, struct eg_chore *c, enum eg_code code)
{
    if (c->call) {
        eg_out_done(m, c->call, code);
    }
    c->finished = true;
}

/* The copy cannot be finished: what there is of it goes. */
static void fork_fails(struct eg_machine *m, struct eg_chore *c, struct eg_session *to,
                       enum eg_code code)
{
    if (to) {
        to->state = EG_SESSION_DELETING;
        eg_session_changed(m, to);
        eg_chore_add(m, EG_CHORE_DELETE, to->sid, 0, 0, NULL);
    }
    fork_done(m, c, code);
}

static void copy_some(struct eg_machine *m, struct eg_chore *c, struct eg_session *from)
{
    struct copies k = {.last = c->last};
    bool whole = true;
    struct eg_session *to = eg_session_find_sid(m, c->to_sid);
    if (!to || from->state == EG_SESSION_DELETING || from->oldest > to->cursor + 1) {
        fork_fails(m, c, to, EG_CODE_conflict); /* removed or trimmed under the copy */
        return;
    }
    const enum eg_err e =
        m->storage->ops->events(m->storage, from->sid, to->cursor + 1, m->copy_rows, collect, &k);
    m->failed = m->failed || k.failed || (e != EG_OK && e != EG_ECORRUPT);
    for (int i = 0; i < k.n; i++) {
        if (!m->failed && whole) {
            whole = copy_event(m, to, eg_bytes_slice(k.body[i]));
        }
        eg_bytes_unref(k.body[i]);
    }
    eg_session_changed(m, to);
    if (e == EG_ECORRUPT || !whole) { /* it would fail for ever, and every batch with it */
        fork_fails(m, c, to, EG_CODE_internal);
    } else if (to->cursor >= c->last) {
        to->state = EG_SESSION_OPEN;
        fork_done(m, c, EG_CODE_NONE);
    }
}

int64_t eg_chores_due(const struct eg_machine *m)
{
    const struct eg_chore *c;
    int64_t due = m->chores ? 0 : INT64_MAX;
    DL_FOREACH(m->resting, c)
    {
        due = c->rest_until < due ? c->rest_until : due;
    }
    return due;
}

void eg_chores_step(struct eg_machine *m)
{
    struct eg_chore *c, *next;
    DL_FOREACH_SAFE(m->resting, c, next)
    {
        if (c->rest_until <= m->now.mono_ms) {
            DL_DELETE(m->resting, c);
            DL_APPEND(m->chores, c);
        }
    }
    c = m->chores;
    if (!c || !eg_machine_write(m)) {
        return;
    }
    c->stepped = true;
    struct eg_session *s = eg_session_find_sid(m, c->sid);
    if ((!s || s->gone) && c->kind == EG_CHORE_FORK) {
        fork_fails(m, c, eg_session_find_sid(m, c->to_sid), EG_CODE_conflict);
    } else if (!s || s->gone) {
        c->finished = true;
    } else if (c->kind == EG_CHORE_TRIM) {
        trim(m, c, s);
    } else if (c->kind == EG_CHORE_DELETE) {
        erase(m, c, s);
    } else {
        copy_some(m, c, s);
    }
}

static void drop(struct eg_machine *m, struct eg_chore *c)
{
    DL_DELETE(m->chores, c);
    free(c);
}

void eg_chores_committed(struct eg_machine *m)
{
    struct eg_chore *c, *next;
    const bool goes_on = m->chores && m->chores->stepped && !m->chores->finished;
    m->epoch_ends = false;
    DL_FOREACH_SAFE(m->chores, c, next)
    {
        c->fresh = false;
        c->failures = c->stepped ? 0 : c->failures;
        c->stepped = false;
        if (c->finished) {
            drop(m, c);
        }
    }
    /* One after the other: a long one does not hold back the rest. */
    if (goes_on && m->chores && m->chores->next) {
        c = m->chores;
        DL_DELETE(m->chores, c);
        DL_APPEND(m->chores, c);
    }
}

static void put_off(struct eg_machine *m, struct eg_chore *c)
{
    const unsigned doubled = c->failures - TRIES - 1;
    int64_t rest_ms = doubled < 12 ? (int64_t)REST_MS << doubled : REST_MS_MOST;
    rest_ms = rest_ms < REST_MS_MOST ? rest_ms : REST_MS_MOST;
    c->rest_until = m->now.mono_ms + rest_ms;
    DL_DELETE(m->chores, c);
    DL_APPEND(m->resting, c);
    eg_log_limited(EG_LOG_WARN, "chore.put_off", "session_number=%lld" EG_F "rest_ms=%lld",
                   (long long)c->sid, (long long)rest_ms);
}

void eg_chores_rolled_back(struct eg_machine *m)
{
    struct eg_chore *c, *next;
    if (m->epoch_ends) {
        __atomic_store_n(&m->epoch.until_sid, INT64_MAX, __ATOMIC_RELAXED);
        m->epoch_ends = false;
    }
    DL_FOREACH_SAFE(m->chores, c, next)
    {
        const bool stepped = c->stepped;
        c->finished = c->stepped = false;
        if (c->fresh) {
            drop(m, c);
        } else if (stepped && c->kind != EG_CHORE_FORK && ++c->failures > TRIES) {
            put_off(m, c);
        }
    }
}
