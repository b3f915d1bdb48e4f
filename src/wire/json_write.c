/*
 * json_write.c - writing JSON into a buffer. Pure, any thread, owns nothing; a failed allocation is
 * latched by the buffer.
 */
#include "wire/json.h"
#include "wire/json_text.h"

/* What stands for c in a string, in out; returns its length. */
static size_t escape(unsigned char c, char out[6])
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                   ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};

    out[0] = '\\';
    if (c < sizeof(letters) && letters[c]) {
        out[1] = letters[c];
        return 2;
    }
    out[1] = 'u';
    out[2] = out[3] = '0';
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

/* The first byte of p..end that cannot stand in a string as it is. */
static const char *clean(const char *p, const char *end)
{
    while ((p = eg_json_plain(p, end)) < end && (unsigned char)*p >= 0x80)
        p++;
    return p;
}

size_t eg_json_quoted_size(struct eg_slice s)
{
    const char *p = s.n ? s.p : "", *end = p + s.n;
    size_t n = s.n + 2;
    char out[6];

    while ((p = clean(p, end)) < end)
        n += escape((unsigned char)*p++, out) - 1;
    return n;
}

char *eg_json_quote_to(char *o, struct eg_slice s)
{
    const char *p = s.n ? s.p : "", *end = p + s.n;

    *o++ = '"';
    while (p < end) {
        const char *stop = clean(p, end);

        memcpy(o, p, (size_t)(stop - p));
        o += stop - p;
        p = stop;
        if (p < end)
            o += escape((unsigned char)*p++, o);
    }
    *o++ = '"';
    return o;
}

void eg_json_quote(struct eg_buf *out, struct eg_slice s)
{
    size_t n = eg_json_quoted_size(s);
    char *o = eg_buf_reserve(out, n);

    if (o) {
        eg_json_quote_to(o, s);
        out->n += n;
    }
}

void eg_json_key(struct eg_buf *out, const char *key)
{
    if (out->n > 0 && out->p[out->n - 1] != '{' && out->p[out->n - 1] != '[')
        eg_buf_char(out, ',');
    eg_buf_char(out, '"');
    eg_buf_str(out, key);
    eg_buf_add(out, "\":", 2);
}

void eg_json_kstr(struct eg_buf *out, const char *key, struct eg_slice value)
{
    eg_json_key(out, key);
    eg_json_quote(out, value);
}

void eg_json_kcstr(struct eg_buf *out, const char *key, const char *value)
{
    eg_json_key(out, key);
    if (value)
        eg_json_quote(out, eg_slice_cstr(value));
    else
        eg_buf_add(out, "null", 4);
}

void eg_json_kint(struct eg_buf *out, const char *key, int64_t value)
{
    eg_json_key(out, key);
    eg_buf_int(out, value);
}

void eg_json_kbool(struct eg_buf *out, const char *key, bool value)
{
    eg_json_key(out, key);
    eg_buf_str(out, value ? "true" : "false");
}

void eg_json_kraw(struct eg_buf *out, const char *key, struct eg_slice raw)
{
    eg_json_key(out, key);
    eg_buf_slice(out, raw);
}

void eg_json_ktime(struct eg_buf *out, const char *key, int64_t ms)
{
    uint64_t abs = ms < 0 ? 0 - (uint64_t)ms : (uint64_t)ms;
    char frac[] = {'.', (char)('0' + abs % 1000 / 100), (char)('0' + abs % 100 / 10),
                   (char)('0' + abs % 10)};

    eg_json_key(out, key);
    if (ms < 0)
        eg_buf_char(out, '-');
    eg_buf_int(out, (int64_t)(abs / 1000));
    eg_buf_add(out, frac, sizeof(frac));
}
