/*
 * memstore.c - see memstore.h. Each table is a sorted array of pointers to records that are never
 * changed; a write puts a new record in place of an old one and notes both, so that a rollback can
 * go back the same way.
 */
#include "memstore.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A row of any table, with the key it is sorted by. */
struct record {
    int64_t a;
    uint64_t b;
    char text[EG_ID_MAX + 8];
    union {
        struct eg_session_row session;
        struct eg_turn_row turn;
        struct {
            uint8_t hash[EG_CHAIN_BYTES];
            uint8_t idkey[EG_IDKEY_BYTES];
            bool has_idkey;
            struct eg_bytes *body;
        } event;
        int64_t number;
    } u;
};

enum table { SESSIONS, EVENTS, TURNS, ACKS, AGENTS, REVOKED, AUDIT, TABLES };

struct rows {
    struct record **v;
    size_t n, cap;
};

/* One replacement: was or is may be NULL (inserted, removed). */
struct change {
    enum table table;
    struct record *was, *is;
};

struct memstore {
    struct eg_storage base; /* first */
    struct rows rows[TABLES];
    struct change *log;
    size_t changes, log_cap;
    int64_t next_sid, next_audit;
    int64_t sid_before, audit_before, until_before; /* as of begin */
    bool in_tx, dead;
    enum eg_err err;
    enum memstore_fate fate;
    int after, times;
    int fail_write;
    int64_t damaged_sid; /* 0: none */
    uint64_t damaged_cursor;
    bool fail_reads; /* atomic */
    enum eg_err fail_with;
    long commits;
    struct eg_epoch epoch;
};

static const struct eg_slice no_text = {NULL, 0};

static struct memstore *self(const struct eg_storage *s)
{
    return (struct memstore *)(uintptr_t)s;
}

static void *must(void *p)
{
    if (p == NULL) {
        abort(); /* a test without memory has nothing to say */
    }
    return p;
}

/* ---- tables ---- */

static int compare(const struct record *x, const struct record *y)
{
    if (x->a != y->a) {
        return x->a < y->a ? -1 : 1;
    }
    if (x->b != y->b) {
        return x->b < y->b ? -1 : 1;
    }
    return strcmp(x->text, y->text);
}

/* Where key is or belongs. */
static size_t place(const struct rows *t, const struct record *key, bool *found)
{
    size_t low = 0;
    size_t high = t->n;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int c = compare(t->v[middle], key);
        if (c == 0) {
            *found = true;
            return middle;
        }
        if (c < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void record_free(enum table table, struct record *r)
{
    if (r != NULL && table == EVENTS) {
        eg_bytes_unref(r->u.event.body);
    }
    free(r);
}

/* Puts `is` where key belongs (removes what is there when is is NULL); gives what was there. */
static struct record *swap(struct rows *t, const struct record *key, struct record *is)
{
    bool found = false;
    size_t at = place(t, key, &found);
    struct record *was = found ? t->v[at] : NULL;
    if (found && is != NULL) {
        t->v[at] = is;
    } else if (found) {
        memmove(&t->v[at], &t->v[at + 1], (t->n - at - 1) * sizeof(t->v[0]));
        t->n--;
    } else if (is != NULL) {
        if (t->n == t->cap) {
            t->cap = t->cap > 0 ? t->cap * 2 : 64;
            t->v = must(realloc(t->v, t->cap * sizeof(t->v[0])));
        }
        memmove(&t->v[at + 1], &t->v[at], (t->n - at) * sizeof(t->v[0]));
        t->v[at] = is;
        t->n++;
    }
    return was;
}

static void put(struct memstore *m, enum table table, const struct record *key, struct record *is)
{
    struct record *was = swap(&m->rows[table], key, is);
    if (was == NULL && is == NULL) {
        return;
    }
    if (m->changes == m->log_cap) {
        m->log_cap = m->log_cap > 0 ? m->log_cap * 2 : 64;
        m->log = must(realloc(m->log, m->log_cap * sizeof(*m->log)));
    }
    m->log[m->changes++] = (struct change){table, was, is};
}

static struct record *find(const struct memstore *m, enum table table, int64_t a, uint64_t b)
{
    bool found = false;
    struct record key = {.a = a, .b = b};
    size_t at = place(&m->rows[table], &key, &found);
    return found ? m->rows[table].v[at] : NULL;
}

/* Index of the first record with this a and at least this b. */
static size_t from(const struct memstore *m, enum table table, int64_t a, uint64_t b)
{
    bool found = false;
    struct record key = {.a = a, .b = b};
    return place(&m->rows[table], &key, &found);
}

static struct record *make(int64_t a, uint64_t b, struct eg_slice text)
{
    struct record *r = must(calloc(1, sizeof(*r)));
    size_t n = text.n < sizeof(r->text) ? text.n : sizeof(r->text) - 1;
    r->a = a;
    r->b = b;
    if (n > 0) {
        memcpy(r->text, text.p, n);
    }
    return r;
}

static struct record *find_text(const struct memstore *m, enum table table, int64_t a,
                                struct eg_slice text)
{
    bool found = false;
    struct record *key = make(a, 0, text);
    size_t at = place(&m->rows[table], key, &found);
    free(key);
    return found ? m->rows[table].v[at] : NULL;
}

static void put_number(struct memstore *m, enum table table, int64_t a, struct eg_slice text,
                       int64_t number)
{
    struct record *r = make(a, 0, text);
    r->u.number = number;
    put(m, table, r, r);
}

/* ---- transaction ---- */

static enum eg_err op_begin(struct eg_storage *s)
{
    struct memstore *m = self(s);
    assert(!m->in_tx);
    if (m->dead) {
        return EG_EUNKNOWN;
    }
    m->in_tx = true;
    m->err = EG_OK;
    m->sid_before = m->next_sid;
    m->audit_before = m->next_audit;
    m->until_before = m->epoch.until_sid;
    return EG_OK;
}

static enum eg_err op_latched(struct eg_storage *s)
{
    return self(s)->err;
}

static void op_rollback(struct eg_storage *s)
{
    struct memstore *m = self(s);
    if (!m->in_tx) {
        return;
    }
    while (m->changes > 0) {
        struct change *c = &m->log[--m->changes];
        (void)swap(&m->rows[c->table], c->is != NULL ? c->is : c->was, c->was);
        record_free(c->table, c->is);
    }
    m->next_sid = m->sid_before;
    m->next_audit = m->audit_before;
    m->epoch.until_sid = m->until_before;
    m->in_tx = false;
    m->err = EG_OK;
}

static void keep(struct memstore *m)
{
    while (m->changes > 0) {
        struct change *c = &m->log[--m->changes];
        record_free(c->table, c->was);
    }
    m->in_tx = false;
}

static enum memstore_fate next_fate(struct memstore *m)
{
    if (m->fate == MEMSTORE_OK || m->times == 0) {
        return MEMSTORE_OK;
    }
    if (m->after > 0) {
        m->after--;
        return MEMSTORE_OK;
    }
    if (m->times > 0) {
        m->times--;
    }
    return m->fate;
}

static enum eg_err op_commit(struct eg_storage *s)
{
    struct memstore *m = self(s);
    assert(m->in_tx);
    enum eg_err e = m->err;
    if (e != EG_OK) {
        op_rollback(s);
        return e;
    }
    switch (next_fate(m)) {
    case MEMSTORE_OK:
        keep(m);
        m->commits++;
        return EG_OK;
    case MEMSTORE_FULL:
        op_rollback(s);
        return EG_EFULL;
    case MEMSTORE_IO:
        op_rollback(s);
        return EG_EIO;
    case MEMSTORE_UNKNOWN_GONE:
        op_rollback(s);
        break;
    case MEMSTORE_UNKNOWN_KEPT:
        keep(m);
        break;
    }
    m->dead = true;
    return EG_EUNKNOWN;
}

/* Shares the fate of commits. */
static enum eg_err op_probe(struct eg_storage *s)
{
    enum eg_err e = op_begin(s);
    return e == EG_OK ? op_commit(s) : e;
}

static enum eg_err op_maintain(struct eg_storage *s)
{
    return self(s)->dead ? EG_EUNKNOWN : EG_OK;
}

static const char *op_why(struct eg_storage *s)
{
    return self(s)->dead ? "memory: the flush failed" : "memory: as ordered";
}

static void op_close(struct eg_storage *s)
{
    struct memstore *m = self(s);
    if (m == NULL) {
        return;
    }
    op_rollback(s);
    for (int t = 0; t < TABLES; t++) {
        for (size_t i = 0; i < m->rows[t].n; i++) {
            record_free((enum table)t, m->rows[t].v[i]);
        }
        free(m->rows[t].v);
    }
    free(m->log);
    free(m);
}

/* Whether a write may go on; counts down an ordered failure. */
static bool writing(struct memstore *m)
{
    assert(m->in_tx);
    if (m->fail_write > 0 && --m->fail_write == 0 && m->err == EG_OK) {
        m->err = m->fail_with;
    }
    return m->err == EG_OK;
}

static enum eg_err reading(const struct memstore *m)
{
    if (__atomic_load_n(&m->fail_reads, __ATOMIC_ACQUIRE)) {
        return EG_EIO;
    }
    return m->in_tx ? m->err : EG_OK;
}

/* EG_OK when r may be read from. */
static enum eg_err looked(const struct memstore *m, const struct record *r)
{
    enum eg_err e = reading(m);
    return e == EG_OK && r == NULL ? EG_ENOTFOUND : e;
}

/* ---- reads ---- */

static struct record *session_named(const struct memstore *m, struct eg_slice id)
{
    for (size_t i = 0; i < m->rows[SESSIONS].n; i++) {
        if (eg_slice_is(id, m->rows[SESSIONS].v[i]->u.session.id)) {
            return m->rows[SESSIONS].v[i];
        }
    }
    return NULL;
}

static enum eg_err op_session_by_id(struct eg_storage *s, struct eg_slice id,
                                    struct eg_session_row *out)
{
    struct record *r = session_named(self(s), id);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        *out = r->u.session;
    }
    return e;
}

static enum eg_err op_session_by_sid(struct eg_storage *s, int64_t sid, struct eg_session_row *out)
{
    struct record *r = find(self(s), SESSIONS, sid, 0);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        *out = r->u.session;
    }
    return e;
}

static enum eg_err op_turns(struct eg_storage *s, int64_t sid, eg_turn_fn *fn, void *arg)
{
    const struct memstore *m = self(s);
    const struct rows *t = &m->rows[TURNS];
    if (reading(m) != EG_OK) {
        return reading(m);
    }
    for (size_t i = from(m, TURNS, sid, 0); i < t->n && t->v[i]->a == sid; i++) {
        if (t->v[i]->u.turn.state != EG_TURN_DEAD) {
            fn(arg, &t->v[i]->u.turn);
        }
    }
    return EG_OK;
}

static enum eg_err op_turn_get(struct eg_storage *s, int64_t sid, uint64_t turn,
                               struct eg_turn_row *out)
{
    struct record *r = find(self(s), TURNS, sid, turn);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        *out = r->u.turn;
    }
    return e;
}

struct open_session {
    int64_t sid, created_ms;
    enum eg_turn_state head;
};

static int by_age(const void *a, const void *b)
{
    const struct open_session *x = a;
    const struct open_session *y = b;
    if (x->created_ms != y->created_ms) {
        return x->created_ms < y->created_ms ? -1 : 1;
    }
    return (x->sid > y->sid) - (x->sid < y->sid);
}

static enum eg_err op_open_turns(struct eg_storage *s, eg_open_turn_fn *fn, void *arg)
{
    const struct memstore *m = self(s);
    size_t n = 0;
    if (reading(m) != EG_OK) {
        return reading(m);
    }
    struct open_session *open = must(calloc(m->rows[TURNS].n + 1, sizeof(*open)));
    for (size_t i = 0; i < m->rows[TURNS].n; i++) {
        const struct eg_turn_row *t = &m->rows[TURNS].v[i]->u.turn;
        if (t->state == EG_TURN_DEAD) {
            continue;
        }
        if (n == 0 || open[n - 1].sid != t->sid) {
            open[n++] = (struct open_session){t->sid, t->created_ms, t->state};
        } else if (t->created_ms < open[n - 1].created_ms) {
            open[n - 1].created_ms = t->created_ms;
        }
    }
    qsort(open, n, sizeof(*open), by_age);
    for (size_t i = 0; i < n; i++) {
        struct record *r = find(m, SESSIONS, open[i].sid, 0);
        if (r != NULL) {
            fn(arg, open[i].sid, r->u.session.agent, open[i].head);
        }
    }
    free(open);
    return EG_OK;
}

static struct record *event_of(const struct memstore *m, int64_t sid, const uint8_t *idkey)
{
    const struct rows *t = &m->rows[EVENTS];
    for (size_t i = from(m, EVENTS, sid, 0); i < t->n && t->v[i]->a == sid; i++) {
        struct record *r = t->v[i];
        if (r->u.event.has_idkey && memcmp(r->u.event.idkey, idkey, EG_IDKEY_BYTES) == 0) {
            return r;
        }
    }
    return NULL;
}

static enum eg_err op_event_by_idkey(struct eg_storage *s, int64_t sid, const uint8_t *idkey,
                                     uint64_t *cursor, struct eg_bytes **body)
{
    struct record *r = event_of(self(s), sid, idkey);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        *cursor = r->b;
        *body = eg_bytes_ref(r->u.event.body);
    }
    return e;
}

static enum eg_err op_event_get(struct eg_storage *s, int64_t sid, uint64_t cursor,
                                struct eg_bytes **body)
{
    struct memstore *m = self(s);
    struct record *r = find(m, EVENTS, sid, cursor);
    enum eg_err e = looked(m, r);
    if (e == EG_OK && sid == m->damaged_sid && cursor == m->damaged_cursor) {
        e = EG_ECORRUPT;
    }
    if (e == EG_OK) {
        *body = eg_bytes_ref(r->u.event.body);
    }
    return e;
}

static enum eg_err op_event_hash(struct eg_storage *s, int64_t sid, uint64_t cursor,
                                 uint8_t hash[EG_CHAIN_BYTES])
{
    struct record *r = find(self(s), EVENTS, sid, cursor);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        memcpy(hash, r->u.event.hash, EG_CHAIN_BYTES);
    }
    return e;
}

static enum eg_err op_events(struct eg_storage *s, int64_t sid, uint64_t first, int max,
                             eg_event_fn *fn, void *arg)
{
    const struct memstore *m = self(s);
    const struct rows *t = &m->rows[EVENTS];
    if (reading(m) != EG_OK) {
        return reading(m);
    }
    for (size_t i = from(m, EVENTS, sid, first); i < t->n && max > 0; i++, max--) {
        if (t->v[i]->a != sid) {
            break;
        }
        fn(arg, t->v[i]->b, eg_bytes_slice(t->v[i]->u.event.body));
    }
    return EG_OK;
}

static enum eg_err op_ack_get(struct eg_storage *s, int64_t sid, struct eg_slice sub,
                              uint64_t *cursor)
{
    struct record *r = find_text(self(s), ACKS, sid, sub);
    enum eg_err e = looked(self(s), r);
    if (e == EG_OK) {
        *cursor = (uint64_t)r->u.number;
    }
    return e;
}

static enum eg_err op_count_open_sessions(struct eg_storage *s, struct eg_slice owner, int64_t *out)
{
    const struct memstore *m = self(s);
    *out = 0;
    for (size_t i = 0; i < m->rows[SESSIONS].n; i++) {
        const struct eg_session_row *r = &m->rows[SESSIONS].v[i]->u.session;
        *out += r->state == EG_SESSION_OPEN && eg_slice_is(owner, r->owner);
    }
    return reading(m);
}

static enum eg_err texts(const struct memstore *m, enum table table, eg_text_fn *fn, void *arg)
{
    if (reading(m) != EG_OK) {
        return reading(m);
    }
    for (size_t i = 0; i < m->rows[table].n; i++) {
        fn(arg, m->rows[table].v[i]->text, m->rows[table].v[i]->u.number);
    }
    return EG_OK;
}

static enum eg_err op_agents(struct eg_storage *s, eg_text_fn *fn, void *arg)
{
    return texts(self(s), AGENTS, fn, arg);
}

static enum eg_err op_revoked(struct eg_storage *s, eg_text_fn *fn, void *arg)
{
    return texts(self(s), REVOKED, fn, arg);
}

static enum eg_err op_epoch(struct eg_storage *s, struct eg_epoch *out)
{
    *out = self(s)->epoch;
    return reading(self(s));
}

/* ---- writes ---- */

static void op_session_insert(struct eg_storage *s, struct eg_session_row *row)
{
    struct memstore *m = self(s);
    if (!writing(m)) {
        return;
    }
    if (session_named(m, eg_slice_cstr(row->id)) != NULL) {
        m->err = EG_EEXISTS;
        return;
    }
    row->sid = m->next_sid++;
    struct record *r = make(row->sid, 0, no_text);
    r->u.session = *row;
    put(m, SESSIONS, r, r);
}

static void op_session_update(struct eg_storage *s, const struct eg_session_row *row)
{
    struct memstore *m = self(s);
    struct record *old = find(m, SESSIONS, row->sid, 0);
    if (!writing(m)) {
        return;
    }
    if (old == NULL) {
        m->err = EG_ENOTFOUND;
        return;
    }
    struct record *r = make(row->sid, 0, no_text);
    struct eg_session_row *is = &r->u.session;
    *is = *row;
    /* What an update does not change. */
    memcpy(is->id, old->u.session.id, sizeof(is->id));
    memcpy(is->agent, old->u.session.agent, sizeof(is->agent));
    memcpy(is->owner, old->u.session.owner, sizeof(is->owner));
    is->created_ms = old->u.session.created_ms;
    put(m, SESSIONS, r, r);
}

static void op_event_append(struct eg_storage *s, const struct eg_event_row *row)
{
    struct memstore *m = self(s);
    if (!writing(m)) {
        return;
    }
    if (find(m, EVENTS, row->sid, row->cursor) != NULL ||
        (row->idkey != NULL && event_of(m, row->sid, row->idkey) != NULL)) {
        m->err = EG_EEXISTS;
        return;
    }
    struct record *r = make(row->sid, row->cursor, no_text);
    memcpy(r->u.event.hash, row->hash, EG_CHAIN_BYTES);
    r->u.event.has_idkey = row->idkey != NULL;
    if (row->idkey != NULL) {
        memcpy(r->u.event.idkey, row->idkey, EG_IDKEY_BYTES);
    }
    r->u.event.body = must(eg_bytes_copy(row->body.p, row->body.n));
    put(m, EVENTS, r, r);
}

static void op_turn_put(struct eg_storage *s, const struct eg_turn_row *row)
{
    struct memstore *m = self(s);
    if (writing(m)) {
        struct record *r = make(row->sid, row->turn, no_text);
        r->u.turn = *row;
        put(m, TURNS, r, r);
    }
}

static void op_turn_delete(struct eg_storage *s, int64_t sid, uint64_t turn)
{
    struct memstore *m = self(s);
    struct record key = {.a = sid, .b = turn};
    if (writing(m)) {
        put(m, TURNS, &key, NULL);
    }
}

static void op_ack_put(struct eg_storage *s, int64_t sid, struct eg_slice sub, uint64_t cursor)
{
    struct memstore *m = self(s);
    if (writing(m)) {
        put_number(m, ACKS, sid, sub, (int64_t)cursor);
    }
}

static void op_agent_put(struct eg_storage *s, struct eg_slice id, int64_t created_ms)
{
    struct memstore *m = self(s);
    if (writing(m) && find_text(m, AGENTS, 0, id) == NULL) {
        put_number(m, AGENTS, 0, id, created_ms);
    }
}

static void op_agent_delete(struct eg_storage *s, struct eg_slice id)
{
    struct memstore *m = self(s);
    struct record *r = find_text(m, AGENTS, 0, id);
    if (writing(m) && r != NULL) {
        put(m, AGENTS, r, NULL);
    }
}

static void op_revoke(struct eg_storage *s, const char *what, int64_t until_ms)
{
    struct memstore *m = self(s);
    if (writing(m)) {
        struct record *old = find_text(m, REVOKED, 0, eg_slice_cstr(what));
        int64_t until = old != NULL && old->u.number > until_ms ? old->u.number : until_ms;
        put_number(m, REVOKED, 0, eg_slice_cstr(what), until);
    }
}

static void op_audit(struct eg_storage *s, int64_t at_ms, struct eg_slice who,
                     struct eg_slice origin, struct eg_slice action, struct eg_slice detail)
{
    struct memstore *m = self(s);
    (void)who;
    (void)origin;
    (void)detail;
    if (writing(m)) {
        put_number(m, AUDIT, m->next_audit++, action, at_ms);
    }
}

static void op_events_trim(struct eg_storage *s, int64_t sid, uint64_t before, int max,
                           int *removed, int64_t *removed_bytes)
{
    struct memstore *m = self(s);
    *removed = 0;
    *removed_bytes = 0;
    if (!writing(m)) {
        return;
    }
    while (*removed < max) {
        size_t i = from(m, EVENTS, sid, 0);
        struct record *r = i < m->rows[EVENTS].n ? m->rows[EVENTS].v[i] : NULL;
        if (r == NULL || r->a != sid || r->b >= before) {
            break;
        }
        (*removed)++;
        *removed_bytes += (int64_t)r->u.event.body->n;
        put(m, EVENTS, r, NULL);
    }
}

static void op_session_delete(struct eg_storage *s, int64_t sid)
{
    static const enum table with_sid[] = {TURNS, ACKS, SESSIONS};
    struct memstore *m = self(s);
    if (!writing(m)) {
        return;
    }
    for (size_t t = 0; t < sizeof(with_sid) / sizeof(with_sid[0]); t++) {
        const struct rows *rows = &m->rows[with_sid[t]];
        size_t i = from(m, with_sid[t], sid, 0);
        while (i < rows->n && rows->v[i]->a == sid) {
            put(m, with_sid[t], rows->v[i], NULL);
        }
    }
    if (m->epoch.until_sid == INT64_MAX) {
        m->epoch.until_sid = m->next_sid - 1;
    }
}

static const struct eg_storage_ops memstore_ops = {
    .begin = op_begin,
    .commit = op_commit,
    .rollback = op_rollback,
    .latched = op_latched,
    .close = op_close,
    .probe = op_probe,
    .maintain = op_maintain,
    .why = op_why,
    .session_by_id = op_session_by_id,
    .session_by_sid = op_session_by_sid,
    .turns = op_turns,
    .turn_get = op_turn_get,
    .open_turns = op_open_turns,
    .event_by_idkey = op_event_by_idkey,
    .event_get = op_event_get,
    .event_hash = op_event_hash,
    .events = op_events,
    .ack_get = op_ack_get,
    .count_open_sessions = op_count_open_sessions,
    .agents = op_agents,
    .revoked = op_revoked,
    .epoch = op_epoch,
    .session_insert = op_session_insert,
    .session_update = op_session_update,
    .event_append = op_event_append,
    .turn_put = op_turn_put,
    .turn_delete = op_turn_delete,
    .ack_put = op_ack_put,
    .agent_put = op_agent_put,
    .agent_delete = op_agent_delete,
    .revoke = op_revoke,
    .audit = op_audit,
    .events_trim = op_events_trim,
    .session_delete = op_session_delete,
};

/* ---- the tests' side ---- */

struct eg_storage *memstore_new(const char *epoch)
{
    struct memstore *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    m->base.ops = &memstore_ops;
    m->next_sid = 1;
    m->next_audit = 1;
    size_t n = strlen(epoch);
    memcpy(m->epoch.id, epoch, n < sizeof(m->epoch.id) ? n : sizeof(m->epoch.id) - 1);
    m->epoch.until_sid = INT64_MAX;
    return &m->base;
}

void memstore_fail_commits(struct eg_storage *s, enum memstore_fate fate, int after, int times)
{
    struct memstore *m = self(s);
    m->fate = fate;
    m->after = after;
    m->times = times;
}

void memstore_fail_reads(struct eg_storage *s, bool fail)
{
    __atomic_store_n(&self(s)->fail_reads, fail, __ATOMIC_RELEASE);
}

void memstore_fail_write(struct eg_storage *s, int n, enum eg_err e)
{
    self(s)->fail_write = n;
    self(s)->fail_with = e;
}

void memstore_damage(struct eg_storage *s, int64_t sid, uint64_t cursor)
{
    self(s)->damaged_sid = sid;
    self(s)->damaged_cursor = cursor;
}

struct eg_storage *memstore_restart(struct eg_storage *s)
{
    struct memstore *m = self(s);
    struct memstore *n = self(must(memstore_new(m->epoch.id)));
    op_rollback(s);
    n->epoch = m->epoch;
    n->next_sid = m->next_sid;
    n->next_audit = m->next_audit;
    n->commits = m->commits;
    n->damaged_sid = m->damaged_sid;
    n->damaged_cursor = m->damaged_cursor;
    for (int t = 0; t < TABLES; t++) {
        n->rows[t] = m->rows[t];
        m->rows[t] = (struct rows){NULL, 0, 0};
    }
    for (size_t i = 0; i < n->rows[SESSIONS].n; i++) {
        struct eg_session_row *row = &n->rows[SESSIONS].v[i]->u.session;
        row->state = row->state == EG_SESSION_FORKING ? EG_SESSION_DELETING : row->state;
    }
    op_close(s);
    return &n->base;
}

void memstore_forget(struct eg_storage *s, int64_t wall_ms)
{
    struct rows *t = &self(s)->rows[REVOKED];
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->v[i]->u.number > 0 && t->v[i]->u.number <= wall_ms) {
            record_free(REVOKED, t->v[i]);
        } else {
            t->v[n++] = t->v[i];
        }
    }
    t->n = n;
}

long memstore_commits(const struct eg_storage *s)
{
    return self(s)->commits;
}

long memstore_audits(const struct eg_storage *s, const char **last_action)
{
    const struct rows *rows = &self(s)->rows[AUDIT];
    if (last_action != NULL) {
        *last_action = rows->n > 0 ? rows->v[rows->n - 1]->text : "";
    }
    return (long)rows->n;
}
