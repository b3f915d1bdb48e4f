/*
 * json_text.h - walking through JSON text; private to src/wire.
 *
 * All but eg_utf8_step and eg_json_plain work on text that eg_json_scan has accepted: they look
 * for ends, not for mistakes, yet never read past the end they are given.
 */
#ifndef EG_WIRE_JSON_TEXT_H
#define EG_WIRE_JSON_TEXT_H

#include <string.h>

#include "wire/json.h"

#define EG_LOW_BITS 0x0101010101010101ULL
#define EG_HIGH_BITS 0x8080808080808080ULL

static inline uint64_t eg_load8(const void *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/* Nonzero when one of the eight bytes is zero. */
static inline uint64_t eg_zero8(uint64_t w)
{
    return (w - EG_LOW_BITS) & ~w & EG_HIGH_BITS;
}

static inline bool eg_json_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Bytes of the well-formed UTF-8 sequence at p (RFC 3629 4), 0 when it is none. left > 0. */
int eg_utf8_step(const unsigned char *p, size_t left);

/* The first byte in p..end that is a quote, a backslash, a control character or not ASCII. */
const char *eg_json_plain(const char *p, const char *end);

/* p stands on an opening quote: behind the closing one. */
const char *eg_json_skip_string(const char *p, const char *end);
/* p stands on the first byte of a value: behind its last. */
const char *eg_json_skip_value(const char *p, const char *end);
/* The first byte in p..end that is no whitespace. */
const char *eg_json_skip_space(const char *p, const char *end);
/* What value starts with c. */
enum eg_json_kind eg_json_kind_of(char c);

/*
 * Reads the next element of an array or member of an object. *p stands behind the opening bracket
 * at first; pass it back unchanged. False at the closing bracket or at end. key is {NULL,0} in
 * arrays.
 */
bool eg_json_next(const char **p, const char *end, bool object, struct eg_json_member *out);

/* Whether an escaped key (without quotes) means name. */
bool eg_json_key_is(struct eg_slice key, const char *name);
/* The member of a checked object named name; false when text is no object or has none. */
bool eg_json_find(struct eg_slice object, const char *name, struct eg_json_member *out);

/* Bytes of s as a JSON string, quotes included, and the string itself; returns its end. */
size_t eg_json_quoted_size(struct eg_slice s);
char *eg_json_quote_to(char *o, struct eg_slice s);

#endif
