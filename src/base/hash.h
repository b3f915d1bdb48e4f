/*
 * hash.h - BLAKE2b (RFC 7693) by libsodium: the chain over a session's events, and id keys.
 */
#ifndef EG_BASE_HASH_H
#define EG_BASE_HASH_H

#include <stdint.h>

#include "base/bytes.h"

#define EG_CHAIN_BYTES 32
#define EG_IDKEY_BYTES 16

/* next = BLAKE2b-256(prev || event). prev of the first event is 32 zero bytes. next may be prev. */
void eg_chain_next(const uint8_t prev[EG_CHAIN_BYTES], struct eg_slice event,
                   uint8_t next[EG_CHAIN_BYTES]);
/*
 * Key under which a sender's own id is remembered in a session: BLAKE2b-128 over kind, sender and
 * id, each with its length. kind: 'm' for message_id of a sub, 'e' for event_id of an agent; 's'
 * for the number of a session, where sender is the epoch (store/epoch.h).
 */
void eg_idkey(char kind, struct eg_slice sender, struct eg_slice id, uint8_t out[EG_IDKEY_BYTES]);

#endif
