/*
 * json_write.c - writing JSON into a buffer. Pure, any thread, owns nothing; a failed allocation is
 * latched by the buffer.
 */
#include "wire/json.h"
#include "wire/json_text.h"

/* Appends one character that cannot stand in a string as it is. */
static void quote_char(struct eg_buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char *const names[] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
    char u[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    if (c == '"' || c == '\\') {
        char pair[] = {'\\', (char)c};

        eg_buf_add(out, pair, sizeof(pair));
    } else if (c < sizeof(names) / sizeof(*names) && names[c]) {
        eg_buf_add(out, names[c], 2);
    } else {
        eg_buf_add(out, u, sizeof(u));
    }
}

void eg_json_quote(struct eg_buf *out, struct eg_slice s)
{
    const char *p = s.p, *end = s.p + s.n, *from = p;

    eg_buf_char(out, '"');
    while (p < end) {
        p = eg_json_plain(p, end);
        if (p == end)
            break;
        if ((unsigned char)*p >= 0x80) {
            p++;
            continue;
        }
        eg_buf_add(out, from, (size_t)(p - from));
        quote_char(out, (unsigned char)*p);
        from = ++p;
    }
    eg_buf_add(out, from, (size_t)(end - from));
    eg_buf_char(out, '"');
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
