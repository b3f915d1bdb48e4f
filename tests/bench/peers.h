/*
 * peers.h - other servers, measured by the same generator in the same run.
 *
 * A peer is a server of its own process in a folder of its own, on a loopback port, ended by its
 * process id. Its driver speaks its protocol on the generator's connections and tells what happened
 * with peer_ready, peer_acked and peer_event; the scenarios (peers_load.c) are the same for all and
 * report under the names of the gateway's figures. One thread.
 */
#ifndef EG_BENCH_PEERS_H
#define EG_BENCH_PEERS_H

#include <sys/types.h>

#include "bench.h"

/* What a peer can be measured in. */
enum {
    CAN_ECHO = 1,
    CAN_PUBLISH = 2, /* publish, paced */
    CAN_PIPELINE = 4,
    CAN_FANOUT = 8,
    CAN_REPLAY = 16,
    CAN_HELLO = 32, /* hello, idle */
};

/* What a connection is for. */
enum peer_role {
    ROLE_SETUP,     /* makes what the others need; ready: done */
    ROLE_PUBLISHER, /* publishes into the log of its session; ready: may publish */
    ROLE_SPEAKER,   /* publishes to the followers */
    ROLE_FOLLOWER,  /* gets what speakers publish; ready: follows */
    ROLE_PLACER,   /* before the log is filled: takes a place in its session from which to resume */
    ROLE_REPLAYER, /* gets the whole log of its session; ready: need not be told */
    ROLE_IDLE      /* ready: welcomed */
};

#define PEER_WINDOW 128

struct pc {
    struct lc lc; /* first: a driver gets it as struct lc */
    struct peer *peer;
    enum peer_role role;
    unsigned number, session;
    bool ready;
    int64_t sent_us[PEER_WINDOW]; /* of what is not yet acknowledged, a ring */
    unsigned long sent, acked;
    /* The driver's own. */
    long state[3];
    char place[2][64];
};

struct peer {
    const char *name;    /* who, in the figures */
    const char *ack;     /* what an acknowledgement means */
    const char *version; /* shell command whose first line is the version */
    unsigned can;
    bool setup; /* one connection in ROLE_SETUP before the others */
    bool place; /* replay needs ROLE_PLACER */
    /* Writes configuration into p->dir and fills argv (room for 32, NULL at the end); what it
     * points to lives in p->arg. */
    void (*command)(struct peer *p, const char **argv);
    /* Starts connecting c for its role. */
    void (*connect)(struct pc *c);
    /* Queues one publish of n bytes (a PUBLISHER's into session). */
    void (*publish)(struct pc *c, unsigned session, const char *payload, size_t n);
    /* Its process. */
    pid_t pid;
    int port;
    char dir[64], arg[8][256];
    bool away; /* cannot be had, or failed: left out from now on */
};

/* What drivers tell (peers_load.c). */
void peer_ready(struct pc *c);
void peer_acked(struct pc *c);
void peer_event(struct pc *c, unsigned events);

/* peers.c: processes. False, with the reason as a fact, when it cannot be had. */
bool peer_start(struct peer *p);
void peer_stop(struct peer *p);
long peer_rss(const struct peer *p);
void peer_left_out(struct peer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Writes a file into the peer's folder. */
void peer_file(struct peer *p, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* All peers, NULL at the end. */
extern struct peer *const peers[];
extern struct peer peer_redis, peer_nats, peer_mosquitto, peer_nchan, peer_ws, peer_socketio;

/* Runs the scenario with this name for each peer that can. */
void peers_scenario(struct bench *b, const char *name);

#endif
