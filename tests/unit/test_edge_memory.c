/*
 * test_edge_memory.c - each allocation of a reactor fails once while a client says hello, is
 * replayed to, follows, asks for history and speaks. What it gets is right as far as it goes; then
 * its connection goes on or ends, and the reactor serves the next one as if nothing had been.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edge_rig.h"
#include "failing.h"

#define EVENTS 3
#define PATIENCE 40 /* turns without anything new */

static struct rig *rig;

static void turn(void)
{
    failing_hold(false);
    rig_turn(rig);
    failing_hold(true);
}

/* The next frame with the part in it; NULL when the connection ended, or nothing more comes. */
static const char *next(struct client *c, const char *part)
{
    for (int i = 0; i < PATIENCE; i++) {
        unsigned op;
        const char *const text = client_try(c, &op);
        if (text && op == 8) {
            return NULL;
        }
        if (text && op == 1 && (strstr(text, part) || strstr(text, "\"error\""))) {
            return text;
        }
        if (text) {
            continue;
        }
        if (c->eof) {
            return NULL;
        }
        turn();
        poll(NULL, 0, i > 3); /* the readers have a thread of their own */
    }
    return NULL;
}

static struct eg_cmd *command(enum eg_cmd_kind kind)
{
    for (int i = 0; i < 4; i++) {
        struct eg_cmd *cmd;
        turn();
        while ((cmd = rig_try_cmd(rig))) {
            if (cmd->kind == kind) {
                return cmd;
            }
            eg_cmd_free(cmd);
        }
    }
    return NULL;
}

/* All events in order, then the end of the replay; false when the connection ended before. */
static bool replayed(struct client *c)
{
    for (int i = 1; i <= EVENTS; i++) {
        char seq[40];
        const char *const text = next(c, "\"replay\"");
        if (!text) {
            return false;
        }
        snprintf(seq, sizeof seq, "{\"type\":\"replay\",\"seq\":%d,", i);
        cr_assert_eq(strncmp(text, seq, strlen(seq)), 0, "%s is not event %d", text, i);
    }
    return next(c, "\"replay_end\"") != NULL;
}

/* From hello to leaving; whether all of it could be said and heard. */
static bool story(struct client *c, const char *hello)
{
    eg_conn_id id;
    client_text(c, hello);
    struct eg_cmd *cmd = command(EG_CMD_ATTACH);
    if (!cmd) {
        return false;
    }
    id = cmd->conn;
    rig_welcome(rig, cmd,
                (struct eg_welcome){
                    .sid = 1, .cursor = EVENTS, .oldest = 1, .replay = true, .resumed = true});
    if (!next(c, "hello_ok") || !replayed(c)) {
        return false;
    }
    struct eg_bytes *const live = eg_bytes_copy("{\"type\":\"response\",\"n\":4}", 25);
    rig_out(rig,
            (struct eg_out){.kind = EG_OUT_EVENT, .sid = 1, .cursor = EVENTS + 1, .bytes = live});
    if (!next(c, "\"n\":4")) {
        return false;
    }
    client_text(c, "{\"type\":\"history\",\"limit\":2}");
    const char *const page = next(c, "\"history\"");
    if (!page || !strstr(page, "\"cursor\":")) {
        return false;
    }
    client_text(c, "{\"type\":\"message\",\"content\":{\"a\":[1,2]},\"message_id\":\"m\"}");
    cmd = command(EG_CMD_FRAME);
    if (!cmd) {
        return false;
    }
    cr_assert(eg_slice_is(cmd->frame.content, "{\"a\":[1,2]}"));
    cr_assert_eq(cmd->conn, id);
    eg_cmd_free(cmd);
    client_text(c, "{\"type\":\"ping\",\"id\":\"p\"}");
    return next(c, "\"pong\"") != NULL;
}

static struct client *connect_one(void)
{
    struct client *const c = rig_connect(rig, NULL);
    turn();
    return c;
}

static void leave(struct client *c)
{
    client_free(c);
    for (int i = 0; i < 3; i++) {
        struct eg_cmd *cmd;
        turn();
        while ((cmd = rig_try_cmd(rig))) {
            eg_cmd_free(cmd);
        }
    }
}

enum { NOT_REACHED = 2, WENT_ON = 3, ENDED = 4, RETRY = 75 };

/* In a process of its own, which may end with 75 where a connection's end cannot be told. */
static int run(int n)
{
    char hello[2048];
    rig = rig_new();
    rig_run_by_hand(rig);
    for (int i = 0; i < EVENTS; i++) {
        rig_append(rig, 1, "response", "{}");
    }
    char *const token = rig_token(rig, NULL, "read write", NULL, 3600);
    snprintf(hello, sizeof hello,
             "{\"type\":\"hello\",\"agent_id\":\"echo\",\"session_id\":\"s1\",\"since\":0,"
             "\"capabilities\":[\"streaming\",\"ack\"],\"client\":{\"name\":\"n\"},"
             "\"token\":\"%s\"}",
             token);
    free(token);
    /* The first one makes the tables, which do not fail (base/table.h). */
    struct client *const keeper = connect_one();
    cr_assert(story(keeper, hello));
    failing_order(n);
    failing_hold(true);
    struct client *const c = connect_one();
    const bool whole = story(c, hello);
    leave(c);
    const bool failed = failing_done();
    /* Whoever comes next is served in full. */
    struct client *const after = connect_one();
    const bool served = story(after, hello);
    leave(after);
    leave(keeper);
    rig_free(rig);
    return !served || (!whole && !failed) ? 1 : !failed ? NOT_REACHED : whole ? WENT_ON : ENDED;
}

Test(edge_memory, a_connection_without_memory_ends_and_nothing_else, .timeout = 100)
{
    int count[256] = {0}, n = 0, status = 0;
    for (; count[NOT_REACHED] == 0; n++) {
        const pid_t child = fork();
        if (child == 0) {
            (void)!freopen("/dev/null", "w", stderr);
            _exit(run(n));
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status), "allocation %d", n);
        const int code = WEXITSTATUS(status);
        cr_assert(code == RETRY || (code >= NOT_REACHED && code <= ENDED), "allocation %d: %d", n,
                  code);
        count[code]++;
    }
    cr_expect_gt(n, 15, "%d", n);
    cr_expect_gt(count[ENDED], 5);
    cr_expect_lt(count[RETRY], 3, "only where nothing else is left");
}

Test(edge_memory, a_revocation_needs_no_memory_to_reach_the_reactors, .timeout = 100)
{
    char hello[2048];
    rig = rig_new();
    rig_run_by_hand(rig);
    struct client *const c = rig_connect(rig, NULL);
    char *const token = rig_token(rig, NULL, "read", NULL, 3600);
    snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}",
             token);
    free(token);
    client_text(c, hello);
    struct eg_cmd *const cmd = command(EG_CMD_ATTACH);
    cr_assert_not_null(cmd);
    rig_welcome(rig, cmd, (struct eg_welcome){.sid = 1, .oldest = 1});
    cr_assert_not_null(next(c, "hello_ok"));
    eg_auth_revoked(rig->auth, "sub:ann", 0);
    failing_order(0);
    eg_reactors_judge(rig->rs);
    (void)failing_done();
    cr_assert_null(next(c, "nothing more"));
    cr_assert(c->eof);
    client_free(c);
    rig_free(rig);
}

Test(edge_memory, while_a_revocation_is_lost_no_token_is_accepted)
{
    struct eg_claims claims;
    rig = rig_new();
    rig_run_by_hand(rig);
    char *const token = rig_token(rig, NULL, "read", NULL, 3600);
    const struct eg_slice text = eg_slice_cstr(token);
    cr_assert_eq(eg_auth_check(rig->auth, text, eg_clock_now().wall_ms, &claims, NULL), EG_OK);
    eg_auth_revoked(rig->auth, "sub:bob", 0);
    cr_expect(eg_auth_stands(rig->auth, claims.sub, claims.jti, claims.kid));
    failing_order(0);
    eg_auth_revoked(rig->auth, "sub:eve", 0);
    cr_assert(failing_done());
    cr_expect_not(eg_auth_stands(rig->auth, claims.sub, claims.jti, claims.kid));
    eg_claims_free(&claims);
    cr_expect_eq(eg_auth_check(rig->auth, text, eg_clock_now().wall_ms, &claims, NULL), EG_EDENIED,
                 "it may be the one that was revoked");
    free(token);
    rig_free(rig);
}

Test(edge_memory, settings_need_no_memory_to_reach_the_reactors)
{
    rig = rig_new();
    rig_run_by_hand(rig);
    struct eg_settings *const a = eg_settings_copy(rig->settings);
    struct eg_settings *const b = eg_settings_copy(rig->settings);
    failing_order(0);
    eg_reactors_settings(rig->rs, a);
    (void)failing_done();
    rig_turn(rig);
    cr_expect_eq(rig->rs->reactor[0].settings, a);
    eg_reactors_settings(rig->rs, b);
    eg_reactors_settings(rig->rs, a);
    eg_reactors_settings(rig->rs, b);
    rig_turn(rig);
    cr_expect_eq(rig->rs->reactor[0].settings, b, "the last ones count");
    eg_reactors_settings(rig->rs, a); /* opened by nobody */
    eg_settings_unref(a);
    eg_settings_unref(b);
    rig_free(rig);
}

Test(edge_memory, a_farewell_needs_no_memory_to_reach_the_reactors)
{
    rig = rig_new();
    rig_run(rig, 1);
    struct client *const a = rig_join(rig, "read", "", NULL), *const b =
                                                                  rig_join(rig, "read", "", NULL);
    failing_order(0);
    eg_reactors_farewell(rig->rs, 0, 5000);
    (void)failing_done();
    client_eof(a);
    client_eof(b);
    client_free(a);
    client_free(b);
    rig_free(rig);
}

/* In a process whose descriptors it counts. */
Test(edge_memory, reactors_that_cannot_be_made_close_nothing_of_others)
{
    rig = rig_new();
    const struct eg_reactors_config config = {
        .count = 2, .settings = rig->settings, .dir = rig->dir};
    struct eg_reactors *rs = NULL;
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_assert_eq(dup2(null, 0), 0);
    for (int n = 0; !rs; n++) {
        failing_order(n);
        const enum eg_err err = eg_reactors_new(&config, &rs);
        const bool failed = failing_done();
        cr_assert_eq(failed, err != EG_OK);
        cr_assert_eq(fcntl(0, F_GETFD), 0, "allocation %d", n);
    }
    eg_reactors_stop(rs);
    close(null);
    rig_free(rig);
}
