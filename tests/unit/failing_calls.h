/*
 * failing_calls.h - system calls that fail when the test says so. For programs whose .mk entry asks
 * the linker for it (FAILING_CALLS): the library's calls come through here.
 */
#ifndef FAILING_CALLS_H
#define FAILING_CALLS_H

#include <stdbool.h>

enum failing_call {
    FAILING_OPEN,
    FAILING_FSTAT,
    FAILING_READ,
    FAILING_WRITE,
    FAILING_FSYNC,
    FAILING_CLOSE,
    FAILING_LINK,
    FAILING_UNLINK,
    FAILING_CALLS
};

/* Call number n of this kind from now on (0: the next) fails with this errno, once; the call itself
 * is made all the same where that hides nothing (close). Replaces an earlier order. */
void failing_call_order(enum failing_call call, int n, int error);
/* From now on read and write move at most this many bytes a call. 0: as asked. */
void failing_call_short(unsigned bytes);
/* Ends orders; true when a call was failed. */
bool failing_call_done(void);

#endif
