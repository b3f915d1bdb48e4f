/*
 * test_storage.c - the contract of struct eg_storage_ops, run against SQLite and against memory,
 * and a random comparison of the two.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/memstore.h"
#include "../lib/storefix.h"
#include "store/sqlite_int.h"

struct fix {
    struct eg_storage *s;
    bool memory;
    char dir[64];
};

enum kind { MEMORY, SQLITE, MERGING /* SQLite that merges its ids all the time */ };

static void fix_open(struct fix *f, enum kind kind)
{
    f->memory = kind == MEMORY;
    eg_sq_gather = kind == MERGING ? 3 : 32768;
    eg_sq_gather_heads = kind == MERGING ? 3 : 32768;
    if (f->memory) {
        f->s = memstore_new("01890000-0000-7000-8000-000000000000");
    } else {
        scratch_make(f->dir);
        f->s = store_must_open(f->dir);
    }
}

/* As after a restart of the process. */
static void fix_reopen(struct fix *f)
{
    if (f->memory) {
        f->s = memstore_restart(f->s);
    } else {
        store_close(f->s);
        f->s = store_must_open(f->dir);
    }
}

static void told(void *arg, const char *text)
{
    (void)arg;
    cr_log_error("%s", text);
}

static void fix_close(struct fix *f)
{
    store_close(f->s);
    if (!f->memory) {
        struct eg_check_result out;
        char why[256] = "";
        sqlite3 *db = NULL;
        const struct eg_verify how = {.deep = true, .fault = told};
        memset(&out, 0, sizeof(out));
        cr_assert_eq(
            eg_db_open_ro(scratch_path(f->dir, "ebbgate.db"), false, &db, why, sizeof(why)), EG_OK);
        cr_assert_eq(eg_db_verify_index(db, f->dir, &how, &out, why, sizeof(why)), EG_OK, "%s",
                     why);
        (void)sqlite3_close(db);
        cr_assert_eq(out.faults, 0, "ids and log differ");
        scratch_drop(f->dir);
    }
}

/* Defines a check that runs once for each implementation. f->s may change by fix_reopen. */
#define CONTRACT(name)                                                                             \
    static void name(struct fix *f);                                                               \
    Test(storage_memory, name)                                                                     \
    {                                                                                              \
        struct fix f;                                                                              \
        fix_open(&f, MEMORY);                                                                      \
        name(&f);                                                                                  \
        fix_close(&f);                                                                             \
    }                                                                                              \
    Test(storage_sqlite, name)                                                                     \
    {                                                                                              \
        struct fix f;                                                                              \
        fix_open(&f, SQLITE);                                                                      \
        name(&f);                                                                                  \
        fix_close(&f);                                                                             \
    }                                                                                              \
    Test(storage_merging, name)                                                                    \
    {                                                                                              \
        struct fix f;                                                                              \
        fix_open(&f, MERGING);                                                                     \
        name(&f);                                                                                  \
        fix_close(&f);                                                                             \
    }                                                                                              \
    static void name(struct fix *f)

#define OPS(f) ((f)->s->ops)

static void append(struct fix *f, int64_t sid, uint64_t cursor, const char *idkey, const char *body,
                   size_t n)
{
    uint8_t hash[EG_CHAIN_BYTES];
    memset(hash, (int)cursor, sizeof(hash));
    struct eg_event_row e = {sid, cursor, hash, (const uint8_t *)idkey, {body, n}};
    OPS(f)->event_append(f->s, &e);
}

static struct eg_turn_row turn_of(int64_t sid, uint64_t turn, enum eg_turn_state state,
                                  int64_t created_ms)
{
    return (struct eg_turn_row){.sid = sid, .turn = turn, .state = state, .created_ms = created_ms};
}

/* What callbacks saw, as text. */
struct seen {
    char text[4096];
};

static void see(struct seen *s, const char *fmt, ...)
{
    va_list ap;
    size_t n = strlen(s->text);
    va_start(ap, fmt);
    (void)vsnprintf(s->text + n, sizeof(s->text) - n, fmt, ap);
    va_end(ap);
}

static void see_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    see(arg, "%llu:%.*s ", (unsigned long long)cursor, (int)(body.n < 64 ? body.n : 64), body.p);
}

static void see_turn(void *arg, const struct eg_turn_row *t)
{
    see(arg, "%lld/%llu=%d,%d,%lld,%lld,%s,%s ", (long long)t->sid, (unsigned long long)t->turn,
        (int)t->state, t->attempt, (long long)t->created_ms, (long long)t->until_ms, t->worker,
        t->error);
}

static void see_open(void *arg, int64_t sid, const char *agent, enum eg_turn_state head)
{
    see(arg, "%lld@%s:%d ", (long long)sid, agent, (int)head);
}

static void see_text(void *arg, const char *text, int64_t number)
{
    see(arg, "%s=%lld ", text, (long long)number);
}

CONTRACT(an_empty_store_has_an_epoch_and_nothing_else)
{
    struct eg_epoch epoch, again;
    struct eg_session_row row;
    struct eg_turn_row turn;
    struct eg_bytes *body = NULL;
    struct seen seen = {""};
    uint8_t key[EG_IDKEY_BYTES] = {0};
    uint64_t cursor = 0;
    int64_t n = -1;
    cr_assert_eq(OPS(f)->epoch(f->s, &epoch), EG_OK);
    cr_assert_eq(strlen(epoch.id), 36);
    cr_assert_eq(epoch.until_sid, INT64_MAX);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("x"), &row), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->session_by_sid(f->s, 1, &row), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->turn_get(f->s, 1, 1, &turn), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->event_get(f->s, 1, 1, &body), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->event_by_idkey(f->s, 1, key, &cursor, &body), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->ack_get(f->s, 1, EG_LIT("x"), &cursor), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->count_open_sessions(f->s, EG_LIT("o"), &n), EG_OK);
    cr_assert_eq(n, 0);
    cr_assert_eq(OPS(f)->turns(f->s, 1, see_turn, &seen), EG_OK);
    cr_assert_eq(OPS(f)->open_turns(f->s, see_open, &seen), EG_OK);
    cr_assert_eq(OPS(f)->events(f->s, 1, 0, 10, see_event, &seen), EG_OK);
    cr_assert_eq(OPS(f)->agents(f->s, see_text, &seen), EG_OK);
    cr_assert_eq(OPS(f)->revoked(f->s, see_text, &seen), EG_OK);
    cr_assert_str_empty(seen.text);
    fix_reopen(f);
    cr_assert_eq(OPS(f)->epoch(f->s, &again), EG_OK);
    cr_assert_str_eq(again.id, epoch.id);
    cr_assert_eq(again.until_sid, INT64_MAX);
}

CONTRACT(a_session_is_stored_whole_and_updated)
{
    struct eg_session_row row = {.state = EG_SESSION_OPEN, .oldest = 1, .created_ms = 10};
    struct eg_session_row got;
    (void)strcpy(row.id, "s-1");
    (void)strcpy(row.agent, "support");
    (void)strcpy(row.owner, "Zo\xc3\xab");
    row.updated_ms = 11;
    store_begin(f->s);
    OPS(f)->session_insert(f->s, &row);
    cr_assert_gt(row.sid, 0);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("s-1"), &got), EG_OK, "seen before the commit");
    store_commit(f->s);

    struct eg_session_row to = row;
    (void)strcpy(to.id, "ignored");
    (void)strcpy(to.owner, "ignored");
    (void)strcpy(to.last_worker, "worker-7");
    to.state = EG_SESSION_CLOSED;
    to.cursor = 9007199254740991;
    to.oldest = 77;
    memset(to.hash, 0xa5, sizeof(to.hash));
    memset(to.floor_hash, 0x5a, sizeof(to.floor_hash));
    to.updated_ms = 1795350871896;
    to.closed_ms = 1795350871897;
    to.bytes = 1099511627776;
    store_begin(f->s);
    OPS(f)->session_update(f->s, &to);
    store_commit(f->s);
    fix_reopen(f);

    cr_assert_eq(OPS(f)->session_by_sid(f->s, row.sid, &got), EG_OK);
    cr_assert_str_eq(got.id, "s-1");
    cr_assert_str_eq(got.agent, "support");
    cr_assert_str_eq(got.owner, "Zo\xc3\xab");
    cr_assert_str_eq(got.last_worker, "worker-7");
    cr_assert_eq(got.state, EG_SESSION_CLOSED);
    cr_assert_eq(got.cursor, to.cursor);
    cr_assert_eq(got.oldest, 77);
    cr_assert_arr_eq(got.hash, to.hash, EG_CHAIN_BYTES);
    cr_assert_arr_eq(got.floor_hash, to.floor_hash, EG_CHAIN_BYTES);
    cr_assert_eq(got.created_ms, 10);
    cr_assert_eq(got.updated_ms, to.updated_ms);
    cr_assert_eq(got.closed_ms, to.closed_ms);
    cr_assert_eq(got.bytes, to.bytes);
}

CONTRACT(an_update_of_no_session_fails_the_transaction)
{
    struct eg_session_row got;
    struct eg_session_row ghost = {.sid = 4711, .oldest = 1};
    store_begin(f->s);
    (void)store_session(f->s, "kept?");
    OPS(f)->session_update(f->s, &ghost);
    cr_assert_eq(OPS(f)->commit(f->s), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("kept?"), &got), EG_ENOTFOUND);
}

CONTRACT(a_failing_write_is_latched_and_nothing_remains)
{
    struct eg_session_row got;
    struct seen seen = {""};
    store_begin(f->s);
    struct eg_session_row first = store_session(f->s, "twice");
    store_commit(f->s);
    store_begin(f->s);
    (void)store_session(f->s, "before");
    OPS(f)->agent_put(f->s, EG_LIT("before"), 1);
    (void)store_session(f->s, "twice");
    (void)store_session(f->s, "after");
    OPS(f)->agent_put(f->s, EG_LIT("after"), 1);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("twice"), &got), EG_EEXISTS,
                 "reads tell of the failure too");
    cr_assert_eq(OPS(f)->commit(f->s), EG_EEXISTS);
    OPS(f)->rollback(f->s); /* harmless after a failed commit */
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("before"), &got), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("after"), &got), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->agents(f->s, see_text, &seen), EG_OK);
    cr_assert_str_empty(seen.text);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("twice"), &got), EG_OK);
    cr_assert_eq(got.sid, first.sid);
    store_begin(f->s);
    (void)store_session(f->s, "next");
    store_commit(f->s);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("next"), &got), EG_OK);
}

CONTRACT(a_rollback_takes_everything_back)
{
    struct seen seen = {""};
    struct eg_session_row got;
    int removed = 0;
    int64_t bytes = 0;
    uint64_t cursor = 0;
    struct eg_session_row row = store_filled(f->s, "s", 3, "x");
    struct eg_turn_row turn = turn_of(row.sid, 1, EG_TURN_QUEUED, 5);
    store_begin(f->s);
    OPS(f)->turn_put(f->s, &turn);
    OPS(f)->ack_put(f->s, row.sid, EG_LIT("o"), 2);
    OPS(f)->agent_put(f->s, EG_LIT("a"), 1);
    OPS(f)->revoke(f->s, "sub:x", INT64_MAX);
    store_commit(f->s);

    store_begin(f->s);
    OPS(f)->events_trim(f->s, row.sid, 3, 10, &removed, &bytes);
    cr_assert_eq(removed, 2);
    append(f, row.sid, 4, NULL, "four", 4);
    turn.state = EG_TURN_RUNNING;
    OPS(f)->turn_put(f->s, &turn);
    OPS(f)->turn_delete(f->s, row.sid, 1);
    OPS(f)->ack_put(f->s, row.sid, EG_LIT("o"), 3);
    OPS(f)->agent_delete(f->s, EG_LIT("a"));
    OPS(f)->revoke(f->s, "sub:y", INT64_MAX);
    got = row;
    got.state = EG_SESSION_DELETING;
    OPS(f)->session_update(f->s, &got);
    OPS(f)->session_delete(f->s, row.sid);
    OPS(f)->rollback(f->s);

    fix_reopen(f);
    cr_assert_eq(OPS(f)->session_by_sid(f->s, row.sid, &got), EG_OK);
    cr_assert_eq(got.state, EG_SESSION_OPEN);
    cr_assert_eq(OPS(f)->turns(f->s, row.sid, see_turn, &seen), EG_OK);
    cr_assert_neq(strstr(seen.text, "/1=0,"), NULL, "%s", seen.text);
    seen.text[0] = '\0';
    cr_assert_eq(OPS(f)->events(f->s, row.sid, 0, 10, see_event, &seen), EG_OK);
    cr_assert_eq(strncmp(seen.text, "1:", 2), 0);
    cr_assert_neq(strstr(seen.text, " 3:"), NULL);
    cr_assert_eq(strstr(seen.text, " 4:"), NULL);
    seen.text[0] = '\0';
    cr_assert_eq(OPS(f)->agents(f->s, see_text, &seen), EG_OK);
    cr_assert_eq(OPS(f)->revoked(f->s, see_text, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "a=1 sub:x=9223372036854775807 ");
    cr_assert_eq(OPS(f)->ack_get(f->s, row.sid, EG_LIT("o"), &cursor), EG_OK);
    cr_assert_eq(cursor, 2);
}

/* Whatever part of it is stored, and with a floor anywhere. */
CONTRACT(every_event_has_its_whole_hash)
{
    uint8_t chain[71][EG_CHAIN_BYTES] = {{0}};
    uint8_t hash[EG_CHAIN_BYTES];
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    for (uint64_t i = 1; i <= 70; i++) {
        eg_chain_next(chain[i - 1], EG_LIT("body"), chain[i]);
        struct eg_event_row e = {a.sid, i, chain[i], NULL, EG_LIT("body")};
        OPS(f)->event_append(f->s, &e);
    }
    memcpy(a.hash, chain[70], EG_CHAIN_BYTES);
    a.cursor = 70;
    OPS(f)->session_update(f->s, &a);
    store_commit(f->s);
    fix_reopen(f);
    for (uint64_t floor = 1; floor <= 70; floor += 13) {
        int removed = 0;
        int64_t bytes = 0;
        a.oldest = floor;
        memcpy(a.floor_hash, chain[floor - 1], EG_CHAIN_BYTES);
        store_begin(f->s);
        OPS(f)->session_update(f->s, &a);
        OPS(f)->events_trim(f->s, a.sid, floor, 100, &removed, &bytes);
        store_commit(f->s);
        for (uint64_t i = floor; i <= 70; i++) {
            cr_assert_eq(OPS(f)->event_hash(f->s, a.sid, i, hash), EG_OK);
            cr_assert_arr_eq(hash, chain[i], EG_CHAIN_BYTES);
        }
        cr_assert_eq(OPS(f)->event_hash(f->s, a.sid, 71, hash), EG_ENOTFOUND);
    }
}

CONTRACT(events_are_found_by_cursor_and_by_id)
{
    struct eg_bytes *body = NULL;
    uint64_t cursor = 0;
    struct seen seen = {""};
    char *large = malloc(3000000);
    cr_assert_neq(large, NULL);
    memset(large, 'L', 3000000);
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    append(f, a.sid, 1, "0123456789abcdef", "one", 3);
    append(f, b.sid, 1, "0123456789abcdef", "same id, other session", 22);
    append(f, a.sid, 2, NULL, "t\0wo", 4);
    append(f, a.sid, 3, NULL, "three", 5);
    append(f, a.sid, 4, "fedcba9876543210", large, 3000000);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, a.sid, (const uint8_t *)"fedcba9876543210", &cursor, &body),
        EG_OK, "seen inside its transaction");
    eg_bytes_unref(body);
    store_commit(f->s);
    fix_reopen(f);

    cr_assert_eq(OPS(f)->event_get(f->s, a.sid, 2, &body), EG_OK);
    cr_assert_eq(body->n, 4);
    cr_assert_arr_eq(body->data, "t\0wo", 4);
    eg_bytes_unref(body);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, a.sid, (const uint8_t *)"fedcba9876543210", &cursor, &body),
        EG_OK);
    cr_assert_eq(cursor, 4);
    cr_assert_eq(body->n, 3000000);
    cr_assert_eq(memcmp(body->data, large, body->n), 0);
    eg_bytes_unref(body);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, b.sid, (const uint8_t *)"fedcba9876543210", &cursor, &body),
        EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->events(f->s, a.sid, 2, 2, see_event, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "2:t 3:three ");
    free(large);
}

CONTRACT(a_cursor_and_an_id_are_used_once)
{
    static const char *const ids[] = {"0123456789abcdef", NULL};
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    append(f, a.sid, 1, ids[0], "one", 3);
    store_commit(f->s);
    store_begin(f->s);
    append(f, a.sid, 1, NULL, "again", 5);
    cr_assert_eq(OPS(f)->commit(f->s), EG_EEXISTS);
    store_begin(f->s);
    append(f, a.sid, 2, ids[0], "again", 5);
    cr_assert_eq(OPS(f)->commit(f->s), EG_EEXISTS);
    store_begin(f->s);
    append(f, a.sid, 2, "fedcba9876543210", "new", 3);
    append(f, a.sid, 3, "fedcba9876543210", "again", 5);
    cr_assert_eq(OPS(f)->commit(f->s), EG_EEXISTS, "in one transaction");
    store_begin(f->s);
    append(f, a.sid, 2, ids[1], "two", 3);
    append(f, a.sid, 3, ids[1], "three", 5);
    store_commit(f->s);
}

CONTRACT(turns_are_kept_in_order_and_dead_ones_apart)
{
    struct seen seen = {""};
    struct eg_turn_row got;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_turn_row t = turn_of(a.sid, 300, EG_TURN_WAITING, 7);
    t.attempt = 3;
    t.until_ms = 99;
    (void)strcpy(t.worker, "w");
    (void)strcpy(t.error, "broke");
    OPS(f)->turn_put(f->s, &t);
    t = turn_of(a.sid, 9, EG_TURN_DEAD, 8);
    OPS(f)->turn_put(f->s, &t);
    t = turn_of(a.sid, 20, EG_TURN_QUEUED, 9);
    OPS(f)->turn_put(f->s, &t);
    t.state = EG_TURN_RUNNING;
    OPS(f)->turn_put(f->s, &t);
    store_commit(f->s);
    fix_reopen(f);
    char expected[128];
    (void)snprintf(expected, sizeof(expected), "%lld/20=1,0,9,0,, %lld/300=2,3,7,99,w,broke ",
                   (long long)a.sid, (long long)a.sid);
    cr_assert_eq(OPS(f)->turns(f->s, a.sid, see_turn, &seen), EG_OK);
    cr_assert_str_eq(seen.text, expected);
    cr_assert_eq(OPS(f)->turn_get(f->s, a.sid, 9, &got), EG_OK, "a dead one can be asked for");
    cr_assert_eq(got.state, EG_TURN_DEAD);
    store_begin(f->s);
    OPS(f)->turn_delete(f->s, a.sid, 20);
    OPS(f)->turn_delete(f->s, a.sid, 4711); /* none: no harm */
    store_commit(f->s);
    cr_assert_eq(OPS(f)->turn_get(f->s, a.sid, 20, &got), EG_ENOTFOUND);
}

CONTRACT(sessions_with_open_turns_come_oldest_first_and_once)
{
    struct seen seen = {""};
    char expected[64];
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    struct eg_session_row c = store_session(f->s, "c");
    struct eg_session_row d = store_session(f->s, "d");
    const struct eg_turn_row rows[] = {
        turn_of(a.sid, 1, EG_TURN_QUEUED, 50),  turn_of(a.sid, 2, EG_TURN_QUEUED, 60),
        turn_of(b.sid, 1, EG_TURN_QUEUED, 70),  turn_of(b.sid, 2, EG_TURN_RUNNING, 40),
        turn_of(c.sid, 1, EG_TURN_DEAD, 1),     turn_of(d.sid, 1, EG_TURN_DEAD, 1),
        turn_of(d.sid, 2, EG_TURN_ABORTING, 50)};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        OPS(f)->turn_put(f->s, &rows[i]);
    }
    store_commit(f->s);
    (void)snprintf(expected, sizeof(expected), "%lld@a:0 %lld@a:0 %lld@a:3 ", (long long)b.sid,
                   (long long)a.sid, (long long)d.sid);
    cr_assert_eq(OPS(f)->open_turns(f->s, see_open, &seen), EG_OK);
    cr_assert_str_eq(seen.text, expected);
}

CONTRACT(acks_agents_and_revocations_are_remembered)
{
    struct seen seen = {""};
    uint64_t cursor = 0;
    store_begin(f->s);
    OPS(f)->ack_put(f->s, 1, EG_LIT("ann"), 5);
    OPS(f)->ack_put(f->s, 1, EG_LIT("ann"), 9);
    OPS(f)->ack_put(f->s, 1, EG_LIT("bob"), 2);
    OPS(f)->ack_put(f->s, 2, EG_LIT("ann"), 1);
    OPS(f)->agent_put(f->s, EG_LIT("zed"), 100);
    OPS(f)->agent_put(f->s, EG_LIT("amy"), 200);
    OPS(f)->agent_put(f->s, EG_LIT("amy"), 300);
    OPS(f)->agent_put(f->s, EG_LIT("gone"), 1);
    OPS(f)->agent_delete(f->s, EG_LIT("gone"));
    OPS(f)->agent_delete(f->s, EG_LIT("never"));
    OPS(f)->revoke(f->s, "sub:eve", 4000000000000);
    OPS(f)->revoke(f->s, "sub:eve", 3000000000000);
    OPS(f)->revoke(f->s, "jti:1", 5000000000000);
    store_commit(f->s);
    fix_reopen(f);
    cr_assert_eq(OPS(f)->ack_get(f->s, 1, EG_LIT("ann"), &cursor), EG_OK);
    cr_assert_eq(cursor, 9);
    cr_assert_eq(OPS(f)->ack_get(f->s, 2, EG_LIT("bob"), &cursor), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->agents(f->s, see_text, &seen), EG_OK);
    cr_assert_eq(OPS(f)->revoked(f->s, see_text, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "amy=200 zed=100 jti:1=5000000000000 sub:eve=4000000000000 ");
}

CONTRACT(open_sessions_are_counted_by_owner)
{
    int64_t n = 0;
    store_begin(f->s);
    (void)store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    store_commit(f->s);
    cr_assert_eq(OPS(f)->count_open_sessions(f->s, EG_LIT("o"), &n), EG_OK);
    cr_assert_eq(n, 2);
    cr_assert_eq(OPS(f)->count_open_sessions(f->s, EG_LIT("other"), &n), EG_OK);
    cr_assert_eq(n, 0);
    store_begin(f->s);
    b.state = EG_SESSION_CLOSED;
    OPS(f)->session_update(f->s, &b);
    cr_assert_eq(OPS(f)->count_open_sessions(f->s, EG_LIT("o"), &n), EG_OK);
    cr_assert_eq(n, 1, "inside the transaction");
    OPS(f)->rollback(f->s);
    store_begin(f->s);
    OPS(f)->session_update(f->s, &b);
    store_commit(f->s);
    cr_assert_eq(OPS(f)->count_open_sessions(f->s, EG_LIT("o"), &n), EG_OK);
    cr_assert_eq(n, 1, "the rolled back change is written when it is made again");
}

CONTRACT(trimming_goes_in_steps_from_the_oldest)
{
    struct seen seen = {""};
    int removed = 0;
    int64_t bytes = 0;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    for (uint64_t i = 1; i <= 9; i++) {
        append(f, a.sid, i, NULL, "12345678", (size_t)i - (i > 8));
        append(f, b.sid, i, NULL, "x", 1);
    }
    store_commit(f->s);
    store_begin(f->s);
    OPS(f)->events_trim(f->s, a.sid, 6, 3, &removed, &bytes);
    cr_assert_eq(removed, 3);
    cr_assert_eq(bytes, 1 + 2 + 3);
    OPS(f)->events_trim(f->s, a.sid, 6, 3, &removed, &bytes);
    cr_assert_eq(removed, 2);
    cr_assert_eq(bytes, 4 + 5);
    OPS(f)->events_trim(f->s, a.sid, 6, 3, &removed, &bytes);
    cr_assert_eq(removed, 0);
    cr_assert_eq(bytes, 0);
    store_commit(f->s);
    cr_assert_eq(OPS(f)->events(f->s, a.sid, 0, 2, see_event, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "6:123456 7:1234567 ");
    seen.text[0] = '\0';
    cr_assert_eq(OPS(f)->events(f->s, b.sid, 0, 1, see_event, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "1:x ", "another session's events stay");
}

CONTRACT(a_deleted_session_leaves_nothing_and_its_number_is_not_used_again)
{
    struct eg_session_row got;
    struct seen seen = {""};
    uint64_t cursor = 0;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    struct eg_turn_row t = turn_of(b.sid, 1, EG_TURN_QUEUED, 1);
    OPS(f)->turn_put(f->s, &t);
    OPS(f)->ack_put(f->s, b.sid, EG_LIT("ann"), 1);
    t = turn_of(a.sid, 1, EG_TURN_QUEUED, 1);
    OPS(f)->turn_put(f->s, &t);
    OPS(f)->ack_put(f->s, a.sid, EG_LIT("ann"), 1);
    store_commit(f->s);
    store_begin(f->s);
    OPS(f)->session_delete(f->s, b.sid);
    store_commit(f->s);
    cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("b"), &got), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->turns(f->s, b.sid, see_turn, &seen), EG_OK);
    cr_assert_str_empty(seen.text);
    cr_assert_eq(OPS(f)->ack_get(f->s, b.sid, EG_LIT("ann"), &cursor), EG_ENOTFOUND);
    cr_assert_eq(OPS(f)->ack_get(f->s, a.sid, EG_LIT("ann"), &cursor), EG_OK);
    fix_reopen(f);
    store_begin(f->s);
    struct eg_session_row again = store_session(f->s, "b");
    store_commit(f->s);
    cr_assert_gt(again.sid, b.sid);
}

CONTRACT(the_first_deletion_ends_the_epoch_for_sessions_to_come)
{
    struct eg_epoch epoch;
    store_begin(f->s);
    const struct eg_session_row a = store_session(f->s, "a");
    const struct eg_session_row b = store_session(f->s, "b");
    store_commit(f->s);
    store_begin(f->s);
    OPS(f)->session_delete(f->s, a.sid);
    cr_assert_eq(OPS(f)->epoch(f->s, &epoch), EG_OK);
    cr_assert_eq(epoch.until_sid, b.sid, "seen within the transaction");
    OPS(f)->rollback(f->s);
    cr_assert_eq(OPS(f)->epoch(f->s, &epoch), EG_OK);
    cr_assert_eq(epoch.until_sid, INT64_MAX);
    for (int i = 0; i < 2; i++) {
        store_begin(f->s);
        OPS(f)->session_delete(f->s, i == 0 ? a.sid : b.sid);
        (void)store_session(f->s, "a");
        store_commit(f->s);
        fix_reopen(f);
        cr_assert_eq(OPS(f)->epoch(f->s, &epoch), EG_OK);
        cr_assert_eq(epoch.until_sid, b.sid, "the first one's");
        store_begin(f->s);
        struct eg_session_row row;
        cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("a"), &row), EG_OK);
        OPS(f)->session_delete(f->s, row.sid);
        store_commit(f->s);
    }
}

CONTRACT(a_transaction_without_writes_commits)
{
    struct eg_session_row got;
    for (int i = 0; i < 3; i++) {
        store_begin(f->s);
        cr_assert_eq(OPS(f)->session_by_id(f->s, EG_LIT("none"), &got), EG_ENOTFOUND);
        store_commit(f->s);
    }
}

/* The longer way of an id: gathered, frozen, merged, read again after restarts, trimmed. */
CONTRACT(ids_are_remembered_as_long_as_their_events)
{
    char key[17];
    struct eg_bytes *body = NULL;
    uint64_t cursor = 0;
    int removed = 0;
    int64_t bytes = 0;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    store_commit(f->s);
    for (uint64_t i = 1; i <= 200; i++) {
        (void)snprintf(key, sizeof(key), "%08x--------", (unsigned)(i * 2654435761u));
        store_begin(f->s);
        append(f, a.sid, i, key, "a", 1);
        append(f, b.sid, i, i % 2 == 0 ? key : NULL, "b", 1);
        if (i % 7 == 0) { /* lost, and sent again */
            OPS(f)->rollback(f->s);
            store_begin(f->s);
            append(f, a.sid, i, key, "a", 1);
            append(f, b.sid, i, i % 2 == 0 ? key : NULL, "b", 1);
        }
        store_commit(f->s);
        if (i % 45 == 0) {
            fix_reopen(f);
        }
    }
    store_begin(f->s);
    OPS(f)->events_trim(f->s, a.sid, 150, 1000, &removed, &bytes);
    OPS(f)->rollback(f->s);
    store_begin(f->s);
    OPS(f)->events_trim(f->s, a.sid, 120, 1000, &removed, &bytes);
    store_commit(f->s);
    for (uint64_t i = 1; i <= 200; i++) {
        (void)snprintf(key, sizeof(key), "%08x--------", (unsigned)(i * 2654435761u));
        const uint8_t *k = (const uint8_t *)key;
        enum eg_err e = OPS(f)->event_by_idkey(f->s, a.sid, k, &cursor, &body);
        cr_assert_eq(e, i < 120 ? EG_ENOTFOUND : EG_OK, "a %llu: %d", (unsigned long long)i,
                     (int)e);
        if (e == EG_OK) {
            cr_assert_eq(cursor, i);
            eg_bytes_unref(body);
        }
        e = OPS(f)->event_by_idkey(f->s, b.sid, k, &cursor, &body);
        cr_assert_eq(e, i % 2 == 0 ? EG_OK : EG_ENOTFOUND, "b %llu: %d", (unsigned long long)i,
                     (int)e);
        if (e == EG_OK) {
            cr_assert_eq(cursor, i);
            eg_bytes_unref(body);
        }
    }
    /* A trimmed event's id may be used again; a kept one's not. */
    (void)snprintf(key, sizeof(key), "%08x--------", 5 * 2654435761u);
    store_begin(f->s);
    append(f, a.sid, 201, key, "again", 5);
    store_commit(f->s);
    cr_assert_eq(OPS(f)->event_by_idkey(f->s, a.sid, (const uint8_t *)key, &cursor, &body), EG_OK);
    cr_assert_eq(cursor, 201);
    eg_bytes_unref(body);
    (void)snprintf(key, sizeof(key), "%08x--------", (unsigned)(130 * 2654435761u));
    store_begin(f->s);
    append(f, a.sid, 202, key, "no", 2);
    cr_assert_eq(OPS(f)->commit(f->s), EG_EEXISTS);
}

/* Two ids that begin with the same eight bytes are two ids. */
CONTRACT(ids_are_compared_beyond_what_the_index_holds)
{
    struct eg_bytes *body = NULL;
    uint64_t cursor = 0;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    append(f, a.sid, 1, "samesame-one----", "1", 1);
    store_commit(f->s);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, a.sid, (const uint8_t *)"samesame-two----", &cursor, &body),
        EG_ENOTFOUND);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, a.sid, (const uint8_t *)"samesame-one----", &cursor, &body),
        EG_OK);
    cr_assert_eq(cursor, 1);
    eg_bytes_unref(body);
}

/* Numbers of removed events are not given out again below what the ids cover. */
CONTRACT(ids_after_the_newest_events_were_removed_are_kept)
{
    char key[17];
    struct eg_bytes *body = NULL;
    uint64_t cursor = 0;
    int removed = 0;
    int64_t bytes = 0;
    store_begin(f->s);
    struct eg_session_row a = store_session(f->s, "a");
    struct eg_session_row b = store_session(f->s, "b");
    store_commit(f->s);
    for (uint64_t i = 1; i <= 60; i++) {
        (void)snprintf(key, sizeof(key), "%-16llu", (unsigned long long)i);
        store_begin(f->s);
        append(f, a.sid, i, key, "a", 1);
        store_commit(f->s);
    }
    store_begin(f->s);
    OPS(f)->events_trim(f->s, a.sid, 61, 100, &removed, &bytes);
    cr_assert_eq(removed, 60);
    store_commit(f->s);
    fix_reopen(f);
    store_begin(f->s);
    append(f, b.sid, 1, "0123456789abcdef", "b", 1);
    store_commit(f->s);
    fix_reopen(f);
    cr_assert_eq(
        OPS(f)->event_by_idkey(f->s, b.sid, (const uint8_t *)"0123456789abcdef", &cursor, &body),
        EG_OK);
    eg_bytes_unref(body);
}

/* ---- both, side by side ---- */

struct pair {
    struct fix f[2];
    uint64_t random;
    int64_t sid[40];
    int sids;
    uint64_t cursor[40];
};

static unsigned pick(struct pair *p, unsigned n)
{
    p->random = p->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(p->random >> 33) % n;
}

/* One random write to both. */
static void random_write(struct pair *p)
{
    unsigned what = p->sids > 0 ? pick(p, 12) : 0;
    unsigned which = p->sids > 0 ? pick(p, (unsigned)p->sids) : 0;
    int64_t sid = p->sids > 0 ? p->sid[which] : 1;
    uint64_t turn = pick(p, 6);
    unsigned value = pick(p, 1000);
    char id[32];
    char key[17] = "0123456789abcde";
    int removed[2] = {0, 0};
    int64_t bytes[2] = {0, 0};
    (void)snprintf(id, sizeof(id), "id-%u", pick(p, 60));
    key[3] = (char)('a' + pick(p, 26));
    key[5] = (char)('a' + pick(p, 26));
    int64_t made[2] = {0, 0};
    uint64_t cursor = p->cursor[which] + (pick(p, 50) == 0 && p->cursor[which] > 0 ? 0 : 1);
    for (int i = 0; i < 2; i++) {
        struct fix *f = &p->f[i];
        struct eg_session_row row = {.sid = sid, .oldest = 1 + value % 3, .cursor = cursor};
        struct eg_turn_row t = turn_of(sid, turn, (enum eg_turn_state)(value % 5), value);
        switch (what) {
        case 0:
            if (p->sids < 40) {
                made[i] = store_session(f->s, id).sid;
            }
            break;
        case 1:
            row.state = (enum eg_session_state)(value % 2);
            row.updated_ms = STOREFIX_TIME + value * 1000000LL;
            row.bytes = value;
            OPS(f)->session_update(f->s, &row);
            break;
        case 2:
        case 3:
        case 4:
        case 5:
            append(f, sid, cursor, value % 3 == 0 ? key : NULL, id, strlen(id));
            break;
        case 6:
        case 7:
            OPS(f)->turn_put(f->s, &t);
            break;
        case 8:
            OPS(f)->turn_delete(f->s, sid, turn);
            break;
        case 9:
            OPS(f)->ack_put(f->s, sid, eg_slice_cstr(id), value);
            break;
        case 10:
            OPS(f)->events_trim(f->s, sid, cursor / 2, (int)(value % 5), &removed[i], &bytes[i]);
            break;
        default:
            OPS(f)->agent_put(f->s, eg_slice_cstr(id), value);
            break;
        }
    }
    cr_assert_eq(removed[0], removed[1]);
    cr_assert_eq(bytes[0], bytes[1]);
    cr_assert_eq(made[0], made[1]);
    if (what == 0 && made[0] > 0) {
        p->sid[p->sids] = made[0];
        p->cursor[p->sids++] = 0;
    }
    if (what >= 2 && what <= 5) {
        p->cursor[which] = cursor;
    }
}

/* Everything that can be read, as text. */
static void dump(struct fix *f, const struct pair *p, struct seen *out)
{
    struct eg_session_row row;
    uint64_t n = 0;
    out->text[0] = '\0';
    enum eg_err e = OPS(f)->open_turns(f->s, see_open, out);
    see(out, "|%d ", (int)e);
    (void)OPS(f)->agents(f->s, see_text, out);
    for (int i = 0; i < p->sids; i++) {
        e = OPS(f)->session_by_sid(f->s, p->sid[i], &row);
        see(out, "[%d", (int)e);
        if (e == EG_OK) {
            see(out, " %s %d %lld %llu ", row.id, (int)row.state, (long long)row.updated_ms,
                (unsigned long long)row.cursor);
        }
        (void)OPS(f)->turns(f->s, p->sid[i], see_turn, out);
        (void)OPS(f)->events(f->s, p->sid[i], 0, 3, see_event, out);
        e = OPS(f)->ack_get(f->s, p->sid[i], EG_LIT("id-7"), &n);
        see(out, "%d]", e == EG_OK ? (int)n : -(int)e);
    }
}

Test(storage_both, random_histories_read_the_same)
{
    static struct seen seen[2];
    for (unsigned seed = 1; seed <= 8; seed++) {
        struct pair p = {.random = seed};
        fix_open(&p.f[0], MEMORY);
        fix_open(&p.f[1], seed % 2 == 0 ? SQLITE : MERGING);
        for (int tx = 0; tx < 150; tx++) {
            struct pair before = p;
            int steps = 1 + (int)pick(&p, 12);
            store_begin(p.f[0].s);
            store_begin(p.f[1].s);
            for (int i = 0; i < steps; i++) {
                random_write(&p);
            }
            bool back = pick(&p, 8) == 0;
            enum eg_err e[2] = {EG_OK, EG_OK};
            for (int i = 0; i < 2; i++) {
                if (back) {
                    OPS(&p.f[i])->rollback(p.f[i].s);
                } else {
                    e[i] = OPS(&p.f[i])->commit(p.f[i].s);
                }
            }
            cr_assert_eq(e[0], e[1], "seed %u transaction %d: %d and %d", seed, tx, (int)e[0],
                         (int)e[1]);
            if (back || e[0] != EG_OK) {
                uint64_t random = p.random;
                p = before;
                p.random = random;
            }
            if (tx % 40 == 39) {
                fix_reopen(&p.f[0]);
                fix_reopen(&p.f[1]);
            }
            dump(&p.f[0], &p, &seen[0]);
            dump(&p.f[1], &p, &seen[1]);
            cr_assert_str_eq(seen[0].text, seen[1].text, "seed %u transaction %d", seed, tx);
        }
        fix_close(&p.f[0]);
        fix_close(&p.f[1]);
    }
}

/* ---- memory's own: ordered failures ---- */

Test(storage_memory, ordered_commit_failures_come_when_ordered)
{
    struct eg_session_row got;
    struct eg_storage *s = memstore_new("e");
    memstore_fail_commits(s, MEMSTORE_FULL, 1, 1);
    store_begin(s);
    (void)store_session(s, "a");
    store_commit(s);
    store_begin(s);
    (void)store_session(s, "b");
    cr_assert_eq(s->ops->commit(s), EG_EFULL);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("b"), &got), EG_ENOTFOUND);
    store_begin(s);
    (void)store_session(s, "b");
    store_commit(s);
    memstore_fail_commits(s, MEMSTORE_UNKNOWN_KEPT, 0, 1);
    store_begin(s);
    (void)store_session(s, "c");
    cr_assert_eq(s->ops->commit(s), EG_EUNKNOWN);
    cr_assert_eq(s->ops->begin(s), EG_EUNKNOWN);
    s = memstore_restart(s);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("c"), &got), EG_OK);
    memstore_fail_commits(s, MEMSTORE_UNKNOWN_GONE, 0, 1);
    store_begin(s);
    (void)store_session(s, "d");
    cr_assert_eq(s->ops->commit(s), EG_EUNKNOWN);
    s = memstore_restart(s);
    cr_assert_eq(s->ops->session_by_id(s, EG_LIT("d"), &got), EG_ENOTFOUND);
    memstore_fail_write(s, 2, EG_EIO);
    store_begin(s);
    (void)store_session(s, "e");
    s->ops->audit(s, 1, EG_LIT("w"), EG_LIT("f"), EG_LIT("act"), EG_LIT(""));
    cr_assert_eq(s->ops->commit(s), EG_EIO);
    cr_assert_eq(memstore_audits(s, NULL), 0);
    cr_assert_eq(memstore_commits(s), 2);
    s->ops->close(s);
}
