/*
 * agent_exec.c - a process for each turn: the message on stdin, what it prints is streamed, its
 * exit ends the turn.
 *
 * Output is cut at characters; what is no UTF-8 becomes U+FFFD. While too many frames are not
 * answered, output stays in the pipe, so a fast command waits for a slow gateway.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/agent.h"
#include "app/text.h"
#include "base/clock.h"

/* A frame {"type":T,"session_id":S,"turn":N,"event_id":E and what is added. NULL without memory. */
static char *begin_frame(struct eg_buf *b, const struct eg_task *j, const char *type)
{
    char *id = malloc(37);
    if (!id)
        return NULL;
    eg_uuid7(eg_clock_now().wall_ms, id);
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "type", type);
    eg_task_name(j, b);
    eg_json_kcstr(b, "event_id", id);
    return id;
}

/* What the command gets on stdin: the text of the message, or its content as JSON. */
static void fill_input(struct eg_task *j, char *source, size_t source_size)
{
    struct eg_json_doc frame, message, data;
    struct eg_slice text = {j->frame.p, j->frame.n};
    *source = '\0';
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX + 1, &frame) != EG_OK ||
        !eg_field_object(&frame, "message", &message))
        return;
    char *from = eg_field_text(&message, "source");
    snprintf(source, source_size, "EBBGATE_SOURCE=%s", from ? from : "");
    free(from);
    if (eg_field_object(&message, "data", &data))
        eg_content_text(eg_field_raw(&data, "content"), &j->proc.input);
}

void eg_exec_start(struct eg_agent *a, struct eg_task *j)
{
    char session[EG_ID_MAX + 32], turn[40], attempt[40], agent[EG_ID_MAX + 32];
    char source[EG_ID_MAX + 64];
    const char *env[] = {session, turn, attempt, agent, source, NULL};
    snprintf(session, sizeof session, "EBBGATE_SESSION=%s", j->session);
    snprintf(turn, sizeof turn, "EBBGATE_TURN=%lld", (long long)j->turn);
    snprintf(attempt, sizeof attempt, "EBBGATE_ATTEMPT=%lld", (long long)j->attempt);
    snprintf(agent, sizeof agent, "EBBGATE_AGENT=%s", a->id);
    fill_input(j, source, sizeof source);
    eg_buf_free(&j->frame);
    j->state = EG_TASK_WORKING;
    j->started_ms = j->spoke_ms = eg_clock_mono_ms();
    if (eg_proc_start(&j->proc, a->argv, env, true) != EG_OK) {
        char why[160];
        snprintf(why, sizeof why, "cannot start the command: %s", strerror(errno));
        eg_complain(a->cmd, "%s", why);
        eg_task_fail(a, j, why, true);
        return;
    }
    eg_proc_feed(&j->proc);
}

/* Streams text and keeps it for the final answer. */
static void stream(struct eg_agent *a, struct eg_task *j, struct eg_slice text)
{
    struct eg_buf quoted = {0}, frame = {0};
    if (text.n == 0)
        return;
    eg_json_quote(&quoted, text);
    char *id = begin_frame(&frame, j, "emit");
    eg_json_kcstr(&frame, "event", "token_stream");
    eg_buf_str(&frame, ",\"data\":{\"content\":");
    eg_buf_add(&frame, quoted.p, quoted.n);
    eg_buf_str(&frame, "}}");
    if (quoted.err == EG_OK && !j->truncated) {
        if (j->answer.n + quoted.n + 2048 > (size_t)a->max_payload)
            j->truncated = true;
        else
            eg_buf_add(&j->answer, quoted.p + 1, quoted.n - 2);
    }
    if (quoted.err != EG_OK)
        frame.err = quoted.err;
    eg_buf_free(&quoted);
    eg_say(a, j, &frame, id, false);
}

/* Takes n new bytes of output. last: no more will come. */
static void take(struct eg_agent *a, struct eg_task *j, const char *p, size_t n, bool last)
{
    struct eg_buf clean = {0};
    eg_buf_add(&j->carry, p, n);
    size_t used = eg_text_clean(&clean, j->carry.p, j->carry.n, last);
    if (used > 0 && used < j->carry.n)
        memmove(j->carry.p, j->carry.p + used, j->carry.n - used);
    j->carry.n -= used;
    stream(a, j, (struct eg_slice){clean.p, clean.n});
    eg_buf_free(&clean);
}

/* How much is read at once: an event must fit into max_payload however it is escaped. */
static size_t chunk(const struct eg_agent *a)
{
    size_t most = (size_t)a->max_payload / 8;
    return most < EG_AGENT_CHUNK ? most : EG_AGENT_CHUNK;
}

void eg_exec_readable(struct eg_agent *a, struct eg_task *j)
{
    char text[EG_AGENT_CHUNK];
    ssize_t n = read(j->proc.out, text, chunk(a));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        eg_close(&j->proc.out);
        return;
    }
    if (j->state == EG_TASK_WORKING)
        take(a, j, text, (size_t)n, false);
}

static void say_final(struct eg_agent *a, struct eg_task *j, const char *status)
{
    struct eg_buf frame = {0};
    char *id = begin_frame(&frame, j, "final");
    eg_buf_str(&frame, ",\"content\":\"");
    eg_buf_add(&frame, j->answer.p, j->answer.n);
    eg_buf_str(&frame, "\",\"outcome\":{");
    eg_json_kcstr(&frame, "status", status);
    if (j->truncated)
        eg_json_kbool(&frame, "truncated", true);
    eg_buf_str(&frame, "}}");
    if (j->answer.err != EG_OK)
        frame.err = j->answer.err;
    eg_say(a, j, &frame, id, true);
}

void eg_exec_ended(struct eg_agent *a, struct eg_task *j)
{
    char text[EG_AGENT_CHUNK];
    const size_t most = chunk(a);
    ssize_t n;
    eg_close(&j->proc.in);
    for (size_t left = eg_proc_waiting(j->proc.out); left > 0; left -= (size_t)n) {
        n = read(j->proc.out, text, left < most ? left : most);
        if (n <= 0)
            break;
        if (j->state == EG_TASK_WORKING)
            take(a, j, text, (size_t)n, false);
    }
    eg_close(&j->proc.out);
    eg_proc_listen(&j->proc, a->quiet);
    eg_close(&j->proc.err);
    if (j->state != EG_TASK_WORKING)
        return;
    take(a, j, "", 0, true);
    if (j->aborted) {
        say_final(a, j, "aborted");
    } else if (j->timed_out) {
        char why[96];
        snprintf(why, sizeof why, "the command took longer than %lld ms", (long long)a->timeout_ms);
        eg_task_fail(a, j, why, true);
    } else if (j->proc.status == 0) {
        say_final(a, j, "ok");
    } else {
        char why[EG_AGENT_STDERR_KEPT + 128];
        struct eg_buf clean = {0};
        eg_proc_obituary(&j->proc, why, sizeof why);
        eg_text_clean(&clean, why, strlen(why), true);
        eg_buf_char(&clean, '\0');
        eg_task_fail(a, j, clean.p ? clean.p : "the command failed", true);
        eg_buf_free(&clean);
    }
}
