/*
 * tail.c - see tail.h. Open addressing with linear probing. Entries leave a generation only in the
 * reverse order of their coming (a rollback), and the tables are filled in the order of coming also
 * when they grow, so freeing a slot never breaks a probe.
 */
#include "store/tail.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/heads.h"
#include "store/pack.h"

#define FIRST_ENTRIES 1024

EG_MUTEX(registry);

static struct {
    struct registry_mutex lock;
    struct eg_tail *first EG_GUARDED_BY(registry_mutex); /* and the links from there */
} registry = {{PTHREAD_MUTEX_INITIALIZER}, NULL};

/* ---- one generation ---- */

static uint32_t key_slot(const struct eg_tail_generation *g, int64_t sid, int64_t key)
{
    uint64_t h = (uint64_t)key ^ (uint64_t)sid * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    return (uint32_t)h & (g->cap * 2 - 1);
}

static uint32_t session_slot(const struct eg_tail_generation *g, int64_t sid)
{
    return (uint32_t)((uint64_t)sid * 0x9e3779b97f4a7c15u >> 32) & (g->session_slots - 1);
}

static struct eg_tail_session *find_session(const struct eg_tail_generation *g, int64_t sid)
{
    if (g->session_slots == 0) {
        return NULL;
    }
    uint32_t at = session_slot(g, sid);
    while (g->session[at].last != 0 && g->session[at].sid != sid) {
        at = (at + 1) & (g->session_slots - 1);
    }
    return &g->session[at];
}

static void occupy_key(struct eg_tail_generation *g, uint32_t index)
{
    uint32_t at = key_slot(g, g->v[index].sid, g->v[index].key);
    while (g->key[at] != 0) {
        at = (at + 1) & (g->cap * 2 - 1);
    }
    g->key[at] = index + 1;
}

static void generation_free(struct eg_tail_generation *g)
{
    free(g->v);
    free(g->key);
    free(g->session);
    memset(g, 0, sizeof(*g));
}

static enum eg_err grow_entries(struct eg_tail_generation *g)
{
    uint32_t cap = g->cap > 0 ? g->cap * 2 : FIRST_ENTRIES;
    struct eg_tail_entry *v = realloc(g->v, cap * sizeof(*v));
    if (v == NULL) {
        return EG_ENOMEM;
    }
    g->v = v;
    uint32_t *key = calloc((size_t)cap * 2, sizeof(*key));
    if (key == NULL) {
        return EG_ENOMEM; /* v has grown, cap has not: harmless */
    }
    free(g->key);
    g->key = key;
    g->cap = cap;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->v[i].key != 0) {
            occupy_key(g, i);
        }
    }
    return EG_OK;
}

static enum eg_err grow_sessions(struct eg_tail_generation *g)
{
    uint32_t slots = g->session_slots > 0 ? g->session_slots * 2 : FIRST_ENTRIES;
    struct eg_tail_session *session = calloc(slots, sizeof(*session));
    if (session == NULL) {
        return EG_ENOMEM;
    }
    struct eg_tail_generation was = *g;
    g->session = session;
    g->session_slots = slots;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->v[i].prev == 0) {
            *find_session(g, g->v[i].sid) = *find_session(&was, g->v[i].sid);
        }
    }
    free(was.session);
    return EG_OK;
}

/* Puts the entry at index n, which is filled in but for its links, into chain and tables. */
static void link_entry(struct eg_tail_generation *g)
{
    struct eg_tail_entry *e = &g->v[g->n];
    struct eg_tail_session *s = find_session(g, e->sid);
    e->prev = e->jump = e->depth = 0;
    if (s->last == 0) {
        *s = (struct eg_tail_session){e->sid, g->n + 1, g->n + 1};
        g->sessions++;
    } else {
        const struct eg_tail_entry *p = &g->v[s->last - 1];
        const struct eg_tail_entry *j = p->jump != 0 ? &g->v[p->jump - 1] : NULL;
        const struct eg_tail_entry *jj = j != NULL && j->jump != 0 ? &g->v[j->jump - 1] : NULL;
        e->prev = s->last;
        e->depth = p->depth + 1;
        /* Two jumps of the same length are followed by one over both. */
        e->jump = jj != NULL && p->depth - j->depth == j->depth - jj->depth ? j->jump : s->last;
        s->last = g->n + 1;
    }
    if (e->key != 0) {
        occupy_key(g, g->n);
    }
    g->n++;
}

/* Takes the newest entry out again. */
static void unlink_entry(struct eg_tail_generation *g)
{
    uint32_t index = --g->n;
    const struct eg_tail_entry *e = &g->v[index];
    struct eg_tail_session *s = find_session(g, e->sid);
    s->last = e->prev;
    if (e->prev == 0) {
        g->sessions--;
    }
    if (e->key != 0) {
        uint32_t at = key_slot(g, e->sid, e->key);
        while (g->key[at] != index + 1) {
            at = (at + 1) & (g->cap * 2 - 1);
        }
        g->key[at] = 0;
    }
}

/* The newest entry of a session (index + 1) with cursor <= to among the first n; 0 none. */
static uint32_t search(const struct eg_tail_generation *g, int64_t sid, uint64_t to, uint32_t n)
{
    const struct eg_tail_session *s = find_session(g, sid);
    uint32_t at = s != NULL ? s->last : 0;
    while (at != 0 && (at > n || g->v[at - 1].cursor > to)) {
        uint32_t jump = g->v[at - 1].jump;
        at = jump != 0 && (jump > n || g->v[jump - 1].cursor > to) ? jump : g->v[at - 1].prev;
    }
    return at;
}

/* The oldest entry, from `at` down, with a cursor above `than`; that of `at` is. */
static uint32_t lowest_above(const struct eg_tail_generation *g, uint32_t at, uint64_t than)
{
    for (;;) {
        const struct eg_tail_entry *e = &g->v[at - 1];
        if (e->jump != 0 && g->v[e->jump - 1].cursor > than) {
            at = e->jump;
        } else if (e->prev != 0 && g->v[e->prev - 1].cursor > than) {
            at = e->prev;
        } else {
            return at;
        }
    }
}

/* Index of the living entry, or n. */
static uint32_t look(const struct eg_tail_generation *g, int64_t sid, uint64_t cursor)
{
    uint32_t at = search(g, sid, cursor, g->n);
    bool there = at != 0 && g->v[at - 1].cursor == cursor && g->v[at - 1].seq != 0;
    return there ? at - 1 : g->n;
}

static void reverse(struct eg_tail_place *p, int n)
{
    for (int i = 0; i < n / 2; i++) {
        struct eg_tail_place swap = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = swap;
    }
}

/* Rising from the lowest living cursor in from..to. */
static int range_up(const struct eg_tail_generation *g, int64_t sid, uint64_t from, uint64_t to,
                    int max, uint32_t n, struct eg_tail_place *out)
{
    const struct eg_tail_session *s = find_session(g, sid);
    int got = 0;
    if (s == NULL || s->last == 0 || s->first > n) {
        return 0;
    }
    uint64_t low = g->v[s->first - 1].cursor > from ? g->v[s->first - 1].cursor : from;
    uint32_t top = search(g, sid, to, n);
    /* Windows of as many cursors as there is room for, since a chain can only be walked down. */
    while (got < max && top != 0 && g->v[top - 1].cursor >= low) {
        int begin = got;
        uint64_t room = (uint64_t)(max - got);
        uint64_t high = to - low >= room ? low + room - 1 : to;
        for (uint32_t at = search(g, sid, high, n); at != 0 && g->v[at - 1].cursor >= low;
             at = g->v[at - 1].prev) {
            if (g->v[at - 1].seq != 0 && got < max) {
                out[got++] = (struct eg_tail_place){g->v[at - 1].cursor, g->v[at - 1].seq};
            }
        }
        reverse(out + begin, got - begin);
        if (g->v[top - 1].cursor <= high) {
            break;
        }
        low = g->v[lowest_above(g, top, high) - 1].cursor; /* a damaged log has holes */
    }
    return got;
}

static int range_down(const struct eg_tail_generation *g, int64_t sid, uint64_t from, uint64_t to,
                      int max, uint32_t n, struct eg_tail_place *out)
{
    int got = 0;
    for (uint32_t at = search(g, sid, to, n); at != 0 && got < max && g->v[at - 1].cursor >= from;
         at = g->v[at - 1].prev) {
        if (g->v[at - 1].seq != 0) {
            out[got++] = (struct eg_tail_place){g->v[at - 1].cursor, g->v[at - 1].seq};
        }
    }
    return got;
}

/* ---- life and registry ---- */

struct eg_tail *eg_tail_new(void)
{
    struct eg_tail *t = calloc(1, sizeof(*t));
    if (t != NULL) {
        eg_tail_init(&t->lock);
        t->refs = 1;
    }
    return t;
}

void eg_tail_clear(struct eg_tail *t)
{
    eg_tail_unshared(&t->lock);
    generation_free(&t->fill);
    generation_free(&t->frozen);
    free(t->order);
    free(t->by_id);
    t->order = t->by_id = NULL;
    t->kept = t->ids = t->removals = 0;
}

void eg_tail_unref(struct eg_tail *t)
{
    if (t == NULL || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    eg_tail_clear(t);
    free(t->removed);
    eg_heads_free(t->heads);
    eg_tail_destroy(&t->lock);
    free(t);
}

void eg_tail_publish(struct eg_tail *t, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return;
    }
    t->dev = (uint64_t)st.st_dev;
    t->ino = (uint64_t)st.st_ino;
    (void)__atomic_add_fetch(&t->refs, 1, __ATOMIC_ACQ_REL);
    registry_lock(&registry.lock);
    t->next = registry.first;
    registry.first = t;
    registry_unlock(&registry.lock);
}

void eg_tail_withdraw(struct eg_tail *t)
{
    bool found = false;
    registry_lock(&registry.lock);
    for (struct eg_tail **at = &registry.first; *at != NULL; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            found = true;
            break;
        }
    }
    registry_unlock(&registry.lock);
    __atomic_store_n(&t->gone, 1, __ATOMIC_RELEASE);
    if (found) {
        eg_tail_unref(t);
    }
}

struct eg_tail *eg_tail_attach(const char *path)
{
    struct stat st;
    struct eg_tail *t = NULL;
    if (stat(path, &st) != 0) {
        return NULL;
    }
    registry_lock(&registry.lock);
    for (t = registry.first; t != NULL; t = t->next) {
        if (t->dev == (uint64_t)st.st_dev && t->ino == (uint64_t)st.st_ino) {
            (void)__atomic_add_fetch(&t->refs, 1, __ATOMIC_ACQ_REL);
            break;
        }
    }
    registry_unlock(&registry.lock);
    return t;
}

bool eg_tail_gone(struct eg_tail *t)
{
    return __atomic_load_n(&t->gone, __ATOMIC_ACQUIRE) != 0;
}

/* ---- the writer's side ---- */

enum eg_err eg_tail_add(struct eg_tail *t, int64_t sid, uint64_t cursor, int64_t seq, int64_t key)
{
    struct eg_tail_generation *g = &t->fill;
    enum eg_err e = EG_OK;
    eg_tail_lock(&t->lock);
    if (g->n == g->cap) {
        e = grow_entries(g);
    }
    if (e == EG_OK && g->sessions * 2 >= g->session_slots) {
        e = grow_sessions(g);
    }
    if (e == EG_OK) {
        g->v[g->n] = (struct eg_tail_entry){.sid = sid, .cursor = cursor, .seq = seq, .key = key};
        link_entry(g);
    }
    eg_tail_unlock(&t->lock);
    return e;
}

enum eg_err eg_tail_remove(struct eg_tail *t, int64_t sid, uint64_t cursor)
{
    struct eg_tail_generation *const in[] = {&t->fill, &t->frozen};
    enum eg_err e = EG_OK;
    eg_tail_lock(&t->lock);
    for (size_t i = 0; e == EG_OK && i < 2; i++) {
        uint32_t at = look(in[i], sid, cursor);
        if (at >= in[i]->n) {
            continue;
        }
        if (t->removals == t->removals_cap) {
            uint32_t cap = t->removals_cap > 0 ? t->removals_cap * 2 : 64;
            struct eg_tail_removal *r = realloc(t->removed, cap * sizeof(*r));
            if (r == NULL) {
                e = EG_ENOMEM;
                break;
            }
            t->removed = r;
            t->removals_cap = cap;
        }
        t->removed[t->removals++] = (struct eg_tail_removal){i == 1, at, in[i]->v[at].seq};
        in[i]->v[at].seq = 0;
    }
    eg_tail_unlock(&t->lock);
    return e;
}

void eg_tail_keep(struct eg_tail *t)
{
    eg_tail_lock(&t->lock);
    t->kept = t->fill.n;
    t->removals = 0;
    eg_tail_unlock(&t->lock);
}

void eg_tail_undo(struct eg_tail *t)
{
    eg_tail_lock(&t->lock);
    while (t->removals > 0) {
        const struct eg_tail_removal *r = &t->removed[--t->removals];
        (r->frozen ? &t->frozen : &t->fill)->v[r->index].seq = r->seq;
    }
    while (t->fill.n > t->kept) {
        unlink_entry(&t->fill);
    }
    eg_tail_unlock(&t->lock);
}

bool eg_tail_find(const struct eg_tail *t, int64_t sid, uint64_t cursor, int64_t *seq)
{
    const struct eg_tail_generation *const in[] = {&t->fill, &t->frozen};
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = look(in[i], sid, cursor);
        if (at < in[i]->n) {
            *seq = in[i]->v[at].seq;
            return true;
        }
    }
    return false;
}

bool eg_tail_find_key(const struct eg_tail *t, int64_t sid, int64_t key, int64_t *seq)
{
    const struct eg_tail_generation *const in[] = {&t->fill, &t->frozen};
    for (size_t i = 0; i < 2; i++) {
        const struct eg_tail_generation *g = in[i];
        if (g->n == 0) {
            continue;
        }
        for (uint32_t at = key_slot(g, sid, key); g->key[at] != 0;
             at = (at + 1) & (g->cap * 2 - 1)) {
            const struct eg_tail_entry *e = &g->v[g->key[at] - 1];
            if (e->sid == sid && e->key == key && e->seq != 0) {
                *seq = e->seq;
                return true;
            }
        }
    }
    return false;
}

bool eg_tail_newest(const struct eg_tail *t, int64_t sid, uint64_t *cursor)
{
    const struct eg_tail_generation *const in[] = {&t->fill, &t->frozen};
    for (size_t i = 0; i < 2; i++) {
        const struct eg_tail_session *s = find_session(in[i], sid);
        if (s != NULL && s->last != 0) {
            *cursor = in[i]->v[s->last - 1].cursor;
            return true;
        }
    }
    return false;
}

int eg_tail_range(struct eg_tail *t, int64_t sid, uint64_t from, uint64_t to, int max,
                  bool descending, bool all, struct eg_tail_place *out)
{
    int got = 0;
    if (max <= 0 || from > to) {
        return 0;
    }
    eg_tail_lock(&t->lock);
    uint32_t n = all ? t->fill.n : t->kept;
    if (descending) {
        got = range_down(&t->fill, sid, from, to, max, n, out);
        got += range_down(&t->frozen, sid, from, to, max - got, t->frozen.n, out + got);
    } else {
        got = range_up(&t->frozen, sid, from, to, max, t->frozen.n, out);
        if (got < max) {
            got += range_up(&t->fill, sid, from, to, max - got, n, out + got);
        }
    }
    eg_tail_unlock(&t->lock);
    return got;
}

/* ---- writing out ---- */

static uint64_t by_sid(const struct eg_tail_entry *e)
{
    return (uint64_t)e->sid;
}

static uint64_t by_hash(const struct eg_tail_entry *e)
{
    return eg_pack_hash(e->sid, e->key);
}

/* Sorts the n indexes in *v by a key below 2^bits, those of equal keys as they were; *spare is as
 * large, and both may change places. False without memory. */
static bool sort(const struct eg_tail_generation *g, uint64_t (*key)(const struct eg_tail_entry *),
                 unsigned bits, uint32_t **v, uint32_t **spare, uint32_t n)
{
    uint32_t *count = malloc(65536 * sizeof(*count));
    if (count == NULL) {
        return false;
    }
    for (unsigned shift = 0; shift < bits; shift += 16) {
        const uint32_t *from = *v;
        uint32_t *to = *spare;
        memset(count, 0, 65536 * sizeof(*count));
        for (uint32_t i = 0; i < n; i++) {
            count[(key(&g->v[from[i]]) >> shift) & 0xffff]++;
        }
        for (uint32_t i = 0, sum = 0; i < 65536; i++) {
            const uint32_t here = count[i];
            count[i] = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < n; i++) {
            to[count[(key(&g->v[from[i]]) >> shift) & 0xffff]++] = from[i];
        }
        *spare = *v;
        *v = to;
    }
    free(count);
    return true;
}

enum eg_err eg_tail_freeze(struct eg_tail *t, int64_t seq)
{
    const struct eg_tail_generation *const fill = &t->fill; /* the writer needs no lock to read */
    const uint32_t n = fill->n;
    uint32_t *order = malloc((n + 1) * sizeof(*order));
    uint32_t *by_id = malloc((n + 1) * sizeof(*by_id));
    uint32_t *spare = malloc((n + 1) * sizeof(*spare));
    uint32_t ids = 0;
    int64_t top = 0;
    enum eg_err e = EG_ENOMEM;
    if (order == NULL || by_id == NULL || spare == NULL) {
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
        if (fill->v[i].key != 0) {
            by_id[ids++] = i;
        }
        top = fill->v[i].sid > top ? fill->v[i].sid : top;
    }
    /* They came by rising cursor and seq. */
    if (!sort(fill, by_sid,
              top >> 32 != 0   ? 64
              : top >> 16 != 0 ? 32
                               : 16,
              &order, &spare, n) ||
        !sort(fill, by_hash, EG_PACK_HASH_BITS, &by_id, &spare, ids)) {
        goto out;
    }
    eg_tail_lock(&t->lock);
    t->frozen = t->fill;
    t->order = order;
    t->by_id = by_id;
    t->ids = ids;
    t->upto = seq;
    memset(&t->fill, 0, sizeof(t->fill));
    t->kept = 0;
    eg_tail_unlock(&t->lock);
    order = by_id = NULL;
    e = EG_OK;
out:
    free(order);
    free(by_id);
    free(spare);
    return e;
}

bool eg_tail_merging(const struct eg_tail *t)
{
    return t->order != NULL;
}

const struct eg_tail_entry *eg_tail_place_at(const struct eg_tail *t, uint32_t i)
{
    eg_tail_only_writer(&t->lock);
    return i < t->frozen.n ? &t->frozen.v[t->order[i]] : NULL;
}

const struct eg_tail_entry *eg_tail_id_at(const struct eg_tail *t, uint32_t i)
{
    eg_tail_only_writer(&t->lock);
    return i < t->ids ? &t->frozen.v[t->by_id[i]] : NULL;
}

void eg_tail_thaw(struct eg_tail *t)
{
    struct eg_tail_generation done;
    eg_tail_lock(&t->lock);
    done = t->frozen;
    memset(&t->frozen, 0, sizeof(t->frozen));
    free(t->order);
    free(t->by_id);
    t->order = t->by_id = NULL;
    t->ids = 0;
    eg_tail_unlock(&t->lock);
    generation_free(&done);
}
