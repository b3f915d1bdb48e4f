/*
 * bench.h - the scenarios. They report figures (figures.h).
 */
#ifndef EG_BENCH_BENCH_H
#define EG_BENCH_BENCH_H

#include "figures.h"
#include "load.h"
#include "tl_gate.h"

struct bench {
    struct tl_gate *gate;
    char *client_token, *worker_token;
    struct load_target client, worker;
    int64_t measure_us;                /* how long a steady scenario measures */
    int scale;                         /* 1: full size; 10: a tenth, for a short check */
    long start_sessions, start_events; /* bench_start: how many, and events in each */
    long growth_events;                /* bench_growth: the largest log */
    bool peers;                        /* measure the other servers too */
};

/* baseline.c: no gateway. */
void bench_fdatasync(struct bench *b);
void bench_echo(struct bench *b);
double bench_flush_us(void); /* what fdatasync of 512 appended bytes takes just now */
/* growth.c */
void bench_raw(struct bench *b);    /* group commit into the store, no network */
void bench_start(struct bench *b);  /* ready with a large database */
void bench_growth(struct bench *b); /* events/s, replay and bytes on disk at growing sizes */
/* publish.c */
void bench_publish(struct bench *b);   /* 1, 50, 500 clients, one in flight each */
void bench_pipelined(struct bench *b); /* one worker connection, 100 in flight over 100 sessions */
void bench_paced(struct bench *b);     /* 2,000 messages a second: latency */
/* turns.c */
void bench_turns(struct bench *b);  /* message, worker, 20 token_streams, final; 200 sessions */
void bench_fanout(struct bench *b); /* one session to 100 and 1000 followers */
/* replay.c */
void bench_replay(struct bench *b); /* 10,000 events to one, 1,000 to each of 100 */
void bench_storm(struct bench *b);  /* all clients resume after a restart, beside
                                        live traffic */
/* conns.c */
void bench_hello(struct bench *b); /* new connections a second, each with its token verified */
void bench_idle(struct bench *b);  /* memory of an idle connection with its own session */

/* instructions.c */
void bench_instructions(struct bench *b); /* for a publish, delivery, replayed event, welcome */

/* Common steps. */
/* Starts a gate with more settings on its command line; ends the one before. */
void bench_gate(struct bench *b, const char *const *args);
void bench_end(struct bench *b);
/* A worker of agent "bench" that says hello and waits; on_text gets all later frames. */
void bench_worker(struct bench *b, struct lc *w, int concurrency, lc_text_fn *on_text);

#endif
