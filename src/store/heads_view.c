/*
 * heads_view.c - see heads.h: heads that a reader fills for its own transaction, and turns as they
 * are: a table's rows with what has changed since laid over them.
 *
 * Threads: that of the connection.
 */
#include <stdlib.h>
#include <string.h>

#include "store/db.h"
#include "store/heads.h"

int eg_heads_settled(sqlite3 *db, int64_t *out)
{
    *out = 0;
    const enum eg_err e =
        eg_db_int(db, "SELECT coalesce((SELECT value FROM meta WHERE key='settled'),0)", out);
    return e == EG_OK ? SQLITE_OK : sqlite3_extended_errcode(db);
}

int eg_heads_catch_up(struct eg_heads *h, sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int64_t settled = 0;
    eg_heads_unshared(&h->lock);
    int rc = eg_heads_settled(db, &settled);
    if (rc == SQLITE_OK && (settled != h->settled || h->fill.upto < settled)) {
        eg_heads_empty(&h->fill); /* older ones are in the tables */
        h->settled = h->fill.upto = settled;
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(db, "SELECT seq, body FROM changes WHERE seq>?1 ORDER BY seq", -1,
                                &st, NULL);
    }
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(st, 1, h->fill.upto);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
            const enum eg_err e =
                eg_heads_apply(&h->fill, eg_db_blob(st, 1), sqlite3_column_int64(st, 0));
            if (e != EG_OK) {
                rc = e == EG_ENOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
                break;
            }
        }
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(st);
    if (rc != SQLITE_OK) {
        eg_heads_drop(&h->fill); /* from the start the next time */
    }
    return rc;
}

int eg_heads_begin(struct eg_heads *h, sqlite3 *db)
{
    int rc = eg_db_leave(db);
    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(db, "BEGIN", NULL, NULL, NULL);
    }
    return rc == SQLITE_OK ? eg_heads_catch_up(h, db) : rc;
}

void eg_heads_patch(const struct eg_heads *h, struct eg_session_row *row)
{
    const struct eg_head *e = eg_heads_session(&h->fill, row->sid);
    if (e != NULL) {
        eg_heads_to_row(&h->fill, e, row);
    }
}

/* ---- turns ---- */

struct over {
    const struct eg_head_turn *t;
    int gen;
};

static int compare(int64_t sid, uint64_t turn, int64_t sid2, uint64_t turn2)
{
    if (sid != sid2) {
        return sid < sid2 ? -1 : 1;
    }
    return turn < turn2 ? -1 : turn > turn2;
}

static int by_turn(const void *a, const void *b)
{
    const struct over *x = a;
    const struct over *y = b;
    const int c = compare(x->t->sid, x->t->turn, y->t->sid, y->t->turn);
    return c != 0 ? c : x->gen - y->gen;
}

/* Adds t, newest first in each generation, where the span has it. */
static uint32_t take(struct over *to, uint32_t n, const struct eg_head_turn *t, int gen,
                     const struct eg_turn_span *span)
{
    if (compare(t->sid, t->turn, span->after_sid, span->after_turn) > 0) {
        to[n++] = (struct over){t, gen};
    }
    return n;
}

/* What the generations have of the span, in order, once each; NULL without memory. */
static struct over *collect(const struct eg_heads_gen *const *gens, int n,
                            const struct eg_turn_span *span, uint32_t *found)
{
    size_t most = 1;
    for (int i = 0; i < n; i++) {
        if (span->sid == 0) {
            most += gens[i]->tn;
            continue;
        }
        const struct eg_head_turn *t = eg_heads_turns(gens[i], span->sid);
        for (; t != NULL; t = t->prev != 0 ? &gens[i]->t[t->prev - 1] : NULL) {
            most++;
        }
    }
    struct over *o = malloc(most * sizeof(*o));
    uint32_t count = 0;
    for (int i = 0; o != NULL && i < n; i++) {
        for (uint32_t k = 0; span->sid == 0 && k < gens[i]->tn; k++) {
            count = take(o, count, &gens[i]->t[k], i, span);
        }
        const struct eg_head_turn *t = span->sid != 0 ? eg_heads_turns(gens[i], span->sid) : NULL;
        for (; t != NULL; t = t->prev != 0 ? &gens[i]->t[t->prev - 1] : NULL) {
            count = take(o, count, t, i, span);
        }
    }
    *found = 0;
    if (o != NULL && count > 0) {
        qsort(o, count, sizeof(*o), by_turn);
        uint32_t kept = 1;
        for (uint32_t i = 1; i < count; i++) {
            if (o[i].t->sid != o[kept - 1].t->sid || o[i].t->turn != o[kept - 1].t->turn) {
                o[kept++] = o[i];
            }
        }
        *found = kept;
    }
    return o;
}

int eg_heads_walk_turns(const struct eg_heads_gen *const *gens, int n, sqlite3_stmt *st,
                        const struct eg_turn_span *span, eg_heads_turn_fn *fn, void *arg)
{
    struct eg_turn_row row;
    struct eg_turn_row other;
    uint32_t found = 0;
    uint32_t i = 0;
    struct over *o = collect(gens, n, span, &found);
    if (o == NULL) {
        return SQLITE_NOMEM;
    }
    int rc = SQLITE_ROW;
    bool more = true;
    while (more && (rc == SQLITE_ROW || i < found)) {
        if (rc == SQLITE_ROW) {
            rc = sqlite3_step(st);
            if (rc == SQLITE_ROW) {
                eg_db_turn(st, &row);
            } else if (rc != SQLITE_DONE) {
                break;
            }
        }
        /* What comes before the table's row, or after its last. */
        int c = 1;
        while (more && i < found &&
               (c = rc == SQLITE_ROW ? compare(row.sid, row.turn, o[i].t->sid, o[i].t->turn) : 1) >=
                   0) {
            if (o[i].t->state != EG_TURN_GONE) {
                eg_heads_to_turn(gens[o[i].gen], o[i].t, &other);
                more = fn(arg, &other);
            }
            i++;
            if (c == 0) {
                break;
            }
        }
        if (more && rc == SQLITE_ROW && c != 0) {
            more = fn(arg, &row);
        }
    }
    (void)sqlite3_reset(st);
    free(o);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}
