/*
 * sim.h - the simulator's world: the real state machine over a storage in memory, clients, workers
 * and operators that do whatever a seeded random source says, a clock that jumps, commits that
 * fail, and crashes.
 *
 * Single-threaded and deterministic: one seed is one story. All that was ever written is kept
 * beside the storage (lives.c), and so is everything a client, worker or operator was told; the one
 * is held against the other after each batch and at the end (check.c).
 *
 *   world.c    schedules: who acts next, and how it all comes to an end
 *   batch.c    commands, batches, failing commits, crashes
 *   acts.c     what clients and workers do
 *   operate.c  what operators do
 *   create.c   sessions made by HTTP
 *   acks.c     how far each sub has said that it read
 *   tokens.c   who may come in: revocations
 *   limits.c   settings that change while the gateway runs, and what they allow
 *   judge.c    whether they were answered rightly
 *   heard.c    what clients and workers are told
 *   lives.c    what became of each session
 *   check.c    what has to be true at the end
 */
#ifndef EG_TESTS_SIM_H
#define EG_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/machine.h"

#define SIM_SESSIONS 5 /* names that clients choose; copies and late comers have others */
#define SIM_CLIENTS 8
#define SIM_WORKERS 4
#define SIM_PENDING 4
#define SIM_QUEUE 64
#define SIM_CALLS 16
#define SIM_SUBS 2     /* of clients: "u" and "g" */
#define SIM_REVOKED 32 /* revocations of one schedule */
#define SIM_STORY 4000 /* lines of the story that are kept */
#define SIM_NAME 40
#define SIM_OPERATOR 99 /* its number, where clients have theirs */

/* One stored event as somebody saw it. */
struct seen {
    uint64_t cursor;
    struct eg_bytes *bytes;
    uint64_t floor;  /* of a life: its floor when this had been written */
    int64_t wall_ms; /* and when that was */
};

enum life_state { LIFE_COPYING, LIFE_OPEN, LIFE_CLOSED, LIFE_REMOVED };

/* One session, from its making on: what was written to it, and what it must be by all that
 * operators were answered. A name may have several lives, one after the other. */
struct life {
    char name[SIM_NAME];
    int64_t sid;
    enum life_state state;
    struct seen *event; /* all that was ever written, trimmed or not: first, first + 1 ... */
    unsigned n, cap;
    unsigned kept;        /* of n those that are committed */
    unsigned kept_before; /* and before this batch */
    uint64_t first;
    uint8_t base[EG_CHAIN_BYTES];     /* the hash before the first */
    uint64_t floor, floor_before;     /* the oldest that is still there; before this batch */
    uint64_t floor_least, floor_most; /* between which trims of this batch may leave it */
    unsigned copied;                  /* so many of its events are copies */
    unsigned again;                   /* messages said once more for dead turns */
    unsigned long born, ended;        /* batches; 0: it has not ended */
    unsigned closed;                  /* it was closed: it says so once */
    unsigned long gone;               /* batch in which its row was removed, 0: it is there */
    int owner;                        /* which sub */
    bool claimed;                     /* somebody was answered that it was made for him */
    uint64_t acked[SIM_SUBS], acked_before[SIM_SUBS]; /* read so far, by sub; before this batch */
    unsigned waiting, waiting_kept; /* turns without an end: as written, as committed */
    unsigned waiting_most;          /* at any time in this batch */
};

/* What a client side remembers: it outlives connections and crashes of the gateway. */
struct sim_client {
    char name[SIM_NAME];          /* of the session it talks in */
    int64_t sid;                  /* which that was when it last was there; 0: it was not */
    char epoch[EG_EPOCH_MAX + 1]; /* which it was told then; "" none */
    eg_conn_id conn;              /* 0: not connected */
    bool attached;
    bool closing;  /* the gateway closed the connection: it is still to hang up */
    bool creates;  /* it makes the session if there is none */
    bool reads;    /* the session is closed: it reads what it has missed, as a stream */
    uint64_t have; /* the last event it knows of; those before it were seen, but for told gaps */
    struct seen *log;
    unsigned logged, cap;
    unsigned next_id;              /* of its messages */
    unsigned pending[SIM_PENDING]; /* ids that were sent and not answered */
    unsigned pendings;
    int sub;
    unsigned jti;                  /* number of its token */
    bool from_acked;               /* it came with since "acked" */
    bool past;                     /* it acknowledged what is not there */
    bool present;                  /* it has said so, and was told who else is */
    eg_conn_id knows[SIM_CLIENTS]; /* those of whose presence it was told; 0: none */
};

/* An accepted publish: must be in the log as told. */
struct promise {
    unsigned life;
    uint64_t cursor;
    unsigned client, id;
};

/* A turn of a session. */
struct life_turn {
    unsigned life;
    uint64_t turn;
};

struct turn_list {
    struct life_turn *v;
    unsigned n, cap;
};

/* A turn as it was handed to a worker's connection, in order. */
struct handed {
    unsigned life;
    uint64_t turn;
    eg_conn_id conn;
    int64_t due_mono; /* its lease cannot have run out before */
    bool sign;        /* of life in this batch */
};

/* A bucket of a sub: what it has used at least and at most, thousandths. */
struct sim_rate {
    int64_t least, most, at_mono;
    int64_t slow, fast; /* the rates since then */
};

struct sim_worker {
    eg_conn_id conn;
    unsigned jti;
    bool attached, closing;
    struct held_turn {
        unsigned life;
        uint64_t turn;
        int attempt;
        char epoch[EG_EPOCH_MAX + 1];
    } held[4];
    int held_count, concurrency;
};

/* A call of an operator, with what it borrows. */
struct sim_call {
    struct eg_call call; /* first */
    bool waits;          /* not answered yet */
    unsigned life;       /* what it is about, if about a session */
    uint64_t floor;      /* of that when it was asked */
    char name[SIM_NAME], text[SIM_NAME], id[SIM_NAME];
    unsigned serial;
    int sub; /* CREATE: who asks */
    struct eg_identity identity;
};

struct revoked {
    char what[SIM_NAME];
    int64_t until_ms;
};

struct revoked_list {
    struct revoked v[SIM_REVOKED];
    unsigned n;
};

struct sim {
    uint64_t seed, rng;
    const uint8_t *script, *script_end; /* choices in place of the random source; NULL: none */
    struct eg_storage *storage;
    struct eg_settings *settings;
    struct eg_machine *machine;
    struct eg_now now;
    struct life *life;
    unsigned lives, lives_kept, life_cap;
    struct sim_client client[SIM_CLIENTS];
    struct sim_worker worker[SIM_WORKERS];
    struct sim_call call[SIM_CALLS];
    struct promise *promise;
    unsigned promises, promise_cap;
    struct turn_list stopped; /* aborts that were confirmed: the log says so, too */
    struct turn_list again;   /* dead turns whose message was said once more */
    struct handed *handed;
    unsigned hands, hand_cap;
    uint64_t next_conn;
    unsigned serial; /* makes contents unlike each other */
    struct eg_cmd *queue[SIM_QUEUE];
    int queued;
    bool refuses;            /* the storage failed in this batch, or before it */
    bool draining;           /* nothing is handed out any more, until the gateway ends */
    bool known, other_known; /* the agents "a" and "b" */
    bool known_before;       /* "a", before this batch */
    unsigned long forgotten; /* batch in which "a" was last forgotten */
    bool named;              /* "c", which the configuration may name, is known */
    bool naming;             /* the gateway is to make it known as soon as it can write */
    struct said_ack {        /* in this batch */
        unsigned life;
        int sub;
        uint64_t cursor;
        eg_conn_id conn;
        bool refused; /* it was told so */
    } said[SIM_QUEUE];
    unsigned saids;
    struct revoked_list revoked; /* as operators were answered */
    struct revoked_list gate;    /* as the gateway told its edge since it started */
    unsigned jtis;
    unsigned open_most[SIM_SUBS];      /* sessions that are open, at any time in this batch */
    struct sim_rate rate[SIM_SUBS][2]; /* messages, bytes */
    struct kicked { /* disconnected by an operator in this batch, and not told yet */
        eg_conn_id conn;
        bool refused; /* for want of the audit log; it may be closed all the same */
    } kicked[SIM_CALLS];
    unsigned kicks;
    char *story[SIM_STORY];
    unsigned told;
    unsigned long batches, crashes, failures, damages, events; /* events seen by clients */
    unsigned long reloads, resumes;                            /* from what was acknowledged */
    unsigned long done[EG_CALL_KICK + 1]; /* calls that were answered with success */
    long audits;                          /* entries that the audit log must have */
    int64_t damaged_sid;                  /* session with a message that cannot be read; 0: none */
    bool calm;                            /* no more faults: everything is to come to an end */
    char fault[400];
};

/* --- world.c --- */
uint64_t sim_random(struct sim *w, uint64_t below);
void sim_tell(struct sim *w, const char *fmt, ...) EG_PRINTF(2, 3);
/* Records the first fault found. */
void sim_fault(struct sim *w, const char *fmt, ...) EG_PRINTF(2, 3);
void sim_session_name(int session, char out[SIM_NAME]);
/* Runs one schedule of steps; returns false, with w->fault set, when a rule was broken. */
bool sim_run(struct sim *w, uint64_t seed, unsigned steps);
/* The same with each choice taken from n bytes, until they are used up. */
bool sim_play(struct sim *w, const uint8_t *bytes, size_t n);
void sim_end(struct sim *w);

/* --- batch.c --- */
/* A command, its frame written as JSON and parsed by the real parser; NULL json: without one. */
struct eg_cmd *sim_command(struct sim *w, enum eg_cmd_kind kind, eg_conn_id conn, const char *json);
/* Takes cmd, which may be NULL; false when the queue is full. */
bool sim_post(struct sim *w, struct eg_cmd *cmd);
bool sim_post_frame(struct sim *w, eg_conn_id conn, const char *json);
void sim_start(struct sim *w);
bool sim_agent_stored(struct sim *w, const char *id);
void sim_crash(struct sim *w);
void sim_batch(struct sim *w);

/* --- acts.c --- */
void sim_client_acts(struct sim *w, struct sim_client *c);
/* Comes back when it is away. */
void sim_client_returns(struct sim *w, struct sim_client *c);
/* Turns to another session. What it saw of the last one is held against what was written. */
void sim_client_moves(struct sim *w, struct sim_client *c);
/* Forgets what it saw, after holding that against what was written. */
void sim_client_forgets(struct sim *w, struct sim_client *c);
void sim_client_gone(struct sim_client *c);
void sim_worker_connects(struct sim *w, struct sim_worker *k);
void sim_worker_acts(struct sim *w, struct sim_worker *k);
void sim_worker_gone(struct sim_worker *k);

/* --- operate.c --- */
void sim_operator_acts(struct sim *w);
/* Asks that trims and removals which a restart interrupted go on, as the gateway does by itself. */
void sim_maintain(struct sim *w);
void sim_calls_forget(struct sim *w);
/* A call to be filled in, NULL when too many wait; and on its way. */
struct sim_call *sim_new_call(struct sim *w, enum eg_call_kind kind);
void sim_ask(struct sim *w, struct sim_call *k);
extern const char *const sim_act_name[EG_CALL_KICK + 1]; /* as the story tells them */

/* --- judge.c --- */
/* Judges the answers of a batch, in order, and moves the model on. */
void sim_answered(struct sim *w);
/* The answer is not what it has to be. */
void sim_wrong(struct sim *w, const struct sim_call *k, const char *why);

/* --- create.c --- */
void sim_creates(struct sim *w);
void sim_judge_create(struct sim *w, const struct sim_call *k);

/* --- acks.c --- */
void sim_client_acks(struct sim *w, struct sim_client *c);
/* A batch was committed: what was acknowledged in it counts, and is stored. */
void sim_acks_keep(struct sim *w);
/* A client is told that something cannot be stored. Nobody is left to think that it was. */
void sim_acks_not_stored(struct sim *w, const struct sim_client *c);
void sim_acks_refused(struct sim *w);
/* All that was ever acknowledged is stored. */
void sim_acks_check(struct sim *w);
/* Somebody was let in who is told that it has read so far. */
void sim_acks_welcome(struct sim *w, struct sim_client *c, const struct life *l,
                      const struct eg_welcome *wel);

/* --- tokens.c --- */
extern const char *const sim_sub[SIM_SUBS];
void sim_revokes(struct sim *w);
void sim_judge_revoke(struct sim *w, const struct sim_call *k);
/* Whether the edge lets in who has the token of this number, which changes when it was revoked. */
bool sim_token_stands(struct sim *w, const char *sub, unsigned *jti);
/* Tells the edge what the machine says was revoked: it ends connections. */
void sim_tokens_told(struct sim *w);
void sim_tokens_check(struct sim *w);
/* The gateway ended, and starts again. */
void sim_tokens_restarted(struct sim *w);
/* The clock goes on until no sub is revoked. */
void sim_tokens_expire(struct sim *w);

/* --- limits.c --- */
void sim_reloads(struct sim *w);
/* Whether the settings name the agent "c". */
bool sim_names_agent(const struct sim *w);
/* No limits from now on. */
void sim_unlimited(struct sim *w);
void sim_limits_begin(struct sim *w);
void sim_limits_restarted(struct sim *w);
/* These were written: the limits in force must have allowed it. */
void sim_limits_session(struct sim *w, const struct life *l);
void sim_limits_event(struct sim *w, struct life *l);
/* Whether these can be refused for the limit in force. */
bool sim_sessions_full(const struct sim *w, int sub);
bool sim_queue_full(const struct sim *w, const struct life *l);
bool sim_rate_used(const struct sim *w, int sub);
/* A turn is handed out; its worker says that it is alive; its lease ran out; the batch ends. */
void sim_limits_hand(struct sim *w, const struct seen *message, struct handed *h, int attempt);
void sim_lease_sign(struct sim *w, eg_conn_id conn, const struct held_turn *h);
void sim_lease_over(struct sim *w, unsigned life, uint64_t turn);
void sim_leases_keep(struct sim *w);

/* --- heard.c --- */
/* Gives an output to whom it goes. */
void sim_deliver(struct sim *w, const struct eg_out *o);
/* Nobody hears of it any more: the gateway ends. */
void sim_deliver_nobody(struct sim *w, const struct eg_out *o);
/* A member of a frame; the text in it, if it is one. */
struct eg_slice sim_field(struct eg_slice frame, const char *key);
/* Whether everybody knows of everybody's presence, and of the end of sessions. */
void sim_check_presence(struct sim *w);
void sim_let_go(struct sim_worker *k, struct held_turn *h);
void sim_turn_note(struct turn_list *l, unsigned life, uint64_t turn);
bool sim_turn_noted(const struct turn_list *l, unsigned life, uint64_t turn);
void sim_promise(struct sim *w, struct promise p);

/* --- lives.c --- */
/* From now on all that is written is noted. */
void sim_lives_watch(struct sim *w);
/* A batch begins; what was noted in it is committed; is undone. */
void sim_lives_begin(struct sim *w);
void sim_lives_keep(struct sim *w);
void sim_lives_drop(struct sim *w);
void sim_lives_free(struct sim *w);
/* The one with this number, the newest of this name: NULL, or good until something is written. */
struct life *sim_life(struct sim *w, int64_t sid);
struct life *sim_life_named(struct sim *w, struct eg_slice name);
/* The event at cursor, NULL if there never was one. */
const struct seen *sim_life_event(const struct life *l, uint64_t cursor);
uint64_t sim_life_last(const struct life *l); /* cursor of the newest */
void sim_life_ends(struct sim *w, struct life *l, enum life_state state);
/* The hash of its event at cursor. */
void sim_life_hash(const struct life *l, uint64_t cursor, uint8_t out[EG_CHAIN_BYTES]);
/* How its turn ended among its first n events: a response, NULL for none yet. */
const struct seen *sim_life_end_of(const struct life *l, unsigned n, uint64_t turn);
/* The oldest turn without an end among its first n events, 0 for none. */
uint64_t sim_life_open_turn(const struct life *l, unsigned n);
/* After a batch or a restart: what is stored of each is what it must be. */
void sim_lives_check(struct sim *w);
/* Whether something is stored that is to go: a removed session, or what is behind the floor. */
bool sim_life_left(struct sim *w, const struct life *l);
/* A restart takes what was being copied away. */
void sim_lives_restarted(struct sim *w);

/* --- check.c --- */
/* Holds the log against all that was told. */
void sim_check(struct sim *w);

#endif
