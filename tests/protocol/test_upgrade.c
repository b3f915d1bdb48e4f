/* The HTTP side: which upgrades are refused, and that a refusal is a whole HTTP answer. */
#include "pt.h"

PT_SUITE(upgrade);

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define HOST "Host: localhost\r\n"

/* `want` and `or_want` are the statuses that fit; every refusal must be complete. */
static const struct {
    const char *name;
    const char *request;
    int want, or_want;
} rows[] = {
    {"good", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 101, 101},
    {"with a query", "GET /ws?a=b HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 101, 101},
    {"names in lower case",
     "GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
     "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
     101, 101},
    {"values in other case",
     "GET /ws HTTP/1.1\r\n" HOST "Upgrade: WebSocket\r\nConnection: UPGRADE\r\n" KEY VERSION "\r\n",
     101, 101},
    {"keep-alive beside upgrade",
     "GET /ws HTTP/1.1\r\n" HOST
     "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" KEY VERSION "\r\n",
     101, 101},
    {"extension offered",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION
     "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
     101, 101},
    {"no key", "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION "\r\n", 400, 400},
    {"empty key", "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION "Sec-WebSocket-Key:\r\n\r\n", 400,
     400},
    {"key of 15 bytes",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n\r\n",
     400, 400},
    {"key of 17 bytes",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION
     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
     400, 400},
    {"key that is no base64",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION
     "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==\r\n\r\n",
     400, 400},
    {"key with a tail",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==x\r\n\r\n",
     400, 400},
    {"two keys", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY KEY VERSION "\r\n", 400, 400},
    {"version 12", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY "Sec-WebSocket-Version: 12\r\n\r\n", 426,
     426},
    {"version 8", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY "Sec-WebSocket-Version: 8\r\n\r\n", 426,
     426},
    {"version 130", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY "Sec-WebSocket-Version: 130\r\n\r\n",
     426, 426},
    {"no version", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY "\r\n", 426, 400},
    {"POST", "POST /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "Content-Length: 0\r\n\r\n", 405,
     400},
    {"PUT", "PUT /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "Content-Length: 0\r\n\r\n", 405, 400},
    {"HTTP/1.0", "GET /ws HTTP/1.0\r\n" HOST UPGRADE KEY VERSION "\r\n", 400, 505},
    {"no Host", "GET /ws HTTP/1.1\r\n" UPGRADE KEY VERSION "\r\n", 400, 400},
    {"two Hosts", "GET /ws HTTP/1.1\r\n" HOST HOST UPGRADE KEY VERSION "\r\n", 400, 400},
    {"another Upgrade",
     "GET /ws HTTP/1.1\r\n" HOST "Upgrade: notwebsocketx\r\nConnection: Upgrade\r\n" KEY VERSION
     "\r\n",
     426, 400},
    {"no Upgrade", "GET /ws HTTP/1.1\r\n" HOST "Connection: Upgrade\r\n" KEY VERSION "\r\n", 426,
     400},
    {"a plain GET", "GET /ws HTTP/1.1\r\n" HOST "\r\n", 426, 400},
    {"Connection without upgrade",
     "GET /ws HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: close\r\n" KEY VERSION "\r\n",
     426, 400},
    {"Connection with a similar word",
     "GET /ws HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: xupgradex\r\n" KEY VERSION
     "\r\n",
     426, 400},
    {"with a body", "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "Content-Length: 3\r\n\r\nabc",
     400, 413},
    {"with a chunked body",
     "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     400, 411},
    {"another path", "GET /wsx HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 404, 404},
    {"a path below", "GET /ws/x HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 404, 404},
    {"a slash more", "GET /ws/ HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 404, 404},
    {"a double slash", "GET //ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 404, 400},
    {"the root", "GET / HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n", 404, 404},
};

PT_TEST(upgrade, each_request_gets_its_answer)
{
    pt_start(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tl_http r;
        char value[128];
        tl_http_raw(NULL, tl_gate_port(pt_gate), rows[i].request, strlen(rows[i].request), 5000,
                    &r);
        cr_expect(r.status == rows[i].want || r.status == rows[i].or_want,
                  "%s: status %d, not %d; %s%s", rows[i].name, r.status, rows[i].want, r.head,
                  r.body);
        if (r.status != 101) {
            cr_expect(r.complete && r.len > 0, "%s: the answer is not whole: %s%s", rows[i].name,
                      r.head, r.body);
            cr_expect(tl_http_header(&r, "Content-Length", value, sizeof value),
                      "%s: no Content-Length: %s", rows[i].name, r.head);
            cr_expect(tl_http_header(&r, "Content-Type", value, sizeof value), "%s: %s",
                      rows[i].name, r.head);
        } else {
            cr_expect(!tl_http_header(&r, "Sec-WebSocket-Extensions", value, sizeof value),
                      "%s: an extension was granted", rows[i].name);
            cr_expect(tl_http_header(&r, "Upgrade", value, sizeof value), "%s", r.head);
            cr_expect(tl_http_header(&r, "Connection", value, sizeof value), "%s", r.head);
        }
        if (r.status == 426)
            cr_expect(tl_http_header(&r, "Sec-WebSocket-Version", value, sizeof value) &&
                          !strcmp(value, "13"),
                      "%s: no Sec-WebSocket-Version: 13 in %s", rows[i].name, r.head);
        if (r.status == 405)
            cr_expect(tl_http_header(&r, "Allow", value, sizeof value), "%s: no Allow: %s",
                      rows[i].name, r.head);
        tl_http_free(&r);
    }
    pt_client("echo", NULL);
}

PT_TEST(upgrade, origins)
{
    static const struct {
        const char *origin;
        bool allowed;
    } origins[] = {
        {NULL, true},
        {"https://app.example", true},
        {"https://app.example:444", false},
        {"http://app.example", false},
        {"https://a.app.example", false},
        {"https://app.example.evil", false},
        {"https://evil.example", false},
        {"null", false},
        {"", false},
        {"http://localhost:3000", true}, /* loopback is fine on a loopback bind */
        {"http://localhost", true},
        {"https://127.0.0.1:8080", true},
        {"http://[::1]:9000", true},
        {"http://localhost.evil.example", false},
        {"http://127.0.0.1.evil.example", false},
        {"http://evil.example/localhost", false},
        {"http://localhost@evil.example", false},
    };

    pt_start("allowed_origins = [\"https://app.example\"];");
    for (size_t i = 0; i < sizeof origins / sizeof *origins; i++) {
        struct tl_ws_opts o = {.port = tl_gate_port(pt_gate), .origin = origins[i].origin};
        int status = 0;
        struct tl_ws *ws = tl_ws_open(&o, &status);
        cr_assert(ws, "%s: %d", origins[i].origin, status);
        pt_keep(ws);
        cJSON *h = tl_hello(ws, "echo", pt_alice(), NULL, PT_WAIT_MS);
        cr_assert(h);
        pt_keep_json(h);
        const char *code = origins[i].allowed ? "" : "origin_not_allowed";
        cr_expect_str_eq(tl_str(h, "code"), code, "%s: %s", origins[i].origin, pt_text(h));
        if (!origins[i].allowed) {
            cr_expect(tl_is(h, "next_step", "do_not_retry"), "%s", pt_text(h));
            cr_expect_eq(tl_ws_wait_close(ws, PT_WAIT_MS), 4003);
        }
        pt_drop(ws);
    }
}

/* The origin is judged before the shape of the frame and before the token. */
PT_TEST(upgrade, the_origin_is_judged_first)
{
    pt_start(NULL);
    struct tl_ws_opts o = {.port = tl_gate_port(pt_gate), .origin = "https://evil.example"};
    struct tl_ws *ws = pt_keep(tl_ws_open(&o, NULL));
    pt_send(ws, "{\"type\":\"hello\"}");
    pt_refused(ws, "origin_not_allowed", "do_not_retry", 4003);
}

PT_TEST(upgrade, refused_sockets_are_closed)
{
    pt_start(NULL);
    static const char request[] = "GET /ws HTTP/1.1\r\n" HOST UPGRADE VERSION "\r\n";
    struct tl_ws *ws = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
    cr_assert(tl_ws_write(ws, request, sizeof request - 1));
    cr_assert_eq(tl_ws_upgrade_recv(ws, PT_WAIT_MS), 400);
    cr_assert(tl_ws_wait_eof(ws, PT_WAIT_MS), "the socket of a refused upgrade stays open");
}

PT_TEST(upgrade, garbage_does_no_harm)
{
    static const char *const garbage[] = {
        "\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET /ws\r\n\r\n",
        "GET /ws HTTP/9.9\r\n\r\n",
        "GET /%00ws HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    };

    pt_start("handshake_timeout_ms = 500;");
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        struct tl_http r;
        tl_http_raw(NULL, tl_gate_port(pt_gate), garbage[i], strlen(garbage[i]), 8000, &r);
        cr_expect(r.status >= 400 || r.status == TL_EOF || r.status == TL_RESET, "%zu: %d %s", i,
                  r.status, r.head);
        tl_http_free(&r);
    }
    pt_client("echo", NULL);
}

PT_TEST(upgrade, a_header_block_without_end_is_bounded)
{
    pt_start("handshake_timeout_ms = 500;");
    struct tl_ws *ws = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
    static char big[100000];
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /ws HTTP/1.1\r\nX: ", 21);
    bool sent = tl_ws_write(ws, big, sizeof big);
    (void)sent;
    int status = tl_ws_upgrade_recv(ws, PT_WAIT_MS);
    cr_assert(status >= 400 || status == TL_EOF || status == TL_RESET, "%d", status);
    pt_client("echo", NULL);
}

PT_TEST(upgrade, a_dripped_request_still_works)
{
    pt_start(NULL);
    static const char request[] = "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n";
    struct tl_ws *ws = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
    cr_assert(tl_ws_dribble(ws, request, sizeof request - 1, 200));
    cr_assert_eq(tl_ws_upgrade_recv(ws, PT_WAIT_MS), 101);
    cJSON *h = tl_hello(ws, "echo", pt_alice(), NULL, PT_WAIT_MS);
    pt_keep_json(h);
    pt_is(h, "type", "hello_ok");
}

PT_TEST(upgrade, a_frame_before_the_answer_is_refused)
{
    /* RFC 6455 4.1: a client must wait for the 101. What comes with the request is not taken. */
    pt_start(NULL);
    struct tl_buf b = {0};
    tl_buf_addf(&b, "GET /ws HTTP/1.1\r\n" HOST UPGRADE KEY VERSION "\r\n");
    const char *hello =
        pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    uint8_t *frame = malloc(strlen(hello) + 14);
    static const uint8_t mask[4] = {1, 2, 3, 4};
    tl_buf_add(&b, frame, tl_frame_build(frame, 0x81, mask, TL_LEN_AUTO, hello, strlen(hello)));
    for (int i = 0; i < 20; i++) {
        struct tl_ws *ws = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
        cr_assert(tl_ws_write(ws, b.p, b.len));
        int status = tl_ws_upgrade_recv(ws, PT_WAIT_MS);
        if (status == 101) {
            /* Refused after the 101: closed, never mixed up with another connection. */
            int kind = tl_ws_recv(ws, PT_WAIT_MS);
            cr_assert(kind == TL_CLOSE || kind == TL_EOF || kind == TL_RESET, "got %s",
                      tl_json_why(kind));
        } else {
            cr_assert(status >= 400 || status == TL_EOF || status == TL_RESET, "%d", status);
        }
        pt_drop(ws);
    }
    free(frame);
    tl_buf_free(&b);
    pt_client("echo", NULL);
}
