/*
 * reactor.h - the threads that own connections: epoll loops, and the readers that feed replays.
 *
 * A reactor owns its connections and the list of who follows which session; nothing else touches
 * them. Everything from outside (adopted sockets, releases of the core, pages read from the log,
 * settings, closing) comes through its queue.
 */
#ifndef EG_EDGE_REACTOR_H
#define EG_EDGE_REACTOR_H

#include "core/core.h"
#include "edge/auth.h"
#include "edge/limits.h"

enum eg_conn_mode { EG_CONN_WS, EG_CONN_SSE, EG_CONN_ECHO /* start-up self-test and benchmarks */ };

/* A socket that was taken over. Strings malloc'ed or NULL. */
struct eg_adopted {
    int fd; /* non-blocking, TCP_NODELAY, owned */
    enum eg_conn_mode mode;
    /* Client address as limits count it. Unless refuse is set it was entered there by the listener;
     * the reactor calls eg_limits_established and, at the end, eg_limits_leave. */
    char addr[64];
    char *token;           /* from Authorization, subprotocol or query; NULL none */
    bool token_from_query; /* the token of hello goes before it */
    bool origin_allowed; /* false: the first frame is answered by hello_error origin_not_allowed */
    enum eg_code refuse; /* not NONE: the first frame is answered by this hello_error (limits) */
    bool draining;
    /* SSE only: what to follow; the 200 answer was sent already */
    struct eg_slice session_id; /* points into sse_session */
    char sse_session[EG_ID_MAX + 1];
    int64_t since;           /* -1: live only */
    char *epoch;             /* as given by the client; NULL none */
    struct eg_claims claims; /* SSE: verified already; owned */
};

struct eg_reactors;

struct eg_reactors_config {
    unsigned count;
    struct eg_settings *settings;
    struct eg_auth *auth;
    struct eg_limits *limits;
    const char *dir; /* data folder, for readers */
};

enum eg_err eg_reactors_new(const struct eg_reactors_config *config,
                            struct eg_reactors **out) EG_MUST;
/* Starts the threads. core is borrowed until eg_reactors_stop returns. */
enum eg_err eg_reactors_start(struct eg_reactors *rs, struct eg_core *core) EG_MUST;
/* Takes what a holds (socket, token, epoch, claims), not the struct itself, which may be on the
 * stack; on failure the socket is closed. Any thread. */
void eg_reactors_adopt(struct eg_reactors *rs, struct eg_adopted *a);
/* struct eg_core_hooks.release. Takes r. */
void eg_reactors_release(void *rs, unsigned reactor, struct eg_release *r);
void eg_reactors_settings(struct eg_reactors *rs, struct eg_settings *settings);
/* Keys or revocations changed: each reactor judges its connections again, closing with 4001. */
void eg_reactors_judge(struct eg_reactors *rs);
/* From now on hello is refused with draining. */
void eg_reactors_drain(struct eg_reactors *rs);
/* Tells every connection reconnect + close 1012, spreading retry_after_ms over 0..spread_ms;
 * returns when all are closed or after timeout_ms. They are told once. */
void eg_reactors_farewell(struct eg_reactors *rs, int64_t spread_ms, int64_t timeout_ms);
/* Ends the threads and closes what is left; releases that come later are dropped. To be called
 * before eg_core_stop, whose last batch still calls eg_reactors_release. */
void eg_reactors_end(struct eg_reactors *rs);
/* eg_reactors_end, when it was not called, and frees. */
void eg_reactors_stop(struct eg_reactors *rs);

/* One connection, for operators. Valid during the callback. */
struct eg_conn_info {
    eg_conn_id id;
    const char *sub, *addr, *agent, *session, *client_name, *client_version, *worker_id, *mode;
    int64_t since_ms; /* wall */
    int64_t queued_frames, queued_bytes, received_frames, sent_frames;
    uint64_t cursor;
};
/* Calls fn for each connection, on the caller's thread, from copies. Waits for the reactors. */
void eg_reactors_each(struct eg_reactors *rs,
                      void (*fn)(void *arg, const struct eg_conn_info *info), void *arg);

#endif
