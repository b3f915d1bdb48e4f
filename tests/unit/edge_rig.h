/*
 * edge_rig.h - reactors under test: real sockets (pairs), real tokens, and in place of the core and
 * the log what the test says.
 */
#ifndef EDGE_RIG_H
#define EDGE_RIG_H

#include <pthread.h>

#include "edge/peer.h"

/* One session's log, as readers see it. */
struct rig_log {
    struct eg_bytes **event; /* event[i] has cursor i + 1 */
    bool *stream;
    uint64_t count, oldest;
};

#define RIG_SESSIONS 4

struct rig {
    struct eg_reactors *rs;
    struct eg_auth *auth;
    struct eg_limits *limits;
    struct eg_settings *settings;
    struct eg_keyring *ring;
    char dir[64];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct eg_cmd *first, *last;      /* what the reactors posted, not taken yet */
    struct rig_log log[RIG_SESSIONS]; /* sid is the index + 1; id "s1".. */
    bool log_broken;
    int reads;                 /* pages that readers asked for */
    void (*before_read)(void); /* each page, when not NULL; set before rig_run */
    bool rests;                /* by rig_rest */
    bool counts_rests;         /* of readers and parser, and takes none; set before rig_run */
    int rest_count;            /* atomic */
};

/* Starts n reactors with the settings of rig->settings (made here; change them before rig_run). */
struct rig *rig_new(void);
void rig_run(struct rig *rig, unsigned reactors);
/* A rig with one reactor that runs. */
struct rig *rig_start(void);
/* One reactor without a thread of its own: each turn is taken by rig_turn. */
void rig_run_by_hand(struct rig *rig);
void rig_turn(struct rig *rig);
/* Lets whatever rests now rest on for a minute, or until rig_wake. */
void rig_rest(struct rig *rig);
void rig_wake(struct rig *rig);
void rig_free(struct rig *rig);

/* A fake clock: rig_tick moves it on and wakes the reactors. Before rig_run. */
void rig_fake_clock(void);
void rig_tick(struct rig *rig, int64_t ms);

/* A token; sub NULL: "ann"; agents NULL: none named. */
char *rig_token(struct rig *rig, const char *sub, const char *scope, const char *agents,
                int64_t ttl_s);

/* One connection, from its other end. */
struct client {
    int fd;
    struct eg_buf in;
    size_t at;
    bool eof;
};
/* Hands a socket to the reactors. a: what else to say of it, NULL: an allowed origin, no token. */
struct client *rig_connect(struct rig *rig, const struct eg_adopted *a);
/* The same over a connection of the test's own, the reactors' end first; both do not block. */
struct client *rig_connect_over(struct rig *rig, const struct eg_adopted *a, const int fd[2]);
void client_free(struct client *c);
void client_bytes(struct client *c, const void *p, size_t n);
void client_frame(struct client *c, unsigned b0, const void *payload, size_t n);
void client_text(struct client *c, const char *json);
/* Reads what has come without waiting. */
void client_poll(struct client *c);
/* The next frame's payload, NUL-terminated, valid until the next call; waits up to 5 s, then fails
 * the test. opcode may be NULL: then it must be text. */
const char *client_next(struct client *c, unsigned *opcode);
/* The next frame if it is here already, else NULL. */
const char *client_try(struct client *c, unsigned *opcode);
/* Waits for a close frame, skipping other frames; returns its code, copies its reason. */
unsigned client_close_code(struct client *c, char reason[126]);
/* Waits for the end of the stream. */
void client_eof(struct client *c);

#define AGENT "\"agent_id\":\"echo\""
/* Says hello (or join: type) with these members and a token of this scope (NULL: none). */
void client_hello(struct rig *rig, struct client *c, const char *type, const char *members,
                  const char *scope);

/* Whether a frame has a part, or has it not. */
#define HAS(text, part) rig_has(text, part, true, __LINE__)
#define HAS_NOT(text, part) rig_has(text, part, false, __LINE__)
void rig_has(const char *text, const char *part, bool want, int line);

/* The next command, waiting up to 5 s; the caller frees it. */
struct eg_cmd *rig_cmd(struct rig *rig);
/* The next attach command; detaches of connections that the test is done with are passed over. */
struct eg_cmd *rig_attach(struct rig *rig);
struct eg_cmd *rig_try_cmd(struct rig *rig);
/* Releases one output to the reactor of its connection, or to all for events and notices. */
void rig_out(struct rig *rig, struct eg_out out);
/* Welcomes the connection of an attach command into session s (1..), and frees the command. */
void rig_welcome(struct rig *rig, struct eg_cmd *cmd, struct eg_welcome w);
/* Appends an event to session s's log; returns it (borrowed). */
struct eg_bytes *rig_append(struct rig *rig, int s, const char *type, const char *data);

/* A connected client that has said hello with this token and caps, welcomed into session 1. */
struct client *rig_join(struct rig *rig, const char *scope, const char *caps, eg_conn_id *id);
/* The same for a connection of a reactor whose turns are taken by hand. Returns its id. */
eg_conn_id rig_join_by_hand(struct rig *rig, struct client *c);

#endif
