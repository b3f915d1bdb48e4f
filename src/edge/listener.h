/*
 * listener.h - civetweb: accepting, HTTP, the upgrade on /ws. One listener is public, one is for
 * admin.
 *
 * civetweb is named in edge/listener.c, edge/upgrade.c, edge/adopt.c, http/router.c and
 * http/transport.c only.
 */
#ifndef EG_EDGE_LISTENER_H
#define EG_EDGE_LISTENER_H

#include "edge/reactor.h"

struct mg_connection;
struct eg_listener;

struct eg_listener_config {
    const char *address; /* HOST:PORT, port 0 allowed */
    int workers;
    struct eg_settings *settings;
    struct eg_reactors *reactors; /* NULL: no WebSocket here (admin) */
    struct eg_limits *limits;     /* NULL: none (admin) */
    /* Every request but the upgrade on /ws. Returns the HTTP status it sent. Host, body length and
     * transfer coding were checked. */
    int (*request)(void *arg, struct mg_connection *conn);
    void *arg;
};

/* Starts listening. EG_EBUSY: address in use. why says what is wrong. Checks mg_check_feature(16)
 * and, with reactors, runs the adoption self-test: EG_ECORRUPT when it fails (exit 70). */
enum eg_err eg_listener_start(const struct eg_listener_config *config, struct eg_listener **out,
                              char *why, size_t why_size) EG_MUST;
/* HOST:PORT really bound. */
const char *eg_listener_bound(const struct eg_listener *l);
void eg_listener_settings(struct eg_listener *l, struct eg_settings *settings);
void eg_listener_draining(struct eg_listener *l);
void eg_listener_stop(struct eg_listener *l);

/* The client's address behind trusted proxies; text into out. */
void eg_listener_client_addr(struct eg_listener *l, const struct mg_connection *conn, char out[64]);

/*
 * Takes the socket of a plain HTTP request (an event stream): writes head (a complete status line
 * and header block) to it and hands it to the reactors of l, the public listener, even for a
 * request that came in on the admin one. To be called as the handler's last act. a->fd and a->addr
 * are filled in. Takes a, whatever happens.
 * EG_EFULL: a limit of the address or of all connections is reached; EG_EAGAIN: new ones of the
 * address come too fast. Nothing was written then: the handler answers too_many_connections or
 * rate_limited. EG_EIO: not adopted, the connection closes.
 */
enum eg_err eg_adopt_stream(struct eg_listener *l, struct mg_connection *conn, struct eg_slice head,
                            struct eg_adopted *a) EG_MUST;

#endif
