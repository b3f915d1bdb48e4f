/*
 * sqlite_batch.c - the events of a transaction, appended to the log by one statement.
 *
 * Threads: the writer's. A statement of its own for each event costs more than the row. So events
 * are gathered here and are offered to SQLite as a table, eg_batch, out of which one INSERT takes
 * all of them: when the transaction commits, when somebody reads the log, or when many bytes have
 * gathered. They have their numbers (seq) and are in the index (tail.h) from the start. Failure
 * modes: the INSERT fails: latched like any write. A transaction undone: what gathered is dropped.
 */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_int.h"

#define GATHER_BYTES (1 << 20)
#define FIRST_EVENTS 256

/* ---- the table ---- */

struct batch_table {
    sqlite3_vtab base; /* first */
    struct eg_sqlite *s;
};

struct batch_cursor {
    sqlite3_vtab_cursor base; /* first */
    uint32_t at;
};

enum column { SEQ, SID, CURSOR, HASH, IDKEY, BODY };

static int table_connect(sqlite3 *db, void *arg, int argc, const char *const *argv,
                         sqlite3_vtab **out, char **error)
{
    (void)argc;
    (void)argv;
    (void)error;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(seq,sid,cursor,hash,idkey,body)");
    struct batch_table *t = rc == SQLITE_OK ? sqlite3_malloc(sizeof(*t)) : NULL;
    if (t != NULL) {
        memset(t, 0, sizeof(*t));
        t->s = arg;
    } else if (rc == SQLITE_OK) {
        rc = SQLITE_NOMEM;
    }
    *out = t != NULL ? &t->base : NULL;
    return rc;
}

static int table_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

static int table_plan(sqlite3_vtab *table, sqlite3_index_info *info)
{
    (void)table;
    info->estimatedCost = 100;
    return SQLITE_OK;
}

static int table_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
    struct batch_cursor *c = sqlite3_malloc(sizeof(*c));
    (void)table;
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof(*c));
    *out = &c->base;
    return SQLITE_OK;
}

static int table_close(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int table_filter(sqlite3_vtab_cursor *cursor, int plan, const char *text, int argc,
                        sqlite3_value **argv)
{
    (void)plan;
    (void)text;
    (void)argc;
    (void)argv;
    ((struct batch_cursor *)cursor)->at = 0;
    return SQLITE_OK;
}

static int table_next(sqlite3_vtab_cursor *cursor)
{
    ((struct batch_cursor *)cursor)->at++;
    return SQLITE_OK;
}

static const struct eg_sqlite *owner(const sqlite3_vtab_cursor *cursor)
{
    return ((const struct batch_table *)cursor->pVtab)->s;
}

static int table_eof(sqlite3_vtab_cursor *cursor)
{
    return ((const struct batch_cursor *)cursor)->at >= owner(cursor)->batch.n;
}

static int table_column(sqlite3_vtab_cursor *cursor, sqlite3_context *to, int column)
{
    const struct eg_batch *b = &owner(cursor)->batch;
    const struct eg_batch_event *e = &b->v[((const struct batch_cursor *)cursor)->at];
    switch ((enum column)column) {
    case SEQ:
        sqlite3_result_int64(to, e->seq);
        break;
    case SID:
        sqlite3_result_int64(to, e->sid);
        break;
    case CURSOR:
        sqlite3_result_int64(to, (int64_t)e->cursor);
        break;
    case HASH:
        sqlite3_result_blob(to, e->hash,
                            e->cursor % EG_HASH_EVERY == 0 ? EG_CHAIN_BYTES : EG_HASH_SHORT,
                            SQLITE_STATIC);
        break;
    case IDKEY:
        if (e->has_id) {
            sqlite3_result_blob(to, e->idkey, EG_IDKEY_KEPT, SQLITE_STATIC);
        }
        break;
    case BODY:
        sqlite3_result_blob64(to, b->bodies.p + e->body, e->body_n, SQLITE_STATIC);
        break;
    }
    return SQLITE_OK;
}

static int table_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *out)
{
    *out = ((const struct batch_cursor *)cursor)->at;
    return SQLITE_OK;
}

static const sqlite3_module module = {
    .iVersion = 1,
    .xConnect = table_connect,
    .xBestIndex = table_plan,
    .xDisconnect = table_disconnect,
    .xOpen = table_open,
    .xClose = table_close,
    .xFilter = table_filter,
    .xNext = table_next,
    .xEof = table_eof,
    .xColumn = table_column,
    .xRowid = table_rowid,
};

int eg_sq_batch_open(struct eg_sqlite *s)
{
    return sqlite3_create_module(s->db, "eg_batch", &module, s);
}

void eg_sq_batch_close(struct eg_sqlite *s)
{
    free(s->batch.v);
    eg_buf_free(&s->batch.bodies);
}

/* ---- gathering ---- */

static enum eg_err grow(struct eg_batch *b)
{
    const uint32_t cap = b->cap > 0 ? b->cap * 2 : FIRST_EVENTS;
    struct eg_batch_event *v = realloc(b->v, cap * sizeof(*v));
    if (v == NULL) {
        return EG_ENOMEM;
    }
    b->v = v;
    b->cap = cap;
    return EG_OK;
}

void eg_sq_batch_add(struct eg_sqlite *s, const struct eg_event_row *row, int64_t seq)
{
    struct eg_batch *b = &s->batch;
    if (b->n == b->cap && grow(b) != EG_OK) {
        s->err = EG_ENOMEM;
        return;
    }
    struct eg_batch_event *e = &b->v[b->n];
    e->seq = seq;
    e->sid = row->sid;
    e->cursor = row->cursor;
    memcpy(e->hash, row->hash, EG_CHAIN_BYTES);
    e->has_id = row->idkey != NULL;
    if (e->has_id) {
        memcpy(e->idkey, row->idkey, EG_IDKEY_KEPT);
    }
    e->body = b->bodies.n;
    e->body_n = row->body.n;
    eg_buf_slice(&b->bodies, row->body);
    if (b->bodies.err != EG_OK || eg_buf_reserve(&b->bodies, 1) == NULL) {
        s->err = EG_ENOMEM;
        return;
    }
    b->n++;
    if (b->bodies.n >= GATHER_BYTES) {
        eg_sq_batch_flush(s);
    }
}

void eg_sq_batch_flush(struct eg_sqlite *s)
{
    if (s->batch.n == 0) {
        return;
    }
    sqlite3_stmt *st = eg_sq_writing(s, EG_ST_EVENTS_APPEND);
    if (st != NULL) {
        eg_sq_run(s, st, "append events");
    }
    eg_sq_batch_drop(s);
}

void eg_sq_batch_drop(struct eg_sqlite *s)
{
    s->batch.n = 0;
    if (s->batch.bodies.err != EG_OK) {
        eg_buf_free(&s->batch.bodies);
    }
    eg_buf_reset(&s->batch.bodies);
}
