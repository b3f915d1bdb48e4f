/*
 * cmd_log.c - the log of one session over the admin API: `tail` follows it, `export` prints it.
 *
 * tail reads an event stream and, once it had one, comes back by itself where it was; export
 * streams a page of any length to stdout without holding it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app/api.h"
#include "app/text.h"

/* The stream's state: a line under way, the event's cursor and data. */
struct tail {
    struct eg_api *api;
    struct eg_buf line, data;
    int64_t cursor; /* of the last event printed */
    char *epoch;    /* of the log that it is in */
    bool json, resync, anew;
};

/* "17  token_stream  agent:x  turn 16  {...}", one line, safe for a terminal. */
static void print_event(struct eg_slice text)
{
    struct eg_json_doc doc;
    struct eg_buf b = {0}, safe = {0};
    if (eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return;
    char *type = eg_field_text(&doc, "type"), *source = eg_field_text(&doc, "source");
    struct eg_slice said = eg_field_raw(&doc, "data");
    if (said.n == 0)
        said = eg_field_raw(&doc, "content");
    eg_buf_printf(&b, "%6lld  %-14s %-20s ", (long long)eg_field_int_or(&doc, "cursor", 0),
                  type ? type : "?", source ? source : "-");
    eg_buf_slice(&b, said);
    eg_text_show(&safe, (struct eg_slice){b.p, b.n});
    printf("%.*s\n", (int)safe.n, safe.p ? safe.p : "");
    free(type);
    free(source);
    eg_buf_free(&b);
    eg_buf_free(&safe);
}

/* Behind a gap the stream goes on at its end. Another log is asked for anew, from its beginning. */
static void take_gap(struct tail *t, const struct eg_json_doc *doc)
{
    char *epoch = eg_field_text(doc, "epoch");
    if (!epoch || strcmp(epoch, t->epoch) == 0) {
        fprintf(stderr, "(the log has a gap here)\n");
        t->cursor = eg_field_int_or(doc, "cursor", t->cursor);
        free(epoch);
        return;
    }
    fprintf(stderr, "(the log is another one now; it follows from its beginning)\n");
    t->cursor = eg_field_int_or(doc, "oldest_cursor", 1) - 1;
    free(t->epoch);
    t->epoch = epoch;
    t->anew = true;
}

static void end_event(struct tail *t)
{
    struct eg_json_doc doc;
    int64_t cursor = 0;
    struct eg_slice text = {t->data.p, t->data.n};
    if (text.n > 0 && eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc) == EG_OK) {
        bool has = eg_field_int(&doc, "cursor", &cursor);
        if (t->resync) {
            take_gap(t, &doc);
        } else if (!has || cursor > t->cursor) {
            t->cursor = has ? cursor : t->cursor;
            if (t->json)
                printf("%.*s\n", (int)text.n, text.p);
            else
                print_event(text);
            fflush(stdout);
        }
    }
    eg_buf_reset(&t->data);
    t->resync = false;
}

static void take_line(struct tail *t, const char *p, size_t n)
{
    if (n > 0 && p[n - 1] == '\r')
        n--;
    if (n == 0) {
        end_event(t);
    } else if (n >= 5 && memcmp(p, "data:", 5) == 0) {
        size_t skip = n > 5 && p[5] == ' ' ? 6 : 5;
        if (t->data.n > 0)
            eg_buf_char(&t->data, '\n');
        eg_buf_add(&t->data, p + skip, n - skip);
    } else if (n >= 6 && memcmp(p, "event:", 6) == 0) {
        t->resync = memmem(p, n, "resync", 6) != NULL;
    }
}

static bool take_stream(void *arg, const char *p, size_t n)
{
    struct tail *t = arg;
    t->api->quiet = true; /* there is a stream: whatever ends it, it is asked for again */
    eg_buf_add(&t->line, p, n);
    size_t at = 0;
    char *end;
    while (!t->anew && at < t->line.n &&
           (end = memchr(t->line.p + at, '\n', t->line.n - at)) != NULL) {
        take_line(t, t->line.p + at, (size_t)(end - (t->line.p + at)));
        at = (size_t)(end - t->line.p) + 1;
    }
    if (at > 0) {
        memmove(t->line.p, t->line.p + at, t->line.n - at);
        t->line.n -= at;
    }
    return t->line.err == EG_OK && !t->anew && !ferror(stdout);
}

/* The session's epoch and, without a cursor to begin behind, its newest one: "from now on" must
 * mean the same after a break. */
static int begin(struct tail *t, const char *session)
{
    struct eg_json_doc doc;
    struct eg_api *api = t->api;
    struct eg_buf path = {0}, answer = {0};
    eg_buf_str(&path, "/sessions/");
    eg_api_encode(&path, session);
    const struct eg_api_request r = {.method = "GET", .path = eg_api_path(&path)};
    int code = eg_api_call(api, &r, &answer);
    if (code == EG_PROCEED &&
        (eg_json_scan((struct eg_slice){answer.p, answer.n}, EG_JSON_DEPTH_MAX, &doc) != EG_OK ||
         !(t->epoch = eg_field_text(&doc, "epoch")) ||
         (t->cursor < 0 && !eg_field_int(&doc, "cursor", &t->cursor)))) {
        eg_complain(api->cmd, "the gateway does not tell where the session is");
        code = EG_EXIT_FAILED;
    }
    eg_buf_free(&path);
    eg_buf_free(&answer);
    return code;
}

/* Follows until the gateway refuses or the session has ended; a broken stream is asked for again
 * from where it was. */
static int follow(struct eg_api *api, const char *session, int64_t since, bool json)
{
    struct tail t = {.api = api, .json = json, .cursor = since};
    int code = begin(&t, session);
    while (code == EG_PROCEED && !ferror(stdout)) {
        struct eg_buf path = {0};
        char cursor[24];
        snprintf(cursor, sizeof cursor, "%lld", (long long)t.cursor);
        eg_buf_str(&path, "/sessions/");
        eg_api_encode(&path, session);
        eg_buf_str(&path, "/events");
        eg_api_param(&path, "since", cursor);
        eg_api_param(&path, "epoch", t.epoch);
        t.anew = false;
        const struct eg_api_request r = {.method = "GET",
                                         .path = eg_api_path(&path),
                                         .accept = "text/event-stream",
                                         .sink = take_stream,
                                         .arg = &t};
        code = eg_api_renew(api); /* a stream lives no longer than its token */
        if (code == EG_PROCEED)
            code = eg_api_call(api, &r, NULL);
        eg_buf_free(&path);
        eg_buf_reset(&t.line);
        eg_buf_reset(&t.data);
        if (code == EG_PROCEED && api->status == 204) {
            fprintf(stderr, "(the session is closed)\n");
            break;
        }
        if (api->quiet && (eg_api_away(api) || api->status == 200))
            code = EG_PROCEED; /* it will be back */
        if (code == EG_PROCEED) {
            const struct timespec pause = {.tv_nsec = 500000000};
            nanosleep(&pause, NULL);
        }
    }
    eg_buf_free(&t.line);
    eg_buf_free(&t.data);
    free(t.epoch);
    return code;
}

static int run_tail(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_api_opts where = {{0}, NULL, NULL};
    struct eg_api api;
    const char *session = NULL;
    int64_t since = -1;
    bool json = false;
    int n = 0;
    const struct eg_opt opts[] = {
        {"since", 0, EG_OPT_INT, "CURSOR",
         "begin behind this event; 0: from the first (default: "
         "new events only)",
         &since, 0, EG_JSON_INT_MAX},
        {"json", 0, EG_OPT_FLAG, NULL, "events as JSON, one a line", &json, 0, 0},
        EG_API_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, &session, 1, &n, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (n < 1)
        return eg_usage(cmd, "name the session");
    code = eg_api_init(&api, cmd, &where);
    if (code == EG_PROCEED)
        code = follow(&api, session, since, json);
    eg_api_free(&api);
    return eg_cli_done(cmd, code == EG_PROCEED ? EG_EXIT_OK : code);
}

static bool write_out(void *arg, const char *p, size_t n)
{
    (void)arg;
    return fwrite(p, 1, n, stdout) == n;
}

static int run_export(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_api_opts where = {{0}, NULL, NULL};
    struct eg_api api;
    struct eg_buf path = {0};
    const char *session = NULL;
    int n = 0;
    const struct eg_opt opts[] = {EG_API_OPTS(&where),
                                  {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, &session, 1, &n, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (n < 1)
        return eg_usage(cmd, "name the session");
    code = eg_api_init(&api, cmd, &where);
    if (code == EG_PROCEED) {
        eg_buf_str(&path, "/sessions/");
        eg_api_encode(&path, session);
        eg_buf_str(&path, "/events");
        const struct eg_api_request r = {.method = "GET",
                                         .path = eg_api_path(&path),
                                         .accept = "application/x-ndjson",
                                         .sink = write_out};
        code = eg_api_call(&api, &r, NULL);
    }
    eg_buf_free(&path);
    eg_api_free(&api);
    return eg_cli_done(cmd, code == EG_PROCEED ? EG_EXIT_OK : code);
}

const struct eg_command eg_cmd_tail = {
    .name = "tail",
    .summary = "Follow a session's log as it grows",
    .usage = "[--since CURSOR] [--json] SESSION",
    .details =
        "Ends when the session is closed. When it is deleted and its id begun anew, or a backup\n"
        "restored, says so on stderr and prints the new log from its beginning.\n",
    .run = run_tail,
    .group = "A running gateway (over its admin API)"};

const struct eg_command eg_cmd_export = {.name = "export",
                                         .summary = "Print a session's whole log as JSON lines",
                                         .usage = "SESSION",
                                         .run = run_export,
                                         .group = "A running gateway (over its admin API)"};
