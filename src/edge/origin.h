/*
 * origin.h - which web pages may open a WebSocket here, and which Host names reach a listener on
 * loopback. Pure.
 */
#ifndef EG_EDGE_ORIGIN_H
#define EG_EDGE_ORIGIN_H

#include <stdbool.h>

/*
 * Whether origin (the Origin header; NULL: none, not a browser) may connect: exactly one of the
 * NULL-terminated list, or, when the listener is bound to loopback, a page served from loopback:
 * http or https, localhost, 127.0.0.1 or [::1], any port (RFC 6454 6.1 spelling).
 */
bool eg_origin_allowed(const char *origin, char *const *allowed, bool bound_to_loopback);

/*
 * Whether a Host header (RFC 9112 3.2) names this machine's loopback, or bound, the HOST:PORT of
 * the listener. Anything else on a loopback listener comes from a page that made its own name point
 * here (DNS rebinding).
 */
bool eg_host_is_local(const char *host, const char *bound);

/* Whether text, an IPv4 or IPv6 address, is loopback. */
bool eg_address_is_loopback(const char *text);

#endif
