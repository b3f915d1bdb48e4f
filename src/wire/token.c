/*
 * token.c - JSON Web Tokens (RFC 7519) in compact form (RFC 7515 7.1), signed with Ed25519
 * (RFC 8037 3.1). The only place that signs or verifies.
 *
 * Any thread; a key ring is only read. The happy path of a verification: three parts, a header that
 * names EdDSA and a known key, a signature over the first two parts, then the claims. Nothing of
 * the payload is looked at before the signature holds. Every refusal is EG_EDENIED with a static
 * cause for the log; the peer is told none.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <sodium.h>

#include "base/clock.h"
#include "wire/json.h"
#include "wire/json_text.h"
#include "wire/token_text.h"

bool eg_b64_decode(struct eg_slice s, uint8_t *out, size_t size, size_t *n)
{
    return sodium_base642bin(out, size, s.n ? s.p : "", s.n, NULL, n, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

void eg_b64_encode(struct eg_buf *out, const void *p, size_t n)
{
    size_t size = sodium_base64_encoded_len(n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *to = eg_buf_reserve(out, size);

    if (to) {
        sodium_bin2base64(to, size, p, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        out->n += size - 1;
    }
}

/* The three parts of a token. */
struct parts {
    struct eg_slice header, payload, signature;
    struct eg_slice signed_text; /* header and payload with the dot between them */
};

static bool split(struct eg_slice token, struct parts *p)
{
    const char *end = token.p + token.n;
    const char *one = memchr(token.p, '.', token.n);
    const char *two = one ? memchr(one + 1, '.', (size_t)(end - one - 1)) : NULL;

    if (!two || memchr(two + 1, '.', (size_t)(end - two - 1)))
        return false;
    p->header = (struct eg_slice){token.p, (size_t)(one - token.p)};
    p->payload = (struct eg_slice){one + 1, (size_t)(two - one - 1)};
    p->signature = (struct eg_slice){two + 1, (size_t)(end - two - 1)};
    p->signed_text = (struct eg_slice){token.p, (size_t)(two - token.p)};
    return p->header.n && p->payload.n && p->signature.n;
}

#define HEADER_TEXT_MAX 64

/* A string member of the header into text of HEADER_TEXT_MAX bytes; false when it is no string or
 * too long. */
static bool header_text(const struct eg_json_member *m, char text[HEADER_TEXT_MAX])
{
    char memory[HEADER_TEXT_MAX * 6 + 2]; /* six bytes may stand for one */
    struct eg_buf b = {.p = memory, .cap = sizeof(memory)};

    if (m->kind != EG_JSON_STRING || m->value.n > sizeof(memory))
        return false;
    eg_json_unquote(m->value, &b); /* fits, so the buffer does not grow */
    if (b.n >= HEADER_TEXT_MAX)
        return false;
    memcpy(text, memory, b.n);
    text[b.n] = '\0';
    return true;
}

/* Reads the header (RFC 7515 4) and finds the key it names. NULL with *cause. */
static const struct eg_key_info *header_key(const struct eg_keyring *r, struct eg_slice header,
                                            const char **cause)
{
    struct eg_json_doc doc;
    struct eg_json_member m;
    char alg[HEADER_TEXT_MAX], typ[HEADER_TEXT_MAX], kid[HEADER_TEXT_MAX];
    const struct eg_key_info *key;

    if (eg_json_scan(header, 8, &doc) || doc.kind != EG_JSON_OBJECT) {
        *cause = "the header is not a strict JSON object";
        return NULL;
    }
    *cause = "alg is not EdDSA";
    if (!eg_json_find(header, "alg", &m) || !header_text(&m, alg) || strcmp(alg, "EdDSA") != 0)
        return NULL;
    *cause = "typ is not JWT";
    if (eg_json_find(header, "typ", &m) && (!header_text(&m, typ) || strcasecmp(typ, "JWT") != 0))
        return NULL;
    *cause = "the header has critical extensions (crit)";
    if (eg_json_find(header, "crit", &m))
        return NULL;
    if (eg_json_find(header, "kid", &m)) {
        *cause = "unknown key (kid)";
        key = header_text(&m, kid) ? eg_keyring_find(r, kid) : NULL;
    } else {
        *cause = "kid is missing and there is more than one key";
        key = eg_keyring_find(r, NULL);
    }
    return key;
}

/* Judges header and signature; the payload is decoded into text. */
static const struct eg_key_info *verify_signature(const struct eg_keyring *r, struct eg_slice token,
                                                  uint8_t *text, size_t *n, const char **cause)
{
    uint8_t signature[crypto_sign_BYTES];
    const struct eg_key_info *key;
    struct parts p;

    *cause = "not three parts";
    if (!split(token, &p))
        return NULL;
    *cause = "the header is not base64url";
    if (!eg_b64_decode(p.header, text, EG_TOKEN_BYTES_MAX, n))
        return NULL;
    key = header_key(r, (struct eg_slice){(const char *)text, *n}, cause);
    if (!key)
        return NULL;
    *cause = "the signature is not 64 bytes of base64url";
    if (!eg_b64_decode(p.signature, signature, sizeof(signature), n) || *n != sizeof(signature))
        return NULL;
    *cause = "the signature does not match";
    if (crypto_sign_verify_detached(signature, (const unsigned char *)p.signed_text.p,
                                    p.signed_text.n, key->public_key) != 0)
        return NULL;
    *cause = "the claims are not base64url";
    if (!eg_b64_decode(p.payload, text, EG_TOKEN_BYTES_MAX, n))
        return NULL;
    return key;
}

enum eg_err eg_token_verify(const struct eg_keyring *r, struct eg_slice token,
                            const struct eg_token_rules *rules, struct eg_claims *claims,
                            const char **cause)
{
    uint8_t text[EG_TOKEN_BYTES_MAX];
    const struct eg_key_info *key;
    enum eg_err e;
    size_t n;

    *claims = (struct eg_claims){0};
    *cause = "empty";
    if (token.n == 0)
        return EG_EDENIED;
    *cause = "too long";
    if (token.n > EG_TOKEN_BYTES_MAX)
        return EG_EDENIED;
    key = verify_signature(r, token, text, &n, cause);
    if (!key)
        return EG_EDENIED;
    e = eg_claims_read((struct eg_slice){(const char *)text, n}, rules, claims, cause);
    if (e)
        return e;
    claims->kid = strdup(key->kid);
    if (!claims->kid) {
        eg_claims_free(claims);
        *cause = "out of memory";
        return EG_ENOMEM;
    }
    *cause = NULL;
    return EG_OK;
}

static bool mintable(const struct eg_claims *c)
{
    size_t sub = c->sub ? strlen(c->sub) : 0, jti = c->jti ? strlen(c->jti) : 1;

    return sub >= 1 && sub <= EG_ID_MAX && jti >= 1 && jti <= EG_ID_MAX && c->exp_s > 0 &&
           eg_utf8_valid((struct eg_slice){c->sub, sub}, NULL);
}

enum eg_err eg_token_mint(const struct eg_keyring *r, const struct eg_claims *claims,
                          struct eg_buf *out)
{
    uint8_t signature[crypto_sign_BYTES];
    const uint8_t *secret;
    const struct eg_key_info *key = eg_keyring_signer(r, &secret);
    struct eg_buf text = {0};
    size_t from = out->n;
    char jti[37];
    enum eg_err e;

    if (!key)
        return EG_ENOTFOUND;
    if (!mintable(claims))
        return EG_EINVALID;
    eg_uuid7(claims->iat_s * 1000, jti);
    eg_buf_char(&text, '{');
    eg_json_kcstr(&text, "alg", "EdDSA");
    eg_json_kcstr(&text, "typ", "JWT");
    eg_json_kcstr(&text, "kid", key->kid);
    eg_buf_char(&text, '}');
    eg_b64_encode(out, text.p, text.n);
    eg_buf_char(out, '.');
    text.n = 0; /* keeps the error, which a reset would forget */
    eg_claims_write(claims, claims->jti ? claims->jti : jti, &text);
    eg_b64_encode(out, text.p, text.n);
    e = text.err ? text.err : out->err;
    if (!e) {
        crypto_sign_detached(signature, NULL, (const unsigned char *)out->p + from, out->n - from,
                             secret);
        eg_buf_char(out, '.');
        eg_b64_encode(out, signature, sizeof(signature));
        e = out->err;
    }
    if (!e && out->n - from > EG_TOKEN_BYTES_MAX)
        e = EG_EINVALID;
    if (e)
        out->n = from;
    eg_buf_free(&text);
    return e;
}
