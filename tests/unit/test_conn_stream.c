/*
 * test_conn_stream.c - event streams: connections that only listen.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge_rig.h"

/* An event stream of session 1. */
static struct client *stream(struct rig *rig, int64_t since, struct eg_welcome w)
{
    struct eg_adopted a = {.mode = EG_CONN_SSE, .origin_allowed = true, .since = since};
    strcpy(a.sse_session, "s1");
    a.claims.sub = strdup("ann");
    a.claims.jti = strdup("j");
    a.claims.scopes = EG_SCOPE_READ;
    struct client *const c = rig_connect(rig, &a);
    struct eg_cmd *const cmd = rig_cmd(rig);
    cr_expect(cmd->stream);
    cr_expect(eg_slice_is(cmd->frame.session_id, "s1"));
    cr_expect_eq(cmd->frame.since, since);
    w.sid = 1;
    w.resumed = true;
    rig_welcome(rig, cmd, w);
    return c;
}

/* All that comes until the end. */
static const char *to_end(struct client *c)
{
    client_eof(c);
    eg_buf_char(&c->in, '\0');
    return c->in.p;
}

Test(conn_stream, an_event_stream)
{
    struct rig *const rig = rig_start();
    char want[2000];
    for (int i = 0; i < 2; i++) {
        rig_append(rig, 1, "token_stream", "{}");
    }
    struct client *const c = stream(
        rig, 1, (struct eg_welcome){.cursor = 2, .sequence = 1, .oldest = 1, .replay = true});
    rig_append(rig, 1, "message", "{\"content\":1}");
    rig_append(rig, 1, "session_end", "{}");
    for (uint64_t n = 3; n <= 4; n++) {
        rig_out(rig, (struct eg_out){.kind = EG_OUT_EVENT,
                                     .sid = 1,
                                     .cursor = n,
                                     .bytes = eg_bytes_ref(rig->log[0].event[n - 1])});
    }
    snprintf(want, sizeof want,
             ":\n\nid: 2\nevent: token_stream\ndata: %s\n\nid: 3\nevent: message\ndata: %s\n\n"
             "id: 4\nevent: session_end\ndata: %s\n\n",
             rig->log[0].event[1]->data, rig->log[0].event[2]->data, rig->log[0].event[3]->data);
    cr_expect_str_eq(to_end(c), want);
    client_free(c);
    rig_free(rig);
}

/* The token was good when the request was judged, and revoked before the socket came here. */
Test(conn_stream, an_event_stream_whose_token_was_revoked_on_the_way)
{
    struct rig *const rig = rig_start();
    struct eg_adopted a = {.mode = EG_CONN_SSE, .origin_allowed = true, .since = -1};
    strcpy(a.sse_session, "s1");
    a.claims.sub = strdup("ann");
    a.claims.jti = strdup("j");
    a.claims.scopes = EG_SCOPE_READ;
    eg_auth_revoked(rig->auth, "jti:j", 0);
    eg_reactors_judge(rig->rs); /* those that are there */
    struct client *const c = rig_connect(rig, &a);
    client_eof(c);
    client_free(c);
    rig_free(rig);
}

/* It is told to come back like those that were there. */
static void expect_drained(struct client *c)
{
    char text[64];
    int after = -1, n = 0;
    snprintf(text, sizeof text, "%s", to_end(c));
    cr_expect_eq(sscanf(text, "retry: %d\n\n%n", &after, &n), 1, "%s", text);
    cr_expect(after >= 0 && after <= 500, "%d", after);
    cr_expect_eq(text[n], '\0');
    client_free(c);
}

Test(conn_stream, an_event_stream_that_comes_with_the_farewell)
{
    struct rig *const rig = rig_start();
    struct eg_adopted a = {.mode = EG_CONN_SSE, .origin_allowed = true, .since = -1};
    strcpy(a.sse_session, "s1");
    for (int i = 0; i < 2; i++) { /* the core has not answered; after the farewell */
        a.claims.sub = strdup("ann");
        a.claims.jti = strdup("j");
        a.claims.scopes = EG_SCOPE_READ;
        struct client *const c = rig_connect(rig, &a);
        eg_cmd_free(rig_attach(rig));
        eg_reactors_drain(rig->rs);
        if (i == 0) {
            eg_reactors_farewell(rig->rs, 500, 5000);
        }
        expect_drained(c);
    }
    rig_free(rig);
}

/* Who comes after the farewell and says nothing does not hold up the end. */
Test(conn_stream, a_silent_newcomer_after_the_farewell, .timeout = 60)
{
    char reason[126];
    rig_fake_clock();
    struct rig *const rig = rig_start();
    eg_reactors_drain(rig->rs);
    eg_reactors_farewell(rig->rs, 500, 3600000); /* there is nobody to wait for */
    struct client *const silent = rig_connect(rig, NULL);
    struct client *const asks = rig_connect(rig, NULL);
    client_hello(rig, asks, "hello", AGENT, "read write");
    HAS(client_next(asks, NULL), "\"code\":\"draining\"");
    cr_expect_eq(client_close_code(asks, NULL), 1012);
    cr_expect_null(client_try(silent, NULL));
    rig_tick(rig, EG_LATE_MS);
    cr_expect_eq(client_close_code(silent, reason), 1012);
    cr_expect_str_eq(reason, "drain");
    client_free(silent);
    client_free(asks);
    rig_free(rig);
}

Test(conn_stream, an_event_stream_with_a_gap)
{
    struct rig *const rig = rig_start();
    for (int i = 0; i < 9; i++) {
        rig_append(rig, 1, "message", "{}");
    }
    struct client *const c = stream(
        rig, 1,
        (struct eg_welcome){.cursor = 9, .sequence = 9, .oldest = 5, .resync = EG_RESYNC_TRIMMED});
    rig_append(rig, 1, "session_end", "{}");
    rig_out(rig, (struct eg_out){.kind = EG_OUT_EVENT,
                                 .sid = 1,
                                 .cursor = 10,
                                 .bytes = eg_bytes_ref(rig->log[0].event[9])});
    char want[1000];
    snprintf(want, sizeof want,
             "id: 9\nevent: resync\ndata: {\"reason\":\"trimmed\",\"oldest_cursor\":5,\"cursor\":9,"
             "\"epoch\":\"epoch-1\"}\n\nid: 10\nevent: session_end\ndata: %s\n\n",
             rig->log[0].event[9]->data);
    cr_expect_str_eq(to_end(c), want);
    client_free(c);
    rig_free(rig);
}

Test(conn_stream, an_event_stream_of_a_closed_session_ends_after_its_events)
{
    struct rig *const rig = rig_start();
    for (int i = 0; i < 600; i++) {
        rig_append(rig, 1, "message", "{}");
    }
    struct client *const c = stream(
        rig, 0, (struct eg_welcome){.cursor = 600, .oldest = 1, .replay = true, .closed = true});
    HAS(to_end(c), "id: 600\nevent: message\n");
    client_free(c);
    rig_free(rig);
}

static void count_open(void *arg, const struct eg_conn_info *info)
{
    (void)info;
    ++*(int *)arg;
}

/* A stream says nothing that could be missed, so that it takes nothing is all there is to see. */
Test(conn_stream, an_event_stream_that_is_not_read_is_let_go)
{
    enum { EVENTS = 5000 }; /* more than a socket holds */
    rig_fake_clock();
    struct rig *const rig = rig_start();
    for (int i = 0; i < EVENTS; i++) {
        rig_append(rig, 1, "message", "{\"fill\":\"0123456789012345678901234567890123456789\"}");
    }
    struct client *const c =
        stream(rig, 0, (struct eg_welcome){.cursor = EVENTS, .oldest = 1, .replay = true});
    int ticks = 0, open = 1;
    for (; open && ticks < 1000; ticks++) { /* two heartbeats are four ticks */
        rig_tick(rig, 7500);
        poll(NULL, 0, 5); /* the pages come from another thread */
        open = 0;
        eg_reactors_each(rig->rs, count_open, &open);
    }
    cr_assert_eq(open, 0);
    cr_expect_geq(ticks, 4);
    client_eof(c);
    client_free(c);
    rig_free(rig);
}
