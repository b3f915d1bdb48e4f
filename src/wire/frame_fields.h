/*
 * frame_fields.h - reading single fields of a frame; private to src/wire.
 *
 * A reader takes a member, judges it, and puts what it means into the frame. On a bad value it
 * fills the error and returns false. Without memory it latches that in the frame's scratch buffer.
 */
#ifndef EG_WIRE_FRAME_FIELDS_H
#define EG_WIRE_FRAME_FIELDS_H

#include "wire/frame.h"
#include "wire/json.h"

/* A frame under way. */
struct eg_parse {
    struct eg_slice text; /* checked */
    const struct eg_json_doc *doc;
    struct eg_frame *frame;
    struct eg_frame_error *err;
};

/* The member named key; false when the sender did not give it. null is given. */
bool eg_parse_get(const struct eg_parse *p, const char *key, struct eg_json_member *out);
/* As eg_parse_get, but null is not given either. */
bool eg_parse_value(const struct eg_parse *p, const char *key, struct eg_json_member *out);

/* Fills the error: invalid_request, field, and a message "<field>: <what>". Always false. */
bool eg_refuse(struct eg_parse *p, const char *field, const char *what);

/* The decoded text of a JSON string, in the frame's scratch buffer. */
struct eg_slice eg_parse_text(struct eg_parse *p, struct eg_slice quoted);

/* Readers for one kind of value each; field is the name to blame. */
bool eg_read_string(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                    struct eg_slice *out);
bool eg_read_id(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                struct eg_slice *out); /* 1..EG_ID_MAX bytes */
bool eg_read_integer(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                     int64_t min, int64_t max, int64_t *out);
bool eg_read_bool(struct eg_parse *p, const struct eg_json_member *m, const char *field, bool *out);
/* Any value, compact. */
bool eg_read_raw(struct eg_parse *p, const struct eg_json_member *m, struct eg_slice *out);

/* Fields of hello and of the legacy join (frame_hello.c). */
bool eg_read_hello(struct eg_parse *p);

#endif
