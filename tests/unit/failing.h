/*
 * failing.h - allocations that fail when the test says so. For programs whose .mk entry asks the
 * linker for it (FAILING_MEMORY): the library's malloc and its kin come through here.
 */
#ifndef FAILING_H
#define FAILING_H

#include <stdbool.h>
#include <stddef.h>

struct eg_bytes;

/* The allocation n from now on (0: the next) fails, once. Negative: none. Any thread, one at a
 * time. */
void failing_order(int n);

/* As failing_order, but all that come after it fail too, until failing_done. */
void failing_order_all(int n);

/* Ends the order; true when an allocation was failed by it. */
bool failing_done(void);

/* Pauses and continues the count: for what the test itself does in between. */
void failing_hold(bool hold);

/* eg_bytes_copy that does not fail, for what is linked as a copy (failing.mk). */
struct eg_bytes *failing_exempt_bytes(const void *p, size_t n);

/* Runs act with the first, second, ... allocation failing, until none does any more. Returns how
 * many there were. act returns whether it has told of the failure: asserted to be so. */
int failing_each(bool (*act)(void *arg), void *arg);

#endif
