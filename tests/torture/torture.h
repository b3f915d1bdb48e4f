/*
 * torture.h - the real daemon under mixed load, killed at random instants, held to what it told.
 *
 * One thread plays clients and workers. What the gateway tells them is kept across its deaths:
 * every accepted message with its cursor, and a fingerprint of every event at its cursor. Each
 * later sight of the same cursor, live or replayed, on whatever connection, must be the same bytes;
 * each connection must see each cursor once and in order; and at the end the whole log is read and
 * compared (check.c).
 */
#ifndef EG_TORTURE_TORTURE_H
#define EG_TORTURE_TORTURE_H

#include "../bench/load.h"
#include "tl_gate.h"

#define SESSIONS 8
#define CLIENTS 24
#define WORKERS 3
#define HELD 8
#define CURSORS_MAX 400000
#define T_CONFIG                                                                                   \
    "agents = [\"torture\"];\nmax_attempts = 1000;\nabort_grace_ms = 200;\nretry_backoff_ms = "    \
    "5;\n"

/* What is known of one session's log from what anybody was told. */
struct truth {
    uint64_t *print; /* fingerprint by cursor; 0: not seen */
    uint64_t *at;    /* t.position when it was first told of, by cursor; 0: not told */
    uint64_t top;    /* highest cursor that anybody was told of */
};

struct promise {
    int session;
    uint64_t cursor;
    int client;
    unsigned number;
    uint64_t at; /* t.position when it was given */
};

struct client {
    struct lc c; /* first */
    int number, session;
    bool joined;
    uint64_t have;
    unsigned next,
        pending;    /* number of its last message, and of the one without an answer (0 none) */
    int64_t act_at; /* when it does something again, microseconds */
};

struct worker {
    struct lc c; /* first */
    int number;
    bool joined;
    struct job {
        int session;
        uint64_t turn;
        int attempt, emits;
    } job[HELD];
    int jobs;
    int64_t act_at;
};

struct torture {
    struct tl_gate *gate;
    struct load_target client_at, worker_at;
    char *client_token, *worker_token;
    struct client client[CLIENTS];
    struct worker worker[WORKERS];
    struct truth truth[SESSIONS];
    struct promise *promises;
    size_t promise_count, promise_cap;
    uint64_t rng;
    bool calm;
    unsigned long kills, events, repeats, aborts, refusals;
    /* What other suites set before t_start. */
    void (*prepared)(void);     /* the gate's folder is there, the daemon not yet started */
    uint64_t (*position)(void); /* of a recorder; NULL: none */
    const char *const *excuses; /* parts of refusals that are no fault; NULL-terminated */
    int port;                   /* where clients and workers connect; 0: the gate's own */
    int64_t pace;               /* clients act this many times more seldom; 0: as 1 */
};

extern struct torture t;

uint64_t t_random(uint64_t below);
/* A fingerprint of an event's bytes; never 0. */
uint64_t t_print(const char *p, size_t n);
void t_session_name(int session, char out[32]);
/* Somebody saw this event at this cursor. */
void t_saw(int session, uint64_t cursor, const char *event, size_t n);
/* Starts the gate (NULL: with T_CONFIG alone) and mints tokens; t_aim: its port has changed. */
void t_start(const struct tl_gate_opts *with);
void t_aim(void);
/* Drops every connection. */
void t_hang_up(void);
/* Clients and workers do what they do for so long. */
void t_play(int64_t us);
/* Reads every session whole and holds it against all that was told; ends the program on a fault. */
void t_check(void);

#endif
