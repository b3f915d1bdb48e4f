/*
 * agent.h - private to src/app: `ebbgate agent`, a command as a durable, streaming agent.
 *
 * One thread, one connection, at most `concurrency` turns at work. A turn here is a task. What a
 * task says waits in its list until the gateway has answered it (the answer means: on disk), so it
 * can be repeated after a break; event ids make the repeat harmless. A task whose connection broke
 * goes on working and is attached again when the gateway hands the same turn over; when it is not,
 * or the gateway says the turn is closed, the task is dropped.
 *
 *   agent_task.c    tasks and what they say      agent_proc.c   child processes and their pipes
 *   agent_exec.c   a process for each turn     agent_jsonl.c  one process for all turns
 *   cmd_agent.c    options, connection, frames
 */
#ifndef EG_APP_AGENT_H
#define EG_APP_AGENT_H

#include <sys/types.h>

#include "app/gate.h"

#define EG_AGENT_CHUNK 16384     /* bytes of output in one event */
#define EG_AGENT_PENDING_MAX 256 /* unanswered frames of a task before its output waits */
#define EG_AGENT_PENDING_BYTES (1 << 20)
#define EG_AGENT_KILL_MS 3000     /* from TERM to KILL */
#define EG_AGENT_ABORT_MS 4000    /* how long a jsonl command may take to end an aborted turn */
#define EG_AGENT_ORPHAN_MS 120000 /* a task that nobody asks for any more is dropped */
#define EG_AGENT_EXTEND_MS 10000  /* silence after which extend is sent, unless leases are short */
#define EG_AGENT_STDERR_KEPT 2000 /* last bytes of stderr that a failure tells */

/* A child process in its own group. Descriptors are -1 when closed. */
struct eg_proc {
    pid_t pid; /* 0: none, or reaped */
    pid_t group;
    int in, out, err;
    struct eg_buf input; /* for its stdin */
    size_t input_at;
    bool keep_input;          /* stdin stays open when input is written */
    struct eg_buf last_words; /* end of its stderr */
    int status;               /* of waitpid, once reaped */
    bool reaped;
    int64_t kill_at_ms; /* mono; 0: not told to end */
};

/* A frame that waits for its answer. */
struct eg_said {
    struct eg_said *next;
    char *event_id;
    struct eg_buf text;
    bool sent, ends; /* ends: final */
};

enum eg_task_state {
    EG_TASK_WAITING, /* for a free place */
    EG_TASK_WORKING,
    EG_TASK_ENDING, /* its last frame is said, not answered */
    EG_TASK_DROPPED /* the turn is not ours any more; its process is being ended */
};

struct eg_task {
    struct eg_task *next;
    char *session, *message; /* message: its event_id */
    char *epoch;             /* of the session's log; NULL when the gateway did not tell */
    int64_t turn, attempt;
    enum eg_task_state state;
    bool attached;                 /* the gateway handed it to this connection */
    bool aborted, timed_out, over; /* over: may be freed */
    struct eg_said *first, **last;
    int pending;
    size_t pending_bytes;
    struct eg_buf fail;   /* a fail frame that waits to be sent; n == 0 none */
    struct eg_buf frame;  /* the turn frame, until the task starts */
    struct eg_buf answer; /* exec: what final will say, as JSON text without quotes */
    struct eg_buf carry;  /* exec: bytes of a character that is not complete */
    bool truncated;
    int64_t started_ms, spoke_ms, unwanted_ms; /* unwanted_ms: since when it is not attached */
    int64_t abort_ms;
    struct eg_proc proc; /* exec */
};

struct eg_agent {
    const struct eg_command *cmd;
    struct eg_gate gate;
    struct eg_wsc *wsc;
    const char *id;
    char **argv; /* of the command */
    bool jsonl, quiet;
    int64_t concurrency, timeout_ms;
    int64_t max_payload, extend_ms; /* extend_ms: silence after which extend is sent */
    char trouble[256];              /* why no connection came about, told once; "" none */
    bool welcome;                   /* hello_ok came on this connection */
    int64_t welcome_ms, resend_ms;  /* resend_ms: when refused frames are sent again; 0 never */
    struct eg_task *tasks;
    struct eg_said *first, **last; /* jsonl: publish frames, of no task */
    struct eg_proc proc;           /* jsonl */
    struct eg_buf line;            /* jsonl: an unfinished line */
    int64_t restart_ms;            /* jsonl: not before */
    int quick_ends;
    int exit_code;
    bool stopping;
};

/* ---- agent_task.c ---- */
struct eg_task *eg_task_find(struct eg_agent *a, const char *session, int64_t turn);
/* Appends the members that name the turn of j in a frame. */
void eg_task_name(const struct eg_task *j, struct eg_buf *b);
/* NULL without memory. */
struct eg_task *eg_task_new(struct eg_agent *a, const char *session, int64_t turn,
                            const char *message);
int eg_tasks_working(const struct eg_agent *a);
/* Frees what is over. */
void eg_tasks_sweep(struct eg_agent *a);
void eg_task_free(struct eg_task *j);
/* Takes text (a frame) and event_id, both malloc'ed or owned; sends it when it can be. task NULL:
 * of no task. */
void eg_say(struct eg_agent *a, struct eg_task *j, struct eg_buf *take_text, char *take_event_id,
            bool ends);
/* Sends all that was not sent on this connection. */
void eg_say_again(struct eg_agent *a, struct eg_task *j);
/* The connection is gone: everything unanswered will have to be sent again. */
void eg_tasks_detach(struct eg_agent *a);
/* An answer to event_id. */
void eg_task_answered(struct eg_agent *a, const char *event_id);
/* An error with ref event_id. */
void eg_task_refused(struct eg_agent *a, const char *event_id, const struct eg_json_doc *doc);
/* Ends the attempt: fail with a sentence. */
void eg_task_fail(struct eg_agent *a, struct eg_task *j, const char *why, bool retry);
void eg_task_drop(struct eg_agent *a, struct eg_task *j);
/* extend where a task was silent; drops what nobody asked for. */
void eg_tasks_tick(struct eg_agent *a, int64_t now_ms);

/* ---- agent_proc.c ---- */
/* Starts argv with env added to ours. EG_EIO with errno. */
enum eg_err eg_proc_start(struct eg_proc *p, char **argv, const char *const *env, bool stderr_too);
/* Writes input to stdin as far as it goes. */
void eg_proc_feed(struct eg_proc *p);
/* How many bytes wait in a pipe now. What a command leaves behind may write for ever: at its end no
 * more than this is read. */
size_t eg_proc_waiting(int fd);
/* Reads a part of stderr: keeps its end and passes it on to ours. */
void eg_proc_listen(struct eg_proc *p, bool quiet);
/* TERM to the group, KILL after EG_AGENT_KILL_MS (eg_proc_tick). */
void eg_proc_end(struct eg_proc *p, int64_t now_ms);
void eg_proc_tick(struct eg_proc *p, int64_t now_ms);
/* Looks whether it ended; its group is killed then. */
bool eg_proc_reap(struct eg_proc *p);
void eg_proc_free(struct eg_proc *p);
/* How it ended, with the last words on stderr, for people. */
void eg_proc_obituary(const struct eg_proc *p, char *out, size_t size);
void eg_close(int *fd);

/* ---- agent_exec.c ---- */
void eg_exec_start(struct eg_agent *a, struct eg_task *j);
void eg_exec_readable(struct eg_agent *a, struct eg_task *j);
/* After its process was reaped: the rest of its output and the last frame. */
void eg_exec_ended(struct eg_agent *a, struct eg_task *j);

/* ---- agent_jsonl.c ---- */
void eg_jsonl_start(struct eg_agent *a, struct eg_task *j);
void eg_jsonl_abort(struct eg_agent *a, struct eg_task *j, const char *reason);
/* Reads some of its output; returns how many bytes. */
size_t eg_jsonl_readable(struct eg_agent *a);
void eg_jsonl_ended(struct eg_agent *a);

#endif
