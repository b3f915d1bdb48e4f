/*
 * test_machine_turns.c - turns in the state machine: handing out, leases, retries, dead letters,
 * abort, one writer.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../lib/badstore.h"
#include "machine_rig.h"
#include "wire/json.h"

static struct machine_rig *r;
static eg_conn_id c; /* a client in session "s" */

static void up(void)
{
    r = mr_new();
    r->settings->max_attempts = 3;
    r->settings->retry_backoff_ms = 1000;
    c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
}

static void down(void)
{
    mr_free(r);
}

TestSuite(turns_of_machine, .init = up, .fini = down);

#define SAY "{\"type\":\"message\",\"content\":\"hi\"}"
#define FINAL(t) "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":" #t ",\"content\":\"yes\"}"
#define EMIT(t, id)                                                                                \
    "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":" #t                                         \
    ",\"event\":\"token_stream\",\"data\":{\"t\":1},\"event_id\":\"" id "\"}"
#define FAIL(t) "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":" #t ",\"error\":\"broken\"}"

Test(turns_of_machine, one_after_the_other_and_in_order)
{
    const eg_conn_id w = mr_worker(r, "a", ",\"concurrency\":9");
    mr_frame(r, c, SAY);
    cr_assert_eq(mr_int(mr_text(r, w, "\"turn\""), "\"attempt\":"), 1);
    mr_frame(r, c, SAY);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""), "the second waits for the first");
    mr_frame(r, w, FINAL(1));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 2);
    cr_assert_eq(mr_int(mr_event(r, "\"final\""), "\"turn\":"), 1);
}

Test(turns_of_machine, messages_wait_for_a_worker_across_a_restart)
{
    mr_frame(r, c, SAY);
    mr_frame(r, c, SAY);
    mr_restart(r);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 1);
    mr_frame(r, w, FINAL(1));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 2);
}

static const struct eg_storage_ops *whole;
static int64_t damaged;

static enum eg_err damaged_get(struct eg_storage *s, int64_t sid, uint64_t cursor,
                               struct eg_bytes **body)
{
    return sid == damaged ? EG_ECORRUPT : whole->event_get(s, sid, cursor, body);
}

/* It undoes the batch that reads it; it may not undo the next ones too. */
Test(turns_of_machine, a_damaged_message_does_not_keep_others_from_their_turns)
{
    const eg_conn_id other = mr_client(r, "u", ",\"session_id\":\"o\",\"create\":true");
    struct eg_session_row row;
    mr_frame(r, c, SAY);
    mr_frame(r, other, SAY);
    mr_restart(r);
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("s"), &row), EG_OK);
    damaged = row.sid;
    whole = r->storage->ops;
    struct eg_storage_ops ops = *whole;
    ops.event_get = damaged_get;
    r->storage->ops = &ops;
    mr_worker(r, "a", ",\"concurrency\":9");
    eg_machine_resume(r->m);
    mr_tick(r, 0);
    const char *turn = mr_text(r, 0, "\"type\":\"turn\"");
    cr_assert_not_null(turn);
    cr_assert_not_null(strstr(turn, "\"session_id\":\"o\""));
    const int failures = r->failures;
    for (int i = 0; i < 5; i++) {
        mr_tick(r, 100);
        mr_worker(r, "a", "");
    }
    cr_assert_eq(r->failures, failures);
    r->storage->ops = whole;
    /* It is not forgotten when memory is short: its agent is still needed. */
    r->settings->session_cache = 0;
    mr_detach(r, mr_client(r, "u", ",\"session_id\":\"p\",\"create\":true"));
    struct eg_session *kept = NULL;
    HASH_FIND(hh_sid, r->m->by_sid, &row.sid, sizeof row.sid, kept);
    cr_assert(kept && kept->turn_count == 1);
    mr_restart(r);
    const eg_conn_id again = mr_worker(r, "a", "");
    cr_assert_not_null(mr_text(r, again, "\"type\":\"turn\""), "it was repaired");
}

Test(turns_of_machine, a_crash_gives_a_turn_back_with_its_attempts)
{
    mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_restart(r);
    const eg_conn_id w = mr_worker(r, "a", "");
    const char *turn = mr_text(r, w, "\"type\":\"turn\"");
    if (!turn) {
        mr_tick(r, 0);
        turn = mr_text(r, w, "\"type\":\"turn\"");
    }
    cr_assert_eq(mr_int(turn, "\"attempt\":"), 2);
}

Test(turns_of_machine, a_worker_that_leaves_gives_back)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    const eg_conn_id v = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    const eg_conn_id first = mr_text(r, w, "\"type\":\"turn\"") ? w : v;
    const eg_conn_id other = first == w ? v : w;
    mr_detach(r, first);
    cr_assert_eq(mr_int(mr_text(r, other, "\"type\":\"turn\""), "\"attempt\":"), 2);
    cr_assert(mr_out(r, EG_OUT_NOTICE, 0, 0)); /* message_nack */
}

Test(turns_of_machine, a_silent_worker_loses_its_lease_and_is_late)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_tick(r, r->settings->turn_lease_ms - 10);
    mr_frame(r, w, "{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":1}");
    mr_tick(r, r->settings->turn_lease_ms - 10);
    cr_assert_eq(r->outs, 0, "extended");
    const eg_conn_id v = mr_worker(r, "a", "");
    mr_tick(r, 20);
    const bool mine = mr_text(r, w, "\"attempt\":2") != NULL;
    cr_assert(mine || mr_text(r, v, "\"attempt\":2"));
    mr_frame(r, mine ? v : w, EMIT(1, "e"));
    cr_assert(mr_text(r, mine ? v : w, "turn_closed"));
    cr_assert_null(mr_event(r, ""));
}

Test(turns_of_machine, retries_wait_longer_each_time_and_end_dead)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w, FAIL(1));
    cr_assert(mr_out(r, EG_OUT_NOTICE, 0, 1));
    mr_tick(r, 999);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
    mr_tick(r, 1);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"attempt\":"), 2);
    mr_frame(r, w, FAIL(1));
    mr_tick(r, 1999);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
    mr_tick(r, 1);
    mr_frame(r, w, FAIL(1));
    const char *end = mr_event(r, "dead_letter");
    cr_assert(end && strstr(end, "\"source\":\"gateway\"") && strstr(end, "broken"));
    cr_assert_eq(mr_int(end, "\"attempts\":"), 3);
    struct eg_turn_row row;
    const struct eg_session *s = r->m->sessions;
    cr_assert_eq(r->storage->ops->turn_get(r->storage, s->sid, 1, &row), EG_OK);
    cr_assert_eq(row.state, EG_TURN_DEAD);
    cr_assert_str_eq(row.error, "broken");
    /* The operator's second chance is a turn of its own. */
    struct eg_call retry = {.kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("s"), .turn = 1};
    cr_assert_eq(mr_call(r, &retry), EG_CODE_NONE);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), (int64_t)retry.out_turn);
    cr_assert(strstr(mr_text(r, w, "\"type\":\"turn\""), "client:u"));
    cr_assert_eq(mr_call(r, &retry), EG_CODE_not_found);
}

Test(turns_of_machine, fail_without_retry_is_dead_at_once)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(
        r, w,
        "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1,\"error\":{\"x\":1},\"retry\":false}");
    cr_assert(mr_event(r, "dead_letter"));
}

Test(turns_of_machine, an_old_turn_is_not_retried)
{
    r->settings->max_turn_age_ms = 5000;
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_tick(r, 5001);
    mr_frame(r, w, FAIL(1));
    cr_assert(mr_event(r, "dead_letter"));
}

Test(turns_of_machine, repeats_are_answered_even_after_the_end)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w, EMIT(1, "e1"));
    cr_assert_eq(mr_int(mr_text(r, w, "emitted"), "\"cursor\":"), 2);
    mr_frame(r, w, EMIT(1, "e1"));
    cr_assert(strstr(mr_text(r, w, "emitted"), "\"duplicate\":true"));
    mr_frame(
        r, w,
        "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1,\"event_id\":\"f\"}");
    mr_frame(
        r, w,
        "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1,\"event_id\":\"f\"}");
    cr_assert_eq(mr_int(mr_text(r, w, "\"duplicate\":true"), "\"cursor\":"), 3);
    mr_frame(
        r, w,
        "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":2,\"event_id\":\"f\"}");
    cr_assert(mr_text(r, w, "id_conflict"));
    mr_frame(r, w, EMIT(1, "e2"));
    cr_assert(mr_text(r, w, "turn_closed"));
}

Test(turns_of_machine, ephemeral_is_seen_and_not_stored)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w,
             "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"token_stream\","
             "\"data\":1,\"ephemeral\":true}");
    const struct eg_out *o = mr_out(r, EG_OUT_NOTICE, 0, 0);
    cr_assert(o && strstr(o->bytes->data, "\"ephemeral\":true") &&
              !strstr(o->bytes->data, "cursor"));
    cr_assert_null(mr_event(r, ""));
    cr_assert_eq(r->m->sessions->cursor, 1);
}

/* --- abort --- */

Test(turns_of_machine, a_queued_turn_aborts_at_once)
{
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\",\"reason\":\"enough\"}");
    cr_assert(mr_event(r, "\"reason\":\"enough\""));
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"));
    cr_assert(mr_text(r, c, "\"aborted\""));
    mr_frame(r, c, "{\"type\":\"abort\"}");
    cr_assert(mr_text(r, c, "no_active_turn"));
    cr_assert_null(mr_event(r, ""));
}

Test(turns_of_machine, a_turn_in_the_middle_of_the_queue_aborts_alone)
{
    mr_frame(r, c, SAY);
    mr_frame(r, c, SAY);
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\",\"turn\":2}");
    cr_assert_eq(mr_int(mr_text(r, c, "\"aborted\""), "\"turn\":"), 2);
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, w, FINAL(1));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 3);
}

/* The wait of the first turn ends in the very batch in which the second comes and goes. */
Test(turns_of_machine, a_turn_has_its_own_message_when_a_later_one_was_aborted_at_once)
{
    const char *const both[] = {"{\"type\":\"message\",\"content\":\"second\"}",
                                "{\"type\":\"abort\",\"turn\":2}"};
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"first\"}");
    mr_frame(r, w, FAIL(1));
    r->now.mono_ms += 1000;
    r->now.wall_ms += 1000;
    mr_frames(r, c, both, 2);
    const char *const turn = mr_text(r, w, "\"type\":\"turn\"");
    cr_assert_eq(mr_int(turn, "\"turn\":"), 1);
    cr_assert(strstr(turn, "\"content\":\"first\""), "%s", turn);
}

Test(turns_of_machine, a_running_turn_ends_through_its_worker)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    cr_assert(mr_text(r, w, "\"type\":\"abort\""));
    cr_assert_null(mr_event(r, "\"final\""));
    mr_frame(r, c, "{\"type\":\"abort\"}");
    cr_assert(mr_text(r, c, "\"aborted\""), "told again, nothing stored again");
    cr_assert_null(mr_event(r, ""));
    mr_frame(r, w, FINAL(1));
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"), "whatever the worker says");
    mr_tick(r, 60000);
    cr_assert_null(mr_event(r, ""), "once");
}

Test(turns_of_machine, a_worker_that_ignores_an_abort_is_cut_off)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    mr_tick(r, r->settings->abort_grace_ms);
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 5 - 3);
    mr_frame(r, w, FINAL(1));
    cr_assert(mr_text(r, w, "turn_closed"));
}

Test(turns_of_machine, an_abort_survives_a_crash)
{
    mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    mr_restart(r);
    const struct eg_welcome *w =
        mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":0"));
    cr_assert_eq(w->cursor, 3, "message, message_abort, response");
}

Test(turns_of_machine, fail_and_leaving_end_an_aborted_turn)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    mr_frame(r, w, FAIL(1));
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"));
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    mr_detach(r, w);
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"));
}

/* --- several workers --- */

Test(turns_of_machine, a_session_prefers_the_worker_that_had_it)
{
    mr_worker(r, "a", ",\"concurrency\":5");
    mr_worker(r, "a", ",\"concurrency\":5");
    mr_frame(r, c, SAY);
    eg_conn_id had = 0;
    for (int i = 1; i <= 6; i++) {
        eg_conn_id now = 0;
        for (int k = 0; k < r->outs; k++) {
            if (r->out[k].kind == EG_OUT_FRAME &&
                strstr(r->out[k].bytes->data, "\"type\":\"turn\"")) {
                now = r->out[k].conn;
            }
        }
        cr_assert(now && (!had || now == had));
        had = now;
        char final[100];
        snprintf(final, sizeof final,
                 "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":%d,\"content\":1}", 2 * i - 1);
        mr_frame(r, now, final);
        mr_frame(r, c, SAY);
    }
}

Test(turns_of_machine, the_last_worker_is_remembered)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    char id[EG_ID_MAX + 1];
    snprintf(id, sizeof id, "%s", mr_welcome(r, w)->worker_id);
    mr_frame(r, c, SAY);
    mr_frame(r, w, FINAL(1));
    mr_restart(r);
    struct eg_session_row row;
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("s"), &row), EG_OK);
    cr_assert_str_eq(row.last_worker, id);
}

Test(turns_of_machine, no_session_starves_another)
{
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"t\",\"create\":true");
    for (int i = 0; i < 5; i++) {
        mr_frame(r, c, SAY);
    }
    mr_frame(r, d, SAY);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert(strstr(mr_text(r, w, "\"type\":\"turn\""), "\"session_id\":\"s\""));
    mr_frame(r, w, FINAL(1));
    cr_assert(strstr(mr_text(r, w, "\"type\":\"turn\""), "\"session_id\":\"t\""));
}

Test(turns_of_machine, draining_hands_nothing_out)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    r->m->draining = true;
    mr_frame(r, c, SAY);
    cr_assert(mr_text(r, c, "accepted"));
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
}

Test(turns_of_machine, a_hand_out_that_was_rolled_back_is_made_again)
{
    mr_frame(r, c, SAY);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert(mr_welcome(r, w)->worker, "attaching needs no writing");
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
    eg_machine_resume(r->m);
    mr_tick(r, 0);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"attempt\":"), 1);
}

Test(turns_of_machine, an_id_stands_for_one_event)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w, EMIT(1, "e"));
    mr_frame(r, w, EMIT(1, "e"));
    cr_assert(mr_text(r, w, "\"duplicate\":true"));
    /* Another turn, another type, other data, a final: each is another event. */
    mr_frame(r, w, EMIT(2, "e"));
    cr_assert(mr_text(r, w, "id_conflict"));
    mr_frame(r, w,
             "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"status\",\"data\":{"
             "\"t\":1},"
             "\"event_id\":\"e\"}");
    cr_assert(mr_text(r, w, "id_conflict"));
    mr_frame(
        r, w,
        "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"token_stream\",\"data\":{"
        "\"t\":2},\"event_id\":\"e\"}");
    cr_assert(mr_text(r, w, "id_conflict"));
    mr_frame(
        r, w,
        "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1,\"event_id\":\"e\"}");
    cr_assert(mr_text(r, w, "id_conflict"));
    mr_frame(
        r, w,
        "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"token_stream\",\"data\":{\"t\":1},"
        "\"event_id\":\"e\"}");
    cr_assert(mr_text(r, w, "id_conflict"));
}

Test(turns_of_machine, an_event_without_data_has_an_empty_object)
{
    static const char note[] = "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.note\","
                               "\"event_id\":\"n\"}";
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, w, note);
    cr_assert(mr_event(r, "\"data\":{}"));
    mr_frame(r, w, note);
    cr_assert(mr_text(r, w, "\"duplicate\":true"));
}

Test(turns_of_machine, what_is_not_of_this_agent_is_closed_to_its_worker)
{
    const eg_conn_id w = mr_worker(r, "b", "");
    mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w, FINAL(1));
    cr_assert(mr_text(r, w, "turn_closed"));
    mr_frame(r, w, EMIT(1, "e"));
    cr_assert(mr_text(r, w, "turn_closed"));
    mr_frame(r, w, FAIL(1));
    cr_assert(mr_text(r, w, "turn_closed"));
    mr_frame(r, w, "{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":1}");
    cr_assert(mr_text(r, w, "turn_closed"));
    mr_frame(r, w, "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.n\",\"data\":{}}");
    cr_assert(mr_text(r, w, "\"field\":\"session_id\""));
    mr_frame(r, w, "{\"type\":\"final\",\"session_id\":\"none\",\"turn\":1,\"content\":1}");
    cr_assert(mr_text(r, w, "turn_closed"));
}

Test(turns_of_machine, nothing_is_published_into_a_closed_session)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    struct eg_call end = {.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s")};
    cr_assert_eq(mr_call(r, &end), EG_CODE_NONE);
    mr_frame(r, w, "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.n\",\"data\":{}}");
    cr_assert(mr_text(r, w, "session_closed"));
}

Test(turns_of_machine, a_failure_may_say_anything)
{
    r->settings->max_attempts = 1;
    static const char *const error[] = {"\"text\"", "{\"no\":1}", "7"};
    static const char *const told[] = {"\"message\":\"text\"", "\"message\":\"{\\\"no\\\":1}\"",
                                       "\"message\":\"7\""};
    const eg_conn_id w = mr_worker(r, "a", "");
    for (int i = 0; i < 3; i++) {
        char fail[120];
        mr_frame(r, c, SAY);
        snprintf(fail, sizeof fail,
                 "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":%d,\"error\":%s}", 2 * i + 1,
                 error[i]);
        mr_frame(r, w, fail);
        cr_expect(mr_event(r, told[i]), "%s: %s", error[i], mr_event(r, ""));
    }
}

Test(turns_of_machine, the_wait_between_attempts_is_bounded)
{
    r->settings->max_attempts = 20;
    r->settings->retry_backoff_ms = 50000;
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    for (int i = 0; i < 4; i++) {
        mr_frame(r, w, FAIL(1));
        const struct eg_out *const o = mr_out(r, EG_OUT_NOTICE, 0, 1);
        cr_assert_eq(mr_int(o->bytes->data, "\"retry_after_ms\":"), i ? 60000 : 50000);
        mr_tick(r, 60000);
        cr_assert(mr_text(r, w, "\"type\":\"turn\""));
    }
    mr_frame(r, w,
             "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1,\"error\":1,\"retry_after_"
             "seconds\":3}");
    cr_assert_eq(mr_int(mr_out(r, EG_OUT_NOTICE, 0, 1)->bytes->data, "\"retry_after_ms\":"), 3000);
}

Test(turns_of_machine, many_sessions_at_work_survive_a_crash)
{
    mr_worker(r, "a", ",\"concurrency\":1000");
    for (int i = 0; i < 150; i++) {
        const eg_conn_id d = mr_client(r, "u", "");
        mr_frame(r, d, SAY);
    }
    mr_restart(r);
    mr_worker(r, "a", ",\"concurrency\":1000");
    mr_tick(r, 1);
    struct eg_call k = {.kind = EG_CALL_STATS};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "\"turns_running\":150", 19), "%s", k.json.p);
    eg_buf_free(&k.json);
}

/* Whatever order they ended in, what a worker still has when it goes comes back, and nothing else.
 */
Test(turns_of_machine, a_worker_that_goes_gives_back_what_it_has)
{
    static const int ended[][2] = {{0, 1}, {3, 0}, {2, 3}, {1, 2}};
    for (int round = 0; round < 4; round++) {
        const eg_conn_id w = mr_worker(r, "a", ",\"concurrency\":4");
        char text[200], id[16];
        bool open[4] = {true, true, true, true};
        for (int i = 0; i < 4; i++) {
            snprintf(text, sizeof text, ",\"session_id\":\"h%d-%d\",\"create\":true", round, i);
            mr_frame(r, mr_client(r, "u", text), SAY);
        }
        cr_assert_eq(r->m->running, 4);
        for (int i = 0; i < 2; i++) {
            const int k = ended[round][i];
            open[k] = false;
            snprintf(text, sizeof text,
                     "{\"type\":\"final\",\"session_id\":\"h%d-%d\",\"turn\":1,\"content\":1}",
                     round, k);
            mr_frame(r, w, text);
        }
        cr_assert_eq(r->m->running, 2);
        mr_detach(r, w);
        cr_assert_eq(r->m->running, 0);
        const eg_conn_id v = mr_worker(r, "a", ",\"concurrency\":4");
        cr_assert_eq(r->m->running, 2);
        for (int i = 0; i < 4; i++) {
            snprintf(id, sizeof id, "h%d-%d", round, i);
            cr_expect_eq(mr_text(r, v, id) != NULL, open[i], "%s", id);
        }
        for (int i = 0; i < 4; i++) {
            if (open[i]) {
                snprintf(text, sizeof text,
                         "{\"type\":\"final\",\"session_id\":\"h%d-%d\",\"turn\":1,\"content\":1}",
                         round, i);
                mr_frame(r, v, text);
            }
        }
        cr_assert_eq(r->m->running, 0);
        mr_detach(r, v);
    }
}

/* --- batches that cannot be taken back as they were --- */

/* The batch of c fails, and its session cannot be read again: c is sent away. */
static void lose_session(void)
{
    memstore_fail_reads(r->storage, true);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2,\"message_id\":\"m2\"}");
    memstore_fail_reads(r->storage, false);
    cr_assert_eq(mr_out(r, EG_OUT_CLOSE, c, 0)->close_code, EG_CLOSE_TRY_LATER);
}

Test(turns_of_machine, a_turn_at_work_is_counted_again_when_its_session_comes_back)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    cr_assert_eq(r->m->running, 1);
    lose_session();
    eg_machine_resume(r->m);
    mr_tick(r, 0);
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    cr_assert_eq(r->m->running, 1);
    mr_frame(r, d, SAY);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""), "it is at work on the first");
    mr_frame(r, w, FINAL(1));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 2);
    cr_assert_eq(r->m->running, 1);
}

Test(turns_of_machine, a_client_is_sent_away_or_the_process_ends, .exit_code = 75)
{
    /* c's session is lost with the batch, and then not even the refusal succeeds. */
    memstore_fail_reads(r->storage, true);
    mr_client(r, "u", ",\"session_id\":\"s\",\"since\":\"acked\"");
}

/* --- long queues --- */

static void abort_of(int turn)
{
    char text[64];
    snprintf(text, sizeof text, "{\"type\":\"abort\",\"turn\":%d}", turn);
    mr_frame(r, c, text);
    cr_assert_eq(mr_int(mr_text(r, c, "\"aborted\""), "\"turn\":"), turn);
}

Test(turns_of_machine, queued_turns_end_anywhere_and_the_rest_keeps_its_order)
{
    static const int gone[] = {7, 2, 12, 6, 1, 11};
    static const int left[] = {3, 4, 5, 8, 9, 10};
    for (int i = 0; i < 3; i++) { /* so that the ring has gone round */
        mr_frame(r, c, SAY);
        abort_of((int)eg_turn_head(r->m->sessions)->turn);
    }
    const int base = (int)r->m->sessions->cursor;
    for (int i = 0; i < 12; i++) {
        mr_frame(r, c, SAY);
    }
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        abort_of(base + gone[i]);
        cr_assert_null(eg_turn_named(r->m->sessions, (uint64_t)(base + gone[i])));
    }
    cr_assert_eq(r->m->sessions->turn_count, sizeof left / sizeof *left);
    for (unsigned i = 0; i < r->m->sessions->turn_count; i++) {
        const struct eg_turn *t = eg_turn_at(r->m->sessions, i);
        cr_assert_eq(t->turn, (uint64_t)(base + left[i]));
        cr_assert_eq(eg_turn_named(r->m->sessions, t->turn), t);
    }
    mr_restart(r);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), base + 3);
}

/* --- deadlines --- */

Test(turns_of_machine, a_busy_session_does_not_pile_up_deadlines)
{
    char text[128];
    const eg_conn_id w = mr_worker(r, "a", "");
    r->settings->turn_lease_ms = 1000;
    r->settings->abort_grace_ms = 100;
    for (int i = 0; i < 500; i++) {
        mr_frame(r, c, SAY);
        const int64_t turn = mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":");
        if (i % 3 == 0) {
            mr_frame(r, c, "{\"type\":\"abort\"}");
        }
        snprintf(text, sizeof text,
                 "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":%lld,\"content\":1}",
                 (long long)turn);
        mr_frame(r, w, text);
        mr_tick(r, 1);
    }
    cr_assert_leq(r->m->timer_count, 20, "%u", r->m->timer_count);
    mr_frame(r, c, SAY); /* and the lease of the last one ends when it is to */
    mr_tick(r, 999);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
    mr_tick(r, 1);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"attempt\":"), 2);
}

/* The batch in which a turn's time comes cannot even begin. */
static void its_time_comes_in_vain(int64_t ms)
{
    const int before = r->failures;
    badstore_over(r->storage);
    badstore_order(BAD_BEGIN, 0, 1, EG_ENOMEM);
    mr_tick(r, ms);
    cr_assert(badstore_done());
    cr_assert_eq(r->failures, before + 1);
    eg_machine_resume(r->m);
    mr_tick(r, 1);
}

Test(turns_of_machine, a_lease_ends_also_when_the_storage_failed_at_that_moment)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    its_time_comes_in_vain(r->settings->turn_lease_ms);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"attempt\":"), 2);
}

Test(turns_of_machine, a_wait_ends_also_when_the_storage_failed_at_that_moment)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, w, FAIL(1));
    its_time_comes_in_vain(r->settings->retry_backoff_ms);
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"attempt\":"), 2);
}

Test(turns_of_machine, a_grace_ends_also_when_the_storage_failed_at_that_moment)
{
    mr_worker(r, "a", "");
    mr_frame(r, c, SAY);
    mr_frame(r, c, "{\"type\":\"abort\"}");
    its_time_comes_in_vain(r->settings->abort_grace_ms);
    cr_assert(mr_event(r, "\"outcome\":{\"status\":\"aborted\"}"));
}

Test(turns_of_machine, a_long_error_is_cut_between_characters)
{
    /* The 255th byte is within a character of two, three, four bytes, or at the end of one. */
    static const char *const letters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8d", "x"};
    const eg_conn_id w = mr_worker(r, "a", "");
    for (int i = 0; i < 8; i++) {
        char text[1024];
        struct eg_turn_row row;
        size_t bad;
        mr_frame(r, c, SAY);
        const int64_t turn = mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":");
        int n = snprintf(text, sizeof text,
                         "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":%lld,\"retry\":false,"
                         "\"error\":\"%s",
                         (long long)turn, i < 4 ? "" : "y");
        for (int k = 0; k < 130; k++) {
            n += snprintf(text + n, sizeof text - (size_t)n, "%s", letters[i % 4]);
        }
        snprintf(text + n, sizeof text - (size_t)n, "\"}");
        mr_frame(r, w, text);
        cr_assert_eq(
            r->storage->ops->turn_get(r->storage, r->m->sessions->sid, (uint64_t)turn, &row),
            EG_OK);
        cr_expect(eg_utf8_valid(eg_slice_cstr(row.error), &bad), "%s", row.error);
        cr_expect_geq(strlen(row.error), 130);
    }
}

Test(turns_of_machine, a_turn_whose_message_is_lost_does_not_stop_the_others)
{
    int removed = 0;
    int64_t bytes = 0;
    mr_frame(r, c, SAY);
    mr_frame(r, c, SAY);
    cr_assert_eq(r->storage->ops->begin(r->storage), EG_OK);
    r->storage->ops->events_trim(r->storage, r->m->sessions->sid, 2, 1, &removed, &bytes);
    cr_assert_eq(removed, 1);
    cr_assert_eq(r->storage->ops->commit(r->storage), EG_OK);
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert_eq(r->failures, 0, "the storage works");
    cr_assert(mr_event(r, "\"code\":\"dead_letter\""));
    cr_assert_eq(mr_int(mr_text(r, w, "\"type\":\"turn\""), "\"turn\":"), 2);
}
