/*
 * clock.h - the two clocks, in milliseconds. Everything that decides takes time as an argument;
 * only threads' main loops read these.
 */
#ifndef EG_BASE_CLOCK_H
#define EG_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Both times at one moment. */
struct eg_now {
    int64_t mono_ms; /* for intervals; never goes back */
    int64_t wall_ms; /* since 1970; may jump */
};

struct eg_now eg_clock_now(void);
int64_t eg_clock_mono_ms(void);
int64_t eg_clock_mono_us(void);
/* Replaces the clock in tests; NULL restores the system's. Not thread-safe: before threads start.
 */
void eg_clock_replace(struct eg_now (*now)(void));

/* n random bytes from the kernel; aborts when there are none to be had. */
void eg_random(void *p, size_t n);
/* A UUIDv7 (RFC 9562 5.7) as 36 characters and a NUL. */
void eg_uuid7(int64_t wall_ms, char out[37]);

#endif
