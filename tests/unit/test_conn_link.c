/*
 * test_conn_link.c - a connection over a slow link: what the kernel keeps for it stands before a
 * ping.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/pool.h"
#include "edge_rig.h"

enum {
    BEAT_MS = 15000,
    EVENT_BYTES = 50000,
    EVENTS = 6,         /* the kernel keeps them all */
    READ_BYTES = 45000, /* in a beat: more than the window, so that it opens */
};

/* Two ends of a TCP connection. The kernel keeps up to 400 kB of what is written to the first one,
 * which any Linux lets one ask for, and hands it on as the second one reads. */
static void slow_link(int fd[2])
{
    const int kept = 212992, window = 32768;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    const int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(door, (struct sockaddr *)&at, n), 0);
    cr_assert_eq(listen(door, 1), 0);
    cr_assert_eq(getsockname(door, (struct sockaddr *)&at, &n), 0);
    cr_assert_eq(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &window, sizeof window), 0);
    cr_assert_eq(connect(fd[1], (struct sockaddr *)&at, n), 0);
    fd[0] = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert_geq(fd[0], 0);
    cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &kept, sizeof kept), 0);
    cr_assert_eq(fcntl(fd[1], F_SETFL, O_NONBLOCK), 0);
    close(door);
}

/* A client in session 1, all of whose events are on their way. */
static struct client *join_over(struct rig *rig, eg_conn_id *id)
{
    int fd[2];
    slow_link(fd);
    struct client *const c = rig_connect_over(rig, NULL, fd);
    *id = rig_join_by_hand(rig, c);
    struct eg_bytes *const event = eg_bytes_new(EVENT_BYTES);
    memset(event->data, 'e', event->n);
    for (uint64_t i = 1; i <= EVENTS; i++) {
        rig_out(rig,
                (struct eg_out){
                    .kind = EG_OUT_EVENT, .sid = 1, .cursor = i, .bytes = eg_bytes_ref(event)});
    }
    eg_bytes_unref(event);
    rig_turn(rig);
    cr_assert_eq(eg_outbox_waiting(&eg_peer_find(&rig->rs->reactor[0], *id)->out), 0);
    return c;
}

static void read_some(struct client *c, size_t bytes)
{
    char b[4096];
    while (bytes) {
        struct pollfd ready = {.fd = c->fd, .events = POLLIN};
        cr_assert_eq(poll(&ready, 1, 5000), 1);
        const ssize_t n = recv(c->fd, b, bytes < sizeof b ? bytes : sizeof b, 0);
        cr_assert_gt(n, 0);
        eg_buf_add(&c->in, b, (size_t)n);
        bytes -= (size_t)n;
    }
}

static void beat(struct rig *rig)
{
    rig_tick(rig, BEAT_MS);
    rig_turn(rig);
}

/* Who could not have read the ping yet is not silent. From when it could, a beat is left. */
Test(conn_link, what_stands_before_the_ping_is_waited_for)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    eg_conn_id id;
    struct client *const c = join_over(rig, &id);
    char reason[126];
    for (int i = 0; i < EVENTS; i++) {
        beat(rig);
        read_some(c, READ_BYTES);
    }
    for (int i = 0; i < EVENTS; i++) {
        cr_assert_eq(strlen(client_next(c, NULL)), EVENT_BYTES);
    }
    unsigned op;
    client_next(c, &op);
    cr_expect_eq(op, 9);
    HAS(client_next(c, NULL), "\"ping\"");
    beat(rig); /* it has had the ping for less than a beat */
    cr_expect_null(client_try(c, NULL));
    beat(rig);
    cr_expect_eq(client_close_code(c, reason), 4002);
    cr_expect_str_eq(reason, "liveness_timeout");
    client_free(c);
    rig_free(rig);
}

/* Who takes nothing of it is gone after two beats all the same. */
Test(conn_link, who_takes_nothing_is_not_waited_for)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    eg_conn_id id;
    struct client *const c = join_over(rig, &id);
    beat(rig);
    cr_expect_not_null(eg_peer_find(&rig->rs->reactor[0], id));
    beat(rig);
    cr_expect_geq(eg_peer_find(&rig->rs->reactor[0], id)->state, EG_PEER_CLOSING);
    client_free(c);
    rig_free(rig);
}
