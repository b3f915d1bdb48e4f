/*
 * agent_task.c - tasks, and the frames that wait for their answers. See agent.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/agent.h"
#include "base/clock.h"

struct eg_task *eg_task_find(struct eg_agent *a, const char *session, int64_t turn)
{
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->turn == turn && j->state != EG_TASK_DROPPED && strcmp(j->session, session) == 0)
            return j;
    }
    return NULL;
}

struct eg_task *eg_task_new(struct eg_agent *a, const char *session, int64_t turn,
                            const char *message)
{
    struct eg_task *j = calloc(1, sizeof *j);
    struct eg_task **end = &a->tasks;
    if (!j)
        return NULL;
    j->turn = turn;
    j->last = &j->first;
    j->proc.in = j->proc.out = j->proc.err = -1;
    j->session = strdup(session);
    j->message = strdup(message);
    if (!j->session || !j->message) {
        eg_task_free(j);
        return NULL;
    }
    while (*end)
        end = &(*end)->next;
    *end = j;
    return j;
}

void eg_task_name(const struct eg_task *j, struct eg_buf *b)
{
    eg_json_kcstr(b, "session_id", j->session);
    eg_json_kint(b, "turn", j->turn);
    if (j->epoch)
        eg_json_kcstr(b, "epoch", j->epoch);
}

int eg_tasks_working(const struct eg_agent *a)
{
    int n = 0;
    for (const struct eg_task *j = a->tasks; j; j = j->next)
        n += j->state == EG_TASK_WORKING || j->proc.pid != 0;
    return n;
}

static void said_free(struct eg_said *s)
{
    free(s->event_id);
    eg_buf_free(&s->text);
    free(s);
}

static void forget_all(struct eg_said **first, struct eg_said ***last)
{
    while (*first) {
        struct eg_said *s = *first;
        *first = s->next;
        said_free(s);
    }
    *last = first;
}

void eg_task_free(struct eg_task *j)
{
    forget_all(&j->first, &j->last);
    eg_proc_free(&j->proc);
    eg_buf_free(&j->fail);
    eg_buf_free(&j->frame);
    eg_buf_free(&j->answer);
    eg_buf_free(&j->carry);
    free(j->session);
    free(j->message);
    free(j->epoch);
    free(j);
}

void eg_tasks_sweep(struct eg_agent *a)
{
    for (struct eg_task **p = &a->tasks; *p;) {
        struct eg_task *j = *p;
        if (j->over && j->proc.pid == 0) {
            *p = j->next;
            eg_task_free(j);
        } else {
            p = &j->next;
        }
    }
}

/* Whether frames of j (NULL: of no task) may be sent now. */
static bool may_speak(const struct eg_agent *a, const struct eg_task *j)
{
    return a->welcome && eg_wsc_is_open(a->wsc) && (!j || j->attached) && a->resend_ms == 0;
}

static void send(struct eg_agent *a, struct eg_task *j, struct eg_said *s)
{
    eg_wsc_send(a->wsc, (struct eg_slice){s->text.p, s->text.n});
    s->sent = true;
    if (j)
        j->spoke_ms = eg_clock_mono_ms();
}

void eg_say(struct eg_agent *a, struct eg_task *j, struct eg_buf *take_text, char *take_event_id,
            bool ends)
{
    struct eg_said *s = calloc(1, sizeof *s);
    if (!s || !take_event_id || take_text->err != EG_OK || (j && j->state == EG_TASK_DROPPED)) {
        if (!s || !take_event_id || take_text->err != EG_OK)
            eg_complain(a->cmd, "out of memory: some output is lost");
        eg_buf_free(take_text);
        free(take_event_id);
        free(s);
        return;
    }
    s->text = *take_text;
    s->event_id = take_event_id;
    s->ends = ends;
    memset(take_text, 0, sizeof *take_text);
    struct eg_said ***last = j ? &j->last : &a->last;
    **last = s;
    *last = &s->next;
    if (j) {
        j->pending++;
        j->pending_bytes += s->text.n;
        if (ends)
            j->state = EG_TASK_ENDING;
    }
    if (may_speak(a, j))
        send(a, j, s);
}

void eg_say_again(struct eg_agent *a, struct eg_task *j)
{
    if (!may_speak(a, j))
        return;
    for (struct eg_said *s = j ? j->first : a->first; s; s = s->next) {
        if (!s->sent)
            send(a, j, s);
    }
    if (j && j->fail.n) {
        eg_wsc_send(a->wsc, (struct eg_slice){j->fail.p, j->fail.n});
        eg_buf_reset(&j->fail);
        eg_task_drop(a, j);
    }
}

void eg_tasks_detach(struct eg_agent *a)
{
    int64_t now = eg_clock_mono_ms();
    for (struct eg_said *s = a->first; s; s = s->next)
        s->sent = false;
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->attached)
            j->unwanted_ms = now;
        j->attached = false;
        for (struct eg_said *s = j->first; s; s = s->next)
            s->sent = false;
    }
}

/* The frame with event_id, and whose it is. NULL: not ours (any more). */
static struct eg_said *find_said(struct eg_agent *a, const char *event_id, struct eg_task **task)
{
    *task = NULL;
    for (struct eg_said *s = a->first; s; s = s->next) {
        if (strcmp(s->event_id, event_id) == 0)
            return s;
    }
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        for (struct eg_said *s = j->first; s; s = s->next) {
            if (strcmp(s->event_id, event_id) == 0) {
                *task = j;
                return s;
            }
        }
    }
    return NULL;
}

static void forget(struct eg_agent *a, struct eg_task *j, struct eg_said *gone)
{
    struct eg_said **p = j ? &j->first : &a->first;
    while (*p != gone)
        p = &(*p)->next;
    *p = gone->next;
    if (j) {
        j->pending--;
        j->pending_bytes -= gone->text.n;
        if (j->last == &gone->next)
            j->last = p;
    } else if (a->last == &gone->next) {
        a->last = p;
    }
    said_free(gone);
}

void eg_task_answered(struct eg_agent *a, const char *event_id)
{
    struct eg_task *j;
    struct eg_said *s = find_said(a, event_id, &j);
    if (!s)
        return;
    bool ends = s->ends;
    forget(a, j, s);
    if (j && ends)
        j->over = true;
}

void eg_task_refused(struct eg_agent *a, const char *event_id, const struct eg_json_doc *doc)
{
    struct eg_task *j;
    struct eg_said *s = find_said(a, event_id, &j);
    if (!s)
        return;
    if (eg_field_is(doc, "code", "turn_closed")) {
        if (j)
            eg_task_drop(a, j);
        else
            forget(a, j, s);
        return;
    }
    if (eg_field_is(doc, "code", "storage_unavailable") || eg_field_is(doc, "code", "queue_full") ||
        eg_field_is(doc, "code", "rate_limited") || eg_field_is(doc, "code", "internal")) {
        int64_t seconds = eg_field_int_or(doc, "retry_after_seconds", 1);
        s->sent = false;
        for (struct eg_said *later = s->next; later; later = later->next)
            later->sent = false; /* order is kept: what comes behind waits too */
        a->resend_ms = eg_clock_mono_ms() + (seconds > 0 && seconds < 3600 ? seconds * 1000 : 1000);
        return;
    }
    char *message = eg_field_text(doc, "message");
    bool ends = s->ends;
    eg_complain(a->cmd, "the gateway refused a frame: %s", message ? message : "?");
    forget(a, j, s);
    if (j && ends)
        eg_task_fail(a, j, message ? message : "the answer was refused", false);
    free(message);
}

void eg_task_fail(struct eg_agent *a, struct eg_task *j, const char *why, bool retry)
{
    if (j->state == EG_TASK_DROPPED)
        return;
    eg_buf_reset(&j->fail);
    eg_buf_str(&j->fail, "{\"type\":\"fail\"");
    eg_task_name(j, &j->fail);
    eg_json_kcstr(&j->fail, "error", why);
    eg_json_kbool(&j->fail, "retry", retry);
    eg_buf_char(&j->fail, '}');
    if ((int64_t)j->fail.n > a->max_payload) {
        eg_task_fail(a, j, "the command gave up, with an error longer than max_payload", retry);
        return;
    }
    j->state = EG_TASK_ENDING;
    if (j->fail.err != EG_OK)
        eg_task_drop(a, j);
    else
        eg_say_again(a, j); /* what it said before goes first */
}

void eg_task_drop(struct eg_agent *a, struct eg_task *j)
{
    (void)a;
    forget_all(&j->first, &j->last);
    j->pending = 0;
    j->pending_bytes = 0;
    j->state = EG_TASK_DROPPED;
    j->over = true;
    eg_proc_end(&j->proc, eg_clock_mono_ms());
}

static void extend(struct eg_agent *a, struct eg_task *j, int64_t now_ms)
{
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"extend\"");
    eg_task_name(j, &b);
    eg_buf_char(&b, '}');
    if (b.err == EG_OK)
        eg_wsc_send(a->wsc, (struct eg_slice){b.p, b.n});
    eg_buf_free(&b);
    j->spoke_ms = now_ms;
}

void eg_tasks_tick(struct eg_agent *a, int64_t now_ms)
{
    if (a->resend_ms != 0 && now_ms >= a->resend_ms) {
        a->resend_ms = 0;
        eg_say_again(a, NULL);
        for (struct eg_task *j = a->tasks; j; j = j->next)
            eg_say_again(a, j);
    }
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->state == EG_TASK_DROPPED)
            continue;
        if (j->attached && may_speak(a, j) && now_ms - j->spoke_ms >= a->extend_ms)
            extend(a, j, now_ms);
        if (!j->attached && a->welcome && now_ms - a->welcome_ms >= EG_AGENT_ORPHAN_MS &&
            now_ms - j->unwanted_ms >= EG_AGENT_ORPHAN_MS)
            eg_task_drop(a, j);
    }
}
