/*
 * utf8.c - whether bytes are well-formed UTF-8 (RFC 3629). Pure, any thread, owns nothing.
 *
 * Plain ASCII is passed over eight bytes at a time; everything else is judged sequence by
 * sequence against the table of RFC 3629 4, which leaves out overlong forms and surrogates.
 */
#include "wire/json.h"
#include "wire/json_text.h"

int eg_utf8_step(const unsigned char *p, size_t left)
{
    unsigned char lo = 0x80, hi = 0xbf, c = p[0];
    int n;

    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (left < (size_t)n)
        return 0;
    if (c == 0xe0)
        lo = 0xa0;
    else if (c == 0xed)
        hi = 0x9f;
    else if (c == 0xf0)
        lo = 0x90;
    else if (c == 0xf4)
        hi = 0x8f;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (int i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return n;
}

bool eg_utf8_valid(struct eg_slice s, size_t *offset)
{
    const unsigned char *p = (const unsigned char *)(s.n ? s.p : ""), *at = p, *end = p + s.n;

    while (at < end) {
        int n;

        if (end - at >= 8 && (eg_load8(at) & EG_HIGH_BITS) == 0) {
            at += 8;
            continue;
        }
        n = eg_utf8_step(at, (size_t)(end - at));
        if (n == 0) {
            if (offset)
                *offset = (size_t)(at - p);
            return false;
        }
        at += n;
    }
    return true;
}
