/*
 * adopt_churn.c - proves that every socket taken over from the HTTP library is the one it is taken
 * for, while clients reset, half-close, come back from the same port, send too early or too slowly.
 *
 * A listener on port 0 whose reactor is a thread that sends back what it receives, after it has
 * compared the peer's port with the one the client says it has. Client threads go through random
 * behaviours; every answer is checked. At the end nothing may be left: no descriptor, no count.
 *
 * ADOPT_CYCLES (4000), ADOPT_THREADS (8), ADOPT_SEED. Exit 0: all held.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <civetweb.h>

#include "base/log.h"
#include "base/metrics.h"
#include "edge/adopt.h"
#include "edge/listener.h"

#define WAIT_MS 20000
#define ID_BYTES 24
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static int faults;                              /* atomic */
static long cycles_left;                        /* atomic */
static long by_kind[16], refused_early, echoed; /* atomic */
static uint16_t port;
static int echo_epoll = -1;
static struct eg_limits *limits;

static void fault(const char *what, const char *detail)
{
    if (__atomic_add_fetch(&faults, 1, __ATOMIC_RELAXED) <= 10) {
        fprintf(stderr, "fault: %s: %s\n", what, detail);
    }
}

/* --- the echoing end ----------------------------------------------------------------------- */

struct echo {
    int fd;
    uint16_t peer_port;
    bool named; /* the first message was checked */
    char addr[64];
};

static void echo_close(struct echo *e)
{
    eg_limits_leave(limits, e->addr, false);
    epoll_ctl(echo_epoll, EPOLL_CTL_DEL, e->fd, NULL);
    close(e->fd);
    free(e);
}

/* Stands for the reactors: the listener hands its sockets here. */
void eg_reactors_adopt(struct eg_reactors *rs, struct eg_adopted *a)
{
    (void)rs;
    struct sockaddr_in sa = {0};
    socklen_t n = sizeof sa;
    struct echo *e = calloc(1, sizeof *e);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = e}};
    e->fd = a->fd;
    memcpy(e->addr, a->addr, sizeof e->addr);
    if (getpeername(e->fd, (struct sockaddr *)&sa, &n) == 0) {
        e->peer_port = ntohs(sa.sin_port);
    }
    if (a->refuse != EG_CODE_NONE || a->token == NULL || !a->origin_allowed) {
        fault("adopted", "refused, or without its token");
    }
    struct eg_adopted *taken = malloc(sizeof *taken);
    *taken = *a; /* what it holds; the struct stays the caller's */
    taken->fd = -1;
    eg_adopted_free(taken);
    epoll_ctl(echo_epoll, EPOLL_CTL_ADD, e->fd, &event);
}

static void echo_serve(struct echo *e)
{
    char buf[256];
    const ssize_t n = recvfrom(e->fd, buf, sizeof buf, MSG_DONTWAIT, NULL, NULL);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        echo_close(e);
        return;
    }
    if (!e->named && n >= 5) {
        char text[6] = {0};
        memcpy(text, buf, 5);
        if (e->peer_port != 0 && strtol(text, NULL, 10) != e->peer_port) {
            fault("identity", "the bytes of another client");
        }
        e->named = true;
    }
    if (send(e->fd, buf, (size_t)n, MSG_NOSIGNAL) != n) {
        echo_close(e);
    }
}

static int stopping; /* atomic */

static void *echo_main(void *arg)
{
    struct epoll_event events[64];
    (void)arg;
    while (__atomic_load_n(&stopping, __ATOMIC_ACQUIRE) == 0) {
        const int n = epoll_wait(echo_epoll, events, 64, 50);
        for (int i = 0; i < n; i++) {
            echo_serve(events[i].data.ptr);
        }
    }
    return NULL;
}

/* --- clients ------------------------------------------------------------------------------- */

struct client {
    int fd;
    uint16_t own_port;
    unsigned seed;
    bool offer;
};

static int dial(uint16_t from)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(from), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int one = 1;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (from != 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    sa.sin_port = htons(port);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool open_client(struct client *c, uint16_t from)
{
    struct sockaddr_in sa = {0};
    socklen_t n = sizeof sa;
    c->fd = dial(from);
    if (c->fd < 0) {
        return false;
    }
    getsockname(c->fd, (struct sockaddr *)&sa, &n);
    c->own_port = ntohs(sa.sin_port);
    return true;
}

static void reset(struct client *c)
{
    const struct linger now = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
}

static size_t request(struct client *c, char out[600])
{
    c->offer = rand_r(&c->seed) % 2 == 0;
    return (size_t)snprintf(out, 600,
                            "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: " KEY "\r\nAuthorization: Bearer t%u\r\n"
                            "Sec-WebSocket-Extensions: permessage-deflate\r\n%s\r\n",
                            c->own_port,
                            c->offer ? "Sec-WebSocket-Protocol: ebbgate.v1, bearer.x\r\n" : "");
}

/* Bytes until the text ends with end, or n of them; -1 when the peer closed before that. */
static int receive(struct client *c, char *out, size_t n, const char *end)
{
    size_t got = 0;
    while (got < n) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, WAIT_MS) != 1) {
            fault("receive", "no answer in time");
            return -1;
        }
        const ssize_t r = recvfrom(c->fd, out + got, end != NULL ? 1 : n - got, 0, NULL, NULL);
        if (r <= 0) {
            return -1;
        }
        got += (size_t)r;
        if (end != NULL && got >= strlen(end) &&
            memcmp(out + got - strlen(end), end, strlen(end)) == 0) {
            break;
        }
    }
    return (int)got;
}

static bool send_all(struct client *c, const char *p, size_t n)
{
    return send(c->fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* Reads the answer to the upgrade: its status, 0 when the peer closed. */
static int status_of(struct client *c)
{
    char head[1200] = "";
    const int n = receive(c, head, sizeof head - 1, "\r\n\r\n");
    if (n < 0) {
        return 0;
    }
    head[n] = '\0';
    if (strncmp(head, "HTTP/1.1 ", 9) != 0) {
        fault("answer without a status line", head);
        return 0;
    }
    const int status = atoi(head + 9);
    const bool granted = strcasestr(head, "\r\nSec-WebSocket-Protocol: ebbgate.v1\r\n") != NULL;
    if (status == 101 &&
        (granted != c->offer || strcasestr(head, "\r\nSec-WebSocket-Extensions") != NULL ||
         strstr(head, ACCEPT) == NULL)) {
        fault("answer", head);
    }
    if (status >= 400 && strcasestr(head, "\r\nContent-Length: ") == NULL) {
        fault("incomplete refusal", head);
    }
    return status;
}

static void make_id(struct client *c, char id[ID_BYTES + 1])
{
    snprintf(id, ID_BYTES + 1, "%05u:%08x:%08x.", c->own_port, (unsigned)rand_r(&c->seed),
             (unsigned)rand_r(&c->seed));
}

static void expect_back(struct client *c, const char *id)
{
    char back[ID_BYTES + 1] = "";
    if (receive(c, back, ID_BYTES, NULL) != ID_BYTES || memcmp(back, id, ID_BYTES) != 0) {
        fault("echo", back);
    } else {
        __atomic_add_fetch(&echoed, 1, __ATOMIC_RELAXED);
    }
}

/* Sends its identity twice, the second time when no part of the upgrade can be under way. */
static void identify(struct client *c)
{
    char id[ID_BYTES + 1];
    for (int i = 0; i < 2; i++) {
        make_id(c, id);
        if (!send_all(c, id, ID_BYTES)) {
            fault("send", "an upgraded socket is closed");
            return;
        }
        expect_back(c, id);
    }
}

static void upgrade_and_identify(struct client *c)
{
    char text[600];
    const size_t n = request(c, text);
    if (!send_all(c, text, n) || status_of(c) != 101) {
        fault("upgrade", "refused");
        return;
    }
    identify(c);
}

static void leave(struct client *c)
{
    if (rand_r(&c->seed) % 2 == 0) {
        reset(c);
    } else {
        close(c->fd);
    }
}

static void kind_good(struct client *c)
{
    upgrade_and_identify(c);
    leave(c);
}

static void kind_reset_at_once(struct client *c)
{
    char text[600];
    const size_t n = request(c, text);
    (void)send_all(c, text, n);
    reset(c);
}

static void kind_reset_in_head(struct client *c)
{
    char text[600];
    const size_t n = request(c, text);
    (void)send_all(c, text, 1 + (size_t)rand_r(&c->seed) % (n - 1));
    leave(c);
}

/* Ends its side behind the request: the upgrade may be granted, the end must be seen. */
static void kind_half_open(struct client *c)
{
    char text[600];
    const size_t n = request(c, text);
    (void)send_all(c, text, n);
    shutdown(c->fd, SHUT_WR);
    if (status_of(c) == 101 && receive(c, text, 1, NULL) != -1) {
        fault("half open", "bytes from nowhere");
    }
    leave(c);
}

/* Resets and comes back from the same port, while the library may still serve the first one. */
static void kind_same_port(struct client *c)
{
    char text[600];
    const uint16_t from = c->own_port;
    for (int i = 0; i < 3; i++) {
        const size_t n = request(c, text);
        (void)send_all(c, text, n);
        if (i == 1) {
            (void)status_of(c);
        }
        reset(c);
        if (!open_client(c, from)) {
            return; /* somebody else has the port now */
        }
    }
    upgrade_and_identify(c);
    leave(c);
}

/* Frames with the request, or right behind it: refused, or kept whole. */
static void kind_early(struct client *c)
{
    char text[700], id[ID_BYTES + 1];
    size_t n = request(c, text);
    make_id(c, id);
    if (rand_r(&c->seed) % 2 == 0) {
        memcpy(text + n, id, ID_BYTES);
        n += ID_BYTES;
        (void)send_all(c, text, n);
    } else {
        (void)send_all(c, text, n);
        (void)send_all(c, id, ID_BYTES);
    }
    const int status = status_of(c);
    if (status == 101) {
        expect_back(c, id);
        identify(c);
    } else if (status == 400) {
        __atomic_add_fetch(&refused_early, 1, __ATOMIC_RELAXED);
    } else {
        fault("early", "neither upgraded nor told why not");
    }
    leave(c);
}

static void kind_slow(struct client *c)
{
    char text[600];
    const size_t n = request(c, text);
    for (size_t at = 0; at < n;) {
        size_t step = 1 + (size_t)rand_r(&c->seed) % 100;
        step = step < n - at ? step : n - at;
        if (!send_all(c, text + at, step)) {
            fault("slow", "closed in the middle of the request");
            break;
        }
        at += step;
        (void)poll(NULL, 0, rand_r(&c->seed) % 2);
    }
    if (status_of(c) == 101) {
        identify(c);
    } else {
        fault("slow", "not upgraded");
    }
    leave(c);
}

static void kind_bad(struct client *c)
{
    static const char *const bad[] = {
        "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Content-Length: 100\r\n\r\nabc",
        "GET //ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n",
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "\x16\x03\x01\r\n\r\n"};
    const char *text = bad[(unsigned)rand_r(&c->seed) % (sizeof bad / sizeof bad[0])];
    (void)send_all(c, text, strlen(text));
    const int status = status_of(c);
    if (status < 400 || status > 499) {
        fault("bad request", text);
    }
    leave(c);
}

/* An event stream taken over from a plain request. */
static void kind_stream(struct client *c)
{
    const char *text = "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
    (void)send_all(c, text, strlen(text));
    if (rand_r(&c->seed) % 4 == 0) {
        reset(c);
        return;
    }
    if (status_of(c) != 200) {
        fault("stream", "not taken over");
    } else {
        identify(c);
    }
    leave(c);
}

/* An event stream to a client that is gone by the time its head is written. */
static void kind_gone(struct client *c)
{
    const char *text = "GET /gone HTTP/1.1\r\nHost: a\r\n\r\n";
    (void)send_all(c, text, strlen(text));
    if (status_of(c) != 0) {
        fault("gone", "an answer");
    }
    leave(c);
}

static void kind_plain(struct client *c)
{
    const char *text = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";
    char body[16] = "";
    (void)send_all(c, text, strlen(text));
    if (status_of(c) != 200 || receive(c, body, 5, NULL) != 5 || strcmp(body, "plain") != 0) {
        fault("plain", body);
    }
    leave(c);
}

static const struct {
    const char *name;
    void (*run)(struct client *c);
} kinds[] = {{"good", kind_good},
             {"good", kind_good},
             {"good", kind_good},
             {"reset at once", kind_reset_at_once},
             {"reset in head", kind_reset_in_head},
             {"half open", kind_half_open},
             {"same port", kind_same_port},
             {"same port", kind_same_port},
             {"early", kind_early},
             {"slow", kind_slow},
             {"bad", kind_bad},
             {"stream", kind_stream},
             {"gone", kind_gone},
             {"plain", kind_plain}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static void *client_main(void *arg)
{
    struct client c = {.seed = *(unsigned *)arg};
    while (__atomic_sub_fetch(&cycles_left, 1, __ATOMIC_RELAXED) >= 0) {
        const size_t k = (size_t)rand_r(&c.seed) % KINDS;
        if (!open_client(&c, 0)) {
            fault("connect", strerror(errno));
            continue;
        }
        __atomic_add_fetch(&by_kind[k], 1, __ATOMIC_RELAXED);
        kinds[k].run(&c);
    }
    return NULL;
}

/* --- the whole ----------------------------------------------------------------------------- */

static struct eg_listener *listener;

static int on_request(void *arg, struct mg_connection *conn)
{
    (void)arg;
    const struct mg_request_info *ri = mg_get_request_info(conn);
    const bool gone = strcmp(ri->local_uri, "/gone") == 0;
    if (gone) {
        shutdown(eg_adopt_fd(), SHUT_WR); /* a peer as before, and no way to write to it */
    }
    if (gone || strcmp(ri->local_uri, "/stream") == 0) {
        struct eg_adopted *a = calloc(1, sizeof *a);
        a->mode = EG_CONN_SSE;
        a->token = strdup("x");
        a->origin_allowed = true;
        const enum eg_err err = eg_adopt_stream(
            listener, conn, EG_LIT("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
            a);
        return err == EG_OK ? 200 : 500;
    }
    mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain");
    return 200;
}

static int count_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d != NULL && readdir(d) != NULL) {
        n++;
    }
    if (d != NULL) {
        closedir(d);
    }
    return n;
}

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : otherwise;
}

/* Waits until what the last clients left behind is gone. */
static void settle(void)
{
    const int64_t until = eg_clock_mono_ms() + WAIT_MS;
    while (eg_limits_count(limits).connections > 0 && eg_clock_mono_ms() < until) {
        (void)poll(NULL, 0, 5);
    }
}

static void run_clients(void)
{
    const long threads = setting("ADOPT_THREADS", 8);
    pthread_t id[64];
    unsigned seed[64];
    cycles_left = setting("ADOPT_CYCLES", 4000);
    for (long i = 0; i < threads && i < 64; i++) {
        seed[i] = (unsigned)(setting("ADOPT_SEED", (long)time(NULL)) * 64 + i);
        pthread_create(&id[i], NULL, client_main, &seed[i]);
    }
    for (long i = 0; i < threads && i < 64; i++) {
        pthread_join(id[i], NULL);
    }
    settle();
}

static void report(int64_t proven)
{
    for (size_t k = 0; k < KINDS; k++) {
        printf("%-16s %ld\n", kinds[k].name, by_kind[k]);
    }
    printf("proven %lld, unproven %lld, echoes %ld, early refused %ld, faults %d\n",
           (long long)proven, (long long)eg_metric_get(EG_M_adoptions_failed_total), echoed,
           refused_early, faults);
}

int main(void)
{
    char why[300] = "";
    pthread_t echo_thread;
    struct eg_settings *settings = eg_settings_new();
    settings->handshake_timeout_ms = WAIT_MS;
    echo_epoll = epoll_create1(EPOLL_CLOEXEC);
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    if (eg_limits_new(settings, &limits) != EG_OK) {
        return 1;
    }
    const struct eg_listener_config config = {.address = "127.0.0.1:0",
                                              .workers = 16,
                                              .settings = settings,
                                              .reactors = (struct eg_reactors *)&echo_epoll,
                                              .limits = limits,
                                              .request = on_request};
    if (eg_listener_start(&config, &listener, why, sizeof why) != EG_OK) {
        fprintf(stderr, "listener: %s\n", why);
        return 1;
    }
    port = (uint16_t)atoi(strchr(eg_listener_bound(listener), ':') + 1);
    pthread_create(&echo_thread, NULL, echo_main, NULL);
    const int before = count_descriptors();
    const int64_t proven_before = eg_metric_get(EG_M_adoptions_proven_total);
    run_clients();
    const int64_t proven = eg_metric_get(EG_M_adoptions_proven_total) - proven_before;
    if (eg_limits_count(limits).connections != 0) {
        fault("limits", "connections are still counted");
    }
    eg_listener_stop(listener);
    __atomic_store_n(&stopping, 1, __ATOMIC_RELEASE);
    pthread_join(echo_thread, NULL);
    if (eg_limits_count(limits).handshakes != 0) {
        fault("limits", "handshakes are still counted");
    }
    if (count_descriptors() >= before) {
        fault("descriptors", "left open");
    }
    if (eg_metric_get(EG_M_adoptions_failed_total) != 0) {
        fault("adoptions", "unproven");
    }
    if (proven == 0 || echoed == 0) {
        fault("nothing", "was taken over");
    }
    report(proven);
    close(echo_epoll);
    eg_limits_free(limits);
    eg_settings_unref(settings);
    return faults == 0 ? 0 : 1;
}
