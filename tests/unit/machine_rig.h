/*
 * machine_rig.h - a state machine over a store in memory, spoken to in JSON, with a clock that
 * tests move.
 */
#ifndef EG_TEST_MACHINE_RIG_H
#define EG_TEST_MACHINE_RIG_H

#include "core/machine.h"
#include "../lib/memstore.h"

#define MR_OUTS 2048

enum mr_part { MR_STEP, MR_ROLLBACK };

struct machine_rig {
    struct eg_storage *storage;
    struct eg_settings *settings;
    struct eg_machine *m;
    struct eg_now now;
    struct eg_out out[MR_OUTS]; /* of the last batch; owned */
    int outs;
    uint64_t next_conn;
    int failures; /* batches that had to be rolled back */
    /* Called before and after the first try of a batch and its rolling back, when set. */
    void (*around)(enum mr_part part, bool begins);
};

/* A machine that knows the agent "a". */
struct machine_rig *mr_new(void);
void mr_free(struct machine_rig *r);
/* A new process on the same committed data. */
void mr_restart(struct machine_rig *r);

/* Each of these is a batch of its own: step, tick, flush, commit; r->out is what left. */
void mr_tick(struct machine_rig *r, int64_t ms); /* time passes */
/* Attaches; extra are further members of hello, with a leading comma. */
eg_conn_id mr_client(struct machine_rig *r, const char *sub, const char *extra);
eg_conn_id mr_worker(struct machine_rig *r, const char *agent, const char *extra);
void mr_detach(struct machine_rig *r, eg_conn_id conn);
void mr_frame(struct machine_rig *r, eg_conn_id conn, const char *json);
/* Several frames in one batch. */
void mr_frames(struct machine_rig *r, eg_conn_id conn, const char *const json[], int n);
/* A frame of conn, and gone detaches, in one batch. */
void mr_frame_and_detach(struct machine_rig *r, eg_conn_id conn, const char *json, eg_conn_id gone);
enum eg_code mr_call(struct machine_rig *r, struct eg_call *call);

/* The n-th output (from 0) of kind for conn (0: any), or NULL. */
const struct eg_out *mr_out(const struct machine_rig *r, enum eg_out_kind kind, eg_conn_id conn,
                            int n);
/* The text of the first FRAME to conn that holds part, or NULL. */
const char *mr_text(const struct machine_rig *r, eg_conn_id conn, const char *part);
/* The text of the first EVENT that holds part, or NULL. */
const char *mr_event(const struct machine_rig *r, const char *part);
/* The welcome of conn. Never NULL: fails the test. */
const struct eg_welcome *mr_welcome(const struct machine_rig *r, eg_conn_id conn);
/* An integer member of a JSON text. */
int64_t mr_int(const char *json, const char *key);

#endif
