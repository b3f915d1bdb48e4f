/*
 * pool.h - the reader threads: what reactors want read from the log. Private to src/edge.
 *
 * A job is given to the pool, worked on in short steps (one page of the log each; a job that is not
 * done goes to the end of the queue, so that a long search does not hold up replays), and mailed
 * back to its reactor. Frames are made here, ready to be written.
 */
#ifndef EG_EDGE_POOL_H
#define EG_EDGE_POOL_H

#include "edge/peer.h"
#include "store/reader.h"

/* How a thread reads the log; tests put their own in place. */
struct eg_log_ops {
    enum eg_err (*open)(const char *dir, void **out);
    void (*close)(void *log);
    enum eg_err (*session)(void *log, struct eg_slice id, struct eg_session_row *out);
    enum eg_err (*session_sid)(void *log, int64_t sid, struct eg_session_row *out);
    enum eg_err (*events)(void *log, const struct eg_page *page, eg_event_fn *fn, void *arg);
};
extern const struct eg_log_ops eg_log_store;

#define EG_PAGE_EVENTS 256
#define EG_PAGE_BYTES (128U << 10) /* of events; frames around them come on top */
/* Bytes that may still wait to be written when the next page is asked for: about one page. */
#define EG_PAGE_AHEAD_BYTES (256U << 10)

enum eg_job_kind { EG_JOB_PAGE, EG_JOB_SNAPSHOT, EG_JOB_HISTORY };
enum eg_shape { EG_SHAPE_REPLAY, EG_SHAPE_LIVE, EG_SHAPE_SSE };

struct eg_job {
    struct eg_mail mail; /* first */
    struct eg_job *next; /* in the pool's queue */
    struct eg_reactor *reactor;
    eg_conn_id conn;
    enum eg_job_kind kind;
    /* what is asked */
    int64_t sid;
    uint64_t from, to; /* events from <= cursor <= to */
    enum eg_shape shape;
    bool streaming;    /* stream events too */
    bool descending;   /* newest first (they are handed over in rising order all the same) */
    bool only_answers; /* snapshot: message events and final responses */
    size_t max_bytes;
    int limit;
    char session[EG_ID_MAX + 1]; /* history of a worker: by id, if it is the agent's; else "" */
    char agent[EG_ID_MAX + 1];
    char epoch[EG_EPOCH_MAX + 1]; /* snapshot */
    /* while it is worked on */
    struct eg_session_row row;
    bool begun;
    struct eg_bytes **found;
    int found_count, found_cap;
    size_t found_bytes;
    uint64_t at; /* the next cursor to read */
    /* what came of it */
    enum eg_err err;
    struct eg_bytes *bytes; /* PAGE: ready to be written; else the payload of one frame */
    uint32_t frames;
    int abandoned; /* atomic: nobody waits for it any more */
    uint64_t last; /* PAGE: complete up to here */
    bool gap;      /* PAGE: events that should be there are not */
};

/* A zeroed job, NULL without memory. */
struct eg_job *eg_job_new(enum eg_job_kind kind, const struct eg_peer *p);
void eg_job_free(struct eg_job *job);
/* The connection that job is for has ended. The job is not touched any more: it comes back, and is
 * freed, like any other. NULL is fine. */
void eg_job_abandon(struct eg_job *job);
/* One step; true when it is done. log NULL: it cannot be read. */
bool eg_job_step(struct eg_job *job, const struct eg_log_ops *ops, void *log);

/* threads readers of dir. */
enum eg_err eg_pool_start(const struct eg_log_ops *ops, const char *dir, unsigned threads,
                          struct eg_pool **out) EG_MUST;
/* Takes job. Any thread. */
void eg_pool_give(struct eg_pool *pool, struct eg_job *job);
void eg_pool_stop(struct eg_pool *pool); /* NULL is fine */

/* What came of a job: catchup.c for PAGE and SNAPSHOT, methods.c for HISTORY. p may be gone. */
void eg_catchup_page(struct eg_peer *p, struct eg_job *job);
void eg_method_history(struct eg_peer *p, struct eg_job *job);

#endif
