/*
 * talk.c - see talk.h.
 */
#include "talk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK_MS 10000

static const char *const ids[3] = {"m1", "m2", "h1"};

bool talk_tokens(struct tl_gate *g, struct talk_tokens *out)
{
    static const struct tl_claims client = {.sub = "c", .scope = "read write", .ttl = 864000};
    static const struct tl_claims worker = {
        .sub = "w", .scope = "agent", .agents = "talk", .ttl = 864000};
    out->client = tl_gate_token(g, &client);
    out->worker = tl_gate_token(g, &worker);
    return out->client && out->worker;
}

static uint64_t print_of(const char *p, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)p[i]) * 1099511628211u;
    }
    return h ? h : 1;
}

static bool wrong(struct talk *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(struct talk *k, const char *fmt, ...)
{
    va_list ap;
    if (!k->why[0]) {
        va_start(ap, fmt);
        vsnprintf(k->why, sizeof k->why, fmt, ap);
        va_end(ap);
    }
    return false;
}

static void saw(struct talk *k, int64_t cursor, const char *event, size_t n)
{
    if (cursor <= 0 || cursor >= TALK_CURSORS) {
        wrong(k, "a cursor of %lld", (long long)cursor);
        return;
    }
    const uint64_t print = event ? print_of(event, n) : 0;
    if (print && k->print[cursor] && k->print[cursor] != print) {
        wrong(k, "two events at cursor %lld", (long long)cursor);
    }
    k->print[cursor] = print ? print : k->print[cursor];
    k->top = (uint64_t)cursor > k->top ? (uint64_t)cursor : k->top;
}

static void accepted(struct talk *k, const char *id, int64_t cursor)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(id, ids[i]) != 0) {
            continue;
        }
        if (k->accepted[i] && k->accepted[i] != (uint64_t)cursor) {
            wrong(k, "%s was accepted at %llu and at %lld", id, (unsigned long long)k->accepted[i],
                  (long long)cursor);
        }
        k->accepted[i] = (uint64_t)cursor;
        saw(k, cursor, NULL, 0);
    }
}

/* Reads until a frame of this type; notes what is told on the way. NULL when none came. */
static cJSON *until(struct talk *k, struct tl_ws *ws, const char *type, int ms)
{
    const int64_t end = tl_now_ms() + ms;
    for (int64_t left; ws && (left = end - tl_now_ms()) > 0;) {
        cJSON *o = tl_json_next(ws, (int)left, NULL);
        if (!o) {
            return NULL;
        }
        if (tl_is(o, "status", "accepted")) {
            accepted(k, tl_str(o, "message_id"), tl_int(o, "cursor"));
        } else if (tl_is(o, "type", "replay")) {
            size_t n = 0;
            const char *event = tl_raw(tl_ws_data(ws), "event.data", &n);
            saw(k, tl_int(o, "seq"), event, n);
        } else if (tl_has(o, "seq")) {
            saw(k, tl_int(o, "cursor"), tl_ws_data(ws), tl_ws_len(ws));
        }
        if (tl_is(o, "type", type)) {
            return o;
        }
        cJSON_Delete(o);
    }
    return NULL;
}

static bool got(struct talk *k, struct tl_ws *ws, const char *type)
{
    cJSON *o = until(k, ws, type, k->wait_ms);
    cJSON_Delete(o);
    return o != NULL;
}

static bool asks(struct talk *k, struct tl_ws *ws, const char *frame, const char *answer)
{
    return tl_ws_text(ws, frame) && got(k, ws, answer);
}

/* What came instead of the last hello_ok that did not come. */
static char refusal[200];

static struct tl_ws *enter(struct tl_gate *g, const char *token, const char *extra, int ms)
{
    const struct tl_ws_opts o = {.port = tl_gate_port(g), .bearer = token, .timeout_ms = ms};
    int status = 0;
    struct tl_ws *ws = tl_ws_open(&o, &status);
    cJSON *hello = ws ? tl_hello(ws, "talk", NULL, extra, ms) : NULL;
    if (!tl_is(hello, "type", "hello_ok")) {
        snprintf(refusal, sizeof refusal, "status %d, code %s", status, tl_str(hello, "code"));
        tl_ws_free(ws);
        ws = NULL;
    }
    cJSON_Delete(hello);
    return ws;
}

static struct tl_ws *enter_client(struct talk *k, struct tl_gate *g, const char *token, int ms)
{
    char extra[200];
    snprintf(extra, sizeof extra,
             "\"session_id\":\"%s\",\"create\":true,\"since\":0,"
             "\"capabilities\":[\"streaming\",\"ack\",\"presence\"]",
             k->session);
    return enter(g, token, extra, ms);
}

static struct tl_ws *enter_worker(struct tl_gate *g, const char *token, int ms)
{
    return enter(g, token, "\"role\":\"agent\",\"capabilities\":[\"ack\"]", ms);
}

/* The worker takes a turn of this session and ends it. */
static bool one_turn(struct talk *k, struct tl_ws *worker, int emits)
{
    cJSON *turn = until(k, worker, "turn", k->wait_ms);
    const long long n = (long long)tl_int(turn, "turn");
    const long long attempt = (long long)tl_int(turn, "attempt");
    bool ok = turn != NULL;
    for (int i = 0; ok && i < emits; i++) {
        tl_ws_sendf(worker,
                    "{\"type\":\"emit\",\"session_id\":\"%s\",\"turn\":%lld,\"event\":"
                    "\"token_stream\",\"data\":{\"t\":%d},\"event_id\":\"e%lld-%lld-%d\"}",
                    k->session, n, i, n, attempt, i);
        ok = got(k, worker, "emitted");
    }
    if (ok) {
        tl_ws_sendf(worker,
                    "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":%lld,\"content\":\"done\","
                    "\"event_id\":\"f%lld\"}",
                    k->session, n, n);
        ok = got(k, worker, "emitted");
    }
    cJSON_Delete(turn);
    return ok;
}

static bool by_http(struct talk *k, struct tl_gate *g, const char *token)
{
    char path[128], head[2048];
    struct tl_http h = {0};
    bool ok;
    snprintf(path, sizeof path, "/v1/sessions/%s/messages", k->session);
    snprintf(head, sizeof head,
             "Authorization: Bearer %s\r\nIdempotency-Key: h1\r\n"
             "Content-Type: application/json\r\n",
             token);
    ok = tl_http(tl_gate_port(g), "POST", path, head, "{\"content\":\"by http\"}", &h) == 202;
    if (ok) {
        accepted(k, "h1", tl_scan_int(h.body, "cursor", 0));
    }
    tl_http_free(&h);
    snprintf(path, sizeof path, "/v1/sessions/%s/events?since=0", k->session);
    snprintf(head, sizeof head, "Authorization: Bearer %s\r\nAccept: application/json\r\n", token);
    ok = ok && tl_http(tl_gate_port(g), "GET", path, head, NULL, &h) == 200;
    tl_http_free(&h);
    ok = ok && tl_http(tl_gate_port(g), "GET", "/ready", NULL, NULL, &h) == 200;
    tl_http_free(&h);
    return ok;
}

void talk_run(struct talk *k, struct tl_gate *g, const struct talk_tokens *tokens)
{
    struct tl_ws *client = enter_client(k, g, tokens->client, k->wait_ms);
    struct tl_ws *worker = enter_worker(g, tokens->worker, k->wait_ms);
    struct tl_ws *late = NULL;
    if (!client || !worker) {
        goto out;
    }
    tl_ws_sendf(client, "{\"type\":\"message\",\"message_id\":\"m1\",\"content\":{\"a\":[1,2]}}");
    tl_ws_sendf(client, "{\"type\":\"message\",\"message_id\":\"m2\",\"content\":\"again\"}");
    if (!one_turn(k, worker, 2) || !one_turn(k, worker, 0)) {
        until(k, client, "-", 50);
        goto out;
    }
    tl_ws_sendf(client, "{\"type\":\"ack\",\"cursor\":3}");
    tl_ws_sendf(client, "{\"type\":\"typing\"}");
    if (!asks(k, client, "{\"type\":\"abort\"}", "no_active_turn") ||
        !asks(k, client, "{\"type\":\"history\",\"since\":0}", "history") ||
        !asks(k, client, "{\"type\":\"message\",\"content\":", "error")) {
        goto out;
    }
    late = enter_client(k, g, tokens->client, k->wait_ms);
    if (!late || !got(k, late, "replay_end") || !by_http(k, g, tokens->client) ||
        !one_turn(k, worker, 1) || !got(k, late, "response")) {
        goto out;
    }
    tl_ws_sendf(late, "{\"type\":\"ping\"}");
    tl_ws_sendf(client, "{\"type\":\"leave\"}");
    k->whole = got(k, late, "pong") && got(k, client, "left");
out:
    tl_ws_free(client);
    tl_ws_free(worker);
    tl_ws_free(late);
}

/* --- the check --- */

static bool repeat_all(struct talk *k, struct tl_ws *client)
{
    static const char *const content[3] = {"{\"a\":[1,2]}", "\"again\"", "\"by http\""};
    for (int i = 0; i < 3; i++) {
        const uint64_t before = k->accepted[i];
        tl_ws_sendf(client, "{\"type\":\"message\",\"message_id\":\"%s\",\"content\":%s}", ids[i],
                    content[i]);
        for (;;) {
            cJSON *o = until(k, client, "response", CHECK_MS);
            const bool mine = tl_is(o, "message_id", ids[i]), duplicate = tl_bool(o, "duplicate");
            const bool there = o != NULL;
            cJSON_Delete(o);
            if (!there) {
                return wrong(k, "%s: no answer to a repeat", ids[i]);
            }
            if (mine && before && !duplicate) {
                return wrong(k, "%s was accepted at %llu, and again as new", ids[i],
                             (unsigned long long)before);
            }
            if (mine) {
                break;
            }
        }
    }
    return true;
}

/* Ends the open turns of all sessions there are, until the client has its three ends. */
static bool end_turns(struct talk *k, struct tl_ws *worker, struct tl_ws *client)
{
    int open = 0;
    for (int64_t end = tl_now_ms() + CHECK_MS; tl_now_ms() < end;) {
        cJSON *turn = tl_json_wait(worker, "turn", 20);
        if (turn) {
            const long long n = (long long)tl_int(turn, "turn");
            tl_ws_sendf(worker,
                        "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":%lld,"
                        "\"content\":\"late\"}",
                        tl_str(turn, "session_id"), n);
            cJSON_Delete(turn);
            continue;
        }
        tl_ws_sendf(client, "{\"type\":\"abort\"}");
        cJSON *o = until(k, client, "no_active_turn", 20);
        open = o == NULL;
        cJSON_Delete(o);
        if (!open) {
            return true;
        }
    }
    return wrong(k, "turns stay open");
}

static bool log_is_whole(struct talk *k, struct tl_ws *ws)
{
    int ended[TALK_CURSORS] = {0}, message[TALK_CURSORS] = {0}, times[3] = {0};
    int64_t have = 0;
    for (bool end = false; !end;) {
        cJSON *o = tl_json_next(ws, CHECK_MS, NULL);
        if (!o) {
            return wrong(k, "the log cannot be read");
        }
        end = tl_is(o, "type", "replay_end");
        if (tl_is(o, "type", "replay")) {
            size_t n = 0;
            const char *event = tl_raw(tl_ws_data(ws), "event.data", &n);
            const int64_t cursor = tl_int(o, "seq"), turn = tl_int(o, "event.data.turn");
            if (cursor != ++have) {
                wrong(k, "a hole at %lld", (long long)have);
            }
            saw(k, cursor, event, n);
            if (tl_is(o, "event.type", "message") && cursor < TALK_CURSORS) {
                message[cursor] = 1;
                for (int i = 0; i < 3; i++) {
                    times[i] += tl_is(o, "event.data.data.message_id", ids[i]);
                }
            } else if (tl_is(o, "event.type", "response") && turn > 0 && turn < TALK_CURSORS) {
                ended[turn]++;
            }
        }
        cJSON_Delete(o);
    }
    if ((uint64_t)have < k->top) {
        return wrong(k, "%llu was told of, the log ends at %lld", (unsigned long long)k->top,
                     (long long)have);
    }
    for (int i = 0; i < 3; i++) {
        if (times[i] != 1) {
            return wrong(k, "%s is %d times in the log", ids[i], times[i]);
        }
    }
    for (int i = 0; i < TALK_CURSORS; i++) {
        if (message[i] != ended[i]) {
            return wrong(k, "the turn of message %d ended %d times", i, ended[i]);
        }
    }
    return !k->why[0];
}

/* A gateway whose storage failed looks again and again whether it works. */
static void wait_ready(struct tl_gate *g)
{
    int status = 0;
    const int64_t end = tl_now_ms() + CHECK_MS;
    while (status != 200 && tl_gate_running(g) && tl_now_ms() < end) {
        struct tl_http h = {0};
        status = tl_http(tl_gate_port(g), "GET", "/ready", NULL, NULL, &h);
        tl_http_free(&h);
        if (status != 200) {
            usleep(10000);
        }
    }
}

bool talk_check(struct talk *k, struct tl_gate *g, const struct talk_tokens *tokens)
{
    wait_ready(g);
    struct tl_ws *client = enter_client(k, g, tokens->client, CHECK_MS);
    struct tl_ws *worker = enter_worker(g, tokens->worker, CHECK_MS);
    struct tl_ws *reader = NULL;
    bool ok = client && worker ? true
                               : wrong(k, "%s cannot enter any more: %s",
                                       client ? "a worker" : "a client", refusal);
    ok = ok && repeat_all(k, client) && end_turns(k, worker, client);
    if (ok) {
        reader = enter_client(k, g, tokens->client, CHECK_MS);
        ok = reader ? log_is_whole(k, reader) : wrong(k, "nobody can read");
    }
    tl_ws_free(client);
    tl_ws_free(worker);
    tl_ws_free(reader);
    return ok;
}
