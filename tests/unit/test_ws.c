/*
 * test_ws.c - RFC 6455 as a server reads it: each case in one piece, byte by byte, and cut in two
 * at every place; and the heads of frames that are sent.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge/ws.h"

#define FIN 0x80
#define TEXT 1
#define BINARY 2
#define CLOSE 8
#define PING 9
#define PONG 10

/* Appends one masked frame. */
static void frame(struct eg_buf *out, unsigned b0, const void *payload, size_t n)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    eg_buf_char(out, (char)b0);
    if (n < 126) {
        eg_buf_char(out, (char)(0x80 | n));
    } else if (n < 65536) {
        eg_buf_char(out, (char)(0x80 | 126));
        eg_buf_char(out, (char)(n >> 8));
        eg_buf_char(out, (char)n);
    } else {
        eg_buf_char(out, (char)(0x80 | 127));
        for (int i = 7; i >= 0; i--) {
            eg_buf_char(out, (char)((uint64_t)n >> (8 * i)));
        }
    }
    eg_buf_add(out, mask, 4);
    for (size_t i = 0; i < n; i++) {
        eg_buf_char(out, (char)(((const uint8_t *)payload)[i] ^ mask[i % 4]));
    }
}

static void text(struct eg_buf *out, unsigned b0, const char *s)
{
    frame(out, b0, s, strlen(s));
}

/* What was read, as a line: t:..., b:..., p:..., o:..., c<code>:..., !<code>. */
static bool note(struct eg_buf *log, enum eg_ws_what what, const struct eg_ws_item *item)
{
    static const char letters[] = ".tbpoc!";
    if (what == EG_WS_NONE) {
        return true;
    }
    eg_buf_char(log, letters[what]);
    if (what == EG_WS_CLOSED || what == EG_WS_BROKEN) {
        eg_buf_int(log, item->code);
    }
    if (what != EG_WS_BROKEN) {
        eg_buf_char(log, ':');
        eg_buf_slice(log, item->payload);
    }
    eg_buf_char(log, ' ');
    return what != EG_WS_CLOSED && what != EG_WS_BROKEN;
}

/* Feeds one piece. false: nothing more may be read. */
static bool feed(struct eg_ws_pool *pool, struct eg_ws_reader **rd, uint64_t max, const char *p,
                 size_t n, struct eg_buf *log)
{
    struct eg_slice in = {p, n};
    for (;;) {
        struct eg_ws_item item;
        const enum eg_ws_what what = eg_ws_read(pool, rd, max, &in, &item);
        if (!note(log, what, &item)) {
            return false;
        }
        if (what == EG_WS_NONE) {
            cr_assert_eq(in.n, 0);
            eg_ws_rest(pool, rd);
            return true;
        }
    }
}

/* Reads in with a cut after `cut` bytes; step 1: every byte alone. */
static char *read_cut(const struct eg_buf *in, uint64_t max, size_t cut, bool single)
{
    struct eg_ws_pool pool = {0};
    struct eg_ws_reader *rd = NULL;
    struct eg_buf log = {0};
    size_t at = 0;
    bool on = true;
    while (on && at < in->n) {
        const size_t n = single ? 1 : at == 0 && cut ? cut : in->n - at;
        /* a copy of just this size, so that a sanitizer sees reads past it */
        char *const piece = malloc(n);
        memcpy(piece, in->p + at, n);
        on = feed(&pool, &rd, max, piece, n, &log);
        free(piece);
        at += n;
    }
    eg_ws_drop(&pool, &rd);
    eg_ws_pool_free(&pool);
    eg_buf_char(&log, '\0');
    return eg_buf_take(&log);
}

static void check(struct eg_buf *in, uint64_t max, const char *want)
{
    for (size_t cut = 0; cut <= in->n; cut++) {
        char *const got = read_cut(in, max, cut < in->n ? cut : 0, cut == in->n);
        cr_expect_str_eq(got, want, "cut at %zu of %zu: got \"%s\", want \"%s\"", cut, in->n, got,
                         want);
        free(got);
    }
    eg_buf_free(in);
}

Test(ws, messages)
{
    struct eg_buf b = {0};
    text(&b, FIN | TEXT, "Hello");
    text(&b, FIN | TEXT, "");
    frame(&b, FIN | BINARY, "\xff\xfe", 2);
    check(&b, 100, "t:Hello t: b:\xff\xfe ");
}

Test(ws, fragments_with_control_frames_between)
{
    struct eg_buf b = {0};
    text(&b, TEXT, "Hel");
    text(&b, FIN | PING, "ping");
    text(&b, 0, "");
    text(&b, FIN | PONG, "pong");
    text(&b, FIN, "lo");
    text(&b, FIN | TEXT, "next");
    check(&b, 100, "p:ping o:pong t:Hello t:next ");
}

Test(ws, lengths_in_all_three_forms)
{
    static const size_t sizes[] = {125, 126, 127, 65535, 65536};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct eg_buf b = {0}, want = {0};
        char *const body = malloc(sizes[i] + 1);
        memset(body, 'x', sizes[i]);
        body[sizes[i]] = '\0';
        text(&b, FIN | TEXT, body);
        eg_buf_printf(&want, "t:%s ", body);
        eg_buf_char(&want, '\0');
        for (size_t cut = 0; cut < 16; cut++) {
            char *const got = read_cut(&b, sizes[i], cut, false);
            cr_expect_str_eq(got, want.p);
            free(got);
            char *const refused = read_cut(&b, sizes[i] - 1, cut, false);
            cr_expect_str_eq(refused, "!1009 ");
            free(refused);
        }
        free(body);
        eg_buf_free(&b);
        eg_buf_free(&want);
    }
}

Test(ws, length_is_judged_before_any_payload)
{
    static const char head[] = "\x81\xff\0\0\0\0\x80\0\0\0"; /* 2 GiB, no mask key yet */
    struct eg_buf b = {0};
    eg_buf_add(&b, head, 10);
    check(&b, 1 << 20, "!1009 ");
}

Test(ws, a_message_is_limited_not_a_frame)
{
    struct eg_buf b = {0};
    text(&b, TEXT, "1234567");
    text(&b, 0, "89");
    text(&b, FIN, "ab");
    check(&b, 10, "!1009 ");
    text(&b, TEXT, "1234567");
    text(&b, FIN, "89a");
    check(&b, 10, "t:123456789a ");
}

Test(ws, fragments_are_counted)
{
    struct eg_buf b = {0};
    text(&b, TEXT, "");
    for (int i = 2; i < EG_WS_FRAGMENTS_MAX; i++) {
        text(&b, 0, "");
    }
    char *got = read_cut(&b, 10, 0, false);
    cr_expect_str_eq(got, "");
    free(got);
    struct eg_buf more = {0};
    eg_buf_add(&more, b.p, b.n);
    text(&b, FIN, "end");
    got = read_cut(&b, 10, 0, false);
    cr_expect_str_eq(got, "t:end ");
    free(got);
    text(&more, 0, "");
    text(&more, FIN, "end");
    got = read_cut(&more, 10, 0, false);
    cr_expect_str_eq(got, "!1009 ");
    free(got);
    eg_buf_reset(&b);
    for (int i = 0; i < EG_WS_FRAGMENTS_MAX; i++) { /* of one message, not of all */
        text(&b, FIN | BINARY, "");
    }
    text(&b, FIN | TEXT, "end");
    got = read_cut(&b, 10, 0, false);
    cr_expect_str_eq(got + strlen(got) - 6, "t:end ");
    free(got);
    eg_buf_free(&b);
    eg_buf_free(&more);
}

struct bad {
    const char *bytes;
    size_t n;
    const char *want;
};

#define BAD(bytes, want)                                                                           \
    {                                                                                              \
        bytes, sizeof bytes - 1, want                                                              \
    }

Test(ws, breaches)
{
    static const struct bad cases[] = {
        BAD("\xc1\x80\1\2\3\4", "!1002 "),                     /* RSV1 */
        BAD("\xa1\x80\1\2\3\4", "!1002 "),                     /* RSV2 */
        BAD("\x91\x80\1\2\3\4", "!1002 "),                     /* RSV3 */
        BAD("\x83\x80\1\2\3\4", "!1002 "),                     /* opcodes that are none */
        BAD("\x87\x80\1\2\3\4", "!1002 "),                     /* */
        BAD("\x8b\x80\1\2\3\4", "!1002 "),                     /* */
        BAD("\x8f\x80\1\2\3\4", "!1002 "),                     /* */
        BAD("\x81\x05Hello", "!1002 "),                        /* not masked */
        BAD("\x81\x00", "!1002 "),                             /* not masked, empty */
        BAD("\x09\x80\1\2\3\4", "!1002 "),                     /* fragmented ping */
        BAD("\x08\x80\1\2\3\4", "!1002 "),                     /* fragmented close */
        BAD("\x89\xfe\x00\x7e\1\2\3\4", "!1002 "),             /* ping of 126 bytes */
        BAD("\x80\x80\1\2\3\4", "!1002 "),                     /* continues nothing */
        BAD("\x00\x80\1\2\3\4", "!1002 "),                     /* */
        BAD("\x01\x80\0\0\0\0\x81\x80\0\0\0\0", "!1002 "),     /* text within a message */
        BAD("\x01\x80\0\0\0\0\x82\x80\0\0\0\0", "!1002 "),     /* binary within a message */
        BAD("\x81\xfe\x00\x7d\0\0\0\0", "!1002 "),             /* 125 in two bytes */
        BAD("\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", "!1002 "), /* 65535 in eight */
        BAD("\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", "!1002 "),   /* highest bit set */
        BAD("\x88\x81\0\0\0\0\x03", "!1002 "),                 /* close body of one byte */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct eg_buf b = {0};
        eg_buf_add(&b, cases[i].bytes, cases[i].n);
        check(&b, 1 << 20, cases[i].want);
    }
}

Test(ws, utf8_across_fragments)
{
    struct eg_buf b = {0};
    text(&b, TEXT, "\xce");
    text(&b, 0, "\xba\xe1\xbd");
    text(&b, FIN, "\xb9\xf0\x90\x80\x80");
    check(&b, 100, "t:\xce\xba\xe1\xbd\xb9\xf0\x90\x80\x80 ");
    /* ends within a character */
    text(&b, TEXT, "\xce");
    text(&b, FIN, "");
    check(&b, 100, "!1007 ");
    /* binary is not looked at */
    text(&b, FIN | BINARY, "\xce");
    check(&b, 100, "b:\xce ");
    /* the state of one message does not leak into the next */
    text(&b, FIN | TEXT, "\xce\xba");
    text(&b, FIN | TEXT, "\xba");
    check(&b, 100, "t:\xce\xba !1007 ");
}

Test(ws, utf8_fails_at_the_first_bad_byte)
{
    static const char *const bad[] = {"\x80",         "\xc0\xaf",         "\xc1\x81",
                                      "\xe0\x9f\xbf", "\xed\xa0\x80",     "\xf0\x8f\xbf\xbf",
                                      "\xf5",         "\xf4\x90\x80\x80", "\xff",
                                      "a\xe2\x28",    "\xce\xce",         "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct eg_buf b = {0};
        text(&b, TEXT, bad[i]); /* not final: must not wait for more */
        check(&b, 100, "!1007 ");
    }
}

static void close_with(struct eg_buf *b, unsigned code, const char *reason)
{
    char body[126];
    const size_t n = strlen(reason);
    body[0] = (char)(code >> 8);
    body[1] = (char)code;
    memcpy(body + 2, reason, n);
    frame(b, FIN | CLOSE, body, n + 2);
}

Test(ws, close_codes)
{
    for (unsigned code = 0; code < 5200; code++) {
        const bool good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                          (code >= 3000 && code <= 4999);
        struct eg_buf b = {0};
        char want[32];
        close_with(&b, code, "bye");
        snprintf(want, sizeof want, good ? "c%u:bye " : "!1002 ", code);
        char *const got = read_cut(&b, 100, 0, false);
        cr_expect_str_eq(got, want, "code %u: %s", code, got);
        free(got);
        eg_buf_free(&b);
    }
}

Test(ws, close_bodies)
{
    struct eg_buf b = {0};
    frame(&b, FIN | CLOSE, "", 0);
    text(&b, FIN | TEXT, "after");
    check(&b, 100, "c0: ");
    close_with(&b, 1000, "\xce");
    check(&b, 100, "!1007 ");
    char reason[124];
    memset(reason, 'r', 123);
    reason[123] = '\0';
    char want[200];
    snprintf(want, sizeof want, "c1000:%s ", reason);
    close_with(&b, 1000, reason);
    check(&b, 100, want);
}

Test(ws, readers_are_given_back_on_a_boundary)
{
    struct eg_ws_pool pool = {0};
    struct eg_ws_reader *rd = NULL;
    struct eg_buf b = {0}, log = {0};
    text(&b, FIN | TEXT, "one");
    cr_assert(feed(&pool, &rd, 100, b.p, b.n, &log));
    cr_expect_null(rd, "nothing is held between messages");
    cr_expect_eq(pool.count, 1);
    cr_assert(feed(&pool, &rd, 100, b.p, 1, &log));
    cr_expect_not_null(rd, "a frame has begun");
    cr_assert(feed(&pool, &rd, 100, b.p + 1, b.n - 1, &log));
    cr_expect_null(rd);
    eg_buf_reset(&b);
    text(&b, TEXT, "half");
    cr_assert(feed(&pool, &rd, 100, b.p, b.n, &log));
    cr_expect_not_null(rd, "a message has begun");
    eg_ws_drop(&pool, &rd);
    eg_ws_pool_free(&pool);
    eg_buf_free(&b);
    eg_buf_free(&log);
}

Test(ws, heads)
{
    uint8_t h[EG_WS_HEAD_MAX];
    cr_expect_eq(eg_ws_head(h, EG_WS_OP_TEXT, 0), 2);
    cr_expect(memcmp(h, "\x81\x00", 2) == 0);
    cr_expect_eq(eg_ws_head(h, EG_WS_OP_PONG, 125), 2);
    cr_expect(memcmp(h, "\x8a\x7d", 2) == 0);
    cr_expect_eq(eg_ws_head(h, EG_WS_OP_TEXT, 126), 4);
    cr_expect(memcmp(h, "\x81\x7e\x00\x7e", 4) == 0);
    cr_expect_eq(eg_ws_head(h, EG_WS_OP_CLOSE, 65535), 4);
    cr_expect(memcmp(h, "\x88\x7e\xff\xff", 4) == 0);
    cr_expect_eq(eg_ws_head(h, EG_WS_OP_BINARY, 65536), 10);
    cr_expect(memcmp(h, "\x82\x7f\0\0\0\0\0\1\0\0", 10) == 0);
}
