/* tl_buf: a growing byte buffer. See tl_buf.h. */
#define _GNU_SOURCE 1
#include "tl_buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tl_buf_room(struct tl_buf *b, size_t more)
{
    size_t need = b->len + more + 1;

    if (need > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < need)
            cap *= 2;
        b->p = realloc(b->p, cap);
        if (!b->p)
            abort();
        b->cap = cap;
    }
    return true;
}

void tl_buf_add(struct tl_buf *b, const void *bytes, size_t len)
{
    tl_buf_room(b, len);
    if (len)
        memcpy(b->p + b->len, bytes, len);
    b->len += len;
    b->p[b->len] = 0;
}

void tl_buf_addf(struct tl_buf *b, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    tl_buf_add(b, text, (size_t)n);
    free(text);
}

void tl_buf_free(struct tl_buf *b)
{
    free(b->p);
    b->p = NULL;
    b->len = b->cap = 0;
}
