/*
 * sqlite_open.c - the first steps of opening a data folder: folder, lock, a look at the file,
 * making a new database, migrations.
 *
 * Threads: the opening one only. Happy path: folder there, lock free, file ours and current. A new
 * database is built as ebbgate.db.new and renamed, so ebbgate.db is complete or not there; an empty
 * or foreign file under that name is therefore damage and is refused, never made anew. So is a
 * folder in which a restore was interrupted. Files are 0600, the folder 0700.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/embed.h"
#include "store/sqlite_int.h"

static enum eg_err sys_failed(const char *path, const char *what, char *why, size_t why_size)
{
    int e = errno;
    (void)snprintf(why, why_size, "%s: %s: %s", path, what, strerror(e));
    return e == ENOSPC || e == EDQUOT ? EG_EFULL : eg_db_out_of_reach(e) ? EG_EDENIED : EG_EIO;
}

enum eg_err eg_sqlite_make_dir(const char *dir, char *why, size_t why_size)
{
    char path[PATH_MAX];
    if (dir[0] == '\0' || strlen(dir) >= sizeof(path)) {
        (void)snprintf(why, why_size, "the data folder's name is empty or too long");
        return EG_EINVALID;
    }
    (void)snprintf(path, sizeof(path), "%s", dir);
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        char was = *p;
        *p = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            return sys_failed(path, "cannot make the folder", why, why_size);
        }
        *p = was;
        if (was == '\0') {
            break;
        }
    }
    struct stat st;
    if (stat(dir, &st) != 0) {
        return sys_failed(dir, "cannot use the folder", why, why_size);
    }
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return sys_failed(dir, "cannot use the folder", why, why_size);
    }
    return access(dir, W_OK | X_OK) == 0
               ? EG_OK
               : sys_failed(dir, "cannot write into the folder", why, why_size);
}

enum eg_err eg_sqlite_lock(const char *dir, int *fd, char *why, size_t why_size)
{
    char path[PATH_MAX];
    char text[32] = "";
    *fd = -1;
    if (eg_db_path(path, dir, EG_DB_LOCK) != EG_OK) {
        (void)snprintf(why, why_size, "%s: the name is too long", dir);
        return EG_EINVALID;
    }
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f < 0) {
        return sys_failed(path, "cannot open", why, why_size);
    }
    if (flock(f, LOCK_EX | LOCK_NB) != 0) {
        enum eg_err e = EG_EBUSY;
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(f, text, sizeof(text) - 1, 0);
            text[n > 0 ? n : 0] = '\0';
            text[strcspn(text, "\n")] = '\0';
            (void)snprintf(why, why_size, "%s: in use by another ebbgate%s%s", dir,
                           text[0] != '\0' ? ", process " : "", text);
        } else {
            e = sys_failed(path, "cannot lock", why, why_size);
        }
        (void)close(f);
        return e;
    }
    /* Who holds it is a courtesy to the reader of the message above; failing to say is no harm. */
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(f, 0) == 0 && pwrite(f, text, (size_t)n, 0) != n) {
        (void)!ftruncate(f, 0);
    }
    *fd = f;
    return EG_OK;
}

bool eg_sqlite_lock_lost(const char *path, int fd)
{
    struct stat held;
    struct stat there;
    if (lstat(path, &there) != 0) {
        return errno == ENOENT || errno == ENOTDIR;
    }
    return fstat(fd, &held) == 0 && (held.st_dev != there.st_dev || held.st_ino != there.st_ino);
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Whether a file beside path, with bytes in it, tells of a database that used to be there. */
static bool leftover(const char *path, const char *suffix)
{
    char name[PATH_MAX];
    struct stat st;
    int n = snprintf(name, sizeof(name), "%s%s", path, suffix);
    return n > 0 && (size_t)n < sizeof(name) && stat(name, &st) == 0 && st.st_size > 0;
}

/* SQLite opens what it may not write for reading only, and leaves a journal's index that nobody may
 * write: the gateway would start and store nothing. EG_OK for files that are not there. */
static enum eg_err must_be_writable(const char *path, char *why, size_t why_size)
{
    static const char *const suffix[] = {"", "-wal", "-shm"};
    char name[PATH_MAX + 16];
    for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
        (void)snprintf(name, sizeof(name), "%s%s", path, suffix[i]);
        if (access(name, R_OK | W_OK) != 0 && errno != ENOENT) {
            return sys_failed(name, "cannot be written", why, why_size);
        }
    }
    return EG_OK;
}

/* Whether a restore into the folder of path was interrupted; then why says so. */
static bool unfinished_restore(const char *path, char *why, size_t why_size)
{
    char name[PATH_MAX];
    struct stat st;
    int n = snprintf(name, sizeof(name), "%s" EG_DB_RESTORING, path);
    if (n <= 0 || (size_t)n >= sizeof(name) || lstat(name, &st) != 0) {
        return false;
    }
    (void)snprintf(why, why_size,
                   "%s: missing: a restore into this folder was interrupted; repeat `ebbgate "
                   "restore`, or remove %s to start anew",
                   path, name);
    return true;
}

/* Whether a file of this size is shorter than its header says. With a log beside it that is for
 * SQLite to say: the missing pages may be there. */
static bool cut_short(const unsigned char *head, int64_t size)
{
    uint32_t page = (uint32_t)head[16] << 8 | head[17];
    bool count_valid = be32(head + 24) == be32(head + 92); /* file format 1.3.7 */
    page = page == 1 ? 65536 : page;
    return count_valid && size < (int64_t)page * be32(head + 28);
}

enum eg_err eg_sqlite_inspect(const char *path, bool *missing, char *why, size_t why_size)
{
    unsigned char head[100];
    struct stat st;
    *missing = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        *missing = true;
        if (unfinished_restore(path, why, why_size)) {
            return EG_ECORRUPT;
        }
        if (leftover(path, "-wal") || leftover(path, "-journal")) {
            (void)snprintf(why, why_size,
                           "%s: missing, but its journal is still there; restore a backup into an "
                           "empty folder, or move the journal away to start anew",
                           path);
            return EG_ECORRUPT;
        }
        return EG_OK;
    }
    if (fd < 0) {
        return sys_failed(path, "cannot open", why, why_size);
    }
    enum eg_err e = EG_OK;
    ssize_t n = -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        n = pread(fd, head, sizeof(head), 0);
    }
    (void)close(fd);
    if (n < 0) {
        (void)snprintf(why, why_size, "%s: not a readable file", path);
        e = EG_ECORRUPT;
    } else if ((size_t)n < sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0) {
        (void)snprintf(why, why_size, "%s: %s; nothing was changed", path,
                       n == 0 ? "the file is empty" : "not a database");
        e = EG_ECORRUPT;
    } else if (be32(head + 68) != EG_DB_APPLICATION_ID) {
        (void)snprintf(why, why_size, "%s: a database, but not one of ebbgate; nothing was changed",
                       path);
        e = EG_ECORRUPT;
    } else if (be32(head + 60) > (uint32_t)eg_db_newest_version()) {
        (void)snprintf(why, why_size,
                       "%s: has schema %u, made by a newer ebbgate; this one knows up to %d; "
                       "nothing was changed",
                       path, (unsigned)be32(head + 60), eg_db_newest_version());
        e = EG_ETOONEW;
    } else if (!leftover(path, "-wal") && !leftover(path, "-journal") &&
               cut_short(head, (int64_t)st.st_size)) {
        (void)snprintf(why, why_size,
                       "%s: cut short at %lld bytes; nothing was changed; restore a backup", path,
                       (long long)st.st_size);
        e = EG_ECORRUPT;
    }
    return e == EG_OK ? must_be_writable(path, why, why_size) : e;
}

enum eg_err eg_sqlite_migrate(sqlite3 *db, const char *path, int from, char *why, size_t why_size)
{
    char sql[64];
    for (int i = from; i < eg_db_newest_version(); i++) {
        (void)snprintf(sql, sizeof(sql), "PRAGMA user_version=%d; COMMIT", i + 1);
        int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc == SQLITE_OK) {
            rc = sqlite3_exec(db, (const char *)eg_sql[i].data, NULL, NULL, NULL);
        }
        if (rc == SQLITE_OK) {
            rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
        }
        if (rc != SQLITE_OK) {
            eg_db_explain(why, why_size, path, eg_sql[i].name, db, rc);
            if (!sqlite3_get_autocommit(db)) {
                (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
            }
            return eg_db_map(rc);
        }
    }
    return EG_OK;
}

enum eg_err eg_sqlite_set_epoch(sqlite3 *db, const char *path, char *why, size_t why_size)
{
    char epoch[37];
    sqlite3_stmt *st = NULL;
    eg_uuid7(eg_clock_now().wall_ms, epoch);
    int rc = sqlite3_prepare_v2(db, "INSERT OR REPLACE INTO meta(key,value) VALUES('epoch',?1)", -1,
                                &st, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_text(st, 1, epoch, -1, SQLITE_STATIC);
        rc = sqlite3_step(st);
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "cannot set the epoch", db, rc);
    }
    (void)sqlite3_finalize(st);
    return eg_db_map(rc);
}

void eg_sqlite_unlink(const char *path)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    char name[PATH_MAX + 16];
    for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
        (void)snprintf(name, sizeof(name), "%s%s", path, suffix[i]);
        (void)unlink(name);
    }
}

/* Not every file system can do it at once (NFS cannot). Where it has links, one is made: it too
 * fails when the name is taken. */
static bool move_unless_taken(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return true;
    }
    if ((errno != EINVAL && errno != ENOSYS) || link(from, to) != 0) {
        return false;
    }
    (void)unlink(from);
    return true;
}

enum eg_err eg_sqlite_place(const char *dir, const char *tmp, const char *path, char *why,
                            size_t why_size)
{
    if (!move_unless_taken(tmp, path)) {
        enum eg_err e = errno == EEXIST ? EG_EEXISTS : EG_EIO;
        (void)snprintf(why, why_size, "%s: cannot move the new file into place: %s", path,
                       strerror(errno));
        return e;
    }
    if (eg_db_sync_dir(dir) != EG_OK) {
        return sys_failed(dir, "cannot flush the folder", why, why_size);
    }
    return EG_OK;
}

enum eg_err eg_sqlite_create(const char *dir, const char *path, char *why, size_t why_size)
{
    char tmp[PATH_MAX];
    char pragmas[160];
    sqlite3 *db = NULL;
    enum eg_err e = eg_db_path(tmp, dir, EG_DB_NAME EG_DB_NEW);
    if (e != EG_OK) {
        return e;
    }
    eg_sqlite_unlink(tmp);
    int fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return sys_failed(tmp, "cannot make the database", why, why_size);
    }
    (void)close(fd);
    int rc = sqlite3_open_v2(tmp, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    (void)snprintf(pragmas, sizeof(pragmas),
                   "PRAGMA page_size=8192; PRAGMA synchronous=FULL; PRAGMA application_id=%d",
                   EG_DB_APPLICATION_ID);
    if (rc == SQLITE_OK) {
        (void)sqlite3_extended_result_codes(db, 1);
        rc = sqlite3_exec(db, pragmas, NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, tmp, "cannot make the database", db, rc);
        e = eg_db_map(rc);
        goto out;
    }
    e = eg_sqlite_migrate(db, tmp, 0, why, why_size);
    if (e == EG_OK) {
        e = eg_sqlite_set_epoch(db, tmp, why, why_size);
    }
    if (e != EG_OK) {
        goto out;
    }
    rc = sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_close(db);
        db = rc == SQLITE_OK ? NULL : db;
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, tmp, "cannot make the database", db, rc);
        e = eg_db_map(rc);
        goto out;
    }
    e = eg_sqlite_place(dir, tmp, path, why, why_size);
out:
    (void)sqlite3_close(db);
    if (e != EG_OK) {
        eg_sqlite_unlink(tmp);
    }
    return e;
}
