/*
 * test_selftest.c - the start-up test of adoption must fail where adoption does not work: a server
 * that answers the upgrade in every wrong way, or hands over the wrong socket.
 */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/adopt.h"
#include "edge/selftest.h"

#define YES                                                                                        \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
#define PROTOCOL "Sec-WebSocket-Protocol: ebbgate.v1\r\n"

enum hand { HAND_RIGHT, HAND_OTHER, HAND_CLOSED, HAND_NONE };

/* A server that answers what it is told, whatever it is asked. */
struct server {
    int listener;
    uint16_t port;
    struct eg_selftest *test;
    const char *offered, *plain; /* answers to a client with and without a subprotocol */
    enum hand hand;
};

static void hand_over(struct server *s, int fd)
{
    struct eg_adopted *a = calloc(1, sizeof *a);
    int pair[2];
    a->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (s->hand == HAND_OTHER && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
        close(a->fd);
        a->fd = pair[0];
        close(pair[1]);
    } else if (s->hand == HAND_CLOSED) {
        shutdown(a->fd, SHUT_RDWR);
    }
    eg_selftest_take(s->test, a);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    for (;;) {
        char request[2048];
        size_t n = 0;
        const int fd = accept(s->listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        request[0] = '\0';
        while (n < sizeof request - 1 && strstr(request, "\r\n\r\n") == NULL) {
            const ssize_t r = recv(fd, request + n, sizeof request - 1 - n, 0);
            if (r <= 0) {
                break;
            }
            n += (size_t)r;
            request[n] = '\0';
        }
        const bool offered = strstr(request, "Sec-WebSocket-Protocol") != NULL;
        const char *answer = offered ? s->offered : s->plain;
        (void)!send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        if (s->hand != HAND_NONE && strncmp(answer, YES, 12) == 0) {
            hand_over(s, fd);
        }
        close(fd);
    }
}

/* The verdict on such a server, and what it says. */
static enum eg_err verdict(const char *offered, const char *plain, enum hand hand, char why[200])
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof sa;
    pthread_t thread;
    struct server s = {.offered = offered, .plain = plain, .hand = hand};
    why[0] = '\0';
    cr_assert_eq(eg_selftest_new(&s.test), EG_OK);
    s.listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(s.listener, (struct sockaddr *)&sa, sizeof sa), 0);
    cr_assert_eq(listen(s.listener, 5), 0);
    cr_assert_eq(getsockname(s.listener, (struct sockaddr *)&sa, &n), 0);
    s.port = ntohs(sa.sin_port);
    pthread_create(&thread, NULL, serve, &s);
    const enum eg_err err = eg_selftest_run(s.test, "127.0.0.1", s.port, why, 200);
    shutdown(s.listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(s.listener);
    eg_selftest_free(s.test);
    return err;
}

TestSuite(selftest, .timeout = 60);

Test(selftest, passes_where_it_works)
{
    char why[200];
    cr_expect_eq(verdict(YES PROTOCOL "\r\n", YES "\r\n", HAND_RIGHT, why), EG_OK, "%s", why);
}

Test(selftest, fails_where_the_answer_is_wrong)
{
    static const struct {
        const char *offered, *plain, *why;
    } rows[] = {
        {"HTTP/1.1 404 Not Found\r\n\r\n", YES "\r\n", "not granted"},
        {"", "", "not granted"},
        {"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: AAAA\r\n" PROTOCOL "\r\n", YES "\r\n", "key"},
        {YES PROTOCOL "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", YES "\r\n",
         "extension"},
        {YES "\r\n", YES "\r\n", "subprotocol"},
        {YES "Sec-WebSocket-Protocol: last\r\n\r\n", YES "\r\n", "subprotocol"},
        {YES PROTOCOL "\r\n", YES PROTOCOL "\r\n", "subprotocol"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char why[200];
        cr_expect_eq(verdict(rows[i].offered, rows[i].plain, HAND_RIGHT, why), EG_ECORRUPT,
                     "row %zu", i);
        cr_expect_not_null(strstr(why, rows[i].why), "row %zu says %s", i, why);
    }
}

Test(selftest, fails_where_the_socket_is_wrong)
{
    static const struct {
        enum hand hand;
        const char *why;
    } rows[] = {{HAND_OTHER, "another socket"},
                {HAND_CLOSED, "another socket"},
                {HAND_NONE, "not handed over"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char why[200];
        cr_expect_eq(verdict(YES PROTOCOL "\r\n", YES "\r\n", rows[i].hand, why), EG_ECORRUPT,
                     "row %zu", i);
        cr_expect_not_null(strstr(why, rows[i].why), "row %zu says %s", i, why);
    }
}

Test(selftest, fails_where_nobody_listens)
{
    struct eg_selftest *t = NULL;
    char why[200] = "";
    cr_assert_eq(eg_selftest_new(&t), EG_OK);
    cr_expect_eq(eg_selftest_run(t, "127.0.0.1", 1, why, sizeof why), EG_ECORRUPT);
    cr_expect_not_null(strstr(why, "reached"), "%s", why);
    eg_selftest_free(t);
}

Test(selftest, what_nobody_fetched_is_closed)
{
    struct eg_selftest *t = NULL;
    int pair[2];
    char byte;
    cr_assert_eq(eg_selftest_new(&t), EG_OK);
    cr_assert_eq(strlen(eg_selftest_key(t)), EG_SELFTEST_KEY_CHARS);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct eg_adopted *a = calloc(1, sizeof *a);
    a->fd = pair[0];
    eg_selftest_take(t, a);
    eg_selftest_free(t);
    cr_expect_eq(recv(pair[1], &byte, 1, 0), 0);
    close(pair[1]);
}
