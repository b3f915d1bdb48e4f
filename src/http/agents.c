/*
 * agents.c - served names and their workers.
 *
 * HTTP threads. What is registered and the numbers of turns come from a reader; workers live in the
 * core's memory and are asked for there.
 */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"

struct agent {
    char id[EG_ID_MAX + 1];
    int64_t registered_ms;
    int64_t waiting, running, dead, oldest_ms;
};

struct agents {
    struct agent *at;
    int n, cap;
    const char *after; /* ids up to this were on earlier pages */
    const char *only;
    bool failed;
};

static void take_agent(void *arg, const char *id, int64_t created_ms)
{
    struct agents *l = arg;
    if ((l->after && strcmp(id, l->after) <= 0) || (l->only && strcmp(id, l->only) != 0) ||
        l->n == l->cap || strlen(id) > EG_ID_MAX)
        return;
    struct agent *a = &l->at[l->n++];
    strcpy(a->id, id);
    a->registered_ms = created_ms;
}

static enum eg_err read_agents(struct eg_reader *r, struct agents *l, int shown)
{
    enum eg_err err = eg_reader_agents(r, take_agent, l);
    for (int i = 0; err == EG_OK && i < l->n && i < shown; i++) {
        struct agent *a = &l->at[i];
        err = eg_reader_agent_turns(r, eg_slice_cstr(a->id), &a->waiting, &a->running, &a->dead,
                                    &a->oldest_ms);
    }
    return err;
}

/* The workers of all agents, or of one, as the core says; NULL: answered. */
static cJSON *live(struct eg_exchange *x, const char *only)
{
    struct eg_call call = {.kind = EG_CALL_AGENTS_INFO, .agent = eg_slice_cstr(only), .turn = -1};
    cJSON *all = NULL;
    eg_core_call(x->http->config.core, &call);
    if (call.code == EG_CODE_NONE && call.json.err == EG_OK)
        all = cJSON_ParseWithLength(call.json.p, call.json.n);
    eg_buf_free(&call.json);
    if (!all)
        eg_x_problem(x, 0, call.code != EG_CODE_NONE ? call.code : EG_CODE_internal, NULL, NULL);
    return all;
}

static void add_workers(struct eg_buf *b, const cJSON *all, const char *id)
{
    const cJSON *e;
    char *text = NULL;
    eg_json_key(b, "workers");
    cJSON_ArrayForEach(e, all)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "id"));
        if (name && strcmp(name, id) == 0) {
            text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(e, "workers"));
            break;
        }
    }
    eg_buf_str(b, text ? text : "[]");
    b->err = e && !text && b->err == EG_OK ? EG_ENOMEM : b->err;
    free(text);
}

static void add_agent(struct eg_buf *b, const struct agent *a, const cJSON *all)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "id", a->id);
    eg_json_ktime(b, "registered", a->registered_ms);
    add_workers(b, all, a->id);
    eg_json_kint(b, "queue_depth", a->waiting);
    eg_json_kint(b, "open_turns", a->running);
    eg_json_kint(b, "dead_turns", a->dead);
    if (a->oldest_ms)
        eg_json_ktime(b, "oldest_waiting", a->oldest_ms);
    else
        eg_json_kcstr(b, "oldest_waiting", NULL);
    eg_buf_char(b, '}');
}

/* Reads into l, of which `shown` entries are wanted with their numbers. False: answered. */
static bool gather(struct eg_exchange *x, struct agents *l, int shown)
{
    struct eg_reader *r = eg_x_reader(x);
    if (!r)
        return false;
    const enum eg_err err = read_agents(r, l, shown);
    if (err != EG_OK)
        eg_x_read_failed(x, err, eg_reader_why(r));
    eg_x_return(x, r);
    return err == EG_OK;
}

void eg_h_agents_list(struct eg_exchange *x)
{
    struct agents l = {0};
    struct eg_buf b = {0}, after = {0};
    cJSON *all = NULL;
    int limit;
    bool bad;
    if (!eg_x_limit(x, &limit))
        return;
    if (eg_page_read(x, 'a', NULL, 0, &after, &bad))
        l.after = after.p;
    if (bad)
        goto out;
    l.cap = limit + 1;
    l.at = calloc((size_t)l.cap, sizeof *l.at);
    if (!l.at) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        goto out;
    }
    if (!gather(x, &l, limit) || !(all = live(x, NULL)))
        goto out;
    eg_buf_str(&b, "{\"agents\":[");
    for (int i = 0; i < l.n && i < limit; i++) {
        if (i)
            eg_buf_char(&b, ',');
        add_agent(&b, &l.at[i], all);
    }
    eg_buf_char(&b, ']');
    if (l.n > limit)
        eg_page_next(&b, "a:%s", l.at[limit - 1].id);
    else
        eg_page_end(&b);
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
out:
    cJSON_Delete(all);
    eg_buf_free(&after);
    free(l.at);
}

static void answer_agent(struct eg_exchange *x, int status)
{
    struct agent one = {.id = ""};
    struct agents l = {.at = &one, .cap = 1, .only = x->texts[2].p};
    struct eg_buf b = {0};
    cJSON *all = NULL;
    if (!gather(x, &l, 1))
        return;
    if (l.n == 0) {
        eg_x_problem(x, 0, EG_CODE_agent_not_found, NULL, NULL);
        return;
    }
    if (!(all = live(x, one.id)))
        return;
    add_agent(&b, &one, all);
    eg_x_json(x, status, &b);
    cJSON_Delete(all);
}

void eg_h_agent_get(struct eg_exchange *x)
{
    answer_agent(x, 200);
}

void eg_h_agent_put(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_AGENT_PUT, .agent = eg_x_id(x), .turn = -1};
    if (eg_x_check_body(x, "") && eg_x_call(x, &call, "agent.put", x->path))
        answer_agent(x, call.created ? 201 : 200);
}

void eg_h_agent_delete(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_AGENT_DELETE, .agent = eg_x_id(x), .turn = -1};
    if (eg_x_call(x, &call, "agent.delete", x->path))
        eg_x_nothing(x);
}
