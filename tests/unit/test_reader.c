/*
 * test_reader.c - pages of events, listings, turns, small tables, statistics and what retention
 * has to do, as a read-only connection sees them.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/storefix.h"
#include "store/reader.h"
#include "store/sqlite_int.h"

struct world {
    char dir[64];
    struct eg_storage *s;
    struct eg_reader *r;
};

static void setup(struct world *w)
{
    char why[512] = "";
    scratch_make(w->dir);
    w->s = store_must_open(w->dir);
    cr_assert_eq(eg_reader_open(w->dir, &w->r, why, sizeof(why)), EG_OK, "%s", why);
}

static void teardown(struct world *w)
{
    eg_reader_close(w->r);
    store_close(w->s);
    scratch_drop(w->dir);
}

struct seen {
    int n;
    char text[8192];
};

static void see(struct seen *s, const char *fmt, ...)
{
    va_list ap;
    size_t n = strlen(s->text);
    s->n++;
    va_start(ap, fmt);
    (void)vsnprintf(s->text + n, sizeof(s->text) - n, fmt, ap);
    va_end(ap);
}

static void see_cursor(void *arg, uint64_t cursor, struct eg_slice body)
{
    char expected[40];
    (void)snprintf(expected, sizeof(expected), "\"cursor\":%llu,", (unsigned long long)cursor);
    cr_assert_neq(memmem(body.p, body.n, expected, strlen(expected)), NULL);
    see(arg, "%llu ", (unsigned long long)cursor);
}

static void see_session(void *arg, const struct eg_session_row *row)
{
    see(arg, "%s ", row->id);
}

static void see_text(void *arg, const char *text, int64_t number)
{
    see(arg, "%s=%lld ", text, (long long)number);
}

static const char *page_of(struct world *w, struct eg_page page, struct seen *seen)
{
    memset(seen, 0, sizeof(*seen));
    cr_assert_eq(eg_reader_events(w->r, &page, see_cursor, seen), EG_OK, "%s", eg_reader_why(w->r));
    return seen->text;
}

/* ---- opening ---- */

Test(reader, there_must_be_a_database)
{
    char dir[64];
    char why[512] = "";
    struct eg_reader *r = NULL;
    scratch_make(dir);
    cr_assert_eq(eg_reader_open(dir, &r, why, sizeof(why)), EG_ENOTFOUND);
    cr_assert_eq(r, NULL);
    cr_assert_neq(strstr(why, "ebbgate.db"), NULL);
    scratch_drop(dir);
}

Test(reader, it_cannot_write_and_sees_what_is_committed)
{
    struct world w;
    struct eg_session_row row;
    setup(&w);
    store_begin(w.s);
    struct eg_session_row a = store_session(w.s, "a");
    cr_assert_eq(eg_reader_session(w.r, EG_LIT("a"), &row), EG_ENOTFOUND);
    store_commit(w.s);
    cr_assert_eq(eg_reader_session(w.r, EG_LIT("a"), &row), EG_OK);
    cr_assert_eq(row.sid, a.sid);
    cr_assert_str_eq(row.owner, "o");
    cr_assert_eq(eg_reader_session_sid(w.r, a.sid, &row), EG_OK);
    cr_assert_str_eq(row.id, "a");
    cr_assert_eq(eg_reader_session_sid(w.r, a.sid + 1, &row), EG_ENOTFOUND);
    teardown(&w);
}

Test(reader, it_reads_on_after_the_writer_has_ended)
{
    struct world w;
    struct eg_session_row row;
    setup(&w);
    (void)store_filled(w.s, "a", 3, "x");
    store_close(w.s);
    cr_assert_eq(eg_reader_session(w.r, EG_LIT("a"), &row), EG_OK, "%s", eg_reader_why(w.r));
    w.s = store_must_open(w.dir);
    (void)store_filled(w.s, "b", 3, "x");
    cr_assert_eq(eg_reader_session(w.r, EG_LIT("b"), &row), EG_OK, "%s", eg_reader_why(w.r));
    teardown(&w);
}

/* ---- pages ---- */

Test(reader, pages_are_bounded_in_number_bytes_and_range)
{
    struct world w;
    struct seen seen;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "a", 10, "x");
    (void)store_filled(w.s, "b", 10, "x");
    size_t each = (size_t)a.bytes / 10 + 1;
    const size_t all = 1 << 20;
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 4, UINT64_MAX, 3, all, false}, &seen),
                     "4 5 6 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 9, 1000, 300, all, false}, &seen),
                     "9 10 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 0, 2, 300, all, false}, &seen), "1 2 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 11, 20, 300, all, false}, &seen), "");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 3, 2, 300, all, false}, &seen), "");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 3, 8, 3, all, true}, &seen), "8 7 6 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 9, UINT64_MAX, 9, all, true}, &seen),
                     "10 9 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 1, 9, 9, 1, false}, &seen), "1 ",
                     "the first is always given");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 1, 9, 9, each * 3, false}, &seen),
                     "1 2 3 ");
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 1, 9, 0, all, false}, &seen), "");
    teardown(&w);
}

/* Every page of every session must be the same wherever its index is: in memory, partly merged,
 * read from the log by a process that does not write it. */
static void all_pages(struct world *w, const int64_t *sid, int sessions, uint64_t events)
{
    struct seen seen;
    char expected[512];
    for (int i = 0; i < sessions; i++) {
        for (uint64_t from = 0; from <= events + 1; from += 3) {
            size_t n = 0;
            expected[0] = '\0';
            for (uint64_t c = from > 0 ? from : 1; c <= events && c < from + 7; c++) {
                n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%llu ",
                                      (unsigned long long)c);
            }
            cr_assert_str_eq(
                page_of(w, (struct eg_page){sid[i], from, from + 6, 100, 1 << 20, false}, &seen),
                expected);
            n = 0;
            expected[0] = '\0';
            for (uint64_t c = from < events ? from : events, k = 0; c > 0 && k < 5; c--, k++) {
                n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%llu ",
                                      (unsigned long long)c);
            }
            cr_assert_str_eq(page_of(w, (struct eg_page){sid[i], 0, from, 5, 1 << 20, true}, &seen),
                             expected);
        }
    }
}

Test(reader, pages_do_not_depend_on_where_the_index_is)
{
    static const uint32_t gather[] = {100000, 1, 7, 50};
    for (size_t g = 0; g < sizeof(gather) / sizeof(gather[0]); g++) {
        struct world w;
        struct eg_session_row row[4];
        int64_t sid[4];
        char id[16];
        eg_sq_gather = gather[g];
        setup(&w);
        store_begin(w.s);
        for (int i = 0; i < 4; i++) {
            (void)snprintf(id, sizeof(id), "s%d", i);
            row[i] = store_session(w.s, id);
            sid[i] = row[i].sid;
        }
        store_commit(w.s);
        for (int c = 1; c <= 60; c++) {
            store_begin(w.s);
            for (int i = 0; i < 4; i++) {
                store_event(w.s, &row[i], "x", NULL, STOREFIX_TIME);
                w.s->ops->session_update(w.s, &row[i]);
            }
            store_commit(w.s);
            if (c % 20 == 13) {
                store_begin(w.s); /* not to be seen */
                struct eg_session_row lost = row[0];
                store_event(w.s, &lost, "x", NULL, STOREFIX_TIME);
                all_pages(&w, sid, 4, (uint64_t)c);
                w.s->ops->rollback(w.s);
            }
        }
        all_pages(&w, sid, 4, 60);
        store_close(w.s);
        all_pages(&w, sid, 4, 60); /* with a tail of its own */
        w.s = store_must_open(w.dir);
        all_pages(&w, sid, 4, 60); /* with the new writer's */
        teardown(&w);
    }
}

/* Close together in the log, far apart, and at the edge between: read in sweeps or one by one. */
Test(reader, pages_do_not_depend_on_what_lies_between)
{
    struct world w;
    struct seen seen;
    char all[128] = "";
    setup(&w);
    store_begin(w.s);
    struct eg_session_row a = store_session(w.s, "a");
    struct eg_session_row b = store_session(w.s, "b");
    for (int i = 1; i <= 24; i++) {
        store_event(w.s, &a, "x", NULL, STOREFIX_TIME);
        (void)snprintf(all + strlen(all), sizeof(all) - strlen(all), "%d ", i);
        for (int k = 0; k < i % 13; k++) {
            store_event(w.s, &b, "y", NULL, STOREFIX_TIME);
        }
    }
    w.s->ops->session_update(w.s, &a);
    w.s->ops->session_update(w.s, &b);
    store_commit(w.s);
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 1, 99, 99, 1 << 20, false}, &seen), all);
    cr_assert_str_eq(page_of(&w, (struct eg_page){a.sid, 4, 99, 5, 1 << 20, false}, &seen),
                     "4 5 6 7 8 ");
    (void)page_of(&w, (struct eg_page){b.sid, 1, 999, 999, 1 << 20, false}, &seen);
    cr_assert_eq(seen.n, (int)b.cursor);
    teardown(&w);
}

/* ---- beside a writer that merges ---- */

#define BUSY_SESSIONS 5

struct busy {
    const char *dir;
    int64_t sid[BUSY_SESSIONS];
    atomic_ulong committed;
    atomic_int stop;
    unsigned seed;
    long pages;
    bool gap;
    enum eg_err err;
    uint64_t next;
};

static void expect_next(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct busy *b = arg;
    (void)body;
    b->gap = b->gap || cursor != b->next;
    b->next++;
}

struct reading {
    struct busy *shared;
    struct busy own;
};

static void *replay_on(void *arg)
{
    struct reading *r = arg;
    struct eg_reader *reader = NULL;
    char why[256];
    struct busy *b = &r->own;
    b->err = eg_reader_open(r->shared->dir, &reader, why, sizeof(why));
    while (b->err == EG_OK && !b->gap && !atomic_load(&r->shared->stop)) {
        uint64_t head = atomic_load(&r->shared->committed);
        b->seed = b->seed * 1103515245u + 12345u;
        struct eg_page page = {.sid = r->shared->sid[b->seed / 65536 % BUSY_SESSIONS],
                               .to = UINT64_MAX,
                               .max = 40,
                               .max_bytes = 1 << 20};
        b->next = head > 0 ? 1 + b->seed / 1024 % head : 1;
        while (b->err == EG_OK && !b->gap && b->next <= head) {
            uint64_t from = page.from = b->next;
            b->err = eg_reader_events(reader, &page, expect_next, b);
            b->gap = b->gap || b->next == from; /* what was committed must be there */
            b->pages++;
        }
    }
    eg_reader_close(reader);
    return NULL;
}

Test(reader, every_committed_event_is_there_while_the_index_is_merged)
{
    struct world w;
    struct eg_session_row row[BUSY_SESSIONS];
    struct reading r[2] = {0};
    pthread_t thread[2];
    char id[16];
    struct busy shared = {0};
    eg_sq_gather = 60;
    setup(&w);
    shared.dir = w.dir;
    store_begin(w.s);
    for (int i = 0; i < BUSY_SESSIONS; i++) {
        (void)snprintf(id, sizeof(id), "s%d", i);
        row[i] = store_session(w.s, id);
        shared.sid[i] = row[i].sid;
    }
    store_commit(w.s);
    for (unsigned i = 0; i < 2; i++) {
        r[i].shared = &shared;
        r[i].own.seed = i + 1;
        cr_assert_eq(pthread_create(&thread[i], NULL, replay_on, &r[i]), 0);
    }
    for (unsigned long c = 1; c <= 3000; c++) {
        store_begin(w.s);
        for (int i = 0; i < BUSY_SESSIONS; i++) {
            store_event(w.s, &row[i], "x", NULL, STOREFIX_TIME);
            w.s->ops->session_update(w.s, &row[i]);
        }
        if (c % 9 == 0) {
            w.s->ops->rollback(w.s);
            for (int i = 0; i < BUSY_SESSIONS; i++) {
                cr_assert_eq(w.s->ops->session_by_sid(w.s, row[i].sid, &row[i]), EG_OK);
            }
            store_begin(w.s);
            for (int i = 0; i < BUSY_SESSIONS; i++) {
                store_event(w.s, &row[i], "x", NULL, STOREFIX_TIME);
                w.s->ops->session_update(w.s, &row[i]);
            }
        }
        store_commit(w.s);
        atomic_store(&shared.committed, c);
        (void)!w.s->ops->maintain(w.s);
    }
    atomic_store(&shared.stop, 1);
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(thread[i], NULL);
        cr_assert_eq(r[i].own.err, EG_OK);
        cr_assert(!r[i].own.gap, "gap before %llu", (unsigned long long)r[i].own.next);
        cr_assert_gt(r[i].own.pages, 10);
    }
    cr_assert_gt(store_sql(w.dir, "SELECT value FROM meta WHERE key='indexed'"), 10000);
    teardown(&w);
}

/* ---- listing ---- */

static void add(struct world *w, const char *id, const char *agent, const char *owner,
                enum eg_session_state state, int64_t updated_ms)
{
    struct eg_session_row row = {.oldest = 1, .state = EG_SESSION_OPEN, .created_ms = 1};
    (void)snprintf(row.id, sizeof(row.id), "%s", id);
    (void)snprintf(row.agent, sizeof(row.agent), "%s", agent);
    (void)snprintf(row.owner, sizeof(row.owner), "%s", owner);
    store_begin(w->s);
    w->s->ops->session_insert(w->s, &row);
    row.state = state;
    row.updated_ms = updated_ms;
    w->s->ops->session_update(w->s, &row);
    store_commit(w->s);
}

static const char *list(struct world *w, struct eg_session_query q, struct seen *seen)
{
    memset(seen, 0, sizeof(*seen));
    cr_assert_eq(eg_reader_sessions(w->r, &q, see_session, seen), EG_OK, "%s", eg_reader_why(w->r));
    return seen->text;
}

#define HOUR 3600000LL

Test(reader, sessions_are_listed_newest_first_and_filtered)
{
    struct world w;
    struct seen seen;
    setup(&w);
    add(&w, "old", "support", "ann", EG_SESSION_OPEN, 100 * HOUR);
    add(&w, "new", "sales", "bob", EG_SESSION_OPEN, 300 * HOUR + 5);
    add(&w, "closed", "support", "bob", EG_SESSION_CLOSED, 300 * HOUR + 4);
    add(&w, "mid", "support", "ann", EG_SESSION_OPEN, 200 * HOUR);
    add(&w, "leaving", "support", "ann", EG_SESSION_DELETING, 400 * HOUR);
    add(&w, "coming", "support", "ann", EG_SESSION_FORKING, 400 * HOUR);
    const struct eg_session_query any = {.state = -1, .limit = 100};
    struct eg_session_query q = any;
    cr_assert_str_eq(list(&w, q, &seen), "new closed mid old ");
    q.limit = 2;
    cr_assert_str_eq(list(&w, q, &seen), "new closed ");
    q = any;
    q.agent = EG_LIT("support");
    cr_assert_str_eq(list(&w, q, &seen), "closed mid old ");
    q.owner = EG_LIT("ann");
    cr_assert_str_eq(list(&w, q, &seen), "mid old ");
    q.text = EG_LIT("ol");
    cr_assert_str_eq(list(&w, q, &seen), "old ");
    q.text = EG_LIT("%");
    cr_assert_str_eq(list(&w, q, &seen), "", "no pattern characters");
    q = any;
    q.state = EG_SESSION_CLOSED;
    cr_assert_str_eq(list(&w, q, &seen), "closed ");
    q.state = EG_SESSION_DELETING;
    cr_assert_str_eq(list(&w, q, &seen), "leaving ");
    q = any;
    q.active_since_ms = 300 * HOUR + 5;
    cr_assert_str_eq(list(&w, q, &seen), "new ");
    q.active_since_ms = 200 * HOUR;
    cr_assert_str_eq(list(&w, q, &seen), "new closed mid ");
    q.owner = EG_LIT("'; DROP TABLE sessions; --");
    cr_assert_str_eq(list(&w, q, &seen), "");
    teardown(&w);
}

struct last {
    int64_t updated_ms, sid;
    int n;
    char got[200];
};

static void tick(void *arg, const struct eg_session_row *row)
{
    struct last *l = arg;
    cr_assert(l->n == 0 || row->updated_ms < l->updated_ms ||
                  (row->updated_ms == l->updated_ms && row->sid < l->sid),
              "out of order");
    l->updated_ms = row->updated_ms;
    l->sid = row->sid;
    l->n++;
    cr_assert_eq(l->got[row->sid], 0, "twice");
    l->got[row->sid] = 1;
}

Test(reader, pages_of_sessions_join_without_gap_or_double)
{
    struct world w;
    char id[16];
    setup(&w);
    for (int i = 0; i < 60; i++) { /* many with the same time, and several in one hour */
        (void)snprintf(id, sizeof(id), "s%d", i);
        add(&w, id, "a", "o", EG_SESSION_OPEN, HOUR * (100 + i % 3) + i % 7);
    }
    for (int limit = 1; limit <= 61; limit += 6) {
        struct last l = {0};
        int before = -1;
        while (l.n > before) {
            before = l.n;
            struct eg_session_query q = {
                .state = -1, .limit = limit, .after_updated_ms = l.updated_ms, .after_sid = l.sid};
            cr_assert_eq(eg_reader_sessions(w.r, &q, tick, &l), EG_OK);
            cr_assert_leq(l.n - before, limit);
        }
        cr_assert_eq(l.n, 60, "limit %d", limit);
    }
    teardown(&w);
}

/* ---- turns ---- */

static void put_turn(struct world *w, int64_t sid, uint64_t turn, enum eg_turn_state state,
                     int64_t created_ms)
{
    struct eg_turn_row t = {
        .sid = sid, .turn = turn, .state = state, .created_ms = created_ms, .attempt = 2};
    (void)snprintf(t.error, sizeof(t.error), "why");
    w->s->ops->turn_put(w->s, &t);
}

static void see_turn(void *arg, const struct eg_turn_row *t, const char *id, const char *agent)
{
    cr_assert_str_eq(t->error, "why");
    cr_assert_eq(t->attempt, 2);
    see(arg, "%s@%s/%llu=%d ", id, agent, (unsigned long long)t->turn, (int)t->state);
}

Test(reader, turns_are_paged_and_counted_by_agent)
{
    struct world w;
    struct seen seen = {0};
    int64_t waiting = 0;
    int64_t running = 0;
    int64_t dead = 0;
    int64_t oldest = 0;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "a", 9, "x");
    struct eg_session_row b = store_filled(w.s, "b", 9, "x");
    store_begin(w.s);
    put_turn(&w, a.sid, 2, EG_TURN_DEAD, 10);
    put_turn(&w, a.sid, 4, EG_TURN_RUNNING, 30);
    put_turn(&w, a.sid, 5, EG_TURN_QUEUED, 20);
    put_turn(&w, b.sid, 1, EG_TURN_ABORTING, 50);
    put_turn(&w, b.sid, 3, EG_TURN_WAITING, 60);
    put_turn(&w, b.sid, 7, EG_TURN_DEAD, 70);
    store_commit(w.s);
    cr_assert_eq(eg_reader_turns(w.r, 0, -1, 0, 0, 4, see_turn, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "a@a/2=4 a@a/4=1 a@a/5=0 b@a/1=3 ");
    seen.text[0] = '\0';
    cr_assert_eq(eg_reader_turns(w.r, 0, -1, b.sid, 1, 4, see_turn, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "b@a/3=2 b@a/7=4 ");
    seen.text[0] = '\0';
    cr_assert_eq(eg_reader_turns(w.r, 0, EG_TURN_DEAD, 0, 0, 9, see_turn, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "a@a/2=4 b@a/7=4 ");
    seen.text[0] = '\0';
    cr_assert_eq(eg_reader_turns(w.r, a.sid, -1, a.sid, 2, 9, see_turn, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "a@a/4=1 a@a/5=0 ");
    cr_assert_eq(eg_reader_agent_turns(w.r, EG_LIT("a"), &waiting, &running, &dead, &oldest),
                 EG_OK);
    cr_assert_eq(waiting, 2);
    cr_assert_eq(running, 2);
    cr_assert_eq(dead, 2);
    cr_assert_eq(oldest, 20, "of the open ones");
    cr_assert_eq(eg_reader_agent_turns(w.r, EG_LIT("b"), &waiting, &running, &dead, &oldest),
                 EG_OK);
    cr_assert_eq(waiting + running + dead + oldest, 0);
    teardown(&w);
}

/* ---- small tables ---- */

static void see_audit(void *arg, int64_t id, int64_t at_ms, const char *who, const char *from,
                      const char *action, const char *detail)
{
    see(arg, "%lld:%lld,%s,%s,%s,%s ", (long long)id, (long long)at_ms, who, from, action, detail);
}

Test(reader, acks_agents_revocations_and_audit)
{
    struct world w;
    struct seen seen = {0};
    uint64_t cursor = 0;
    setup(&w);
    store_begin(w.s);
    w.s->ops->ack_put(w.s, 1, EG_LIT("bob"), 3);
    w.s->ops->ack_put(w.s, 1, EG_LIT("ann"), 9);
    w.s->ops->ack_put(w.s, 2, EG_LIT("eve"), 1);
    w.s->ops->agent_put(w.s, EG_LIT("support"), 77);
    w.s->ops->revoke(w.s, "sub:eve", 4000000000000);
    for (int i = 1; i <= 3; i++) {
        w.s->ops->audit(w.s, i * 100, EG_LIT("op"), EG_LIT("::1"), EG_LIT("close"), EG_LIT("s"));
    }
    store_commit(w.s);
    cr_assert_eq(eg_reader_acks(w.r, 1, see_text, &seen), EG_OK);
    cr_assert_eq(eg_reader_agents(w.r, see_text, &seen), EG_OK);
    cr_assert_eq(eg_reader_revoked(w.r, see_text, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "ann=9 bob=3 support=77 sub:eve=4000000000000 ");
    cr_assert_eq(eg_reader_ack(w.r, 1, EG_LIT("ann"), &cursor), EG_OK);
    cr_assert_eq(cursor, 9);
    cr_assert_eq(eg_reader_ack(w.r, 1, EG_LIT("eve"), &cursor), EG_ENOTFOUND);
    seen.text[0] = '\0';
    cr_assert_eq(eg_reader_audit(w.r, 0, 2, see_audit, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "3:300,op,::1,close,s 2:200,op,::1,close,s ");
    seen.text[0] = '\0';
    cr_assert_eq(eg_reader_audit(w.r, 2, 2, see_audit, &seen), EG_OK);
    cr_assert_str_eq(seen.text, "1:100,op,::1,close,s ");
    teardown(&w);
}

Test(reader, statistics_count_and_measure)
{
    struct world w;
    struct eg_store_stats st;
    setup(&w);
    add(&w, "a", "x", "o", EG_SESSION_OPEN, 1);
    add(&w, "b", "x", "o", EG_SESSION_CLOSED, 1);
    add(&w, "c", "x", "o", EG_SESSION_OPEN, 1);
    cr_assert_eq(eg_reader_stats(w.r, &st), EG_OK, "%s", eg_reader_why(w.r));
    cr_assert_eq(st.sessions, 3);
    cr_assert_eq(st.open_sessions, 2);
    cr_assert_gt(st.db_bytes, 8192 * 5);
    cr_assert_eq(st.db_bytes % 8192, 0);
    cr_assert_gt(st.wal_bytes, 8192);
    teardown(&w);
}

/* ---- retention ---- */

static void see_work(void *arg, const struct eg_session_row *row, uint64_t keep)
{
    see(arg, "%s>=%llu ", row->id, (unsigned long long)keep);
}

static const char *work_of(struct world *w, struct eg_retention rule, struct seen *seen)
{
    int64_t last = -1;
    memset(seen, 0, sizeof(*seen));
    cr_assert_eq(eg_reader_retention(w->r, &rule, 0, 100, see_work, seen, &last), EG_OK, "%s",
                 eg_reader_why(w->r));
    cr_assert_eq(last, 0, "all were looked at");
    return seen->text;
}

Test(reader, retention_finds_what_each_rule_asks_for)
{
    struct world w;
    struct seen seen;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "long", 100, "x"); /* one event a second */
    (void)store_filled(w.s, "short", 5, "x");
    add(&w, "empty", "a", "o", EG_SESSION_OPEN, STOREFIX_TIME);
    int64_t each = a.bytes / 100; /* cursors of one to three digits differ by a few bytes */
    const struct eg_retention none = {0};
    struct eg_retention rule = none;
    cr_assert_str_eq(work_of(&w, none, &seen), "");
    rule.max_events = 30;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=71 ");
    rule.max_events = 100;
    cr_assert_str_eq(work_of(&w, rule, &seen), "");
    rule = none;
    rule.events_before_ms = STOREFIX_TIME + 40 * 1000;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=41 short>=6 ");
    rule.events_before_ms = STOREFIX_TIME + 3 * 1000;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=4 short>=4 ");
    rule.events_before_ms = STOREFIX_TIME + 1;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=2 short>=2 ");
    rule.events_before_ms = STOREFIX_TIME;
    cr_assert_str_eq(work_of(&w, rule, &seen), "");
    rule.events_before_ms = STOREFIX_TIME + 1000 * 1000;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=101 short>=6 ");
    rule = none;
    rule.max_bytes = a.bytes - 1;
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=2 ");
    rule.max_bytes = a.bytes;
    cr_assert_str_eq(work_of(&w, rule, &seen), "");
    rule.max_bytes = each * 20;
    (void)work_of(&w, rule, &seen);
    long keep = strtol(seen.text + strlen("long>="), NULL, 10);
    cr_assert(keep >= 80 && keep <= 82, "%s", seen.text);
    rule = (struct eg_retention){STOREFIX_TIME + 3000, 30, a.bytes - 1, 0, EG_RETAIN_ALL};
    cr_assert_str_eq(work_of(&w, rule, &seen), "long>=71 short>=4 ", "the strictest rule counts");
    store_begin(w.s);
    a.state = EG_SESSION_FORKING;
    w.s->ops->session_update(w.s, &a);
    store_commit(w.s);
    cr_assert_str_eq(work_of(&w, rule, &seen), "short>=4 ", "not while it is being made");
    teardown(&w);
}

Test(reader, retention_deletes_closed_sessions_past_their_time)
{
    struct world w;
    struct seen seen;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "closed", 5, "x");
    struct eg_session_row b = store_filled(w.s, "closed-later", 5, "x");
    struct eg_session_row c = store_filled(w.s, "leaving", 5, "x");
    (void)store_filled(w.s, "open", 5, "x");
    store_begin(w.s);
    a.state = b.state = EG_SESSION_CLOSED;
    a.closed_ms = 1000;
    b.closed_ms = 2000;
    c.state = EG_SESSION_DELETING;
    w.s->ops->session_update(w.s, &a);
    w.s->ops->session_update(w.s, &b);
    w.s->ops->session_update(w.s, &c);
    store_commit(w.s);
    struct eg_retention rule = {.closed_before_ms = 2000};
    cr_assert_str_eq(work_of(&w, rule, &seen), "closed>=0 leaving>=0 ");
    rule.closed_before_ms = 0;
    cr_assert_str_eq(work_of(&w, rule, &seen), "leaving>=0 ");
    teardown(&w);
}

Test(reader, retention_looks_where_there_can_be_work)
{
    struct world w;
    struct seen seen;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "a", 5, "x");
    struct eg_session_row b = store_filled(w.s, "b", 5, "x");
    struct eg_session_row c = store_filled(w.s, "c", 5, "x");
    store_begin(w.s);
    a.state = EG_SESSION_DELETING;
    b.updated_ms += 2 * 3600000;
    w.s->ops->session_update(w.s, &a);
    w.s->ops->session_update(w.s, &b);
    store_commit(w.s);
    struct eg_retention rule = {.max_events = 1, .hour = EG_RETAIN_UNSETTLED};
    cr_assert_str_eq(work_of(&w, rule, &seen), "a>=0 ");
    rule.hour = b.updated_ms / 3600000;
    cr_assert_str_eq(work_of(&w, rule, &seen), "b>=5 ");
    rule.hour = c.updated_ms / 3600000;
    cr_assert_str_eq(work_of(&w, rule, &seen), "a>=0 c>=5 ");
    rule.hour--;
    cr_assert_str_eq(work_of(&w, rule, &seen), "");
    teardown(&w);
}

/* Removed events below the floor are counted until they are gone: a second look must not take
 * them for too many once more. What is left of them is asked for again: a restart may have
 * forgotten it, under every rule. */
Test(reader, retention_by_bytes_waits_for_a_trim)
{
    struct world w;
    struct seen seen;
    int removed = 0;
    int64_t bytes = 0;
    setup(&w);
    struct eg_session_row a = store_filled(w.s, "a", 100, "x");
    struct eg_retention rule = {.max_bytes = a.bytes / 2};
    store_begin(w.s);
    cr_assert_eq(w.s->ops->event_hash(w.s, a.sid, 50, a.floor_hash), EG_OK);
    a.oldest = 51;
    w.s->ops->session_update(w.s, &a);
    w.s->ops->events_trim(w.s, a.sid, 51, 20, &removed, &bytes);
    a.bytes -= bytes;
    w.s->ops->session_update(w.s, &a);
    store_commit(w.s);
    cr_assert_eq(removed, 20);
    cr_assert_str_eq(work_of(&w, rule, &seen), "a>=51 ", "to go on, should nobody be at it");
    cr_assert_str_eq(work_of(&w, (struct eg_retention){.max_events = 100}, &seen), "a>=51 ");
    store_begin(w.s);
    w.s->ops->events_trim(w.s, a.sid, 51, 100, &removed, &bytes);
    a.bytes -= bytes;
    w.s->ops->session_update(w.s, &a);
    store_commit(w.s);
    cr_assert_eq(removed, 30);
    cr_assert_str_eq(work_of(&w, (struct eg_retention){.max_events = 100}, &seen), "");
    rule.max_bytes = a.bytes - 1;
    cr_assert_str_eq(work_of(&w, rule, &seen), "a>=52 ");
    teardown(&w);
}

Test(reader, retention_goes_on_where_it_stopped)
{
    struct world w;
    struct seen seen = {0};
    struct eg_retention rule = {.max_events = 1};
    char id[16];
    int64_t last = 0;
    int calls = 0;
    setup(&w);
    for (int i = 0; i < 10; i++) {
        (void)snprintf(id, sizeof(id), "s%d", i);
        (void)store_filled(w.s, id, 2, "x");
    }
    do {
        cr_assert_eq(eg_reader_retention(w.r, &rule, last, 3, see_work, &seen, &last), EG_OK);
        cr_assert_leq(seen.n, 3 * ++calls);
    } while (last != 0 && calls < 20);
    cr_assert_eq(seen.n, 10);
    cr_assert_leq(calls, 5);
    teardown(&w);
}

/* An event that cannot be read is for the check to report; other sessions still have their turn. */
Test(reader, retention_passes_over_damage)
{
    struct world w;
    struct seen seen;
    setup(&w);
    (void)store_filled(w.s, "bad", 5, "x");
    (void)store_filled(w.s, "good", 5, "x");
    (void)store_sql(w.dir, "UPDATE events SET body=CAST('{}' AS BLOB) WHERE sid=1");
    struct eg_retention rule = {.events_before_ms = STOREFIX_TIME + 2000};
    cr_assert_str_eq(work_of(&w, rule, &seen), "good>=3 ");
    teardown(&w);
}
