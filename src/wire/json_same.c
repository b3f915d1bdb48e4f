/*
 * json_same.c - whether two checked JSON texts mean the same value.
 *
 * Pure, any thread. Works on the texts themselves: numbers are compared digit by digit, so nothing
 * is lost to a double; members are sorted by their decoded keys, so that a hostile object costs
 * n log n. Without memory for that two values count as different.
 */
#include <stdlib.h>

#include "wire/json.h"
#include "wire/json_text.h"

/* A number as sign, digits first..last (a point among them is skipped) and the power of ten of the
 * last one. Zero has no digits. */
struct number {
    bool minus;
    const char *first, *last;
    int64_t exponent;
    bool huge; /* the exponent has too many digits to be reckoned with */
};

static struct number number_read(struct eg_slice s)
{
    struct number n = {0};
    const char *p = s.p, *end = s.p + s.n, *point = NULL, *stop;

    if (*p == '-') {
        n.minus = true;
        p++;
    }
    for (stop = p; stop < end && (*stop | 32) != 'e'; stop++) {
        if (*stop == '.')
            point = stop;
        if (*stop >= '1' && *stop <= '9') {
            if (!n.first)
                n.first = stop;
            n.last = stop;
        }
    }
    if (!n.first) {
        n.minus = false;
        return n;
    }
    if (!point)
        point = stop;
    n.exponent = n.last < point ? point - n.last - 1 : point - n.last;
    if (stop < end) {
        bool minus = *++stop == '-';
        int64_t e = 0;

        if (*stop == '-' || *stop == '+')
            stop++;
        while (stop < end && *stop == '0')
            stop++;
        n.huge = end - stop > 17;
        for (; stop < end && !n.huge; stop++)
            e = e * 10 + (*stop - '0');
        n.exponent += minus ? -e : e;
    }
    return n;
}

/* Two numbers whose texts differ. */
static bool number_same(struct eg_slice a, struct eg_slice b)
{
    struct number x = number_read(a), y = number_read(b);

    if (!x.first || !y.first)
        return !x.first && !y.first;
    if (x.huge || y.huge || x.minus != y.minus || x.exponent != y.exponent)
        return false;
    while (x.first <= x.last && y.first <= y.last) {
        if (*x.first == '.')
            x.first++;
        if (*y.first == '.')
            y.first++;
        if (*x.first++ != *y.first++)
            return false;
    }
    return x.first > x.last && y.first > y.last;
}

/* Two strings whose texts differ. */
static bool string_same(struct eg_slice a, struct eg_slice b)
{
    struct eg_buf x = {0}, y = {0};
    bool same;

    if (!memchr(a.p, '\\', a.n) && !memchr(b.p, '\\', b.n))
        return false;
    eg_json_unquote(a, &x);
    eg_json_unquote(b, &y);
    same = !x.err && !y.err && x.n == y.n && (x.n == 0 || memcmp(x.p, y.p, x.n) == 0);
    eg_buf_free(&x);
    eg_buf_free(&y);
    return same;
}

static bool array_same(struct eg_slice a, struct eg_slice b)
{
    const char *p = a.p + 1, *q = b.p + 1;

    for (;;) {
        struct eg_json_member x, y;
        bool more = eg_json_next(&p, a.p + a.n, false, &x);

        if (more != eg_json_next(&q, b.p + b.n, false, &y))
            return false;
        if (!more)
            return true;
        if (!eg_json_same(x.value, y.value))
            return false;
    }
}

/* The members of an object, keys decoded, in the order of their keys. */
struct members {
    struct eg_json_member *at;
    size_t n, cap;
    struct eg_buf keys;
};

static int by_key(const void *a, const void *b)
{
    const struct eg_slice *x = &((const struct eg_json_member *)a)->key;
    const struct eg_slice *y = &((const struct eg_json_member *)b)->key;
    size_t n = x->n < y->n ? x->n : y->n;
    int c = n ? memcmp(x->p, y->p, n) : 0;

    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static bool members_read(struct eg_slice object, struct members *m)
{
    const char *p = object.p + 1, *end = object.p + object.n;
    struct eg_json_member one;

    /* Room for all keys at once: decoded they are never longer, and slices into it stay. */
    if (!eg_buf_reserve(&m->keys, object.n))
        return false;
    while (eg_json_next(&p, end, true, &one)) {
        if (m->n == m->cap) {
            size_t cap = m->cap ? m->cap * 2 : 16;
            void *at = realloc(m->at, cap * sizeof(*m->at));

            if (!at)
                return false;
            m->at = at;
            m->cap = cap;
        }
        if (memchr(one.key.p, '\\', one.key.n)) {
            size_t from = m->keys.n;

            eg_json_unquote((struct eg_slice){one.key.p - 1, one.key.n + 2}, &m->keys);
            one.key = (struct eg_slice){m->keys.p + from, m->keys.n - from};
        }
        m->at[m->n++] = one;
    }
    if (m->n > 1)
        qsort(m->at, m->n, sizeof(*m->at), by_key);
    return true;
}

static bool object_same(struct eg_slice a, struct eg_slice b)
{
    struct members x = {0}, y = {0};
    bool same = members_read(a, &x) && members_read(b, &y) && x.n == y.n;

    for (size_t i = 0; same && i < x.n; i++)
        same = by_key(&x.at[i], &y.at[i]) == 0 && eg_json_same(x.at[i].value, y.at[i].value);
    free(x.at);
    free(y.at);
    eg_buf_free(&x.keys);
    eg_buf_free(&y.keys);
    return same;
}

/* Without the whitespace around it. */
static struct eg_slice trim(struct eg_slice s)
{
    const char *p, *end;

    if (s.n == 0)
        return s;
    end = s.p + s.n;
    p = eg_json_skip_space(s.p, end);
    while (end > p && eg_json_space(end[-1]))
        end--;
    return (struct eg_slice){p, (size_t)(end - p)};
}

bool eg_json_same(struct eg_slice a, struct eg_slice b)
{
    a = trim(a);
    b = trim(b);
    if (!a.n || !b.n)
        return a.n == b.n;
    if (eg_slice_eq(a, b))
        return true;
    if (eg_json_kind_of(*a.p) != eg_json_kind_of(*b.p))
        return false;
    switch (eg_json_kind_of(*a.p)) {
    case EG_JSON_NUMBER:
        return number_same(a, b);
    case EG_JSON_STRING:
        return string_same(a, b);
    case EG_JSON_ARRAY:
        return array_same(a, b);
    case EG_JSON_OBJECT:
        return object_same(a, b);
    default:
        return false; /* null, true and false have one spelling */
    }
}
