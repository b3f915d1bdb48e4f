/*
 * json.c - reading JSON text that the guard (json_scan.c) has accepted: where values end, members
 * by name, strings and numbers decoded, whitespace removed.
 *
 * Pure, any thread, owns nothing. Nothing here fails but for memory, which eg_buf latches.
 */
#include <math.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "wire/json.h"
#include "wire/json_text.h"

const char *eg_json_plain(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(0x20);

    /* Compared as signed numbers, bytes that are not ASCII are below a space too. */
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i bad = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmplt_epi8(v, space)),
                                   _mm_cmpeq_epi8(v, backslash));
        int mask = _mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (end - p >= 8) {
        uint64_t w = eg_load8(p);

        if ((w & EG_HIGH_BITS) | eg_zero8(w ^ EG_LOW_BITS * '"') |
            eg_zero8(w ^ EG_LOW_BITS * '\\') | ((w - EG_LOW_BITS * 0x20) & EG_HIGH_BITS))
            break;
        p += 8;
    }
    /* From here on it is at most seven bytes, or the next byte that is none of the plain ones. */
    while (p < end && (unsigned char)(*p - 0x20) < 0x60 && *p != '"' && *p != '\\')
        p++;
    return p;
}

const char *eg_json_skip_string(const char *p, const char *end)
{
    p++;
    while (p < end) {
#ifdef __SSE2__
        if (end - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
            __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                        _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
            int mask = _mm_movemask_epi8(stop);

            p += mask ? __builtin_ctz((unsigned)mask) : 16;
            if (!mask)
                continue;
            if (*p == '"')
                return p + 1;
            p += 2;
            continue;
        }
#endif
        if (end - p >= 8) {
            uint64_t w = eg_load8(p);

            if ((eg_zero8(w ^ EG_LOW_BITS * '"') | eg_zero8(w ^ EG_LOW_BITS * '\\')) == 0) {
                p += 8;
                continue;
            }
        }
        while (p < end && *p != '"' && *p != '\\')
            p++;
        if (p < end && *p == '"')
            return p + 1;
        p += 2;
    }
    return end;
}

const char *eg_json_skip_space(const char *p, const char *end)
{
    while (p < end && eg_json_space(*p))
        p++;
    return p;
}

const char *eg_json_skip_value(const char *p, const char *end)
{
    int open = 0;

    do {
        if (p >= end)
            return end;
        switch (*p) {
        case '"':
            p = eg_json_skip_string(p, end);
            break;
        case '{':
        case '[':
            open++;
            p++;
            break;
        case '}':
        case ']':
            open--;
            p++;
            break;
        default:
            if (open > 0) {
                p++;
                break;
            }
            while (p < end && !eg_json_space(*p) && *p != ',' && *p != '}' && *p != ']')
                p++;
        }
    } while (open > 0);
    return p;
}

enum eg_json_kind eg_json_kind_of(char c)
{
    switch (c) {
    case '"':
        return EG_JSON_STRING;
    case '{':
        return EG_JSON_OBJECT;
    case '[':
        return EG_JSON_ARRAY;
    case 't':
    case 'f':
        return EG_JSON_BOOL;
    case 'n':
        return EG_JSON_NULL;
    default:
        return EG_JSON_NUMBER;
    }
}

bool eg_json_next(const char **p, const char *end, bool object, struct eg_json_member *out)
{
    const char *at = eg_json_skip_space(*p, end);

    if (at < end && *at == ',')
        at = eg_json_skip_space(at + 1, end);
    if (at >= end || *at == '}' || *at == ']')
        return false;
    out->key = (struct eg_slice){NULL, 0};
    if (object) {
        const char *key = at;

        at = eg_json_skip_string(at, end);
        if (at - key < 2)
            return false;
        out->key = (struct eg_slice){key + 1, (size_t)(at - key) - 2};
        at = eg_json_skip_space(at, end);
        at = eg_json_skip_space(at < end ? at + 1 : at, end); /* the colon */
        if (at >= end)
            return false;
    }
    *p = eg_json_skip_value(at, end);
    out->value = (struct eg_slice){at, (size_t)(*p - at)};
    out->kind = eg_json_kind_of(*at);
    return true;
}

bool eg_json_key_is(struct eg_slice key, const char *name)
{
    char quoted[96], small[96];
    struct eg_buf b = {0};
    size_t n = strlen(name);
    bool same;

    if (key.n == n && memcmp(key.p, name, n) == 0)
        return !memchr(key.p, '\\', n);
    if (key.n <= n || key.n > 6 * n || !memchr(key.p, '\\', key.n))
        return false;
    if (key.n > sizeof(quoted) - 2) {
        char *copy = malloc(key.n + 2);

        if (!copy)
            return false;
        copy[0] = copy[key.n + 1] = '"';
        memcpy(copy + 1, key.p, key.n);
        eg_json_unquote((struct eg_slice){copy, key.n + 2}, &b);
        free(copy);
        same = b.n == n && memcmp(b.p, name, n) == 0;
        eg_buf_free(&b);
        return same;
    }
    quoted[0] = quoted[key.n + 1] = '"';
    memcpy(quoted + 1, key.p, key.n);
    b.p = small; /* decoded text is never longer, so the buffer does not grow */
    b.cap = sizeof(small);
    eg_json_unquote((struct eg_slice){quoted, key.n + 2}, &b);
    return b.n == n && memcmp(small, name, n) == 0;
}

const struct eg_json_member *eg_json_get(const struct eg_json_doc *doc, const char *key)
{
    for (int i = 0; i < doc->members; i++)
        if (eg_json_key_is(doc->member[i].key, key))
            return &doc->member[i];
    return NULL;
}

bool eg_json_find(struct eg_slice object, const char *name, struct eg_json_member *out)
{
    const char *p = object.n ? object.p : "", *end = p + object.n;

    p = eg_json_skip_space(p, end);
    if (p == end || *p++ != '{')
        return false;
    while (eg_json_next(&p, end, true, out))
        if (eg_json_key_is(out->key, name))
            return true;
    return false;
}

static unsigned hex(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10) & 15;
}

static unsigned hex4(const char *p)
{
    return hex(p[0]) << 12 | hex(p[1]) << 8 | hex(p[2]) << 4 | hex(p[3]);
}

static char *put_utf8(char *o, unsigned c)
{
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 0x3f));
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    }
    return o;
}

/* Decodes p..end, the inside of a string, to o; returns the end of what was written. */
static char *decode(const char *p, const char *end, char *o)
{
    while (p < end) {
        const char *stop = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p);
        unsigned c;

        memcpy(o, p, n);
        o += n;
        p += n;
        if (p == end)
            break;
        if (end - p < 2 || (p[1] == 'u' && end - p < 6))
            break; /* not a checked text */
        switch (p[1]) {
        case 'u':
            c = hex4(p + 2);
            p += 6;
            if (c >= 0xd800 && c <= 0xdbff && end - p >= 6) {
                c = 0x10000 + ((c - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
                p += 6;
            }
            o = put_utf8(o, c);
            continue;
        case 'b':
            *o++ = '\b';
            break;
        case 'f':
            *o++ = '\f';
            break;
        case 'n':
            *o++ = '\n';
            break;
        case 'r':
            *o++ = '\r';
            break;
        case 't':
            *o++ = '\t';
            break;
        default:
            *o++ = p[1];
        }
        p += 2;
    }
    return o;
}

void eg_json_unquote(struct eg_slice quoted, struct eg_buf *out)
{
    char *o = quoted.n > 2 ? eg_buf_reserve(out, quoted.n - 2) : NULL;

    if (o)
        out->n += (size_t)(decode(quoted.p + 1, quoted.p + quoted.n - 1, o) - o);
}

bool eg_json_integer(struct eg_slice number, int64_t *out)
{
    bool minus = number.n > 0 && number.p[0] == '-';
    int64_t v = 0;

    if (number.n == minus || number.n > 17)
        return false;
    for (size_t i = minus; i < number.n; i++) {
        if (number.p[i] < '0' || number.p[i] > '9')
            return false;
        v = v * 10 + (number.p[i] - '0');
    }
    if (v > 9007199254740991LL)
        return false;
    *out = minus ? -v : v;
    return true;
}

double eg_json_double(struct eg_slice number)
{
    char small[128], *text = number.n < sizeof(small) ? small : malloc(number.n + 1);
    double v;

    if (!text)
        return NAN;
    memcpy(text, number.p, number.n);
    text[number.n] = '\0';
    v = strtod(text, NULL);
    if (text != small)
        free(text);
    return v;
}

void eg_json_compact(struct eg_buf *out, struct eg_slice text)
{
    const char *p = text.n ? text.p : "", *end = p + text.n, *from;
    char *o = eg_buf_reserve(out, text.n), *start = o;

    if (!o)
        return;
    for (from = p; p < end;) {
        if (*p == '"') {
            p = eg_json_skip_string(p, end);
        } else if (eg_json_space(*p)) {
            memcpy(o, from, (size_t)(p - from));
            o += p - from;
            from = p = eg_json_skip_space(p, end);
        } else {
            p++;
        }
    }
    memcpy(o, from, (size_t)(end - from));
    o += end - from;
    out->n += (size_t)(o - start);
}
