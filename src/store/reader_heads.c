/*
 * reader_heads.c - what a reader asks of sessions' heads and of turns in bulk: with the changes
 * that its own transaction sees laid over the tables (heads.h), so that all of an answer is of one
 * moment.
 *
 * Threads: as reader.c. The heads of one transaction are kept for the next, which reads only what
 * came since; large ones are given back at once.
 */
#include <stdio.h>
#include <string.h>

#include "store/gate.h"
#include "store/reader_int.h"

#define KEEP_ENTRIES 8192 /* of heads that stay in memory */

/* ---- SQL functions ---- */

/* eg_updated(sid, updated_ms of the table): as it is now. */
static void sql_updated(sqlite3_context *c, int n, sqlite3_value **v)
{
    const struct eg_reader *r = sqlite3_user_data(c);
    const struct eg_head *h = eg_heads_session(&r->heads->fill, sqlite3_value_int64(v[0]));
    (void)n;
    sqlite3_result_int64(c, h != NULL ? h->updated_ms : sqlite3_value_int64(v[1]));
}

/* eg_changed(sid, turn): whether the table's row is not what is true now. */
static void sql_changed(sqlite3_context *c, int n, sqlite3_value **v)
{
    const struct eg_reader *r = sqlite3_user_data(c);
    (void)n;
    sqlite3_result_int(c, eg_heads_turn(&r->heads->fill, sqlite3_value_int64(v[0]),
                                        (uint64_t)sqlite3_value_int64(v[1])) != NULL);
}

enum eg_err eg_reader_heads_open(struct eg_reader *r)
{
    r->heads = eg_heads_new();
    if (r->heads == NULL) {
        return EG_ENOMEM;
    }
    int rc =
        sqlite3_create_function(r->db, "eg_updated", 2, SQLITE_UTF8, r, sql_updated, NULL, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_create_function(r->db, "eg_changed", 2, SQLITE_UTF8, r, sql_changed, NULL,
                                     NULL);
    }
    return rc == SQLITE_OK ? EG_OK : eg_reader_failed(r, rc);
}

/* ---- transactions ---- */

enum eg_err eg_reader_enter(struct eg_reader *r)
{
    eg_gate_enter();
    const int rc = eg_heads_begin(r->heads, r->db);
    if (rc == SQLITE_OK) {
        return EG_OK;
    }
    const enum eg_err e = eg_reader_failed(r, rc);
    (void)eg_db_leave(r->db);
    eg_gate_leave();
    return e;
}

sqlite3_stmt *eg_reader_begin_heads(struct eg_reader *r, enum eg_reader_statement which,
                                    enum eg_err *e)
{
    sqlite3_stmt *st = eg_reader_statement(r, which, e);
    if (st != NULL && (*e = eg_reader_enter(r)) != EG_OK) {
        st = NULL;
    }
    return st;
}

void eg_reader_relax(struct eg_reader *r)
{
    const struct eg_heads_gen *g = &r->heads->fill;
    if (g->cap > KEEP_ENTRIES || g->tcap > KEEP_ENTRIES) {
        eg_heads_drop(&r->heads->fill);
    }
}

/* ---- turns ---- */

/* Id and agent of the session asked for last. */
struct names {
    int64_t sid;
    bool there;
    char id[EG_ID_MAX + 1], agent[EG_ID_MAX + 1];
};

static bool look_up(struct eg_reader *r, struct names *n, int64_t sid, enum eg_err *e)
{
    if (n->sid != sid) {
        sqlite3_stmt *st = eg_reader_statement(r, EG_RS_NAMES, e);
        if (st == NULL) {
            return false;
        }
        (void)sqlite3_bind_int64(st, 1, sid);
        n->sid = sid;
        n->there = eg_reader_step(r, st, e);
        if (n->there) {
            eg_db_text(st, 0, n->id, sizeof(n->id));
            eg_db_text(st, 1, n->agent, sizeof(n->agent));
        }
        (void)sqlite3_reset(st);
    }
    return n->there;
}

struct listing {
    struct eg_reader *r;
    struct names names;
    int state, left;
    eg_reader_turn_fn *fn;
    void *arg;
    enum eg_err err;
};

static bool list_turn(void *arg, const struct eg_turn_row *row)
{
    struct listing *l = arg;
    if ((l->state < 0 || (int)row->state == l->state) &&
        look_up(l->r, &l->names, row->sid, &l->err)) {
        l->fn(l->arg, row, l->names.id, l->names.agent);
        l->left--;
    }
    return l->left > 0 && l->err == EG_OK;
}

enum eg_err eg_reader_turns(struct eg_reader *r, int64_t sid, int state, int64_t after_sid,
                            uint64_t after_turn, int limit, eg_reader_turn_fn *fn, void *arg)
{
    enum eg_err e;
    const struct eg_heads_gen *const gens[] = {&r->heads->fill};
    const struct eg_turn_span span = {sid > 0 ? sid : 0, after_sid, after_turn};
    struct listing l = {.r = r, .state = state, .left = limit, .fn = fn, .arg = arg};
    if (limit <= 0) {
        return EG_OK;
    }
    sqlite3_stmt *st = eg_reader_begin_heads(r, sid > 0 ? EG_RS_TURNS_OF : EG_RS_TURNS, &e);
    if (st == NULL) {
        return e;
    }
    if (sid > 0) {
        (void)sqlite3_bind_int64(st, 1, sid);
    }
    (void)sqlite3_bind_int(st, 2, state);
    (void)sqlite3_bind_int64(st, 3, after_sid);
    (void)sqlite3_bind_int64(st, 4, (int64_t)after_turn);
    const int rc = eg_heads_walk_turns(gens, 1, st, &span, list_turn, &l);
    e = rc == SQLITE_OK ? l.err : eg_reader_failed(r, rc);
    eg_reader_end(r, st);
    eg_reader_relax(r);
    return e;
}

struct counts {
    int64_t *waiting, *running, *dead, *oldest_ms;
};

static void count(const struct counts *c, int state, int64_t n, int64_t since)
{
    if (state == EG_TURN_DEAD) {
        *c->dead += n;
        return;
    }
    if (state == EG_TURN_RUNNING || state == EG_TURN_ABORTING) {
        *c->running += n;
    } else {
        *c->waiting += n;
    }
    if (*c->oldest_ms == 0 || since < *c->oldest_ms) {
        *c->oldest_ms = since;
    }
}

enum eg_err eg_reader_agent_turns(struct eg_reader *r, struct eg_slice agent, int64_t *waiting,
                                  int64_t *running, int64_t *dead, int64_t *oldest_ms)
{
    enum eg_err e;
    const struct counts c = {waiting, running, dead, oldest_ms};
    struct names names = {0};
    *waiting = *running = *dead = *oldest_ms = 0;
    sqlite3_stmt *st = eg_reader_begin_heads(r, EG_RS_AGENT_TURNS, &e);
    if (st == NULL) {
        return e;
    }
    eg_db_bind(st, 1, agent);
    while (eg_reader_step(r, st, &e)) {
        count(&c, sqlite3_column_int(st, 0), sqlite3_column_int64(st, 1),
              sqlite3_column_int64(st, 2));
    }
    const struct eg_heads_gen *g = &r->heads->fill;
    for (uint32_t i = 0; e == EG_OK && i < g->tn; i++) {
        if (g->t[i].state != EG_TURN_GONE && look_up(r, &names, g->t[i].sid, &e) &&
            eg_slice_is(agent, names.agent)) {
            count(&c, g->t[i].state, 1, g->t[i].created_ms);
        }
    }
    eg_reader_end(r, st);
    eg_reader_relax(r);
    return e;
}

enum eg_err eg_reader_waiting_turns(struct eg_reader *r, int64_t *out)
{
    enum eg_err e;
    *out = 0;
    sqlite3_stmt *st = eg_reader_begin_heads(r, EG_RS_WAITING_TURNS, &e);
    if (st == NULL) {
        return e;
    }
    (void)sqlite3_bind_int(st, 1, EG_TURN_QUEUED);
    (void)sqlite3_bind_int(st, 2, EG_TURN_WAITING);
    if (eg_reader_step(r, st, &e)) {
        *out = sqlite3_column_int64(st, 0);
    }
    const struct eg_heads_gen *g = &r->heads->fill;
    for (uint32_t i = 0; i < g->tn; i++) {
        *out += g->t[i].state == EG_TURN_QUEUED || g->t[i].state == EG_TURN_WAITING;
    }
    eg_reader_end(r, st);
    eg_reader_relax(r);
    return e;
}
