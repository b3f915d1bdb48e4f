/* test_auth.c - verified tokens: the cache, and what empties it. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "edge/auth.h"

#define NOW_S 1800000000LL

static int64_t wall_ms;
static char dir[] = "/tmp/ebbgate-auth-XXXXXX";

static struct eg_now fake_now(void)
{
    return (struct eg_now){wall_ms, wall_ms};
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void begin(void)
{
    wall_ms = NOW_S * 1000;
    eg_clock_replace(fake_now);
    cr_assert_not_null(mkdtemp(dir));
}

static void end(void)
{
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(auth, .init = begin, .fini = end);

/* Makes one more key and loads the ring. */
static struct eg_keyring *ring_with_new_key(char kid[64])
{
    char path[512], why[256];
    struct eg_keyring *ring = NULL;
    wall_ms += 1000;
    cr_assert_eq(eg_key_generate(dir, wall_ms, kid, path, sizeof path), EG_OK);
    cr_assert_eq(eg_keyring_load(dir, NULL, &ring, why, sizeof why), EG_OK, "%s", why);
    return ring;
}

static struct eg_slice mint(const struct eg_keyring *ring, const char *sub, const char *jti,
                            int64_t lifetime_s)
{
    static struct eg_buf token[16];
    static int next;
    struct eg_buf *out = &token[next++ % 16];
    char *agents[] = {"a", "b", NULL}, *aud[] = {"here", NULL};
    const struct eg_claims claims = {.sub = (char *)sub,
                                     .jti = (char *)jti,
                                     .iat_s = wall_ms / 1000,
                                     .exp_s = wall_ms / 1000 + lifetime_s,
                                     .scopes = EG_SCOPE_READ,
                                     .agents = agents,
                                     .aud = aud};
    eg_buf_reset(out);
    cr_assert_eq(eg_token_mint(ring, &claims, out), EG_OK);
    return (struct eg_slice){out->p, out->n};
}

static struct eg_auth *make(struct eg_keyring *ring, const char *audience)
{
    struct eg_settings s = {.audience = (char *)audience, .max_token_lifetime_ms = 86400000};
    struct eg_auth *a = NULL;
    cr_assert_eq(eg_auth_new(ring, &s, &a), EG_OK);
    return a;
}

/* Checks token; the cause of the refusal, or NULL. */
static const char *check(struct eg_auth *a, struct eg_slice token)
{
    struct eg_claims claims;
    const char *cause = NULL;
    const enum eg_err err = eg_auth_check(a, token, wall_ms, &claims, &cause);
    if (err == EG_OK) {
        cr_expect_null(cause);
        cr_expect_eq(claims.scopes, EG_SCOPE_READ);
        cr_expect_str_eq(claims.agents[1], "b");
        cr_expect_null(claims.agents[2]);
        cr_expect_null(claims.sessions);
        eg_claims_free(&claims);
        return NULL;
    }
    cr_expect_eq(err, EG_EDENIED);
    cr_expect_not_null(cause, "a refusal has a cause");
    cr_expect_null(claims.sub);
    return cause != NULL ? cause : "";
}

Test(auth, accepts_again_and_again)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    const struct eg_slice token = mint(ring, "ann", "t1", 3600);
    for (int i = 0; i < 3; i++) {
        cr_expect_null(check(a, token));
    }
    cr_expect(eg_auth_stands(a, "ann", "t1", kid));
    cr_expect(eg_auth_stands(a, "ann", "t1", ""), "there is one key only");
    cr_expect_not(eg_auth_stands(a, "ann", "t1", "other"));
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

Test(auth, refuses_what_is_none)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    const struct eg_slice token = mint(ring, "ann", "t1", 3600);
    char *bent = eg_slice_dup(token);
    cr_expect_null(check(a, token));
    for (size_t i = 0; i < token.n; i += 7) {
        const char was = bent[i];
        bent[i] = was == 'A' ? 'B' : 'A';
        cr_expect_not_null(check(a, (struct eg_slice){bent, token.n}), "byte %zu", i);
        bent[i] = was;
    }
    cr_expect_not_null(check(a, (struct eg_slice){bent, token.n - 1}));
    cr_expect_not_null(check(a, EG_LIT("")));
    char *huge = malloc(EG_TOKEN_BYTES_MAX + 1);
    memset(huge, 'a', EG_TOKEN_BYTES_MAX + 1);
    cr_expect_not_null(check(a, (struct eg_slice){huge, EG_TOKEN_BYTES_MAX + 1}));
    cr_expect_null(check(a, token), "the good one still is");
    free(huge);
    free(bent);
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

Test(auth, time_is_asked_on_every_use)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    const struct eg_slice token = mint(ring, "ann", "t1", 100);
    const int64_t made = wall_ms;
    cr_expect_null(check(a, token));
    wall_ms = made + (100 + EG_LEEWAY_S - 1) * 1000;
    cr_expect_null(check(a, token), "within the leeway");
    wall_ms = made + (100 + EG_LEEWAY_S + 1) * 1000;
    cr_expect_not_null(check(a, token), "expired although it is in the cache");
    wall_ms = made - (EG_LEEWAY_S + 5) * 1000;
    cr_expect_not_null(check(a, token), "issued in the future, after the clock went back");
    wall_ms = made + 50000;
    cr_expect_null(check(a, token));
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

Test(auth, a_revocation_works_at_once_and_runs_out)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    const struct eg_slice one = mint(ring, "ann", "t1", 3600), two = mint(ring, "ann", "t2", 3600),
                          bob = mint(ring, "bob", "t3", 3600);
    cr_expect_null(check(a, one));
    const uint64_t version = eg_auth_version(a);
    eg_auth_revoked(a, "jti:t1", wall_ms + 1000);
    cr_expect_gt(eg_auth_version(a), version);
    cr_expect_str_eq(check(a, one), "token revoked");
    cr_expect_not(eg_auth_stands(a, "ann", "t1", kid));
    cr_expect(eg_auth_stands(a, "ann", "t2", kid));
    cr_expect_null(check(a, two));
    eg_auth_revoked(a, "sub:ann", 0);
    cr_expect_str_eq(check(a, two), "subject revoked");
    cr_expect_not(eg_auth_stands(a, "ann", "t2", kid));
    cr_expect_null(check(a, bob));
    wall_ms += 2000;
    cr_expect_str_eq(check(a, one), "subject revoked", "the first ran out, this one never does");
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

/* As it is stored: otherwise it would end sooner or later by whether the gateway was restarted. */
Test(auth, of_two_revocations_of_one_token_the_later_end_holds)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    eg_auth_revoked(a, "jti:t1", wall_ms + 1000);
    eg_auth_revoked(a, "jti:t1", wall_ms + 3000);
    eg_auth_revoked(a, "jti:t1", wall_ms + 2000);
    eg_auth_revoked(a, "jti:t2", 0);
    eg_auth_revoked(a, "jti:t2", wall_ms + 2000);
    wall_ms += 2500;
    cr_expect_not(eg_auth_stands(a, "ann", "t1", kid));
    wall_ms += 1000;
    cr_expect(eg_auth_stands(a, "ann", "t1", kid));
    cr_expect_not(eg_auth_stands(a, "ann", "t2", kid), "for ever");
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

Test(auth, thousands_of_revocations)
{
    char kid[64], what[32], jti[32];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "");
    eg_auth_revoked(a, "sub:eve", 0);
    for (int i = 0; i < 5000; i++) { /* half of them have run out already */
        snprintf(what, sizeof what, "jti:r%d", i);
        eg_auth_revoked(a, what, i % 2 == 0 ? wall_ms + 1000000 : wall_ms - 1000);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(jti, sizeof jti, "r%d", i);
        cr_assert_eq(eg_auth_stands(a, "ann", jti, kid), i % 2 != 0, "%s", jti);
    }
    cr_expect_not(eg_auth_stands(a, "eve", "t1", kid), "one for ever is not swept away");
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

Test(auth, a_withdrawn_key_takes_its_tokens_along)
{
    char first[64], second[64], why[256];
    struct eg_keyring *one = ring_with_new_key(first);
    struct eg_auth *a = make(one, "");
    const struct eg_slice old = mint(one, "ann", "t1", 3600);
    cr_expect_null(check(a, old));
    struct eg_keyring *both = ring_with_new_key(second), *rest = NULL;
    const struct eg_slice new = mint(both, "ann", "t2", 3600);
    cr_expect_not_null(check(a, new), "the ring does not have that key yet");
    const uint64_t version = eg_auth_version(a);
    eg_auth_keyring(a, both);
    cr_expect_gt(eg_auth_version(a), version);
    cr_expect_not(eg_auth_stands(a, "ann", "t1", ""), "a token without kid names neither");
    cr_expect_null(check(a, old));
    cr_expect_null(check(a, new));
    cr_assert_eq(eg_key_delete(dir, first), EG_OK);
    cr_assert_eq(eg_keyring_load(dir, NULL, &rest, why, sizeof why), EG_OK);
    eg_auth_keyring(a, rest);
    cr_expect_not_null(check(a, old), "in the cache or not");
    cr_expect_not(eg_auth_stands(a, "ann", "t1", first));
    cr_expect_null(check(a, new));
    cr_expect(eg_auth_stands(a, "ann", "t2", second));
    struct eg_keyring *got = eg_auth_ring(a);
    cr_expect_eq(got, rest);
    eg_keyring_unref(got);
    eg_auth_free(a);
    eg_keyring_unref(one);
    eg_keyring_unref(both);
    eg_keyring_unref(rest);
}

/* Calls the real one, then what the test wants to happen before the result is remembered. */
enum eg_err __real_eg_token_verify(const struct eg_keyring *ring, struct eg_slice token,
                                   const struct eg_token_rules *rules, struct eg_claims *out,
                                   const char **cause);
enum eg_err __wrap_eg_token_verify(const struct eg_keyring *ring, struct eg_slice token,
                                   const struct eg_token_rules *rules, struct eg_claims *out,
                                   const char **cause);
static struct eg_auth *meanwhile_auth;
static struct eg_keyring *meanwhile_ring;

enum eg_err __wrap_eg_token_verify(const struct eg_keyring *ring, struct eg_slice token,
                                   const struct eg_token_rules *rules, struct eg_claims *out,
                                   const char **cause)
{
    const enum eg_err err = __real_eg_token_verify(ring, token, rules, out, cause);
    if (meanwhile_auth != NULL) {
        eg_auth_keyring(meanwhile_auth, meanwhile_ring);
        meanwhile_auth = NULL;
    }
    return err;
}

Test(auth, what_was_verified_with_a_key_withdrawn_meanwhile_is_not_remembered)
{
    char kid[64], why[256];
    struct eg_keyring *old = ring_with_new_key(kid);
    struct eg_auth *a = make(old, "");
    const struct eg_slice token = mint(old, "ann", "t1", 3600);
    cr_assert_eq(eg_key_delete(dir, kid), EG_OK);
    meanwhile_ring = ring_with_new_key(why);
    meanwhile_auth = a;
    (void)check(a, token); /* with the key or without it: both are right at this moment */
    cr_expect_null(meanwhile_auth);
    cr_expect_not_null(check(a, token), "that key is gone");
    eg_auth_free(a);
    eg_keyring_unref(old);
    eg_keyring_unref(meanwhile_ring);
}

Test(auth, new_rules_hold_for_known_tokens)
{
    char kid[64];
    struct eg_keyring *ring = ring_with_new_key(kid);
    struct eg_auth *a = make(ring, "here");
    const struct eg_slice token = mint(ring, "ann", "t1", 3600);
    cr_expect_null(check(a, token));
    struct eg_settings s = {.audience = "elsewhere", .max_token_lifetime_ms = 86400000};
    eg_auth_settings(a, &s);
    cr_expect_not_null(check(a, token));
    s.audience = NULL;
    eg_auth_settings(a, &s);
    cr_expect_null(check(a, token));
    s.max_token_lifetime_ms = 60000;
    eg_auth_settings(a, &s);
    cr_expect_not_null(check(a, token));
    eg_auth_free(a);
    eg_keyring_unref(ring);
}

struct contest {
    struct eg_auth *auth;
    struct eg_keyring *ring;
    struct eg_slice token[8];
    int wrong;
};

static void *check_many(void *arg)
{
    struct contest *c = arg;
    for (int i = 0; i < 400; i++) {
        struct eg_claims claims;
        const char *cause = NULL;
        if (eg_auth_check(c->auth, c->token[i % 8], wall_ms, &claims, &cause) != EG_OK ||
            strcmp(claims.sub, "ann") != 0) {
            __atomic_add_fetch(&c->wrong, 1, __ATOMIC_RELAXED);
            continue;
        }
        eg_claims_free(&claims);
    }
    return NULL;
}

Test(auth, many_threads)
{
    char kid[64], jti[8];
    pthread_t id[4];
    struct contest c = {.ring = ring_with_new_key(kid)};
    c.auth = make(c.ring, "");
    for (int i = 0; i < 8; i++) {
        snprintf(jti, sizeof jti, "t%d", i);
        c.token[i] = mint(c.ring, "ann", jti, 3600);
    }
    for (int i = 0; i < 4; i++) {
        pthread_create(&id[i], NULL, check_many, &c);
    }
    for (int i = 0; i < 50; i++) {
        eg_auth_keyring(c.auth, c.ring);
        eg_auth_revoked(c.auth, "jti:nobody", 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(id[i], NULL);
    }
    cr_expect_eq(c.wrong, 0);
    eg_auth_free(c.auth);
    eg_keyring_unref(c.ring);
}
