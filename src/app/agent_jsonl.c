/*
 * agent_jsonl.c - one long-lived process for all turns: it reads turn and abort frames as lines and
 * writes emit, final, fail, extend and publish frames as lines.
 *
 * Where a line names no session and turn and exactly one turn is open, that one is meant. event_id
 * and epoch are added where they are missing. When the process ends, the turns that it had open
 * fail, and it is started again with the next turn.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/agent.h"
#include "app/text.h"
#include "base/clock.h"

static void feed_line(struct eg_agent *a, struct eg_slice text)
{
    eg_buf_slice(&a->proc.input, text);
    eg_buf_char(&a->proc.input, '\n');
    eg_proc_feed(&a->proc);
}

static bool start_process(struct eg_agent *a)
{
    char agent[EG_ID_MAX + 32];
    const char *env[] = {agent, NULL};
    snprintf(agent, sizeof agent, "EBBGATE_AGENT=%s", a->id);
    eg_buf_reset(&a->line);
    eg_buf_reset(&a->proc.input);
    eg_buf_reset(&a->proc.last_words);
    a->proc.input_at = 0;
    a->proc.keep_input = true;
    if (eg_proc_start(&a->proc, a->argv, env, true) == EG_OK)
        return true;
    eg_complain(a->cmd, "cannot start the command: %s", strerror(errno));
    return false;
}

void eg_jsonl_start(struct eg_agent *a, struct eg_task *j)
{
    if (a->proc.pid == 0 && !start_process(a)) {
        eg_task_fail(a, j, "cannot start the command", true);
        return;
    }
    j->state = EG_TASK_WORKING;
    j->started_ms = j->spoke_ms = eg_clock_mono_ms();
    feed_line(a, (struct eg_slice){j->frame.p, j->frame.n});
    eg_buf_free(&j->frame);
}

void eg_jsonl_abort(struct eg_agent *a, struct eg_task *j, const char *reason)
{
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"type\":\"abort\"");
    eg_task_name(j, &b);
    eg_json_kcstr(&b, "reason", reason);
    eg_buf_char(&b, '}');
    if (b.err == EG_OK && a->proc.pid != 0)
        feed_line(a, (struct eg_slice){b.p, b.n});
    eg_buf_free(&b);
}

static struct eg_task *only_task(struct eg_agent *a)
{
    struct eg_task *found = NULL;
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->state != EG_TASK_WORKING)
            continue;
        if (found)
            return NULL;
        found = j;
    }
    return found;
}

/* The task a line is about; NULL when it is about none that is open. */
static struct eg_task *task_of(struct eg_agent *a, const struct eg_json_doc *doc, bool *named)
{
    int64_t turn = 0;
    char *session = eg_field_text(doc, "session_id");
    struct eg_task *j = NULL;
    *named = session != NULL;
    if (!session)
        j = only_task(a);
    else if (eg_field_int(doc, "turn", &turn))
        j = eg_task_find(a, session, turn);
    free(session);
    /* of a log that was there before, under the same id: its turn had the same number */
    if (j && j->epoch && eg_json_get(doc, "epoch") && !eg_field_is(doc, "epoch", j->epoch))
        return NULL;
    return j;
}

/* The line as a frame: event_id, and session and turn where the line leaves them out. */
static char *complete(struct eg_buf *b, const struct eg_json_doc *doc, struct eg_slice line,
                      const struct eg_task *j, bool named)
{
    char *id = eg_field_text(doc, "event_id");
    eg_buf_char(b, '{');
    if (!id && (id = malloc(37)) != NULL) {
        eg_uuid7(eg_clock_now().wall_ms, id);
        eg_json_kcstr(b, "event_id", id);
    }
    if (!named && j) {
        eg_json_kcstr(b, "session_id", j->session);
        if (!eg_json_get(doc, "turn"))
            eg_json_kint(b, "turn", j->turn);
    }
    if (j && j->epoch && !eg_json_get(doc, "epoch"))
        eg_json_kcstr(b, "epoch", j->epoch);
    if (b->n > 1)
        eg_buf_char(b, ',');
    eg_buf_add(b, line.p + 1, line.n - 1);
    return id;
}

/* fail and extend have no answer: fail ends the task here, extend goes straight through. */
static void pass_fail(struct eg_agent *a, struct eg_task *j, const struct eg_json_doc *doc)
{
    const struct eg_json_member *retry = eg_json_get(doc, "retry");
    struct eg_buf text = {0};
    eg_content_text(eg_field_raw(doc, "error"), &text);
    eg_buf_char(&text, '\0');
    bool again = !retry || *retry->value.p != 'f';
    eg_task_fail(a, j, text.n > 1 ? text.p : "the command gave up", again);
    eg_buf_free(&text);
}

/* Blanks out one member, and the comma that goes with it. */
static void blank(const struct eg_json_member *m, struct eg_slice line)
{
    const char *from = m->key.p - 1, *end = m->value.p + m->value.n;
    const char *after = end, *before = from;
    while (strchr(" \t\r", *after))
        after++;
    while (before > line.p + 1 && strchr(" \t\r", before[-1]))
        before--;
    if (*after == ',')
        end = after + 1;
    else if (before[-1] == ',')
        from = before - 1;
    memset((char *)(uintptr_t)from, ' ', (size_t)(end - from));
}

static bool scan_object(struct eg_agent *a, struct eg_slice line, struct eg_json_doc *doc)
{
    if (eg_json_scan(line, EG_JSON_DEPTH_MAX, doc) == EG_OK && doc->kind == EG_JSON_OBJECT)
        return true;
    eg_complain(a->cmd, "the command wrote a line that is no JSON object");
    return false;
}

/*
 * Reads the line, which is ours to write to. Members that are filled in where they are missing must
 * not be there twice: null ones, which count as missing, are blanked out; others of a wrong type
 * are a mistake. False with a complaint.
 */
static bool scan_line(struct eg_agent *a, struct eg_slice line, struct eg_json_doc *doc)
{
    static const struct {
        const char *name;
        enum eg_json_kind kind;
        const char *called;
    } ours[] = {{"session_id", EG_JSON_STRING, "text"},
                {"turn", EG_JSON_NUMBER, "number"},
                {"epoch", EG_JSON_STRING, "text"},
                {"event_id", EG_JSON_STRING, "text"}};
    if (!scan_object(a, line, doc))
        return false;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        const struct eg_json_member *m = eg_json_get(doc, ours[i].name);
        if (m && m->kind == EG_JSON_NULL) {
            blank(m, line);
            if (!scan_object(a, line, doc))
                return false;
        } else if (m && m->kind != ours[i].kind) {
            eg_complain(a->cmd, "the command wrote a line whose %s is no %s", ours[i].name,
                        ours[i].called);
            return false;
        }
    }
    return true;
}

/* A frame that the gateway would close the connection for, each time it is sent again. */
static void too_long(struct eg_agent *a, struct eg_task *j)
{
    static const char why[] = "the command wrote a frame longer than max_payload";
    eg_complain(a->cmd, "%s", why);
    if (j)
        eg_task_fail(a, j, why, false);
}

static void take_line(struct eg_agent *a, struct eg_slice line)
{
    struct eg_json_doc doc;
    struct eg_buf b = {0};
    bool named = false;
    while (line.n > 0 && strchr(" \t\r", *line.p)) {
        line.p++;
        line.n--;
    }
    while (line.n > 0 && strchr(" \t\r", line.p[line.n - 1]))
        line.n--;
    if (line.n == 0 || !scan_line(a, line, &doc))
        return;
    bool publish = eg_field_is(&doc, "type", "publish");
    bool final = eg_field_is(&doc, "type", "final");
    struct eg_task *j = task_of(a, &doc, &named);
    if (!publish && (!j || j->state == EG_TASK_DROPPED)) {
        eg_complain(a->cmd, "the command wrote about a turn that is not open");
    } else if (publish || final || eg_field_is(&doc, "type", "emit")) {
        char *id = complete(&b, &doc, line, j, named);
        if (b.err == EG_OK && (int64_t)b.n > a->max_payload) {
            too_long(a, publish ? NULL : j);
            free(id);
        } else {
            eg_say(a, publish ? NULL : j, &b, id, final);
        }
    } else if (eg_field_is(&doc, "type", "fail")) {
        pass_fail(a, j, &doc);
    } else if (eg_field_is(&doc, "type", "extend")) {
        j->spoke_ms = 0; /* the next tick sends one */
    } else {
        eg_complain(a->cmd, "the command wrote a frame of unknown type");
    }
    eg_buf_free(&b);
}

size_t eg_jsonl_readable(struct eg_agent *a)
{
    char *to = eg_buf_reserve(&a->line, 65536);
    if (!to)
        return 0;
    ssize_t n = read(a->proc.out, to, 65536);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        eg_close(&a->proc.out);
        return 0;
    }
    a->line.n += (size_t)n;
    size_t at = 0;
    char *end;
    while (at < a->line.n && (end = memchr(a->line.p + at, '\n', a->line.n - at)) != NULL) {
        size_t length = (size_t)(end - (a->line.p + at));
        take_line(a, (struct eg_slice){a->line.p + at, length});
        at += length + 1;
    }
    memmove(a->line.p, a->line.p + at, a->line.n - at);
    a->line.n -= at;
    if (a->line.n > (size_t)a->max_payload) {
        eg_complain(a->cmd, "the command wrote a line longer than max_payload");
        eg_buf_reset(&a->line);
        eg_proc_end(&a->proc, eg_clock_mono_ms());
    }
    return (size_t)n;
}

void eg_jsonl_ended(struct eg_agent *a)
{
    char why[EG_AGENT_STDERR_KEPT + 128];
    struct eg_buf clean = {0};
    size_t left = eg_proc_waiting(a->proc.out), n;
    while (left > 0 && a->proc.out >= 0 && (n = eg_jsonl_readable(a)) > 0)
        left -= n < left ? n : left;
    eg_close(&a->proc.in);
    eg_close(&a->proc.out);
    eg_proc_listen(&a->proc, a->quiet);
    eg_close(&a->proc.err);
    eg_proc_obituary(&a->proc, why, sizeof why);
    eg_text_clean(&clean, why, strlen(why), true);
    eg_buf_char(&clean, '\0');
    bool had = false;
    for (struct eg_task *j = a->tasks; j; j = j->next) {
        if (j->state == EG_TASK_WORKING) {
            had = true;
            eg_task_fail(a, j, clean.p ? clean.p : "the command ended", true);
        }
    }
    if (had)
        eg_complain(a->cmd, "%s", clean.p ? clean.p : "the command ended");
    eg_buf_free(&clean);
}
