#include "base/bucket.h"

bool eg_bucket_take(struct eg_bucket *b, int64_t rate, int64_t n, int64_t mono_ms)
{
    if (rate <= 0) {
        return true;
    }
    const int64_t elapsed = mono_ms > b->at_ms ? mono_ms - b->at_ms : 0;
    b->at_ms = mono_ms;
    if (elapsed >= b->used_milli / rate + 1) {
        b->used_milli = 0;
    } else {
        b->used_milli -= elapsed * rate;
    }
    if (b->used_milli < 0) {
        b->used_milli = 0;
    }
    if (b->used_milli > 0 && b->used_milli + n * 1000 > rate * 1000) {
        return false;
    }
    b->used_milli += n * 1000;
    return true;
}
