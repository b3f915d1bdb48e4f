/*
 * The JSON guard, the walker behind it, comparing, and the writers.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json.h"
#include "wire/json_text.h"

static struct eg_slice S(const char *s) {
    return eg_slice_cstr(s);
}

static bool
accepted(const char *text)
{
    struct eg_json_doc doc;

    return eg_json_scan(S(text), 32, &doc) == EG_OK;
}

Test(json, accepts_what_rfc8259_allows)
{
    static const char *const good[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "1e-5",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"",
        "\"\x7f\"",
        "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf \xee\x80\x80\"",
        "[]",
        " [ ] ",
        "[1,[2,[3]]]",
        "{}",
        "\t{\r\n\"a\" : 1 , \"b\":[{\"a\":1},{\"a\":2}]}\n",
        "{\"a\":{\"a\":{\"a\":1}}}",
        "{\"\":1}",
        "{\"a\":1,\"A\":2,\"\\u00e0\":3}",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        cr_expect(accepted(good[i]), "%s", good[i]);
}

Test(json, says_where_and_why_it_refuses)
{
    static const struct {
        const char *text;
        size_t offset;
        const char *reason;
    } bad[] = {
        {"", 0, "no JSON at all"},
        {" \n", 2, "no JSON at all"},
        {"\xef\xbb\xbf{}", 0, "byte order mark"},
        {"{} x", 3, "text after the end"},
        {"{}{}", 2, "text after the end"},
        {"nul", 0, "a value is missing"},
        {"nulL", 0, "a value is missing"},
        {"True", 0, "a value is missing"},
        {"NaN", 0, "a value is missing"},
        {"-Infinity", 1, "a digit is missing"},
        {"+1", 0, "a value is missing"},
        {".5", 0, "a value is missing"},
        {"01", 1, "leading zero"},
        {"-01", 2, "leading zero"},
        {"1.", 2, "a digit is missing"},
        {"1.e5", 2, "a digit is missing"},
        {"1e", 2, "a digit is missing"},
        {"1e+", 3, "a digit is missing"},
        {"0x10", 1, "text after the end"},
        {"[1,]", 3, "a value is missing"},
        {"[,1]", 1, "a value is missing"},
        {"[1 2]", 3, "expected , or ]"},
        {"[1}", 2, "expected , or ]"},
        {"[", 1, "unfinished text"},
        {"[1", 2, "unfinished text"},
        {"[1,", 3, "unfinished text"},
        {"{", 1, "unfinished text"},
        {"{\"a\"", 4, "unfinished text"},
        {"{\"a\":", 5, "unfinished text"},
        {"{\"a\":1", 6, "unfinished text"},
        {"{\"a\":1,", 7, "unfinished text"},
        {"{\"a\":1,}", 7, "a key is missing"},
        {"{a:1}", 1, "a key is missing"},
        {"{'a':1}", 1, "a key is missing"},
        {"{\"a\" 1}", 5, "expected :"},
        {"{\"a\":1]", 6, "expected , or }"},
        {"{\"a\":}", 5, "a value is missing"},
        {"{\"a\":1 \"b\":2}", 7, "expected , or }"},
        {"\"abc", 4, "unfinished string"},
        {"\"abc\\", 5, "unfinished string"},
        {"\"a\nb\"", 2, "control character in a string"},
        {"\"a\x1f\"", 2, "control character in a string"},
        {"\"\\x\"", 1, "unknown escape"},
        {"\"\\u12g4\"", 1, "\\u needs four hex digits"},
        {"\"\\u12", 1, "\\u needs four hex digits"},
        {"\"\\u0000\"", 1, "\\u0000 is not allowed"},
        {"\"\\ud800\"", 1, "lone surrogate"},
        {"\"\\ud800\\n\"", 1, "lone surrogate"},
        {"\"\\ud800\\ud800\"", 1, "lone surrogate"},
        {"\"\\ud800\\u0041\"", 1, "lone surrogate"},
        {"\"x\\udc00\"", 2, "lone surrogate"},
        {"\"\\ud800xxxxxxx\"", 1, "lone surrogate"},
        {"\"\\ud800\\nxxxxxx\"", 1, "lone surrogate"},
        {"\"\\ud800\\uzzzz\"", 1, "lone surrogate"},
        {"\"\\ud800\\ue000\"", 1, "lone surrogate"},
        {"\"\\u004/\"", 1, "\\u needs four hex digits"},
        {"\"\\u004`\"", 1, "\\u needs four hex digits"},
        {"\"\\u\"", 1, "\\u needs four hex digits"},
        {"\"\xed\xa0\x80\"", 1, "not UTF-8"},
        {"\"\x80\"", 1, "not UTF-8"},
        {"\"\xc0\xaf\"", 1, "not UTF-8"},
        {"\"\xe0\x80\xaf\"", 1, "not UTF-8"},
        {"\"\xf0\x80\x80\xaf\"", 1, "not UTF-8"},
        {"\"\xf4\x90\x80\x80\"", 1, "not UTF-8"},
        {"\"\xff\"", 1, "not UTF-8"},
        {"\"\xc3\"", 1, "not UTF-8"},
        {"\"\xe2\x82\"", 1, "not UTF-8"},
        {"{\"a\":1,\"a\":2}", 7, "duplicate key"},
        {"{\"a\":1,\"\\u0061\":2}", 7, "duplicate key"},
        {"{\"\\u0061\":1,\"a\":2}", 12, "duplicate key"},
        {"{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", 18, "duplicate key"},
        {"{\"\":1,\"\":2}", 6, "duplicate key"},
        {"[{\"x\":{\"k\":1,\"k\":1}}]", 13, "duplicate key"},
        {"{\"a\":{\"b\":1},\"a\":2}", 13, "duplicate key"},
        {"\xc2\xa0{}", 0, "a value is missing"},
        {"{\"a\":1}\f", 7, "text after the end"},
        {"/* */{}", 0, "a value is missing"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct eg_json_doc doc;

        cr_expect_eq(eg_json_scan(S(bad[i].text), 32, &doc), EG_EINVALID, "%s", bad[i].text);
        cr_expect_eq(doc.offset, bad[i].offset, "%s: byte %zu", bad[i].text, doc.offset);
        cr_expect(doc.reason && !strcmp(doc.reason, bad[i].reason), "%s: %s", bad[i].text,
                  doc.reason);
        cr_expect_eq(doc.members, 0);
    }
}

Test(json, refuses_a_nul_byte_wherever_it_stands)
{
    static const char texts[][4] = {{'"', 0, '"', 0}, {'1', 0, 0, 0}, {0, '1', 0, 0}};
    struct eg_json_doc doc;

    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(eg_json_scan((struct eg_slice){texts[i], 3}, 32, &doc), EG_EINVALID);
}

Test(json, holds_the_nesting_limit)
{
    char text[400];
    struct eg_json_doc doc;

    for (int depth = 1; depth <= 140; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = '\0';
        cr_expect_eq(eg_json_scan(S(text), 32, &doc), depth <= 32 ? EG_OK : EG_EINVALID);
        cr_expect_eq(eg_json_scan(S(text), 1000, &doc), depth <= 128 ? EG_OK : EG_EINVALID);
    }
    cr_expect_eq(eg_json_scan(S("1"), 0, &doc), EG_OK);
    cr_expect_eq(eg_json_scan(S("[]"), 0, &doc), EG_EINVALID);
    cr_expect_str_eq(doc.reason, "nested too deep");
}

/* {"k0":1,...,"k<n-1>":1}, the last key replaced by extra when that is not NULL. */
static void many_keys(struct eg_buf *b, int n, const char *extra)
{
    b->n = 0;
    eg_buf_char(b, '{');
    for (int i = 0; i < n; i++)
        eg_buf_printf(b, "%s\"k%d\":%d", i ? "," : "", i, i);
    if (extra)
        eg_buf_printf(b, ",\"%s\":0", extra);
    eg_buf_char(b, '}');
}

Test(json, finds_a_duplicate_among_any_number_of_keys)
{
    struct eg_buf b = {0};
    struct eg_json_doc doc;

    for (int n = 1; n < 3000; n = n < 70 ? n + 1 : n * 3) {
        char last[32];

        many_keys(&b, n, NULL);
        cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_OK, "%d keys", n);
        cr_expect_eq(doc.members, n < EG_JSON_MEMBERS_MAX ? n : EG_JSON_MEMBERS_MAX);
        many_keys(&b, n, "k0");
        cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_EINVALID);
        cr_expect_str_eq(doc.reason, "duplicate key");
        snprintf(last, sizeof(last), "\\u006b%d", n - 1);
        many_keys(&b, n, last);
        cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_EINVALID);
        many_keys(&b, n, "other");
        cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_OK);
    }
    eg_buf_free(&b);
}

Test(json, keys_of_one_object_do_not_count_in_another)
{
    struct eg_buf inner = {0}, b = {0};
    struct eg_json_doc doc;

    /* Objects of many keys inside one another and side by side: same names everywhere. */
    many_keys(&inner, 40, NULL);
    eg_buf_char(&b, '{');
    for (int i = 0; i < 30; i++)
        eg_buf_printf(&b, "%s\"k%d\":%.*s", i ? "," : "", i, (int)inner.n, inner.p);
    eg_buf_printf(&b, ",\"list\":[%.*s,{\"k0\":%.*s,\"k1\":0}]", (int)inner.n, inner.p,
                  (int)inner.n, inner.p);
    eg_buf_char(&b, '}');
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 8, &doc), EG_OK);
    b.n--;
    eg_buf_str(&b, ",\"k29\":1}");
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 8, &doc), EG_EINVALID);
    cr_expect_eq(doc.offset, b.n - 8);
    eg_buf_free(&inner);
    eg_buf_free(&b);
}

Test(json, keeps_members_as_written)
{
    struct eg_json_doc doc;
    const struct eg_json_member *m;

    cr_assert_eq(eg_json_scan(S(" {\"a\" : 1.00 ,\"b\\u0063\":\"x\\n\", \"d\":{ } ,\"e\":null,"
                                "\"f\":[1], \"g\":true}"),
                              8, &doc),
                 EG_OK);
    cr_assert_eq(doc.members, 6);
    cr_assert_eq(doc.kind, EG_JSON_OBJECT);
    m = eg_json_get(&doc, "a");
    cr_assert(m && m->kind == EG_JSON_NUMBER && eg_slice_is(m->value, "1.00"));
    m = eg_json_get(&doc, "bc");
    cr_assert(m && m->kind == EG_JSON_STRING && eg_slice_is(m->value, "\"x\\n\""));
    cr_assert(eg_slice_is(m->key, "b\\u0063"));
    m = eg_json_get(&doc, "d");
    cr_assert(m && m->kind == EG_JSON_OBJECT && eg_slice_is(m->value, "{ }"));
    cr_assert_eq(eg_json_get(&doc, "e")->kind, EG_JSON_NULL);
    cr_assert_eq(eg_json_get(&doc, "f")->kind, EG_JSON_ARRAY);
    cr_assert_eq(eg_json_get(&doc, "g")->kind, EG_JSON_BOOL);
    cr_assert_null(eg_json_get(&doc, "A"));
    cr_assert_null(eg_json_get(&doc, "b\\u0063"));
    cr_assert_null(eg_json_get(&doc, ""));
}

Test(json, knows_a_key_however_it_is_escaped)
{
    struct eg_json_member m;
    char object[1000] = "{\"", *p = object + 2;
    char name[101];

    for (int i = 0; i < 100; i++) {
        p += sprintf(p, "\\u0078");
        name[i] = 'x';
    }
    name[100] = '\0';
    strcpy(p, "\":7}");
    cr_assert(eg_json_find(S(object), name, &m));
    cr_assert(eg_slice_is(m.value, "7"));
    name[99] = '\0';
    cr_assert_not(eg_json_find(S(object), name, &m));
    cr_assert_not(eg_json_find(S("[1]"), "a", &m));
    cr_assert_not(eg_json_find(S(" "), "a", &m));
    cr_assert_not(eg_json_find((struct eg_slice){NULL, 0}, "a", &m));
    cr_assert_not(eg_json_find(S("{\"\\u0061\\u0062\":1}"), "ac", &m));
    cr_assert_not(eg_json_find(S("{\"\\n\":1,\"xyz\":2}"), "a", &m));
    cr_assert_not(eg_json_find(S("{\"\\u0061\\u0062\":1}"), "abc", &m));
    cr_assert(eg_json_find(S(" { \"b\" : [{\"a\":1},\"]\"] , \"a\" : -2 } "), "a", &m));
    cr_assert(eg_slice_is(m.value, "-2"));
}

static void expect_unquoted(const char *quoted, const char *text)
{
    struct eg_buf b = {0};

    eg_json_unquote(S(quoted), &b);
    cr_expect(eg_slice_is((struct eg_slice){b.p, b.n}, text), "%s gave %.*s", quoted, (int)b.n,
              b.p ? b.p : "");
    eg_buf_free(&b);
}

Test(json, unquotes)
{
    expect_unquoted("\"\"", "");
    expect_unquoted("\"plain\"", "plain");
    expect_unquoted("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
    expect_unquoted("\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00!\"",
                    "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!");
    expect_unquoted("\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf");
}

Test(json, reads_exact_integers_only)
{
    static const struct {
        const char *text;
        bool is;
        int64_t v;
    } rows[] = {{"0", true, 0},
                {"-0", true, 0},
                {"17", true, 17},
                {"-17", true, -17},
                {"9007199254740991", true, 9007199254740991LL},
                {"-9007199254740991", true, -9007199254740991LL},
                {"9007199254740992", false, 0},
                {"-9007199254740992", false, 0},
                {"99999999999999999999999", false, 0},
                {"1.0", false, 0},
                {"1e2", false, 0},
                {"0.5", false, 0}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        int64_t v = 0;

        cr_expect_eq(eg_json_integer(S(rows[i].text), &v), rows[i].is, "%s", rows[i].text);
        cr_expect_eq(v, rows[i].v, "%s", rows[i].text);
    }
    {
        int64_t v;

        cr_expect_not(eg_json_integer(S(""), &v));
        cr_expect_not(eg_json_integer(S("-"), &v));
    }
    cr_expect_float_eq(eg_json_double(S("-1.25e2")), -125.0, 0);
    cr_expect_float_eq(eg_json_double(S("0.1")), 0.1, 0);
}

Test(json, reads_a_number_of_any_length)
{
    char text[1001];

    memset(text, '0', 1000);
    text[0] = '5';
    text[1] = '.';
    text[1000] = '\0';
    cr_expect_float_eq(eg_json_double(S(text)), 5.0, 0);
}

static void expect_compact(const char *text, const char *compact)
{
    struct eg_buf b = {0};

    eg_json_compact(&b, S(text));
    cr_expect(eg_slice_is((struct eg_slice){b.p, b.n}, compact), "%s gave %.*s", text, (int)b.n,
              b.p ? b.p : "");
    eg_buf_free(&b);
}

Test(json, compacts_outside_strings_only)
{
    expect_compact(" { \"a b\" : [ 1 , 2\n] ,\t\"c\\\" \":\" x \" } ",
                   "{\"a b\":[1,2],\"c\\\" \":\" x \"}");
    expect_compact("\" \\\\\" ", "\" \\\\\"");
    expect_compact("1", "1");
    expect_compact("[]", "[]");
    expect_compact("[\"long plain text, longer than a word of the machine\" ]",
                   "[\"long plain text, longer than a word of the machine\"]");
}

Test(json, same_by_meaning)
{
    static const char *const same[][2] = {
        {"{\"a\":1,\"b\":2}", " { \"b\" : 2, \"a\" : 1 } "},
        {"{\"\\u0061\":[1]}", "{\"a\":[ 1 ]}"},
        {"\"\\u00e9\\/\"", "\"\xc3\xa9/\""},
        {"1", "1.0"},
        {"100", "1e2"},
        {"1E+2", "0.1e3"},
        {"-0", "0"},
        {"0.0e99", "0"},
        {"0e99999999999999999999999", "-0.000"},
        {"12.50", "125e-1"},
        {"1.5e-3", "0.0015"},
        {"10200e-2", "102"},
        {"1e99999999999999999999999", "1e99999999999999999999999"},
        {"[{},[],null,true]", "[ {}, [ ], null, true ]"},
        {"123456789012345678901234567890", "1.2345678901234567890123456789e29"},
        {"1.5e-0002", "0.015"},
        {"1.5", "15.0e-1"},
        {" 1 ", "1"},
        {"", " "},
        {"[1.0]", "[1.0] "},
    };
    static const char *const other[][2] = {
        {"{\"a\":1}", "{\"a\":2}"},
        {"{\"a\":1}", "{\"b\":1}"},
        {"{\"a\":1}", "{\"a\":1,\"b\":1}"},
        {"{\"a\":1,\"b\":1}", "{\"a\":1}"},
        {"[1,2]", "[2,1]"},
        {"[1]", "[1,1]"},
        {"[1,1]", "[1]"},
        {"\"a\"", "\"A\""},
        {"\"a\"", "\"\\u0041\""},
        {"\"1\"", "1"},
        {"1", "-1"},
        {"1", "10"},
        {"12", "21"},
        {"1", "1.00000000000000000000000000001"},
        {"9007199254740993", "9007199254740992"},
        {"1e400", "1e401"},
        {"1e99999999999999999999999", "1e99999999999999999999998"},
        {"0", "1e-99999999999999999999999"},
        {"true", "false"},
        {"null", "false"},
        {"{}", "[]"},
        {"null", "0"},
        {"1", ""},
        {"1", " "},
        {"12", "123e-1"},
        {"1.23", "123e-1"},
        {"{\"a\":1,\"aa\":2}", "{\"a\":1,\"ab\":2}"},
        {"{\"\":1}", "{\"a\":1}"},
        {"\"\\u0061b\"", "\"\\u0061c\""},
        {"\"\\u0061b\"", "\"\\u0061\""},
    };

    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
        cr_expect(eg_json_same(S(same[i][0]), S(same[i][1])), "%s %s", same[i][0], same[i][1]);
        cr_expect(eg_json_same(S(same[i][1]), S(same[i][0])), "%s %s", same[i][1], same[i][0]);
    }
    for (size_t i = 0; i < sizeof(other) / sizeof(*other); i++) {
        cr_expect_not(eg_json_same(S(other[i][0]), S(other[i][1])), "%s %s", other[i][0],
                      other[i][1]);
        cr_expect_not(eg_json_same(S(other[i][1]), S(other[i][0])), "%s %s", other[i][1],
                      other[i][0]);
    }
}

Test(json, same_for_an_object_of_many_members_in_any_order)
{
    struct eg_buf a = {0}, b = {0};

    many_keys(&a, 5000, NULL);
    eg_buf_char(&b, '{');
    for (int i = 4999; i >= 0; i--)
        eg_buf_printf(&b, "%s\"\\u006b%d\":%d.0", i < 4999 ? "," : "", i, i);
    eg_buf_char(&b, '}');
    cr_expect(eg_json_same((struct eg_slice){a.p, a.n}, (struct eg_slice){b.p, b.n}));
    b.p[b.n - 2] = '1';
    cr_expect_not(eg_json_same((struct eg_slice){a.p, a.n}, (struct eg_slice){b.p, b.n}));
    eg_buf_free(&a);
    eg_buf_free(&b);
}

static void expect_text(struct eg_buf *b, const char *text)
{
    cr_expect(eg_slice_is((struct eg_slice){b->p, b->n}, text), "%.*s", (int)b->n, b->p);
    b->n = 0;
}

Test(json, writes)
{
    struct eg_buf b = {0};
    struct eg_json_doc doc;

    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "a", EG_LIT("x\"\\\n\x01\x7f\xc3\xa9"));
    eg_json_kcstr(&b, "b", NULL);
    eg_json_kint(&b, "c", INT64_MIN);
    eg_json_kbool(&b, "d", true);
    eg_json_kraw(&b, "e", EG_LIT("[1]"));
    eg_json_ktime(&b, "f", 1795350871007);
    eg_json_ktime(&b, "g", -1);
    eg_json_ktime(&b, "h", 0);
    eg_json_kstr(&b, "i", (struct eg_slice){NULL, 0});
    eg_buf_char(&b, '}');
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_OK);
    expect_text(&b, "{\"a\":\"x\\\"\\\\\\n\\u0001\x7f\xc3\xa9\",\"b\":null,"
                    "\"c\":-9223372036854775808,\"d\":true,\"e\":[1],\"f\":1795350871.007,"
                    "\"g\":-0.001,\"h\":0.000,\"i\":\"\"}");
    eg_buf_free(&b);
}

Test(json, quotes_every_byte_so_that_it_reads_back)
{
    for (int c = 1; c < 0x80; c++) {
        char text[12];
        struct eg_buf b = {0}, back = {0};
        struct eg_json_doc doc;

        memset(text, 'a', sizeof(text));
        text[9] = (char)c;
        eg_json_quote(&b, (struct eg_slice){text, sizeof(text)});
        cr_assert_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 1, &doc), EG_OK, "%d", c);
        cr_assert_eq(eg_json_quoted_size((struct eg_slice){text, sizeof(text)}), b.n);
        eg_json_unquote((struct eg_slice){b.p, b.n}, &back);
        cr_assert(
            eg_slice_eq((struct eg_slice){back.p, back.n}, (struct eg_slice){text, sizeof(text)}));
        eg_buf_free(&b);
        eg_buf_free(&back);
    }
}

Test(json, finds_every_special_byte_at_every_place)
{
    char text[40];

    for (size_t at = 0; at < sizeof(text); at++)
        for (int c = 0; c < 256; c++) {
            const char *found, *end = text + sizeof(text);
            bool special = c < 0x20 || c == '"' || c == '\\' || c >= 0x80;

            memset(text, 'a', sizeof(text));
            text[at] = (char)c;
            found = eg_json_plain(text, end);
            cr_assert_eq(found, special ? text + at : end, "%zu %d", at, c);
        }
}

Test(json, utf8_by_the_table)
{
    size_t offset = 99;

    cr_expect(eg_utf8_valid(EG_LIT("plain ascii, more than eight bytes"), &offset));
    cr_expect(eg_utf8_valid((struct eg_slice){NULL, 0}, &offset));
    cr_expect(eg_utf8_valid(EG_LIT("\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf"
                                   "\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"),
                            &offset));
    cr_expect_eq(offset, 99);
    cr_expect_not(eg_utf8_valid(EG_LIT("0123456789\xed\xa0\x80"), &offset));
    cr_expect_eq(offset, 10);
    cr_expect_not(eg_utf8_valid(EG_LIT("abc\xe2\x82"), &offset));
    cr_expect_eq(offset, 3);
    cr_expect_not(eg_utf8_valid(EG_LIT("\xc1\xbf"), NULL));
    cr_expect_not(eg_utf8_valid(EG_LIT("\xf5\x80\x80\x80"), NULL));
    cr_expect_not(eg_utf8_valid(EG_LIT("\xf0\x9f\x98\x28"), NULL));
    cr_expect_not(eg_utf8_valid(EG_LIT("\xe2\x28\xa1"), NULL));
}

/* Every code point, encoded by its definition, passes; surrogates do not. */
Test(json, utf8_every_code_point)
{
    for (unsigned c = 1; c <= 0x10ffff; c++) {
        char t[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

        for (size_t i = n - 1; i > 0; i--)
            t[i] = (char)(0x80 | ((c >> 6 * (n - 1 - i)) & 0x3f));
        t[0] = (char)(lead[n] | (c >> 6 * (n - 1)));
        cr_assert_eq(eg_utf8_valid((struct eg_slice){t, n}, NULL), c < 0xd800 || c > 0xdfff,
                     "U+%04X", c);
    }
}

Test(json, refuses_more_keys_than_it_would_remember)
{
    struct eg_buf b = {0};
    struct eg_json_doc doc;

    eg_buf_char(&b, '{');
    for (int i = 0; i < EG_JSON_KEYS_MAX; i++)
        eg_buf_printf(&b, "%s\"%x\":0", i ? "," : "", i);
    eg_buf_char(&b, '}');
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_OK);
    b.p[b.n - 1] = ',';
    eg_buf_str(&b, "\"more\":0}");
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 4, &doc), EG_EINVALID);
    cr_expect_str_eq(doc.reason, "too many keys");
    eg_buf_free(&b);
}

Test(json, refuses_a_text_of_two_gibibytes_unseen)
{
    struct eg_json_doc doc;

    /* Only its first bytes are looked at, so that they are all there need to be. */
    cr_expect_eq(eg_json_scan((struct eg_slice){"{}  ", (size_t)1 << 31}, 4, &doc), EG_EINVALID);
    cr_expect_str_eq(doc.reason, "too long");
}

/* The innermost of many open objects is the first with enough keys for the hash table. */
Test(json, finds_a_duplicate_deep_inside)
{
    struct eg_buf b = {0};
    struct eg_json_doc doc;

    for (int depth = 0; depth < 31; depth++) {
        eg_buf_char(&b, '{');
        for (int i = 0; i < 15; i++)
            eg_buf_printf(&b, "\"k%d\":0,", i);
        eg_buf_str(&b, "\"in\":");
    }
    eg_buf_char(&b, '{');
    for (int i = 0; i < 40; i++)
        eg_buf_printf(&b, "%s\"k%d\":0", i ? "," : "", i);
    for (int depth = 0; depth < 32; depth++)
        eg_buf_char(&b, '}');
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 32, &doc), EG_OK);
    b.n -= 32;
    eg_buf_str(&b, ",\"k20\":1}");
    cr_expect_eq(eg_json_scan((struct eg_slice){b.p, b.n}, 32, &doc), EG_EINVALID);
    cr_expect_str_eq(doc.reason, "duplicate key");
    eg_buf_free(&b);
}
