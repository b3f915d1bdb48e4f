/*
 * wsclient.h - a WebSocket connection that comes back: what chat and agent talk to a gateway with.
 *
 * Purpose: connects (libcurl: names, TLS, proxies), upgrades, sends and receives text, notices
 * silence, reconnects with growing, spread waits. Threads: one; everything happens inside
 * eg_wsc_run, which also waits for the caller's own descriptors. Owns its socket and buffers.
 * Happy path: eg_wsc_new -> eg_wsc_run in a loop; hooks: open -> text ... -> lost -> (waits) ->
 * open. Failure modes: every end of a connection is told once through lost; the caller decides
 * there whether to go on (default), to wait longer, or to stop.
 */
#ifndef EG_APP_WSCLIENT_H
#define EG_APP_WSCLIENT_H

#include <poll.h>

#include "base/bytes.h"

struct eg_wsc;

/* How a connection, or the attempt at one, ended. */
struct eg_wsc_end {
    int close_code;         /* of the gateway's close frame; 0: there was none */
    int http_status;        /* of a refused upgrade; 0: upgraded, or nothing was answered */
    char code[64];          /* protocol code of a refused upgrade; "" none */
    char reason[256];       /* for people */
    int64_t retry_after_ms; /* as told by the gateway; -1: not told */
    bool was_open;
};

struct eg_wsc_hooks {
    void (*open)(void *arg); /* upgraded: say hello */
    void (*text)(void *arg, struct eg_slice frame);
    void (*lost)(void *arg, const struct eg_wsc_end *end);
    void *arg;
};

/*
 * url: ws, wss, http or https; without a path it gets /ws. token NULL: none. EG_EINVALID with why
 * when the URL is none. Connects at the first eg_wsc_run.
 */
enum eg_err eg_wsc_new(const char *url, const char *token, const struct eg_wsc_hooks *hooks,
                       struct eg_wsc **out, char *why, size_t why_size) EG_MUST;
void eg_wsc_free(struct eg_wsc *c);

/* The token of the next connection; copied. False without memory. */
bool eg_wsc_token(struct eg_wsc *c, const char *token);
/* The handshake succeeded: waits start small again, and silence longer than 2.5 heartbeats is an
 * end. */
void eg_wsc_settled(struct eg_wsc *c, int64_t heartbeat_ms);
/* Queues a text message; dropped when the connection is not open. */
void eg_wsc_send(struct eg_wsc *c, struct eg_slice text);
bool eg_wsc_is_open(const struct eg_wsc *c);
size_t eg_wsc_queued(const struct eg_wsc *c); /* bytes not yet written */
/* Starts the closing handshake. */
void eg_wsc_close(struct eg_wsc *c, int code);
/* Not before ms from now is the next connection tried. */
void eg_wsc_retry_after(struct eg_wsc *c, int64_t ms);
/* Ends the connection now; there will be no other and no more hooks. */
void eg_wsc_stop(struct eg_wsc *c);

/*
 * One round: waits at most timeout_ms (-1: without end) for the connection and for fds, whose
 * revents are set, and does what there is to do.
 */
void eg_wsc_run(struct eg_wsc *c, struct pollfd *fds, nfds_t nfds, int64_t timeout_ms);

#endif
