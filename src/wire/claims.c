/*
 * claims.c - the claims of a token (RFC 7519 4): read, judged, written.
 *
 * Pure, any thread. Reading happens only after the signature was verified. A claims struct owns its
 * strings; whatever is refused leaves nothing behind. Every refusal has a static cause for the log.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json.h"
#include "wire/json_text.h"
#include "wire/token_text.h"

static const struct {
    const char *word;
    enum eg_scope bit;
} scope_words[] = {{"read", EG_SCOPE_READ},
                   {"write", EG_SCOPE_WRITE},
                   {"agent", EG_SCOPE_AGENT},
                   {"admin", EG_SCOPE_ADMIN},
                   {"admin:read", EG_SCOPE_ADMIN_READ}};

#define SCOPE_WORDS (sizeof(scope_words) / sizeof(*scope_words))

/* The bits of the words in text, parted by spaces; false when one is unknown. */
static bool scopes_read(const char *text, unsigned *out)
{
    bool known = true;

    *out = 0;
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t n = strcspn(text, " "), i;

        for (i = 0; i < SCOPE_WORDS; i++)
            if (strlen(scope_words[i].word) == n && memcmp(scope_words[i].word, text, n) == 0)
                break;
        if (i < SCOPE_WORDS)
            *out |= scope_words[i].bit;
        else
            known = false;
        text += n;
    }
    return known;
}

enum eg_err eg_scopes_parse(const char *text, unsigned *out)
{
    return scopes_read(text, out) ? EG_OK : EG_EINVALID;
}

void eg_scopes_print(unsigned scopes, struct eg_buf *out)
{
    bool first = true;

    for (size_t i = 0; i < SCOPE_WORDS; i++)
        if (scopes & scope_words[i].bit) {
            if (!first)
                eg_buf_char(out, ' ');
            eg_buf_str(out, scope_words[i].word);
            first = false;
        }
}

static void list_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

void eg_claims_free(struct eg_claims *c)
{
    free(c->sub);
    free(c->jti);
    free(c->kid);
    list_free(c->agents);
    list_free(c->sessions);
    list_free(c->aud);
    *c = (struct eg_claims){0};
}

bool eg_claims_list_has(char **list, struct eg_slice id, bool absent)
{
    if (!list)
        return absent;
    for (size_t i = 0; list[i]; i++)
        if (strcmp(list[i], "*") == 0 || eg_slice_is(id, list[i]))
            return true;
    return false;
}

/* ---- reading ---- */

/* A payload under way. err is latched; cause says why. */
struct reading {
    struct eg_slice payload;
    enum eg_err err;
    const char *cause;
};

static void refuse(struct reading *r, const char *cause)
{
    if (!r->err) {
        r->err = EG_EDENIED;
        r->cause = cause;
    }
}

/* A decoded string as C text, NULL on failure. The guard has kept NUL out. */
static char *text_of(struct reading *r, struct eg_slice quoted)
{
    struct eg_buf b = {0};
    char *text;

    eg_json_unquote(quoted, &b);
    text = eg_buf_take(&b);
    if (!text && !r->err)
        r->err = EG_ENOMEM;
    return text;
}

/* A claim that is an id: a string of 1-128 bytes. */
static char *read_id(struct reading *r, const char *name, const char *cause)
{
    struct eg_json_member m;
    char *text = NULL;

    if (eg_json_find(r->payload, name, &m) && m.kind == EG_JSON_STRING) {
        text = text_of(r, m.value);
        if (text && (*text == '\0' || strlen(text) > EG_ID_MAX))
            refuse(r, cause);
    } else {
        refuse(r, cause);
    }
    return text;
}

/* A NumericDate (RFC 7519 2): whole seconds, rounded down. 0 when absent; a present one is > 0. */
static int64_t read_date(struct reading *r, const char *name, const char *cause)
{
    struct eg_json_member m;
    int64_t v = 0;
    double d;

    if (!eg_json_find(r->payload, name, &m))
        return 0;
    if (m.kind != EG_JSON_NUMBER) {
        refuse(r, cause);
        return 0;
    }
    if (!eg_json_integer(m.value, &v)) {
        d = eg_json_double(m.value);
        v = d >= 1 && d <= (double)EG_JSON_INT_MAX ? (int64_t)floor(d) : 0;
    }
    if (v < 1)
        refuse(r, cause);
    return v;
}

/* A claim that is a list of strings, or where one is enough also a string. NULL when absent. */
static char **read_list(struct reading *r, const char *name, bool one_is_enough, const char *cause)
{
    struct eg_json_member m, item;
    const char *at, *end;
    char **list;
    size_t n = 0;

    if (!eg_json_find(r->payload, name, &m))
        return NULL;
    if (m.kind != EG_JSON_ARRAY && !(one_is_enough && m.kind == EG_JSON_STRING)) {
        refuse(r, cause);
        return NULL;
    }
    list = calloc(m.value.n / 3 + 3, sizeof(*list)); /* an item takes a comma and two quotes */
    if (!list) {
        r->err = EG_ENOMEM;
        return NULL;
    }
    if (m.kind == EG_JSON_STRING) {
        list[0] = text_of(r, m.value);
        return list;
    }
    at = m.value.p + 1;
    end = m.value.p + m.value.n;
    while (!r->err && eg_json_next(&at, end, false, &item)) {
        if (item.kind == EG_JSON_STRING)
            list[n++] = text_of(r, item.value);
        else
            refuse(r, cause);
    }
    return list;
}

static void read_scope(struct reading *r, unsigned *out)
{
    struct eg_json_member m;
    char *text;

    *out = 0;
    if (!eg_json_find(r->payload, "scope", &m))
        return;
    if (m.kind != EG_JSON_STRING) {
        refuse(r, "scope is not a string");
        return;
    }
    text = text_of(r, m.value);
    if (text)
        scopes_read(text, out);
    free(text);
}

static void judge_times(struct reading *r, const struct eg_claims *c,
                        const struct eg_token_rules *rules)
{
    int64_t now = rules->now_s, from = c->iat_s ? c->iat_s : now;

    if (!c->exp_s)
        refuse(r, "exp is missing");
    if (now >= c->exp_s + EG_LEEWAY_S)
        refuse(r, "expired");
    if (c->nbf_s > now + EG_LEEWAY_S)
        refuse(r, "not valid yet (nbf)");
    if (c->iat_s > now + EG_LEEWAY_S)
        refuse(r, "issued in the future (iat)");
    if (c->iat_s && c->exp_s < c->iat_s)
        refuse(r, "expires before it was issued");
    if (rules->max_lifetime_s > 0 && c->exp_s - from > rules->max_lifetime_s)
        refuse(r, "lifetime is longer than allowed");
}

static void judge_audience(struct reading *r, const struct eg_claims *c,
                           const struct eg_token_rules *rules)
{
    if (!rules->audience || !*rules->audience)
        return;
    for (size_t i = 0; c->aud && c->aud[i]; i++)
        if (strcmp(c->aud[i], rules->audience) == 0)
            return;
    refuse(r, "made for another audience");
}

enum eg_err eg_claims_read(struct eg_slice payload, const struct eg_token_rules *rules,
                           struct eg_claims *claims, const char **cause)
{
    struct reading r = {.payload = payload};
    struct eg_json_doc doc;

    *claims = (struct eg_claims){0};
    r.err = eg_json_scan(payload, EG_JSON_DEPTH_MAX, &doc);
    if (r.err == EG_EINVALID || (!r.err && doc.kind != EG_JSON_OBJECT)) {
        r.err = EG_EDENIED;
        r.cause = "the claims are not a strict JSON object";
    }
    if (!r.err) {
        claims->sub = read_id(&r, "sub", "sub is missing or not 1 to 128 bytes");
        claims->jti = read_id(&r, "jti", "jti is missing or not 1 to 128 bytes");
        claims->exp_s = read_date(&r, "exp", "exp is not a time");
        claims->iat_s = read_date(&r, "iat", "iat is not a time");
        claims->nbf_s = read_date(&r, "nbf", "nbf is not a time");
        claims->agents = read_list(&r, "agents", false, "agents is not a list of strings");
        claims->sessions = read_list(&r, "sessions", false, "sessions is not a list of strings");
        claims->aud = read_list(&r, "aud", true, "aud is not a string or a list of strings");
        read_scope(&r, &claims->scopes);
        judge_times(&r, claims, rules);
        judge_audience(&r, claims, rules);
    }
    if (r.err) {
        eg_claims_free(claims);
        *cause = r.err == EG_ENOMEM ? "out of memory" : r.cause;
    }
    return r.err;
}

/* ---- writing ---- */

static void write_list(struct eg_buf *out, const char *key, char **list)
{
    if (!list)
        return;
    eg_json_key(out, key);
    eg_buf_char(out, '[');
    for (size_t i = 0; list[i]; i++) {
        if (i > 0)
            eg_buf_char(out, ',');
        eg_json_quote(out, eg_slice_cstr(list[i]));
    }
    eg_buf_char(out, ']');
}

void eg_claims_write(const struct eg_claims *claims, const char *jti, struct eg_buf *out)
{
    eg_buf_char(out, '{');
    eg_json_kcstr(out, "sub", claims->sub);
    if (claims->iat_s)
        eg_json_kint(out, "iat", claims->iat_s);
    if (claims->nbf_s)
        eg_json_kint(out, "nbf", claims->nbf_s);
    eg_json_kint(out, "exp", claims->exp_s);
    eg_json_kcstr(out, "jti", jti);
    if (claims->scopes) {
        eg_json_key(out, "scope");
        eg_buf_char(out, '"');
        eg_scopes_print(claims->scopes, out);
        eg_buf_char(out, '"');
    }
    if (claims->aud && claims->aud[0] && !claims->aud[1])
        eg_json_kcstr(out, "aud", claims->aud[0]);
    else
        write_list(out, "aud", claims->aud);
    write_list(out, "agents", claims->agents);
    write_list(out, "sessions", claims->sessions);
    eg_buf_char(out, '}');
}
