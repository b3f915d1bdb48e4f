#include "store/epoch.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"

/* Hashed, so that it does not read as a count of sessions; it keeps no secret. */
void eg_epoch_of(const struct eg_epoch *e, int64_t sid, char out[EG_EPOCH_MAX + 1])
{
    uint8_t key[EG_IDKEY_BYTES];
    char number[24];
    uint64_t half;
    if (sid <= __atomic_load_n(&e->until_sid, __ATOMIC_RELAXED)) {
        memcpy(out, e->id, sizeof e->id);
        return;
    }
    (void)snprintf(number, sizeof number, "%" PRId64, sid);
    eg_idkey('s', eg_slice_cstr(e->id), eg_slice_cstr(number), key);
    memcpy(&half, key, sizeof half);
    (void)snprintf(out, EG_EPOCH_MAX + 1, "%s-%016" PRIx64, e->id, be64toh(half));
}
