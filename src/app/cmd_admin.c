/*
 * cmd_admin.c - the admin API from a terminal: lists as tables, single things as records, and acts.
 *
 * sessions, agents, connections, turns: without further words a list, with a verb one act of the
 * table below. stats, drain, revoke: one request each. With --json, lists are one object a line and
 * everything else is the answer as it came.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/api.h"
#include "app/table.h"
#include "base/clock.h"

#define PAGE_MAX 500

/* One act: $1 in the path is an argument, @2 in the body one as a text, #2 in either a number. */
struct act {
    const char *command, *verb;
    int args;
    const char *words, *method, *path, *body;
};

static const struct act acts[] = {
    {"sessions", "show", 1, "ID", "GET", "/sessions/$1", NULL},
    {"sessions", "close", 1, "ID", "POST", "/sessions/$1/close", "{}"},
    {"sessions", "delete", 1, "ID", "DELETE", "/sessions/$1", NULL},
    {"sessions", "abort", 1, "ID", "POST", "/sessions/$1/abort", "{}"},
    {"sessions", "say", 2, "ID TEXT", "POST", "/sessions/$1/messages", "{\"content\":@2}"},
    {"sessions", "fork", 2, "ID CURSOR", "POST", "/sessions/$1/fork", "{\"at\":#2}"},
    {"agents", "show", 1, "ID", "GET", "/agents/$1", NULL},
    {"agents", "add", 1, "ID", "PUT", "/agents/$1", "{}"},
    {"agents", "remove", 1, "ID", "DELETE", "/agents/$1", NULL},
    {"connections", "close", 1, "ID", "DELETE", "/connections/$1", NULL},
    {"turns", "retry", 2, "SESSION TURN", "POST", "/turns/$1/#2/retry", "{}"},
};

enum { ACTS = sizeof acts / sizeof *acts };

/* ---- answers ---- */

static int finish(const struct eg_command *cmd, int code)
{
    return eg_cli_done(cmd, code == EG_PROCEED ? EG_EXIT_OK : code);
}

/* One request and its answer on stdout. */
static int request(struct eg_api *api, const struct eg_api_request *r, bool json)
{
    struct eg_buf out = {0}, lines = {0};
    int code = eg_api_call(api, r, &out);
    if (code == EG_PROCEED && json) {
        fwrite(out.p, 1, out.n, stdout);
        if (out.n > 0 && out.p[out.n - 1] != '\n')
            putchar('\n');
    } else if (code == EG_PROCEED && out.n > 0) {
        if (eg_record_print((struct eg_slice){out.p, out.n}, &lines))
            fwrite(lines.p, 1, lines.n, stdout);
        else
            code = EG_EXIT_RETRY;
    }
    eg_buf_free(&lines);
    eg_buf_free(&out);
    return code;
}

/* ---- acts ---- */

static bool is_number(const char *text)
{
    return *text && strlen(text) < 16 && strspn(text, "0123456789") == strlen(text);
}

/* The path with its arguments in place. */
static void fill_path(struct eg_buf *b, const char *pattern, const char *const *args)
{
    for (const char *p = pattern; *p; p++) {
        if (*p == '$' || *p == '#')
            eg_api_encode(b, args[*++p - '1']);
        else
            eg_buf_char(b, *p);
    }
}

static void fill_body(struct eg_buf *b, const char *pattern, const char *const *args)
{
    for (const char *p = pattern; *p; p++) {
        if (*p == '@')
            eg_json_quote(b, eg_slice_cstr(args[*++p - '1']));
        else if (*p == '#')
            eg_buf_str(b, args[*++p - '1']);
        else
            eg_buf_char(b, *p);
    }
}

static int run_act(const struct eg_command *cmd, const struct act *a, const char *const *args,
                   int nargs, const struct eg_api_opts *where, bool json)
{
    struct eg_api api;
    struct eg_buf path = {0}, body = {0};
    size_t offset;
    if (nargs != a->args)
        return eg_usage(cmd, "%s wants: %s", a->verb, a->words);
    for (int i = 0; i < nargs; i++) {
        if (!eg_utf8_valid(eg_slice_cstr(args[i]), &offset) || !*args[i])
            return eg_usage(cmd, "%s: an argument is empty or not UTF-8", a->verb);
    }
    if ((strchr(a->path, '#') || (a->body && strchr(a->body, '#'))) && !is_number(args[1]))
        return eg_usage(cmd, "%s wants: %s, with a number", a->verb, a->words);
    int code = eg_api_init(&api, cmd, where);
    if (code == EG_PROCEED) {
        fill_path(&path, a->path, args);
        if (a->body)
            fill_body(&body, a->body, args);
        const struct eg_api_request r = {
            .method = a->method, .path = eg_api_path(&path), .body = a->body ? &body : NULL};
        code = request(&api, &r, json);
    }
    eg_buf_free(&path);
    eg_buf_free(&body);
    eg_api_free(&api);
    return finish(cmd, code);
}

/* ---- lists ---- */

struct list {
    struct eg_table table;
    bool json, failed;
    int64_t left, now_ms;
};

static void take_item(void *arg, struct eg_slice text)
{
    struct list *l = arg;
    if (l->left <= 0)
        return;
    l->left--;
    if (l->json)
        printf("%.*s\n", (int)text.n, text.p);
    else if (!eg_table_row(&l->table, text, l->now_ms))
        l->failed = true;
}

/* Pages until there are enough or no more. *next is what the last page said; to be freed. */
static int take_pages(struct eg_api *api, const struct eg_buf *query, const char *member,
                      struct list *l, char **next)
{
    int code = EG_PROCEED;
    do {
        struct eg_buf path = {0}, out = {0};
        struct eg_json_doc doc;
        char limit[24];
        snprintf(limit, sizeof limit, "%lld", (long long)(l->left < PAGE_MAX ? l->left : PAGE_MAX));
        eg_buf_add(&path, query->p, query->n);
        eg_api_param(&path, "limit", limit);
        eg_api_param(&path, "next", *next);
        const struct eg_api_request r = {.method = "GET", .path = eg_api_path(&path)};
        code = eg_api_call(api, &r, &out);
        free(*next);
        *next = NULL;
        if (code == EG_PROCEED &&
            eg_json_scan((struct eg_slice){out.p, out.n}, EG_JSON_DEPTH_MAX, &doc) == EG_OK &&
            eg_json_get(&doc, member)) {
            eg_each_element(eg_field_raw(&doc, member), take_item, l);
            *next = eg_field_text(&doc, "next");
        } else if (code == EG_PROCEED) {
            eg_complain(api->cmd, "the answer has no list of %s (is the admin listener at %s?)",
                        member, api->base);
            code = EG_EXIT_FAILED;
        }
        eg_buf_free(&path);
        eg_buf_free(&out);
    } while (code == EG_PROCEED && *next && l->left > 0);
    return code;
}

static int run_list(const struct eg_command *cmd, const struct eg_buf *query,
                    const struct eg_column *columns, int64_t limit, bool json,
                    const struct eg_api_opts *where)
{
    struct eg_api api;
    struct list l = {
        .table.columns = columns, .json = json, .left = limit, .now_ms = eg_clock_now().wall_ms};
    struct eg_buf out = {0};
    char *next = NULL;
    int code = eg_api_init(&api, cmd, where);
    if (code == EG_PROCEED)
        code = take_pages(&api, query, cmd->name, &l, &next);
    if (code == EG_PROCEED && !json) {
        eg_table_print(&l.table, &out);
        fwrite(out.p, 1, out.n, stdout);
    }
    if (code == EG_PROCEED && next)
        fprintf(stderr, "(there are more; --limit N shows them)\n");
    if (l.failed)
        code = EG_EXIT_RETRY;
    free(next);
    eg_buf_free(&out);
    eg_table_free(&l.table);
    eg_api_free(&api);
    return finish(cmd, code);
}

/* What the four lists have in common: where, --json, --limit, and the verbs. */
struct common {
    struct eg_api_opts where;
    bool json;
    int64_t limit;
    const char *words[4];
    int nwords;
};

#define COMMON_OPTS(c)                                                                             \
    {                                                                                              \
        "limit",     0, EG_OPT_INT, "N", "list at most this many (default 100)",                   \
        &(c)->limit, 1, 10000000},                                                                 \
        {"json", 0, EG_OPT_FLAG, NULL, "JSON, one object a line", &(c)->json, 0, 0},               \
        EG_API_OPTS(&(c)->where),                                                                  \
    {                                                                                              \
        NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0                                               \
    }

/* Reads options. EG_PROCEED: a list is wanted; otherwise an act was done, or refused. */
static int begin(const struct eg_command *cmd, const struct eg_opt *opts, int argc, char **argv,
                 struct common *c)
{
    c->limit = 100;
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, c->words, 4, &c->nwords, NULL, NULL);
    if (code != EG_PROCEED || c->nwords == 0)
        return code;
    for (int i = 0; i < ACTS; i++) {
        if (strcmp(acts[i].command, cmd->name) == 0 && strcmp(acts[i].verb, c->words[0]) == 0)
            return run_act(cmd, &acts[i], c->words + 1, c->nwords - 1, &c->where, c->json);
    }
    return eg_usage(cmd, "unknown verb \"%s\"", c->words[0]);
}

static int run_sessions(const struct eg_command *cmd, int argc, char **argv)
{
    static const struct eg_column columns[] = {
        {"SESSION", "id", EG_COLUMN_TEXT},          {"AGENT", "agent", EG_COLUMN_TEXT},
        {"OWNER", "owner", EG_COLUMN_TEXT},         {"STATE", "state", EG_COLUMN_TEXT},
        {"EVENTS", "cursor", EG_COLUMN_TEXT},       {"SIZE", "bytes", EG_COLUMN_BYTES},
        {"CONNS", "connections", EG_COLUMN_TEXT},   {"TURN", "open_turn", EG_COLUMN_TEXT},
        {"ACTIVE", "last_activity", EG_COLUMN_AGE}, {NULL, NULL, EG_COLUMN_TEXT}};
    struct common c = {0};
    const char *agent = NULL, *owner = NULL, *state = NULL, *q = NULL;
    int64_t active_ms = 0;
    char since[32];
    const struct eg_opt opts[] = {
        {"agent", 0, EG_OPT_TEXT, "A", "of this agent", &agent, 0, 0},
        {"owner", 0, EG_OPT_TEXT, "SUB", "owned by SUB", &owner, 0, 0},
        {"state", 0, EG_OPT_TEXT, "STATE", "in this state: open or closed", &state, 0, 0},
        {"active", 0, EG_OPT_SECONDS, "TIME", "active within the last TIME (such as 1h)",
         &active_ms, 1, EG_DAY_MS * 36500},
        {"q", 0, EG_OPT_TEXT, "TEXT", "whose id contains TEXT", &q, 0, 0},
        COMMON_OPTS(&c)};
    int code = begin(cmd, opts, argc, argv, &c);
    if (code != EG_PROCEED || c.nwords > 0)
        return code;
    struct eg_buf query = {0};
    snprintf(since, sizeof since, "%lld", (long long)((eg_clock_now().wall_ms - active_ms) / 1000));
    eg_buf_str(&query, "/sessions");
    eg_api_param(&query, "agent", agent);
    eg_api_param(&query, "owner", owner);
    eg_api_param(&query, "state", state);
    eg_api_param(&query, "q", q);
    eg_api_param(&query, "active_since", active_ms ? since : NULL);
    code = run_list(cmd, &query, columns, c.limit, c.json, &c.where);
    eg_buf_free(&query);
    return code;
}

static int run_agents(const struct eg_command *cmd, int argc, char **argv)
{
    static const struct eg_column columns[] = {{"AGENT", "id", EG_COLUMN_TEXT},
                                               {"WORKERS", "workers", EG_COLUMN_COUNT},
                                               {"WAITING", "queue_depth", EG_COLUMN_TEXT},
                                               {"RUNNING", "open_turns", EG_COLUMN_TEXT},
                                               {"DEAD", "dead_turns", EG_COLUMN_TEXT},
                                               {"OLDEST", "oldest_waiting", EG_COLUMN_AGE},
                                               {NULL, NULL, EG_COLUMN_TEXT}};
    struct common c = {0};
    const struct eg_opt opts[] = {COMMON_OPTS(&c)};
    int code = begin(cmd, opts, argc, argv, &c);
    if (code != EG_PROCEED || c.nwords > 0)
        return code;
    struct eg_buf query = {0};
    eg_buf_str(&query, "/agents");
    code = run_list(cmd, &query, columns, c.limit, c.json, &c.where);
    eg_buf_free(&query);
    return code;
}

static int run_connections(const struct eg_command *cmd, int argc, char **argv)
{
    static const struct eg_column columns[] = {{"CONNECTION", "id", EG_COLUMN_TEXT},
                                               {"MODE", "mode", EG_COLUMN_TEXT},
                                               {"ROLE", "role", EG_COLUMN_TEXT},
                                               {"SUB", "sub", EG_COLUMN_TEXT},
                                               {"ADDRESS", "address", EG_COLUMN_TEXT},
                                               {"AGENT", "agent", EG_COLUMN_TEXT},
                                               {"SESSION", "session_id", EG_COLUMN_TEXT},
                                               {"SINCE", "since", EG_COLUMN_AGE},
                                               {NULL, NULL, EG_COLUMN_TEXT}};
    struct common c = {0};
    const char *sub = NULL, *agent = NULL, *session = NULL;
    const struct eg_opt opts[] = {
        {"sub", 0, EG_OPT_TEXT, "SUB", "of this sub", &sub, 0, 0},
        {"agent", 0, EG_OPT_TEXT, "A", "of this agent", &agent, 0, 0},
        {"session", 0, EG_OPT_TEXT, "S", "in this session", &session, 0, 0},
        COMMON_OPTS(&c)};
    int code = begin(cmd, opts, argc, argv, &c);
    if (code != EG_PROCEED || c.nwords > 0)
        return code;
    struct eg_buf query = {0};
    eg_buf_str(&query, "/connections");
    eg_api_param(&query, "sub", sub);
    eg_api_param(&query, "agent", agent);
    eg_api_param(&query, "session", session);
    code = run_list(cmd, &query, columns, c.limit, c.json, &c.where);
    eg_buf_free(&query);
    return code;
}

static int run_turns(const struct eg_command *cmd, int argc, char **argv)
{
    static const struct eg_column columns[] = {
        {"SESSION", "session_id", EG_COLUMN_TEXT}, {"TURN", "turn", EG_COLUMN_TEXT},
        {"AGENT", "agent", EG_COLUMN_TEXT},        {"STATE", "state", EG_COLUMN_TEXT},
        {"ATTEMPT", "attempt", EG_COLUMN_TEXT},    {"AGE", "created", EG_COLUMN_AGE},
        {"ERROR", "error", EG_COLUMN_TEXT},        {NULL, NULL, EG_COLUMN_TEXT}};
    struct common c = {0};
    const char *state = NULL, *session = NULL;
    const struct eg_opt opts[] = {
        {"state", 0, EG_OPT_TEXT, "STATE",
         "in this state: queued, running, waiting, aborting or dead", &state, 0, 0},
        {"session", 0, EG_OPT_TEXT, "S", "of this session", &session, 0, 0},
        COMMON_OPTS(&c)};
    int code = begin(cmd, opts, argc, argv, &c);
    if (code != EG_PROCEED || c.nwords > 0)
        return code;
    struct eg_buf query = {0};
    eg_buf_str(&query, "/turns");
    eg_api_param(&query, "state", state);
    eg_api_param(&query, "session", session);
    code = run_list(cmd, &query, columns, c.limit, c.json, &c.where);
    eg_buf_free(&query);
    return code;
}

/* ---- single requests ---- */

static int one_request(const struct eg_command *cmd, const struct eg_api_opts *where,
                       const struct eg_api_request *r, bool json)
{
    struct eg_api api;
    int code = eg_api_init(&api, cmd, where);
    if (code == EG_PROCEED)
        code = request(&api, r, json);
    eg_api_free(&api);
    return finish(cmd, code);
}

static int run_stats(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_api_opts where = {{0}, NULL, NULL};
    bool json = false;
    const struct eg_opt opts[] = {{"json", 0, EG_OPT_FLAG, NULL, "the answer as JSON", &json, 0, 0},
                                  EG_API_OPTS(&where),
                                  {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, NULL, NULL);
    const struct eg_api_request r = {.method = "GET", .path = "/stats"};
    return code == EG_PROCEED ? one_request(cmd, &where, &r, json) : code;
}

static int run_drain(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_api_opts where = {{0}, NULL, NULL};
    bool json = false;
    struct eg_buf body = {0};
    const struct eg_opt opts[] = {{"json", 0, EG_OPT_FLAG, NULL, "the answer as JSON", &json, 0, 0},
                                  EG_API_OPTS(&where),
                                  {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    eg_buf_str(&body, "{}");
    const struct eg_api_request r = {.method = "POST", .path = "/drain", .body = &body};
    code = one_request(cmd, &where, &r, json);
    eg_buf_free(&body);
    return code;
}

static int run_revoke(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_api_opts where = {{0}, NULL, NULL};
    bool json = false;
    const char *sub = NULL, *jti = NULL;
    struct eg_buf body = {0};
    const struct eg_opt opts[] = {
        {"sub", 0, EG_OPT_TEXT, "S",
         "all tokens of S, also those made later, until the time in the answer", &sub, 0, 0},
        {"jti", 0, EG_OPT_TEXT, "ID", "the token with this id", &jti, 0, 0},
        {"json", 0, EG_OPT_FLAG, NULL, "the answer as JSON", &json, 0, 0},
        EG_API_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (!sub == !jti)
        return eg_usage(cmd, sub ? "--sub and --jti do not go together"
                                 : "either --sub or --jti is needed");
    eg_buf_char(&body, '{');
    eg_json_kcstr(&body, sub ? "sub" : "jti", sub ? sub : jti);
    eg_buf_char(&body, '}');
    const struct eg_api_request r = {.method = "POST", .path = "/tokens/revoke", .body = &body};
    code = one_request(cmd, &where, &r, json);
    eg_buf_free(&body);
    return code;
}

#define GROUP "A running gateway (over its admin API)"

const struct eg_command eg_cmd_sessions = {
    .name = "sessions",
    .summary = "List sessions, look at one, act on it",
    .usage = "[FILTERS] | show ID | close ID | delete ID | abort ID | say ID TEXT | fork ID CURSOR",
    .run = run_sessions,
    .group = GROUP};
const struct eg_command eg_cmd_agents = {.name = "agents",
                                         .summary = "List agents, look at one, add or remove one",
                                         .usage = "[--limit N] | show ID | add ID | remove ID",
                                         .run = run_agents,
                                         .group = GROUP};
const struct eg_command eg_cmd_connections = {.name = "connections",
                                              .summary = "List connections, close one",
                                              .usage = "[FILTERS] | close ID",
                                              .run = run_connections,
                                              .group = GROUP};
const struct eg_command eg_cmd_turns = {.name = "turns",
                                        .summary =
                                            "List turns that have not ended or are dead, retry one",
                                        .usage = "[FILTERS] | retry SESSION TURN",
                                        .run = run_turns,
                                        .group = GROUP};
const struct eg_command eg_cmd_stats = {.name = "stats",
                                        .summary = "Print the gateway's numbers",
                                        .usage = "[--json]",
                                        .run = run_stats,
                                        .group = GROUP};
const struct eg_command eg_cmd_drain = {.name = "drain",
                                        .summary = "Let open turns end, then stop the gateway",
                                        .usage = "",
                                        .run = run_drain,
                                        .group = GROUP};
const struct eg_command eg_cmd_revoke = {.name = "revoke",
                                         .summary = "Revoke tokens; their connections end at once",
                                         .usage = "--sub S | --jti ID",
                                         .run = run_revoke,
                                         .group = GROUP};
