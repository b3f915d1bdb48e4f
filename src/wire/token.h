/*
 * token.h - JSON Web Tokens with Ed25519 (RFC 7519, RFC 8037), and the keys that make and check
 * them.
 *
 * Pure but for key files. A key ring is immutable and reference-counted; a change makes a new one.
 * The only place that signs or verifies.
 */
#ifndef EG_WIRE_TOKEN_H
#define EG_WIRE_TOKEN_H

#include "base/bytes.h"
#include "ebbgate/protocol.h"

/* The claims of a verified token, or of one to be minted. Owned strings; lists NULL-terminated. */
struct eg_claims {
    char *sub, *jti, *kid;
    int64_t exp_s, iat_s, nbf_s; /* 0: absent */
    unsigned scopes;             /* enum eg_scope; unknown words are ignored */
    char **agents, **sessions;   /* NULL: absent; a single "*" is all */
    char **aud;                  /* NULL: absent */
};

void eg_claims_free(struct eg_claims *c); /* frees the members, not c */
/* Whether a list (agents, sessions) holds id or "*"; absent gives what. */
bool eg_claims_list_has(char **list, struct eg_slice id, bool absent);

struct eg_keyring;

/* Public half of one key, as a JWK is made of it. */
struct eg_key_info {
    char kid[64];
    uint8_t public_key[32];
    bool signing; /* the private half is here and new tokens are made with it */
};

/*
 * Loads every *.key (private, PEM-less: one JSON JWK, RFC 8037 2, mode 0600, refused when group or
 * others may read it) and *.pub (public JWK) of folder dir, or one private key file when file is
 * not NULL. The signing key is the newest *.key by file name. Without any key: EG_ENOTFOUND. On
 * failure why (not NULL) says what and where, without key material.
 */
enum eg_err eg_keyring_load(const char *dir, const char *file, struct eg_keyring **out, char *why,
                            size_t why_size) EG_MUST;
/* Makes a key in dir (created 0700 when missing) as YYYYMMDDTHHMMSSmmm-KID.key, 0600, fsynced. kid
 * is set. */
enum eg_err eg_key_generate(const char *dir, int64_t wall_ms, char kid[64], char *path,
                            size_t path_size) EG_MUST;
/* Removes the file(s) of kid from dir; EG_ENOTFOUND when there is none. */
enum eg_err eg_key_delete(const char *dir, const char *kid) EG_MUST;
struct eg_keyring *eg_keyring_ref(struct eg_keyring *r);
void eg_keyring_unref(struct eg_keyring *r);
int eg_keyring_count(const struct eg_keyring *r);
const struct eg_key_info *eg_keyring_at(const struct eg_keyring *r, int i);
/* Appends the JWK set (RFC 7517 5) of the public keys. */
void eg_keyring_jwks(const struct eg_keyring *r, struct eg_buf *out);

/* What a token must satisfy beside its signature. */
struct eg_token_rules {
    const char *audience; /* NULL or "": none required */
    int64_t max_lifetime_s;
    int64_t now_s;
};

/*
 * Verifies token. EG_EDENIED for every refusal, with *cause set to static text for the log; claims
 * is filled on EG_OK only. Revocation is not looked at here.
 */
enum eg_err eg_token_verify(const struct eg_keyring *r, struct eg_slice token,
                            const struct eg_token_rules *rules, struct eg_claims *claims,
                            const char **cause) EG_MUST;
/* Appends a token made with the ring's signing key. EG_ENOTFOUND when it has none. jti is made when
 * NULL. */
enum eg_err eg_token_mint(const struct eg_keyring *r, const struct eg_claims *claims,
                          struct eg_buf *out) EG_MUST;
/* Scope words to bits and back; unknown words make parse return EG_EINVALID. */
enum eg_err eg_scopes_parse(const char *text, unsigned *out) EG_MUST;
void eg_scopes_print(unsigned scopes, struct eg_buf *out);

#endif
