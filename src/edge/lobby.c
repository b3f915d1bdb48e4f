#include "edge/lobby.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/metrics.h"

#define TICK_MS 200
#define ACCEPT_BURST 32 /* newcomers taken at a time */
#define EVENTS 64
#define LINGER_MS 1000       /* for a peer to stop sending after it was answered */
#define LINGER_BYTES 1048576 /* read away meanwhile */

/* A socket whose request head is not complete, or is and waits for the library to take it, or that
 * was answered and leaves. */
struct visitor {
    int fd;
    bool leaving;
    size_t thrown; /* bytes read away while leaving */
    bool counted;  /* by eg_limits_knock */
    bool watched;  /* by epoll */
    int64_t since_ms;
    struct sockaddr_in6 peer; /* or the start of it */
    socklen_t peer_n;
    char addr[INET6_ADDRSTRLEN];
    struct visitor *prev, *next;
};

EG_MUTEX(left);

/* Belongs to the thread that accepts, but for what says otherwise. */
struct eg_lobby {
    struct eg_lobby_config config;
    int64_t deadline_ms;               /* atomic */
    int stands, waking;                /* atomic */
    int listener, epoll, timer, event; /* descriptors; -1 none */
    int reserve;                       /* given up when there are no others */
    bool ticking, paused, raised;
    unsigned waiting, readies, leaving; /* lengths of the lists below */
    struct visitor *waits;              /* oldest first */
    struct visitor *ready;              /* oldest first */
    struct visitor *leaves;             /* oldest first */
    struct left_mutex lock;
    struct visitor *left EG_GUARDED_BY(left_mutex); /* to be added to leaves */
    char head[EG_LOBBY_HEAD_MAX + 1];
};

static _Thread_local struct eg_lobby *this_lobby;

/* epoll_data of the lobby's own descriptors; those of visitors are their pointers. */
static char tag_listener, tag_timer, tag_event;

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static bool watch(struct eg_lobby *g, int fd, uint32_t events, void *tag)
{
    struct epoll_event e = {.events = events, .data = {.ptr = tag}};
    return epoll_ctl(g->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

enum eg_err eg_lobby_new(const struct eg_lobby_config *config, struct eg_lobby **out)
{
    struct eg_lobby *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return EG_ENOMEM;
    }
    g->config = *config;
    g->deadline_ms = config->deadline_ms;
    left_init(&g->lock);
    g->listener = -1;
    g->reserve = open_reserve();
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    g->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    g->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (g->reserve < 0 || g->epoll < 0 || g->timer < 0 || g->event < 0 ||
        !watch(g, g->timer, EPOLLIN, &tag_timer) || !watch(g, g->event, EPOLLIN, &tag_event)) {
        eg_lobby_free(g);
        return EG_EIO;
    }
    *out = g;
    return EG_OK;
}

void eg_lobby_deadline(struct eg_lobby *g, int64_t deadline_ms)
{
    __atomic_store_n(&g->deadline_ms, deadline_ms, __ATOMIC_RELAXED);
}

void eg_lobby_enter(struct eg_lobby *g)
{
    this_lobby = g;
}

bool eg_lobby_stands(struct eg_lobby *g)
{
    return __atomic_load_n(&g->stands, __ATOMIC_ACQUIRE) != 0;
}

static void raise_event(struct eg_lobby *g)
{
    const uint64_t one = 1;
    if (write(g->event, &one, sizeof one) < 0) {
        return; /* full: raised already */
    }
}

void eg_lobby_wake(struct eg_lobby *g)
{
    __atomic_store_n(&g->waking, 1, __ATOMIC_RELEASE);
    raise_event(g);
}

/* Takes v off the list it waits in and lets its address go. Its socket stays open. */
static void release(struct eg_lobby *g, struct visitor *v)
{
    if (v->watched) {
        epoll_ctl(g->epoll, EPOLL_CTL_DEL, v->fd, NULL);
    }
    DL_DELETE(g->waits, v);
    g->waiting--;
    if (v->counted) {
        eg_limits_knocked(g->config.limits, v->addr);
        v->counted = false;
    }
}

static void dismiss(struct eg_lobby *g, struct visitor *v)
{
    release(g, v);
    close(v->fd);
    free(v);
}

void eg_lobby_free(struct eg_lobby *g)
{
    if (g == NULL) {
        return;
    }
    while (g->waits != NULL) {
        dismiss(g, g->waits);
    }
    left_unshared(&g->lock);
    DL_CONCAT(g->ready, g->leaves);
    DL_CONCAT(g->ready, g->left);
    while (g->ready != NULL) {
        struct visitor *v = g->ready;
        DL_DELETE(g->ready, v);
        close(v->fd);
        free(v);
    }
    close_fd(&g->listener);
    close_fd(&g->reserve);
    close_fd(&g->epoll);
    close_fd(&g->timer);
    close_fd(&g->event);
    left_destroy(&g->lock);
    free(g);
}

static void tick(struct eg_lobby *g, bool on)
{
    const struct timespec interval = {0, TICK_MS * 1000000L};
    const struct itimerspec spec = {on ? interval : (struct timespec){0, 0},
                                    on ? interval : (struct timespec){0, 0}};
    if (g->ticking != on && timerfd_settime(g->timer, 0, &spec, NULL) == 0) {
        g->ticking = on;
    }
}

/* Stops or goes on taking newcomers. */
static void pause_accepting(struct eg_lobby *g, bool pause)
{
    struct epoll_event e = {.events = pause ? 0 : EPOLLIN, .data = {.ptr = &tag_listener}};
    if (g->paused != pause && epoll_ctl(g->epoll, EPOLL_CTL_MOD, g->listener, &e) == 0) {
        g->paused = pause;
    }
}

/* Answers and closes. What was received is read first: closing over unread bytes would reset the
 * connection and lose the answer. */
static void turn_away(struct eg_lobby *g, struct visitor *v, int status, const char *detail)
{
    const struct eg_refusal why = {status, EG_CODE_invalid_request, detail, NULL};
    struct eg_buf answer = {0};
    release(g, v);
    if (recv(v->fd, g->head, sizeof g->head, MSG_DONTWAIT) > 0) {
        eg_refusal_write(&why, &answer);
        if (answer.err == EG_OK) {
            (void)!send(v->fd, answer.p, answer.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        eg_buf_free(&answer);
    }
    eg_log_limited(EG_LOG_INFO, "http.refused", "addr=%s" EG_F "status=%d" EG_F "why=%s", v->addr,
                   status, detail);
    close(v->fd);
    free(v);
}

/* Looks at what v has sent, without taking it. over: nothing more will come. True: v waits on. */
static bool examine(struct eg_lobby *g, struct visitor *v, bool over)
{
    const ssize_t n = recv(v->fd, g->head, sizeof g->head, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR) && !over) {
        return true;
    }
    if (n <= 0) {
        dismiss(g, v);
    } else if (eg_header_end(g->head, (size_t)n) != 0) {
        release(g, v);
        DL_APPEND(g->ready, v);
        g->readies++;
    } else if (over) {
        dismiss(g, v);
    } else if ((size_t)n >= sizeof g->head) {
        turn_away(g, v, 431, "the request head is too long");
    } else {
        return true;
    }
    return false;
}

static void see_off(struct eg_lobby *g, struct visitor *v)
{
    DL_DELETE(g->leaves, v); /* NOLINT(clang-analyzer-core.NullDereference): v is in the list */
    g->leaving--;
    epoll_ctl(g->epoll, EPOLL_CTL_DEL, v->fd, NULL);
    close(v->fd);
    free(v);
}

/* Reads away what has come. True: v goes on leaving. */
static bool throw_away(struct eg_lobby *g, struct visitor *v)
{
    for (;;) {
        const ssize_t n = recv(v->fd, g->head, sizeof g->head, MSG_DONTWAIT);
        if (n > 0) {
            v->thrown += (size_t)n;
        }
        if (n < 0 && errno == EAGAIN) {
            return true;
        }
        if (n == 0 || (n < 0 && errno != EINTR) || v->thrown >= LINGER_BYTES) {
            see_off(g, v);
            return false;
        }
    }
}

void eg_lobby_linger(struct eg_lobby *g, int fd)
{
    struct visitor *v = calloc(1, sizeof *v);
    if (v == NULL) {
        close(fd);
        return;
    }
    v->fd = fd;
    v->leaving = true;
    left_lock(&g->lock);
    DL_APPEND(g->left, v);
    left_unlock(&g->lock);
    raise_event(g);
}

/* Begins with those that other threads have sent here. */
static void take_leavers(struct eg_lobby *g, int64_t now)
{
    struct visitor *v = NULL, *next = NULL, *left = NULL;
    left_lock(&g->lock);
    left = g->left;
    g->left = NULL;
    left_unlock(&g->lock);
    DL_FOREACH_SAFE(left, v, next)
    {
        DL_DELETE(left, v);
        v->since_ms = now;
        if (g->leaves != NULL && g->leaving >= g->config.max_waiting) {
            see_off(g, g->leaves);
        }
        DL_APPEND(g->leaves, v);
        g->leaving++;
        if (shutdown(v->fd, SHUT_WR) != 0 || !watch(g, v->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, v)) {
            see_off(g, v);
        } else if (throw_away(g, v)) {
            tick(g, true);
        }
    }
}

static void expire(struct eg_lobby *g, int64_t now)
{
    const int64_t deadline_ms = __atomic_load_n(&g->deadline_ms, __ATOMIC_RELAXED);
    while (g->waits != NULL && now - g->waits->since_ms >= deadline_ms) {
        turn_away(g, g->waits, 408, "the request did not arrive in time");
    }
    while (g->leaves != NULL && now - g->leaves->since_ms >= LINGER_MS) {
        see_off(g, g->leaves);
    }
    pause_accepting(g, false);
    if (g->waits == NULL && g->leaves == NULL) {
        tick(g, false);
    }
}

static void address_text(const struct sockaddr_storage *sa, char out[INET6_ADDRSTRLEN])
{
    const void *raw = sa->ss_family == AF_INET6
                          ? (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr
                          : (const void *)&((const struct sockaddr_in *)sa)->sin_addr;
    if ((sa->ss_family != AF_INET && sa->ss_family != AF_INET6) ||
        inet_ntop(sa->ss_family, raw, out, INET6_ADDRSTRLEN) == NULL) {
        snprintf(out, INET6_ADDRSTRLEN, "unknown");
    }
}

/* A new socket: counted, looked at, and watched if its head is not there yet. Takes fd. */
static void admit(struct eg_lobby *g, int fd, const struct sockaddr_storage *sa, socklen_t n,
                  int64_t now)
{
    struct eg_limits *limits = g->config.limits;
    struct visitor *v = calloc(1, sizeof *v);
    if (v == NULL) {
        close(fd);
        return;
    }
    v->fd = fd;
    v->since_ms = now;
    v->peer_n = n < sizeof v->peer ? n : sizeof v->peer;
    memcpy(&v->peer, sa, v->peer_n);
    address_text(sa, v->addr);
    if (limits != NULL &&
        (g->config.is_proxy == NULL || !g->config.is_proxy(g->config.arg, v->addr))) {
        if (!eg_limits_knock(limits, v->addr, now)) {
            eg_metric_add(EG_M_connections_refused_total, 1);
            eg_log_limited(EG_LOG_WARN, "http.handshakes", "addr=%s" EG_F "why=too many unfinished",
                           v->addr);
            close(fd);
            free(v);
            return;
        }
        v->counted = true;
    }
    if (g->waiting >= g->config.max_waiting) {
        dismiss(g, g->waits);
    }
    DL_APPEND(g->waits, v);
    g->waiting++;
    if (!examine(g, v, false)) {
        return;
    }
    /* edge-triggered, but what came since is told at once */
    v->watched = watch(g, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, v);
    if (!v->watched) {
        dismiss(g, v);
        return;
    }
    tick(g, true);
}

/* No descriptor is left: takes the newcomer with the one in reserve and closes it. */
static void refuse_for_want(struct eg_lobby *g)
{
    eg_log_limited(EG_LOG_ERROR, "http.descriptors", "why=%s", strerror(errno));
    close_fd(&g->reserve);
    const int fd = accept4(g->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        eg_metric_add(EG_M_connections_refused_total, 1);
    }
    g->reserve = open_reserve();
    pause_accepting(g, true);
    tick(g, true);
}

static void accept_burst(struct eg_lobby *g, int64_t now)
{
    for (int i = 0; i < ACCEPT_BURST && g->readies < ACCEPT_BURST; i++) {
        struct sockaddr_storage sa = {0};
        socklen_t n = sizeof sa;
        const int fd =
            accept4(g->listener, (struct sockaddr *)&sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(g, fd, &sa, n, now);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            refuse_for_want(g);
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

/* Puts the lobby in the place of the listening socket. False: it stays as it was. */
static bool take_over(struct eg_lobby *g, int fd)
{
    g->listener = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (g->listener < 0) {
        return false;
    }
    const int flags = fcntl(g->listener, F_GETFL);
    if (flags < 0 || fcntl(g->listener, F_SETFL, flags | O_NONBLOCK) < 0 ||
        !watch(g, g->listener, EPOLLIN, &tag_listener) || dup3(g->epoll, fd, O_CLOEXEC) < 0) {
        close_fd(&g->listener);
        return false;
    }
    __atomic_store_n(&g->stands, 1, __ATOMIC_RELEASE);
    return true;
}

/* Hands the oldest socket with a complete head to the library, the way accept does. */
static int hand_over(struct eg_lobby *g, struct sockaddr *addr, socklen_t *n)
{
    struct visitor *v = g->ready;
    const int fd = v->fd;
    DL_DELETE(g->ready, v);
    g->readies--;
    if (addr != NULL) {
        memcpy(addr, &v->peer, *n < v->peer_n ? *n : v->peer_n);
        *n = v->peer_n;
    }
    free(v);
    return fd;
}

static void drain(int fd)
{
    uint64_t n;
    if (read(fd, &n, sizeof n) < 0) {
        return;
    }
}

static void serve(struct eg_lobby *g)
{
    struct epoll_event events[EVENTS];
    const int n = epoll_wait(g->epoll, events, EVENTS, 0);
    const int64_t now = eg_clock_mono_ms();
    bool newcomers = false, late = false, called = false;
    for (int i = 0; i < n; i++) {
        void *tag = events[i].data.ptr;
        if (tag == &tag_listener) {
            newcomers = true;
        } else if (tag == &tag_timer) {
            drain(g->timer);
            late = true;
        } else if (tag == &tag_event) {
            drain(g->event);
            g->raised = false;
            called = true;
        } else if (((struct visitor *)tag)->leaving) {
            (void)throw_away(g, tag);
        } else {
            (void)examine(g, tag, (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
        }
    }
    /* Last, since these may free visitors that have an event in the list above. */
    if (newcomers) {
        accept_burst(g, now);
    }
    if (called) {
        take_leavers(g, now);
    }
    if (late) {
        expire(g, now);
    }
}

static int lobby_accept(struct eg_lobby *g, struct sockaddr *addr, socklen_t *n)
{
    int fd = -1;
    if (g->ready == NULL) {
        serve(g);
    }
    if (g->ready != NULL) {
        fd = hand_over(g, addr, n);
    }
    /* so that the library calls again */
    if ((g->ready != NULL && !g->raised) || __atomic_load_n(&g->waking, __ATOMIC_ACQUIRE) != 0) {
        raise_event(g);
        g->raised = true;
    }
    if (fd < 0) {
        errno = EAGAIN;
    }
    return fd;
}

/*
 * Stands before the C library's for the whole program. Threads that never entered a lobby get what
 * they asked for. It has its own name in C because the header declares accept with a union.
 */
__attribute__((visibility("default"))) int eg_lobby_accept(int fd, struct sockaddr *addr,
                                                           socklen_t *n) __asm__("accept");

int eg_lobby_accept(int fd, struct sockaddr *addr, socklen_t *n)
{
    struct eg_lobby *g = this_lobby;
    if (g != NULL && (eg_lobby_stands(g) || take_over(g, fd))) {
        return lobby_accept(g, addr, n);
    }
    return accept4(fd, addr, n, 0);
}
