/*
 * test_conn.c - one connection against a core that does what the test says: handshake, methods,
 * limits, deadlines. What it takes and loses is test_conn_flow.c's, event streams are
 * test_conn_stream.c's.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge_rig.h"

static void expect_refused(struct client *c, const char *code, const char *step, unsigned close)
{
    char want[200], reason[126];
    const char *const text = client_next(c, NULL);
    snprintf(want, sizeof want, "{\"type\":\"hello_error\",\"code\":\"%s\",\"message\":\"", code);
    cr_expect_eq(strncmp(text, want, strlen(want)), 0, "%s, want %s", text, want);
    snprintf(want, sizeof want, "\"next_step\":\"%s\",\"next\":\"%s\"", step, step);
    HAS(text, want);
    cr_expect_eq(client_close_code(c, reason), close);
    cr_expect_str_eq(reason, code);
    client_eof(c);
    client_free(c);
}

Test(conn, handshake_checks_in_order)
{
    struct rig *const rig = rig_start();
    struct eg_adopted a = {.origin_allowed = false, .refuse = EG_CODE_too_many_connections};
    struct client *c = rig_connect(rig, &a);
    client_hello(rig, c, "hello", "\"agent_id\":5", NULL); /* all of it is wrong */
    expect_refused(c, "origin_not_allowed", "do_not_retry", 4003);

    a.origin_allowed = true;
    c = rig_connect(rig, &a);
    client_text(c, "{\"type\":\"hello\",\"agent_id\":5}");
    expect_refused(c, "too_many_connections", "wait_then_retry", 4029);

    a.refuse = EG_CODE_rate_limited;
    c = rig_connect(rig, &a);
    client_text(c, "not even JSON");
    expect_refused(c, "rate_limited", "wait_then_retry", 4008);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", "\"agent_id\":5,\"protocol_min\":9,\"protocol_max\":9", NULL);
    expect_refused(c, "invalid_request", "do_not_retry", 4003);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT ",\"protocol_min\":9,\"protocol_max\":9", NULL);
    expect_refused(c, "auth_required", "reauthenticate", 4003);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello",
                 AGENT ",\"protocol_min\":9,\"protocol_max\":9,\"token\":\"x.y.z\"", NULL);
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT ",\"protocol_min\":9,\"protocol_max\":9", "read");
    expect_refused(c, "protocol_unsupported", "downgrade_client", 4003);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT ",\"protocol_min\":0,\"protocol_max\":0", "read");
    expect_refused(c, "protocol_unsupported", "upgrade_client", 4003);

    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT, "read");
    struct eg_cmd *const cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_ATTACH);
    cr_expect_str_eq(cmd->identity.sub, "ann");
    rig_out(rig, (struct eg_out){.kind = EG_OUT_REFUSE,
                                 .conn = cmd->conn,
                                 .code = EG_CODE_agent_not_found,
                                 .field = "agent_id",
                                 .retry_after_s = -1});
    eg_cmd_free(cmd);
    expect_refused(c, "agent_not_found", "do_not_retry", 4003);
    rig_free(rig);
}

Test(conn, draining_refuses_hello)
{
    struct rig *const rig = rig_start();
    eg_reactors_drain(rig->rs);
    struct client *const c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT, "read");
    expect_refused(c, "draining", "wait_then_retry", 1012);
    rig_free(rig);
}

Test(conn, rights_of_the_token)
{
    struct rig *const rig = rig_start();
    struct client *c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT, "admin");
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);
    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT ",\"role\":\"agent\"", "read write");
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);
    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", "\"agent_id\":\"other\"", "read write"); /* agents: echo */
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);
    c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", "\"agent_id\":\"other\",\"role\":\"agent\"", "agent");
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);
    cr_expect_null(rig_try_cmd(rig));
    rig_free(rig);
}

Test(conn, the_token_of_hello_goes_before_the_query)
{
    struct rig *const rig = rig_start();
    struct eg_adopted a = {.origin_allowed = true};
    a.token = strdup("bent");
    a.token_from_query = true;
    struct client *c = rig_connect(rig, &a);
    client_hello(rig, c, "hello", AGENT, "read");
    eg_cmd_free(rig_attach(rig));
    client_free(c);
    a.token = strdup("bent");
    a.token_from_query = false;
    c = rig_connect(rig, &a);
    client_hello(rig, c, "hello", AGENT, "read");
    expect_refused(c, "auth_unauthorized", "reauthenticate", 4003);
    a.token = rig_token(rig, NULL, "read", NULL, 60);
    a.token_from_query = true;
    c = rig_connect(rig, &a);
    client_hello(rig, c, "hello", AGENT, NULL);
    eg_cmd_free(rig_attach(rig));
    client_free(c);
    rig_free(rig);
}

Test(conn, join_is_told_errors_as_error)
{
    struct rig *const rig = rig_start();
    struct client *c = rig_connect(rig, NULL);
    client_hello(rig, c, "join", AGENT, NULL);
    HAS(client_next(c, NULL), "{\"type\":\"error\",\"code\":\"auth_required\"");
    cr_expect_eq(client_close_code(c, NULL), 4003);
    client_free(c);
    c = rig_connect(rig, NULL);
    client_hello(rig, c, "join", "\"agent_id\":null", NULL);
    const char *const text = client_next(c, NULL);
    HAS(text, "{\"type\":\"error\",\"code\":\"invalid_request\"");
    HAS(text, "\"field\":\"agent_id\"");
    cr_expect_eq(client_close_code(c, NULL), 4003);
    client_free(c);
    c = rig_connect(rig, NULL);
    client_hello(rig, c, "join", AGENT ",\"since\":0", "read write");
    struct eg_cmd *const cmd = rig_cmd(rig);
    cr_expect(cmd->legacy);
    rig_append(rig, 1, "response", "{}");
    rig_welcome(
        rig, cmd,
        (struct eg_welcome){.sid = 1, .cursor = 1, .oldest = 1, .replay = true, .resumed = true});
    cr_expect_str_eq(client_next(c, NULL),
                     "{\"type\":\"joined\",\"session_id\":\"s1\",\"agent_id\":\"echo\","
                     "\"resumed\":true,\"cursor\":1,\"sequence\":0,\"oldest_cursor\":1,"
                     "\"resync_required\":false,\"protocol_version\":1,\"server_min_version\":1,"
                     "\"server_max_version\":1}");
    HAS(client_next(c, NULL), "{\"type\":\"replay\",\"seq\":1,");
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"replay_end\",\"cursor\":1}");
    client_free(c);
    rig_free(rig);
}

Test(conn, before_hello)
{
    struct rig *const rig = rig_start();
    struct client *c = rig_connect(rig, NULL);
    client_text(c, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m1\"}");
    const char *text = client_next(c, NULL);
    HAS(text, "\"code\":\"not_joined\"");
    HAS(text, "\"ref\":\"m1\"");
    client_text(c, "{\"type\":");
    HAS(client_next(c, NULL), "\"code\":\"invalid_json\"");
    client_text(c, "{\"a\":1}");
    HAS(client_next(c, NULL), "\"code\":\"invalid_frame\"");
    client_text(c, "{\"type\":\"what\"}");
    HAS(client_next(c, NULL), "\"code\":\"unknown_type\"");
    client_frame(c, 0x82, "bin", 3);
    HAS(client_next(c, NULL), "\"code\":\"invalid_frame\"");
    client_hello(rig, c, "hello", AGENT, "read"); /* and it is still welcome */
    eg_cmd_free(rig_cmd(rig));
    client_free(c);

    c = rig_connect(rig, NULL);
    char *const big = malloc(16385);
    memset(big, ' ', 16385);
    client_frame(c, 0x81, big, 16385);
    free(big);
    cr_expect_eq(client_close_code(c, NULL), 1009);
    client_free(c);
    rig_free(rig);
}

/* What hello_ok says for these scopes and capabilities. */
static char *features(struct rig *rig, const char *members, const char *scope, bool worker)
{
    struct client *const c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", members, scope);
    struct eg_welcome w = {.worker = worker, .sid = worker ? 0 : 1, .acked = 3};
    if (worker) {
        strcpy(w.worker_id, "w-1");
    }
    rig_welcome(rig, rig_attach(rig), w);
    char *const text = strdup(client_next(c, NULL));
    client_free(c);
    return text;
}

Test(conn, features_tell_the_truth)
{
    struct rig *const rig = rig_start();
    char *text = features(rig, AGENT ",\"capabilities\":null", "read write", false);
    HAS(text,
        "\"methods\":[\"message\",\"abort\",\"leave\",\"ack\",\"history\",\"ping\",\"auth\"]");
    HAS(text, "\"events\":[\"message\",\"response\",\"message_abort\",\"session_end\",\"x.*\","
              "\"*\",\"replay\",");
    HAS(text, "\"policy\":{\"max_payload\":1048576,\"max_buffered_bytes\":8388608,"
              "\"max_queued_frames\":1000,\"heartbeat_ms\":15000}");
    HAS(text, "\"session_id\":\"s1\",\"resumed\":false,\"cursor\":0,\"sequence\":0,");
    HAS(text, "\"acked_cursor\":3");
    HAS(text, "\"epoch\":\"epoch-1\",\"server\":{\"name\":\"ebbgate\",\"version\":\"" EG_VERSION);
    free(text);
    text = features(rig, AGENT ",\"caps\":[\"streaming\",\"presence\",\"ack\"]", "read", false);
    HAS(text,
        "\"methods\":[\"leave\",\"ack\",\"history\",\"ping\",\"presence\",\"typing\",\"auth\"]");
    HAS(text, "\"token_stream\"");
    HAS(text, "\"presence_join\"");
    HAS(text, "\"delivery_retry\"");
    free(text);
    text = features(rig, AGENT, "write", false);
    HAS(text, "\"methods\":[\"message\",\"abort\",\"leave\",\"ping\",\"auth\"]");
    HAS_NOT(text, "\"response\"");
    free(text);
    text = features(rig, AGENT ",\"role\":\"agent\",\"capabilities\":[\"ack\"]", "agent", true);
    HAS(text, "\"methods\":[\"leave\",\"history\",\"ping\",\"auth\",\"emit\",\"final\",\"fail\","
              "\"extend\",\"publish\"]");
    HAS(text, "\"events\":[\"turn\",\"abort\",\"emitted\",");
    HAS(text, "\"worker_id\":\"w-1\"");
    HAS_NOT(text, "session_id");
    HAS_NOT(text, "cursor");
    free(text);
    rig_free(rig);
}

Test(conn, methods_that_are_not_this_connections)
{
    struct rig *const rig = rig_new();
    rig->settings->max_refused_frames = 100;
    rig_run(rig, 1);
    struct client *c = rig_join(rig, "read", "", NULL);
    const char *text;
    client_text(c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"m\"}");
    text = client_next(c, NULL);
    HAS(text, "\"code\":\"insufficient_scope\"");
    HAS(text, "\"required_scope\":\"write\"");
    HAS(text, "\"ref\":\"m\"");
    client_text(c, "{\"type\":\"emit\",\"session_id\":\"s1\",\"turn\":1,\"event\":\"status\","
                   "\"data\":{},\"event_id\":\"e\"}");
    text = client_next(c, NULL);
    HAS(text, "\"required_scope\":\"agent\"");
    HAS(text, "\"ref\":\"e\"");
    client_text(c, "{\"type\":\"typing\"}");
    text = client_next(c, NULL);
    HAS(text, "\"code\":\"invalid_request\"");
    HAS(text, "\"field\":\"type\"");
    client_text(c, "{\"type\":\"hello\",\"agent_id\":\"echo\"}");
    text = client_next(c, NULL);
    HAS(text, "\"code\":\"invalid_request\"");
    client_text(c, "{\"type\":\"message\",\"content\":null}");
    HAS(client_next(c, NULL), "\"field\":\"content\"");
    cr_expect_null(rig_try_cmd(rig));
    client_free(c);
    c = rig_join(rig, "write", "", NULL);
    client_text(c, "{\"type\":\"history\"}");
    HAS(client_next(c, NULL), "\"required_scope\":\"read\"");
    client_free(c);
    rig_free(rig);
}

Test(conn, commands_reach_the_core)
{
    struct rig *const rig = rig_start();
    eg_conn_id id;
    struct client *const c = rig_join(rig, "read write", "", &id);
    client_text(c, "{\"type\":\"message\",\"content\":{\"a\": 1},\"message_id\":\"m\"}");
    struct eg_cmd *cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_FRAME);
    cr_expect_eq(cmd->conn, id);
    cr_expect_eq(cmd->frame.type, EG_FRAME_MESSAGE);
    cr_expect(eg_slice_is((struct eg_slice){cmd->tail.p, cmd->tail.n},
                          "\"data\":{\"content\":{\"a\":1},\"message_id\":\"m\"}"));
    eg_cmd_free(cmd);
    client_text(c, "{\"type\":\"message\",\"content\":\"/stop\"}");
    cmd = rig_cmd(rig);
    cr_expect_eq(cmd->frame.type, EG_FRAME_ABORT);
    cr_expect_eq(cmd->frame.turn, -1);
    eg_cmd_free(cmd);
    client_text(c, "{\"type\":\"leave\"}");
    cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_SYNC); /* what was sent before is answered first */
    eg_cmd_free(cmd);
    rig_out(rig, (struct eg_out){.kind = EG_OUT_FRAME, .conn = id, .bytes = eg_bytes_copy("1", 1)});
    rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
    cr_expect_str_eq(client_next(c, NULL), "1");
    cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_DETACH);
    eg_cmd_free(cmd);
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"left\",\"session_id\":\"s1\"}");
    cr_expect_eq(client_close_code(c, NULL), 1000);
    client_free(c);
    struct client *const raw = rig_join(rig, "read write", "\"raw\"", NULL);
    client_text(raw, "{\"type\":\"message\",\"content\":\"/stop\"}");
    cmd = rig_cmd(rig);
    cr_expect_eq(cmd->frame.type, EG_FRAME_MESSAGE);
    eg_cmd_free(cmd);
    client_free(raw);
    rig_free(rig);
}

Test(conn, history)
{
    struct rig *const rig = rig_start();
    char want[2000];
    for (int i = 0; i < 700; i++) {
        rig_append(rig, 1, i % 10 == 9 ? "message" : "token_stream", "{}");
    }
    struct client *c = rig_join(rig, "read", "\"streaming\"", NULL);
    client_text(c, "{\"type\":\"history\",\"since\":3,\"limit\":2}");
    snprintf(want, sizeof want,
             "{\"type\":\"history\",\"session_id\":\"s1\",\"events\":[%s,%s],\"oldest_cursor\":1,"
             "\"cursor\":700}",
             rig->log[0].event[3]->data, rig->log[0].event[4]->data);
    cr_expect_str_eq(client_next(c, NULL), want);
    client_text(c, "{\"type\":\"history\",\"before\":3}");
    const char *text = client_next(c, NULL);
    HAS(text, rig->log[0].event[0]->data);
    HAS(text, rig->log[0].event[1]->data);
    HAS_NOT(text, rig->log[0].event[2]->data);
    client_text(c, "{\"type\":\"history\"}");
    text = client_next(c, NULL);
    HAS(text, rig->log[0].event[200]->data); /* the newest 500 */
    HAS(text, rig->log[0].event[699]->data);
    HAS_NOT(text, rig->log[0].event[199]->data);
    client_text(c, "{\"type\":\"history\",\"since\":1,\"before\":9}");
    HAS(client_next(c, NULL), "\"code\":\"invalid_request\"");
    client_free(c);
    c = rig_join(rig, "read", "", NULL); /* no stream events */
    client_text(c, "{\"type\":\"history\",\"since\":0,\"limit\":60}");
    text = client_next(c, NULL);
    HAS_NOT(text, "token_stream");
    HAS(text, rig->log[0].event[9]->data);
    HAS(text, rig->log[0].event[599]->data);
    HAS_NOT(text, rig->log[0].event[609]->data);
    client_free(c);
    rig_free(rig);
}

Test(conn, a_worker_reads_the_history_of_its_own_agent_only)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_connect(rig, NULL);
    rig_append(rig, 2, "message", "{}");
    client_hello(rig, c, "hello", AGENT ",\"role\":\"agent\"", "agent");
    rig_welcome(rig, rig_attach(rig), (struct eg_welcome){.worker = true, .worker_id = "w"});
    client_next(c, NULL);
    client_text(c, "{\"type\":\"history\",\"session_id\":\"s2\"}");
    HAS(client_next(c, NULL), rig->log[1].event[0]->data);
    client_text(c, "{\"type\":\"history\",\"session_id\":\"nowhere\"}");
    const char *const text = client_next(c, NULL);
    HAS(text, "\"code\":\"invalid_request\"");
    HAS(text, "\"field\":\"session_id\"");
    client_text(c, "{\"type\":\"history\"}");
    HAS(client_next(c, NULL), "\"field\":\"session_id\"");
    client_free(c);
    rig_free(rig);
}

Test(conn, heartbeat_then_silence)
{
    rig_fake_clock();
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read", "", NULL);
    unsigned op;
    char reason[126];
    rig_tick(rig, 14999);
    client_text(c, "{\"type\":\"pong\"}"); /* life */
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "pong");
    rig_tick(rig, 15000);
    client_next(c, &op);
    cr_expect_eq(op, 9, "a ping of the RFC");
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"ping\"}");
    client_frame(c, 0x8a, "", 0); /* a pong of the RFC is life too */
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "pong");
    rig_tick(rig, 15000);
    client_next(c, &op);
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"ping\"}");
    rig_tick(rig, 15000);
    cr_expect_eq(client_close_code(c, reason), 4002);
    cr_expect_str_eq(reason, "liveness_timeout");
    client_free(c);
    rig_free(rig);
}

static void ignore_conn(void *arg, const struct eg_conn_info *info)
{
    (void)arg;
    (void)info;
}

static void set_heartbeat(struct rig *rig, int64_t ms)
{
    struct eg_settings *const s = eg_settings_copy(rig->settings);
    s->heartbeat_ms = ms;
    eg_reactors_settings(rig->rs, s);
    eg_settings_unref(s);
    eg_reactors_each(rig->rs, ignore_conn, NULL); /* they are in force */
    rig_tick(rig, 1);
}

static void expect_ping(struct client *c)
{
    unsigned op;
    client_next(c, &op);
    cr_assert_eq(op, 9);
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"ping\"}");
}

/* Another heartbeat holds at once for who is there already. Nobody is taken for silent who was not
 * asked, or not given one heartbeat to answer. */
Test(conn, a_heartbeat_that_is_moved)
{
    static const int64_t silence[] = {6000, 14000, 16000}; /* 16000: it was asked by the old one */
    for (size_t i = 0; i < sizeof silence / sizeof silence[0]; i++) {
        rig_fake_clock();
        struct rig *const rig = rig_start();
        struct client *const c = rig_join(rig, "read", "", NULL);
        char reason[126];
        rig_tick(rig, silence[i]);
        if (silence[i] > 15000) {
            expect_ping(c);
        }
        set_heartbeat(rig, 5000);
        expect_ping(c);
        rig_tick(rig, 4000);
        eg_reactors_each(rig->rs, ignore_conn, NULL);
        cr_expect_null(client_try(c, NULL));
        rig_tick(rig, 1000);
        cr_expect_eq(client_close_code(c, reason), 4002);
        cr_expect_str_eq(reason, "liveness_timeout");
        client_free(c);
        rig_free(rig);
    }
}

Test(conn, hello_has_a_deadline)
{
    rig_fake_clock();
    struct rig *const rig = rig_start();
    struct client *const c = rig_connect(rig, NULL);
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "not_joined");
    rig_tick(rig, 10000);
    cr_expect_eq(client_close_code(c, NULL), 4003);
    client_free(c);
    rig_free(rig);
}

Test(conn, a_token_ends)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig->settings->heartbeat_ms = 600000;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read write", "", NULL); /* 3600 s */
    char text[3000];
    char *token;
    for (int i = 0; i < 6; i++) {
        rig_tick(rig, 510000);
        client_text(c, "{\"type\":\"ping\"}");
        HAS(client_next(c, NULL), "pong");
    }
    rig_tick(rig, 510000); /* 30 s before the end */
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"token_expiring\",\"expires_in_ms\":30000}");
    static const char *const bad[][3] = {
        {"bob", "read write", NULL}, {NULL, "read", NULL}, {NULL, "read write", "other"}};
    for (int i = 0; i < 3; i++) {
        token = rig_token(rig, bad[i][0], bad[i][1], bad[i][2], 3600);
        snprintf(text, sizeof text, "{\"type\":\"auth\",\"token\":\"%s\"}", token);
        free(token);
        client_text(c, text);
        HAS(client_next(c, NULL), "\"code\":\"auth_unauthorized\"");
    }
    token = rig_token(rig, NULL, "read write admin", NULL, 3600);
    snprintf(text, sizeof text, "{\"type\":\"auth\",\"token\":\"%s\"}", token);
    free(token);
    client_text(c, text);
    snprintf(text, sizeof text, "{\"type\":\"auth_ok\",\"expires_at\":%lld}",
             (long long)(eg_clock_now().wall_ms / 1000 + 3600));
    cr_expect_str_eq(client_next(c, NULL), text);
    rig_tick(rig, 31000); /* the old one would have ended */
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "pong");
    rig_tick(rig, 3600000);
    cr_expect_eq(client_close_code(c, NULL), 4001);
    client_free(c);
    rig_free(rig);
}

/* One that is taken within the leeway holds for the rest of it, like one in hello. */
Test(conn, a_token_refreshed_within_the_leeway)
{
    char text[3000];
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig->settings->heartbeat_ms = 600000;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read write", "", NULL);
    char *const token = rig_token(rig, NULL, "read write", NULL, 100);
    rig_tick(rig, 130000);
    snprintf(text, sizeof text, "{\"type\":\"auth\",\"token\":\"%s\"}", token);
    free(token);
    client_text(c, text);
    HAS(client_next(c, NULL), "auth_ok");
    rig_tick(rig, 1000);
    HAS(client_next(c, NULL), "token_expiring");
    rig_tick(rig, 28000);
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "pong");
    rig_tick(rig, 1000);
    cr_expect_eq(client_close_code(c, NULL), 4001);
    client_free(c);
    rig_free(rig);
}

/* The core takes its time (a backup holds it), and the token has little left. */
Test(conn, nothing_comes_before_the_answer_to_hello)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    char text[2048];
    rig_run_by_hand(rig);
    struct client *const c = rig_connect(rig, NULL);
    char *const token = rig_token(rig, NULL, "read", "echo", 25);
    snprintf(text, sizeof text, "{\"type\":\"hello\"," AGENT ",\"token\":\"%s\"}", token);
    free(token);
    rig_turn(rig);
    client_text(c, text);
    rig_turn(rig);
    struct eg_cmd *const cmd = rig_attach(rig);
    rig_tick(rig, 11000); /* past the deadline of hello */
    rig_turn(rig);
    cr_expect_null(client_try(c, NULL));
    rig_welcome(rig, cmd, (struct eg_welcome){.sid = 1});
    rig_turn(rig);
    HAS(client_next(c, NULL), "\"type\":\"hello_ok\"");
    rig_tick(rig, 1);
    rig_turn(rig);
    cr_expect_str_eq(client_next(c, NULL), "{\"type\":\"token_expiring\",\"expires_in_ms\":13999}");
    client_free(c);
    rig_free(rig);
}

Test(conn, a_revoked_token_closes)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read write", "", NULL);
    eg_auth_revoked(rig->auth, "sub:ann", INT64_MAX);
    eg_reactors_judge(rig->rs);
    cr_expect_eq(client_close_code(c, NULL), 4001);
    client_free(c);
    rig_free(rig);
}

Test(conn, refused_frames_are_counted)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read", "", NULL);
    for (int i = 0; i < 10; i++) {
        client_text(c, i % 2 ? "{]" : "{\"type\":\"message\",\"content\":1}");
        HAS(client_next(c, NULL), "\"type\":\"error\"");
    }
    cr_expect_eq(client_close_code(c, NULL), 4028);
    client_free(c);
    rig_free(rig);
}

Test(conn, refused_frames_are_forgotten_after_a_minute)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig->settings->heartbeat_ms = 600000;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read", "", NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 9; i++) {
            client_text(c, "{]");
            HAS(client_next(c, NULL), "invalid_json");
        }
        rig_tick(rig, 61000);
    }
    client_text(c, "{\"type\":\"ping\"}");
    HAS(client_next(c, NULL), "pong");
    client_free(c);
    rig_free(rig);
}

Test(conn, rates)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig->settings->message_rate = 3;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read write", "", NULL);
    for (int i = 0; i < 3; i++) {
        client_text(c, "{\"type\":\"message\",\"content\":1}");
        eg_cmd_free(rig_cmd(rig));
    }
    client_text(c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"late\"}");
    const char *const text = client_next(c, NULL);
    HAS(text, "\"code\":\"rate_limited\"");
    HAS(text, "\"ref\":\"late\"");
    HAS(text, "\"retry_after_seconds\":1");
    cr_expect_null(rig_try_cmd(rig));
    rig_tick(rig, 1000);
    client_text(c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"late\"}");
    eg_cmd_free(rig_cmd(rig));
    client_free(c);
    rig_free(rig);
}

static void count_conn(void *arg, const struct eg_conn_info *info)
{
    struct eg_conn_info *const seen = arg;
    seen->received_frames++;
    seen->id = info->id;
    cr_expect_str_eq(info->sub, "ann");
    cr_expect_str_eq(info->session, "s1");
    cr_expect_str_eq(info->mode, "ws");
}

Test(conn, operators)
{
    struct rig *const rig = rig_new();
    rig_run(rig, 2);
    struct client *const a = rig_join(rig, "read", "", NULL);
    struct client *const b = rig_join(rig, "read", "", NULL);
    struct eg_conn_info seen = {0};
    char reason[126];
    eg_reactors_each(rig->rs, count_conn, &seen);
    cr_expect_eq(seen.received_frames, 2);
    rig_out(rig, (struct eg_out){.kind = EG_OUT_CLOSE,
                                 .conn = seen.id,
                                 .close_code = 1000,
                                 .reason = "disconnected by operator"});
    struct client *const kicked = EG_CONN_REACTOR(seen.id) == 0 ? a : b;
    struct client *const other = kicked == a ? b : a;
    cr_expect_eq(client_close_code(kicked, reason), 1000);
    cr_expect_str_eq(reason, "disconnected by operator");
    eg_reactors_farewell(rig->rs, 500, 5000);
    HAS(client_next(other, NULL),
        "{\"type\":\"reconnect\",\"reason\":\"drain\",\"retry_after_ms\":");
    cr_expect_eq(client_close_code(other, NULL), 1012);
    client_free(a);
    client_free(b);
    rig_free(rig);
}

Test(conn, settings_in_force_are_told_and_kept)
{
    struct rig *const rig = rig_start();
    struct client *const old = rig_join(rig, "read", "", NULL);
    struct eg_settings *const s = eg_settings_copy(rig->settings);
    s->max_payload = 2048;
    eg_reactors_settings(rig->rs, s);
    eg_settings_unref(s);
    char *const text = features(rig, AGENT, "read", false);
    HAS(text, "\"max_payload\":2048");
    free(text);
    char big[2049];
    memset(big, ' ', sizeof big);
    client_frame(old, 0x81, big, sizeof big);
    HAS(client_next(old, NULL), "invalid_json"); /* it was told more, and keeps it */
    client_free(old);
    struct client *const later = rig_join(rig, "read", "", NULL);
    client_frame(later, 0x81, big, sizeof big);
    cr_expect_eq(client_close_code(later, NULL), 1009);
    client_free(later);
    rig_free(rig);
}

Test(conn, echo_mode)
{
    struct rig *const rig = rig_start();
    struct eg_adopted a = {.mode = EG_CONN_ECHO};
    struct client *const c = rig_connect(rig, &a);
    unsigned op;
    client_text(c, "hello?");
    cr_expect_str_eq(client_next(c, NULL), "hello?");
    client_frame(c, 0x82, "\1\2\3", 3);
    cr_expect_str_eq(client_next(c, &op), "\1\2\3");
    cr_expect_eq(op, 2);
    client_frame(c, 0x88, "\x03\xe8", 2);
    cr_expect_eq(client_close_code(c, NULL), 1000);
    client_free(c);
    rig_free(rig);
}

Test(conn, what_hello_pipelines_is_kept)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_connect(rig, NULL);
    client_hello(rig, c, "hello", AGENT, "read write");
    for (int i = 0; i < 5; i++) {
        client_text(c, "{\"type\":\"message\",\"content\":1}");
    }
    struct eg_cmd *const attach = rig_cmd(rig);
    cr_expect_null(rig_try_cmd(rig));
    rig_welcome(rig, attach, (struct eg_welcome){.sid = 1});
    for (int i = 0; i < 5; i++) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        cr_expect_eq(cmd->kind, EG_CMD_FRAME);
        eg_cmd_free(cmd);
    }
    client_free(c);
    rig_free(rig);
}
