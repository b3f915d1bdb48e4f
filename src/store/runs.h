/*
 * runs.h - private to src/store: the older part of the log's index, in packed runs.
 *
 * What is frozen of the tail (tail.h) is written out as a run: the places of its events by session
 * and cursor, and their ids by hash, packed into rows (pack.h) that are never changed afterwards. A
 * run covers a stretch of the log; the runs in use cover all of it up to meta 'indexed'. When
 * EG_RUNS_FAN of a level have gathered they are merged into one of the next, so that there are few,
 * and each entry is moved once a level. All of this is done in the transactions of the events, as
 * much each time as they bring; what is half done goes on after a restart.
 *
 * An id is new in most cases, and each run has to say so: a filter in memory answers for it. It is
 * filled while the run is written. After a restart it is read from the run, a few rows with each
 * transaction; until it is there, and beyond eg_runs_filter_bytes of them, the run itself is asked.
 *
 * When events are removed their entries stay and lead nowhere. They are left out when their run is
 * merged next, which is done by itself once half of them are such. What is then left of the oldest
 * runs is merged with its neighbours, so that retention does not leave ever more empty runs behind.
 *
 * Threads: the writer's.
 */
#ifndef EG_STORE_RUNS_H
#define EG_STORE_RUNS_H

#include <stdbool.h>
#include <stdint.h>

#include <sqlite3.h>

#include "store/pack.h"

#define EG_RUNS_FAN 4     /* runs that become one */
#define EG_RUNS_INPUTS 16 /* room for so many */
#define EG_RUNS_LEVELS 5  /* the runs of the last are merged only when little is left in them */

/* Memory for filters, 128 MB. Tests lower it. */
extern size_t eg_runs_filter_bytes;

enum eg_run_state { EG_RUN_BUILDING, EG_RUN_LIVE, EG_RUN_GONE };

struct eg_run {
    int64_t run;
    enum eg_run_state state;
    int level;
    int64_t first_seq, last_seq, entries, stale, max_sid;
    int64_t going; /* entries that the running transaction made stale */
    /* The filter: blocks of 64 bytes. */
    uint64_t *filter;
    uint32_t blocks;
    bool whole;       /* it knows all of the run */
    uint64_t read_to; /* hash from which on it has still to be read */
};

/* A run that is being made: of what is frozen (no inputs), or of other runs. It goes on behind its
 * last whole row. */
struct eg_run_work {
    int64_t run; /* 0: nothing to do */
    bool ids;    /* the places are done */
    bool check;  /* some events of the inputs have been removed */
    bool fill;   /* the run's filter is filled with it: there was one before the first row */
    uint32_t at; /* of what is frozen */
    uint64_t a;  /* of runs: behind session a and cursor b, or hash a and seq b */
    int64_t b;
    int64_t credit; /* entries it may take on */
    int64_t size;   /* entries there are, more or less */
    int64_t in[EG_RUNS_INPUTS];
    int ins;
};

struct eg_merge_input;

struct eg_runs {
    struct eg_run *v; /* by first_seq, as of the last commit */
    int n;
    bool changed; /* the table was changed by the running transaction */
    bool lost;    /* the list could not be read */
    int64_t indexed;
    /* [0] what is frozen; [1 + level] merging runs of a level */
    struct eg_run_work work[1 + EG_RUNS_LEVELS], kept[1 + EG_RUNS_LEVELS];
    struct eg_merge_input *input; /* EG_RUNS_INPUTS of them */
    struct eg_run *filling;       /* the run that is being written, where its filter is filled */
    struct eg_pack_ids ids;
    struct eg_buf row;
};

struct eg_sqlite;
struct eg_event_row;

/* At opening: what there is, and what was half done. */
enum eg_err eg_runs_open(struct eg_sqlite *s) EG_MUST;
void eg_runs_close(struct eg_sqlite *s);
/* In a transaction that appended or removed n events: writes out, merges and removes about as much.
 * Failures are latched. True when nothing is left to do. */
bool eg_runs_work(struct eg_sqlite *s, int64_t n);
/* Reads the list when it could not be read after a commit. */
enum eg_err eg_runs_again(struct eg_sqlite *s) EG_MUST;
/* After COMMIT, or ROLLBACK. */
void eg_runs_committed(struct eg_sqlite *s);
void eg_runs_undo(struct eg_sqlite *s);
/* In a transaction: these events (rising seqs) were removed. */
void eg_runs_removed(struct eg_sqlite *s, const int64_t *seq, int n);

/* The id will be looked for: brings what the filters say of it nearer, while the tail is asked. */
void eg_runs_expect(const struct eg_runs *r, int64_t sid, int64_t key);
/* Calls fn with each event that runs know for the id, newest first, until it returns something else
 * than EG_ENOTFOUND; that, or a failure, is returned. */
typedef enum eg_err eg_runs_fn(struct eg_sqlite *s, int64_t seq, const void *arg);
enum eg_err eg_runs_find_id(struct eg_sqlite *s, int64_t sid, int64_t key, eg_runs_fn *fn,
                            const void *arg) EG_MUST;

#endif
