/*
 * fields.c - see fields.h.
 */
#include "app/fields.h"

#include <string.h>

#include "ebbgate/protocol.h"

char *eg_field_text(const struct eg_json_doc *doc, const char *key)
{
    struct eg_buf b = {0};
    const struct eg_json_member *m = eg_json_get(doc, key);
    if (!m || m->kind != EG_JSON_STRING)
        return NULL;
    eg_json_unquote(m->value, &b);
    return eg_buf_take(&b);
}

struct eg_slice eg_field_raw(const struct eg_json_doc *doc, const char *key)
{
    const struct eg_json_member *m = eg_json_get(doc, key);
    return m && m->kind != EG_JSON_NULL ? m->value : (struct eg_slice){NULL, 0};
}

bool eg_field_int(const struct eg_json_doc *doc, const char *key, int64_t *out)
{
    const struct eg_json_member *m = eg_json_get(doc, key);
    return m && m->kind == EG_JSON_NUMBER && eg_json_integer(m->value, out);
}

int64_t eg_field_int_or(const struct eg_json_doc *doc, const char *key, int64_t other)
{
    int64_t v = 0;
    return eg_field_int(doc, key, &v) ? v : other;
}

bool eg_field_is(const struct eg_json_doc *doc, const char *key, const char *text)
{
    const struct eg_json_member *m = eg_json_get(doc, key);
    size_t n = strlen(text);
    return m && m->kind == EG_JSON_STRING && m->value.n == n + 2 &&
           memcmp(m->value.p + 1, text, n) == 0;
}

bool eg_field_true(const struct eg_json_doc *doc, const char *key)
{
    const struct eg_json_member *m = eg_json_get(doc, key);
    return m && m->kind == EG_JSON_BOOL && *m->value.p == 't';
}

bool eg_field_object(const struct eg_json_doc *doc, const char *key, struct eg_json_doc *out)
{
    const struct eg_json_member *m = eg_json_get(doc, key);
    return m && m->kind == EG_JSON_OBJECT &&
           eg_json_scan(m->value, EG_JSON_DEPTH_MAX, out) == EG_OK;
}

void eg_content_text(struct eg_slice raw, struct eg_buf *out)
{
    if (raw.n >= 2 && *raw.p == '"')
        eg_json_unquote(raw, out);
    else
        eg_buf_slice(out, raw);
}
