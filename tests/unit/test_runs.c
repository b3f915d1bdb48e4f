/*
 * test_runs.c - the index of the log in runs: packing, and a long random life with merges over all
 * levels, removals, rollbacks and restarts, after each of which everything is found that was
 * committed and nothing else.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/storefix.h"
#include "failing.h"
#include "store/pack.h"
#include "store/sqlite_int.h"
#include "wire/event.h"

/* ---- packing ---- */

static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

Test(pack, places_come_back)
{
    for (int round = 0; round < 200; round++) {
        int64_t in[EG_PACK_PLACES];
        int64_t out[EG_PACK_PLACES];
        struct eg_buf row = {0};
        int64_t at = 0;
        const int n = 1 + (int)(next_random() % EG_PACK_PLACES);
        for (int i = 0; i < n; i++) {
            at += 1 + (int64_t)(next_random() >> (34 + next_random() % 30));
            in[i] = at;
        }
        eg_pack_places(&row, in, n);
        cr_assert_eq(eg_unpack_places((struct eg_slice){row.p, row.n}, out), n);
        cr_assert_arr_eq(in, out, (size_t)n * sizeof(in[0]));
        cr_assert_eq(eg_unpack_places((struct eg_slice){row.p, row.n}, out), n);
        row.p[row.n - 1] = (char)(row.p[row.n - 1] | 0x80);
        cr_assert_eq(eg_unpack_places((struct eg_slice){row.p, row.n}, out), -1, "cut short");
        eg_buf_free(&row);
    }
}

static int by_hash(const void *a, const void *b)
{
    const struct eg_pack_id *x = a;
    const struct eg_pack_id *y = b;
    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

Test(pack, ids_come_back_and_are_found)
{
    for (int round = 0; round < 200; round++) {
        struct eg_pack_id in[300];
        struct eg_pack_ids p = {0};
        struct eg_packed_ids out;
        struct eg_buf row = {0};
        const int n = 1 + (int)(next_random() % 300);
        const int narrow = (int)(next_random() % 40);
        for (int i = 0; i < n; i++) {
            in[i].hash = (next_random() & EG_PACK_HASH_MASK) >> narrow;
            in[i].seq = 1 + (int64_t)(next_random() >> 30);
        }
        qsort(in, (size_t)n, sizeof(in[0]), by_hash);
        for (int i = 0; i < n; i++) {
            cr_assert(eg_pack_ids_room(&p, in[i]));
            cr_assert_eq(eg_pack_ids_add(&p, in[i]), EG_OK);
        }
        eg_pack_ids_take(&p, &row);
        cr_assert(eg_packed_ids_open(&out, in[0].hash, (struct eg_slice){row.p, row.n}));
        cr_assert_eq(out.n, n);
        for (int i = 0; i < n; i++) {
            const struct eg_pack_id got = eg_packed_ids_at(&out, i);
            cr_assert_eq(got.hash, in[i].hash);
            cr_assert_eq(got.seq, in[i].seq);
            const int at = eg_packed_ids_find(&out, in[i]);
            cr_assert_leq(at, i);
            cr_assert_eq(by_hash(&in[at], &in[i]), 0);
        }
        cr_assert(!eg_packed_ids_open(&out, 0, (struct eg_slice){row.p, 10}));
        eg_pack_ids_free(&p);
        eg_buf_free(&row);
    }
}

Test(pack, a_row_of_ids_is_not_larger_than_a_page_lets_it)
{
    struct eg_pack_ids p = {0};
    struct eg_buf row = {0};
    struct eg_pack_id id = {0, 1};
    while (eg_pack_ids_room(&p, id)) {
        cr_assert_eq(eg_pack_ids_add(&p, id), EG_OK);
        id.hash += 1 + next_random() % 100000000;
        id.seq = 1 + (int64_t)(next_random() % 60000);
    }
    cr_assert_gt(p.n, 1000);
    eg_pack_ids_take(&p, &row);
    cr_assert_leq(row.n, EG_PACK_ID_BYTES);
    eg_pack_ids_free(&p);
    eg_buf_free(&row);
}

/* ---- a long life ---- */

#define SESSIONS 12
#define EVENTS_MAX 6000

struct life {
    char dir[64];
    struct eg_storage *s;
    struct eg_session_row row[SESSIONS];
    uint64_t low[SESSIONS]; /* lowest cursor that was not removed */
    bool has_id[SESSIONS][EVENTS_MAX];
};

static void id_of(int session, uint64_t cursor, uint8_t out[EG_IDKEY_BYTES])
{
    const uint64_t id[2] = {(uint64_t)session, cursor};
    eg_idkey('m', EG_LIT("o"), (struct eg_slice){(const char *)id, sizeof(id)}, out);
}

static void append_some(struct life *l, bool keep)
{
    struct eg_session_row before[SESSIONS];
    memcpy(before, l->row, sizeof(before));
    store_begin(l->s);
    for (uint64_t n = next_random() % 12; n > 0; n--) {
        const int at = (int)(next_random() % SESSIONS * (next_random() % SESSIONS) / SESSIONS);
        uint8_t idkey[EG_IDKEY_BYTES];
        const bool with_id = next_random() % 4 != 0;
        if (l->row[at].cursor + 1 >= EVENTS_MAX) {
            continue;
        }
        id_of(at, l->row[at].cursor + 1, idkey);
        store_event(l->s, &l->row[at], "x", with_id ? idkey : NULL, STOREFIX_TIME);
        l->has_id[at][l->row[at].cursor] = with_id;
        l->s->ops->session_update(l->s, &l->row[at]);
    }
    if (keep) {
        store_commit(l->s);
    } else {
        l->s->ops->rollback(l->s);
        memcpy(l->row, before, sizeof(before));
    }
}

static void remove_some(struct life *l, bool keep)
{
    const int at = (int)(next_random() % SESSIONS);
    struct eg_session_row row = l->row[at];
    const uint64_t there = row.cursor + 1 - row.oldest;
    int removed = 0;
    int64_t bytes = 0;
    if (there == 0) {
        return;
    }
    store_begin(l->s);
    row.oldest += next_random() % there / (1 + next_random() % 3);
    if (row.oldest > l->row[at].oldest) {
        cr_assert_eq(l->s->ops->event_hash(l->s, row.sid, row.oldest - 1, row.floor_hash), EG_OK);
    }
    l->s->ops->session_update(l->s, &row);
    l->s->ops->events_trim(l->s, row.sid, row.oldest, 40, &removed, &bytes);
    row.bytes -= bytes;
    l->s->ops->session_update(l->s, &row);
    if (keep) {
        store_commit(l->s);
        l->low[at] += (uint64_t)removed;
        cr_assert_leq(l->low[at], row.oldest);
        cr_assert(removed == 40 || l->low[at] == row.oldest, "all that there were");
        l->row[at] = row;
    } else {
        l->s->ops->rollback(l->s);
    }
}

static void check_event(struct life *l, int at, uint64_t cursor)
{
    struct eg_bytes *body = NULL;
    uint8_t idkey[EG_IDKEY_BYTES];
    uint64_t found = 0;
    const struct eg_session_row *row = &l->row[at];
    const bool there = cursor >= l->low[at] && cursor <= row->cursor;
    cr_assert_eq(l->s->ops->event_get(l->s, row->sid, cursor, &body), there ? EG_OK : EG_ENOTFOUND,
                 "session %d, event %d", at, (int)cursor);
    if (there) {
        eg_bytes_unref(body);
    }
    id_of(at, cursor, idkey);
    const bool known = there && l->has_id[at][cursor];
    cr_assert_eq(l->s->ops->event_by_idkey(l->s, row->sid, idkey, &found, &body),
                 known ? EG_OK : EG_ENOTFOUND, "session %d, id of %d", at, (int)cursor);
    if (known) {
        cr_assert_eq(found, cursor);
        eg_bytes_unref(body);
    }
}

static void no_fault(void *arg, const char *text)
{
    (void)arg;
    cr_assert_fail("%s", text);
}

/* How many entries of the runs in use lead to an event, as they count themselves and as it is. */
static void must_count_right(const char *dir)
{
    cr_assert_eq(store_sql(dir, "SELECT (SELECT coalesce(sum(entries-stale),0) FROM runs WHERE"
                                " state=1)-(SELECT count(*) FROM events WHERE seq<=(SELECT value"
                                " FROM meta WHERE key='indexed'))"),
                 0);
}

/* None of the runs in use has more places than it counts entries: what was removed before a merge
 * began is left out, also where a restart came between. */
static void must_leave_out(const char *dir)
{
    int64_t seq[EG_PACK_PLACES];
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    int64_t run = 0;
    int64_t left = 0;
    cr_assert_eq(sqlite3_open(scratch_path(dir, EG_DB_NAME), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db,
                                    "SELECT run, entries, seqs FROM runs JOIN run_places USING(run)"
                                    " WHERE state=1 ORDER BY run",
                                    -1, &st, NULL),
                 SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
        if (sqlite3_column_int64(st, 0) != run) {
            run = sqlite3_column_int64(st, 0);
            left = sqlite3_column_int64(st, 1);
        }
        left -= eg_unpack_places(eg_db_blob(st, 2), seq);
        cr_assert_geq(left, 0, "run %lld has more than it counts", (long long)run);
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
}

static void live_long(uint32_t gather, int steps)
{
    struct life *l = calloc(1, sizeof(*l));
    struct eg_check_result out;
    char why[512] = "";
    char id[16];
    cr_assert_neq(l, NULL);
    eg_sq_gather = gather;
    scratch_make(l->dir);
    l->s = store_must_open(l->dir);
    store_begin(l->s);
    for (int i = 0; i < SESSIONS; i++) {
        (void)snprintf(id, sizeof(id), "s%d", i);
        l->row[i] = store_session(l->s, id);
        l->low[i] = 1;
    }
    store_commit(l->s);
    for (int i = 0; i < steps; i++) {
        const bool keep = next_random() % 8 != 0;
        if (next_random() % 20 == 0) {
            remove_some(l, keep);
        } else {
            append_some(l, keep);
        }
        const int at = (int)(next_random() % SESSIONS);
        check_event(l, at, 1 + next_random() % (l->row[at].cursor + 2));
        if (next_random() % 150 == 0) {
            store_close(l->s);
            l->s = store_must_open(l->dir);
        }
        if (i % 1000 == 999) {
            for (int k = 0; k < SESSIONS; k++) {
                for (uint64_t c = 1; c <= l->row[k].cursor + 1; c++) {
                    check_event(l, k, c);
                }
            }
            cr_assert_eq(
                eg_sqlite_verify(l->dir, NULL, true, no_fault, NULL, NULL, &out, why, sizeof(why)),
                EG_OK, "%s", why);
        }
    }
    store_close(l->s);
    must_count_right(l->dir);
    must_leave_out(l->dir);
    cr_assert_gt(store_sql(l->dir, "SELECT count(*) FROM runs WHERE level>0"), 0);
    cr_assert_lt(store_sql(l->dir, "SELECT count(*) FROM runs WHERE state=1"), 60);
    cr_assert_eq(store_sql(l->dir, "SELECT value-(SELECT max(last_seq) FROM runs WHERE state=1)"
                                   " FROM meta WHERE key='indexed'"),
                 0);
    cr_assert_eq(store_sql(l->dir, "SELECT count(*) FROM runs r WHERE state=1 AND first_seq<>1 AND"
                                   " NOT EXISTS (SELECT 1 FROM runs q WHERE q.state=1 AND"
                                   " q.last_seq=r.first_seq-1)"),
                 0, "they lie side by side");
    scratch_drop(l->dir);
    free(l);
}

Test(runs, many_small_ones_over_all_levels)
{
    live_long(5, 3000);
}

Test(runs, fewer_and_larger_ones)
{
    live_long(120, 4000);
}

/* How often runs were read for NEW_IDS ids that are in none of them. */
#define NEW_IDS 2000
static int read_for_new_ids(struct life *l)
{
    const struct eg_sqlite *s = (const struct eg_sqlite *)l->s;
    (void)sqlite3_stmt_status(s->st[EG_ST_RUN_IDS_AT], SQLITE_STMTSTATUS_RUN, 1);
    for (uint64_t i = 0; i < NEW_IDS; i++) {
        uint8_t idkey[EG_IDKEY_BYTES];
        uint64_t found = 0;
        struct eg_bytes *body = NULL;
        id_of(0, EVENTS_MAX + i, idkey);
        cr_assert_eq(l->s->ops->event_by_idkey(l->s, l->row[0].sid, idkey, &found, &body),
                     EG_ENOTFOUND);
    }
    return sqlite3_stmt_status(s->st[EG_ST_RUN_IDS_AT], SQLITE_STMTSTATUS_RUN, 0);
}

/* In the process that writes them runs are never read for their filters. */
Test(runs, filters_are_filled_while_runs_are_written)
{
    struct life *l = calloc(1, sizeof(*l));
    int live = 0;
    int merged = 0;
    cr_assert_neq(l, NULL);
    eg_sq_gather = 50;
    scratch_make(l->dir);
    l->s = store_must_open(l->dir);
    const struct eg_runs *r = &((const struct eg_sqlite *)l->s)->runs;
    store_begin(l->s);
    for (int i = 0; i < SESSIONS; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "s%d", i);
        l->row[i] = store_session(l->s, id);
        l->low[i] = 1;
    }
    store_commit(l->s);
    for (int i = 0; i < 400; i++) {
        append_some(l, i % 5 != 0);
        for (int k = 0; k < r->n; k++) {
            const struct eg_run *run = &r->v[k];
            cr_assert_eq(run->state == EG_RUN_LIVE && !run->whole, 0, "run %d", (int)run->run);
            live += run->state == EG_RUN_LIVE;
            merged += run->state == EG_RUN_LIVE && run->level > 0;
        }
    }
    cr_assert_gt(live, merged);
    cr_assert_gt(merged, 0);
    for (int k = 0; k < SESSIONS; k++) {
        for (uint64_t c = 1; c <= l->row[k].cursor + 1; c++) {
            check_event(l, k, c);
        }
    }
    cr_expect_lt(read_for_new_ids(l), NEW_IDS / 500 * r->n);
    store_close(l->s);
    scratch_drop(l->dir);
    free(l);
}

/* A table that grew while a removal was not yet final has the id when that is undone. */
Test(tail, a_removal_undone_after_growing_gives_the_id_back)
{
    struct eg_tail *t = eg_tail_new();
    int64_t seq = 0;
    for (int i = 1; i <= 1024; i++) {
        cr_assert_eq(eg_tail_add(t, 1, (uint64_t)i, i, i), EG_OK);
    }
    eg_tail_keep(t);
    cr_assert_eq(eg_tail_remove(t, 1, 1), EG_OK);
    cr_assert(!eg_tail_find_key(t, 1, 1, &seq));
    cr_assert_eq(eg_tail_add(t, 1, 1025, 1025, 0), EG_OK);
    eg_tail_undo(t);
    cr_assert(eg_tail_find_key(t, 1, 1, &seq));
    cr_assert_eq(seq, 1);
    eg_tail_unref(t);
}

/* Whoever gives the same ids in many sessions is known in each. */
Test(tail, sessions_have_ids_of_their_own)
{
    struct eg_tail *t = eg_tail_new();
    for (int64_t sid = 1; sid <= 1000; sid++) {
        cr_assert_eq(eg_tail_add(t, sid, 1, sid, 77), EG_OK);
    }
    for (int64_t sid = 1; sid <= 1000; sid++) {
        int64_t seq = 0;
        cr_assert(eg_tail_find_key(t, sid, 77, &seq));
        cr_assert_eq(seq, sid);
    }
    eg_tail_unref(t);
}

/* A merge takes on what 21 transactions brought it, 1554 places, and rests at the end of a row of
 * 256, behind 1792: the first place of a row of its second input. */
Test(runs, a_merge_that_rests_behind_the_first_place_of_a_row_doubles_none)
{
    char dir[64];
    eg_sq_gather = 1535;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    struct eg_session_row row = store_session(s, "a");
    store_commit(s);
    for (int i = 0; i < 1400; i++) {
        store_begin(s);
        for (int k = 0; k < 5; k++) {
            store_event(s, &row, "x", NULL, STOREFIX_TIME);
        }
        s->ops->session_update(s, &row);
        store_commit(s);
    }
    store_close(s);
    cr_assert_gt(store_sql(dir, "SELECT count(*) FROM runs WHERE state=1 AND level=1"), 0);
    must_leave_out(dir);
    scratch_drop(dir);
}

/* ---- from another process ---- */

static bool count_event(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    uint64_t *const last = arg;
    (void)st;
    cr_assert_eq(cursor, *last + 1, "event %d after %d", (int)cursor, (int)*last);
    *last = cursor;
    return true;
}

static bool see_once(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    bool *const seen = arg;
    (void)st;
    cr_assert(!seen[cursor], "event %d twice", (int)cursor);
    seen[cursor] = true;
    return true;
}

static void append_n(struct eg_storage *s, struct eg_session_row *row, int n)
{
    for (int i = 0; i < n; i++) {
        store_begin(s);
        store_event(s, row, "x", NULL, STOREFIX_TIME);
        s->ops->session_update(s, row);
        store_commit(s);
    }
}

/* Who looks seldom, as a check that was stopped for a while, finds what went into runs meanwhile.
 */
Test(runs, a_walk_of_another_process_that_looks_seldom_misses_nothing)
{
    char dir[64], path[PATH_MAX], why[256];
    struct eg_walk w;
    sqlite3 *db = NULL;
    eg_sq_gather = 8;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    struct eg_session_row row = store_session(s, "s");
    store_commit(s);
    cr_assert_eq(eg_db_path(path, dir, EG_DB_NAME), EG_OK);
    cr_assert_eq(eg_db_open_ro(path, false, &db, why, sizeof why), EG_OK, "%s", why);
    eg_walk_open(&w, db);
    for (int round = 0; round < 4; round++) {
        uint64_t last = 0;
        append_n(s, &row, round == 0 ? 5 : 60);
        const struct eg_span all = {row.sid, 1, UINT64_MAX, 100000, false};
        cr_assert_eq(eg_walk_run(&w, &all, count_event, &last), SQLITE_OK);
        cr_assert_eq(last, row.cursor);
    }
    eg_walk_close(&w);
    (void)sqlite3_close(db);
    store_close(s);
    scratch_drop(dir);
}

/* Beside the writer: what is written out between the look into the tail and the read is in both. */
Test(runs, an_event_in_the_tail_and_in_a_run_comes_once)
{
    char dir[64], why[256];
    eg_sq_gather = 5;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_filled(s, "a", 30, "x");
    for (int down = 0; down < 2; down++) {
        struct eg_span span = {row.sid, 1, UINT64_MAX, 1000, down == 1};
        struct eg_walk w;
        sqlite3 *db = NULL;
        bool seen[200] = {false};
        append_n(s, &row, 3);
        const uint64_t head = row.cursor;
        span.to = head;
        cr_assert_eq(eg_db_open_ro(scratch_path(dir, EG_DB_NAME), false, &db, why, sizeof(why)),
                     EG_OK);
        eg_walk_open(&w, db);
        cr_assert_eq(eg_walk_look(&w, scratch_path(dir, EG_DB_NAME), &span), SQLITE_OK);
        cr_assert_gt(w.found, 0);
        append_n(s, &row, 30);
        cr_assert_eq(eg_walk_run(&w, &span, see_once, seen), SQLITE_OK);
        for (uint64_t c = 1; c <= head; c++) {
            cr_assert(seen[c], "event %d", (int)c);
        }
        eg_walk_close(&w);
        sqlite3_close(db);
    }
    store_close(s);
    scratch_drop(dir);
}

/* Only what follows each other becomes one row of places. */
Test(runs, a_gap_between_cursors_moves_no_place)
{
    char dir[64];
    eg_sq_gather = 5;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_filled(s, "a", 2, "x");
    row.cursor = 3;
    append_n(s, &row, 60);
    for (uint64_t c = 1; c <= row.cursor; c++) {
        struct eg_bytes *body = NULL;
        struct eg_event_head head;
        const enum eg_err e = s->ops->event_get(s, row.sid, c, &body);
        cr_assert_eq(e, c == 3 ? EG_ENOTFOUND : EG_OK, "event %d", (int)c);
        if (e == EG_OK) {
            cr_assert_eq(eg_event_read(eg_bytes_slice(body), &head), EG_OK);
            cr_assert_eq(head.cursor, c);
            eg_bytes_unref(body);
        }
    }
    store_close(s);
    scratch_drop(dir);
}

/* The newest events go with their session, and after a restart others get their numbers. */
Test(runs, a_walk_of_another_process_sees_that_numbers_were_used_again)
{
    char dir[64], path[PATH_MAX], why[256];
    struct eg_walk w;
    sqlite3 *db = NULL;
    uint64_t last = 0;
    int removed = 0;
    int64_t bytes = 0;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    struct eg_session_row row = store_session(s, "s");
    struct eg_session_row gone = store_session(s, "gone");
    store_commit(s);
    append_n(s, &row, 5);
    append_n(s, &gone, 10);
    cr_assert_eq(eg_db_path(path, dir, EG_DB_NAME), EG_OK);
    cr_assert_eq(eg_db_open_ro(path, false, &db, why, sizeof why), EG_OK, "%s", why);
    eg_walk_open(&w, db);
    const struct eg_span all = {row.sid, 1, UINT64_MAX, 100000, false};
    cr_assert_eq(eg_walk_run(&w, &all, count_event, &last), SQLITE_OK);
    cr_assert_eq(last, row.cursor);
    store_begin(s);
    s->ops->events_trim(s, gone.sid, gone.cursor + 1, 100, &removed, &bytes);
    s->ops->session_delete(s, gone.sid);
    store_commit(s);
    cr_assert_eq(removed, 10);
    store_close(s);
    s = store_must_open(dir);
    append_n(s, &row, 20);
    last = 0;
    cr_assert_eq(eg_walk_run(&w, &all, count_event, &last), SQLITE_OK);
    cr_assert_eq(last, row.cursor);
    eg_walk_close(&w);
    (void)sqlite3_close(db);
    store_close(s);
    scratch_drop(dir);
}

/* ---- without memory ---- */

static bool take_any(void *arg, uint64_t cursor, sqlite3_stmt *st)
{
    (void)arg;
    (void)cursor;
    (void)st;
    return true;
}

Test(runs, a_walk_of_another_process_that_found_no_memory_misses_nothing_later)
{
    char dir[64], path[PATH_MAX], why[256];
    struct eg_walk w;
    sqlite3 *db = NULL;
    bool failed = true;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    struct eg_session_row row = store_session(s, "s");
    store_commit(s);
    append_n(s, &row, 20);
    cr_assert_eq(eg_db_path(path, dir, EG_DB_NAME), EG_OK);
    for (int n = 0; failed; n++) {
        const struct eg_span all = {row.sid, 1, UINT64_MAX, 100, false};
        uint64_t last = 0;
        cr_assert_eq(eg_db_open_ro(path, false, &db, why, sizeof why), EG_OK, "%s", why);
        eg_walk_open(&w, db);
        failing_order(n);
        const int rc = eg_walk_run(&w, &all, take_any, NULL);
        failed = failing_done();
        cr_assert_eq(rc, failed ? SQLITE_NOMEM : SQLITE_OK);
        cr_assert_eq(eg_walk_run(&w, &all, count_event, &last), SQLITE_OK);
        cr_assert_eq(last, row.cursor);
        eg_walk_close(&w);
        (void)sqlite3_close(db);
    }
    store_close(s);
    scratch_drop(dir);
}

#define FEW 60

/* Commits FEW events, one each, the nth allocation within a commit failing; after each of them all
 * ids are known. False when there are fewer allocations. */
static bool short_of_memory_once(int n)
{
    struct life *l = calloc(1, sizeof(*l));
    cr_assert_neq(l, NULL);
    scratch_make(l->dir);
    l->s = store_must_open(l->dir);
    store_begin(l->s);
    l->row[0] = store_session(l->s, "s");
    l->low[0] = 1;
    store_commit(l->s);
    failing_order(n);
    failing_hold(true);
    while (l->row[0].cursor < FEW) {
        const struct eg_session_row before = l->row[0];
        uint8_t idkey[EG_IDKEY_BYTES];
        store_begin(l->s);
        id_of(0, before.cursor + 1, idkey);
        store_event(l->s, &l->row[0], "x", idkey, STOREFIX_TIME);
        l->s->ops->session_update(l->s, &l->row[0]);
        l->has_id[0][l->row[0].cursor] = true;
        failing_hold(false);
        const enum eg_err e = l->s->ops->commit(l->s);
        failing_hold(true);
        if (e != EG_OK) {
            cr_assert_eq(e, EG_ENOMEM);
            l->row[0] = before;
        }
        for (uint64_t c = 1; c <= l->row[0].cursor + 1; c++) {
            check_event(l, 0, c);
        }
    }
    const bool failed = failing_done();
    store_close(l->s);
    scratch_drop(l->dir);
    free(l);
    return failed;
}

Test(runs, without_memory_for_a_moment_no_id_is_forgotten, .timeout = 100)
{
    int n = 0;
    eg_sq_gather = 5;
    while (short_of_memory_once(n)) {
        n++;
    }
    cr_assert_gt(n, 20, "%d", n);
}

/* One more event with an id in the first session, in a transaction of its own. */
static void publish(struct life *l)
{
    uint8_t idkey[EG_IDKEY_BYTES];
    store_begin(l->s);
    id_of(0, l->row[0].cursor + 1, idkey);
    store_event(l->s, &l->row[0], "x", idkey, STOREFIX_TIME);
    l->s->ops->session_update(l->s, &l->row[0]);
    store_commit(l->s);
    l->has_id[0][l->row[0].cursor] = true;
}

/* A session with n events with ids, one a transaction; gather is what it was. */
static struct life *live_short(uint32_t gather, int n)
{
    struct life *l = calloc(1, sizeof(*l));
    cr_assert_neq(l, NULL);
    eg_sq_gather = gather;
    scratch_make(l->dir);
    l->s = store_must_open(l->dir);
    store_begin(l->s);
    l->row[0] = store_session(l->s, "s");
    l->low[0] = 1;
    store_commit(l->s);
    for (int i = 0; i < n; i++) {
        publish(l);
    }
    return l;
}

static void must_know_all(struct life *l)
{
    for (uint64_t c = 1; c <= l->row[0].cursor + 1; c++) {
        check_event(l, 0, c);
    }
}

/* With the nth allocation failing, or all from there on: it is open and knows all, or says why not.
 * False when there are fewer allocations. */
static bool open_short_of_memory(struct life *l, int n, bool all)
{
    char why[512] = "";
    (all ? failing_order_all : failing_order)(n);
    const enum eg_err e = eg_sqlite_open(l->dir, &l->s, why, sizeof(why));
    const bool failed = failing_done();
    if (e != EG_OK) {
        cr_assert(failed);
        cr_assert_eq(e, EG_ENOMEM, "%d: %s", n, eg_err_text(e));
        l->s = store_must_open(l->dir);
    }
    must_know_all(l);
    store_close(l->s);
    return failed;
}

Test(runs, opening_without_memory_for_a_moment_is_refused_or_knows_all, .timeout = 100)
{
    struct life *l = live_short(5, FEW);
    int n = 0;
    store_close(l->s);
    while (open_short_of_memory(l, n, false)) {
        n++;
    }
    cr_assert_gt(n, 5, "%d", n);
    scratch_drop(l->dir);
    free(l);
}

/* Here opening has much to write out. */
Test(runs, opening_without_memory_comes_to_an_end, .timeout = 100)
{
    bool failed = true;
    for (int n = 0; failed; n++) {
        struct life *l = live_short(100000, FEW);
        store_close(l->s);
        eg_sq_gather = 5;
        failed = open_short_of_memory(l, n, true);
        scratch_drop(l->dir);
        free(l);
    }
}

Test(runs, closing_without_memory_comes_to_an_end, .timeout = 100)
{
    bool failed = true;
    for (int n = 0; failed; n++) {
        struct life *l = live_short(20, 20);
        cr_assert(eg_tail_merging(((const struct eg_sqlite *)l->s)->tail), "there is work to do");
        failing_order_all(n);
        store_close(l->s);
        failed = failing_done();
        l->s = store_must_open(l->dir);
        must_know_all(l);
        store_close(l->s);
        scratch_drop(l->dir);
        free(l);
    }
}

Test(runs, a_list_of_runs_that_makes_no_sense_is_refused)
{
    char why[512] = "";
    struct life *l = live_short(5, FEW);
    store_close(l->s);
    (void)store_sql(l->dir, "INSERT INTO runs(state,level,first_seq,last_seq,entries,stale,max_sid)"
                            " VALUES(0,1,1000,2000,10,0,1)"); /* made of nothing */
    cr_assert_eq(eg_sqlite_open(l->dir, &l->s, why, sizeof(why)), EG_ECORRUPT);
    cr_assert_neq(strstr(why, "ebbgate.db"), NULL, "\"%s\"", why);
    scratch_drop(l->dir);
    free(l);
}

/* ---- at the cap of the filters ---- */

#define BLOCK 64 /* bytes of a block of a filter */

static const struct eg_runs *runs_of(const struct life *l)
{
    return &((const struct eg_sqlite *)l->s)->runs;
}

/* A filter that does not fit is made of half as much; one that does not fit then either is not
 * made, and the run itself is asked. All ids are known in any case. */
static void one_run_with(size_t blocks, uint32_t expected, int least, int most)
{
    struct life *l;
    eg_runs_filter_bytes = blocks * BLOCK;
    l = live_short(100000, 3200);
    store_close(l->s);
    eg_sq_gather = 3200 / 4; /* many: written out at opening, as one run */
    for (int i = 0; i < 2; i++) {
        l->s = store_must_open(l->dir);
        while (i == 1 && expected > 0 && !runs_of(l)->v[0].whole) { /* read from the run */
            store_begin(l->s);
            store_event(l->s, &l->row[0], "x", NULL, STOREFIX_TIME);
            l->s->ops->session_update(l->s, &l->row[0]);
            store_commit(l->s);
        }
        cr_assert_eq(runs_of(l)->n, 1);
        cr_assert_eq(runs_of(l)->v[0].entries, 3200);
        cr_assert_eq(runs_of(l)->v[0].blocks, expected, "%u", runs_of(l)->v[0].blocks);
        cr_assert_eq(runs_of(l)->v[0].whole, expected > 0);
        must_know_all(l);
        const int n = read_for_new_ids(l);
        cr_assert(n >= least && n <= most, "read %d times", n);
        store_close(l->s);
    }
    scratch_drop(l->dir);
    free(l);
}

Test(runs, a_filter_with_room_is_seldom_mistaken)
{
    one_run_with(101, 101, 0, NEW_IDS / 100);
}

Test(runs, a_filter_with_half_the_room_is_more_often_mistaken)
{
    one_run_with(100, 51, NEW_IDS / 200, NEW_IDS / 20);
    one_run_with(51, 51, NEW_IDS / 200, NEW_IDS / 20);
}

Test(runs, without_room_for_a_filter_the_run_is_asked)
{
    one_run_with(50, 0, NEW_IDS, NEW_IDS);
}

/* The memory is shared by what there is, also while runs come and go. */
Test(runs, filters_stay_within_their_room)
{
    struct life *l;
    int without = 0;
    eg_runs_filter_bytes = 8 * BLOCK;
    l = live_short(20, 0);
    for (int i = 0; i < 1500; i++) {
        size_t blocks = 0;
        publish(l);
        for (int k = 0; k < runs_of(l)->n; k++) {
            const struct eg_run *run = &runs_of(l)->v[k];
            cr_assert_eq(run->blocks > 0, run->filter != NULL);
            blocks += run->blocks;
            without += run->state == EG_RUN_LIVE && run->filter == NULL;
        }
        cr_assert_leq(blocks * BLOCK, eg_runs_filter_bytes);
    }
    cr_assert_gt(without, 0);
    must_know_all(l);
    store_close(l->s);
    scratch_drop(l->dir);
    free(l);
}

/* ---- ended between two rows of ids ---- */

/* The rows of ids that a merge under way has written. */
static int64_t rows_of_merge(const char *dir)
{
    return store_sql(dir, "SELECT count(*) FROM runs r JOIN run_ids i"
                          " ON i.place BETWEEN r.run<<40 AND r.run<<40|0xffffffffff"
                          " WHERE r.state=0 AND r.level>0");
}

/* How many ids the runs in use hold. */
static int64_t ids_in_runs(const char *dir)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    int64_t n = 0;
    cr_assert_eq(sqlite3_open(scratch_path(dir, EG_DB_NAME), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db,
                                    "SELECT i.ids FROM runs r JOIN run_ids i"
                                    " ON i.place BETWEEN r.run<<40 AND r.run<<40|0xffffffffff"
                                    " WHERE r.state=1",
                                    -1, &st, NULL),
                 SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
        struct eg_packed_ids ids;
        cr_assert(eg_packed_ids_open(&ids, 0, eg_db_blob(st, 0)));
        n += ids.n;
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
    return n;
}

/* The writer ends whenever a merge rests behind a row; the next one goes on behind that row. */
Test(runs, a_merge_that_ends_between_two_rows_of_ids_forgets_and_doubles_none, .timeout = 60)
{
    struct life *l = live_short(1200, 4800);
    int64_t rows = 0;
    int ends = 0;
    while (store_sql(l->dir, "SELECT count(*) FROM runs WHERE state=1 AND level=1") == 0) {
        publish(l);
        const int64_t now = rows_of_merge(l->dir);
        if (now > rows) {
            store_close(l->s);
            l->s = store_must_open(l->dir);
            ends++;
        }
        rows = now;
    }
    cr_assert_geq(ends, 2);
    must_know_all(l);
    store_close(l->s);
    cr_assert_eq(ids_in_runs(l->dir),
                 store_sql(l->dir, "SELECT value FROM meta WHERE key='indexed'"));
    scratch_drop(l->dir);
    free(l);
}

/* ---- far numbers ---- */

/* The life of live_short, begun where sql has set the counters. */
static void live_far(const char *sql, int n)
{
    struct eg_check_result out;
    char why[512] = "";
    struct life *l = live_short(5, 1);
    store_close(l->s);
    (void)store_sql(l->dir, sql);
    l->s = store_must_open(l->dir);
    store_begin(l->s);
    l->row[0] = store_session(l->s, "far");
    store_commit(l->s);
    for (int i = 0; i < n; i++) {
        publish(l);
        if (i % 50 == 49) {
            store_close(l->s);
            l->s = store_must_open(l->dir);
        }
        must_know_all(l);
    }
    cr_assert_eq(eg_sqlite_verify(l->dir, NULL, true, no_fault, NULL, NULL, &out, why, sizeof(why)),
                 EG_OK, "%s", why);
    cr_assert_eq(out.events, n + 1);
    store_close(l->s);
    scratch_drop(l->dir);
    free(l);
}

Test(runs, sessions_of_the_highest_numbers_are_found)
{
    live_far("UPDATE sqlite_sequence SET seq=9223372036854775806 WHERE name='sessions'", 300);
}

Test(runs, runs_of_high_numbers_are_found)
{
    live_far("INSERT OR REPLACE INTO sqlite_sequence(rowid,name,seq)"
             " VALUES((SELECT rowid FROM sqlite_sequence WHERE name='runs'),'runs',8388600)",
             300);
}

/* ---- under retention ---- */

/* A session that keeps its last events, trimmed once in `each`: what remains of its runs is merged,
 * however old, and what is in them is counted. */
static void keep_last(uint64_t keep, int each)
{
    struct life *l = live_short(5, 0);
    struct eg_session_row *row = &l->row[0];
    for (int i = 0; i < 5000; i++) {
        int removed = 0;
        int64_t bytes = 0;
        store_begin(l->s);
        store_event(l->s, row, "x", NULL, STOREFIX_TIME);
        if (i % each == 0 && row->cursor > keep) {
            row->oldest = row->cursor + 1 - keep;
            cr_assert_eq(l->s->ops->event_hash(l->s, row->sid, row->oldest - 1, row->floor_hash),
                         EG_OK);
            l->s->ops->events_trim(l->s, row->sid, row->oldest, 40, &removed, &bytes);
            row->bytes -= bytes;
        }
        l->s->ops->session_update(l->s, row);
        store_commit(l->s);
        if (i % 697 == 0) {
            store_close(l->s);
            l->s = store_must_open(l->dir);
        }
        cr_assert_lt(runs_of(l)->n, 26, "%d runs after %d events", runs_of(l)->n, i);
    }
    l->low[0] = row->oldest;
    must_know_all(l);
    store_close(l->s);
    must_count_right(l->dir);
    must_leave_out(l->dir);
    scratch_drop(l->dir);
    free(l);
}

Test(runs, those_that_retention_emptied_do_not_pile_up, .timeout = 60)
{
    keep_last(3, 10);
}

/* Here what is removed is in the runs whose merge begins in the same transaction. */
Test(runs, what_is_removed_as_a_merge_begins_is_left_out, .timeout = 60)
{
    keep_last(17, 1);
}
