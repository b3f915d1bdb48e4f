/*
 * json_scan.c - the JSON guard: looks at every byte of a text before anything else does.
 *
 * Pure, any thread. One pass by recursive descent, as deep as max_depth. What makes it more than a
 * grammar is the search for duplicate keys: the keys of all open objects lie on one stack, those
 * of an object together. Up to KEYS_LINEAR keys are compared one by one; beyond that the object's
 * keys go into one hash table that all open objects share. Because objects close in the reverse
 * order of opening, an entry is always at the head of its chain when it is taken out. The hash is
 * keyed (SipHash), so that a peer cannot choose colliding keys.
 *
 * Owns: the key stack once it outgrows the C stack, the table, and a buffer of decoded keys; all
 * freed before it returns. Fails with EG_EINVALID, offset and reason at the first wrong byte.
 */
#include <pthread.h>
#include <stdlib.h>

#include <sodium.h>

#include "base/clock.h"
#include "wire/json.h"
#include "wire/json_text.h"

#define KEYS_SMALL 48
#define KEYS_LINEAR 16
#define TEXT_MAX ((size_t)INT32_MAX)

struct key {
    const char *p; /* in the text; NULL: at offset off of the decoded keys */
    uint32_t n, off;
    uint32_t hash; /* valid in a hashed object */
    int32_t next;  /* next entry of the chain, -1 at its end */
    int depth;     /* of the object; 0: not in the table */
};

struct scan {
    const char *start, *p, *end;
    int max_depth;
    struct eg_json_doc *doc;
    const char *at; /* of the failure */
    const char *reason;
    enum eg_err err;
    struct key *keys;
    int nkeys, cap;
    int32_t *heads; /* NULL until an object has many keys */
    uint32_t mask;
    struct eg_buf decoded;
    struct key small[KEYS_SMALL];
};

static uint8_t hash_seed[crypto_shorthash_KEYBYTES];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_init(void)
{
    eg_random(hash_seed, sizeof(hash_seed));
}

static bool fail(struct scan *s, const char *at, const char *reason)
{
    s->err = EG_EINVALID;
    s->at = at;
    s->reason = reason;
    return false;
}

static bool fail_memory(struct scan *s)
{
    s->err = EG_ENOMEM;
    s->at = s->p;
    s->reason = "out of memory";
    return false;
}

static inline void skip_space(struct scan *s)
{
    const char *p = s->p;

    while (p < s->end && eg_json_space(*p))
        p++;
    s->p = p;
}

/* Four hex digits at p as a number, -1 when they are none. */
static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], d;

        if (c >= '0' && c <= '9')
            d = c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (c | 32) - 'a' + 10;
        else
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* p stands on a backslash: behind the escape, NULL after fail. */
static const char *scan_escape(struct scan *s, const char *p)
{
    int u, low;

    if (s->end - p < 2) {
        fail(s, s->end, "unfinished string");
        return NULL;
    }
    if (p[1] != 'u') {
        if (p[1] != '\0' && strchr("\"\\/bfnrt", p[1]))
            return p + 2;
        fail(s, p, "unknown escape");
        return NULL;
    }
    u = hex4(p + 2, s->end);
    if (u < 0)
        fail(s, p, "\\u needs four hex digits");
    else if (u == 0)
        fail(s, p, "\\u0000 is not allowed");
    else if (u < 0xd800 || u > 0xdfff)
        return p + 6;
    else if (u < 0xdc00 && s->end - p >= 12 && p[6] == '\\' && p[7] == 'u' &&
             (low = hex4(p + 8, s->end)) >= 0xdc00 && low <= 0xdfff)
        return p + 12;
    else
        fail(s, p, "lone surrogate");
    return NULL;
}

/* s->p stands on a quote. *escaped is set when the string holds a backslash. */
static bool scan_string(struct scan *s, bool *escaped)
{
    const char *p = s->p + 1, *end = s->end;

    for (;;) {
        p = eg_json_plain(p, end);
        if (p == end)
            return fail(s, p, "unfinished string");
        if (*p == '"') {
            s->p = p + 1;
            return true;
        }
        if (*p == '\\') {
            *escaped = true;
            p = scan_escape(s, p);
            if (!p)
                return false;
        } else if ((unsigned char)*p < 0x20) {
            return fail(s, p, "control character in a string");
        } else {
            do {
                int n = eg_utf8_step((const unsigned char *)p, (size_t)(end - p));

                if (n == 0)
                    return fail(s, p, "not UTF-8");
                p += n;
            } while (p < end && (unsigned char)*p >= 0x80);
        }
    }
}

static bool digit(const struct scan *s, const char *p)
{
    return p < s->end && *p >= '0' && *p <= '9';
}

static bool scan_number(struct scan *s)
{
    const char *p = s->p;

    if (*p == '-')
        p++;
    if (!digit(s, p))
        return fail(s, p, "a digit is missing");
    if (*p == '0') {
        p++;
        if (digit(s, p))
            return fail(s, p, "leading zero");
    } else {
        while (digit(s, p))
            p++;
    }
    if (p < s->end && *p == '.') {
        p++;
        if (!digit(s, p))
            return fail(s, p, "a digit is missing");
        while (digit(s, p))
            p++;
    }
    if (p < s->end && (*p | 32) == 'e') {
        p++;
        if (p < s->end && (*p == '+' || *p == '-'))
            p++;
        if (!digit(s, p))
            return fail(s, p, "a digit is missing");
        while (digit(s, p))
            p++;
    }
    s->p = p;
    return true;
}

static bool scan_literal(struct scan *s, const char *word, size_t n)
{
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return fail(s, s->p, "a value is missing");
    s->p += n;
    return true;
}

/* ---- duplicate keys ---- */

static const char *key_bytes(const struct scan *s, const struct key *k)
{
    return k->p ? k->p : s->decoded.p + k->off;
}

static bool key_same(const struct scan *s, const struct key *a, const struct key *b)
{
    return a->n == b->n && memcmp(key_bytes(s, a), key_bytes(s, b), a->n) == 0;
}

static void key_hash(const struct scan *s, struct key *k)
{
    uint8_t out[crypto_shorthash_BYTES];

    crypto_shorthash(out, (const unsigned char *)key_bytes(s, k), k->n, hash_seed);
    memcpy(&k->hash, out, sizeof(k->hash));
    k->hash ^= (uint32_t)k->depth * 0x9e3779b1u;
}

static void table_insert(struct scan *s, int i)
{
    struct key *k = &s->keys[i];
    int32_t *head = &s->heads[k->hash & s->mask];

    k->next = *head;
    *head = i;
}

/* Makes the table (larger), with every key that is in it. */
static bool table_grow(struct scan *s)
{
    uint32_t size = s->heads ? (s->mask + 1) * 2 : 256;
    int32_t *heads;

    while (size < (uint32_t)s->nkeys * 2)
        size *= 2;
    heads = malloc(size * sizeof(*heads));
    if (!heads)
        return fail_memory(s);
    free(s->heads);
    s->heads = heads;
    s->mask = size - 1;
    memset(heads, 0xff, size * sizeof(*heads));
    for (int i = 0; i < s->nkeys; i++)
        if (s->keys[i].depth != 0)
            table_insert(s, i);
    return true;
}

/* Puts the keys from..nkeys of the object at depth into the table. */
static bool table_enter(struct scan *s, int from, int depth)
{
    pthread_once(&hash_once, hash_init);
    if ((!s->heads || (uint32_t)s->nkeys > s->mask) && !table_grow(s))
        return false;
    for (int i = from; i < s->nkeys; i++) {
        s->keys[i].depth = depth;
        key_hash(s, &s->keys[i]);
        table_insert(s, i);
    }
    return true;
}

static bool table_has(const struct scan *s, const struct key *k)
{
    for (int32_t i = s->heads[k->hash & s->mask]; i >= 0; i = s->keys[i].next) {
        const struct key *o = &s->keys[i];

        if (o->hash == k->hash && o->depth == k->depth && key_same(s, o, k))
            return true;
    }
    return false;
}

static struct key *key_room(struct scan *s)
{
    if (s->nkeys == s->cap) {
        int cap = s->cap * 2;
        struct key *keys = malloc((size_t)cap * sizeof(*keys));

        if (!keys)
            return NULL;
        memcpy(keys, s->keys, (size_t)s->nkeys * sizeof(*keys));
        if (s->keys != s->small)
            free(s->keys);
        s->keys = keys;
        s->cap = cap;
    }
    return &s->keys[s->nkeys];
}

/*
 * Enters the key quoted (with its quotes) into the object at depth whose keys start at first.
 * False after fail.
 */
static bool key_enter(struct scan *s, int first, int depth, struct eg_slice quoted, bool escaped)
{
    int n = s->nkeys - first;
    struct key *k;

    if (s->nkeys >= EG_JSON_KEYS_MAX)
        return fail(s, quoted.p, "too many keys");
    k = key_room(s);
    if (!k)
        return fail_memory(s);
    *k = (struct key){.p = quoted.p + 1, .n = (uint32_t)(quoted.n - 2), .next = -1};
    if (escaped) {
        k->off = (uint32_t)s->decoded.n;
        eg_json_unquote(quoted, &s->decoded);
        if (s->decoded.err)
            return fail_memory(s);
        k->p = NULL;
        k->n = (uint32_t)(s->decoded.n - k->off);
    }
    if (n < KEYS_LINEAR) {
        for (int i = first; i < s->nkeys; i++)
            if (key_same(s, &s->keys[i], k))
                return fail(s, quoted.p, "duplicate key");
        s->nkeys++;
        return true;
    }
    if (n == KEYS_LINEAR && !table_enter(s, first, depth))
        return false;
    k->depth = depth;
    key_hash(s, k);
    if (table_has(s, k))
        return fail(s, quoted.p, "duplicate key");
    if ((uint32_t)s->nkeys > s->mask && !table_grow(s))
        return false;
    table_insert(s, s->nkeys++);
    return true;
}

/* Forgets the keys of an object that closes; first is where its keys start. */
static void keys_leave(struct scan *s, int first, size_t decoded)
{
    while (s->nkeys > first) {
        const struct key *k = &s->keys[--s->nkeys];

        if (k->depth != 0)
            s->heads[k->hash & s->mask] = k->next;
    }
    s->decoded.n = decoded;
}

/* ---- values ---- */

static bool scan_value(struct scan *s, int depth, enum eg_json_kind *kind);

static void keep_member(struct scan *s, struct eg_slice quoted, const char *value,
                        enum eg_json_kind kind)
{
    struct eg_json_member *m;

    if (s->doc->members == EG_JSON_MEMBERS_MAX)
        return;
    m = &s->doc->member[s->doc->members++];
    m->key = (struct eg_slice){quoted.p + 1, quoted.n - 2};
    m->value = (struct eg_slice){value, (size_t)(s->p - value)};
    m->kind = kind;
}

/* s->p stands behind what opened the container or behind an element: on to the next element.
 * False at the end of the container or after fail. */
static bool more(struct scan *s, bool first, char close)
{
    skip_space(s);
    if (s->p == s->end)
        return fail(s, s->p, "unfinished text");
    if (*s->p == close) {
        s->p++;
        return false;
    }
    if (first)
        return true;
    if (*s->p != ',')
        return fail(s, s->p, close == '}' ? "expected , or }" : "expected , or ]");
    s->p++;
    skip_space(s);
    return true;
}

static bool scan_object(struct scan *s, int depth)
{
    int first = s->nkeys;
    size_t decoded = s->decoded.n;

    for (bool start = true; more(s, start, '}'); start = false) {
        struct eg_slice key = {s->p, 0};
        const char *value;
        enum eg_json_kind kind;
        bool escaped = false;

        if (s->p == s->end)
            return fail(s, s->p, "unfinished text");
        if (*s->p != '"')
            return fail(s, s->p, "a key is missing");
        if (!scan_string(s, &escaped))
            return false;
        key.n = (size_t)(s->p - key.p);
        if (!key_enter(s, first, depth, key, escaped))
            return false;
        skip_space(s);
        if (s->p == s->end)
            return fail(s, s->p, "unfinished text");
        if (*s->p != ':')
            return fail(s, s->p, "expected :");
        s->p++;
        skip_space(s);
        value = s->p;
        if (!scan_value(s, depth, &kind))
            return false;
        if (depth == 1)
            keep_member(s, key, value, kind);
    }
    if (s->err)
        return false;
    keys_leave(s, first, decoded);
    return true;
}

static bool scan_array(struct scan *s, int depth)
{
    enum eg_json_kind kind;

    for (bool start = true; more(s, start, ']'); start = false)
        if (!scan_value(s, depth, &kind))
            return false;
    return !s->err;
}

/* Reads one value; depth is the number of open containers around it. */
static bool scan_value(struct scan *s, int depth, enum eg_json_kind *kind)
{
    bool escaped;

    if (s->p == s->end)
        return fail(s, s->p, "unfinished text");
    *kind = eg_json_kind_of(*s->p);
    switch (*s->p) {
    case '"':
        return scan_string(s, &escaped);
    case '{':
    case '[':
        if (depth >= s->max_depth)
            return fail(s, s->p, "nested too deep");
        s->p++;
        return *kind == EG_JSON_OBJECT ? scan_object(s, depth + 1) : scan_array(s, depth + 1);
    case 't':
        return scan_literal(s, "true", 4);
    case 'f':
        return scan_literal(s, "false", 5);
    case 'n':
        return scan_literal(s, "null", 4);
    default:
        if (*s->p == '-' || digit(s, s->p))
            return scan_number(s);
        return fail(s, s->p, "a value is missing");
    }
}

static bool scan_text(struct scan *s)
{
    if (s->end - s->start >= 3 && memcmp(s->start, "\xef\xbb\xbf", 3) == 0)
        return fail(s, s->start, "byte order mark");
    if ((size_t)(s->end - s->start) > TEXT_MAX)
        return fail(s, s->start, "too long");
    skip_space(s);
    if (s->p == s->end)
        return fail(s, s->p, "no JSON at all");
    if (!scan_value(s, 0, &s->doc->kind))
        return false;
    skip_space(s);
    return s->p == s->end || fail(s, s->p, "text after the end");
}

enum eg_err eg_json_scan(struct eg_slice text, int max_depth, struct eg_json_doc *doc)
{
    struct scan s;

    s.p = s.start = text.n ? text.p : "";
    s.end = s.start + text.n;
    s.max_depth = max_depth < EG_JSON_NESTING_LIMIT ? max_depth : EG_JSON_NESTING_LIMIT;
    s.doc = doc;
    s.at = s.start;
    s.reason = NULL;
    s.err = EG_OK;
    s.keys = s.small;
    s.nkeys = 0;
    s.cap = KEYS_SMALL;
    s.heads = NULL;
    s.mask = 0;
    s.decoded = (struct eg_buf){0};
    doc->members = 0;
    doc->kind = EG_JSON_NULL;
    doc->offset = 0;
    doc->reason = NULL;

    if (!scan_text(&s)) {
        doc->offset = (size_t)(s.at - s.start);
        doc->reason = s.reason;
        doc->members = 0;
    }
    if (s.keys != s.small)
        free(s.keys);
    free(s.heads);
    eg_buf_free(&s.decoded);
    return s.err;
}
