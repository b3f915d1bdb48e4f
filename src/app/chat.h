/*
 * chat.h - private to src/app: `ebbgate chat`, a terminal client.
 *
 * One thread. Protocol state (chat_talk.c, chat_turns.c) and what is shown (chat_view.c) are apart:
 * every event passes chat_event exactly once, by its cursor, however often the connection breaks.
 */
#ifndef EG_APP_CHAT_H
#define EG_APP_CHAT_H

#include "app/gate.h"

/* A message that the gateway has not accepted yet. */
struct eg_unsent {
    struct eg_unsent *next;
    char id[37];
    struct eg_buf frame;
    bool sent;
};

/* A turn of ours: accepted, not ended. */
struct eg_own_turn {
    int64_t turn;
    char id[37];
    bool gone, kept; /* in the last snapshot: another message has its number; its end is there */
};

/* A frame kept for later. */
struct eg_kept {
    struct eg_kept *next;
    struct eg_bytes *text;
};

struct eg_view {
    bool json, colour;
    bool tty;              /* a person types and reads */
    bool screen;           /* stdout is a terminal: what others say is made harmless for it */
    bool at_start;         /* the output is at the start of a line */
    bool prompt;           /* the prompt is shown */
    int64_t turn;          /* whose text is being printed; 0 none */
    struct eg_buf printed; /* of that turn */
    const char *agent;
};

struct eg_chat {
    const struct eg_command *cmd;
    struct eg_gate gate;
    struct eg_wsc *wsc;
    struct eg_view view;
    const char *agent;
    char *session, *epoch;
    bool chosen; /* the session id was chosen by the user: make it if it is not there */
    bool once, raw;
    int64_t history; /* messages shown when a session is resumed */
    int64_t max_payload;

    bool ever, welcome; /* hello_ok: once; on this connection */
    bool caught_up;     /* replay is over: messages may be sent */
    int64_t cursor;     /* complete up to here */
    struct eg_unsent *first, **last;
    int64_t resend_ms; /* when refused messages are sent again; 0: at once */
    struct eg_own_turn *open_turns;
    int n_open, cap_open;

    int pages;                          /* history: pages asked for; 0: not loading */
    struct eg_kept *page_events, *live; /* newest page last; frames that came meanwhile */
    int found;

    struct eg_buf line; /* input */
    bool input_ended;
    int interrupts;
    bool leaving;
    int64_t leave_ms;
    int exit_code;
    bool done, failed; /* failed: a turn did not end well */
};

/* ---- chat_talk.c ---- */
void eg_chat_open(void *arg);
void eg_chat_text(void *arg, struct eg_slice text);
void eg_chat_lost(void *arg, const struct eg_wsc_end *end);
/* Queues a message; sends it when it can be. */
void eg_chat_publish(struct eg_chat *c, struct eg_slice text);
/* Sends what waits, if it may. */
void eg_chat_send(struct eg_chat *c);
void eg_chat_abort(struct eg_chat *c);
void eg_chat_leave(struct eg_chat *c);
/* Whether anything of ours is under way. */
bool eg_chat_busy(const struct eg_chat *c);
void eg_chat_free(struct eg_chat *c);

/* ---- chat_turns.c ---- */
void eg_turn_opened(struct eg_chat *c, int64_t turn, const char *id);
/* True when the turn was one of ours. */
bool eg_turn_ended(struct eg_chat *c, int64_t turn);
/* After a gap: gives up the turns whose answers can no longer come. The messages and the head are
 * the snapshot's. */
void eg_turns_check(struct eg_chat *c, struct eg_slice messages, int64_t head, bool same_epoch);

/* ---- chat_view.c ---- */
/* Shows an event. mine: a message that this process sent. */
void eg_view_event(struct eg_view *v, const struct eg_json_doc *doc, struct eg_slice text,
                   bool mine);
/* What was streamed of this turn so far is no part of its answer: the attempt failed. */
void eg_view_failed(struct eg_view *v, int64_t turn);
/* A remark for people, on stderr. */
void eg_view_note(struct eg_view *v, const char *fmt, ...) EG_PRINTF(2, 3);
void eg_view_prompt(struct eg_view *v);
void eg_view_json(struct eg_view *v, struct eg_slice text);
void eg_view_free(struct eg_view *v);

#endif
