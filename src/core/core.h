/*
 * core.h - the one thread that owns sessions, turns and workers, and the only writer of the log.
 *
 * Reactors and HTTP threads hand it commands (eg_core_post, any thread, never blocks). It takes all
 * that wait, applies them in one transaction, commits once, and then releases what they caused: to
 * each reactor one eg_release a batch, to each caller its reply. Nothing leaves before the commit.
 */
#ifndef EG_CORE_CORE_H
#define EG_CORE_CORE_H

#include <inttypes.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/queue.h"
#include "ebbgate/settings.h"
#include "store/storage.h"
#include "wire/event.h"
#include "wire/frame.h"

/* A connection's number, unique for the life of the process: reactor (top 8 bits), slot,
 * generation. */
typedef uint64_t eg_conn_id;
#define EG_CONN_HEX "%016" PRIx64 /* how it is written, in the log as in frames and the API */
#define EG_CONN_REACTOR(id) ((unsigned)((id) >> 56))

/* What a verified token lets its holder do; owned by the command, taken by the core at attach. */
struct eg_identity {
    char *sub;
    unsigned scopes;
    char **agents, **sessions; /* as in struct eg_claims */
};
void eg_identity_free(struct eg_identity *i);

enum eg_cmd_kind {
    EG_CMD_ATTACH, /* hello or join of a client or worker, token verified; answered by WELCOME or
                      REFUSE */
    EG_CMD_DETACH, /* the connection is gone or leaves; no answer */
    EG_CMD_FRAME,  /* message abort ack presence typing emit final fail extend publish */
    EG_CMD_SYNC,   /* answered by EG_OUT_SYNC after the batch, whatever became of it: tells the
                      reactor that all earlier commands of conn are done with (back-pressure) */
    EG_CMD_CALL    /* from HTTP: struct eg_call */
};

struct eg_call;

struct eg_cmd {
    struct eg_qnode node; /* first */
    enum eg_cmd_kind kind;
    eg_conn_id conn;
    struct eg_frame frame; /* ATTACH, FRAME: owned */
    struct eg_buf tail;    /* FRAME that appends: the event's last members (eg_frame_tail): owned */
    struct eg_identity identity; /* ATTACH: owned */
    struct eg_call *call;        /* CALL: borrowed until it is done */
    bool legacy;                 /* ATTACH by join */
    bool stream;                 /* ATTACH of an SSE stream: follows, cannot publish */
};

/* A zeroed command, NULL without memory. The core frees it after its batch, or sends it back with
 * the release of the batch. */
struct eg_cmd *eg_cmd_new(enum eg_cmd_kind kind, eg_conn_id conn);
void eg_cmd_free(struct eg_cmd *cmd);
/* A list of them, linked by node. */
void eg_cmds_free(struct eg_cmd *first);
/* Makes a command that the core is done with as good as new, but for the memory of its texts, which
 * is kept when it is not large. */
void eg_cmd_renew(struct eg_cmd *cmd);

/* What an accepted handshake is told. Ids are NUL-terminated. */
struct eg_welcome {
    bool worker, resumed, legacy;
    char session_id[EG_ID_MAX + 1], agent_id[EG_ID_MAX + 1], worker_id[EG_ID_MAX + 1];
    int64_t sid;
    uint64_t cursor, sequence, oldest, acked;
    char epoch[EG_EPOCH_MAX + 1];
    bool replay; /* send events sequence+1..cursor and replay_end first */
    enum eg_resync resync;
    bool closed; /* the session is closed: history only (never for WebSocket) */
    bool guest;  /* the session is another sub's: entered by right of the claim sessions */
};

enum eg_out_kind {
    EG_OUT_WELCOME, /* conn: attached; follows sid from cursor on */
    EG_OUT_REFUSE,  /* conn: handshake refused with code; conn is not attached */
    EG_OUT_FRAME,   /* conn: bytes. cursor > 0: it stands in place of that event of sid */
    EG_OUT_EVENT,   /* every follower of sid but `except`: bytes is the event at cursor */
    EG_OUT_NOTICE,  /* every follower of sid with all of caps, but `except`: bytes, not stored */
    EG_OUT_SYNC,    /* conn: the answer to EG_CMD_SYNC; nothing is sent */
    EG_OUT_CLOSE    /* conn: send bytes (may be NULL), then close with code close_code. sid not 0:
                       that session is closed; whoever reads what it holds is let to the end */
};

struct eg_out {
    enum eg_out_kind kind;
    eg_conn_id conn, except;
    int64_t sid;
    uint64_t cursor;
    unsigned caps;
    bool stream;            /* EVENT: only for clients with the capability streaming */
    bool stays;             /* the core's own: true whatever becomes of the batch */
    struct eg_bytes *bytes; /* one reference */
    struct eg_welcome *welcome;
    enum eg_code code;   /* REFUSE: why; FRAME: the error it is, NONE else */
    const char *message; /* REFUSE: static text or NULL */
    const char *field;   /* REFUSE: static or NULL */
    int retry_after_s;   /* REFUSE: -1 none */
    unsigned short close_code;
    const char *reason; /* CLOSE: static text */
};

/* One batch's outputs for one reactor, in order. The reactor frees it with eg_release_free. */
struct eg_release {
    struct eg_qnode node; /* first */
    int n, cap;
    struct eg_out *out;
    struct eg_cmd *spent; /* frames of this reactor that the batch is done with, linked by node: the
                             memory goes back to the thread it came from */
};
void eg_release_free(struct eg_release *r);

/* Calls from HTTP. The caller fills the request half, eg_core_call waits for the commit and fills
 * the rest. */
enum eg_call_kind {
    EG_CALL_CREATE,  /* agent, session_id (may be empty), identity -> session_id, cursor, created */
    EG_CALL_MESSAGE, /* session_id, identity, frame-like content/message_id/metadata -> cursor, turn
                      */
    EG_CALL_ABORT,   /* session_id, turn or -1, reason -> turn; EG_CODE_conflict: none active */
    EG_CALL_CLOSE,   /* session_id */
    EG_CALL_DELETE,  /* session_id */
    EG_CALL_FORK,    /* session_id, cursor -> new_session_id */
    EG_CALL_TRIM,    /* session_id, cursor: the first to keep; events before it are removed */
    EG_CALL_REAP,    /* cursor: sid of a session in state DELETING: goes on removing it */
    EG_CALL_TURN_RETRY,   /* session_id, turn (dead) -> turn of the new try */
    EG_CALL_AGENT_PUT,    /* agent -> created */
    EG_CALL_AGENT_DELETE, /* agent; EG_CODE_conflict while it has workers, sessions with open turns
                           */
    EG_CALL_REVOKE,       /* text "jti:..." or "sub:...", until_ms */
    EG_CALL_AGENTS_INFO,  /* -> json: array of agents with workers */
    EG_CALL_SESSION_INFO, /* session_id -> json: live part (connections, running turn, presence) */
    EG_CALL_STATS,        /* -> json: live numbers */
    EG_CALL_AUDIT,        /* audit entry alone (for acts that change nothing in the log) */
    EG_CALL_CHECKPOINT,
    EG_CALL_KICK /* conn: disconnect it with close 1000 and reason "disconnected by operator" */
};

struct eg_call {
    enum eg_call_kind kind;
    /* request; all borrowed */
    struct eg_slice session_id, agent, text, reason;
    struct eg_slice content, metadata, message_id, traceparent; /* raw compact JSON where JSON */
    const struct eg_identity
        *identity;          /* whose rights decide; NULL: the operator's (no session check) */
    struct eg_slice source; /* MESSAGE: "" client:<sub>, else e.g. operator:<sub> */
    int64_t turn;
    uint64_t cursor;
    int64_t sid; /* with session_id: this session and no later one of the same id; 0: any */
    int64_t until_ms;
    eg_conn_id conn;
    /* Written to the audit log with the change when who is not empty. */
    struct eg_slice audit_who, audit_from, audit_action, audit_detail;
    /* reply */
    enum eg_code code; /* EG_CODE_NONE: done */
    uint64_t out_cursor, out_turn;
    const char *message; /* of a refusal, static; NULL: what is usual for its code */
    int retry_after_s;   /* of a refusal; 0: what is usual for its code */
    bool duplicate, created;
    char out_session_id[EG_ID_MAX + 1], out_epoch[EG_EPOCH_MAX + 1];
    struct eg_buf json; /* caller frees */
    void *waiter;       /* the core's own */
};

struct eg_core;

/* What the core calls back, from its own thread. */
struct eg_core_hooks {
    void (*release)(void *arg, unsigned reactor, struct eg_release *r); /* takes r */
    /* Revocations changed, or were loaded at start; what as for storage revoke. */
    void (*revoked)(void *arg, const char *what, int64_t until_ms);
    /* Storage failed (why is text) or works again (why NULL). */
    void (*storage)(void *arg, const char *why);
    /* The outcome of a flush is unknown, or nothing can be answered: log, then end the process with
     * 75. Does not return. */
    void (*fatal)(void *arg, const char *why);
    void *arg;
};

/*
 * Loads what must be in memory and starts the thread. storage is taken (closed at stop; on failure
 * too). maintain may be NULL; it is called between batches on the core thread (checkpoints).
 */
enum eg_err eg_core_start(struct eg_storage *storage, struct eg_settings *settings,
                          unsigned reactors, const struct eg_core_hooks *hooks,
                          struct eg_core **out) EG_MUST;
/* Takes cmd. Any thread. */
void eg_core_post(struct eg_core *core, struct eg_cmd *cmd);
void eg_core_post_list(struct eg_core *core, struct eg_cmd *first, struct eg_cmd *last);
/* Posts the call and waits for its commit. Any thread but the core's and reactors'. */
void eg_core_call(struct eg_core *core, struct eg_call *call);
void eg_core_settings(struct eg_core *core,
                      struct eg_settings *settings); /* a new snapshot: refs it */
/* Stops handing out turns; *open_turns is asked by eg_core_open_turns until 0. Any thread. */
void eg_core_drain(struct eg_core *core);
int64_t eg_core_open_turns(struct eg_core *core); /* running turns now. Any thread */
/* Monotonic ms of the last completed loop, for the watchdog. Any thread. */
int64_t eg_core_progress_ms(struct eg_core *core);
/* The epoch of session sid; 0: the database's. Any thread. */
void eg_core_epoch(struct eg_core *core, int64_t sid, char out[EG_EPOCH_MAX + 1]);
/* Commits what was posted, releases it, ends the thread, closes storage, frees. */
void eg_core_stop(struct eg_core *core);

#endif
