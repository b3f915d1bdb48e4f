#include "store/epoch.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* Hashed, because numbers in a row would tell every client how many sessions there are. */
void eg_epoch_of(const struct eg_epoch *e, int64_t sid, char out[EG_EPOCH_MAX + 1])
{
    uint8_t hash[crypto_generichash_BYTES_MIN];
    char text[2 * 8 + 1];
    if (sid <= __atomic_load_n(&e->until_sid, __ATOMIC_RELAXED)) {
        memcpy(out, e->id, sizeof e->id);
        return;
    }
    crypto_generichash(hash, sizeof hash, (const uint8_t *)&sid, sizeof sid, (const uint8_t *)e->id,
                       sizeof e->id);
    sodium_bin2hex(text, sizeof text, hash, 8);
    (void)snprintf(out, EG_EPOCH_MAX + 1, "%s-%s", e->id, text);
}
