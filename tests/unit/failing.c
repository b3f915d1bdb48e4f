/*
 * failing.c - see failing.h.
 */
#include "failing.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static int left = -1; /* allocations that still succeed; -1: all */
static bool failed, held, for_good;

void failing_order(int n)
{
    failed = held = for_good = false;
    left = n;
}

void failing_order_all(int n)
{
    failing_order(n);
    for_good = true;
}

bool failing_done(void)
{
    left = -1;
    return failed;
}

void failing_hold(bool hold)
{
    held = hold;
}

static bool fails(void)
{
    if (left < 0 || held || left-- > 0)
        return false;
    failed = true;
    left = for_good ? 0 : -1; /* once */
    return true;
}

struct eg_bytes *failing_exempt_bytes(const void *p, size_t n)
{
    const bool was = held;
    struct eg_bytes *b;

    held = true;
    b = eg_bytes_copy(p, n);
    held = was;
    return b;
}

int failing_each(bool (*act)(void *arg), void *arg)
{
    for (int n = 0;; n++) {
        bool told;

        failing_order(n);
        told = act(arg);
        cr_assert_eq(told, failing_done(), "allocation %d", n);
        if (!failed)
            return n;
    }
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s);
char *__wrap_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = __wrap_malloc(n);

    return copy ? memcpy(copy, s, n) : NULL;
}

int __wrap_asprintf(char **out, const char *fmt, ...);
int __wrap_asprintf(char **out, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (fails())
        return -1;
    va_start(ap, fmt);
    n = vasprintf(out, fmt, ap);
    va_end(ap);
    return n;
}

/* libsodium's guarded memory. */
void *__real_sodium_malloc(size_t n);
void *__wrap_sodium_malloc(size_t n);
void *__wrap_sodium_malloc(size_t n)
{
    return fails() ? NULL : __real_sodium_malloc(n);
}
