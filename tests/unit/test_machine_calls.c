/*
 * test_machine_calls.c - what operators ask of the state machine: close, delete, trim, fork,
 * agents, revocation, audit.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine_rig.h"
#include "wire/event.h"

static struct machine_rig *r;
static eg_conn_id c;

static void up(void)
{
    r = mr_new();
    c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    for (int i = 0; i < 4; i++) {
        mr_frame(r, c, "{\"type\":\"message\",\"content\":\"x\",\"message_id\":\"m\"}");
        mr_frame(r, c, "{\"type\":\"message\",\"content\":\"y\"}");
    }
}

static void down(void)
{
    mr_free(r);
}

TestSuite(calls, .init = up, .fini = down);

static enum eg_code call(enum eg_call_kind kind, uint64_t cursor)
{
    struct eg_call k = {.kind = kind,
                        .session_id = EG_LIT("s"),
                        .cursor = cursor,
                        .turn = -1,
                        .audit_who = EG_LIT("op"),
                        .audit_action = EG_LIT("act")};
    const enum eg_code code = mr_call(r, &k);
    eg_buf_free(&k.json);
    return code;
}

static void settle(void)
{
    for (int i = 0; i < 100 && r->m->chores; i++) {
        mr_tick(r, 1);
    }
    cr_assert_null(r->m->chores);
}

Test(calls, close_ends_turns_and_connections)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert_eq(call(EG_CALL_CLOSE, 0), EG_CODE_NONE);
    cr_assert(mr_event(r, "session_end"));
    cr_assert(mr_text(r, w, "\"type\":\"abort\""));
    cr_assert_eq(mr_out(r, EG_OUT_CLOSE, c, 0)->close_code, 1000);
    cr_assert_neq(mr_out(r, EG_OUT_CLOSE, c, 0)->sid, 0, "who catches up is let to the end");
    int aborted = 0;
    int64_t turn = 0;
    for (int i = 0; i < r->outs; i++) {
        if (r->out[i].kind == EG_OUT_EVENT && strstr(r->out[i].bytes->data, "aborted")) {
            const int64_t next = mr_int(r->out[i].bytes->data, "\"turn\":");
            cr_assert_gt(next, turn, "oldest first");
            turn = next;
            aborted++;
        }
    }
    cr_assert_eq(aborted, 5);
    cr_assert_null(mr_out(r, EG_OUT_NOTICE, 0, 0), "none is handed out meanwhile");
    cr_assert_eq(call(EG_CALL_CLOSE, 0), EG_CODE_session_closed);
    cr_assert_eq(call(EG_CALL_ABORT, 0), EG_CODE_conflict);
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    cr_assert_eq(mr_out(r, EG_OUT_REFUSE, d, 0)->code, EG_CODE_session_closed);
    const char *last;
    cr_assert_eq(memstore_audits(r->storage, &last), 1);
    cr_assert_str_eq(last, "act");
}

Test(calls, delete_leaves_nothing)
{
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_session_not_found);
    settle();
    struct eg_session_row row;
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("s"), &row), EG_ENOTFOUND);
    cr_assert_eq(HASH_COUNT(r->m->sessions), 0);
    /* The id is free again, and a new log begins. */
    cr_assert_eq(mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true"))->cursor,
                 0);
}

/* A cursor into the log that is gone must not pass for one into the new log. */
Test(calls, an_id_used_again_has_another_epoch)
{
    char again[EG_EPOCH_MAX + 1];
    cr_assert_str_eq(mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\""))->epoch, "epoch-1");
    mr_client(r, "u", ",\"session_id\":\"other\",\"create\":true");
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_storage_unavailable);
    cr_assert_eq(r->m->epoch.until_sid, INT64_MAX, "it was taken back");
    eg_machine_resume(r->m);
    mr_client(r, "u", ",\"session_id\":\"third\",\"create\":true");
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    settle();
    const struct eg_welcome *w =
        mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true"));
    memcpy(again, w->epoch, sizeof again);
    cr_assert_eq(strncmp(again, "epoch-1-", 8), 0, "%s", again);
    cr_assert_eq(strlen(again), 8 + 16);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":0,\"epoch\":\"epoch-1\""));
    cr_assert_eq(w->resync, EG_RESYNC_EPOCH);
    mr_restart(r);
    char own[128];
    (void)snprintf(own, sizeof own, ",\"session_id\":\"s\",\"since\":0,\"epoch\":\"%s\"", again);
    cr_assert_eq(mr_welcome(r, mr_client(r, "u", own))->resync, EG_RESYNC_NONE);
    static const char *const older[] = {"other", "third"};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(own, sizeof own, ",\"session_id\":\"%s\",\"epoch\":\"epoch-1\"", older[i]);
        cr_assert_eq(mr_welcome(r, mr_client(r, "u", own))->resync, EG_RESYNC_NONE, "%s", older[i]);
    }
    struct eg_call k = {.kind = EG_CALL_CREATE, .agent = EG_LIT("a"), .session_id = EG_LIT("s")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert_str_eq(k.out_epoch, again);
}

/* A worker's late word on a turn of the log that is gone, of an id that was begun anew: the new
 * log's turn has the same number, and the same worker. */
Test(calls, work_for_a_deleted_session_is_none_for_the_next_one)
{
    static const char *const late[] = {
        "{\"type\":\"emit\",\"event\":\"status\",\"data\":\"old\"",
        "{\"type\":\"emit\",\"event\":\"status\",\"data\":\"old\",\"ephemeral\":true",
        "{\"type\":\"extend\"", "{\"type\":\"fail\",\"error\":\"old\"",
        "{\"type\":\"final\",\"content\":\"old\""};
    char text[256], own[EG_EPOCH_MAX + 1];
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert(mr_text(r, w, "\"turn\":1,\"epoch\":\"epoch-1\",\"attempt\":1"));
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    cr_assert(mr_text(r, w, "\"turn\":1,\"epoch\":\"epoch-1\",\"reason\""));
    settle();
    c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    memcpy(own, mr_welcome(r, c)->epoch, sizeof own);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"new\"}");
    (void)snprintf(text, sizeof text, "\"turn\":1,\"epoch\":\"%s\"", own);
    cr_assert(mr_text(r, w, text), "the new turn is at the same worker");
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        (void)snprintf(text, sizeof text,
                       "%s,\"session_id\":\"s\",\"turn\":1,\"epoch\":\"epoch-1\"}", late[i]);
        mr_frame(r, w, text);
        cr_assert(mr_text(r, w, "turn_closed"), "%s", text);
        cr_assert_null(mr_event(r, "old"));
    }
    (void)snprintf(text, sizeof text,
                   "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"epoch\":\"%s\","
                   "\"content\":\"right\"}",
                   own);
    mr_frame(r, w, text);
    cr_assert(mr_event(r, "right"));
}

Test(calls, a_deletion_goes_on_after_a_restart)
{
    struct eg_session_row row;
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, EG_LIT("s"), &row), EG_OK);
    r->m->draining = true;
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    mr_restart(r);
    if (r->storage->ops->session_by_sid(r->storage, row.sid, &row) == EG_OK) {
        cr_assert_eq(call(EG_CALL_REAP, (uint64_t)row.sid), EG_CODE_NONE);
        settle();
    }
    cr_assert_eq(r->storage->ops->session_by_sid(r->storage, row.sid, &row), EG_ENOTFOUND);
}

Test(calls, trim_moves_the_floor_but_not_past_an_open_turn)
{
    cr_assert_eq(call(EG_CALL_TRIM, 4), EG_CODE_NONE);
    settle();
    cr_assert_eq(r->m->sessions->oldest, 1, "turn 1 is open");
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, w, "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1}");
    mr_frame(r, w, "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":2,\"content\":1}");
    const int64_t bytes = r->m->sessions->bytes;
    cr_assert_eq(call(EG_CALL_TRIM, 1000), EG_CODE_NONE);
    settle();
    cr_assert_eq(r->m->sessions->oldest, 3);
    cr_assert_lt(r->m->sessions->bytes, bytes);
    const struct eg_welcome *w2 =
        mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":1"));
    cr_assert_eq(w2->resync, EG_RESYNC_TRIMMED);
    cr_assert_eq(w2->oldest, 3);
    w2 = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":2"));
    cr_assert_eq(w2->resync, EG_RESYNC_NONE);
    /* The id of a trimmed message is forgotten with it: it may be used again. */
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"z\",\"message_id\":\"m\"}");
    cr_assert(mr_text(r, c, "\"duplicate\":false"));
}

Test(calls, fork_copies_up_to_a_cursor)
{
    struct eg_call k = {.kind = EG_CALL_FORK, .session_id = EG_LIT("s"), .cursor = 3};
    mr_call(r, &k);
    settle();
    cr_assert_eq(k.code, EG_CODE_NONE);
    char hello[EG_ID_MAX + 32];
    snprintf(hello, sizeof hello, ",\"session_id\":\"%s\",\"since\":0", k.out_session_id);
    const struct eg_welcome *w = mr_welcome(r, mr_client(r, "u", hello));
    cr_assert_eq(w->cursor, 3);
    struct eg_bytes *body = NULL;
    cr_assert_eq(r->storage->ops->event_get(r->storage, w->sid, 2, &body), EG_OK);
    cr_assert(strstr(body->data, k.out_session_id) && strstr(body->data, "client:u"));
    eg_bytes_unref(body);
    k.cursor = 99;
    cr_assert_eq(mr_call(r, &k), EG_CODE_invalid_request);
    /* Empty copies are sessions too. */
    k.cursor = 0;
    mr_call(r, &k);
    settle();
    cr_assert_eq(k.code, EG_CODE_NONE);
}

static void chain(void *hash, uint64_t cursor, struct eg_slice body)
{
    (void)cursor;
    eg_chain_next(hash, body, hash);
}

Test(calls, a_fork_of_a_trimmed_session_has_a_whole_chain)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, w, "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":1}");
    cr_assert_eq(call(EG_CALL_TRIM, 2), EG_CODE_NONE);
    settle();
    struct eg_call k = {.kind = EG_CALL_FORK, .session_id = EG_LIT("s"), .cursor = 4};
    mr_call(r, &k);
    settle();
    cr_assert_eq(k.code, EG_CODE_NONE);
    struct eg_session_row row;
    uint8_t hash[EG_CHAIN_BYTES];
    cr_assert_eq(r->storage->ops->session_by_id(r->storage, eg_slice_cstr(k.out_session_id), &row),
                 EG_OK);
    cr_assert(row.oldest == 2 && row.cursor == 4);
    memcpy(hash, row.floor_hash, sizeof hash);
    cr_assert_eq(r->storage->ops->events(r->storage, row.sid, 2, 3, chain, hash), EG_OK);
    cr_assert_arr_eq(hash, row.hash, sizeof hash);
}

Test(calls, agents_come_and_go)
{
    struct eg_call k = {.kind = EG_CALL_AGENT_DELETE, .agent = EG_LIT("a")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_conflict, "turns wait for it");
    k.agent = EG_LIT("b");
    cr_assert_eq(mr_call(r, &k), EG_CODE_agent_not_found);
    k.kind = EG_CALL_AGENT_PUT;
    mr_call(r, &k);
    cr_assert(k.created);
    mr_call(r, &k);
    cr_assert(!k.created);
    k.kind = EG_CALL_AGENT_DELETE;
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    k = (struct eg_call){.kind = EG_CALL_AGENTS_INFO};
    mr_worker(r, "a", ",\"concurrency\":2,\"client\":{\"name\":\"w\\\"1\"}");
    mr_call(r, &k);
    cr_assert(k.json.n && memmem(k.json.p, k.json.n, "\"running\":1", 11));
    cr_assert_null(memmem(k.json.p, k.json.n, "\"b\"", 3));
    eg_buf_free(&k.json);
}

Test(calls, live_information_is_json)
{
    struct eg_call k = {.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s")};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "\"queue\":5", 9));
    eg_buf_free(&k.json);
    k = (struct eg_call){.kind = EG_CALL_STATS};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "\"attached\":1", 12));
    eg_buf_free(&k.json);
    k = (struct eg_call){.kind = EG_CALL_KICK, .conn = c};
    mr_call(r, &k);
    cr_assert(mr_out(r, EG_OUT_CLOSE, c, 0));
}

Test(calls, what_a_failed_batch_began_is_not_gone_on_with)
{
    static const enum eg_call_kind begins[] = {EG_CALL_FORK, EG_CALL_DELETE};
    for (int i = 0; i < 2; i++) {
        memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
        cr_assert_eq(call(begins[i], 2), EG_CODE_storage_unavailable);
        cr_assert_null(r->m->chores);
        eg_machine_resume(r->m);
    }
}

Test(calls, nothing_changes_while_the_storage_fails)
{
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    cr_assert_eq(call(EG_CALL_CLOSE, 0), EG_CODE_storage_unavailable);
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_storage_unavailable);
    cr_assert_eq(call(EG_CALL_FORK, 2), EG_CODE_storage_unavailable);
    struct eg_call k = {.kind = EG_CALL_REVOKE, .text = EG_LIT("sub:u"), .until_ms = 1};
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    k = (struct eg_call){.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("n")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    cr_assert_eq(r->m->sessions->state, EG_SESSION_OPEN);
    eg_machine_resume(r->m);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"still here\"}");
    cr_assert(mr_text(r, c, "accepted"));
}

Test(calls, nothing_is_found_where_nothing_is)
{
    static const enum eg_call_kind kinds[] = {
        EG_CALL_MESSAGE, EG_CALL_ABORT, EG_CALL_CLOSE,      EG_CALL_DELETE,      EG_CALL_FORK,
        EG_CALL_TRIM,    EG_CALL_REAP,  EG_CALL_TURN_RETRY, EG_CALL_SESSION_INFO};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct eg_call k = {
            .kind = kinds[i], .session_id = EG_LIT("none"), .cursor = 999, .content = EG_LIT("1")};
        cr_expect_eq(mr_call(r, &k), EG_CODE_session_not_found, "%d", kinds[i]);
        eg_buf_free(&k.json);
    }
    struct eg_call k = {.kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("s"), .turn = 1};
    cr_expect_eq(mr_call(r, &k), EG_CODE_not_found, "a turn that is not dead");
    k.turn = 999;
    cr_expect_eq(mr_call(r, &k), EG_CODE_not_found);
}

Test(calls, a_dead_turn_is_said_again_behind_what_waits)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, w,
             "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1,\"error\":1,\"retry\":false}");
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    struct eg_call k = {.kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("s"), .turn = 1};
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    eg_machine_resume(r->m);
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert_gt(k.out_turn, 5);
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""), "its turn has not come");
    cr_assert(mr_event(r, "\"content\":\"x\""));
    cr_assert_eq(mr_call(r, &k), EG_CODE_not_found, "only once");
}

Test(calls, a_dead_turn_whose_message_was_trimmed)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    for (int i = 1; i < 6; i++) {
        char fail[120];
        snprintf(
            fail, sizeof fail,
            "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":%d,\"error\":{},\"retry\":false}", i);
        mr_frame(r, w, fail);
    }
    r->m->trim_rows = 1;
    cr_assert_eq(call(EG_CALL_TRIM, 3), EG_CODE_NONE);
    struct eg_call k = {.kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("s"), .turn = 2};
    cr_assert_eq(mr_call(r, &k), EG_CODE_not_found, "it is to go, and is still there");
    settle();
    k.turn = 1;
    cr_assert_eq(mr_call(r, &k), EG_CODE_not_found);
    k.turn = 4;
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
}

Test(calls, workers_are_told_apart)
{
    mr_worker(r, "a", ",\"client\":{\"name\":\"one\"}");
    mr_worker(r, "a", ",\"client\":{\"name\":\"two\"}");
    struct eg_call k = {.kind = EG_CALL_AGENTS_INFO, .agent = EG_LIT("a")};
    mr_call(r, &k);
    cr_assert(memmem(k.json.p, k.json.n, "},{\"worker_id\"", 14));
    eg_buf_free(&k.json);
    k.agent = EG_LIT("b");
    mr_call(r, &k);
    cr_assert(eg_slice_is((struct eg_slice){k.json.p, k.json.n}, "[]"));
    eg_buf_free(&k.json);
}

Test(calls, removing_an_agent_needs_the_disk)
{
    struct eg_call put = {.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("b")};
    cr_assert_eq(mr_call(r, &put), EG_CODE_NONE);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    struct eg_call k = {.kind = EG_CALL_AGENT_DELETE, .agent = EG_LIT("b")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    cr_assert_eq(mr_call(r, &k), EG_CODE_storage_unavailable);
    eg_machine_resume(r->m);
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
}

Test(calls, a_deleted_session_whose_turns_waited_is_passed_over)
{
    mr_restart(r); /* it stands in the ring of its agent, and in memory only when asked for */
    cr_assert_eq(call(EG_CALL_DELETE, 0), EG_CODE_NONE);
    settle();
    const eg_conn_id w = mr_worker(r, "a", "");
    cr_assert_null(mr_text(r, w, "\"type\":\"turn\""));
    const eg_conn_id d = mr_client(r, "u", "");
    mr_frame(r, d, "{\"type\":\"message\",\"content\":\"next\"}");
    cr_assert(mr_text(r, w, "\"next\""));
}

Test(calls, creating_a_session)
{
    struct eg_identity u = {.sub = (char[]){"u"}}, v = {.sub = (char[]){"v"}};
    struct eg_call k = {.kind = EG_CALL_CREATE, .agent = EG_LIT("a"), .identity = &u};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert(k.created);
    cr_assert_eq(strlen(k.out_session_id), 36, "an id is made");
    k.session_id = EG_LIT("s");
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert(!k.created, "it is there already");
    cr_assert_eq(k.out_cursor, 5);
    k.identity = &v;
    cr_assert_eq(mr_call(r, &k), EG_CODE_auth_unauthorized);
    k.identity = &u;
    cr_assert_eq(call(EG_CALL_CLOSE, 0), EG_CODE_NONE);
    cr_assert_eq(mr_call(r, &k), EG_CODE_session_closed);
    r->settings->max_sessions_per_sub = 1;
    k.session_id = EG_LIT("another");
    cr_assert_eq(mr_call(r, &k), EG_CODE_rate_limited);
    k.identity = &v;
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
}

/* The sub was full only because of what the same batch made, and then did not. */
Test(calls, a_session_of_a_batch_that_fails_is_refused_for_that_alone)
{
    struct eg_identity v = {.sub = (char[]){"v"}};
    struct eg_call first = {.kind = EG_CALL_CREATE, .agent = EG_LIT("a"), .identity = &v};
    struct eg_call second = first;
    struct eg_cmd a = {.kind = EG_CMD_CALL, .call = &first},
                  b = {.kind = EG_CMD_CALL, .call = &second};
    r->settings->max_sessions_per_sub = 1;
    eg_machine_step(r->m, &a, r->now);
    eg_machine_step(r->m, &b, r->now);
    cr_assert_eq(second.code, EG_CODE_rate_limited);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_tick(r, 1);
    cr_assert_eq(mr_call(r, &second), EG_CODE_storage_unavailable);
    cr_assert_null(second.message);
    cr_assert_eq(second.retry_after_s, 0);
}

Test(calls, an_operator_speaks_in_its_own_name)
{
    struct eg_call k = {.kind = EG_CALL_MESSAGE,
                        .session_id = EG_LIT("s"),
                        .content = EG_LIT("1"),
                        .source = EG_LIT("operator:ops")};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert(mr_event(r, "\"source\":\"operator:ops\""));
    k.kind = EG_CALL_ABORT;
    k.turn = (int64_t)k.out_turn;
    k.reason = EG_LIT("enough");
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    cr_assert(mr_event(r, "\"reason\":\"enough\""));
}

Test(calls, an_identity_owns_its_lists)
{
    struct eg_identity who = {.sub = strdup("u"),
                              .agents = calloc(2, sizeof(char *)),
                              .sessions = calloc(2, sizeof(char *))};
    who.agents[0] = strdup("a");
    who.sessions[0] = strdup("s");
    eg_identity_free(&who);
    cr_assert(!who.sub && !who.agents && !who.sessions);
}

/* --- agents and batches that fail --- */

static bool known(const char *agent)
{
    struct eg_call k = {.kind = EG_CALL_AGENTS_INFO, .agent = eg_slice_cstr(agent)};
    cr_assert_eq(mr_call(r, &k), EG_CODE_NONE);
    const bool there = k.json.n > 2;
    eg_buf_free(&k.json);
    return there;
}

Test(calls, agents_of_a_reload_are_named_when_the_storage_works_again)
{
    struct eg_settings *s = eg_settings_copy(r->settings);
    free(s->agents); /* an empty list */
    s->agents = calloc(2, sizeof *s->agents);
    s->agents[0] = strdup("late");
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    eg_machine_settings(r->m, s);
    eg_settings_unref(s);
    mr_tick(r, 1);
    cr_assert(r->m->readonly);
    cr_assert_not(known("late"));
    eg_machine_resume(r->m);
    mr_tick(r, 1);
    cr_assert(known("late"));
    mr_restart(r);
    cr_assert(known("late"));
}

Test(calls, an_agent_made_and_removed_in_a_batch_that_fails_was_never_there)
{
    struct eg_call put = {.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("brief")};
    struct eg_call del = {.kind = EG_CALL_AGENT_DELETE, .agent = EG_LIT("brief")};
    struct eg_cmd a = {.kind = EG_CMD_CALL, .call = &put}, b = {.kind = EG_CMD_CALL, .call = &del};
    eg_machine_step(r->m, &a, r->now);
    eg_machine_step(r->m, &b, r->now);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_tick(r, 1);
    eg_machine_resume(r->m);
    cr_assert_not(known("brief"));
    mr_call(r, &put);
    mr_restart(r);
    cr_assert(known("brief"), "registered anew, and stored");
}

static enum eg_code remove_agent(void)
{
    struct eg_call k = {.kind = EG_CALL_AGENT_DELETE, .agent = EG_LIT("a")};
    return mr_call(r, &k);
}

/* A session of its own; that of up() ends, with its turns. */
static eg_conn_id only_client(void)
{
    struct eg_call close = {.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s")};
    cr_assert_eq(mr_call(r, &close), EG_CODE_NONE);
    return mr_client(r, "u", ",\"session_id\":\"t\",\"create\":true");
}

Test(calls, an_agent_is_not_kept_by_turns_that_have_ended)
{
    const eg_conn_id d = only_client();
    mr_frame(r, d, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, d, "{\"type\":\"message\",\"content\":2}");
    cr_assert_eq(remove_agent(), EG_CODE_conflict);
    mr_frame(r, d, "{\"type\":\"abort\"}");
    cr_assert_eq(remove_agent(), EG_CODE_conflict, "one still waits");
    mr_frame(r, d, "{\"type\":\"abort\"}");
    cr_assert_eq(remove_agent(), EG_CODE_NONE);
}

Test(calls, an_agent_is_kept_by_a_turn_that_is_tried_again_later)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    const eg_conn_id d = only_client();
    mr_frame(r, d, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, w, "{\"type\":\"fail\",\"session_id\":\"t\",\"turn\":1,\"error\":\"no\"}");
    mr_detach(r, w);
    cr_assert_eq(remove_agent(), EG_CODE_conflict);
    mr_restart(r);
    cr_assert_eq(remove_agent(), EG_CODE_conflict, "as at a restart");
    const eg_conn_id v = mr_worker(r, "a", "");
    mr_tick(r, r->settings->retry_backoff_ms);
    cr_assert(mr_text(r, v, "\"type\":\"turn\""), "and its place in the ring is kept");
}
