/*
 * text.c - see text.h.
 */
#include "app/text.h"

#include "wire/json.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* How many bytes the character that starts with c has; 0: none starts so. */
static size_t length_of(uint8_t c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef)
        return 3;
    if (c >= 0xf0 && c <= 0xf4)
        return 4;
    return 0;
}

/* Whether the n < length bytes at p can become a character. */
static bool may_become(const char *p, size_t n)
{
    static const char tails[3][4] = {"\x80\x80", "\xbf\xbf", "\xa0\x80"};
    for (int t = 0; t < 3; t++) {
        char whole[5];
        size_t length = length_of((uint8_t)*p), offset;
        if (length == 0 || length <= n)
            return false;
        for (size_t i = 0; i < length; i++)
            whole[i] = i < n ? p[i] : i - n < 2 ? tails[t][i - n] : '\x80';
        if (eg_utf8_valid((struct eg_slice){whole, length}, &offset))
            return true;
    }
    /* f0 wants 90..bf, f4 and ed want 80..8f and 80..9f next: the tails above cover 80, a0, bf. */
    return n == 1 && (uint8_t)*p >= 0xe0;
}

size_t eg_text_clean(struct eg_buf *out, const char *p, size_t n, bool last)
{
    size_t i = 0, plain = 0, offset;
    while (i < n) {
        size_t length = length_of((uint8_t)p[i]);
        size_t left = n - i;
        if (p[i] != '\0' && length != 0 && length <= left &&
            eg_utf8_valid((struct eg_slice){p + i, length}, &offset)) {
            i += length;
            continue;
        }
        eg_buf_add(out, p + plain, i - plain);
        if (length > left && !last && may_become(p + i, left))
            return i;
        eg_buf_str(out, REPLACEMENT);
        plain = ++i;
    }
    eg_buf_add(out, p + plain, i - plain);
    return n;
}

void eg_text_show(struct eg_buf *out, struct eg_slice text)
{
    for (size_t i = 0; i < text.n;) {
        uint8_t c = (uint8_t)text.p[i];
        size_t length = length_of(c);
        if (length == 0 || length > text.n - i)
            length = 1;
        bool bad = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || (c >= 0x80 && length == 1);
        if (length == 2 && c == 0xc2 && (uint8_t)text.p[i + 1] < 0xa0)
            bad = true; /* C1 controls */
        if (length == 3) {
            uint32_t v = (uint32_t)(c & 15) << 12 | (uint32_t)((uint8_t)text.p[i + 1] & 63) << 6 |
                         ((uint8_t)text.p[i + 2] & 63);
            bad = v == 0x200e || v == 0x200f || (v >= 0x202a && v <= 0x202e) ||
                  (v >= 0x2066 && v <= 0x2069);
        }
        if (bad)
            eg_buf_str(out, REPLACEMENT);
        else
            eg_buf_add(out, text.p + i, length);
        i += length;
    }
}

size_t eg_text_distance(const char *a, const char *b)
{
    enum { MAX = 48 };
    size_t row[3][MAX + 1];
    size_t na = strnlen(a, MAX), nb = strnlen(b, MAX);
    size_t *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = j;
    for (size_t i = 1; i <= na; i++) {
        const char ca = a[i - 1] == '-' ? '_' : a[i - 1];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            const char cb = b[j - 1] == '-' ? '_' : b[j - 1];
            size_t best = last[j - 1] + (ca != cb);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && ca == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *t = before;
        before = last;
        last = now;
        now = t;
    }
    return last[nb];
}
