/* Errors after the handshake: every JSON rule with its byte offset, frames, types, fields. */
#include "pt.h"

PT_SUITE(errors);

/*
 * Texts that break RFC 8259 or the gateway's stricter rules, and where: the offset that the message
 * names lies within lo..hi (a rule can be noticed at the start or at the end of what breaks it).
 */
static const struct {
    const char *name;
    const char *text;
    int lo, hi;
} bad_json[] = {
    {"empty", "", 0, 0},
    {"blank", "   ", 0, 3},
    {"word", "hello", 0, 0},
    {"cut object", "{\"type\":\"ping\"", 14, 14},
    {"cut string", "{\"type\":\"pin", 8, 12},
    {"trailing text", "{\"type\":\"ping\"} x", 15, 17},
    {"trailing brace", "{\"type\":\"ping\"}}", 15, 16},
    {"two values", "{\"type\":\"ping\"}{\"type\":\"ping\"}", 15, 16},
    {"trailing comma", "{\"type\":\"ping\",}", 14, 15},
    {"missing comma", "{\"type\":\"ping\" \"a\":1}", 15, 16},
    {"missing colon", "{\"type\" \"ping\"}", 7, 8},
    {"missing value", "{\"type\":}", 8, 8},
    {"array comma", "{\"type\":\"ping\",\"a\":[1,]}", 21, 22},
    {"array hole", "{\"type\":\"ping\",\"a\":[1,,2]}", 22, 22},
    {"single quotes", "{'type':'ping'}", 1, 1},
    {"bare name", "{type:\"ping\"}", 1, 1},
    {"comment", "{\"type\":\"ping\"/**/}", 14, 15},
    {"leading zero", "{\"type\":\"ping\",\"a\":01}", 19, 20},
    {"leading plus", "{\"type\":\"ping\",\"a\":+1}", 19, 19},
    {"point without digits", "{\"type\":\"ping\",\"a\":1.}", 19, 21},
    {"point first", "{\"type\":\"ping\",\"a\":.5}", 19, 19},
    {"exponent without digits", "{\"type\":\"ping\",\"a\":1e}", 19, 21},
    {"minus alone", "{\"type\":\"ping\",\"a\":-}", 19, 20},
    {"hexadecimal", "{\"type\":\"ping\",\"a\":0x1}", 19, 20},
    {"NaN", "{\"type\":\"ping\",\"a\":NaN}", 19, 19},
    {"Infinity", "{\"type\":\"ping\",\"a\":Infinity}", 19, 19},
    {"True", "{\"type\":\"ping\",\"a\":True}", 19, 19},
    {"nul", "{\"type\":\"ping\",\"a\":nul}", 19, 22},
    {"raw tab in a string", "{\"type\":\"ping\",\"a\":\"x\ty\"}", 21, 21},
    {"raw newline in a string", "{\"type\":\"ping\",\"a\":\"x\ny\"}", 21, 21},
    {"unknown escape", "{\"type\":\"ping\",\"a\":\"\\x\"}", 20, 21},
    {"short unicode escape", "{\"type\":\"ping\",\"a\":\"\\u12\"}", 20, 24},
    {"bad unicode escape", "{\"type\":\"ping\",\"a\":\"\\u12g4\"}", 20, 24},
    {"NUL escape", "{\"type\":\"ping\",\"a\":\"x\\u0000y\"}", 21, 26},
    {"lone high surrogate", "{\"type\":\"ping\",\"a\":\"\\ud800\"}", 20, 26},
    {"lone low surrogate", "{\"type\":\"ping\",\"a\":\"\\udc00\"}", 20, 26},
    {"high surrogate twice", "{\"type\":\"ping\",\"a\":\"\\ud800\\ud800\"}", 20, 32},
    {"surrogates reversed", "{\"type\":\"ping\",\"a\":\"\\udc00\\ud800\"}", 20, 26},
    {"duplicate key", "{\"type\":\"ping\",\"a\":1,\"a\":2}", 21, 25},
    {"duplicate type", "{\"type\":\"ping\",\"type\":\"message\"}", 15, 21},
    {"duplicate key, escaped", "{\"type\":\"ping\",\"a\":1,\"\\u0061\":2}", 21, 30},
    {"duplicate key deep down", "{\"type\":\"ping\",\"a\":[{\"b\":1,\"b\":2}]}", 27, 31},
    {"byte order mark", "\xef\xbb\xbf{\"type\":\"ping\"}", 0, 3},
    {"form feed as blank", "\f{\"type\":\"ping\"}", 0, 0},
    {"NEL as blank", "\xc2\x85{\"type\":\"ping\"}", 0, 0},
};

/* The first number in a text, or -1. */
static int number_in(const char *text)
{
    text += strcspn(text, "0123456789");
    return *text ? atoi(text) : -1;
}

PT_TEST(errors, invalid_json_names_the_byte)
{
    struct tl_ws *ws = NULL;
    size_t i;

    pt_start(NULL);
    for (i = 0; i < sizeof bad_json / sizeof *bad_json; i++) {
        if (i % 8 == 0)
            ws = pt_client("echo", NULL); /* ten refused frames would close it */
        pt_send(ws, "%s", bad_json[i].text);
        const cJSON *o = pt_next(ws);
        int at = number_in(tl_str(o, "message"));
        cr_expect(tl_is(o, "type", "error") && tl_is(o, "code", "invalid_json"), "%s: %s",
                  bad_json[i].name, pt_text(o));
        cr_expect(at >= bad_json[i].lo && at <= bad_json[i].hi, "%s: byte %d, not %d..%d: %s",
                  bad_json[i].name, at, bad_json[i].lo, bad_json[i].hi, pt_text(o));
        pt_quiet(ws);
    }
}

PT_TEST(errors, raw_nul_is_invalid_json)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    static const char text[] = "{\"type\":\"ping\"}\0";
    cr_assert(tl_ws_text_n(ws, text, sizeof text - 1));
    pt_error(ws, "invalid_json");
    static const char inside[] = "{\"type\":\"ping\",\"id\":\"a\0b\"}";
    cr_assert(tl_ws_text_n(ws, inside, sizeof inside - 1));
    pt_error(ws, "invalid_json");
    pt_quiet(ws);
}

/* {"type":"ping","a":[[[...]]]} with `depth` levels in all. */
static const char *nested(int depth, char open, char close)
{
    struct tl_buf b = {0};

    tl_buf_addf(&b, "{\"type\":\"ping\",\"a\":");
    for (int i = 1; i < depth; i++)
        tl_buf_addf(&b, open == '[' ? "[" : "{\"k\":");
    if (open == '{')
        tl_buf_addf(&b, "1");
    for (int i = 1; i < depth; i++)
        tl_buf_add(&b, &close, 1);
    tl_buf_addf(&b, "}");
    const char *text = pt_f("%s", (char *)b.p);
    tl_buf_free(&b);
    return text;
}

PT_TEST(errors, nesting_is_at_most_32)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    pt_send(ws, "%s", nested(32, '[', ']'));
    pt_expect(ws, "pong");
    pt_send(ws, "%s", nested(32, '{', '}'));
    pt_expect(ws, "pong");
    pt_send(ws, "%s", nested(33, '[', ']'));
    pt_error(ws, "invalid_json");
    pt_send(ws, "%s", nested(33, '{', '}'));
    pt_error(ws, "invalid_json");
    pt_send(ws, "%s", nested(100000, '[', ']'));
    pt_error(ws, "invalid_json");
    pt_quiet(ws);
}

PT_TEST(errors, good_json_that_looks_odd_is_taken)
{
    static const char *const good[] = {
        " \t\r\n{ \"type\" : \"ping\" } \r\n",
        "{\"type\":\"p\\u0069ng\"}",
        "{\"ty\\u0070e\":\"ping\"}",
        "{\"type\":\"ping\",\"a\":-0,\"b\":0.0,\"c\":1E+2,\"d\":1e-2,\"e\":"
        "123456789012345678901234}",
        "{\"type\":\"ping\",\"a\":\"\\ud83d\\ude00 \\\" \\\\ \\/ \\b\\f\\n\\r\\t\"}",
        "{\"type\":\"ping\",\"\":1,\" \":2}",
        "{\"type\":\"ping\",\"a\":{\"x\":1},\"b\":{\"x\":1}}",
        "{\"type\":\"ping\",\"Type\":\"message\",\"TYPE\":7}",
        "{\"a\":[],\"b\":{},\"c\":[{}],\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"a\":\"\xef\xbf\xbf\xf4\x8f\xbf\xbf\x7f\"}",
    };

    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        pt_send(ws, "%s", good[i]);
        const cJSON *o = pt_next(ws);
        cr_expect(tl_is(o, "type", "pong"), "%s: %s", good[i], pt_text(o));
    }
}

PT_TEST(errors, frames_that_are_no_requests)
{
    static const struct {
        const char *text, *code;
    } bad[] = {
        {"{}", "invalid_frame"},
        {"[]", "invalid_frame"},
        {"7", "invalid_frame"},
        {"\"ping\"", "invalid_frame"},
        {"null", "invalid_frame"},
        {"{\"Type\":\"ping\"}", "invalid_frame"},
        {"{\"type\":7}", "invalid_frame"},
        {"{\"type\":null}", "invalid_frame"},
    };
    static const char *const unknown[] = {"",    "Ping",     "ping ",         "hello_ok",
                                          "x.y", "response", "\\ud83d\\ude00"};

    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(ws, "%s", bad[i].text);
        const cJSON *o = pt_next(ws);
        /* A type of the wrong kind may also be called a wrong field. */
        cr_expect(tl_is(o, "code", bad[i].code) ||
                      (strstr(bad[i].text, "\"type\"") && tl_is(o, "code", "invalid_request") &&
                       tl_is(o, "field", "type")),
                  "%s: %s", bad[i].text, pt_text(o));
    }
    pt_quiet(ws);
    ws = pt_client("echo", NULL);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        pt_send(ws, "{\"type\":\"%s\"}", unknown[i]);
        const cJSON *o = pt_next(ws);
        cr_expect(tl_is(o, "type", "error") && tl_is(o, "code", "unknown_type"), "%s: %s",
                  unknown[i], pt_text(o));
    }
    pt_quiet(ws);
}

PT_TEST(errors, binary_frames)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    cr_assert(tl_ws_frame(ws, 0x82, "{\"type\":\"ping\"}", 15));
    pt_error(ws, "invalid_frame");
    cr_assert(tl_ws_frame(ws, 0x82, "\xff\x00", 2));
    pt_error(ws, "invalid_frame");
    cr_assert(tl_ws_frame(ws, 0x82, "", 0));
    pt_error(ws, "invalid_frame");
    pt_quiet(ws);
}

PT_TEST(errors, methods_of_the_other_role)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    pt_send(ws, "{\"type\":\"emit\",\"session_id\":\"x\",\"turn\":1,\"event\":\"status\","
                "\"data\":{}}");
    const cJSON *o = pt_expect(ws, "error");
    cr_assert(tl_is(o, "code", "unknown_type") || tl_is(o, "code", "insufficient_scope"), "%s",
              pt_text(o));
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_send(w, "{\"type\":\"message\",\"content\":\"x\"}");
    o = pt_expect(w, "error");
    cr_assert(tl_is(o, "code", "unknown_type") || tl_is(o, "code", "insufficient_scope"), "%s",
              pt_text(o));
    pt_quiet(ws);
    pt_quiet(w);
}

PT_TEST(errors, presence_without_the_capability)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    pt_send(ws, "{\"type\":\"presence\",\"status\":\"away\"}");
    pt_expect(ws, "error");
    pt_send(ws, "{\"type\":\"typing\"}");
    pt_expect(ws, "error");
    pt_quiet(ws);
}

PT_TEST(errors, ten_refused_frames_close_4028)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    for (int i = 0; i < 9; i++) {
        pt_send(ws, "{\"type\":\"message\"}");
        pt_error(ws, "invalid_request");
    }
    pt_quiet(ws);
    pt_send(ws, "{");
    pt_error(ws, "invalid_json");
    pt_closed(ws, 4028);
    struct tl_ws *r = pt_client_as(pt_token("alice", "read"), "echo", NULL);
    for (int i = 0; i < 10; i++) {
        pt_send(r, "{\"type\":\"message\",\"content\":1}");
        pt_error(r, "insufficient_scope");
    }
    pt_closed(r, 4028);
}

PT_TEST(errors, unknown_types_are_not_counted_as_refused)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    for (int i = 0; i < 15; i++) {
        pt_send(ws, "{\"type\":\"future\"}");
        pt_error(ws, "unknown_type");
    }
    pt_quiet(ws);
}

PT_TEST(errors, before_hello_bad_frames_store_nothing_and_do_not_crash)
{
    pt_start(NULL);
    for (size_t i = 0; i < sizeof bad_json / sizeof *bad_json; i++) {
        struct tl_ws *ws = pt_open();
        pt_send(ws, "%s", bad_json[i].text);
        const cJSON *o = pt_next(ws);
        cr_expect(tl_is(o, "type", "error") || tl_is(o, "type", "hello_error"), "%s: %s",
                  bad_json[i].name, pt_text(o));
        cr_expect(tl_is(o, "code", "invalid_json") || tl_is(o, "code", "invalid_request"), "%s: %s",
                  bad_json[i].name, pt_text(o));
        pt_drop(ws);
    }
    pt_client("echo", NULL);
}
