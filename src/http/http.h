/*
 * http.h - everything over plain HTTP: the admin API with its console on the admin listener, and
 * the API for clients on the public one.
 *
 * One struct eg_http serves both listeners. It is made after the core, told of the listeners when
 * they are bound, and freed after they have stopped and before the core stops.
 */
#ifndef EG_HTTP_HTTP_H
#define EG_HTTP_HTTP_H

#include "edge/listener.h"

struct eg_http;

struct eg_http_config {
    struct eg_core *core;
    struct eg_reactors *reactors;
    struct eg_auth *auth;
    struct eg_settings *settings; /* a reference is taken */
    const char *dir;              /* data folder; copied */
    void *arg;
    /* Called from HTTP threads. */
    void (*drain)(void *arg); /* begins to end the process as SIGTERM does */
    /* Appends the settings in force as one JSON object, secrets hidden. */
    void (*config)(void *arg, struct eg_buf *out);
    /* Reads the key files again and puts the ring in force; connections are judged by it. On
     * failure why says what and where, and the old ring stays. */
    enum eg_err (*reload_keys)(void *arg, char *why, size_t why_size);
};

enum eg_err eg_http_new(const struct eg_http_config *config, struct eg_http **out) EG_MUST;
/* Requests under way no longer wait for slow clients; a backup is given up. Before the listeners
 * are stopped. */
void eg_http_stop(struct eg_http *h);
/* Waits for the thread of a backup. NULL is fine. */
void eg_http_free(struct eg_http *h);
/* A new snapshot; refs it. Any thread. */
void eg_http_settings(struct eg_http *h, struct eg_settings *settings);
/* Tells the listener when it is bound; admin or public. */
void eg_http_listener(struct eg_http *h, bool admin, struct eg_listener *l);
/* From now on /ready no longer says "starting". */
void eg_http_started(struct eg_http *h);

/* Request hooks of the listeners; arg is the struct eg_http. */
int eg_http_public(void *arg, struct mg_connection *conn);
int eg_http_admin(void *arg, struct mg_connection *conn);

#endif
