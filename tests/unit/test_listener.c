/*
 * test_listener.c - a listener on port 0 with a mailbox in place of the reactors: what is handed
 * over and how, what is refused and how, and what it withstands before a worker is used.
 */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <civetweb.h>

#include "base/log.h"
#include "edge/adopt.h"
#include "edge/listener.h"
#include "edge/selftest.h"

#define WAIT_MS 10000
#define UPGRADE                                                                                    \
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"                   \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static struct eg_settings *settings;
static struct eg_limits *limits;
static struct eg_listener *listener;
static uint16_t port;

/* --- the mailbox --------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static struct eg_adopted *box[256];
static int boxed;

/* Stands for the reactors: the listener hands its sockets here. */
void eg_reactors_adopt(struct eg_reactors *rs, struct eg_adopted *a)
{
    struct eg_adopted *taken = malloc(sizeof *taken);
    (void)rs;
    *taken = *a; /* what it holds; the struct stays the caller's */
    pthread_mutex_lock(&lock);
    box[boxed++] = taken;
    pthread_cond_signal(&came);
    pthread_mutex_unlock(&lock);
}

static struct eg_adopted *next_adopted(void)
{
    struct timespec until;
    int late = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&lock);
    while (boxed == 0 && late == 0) {
        late = pthread_cond_timedwait(&came, &lock, &until);
    }
    struct eg_adopted *a = boxed > 0 ? box[0] : NULL;
    if (a != NULL) {
        memmove(box, box + 1, sizeof box[0] * (size_t)--boxed);
    }
    pthread_mutex_unlock(&lock);
    cr_assert_not_null(a, "nothing was handed over");
    return a;
}

static void free_adopted(struct eg_adopted *a)
{
    if (a->refuse == EG_CODE_NONE) {
        eg_limits_leave(limits, a->addr, false);
    }
    eg_adopted_free(a);
}

/* --- the listener -------------------------------------------------------------------------- */

static int requests; /* atomic: those that came through */

static int on_request(void *arg, struct mg_connection *conn)
{
    (void)arg;
    __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED);
    char addr[64];
    if (strcmp(mg_get_request_info(conn)->local_uri_raw, "/hold") == 0) {
        char byte;
        (void)mg_read(conn, &byte, 1); /* a worker that waits for a body */
    }
    eg_listener_client_addr(listener, conn, addr);
    mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
              strlen(addr), addr);
    return 200;
}

static enum eg_err start(const char *address, bool public, char why[300])
{
    static int some;
    const struct eg_listener_config config = {.address = address,
                                              .workers = 4,
                                              .settings = settings,
                                              .reactors = public ? (void *)&some : NULL,
                                              .limits = public ? limits : NULL,
                                              .request = on_request};
    const enum eg_err err = eg_listener_start(&config, &listener, why, 300);
    if (err == EG_OK) {
        port = (uint16_t)atoi(strchr(eg_listener_bound(listener), ':') + 1);
    }
    return err;
}

static void begin(void)
{
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    settings = eg_settings_new();
    settings->handshake_timeout_ms = 2000;
}

static void serve(bool public)
{
    char why[300] = "";
    cr_assert_eq(eg_limits_new(settings, &limits), EG_OK);
    cr_assert_eq(start("127.0.0.1:0", public, why), EG_OK, "%s", why);
}

static void end(void)
{
    eg_listener_stop(listener);
    for (int i = 0; i < boxed; i++) {
        free_adopted(box[i]);
    }
    eg_limits_free(limits);
    eg_settings_unref(settings);
}

TestSuite(listener, .init = begin, .fini = end, .timeout = 60);

static int dial(void)
{
    const int fd = eg_selftest_connect("127.0.0.1", port, WAIT_MS);
    cr_assert_geq(fd, 0);
    return fd;
}

static void say(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* All until the peer closes, or to the end of a head. */
static const char *hear(int fd, bool head_only)
{
    static char text[8192];
    size_t n = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (n < sizeof text - 1 && poll(&p, 1, WAIT_MS) == 1) {
        const ssize_t r = recv(fd, text + n, head_only ? 1 : sizeof text - 1 - n, 0);
        if (r <= 0) {
            break;
        }
        n += (size_t)r;
        text[n] = '\0';
        if (head_only && strstr(text, "\r\n\r\n") != NULL) {
            break;
        }
    }
    text[n] = '\0';
    return text;
}

static int status_in(const char *text)
{
    return strncmp(text, "HTTP/1.1 ", 9) == 0 ? atoi(text + 9) : 0;
}

/* One request on a socket of its own; the whole answer. */
static const char *ask(const char *request)
{
    const int fd = dial();
    say(fd, request);
    const char *text = hear(fd, strstr(request, "\r\n" UPGRADE "\r\n") != NULL);
    close(fd);
    return text;
}

/* An upgrade with more header lines; the socket, to be closed by the caller. */
static int upgrade(const char *path, const char *more, struct eg_adopted **a)
{
    char request[2000];
    const int fd = dial();
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n" UPGRADE "%s\r\n", path,
             more);
    say(fd, request);
    const char *text = hear(fd, true);
    cr_assert_eq(status_in(text), 101, "%s", text);
    *a = next_adopted();
    return fd;
}

Test(listener, what_is_handed_over)
{
    struct eg_adopted *a = NULL;
    serve(true);
    int fd = upgrade("/ws?token=q", "", &a);
    cr_expect_str_eq(a->token, "q");
    cr_expect(a->token_from_query);
    cr_expect_str_eq(a->addr, "127.0.0.1");
    cr_expect(a->origin_allowed);
    cr_expect_eq(a->refuse, EG_CODE_NONE);
    cr_expect_not(a->draining);
    cr_expect_eq(a->mode, EG_CONN_WS);
    cr_expect_geq(a->fd, EG_ADOPT_FD_BASE);
    int nodelay = 0;
    socklen_t n = sizeof nodelay;
    cr_expect_eq(getsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &n), 0);
    cr_expect_neq(nodelay, 0);
    cr_expect(fcntl(a->fd, F_GETFL) & O_NONBLOCK);
    cr_expect(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
    free_adopted(a);
    close(fd);
    fd = upgrade("/ws", "Authorization: Bearer h\r\nOrigin: https://evil.example\r\n", &a);
    cr_expect_str_eq(a->token, "h");
    cr_expect_not(a->token_from_query);
    cr_expect_not(a->origin_allowed);
    free_adopted(a);
    close(fd);
    eg_listener_draining(listener);
    fd = upgrade("/ws", "", &a);
    cr_expect_null(a->token);
    cr_expect(a->draining);
    free_adopted(a);
    close(fd);
    cr_expect_eq(eg_limits_count(limits).connections, 0);
}

Test(listener, the_address_behind_a_proxy)
{
    char *proxies[] = {"127.0.0.0/8", NULL};
    struct eg_adopted *a = NULL;
    serve(true);
    int fd = upgrade("/ws", "X-Forwarded-For: 203.0.113.7\r\n", &a);
    cr_expect_str_eq(a->addr, "127.0.0.1", "nobody is trusted");
    free_adopted(a);
    close(fd);
    struct eg_settings *changed = eg_settings_copy(settings);
    char **own = changed->trusted_proxies;
    changed->trusted_proxies = proxies;
    eg_listener_settings(listener, changed);
    fd = upgrade("/ws", "X-Forwarded-For: 203.0.113.7\r\n", &a);
    cr_expect_str_eq(a->addr, "203.0.113.7");
    free_adopted(a);
    close(fd);
    const char *text = ask("GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n");
    cr_expect_not_null(strstr(text, "\r\n\r\n203.0.113.8"), "%s", text);
    eg_listener_settings(listener, settings);
    changed->trusted_proxies = own;
    eg_settings_unref(changed);
}

Test(listener, refusals_are_whole_answers)
{
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426},
        {"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" UPGRADE "\r\n", 405},
        {"GET //ws HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n", 404},
        {"GET /a/../ws HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n", 404},
        {"GET /ws HTTP/1.1\r\n" UPGRADE "\r\n", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nHost: y\r\n" UPGRADE "\r\n", 400},
        {"GET /ws HTTP/1.0\r\nHost: x\r\n" UPGRADE "\r\n", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" UPGRADE "\r\n", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n\x81\x80", 400},
        {"GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
        {"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400},
        {"NONSENSE\r\n\r\n", 400},
        {"GET /x HTTP/7.0\r\nHost: x\r\n\r\n", 505},
    };
    serve(true);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int fd = dial();
        say(fd, rows[i].request);
        const char *text = hear(fd, false);
        close(fd);
        const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "\r\nContent-Length: ");
        cr_expect_eq(status_in(text), rows[i].status, "%s gave %s", rows[i].request, text);
        cr_assert(body != NULL && length != NULL, "%s", text);
        cr_expect_eq(strtoul(length + 18, NULL, 10), strlen(body + 4), "%s", text);
        cr_expect_not_null(strstr(text, "\r\nConnection: close\r\n"), "%s", text);
        cr_expect_not_null(strstr(text, "\r\nContent-Type: application/problem+json\r\n"));
        cr_expect_not_null(strstr(body, "\"code\":\""), "%s", text);
    }
    cr_expect_eq(__atomic_load_n(&requests, __ATOMIC_RELAXED), 0, "none came through");
    const char *text = ask("GET /ws%00x HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_eq(status_in(text), 200, "another path: %s", text);
    text = ask("HEAD /ws HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_eq(status_in(text), 405);
    cr_expect_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n", "an answer to HEAD has no body");
}

Test(listener, an_answer_survives_a_body_nobody_reads)
{
    serve(true);
    for (int i = 0; i < 10; i++) {
        static char body[200000];
        const int fd = dial();
        say(fd, "POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n");
        (void)send(fd, body, sizeof body, MSG_NOSIGNAL | MSG_DONTWAIT);
        const char *text = hear(fd, false);
        cr_expect_eq(status_in(text), 405, "got %s", text);
        close(fd);
    }
}

Test(listener, bodies_that_never_end_cost_no_worker)
{
    int slow[40];
    serve(true);
    for (int i = 0; i < 40; i++) { /* ten times the workers */
        slow[i] = dial();
        say(slow[i], "POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx");
    }
    for (int i = 0; i < 40; i++) {
        cr_expect_eq(status_in(hear(slow[i], true)), 405);
    }
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
    for (int i = 0; i < 40; i++) {
        (void)hear(slow[i], false); /* the body, and the end */
        close(slow[i]);
    }
}

Test(listener, subprotocol_of_each_client_its_own)
{
    serve(true);
    for (int i = 0; i < 40; i++) {
        const bool offer = i % 2 == 0;
        char request[600];
        const int fd = dial();
        snprintf(request, sizeof request, "GET /ws HTTP/1.1\r\nHost: x\r\n" UPGRADE "%s\r\n",
                 offer ? "Sec-WebSocket-Protocol: bearer.abc , ebbgate.v1 , chat\r\n"
                       : "Sec-WebSocket-Protocol: chat\r\n");
        say(fd, request);
        const char *text = hear(fd, true);
        cr_expect_eq(strstr(text, "\r\nSec-WebSocket-Protocol: ebbgate.v1\r\n") != NULL, offer,
                     "%s", text);
        cr_expect_eq(strstr(text, "Sec-WebSocket-Protocol") != NULL, offer, "%s", text);
        close(fd);
        free_adopted(next_adopted());
    }
}

Test(listener, limits_are_told_by_hello_error_then_by_status)
{
    struct eg_adopted *a[3] = {0}, *refused = NULL;
    int fd[3];
    settings->max_connections = 3;
    serve(true);
    for (int i = 0; i < 3; i++) {
        fd[i] = upgrade("/ws", "", &a[i]);
        cr_expect_eq(a[i]->refuse, EG_CODE_NONE);
    }
    const int last = upgrade("/ws", "", &refused);
    cr_expect_eq(refused->refuse, EG_CODE_too_many_connections);
    free_adopted(refused);
    close(last);
    bool answered = false; /* polite refusals have a limit of their own */
    for (int i = 0; i < 250 && !answered; i++) {
        const int one = dial();
        say(one, "GET /ws HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n");
        const char *text = hear(one, true);
        answered = status_in(text) == 503;
        if (answered) {
            cr_expect_not_null(strstr(text, "\r\nRetry-After: "), "%s", text);
        } else {
            free_adopted(next_adopted());
        }
        close(one);
    }
    cr_expect(answered);
    for (int i = 0; i < 3; i++) {
        free_adopted(a[i]);
        close(fd[i]);
    }
    cr_expect_eq(eg_limits_count(limits).connections, 0);
}

Test(listener, slow_heads_cost_no_worker)
{
    int slow[40];
    serve(true);
    for (int i = 0; i < 40; i++) { /* ten times the workers */
        slow[i] = dial();
        say(slow[i], i % 2 == 0 ? "GET /plain HTTP/1.1\r\nHost: x\r\nX-Slow: " : "G");
    }
    for (int i = 0; i < 20; i++) {
        const char *text = ask("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_expect_eq(status_in(text), 200, "%s", text);
    }
    say(slow[0], "y\r\n\r\n");
    cr_expect_eq(status_in(hear(slow[0], false)), 200, "one that ends is served");
    for (int i = 1; i < 40; i++) { /* the others are told, and closed, at the deadline */
        cr_expect_eq(status_in(hear(slow[i], false)), 408);
        close(slow[i]);
    }
    close(slow[0]);
    const int silent = dial();
    cr_expect_str_eq(hear(silent, false), "", "one that never said a word is closed");
    close(silent);
    cr_expect_eq(eg_limits_count(limits).handshakes, 0);
}

Test(listener, unfinished_heads_of_one_address)
{
    int slow[3];
    settings->max_handshakes_per_address = 3;
    serve(true);
    for (int i = 0; i < 3; i++) {
        slow[i] = dial();
        say(slow[i], "GET");
        const int64_t until = eg_clock_mono_ms() + WAIT_MS;
        while (eg_limits_count(limits).handshakes <= i && eg_clock_mono_ms() < until) {
            (void)poll(NULL, 0, 1);
        }
    }
    const int more = dial();
    cr_expect_str_eq(hear(more, false), "", "closed at once");
    close(more);
    close(slow[0]);
    bool served = false;
    const int64_t until = eg_clock_mono_ms() + WAIT_MS;
    while (!served && eg_clock_mono_ms() < until) {
        const int fd = dial();
        (void)!send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL);
        served = status_in(hear(fd, false)) == 200;
        close(fd);
    }
    cr_expect(served, "a place was given back");
    close(slow[1]);
    close(slow[2]);
}

Test(listener, heads_have_a_length)
{
    static char big[40000];
    serve(true);
    memset(big, 'a', sizeof big - 1);
    memcpy(big, "GET / HTTP/1.1\r\nHost: x\r\nX: ", 28);
    const int fd = dial();
    (void)!send(fd, big, strlen(big), MSG_NOSIGNAL);
    const char *text = hear(fd, false);
    cr_expect(status_in(text) == 431 || text[0] == '\0', "%s", text);
    close(fd);
    big[16000] = '\0';
    strcat(big, "\r\n\r\n");
    cr_expect_eq(status_in(ask(big)), 200, "16 KiB are fine");
    char many[8000] = "GET / HTTP/1.1\r\nHost: x\r\n";
    for (int i = 0; i < 70; i++) {
        strcat(many, "X-Many: y\r\n");
    }
    strcat(many, "\r\n");
    cr_expect_eq(status_in(ask(many)), 431);
}

Test(listener, no_descriptor_left)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct rlimit old, few;
    int held[512], n = 0;
    serve(true);
    sa.sin_port = htons(port);
    const int mine = socket(AF_INET, SOCK_STREAM, 0); /* before there are none */
    cr_assert_geq(mine, 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 256;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < 512 && (held[n] = dup(0)) >= 0) {
        n++;
    }
    cr_assert_eq(connect(mine, (struct sockaddr *)&sa, sizeof sa), 0);
    (void)!send(mine, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL);
    cr_expect_str_eq(hear(mine, false), "", "accepted with the one in reserve, and closed");
    while (n > 0) {
        close(held[--n]);
    }
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), 200, "it goes on");
    close(mine);
}

Test(listener, the_oldest_makes_room_when_too_many_wait)
{
    enum { ROOM = 8192, MORE = 40 };
    static int fd[ROOM + MORE];
    struct rlimit old, many;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    many = old;
    many.rlim_cur = old.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &many), 0);
    settings->handshake_timeout_ms = 60000;
    serve(true);
    for (int i = 0; i < ROOM + MORE; i++) {
        fd[i] = dial();
    }
    for (int i = 0; i < MORE; i++) {
        cr_expect_str_eq(hear(fd[i], false), "", "%d is still there", i);
    }
    const int last = ROOM + MORE - 1;
    (void)!send(fd[last], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL);
    cr_expect_eq(status_in(hear(fd[last], false)), 200, "the newest is served");
    for (int i = 0; i < ROOM + MORE; i++) {
        close(fd[i]);
    }
}

Test(listener, a_loopback_admin_serves_its_own_names_only)
{
    serve(false);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: localhost:99\r\n\r\n")), 200);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")), 200);
    cr_expect_eq(status_in(ask("GET / HTTP/1.0\r\n\r\n")), 200);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")), 403);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n")), 403);
    cr_expect_eq(status_in(ask("GET /ws HTTP/1.1\r\nHost: localhost\r\n" UPGRADE "\r\n")), 200,
                 "no WebSocket here: a request like any other");
}

Test(listener, addresses_that_cannot_be_had)
{
    char why[300] = "", taken[80];
    serve(true);
    struct eg_listener *first = listener;
    snprintf(taken, sizeof taken, "%s", eg_listener_bound(first));
    cr_expect_eq(start(taken, true, why), EG_EBUSY);
    cr_expect_not_null(strstr(why, taken), "%s", why);
    cr_expect_eq(start("192.0.2.1:0", true, why), EG_EINVALID, "%s", why);
    cr_expect_eq(start("127.0.0.1", true, why), EG_EINVALID);
    char *bad[] = {"nonsense", NULL};
    struct eg_settings *s = eg_settings_copy(settings);
    char **own = s->trusted_proxies;
    s->trusted_proxies = bad;
    struct eg_settings *old = settings;
    settings = s;
    cr_expect_eq(start("127.0.0.1:0", true, why), EG_EINVALID);
    cr_expect_not_null(strstr(why, "nonsense"), "%s", why);
    settings = old;
    s->trusted_proxies = own;
    eg_settings_unref(s);
    listener = first;
}

Test(listener, two_at_once)
{
    char why[300] = "";
    serve(true);
    struct eg_listener *first = listener;
    cr_assert_eq(start("127.0.0.1:0", false, why), EG_OK, "%s", why);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")), 200);
    eg_listener_stop(listener);
    listener = first;
    port = (uint16_t)atoi(strchr(eg_listener_bound(listener), ':') + 1);
    cr_expect_eq(status_in(ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")), 200);
}
