/*
 * listener_int.h - private to src/edge: a listener, and what upgrade.c does for listener.c.
 */
#ifndef EG_EDGE_LISTENER_INT_H
#define EG_EDGE_LISTENER_INT_H

#include <pthread.h>

#include "base/bucket.h"
#include "base/lock.h"
#include "edge/handshake.h"
#include "edge/listen_address.h"
#include "edge/listener.h"
#include "edge/lobby.h"
#include "edge/proxy.h"
#include "edge/selftest.h"

#define EG_LISTENER_PATH "/ws"

EG_RWLOCK(listener);
EG_MUTEX(count);

struct eg_listener {
    struct eg_listener_config config; /* address is a copy, settings under lock */
    struct eg_listen_address address;
    char bound[80];
    struct mg_context *ctx;
    struct eg_lobby *lobby;
    struct eg_selftest *selftest; /* while starting */
    int ready, draining;          /* atomic */

    struct listener_rwlock lock; /* of what a reload changes: */
    struct eg_settings *settings EG_GUARDED_BY(listener_rwlock);
    struct eg_proxies *proxies EG_GUARDED_BY(listener_rwlock);

    struct count_mutex count_lock;
    pthread_cond_t counted;
    int workers EG_GUARDED_BY(count_mutex); /* threads that started */
    struct eg_bucket polite EG_GUARDED_BY(count_mutex);
};

/* Writes a complete answer; its status. */
int eg_listener_answer(struct mg_connection *conn, const struct eg_refusal *why);
/* Gives a request what it is to get: 0 to let the library upgrade it, else the status sent. */
int eg_listener_request(struct mg_connection *conn);

#endif
