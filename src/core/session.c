/*
 * session.c - sessions in memory: loading, creating, appending, eviction.
 *
 * A session is read when it is first needed, stays while a connection or a turn at a worker holds
 * it, and then waits on an LRU of bounded length. Everything here can be dropped and read again.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "wire/event.h"

bool eg_machine_write(struct eg_machine *m)
{
    if (m->readonly || m->failed) {
        return false;
    }
    if (!m->writing) {
        if (m->storage->ops->begin(m->storage) != EG_OK) {
            m->failed = true;
            return false;
        }
        m->writing = true;
    }
    return true;
}

void eg_session_touch(struct eg_machine *m, struct eg_session *s)
{
    if (!s->touched) {
        const struct eg_turn *head = eg_turn_head(s);
        s->due_mono = head ? head->deadline_mono : 0; /* how leases were extended is not stored */
        s->touched = true;
        s->touch_next = m->touched;
        m->touched = s;
    }
    if (s->on_lru) {
        s->on_lru = false;
        m->lru_count--;
        DL_DELETE(m->lru, s);
    }
}

void eg_session_changed(struct eg_machine *m, struct eg_session *s)
{
    s->dirty = true;
    eg_session_touch(m, s);
}

static void session_free(struct eg_session *s)
{
    eg_bytes_unref(s->head_body);
    free(s->turns);
    free(s->last_worker_id);
    free(s);
}

void eg_session_forget(struct eg_machine *m, struct eg_session *s)
{
    if (s->on_lru) {
        m->lru_count--;
        DL_DELETE(m->lru, s);
    }
    HASH_DELETE(hh, m->sessions, s);
    HASH_DELETE(hh_sid, m->by_sid, s);
    session_free(s);
    eg_metric_add(EG_M_sessions_cached, -1);
}

/* Held: by a connection, by changes not yet written, or by a head turn that has a deadline or a
 * worker, or that is put off as unreadable: it stands in no ring, and only here is it known. */
static bool held(const struct eg_session *s)
{
    const struct eg_turn *head = eg_turn_head(s);
    return s->conns || s->touched || s->dirty ||
           (head && (head->dirty || head->state != EG_TURN_QUEUED || head->turn == s->unreadable));
}

void eg_session_idle(struct eg_machine *m, struct eg_session *s)
{
    if (held(s) || s->on_lru) {
        return;
    }
    s->on_lru = true;
    DL_APPEND(m->lru, s);
    m->lru_count++;
    while (m->lru_count > m->settings->session_cache) {
        eg_session_forget(m, m->lru);
    }
}

void eg_session_worker(struct eg_machine *m, struct eg_session *s, const char *id)
{
    if (strcmp(s->last_worker_id ? s->last_worker_id : "", id) == 0) {
        return;
    }
    char *const copy = *id ? strdup(id) : NULL;
    if (*id && !copy) {
        m->failed = true;
        return;
    }
    free(s->last_worker_id);
    s->last_worker_id = copy;
}

static void take_row(struct eg_machine *m, struct eg_session *s, const struct eg_session_row *row)
{
    s->sid = row->sid;
    s->state = row->state;
    s->cursor = row->cursor;
    s->oldest = row->oldest;
    memcpy(s->hash, row->hash, sizeof s->hash);
    memcpy(s->floor_hash, row->floor_hash, sizeof s->floor_hash);
    s->created_ms = row->created_ms;
    s->updated_ms = row->updated_ms;
    s->closed_ms = row->closed_ms;
    s->bytes = row->bytes;
    eg_session_worker(m, s, row->last_worker);
}

void eg_session_row(const struct eg_session *s, struct eg_session_row *row)
{
    memset(row, 0, sizeof *row);
    row->sid = s->sid;
    strncpy(row->id, s->id, EG_ID_MAX);
    strncpy(row->agent, s->agent->id, EG_ID_MAX);
    strncpy(row->owner, s->owner, EG_ID_MAX);
    row->state = s->state;
    row->cursor = s->cursor;
    row->oldest = s->oldest;
    memcpy(row->hash, s->hash, sizeof s->hash);
    memcpy(row->floor_hash, s->floor_hash, sizeof s->floor_hash);
    row->created_ms = s->created_ms;
    row->updated_ms = s->updated_ms;
    row->closed_ms = s->closed_ms;
    row->bytes = s->bytes;
    if (s->last_worker_id) {
        strncpy(row->last_worker, s->last_worker_id, sizeof row->last_worker - 1);
    }
}

struct load {
    struct eg_machine *m;
    struct eg_session *s;
};

static void load_turn(void *arg, const struct eg_turn_row *row)
{
    const struct load *l = arg;
    struct eg_turn *t = eg_turn_push(l->m, l->s, row->turn);
    if (!t) {
        return;
    }
    t->state = (unsigned char)row->state;
    t->attempt = row->attempt;
    t->created_ms = row->created_ms;
    t->until_ms = row->until_ms;
    t->stored = true;
    t->dirty = false;
    /* A rolled back batch leaves workers attached: find the one that has the turn. */
    if (row->state == EG_TURN_RUNNING || row->state == EG_TURN_ABORTING) {
        struct eg_worker *w;
        DL_FOREACH(l->s->agent->workers, w)
        {
            if (strcmp(w->id, row->worker) == 0) {
                t->worker = w;
            }
        }
    }
}

static bool load_turns(struct eg_machine *m, struct eg_session *s)
{
    struct load l = {m, s};
    s->turn_first = s->turn_count = 0;
    if (m->storage->ops->turns(m->storage, s->sid, load_turn, &l) != EG_OK) {
        m->failed = true;
        return false;
    }
    return !m->failed;
}

static struct eg_session *insert(struct eg_machine *m, const struct eg_session_row *row,
                                 struct eg_agent *agent)
{
    const size_t id_n = strlen(row->id), owner_n = strlen(row->owner);
    const size_t followers_n = m->reactors * sizeof(unsigned);
    struct eg_session *s = calloc(1, sizeof *s + followers_n + id_n + 1 + owner_n + 1);
    if (!s) {
        m->failed = true;
        return NULL;
    }
    s->followers = (unsigned *)(s + 1);
    s->id = (char *)s->followers + followers_n;
    s->owner = s->id + id_n + 1;
    memcpy(s->id, row->id, id_n);
    memcpy(s->owner, row->owner, owner_n);
    s->agent = agent;
    take_row(m, s, row);
    HASH_ADD_KEYPTR(hh, m->sessions, s->id, id_n, s);
    HASH_ADD(hh_sid, m->by_sid, sid, sizeof s->sid, s);
    eg_metric_add(EG_M_sessions_cached, 1);
    return s;
}

static struct eg_session *load(struct eg_machine *m, const struct eg_session_row *row)
{
    struct eg_agent *agent = eg_agent_add(m, eg_slice_cstr(row->agent));
    struct eg_session *s = agent ? insert(m, row, agent) : NULL;
    if (!s) {
        return NULL;
    }
    if (!load_turns(m, s)) {
        eg_session_forget(m, s);
        return NULL;
    }
    /* Every stored session whose turns wait stands in its agent's ring since the start. */
    s->in_ready = s->turn_count > 0;
    struct eg_turn *const head = eg_turn_head(s);
    if (head && head->worker && !eg_worker_hold(m, head->worker, s)) {
        head->worker = NULL; /* it was read again after a roll-back that could not */
    }
    eg_session_touch(m, s);
    eg_turn_recover(m, s);
    return s;
}

struct eg_session *eg_session_find(struct eg_machine *m, struct eg_slice id, enum eg_code *code)
{
    struct eg_session *s = NULL;
    struct eg_session_row row;
    HASH_FIND(hh, m->sessions, id.p, id.n, s);
    if (!s) {
        const enum eg_err e = m->storage->ops->session_by_id(m->storage, id, &row);
        if (e == EG_OK) {
            s = load(m, &row);
        } else if (e != EG_ENOTFOUND) {
            m->failed = true;
        }
        if (!s && e != EG_ENOTFOUND) {
            *code = EG_CODE_storage_unavailable;
            return NULL;
        }
    }
    if (!s || s->state >= EG_SESSION_DELETING) {
        *code = EG_CODE_session_not_found;
        return NULL;
    }
    eg_session_touch(m, s);
    return s;
}

struct eg_session *eg_session_find_sid(struct eg_machine *m, int64_t sid)
{
    struct eg_session *s = NULL;
    struct eg_session_row row;
    HASH_FIND(hh_sid, m->by_sid, &sid, sizeof sid, s);
    if (!s) {
        const enum eg_err e = m->storage->ops->session_by_sid(m->storage, sid, &row);
        if (e == EG_OK) {
            s = load(m, &row);
        } else if (e != EG_ENOTFOUND) {
            m->failed = true;
        }
    }
    if (s) {
        eg_session_touch(m, s);
    }
    return s;
}

struct eg_session *eg_session_create(struct eg_machine *m, struct eg_slice id,
                                     struct eg_agent *agent, struct eg_slice owner,
                                     enum eg_session_state state)
{
    struct eg_session_row row = {.state = state, .oldest = 1};
    struct eg_session *there = NULL;
    HASH_FIND(hh, m->sessions, id.p, id.n, there);
    if (there || !eg_machine_write(m)) {
        return NULL;
    }
    memcpy(row.id, id.p, id.n);
    memcpy(row.owner, owner.p, owner.n);
    strncpy(row.agent, agent->id, EG_ID_MAX);
    row.created_ms = row.updated_ms = m->now.wall_ms;
    m->storage->ops->session_insert(m->storage, &row);
    if (row.sid <= 0) {
        m->failed = true;
        return NULL;
    }
    struct eg_session *s = insert(m, &row, agent);
    if (s) {
        s->fresh = true;
        eg_session_touch(m, s);
    }
    return s;
}

const char *eg_session_not_created(const struct eg_machine *m)
{
    return m->failed || m->readonly ? NULL : "the session of this id is still being removed";
}

bool eg_session_reload(struct eg_machine *m, struct eg_session *s)
{
    struct eg_session_row row;
    eg_bytes_unref(s->head_body);
    s->head_body = NULL;
    if (m->storage->ops->session_by_sid(m->storage, s->sid, &row) != EG_OK) {
        return false;
    }
    take_row(m, s, &row);
    s->dirty = false;
    s->unacked = false;
    return load_turns(m, s);
}

bool eg_session_enter(const struct eg_session *s, const struct eg_identity *who)
{
    if (!who || (who->sub && strcmp(who->sub, s->owner) == 0)) {
        return true;
    }
    for (char **id = who->sessions; id && *id; id++) {
        if (strcmp(*id, "*") == 0 || strcmp(*id, s->id) == 0) {
            return true;
        }
    }
    return false;
}

uint64_t eg_session_append(struct eg_machine *m, struct eg_session *s, const struct eg_append *a)
{
    if (!eg_machine_write(m)) {
        return 0;
    }
    char made_id[37];
    const uint64_t cursor = s->cursor + 1;
    const int64_t at = m->now.wall_ms > s->updated_ms ? m->now.wall_ms : s->updated_ms;
    struct eg_event e = {.type = a->type,
                         .session_id = eg_slice_cstr(s->id),
                         .event_id = a->event_id,
                         .source = a->source,
                         .cursor = cursor,
                         .turn = a->turn == EG_TURN_SELF ? cursor : a->turn,
                         .timestamp_ms = at,
                         .traceparent = a->traceparent,
                         .tail = a->tail};
    if (e.event_id.n == 0) {
        eg_uuid7(at, made_id);
        e.event_id = (struct eg_slice){made_id, 36};
    }
    struct eg_bytes *bytes = eg_event_make(&e);
    if (!bytes) {
        m->failed = true;
        return 0;
    }
    eg_chain_next(s->hash, eg_bytes_slice(bytes), s->hash);
    m->storage->ops->event_append(m->storage,
                                  &(struct eg_event_row){.sid = s->sid,
                                                         .cursor = cursor,
                                                         .hash = s->hash,
                                                         .idkey = a->idkey,
                                                         .body = eg_bytes_slice(bytes)});
    s->cursor = cursor;
    s->updated_ms = at;
    s->bytes += (int64_t)bytes->n;
    m->events_in_batch++;
    m->bytes_in_batch += (int64_t)bytes->n;
    eg_session_changed(m, s);
    if (a->keep) {
        *a->keep = eg_bytes_ref(bytes);
    }
    eg_out_event(m, s, cursor, a->stream, a->except, bytes);
    return cursor;
}
