#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct eg_slice eg_slice_cstr(const char *s)
{
    return (struct eg_slice){s, s ? strlen(s) : 0};
}

bool eg_slice_eq(struct eg_slice a, struct eg_slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool eg_slice_is(struct eg_slice a, const char *s)
{
    return eg_slice_eq(a, eg_slice_cstr(s));
}

char *eg_slice_dup(struct eg_slice s)
{
    char *copy = malloc(s.n + 1);
    if (copy) {
        if (s.n) {
            memcpy(copy, s.p, s.n);
        }
        copy[s.n] = '\0';
    }
    return copy;
}

struct eg_bytes *eg_bytes_new(size_t n)
{
    struct eg_bytes *b = malloc(sizeof *b + n + 1);
    if (b) {
        b->refs = 1;
        b->n = n;
        b->data[n] = '\0';
    }
    return b;
}

struct eg_bytes *eg_bytes_copy(const void *p, size_t n)
{
    struct eg_bytes *b = eg_bytes_new(n);
    if (b && n) {
        memcpy(b->data, p, n);
    }
    return b;
}

struct eg_bytes *eg_bytes_ref(struct eg_bytes *b)
{
    if (b) {
        __atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
    }
    return b;
}

void eg_bytes_unref(struct eg_bytes *b)
{
    if (b && __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(b);
    }
}

struct eg_slice eg_bytes_slice(const struct eg_bytes *b)
{
    return (struct eg_slice){b ? b->data : NULL, b ? b->n : 0};
}

void eg_buf_free(struct eg_buf *b)
{
    free(b->p);
    *b = (struct eg_buf){0};
}

void eg_buf_reset(struct eg_buf *b)
{
    b->n = 0;
    b->err = EG_OK;
}

char *eg_buf_reserve(struct eg_buf *b, size_t n)
{
    if (b->err) {
        return NULL;
    }
    if (b->cap - b->n <= n) { /* one byte stays free for a NUL */
        size_t cap = b->cap ? b->cap : 128;
        while (cap - b->n <= n) {
            if (cap > SIZE_MAX / 2) {
                b->err = EG_ENOMEM;
                return NULL;
            }
            cap *= 2;
        }
        char *p = realloc(b->p, cap);
        if (!p) {
            b->err = EG_ENOMEM;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void eg_buf_add(struct eg_buf *b, const void *p, size_t n)
{
    char *to = eg_buf_reserve(b, n);
    if (to && n) {
        memcpy(to, p, n);
        b->n += n;
    }
}

void eg_buf_slice(struct eg_buf *b, struct eg_slice s)
{
    eg_buf_add(b, s.p, s.n);
}

void eg_buf_str(struct eg_buf *b, const char *s)
{
    eg_buf_add(b, s, strlen(s));
}

void eg_buf_char(struct eg_buf *b, char c)
{
    eg_buf_add(b, &c, 1);
}

void eg_buf_int(struct eg_buf *b, int64_t v)
{
    struct eg_decimal d;
    eg_decimal_set(&d, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    if (v < 0) {
        d.digit[--d.from] = '-';
    }
    eg_buf_slice(b, eg_decimal(&d));
}

void eg_buf_printf(struct eg_buf *b, const char *fmt, ...)
{
    va_list ap;
    char small[256];
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->err = b->err ? b->err : EG_EINVALID;
        return;
    }
    if ((size_t)n < sizeof small) {
        eg_buf_add(b, small, (size_t)n);
        return;
    }
    char *to = eg_buf_reserve(b, (size_t)n);
    if (to) {
        va_start(ap, fmt);
        vsnprintf(to, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->n += (size_t)n;
    }
}

struct eg_bytes *eg_buf_bytes(const struct eg_buf *b)
{
    return b->err ? NULL : eg_bytes_copy(b->p, b->n);
}

char *eg_buf_take(struct eg_buf *b)
{
    char *p = eg_buf_reserve(b, 1);
    if (!p) {
        eg_buf_free(b);
        return NULL;
    }
    *p = '\0';
    p = b->p;
    *b = (struct eg_buf){0};
    return p;
}
