/*
 * chat_view.c - how a conversation looks in a terminal, in a pipe, and as JSON lines.
 *
 * What agents and people say goes to stdout, remarks go to stderr. Content is untrusted: on a
 * terminal its control characters are not let through.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/chat.h"
#include "app/text.h"

#define DIM "\x1b[2m"
#define BOLD "\x1b[1m"
#define PLAIN "\x1b[0m"

static void clear_prompt(struct eg_view *v)
{
    if (v->prompt)
        fputs("\r\x1b[K", stdout);
    v->prompt = false;
}

static void put(struct eg_view *v, struct eg_slice text)
{
    struct eg_buf safe = {0};
    if (text.n == 0)
        return;
    clear_prompt(v);
    if (v->screen) {
        eg_text_show(&safe, text);
        text = (struct eg_slice){safe.p, safe.n};
    }
    fwrite(text.p, 1, text.n, stdout);
    v->at_start = text.n > 0 && text.p[text.n - 1] == '\n';
    eg_buf_free(&safe);
}

static void end_line(struct eg_view *v)
{
    if (!v->at_start)
        putchar('\n');
    v->at_start = true;
}

void eg_view_note(struct eg_view *v, const char *fmt, ...)
{
    char text[512];
    struct eg_buf safe = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (v->tty) {
        clear_prompt(v);
        end_line(v);
    }
    fflush(stdout);
    eg_text_show(&safe, eg_slice_cstr(text));
    fprintf(stderr, "%s(%.*s)%s\n", v->colour ? DIM : "", (int)safe.n, safe.p ? safe.p : "",
            v->colour ? PLAIN : "");
    eg_buf_free(&safe);
}

void eg_view_prompt(struct eg_view *v)
{
    if (v->tty && !v->prompt && !v->json) {
        end_line(v);
        fputs("> ", stdout);
        v->prompt = true;
    }
    fflush(stdout);
}

void eg_view_json(struct eg_view *v, struct eg_slice text)
{
    struct eg_buf safe = {0};
    if (v->screen) {
        eg_text_show(&safe, text);
        text = (struct eg_slice){safe.p, safe.n};
    }
    fwrite(text.p, 1, text.n, stdout);
    putchar('\n');
    eg_buf_free(&safe);
    fflush(stdout);
}

void eg_view_free(struct eg_view *v)
{
    eg_buf_free(&v->printed);
}

/* Who speaks, before the first words of a line; only people need it. */
static void put_name(struct eg_view *v, const char *name)
{
    char text[EG_ID_MAX + 32];
    if (!v->tty)
        return;
    clear_prompt(v);
    end_line(v);
    fputs(v->colour ? BOLD : "", stdout);
    snprintf(text, sizeof text, "%.*s: ", EG_ID_MAX, name);
    put(v, eg_slice_cstr(text));
    fputs(v->colour ? PLAIN : "", stdout);
}

/* From now on the text of this turn is printed. */
static void turn_to(struct eg_view *v, int64_t turn)
{
    if (v->turn == turn)
        return;
    eg_buf_reset(&v->printed);
    v->turn = turn;
    if (v->tty)
        put_name(v, v->agent);
    else
        end_line(v);
}

void eg_view_failed(struct eg_view *v, int64_t turn)
{
    if (v->turn != turn)
        return;
    end_line(v);
    v->turn = 0;
}

static void show_stream(struct eg_view *v, const struct eg_json_doc *doc)
{
    static const char *const names[] = {"content", "text", "token", "delta"};
    struct eg_json_doc data;
    struct eg_buf text = {0};
    struct eg_slice raw = eg_field_raw(doc, "data");
    if (eg_field_object(doc, "data", &data)) {
        raw = (struct eg_slice){NULL, 0};
        for (size_t i = 0; i < 4 && raw.n == 0; i++)
            raw = eg_field_raw(&data, names[i]);
    }
    if (raw.n >= 2 && *raw.p == '"') {
        eg_json_unquote(raw, &text);
        turn_to(v, eg_field_int_or(doc, "turn", 0));
        put(v, (struct eg_slice){text.p, text.n});
        eg_buf_add(&v->printed, text.p, text.n);
    }
    eg_buf_free(&text);
}

static bool begins_with(struct eg_slice all, struct eg_slice start)
{
    return start.n == 0 || (start.n <= all.n && memcmp(all.p, start.p, start.n) == 0);
}

static void show_final(struct eg_view *v, const struct eg_json_doc *doc)
{
    struct eg_json_doc outcome = {0};
    struct eg_buf text = {0};
    int64_t turn = eg_field_int_or(doc, "turn", 0);
    bool has_outcome = eg_field_object(doc, "outcome", &outcome);
    bool cut = has_outcome && eg_field_true(&outcome, "truncated");
    eg_content_text(eg_field_raw(doc, "content"), &text);
    struct eg_slice all = {text.p, text.n};
    if (v->turn != turn)
        eg_buf_reset(&v->printed);
    struct eg_slice shown = {v->printed.p, v->printed.n};
    if (begins_with(all, shown)) {
        if (all.n > shown.n) {
            turn_to(v, turn);
            put(v, (struct eg_slice){all.p + shown.n, all.n - shown.n});
        }
    } else if (all.n > 0 && !(cut && begins_with(shown, all))) {
        /* what was streamed is not what it came to */
        end_line(v);
        v->turn = 0;
        turn_to(v, turn);
        put(v, all);
    }
    if (v->turn == turn)
        end_line(v);
    v->turn = 0;
    eg_buf_reset(&v->printed);
    if (has_outcome && !eg_field_is(&outcome, "status", "ok")) {
        char *status = eg_field_text(&outcome, "status");
        char *why = eg_field_text(&outcome, "message");
        if (!why)
            why = eg_field_text(&outcome, "reason");
        eg_view_note(v, "%s%s%s", status ? status : "ended", why ? ": " : "", why ? why : "");
        free(status);
        free(why);
    }
    eg_buf_free(&text);
}

static void show_message(struct eg_view *v, const struct eg_json_doc *doc)
{
    struct eg_json_doc data;
    struct eg_buf text = {0};
    char *source = eg_field_text(doc, "source");
    const char *name = source ? source : "?";
    if (strncmp(name, "client:", 7) == 0)
        name += 7;
    if (v->tty && eg_field_object(doc, "data", &data)) {
        eg_content_text(eg_field_raw(&data, "content"), &text);
        v->turn = 0;
        put_name(v, name);
        put(v, (struct eg_slice){text.p, text.n});
        end_line(v);
    }
    eg_buf_free(&text);
    free(source);
}

void eg_view_event(struct eg_view *v, const struct eg_json_doc *doc, struct eg_slice text,
                   bool mine)
{
    if (v->json) {
        eg_view_json(v, text);
        return;
    }
    if (eg_field_is(doc, "type", "token_stream")) {
        show_stream(v, doc);
    } else if (eg_field_is(doc, "type", "response")) {
        show_final(v, doc);
    } else if (eg_field_is(doc, "type", "message")) {
        if (!mine)
            show_message(v, doc);
    } else if (eg_field_is(doc, "type", "stream_error")) {
        struct eg_slice data = eg_field_raw(doc, "data");
        eg_view_note(v, "the agent reports an error: %.*s", (int)data.n, data.p ? data.p : "");
    } else if (eg_field_is(doc, "type", "session_end")) {
        eg_view_note(v, "the session was closed");
    }
    fflush(stdout);
}
