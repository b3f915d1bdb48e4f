/* Limits and their answers, liveness, slow consumers, drain. */
#include "pt.h"

#include <signal.h>

PT_SUITE(limits);

PT_TEST(limits, message_rate)
{
    enum { SENT = 40 };
    pt_start("message_rate = 5;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 0; i < SENT; i++)
        pt_send(a, "{\"type\":\"message\",\"content\":%d,\"message_id\":\"m%d\"}", i, i);
    int accepted = 0, limited = 0, seen[SENT] = {0};
    for (int i = 0; i < SENT; i++) {
        const cJSON *o = pt_next(a);
        if (tl_is(o, "type", "response")) {
            pt_int(o, "cursor", ++accepted);
            cr_assert(!seen[atoi(tl_str(o, "message_id") + 1)]++, "%s", pt_text(o));
        } else {
            pt_is(o, "code", "rate_limited"); /* may overtake what waits for its commit */
            cr_assert(tl_str(o, "ref")[0] == 'm' && !seen[atoi(tl_str(o, "ref") + 1)]++, "%s",
                      pt_text(o));
            cr_assert(tl_int(o, "retry_after_seconds") > 0, "%s", pt_text(o));
            limited++;
        }
    }
    cr_assert(accepted >= 1 && limited >= 1, "%d accepted, %d limited", accepted, limited);
    /* The connection stayed, and what was accepted is there. */
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    pt_int(pt_hello, "cursor", accepted);
    for (int i = 0; i < accepted; i++)
        pt_expect(b, "replay");
}

PT_TEST(limits, queued_turns)
{
    pt_start("max_queued_turns = 3;");
    struct tl_ws *a = pt_client("echo", NULL);
    for (int i = 0; i < 3; i++)
        pt_say(a, "x");
    pt_send(a, "{\"type\":\"message\",\"content\":\"one more\",\"message_id\":\"m4\"}");
    const cJSON *o = pt_error(a, "queue_full");
    pt_is(o, "ref", "m4");
    cr_assert(tl_int(o, "retry_after_seconds") > 0, "%s", pt_text(o));
    /* A place comes free: the same id is taken. */
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_final(w, pt_turn(w), "y");
    pt_outcome(a, 1, "ok");
    pt_turn(w);
    pt_send(a, "{\"type\":\"message\",\"content\":\"one more\",\"message_id\":\"m4\"}");
    o = pt_expect(a, "response");
    pt_is(o, "status", "accepted");
    pt_false(o, "duplicate");
}

PT_TEST(limits, connections_in_total)
{
    pt_start("max_connections = 4;");
    struct tl_ws *a[4];
    for (int i = 0; i < 4; i++)
        a[i] = pt_client("echo", NULL);
    struct tl_ws_opts o = {.port = tl_gate_port(pt_gate)};
    int status = 0;
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    pt_refused(ws, "too_many_connections", "wait_then_retry", 4029);
    for (int i = 0; i < 4; i++)
        pt_quiet(a[i]);
    /* A place comes free. */
    pt_drop(a[0]);
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    const cJSON *h = NULL;
    while (!h && tl_now_ms() < end) {
        ws = tl_ws_open(&o, &status);
        if (!ws)
            continue;
        pt_keep(ws);
        cJSON *answer = tl_hello(ws, "echo", pt_alice(), NULL, PT_WAIT_MS);
        if (answer && tl_is(pt_keep_json(answer), "type", "hello_ok"))
            h = answer;
    }
    cr_assert(h, "a freed place is not given again");
}

PT_TEST(limits, handshake_rate)
{
    pt_start("handshake_rate = 5;");
    bool limited = false;
    for (int i = 0; i < 100 && !limited; i++) {
        struct tl_ws *ws = pt_open();
        pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
        cJSON *h = pt_next(ws);
        if (!tl_is(h, "type", "hello_ok")) {
            limited = true;
            pt_is(h, "code", "rate_limited");
            pt_is(h, "next_step", "wait_then_retry");
            cr_assert(tl_int(h, "retry_after_seconds") > 0, "%s", pt_text(h));
            pt_closed(ws, 4008);
        }
        pt_drop(ws);
    }
    cr_assert(limited, "a hundred handshakes at once at five a second");
}

PT_TEST(limits, unfinished_handshakes_of_an_address)
{
    pt_start("max_handshakes_per_address = 3;");
    struct tl_ws *silent[3];
    for (int i = 0; i < 3; i++)
        silent[i] = pt_open();
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    const cJSON *h = pt_expect(ws, "hello_error");
    cr_assert(tl_is(h, "code", "too_many_connections") || tl_is(h, "code", "rate_limited"), "%s",
              pt_text(h));
    pt_drop(ws);
    /* Those who were first can finish, and then there is room again. */
    for (int i = 0; i < 3; i++) {
        pt_send(silent[i], "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}",
                pt_alice());
        pt_expect(silent[i], "hello_ok");
    }
    pt_client("echo", NULL);
}

PT_TEST(limits, connections_of_an_address)
{
    pt_start("max_connections_per_address = 2;");
    struct tl_ws *a = pt_client("echo", NULL);
    pt_client("echo", NULL);
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    pt_refused(ws, "too_many_connections", "wait_then_retry", 4029);
    pt_quiet(a);
}

PT_TEST(limits, sessions_of_a_sub)
{
    pt_start("max_sessions_per_sub = 2;");
    pt_client("echo", NULL);
    const char *sid = pt_sid();
    pt_client("echo", NULL);
    struct tl_ws *ws = pt_open();
    pt_send(ws, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}", pt_alice());
    pt_refused(ws, "rate_limited", "wait_then_retry", 4008);
    pt_client("echo", sid); /* resuming is no new session */
    pt_client_as(pt_token("bob", "read write"), "echo", NULL);
}

PT_TEST(limits, messages_of_a_sub_over_all_its_connections)
{
    enum { SENT = 30 };
    pt_start("message_rate_per_sub = 5;");
    struct tl_ws *a = pt_client("echo", NULL), *b = pt_client("echo", NULL);
    int accepted = 0, limited = 0;
    for (int i = 0; i < SENT; i++)
        pt_send(i % 2 ? a : b, "{\"type\":\"message\",\"content\":1}");
    for (int i = 0; i < SENT; i++) {
        const cJSON *o = pt_next(i % 2 ? a : b);
        accepted += tl_is(o, "status", "accepted");
        limited += tl_is(o, "code", "rate_limited");
    }
    cr_assert(accepted >= 1 && limited >= 1 && accepted + limited == SENT,
              "%d accepted, %d limited", accepted, limited);
    struct tl_ws *bob = pt_client_as(pt_token("bob", "read write"), "echo", NULL);
    cr_assert_eq(pt_say(bob, "not me"), 1);
}

PT_TEST(limits, bytes_of_a_connection)
{
    enum { SENT = 20 };
    pt_start("byte_rate = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    int accepted = 0, limited = 0;
    for (int i = 0; i < SENT; i++)
        pt_send(a, "{\"type\":\"message\",\"content\":\"%08000d\"}", i);
    for (int i = 0; i < SENT; i++) {
        const cJSON *o = pt_next(a);
        accepted += tl_is(o, "status", "accepted");
        limited += tl_is(o, "code", "rate_limited");
    }
    cr_assert(accepted >= 1 && limited >= 1 && accepted + limited == SENT,
              "%d accepted, %d limited", accepted, limited);
}

PT_TEST(limits, refused_frames)
{
    pt_start("max_refused_frames = 3;");
    struct tl_ws *a = pt_client("echo", NULL);
    for (int i = 0; i < 3; i++)
        pt_send(a, "{\"type\":\"message\"}");
    for (int i = 0; i < 3; i++)
        pt_error(a, "invalid_request");
    pt_closed(a, 4028);
}

PT_TEST(limits, a_message_larger_than_an_event_may_be_is_refused_or_stored_whole)
{
    /* The largest frame that fits: its event is larger than the frame by the envelope. */
    pt_start("max_payload = 20000;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    size_t base = strlen("{\"type\":\"message\",\"content\":\"\",\"message_id\":\"m\"}");
    char *fill = calloc(1, 20001);
    memset(fill, 'x', 20000 - base);
    pt_send(a, "{\"type\":\"message\",\"content\":\"%s\",\"message_id\":\"m\"}", fill);
    free(fill);
    const cJSON *o = pt_next(a);
    if (tl_is(o, "type", "error")) {
        pt_is(o, "code", "payload_too_large");
        pt_is(o, "ref", "m");
        pt_quiet(a);
        return;
    }
    pt_is(o, "status", "accepted");
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    pt_expect(b, "replay");
    pt_expect(b, "replay_end");
}

PT_SUITE_FOR(liveness, 120);

PT_TEST(liveness, a_silent_client_is_pinged_and_closed)
{
    pt_start("heartbeat_ms = 400;");
    struct tl_ws *a = pt_client("echo", NULL);
    tl_ws_auto_pong(a, false);
    int pings = 0, json_pings = 0, kind;
    while ((kind = tl_ws_recv(a, PT_WAIT_MS)) != TL_CLOSE) {
        cr_assert(kind > 0, "%s", tl_json_why(kind));
        pings += kind == TL_PING;
        json_pings += kind == TL_TEXT && strstr(tl_ws_data(a), "\"ping\"");
    }
    cr_assert_eq(tl_ws_close_code(a), 4002);
    cr_assert_str_eq(tl_ws_close_reason(a), "liveness_timeout");
    cr_assert(pings >= 1 && json_pings >= 1, "%d pings, %d JSON pings", pings, json_pings);
}

PT_TEST(liveness, any_inbound_frame_is_life)
{
    pt_start("heartbeat_ms = 400;");
    struct tl_ws *pongs = pt_client("echo", NULL), *json = pt_client("echo", NULL);
    tl_ws_auto_pong(json, false);
    int64_t end = tl_now_ms() + 2500;
    while (tl_now_ms() < end) {
        int kind = tl_ws_recv(pongs, 50); /* answers pings */
        cr_assert(kind == TL_TIMEOUT || kind == TL_TEXT, "%s %d", tl_json_why(kind),
                  tl_ws_close_code(pongs));
        pt_send(json, "{\"type\":\"pong\"}");
        kind = tl_ws_recv(json, 50);
        cr_assert(kind == TL_TIMEOUT || kind == TL_TEXT || kind == TL_PING, "%s %d",
                  tl_json_why(kind), tl_ws_close_code(json));
    }
}

PT_SUITE_FOR(slow, 120);

/* Whether the gateway has given a slow one up: then there is no need to publish more. */
static bool given_up(void)
{
    char *log = tl_gate_log(pt_gate);
    bool found = strstr(log, "conn.slow") != NULL;
    free(log);
    return found;
}

PT_TEST(slow, a_slow_consumer_is_closed_and_resumes)
{
    enum { COUNT = 1500, BATCH = 20 };
    pt_start("max_buffered_bytes = 200000; max_queued_frames = 1000;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *slow = pt_client("echo", sid);
    struct tl_ws *quick = pt_client("echo", sid);
    int64_t seen = 0;
    for (int i = 0; i < COUNT && !given_up(); i += BATCH) {
        for (int k = 0; k < BATCH; k++)
            pt_send(a, "{\"type\":\"message\",\"content\":\"%020000d\"}", i + k);
        for (int k = 0; k < BATCH; k++) {
            pt_expect(a, "response"); /* the publisher never waits for the slow one */
            pt_int(pt_expect(quick, "message"), "cursor", ++seen);
        }
    }
    int64_t last = 0;
    int kind;
    while ((kind = tl_ws_recv(slow, PT_WAIT_MS)) == TL_TEXT) {
        int64_t cursor = tl_scan_int(tl_ws_data(slow), "cursor", -1);
        if (cursor > 0)
            cr_assert_eq(cursor, ++last, "a gap in what the slow one got");
    }
    cr_assert(kind == TL_CLOSE, "%s after %d", tl_json_why(kind), (int)last);
    cr_assert_eq(tl_ws_close_code(slow), 1013);
    cr_assert_str_eq(tl_ws_close_reason(slow), "slow_consumer");
    cr_assert(last < seen);
    slow = pt_client("echo", pt_f("%s,\"since\":%d", sid, (int)last));
    while (last < seen)
        pt_int(pt_expect(slow, "replay"), "seq", ++last);
    pt_int(pt_expect(slow, "replay_end"), "cursor", seen);
}

PT_TEST(slow, too_many_queued_frames)
{
    enum { COUNT = 20000, BATCH = 100 };
    pt_start("max_queued_frames = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *slow = pt_client("echo", pt_sid());
    for (int i = 0; i < COUNT && !given_up(); i += BATCH) {
        for (int k = 0; k < BATCH; k++)
            pt_send(a, "{\"type\":\"message\",\"content\":\"%02000d\"}", i + k);
        for (int k = 0; k < BATCH; k++)
            cr_assert_eq(tl_ws_recv(a, PT_WAIT_MS), TL_TEXT);
    }
    pt_closed(slow, 1013);
}

PT_SUITE_FOR(drain, 120);

PT_TEST(drain, clients_are_told_and_the_exit_is_clean)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    tl_gate_signal(pt_gate, SIGTERM);
    const cJSON *o = pt_expect(a, "reconnect");
    pt_is(o, "reason", "drain");
    cr_assert(tl_int(o, "retry_after_ms") >= 0, "%s", pt_text(o));
    pt_closed(a, 1012);
    pt_closed(w, 1012);
    cr_assert_eq(tl_gate_wait(pt_gate, 20000), 0);
}

PT_TEST(drain, an_open_turn_may_finish)
{
    struct tl_gate_opts o = {.config = "agents = [\"echo\"]; drain_timeout_ms = 20000;"};
    pt_start_with(&o);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    const cJSON *t = pt_turn(w);
    tl_gate_signal(pt_gate, SIGTERM);
    /* Not ready any more, but alive. */
    struct tl_http r;
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    do {
        tl_http(tl_gate_admin(pt_gate), "GET", "/ready", NULL, NULL, &r);
        int status = r.status;
        tl_http_free(&r);
        if (status == 503)
            break;
        cr_assert_eq(status, 200);
    } while (tl_now_ms() < end);
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{}}", pt_on(t));
    pt_final(w, t, "made it");
    cr_assert_eq(tl_gate_wait(pt_gate, 30000), 0);
    cr_assert(tl_gate_start(pt_gate));
    a = pt_client("echo", pt_f("%s,\"since\":1,\"capabilities\":[\"streaming\"]", sid));
    pt_is(pt_expect(a, "replay"), "event.type", "status");
    pt_is(pt_expect(a, "replay"), "event.data.content", "made it");
    w = pt_worker("echo", NULL);
    pt_quiet(w);
}

PT_TEST(drain, the_timeout_ends_it_and_the_turn_comes_again)
{
    pt_start("retry_backoff_ms = 20;");
    struct tl_ws *a = pt_client("echo", NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_turn(w);
    tl_gate_signal(pt_gate, SIGTERM);
    cr_assert_eq(tl_gate_wait(pt_gate, 20000), 0);
    cr_assert(tl_gate_start(pt_gate));
    w = pt_worker("echo", NULL);
    const cJSON *t = pt_turn(w);
    pt_int(t, "turn", 1);
}

PT_TEST(drain, a_second_signal_stops_at_once)
{
    struct tl_gate_opts o = {.config = "agents = [\"echo\"]; drain_timeout_ms = 3600000;"};
    pt_start_with(&o);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(a, "x");
    pt_turn(w);
    tl_gate_signal(pt_gate, SIGTERM);
    cr_assert_eq(tl_gate_wait(pt_gate, 700), -1, "it did not wait for the open turn");
    tl_gate_signal(pt_gate, SIGTERM);
    cr_assert_eq(tl_gate_wait(pt_gate, 20000), 0);
    cr_assert(tl_gate_start(pt_gate));
    pt_client("echo", sid);
    pt_int(pt_hello, "cursor", 1);
}
