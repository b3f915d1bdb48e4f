/*
 * table.h - uthash where a table that cannot grow ends the process (else: HASH_NONFATAL_OOM).
 *
 * Without memory for a table's buckets uthash would end the process with 255 and without a word.
 * Here it ends as deliberately as everything else that may pass by itself: a line in the log, then
 * exit 75. Nothing acknowledged is lost by that: it is on disk before it is told. Others use the
 * same end where going on without memory would leave somebody waiting for ever.
 */
#ifndef EG_BASE_TABLE_H
#define EG_BASE_TABLE_H

/* Logs what happened and ends the process with 75. Any thread. */
_Noreturn void eg_table_fatal(const char *what);

#define uthash_fatal(msg) eg_table_fatal(msg)
#include <uthash.h>

#endif
