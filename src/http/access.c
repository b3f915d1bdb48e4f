/*
 * access.c - tokens and signing keys.
 *
 * HTTP threads. A token is minted here and shown once; it is never wider than the caller's own. A
 * change of keys writes files and puts the new ring in force through the app; one at a time.
 * Nothing is minted, rotated or withdrawn that is not in the audit log.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/http_int.h"
#include "wire/token.h"
#include "wire/token_text.h"

#define TTL_DEFAULT_S 3600

/* --- minting --- */

/* The scopes that a caller may hand on. */
static unsigned own_scopes(const struct eg_exchange *x)
{
    const unsigned s = x->claims.scopes;
    return s & EG_SCOPE_ADMIN ? s | EG_SCOPE_ADMIN_READ : s;
}

/* Whether each of list is in mine. */
static bool within(char **list, char **mine)
{
    for (char **p = list; p && *p; p++) {
        if (strcmp(*p, "*") == 0 ? !eg_claims_list_has(mine, EG_LIT("*"), false)
                                 : !eg_claims_list_has(mine, eg_slice_cstr(*p), false))
            return false;
    }
    return true;
}

static void wider(struct eg_exchange *x, const char *field)
{
    eg_x_problem(x, 0, EG_CODE_insufficient_scope,
                 "a token cannot be wider than the one it is "
                 "made with",
                 field);
}

static char **copy_list(char **list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    char **copy = list ? calloc(n + 1, sizeof *copy) : NULL;
    for (size_t i = 0; copy && i < n; i++) {
        if (!(copy[i] = strdup(list[i]))) {
            eg_list_free(copy);
            return NULL;
        }
    }
    return copy;
}

/*
 * The agents of the new token. A token without the claim may talk to every agent but serve none:
 * so a caller without it may not make a token with the scope agent.
 */
static bool take_agents(struct eg_exchange *x, struct eg_claims *c)
{
    char **mine = x->claims.agents;
    const bool serves = (c->scopes & EG_SCOPE_AGENT) != 0;
    if (!eg_x_list(x, "agents", &c->agents))
        return false;
    if (!c->agents && mine && !(c->agents = copy_list(mine))) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return false;
    }
    if (mine ? within(c->agents, mine) : !serves)
        return true;
    wider(x, "agents");
    return false;
}

static bool take_ttl(struct eg_exchange *x, struct eg_claims *c)
{
    const int64_t now_s = eg_clock_now().wall_ms / 1000;
    const int64_t most = x->settings->max_token_lifetime_ms / 1000;
    const int64_t left = x->claims.exp_s - now_s;
    int64_t ttl = -1;
    if (!eg_x_int(x, "ttl", false, 1, most, &ttl))
        return false;
    if (left < 1) { /* in its leeway */
        eg_x_problem(x, 0, EG_CODE_auth_unauthorized, NULL, NULL);
        return false;
    }
    if (ttl > left) {
        wider(x, "ttl");
        return false;
    }
    if (ttl < 0)
        ttl = TTL_DEFAULT_S < most ? TTL_DEFAULT_S : most;
    c->iat_s = now_s;
    c->exp_s = now_s + (ttl < left ? ttl : left);
    return true;
}

static bool take_claims(struct eg_exchange *x, struct eg_claims *c)
{
    struct eg_slice sub, scope;
    char jti[37];
    if (!eg_x_check_body(x, "sub scope agents sessions ttl") ||
        !eg_x_text(x, "sub", true, 1, EG_ID_MAX, 0, &sub) ||
        !eg_x_text(x, "scope", true, 1, 128, 1, &scope))
        return false;
    if (eg_scopes_parse(scope.p, &c->scopes) != EG_OK || c->scopes == 0) {
        eg_x_invalid(x, "scope", "must be words of read, write, agent, admin and admin:read");
        return false;
    }
    if (c->scopes & ~own_scopes(x)) {
        wider(x, "scope");
        return false;
    }
    if (!take_agents(x, c) || !eg_x_list(x, "sessions", &c->sessions))
        return false;
    if (!within(c->sessions, x->claims.sessions)) {
        wider(x, "sessions");
        return false;
    }
    if (!take_ttl(x, c))
        return false;
    eg_uuid7(eg_clock_now().wall_ms, jti);
    c->sub = strdup(sub.p);
    c->jti = strdup(jti);
    if (*x->settings->audience) {
        char *list[] = {x->settings->audience, NULL};
        c->aud = copy_list(list);
    }
    if (c->sub && c->jti && (c->aud || !*x->settings->audience))
        return true;
    eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
    return false;
}

void eg_h_token_mint(struct eg_exchange *x)
{
    struct eg_claims c = {0};
    struct eg_buf token = {0}, scope = {0}, detail = {0}, b = {0};
    struct eg_keyring *ring = NULL;
    if (!take_claims(x, &c))
        goto out;
    ring = eg_auth_ring(x->http->config.auth);
    const enum eg_err err = eg_token_mint(ring, &c, &token);
    if (err != EG_OK) {
        eg_x_problem(x, 0, err == EG_ENOTFOUND ? EG_CODE_conflict : EG_CODE_internal,
                     err == EG_ENOTFOUND ? "there is no private key to sign with" : NULL, NULL);
        goto out;
    }
    eg_scopes_print(c.scopes, &scope);
    eg_buf_printf(&detail, "sub=%s jti=%s scope=%.*s exp=%lld", c.sub, c.jti, (int)scope.n,
                  scope.p ? scope.p : "", (long long)c.exp_s);
    eg_buf_char(&detail, '\0');
    if (scope.err != EG_OK || detail.err != EG_OK || !eg_x_audit(x, "token.mint", detail.p))
        goto out;
    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "token", (struct eg_slice){token.p, token.n});
    eg_json_kcstr(&b, "jti", c.jti);
    eg_json_kcstr(&b, "sub", c.sub);
    eg_json_kstr(&b, "scope", (struct eg_slice){scope.p, scope.n});
    eg_json_ktime(&b, "expires", c.exp_s * 1000);
    eg_buf_char(&b, '}');
    eg_x_json(x, 201, &b);
out:
    eg_keyring_unref(ring);
    eg_claims_free(&c);
    eg_buf_free(&detail);
    eg_buf_free(&scope);
    if (token.p)
        explicit_bzero(token.p, token.n);
    eg_buf_free(&token);
}

/* --- revoking --- */

static void add_revocation(struct eg_buf *b, const char *what, int64_t until_ms)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, strncmp(what, "jti:", 4) == 0 ? "jti" : "sub", what + 4);
    eg_json_ktime(b, "until", until_ms);
    eg_buf_char(b, '}');
}

void eg_h_token_revoke(struct eg_exchange *x)
{
    struct eg_slice jti, sub;
    char what[EG_ID_MAX + 8];
    struct eg_buf b = {0};
    if (!eg_x_check_body(x, "jti sub") || !eg_x_text(x, "jti", false, 1, EG_ID_MAX, 0, &jti) ||
        !eg_x_text(x, "sub", false, 1, EG_ID_MAX, 1, &sub))
        return;
    if ((jti.p != NULL) == (sub.p != NULL)) {
        eg_x_invalid(x, jti.p ? "sub" : "jti", "exactly one of jti and sub is needed");
        return;
    }
    const struct eg_slice id = jti.p ? jti : sub;
    snprintf(what, sizeof what, "%s:%.*s", jti.p ? "jti" : "sub", (int)id.n, id.p);
    struct eg_call call = {.kind = EG_CALL_REVOKE,
                           .text = eg_slice_cstr(what),
                           .turn = -1,
                           /* by then every token that exists now has expired */
                           .until_ms = eg_clock_now().wall_ms + x->settings->max_token_lifetime_ms +
                                       2 * EG_LEEWAY_S * 1000};
    if (!eg_x_call(x, &call, "token.revoke", what))
        return;
    add_revocation(&b, what, call.until_ms);
    eg_x_json(x, 200, &b);
}

struct revoked {
    struct eg_buf out;
    const char *after;
    char last[EG_ID_MAX + 8];
    int n, limit;
    bool more;
};

static void take_revoked(void *arg, const char *what, int64_t until_ms)
{
    struct revoked *l = arg;
    if (strlen(what) < 4 || strlen(what) >= sizeof l->last ||
        (l->after && strcmp(what, l->after) <= 0))
        return;
    if (l->n == l->limit) {
        l->more = true;
        return;
    }
    if (l->n++)
        eg_buf_char(&l->out, ',');
    add_revocation(&l->out, what, until_ms);
    strcpy(l->last, what);
}

void eg_h_revoked_list(struct eg_exchange *x)
{
    struct revoked l = {.after = NULL};
    struct eg_buf after = {0};
    bool bad;
    if (!eg_x_limit(x, &l.limit))
        return;
    if (eg_page_read(x, 'r', NULL, 0, &after, &bad))
        l.after = after.p;
    struct eg_reader *r = bad ? NULL : eg_x_reader(x);
    if (r) {
        eg_buf_str(&l.out, "{\"revoked\":[");
        const enum eg_err err = eg_reader_revoked(r, take_revoked, &l);
        if (err != EG_OK)
            eg_x_read_failed(x, err, eg_reader_why(r));
        eg_x_return(x, r);
        if (err == EG_OK) {
            eg_buf_char(&l.out, ']');
            if (l.more)
                eg_page_next(&l.out, "r:%s", l.last);
            else
                eg_page_end(&l.out);
            eg_buf_char(&l.out, '}');
            eg_x_json(x, 200, &l.out);
        }
    }
    eg_buf_free(&l.out);
    eg_buf_free(&after);
}

/* --- keys --- */

static void add_key(struct eg_buf *b, const struct eg_key_info *k)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "kid", k->kid);
    eg_json_kbool(b, "signing", k->signing);
    eg_json_key(b, "x");
    eg_buf_char(b, '"');
    eg_b64_encode(b, k->public_key, sizeof k->public_key);
    eg_buf_str(b, "\"}");
}

void eg_h_keys_list(struct eg_exchange *x)
{
    struct eg_buf b = {0};
    struct eg_keyring *ring = eg_auth_ring(x->http->config.auth);
    eg_buf_str(&b, "{\"keys\":[");
    for (int i = 0; i < eg_keyring_count(ring); i++) {
        if (i)
            eg_buf_char(&b, ',');
        add_key(&b, eg_keyring_at(ring, i));
    }
    eg_buf_char(&b, ']');
    eg_page_end(&b);
    eg_buf_char(&b, '}');
    eg_keyring_unref(ring);
    eg_x_json(x, 200, &b);
}

static const struct eg_key_info *key_named(const struct eg_keyring *ring, const char *kid)
{
    for (int i = 0; i < eg_keyring_count(ring); i++) {
        if (strcmp(eg_keyring_at(ring, i)->kid, kid) == 0)
            return eg_keyring_at(ring, i);
    }
    return NULL;
}

/* The folder of the key files; NULL: answered. To be freed. */
static char *keys_folder(struct eg_exchange *x)
{
    char *dir = NULL;
    if (*x->settings->key_file)
        eg_x_problem(x, 0, EG_CODE_conflict, "the key is the file named by the setting key_file",
                     NULL);
    else if (asprintf(&dir, "%s/keys", x->http->dir) < 0)
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
    return dir;
}

static bool reload(struct eg_exchange *x)
{
    char why[512] = "";
    if (x->http->config.reload_keys(x->http->config.arg, why, sizeof why) == EG_OK)
        return true;
    eg_log(EG_LOG_ERROR, "keys.reload_failed", "why=%s", why);
    eg_x_problem(x, 0, EG_CODE_internal, "the keys could not be read again; see the log", NULL);
    return false;
}

static void rotate(struct eg_exchange *x, const char *dir)
{
    char kid[64] = "", path[4096];
    struct eg_buf b = {0};
    const enum eg_err err = eg_key_generate(dir, eg_clock_now().wall_ms, kid, path, sizeof path);
    if (err != EG_OK) {
        eg_log(EG_LOG_ERROR, "keys.rotate_failed", "error=%s", eg_err_text(err));
        eg_x_problem(x, 0, EG_CODE_storage_unavailable, "the key file cannot be written", NULL);
        return;
    }
    if (!eg_x_audit(x, "key.rotate", kid)) {
        if (eg_key_delete(dir, kid) != EG_OK)
            eg_log(EG_LOG_ERROR, "keys.left", "path=%s", path);
        return;
    }
    if (!reload(x))
        return;
    struct eg_keyring *ring = eg_auth_ring(x->http->config.auth);
    const struct eg_key_info *k = key_named(ring, kid);
    if (k)
        add_key(&b, k);
    eg_keyring_unref(ring);
    eg_x_json(x, 201, &b);
}

void eg_h_keys_rotate(struct eg_exchange *x)
{
    char *dir = eg_x_check_body(x, "") ? keys_folder(x) : NULL;
    if (!dir)
        return;
    eg_http_keys_lock(&x->http->keys);
    rotate(x, dir);
    eg_http_keys_unlock(&x->http->keys);
    free(dir);
}

static void withdraw(struct eg_exchange *x, const char *dir)
{
    const char *kid = x->texts[2].p;
    struct eg_keyring *ring = eg_auth_ring(x->http->config.auth);
    const bool known = key_named(ring, kid) != NULL;
    const bool last = eg_keyring_count(ring) == 1;
    eg_keyring_unref(ring);
    if (!known) {
        eg_x_problem(x, 0, EG_CODE_not_found, "there is no such key", NULL);
    } else if (last) {
        eg_x_problem(x, 0, EG_CODE_conflict, "the last key cannot be withdrawn; rotate first",
                     NULL);
    } else if (eg_x_audit(x, "key.delete", kid)) {
        const enum eg_err err = eg_key_delete(dir, kid);
        if (err != EG_OK) {
            eg_log(EG_LOG_ERROR, "keys.delete_failed", "kid=%s" EG_F "error=%s", kid,
                   eg_err_text(err));
            eg_x_problem(x, 0, EG_CODE_storage_unavailable, "the key file cannot be removed", NULL);
        } else if (reload(x)) {
            eg_x_nothing(x);
        }
    }
}

void eg_h_key_delete(struct eg_exchange *x)
{
    char *dir = keys_folder(x);
    if (!dir)
        return;
    eg_http_keys_lock(&x->http->keys);
    withdraw(x, dir);
    eg_http_keys_unlock(&x->http->keys);
    free(dir);
}

void eg_h_jwks(struct eg_exchange *x)
{
    struct eg_buf b = {0};
    struct eg_keyring *ring = eg_auth_ring(x->http->config.auth);
    eg_keyring_jwks(ring, &b);
    eg_keyring_unref(ring);
    eg_buf_str(&x->fields, "Cache-Control: public, max-age=300\r\n");
    eg_x_json(x, 200, &b);
}
