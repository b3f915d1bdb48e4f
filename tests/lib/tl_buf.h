/*
 * tl_buf: a growing byte buffer for the test library. Always has a NUL after its last byte.
 * Threads: none. Owns its memory; tl_buf_free releases it. Out of memory aborts: these are tests.
 */
#ifndef TL_BUF_H
#define TL_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tl_buf {
    uint8_t *p;
    size_t len;
    size_t cap;
};

/* Makes room for `more` further bytes and the NUL. */
bool tl_buf_room(struct tl_buf *b, size_t more);
void tl_buf_add(struct tl_buf *b, const void *bytes, size_t len);
void tl_buf_addf(struct tl_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tl_buf_free(struct tl_buf *b);

#endif
