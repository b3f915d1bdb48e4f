/*
 * proxy.c - see proxy.h.
 *
 * What it does to a connection, by chance: holds back its start, so that later ones overtake it;
 * hands bytes on late and in small pieces; cuts it in the middle of a frame, with an end or a
 * reset, one side or both; stops passing anything on while both sides believe it is there.
 * Threads: one process, one poll loop. Failure modes: it exits; the test then sees no network.
 */
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINKS 256
#define HELD (256 << 10)

/* One direction: bytes held, from `from` to `to`. */
struct way {
    int from, to;
    unsigned char *held;
    size_t n;
    int64_t due; /* when the next piece goes on, milliseconds */
    bool ended;  /* nothing more comes */
};

struct link {
    bool used, connected;
    int64_t connect_at, stall_until;
    struct way way[2];
};

static struct proxy_state *state;
static struct link links[LINKS];
static uint64_t rng;

static uint64_t chance(uint64_t below)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void count(int64_t *at, int64_t n)
{
    __atomic_add_fetch(at, n, __ATOMIC_SEQ_CST);
}

static bool calm(void)
{
    return __atomic_load_n(&state->calm, __ATOMIC_SEQ_CST) != 0;
}

static void end_link(struct link *l, bool reset)
{
    const struct linger hard = {1, 0};
    for (int i = 0; i < 2; i++) {
        const int fd = l->way[i].from;
        if (fd >= 0) {
            if (reset) {
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
            }
            close(fd);
        }
        free(l->way[i].held);
    }
    *l = (struct link){0};
}

static void take_in(int listener)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    for (int i = 0; i < LINKS; i++) {
        if (!links[i].used) {
            struct link *l = &links[i];
            *l = (struct link){.used = true, .connect_at = now_ms()};
            l->connect_at += calm() || chance(2) ? 0 : (int64_t)chance(150);
            l->way[0] = (struct way){.from = fd, .to = -1, .held = malloc(HELD)};
            l->way[1] = (struct way){.from = -1, .to = fd, .held = malloc(HELD)};
            count(&state->connections, 1);
            return;
        }
    }
    close(fd);
}

static void connect_on(struct link *l)
{
    const int port = __atomic_load_n(&state->target, __ATOMIC_SEQ_CST);
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 ||
        (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)) {
        if (fd >= 0) {
            close(fd);
        }
        count(&state->refused, 1);
        end_link(l, true);
        return;
    }
    l->way[0].to = l->way[1].from = fd;
    l->connected = true;
}

/* Reads what fits. False: this connection is no more. */
static bool fill(struct way *w, int64_t now)
{
    const ssize_t n = recv(w->from, w->held + w->n, HELD - w->n, 0);
    if (n == 0) {
        w->ended = true;
        return true;
    }
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    if (w->n == 0) {
        const bool late = !calm() && chance(4) == 0;
        w->due = now + (late ? (int64_t)chance(60) : 0);
        count(&state->delays, late);
    }
    w->n += (size_t)n;
    count(&state->bytes, n);
    return true;
}

/* Hands on what is due, whole or a piece. False: this connection is no more. */
static bool hand_on(struct way *w, int64_t now)
{
    size_t n = w->n;
    if (n == 0 || w->due > now) {
        return true;
    }
    if (!calm() && chance(8) == 0) {
        n = 1 + chance(n);
        w->due = now + (int64_t)chance(10);
        count(&state->pieces, 1);
    }
    const ssize_t sent = send(w->to, w->held, n, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
    }
    w->n -= (size_t)sent;
    memmove(w->held, w->held + sent, w->n);
    return true;
}

/* What a bad network does now and then. True: the connection was cut. */
static bool mishap(struct link *l, int64_t now)
{
    if (calm() || chance(2000) != 0) {
        return false;
    }
    switch (chance(3)) {
    case 0:
        count(&state->stalls, 1);
        l->stall_until = now + 50 + (int64_t)chance(600);
        return false;
    case 1:
        count(&state->resets, 1);
        end_link(l, true);
        return true;
    default:
        count(&state->cuts, 1);
        end_link(l, false);
        return true;
    }
}

static void serve_link(struct link *l, int64_t now)
{
    if (!l->connected) {
        if (l->connect_at <= now) {
            connect_on(l);
        }
        return;
    }
    if (mishap(l, now) || l->stall_until > now) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct way *w = &l->way[i];
        const bool whole = (w->ended || w->n == HELD || fill(w, now)) && hand_on(w, now);
        if (!whole || (w->ended && w->n == 0)) {
            end_link(l, false);
            return;
        }
    }
}

static void run(int listener)
{
    static struct pollfd p[2 * LINKS + 1];
    for (;;) {
        nfds_t n = 0;
        p[n++] = (struct pollfd){.fd = listener, .events = POLLIN};
        bool soon = false;
        for (int i = 0; i < LINKS; i++) {
            struct link *l = &links[i];
            for (int k = 0; l->used && l->connected && k < 2; k++) {
                const bool room = l->way[k].n < HELD && !l->way[k].ended;
                p[n++] = (struct pollfd){.fd = l->way[k].from, .events = room ? POLLIN : 0};
            }
            soon = soon ||
                   (l->used && (!l->connected || l->stall_until || l->way[0].n || l->way[1].n));
        }
        poll(p, n, soon ? 1 : 20);
        if (p[0].revents & POLLIN) {
            take_in(listener);
        }
        const int64_t now = now_ms();
        for (int i = 0; i < LINKS; i++) {
            if (links[i].used) {
                serve_link(&links[i], now);
            }
        }
    }
}

pid_t proxy_start(struct proxy_state *shared, uint64_t seed, int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 256) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) != 0) {
        return -1;
    }
    *port = ntohs(at.sin_port);
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        state = shared;
        rng = seed;
        run(fd);
    }
    close(fd);
    return pid;
}
