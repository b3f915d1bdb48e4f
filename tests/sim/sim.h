/*
 * sim.h - the simulator's world: the real state machine over a storage in memory, clients and
 * workers that do whatever a seeded random source says, a clock that jumps, commits that fail, and
 * crashes.
 *
 * Single-threaded and deterministic: one seed is one story. Everything a client or worker was told
 * is kept and held against the log at the end (check.c).
 */
#ifndef EG_TESTS_SIM_H
#define EG_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/machine.h"

#define SIM_SESSIONS 5
#define SIM_CLIENTS 8
#define SIM_WORKERS 4
#define SIM_PENDING 4
#define SIM_QUEUE 64
#define SIM_STORY 4000 /* lines of the story that are kept */

/* One stored event as somebody saw it. */
struct seen {
    uint64_t cursor;
    struct eg_bytes *bytes;
};

/* What a client side remembers: it outlives connections and crashes of the gateway. */
struct sim_client {
    int session;     /* which of the sessions it talks in */
    eg_conn_id conn; /* 0: not connected */
    bool attached;
    int64_t sid;
    uint64_t have; /* events 1..have were seen */
    struct seen *log;
    unsigned logged, cap;
    unsigned next_id;              /* of its messages */
    unsigned pending[SIM_PENDING]; /* ids that were sent and not answered */
    unsigned pendings;
    bool present;                  /* it has said so, and was told who else is */
    eg_conn_id knows[SIM_CLIENTS]; /* those of whose presence it was told; 0: none */
};

/* An accepted publish: must be in the log as told. */
struct promise {
    int session;
    uint64_t cursor;
    unsigned client, id;
};

/* An abort that was confirmed: the log says so, too. */
struct stopped {
    int session;
    uint64_t turn;
};

/* A turn as it was handed to a worker's connection, in order. */
struct handed {
    int session;
    uint64_t turn;
    eg_conn_id conn;
};

struct sim_worker {
    eg_conn_id conn;
    bool attached;
    struct held_turn {
        int session;
        uint64_t turn;
        int attempt;
        unsigned emits;
    } held[4];
    int held_count, concurrency;
};

struct sim {
    uint64_t seed, rng;
    const uint8_t *script, *script_end; /* choices in place of the random source; NULL: none */
    struct eg_storage *storage;
    struct eg_settings *settings;
    struct eg_machine *machine;
    struct eg_now now;
    struct sim_client client[SIM_CLIENTS];
    struct sim_worker worker[SIM_WORKERS];
    struct promise *promise;
    unsigned promises, promise_cap;
    struct stopped *stopped;
    unsigned stops, stop_cap;
    struct handed *handed;
    unsigned hands, hand_cap;
    uint64_t next_conn;
    unsigned serial; /* makes contents unlike each other */
    struct eg_cmd *queue[SIM_QUEUE];
    int queued;
    char *story[SIM_STORY];
    unsigned told;
    unsigned long batches, crashes, failures, damages;
    int64_t damaged_sid; /* session with a message that cannot be read; 0: none */
    bool calm;           /* no more faults: everything is to come to an end */
    char fault[400];
};

uint64_t sim_random(struct sim *w, uint64_t below);
void sim_tell(struct sim *w, const char *fmt, ...) EG_PRINTF(2, 3);
/* Records the first fault found. */
void sim_fault(struct sim *w, const char *fmt, ...) EG_PRINTF(2, 3);

/* Gives an output to whom it goes (heard.c). */
void sim_deliver(struct sim *w, const struct eg_out *o);
/* Whether everybody knows of everybody's presence. */
void sim_check_presence(struct sim *w);
void sim_let_go(struct sim_worker *k, struct held_turn *h);

/* Runs one schedule of steps; returns false, with w->fault set, when a rule was broken. */
bool sim_run(struct sim *w, uint64_t seed, unsigned steps);
/* The same with each choice taken from n bytes, until they are used up. */
bool sim_play(struct sim *w, const uint8_t *bytes, size_t n);
void sim_end(struct sim *w);

/* Holds the log against all that was told (check.c). */
void sim_check(struct sim *w);
void sim_session_name(int session, char out[32]);

#endif
