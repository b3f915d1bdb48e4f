/*
 * peer_mosquitto.c - mosquitto: a topic a session, QoS 1, the last message retained; followers at
 * QoS 0. Protocol: MQTT 3.1.1.
 */
#include "peers.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void command(struct peer *p, const char **argv)
{
    snprintf(p->arg[0], sizeof p->arg[0], "%s/mosquitto.conf", p->dir);
    peer_file(p, "mosquitto.conf",
              "listener %d 127.0.0.1\nallow_anonymous true\npersistence true\n"
              "persistence_location %s/\nset_tcp_nodelay true\nmax_queued_messages 0\n"
              "log_type error\n%s",
              p->port, p->dir, geteuid() == 0 ? "user root\n" : "");
    argv[0] = "mosquitto";
    argv[1] = "-c";
    argv[2] = p->arg[0];
}

/* A packet: type and flags, remaining length (3.1.1, 2.2.3), and what the caller adds. */
static void head(struct pc *c, unsigned char type, size_t n)
{
    unsigned char h[5] = {type};
    size_t at = 1;
    do {
        h[at++] = (unsigned char)(n % 128 | (n > 127 ? 128 : 0));
        n /= 128;
    } while (n);
    load_bytes(&c->lc, h, at);
}

static void field(struct pc *c, const char *text)
{
    const size_t n = strlen(text);
    const unsigned char size[2] = {(unsigned char)(n >> 8), (unsigned char)n};
    load_bytes(&c->lc, size, 2);
    load_bytes(&c->lc, text, n);
}

static void opened(struct lc *lc)
{
    static const unsigned char fixed[10] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0};
    struct pc *c = (struct pc *)lc;
    char id[24];
    snprintf(id, sizeof id, "b%u", c->number);
    head(c, 0x10, sizeof fixed + 2 + strlen(id));
    load_bytes(lc, fixed, sizeof fixed);
    field(c, id);
    if (c->role == ROLE_FOLLOWER) {
        head(c, 0x82, 6);
        load_bytes(lc, "\0\1", 2);
        field(c, "f");
        load_bytes(lc, "\0", 1);
    }
    load_flush(lc);
}

static void packet(struct pc *c, const unsigned char *p, size_t body)
{
    const unsigned char type = p[0] >> 4;
    if (type == 2 && (body < 2 || p[3] != 0)) {
        load_die("mosquitto refuses a connection");
    }
    if ((type == 2 && c->role != ROLE_FOLLOWER) || type == 9) {
        peer_ready(c);
    } else if (type == 3) {
        peer_event(c, 1);
    } else if (type == 4) {
        peer_acked(c);
    }
}

static size_t bytes(struct lc *lc, const char *in, size_t n)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t at = 0;
    while (n - at >= 2) {
        size_t size = 0, h = 1;
        int shift = 0;
        while (at + h < n && h < 5) {
            size |= (size_t)(p[at + h] & 127) << shift;
            shift += 7;
            if (!(p[at + h++] & 128)) {
                break;
            }
        }
        if ((p[at + h - 1] & 128) || n - at < h + size) {
            break;
        }
        packet((struct pc *)lc, p + at, size);
        at += h + size;
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
    char topic[16] = "f";
    const unsigned id = (unsigned)(c->sent % 65535) + 1;
    const unsigned char packet_id[2] = {(unsigned char)(id >> 8), (unsigned char)id};
    if (c->role == ROLE_PUBLISHER) {
        snprintf(topic, sizeof topic, "s/%u", session);
    }
    head(c, c->role == ROLE_PUBLISHER ? 0x33 : 0x32, 2 + strlen(topic) + 2 + n);
    field(c, topic);
    load_bytes(&c->lc, packet_id, 2);
    load_bytes(&c->lc, payload, n);
}

struct peer peer_mosquitto = {
    .name = "mosquitto",
    .ack =
        "PUBACK (QoS 1) comes when the message is in memory; the file is written every half hour "
        "and at the end. It keeps the last message of a topic, no log, so nothing can be replayed",
    .version = "mosquitto -h | sed -n '1s/ version/ /p' | sed 's/  */ /g'",
    .can = CAN_PUBLISH | CAN_PIPELINE | CAN_FANOUT | CAN_HELLO,
    .command = command,
    .connect = to,
    .publish = publish};
