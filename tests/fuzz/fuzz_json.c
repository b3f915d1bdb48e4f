/*
 * Any bytes through the JSON guard, and what must hold for those that it accepts:
 * another parser accepts them too and sees the same members; they are UTF-8; compact text is
 * accepted, means the same and does not change again; strings survive decoding and encoding.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "wire/json.h"
#include "wire/json_text.h"

#define DEPTH 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static struct eg_slice of(const struct eg_buf *b)
{
    must(!b->err);
    return (struct eg_slice){b->n ? b->p : "", b->n};
}

/* Whether the other parser gives up on a number that is longer than its buffer. */
static bool long_number(struct eg_slice text)
{
    size_t run = 0;

    for (size_t i = 0; i < text.n; i++) {
        run = strchr("0123456789+-.eE", text.p[i]) && text.p[i] ? run + 1 : 0;
        if (run > 60)
            return true;
    }
    return false;
}

static bool has_duplicates(const cJSON *item)
{
    const cJSON *a, *b;

    for (a = item->child; a; a = a->next) {
        if (cJSON_IsObject(item))
            for (b = a->next; b; b = b->next)
                if (strcmp(a->string, b->string) == 0)
                    return true;
        if (has_duplicates(a))
            return true;
    }
    return false;
}

static void check_string(struct eg_slice quoted)
{
    struct eg_buf text = {0}, again = {0}, back = {0};
    struct eg_json_doc doc;

    eg_json_unquote(quoted, &text);
    must(text.n <= quoted.n - 2);
    must(eg_utf8_valid(of(&text), NULL));
    eg_json_quote(&again, of(&text));
    must(again.n == eg_json_quoted_size(of(&text)));
    must(eg_json_scan(of(&again), 0, &doc) == EG_OK && doc.kind == EG_JSON_STRING);
    eg_json_unquote(of(&again), &back);
    must(eg_slice_eq(of(&text), of(&back)));
    must(eg_json_same(quoted, of(&again)));
    eg_buf_free(&text);
    eg_buf_free(&again);
    eg_buf_free(&back);
}

static void check_members(struct eg_slice text, const struct eg_json_doc *doc)
{
    struct eg_json_doc one;
    int64_t n;

    must(doc->kind == EG_JSON_OBJECT || doc->members == 0);
    for (int i = 0; i < doc->members; i++) {
        const struct eg_json_member *m = &doc->member[i];
        struct eg_json_member found;
        struct eg_slice quoted = {m->key.p - 1, m->key.n + 2};
        struct eg_buf key = {0};
        char *name;

        must(eg_json_scan(m->value, DEPTH, &one) == EG_OK && one.kind == m->kind);
        check_string(quoted);
        if (m->kind == EG_JSON_STRING)
            check_string(m->value);
        if (m->kind == EG_JSON_NUMBER && eg_json_integer(m->value, &n))
            must((double)n == eg_json_double(m->value));
        eg_json_unquote(quoted, &key);
        name = eg_buf_take(&key);
        must(name && eg_json_get(doc, name) == m);
        must(eg_json_find(text, name, &found) && found.value.p == m->value.p);
        free(name);
    }
}

static void check_accepted(struct eg_slice text, const struct eg_json_doc *doc)
{
    struct eg_buf compact = {0}, again = {0};
    struct eg_json_doc second;
    cJSON *tree;

    must(eg_utf8_valid(text, NULL));
    if (!long_number(text)) {
        tree = cJSON_ParseWithLength(text.p, text.n);
        must(tree != NULL);
        must(!has_duplicates(tree));
        if (doc->kind == EG_JSON_OBJECT && doc->members < EG_JSON_MEMBERS_MAX)
            must(cJSON_GetArraySize(tree) == doc->members);
        cJSON_Delete(tree);
    }
    eg_json_compact(&compact, text);
    must(compact.n <= text.n);
    must(eg_json_scan(of(&compact), DEPTH, &second) == EG_OK);
    must(second.kind == doc->kind && second.members == doc->members);
    must(eg_json_same(text, of(&compact)) && eg_json_same(of(&compact), text));
    eg_json_compact(&again, of(&compact));
    must(eg_slice_eq(of(&again), of(&compact)));
    check_members(text, doc);
    eg_buf_free(&compact);
    eg_buf_free(&again);
}

/* Two texts parted by a NUL byte: comparing does not depend on the order. */
static void check_pair(struct eg_slice text)
{
    const char *nul = memchr(text.p, 0, text.n);
    struct eg_json_doc doc;
    struct eg_slice a, b;

    if (!nul)
        return;
    a = (struct eg_slice){text.p, (size_t)(nul - text.p)};
    b = (struct eg_slice){nul + 1, text.n - a.n - 1};
    if (eg_json_scan(a, DEPTH, &doc) == EG_OK && eg_json_scan(b, DEPTH, &doc) == EG_OK)
        must(eg_json_same(a, b) == eg_json_same(b, a));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct eg_slice text = {(const char *)data, size};
    struct eg_json_doc doc;
    enum eg_err e;
    size_t offset;

    if (size == 0)
        return 0;
    e = eg_json_scan(text, DEPTH, &doc);
    if (e == EG_OK) {
        must(!doc.reason);
        check_accepted(text, &doc);
    } else {
        must(e == EG_EINVALID && doc.reason && doc.offset <= size && doc.members == 0);
        if (strcmp(doc.reason, "not UTF-8") == 0)
            must(!eg_utf8_valid(text, &offset) && offset == doc.offset);
        check_pair(text);
    }
    return 0;
}
