/*
 * What comes from outside the connection: sessions closed and tokens revoked by an operator, keys
 * withdrawn, a drain at the door, one log for WebSocket and HTTP, sockets that say nothing, and too
 * few descriptors.
 */
#include "pt.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

PT_SUITE(doors);

/* An admin request; returns the status, and the body as JSON where `out` is given. */
static int admin(const char *method, const char *path, const char *body, const cJSON **out)
{
    static const char *token;
    struct tl_http r;

    if (!token)
        token = pt_token("root", "admin");
    const char *headers = pt_f("Authorization: Bearer %s\r\n%s", token,
                               body ? "Content-Type: application/json\r\n" : "");
    tl_http(tl_gate_admin(pt_gate), method, path, headers, body, &r);
    int status = r.status;
    if (out)
        *out = pt_keep_json(cJSON_Parse(r.body));
    if (status >= 400)
        fprintf(stderr, "%s %s: %d %s\n", method, path, status, r.body);
    tl_http_free(&r);
    return status;
}

PT_TEST(doors, a_closed_session_refuses)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    pt_say(a, "x");
    cr_assert_eq(admin("POST", pt_f("/api/v1/sessions/%s/close", id), "{}", NULL) / 100, 2);
    const cJSON *o = pt_wait(a, "session_end");
    pt_is(o, "source", "gateway");
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\",%s}", pt_alice(), sid);
    pt_refused(ws, "session_closed", "do_not_retry", 4003);
    /* It stays closed. */
    pt_kill_restart();
    ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\",%s}", pt_alice(), sid);
    pt_refused(ws, "session_closed", "do_not_retry", 4003);
}

/* The claim jti of a token. */
static const char *jti_of(const char *token)
{
    char text[2048] = {0};
    size_t n = 0;
    unsigned bits = 0, value = 0;

    for (const char *p = strchr(token, '.') + 1; *p && *p != '.' && n < sizeof text - 1; p++) {
        static const char digits[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        value = value << 6 | (unsigned)(strchr(digits, *p) - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            text[n++] = (char)(value >> bits);
        }
    }
    cJSON *claims = pt_keep_json(cJSON_Parse(text));
    cr_assert(*tl_str(claims, "jti"), "no jti in %s", text);
    return tl_str(claims, "jti");
}

PT_TEST(doors, a_revoked_token_closes_its_connections)
{
    pt_start(NULL);
    const char *token = pt_token("alice", "read write");
    struct tl_ws *doomed = pt_client_as(token, "echo", NULL);
    struct tl_ws *other = pt_client("echo", NULL);
    const char *body = pt_f("{\"jti\":\"%s\"}", jti_of(token));
    cr_assert_eq(admin("POST", "/api/v1/tokens/revoke", body, NULL) / 100, 2);
    pt_closed(doomed, 4001);
    pt_quiet(other);
    for (int i = 0; i < 2; i++) {
        struct tl_ws *ws = pt_open();
        pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", token);
        pt_refused(ws, "auth_unauthorized", "reauthenticate", 4003);
        pt_kill_restart(); /* a revocation is durable */
    }
}

PT_TEST(doors, a_revoked_sub_is_out_everywhere)
{
    pt_start(NULL);
    const char *bob = pt_token("bob", "read write");
    struct tl_ws *a = pt_client_as(bob, "echo", NULL), *b = pt_client_as(bob, "support", NULL);
    struct tl_ws *alice = pt_client("echo", NULL);
    cr_assert_eq(admin("POST", "/api/v1/tokens/revoke", "{\"sub\":\"bob\"}", NULL) / 100, 2);
    pt_closed(a, 4001);
    pt_closed(b, 4001);
    pt_quiet(alice);
}

PT_TEST(doors, a_withdrawn_key_closes_what_it_signed)
{
    const cJSON *keys;

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *old_admin = pt_token("root", "admin");
    cr_assert_eq(admin("GET", "/api/v1/keys", NULL, &keys), 200);
    const cJSON *first = tl_get(keys, "keys.0");
    if (!first)
        first = tl_get(keys, "items.0");
    if (!first)
        first = cJSON_GetArrayItem(keys, 0);
    const char *kid = tl_str(first, "kid");
    cr_assert(*kid, "%s", pt_text(keys));
    cr_assert_eq(admin("POST", "/api/v1/keys/rotate", "{}", NULL) / 100, 2);
    /* The old key still verifies, new tokens are signed with the new one. */
    pt_quiet(a);
    struct tl_ws *b = pt_client_as(pt_token("alice", "read write"), "echo", NULL);
    struct tl_http r;
    const char *headers = pt_f("Authorization: Bearer %s\r\n", pt_token("root", "admin"));
    tl_http(tl_gate_admin(pt_gate), "DELETE", pt_f("/api/v1/keys/%s", kid), headers, NULL, &r);
    cr_assert_eq(r.status / 100, 2, "%d %s", r.status, r.body);
    tl_http_free(&r);
    pt_closed(a, 4001);
    pt_quiet(b);
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", old_admin);
    pt_refused(ws, "auth_unauthorized", "reauthenticate", 4003);
}

PT_TEST(doors, hello_during_a_drain)
{
    struct tl_gate_opts o = {.config = "agents = [\"echo\"]; drain_timeout_ms = 20000;"};
    pt_start_with(&o);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    struct tl_ws *late = pt_open();
    tl_gate_signal(pt_gate, SIGTERM);
    struct tl_http r;
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    int status;
    do {
        status = tl_http(tl_gate_admin(pt_gate), "GET", "/ready", NULL, NULL, &r);
        if (status == 503)
            cr_assert(strstr(r.body, "drain"), "%s", r.body);
        tl_http_free(&r);
    } while (status != 503 && tl_now_ms() < end);
    tl_http(tl_gate_admin(pt_gate), "GET", "/live", NULL, NULL, &r);
    cr_assert_eq(r.status, 200);
    tl_http_free(&r);
    pt_send(late, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    pt_refused(late, "draining", "wait_then_retry", 1012);
    pt_final(w, t, "x");
    cr_assert_eq(tl_gate_wait(pt_gate, 30000), 0);
}

PT_TEST(doors, http_and_websocket_share_one_log)
{
    struct tl_http r;

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    const char *path = pt_f("/v1/sessions/%s/messages", id);
    const char *headers = pt_f("Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                               "Idempotency-Key: same\r\n",
                               pt_alice());
    tl_http(tl_gate_port(pt_gate), "POST", path, headers, "{\"content\":\"hi\"}", &r);
    cr_assert_eq(r.status, 202, "%s", r.body);
    tl_http_free(&r);
    const cJSON *o = pt_expect(a, "message");
    pt_is(o, "data.content", "hi");
    pt_is(o, "source", "client:alice");
    pt_int(o, "cursor", 1);
    /* The key is the message_id: a repeat by the other way is the same message. */
    pt_send(a, "{\"type\":\"message\",\"content\":\"hi\",\"message_id\":\"same\"}");
    o = pt_expect(a, "response");
    pt_int(o, "cursor", 1);
    pt_true(o, "duplicate");
    tl_http(tl_gate_port(pt_gate), "POST", path, headers, "{\"content\":\"other\"}", &r);
    cr_assert_eq(r.status, 409, "%s", r.body);
    cr_assert(strstr(r.body, "id_conflict"), "%s", r.body);
    tl_http_free(&r);
}

PT_TEST(doors, silent_and_half_said_requests_do_not_keep_others_out)
{
    enum { SILENT = 150 };
    static const char half[] = "GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ";

    pt_start(NULL);
    pt_alice();
    for (int i = 0; i < SILENT; i++) {
        struct tl_ws *ws = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
        if (i % 2)
            cr_assert(tl_ws_write(ws, half, sizeof half - 1));
    }
    int64_t start = tl_now_ms();
    for (int i = 0; i < 5; i++)
        pt_quiet(pt_client("echo", NULL));
    cr_assert(tl_now_ms() - start < 8000, "five greetings took %d ms", (int)(tl_now_ms() - start));
    struct tl_http r;
    tl_http(tl_gate_admin(pt_gate), "GET", "/live", NULL, NULL, &r);
    cr_assert_eq(r.status, 200);
    tl_http_free(&r);
}

/* A program that runs the gateway with few descriptors. Returns its path. */
static const char *with_few_descriptors(int count)
{
    char real[PATH_MAX];
    const char *path = pt_f("/tmp/ebbgate-few.%d", (int)getpid());

    cr_assert(realpath(tl_gate_bin(), real));
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fprintf(f, "#!/bin/sh\nulimit -n %d\nexec '%s' \"$@\"\n", count, real);
    fclose(f);
    chmod(path, 0700);
    return path;
}

PT_TEST(doors, running_out_of_descriptors_is_survived)
{
    enum { LIMIT = 1900, TRIES = 2000 };
    struct tl_ws *kept[TRIES];
    int n = 0;

    if (tl_gate_sanitized())
        return; /* the sanitizers need descriptors of their own */
    const char *script = with_few_descriptors(LIMIT);
    setenv("EBBGATE_BIN", script, 1);
    pt_start(NULL);
    pt_alice();
    struct tl_ws *first = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 0; i < TRIES; i++) {
        /* Past the limit nothing may answer; then there is no point in waiting long. */
        struct tl_ws_opts o = {.port = tl_gate_port(pt_gate), .timeout_ms = 300};
        struct tl_ws *ws = tl_ws_open(&o, NULL);
        if (!ws)
            break;
        kept[n++] = ws;
        cJSON *h = tl_hello(ws, "echo", pt_alice(), sid, 2000);
        bool welcome = h && tl_is(h, "type", "hello_ok");
        cJSON_Delete(h);
        if (!welcome)
            break;
    }
    cr_assert(n > 50 && n < TRIES, "%d connections with %d descriptors", n, LIMIT);
    /* Those who are in are served. */
    pt_quiet(first);
    cr_assert_eq(pt_say(first, "still here"), 1);
    for (int i = 0; i < n; i++)
        tl_ws_free(kept[i]);
    /* And there is room again. */
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    bool again = false;
    while (!again && tl_now_ms() < end) {
        struct tl_ws_opts o = {.port = tl_gate_port(pt_gate), .timeout_ms = 2000};
        struct tl_ws *ws = tl_ws_open(&o, NULL);
        cJSON *h = ws ? tl_hello(ws, "echo", pt_alice(), sid, 2000) : NULL;
        again = h && tl_is(h, "type", "hello_ok");
        cJSON_Delete(h);
        tl_ws_free(ws);
    }
    unlink(script);
    cr_assert(again, "no room after %d connections were closed", n);
}
