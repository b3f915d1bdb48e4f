/*
 * Tokens and keys: RFC 8037's vectors, every bent token, key files.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "wire/token.h"
#include "wire/token_text.h"

/* RFC 8037 A.1 and A.2. */
#define RFC_D "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
#define RFC_X "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define RFC_KID "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" /* A.3 */
#define PRIVATE_JWK "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\"}"
#define PUBLIC_JWK "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" RFC_X "\"}"

#define NOW 1800000000
#define CLAIMS "\"sub\":\"ann\",\"jti\":\"j1\",\"exp\":1800000600,\"iat\":1799999900"

static char dir[64];

static void make_dir(void)
{
    eg_sodium_ready();
    strcpy(dir, "/tmp/ebbgate-keys-XXXXXX");
    cr_assert(mkdtemp(dir));
}

static void remove_dir(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(token, .init = make_dir, .fini = remove_dir);

static void put_file(const char *name, const char *text, mode_t mode)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
    cr_assert_eq(chmod(path, mode), 0);
}

static struct eg_keyring *load(void)
{
    struct eg_keyring *r;
    char why[300] = "";

    cr_assert_eq(eg_keyring_load(dir, NULL, &r, why, sizeof(why)), EG_OK, "%s", why);
    return r;
}

/* A ring with the key of RFC 8037. */
static struct eg_keyring *rfc_ring(void)
{
    put_file("1.key", PRIVATE_JWK, 0600);
    return load();
}

/* Signs header and payload, whatever they hold, with the key of RFC 8037. */
static void sign(const char *header, const char *payload, struct eg_buf *out)
{
    uint8_t seed[32], pk[32], sk[64], signature[64];
    size_t n;

    cr_assert(eg_b64_decode(EG_LIT(RFC_D), seed, sizeof(seed), &n));
    crypto_sign_seed_keypair(pk, sk, seed);
    out->n = 0;
    eg_b64_encode(out, header, strlen(header));
    eg_buf_char(out, '.');
    eg_b64_encode(out, payload, strlen(payload));
    crypto_sign_detached(signature, NULL, (unsigned char *)out->p, out->n, sk);
    eg_buf_char(out, '.');
    eg_b64_encode(out, signature, sizeof(signature));
}

static const struct eg_token_rules open_rules = {.now_s = NOW, .max_lifetime_s = 86400};

static void expect_denied(const struct eg_keyring *r, struct eg_slice token, const char *why)
{
    struct eg_claims c;
    const char *cause = "";

    cr_expect_eq(eg_token_verify(r, token, &open_rules, &c, &cause), EG_EDENIED, "%s: %.*s", why,
                 (int)token.n, token.p);
    cr_expect_str_eq(cause, why, "%.*s", (int)token.n, token.p);
    cr_expect(!c.sub && !c.jti && !c.kid && !c.agents && !c.sessions && !c.aud);
    eg_claims_free(&c);
}

static void expect_signed(const struct eg_keyring *r, const char *header, const char *payload,
                          const char *why)
{
    struct eg_buf t = {0};
    struct eg_claims c;
    const char *cause = "";

    sign(header, payload, &t);
    if (why) {
        expect_denied(r, (struct eg_slice){t.p, t.n}, why);
    } else {
        cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &open_rules, &c, &cause),
                     EG_OK, "%s %s: %s", header, payload, cause);
        eg_claims_free(&c);
    }
    eg_buf_free(&t);
}

Test(token, rfc8037_vectors)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_buf b = {0};

    cr_assert_eq(eg_keyring_count(r), 1);
    cr_assert_str_eq(eg_keyring_at(r, 0)->kid, RFC_KID);
    cr_assert(eg_keyring_at(r, 0)->signing);
    cr_assert_null(eg_keyring_at(r, 1));
    cr_assert_null(eg_keyring_at(r, -1));
    eg_keyring_jwks(r, &b);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n},
                          "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" RFC_KID
                          "\",\"x\":\"" RFC_X "\",\"use\":\"sig\",\"alg\":\"EdDSA\"}]}"));
    /* A.4 and A.5: its signature holds, but what it signs are no claims. */
    expect_denied(r,
                  EG_LIT("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
                         "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7"
                         "sVvpAr_MuM0KAg"),
                  "the claims are not a strict JSON object");
    /* Our signature over the same text is the same (A.4). */
    sign("{\"alg\":\"EdDSA\"}", "Example of Ed25519 signing", &b);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n},
                          "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
                          "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g"
                          "7sVvpAr_MuM0KAg"));
    eg_buf_free(&b);
    eg_keyring_unref(r);
}

Test(token, minted_tokens_verify)
{
    struct eg_keyring *r = rfc_ring();
    char *agents[] = {"support", "sales", NULL}, *all[] = {"*", NULL}, *aud[] = {"here", NULL};
    struct eg_claims in = {.sub = "ann \"q\" \xc3\xa9",
                           .iat_s = NOW,
                           .nbf_s = NOW - 5,
                           .exp_s = NOW + 600,
                           .scopes = EG_SCOPE_READ | EG_SCOPE_ADMIN_READ,
                           .agents = agents,
                           .sessions = all,
                           .aud = aud};
    struct eg_token_rules rules = {.audience = "here", .now_s = NOW, .max_lifetime_s = 600};
    struct eg_claims out;
    struct eg_buf t = {0};
    const char *cause;

    eg_buf_str(&t, "Bearer ");
    cr_assert_eq(eg_token_mint(r, &in, &t), EG_OK);
    cr_assert(strncmp(t.p, "Bearer ", 7) == 0);
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p + 7, t.n - 7}, &rules, &out, &cause),
                 EG_OK);
    cr_assert_null(cause);
    cr_assert_str_eq(out.sub, in.sub);
    cr_assert_eq(strlen(out.jti), 36);
    cr_assert_str_eq(out.kid, RFC_KID);
    cr_assert_eq(out.iat_s, in.iat_s);
    cr_assert_eq(out.nbf_s, in.nbf_s);
    cr_assert_eq(out.exp_s, in.exp_s);
    cr_assert_eq(out.scopes, in.scopes);
    cr_assert(!strcmp(out.agents[0], "support") && !strcmp(out.agents[1], "sales") &&
              !out.agents[2]);
    cr_assert(!strcmp(out.sessions[0], "*") && !out.sessions[1]);
    cr_assert(!strcmp(out.aud[0], "here") && !out.aud[1]);
    eg_claims_free(&out);
    cr_assert_null(out.sub);
    rules.audience = "there";
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p + 7, t.n - 7}, &rules, &out, &cause),
                 EG_EDENIED);
    cr_assert_str_eq(cause, "made for another audience");
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, minting_wants_sub_and_exp_and_a_private_key)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_claims c = {.sub = "a", .exp_s = NOW};
    struct eg_buf t = {0};
    char sub[130], **many = calloc(1000, sizeof(*many));

    cr_assert_eq(eg_token_mint(r, &c, &t), EG_OK);
    t.n = 0;
    c.exp_s = 0;
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.exp_s = NOW;
    c.sub = NULL;
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.sub = "";
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.sub = "\xff";
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    memset(sub, 'a', 129);
    sub[129] = '\0';
    c.sub = sub;
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.sub = "a";
    c.jti = "";
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.jti = sub;
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID);
    c.jti = NULL;
    for (int i = 0; i < 999; i++)
        many[i] = "an agent id";
    c.agents = many;
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_EINVALID); /* longer than a token may be */
    cr_assert_eq(t.n, 0);
    free(many);
    c.agents = NULL;
    eg_keyring_unref(r);
    remove_dir();
    cr_assert_eq(mkdir(dir, 0700), 0);
    put_file("1.pub", PUBLIC_JWK, 0644);
    r = load();
    cr_assert_not(eg_keyring_at(r, 0)->signing);
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_ENOTFOUND);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

#define ALG "{\"alg\":\"EdDSA\"}"

Test(token, bent_headers)
{
    static const struct {
        const char *header, *why;
    } rows[] = {
        {ALG, NULL},
        {"{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}", NULL},
        {"{\"alg\":\"EdDSA\",\"typ\":\"jwt\",\"kid\":\"" RFC_KID "\"}", NULL},
        {"{\"alg\":\"EdDSA\",\"x\":{\"y\":[1]}}", NULL},
        {"{\"alg\":\"none\"}", "alg is not EdDSA"},
        {"{\"alg\":\"None\"}", "alg is not EdDSA"},
        {"{\"alg\":\"HS256\"}", "alg is not EdDSA"},
        {"{\"alg\":\"ES256\"}", "alg is not EdDSA"},
        {"{\"alg\":\"RS256\"}", "alg is not EdDSA"},
        {"{\"alg\":\"Ed25519\"}", "alg is not EdDSA"},
        {"{\"alg\":\"Ed448\"}", "alg is not EdDSA"},
        {"{\"alg\":\"eddsa\"}", "alg is not EdDSA"},
        {"{\"alg\":\"EdDSA \"}", "alg is not EdDSA"},
        {"{\"alg\":[\"EdDSA\"]}", "alg is not EdDSA"},
        {"{\"alg\":null}", "alg is not EdDSA"},
        {"{\"Alg\":\"EdDSA\"}", "alg is not EdDSA"},
        {"{}", "alg is not EdDSA"},
        {"{\"alg\":\"\\u0045dDSA\"}", NULL},
        {"{\"alg\":\"EdDSA\",\"kid\":"
         "\"0123456789012345678901234567890123456789012345678901234567890"
         "123456789\"}",
         "unknown key (kid)"},
        {"{\"alg\":\"EdDSA\",\"typ\":\"JWE\"}", "typ is not JWT"},
        {"{\"alg\":\"EdDSA\",\"typ\":7}", "typ is not JWT"},
        {"{\"alg\":\"EdDSA\",\"typ\":null}", "typ is not JWT"},
        {"{\"alg\":\"EdDSA\",\"crit\":[\"exp\"]}", "the header has critical extensions (crit)"},
        {"{\"alg\":\"EdDSA\",\"crit\":[]}", "the header has critical extensions (crit)"},
        {"{\"alg\":\"EdDSA\",\"kid\":\"other\"}", "unknown key (kid)"},
        {"{\"alg\":\"EdDSA\",\"kid\":\"\"}", "unknown key (kid)"},
        {"{\"alg\":\"EdDSA\",\"kid\":1}", "unknown key (kid)"},
        {"{\"alg\":\"EdDSA\",\"kid\":null}", "unknown key (kid)"},
        {"{\"alg\":\"none\",\"alg\":\"EdDSA\"}", "the header is not a strict JSON object"},
        {"[\"EdDSA\"]", "the header is not a strict JSON object"},
        {"{\"alg\":\"EdDSA\"} ", NULL},
        {"{\"alg\":\"EdDSA\"}x", "the header is not a strict JSON object"},
        {"\"EdDSA\"", "the header is not a strict JSON object"},
    };
    struct eg_keyring *r = rfc_ring();

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        expect_signed(r, rows[i].header, "{" CLAIMS "}", rows[i].why);
    eg_keyring_unref(r);
}

Test(token, bent_claims)
{
    static const struct {
        const char *claims, *why;
    } rows[] = {
        {"{" CLAIMS "}", NULL},
        {"{" CLAIMS ",\"scope\":\"read unknown  write \",\"x\":1}", NULL},
        {"{" CLAIMS ",\"scope\":[\"read\"]}", "scope is not a string"},
        {"{" CLAIMS ",\"agents\":[]}", NULL},
        {"{" CLAIMS ",\"agents\":\"*\"}", "agents is not a list of strings"},
        {"{" CLAIMS ",\"agents\":null}", "agents is not a list of strings"},
        {"{" CLAIMS ",\"agents\":[\"a\",1]}", "agents is not a list of strings"},
        {"{" CLAIMS ",\"sessions\":{}}", "sessions is not a list of strings"},
        {"{" CLAIMS ",\"aud\":7}", "aud is not a string or a list of strings"},
        {"{" CLAIMS ",\"aud\":\"anything\"}", NULL},
        {"{" CLAIMS ",\"sub\":\"eve\"}", "the claims are not a strict JSON object"},
        {"{" CLAIMS ",\"su\\u0062\":\"eve\"}", "the claims are not a strict JSON object"},
        {"[]", "the claims are not a strict JSON object"},
        {"", NULL}, /* not a token at all: see below */
        {"{\"jti\":\"j\",\"exp\":1800000600}", "sub is missing or not 1 to 128 bytes"},
        {"{\"sub\":\"\",\"jti\":\"j\",\"exp\":1800000600}", "sub is missing or not 1 to 128 bytes"},
        {"{\"sub\":"
         "\"0123456789012345678901234567890123456789012345678901234567890123456789012345678"
         "90123456789012345678901234567890123456789012345678\",\"jti\":\"j\",\"exp\":1800000600}",
         "sub is missing or not 1 to 128 bytes"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":0.5}", "exp is not a time"},
        {"{\"sub\":7,\"jti\":\"j\",\"exp\":1800000600}", "sub is missing or not 1 to 128 bytes"},
        {"{\"sub\":\"a\",\"exp\":1800000600}", "jti is missing or not 1 to 128 bytes"},
        {"{\"sub\":\"a\",\"jti\":1,\"exp\":1800000600}", "jti is missing or not 1 to 128 bytes"},
        {"{\"sub\":\"a\",\"jti\":\"j\"}", "exp is missing"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":null}", "exp is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":\"1800000600\"}", "exp is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":0}", "exp is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":-5}", "exp is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1e300}", "exp is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600.75}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":18000006e2}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1799999941}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1799999940}", "expired"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"nbf\":1800000060}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"nbf\":1800000061}",
         "not valid yet (nbf)"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"nbf\":\"x\"}", "nbf is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"iat\":1800000060}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"iat\":1800000061}",
         "issued in the future (iat)"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"iat\":true}", "iat is not a time"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000000,\"iat\":1800000010}",
         "expires before it was issued"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"iat\":1799914200}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600,\"iat\":1799914199}",
         "lifetime is longer than allowed"},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800086400}", NULL},
        {"{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800086401}", "lifetime is longer than allowed"},
    };
    struct eg_keyring *r = rfc_ring();

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (*rows[i].claims)
            expect_signed(r, ALG, rows[i].claims, rows[i].why);
        else
            expect_signed(r, ALG, "", "not three parts");
    eg_keyring_unref(r);
}

Test(token, audience)
{
    struct eg_keyring *r = rfc_ring();
    static const struct {
        const char *aud;
        bool good;
    } rows[] = {
        {"\"gate\"", true}, {"[\"x\",\"gate\"]", true}, {"[\"x\"]", false}, {"\"Gate\"", false},
        {"[]", false},      {"\"gate2\"", false},       {"[\"*\"]", false}};
    struct eg_token_rules rules = {.audience = "gate", .now_s = NOW, .max_lifetime_s = 86400};
    struct eg_buf t = {0};
    struct eg_claims c;
    const char *cause;
    char claims[200];

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        snprintf(claims, sizeof(claims), "{" CLAIMS ",\"aud\":%s}", rows[i].aud);
        sign(ALG, claims, &t);
        cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause),
                     rows[i].good ? EG_OK : EG_EDENIED, "%s", rows[i].aud);
        eg_claims_free(&c);
    }
    sign(ALG, "{" CLAIMS "}", &t);
    cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause), EG_EDENIED);
    rules.audience = "";
    cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause), EG_OK);
    eg_claims_free(&c);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, hs256_with_the_public_key)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_buf t = {0};
    uint8_t mac[32];

    eg_b64_encode(&t, "{\"alg\":\"HS256\"}", 15);
    eg_buf_char(&t, '.');
    eg_b64_encode(&t, "{" CLAIMS "}", strlen("{" CLAIMS "}"));
    crypto_auth_hmacsha256(mac, (unsigned char *)t.p, t.n, eg_keyring_at(r, 0)->public_key);
    eg_buf_char(&t, '.');
    eg_b64_encode(&t, mac, sizeof(mac));
    expect_denied(r, (struct eg_slice){t.p, t.n}, "alg is not EdDSA");
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, a_changed_token_is_none)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_buf t = {0};
    struct eg_claims c;
    const char *cause;

    sign(ALG, "{" CLAIMS "}", &t);
    for (size_t n = 0; n < t.n; n++)
        cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, n}, &open_rules, &c, &cause),
                     EG_EDENIED, "cut to %zu", n);
    for (size_t i = 0; i < t.n; i++) {
        char was = t.p[i];

        /* Another letter of the alphabet; the last one too, whose low bits must be zero. */
        t.p[i] = was == 'A' ? 'B' : 'A';
        cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &open_rules, &c, &cause),
                     EG_EDENIED, "byte %zu", i);
        for (const char *odd = "+/= \n.\t\xff"; *odd; odd++) {
            if (*odd == was)
                continue;
            t.p[i] = *odd;
            cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &open_rules, &c, &cause),
                         EG_EDENIED, "byte %zu %d", i, *odd);
        }
        t.p[i] = was;
    }
    cr_expect_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &open_rules, &c, &cause), EG_OK);
    eg_claims_free(&c);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

static void expect_stretched(const struct eg_keyring *r, struct eg_slice token, const char *before,
                             const char *after)
{
    struct eg_buf b = {0};
    struct eg_claims c;
    const char *cause;

    eg_buf_str(&b, before);
    eg_buf_slice(&b, token);
    eg_buf_str(&b, after);
    cr_expect_eq(eg_token_verify(r, (struct eg_slice){b.p, b.n}, &open_rules, &c, &cause),
                 EG_EDENIED, "%s…%s", before, after);
    eg_buf_free(&b);
}

Test(token, stretched)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_buf t = {0}, b = {0};
    struct eg_slice token;

    sign(ALG, "{" CLAIMS "}", &t);
    token = (struct eg_slice){t.p, t.n};
    expect_stretched(r, token, "", ".");
    expect_stretched(r, token, "", ".AAAA");
    expect_stretched(r, token, "", "=");
    expect_stretched(r, token, "", "==");
    expect_stretched(r, token, "", "A");
    expect_stretched(r, token, "", "AA");
    expect_stretched(r, token, "", "AAAA");
    expect_stretched(r, token, "", " ");
    expect_stretched(r, token, "", "\n");
    expect_stretched(r, token, ".", "");
    expect_stretched(r, token, " ", "");
    expect_stretched(r, token, "Bearer ", "");
    expect_denied(r, (struct eg_slice){NULL, 0}, "empty");
    expect_denied(r, EG_LIT(".."), "not three parts");
    expect_denied(r, EG_LIT("a.b"), "not three parts");
    expect_denied(r, EG_LIT("a.b.c.d"), "not three parts");
    expect_denied(r, EG_LIT("a.b.c.d.e"), "not three parts");
    expect_denied(r, EG_LIT("a.AA.AA"), "the header is not base64url");
    expect_denied(r, EG_LIT("QQ==.AA.AA"), "the header is not base64url");
    expect_denied(r, EG_LIT("QR.AA.AA"), "the header is not base64url");
    /* alg none with no signature, as RFC 7515 A.5 writes it, and with an empty one made of
     * padding. */
    expect_denied(r, EG_LIT("eyJhbGciOiJub25lIn0.eyJqb2UiOjF9."), "not three parts");
    expect_denied(r, EG_LIT("eyJhbGciOiJub25lIn0.eyJqb2UiOjF9.AA"), "alg is not EdDSA");
    expect_denied(r, EG_LIT("eyJhbGciOiJFZERTQSJ9.eyJqb2UiOjF9.AA"),
                  "the signature is not 64 bytes of base64url");
    while (b.n <= EG_TOKEN_BYTES_MAX)
        eg_buf_char(&b, 'A');
    expect_denied(r, (struct eg_slice){b.p, b.n}, "too long");
    eg_buf_free(&b);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, another_key_does_not_do)
{
    struct eg_keyring *r = rfc_ring(), *own;
    char kid[64], path[300], folder[100];
    struct eg_claims c = {.sub = "a", .exp_s = NOW + 60, .jti = "j"}, out;
    struct eg_buf t = {0};
    const char *cause;

    snprintf(folder, sizeof(folder), "%s/own", dir);
    cr_assert_eq(eg_key_generate(folder, NOW * 1000LL, kid, path, sizeof(path)), EG_OK);
    cr_assert_eq(eg_keyring_load(folder, NULL, &own, NULL, 0), EG_OK);
    cr_assert_eq(eg_token_mint(own, &c, &t), EG_OK);
    cr_assert_eq(eg_token_verify(own, (struct eg_slice){t.p, t.n}, &open_rules, &out, &cause),
                 EG_OK);
    cr_assert_str_eq(out.jti, "j");
    eg_claims_free(&out);
    expect_denied(r, (struct eg_slice){t.p, t.n}, "unknown key (kid)");
    /* Under the other key's name the signature does not hold. */
    sign("{\"alg\":\"EdDSA\"}", "{" CLAIMS "}", &t);
    expect_denied(own, (struct eg_slice){t.p, t.n}, "the signature does not match");
    eg_keyring_unref(own);
    /* With both loaded kid is required, and decides. */
    snprintf(path, sizeof(path), "cp %s/own/*.key %s", dir, dir);
    cr_assert_eq(system(path), 0);
    own = load();
    cr_assert_eq(eg_keyring_count(own), 2);
    expect_denied(own, (struct eg_slice){t.p, t.n},
                  "kid is missing and there is more than one key");
    expect_signed(own, "{\"alg\":\"EdDSA\",\"kid\":\"" RFC_KID "\"}", "{" CLAIMS "}", NULL);
    snprintf(path, sizeof(path), "{\"alg\":\"EdDSA\",\"kid\":\"%s\"}", kid);
    expect_signed(own, path, "{" CLAIMS "}", "the signature does not match");
    eg_keyring_unref(own);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

/* ---- key files ---- */

Test(token, generates_keys_that_load)
{
    char kid[64], path[300], folder[100], name[400];
    struct eg_keyring *r;
    struct stat st;

    snprintf(folder, sizeof(folder), "%s/keys", dir);
    cr_assert_eq(eg_keyring_load(folder, NULL, &r, NULL, 0), EG_ENOTFOUND);
    cr_assert_eq(eg_key_generate(folder, 1795350871007LL, kid, path, sizeof(path)), EG_OK);
    snprintf(name, sizeof(name), "%s/20261122T123431007-%s.key", folder, kid);
    cr_assert_str_eq(path, name);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    cr_assert_eq(stat(folder, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0700);
    cr_assert_eq(eg_keyring_load(folder, NULL, &r, NULL, 0), EG_OK);
    cr_assert_eq(eg_keyring_count(r), 1);
    cr_assert_str_eq(eg_keyring_at(r, 0)->kid, kid);
    eg_keyring_unref(r);
    cr_assert_eq(eg_keyring_load(NULL, path, &r, NULL, 0), EG_OK);
    cr_assert_str_eq(eg_keyring_at(r, 0)->kid, kid);
    cr_assert_eq(eg_keyring_ref(r), r);
    eg_keyring_unref(r);
    eg_keyring_unref(r);
    eg_keyring_unref(NULL);
    cr_assert_eq(eg_key_delete(folder, "no such kid"), EG_ENOTFOUND);
    cr_assert_eq(eg_key_delete(folder, kid), EG_OK);
    cr_assert_eq(eg_key_delete(folder, kid), EG_ENOTFOUND);
    cr_assert_eq(eg_keyring_load(folder, NULL, &r, NULL, 0), EG_ENOTFOUND);
    cr_assert_eq(eg_key_delete("/nowhere/at/all", kid), EG_ENOTFOUND);
    cr_assert_eq(eg_key_generate("/nowhere/at/all", 0, kid, path, sizeof(path)), EG_EIO);
    cr_assert_eq(eg_key_generate(folder, 0, kid, path, 10), EG_EINVALID);
}

Test(token, signs_with_the_newest_key)
{
    char first[64], second[64], path[300], folder[100];
    struct eg_keyring *r;
    struct eg_buf t = {0};
    struct eg_claims c = {.sub = "a", .exp_s = NOW + 60}, out;
    const char *cause;

    snprintf(folder, sizeof(folder), "%s/keys", dir);
    cr_assert_eq(eg_key_generate(folder, 2000, second, path, sizeof(path)), EG_OK);
    cr_assert_eq(eg_key_generate(folder, 1000, first, path, sizeof(path)), EG_OK);
    cr_assert_eq(eg_keyring_load(folder, NULL, &r, NULL, 0), EG_OK);
    cr_assert_eq(eg_keyring_count(r), 2);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(eg_keyring_at(r, i)->signing, !strcmp(eg_keyring_at(r, i)->kid, second));
    cr_assert_eq(eg_token_mint(r, &c, &t), EG_OK);
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &open_rules, &out, &cause), EG_OK);
    cr_assert_str_eq(out.kid, second);
    eg_claims_free(&out);
    eg_keyring_unref(r);
    eg_buf_free(&t);
}

static void expect_not_loaded(enum eg_err want, const char *why)
{
    struct eg_keyring *r;
    char told[300] = "";

    cr_expect_eq(eg_keyring_load(dir, NULL, &r, told, sizeof(told)), want, "%s", told);
    cr_expect_null(r);
    cr_expect(strstr(told, why), "%s: %s", why, told);
    cr_expect_not(strstr(told, RFC_D));
}

Test(token, a_private_key_others_can_read_is_refused)
{
    static const mode_t modes[] = {0604, 0640, 0620, 0660, 0601, 0777, 0644};

    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        put_file("1.key", PRIVATE_JWK, modes[i]);
        expect_not_loaded(EG_EDENIED, "chmod 600");
    }
    put_file("1.key", PRIVATE_JWK, 0400);
    eg_keyring_unref(load());
}

Test(token, a_credential_may_have_an_access_list)
{
    struct eg_keyring *r;
    char path[100];

    put_file("1.key", PRIVATE_JWK, 0440);
    snprintf(path, sizeof(path), "%s/1.key", dir);
    cr_assert_eq(eg_keyring_load(NULL, path, &r, NULL, 0), EG_EDENIED);
    cr_assert_eq(setenv("CREDENTIALS_DIRECTORY", dir, 1), 0);
    cr_assert_eq(eg_keyring_load(NULL, path, &r, NULL, 0), EG_OK);
    eg_keyring_unref(r);
    put_file("1.key", PRIVATE_JWK, 0444);
    cr_assert_eq(eg_keyring_load(NULL, path, &r, NULL, 0), EG_EDENIED);
    cr_assert_eq(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

#define JWK(rest) "{\"kty\":\"OKP\",\"crv\":\"Ed25519\"," rest "}"

Test(token, files_that_hold_no_key_are_refused)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "not a JSON object"},
        {"-----BEGIN PRIVATE KEY-----", "not a JSON object"},
        {"[]", "not a JSON object"},
        {"{\"kty\":\"RSA\"}", "kty is not OKP"},
        {"{\"kty\":\"oct\",\"k\":\"AA\"}", "kty is not OKP"},
        {"{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" RFC_X "\"}", "crv is not Ed25519"},
        {"{\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"" RFC_X "\"}", "crv is not Ed25519"},
        {JWK("\"d\":\"" RFC_D "\""), "x is not 32 bytes"},
        {JWK("\"d\":\"" RFC_D "\",\"x\":\"AAAA\""), "x is not 32 bytes"},
        {JWK("\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "=\""), "x is not 32 bytes"},
        {JWK("\"x\":\"" RFC_X "\""), "d is not 32 bytes"},
        {JWK("\"d\":\"AAAA\",\"x\":\"" RFC_X "\""), "d is not 32 bytes"},
        {JWK("\"d\":7,\"x\":\"" RFC_X "\""), "d is not 32 bytes"},
        {JWK("\"d\":\"" RFC_X "\",\"x\":\"" RFC_X "\""), "x does not belong to d"},
        {JWK("\"use\":\"enc\",\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "use is not sig"},
        {JWK("\"kid\":7,\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "kid is not"},
        {JWK("\"kid\":\"\",\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "kid is not"},
        {JWK("\"kid\":\"a\x7f\",\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "kid is not"},
        {JWK("\"kid\":\"0123456789012345678901234567890123456789012345678901234567890123\",\"d\":"
             "\"" RFC_D "\",\"x\":\"" RFC_X "\""),
         "kid is not"},
        {"{\"crv\":\"Ed25519\"}", "kty is not OKP"},
        {"{\"kty\":\"OKP\"}", "crv is not Ed25519"},
        {JWK("\"use\":7,\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "use is not sig"},
        {JWK("\"kid\":\"a b\",\"d\":\"" RFC_D "\",\"x\":\"" RFC_X "\""), "kid is not"},
    };
    char *big = malloc(8000);

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        put_file("1.key", rows[i].text, 0600);
        expect_not_loaded(EG_EINVALID, rows[i].why);
    }
    memset(big, ' ', 7999);
    big[7999] = '\0';
    put_file("1.key", big, 0600);
    expect_not_loaded(EG_EINVALID, "too long");
    free(big);
}

Test(token, a_public_file_holds_no_private_key)
{
    put_file("1.pub", PRIVATE_JWK, 0600);
    expect_not_loaded(EG_EINVALID, "it holds a private key");
}

Test(token, only_key_files_count)
{
    struct eg_keyring *r;

    put_file("README", "hello", 0644);
    put_file(".key-abc", "half written", 0600);
    put_file(".hidden.key", "half written", 0600);
    put_file("1.key.bak", PRIVATE_JWK, 0644);
    expect_not_loaded(EG_ENOTFOUND, "no keys");
    put_file("1.pub", JWK("\"kid\":\"theirs\",\"use\":\"sig\",\"x\":\"" RFC_X "\""), 0644);
    r = load();
    cr_assert_eq(eg_keyring_count(r), 1);
    cr_assert_str_eq(eg_keyring_at(r, 0)->kid, "theirs");
    eg_keyring_unref(r);
}

Test(token, both_halves_of_a_key_are_one_key)
{
    struct eg_keyring *r;

    put_file("1.pub", PUBLIC_JWK, 0644);
    put_file("2.key", PRIVATE_JWK, 0600);
    put_file("3.pub", PUBLIC_JWK, 0644);
    put_file("4.key", PRIVATE_JWK, 0600);
    r = load();
    cr_assert_eq(eg_keyring_count(r), 1);
    cr_assert(eg_keyring_at(r, 0)->signing);
    eg_keyring_unref(r);
    put_file("5.pub",
             JWK("\"kid\":\"" RFC_KID "\",\"x\":\"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik\""),
             0644);
    expect_not_loaded(EG_EINVALID, "another key is named");
}

Test(token, a_file_that_is_no_file)
{
    char path[100];

    snprintf(path, sizeof(path), "%s/1.key", dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_not_loaded(EG_EINVALID, "not a regular file");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(symlink("/nowhere/at/all", path), 0);
    expect_not_loaded(EG_EIO, "1.key");
}

/* ---- the rest ---- */

Test(token, scopes)
{
    struct eg_buf b = {0};
    unsigned bits = 99;

    cr_assert_eq(eg_scopes_parse("", &bits), EG_OK);
    cr_assert_eq(bits, 0);
    cr_assert_eq(eg_scopes_parse(" admin:read  read ", &bits), EG_OK);
    cr_assert_eq(bits, EG_SCOPE_READ | EG_SCOPE_ADMIN_READ);
    cr_assert_eq(eg_scopes_parse("read write agent admin", &bits), EG_OK);
    eg_scopes_print(bits | EG_SCOPE_ADMIN_READ, &b);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n}, "read write agent admin admin:read"));
    cr_assert_eq(eg_scopes_parse("read Write", &bits), EG_EINVALID);
    cr_assert_eq(eg_scopes_parse("admin:", &bits), EG_EINVALID);
    cr_assert_eq(eg_scopes_parse("rea", &bits), EG_EINVALID);
    eg_buf_free(&b);
}

Test(token, lists)
{
    char *some[] = {"a", "b", NULL}, *all[] = {"*", NULL}, *none[] = {NULL};

    cr_assert(eg_claims_list_has(some, EG_LIT("b"), false));
    cr_assert_not(eg_claims_list_has(some, EG_LIT("c"), true));
    cr_assert_not(eg_claims_list_has(some, EG_LIT("bb"), true));
    cr_assert(eg_claims_list_has(all, EG_LIT("anything"), false));
    cr_assert_not(eg_claims_list_has(none, EG_LIT("a"), true));
    cr_assert(eg_claims_list_has(NULL, EG_LIT("a"), true));
    cr_assert_not(eg_claims_list_has(NULL, EG_LIT("a"), false));
}

Test(token, base64url_is_strict)
{
    static const char *const bad[] = {"A", "AB", "AAB", "AA==", "A A", "AA\n", "+A", "/A", "AAAAA"};
    uint8_t out[8];
    size_t n;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_expect_not(eg_b64_decode(eg_slice_cstr(bad[i]), out, sizeof(out), &n), "%s", bad[i]);
    cr_assert(eg_b64_decode(EG_LIT("_-8"), out, sizeof(out), &n));
    cr_assert_eq(n, 2);
    cr_assert(out[0] == 0xff && out[1] == 0xef);
    cr_assert(eg_b64_decode(EG_LIT(""), out, sizeof(out), &n));
    cr_assert_eq(n, 0);
    cr_assert_not(eg_b64_decode(EG_LIT("AAAAAAAAAAAA"), out, sizeof(out), &n));
}

Test(token, a_payload_that_is_not_base64url)
{
    struct eg_keyring *r = rfc_ring();
    uint8_t seed[32], pk[32], sk[64], signature[64];
    struct eg_buf t = {0};
    size_t n;

    cr_assert(eg_b64_decode(EG_LIT(RFC_D), seed, sizeof(seed), &n));
    crypto_sign_seed_keypair(pk, sk, seed);
    eg_b64_encode(&t, ALG, strlen(ALG));
    eg_buf_str(&t, ".e30=");
    crypto_sign_detached(signature, NULL, (unsigned char *)t.p, t.n, sk);
    eg_buf_char(&t, '.');
    eg_b64_encode(&t, signature, sizeof(signature));
    expect_denied(r, (struct eg_slice){t.p, t.n}, "the claims are not base64url");
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, without_a_limit_a_lifetime_is_free)
{
    struct eg_keyring *r = rfc_ring();
    struct eg_token_rules rules = {.now_s = NOW};
    struct eg_claims c;
    struct eg_buf t = {0};
    const char *cause;

    sign(ALG, "{\"sub\":\"a\",\"jti\":\"j\",\"exp\":9000000000}", &t);
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause), EG_OK);
    eg_claims_free(&c);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, mints_lists_of_audiences)
{
    struct eg_keyring *r = rfc_ring();
    char *two[] = {"a", "b", NULL}, *none[] = {NULL};
    struct eg_claims in = {.sub = "s", .exp_s = NOW + 9, .aud = two, .agents = none}, c;
    struct eg_token_rules rules = {.now_s = NOW, .audience = "b"};
    struct eg_buf t = {0};
    const char *cause;

    cr_assert_eq(eg_token_mint(r, &in, &t), EG_OK);
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause), EG_OK);
    cr_assert(!strcmp(c.aud[0], "a") && !strcmp(c.aud[1], "b") && !c.aud[2]);
    cr_assert(c.agents && !c.agents[0] && !c.sessions);
    eg_claims_free(&c);
    in.aud = none;
    t.n = 0;
    cr_assert_eq(eg_token_mint(r, &in, &t), EG_OK);
    cr_assert_eq(eg_token_verify(r, (struct eg_slice){t.p, t.n}, &rules, &c, &cause), EG_EDENIED);
    eg_buf_free(&t);
    eg_keyring_unref(r);
}

Test(token, jwks_of_several_keys)
{
    struct eg_keyring *r;
    struct eg_buf b = {0};

    for (int i = 0; i < 6; i++) {
        char kid[64];

        cr_assert_eq(eg_key_generate(dir, i, kid, NULL, 0), EG_OK);
    }
    r = load();
    cr_assert_eq(eg_keyring_count(r), 6);
    eg_keyring_jwks(r, &b);
    eg_buf_char(&b, '\0');
    for (int i = 0; i < 6; i++) {
        cr_assert(strstr(b.p, eg_keyring_at(r, i)->kid));
    }
    eg_buf_free(&b);
    eg_keyring_unref(r);
}

Test(token, a_key_whose_mode_is_wrong_can_be_deleted)
{
    put_file("1.key", PRIVATE_JWK, 0644);
    put_file("2.key", "no key", 0600);
    put_file("3.pub", PUBLIC_JWK, 0644);
    cr_assert_eq(eg_key_delete(dir, RFC_KID), EG_OK);
    cr_assert_eq(eg_key_delete(dir, RFC_KID), EG_ENOTFOUND);
    expect_not_loaded(EG_EINVALID, "2.key");
}

Test(token, files_told_apart_from_folders)
{
    struct eg_keyring *r;
    char path[100], why[200];

    put_file("1.key", PRIVATE_JWK, 0600);
    snprintf(path, sizeof(path), "%s/1.key", dir);
    cr_assert_eq(eg_keyring_load(path, NULL, &r, why, sizeof(why)), EG_EIO);
    cr_assert_eq(eg_keyring_load(NULL, dir, &r, why, sizeof(why)), EG_EINVALID);
    cr_assert_eq(eg_keyring_load(NULL, "/nowhere/at/all.key", &r, why, sizeof(why)), EG_ENOTFOUND);
    cr_assert_eq(eg_keyring_load(NULL, path, &r, NULL, 0), EG_OK);
    eg_keyring_unref(r);
    cr_assert_eq(eg_key_delete(path, "x"), EG_EIO);
    cr_assert_eq(eg_key_generate(path, 0, why, NULL, 0), EG_EIO);
}
