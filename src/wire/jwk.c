/*
 * jwk.c - one Ed25519 key as text: JSON Web Keys (RFC 7517, RFC 8037 2) and their thumbprints.
 *
 * Pure, any thread. A file's text goes through the JSON guard first. Decoded secrets lie on the
 * stack only as long as they are needed and are wiped; the secret half that is kept lies in guarded
 * memory (sodium_malloc), which the key owns.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "wire/json.h"
#include "wire/json_text.h"
#include "wire/token_text.h"

static pthread_once_t sodium_once = PTHREAD_ONCE_INIT;

static void sodium_start(void)
{
    if (sodium_init() < 0)
        abort();
}

void eg_sodium_ready(void)
{
    pthread_once(&sodium_once, sodium_start);
}

/* The string member name of a JWK, decoded into text. 1: read; 0: absent; -1: not usable. */
static int jwk_text(struct eg_slice jwk, const char *name, char *text, size_t size)
{
    struct eg_json_member m;
    char decoded[EG_KEY_FILE_MAX];
    struct eg_buf b = {.p = decoded, .cap = sizeof(decoded)};
    int result = -1;

    if (!eg_json_find(jwk, name, &m))
        return 0;
    if (m.kind == EG_JSON_STRING) {
        eg_json_unquote(m.value, &b); /* shorter than the file, so the buffer does not grow */
        if (b.n < size) {
            memcpy(text, b.p, b.n);
            text[b.n] = '\0';
            result = 1;
        }
    }
    sodium_memzero(decoded, sizeof(decoded));
    return result;
}

/* A member of 32 bytes in base64url. */
static int jwk_bytes(struct eg_slice jwk, const char *name, uint8_t out[32])
{
    char text[64];
    size_t n;
    int got = jwk_text(jwk, name, text, sizeof(text));

    if (got > 0 && (!eg_b64_decode(eg_slice_cstr(text), out, 32, &n) || n != 32))
        got = -1;
    sodium_memzero(text, sizeof(text));
    return got;
}

/* RFC 7638 3: SHA-256 over the required members in order. */
void eg_jwk_thumbprint(const uint8_t public_key[32], uint8_t out[32])
{
    struct eg_buf b = {0};
    char memory[160];

    b.p = memory;
    b.cap = sizeof(memory);
    eg_buf_str(&b, "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"");
    eg_b64_encode(&b, public_key, 32);
    eg_buf_str(&b, "\"}");
    crypto_hash_sha256(out, (const unsigned char *)memory, b.n);
}

/* The name of the key: kid, or its eg_jwk_thumbprint when it has none. False when kid is not
 * usable. */
static bool jwk_kid(struct eg_slice jwk, struct eg_key_info *info)
{
    uint8_t print[32];
    int got = jwk_text(jwk, "kid", info->kid, sizeof(info->kid));

    if (got < 0 || (got > 0 && !info->kid[0]))
        return false;
    for (const char *c = info->kid; got > 0 && *c; c++)
        if (*c <= ' ' || *c > '~')
            return false;
    if (got == 0) {
        eg_jwk_thumbprint(info->public_key, print);
        sodium_bin2base64(info->kid, sizeof(info->kid), print, sizeof(print),
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    }
    return true;
}

const char eg_jwk_no_memory[] = "there is no memory for it";

/* Reads a JWK. NULL on success, else static text that says what is wrong with it. */
const char *eg_jwk_read(struct eg_slice text, bool private, struct eg_key *key)
{
    uint8_t seed[crypto_sign_SEEDBYTES], derived[crypto_sign_PUBLICKEYBYTES];
    struct eg_json_doc doc;
    char word[32];
    const char *wrong = NULL;
    int got;

    if (eg_json_scan(text, 8, &doc) || doc.kind != EG_JSON_OBJECT)
        return "it is not a JSON object";
    if (jwk_text(text, "kty", word, sizeof(word)) != 1 || strcmp(word, "OKP") != 0)
        return "kty is not OKP";
    if (jwk_text(text, "crv", word, sizeof(word)) != 1 || strcmp(word, "Ed25519") != 0)
        return "crv is not Ed25519";
    got = jwk_text(text, "use", word, sizeof(word));
    if (got < 0 || (got > 0 && strcmp(word, "sig") != 0))
        return "use is not sig";
    if (jwk_bytes(text, "x", key->info.public_key) != 1)
        return "x is not 32 bytes of base64url";
    if (!jwk_kid(text, &key->info))
        return "kid is not 1 to 63 visible ASCII characters";
    got = jwk_bytes(text, "d", seed);
    if (!private)
        wrong = got != 0 ? "it holds a private key (d)" : NULL;
    else if (got != 1)
        wrong = "d is not 32 bytes of base64url";
    if (!wrong && private) {
        key->secret = sodium_malloc(crypto_sign_SECRETKEYBYTES);
        if (!key->secret)
            wrong = eg_jwk_no_memory;
        else if (crypto_sign_seed_keypair(derived, key->secret, seed) != 0 ||
                 sodium_memcmp(derived, key->info.public_key, sizeof(derived)) != 0)
            wrong = "x does not belong to d";
    }
    sodium_memzero(seed, sizeof(seed));
    if (wrong) {
        sodium_free(key->secret);
        key->secret = NULL;
    }
    return wrong;
}

/* Appends the public members of a JWK. */
void eg_jwk_public(const struct eg_key_info *info, struct eg_buf *out)
{
    eg_json_kcstr(out, "kty", "OKP");
    eg_json_kcstr(out, "crv", "Ed25519");
    eg_json_kcstr(out, "kid", info->kid);
    eg_json_key(out, "x");
    eg_buf_char(out, '"');
    eg_b64_encode(out, info->public_key, sizeof(info->public_key));
    eg_buf_char(out, '"');
}

/* The private JWK as text, in memory that is wiped by its owner. */
size_t eg_jwk_private(const struct eg_key_info *info, const uint8_t seed[32], char *text,
                      size_t size)
{
    struct eg_buf b = {.p = text, .cap = size}; /* room enough: it does not grow */

    eg_buf_char(&b, '{');
    eg_jwk_public(info, &b);
    eg_json_key(&b, "d");
    eg_buf_char(&b, '"');
    eg_b64_encode(&b, seed, 32);
    eg_buf_str(&b, "\"}\n");
    return b.n;
}
