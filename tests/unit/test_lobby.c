/*
 * test_lobby.c - the lobby by itself: the test is the listening thread, and its clock stands still.
 * Each step waits for the lobby to have something to do, never for time to pass.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "edge/lobby.h"

#define HEAD "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
#define PATIENCE_MS 5000

static struct sockaddr_in at;
static int listening;
static int64_t mono_ms = 1000;
static struct eg_limits *limits;
static struct eg_lobby *lobby;
static bool proxied;

static struct eg_now stopped_clock(void)
{
    return (struct eg_now){mono_ms, mono_ms};
}

static bool is_proxy(void *arg, const char *addr)
{
    (void)addr;
    return *(bool *)arg;
}

static void begin(void)
{
    socklen_t n = sizeof at;
    struct eg_settings s = {.max_connections = 100, .max_handshakes_per_address = 2};
    eg_clock_replace(stopped_clock);
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listening, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(listen(listening, 64), 0);
    cr_assert_eq(getsockname(listening, (struct sockaddr *)&at, &n), 0);
    cr_assert_eq(eg_limits_new(&s, &limits), EG_OK);
    const struct eg_lobby_config config = {.limits = limits,
                                           .is_proxy = is_proxy,
                                           .arg = &proxied,
                                           .deadline_ms = 10000,
                                           .max_waiting = 4};
    cr_assert_eq(eg_lobby_new(&config, &lobby), EG_OK);
    eg_lobby_enter(lobby);
    cr_assert_lt(accept(listening, NULL, NULL), 0, "the lobby takes its place");
}

static void end(void)
{
    eg_lobby_free(lobby);
    eg_limits_free(limits);
    close(listening);
}

TestSuite(lobby, .init = begin, .fini = end);

static int dial(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* Once the lobby has something to do, it does it; the socket it hands over, or -1. */
static int serve(void)
{
    struct pollfd p = {.fd = listening, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, PATIENCE_MS), 1, "the lobby has nothing to do");
    return accept(listening, NULL, NULL);
}

/* Whether the other end has closed fd, or closes it while the lobby works on. */
static bool closed(int fd)
{
    char c;
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = listening, .events = POLLIN}};
    while (poll(p, 2, PATIENCE_MS) > 0) {
        if (p[0].revents != 0) {
            return recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
        }
        const int handed = accept(listening, NULL, NULL);
        cr_assert_lt(handed, 0);
    }
    return false;
}

static bool open_still(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

Test(lobby, unfinished_heads_of_one_address_are_counted_and_those_of_a_proxy_are_not)
{
    int fd[5];
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        cr_expect_lt(serve(), 0);
    }
    cr_expect_eq(eg_limits_count(limits).handshakes, 2);
    cr_expect(closed(fd[2]));
    cr_expect(open_still(fd[0]) && open_still(fd[1]));
    proxied = true;
    for (int i = 3; i < 5; i++) {
        fd[i] = dial();
        cr_expect_lt(serve(), 0);
    }
    cr_expect_eq(eg_limits_count(limits).handshakes, 2);
    cr_expect(open_still(fd[3]) && open_still(fd[4]));
    for (int i = 0; i < 5; i++) {
        close(fd[i]);
    }
}

Test(lobby, who_hangs_up_in_its_head_is_forgotten_at_once)
{
    const int fd = dial();
    cr_assert_eq(send(fd, HEAD, 8, MSG_NOSIGNAL), 8);
    cr_expect_lt(serve(), 0);
    cr_expect_eq(eg_limits_count(limits).handshakes, 1);
    close(fd);
    for (int i = 0; i < 3 && eg_limits_count(limits).handshakes > 0; i++) {
        cr_expect_lt(serve(), 0); /* a tick may come first */
    }
    cr_expect_eq(eg_limits_count(limits).handshakes, 0);
}

/* A request that was answered: its socket as the library had it, and the client's end. */
static int answered(int *client)
{
    int fd = -1;
    *client = dial();
    cr_assert_eq(send(*client, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL), (ssize_t)sizeof HEAD - 1);
    for (int i = 0; i < 3 && fd < 0; i++) {
        fd = serve();
    }
    cr_assert_geq(fd, 0);
    return fd;
}

/* Whether the other end of fd is closed: a write to it is answered by a reset. */
static bool gone(int fd)
{
    struct pollfd p[2] = {{.fd = fd}, {.fd = listening, .events = POLLIN}};
    for (int i = 0; i < 10; i++) { /* a tick may come between */
        (void)send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        cr_assert_geq(poll(p, 2, PATIENCE_MS), 1);
        if ((p[0].revents & (POLLERR | POLLHUP)) != 0) {
            return true;
        }
        cr_assert_lt(accept(listening, NULL, NULL), 0);
    }
    return false;
}

Test(lobby, who_leaves_is_read_from_for_a_second)
{
    int client;
    eg_lobby_linger(lobby, answered(&client));
    cr_expect_lt(serve(), 0);
    cr_expect(closed(client), "it is told that no more comes");
    mono_ms += 999;
    cr_expect_lt(serve(), 0, "a tick");
    cr_expect_not(gone(client));
    mono_ms += 1;
    cr_expect_lt(serve(), 0, "a tick");
    cr_expect(gone(client));
    close(client);
}

Test(lobby, of_those_that_leave_the_oldest_makes_room)
{
    int client[5];
    for (int i = 0; i < 5; i++) {
        eg_lobby_linger(lobby, answered(&client[i]));
        cr_expect_lt(serve(), 0);
    }
    cr_expect(gone(client[0]));
    for (int i = 0; i < 5; i++) {
        close(client[i]);
    }
}

Test(lobby, who_sends_on_and_on_while_it_leaves_is_cut_off)
{
    static char much[65536];
    int client;
    size_t sent = 0;
    eg_lobby_linger(lobby, answered(&client));
    cr_expect_lt(serve(), 0);
    cr_assert_eq(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    while (sent < 16 * 1048576) {
        const ssize_t n = send(client, much, sizeof much, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            break;
        }
        sent += n > 0 ? (size_t)n : 0;
        cr_expect_lt(serve(), 0);
    }
    cr_expect_geq(sent, 1048576);
    cr_expect_lt(sent, 16 * 1048576);
    close(client);
}

Test(lobby, without_descriptors_it_takes_one_newcomer_a_tick)
{
    struct rlimit few;
    int held[256], n = 0, fd[2] = {dial(), dial()};
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &few), 0);
    few.rlim_cur = 128;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < 256 && (held[n] = dup(0)) >= 0) {
        n++;
    }
    cr_expect_lt(serve(), 0);
    cr_expect_lt(accept(listening, NULL, NULL), 0);
    while (n > 0) {
        close(held[--n]);
    }
    cr_expect(closed(fd[0]), "taken with the one in reserve");
    cr_expect(open_still(fd[1]));
    cr_assert_eq(send(fd[1], HEAD, sizeof HEAD - 1, MSG_NOSIGNAL), (ssize_t)sizeof HEAD - 1);
    int got = -1;
    for (int i = 0; i < 3 && got < 0; i++) {
        got = serve();
    }
    cr_expect_geq(got, 0, "the other is served after the tick");
    close(got);
    close(fd[0]);
    close(fd[1]);
}
