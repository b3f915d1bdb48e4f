/*
 * input.c - reading what callers send: query parameters, members of a body, positions of pages.
 *
 * Any HTTP thread. Everything is checked against what the route knows: an unknown, repeated or
 * malformed field is answered by invalid_request with its name, before anything is done.
 */
#include <errno.h>
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"
#include "wire/token_text.h"

#define POSITION_MAX 512 /* bytes of a position, decoded */

/* --- query --- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes application/x-www-form-urlencoded text in place. False: malformed, or a NUL. */
static bool decode(char *text, size_t *n)
{
    char *to = text;
    size_t bad;
    for (const char *p = text; *p; p++) {
        if (*p != '%') {
            *to++ = *p == '+' ? ' ' : *p;
            continue;
        }
        const int high = hex(p[1]), low = high >= 0 ? hex(p[2]) : -1;
        if (low < 0 || high * 16 + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        p += 2;
    }
    *to = '\0';
    *n = (size_t)(to - text);
    return eg_utf8_valid((struct eg_slice){text, *n}, &bad);
}

static bool take_query(struct eg_exchange *x, char *at)
{
    for (char *next; at; at = next) {
        next = strchr(at, '&');
        if (next)
            *next++ = '\0';
        if (!*at)
            continue;
        char *value = strchr(at, '=');
        size_t name_n, value_n = 0;
        if (value)
            *value++ = '\0';
        if (!decode(at, &name_n) || (value && !decode(value, &value_n))) {
            eg_x_invalid(x, NULL, "the query is not well encoded");
            return false;
        }
        if (x->queries == EG_QUERY_MAX) {
            eg_x_invalid(x, NULL, "there are too many query parameters");
            return false;
        }
        for (int i = 0; i < x->queries; i++) {
            if (strcmp(x->query[i].name, at) == 0) {
                eg_x_invalid(x, at, "this parameter is given twice");
                return false;
            }
        }
        x->query[x->queries++] = (struct eg_query){at, {value ? value : at + name_n, value_n}};
    }
    return true;
}

bool eg_x_split(struct eg_exchange *x, const char *path, const char *query)
{
    const size_t path_n = strlen(path) + 1, query_n = query ? strlen(query) + 1 : 1;
    x->text = malloc(path_n + query_n);
    if (!x->text) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return false;
    }
    memcpy(x->text, query ? query : "", query_n);
    x->path = x->text + query_n;
    memcpy(x->path, path, path_n);
    return take_query(x, x->text);
}

/* Whether name is one of the space-separated words of names. */
static bool is_word(const char *names, const char *name, size_t n)
{
    for (const char *p = names; *p;) {
        const size_t len = strcspn(p, " ");
        if (len == n && memcmp(p, name, n) == 0)
            return true;
        p += len;
        p += *p == ' ';
    }
    return false;
}

bool eg_x_check_query(struct eg_exchange *x, const char *names)
{
    for (int i = 0; i < x->queries; i++) {
        const char *name = x->query[i].name;
        if (!is_word(names, name, strlen(name))) {
            eg_x_invalid(x, name, "this query parameter is not known here");
            return false;
        }
    }
    return true;
}

struct eg_slice eg_x_query(const struct eg_exchange *x, const char *name)
{
    for (int i = 0; i < x->queries; i++) {
        if (strcmp(x->query[i].name, name) == 0)
            return x->query[i].value;
    }
    return (struct eg_slice){NULL, 0};
}

/* Digits alone. */
static bool number(const char *p, size_t n, int64_t min, int64_t max, int64_t *out)
{
    char text[24];
    char *end;
    if (n == 0 || n >= sizeof text || strspn(p, "0123456789") < n)
        return false;
    memcpy(text, p, n);
    text[n] = '\0';
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (errno || *end || v < min || v > max)
        return false;
    *out = v;
    return true;
}

bool eg_x_query_int(struct eg_exchange *x, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char detail[96];
    const struct eg_slice s = eg_x_query(x, name);
    if (!s.p || number(s.p, s.n, min, max, out))
        return true;
    snprintf(detail, sizeof detail, "must be an integer from %lld to %lld", (long long)min,
             (long long)max);
    eg_x_invalid(x, name, detail);
    return false;
}

bool eg_x_limit(struct eg_exchange *x, int *out)
{
    int64_t n = EG_PAGE_DEFAULT;
    const bool ok = eg_x_query_int(x, "limit", 1, EG_PAGE_MAX, &n);
    *out = (int)n;
    return ok;
}

/* --- body --- */

/* The decoded name of a member, cut to fit. */
static void member_name(const struct eg_json_member *m, char *out, size_t size)
{
    const size_t n = m->key.n < size - 1 ? m->key.n : size - 1;
    memcpy(out, m->key.p, n);
    out[n] = '\0';
}

bool eg_x_check_body(struct eg_exchange *x, const char *names)
{
    char text[160];
    struct eg_slice body = {x->body.p, x->body.n};
    if (body.n == 0)
        body = EG_LIT("{}");
    const enum eg_err err = eg_json_scan(body, EG_JSON_DEPTH_MAX, &x->doc);
    if (err == EG_ENOMEM) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return false;
    }
    if (err != EG_OK) {
        snprintf(text, sizeof text, "%s at byte %zu", x->doc.reason, x->doc.offset);
        eg_x_problem(x, 0, EG_CODE_invalid_json, text, NULL);
        return false;
    }
    if (x->doc.kind != EG_JSON_OBJECT || x->doc.members >= EG_JSON_MEMBERS_MAX) {
        eg_x_invalid(x, NULL, "the body must be a JSON object of the fields known here");
        return false;
    }
    for (int i = 0; i < x->doc.members; i++) {
        const struct eg_json_member *m = &x->doc.member[i];
        if (!is_word(names, m->key.p, m->key.n)) {
            char name[64];
            member_name(m, name, sizeof name);
            eg_x_invalid(x, name, "this field is not known here");
            return false;
        }
    }
    return true;
}

/* The member; false when it is required and missing (answered). null counts as absent. */
static bool member(struct eg_exchange *x, const char *name, bool required,
                   const struct eg_json_member **out)
{
    *out = eg_json_get(&x->doc, name);
    if (*out && (*out)->kind == EG_JSON_NULL)
        *out = NULL;
    if (*out || !required)
        return true;
    eg_x_invalid(x, name, "this field is required");
    return false;
}

bool eg_x_text(struct eg_exchange *x, const char *name, bool required, size_t min, size_t max,
               int slot, struct eg_slice *out)
{
    const struct eg_json_member *m;
    struct eg_buf *b = &x->texts[slot];
    char detail[96];
    *out = (struct eg_slice){NULL, 0};
    if (!member(x, name, required, &m))
        return false;
    if (!m)
        return true;
    if (m->kind == EG_JSON_STRING) {
        eg_buf_reset(b);
        eg_json_unquote(m->value, b);
        eg_buf_char(b, '\0');
        if (b->err != EG_OK) {
            eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
            return false;
        }
        *out = (struct eg_slice){b->p, b->n - 1};
        if (out->n >= min && out->n <= max)
            return true;
    }
    snprintf(detail, sizeof detail, "must be a string of %zu to %zu bytes", min, max);
    eg_x_invalid(x, name, detail);
    return false;
}

bool eg_x_int(struct eg_exchange *x, const char *name, bool required, int64_t min, int64_t max,
              int64_t *out)
{
    const struct eg_json_member *m;
    char detail[96];
    int64_t v;
    if (!member(x, name, required, &m))
        return false;
    if (!m)
        return true;
    if (m->kind == EG_JSON_NUMBER && eg_json_integer(m->value, &v) && v >= min && v <= max) {
        *out = v;
        return true;
    }
    snprintf(detail, sizeof detail, "must be an integer from %lld to %lld", (long long)min,
             (long long)max);
    eg_x_invalid(x, name, detail);
    return false;
}

void eg_list_free(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

/* The elements of a checked array as ids. NULL when one is none, or without memory. */
static char **ids_of(const cJSON *array)
{
    const int n = cJSON_GetArraySize(array);
    char **list = n <= 100 ? calloc((size_t)n + 1, sizeof *list) : NULL;
    const cJSON *e;
    int at = 0;
    cJSON_ArrayForEach(e, array)
    {
        const char *s = list ? cJSON_GetStringValue(e) : NULL;
        if (!s || !*s || strlen(s) > EG_ID_MAX || !(list[at++] = strdup(s))) {
            eg_list_free(list);
            return NULL;
        }
    }
    return list;
}

bool eg_x_list(struct eg_exchange *x, const char *name, char ***out)
{
    const struct eg_json_member *m;
    *out = NULL;
    if (!member(x, name, false, &m))
        return false;
    if (!m)
        return true;
    if (m->kind == EG_JSON_ARRAY) {
        cJSON *array = cJSON_ParseWithLength(m->value.p, m->value.n);
        *out = array ? ids_of(array) : NULL;
        cJSON_Delete(array);
    }
    if (*out)
        return true;
    eg_x_invalid(x, name, "must be a list of at most 100 ids of 1 to 128 bytes");
    return false;
}

/* --- positions of pages --- */

void eg_page_next(struct eg_buf *out, const char *fmt, ...)
{
    char text[POSITION_MAX];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    eg_json_key(out, "next");
    eg_buf_char(out, '"');
    eg_b64_encode(out, text, n > 0 && (size_t)n < sizeof text ? (size_t)n : 0);
    eg_buf_char(out, '"');
}

void eg_page_end(struct eg_buf *out)
{
    eg_json_kcstr(out, "next", NULL);
}

/* Reads "K:1:2:rest". */
static bool position(char *p, char kind, int64_t *number_out, int numbers, struct eg_buf *text)
{
    if (*p++ != kind)
        return false;
    for (int i = 0; i < numbers; i++) {
        const size_t n = *p == ':' ? strspn(p + 1, "0123456789") : 0;
        if (!number(p + 1, n, 0, INT64_MAX, &number_out[i]))
            return false;
        p += 1 + n;
    }
    if (!text)
        return *p == '\0';
    if (*p != ':')
        return false;
    eg_buf_str(text, p + 1);
    eg_buf_char(text, '\0');
    return text->err == EG_OK;
}

bool eg_page_read(struct eg_exchange *x, char kind, int64_t *number_out, int numbers,
                  struct eg_buf *text, bool *bad)
{
    char raw[POSITION_MAX];
    size_t n = 0;
    const struct eg_slice s = eg_x_query(x, "next");
    *bad = false;
    if (!s.p)
        return false;
    if (s.n > 0 && eg_b64_decode(s, (uint8_t *)raw, sizeof raw - 1, &n)) {
        raw[n] = '\0';
        if (strlen(raw) == n && position(raw, kind, number_out, numbers, text))
            return true;
    }
    *bad = true;
    eg_x_invalid(x, "next", "is not from the page before");
    return false;
}
