/*
 * test_store_memory.c - the database's own memory: each of its allocations fails in turn while a
 * log is verified, copied and put back. Nothing breaks, nothing is left behind, and nothing is
 * called damaged, or whole, for want of memory.
 */
#include <criterion/criterion.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/storefix.h"
#include "store/reader.h"
#include "store/sqlite_int.h"

#define EVENTS 40
#define STRIDE 7 /* of what takes long not each allocation is tried */

static sqlite3_mem_methods real;
static int left = -1; /* allocations that still succeed; -1: all */
static int times;     /* how many fail then; -1: all */
static bool failed;

static bool fails(void)
{
    if (left < 0 || left-- > 0) {
        return false;
    }
    failed = true;
    left = times < 0 || --times > 0 ? 0 : -1;
    return true;
}

static void *take(int n)
{
    return fails() ? NULL : real.xMalloc(n);
}

static void *take_again(void *p, int n)
{
    return fails() ? NULL : real.xRealloc(p, n);
}

static void order(int n, int how_many)
{
    failed = false;
    times = how_many;
    left = n;
}

static void init(void)
{
    sqlite3_mem_methods mine;
    if (real.xMalloc != NULL) {
        return;
    }
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real), SQLITE_OK);
    mine = real;
    mine.xMalloc = take;
    mine.xRealloc = take_again;
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &mine), SQLITE_OK);
}

struct place {
    char dir[64];
    char *data, *copy, *back;
};

static void prepare(struct place *p)
{
    init();
    scratch_make(p->dir);
    p->data = strdup(scratch_path(p->dir, "data"));
    p->copy = strdup(scratch_path(p->dir, "copy"));
    p->back = strdup(scratch_path(p->dir, "back"));
    eg_sq_gather = 10;
    struct eg_storage *s = store_must_open(p->data);
    (void)store_filled(s, "a", EVENTS / 2, "x");
    (void)store_filled(s, "b", EVENTS / 2, "y");
    store_close(s);
}

static void done(struct place *p)
{
    free(p->data);
    free(p->copy);
    free(p->back);
    scratch_drop(p->dir);
}

static void told(void *arg, const char *text)
{
    cr_assert_fail("allocation %d: %s", *(int *)arg, text);
}

static void verify_each(int how_many)
{
    struct place p;
    prepare(&p);
    failed = true;
    for (int n = 0; failed; n++) {
        struct eg_check_result out;
        char why[512] = "";
        order(n, how_many);
        const enum eg_err e =
            eg_sqlite_verify(p.data, NULL, true, told, NULL, &n, &out, why, sizeof(why));
        left = -1;
        cr_assert(e == EG_OK || (failed && e == EG_ENOMEM), "allocation %d: %d %s", n, (int)e, why);
        cr_assert(e != EG_OK || out.events == EVENTS, "allocation %d: %d events", n,
                  (int)out.events);
    }
    done(&p);
}

Test(store_memory, verify_is_not_mistaken, .timeout = 110)
{
    verify_each(1);
    verify_each(-1);
}

static void must_be_a_copy(struct place *p, const char *copy)
{
    char why[512] = "";
    cr_assert_eq(eg_sqlite_restore(copy, p->back, why, sizeof(why)), EG_OK, "%s", why);
    cr_assert_eq(store_must_be_whole(p->back).events, EVENTS);
    scratch_drop(p->back);
}

static void backup_each(int how_many)
{
    struct place p;
    prepare(&p);
    failed = true;
    for (int n = how_many < 0; failed; n += STRIDE) {
        char why[512] = "";
        order(n, how_many);
        const enum eg_err e = eg_sqlite_backup(p.data, p.copy, NULL, NULL, why, sizeof(why));
        left = -1;
        cr_assert(e == EG_OK || (failed && e == EG_ENOMEM), "allocation %d: %d %s", n, (int)e, why);
        cr_assert_eq(scratch_count(p.dir, "copy."), 0);
        cr_assert_eq(access(p.copy, F_OK), e == EG_OK ? 0 : -1);
        if (e == EG_OK) {
            must_be_a_copy(&p, p.copy);
            cr_assert_eq(unlink(p.copy), 0);
        }
    }
    done(&p);
}

Test(store_memory, a_backup_is_whole_or_none, .timeout = 110)
{
    backup_each(1);
    backup_each(-1);
}

static void restore_each(int how_many)
{
    struct place p;
    char why[512] = "";
    prepare(&p);
    cr_assert_eq(eg_sqlite_backup(p.data, p.copy, NULL, NULL, why, sizeof(why)), EG_OK, "%s", why);
    failed = true;
    for (int n = how_many < 0; failed; n += STRIDE) {
        order(n, how_many);
        const enum eg_err e = eg_sqlite_restore(p.copy, p.back, why, sizeof(why));
        left = -1;
        cr_assert(e == EG_OK || (failed && e == EG_ENOMEM), "allocation %d: %d %s", n, (int)e, why);
        cr_assert_eq(scratch_count(p.back, "ebbgate.db."), 0);
        cr_assert_eq(access(scratch_path(p.back, "ebbgate.db"), F_OK), e == EG_OK ? 0 : -1);
        if (e == EG_OK) {
            cr_assert_eq(store_must_be_whole(p.back).events, EVENTS);
            scratch_drop(p.back);
        }
    }
    done(&p);
}

Test(store_memory, a_restore_is_whole_or_none, .timeout = 110)
{
    restore_each(1);
    restore_each(-1);
}

/* Opened, written to, closed. */
static void open_each(int how_many)
{
    struct place p;
    int64_t before = EVENTS;
    prepare(&p);
    failed = true;
    for (int n = how_many < 0; failed; n += STRIDE) {
        struct eg_storage *s = NULL;
        char why[512] = "";
        char id[32];
        enum eg_err told_commit = EG_ENOTFOUND;
        (void)snprintf(id, sizeof(id), "n%d", n);
        order(n, how_many);
        const enum eg_err e = eg_sqlite_open(p.data, &s, why, sizeof(why));
        cr_assert(e == EG_OK || (failed && e == EG_ENOMEM), "allocation %d: %d %s", n, (int)e, why);
        if (e == EG_OK && s->ops->begin(s) == EG_OK) {
            struct eg_session_row row = store_session(s, id);
            if (row.sid > 0) {
                store_event(s, &row, "x", NULL, STOREFIX_TIME);
                s->ops->session_update(s, &row);
            }
            told_commit = s->ops->commit(s);
        }
        if (e == EG_OK) {
            store_close(s);
        }
        left = -1;
        const int64_t events = store_must_be_whole(p.data).events;
        cr_assert(told_commit == EG_EUNKNOWN || events == before + (told_commit == EG_OK),
                  "allocation %d: told %d, %d events", n, (int)told_commit, (int)events);
        before = events;
    }
    done(&p);
}

Test(store_memory, opening_and_a_commit_tell_what_became_of_them, .timeout = 110)
{
    open_each(1);
}

Test(store_memory, opening_and_a_commit_tell_what_became_of_them_without_any, .timeout = 110)
{
    open_each(-1);
}

static void count(void *arg, uint64_t cursor, struct eg_slice body)
{
    (void)cursor;
    (void)body;
    ++*(int *)arg;
}

/* Reads a session and its events. */
static enum eg_err read_some(struct eg_reader *r)
{
    struct eg_session_row row;
    int events = 0;
    enum eg_err e = eg_reader_session(r, EG_LIT("b"), &row);
    if (e == EG_OK) {
        const struct eg_page page = {
            .sid = row.sid, .from = 1, .to = UINT64_MAX, .max = EVENTS, .max_bytes = 1 << 20};
        e = eg_reader_events(r, &page, count, &events);
        cr_assert(e != EG_OK || events == EVENTS / 2, "%d events", events);
    }
    return e;
}

/* What failed for want of memory works as soon as there is some. */
static void read_each(bool beside_writer)
{
    struct place p;
    struct eg_storage *s = NULL;
    prepare(&p);
    if (beside_writer) {
        s = store_must_open(p.data);
    }
    failed = true;
    for (int n = 0; failed; n++) {
        struct eg_reader *r = NULL;
        char why[512] = "";
        order(n, 1);
        enum eg_err e = eg_reader_open(p.data, &r, why, sizeof(why));
        cr_assert(e == EG_OK || (failed && e == EG_ENOMEM), "allocation %d: %d %s", n, (int)e, why);
        for (int i = 0; e == EG_OK && i < 2; i++) {
            const bool before = failed;
            const enum eg_err got = read_some(r);
            cr_assert(got == EG_OK || (!before && failed && got == EG_ENOMEM),
                      "allocation %d, round %d: %d %s", n, i, (int)got, eg_reader_why(r));
        }
        left = -1;
        eg_reader_close(r);
    }
    if (s != NULL) {
        store_close(s);
    }
    done(&p);
}

Test(store_memory, a_reader_goes_on, .timeout = 110)
{
    read_each(false);
}

Test(store_memory, a_reader_beside_the_writer_goes_on, .timeout = 110)
{
    read_each(true);
}
