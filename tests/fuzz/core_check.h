/*
 * core_check.h - what has to be true of the state machine between two batches, and of every log in
 * the end; ends the process when it is not. For fuzz_core.c.
 */
#ifndef EG_TESTS_FUZZ_CORE_CHECK_H
#define EG_TESTS_FUZZ_CORE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "core/machine.h"

#define REACTORS 2
#define CACHE_MOST 3 /* sessions that nothing holds */

#define must(holds)                                                                                \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #holds);                            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Counts, rings and timers agree with the sessions; nothing waits beside a free worker. */
void core_check_machine(const struct eg_machine *m);
/* The log of a session is whole, if there is one: cursors, times, hash chain, bytes, and each turn
 * is open or ended once. */
void core_check_log(struct eg_storage *storage, int64_t sid);

#endif
