/*
 * utf8.h - UTF-8 (RFC 3629) checked piece by piece. All zeros is the start of a text.
 */
#ifndef EG_EDGE_UTF8_H
#define EG_EDGE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eg_utf8 {
    uint8_t need;   /* bytes that the open sequence still needs; 0: a text may end here */
    uint8_t lo, hi; /* what the next of them may be */
};

/* False at the first byte that cannot be part of a text. */
bool eg_utf8_feed(struct eg_utf8 *u, const void *p, size_t n);

#endif
