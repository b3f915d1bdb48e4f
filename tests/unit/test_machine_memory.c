/*
 * test_machine_memory.c - each allocation of the state machine fails once, wherever it stands in a
 * story of clients, workers and operators: the batch is rolled back and answered in read-only mode,
 * and when it is tried again the log ends up the same as without a failure.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/badstore.h"
#include "failing.h"
#include "machine_rig.h"
#include "wire/event.h"
#include "wire/json.h"

#define ROOM 8000

static struct machine_rig *r;
static enum mr_part failing_part;

static void around(enum mr_part part, bool begins)
{
    if (part == failing_part) {
        failing_hold(!begins);
        badstore_hold(!begins);
    }
}

static bool attached(eg_conn_id conn)
{
    struct eg_conn *c = NULL;
    HASH_FIND(hh, r->m->conns, &conn, sizeof conn, c);
    return c != NULL;
}

/* --- the story --- */

struct cast {
    eg_conn_id ann, bob, worker;
};

/* Attaches; a try in read-only mode may do. */
#define ATTACH(conn, act)                                                                          \
    while (!attached(conn)) {                                                                      \
        conn = act;                                                                                \
        if (r->m->readonly) {                                                                      \
            eg_machine_resume(r->m);                                                               \
        }                                                                                          \
    }

/* Who was sent away by a failure comes again. */
static void gather(struct cast *k)
{
    ATTACH(k->ann, mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true,\"since\":0"))
    ATTACH(k->bob, mr_client(r, "u", ",\"session_id\":\"s\""))
    ATTACH(k->worker, mr_worker(r, "a", ",\"client\":{\"name\":\"w\"}"))
}

/* Whether the last batch is to be tried again: it was rolled back, or refused for want of memory.
 */
static bool again(int before)
{
    if (r->m->readonly) {
        eg_machine_resume(r->m);
    }
    return r->failures != before;
}

static void says(struct cast *k, eg_conn_id *who, const char *json)
{
    int before;
    do {
        before = r->failures;
        gather(k);
        mr_frame(r, *who, json);
    } while (again(before) || mr_text(r, *who, "storage_unavailable"));
}

/* One batch, again after a failure, until it is done. */
#define STEP(act)                                                                                  \
    do {                                                                                           \
        const int before = r->failures;                                                            \
        act;                                                                                       \
        if (!again(before)) {                                                                      \
            break;                                                                                 \
        }                                                                                          \
    } while (1)

static void settle(void)
{
    for (int i = 0; i < 100 && r->m->chores; i++) {
        STEP(mr_tick(r, 1));
    }
    cr_assert_null(r->m->chores);
}

/* So that answering a call has to find room. */
static void no_room_for_answers(void)
{
    free(r->m->done);
    r->m->done = NULL;
    r->m->done_cap = 0;
}

static void calls(struct eg_call *k)
{
    int before;
    do {
        before = r->failures;
        mr_call(r, k);
    } while (again(before) || k->code == EG_CODE_storage_unavailable);
}

#define ON(turn) "\"session_id\":\"s\",\"turn\":" #turn

static void turns(struct cast *k)
{
    says(k, &k->ann,
         "{\"type\":\"message\",\"content\":{\"a\":1},\"message_id\":\"m1\",\"metadata\":{\"b\":2},"
         "\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}");
    says(k, &k->worker,
         "{\"type\":\"emit\"," ON(1) ",\"event\":\"token_stream\",\"data\":{\"t\":1},"
                                     "\"event_id\":\"e1\"}");
    says(k, &k->worker,
         "{\"type\":\"emit\"," ON(1) ",\"event\":\"status\",\"data\":{},\"ephemeral\":true,"
                                     "\"event_id\":\"gone\"}");
    says(k, &k->worker, "{\"type\":\"extend\"," ON(1) "}");
    says(k, &k->worker, "{\"type\":\"extend\"," ON(99) "}");
    says(k, &k->ann, "{\"type\":\"message\",\"content\":\"two\",\"message_id\":\"m2\"}");
    says(k, &k->bob, "{\"type\":\"message\",\"content\":\"three\",\"message_id\":\"m3\"}");
    says(k, &k->worker, "{\"type\":\"final\"," ON(1) ",\"content\":\"one\",\"event_id\":\"f1\"}");
    /* The second is handed out, fails, waits, comes again, is ended. */
    says(k, &k->worker,
         "{\"type\":\"fail\"," ON(3) ",\"error\":\"not \\u0061gain\",\"retry\":true}");
    STEP(mr_tick(r, 120000));
    says(k, &k->worker, "{\"type\":\"final\"," ON(3) ",\"content\":\"two\",\"event_id\":\"f2\"}");
    /* The third is aborted while it runs. */
    says(k, &k->ann, "{\"type\":\"abort\",\"reason\":\"enough\"}");
    says(k, &k->worker, "{\"type\":\"final\"," ON(4) ",\"content\":\"no\",\"event_id\":\"f3\"}");
    says(k, &k->ann, "{\"type\":\"ack\",\"cursor\":3}");
    says(k, &k->bob, "{\"type\":\"presence\",\"status\":\"here\",\"data\":{\"x\":1}}");
    says(k, &k->ann, "{\"type\":\"presence\",\"status\":\"here\"}");
    says(k, &k->ann, "{\"type\":\"typing\"}");
    says(k, &k->worker,
         "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.note\",\"data\":{\"n\":1},"
         "\"event_id\":\"p1\"}");
}

/* A turn that dies, and what operators make of it. */
static void operators(struct cast *k)
{
    struct eg_identity who = {.sub = (char[]){"u"}};
    struct eg_call say = {.kind = EG_CALL_MESSAGE,
                          .session_id = EG_LIT("s"),
                          .content = EG_LIT("\"four\""),
                          .message_id = EG_LIT("m4"),
                          .identity = &who,
                          .audit_who = EG_LIT("op"),
                          .audit_action = EG_LIT("say")};
    calls(&say);
    char frame[100];
    snprintf(frame, sizeof frame, "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":%d,%s}",
             (int)say.out_turn, "\"error\":{\"no\":1},\"retry\":false");
    says(k, &k->worker, frame);
    struct eg_call retry = {
        .kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("s"), .turn = (int64_t)say.out_turn};
    calls(&retry);
    cr_assert_eq(retry.code, EG_CODE_NONE);
    eg_conn_id other = 0; /* of an agent that nobody knew */
    ATTACH(other, mr_worker(r, "new", ""))
    STEP(mr_detach(r, other));
    struct eg_call put = {.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("b")};
    calls(&put);
    struct eg_call create = {
        .kind = EG_CALL_CREATE, .agent = EG_LIT("b"), .session_id = EG_LIT("t"), .identity = &who};
    calls(&create);
    struct eg_call revoke = {.kind = EG_CALL_REVOKE, .text = EG_LIT("sub:x"), .until_ms = 1};
    calls(&revoke);
    struct eg_call info[] = {{.kind = EG_CALL_AGENTS_INFO},
                             {.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s")},
                             {.kind = EG_CALL_STATS},
                             {.kind = EG_CALL_KICK, .conn = k->bob}};
    for (size_t i = 0; i < sizeof info / sizeof info[0]; i++) {
        struct eg_json_doc doc;
        no_room_for_answers();
        calls(&info[i]);
        cr_assert(info[i].json.err || info[i].json.n == 0 ||
                      eg_json_scan((struct eg_slice){info[i].json.p, info[i].json.n}, 8, &doc) ==
                          EG_OK,
                  "%.*s", (int)info[i].json.n, info[i].json.p);
        eg_buf_free(&info[i].json);
    }
    struct eg_call fork = {.kind = EG_CALL_FORK,
                           .session_id = EG_LIT("s"),
                           .cursor = 3,
                           .audit_who = EG_LIT("op"),
                           .audit_action = EG_LIT("fork")};
    calls(&fork);
    settle();
    cr_assert_eq(fork.code, EG_CODE_NONE);
    struct eg_call delete = {.kind = EG_CALL_DELETE, .session_id = EG_LIT("t")};
    calls(&delete);
    struct eg_call trim = {.kind = EG_CALL_TRIM, .session_id = EG_LIT("s"), .cursor = 3};
    calls(&trim);
    settle();
}

/* The session leaves memory and is read again. */
static void away(struct cast *k)
{
    STEP(mr_detach(r, k->worker));
    STEP(mr_detach(r, k->ann));
    STEP(mr_detach(r, k->bob));
    gather(k);
    struct eg_call close = {.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s")};
    calls(&close);
    STEP((void)mr_client(r, "nobody", ",\"session_id\":\"s\""));
}

static void play(void)
{
    struct cast k = {0};
    gather(&k);
    turns(&k);
    operators(&k);
    away(&k);
}

/* --- what is left --- */

static void write_down(void *arg, uint64_t cursor, struct eg_slice body)
{
    char *out = arg;
    struct eg_event_head h;
    const size_t at = strlen(out);
    cr_assert_eq(eg_event_read(body, &h), EG_OK);
    snprintf(out + at, ROOM - at, "%llu %.*s %llu %.*s\n", (unsigned long long)cursor,
             (int)h.type.n, h.type.p, (unsigned long long)h.turn, (int)h.tail.n, h.tail.p);
}

static void remains(char out[ROOM])
{
    struct eg_session_row row;
    *out = '\0';
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("s"), &row), EG_OK);
    snprintf(out, ROOM, "state %d oldest %llu\n", row.state, (unsigned long long)row.oldest);
    cr_assert_eq(r->storage->ops->events(r->storage, row.sid, row.oldest, 1000, write_down, out),
                 EG_OK);
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("t"), &row), EG_ENOTFOUND);
}

/* A rig whose tables exist already: a table that cannot grow ends the process. */
static void set_up(void)
{
    r = mr_new();
    r->settings->session_cache = 0;
    r->settings->max_sessions_per_sub = 100;
    mr_client(r, "keeper", ",\"session_id\":\"kept\",\"create\":true");
    no_room_for_answers();
    r->around = around;
}

static void tear_down(void)
{
    r->around = NULL;
    mr_free(r);
}

/* Plays with the nth allocation of the part failing; false when there are fewer. */
static bool plays(int n, char out[ROOM])
{
    set_up();
    failing_order(n);
    failing_hold(true);
    play();
    const bool failed = failing_done();
    remains(out);
    r->around = NULL;
    mr_restart(r);
    tear_down();
    return failed;
}

/* The same with the nth read, or begin. */
static bool plays_with_bad(enum bad_call call, int commit, int n, char out[ROOM])
{
    set_up();
    if (commit >= 0) {
        memstore_fail_commits(r->storage, MEMSTORE_IO, commit, 1);
    }
    badstore_over(r->storage);
    badstore_order(call, n, 1, EG_EIO);
    badstore_hold(true);
    play();
    const bool failed = badstore_done();
    remains(out);
    tear_down();
    return failed;
}

Test(machine_memory, a_read_that_fails, .timeout = 60)
{
    static char want[ROOM], got[ROOM];
    int n = 0, failed = 0;
    failing_part = MR_STEP;
    cr_assert(!plays(1000000, want));
    for (; plays_with_bad(BAD_READ, -1, n, got); n++) {
        cr_assert_str_eq(got, want, "read %d", n);
    }
    cr_assert_gt(n, 20, "%d", n);
    for (n = 0; plays_with_bad(BAD_BEGIN, -1, n, got); n++) {
        cr_assert_str_eq(got, want, "begin %d", n);
    }
    cr_assert_gt(n, 20, "%d", n);
    /* While a batch is rolled back: who cannot be served any more is sent away to come again. */
    failing_part = MR_ROLLBACK;
    for (int commit = 0; commit < 60; commit++) {
        for (n = 0; plays_with_bad(BAD_READ, commit, n, got); n++) {
            cr_assert_str_eq(got, want, "commit %d, read %d", commit, n);
            failed++;
        }
    }
    cr_assert_gt(failed, 30, "%d", failed);
}

Test(machine_memory, a_batch_without_memory_is_tried_again, .timeout = 60)
{
    static char want[ROOM], got[ROOM];
    int n = 0;
    failing_part = MR_STEP;
    cr_assert(!plays(1000000, want));
    for (; plays(n, got); n++) {
        cr_assert_str_eq(got, want, "allocation %d", n);
    }
    cr_assert_gt(n, 100);
}

/* False when the roll-back has fewer than n allocations. */
static bool rolls_back(int commit, bool bad_read, int n, const char *want)
{
    static char got[ROOM];
    int status;
    const pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        set_up();
        memstore_fail_commits(r->storage, MEMSTORE_IO, commit, 1);
        if (bad_read) {
            badstore_over(r->storage);
            badstore_order(BAD_READ, 0, 1, EG_EIO);
            badstore_hold(true);
        }
        failing_order(n);
        failing_hold(true);
        play();
        const bool hit = failing_done();
        remains(got);
        _exit(strcmp(got, want) != 0 ? 1 : hit ? 0 : 2);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status), "commit %d, allocation %d", commit, n);
    cr_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 75,
              "commit %d, allocation %d: %d", commit, n, WEXITSTATUS(status));
    return WEXITSTATUS(status) != 2;
}

Test(machine_memory, rolling_back_without_memory, .timeout = 60)
{
    static char want[ROOM];
    failing_part = MR_STEP;
    cr_assert(!plays(1000000, want));
    /* Every commit in turn fails, and each allocation of rolling it back fails. The process may end
     * as for a table: then what it had told must be stored, which is for the suites that kill it.
     */
    failing_part = MR_ROLLBACK;
    int failed = 0, n;
    for (int commit = 0; commit < 60; commit += 3) {
        for (n = 0; rolls_back(commit, false, n, want); n++) {
            failed++;
        }
        for (n = 0; rolls_back(commit, true, n, want); n++) {
            failed++;
        }
    }
    cr_assert_gt(failed, 2, "%d", failed);
}

static int start_with(struct eg_storage *storage, struct eg_settings *settings, int n)
{
    struct eg_machine *m = NULL;
    failing_order(n);
    const enum eg_err e =
        eg_machine_new(storage, settings, 1, (struct eg_now){.wall_ms = 1700000000000}, &m);
    const bool failed = failing_done();
    if ((e != EG_OK) != failed || (m != NULL) == failed) {
        return 1;
    }
    eg_machine_free(m);
    return failed ? 0 : 2;
}

/* Starting tells, or, for want of a table, ends as what may pass by itself. */
Test(machine_memory, starting, .timeout = 60)
{
    int n = 0, status = 0, tables = 0;
    set_up();
    char *names[] = {(char[]){"named"}, NULL};
    char **const own = r->settings->agents;
    r->settings->agents = names;
    struct cast k = {0};
    gather(&k);
    says(&k, &k.ann, "{\"type\":\"message\",\"content\":1}");
    struct eg_call revoke = {.kind = EG_CALL_REVOKE, .text = EG_LIT("sub:x"), .until_ms = 1};
    calls(&revoke);
    r->storage = memstore_restart(r->storage);
    for (; n < 200; n++) {
        const pid_t child = fork();
        if (child == 0) {
            (void)!freopen("/dev/null", "w", stderr);
            _exit(start_with(r->storage, r->settings, n));
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status), "allocation %d", n);
        if (WEXITSTATUS(status) == 2) {
            break;
        }
        tables += WEXITSTATUS(status) == 75;
        cr_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 75, "allocation %d: %d", n,
                  WEXITSTATUS(status));
    }
    cr_assert_eq(WEXITSTATUS(status), 2);
    cr_assert_gt(n, 8);
    cr_assert_gt(tables, 0);
    r->settings->agents = own;
    r->m->storage = r->storage;
    tear_down();
}

/* A session whose turn waits is asked for by a worker, and cannot be read: it keeps its place. */
Test(machine_memory, a_waiting_session_that_cannot_be_read)
{
    r = mr_new();
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_restart(r);
    badstore_over(r->storage);
    badstore_order(BAD_READ, 0, 1, EG_EIO);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert(badstore_done());
    cr_assert(r->m->readonly);
    cr_assert_null(mr_text(r, w, "\"turn\""));
    eg_machine_resume(r->m);
    mr_tick(r, 0);
    cr_assert(mr_text(r, w, "\"type\":\"turn\""));
    mr_free(r);
}
