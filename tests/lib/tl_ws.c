/*
 * tl_ws: a WebSocket client for tests. See tl_ws.h.
 *
 * Threads: one connection, one thread. Owns the socket, the bytes received and not yet returned
 * (`in`), and the message being put together (`msg`).
 * Happy path: bytes are read into `in`; whole frames are taken from its front; data frames are
 * appended to `msg` until FIN.
 * Failure modes: see enum tl_kind. Partial input is kept across a timeout.
 */
#define _GNU_SOURCE 1
#include "tl_ws.h"
#include "tl_ws_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The sample key of RFC 6455 1.3 and the answer it gives there. */
#define TL_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define TL_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

int64_t tl_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int left_ms(int64_t deadline)
{
    int64_t left = deadline - tl_now_ms();
    return left < 0 ? 0 : (int)left;
}

int tl_tcp(const char *host, int port, int local_port, int timeout_ms)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (inet_pton(AF_INET, host ? host : "127.0.0.1", &addr.sin_addr) != 1) {
        errno = EINVAL;
        goto fail;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (local_port) {
        struct sockaddr_in local = {.sin_family = AF_INET,
                                    .sin_port = htons((uint16_t)local_port),
                                    .sin_addr.s_addr = htonl(INADDR_ANY)};
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&local, sizeof local))
            goto fail;
    }
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) && errno != EINPROGRESS)
        goto fail;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, timeout_ms) != 1) {
        errno = ETIMEDOUT;
        goto fail;
    }
    int err = 0;
    socklen_t len = sizeof err;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err) {
        errno = err;
        goto fail;
    }
    return fd;
fail:
    err = errno;
    close(fd);
    errno = err;
    return -1;
}

struct tl_ws *tl_ws_tcp(const char *host, int port, int local_port, int timeout_ms)
{
    int fd = tl_tcp(host, port, local_port, timeout_ms);
    if (fd < 0)
        return NULL;
    struct tl_ws *ws = calloc(1, sizeof *ws);
    if (!ws) {
        close(fd);
        return NULL;
    }
    ws->fd = fd;
    ws->send_timeout_ms = timeout_ms;
    ws->auto_pong = true;
    ws->auto_close = true;
    return ws;
}

bool tl_ws_upgrade_send(struct tl_ws *ws, const struct tl_ws_opts *o)
{
    struct tl_buf b = {0};

    tl_buf_addf(&b, "%s %s %s\r\nHost: %s:%d\r\n", o->method ? o->method : "GET",
                o->path ? o->path : "/ws", o->version ? o->version : "HTTP/1.1",
                o->host ? o->host : "127.0.0.1", o->port);
    tl_buf_addf(&b,
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: %s\r\n",
                TL_KEY);
    if (o->bearer)
        tl_buf_addf(&b, "Authorization: Bearer %s\r\n", o->bearer);
    if (o->offer)
        tl_buf_addf(&b, "Sec-WebSocket-Protocol: %s\r\n", o->offer);
    if (o->origin)
        tl_buf_addf(&b, "Origin: %s\r\n", o->origin);
    tl_buf_addf(&b, "%s\r\n", o->headers ? o->headers : "");
    bool ok = tl_ws_write(ws, b.p, b.len);
    tl_buf_free(&b);
    return ok;
}

int tl_ws_fill(struct tl_ws *ws, int64_t deadline)
{
    if (ws->in_off && ws->in_off == ws->in.len)
        ws->in.len = ws->in_off = 0;
    if (ws->in_off > 65536) {
        memmove(ws->in.p, ws->in.p + ws->in_off, ws->in.len - ws->in_off);
        ws->in.len -= ws->in_off;
        ws->in_off = 0;
    }
    if (!tl_buf_room(&ws->in, 4095))
        return TL_RESET;
    for (;;) {
        ssize_t n = recv(ws->fd, ws->in.p + ws->in.len, ws->in.cap - ws->in.len - 1, 0);
        if (n > 0) {
            ws->in.len += (size_t)n;
            return 1;
        }
        if (n == 0)
            return TL_EOF;
        if (errno != EAGAIN && errno != EINTR) {
            snprintf(ws->error, sizeof ws->error, "recv: %s", strerror(errno));
            return TL_RESET;
        }
        struct pollfd p = {.fd = ws->fd, .events = POLLIN};
        if (poll(&p, 1, left_ms(deadline)) == 0 && left_ms(deadline) == 0)
            return TL_TIMEOUT;
    }
}

struct tl_ws *tl_ws_open(const struct tl_ws_opts *o, int *status)
{
    int timeout_ms = o->timeout_ms ? o->timeout_ms : 10000;
    int rc = TL_RESET;
    char accept[64];
    struct tl_ws *ws = tl_ws_tcp(o->host, o->port, o->local_port, timeout_ms);

    if (ws && tl_ws_upgrade_send(ws, o))
        rc = tl_ws_upgrade_recv(ws, timeout_ms);
    if (rc == 101 && (!tl_ws_header(ws, "Sec-WebSocket-Accept", accept, sizeof accept) ||
                      strcmp(accept, TL_ACCEPT)))
        rc = TL_BAD;
    if (status)
        *status = rc;
    if (rc == 101)
        return ws;
    tl_ws_free(ws);
    return NULL;
}

struct tl_ws *tl_ws_connect(int port)
{
    struct tl_ws_opts o = {.port = port};
    return tl_ws_open(&o, NULL);
}

size_t tl_frame_build(uint8_t *out, unsigned first, const uint8_t mask[4], enum tl_len_form form,
                      const void *payload, size_t len)
{
    size_t n = 0;
    uint8_t m = mask ? 0x80 : 0;

    out[n++] = (uint8_t)first;
    if (form == TL_LEN_AUTO && len < 126) {
        out[n++] = (uint8_t)(m | len);
    } else if (form != TL_LEN_64 && len < 65536) {
        out[n++] = m | 126;
        out[n++] = (uint8_t)(len >> 8);
        out[n++] = (uint8_t)len;
    } else {
        out[n++] = m | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            out[n++] = (uint8_t)((uint64_t)len >> shift);
    }
    if (mask) {
        memcpy(out + n, mask, 4);
        n += 4;
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = ((const uint8_t *)payload)[i];
        out[n + i] = mask ? byte ^ mask[i & 3] : byte;
    }
    return n + len;
}

bool tl_ws_write(struct tl_ws *ws, const void *bytes, size_t len)
{
    int64_t deadline = tl_now_ms() + ws->send_timeout_ms;
    size_t done = 0;

    while (done < len) {
        ssize_t n = send(ws->fd, (const char *)bytes + done, len - done, MSG_NOSIGNAL);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = ws->fd, .events = POLLOUT};
            if (poll(&p, 1, left_ms(deadline)) == 0 && left_ms(deadline) == 0) {
                snprintf(ws->error, sizeof ws->error, "send: no room in time");
                return false;
            }
        } else if (n < 0 && errno != EINTR) {
            snprintf(ws->error, sizeof ws->error, "send: %s", strerror(errno));
            return false;
        }
    }
    return true;
}

bool tl_ws_dribble(struct tl_ws *ws, const void *bytes, size_t len, unsigned pause_us)
{
    for (size_t i = 0; i < len; i++) {
        if (!tl_ws_write(ws, (const char *)bytes + i, 1))
            return false;
        if (pause_us)
            usleep(pause_us);
    }
    return true;
}

bool tl_ws_frame(struct tl_ws *ws, unsigned first, const void *payload, size_t len)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t small[512];
    uint8_t *buf = len + 14 <= sizeof small ? small : malloc(len + 14);

    if (!buf)
        return false;
    size_t n = tl_frame_build(buf, first, mask, TL_LEN_AUTO, payload, len);
    bool ok = tl_ws_write(ws, buf, n);
    if (buf != small)
        free(buf);
    return ok;
}

bool tl_ws_text_n(struct tl_ws *ws, const char *text, size_t len)
{
    return tl_ws_frame(ws, 0x81, text, len);
}

bool tl_ws_text(struct tl_ws *ws, const char *text)
{
    return tl_ws_text_n(ws, text, strlen(text));
}

bool tl_ws_sendf(struct tl_ws *ws, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return false;
    bool ok = tl_ws_text_n(ws, text, (size_t)n);
    free(text);
    return ok;
}

bool tl_ws_close(struct tl_ws *ws, unsigned code, const char *reason)
{
    uint8_t body[125];
    size_t n = 0;

    if (code) {
        body[n++] = (uint8_t)(code >> 8);
        body[n++] = (uint8_t)code;
    }
    if (reason) {
        size_t len = strnlen(reason, 123);
        memcpy(body + n, reason, len);
        n += len;
    }
    return tl_ws_frame(ws, 0x88, body, n);
}

static int bad(struct tl_ws *ws, const char *why)
{
    snprintf(ws->error, sizeof ws->error, "%s", why);
    return TL_BAD;
}

/* Records a received close frame and answers it. */
static int take_close(struct tl_ws *ws, const uint8_t *p, size_t len)
{
    if (len == 1)
        return bad(ws, "close frame with one byte");
    ws->close_code = len ? (p[0] << 8 | p[1]) : TL_CLOSE_NO_CODE;
    if (len > 2) {
        memcpy(ws->close_reason, p + 2, len - 2);
        ws->close_reason[len - 2] = 0;
    }
    if (ws->auto_close)
        tl_ws_frame(ws, 0x88, p, len > 2 ? 2 : len);
    return TL_CLOSE;
}

/* Sets the message to `len` bytes at p, or appends them. */
static void take_data(struct tl_ws *ws, const uint8_t *p, size_t len, bool append)
{
    if (!append)
        ws->msg.len = 0;
    tl_buf_add(&ws->msg, p, len);
}

/* Handles one whole frame. Returns a kind, or 0 when there is nothing to return yet. */
static int take_frame(struct tl_ws *ws, uint8_t b0, const uint8_t *p, size_t len)
{
    int op = b0 & 15;
    bool fin = b0 & 0x80;

    if (op & 8) {
        if (!fin || len > 125)
            return bad(ws, "bad control frame");
        if (op == TL_CLOSE) {
            int rc = take_close(ws, p, len);
            if (!ws->msg_kind)
                take_data(ws, p, len, false);
            return rc;
        }
        if (op != TL_PING && op != TL_PONG)
            return bad(ws, "reserved control opcode");
        if (op == TL_PING && ws->auto_pong)
            return tl_ws_frame(ws, 0x8a, p, len) ? 0 : TL_RESET;
        if (ws->msg_kind)
            return bad(ws, "control frame inside fragments: not supported here");
        take_data(ws, p, len, false);
        return op;
    }
    if (op > TL_BINARY)
        return bad(ws, "reserved data opcode");
    if ((op == 0) != (ws->msg_kind != 0))
        return bad(ws, "continuation out of place");
    take_data(ws, p, len, op == 0);
    if (op)
        ws->msg_kind = op;
    if (!fin)
        return 0;
    op = ws->msg_kind;
    ws->msg_kind = 0;
    return op;
}

int tl_ws_recv(struct tl_ws *ws, int timeout_ms)
{
    int64_t deadline = tl_now_ms() + timeout_ms;
    int rc;

    for (;;) {
        const uint8_t *p = ws->in.p ? ws->in.p + ws->in_off : NULL;
        size_t have = ws->in.len - ws->in_off;
        size_t head = 2;
        uint64_t len = 0;
        bool whole = false;
        if (have >= 2) {
            if (p[1] & 0x80)
                return bad(ws, "masked frame from the server");
            if (p[0] & 0x70)
                return bad(ws, "RSV bit from the server");
            len = p[1] & 0x7f;
            size_t ext = len == 126 ? 2 : len == 127 ? 8 : 0;
            head += ext;
            if (have >= head && ext) {
                len = 0;
                for (size_t i = 0; i < ext; i++)
                    len = len << 8 | p[2 + i];
                if (len < (ext == 2 ? 126u : 65536u))
                    return bad(ws, "length not in its shortest form");
            }
            whole = have >= head && have - head >= len;
        }
        if (whole) {
            ws->in_off += head + (size_t)len;
            rc = take_frame(ws, p[0], p + head, (size_t)len);
            if (rc)
                return rc;
        } else if ((rc = tl_ws_fill(ws, deadline)) < 0) {
            return rc;
        }
    }
}

const char *tl_ws_data(const struct tl_ws *ws)
{
    return ws->msg.p ? (const char *)ws->msg.p : "";
}

size_t tl_ws_len(const struct tl_ws *ws)
{
    return ws->msg.len;
}

int tl_ws_wait_close(struct tl_ws *ws, int timeout_ms)
{
    int64_t deadline = tl_now_ms() + timeout_ms;

    for (;;) {
        int rc = tl_ws_recv(ws, left_ms(deadline));
        if (rc == TL_CLOSE)
            return ws->close_code;
        if (rc == TL_EOF || rc == TL_RESET)
            return TL_CLOSE_ABNORMAL;
        if (rc < 0)
            return rc;
    }
}

bool tl_ws_wait_eof(struct tl_ws *ws, int timeout_ms)
{
    int64_t deadline = tl_now_ms() + timeout_ms;
    int rc;

    while ((rc = tl_ws_fill(ws, deadline)) > 0)
        ws->in_off = ws->in.len;
    return rc == TL_EOF || rc == TL_RESET;
}

int tl_ws_close_code(const struct tl_ws *ws)
{
    return ws->close_code;
}

const char *tl_ws_close_reason(const struct tl_ws *ws)
{
    return ws->close_reason;
}

void tl_ws_auto_pong(struct tl_ws *ws, bool on)
{
    ws->auto_pong = on;
}

void tl_ws_auto_close(struct tl_ws *ws, bool on)
{
    ws->auto_close = on;
}

void tl_ws_send_timeout(struct tl_ws *ws, int timeout_ms)
{
    ws->send_timeout_ms = timeout_ms;
}

int tl_ws_fd(const struct tl_ws *ws)
{
    return ws->fd;
}

int tl_ws_local_port(const struct tl_ws *ws)
{
    struct sockaddr_in addr = {0};
    socklen_t len = sizeof addr;
    return getsockname(ws->fd, (struct sockaddr *)&addr, &len) ? -1 : ntohs(addr.sin_port);
}

size_t tl_ws_pending(const struct tl_ws *ws)
{
    return ws->in.len - ws->in_off;
}

const char *tl_ws_error(const struct tl_ws *ws)
{
    return ws->error;
}

const char *tl_ws_head(const struct tl_ws *ws)
{
    return ws->head ? ws->head : "";
}

const char *tl_ws_body(const struct tl_ws *ws)
{
    return ws->body ? ws->body : "";
}

bool tl_ws_header(const struct tl_ws *ws, const char *name, char *buf, size_t cap)
{
    return ws->head && tl_find_header(ws->head, name, buf, cap);
}

void tl_ws_reset(struct tl_ws *ws)
{
    if (ws) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(ws->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    tl_ws_free(ws);
}

void tl_ws_free(struct tl_ws *ws)
{
    if (!ws)
        return;
    close(ws->fd);
    tl_buf_free(&ws->in);
    tl_buf_free(&ws->msg);
    free(ws->head);
    free(ws->body);
    free(ws);
}
