/*
 * load.c - see load.h.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1 << 18)

static int epfd = -1;

int64_t load_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void load_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("bench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void *grow(void *p, size_t *cap, size_t want)
{
    if (want <= *cap) {
        return p;
    }
    size_t n = *cap ? *cap : 512;
    while (n < want) {
        n *= 2;
    }
    *cap = n;
    p = realloc(p, n);
    if (!p) {
        load_die("out of memory");
    }
    return p;
}

static void watch(struct lc *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epfd, op, c->fd, &e) != 0) {
        load_die("epoll: %s", strerror(errno));
    }
}

void load_flush(struct lc *c)
{
    while (c->out_at < c->out_n && !c->closed) {
        const ssize_t n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            if (!c->waits) {
                c->waits = true;
                watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            }
            return;
        }
        if (n < 0) {
            c->closed = true;
            return;
        }
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_n = 0;
    if (c->waits) {
        c->waits = false;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

void load_bytes(struct lc *c, const void *p, size_t n)
{
    c->out = grow(c->out, &c->out_cap, c->out_n + n);
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
}

/* A masked text frame (RFC 6455 5.2) with a mask of zeros: masking is the client's cost, not the
 * gateway's. */
void load_queue(struct lc *c, const char *text, size_t n)
{
    unsigned char head[14] = {0x81};
    size_t h;
    if (n < 126) {
        head[1] = (unsigned char)(0x80 | n);
        h = 2;
    } else if (n < 65536) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(n >> 8);
        head[3] = (unsigned char)n;
        h = 4;
    } else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) {
            head[2 + i] = (unsigned char)((uint64_t)n >> (56 - 8 * i));
        }
        h = 10;
    }
    load_bytes(c, head, h + 4);
    load_bytes(c, text, n);
}

void load_send(struct lc *c, const char *text, size_t n)
{
    load_queue(c, text, n);
    load_flush(c);
}

void load_sendf(struct lc *c, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    load_send(c, text, (size_t)n);
}

void load_forked(void)
{
    if (epfd >= 0) {
        close(epfd);
    }
    epfd = -1;
}

static void start(struct lc *c, int port, uint32_t from)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(from)};
    const int one = 1;
    if (epfd < 0) {
        epfd = epoll_create1(EPOLL_CLOEXEC);
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        load_die("socket: %s", strerror(errno));
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (from && bind(c->fd, (const struct sockaddr *)&own, sizeof own) != 0) {
        load_die("bind: %s", strerror(errno));
    }
    if (connect(c->fd, (const struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) {
        load_die("connect: %s", strerror(errno));
    }
    c->waits = true;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

void load_connect_bytes(struct lc *c, int port)
{
    start(c, port, 0);
}

void load_connect(struct lc *c, const struct load_target *t)
{
    char request[8192];
    const int n = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s\r\n",
                           t->path, t->port, t->token ? "Authorization: Bearer " : "",
                           t->token ? t->token : "", t->token ? "\r\n" : "");
    load_bytes(c, request, (size_t)n);
    start(c, t->port, t->from);
}

void load_close(struct lc *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_cap = c->out_cap = c->in_n = c->out_n = c->out_at = 0;
}

/* Frames from the gateway: unmasked, whole, text or control. Returns how many bytes were used. */
static size_t frames(struct lc *c)
{
    size_t at = 0;
    const unsigned char *const base = c->in;
    while (c->in_n - at >= 2 && c->fd >= 0) {
        const unsigned char *p = c->in + at;
        size_t h = 2;
        uint64_t n = p[1] & 127;
        if (n == 126) {
            h = 4;
            n = c->in_n - at < h ? UINT64_MAX : (uint64_t)p[2] << 8 | p[3];
        } else if (n == 127) {
            h = 10;
            n = 0;
            for (int i = 0; i < 8 && c->in_n - at >= h; i++) {
                n = n << 8 | p[2 + i];
            }
        }
        if (c->in_n - at < h || c->in_n - at - h < n) {
            break;
        }
        at += h + (size_t)n;
        if ((p[0] & 15) == 1) {
            c->on_text(c, (const char *)p + h, (size_t)n);
            if (c->in != base) {
                return 0; /* closed, perhaps connected anew */
            }
        } else if ((p[0] & 15) == 8) {
            c->closed = true;
            c->close_code = n >= 2 ? (unsigned short)(p[h] << 8 | p[h + 1]) : 0;
        } else if ((p[0] & 15) == 9) {
            static const unsigned char pong[6] = {0x8a, 0x80};
            load_bytes(c, pong, sizeof pong);
            load_flush(c);
        }
    }
    return at;
}

static void take(struct lc *c)
{
    size_t used = 0;
    if (c->on_bytes) {
        const unsigned char *const base = c->in;
        used = c->on_bytes(c, (const char *)c->in, c->in_n);
        if (c->in == base && used) {
            memmove(c->in, c->in + used, c->in_n - used);
            c->in_n -= used;
        }
        return;
    }
    if (!c->open) {
        const char *end = memmem(c->in, c->in_n, "\r\n\r\n", 4);
        if (!end) {
            return;
        }
        if (c->in_n < 12 || memcmp(c->in + 9, "101", 3) != 0) {
            load_die("no upgrade: %.*s", (int)c->in_n, (const char *)c->in);
        }
        used = (size_t)(end - (const char *)c->in) + 4;
        memmove(c->in, c->in + used, c->in_n - used);
        c->in_n -= used;
        c->open = true;
        c->on_open(c);
    }
    used = frames(c);
    if (c->fd >= 0 && used) {
        memmove(c->in, c->in + used, c->in_n - used);
        c->in_n -= used;
    }
}

static void readable(struct lc *c)
{
    static unsigned char shared[READ_BYTES];
    const ssize_t n = recv(c->fd, shared, sizeof shared, 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        c->closed = true;
        watch(c, EPOLL_CTL_DEL, 0);
        return;
    }
    c->in = grow(c->in, &c->in_cap, c->in_n + (size_t)n);
    memcpy(c->in + c->in_n, shared, (size_t)n);
    c->in_n += (size_t)n;
    take(c);
    if (c->fd >= 0 && c->in_n == 0 && c->in_cap > 4096) {
        free(c->in);
        c->in = NULL;
        c->in_cap = 0;
    }
}

static volatile sig_atomic_t signalled;

static void note(int number)
{
    signalled = number;
}

void load_heed_signals(void)
{
    signal(SIGINT, note);
    signal(SIGTERM, note);
}

bool load_run(const bool *stop, int64_t timeout_us)
{
    struct epoll_event e[256];
    const int64_t end = load_now_us() + timeout_us;
    while (!*stop) {
        const int64_t left = end - load_now_us();
        if (left <= 0) {
            return false;
        }
        /* To the microsecond: what is due every half millisecond would else leave in pairs. */
        const struct timespec wait = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
        const int n = epoll_pwait2(epfd, e, 256, &wait, NULL);
        if (signalled) {
            load_die("ended by signal %d", (int)signalled);
        }
        for (int i = 0; i < n; i++) {
            struct lc *c = e[i].data.ptr;
            if (c->fd >= 0 && (e[i].events & EPOLLOUT)) {
                if (c->on_bytes && !c->open) {
                    c->open = true;
                    c->on_open(c);
                }
                load_flush(c);
            }
            if (c->fd >= 0 && (e[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
                readable(c);
            }
        }
    }
    return true;
}

void lat_add(struct lat *l, int64_t us)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 4096;
        l->us = realloc(l->us, l->cap * sizeof *l->us);
        if (!l->us) {
            load_die("out of memory");
        }
    }
    l->us[l->n++] = (uint32_t)us;
}

static int by_value(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double lat_q(struct lat *l, double q)
{
    if (l->n == 0) {
        return 0;
    }
    qsort(l->us, l->n, sizeof *l->us, by_value);
    return l->us[(size_t)((double)(l->n - 1) * q)];
}

void lat_free(struct lat *l)
{
    free(l->us);
    *l = (struct lat){0};
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double load_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[(n - 1) / 2];
}

bool load_has(const char *text, size_t n, const char *part)
{
    return memmem(text, n, part, strlen(part)) != NULL;
}

int64_t load_int(const char *text, size_t n, const char *key)
{
    const char *at = memmem(text, n, key, strlen(key));
    return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}
