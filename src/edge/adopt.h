/*
 * adopt.h - moving a socket out of civetweb into a reactor, on the worker thread that serves it.
 * What it relies on stands at the top of adopt.c.
 *
 * One worker thread serves one connection at a time, so what is known of it is thread-local.
 */
#ifndef EG_EDGE_ADOPT_H
#define EG_EDGE_ADOPT_H

#include "edge/reactor.h"

struct mg_connection;

/* Adopted sockets have numbers from here on, where there is room; accepted ones come and go below.
 */
#define EG_ADOPT_FD_BASE 256

/* Who gets a proven socket; takes a. */
typedef void eg_adopt_sink(void *arg, struct eg_adopted *a);

/* This worker begins a new connection. */
void eg_adopt_begin(void);
/* The connection of this worker is over: forgets what eg_adopt_prepare left. */
void eg_adopt_end(void);
/* The descriptor of this worker's connection; -1 when nothing was received, or it was adopted. */
int eg_adopt_fd(void);
/* Bytes received behind the request head. */
size_t eg_adopt_beyond_head(void);

/* The upgrade about to be answered shall end in sink with a. Takes a. limits (may be NULL): where
 * a->addr was entered, to leave it if the adoption fails. */
void eg_adopt_prepare(struct eg_adopted *a, struct eg_limits *limits, eg_adopt_sink *sink,
                      void *arg);

/* The three WebSocket handlers of civetweb. */
void eg_adopt_ready(struct mg_connection *conn, void *arg);
int eg_adopt_data(struct mg_connection *conn, int bits, char *data, size_t n, void *arg);
void eg_adopt_close(const struct mg_connection *conn, void *arg);

/* The same for a plain request: proves the swap, writes head to the socket, and fills a->fd; what
 * civetweb still does with the connection goes nowhere. a stays the caller's. EG_EIO: not adopted,
 * the connection closes. */
enum eg_err eg_adopt_plain(struct mg_connection *conn, struct eg_slice head,
                           struct eg_adopted *a) EG_MUST;

/*
 * After an answer was written to a request with a body of body_bytes: a duplicate of the socket,
 * when not all of the body was received, else -1. Closing over bytes that come in would reset the
 * connection, and the answer might never be seen: the duplicate is for eg_lobby_linger.
 */
int eg_adopt_unread(long long body_bytes);

/* Frees a and what it owns, wiping the token, and closes its socket. */
void eg_adopted_free(struct eg_adopted *a);

#endif
