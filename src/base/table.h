/*
 * table.h - uthash where a table that cannot grow ends the process (else: HASH_NONFATAL_OOM).
 *
 * Without memory for a table's buckets uthash would end the process with 255 and without a word.
 * Here it ends as deliberately as everything else that may pass by itself: a line in the log, then
 * exit 75. Nothing acknowledged is lost by that: it is on disk before it is told. Others use the
 * same end where going on without memory would leave somebody waiting for ever.
 *
 * Clients choose some of the keys (session ids). So the hash has a secret of the process: nobody
 * can prepare keys that fall into one bucket, which would make each look-up walk all of them.
 */
#ifndef EG_BASE_TABLE_H
#define EG_BASE_TABLE_H

#include <stddef.h>

/* Logs what happened and ends the process with 75. Any thread. */
_Noreturn void eg_table_fatal(const char *what);

/* The hash of a key: of eight bytes by two secret multipliers, else SipHash-2-4. Any thread. */
unsigned eg_table_hash(const void *key, size_t n);

#define uthash_fatal(msg) eg_table_fatal(msg)
#define HASH_FUNCTION(key, n, hash) ((hash) = eg_table_hash((key), (n)))
#include <uthash.h>

#endif
