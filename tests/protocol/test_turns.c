/* Turns the plain way: worker, order, absent worker, restarts; and what a worker may send. */
#include "pt.h"

PT_SUITE(turns);

PT_TEST(turns, message_to_final)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    pt_send(a, "{\"type\":\"message\",\"content\":{\"q\":1},\"message_id\":\"m\"}");
    pt_int(pt_expect(a, "response"), "turn", 1);
    const cJSON *t = pt_turn(w);
    pt_is(t, "session_id", id);
    pt_int(t, "turn", 1);
    pt_int(t, "attempt", 1);
    pt_is(t, "message.type", "message");
    pt_int(t, "message.cursor", 1);
    pt_int(t, "message.data.content.q", 1);
    pt_is(t, "message.data.message_id", "m");
    pt_is(t, "message.source", "client:alice");
    pt_has(t, "history_cursor");
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"token_stream\",\"data\":{\"text\":\"he\"}}",
            pt_on(t));
    pt_send(w,
            "{\"type\":\"final\",%s,\"content\":[\"hello\"],\"outcome\":{\"status\":\"ok\","
            "\"cost\":3}}",
            pt_on(t));
    const cJSON *o = pt_expect(a, "token_stream");
    pt_int(o, "cursor", 2);
    pt_int(o, "turn", 1);
    pt_is(o, "data.text", "he");
    o = pt_outcome(a, 1, "ok");
    pt_int(o, "cursor", 3);
    pt_is(o, "source", "agent:echo");
    pt_is(o, "content.0", "hello");
    pt_int(o, "outcome.cost", 3);
    pt_hasnt(o, "data");
    static const char *const every[] = {"session_id", "seq", "event_id", "timestamp"};
    for (size_t i = 0; i < 4; i++)
        pt_has(o, every[i]);
    pt_quiet(a);
    pt_quiet(w);
}

PT_TEST(turns, strictly_one_after_the_other)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", "\"concurrency\":10");
    struct tl_ws *a = pt_client("echo", NULL);
    for (int i = 0; i < 5; i++)
        pt_send(a, "{\"type\":\"message\",\"content\":%d}", i);
    for (int i = 0; i < 5; i++)
        pt_is(pt_wait(a, "response"), "status", "accepted");
    for (int i = 0; i < 5; i++) {
        const cJSON *t = pt_turn(w);
        pt_int(t, "message.data.content", i);
        pt_int(t, "turn", i + 1);
        pt_quiet(w); /* nothing more before this one ends */
        pt_final(w, t, "x");
    }
    for (int i = 0; i < 5; i++)
        pt_outcome(a, i + 1, "ok");
}

PT_TEST(turns, messages_wait_for_an_absent_worker)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    pt_say(a, "one");
    pt_restart();
    a = pt_client("echo", sid);
    pt_say(a, "two");
    pt_kill_restart();
    a = pt_client("echo", sid);
    pt_say(a, "three");
    struct tl_ws *w = pt_worker("echo", NULL);
    static const char *const text[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        const cJSON *t = pt_turn(w);
        pt_is(t, "message.data.content", text[i]);
        pt_int(t, "attempt", 1);
        pt_final(w, t, text[i]);
        pt_is(pt_outcome(a, i + 1, "ok"), "content", text[i]);
    }
}

PT_TEST(turns, a_worker_only_gets_its_own_agents_turns)
{
    pt_start(NULL);
    struct tl_ws *we = pt_worker("echo", NULL), *ws = pt_worker("support", NULL);
    struct tl_ws *a = pt_client("support", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(ws);
    pt_quiet(we);
    /* And cannot write into another agent's turn. */
    pt_send(we, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t));
    pt_error(we, "turn_closed");
    pt_final(ws, t, "done");
    pt_outcome(a, 1, "ok");
}

PT_TEST(turns, the_answer_survives_an_absent_client)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    pt_say(a, "x");
    pt_drop(a);
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    const cJSON *t = pt_turn(w);
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"for you\",\"event_id\":\"f\"}", pt_on(t));
    pt_is(pt_expect(w, "emitted"), "event_id", "f");
    pt_kill_restart();
    a = pt_client("echo", pt_f("%s,\"since\":1", sid));
    const cJSON *o = pt_expect(a, "replay");
    pt_is(o, "event.type", "response");
    pt_is(o, "event.data.content", "for you");
    pt_is(o, "event.data.outcome.status", "ok");
}

PT_TEST(turns, emit_takes_known_events_and_own_names)
{
    static const char *const good[] = {
        "token_stream",     "tool_call_stream", "tool_result_stream",
        "reasoning_stream", "stream_error",     "tool_progress_stream",
        "stream_end",       "todo_stream",      "model_fallback_stream",
        "retry_stream",     "status",           "x.mine"};
    static const char *const bad[] = {"message", "response", "token", "", "X.mine", "hello_ok"};

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"%s\",\"data\":{\"i\":%zu}}", pt_on(t),
                good[i], i);
        const cJSON *o = pt_expect(w, "emitted");
        pt_int(o, "cursor", i + 2);
        pt_int(o, "turn", 1);
        o = pt_expect(a, good[i]);
        pt_int(o, "data.i", i);
        pt_int(o, "turn", 1);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"%s\",\"data\":{}}", pt_on(t), bad[i]);
        pt_is(pt_error(w, "invalid_request"), "field", "event");
    }
    pt_send(w, "{\"type\":\"emit\",%s,\"data\":{}}", pt_on(t));
    pt_is(pt_error(w, "invalid_request"), "field", "event");
    pt_quiet(a);
}

PT_TEST(turns, worker_arguments_are_checked)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    const char *id = tl_str(t, "session_id");
    const struct {
        const char *frame, *field;
    } bad[] = {
        {"{\"type\":\"final\",\"turn\":1,\"content\":1}", "session_id"},
        {pt_f("{\"type\":\"final\",\"session_id\":\"%s\",\"content\":1}", id), "turn"},
        {pt_f("{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":\"1\",\"content\":1}", id),
         "turn"},
        {pt_f("{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":1.5,\"content\":1}", id), "turn"},
        {pt_f("{\"type\":\"final\",%s,\"content\":1,\"outcome\":{\"status\":\"fine\"}}", pt_on(t)),
         "outcome"},
        {pt_f("{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{},\"ephemeral\":1}", pt_on(t)),
         "ephemeral"},
        {pt_f("{\"type\":\"fail\",%s,\"error\":\"e\",\"retry\":\"no\"}", pt_on(t)), "retry"},
        {pt_f("{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{},\"event_id\":\"\"}",
              pt_on(t)),
         "event_id"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(w, "%s", bad[i].frame);
        const cJSON *o = pt_error(w, "invalid_request");
        cr_assert(!strncmp(tl_str(o, "field"), bad[i].field, strlen(bad[i].field)), "%s: %s",
                  bad[i].frame, pt_text(o));
    }
    pt_final(w, t, "fine");
    pt_outcome(a, 1, "ok");
}

PT_TEST(turns, frames_for_turns_that_are_not_open)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_final(w, t, "done");
    pt_outcome(a, 1, "ok");
    pt_final(w, t, "again");
    pt_error(w, "turn_closed");
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t));
    pt_error(w, "turn_closed");
    pt_send(w, "{\"type\":\"extend\",%s}", pt_on(t));
    pt_error(w, "turn_closed");
    pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"late\"}", pt_on(t));
    pt_error(w, "turn_closed");
    pt_send(w, "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":99,\"content\":1}",
            tl_str(t, "session_id"));
    pt_error(w, "turn_closed");
    pt_send(w, "{\"type\":\"ping\"}");
    pt_expect(w, "pong");
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 2);
}

PT_TEST(turns, event_ids_make_worker_frames_idempotent)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    for (int i = 0; i < 3; i++) {
        pt_send(w,
                "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{\"n\":1},\"event_id\":"
                "\"e1\"}",
                pt_on(t));
        const cJSON *o = pt_expect(w, "emitted");
        pt_int(o, "cursor", 2);
        pt_is(o, "event_id", "e1");
    }
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{\"n\":2},\"event_id\":\"e1\"}",
            pt_on(t));
    pt_is(pt_error(w, "id_conflict"), "ref", "e1");
    pt_is(pt_expect(a, "status"), "event_id", "e1");
    for (int i = 0; i < 3; i++)
        pt_send(w, "{\"type\":\"final\",%s,\"content\":\"end\",\"event_id\":\"f1\"}", pt_on(t));
    pt_is(pt_outcome(a, 1, "ok"), "event_id", "f1");
    /* Whatever answers a repeated final, it is no error. */
    pt_send(w, "{\"type\":\"ping\"}");
    for (;;) {
        const cJSON *o = pt_next(w);
        cr_assert(!tl_is(o, "type", "error"), "%s", pt_text(o));
        if (tl_is(o, "type", "pong"))
            break;
    }
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 3);
    /* Still so after kill -9. */
    const char *on = pt_f("%s", pt_on(t));
    pt_kill_restart();
    w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"end\",\"event_id\":\"f1\"}", on);
    pt_send(w, "{\"type\":\"ping\"}");
    for (;;) {
        const cJSON *o = pt_next(w);
        cr_assert(!tl_is(o, "type", "error"), "%s", pt_text(o));
        if (tl_is(o, "type", "pong"))
            break;
    }
}

PT_TEST(turns, a_final_that_says_nothing_may_be_repeated)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    static const char *const same[] = {"", ",\"content\":null", ",\"content\":\"\""};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        pt_send(w,
                "{\"type\":\"final\",%s,\"outcome\":{\"status\":\"error\"},"
                "\"event_id\":\"f1\"%s}",
                pt_on(t), same[i]);
        pt_int(pt_expect(w, "emitted"), "cursor", 2);
    }
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"x\",\"event_id\":\"f1\"}", pt_on(t));
    pt_is(pt_error(w, "id_conflict"), "ref", "f1");
    pt_outcome(a, 1, "error");
    pt_quiet(a);
}

PT_TEST(turns, an_agents_name_is_quoted_wherever_it_is_told)
{
    struct tl_claims claims = {.sub = "worker", .scope = "agent", .agents = "*"};
    const char *name = "odd \\\"one\\\"\\t\\\\"; /* as JSON says it */

    pt_start(NULL);
    struct tl_ws *w = pt_client_as(pt_token_for(&claims), name, "\"role\":\"agent\"");
    struct tl_ws *a = pt_client(name, "\"capabilities\":[\"streaming\"]");
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":1,\"ephemeral\":true}",
            pt_on(t));
    pt_is(pt_expect(a, "status"), "source", "agent:odd \"one\"\t\\");
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":1}", pt_on(t));
    pt_is(pt_expect(a, "status"), "source", "agent:odd \"one\"\t\\");
    pt_final(w, t, "fine");
    pt_is(pt_outcome(a, 1, "ok"), "source", "agent:odd \"one\"\t\\");
}

PT_TEST(turns, ephemeral_emits_are_live_only)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    const char *sid = pt_sid();
    struct tl_ws *plain = pt_client("echo", sid);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_expect(plain, "message");
    const cJSON *t = pt_turn(w);
    pt_send(w,
            "{\"type\":\"emit\",%s,\"event\":\"token_stream\",\"data\":{\"t\":1},"
            "\"ephemeral\":true}",
            pt_on(t));
    const cJSON *o = pt_expect(a, "token_stream");
    pt_hasnt(o, "cursor");
    pt_int(o, "data.t", 1);
    pt_final(w, t, "end");
    pt_int(pt_outcome(a, 1, "ok"), "cursor", 2);
    pt_int(pt_outcome(plain, 1, "ok"), "cursor", 2);
    struct tl_ws *b =
        pt_client("echo", pt_f("%s,\"since\":0,\"capabilities\":[\"streaming\"]", sid));
    pt_int(pt_expect(b, "replay"), "seq", 1);
    pt_is(pt_expect(b, "replay"), "event.type", "response");
    pt_int(pt_expect(b, "replay_end"), "cursor", 2);
}

PT_TEST(turns, publish_outside_a_turn)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    for (int i = 0; i < 2; i++)
        pt_send(w,
                "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.reminder\","
                "\"data\":{\"at\":7},\"event_id\":\"r1\"}",
                id);
    const cJSON *o = pt_expect(a, "x.reminder");
    pt_int(o, "cursor", 1);
    pt_is(o, "event_id", "r1");
    pt_is(o, "source", "agent:echo");
    pt_int(o, "data.at", 7);
    pt_hasnt(o, "turn");
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 1);
    /* Only into the agent's own sessions. */
    struct tl_ws *s = pt_worker("support", NULL);
    pt_send(s, "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.r\",\"data\":{}}", id);
    pt_expect(s, "error");
    pt_send(s, "{\"type\":\"publish\",\"session_id\":\"nowhere\",\"event\":\"x.r\",\"data\":{}}");
    pt_expect(s, "error");
    pt_quiet(a);
}

PT_TEST(turns, own_names_in_a_turn_need_streaming_and_published_ones_do_not)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"streaming\"]");
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    const char *sid = pt_sid();
    struct tl_ws *plain = pt_client("echo", sid);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_int(pt_expect(plain, "message"), "cursor", 1);
    const cJSON *t = pt_turn(w);
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"x.mine\",\"data\":1}", pt_on(t));
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"x.mine\",\"data\":2,\"ephemeral\":true}",
            pt_on(t));
    pt_send(w, "{\"type\":\"publish\",\"session_id\":\"%s\",\"event\":\"x.mine\",\"data\":3}", id);
    for (int i = 1; i <= 3; i++)
        pt_int(pt_expect(a, "x.mine"), "data", i);
    const cJSON *o = pt_expect(plain, "x.mine");
    pt_int(o, "data", 3);
    pt_int(o, "cursor", 3);
    struct tl_ws *again = pt_client("echo", pt_f("%s,\"since\":0", sid));
    pt_int(pt_expect(again, "replay"), "seq", 1);
    pt_int(pt_expect(again, "replay"), "seq", 3);
    pt_int(pt_expect(again, "replay_end"), "cursor", 3);
    again = pt_client("echo", pt_f("%s,\"since\":1,\"capabilities\":[\"streaming\"]", sid));
    pt_int(pt_expect(again, "replay"), "seq", 2);
    pt_int(pt_expect(again, "replay"), "seq", 3);
    pt_int(pt_expect(again, "replay_end"), "cursor", 3);
}

PT_TEST(turns, worker_history)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    pt_say(a, "one");
    struct tl_ws *w = pt_worker("echo", NULL);
    const cJSON *t = pt_turn(w);
    pt_send(w, "{\"type\":\"history\",\"session_id\":\"%s\"}", id);
    const cJSON *o = pt_expect(w, "history");
    pt_is(o, "events.0.data.content", "one");
    pt_send(w, "{\"type\":\"history\"}");
    pt_is(pt_error(w, "invalid_request"), "field", "session_id");
    struct tl_ws *s = pt_worker("support", NULL);
    pt_send(s, "{\"type\":\"history\",\"session_id\":\"%s\"}", id);
    pt_expect(s, "error");
    pt_final(w, t, "x");
}

PT_TEST(turns, clients_with_ack_hear_about_delivery)
{
    pt_start("retry_backoff_ms = 20; max_attempts = 3;");
    struct tl_ws *a = pt_client("echo", "\"capabilities\":[\"ack\"]");
    struct tl_ws *plain = pt_client("echo", pt_sid());
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    pt_int(pt_expect(a, "message_ack"), "turn", 1);
    pt_send(w, "{\"type\":\"fail\",%s,\"error\":\"not now\"}", pt_on(t));
    pt_int(pt_expect(a, "message_nack"), "turn", 1);
    pt_int(pt_expect(a, "delivery_retry"), "turn", 1);
    t = pt_turn(w);
    pt_int(t, "attempt", 2);
    pt_int(pt_expect(a, "message_ack"), "turn", 1);
    pt_final(w, t, "ok");
    pt_outcome(a, 1, "ok");
    pt_expect(plain, "message");
    pt_outcome(plain, 1, "ok");
}
