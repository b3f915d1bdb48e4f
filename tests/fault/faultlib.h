/*
 * faultlib.h - what the preloaded fault library and the test that orders faults share: one page.
 */
#ifndef EG_FAULT_FAULTLIB_H
#define EG_FAULT_FAULTLIB_H

#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_PWRITE, /* all but the last: on files below FAULT_DIR only */
    FAULT_PREAD,
    FAULT_FLUSH,
    FAULT_CUT, /* ftruncate */
    FAULT_OPEN,
    FAULT_MAP,    /* mmap: the shared index of the log */
    FAULT_LOCK,   /* fcntl F_SETLK */
    FAULT_MALLOC, /* malloc, calloc, realloc, from anywhere in the process */
    FAULT_KINDS
};

/* All atomic. The order: calls number nth to nth + times - 1 of this kind fail with error. */
struct fault_state {
    int32_t kind, error;
    int64_t nth, times; /* times < 0: for ever */
    int64_t count;      /* calls of this kind since the order was given */
    int64_t hits;
    int64_t shift_ms;    /* added to CLOCK_REALTIME */
    int64_t eintr_every; /* every so many calls that may be interrupted are; 0: none */
    int64_t eintr_count, eintr_hits;
    char where[64]; /* the library that was refused memory last */
};

/* Environment: FAULT_STATE, the file of the page; FAULT_DIR, the data folder. */

#endif
