/*
 * Events and the frames around them: exact bytes, and reading back.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"

static struct eg_event sample(void)
{
    return (struct eg_event){.type = EG_LIT("token_stream"),
                             .session_id = EG_LIT("s1"),
                             .event_id = EG_LIT("e-1"),
                             .source = EG_LIT("agent:support"),
                             .cursor = 17,
                             .turn = 16,
                             .timestamp_ms = 1795350871896,
                             .tail = EG_LIT("\"data\":{\"t\":\"x\"}")};
}

static void expect_strict(struct eg_slice text)
{
    struct eg_json_doc doc;

    cr_expect_eq(eg_json_scan(text, 32, &doc), EG_OK, "%.*s", (int)text.n, text.p);
}

Test(event, has_these_bytes)
{
    struct eg_event e = sample();
    struct eg_bytes *b = eg_event_make(&e);

    cr_assert_str_eq(b->data,
                     "{\"type\":\"token_stream\",\"session_id\":\"s1\",\"cursor\":17,\"seq\":17,"
                     "\"event_id\":\"e-1\",\"timestamp\":1795350871.896,"
                     "\"source\":\"agent:support\",\"turn\":16,\"data\":{\"t\":\"x\"}}");
    cr_assert_eq(b->n, strlen(b->data));
    eg_bytes_unref(b);
}

Test(event, leaves_out_what_it_has_not)
{
    struct eg_event e = sample();
    struct eg_bytes *b;
    struct eg_event_head h;

    e.turn = 0;
    e.tail = (struct eg_slice){NULL, 0};
    e.timestamp_ms = 5;
    b = eg_event_make(&e);
    cr_assert_str_eq(b->data,
                     "{\"type\":\"token_stream\",\"session_id\":\"s1\",\"cursor\":17,\"seq\":17,"
                     "\"event_id\":\"e-1\",\"timestamp\":0.005,\"source\":\"agent:support\"}");
    cr_assert_eq(eg_event_read(eg_bytes_slice(b), &h), EG_OK);
    cr_assert_eq(h.turn, 0);
    cr_assert_eq(h.tail.n, 0);
    cr_assert_eq(h.traceparent.n, 0);
    cr_assert_eq(h.timestamp_ms, 5);
    eg_bytes_unref(b);
}

Test(event, reads_back_what_was_made)
{
    struct eg_event e = sample();
    struct eg_bytes *b;
    struct eg_event_head h;

    e.session_id = EG_LIT("a\"b\\c");
    e.source = EG_LIT("client:\n\xc3\xa9");
    e.traceparent = EG_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    e.cursor = 9007199254740991ULL;
    e.turn = 9007199254740990ULL;
    b = eg_event_make(&e);
    expect_strict(eg_bytes_slice(b));
    cr_assert_eq(eg_event_read(eg_bytes_slice(b), &h), EG_OK);
    cr_assert(eg_slice_is(h.type, "token_stream"));
    cr_assert(eg_slice_is(h.session_id, "a\\\"b\\\\c"));
    cr_assert(eg_slice_is(h.event_id, "e-1"));
    cr_assert(eg_slice_is(h.source, "client:\\n\xc3\xa9"));
    cr_assert(eg_slice_eq(h.traceparent, e.traceparent));
    cr_assert(eg_slice_is(h.timestamp, "1795350871.896"));
    cr_assert_eq(h.timestamp_ms, e.timestamp_ms);
    cr_assert_eq(h.cursor, e.cursor);
    cr_assert_eq(h.turn, e.turn);
    cr_assert(eg_slice_eq(h.tail, e.tail));
    eg_bytes_unref(b);
}

Test(event, refuses_to_read_anything_else)
{
    struct eg_event e = sample();
    struct eg_bytes *b = eg_event_make(&e);
    struct eg_event_head h;
    struct eg_buf out = {0};
    size_t head = (size_t)(strstr(b->data, "\"data\"") - b->data);

    /* Cut anywhere in its head it is none; a changed byte of the head's words as well. */
    for (size_t n = 0; n < head; n++) {
        if (b->data[n ? n - 1 : 0] == '}')
            continue;
        cr_expect_eq(eg_event_read((struct eg_slice){b->data, n}, &h), EG_ECORRUPT, "%zu", n);
    }
    cr_expect_eq(eg_event_read(EG_LIT("{}"), &h), EG_ECORRUPT);
    cr_expect_eq(eg_event_read((struct eg_slice){0}, &h), EG_ECORRUPT); /* a row without bytes */
    cr_expect_not(eg_event_needs_streaming((struct eg_slice){0}));
    cr_expect_eq(eg_event_read(EG_LIT("{\"session_id\":\"s\",\"type\":\"x\"}"), &h), EG_ECORRUPT);
    cr_expect_eq(eg_replay_wrap(&out, EG_LIT("{\"type\":\"x\"}")), EG_ECORRUPT);
    cr_expect_eq(out.n, 0);
    *strstr(b->data, "\"seq\":17") = 'x';
    cr_expect_eq(eg_event_read(eg_bytes_slice(b), &h), EG_ECORRUPT);
    cr_expect_eq(eg_event_read(EG_LIT("{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":2,"
                                      "\"event_id\":\"e\",\"timestamp\":1.000,\"source\":\"x\"}"),
                               &h),
                 EG_ECORRUPT);
    cr_expect_eq(eg_event_read(EG_LIT("{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":1,"
                                      "\"event_id\":\"e\",\"timestamp\":1.00,\"source\":\"x\"}"),
                               &h),
                 EG_ECORRUPT);
    cr_expect_eq(eg_event_read(EG_LIT("{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":1,"
                                      "\"event_id\":\"e\",\"timestamp\":1.000,\"source\":\"x\\\"}"),
                               &h),
                 EG_ECORRUPT);
    eg_bytes_unref(b);
    eg_buf_free(&out);
}

/* Each word, number and string of the head, bent in turn. */
Test(event, every_part_of_the_head_counts)
{
    static const char *const bad[] = {
        "{\"type\":\"t}",
        "{\"type\":\"t\",\"session_id\":\"s}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"x\":1}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":x}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":99999999999999999999,\"seq\":1}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":1,\"x\":1}",
        "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":1,\"event_id\":\"e}",
    };
    static const char *const bad_ends[] = {
        "",
        ",\"timestamp\":1,\"source\":\"x\"}",
        ",\"timestamp\":.000,\"source\":\"x\"}",
        ",\"timestamp\":1.,\"source\":\"x\"}",
        ",\"timestamp\":1.0000,\"source\":\"x\"}",
        ",\"timestamp\":9999999999999999999.000,\"source\":\"x\"}",
        ",\"timestamp\":1.000}",
        ",\"timestamp\":1.000,\"source\":7}",
        ",\"timestamp\":1.000,\"source\":\"x\",\"turn\":}",
        ",\"timestamp\":1.000,\"source\":\"x\",\"turn\":x}",
        ",\"timestamp\":1.000,\"source\":\"x\",\"traceparent\":\"00}",
        ",\"timestamp\":1.000,\"source\":\"x\"\"data\":{}}",
    };
    struct eg_event_head h;
    char text[400];

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_expect_eq(eg_event_read(eg_slice_cstr(bad[i]), &h), EG_ECORRUPT, "%s", bad[i]);
    for (size_t i = 0; i < sizeof(bad_ends) / sizeof(*bad_ends); i++) {
        snprintf(text, sizeof(text),
                 "{\"type\":\"t\",\"session_id\":\"s\",\"cursor\":1,\"seq\":1,\"event_id\":\"e\"%s",
                 bad_ends[i]);
        cr_expect_eq(eg_event_read(eg_slice_cstr(text), &h), EG_ECORRUPT, "%s", text);
    }
}

/* A damaged tail may give nothing or something wrong, but nothing from outside of it. */
Test(event, a_damaged_tail_does_no_harm)
{
    struct eg_event e = sample();
    struct eg_bytes *b;
    const char *tail;

    e.tail = EG_LIT("\"status\" : \"fi\\u00e9\\\"nal\" , \"out\" : { \"a\" : [ 1 , {\"b\":2} ] , "
                    "\"status\" : \"ok\" }");
    b = eg_event_make(&e);
    tail = strstr(b->data, "\"status\"");
    for (size_t n = (size_t)(tail - b->data); n < b->n; n++) {
        char *copy = malloc(n + 1); /* exactly as long, so that a sanitizer sees more */
        struct eg_slice s = {copy, n + 1}, field;
        static const char *const paths[] = {"status", "out", "out.status", "out.a.b", "none"};

        memcpy(copy, b->data, n);
        copy[n] = '}';
        for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
            struct eg_buf text = {0};

            field = eg_event_field(s, paths[i]);
            cr_assert(field.n == 0 || (field.p >= copy && field.p + field.n <= copy + n + 1));
            if (field.n && *field.p == '"')
                eg_json_unquote(field, &text);
            eg_json_compact(&text, field);
            eg_buf_free(&text);
        }
        free(copy);
    }
    cr_assert(eg_slice_is(eg_event_field(eg_bytes_slice(b), "out.status"), "\"ok\""));
    cr_assert_eq(
        eg_event_field(eg_bytes_slice(b),
                       "a_name_that_is_much_longer_than_any_name_that_an_event_has_or_will")
            .n,
        0);
    eg_bytes_unref(b);
}

Test(event, is_wrapped_for_replay_byte_for_byte)
{
    struct eg_event e = sample();
    struct eg_bytes *b = eg_event_make(&e);
    struct eg_buf out = {0}, want = {0};

    cr_assert_eq(eg_replay_wrap(&out, eg_bytes_slice(b)), EG_OK);
    eg_buf_printf(&want,
                  "{\"type\":\"replay\",\"seq\":17,\"event\":{\"type\":\"token_stream\","
                  "\"event_id\":\"e-1\",\"timestamp\":1795350871.896,\"source\":\"agent:support\","
                  "\"target\":null,\"sequence\":17,\"data\":%s}}",
                  b->data);
    cr_assert(eg_slice_eq((struct eg_slice){out.p, out.n}, (struct eg_slice){want.p, want.n}),
              "%.*s", (int)out.n, out.p);
    expect_strict((struct eg_slice){out.p, out.n});
    eg_bytes_unref(b);
    eg_buf_free(&out);
    eg_buf_free(&want);
}

Test(event, gives_single_members_of_its_tail)
{
    struct eg_event e = sample();
    struct eg_bytes *b;
    struct eg_slice s;

    e.tail = EG_LIT("\"status\":\"final\",\"content\":[1, 2],\"outcome\":{\"x\":{\"status\":1},"
                    "\"status\":\"ok\"}");
    b = eg_event_make(&e);
    s = eg_bytes_slice(b);
    cr_assert(eg_slice_is(eg_event_field(s, "status"), "\"final\""));
    cr_assert(eg_slice_is(eg_event_field(s, "content"), "[1, 2]"));
    cr_assert(eg_slice_is(eg_event_field(s, "outcome.status"), "\"ok\""));
    cr_assert(eg_slice_is(eg_event_field(s, "outcome.x.status"), "1"));
    cr_assert_eq(eg_event_field(s, "outcome.y").n, 0);
    cr_assert_eq(eg_event_field(s, "status.x").n, 0);
    cr_assert_eq(eg_event_field(s, "data").n, 0);
    cr_assert_eq(eg_event_field(s, "type").n, 0);
    cr_assert_eq(eg_event_field(EG_LIT("{}"), "status").n, 0);
    eg_bytes_unref(b);
}

Test(event, tells_errors)
{
    struct eg_buf b = {0};

    eg_error_frame(&b, EG_CODE_rate_limited, NULL, NULL, (struct eg_slice){NULL, 0}, NULL, -1);
    cr_assert(eg_slice_is(
        (struct eg_slice){b.p, b.n},
        "{\"type\":\"error\",\"code\":\"rate_limited\",\"message\":\"too many requests\"}"));
    b.n = 0;
    eg_error_frame(&b, EG_CODE_rate_limited, "", "", EG_LIT(""), "", 0);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n},
                          "{\"type\":\"error\",\"code\":\"rate_limited\",\"message\":\"too many "
                          "requests\",\"retry_after_seconds\":0}"));
    b.n = 0;
    eg_error_frame(&b, EG_CODE_insufficient_scope, "say \"please\"", "content", EG_LIT("m-1"),
                   "write", 3);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n},
                          "{\"type\":\"error\",\"code\":\"insufficient_scope\",\"message\":\"say "
                          "\\\"please\\\"\",\"ref\":\"m-1\",\"field\":\"content\","
                          "\"required_scope\":\"write\",\"retry_after_seconds\":3}"));
    eg_buf_free(&b);
}

static void expect_tail(const char *frame, const char *tail)
{
    struct eg_frame f;
    struct eg_frame_error err;
    struct eg_buf b = {0};

    cr_assert_eq(eg_frame_parse(eg_slice_cstr(frame), &f, &err), EG_OK, "%s", err.message);
    eg_frame_tail(&f, &b);
    cr_expect(eg_slice_is((struct eg_slice){b.p, b.n}, tail), "%.*s", (int)b.n, b.p ? b.p : "");
    eg_buf_free(&b);
    eg_frame_free(&f);
}

Test(event, tails_of_frames)
{
    expect_tail("{\"type\":\"message\",\"content\": { \"a\" : 1.50 } }",
                "\"data\":{\"content\":{\"a\":1.50}}");
    expect_tail("{\"metadata\":{\"k\": [1] },\"message_id\":\"m\\u0022\",\"content\":\"x\","
                "\"type\":\"message\"}",
                "\"data\":{\"content\":\"x\",\"message_id\":\"m\\\"\",\"metadata\":{\"k\":[1]}}");
    expect_tail("{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"status\"}",
                "\"data\":{}");
    expect_tail("{\"type\":\"emit\",\"session_id\":\"s\",\"turn\":1,\"event\":\"status\","
                "\"data\": [ 1 ]}",
                "\"data\":[1]");
    expect_tail("{\"type\":\"publish\",\"session_id\":\"s\",\"event\":\"x.a\",\"data\":7}",
                "\"data\":7");
    expect_tail("{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":\"ok\"}",
                "\"status\":\"final\",\"content\":\"ok\",\"outcome\":{\"status\":\"ok\"}");
    expect_tail("{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,"
                "\"outcome\":{\"status\":\"aborted\", \"by\":1}}",
                "\"status\":\"final\",\"content\":\"\",\"outcome\":{\"status\":\"aborted\","
                "\"by\":1}");
    expect_tail("{\"type\":\"ping\"}", "");
}

Test(event, code_table)
{
    cr_assert_str_eq(eg_code_info(EG_CODE_auth_required)->name, "auth_required");
    cr_assert_str_eq(eg_code_info(EG_CODE_conflict)->name, "conflict");
    cr_assert_str_eq(eg_code_info(EG_CODE_too_many_connections)->next_step, "wait_then_retry");
    cr_assert_eq(eg_code_info(EG_CODE_draining)->close_code, 1012);
    cr_assert_eq(eg_code_info(EG_CODE_not_found)->http_status, 404);
    cr_assert_str_eq(eg_code_info(EG_CODE_NONE)->name, "internal");
    cr_assert_str_eq(eg_code_info((enum eg_code)9999)->name, "internal");
    cr_assert_str_eq(eg_code_info((enum eg_code) - 1)->name, "internal");
}
