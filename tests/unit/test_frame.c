/*
 * Frames: every field of every type, absent, null, of the wrong type, out of range.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

static void expect_refused(const char *text, enum eg_code code, const char *field)
{
    struct eg_frame f;
    struct eg_frame_error err;
    enum eg_err e = eg_frame_parse(eg_slice_cstr(text), &f, &err);

    cr_assert_eq(e, EG_EINVALID, "%s", text);
    cr_expect_eq(err.code, code, "%s: %s", text, eg_code_info(err.code)->name);
    cr_expect_str_eq(err.field, field, "%s", text);
    cr_expect(err.message[0] != '\0', "%s", text);
    if (*field)
        cr_expect(strncmp(err.message, field, strlen(field)) == 0, "%s: %s", text, err.message);
}

static struct eg_frame accept(const char *text)
{
    struct eg_frame f;
    struct eg_frame_error err;

    cr_assert_eq(eg_frame_parse(eg_slice_cstr(text), &f, &err), EG_OK, "%s: %s", text, err.message);
    return f;
}

static void expect_accepted(const char *text)
{
    struct eg_frame f = accept(text);

    eg_frame_free(&f);
}

/* One frame for each type with all it needs, without the closing brace. */
static const char *const whole[EG_FRAME_COUNT] = {
    [EG_FRAME_HELLO] = "{\"type\":\"hello\",\"agent_id\":\"a\"",
    [EG_FRAME_JOIN] = "{\"type\":\"join\",\"agent_id\":\"a\"",
    [EG_FRAME_MESSAGE] = "{\"type\":\"message\",\"content\":\"x\"",
    [EG_FRAME_ABORT] = "{\"type\":\"abort\"",
    [EG_FRAME_LEAVE] = "{\"type\":\"leave\"",
    [EG_FRAME_ACK] = "{\"type\":\"ack\",\"cursor\":0",
    [EG_FRAME_HISTORY] = "{\"type\":\"history\"",
    [EG_FRAME_PING] = "{\"type\":\"ping\"",
    [EG_FRAME_PONG] = "{\"type\":\"pong\"",
    [EG_FRAME_PRESENCE] = "{\"type\":\"presence\",\"status\":\"here\"",
    [EG_FRAME_TYPING] = "{\"type\":\"typing\"",
    [EG_FRAME_AUTH] = "{\"type\":\"auth\",\"token\":\"t\"",
    [EG_FRAME_EMIT] = "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"status\"",
    [EG_FRAME_FINAL] = "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1",
    [EG_FRAME_FAIL] = "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1,\"error\":\"e\"",
    [EG_FRAME_EXTEND] = "{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":1",
    [EG_FRAME_PUBLISH] = "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.e\"",
};

/* The frame of type t with one more member. */
static const char *with(enum eg_frame_type t, const char *member)
{
    static char text[2000];

    snprintf(text, sizeof(text), "%s,%s}", whole[t], member);
    return text;
}

Test(frame, names)
{
    cr_assert_str_eq(eg_frame_name(EG_FRAME_HELLO), "hello");
    cr_assert_str_eq(eg_frame_name(EG_FRAME_PUBLISH), "publish");
    cr_assert_str_eq(eg_frame_name(EG_FRAME_COUNT), "");
}

Test(frame, every_type_with_what_it_needs)
{
    for (int t = 0; t < EG_FRAME_COUNT; t++) {
        char text[200];
        struct eg_frame f;

        snprintf(text, sizeof(text), "%s}", whole[t]);
        f = accept(text);
        cr_expect_eq((int)f.type, t, "%s", text);
        eg_frame_free(&f);
        expect_accepted(with((enum eg_frame_type)t, "\"unknown\":{\"x\":[null]}"));
    }
}

Test(frame, message_abort_is_abort)
{
    struct eg_frame f = accept("{\"type\":\"message_abort\",\"reason\":\"enough\",\"turn\":4}");

    cr_assert_eq(f.type, EG_FRAME_ABORT);
    cr_assert(eg_slice_is(f.reason, "enough"));
    cr_assert_eq(f.turn, 4);
    eg_frame_free(&f);
}

Test(frame, is_an_object_with_a_type)
{
    static const char *const no_object[] = {"[]", "1", "\"x\"", "null", "true"};

    for (size_t i = 0; i < sizeof(no_object) / sizeof(*no_object); i++)
        expect_refused(no_object[i], EG_CODE_invalid_frame, "");
    expect_refused("{}", EG_CODE_invalid_frame, "");
    expect_refused("{\"Type\":\"ping\"}", EG_CODE_invalid_frame, "");
    expect_refused("{\"type\":1}", EG_CODE_invalid_frame, "");
    expect_refused("{\"type\":null}", EG_CODE_invalid_frame, "");
    expect_refused("{\"type\":\"\"}", EG_CODE_unknown_type, "");
    expect_refused("{\"type\":\"Ping\"}", EG_CODE_unknown_type, "");
    expect_refused("{\"type\":\"turn\"}", EG_CODE_unknown_type, "");
    expect_accepted("{\"\\u0074ype\":\"pin\\u0067\"}");
}

Test(frame, names_the_byte_of_broken_json)
{
    struct eg_frame f;
    struct eg_frame_error err;

    cr_assert_eq(eg_frame_parse(EG_LIT("{\"type\":\"message\",\"type\":\"ping\"}"), &f, &err),
                 EG_EINVALID);
    cr_assert_eq(err.code, EG_CODE_invalid_json);
    cr_assert_str_eq(err.message, "byte 18: duplicate key");
    cr_assert_str_eq(err.field, "");
    expect_refused("", EG_CODE_invalid_json, "");
    expect_refused("{\"type\":\"ping\"} {}", EG_CODE_invalid_json, "");
    expect_refused("{\"type\":\"message\",\"content\":\"\\u0000\"}", EG_CODE_invalid_json, "");
}

Test(frame, nesting_is_limited)
{
    char text[400] = "{\"type\":\"message\",\"content\":";
    size_t n = strlen(text);

    memset(text + n, '[', 31);
    memset(text + n + 31, ']', 31);
    strcpy(text + n + 62, "}");
    expect_accepted(text);
    memset(text + n, '[', 32);
    memset(text + n + 32, ']', 32);
    strcpy(text + n + 64, "}");
    expect_refused(text, EG_CODE_invalid_json, "");
}

Test(frame, finds_its_fields_behind_any_number_of_unknown_ones)
{
    struct eg_buf b = {0};
    struct eg_frame f;
    struct eg_frame_error err;

    eg_buf_char(&b, '{');
    for (int i = 0; i < 200; i++)
        eg_buf_printf(&b, "\"u%d\":{\"type\":\"x\"},", i);
    eg_buf_str(&b, "\"content\":\"far\",\"type\":\"message\"}");
    cr_assert_eq(eg_frame_parse((struct eg_slice){b.p, b.n}, &f, &err), EG_OK);
    cr_assert(eg_slice_is(f.content, "\"far\""));
    eg_frame_free(&f);
    eg_buf_free(&b);
}

/* What each type cannot do without: absent, null. */
Test(frame, required_fields)
{
    static const struct {
        const char *rest; /* of the frame, without the field */
        const char *field;
    } rows[] = {
        {"\"type\":\"hello\"", "agent_id"},
        {"\"type\":\"join\"", "agent_id"},
        {"\"type\":\"message\"", "content"},
        {"\"type\":\"ack\"", "cursor"},
        {"\"type\":\"presence\"", "status"},
        {"\"type\":\"auth\"", "token"},
        {"\"type\":\"emit\",\"turn\":1,\"event\":\"status\"", "session_id"},
        {"\"type\":\"emit\",\"session_id\":\"s\",\"event\":\"status\"", "turn"},
        {"\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1", "event"},
        {"\"type\":\"final\",\"turn\":1,\"content\":1", "session_id"},
        {"\"type\":\"final\",\"session_id\":\"s\",\"content\":1", "turn"},
        {"\"type\":\"final\",\"session_id\":\"s\",\"turn\":1", "content"},
        {"\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"outcome\":{\"status\":\"ok\"}",
         "content"},
        {"\"type\":\"fail\",\"turn\":1,\"error\":1", "session_id"},
        {"\"type\":\"fail\",\"session_id\":\"s\",\"error\":1", "turn"},
        {"\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1", "error"},
        {"\"type\":\"extend\",\"turn\":1", "session_id"},
        {"\"type\":\"extend\",\"session_id\":\"s\"", "turn"},
        {"\"type\":\"publish\",\"event\":\"x.e\"", "session_id"},
        {"\"type\":\"publish\",\"session_id\":\"s\"", "event"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char text[300];

        snprintf(text, sizeof(text), "{%s}", rows[i].rest);
        expect_refused(text, EG_CODE_invalid_request, rows[i].field);
        snprintf(text, sizeof(text), "{%s,\"%s\":null}", rows[i].rest, rows[i].field);
        expect_refused(text, EG_CODE_invalid_request, rows[i].field);
    }
}

/* Optional fields may be null. */
Test(frame, null_is_absent_for_optional_fields)
{
    static const struct {
        enum eg_frame_type type;
        const char *field;
    } rows[] = {
        {EG_FRAME_HELLO, "session_id"},
        {EG_FRAME_HELLO, "since"},
        {EG_FRAME_HELLO, "epoch"},
        {EG_FRAME_HELLO, "token"},
        {EG_FRAME_HELLO, "client"},
        {EG_FRAME_HELLO, "protocol_min"},
        {EG_FRAME_HELLO, "protocol"},
        {EG_FRAME_HELLO, "capabilities"},
        {EG_FRAME_HELLO, "caps"},
        {EG_FRAME_HELLO, "role"},
        {EG_FRAME_HELLO, "concurrency"},
        {EG_FRAME_HELLO, "create"},
        {EG_FRAME_JOIN, "min_version"},
        {EG_FRAME_JOIN, "max_version"},
        {EG_FRAME_JOIN, "session_id"},
        {EG_FRAME_JOIN, "since"},
        {EG_FRAME_MESSAGE, "message_id"},
        {EG_FRAME_MESSAGE, "metadata"},
        {EG_FRAME_MESSAGE, "traceparent"},
        {EG_FRAME_ABORT, "reason"},
        {EG_FRAME_ABORT, "turn"},
        {EG_FRAME_HISTORY, "since"},
        {EG_FRAME_HISTORY, "before"},
        {EG_FRAME_HISTORY, "limit"},
        {EG_FRAME_PING, "id"},
        {EG_FRAME_PRESENCE, "data"},
        {EG_FRAME_EMIT, "data"},
        {EG_FRAME_EMIT, "event_id"},
        {EG_FRAME_EMIT, "ephemeral"},
        {EG_FRAME_FINAL, "outcome"},
        {EG_FRAME_FAIL, "retry"},
        {EG_FRAME_FAIL, "retry_after_seconds"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char member[64];
        struct eg_frame f;

        snprintf(member, sizeof(member), "\"%s\":null", rows[i].field);
        f = accept(with(rows[i].type, member));
        cr_expect(f.retry && f.retry_after_ms == -1 && f.since == -1 && f.before == -1 &&
                  f.limit == -1 && f.concurrency == 1 && f.protocol_min == 1 &&
                  f.protocol_max == 1 && f.caps == 0 && f.role == EG_ROLE_CLIENT && !f.create &&
                  !f.ephemeral &&
                  f.session_id.n == (f.type == EG_FRAME_EMIT || f.type == EG_FRAME_FINAL ||
                                     f.type == EG_FRAME_FAIL) &&
                  f.data.n == 0 && f.outcome.n == 0 && f.metadata.n == 0 && f.id.n == 0);
        eg_frame_free(&f);
    }
}

Test(frame, wrong_types_and_ranges)
{
    static const struct {
        enum eg_frame_type type;
        const char *member, *field;
    } rows[] = {
        {EG_FRAME_HELLO, "\"session_id\":7", "session_id"},
        {EG_FRAME_HELLO, "\"session_id\":\"\"", "session_id"},
        {EG_FRAME_HELLO, "\"session_id\":\"a b\",\"create\":true", "session_id"},
        {EG_FRAME_HELLO, "\"create\":1", "create"},
        {EG_FRAME_HELLO, "\"epoch\":1", "epoch"},
        {EG_FRAME_HELLO, "\"since\":-1", "since"},
        {EG_FRAME_HELLO, "\"since\":1.0", "since"},
        {EG_FRAME_HELLO, "\"since\":1e3", "since"},
        {EG_FRAME_HELLO, "\"since\":9007199254740992", "since"},
        {EG_FRAME_HELLO, "\"since\":\"Acked\"", "since"},
        {EG_FRAME_HELLO, "\"since\":true", "since"},
        {EG_FRAME_HELLO, "\"token\":7", "token"},
        {EG_FRAME_HELLO, "\"client\":\"x\"", "client"},
        {EG_FRAME_HELLO, "\"client\":{\"name\":1}", "client.name"},
        {EG_FRAME_HELLO, "\"client\":{\"version\":[]}", "client.version"},
        {EG_FRAME_HELLO, "\"protocol_min\":\"1\"", "protocol_min"},
        {EG_FRAME_HELLO, "\"protocol_min\":1.5", "protocol_min"},
        {EG_FRAME_HELLO, "\"protocol_max\":true", "protocol_max"},
        {EG_FRAME_HELLO, "\"protocol_max\":-1", "protocol_max"},
        {EG_FRAME_HELLO, "\"protocol_min\":3,\"protocol_max\":2", "protocol_min"},
        {EG_FRAME_HELLO, "\"protocol\":1", "protocol"},
        {EG_FRAME_HELLO, "\"protocol\":{\"min\":\"1\"}", "protocol.min"},
        {EG_FRAME_HELLO, "\"protocol\":{\"max\":1.0}", "protocol.max"},
        {EG_FRAME_HELLO, "\"protocol\":{\"min\":2,\"max\":1}", "protocol.min"},
        {EG_FRAME_HELLO, "\"capabilities\":\"ack\"", "capabilities"},
        {EG_FRAME_HELLO, "\"capabilities\":{}", "capabilities"},
        {EG_FRAME_HELLO, "\"capabilities\":[\"ack\",1]", "capabilities"},
        {EG_FRAME_HELLO, "\"caps\":[null]", "caps"},
        {EG_FRAME_HELLO, "\"role\":\"admin\"", "role"},
        {EG_FRAME_HELLO, "\"role\":1", "role"},
        {EG_FRAME_HELLO, "\"concurrency\":0", "concurrency"},
        {EG_FRAME_HELLO, "\"concurrency\":1001", "concurrency"},
        {EG_FRAME_JOIN, "\"min_version\":\"1\"", "min_version"},
        {EG_FRAME_JOIN, "\"min_version\":2,\"max_version\":1", "min_version"},
        {EG_FRAME_JOIN, "\"max_version\":[]", "max_version"},
        {EG_FRAME_MESSAGE, "\"message_id\":\"\"", "message_id"},
        {EG_FRAME_MESSAGE, "\"message_id\":5", "message_id"},
        {EG_FRAME_MESSAGE, "\"metadata\":[]", "metadata"},
        {EG_FRAME_MESSAGE, "\"traceparent\":1", "traceparent"},
        {EG_FRAME_MESSAGE, "\"traceparent\":\"00-x\"", "traceparent"},
        {EG_FRAME_ABORT, "\"turn\":0", "turn"},
        {EG_FRAME_ABORT, "\"reason\":{}", "reason"},
        {EG_FRAME_HISTORY, "\"since\":\"acked\"", "since"},
        {EG_FRAME_HISTORY, "\"before\":-1", "before"},
        {EG_FRAME_HISTORY, "\"since\":1,\"before\":9", "before"},
        {EG_FRAME_HISTORY, "\"limit\":0", "limit"},
        {EG_FRAME_HISTORY, "\"session_id\":1", "session_id"},
        {EG_FRAME_EMIT, "\"event_id\":\"\"", "event_id"},
        {EG_FRAME_EMIT, "\"ephemeral\":\"yes\"", "ephemeral"},
        {EG_FRAME_FINAL, "\"outcome\":\"ok\"", "outcome"},
        {EG_FRAME_FINAL, "\"outcome\":{}", "outcome.status"},
        {EG_FRAME_FINAL, "\"outcome\":{\"status\":\"OK\"}", "outcome.status"},
        {EG_FRAME_FINAL, "\"outcome\":{\"status\":null}", "outcome.status"},
        {EG_FRAME_FAIL, "\"retry\":0", "retry"},
        {EG_FRAME_FAIL, "\"retry_after_seconds\":-1", "retry_after_seconds"},
        {EG_FRAME_FAIL, "\"retry_after_seconds\":\"5\"", "retry_after_seconds"},
        {EG_FRAME_FAIL, "\"retry_after_seconds\":1e300", "retry_after_seconds"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        expect_refused(with(rows[i].type, rows[i].member), EG_CODE_invalid_request, rows[i].field);
    expect_refused("{\"type\":\"ack\",\"cursor\":1.0}", EG_CODE_invalid_request, "cursor");
    expect_refused("{\"type\":\"ack\",\"cursor\":\"1\"}", EG_CODE_invalid_request, "cursor");
    expect_refused("{\"type\":\"ack\",\"cursor\":-1}", EG_CODE_invalid_request, "cursor");
    expect_refused("{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":0}", EG_CODE_invalid_request,
                   "turn");
    expect_refused("{\"type\":\"presence\",\"status\":\"\"}", EG_CODE_invalid_request, "status");
    expect_refused("{\"type\":\"auth\",\"token\":{}}", EG_CODE_invalid_request, "token");
}

Test(frame, ids_are_counted_in_bytes)
{
    char id[200], text[400];

    for (size_t n = 120; n <= 136; n++) {
        /* Two bytes a character, and the same written as escapes. */
        id[0] = '\0';
        for (size_t i = 0; i < n / 2; i++)
            strcat(id, "\xc3\xa9");
        snprintf(text, sizeof(text), "{\"type\":\"hello\",\"agent_id\":\"%s\"}", id);
        if (n / 2 * 2 <= 128)
            expect_accepted(text);
        else
            expect_refused(text, EG_CODE_invalid_request, "agent_id");
    }
}

Test(frame, hello_in_full)
{
    struct eg_frame f = accept(
        "{\"type\":\"hello\",\"agent_id\":\"sup\\u0070ort\",\"protocol_min\":1,"
        "\"protocol_max\":3,\"capabilities\":[\"streaming\",\"\\u0061ck\",\"presence\",\"raw\","
        "\"later\"],\"session_id\":\"s.1_:-\",\"since\":41,\"epoch\":\"e1\",\"role\":\"agent\","
        "\"token\":\"tok\",\"client\":{\"name\":\"cli\",\"version\":\"2\"},\"create\":true,"
        "\"concurrency\":1000}");

    cr_assert(eg_slice_is(f.agent_id, "support"));
    cr_assert_eq(f.protocol_min, 1);
    cr_assert_eq(f.protocol_max, 3);
    cr_assert_eq(f.caps, EG_CAP_STREAMING | EG_CAP_ACK | EG_CAP_PRESENCE | EG_CAP_RAW);
    cr_assert(eg_slice_is(f.session_id, "s.1_:-"));
    cr_assert_eq(f.since, 41);
    cr_assert_not(f.since_acked);
    cr_assert(eg_slice_is(f.epoch, "e1"));
    cr_assert_eq(f.role, EG_ROLE_AGENT);
    cr_assert(eg_slice_is(f.token, "tok"));
    cr_assert(eg_slice_is(f.client_name, "cli"));
    cr_assert(eg_slice_is(f.client_version, "2"));
    cr_assert(f.create);
    cr_assert_eq(f.concurrency, 1000);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_HELLO, "\"role\":\"client\",\"create\":true,\"client\":{\"name\":null,"
                                    "\"version\":null}"));
    cr_assert_eq(f.role, EG_ROLE_CLIENT);
    cr_assert(f.create && f.session_id.n == 0 && f.client_name.n == 0);
    eg_frame_free(&f);
    expect_accepted(with(EG_FRAME_HELLO, "\"client\":{}"));

    f = accept(with(EG_FRAME_HELLO, "\"since\":\"acked\""));
    cr_assert(f.since_acked);
    cr_assert_eq(f.since, -1);
    eg_frame_free(&f);
}

Test(frame, hello_older_spellings)
{
    struct eg_frame f =
        accept(with(EG_FRAME_HELLO, "\"protocol\":{\"min\":2,\"max\":4},\"caps\":[\"ack\"]"));

    cr_assert_eq(f.protocol_min, 2);
    cr_assert_eq(f.protocol_max, 4);
    cr_assert_eq(f.caps, EG_CAP_ACK);
    eg_frame_free(&f);

    /* The newer one wins, and then nobody cares what is wrong with the older. */
    f = accept(with(EG_FRAME_HELLO,
                    "\"protocol\":{\"min\":\"x\",\"max\":9},\"caps\":7,\"protocol_min\":1,"
                    "\"protocol_max\":2,\"capabilities\":[\"raw\"]"));
    cr_assert_eq(f.protocol_min, 1);
    cr_assert_eq(f.protocol_max, 2);
    cr_assert_eq(f.caps, EG_CAP_RAW);
    eg_frame_free(&f);

    /* null leaves the word to the older one, but for capabilities, where it means none. */
    f = accept(with(EG_FRAME_HELLO, "\"protocol\":{\"min\":null,\"max\":5},\"protocol_max\":null,"
                                    "\"capabilities\":null,\"caps\":[\"ack\"]"));
    cr_assert_eq(f.protocol_min, 1);
    cr_assert_eq(f.protocol_max, 5);
    cr_assert_eq(f.caps, 0);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_JOIN, "\"min_version\":1,\"max_version\":2,\"since\":3,"
                                   "\"capabilities\":[\"ack\"],\"protocol_min\":\"x\""));
    cr_assert_eq(f.protocol_max, 2);
    cr_assert_eq(f.since, 3);
    cr_assert_eq(f.caps, 0);
    eg_frame_free(&f);
}

Test(frame, a_session_id_is_free_unless_it_makes_one)
{
    expect_accepted(with(EG_FRAME_HELLO, "\"session_id\":\"a b/c\""));
    expect_accepted(with(EG_FRAME_HELLO, "\"session_id\":\"a b/c\",\"create\":false"));
    cr_assert(eg_session_id_valid(EG_LIT("AZaz09._:-")));
    cr_assert_not(eg_session_id_valid(EG_LIT("")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a/b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a;b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a@b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a[b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a`b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("a{b")));
    cr_assert_not(eg_session_id_valid(EG_LIT("\xc3\xa9")));
}

Test(frame, content_keeps_its_bytes)
{
    struct eg_frame f = accept(with(EG_FRAME_ACK, "\"x\":1"));
    static const struct {
        const char *content, *kept, *text;
    } rows[] = {
        {"\"/stop\"", "\"/stop\"", "/stop"},
        {"\"\\/sto\\u0070\"", "\"\\/sto\\u0070\"", "/stop"},
        {"\"0123456789abcdef\"", "\"0123456789abcdef\"", "0123456789abcdef"},
        {"\"0123456789abcdefg\"", "\"0123456789abcdefg\"", ""},
        {" { \"b\" : 1.000 , \"a\" : [ ] } ", "{\"b\":1.000,\"a\":[]}", ""},
        {"123456789012345678901234567890", "123456789012345678901234567890", ""},
        {"false", "false", ""},
        {"0", "0", ""},
        {"[]", "[]", ""},
        {"\" \"", "\" \"", " "},
    };

    eg_frame_free(&f);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char text[200];

        snprintf(text, sizeof(text), "{\"content\":%s,\"type\":\"message\"}", rows[i].content);
        f = accept(text);
        cr_expect(eg_slice_is(f.content, rows[i].kept), "%s", rows[i].content);
        cr_expect(eg_slice_is(f.content_text, rows[i].text), "%s", rows[i].content);
        eg_frame_free(&f);
    }
    {
        char text[200];

        snprintf(text, sizeof(text), "{\"type\":\"message\",\"content\":\"%0120d\"}", 0);
        f = accept(text);
        cr_expect_eq(f.content.n, 122);
        cr_expect_eq(f.content_text.n, 0);
        eg_frame_free(&f);
        f = accept(with(EG_FRAME_HISTORY, "\"since\":1,\"limit\":7"));
        cr_expect(f.since == 1 && f.limit == 7);
        eg_frame_free(&f);
    }
    expect_refused("{\"type\":\"message\",\"content\":\"\"}", EG_CODE_invalid_request, "content");
    expect_refused("{\"type\":\"message\",\"content\":null}", EG_CODE_invalid_request, "content");
}

Test(frame, worker_frames_in_full)
{
    struct eg_frame f = accept(with(
        EG_FRAME_EMIT, "\"data\":{\"a\": 1},\"event_id\":\"e\",\"ephemeral\":true,\"traceparent\":"
                       "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\""));

    cr_assert(eg_slice_is(f.session_id, "s"));
    cr_assert_eq(f.turn, 1);
    cr_assert(eg_slice_is(f.event, "status"));
    cr_assert(eg_slice_is(f.data, "{\"a\":1}"));
    cr_assert(eg_slice_is(f.event_id, "e"));
    cr_assert(f.ephemeral);
    cr_assert_eq(f.traceparent.n, 55);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_FINAL, "\"outcome\":{\"code\":5,\"status\":\"rejected\"}"));
    cr_assert_eq(f.outcome_status, EG_OUTCOME_REJECTED);
    cr_assert(eg_slice_is(f.outcome, "{\"code\":5,\"status\":\"rejected\"}"));
    eg_frame_free(&f);

    f = accept("{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":\"\"}");
    cr_assert(eg_slice_is(f.content, "\"\""));
    cr_assert_eq(f.outcome_status, EG_OUTCOME_OK);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_FAIL, "\"retry\":false,\"retry_after_seconds\":1.5"));
    cr_assert(eg_slice_is(f.error, "\"e\""));
    cr_assert_not(f.retry);
    cr_assert_eq(f.retry_after_ms, 1500);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_HISTORY, "\"session_id\":\"s\",\"before\":9,\"limit\":100000"));
    cr_assert_eq(f.before, 9);
    cr_assert_eq(f.limit, EG_HISTORY_MAX);
    eg_frame_free(&f);

    f = accept(with(EG_FRAME_PING, "\"id\": { \"a\" : [1] }"));
    cr_assert(eg_slice_is(f.id, "{\"a\":[1]}"));
    eg_frame_free(&f);
}

Test(frame, event_names)
{
    static const char *const good[] = {"token_stream",
                                       "tool_call_stream",
                                       "tool_result_stream",
                                       "reasoning_stream",
                                       "tool_progress_stream",
                                       "stream_error",
                                       "stream_end",
                                       "model_fallback_stream",
                                       "retry_stream",
                                       "todo_stream",
                                       "status",
                                       "x.",
                                       "x.a",
                                       "x.reminder.due-1"};
    static const char *const bad[] = {"",      "message", "response", "session_end", "x",    "X.a",
                                      "x.a b", "x.a\\n",  "Status",   "x.\xc3\xa9",  "x.a/b"};
    char text[200];

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        cr_expect(eg_event_name_valid(eg_slice_cstr(good[i])), "%s", good[i]);
        cr_expect_eq(eg_event_is_stream(eg_slice_cstr(good[i])), good[i][1] != '.');
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(text, sizeof(text),
                 "{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"%s\"}", bad[i]);
        expect_refused(text, EG_CODE_invalid_request, "event");
    }
    expect_refused("{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":7}",
                   EG_CODE_invalid_request, "event");
}

Test(frame, publish_names)
{
    static const char *const good[] = {"reminder", "x.a", "token_stream", "A", "a.b:c-d_9"};
    static const char *const bad[] = {"",         "a b",           "a/b",      "message",
                                      "response", "hello_ok",      "error",    "ping",
                                      "resync",   "presence_join", "\xc3\xa9", "session_end"};
    char text[300], name[130];

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        snprintf(text, sizeof(text), "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"%s\"}",
                 good[i]);
        expect_accepted(text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(text, sizeof(text), "{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"%s\"}",
                 bad[i]);
        expect_refused(text, EG_CODE_invalid_request, "event");
    }
    /* one length for both, and no need of more than x. */
    memset(name, 'n', 129);
    name[129] = '\0';
    cr_expect_not(eg_publish_name_valid(eg_slice_cstr(name)));
    cr_expect(eg_publish_name_valid(eg_slice_cstr(name + 1)));
    memcpy(name, "x.x.", 4);
    cr_expect_not(eg_event_name_valid(eg_slice_cstr(name)));
    name[128] = '\0';
    cr_expect(eg_event_name_valid(eg_slice_cstr(name)));
    cr_expect(eg_publish_name_valid(eg_slice_cstr("x.")));
}

Test(frame, traceparents)
{
    static const struct {
        const char *value;
        bool good;
    } rows[] = {
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true},
        {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", false},
        {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what", false},
        {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a b", false},
        {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
        {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false},
        {"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01", false},
        {"0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b/-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0:", false},
        {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-\x7f", false},
        {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-0123456789012345678901234567890"
         "12345678901234567890123456789012345678901234567890",
         false},
        {"", false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char member[200];

        snprintf(member, sizeof(member), "\"traceparent\":\"%s\"", rows[i].value);
        if (rows[i].good)
            expect_accepted(with(EG_FRAME_MESSAGE, member));
        else
            expect_refused(with(EG_FRAME_MESSAGE, member), EG_CODE_invalid_request, "traceparent");
    }
}

static void expect_ref(const char *text, const char *ref)
{
    struct eg_frame f;
    struct eg_frame_error err;

    cr_assert_eq(eg_frame_parse(eg_slice_cstr(text), &f, &err), EG_EINVALID, "%s", text);
    cr_expect_str_eq(err.ref, ref, "%s", text);
}

Test(frame, a_refusal_carries_the_senders_id)
{
    expect_ref("{\"type\":\"message\",\"content\":\"\",\"message_id\":\"m-1\"}", "m-1");
    expect_ref("{\"type\":\"emit\",\"event_id\":\"e-\\u0031\"}", "e-1");
    expect_ref("{\"type\":\"nothing\",\"message_id\":\"m-2\"}", "m-2");
    expect_ref("{\"message_id\":\"m-3\"}", "m-3");
    expect_ref("{\"type\":\"message\",\"message_id\":7}", "");
    expect_ref("{\"type\":\"message\",\"message_id\":\"0123456789012345678901234567890123456789"
               "0123456789012345678901234567890123456789012345678901234567890123456789012345678901"
               "23456789\"}",
               "");
    expect_ref("{\"type\":\"message\",\"message_id\":\"m\",}", "");
}

Test(frame, says_which_type_it_does_not_know)
{
    struct eg_frame f;
    struct eg_frame_error err;
    char text[300];

    cr_assert_eq(eg_frame_parse(EG_LIT("{\"type\":\"wave\"}"), &f, &err), EG_EINVALID);
    cr_assert_str_eq(err.message, "unknown frame type wave");
    snprintf(text, sizeof(text), "{\"type\":\"%0200d\"}", 7);
    cr_assert_eq(eg_frame_parse(eg_slice_cstr(text), &f, &err), EG_EINVALID);
    cr_assert_eq(err.code, EG_CODE_unknown_type);
    cr_assert_str_eq(err.message, "unknown frame type");
}

Test(frame, presence_is_short)
{
    char text[EG_PRESENCE_BYTES_MAX + 100];
    for (size_t n = EG_PRESENCE_BYTES_MAX - 2; n <= EG_PRESENCE_BYTES_MAX - 1; n++) {
        char *o = stpcpy(text, "{\"type\":\"presence\",\"status\":\"here\",\"data\":\"");
        memset(o, 'x', n);
        strcpy(o + n, "\"}");
        if (n == EG_PRESENCE_BYTES_MAX - 2) { /* and two quotes */
            expect_accepted(text);
        } else {
            expect_refused(text, EG_CODE_invalid_request, "data");
        }
    }
}
