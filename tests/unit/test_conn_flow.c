/*
 * test_conn_flow.c - a connection that takes less than it is sent or is sent less than it says:
 * slow consumers, a core that is behind, and what counts when it ends.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/pool.h"
#include "edge_rig.h"

Test(conn_flow, a_slow_consumer_is_let_go)
{
    struct rig *const rig = rig_new();
    rig->settings->max_queued_frames = 50;
    rig_run(rig, 1);
    struct client *const slow = rig_join(rig, "read", "", NULL);
    struct client *const good = rig_join(rig, "read", "", NULL);
    char data[200];
    unsigned op = 0;
    uint64_t got = 0;
    memset(data, 'x', sizeof data);
    memcpy(data, "{\"fill\":\"", 9);
    memcpy(data + 196, "\"}", 3);
    for (uint64_t n = 1; n <= 3000; n++) {
        struct eg_bytes *const e = rig_append(rig, 1, "response", data);
        rig_out(rig, (struct eg_out){
                         .kind = EG_OUT_EVENT, .sid = 1, .cursor = n, .bytes = eg_bytes_ref(e)});
        cr_assert_str_eq(client_next(good, NULL), e->data, "the other one never waits");
    }
    for (;;) {
        const char *const text = client_next(slow, &op);
        if (op == 8) {
            cr_expect_eq((unsigned)(uint8_t)text[0] << 8 | (uint8_t)text[1], 1013);
            cr_expect_str_eq(text + 2, "slow_consumer");
            break;
        }
        cr_assert_str_eq(text, rig->log[0].event[got++]->data, "in order until the end");
    }
    cr_expect_lt(got, 3000);
    client_eof(slow);
    client_free(slow);
    client_free(good);
    rig_free(rig);
}

Test(conn_flow, an_event_larger_than_the_buffer_is_delivered)
{
    struct rig *const rig = rig_new();
    rig->settings->max_buffered_bytes = 65536;
    rig_run(rig, 1);
    struct client *const c = rig_join(rig, "read", "", NULL);
    struct eg_bytes *const big = eg_bytes_new(4 << 20);
    memset(big->data, 'b', big->n);
    for (uint64_t n = 1; n <= 3; n++) {
        rig_out(rig, (struct eg_out){
                         .kind = EG_OUT_EVENT, .sid = 1, .cursor = n, .bytes = eg_bytes_ref(big)});
        cr_expect_eq(strlen(client_next(c, NULL)), big->n);
    }
    eg_bytes_unref(big);
    client_free(c);
    rig_free(rig);
}

static void ignore_conn(void *arg, const struct eg_conn_info *info)
{
    (void)arg;
    (void)info;
}

/* Cursors 0, 1, 2 ... in one write. */
static void send_acks(struct client *c, int all)
{
    struct eg_buf frames = {0};
    for (int i = 0; i < all; i++) {
        /* masked with zeros: what is sent is what is written here */
        char json[64];
        const int n = snprintf(json, sizeof json, "{\"type\":\"ack\",\"cursor\":%d}", i);
        eg_buf_char(&frames, (char)0x81);
        eg_buf_char(&frames, (char)(0x80 | n));
        eg_buf_add(&frames, "\0\0\0\0", 4);
        eg_buf_add(&frames, json, (size_t)n);
    }
    client_bytes(c, frames.p, frames.n);
    eg_buf_free(&frames);
}

Test(conn_flow, a_core_that_is_behind_slows_the_sender)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read write", "", NULL);
    enum { ALL = 3000 };
    int taken = 0, sync = 0;
    eg_conn_id id = 0;
    send_acks(c, ALL);
    while (taken < ALL) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        id = cmd->conn;
        if (cmd->kind == EG_CMD_SYNC) {
            if (++sync == EG_SYNCS_MAX) {
                /* Now nothing more may come until one of them is answered. A ping is not read. */
                client_text(c, "{\"type\":\"ping\"}");
                eg_reactors_each(rig->rs, ignore_conn, NULL); /* the reactor has had its turn */
            }
        } else {
            cr_assert_eq(cmd->frame.cursor, taken++);
        }
        eg_cmd_free(cmd);
        if (sync == EG_SYNCS_MAX) {
            cr_expect_null(rig_try_cmd(rig));
            cr_expect_null(client_try(c, NULL));
            for (; sync > 0; sync--) {
                rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
            }
        }
    }
    for (; sync > 0; sync--) {
        rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
    }
    HAS(client_next(c, NULL), "pong");
    client_free(c);
    rig_free(rig);
}

/* A client that the reactor does not read from, since the core is behind: its connection's id. */
static eg_conn_id unread(struct rig *rig, struct client *c)
{
    int sync = 0;
    eg_conn_id id = 0;
    send_acks(c, 3000);
    while (sync < EG_SYNCS_MAX) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        sync += cmd->kind == EG_CMD_SYNC;
        id = cmd->conn;
        eg_cmd_free(cmd);
    }
    return id;
}

static void count_open(void *arg, const struct eg_conn_info *info)
{
    (void)info;
    ++*(int *)arg;
}

static void tell_much(struct rig *rig, struct eg_bytes *big, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to; n++) {
        rig_out(rig, (struct eg_out){
                         .kind = EG_OUT_EVENT, .sid = 1, .cursor = n, .bytes = eg_bytes_ref(big)});
    }
    eg_reactors_each(rig->rs, ignore_conn, NULL); /* the reactor has had its turn */
}

/* Silence cannot be held against whom nobody listens to. That it takes nothing can. */
Test(conn_flow, who_takes_nothing_is_cut_even_when_nobody_listens)
{
    rig_fake_clock();
    struct rig *const rig = rig_start();
    struct client *const dead = rig_join(rig, "read write", "", NULL);
    struct client *const slow = rig_join(rig, "read write", "", NULL);
    struct eg_bytes *const big = eg_bytes_new(100000);
    char reason[126];
    memset(big->data, 'b', big->n);
    unread(rig, dead);
    const eg_conn_id slow_id = unread(rig, slow);
    tell_much(rig, big, 1, 20); /* more than the sockets hold */
    int ticks = 0, got = 0, open = 2;
    for (; open == 2 && ticks < 8; ticks++) { /* two heartbeats are four ticks */
        rig_tick(rig, 7500);
        for (int k = 0; k < 2; k++) { /* one of them takes something now and then */
            cr_assert_eq(strlen(client_next(slow, NULL)), big->n);
            got++;
        }
        open = 0;
        eg_reactors_each(rig->rs, count_open, &open);
    }
    cr_expect_eq(open, 1);
    cr_expect_geq(ticks, 4);
    /* The other hears of it when it takes again: what was on its way first, then nothing more. */
    cr_expect_eq(client_close_code(dead, reason), 1013);
    cr_expect_str_eq(reason, "slow_consumer");
    client_eof(dead);
    for (int sync = 0; sync < EG_SYNCS_MAX; sync++) {
        rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = slow_id});
    }
    for (; got < 20; got++) {
        cr_assert_eq(strlen(client_next(slow, NULL)), big->n);
    }
    eg_bytes_unref(big);
    client_free(dead);
    client_free(slow);
    rig_free(rig);
}

Test(conn_flow, close_is_echoed)
{
    struct rig *const rig = rig_start();
    static const char *const bodies[] = {"\x03\xe8", "\x03\xf4", "\x13\x87"};
    for (int i = 0; i < 3; i++) {
        struct client *const c = rig_join(rig, "read", "", NULL);
        client_frame(c, 0x88, bodies[i], 2);
        cr_expect_eq(client_close_code(c, NULL),
                     (unsigned)(uint8_t)bodies[i][0] << 8 | (uint8_t)bodies[i][1]);
        client_eof(c);
        client_free(c);
        struct eg_cmd *const cmd = rig_cmd(rig);
        cr_expect_eq(cmd->kind, EG_CMD_DETACH);
        eg_cmd_free(cmd);
    }
    struct client *const c = rig_join(rig, "read", "", NULL);
    unsigned op;
    client_frame(c, 0x89, "abc", 3);
    cr_expect_str_eq(client_next(c, &op), "abc");
    cr_expect_eq(op, 10);
    client_bytes(c, "\x81\x01x", 3); /* not masked */
    cr_expect_eq(client_close_code(c, NULL), 1002);
    client_free(c);
    rig_free(rig);
}

Test(conn_flow, a_lost_connection_is_detached_once)
{
    struct rig *const rig = rig_start();
    eg_conn_id id;
    client_free(rig_join(rig, "read", "", &id));
    struct eg_cmd *const cmd = rig_cmd(rig);
    cr_expect_eq(cmd->kind, EG_CMD_DETACH);
    cr_expect_eq(cmd->conn, id);
    eg_cmd_free(cmd);
    /* Outputs for it that come later go nowhere. */
    rig_out(rig,
            (struct eg_out){.kind = EG_OUT_FRAME, .conn = id, .bytes = eg_bytes_copy("{}", 2)});
    struct client *const c = rig_join(rig, "read", "", NULL);
    cr_expect_null(client_try(c, NULL));
    client_free(c);
    rig_free(rig);
}

Test(conn_flow, what_was_said_before_the_end_counts)
{
    struct rig *const rig = rig_new();
    rig->settings->max_queued_frames = 10;
    rig_run_by_hand(rig);
    struct client *const c = rig_connect(rig, NULL);
    rig_turn(rig);
    client_hello(rig, c, "hello", AGENT, "read write");
    rig_turn(rig);
    rig_welcome(rig, rig_attach(rig), (struct eg_welcome){.sid = 1});
    rig_turn(rig);
    /* It speaks and goes; before that is read, the gateway tries to write to it. */
    client_text(c, "{\"type\":\"message\",\"content\":1}");
    client_free(c);
    for (uint64_t n = 1; n <= 20; n++) {
        struct eg_bytes *const e = rig_append(rig, 1, "response", "{}");
        rig_out(rig, (struct eg_out){
                         .kind = EG_OUT_EVENT, .sid = 1, .cursor = n, .bytes = eg_bytes_ref(e)});
    }
    rig_turn(rig);
    rig_turn(rig);
    struct eg_cmd *cmd = rig_try_cmd(rig);
    cr_assert_not_null(cmd);
    cr_expect_eq(cmd->kind, EG_CMD_FRAME);
    eg_cmd_free(cmd);
    cmd = rig_try_cmd(rig);
    if (cmd && cmd->kind == EG_CMD_SYNC) {
        eg_cmd_free(cmd);
        cmd = rig_try_cmd(rig);
    }
    cr_assert_not_null(cmd);
    cr_expect_eq(cmd->kind, EG_CMD_DETACH);
    eg_cmd_free(cmd);
    cr_expect_eq(rig->rs->reactor[0].peers, 0);
    rig_free(rig);
}

/* It speaks and goes while the core is behind and nobody listens to it. */
Test(conn_flow, what_was_said_while_nobody_listened_counts)
{
    struct rig *const rig = rig_start();
    struct client *const c = rig_join(rig, "read write", "", NULL);
    enum { ALL = 3000 };
    int taken = 0, sync = 0;
    bool there = true;
    send_acks(c, ALL);
    for (;;) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        const enum eg_cmd_kind kind = cmd->kind;
        const eg_conn_id id = cmd->conn;
        taken += kind == EG_CMD_FRAME;
        sync += kind == EG_CMD_SYNC;
        eg_cmd_free(cmd);
        if (kind == EG_CMD_DETACH) {
            break;
        }
        if (sync == EG_SYNCS_MAX && there) {
            there = false;
            client_free(c);
            for (int i = 0; i < 3; i++) { /* the reactor has heard of it */
                eg_reactors_each(rig->rs, ignore_conn, NULL);
            }
        }
        for (; sync && !there; sync--) {
            rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
        }
    }
    cr_expect_eq(taken, ALL);
    rig_free(rig);
}

static void expect_cmd(struct rig *rig, enum eg_cmd_kind kind)
{
    struct eg_cmd *const cmd = rig_try_cmd(rig);
    cr_assert_not_null(cmd);
    cr_expect_eq(cmd->kind, kind);
    eg_cmd_free(cmd);
}

/* However long the core takes with what it said before, it is not taken for silent. */
Test(conn_flow, who_leaves_waits_for_the_core)
{
    rig_fake_clock();
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    struct client *const c = rig_connect(rig, NULL);
    const eg_conn_id id = rig_join_by_hand(rig, c);
    client_text(c, "{\"type\":\"message\",\"content\":1}");
    client_text(c, "{\"type\":\"leave\"}");
    rig_turn(rig);
    expect_cmd(rig, EG_CMD_FRAME);
    expect_cmd(rig, EG_CMD_SYNC);
    for (int i = 0; i < 10; i++) {
        rig_tick(rig, 14000);
        rig_turn(rig);
    }
    cr_expect_null(client_try(c, NULL));
    rig_out(rig,
            (struct eg_out){.kind = EG_OUT_FRAME, .conn = id, .bytes = eg_bytes_copy("{}", 2)});
    rig_out(rig, (struct eg_out){.kind = EG_OUT_SYNC, .conn = id});
    rig_turn(rig);
    cr_expect_str_eq(client_next(c, NULL), "{}");
    HAS(client_next(c, NULL), "\"type\":\"left\"");
    cr_expect_eq(client_close_code(c, NULL), 1000);
    client_free(c);
    rig_free(rig);
}

/* What came before a close frame is handed over before the connection's end. */
Test(conn_flow, what_was_said_before_a_close_frame_counts)
{
    struct rig *const rig = rig_new();
    rig_run_by_hand(rig);
    struct client *const c = rig_connect(rig, NULL);
    const eg_conn_id id = rig_join_by_hand(rig, c);
    for (int i = 0; i < 20; i++) {
        client_text(c, "{\"type\":\"message\",\"content\":1}");
    }
    client_frame(c, 0x88, "\x03\xe8", 2);
    client_text(c, "{\"type\":\"message\",\"content\":2}"); /* after it there is nothing */
    rig_turn(rig);
    rig_turn(rig);
    for (int i = 0; i < 20; i++) {
        expect_cmd(rig, EG_CMD_FRAME);
    }
    expect_cmd(rig, EG_CMD_DETACH);
    cr_expect_null(rig_try_cmd(rig));
    /* The answers come too late. */
    rig_out(rig,
            (struct eg_out){.kind = EG_OUT_FRAME, .conn = id, .bytes = eg_bytes_copy("{}", 2)});
    rig_turn(rig);
    cr_expect_eq(client_close_code(c, NULL), 1000);
    client_free(c);
    rig_free(rig);
}

/* Has the reactor's turns taken until the connection has been given all of the log but has not
 * taken all of it. It reads, a little at a time, only while no page is on its way to it. */
static void read_to_the_last_page(struct rig *rig, struct client *c, const struct eg_peer *p)
{
    char some[2048];
    for (int turns = 0; p->sent < p->head || eg_outbox_page_bytes(&p->out) > EG_PAGE_AHEAD_BYTES;
         turns++) {
        cr_assert_lt(turns, 1000000);
        if (eg_outbox_page_bytes(&p->out) > EG_PAGE_AHEAD_BYTES) {
            const ssize_t n = recv(c->fd, some, sizeof some, 0);
            if (n > 0) {
                eg_buf_add(&c->in, some, (size_t)n);
            }
        } else {
            usleep(100);
        }
        rig_turn(rig);
    }
    cr_assert_gt(eg_outbox_page_bytes(&p->out), 0);
}

/* Who has not taken all pages yet is not live: what comes meanwhile stays in the log for it, and
 * does not make a slow consumer of it. */
Test(conn_flow, pages_that_wait_are_taken_before_it_is_live)
{
    enum { OLD = 3000, NEW = 100 };
    static const char fill[] = "{\"fill\":\"0123456789012345678901234567890123456789"
                               "0123456789012345678901234567890123456789\"}";
    struct rig *const rig = rig_new();
    rig->settings->max_queued_frames = NEW / 2;
    rig_run_by_hand(rig);
    for (int i = 0; i < OLD; i++) {
        rig_append(rig, 1, "response", fill);
    }
    struct client *const c = rig_connect(rig, NULL);
    rig_turn(rig);
    client_hello(rig, c, "hello", AGENT ",\"session_id\":\"s1\",\"since\":0", "read");
    rig_turn(rig);
    struct eg_cmd *const cmd = rig_attach(rig);
    const eg_conn_id id = cmd->conn;
    rig_welcome(
        rig, cmd,
        (struct eg_welcome){.sid = 1, .resumed = true, .cursor = OLD, .oldest = 1, .replay = true});
    rig_turn(rig);
    HAS(client_next(c, NULL), "hello_ok");
    read_to_the_last_page(rig, c, eg_peer_find(&rig->rs->reactor[0], id));
    for (uint64_t i = OLD + 1; i <= OLD + NEW; i++) {
        struct eg_bytes *const event = rig_append(rig, 1, "response", "{}");
        rig_out(rig,
                (struct eg_out){
                    .kind = EG_OUT_EVENT, .sid = 1, .cursor = i, .bytes = eg_bytes_ref(event)});
    }
    for (uint64_t i = 1; i <= OLD + NEW;) {
        const char *const text = client_try(c, NULL);
        if (!text) {
            cr_assert(!c->eof, "cut off before event %d", (int)i);
            rig_turn(rig);
        } else if (!strstr(text, "replay_end")) {
            char cursor[32];
            snprintf(cursor, sizeof cursor, "\"cursor\":%d,", (int)i++);
            HAS(text, cursor);
        }
    }
    client_free(c);
    rig_free(rig);
}
