/*
 * chat_turns.c - our turns in `ebbgate chat`: accepted, not ended. See chat.h.
 *
 * Nobody waits for ever: after a gap a snapshot says which answers went with the log.
 */
#include <stdlib.h>
#include <string.h>

#include "app/chat.h"
#include "app/table.h"

static struct eg_own_turn *find(const struct eg_chat *c, int64_t turn)
{
    for (int i = 0; i < c->n_open; i++) {
        if (c->open_turns[i].turn == turn)
            return &c->open_turns[i];
    }
    return NULL;
}

void eg_turn_opened(struct eg_chat *c, int64_t turn, const char *id)
{
    if (find(c, turn))
        return;
    if (c->n_open == c->cap_open) {
        int cap = c->cap_open ? c->cap_open * 2 : 16;
        struct eg_own_turn *grown = realloc(c->open_turns, (size_t)cap * sizeof *grown);
        if (!grown)
            return;
        c->open_turns = grown;
        c->cap_open = cap;
    }
    struct eg_own_turn *own = &c->open_turns[c->n_open++];
    *own = (struct eg_own_turn){.turn = turn};
    memcpy(own->id, id, strlen(id) + 1);
}

bool eg_turn_ended(struct eg_chat *c, int64_t turn)
{
    struct eg_own_turn *own = find(c, turn);
    if (!own)
        return false;
    *own = c->open_turns[--c->n_open];
    if (c->n_open == 0)
        c->interrupts = 0;
    return true;
}

/* ---- after a gap ---- */

struct check {
    struct eg_chat *c;
    int64_t last_end; /* the highest turn that was not aborted and ended */
};

static void check_message(struct check *k, const struct eg_json_doc *doc)
{
    struct eg_json_doc data;
    struct eg_own_turn *own = find(k->c, eg_field_int_or(doc, "cursor", 0));
    if (own)
        own->gone =
            !eg_field_object(doc, "data", &data) || !eg_field_is(&data, "message_id", own->id);
}

static void check_end(struct check *k, const struct eg_json_doc *doc)
{
    struct eg_json_doc outcome;
    int64_t turn = eg_field_int_or(doc, "turn", 0);
    struct eg_own_turn *own = find(k->c, turn);
    if (own)
        own->kept = true;
    if (turn > k->last_end &&
        !(eg_field_object(doc, "outcome", &outcome) && eg_field_is(&outcome, "status", "aborted")))
        k->last_end = turn;
}

static void check_event(void *arg, struct eg_slice text)
{
    struct eg_json_doc doc;
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return;
    if (eg_field_is(&doc, "type", "message"))
        check_message(arg, &doc);
    else if (eg_field_is(&doc, "type", "response"))
        check_end(arg, &doc);
}

/* Turns of a session end in order, unless one is aborted: a later end says that this one has ended,
 * too. */
void eg_turns_check(struct eg_chat *c, struct eg_slice messages, int64_t head, bool same_epoch)
{
    struct check k = {.c = c};
    int lost = 0;
    for (int i = 0; i < c->n_open; i++) {
        /* where the snapshot does not show the message, only the same log has it */
        c->open_turns[i].gone = !same_epoch;
        c->open_turns[i].kept = false;
    }
    eg_each_element(messages, check_event, &k);
    for (int i = c->n_open - 1; i >= 0; i--) { /* the last one takes the place of one that ended */
        const struct eg_own_turn own = c->open_turns[i];
        if (own.gone || (!own.kept && (head < own.turn || k.last_end > own.turn))) {
            eg_view_failed(&c->view, own.turn);
            eg_turn_ended(c, own.turn);
            lost++;
        }
    }
    if (lost == 0)
        return;
    c->failed = true;
    eg_view_note(&c->view,
                 "%s lost: the log is another one or was trimmed, and %s not in what is left of it",
                 lost == 1 ? "the answer is" : "answers are", lost == 1 ? "it is" : "they are");
}
