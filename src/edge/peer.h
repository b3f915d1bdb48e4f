/*
 * peer.h - private to the reactors: connections, and the reactor that owns them.
 *
 * All of this belongs to one reactor's thread, except where a comment says otherwise. The files:
 *   reactor.c   the public calls, threads               mail.c    letters to a reactor
 *   loop.c      one turn of a reactor
 *   peer.c      life of a connection                    input.c   bytes in, frames out of them
 *   hello.c     first frame, checks   welcome.c  answer methods.c frames after the handshake
 *   deliver.c   what the core releases                  catchup.c replay, then live, without seam
 *   pool.c      reader threads        pages.c  their work         live.c heartbeats, deadlines
 *   parser.c    reads large texts           rest.c    leaves processors to others
 *   sse.c       event streams         follow.c who follows which session, alarms.c when to look
 */
#ifndef EG_EDGE_PEER_H
#define EG_EDGE_PEER_H

#include <pthread.h>
#include <semaphore.h>

#include "base/metrics.h"
#include "edge/outbox.h"
#include "edge/reactor.h"
#include "edge/ws.h"
#include "wire/event.h"
#include "wire/frame.h"

struct eg_reactor;
struct eg_catchup;
struct eg_parser;

enum eg_peer_state {
    EG_PEER_OPEN,      /* waits for hello */
    EG_PEER_ATTACHING, /* the core was asked */
    EG_PEER_JOINED,
    EG_PEER_CLOSING, /* a close frame waits to be written */
    EG_PEER_LINGER   /* written, our half is shut; waits for the other's end */
};

/* The texts of a connection, one after the other in one block. */
enum eg_peer_text {
    EG_TEXT_ADDR,
    EG_TEXT_SUB,
    EG_TEXT_JTI,
    EG_TEXT_KID,
    EG_TEXT_AGENT,
    EG_TEXT_SESSION,
    EG_TEXT_WORKER,
    EG_TEXT_CLIENT_NAME,
    EG_TEXT_CLIENT_VERSION,
    EG_TEXT_COUNT
};

/* Needed until the handshake is over only. */
struct eg_greet {
    char *token;
    bool token_from_query, origin_allowed, draining;
    enum eg_code refuse;
};

/* Input that was read but may not be looked at yet. */
struct eg_stash {
    size_t n, at; /* at: where what is left begins */
    char data[];
};

struct eg_rates {
    struct eg_bucket messages, bytes;
};

/* A connection. Kept small: thousands of them do nothing most of the time. */
struct eg_peer {
    struct eg_reactor *r;
    struct eg_peer *next, *prev; /* followers of the same session */
    int64_t sid;                 /* 0: follows none */
    uint64_t sent;               /* complete up to this cursor */
    uint64_t head;               /* last cursor of sid that the core told of */
    struct eg_catchup *catchup;  /* NULL: live */
    struct eg_job *history_job;  /* the page of history that is being read; NULL: none */
    struct eg_outbox out;
    struct eg_peer *dirty_next;
    struct eg_peer *queue_next, *queue_prev; /* of those that stand in line to be read */
    int fd;
    uint32_t slot, generation;
    unsigned char mode, state, role, caps, scopes;
    bool dirty : 1, writable_wait : 1, reading : 1, pinged : 1, expiry_told : 1, by_sessions : 1;
    bool legacy : 1, closed_session : 1, established : 1, counted : 1, history : 1;
    bool attached : 1, gone : 1, leaving : 1, broken : 1;
    bool queued : 1, busy : 1; /* busy: sends more than is read at a time */
    bool muted : 1;            /* epoll has told of it, and it waits: it tells no more */
    bool parsing : 1;          /* a large text of it is read elsewhere */
    /* what epoll tells of it; once: as it does of a muted one */
    bool watch_in : 1, watch_out : 1, watch_once : 1;
    uint32_t max_payload; /* as it was told, whatever the settings become; 0: not joined */
    uint32_t refused;     /* frames in the present minute */
    uint32_t refused_s;   /* its beginning */
    uint32_t owed;        /* commands since the last sync */
    uint32_t owed_bytes;
    uint32_t syncs;      /* on their way */
    uint32_t alarm;      /* place in the heap, UINT32_MAX: none */
    int64_t due_ms;      /* when to look at it again */
    int64_t deadline_ms; /* of hello, or of closing */
    int64_t last_in_ms;
    int64_t last_out_ms; /* when the socket took something */
    uint64_t written;    /* bytes that the socket took */
    uint64_t taken;      /* of these the other side, when that was looked at last */
    uint64_t ping_end;   /* where the ping ends among them; 0: nothing stood before it */
    int64_t exp_s;
    int64_t since_ms; /* wall */
    uint32_t frames_in, frames_out;
    struct eg_ws_reader *reader;
    struct eg_stash *stash;
    struct eg_greet *greet;
    struct eg_rates *rates;
    char *texts;
};

/* sid -> its followers, open addressing. */
struct eg_follows {
    struct eg_follow {
        int64_t sid; /* 0: free */
        struct eg_peer *first;
    } * table;
    uint32_t cap, used;
};

struct eg_alarms {
    struct eg_peer **heap;
    uint32_t n, cap;
};

struct eg_slot {
    struct eg_peer *peer;
    uint32_t generation, next_free;
};

/* --- mail: to a reactor from any thread (mail.c) --- */
enum eg_mail_kind {
    EG_MAIL_ADOPT,
    EG_MAIL_JOB,   /* struct eg_job (pool.h), done */
    EG_MAIL_LARGE, /* struct eg_large (parser.h), read */
    EG_MAIL_SETTINGS,
    EG_MAIL_JUDGE,
    EG_MAIL_FAREWELL,
    EG_MAIL_EACH,
    EG_MAIL_STOP,
    EG_MAIL_KINDS
};
struct eg_mail {
    struct eg_qnode node; /* first */
    enum eg_mail_kind kind;
};

/* What hello_ok says of methods and events, by what it depends on. */
struct eg_features {
    uint32_t key; /* 0: none */
    struct eg_buf text;
};
#define EG_FEATURES_KEPT 8

struct eg_reactor {
    struct eg_reactors *set;
    unsigned ix;
    pthread_t thread;
    bool started;
    int epfd;
    struct eg_queue releases, mail;
    /* Letters that must get through need no memory: there is one of each. */
    struct eg_mail own[EG_MAIL_KINDS];
    int judge_posted;                 /* atomic: JUDGE waits to be opened */
    struct eg_settings *new_settings; /* atomic: SETTINGS waits to be opened; NULL: it does not */
    struct eg_settings *settings;
    struct eg_now now;
    struct eg_slot *slots;
    uint32_t slot_count, slot_cap, slot_free; /* slot_free: first free one, UINT32_MAX: none */
    uint32_t peers, lingering;
    struct eg_follows follows;
    struct eg_alarms alarms;
    struct eg_ws_pool readers;
    struct eg_peer *dirty;
    /* To be read when the others have been: agents, and everybody else. */
    struct eg_peer *agent_line, *line;
    int64_t rest_until_us; /* monotonic: line waits until then (rest.h); 0: it does not */
    size_t visited;        /* what visits to a line have cost in this turn */
    struct eg_cmd *post_first, *post_last;
    struct eg_cmd *spare; /* used commands, to be used again; linked by node */
    unsigned spares;
    struct eg_outbuf outbuf;
    char *inbuf;
    struct eg_buf text; /* for making frames */
    struct eg_features features[EG_FEATURES_KEPT];
    unsigned features_next;
    struct eg_peer *dead; /* ended in this turn */
    struct eg_tally {     /* added to the metrics once a turn */
        int64_t frames_in, bytes_in, frames_out, bytes_out;
    } tally;
    int64_t spread_ms; /* of the farewell that was said; -1: none was */
    bool parting;      /* somebody waits until the last connection is closed */
    bool stopping;
};

struct eg_pool;
struct eg_log_ops;

/* What tests put in place of the core, the log and naps; NULL members: the real ones. */
struct eg_reactor_seams {
    void (*post)(void *arg, struct eg_cmd *first, struct eg_cmd *last);
    void (*rest)(void *arg, int64_t us); /* by eg_rest; any thread */
    const struct eg_log_ops *log;
    void *arg;
};

struct eg_reactors {
    unsigned count;
    struct eg_reactor *reactor;
    struct eg_auth *auth;
    struct eg_limits *limits;
    struct eg_core *core;
    struct eg_pool *pool;
    struct eg_parser *parser; /* NULL: large texts are read at once */
    char *dir;
    struct eg_farewell *farewell;
    struct eg_reactor_seams seams;
    unsigned next;    /* atomic: where the next socket goes */
    int draining;     /* atomic */
    int64_t small_ms; /* atomic, monotonic: see rest.h */
    int ended;        /* atomic: releases are dropped */
};

/* Before eg_reactors_start. */
void eg_reactors_seams(struct eg_reactors *rs, const struct eg_reactor_seams *seams);

#define EG_IN_BYTES 65536
#define EG_OUT_BYTES 131072
#define EG_SPARES_MAX 64 /* commands kept */
#define EG_OWED_SYNC 128 /* commands after which the core is asked how far it is */
#define EG_OWED_SYNC_BYTES (256 << 10)
#define EG_SYNCS_MAX 4 /* unanswered: no more is read */
#define EG_LINGER_MS 2000
#define EG_LATE_MS 500    /* for hello, after the farewell: who says it is told why not */
#define EG_CLOSE_MS 10000 /* to write a close frame to a peer that does not read */

/* --- mail.c --- */
/* Posts the reactor's own letter of this kind; only when it does not wait already. */
void eg_mail_post_own(struct eg_reactor *r, enum eg_mail_kind kind);
/* Handles one and frees it. */
void eg_mail_open(struct eg_reactor *r, struct eg_mail *mail);
/* Frees all that wait, after the thread has ended. */
void eg_mail_drop_all(struct eg_reactor *r);
/* NULL without memory. */
struct eg_farewell *eg_farewell_new(void);
void eg_farewell_free(struct eg_farewell *f); /* NULL is fine */
/* Tells who waits for the farewell when all close frames of r are written. */
void eg_farewell_check(struct eg_reactor *r);

/* --- loop.c --- */
void *eg_loop_run(void *reactor);
/* One turn; wait: until there is something to do. The thread's own work; a fuzzer calls it too. */
void eg_loop_turn(struct eg_reactor *r, bool wait);
/* Has epoll tell of what is wanted now. A peer that is not read from any more need not be
 * announced: most are read from again before anything comes. */
void eg_loop_interest(struct eg_peer *p);
/* Hands cmd to the core at the end of this turn. Takes it. */
void eg_loop_post(struct eg_reactor *r, struct eg_cmd *cmd);
/* Keeps some of the commands that a release brings back; the rest is freed with it. */
void eg_loop_keep(struct eg_reactor *r, struct eg_release *release);
/* A command for a frame, a used one if there is any; NULL without memory. */
struct eg_cmd *eg_loop_command(struct eg_reactor *r, eg_conn_id conn);

/* --- peer.c --- */
eg_conn_id eg_peer_id(const struct eg_peer *p);
/* NULL when it is gone. */
struct eg_peer *eg_peer_find(struct eg_reactor *r, eg_conn_id id);
/* Takes what a holds. NULL: nothing became of it. */
struct eg_peer *eg_peer_open(struct eg_reactor *r, struct eg_adopted *a);
/* Ends a connection at once: detaches, closes. The struct is freed at the end of the turn. */
void eg_peer_end(struct eg_peer *p);
/* Frees what ended. */
void eg_peer_bury(struct eg_reactor *r);
/* Sends a close frame behind what waits, then ends. The first call counts. reason: static. */
void eg_peer_close(struct eg_peer *p, unsigned code, const char *reason);
/* The same, but drops what waits (slow consumers). */
void eg_peer_cut(struct eg_peer *p, unsigned code, const char *reason);
/* Tells the core that the connection is gone, stops following and catching up. */
void eg_peer_detach(struct eg_peer *p);
/* Appends an entry and judges the limits of a slow consumer. Takes its reference. */
void eg_peer_take(struct eg_peer *p, const struct eg_outent *ent);
/* One text frame. Takes bytes (NULL: out of memory, closes). */
void eg_peer_send(struct eg_peer *p, struct eg_bytes *bytes);
/* One text frame from r->text; empties it. */
void eg_peer_send_text(struct eg_peer *p);
void eg_peer_control(struct eg_peer *p, enum eg_ws_opcode opcode, struct eg_slice payload);
/* An error frame; counts refused ones. field, scope NULL: none. */
void eg_peer_error(struct eg_peer *p, enum eg_code code, const char *message, const char *field,
                   struct eg_slice ref, const char *scope, int64_t retry_after_s);
/* Counts a refused frame; closes with 4028 at the limit. */
void eg_peer_refused(struct eg_peer *p, enum eg_code code);
/* Writes at the end of this turn. */
void eg_peer_touch(struct eg_peer *p);
/* The other end is gone. Nothing more is sent, but the socket is read to its end, however long
 * something is in the way: what a peer said before it went away counts. */
void eg_peer_lost(struct eg_peer *p);
void eg_peer_flush(struct eg_peer *p);
const char *eg_peer_text(const struct eg_peer *p, enum eg_peer_text which);
/* Replaces some of the texts; NULL members keep what is there. */
enum eg_err eg_peer_texts(struct eg_peer *p, const char *const text[EG_TEXT_COUNT]) EG_MUST;

/* --- input.c --- */
/* Something can be read: reads it, or lets p stand in line. */
void eg_input_readable(struct eg_peer *p);
/* Lets p read on when nothing is in the way any more. */
void eg_input_resume(struct eg_peer *p);
/* Reads from those that stand in line, as much as one turn may cost, unless they shall wait. */
void eg_input_line(struct eg_reactor *r);
/* Milliseconds until they may be read from; -1: nobody stands there. */
int eg_input_line_wait(const struct eg_reactor *r);
void eg_input_leave(struct eg_peer *p);

/* --- hello.c, welcome.c --- */
void eg_hello_frame(struct eg_peer *p, struct eg_slice text);
void eg_hello_stream(struct eg_peer *p, struct eg_adopted *a); /* SSE: attach at once */
void eg_hello_refuse(struct eg_peer *p, enum eg_code code, const char *message, const char *field,
                     const char *next_step, int64_t retry_after_s, bool join);
const char *eg_resync_reason(enum eg_resync why);
void eg_welcome(struct eg_peer *p, const struct eg_welcome *w);

/* --- methods.c --- */
void eg_method_frame(struct eg_peer *p, struct eg_slice text);
/* Says goodbye to a peer that asked to leave, once the core is done with what it sent. */
void eg_method_left(struct eg_peer *p);
/* Whether this connection may use the method; if not, *scope is what it lacks or NULL. */
bool eg_method_allowed(const struct eg_peer *p, enum eg_frame_type type, const char **scope);

/* --- deliver.c --- */
void eg_deliver(struct eg_reactor *r, struct eg_release *release);

/* --- catchup.c --- */
/* Begins: events after p->sent up to replay_to as replay, then what follows up to the head. */
enum eg_err eg_catchup_begin(struct eg_peer *p, bool replay, uint64_t replay_to) EG_MUST;
/* Begins with a snapshot in place of replay. */
enum eg_err eg_catchup_snapshot(struct eg_peer *p, const struct eg_welcome *w) EG_MUST;
/* Keeps a frame until its place has come. cursor 0: after what is known now. loose: may be dropped
 * for want of room. Takes bytes. */
void eg_catchup_hold(struct eg_peer *p, uint64_t cursor, bool loose, struct eg_bytes *bytes);
/* Whether half of the room for kept frames is taken. */
bool eg_catchup_crowded(const struct eg_peer *p);
/* Whether answers are kept that still have to be sent. */
bool eg_catchup_owes(const struct eg_peer *p);
/* Goes on as far as it can without waiting. */
void eg_catchup_step(struct eg_peer *p);
void eg_catchup_free(struct eg_peer *p);

/* --- live.c --- */
void eg_live_alarm(struct eg_peer *p);    /* its time has come */
void eg_live_schedule(struct eg_peer *p); /* decides when to look next */
/* The token now in force ends then; one that was taken within the leeway ends with that. */
void eg_live_until(struct eg_peer *p, int64_t exp_s);
/* Closes with 4001 when the token does not stand any more. */
void eg_live_judge(struct eg_peer *p);

/* --- sse.c --- */
void eg_sse_event(struct eg_buf *out, struct eg_slice event);
bool eg_sse_is_end(struct eg_slice event);                   /* session_end: nothing follows */
void eg_sse_send(struct eg_peer *p, struct eg_bytes *event); /* takes */
void eg_sse_welcome(struct eg_peer *p, const struct eg_welcome *w);
void eg_sse_say(struct eg_peer *p, const char *text); /* raw */
void eg_sse_refuse(struct eg_peer *p, enum eg_code code, const char *message);

/* --- follow.c --- */
enum eg_err eg_follow_add(struct eg_follows *f, struct eg_peer *p) EG_MUST; /* by p->sid */
void eg_follow_remove(struct eg_follows *f, struct eg_peer *p);
struct eg_peer *eg_follow_first(const struct eg_follows *f, int64_t sid);

/* --- alarms.c --- */
enum eg_err eg_alarm_set(struct eg_alarms *a, struct eg_peer *p, int64_t due_ms) EG_MUST;
void eg_alarm_clear(struct eg_alarms *a, struct eg_peer *p);
/* The first peer that is due, taken out; NULL when none is. */
struct eg_peer *eg_alarm_due(struct eg_alarms *a, int64_t now_ms);
/* Milliseconds to the first; -1: none. */
int eg_alarm_wait(const struct eg_alarms *a, int64_t now_ms);

#endif
