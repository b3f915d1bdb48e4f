/*
 * peer_redis.c - redis: a stream a session (XADD), its append-only file flushed before each answer;
 * followers by its pub/sub. Protocol: RESP2.
 */
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MISSING,
    TOP
}; /* state: elements missing of the reply under way; its first array's length */

static void command(struct peer *p, const char **argv)
{
    const char *const args[] = {"redis-server",
                                "--port",
                                p->arg[0],
                                "--bind",
                                "127.0.0.1",
                                "--dir",
                                p->dir,
                                "--appendonly",
                                "yes",
                                "--appendfsync",
                                "always",
                                "--save",
                                "",
                                "--maxclients",
                                "15000",
                                "--loglevel",
                                "warning",
                                "--set-proc-title",
                                "no",
                                NULL};
    snprintf(p->arg[0], sizeof p->arg[0], "%d", p->port);
    memcpy(argv, args, sizeof args);
}

static void complete(struct pc *c)
{
    if (c->role == ROLE_REPLAYER) {
        peer_event(c, (unsigned)c->state[TOP]);
    } else if (!c->ready) {
        peer_ready(c);
    } else if (c->role == ROLE_FOLLOWER) {
        peer_event(c, 1);
    } else {
        peer_acked(c);
    }
}

static size_t bytes(struct lc *lc, const char *in, size_t n)
{
    struct pc *c = (struct pc *)lc;
    size_t at = 0;
    for (;;) {
        const char *end = memchr(in + at, '\n', n - at);
        if (!end) {
            return at;
        }
        const char kind = in[at];
        const long value = strtol(in + at + 1, NULL, 10);
        size_t next = (size_t)(end - in) + 1;
        if (kind == '-') {
            load_die("redis: %.*s", (int)(n - at), in + at);
        }
        if (kind == '$' && value >= 0) {
            next += (size_t)value + 2;
            if (next > n) {
                return at;
            }
        }
        if (c->state[MISSING] == 0) {
            c->state[MISSING] = 1;
            c->state[TOP] = kind == '*' ? value : 0;
        }
        c->state[MISSING] += (kind == '*' ? value : 0) - 1;
        at = next;
        if (c->state[MISSING] == 0) {
            complete(c);
        }
        if (at == n) {
            return at;
        }
    }
}

static void opened(struct lc *lc)
{
    struct pc *c = (struct pc *)lc;
    char text[64];
    if (c->role == ROLE_PUBLISHER || c->role == ROLE_SPEAKER) {
        peer_ready(c);
        return;
    }
    const int n = snprintf(text, sizeof text,
                           c->role == ROLE_FOLLOWER   ? "SUBSCRIBE f\r\n"
                           : c->role == ROLE_REPLAYER ? "XRANGE s%u - +\r\n"
                                                      : "PING\r\n",
                           c->session);
    load_bytes(lc, text, (size_t)n);
}

static void to(struct pc *c)
{
    c->lc.on_open = opened;
    c->lc.on_bytes = bytes;
    load_connect_bytes(&c->lc, c->peer->port);
}

static void publish(struct pc *c, unsigned session, const char *payload, size_t n)
{
    char head[128], key[16];
    int h;
    if (c->role == ROLE_SPEAKER) {
        h = snprintf(head, sizeof head, "*3\r\n$7\r\nPUBLISH\r\n$1\r\nf\r\n$%zu\r\n", n);
    } else {
        const int k = snprintf(key, sizeof key, "s%u", session);
        h = snprintf(head, sizeof head,
                     "*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$1\r\nd\r\n$%zu\r\n", k, key, n);
    }
    load_bytes(&c->lc, head, (size_t)h);
    load_bytes(&c->lc, payload, n);
    load_bytes(&c->lc, "\r\n", 2);
}

struct peer peer_redis = {
    .name = "redis",
    .ack = "XADD is answered after its append-only file was flushed to disk (appendfsync always): "
           "as durable as ours. Fan-out is pub/sub, which stores nothing",
    .version = "redis-server --version | sed 's/.*v=\\([^ ]*\\).*/redis \\1/'",
    .can = CAN_PUBLISH | CAN_PIPELINE | CAN_FANOUT | CAN_REPLAY | CAN_HELLO,
    .command = command,
    .connect = to,
    .publish = publish};
