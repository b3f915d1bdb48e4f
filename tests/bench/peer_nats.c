/*
 * peer_nats.c - nats-server: one JetStream stream on files with a subject a session; followers by
 * plain subjects. Protocol: NATS client protocol, text.
 */
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void command(struct peer *p, const char **argv)
{
    snprintf(p->arg[0], sizeof p->arg[0], "%s/nats.conf", p->dir);
    peer_file(
        p, "nats.conf",
        "listen: \"127.0.0.1:%d\"\njetstream {\n  store_dir: \"%s/js\"\n  max_file_store: 16G\n"
        "}\nmax_connections: 15000\n",
        p->port, p->dir);
    argv[0] = "nats-server";
    argv[1] = "-c";
    argv[2] = p->arg[0];
}

static void request(struct pc *c, const char *subject, const char *body)
{
    char text[640];
    const int n = snprintf(text, sizeof text, "PUB %s _I.%u.2 %zu\r\n%s\r\n", subject, c->number,
                           strlen(body), body);
    load_bytes(&c->lc, text, (size_t)n);
}

/* After the server's greeting: what the role needs, and a ping whose pong says that it is done. */
static void opened(struct lc *lc)
{
    struct pc *c = (struct pc *)lc;
    char text[256], body[400];
    int n = snprintf(text, sizeof text, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
    load_bytes(lc, text, (size_t)n);
    n = snprintf(text, sizeof text, c->role == ROLE_FOLLOWER ? "SUB f 1\r\n" : "SUB _I.%u.* 2\r\n",
                 c->number);
    if (c->role != ROLE_SPEAKER && c->role != ROLE_IDLE) {
        load_bytes(lc, text, (size_t)n);
    }
    if (c->role == ROLE_SETUP) {
        request(c, "$JS.API.STREAM.CREATE.BENCH",
                "{\"name\":\"BENCH\",\"subjects\":[\"s.*\"],\"storage\":\"file\","
                "\"retention\":\"limits\",\"num_replicas\":1}");
    } else if (c->role == ROLE_REPLAYER) {
        n = snprintf(text, sizeof text, "SUB _R.%u 1\r\n", c->number);
        load_bytes(lc, text, (size_t)n);
        snprintf(body, sizeof body,
                 "{\"stream_name\":\"BENCH\",\"config\":{\"deliver_subject\":\"_R.%u\","
                 "\"ack_policy\":\"none\",\"deliver_policy\":\"all\",\"replay_policy\":\"instant\","
                 "\"filter_subject\":\"s.%u\"}}",
                 c->number, c->session);
        request(c, "$JS.API.CONSUMER.CREATE.BENCH", body);
    } else {
        load_bytes(lc, "PING\r\n", 6);
    }
    load_flush(lc);
}

/* MSG subject sid [reply] length: sid 1 is an event, sid 2 an answer. */
static void message(struct pc *c, long sid, const char *body, size_t n)
{
    if (sid == 1) {
        peer_event(c, 1);
        return;
    }
    if (load_has(body, n, "\"error\"")) {
        load_die("nats: %.*s", (int)n, body);
    }
    if (c->role == ROLE_SETUP) {
        peer_ready(c);
    } else if (c->role == ROLE_PUBLISHER) {
        peer_acked(c);
    }
}

static size_t bytes(struct lc *lc, const char *in, size_t n)
{
    struct pc *c = (struct pc *)lc;
    size_t at = 0;
    const char *end;
    while (at < n && (end = memchr(in + at, '\n', n - at)) != NULL) {
        const char *line = in + at;
        size_t next = (size_t)(end - in) + 1;
        if (memcmp(line, "MSG ", 4) == 0) {
            const char *sid = memchr(line + 4, ' ', (size_t)(end - line) - 4);
            const char *size = memrchr(line, ' ', (size_t)(end - line));
            const size_t body = size ? (size_t)strtol(size, NULL, 10) : 0;
            if (n - next < body + 2) {
                return at;
            }
            message(c, sid ? strtol(sid, NULL, 10) : 0, in + next, body);
            next += body + 2;
        } else if (memcmp(line, "PING", 4) == 0) {
            load_bytes(lc, "PONG\r\n", 6);
            load_flush(lc);
        } else if (memcmp(line, "PONG", 4) == 0) {
            if (c->ready) {
                peer_acked(c);
            } else {
                peer_ready(c);
            }
        } else if (*line == '-') {
            load_die("nats: %.*s", (int)(end - line), line);
        }
        at = next;
    }
    return at;
}

static void to(struct pc *c)
{
    c->lc.on_open = opened;
    c->lc.on_bytes = bytes;
    load_connect_bytes(&c->lc, c->peer->port);
}

static void publish(struct pc *c, unsigned session, const char *payload, size_t n)
{
    char head[96];
    const int h = c->role == ROLE_SPEAKER ? snprintf(head, sizeof head, "PUB f %zu\r\n", n)
                                          : snprintf(head, sizeof head, "PUB s.%u _I.%u.1 %zu\r\n",
                                                     session, c->number, n);
    load_bytes(&c->lc, head, (size_t)h);
    load_bytes(&c->lc, payload, n);
    load_bytes(&c->lc, c->role == ROLE_SPEAKER ? "\r\nPING\r\n" : "\r\n",
               c->role == ROLE_SPEAKER ? 8 : 2);
}

struct peer peer_nats = {
    .name = "nats",
    .ack =
        "JetStream answers after writing to its file, which it flushes to disk every two minutes: "
        "a power cut loses what was acknowledged. Fan-out is plain NATS, which stores nothing",
    .version = "nats-server --version | sed 's/:/ /;s/  */ /g'",
    .can = CAN_PUBLISH | CAN_PIPELINE | CAN_FANOUT | CAN_REPLAY | CAN_HELLO,
    .setup = true,
    .command = command,
    .connect = to,
    .publish = publish};
