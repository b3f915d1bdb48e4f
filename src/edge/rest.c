/*
 * rest.c - see rest.h.
 */
#include "edge/rest.h"

#include <time.h>

#include "edge/peer.h"

void eg_rest_seen(struct eg_reactors *rs, int64_t now_mono_ms)
{
    if (__atomic_load_n(&rs->small_ms, __ATOMIC_RELAXED) != now_mono_ms) {
        __atomic_store_n(&rs->small_ms, now_mono_ms, __ATOMIC_RELAXED);
    }
}

int64_t eg_rest_us(const struct eg_reactors *rs, int64_t start_us)
{
    const int64_t seen_ms = __atomic_load_n(&rs->small_ms, __ATOMIC_RELAXED);
    const int64_t us = eg_clock_mono_us() - start_us;
    if (seen_ms == 0 || eg_clock_mono_ms() - seen_ms > EG_REST_FOR_MS) {
        return 0;
    }
    return us < EG_REST_MOST_US ? us : EG_REST_MOST_US;
}

void eg_rest(const struct eg_reactors *rs, int64_t start_us)
{
    const int64_t us = eg_rest_us(rs, start_us);
    const struct timespec ts = {.tv_nsec = us * 1000};
    if (rs->seams.rest) {
        rs->seams.rest(rs->seams.arg, us);
    } else if (us > 0) {
        nanosleep(&ts, NULL);
    }
}
