/*
 * sessions.c - sessions as operators see them, and what they can do to one.
 *
 * HTTP threads. Reading uses a reader and copies of the live connections; a change is a call to the
 * core.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "http/http_int.h"

#define TURNS_AT_ONCE 32 /* looked through for the first that is not dead */
#define SECONDS_CHARS 15 /* of a time: as milliseconds it fits into 64 bits */
#define SUBS_MAX 1000    /* read positions shown of one session */

/* A row of a listing. */
struct listed {
    struct eg_session_row row;
    int64_t connections;
    uint64_t open_turn; /* 0: none */
    UT_hash_handle hh;  /* by id */
};

struct listing {
    struct listed *at;
    int n, cap;
    struct listed *by_id;
};

static void take_row(void *arg, const struct eg_session_row *row)
{
    struct listing *l = arg;
    if (l->n < l->cap)
        l->at[l->n++].row = *row;
}

/* --- numbers that are not in the row --- */

struct first_turn {
    uint64_t open, last;
    int n;
};

static void look_at_turn(void *arg, const struct eg_turn_row *row, const char *session_id,
                         const char *agent)
{
    struct first_turn *f = arg;
    (void)session_id;
    (void)agent;
    f->n++;
    f->last = row->turn;
    if (f->open == 0 && row->state != EG_TURN_DEAD)
        f->open = row->turn;
}

static enum eg_err first_open_turn(struct eg_reader *r, int64_t sid, uint64_t *out)
{
    struct first_turn f = {0};
    enum eg_err err = EG_OK;
    do {
        f.n = 0;
        err = eg_reader_turns(r, sid, -1, sid, f.last, TURNS_AT_ONCE, look_at_turn, &f);
    } while (err == EG_OK && f.open == 0 && f.n == TURNS_AT_ONCE);
    *out = f.open;
    return err;
}

static void count_connection(void *arg, const struct eg_conn_info *info)
{
    struct listing *l = arg;
    struct listed *found;
    if (!info->session)
        return;
    HASH_FIND_STR(l->by_id, info->session, found);
    if (found)
        found->connections++;
}

static void count_connections(struct eg_http *h, struct listing *l)
{
    if (eg_metric_get(EG_M_connections) <= 0)
        return;
    for (int i = 0; i < l->n; i++) {
        struct listed *s = &l->at[i];
        HASH_ADD_STR(l->by_id, row.id, s);
    }
    eg_reactors_each(h->config.reactors, count_connection, l);
    HASH_CLEAR(hh, l->by_id);
}

/* --- writing --- */

static void session_members(struct eg_buf *b, const struct eg_session_row *row, uint64_t open_turn)
{
    eg_json_kcstr(b, "id", row->id);
    eg_json_kcstr(b, "agent", row->agent);
    eg_json_kcstr(b, "owner", row->owner);
    eg_json_kcstr(b, "state", row->state == EG_SESSION_OPEN ? "open" : "closed");
    eg_json_kint(b, "cursor", (int64_t)row->cursor);
    eg_json_kint(b, "oldest_cursor", (int64_t)row->oldest);
    eg_json_kint(b, "bytes", row->bytes);
    eg_json_ktime(b, "created", row->created_ms);
    eg_json_ktime(b, "last_activity", row->updated_ms);
    if (row->closed_ms)
        eg_json_ktime(b, "closed", row->closed_ms);
    else
        eg_json_kcstr(b, "closed", NULL);
    if (open_turn)
        eg_json_kint(b, "open_turn", (int64_t)open_turn);
    else
        eg_json_kcstr(b, "open_turn", NULL);
}

static void write_listing(struct eg_exchange *x, const struct listing *l, int limit)
{
    struct eg_buf b = {0};
    const int n = l->n < limit ? l->n : limit;
    eg_buf_str(&b, "{\"sessions\":[");
    for (int i = 0; i < n; i++) {
        eg_buf_str(&b, i ? ",{" : "{");
        session_members(&b, &l->at[i].row, l->at[i].open_turn);
        eg_json_kint(&b, "connections", l->at[i].connections);
        eg_buf_char(&b, '}');
    }
    eg_buf_char(&b, ']');
    if (l->n > limit)
        eg_page_next(&b, "s:%lld:%lld", (long long)l->at[limit - 1].row.updated_ms,
                     (long long)l->at[limit - 1].row.sid);
    else
        eg_page_end(&b);
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
}

/* --- listing --- */

/* Seconds with at most three decimals, as milliseconds. */
static bool take_seconds(struct eg_exchange *x, const char *name, int64_t *out)
{
    const struct eg_slice s = eg_x_query(x, name);
    int64_t ms = 0;
    int decimals = -1;
    bool ok = s.n > 0 && s.n <= SECONDS_CHARS && s.p[0] != '.' && s.p[s.n - 1] != '.';
    if (!s.p)
        return true;
    for (size_t i = 0; ok && i < s.n; i++) {
        if (s.p[i] == '.' && decimals < 0) {
            decimals = 0;
        } else if (s.p[i] >= '0' && s.p[i] <= '9' && decimals < 3) {
            ms = ms * 10 + (s.p[i] - '0');
            decimals += decimals >= 0;
        } else {
            ok = false;
        }
    }
    for (int i = decimals < 0 ? 0 : decimals; i < 3; i++)
        ms *= 10;
    *out = ms;
    if (!ok)
        eg_x_invalid(x, name, "must be seconds since 1970, with at most three decimals");
    return ok;
}

static bool take_filters(struct eg_exchange *x, struct eg_session_query *q)
{
    int64_t at[2];
    bool bad;
    const struct eg_slice state = eg_x_query(x, "state");
    q->agent = eg_x_query(x, "agent");
    q->owner = eg_x_query(x, "owner");
    q->text = eg_x_query(x, "q");
    q->state = -1;
    if (state.p && eg_slice_is(state, "open")) {
        q->state = EG_SESSION_OPEN;
    } else if (state.p && eg_slice_is(state, "closed")) {
        q->state = EG_SESSION_CLOSED;
    } else if (state.p) {
        eg_x_invalid(x, "state", "must be open or closed");
        return false;
    }
    if (q->text.n > EG_ID_MAX) {
        eg_x_invalid(x, "q", "must have at most 128 bytes");
        return false;
    }
    if (!take_seconds(x, "active_since", &q->active_since_ms) || !eg_x_limit(x, &q->limit))
        return false;
    if (eg_page_read(x, 's', at, 2, NULL, &bad)) {
        q->after_updated_ms = at[0];
        q->after_sid = at[1];
    }
    return !bad;
}

void eg_h_sessions_list(struct eg_exchange *x)
{
    struct eg_session_query q = {.state = -1};
    struct listing l = {0};
    struct eg_reader *r = NULL;
    if (!take_filters(x, &q))
        return;
    const int limit = q.limit;
    q.limit = l.cap = limit + 1; /* one more tells whether there is a next page */
    l.at = calloc((size_t)l.cap, sizeof *l.at);
    if (!l.at) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return;
    }
    r = eg_x_reader(x);
    if (!r)
        goto out;
    enum eg_err err = eg_reader_sessions(r, &q, take_row, &l);
    for (int i = 0; err == EG_OK && i < l.n && i < limit; i++)
        err = first_open_turn(r, l.at[i].row.sid, &l.at[i].open_turn);
    if (err != EG_OK)
        eg_x_read_failed(x, err, eg_reader_why(r));
    eg_x_return(x, r);
    if (err == EG_OK) {
        count_connections(x->http, &l);
        write_listing(x, &l, limit);
    }
out:
    free(l.at);
}

/* --- one session --- */

struct detail {
    struct eg_buf turns, acked;
    int64_t queue;
    int n_acked;
    uint64_t open_turn;
};

static void take_turn(void *arg, const struct eg_turn_row *row, const char *session_id,
                      const char *agent)
{
    struct detail *d = arg;
    if (d->turns.n)
        eg_buf_char(&d->turns, ',');
    eg_turn_json(&d->turns, row, session_id, agent);
    d->queue += row->state == EG_TURN_QUEUED || row->state == EG_TURN_WAITING;
}

static void take_ack(void *arg, const char *sub, int64_t cursor)
{
    struct detail *d = arg;
    if (d->n_acked++ >= SUBS_MAX)
        return;
    eg_buf_str(&d->acked, d->acked.n ? ",{" : "{");
    eg_json_kcstr(&d->acked, "sub", sub);
    eg_json_kint(&d->acked, "cursor", cursor);
    eg_buf_char(&d->acked, '}');
}

static void write_detail(struct eg_exchange *x, const struct eg_session_row *row, struct detail *d)
{
    struct eg_buf b = {0};
    char epoch[EG_EPOCH_MAX + 1];
    eg_core_epoch(x->http->config.core, row->sid, epoch);
    eg_buf_char(&b, '{');
    session_members(&b, row, d->open_turn);
    eg_json_kcstr(&b, "last_worker", *row->last_worker ? row->last_worker : NULL);
    eg_json_kcstr(&b, "epoch", epoch);
    eg_json_key(&b, "connections");
    eg_session_connections(x->http, row->id, &b);
    eg_json_kint(&b, "queue", d->queue);
    eg_json_key(&b, "turns");
    eg_buf_char(&b, '[');
    eg_buf_add(&b, d->turns.p, d->turns.n);
    eg_buf_str(&b, "],\"acked\":[");
    eg_buf_add(&b, d->acked.p, d->acked.n);
    eg_buf_str(&b, "]}");
    if (d->turns.err != EG_OK || d->acked.err != EG_OK)
        b.err = EG_ENOMEM;
    eg_x_json(x, 200, &b);
}

void eg_h_session_get(struct eg_exchange *x)
{
    struct eg_session_row row;
    struct detail d = {0};
    struct eg_reader *r = eg_x_reader(x);
    enum eg_err err = EG_ENOTFOUND;
    if (!r)
        return;
    if (eg_x_session(x, r, eg_x_id(x), &row)) {
        err = eg_reader_turns(r, row.sid, -1, row.sid, 0, EG_PAGE_MAX, take_turn, &d);
        if (err == EG_OK)
            err = first_open_turn(r, row.sid, &d.open_turn);
        if (err == EG_OK)
            err = eg_reader_acks(r, row.sid, take_ack, &d);
        if (err != EG_OK)
            eg_x_read_failed(x, err, eg_reader_why(r));
    }
    eg_x_return(x, r);
    if (err == EG_OK)
        write_detail(x, &row, &d);
    eg_buf_free(&d.turns);
    eg_buf_free(&d.acked);
}

/* --- acts --- */

void eg_h_session_delete(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_DELETE, .session_id = eg_x_id(x), .turn = -1};
    if (eg_x_call(x, &call, "session.delete", x->path))
        eg_x_nothing(x);
}

void eg_h_session_close(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_CLOSE, .session_id = eg_x_id(x), .turn = -1};
    struct eg_buf b = {0};
    if (!eg_x_check_body(x, "") || !eg_x_call(x, &call, "session.close", x->path))
        return;
    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "id", call.session_id);
    eg_json_kcstr(&b, "state", "closed");
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
}

void eg_h_session_fork(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_FORK, .session_id = eg_x_id(x), .turn = -1};
    struct eg_buf b = {0};
    char detail[256];
    int64_t at = 0;
    if (!eg_x_check_body(x, "at") || !eg_x_int(x, "at", true, 0, EG_JSON_INT_MAX, &at))
        return;
    call.cursor = (uint64_t)at;
    snprintf(detail, sizeof detail, "%.*s at %lld", (int)call.session_id.n, call.session_id.p,
             (long long)at);
    call.audit_who = eg_slice_cstr(x->claims.sub);
    call.audit_from = eg_slice_cstr(x->addr);
    call.audit_action = EG_LIT("session.fork");
    call.audit_detail = eg_slice_cstr(detail);
    eg_core_call(x->http->config.core, &call);
    if (call.code == EG_CODE_invalid_request) {
        eg_x_invalid(x, "at", "is not between the session's oldest cursor and its head");
        return;
    }
    if (call.code != EG_CODE_NONE) {
        eg_x_problem(x, 0, call.code, NULL, NULL);
        return;
    }
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "session_id", call.out_session_id);
    eg_json_kint(&b, "cursor", (int64_t)call.out_cursor);
    eg_json_kstr(&b, "forked_from", call.session_id);
    eg_buf_char(&b, '}');
    eg_x_json(x, 201, &b);
}

void eg_h_session_say(struct eg_exchange *x)
{
    char source[EG_ID_MAX + 16];
    snprintf(source, sizeof source, "operator:%s", x->claims.sub);
    if (eg_x_check_body(x, EG_MESSAGE_FIELDS))
        eg_x_message(x, NULL, eg_slice_cstr(source));
}

void eg_h_session_abort(struct eg_exchange *x)
{
    if (eg_x_check_body(x, EG_ABORT_FIELDS))
        eg_x_abort(x, NULL);
}
