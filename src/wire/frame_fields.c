/*
 * frame_fields.c - readers of single fields: strings, ids, exact integers, flags, raw JSON.
 *
 * Pure, any thread. What is decoded goes to the frame's scratch buffer, which has room for the
 * whole text from the start, so that slices into it stay where they are.
 */
#include <stdio.h>
#include <string.h>

#include "wire/frame_fields.h"
#include "wire/json_text.h"

bool eg_parse_get(const struct eg_parse *p, const char *key, struct eg_json_member *out)
{
    const struct eg_json_member *m = eg_json_get(p->doc, key);

    if (m) {
        *out = *m;
        return true;
    }
    /* A frame may carry more unknown members than the guard keeps. */
    return p->doc->members == EG_JSON_MEMBERS_MAX && eg_json_find(p->text, key, out);
}

bool eg_parse_value(const struct eg_parse *p, const char *key, struct eg_json_member *out)
{
    return eg_parse_get(p, key, out) && out->kind != EG_JSON_NULL;
}

bool eg_refuse(struct eg_parse *p, const char *field, const char *what)
{
    p->err->code = EG_CODE_invalid_request;
    snprintf(p->err->field, sizeof(p->err->field), "%s", field);
    snprintf(p->err->message, sizeof(p->err->message), "%s: %s", field, what);
    return false;
}

struct eg_slice eg_parse_text(struct eg_parse *p, struct eg_slice quoted)
{
    struct eg_buf *b = &p->frame->scratch;
    size_t from = b->n;

    eg_json_unquote(quoted, b);
    return (struct eg_slice){b->p + from, b->n - from};
}

bool eg_read_string(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                    struct eg_slice *out)
{
    if (m->kind != EG_JSON_STRING)
        return eg_refuse(p, field, "must be a string");
    *out = eg_parse_text(p, m->value);
    return true;
}

bool eg_read_id(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                struct eg_slice *out)
{
    if (!eg_read_string(p, m, field, out))
        return false;
    if (out->n == 0 || out->n > EG_ID_MAX)
        return eg_refuse(p, field, "must be 1 to 128 bytes long");
    return true;
}

bool eg_read_integer(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                     int64_t min, int64_t max, int64_t *out)
{
    int64_t v;
    char what[80];

    if (m->kind != EG_JSON_NUMBER || !eg_json_integer(m->value, &v))
        return eg_refuse(p, field, "must be an integer");
    if (v < min || v > max) {
        snprintf(what, sizeof(what), "must be an integer from %lld to %lld", (long long)min,
                 (long long)max);
        return eg_refuse(p, field, what);
    }
    *out = v;
    return true;
}

bool eg_read_bool(struct eg_parse *p, const struct eg_json_member *m, const char *field, bool *out)
{
    if (m->kind != EG_JSON_BOOL)
        return eg_refuse(p, field, "must be true or false");
    *out = m->value.p[0] == 't';
    return true;
}

bool eg_read_raw(struct eg_parse *p, const struct eg_json_member *m, struct eg_slice *out)
{
    struct eg_buf *b = &p->frame->scratch;
    size_t from = b->n;

    eg_json_compact(b, m->value);
    *out = (struct eg_slice){b->p + from, b->n - from};
    return true;
}
