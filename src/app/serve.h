/*
 * serve.h - private to src/app: the running gateway, shared by start, stop and reload.
 */
#ifndef EG_APP_SERVE_H
#define EG_APP_SERVE_H

#include <pthread.h>

#include "app/cli.h"
#include "app/maintain.h"
#include "core/core.h"
#include "edge/listener.h"

struct eg_serve {
    const struct eg_command *cmd;
    struct eg_config_args args; /* what reload reads again */
    struct eg_settings *settings;
    unsigned reactor_count;
    struct eg_auth *auth;
    struct eg_limits *limits;
    struct eg_reactors *reactors;
    struct eg_core *core;
    struct eg_maintain *maintain;
    struct eg_listener *public_listener, *admin_listener;
    int signals; /* signalfd */
};

/* serve_start.c: everything up to listening. Returns EG_PROCEED or an exit code, said why. */
int eg_serve_start(struct eg_serve *s);
/* Ends what was started, in reverse; commits what was taken in. */
void eg_serve_stop(struct eg_serve *s);
/* Fits max_connections to the descriptors that may be had. */
void eg_serve_fit_files(struct eg_settings *settings);

/* serve_reload.c: reads configuration and keys again; keeps the old ones on a mistake. */
void eg_serve_reload(struct eg_serve *s);

#endif
