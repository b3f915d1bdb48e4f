/*
 * db.c - what writer, readers, backup and check have in common (see db.h).
 *
 * Threads: a connection belongs to whoever opened it; nothing here is shared but the library's
 * one-time settings. The database file is never opened by plain open(2) here: closing such a
 * descriptor would drop the POSIX locks that SQLite holds on it for the whole process.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/embed.h"
#include "wire/json.h"

int eg_db_newest_version(void)
{
    int n = 0;
    while (eg_sql[n].name != NULL) {
        n++;
    }
    return n;
}

static void init_once(void)
{
    /* Allocation statistics cost a process-wide lock on each malloc. Refused, without harm, when
     * the library is in use already. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    (void)sqlite3_initialize();
}

void eg_db_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, init_once);
}

enum eg_err eg_db_map(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return EG_OK;
    case SQLITE_NOMEM:
        return EG_ENOMEM;
    case SQLITE_FULL:
        return EG_EFULL;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EG_EBUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EG_ECORRUPT;
    case SQLITE_CONSTRAINT:
        return EG_EEXISTS;
    default:
        return EG_EIO;
    }
}

void eg_db_explain(char *why, size_t why_size, const char *path, const char *what, sqlite3 *db,
                   int rc)
{
    if (why == NULL || why_size == 0) {
        return;
    }
    const char *text = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    int sys = db != NULL ? sqlite3_system_errno(db) : 0;
    bool about_system =
        (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_FULL || (rc & 0xff) == SQLITE_CANTOPEN;
    if (sys != 0 && about_system) {
        (void)snprintf(why, why_size, "%s: %s: %s (sqlite %d, %s)", path, what, text, rc,
                       strerror(sys));
    } else {
        (void)snprintf(why, why_size, "%s: %s: %s (sqlite %d)", path, what, text, rc);
    }
}

enum eg_err eg_db_path(char out[PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    return n > 0 && n < PATH_MAX - 16 ? EG_OK : EG_EINVALID; /* room for SQLite's suffixes */
}

enum eg_err eg_db_int(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
            *out = sqlite3_column_int64(st, 0);
        }
    }
    (void)sqlite3_finalize(st);
    return rc == SQLITE_DONE ? EG_ENOTFOUND : eg_db_map(rc);
}

enum eg_err eg_db_check_identity(sqlite3 *db, const char *path, int *version, char *why,
                                 size_t why_size)
{
    int64_t app = 0;
    int64_t user = 0;
    enum eg_err e = eg_db_int(db, "PRAGMA application_id", &app);
    if (e == EG_OK) {
        e = eg_db_int(db, "PRAGMA user_version", &user);
    }
    if (e != EG_OK) {
        eg_db_explain(why, why_size, path, "cannot read", db, sqlite3_extended_errcode(db));
        return e;
    }
    if (app != EG_DB_APPLICATION_ID || user < 1) {
        (void)snprintf(why, why_size, "%s: a database, but not one of ebbgate", path);
        return EG_ECORRUPT;
    }
    if (user > eg_db_newest_version()) {
        (void)snprintf(why, why_size,
                       "%s: has schema %lld, made by a newer ebbgate; this one knows up to %d",
                       path, (long long)user, eg_db_newest_version());
        return EG_ETOONEW;
    }
    *version = (int)user;
    return EG_OK;
}

bool eg_db_out_of_reach(int e)
{
    return e == EACCES || e == EPERM || e == ENOTDIR || e == ELOOP || e == ENAMETOOLONG;
}

enum eg_err eg_db_open_ro(const char *path, bool any_version, sqlite3 **out, char *why,
                          size_t why_size)
{
    eg_db_init();
    sqlite3 *db = NULL;
    int version = 0;
    enum eg_err e = EG_OK;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "cannot open", db, rc);
        const int reach = access(path, R_OK) != 0 ? errno : 0;
        e = reach == ENOENT ? EG_ENOTFOUND : eg_db_out_of_reach(reach) ? EG_EDENIED : eg_db_map(rc);
        goto out;
    }
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_busy_timeout(db, 2000);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    rc = sqlite3_exec(db,
                      "PRAGMA query_only=ON; PRAGMA mmap_size=0; PRAGMA cache_size=-4096;"
                      "PRAGMA temp_store=MEMORY",
                      NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "cannot set up", db, rc);
        e = eg_db_map(rc);
        goto out;
    }
    e = eg_db_check_identity(db, path, &version, why, why_size);
    if (e == EG_OK && !any_version && version < eg_db_newest_version()) {
        (void)snprintf(why, why_size,
                       "%s: has the older schema %d; start the gateway once to move "
                       "it to %d",
                       path, version, eg_db_newest_version());
        e = EG_EINVALID;
    }
out:
    if (e != EG_OK) {
        (void)sqlite3_close(db);
        db = NULL;
    }
    *out = db;
    return e;
}

int eg_db_leave(sqlite3 *db)
{
    return sqlite3_get_autocommit(db) ? SQLITE_OK : sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
}

enum eg_err eg_db_sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return EG_EIO;
    }
    enum eg_err e = fsync(fd) == 0 ? EG_OK : EG_EIO;
    (void)close(fd);
    return e;
}

void eg_db_bind(sqlite3_stmt *st, int at, struct eg_slice s)
{
    (void)sqlite3_bind_text64(st, at, s.n > 0 ? s.p : "", s.n, SQLITE_STATIC, SQLITE_UTF8);
}

void eg_db_text(sqlite3_stmt *st, int col, char *out, size_t size)
{
    const void *p = sqlite3_column_text(st, col);
    size_t n = (size_t)sqlite3_column_bytes(st, col);
    if (p == NULL) {
        n = 0;
    }
    if (n >= size) {
        n = size - 1;
    }
    if (n > 0) {
        memcpy(out, p, n);
    }
    out[n] = '\0';
    if (!eg_utf8_valid((struct eg_slice){out, n}, NULL)) { /* damage: it may not go into JSON */
        for (size_t i = 0; i < n; i++) {
            out[i] = (unsigned char)out[i] < 0x80 ? out[i] : '?';
        }
    }
}

struct eg_slice eg_db_blob(sqlite3_stmt *st, int col)
{
    const char *p = sqlite3_column_blob(st, col);
    return (struct eg_slice){p, p != NULL ? (size_t)sqlite3_column_bytes(st, col) : 0};
}

bool eg_db_is_idkey(struct eg_slice k)
{
    return k.n == EG_IDKEY_KEPT || k.n == EG_IDKEY_BYTES;
}

bool eg_db_no_hash(const uint8_t hash[EG_CHAIN_BYTES])
{
    static const uint8_t none[EG_CHAIN_BYTES];
    return memcmp(hash, none, EG_CHAIN_BYTES) == 0;
}

static void read_hash(sqlite3_stmt *st, int col, uint8_t out[EG_CHAIN_BYTES])
{
    struct eg_slice h = eg_db_blob(st, col);
    memset(out, 0, EG_CHAIN_BYTES);
    if (h.n == EG_CHAIN_BYTES) {
        memcpy(out, h.p, EG_CHAIN_BYTES);
    }
}

void eg_db_session(sqlite3_stmt *st, struct eg_session_row *out)
{
    out->sid = sqlite3_column_int64(st, 0);
    eg_db_text(st, 1, out->id, sizeof(out->id));
    eg_db_text(st, 2, out->agent, sizeof(out->agent));
    eg_db_text(st, 3, out->owner, sizeof(out->owner));
    out->state = (enum eg_session_state)sqlite3_column_int(st, 4);
    out->cursor = (uint64_t)sqlite3_column_int64(st, 5);
    out->oldest = (uint64_t)sqlite3_column_int64(st, 6);
    read_hash(st, 7, out->hash);
    read_hash(st, 8, out->floor_hash);
    out->created_ms = sqlite3_column_int64(st, 9);
    out->updated_ms = sqlite3_column_int64(st, 10);
    out->closed_ms = sqlite3_column_int64(st, 11);
    out->bytes = sqlite3_column_int64(st, 12);
    eg_db_text(st, 13, out->last_worker, sizeof(out->last_worker));
}

void eg_db_turn(sqlite3_stmt *st, struct eg_turn_row *out)
{
    out->sid = sqlite3_column_int64(st, 0);
    out->turn = (uint64_t)sqlite3_column_int64(st, 1);
    const int state = sqlite3_column_int(st, 2);
    const bool known = state >= EG_TURN_QUEUED && state <= EG_TURN_DEAD;
    out->state = known ? (enum eg_turn_state)state : EG_TURN_DEAD; /* damage: an operator's */
    out->attempt = sqlite3_column_int(st, 3);
    out->created_ms = sqlite3_column_int64(st, 4);
    out->until_ms = sqlite3_column_int64(st, 5);
    eg_db_text(st, 6, out->worker, sizeof(out->worker));
    eg_db_text(st, 7, out->error, sizeof(out->error));
}
