/* test_handshake.c - the checks of a request before it is upgraded: framing, RFC 6455, tokens,
 * origins, hosts, proxies, listen addresses, and the answers to refusals. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "edge/handshake.h"
#include "edge/listen_address.h"
#include "edge/origin.h"
#include "edge/proxy.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="

/* A good upgrade, to be bent. */
static struct eg_request good(void)
{
    return (struct eg_request){.method = "GET",
                               .path = "/ws",
                               .version = "1.1",
                               .headers = 5,
                               .header = {{"Host", "localhost:7070"},
                                          {"Upgrade", "websocket"},
                                          {"Connection", "keep-alive, Upgrade"},
                                          {"Sec-WebSocket-Key", KEY},
                                          {"Sec-WebSocket-Version", "13"}}};
}

static void set(struct eg_request *r, const char *name, const char *value)
{
    for (int i = 0; i < r->headers; i++) {
        if (strcasecmp(r->header[i].name, name) == 0) {
            r->header[i].value = value;
            return;
        }
    }
    r->header[r->headers++] = (struct eg_header){name, value};
}

static void add(struct eg_request *r, const char *name, const char *value)
{
    r->header[r->headers++] = (struct eg_header){name, value};
}

static void drop(struct eg_request *r, const char *name)
{
    for (int i = 0; i < r->headers; i++) {
        if (strcasecmp(r->header[i].name, name) == 0) {
            r->header[i] = r->header[--r->headers];
            return;
        }
    }
}

/* The status of the refusal; 0 when it is none. */
static int upgrade_status(const struct eg_request *r)
{
    struct eg_refusal why = {0};
    return eg_upgrade_check(r, &why) == EG_OK ? 0 : why.status;
}

static int request_status(const struct eg_request *r)
{
    struct eg_refusal why = {0};
    return eg_request_check(r, &why) == EG_OK ? 0 : why.status;
}

Test(handshake, good_upgrades)
{
    struct eg_request r = good();
    cr_expect_eq(request_status(&r), 0);
    cr_expect_eq(upgrade_status(&r), 0);
    static const char *const bent[][2] = {
        {"Upgrade", "WebSocket"},           {"Upgrade", "h2c, websocket"},
        {"Connection", "UPGRADE"},          {"Connection", " upgrade , close"},
        {"Sec-WebSocket-Key", " " KEY " "}, {"Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC=="},
        {"Sec-WebSocket-Version", " 13"},   {"Content-Length", "0"},
        {"Origin", "https://x.example"}};
    for (size_t i = 0; i < sizeof bent / sizeof bent[0]; i++) {
        r = good();
        set(&r, bent[i][0], bent[i][1]);
        cr_expect_eq(upgrade_status(&r), 0, "%s: %s", bent[i][0], bent[i][1]);
    }
    r = good();
    add(&r, "Connection", "close");
    cr_expect_eq(upgrade_status(&r), 0, "a list may stand in several lines");
}

Test(handshake, refused_upgrades)
{
    static const struct {
        const char *name, *value;
        int status;
    } bent[] = {{"Upgrade", "notwebsocketx", 426},
                {"Upgrade", "", 426},
                {"Connection", "close", 400},
                {"Connection", "upgraded", 400},
                {"Sec-WebSocket-Version", "12", 426},
                {"Sec-WebSocket-Version", "13, 8", 426},
                {"Sec-WebSocket-Version", "", 426},
                {"Sec-WebSocket-Key", "", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ===", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQQ=", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=A", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j-_==", 400},
                {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBu b25jZ==", 400},
                {"Content-Length", "1", 400}};
    for (size_t i = 0; i < sizeof bent / sizeof bent[0]; i++) {
        struct eg_request r = good();
        set(&r, bent[i].name, bent[i].value);
        cr_expect_eq(upgrade_status(&r), bent[i].status, "%s: %s gave %d", bent[i].name,
                     bent[i].value, upgrade_status(&r));
    }
    static const struct {
        const char *name;
        int status;
    } missing[] = {{"Upgrade", 426},
                   {"Connection", 400},
                   {"Sec-WebSocket-Key", 400},
                   {"Sec-WebSocket-Version", 426}};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        struct eg_request r = good();
        drop(&r, missing[i].name);
        cr_expect_eq(upgrade_status(&r), missing[i].status, "no %s", missing[i].name);
    }
    struct eg_request r = good();
    r.method = "POST";
    cr_expect_eq(upgrade_status(&r), 405);
    r = good();
    r.version = "1.0";
    cr_expect_eq(upgrade_status(&r), 400);
    r = good();
    add(&r, "sec-websocket-key", KEY);
    cr_expect_eq(upgrade_status(&r), 400, "two keys");
    r = good();
    add(&r, "Origin", "https://a.example");
    add(&r, "Origin", "https://b.example");
    cr_expect_eq(upgrade_status(&r), 400, "two origins");
}

Test(handshake, framing)
{
    static const struct {
        const char *name, *value;
        int status;
    } added[] = {{"Content-Length", "10", 0},
                 {"Content-Length", "+1", 400},
                 {"Content-Length", "1 0", 400},
                 {"Content-Length", "0x10", 400},
                 {"Content-Length", "", 400},
                 {"Content-Length", "-1", 400},
                 {"Content-Length", "9999999999999999999", 400},
                 {"Content-Length", "3, 3", 400},
                 {"Transfer-Encoding", "chunked", 411},
                 {"Transfer-Encoding", "identity", 411},
                 {"Transfer-Encoding", "xchunked", 411},
                 {"Host", "b", 400},
                 {"X-Any", "thing", 0}};
    for (size_t i = 0; i < sizeof added / sizeof added[0]; i++) {
        struct eg_request r = good();
        add(&r, added[i].name, added[i].value);
        cr_expect_eq(request_status(&r), added[i].status, "%s: %s gave %d", added[i].name,
                     added[i].value, request_status(&r));
    }
    struct eg_request r = good();
    add(&r, "Content-Length", "3");
    add(&r, "content-length", "3");
    cr_expect_eq(request_status(&r), 400, "the same length twice");
    r = good();
    add(&r, "Content-Length", "3");
    add(&r, "Transfer-Encoding", "chunked");
    cr_expect_eq(request_status(&r), 400, "both framings");
    r = good();
    drop(&r, "Host");
    cr_expect_eq(request_status(&r), 400, "no host");
    r.version = "1.0";
    cr_expect_eq(request_status(&r), 0, "HTTP/1.0 needs none");
    static const char *const hosts[] = {"",    "a b",  "a,b",   "user@a",
                                        "a/b", "a\\b", "a\x7f", "b\xc3\xa4"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        r = good();
        set(&r, "Host", hosts[i]);
        cr_expect_eq(request_status(&r), 400, "host %s", hosts[i]);
    }
    r = good();
    while (r.headers < EG_HEADERS_MAX) {
        add(&r, "X", "y");
    }
    cr_expect_eq(request_status(&r), 431, "there may have been more");
    r.headers--;
    cr_expect_eq(request_status(&r), 0);
    r = good();
    add(&r, "Authorization", "Bearer a");
    add(&r, "Authorization", "Bearer b");
    cr_expect_eq(request_status(&r), 400);
}

static void expect_token(const struct eg_request *r, const char *want, bool want_query)
{
    char *token = NULL;
    bool query = false;
    cr_assert_eq(eg_upgrade_token(r, &token, &query), EG_OK);
    if (want == NULL) {
        cr_expect_null(token, "got %s", token);
    } else {
        cr_expect(token != NULL && strcmp(token, want) == 0, "got %s, not %s", token, want);
    }
    cr_expect_eq(query, want_query);
    free(token);
}

Test(handshake, where_the_token_is_looked_for)
{
    struct eg_request r = good();
    expect_token(&r, NULL, false);
    r.query = "a=b&token=q%2D1&token=second";
    expect_token(&r, "q-1", true);
    add(&r, "Sec-WebSocket-Protocol", "ebbgate.v1, bearer.p.1.x");
    expect_token(&r, "p.1.x", false);
    add(&r, "Authorization", "bEaReR   h.1.x ");
    expect_token(&r, "h.1.x", false);
    set(&r, "Authorization", "Basic dTpw");
    expect_token(&r, "p.1.x", false);
    set(&r, "Authorization", "Bearer ");
    expect_token(&r, "p.1.x", false);
    set(&r, "Sec-WebSocket-Protocol", "ebbgate.v1, bearer.");
    expect_token(&r, "q-1", true);
    r.query = "xtoken=1&token=";
    expect_token(&r, NULL, false);
    r.query = "token=%zz%4";
    expect_token(&r, "%zz%4", true);
    r.query = "";
    expect_token(&r, NULL, false);
}

Test(handshake, subprotocol)
{
    struct eg_request r = good();
    cr_expect_not(eg_upgrade_offers_protocol(&r));
    add(&r, "Sec-WebSocket-Protocol", "chat, bearer.ebbgate.v1");
    cr_expect_not(eg_upgrade_offers_protocol(&r));
    add(&r, "Sec-WebSocket-Protocol", "EBBGATE.V1");
    cr_expect_not(eg_upgrade_offers_protocol(&r));
    add(&r, "sec-websocket-protocol", "x ,\tebbgate.v1 ");
    cr_expect(eg_upgrade_offers_protocol(&r));
}

Test(handshake, end_of_the_head)
{
    static const struct {
        const char *text;
        long end;
    } rows[] = {{"GET / HTTP/1.1\r\n\r\n", 18},
                {"GET / HTTP/1.1\r\n\r\nmore", 18},
                {"GET / HTTP/1.1\n\nmore", 16},
                {"GET / HTTP/1.1\r\nA: b\r\n\r", 0},
                {"GET / HTTP/1.1\r\nA: b\r\n", 0},
                {"", 0},
                {"\r\n\r\n", 4},
                {"GET \x01", -1},
                {"\x16\x03\x01", -1},
                {"A: b\x7f", -1},
                {"A\n\r\nB", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect_eq(eg_header_end(rows[i].text, strlen(rows[i].text)), rows[i].end, "row %zu", i);
    }
}

Test(handshake, refusals_are_complete_answers)
{
    const struct eg_refusal why = {426, EG_CODE_invalid_request, "a reason",
                                   "Sec-WebSocket-Version: 13\r\n"};
    struct eg_buf out = {0};
    eg_refusal_write(&why, &out);
    cr_assert_eq(out.err, EG_OK);
    char *text = eg_buf_take(&out);
    char *body = strstr(text, "\r\n\r\n");
    cr_assert_not_null(body);
    body += 4;
    cr_expect_eq(strncmp(text, "HTTP/1.1 426 Upgrade Required\r\n", 31), 0);
    cr_expect_not_null(strstr(text, "\r\nSec-WebSocket-Version: 13\r\n"));
    cr_expect_not_null(strstr(text, "\r\nConnection: close\r\n"));
    cr_expect_not_null(strstr(text, "\r\nContent-Type: application/problem+json\r\n"));
    const char *length = strstr(text, "\r\nContent-Length: ");
    cr_assert_not_null(length);
    cr_expect_eq(strtoul(length + 18, NULL, 10), strlen(body));
    cr_expect_str_eq(body, "{\"type\":\"about:blank\",\"title\":\"the request is not valid\","
                           "\"status\":426,\"code\":\"invalid_request\","
                           "\"next_step\":\"do_not_retry\",\"detail\":\"a reason\"}");
    free(text);
}

Test(handshake, origins)
{
    char *allowed[] = {"https://app.example", "https://b.example:8443", NULL};
    static const struct {
        const char *origin;
        bool remote, local; /* bound elsewhere, bound to loopback */
    } rows[] = {{NULL, true, true},
                {"https://app.example", true, true},
                {"https://b.example:8443", true, true},
                {"https://app.example:443", false, false},
                {"http://app.example", false, false},
                {"https://app.example.evil", false, false},
                {"HTTPS://app.example", false, false},
                {"", false, false},
                {"null", false, false},
                {"*", false, false},
                {"http://localhost", false, true},
                {"https://localhost:3000", false, true},
                {"http://127.0.0.1:80", false, true},
                {"http://[::1]:80", false, true},
                {"http://localhost:", false, false},
                {"http://localhost:80x", false, false},
                {"http://localhost:999999", false, false},
                {"http://localhost.evil.example", false, false},
                {"http://localhost@evil.example", false, false},
                {"http://127.0.0.1.evil.example", false, false},
                {"http://127.0.0.2", false, false},
                {"file://localhost", false, false},
                {"localhost", false, false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect_eq(eg_origin_allowed(rows[i].origin, allowed, false), rows[i].remote, "%s",
                     rows[i].origin);
        cr_expect_eq(eg_origin_allowed(rows[i].origin, allowed, true), rows[i].local, "%s",
                     rows[i].origin);
    }
    cr_expect_not(eg_origin_allowed("https://app.example", NULL, false));
}

Test(handshake, hosts_of_a_loopback_listener)
{
    static const char *const fine[] = {"localhost",   "LOCALHOST:7071", "127.0.0.1",
                                       "127.0.0.1:1", "[::1]:7071",     "127.8.8.8:7071"};
    static const char *const evil[] = {"evil.example",
                                       "localhost.evil.example",
                                       "127.0.0.1.evil.example",
                                       "127.0.0.1:80:80",
                                       "10.0.0.1:7071",
                                       "localhost:",
                                       "[::2]:7071",
                                       "localhostx"};
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        cr_expect(eg_host_is_local(fine[i], "127.0.0.1:7071"), "%s", fine[i]);
    }
    for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
        cr_expect_not(eg_host_is_local(evil[i], "127.0.0.1:7071"), "%s", evil[i]);
    }
}

Test(handshake, loopback_addresses)
{
    cr_expect(eg_address_is_loopback("127.8.9.1"));
    cr_expect(eg_address_is_loopback("::1"));
    cr_expect(eg_address_is_loopback("::ffff:127.0.0.1"));
    cr_expect_not(eg_address_is_loopback("10.0.0.1"));
    cr_expect_not(eg_address_is_loopback("::ffff:10.0.0.1"));
    cr_expect_not(eg_address_is_loopback("localhost"));
}

static const char *client(const char *trusted, const char *peer, const char *name,
                          const char *value)
{
    static char out[64];
    char *list[] = {(char *)trusted, "10.1.0.0/16", "2001:db8::/33", NULL};
    char why[128];
    struct eg_proxies *p = NULL;
    struct eg_request r = good();
    if (name != NULL) {
        add(&r, name, value);
    }
    cr_assert_eq(eg_proxies_new(list, &p, why, sizeof why), EG_OK, "%s", why);
    eg_proxies_client(p, peer, &r, out);
    eg_proxies_free(p);
    return out;
}

Test(handshake, clients_behind_proxies)
{
    static const struct {
        const char *peer, *name, *value, *want;
    } rows[] = {
        {"127.0.0.1", NULL, NULL, "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For", "203.0.113.9", "203.0.113.9"},
        {"203.0.113.1", "X-Forwarded-For", "1.2.3.4", "203.0.113.1"},
        {"127.0.0.1", "X-Forwarded-For", "1.2.3.4, 203.0.113.9", "203.0.113.9"},
        {"127.0.0.1", "X-Forwarded-For", "1.2.3.4,203.0.113.9 , 10.1.255.1", "203.0.113.9"},
        {"127.0.0.1", "X-Forwarded-For", "10.1.0.7, 10.1.0.8", "10.1.0.7"},
        {"127.0.0.1", "X-Forwarded-For", "1.2.3.4, garbage", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For", "1.2.3.4, , 10.1.0.8", "10.1.0.8"},
        {"127.0.0.1", "X-Forwarded-For", "", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For", "203.0.113.9:4711", "203.0.113.9"},
        {"127.0.0.1", "X-Forwarded-For", "2001:DB8:8000::0:1", "2001:db8:8000::1"},
        {"127.0.0.1", "X-Forwarded-For", "[2001:db8:8000::1]:99", "2001:db8:8000::1"},
        {"127.0.0.1", "X-Forwarded-For", "9.9.9.9, 2001:db8:7fff::1", "9.9.9.9"},
        {"127.0.0.1", "X-Forwarded-For", "::ffff:203.0.113.9", "203.0.113.9"},
        {"127.0.0.1", "X-Forwarded-For", "10.0.255.255", "10.0.255.255"},
        {"10.1.2.3", "X-Forwarded-For", "10.2.0.1", "10.2.0.1"},
        {"::ffff:10.1.2.3", "X-Forwarded-For", "10.2.0.1", "10.2.0.1"},
        {"127.0.0.1", "Forwarded", "for=203.0.113.9;proto=https", "203.0.113.9"},
        {"127.0.0.1", "Forwarded", "for=1.2.3.4, proto=http; For=\"[2001:db8:8000::1]:4711\"",
         "2001:db8:8000::1"},
        {"127.0.0.1", "Forwarded", "for=1.2.3.4, for=_hidden", "127.0.0.1"},
        {"127.0.0.1", "Forwarded", "for=1.2.3.4, by=\"a,b\"", "127.0.0.1"},
        {"127.0.0.1", "Forwarded", "for=unknown", "127.0.0.1"},
        {"127.0.0.1", "Forwarded", "for=203.0.113.9;ext=\"a, for=1.2.3.4\"", "203.0.113.9"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect_str_eq(client("127.0.0.1", rows[i].peer, rows[i].name, rows[i].value),
                         rows[i].want, "row %zu: %s", i, rows[i].value);
    }
    char many[4096] = "66.66.66.66";
    for (int i = 0; i < 200; i++) {
        snprintf(many + strlen(many), sizeof many - strlen(many), ",10.1.0.%d", i);
    }
    cr_expect_str_eq(client("127.0.0.1", "127.0.0.1", "X-Forwarded-For", many), "10.1.0.168",
                     "only so many hops are followed");
}

Test(handshake, the_last_line_is_the_nearest_proxy)
{
    char *list[] = {"127.0.0.1", NULL};
    char out[64], why[128];
    struct eg_proxies *p = NULL;
    struct eg_request r = good();
    add(&r, "X-Forwarded-For", "1.1.1.1");
    add(&r, "Forwarded", "for=3.3.3.3");
    add(&r, "x-forwarded-for", "2.2.2.2");
    cr_assert_eq(eg_proxies_new(list, &p, why, sizeof why), EG_OK);
    eg_proxies_client(p, "127.0.0.1", &r, out);
    cr_expect_str_eq(out, "2.2.2.2");
    eg_proxies_free(p);
}

Test(handshake, bad_proxy_ranges)
{
    static const char *const bad[] = {"",           "localhost",  "1.2.3",
                                      "1.2.3.4/33", "1.2.3.4/",   "1.2.3.4/x",
                                      "::/129",     "1.2.3.4/-1", "1.2.3.4/8x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *list[] = {"127.0.0.1", (char *)bad[i], NULL};
        char why[128] = "";
        struct eg_proxies *p = NULL;
        cr_expect_eq(eg_proxies_new(list, &p, why, sizeof why), EG_EINVALID, "%s", bad[i]);
        cr_expect_not_null(strstr(why, bad[i]));
    }
    char *all[] = {"0.0.0.0/0", NULL};
    struct eg_proxies *p = NULL;
    char why[128];
    cr_assert_eq(eg_proxies_new(all, &p, why, sizeof why), EG_OK);
    cr_expect(eg_proxies_trusts(p, "8.8.8.8"));
    cr_expect_not(eg_proxies_trusts(p, "2001:db8::1"));
    cr_expect_not(eg_proxies_trusts(p, "unknown"));
    eg_proxies_free(p);
}

Test(handshake, listen_addresses)
{
    static const struct {
        const char *text, *host;
        int port;
        bool loopback;
    } fine[] = {{"127.0.0.1:7070", "127.0.0.1", 7070, true}, {"127.1.2.3:0", "127.1.2.3", 0, true},
                {"0.0.0.0:65535", "0.0.0.0", 65535, false},  {":7070", "0.0.0.0", 7070, false},
                {"*:7070", "0.0.0.0", 7070, false},          {"localhost:1", "127.0.0.1", 1, true}};
    static const char *const bad[] = {"",
                                      "7070",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "1.2.3.4:x",
                                      "1.2.3.4:1s",
                                      "127.0.0.1:65536",
                                      "[::1]:7070",
                                      "1.2.3.4:-1",
                                      "no.such.name.invalid:1"};
    struct eg_listen_address a;
    char why[200];
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        cr_assert_eq(eg_listen_address_parse(fine[i].text, &a, why, sizeof why), EG_OK, "%s: %s",
                     fine[i].text, why);
        cr_expect_str_eq(a.host, fine[i].host);
        cr_expect_eq(a.port, fine[i].port);
        cr_expect_eq(a.loopback, fine[i].loopback);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why[0] = '\0';
        cr_expect_eq(eg_listen_address_parse(bad[i], &a, why, sizeof why), EG_EINVALID, "%s",
                     bad[i]);
        cr_expect_neq(why[0], '\0', "%s", bad[i]);
    }
}

Test(handshake, an_event_source_is_told_from_others)
{
    struct eg_request r = good();
    cr_expect(!eg_request_is_event_source(&r));
    set(&r, "Origin", "https://app.example");
    cr_expect(!eg_request_is_event_source(&r), "a page's fetch");
    set(&r, "Accept", "text/event-stream");
    cr_expect(eg_request_is_event_source(&r), "of another origin");
    drop(&r, "Origin");
    cr_expect(!eg_request_is_event_source(&r), "curl");
    set(&r, "Sec-Fetch-Mode", "cors");
    cr_expect(eg_request_is_event_source(&r), "of the same origin");
}
