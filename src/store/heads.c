/*
 * heads.c - see heads.h: the format of records, and generations.
 *
 * A record is a row of entries, each a byte that says what it is, then numbers (eg_pack_number),
 * hashes (32 bytes), and texts (a byte with the length, then the text):
 *   1 session: sid cursor oldest updated_ms closed_ms bytes worker hash
 *   2 session, the same and floor_hash (1: it is zero)
 *   3 turn: sid turn state attempt created_ms until_ms worker error
 *   4 turn that came in this transaction, the same
 *   5 turn that has no row any more: sid turn
 *
 * Hash tables are open, with linear probing; entries never leave a generation one by one.
 */
#include "store/heads.h"

#include <stdlib.h>
#include <string.h>

#include "store/db.h"
#include "store/pack.h"

#define FIRST_ENTRIES 256
#define SESSION_BYTES_MAX (1 + 6 * 10 + 1 + 255 + 2 * EG_CHAIN_BYTES)
#define TURN_BYTES_MAX (1 + 6 * 10 + 2 * 256)

enum entry { SESSION = 1, SESSION_FLOOR, TURN, TURN_BORN, TURN_GONE };

/* ---- writing ---- */

static char *put_bytes(char *p, const void *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

static char *put_text(char *p, const char *text, size_t size)
{
    const size_t n = strnlen(text, size - 1);
    *p++ = (char)n;
    return put_bytes(p, text, n);
}

void eg_change_session(struct eg_change *c, const struct eg_session_row *row)
{
    char *const start = eg_buf_reserve(&c->body, SESSION_BYTES_MAX);
    if (start == NULL) {
        return;
    }
    const bool floor = !eg_db_no_hash(row->floor_hash);
    char *p = start;
    *p++ = floor ? SESSION_FLOOR : SESSION;
    p = eg_pack_number(p, (uint64_t)row->sid);
    p = eg_pack_number(p, row->cursor);
    p = eg_pack_number(p, row->oldest);
    p = eg_pack_number(p, (uint64_t)row->updated_ms);
    p = eg_pack_number(p, (uint64_t)row->closed_ms);
    p = eg_pack_number(p, (uint64_t)row->bytes);
    p = put_text(p, row->last_worker, sizeof(row->last_worker));
    p = put_bytes(p, row->hash, EG_CHAIN_BYTES);
    if (floor) {
        p = put_bytes(p, row->floor_hash, EG_CHAIN_BYTES);
    }
    c->body.n += (size_t)(p - start);
    c->sessions++;
}

void eg_change_turn(struct eg_change *c, const struct eg_turn_row *row, bool born)
{
    char *const start = eg_buf_reserve(&c->body, TURN_BYTES_MAX);
    if (start == NULL) {
        return;
    }
    char *p = start;
    *p++ = born ? TURN_BORN : TURN;
    p = eg_pack_number(p, (uint64_t)row->sid);
    p = eg_pack_number(p, row->turn);
    p = eg_pack_number(p, (uint64_t)row->state);
    p = eg_pack_number(p, (uint64_t)row->attempt);
    p = eg_pack_number(p, (uint64_t)row->created_ms);
    p = eg_pack_number(p, (uint64_t)row->until_ms);
    p = put_text(p, row->worker, sizeof(row->worker));
    p = put_text(p, row->error, sizeof(row->error));
    c->body.n += (size_t)(p - start);
    c->turns++;
}

void eg_change_turn_gone(struct eg_change *c, int64_t sid, uint64_t turn)
{
    char *const start = eg_buf_reserve(&c->body, 21);
    if (start == NULL) {
        return;
    }
    char *p = start;
    *p++ = TURN_GONE;
    p = eg_pack_number(p, (uint64_t)sid);
    p = eg_pack_number(p, turn);
    c->body.n += (size_t)(p - start);
    c->turns++;
}

void eg_change_reset(struct eg_change *c)
{
    eg_buf_reset(&c->body);
    c->sessions = c->turns = 0;
}

/* ---- reading ---- */

struct input {
    const uint8_t *p, *end;
    bool bad;
};

static uint64_t get_number(struct input *in)
{
    uint64_t v = 0;
    const uint8_t *const next = eg_unpack_number(in->p, in->end, &v);
    in->bad = in->bad || next == NULL;
    in->p = next != NULL ? next : in->end;
    return v;
}

static const uint8_t *get_bytes(struct input *in, size_t n)
{
    if ((size_t)(in->end - in->p) < n) {
        in->bad = true;
        return NULL;
    }
    in->p += n;
    return in->p - n;
}

static struct eg_slice get_text(struct input *in)
{
    const uint8_t *n = get_bytes(in, 1);
    const uint8_t *p = n != NULL ? get_bytes(in, *n) : NULL;
    return (struct eg_slice){(const char *)p, p != NULL ? *n : 0};
}

/* ---- tables ---- */

static uint32_t mix(uint64_t a, uint64_t b)
{
    const uint64_t h = (a ^ b * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

/* The slot of a session in v: its entry's, or the free one where it belongs. */
static uint32_t *head_slot(const struct eg_heads_gen *g, int64_t sid)
{
    uint32_t at = mix((uint64_t)sid, 0) & (g->cap * 2 - 1);
    while (g->slot[at] != 0 && g->v[g->slot[at] - 1].sid != sid) {
        at = (at + 1) & (g->cap * 2 - 1);
    }
    return &g->slot[at];
}

static uint32_t *turn_slot(const struct eg_heads_gen *g, int64_t sid, uint64_t turn)
{
    uint32_t at = mix((uint64_t)sid, turn) & (g->tcap * 2 - 1);
    while (g->tslot[at] != 0 &&
           (g->t[g->tslot[at] - 1].sid != sid || g->t[g->tslot[at] - 1].turn != turn)) {
        at = (at + 1) & (g->tcap * 2 - 1);
    }
    return &g->tslot[at];
}

static uint32_t *last_slot(const struct eg_heads_gen *g, int64_t sid)
{
    uint32_t at = mix((uint64_t)sid, 0) & (g->tcap * 2 - 1);
    while (g->last[at] != 0 && g->t[g->last[at] - 1].sid != sid) {
        at = (at + 1) & (g->tcap * 2 - 1);
    }
    return &g->last[at];
}

static enum eg_err grow_heads(struct eg_heads_gen *g, uint32_t want)
{
    uint32_t cap = g->cap > 0 ? g->cap : FIRST_ENTRIES;
    while (cap < want) {
        cap *= 2;
    }
    if (cap == g->cap) {
        return EG_OK;
    }
    struct eg_head *v = realloc(g->v, cap * sizeof(*v));
    if (v == NULL) {
        return EG_ENOMEM;
    }
    g->v = v;
    uint32_t *slot = calloc((size_t)cap * 2, sizeof(*slot));
    if (slot == NULL) {
        return EG_ENOMEM; /* v has grown, cap has not: harmless */
    }
    free(g->slot);
    g->slot = slot;
    g->cap = cap;
    for (uint32_t i = 0; i < g->n; i++) {
        *head_slot(g, v[i].sid) = i + 1;
    }
    return EG_OK;
}

static enum eg_err grow_turns(struct eg_heads_gen *g, uint32_t want)
{
    uint32_t cap = g->tcap > 0 ? g->tcap : FIRST_ENTRIES;
    while (cap < want) {
        cap *= 2;
    }
    if (cap == g->tcap) {
        return EG_OK;
    }
    struct eg_head_turn *t = realloc(g->t, cap * sizeof(*t));
    if (t == NULL) {
        return EG_ENOMEM;
    }
    g->t = t;
    uint32_t *tslot = calloc((size_t)cap * 2, sizeof(*tslot));
    uint32_t *last = calloc((size_t)cap * 2, sizeof(*last));
    if (tslot == NULL || last == NULL) {
        free(tslot);
        free(last);
        return EG_ENOMEM;
    }
    free(g->tslot);
    free(g->last);
    g->tslot = tslot;
    g->last = last;
    g->tcap = cap;
    for (uint32_t i = 0; i < g->tn; i++) {
        *turn_slot(g, t[i].sid, t[i].turn) = i + 1;
        *last_slot(g, t[i].sid) = i + 1;
    }
    return EG_OK;
}

enum eg_err eg_heads_reserve(struct eg_heads_gen *g, const struct eg_change *c)
{
    enum eg_err e = grow_heads(g, g->n + c->sessions);
    if (e == EG_OK) {
        e = grow_turns(g, g->tn + c->turns);
    }
    if (e == EG_OK && eg_buf_reserve(&g->text, c->body.n) == NULL) {
        g->text.err = EG_OK; /* what is there stays */
        e = EG_ENOMEM;
    }
    return e;
}

/* ---- applying ---- */

/* The place of two texts in a row, which may be where they are already. */
static uint32_t keep_text(struct eg_heads_gen *g, uint32_t was, size_t was_n, struct eg_slice a,
                          struct eg_slice b)
{
    if (was_n == a.n + b.n && (a.n == 0 || memcmp(g->text.p + was, a.p, a.n) == 0) &&
        (b.n == 0 || memcmp(g->text.p + was + a.n, b.p, b.n) == 0)) {
        return was;
    }
    const uint32_t at = (uint32_t)g->text.n;
    eg_buf_add(&g->text, a.p, a.n);
    eg_buf_add(&g->text, b.p, b.n);
    return at;
}

static enum eg_err apply_session(struct eg_heads_gen *g, struct input *in, bool floor, int64_t seq)
{
    const int64_t sid = (int64_t)get_number(in);
    struct eg_head h = {.sid = sid, .seq = seq};
    h.cursor = get_number(in);
    h.oldest = get_number(in);
    h.updated_ms = (int64_t)get_number(in);
    h.closed_ms = (int64_t)get_number(in);
    h.bytes = (int64_t)get_number(in);
    const struct eg_slice worker = get_text(in);
    const uint8_t *hash = get_bytes(in, EG_CHAIN_BYTES);
    const uint8_t *floor_hash = floor ? get_bytes(in, EG_CHAIN_BYTES) : NULL;
    if (in->bad) {
        return EG_ECORRUPT;
    }
    enum eg_err e = g->n < g->cap ? EG_OK : grow_heads(g, g->n + 1);
    if (e != EG_OK) {
        return e;
    }
    uint32_t *slot = head_slot(g, sid);
    struct eg_head *to = *slot != 0 ? &g->v[*slot - 1] : &g->v[g->n];
    const struct eg_head was = *slot != 0 ? *to : (struct eg_head){0};
    memcpy(h.hash, hash, EG_CHAIN_BYTES);
    if (floor) {
        memcpy(h.floor_hash, floor_hash, EG_CHAIN_BYTES);
    }
    h.worker = keep_text(g, was.worker, was.worker_n, worker, (struct eg_slice){NULL, 0});
    h.worker_n = (uint8_t)worker.n;
    *to = h;
    if (*slot == 0) {
        *slot = ++g->n;
    }
    return g->text.err;
}

/* The entry of a turn, new ones linked in; NULL without memory. */
static struct eg_head_turn *turn_entry(struct eg_heads_gen *g, int64_t sid, uint64_t turn,
                                       bool born)
{
    if (g->tn == g->tcap && grow_turns(g, g->tn + 1) != EG_OK) {
        return NULL;
    }
    uint32_t *slot = turn_slot(g, sid, turn);
    if (*slot != 0) {
        return &g->t[*slot - 1];
    }
    uint32_t *last = last_slot(g, sid);
    struct eg_head_turn *t = &g->t[g->tn++];
    *t = (struct eg_head_turn){.sid = sid, .turn = turn, .prev = *last, .born = born};
    *slot = *last = g->tn;
    return t;
}

static enum eg_err apply_turn(struct eg_heads_gen *g, struct input *in, bool born, int64_t seq)
{
    const int64_t sid = (int64_t)get_number(in);
    const uint64_t turn = get_number(in);
    const uint64_t state = get_number(in);
    const uint64_t attempt = get_number(in);
    const uint64_t created = get_number(in);
    const uint64_t until = get_number(in);
    const struct eg_slice worker = get_text(in);
    const struct eg_slice error = get_text(in);
    if (in->bad || state >= EG_TURN_GONE) {
        return EG_ECORRUPT;
    }
    struct eg_head_turn *t = turn_entry(g, sid, turn, born);
    if (t == NULL) {
        return EG_ENOMEM;
    }
    t->text = keep_text(g, t->text, (size_t)t->worker_n + t->error_n, worker, error);
    t->worker_n = (uint8_t)worker.n;
    t->error_n = (uint8_t)error.n;
    t->state = (uint8_t)state;
    t->attempt = (int32_t)attempt;
    t->created_ms = (int64_t)created;
    t->until_ms = (int64_t)until;
    t->seq = seq;
    return g->text.err;
}

static enum eg_err apply_gone(struct eg_heads_gen *g, struct input *in, int64_t seq)
{
    const int64_t sid = (int64_t)get_number(in);
    const uint64_t turn = get_number(in);
    if (in->bad) {
        return EG_ECORRUPT;
    }
    struct eg_head_turn *t = turn_entry(g, sid, turn, false);
    if (t == NULL) {
        return EG_ENOMEM;
    }
    t->state = EG_TURN_GONE;
    t->worker_n = t->error_n = 0;
    t->seq = seq;
    return EG_OK;
}

enum eg_err eg_heads_apply(struct eg_heads_gen *g, struct eg_slice record, int64_t seq)
{
    const uint8_t *p = (const uint8_t *)record.p;
    struct input in = {p, p != NULL ? p + record.n : p, false};
    enum eg_err e = grow_heads(g, 1); /* there are tables to look into */
    if (e == EG_OK) {
        e = grow_turns(g, 1);
    }
    while (e == EG_OK && in.p < in.end) {
        const uint8_t kind = *in.p++;
        switch (kind) {
        case SESSION:
        case SESSION_FLOOR:
            e = apply_session(g, &in, kind == SESSION_FLOOR, seq);
            break;
        case TURN:
        case TURN_BORN:
            e = apply_turn(g, &in, kind == TURN_BORN, seq);
            break;
        case TURN_GONE:
            e = apply_gone(g, &in, seq);
            break;
        default:
            e = EG_ECORRUPT;
        }
    }
    g->records++;
    g->bytes += record.n;
    g->upto = seq;
    return e;
}

/* ---- a generation ---- */

void eg_heads_empty(struct eg_heads_gen *g)
{
    if (g->n > 0) {
        memset(g->slot, 0, (size_t)g->cap * 2 * sizeof(*g->slot));
    }
    if (g->tn > 0) {
        memset(g->tslot, 0, (size_t)g->tcap * 2 * sizeof(*g->tslot));
        memset(g->last, 0, (size_t)g->tcap * 2 * sizeof(*g->last));
    }
    g->n = g->tn = g->records = 0;
    g->bytes = 0;
    eg_buf_reset(&g->text);
}

void eg_heads_drop(struct eg_heads_gen *g)
{
    free(g->v);
    free(g->t);
    free(g->slot);
    free(g->tslot);
    free(g->last);
    eg_buf_free(&g->text);
    memset(g, 0, sizeof(*g));
}

const struct eg_head *eg_heads_session(const struct eg_heads_gen *g, int64_t sid)
{
    const uint32_t at = g->n > 0 ? *head_slot(g, sid) : 0;
    return at != 0 ? &g->v[at - 1] : NULL;
}

const struct eg_head_turn *eg_heads_turn(const struct eg_heads_gen *g, int64_t sid, uint64_t turn)
{
    const uint32_t at = g->tn > 0 ? *turn_slot(g, sid, turn) : 0;
    return at != 0 ? &g->t[at - 1] : NULL;
}

const struct eg_head_turn *eg_heads_turns(const struct eg_heads_gen *g, int64_t sid)
{
    const uint32_t at = g->tn > 0 ? *last_slot(g, sid) : 0;
    return at != 0 ? &g->t[at - 1] : NULL;
}

static void copy_text(const struct eg_heads_gen *g, uint32_t at, size_t n, char *out, size_t size)
{
    n = n < size ? n : size - 1;
    if (n > 0) {
        memcpy(out, g->text.p + at, n);
    }
    out[n] = '\0';
}

void eg_heads_to_row(const struct eg_heads_gen *g, const struct eg_head *from,
                     struct eg_session_row *row)
{
    row->cursor = from->cursor;
    row->oldest = from->oldest;
    row->updated_ms = from->updated_ms;
    row->closed_ms = from->closed_ms;
    row->bytes = from->bytes;
    memcpy(row->hash, from->hash, EG_CHAIN_BYTES);
    memcpy(row->floor_hash, from->floor_hash, EG_CHAIN_BYTES);
    copy_text(g, from->worker, from->worker_n, row->last_worker, sizeof(row->last_worker));
}

void eg_heads_to_turn(const struct eg_heads_gen *g, const struct eg_head_turn *from,
                      struct eg_turn_row *row)
{
    row->sid = from->sid;
    row->turn = from->turn;
    row->state = (enum eg_turn_state)from->state;
    row->attempt = from->attempt;
    row->created_ms = from->created_ms;
    row->until_ms = from->until_ms;
    copy_text(g, from->text, from->worker_n, row->worker, sizeof(row->worker));
    copy_text(g, from->text + from->worker_n, from->error_n, row->error, sizeof(row->error));
}

/* ---- two generations ---- */

struct eg_heads *eg_heads_new(void)
{
    struct eg_heads *h = calloc(1, sizeof(*h));
    if (h != NULL) {
        eg_heads_init(&h->lock);
    }
    return h;
}

void eg_heads_free(struct eg_heads *h)
{
    if (h != NULL) {
        eg_heads_drop(&h->fill);
        eg_heads_drop(&h->frozen);
        free(h->order);
        eg_heads_destroy(&h->lock);
        free(h);
    }
}

struct sorted {
    uint32_t
        sid; /* its lower half is enough: beyond 2^32 sessions they would only be less sorted */
    uint32_t at;
};

/* One pass of a counting sort by 11 bits. */
static void sort_pass(const struct sorted *from, struct sorted *to, uint32_t n, unsigned shift)
{
    uint32_t count[2048] = {0};
    for (uint32_t i = 0; i < n; i++) {
        count[from[i].sid >> shift & 2047]++;
    }
    for (uint32_t i = 0, sum = 0; i < 2048; i++) {
        const uint32_t here = count[i];
        count[i] = sum;
        sum += here;
    }
    for (uint32_t i = 0; i < n; i++) {
        to[count[from[i].sid >> shift & 2047]++] = from[i];
    }
}

/* By session, those of one in the order they came. v has room for twice n; the first n are sorted
 * into order. */
static void sort(struct sorted *v, uint32_t n, uint32_t *order)
{
    sort_pass(v, v + n, n, 0);
    sort_pass(v + n, v, n, 11);
    sort_pass(v, v + n, n, 22);
    for (uint32_t i = 0; i < n; i++) {
        order[i] = v[n + i].at;
    }
}

enum eg_err eg_heads_freeze(struct eg_heads *h)
{
    const struct eg_heads_gen *g = &h->fill;
    const size_t most = g->n > g->tn ? g->n : g->tn;
    struct sorted *s = calloc(most * 2 + 1, sizeof(*s));
    uint32_t *order = malloc(((size_t)g->n + g->tn + 1) * sizeof(*order));
    if (s == NULL || order == NULL) {
        free(s);
        free(order);
        return EG_ENOMEM;
    }
    for (uint32_t i = 0; i < g->n; i++) {
        s[i] = (struct sorted){(uint32_t)g->v[i].sid, i};
    }
    sort(s, g->n, order);
    /* Of turns only those that the table has to hear of. */
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->tn; i++) {
        if (!g->t[i].born || g->t[i].state != EG_TURN_GONE) {
            s[n++] = (struct sorted){(uint32_t)g->t[i].sid, i};
        }
    }
    sort(s, n, order + g->n);
    order[g->n + n] = UINT32_MAX;
    free(s);
    eg_heads_lock(&h->lock);
    h->frozen = h->fill;
    h->order = order;
    h->merged = h->merged_kept = 0;
    memset(&h->fill, 0, sizeof(h->fill));
    h->fill.upto = h->frozen.upto;
    eg_heads_unlock(&h->lock);
    return EG_OK;
}

void eg_heads_thaw(struct eg_heads *h)
{
    eg_heads_lock(&h->lock);
    struct eg_heads_gen done = h->frozen;
    h->settled = done.upto;
    memset(&h->frozen, 0, sizeof(h->frozen));
    free(h->order);
    h->order = NULL;
    h->merged = h->merged_kept = 0;
    eg_heads_unlock(&h->lock);
    eg_heads_drop(&done);
}

bool eg_heads_look(struct eg_heads *h, int64_t settled, struct eg_session_row *row)
{
    eg_heads_lock(&h->lock);
    const bool current = h->settled <= settled;
    const struct eg_heads_gen *const gens[] = {&h->fill, &h->frozen};
    for (size_t i = 0; current && i < 2; i++) {
        const struct eg_head *e = eg_heads_session(gens[i], row->sid);
        if (e != NULL) {
            if (e->seq > settled) {
                eg_heads_to_row(gens[i], e, row);
            }
            break;
        }
    }
    eg_heads_unlock(&h->lock);
    return current;
}
