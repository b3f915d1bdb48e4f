/*
 * fields.h - members of a received frame, decoded. Pure; every returned text is the caller's to
 * free.
 */
#ifndef EG_APP_FIELDS_H
#define EG_APP_FIELDS_H

#include "wire/json.h"

/* A string member decoded to a C string; NULL when absent, no string, or without memory. */
char *eg_field_text(const struct eg_json_doc *doc, const char *key);
/* Any member as the sender wrote it; n == 0 when absent or null. */
struct eg_slice eg_field_raw(const struct eg_json_doc *doc, const char *key);
bool eg_field_int(const struct eg_json_doc *doc, const char *key, int64_t *out);
/* An integer member, or other when it is none. */
int64_t eg_field_int_or(const struct eg_json_doc *doc, const char *key, int64_t other);
bool eg_field_is(const struct eg_json_doc *doc, const char *key, const char *text);
bool eg_field_true(const struct eg_json_doc *doc, const char *key);
/* The object member key, scanned. False when there is none. */
bool eg_field_object(const struct eg_json_doc *doc, const char *key, struct eg_json_doc *out);
/* Content as people read it, appended: a string decoded, anything else as JSON. */
void eg_content_text(struct eg_slice raw, struct eg_buf *out);

#endif
