/*
 * utf8.c - see utf8.h. The ranges are those of RFC 3629 4: no overlong forms, no surrogates,
 * nothing above U+10FFFF.
 */
#include "edge/utf8.h"

#include <string.h>

/* Opens a sequence with its first byte; false when none starts so. */
static bool first_byte(struct eg_utf8 *u, uint8_t c)
{
    u->lo = 0x80;
    u->hi = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        u->need = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        u->need = 2;
        if (c == 0xe0) {
            u->lo = 0xa0;
        } else if (c == 0xed) {
            u->hi = 0x9f;
        }
    } else if (c >= 0xf0 && c <= 0xf4) {
        u->need = 3;
        if (c == 0xf0) {
            u->lo = 0x90;
        } else if (c == 0xf4) {
            u->hi = 0x8f;
        }
    } else {
        return false;
    }
    return true;
}

bool eg_utf8_feed(struct eg_utf8 *u, const void *p, size_t n)
{
    const uint8_t *s = p;
    const uint8_t *const end = s + n;

    while (s < end) {
        if (u->need == 0) {
            uint64_t word;
            while (end - s >= 8 &&
                   (memcpy(&word, s, 8), (word & UINT64_C(0x8080808080808080)) == 0)) {
                s += 8;
            }
            if (s == end) {
                break;
            }
            const uint8_t c = *s++;
            if (c >= 0x80 && !first_byte(u, c)) {
                return false;
            }
        } else {
            const uint8_t c = *s++;
            if (c < u->lo || c > u->hi) {
                return false;
            }
            u->lo = 0x80;
            u->hi = 0xbf;
            u->need--;
        }
    }
    return true;
}
