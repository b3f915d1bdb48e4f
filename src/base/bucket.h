/*
 * bucket.h - a token bucket: rate units a second, holding at most one second's worth (at least
 * one).
 */
#ifndef EG_BASE_BUCKET_H
#define EG_BASE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

/* All zeros is a full bucket. */
struct eg_bucket {
    int64_t used_milli; /* thousandths of units taken and not yet given back by time */
    int64_t at_ms;
};

/* Takes n units; false, taking nothing, when there are not enough. rate 0: always true. An n above
 * the rate passes when the bucket is full, and has to be waited for afterwards. */
bool eg_bucket_take(struct eg_bucket *b, int64_t rate, int64_t n, int64_t mono_ms);

#endif
