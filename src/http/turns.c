/*
 * turns.c - turns that have not ended, and dead ones.
 */
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"

static const char *const states[] = {[EG_TURN_QUEUED] = "queued",
                                     [EG_TURN_RUNNING] = "running",
                                     [EG_TURN_WAITING] = "waiting",
                                     [EG_TURN_ABORTING] = "aborting",
                                     [EG_TURN_DEAD] = "dead"};
#define STATES (int)(sizeof states / sizeof *states)

static void add_or_null(struct eg_buf *b, const char *key, const char *text)
{
    eg_json_kcstr(b, key, *text ? text : NULL);
}

void eg_turn_json(struct eg_buf *b, const struct eg_turn_row *row, const char *session,
                  const char *agent)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "session_id", session);
    eg_json_kcstr(b, "agent", agent);
    eg_json_kint(b, "turn", (int64_t)row->turn);
    eg_json_kcstr(b, "state", states[row->state]);
    eg_json_kint(b, "attempt", row->attempt);
    eg_json_ktime(b, "created", row->created_ms);
    add_or_null(b, "worker_id", row->worker);
    if (row->until_ms && row->state != EG_TURN_QUEUED && row->state != EG_TURN_DEAD)
        eg_json_ktime(b, "until", row->until_ms);
    else
        eg_json_kcstr(b, "until", NULL);
    add_or_null(b, "error", row->error);
    eg_buf_char(b, '}');
}

struct page {
    struct eg_buf out;
    int n, limit;
    int64_t sid;
    uint64_t turn;
    bool more;
};

static void take_turn(void *arg, const struct eg_turn_row *row, const char *session_id,
                      const char *agent)
{
    struct page *p = arg;
    if (p->n == p->limit) {
        p->more = true;
        return;
    }
    if (p->n++)
        eg_buf_char(&p->out, ',');
    eg_turn_json(&p->out, row, session_id, agent);
    p->sid = row->sid;
    p->turn = row->turn;
}

static bool take_state(struct eg_exchange *x, int *out)
{
    const struct eg_slice s = eg_x_query(x, "state");
    *out = -1;
    if (!s.p)
        return true;
    for (int i = 0; i < STATES; i++) {
        if (eg_slice_is(s, states[i])) {
            *out = i;
            return true;
        }
    }
    eg_x_invalid(x, "state", "must be queued, running, waiting, aborting or dead");
    return false;
}

void eg_h_turns_list(struct eg_exchange *x)
{
    struct page p = {.limit = 0};
    struct eg_session_row row = {.sid = 0};
    int64_t at[2] = {0, 0};
    int state;
    bool bad;
    const struct eg_slice session = eg_x_query(x, "session");
    if (!eg_x_limit(x, &p.limit) || !take_state(x, &state))
        return;
    (void)eg_page_read(x, 't', at, 2, NULL, &bad);
    struct eg_reader *r = bad ? NULL : eg_x_reader(x);
    if (!r)
        return;
    eg_buf_str(&p.out, "{\"turns\":[");
    enum eg_err err = EG_ENOTFOUND;
    if (!session.p || eg_x_session(x, r, session, &row)) {
        err =
            eg_reader_turns(r, row.sid, state, at[0], (uint64_t)at[1], p.limit + 1, take_turn, &p);
        if (err != EG_OK)
            eg_x_read_failed(x, err, eg_reader_why(r));
    }
    eg_x_return(x, r);
    if (err == EG_OK) {
        eg_buf_char(&p.out, ']');
        if (p.more)
            eg_page_next(&p.out, "t:%lld:%llu", (long long)p.sid, (unsigned long long)p.turn);
        else
            eg_page_end(&p.out);
        eg_buf_char(&p.out, '}');
        eg_x_json(x, 200, &p.out);
    }
    eg_buf_free(&p.out);
}

void eg_h_turn_retry(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_TURN_RETRY, .session_id = eg_x_id(x)};
    struct eg_buf b = {0};
    char *end = NULL;
    const struct eg_slice turn = x->param[1];
    call.turn = turn.n <= 16 ? strtoll(x->texts[3].p, &end, 10) : 0;
    if (call.turn <= 0 || call.turn > EG_JSON_INT_MAX || end != turn.p + turn.n) {
        eg_x_problem(x, 0, EG_CODE_not_found, "a turn is a number", NULL);
        return;
    }
    if (!eg_x_check_body(x, "") || !eg_x_call(x, &call, "turn.retry", x->path))
        return;
    eg_buf_char(&b, '{');
    eg_json_kstr(&b, "session_id", call.session_id);
    eg_json_kint(&b, "turn", (int64_t)call.out_turn);
    eg_json_kint(&b, "retried", call.turn);
    eg_buf_char(&b, '}');
    eg_x_json(x, 202, &b);
}
