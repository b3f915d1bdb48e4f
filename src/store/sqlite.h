/*
 * sqlite.h - the SQLite database in a data folder: opening, migrating, the writer, maintenance.
 *
 * Files: DIR/lock (held with flock while open for writing), DIR/ebbgate.db with -wal and -shm.
 * The writer is an eg_storage (storage.h) for the core thread; readers are in store/reader.h.
 */
#ifndef EG_STORE_SQLITE_H
#define EG_STORE_SQLITE_H

#include "store/storage.h"

/*
 * Opens DIR for writing; makes folder (0700), database and epoch when there are none, migrates an
 * older schema, and takes the lock. EG_EBUSY: another process has it. EG_ETOONEW: a newer schema.
 * EG_ECORRUPT: not our database, damaged, empty, or gone while its journal is still there. Nothing
 * is touched on these. why says what and where. Sessions that a crash left FORKING become DELETING
 * (eg_reader_retention reports those), and revocations that may be forgotten are.
 */
enum eg_err eg_sqlite_open(const char *dir, struct eg_storage **out, char *why,
                           size_t why_size) EG_MUST;

/* Pages in the write-ahead log since the last full checkpoint. Writer thread. */
int eg_sqlite_wal_pages(struct eg_storage *s);
/* A PASSIVE checkpoint, outside a transaction; holds readers of this process back for a moment when
 * the log has grown long. EG_EUNKNOWN: a flush failed, the process must end. Other failures may be
 * tried again. Writer thread. */
enum eg_err eg_sqlite_checkpoint(struct eg_storage *s) EG_MUST;
/* Whether the last failure has passed: tries a small durable write. Writer thread, outside a
 * transaction. */
enum eg_err eg_sqlite_probe(struct eg_storage *s) EG_MUST;
/* Path and errno text of the last failure, for the log. */
const char *eg_sqlite_why(struct eg_storage *s);

/*
 * Copies the database to the file `to` (must not exist; written as to.XXXXXX.tmp, fsynced,
 * renamed), checks the copy. progress is called with pages done and in total, now and then while
 * the copy is checked, too; when it says false the backup is given up: EG_ECLOSED. NULL: none. Any
 * thread; opens its own connection to DIR.
 */
enum eg_err eg_sqlite_backup(const char *dir, const char *to,
                             bool (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                             char *why, size_t why_size) EG_MUST;
/* Puts the backup file `from` into the empty or absent folder dir, with a new epoch. */
enum eg_err eg_sqlite_restore(const char *from, const char *dir, char *why,
                              size_t why_size) EG_MUST;

/* What a check found. */
struct eg_check_result {
    int64_t sessions, events;
    int64_t faults;
    int64_t missed; /* sessions not checked: trimmed faster than they could be read */
    bool no_such;   /* the session asked for does not exist: EG_ENOTFOUND */
};
/*
 * Verifies, without writing: hash chains, cursors without holes, heads; with deep also SQLite's own
 * integrity check. fault is called with a sentence for each fault; session NULL checks all.
 */
enum eg_err eg_sqlite_verify(const char *dir, const char *session, bool deep,
                             void (*fault)(void *arg, const char *text),
                             void (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                             struct eg_check_result *out, char *why, size_t why_size) EG_MUST;

#endif
