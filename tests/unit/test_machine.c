/*
 * test_machine.c - sessions and clients in the state machine: attach, resume, publish, abort,
 * presence, and what happens when the storage fails.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "machine_rig.h"

static struct machine_rig *r;

static void up(void)
{
    r = mr_new();
}

static void down(void)
{
    mr_free(r);
}

TestSuite(machine, .init = up, .fini = down);

static enum eg_code refused(eg_conn_id conn)
{
    const struct eg_out *o = mr_out(r, EG_OUT_REFUSE, conn, 0);
    return o ? o->code : EG_CODE_NONE;
}

Test(machine, a_new_session_starts_at_nothing)
{
    const struct eg_welcome *w = mr_welcome(r, mr_client(r, "u", ""));
    cr_assert(!w->resumed);
    cr_assert_eq(w->cursor, 0);
    cr_assert_eq(w->sequence, 0);
    cr_assert_eq(w->oldest, 1);
    cr_assert_eq(w->resync, EG_RESYNC_NONE);
    cr_assert(!w->replay);
}

Test(machine, who_may_enter)
{
    mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    cr_assert_eq(refused(mr_client(r, "v", ",\"session_id\":\"s\"")), EG_CODE_auth_unauthorized);
    cr_assert_eq(refused(mr_client(r, "u", ",\"session_id\":\"t\"")), EG_CODE_session_not_found);
    cr_assert(mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\""))->resumed);
    struct eg_call other = {.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("b")};
    mr_call(r, &other);
    cr_assert(other.created);
    /* Another agent's session, with the right owner. */
    struct eg_identity u = {.sub = (char[]){"u"}};
    struct eg_call create = {
        .kind = EG_CALL_CREATE, .agent = EG_LIT("b"), .session_id = EG_LIT("s"), .identity = &u};
    cr_assert_eq(mr_call(r, &create), EG_CODE_auth_unauthorized);
    create.agent = EG_LIT("c");
    cr_assert_eq(mr_call(r, &create), EG_CODE_agent_not_found);
}

Test(machine, positions_of_a_resume)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    for (int i = 0; i < 5; i++) {
        mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    }
    const struct eg_welcome *w =
        mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":2"));
    cr_assert(w->replay);
    cr_assert_eq(w->sequence, 2);
    cr_assert_eq(w->cursor, 5);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\""));
    cr_assert(!w->replay);
    cr_assert_eq(w->sequence, 5);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":6"));
    cr_assert_eq(w->resync, EG_RESYNC_AHEAD);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":5"));
    cr_assert_eq(w->resync, EG_RESYNC_NONE);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":5,\"epoch\":\"other\""));
    cr_assert_eq(w->resync, EG_RESYNC_EPOCH);
    w = mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":5,\"epoch\":\"epoch-1\""));
    cr_assert_eq(w->resync, EG_RESYNC_NONE);
}

Test(machine, acknowledged_cursors_are_remembered_and_only_rise)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    for (int i = 0; i < 3; i++) {
        mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    }
    mr_frame(r, c, "{\"type\":\"ack\",\"cursor\":2}");
    mr_frame(r, c, "{\"type\":\"ack\",\"cursor\":1}");
    mr_frame(r, c, "{\"type\":\"ack\",\"cursor\":4}");
    cr_assert(mr_text(r, c, "\"field\":\"cursor\""));
    mr_restart(r);
    const struct eg_welcome *w =
        mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":\"acked\""));
    cr_assert_eq(w->acked, 2);
    cr_assert_eq(w->sequence, 2);
    cr_assert(w->replay);
}

Test(machine, a_repeat_is_answered_with_the_first_cursor)
{
    const eg_conn_id c = mr_client(r, "u", "");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":{\"a\":[1,2]},\"message_id\":\"m\"}");
    cr_assert(mr_text(r, c, "\"duplicate\":false"));
    mr_frame(r, c, "{\"type\":\"message\",\"content\":{\"a\": [1, 2.0]},\"message_id\":\"m\"}");
    cr_assert_eq(mr_int(mr_text(r, c, "\"duplicate\":true"), "\"cursor\":"), 1);
    cr_assert_null(mr_event(r, ""));
    mr_frame(r, c, "{\"type\":\"message\",\"content\":3,\"message_id\":\"m\"}");
    cr_assert(mr_text(r, c, "id_conflict"));
    cr_assert(mr_text(r, c, "\"ref\":\"m\""));
}

Test(machine, an_id_is_of_one_sub)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"m\"}");
    struct eg_identity v = {.sub = (char[]){"v"}, .sessions = (char *[]){(char[]){"*"}, NULL}};
    struct eg_call say = {.kind = EG_CALL_MESSAGE,
                          .session_id = EG_LIT("s"),
                          .content = EG_LIT("2"),
                          .message_id = EG_LIT("m"),
                          .identity = &v};
    cr_assert_eq(mr_call(r, &say), EG_CODE_NONE);
    cr_assert_eq(say.out_cursor, 2);
    cr_assert(!say.duplicate);
}

Test(machine, others_see_the_event_the_sender_its_answer)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"hi\"}");
    const struct eg_out *o = mr_out(r, EG_OUT_EVENT, 0, 0);
    cr_assert(o);
    cr_assert_eq(o->except, c);
    cr_assert_eq(o->cursor, 1);
    cr_assert(mr_text(r, c, "\"accepted\""));
    cr_assert_null(mr_text(r, d, "\"accepted\""));
    cr_assert_eq(mr_out(r, EG_OUT_FRAME, c, 0)->cursor, 1);
}

Test(machine, limits_have_their_answers)
{
    r->settings->max_queued_turns = 2;
    r->settings->max_sessions_per_sub = 1;
    r->settings->message_rate_per_sub = 3;
    const eg_conn_id c = mr_client(r, "u", "");
    const eg_conn_id more = mr_client(r, "u", "");
    cr_assert_eq(refused(more), EG_CODE_rate_limited);
    cr_assert_not_null(mr_out(r, EG_OUT_REFUSE, more, 0)->message, "which of the rates it is");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    cr_assert(mr_text(r, c, "queue_full"));
    r->settings->max_queued_turns = 10;
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    cr_assert(mr_text(r, c, "rate_limited"));
    mr_tick(r, 1000);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    cr_assert_eq(mr_int(mr_text(r, c, "accepted"), "\"cursor\":"), 4);
}

Test(machine, time_never_goes_back_in_a_session)
{
    const eg_conn_id c = mr_client(r, "u", "");
    const eg_conn_id w = mr_worker(r, "a", "");
    (void)w;
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    const eg_conn_id d = mr_client(r, "u", "");
    (void)d;
    r->now.wall_ms -= 3600000;
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2}");
    cr_assert(mr_event(r, "\"timestamp\":1700000000.000"), "%s", mr_event(r, ""));
}

/* --- storage that fails --- */

Test(machine, a_full_disk_is_said_and_passes)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"m1\"}");
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2,\"message_id\":\"m2\"}");
    cr_assert(mr_text(r, c, "storage_unavailable"));
    cr_assert_null(mr_text(r, c, "accepted"));
    cr_assert_null(mr_event(r, ""));
    /* What needs no writing goes on: resume, and a repeat of what is stored. */
    cr_assert(mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"since\":0"))->replay);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1,\"message_id\":\"m1\"}");
    cr_assert(mr_text(r, c, "\"duplicate\":true"));
    cr_assert_eq(refused(mr_client(r, "u", "")), EG_CODE_storage_unavailable);
    eg_machine_resume(r->m);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2,\"message_id\":\"m2\"}");
    cr_assert_eq(mr_int(mr_text(r, c, "\"duplicate\":false"), "\"cursor\":"), 2);
}

Test(machine, what_cannot_be_noted_is_not_confirmed)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2}");
    mr_frame(r, c, "{\"type\":\"ack\",\"cursor\":1}");
    cr_assert(mr_text(r, c, "storage_unavailable"));
    struct eg_call act = {
        .kind = EG_CALL_AUDIT, .audit_who = EG_LIT("o"), .audit_action = EG_LIT("act")};
    cr_assert_eq(mr_call(r, &act), EG_CODE_storage_unavailable);
    cr_assert_eq(memstore_audits(r->storage, NULL), 0);
}

/* How far a lease was extended is not stored: the one at work is not the worse for that. */
Test(machine, a_turn_at_work_stays_there_when_a_batch_fails)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_worker(r, "a", "");
    mr_tick(r, r->settings->turn_lease_ms - 1);
    mr_frame(r, w, "{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":1}");
    mr_tick(r, r->settings->turn_lease_ms - 1);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2}");
    eg_machine_resume(r->m);
    mr_tick(r, 0);
    mr_frame(r, w, "{\"type\":\"final\",\"session_id\":\"s\",\"turn\":1,\"content\":\"done\"}");
    cr_assert(mr_event(r, "\"content\":\"done\""));
}

Test(machine, a_wait_is_no_longer_when_a_batch_fails_and_the_clock_went_back)
{
    const eg_conn_id w = mr_worker(r, "a", "");
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
    mr_frame(r, w, "{\"type\":\"fail\",\"session_id\":\"s\",\"turn\":1,\"error\":\"no\"}");
    r->now.wall_ms -= EG_HOUR_MS;
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frame(r, c, "{\"type\":\"message\",\"content\":2}");
    eg_machine_resume(r->m);
    mr_tick(r, r->settings->retry_backoff_ms);
    cr_assert(mr_text(r, w, "\"attempt\":2"));
}

Test(machine, a_session_of_a_failed_batch_never_was)
{
    memstore_fail_commits(r->storage, MEMSTORE_IO, 0, 1);
    cr_assert_eq(refused(mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true")),
                 EG_CODE_storage_unavailable);
    eg_machine_resume(r->m);
    cr_assert_eq(refused(mr_client(r, "u", ",\"session_id\":\"s\"")), EG_CODE_session_not_found);
    cr_assert(!mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true"))->resumed);
}

Test(machine, an_agent_of_a_failed_batch_is_not_known)
{
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    const eg_conn_id w = mr_worker(r, "new", "");
    cr_assert_eq(refused(w), EG_CODE_storage_unavailable);
    cr_assert(!eg_agent_find(r->m, EG_LIT("new")) ||
              !eg_agent_find(r->m, EG_LIT("new"))->registered);
    eg_machine_resume(r->m);
    cr_assert(mr_welcome(r, mr_worker(r, "new", ""))->worker);
    mr_restart(r);
    cr_assert(eg_agent_find(r->m, EG_LIT("new"))->registered);
}

Test(machine, memory_of_idle_sessions_is_bounded)
{
    char hello[80];
    r->settings->session_cache = 3;
    for (int i = 0; i < 10; i++) {
        snprintf(hello, sizeof hello, ",\"session_id\":\"s%d\",\"create\":true", i);
        const eg_conn_id c = mr_client(r, "u", hello);
        mr_frame(r, c, "{\"type\":\"message\",\"content\":1}");
        mr_detach(r, c);
    }
    cr_assert_eq(HASH_COUNT(r->m->sessions), 3);
    cr_assert_eq(mr_welcome(r, mr_client(r, "u", ",\"session_id\":\"s0\""))->cursor, 1);
    /* Its turn still waits: a worker gets all ten. */
    mr_worker(r, "a", ",\"concurrency\":100");
    int turns = 0;
    for (int i = 0; i < r->outs; i++) {
        turns +=
            r->out[i].kind == EG_OUT_FRAME && strstr(r->out[i].bytes->data, "\"turn\",") != NULL;
    }
    cr_assert_eq(turns, 10);
}

/* --- presence --- */

Test(machine, presence_is_told_to_others)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    mr_frame(r, c, "{\"type\":\"presence\",\"status\":\"here\",\"data\":{\"x\":1}}");
    const struct eg_out *o = mr_out(r, EG_OUT_NOTICE, 0, 0);
    cr_assert(o && strstr(o->bytes->data, "presence_join") && o->except == c);
    cr_assert_eq(o->caps, EG_CAP_PRESENCE);
    mr_frame(r, c, "{\"type\":\"presence\",\"status\":\"away\"}");
    cr_assert(strstr(mr_out(r, EG_OUT_NOTICE, 0, 0)->bytes->data, "presence_update"));
    mr_frame(r, d, "{\"type\":\"presence\",\"status\":\"here\"}");
    cr_assert(mr_text(r, d, "presence_join"), "a newcomer learns who is there");
    mr_frame(r, d, "{\"type\":\"typing\"}");
    cr_assert(strstr(mr_out(r, EG_OUT_NOTICE, 0, 0)->bytes->data, "\"typing\""));
    mr_detach(r, c);
    cr_assert(strstr(mr_out(r, EG_OUT_NOTICE, 0, 0)->bytes->data, "presence_leave"));
}

/* The notice that has part, or NULL. */
static const struct eg_out *noticed(const char *part)
{
    const struct eg_out *o = NULL;
    for (int i = 0; (o = mr_out(r, EG_OUT_NOTICE, 0, i)); i++) {
        if (strstr(o->bytes->data, part)) {
            break;
        }
    }
    return o;
}

Test(machine, who_comes_and_goes_is_told_also_when_the_batch_fails)
{
    static const char *const here[] = {"{\"type\":\"presence\",\"status\":\"here\"}",
                                       "{\"type\":\"message\",\"content\":1}"};
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    mr_frame(r, d, here[0]);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frames(r, c, here, 2);
    cr_assert_eq(r->failures, 1);
    cr_assert(noticed("presence_join"));
    cr_assert_null(noticed("presence_update"));
    cr_assert(mr_text(r, c, "presence_join"), "a newcomer learns who is there");
    eg_machine_resume(r->m);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    mr_frame_and_detach(r, d, here[1], c);
    cr_assert_eq(r->failures, 2);
    cr_assert(noticed("presence_leave"));
}

/* --- what the edge lets nobody do --- */

Test(machine, frames_of_the_other_role_are_refused)
{
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    const eg_conn_id w = mr_worker(r, "a", "");
    mr_frame(r, c, "{\"type\":\"extend\",\"session_id\":\"s\",\"turn\":1}");
    cr_assert(mr_text(r, c, "insufficient_scope"));
    mr_frame(r, w, "{\"type\":\"message\",\"content\":1}");
    cr_assert(mr_text(r, w, "insufficient_scope"));
    mr_frame(r, 77, "{\"type\":\"message\",\"content\":1}");
    mr_detach(r, 77);
    cr_assert_eq(r->outs, 0, "of a connection that is not there nothing is heard");
}

Test(machine, an_agent_that_was_removed_is_not_found)
{
    mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    struct eg_call gone = {.kind = EG_CALL_AGENT_DELETE, .agent = EG_LIT("a")};
    cr_assert_eq(mr_call(r, &gone), EG_CODE_NONE);
    cr_assert_eq(mr_call(r, &gone), EG_CODE_agent_not_found);
    cr_assert_eq(refused(mr_client(r, "u", "")), EG_CODE_agent_not_found);
    struct eg_identity u = {.sub = (char[]){"u"}};
    struct eg_call create = {.kind = EG_CALL_CREATE, .agent = EG_LIT("a"), .identity = &u};
    cr_assert_eq(mr_call(r, &create), EG_CODE_agent_not_found);
    /* Serving it brings it back, for good. */
    mr_worker(r, "a", "");
    cr_assert_eq(mr_call(r, &create), EG_CODE_NONE);
    mr_restart(r);
    cr_assert_eq(mr_call(r, &create), EG_CODE_NONE);
}

Test(machine, rates_of_a_sub)
{
    /* In bytes. */
    r->settings->byte_rate_per_sub = 10;
    const eg_conn_id c = mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"123456\"}");
    cr_assert(mr_text(r, c, "accepted"));
    mr_frame(r, c, "{\"type\":\"message\",\"content\":\"123456\"}");
    cr_assert(mr_text(r, c, "rate_limited"));
    /* They outlive the connection. */
    mr_detach(r, c);
    const eg_conn_id d = mr_client(r, "u", ",\"session_id\":\"s\"");
    mr_frame(r, d, "{\"type\":\"message\",\"content\":\"123456\"}");
    cr_assert(mr_text(r, d, "rate_limited"));
    mr_tick(r, 1000);
    mr_frame(r, d, "{\"type\":\"message\",\"content\":\"123456\"}");
    cr_assert(mr_text(r, d, "accepted"));
}

Test(machine, memory_of_subs_is_bounded)
{
    struct eg_identity who = {.sessions = (char *[]){(char[]){"*"}, NULL}};
    char sub[20];
    mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    struct eg_call end = {.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s")};
    cr_assert_eq(mr_call(r, &end), EG_CODE_NONE);
    for (int i = 0; i < 10050; i++) {
        snprintf(sub, sizeof sub, "sub%d", i);
        who.sub = sub;
        struct eg_call say = {.kind = EG_CALL_MESSAGE,
                              .session_id = EG_LIT("s"),
                              .content = EG_LIT("1"),
                              .identity = &who};
        cr_assert_eq(mr_call(r, &say), EG_CODE_session_closed);
    }
    cr_assert_leq(HASH_COUNT(r->m->subs), 10001);
    struct eg_sub *u = NULL;
    HASH_FIND(hh, r->m->subs, "u", 1, u);
    cr_assert(u, "the sub of a connection stays");
}

Test(machine, a_call_for_a_reactor_that_is_none)
{
    struct eg_call kick = {.kind = EG_CALL_KICK, .conn = UINT64_MAX};
    cr_assert_eq(mr_call(r, &kick), EG_CODE_NONE);
    cr_assert_eq(r->outs, 0);
}

Test(machine, entering_by_name)
{
    mr_client(r, "u", ",\"session_id\":\"s\",\"create\":true");
    struct eg_identity who = {.sub = (char[]){"v"},
                              .sessions = (char *[]){(char[]){"x"}, (char[]){"s"}, NULL}};
    struct eg_call say = {.kind = EG_CALL_MESSAGE,
                          .session_id = EG_LIT("s"),
                          .content = EG_LIT("1"),
                          .identity = &who};
    cr_assert_eq(mr_call(r, &say), EG_CODE_NONE);
    who.sessions[1] = NULL;
    cr_assert_eq(mr_call(r, &say), EG_CODE_auth_unauthorized);
    struct eg_call info = {
        .kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s"), .identity = &who};
    cr_assert_eq(mr_call(r, &info), EG_CODE_auth_unauthorized);
}

Test(machine, many_revocations_are_read_at_the_start)
{
    char what[20];
    for (int i = 0; i < 40; i++) {
        snprintf(what, sizeof what, "sub:%d", i);
        struct eg_call revoke = {
            .kind = EG_CALL_REVOKE, .text = eg_slice_cstr(what), .until_ms = r->now.wall_ms + 1};
        cr_assert_eq(mr_call(r, &revoke), EG_CODE_NONE);
    }
    eg_machine_free(r->m);
    r->storage = memstore_restart(r->storage);
    cr_assert_eq(eg_machine_new(r->storage, r->settings, 1, r->now, &r->m), EG_OK);
    cr_assert_eq(r->m->revoked_count, 40);
}

/* The edge hears of them once, after the first batch: what that was to write may fail. */
Test(machine, a_start_that_cannot_write_forgets_no_revocation)
{
    char *named[] = {(char[]){"named"}, NULL};
    struct eg_call revoke = {
        .kind = EG_CALL_REVOKE, .text = EG_LIT("sub:x"), .until_ms = r->now.wall_ms + 1};
    cr_assert_eq(mr_call(r, &revoke), EG_CODE_NONE);
    eg_machine_free(r->m);
    r->storage = memstore_restart(r->storage);
    char **const own = r->settings->agents;
    r->settings->agents = named;
    cr_assert_eq(eg_machine_new(r->storage, r->settings, 1, r->now, &r->m), EG_OK);
    memstore_fail_commits(r->storage, MEMSTORE_FULL, 0, 1);
    eg_machine_tick(r->m, r->now);
    cr_assert(eg_machine_flush(r->m));
    cr_assert_eq(r->storage->ops->commit(r->storage), EG_EFULL);
    eg_machine_rolled_back(r->m);
    cr_assert_eq(r->m->revoked_count, 1);
    cr_assert_str_eq(r->m->revoked[0].what, "sub:x");
    r->settings->agents = own;
}

/* Ids that fall into one bucket of a table that hashes as uthash does by itself. */
#define ALIKE 400
#define ALIKE_BITS 14

static void next_alike(unsigned *at, char id[16])
{
    unsigned hash;
    do {
        snprintf(id, 16, "id%u", (*at)++);
        HASH_JEN(id, strlen(id), hash);
    } while ((hash & ((1U << ALIKE_BITS) - 1)) != 0);
}

Test(machine, ids_cannot_be_chosen_to_fall_into_one_bucket)
{
    unsigned at = 0, most = 0;
    char id[16], more[64];
    for (int i = 0; i < ALIKE; i++) {
        next_alike(&at, id);
        snprintf(more, sizeof more, ",\"session_id\":\"%s\",\"create\":true", id);
        mr_detach(r, mr_client(r, "u", more));
    }
    const UT_hash_table *const table = r->m->sessions->hh.tbl;
    for (unsigned i = 0; i < table->num_buckets; i++) {
        most = table->buckets[i].count > most ? table->buckets[i].count : most;
    }
    cr_assert_lt(most, ALIKE / 4, "%u of %d in one", most, ALIKE);
    cr_assert_eq(table->noexpand, 0);
}
