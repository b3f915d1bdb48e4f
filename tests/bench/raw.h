/*
 * raw.h - group commit into the real store, no network: what the schema costs, and how large logs
 * are made.
 *
 * As many publishes as a batch holds are outstanding; each batch is one transaction in which a
 * publish does what the core does for it: look for its id, append an event, queue and end a turn,
 * and at the end one update a session touched. Sessions are hit evenly at random, which is the
 * expensive case. Checkpoints run as in the daemon. One thread. Failures end the program.
 */
#ifndef EG_BENCH_RAW_H
#define EG_BENCH_RAW_H

#include <stdbool.h>
#include <stdint.h>

#include "load.h"

#define RAW_EVENT_BYTES 300

struct raw_options {
    long sessions, batch;
    bool ids, turns;   /* each event has an id; each is a turn, the last two a session unended */
    const char *agent; /* of all sessions; NULL: seven */
};

struct raw;

/* Makes or opens the database in dir and puts new sessions into it. */
struct raw *raw_open(const char *dir, const struct raw_options *o);
/* Commits batches until `events` more are stored (negative: no end) or for us microseconds
 * (negative: no end); returns events a second. Adds each commit's time to lat unless NULL. */
double raw_run(struct raw *w, long events, int64_t us, struct lat *lat);
long raw_events(const struct raw *w);
/* Id of session number i (modulo how many there are). */
const char *raw_session(const struct raw *w, long i);
uint64_t raw_cursor(const struct raw *w, long i);
/* Closes the database; sessions and cursors can still be asked for. */
void raw_release(struct raw *w);
void raw_close(struct raw *w);
/* Bytes of the database and its journal in dir. */
long long raw_disk_bytes(const char *dir);

#endif
