/*
 * transport.c - an exchange's bytes: headers, reading a body within its time, writing, handing a
 * socket to the reactors.
 *
 * Threads: the listeners' workers, one request at a time each.
 * Failure modes: a body that comes too slowly is EG_EAGAIN; a client that takes its answer too
 * slowly makes eg_x_write return false.
 */
#include <civetweb.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "edge/adopt.h"
#include "http/http_int.h"

/* At once, when the descriptor is not known. */
#define BLIND_READ 512
#define BLIND_WRITE 65536
#define WAIT_SLICE_MS 200

const char *eg_x_header(const struct eg_exchange *x, const char *name)
{
    return mg_get_header(x->conn, name);
}

/* Waits for events on fd, in slices so that a stop of the gateway is seen. False: time is over. */
static bool wait_for(struct eg_exchange *x, int fd, short events, int64_t until_ms)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        const int64_t left = until_ms - eg_clock_mono_ms();
        if (left <= 0 || __atomic_load_n(&x->http->stopping, __ATOMIC_ACQUIRE))
            return false;
        if (poll(&p, 1, left < WAIT_SLICE_MS ? (int)left : WAIT_SLICE_MS) > 0)
            return true;
    }
}

/*
 * The library, which writes without buffers of its own here, would wait anew for each byte that a
 * slow client takes. So the socket is written to directly, where it is known, until a deadline.
 */
bool eg_x_write(struct eg_exchange *x, const void *p, size_t n)
{
    const char *at = p;
    const int fd = eg_adopt_fd();
    const int64_t until = eg_clock_mono_ms() + EG_WRITE_MS + (int64_t)n / EG_BYTES_A_MS;
    while (n > 0) {
        const ssize_t sent = fd >= 0 ? send(fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                                     : mg_write(x->conn, at, n < BLIND_WRITE ? n : BLIND_WRITE);
        if (sent > 0) {
            at += sent;
            n -= (size_t)sent;
        } else if (fd < 0 || (errno != EAGAIN && errno != EINTR) ||
                   !wait_for(x, fd, POLLOUT, until)) {
            return false;
        }
    }
    return true;
}

bool eg_x_chunk(struct eg_exchange *x, const void *p, size_t n)
{
    char size[24];
    if (strcmp(x->version, "1.0") == 0)
        return n == 0 || eg_x_write(x, p, n);
    const int len = snprintf(size, sizeof size, "%zx\r\n", n);
    return eg_x_write(x, size, (size_t)len) && (n == 0 || eg_x_write(x, p, n)) &&
           eg_x_write(x, "\r\n", 2);
}

/* How many bytes can be read at once without waiting; waits for the first until the deadline. */
static enum eg_err wait_bytes(struct eg_exchange *x, int fd, int64_t until_ms, size_t *out)
{
    int ready = 0;
    if (!wait_for(x, fd, POLLIN, until_ms))
        return EG_EAGAIN;
    if (ioctl(fd, FIONREAD, &ready) != 0 || ready <= 0)
        return EG_EIO;
    *out = (size_t)ready;
    return EG_OK;
}

static bool read_some(struct eg_exchange *x, size_t n)
{
    char *to = eg_buf_reserve(&x->body, n);
    const int got = to ? mg_read(x->conn, to, n) : -1;
    if (got <= 0 || (size_t)got > n)
        return false;
    x->body.n += (size_t)got;
    return true;
}

/*
 * The library waits as long for each byte as for a whole body. So it is asked only for bytes that
 * are there: first those it holds already, then those that the socket has.
 */
enum eg_err eg_x_read_body(struct eg_exchange *x)
{
    const struct mg_request_info *ri = mg_get_request_info(x->conn);
    const int fd = eg_adopt_fd();
    const int64_t length = ri->content_length;
    const size_t total = length > 0 ? (size_t)length : 0;
    size_t there = eg_adopt_beyond_head();
    if (length > x->settings->max_payload)
        return EG_EFULL;
    const int64_t until = eg_clock_mono_ms() + EG_BODY_MS + (int64_t)total / EG_BYTES_A_MS;
    if (total > there && eg_x_header(x, "Expect") != NULL &&
        !eg_x_write(x, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return EG_EIO;
    while (x->body.n < total) {
        const size_t left = total - x->body.n;
        if (there == 0 && fd >= 0) {
            const enum eg_err err = wait_bytes(x, fd, until, &there);
            if (err != EG_OK)
                return err;
        }
        if (fd < 0)
            there = BLIND_READ;
        const size_t n = there < left ? there : left;
        const size_t before = x->body.n;
        if (eg_clock_mono_ms() >= until)
            return EG_EAGAIN;
        if (!read_some(x, n))
            return x->body.err != EG_OK ? x->body.err : EG_EIO;
        const size_t got = x->body.n - before;
        there -= got < there ? got : there;
    }
    return EG_OK;
}

enum eg_err eg_x_adopt(struct eg_exchange *x, struct eg_slice head, struct eg_adopted *a)
{
    struct eg_listener *l = __atomic_load_n(&x->http->listener[0], __ATOMIC_ACQUIRE);
    return eg_adopt_stream(l, x->conn, head, a);
}
