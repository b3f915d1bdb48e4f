/*
 * chat_talk.c - the protocol side of `ebbgate chat`. See chat.h.
 *
 * Nothing is lost and nothing shown twice: a message keeps its message_id until it is accepted and
 * is sent again after each break; events are taken by cursor, and a resume asks for what comes
 * after the last one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/chat.h"
#include "app/table.h"
#include "app/text.h"
#include "base/clock.h"

#define PAGES_MAX 8

/* ---- sending ---- */

static void send_buf(struct eg_chat *c, struct eg_buf *b)
{
    if (b->err == EG_OK)
        eg_wsc_send(c->wsc, (struct eg_slice){b->p, b->n});
    eg_buf_free(b);
}

void eg_chat_open(void *arg)
{
    struct eg_chat *c = arg;
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"hello\",\"protocol_min\":1,\"protocol_max\":1,"
                   "\"capabilities\":[\"streaming\",\"ack\"");
    eg_buf_str(&b, c->raw ? ",\"raw\"]" : "]");
    eg_json_kcstr(&b, "agent_id", c->agent);
    if (c->session)
        eg_json_kcstr(&b, "session_id", c->session);
    if (c->ever) {
        eg_json_kint(&b, "since", c->cursor);
        if (c->epoch)
            eg_json_kcstr(&b, "epoch", c->epoch);
    } else if (c->chosen) {
        eg_json_kbool(&b, "create", true);
    }
    eg_buf_str(&b, ",\"client\":{\"name\":\"ebbgate-chat\",\"version\":\"" EG_VERSION "\"}}");
    send_buf(c, &b);
}

void eg_chat_send(struct eg_chat *c)
{
    if (c->resend_ms != 0 && eg_clock_mono_ms() >= c->resend_ms)
        c->resend_ms = 0;
    for (struct eg_unsent *u = c->first; u && c->caught_up && c->resend_ms == 0; u = u->next) {
        if (!u->sent)
            eg_wsc_send(c->wsc, (struct eg_slice){u->frame.p, u->frame.n});
        u->sent = true;
    }
}

static void note_too_long(struct eg_chat *c)
{
    eg_view_note(&c->view, "the message is too long for this gateway and was not sent");
    c->failed = true;
}

void eg_chat_publish(struct eg_chat *c, struct eg_slice text)
{
    struct eg_buf clean = {0};
    struct eg_unsent *u = calloc(1, sizeof *u);
    if (!u) {
        eg_complain(c->cmd, "out of memory");
        return;
    }
    eg_uuid7(eg_clock_now().wall_ms, u->id);
    eg_text_clean(&clean, text.p, text.n, true);
    eg_buf_str(&u->frame, "{\"type\":\"message\"");
    eg_json_kcstr(&u->frame, "message_id", u->id);
    eg_json_kstr(&u->frame, "content", (struct eg_slice){clean.p, clean.n});
    eg_buf_char(&u->frame, '}');
    eg_buf_free(&clean);
    if (u->frame.err != EG_OK || (int64_t)u->frame.n > c->max_payload) {
        note_too_long(c);
        eg_buf_free(&u->frame);
        free(u);
        return;
    }
    *c->last = u;
    c->last = &u->next;
    eg_chat_send(c);
}

void eg_chat_abort(struct eg_chat *c)
{
    eg_wsc_send(c->wsc, EG_LIT("{\"type\":\"abort\",\"reason\":\"interrupted\"}"));
}

void eg_chat_leave(struct eg_chat *c)
{
    if (c->leaving)
        return;
    c->leaving = true;
    c->leave_ms = eg_clock_mono_ms();
    if (c->welcome && eg_wsc_is_open(c->wsc))
        eg_wsc_send(c->wsc, EG_LIT("{\"type\":\"leave\"}"));
    else
        c->done = true;
}

bool eg_chat_busy(const struct eg_chat *c)
{
    return c->first || c->n_open > 0;
}

/* Forgets the message id; true when it was one of ours. */
static bool accepted(struct eg_chat *c, const char *id)
{
    for (struct eg_unsent **p = &c->first; id && *p; p = &(*p)->next) {
        struct eg_unsent *u = *p;
        if (strcmp(u->id, id) != 0)
            continue;
        *p = u->next;
        if (c->last == &u->next)
            c->last = p;
        eg_buf_free(&u->frame);
        free(u);
        return true;
    }
    return false;
}

/* ---- events ---- */

/* A message event of our own that we see in a replay counts as accepted. */
static bool own_message(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct eg_json_doc data;
    if (!eg_field_is(doc, "type", "message") || !eg_field_object(doc, "data", &data))
        return false;
    char *id = eg_field_text(&data, "message_id");
    bool mine = accepted(c, id);
    if (mine)
        eg_turn_opened(c, eg_field_int_or(doc, "turn", eg_field_int_or(doc, "cursor", 0)), id);
    free(id);
    return mine;
}

/* The end of a turn; true when it was one of ours. */
static bool own_end(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct eg_json_doc outcome;
    if (!eg_field_is(doc, "type", "response") || !eg_field_is(doc, "status", "final") ||
        !eg_turn_ended(c, eg_field_int_or(doc, "turn", 0)))
        return false;
    if (eg_field_object(doc, "outcome", &outcome) && !eg_field_is(&outcome, "status", "ok"))
        c->failed = true;
    return true;
}

/* One event, live, from a replay or a snapshot: each passes here once. */
static void take_event(struct eg_chat *c, const struct eg_json_doc *doc, struct eg_slice text,
                       bool only_ends)
{
    int64_t cursor = 0;
    if (eg_field_int(doc, "cursor", &cursor)) {
        if (cursor <= c->cursor)
            return;
        c->cursor = cursor;
    }
    bool mine = own_message(c, doc), ended = own_end(c, doc);
    if (ended || !only_ends)
        eg_view_event(&c->view, doc, text, mine);
}

static void take_accepted(struct eg_chat *c, const struct eg_json_doc *doc, struct eg_slice text)
{
    int64_t cursor = 0;
    char *id = eg_field_text(doc, "message_id");
    bool mine = accepted(c, id);
    if (mine && eg_field_int(doc, "cursor", &cursor)) {
        if (cursor > c->cursor) {
            c->cursor = cursor;
            eg_turn_opened(c, eg_field_int_or(doc, "turn", cursor), id);
        } else { /* taken before the connection broke, and then a gap whose snapshot has no room */
            c->failed = true;
            eg_view_note(&c->view, "the answer is not known: the message was taken before the gap "
                                   "in the log");
        }
        if (c->view.json)
            eg_view_json(&c->view, text);
    }
    free(id);
}

static void take_replay(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct eg_json_doc wrapped, event;
    if (!eg_field_object(doc, "event", &wrapped))
        return;
    struct eg_slice text = eg_field_raw(&wrapped, "data");
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &event) == EG_OK)
        take_event(c, &event, text, false);
}

/* ---- history ---- */

static void keep(struct eg_kept **list, struct eg_slice text, bool in_front)
{
    struct eg_kept *k = calloc(1, sizeof *k);
    if (!k || !(k->text = eg_bytes_copy(text.p, text.n))) {
        free(k);
        return;
    }
    while (!in_front && *list)
        list = &(*list)->next;
    k->next = *list;
    *list = k;
}

static void kept_free(struct eg_kept **list)
{
    while (*list) {
        struct eg_kept *k = *list;
        *list = k->next;
        eg_bytes_unref(k->text);
        free(k);
    }
}

static void ask_history(struct eg_chat *c, int64_t before)
{
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"history\",\"limit\":500");
    eg_json_kint(&b, "before", before);
    eg_buf_char(&b, '}');
    send_buf(c, &b);
    c->pages++;
}

struct page {
    struct eg_chat *c;
    struct eg_kept *events;
};

static void page_event(void *arg, struct eg_slice text)
{
    struct page *p = arg;
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return;
    p->c->found += eg_field_is(&doc, "type", "message");
    keep(&p->events, text, true); /* newest first for now */
}

static bool has_final(const struct eg_kept *k, int64_t turn)
{
    struct eg_json_doc doc;
    for (; k; k = k->next) {
        if (eg_json_scan(eg_bytes_slice(k->text), EG_JSON_DEPTH_MAX, &doc) == EG_OK &&
            eg_field_is(&doc, "type", "response") && eg_field_int_or(&doc, "turn", 0) == turn)
            return true;
    }
    return false;
}

/* Shows the last messages with their answers; streamed text only where no answer is there yet. */
static void show_history(struct eg_chat *c)
{
    int64_t skip = c->found - c->history;
    for (struct eg_kept *k = c->page_events; k; k = k->next) {
        struct eg_json_doc doc;
        if (eg_json_scan(eg_bytes_slice(k->text), EG_JSON_DEPTH_MAX, &doc) != EG_OK)
            continue;
        bool message = eg_field_is(&doc, "type", "message");
        if (message)
            skip--;
        if (skip >= 0)
            continue;
        bool stream = !message && !eg_field_is(&doc, "type", "response");
        if (!stream || !has_final(k->next, eg_field_int_or(&doc, "turn", 0)))
            eg_view_event(&c->view, &doc, eg_bytes_slice(k->text), false);
    }
    kept_free(&c->page_events);
}

static void end_history(struct eg_chat *c)
{
    c->pages = 0;
    show_history(c);
    while (c->live) {
        struct eg_kept *k = c->live;
        c->live = k->next;
        eg_chat_text(c, eg_bytes_slice(k->text));
        eg_bytes_unref(k->text);
        free(k);
    }
    c->caught_up = true;
    eg_chat_send(c);
}

static void take_history(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct page p = {c, NULL};
    struct eg_json_doc oldest;
    int64_t first = 0;
    eg_each_element(eg_field_raw(doc, "events"), page_event, &p);
    while (p.events) { /* newest first: each goes in front of what is there */
        struct eg_kept *k = p.events;
        p.events = k->next;
        k->next = c->page_events;
        c->page_events = k;
    }
    if (c->page_events &&
        eg_json_scan(eg_bytes_slice(c->page_events->text), EG_JSON_DEPTH_MAX, &oldest) == EG_OK)
        first = eg_field_int_or(&oldest, "cursor", 0);
    if (c->found < c->history && c->pages < PAGES_MAX &&
        first > eg_field_int_or(doc, "oldest_cursor", 1))
        ask_history(c, first);
    else
        end_history(c);
}

/* ---- the handshake ---- */

static void replace(char **to, char *take)
{
    if (!take)
        return;
    free(*to);
    *to = take;
}

static void first_welcome(struct eg_chat *c, const struct eg_json_doc *doc)
{
    bool resumed = eg_field_true(doc, "resumed");
    c->ever = true;
    c->cursor = eg_field_int_or(doc, "cursor", 0);
    c->view.at_start = true;
    if (c->view.tty)
        eg_view_note(&c->view, "%s session %s with %s; Ctrl-D leaves", resumed ? "resumed" : "new",
                     c->session, c->agent);
    if (resumed && c->history > 0 && c->cursor > 0) {
        c->caught_up = false;
        ask_history(c, c->cursor + 1);
    } else {
        c->caught_up = true;
    }
}

/* Messages from before the gateway told its limit: it would close the connection on each. */
static void refuse_too_long(struct eg_chat *c)
{
    for (struct eg_unsent *u = c->first, *next; u; u = next) {
        next = u->next;
        if ((int64_t)u->frame.n > c->max_payload && accepted(c, u->id))
            note_too_long(c);
    }
}

static void take_welcome(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct eg_json_doc policy;
    int64_t heartbeat_ms = 15000;
    bool again = c->ever, gap = again && eg_field_true(doc, "resync_required");
    if (eg_field_object(doc, "policy", &policy)) {
        heartbeat_ms = eg_field_int_or(&policy, "heartbeat_ms", heartbeat_ms);
        c->max_payload = eg_field_int_or(&policy, "max_payload", c->max_payload);
    }
    eg_wsc_settled(c->wsc, heartbeat_ms);
    c->welcome = true;
    c->resend_ms = 0;
    replace(&c->session, eg_field_text(doc, "session_id"));
    if (!gap) /* the cursor is still one of the log before */
        replace(&c->epoch, eg_field_text(doc, "epoch"));
    refuse_too_long(c);
    for (struct eg_unsent *u = c->first; u; u = u->next)
        u->sent = false;
    if (!again)
        first_welcome(c, doc);
    else if (c->view.tty)
        eg_view_note(&c->view, "connected again");
    if (gap) {
        char *why = eg_field_text(doc, "resync_reason");
        bool trimmed = why && strcmp(why, "trimmed") == 0;
        eg_view_note(&c->view, "the log %s: %s", trimmed ? "has a gap here" : "is another one now",
                     why ? why : "unknown");
        free(why);
    }
    eg_chat_send(c);
}

struct snapshot {
    struct eg_chat *c;
    bool only_ends;
};

static void snapshot_event(void *arg, struct eg_slice text)
{
    struct snapshot *s = arg;
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) == EG_OK)
        take_event(s->c, &doc, text, s->only_ends);
}

/* Cursors of another log begin anew, and what it has was shown, for the most part, before it became
 * another one: that is only for people, and for programs that follow all events. */
static void take_snapshot(struct eg_chat *c, const struct eg_json_doc *doc)
{
    struct eg_json_doc state;
    struct snapshot s = {.c = c};
    if (!eg_field_object(doc, "state", &state))
        return;
    struct eg_slice messages = eg_field_raw(&state, "messages");
    char *epoch = eg_field_text(&state, "epoch");
    int64_t head = eg_field_int_or(&state, "event_cursor", c->cursor);
    bool same_epoch = !epoch || !c->epoch || strcmp(epoch, c->epoch) == 0;
    replace(&c->epoch, epoch);
    eg_turns_check(c, messages, head, same_epoch);
    if (!same_epoch || head < c->cursor) {
        s.only_ends = c->once || (!c->view.tty && !c->view.json);
        c->cursor = 0;
    }
    eg_each_element(messages, snapshot_event, &s);
    c->cursor = head;
    c->caught_up = true;
    eg_chat_send(c);
}

static void take_error(struct eg_chat *c, const struct eg_json_doc *doc)
{
    char *ref = eg_field_text(doc, "ref"), *message = eg_field_text(doc, "message");
    if (!c->welcome) {
        eg_gate_note(&c->gate, doc);
    } else if (eg_field_is(doc, "code", "storage_unavailable") ||
               eg_field_is(doc, "code", "rate_limited") || eg_field_is(doc, "code", "queue_full") ||
               eg_field_is(doc, "code", "internal")) {
        int64_t seconds = eg_field_int_or(doc, "retry_after_seconds", 1);
        eg_view_note(&c->view, "%s; trying again", message ? message : "not now");
        for (struct eg_unsent *u = c->first; u; u = u->next)
            u->sent = false; /* repeated in order; their ids make that harmless */
        c->resend_ms = eg_clock_mono_ms() + (seconds > 0 && seconds < 3600 ? seconds * 1000 : 1000);
    } else {
        eg_view_note(&c->view, "refused: %s", message ? message : "?");
        if (accepted(c, ref))
            c->failed = true;
    }
    free(ref);
    free(message);
}

static void renew(struct eg_chat *c)
{
    struct eg_buf b = {0};
    if (eg_gate_renew(&c->gate, &b)) {
        eg_wsc_send(c->wsc, (struct eg_slice){b.p, b.n});
        (void)eg_wsc_token(c->wsc, c->gate.token.p);
    } else {
        eg_view_note(&c->view, "the token expires in half a minute");
    }
    eg_buf_free(&b);
}

/* Frames that are no events of the session. True when doc was one. */
static bool take_control(struct eg_chat *c, const struct eg_json_doc *doc, struct eg_slice text)
{
    if (eg_field_is(doc, "type", "hello_ok")) {
        take_welcome(c, doc);
    } else if (eg_field_is(doc, "type", "hello_error")) {
        eg_gate_note(&c->gate, doc);
    } else if (eg_field_is(doc, "type", "error")) {
        take_error(c, doc);
    } else if (eg_field_is(doc, "type", "ping")) {
        eg_wsc_send(c->wsc, EG_LIT("{\"type\":\"pong\"}"));
    } else if (eg_field_is(doc, "type", "history")) {
        take_history(c, doc);
    } else if (eg_field_is(doc, "type", "replay_end")) {
        c->caught_up = true;
        eg_chat_send(c);
    } else if (eg_field_is(doc, "type", "snapshot")) {
        take_snapshot(c, doc);
    } else if (eg_field_is(doc, "type", "reconnect")) {
        eg_wsc_retry_after(c->wsc, eg_field_int_or(doc, "retry_after_ms", 1000));
    } else if (eg_field_is(doc, "type", "token_expiring")) {
        renew(c);
    } else if (eg_field_is(doc, "type", "message_nack")) {
        char *why = eg_field_text(doc, "error");
        eg_view_failed(&c->view, eg_field_int_or(doc, "turn", 0));
        eg_view_note(&c->view, "attempt %lld failed%s%s",
                     (long long)eg_field_int_or(doc, "attempt", 1), why ? ": " : "",
                     why ? why : "");
        free(why);
    } else if (eg_field_is(doc, "type", "left")) {
        c->done = true;
    } else if (eg_field_is(doc, "type", "no_active_turn")) {
        c->interrupts = 0;
    } else if (eg_field_is(doc, "type", "response") && eg_field_is(doc, "status", "accepted")) {
        take_accepted(c, doc, text);
    } else {
        static const char *const quiet[] = {
            "auth_ok", "aborted",       "message_ack",     "delivery_retry", "pong",
            "typing",  "presence_join", "presence_update", "presence_leave"};
        for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
            if (eg_field_is(doc, "type", quiet[i]))
                return true;
        }
        return false;
    }
    return true;
}

void eg_chat_text(void *arg, struct eg_slice text)
{
    struct eg_chat *c = arg;
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX + 4, &doc) != EG_OK || doc.kind != EG_JSON_OBJECT)
        return;
    if (eg_field_is(&doc, "type", "replay")) {
        take_replay(c, &doc);
    } else if (c->pages > 0 && eg_json_get(&doc, "cursor") &&
               !eg_field_is(&doc, "type", "history")) {
        keep(&c->live, text, false); /* what is older comes first */
    } else if (!take_control(c, &doc, text)) {
        take_event(c, &doc, text, false);
        if (eg_field_is(&doc, "type", "session_end")) {
            c->exit_code = EG_EXIT_FAILED;
            c->done = true;
        }
    }
}

void eg_chat_lost(void *arg, const struct eg_wsc_end *end)
{
    struct eg_chat *c = arg;
    bool was = c->welcome;
    c->welcome = c->caught_up = false;
    c->pages = 0;
    c->found = 0;
    kept_free(&c->page_events);
    kept_free(&c->live);
    if (c->done || c->leaving) {
        c->done = true;
        return;
    }
    int code = eg_gate_lost(&c->gate, c->wsc, end, c->ever);
    if (code != EG_PROCEED) {
        c->exit_code = code;
        c->done = true;
    } else if (was && c->view.tty) {
        eg_view_note(&c->view, "connection lost%s%s; coming back", *end->reason ? ": " : "",
                     end->reason);
    }
}

void eg_chat_free(struct eg_chat *c)
{
    while (c->first) {
        struct eg_unsent *u = c->first;
        c->first = u->next;
        eg_buf_free(&u->frame);
        free(u);
    }
    kept_free(&c->page_events);
    kept_free(&c->live);
    eg_buf_free(&c->line);
    eg_view_free(&c->view);
    eg_wsc_free(c->wsc);
    eg_gate_free(&c->gate);
    free(c->open_turns);
    free(c->session);
    free(c->epoch);
}
