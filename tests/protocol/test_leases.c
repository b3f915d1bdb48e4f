/* Leases, retries, dead letters, late writers; all of it across kill -9 too. */
#include "pt.h"

PT_SUITE(leases);

PT_TEST(leases, a_lost_worker_gives_its_turn_back)
{
    pt_start("retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    pt_say(a, "one");
    pt_say(a, "two");
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_int(pt_turn(w), "attempt", 1);
    pt_drop_reset(w);
    w = pt_worker("echo", NULL);
    const cJSON *t = pt_turn(w);
    pt_int(t, "turn", 1); /* in order */
    pt_int(t, "attempt", 2);
    pt_final(w, t, "x");
    t = pt_turn(w);
    pt_int(t, "turn", 2);
    pt_int(t, "attempt", 1);
    pt_final(w, t, "y");
    pt_outcome(a, 1, "ok");
    pt_outcome(a, 2, "ok");
}

PT_TEST(leases, a_silent_worker_loses_its_turn_and_cannot_write_any_more)
{
    pt_start("turn_lease_ms = 600; retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    struct tl_ws *first = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t1 = pt_turn(first);
    struct tl_ws *second = pt_worker("echo", NULL);
    const cJSON *t2 = NULL;
    /* After the lease it is handed out again, to either of the two. */
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    while (!t2 && tl_now_ms() < end) {
        cJSON *o = tl_json_next(second, 100, NULL);
        if (o)
            t2 = pt_keep_json(o);
        else if ((o = tl_json_next(first, 0, NULL))) {
            pt_keep_json(o); /* silent again */
            cr_assert(tl_is(o, "type", "turn"), "%s", pt_text(o));
        }
    }
    cr_assert(t2, "the turn was not handed out again");
    cr_assert(tl_int(t2, "attempt") >= 2, "%s", pt_text(t2));
    pt_send(first, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t1));
    pt_error(first, "turn_closed");
    pt_final(first, t1, "late");
    pt_error(first, "turn_closed");
    pt_final(second, t2, "in time");
    const cJSON *o = pt_outcome(a, 1, "ok");
    pt_is(o, "content", "in time");
    pt_int(o, "cursor", 2);
}

PT_TEST(leases, a_hung_worker_comes_last)
{
    pt_start("turn_lease_ms = 500;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *first = pt_worker("echo", NULL);
    pt_say(a, "one");
    pt_final(first, pt_turn(first), "x");
    pt_outcome(a, 1, "ok");
    struct tl_ws *second = pt_worker("echo", NULL);
    pt_say(a, "two");
    const cJSON *t = pt_turn(first); /* it served the session last */
    pt_int(t, "attempt", 1);
    t = pt_turn(second); /* yet it is silent, and another one is free */
    pt_int(t, "turn", 3);
    pt_int(t, "attempt", 2);
    pt_final(first, t, "late");
    pt_error(first, "turn_closed");
    pt_final(second, t, "in time");
    pt_is(pt_outcome(a, 3, "ok"), "content", "in time");
    pt_say(a, "three");
    pt_int(pt_turn(second), "turn", 5); /* and the session stays there */
    pt_quiet(first);
}

PT_TEST(leases, a_hung_worker_is_better_than_none)
{
    pt_start("turn_lease_ms = 500;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "one");
    pt_int(pt_turn(w), "attempt", 1);
    const cJSON *t = pt_turn(w);
    pt_int(t, "attempt", 2);
    pt_final(w, t, "x");
    pt_outcome(a, 1, "ok");
}

PT_TEST(leases, extend_and_emit_keep_the_lease)
{
    pt_start("turn_lease_ms = 1500;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    for (int i = 0; i < 10; i++) {
        if (i % 2)
            pt_send(w, "{\"type\":\"extend\",%s}", pt_on(t));
        else
            pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t));
        cr_assert(tl_json_quiet(w, 250), "the worker heard: %s", tl_ws_data(w));
    }
    pt_final(w, t, "long");
    pt_is(pt_outcome(a, 1, "ok"), "content", "long");
}

PT_TEST(leases, a_repeated_emit_keeps_the_lease)
{
    pt_start("turn_lease_ms = 1500;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    for (int i = 0; i < 10; i++) {
        pt_send(w,
                "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{},\"event_id\":"
                "\"again\"}",
                pt_on(t));
        cr_assert(tl_json_quiet(w, 250), "the worker heard: %s", tl_ws_data(w));
    }
    pt_final(w, t, "long");
    const cJSON *o = pt_outcome(a, 1, "ok");
    pt_is(o, "content", "long");
    pt_int(o, "cursor", 3);
}

PT_TEST(leases, fail_is_retried_then_dead)
{
    pt_start("max_attempts = 3; retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_say(a, "next");
    for (int i = 1; i <= 3; i++) {
        const cJSON *t = pt_turn(w);
        pt_int(t, "turn", 1);
        pt_int(t, "attempt", i);
        pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"no %d\"}", pt_on(t), i);
    }
    const cJSON *o = pt_outcome(a, 1, "error");
    pt_is(o, "source", "gateway");
    pt_int(o, "cursor", 3);
    /* The queue goes on. */
    const cJSON *t = pt_turn(w);
    pt_int(t, "turn", 2);
    pt_int(t, "attempt", 1);
    pt_final(w, t, "fine");
    pt_outcome(a, 2, "ok");
}

PT_TEST(leases, fail_without_retry_is_dead_at_once)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"never\",\"retry\":false}", pt_on(t));
    pt_is(pt_outcome(a, 1, "error"), "source", "gateway");
    pt_quiet(w);
    pt_final(w, t, "late");
    pt_error(w, "turn_closed");
}

PT_TEST(leases, retry_after_is_kept)
{
    pt_start("retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    int64_t start = tl_now_ms();
    pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"e\",\"retry_after_seconds\":1}", pt_on(t));
    t = pt_turn(w);
    pt_int(t, "attempt", 2);
    cr_assert(tl_now_ms() - start >= 900, "retried before the time the worker asked for");
    pt_final(w, t, "x");
    pt_outcome(a, 1, "ok");
}

PT_TEST(leases, an_old_turn_is_not_retried)
{
    pt_start("max_attempts = 1000; max_turn_age_ms = 1000; retry_backoff_ms = 200;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    int attempts = 0;
    for (;;) {
        cJSON *o = tl_json_next(a, 0, NULL);
        if (o) {
            pt_keep_json(o);
            pt_is(o, "outcome.status", "error");
            break;
        }
        o = tl_json_next(w, 100, NULL);
        if (!o)
            continue;
        pt_keep_json(o);
        pt_is(o, "type", "turn");
        pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"e\"}", pt_on(o));
        cr_assert(++attempts < 50, "retried for ever");
    }
    pt_quiet(w);
}

PT_TEST(leases, attempts_survive_kill)
{
    pt_start("turn_lease_ms = 500; retry_backoff_ms = 20; max_attempts = 3;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    for (int i = 1; i <= 3; i++) {
        const cJSON *t = pt_turn(w);
        pt_int(t, "turn", 1);
        pt_int(t, "attempt", i);
        if (i == 3)
            pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"e\"}", pt_on(t));
        else {
            pt_kill_restart();
            w = pt_worker("echo", NULL);
        }
    }
    a = pt_client("echo", pt_f("%s,\"since\":1", sid));
    const cJSON *o = pt_next(a);
    /* It came either with the replay or live after it. */
    while (!strstr(tl_ws_data(a), "outcome"))
        o = pt_next(a);
    cr_assert(tl_is(o, "outcome.status", "error") || tl_is(o, "event.data.outcome.status", "error"),
              "%s", pt_text(o));
    pt_quiet(w);
}

PT_TEST(leases, a_worker_may_not_use_a_turn_from_before_its_reconnect)
{
    pt_start("retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_drop(w);
    struct tl_ws *w2 = pt_worker("echo", NULL);
    const cJSON *t2 = pt_turn(w2);
    pt_int(t2, "attempt", 2);
    struct tl_ws *w3 = pt_worker("echo", NULL);
    pt_final(w3, t, "stale");
    pt_error(w3, "turn_closed");
    pt_final(w2, t2, "right");
    pt_is(pt_outcome(a, 1, "ok"), "content", "right");
}
