/* history, leave, ping, and what they answer to odd arguments. */
#include "pt.h"

PT_SUITE(methods);

static const cJSON *history(struct tl_ws *ws, const char *members)
{
    pt_send(ws, "{\"type\":\"history\"%s}", members);
    return pt_expect(ws, "history");
}

/* The page holds exactly first..last. */
static void page_is(const cJSON *page, int64_t first, int64_t last)
{
    const cJSON *events = tl_get(page, "events");
    int n = cJSON_GetArraySize(events);

    cr_assert(cJSON_IsArray(events) && n == (int)(last - first + 1), "%d events, not %d: %s", n,
              (int)(last - first + 1), pt_text(page));
    for (int i = 0; i < n; i++)
        pt_int(cJSON_GetArrayItem(events, i), "cursor", first + i);
}

PT_TEST(methods, history_pages)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const cJSON *o = history(a, "");
    page_is(o, 1, 0);
    pt_int(o, "cursor", 0);
    for (int i = 1; i <= 12; i++)
        pt_say(a, pt_f("m%d", i));
    o = history(a, "");
    pt_int(o, "cursor", 12);
    pt_int(o, "oldest_cursor", 1);
    page_is(o, 1, 12);
    pt_is(o, "events.0.type", "message");
    pt_is(o, "events.0.data.content", "m1");
    page_is(history(a, ",\"since\":3"), 4, 12);
    page_is(history(a, ",\"since\":3,\"limit\":4"), 4, 7);
    page_is(history(a, ",\"since\":12"), 13, 12);
    page_is(history(a, ",\"before\":4"), 1, 3);
    /* before: the newest ones before it, in order. */
    page_is(history(a, ",\"before\":10,\"limit\":2"), 8, 9);
    page_is(history(a, ",\"before\":1"), 1, 0);
    page_is(history(a, ",\"since\":null,\"before\":null,\"limit\":null"), 1, 12);
    pt_quiet(a);
}

PT_TEST(methods, history_is_bounded)
{
    pt_start("max_payload = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *b = pt_client("echo", pt_sid());
    for (int i = 0; i < 30; i++) {
        pt_say(a, pt_f("%01000d", i));
        pt_expect(b, "message");
    }
    const cJSON *o = history(a, ",\"since\":0");
    cr_assert(tl_ws_len(a) <= 20000, "%zu bytes", tl_ws_len(a));
    cr_assert(tl_ws_len(a) + 1 + tl_ws_len(b) > 20000, "%zu bytes: one more fits", tl_ws_len(a));
    int n = cJSON_GetArraySize(tl_get(o, "events"));
    cr_assert(n >= 10 && n < 30, "%d events", n);
    page_is(o, 1, n);
}

PT_TEST(methods, history_has_at_most_500_events)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    for (int i = 0; i < 520; i += 40) {
        for (int k = 0; k < 40; k++)
            pt_send(a, "{\"type\":\"message\",\"content\":1}");
        for (int k = 0; k < 40; k++)
            pt_expect(a, "response");
    }
    page_is(history(a, ",\"since\":0,\"limit\":500"), 1, 500);
    page_is(history(a, ",\"before\":521,\"limit\":500"), 21, 520);
    cr_assert(cJSON_GetArraySize(tl_get(history(a, ",\"since\":0"), "events")) <= 500);
}

PT_TEST(methods, history_arguments_are_checked)
{
    static const struct {
        const char *members, *field;
    } bad[] = {{"\"since\":-1", "since"},   {"\"since\":\"1\"", "since"},
               {"\"since\":1.5", "since"},  {"\"before\":-1", "before"},
               {"\"before\":{}", "before"}, {"\"limit\":0", "limit"},
               {"\"limit\":-5", "limit"},   {"\"limit\":\"5\"", "limit"}};

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(a, "{\"type\":\"history\",%s}", bad[i].members);
        pt_is(pt_error(a, "invalid_request"), "field", bad[i].field);
    }
    pt_quiet(a);
}

PT_TEST(methods, history_leaves_streams_out_for_a_client_without_streaming)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *s = pt_client("echo", pt_f("%s,\"capabilities\":[\"streaming\"]", pt_sid()));
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_say(a, "go");
    const cJSON *t = pt_expect(w, "turn");
    pt_send(w,
            "{\"type\":\"emit\",\"session_id\":\"%s\",\"turn\":1,\"event\":\"token_stream\","
            "\"data\":{}}",
            tl_str(t, "session_id"));
    pt_expect(w, "emitted");
    page_is(history(a, ""), 1, 1);
    pt_expect(s, "message");
    pt_expect(s, "token_stream");
    page_is(history(s, ""), 1, 2);
}

PT_TEST(methods, leave)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    pt_say(a, "x");
    pt_send(a, "{\"type\":\"leave\"}");
    pt_is(pt_expect(a, "left"), "session_id", id);
    pt_closed(a, 1000);
    cr_assert(tl_ws_wait_eof(a, PT_WAIT_MS));
    pt_client("echo", sid);
    pt_true(pt_hello, "resumed");
    pt_int(pt_hello, "cursor", 1);
}

PT_TEST(methods, ping)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    pt_send(a, "{\"type\":\"ping\",\"id\":\"a\\\"b\"}");
    const cJSON *o = pt_expect(a, "pong");
    pt_is(o, "id", "a\"b");
    pt_int(o, "cursor", 0);
    pt_send(a, "{\"type\":\"ping\"}");
    pt_hasnt(pt_expect(a, "pong"), "id");
    pt_send(a, "{\"type\":\"ping\",\"id\":null}");
    pt_hasnt(pt_expect(a, "pong"), "id");
    pt_say(a, "x");
    pt_send(a, "{\"type\":\"ping\",\"id\":\"n\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 1);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_expect(w, "turn");
    pt_send(w, "{\"type\":\"ping\",\"id\":\"w\"}");
    pt_is(pt_expect(w, "pong"), "id", "w");
}

PT_TEST(methods, a_client_that_pongs_the_json_ping_is_welcome)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    for (int i = 0; i < 12; i++)
        pt_send(a, "{\"type\":\"pong\"}");
    pt_quiet(a);
}
