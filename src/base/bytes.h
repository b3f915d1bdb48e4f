/*
 * bytes.h - memory that travels: slices (borrowed), reference-counted immutable bytes (shared
 * between threads), and a growing buffer (owned by one).
 */
#ifndef EG_BASE_BYTES_H
#define EG_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

/* A borrowed run of bytes, not NUL-terminated. p may be NULL when n is 0. */
struct eg_slice {
    const char *p;
    size_t n;
};

#define EG_LIT(s) ((struct eg_slice){(s), sizeof(s) - 1})
struct eg_slice eg_slice_cstr(const char *s); /* NULL gives {NULL,0} */
bool eg_slice_eq(struct eg_slice a, struct eg_slice b);
bool eg_slice_is(struct eg_slice a, const char *s);
/* A malloc'ed NUL-terminated copy; NULL without memory. */
char *eg_slice_dup(struct eg_slice s);
/* Copies s to where there is room for it; returns behind it. */
static inline char *eg_put(char *to, struct eg_slice s)
{
    if (s.n)
        memcpy(to, s.p, s.n);
    return to + s.n;
}

#define EG_DIGITS_MAX 20 /* of a 64-bit number */

/* A number in digits, made from the back. */
struct eg_decimal {
    char digit[EG_DIGITS_MAX];
    int from;
};
static inline void eg_decimal_set(struct eg_decimal *d, uint64_t v)
{
    d->from = EG_DIGITS_MAX;
    do {
        d->digit[--d->from] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
}
static inline struct eg_slice eg_decimal(const struct eg_decimal *d)
{
    return (struct eg_slice){d->digit + d->from, (size_t)(EG_DIGITS_MAX - d->from)};
}

/* Immutable bytes with an atomic reference count; data is followed by a NUL that n leaves out. */
struct eg_bytes {
    int refs; /* atomic */
    size_t n;
    char data[];
};

/* n uninitialised bytes with one reference, to be filled before they are shared; NULL without
 * memory. */
struct eg_bytes *eg_bytes_new(size_t n);
struct eg_bytes *eg_bytes_copy(const void *p, size_t n);
struct eg_bytes *eg_bytes_ref(struct eg_bytes *b);
void eg_bytes_unref(struct eg_bytes *b); /* NULL is fine */
struct eg_slice eg_bytes_slice(const struct eg_bytes *b);

/*
 * A growing buffer. A failed allocation is latched in err: later calls do nothing, and whoever
 * takes the result looks once. All zeros is an empty buffer.
 */
struct eg_buf {
    char *p;
    size_t n, cap;
    enum eg_err err;
};

void eg_buf_free(struct eg_buf *b);  /* frees and zeroes */
void eg_buf_reset(struct eg_buf *b); /* empties, keeps the memory */
/* Room for n more bytes; returns where they go, or NULL. Does not change n. */
char *eg_buf_reserve(struct eg_buf *b, size_t n);
void eg_buf_add(struct eg_buf *b, const void *p, size_t n);
void eg_buf_slice(struct eg_buf *b, struct eg_slice s);
void eg_buf_str(struct eg_buf *b, const char *s);
void eg_buf_char(struct eg_buf *b, char c);
void eg_buf_int(struct eg_buf *b, int64_t v);
void eg_buf_printf(struct eg_buf *b, const char *fmt, ...) EG_PRINTF(2, 3);
/* A copy as shared bytes; NULL without memory or when err is latched. b stays as it is. */
struct eg_bytes *eg_buf_bytes(const struct eg_buf *b);
/* The text, NUL-terminated, handed over to the caller; NULL on err. b is empty afterwards. */
char *eg_buf_take(struct eg_buf *b);

#endif
