/*
 * test_deliver.c - what reaches a connection and what does not: others' notices, frames in the
 * middle of a replay, rights that end at a session or an agent. The core is the test; reading the
 * log waits at a turnstile where the order matters.
 */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge/parser.h"
#include "edge_rig.h"

#define FRAME(text) eg_bytes_copy(text, strlen(text))

static sem_t turnstile;

static void pass(void)
{
    sem_wait(&turnstile);
}

/* A rig whose log is read when the turnstile lets it. */
static struct rig *held(int max_queued_frames)
{
    struct rig *const rig = rig_new();
    sem_init(&turnstile, 0, 0);
    rig->before_read = pass;
    rig->settings->max_queued_frames = max_queued_frames;
    rig_run(rig, 1);
    return rig;
}

static void expect(struct client *c, const char *part)
{
    const char *const text = client_next(c, NULL);
    cr_expect_not_null(strstr(text, part), "%s in place of %s", text, part);
}

/* Says hello with these members and rights, and is welcomed so. */
static struct client *enter(struct rig *rig, const char *members, const char *scope,
                            struct eg_welcome w, eg_conn_id *id)
{
    struct client *const c = rig_connect(rig, NULL);
    char text[2048];
    char *const token = rig_token(rig, NULL, scope, NULL, 3600);
    snprintf(text, sizeof text, "{\"type\":\"hello\",\"agent_id\":\"echo\",%s\"token\":\"%s\"}",
             members, token);
    free(token);
    client_text(c, text);
    struct eg_cmd *const cmd = rig_attach(rig);
    *id = cmd->conn;
    w.sid = 1;
    w.resumed = true;
    rig_welcome(rig, cmd, w);
    expect(c, "\"type\":\"hello_ok\"");
    return c;
}

/* Of two events, replayed from the start. */
static struct client *replay_two(struct rig *rig, eg_conn_id *id)
{
    rig_append(rig, 1, "message", "{}");
    rig_append(rig, 1, "response", "{}");
    return enter(rig, "\"since\":0,", "read write",
                 (struct eg_welcome){.cursor = 2, .oldest = 1, .replay = true}, id);
}

static void expect_two(struct client *c)
{
    expect(c, "{\"type\":\"replay\",\"seq\":1,");
    expect(c, "{\"type\":\"replay\",\"seq\":2,");
    expect(c, "{\"type\":\"replay_end\",\"cursor\":2}");
}

static void notice(struct rig *rig, const char *text, eg_conn_id except)
{
    rig_out(rig, (struct eg_out){
                     .kind = EG_OUT_NOTICE, .sid = 1, .except = except, .bytes = FRAME(text)});
}

static void answer(struct rig *rig, eg_conn_id conn, const char *text)
{
    rig_out(rig, (struct eg_out){.kind = EG_OUT_FRAME, .conn = conn, .bytes = FRAME(text)});
}

Test(deliver, a_notice_is_for_the_others)
{
    eg_conn_id one, two;
    struct rig *const rig = rig_start();
    struct client *const a = rig_join(rig, "read write", "", &one);
    struct client *const b = rig_join(rig, "read write", "", &two);
    notice(rig, "\"of a\"", one);
    notice(rig, "\"of b\"", two);
    expect(a, "of b");
    expect(b, "of a");
    client_free(a);
    client_free(b);
    rig_free(rig);
}

Test(deliver, what_comes_during_a_replay_waits_for_its_place)
{
    eg_conn_id id;
    struct rig *const rig = held(100);
    for (int i = 0; i < 600; i++) { /* several pages */
        rig_append(rig, 1, "message", "{}");
    }
    const struct eg_welcome w = {.cursor = 600, .oldest = 1, .replay = true};
    struct client *const c = enter(rig, "\"since\":0,", "read", w, &id);
    notice(rig, "\"a notice\"", 0);
    answer(rig, id, "\"an answer\"");
    for (int i = 0; i < 600; i++) {
        sem_post(&turnstile);
    }
    for (int i = 0; i < 600; i++) {
        expect(c, "{\"type\":\"replay\",");
    }
    expect(c, "{\"type\":\"replay_end\",\"cursor\":600}");
    expect(c, "a notice");
    expect(c, "an answer");
    client_free(c);
    rig_free(rig);
}

/* Notices are dropped for answers; the list goes on behind the one that was last. */
Test(deliver, too_many_frames_during_a_replay_lose_notices_first)
{
    eg_conn_id id;
    struct rig *const rig = held(3);
    struct client *const c = replay_two(rig, &id);
    answer(rig, id, "\"answer 1\"");
    notice(rig, "\"notice 1\"", 0);
    answer(rig, id, "\"answer 2\"");
    answer(rig, id, "\"answer 3\"");
    notice(rig, "\"notice 2\"", 0);
    notice(rig, "\"notice 3\"", 0);
    sem_post(&turnstile);
    expect_two(c);
    expect(c, "answer 1");
    expect(c, "answer 2");
    expect(c, "answer 3");
    answer(rig, id, "\"goes on\"");
    expect(c, "goes on");
    client_free(c);
    rig_free(rig);
}

Test(deliver, a_snapshot_tells_nothing_to_who_may_not_read)
{
    eg_conn_id id;
    struct rig *const rig = rig_start();
    const struct eg_welcome w = {.cursor = 1, .oldest = 1, .resync = EG_RESYNC_EPOCH};
    rig_append(rig, 1, "message", "{\"content\":\"secret\"}");
    struct client *const reader = enter(rig, "", "read", w, &id);
    expect(reader, "secret");
    struct client *const writer = enter(rig, "", "write", w, &id);
    expect(writer, "\"messages\":[]");
    client_free(reader);
    client_free(writer);
    rig_free(rig);
}

/* Who is in another's session by the claim sessions stays there by it alone. */
Test(deliver, a_guest_needs_its_right_in_a_fresh_token_too)
{
    char text[2048];
    eg_conn_id id;
    struct rig *const rig = rig_start();
    char *const token = rig_token(rig, NULL, "read", NULL, 3600);
    snprintf(text, sizeof text, "{\"type\":\"auth\",\"token\":\"%s\"}", token);
    free(token);
    for (int guest = 0; guest < 2; guest++) {
        const struct eg_welcome w = {.oldest = 1, .guest = guest};
        struct client *const c = enter(rig, "", "read", w, &id);
        client_text(c, text);
        expect(c, guest ? "\"code\":\"auth_unauthorized\"" : "\"type\":\"auth_ok\"");
        client_free(c);
    }
    rig_free(rig);
}

Test(deliver, bad_fresh_tokens_are_refused_frames)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read", "", NULL);
    for (int i = 0; i < 10; i++) {
        client_text(c, "{\"type\":\"auth\",\"token\":\"x.y.z\"}");
    }
    cr_expect_eq(client_close_code(c, NULL), 4028);
    client_free(c);
    rig_free(rig);
}

Test(deliver, a_worker_does_not_read_of_another_agents_session)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_connect(rig, NULL);
    struct eg_welcome *const w = calloc(1, sizeof *w);
    char text[2048];
    char *const token = rig_token(rig, NULL, "agent", "other", 3600);
    rig_append(rig, 2, "message", "{\"content\":\"secret\"}"); /* of the agent echo */
    snprintf(text, sizeof text,
             "{\"type\":\"hello\",\"agent_id\":\"other\",\"role\":\"agent\",\"token\":\"%s\"}",
             token);
    free(token);
    client_text(c, text);
    struct eg_cmd *const cmd = rig_attach(rig);
    *w = (struct eg_welcome){.worker = true, .worker_id = "w", .agent_id = "other"};
    rig_out(rig, (struct eg_out){.kind = EG_OUT_WELCOME, .conn = cmd->conn, .welcome = w});
    eg_cmd_free(cmd);
    expect(c, "hello_ok");
    client_text(c, "{\"type\":\"history\",\"session_id\":\"s2\"}");
    expect(c, "\"field\":\"session_id\"");
    client_free(c);
    rig_free(rig);
}

/* How long a page of history is under this limit, and of how many events. */
static size_t page_bytes(int64_t max_payload, int *events)
{
    eg_conn_id id;
    struct rig *const rig = rig_start();
    struct eg_settings *const settings = eg_settings_copy(rig->settings);
    settings->max_payload = max_payload;
    for (int i = 0; i < 3; i++) {
        rig_append(rig, 1, "message", "{\"fill\":\"0123456789012345678901234567890123456789\"}");
    }
    struct client *const c = rig_join(rig, "read", "", &id);
    eg_reactors_settings(rig->rs, settings);
    eg_settings_unref(settings);
    answer(rig, id, "\"in force\"");
    expect(c, "in force");
    client_text(c, "{\"type\":\"history\"}");
    const char *const page = client_next(c, NULL);
    const size_t n = strlen(page);
    *events = 0;
    for (const char *at = page; (at = strstr(at, "\"fill\"")); at++) {
        (*events)++;
    }
    client_free(c);
    rig_free(rig);
    return n;
}

Test(deliver, a_page_of_history_is_as_long_as_a_frame_may_be_and_has_one_event_at_least)
{
    int events;
    const size_t all = page_bytes(65536, &events);
    cr_expect_eq(events, 3);
    cr_expect_eq(page_bytes((int64_t)all, &events), all);
    cr_expect_eq(events, 3);
    cr_expect_lt(page_bytes((int64_t)all - 1, &events), all);
    cr_expect_eq(events, 2);
    (void)page_bytes(100, &events);
    cr_expect_eq(events, 1, "stored when frames could be longer");
}

Test(deliver, histories_are_answered_one_after_the_other)
{
    eg_conn_id id;
    struct rig *const rig = held(100);
    for (int i = 0; i < 3; i++) {
        rig_append(rig, 1, "message", "{}");
    }
    const struct eg_welcome w = {.cursor = 3, .sequence = 3, .oldest = 1};
    struct client *const c = enter(rig, "", "read", w, &id);
    client_text(c, "{\"type\":\"history\",\"since\":0,\"limit\":1}");
    client_text(c, "{\"type\":\"history\",\"since\":2,\"limit\":1}");
    client_text(c, "{\"type\":\"ping\"}");
    for (int i = 0; i < 4; i++) { /* each may look whether there is more */
        sem_post(&turnstile);
    }
    expect(c, "\"events\":[{\"type\":\"message\",\"session_id\":\"s1\",\"cursor\":1,");
    expect(c, "\"events\":[{\"type\":\"message\",\"session_id\":\"s1\",\"cursor\":3,");
    expect(c, "pong");
    client_free(c);
    rig_free(rig);
}

Test(deliver, what_follows_a_large_message_waits_for_it)
{
    static char big[EG_LARGE_BYTES + 4096];
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read write", "", NULL);
    cr_assert_eq(eg_parser_start(&rig->rs->parser), EG_OK);
    const int n = snprintf(big, sizeof big, "{\"type\":\"message\",\"content\":\"");
    memset(big + n, 'x', EG_LARGE_BYTES);
    strcpy(big + n + EG_LARGE_BYTES, "\",\"message_id\":\"large\"}");
    client_text(c, big);
    client_text(c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"small\"}");
    const char *const order[] = {"large", "small"};
    for (int i = 0; i < 2; i++) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        cr_assert_eq(cmd->kind, EG_CMD_FRAME);
        cr_expect(eg_slice_is(cmd->frame.message_id, order[i]), "%s does not come now", order[i]);
        eg_cmd_free(cmd);
    }
    client_free(c);
    eg_parser_stop(rig->rs->parser);
    rig->rs->parser = NULL;
    rig_free(rig);
}

/* --- event streams --- */

static struct client *stream(struct rig *rig, int64_t since)
{
    struct eg_adopted a = {.mode = EG_CONN_SSE, .origin_allowed = true, .since = since};
    strcpy(a.sse_session, "s1");
    a.claims.sub = strdup("ann");
    a.claims.jti = strdup("j");
    a.claims.scopes = EG_SCOPE_READ;
    return rig_connect(rig, &a);
}

static const char *to_end(struct client *c)
{
    client_eof(c);
    eg_buf_char(&c->in, '\0');
    return c->in.p;
}

static void end_session(struct rig *rig, uint64_t cursor)
{
    struct eg_bytes *const end = rig_append(rig, 1, "session_end", "{}");
    rig_out(rig, (struct eg_out){
                     .kind = EG_OUT_EVENT, .sid = 1, .cursor = cursor, .bytes = eg_bytes_ref(end)});
}

Test(deliver, a_stream_ends_with_its_session_also_while_it_catches_up)
{
    struct rig *const rig = held(100);
    rig_append(rig, 1, "message", "{}");
    struct client *const c = stream(rig, 0);
    rig_welcome(
        rig, rig_attach(rig),
        (struct eg_welcome){.sid = 1, .cursor = 1, .oldest = 1, .replay = true, .resumed = true});
    end_session(rig, 2);
    sem_post(&turnstile);
    sem_post(&turnstile);
    const char *const text = to_end(c);
    cr_expect_not_null(strstr(text, "event: message\n"), "%s", text);
    cr_expect_not_null(strstr(text, "event: session_end\n"), "%s", text);
    client_free(c);
    rig_free(rig);
}

Test(deliver, a_stream_that_the_core_refuses_ends)
{
    struct rig *const rig = rig_start();
    struct client *const c = stream(rig, -1);
    struct eg_cmd *const cmd = rig_attach(rig);
    rig_out(rig, (struct eg_out){.kind = EG_OUT_REFUSE,
                                 .conn = cmd->conn,
                                 .code = EG_CODE_session_not_found,
                                 .retry_after_s = -1});
    eg_cmd_free(cmd);
    const char *const text = to_end(c);
    cr_expect_not_null(strstr(text, "event: error\ndata: {\"code\":\"session_not_found\""), "%s",
                       text);
    client_free(c);
    rig_free(rig);
}

Test(deliver, what_a_stream_sends_is_not_read_as_frames)
{
    struct rig *const rig = rig_start();
    struct client *const c = stream(rig, -1);
    rig_welcome(rig, rig_attach(rig), (struct eg_welcome){.sid = 1, .oldest = 1, .resumed = true});
    client_bytes(c, "GET / HTTP/1.1\r\n\r\n", 18);
    for (int i = 0; i < 10 && c->in.n == 0; i++) {
        client_poll(c);
    }
    struct client *const after =
        rig_join(rig, "read", "", NULL); /* what was sent has come by now */
    end_session(rig, 1);
    const char *const text = to_end(c);
    cr_expect_not_null(strstr(text, "event: session_end\n"), "%s", text);
    client_free(after);
    client_free(c);
    rig_free(rig);
}

/* --- what a connection leaves behind --- */

Test(deliver, a_connection_that_said_hello_takes_no_other_handshake_along)
{
    struct eg_adopted a = {.origin_allowed = true, .addr = "10.0.0.1"};
    struct rig *const rig = rig_start();
    struct client *c[2];
    char text[2048];
    char *const token = rig_token(rig, NULL, "read", NULL, 3600);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(eg_limits_enter(rig->limits, a.addr, 0), EG_CODE_NONE);
        c[i] = rig_connect(rig, &a);
    }
    snprintf(text, sizeof text, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}",
             token);
    free(token);
    client_text(c[0], text);
    rig_welcome(rig, rig_attach(rig), (struct eg_welcome){.sid = 1, .oldest = 1});
    expect(c[0], "hello_ok");
    cr_expect_eq(eg_limits_count(rig->limits).handshakes, 1);
    client_free(c[0]);
    struct eg_cmd *const cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_DETACH);
    eg_cmd_free(cmd);
    client_free(rig_join(rig, "read", "", NULL)); /* its end is behind us */
    cr_expect_eq(eg_limits_count(rig->limits).connections, 1);
    cr_expect_eq(eg_limits_count(rig->limits).handshakes, 1, "of the one that has said nothing");
    client_free(c[1]);
    rig_free(rig);
}
