/* The handshake: hello_ok and every hello_error, negotiation, features, policy, ownership. */
#include "pt.h"

PT_SUITE(handshake);

/* Opens, sends a first frame and asks for this refusal. */
static void refused(const char *frame, const char *code, const char *next_step, const char *field)
{
    struct tl_ws *ws = pt_open();

    pt_send(ws, "%s", frame);
    pt_refused(ws, code, next_step, 4003);
    if (field)
        cr_assert(tl_is(pt_hello, "field", field), "field is not %s for %s: %s", field, frame,
                  pt_text(pt_hello));
}

static const char *hello(const char *rest)
{
    return pt_f("{\"type\":\"hello\",\"token\":\"%s\",%s}", pt_alice(), rest);
}

/* One working hello with these members; the connection is dropped again. */
static const cJSON *accepted(const char *rest)
{
    struct tl_ws *ws = pt_open();

    pt_send(ws, "%s", hello(rest));
    const cJSON *o = pt_expect(ws, "hello_ok");
    pt_drop(ws);
    return o;
}

PT_TEST(handshake, hello_ok_has_every_field)
{
    pt_start(NULL);
    pt_client("echo", "\"protocol_min\":1,\"protocol_max\":1,\"capabilities\":[\"streaming\"],"
                      "\"client\":{\"name\":\"t\",\"version\":\"1\"}");
    pt_int(pt_hello, "protocol", 1);
    cr_assert(cJSON_IsArray(tl_get(pt_hello, "features.methods")));
    cr_assert(cJSON_IsArray(tl_get(pt_hello, "features.events")));
    pt_int(pt_hello, "policy.max_payload", 1048576);
    pt_int(pt_hello, "policy.max_buffered_bytes", 8388608);
    pt_int(pt_hello, "policy.max_queued_frames", 1000);
    pt_int(pt_hello, "policy.heartbeat_ms", 15000);
    cr_assert(*tl_str(pt_hello, "session_id"));
    pt_false(pt_hello, "resumed");
    pt_int(pt_hello, "cursor", 0);
    pt_int(pt_hello, "sequence", 0);
    cr_assert(tl_int(pt_hello, "oldest_cursor") >= 0 && tl_int(pt_hello, "oldest_cursor") <= 1);
    pt_false(pt_hello, "resync_required");
    pt_hasnt(pt_hello, "resync_reason");
    cr_assert(*tl_str(pt_hello, "epoch"));
    pt_is(pt_hello, "server.name", "ebbgate");
    cr_assert(*tl_str(pt_hello, "server.version"));
}

PT_TEST(handshake, policy_tells_the_limits_in_force)
{
    pt_start("heartbeat_ms = 7000; max_payload = 70000; max_buffered_bytes = 300000; "
             "max_queued_frames = 77;");
    pt_client("echo", NULL);
    pt_int(pt_hello, "policy.heartbeat_ms", 7000);
    pt_int(pt_hello, "policy.max_payload", 70000);
    pt_int(pt_hello, "policy.max_buffered_bytes", 300000);
    pt_int(pt_hello, "policy.max_queued_frames", 77);
}

PT_TEST(handshake, both_spellings_and_the_newer_wins)
{
    pt_start(NULL);
    const cJSON *o = accepted("\"agent_id\":\"echo\",\"protocol\":{\"min\":1,\"max\":5},"
                              "\"caps\":[\"streaming\"]");
    pt_int(o, "protocol", 1);
    cr_assert(tl_in(o, "features.events", "token_stream"));
    /* The newer spelling wins where both are there. */
    o = accepted("\"agent_id\":\"echo\",\"protocol\":{\"min\":7,\"max\":9},\"protocol_min\":1,"
                 "\"protocol_max\":1,\"caps\":[\"streaming\"],\"capabilities\":[]");
    cr_assert(!tl_in(o, "features.events", "token_stream"), "caps won: %s", pt_text(o));
    refused(hello("\"agent_id\":\"echo\",\"protocol\":{\"min\":7,\"max\":9}"),
            "protocol_unsupported", "downgrade_client", NULL);
}

PT_TEST(handshake, absent_and_null_members)
{
    pt_start(NULL);
    const cJSON *o = accepted("\"agent_id\":\"echo\"");
    pt_int(o, "protocol", 1);
    o = accepted("\"agent_id\":\"echo\",\"protocol_min\":null,\"protocol_max\":null,"
                 "\"capabilities\":null,\"session_id\":null,\"since\":null,\"epoch\":null,"
                 "\"role\":null,\"client\":null,\"protocol\":null,\"caps\":null,\"create\":null");
    pt_int(o, "protocol", 1);
    pt_false(o, "resumed");
    cr_assert(!tl_in(o, "features.events", "token_stream"));
    /* Null is absent for optional fields only. */
    refused(hello("\"agent_id\":null"), "invalid_request", "do_not_retry", "agent_id");
}

PT_TEST(handshake, unknown_fields_and_capabilities_are_ignored)
{
    pt_start(NULL);
    const cJSON *o = accepted("\"agent_id\":\"echo\",\"x\":{\"y\":[1]},\"Since\":\"z\","
                              "\"capabilities\":[\"streaming\",\"x-unheard-of\"]");
    cr_assert(tl_in(o, "features.events", "token_stream"));
}

PT_TEST(handshake, field_names_are_case_sensitive)
{
    pt_start(NULL);
    refused(hello("\"Agent_id\":\"echo\""), "invalid_request", "do_not_retry", "agent_id");
}

PT_TEST(handshake, auth_required)
{
    pt_start(NULL);
    refused("{\"type\":\"hello\",\"agent_id\":\"echo\"}", "auth_required", "reauthenticate", NULL);
    refused("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":null}", "auth_required",
            "reauthenticate", NULL);
}

PT_TEST(handshake, auth_unauthorized_has_one_message)
{
    pt_start(NULL);
    refused("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"nonsense\"}",
            "auth_unauthorized", "reauthenticate", NULL);
    const char *first = tl_str(pt_hello, "message");
    /* A token that is good but does not reach this agent. */
    struct tl_claims claims = {.agents = "support"};
    refused(
        pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_token_for(&claims)),
        "auth_unauthorized", "reauthenticate", NULL);
    pt_is(pt_hello, "message", first);
    /* A token without the scope for a worker. */
    refused(hello("\"agent_id\":\"echo\",\"role\":\"agent\""), "auth_unauthorized",
            "reauthenticate", NULL);
    pt_is(pt_hello, "message", first);
}

PT_TEST(handshake, protocol_unsupported)
{
    pt_start(NULL);
    refused(hello("\"agent_id\":\"echo\",\"protocol_min\":2,\"protocol_max\":3"),
            "protocol_unsupported", "downgrade_client", NULL);
    pt_int(pt_hello, "supported.min", 1);
    pt_int(pt_hello, "supported.max", 1);
    refused(hello("\"agent_id\":\"echo\",\"protocol_min\":0,\"protocol_max\":0"),
            "protocol_unsupported", "upgrade_client", NULL);
    pt_int(pt_hello, "supported.min", 1);
    pt_int(accepted("\"agent_id\":\"echo\",\"protocol_min\":0,\"protocol_max\":99"), "protocol", 1);
}

PT_TEST(handshake, unknown_agent_and_session)
{
    pt_start(NULL);
    refused(hello("\"agent_id\":\"nobody\""), "agent_not_found", "do_not_retry", NULL);
    refused(hello("\"agent_id\":\"echo\",\"session_id\":\"nowhere\""), "session_not_found",
            "do_not_retry", NULL);
    refused(hello("\"agent_id\":\"echo\",\"session_id\":\"no where\""), "session_not_found",
            "do_not_retry", NULL);
}

/* Each wrong member is named. */
static const struct {
    const char *rest;
    const char *field;
} bad_fields[] = {
    {"\"x\":1", "agent_id"},
    {"\"agent_id\":7", "agent_id"},
    {"\"agent_id\":\"\"", "agent_id"},
    {"\"agent_id\":[\"echo\"]", "agent_id"},
    {"\"agent_id\":\"echo\",\"session_id\":7", "session_id"},
    {"\"agent_id\":\"echo\",\"session_id\":\"\"", "session_id"},
    {"\"agent_id\":\"echo\",\"session_id\":\"a b\",\"create\":true", "session_id"},
    {"\"agent_id\":\"echo\",\"session_id\":\"a/b\",\"create\":true", "session_id"},
    {"\"agent_id\":\"echo\",\"create\":\"yes\",\"session_id\":\"x\"", "create"},
    {"\"agent_id\":\"echo\",\"since\":-1", "since"},
    {"\"agent_id\":\"echo\",\"since\":1.5", "since"},
    {"\"agent_id\":\"echo\",\"since\":\"7\"", "since"},
    {"\"agent_id\":\"echo\",\"since\":true", "since"},
    {"\"agent_id\":\"echo\",\"since\":9007199254740993", "since"},
    {"\"agent_id\":\"echo\",\"since\":1e400", "since"},
    {"\"agent_id\":\"echo\",\"epoch\":7", "epoch"},
    {"\"agent_id\":\"echo\",\"role\":\"robot\"", "role"},
    {"\"agent_id\":\"echo\",\"role\":7", "role"},
    {"\"agent_id\":\"echo\",\"capabilities\":\"streaming\"", "capabilities"},
    {"\"agent_id\":\"echo\",\"capabilities\":[7]", "capabilities"},
    {"\"agent_id\":\"echo\",\"capabilities\":{}", "capabilities"},
    {"\"agent_id\":\"echo\",\"protocol_min\":\"1\"", "protocol_min"},
    {"\"agent_id\":\"echo\",\"protocol_min\":0.5", "protocol_min"},
    {"\"agent_id\":\"echo\",\"protocol_max\":true", "protocol_max"},
    {"\"agent_id\":\"echo\",\"protocol_max\":1.5", "protocol_max"},
    {"\"agent_id\":\"echo\",\"protocol_min\":-1", "protocol_min"},
    {"\"agent_id\":\"echo\",\"protocol\":7", "protocol"},
    {"\"agent_id\":\"echo\",\"caps\":7", "caps"},
    {"\"agent_id\":\"echo\",\"client\":\"x\"", "client"},
};

PT_TEST(handshake, a_wrong_field_is_named)
{
    pt_start(NULL);
    for (size_t i = 0; i < sizeof bad_fields / sizeof *bad_fields; i++)
        refused(hello(bad_fields[i].rest), "invalid_request", "do_not_retry", bad_fields[i].field);
    char name[130];
    memset(name, 'a', 129);
    name[129] = 0;
    refused(hello(pt_f("\"agent_id\":\"echo\",\"create\":true,\"session_id\":\"%s\"", name)),
            "invalid_request", "do_not_retry", "session_id");
    refused("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":7}", "invalid_request",
            "do_not_retry", "token");
    refused(hello("\"agent_id\":\"echo\",\"protocol_min\":2,\"protocol_max\":1"), "invalid_request",
            "do_not_retry", NULL);
    cr_assert(!strncmp(tl_str(pt_hello, "field"), "protocol", 8), "%s", pt_text(pt_hello));
}

PT_TEST(handshake, worker_concurrency_is_checked)
{
    static const char *const bad[] = {"0", "1001", "-1", "1.5", "\"2\""};

    pt_start(NULL);
    const char *token = pt_worker_token("echo");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"role\":\"agent\",\"token\":\"%s\""
                     ",\"concurrency\":%s}",
                     token, bad[i]),
                "invalid_request", "do_not_retry", "concurrency");
}

PT_TEST(handshake, checks_run_in_the_stated_order)
{
    pt_start(NULL);
    /* Shape before token. */
    refused("{\"type\":\"hello\",\"protocol_min\":5,\"protocol_max\":9}", "invalid_request",
            "do_not_retry", "agent_id");
    refused("{\"type\":\"hello\",\"agent_id\":\"echo\",\"since\":-1,\"token\":\"bad\"}",
            "invalid_request", "do_not_retry", "since");
    /* Token before version. */
    refused("{\"type\":\"hello\",\"agent_id\":\"nobody\",\"protocol_min\":5,\"protocol_max\":9}",
            "auth_required", "reauthenticate", NULL);
    refused("{\"type\":\"hello\",\"agent_id\":\"nobody\",\"protocol_min\":5,\"protocol_max\":9,"
            "\"token\":\"bad\"}",
            "auth_unauthorized", "reauthenticate", NULL);
    /* Version before agent, agent before session. */
    refused(hello("\"agent_id\":\"nobody\",\"protocol_min\":5,\"protocol_max\":9"),
            "protocol_unsupported", "downgrade_client", NULL);
    refused(hello("\"agent_id\":\"nobody\",\"session_id\":\"nowhere\""), "agent_not_found",
            "do_not_retry", NULL);
}

PT_TEST(handshake, the_first_frame_must_be_hello)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"message\",\"content\":\"hi\"}");
    pt_error(ws, "not_joined");
    pt_send(ws, "{\"type\":\"ping\"}");
    pt_error(ws, "not_joined");
    pt_send(ws, "{\"type\":\"message\",");
    pt_error(ws, "invalid_json");
    cr_assert(tl_ws_frame(ws, 0x82, "x", 1));
    pt_error(ws, "invalid_frame");
    /* None of these ends the handshake. */
    pt_send(ws, "%s", hello("\"agent_id\":\"echo\""));
    pt_int(pt_expect(ws, "hello_ok"), "cursor", 0);
}

PT_TEST(handshake, write_without_read)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client_as(pt_token("alice", "write"), "echo", NULL);
    const char *sid = pt_sid();
    cr_assert(tl_in(pt_hello, "features.methods", "message"));
    cr_assert(!tl_in(pt_hello, "features.methods", "history"));
    cr_assert(!tl_in(pt_hello, "features.events", "message"));
    cr_assert_eq(pt_say(ws, "x"), 1);
    struct tl_ws *a = pt_client("echo", sid);
    cr_assert_eq(pt_say(a, "not for the other"), 2);
    pt_send(ws, "{\"type\":\"history\"}");
    pt_is(pt_error(ws, "insufficient_scope"), "required_scope", "read");
}

PT_TEST(handshake, a_second_hello_is_refused_and_changes_nothing)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_client("echo", NULL);
    pt_send(ws, "%s", hello("\"agent_id\":\"support\""));
    pt_error(ws, "invalid_request");
    cr_assert_eq(pt_say(ws, "still here"), 1);
}

PT_TEST(handshake, silence_ends_at_the_handshake_timeout)
{
    pt_start("handshake_timeout_ms = 400;");
    struct tl_ws *quiet = pt_open(), *nothing;
    nothing = pt_keep(tl_ws_tcp(NULL, tl_gate_port(pt_gate), 0, 5000));
    pt_closed(quiet, 4003);
    cr_assert(tl_ws_wait_eof(nothing, PT_WAIT_MS), "a silent socket is kept");
    /* One that said hello in time stays. */
    struct tl_ws *ws = pt_client("echo", NULL);
    cr_assert(tl_json_quiet(ws, 900), "a live connection was touched by the timeout");
    pt_quiet(ws);
}

PT_TEST(handshake, pings_do_not_stretch_the_handshake_timeout)
{
    pt_start("handshake_timeout_ms = 400;");
    struct tl_ws *ws = pt_open();
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    int rc = TL_TIMEOUT;
    while (rc != TL_CLOSE && rc != TL_EOF && rc != TL_RESET && tl_now_ms() < end) {
        if (!tl_ws_frame(ws, 0x89, "p", 1))
            break;
        rc = tl_ws_recv(ws, 50);
    }
    cr_assert(tl_now_ms() < end, "pings kept an unfinished handshake alive");
}

PT_TEST(handshake, before_hello_a_frame_is_at_most_16_kib)
{
    pt_start(NULL);
    size_t base = strlen(hello("\"agent_id\":\"echo\",\"x\":\"\""));
    char *fill = calloc(1, 20000);
    memset(fill, 'x', 16384 - base);
    struct tl_ws *ws = pt_open();
    pt_send(ws, "%s", hello(pt_f("\"agent_id\":\"echo\",\"x\":\"%s\"", fill)));
    pt_expect(ws, "hello_ok");
    memset(fill, 'x', 16385 - base);
    ws = pt_open();
    pt_send(ws, "%s", hello(pt_f("\"agent_id\":\"echo\",\"x\":\"%s\"", fill)));
    pt_closed(ws, 1009);
    free(fill);
}

PT_TEST(handshake, features_are_true_for_client_scopes_and_capabilities)
{
    pt_start(NULL);
    pt_client("echo", NULL);
    static const char *const methods[] = {"message", "abort", "leave", "ack",
                                          "history", "ping",  "auth",  NULL};
    for (size_t i = 0; methods[i]; i++)
        cr_assert(tl_in(pt_hello, "features.methods", methods[i]), "%s: %s", methods[i],
                  pt_text(pt_hello));
    static const char *const never[] = {"emit",     "final",  "fail", "extend",
                                        "presence", "typing", NULL};
    for (size_t i = 0; never[i]; i++)
        cr_assert(!tl_in(pt_hello, "features.methods", never[i]), "%s: %s", never[i],
                  pt_text(pt_hello));
    static const char *const capable[] = {"token_stream", "presence_join",  "typing", "message_ack",
                                          "message_nack", "delivery_retry", NULL};
    for (size_t i = 0; capable[i]; i++)
        cr_assert(!tl_in(pt_hello, "features.events", capable[i]), "%s: %s", capable[i],
                  pt_text(pt_hello));
    cr_assert(tl_in(pt_hello, "features.events", "message"));
    cr_assert(tl_in(pt_hello, "features.events", "response"));
    cr_assert(tl_in(pt_hello, "features.events", "x.*"), "%s", pt_text(pt_hello));
    cr_assert(tl_in(pt_hello, "features.events", "*"), "%s", pt_text(pt_hello));

    pt_client("echo", "\"capabilities\":[\"streaming\",\"presence\",\"ack\"]");
    for (size_t i = 0; capable[i]; i++)
        cr_assert(tl_in(pt_hello, "features.events", capable[i]), "%s: %s", capable[i],
                  pt_text(pt_hello));
    cr_assert(tl_in(pt_hello, "features.methods", "presence"));
    cr_assert(tl_in(pt_hello, "features.methods", "typing"));

    pt_client_as(pt_token("alice", "read"), "echo", NULL);
    cr_assert(!tl_in(pt_hello, "features.methods", "message"), "%s", pt_text(pt_hello));
    cr_assert(!tl_in(pt_hello, "features.methods", "abort"), "%s", pt_text(pt_hello));
    cr_assert(tl_in(pt_hello, "features.methods", "history"), "%s", pt_text(pt_hello));

    pt_client_as(pt_token("alice", "write"), "echo", NULL);
    cr_assert(!tl_in(pt_hello, "features.events", "*"), "%s", pt_text(pt_hello));
}

PT_TEST(handshake, worker_hello)
{
    pt_start(NULL);
    pt_worker("echo", "\"concurrency\":3");
    cr_assert(*tl_str(pt_hello, "worker_id"), "%s", pt_text(pt_hello));
    static const char *const absent[] = {"session_id", "resumed",       "cursor",
                                         "sequence",   "oldest_cursor", "resync_required"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        pt_hasnt(pt_hello, absent[i]);
    static const char *const methods[] = {"emit",    "final",   "fail", "extend",
                                          "publish", "history", "ping", NULL};
    for (size_t i = 0; methods[i]; i++)
        cr_assert(tl_in(pt_hello, "features.methods", methods[i]), "%s: %s", methods[i],
                  pt_text(pt_hello));
    cr_assert(!tl_in(pt_hello, "features.methods", "message"));
    cr_assert(tl_in(pt_hello, "features.events", "turn"));
}

PT_TEST(handshake, worker_needs_scope_and_agents)
{
    pt_start(NULL);
    struct tl_claims no_agents = {.sub = "w", .scope = "agent"};
    struct tl_claims other = {.sub = "w", .scope = "agent", .agents = "support"};
    struct tl_claims no_scope = {.sub = "w", .scope = "read write", .agents = "echo"};
    struct tl_claims all[] = {no_agents, other, no_scope};
    for (size_t i = 0; i < 3; i++)
        refused(pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"role\":\"agent\",\"token\":\"%s"
                     "\"}",
                     pt_token_for(&all[i])),
                "auth_unauthorized", "reauthenticate", NULL);
    struct tl_claims star = {.sub = "w", .scope = "agent", .agents = "*"};
    pt_client_as(pt_token_for(&star), "echo", "\"role\":\"agent\"");
}

PT_TEST(handshake, a_client_needs_read)
{
    pt_start(NULL);
    refused(
        pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_token("w", "agent")),
        "auth_unauthorized", "reauthenticate", NULL);
}

PT_TEST(handshake, an_agent_is_known_once_served_and_stays_known)
{
    pt_start(NULL);
    refused(hello("\"agent_id\":\"poet\""), "agent_not_found", "do_not_retry", NULL);
    pt_drop(pt_worker("poet", NULL));
    pt_client("poet", NULL);
    pt_kill_restart();
    pt_client("poet", NULL);
}

PT_TEST(handshake, sessions_belong_to_their_sub)
{
    pt_start(NULL);
    pt_client("echo", NULL);
    const char *sid = pt_sid();
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    const char *bob = pt_token("bob", "read write");
    refused(pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\",%s}", bob, sid),
            "auth_unauthorized", "reauthenticate", NULL);
    struct tl_claims named = {.sub = "bob", .sessions = id};
    pt_client_as(pt_token_for(&named), "echo", sid);
    pt_true(pt_hello, "resumed");
    struct tl_claims any = {.sub = "carol", .sessions = "*"};
    pt_client_as(pt_token_for(&any), "echo", sid);
    pt_true(pt_hello, "resumed");
    /* The owner, but another agent than the session's. */
    refused(hello(pt_f("\"agent_id\":\"support\",%s", sid)), "auth_unauthorized", "reauthenticate",
            NULL);
    pt_client("echo", sid);
    pt_true(pt_hello, "resumed");
}

PT_TEST(handshake, a_client_may_choose_the_id_of_a_new_session)
{
    pt_start(NULL);
    pt_client("echo", "\"session_id\":\"A-z_0.9:x\",\"create\":true");
    pt_is(pt_hello, "session_id", "A-z_0.9:x");
    pt_false(pt_hello, "resumed");
    pt_client("echo", "\"session_id\":\"A-z_0.9:x\",\"create\":true");
    pt_true(pt_hello, "resumed");
    pt_client("echo", "\"session_id\":\"A-z_0.9:x\"");
    pt_true(pt_hello, "resumed");
    char name[129];
    memset(name, 'n', 128);
    name[128] = 0;
    pt_client("echo", pt_f("\"session_id\":\"%s\",\"create\":true", name));
    pt_is(pt_hello, "session_id", name);
    refused(pt_f("{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\",\"create\":true,"
                 "\"session_id\":\"A-z_0.9:x\"}",
                 pt_token("bob", "read write")),
            "auth_unauthorized", "reauthenticate", NULL);
}

PT_TEST(handshake, epoch_is_the_databases)
{
    pt_start(NULL);
    pt_client("echo", NULL);
    const char *epoch = pt_f("%s", tl_str(pt_hello, "epoch"));
    pt_client("support", NULL);
    pt_is(pt_hello, "epoch", epoch);
    pt_restart();
    pt_client("echo", NULL);
    pt_is(pt_hello, "epoch", epoch);
}
