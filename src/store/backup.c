/*
 * backup.c - copies a database while it is written to, and puts a copy in place of a lost one.
 *
 * Threads: any; own connections. The source is copied with SQLite's backup interface inside one
 * read transaction held from the first page to the last: so the copy is one moment's state, and
 * commits of the gateway neither disturb it nor make it start over. The price is that the gateway's
 * write-ahead log cannot be started over meanwhile and grows by what is written in that time.
 *
 * The copy is one self-contained file: no write-ahead log belongs to it. It is built under a name
 * of its own, TO.XXXXXX.tmp, 0600, flushed, checked (SQLite's quick check, then every hash chain),
 * and only then renamed. What fails leaves no file behind. A restore builds ebbgate.db.restore:
 * where that was left by a restore that was killed, no new database is made (sqlite_open.c), and
 * the restore may be repeated.
 *
 * A restored database is given a new epoch: clients that saw events which the backup lacks are told
 * to start over instead of being given other events under cursors they know. Keys are not in the
 * database and not in the backup.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/sqlite_int.h"

#define STEP_PAGES 2000
#define CHECK_OPS 10000 /* of SQLite's machine, between two looks whether to go on */

/* Who is told how far a copy is (progress NULL: nobody), and whether it was given up. */
struct course {
    bool (*progress)(void *arg, int64_t done, int64_t total);
    void *arg;
    int64_t total;
    bool given_up;
};

static bool goes_on(struct course *c, int64_t done)
{
    if (c->progress != NULL && !c->progress(c->arg, done, c->total)) {
        c->given_up = true;
    }
    return !c->given_up;
}

static int stops_check(void *arg)
{
    struct course *const c = arg;
    return !goes_on(c, c->total);
}

static enum eg_err sys_error(const char *path, const char *what, char *why, size_t why_size)
{
    int n = errno;
    (void)snprintf(why, why_size, "%s: %s: %s", path, what, strerror(n));
    return n == ENOSPC || n == EDQUOT ? EG_EFULL : n == EEXIST ? EG_EEXISTS : EG_EIO;
}

/* All pages of src into the connection dst, as of one moment. */
static enum eg_err copy_pages(sqlite3 *src, const char *from, sqlite3 *dst, const char *to,
                              struct course *course, char *why, size_t why_size)
{
    int64_t n = 0;
    int rc = sqlite3_exec(src, "BEGIN", NULL, NULL, NULL);
    enum eg_err e = rc == SQLITE_OK ? eg_db_int(src, "SELECT count(*) FROM sqlite_schema", &n)
                                    : eg_db_map(rc); /* the read begins here */
    if (e != EG_OK) {
        eg_db_explain(why, why_size, from, "cannot read", src, sqlite3_extended_errcode(src));
        return e;
    }
    sqlite3_backup *b = sqlite3_backup_init(dst, "main", src, "main");
    rc = b == NULL ? sqlite3_extended_errcode(dst) : SQLITE_OK;
    while (rc == SQLITE_OK) {
        rc = sqlite3_backup_step(b, STEP_PAGES);
        if (rc == SQLITE_OK || rc == SQLITE_DONE) {
            course->total = sqlite3_backup_pagecount(b);
            rc = goes_on(course, course->total - sqlite3_backup_remaining(b)) ? rc
                                                                              : SQLITE_INTERRUPT;
        }
    }
    if (b != NULL) {
        int end = sqlite3_backup_finish(b);
        rc = rc == SQLITE_DONE ? end : rc;
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, to, "cannot copy", dst, rc);
        e = eg_db_map(rc);
    }
    (void)sqlite3_exec(src, "COMMIT", NULL, NULL, NULL);
    return e;
}

/* Into the empty file at path what src holds; with a new epoch where asked. */
static enum eg_err copy_to(sqlite3 *src, const char *from, const char *path, bool new_epoch,
                           struct course *course, char *why, size_t why_size)
{
    sqlite3 *dst = NULL;
    enum eg_err e = EG_OK;
    int rc = sqlite3_open_v2(path, &dst, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_extended_result_codes(dst, 1);
        rc = sqlite3_exec(dst, "PRAGMA synchronous=FULL", NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "cannot open", dst, rc);
        e = eg_db_map(rc);
        goto out;
    }
    e = copy_pages(src, from, dst, path, course, why, why_size);
    if (e != EG_OK) {
        goto out;
    }
    rc = sqlite3_exec(dst, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, path, "cannot finish", dst, rc);
        e = eg_db_map(rc);
    } else if (new_epoch) {
        e = eg_sqlite_set_epoch(dst, path, why, why_size);
    }
out:
    (void)sqlite3_close(dst);
    return e;
}

struct first_fault {
    char text[256];
};

static void keep_first(void *arg, const char *text)
{
    struct first_fault *f = arg;
    if (f->text[0] == '\0') {
        (void)snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

/* SQLite's quick check says "ok" in one row, or what is wrong. */
static enum eg_err quick_check(sqlite3 *db, const char *path, char *why, size_t why_size)
{
    sqlite3_stmt *st = NULL;
    enum eg_err e = EG_OK;
    int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    if (rc != SQLITE_ROW) {
        eg_db_explain(why, why_size, path, "check", db, rc);
        e = rc == SQLITE_DONE ? EG_ECORRUPT : eg_db_map(rc);
    } else if (strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0) {
        (void)snprintf(why, why_size, "%s: %s", path, (const char *)sqlite3_column_text(st, 0));
        e = EG_ECORRUPT;
    }
    (void)sqlite3_finalize(st);
    return e;
}

/* Reads all of the finished file. An older schema is checked by SQLite alone. */
static enum eg_err check_copy(const char *path, struct course *course, char *why, size_t why_size)
{
    sqlite3 *db = NULL;
    int version = 0;
    struct first_fault first = {""};
    struct eg_check_result r;
    const struct eg_verify how = {NULL, false, keep_first, NULL, &first};
    enum eg_err e = eg_db_open_ro(path, true, &db, why, why_size);
    if (e == EG_OK) {
        sqlite3_progress_handler(db, CHECK_OPS, stops_check, course);
        e = quick_check(db, path, why, why_size);
    }
    if (e == EG_OK) {
        e = eg_db_check_identity(db, path, &version, why, why_size);
    }
    if (e == EG_OK && version == eg_db_newest_version()) {
        e = eg_db_verify(db, path, &how, &r, why, why_size);
        if (e == EG_OK && r.faults > 0) {
            (void)snprintf(why, why_size, "the copy has %lld faults, the first: %s",
                           (long long)r.faults, first.text);
            e = EG_ECORRUPT;
        }
    }
    (void)sqlite3_close(db);
    return e;
}

static enum eg_err flush_file(const char *path, char *why, size_t why_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        enum eg_err e = sys_error(path, "cannot flush", why, why_size);
        if (fd >= 0) {
            (void)close(fd);
        }
        return e;
    }
    (void)close(fd);
    return EG_OK;
}

enum eg_err eg_sqlite_backup(const char *dir, const char *to,
                             bool (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                             char *why, size_t why_size)
{
    struct course course = {.progress = progress, .arg = arg};
    char path[PATH_MAX];
    char tmp[PATH_MAX];
    char folder[PATH_MAX];
    struct stat st;
    sqlite3 *src = NULL;
    int n = snprintf(tmp, sizeof(tmp), "%s.XXXXXX.tmp", to);
    enum eg_err e = eg_db_path(path, dir, EG_DB_NAME);
    if (e != EG_OK || to[0] == '\0' || n >= PATH_MAX - 16) {
        (void)snprintf(why, why_size, "a name is empty or too long");
        return EG_EINVALID;
    }
    if (lstat(to, &st) == 0) {
        (void)snprintf(why, why_size, "%s: exists already", to);
        return EG_EEXISTS;
    }
    e = eg_db_open_ro(path, true, &src, why, why_size);
    if (e != EG_OK) {
        return e;
    }
    int fd = mkostemps(tmp, 4, O_CLOEXEC);
    if (fd < 0) {
        e = sys_error(to, "cannot make the file", why, why_size);
        (void)sqlite3_close(src);
        return e;
    }
    (void)close(fd);
    e = copy_to(src, path, tmp, false, &course, why, why_size);
    (void)sqlite3_close(src);
    if (e == EG_OK) {
        e = flush_file(tmp, why, why_size);
    }
    if (e == EG_OK) {
        e = check_copy(tmp, &course, why, why_size);
    }
    if (course.given_up) {
        (void)snprintf(why, why_size, "given up before its end");
        e = EG_ECLOSED;
    }
    if (e == EG_OK) {
        (void)snprintf(folder, sizeof(folder), "%s", to);
        e = eg_sqlite_place(dirname(folder), tmp, to, why, why_size);
    }
    if (e != EG_OK) {
        eg_sqlite_unlink(tmp);
    }
    return e;
}

/* The lock, keys, and what begun work left. */
static bool may_be_there(const char *name)
{
    static const char *const kept[] = {".", "..", EG_DB_LOCK, "keys"};
    static const char *const begun[] = {EG_DB_NAME EG_DB_NEW, EG_DB_NAME EG_DB_RESTORING};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (strcmp(name, kept[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(begun) / sizeof(begun[0]); i++) {
        if (strncmp(name, begun[i], strlen(begun[i])) == 0) { /* or what SQLite put beside it */
            return true;
        }
    }
    return false;
}

/* Nothing else may be in the folder into which is restored. */
static enum eg_err must_be_empty(const char *dir, char *why, size_t why_size)
{
    enum eg_err e = EG_OK;
    DIR *d = opendir(dir);
    if (d == NULL) {
        return sys_error(dir, "cannot read the folder", why, why_size);
    }
    struct dirent *entry;
    while (e == EG_OK && (entry = readdir(d)) != NULL) {
        const char *name = entry->d_name;
        if (!may_be_there(name)) {
            (void)snprintf(why, why_size, "%s: not empty: %s is there; restore into a new folder",
                           dir, name);
            e = EG_EEXISTS;
        }
    }
    (void)closedir(d);
    return e;
}

/* The file that a restore fills, known to whoever opens the folder from here on. */
static enum eg_err begin_restore(const char *dir, const char *tmp, char *why, size_t why_size)
{
    eg_sqlite_unlink(tmp);
    int fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return sys_error(tmp, "cannot make the file", why, why_size);
    }
    (void)close(fd);
    return eg_db_sync_dir(dir) == EG_OK ? EG_OK
                                        : sys_error(dir, "cannot flush the folder", why, why_size);
}

enum eg_err eg_sqlite_restore(const char *from, const char *dir, char *why, size_t why_size)
{
    struct course nobody = {.progress = NULL};
    char path[PATH_MAX];
    char tmp[PATH_MAX];
    sqlite3 *src = NULL;
    int lock = -1;
    enum eg_err e = eg_db_open_ro(from, true, &src, why, why_size);
    if (e == EG_OK) {
        e = quick_check(src, from, why, why_size);
    }
    if (e == EG_OK) {
        e = eg_sqlite_make_dir(dir, why, why_size);
    }
    if (e == EG_OK && (eg_db_path(path, dir, EG_DB_NAME) != EG_OK ||
                       eg_db_path(tmp, dir, EG_DB_NAME EG_DB_RESTORING) != EG_OK)) {
        (void)snprintf(why, why_size, "%s: the name is too long", dir);
        e = EG_EINVALID;
    }
    if (e == EG_OK) {
        e = eg_sqlite_lock(dir, &lock, why, why_size);
    }
    if (e == EG_OK) {
        e = must_be_empty(dir, why, why_size);
    }
    if (e == EG_OK) {
        e = begin_restore(dir, tmp, why, why_size);
        if (e == EG_OK) {
            e = copy_to(src, from, tmp, true, &nobody, why, why_size);
        }
        if (e == EG_OK) {
            e = flush_file(tmp, why, why_size);
        }
        if (e == EG_OK) {
            e = check_copy(tmp, &nobody, why, why_size);
        }
        if (e == EG_OK) {
            e = eg_sqlite_place(dir, tmp, path, why, why_size);
        }
        if (e != EG_OK) {
            eg_sqlite_unlink(tmp);
        }
    }
    (void)sqlite3_close(src);
    if (lock >= 0) {
        (void)close(lock);
    }
    return e;
}
