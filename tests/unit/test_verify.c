/*
 * test_verify.c - every kind of damage to a log is found, told once, and located.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/storefix.h"
#include "store/sqlite_int.h"

struct report {
    int n;
    char text[16384];
};

static void note(void *arg, const char *text)
{
    struct report *r = arg;
    size_t at = strlen(r->text);
    r->n++;
    (void)snprintf(r->text + at, sizeof(r->text) - at, "%s\n", text);
}

/* Verifies dir; the faults are in *r. */
static struct eg_check_result verify(const char *dir, const char *session, bool deep,
                                     struct report *r)
{
    struct eg_check_result out;
    char why[512] = "";
    memset(r, 0, sizeof(*r));
    enum eg_err e = eg_sqlite_verify(dir, session, deep, note, NULL, r, &out, why, sizeof(why));
    cr_assert_eq(e, EG_OK, "%s", why);
    cr_assert_eq(out.faults, r->n);
    return out;
}

/* A folder with sessions "left" (5 events), "mid" (2500) and "right" (5), closed cleanly. */
static void prepare(char dir[64])
{
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "left", 5, "one");
    (void)store_filled(s, "mid", 2500, "two");
    (void)store_filled(s, "right", 5, "three");
    store_close(s);
}

/* Alters a fresh folder by sql and expects exactly one fault that holds text. */
static void expect(const char *sql, const char *text)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, sql);
    (void)verify(dir, NULL, false, &r);
    cr_expect_eq(r.n, 1, "%s: %d faults: %s", sql, r.n, r.text);
    cr_expect_neq(strstr(r.text, text), NULL, "%s: not \"%s\" but: %s", sql, text, r.text);
    scratch_drop(dir);
}

Test(verify, a_whole_log_has_no_fault)
{
    char dir[64];
    struct report r;
    prepare(dir);
    struct eg_check_result out = verify(dir, NULL, true, &r);
    cr_assert_eq(r.n, 0, "%s", r.text);
    cr_assert_eq(out.sessions, 3);
    cr_assert_eq(out.events, 2510);
    out = verify(dir, "mid", false, &r);
    cr_assert_eq(r.n, 0);
    cr_assert_eq(out.sessions, 1);
    cr_assert_eq(out.events, 2500);
    scratch_drop(dir);
}

Test(verify, an_empty_database_is_whole)
{
    char dir[64];
    struct report r;
    scratch_make(dir);
    store_close(store_must_open(dir));
    struct eg_check_result out = verify(dir, NULL, true, &r);
    cr_assert_eq(r.n + out.sessions + out.events, 0);
    scratch_drop(dir);
}

Test(verify, an_altered_event_is_found)
{
    expect("UPDATE events SET body=CAST(replace(CAST(body AS TEXT),'\"two\"','\"TWO\"') AS BLOB)"
           " WHERE cursor=1700",
           "session mid: event 1700 is not what was written");
}

Test(verify, an_altered_hash_is_found)
{
    /* Two links break: into the event and out of it. */
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "UPDATE events SET hash=zeroblob(32) WHERE cursor=1700");
    (void)verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 2, "%s", r.text);
    cr_assert_neq(strstr(r.text, "event 1700 "), NULL);
    cr_assert_neq(strstr(r.text, "event 1701 "), NULL);
    scratch_drop(dir);
}

/* Of most hashes the first bytes are stored: one that is wrong is told from a wrong event. */
Test(verify, an_altered_part_of_a_hash_is_found_once)
{
    expect("UPDATE events SET hash=x'00000000' WHERE cursor=1700",
           "session mid: event 1700 is not what was written");
    expect("UPDATE events SET hash=x'00000000' WHERE cursor=2500",
           "session mid: event 2500 is not what was written");
    expect("UPDATE events SET hash=x'0000' WHERE cursor=1700",
           "session mid: event 1700 has no hash");
}

/* The chain is taken up again at the next whole hash. */
Test(verify, alterations_that_lie_apart_are_found_each)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "UPDATE events SET body=CAST(replace(CAST(body AS TEXT),'\"two\"',"
                         "'\"TWO\"') AS BLOB) WHERE cursor IN (15,32,1700,2500)");
    (void)verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 4, "%s", r.text);
    cr_assert_neq(strstr(r.text, "event 15 "), NULL);
    cr_assert_neq(strstr(r.text, "event 32 "), NULL);
    cr_assert_neq(strstr(r.text, "event 1700 "), NULL);
    cr_assert_neq(strstr(r.text, "event 2500 "), NULL);
    scratch_drop(dir);
}

Test(verify, a_hole_is_found)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "DELETE FROM events WHERE cursor BETWEEN 1000 AND 1001");
    (void)verify(dir, NULL, false, &r);
    cr_assert_neq(strstr(r.text, "session mid: events 1000 to 1001 are missing"), NULL, "%s",
                  r.text);
    cr_assert_neq(strstr(r.text, "its row says"), NULL, "the bytes are missing too: %s", r.text);
    cr_assert_eq(r.n, 2);
    scratch_drop(dir);
}

Test(verify, a_cut_tail_is_found)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "DELETE FROM events WHERE cursor>2498");
    (void)verify(dir, NULL, false, &r);
    cr_assert_neq(strstr(r.text, "session mid: events 2499 to 2500 are missing"), NULL, "%s",
                  r.text);
    scratch_drop(dir);
}

Test(verify, a_tail_cut_with_its_head_is_found_by_the_hash)
{
    expect("DELETE FROM events WHERE cursor=2500;"
           "UPDATE sessions SET cursor=2499, bytes=(SELECT sum(length(body)) FROM events e"
           " WHERE e.sid=sessions.sid) WHERE id='mid'",
           "session mid: the hash of its head is not that of event 2499");
}

Test(verify, a_moved_floor_is_found_by_the_hash)
{
    expect("DELETE FROM events WHERE cursor=1 AND sid=2;"
           "UPDATE sessions SET oldest=2, bytes=(SELECT sum(length(body)) FROM events e"
           " WHERE e.sid=sessions.sid) WHERE id='mid'",
           "session mid: event 2 is not what was written, or not in its place");
}

Test(verify, a_floor_beyond_the_head_is_found)
{
    expect("UPDATE sessions SET oldest=cursor+2 WHERE id='mid'",
           "session mid: its floor 2502 does not fit its head 2500");
}

Test(verify, swapped_events_are_found)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "UPDATE events SET cursor=-7 WHERE sid=2 AND cursor=7;"
                         "UPDATE events SET cursor=7 WHERE sid=2 AND cursor=8;"
                         "UPDATE events SET cursor=8 WHERE sid=2 AND cursor=-7");
    (void)verify(dir, NULL, false, &r);
    cr_assert_neq(strstr(r.text, "event 7 says it is event 8 of mid"), NULL, "%s", r.text);
    cr_assert_neq(strstr(r.text, "event 8 says it is event 7 of mid"), NULL, "%s", r.text);
    scratch_drop(dir);
}

Test(verify, an_event_of_another_session_is_found)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "UPDATE events SET body=(SELECT body FROM events WHERE sid=1 AND cursor=3)"
                         " WHERE sid=3 AND cursor=3");
    (void)verify(dir, NULL, false, &r);
    cr_assert_neq(strstr(r.text, "session right: event 3 says it is event 3 of left"), NULL, "%s",
                  r.text);
    scratch_drop(dir);
}

Test(verify, events_beyond_the_head_are_found)
{
    expect("UPDATE sessions SET cursor=2496,"
           " hash=(SELECT hash FROM events WHERE sid=2 AND cursor=2496),"
           " bytes=(SELECT sum(length(body)) FROM events WHERE sid=2 AND cursor<2497)"
           " WHERE id='mid'",
           "session mid: event 2497 lies beyond the head 2496");
}

/* What lies between is not looked through cursor by cursor. */
Test(verify, an_event_far_beyond_the_head_is_found, .timeout = 30)
{
    char dir[64];
    struct report r;
    prepare(dir);
    (void)store_sql(dir, "UPDATE events SET cursor=1<<60 WHERE sid=2 AND cursor=2500");
    (void)verify(dir, NULL, false, &r);
    cr_assert_neq(strstr(r.text, "event 1152921504606846976 lies beyond the head 2500"), NULL, "%s",
                  r.text);
    scratch_drop(dir);
}

Test(verify, rows_of_no_session_are_found)
{
    expect("DELETE FROM sessions WHERE id='right'", "of session number 3");
    expect("INSERT INTO turns VALUES(99,1,0,0,0,0,'','')", "turns of session number 99");
    expect("INSERT INTO acks VALUES(98,'ann',1)", "acks of session number 98");
    expect("INSERT INTO turns VALUES(1,6,0,0,0,0,'','')", "session left: turn 6 has no message");
}

Test(verify, a_wrong_count_of_bytes_is_found)
{
    expect("UPDATE sessions SET bytes=bytes+1 WHERE id='mid'", "its row says");
}

Test(verify, a_floor_without_a_hash_is_found)
{
    expect("UPDATE sessions SET floor_hash=randomblob(32) WHERE id='left'",
           "session left: nothing was removed, yet there is a hash for it");
}

Test(verify, one_session_is_checked_alone)
{
    char dir[64];
    char why[512] = "";
    struct report r;
    struct eg_check_result out;
    prepare(dir);
    (void)store_sql(dir, "DELETE FROM events WHERE sid=2 AND cursor=9");
    (void)verify(dir, "left", false, &r);
    cr_assert_eq(r.n, 0);
    (void)verify(dir, "mid", false, &r);
    cr_assert_eq(r.n, 2);
    cr_assert_eq(eg_sqlite_verify(dir, "none", false, note, NULL, &r, &out, why, sizeof(why)),
                 EG_ENOTFOUND);
    cr_assert_neq(strstr(why, "none"), NULL);
    scratch_drop(dir);
}

/* The deep check compares the tables of the index with the log. */
Test(verify, an_index_that_differs_from_the_log_is_found)
{
    static const struct {
        const char *sql, *text;
    } cases[] = {
        {"UPDATE run_ids SET ids=CAST(substr(ids,1,length(ids)-2) AS BLOB)",
         "the id is not known of event"},
        {"UPDATE run_ids SET ids=CAST(substr(ids,1,length(ids)-1)||x'00' AS BLOB)",
         "the id is not known of event"},
        {"UPDATE run_ids SET ids=CAST(substr(ids,1,10)||x'010101010101'||substr(ids,17) AS BLOB)",
         "an id is kept that is not in row"},
        {"UPDATE run_ids SET ids=x'00'", "ids are damaged in row"},
        {"DELETE FROM run_ids", "the id is not known of event"},
        {"UPDATE events SET idkey=x'00' WHERE seq=1", "a key of the wrong length is in event 1"},
        {"DELETE FROM run_places WHERE last=(SELECT min(last) FROM run_places)",
         "the index does not lead to event 5 "},
        {"UPDATE run_places SET seqs=CAST(x'02'||substr(seqs,2) AS BLOB) WHERE last=(SELECT"
         " min(last) FROM run_places)",
         "the index does not lead to event 5 "},
        {"UPDATE run_places SET last=last+1000", "the index has a place for what is not event"},
        {"UPDATE run_places SET sid=77", "of session number 77"},
        {"UPDATE run_places SET seqs=x'8080'", "the index is damaged at event"},
        {"DELETE FROM runs", "the index does not lead to event"},
        {"UPDATE runs SET first_seq=7 WHERE first_seq=1", "the index does not lead to event 5 "},
    };
    eg_sq_gather = 8;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char dir[64];
        struct report r;
        scratch_make(dir);
        struct eg_storage *s = store_must_open(dir);
        struct eg_session_row row = store_filled(s, "s", 1, "x");
        for (uint8_t n = 0; n < 60; n++) {
            uint8_t idkey[EG_IDKEY_BYTES];
            eg_idkey('m', EG_LIT("o"), (struct eg_slice){(const char *)&n, 1}, idkey);
            store_begin(s);
            store_event(s, &row, "x", idkey, STOREFIX_TIME);
            s->ops->session_update(s, &row);
            store_commit(s);
        }
        store_close(s);
        cr_assert_gt(store_sql(dir, "SELECT value FROM meta WHERE key='indexed'"), 40);
        cr_assert_lt(store_sql(dir, "SELECT value FROM meta WHERE key='indexed'"), 60,
                     "some are in the log alone");
        (void)verify(dir, NULL, true, &r);
        cr_assert_eq(r.n, 0, "%s", r.text);
        (void)store_sql(dir, cases[i].sql);
        (void)verify(dir, NULL, true, &r);
        cr_assert_geq(r.n, 1, "%s", cases[i].sql);
        cr_assert_neq(strstr(r.text, cases[i].text), NULL, "%s: %s", cases[i].sql, r.text);
        scratch_drop(dir);
    }
}

/* Floor first, then events in steps, as the core does it: whole at every moment. */
Test(verify, a_trim_under_way_is_no_fault)
{
    char dir[64];
    struct report r;
    int removed = 0;
    int64_t bytes = 0;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_filled(s, "s", 100, "x");
    row.oldest = 61;
    store_begin(s);
    cr_assert_eq(s->ops->event_hash(s, row.sid, 60, row.floor_hash), EG_OK);
    s->ops->session_update(s, &row);
    store_commit(s);
    (void)verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 0, "floor moved, nothing removed: %s", r.text);
    for (int step = 0; step < 3; step++) {
        store_begin(s);
        s->ops->events_trim(s, row.sid, row.oldest, 25, &removed, &bytes);
        row.bytes -= bytes;
        s->ops->session_update(s, &row);
        store_commit(s);
        (void)verify(dir, NULL, false, &r);
        cr_assert_eq(r.n, 0, "step %d: %s", step, r.text);
    }
    row.oldest = 101;
    store_begin(s);
    cr_assert_eq(s->ops->event_hash(s, row.sid, 100, row.floor_hash), EG_OK);
    s->ops->events_trim(s, row.sid, row.oldest, 1000, &removed, &bytes);
    row.bytes -= bytes;
    s->ops->session_update(s, &row);
    store_commit(s);
    cr_assert_eq(row.bytes, 0);
    (void)verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 0, "all trimmed: %s", r.text);
    store_begin(s);
    store_event(s, &row, "again", NULL, STOREFIX_TIME);
    s->ops->session_update(s, &row);
    store_commit(s);
    struct eg_check_result out = verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 0, "and the chain goes on: %s", r.text);
    cr_assert_eq(out.events, 1);
    store_close(s);
    scratch_drop(dir);
}

struct race {
    struct eg_storage *s;
    struct eg_session_row row;
};

/* After each page: a thousand events come, and the floor moves past all that was read. */
static void outrun(void *arg, int64_t done, int64_t total)
{
    struct race *r = arg;
    (void)done;
    (void)total;
    store_begin(r->s);
    for (int i = 0; i < 1001; i++) {
        store_event(r->s, &r->row, "x", NULL, STOREFIX_TIME);
    }
    r->row.oldest += 1001;
    cr_assert_eq(r->s->ops->event_hash(r->s, r->row.sid, r->row.oldest - 1, r->row.floor_hash),
                 EG_OK);
    r->s->ops->session_update(r->s, &r->row);
    store_commit(r->s);
}

Test(verify, a_session_trimmed_faster_than_it_is_read_is_not_called_checked, .timeout = 60)
{
    char dir[64];
    char why[512] = "";
    struct race r = {NULL, {0}};
    struct eg_check_result out;
    scratch_make(dir);
    r.s = store_must_open(dir);
    (void)store_filled(r.s, "calm", 5, "x");
    r.row = store_filled(r.s, "fast", 2500, "x");
    cr_assert_eq(eg_sqlite_verify(dir, NULL, false, NULL, outrun, &r, &out, why, sizeof(why)),
                 EG_OK);
    cr_assert_eq(out.sessions, 2);
    cr_assert_eq(out.events, 5);
    cr_assert_eq(out.faults, 0);
    cr_assert_eq(out.missed, 1);
    cr_assert_eq(eg_sqlite_verify(dir, NULL, false, NULL, NULL, NULL, &out, why, sizeof(why)),
                 EG_OK);
    cr_assert_eq(out.faults + out.missed, 0);
    store_close(r.s);
    scratch_drop(dir);
}

Test(verify, a_session_on_its_way_out_is_only_counted)
{
    char dir[64];
    struct report r;
    int removed = 0;
    int64_t bytes = 0;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_filled(s, "s", 10, "x");
    store_begin(s);
    row.state = EG_SESSION_DELETING;
    s->ops->session_update(s, &row);
    s->ops->events_trim(s, row.sid, 6, 100, &removed, &bytes);
    store_commit(s);
    struct eg_check_result out = verify(dir, NULL, false, &r);
    cr_assert_eq(r.n, 0, "%s", r.text);
    cr_assert_eq(out.sessions, 1);
    cr_assert_eq(out.events, 0);
    store_close(s);
    scratch_drop(dir);
}

Test(verify, damaged_pages_are_faults_and_the_rest_is_still_checked)
{
    char dir[64];
    struct report r;
    size_t n = 0;
    eg_sq_gather = 100; /* so that most of the log is found by its tables */
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    (void)store_filled(s, "left", 5, "one");
    (void)store_filled(s, "mid", 2500, "two");
    for (int i = 0; i < 60; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "more-%d", i);
        (void)store_filled(s, id, 50, "x");
    }
    (void)store_filled(s, "right", 5, "three");
    store_close(s);
    char *file = scratch_read(scratch_path(dir, "ebbgate.db"), &n);
    /* A page of the log: it holds events of "mid". */
    size_t page = 0;
    for (size_t at = 8192; at + 8192 <= n && page == 0; at += 8192) {
        if (file[at] == 0x0d && memmem(file + at, 8192, "\"session_id\":\"mid\"", 18) != NULL) {
            page = at;
        }
    }
    cr_assert_gt(page, 0);
    memset(file + page, 0xff, 8192);
    scratch_write(scratch_path(dir, "ebbgate.db"), file, n);
    free(file);
    struct eg_check_result out = verify(dir, NULL, true, &r);
    cr_assert_geq(r.n, 2, "%s", r.text);
    cr_assert_neq(strstr(r.text, "database: "), NULL, "%s", r.text);
    cr_assert_neq(strstr(r.text, "cannot be read"), NULL, "%s", r.text);
    cr_assert_eq(out.sessions, 63);
    (void)verify(dir, "right", false, &r);
    cr_assert_eq(r.n, 0, "%s", r.text);
    scratch_drop(dir);
}

static void remember(void *arg, int64_t done, int64_t total)
{
    int64_t *last = arg;
    cr_assert_leq(done, total);
    cr_assert_geq(done, last[0]);
    last[0] = done;
    last[1] = total;
}

Test(verify, progress_reaches_its_total)
{
    char dir[64];
    struct eg_check_result out;
    char why[256];
    int64_t last[2] = {-1, -2};
    prepare(dir);
    cr_assert_eq(eg_sqlite_verify(dir, NULL, false, NULL, remember, last, &out, why, sizeof(why)),
                 EG_OK);
    cr_assert_eq(last[0], 2510);
    cr_assert_eq(last[1], 2510);
    scratch_drop(dir);
}

Test(verify, there_must_be_a_database)
{
    char dir[64];
    char why[256] = "";
    struct eg_check_result out;
    scratch_make(dir);
    cr_assert_eq(eg_sqlite_verify(dir, NULL, false, NULL, NULL, NULL, &out, why, sizeof(why)),
                 EG_ENOTFOUND);
    cr_assert_neq(strstr(why, "ebbgate.db"), NULL);
    scratch_write(scratch_path(dir, "ebbgate.db"),
                  "this is not a database at all, not even close "
                  "to one, however long it may seem to be........",
                  92);
    cr_assert_eq(eg_sqlite_verify(dir, NULL, false, NULL, NULL, NULL, &out, why, sizeof(why)),
                 EG_ECORRUPT);
    scratch_drop(dir);
}
