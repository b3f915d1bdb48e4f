/*
 * Tokens. The first byte says what the rest is: a token, the header or the claims of a token that
 * is properly signed, or the text of a key file. Nothing but a signed token is ever accepted, and
 * accepted claims keep the rules.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "wire/json.h"
#include "wire/token.h"
#include "wire/token_text.h"

#define NOW 1800000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t secret[64];
static struct eg_keyring *ring;

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* A ring with a key of fixed seed, so that inputs that are whole tokens stay valid. */
static void start(void)
{
    char path[] = "/tmp/ebbgate-fuzz-XXXXXX", text[512];
    struct eg_key_info info = {.kid = "k"};
    uint8_t seed[32];
    size_t n;
    int fd;

    eg_sodium_ready();
    memset(seed, 7, sizeof(seed));
    crypto_sign_seed_keypair(info.public_key, secret, seed);
    n = eg_jwk_private(&info, seed, text, sizeof(text));
    fd = mkstemp(path);
    must(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    close(fd);
    must(eg_keyring_load(NULL, path, &ring, NULL, 0) == EG_OK);
    unlink(path);
}

static enum eg_err verify(struct eg_slice token)
{
    static const struct eg_token_rules rules = {
        .audience = "", .now_s = NOW, .max_lifetime_s = 86400};
    struct eg_claims c;
    const char *cause = NULL;
    enum eg_err e = eg_token_verify(ring, token, &rules, &c, &cause);

    must(e == EG_OK || (e == EG_EDENIED && cause && !c.sub));
    if (e == EG_OK) {
        must(!cause && c.sub && *c.sub && strlen(c.sub) <= EG_ID_MAX);
        must(c.jti && *c.jti && strlen(c.jti) <= EG_ID_MAX && !strcmp(c.kid, "k"));
        must(c.exp_s > NOW - EG_LEEWAY_S && c.exp_s - (c.iat_s ? c.iat_s : NOW) <= 86400);
        must(c.nbf_s <= NOW + EG_LEEWAY_S && c.iat_s <= NOW + EG_LEEWAY_S);
    }
    eg_claims_free(&c);
    return e;
}

static void verify_signed(struct eg_slice header, struct eg_slice claims)
{
    struct eg_buf t = {0};
    uint8_t signature[64];

    eg_b64_encode(&t, header.p, header.n);
    eg_buf_char(&t, '.');
    eg_b64_encode(&t, claims.p, claims.n);
    crypto_sign_detached(signature, NULL, (const uint8_t *)t.p, t.n, secret);
    eg_buf_char(&t, '.');
    eg_b64_encode(&t, signature, sizeof(signature));
    if (verify((struct eg_slice){t.p, t.n}) == EG_OK) {
        t.p[t.n - 3] = t.p[t.n - 3] == 'A' ? 'B' : 'A';
        must(verify((struct eg_slice){t.p, t.n}) == EG_EDENIED);
    }
    eg_buf_free(&t);
}

static void read_key(struct eg_slice text)
{
    struct eg_key key = {0};
    struct eg_buf b = {0};
    struct eg_json_doc doc;

    if (text.n >= EG_KEY_FILE_MAX)
        return;
    for (int private = 0; private < 2; private ++) {
        if (!eg_jwk_read(text, private, &key)) {
            must(!key.secret == !private && key.info.kid[0]);
            eg_buf_char(&b, '{');
            eg_jwk_public(&key.info, &b);
            eg_buf_char(&b, '}');
            must(!b.err && eg_json_scan((struct eg_slice){b.p, b.n}, 1, &doc) == EG_OK);
            b.n = 0;
        }
        sodium_free(key.secret);
        key = (struct eg_key){0};
    }
    eg_buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct eg_slice rest = {(const char *)data + 1, size ? size - 1 : 0};

    if (!ring)
        start();
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'h':
        verify_signed(rest, EG_LIT("{\"sub\":\"a\",\"jti\":\"j\",\"exp\":1800000600}"));
        break;
    case 'c':
        verify_signed(EG_LIT("{\"alg\":\"EdDSA\",\"kid\":\"k\"}"), rest);
        break;
    case 'k':
        read_key(rest);
        break;
    default:
        verify(rest);
    }
    return 0;
}
