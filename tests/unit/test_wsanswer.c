/* The answer to the client's opening handshake: upgraded, refused in words, or nothing of use; in
 * one piece and byte by byte. */
#include <criterion/criterion.h>
#include <string.h>

#include "app/wsanswer.h"

#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define HEADERS "Upgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n"

static enum eg_wsanswer_kind answer(const char *bytes, bool ended, struct eg_wsanswer *out)
{
    return eg_wsanswer_read((struct eg_slice){bytes, strlen(bytes)}, ended, ACCEPT, out);
}

/* The kind once text is whole; any less of it must be MORE. */
static enum eg_wsanswer_kind whole(const char *text, struct eg_wsanswer *out)
{
    for (size_t n = 0; n < strlen(text); n++)
        cr_assert_eq(eg_wsanswer_read((struct eg_slice){text, n}, false, ACCEPT, out),
                     EG_WSANSWER_MORE, "%zu bytes of %s", n, text);
    return answer(text, false, out);
}

Test(wsanswer, upgraded_with_frames_behind_it)
{
    struct eg_wsanswer a;
    cr_assert_eq(whole("HTTP/1.1 101 Switching Protocols\r\n" HEADERS "\r\n", &a),
                 EG_WSANSWER_OPEN);
    cr_assert_eq(a.frames.n, 0);
    cr_assert_eq(answer("HTTP/1.1 101 x\r\n" HEADERS "\r\nframes", false, &a), EG_WSANSWER_OPEN);
    cr_assert(eg_slice_is(a.frames, "frames"));
}

Test(wsanswer, an_upgrade_must_be_right)
{
    static const char *const wrong[] = {
        "HTTP/1.0 101 x\r\n" HEADERS "\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x" ACCEPT "\r\n\r\n",
        "HTTP/1.1 101 x\r\n" HEADERS "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/2 101 x\r\n" HEADERS "\r\n",
    };
    struct eg_wsanswer a;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(answer(wrong[i], false, &a), EG_WSANSWER_BROKEN, "%s", wrong[i]);
        cr_assert_str_eq(a.reason, "the answer to the upgrade is wrong");
        cr_assert_eq(a.retry_after_ms, -1);
    }
}

Test(wsanswer, refused_in_words)
{
    struct eg_wsanswer a;
    cr_assert_eq(
        whole("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 71\r\n\r\n"
              "{\"code\":\"rate_limited\",\"title\":\"no\",\"detail\":\"wait\",\"more\":[{\"a\":1},"
              "2]}",
              &a),
        EG_WSANSWER_REFUSED);
    cr_assert_eq(a.status, 429);
    cr_assert_str_eq(a.code, "rate_limited");
    cr_assert_str_eq(a.reason, "wait");
    cr_assert_eq(a.retry_after_ms, 7000);
}

Test(wsanswer, the_wait_of_the_problem_wins_and_a_title_will_do)
{
    struct eg_wsanswer a;
    cr_assert_eq(answer("HTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n"
                        "{\"title\":\"draining\",\"retry_after_seconds\":2}",
                        true, &a),
                 EG_WSANSWER_REFUSED);
    cr_assert_str_eq(a.reason, "draining");
    cr_assert_str_eq(a.code, "");
    cr_assert_eq(a.retry_after_ms, 2000);
}

Test(wsanswer, pages_of_proxies)
{
    struct eg_wsanswer a;
    cr_assert_eq(whole("HTTP/1.0 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", &a),
                 EG_WSANSWER_REFUSED);
    cr_assert_eq(a.status, 502);
    cr_assert_str_eq(a.reason, "the gateway answered with status 502");
    cr_assert_eq(a.retry_after_ms, -1);
    cr_assert_eq(
        whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n0\r\n\r\n", &a),
        EG_WSANSWER_REFUSED);
    cr_assert_eq(a.status, 200);
    /* A date instead of seconds is no wait that is known. */
    cr_assert_eq(answer("HTTP/1.1 503 x\r\nRetry-After: Wed, 21 Oct\r\nContent-Length: 0\r\n\r\n",
                        false, &a),
                 EG_WSANSWER_REFUSED);
    cr_assert_eq(a.retry_after_ms, -1);
}

Test(wsanswer, what_does_not_end)
{
    static char page[EG_WSANSWER_MAX + 64];
    struct eg_wsanswer a;
    cr_assert_eq(answer("", true, &a), EG_WSANSWER_BROKEN);
    cr_assert_str_eq(a.reason, "connection closed");
    cr_assert_eq(answer("HTTP/1.1 200 OK\r\nDate", true, &a), EG_WSANSWER_BROKEN);
    cr_assert_str_eq(a.reason, "no answer that HTTP knows");
    memset(page, 'x', sizeof page - 1);
    cr_assert_eq(answer(page, false, &a), EG_WSANSWER_BROKEN);
    memcpy(page, "HTTP/1.1 200 OK\r\n\r\n",
           19); /* no length: until the connection ends, or enough came */
    cr_assert_eq(answer(page, false, &a), EG_WSANSWER_REFUSED);
    page[1000] = '\0';
    cr_assert_eq(answer(page, false, &a), EG_WSANSWER_MORE);
    cr_assert_eq(answer(page, true, &a), EG_WSANSWER_REFUSED);
}
