/*
 * auth.h - who may come in: the key ring in force, revocations, and a cache of verified tokens.
 *
 * Shared by reactors and HTTP threads; a read lock around short look-ups. The core is the authority
 * on revocations and tells them through eg_auth_revoked; each live connection is judged again by
 * its reactor when eg_auth_version changes.
 */
#ifndef EG_EDGE_AUTH_H
#define EG_EDGE_AUTH_H

#include "core/core.h"
#include "wire/token.h"

struct eg_auth;

enum eg_err eg_auth_new(struct eg_keyring *ring, struct eg_settings *settings,
                        struct eg_auth **out) EG_MUST;
void eg_auth_free(struct eg_auth *a);
void eg_auth_keyring(struct eg_auth *a, struct eg_keyring *ring); /* refs it, drops the old one */
void eg_auth_settings(struct eg_auth *a, struct eg_settings *settings); /* audience, max lifetime */
struct eg_keyring *eg_auth_ring(struct eg_auth *a);                     /* a new reference */
void eg_auth_revoked(struct eg_auth *a, const char *what, int64_t until_ms);
/* Rises with each change of keys or revocations. */
uint64_t eg_auth_version(struct eg_auth *a);

/* Verifies signature, claims, revocation. EG_EDENIED with *cause (static text, for the log only).
 */
enum eg_err eg_auth_check(struct eg_auth *a, struct eg_slice token, int64_t wall_ms,
                          struct eg_claims *out, const char **cause) EG_MUST;
/* Whether a token accepted earlier still stands (not revoked, key still there). */
bool eg_auth_stands(struct eg_auth *a, const char *sub, const char *jti, const char *kid);

#endif
