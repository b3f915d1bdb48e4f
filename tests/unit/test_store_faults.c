/*
 * test_store_faults.c - every call of the database on its files fails in turn: the Nth of a kind,
 * once and for ever after, for N until nothing fails any more.
 *
 * Each N is one life of a store on the same folder: opened, written to, moved into the database
 * file, written to again, read, closed. Afterwards nothing fails, and what the life was told must
 * be true: what was committed is there, what was refused is not, what is unknown is whole or not at
 * all.
 */
#include <criterion/criterion.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "../lib/faultvfs.h"
#include "../lib/storefix.h"
#include "store/reader.h"

#define EVENTS 5
#define STEPS 3

struct kind {
    enum fault_call call;
    int rc;
    const char *name;
};

static const struct kind kinds[] = {
    {FAULT_READ, SQLITE_IOERR_READ, "read"},
    {FAULT_WRITE, SQLITE_IOERR_WRITE, "write"},
    {FAULT_WRITE, SQLITE_FULL, "write, no room"},
    {FAULT_SYNC, SQLITE_IOERR_FSYNC, "sync"},
    {FAULT_TRUNCATE, SQLITE_IOERR_TRUNCATE, "truncate"},
    {FAULT_SHM, SQLITE_IOERR_SHMMAP, "shared memory"},
};

/* What one life was told of each of its sessions. */
struct life {
    char id[STEPS][40];
    enum eg_err told[STEPS];
};

static enum eg_err write_one(struct eg_storage *s, const char *id)
{
    enum eg_err e = s->ops->begin(s);
    if (e != EG_OK) {
        return e;
    }
    struct eg_session_row row = store_session(s, id);
    for (int i = 0; row.sid > 0 && i < EVENTS; i++) {
        store_event(s, &row, "what a failing call may take with it", NULL, STOREFIX_TIME + i);
    }
    if (row.sid > 0) {
        s->ops->session_update(s, &row);
    }
    return s->ops->commit(s);
}

static void count(void *arg, uint64_t cursor, struct eg_slice body)
{
    (void)cursor;
    (void)body;
    ++*(int *)arg;
}

static int events_of(struct eg_storage *s, const char *id, bool *there)
{
    struct eg_session_row row;
    int n = 0;
    const enum eg_err e = s->ops->session_by_id(s, eg_slice_cstr(id), &row);
    *there = e == EG_OK;
    cr_assert(e == EG_OK || e == EG_ENOTFOUND);
    if (*there) {
        cr_assert_eq(s->ops->events(s, row.sid, 1, EVENTS * 2, count, &n), EG_OK);
    }
    return n;
}

static void live(const char *dir, struct life *l)
{
    struct eg_storage *s = NULL;
    char why[512] = "";
    for (int i = 0; i < STEPS; i++) {
        l->told[i] = EG_ENOTFOUND; /* nothing was tried */
    }
    if (eg_sqlite_open(dir, &s, why, sizeof(why)) != EG_OK) {
        cr_assert_neq(why[0], '\0');
        return;
    }
    for (int i = 0; i < STEPS; i++) {
        l->told[i] = write_one(s, l->id[i]);
        if (i == 0) {
            cr_assert_neq(eg_sqlite_checkpoint(s), EG_ENOTFOUND); /* it may fail */
        } else if (l->told[i] != EG_OK && l->told[i] != EG_EUNKNOWN) {
            cr_assert_neq(eg_sqlite_probe(s), EG_ENOTFOUND);
        }
    }
    struct eg_reader *r = NULL;
    if (eg_reader_open(dir, &r, why, sizeof(why)) == EG_OK) {
        struct eg_session_row row;
        const enum eg_err e = eg_reader_session(r, eg_slice_cstr(l->id[0]), &row);
        cr_assert(e != EG_OK || l->told[0] == EG_OK || l->told[0] == EG_EUNKNOWN);
        eg_reader_close(r);
    }
    store_close(s);
}

static void must_be_true(const char *dir, const struct life *l, const struct kind *k, int nth,
                         int times)
{
    struct eg_storage *s = store_must_open(dir);
    for (int i = 0; i < STEPS; i++) {
        bool there = false;
        const int n = events_of(s, l->id[i], &there);
        cr_assert_eq(n, there ? EVENTS : 0, "%s %d (%d): part of %s", k->name, nth, times,
                     l->id[i]);
        if (l->told[i] != EG_EUNKNOWN) {
            cr_assert_eq(there, l->told[i] == EG_OK, "%s %d (%d): %s was %s", k->name, nth, times,
                         l->id[i], eg_err_text(l->told[i]));
        }
    }
    store_close(s);
}

static void sweep(int times)
{
    faultvfs_install();
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char dir[64];
        int hits = 1;
        scratch_make(dir);
        store_close(store_must_open(dir));
        for (int nth = 1; hits > 0; nth++) {
            struct life l;
            for (int step = 0; step < STEPS; step++) {
                snprintf(l.id[step], sizeof(l.id[step]), "s%d-%d", nth, step);
            }
            cr_assert_lt(nth, 2000);
            faultvfs_order(kinds[i].call, "", nth, times, kinds[i].rc, 0);
            live(dir, &l);
            hits = faultvfs_hits();
            faultvfs_clear();
            must_be_true(dir, &l, &kinds[i], nth, times);
        }
        store_must_be_whole(dir);
        scratch_drop(dir);
    }
}

Test(store_faults, each_call_once, .timeout = 110)
{
    sweep(1);
}

Test(store_faults, each_call_and_all_after_it, .timeout = 110)
{
    sweep(-1);
}
