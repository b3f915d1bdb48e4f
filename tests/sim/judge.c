/*
 * judge.c - whether operators were answered rightly: each answer is held against the model
 * (lives.c), which then moves on by it. Answers are judged in the order in which they were given;
 * what else happened in their batch may have come before or after.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"

void sim_wrong(struct sim *w, const struct sim_call *k, const char *why)
{
    sim_fault(w, "operator: %s %s at %llu, turn %lld is answered %s: %s",
              sim_act_name[k->call.kind], k->name, (unsigned long long)k->call.cursor,
              (long long)k->call.turn, k->call.code ? eg_code_info(k->call.code)->name : "done",
              why);
}

static bool is_there(const struct life *l)
{
    return l->state == LIFE_OPEN || l->state == LIFE_CLOSED;
}

/* What is said of any session; true when there is more to judge. */
static bool judge_session(struct sim *w, const struct sim_call *k, const struct life *l)
{
    const enum eg_code code = k->call.code;
    if (code == EG_CODE_storage_unavailable) {
        if (!w->refuses && l->sid != w->damaged_sid) {
            sim_wrong(w, k, "nothing fails");
        }
        return false;
    }
    if (k->call.kind == EG_CALL_FORK) { /* its source may go before it is made */
        return true;
    }
    const bool found = code != EG_CODE_session_not_found;
    if (is_there(l) != found && (found || l->born != w->batches)) {
        sim_wrong(w, k, "it is not so");
    }
    return found;
}

static void judge_close(struct sim *w, struct sim_call *k, struct life *l)
{
    if (k->call.code != (l->state == LIFE_OPEN ? EG_CODE_NONE : EG_CODE_session_closed)) {
        sim_wrong(w, k, "it is not so");
    } else if (k->call.code == EG_CODE_NONE) {
        l->closed = 1;
        sim_life_ends(w, l, LIFE_CLOSED);
    }
}

static void judge_trim(struct sim *w, struct sim_call *k, struct life *l)
{
    const uint64_t open = sim_life_open_turn(l, l->kept_before);
    uint64_t least = k->call.cursor;
    if (k->call.code != EG_CODE_NONE) {
        sim_wrong(w, k, "it can be trimmed");
    }
    least = least < l->first + l->kept_before ? least : l->first + l->kept_before;
    least = open && open < least ? open : least;
    l->floor_least = l->floor_least > least ? l->floor_least : least;
    l->floor_most = l->floor_most > k->call.cursor ? l->floor_most : k->call.cursor;
}

/* Whether copy is e, under the name of another session. */
static bool is_copy(const struct seen *e, const char *from, const struct seen *copy, const char *to)
{
    char was[SIM_NAME + 20], is[SIM_NAME + 20];
    const struct eg_slice a = eg_bytes_slice(e->bytes), b = eg_bytes_slice(copy->bytes);
    const size_t was_n = (size_t)snprintf(was, sizeof was, "\"session_id\":\"%s\"", from);
    const size_t is_n = (size_t)snprintf(is, sizeof is, "\"session_id\":\"%s\"", to);
    const char *at = memmem(a.p, a.n, was, was_n);
    const size_t head = at ? (size_t)(at - a.p) : 0;
    return at && b.n == a.n - was_n + is_n && memcmp(a.p, b.p, head) == 0 &&
           memcmp(b.p + head, is, is_n) == 0 &&
           memcmp(at + was_n, b.p + head + is_n, a.n - head - was_n) == 0;
}

/* The copy begins where the source did, ends where it was to, and says the same. */
static void judge_copy(struct sim *w, const struct sim_call *k, struct life *l, struct life *to)
{
    struct eg_session_row row;
    if (w->storage->ops->session_by_sid(w->storage, to->sid, &row) != EG_OK ||
        row.oldest < k->floor || row.oldest > l->floor_most) {
        sim_wrong(w, k, "the copy begins elsewhere");
        return;
    }
    to->first = to->floor = to->floor_before = to->floor_least = to->floor_most = row.oldest;
    if (sim_life_last(to) != k->call.cursor || (to->n && to->event[0].cursor != to->first)) {
        sim_wrong(w, k, "the copy is not of that length");
        return;
    }
    for (unsigned i = 0; i < to->n; i++) {
        const struct seen *e = sim_life_event(l, to->event[i].cursor);
        if (!e || !is_copy(e, l->name, &to->event[i], to->name)) {
            sim_wrong(w, k, "the copy is another");
        }
    }
    sim_life_hash(l, to->first - 1, to->base);
    to->copied = to->n;
    to->state = LIFE_OPEN;
    to->born = w->batches; /* for all others */
}

static void judge_fork(struct sim *w, struct sim_call *k, struct life *l)
{
    struct life *to = sim_life_named(w, eg_slice_cstr(k->call.out_session_id));
    bool right = false;
    if (k->call.code == EG_CODE_NONE && to && to->state == LIFE_COPYING) {
        judge_copy(w, k, l, to);
        return;
    }
    if (k->call.code == EG_CODE_invalid_request) {
        right = k->call.cursor >= l->first + l->kept_before || k->call.cursor + 1 < l->floor_most;
    } else if (k->call.code == EG_CODE_session_not_found) {
        right = !is_there(l);
    } else if (k->call.code == EG_CODE_conflict) { /* it went, or a part of it, meanwhile */
        right = !is_there(l) || l->floor_most > k->floor;
    }
    if (!right) {
        sim_wrong(w, k, "it can be copied");
    }
    if (to && to->state == LIFE_COPYING) {
        to->copied = to->n;
        sim_life_ends(w, to, LIFE_REMOVED);
    }
}

/* Whether the turn of l was given up, by what was known before this batch or after it. */
static bool is_dead(const struct life *l, unsigned n, uint64_t turn)
{
    const struct seen *end = turn > l->first + l->copied - 1 ? sim_life_end_of(l, n, turn) : NULL;
    return end && eg_slice_is(eg_event_field(eg_bytes_slice(end->bytes), "outcome.code"),
                              "\"dead_letter\"");
}

/* The message is said again, as it was, once. */
static void judge_said_again(struct sim *w, struct sim_call *k, struct life *l)
{
    const uint64_t turn = (uint64_t)k->call.turn;
    const struct seen *was = sim_life_event(l, turn), *is = sim_life_event(l, k->call.out_turn);
    struct eg_event_head a, b;
    if (!was || !is || is->cursor < l->first + l->kept_before ||
        eg_event_read(eg_bytes_slice(was->bytes), &a) != EG_OK ||
        eg_event_read(eg_bytes_slice(is->bytes), &b) != EG_OK || !eg_slice_eq(a.type, b.type) ||
        !eg_slice_eq(a.source, b.source) || b.turn != is->cursor ||
        !eg_slice_eq(eg_event_field(eg_bytes_slice(was->bytes), "data.content"),
                     eg_event_field(eg_bytes_slice(is->bytes), "data.content"))) {
        sim_wrong(w, k, "it is not said again");
    }
    sim_turn_note(&w->again, k->life, turn);
    l->again++;
}

static void judge_retry(struct sim *w, struct sim_call *k, struct life *l)
{
    const uint64_t turn = (uint64_t)k->call.turn;
    const bool again = sim_turn_noted(&w->again, k->life, turn);
    switch (k->call.code) {
    case EG_CODE_NONE:
        if (again || !is_dead(l, l->kept, turn) || turn < l->floor_before ||
            l->state != LIFE_OPEN) {
            sim_wrong(w, k, again ? "it was tried again before" : "it is not dead");
        }
        judge_said_again(w, k, l);
        break;
    case EG_CODE_not_found:
        if (!again && is_dead(l, l->kept_before, turn) && turn >= l->floor_most) {
            sim_wrong(w, k, "it is dead");
        }
        break;
    case EG_CODE_session_closed:
        if (l->state != LIFE_CLOSED) {
            sim_wrong(w, k, "it is open");
        }
        break;
    default:
        if (k->call.code != EG_CODE_queue_full || !sim_queue_full(w, l)) {
            sim_wrong(w, k, "that is no answer");
        }
    }
}

static bool is_turn(const struct life *l, unsigned n, uint64_t turn)
{
    const struct seen *e = turn < l->first + n ? sim_life_event(l, turn) : NULL;
    struct eg_event_head head;
    return e && turn >= l->first + l->copied &&
           eg_event_read(eg_bytes_slice(e->bytes), &head) == EG_OK &&
           eg_slice_is(head.type, "message");
}

static void judge_abort(struct sim *w, struct sim_call *k, const struct life *l)
{
    if (k->call.code == EG_CODE_NONE) {
        sim_turn_note(&w->stopped, k->life, k->call.out_turn);
        return;
    }
    const uint64_t first = sim_life_open_turn(l, l->kept_before);
    const uint64_t turn = k->call.turn < 0 ? first : (uint64_t)k->call.turn;
    if (k->call.code != EG_CODE_conflict ||
        (is_turn(l, l->kept_before, turn) && !sim_life_end_of(l, l->kept, turn))) {
        sim_wrong(w, k, "it is open");
    }
}

static void judge_message(struct sim *w, struct sim_call *k, const struct life *l)
{
    if (k->call.code == EG_CODE_NONE) {
        if (l->state != LIFE_OPEN && !k->call.duplicate) {
            sim_wrong(w, k, "it is closed");
        }
        sim_promise(w, (struct promise){k->life, k->call.out_cursor, SIM_OPERATOR, k->serial});
    } else if (k->call.code == EG_CODE_session_closed
                   ? l->state == LIFE_OPEN
                   : k->call.code != EG_CODE_queue_full || !sim_queue_full(w, l)) {
        sim_wrong(w, k, "it is open");
    }
}

static void judge_reap(struct sim *w, const struct sim_call *k, const struct life *l)
{
    if (k->call.code != EG_CODE_NONE &&
        !(k->call.code == EG_CODE_storage_unavailable && w->refuses) &&
        !(k->call.code == EG_CODE_session_not_found && l->gone)) {
        sim_wrong(w, k, "it is on its way out");
    }
}

/* An agent is forgotten unless somebody serves it or is served by it. */
static void judge_agent(struct sim *w, const struct sim_call *k)
{
    const bool other = !eg_slice_is(k->call.agent, "a");
    bool *known = eg_slice_is(k->call.agent, "b") ? &w->other_known : other ? &w->named : &w->known;
    const enum eg_code code = k->call.code;
    bool right = code == EG_CODE_storage_unavailable && w->refuses;
    if (code == EG_CODE_NONE && k->call.kind == EG_CALL_AGENT_PUT) {
        right = !other || k->call.created != *known;
        *known = true;
    } else if (code == EG_CODE_NONE) {
        right = *known || !other;
        for (unsigned i = 0; i < w->lives && !other; i++) {
            const struct life *l = &w->life[i];
            const uint64_t open = sim_life_open_turn(l, l->kept_before);
            right = right && !(open && open == sim_life_open_turn(l, l->kept));
        }
        *known = false;
        w->forgotten = other ? w->forgotten : w->batches;
    } else if (code == EG_CODE_agent_not_found) {
        right = !*known && k->call.kind == EG_CALL_AGENT_DELETE;
    } else if (code == EG_CODE_conflict) {
        right = !other && k->call.kind == EG_CALL_AGENT_DELETE;
    }
    if (!right) {
        sim_wrong(w, k, "it is not so");
    }
}

static void judge(struct sim *w, struct sim_call *k)
{
    struct life *l = NULL;
    if (k->call.kind == EG_CALL_CREATE) {
        sim_judge_create(w, k);
        return;
    }
    if (k->call.kind == EG_CALL_REVOKE) {
        sim_judge_revoke(w, k);
        return;
    }
    if (k->call.session_id.n && !k->call.sid) {
        k->life = (unsigned)(sim_life_named(w, k->call.session_id) - w->life);
    }
    if (k->call.session_id.n || k->call.kind == EG_CALL_REAP) {
        l = &w->life[k->life];
    }
    if (k->call.kind == EG_CALL_REAP) {
        judge_reap(w, k, l);
    } else if (k->call.kind == EG_CALL_KICK) {
        w->kicked[w->kicks++] = (struct kicked){k->call.conn, k->call.code != EG_CODE_NONE};
    } else if (!l) {
        judge_agent(w, k);
    } else if (!judge_session(w, k, l)) {
        return;
    } else if (k->call.kind == EG_CALL_CLOSE) {
        judge_close(w, k, l);
    } else if (k->call.kind == EG_CALL_DELETE) {
        l->closed = 1; /* now or before */
        sim_life_ends(w, l, LIFE_REMOVED);
    } else if (k->call.kind == EG_CALL_TRIM) {
        judge_trim(w, k, l);
    } else if (k->call.kind == EG_CALL_FORK) {
        judge_fork(w, k, l);
    } else if (k->call.kind == EG_CALL_TURN_RETRY) {
        judge_retry(w, k, l);
    } else if (k->call.kind == EG_CALL_ABORT) {
        judge_abort(w, k, l);
    } else {
        judge_message(w, k, l);
    }
}

void sim_answered(struct sim *w)
{
    struct eg_machine *m = w->machine;
    if (w->naming && !w->refuses) {
        w->named = true;
        w->naming = false;
    }
    for (unsigned i = 0; i < m->done_count && !w->fault[0]; i++) {
        struct sim_call *k = (struct sim_call *)m->done[i];
        if (!k->waits) {
            sim_fault(w, "operator: %s %s is answered twice", sim_act_name[k->call.kind], k->name);
        }
        judge(w, k);
        w->done[k->call.kind] += k->call.code == EG_CODE_NONE;
        w->audits += k->call.code == EG_CODE_NONE && k->call.kind != EG_CALL_FORK &&
                     k->call.kind != EG_CALL_CREATE;
        k->waits = false;
    }
    m->done_count = 0;
}
