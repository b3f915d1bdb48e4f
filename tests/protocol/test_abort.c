/* Abort in every state of a turn, /stop, once and durably. */
#include "pt.h"

PT_SUITE(abort_turn);

/* Reads frames until a final response to this turn comes; asks for this outcome. */
static const cJSON *ended(struct tl_ws *ws, int64_t turn, const char *status)
{
    for (;;) {
        const cJSON *o = pt_wait(ws, "response");
        if (tl_is(o, "status", "final")) {
            pt_int(o, "turn", turn);
            pt_is(o, "outcome.status", status);
            return o;
        }
    }
}

PT_TEST(abort_turn, nothing_to_abort)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    pt_send(a, "{\"type\":\"abort\"}");
    pt_is(pt_expect(a, "no_active_turn"), "session_id", id);
    pt_send(a, "{\"type\":\"message_abort\",\"turn\":1}");
    pt_expect(a, "no_active_turn");
    pt_send(a, "{\"type\":\"message\",\"content\":\"/stop\"}");
    pt_expect(a, "no_active_turn");
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 0);
}

PT_TEST(abort_turn, a_queued_turn_ends_at_once)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    struct tl_ws *b = pt_client("echo", pt_sid());
    pt_say(a, "x");
    pt_send(a, "{\"type\":\"abort\",\"reason\":\"changed my mind\"}");
    const cJSON *o = pt_wait(a, "aborted");
    pt_is(o, "session_id", id);
    pt_int(o, "turn", 1);
    pt_expect(b, "message");
    o = pt_expect(b, "message_abort");
    pt_is(o, "source", "gateway");
    pt_int(o, "turn", 1);
    o = ended(b, 1, "aborted");
    pt_is(o, "source", "gateway");
    /* No worker ever sees it. */
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_quiet(w);
    pt_say(a, "y");
    pt_int(pt_turn(w), "turn", 4);
}

PT_TEST(abort_turn, a_running_turn_ends_through_its_worker)
{
    pt_start("abort_grace_ms = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_send(a, "{\"type\":\"abort\",\"reason\":\"enough\",\"turn\":1}");
    const cJSON *o = pt_expect(w, "abort");
    pt_is(o, "session_id", tl_str(t, "session_id"));
    pt_int(o, "turn", 1);
    pt_is(o, "reason", "enough");
    pt_int(pt_wait(a, "aborted"), "turn", 1);
    /* The worker may still say something before it ends. */
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t));
    pt_send(w,
            "{\"type\":\"final\",%s,\"content\":\"partial\",\"outcome\":{\"status\":\"aborted\"}}",
            pt_on(t));
    o = ended(b, 1, "aborted");
    pt_is(o, "content", "partial");
    pt_is(o, "source", "agent:echo");
    pt_quiet(b); /* once */
    pt_send(a, "{\"type\":\"abort\"}");
    pt_wait(a, "no_active_turn");
}

PT_TEST(abort_turn, a_worker_that_does_not_listen_loses_the_turn_after_the_grace)
{
    pt_start("abort_grace_ms = 300;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_say(a, "next");
    const cJSON *t = pt_turn(w);
    pt_send(a, "{\"type\":\"abort\",\"turn\":1}");
    pt_expect(w, "abort");
    pt_is(ended(b, 1, "aborted"), "source", "gateway");
    pt_final(w, t, "late");
    const cJSON *o = pt_next(w), *next = NULL;
    if (tl_is(o, "type", "turn")) {
        next = o;
        o = pt_next(w);
    }
    pt_is(o, "code", "turn_closed");
    if (!next)
        next = pt_turn(w);
    pt_int(next, "turn", 2);
    pt_final(w, next, "y");
    ended(b, 2, "ok");
}

PT_TEST(abort_turn, one_of_several_turns)
{
    pt_start("abort_grace_ms = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    struct tl_ws *w = pt_worker("echo", NULL);
    for (int i = 1; i <= 3; i++)
        pt_say(a, pt_f("m%d", i));
    const cJSON *t = pt_turn(w);
    pt_send(a, "{\"type\":\"abort\",\"turn\":2}");
    pt_int(pt_wait(a, "aborted"), "turn", 2);
    ended(b, 2, "aborted");
    pt_quiet(w); /* the running one is not touched */
    pt_final(w, t, "one");
    ended(b, 1, "ok");
    t = pt_turn(w);
    pt_int(t, "turn", 3);
    pt_final(w, t, "three");
    ended(b, 3, "ok");
}

PT_TEST(abort_turn, twice_ends_once)
{
    pt_start("abort_grace_ms = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_send(a, "{\"type\":\"abort\"}");
    pt_send(a, "{\"type\":\"abort\"}");
    pt_wait(a, "aborted");
    pt_expect(w, "abort");
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"e\",\"outcome\":{\"status\":\"aborted\"}}",
            pt_on(t));
    ended(a, 1, "aborted");
    struct tl_ws *c = pt_client("echo", pt_f("%s,\"since\":0", sid));
    int finals = 0;
    for (;;) {
        const cJSON *o = pt_next(c);
        if (tl_is(o, "type", "replay_end"))
            break;
        finals += tl_is(o, "event.type", "response");
    }
    cr_assert_eq(finals, 1);
}

PT_TEST(abort_turn, while_it_waits_for_a_retry)
{
    pt_start("retry_backoff_ms = 60000;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"e\"}", pt_on(pt_turn(w)));
    pt_quiet(w);
    pt_send(a, "{\"type\":\"abort\"}");
    ended(a, 1, "aborted");
    pt_quiet(w);
}

PT_TEST(abort_turn, an_aborted_turn_is_not_retried_when_its_worker_goes)
{
    pt_start("abort_grace_ms = 20000; retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_turn(w);
    pt_send(a, "{\"type\":\"abort\"}");
    pt_expect(w, "abort");
    pt_drop_reset(w);
    ended(a, 1, "aborted");
    w = pt_worker("echo", NULL);
    pt_quiet(w);
}

PT_TEST(abort_turn, survives_kill)
{
    pt_start("abort_grace_ms = 400; turn_lease_ms = 400; retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "running");
    pt_say(a, "queued");
    pt_turn(w);
    pt_send(a, "{\"type\":\"abort\",\"turn\":2}");
    pt_int(pt_wait(a, "aborted"), "turn", 2);
    pt_send(a, "{\"type\":\"abort\",\"turn\":1}");
    pt_int(pt_wait(a, "aborted"), "turn", 1);
    pt_kill_restart();
    w = pt_worker("echo", NULL);
    a = pt_client("echo", pt_f("%s,\"since\":0", sid));
    int64_t first = 0, second = 0;
    while (first + second < 2) {
        const cJSON *o = pt_next(a);
        bool wrapped = tl_is(o, "type", "replay");
        const cJSON *e = wrapped ? tl_get(o, "event.data") : o;
        if (!tl_is(e, "type", "response"))
            continue;
        pt_is(e, "outcome.status", "aborted");
        first += tl_int(e, "turn") == 1;
        second += tl_int(e, "turn") == 2;
    }
    cr_assert(first == 1 && second == 1);
    pt_quiet(w);
}

PT_TEST(abort_turn, stop_as_a_message)
{
    pt_start("abort_grace_ms = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *raw = pt_client("echo", pt_f("%s,\"capabilities\":[\"raw\"]", pt_sid()));
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_send(a, "{\"type\":\"message\",\"content\":\"/stop\"}");
    pt_int(pt_wait(a, "aborted"), "turn", 1);
    pt_expect(w, "abort");
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"e\",\"outcome\":{\"status\":\"aborted\"}}",
            pt_on(t));
    ended(a, 1, "aborted");
    /* With the capability raw it is an ordinary message. */
    pt_send(raw, "{\"type\":\"message\",\"content\":\"/stop\"}");
    pt_wait(raw, "response");
    t = pt_turn(w);
    pt_is(t, "message.data.content", "/stop");
    pt_final(w, t, "z");
}

PT_TEST(abort_turn, arguments_are_checked)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    pt_send(a, "{\"type\":\"abort\",\"turn\":\"1\"}");
    pt_is(pt_error(a, "invalid_request"), "field", "turn");
    pt_send(a, "{\"type\":\"abort\",\"reason\":7}");
    pt_is(pt_error(a, "invalid_request"), "field", "reason");
    pt_send(a, "{\"type\":\"abort\",\"turn\":null,\"reason\":null}");
    pt_expect(a, "no_active_turn");
}
