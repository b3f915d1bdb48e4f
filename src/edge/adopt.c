/*
 * adopt.c - see adopt.h. What this relies on, in libcivetweb 1.15 and later; the start-up test
 * (selftest.c) proves it against the library that is loaded, and a nonce proves it for each socket:
 *
 *  1. The library receives with recv(), looked up among the executable's symbols first, on the
 *     worker thread that runs the handlers, and on no other descriptor in between. So the
 *     descriptor of a thread's last recv() is that of its connection.
 *  2. It keeps a socket by its number. dup2() of something else over that number changes what it
 *     reads, writes and closes from then on.
 *  3. After the 101 it calls the ready handler, then reads frames and gives them to the data
 *     handler until that returns 0, then calls the close handler, and touches the socket only to
 *     shut down and close its number. All on one thread.
 *  4. It reads nothing from the socket between the request head and the ready handler. What it has
 *     received by then is the head, and what came in the same packets: more than the head is
 *     refused before the upgrade (eg_adopt_beyond_head).
 *  5. The socket is non-blocking (lobby.c made it so) and has TCP_NODELAY (an option asks for it).
 *  6. It writes the 101 with send(), in pieces: all but the last, which ends with the blank line,
 * are held back in the socket, so that the client is not woken twice. Were it to write otherwise,
 *     the 101 would still go out whole, as it does when the connection ends on another path.
 *  7. Header lines renamed in the request are not found by it: so it grants no extension and picks
 *     the subprotocol it is shown (upgrade.c).
 *
 * Happy path: ready: the connection's descriptor is duplicated; an eventfd loaded with a random
 * nonce is put in its place. data: a binary frame with the nonce arrives (recv gives what it read
 * from the stand-in the head of a frame), so the library reads the stand-in: it was the right
 * descriptor, and the library held no bytes of the client. close: the duplicate goes to the sink.
 * A plain request, which the library answers but does not read from again, gets one end of a socket
 * pair instead, and the nonce has to come out at the other.
 *
 * Failure modes: the client is gone already (getpeername fails, or it takes no head of a stream);
 * no descriptor left; anything but the nonce arrives. The duplicate is closed, the library closes
 * the rest; all but the first are counted and logged as a fault.
 */
#include "edge/adopt.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"

#define NONCE_BYTES 8 /* what an eventfd holds */
#define FRAME_BYTES (2 + NONCE_BYTES)
#define FRAME_BINARY 0x82 /* FIN and opcode 2, RFC 6455 5.2 */
#define HEAD_WRITE_MS 5000

/* How far the connection of this thread is. */
enum state { STATE_PLAIN, STATE_PREPARED, STATE_SWAPPED, STATE_PROVEN, STATE_FAILED };

static _Thread_local struct {
    /* from recv */
    bool serving; /* between eg_adopt_begin and eg_adopt_end */
    int fd;
    uint32_t last; /* the last four bytes received */
    uint32_t said; /* the last four bytes sent while prepared */
    bool head_over;
    size_t beyond;
    /* the adoption */
    enum state state;
    bool gone;     /* fd is a stand-in now */
    bool peerless; /* the client was gone before that, or took no head of a stream */
    int duplicate;
    uint8_t nonce[NONCE_BYTES];
    struct eg_adopted *a;
    struct eg_limits *limits;
    eg_adopt_sink *sink;
    void *sink_arg;
} me = {.fd = -1, .duplicate = -1};

/* The last four bytes of a stream that ended with last before p..end came. */
static uint32_t last_four(uint32_t last, const unsigned char *p, const unsigned char *end)
{
    for (p = end - p > 4 ? end - 4 : p; p < end; p++) {
        last = last << 8 | *p;
    }
    return last;
}

static bool blank_line(uint32_t last)
{
    return last == 0x0d0a0d0a || (last & 0xffff) == 0x0a0a;
}

/* Follows the request head to its end: a blank line, as the library sees one. */
static void follow_head(const unsigned char *p, size_t n)
{
    const unsigned char *const end = p + n;
    while (!me.head_over && p < end) {
        const unsigned char *const line = memchr(p, '\n', (size_t)(end - p));
        const unsigned char *const stop = line != NULL ? line + 1 : end;
        me.last = last_four(me.last, p, stop);
        me.head_over = blank_line(me.last);
        p = stop;
    }
    me.beyond += me.head_over ? (size_t)(end - p) : 0;
}

/*
 * Stands before the C library's for the whole program. Beside receiving it remembers, on the
 * library's worker threads, from where. It has its own name in C because a hardened build declares
 * recv as an inline function.
 */
__attribute__((visibility("default"))) ssize_t eg_adopt_recv(int fd, void *buf, size_t n,
                                                             int flags) __asm__("recv");

/* What the stand-in holds, as the frame that the library waits for. */
static ssize_t recv_nonce(int fd, unsigned char *buf)
{
    const ssize_t got = read(fd, buf + FRAME_BYTES - NONCE_BYTES, NONCE_BYTES);
    if (got != NONCE_BYTES) {
        return got < 0 ? got : 0;
    }
    buf[0] = FRAME_BINARY;
    buf[1] = NONCE_BYTES;
    return FRAME_BYTES;
}

ssize_t eg_adopt_recv(int fd, void *buf, size_t n, int flags)
{
    if (me.state == STATE_SWAPPED && fd == me.fd && n >= FRAME_BYTES) {
        return recv_nonce(fd, buf);
    }
    const ssize_t got = recvfrom(fd, buf, n, flags, NULL, NULL);
    if (me.serving && got > 0 && (flags & MSG_PEEK) == 0) {
        me.fd = fd;
        follow_head(buf, (size_t)got);
    }
    return got;
}

/* The same for sending: the pieces of a 101 go out together. */
__attribute__((visibility("default"))) ssize_t eg_adopt_send(int fd, const void *buf, size_t n,
                                                             int flags) __asm__("send");

ssize_t eg_adopt_send(int fd, const void *buf, size_t n, int flags)
{
    if (me.state == STATE_PREPARED && fd == me.fd) {
        const unsigned char *const p = buf;
        me.said = last_four(me.said, p, p + n);
        flags |= blank_line(me.said) ? 0 : MSG_MORE;
    }
    return sendto(fd, buf, n, flags, NULL, 0);
}

void eg_adopt_begin(void)
{
    eg_adopt_end();
    me.serving = true;
}

int eg_adopt_fd(void)
{
    return me.gone ? -1 : me.fd;
}

size_t eg_adopt_beyond_head(void)
{
    return me.beyond;
}

void eg_adopted_free(struct eg_adopted *a)
{
    if (a == NULL) {
        return;
    }
    if (a->fd >= 0) {
        close(a->fd);
    }
    if (a->token != NULL) {
        explicit_bzero(a->token, strlen(a->token));
    }
    free(a->token);
    free(a->epoch);
    eg_claims_free(&a->claims);
    free(a);
}

void eg_adopt_prepare(struct eg_adopted *a, struct eg_limits *limits, eg_adopt_sink *sink,
                      void *arg)
{
    a->fd = -1;
    me.a = a;
    me.limits = limits;
    me.sink = sink;
    me.sink_arg = arg;
    me.state = STATE_PREPARED;
}

void eg_adopt_end(void)
{
    if (me.a != NULL && me.limits != NULL) {
        eg_limits_leave(me.limits, me.a->addr, false);
    }
    eg_adopted_free(me.a);
    if (me.duplicate >= 0) {
        close(me.duplicate);
    }
    memset(&me, 0, sizeof me);
    me.fd = -1;
    me.duplicate = -1;
}

/* Whether fd is connected to the address that the library gives for this connection. */
static bool is_peer(int fd, const struct mg_connection *conn)
{
    const struct mg_request_info *ri = mg_get_request_info(conn);
    struct sockaddr_storage sa = {0};
    socklen_t n = sizeof sa;
    char text[INET6_ADDRSTRLEN] = "";
    int port = 0;
    if (fd < 0 || ri == NULL || getpeername(fd, (struct sockaddr *)&sa, &n) != 0) {
        return false;
    }
    if (sa.ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)&sa;
        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        port = ntohs(four->sin_port);
    } else if (sa.ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&sa;
        inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
        port = ntohs(six->sin6_port);
    }
    return port == ri->remote_port && strcmp(text, ri->remote_addr) == 0;
}

/* Where the numbers of duplicates begin: high, where there is room for high numbers. */
static int duplicate_base(void)
{
    static int known; /* atomic */
    int base = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (base == 0) {
        struct rlimit limit = {0};
        const bool roomy =
            getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 >= (rlim_t)EG_ADOPT_FD_BASE;
        base = roomy ? EG_ADOPT_FD_BASE : 3;
        __atomic_store_n(&known, base, __ATOMIC_RELAXED);
    }
    return base;
}

/*
 * Puts stand_in in the place of the connection's descriptor, which lives on as me.duplicate. Takes
 * stand_in; -1: there is none. False: nothing was changed.
 */
static bool swap(const struct mg_connection *conn, int stand_in)
{
    me.peerless = !is_peer(me.fd, conn);
    if (!me.peerless && stand_in >= 0) {
        me.duplicate = fcntl(me.fd, F_DUPFD_CLOEXEC, duplicate_base());
        me.gone = me.duplicate >= 0 && dup3(stand_in, me.fd, O_CLOEXEC) >= 0;
    }
    if (!me.gone && me.duplicate >= 0) {
        close(me.duplicate);
        me.duplicate = -1;
    }
    if (stand_in >= 0) {
        close(stand_in);
    }
    return me.gone;
}

/* An eventfd that holds me.nonce, made here; -1 without a descriptor. */
static int nonce_holder(void)
{
    uint64_t nonce = 0;
    eg_random(&nonce, sizeof nonce);
    nonce = nonce >> 1 | 1; /* neither nothing nor more than it takes */
    memcpy(me.nonce, &nonce, sizeof nonce);
    const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd >= 0 && write(fd, &nonce, sizeof nonce) != (ssize_t)sizeof nonce) {
        close(fd);
        return -1;
    }
    return fd;
}

void eg_adopt_ready(struct mg_connection *conn, void *arg)
{
    (void)arg;
    if (me.state == STATE_PREPARED && swap(conn, nonce_holder())) {
        me.state = STATE_SWAPPED;
    } else {
        me.state = STATE_FAILED;
        mg_disable_connection_keep_alive(conn); /* the library reads no frame then */
    }
}

int eg_adopt_data(struct mg_connection *conn, int bits, char *data, size_t n, void *arg)
{
    (void)conn;
    (void)arg;
    const bool mine = me.state == STATE_SWAPPED && bits == FRAME_BINARY && n == NONCE_BYTES &&
                      memcmp(data, me.nonce, NONCE_BYTES) == 0;
    me.state = mine ? STATE_PROVEN : STATE_FAILED;
    return 0;
}

/* Gives the duplicate to a, which is the caller's now. */
static struct eg_adopted *take_proven(void)
{
    struct eg_adopted *a = me.a;
    a->fd = me.duplicate;
    me.duplicate = -1;
    me.a = NULL;
    eg_metric_add(EG_M_adoptions_proven_total, 1);
    return a;
}

void eg_adopt_close(const struct mg_connection *conn, void *arg)
{
    (void)conn;
    (void)arg;
    if (me.state == STATE_PROVEN && me.a != NULL) {
        me.sink(me.sink_arg, take_proven());
    } else if (me.peerless) {
        eg_log_limited(EG_LOG_DEBUG, "adopt.gone", "addr=%s", me.a != NULL ? me.a->addr : "");
    } else {
        eg_metric_add(EG_M_adoptions_failed_total, 1);
        eg_log_limited(EG_LOG_WARN, "adopt.failed", "addr=%s" EG_F "why=%s",
                       me.a != NULL ? me.a->addr : "",
                       me.gone ? "the stand-in was not what the library read" : "no descriptor");
    }
    eg_adopt_end();
}

/* Writes all of s within the time allowed. */
static bool write_all(int fd, struct eg_slice s)
{
    const int64_t until = eg_clock_mono_ms() + HEAD_WRITE_MS;
    while (s.n > 0) {
        const ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        const int64_t left = until - eg_clock_mono_ms();
        if (n >= 0) {
            s.p += n;
            s.n -= (size_t)n;
        } else if ((errno != EAGAIN && errno != EINTR) || left <= 0) {
            return false;
        } else {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            (void)poll(&p, 1, (int)left);
        }
    }
    return true;
}

enum eg_err eg_adopt_plain(struct mg_connection *conn, struct eg_slice head, struct eg_adopted *a)
{
    enum eg_err err = EG_EIO;
    uint8_t back[NONCE_BYTES + 1] = {0};
    int pair[2] = {-1, -1};
    mg_disable_connection_keep_alive(conn);
    if (!me.serving || me.state != STATE_PLAIN ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0 ||
        !swap(conn, pair[0])) {
        goto out;
    }
    eg_random(me.nonce, sizeof me.nonce);
    if (mg_write(conn, me.nonce, sizeof me.nonce) != NONCE_BYTES ||
        recvfrom(pair[1], back, sizeof back, MSG_DONTWAIT, NULL, NULL) != NONCE_BYTES ||
        memcmp(back, me.nonce, NONCE_BYTES) != 0) {
        goto out;
    }
    me.peerless = !write_all(me.duplicate, head);
    if (me.peerless) {
        goto out;
    }
    me.a = a;
    (void)take_proven();
    err = EG_OK;
out:
    me.state = STATE_FAILED; /* once a connection */
    if (err != EG_OK && !me.peerless) {
        eg_metric_add(EG_M_adoptions_failed_total, 1);
        eg_log_limited(EG_LOG_WARN, "adopt.failed", "addr=%s" EG_F "why=event stream", a->addr);
    }
    if (pair[1] >= 0) {
        close(pair[1]);
    }
    return err;
}

int eg_adopt_unread(long long body_bytes)
{
    const int fd = eg_adopt_fd();
    if (fd < 0 || body_bytes <= 0 || me.beyond >= (unsigned long long)body_bytes) {
        return -1;
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, duplicate_base());
}
