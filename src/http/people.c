/*
 * people.c - who is connected: from copies that the reactors give.
 *
 * HTTP threads. A page is the connections with the smallest ids above the last page's, so pages do
 * not shift while connections come and go.
 */
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"

static void add_or_null(struct eg_buf *b, const char *key, const char *text)
{
    eg_json_kcstr(b, key, text && *text ? text : NULL);
}

void eg_conn_json(struct eg_buf *b, const struct eg_conn_info *c)
{
    eg_buf_printf(b, "{\"id\":\"" EG_CONN_HEX "\"", c->id);
    eg_json_kcstr(b, "mode", c->mode ? c->mode : "ws");
    eg_json_kcstr(b, "role", c->worker_id && *c->worker_id ? "agent" : "client");
    add_or_null(b, "sub", c->sub);
    eg_json_kcstr(b, "address", c->addr ? c->addr : "");
    add_or_null(b, "agent", c->agent);
    add_or_null(b, "session_id", c->session);
    add_or_null(b, "worker_id", c->worker_id);
    eg_buf_str(b, ",\"client\":{");
    add_or_null(b, "name", c->client_name);
    add_or_null(b, "version", c->client_version);
    eg_buf_char(b, '}');
    eg_json_ktime(b, "since", c->since_ms);
    eg_json_kint(b, "cursor", (int64_t)c->cursor);
    eg_buf_str(b, ",\"queue\":{");
    eg_json_kint(b, "frames", c->queued_frames);
    eg_json_kint(b, "bytes", c->queued_bytes);
    eg_buf_char(b, '}');
    eg_json_kint(b, "received_frames", c->received_frames);
    eg_json_kint(b, "sent_frames", c->sent_frames);
    eg_buf_char(b, '}');
}

/* --- of one session --- */

struct of_session {
    const char *session;
    struct eg_buf *out;
    int n;
};

static void take_of_session(void *arg, const struct eg_conn_info *info)
{
    struct of_session *o = arg;
    if (!info->session || strcmp(info->session, o->session) != 0)
        return;
    if (o->n++)
        eg_buf_char(o->out, ',');
    eg_conn_json(o->out, info);
}

void eg_session_connections(struct eg_http *h, const char *session, struct eg_buf *b)
{
    struct of_session o = {session, b, 0};
    eg_buf_char(b, '[');
    eg_reactors_each(h->config.reactors, take_of_session, &o);
    eg_buf_char(b, ']');
}

/* --- a page of all --- */

struct one {
    eg_conn_id id;
    char *json;
};

struct page {
    struct eg_slice sub, agent, session;
    eg_conn_id after;
    bool has_after;
    struct one *at; /* sorted by id */
    int n, cap;
    bool failed;
};

static bool is(struct eg_slice want, const char *have)
{
    return !want.p || (have && eg_slice_is(want, have));
}

static void take(void *arg, const struct eg_conn_info *info)
{
    struct page *p = arg;
    struct eg_buf b = {0};
    if ((p->has_after && info->id <= p->after) || !is(p->sub, info->sub) ||
        !is(p->agent, info->agent) || !is(p->session, info->session))
        return;
    if (p->n == p->cap) {
        if (info->id >= p->at[p->n - 1].id)
            return;
        free(p->at[--p->n].json);
    }
    int i = p->n;
    while (i > 0 && p->at[i - 1].id > info->id)
        i--;
    memmove(&p->at[i + 1], &p->at[i], (size_t)(p->n - i) * sizeof *p->at);
    eg_conn_json(&b, info);
    eg_buf_char(&b, '\0');
    p->at[i] = (struct one){info->id, eg_buf_take(&b)};
    p->failed = p->failed || !p->at[i].json;
    p->n++;
}

void eg_h_connections_list(struct eg_exchange *x)
{
    struct page p = {.sub = eg_x_query(x, "sub"),
                     .agent = eg_x_query(x, "agent"),
                     .session = eg_x_query(x, "session")};
    struct eg_buf b = {0};
    int64_t at[2];
    int limit;
    bool bad;
    if (!eg_x_limit(x, &limit))
        return;
    p.has_after = eg_page_read(x, 'c', at, 2, NULL, &bad);
    if (bad)
        return;
    if (p.has_after)
        p.after = (eg_conn_id)at[0] << 32 | (eg_conn_id)at[1];
    p.cap = limit + 1;
    p.at = calloc((size_t)p.cap + 1, sizeof *p.at);
    if (!p.at) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return;
    }
    eg_reactors_each(x->http->config.reactors, take, &p);
    eg_buf_str(&b, "{\"connections\":[");
    for (int i = 0; i < p.n; i++) {
        if (i < limit && p.at[i].json)
            eg_buf_printf(&b, "%s%s", i ? "," : "", p.at[i].json);
        free(p.at[i].json);
    }
    eg_buf_char(&b, ']');
    if (p.n > limit)
        eg_page_next(&b, "c:%llu:%llu", (unsigned long long)(p.at[limit - 1].id >> 32),
                     (unsigned long long)(p.at[limit - 1].id & UINT32_MAX));
    else
        eg_page_end(&b);
    eg_buf_char(&b, '}');
    if (p.failed)
        b.err = EG_ENOMEM;
    eg_x_json(x, 200, &b);
    free(p.at);
}

/* --- disconnecting --- */

struct search {
    eg_conn_id id;
    bool found;
};

static void look(void *arg, const struct eg_conn_info *info)
{
    struct search *s = arg;
    s->found = s->found || info->id == s->id;
}

void eg_h_connection_delete(struct eg_exchange *x)
{
    struct search s = {0, false};
    struct eg_call call = {.kind = EG_CALL_KICK, .turn = -1};
    const struct eg_slice id = eg_x_id(x);
    bool ok = id.n == 16;
    for (size_t i = 0; ok && i < id.n; i++) {
        const char *digits = "0123456789abcdef";
        const char *d = strchr(digits, id.p[i]);
        ok = d != NULL;
        s.id = s.id << 4 | (ok ? (eg_conn_id)(d - digits) : 0);
    }
    if (ok)
        eg_reactors_each(x->http->config.reactors, look, &s);
    if (!s.found) {
        eg_x_problem(x, 0, EG_CODE_not_found, "there is no such connection", NULL);
        return;
    }
    call.conn = s.id;
    if (eg_x_call(x, &call, "connection.delete", x->path))
        eg_x_nothing(x);
}
