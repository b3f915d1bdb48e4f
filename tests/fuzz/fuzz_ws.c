/*
 * fuzz_ws.c - bytes from a stranger into a connection: frame decoder, JSON guard, handshake,
 * methods, with the reactor's own loop but without threads. The core in its place welcomes whoever
 * attaches and answers what it is asked.
 *
 * Input: the first byte chooses: bit 0, an event stream's peer or an echo instead of /ws now and
 * then; bit 1, a valid hello is sent first; bit 2, rates are limited; then pieces: a length byte
 * and that many bytes, each delivered alone.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "edge/pool.h"

static struct eg_reactors *rs;
static struct eg_auth *auth;
static struct eg_limits *limits;
static char *hello;
static int64_t clock_ms = 1000;

static struct eg_now fake_now(void)
{
    return (struct eg_now){.mono_ms = clock_ms, .wall_ms = 1800000000000 + clock_ms};
}

/* The core: one answer a command. */
static void core(void *arg, struct eg_cmd *first, struct eg_cmd *last)
{
    (void)arg;
    last->node.next = NULL;
    while (first) {
        struct eg_cmd *const next = (struct eg_cmd *)first->node.next;
        struct eg_release *const r = calloc(1, sizeof *r);
        r->out = calloc(1, sizeof *r->out);
        r->out[0].conn = first->conn;
        r->n = r->cap = 1;
        if (first->kind == EG_CMD_ATTACH) {
            struct eg_welcome *const w = calloc(1, sizeof *w);
            w->worker = first->frame.role == EG_ROLE_AGENT;
            w->sid = w->worker ? 0 : 1;
            w->legacy = first->legacy;
            strcpy(w->session_id, "s1");
            strcpy(w->agent_id, "echo");
            r->out[0].kind = EG_OUT_WELCOME;
            r->out[0].welcome = w;
        } else if (first->kind == EG_CMD_SYNC) {
            r->out[0].kind = EG_OUT_SYNC;
        } else {
            r->out[0].kind = EG_OUT_FRAME;
            r->out[0].bytes = eg_bytes_copy("{\"type\":\"x\"}", 12);
        }
        eg_reactors_release(rs, EG_CONN_REACTOR(first->conn), r);
        eg_cmd_free(first);
        first = next;
    }
}

static char *make_token(struct eg_keyring *ring)
{
    struct eg_buf out = {0};
    char sub[] = "ann", all[] = "*";
    char *agents[] = {all, NULL};
    struct eg_claims claims = {.sub = sub,
                               .iat_s = 1800000000,
                               .exp_s = 1800086400,
                               .scopes = EG_SCOPE_READ | EG_SCOPE_WRITE | EG_SCOPE_AGENT,
                               .agents = agents};
    if (eg_token_mint(ring, &claims, &out) != EG_OK) {
        abort();
    }
    return eg_buf_take(&out);
}

static void set_up(void)
{
    char dir[] = "/tmp/fuzz-ws-XXXXXX", kid[64], path[256], why[256];
    struct eg_keyring *ring = NULL;
    struct eg_settings *const settings = eg_settings_new();
    eg_clock_replace(fake_now);
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    settings->max_payload = 65536;
    settings->max_refused_frames = 1000;
    if (!mkdtemp(dir) || eg_key_generate(dir, 1, kid, path, sizeof path) != EG_OK ||
        eg_keyring_load(dir, NULL, &ring, why, sizeof why) != EG_OK ||
        eg_auth_new(ring, settings, &auth) != EG_OK || eg_limits_new(settings, &limits) != EG_OK) {
        abort();
    }
    unlink(path);
    rmdir(dir);
    const struct eg_reactors_config config = {
        .count = 1, .settings = settings, .auth = auth, .limits = limits};
    const struct eg_reactor_seams seams = {.post = core};
    if (eg_reactors_new(&config, &rs) != EG_OK) {
        abort();
    }
    eg_reactors_seams(rs, &seams);
    if (eg_pool_start(&eg_log_store, "/nonexistent", 1, &rs->pool) != EG_OK) {
        abort();
    }
    char *const token = make_token(ring);
    struct eg_buf b = {0};
    eg_buf_printf(&b,
                  "{\"type\":\"hello\",\"agent_id\":\"echo\",\"capabilities\":[\"streaming\","
                  "\"presence\"],\"token\":\"%s\"}",
                  token);
    free(token);
    hello = eg_buf_take(&b);
    eg_keyring_unref(ring);
    eg_settings_unref(settings);
}

/* rests: whoever stands in line may have to wait longer than for the next turn (rest.h). */
static void turns(int n, bool rests)
{
    while (n-- > 0) {
        if (!rests) {
            rs->reactor[0].rest_until_us = 0;
        }
        eg_loop_turn(&rs->reactor[0], false);
    }
}

/* One text frame, masked with zeros. */
static void say(int fd, const char *text)
{
    const size_t n = strlen(text);
    const uint8_t head[8] = {0x81, 0xfe, (uint8_t)(n >> 8), (uint8_t)n};
    if (send(fd, head, sizeof head, MSG_NOSIGNAL) > 0) {
        (void)!send(fd, text, n, MSG_NOSIGNAL);
    }
}

static void swallow(int fd)
{
    char b[65536];
    while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0) {
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd[2];
    if (!rs) {
        set_up();
    }
    if (size < 1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) != 0) {
        return 0;
    }
    struct eg_adopted a = {.fd = fd[0],
                           .mode = (data[0] & 0xf1) == 0xf1 ? EG_CONN_ECHO : EG_CONN_WS,
                           .origin_allowed = (data[0] & 0xf0) != 0x80};
    const bool rests = data[0] & 4;
    eg_reactors_adopt(rs, &a);
    turns(1, false);
    if (data[0] & 2) {
        say(fd[1], hello);
        turns(3, false);
    }
    for (size_t at = 1; at < size;) {
        const size_t want = (size_t)data[at++] + 1;
        const size_t n = want < size - at ? want : size - at;
        if (n && send(fd[1], data + at, n, MSG_NOSIGNAL) < 0) {
            break;
        }
        at += n;
        turns(1, rests);
        swallow(fd[1]);
        clock_ms += 100;
    }
    close(fd[1]);
    turns(2, false);
    /* What lingers ends at its deadline; nothing may be left. */
    clock_ms += 60000;
    turns(3, false);
    if (rs->reactor[0].peers != 0) {
        abort();
    }
    return 0;
}
