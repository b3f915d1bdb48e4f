/*
 * test_store_sqlite.c - what only the SQLite store has: the folder, its lock, files that are not
 * ours, crashes, and every way a commit can fail.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/faultvfs.h"
#include "../lib/storefix.h"
#include "store/reader.h"
#include "store/sqlite_int.h"

static int files_in(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    cr_assert_neq(d, NULL);
    while (readdir(d) != NULL) {
        n++;
    }
    (void)closedir(d);
    return n - 2;
}

static bool has_session(struct eg_storage *s, const char *id)
{
    struct eg_session_row row;
    enum eg_err e = s->ops->session_by_id(s, eg_slice_cstr(id), &row);
    cr_assert(e == EG_OK || e == EG_ENOTFOUND, "%s: %d", id, (int)e);
    return e == EG_OK;
}

/* ---- folder and lock ---- */

Test(sqlite_open, the_folder_is_made_and_only_ours)
{
    char dir[64];
    struct stat st;
    scratch_make(dir);
    char *data = strdup(scratch_path(dir, "a/b/data"));
    struct eg_storage *s = store_must_open(data);
    (void)store_filled(s, "x", 1, "x");
    cr_assert_eq(stat(data, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700);
    static const char *const names[] = {"ebbgate.db", "ebbgate.db-wal", "ebbgate.db-shm", "lock"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(stat(scratch_path(data, names[i]), &st), 0, "%s", names[i]);
        cr_assert_eq(st.st_mode & 0777, 0600, "%s", names[i]);
    }
    store_close(s);
    cr_assert_eq(files_in(data), 2, "a clean end leaves the database and the lock");
    free(data);
    scratch_drop(dir);
}

Test(sqlite_open, one_process_at_a_time)
{
    char dir[64];
    char why[512] = "";
    char pid[32];
    struct eg_storage *second = NULL;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "x", 1, "x");
    cr_assert_eq(eg_sqlite_open(dir, &second, why, sizeof(why)), EG_EBUSY);
    cr_assert_eq(second, NULL);
    (void)snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    cr_assert_neq(strstr(why, pid), NULL, "%s", why);
    (void)store_filled(s, "y", 1, "the first one is not disturbed");
    store_close(s);
    s = store_must_open(dir);
    cr_assert(has_session(s, "y"));
    store_close(s);
    scratch_drop(dir);
}

Test(sqlite_open, a_folder_that_cannot_be_is_refused)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    scratch_make(dir);
    scratch_write(scratch_path(dir, "file"), "x", 1);
    cr_assert_eq(eg_sqlite_open(scratch_path(dir, "file"), &s, why, sizeof(why)), EG_EDENIED);
    cr_assert_neq(strstr(why, "file"), NULL, "%s", why);
    cr_assert_eq(eg_sqlite_open(scratch_path(dir, "file/sub"), &s, why, sizeof(why)), EG_EDENIED);
    cr_assert_eq(eg_sqlite_open("", &s, why, sizeof(why)), EG_EINVALID);
    scratch_drop(dir);
}

/* ---- files that are not ours ---- */

/* Opening dir is refused with e and a reason that holds text; the database file stays as it is. */
static void refused(const char *dir, enum eg_err e, const char *text)
{
    char why[512] = "";
    struct eg_storage *s = NULL;
    size_t before_n = 0;
    size_t after_n = 0;
    const char *path = scratch_path(dir, "ebbgate.db");
    char *before = scratch_read(path, &before_n);
    enum eg_err got = eg_sqlite_open(dir, &s, why, sizeof(why));
    cr_assert_eq(got, e, "%s: %s", eg_err_text(got), why);
    cr_assert_eq(s, NULL);
    cr_assert_neq(strstr(why, text), NULL, "%s", why);
    cr_assert_neq(strstr(why, "ebbgate.db"), NULL, "%s", why);
    char *after = scratch_read(path, &after_n);
    cr_assert_eq(before_n, after_n);
    cr_assert_eq(memcmp(before, after, before_n), 0, "it was changed");
    cr_assert_eq(files_in(dir), 2, "the file and the lock");
    free(before);
    free(after);
}

Test(sqlite_open, a_newer_schema_is_left_alone)
{
    char dir[64];
    char why[512] = "";
    struct eg_reader *r = NULL;
    scratch_make(dir);
    store_close(store_must_open(dir));
    (void)store_sql(dir, "PRAGMA journal_mode=DELETE");
    (void)store_sql(dir, "PRAGMA user_version=4711");
    (void)store_sql(dir, "PRAGMA journal_mode=WAL");
    refused(dir, EG_ETOONEW, "4711");
    cr_assert_eq(eg_reader_open(dir, &r, why, sizeof(why)), EG_ETOONEW);
    scratch_drop(dir);
}

Test(sqlite_open, what_is_no_database_is_left_alone)
{
    char dir[64];
    char junk[20000];
    scratch_make(dir);
    for (size_t i = 0; i < sizeof(junk); i++) {
        junk[i] = (char)(i * 7 + i / 256);
    }
    scratch_write(scratch_path(dir, "ebbgate.db"), junk, sizeof(junk));
    refused(dir, EG_ECORRUPT, "not a database");
    scratch_write(scratch_path(dir, "ebbgate.db"), "short", 5);
    refused(dir, EG_ECORRUPT, "not a database");
    scratch_write(scratch_path(dir, "ebbgate.db"), "", 0);
    refused(dir, EG_ECORRUPT, "empty");
    scratch_drop(dir);
}

Test(sqlite_open, another_programs_database_is_left_alone)
{
    char dir[64];
    sqlite3 *db = NULL;
    scratch_make(dir);
    cr_assert_eq(sqlite3_open(scratch_path(dir, "ebbgate.db"), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
    refused(dir, EG_ECORRUPT, "not one of ebbgate");
    scratch_drop(dir);
}

Test(sqlite_open, a_folder_in_its_place_is_refused)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    scratch_make(dir);
    cr_assert_eq(mkdir(scratch_path(dir, "ebbgate.db"), 0700), 0);
    cr_assert_eq(eg_sqlite_open(dir, &s, why, sizeof(why)), EG_ECORRUPT);
    scratch_drop(dir);
}

Test(sqlite_open, a_journal_without_its_database_is_no_fresh_start)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    struct stat st;
    scratch_make(dir);
    scratch_write(scratch_path(dir, "ebbgate.db-wal"), "events nobody else has", 22);
    cr_assert_eq(eg_sqlite_open(dir, &s, why, sizeof(why)), EG_ECORRUPT);
    cr_assert_neq(strstr(why, "missing"), NULL, "%s", why);
    cr_assert_eq(stat(scratch_path(dir, "ebbgate.db-wal"), &st), 0);
    cr_assert_eq(st.st_size, 22);
    cr_assert_neq(stat(scratch_path(dir, "ebbgate.db"), &st), 0);
    scratch_drop(dir);
}

Test(sqlite_open, the_remains_of_an_unfinished_start_are_replaced)
{
    char dir[64];
    scratch_make(dir);
    scratch_write(scratch_path(dir, "ebbgate.db.new"), "half a database", 15);
    scratch_write(scratch_path(dir, "ebbgate.db.new-journal"), "half", 4);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "x", 1, "x");
    store_close(s);
    cr_assert_eq(files_in(dir), 2);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

/* Another gateway may be at work in the folder then, and this one would write below its feet. */
Test(sqlite_open, without_its_lock_nothing_is_written)
{
    char dir[64];
    scratch_make(dir);
    char *data = strdup(scratch_path(dir, "data"));
    char *lock = strdup(scratch_path(data, "lock"));
    char *moved = strdup(scratch_path(dir, "moved"));
    for (int i = 0; i < 3; i++) {
        struct eg_storage *s = store_must_open(data);
        struct eg_storage *other = NULL;
        store_begin(s);
        store_commit(s);
        cr_assert_eq(i == 2 ? rename(data, moved) : unlink(lock), 0);
        if (i == 1) {
            other = store_must_open(data);
        }
        cr_assert_eq(s->ops->begin(s), EG_EUNKNOWN);
        cr_assert_neq(strstr(s->ops->why(s), "the lock was removed"), NULL, "%s", s->ops->why(s));
        cr_assert_eq(s->ops->probe(s), EG_EUNKNOWN, "the process has to end");
        store_close(s);
        if (other != NULL) {
            (void)store_filled(other, "x", 3, "x");
            store_close(other);
        }
    }
    store_must_be_whole(moved);
    free(data);
    free(lock);
    free(moved);
    scratch_drop(dir);
}

/* As a user who owns none of it, or all of it: what opening says, and the sentence. */
static void opened_by_nobody(const char *dir, enum eg_err e, const char *text)
{
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        char why[512] = "";
        struct eg_storage *s = NULL;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) {
            _exit(2);
        }
        const enum eg_err got = eg_sqlite_open(dir, &s, why, sizeof(why));
        if (got != e || strstr(why, text) == NULL) {
            (void)fprintf(stderr, "%s: %s\n", eg_err_text(got), why);
            _exit(1);
        }
        if (s != NULL) {
            s->ops->close(s);
        }
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %d", text, status);
}

static void give_to_nobody(const char *path)
{
    if (geteuid() == 0) {
        cr_assert_eq(chown(path, 65534, 65534), 0);
    }
}

/* SQLite would open it for reading, and the gateway would be ready and store nothing. */
Test(sqlite_open, what_cannot_be_written_is_refused)
{
    static const char *const names[] = {"ebbgate.db", "ebbgate.db-wal", "ebbgate.db-shm"};
    char dir[64];
    struct stat st;
    scratch_make(dir);
    char *data = strdup(scratch_path(dir, "data"));
    store_close(store_must_open(data));
    give_to_nobody(dir);
    give_to_nobody(data);
    give_to_nobody(scratch_path(data, "lock"));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *path = scratch_path(data, names[i]);
        if (i > 0) {
            scratch_write(path, "", 0);
        }
        give_to_nobody(path);
        cr_assert_eq(chmod(path, 0400), 0);
        opened_by_nobody(data, EG_EDENIED, names[i]);
        cr_assert(i > 0 || stat(scratch_path(data, "ebbgate.db-shm"), &st) != 0, "nothing is left");
        cr_assert_eq(chmod(scratch_path(data, names[i]), 0600), 0);
    }
    opened_by_nobody(data, EG_OK, "");
    cr_assert_eq(chmod(data, 0500), 0);
    opened_by_nobody(data, EG_EDENIED, "cannot write into the folder");
    cr_assert_eq(chmod(data, 0700), 0);
    free(data);
    scratch_drop(dir);
}

static void never(void *arg, int64_t sid, const char *agent, enum eg_turn_state head)
{
    (void)arg;
    cr_assert_fail("session %ld of %s: %d", (long)sid, agent, (int)head);
}

static void never_turn(void *arg, const struct eg_turn_row *row)
{
    (void)arg;
    cr_assert_fail("turn %lu: %d", (unsigned long)row->turn, (int)row->state);
}

/* What nobody wrote is handed to nobody, and told as text that JSON takes. */
Test(sqlite_open, turns_of_no_known_state_and_texts_of_no_known_form_do_no_harm)
{
    char dir[64];
    struct eg_turn_row turn;
    struct eg_session_row row;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    const int64_t sid = store_filled(s, "x", 4, "x").sid;
    store_close(s);
    (void)store_sql(dir, "INSERT INTO turns VALUES(1,1,99,0,1,0,'',''),(1,2,-1,0,1,0,'',"
                         "CAST(x'41ff42' AS TEXT))");
    (void)store_sql(dir, "UPDATE sessions SET owner=CAST(x'c32861' AS TEXT)");
    s = store_must_open(dir);
    cr_assert_eq(sid, 1);
    cr_assert_eq(s->ops->open_turns(s, never, NULL), EG_OK);
    cr_assert_eq(s->ops->turns(s, sid, never_turn, NULL), EG_OK);
    cr_assert_eq(s->ops->turn_get(s, sid, 2, &turn), EG_OK);
    cr_assert_eq(turn.state, EG_TURN_DEAD);
    cr_assert_str_eq(turn.error, "A?B");
    cr_assert_eq(s->ops->session_by_sid(s, sid, &row), EG_OK);
    cr_assert_str_eq(row.owner, "?(a");
    store_close(s);
    scratch_drop(dir);
}

Test(sqlite_open, without_its_epoch_it_is_refused)
{
    struct eg_storage *s = NULL;
    char dir[64], why[512] = "";
    scratch_make(dir);
    store_close(store_must_open(dir));
    (void)store_sql(dir, "DELETE FROM meta WHERE key='epoch'");
    cr_assert_eq(eg_sqlite_open(dir, &s, why, sizeof why), EG_ECORRUPT);
    cr_assert(strstr(why, "epoch"), "%s", why);
    scratch_drop(dir);
}

Test(sqlite_open, a_cut_file_is_refused)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    struct stat st;
    scratch_make(dir);
    s = store_must_open(dir);
    (void)store_filled(s, "x", 500, "some text to fill pages with");
    store_close(s);
    const char *path = scratch_path(dir, "ebbgate.db");
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(truncate(path, st.st_size - 8192), 0);
    refused(dir, EG_ECORRUPT, "");
    cr_assert_eq(truncate(path, 8192 * 3 + 100), 0);
    refused(dir, EG_ECORRUPT, "");
    cr_assert_eq(eg_sqlite_open(dir, &s, why, sizeof(why)), EG_ECORRUPT, "and again");
    scratch_drop(dir);
}

/* A copy of the files as a crash would leave them; by a process of its own, because closing the
 * database file here would drop this process's locks on it. */
static void crash_copy(const char *dir, const char *to)
{
    char command[300];
    (void)snprintf(command, sizeof(command),
                   "mkdir -p %s && cp %s/ebbgate.db %s/ebbgate.db-wal %s/", to, dir, dir, to);
    cr_assert_eq(system(command), 0);
}

Test(sqlite_open, a_cut_file_is_refused_with_a_log_beside_it_too)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *other = NULL;
    scratch_make(dir);
    char *data = strdup(scratch_path(dir, "data"));
    char *copy = strdup(scratch_path(dir, "copy"));
    struct eg_storage *s = store_must_open(data);
    (void)store_filled(s, "x", 500, "some text to fill pages with");
    cr_assert_eq(eg_sqlite_checkpoint(s), EG_OK);
    (void)store_filled(s, "y", 1, "in the log");
    crash_copy(data, copy);
    store_close(s);
    s = store_must_open(copy);
    cr_assert(has_session(s, "x") && has_session(s, "y"));
    store_close(s);
    scratch_drop(copy);
    s = store_must_open(data);
    (void)store_filled(s, "z", 1, "in the log");
    crash_copy(data, copy);
    store_close(s);
    cr_assert_eq(truncate(scratch_path(copy, "ebbgate.db"), 8192 * 14), 0);
    cr_assert_eq(eg_sqlite_open(copy, &other, why, sizeof(why)), EG_ECORRUPT, "%s", why);
    free(data);
    free(copy);
    scratch_drop(dir);
}

/* A transaction that touches several pages. Returns what commit said. */
static enum eg_err try_fill(struct eg_storage *s, const char *id, int events)
{
    enum eg_err e = s->ops->begin(s);
    if (e != EG_OK) {
        return e;
    }
    struct eg_session_row row = store_session(s, id);
    for (int i = 0; i < events; i++) {
        char number[16];
        uint8_t idkey[EG_IDKEY_BYTES];
        (void)snprintf(number, sizeof(number), "%d", i);
        eg_idkey('m', EG_LIT("o"), eg_slice_cstr(number), idkey);
        store_event(s, &row, "what a failing commit must take with it", i % 2 == 0 ? idkey : NULL,
                    STOREFIX_TIME + i);
    }
    s->ops->session_update(s, &row);
    return s->ops->commit(s);
}

/* ---- crashes ---- */

Test(sqlite_crash, what_was_committed_is_there)
{
    char dir[64];
    scratch_make(dir);
    char *data = strdup(scratch_path(dir, "data"));
    char *copy = strdup(scratch_path(dir, "copy"));
    struct eg_storage *s = store_must_open(data);
    (void)store_filled(s, "x", 50, "x");
    (void)store_filled(s, "y", 50, "y");
    store_begin(s);
    (void)store_session(s, "not committed");
    crash_copy(data, copy);
    s->ops->rollback(s);
    store_close(s);
    s = store_must_open(copy);
    cr_assert(has_session(s, "x"));
    cr_assert(has_session(s, "y"));
    cr_assert(!has_session(s, "not committed"));
    store_close(s);
    store_must_be_whole(copy);
    free(data);
    free(copy);
    scratch_drop(dir);
}

/* The child tells each commit after it; whatever was told must be there after kill -9. */
Test(sqlite_crash, kill_9_loses_nothing_that_was_told)
{
    char dir[64];
    scratch_make(dir);
    eg_sq_gather = 50; /* so that ids are being merged in most of the commits */
    for (int round = 0; round < 6; round++) {
        int fd[2];
        int told = 0;
        int n = 0;
        cr_assert_eq(pipe(fd), 0);
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            struct eg_storage *s = store_must_open(dir);
            char id[32];
            (void)close(fd[0]);
            for (int i = 1;; i++) {
                (void)snprintf(id, sizeof(id), "r%d-%d", round, i);
                if (try_fill(s, id, 7) != EG_OK ||
                    write(fd[1], &i, sizeof(i)) != (ssize_t)sizeof(i)) {
                    _exit(1);
                }
                (void)!s->ops->maintain(s);
            }
        }
        (void)close(fd[1]);
        while (told < 30 + round * 37 && read(fd[0], &n, sizeof(n)) == (ssize_t)sizeof(n)) {
            told = n;
        }
        (void)kill(child, SIGKILL);
        while (read(fd[0], &n, sizeof(n)) == (ssize_t)sizeof(n)) {
            told = n; /* told before the end, though not yet read */
        }
        (void)close(fd[0]);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        cr_assert_geq(told, 30);
        struct eg_storage *s = store_must_open(dir);
        char id[32];
        uint8_t idkey[EG_IDKEY_BYTES];
        eg_idkey('m', EG_LIT("o"), EG_LIT("4"), idkey);
        for (int i = 1; i <= told; i++) {
            struct eg_session_row row;
            struct eg_bytes *body = NULL;
            uint64_t cursor = 0;
            (void)snprintf(id, sizeof(id), "r%d-%d", round, i);
            cr_assert_eq(s->ops->session_by_id(s, eg_slice_cstr(id), &row), EG_OK, "%s", id);
            cr_assert_eq(s->ops->event_by_idkey(s, row.sid, idkey, &cursor, &body), EG_OK, "%s",
                         id);
            cr_assert_eq(cursor, 5);
            eg_bytes_unref(body);
        }
        store_close(s);
        store_must_be_whole(dir);
    }
    scratch_drop(dir);
}

Test(sqlite_crash, forks_that_a_crash_cut_short_are_on_their_way_out)
{
    char dir[64];
    struct eg_session_row row;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    row = store_session(s, "fork");
    row.state = EG_SESSION_FORKING;
    s->ops->session_update(s, &row);
    (void)store_session(s, "other");
    s->ops->revoke(s, "jti:old", 1000);
    s->ops->revoke(s, "jti:new", INT64_MAX);
    s->ops->revoke(s, "jti:for-ever", 0);
    store_commit(s);
    store_close(s);
    s = store_must_open(dir);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("fork"), &row), EG_OK);
    cr_assert_eq(row.state, EG_SESSION_DELETING);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("other"), &row), EG_OK);
    cr_assert_eq(row.state, EG_SESSION_OPEN);
    store_close(s);
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM revoked"), 2);
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM revoked WHERE what='jti:old'"), 0);
    scratch_drop(dir);
}

/* A backup or check of before the crash may still be reading then. */
Test(sqlite_crash, forks_that_a_crash_cut_short_are_found_beside_a_reader_too)
{
    char dir[64];
    char path[PATH_MAX];
    char why[512] = "";
    struct eg_session_row row;
    sqlite3 *reader = NULL;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "other", 1, "x");
    cr_assert_eq(eg_db_path(path, dir, EG_DB_NAME), EG_OK);
    cr_assert_eq(eg_db_open_ro(path, false, &reader, why, sizeof(why)), EG_OK, "%s", why);
    cr_assert_eq(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM sessions", NULL, NULL, NULL),
                 SQLITE_OK);
    store_begin(s);
    row = store_session(s, "fork");
    row.state = EG_SESSION_FORKING;
    s->ops->session_update(s, &row);
    store_commit(s);
    store_close(s);
    s = store_must_open(dir);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("fork"), &row), EG_OK);
    cr_assert_eq(row.state, EG_SESSION_DELETING);
    (void)sqlite3_close(reader);
    store_close(s);
    scratch_drop(dir);
}

/* ---- failing commits ---- */

/* Fails each write of a commit in turn, until one is not reached any more. */
static void each_write_fails(int rc, int partial, enum eg_err expected)
{
    char dir[64];
    char id[32];
    int nth = 1;
    scratch_make(dir);
    eg_sq_gather = 20; /* so that ids are being merged in most of the commits */
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    for (;; nth++) {
        (void)snprintf(id, sizeof(id), "lost-%d", nth);
        faultvfs_order(FAULT_WRITE, "-wal", nth, 1, rc, partial);
        enum eg_err e = try_fill(s, id, 1500);
        int hits = faultvfs_hits();
        faultvfs_clear();
        if (hits == 0) {
            cr_assert_eq(e, EG_OK);
            break;
        }
        cr_assert_eq(e, expected, "write %d: %s", nth, eg_err_text(e));
        cr_assert(!has_session(s, id), "write %d", nth);
        cr_assert_neq(strstr(eg_sqlite_why(s), "ebbgate.db"), NULL, "%s", eg_sqlite_why(s));
        if (nth % 3 == 0) { /* the next transaction goes over what the failed one left */
            (void)snprintf(id, sizeof(id), "kept-%d", nth);
            cr_assert_eq(try_fill(s, id, 5), EG_OK);
        }
    }
    cr_assert_gt(nth, 3, "a large commit is several writes");
    store_close(s);
    s = store_must_open(dir);
    for (int i = 1; i < nth; i++) {
        (void)snprintf(id, sizeof(id), "lost-%d", i);
        cr_assert(!has_session(s, id), "%s came back", id);
        (void)snprintf(id, sizeof(id), "kept-%d", i);
        cr_assert_eq(has_session(s, id), i % 3 == 0, "%s", id);
    }
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(sqlite_commit, a_full_disk_rolls_back)
{
    each_write_fails(SQLITE_FULL, 0, EG_EFULL);
}

Test(sqlite_commit, a_full_disk_in_mid_write_rolls_back)
{
    each_write_fails(SQLITE_FULL, 11, EG_EFULL);
}

Test(sqlite_commit, a_write_error_rolls_back)
{
    each_write_fails(SQLITE_IOERR_WRITE, 4096, EG_EIO);
}

/* The crash comes while the failed transaction's bytes are still in the log. */
Test(sqlite_commit, a_failed_write_does_not_come_back_after_a_crash)
{
    char dir[64];
    char id[32];
    scratch_make(dir);
    faultvfs_install();
    char *data = strdup(scratch_path(dir, "data"));
    char *copy = strdup(scratch_path(dir, "copy"));
    struct eg_storage *s = store_must_open(data);
    (void)store_filled(s, "before", 3, "x");
    faultvfs_count_reset("-wal");
    (void)store_filled(s, "measured", 60, "x");
    int writes = faultvfs_count(FAULT_WRITE);
    for (int nth = writes - 1; nth <= writes + 1; nth++) {
        (void)snprintf(id, sizeof(id), "lost-%d", nth);
        faultvfs_order(FAULT_WRITE, "-wal", nth, 1, SQLITE_FULL, 8191);
        enum eg_err e = try_fill(s, id, 60);
        bool hit = faultvfs_hits() > 0;
        faultvfs_clear();
        cr_assert_eq(e, hit ? EG_EFULL : EG_OK);
        crash_copy(data, copy);
        struct eg_storage *after = store_must_open(copy);
        cr_assert_eq(has_session(after, id), !hit, "%s", id);
        cr_assert(has_session(after, "before"));
        store_close(after);
        store_must_be_whole(copy);
        scratch_drop(copy);
    }
    store_close(s);
    free(data);
    free(copy);
    scratch_drop(dir);
}

/* What a failed commit would have brought to the tables is brought by a later one. */
Test(sqlite_commit, a_failed_one_takes_back_what_it_merged)
{
    char dir[64];
    eg_sq_gather_heads = 200;
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_queued(s, "s", 300);
    faultvfs_order(FAULT_WRITE, "-wal", 1, 1, SQLITE_FULL, 0);
    cr_assert_eq(try_fill(s, "no", 1), EG_EFULL);
    cr_assert_eq(faultvfs_hits(), 1);
    faultvfs_clear();
    store_close(s);
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM turns"), 300);
    cr_assert_eq(store_sql(dir, "SELECT cursor FROM sessions WHERE id='s'"), 300);
    scratch_drop(dir);
}

Test(sqlite_commit, a_failed_flush_is_unknown_and_final)
{
    char dir[64];
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "before", 10, "x");
    faultvfs_order(FAULT_SYNC, "-wal", 1, 1, SQLITE_IOERR_FSYNC, 0);
    cr_assert_eq(try_fill(s, "perhaps", 10), EG_EUNKNOWN);
    cr_assert_eq(faultvfs_hits(), 1);
    faultvfs_clear();
    /* Nothing may be written over what may be on disk. */
    faultvfs_count_reset("");
    cr_assert_eq(s->ops->begin(s), EG_EUNKNOWN);
    cr_assert_eq(eg_sqlite_checkpoint(s), EG_EUNKNOWN);
    cr_assert_eq(s->ops->maintain(s), EG_OK, "nothing is due");
    cr_assert_eq(eg_sqlite_probe(s), EG_EUNKNOWN);
    store_close(s);
    cr_assert_eq(faultvfs_count(FAULT_WRITE), 0);
    s = store_must_open(dir);
    cr_assert(has_session(s, "before"));
    cr_assert(has_session(s, "perhaps"), "here the bytes had reached the file");
    (void)store_filled(s, "after", 10, "x");
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

/* Past the flush the log's index in shared memory grows; that failure too leaves the outcome open:
 * the running process does not see the transaction, the next one does. */
Test(sqlite_commit, a_failure_after_the_flush_is_unknown)
{
    char dir[64];
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "before", 1, "x");
    char *large = malloc(3000001);
    cr_assert_neq(large, NULL);
    memset(large, 'x', 3000000);
    large[3000000] = '\0';
    store_begin(s);
    struct eg_session_row row = store_session(s, "large");
    faultvfs_order(FAULT_SHM_GROW, "", 1, -1, SQLITE_IOERR_SHMSIZE, 0);
    for (int i = 0; i < 13; i++) { /* more pages than the first block of the index can name */
        store_event(s, &row, large, NULL, STOREFIX_TIME);
    }
    s->ops->session_update(s, &row);
    cr_assert_eq(s->ops->commit(s), EG_EUNKNOWN, "%s", eg_sqlite_why(s));
    cr_assert_geq(faultvfs_hits(), 1);
    faultvfs_clear();
    cr_assert_eq(s->ops->begin(s), EG_EUNKNOWN);
    store_close(s);
    s = store_must_open(dir);
    cr_assert(has_session(s, "before"));
    cr_assert(has_session(s, "large"));
    store_close(s);
    store_must_be_whole(dir);
    free(large);
    scratch_drop(dir);
}

Test(sqlite_commit, a_failed_read_fails_the_transaction)
{
    char dir[64];
    struct eg_session_row row;
    scratch_make(dir);
    eg_sq_gather = 10; /* so that opening does not read all of the log */
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    for (int i = 0; i < 40; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "s%d", i);
        (void)store_filled(s, id, 20, "x");
    }
    store_close(s);
    s = store_must_open(dir);
    store_begin(s);
    (void)store_session(s, "new");
    faultvfs_order(FAULT_READ, "ebbgate.db", 1, 1, SQLITE_IOERR_READ, 0);
    struct eg_bytes *body = NULL;
    cr_assert_eq(s->ops->event_get(s, 33, 17, &body), EG_EIO);
    faultvfs_clear();
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("s1"), &row), EG_EIO, "latched");
    cr_assert_eq(s->ops->commit(s), EG_EIO);
    cr_assert(!has_session(s, "new"));
    cr_assert_eq(s->ops->event_get(s, 33, 17, &body), EG_OK, "it may work again");
    eg_bytes_unref(body);
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(sqlite_commit, the_probe_tells_when_there_is_room_again)
{
    char dir[64];
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "before", 1, "x");
    faultvfs_order(FAULT_WRITE, "", 1, -1, SQLITE_FULL, 0);
    cr_assert_eq(try_fill(s, "refused", 5), EG_EFULL);
    cr_assert_eq(eg_sqlite_probe(s), EG_EFULL);
    cr_assert(has_session(s, "before"), "reading goes on");
    cr_assert_eq(eg_sqlite_probe(s), EG_EFULL);
    faultvfs_clear();
    cr_assert_eq(eg_sqlite_probe(s), EG_OK);
    cr_assert_eq(try_fill(s, "accepted", 5), EG_OK);
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(sqlite_commit, a_real_file_size_limit_is_a_write_error)
{
    char dir[64];
    struct rlimit was;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "before", 1, "x");
    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
    struct rlimit small = {200000, was.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum eg_err e = try_fill(s, "refused", 3000);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
    cr_assert_eq(e, EG_EIO, "%s", eg_sqlite_why(s));
    cr_assert(!has_session(s, "refused"));
    cr_assert_eq(try_fill(s, "accepted", 3000), EG_OK);
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

/* ---- checkpoints ---- */

Test(sqlite_checkpoint, without_room_it_waits_and_loses_nothing)
{
    char dir[64];
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "x", 500, "x");
    int pages = eg_sqlite_wal_pages(s);
    cr_assert_gt(pages, 10);
    faultvfs_order(FAULT_WRITE, "ebbgate.db", 5, -1, SQLITE_FULL, 0);
    cr_assert_eq(eg_sqlite_checkpoint(s), EG_EFULL);
    cr_assert_eq(eg_sqlite_wal_pages(s), pages);
    (void)store_filled(s, "y", 5, "the log still takes commits");
    faultvfs_clear();
    cr_assert_eq(eg_sqlite_checkpoint(s), EG_OK);
    cr_assert_eq(eg_sqlite_wal_pages(s), 0);
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(sqlite_checkpoint, a_large_commit_is_brought_home_alone)
{
    static char body[600000];
    char dir[64];
    scratch_make(dir);
    memset(body, 'x', sizeof body - 1);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "small", 1, "x");
    const int small = eg_sqlite_wal_pages(s);
    cr_assert_eq(s->ops->maintain(s), EG_OK);
    cr_expect_eq(eg_sqlite_wal_pages(s), small, "too little for a checkpoint");
    (void)store_filled(s, "large", 1, body);
    cr_assert_gt(eg_sqlite_wal_pages(s), 64);
    cr_assert_eq(s->ops->maintain(s), EG_OK);
    cr_expect_eq(eg_sqlite_wal_pages(s), 0);
    (void)store_filled(s, "next", 1, "x");
    const int next = eg_sqlite_wal_pages(s);
    cr_assert_gt(next, 0);
    cr_assert_eq(s->ops->maintain(s), EG_OK);
    cr_expect_eq(eg_sqlite_wal_pages(s), next, "it was the large one's");
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(sqlite_checkpoint, a_failed_flush_is_final)
{
    char dir[64];
    scratch_make(dir);
    faultvfs_install();
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "x", 500, "x");
    faultvfs_order(FAULT_SYNC, "ebbgate.db", 1, 1, SQLITE_IOERR_FSYNC, 0);
    cr_assert_eq(eg_sqlite_checkpoint(s), EG_EUNKNOWN);
    cr_assert_eq(faultvfs_hits(), 1);
    faultvfs_clear();
    cr_assert_eq(s->ops->begin(s), EG_EUNKNOWN);
    store_close(s);
    s = store_must_open(dir);
    cr_assert(has_session(s, "x"));
    store_close(s);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

struct looker {
    const char *dir;
    int64_t sid;
    atomic_int stop;
    long pages;
    enum eg_err err;
};

static void ignore_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    (void)arg;
    (void)cursor;
    (void)body;
}

static void *look_on(void *arg)
{
    struct looker *l = arg;
    struct eg_reader *r = NULL;
    char why[256];
    l->err = eg_reader_open(l->dir, &r, why, sizeof(why));
    struct eg_page page = {
        .sid = l->sid, .from = 1, .to = UINT64_MAX, .max = 256, .max_bytes = 1 << 20};
    while (l->err == EG_OK && !atomic_load(&l->stop)) {
        l->err = eg_reader_events(r, &page, ignore_event, NULL);
        page.from = page.from > 2000 ? 1 : page.from + 256;
        l->pages++;
    }
    eg_reader_close(r);
    return NULL;
}

/* Readers that never pause must not keep the log from being started over. */
Test(sqlite_checkpoint, the_log_stays_short_beside_busy_readers)
{
    char dir[64];
    char id[32];
    pthread_t thread[3];
    struct stat st;
    off_t longest = 0;
    int64_t written = 0;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_filled(s, "read", 2000, "x");
    struct looker l[3];
    for (int i = 0; i < 3; i++) {
        l[i] = (struct looker){.dir = dir, .sid = row.sid};
        cr_assert_eq(pthread_create(&thread[i], NULL, look_on, &l[i]), 0);
    }
    for (int i = 0; i < 400; i++) {
        (void)snprintf(id, sizeof(id), "w%d", i);
        struct eg_session_row w = store_filled(s, id, 800, "written beside busy readers");
        written += w.bytes;
        enum eg_err e = s->ops->maintain(s);
        cr_assert_eq(e, EG_OK);
        cr_assert_eq(stat(scratch_path(dir, "ebbgate.db-wal"), &st), 0);
        longest = st.st_size > longest ? st.st_size : longest;
    }
    for (int i = 0; i < 3; i++) {
        atomic_store(&l[i].stop, 1);
        (void)pthread_join(thread[i], NULL);
        cr_assert_eq(l[i].err, EG_OK);
        cr_assert_gt(l[i].pages, 10);
    }
    store_close(s);
    cr_assert_gt(written, 64 << 20);
    cr_assert_lt(longest, 40 << 20, "%lld", (long long)longest);
    scratch_drop(dir);
}

/* ---- making the database ---- */

/* Whatever fails while the database is made: no half of one is left, and the next start works. */
Test(sqlite_create, each_failure_leaves_nothing_behind)
{
    static const struct {
        enum fault_call call;
        int rc;
    } kinds[] = {{FAULT_WRITE, SQLITE_FULL},       {FAULT_WRITE, SQLITE_IOERR_WRITE},
                 {FAULT_SYNC, SQLITE_IOERR_FSYNC}, {FAULT_TRUNCATE, SQLITE_IOERR_TRUNCATE},
                 {FAULT_READ, SQLITE_IOERR_READ},  {FAULT_SHM, SQLITE_IOERR_SHMMAP}};
    faultvfs_install();
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (int nth = 1; nth < 300; nth += 1 + nth / 8) {
            char dir[64];
            char why[512] = "";
            struct eg_storage *s = NULL;
            scratch_make(dir);
            faultvfs_order(kinds[k].call, "", nth, 1, kinds[k].rc, 0);
            enum eg_err e = eg_sqlite_open(dir, &s, why, sizeof(why));
            int hits = faultvfs_hits();
            faultvfs_clear();
            cr_assert(e == EG_OK || hits > 0, "%s", why);
            if (e == EG_OK) {
                store_close(s);
            } else {
                cr_assert_eq(s, NULL);
                cr_assert_neq(why[0], '\0');
            }
            s = store_must_open(dir);
            (void)store_filled(s, "x", 1, "x");
            store_close(s);
            store_must_be_whole(dir);
            scratch_drop(dir);
            if (hits == 0) {
                break;
            }
            cr_assert_lt(nth, 250);
        }
    }
}

/* ---- statements ---- */

/* No statement that runs for each frame may walk a whole table. */
Test(sqlite_statements, none_scans_the_log)
{
    static const struct {
        const char *name, *sql;
    } all[] = {
#define ST_ROW(name, sql) {#name, "EXPLAIN QUERY PLAN " sql},
        EG_STATEMENTS(ST_ROW)
#undef ST_ROW
    };
    char dir[64];
    sqlite3 *db = NULL;
    scratch_make(dir);
    store_close(store_must_open(dir));
    cr_assert_eq(sqlite3_open(scratch_path(dir, "ebbgate.db"), &db), SQLITE_OK);
    /* In the place of the table that the writer's connection offers (sqlite_batch.c). */
    cr_assert_eq(sqlite3_exec(db, "CREATE TEMP TABLE eg_batch(seq,sid,cursor,hash,idkey,body)",
                              NULL, NULL, NULL),
                 SQLITE_OK);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        sqlite3_stmt *st = NULL;
        cr_assert_eq(sqlite3_prepare_v2(db, all[i].sql, -1, &st, NULL), SQLITE_OK, "%s: %s",
                     all[i].name, sqlite3_errmsg(db));
        while (sqlite3_step(st) == SQLITE_ROW) {
            const char *plan = (const char *)sqlite3_column_text(st, 3);
            cr_expect_eq(strstr(plan, "SCAN events"), NULL, "%s: %s", all[i].name, plan);
            cr_expect_eq(strstr(plan, "SCAN sessions"), NULL, "%s: %s", all[i].name, plan);
            cr_expect_eq(strstr(plan, "SCAN acks"), NULL, "%s: %s", all[i].name, plan);
            cr_expect(strstr(plan, "SCAN t") == NULL || strcmp(all[i].name, "OPEN_TURNS") == 0,
                      "%s: %s", all[i].name, plan);
        }
        (void)sqlite3_finalize(st);
    }
    (void)sqlite3_close(db);
    scratch_drop(dir);
}
