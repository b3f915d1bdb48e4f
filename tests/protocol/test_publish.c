/* Publishing: the accepted answer, the event others see, idempotency, refusals. */
#include "pt.h"

PT_SUITE(publish);

PT_TEST(publish, accepted_and_seen_by_others)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    struct tl_ws *b = pt_client("echo", sid);
    pt_send(a, "{\"type\":\"message\",\"content\":\"hi\",\"message_id\":\"m1\","
               "\"metadata\":{\"k\":[1]}}");
    const cJSON *o = pt_expect(a, "response");
    pt_is(o, "status", "accepted");
    pt_is(o, "session_id", id);
    pt_is(o, "message_id", "m1");
    pt_int(o, "cursor", 1);
    pt_int(o, "turn", 1);
    pt_false(o, "duplicate");
    pt_quiet(a); /* the answer comes in place of the event */
    o = pt_expect(b, "message");
    pt_is(o, "session_id", id);
    pt_int(o, "cursor", 1);
    pt_int(o, "seq", 1);
    pt_int(o, "turn", 1);
    pt_is(o, "source", "client:alice");
    pt_is(o, "data.content", "hi");
    pt_is(o, "data.message_id", "m1");
    pt_int(o, "data.metadata.k.0", 1);
    cr_assert(*tl_str(o, "event_id"));
    const cJSON *t = tl_get(o, "timestamp");
    cr_assert(cJSON_IsNumber(t) && t->valuedouble > 1.6e9 && t->valuedouble < 1e11, "%s",
              pt_text(o));
    pt_send(a, "{\"type\":\"message\",\"content\":\"no id\"}");
    o = pt_expect(a, "response");
    pt_hasnt(o, "message_id");
    pt_int(o, "cursor", 2);
    o = pt_expect(b, "message");
    pt_hasnt(o, "data.message_id");
    /* UUIDv7: version and variant. */
    const char *e = tl_str(o, "event_id");
    cr_assert(strlen(e) == 36 && e[14] == '7' && strchr("89ab", e[19]), "%s", e);
}

PT_TEST(publish, any_json_but_null_and_empty_string)
{
    static const char *const good[] = {"\"x\"",
                                       "0",
                                       "false",
                                       "[]",
                                       "{}",
                                       "[1,{\"a\":null}]",
                                       "1.5",
                                       "-1e-3",
                                       "true",
                                       "\" \"",
                                       "\"\\u00e9\\ud83d\\ude00\""};
    static const char *const bad[] = {"null", "\"\""};

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        pt_send(a, "{\"type\":\"message\",\"content\":%s}", good[i]);
        pt_int(pt_expect(a, "response"), "cursor", i + 1);
        const cJSON *o = pt_expect(b, "message");
        cJSON *want = pt_keep_json(cJSON_Parse(good[i]));
        cr_assert(cJSON_Compare(tl_get(o, "data.content"), want, true), "%s became %s", good[i],
                  pt_text(o));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(a, "{\"type\":\"message\",\"content\":%s,\"message_id\":\"r%zu\"}", bad[i], i);
        const cJSON *o = pt_error(a, "invalid_request");
        pt_is(o, "field", "content");
        pt_is(o, "ref", pt_f("r%zu", i));
    }
    pt_send(a, "{\"type\":\"message\"}");
    pt_is(pt_error(a, "invalid_request"), "field", "content");
    cr_assert_eq(pt_say(a, "next"), (int64_t)(sizeof good / sizeof *good + 1));
}

PT_TEST(publish, numbers_and_text_survive_exactly)
{
    static const char *const raw = "{\"big\":9007199254740991,\"neg\":-9007199254740991,\"f\":0.1,"
                                   "\"e\":1e-7,\"t\":\"tab\\t \\\"q\\\" \\u2028 \xc3\xa9\"}";
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    pt_send(a, "{\"type\":\"message\",\"content\":%s}", raw);
    const cJSON *o = pt_expect(b, "message");
    cJSON *want = pt_keep_json(cJSON_Parse(raw));
    cr_assert(cJSON_Compare(tl_get(o, "data.content"), want, true), "%s", pt_text(o));
    cr_assert(strstr(tl_ws_data(b), "9007199254740991"), "a big integer changed its form: %s",
              tl_ws_data(b));
}

PT_TEST(publish, message_ids_are_checked)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    char name[130];
    memset(name, 'i', 129);
    name[129] = 0;
    static const char *const bad[] = {"7", "\"\"", "[]", "true"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":%s}", bad[i]);
        pt_is(pt_error(a, "invalid_request"), "field", "message_id");
    }
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"%s\"}", name);
    pt_is(pt_error(a, "invalid_request"), "field", "message_id");
    name[128] = 0;
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"%s\"}", name);
    pt_is(pt_expect(a, "response"), "message_id", name);
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":null}");
    pt_hasnt(pt_expect(a, "response"), "message_id");
}

static void publish_again(struct tl_ws *ws, const char *content, int64_t cursor, bool duplicate)
{
    pt_send(ws, "{\"type\":\"message\",\"content\":%s,\"message_id\":\"same\"}", content);
    const cJSON *o = pt_expect(ws, "response");
    pt_is(o, "status", "accepted");
    pt_is(o, "message_id", "same");
    pt_int(o, "cursor", cursor);
    pt_int(o, "turn", cursor);
    cr_assert(tl_bool(o, "duplicate") == duplicate, "%s", pt_text(o));
}

PT_TEST(publish, a_message_id_is_stored_once)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    publish_again(a, "{\"a\":1,\"b\":2}", 1, false);
    publish_again(a, "{\"a\":1,\"b\":2}", 1, true);
    cr_assert_eq(pt_say(a, "between"), 2);
    publish_again(a, "{\"a\":1,\"b\":2}", 1, true);
    /* On another connection, and across restarts of both kinds. */
    struct tl_ws *b = pt_client("echo", sid);
    publish_again(b, "{\"a\":1,\"b\":2}", 1, true);
    pt_restart();
    b = pt_client("echo", sid);
    publish_again(b, "{\"a\":1,\"b\":2}", 1, true);
    pt_kill_restart();
    b = pt_client("echo", sid);
    publish_again(b, "{\"a\":1,\"b\":2}", 1, true);
    /* The same id with other content. */
    pt_send(b, "{\"type\":\"message\",\"content\":\"other\",\"message_id\":\"same\"}");
    pt_is(pt_error(b, "id_conflict"), "ref", "same");
    /* Another sub, and another session, have ids of their own. */
    struct tl_claims claims = {.sub = "bob", .sessions = id};
    struct tl_ws *bob = pt_client_as(pt_token_for(&claims), "echo", sid);
    publish_again(bob, "\"bobs\"", 3, false);
    struct tl_ws *c = pt_client("echo", NULL);
    publish_again(c, "\"elsewhere\"", 1, false);
}

PT_TEST(publish, answers_come_in_cursor_order)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    enum { COUNT = 60 };
    for (int i = 1; i <= COUNT; i++)
        pt_send(a, "{\"type\":\"message\",\"content\":%d,\"message_id\":\"m%d\"}", i, i);
    double last = 0;
    for (int i = 1; i <= COUNT; i++) {
        const cJSON *o = pt_expect(a, "response");
        pt_int(o, "cursor", i);
        pt_is(o, "message_id", pt_f("m%d", i));
        o = pt_expect(b, "message");
        pt_int(o, "seq", i);
        pt_int(o, "data.content", i);
        double t = tl_get(o, "timestamp")->valuedouble;
        cr_assert(t >= last, "time went back: %s", pt_text(o));
        last = t;
    }
}

PT_TEST(publish, needs_the_scope_write)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client_as(pt_token("alice", "read"), "echo", NULL);
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
    const cJSON *o = pt_error(a, "insufficient_scope");
    pt_is(o, "required_scope", "write");
    pt_is(o, "ref", "m");
    pt_send(a, "{\"type\":\"abort\"}");
    pt_is(pt_error(a, "insufficient_scope"), "required_scope", "write");
    pt_quiet(a);
}

PT_TEST(publish, a_worker_is_told_the_scope_that_a_client_needs)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_send(w, "{\"type\":\"message\",\"content\":\"x\"}");
    pt_is(pt_error(w, "insufficient_scope"), "required_scope", "write");
    pt_send(w, "{\"type\":\"ack\",\"cursor\":0}");
    pt_is(pt_error(w, "insufficient_scope"), "required_scope", "read");
}

PT_TEST(publish, a_refused_publish_changed_nothing)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client_as(pt_token("alice", "read"), "echo", NULL);
    const char *sid = pt_sid();
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
    pt_error(a, "insufficient_scope");
    struct tl_ws *b = pt_client("echo", sid);
    pt_int(pt_hello, "cursor", 0);
    pt_send(b, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
    const cJSON *o = pt_expect(b, "response");
    pt_int(o, "cursor", 1);
    pt_false(o, "duplicate");
}

PT_TEST(publish, traceparent_is_kept_with_the_event)
{
    static const char *const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"traceparent\":\"%s\"}", trace);
    pt_expect(b, "message");
    cr_assert(strstr(tl_ws_data(b), trace), "%s", tl_ws_data(b));
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_is(pt_expect(w, "turn"), "traceparent", trace);
    static const char *const bad[] = {
        "7", "\"zz\"", "\"00-00000000000000000000000000000000-00f067aa0ba902b7-01\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"traceparent\":%s}", bad[i]);
        pt_is(pt_wait(a, "error"), "field", "traceparent");
    }
}

PT_TEST(publish, the_same_id_twice_in_a_row_without_waiting)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    for (int i = 0; i < 5; i++)
        pt_send(a, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
    for (int i = 0; i < 5; i++) {
        const cJSON *o = pt_expect(a, "response");
        pt_int(o, "cursor", 1);
        cr_assert_eq(tl_bool(o, "duplicate"), i > 0, "%s", pt_text(o));
    }
    pt_int(pt_expect(b, "message"), "cursor", 1);
    pt_quiet(b);
}

PT_TEST(publish, frames_sent_behind_hello_are_served)
{
    pt_start(NULL);
    for (int i = 0; i < 10; i++) {
        struct tl_ws *ws = pt_open();
        pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
        pt_send(ws, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
        pt_send(ws, "{\"type\":\"message\",\"content\":\"y\"}");
        pt_expect(ws, "hello_ok");
        pt_int(pt_expect(ws, "response"), "cursor", 1);
        pt_int(pt_expect(ws, "response"), "cursor", 2);
        pt_quiet(ws);
    }
}

/* Leaving does not swallow the answer to what was published before it. */
PT_TEST(publish, answers_come_before_the_goodbye)
{
    pt_start(NULL);
    for (int i = 0; i < 10; i++) {
        struct tl_ws *ws = pt_client("echo", NULL);
        pt_send(ws, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
        pt_send(ws, "{\"type\":\"leave\"}");
        pt_int(pt_expect(ws, "response"), "cursor", 1);
        pt_expect(ws, "left");
        pt_closed(ws, 1000);
    }
}

/* More is replayed than the sockets hold, so that the goodbye is asked for in the middle of it. */
PT_TEST(publish, answers_come_before_the_goodbye_in_a_replay_too)
{
    enum { COUNT = 100, BIG = 100000 };
    pt_start(NULL);
    char *big = calloc(1, BIG + 1);
    cr_assert(big);
    memset(big, 'x', BIG);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 1; i <= COUNT; i++)
        cr_assert_eq(pt_say(a, big), i);
    free(big);
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    pt_send(b, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"last\"}");
    pt_send(b, "{\"type\":\"leave\"}");
    pt_int(pt_expect(a, "message"), "cursor", COUNT + 1);
    for (int i = 1; i <= COUNT; i++)
        pt_int(pt_expect(b, "replay"), "seq", i);
    pt_expect(b, "replay_end");
    pt_is(pt_expect(b, "response"), "message_id", "last");
    pt_expect(b, "left");
    pt_closed(b, 1000);
    /* Whoever waits for no answer need not read it all. */
    b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    pt_send(b, "{\"type\":\"leave\"}");
    pt_wait(b, "left");
    pt_closed(b, 1000);
}

PT_TEST(publish, a_publisher_that_vanishes_at_once_may_or_may_not_be_stored_but_never_twice)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 0; i < 30; i++) {
        struct tl_ws *ws = pt_client("echo", sid);
        pt_send(ws, "{\"type\":\"message\",\"content\":%d,\"message_id\":\"m%d\"}", i, i);
        if (i % 2)
            pt_drop_reset(ws);
        else
            pt_drop(ws);
        pt_send(a, "{\"type\":\"message\",\"content\":%d,\"message_id\":\"m%d\"}", i, i);
    }
    int answers = 0;
    while (answers < 30)
        answers += tl_is(pt_wait(a, "response"), "status", "accepted");
    pt_client("echo", sid);
    pt_int(pt_hello, "cursor", 30);
}
