/*
 * RFC 6455 from the receiving side: framing, masks, RSV, opcodes, control frames, fragments, close
 * codes, UTF-8, sizes. Every row runs three times: in one write, byte by byte, and with each frame
 * cut in the middle; the outcome must not depend on how TCP cut it.
 */
#include "pt.h"

PT_SUITE(rfc6455);

/* How a frame differs from an ordinary masked one. */
enum { MASKED = 0, UNMASKED = 1, LONG16 = 2, LONG64 = 4, ZERO_MASK = 8 };

struct part {
    unsigned first;      /* FIN, RSV, opcode */
    const char *payload; /* NULL ends the list */
    int len;             /* 0: strlen(payload) */
    int flags;
};

/* What must follow: a close code (>= 1000), or one of these. */
enum { PONG_FRAME = 1, JSON_PONG, PONG_THEN_JSON, FRAME_ERROR, JSON_ERROR, ALIVE, CLOSED_PLAIN };

struct row {
    const char *name;
    int want;
    struct part part[7];
};

#define PING_JSON "{\"type\":\"ping\"}"
#define TEXT 0x81
#define TEXT_MORE 0x01
#define CONT 0x80
#define CONT_MORE 0x00

static char fill126[127];

static const struct row framing[] = {
    {"text", JSON_PONG, {{TEXT, PING_JSON, 0, 0}}},
    {"text, zero mask", JSON_PONG, {{TEXT, PING_JSON, 0, ZERO_MASK}}},
    {"two fragments", JSON_PONG, {{TEXT_MORE, "{\"type\":", 0, 0}, {CONT, "\"ping\"}", 0, 0}}},
    {"three fragments",
     JSON_PONG,
     {{TEXT_MORE, "{\"type\"", 0, 0}, {CONT_MORE, ":", 0, 0}, {CONT, "\"ping\"}", 0, 0}}},
    {"empty first fragment", JSON_PONG, {{TEXT_MORE, "", 0, 0}, {CONT, PING_JSON, 0, 0}}},
    {"empty last fragment", JSON_PONG, {{TEXT_MORE, PING_JSON, 0, 0}, {CONT, "", 0, 0}}},
    {"empty middle fragments",
     JSON_PONG,
     {{TEXT_MORE, "{\"type\":", 0, 0},
      {CONT_MORE, "", 0, 0},
      {CONT_MORE, "", 0, 0},
      {CONT, "\"ping\"}", 0, 0}}},
    {"ping between fragments",
     PONG_THEN_JSON,
     {{TEXT_MORE, "{\"type\":", 0, 0}, {0x89, "mid", 0, 0}, {CONT, "\"ping\"}", 0, 0}}},
    {"pong between fragments",
     JSON_PONG,
     {{TEXT_MORE, "{\"type\":", 0, 0}, {0x8a, "mid", 0, 0}, {CONT, "\"ping\"}", 0, 0}}},
    {"close between fragments",
     1000,
     {{TEXT_MORE, "{\"type\":", 0, 0}, {0x88, "\x03\xe8", 2, 0}, {CONT, "\"ping\"}", 0, 0}}},
    {"continuation of nothing", 1002, {{CONT, PING_JSON, 0, 0}}},
    {"continuation of nothing, more", 1002, {{CONT_MORE, PING_JSON, 0, 0}}},
    {"continuation after a whole message", 1002, {{TEXT, PING_JSON, 0, 0}, {CONT, "x", 0, 0}}},
    {"text inside fragments", 1002, {{TEXT_MORE, "{", 0, 0}, {TEXT, PING_JSON, 0, 0}}},
    {"text without FIN inside fragments", 1002, {{TEXT_MORE, "{", 0, 0}, {TEXT_MORE, "}", 0, 0}}},
    {"binary inside fragments", 1002, {{TEXT_MORE, "{", 0, 0}, {0x82, "x", 0, 0}}},
    {"text inside binary fragments", 1002, {{0x02, "x", 0, 0}, {TEXT, PING_JSON, 0, 0}}},
    {"binary", FRAME_ERROR, {{0x82, "\x01\x02", 2, 0}}},
    {"binary fragments", FRAME_ERROR, {{0x02, "\x01", 1, 0}, {CONT, "\xff", 1, 0}}},
    {"binary that is not UTF-8", FRAME_ERROR, {{0x82, "\xff\xfe", 2, 0}}},
    {"empty text", JSON_ERROR, {{TEXT, "", 0, 0}}},
    {"16-bit length for a short text", 1002, {{TEXT, PING_JSON, 0, LONG16}}},
    {"64-bit length for a short text", 1002, {{TEXT, PING_JSON, 0, LONG64}}},
    {"unmasked text", 1002, {{TEXT, PING_JSON, 0, UNMASKED}}},
    {"unmasked empty text", 1002, {{TEXT, "", 0, UNMASKED}}},
    {"unmasked binary", 1002, {{0x82, "x", 0, UNMASKED}}},
    {"unmasked ping", 1002, {{0x89, "x", 0, UNMASKED}}},
    {"unmasked pong", 1002, {{0x8a, "x", 0, UNMASKED}}},
    {"unmasked close", 1002, {{0x88, "\x03\xe8", 2, UNMASKED}}},
    {"unmasked continuation", 1002, {{TEXT_MORE, "{", 0, 0}, {CONT, "}", 0, UNMASKED}}},
    {"RSV1", 1002, {{0xc1, PING_JSON, 0, 0}}},
    {"RSV2", 1002, {{0xa1, PING_JSON, 0, 0}}},
    {"RSV3", 1002, {{0x91, PING_JSON, 0, 0}}},
    {"all RSV", 1002, {{0xf1, PING_JSON, 0, 0}}},
    {"RSV1 on a ping", 1002, {{0xc9, "x", 0, 0}}},
    {"RSV2 on a pong", 1002, {{0xaa, "x", 0, 0}}},
    {"RSV3 on a close", 1002, {{0x98, "\x03\xe8", 2, 0}}},
    {"RSV1 on a continuation", 1002, {{TEXT_MORE, "{", 0, 0}, {0xc0, "}", 0, 0}}},
    {"RSV1 on binary", 1002, {{0xc2, "x", 0, 0}}},
    {"opcode 3", 1002, {{0x83, "x", 0, 0}}},
    {"opcode 4", 1002, {{0x84, "x", 0, 0}}},
    {"opcode 5", 1002, {{0x85, "x", 0, 0}}},
    {"opcode 6", 1002, {{0x86, "x", 0, 0}}},
    {"opcode 7", 1002, {{0x87, "x", 0, 0}}},
    {"opcode 11", 1002, {{0x8b, "x", 0, 0}}},
    {"opcode 12", 1002, {{0x8c, "x", 0, 0}}},
    {"opcode 13", 1002, {{0x8d, "x", 0, 0}}},
    {"opcode 14", 1002, {{0x8e, "x", 0, 0}}},
    {"opcode 15", 1002, {{0x8f, "x", 0, 0}}},
    {"opcode 3 without FIN", 1002, {{0x03, "x", 0, 0}}},
};

static const struct row control[] = {
    {"ping", PONG_FRAME, {{0x89, "hello", 0, 0}}},
    {"empty ping", PONG_FRAME, {{0x89, "", 0, 0}}},
    {"binary ping", PONG_FRAME, {{0x89, "\x00\xff\xfe\xc0", 4, 0}}},
    {"ping of 125 bytes", PONG_FRAME, {{0x89, fill126, 125, 0}}},
    {"ping of 126 bytes", 1002, {{0x89, fill126, 126, 0}}},
    {"ping with a 16-bit length", 1002, {{0x89, "x", 0, LONG16}}},
    {"ping with a 64-bit length", 1002, {{0x89, "x", 0, LONG64}}},
    {"ping without FIN", 1002, {{0x09, "x", 0, 0}}},
    {"pong without FIN", 1002, {{0x0a, "x", 0, 0}}},
    {"close without FIN", 1002, {{0x08, "\x03\xe8", 2, 0}}},
    {"pong nobody asked for", ALIVE, {{0x8a, "x", 0, 0}}},
    {"empty pong", ALIVE, {{0x8a, "", 0, 0}}},
    {"pong of 125 bytes", ALIVE, {{0x8a, fill126, 125, 0}}},
    {"pong of 126 bytes", 1002, {{0x8a, fill126, 126, 0}}},
    {"two pings", PONG_FRAME, {{0x89, "one", 0, 0}, {0x89, "two", 0, 0}}},
    {"ping, then text", PONG_THEN_JSON, {{0x89, "mid", 0, 0}, {TEXT, PING_JSON, 0, 0}}},
    {"empty close", CLOSED_PLAIN, {{0x88, "", 0, 0}}},
    {"close of one byte", 1002, {{0x88, "\x03", 1, 0}}},
    {"close of 126 bytes", 1002, {{0x88, fill126, 126, 0}}},
    {"close 1000", 1000, {{0x88, "\x03\xe8", 2, 0}}},
    {"close 1000 with a reason",
     1000,
     {{0x88,
       "\x03\xe8"
       "bye \xc3\xa9",
       8, 0}}},
    {"close 1000, twice", 1000, {{0x88, "\x03\xe8", 2, 0}, {0x88, "\x03\xe8", 2, 0}}},
    {"text after a close", 1000, {{0x88, "\x03\xe8", 2, 0}, {TEXT, PING_JSON, 0, 0}}},
    {"ping after a close", 1000, {{0x88, "\x03\xe8", 2, 0}, {0x89, "x", 0, 0}}},
    {"close with a broken reason", 1007, {{0x88, "\x03\xe8\xff", 3, 0}}},
    {"close with a cut reason", 1007, {{0x88, "\x03\xe8\xe2\x82", 4, 0}}},
    {"close with a surrogate in its reason", 1007, {{0x88, "\x03\xe8\xed\xa0\x80", 5, 0}}},
};

#define BODY(bytes) "{\"type\":\"ping\",\"x\":\"" bytes "\"}"
#define WHOLE(bytes)                                                                               \
    {                                                                                              \
        {                                                                                          \
            TEXT, BODY(bytes), sizeof BODY(bytes) - 1, 0                                           \
        }                                                                                          \
    }

static const struct row utf8[] = {
    {"two bytes", JSON_PONG, WHOLE("\xc3\xa9")},
    {"three bytes", JSON_PONG, WHOLE("\xe2\x82\xac")},
    {"four bytes", JSON_PONG, WHOLE("\xf0\x9f\x98\x80")},
    {"first of each length", JSON_PONG, WHOLE("\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80")},
    {"last of each length", JSON_PONG, WHOLE("\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf")},
    {"around the surrogates", JSON_PONG, WHOLE("\xed\x9f\xbf\xee\x80\x80")},
    {"non-characters", JSON_PONG, WHOLE("\xef\xbf\xbe\xef\xb7\x90")},
    {"two bytes cut by a fragment",
     JSON_PONG,
     {{TEXT_MORE, "{\"type\":\"ping\",\"x\":\"\xc3", 0, 0}, {CONT, "\xa9\"}", 0, 0}}},
    {"four bytes in four fragments",
     JSON_PONG,
     {{TEXT_MORE, "{\"type\":\"ping\",\"x\":\"\xf0", 0, 0},
      {CONT_MORE, "\x9f", 0, 0},
      {CONT_MORE, "\x98", 0, 0},
      {CONT, "\x80\"}", 0, 0}}},
    {"a ping inside a cut sequence",
     PONG_THEN_JSON,
     {{TEXT_MORE, "{\"type\":\"ping\",\"x\":\"\xe2\x82", 0, 0},
      {0x89, "mid", 0, 0},
      {CONT, "\xac\"}", 0, 0}}},
    {"lone continuation", 1007, WHOLE("\x80")},
    {"lone last continuation", 1007, WHOLE("\xbf")},
    {"overlong slash, two", 1007, WHOLE("\xc0\xaf")},
    {"overlong slash, three", 1007, WHOLE("\xe0\x80\xaf")},
    {"overlong slash, four", 1007, WHOLE("\xf0\x80\x80\xaf")},
    {"overlong NUL", 1007, WHOLE("\xc0\x80")},
    {"C1", 1007, WHOLE("\xc1\xbf")},
    {"high surrogate", 1007, WHOLE("\xed\xa0\x80")},
    {"low surrogate", 1007, WHOLE("\xed\xbf\xbf")},
    {"surrogate pair", 1007, WHOLE("\xed\xa0\xbd\xed\xb8\x80")},
    {"above U+10FFFF", 1007, WHOLE("\xf4\x90\x80\x80")},
    {"F5", 1007, WHOLE("\xf5\x80\x80\x80")},
    {"five bytes", 1007, WHOLE("\xf8\x88\x80\x80\x80")},
    {"six bytes", 1007, WHOLE("\xfc\x84\x80\x80\x80\x80")},
    {"FE", 1007, WHOLE("\xfe")},
    {"FF", 1007, WHOLE("\xff")},
    {"lead without continuation", 1007, WHOLE("\xc3")},
    {"three-byte sequence cut", 1007, WHOLE("\xe2\x82")},
    {"lead after lead", 1007, WHOLE("\xc3\xc3\xa9")},
    {"cut at the end of the message", 1007, {{TEXT, "\"\xe2\x82", 3, 0}}},
    {"cut at the end of the last fragment",
     1007,
     {{TEXT_MORE, "\"", 1, 0}, {CONT, "\xf0\x9f\x98", 3, 0}}},
    {"cut by a fragment and not continued",
     1007,
     {{TEXT_MORE, "\"\xe2\x82", 3, 0}, {CONT, "\"", 1, 0}}},
    {"outside of a string", 1007, {{TEXT, "\xff", 1, 0}}},
};

/* Adds a part's frame to the buffer; returns where its second half starts. */
static size_t add_part(struct tl_buf *b, const struct part *p)
{
    static const uint8_t mask[4] = {0xa1, 0x02, 0x7f, 0x80}, zero[4] = {0, 0, 0, 0};
    size_t len = p->len ? (size_t)p->len : strlen(p->payload);
    uint8_t *frame = malloc(len + 14);
    enum tl_len_form form = p->flags & LONG16   ? TL_LEN_16
                            : p->flags & LONG64 ? TL_LEN_64
                                                : TL_LEN_AUTO;
    const uint8_t *m = p->flags & UNMASKED ? NULL : p->flags & ZERO_MASK ? zero : mask;
    size_t n = tl_frame_build(frame, p->first, m, form, p->payload, len);

    tl_buf_add(b, frame, n);
    free(frame);
    return b->len - n / 2;
}

/* Sends a row in one of three ways. The peer may close early: failures to send are no matter. */
static void send_row(struct tl_ws *ws, const struct row *r, int way)
{
    struct tl_buf b = {0};
    size_t done = 0, cut;
    bool ok = true;

    for (const struct part *p = r->part; p < r->part + 7 && p->payload; p++) {
        cut = add_part(&b, p);
        if (way == 2) {
            ok = ok && tl_ws_write(ws, b.p + done, cut - done);
            done = cut;
        }
    }
    if (way == 1)
        ok = tl_ws_dribble(ws, b.p, b.len, 0);
    else
        ok = ok && tl_ws_write(ws, b.p + done, b.len - done);
    (void)ok;
    tl_buf_free(&b);
}

/* The pongs that must come first: one for each ping of the row, same payload. */
static bool pongs(struct tl_ws *ws, const struct row *r)
{
    for (const struct part *p = r->part; p < r->part + 7 && p->payload; p++) {
        if (p->first != 0x89)
            continue;
        size_t len = p->len ? (size_t)p->len : strlen(p->payload);
        if (tl_ws_recv(ws, PT_WAIT_MS) != TL_PONG || tl_ws_len(ws) != len ||
            memcmp(tl_ws_data(ws), p->payload, len))
            return false;
    }
    return true;
}

static bool json(struct tl_ws *ws, const char *type, const char *code)
{
    cJSON *o = tl_json_next(ws, PT_WAIT_MS, NULL);
    bool ok = o && tl_is(o, "type", type) && (!code || tl_is(o, "code", code));
    cJSON_Delete(o);
    return ok;
}

/* The row's outcome, as a text when it is wrong. */
static const char *outcome(struct tl_ws *ws, const struct row *r)
{
    bool ok = true;

    switch (r->want) {
    case PONG_FRAME:
        ok = pongs(ws, r);
        break;
    case PONG_THEN_JSON:
        ok = pongs(ws, r) && json(ws, "pong", NULL);
        break;
    case JSON_PONG:
        ok = json(ws, "pong", NULL);
        break;
    case FRAME_ERROR:
        ok = json(ws, "error", "invalid_frame");
        break;
    case JSON_ERROR:
        ok = json(ws, "error", "invalid_json");
        break;
    case ALIVE:
        break;
    default: {
        int code = tl_ws_wait_close(ws, PT_WAIT_MS);
        if (r->want == CLOSED_PLAIN ? code != TL_CLOSE_NO_CODE && code != 1000 : code != r->want)
            return pt_f("closed with %d (%s), not %d", code, tl_ws_close_reason(ws), r->want);
        return tl_ws_wait_eof(ws, PT_WAIT_MS) ? NULL : "the socket stays open";
    }
    }
    if (!ok)
        return pt_f("wrong answer, last received: %.80s", tl_ws_data(ws));
    if (!tl_ws_text(ws, PING_JSON) || !json(ws, "pong", NULL))
        return pt_f("the connection is gone: %d", tl_ws_close_code(ws));
    return NULL;
}

static void run_rows(const struct row *rows, size_t n)
{
    static const char *const ways[] = {"whole", "byte by byte", "cut in the middle"};

    memset(fill126, 'f', 126);
    pt_start(NULL);
    for (size_t i = 0; i < n; i++) {
        for (int way = 0; way < 3; way++) {
            struct tl_ws *ws = pt_client("echo", NULL);
            tl_ws_auto_close(ws, false);
            send_row(ws, &rows[i], way);
            const char *wrong = outcome(ws, &rows[i]);
            cr_expect(!wrong, "%s (%s): %s", rows[i].name, ways[way], wrong);
            pt_drop(ws);
        }
    }
    pt_client("echo", NULL);
}

PT_TEST(rfc6455, framing)
{
    run_rows(framing, sizeof framing / sizeof *framing);
}

PT_TEST(rfc6455, control_frames)
{
    run_rows(control, sizeof control / sizeof *control);
}

PT_TEST(rfc6455, utf8)
{
    run_rows(utf8, sizeof utf8 / sizeof *utf8);
}

PT_TEST(rfc6455, close_codes)
{
    /* RFC 6455 7.4 and the registry: which codes a peer may send. */
    static const struct {
        int code;
        bool good;
    } codes[] = {{0, false},    {1, false},    {999, false},  {1000, true},  {1001, true},
                 {1002, true},  {1003, true},  {1004, false}, {1005, false}, {1006, false},
                 {1007, true},  {1008, true},  {1009, true},  {1010, true},  {1011, true},
                 {1012, true},  {1013, true},  {1014, true},  {1015, false}, {1016, false},
                 {1100, false}, {2000, false}, {2999, false}, {3000, true},  {3999, true},
                 {4000, true},  {4999, true},  {5000, false}, {65535, false}};

    pt_start(NULL);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct tl_ws *ws = pt_client("echo", NULL);
        uint8_t body[2] = {(uint8_t)(codes[i].code >> 8), (uint8_t)codes[i].code};
        cr_assert(tl_ws_frame(ws, 0x88, body, 2));
        int got = tl_ws_wait_close(ws, PT_WAIT_MS);
        int want = codes[i].good ? codes[i].code : 1002;
        cr_expect(got == want || (codes[i].good && got == 1000), "close %d answered with %d",
                  codes[i].code, got);
        cr_expect(tl_ws_wait_eof(ws, PT_WAIT_MS), "close %d: the socket stays open", codes[i].code);
        pt_drop(ws);
    }
}

/* A text frame of exactly n bytes: a ping with padding. */
static char *padded(size_t n)
{
    static const char head[] = "{\"type\":\"ping\",\"x\":\"", tail[] = "\"}";
    char *text = malloc(n + 1);
    memset(text, 'p', n);
    memcpy(text, head, sizeof head - 1);
    memcpy(text + n - 2, tail, 3);
    return text;
}

PT_TEST(rfc6455, message_size_limit)
{
    enum { MAX = 20000 };
    pt_start("max_payload = 20000;");
    for (int fragments = 1; fragments <= 5; fragments += 4) {
        for (size_t n = MAX - 1; n <= MAX + 1; n++) {
            struct tl_ws *ws = pt_client("echo", NULL);
            char *text = padded(n);
            size_t each = n / (size_t)fragments, at = 0;
            for (int i = 0; i < fragments; i++) {
                bool last = i == fragments - 1;
                size_t len = last ? n - at : each;
                if (!tl_ws_frame(ws, (last ? 0x80u : 0) | (i ? 0 : 1u), text + at, len))
                    break;
                at += len;
            }
            if (n <= MAX)
                pt_expect(ws, "pong");
            else
                pt_closed(ws, 1009);
            free(text);
            pt_drop(ws);
        }
    }
}

PT_TEST(rfc6455, length_is_judged_before_the_payload)
{
    /* Only headers are sent; the answer must not wait for the payload. */
    static const struct {
        const char *name;
        uint8_t head[14];
        size_t len;
        int want, or_want;
    } claims[] = {
        {"64 KiB over", {0x81, 0xff, 0, 0, 0, 0, 0, 0x11, 0, 1, 1, 2, 3, 4}, 14, 1009, 1009},
        {"2 GiB", {0x81, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4}, 14, 1009, 1009},
        {"4 GiB and 1", {0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4}, 14, 1009, 1009},
        {"2^63 - 1",
         {0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
         14,
         1009,
         1009},
        {"2^63", {0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 14, 1002, 1009},
        {"2^64 - 1",
         {0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
         14,
         1002,
         1009},
        {"2 GiB, unfinished", {0x01, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4}, 14, 1009, 1009},
        {"2 GiB binary", {0x82, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4}, 14, 1009, 1009},
    };

    pt_start(NULL);
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        for (int greeted = 0; greeted < 2; greeted++) {
            struct tl_ws *ws = greeted ? pt_client("echo", NULL) : pt_open();
            cr_assert(tl_ws_write(ws, claims[i].head, claims[i].len));
            int got = tl_ws_wait_close(ws, PT_WAIT_MS);
            cr_expect(got == claims[i].want || got == claims[i].or_want, "%s: closed with %d",
                      claims[i].name, got);
            pt_drop(ws);
        }
    }
    /* 17 KiB before hello: longer than an unknown client may send. */
    static const uint8_t early[8] = {0x81, 0xfe, 0x44, 0x00, 1, 2, 3, 4};
    struct tl_ws *ws = pt_open();
    cr_assert(tl_ws_write(ws, early, sizeof early));
    pt_closed(ws, 1009);
}

PT_TEST(rfc6455, fragments_add_up_before_they_are_buffered)
{
    pt_start("max_payload = 20000;");
    struct tl_ws *ws = pt_client("echo", NULL);
    static char chunk[8000];
    memset(chunk, ' ', sizeof chunk);
    cr_assert(tl_ws_frame(ws, 0x01, chunk, sizeof chunk));
    cr_assert(tl_ws_frame(ws, 0x00, chunk, sizeof chunk));
    /* The third one's header alone goes over. */
    static const uint8_t head[8] = {0x00, 0xfe, 0x1f, 0x40, 1, 2, 3, 4};
    cr_assert(tl_ws_write(ws, head, sizeof head));
    pt_closed(ws, 1009);
}

PT_TEST(rfc6455, many_tiny_fragments_cost_little)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    long before = tl_gate_rss(pt_gate);
    enum { BYTES = 200000 };
    struct tl_buf b = {0};
    char *text = padded(BYTES);
    static const uint8_t mask[4] = {0, 0, 0, 0};
    uint8_t f[16];
    for (int i = 0; i < BYTES; i++) {
        unsigned first = (i == BYTES - 1 ? 0x80u : 0) | (i ? 0 : 1u);
        tl_buf_add(&b, f, tl_frame_build(f, first, mask, TL_LEN_AUTO, text + i, 1));
    }
    bool ok = tl_ws_write(ws, b.p, b.len);
    int kind = tl_ws_recv(ws, PT_WAIT_MS);
    /* A limit on fragments (1009) is fine, and so is the answer; memory is what counts. */
    cr_assert(kind == TL_TEXT || (kind == TL_CLOSE && tl_ws_close_code(ws) == 1009),
              "sent %d, got %s %d", ok, tl_json_why(kind), tl_ws_close_code(ws));
    long grown = tl_gate_rss(pt_gate) - before;
    cr_assert(tl_gate_sanitized() || grown < 8 * 1024 * 1024, "%ld bytes for %d fragments", grown,
              BYTES);
    free(text);
    tl_buf_free(&b);
}

PT_TEST(rfc6455, endless_empty_fragments_do_not_grow)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    static uint8_t many[6 * 10000];
    uint8_t start[6] = {0x01, 0x80, 0, 0, 0, 0};
    for (size_t i = 0; i < 10000; i++)
        many[6 * i + 1] = 0x80;
    cr_assert(tl_ws_write(ws, start, sizeof start));
    long before = tl_gate_rss(pt_gate);
    bool alive = true;
    for (int i = 0; i < 20 && alive; i++)
        alive = tl_ws_write(ws, many, sizeof many);
    long grown = tl_gate_rss(pt_gate) - before;
    cr_assert(tl_gate_sanitized() || grown < 4 * 1024 * 1024, "%ld bytes", grown);
    pt_client("echo", NULL);
}

PT_TEST(rfc6455, pings_answered_while_a_message_is_unfinished_and_many)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    for (int i = 0; i < 200; i++)
        cr_assert(tl_ws_frame(ws, 0x89, &i, sizeof i));
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(tl_ws_recv(ws, PT_WAIT_MS), TL_PONG);
        cr_assert_eq(memcmp(tl_ws_data(ws), &i, sizeof i), 0);
    }
}
