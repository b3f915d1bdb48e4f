/* Tokens at the door: the four places and their order, bent tokens, refresh, expiry. */
#include "pt.h"

#include <sodium.h>
#include <time.h>

PT_SUITE(tokens);

/* Upgrades with these options and says hello with `hello_token` (or none). */
static struct tl_ws *knock(struct tl_ws_opts *o, const char *hello_token, const cJSON **answer)
{
    int status = 0;

    o->port = tl_gate_port(pt_gate);
    struct tl_ws *ws = tl_ws_open(o, &status);
    cr_assert(ws, "no upgrade: %d", status);
    pt_keep(ws);
    cJSON *h = tl_hello(ws, "echo", hello_token, NULL, PT_WAIT_MS);
    cr_assert(h, "no answer to hello");
    *answer = pt_keep_json(h);
    return ws;
}

PT_TEST(tokens, are_taken_from_four_places)
{
    const cJSON *h;

    pt_start(NULL);
    struct tl_ws_opts header = {.bearer = pt_alice()};
    knock(&header, NULL, &h);
    pt_is(h, "type", "hello_ok");

    struct tl_ws_opts offer = {.offer = pt_f("ebbgate.v1, bearer.%s", pt_alice())};
    struct tl_ws *ws = knock(&offer, NULL, &h);
    pt_is(h, "type", "hello_ok");
    char value[64];
    cr_assert(tl_ws_header(ws, "Sec-WebSocket-Protocol", value, sizeof value));
    cr_assert_str_eq(value, "ebbgate.v1");

    struct tl_ws_opts reversed = {.offer = pt_f("bearer.%s,ebbgate.v1", pt_alice())};
    ws = knock(&reversed, NULL, &h);
    pt_is(h, "type", "hello_ok");
    cr_assert(tl_ws_header(ws, "Sec-WebSocket-Protocol", value, sizeof value));
    cr_assert_str_eq(value, "ebbgate.v1");

    struct tl_ws_opts plain = {0};
    ws = knock(&plain, pt_alice(), &h);
    pt_is(h, "type", "hello_ok");
    cr_assert(!tl_ws_header(ws, "Sec-WebSocket-Protocol", value, sizeof value),
              "a subprotocol that nobody offered: %s", value);

    struct tl_ws_opts query = {.path = pt_f("/ws?token=%s", pt_alice())};
    knock(&query, NULL, &h);
    pt_is(h, "type", "hello_ok");
}

PT_TEST(tokens, the_first_place_counts)
{
    const cJSON *h;
    const char *good;

    pt_start(NULL);
    good = pt_alice();
    struct tl_ws_opts o1 = {.bearer = "bad", .offer = pt_f("ebbgate.v1, bearer.%s", good)};
    knock(&o1, good, &h);
    pt_is(h, "code", "auth_unauthorized");
    struct tl_ws_opts o2 = {
        .bearer = good, .offer = "ebbgate.v1, bearer.bad", .path = "/ws?token=bad"};
    knock(&o2, "bad", &h);
    pt_is(h, "type", "hello_ok");
    struct tl_ws_opts o3 = {.offer = "ebbgate.v1, bearer.bad"};
    knock(&o3, good, &h);
    pt_is(h, "code", "auth_unauthorized");
    struct tl_ws_opts o4 = {.offer = pt_f("ebbgate.v1, bearer.%s", good)};
    knock(&o4, "bad", &h);
    pt_is(h, "type", "hello_ok");
    struct tl_ws_opts o5 = {.path = pt_f("/ws?token=%s", good)};
    knock(&o5, "bad", &h);
    pt_is(h, "code", "auth_unauthorized");
    struct tl_ws_opts o6 = {.path = "/ws?token=bad"};
    knock(&o6, good, &h);
    pt_is(h, "type", "hello_ok");
}

PT_TEST(tokens, one_clients_subprotocol_does_not_reach_the_next)
{
    const cJSON *h;
    char value[64];

    pt_start(NULL);
    for (int i = 0; i < 100; i++) {
        struct tl_ws_opts with = {.offer = pt_f("ebbgate.v1, bearer.%s", pt_alice())};
        pt_drop(knock(&with, NULL, &h));
        struct tl_ws_opts without = {0};
        struct tl_ws *ws = knock(&without, pt_alice(), &h);
        cr_assert(!tl_ws_header(ws, "Sec-WebSocket-Protocol", value, sizeof value));
        pt_drop(ws);
    }
}

PT_TEST(tokens, a_subprotocol_is_only_answered_when_it_was_offered)
{
    static const char *const other[] = {"ebbgate.v2", "EBBGATE.V1", "ebbgate.v10", "bearer.a.b.c"};
    const cJSON *h;
    char value[64];

    pt_start(NULL);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        struct tl_ws_opts opts = {.offer = other[i]};
        struct tl_ws *ws = knock(&opts, pt_alice(), &h);
        cr_assert(!tl_ws_header(ws, "Sec-WebSocket-Protocol", value, sizeof value),
                  "%s was answered by %s", other[i], value);
        pt_drop(ws);
    }
}

PT_TEST(tokens, are_never_logged)
{
    const cJSON *h;

    pt_start(NULL);
    struct tl_ws_opts query = {.path = pt_f("/ws?token=%s", pt_alice())};
    knock(&query, NULL, &h);
    struct tl_ws_opts header = {.bearer = pt_alice()};
    knock(&header, NULL, &h);
    struct tl_ws_opts bad = {.path = "/ws?token=bent-token-in-a-query"};
    knock(&bad, NULL, &h);
    struct tl_http r;
    tl_http(tl_gate_port(pt_gate), "GET", "/nowhere?token=bent-token-in-a-query", NULL, NULL, &r);
    tl_http_free(&r);
    char *log = tl_gate_log(pt_gate);
    cr_assert(!strstr(log, pt_alice()), "a token is in the log");
    cr_assert(!strstr(log, strrchr(pt_alice(), '.') + 1), "a signature is in the log");
    cr_assert(!strstr(log, "bent-token"), "a query is in the log");
    free(log);
}

static char *b64(const void *bytes, size_t len)
{
    char *text =
        calloc(1, sodium_base64_encoded_len(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING));
    sodium_bin2base64(text,
                      sodium_base64_encoded_len(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
                      bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return text;
}

/* The token with another header, its payload and signature kept. */
static const char *with_header(const char *token, const char *header)
{
    char *h = b64(header, strlen(header));
    const char *out = pt_f("%s%s", h, strchr(token, '.'));
    free(h);
    return out;
}

static void rejected(const char *token)
{
    struct tl_ws *ws = pt_open();
    cJSON *h = tl_hello(ws, "echo", token, NULL, PT_WAIT_MS);
    cr_assert(h, "no answer to hello");
    pt_keep_json(h);
    cr_assert(tl_is(h, "code", "auth_unauthorized"), "%s for the token %s", pt_text(h), token);
    pt_drop(ws);
}

PT_TEST(tokens, bent_tokens_are_refused)
{
    pt_start(NULL);
    const char *good = pt_alice();
    const char *payload = strchr(good, '.') + 1;
    const char *sig = strrchr(good, '.') + 1;

    rejected("x");
    rejected("..");
    rejected("a.b.c");
    rejected(pt_f("%.*s", (int)(strlen(good) - 1), good));
    rejected(pt_f("%.*s", (int)(sig - good), good));
    rejected(pt_f("%.*s", (int)(sig - 1 - good), good));
    rejected(pt_f("%sA", good));
    rejected(pt_f("%s=", good));
    rejected(pt_f("%s.", good));
    rejected(pt_f(" %s", good));
    rejected(pt_f("%s.%s", good, sig));
    char *flip = pt_f("%s", good);
    flip[payload - good + 5] = flip[payload - good + 5] == 'A' ? 'B' : 'A';
    rejected(flip);
    flip = pt_f("%s", good);
    flip[sig - good + 5] = flip[sig - good + 5] == 'A' ? 'B' : 'A';
    rejected(flip);
    rejected(with_header(good, "{\"alg\":\"none\"}"));
    rejected(pt_f("%.*s.", (int)(sig - 1 - with_header(good, "{\"alg\":\"none\"}")),
                  with_header(good, "{\"alg\":\"none\"}")));
    rejected(with_header(good, "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"));
    rejected(with_header(good, "{\"alg\":\"ES256\",\"typ\":\"JWT\"}"));
    rejected(with_header(good, "{\"alg\":\"EdDSA\",\"alg\":\"none\"}"));
    rejected(with_header(good, "{\"alg\":\"EdDSA\",\"kid\":\"../../etc/passwd\"}"));
    /* A key of somebody else, everything else right. */
    unsigned char pk[crypto_sign_PUBLICKEYBYTES], sk[crypto_sign_SECRETKEYBYTES], s[64];
    cr_assert(sodium_init() >= 0);
    crypto_sign_keypair(pk, sk);
    size_t signed_len = (size_t)(sig - 1 - good);
    crypto_sign_detached(s, NULL, (const unsigned char *)good, signed_len, sk);
    char *forged = b64(s, sizeof s);
    rejected(pt_f("%.*s.%s", (int)signed_len, good, forged));
    free(forged);
    /* And another gateway's key. */
    struct tl_gate *other = tl_gate_new(NULL);
    cr_assert(other);
    char *foreign = tl_gate_token(other, NULL);
    cr_assert(foreign);
    rejected(foreign);
    free(foreign);
    tl_gate_free(other);
    pt_client("echo", NULL);
}

PT_TEST(tokens, a_token_without_needed_audience)
{
    pt_start("audience = \"gate-7\";");
    /* The gateway's own tokens carry its audience only when minted with its configuration. */
    struct tl_ws *ws = pt_open();
    cJSON *h = tl_hello(ws, "echo", pt_alice(), NULL, PT_WAIT_MS);
    pt_keep_json(h);
    pt_is(h, "code", "auth_unauthorized");
}

PT_TEST(tokens, refresh)
{
    pt_start(NULL);
    struct tl_claims longer = {.ttl = 7200}, fewer = {.scope = "read"}, bob = {.sub = "bob"};
    struct tl_claims other_agent = {.agents = "support"};
    struct tl_ws *ws = pt_client("echo", NULL);
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&longer));
    const cJSON *o = pt_expect(ws, "auth_ok");
    int64_t expires = tl_int(o, "expires_at");
    int64_t want = (int64_t)time(NULL) + 7200;
    cr_assert(expires >= want - 60 && expires <= want + 60, "%s", pt_text(o));
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&bob));
    pt_error(ws, "auth_unauthorized");
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&fewer));
    pt_error(ws, "auth_unauthorized");
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&other_agent));
    pt_error(ws, "auth_unauthorized");
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"garbage\"}");
    pt_error(ws, "auth_unauthorized");
    pt_send(ws, "{\"type\":\"auth\"}");
    pt_is(pt_error(ws, "invalid_request"), "field", "token");
    pt_send(ws, "{\"type\":\"auth\",\"token\":7}");
    pt_is(pt_error(ws, "invalid_request"), "field", "token");
    /* The old token stays in force. */
    cr_assert_eq(pt_say(ws, "hi"), 1);
}

/* The claim sessions is in use only where the session is another sub's. */
PT_TEST(tokens, refresh_without_a_claim_that_was_not_needed)
{
    pt_start(NULL);
    struct tl_claims all = {.sessions = "*"}, guest = {.sub = "bob", .sessions = "*"};
    struct tl_claims guest_without = {.sub = "bob"}, guest_this = {.sub = "bob", .sessions = "own"};
    const char *own = "\"session_id\":\"own\",\"create\":true";
    for (int i = 0; i < 2; i++) { /* made, then resumed */
        struct tl_ws *ws = pt_client_as(pt_token_for(&all), "echo", own);
        pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_alice());
        pt_expect(ws, "auth_ok");
    }
    struct tl_ws *bob = pt_client_as(pt_token_for(&guest), "echo", own);
    pt_send(bob, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&guest_without));
    pt_error(bob, "auth_unauthorized");
    pt_send(bob, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&guest_this));
    pt_expect(bob, "auth_ok");
}

PT_TEST(tokens, expiring_is_told_and_expiry_closes)
{
    pt_start(NULL);
    struct tl_claims brief = {.ttl = 31};
    struct tl_ws *ws = pt_client_as(pt_token_for(&brief), "echo", NULL);
    const cJSON *o = pt_expect(ws, "token_expiring");
    int64_t left = tl_int(o, "expires_in_ms");
    cr_assert(left > 25000 && left <= 30000, "%s", pt_text(o));
    struct tl_claims longer = {.ttl = 3600};
    pt_send(ws, "{\"type\":\"auth\",\"token\":\"%s\"}", pt_token_for(&longer));
    pt_expect(ws, "auth_ok");

    struct tl_claims short_lived = {.ttl = 1};
    struct tl_ws *doomed = pt_client_as(pt_token_for(&short_lived), "echo", NULL);
    pt_wait(doomed, "token_expiring");
    int got = tl_ws_wait_close(doomed, 75000);
    cr_assert_eq(got, 4001, "closed with %d", got);
    pt_quiet(ws);
}
