/*
 * test_outbox.c - the queue in front of a socket: order, counts, partial writes at every byte,
 * dropping what is not begun.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/outbox.h"

static struct eg_outbuf buffer(void)
{
    static char memory[8192];
    return (struct eg_outbuf){memory, sizeof memory};
}

struct pair {
    int ours, theirs;
};

static struct pair open_pair(int sndbuf)
{
    int fd[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    if (sndbuf) {
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
    }
    return (struct pair){fd[0], fd[1]};
}

static void close_pair(struct pair p)
{
    close(p.ours);
    close(p.theirs);
}

/* Reads all that is there. */
static void drain(int fd, struct eg_buf *out)
{
    char b[4096];
    ssize_t n;
    while ((n = recv(fd, b, sizeof b, 0)) > 0) {
        eg_buf_add(out, b, (size_t)n);
    }
}

static void add(struct eg_outbox *o, size_t n, char fill, bool paged)
{
    struct eg_outent ent;
    struct eg_bytes *const bytes = eg_bytes_new(n);
    memset(bytes->data, fill, n);
    eg_outent_frame(&ent, bytes, EG_WS_OP_TEXT);
    ent.paged = paged;
    cr_assert_eq(eg_outbox_take(o, &ent), EG_OK);
}

Test(outbox, frames_in_order_with_heads)
{
    struct eg_outbox o = {0};
    struct eg_outbuf buf = buffer();
    struct eg_buf got = {0};
    const struct pair p = open_pair(0);
    size_t written = 0;
    add(&o, 3, 'a', false);
    add(&o, 0, 'b', false);
    add(&o, 130, 'c', false);
    add(&o, 5000, 'd', false);
    add(&o, 1, 'e', true);
    cr_expect_eq(eg_outbox_frames(&o), 4);
    cr_expect_eq(eg_outbox_bytes(&o), 5U + 2 + 134 + 5004);
    cr_expect_eq(eg_outbox_page_bytes(&o), 3);
    cr_assert_eq(eg_outbox_write(&o, p.ours, &buf, &written), EG_OK);
    cr_expect_eq(eg_outbox_frames(&o) + eg_outbox_bytes(&o) + eg_outbox_page_bytes(&o), 0);
    cr_expect_null(o.q, "an empty box holds no memory");
    drain(p.theirs, &got);
    cr_assert_eq(got.n, 5U + 2 + 134 + 5004 + 3);
    cr_expect_eq(written, got.n);
    cr_expect(memcmp(got.p,
                     "\x81\x03"
                     "aaa"
                     "\x81\x00"
                     "\x81\x7e\x00\x82"
                     "ccc",
                     14) == 0);
    cr_expect(memcmp(got.p + 141,
                     "\x81\x7e\x13\x88"
                     "ddd",
                     7) == 0);
    cr_expect(memcmp(got.p + got.n - 4,
                     "d\x81\x01"
                     "e",
                     4) == 0);
    eg_buf_free(&got);
    eg_outbox_free(&o);
    close_pair(p);
}

Test(outbox, many_more_frames_than_fit_in_one_write)
{
    struct eg_outbox o = {0};
    struct eg_outbuf buf = buffer();
    struct eg_buf got = {0}, want = {0};
    const struct pair p = open_pair(0);
    size_t written = 0;
    unsigned seed = 7;
    enum eg_err err;
    for (int i = 0; i < 3000; i++) {
        const size_t n = (size_t)rand_r(&seed) % (i % 50 == 0 ? 20000 : 90);
        uint8_t head[EG_WS_HEAD_MAX];
        add(&o, n, (char)('a' + i % 26), i % 3 == 0);
        eg_buf_add(&want, head, eg_ws_head(head, EG_WS_OP_TEXT, n));
        for (size_t k = 0; k < n; k++) {
            eg_buf_char(&want, (char)('a' + i % 26));
        }
    }
    while ((err = eg_outbox_write(&o, p.ours, &buf, &written)) == EG_EAGAIN) {
        cr_assert_eq(eg_outbox_bytes(&o) + eg_outbox_page_bytes(&o), want.n - written);
        drain(p.theirs, &got);
    }
    cr_expect_eq(err, EG_OK);
    drain(p.theirs, &got);
    cr_expect_eq(got.n, want.n);
    cr_expect(memcmp(got.p, want.p, want.n) == 0);
    cr_expect_eq(eg_outbox_frames(&o) + eg_outbox_bytes(&o) + eg_outbox_page_bytes(&o), 0);
    eg_buf_free(&got);
    eg_buf_free(&want);
    eg_outbox_free(&o);
    close_pair(p);
}

/* A frame head as it came, and the payload's length. */
static size_t frame_length(const struct eg_buf *b, size_t at)
{
    const uint8_t *const h = (const uint8_t *)b->p + at;
    if (h[1] < 126) {
        return 2U + h[1];
    }
    return h[1] == 126 ? 4U + ((size_t)h[2] << 8 | h[3])
                       : 10U + ((size_t)h[6] << 24 | (size_t)h[7] << 16 | (size_t)h[8] << 8 | h[9]);
}

/* After a cut what arrives is whole frames, at most one of them from before. */
static void cut_case(bool paged_block, size_t size)
{
    struct eg_outbox o = {0};
    struct eg_outbuf buf = buffer();
    struct eg_buf got = {0};
    const struct pair p = open_pair(4096);
    size_t written = 0;
    if (paged_block) {
        struct eg_buf block = {0};
        struct eg_outent ent;
        for (int i = 0; i < 200; i++) {
            uint8_t head[EG_WS_HEAD_MAX];
            eg_buf_add(&block, head, eg_ws_head(head, EG_WS_OP_TEXT, size));
            for (size_t k = 0; k < size; k++) {
                eg_buf_char(&block, 'p');
            }
        }
        eg_outent_raw(&ent, eg_buf_bytes(&block), 200);
        ent.paged = true;
        cr_assert_eq(eg_outbox_take(&o, &ent), EG_OK);
        eg_buf_free(&block);
    }
    for (int i = 0; i < 100; i++) {
        add(&o, size, 'x', false);
    }
    cr_assert_eq(eg_outbox_write(&o, p.ours, &buf, &written), EG_EAGAIN);
    const size_t before = written;
    eg_outbox_cut(&o);
    cr_expect_leq(eg_outbox_bytes(&o) + eg_outbox_page_bytes(&o), size + EG_WS_HEAD_MAX);
    add(&o, 5, 'E', false);
    enum eg_err err;
    while ((err = eg_outbox_write(&o, p.ours, &buf, &written)) == EG_EAGAIN) {
        drain(p.theirs, &got);
    }
    drain(p.theirs, &got);
    cr_expect_eq(err, EG_OK);
    cr_expect_eq(got.n, written);
    size_t at = 0, last = 0;
    while (at < got.n) {
        last = at;
        at += frame_length(&got, at);
    }
    cr_expect_eq(at, got.n, "the stream ends with a whole frame");
    cr_expect(memcmp(got.p + last,
                     "\x81\x05"
                     "EEEEE",
                     7) == 0);
    cr_expect_leq(last, before + size + EG_WS_HEAD_MAX);
    eg_buf_free(&got);
    eg_outbox_free(&o);
    close_pair(p);
}

Test(outbox, cut_keeps_frames_whole)
{
    for (size_t size = 100; size < 140; size += 3) {
        cut_case(false, size);
        cut_case(true, size);
    }
    cut_case(false, 70000);
    cut_case(true, 70000);
    cut_case(true, 1000);
}

Test(outbox, cut_of_nothing_begun_leaves_nothing)
{
    struct eg_outbox o = {0};
    add(&o, 10, 'x', false);
    add(&o, 10, 'x', true);
    eg_outbox_cut(&o);
    cr_expect_eq(eg_outbox_bytes(&o) + eg_outbox_page_bytes(&o) + eg_outbox_frames(&o), 0);
    eg_outbox_free(&o);
}

Test(outbox, shared_bytes_are_let_go_once)
{
    struct eg_outbox o = {0};
    struct eg_bytes *const bytes = eg_bytes_copy("shared", 6);
    struct eg_outent ent;
    eg_outent_frame(&ent, bytes, EG_WS_OP_TEXT);
    for (int i = 0; i < 5; i++) {
        eg_bytes_ref(bytes);
        cr_assert_eq(eg_outbox_take(&o, &ent), EG_OK);
    }
    cr_expect_eq(bytes->refs, 6);
    eg_outbox_free(&o);
    cr_expect_eq(bytes->refs, 1);
    eg_bytes_unref(bytes);
}

Test(outbox, a_broken_socket_is_told)
{
    struct eg_outbox o = {0};
    struct eg_outbuf buf = buffer();
    const struct pair p = open_pair(0);
    size_t written = 0;
    close(p.theirs);
    add(&o, 10, 'x', false);
    cr_expect_eq(eg_outbox_write(&o, p.ours, &buf, &written), EG_EIO);
    eg_outbox_free(&o);
    close(p.ours);
}
