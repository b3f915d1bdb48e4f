/*
 * limits.h - what one address may have: connections, unfinished handshakes, new connections a
 * second. Any thread (one lock); the table is bounded and forgets idle addresses.
 *
 * An address is IPv4, or the /64 of an IPv6 address, since that is what one household gets.
 * Loopback has no limits of its own unless the settings name some.
 *
 * Happy path: a socket is accepted (knock), sends its request (knocked), is upgraded (enter), says
 * hello (established), and closes (leave).
 */
#ifndef EG_EDGE_LIMITS_H
#define EG_EDGE_LIMITS_H

#include "base/bucket.h"
#include "base/bytes.h"
#include "ebbgate/codes.h"
#include "ebbgate/settings.h"

struct eg_limits;

enum eg_err eg_limits_new(struct eg_settings *settings, struct eg_limits **out) EG_MUST;
void eg_limits_free(struct eg_limits *l);
void eg_limits_settings(struct eg_limits *l, struct eg_settings *settings);

/* A socket of addr was accepted and has not sent its request. true: counted until
 * eg_limits_knocked; false: addr has as many of these as it may have unfinished handshakes, not
 * counted. */
bool eg_limits_knock(struct eg_limits *l, const char *addr, int64_t mono_ms);
void eg_limits_knocked(struct eg_limits *l, const char *addr);

/* A new connection of addr (text, without port). EG_CODE_NONE: counted as connection and as
 * unfinished handshake; rate_limited or too_many_connections: not counted. */
enum eg_code eg_limits_enter(struct eg_limits *l, const char *addr, int64_t mono_ms);
void eg_limits_established(struct eg_limits *l, const char *addr); /* its handshake is over */
void eg_limits_leave(struct eg_limits *l, const char *addr, bool was_established);

/* How much is counted now. */
struct eg_limits_count {
    int64_t connections, handshakes; /* of all addresses; handshakes with those that knock */
    int64_t addresses;               /* rows in the table */
};
struct eg_limits_count eg_limits_count(struct eg_limits *l);

#endif
