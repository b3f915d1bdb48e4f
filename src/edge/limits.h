/*
 * limits.h - what one address may have: connections, unfinished handshakes, new connections a
 * second; and token buckets. Any thread (one lock); the table is bounded and forgets idle
 * addresses.
 */
#ifndef EG_EDGE_LIMITS_H
#define EG_EDGE_LIMITS_H

#include "base/bytes.h"
#include "ebbgate/codes.h"
#include "ebbgate/settings.h"

struct eg_limits;

enum eg_err eg_limits_new(struct eg_settings *settings, struct eg_limits **out) EG_MUST;
void eg_limits_free(struct eg_limits *l);
void eg_limits_settings(struct eg_limits *l, struct eg_settings *settings);

/* A new connection of addr (text, without port). EG_CODE_NONE: counted as connection and as
 * unfinished handshake; rate_limited or too_many_connections: not counted. */
enum eg_code eg_limits_enter(struct eg_limits *l, const char *addr, int64_t mono_ms);
void eg_limits_established(struct eg_limits *l, const char *addr); /* its handshake is over */
void eg_limits_leave(struct eg_limits *l, const char *addr, bool was_established);

/* A bucket of rate a second, burst of the same size (at least 1). rate 0: always allowed. */
struct eg_bucket {
    int64_t level_milli, at_ms;
};
bool eg_bucket_take(struct eg_bucket *b, int64_t rate, int64_t n, int64_t mono_ms);

#endif
