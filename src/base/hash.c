#include "base/hash.h"

#include <sodium.h>

void eg_chain_next(const uint8_t prev[EG_CHAIN_BYTES], struct eg_slice event,
                   uint8_t next[EG_CHAIN_BYTES])
{
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, EG_CHAIN_BYTES);
    crypto_generichash_update(&st, prev, EG_CHAIN_BYTES);
    crypto_generichash_update(&st, (const unsigned char *)event.p, event.n);
    crypto_generichash_final(&st, next, EG_CHAIN_BYTES);
}

static void update_counted(crypto_generichash_state *st, struct eg_slice s)
{
    uint32_t n = (uint32_t)s.n;
    const uint8_t length[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16),
                               (uint8_t)(n >> 24)};
    crypto_generichash_update(st, length, sizeof length);
    crypto_generichash_update(st, (const unsigned char *)s.p, s.n);
}

void eg_idkey(char kind, struct eg_slice sender, struct eg_slice id, uint8_t out[EG_IDKEY_BYTES])
{
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, EG_IDKEY_BYTES);
    crypto_generichash_update(&st, (const unsigned char *)&kind, 1);
    update_counted(&st, sender);
    update_counted(&st, id);
    crypto_generichash_final(&st, out, EG_IDKEY_BYTES);
}
