/*
 * lives.c - what became of each session: all that is written to the storage is noted on its way
 * there, so that it is known also when it was trimmed or removed since, and what the storage holds
 * can be held against it. What a batch wrote counts when it was committed.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memstore.h"
#include "wire/event.h"

/* The world whose storage is watched, and the functions behind. */
static struct sim *watched;
static const struct eg_storage_ops *plain;

/* --- what is written --- */

static struct life *add_life(struct sim *w)
{
    if (w->lives == w->life_cap) {
        w->life_cap = w->life_cap ? w->life_cap * 2 : 16;
        w->life = realloc(w->life, w->life_cap * sizeof *w->life);
    }
    struct life *l = &w->life[w->lives++];
    memset(l, 0, sizeof *l);
    return l;
}

static void note_session(struct eg_storage *s, struct eg_session_row *row)
{
    plain->session_insert(s, row);
    if (row->sid > 0) {
        struct life *l = add_life(watched);
        snprintf(l->name, sizeof l->name, "%.39s", row->id);
        l->sid = row->sid;
        l->state = row->state == EG_SESSION_FORKING ? LIFE_COPYING : LIFE_OPEN;
        l->first = l->floor = l->floor_before = l->floor_least = l->floor_most = 1;
        l->born = watched->batches;
        l->owner = strcmp(row->owner, sim_sub[1]) == 0;
        sim_limits_session(watched, l);
    }
}

static void note_event(struct eg_storage *s, const struct eg_event_row *row)
{
    struct life *l = sim_life(watched, row->sid);
    plain->event_append(s, row);
    if (!l) {
        return; /* of a session whose making failed: the batch is undone */
    }
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->event = realloc(l->event, l->cap * sizeof *l->event);
    }
    if (l->n == 0 && l->state == LIFE_COPYING) {
        l->first = row->cursor;
    }
    if (row->cursor != l->first + l->n) {
        sim_fault(watched, "%s: event %llu after %llu", l->name, (unsigned long long)row->cursor,
                  (unsigned long long)sim_life_last(l));
    }
    l->event[l->n++] =
        (struct seen){.cursor = row->cursor, .bytes = eg_bytes_copy(row->body.p, row->body.n)};
    sim_limits_event(watched, l);
}

void sim_lives_watch(struct sim *w)
{
    static struct eg_storage_ops ops;
    if (w->storage->ops != &ops) {
        plain = w->storage->ops;
        ops = *plain;
        ops.session_insert = note_session;
        ops.event_append = note_event;
    }
    watched = w;
    w->storage->ops = &ops;
}

void sim_lives_begin(struct sim *w)
{
    for (unsigned i = 0; i < w->lives; i++) {
        struct life *l = &w->life[i];
        l->kept_before = l->kept;
        l->floor_before = l->floor_least = l->floor_most = l->floor;
        l->waiting_most = l->waiting;
        memcpy(l->acked_before, l->acked, sizeof l->acked);
    }
}

void sim_lives_keep(struct sim *w)
{
    for (unsigned i = 0; i < w->lives; i++) {
        w->life[i].kept = w->life[i].n;
        w->life[i].waiting_kept = w->life[i].waiting;
    }
    for (unsigned i = w->lives_kept; i < w->lives; i++) {
        w->audits += w->life[i].state == LIFE_COPYING; /* noted when it begins, not at its answer */
    }
    w->lives_kept = w->lives;
}

static void cut(struct life *l, unsigned n)
{
    while (l->n > n) {
        eg_bytes_unref(l->event[--l->n].bytes);
    }
}

void sim_lives_drop(struct sim *w)
{
    while (w->lives > w->lives_kept) {
        struct life *l = &w->life[--w->lives];
        cut(l, 0);
        free(l->event);
    }
    for (unsigned i = 0; i < w->lives; i++) {
        cut(&w->life[i], w->life[i].kept);
        w->life[i].waiting = w->life[i].waiting_most = w->life[i].waiting_kept;
    }
}

void sim_lives_free(struct sim *w)
{
    w->lives_kept = 0;
    sim_lives_drop(w);
    free(w->life);
}

/* --- looking at them --- */

struct life *sim_life(struct sim *w, int64_t sid)
{
    for (unsigned i = w->lives; i > 0; i--) {
        if (w->life[i - 1].sid == sid) {
            return &w->life[i - 1];
        }
    }
    return NULL;
}

struct life *sim_life_named(struct sim *w, struct eg_slice name)
{
    for (unsigned i = w->lives; i > 0; i--) {
        if (eg_slice_is(name, w->life[i - 1].name)) {
            return &w->life[i - 1];
        }
    }
    return NULL;
}

const struct seen *sim_life_event(const struct life *l, uint64_t cursor)
{
    return cursor >= l->first && cursor < l->first + l->n ? &l->event[cursor - l->first] : NULL;
}

uint64_t sim_life_last(const struct life *l)
{
    return l->first + l->n - 1;
}

void sim_life_ends(struct sim *w, struct life *l, enum life_state state)
{
    l->state = state;
    l->ended = w->batches;
}

void sim_life_hash(const struct life *l, uint64_t cursor, uint8_t out[EG_CHAIN_BYTES])
{
    memcpy(out, l->base, EG_CHAIN_BYTES);
    for (unsigned i = 0; i < l->n && l->event[i].cursor <= cursor; i++) {
        eg_chain_next(out, eg_bytes_slice(l->event[i].bytes), out);
    }
}

const struct seen *sim_life_end_of(const struct life *l, unsigned n, uint64_t turn)
{
    struct eg_event_head head;
    for (unsigned i = 0; i < n; i++) {
        if (l->event[i].cursor > turn &&
            eg_event_read(eg_bytes_slice(l->event[i].bytes), &head) == EG_OK && head.turn == turn &&
            eg_slice_is(head.type, "response")) {
            return &l->event[i];
        }
    }
    return NULL;
}

uint64_t sim_life_open_turn(const struct life *l, unsigned n)
{
    struct eg_event_head head;
    for (unsigned i = l->copied; i < n; i++) { /* turns are not copied */
        if (eg_event_read(eg_bytes_slice(l->event[i].bytes), &head) == EG_OK &&
            eg_slice_is(head.type, "message") && !sim_life_end_of(l, n, head.cursor)) {
            return head.cursor;
        }
    }
    return 0;
}

/* --- what is stored --- */

/* The floor moves as trims were answered, and never over a turn without an end. */
static void check_floor(struct sim *w, struct life *l, const struct eg_session_row *row)
{
    if (row->oldest < l->floor_least || row->oldest > l->floor_most) {
        sim_fault(w, "%s begins at %llu, trimmed to between %llu and %llu", l->name,
                  (unsigned long long)row->oldest, (unsigned long long)l->floor_least,
                  (unsigned long long)l->floor_most);
    }
    if (row->oldest != l->floor) {
        const uint64_t open = sim_life_open_turn(l, l->kept);
        if (open && open < row->oldest) {
            sim_fault(w, "%s: turn %llu is open and trimmed", l->name, (unsigned long long)open);
        }
        l->floor = row->oldest;
    }
}

static void check_row(struct sim *w, struct life *l)
{
    static const enum eg_session_state state[] = {EG_SESSION_FORKING, EG_SESSION_OPEN,
                                                  EG_SESSION_CLOSED, EG_SESSION_DELETING};
    struct eg_session_row row;
    const enum eg_err e = w->storage->ops->session_by_sid(w->storage, l->sid, &row);
    uint64_t floor = l->floor_most; /* of a removed one it is not known better */
    if (e == EG_ENOTFOUND && l->state == LIFE_REMOVED) {
        l->gone = w->batches;
    } else if (e != EG_OK || row.state != state[l->state] || strcmp(row.id, l->name) != 0) {
        sim_fault(w, "%s is stored in state %d, and must be in %d", l->name,
                  e == EG_OK ? (int)row.state : -1, (int)state[l->state]);
    } else if (l->state == LIFE_OPEN || l->state == LIFE_CLOSED) {
        if (row.cursor != sim_life_last(l)) {
            sim_fault(w, "%s: head %llu of %llu", l->name, (unsigned long long)row.cursor,
                      (unsigned long long)sim_life_last(l));
        }
        check_floor(w, l, &row);
        floor = l->floor;
    }
    for (unsigned i = l->kept_before; i < l->kept; i++) {
        l->event[i].floor = floor;
    }
}

void sim_lives_check(struct sim *w)
{
    for (unsigned i = 0; i < w->lives; i++) {
        if (!w->life[i].gone) {
            check_row(w, &w->life[i]);
        }
    }
    if (memstore_audits(w->storage, NULL) != w->audits) {
        sim_fault(w, "the audit log has %ld entries of %ld", memstore_audits(w->storage, NULL),
                  w->audits);
    }
}

bool sim_life_left(struct sim *w, const struct life *l)
{
    struct eg_bytes *body = NULL;
    const enum eg_err e = l->floor > 1
                              ? w->storage->ops->event_get(w->storage, l->sid, l->floor - 1, &body)
                              : EG_ENOTFOUND;
    eg_bytes_unref(body);
    return l->state == LIFE_REMOVED ? !l->gone : e != EG_ENOTFOUND;
}

void sim_lives_restarted(struct sim *w)
{
    for (unsigned i = 0; i < w->lives; i++) {
        if (w->life[i].state == LIFE_COPYING) {
            w->life[i].copied = w->life[i].n;
            sim_life_ends(w, &w->life[i], LIFE_REMOVED);
        }
    }
}
