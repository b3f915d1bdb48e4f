/*
 * peer_node.c - two servers on Node: plain `ws` (echo and broadcast), and Socket.IO with connection
 * state recovery. Their programs are in tests/bench/peers/.
 */
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE_VERSION(package)                                                                      \
    "NODE_PATH=${BENCH_NODE:-build/bench/node_modules} node -p '\"" package                        \
    " \"+require(\"" package "/package.json\").version+\", node \"+process.version' 2>/dev/null"

static void command(struct peer *p, const char **argv, const char *program)
{
    const char *modules = getenv("BENCH_NODE");
    snprintf(p->arg[0], sizeof p->arg[0], "NODE_PATH=%s",
             modules ? modules : "build/bench/node_modules");
    snprintf(p->arg[1], sizeof p->arg[1], "%d", p->port);
    const char *const args[] = {"env", p->arg[0], "node", program, p->arg[1], NULL};
    memcpy(argv, args, sizeof args);
}

/* --- ws --- */

static void ws_command(struct peer *p, const char **argv)
{
    command(p, argv, "tests/bench/peers/ws.js");
}

static void ws_text(struct lc *lc, const char *text, size_t n)
{
    struct pc *c = (struct pc *)lc;
    (void)text;
    (void)n;
    if (c->role == ROLE_FOLLOWER) {
        peer_event(c, 1);
    } else {
        peer_acked(c);
    }
}

static void ws_opened(struct lc *lc)
{
    peer_ready((struct pc *)lc);
}

static void ws_to(struct pc *c)
{
    const struct load_target t = {.port = c->peer->port,
                                  .path = c->role == ROLE_FOLLOWER  ? "/follow"
                                          : c->role == ROLE_SPEAKER ? "/speak"
                                                                    : "/echo"};
    c->lc.on_open = ws_opened;
    c->lc.on_text = ws_text;
    load_connect(&c->lc, &t);
}

static void ws_publish(struct pc *c, unsigned session, const char *payload, size_t n)
{
    (void)session;
    load_queue(&c->lc, payload, n);
}

struct peer peer_ws = {.name = "ws",
                       .ack = "none: an echo, or a broadcast from memory; nothing is stored",
                       .version = NODE_VERSION("ws"),
                       .can = CAN_ECHO | CAN_FANOUT | CAN_HELLO,
                       .command = ws_command,
                       .connect = ws_to,
                       .publish = ws_publish};

/* --- Socket.IO: Engine.IO 4 in WebSocket frames, Socket.IO 5 in those --- */

enum { PID, OFFSET }; /* of pc.place */

static void io_command(struct peer *p, const char **argv)
{
    command(p, argv, "tests/bench/peers/socketio.js");
}

/* The JSON string after key, into out. */
static void string_after(const char *text, size_t n, const char *key, char *out, size_t size)
{
    const char *at = memmem(text, n, key, strlen(key));
    const char *from = at ? at + strlen(key) : text;
    const char *end = memchr(from, '"', n - (size_t)(from - text));
    snprintf(out, size, "%.*s", at && end ? (int)(end - from) : 0, from);
}

/* Connected to the namespace: joins its room and asks for an answer; a resumed one is in it. */
static void io_connected(struct pc *c, const char *text, size_t n)
{
    if (c->role == ROLE_PLACER) {
        string_after(text, n, "\"pid\":\"", c->place[PID], sizeof c->place[PID]);
        load_sendf(&c->lc, "420[\"join\",\"s%u\"]", c->session);
    } else if (c->role == ROLE_FOLLOWER) {
        load_sendf(&c->lc, "420[\"join\",\"f\"]");
    } else {
        peer_ready(c);
    }
}

static void io_text(struct lc *lc, const char *text, size_t n)
{
    struct pc *c = (struct pc *)lc;
    if (text[0] == '2') {
        load_send(lc, "3", 1);
    } else if (text[0] == '0' && c->role == ROLE_REPLAYER) {
        load_sendf(lc, "40{\"pid\":\"%s\",\"offset\":\"%s\"}", c->place[PID], c->place[OFFSET]);
    } else if (text[0] == '0') {
        load_send(lc, "40", 2);
    } else if (n > 1 && text[1] == '0') {
        io_connected(c, text, n);
    } else if (n > 1 && text[1] == '2') {
        if (c->role == ROLE_PLACER) {
            const char *comma = memrchr(text, ',', n);
            string_after(comma ? comma : text, n - (size_t)((comma ? comma : text) - text), ",\"",
                         c->place[OFFSET], sizeof c->place[OFFSET]);
        }
        peer_event(c, 1);
    } else if (n > 1 && text[1] == '3') {
        if (c->ready) {
            peer_acked(c);
        } else {
            peer_ready(c);
        }
    } else if (n > 1 && text[1] == '4') {
        load_die("socket.io: %.*s", (int)n, text);
    }
}

static void io_opened(struct lc *lc)
{
    (void)lc; /* the server speaks first */
}

static void io_to(struct pc *c)
{
    const struct load_target t = {.port = c->peer->port,
                                  .path = "/socket.io/?EIO=4&transport=websocket"};
    c->lc.on_open = io_opened;
    c->lc.on_text = io_text;
    load_connect(&c->lc, &t);
}

static void io_publish(struct pc *c, unsigned session, const char *payload, size_t n)
{
    char frame[640], room[16] = "f";
    if (c->role == ROLE_PUBLISHER) {
        snprintf(room, sizeof room, "s%u", session);
    }
    const int size = snprintf(frame, sizeof frame, "42%lu[\"m\",\"%s\",\"%.*s\"]", c->sent, room,
                              (int)n, payload);
    load_queue(&c->lc, frame, (size_t)size);
}

struct peer peer_socketio = {
    .name = "socket.io",
    .ack = "the server's acknowledgement comes when the packet is in the process's memory, from "
           "where connection state recovery gives it to who was away up to two minutes; nothing is "
           "on disk",
    .version = NODE_VERSION("socket.io"),
    .can = CAN_PUBLISH | CAN_PIPELINE | CAN_FANOUT | CAN_REPLAY | CAN_HELLO,
    .place = true,
    .command = io_command,
    .connect = io_to,
    .publish = io_publish};
