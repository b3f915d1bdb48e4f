/* Presence and typing: with the capability, to others, never stored. */
#include "pt.h"

PT_SUITE(presence);

#define CAP "\"capabilities\":[\"presence\"]"

PT_TEST(presence, join_update_leave)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", CAP);
    const char *sid = pt_sid(), *id = pt_f("%s", tl_str(pt_hello, "session_id"));
    struct tl_ws *plain = pt_client("echo", sid);
    struct tl_ws *b = pt_client("echo", pt_f("%s," CAP, sid));
    pt_send(b, "{\"type\":\"presence\",\"status\":\"online\",\"data\":{\"mood\":\"fine\"}}");
    const cJSON *o = pt_wait(a, "presence_join");
    if (!tl_has(o, "data.mood") && !tl_is(o, "status", "online")) /* joined by its hello already */
        o = pt_wait(a, "presence_update");
    pt_is(o, "session_id", id);
    cr_assert(strstr(tl_ws_data(a), "online") && strstr(tl_ws_data(a), "fine"), "%s", pt_text(o));
    pt_hasnt(o, "cursor");
    pt_send(b, "{\"type\":\"presence\",\"status\":\"away\"}");
    o = pt_wait(a, "presence_update");
    cr_assert(strstr(tl_ws_data(a), "away"), "%s", pt_text(o));
    pt_send(b, "{\"type\":\"leave\"}");
    o = pt_wait(a, "presence_leave");
    pt_is(o, "session_id", id);
    pt_quiet(plain); /* without the capability: nothing */
    pt_send(a, "{\"type\":\"ping\"}");
    pt_int(pt_wait(a, "pong"), "cursor", 0);
}

PT_TEST(presence, not_to_oneself_and_not_to_other_sessions)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", CAP);
    struct tl_ws *elsewhere = pt_client("echo", CAP);
    pt_send(a, "{\"type\":\"presence\",\"status\":\"online\"}");
    pt_send(a, "{\"type\":\"typing\"}");
    pt_quiet(a);
    pt_quiet(elsewhere);
}

PT_TEST(presence, typing)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", CAP);
    const char *sid = pt_sid();
    struct tl_ws *plain = pt_client("echo", sid);
    struct tl_ws *b = pt_client("echo", pt_f("%s," CAP, sid));
    pt_send(b, "{\"type\":\"typing\"}");
    const cJSON *o = pt_wait(a, "typing");
    pt_hasnt(o, "cursor");
    pt_quiet(plain);
    struct tl_ws *c = pt_client("echo", pt_f("%s,\"since\":0," CAP, sid));
    pt_wait(c, "replay_end");
    pt_send(c, "{\"type\":\"ping\"}");
    pt_int(pt_wait(c, "pong"), "cursor", 0);
}

PT_TEST(presence, a_vanished_client_leaves)
{
    pt_start("heartbeat_ms = 300;");
    struct tl_ws *a = pt_client("echo", CAP);
    struct tl_ws *b = pt_client("echo", pt_f("%s," CAP, pt_sid()));
    pt_send(b, "{\"type\":\"presence\",\"status\":\"online\"}");
    pt_wait(a, "presence_join");
    /* b stays connected and says nothing more. */
    tl_ws_auto_pong(b, false);
    pt_wait(a, "presence_leave");
}

PT_TEST(presence, arguments_are_checked)
{
    pt_start(NULL);
    struct tl_ws *a = pt_client("echo", CAP);
    pt_send(a, "{\"type\":\"presence\"}");
    pt_is(pt_error(a, "invalid_request"), "field", "status");
    pt_send(a, "{\"type\":\"presence\",\"status\":7}");
    pt_is(pt_error(a, "invalid_request"), "field", "status");
    pt_quiet(a);
}

PT_TEST(presence, is_for_clients_and_no_scope_would_change_that)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", CAP);
    static const char *const frames[] = {"{\"type\":\"presence\",\"status\":\"online\"}",
                                         "{\"type\":\"typing\"}"};
    for (int i = 0; i < 2; i++) {
        pt_send(w, "%s", frames[i]);
        const cJSON *o = pt_error(w, "invalid_request");
        pt_is(o, "field", "type");
        pt_is(o, "message", "only clients send this");
        pt_hasnt(o, "required_scope");
    }
}
