/*
 * test_machine_chores.c - what takes the state machine more than one batch: trimming, deleting and
 * copying long sessions, side by side and under each other, across restarts and failing commits.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../lib/badstore.h"
#include "machine_rig.h"
#include "wire/event.h"

#define LONG 700

static struct machine_rig *r;
static eg_conn_id c;
static int64_t sid;

static void up(void)
{
    r = mr_new();
    c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    for (int i = 0; i < LONG; i++) {
        mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    }
    sid = r->m->sessions->sid;
}

static void down(void)
{
    mr_free(r);
}

TestSuite(chores, .init = up, .fini = down);

static enum eg_code call(enum eg_call_kind kind, uint64_t cursor)
{
    struct eg_call k = {
        .kind = kind, .session_id = EG_LIT("s"), .cursor = cursor, .audit_who = EG_LIT("op")};
    return mr_call(r, &k);
}

static struct eg_call *ask_fork(uint64_t cursor)
{
    static struct eg_call k;
    k = (struct eg_call){.kind = EG_CALL_FORK,
                         .session_id = EG_LIT("s"),
                         .cursor = cursor,
                         .code = EG_CODE_queue_full}; /* until it is answered */
    (void)mr_call(r, &k);
    return &k;
}

static void settle(void)
{
    for (int i = 0; i < 100 && r->m->chores; i++) {
        mr_tick(r, 1);
    }
    cr_assert_null(r->m->chores);
}

/* All turns end: nothing holds back the floor. */
static void end_turns(void)
{
    struct eg_call k = {.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
}

static uint64_t oldest_stored(void)
{
    struct eg_bytes *body = NULL;
    for (uint64_t at = 1;; at++) {
        if (r->storage->ops->event_get(r->storage, sid, at, &body) == EG_OK) {
            eg_bytes_unref(body);
            return at;
        }
        cr_assert_lt(at, 3 * LONG);
    }
}

static bool stored(int64_t which)
{
    struct eg_session_row row;
    return r->storage->ops->session_by_sid(r->storage, which, &row) == EG_OK;
}

Test(chores, closing_ends_hundreds_of_turns_at_once)
{
    mr_restart(r); /* all of them stored */
    end_turns();
    mr_restart(r);
    mr_worker(r, "a", "");
    cr_assert_null(mr_text(r, 0, "\"type\":\"turn\""));
    struct eg_call k = {.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s")};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "\"queue\":0", 9));
    eg_buf_free(&k.json);
}

Test(chores, information_of_a_long_queue_is_bounded)
{
    struct eg_call k = {.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s")};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "\"queue\":700", 11));
    cr_assert(memmem(k.json.p, k.json.n, "\"turn\":500,", 11));
    cr_assert_null(memmem(k.json.p, k.json.n, "\"turn\":501,", 11));
    eg_buf_free(&k.json);
}

Test(chores, a_long_trim_takes_several_batches)
{
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    cr_assert_eq(oldest_stored(), 501, "the first 500 go with the call");
    /* A second one on the way: the first goes on to the new floor. */
    cr_assert_eq(call(EG_CALL_TRIM, 681), EG_CODE_NONE);
    settle();
    cr_assert_eq(oldest_stored(), 681);
    cr_assert_eq(call(EG_CALL_TRIM, 10), EG_CODE_NONE, "already done");
    cr_assert_null(r->m->chores);
    cr_assert_eq(call(EG_CALL_TRIM, 1000000), EG_CODE_NONE, "all of it");
    struct eg_call nowhere = {.kind = EG_CALL_TRIM, .session_id = EG_LIT("none")};
    cr_assert_eq(mr_call(r, &nowhere), EG_CODE_session_not_found);
}

Test(chores, a_long_trim_goes_on_after_a_restart)
{
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    mr_restart(r);
    settle();
    cr_assert_eq(oldest_stored(), 501, "nobody remembers it");
    /* The same is asked for again. */
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    settle();
    cr_assert_eq(oldest_stored(), 651);
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    cr_assert_null(r->m->chores, "nothing is left");
    memstore_fail_reads(r->storage, true);
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_storage_unavailable, "whether, is not known");
    memstore_fail_reads(r->storage, false);
}

Test(chores, a_trim_that_cannot_be_stored_goes_on_later)
{
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_tick(r, 1);
    cr_assert_eq(oldest_stored(), 501);
    mr_tick(r, 1);
    cr_assert_eq(oldest_stored(), 501, "nothing is done in read-only mode");
    cr_assert_eq(eg_machine_deadline(r->m), INT64_MAX);
    cr_assert_eq(call(EG_CALL_TRIM, 660), EG_CODE_storage_unavailable);
    eg_machine_resume(r->m);
    cr_assert_eq(eg_machine_deadline(r->m), 0);
    settle();
    cr_assert_eq(oldest_stored(), 651);
}

/* As of a session that is damaged on the disk: each try undoes a batch, and all that is in it. */
Test(chores, a_trim_that_never_can_be_stored_does_not_keep_others_from_publishing)
{
    int64_t rest_ms = 0;
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    memstore_fail_commits(r->storage, MEMSTORE_IO, 0, -1);
    for (int tries = 0; rest_ms < 4000; tries++) {
        cr_assert_lt(tries, 10, "it never rests");
        mr_tick(r, rest_ms);
        eg_machine_resume(r->m);
        rest_ms = eg_machine_deadline(r->m) > 0 ? eg_machine_deadline(r->m) - r->now.mono_ms : 0;
    }
    memstore_fail_commits(r->storage, MEMSTORE_IO, 0, 0);
    const int failures = r->failures;
    mr_tick(r, rest_ms - 1);
    cr_assert_eq(oldest_stored(), 501);
    cr_assert_eq(call(EG_CALL_TRIM, 660), EG_CODE_NONE, "it is known already");
    cr_assert_eq(oldest_stored(), 501);
    cr_assert_eq(r->failures, failures);
    mr_tick(r, 1);
    settle();
    cr_assert_eq(oldest_stored(), 660);
    cr_assert_eq(eg_machine_deadline(r->m), INT64_MAX);
}

Test(chores, a_long_deletion_goes_on_after_a_restart)
{
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    cr_assert(stored(sid));
    mr_restart(r);
    cr_assert(stored(sid));
    struct eg_call reap = {.kind = EG_CALL_REAP, .cursor = (uint64_t)sid};
    cr_assert_eq(mr_call(r, &reap), EG_CODE_NONE);
    settle();
    cr_assert(!stored(sid));
    cr_assert_eq(mr_call(r, &reap), EG_CODE_session_not_found);
    /* Only what is being deleted is reaped. */
    mr_client(r, "u", ",\"session_id\":\"t\",\"create\":true");
    reap.cursor = (uint64_t)r->m->sessions->sid;
    cr_assert_eq(mr_call(r, &reap), EG_CODE_session_not_found);
}

Test(chores, deleting_what_is_being_trimmed)
{
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 2 * LONG), EG_CODE_NONE);
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    settle(); /* the deletion ends first, and the trim finds nothing */
    cr_assert(!stored(sid));
}

Test(chores, two_sessions_at_once)
{
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"t\",\"create\":true");
    for (int i = 0; i < LONG; i++) {
        mr_frame(r, d, "{\"type\":\"message\",\"content\":1}");
    }
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    struct eg_call k = {.kind = EG_CALL_DELETE, .session_id = EG_LIT("t")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    settle();
    cr_assert(!stored(sid));
    cr_assert(!stored(sid + 1));
}

Test(chores, leaving_with_work_under_way)
{
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    cr_assert(r->m->chores, "the machine is freed with it");
}

/* --- copies --- */

Test(chores, a_long_copy_is_whole)
{
    struct eg_call *k = ask_fork(650);
    cr_assert_eq(k->code, EG_CODE_queue_full, "not answered before it is done");
    /* Nobody finds it half made. */
    char hello[300];
    snprintf(hello, sizeof hello, ",\"session_id\":\"%s\",\"since\":0", k->out_session_id);
    const eg_conn_id d = mr_client(r, "u", hello);
    cr_assert_eq(mr_out(r, EG_OUT_REFUSE, d, 0)->code, EG_CODE_session_not_found);
    settle();
    cr_assert_eq(k->code, EG_CODE_NONE);
    cr_assert_eq(mr_welcome(r, mr_client(r, "u", hello))->cursor, 650);
}

Test(chores, a_copy_survives_failing_commits_and_reads)
{
    badstore_over(r->storage);
    for (int n = 0; n < 12; n++) {
        struct eg_call *k = ask_fork(350);
        badstore_order(BAD_READ, n, 1, EG_EIO);
        memstore_fail_commits(r->storage, MEMSTORE_IO, 2, 1);
        for (int i = 0; i < 40 && r->m->chores; i++) {
            mr_tick(r, 1);
            if (r->m->readonly) {
                eg_machine_resume(r->m);
            }
        }
        badstore_done();
        cr_assert_null(r->m->chores);
        cr_assert_eq(k->code, EG_CODE_NONE, "read %d: %d", n, k->code);
        char hello[300];
        snprintf(hello, sizeof hello, ",\"session_id\":\"%s\",\"since\":0", k->out_session_id);
        cr_assert_eq(mr_welcome(r, mr_client(r, "u", hello))->cursor, 350);
    }
}

/* Of each read a deletion makes one fails, once: no id is free before the epoch has ended. */
Test(chores, a_deletion_survives_failing_reads)
{
    bool failed = true;
    for (int n = 0; failed; n++) {
        down();
        up();
        badstore_over(r->storage);
        badstore_order(BAD_READ, n, 1, EG_EIO);
        (void)call(EG_CALL_DELETE, 0);
        for (int i = 0; i < 60; i++) {
            mr_tick(r, 1000);
            if (r->m->readonly) {
                eg_machine_resume(r->m);
            }
        }
        failed = badstore_done();
        cr_assert(!stored(sid), "read %d", n);
        cr_expect_eq(r->m->epoch.until_sid, sid, "read %d", n);
    }
}

Test(chores, a_source_that_goes_ends_the_copy)
{
    struct eg_call *k = ask_fork(650);
    const int64_t copy = sid + 1;
    cr_assert(stored(copy));
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    settle();
    cr_assert(k->code == EG_CODE_conflict || k->code == EG_CODE_session_not_found, "%d", k->code);
    cr_assert(!stored(sid));
    cr_assert(!stored(copy), "half a copy stays behind");
}

Test(chores, an_id_that_is_being_removed_is_free_a_little_later)
{
    char u[] = "u";
    const struct eg_identity who = {.sub = u};
    struct eg_call k = {
        .kind = EG_CALL_CREATE, .identity = &who, .agent = EG_LIT("a"), .session_id = EG_LIT("s")};
    static const char reason[] = "the session of this id is still being removed";
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    const eg_conn_id again = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    const struct eg_out *const no = mr_out(r, EG_OUT_REFUSE, again, 0);
    cr_assert_eq(no->code, EG_CODE_storage_unavailable);
    cr_assert_str_eq(no->message, reason);
    cr_assert_eq(no->retry_after_s, 1);
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    cr_assert_str_eq(k.message, reason);
    cr_assert_eq(k.retry_after_s, 1);
    settle();
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert(k.created);
}

static void step(struct eg_call *k)
{
    struct eg_cmd *cmd = eg_cmd_new(EG_CMD_CALL, 0);
    cmd->call = k;
    eg_machine_step(r->m, cmd, r->now);
    eg_cmd_free(cmd);
}

Test(chores, a_source_that_goes_before_its_copy_begins_ends_it)
{
    struct eg_session_row row;
    struct eg_call fork = {.kind = EG_CALL_FORK, .session_id = EG_LIT("t")};
    struct eg_call delete = {.kind = EG_CALL_DELETE, .session_id = EG_LIT("t")};
    mr_client(r, "u", ",\"session_id\":\"t\",\"create\":true");
    end_turns();
    cr_assert_eq(call(EG_CALL_TRIM, 651), EG_CODE_NONE);
    step(&fork); /* both in the batch that ends the trim */
    step(&delete);
    mr_tick(r, 1);
    settle();
    cr_assert_eq(fork.code, EG_CODE_conflict);
    cr_assert_eq(
        r->storage->ops->session_by_id(r->storage, eg_slice_cstr(fork.out_session_id), &row),
        EG_ENOTFOUND, "a half copy is left");
}

Test(chores, a_source_that_is_trimmed_ends_the_copy)
{
    end_turns();
    struct eg_call *k = ask_fork(650);
    cr_assert_eq(call(EG_CALL_TRIM, 600), EG_CODE_NONE);
    settle();
    cr_assert_eq(k->code, EG_CODE_conflict);
    cr_assert(!stored(sid + 1));
    k->cursor = 100;
    cr_assert_eq(mr_call(r, k), EG_CODE_invalid_request, "before the floor");
}

Test(chores, a_broken_event_ends_the_copy_and_nothing_else)
{
    badstore_over(r->storage);
    struct eg_call *k = ask_fork(650);
    badstore_order(BAD_READ, 0, 1, EG_ECORRUPT);
    mr_tick(r, 1);
    cr_assert(badstore_done());
    cr_assert_eq(k->code, EG_CODE_internal);
    cr_assert(!r->m->readonly);
    settle();
    cr_assert(!stored(sid + 1));
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    cr_assert(mr_text(r, c, "accepted"));
}

Test(chores, an_event_that_is_none_ends_the_copy)
{
    const struct eg_storage_ops *const ops = r->storage->ops;
    struct eg_session_row row;
    cr_assert_eq(ops->begin(r->storage), EG_OK);
    cr_assert_eq(ops->session_by_sid(r->storage, sid, &row), EG_OK);
    row.cursor++;
    const struct eg_event_row event = {
        .sid = sid, .cursor = row.cursor, .hash = row.hash, .body = EG_LIT("{\"type\":5}")};
    ops->event_append(r->storage, &event);
    ops->session_update(r->storage, &row);
    cr_assert_eq(ops->commit(r->storage), EG_OK);
    mr_restart(r);
    struct eg_call *k = ask_fork(LONG + 1);
    settle();
    cr_assert_eq(k->code, EG_CODE_internal);
    cr_assert(!r->m->readonly);
    cr_assert(!stored(sid + 1));
}

/* Retention finds a session, and acts a little later: its id may be another's by then. */
Test(chores, what_was_found_of_a_session_is_not_done_to_the_next_of_its_id)
{
    struct eg_call late[] = {{.kind = EG_CALL_TRIM, .cursor = LONG - 10}, {.kind = EG_CALL_DELETE}};
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    settle();
    mr_detach(r, c);
    c = mr_client(r, "v", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    cr_assert_neq(r->m->sessions->sid, sid);
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        late[i].session_id = EG_LIT("s");
        late[i].sid = sid;
        cr_expect_eq(mr_call(r, &late[i]), EG_CODE_session_not_found);
        settle();
    }
    cr_assert_eq(r->m->sessions->state, EG_SESSION_OPEN);
    cr_assert_eq(r->m->sessions->oldest, 1);
    late[1].sid = r->m->sessions->sid;
    cr_assert_eq(mr_call(r, &late[1]), EG_CODE_NONE);
}
