/*
 * test_input.c - how much of whom is read when: large texts keep their place, whoever floods waits
 * in line and others do not.
 */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "edge/parser.h"
#include "edge/pool.h"
#include "edge/rest.h"
#include "edge_rig.h"

/* A message with so many bytes of metadata, and this content. */
static char *large(const char *content, const char *end)
{
    const size_t n = 2 * EG_LARGE_BYTES;
    char *const text = malloc(n + 200);
    const int head =
        sprintf(text, "{\"type\":\"message\",\"content\":%s,\"metadata\":{\"x\":\"", content);
    memset(text + head, 'm', n);
    strcpy(text + head + n, end);
    return text;
}

static void say_large(struct client *c, const char *content, const char *end)
{
    char *const text = large(content, end);
    client_text(c, text);
    free(text);
}

static struct eg_cmd *next_frame(struct rig *rig)
{
    for (;;) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        if (cmd->kind == EG_CMD_FRAME) {
            return cmd;
        }
        if (cmd->kind == EG_CMD_SYNC) {
            rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = cmd->conn});
        }
        eg_cmd_free(cmd);
    }
}

Test(input, large_texts_keep_their_place)
{
    struct rig *const rig = rig_new();
    eg_conn_id id;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read write", "", &id);
    client_text(c, "{\"type\":\"message\",\"content\":1}");
    say_large(c, "2", "\"}}");
    client_text(c, "{\"type\":\"message\",\"content\":3}");
    say_large(c, "4", "\"}}");
    say_large(c, "5", "\"}}");
    client_text(c, "{\"type\":\"message\",\"content\":6}");
    for (char want = '1'; want <= '6'; want++) {
        struct eg_cmd *const cmd = next_frame(rig);
        cr_expect_eq(cmd->frame.type, EG_FRAME_MESSAGE);
        cr_expect(eg_slice_is(cmd->frame.content, (char[]){want, '\0'}), "%c", want);
        cr_expect_gt(cmd->tail.n, cmd->frame.metadata.n);
        cr_expect_eq(cmd->frame.metadata.n > EG_LARGE_BYTES,
                     want == '2' || want == '4' || want == '5');
        eg_cmd_free(cmd);
    }
    client_free(c);
    rig_free(rig);
}

Test(input, large_texts_are_refused_like_others)
{
    struct rig *const rig = rig_new();
    eg_conn_id id;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read write", "", &id);
    say_large(c, "1", "\"}");
    cr_expect_not_null(strstr(client_next(c, NULL), "\"code\":\"invalid_json\""));
    say_large(c, "\"\"", "\"}}");
    const char *const text = client_next(c, NULL);
    cr_expect_not_null(strstr(text, "\"code\":\"invalid_request\""));
    cr_expect_not_null(strstr(text, "\"field\":\"content\""));
    say_large(c, "\"/stop\"", "\"}}");
    struct eg_cmd *const cmd = next_frame(rig);
    cr_expect_eq(cmd->frame.type, EG_FRAME_ABORT);
    cr_expect_eq(cmd->frame.turn, -1);
    cr_expect_lt(cmd->tail.n, 200, "what was made for a message is gone");
    eg_cmd_free(cmd);
    client_free(c);
    rig_free(rig);
}

Test(input, a_connection_that_ends_while_its_text_is_read_is_let_go)
{
    struct rig *const rig = rig_new();
    eg_conn_id id;
    rig_run(rig, 1);
    for (int i = 0; i < 20; i++) {
        struct client *const c = rig_join(rig, "read write", "", &id);
        say_large(c, "1", "\"}}");
        client_free(c);
        struct eg_cmd *cmd = rig_cmd(rig);
        while (cmd->kind != EG_CMD_DETACH) { /* with the message or without */
            eg_cmd_free(cmd);
            cmd = rig_cmd(rig);
        }
        cr_expect_eq(cmd->conn, id);
        eg_cmd_free(cmd);
    }
    rig_free(rig);
}

/* A client of a reactor whose turns are taken by hand. */
static struct client *join_by_hand(struct rig *rig)
{
    char hello[2048];
    char *const token = rig_token(rig, NULL, "read write", NULL, 3600);
    struct client *const c = rig_connect(rig, NULL);
    snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"agent_id\":\"echo\",\"token\":\"%s\"}",
             token);
    free(token);
    client_text(c, hello);
    struct eg_cmd *cmd = NULL;
    for (int i = 0; i < 100 && !cmd; i++) {
        rig_turn(rig);
        cmd = rig_try_cmd(rig);
    }
    cr_assert_not_null(cmd);
    rig_welcome(rig, cmd, (struct eg_welcome){0});
    for (int i = 0; i < 4; i++) {
        rig_turn(rig);
    }
    cr_assert_not_null(strstr(client_next(c, NULL), "hello_ok"));
    return c;
}

#define PINGS 2000
#define LEAVERS 64

/* Masked with zeros, and written at once. */
static void send_pings(struct client *c)
{
    struct eg_buf pings = {0};
    char ping[64];
    for (int i = 0; i < PINGS; i++) {
        const int n = snprintf(ping, sizeof ping, "{\"type\":\"ping\",\"id\":%d}", i);
        eg_buf_char(&pings, (char)0x81);
        eg_buf_char(&pings, (char)(0x80 | n));
        eg_buf_add(&pings, "\0\0\0\0", 4);
        eg_buf_add(&pings, ping, (size_t)n);
    }
    client_bytes(c, pings.p, pings.n);
    eg_buf_free(&pings);
}

/* A turn in which c's message is taken. */
static void turn_with_message(struct rig *rig, struct client *c)
{
    client_text(c, "{\"type\":\"message\",\"content\":\"hello\"}");
    rig_turn(rig);
    struct eg_cmd *const cmd = rig_try_cmd(rig);
    cr_assert_not_null(cmd);
    cr_expect_eq(cmd->kind, EG_CMD_FRAME);
    eg_cmd_free(cmd);
}

/* How many pongs there are after those that were counted. */
static unsigned take_pongs(struct client *c, unsigned counted)
{
    char want[64];
    const char *text;
    unsigned n = 0;
    client_poll(c);
    for (; (text = client_try(c, NULL)); n++) {
        snprintf(want, sizeof want, "\"id\":%u,", counted + n);
        cr_assert_not_null(strstr(text, want), "%s in %s", want, text);
    }
    return n;
}

/* No thread does it for us. */
static void leave_by_hand(struct rig *rig, struct client *a, struct client *b)
{
    client_free(a);
    client_free(b);
    for (unsigned gone = 0; gone < 2;) {
        struct eg_cmd *cmd;
        rig_turn(rig);
        while ((cmd = rig_try_cmd(rig))) {
            gone += cmd->kind == EG_CMD_DETACH;
            eg_cmd_free(cmd);
        }
    }
    rig_free(rig);
}

/* Turns until those who have left are gone, and the end. */
static void let_go(struct rig *rig)
{
    const struct eg_reactor *const r = rig->rs->reactor;
    for (int i = 0; i < LEAVERS && r->peers; i++) {
        rig_turn(rig);
    }
    cr_expect_eq(r->peers, 0);
    rig_free(rig);
}

Test(input, who_floods_waits_in_line_and_others_do_not)
{
    struct rig *const rig = rig_new();
    unsigned pongs = 0, first = 0, turns = 0;
    rig_run_by_hand(rig);
    struct client *const flood = join_by_hand(rig), *const quiet = join_by_hand(rig);
    send_pings(flood);
    while (pongs < PINGS) {
        turn_with_message(rig, quiet);
        pongs += take_pongs(flood, pongs);
        first = turns++ ? first : pongs;
        cr_assert_lt(turns, 100);
    }
    cr_expect_lt(first, PINGS / 2, "a turn takes a share of the flood");
    leave_by_hand(rig, flood, quiet);
}

Test(input, the_line_rests_while_others_are_served)
{
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    struct eg_reactor *const r = rig->rs->reactor;
    struct client *const flood = join_by_hand(rig), *const quiet = join_by_hand(rig);
    send_pings(flood);
    turn_with_message(rig, quiet);
    turn_with_message(rig, quiet);
    unsigned pongs = take_pongs(flood, 0);
    cr_expect_gt(pongs, 0);
    cr_assert_lt(pongs, PINGS);
    cr_expect_gt(r->rest_until_us, 0);

    rig_rest(rig);
    cr_expect_gt(eg_input_line_wait(r), 1000);
    client_text(flood, "{\"type\":\"ping\",\"id\":2000}");
    for (int i = 0; i < 5; i++) {
        turn_with_message(rig, quiet);
    }
    cr_expect_eq(take_pongs(flood, pongs), 0, "it rests");
    const struct eg_peer *const p = r->line;
    cr_assert_not_null(p);
    cr_expect(p->muted, "what it sends meanwhile wakes nobody");
    cr_expect_not(p->watch_in);

    rig_wake(rig);
    cr_expect_eq(eg_input_line_wait(r), 0);
    for (int i = 0; i < 100 && pongs <= PINGS; i++) {
        rig_turn(rig);
        pongs += take_pongs(flood, pongs);
    }
    cr_expect_eq(pongs, PINGS + 1, "nothing is lost");
    cr_expect_eq(eg_input_line_wait(r), -1);
    leave_by_hand(rig, flood, quiet);
}

Test(input, who_leaves_while_the_line_rests_is_let_go_after_it)
{
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    struct eg_reactor *const r = rig->rs->reactor;
    struct client *const flood = join_by_hand(rig);
    send_pings(flood);
    rig_turn(rig);
    cr_assert_not_null(r->line);
    rig_rest(rig);
    client_text(flood, "{\"type\":\"message\",\"content\":\"last words\"}");
    rig_turn(rig);
    cr_assert(r->line->muted);
    client_free(flood); /* with pongs unread: a reset */
    rig_turn(rig);
    rig_turn(rig);
    cr_expect_eq(r->peers, 1);
    rig_wake(rig);
    let_go(rig);
}

static sem_t reading;

static void wait_to_read(void)
{
    sem_wait(&reading);
}

/* A rig whose readers wait until end_reading(), which frees it. */
static struct rig *rig_by_hand_without_reading(void)
{
    struct rig *const rig = rig_new();
    rig->before_read = wait_to_read;
    sem_init(&reading, 0, 0);
    rig_run_by_hand(rig);
    return rig;
}

static void end_reading(struct rig *rig)
{
    sem_post(&reading);
    rig_free(rig);
    sem_destroy(&reading);
}

/* Has the first peer follow a session, and miss what must be read for it. */
static struct eg_peer *begin_replay(struct rig *rig)
{
    struct eg_peer *const p = rig->rs->reactor->slots[0].peer;
    rig_append(rig, 1, "message", "{}");
    p->sid = 1;
    cr_assert_eq(eg_follow_add(&rig->rs->reactor->follows, p), EG_OK);
    rig_out(rig, (struct eg_out){.kind = EG_OUT_FRAME, /* what is before it is read first */
                                 .conn = eg_peer_id(p),
                                 .sid = 1,
                                 .cursor = 2,
                                 .bytes = eg_bytes_copy("{}", 2)});
    rig_turn(rig);
    cr_assert_not_null(p->catchup);
    return p;
}

/* It leaves amid a replay, before which its message cannot be answered, and is gone. */
Test(input, who_leaves_amid_a_replay_and_is_lost_is_let_go)
{
    struct rig *const rig = rig_by_hand_without_reading();
    struct eg_reactor *const r = rig->rs->reactor;
    struct client *const flood = join_by_hand(rig);
    const eg_conn_id id = eg_peer_id(begin_replay(rig));
    send_pings(flood);
    client_text(flood, "{\"type\":\"leave\"}");
    rig_turn(rig);
    cr_assert_not_null(r->line);
    rig_rest(rig);
    client_text(flood, "{\"type\":\"ping\"}");
    rig_turn(rig);
    cr_assert(r->line->muted);
    client_free(flood);
    rig_turn(rig);
    rig_wake(rig);
    for (int i = 0; i < 100 && r->peers; i++) {
        struct eg_cmd *cmd;
        rig_turn(rig);
        while ((cmd = rig_try_cmd(rig))) {
            if (cmd->kind == EG_CMD_SYNC) {
                rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
            }
            eg_cmd_free(cmd);
        }
    }
    cr_expect_eq(r->peers, 0);
    end_reading(rig);
}

/* The same when all it said was dealt with, and only the replay holds up its farewell. */
Test(input, who_leaves_amid_a_replay_and_is_lost_waiting_for_it_is_let_go)
{
    struct rig *const rig = rig_by_hand_without_reading();
    struct eg_cmd *cmd;
    struct eg_reactor *const r = rig->rs->reactor;
    struct client *const c = join_by_hand(rig);
    struct eg_peer *const p = begin_replay(rig);
    const eg_conn_id id = eg_peer_id(p);
    client_text(c, "{\"type\":\"leave\"}");
    bool asked = false;
    for (int i = 0; i < 100 && !asked; i++) {
        rig_turn(rig);
        while ((cmd = rig_try_cmd(rig))) {
            asked = asked || cmd->kind == EG_CMD_SYNC;
            eg_cmd_free(cmd);
        }
    }
    cr_assert(asked);
    rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
    rig_turn(rig);
    cr_assert(p->leaving && p->syncs == 0 && p->catchup);
    client_free(c);
    for (int i = 0; i < 100 && r->peers; i++) {
        rig_turn(rig);
        while ((cmd = rig_try_cmd(rig))) {
            eg_cmd_free(cmd);
        }
    }
    cr_expect_eq(r->peers, 0);
    end_reading(rig);
}

Test(input, the_line_goes_on_at_once_when_nobody_else_is_served)
{
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    struct eg_reactors *const rs = rig->rs;
    const int64_t start = eg_clock_mono_us() - 1000, now_ms = eg_clock_mono_ms();
    cr_expect_eq(eg_rest_us(rs, start), 0, "nobody was ever served");
    eg_rest_seen(rs, now_ms - EG_REST_FOR_MS - 2);
    cr_expect_eq(eg_rest_us(rs, start), 0, "long ago");
    eg_rest_seen(rs, now_ms);
    cr_expect_geq(eg_rest_us(rs, start), 1000);
    cr_expect_eq(eg_rest_us(rs, start - 1000000), EG_REST_MOST_US);
    rig_free(rig);
}

/* --- rests of those that work for who asks for much --- */

static bool gated;
static sem_t arrived, gate;

static void pass_gate(void)
{
    sem_post(&arrived);
    while (sem_wait(&gate) != 0) {
    }
}

/* The parser's thread begins with this: it is held until it has more to do than one text. */
int setpriority(__priority_which_t which, id_t who, int prio)
{
    (void)which;
    (void)who;
    (void)prio;
    if (gated) {
        pass_gate();
    }
    return 0;
}

static struct rig *rig_with_gate(struct client **c)
{
    struct rig *const rig = rig_new();
    sem_init(&arrived, 0, 0);
    sem_init(&gate, 0, 0);
    gated = true;
    rig->counts_rests = true;
    rig->before_read = pass_gate;
    rig_run_by_hand(rig);
    *c = join_by_hand(rig);
    return rig;
}

static int rests(const struct rig *rig)
{
    return __atomic_load_n(&rig->rest_count, __ATOMIC_ACQUIRE);
}

#define TASKS 4

Test(input, the_parser_rests_while_others_wait)
{
    struct client *c;
    struct rig *const rig = rig_with_gate(&c);
    char *const text = large("1", "\"}}");
    cr_assert_eq(eg_parser_start(&rig->rs->parser), EG_OK);
    for (int i = 0; i < TASKS; i++) {
        cr_assert_eq(
            eg_parser_give(rig->rs->parser, rig->rs->reactor[0].slots[0].peer, eg_slice_cstr(text)),
            EG_OK);
    }
    sem_post(&gate);
    for (int n = 0; n < TASKS;) {
        struct eg_cmd *const cmd = rig_try_cmd(rig);
        if (!cmd) {
            rig_turn(rig);
            continue;
        }
        n += cmd->kind == EG_CMD_FRAME;
        eg_cmd_free(cmd);
    }
    eg_parser_stop(rig->rs->parser);
    rig->rs->parser = NULL;
    cr_expect_eq(rests(rig), TASKS - 1, "after each but the last: %d", rests(rig));
    free(text);
    client_free(c);
    rig_free(rig);
}

static void ask_page(struct rig *rig)
{
    struct eg_job *const job = eg_job_new(EG_JOB_HISTORY, rig->rs->reactor[0].slots[0].peer);
    job->sid = 1;
    job->from = job->to = 1;
    job->limit = 1;
    job->max_bytes = 65536;
    eg_pool_give(rig->rs->pool, job);
}

Test(input, a_reader_rests_while_others_wait)
{
    struct client *c;
    struct rig *const rig = rig_with_gate(&c);
    rig_append(rig, 1, "message", "{}");
    ask_page(rig);
    while (sem_wait(&arrived) != 0) {
    }
    for (int i = 1; i < TASKS; i++) {
        ask_page(rig);
    }
    for (int i = 0; i < TASKS; i++) {
        sem_post(&gate);
    }
    for (int n = 0; n < TASKS;) {
        rig_turn(rig);
        n += client_try(c, NULL) != NULL;
    }
    eg_pool_stop(rig->rs->pool);
    rig->rs->pool = NULL;
    cr_expect_eq(rests(rig), TASKS - 2, "but for the first and the last: %d", rests(rig));
    client_free(c);
    rig_free(rig);
}

/* All of them: before they said hello, or after. */
static void leave_together(bool joined)
{
    struct rig *const rig = rig_new();
    struct client *client[LEAVERS];
    rig_run_by_hand(rig);
    const struct eg_reactor *const r = rig->rs->reactor;
    for (int i = 0; i < LEAVERS; i++) {
        client[i] = joined ? join_by_hand(rig) : rig_connect(rig, NULL);
        rig_turn(rig);
    }
    rig_turn(rig);
    cr_assert_eq(r->peers, LEAVERS);
    for (int i = 0; i < LEAVERS; i++) {
        client_free(client[i]);
    }
    rig_turn(rig);
    const unsigned left = r->peers;
    cr_expect_lt(left, LEAVERS, "a turn lets some go");
    cr_expect_gt(left, LEAVERS / 2, "a turn takes a share of them");
    let_go(rig);
}

Test(input, who_leave_together_are_let_go_in_several_turns)
{
    leave_together(false);
}

Test(input, who_leave_together_after_hello_are_too)
{
    leave_together(true);
}
