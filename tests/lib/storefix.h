/*
 * storefix.h - what the store's tests share: a scratch folder, sessions with real events, opening
 * and closing. Everything aborts the test on failure; nothing is returned to be checked.
 */
#ifndef EG_TEST_STOREFIX_H
#define EG_TEST_STOREFIX_H

#include <stdarg.h>

#include "store/sqlite.h"

#define STOREFIX_TIME 1795350871000LL

/* A new empty folder below TMPDIR, name in out; removed with everything in it by scratch_drop. */
void scratch_make(char out[64]);
void scratch_drop(const char *dir);
/* dir/name as text in one of a few static buffers. */
const char *scratch_path(const char *dir, const char *name);
/* How many files of dir have names that begin so. */
int scratch_count(const char *dir, const char *begin);
/* Writes a file of n bytes; reads one whole (malloc'ed, length to *n). */
void scratch_write(const char *path, const void *p, size_t n);
char *scratch_read(const char *path, size_t *n);

struct eg_storage *store_must_open(const char *dir);
void store_close(struct eg_storage *s);
void store_begin(struct eg_storage *s);
void store_commit(struct eg_storage *s); /* must succeed */

/* A new open session of agent "a" and owner "o", inserted inside the running transaction. */
struct eg_session_row store_session(struct eg_storage *s, const char *id);
/* Appends one real message event (wire/event.h) with content text; updates row, not the table. */
void store_event(struct eg_storage *s, struct eg_session_row *row, const char *text,
                 const uint8_t *idkey, int64_t at_ms);
/* A session with n events of the given text, committed. */
struct eg_session_row store_filled(struct eg_storage *s, const char *id, int n, const char *text);
/* A session with n messages whose turns wait, all in one transaction. */
struct eg_session_row store_queued(struct eg_storage *s, const char *id, int n);

/* Checks all of the database, which must be without a fault. */
struct eg_check_result store_must_be_whole(const char *dir);

/* Runs SQL on the file with a connection of its own; returns the first column of the first row. */
int64_t store_sql(const char *dir, const char *sql);

#endif
