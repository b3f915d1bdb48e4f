/*
 * token_text.h - what keys.c, token.c and claims.c share; private to src/wire.
 */
#ifndef EG_WIRE_TOKEN_TEXT_H
#define EG_WIRE_TOKEN_TEXT_H

#include "wire/token.h"

/* Makes libsodium ready; aborts when that fails (no source of random numbers). */
void eg_sodium_ready(void);

/* base64url without padding (RFC 7515 2). Decoding is strict: nothing but the alphabet, and the
 * bits left over are zero. Decodes at most size bytes; false when s is not of that form. */
bool eg_b64_decode(struct eg_slice s, uint8_t *out, size_t size, size_t *n);
void eg_b64_encode(struct eg_buf *out, const void *p, size_t n);

#define EG_KEY_FILE_MAX 4096 /* bytes of a key file, NUL included */

struct eg_key {
    struct eg_key_info info;
    uint8_t *secret; /* crypto_sign_SECRETKEYBYTES in guarded memory; NULL: public half only */
};

/* Reads a checked-size JWK text into key; private: d is required and must belong to x, else d is
 * refused. NULL on success, else static text that says what is wrong (eg_jwk_no_memory: nothing
 * is); then key holds no secret. */
extern const char eg_jwk_no_memory[];
const char *eg_jwk_read(struct eg_slice text, bool private, struct eg_key *key);
/* Appends the public members, without braces. */
void eg_jwk_public(const struct eg_key_info *info, struct eg_buf *out);
/* The private JWK as text of size bytes (512 are enough); returns its length. Wipe it after use. */
size_t eg_jwk_private(const struct eg_key_info *info, const uint8_t seed[32], char *text,
                      size_t size);
/* RFC 7638 3: SHA-256 over the required members in order. */
void eg_jwk_thumbprint(const uint8_t public_key[32], uint8_t out[32]);

/* The key named kid; kid NULL: the only key. NULL when there is none. */
const struct eg_key_info *eg_keyring_find(const struct eg_keyring *r, const char *kid);
/* The key that signs and its 64 secret bytes (RFC 8032 private and public half); NULL without. */
const struct eg_key_info *eg_keyring_signer(const struct eg_keyring *r, const uint8_t **secret);

/*
 * Reads the claims of a payload whose signature has been verified, and judges them. EG_EDENIED with
 * *cause for every refusal. claims is zeroed before; on failure it holds nothing.
 */
enum eg_err eg_claims_read(struct eg_slice payload, const struct eg_token_rules *rules,
                           struct eg_claims *claims, const char **cause) EG_MUST;
/* Appends the claims as the payload of a token; jti is never NULL here. */
void eg_claims_write(const struct eg_claims *claims, const char *jti, struct eg_buf *out);

#endif
