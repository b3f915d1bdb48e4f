/*
 * peer_nchan.c - nginx with nchan: a channel a session, published by HTTP POST on connections that
 * are kept, followed and replayed by WebSocket.
 */
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void command(struct peer *p, const char **argv)
{
    snprintf(p->arg[0], sizeof p->arg[0], "%s/nginx.conf", p->dir);
    peer_file(p, "nginx.conf",
              "load_module modules/ngx_nchan_module.so;\n%sdaemon off;\nworker_processes 1;\n"
              "worker_rlimit_nofile 20000;\npid %s/pid;\nerror_log stderr error;\n"
              "events { worker_connections 15000; }\n"
              "http {\n access_log off; keepalive_requests 1000000000; tcp_nodelay on;\n"
              " client_body_temp_path %s/1; proxy_temp_path %s/2; fastcgi_temp_path %s/3;\n"
              " uwsgi_temp_path %s/4; scgi_temp_path %s/5;\n nchan_shared_memory_size 2048M;\n"
              " server {\n  listen 127.0.0.1:%d;\n"
              "  location ~ /pub/(\\w+)$ { nchan_publisher; nchan_channel_id $1;"
              " nchan_message_buffer_length 20000; nchan_message_timeout 1h; }\n"
              "  location ~ /sub/(\\w+)$ { nchan_subscriber websocket; nchan_channel_id $1;"
              " nchan_subscriber_first_message newest; }\n"
              "  location ~ /old/(\\w+)$ { nchan_subscriber websocket; nchan_channel_id $1;"
              " nchan_subscriber_first_message oldest; }\n }\n}\n",
              geteuid() == 0 ? "user root;\n" : "", p->dir, p->dir, p->dir, p->dir, p->dir, p->dir,
              p->port);
    const char *const args[] = {"nginx",   "-p", "/usr/share/nginx", "-c",
                                p->arg[0], "-e", "stderr",           NULL};
    memcpy(argv, args, sizeof args);
}

/* Answers to POST. */
static size_t bytes(struct lc *lc, const char *in, size_t n)
{
    size_t at = 0;
    const char *end;
    while (at < n && (end = memmem(in + at, n - at, "\r\n\r\n", 4)) != NULL) {
        const size_t h = (size_t)(end - in) + 4 - at;
        const char *key = memmem(in + at, h, "Content-Length: ", 16);
        const size_t body = key ? (size_t)strtol(key + 16, NULL, 10) : 0;
        if (n - at < h + body) {
            break;
        }
        if (in[at + 9] != '2') {
            load_die("nchan: %.*s", (int)h, in + at);
        }
        at += h + body;
        peer_acked((struct pc *)lc);
    }
    return at;
}

static void text(struct lc *lc, const char *frame, size_t n)
{
    (void)frame;
    (void)n;
    peer_event((struct pc *)lc, 1);
}

static void opened(struct lc *lc)
{
    peer_ready((struct pc *)lc);
}

static void to(struct pc *c)
{
    char path[32];
    c->lc.on_open = opened;
    if (c->role == ROLE_PUBLISHER || c->role == ROLE_SPEAKER) {
        c->lc.on_bytes = bytes;
        load_connect_bytes(&c->lc, c->peer->port);
        return;
    }
    if (c->role == ROLE_FOLLOWER) {
        snprintf(path, sizeof path, "/sub/f");
    } else {
        snprintf(path, sizeof path, "/%s/s%u", c->role == ROLE_REPLAYER ? "old" : "sub",
                 c->session);
    }
    const struct load_target t = {.port = c->peer->port, .path = path};
    c->lc.on_text = text;
    load_connect(&c->lc, &t);
}

static void publish(struct pc *c, unsigned session, const char *payload, size_t n)
{
    char head[128], id[16] = "f";
    if (c->role == ROLE_PUBLISHER) {
        snprintf(id, sizeof id, "s%u", session);
    }
    const int h =
        snprintf(head, sizeof head,
                 "POST /pub/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", id, n);
    load_bytes(&c->lc, head, (size_t)h);
    load_bytes(&c->lc, payload, n);
}

struct peer peer_nchan = {
    .name = "nchan",
    .ack = "the POST is answered when the message is in shared memory; nothing is ever written to "
           "disk, a restart loses it",
    .version = "test -e /usr/lib/nginx/modules/ngx_nchan_module.so && echo "
               "$(nginx -v 2>&1 | sed 's|.*nginx/|nginx |;s/ *(.*//') "
               "$(dpkg-query -W -f '${Package} ${Version}' libnginx-mod-nchan)",
    .can = CAN_PUBLISH | CAN_PIPELINE | CAN_FANOUT | CAN_REPLAY | CAN_HELLO,
    .command = command,
    .connect = to,
    .publish = publish};
