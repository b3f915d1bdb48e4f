/*
 * proxy.h - a bad network between clients and the gateway, in a process of its own.
 */
#ifndef EG_NETCUT_PROXY_H
#define EG_NETCUT_PROXY_H

#include <stdint.h>
#include <sys/types.h>

/* Shared with the proxy; all atomic. */
struct proxy_state {
    int32_t target; /* port of the gateway, on loopback */
    int32_t calm;   /* 1: pass everything on, as it comes */
    int64_t connections, cuts, resets, delays, stalls, pieces, bytes, refused;
};

/* Starts it; *port is where clients connect. The process dies with this one. */
pid_t proxy_start(struct proxy_state *state, uint64_t seed, int *port);

#endif
