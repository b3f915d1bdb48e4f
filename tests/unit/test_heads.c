/*
 * test_heads.c - sessions and turns ahead of their tables: whatever was committed is what the
 * writer, readers beside it, a reader of a crashed copy, and the writer that opens that copy see;
 * with generations small enough that merging is always under way. What is true is kept in plain
 * arrays.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/storefix.h"
#include "store/db.h"
#include "store/reader.h"
#include "store/sqlite_int.h"

#define SESSIONS 12
#define TURNS 8 /* newest of a session that may be there */

struct model {
    struct eg_session_row row[SESSIONS];
    bool there[SESSIONS];
    struct eg_turn_row turn[SESSIONS][TURNS];
    bool has[SESSIONS][TURNS];
};

static struct model now, kept; /* with the running transaction; as of the last commit */
static uint64_t seed;

static unsigned pick(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 20) % n;
}

static void change(struct eg_storage *s, int i)
{
    char text[32];
    struct eg_session_row *row = &now.row[i];
    const unsigned what = pick(20);
    const unsigned t = pick(TURNS);
    struct eg_turn_row *turn = &now.turn[i][t];
    if (!now.there[i]) {
        char id[32];
        (void)snprintf(id, sizeof(id), "s-%d-%u", i, pick(1000000));
        *row = store_session(s, id);
        now.there[i] = true;
    } else if (what < 9) {
        (void)snprintf(text, sizeof(text), "%u", pick(1000));
        store_event(s, row, text, NULL, row->updated_ms + pick(7) * 400000);
        s->ops->session_update(s, row);
        /* The turn of that message, in the place of an older one. */
        turn = &now.turn[i][row->cursor % TURNS];
        if (now.has[i][row->cursor % TURNS]) {
            s->ops->turn_delete(s, row->sid, turn->turn);
        }
        *turn = (struct eg_turn_row){.sid = row->sid, .turn = row->cursor, .created_ms = pick(900)};
        now.has[i][row->cursor % TURNS] = true;
        s->ops->turn_put(s, turn);
    } else if (what < 13 && now.has[i][t]) {
        turn->state = (enum eg_turn_state)pick(EG_TURN_DEAD + 1);
        turn->attempt++;
        (void)snprintf(turn->worker, sizeof(turn->worker), "worker-%u", pick(4));
        const char *const error = pick(2) == 0 ? "error" : "fault";
        (void)snprintf(turn->error, sizeof(turn->error), "%.*s", (int)pick(5), error);
        s->ops->turn_put(s, turn);
    } else if (what < 17 && now.has[i][t]) {
        s->ops->turn_delete(s, row->sid, turn->turn);
        now.has[i][t] = false;
    } else if (what == 17) {
        row->state = (enum eg_session_state)pick(2);
        row->closed_ms = row->updated_ms;
        (void)snprintf(row->last_worker, sizeof(row->last_worker), "worker-%u", pick(5));
        s->ops->session_update(s, row);
    } else if (what == 18 && row->cursor > row->oldest) {
        int removed = 0;
        int64_t bytes = 0;
        cr_assert_eq(s->ops->event_hash(s, row->sid, row->oldest, row->floor_hash), EG_OK);
        row->oldest++;
        s->ops->events_trim(s, row->sid, row->oldest, 10, &removed, &bytes);
        row->bytes -= bytes;
        s->ops->session_update(s, row);
    } else if (what == 19 && pick(4) == 0) {
        int removed = 0;
        int64_t bytes = 0;
        s->ops->events_trim(s, row->sid, row->cursor + 1, 100000, &removed, &bytes);
        s->ops->session_delete(s, row->sid);
        now.there[i] = false;
        memset(now.has[i], 0, sizeof(now.has[i]));
    }
}

static void same_row(const struct eg_session_row *a, const struct eg_session_row *b)
{
    cr_assert_eq(a->sid, b->sid);
    cr_assert_str_eq(a->id, b->id);
    cr_assert_eq(a->state, b->state);
    cr_assert_eq(a->cursor, b->cursor);
    cr_assert_eq(a->oldest, b->oldest);
    cr_assert_eq(a->bytes, b->bytes);
    cr_assert_eq(a->updated_ms, b->updated_ms);
    cr_assert_eq(a->closed_ms, b->closed_ms);
    cr_assert_eq(memcmp(a->hash, b->hash, EG_CHAIN_BYTES), 0);
    cr_assert_eq(memcmp(a->floor_hash, b->floor_hash, EG_CHAIN_BYTES), 0);
    cr_assert_str_eq(a->last_worker, b->last_worker);
}

static void same_turn(const struct eg_turn_row *a, const struct eg_turn_row *b)
{
    cr_assert_eq(a->sid, b->sid);
    cr_assert_eq(a->turn, b->turn);
    cr_assert_eq(a->state, b->state);
    cr_assert_eq(a->attempt, b->attempt);
    cr_assert_eq(a->created_ms, b->created_ms);
    cr_assert_str_eq(a->worker, b->worker);
    cr_assert_str_eq(a->error, b->error);
}

/* The turn of session i that comes after `after`; NULL none. */
static const struct eg_turn_row *next_turn(const struct model *m, int i, uint64_t after, bool dead)
{
    const struct eg_turn_row *found = NULL;
    for (int t = 0; t < TURNS; t++) {
        const struct eg_turn_row *r = &m->turn[i][t];
        if (m->has[i][t] && r->turn > after && (dead || r->state != EG_TURN_DEAD) &&
            (found == NULL || r->turn < found->turn)) {
            found = r;
        }
    }
    return found;
}

struct seen {
    const struct model *m;
    int i;
    uint64_t after;
    bool dead;
    int n;
};

static void writer_turn(void *arg, const struct eg_turn_row *row)
{
    struct seen *w = arg;
    const struct eg_turn_row *r = next_turn(w->m, w->i, w->after, w->dead);
    cr_assert_neq(r, NULL);
    same_turn(row, r);
    w->after = r->turn;
}

struct opened {
    int64_t sid[SESSIONS], created[SESSIONS];
    int head[SESSIONS], n, at;
};

static void open_turn(void *arg, int64_t sid, const char *agent, enum eg_turn_state head)
{
    struct opened *o = arg;
    cr_assert_lt(o->at, o->n);
    cr_assert_str_eq(agent, "a");
    cr_assert_eq(sid, o->sid[o->at]);
    cr_assert_eq((int)head, o->head[o->at]);
    o->at++;
}

/* In the order of (oldest open turn, sid). */
static void check_open(struct eg_storage *s, const struct model *m)
{
    struct opened o = {.n = 0};
    for (int i = 0; i < SESSIONS; i++) {
        const struct eg_turn_row *first = next_turn(m, i, 0, false);
        if (!m->there[i] || first == NULL) {
            continue;
        }
        int64_t created = first->created_ms;
        for (const struct eg_turn_row *r = first; r; r = next_turn(m, i, r->turn, false)) {
            created = r->created_ms < created ? r->created_ms : created;
        }
        int at = o.n++;
        for (; at > 0 && (o.created[at - 1] > created ||
                          (o.created[at - 1] == created && o.sid[at - 1] > m->row[i].sid));
             at--) {
            o.created[at] = o.created[at - 1];
            o.sid[at] = o.sid[at - 1];
            o.head[at] = o.head[at - 1];
        }
        o.created[at] = created;
        o.sid[at] = m->row[i].sid;
        o.head[at] = (int)first->state;
    }
    cr_assert_eq(s->ops->open_turns(s, open_turn, &o), EG_OK);
    cr_assert_eq(o.at, o.n);
}

static void check_writer(struct eg_storage *s, const struct model *m)
{
    struct eg_session_row row;
    struct eg_turn_row turn;
    for (int i = 0; i < SESSIONS; i++) {
        struct seen w = {.m = m, .i = i};
        if (!m->there[i]) {
            continue;
        }
        cr_assert_eq(s->ops->session_by_id(s, eg_slice_cstr(m->row[i].id), &row), EG_OK);
        same_row(&row, &m->row[i]);
        cr_assert_eq(s->ops->session_by_sid(s, m->row[i].sid, &row), EG_OK);
        same_row(&row, &m->row[i]);
        cr_assert_eq(s->ops->turns(s, m->row[i].sid, writer_turn, &w), EG_OK);
        cr_assert_eq(next_turn(m, i, w.after, false), NULL, "a turn is not told");
        for (int t = 0; t < TURNS; t++) {
            const uint64_t number = m->turn[i][t].turn;
            const enum eg_err e = s->ops->turn_get(s, m->row[i].sid, number, &turn);
            cr_assert_eq(e, m->has[i][t] ? EG_OK : EG_ENOTFOUND);
            if (e == EG_OK) {
                same_turn(&turn, &m->turn[i][t]);
            }
        }
    }
    check_open(s, m);
}

struct list {
    const struct model *m;
    int64_t sid, updated_ms; /* of the one before */
    uint64_t turn;
    int n, state;
};

static int index_of(const struct model *m, int64_t sid)
{
    for (int i = 0; i < SESSIONS; i++) {
        if (m->there[i] && m->row[i].sid == sid) {
            return i;
        }
    }
    cr_assert_fail("a session that is not there");
    return 0;
}

static void listed_session(void *arg, const struct eg_session_row *row)
{
    struct list *l = arg;
    same_row(row, &l->m->row[index_of(l->m, row->sid)]);
    cr_assert(l->n == 0 || row->updated_ms < l->updated_ms ||
              (row->updated_ms == l->updated_ms && row->sid < l->sid));
    l->updated_ms = row->updated_ms;
    l->sid = row->sid;
    l->n++;
}

static void listed_turn(void *arg, const struct eg_turn_row *row, const char *id, const char *agent)
{
    struct list *l = arg;
    const int i = index_of(l->m, row->sid);
    cr_assert_str_eq(id, l->m->row[i].id);
    cr_assert_str_eq(agent, "a");
    const struct eg_turn_row *r = next_turn(l->m, i, row->turn - 1, true);
    cr_assert_neq(r, NULL);
    same_turn(row, r);
    cr_assert(l->state < 0 || (int)row->state == l->state);
    cr_assert(row->sid > l->sid || (row->sid == l->sid && row->turn > l->turn));
    l->sid = row->sid;
    l->turn = row->turn;
    l->n++;
}

static int turns_in(const struct model *m, int state)
{
    int n = 0;
    for (int i = 0; i < SESSIONS; i++) {
        for (int t = 0; t < TURNS; t++) {
            n += m->there[i] && m->has[i][t] && (state < 0 || (int)m->turn[i][t].state == state);
        }
    }
    return n;
}

static void check_turn_lists(struct eg_reader *r, const struct model *m)
{
    int64_t waiting = 0;
    int64_t running = 0;
    int64_t dead = 0;
    int64_t oldest = 0;
    for (int state = -1; state <= EG_TURN_DEAD; state++) {
        struct list l = {.m = m, .state = state};
        const int total = turns_in(m, state);
        for (int before = -1; before != l.n;) { /* in pages of three */
            before = l.n;
            cr_assert_eq(eg_reader_turns(r, 0, state, l.sid, l.turn, 3, listed_turn, &l), EG_OK);
        }
        cr_assert_eq(l.n, total, "%d turns of state %d, not %d", total, state, l.n);
    }
    cr_assert_eq(eg_reader_agent_turns(r, EG_LIT("a"), &waiting, &running, &dead, &oldest), EG_OK);
    cr_assert_eq(dead, turns_in(m, EG_TURN_DEAD));
    cr_assert_eq(running, turns_in(m, EG_TURN_RUNNING) + turns_in(m, EG_TURN_ABORTING));
    cr_assert_eq(waiting, turns_in(m, EG_TURN_QUEUED) + turns_in(m, EG_TURN_WAITING));
    cr_assert_eq(eg_reader_waiting_turns(r, &oldest), EG_OK);
    cr_assert_eq(oldest, waiting, "there is one agent");
}

static void check_reader(struct eg_reader *r, const struct model *m)
{
    struct eg_session_row row;
    struct list l = {.m = m};
    int there = 0;
    for (int i = 0; i < SESSIONS; i++) {
        if (!m->there[i]) {
            continue;
        }
        there++;
        cr_assert_eq(eg_reader_session(r, eg_slice_cstr(m->row[i].id), &row), EG_OK);
        same_row(&row, &m->row[i]);
        cr_assert_eq(eg_reader_session_sid(r, m->row[i].sid, &row), EG_OK);
        same_row(&row, &m->row[i]);
    }
    struct eg_session_query q = {.state = -1, .limit = 5};
    for (int before = -1; before != l.n;) {
        before = l.n;
        q.after_sid = l.sid;
        q.after_updated_ms = l.updated_ms;
        cr_assert_eq(eg_reader_sessions(r, &q, listed_session, &l), EG_OK);
    }
    cr_assert_eq(l.n, there);
    check_turn_lists(r, m);
}

static void copy_file(const char *from, const char *to, const char *name)
{
    char path[256];
    size_t n = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", from, name);
    char *p = scratch_read(path, &n);
    (void)snprintf(path, sizeof(path), "%s/%s", to, name);
    scratch_write(path, p, n);
    free(p);
}

/* What a kill at this moment leaves, in a folder of its own. */
static void crash(const char *dir, char out[64])
{
    scratch_make(out);
    copy_file(dir, out, "ebbgate.db");
    copy_file(dir, out, "ebbgate.db-wal");
}

static void check_crash(const char *dir, bool reader_first)
{
    char other[64];
    char why[512] = "";
    struct eg_reader *r = NULL;
    crash(dir, other);
    if (reader_first) {
        cr_assert_eq(eg_reader_open(other, &r, why, sizeof(why)), EG_OK, "%s", why);
        check_reader(r, &kept);
        eg_reader_close(r);
        store_must_be_whole(other);
    }
    struct eg_storage *s = store_must_open(other);
    check_writer(s, &kept);
    store_close(s);
    /* Now all of it is in the tables. */
    cr_assert_eq(store_sql(other, "SELECT count(*) FROM changes"), 0);
    s = store_must_open(other);
    check_writer(s, &kept);
    store_close(s);
    store_must_be_whole(other);
    scratch_drop(other);
}

/* What is not in the tables yet is in the changes, every record of it. */
static void must_keep_changes(const char *dir, struct eg_storage *s)
{
    const int64_t settled = store_sql(dir, "SELECT value FROM meta WHERE key='settled'");
    char sql[80];
    (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM changes WHERE seq>%lld",
                   (long long)settled);
    cr_assert_eq(store_sql(dir, sql), eg_sq_self(s)->next_change - 1 - settled);
}

static void run(uint64_t from, uint32_t gather, int rounds)
{
    char dir[64];
    char why[512] = "";
    struct eg_reader *r = NULL;
    seed = from;
    eg_sq_gather_heads = gather;
    eg_sq_gather = 20;
    memset(&now, 0, sizeof(now));
    memset(&kept, 0, sizeof(kept));
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    cr_assert_eq(eg_reader_open(dir, &r, why, sizeof(why)), EG_OK, "%s", why);
    for (int round = 0; round < rounds; round++) {
        store_begin(s);
        for (unsigned n = pick(12); n > 0; n--) {
            change(s, (int)pick(SESSIONS));
            if (pick(10) == 0) {
                check_writer(s, &now);
            }
        }
        if (pick(8) == 0) {
            s->ops->rollback(s);
            now = kept;
        } else {
            store_commit(s);
            kept = now;
        }
        if (pick(6) == 0) {
            check_writer(s, &kept);
            must_keep_changes(dir, s);
        }
        if (pick(4) == 0) {
            check_reader(r, &kept);
        }
        if (pick(25) == 0) {
            check_crash(dir, pick(2) == 0);
        }
        if (pick(40) == 0) {
            store_close(s);
            check_reader(r, &kept);
            s = store_must_open(dir);
        }
        if (pick(30) == 0) {
            store_must_be_whole(dir);
        }
    }
    store_close(s);
    check_reader(r, &kept);
    eg_reader_close(r);
    store_must_be_whole(dir);
    scratch_drop(dir);
}

Test(heads, always_merging)
{
    run(88172645463325252u, 3, 300);
}

Test(heads, some_merging)
{
    run(1234567891234567u, 40, 400);
}

Test(heads, never_merging)
{
    run(998877665544332211u, 1000000, 200);
}

static void count_turn(void *arg, const struct eg_turn_row *row)
{
    if (row->turn > 0) {
        ++*(int *)arg;
    }
}

/* Turns that a merge has brought to their table end before it is through, and a crash cuts it
 * short. */
Test(heads, what_ended_amid_a_merge_stays_ended)
{
    char dir[64];
    char other[64];
    int open = 0;
    eg_sq_gather_heads = 200;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    const struct eg_session_row row = store_queued(s, "s", 300);
    for (uint64_t turn = 1; turn <= 2; turn++) { /* each commit merges some */
        store_begin(s);
        s->ops->turn_delete(s, row.sid, turn);
        store_commit(s);
    }
    crash(dir, other);
    cr_assert_gt(store_sql(other, "SELECT count(*) FROM turns"), 2);
    cr_assert_gt(store_sql(other, "SELECT count(*) FROM changes"), 0);
    store_close(s);
    for (int life = 0; life < 2; life++) {
        s = store_must_open(other);
        open = 0;
        cr_assert_eq(s->ops->turns(s, row.sid, count_turn, &open), EG_OK);
        cr_assert_eq(open, 298, "life %d: %d", life, open);
        store_close(s);
    }
    scratch_drop(dir);
    scratch_drop(other);
}

/* What is being merged is older than what has come since. */
Test(heads, what_changed_amid_a_merge_is_told)
{
    char dir[64];
    struct eg_turn_row turn;
    struct eg_session_row now_row;
    eg_sq_gather_heads = 200;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    struct eg_session_row row = store_queued(s, "s", 300);
    store_begin(s);
    s->ops->turn_delete(s, row.sid, 1);
    store_event(s, &row, "x", NULL, STOREFIX_TIME);
    s->ops->session_update(s, &row);
    store_commit(s);
    cr_assert_neq(eg_sq_self(s)->heads->order, NULL, "it is under way");
    cr_assert_eq(s->ops->session_by_sid(s, row.sid, &now_row), EG_OK);
    same_row(&now_row, &row);
    cr_expect_eq(s->ops->turn_get(s, row.sid, 1, &turn), EG_ENOTFOUND);
    store_close(s);
    scratch_drop(dir);
}

/* Few sessions that change again and again, without turns. */
Test(heads, records_do_not_pile_up)
{
    char dir[64];
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    store_begin(s);
    struct eg_session_row row = store_session(s, "s");
    store_commit(s);
    for (int i = 0; i < 400; i++) {
        store_begin(s);
        for (int k = 0; k < 1000; k++) {
            row.updated_ms++;
            s->ops->session_update(s, &row);
        }
        store_commit(s);
    }
    const int64_t bytes = store_sql(dir, "SELECT sum(length(body)) FROM changes");
    cr_assert_lt(bytes, 9 << 20, "%lld bytes", (long long)bytes);
    cr_assert_gt(store_sql(dir, "SELECT max(seq) FROM changes"), 390);
    store_close(s);
    scratch_drop(dir);
}

Test(heads, a_damaged_record_is_refused)
{
    char dir[64];
    char other[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    scratch_make(dir);
    struct eg_storage *first = store_must_open(dir);
    (void)store_filled(first, "s", 3, "x");
    crash(dir, other);
    store_close(first);
    (void)store_sql(other, "UPDATE changes SET body=substr(body,1,length(body)-1)");
    cr_assert_eq(eg_sqlite_open(other, &s, why, sizeof(why)), EG_ECORRUPT);
    cr_assert_neq(strstr(why, "changes"), NULL, "%s", why);
    scratch_drop(dir);
    scratch_drop(other);
}

/* A record of many small turns, so that a generation grows while it is in use. */
Test(heads, a_generation_grows)
{
    struct eg_heads_gen g = {0};
    struct eg_change c = {0};
    for (int i = 0; i < 5000; i++) {
        struct eg_turn_row t = {.sid = i % 70 + 1, .turn = (uint64_t)i + 1, .attempt = i};
        struct eg_session_row row = {.sid = i + 1, .cursor = (uint64_t)i};
        eg_change_turn(&c, &t, true);
        eg_change_session(&c, &row);
        if (i % 3 == 0) {
            eg_change_turn_gone(&c, t.sid, t.turn);
        }
    }
    cr_assert_eq(eg_heads_apply(&g, (struct eg_slice){c.body.p, c.body.n}, 7), EG_OK);
    cr_assert_eq(g.n, 5000);
    cr_assert_eq(g.tn, 5000);
    for (int i = 0; i < 5000; i++) {
        const struct eg_head_turn *t = eg_heads_turn(&g, i % 70 + 1, (uint64_t)i + 1);
        cr_assert(t != NULL && t->attempt == i);
        cr_assert_eq(t->state == EG_TURN_GONE, i % 3 == 0);
        cr_assert_eq(eg_heads_session(&g, i + 1)->cursor, (uint64_t)i);
    }
    int n = 0;
    for (const struct eg_head_turn *t = eg_heads_turns(&g, 1); t != NULL;
         t = t->prev != 0 ? &g.t[t->prev - 1] : NULL) {
        cr_assert_eq(t->sid, 1);
        n++;
    }
    cr_assert_eq(n, 72);
    eg_heads_drop(&g);
    eg_buf_free(&c.body);
}

/* A generation that is emptied and filled again, as a reader's, knows nothing of before. */
Test(heads, an_emptied_generation_is_empty)
{
    static const int64_t sids[2][2] = {{1, 2}, {3, 3}};
    struct eg_heads_gen g = {0};
    for (int round = 0; round < 2; round++) {
        struct eg_change c = {0};
        for (int i = 0; i < 2; i++) {
            const struct eg_turn_row t = {.sid = sids[round][i], .turn = 5};
            const struct eg_session_row row = {.sid = sids[round][i]};
            eg_change_turn(&c, &t, true);
            eg_change_session(&c, &row);
        }
        eg_heads_empty(&g);
        cr_assert_eq(eg_heads_apply(&g, (struct eg_slice){c.body.p, c.body.n}, 7), EG_OK);
        eg_buf_free(&c.body);
    }
    for (int64_t sid = 1; sid <= 2; sid++) {
        cr_expect_eq(eg_heads_session(&g, sid), NULL);
        cr_expect_eq(eg_heads_turn(&g, sid, 5), NULL);
        cr_expect_eq(eg_heads_turns(&g, sid), NULL);
    }
    cr_assert_neq(eg_heads_turns(&g, 3), NULL);
    cr_expect_eq(eg_heads_turns(&g, 3)->prev, 0);
    eg_heads_drop(&g);
}

/* A reader whose transaction began before the tables had all that is no longer here reads again. */
Test(heads, who_read_the_tables_too_early_is_told)
{
    struct eg_heads *h = eg_heads_new();
    struct eg_session_row row = {.sid = 1, .cursor = 9};
    struct eg_change c = {0};
    eg_change_session(&c, &row);
    cr_assert_eq(eg_heads_apply(&h->fill, (struct eg_slice){c.body.p, c.body.n}, 7), EG_OK);
    row.cursor = 0;
    cr_expect(eg_heads_look(h, 0, &row));
    cr_expect_eq(row.cursor, 9);
    cr_assert_eq(eg_heads_freeze(h), EG_OK);
    eg_heads_thaw(h);
    cr_expect(!eg_heads_look(h, 6, &row));
    cr_expect(eg_heads_look(h, 7, &row));
    eg_buf_free(&c.body);
    eg_heads_free(h);
}

/* What is reserved before a commit is enough after it, when nothing may fail any more. */
Test(heads, what_was_reserved_suffices)
{
    for (int kind = 0; kind < 3; kind++) {
        struct eg_heads_gen g = {0};
        struct eg_change c = {0};
        for (int i = 0; i < 5000; i++) {
            struct eg_turn_row t = {.sid = i + 1, .turn = 1};
            struct eg_session_row row = {.sid = i + 1};
            if (kind == 0) {
                eg_change_session(&c, &row);
            } else if (kind == 1) {
                eg_change_turn(&c, &t, true);
            } else {
                eg_change_turn_gone(&c, t.sid, t.turn);
            }
        }
        cr_assert_eq(eg_heads_reserve(&g, &c), EG_OK);
        const uint32_t cap = g.cap, tcap = g.tcap;
        cr_assert_eq(eg_heads_apply(&g, (struct eg_slice){c.body.p, c.body.n}, 7), EG_OK);
        cr_expect_eq(g.n + g.tn, 5000);
        cr_expect(g.cap == cap && g.tcap == tcap, "kind %d", kind);
        eg_heads_drop(&g);
        eg_buf_free(&c.body);
    }
}

static int growing; /* atomic */

static void *look_on(void *heads)
{
    struct eg_session_row row = {.sid = 1};
    do {
        cr_assert(eg_heads_look(heads, INT64_MAX, &row));
    } while (__atomic_load_n(&growing, __ATOMIC_ACQUIRE));
    return NULL;
}

/* Under AddressSanitizer: what a reader looks at is not given back meanwhile. */
Test(heads, readers_look_while_a_generation_grows)
{
    char dir[64];
    pthread_t t;
    eg_sq_gather_heads = 1000; /* grown in some steps, again and again */
    growing = 1;
    scratch_make(dir);
    struct eg_storage *s = store_must_open(dir);
    cr_assert_eq(pthread_create(&t, NULL, look_on, eg_sq_self(s)->heads), 0);
    for (int i = 0; i < 200; i++) {
        store_begin(s);
        for (int k = 0; k < 100; k++) {
            char id[32];
            (void)snprintf(id, sizeof(id), "s%d-%d", i, k);
            struct eg_session_row row = store_session(s, id);
            s->ops->session_update(s, &row);
        }
        store_commit(s);
    }
    __atomic_store_n(&growing, 0, __ATOMIC_RELEASE);
    cr_assert_eq(pthread_join(t, NULL), 0);
    store_close(s);
    scratch_drop(dir);
}
