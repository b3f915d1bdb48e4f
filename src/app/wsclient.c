/*
 * wsclient.c - see wsclient.h.
 *
 * libcurl only connects (CURLOPT_CONNECT_ONLY) and moves bytes; the upgrade and the frames are
 * ours.
 */
#include "app/wsclient.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/trust.h"
#include "app/wsanswer.h"
#include "app/wsframe.h"
#include "base/clock.h"
#include "ebbgate/codes.h"
#include "ebbgate/protocol.h"

#define CONNECT_MS 10000L
#define HANDSHAKE_MS 15000 /* from connecting to hello_ok */
#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 10000
#define MESSAGE_MAX ((size_t)68 << 20)
#define EXTRA_MAX 1100

enum state { WAITING, CONNECTING, UPGRADING, OPEN, STOPPED };

struct eg_wsc {
    struct eg_wsc_hooks hooks;
    char *url; /* http or https, for libcurl */
    char *host, *path;
    char *token;
    enum state state;
    CURLM *multi;
    CURL *easy;
    curl_socket_t fd;
    char error[CURL_ERROR_SIZE];
    char accept[29];
    struct eg_buf out; /* bytes to send */
    size_t out_at;
    struct eg_wsframe_in in;
    struct eg_buf answer;            /* of the upgrade */
    int64_t next_ms;                 /* WAITING: when to try */
    int64_t deadline_ms, silence_ms; /* when this state is over; how long OPEN may be silent */
    int64_t retry_after_ms;          /* -1 none */
    int failures;
    bool close_sent;
};

/* ---- URL ---- */

static char *url_part(CURLU *u, CURLUPart part)
{
    char *text = NULL, *copy = NULL;
    if (curl_url_get(u, part, &text, 0) == CURLUE_OK && text)
        copy = strdup(text);
    curl_free(text);
    return copy;
}

/* Takes url apart. False with why. */
static bool set_url(struct eg_wsc *c, const char *url, char *why, size_t why_size)
{
    bool ok = false;
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *query = NULL, *whole = NULL;
    CURLU *u = curl_url();
    if (!u || curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        goto out;
    scheme = url_part(u, CURLUPART_SCHEME);
    host = url_part(u, CURLUPART_HOST);
    port = url_part(u, CURLUPART_PORT);
    path = url_part(u, CURLUPART_PATH);
    query = url_part(u, CURLUPART_QUERY);
    if (!scheme || !host || !path)
        goto out;
    bool plain = strcmp(scheme, "ws") == 0 || strcmp(scheme, "http") == 0;
    if (!plain && strcmp(scheme, "wss") != 0 && strcmp(scheme, "https") != 0)
        goto out;
    if (asprintf(&c->host, "%s%s%s", host, port ? ":" : "", port ? port : "") < 0 ||
        asprintf(&c->path, "%s%s%s", strcmp(path, "/") == 0 ? "/ws" : path, query ? "?" : "",
                 query ? query : "") < 0 ||
        asprintf(&whole, "http%s://%s/", plain ? "" : "s", c->host) < 0)
        goto out;
    c->url = whole;
    ok = true;
out:
    if (!ok)
        snprintf(why, why_size, "\"%s\" is no URL such as ws://127.0.0.1:7070/ws", url);
    curl_url_cleanup(u);
    free(scheme);
    free(host);
    free(port);
    free(path);
    free(query);
    return ok;
}

enum eg_err eg_wsc_new(const char *url, const char *token, const struct eg_wsc_hooks *hooks,
                       struct eg_wsc **out, char *why, size_t why_size)
{
    static bool ready;
    struct eg_wsc *c = calloc(1, sizeof *c);
    if (!c)
        return EG_ENOMEM;
    if (!ready)
        curl_global_init(CURL_GLOBAL_DEFAULT);
    ready = true;
    c->hooks = *hooks;
    c->fd = CURL_SOCKET_BAD;
    c->retry_after_ms = -1;
    c->in.max_message = MESSAGE_MAX;
    c->multi = curl_multi_init();
    if (!set_url(c, url, why, why_size)) {
        eg_wsc_free(c);
        return EG_EINVALID;
    }
    if (!c->multi || (token && !eg_wsc_token(c, token))) {
        eg_wsc_free(c);
        return EG_ENOMEM;
    }
    *out = c;
    return EG_OK;
}

static void drop(struct eg_wsc *c)
{
    if (c->easy) {
        curl_multi_remove_handle(c->multi, c->easy);
        curl_easy_cleanup(c->easy);
    }
    c->easy = NULL;
    c->fd = CURL_SOCKET_BAD;
    eg_buf_reset(&c->out);
    c->out_at = 0;
    eg_wsframe_in_free(&c->in);
    c->in.error = NULL;
    eg_buf_free(&c->answer);
    c->close_sent = false;
}

void eg_wsc_free(struct eg_wsc *c)
{
    if (!c)
        return;
    drop(c);
    eg_buf_free(&c->out);
    curl_multi_cleanup(c->multi);
    free(c->url);
    free(c->host);
    free(c->path);
    free(c->token);
    free(c);
}

bool eg_wsc_token(struct eg_wsc *c, const char *token)
{
    char *copy = strdup(token);
    if (!copy)
        return false;
    free(c->token);
    c->token = copy;
    return true;
}

void eg_wsc_settled(struct eg_wsc *c, int64_t heartbeat_ms)
{
    c->failures = 0;
    c->silence_ms = heartbeat_ms * 5 / 2 + 1000;
    c->deadline_ms = eg_clock_mono_ms() + c->silence_ms;
}

bool eg_wsc_is_open(const struct eg_wsc *c)
{
    return c->state == OPEN && !c->close_sent;
}

size_t eg_wsc_queued(const struct eg_wsc *c)
{
    return c->out.n - c->out_at;
}

void eg_wsc_retry_after(struct eg_wsc *c, int64_t ms)
{
    c->retry_after_ms = ms;
}

void eg_wsc_stop(struct eg_wsc *c)
{
    drop(c);
    c->state = STOPPED;
}

/* ---- the end of a connection ---- */

static int64_t backoff(struct eg_wsc *c)
{
    uint32_t r;
    int64_t wait = BACKOFF_MIN_MS;
    for (int i = 0; i < c->failures && wait < BACKOFF_MAX_MS; i++)
        wait *= 2;
    if (wait > BACKOFF_MAX_MS)
        wait = BACKOFF_MAX_MS;
    eg_random(&r, sizeof r);
    return wait / 2 + (int64_t)(r % (uint32_t)wait); /* 0.5 to 1.5 of it */
}

static void lose(struct eg_wsc *c, struct eg_wsc_end *end)
{
    end->was_open = c->state == OPEN;
    drop(c);
    c->state = WAITING;
    int64_t wait = backoff(c);
    c->failures++;
    if (end->retry_after_ms < 0)
        end->retry_after_ms = c->retry_after_ms;
    c->retry_after_ms = -1;
    c->next_ms = eg_clock_mono_ms() + (end->retry_after_ms >= 0 ? end->retry_after_ms : wait);
    c->hooks.lost(c->hooks.arg, end);
    if (c->state == WAITING && c->retry_after_ms >= 0) {
        c->next_ms = eg_clock_mono_ms() + c->retry_after_ms;
        c->retry_after_ms = -1;
    }
}

static void EG_PRINTF(3, 4) lose_because(struct eg_wsc *c, int close_code, const char *fmt, ...)
{
    struct eg_wsc_end end = {.close_code = close_code, .retry_after_ms = -1};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(end.reason, sizeof end.reason, fmt, ap);
    va_end(ap);
    lose(c, &end);
}

/* ---- connecting and upgrading ---- */

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 ||
           strncmp(host, "[::1]", 5) == 0;
}

static void start_connect(struct eg_wsc *c)
{
    c->easy = curl_easy_init();
    if (!c->easy) {
        lose_because(c, 0, "out of memory");
        return;
    }
    c->error[0] = '\0';
    curl_easy_setopt(c->easy, CURLOPT_URL, c->url);
    curl_easy_setopt(c->easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c->easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->error);
    eg_trust(c->easy);
    if (is_loopback(c->host))
        curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "*");
    if (curl_multi_add_handle(c->multi, c->easy) != CURLM_OK) {
        lose_because(c, 0, "out of memory");
        return;
    }
    c->state = CONNECTING;
    c->deadline_ms = eg_clock_mono_ms() + HANDSHAKE_MS;
}

static void send_upgrade(struct eg_wsc *c)
{
    uint8_t random[16];
    char key[25];
    eg_random(random, sizeof random);
    eg_wskey_make(random, key);
    eg_wskey_accept(key, c->accept);
    eg_buf_printf(&c->out,
                  "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n"
                  "Sec-WebSocket-Protocol: %s\r\nUser-Agent: ebbgate/%s\r\n",
                  c->path, c->host, key, EG_SUBPROTOCOL, EG_VERSION);
    if (c->token)
        eg_buf_printf(&c->out, "Authorization: Bearer %s\r\n", c->token);
    eg_buf_str(&c->out, "\r\n");
    c->state = UPGRADING;
}

static void go_on_connecting(struct eg_wsc *c)
{
    int running = 0, left = 0;
    curl_multi_perform(c->multi, &running);
    CURLMsg *m = curl_multi_info_read(c->multi, &left);
    if (!m || m->msg != CURLMSG_DONE)
        return;
    CURLcode rc = m->data.result;
    if (rc == CURLE_OK)
        rc = curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &c->fd);
    if (rc != CURLE_OK || c->fd == CURL_SOCKET_BAD) {
        char text[CURL_ERROR_SIZE];
        snprintf(text, sizeof text, "%s", *c->error ? c->error : curl_easy_strerror(rc));
        lose_because(c, 0, "cannot connect: %.200s", text);
        return;
    }
    send_upgrade(c);
}

/* Looks at what came so far. ended: there will be no more. */
static void read_answer(struct eg_wsc *c, bool ended)
{
    struct eg_wsanswer a;
    struct eg_wsc_end end = {0};
    switch (eg_wsanswer_read((struct eg_slice){c->answer.p, c->answer.n}, ended, c->accept, &a)) {
    case EG_WSANSWER_MORE:
        return;
    case EG_WSANSWER_OPEN:
        eg_buf_slice(&c->in.bytes, a.frames);
        eg_buf_free(&c->answer);
        c->state = OPEN;
        c->silence_ms = 0;
        c->hooks.open(c->hooks.arg);
        return;
    case EG_WSANSWER_REFUSED:
    case EG_WSANSWER_BROKEN:
        end.http_status = a.status;
        end.retry_after_ms = a.retry_after_ms;
        snprintf(end.code, sizeof end.code, "%s", a.code);
        snprintf(end.reason, sizeof end.reason, "%s", a.reason);
        lose(c, &end);
        return;
    }
}

/* ---- frames ---- */

void eg_wsc_send(struct eg_wsc *c, struct eg_slice text)
{
    uint8_t mask[4];
    if (!eg_wsc_is_open(c))
        return;
    eg_random(mask, sizeof mask);
    eg_wsframe_write(&c->out, EG_WS_TEXT, text, mask);
}

static void send_control(struct eg_wsc *c, enum eg_ws_opcode op, struct eg_slice payload)
{
    uint8_t mask[4];
    if (c->close_sent)
        return;
    eg_random(mask, sizeof mask);
    eg_wsframe_write(&c->out, op, payload, mask);
}

void eg_wsc_close(struct eg_wsc *c, int code)
{
    char body[2] = {(char)(code >> 8), (char)(code & 0xff)};
    if (c->state != OPEN || c->close_sent)
        return;
    send_control(c, EG_WS_CLOSE, (struct eg_slice){body, 2});
    c->close_sent = true;
    c->deadline_ms = eg_clock_mono_ms() + 2000;
}

/* Writes what waits. False when the connection is gone. */
static bool flush_out(struct eg_wsc *c)
{
    while (c->out_at < c->out.n) {
        size_t n = 0;
        CURLcode rc = curl_easy_send(c->easy, c->out.p + c->out_at, c->out.n - c->out_at, &n);
        if (rc == CURLE_AGAIN)
            return true;
        if (rc != CURLE_OK)
            return false;
        c->out_at += n;
    }
    bool ok = c->out.err == EG_OK;
    eg_buf_reset(&c->out);
    c->out_at = 0;
    return ok;
}

static void handle_close(struct eg_wsc *c, struct eg_slice body)
{
    int code = 1005;
    char reason[126] = "";
    if (body.n >= 2) {
        code = (uint8_t)body.p[0] << 8 | (uint8_t)body.p[1];
        snprintf(reason, sizeof reason, "%.*s", (int)(body.n - 2), body.p + 2);
    }
    send_control(c, EG_WS_CLOSE, (struct eg_slice){body.p, body.n >= 2 ? 2 : 0});
    (void)flush_out(c);
    lose_because(c, code, "%s", reason);
}

/* Hands out what is complete. Hooks may stop or close the connection. */
static void read_frames(struct eg_wsc *c)
{
    enum eg_ws_opcode op = EG_WS_TEXT;
    struct eg_slice payload;
    int got = 0;
    while (c->state == OPEN && (got = eg_wsframe_next(&c->in, &op, &payload)) > 0) {
        if (op == EG_WS_TEXT)
            c->hooks.text(c->hooks.arg, payload);
        else if (op == EG_WS_PING)
            send_control(c, EG_WS_PONG, payload);
        else if (op == EG_WS_CLOSE)
            handle_close(c, payload);
    }
    if (c->state == OPEN && got < 0) {
        int code = c->in.close_code;
        const char *why = c->in.error;
        eg_wsc_close(c, code);
        (void)flush_out(c);
        lose_because(c, 0, "the gateway broke the WebSocket protocol: %s", why);
    }
}

/* Reads all there is. */
static void receive(struct eg_wsc *c)
{
    for (int rounds = 0; rounds < 64 && (c->state == UPGRADING || c->state == OPEN); rounds++) {
        struct eg_buf *to = c->state == UPGRADING ? &c->answer : &c->in.bytes;
        size_t n = 0;
        char *p = eg_buf_reserve(to, 16384);
        if (!p) {
            lose_because(c, 0, "out of memory");
            return;
        }
        CURLcode rc = curl_easy_recv(c->easy, p, 16384, &n);
        if (rc == CURLE_AGAIN)
            return;
        if (rc != CURLE_OK || n == 0) {
            if (c->state == UPGRADING)
                read_answer(c, true);
            else
                lose_because(c, 0, "connection lost");
            return;
        }
        to->n += n;
        if (c->state == OPEN && c->silence_ms > 0 && !c->close_sent)
            c->deadline_ms = eg_clock_mono_ms() + c->silence_ms;
        if (c->state == UPGRADING)
            read_answer(c, false);
        if (c->state == OPEN)
            read_frames(c);
    }
}

/* ---- the loop ---- */

static int64_t until(int64_t at_ms, int64_t timeout_ms)
{
    int64_t left = at_ms - eg_clock_mono_ms();
    if (left < 0)
        left = 0;
    return timeout_ms < 0 || left < timeout_ms ? left : timeout_ms;
}

/* Waits for libcurl's sockets and ours. */
static void wait_connecting(struct eg_wsc *c, struct pollfd *fds, nfds_t nfds, int timeout_ms)
{
    struct curl_waitfd extra[EXTRA_MAX];
    unsigned n = 0;
    for (nfds_t i = 0; i < nfds && n < EXTRA_MAX; i++) {
        if (fds[i].fd < 0)
            continue;
        extra[n] = (struct curl_waitfd){.fd = fds[i].fd};
        extra[n++].events = (short)((fds[i].events & POLLIN ? CURL_WAIT_POLLIN : 0) |
                                    (fds[i].events & POLLOUT ? CURL_WAIT_POLLOUT : 0));
    }
    curl_multi_poll(c->multi, extra, n, timeout_ms, NULL);
    if (nfds > 0)
        poll(fds, nfds, 0); /* exact revents, hang-ups too */
}

static void wait_open(struct eg_wsc *c, struct pollfd *fds, nfds_t nfds, int timeout_ms)
{
    struct pollfd all[EXTRA_MAX + 1];
    nfds_t n = nfds < EXTRA_MAX ? nfds : EXTRA_MAX;
    short events = POLLIN;
    if (c->out_at < c->out.n)
        events |= POLLOUT;
    if (n > 0)
        memcpy(all, fds, n * sizeof *fds);
    all[n] = (struct pollfd){.fd = c->fd, .events = events};
    if (poll(all, n + 1, timeout_ms) < 0)
        for (nfds_t i = 0; i <= n; i++)
            all[i].revents = 0;
    if (n > 0)
        memcpy(fds, all, n * sizeof *fds);
    if (all[n].revents)
        receive(c);
}

static void check_deadline(struct eg_wsc *c)
{
    if (c->state != CONNECTING && c->state != UPGRADING && c->state != OPEN)
        return;
    if (eg_clock_mono_ms() < c->deadline_ms)
        return;
    if (c->state == UPGRADING && c->answer.n > 0) { /* a refusal whose end did not come */
        read_answer(c, true);
        return;
    }
    lose_because(c, 0, c->state == OPEN && c->silence_ms > 0 ? "no sign of life" : "no answer");
}

void eg_wsc_run(struct eg_wsc *c, struct pollfd *fds, nfds_t nfds, int64_t timeout_ms)
{
    if (c->state == WAITING && eg_clock_mono_ms() >= c->next_ms)
        start_connect(c);
    if (c->state == CONNECTING)
        go_on_connecting(c);
    if ((c->state == UPGRADING || c->state == OPEN) && !flush_out(c))
        lose_because(c, 0, "connection lost");
    switch (c->state) {
    case WAITING:
        poll(fds, nfds, (int)until(c->next_ms, timeout_ms));
        break;
    case CONNECTING:
        wait_connecting(c, fds, nfds, (int)until(c->deadline_ms, timeout_ms));
        break;
    case UPGRADING:
    case OPEN:
        wait_open(c, fds, nfds, (int)until(c->deadline_ms, timeout_ms));
        break;
    case STOPPED:
        poll(fds, nfds, (int)timeout_ms);
        break;
    }
    check_deadline(c);
    if ((c->state == UPGRADING || c->state == OPEN) && !flush_out(c))
        lose_because(c, 0, "connection lost");
}
