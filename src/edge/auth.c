#include "edge/auth.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/log.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define CACHE_SLOTS 4096       /* verified tokens remembered; one slot a hash value */
#define CACHE_TOKEN_BYTES 2048 /* longer ones are verified each time: bounds the memory */
#define KEY_BYTES EG_CHAIN_BYTES
#define SWEEP_FIRST 1024 /* revocations before the first look for those that ran out */

/* A token that verified. Read under the read lock, replaced under the write lock. */
struct verified {
    uint8_t key[KEY_BYTES]; /* eg_chain_next: BLAKE2b-256 of zeros and the token */
    struct eg_claims claims;
};

struct revocation {
    int64_t until_ms; /* wall; <= 0: for ever */
    UT_hash_handle hh;
    char what[]; /* "jti:..." or "sub:..." */
};

EG_RWLOCK(auth);

struct eg_auth {
    struct auth_rwlock lock;
    struct eg_keyring *ring EG_GUARDED_BY(auth_rwlock);
    char *audience EG_GUARDED_BY(auth_rwlock);
    int64_t max_lifetime_s EG_GUARDED_BY(auth_rwlock);
    uint64_t version; /* keys and revocations; atomic */
    /* These and the rules: what the cache depends on. */
    uint64_t generation EG_GUARDED_BY(auth_rwlock);
    struct revocation *revoked EG_GUARDED_BY(auth_rwlock);
    unsigned sweep_at EG_GUARDED_BY(auth_rwlock);
    /* A revocation could not be kept: refuse everybody rather than the wrong one. */
    bool lost EG_GUARDED_BY(auth_rwlock);
    struct verified *cache[CACHE_SLOTS] EG_GUARDED_BY(auth_rwlock);
};

static void verified_free(struct verified *v)
{
    if (v != NULL) {
        eg_claims_free(&v->claims);
        free(v);
    }
}

/* Everything that was verified may be judged otherwise now. */
EG_REQUIRES(auth_rwlock) static void changed(struct eg_auth *a, bool keys_or_revocations)
{
    for (int i = 0; i < CACHE_SLOTS; i++) {
        verified_free(a->cache[i]);
        a->cache[i] = NULL;
    }
    a->generation++;
    if (keys_or_revocations) {
        __atomic_add_fetch(&a->version, 1, __ATOMIC_RELEASE);
    }
}

static char *copy_text(const char *s, bool *ok)
{
    char *c = s != NULL ? strdup(s) : NULL;
    *ok = *ok && (s == NULL || c != NULL);
    return c;
}

static char **copy_list(char **list, bool *ok)
{
    size_t n = 0;
    if (list == NULL) {
        return NULL;
    }
    while (list[n] != NULL) {
        n++;
    }
    char **c = calloc(n + 1, sizeof *c);
    if (c == NULL) {
        *ok = false;
        return NULL;
    }
    for (size_t i = 0; i < n && *ok; i++) {
        c[i] = copy_text(list[i], ok);
    }
    return c;
}

/* A deep copy; false without memory, then nothing is left in *to. */
static bool claims_copy(const struct eg_claims *from, struct eg_claims *to)
{
    bool ok = true;
    *to = *from;
    to->sub = copy_text(from->sub, &ok);
    to->jti = copy_text(from->jti, &ok);
    to->kid = copy_text(from->kid, &ok);
    to->agents = copy_list(from->agents, &ok);
    to->sessions = copy_list(from->sessions, &ok);
    to->aud = copy_list(from->aud, &ok);
    if (!ok) {
        eg_claims_free(to);
        memset(to, 0, sizeof *to);
    }
    return ok;
}

enum eg_err eg_auth_new(struct eg_keyring *ring, struct eg_settings *settings, struct eg_auth **out)
{
    struct eg_auth *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return EG_ENOMEM;
    }
    auth_init(&a->lock);
    auth_unshared(&a->lock);
    a->ring = eg_keyring_ref(ring);
    a->version = 1;
    a->sweep_at = SWEEP_FIRST;
    a->max_lifetime_s = settings->max_token_lifetime_ms / 1000;
    a->audience = strdup(settings->audience != NULL ? settings->audience : "");
    if (a->audience == NULL) {
        eg_auth_free(a);
        return EG_ENOMEM;
    }
    *out = a;
    return EG_OK;
}

void eg_auth_free(struct eg_auth *a)
{
    if (a == NULL) {
        return;
    }
    auth_unshared(&a->lock);
    changed(a, false);
    struct revocation *r = a->revoked, *next = NULL;
    HASH_CLEAR(hh, a->revoked);
    for (; r != NULL; r = next) {
        next = r->hh.next;
        free(r);
    }
    eg_keyring_unref(a->ring);
    free(a->audience);
    auth_destroy(&a->lock);
    free(a);
}

void eg_auth_keyring(struct eg_auth *a, struct eg_keyring *ring)
{
    struct eg_keyring *old = NULL;
    auth_write(&a->lock);
    old = a->ring;
    a->ring = eg_keyring_ref(ring);
    changed(a, true);
    auth_end_write(&a->lock);
    eg_keyring_unref(old);
}

void eg_auth_settings(struct eg_auth *a, struct eg_settings *settings)
{
    char *audience = strdup(settings->audience != NULL ? settings->audience : "");
    auth_write(&a->lock);
    if (audience != NULL) { /* without memory the old audience stays required */
        free(a->audience);
        a->audience = audience;
    }
    a->max_lifetime_s = settings->max_token_lifetime_ms / 1000;
    changed(a, false);
    auth_end_write(&a->lock);
}

struct eg_keyring *eg_auth_ring(struct eg_auth *a)
{
    auth_read(&a->lock);
    struct eg_keyring *ring = eg_keyring_ref(a->ring);
    auth_end_read(&a->lock);
    return ring;
}

uint64_t eg_auth_version(struct eg_auth *a)
{
    return __atomic_load_n(&a->version, __ATOMIC_ACQUIRE);
}

/* Forgets revocations that ran out, now and then. */
EG_REQUIRES(auth_rwlock) static void sweep(struct eg_auth *a, int64_t wall_ms)
{
    struct revocation *r = a->revoked, *next = NULL;
    if (HASH_COUNT(a->revoked) < a->sweep_at) {
        return;
    }
    /* NOLINTBEGIN(clang-analyzer-unix.Malloc): the analyzer loses the links of the table */
    for (; r != NULL; r = next) {
        next = r->hh.next;
        if (r->until_ms > 0 && r->until_ms < wall_ms) {
            HASH_DEL(a->revoked, r);
            free(r);
        }
    }
    a->sweep_at = 2 * HASH_COUNT(a->revoked) + SWEEP_FIRST;
    /* NOLINTEND(clang-analyzer-unix.Malloc) */
}

/* The row of what, made with this end when there is none; NULL without memory. */
EG_REQUIRES(auth_rwlock)
static struct revocation *obtain(struct eg_auth *a, const char *what, int64_t until_ms)
{
    struct revocation *r = NULL;
    const size_t n = strlen(what);
    HASH_FIND(hh, a->revoked, what, n, r);
    if (r != NULL || (r = calloc(1, sizeof *r + n + 1)) == NULL) {
        return r;
    }
    memcpy(r->what, what, n + 1);
    r->until_ms = until_ms;
    HASH_ADD_KEYPTR(hh, a->revoked, r->what, n, r);
    if (r->hh.tbl == NULL) {
        free(r);
        r = NULL;
    }
    return r;
}

void eg_auth_revoked(struct eg_auth *a, const char *what, int64_t until_ms)
{
    auth_write(&a->lock);
    sweep(a, eg_clock_now().wall_ms);
    struct revocation *r = obtain(a, what, until_ms);
    if (r == NULL) {
        a->lost = true;
    } else if (r->until_ms > 0 && (until_ms <= 0 || until_ms > r->until_ms)) {
        r->until_ms = until_ms;
    }
    changed(a, true);
    auth_end_write(&a->lock);
    if (r == NULL) {
        eg_log(EG_LOG_ERROR, "auth.memory", "text=a revocation was lost, no token is accepted");
    }
}

/* Whether kind ("jti:" or "sub:") with value is revoked. */
EG_REQUIRES_SHARED(auth_rwlock)
static bool is_revoked(const struct eg_auth *a, const char *kind, const char *value,
                       int64_t wall_ms)
{
    char what[4 + EG_TOKEN_BYTES_MAX];
    struct revocation *r = NULL;
    const size_t n = value != NULL ? strlen(value) : 0;
    if (a->lost || n == 0 || n > EG_TOKEN_BYTES_MAX || a->revoked == NULL) {
        return a->lost;
    }
    memcpy(what, kind, 4);
    memcpy(what + 4, value, n);
    HASH_FIND(hh, a->revoked, what, n + 4, r);
    return r != NULL && (r->until_ms <= 0 || wall_ms <= r->until_ms);
}

static struct verified **slot_of(struct eg_auth *a, const uint8_t key[KEY_BYTES])
{
    return &a->cache[((unsigned)key[0] << 8 | key[1]) % CACHE_SLOTS];
}

/* Whether what depends on the time is beyond doubt, so that no rule need be asked again. */
static bool surely_in_time(const struct eg_claims *c, int64_t now_s)
{
    return c->iat_s <= now_s && c->nbf_s <= now_s && now_s < c->exp_s;
}

/* Whether the token with this key was verified before; *out is a copy of its claims. A lock held.
 */
EG_REQUIRES_SHARED(auth_rwlock)
static bool cached(struct eg_auth *a, const uint8_t key[KEY_BYTES], int64_t wall_ms,
                   struct eg_claims *out)
{
    const struct verified *v = *slot_of(a, key);
    return v != NULL && memcmp(v->key, key, KEY_BYTES) == 0 &&
           surely_in_time(&v->claims, wall_ms / 1000) && claims_copy(&v->claims, out);
}

/* Remembers claims of the token with this key, unless something changed since generation. */
static void remember(struct eg_auth *a, const uint8_t key[KEY_BYTES],
                     const struct eg_claims *claims, uint64_t generation)
{
    struct verified *v = calloc(1, sizeof *v);
    if (v == NULL || !claims_copy(claims, &v->claims)) {
        free(v);
        return;
    }
    memcpy(v->key, key, KEY_BYTES);
    auth_write(&a->lock);
    if (a->generation == generation) {
        struct verified **slot = slot_of(a, key);
        struct verified *old = *slot;
        *slot = v;
        v = old;
    }
    auth_end_write(&a->lock);
    verified_free(v);
}

/* The slow way: verifies with the ring and the rules of this moment. */
static enum eg_err verify(struct eg_auth *a, struct eg_slice token, int64_t wall_ms,
                          struct eg_claims *out, uint64_t *generation, const char **cause)
{
    enum eg_err err = EG_OK;
    auth_read(&a->lock);
    struct eg_keyring *ring = eg_keyring_ref(a->ring);
    char *audience = strdup(a->audience);
    const struct eg_token_rules rules = {audience, a->max_lifetime_s, wall_ms / 1000};
    *generation = a->generation;
    auth_end_read(&a->lock);
    if (audience == NULL) {
        *cause = "out of memory";
        err = EG_ENOMEM;
    } else {
        err = eg_token_verify(ring, token, &rules, out, cause);
    }
    free(audience);
    eg_keyring_unref(ring);
    return err;
}

enum eg_err eg_auth_check(struct eg_auth *a, struct eg_slice token, int64_t wall_ms,
                          struct eg_claims *out, const char **cause)
{
    static const uint8_t no_prefix[EG_CHAIN_BYTES];
    uint8_t key[KEY_BYTES];
    uint64_t generation = 0;
    bool hit = false;
    enum eg_err err = EG_OK;
    const char *why = NULL;

    memset(out, 0, sizeof *out);
    if (token.n == 0 || token.n > EG_TOKEN_BYTES_MAX) {
        why = token.n == 0 ? "empty token" : "token too long";
        err = EG_EDENIED;
        goto out;
    }
    eg_chain_next(no_prefix, token, key);
    auth_read(&a->lock);
    hit = cached(a, key, wall_ms, out);
    auth_end_read(&a->lock);
    if (!hit) {
        err = verify(a, token, wall_ms, out, &generation, &why);
        if (err != EG_OK) {
            memset(out, 0, sizeof *out);
            goto out;
        }
    }
    auth_read(&a->lock);
    if (is_revoked(a, "jti:", out->jti, wall_ms)) {
        why = "token revoked";
    } else if (is_revoked(a, "sub:", out->sub, wall_ms)) {
        why = "subject revoked";
    }
    auth_end_read(&a->lock);
    if (why != NULL) {
        err = EG_EDENIED;
        eg_claims_free(out);
        memset(out, 0, sizeof *out);
    } else if (!hit && token.n <= CACHE_TOKEN_BYTES) {
        remember(a, key, out, generation);
    }
out:
    if (cause != NULL && err != EG_OK) {
        *cause = why != NULL ? why : eg_err_text(err);
    }
    return err;
}

/* Whether the ring still has kid; a token without one stands on the only key. */
EG_REQUIRES_SHARED(auth_rwlock) static bool has_key(const struct eg_auth *a, const char *kid)
{
    const int n = eg_keyring_count(a->ring);
    if (kid == NULL || *kid == '\0') {
        return n == 1;
    }
    for (int i = 0; i < n; i++) {
        if (strcmp(eg_keyring_at(a->ring, i)->kid, kid) == 0) {
            return true;
        }
    }
    return false;
}

bool eg_auth_stands(struct eg_auth *a, const char *sub, const char *jti, const char *kid)
{
    const int64_t wall_ms = eg_clock_now().wall_ms;
    auth_read(&a->lock);
    const bool stands = has_key(a, kid) && !is_revoked(a, "jti:", jti, wall_ms) &&
                        !is_revoked(a, "sub:", sub, wall_ms);
    auth_end_read(&a->lock);
    return stands;
}
