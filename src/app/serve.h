/*
 * serve.h - private to src/app: the running gateway, shared by start, stop and reload.
 */
#ifndef EG_APP_SERVE_H
#define EG_APP_SERVE_H

#include "app/cli.h"
#include "app/maintain.h"
#include "base/lock.h"
#include "core/core.h"
#include "edge/listener.h"
#include "http/http.h"

EG_MUTEX(eg_serve);

struct eg_serve {
    const struct eg_command *cmd;
    struct eg_config_args args; /* what reload reads again */
    struct eg_serve_mutex lock; /* settings, and one change of keys at a time */
    struct eg_settings *settings EG_GUARDED_BY(eg_serve_mutex); /* main thread writes */
    unsigned reactor_count;
    struct eg_auth *auth;
    struct eg_limits *limits;
    struct eg_reactors *reactors;
    struct eg_core *core;
    struct eg_maintain *maintain;
    struct eg_http *http;
    struct eg_listener *public_listener, *admin_listener;
    int signals; /* signalfd */
};

/* serve_start.c: everything up to listening. Returns EG_PROCEED or an exit code, said why. */
int eg_serve_start(struct eg_serve *s);
/* Ends what was started, in reverse; commits what was taken in. */
void eg_serve_stop(struct eg_serve *s);
/* serve_files.c: fits max_connections to the descriptors that may be had. */
void eg_serve_fit_files(struct eg_settings *settings);

/* serve_reload.c: reads the keys again and judges connections by them; on failure why says what,
 * and the old ones stay. Any thread. */
enum eg_err eg_serve_reload_keys(struct eg_serve *s, char *why, size_t why_size) EG_MUST;
/* Appends the settings in force as a JSON object. Any thread. */
void eg_serve_print_config(struct eg_serve *s, struct eg_buf *out);
/* Main thread: reads configuration and keys again; keeps the old ones on a mistake. */
void eg_serve_reload(struct eg_serve *s);

#endif
