/* The client's WebSocket frames: the examples of RFC 6455, every length form, every broken frame.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "app/wsframe.h"

static const uint8_t no_mask[4] = {0};

static struct eg_wsframe_in fresh(void)
{
    return (struct eg_wsframe_in){.max_message = 1 << 20};
}

/* Feeds bytes as they are. */
static void feed(struct eg_wsframe_in *in, const char *bytes, size_t n)
{
    eg_buf_add(&in->bytes, bytes, n);
}

Test(wsframe, opening_key_of_rfc6455)
{
    char key[25], accept[29];
    eg_wskey_make((const uint8_t *)"the sample nonce", key);
    cr_assert_str_eq(key, "dGhlIHNhbXBsZSBub25jZQ==");
    eg_wskey_accept(key, accept);
    cr_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

Test(wsframe, masked_hello_of_rfc6455)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    struct eg_buf b = {0};
    eg_wsframe_write(&b, EG_WS_TEXT, EG_LIT("Hello"), mask);
    cr_assert_eq(b.n, 11);
    cr_assert_arr_eq(b.p, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 11);
    eg_buf_free(&b);
}

Test(wsframe, lengths_in_their_shortest_form)
{
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536, 70000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct eg_wsframe_in in = fresh();
        struct eg_buf b = {0};
        enum eg_ws_opcode op;
        struct eg_slice got;
        char *text = malloc(lengths[i] + 1);
        memset(text, 'a', lengths[i]);
        eg_wsframe_write(&b, EG_WS_TEXT, (struct eg_slice){text, lengths[i]}, no_mask);
        size_t head = lengths[i] < 126 ? 6 : lengths[i] < 65536 ? 8 : 14;
        cr_assert_eq(b.n, head + lengths[i]);
        /* A server's frame is the same without the mask. */
        b.p[1] &= 0x7f;
        memmove(b.p + head - 4, b.p + head, lengths[i]);
        for (size_t at = 0; at < b.n - 5; at++) {
            cr_assert_eq(eg_wsframe_next(&in, &op, &got), 0);
            feed(&in, b.p + at, 1);
        }
        feed(&in, b.p + b.n - 5, 1);
        cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1, "%zu", lengths[i]);
        cr_assert_eq(op, EG_WS_TEXT);
        cr_assert_eq(got.n, lengths[i]);
        cr_assert_eq(memcmp(got.p, text, got.n), 0);
        cr_assert_eq(eg_wsframe_next(&in, &op, &got), 0);
        eg_wsframe_in_free(&in);
        eg_buf_free(&b);
        free(text);
    }
}

Test(wsframe, fragments_with_a_ping_between)
{
    struct eg_wsframe_in in = fresh();
    enum eg_ws_opcode op;
    struct eg_slice got;
    feed(&in, "\x01\x03Hel\x89\x02hi\x80\x02lo\x81\x01!", 16);
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1);
    cr_assert_eq(op, EG_WS_PING);
    cr_assert(eg_slice_is(got, "hi"));
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1);
    cr_assert_eq(op, EG_WS_TEXT);
    cr_assert(eg_slice_is(got, "Hello"));
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1);
    cr_assert(eg_slice_is(got, "!"));
    eg_wsframe_in_free(&in);
}

Test(wsframe, close_codes_of_every_kind_are_seen)
{
    struct eg_wsframe_in in = fresh();
    enum eg_ws_opcode op;
    struct eg_slice got;
    feed(&in, "\x88\x07\x03\xf4later\x88\x00", 11);
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1);
    cr_assert_eq(op, EG_WS_CLOSE);
    cr_assert_eq(got.n, 7);
    cr_assert_eq(((uint8_t)got.p[0] << 8 | (uint8_t)got.p[1]), 1012);
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), 1);
    cr_assert_eq(got.n, 0);
    eg_wsframe_in_free(&in);
}

Test(wsframe, broken_frames_are_refused)
{
    static const struct {
        const char *bytes;
        size_t n;
        int code;
    } bad[] = {
        {"\x91\x00", 2, 1002},         /* RSV3 */
        {"\xc1\x00", 2, 1002},         /* RSV1 */
        {"\x83\x00", 2, 1002},         /* opcode 3 */
        {"\x8b\x00", 2, 1002},         /* opcode 11 */
        {"\x81\x80", 2, 1002},         /* masked */
        {"\x09\x00", 2, 1002},         /* fragmented ping */
        {"\x89\x7e\x00\x7e", 4, 1002}, /* long ping */
        {"\x80\x00", 2, 1002},         /* continuation of nothing */
        {"\x01\x00\x81\x00", 4, 1002}, /* a message inside a message */
        {"\x81\x02\xc3\x28", 4, 1007}, /* not UTF-8 */
        {"\x01\x01\xc3\x80\x01\x28", 6, 1007},
        {"\x88\x01\x03", 3, 1002},         /* half a close code */
        {"\x88\x03\x03\xe8\xff", 5, 1007}, /* close reason not UTF-8 */
        {"\x81\x7f\x00\x00\x00\x00\x00\x20\x00\x00", 10, 1009},
        {"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10, 1009},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct eg_wsframe_in in = fresh();
        enum eg_ws_opcode op;
        struct eg_slice got;
        int rc;
        feed(&in, bad[i].bytes, bad[i].n);
        while ((rc = eg_wsframe_next(&in, &op, &got)) > 0)
            ;
        cr_assert_eq(rc, -1, "%zu", i);
        cr_assert_eq(in.close_code, bad[i].code, "%zu: %d %s", i, in.close_code, in.error);
        cr_assert_eq(eg_wsframe_next(&in, &op, &got), -1, "it stays broken");
        eg_wsframe_in_free(&in);
    }
}

Test(wsframe, fragments_together_stay_below_the_limit)
{
    struct eg_wsframe_in in = {.max_message = 8};
    enum eg_ws_opcode op;
    struct eg_slice got;
    feed(&in,
         "\x01\x05"
         "aaaaa\x80\x04",
         9);
    cr_assert_eq(eg_wsframe_next(&in, &op, &got), -1);
    cr_assert_eq(in.close_code, 1009);
    eg_wsframe_in_free(&in);
}
