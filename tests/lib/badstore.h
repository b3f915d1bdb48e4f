/*
 * badstore.h - a storage whose calls fail when the test says so, around any other one.
 *
 * One order at a time, in static memory: one storage a process. Orders are given while the thread
 * that uses the storage waits.
 */
#ifndef EG_TEST_BADSTORE_H
#define EG_TEST_BADSTORE_H

#include "store/storage.h"

enum bad_call { BAD_READ, BAD_BEGIN, BAD_PROBE, BAD_MAINTAIN, BAD_CHECKPOINT, BAD_CALLS };

/* Puts itself before the storage. Again after the storage was made anew. */
void badstore_over(struct eg_storage *s);

/* Call number n of this kind from now on (0: the next) and times - 1 after it end with e. */
void badstore_order(enum bad_call call, int n, int times, enum eg_err e);
/* Ends the order; true when a call was failed. */
bool badstore_done(void);
/* Pauses and continues the count. */
void badstore_hold(bool hold);
/* Called before each read of events (copies of a fork), when not NULL. */
extern void (*badstore_before_events)(void);

#endif
