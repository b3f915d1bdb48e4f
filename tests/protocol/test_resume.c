/* Replay and resume: exact bytes, no gap, no double; gaps and snapshots; acknowledgements. */
#include "pt.h"

#include <sys/socket.h>

PT_SUITE(resume);

/* Publishes `count` numbered messages on a session. */
static void fill(struct tl_ws *ws, int count)
{
    for (int i = 1; i <= count; i++)
        pt_say(ws, pt_f("m%d", i));
}

/* Expects replay of first..last and replay_end with `end`. */
static void replayed(struct tl_ws *ws, int64_t first, int64_t last, int64_t end)
{
    for (int64_t i = first; i <= last; i++) {
        const cJSON *o = pt_expect(ws, "replay");
        pt_int(o, "seq", i);
        pt_int(o, "event.sequence", i);
        pt_int(o, "event.data.cursor", i);
    }
    pt_int(pt_expect(ws, "replay_end"), "cursor", end);
}

PT_TEST(resume, replay_repeats_the_live_bytes)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"capabilities\":[\"streaming\"]", sid));
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_send(a, "{\"type\":\"message\",\"content\":{\"z\":1,\"a\":[1.0,\"\\u00e9\"]},"
               "\"metadata\":{\"y\":null}}");
    const cJSON *t = pt_expect(w, "turn");
    const char *on = pt_f("\"session_id\":\"%s\",\"turn\":1", tl_str(t, "session_id"));
    pt_send(w, "{\"type\":\"emit\",%s,\"event\":\"token_stream\",\"data\":{\"t\":\"x\"}}", on);
    pt_send(w, "{\"type\":\"final\",%s,\"content\":\"done\",\"outcome\":{\"status\":\"ok\"}}", on);
    char *live[3];
    for (int i = 0; i < 3; i++) {
        pt_next(b);
        live[i] = pt_f("%s", tl_ws_data(b));
    }
    struct tl_ws *c =
        pt_client("echo", pt_f("%s,\"since\":0,\"capabilities\":[\"streaming\"]", sid));
    pt_true(pt_hello, "resumed");
    pt_int(pt_hello, "cursor", 3);
    pt_int(pt_hello, "sequence", 0);
    pt_int(pt_hello, "oldest_cursor", 1);
    for (int i = 0; i < 3; i++) {
        const cJSON *o = pt_expect(c, "replay");
        pt_int(o, "seq", i + 1);
        pt_int(o, "event.sequence", i + 1);
        cJSON *event = pt_keep_json(cJSON_Parse(live[i]));
        pt_is(o, "event.type", tl_str(event, "type"));
        pt_is(o, "event.event_id", tl_str(event, "event_id"));
        pt_is(o, "event.source", tl_str(event, "source"));
        cr_assert(cJSON_IsNull(tl_get(o, "event.target")), "%s", pt_text(o));
        size_t len = 0;
        const char *raw = tl_raw(tl_ws_data(c), "event.data", &len);
        cr_assert(raw && len == strlen(live[i]) && !memcmp(raw, live[i], len),
                  "replayed %.*s\nlive %s", (int)len, raw ? raw : "", live[i]);
        size_t n1, n2;
        const char *t1 = tl_raw(tl_ws_data(c), "event.timestamp", &n1);
        const char *t2 = tl_raw(live[i], "timestamp", &n2);
        cr_assert(t1 && t2 && n1 == n2 && !memcmp(t1, t2, n1));
    }
    pt_int(pt_expect(c, "replay_end"), "cursor", 3);
    pt_quiet(c);
}

PT_TEST(resume, from_any_cursor_then_live)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    fill(a, 20);
    for (int since = 0; since <= 20; since += 5) {
        struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":%d", sid, since));
        pt_true(pt_hello, "resumed");
        pt_false(pt_hello, "resync_required");
        pt_int(pt_hello, "sequence", since);
        int64_t head = tl_int(pt_hello, "cursor");
        replayed(b, since + 1, head, head);
        int64_t next = pt_say(a, "more");
        pt_int(pt_expect(b, "message"), "cursor", next);
        pt_drop(b);
    }
}

PT_TEST(resume, without_since_only_live)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    fill(a, 5);
    struct tl_ws *b = pt_client("echo", sid);
    pt_true(pt_hello, "resumed");
    pt_int(pt_hello, "cursor", 5);
    pt_int(pt_hello, "sequence", 5);
    pt_say(a, "live");
    const cJSON *o = pt_expect(b, "message");
    pt_int(o, "cursor", 6);
}

PT_TEST(resume, long_replay_is_whole)
{
    enum { COUNT = 1500 };
    pt_start("max_queued_frames = 50; max_buffered_bytes = 65536;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    for (int i = 0; i < COUNT; i += 30) {
        for (int k = 0; k < 30; k++)
            pt_send(a, "{\"type\":\"message\",\"content\":\"%0200d\"}", i + k + 1);
        for (int k = 0; k < 30; k++)
            pt_expect(a, "response");
    }
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    replayed(b, 1, COUNT, COUNT);
    pt_quiet(b);
}

PT_TEST(resume, survives_restart_and_kill)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *epoch = pt_f("%s", tl_str(pt_hello, "epoch"));
    fill(a, 4);
    pt_restart();
    a = pt_client("echo", pt_f("%s,\"since\":2,\"epoch\":\"%s\"", sid, epoch));
    replayed(a, 3, 4, 4);
    cr_assert_eq(pt_say(a, "five"), 5);
    pt_kill_restart();
    a = pt_client("echo", pt_f("%s,\"since\":0,\"epoch\":\"%s\"", sid, epoch));
    replayed(a, 1, 5, 5);
    cr_assert_eq(pt_say(a, "six"), 6);
}

/* Resumes with these members, expects a snapshot for this reason, then live events. */
static void gap(const char *sid, const char *members, const char *reason, int64_t head)
{
    struct tl_ws *b = pt_client("echo", pt_f("%s,%s", sid, members));

    pt_true(pt_hello, "resync_required");
    pt_is(pt_hello, "resync_reason", reason);
    const char *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    const char *epoch = pt_f("%s", tl_str(pt_hello, "epoch"));
    int64_t oldest = tl_int(pt_hello, "oldest_cursor");
    const cJSON *o = pt_expect(b, "snapshot");
    pt_is(o, "state.session_id", id);
    pt_is(o, "state.agent_id", "echo");
    pt_is(o, "state.epoch", epoch);
    pt_int(o, "state.oldest_cursor", oldest);
    pt_int(o, "state.event_cursor", head);
    cr_assert(*tl_str(o, "state.state"), "%s", pt_text(o));
    const cJSON *messages = tl_get(o, "state.messages");
    cr_assert(cJSON_IsArray(messages) && cJSON_GetArraySize(messages) > 0, "%s", pt_text(o));
    int last = cJSON_GetArraySize(messages) - 1;
    pt_int(cJSON_GetArrayItem(messages, last), "cursor", head);
    for (int i = 1; i <= last; i++)
        cr_assert(tl_int(cJSON_GetArrayItem(messages, i), "cursor") >
                  tl_int(cJSON_GetArrayItem(messages, i - 1), "cursor"));
    struct tl_ws *a = pt_client("echo", sid);
    int64_t next = pt_say(a, "after the gap");
    o = pt_next(b);
    if (tl_is(o, "type", "replay_end"))
        o = pt_next(b);
    pt_is(o, "type", "message");
    pt_int(o, "cursor", next);
    pt_drop(a);
    pt_drop(b);
}

PT_TEST(resume, gaps_get_a_snapshot)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    fill(a, 3);
    pt_drop(a);
    gap(sid, "\"since\":99", "cursor_ahead", 3);
    gap(sid, "\"since\":5", "cursor_ahead", 4);
    gap(sid, "\"since\":1,\"epoch\":\"another\"", "epoch_changed", 5);
    /* since == cursor is no gap. */
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":6", sid));
    pt_false(pt_hello, "resync_required");
    replayed(b, 7, 6, 6);
}

PT_TEST(resume, a_snapshot_fits_in_max_payload)
{
    pt_start("max_payload = 8192;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *c = pt_client("echo", sid);
    for (int i = 0; i < 40; i++) {
        pt_say(a, pt_f("%01000d", i));
        pt_expect(c, "message");
    }
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":999", sid));
    const cJSON *o = pt_expect(b, "snapshot");
    cr_assert(tl_ws_len(b) <= 8192, "%zu bytes", tl_ws_len(b));
    cr_assert(tl_ws_len(b) + 1 + tl_ws_len(c) > 8192, "%zu bytes: one more fits", tl_ws_len(b));
    int n = cJSON_GetArraySize(tl_get(o, "state.messages"));
    cr_assert(n >= 2 && n < 40, "%d messages", n);
    pt_int(cJSON_GetArrayItem(tl_get(o, "state.messages"), n - 1), "cursor", 40);
}

PT_TEST(resume, trimmed_history_is_a_gap)
{
    pt_start("retention_events = 10;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *w = pt_worker("echo", NULL);
    for (int i = 0; i < 30; i++) {
        pt_say(a, "x");
        const cJSON *t = pt_expect(w, "turn");
        pt_send(w, "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":%d,\"content\":\"y\"}",
                tl_str(t, "session_id"), (int)tl_int(t, "turn"));
        pt_wait(a, "response");
    }
    /* Trimming is the gateway's own work: look until it is done. */
    int64_t end = tl_now_ms() + 90000, oldest = 0;
    do {
        pt_drop(pt_client("echo", sid));
        oldest = tl_int(pt_hello, "oldest_cursor");
        usleep(100000);
    } while (oldest <= 1 && tl_now_ms() < end);
    cr_assert(oldest > 1, "nothing was trimmed");
    int64_t head = tl_int(pt_hello, "cursor");
    cr_assert_eq(head, 60);
    /* The first that is still there can be resumed from. */
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":%d", sid, (int)oldest - 1));
    pt_false(pt_hello, "resync_required");
    replayed(b, oldest, head, head);
    gap(sid, "\"since\":0", "trimmed", head);
}

PT_TEST(resume, acknowledged_cursor)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    fill(a, 6);
    pt_send(a, "{\"type\":\"ack\",\"cursor\":4}");
    pt_quiet(a); /* no answer */
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":\"acked\"", sid));
    pt_int(pt_hello, "acked_cursor", 4);
    pt_int(pt_hello, "sequence", 4);
    replayed(b, 5, 6, 6);
    /* For each sub by itself. */
    struct tl_claims claims = {.sub = "bob", .sessions = id};
    const char *bob = pt_token_for(&claims);
    b = pt_client_as(bob, "echo", pt_f("%s,\"since\":\"acked\"", sid));
    cr_assert(!tl_has(pt_hello, "acked_cursor") || tl_int(pt_hello, "acked_cursor") == 0);
    replayed(b, 1, 6, 6);
    /* Durable: a kill does not lose it once a later answer came. */
    pt_send(a, "{\"type\":\"ack\",\"cursor\":5}");
    pt_say(a, "later");
    pt_kill_restart();
    b = pt_client("echo", pt_f("%s,\"since\":\"acked\"", sid));
    pt_int(pt_hello, "acked_cursor", 5);
    replayed(b, 6, 7, 7);
    /* Beyond the head or no number: refused. */
    static const char *const bad[] = {"8", "-1", "\"3\"", "1.5", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pt_send(b, "{\"type\":\"ack\",\"cursor\":%s}", bad[i]);
        pt_is(pt_error(b, "invalid_request"), "field", "cursor");
    }
}

PT_TEST(resume, without_streaming_the_cursor_still_advances)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    struct tl_ws *s = pt_client("echo", pt_f("%s,\"capabilities\":[\"streaming\"]", sid));
    struct tl_ws *w = pt_worker("echo", "\"capabilities\":[\"ack\"]");
    pt_say(a, "go");
    const cJSON *t = pt_expect(w, "turn");
    const char *id = pt_f("%s", tl_str(t, "session_id"));
    for (int i = 0; i < 3; i++)
        pt_send(w,
                "{\"type\":\"emit\",\"session_id\":\"%s\",\"turn\":1,\"event\":\"token_stream\","
                "\"data\":{\"n\":%d}}",
                id, i);
    for (int i = 0; i < 3; i++)
        pt_int(pt_expect(w, "emitted"), "cursor", i + 2);
    /* A pong tells how far this connection is complete. */
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_expect(a, "pong"), "cursor", 4);
    pt_expect(s, "message");
    for (int i = 0; i < 3; i++) {
        const cJSON *o = pt_expect(s, "token_stream");
        pt_int(o, "seq", i + 2);
        pt_int(o, "turn", 1);
        pt_is(o, "source", "agent:echo");
        pt_int(o, "data.n", i);
    }
    struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
    const cJSON *o = pt_expect(b, "replay");
    pt_int(o, "seq", 1);
    pt_int(pt_expect(b, "replay_end"), "cursor", 4);
    pt_send(w, "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":1,\"content\":\"end\"}", id);
    pt_int(pt_expect(b, "response"), "seq", 5);
    pt_int(pt_expect(a, "response"), "seq", 5);
    pt_int(pt_expect(s, "response"), "seq", 5);
}

PT_TEST(resume, an_event_larger_than_the_send_buffer_limit_can_be_replayed)
{
    pt_start("max_buffered_bytes = 65536;");
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    pt_send(a, "{\"type\":\"message\",\"content\":\"%0400000d\"}", 1);
    pt_expect(a, "response");
    pt_say(a, "small");
    for (int i = 0; i < 3; i++) {
        struct tl_ws *b = pt_client("echo", pt_f("%s,\"since\":0", sid));
        replayed(b, 1, 2, 2);
        pt_quiet(b);
        pt_drop(b);
    }
}

PT_TEST(resume, many_followers_at_once)
{
    enum { FOLLOWERS = 30 };
    struct tl_ws *f[FOLLOWERS];

    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    fill(a, 40);
    for (int i = 0; i < FOLLOWERS; i++)
        f[i] = pt_client("echo", pt_f("%s,\"since\":%d", sid, i));
    pt_say(a, "live");
    for (int i = 0; i < FOLLOWERS; i++) {
        replayed(f[i], i + 1, 40, 40);
        pt_int(pt_expect(f[i], "message"), "cursor", 41);
    }
}

/* What a pong says is complete has been sent before it. */
PT_TEST(resume, a_pong_does_not_run_ahead_of_a_snapshot_or_replay)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    const char *sid = pt_sid();
    fill(a, 30);
    for (int i = 0; i < 40; i++) {
        struct tl_ws *b = pt_open();
        pt_send(b, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\",%s,\"since\":%d}",
                pt_alice(), sid, i % 2 ? 99 : 0);
        pt_send(b, "{\"type\":\"ping\"}");
        pt_expect(b, "hello_ok");
        int64_t complete = 0;
        const cJSON *o;
        do {
            o = pt_next(b);
            if (tl_is(o, "type", "replay"))
                complete = tl_int(o, "seq");
            else if (tl_is(o, "type", "snapshot"))
                complete = tl_int(o, "state.event_cursor");
        } while (!tl_is(o, "type", "pong"));
        cr_assert(tl_int(o, "cursor") <= complete, "complete up to %d, but %s", (int)complete,
                  pt_text(o));
        pt_send(b, "{\"type\":\"ping\",\"id\":\"later\"}");
        if (complete < 30)
            pt_wait(b, i % 2 ? "snapshot" : "replay_end");
        pt_drop(b);
    }
}

/* A client that shuts its sending side is gone. */
PT_TEST(resume, half_closed_clients_are_closed)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", NULL);
    shutdown(tl_ws_fd(a), SHUT_WR);
    cr_assert(tl_ws_wait_eof(a, PT_WAIT_MS), "a half-closed connection is kept");
}
