/*
 * machine.h - the rules of sessions, turns, workers and presence, as a state machine.
 *
 * Deterministic: no I/O of its own, no clock, no threads. It is given commands and times, reads and
 * writes through an eg_storage, and collects outputs; the core thread (core.c) or a simulator
 * around it decides when to commit and releases what was collected. Private to src/core and its
 * tests.
 *
 * A batch: eg_machine_step for each command, eg_machine_tick, eg_machine_flush; then, by the
 * outcome of the commit, eg_machine_committed (outputs may leave) or eg_machine_rolled_back
 * (outputs are dropped, every touched session is read again) followed by the same commands once
 * more in read-only mode, in which all that would write is refused with storage_unavailable.
 */
#ifndef EG_CORE_MACHINE_H
#define EG_CORE_MACHINE_H

#include <utlist.h>

#include "base/bucket.h"
#include "base/table.h"
#include "core/core.h"

/* Told to a sub that has as many sessions as it may. */
#define EG_SUB_FULL "too many open sessions of this sub"
#define EG_SUB_FULL_WAIT_S 60

struct eg_machine;
struct eg_worker;
struct eg_agent;

/* One turn that has not ended. The first of a session's queue is its head: only it can be anything
 * but QUEUED. */
struct eg_turn {
    uint64_t turn;
    int64_t created_ms;    /* wall */
    int64_t until_ms;      /* wall, see eg_turn_row */
    int64_t deadline_mono; /* the same moment on the monotonic clock; 0: none */
    struct eg_worker *worker;
    int attempt;
    unsigned char state; /* enum eg_turn_state */
    bool stored, dirty;
};

/* A session in memory, one block: many of them do nothing most of the time. */
struct eg_session {
    int64_t sid;
    char *id, *owner; /* behind the struct */
    struct eg_agent *agent;
    enum eg_session_state state;
    bool dirty, touched, in_ready, fresh, on_lru;
    bool gone;    /* its row is removed in this batch */
    bool unacked; /* its owner is known to have acknowledged nothing */
    uint64_t cursor, oldest;
    uint8_t hash[EG_CHAIN_BYTES], floor_hash[EG_CHAIN_BYTES];
    int64_t created_ms, updated_ms, closed_ms, bytes;
    int64_t due_mono;      /* the deadline of its head when this batch touched it; 0: none */
    int64_t timer_mono;    /* the soonest entry of the heap that names it; 0: none */
    struct eg_turn *turns; /* ring */
    unsigned turn_first, turn_count, turn_cap;
    int held_at;                /* while its head is at a worker: place among held of that */
    struct eg_bytes *head_body; /* message of the newest turn, until the batch ends */
    eg_conn_id last_worker;
    char *last_worker_id; /* its id, for operators; NULL: none yet */
    uint64_t unreadable;  /* the head turn whose message is damaged on the disk; 0: none is known */
    eg_conn_id hung_worker; /* let the lease of the head turn run out; others are asked first */
    struct eg_conn *conns;
    unsigned *followers; /* by reactor; behind the struct */
    struct eg_session *touch_next;
    struct eg_session *prev, *next; /* LRU of idle sessions */
    UT_hash_handle hh, hh_sid;
};

/* What is counted for one sub while it is connected. */
struct eg_sub {
    char *source; /* "client:" and the sub */
    char *sub;    /* its end */
    int refs;
    struct eg_bucket messages, bytes;
    UT_hash_handle hh;
};

/* An attached connection: of a client (session) or of a worker. */
struct eg_conn {
    eg_conn_id id;
    struct eg_session *session;
    struct eg_worker *worker;
    struct eg_sub *sub;
    unsigned char caps;
    bool fresh;
    uint32_t present_since; /* batch in which it first announced a status */
    struct eg_conn *fresh_next;
    char *presence;              /* status announced; NULL: none */
    char *presence_data;         /* raw JSON or NULL */
    struct eg_conn *prev, *next; /* of the session */
    UT_hash_handle hh;
};

struct eg_worker {
    struct eg_conn *conn;
    struct eg_agent *agent;
    char id[40];
    char name[EG_ID_MAX + 1];
    int concurrency, running, held_cap;
    struct eg_session **held; /* those whose head it has: running of them */
    int64_t since_ms;
    struct eg_worker *prev, *next;
};

/* A served name. ready is a ring of sids whose head turn waits to be handed out, oldest first. */
struct eg_agent {
    char *id;
    bool dispatching;
    bool registering, unregistering; /* its row is made, removed in this batch: see eg_agent_row */
    bool registered; /* has a row in the database, or is named by the configuration */
    struct eg_worker *workers;
    int64_t *ready;
    unsigned ready_first, ready_count, ready_cap;
    UT_hash_handle hh;
};

/* A time at which to look at a session's head turn; there may be nothing to do then. */
struct eg_timer {
    int64_t at_mono;
    int64_t sid;
};

struct eg_ended {
    int64_t sid;
    uint64_t turn;
};

enum eg_chore_kind { EG_CHORE_TRIM, EG_CHORE_DELETE, EG_CHORE_FORK };

#define EG_TRIM_ROWS 500
#define EG_COPY_ROWS 100

/* Work on one session that is done in small steps, some each batch. */
struct eg_chore {
    enum eg_chore_kind kind;
    int64_t sid, to_sid;
    uint64_t last;                 /* FORK: the last cursor to copy */
    struct eg_call *call;          /* FORK: answered at its end; NULL none */
    bool fresh, stepped, finished; /* added, worked on, ended in this batch */
    unsigned failures;             /* batches undone one after the other that worked on it */
    int64_t rest_until;            /* mono ms: when it is tried again, of those that rest */
    struct eg_chore *prev, *next;
};

struct eg_machine {
    struct eg_storage *storage;
    struct eg_settings *settings;
    struct eg_now now;
    unsigned reactors;
    struct eg_epoch epoch; /* until_sid: atomic */
    bool epoch_ends;       /* in this batch */
    uint32_t batch;        /* number of the present one; begins again after the last */
    bool writing;          /* a transaction is open */
    bool readonly;         /* storage fails: refuse what would write */
    bool failed;           /* memory ran out or a read failed within this batch */
    bool lost; /* sessions were let go when a batch was taken back, and nobody is told yet */
    bool draining;
    struct eg_session *sessions, *by_sid, *lru, *touched;
    unsigned lru_count;
    struct eg_agent *agents;
    bool agents_moved; /* some are registering or unregistering */
    struct eg_conn *conns, *fresh;
    struct eg_sub *subs;
    unsigned subs_sweep;     /* so many are looked through for those that nobody uses */
    struct eg_timer *timers; /* heap */
    unsigned timer_count, timer_cap;
    struct eg_ended *ended; /* stored turns that ended in this batch */
    unsigned ended_count, ended_cap;
    struct eg_chore *chores, *resting;
    int trim_rows, copy_rows; /* in one step of a chore; copy_rows at most EG_COPY_ROWS */
    int64_t running;          /* turns at workers */
    /* collected in this batch */
    struct eg_release **release; /* by reactor; NULL none */
    struct eg_call **done;       /* calls answered */
    unsigned done_count, done_cap;
    struct eg_revocation {
        char *what;
        int64_t until_ms;
    } * revoked;
    unsigned revoked_count, revoked_cap;
    unsigned revoked_stored; /* so many of them were read at the start: true whatever becomes of
                                the batch */
    int64_t events_in_batch, bytes_in_batch;
};

/* --- life (machine.c) --- */
enum eg_err eg_machine_new(struct eg_storage *storage, struct eg_settings *settings,
                           unsigned reactors, struct eg_now now, struct eg_machine **out) EG_MUST;
void eg_machine_free(struct eg_machine *m); /* storage is not closed */
void eg_machine_settings(struct eg_machine *m, struct eg_settings *settings);
void eg_machine_step(struct eg_machine *m, struct eg_cmd *cmd, struct eg_now now);
void eg_machine_tick(struct eg_machine *m, struct eg_now now);
/* Writes what changed in memory; true when a transaction is open and has to be committed. */
bool eg_machine_flush(struct eg_machine *m);
void eg_machine_committed(struct eg_machine *m);
void eg_machine_rolled_back(struct eg_machine *m);
/* A number for a sub; the same, with few others, each time. */
uint64_t eg_machine_sub_key(const char *sub);
/* Whose share of the core's time an attached connection uses; otherwise: it is not attached. */
uint64_t eg_machine_group(struct eg_machine *m, eg_conn_id conn, uint64_t otherwise);
/* Monotonic ms of the next thing to do by itself; 0: at once, INT64_MAX: nothing. */
int64_t eg_machine_deadline(const struct eg_machine *m);

/* --- outputs (output.c) --- */
/* All of these latch failed when memory runs out. bytes is taken. */
void eg_out_frame(struct eg_machine *m, eg_conn_id conn, int64_t sid, uint64_t cursor,
                  struct eg_bytes *bytes);
void eg_out_buf(struct eg_machine *m, eg_conn_id conn, struct eg_buf *take_buf);
void eg_out_event(struct eg_machine *m, struct eg_session *s, uint64_t cursor, bool stream,
                  eg_conn_id except, struct eg_bytes *bytes);
/* stays: it remains true when the batch is rolled back, and does not come about again. */
void eg_out_notice(struct eg_machine *m, struct eg_session *s, unsigned caps, eg_conn_id except,
                   bool stays, struct eg_buf *take_buf);
void eg_out_close(struct eg_machine *m, eg_conn_id conn, struct eg_bytes *bytes,
                  unsigned short code, const char *reason);
/* Closes conn when it has been sent all that s holds: s is closed. */
void eg_out_end(struct eg_machine *m, const struct eg_session *s, eg_conn_id conn);
void eg_out_refuse(struct eg_machine *m, eg_conn_id conn, enum eg_code code, const char *message,
                   const char *field, int retry_after_s);
void eg_out_welcome(struct eg_machine *m, eg_conn_id conn, const struct eg_welcome *w);
void eg_out_error(struct eg_machine *m, eg_conn_id conn, enum eg_code code, const char *message,
                  const char *field, struct eg_slice ref, int retry_after_s);
void eg_out_done(struct eg_machine *m, struct eg_call *call, enum eg_code code);
/* Forgets the outputs of the batch; what stays true is kept. */
void eg_out_drop(struct eg_machine *m);
/* Remembers a revocation to be told after the commit. Takes what. */
void eg_machine_revoked(struct eg_machine *m, char *what, int64_t until_ms);

/* --- sessions (session.c) --- */
/* Opens the transaction if it is not; false: read-only or failed. */
bool eg_machine_write(struct eg_machine *m);
/* NULL with *code session_not_found or storage_unavailable. */
struct eg_session *eg_session_find(struct eg_machine *m, struct eg_slice id, enum eg_code *code);
struct eg_session *eg_session_find_sid(struct eg_machine *m, int64_t sid);
/* To be called when eg_session_find did not find the id. NULL: nothing can be written now, or the
 * id still belongs to a session that is being removed (no other is in memory and not found). */
struct eg_session *eg_session_create(struct eg_machine *m, struct eg_slice id,
                                     struct eg_agent *agent, struct eg_slice owner,
                                     enum eg_session_state state);
/* Why eg_session_create made none just now, static; NULL: nothing can be written. */
const char *eg_session_not_created(const struct eg_machine *m);
void eg_session_row(const struct eg_session *s, struct eg_session_row *row);
void eg_session_touch(struct eg_machine *m, struct eg_session *s);   /* part of this batch */
void eg_session_changed(struct eg_machine *m, struct eg_session *s); /* its row is to be written */
void eg_session_idle(struct eg_machine *m,
                     struct eg_session *s); /* to the LRU when nothing holds it */
void eg_session_forget(struct eg_machine *m, struct eg_session *s);
/* Reads row and turns again; false when the session is not stored. */
bool eg_session_reload(struct eg_machine *m, struct eg_session *s);
/* Whether who may enter s. */
bool eg_session_enter(const struct eg_session *s, const struct eg_identity *who);

/* What is appended. Slices are borrowed. */
struct eg_append {
    struct eg_slice type, source, event_id, tail, traceparent;
    const uint8_t *idkey;
    uint64_t turn; /* EG_TURN_SELF: the event's own cursor */
    bool stream;
    eg_conn_id except;
    struct eg_bytes **keep; /* also a reference for the caller, NULL none */
};
#define EG_TURN_SELF UINT64_MAX
/* Remembers who had the last turn; id "" is nobody. Without memory m->failed is set. */
void eg_session_worker(struct eg_machine *m, struct eg_session *s, const char *id);
/* Appends an event, tells followers; returns its cursor, 0 when nothing can be written. */
uint64_t eg_session_append(struct eg_machine *m, struct eg_session *s, const struct eg_append *a);

/* --- clients (client.c) --- */
void eg_client_attach(struct eg_machine *m, struct eg_cmd *cmd);
void eg_client_frame(struct eg_machine *m, struct eg_conn *c, struct eg_cmd *cmd);

/* What was published before under an id: NONE, or the answer to give. */
enum eg_repeat { EG_REPEAT_NONE, EG_REPEAT_SAME, EG_REPEAT_CONFLICT, EG_REPEAT_FAILED };

/* One message, by whoever says it. */
struct eg_publish {
    struct eg_slice content, metadata, message_id, traceparent, tail; /* tail empty: made here */
    struct eg_slice sub;                                              /* id key; rate */
    struct eg_slice source;                                           /* "client:<sub>" */
    eg_conn_id except;
};
/* Appends the message and queues its turn. EG_CODE_NONE: *cursor, *duplicate. */
enum eg_code eg_client_publish(struct eg_machine *m, struct eg_session *s,
                               const struct eg_publish *p, struct eg_sub *sub, uint64_t *cursor,
                               bool *duplicate);
/* EG_CODE_conflict: no active turn. turn -1: the one now at work. */
enum eg_code eg_client_abort(struct eg_machine *m, struct eg_session *s, int64_t turn,
                             struct eg_slice reason, uint64_t *aborted);
enum eg_repeat eg_repeat_look(struct eg_machine *m, struct eg_session *s, const uint8_t *idkey,
                              uint64_t *cursor, struct eg_bytes **body);
struct eg_sub *eg_sub_get(struct eg_machine *m, struct eg_slice sub);
/* Whether sub has as many open sessions as it may. */
bool eg_sub_is_full(struct eg_machine *m, struct eg_slice sub);
void eg_conn_detach(struct eg_machine *m, struct eg_conn *c);
/* Adds a connection; NULL without memory. Takes the identity. */
struct eg_conn *eg_conn_attach(struct eg_machine *m, struct eg_cmd *cmd);

/* --- presence (presence.c) --- */
void eg_presence_frame(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f);
void eg_presence_leave(struct eg_machine *m, struct eg_conn *c);
/* The batch is rolled back and its commands come again: who became present in it, does again. */
void eg_presence_rolled_back(struct eg_machine *m);
void eg_presence_typing(struct eg_machine *m, struct eg_conn *c);

/* --- workers (worker.c) --- */
void eg_worker_attach(struct eg_machine *m, struct eg_cmd *cmd);
void eg_worker_detach(struct eg_machine *m, struct eg_worker *w);
void eg_worker_frame(struct eg_machine *m, struct eg_conn *c, struct eg_cmd *cmd);
/* Counts the head of s as being at w; false without memory (failed is latched). */
bool eg_worker_hold(struct eg_machine *m, struct eg_worker *w, struct eg_session *s);
void eg_worker_let_go(struct eg_machine *m, struct eg_worker *w, const struct eg_session *s);

/* --- turns (turns.c) --- */
enum eg_turn_input {
    EG_IN_HAND_OUT,  /* a worker takes it */
    EG_IN_FINAL,     /* its worker ended it */
    EG_IN_GIVE_BACK, /* its worker left, or the lease ran out: try again at once */
    EG_IN_FAIL,      /* its worker failed: try again after a wait */
    EG_IN_EXHAUST,   /* no attempt is left */
    EG_IN_DUE,       /* the wait is over */
    EG_IN_ABORT,     /* a client aborts it, or the session closes */
    EG_IN_GRACE,     /* the worker did not end the aborted turn in time, left, or failed */
    EG_TURN_INPUTS
};
#define EG_TURN_ENDED 5 /* the state after the last: no row any more */
#define EG_TURN_NEVER 255
/* The state that follows, or EG_TURN_NEVER. */
unsigned eg_turn_move(unsigned state, enum eg_turn_input input);
const char *eg_turn_state_name(unsigned state);
const char *eg_turn_input_name(enum eg_turn_input input);

struct eg_turn *eg_turn_at(const struct eg_session *s, unsigned i);
struct eg_turn *eg_turn_head(const struct eg_session *s); /* NULL when the queue is empty */
/* The queue is in the order of its turns, so a name is found without walking it. NULL: not there.
 */
struct eg_turn *eg_turn_named(const struct eg_session *s, uint64_t turn);
struct eg_turn *eg_turn_push(struct eg_machine *m, struct eg_session *s, uint64_t turn);
/* Ends the turn with outcome aborted: appends the response and takes it off the queue. */
void eg_turn_end_aborted(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                         enum eg_turn_input in);
/* Takes the head off after its worker's response was appended. */
void eg_turn_finish(struct eg_machine *m, struct eg_session *s, struct eg_turn *t);
/* An attempt ended without a response: again, later, or dead. */
void eg_turn_attempt_over(struct eg_machine *m, struct eg_session *s, struct eg_turn *t, bool retry,
                          bool wait, int64_t after_ms, struct eg_slice error);
void eg_turn_abort_running(struct eg_machine *m, struct eg_session *s, struct eg_turn *t,
                           struct eg_slice reason);
void eg_turn_lease(struct eg_machine *m, struct eg_turn *t);
/* Gives the head of s to w, or buries it when no attempt is left; nothing in read-only mode. */
void eg_turn_hand_out(struct eg_machine *m, struct eg_session *s, struct eg_worker *w);
void eg_turns_due(struct eg_machine *m);
/* Marks a head that a previous life left RUNNING or ABORTING. Called on load. */
void eg_turn_recover(struct eg_machine *m, struct eg_session *s);

/* --- handing out (dispatch.c) --- */
struct eg_agent *eg_agent_find(struct eg_machine *m, struct eg_slice id);
struct eg_agent *eg_agent_add(struct eg_machine *m, struct eg_slice id);
/* Makes or removes the row of a; undone with the batch. */
void eg_agent_row(struct eg_machine *m, struct eg_agent *a, bool there);
/* Puts sid at the end of the ring; false without memory (failed is latched). */
bool eg_agent_ready(struct eg_machine *m, struct eg_agent *a, int64_t sid);
/* The sid at its front, which must be there; takes that off. */
int64_t eg_agent_next_ready(const struct eg_agent *a);
void eg_agent_drop_ready(struct eg_agent *a);
void eg_dispatch_session(struct eg_machine *m, struct eg_session *s); /* its head waits */
void eg_dispatch(struct eg_machine *m, struct eg_agent *a);

/* --- calls and chores (calls.c, chores.c) --- */
void eg_call_step(struct eg_machine *m, struct eg_call *call);
void eg_chore_add(struct eg_machine *m, enum eg_chore_kind kind, int64_t sid, int64_t to_sid,
                  uint64_t last, struct eg_call *call);
void eg_chores_step(struct eg_machine *m);
/* When the next step is due, mono ms; INT64_MAX: nothing is to be done. */
int64_t eg_chores_due(const struct eg_machine *m);
void eg_chores_committed(struct eg_machine *m);
void eg_chores_rolled_back(struct eg_machine *m);
/* Ends a session: its turns, a session_end event, its connections. false: nothing could be written.
 */
bool eg_session_close(struct eg_machine *m, struct eg_session *s, const char *reason);
/* The storage works again: leaves read-only mode and hands out what waited. */
void eg_machine_resume(struct eg_machine *m);

#endif
