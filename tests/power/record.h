/*
 * record.h - what the recorder writes and the rebuilder reads: every change below one folder.
 *
 * A record is a struct record, then `path` bytes of the name it is about, then `data` bytes. Its
 * position is its offset in the record file. A flush is recorded when it has returned; what was
 * recorded before its `begin` is on the disk from then on.
 */
#ifndef EG_POWER_RECORD_H
#define EG_POWER_RECORD_H

#include <pthread.h>
#include <stdint.h>

enum record_kind {
    RECORD_CREATE = 1, /* path: a new file named so, number `file` */
    RECORD_MKDIR,      /* path */
    RECORD_UNLINK,     /* path */
    RECORD_RENAME,     /* path: from, NUL, to */
    RECORD_LINK,       /* path: from, NUL, to */
    RECORD_WRITE,      /* file, at, data */
    RECORD_TRUNCATE,   /* file, at: the new size */
    RECORD_FLUSH,      /* file, begin */
    RECORD_FLUSH_DIR   /* path, begin */
};

struct record {
    uint32_t kind, file;
    uint64_t at, begin;
    uint32_t path, data;
};

#define RECORD_NAMES 256
#define RECORD_PATH 256

/* Shared by the recorder in the daemon (also a later one on the same folder) and the test. */
struct recorder_state {
    pthread_mutex_t lock; /* process-shared, robust */
    uint64_t position;    /* bytes of records so far; atomic */
    uint32_t files;
    struct {
        char path[RECORD_PATH]; /* "": free */
        uint32_t file;
    } name[RECORD_NAMES];
};

/* Environment: RECORD_DIR, the folder; RECORD_FILE, the records; RECORD_STATE, the state. */

#endif
