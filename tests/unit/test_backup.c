/*
 * test_backup.c - a backup taken while the gateway writes is one moment's state; a restore gives
 * it back under a new epoch; neither harms what is there.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/storefix.h"
#include "store/reader.h"

/* A file system that cannot move a file to a name only when it is free, as NFS. */
static bool no_renameat2;
static bool die_at_renameat2;

int __real_renameat2(int from, const char *old, int to, const char *name, unsigned flags);
int __wrap_renameat2(int from, const char *old, int to, const char *name, unsigned flags);
int __wrap_renameat2(int from, const char *old, int to, const char *name, unsigned flags)
{
    if (die_at_renameat2) {
        _exit(3);
    }
    if (no_renameat2) {
        errno = EINVAL;
        return -1;
    }
    return __real_renameat2(from, old, to, name, flags);
}

/* Where a test is: the folder of a gateway, a backup of it, and what that is restored into. */
static struct {
    char dir[64], why[512];
    char *data, *copy, *back;
} at;

static void begin(void)
{
    scratch_make(at.dir);
    at.data = strdup(scratch_path(at.dir, "data"));
    at.copy = strdup(scratch_path(at.dir, "copy"));
    at.back = strdup(scratch_path(at.dir, "back"));
}

static void end(void)
{
    free(at.data);
    free(at.copy);
    free(at.back);
    scratch_drop(at.dir);
}

TestSuite(backup, .init = begin, .fini = end);

static enum eg_err back_up(void)
{
    return eg_sqlite_backup(at.data, at.copy, NULL, NULL, at.why, sizeof(at.why));
}

static enum eg_err restore(void)
{
    return eg_sqlite_restore(at.copy, at.back, at.why, sizeof(at.why));
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void must_verify(const char *dir, int64_t sessions)
{
    cr_assert_eq(store_must_be_whole(dir).sessions, sessions);
}

static void read_epoch(const char *dir, char out[37])
{
    struct eg_storage *s = store_must_open(dir);
    struct eg_epoch epoch;
    cr_assert_eq(s->ops->epoch(s, &epoch), EG_OK);
    memcpy(out, epoch.id, sizeof epoch.id);
    store_close(s);
}

static bool count_progress(void *arg, int64_t done, int64_t total)
{
    int64_t *last = arg;
    cr_assert_leq(done, total);
    cr_assert_geq(done, last[0]);
    last[0] = done;
    last[1] = total;
    last[2]++;
    return true;
}

Test(backup, a_backup_is_restored_with_a_new_epoch)
{
    char epoch[2][37];
    int64_t last[3] = {0, 0, 0};
    struct stat st;
    char *new = strdup(scratch_path(at.dir, "new/data"));
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 300, "x");
    (void)store_filled(s, "b", 3, "y");
    /* With the gateway running, and most of it still in its write-ahead log. */
    cr_assert_eq(eg_sqlite_backup(at.data, at.copy, count_progress, last, at.why, sizeof(at.why)),
                 EG_OK, "%s", at.why);
    cr_assert_gt(last[2], 0);
    cr_assert_gt(last[1], 0);
    cr_assert_eq(last[0], last[1]);
    cr_assert_eq(stat(at.copy, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    (void)store_filled(s, "after", 1, "z");
    store_close(s);
    cr_assert_eq(scratch_count(at.dir, "copy."), 0);
    cr_assert(!exists(scratch_path(at.dir, "copy-wal")), "one file is the whole backup");

    cr_assert_eq(eg_sqlite_restore(at.copy, new, at.why, sizeof(at.why)), EG_OK, "%s", at.why);
    must_verify(new, 2);
    must_verify(at.data, 3);
    read_epoch(at.data, epoch[0]);
    read_epoch(new, epoch[1]);
    cr_assert_str_neq(epoch[0], epoch[1]);
    must_verify(new, 2);
    s = store_must_open(new);
    (void)store_filled(s, "c", 2, "works");
    store_close(s);
    must_verify(new, 3);
    free(new);
}

/* ---- beside a writer ---- */

/* The table sessions lags behind; the log does not. */
#define MIN_HEAD "SELECT min(c) FROM (SELECT max(cursor) c FROM events GROUP BY sid)"
#define MAX_HEAD "SELECT max(c) FROM (SELECT max(cursor) c FROM events GROUP BY sid)"

struct busy {
    const char *dir;
    atomic_int stop;
    atomic_long committed;
};

static void *write_on(void *arg)
{
    struct busy *b = arg;
    struct eg_storage *s = store_must_open(b->dir);
    store_begin(s);
    struct eg_session_row row[8];
    char id[16];
    for (int i = 0; i < 8; i++) {
        (void)snprintf(id, sizeof(id), "s%d", i);
        row[i] = store_session(s, id);
    }
    store_commit(s);
    for (long n = 1; !atomic_load(&b->stop); n++) {
        store_begin(s);
        for (int i = 0; i < 8; i++) {
            for (int k = 0; k < 5; k++) {
                store_event(s, &row[i], "while the backup runs", NULL, STOREFIX_TIME + n);
            }
            s->ops->session_update(s, &row[i]);
        }
        store_commit(s);
        (void)!s->ops->maintain(s);
        atomic_store(&b->committed, n);
    }
    store_close(s);
    return NULL;
}

Test(backup, beside_a_writer_it_is_one_moment)
{
    pthread_t thread;
    struct busy b = {.dir = at.data};
    cr_assert_eq(pthread_create(&thread, NULL, write_on, &b), 0);
    while (atomic_load(&b.committed) < 50) {
        (void)usleep(1000);
    }
    for (int i = 0; i < 3; i++) {
        long before = atomic_load(&b.committed);
        enum eg_err e = back_up();
        if (e != EG_OK) {
            atomic_store(&b.stop, 1);
            (void)pthread_join(thread, NULL);
        }
        cr_assert_eq(e, EG_OK, "%s", at.why);
        long after = atomic_load(&b.committed);
        cr_assert_eq(restore(), EG_OK, "%s", at.why);
        must_verify(at.back, 8);
        /* All sessions as of the same commit, one between the start of the backup and its end. */
        int64_t low = store_sql(at.back, MIN_HEAD);
        int64_t high = store_sql(at.back, MAX_HEAD);
        cr_assert_eq(low, high);
        cr_assert_eq(low % 5, 0);
        cr_assert_geq(low / 5, before);
        cr_assert_leq(low / 5, after + 1);
        scratch_drop(at.back);
        (void)unlink(at.copy);
    }
    long at_end = atomic_load(&b.committed);
    atomic_store(&b.stop, 1);
    (void)pthread_join(thread, NULL);
    must_verify(at.data, 8);
    cr_assert_geq(store_sql(at.data, MIN_HEAD), at_end * 5);
}

/* ---- refusals ---- */

Test(backup, what_is_there_is_not_overwritten)
{
    size_t n = 0;
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 3, "x");
    store_close(s);
    scratch_write(at.copy, "mine", 4);
    cr_assert_eq(back_up(), EG_EEXISTS);
    char *kept = scratch_read(at.copy, &n);
    cr_assert_eq(n, 4);
    free(kept);
    (void)unlink(at.copy);
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
    cr_assert_eq(eg_sqlite_restore(at.copy, at.data, at.why, sizeof(at.why)), EG_EEXISTS);
    cr_assert_neq(strstr(at.why, "not empty"), NULL, "%s", at.why);
    must_verify(at.data, 1);
    s = store_must_open(at.data);
    cr_assert_eq(eg_sqlite_restore(at.copy, at.data, at.why, sizeof(at.why)), EG_EBUSY);
    store_close(s);
}

Test(backup, keys_may_be_in_the_folder_already)
{
    store_close(store_must_open(at.data));
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
    cr_assert_eq(mkdir(at.back, 0700), 0);
    cr_assert_eq(mkdir(scratch_path(at.back, "keys"), 0700), 0);
    scratch_write(scratch_path(at.back, "ebbgate.db.restore"), "half", 4);
    scratch_write(scratch_path(at.back, "ebbgate.db.restore-journal"), "half", 4);
    cr_assert_eq(restore(), EG_OK, "%s", at.why);
    cr_assert_eq(scratch_count(at.back, "ebbgate.db."), 0);
    must_verify(at.back, 0);
}

Test(backup, a_damaged_source_gives_no_backup)
{
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 30, "x");
    store_close(s);
    (void)store_sql(at.data, "DELETE FROM events WHERE cursor=7");
    cr_assert_eq(back_up(), EG_ECORRUPT);
    cr_assert_neq(strstr(at.why, "event 7 is missing"), NULL, "%s", at.why);
    cr_assert(!exists(at.copy));
    cr_assert_eq(scratch_count(at.dir, "copy."), 0);
}

Test(backup, a_damaged_backup_is_not_restored)
{
    size_t n = 0;
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 300, "x");
    store_close(s);
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
    char *file = scratch_read(at.copy, &n);
    scratch_write(at.copy, file, n - 8192 * 3);
    cr_assert_eq(restore(), EG_ECORRUPT, "%s", at.why);
    cr_assert(!exists(scratch_path(at.back, "ebbgate.db")));
    char *byte = memmem(file, n, "\"cursor\":299,", 13);
    cr_assert_neq(byte, NULL);
    byte[9] = '1';
    scratch_write(at.copy, file, n);
    cr_assert_eq(restore(), EG_ECORRUPT, "%s", at.why);
    cr_assert_neq(strstr(at.why, "event 299"), NULL, "%s", at.why);
    cr_assert(!exists(scratch_path(at.back, "ebbgate.db")));
    scratch_write(at.copy, "no", 2);
    cr_assert_eq(restore(), EG_ECORRUPT, "%s", at.why);
    (void)unlink(at.copy);
    cr_assert_eq(restore(), EG_ENOTFOUND, "%s", at.why);
    free(file);
}

Test(backup, without_room_nothing_is_left_behind)
{
    struct rlimit was;
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 2000, "x");
    store_close(s);
    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
    struct rlimit small = {200000, was.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum eg_err e = back_up();
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
    cr_assert(e == EG_EIO || e == EG_EFULL, "%d %s", (int)e, at.why);
    cr_assert(!exists(at.copy));
    cr_assert_eq(scratch_count(at.dir, "copy."), 0);
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
}

Test(backup, it_goes_to_a_file_system_that_cannot_rename_without_replacing)
{
    no_renameat2 = true;
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 20, "x");
    store_close(s);
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
    cr_assert_eq(scratch_count(at.dir, "copy."), 0);
    cr_assert_eq(restore(), EG_OK, "%s", at.why);
    cr_assert_eq(scratch_count(at.back, "ebbgate.db."), 0);
    must_verify(at.back, 1);
}

static bool take_the_name(void *arg, int64_t done, int64_t total)
{
    if (done == total) {
        scratch_write(arg, "mine", 4);
    }
    return true;
}

Test(backup, a_file_that_appears_meanwhile_is_not_replaced)
{
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 20, "x");
    store_close(s);
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        no_renameat2 = i == 1;
        cr_assert_eq(
            eg_sqlite_backup(at.data, at.copy, take_the_name, at.copy, at.why, sizeof(at.why)),
            EG_EEXISTS, "%s", at.why);
        char *file = scratch_read(at.copy, &n);
        cr_assert_eq(n, 4);
        cr_assert_eq(scratch_count(at.dir, "copy."), 0);
        free(file);
        cr_assert_eq(unlink(at.copy), 0);
    }
}

/* ---- given up, interrupted, and two at once ---- */

/* Gives up when asked for the nth time. */
static bool give_up(void *arg, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    return --*(int *)arg > 0;
}

Test(backup, one_that_is_given_up_leaves_nothing)
{
    struct eg_storage *s = store_must_open(at.data);
    int asked = 0, left = 0;
    (void)store_filled(s, "a", 3000, "of which the check takes a while");
    store_close(s);
    for (enum eg_err e = EG_ECLOSED; e != EG_OK; asked++) { /* in the copy, then in the check */
        left = asked + 1;
        e = eg_sqlite_backup(at.data, at.copy, give_up, &left, at.why, sizeof(at.why));
        cr_assert(e == EG_OK || (e == EG_ECLOSED && !exists(at.copy)), "%s", at.why);
        cr_assert_eq(scratch_count(at.dir, "copy."), 0);
    }
    cr_assert_gt(asked, 3);
    cr_assert_eq(restore(), EG_OK, "%s", at.why);
    must_verify(at.back, 1);
}

/* A process of its own restores, and is gone just before the new file would get its name. */
static void interrupt_a_restore(const char *from, const char *to)
{
    char why[512];
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        die_at_renameat2 = true;
        (void)!eg_sqlite_restore(from, to, why, sizeof(why));
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

Test(backup, a_gateway_makes_no_database_where_a_restore_was_interrupted)
{
    struct eg_storage *s = NULL;
    s = store_must_open(at.data);
    (void)store_filled(s, "a", 30, "x");
    store_close(s);
    cr_assert_eq(back_up(), EG_OK, "%s", at.why);
    interrupt_a_restore(at.copy, at.back);
    cr_assert_eq(eg_sqlite_open(at.back, &s, at.why, sizeof(at.why)), EG_ECORRUPT);
    cr_assert_neq(strstr(at.why, "a restore into this folder was interrupted"), NULL, "%s", at.why);
    cr_assert(!exists(scratch_path(at.back, "ebbgate.db")));
    cr_assert_eq(restore(), EG_OK, "%s", at.why);
    cr_assert_eq(scratch_count(at.back, "ebbgate.db."), 0);
    must_verify(at.back, 1);
    store_close(store_must_open(at.back));
}

struct second {
    const char *data, *copy;
    enum eg_err err;
    char why[512];
    bool done;
};

/* While the first has its pages and no name yet, a second backup to the same name is made. */
static bool back_up_again(void *arg, int64_t done, int64_t total)
{
    struct second *b = arg;
    if (done == total && !b->done) {
        b->done = true;
        b->err = eg_sqlite_backup(b->data, b->copy, NULL, NULL, b->why, sizeof(b->why));
    }
    return true;
}

Test(backup, two_to_one_name_do_not_share_a_file)
{
    struct eg_storage *s = store_must_open(at.data);
    (void)store_filled(s, "a", 20, "x");
    store_close(s);
    struct second b = {at.data, at.copy, EG_EIO, "", false};
    cr_assert_eq(eg_sqlite_backup(at.data, at.copy, back_up_again, &b, at.why, sizeof(at.why)),
                 EG_EEXISTS, "%s", at.why);
    cr_assert_eq(b.err, EG_OK, "%s", b.why);
    cr_assert_eq(scratch_count(at.dir, "copy."), 0);
    cr_assert_eq(restore(), EG_OK, "%s", at.why);
    must_verify(at.back, 1);
}
