/* The legacy handshake: the same guarantees as hello under older names. */
#include "pt.h"

PT_SUITE(join);

static const cJSON *join(struct tl_ws *ws, const char *token, const char *rest)
{
    if (token)
        pt_send(ws, "{\"type\":\"join\",\"agent_id\":\"echo\",\"token\":\"%s\"%s}", token, rest);
    else
        pt_send(ws, "{\"type\":\"join\",\"agent_id\":\"echo\"%s}", rest);
    return pt_next(ws);
}

PT_TEST(join, joined_has_every_field)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_open();
    const cJSON *o = join(ws, pt_alice(), "");
    pt_is(o, "type", "joined");
    cr_assert(*tl_str(o, "session_id"));
    pt_is(o, "agent_id", "echo");
    pt_false(o, "resumed");
    pt_int(o, "cursor", 0);
    pt_has(o, "oldest_cursor");
    pt_false(o, "resync_required");
    pt_int(o, "sequence", 0);
    pt_int(o, "protocol_version", 1);
    pt_int(o, "server_min_version", 1);
    pt_int(o, "server_max_version", 1);
    cr_assert_eq(pt_say(ws, "hi"), 1);
}

PT_TEST(join, replays_as_hello_does)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 0; i < 5; i++)
        pt_say(a, "x");
    struct tl_ws *ws = pt_open();
    const cJSON *o = join(ws, pt_alice(), pt_f(",%s,\"since\":2", sid));
    pt_is(o, "type", "joined");
    pt_true(o, "resumed");
    pt_int(o, "cursor", 5);
    pt_int(o, "sequence", 2);
    for (int i = 3; i <= 5; i++)
        pt_int(pt_expect(ws, "replay"), "seq", i);
    pt_int(pt_expect(ws, "replay_end"), "cursor", 5);
    pt_say(a, "live");
    pt_int(pt_expect(ws, "message"), "cursor", 6);
    ws = pt_open();
    o = join(ws, pt_alice(), pt_f(",%s,\"since\":77", sid));
    pt_true(o, "resync_required");
    pt_int(pt_expect(ws, "snapshot"), "state.event_cursor", 6);
}

static void refused(const char *token, const char *rest, const char *code)
{
    struct tl_ws *ws = pt_open();
    const cJSON *o = join(ws, token, rest);
    pt_is(o, "type", "error");
    pt_is(o, "code", code);
    cr_assert(*tl_str(o, "message"));
    pt_closed(ws, 4003);
}

PT_TEST(join, errors_have_the_same_codes)
{
    pt_start(NULL);
    refused(NULL, "", "auth_required");
    refused("bad", "", "auth_unauthorized");
    refused(pt_alice(), ",\"min_version\":2,\"max_version\":3", "protocol_unsupported");
    refused(pt_alice(), ",\"min_version\":3,\"max_version\":2", "invalid_request");
    refused(pt_alice(), ",\"session_id\":\"nowhere\"", "session_not_found");
    refused(pt_alice(), ",\"since\":-1", "invalid_request");
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"join\",\"agent_id\":\"nobody\",\"token\":\"%s\"}", pt_alice());
    pt_is(pt_next(ws), "code", "agent_not_found");
    pt_closed(ws, 4003);
}

PT_TEST(join, publish_and_leave_work)
{
    pt_start(NULL);
    struct tl_ws *ws = pt_open();
    const cJSON *o = join(ws, pt_alice(), ",\"min_version\":1,\"max_version\":4");
    pt_int(o, "protocol_version", 1);
    pt_send(ws, "{\"type\":\"message\",\"content\":\"a\",\"message_id\":\"1\"}");
    pt_int(pt_expect(ws, "response"), "cursor", 1);
    pt_send(ws, "{\"type\":\"leave\"}");
    pt_expect(ws, "left");
    pt_closed(ws, 1000);
}
