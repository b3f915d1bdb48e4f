/*
 * json.h - strict JSON: the guard that looks at every byte before anything else does, top-level
 * members as slices, and a writer.
 *
 * Pure. The guard accepts exactly RFC 8259 objects in UTF-8 with nesting at most max_depth, without
 * duplicate keys at any level, \u0000, lone surrogates (escaped or encoded), a BOM or trailing
 * text. Values are kept as the sender wrote them: numbers are never rounded.
 */
#ifndef EG_WIRE_JSON_H
#define EG_WIRE_JSON_H

#include "base/bytes.h"

enum eg_json_kind {
    EG_JSON_NULL,
    EG_JSON_BOOL,
    EG_JSON_NUMBER,
    EG_JSON_STRING,
    EG_JSON_ARRAY,
    EG_JSON_OBJECT
};

/* One member of the outermost object. Slices point into the input; key is without quotes, still
 * escaped. */
struct eg_json_member {
    struct eg_slice key;
    struct eg_slice value; /* raw text, no surrounding whitespace; strings with their quotes */
    enum eg_json_kind kind;
};

#define EG_JSON_MEMBERS_MAX 64
#define EG_JSON_KEYS_MAX (1 << 20) /* keys of all open objects together; more are refused */
#define EG_JSON_NESTING_LIMIT 128  /* a larger max_depth counts as this */

/* What the guard found. On failure offset is the byte where the text stops being valid, reason
 * static. */
struct eg_json_doc {
    struct eg_json_member
        member[EG_JSON_MEMBERS_MAX]; /* the first 64; further ones are checked, not kept */
    int members;
    enum eg_json_kind kind; /* of the outermost value */
    size_t offset;
    const char *reason;
};

/*
 * Checks text and fills doc. EG_EINVALID with offset and reason when it breaks a rule. Any
 * outermost kind is accepted; members is 0 unless it is an object. Time is O(n); memory is
 * bounded by the keys of the open objects (none is allocated for a few dozen; more than
 * EG_JSON_KEYS_MAX are refused), EG_ENOMEM without it. Texts of 2 GiB and more are refused.
 */
enum eg_err eg_json_scan(struct eg_slice text, int max_depth, struct eg_json_doc *doc) EG_MUST;

/* The member named key (unescaped comparison is exact, case-sensitive); NULL when absent. */
const struct eg_json_member *eg_json_get(const struct eg_json_doc *doc, const char *key);

/*
 * Decodes a checked JSON string (with quotes) and appends it to out as UTF-8.
 */
void eg_json_unquote(struct eg_slice quoted, struct eg_buf *out);
/* True, and *out set, when a checked number is an exact integer: digits alone, without fraction or
 * exponent (1.0 and 1e2 are none), within ±(2^53-1). */
bool eg_json_integer(struct eg_slice number, int64_t *out);
/* A checked number as double. */
double eg_json_double(struct eg_slice number);
/* Appends checked JSON text without the whitespace between tokens. */
void eg_json_compact(struct eg_buf *out, struct eg_slice text);
/* Whether two checked texts mean the same value: members in any order, numbers by value. */
bool eg_json_same(struct eg_slice a, struct eg_slice b);

/* Writers: append to out. */
void eg_json_quote(struct eg_buf *out, struct eg_slice s); /* with quotes; s must be UTF-8 */
/* `,"key":` or without the comma when the last byte is '{' or '['. */
void eg_json_key(struct eg_buf *out, const char *key);
void eg_json_kstr(struct eg_buf *out, const char *key, struct eg_slice value);
void eg_json_kcstr(struct eg_buf *out, const char *key, const char *value); /* NULL writes null */
void eg_json_kint(struct eg_buf *out, const char *key, int64_t value);
void eg_json_kbool(struct eg_buf *out, const char *key, bool value);
void eg_json_kraw(struct eg_buf *out, const char *key, struct eg_slice raw);
/* A time in milliseconds as seconds with three decimals. */
void eg_json_ktime(struct eg_buf *out, const char *key, int64_t ms);

/* Whether s is well-formed UTF-8 (RFC 3629); *offset of the first bad byte when not. */
bool eg_utf8_valid(struct eg_slice s, size_t *offset);

#endif
