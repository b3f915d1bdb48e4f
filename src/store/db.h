/*
 * db.h - private to src/store: what writer, readers, backup and check have in common.
 *
 * A thin layer over one sqlite3 connection, used by one thread at a time: opening it read-only,
 * telling our database from any other, translating result codes, reading rows into structs.
 */
#ifndef EG_STORE_DB_H
#define EG_STORE_DB_H

#include <limits.h>
#include <sqlite3.h>

#include "store/sqlite.h"

#define EG_DB_APPLICATION_ID 0x45624761 /* "EbGa", PRAGMA application_id */
#define EG_DB_NAME "ebbgate.db"
#define EG_DB_NEW ".new"           /* after EG_DB_NAME: a new one that is not whole */
#define EG_DB_RESTORING ".restore" /* after EG_DB_NAME: what a restore has not finished */
#define EG_DB_LOCK "lock"          /* locked by the gateway that works in the folder */
#define EG_DB_WHY 512

/* The schema this program knows: how many files sql/ holds. */
int eg_db_newest_version(void);

/* Once a process, before its first connection: settings of the SQLite library. */
void eg_db_init(void);

/* Result code (plain or extended) as an error of ours. Not for COMMIT: see sqlite_write.c. */
enum eg_err eg_db_map(int rc);
/* Whether errno e says that a path leads nowhere we may go: only a person can mend that. */
bool eg_db_out_of_reach(int e);

/* Writes "path: what: SQLite's text (errno text)" to why. db may be NULL. */
void eg_db_explain(char *why, size_t why_size, const char *path, const char *what, sqlite3 *db,
                   int rc);

/* dir/name into out. EG_EINVALID when it does not fit. */
enum eg_err eg_db_path(char out[PATH_MAX], const char *dir, const char *name) EG_MUST;

/*
 * Opens the database file at path for reading only and checks that it is ours and of a schema we
 * know (an older one is EG_EINVALID: it has to be migrated first, unless any_version). Nothing in
 * the file is changed, and closing it never checkpoints.
 */
enum eg_err eg_db_open_ro(const char *path, bool any_version, sqlite3 **out, char *why,
                          size_t why_size) EG_MUST;

/* The integer that a one-row query gives. */
enum eg_err eg_db_int(sqlite3 *db, const char *sql, int64_t *out) EG_MUST;

/* EG_OK when the connection shows our application id and a schema not newer than ours. */
enum eg_err eg_db_check_identity(sqlite3 *db, const char *path, int *version, char *why,
                                 size_t why_size) EG_MUST;

/* fsync of a directory, so that names made in it last. */
enum eg_err eg_db_sync_dir(const char *dir) EG_MUST;

/* Binds text; an empty slice is "" and not NULL. The memory is borrowed until the next bind. */
void eg_db_bind(sqlite3_stmt *st, int at, struct eg_slice s);
/* Copies column text of at most EG_ID_MAX bytes; what is longer is cut, and where it is not UTF-8
 * its bytes beyond ASCII become question marks. */
void eg_db_text(sqlite3_stmt *st, int col, char *out, size_t size);
struct eg_slice eg_db_blob(sqlite3_stmt *st, int col);

/*
 * What is stored of an event's chained hash: all of it at every EG_HASH_EVERY-th cursor, of the
 * others its first bytes, which say where a chain breaks. The session's row holds all of the last
 * one, so each event is bound by a whole hash that comes after it. Databases written by schema 1
 * hold whole hashes only.
 */
#define EG_HASH_EVERY 16
#define EG_HASH_SHORT 4

/* What is stored of an idkey: enough that no two ids of a session are taken for one by chance.
 * Databases written by schemas before 5 hold all of it. */
#define EG_IDKEY_KEPT 12
/* Whether k, as stored, is of that form. */
bool eg_db_is_idkey(struct eg_slice k);

/* Ends the read transaction that is still open because there was no memory to end it. Before a
 * read, which would see what was true then, or could not begin. An SQLite result code. */
int eg_db_leave(sqlite3 *db);
/* All zeros: there is none. */
bool eg_db_no_hash(const uint8_t hash[EG_CHAIN_BYTES]);

/* Columns in the order of eg_db_session, and the reading of them from column `at` on. */
#define EG_DB_SESSION_COLUMNS                                                                      \
    "s.sid, s.id, s.agent, s.owner, s.state, s.cursor, s.oldest, s.hash, s.floor_hash, "           \
    "s.created_ms, s.updated_ms, s.closed_ms, s.bytes, s.last_worker"
#define EG_DB_SESSION_COUNT 14
void eg_db_session(sqlite3_stmt *st, struct eg_session_row *out);

#define EG_DB_TURN_COLUMNS                                                                         \
    "t.sid, t.turn, t.state, t.attempt, t.created_ms, t.until_ms, t.worker, t.error"
#define EG_DB_TURN_COUNT 8
void eg_db_turn(sqlite3_stmt *st, struct eg_turn_row *out);

/*
 * verify.c: checks the database behind a read-only connection of current schema; see
 * eg_sqlite_verify. Faults are counted in out->faults and told; EG_OK says that the check was done,
 * not that it found nothing.
 */
struct eg_verify {
    const char *session; /* NULL: all */
    bool deep;           /* SQLite's integrity check too */
    void (*fault)(void *arg, const char *text);
    void (*progress)(void *arg, int64_t done, int64_t total);
    void *arg;
};
enum eg_err eg_db_verify(sqlite3 *db, const char *path, const struct eg_verify *how,
                         struct eg_check_result *out, char *why, size_t why_size) EG_MUST;
/*
 * verify_index.c, part of it: every event belongs to a session and is found by cursor and id, and
 * the index names nothing else; adds to out. Not deep: events of no session only.
 */
enum eg_err eg_db_verify_index(sqlite3 *db, const char *path, const struct eg_verify *how,
                               struct eg_check_result *out, char *why, size_t why_size) EG_MUST;

#endif
