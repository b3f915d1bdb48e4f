#include "edge/limits.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/lock.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define ADDRESSES_MAX 65536
#define SWEEP 2        /* rows looked at with each new connection */
#define SWEEP_FULL 64  /* the same when the table is full */
#define FORGET_MS 1000 /* a full second without a connection fills the bucket */
#define PER_ADDRESS 1024
#define HANDSHAKES_PER_ADDRESS 64
#define RATE_PER_ADDRESS 200
#define KEY_BYTES 16

/* One address. Rows stand in the order in which they were last looked at. */
struct row {
    uint8_t key[KEY_BYTES];
    int64_t connections, handshakes, knocking;
    int64_t seen_ms;
    struct eg_bucket rate;
    UT_hash_handle hh;
};

struct bounds {
    int64_t connections, handshakes, rate; /* 0: none */
};

EG_MUTEX(limits);

struct eg_limits {
    struct limits_mutex lock; /* of all that follows */
    int64_t max_total EG_GUARDED_BY(limits_mutex);
    struct bounds loopback EG_GUARDED_BY(limits_mutex);
    struct bounds other EG_GUARDED_BY(limits_mutex);
    int64_t total EG_GUARDED_BY(limits_mutex);
    int64_t handshakes EG_GUARDED_BY(limits_mutex);
    int64_t knocking EG_GUARDED_BY(limits_mutex);
    struct row *rows EG_GUARDED_BY(limits_mutex);
};

/* The table's key: the IPv4 address mapped into IPv6, or the first half of an IPv6 address; any
 * other text by its hash. Returns whether it is loopback. */
static bool address_key(const char *addr, uint8_t key[KEY_BYTES])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct in6_addr six;
    struct in_addr four;
    memset(key, 0, KEY_BYTES);
    if (inet_pton(AF_INET, addr, &four) == 1) {
        memcpy(key, mapped, sizeof mapped);
        memcpy(key + 12, &four, 4);
        return key[12] == 127;
    }
    if (inet_pton(AF_INET6, addr, &six) == 1) {
        if (memcmp(&six, mapped, sizeof mapped) == 0) {
            memcpy(key, &six, KEY_BYTES);
            return key[12] == 127;
        }
        if (IN6_IS_ADDR_LOOPBACK(&six)) {
            key[KEY_BYTES - 1] = 1;
            return true;
        }
        memcpy(key, &six, 8);
        return false;
    }
    eg_idkey('a', (struct eg_slice){NULL, 0}, eg_slice_cstr(addr), key);
    return false;
}

static bool idle(const struct row *r)
{
    return r->connections == 0 && r->handshakes == 0 && r->knocking == 0;
}

EG_REQUIRES(limits_mutex) static void drop(struct eg_limits *l, struct row *r)
{
    HASH_DEL(l->rows, r);
    free(r);
}

/* Appends r to the table as the row seen last. False without memory: r is not in the table. */
EG_REQUIRES(limits_mutex) static bool append(struct eg_limits *l, struct row *r)
{
    HASH_ADD(hh, l->rows, key, KEY_BYTES, r);
    return r->hh.tbl != NULL;
}

/* Looks at the n rows that were looked at longest ago and forgets those that hold nothing. */
EG_REQUIRES(limits_mutex) static void sweep(struct eg_limits *l, int n, int64_t now)
{
    /* NOLINTBEGIN(clang-analyzer-unix.Malloc): the analyzer loses the links of the table */
    while (n-- > 0 && l->rows != NULL && l->rows->hh.next != NULL) {
        struct row *r = l->rows;
        if (idle(r) && now - r->seen_ms >= FORGET_MS) {
            drop(l, r);
            continue;
        }
        HASH_DEL(l->rows, r);
        if (!append(l, r)) { /* what it held is no longer counted */
            l->total -= r->connections;
            l->handshakes -= r->handshakes;
            l->knocking -= r->knocking;
            free(r);
        }
    }
    /* NOLINTEND(clang-analyzer-unix.Malloc) */
}

EG_REQUIRES(limits_mutex) static struct row *find(struct eg_limits *l, const uint8_t key[KEY_BYTES])
{
    struct row *r = NULL;
    HASH_FIND(hh, l->rows, key, KEY_BYTES, r);
    return r;
}

/* The row of key, made when there is none; NULL when the table is full or memory is out. */
EG_REQUIRES(limits_mutex)
static struct row *obtain(struct eg_limits *l, const uint8_t key[KEY_BYTES], int64_t now)
{
    struct row *r = find(l, key);
    if (r == NULL) {
        const bool full = HASH_COUNT(l->rows) >= ADDRESSES_MAX;
        sweep(l, full ? SWEEP_FULL : SWEEP, now);
        if (HASH_COUNT(l->rows) >= ADDRESSES_MAX || (r = calloc(1, sizeof *r)) == NULL) {
            return NULL;
        }
        memcpy(r->key, key, KEY_BYTES);
        if (!append(l, r)) {
            free(r);
            return NULL;
        }
    }
    r->seen_ms = now;
    return r;
}

enum eg_err eg_limits_new(struct eg_settings *settings, struct eg_limits **out)
{
    struct eg_limits *l = calloc(1, sizeof *l);
    if (l == NULL) {
        return EG_ENOMEM;
    }
    limits_init(&l->lock);
    eg_limits_settings(l, settings);
    *out = l;
    return EG_OK;
}

void eg_limits_free(struct eg_limits *l)
{
    if (l == NULL) {
        return;
    }
    limits_unshared(&l->lock);
    struct row *r = l->rows, *next = NULL;
    HASH_CLEAR(hh, l->rows);
    for (; r != NULL; r = next) {
        next = r->hh.next;
        free(r);
    }
    limits_destroy(&l->lock);
    free(l);
}

void eg_limits_settings(struct eg_limits *l, struct eg_settings *s)
{
    const struct bounds named = {s->max_connections_per_address, s->max_handshakes_per_address,
                                 s->handshake_rate};
    limits_lock(&l->lock);
    l->max_total = s->max_connections;
    l->loopback = named;
    l->other.connections = named.connections > 0 ? named.connections : PER_ADDRESS;
    l->other.handshakes = named.handshakes > 0 ? named.handshakes : HANDSHAKES_PER_ADDRESS;
    l->other.rate = named.rate > 0 ? named.rate : RATE_PER_ADDRESS;
    limits_unlock(&l->lock);
}

bool eg_limits_knock(struct eg_limits *l, const char *addr, int64_t mono_ms)
{
    uint8_t key[KEY_BYTES];
    const bool local = address_key(addr, key);
    bool fits = false;
    limits_lock(&l->lock);
    struct row *r = obtain(l, key, mono_ms);
    const struct bounds *b = local ? &l->loopback : &l->other;
    if (r != NULL && (b->handshakes == 0 || r->knocking < b->handshakes)) {
        r->knocking++;
        l->knocking++;
        fits = true;
    }
    limits_unlock(&l->lock);
    return fits;
}

void eg_limits_knocked(struct eg_limits *l, const char *addr)
{
    uint8_t key[KEY_BYTES];
    (void)address_key(addr, key);
    limits_lock(&l->lock);
    struct row *r = find(l, key);
    if (r != NULL && r->knocking > 0) {
        r->knocking--;
        l->knocking--;
    }
    limits_unlock(&l->lock);
}

EG_REQUIRES(limits_mutex)
static enum eg_code judge(struct eg_limits *l, struct row *r, const struct bounds *b, int64_t now)
{
    if (r == NULL || l->total >= l->max_total ||
        (b->connections > 0 && r->connections >= b->connections)) {
        return EG_CODE_too_many_connections;
    }
    if ((b->handshakes > 0 && r->handshakes >= b->handshakes) ||
        !eg_bucket_take(&r->rate, b->rate, 1, now)) {
        return EG_CODE_rate_limited;
    }
    return EG_CODE_NONE;
}

enum eg_code eg_limits_enter(struct eg_limits *l, const char *addr, int64_t mono_ms)
{
    uint8_t key[KEY_BYTES];
    const bool local = address_key(addr, key);
    limits_lock(&l->lock);
    struct row *r = obtain(l, key, mono_ms);
    const enum eg_code code = judge(l, r, local ? &l->loopback : &l->other, mono_ms);
    if (code == EG_CODE_NONE) {
        r->connections++;
        r->handshakes++;
        l->total++;
        l->handshakes++;
    }
    limits_unlock(&l->lock);
    return code;
}

void eg_limits_established(struct eg_limits *l, const char *addr)
{
    uint8_t key[KEY_BYTES];
    (void)address_key(addr, key);
    limits_lock(&l->lock);
    struct row *r = find(l, key);
    if (r != NULL && r->handshakes > 0) {
        r->handshakes--;
        l->handshakes--;
    }
    limits_unlock(&l->lock);
}

void eg_limits_leave(struct eg_limits *l, const char *addr, bool was_established)
{
    uint8_t key[KEY_BYTES];
    (void)address_key(addr, key);
    limits_lock(&l->lock);
    struct row *r = find(l, key);
    if (r != NULL && r->connections > 0) {
        r->connections--;
        l->total--;
        if (!was_established && r->handshakes > 0) {
            r->handshakes--;
            l->handshakes--;
        }
    }
    limits_unlock(&l->lock);
}

struct eg_limits_count eg_limits_count(struct eg_limits *l)
{
    limits_lock(&l->lock);
    const struct eg_limits_count c = {l->total, l->handshakes + l->knocking,
                                      (int64_t)HASH_COUNT(l->rows)};
    limits_unlock(&l->lock);
    return c;
}
