/*
 * tl_json: the gateway's JSON frames on top of tl_ws, with cJSON.
 *
 * Purpose: send a frame, wait for one of a type, look into it by dotted path, follow a session's
 * events and check that they come once and in order.
 * Threads: as tl_ws: one connection, one thread.
 * Owns: nothing; every cJSON returned belongs to the caller (cJSON_Delete).
 * Failure modes: NULL or a negative TL_* value; the reason is printed by tl_json_why().
 */
#ifndef TL_JSON_H
#define TL_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <cjson/cJSON.h>

#include "tl_ws.h"

/* Sends an object and frees it. */
bool tl_json_send(struct tl_ws *ws, cJSON *take);

/*
 * The next JSON object. The gateway's own {"type":"ping"} is skipped. NULL when the time is over,
 * the connection ended, or something came that is no JSON object; `*why`, when given, then holds
 * the tl_ws_recv result. The raw bytes stay in tl_ws_data() until the next receive.
 */
cJSON *tl_json_next(struct tl_ws *ws, int timeout_ms, int *why);

/* As tl_json_next, pings included. */
cJSON *tl_json_any(struct tl_ws *ws, int timeout_ms, int *why);

/* Skips frames until one has this type. NULL when none came in time. */
cJSON *tl_json_wait(struct tl_ws *ws, const char *type, int timeout_ms);

/* True when no frame but pings arrives for this long. */
bool tl_json_quiet(struct tl_ws *ws, int for_ms);

/*
 * Look-ups by dotted path: "policy.max_payload", "state.messages.0.cursor". Case-sensitive.
 * tl_str returns "" and tl_int returns INT64_MIN when the member is not there or of another type.
 */
const cJSON *tl_get(const cJSON *o, const char *path);
const char *tl_str(const cJSON *o, const char *path);
int64_t tl_int(const cJSON *o, const char *path);
bool tl_bool(const cJSON *o, const char *path);
bool tl_has(const cJSON *o, const char *path);
bool tl_is(const cJSON *o, const char *path, const char *value);

/* Is the string an element of the array at path? */
bool tl_in(const cJSON *o, const char *path, const char *value);

/*
 * The raw bytes of one member of a JSON text, by dotted path of object members: what a replay holds
 * as "event.data". Returns a pointer into text and its length, or NULL.
 */
const char *tl_raw(const char *text, const char *path, size_t *len);

/*
 * Scans a frame for an integer member by its name without parsing, the first occurrence. For load
 * generators. Returns fallback when it is not there.
 */
int64_t tl_scan_int(const char *text, const char *name, int64_t fallback);

/*
 * hello with these extra members (a JSON fragment like "\"since\":4", or NULL) for an agent, then
 * the answer, whatever its type. `token` may be NULL. The caller owns the result.
 */
cJSON *tl_hello(struct tl_ws *ws, const char *agent, const char *token, const char *extra,
                int timeout_ms);

/* Describes a tl_ws_recv result. */
const char *tl_json_why(int kind);

#endif
