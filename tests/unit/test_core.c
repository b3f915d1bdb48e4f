/*
 * test_core.c - the core thread over a storage in memory: answers after the commit, a storage that
 * fails and works again, big batches, the end with work under way.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/badstore.h"
#include "../lib/memstore.h"
#include "core/core.h"
#include "base/metrics.h"
#include "core/fair.h"
#include "failing.h"

static struct eg_storage *storage;
static struct eg_settings *settings;
static struct eg_core *core;
static int64_t mono_ms = 1000000;

static struct eg_now fake_now(void)
{
    const int64_t ms = __atomic_load_n(&mono_ms, __ATOMIC_SEQ_CST);
    return (struct eg_now){.mono_ms = ms, .wall_ms = 1700000000000 + ms};
}

/* --- what the core calls back --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static char storage_said[200];
static int storage_calls, syncs, revocations;
static int accepted, refused; /* messages */
static uint64_t last_event;   /* cursor of the newest event that was told */
static int64_t most_behind;   /* commands that waited for a later batch */

static void on_release(void *arg, unsigned reactor, struct eg_release *rel)
{
    (void)arg;
    (void)reactor;
    pthread_mutex_lock(&lock);
    const int64_t behind = eg_metric_get(EG_M_core_queue);
    most_behind = behind > most_behind ? behind : most_behind;
    for (int i = 0; i < rel->n; i++) {
        syncs += rel->out[i].kind == EG_OUT_SYNC;
        accepted += rel->out[i].kind == EG_OUT_FRAME && rel->out[i].cursor > 0;
        refused += rel->out[i].code == EG_CODE_storage_unavailable;
        if (rel->out[i].cursor > last_event) {
            last_event = rel->out[i].cursor;
        }
    }
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    eg_release_free(rel);
}

static void on_revoked(void *arg, const char *what, int64_t until_ms)
{
    (void)arg;
    revocations += strcmp(what, "sub:x") == 0 && until_ms == 5;
}

static void on_storage(void *arg, const char *why)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    snprintf(storage_said, sizeof storage_said, "%s", why ? why : "works");
    storage_calls++;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
}

static void on_fatal(void *arg, const char *why)
{
    (void)arg;
    _exit(why && *why ? 75 : 1);
}

static const struct eg_core_hooks hooks = {
    .release = on_release, .revoked = on_revoked, .storage = on_storage, .fatal = on_fatal};

/* --- calls that tests watch --- */

static sem_t joining, waiting;
static bool watch_join;
static void (*after_join)(void);
static bool no_thread, no_eventfd;

int __real_pthread_join(pthread_t t, void **out);
int __wrap_pthread_join(pthread_t t, void **out);
int __wrap_pthread_join(pthread_t t, void **out)
{
    if (watch_join) {
        sem_post(&joining);
    }
    const int e = __real_pthread_join(t, out);
    if (after_join) {
        void (*const act)(void) = after_join;
        after_join = NULL;
        act();
    }
    return e;
}

int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    sem_post(&waiting); /* a caller has posted its call */
    return __real_pthread_cond_wait(c, m);
}

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg)
{
    return no_thread ? EAGAIN : __real_pthread_create(t, a, run, arg);
}

int __real_eventfd(unsigned n, int flags);
int __wrap_eventfd(unsigned n, int flags);
int __wrap_eventfd(unsigned n, int flags)
{
    if (no_eventfd) {
        errno = EMFILE;
        return -1;
    }
    return __real_eventfd(n, flags);
}

/* --- a core --- */

static enum eg_err start(void)
{
    storage = memstore_new("epoch-1");
    badstore_over(storage);
    return eg_core_start(storage, settings, 1, &hooks, &core);
}

static void up(void)
{
    sem_init(&joining, 0, 0);
    sem_init(&waiting, 0, 0);
    eg_clock_replace(fake_now);
    settings = eg_settings_new();
    cr_assert_eq(start(), EG_OK);
}

static void down(void)
{
    eg_core_stop(core);
    eg_settings_unref(settings);
}

TestSuite(core, .init = up, .fini = down, .timeout = 30);

static struct eg_identity ann = {.sub = (char[]){"ann"}};

static enum eg_code call(struct eg_call k)
{
    eg_core_call(core, &k);
    eg_buf_free(&k.json);
    return k.code;
}

static enum eg_code add_agent(const char *id)
{
    return call((struct eg_call){.kind = EG_CALL_AGENT_PUT, .agent = eg_slice_cstr(id)});
}

static enum eg_code add_session(const char *id)
{
    return call((struct eg_call){.kind = EG_CALL_CREATE,
                                 .agent = EG_LIT("a"),
                                 .session_id = eg_slice_cstr(id),
                                 .identity = &ann});
}

static enum eg_code say(void)
{
    return call((struct eg_call){.kind = EG_CALL_MESSAGE,
                                 .session_id = EG_LIT("s"),
                                 .content = EG_LIT("1"),
                                 .identity = &ann});
}

/* Waits until everything posted before is done with. */
/* Waits until all commands of conn are done with. */
static void sync_conn(eg_conn_id conn)
{
    pthread_mutex_lock(&lock);
    const int before = syncs;
    pthread_mutex_unlock(&lock);
    eg_core_post(core, eg_cmd_new(EG_CMD_SYNC, conn));
    pthread_mutex_lock(&lock);
    while (syncs == before) {
        __real_pthread_cond_wait(&wake, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static void sync_with(void)
{
    sync_conn(7);
}

static void pass(int64_t ms)
{
    __atomic_add_fetch(&mono_ms, ms, __ATOMIC_SEQ_CST);
    sync_with(); /* the thread wakes for it */
    sync_with(); /* and has looked at the time since */
}

Test(core, a_full_disk_is_told_probed_and_passes)
{
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    memstore_fail_commits(storage, MEMSTORE_FULL, 0, 3);
    cr_assert_eq(add_agent("b"), EG_CODE_storage_unavailable);
    cr_assert_str_eq(storage_said, "memory: as ordered");
    cr_assert_eq(storage_calls, 1);
    cr_assert_eq(add_agent("b"), EG_CODE_storage_unavailable, "read-only until a probe works");
    pass(99);
    cr_assert_eq(storage_calls, 1);
    pass(1); /* the first probe fails, and the second after twice the time, */
    pass(200);
    cr_assert_eq(storage_calls, 1);
    pass(399);
    cr_assert_eq(storage_calls, 1);
    pass(1); /* the third works */
    cr_assert_str_eq(storage_said, "works");
    cr_assert_eq(storage_calls, 2);
    cr_assert_eq(add_agent("b"), EG_CODE_NONE);
}

Test(core, without_memory_it_says_so)
{
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    cr_assert_eq(add_session("s"), EG_CODE_NONE);
    /* Twice in a row, so that the try in read-only mode has to be made again. */
    badstore_order(BAD_READ, 0, 2, EG_ENOMEM);
    struct eg_call look = {.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("nowhere")};
    eg_core_call(core, &look);
    cr_assert(badstore_done());
    cr_assert_eq(look.code, EG_CODE_session_not_found);
    cr_assert_eq(storage_calls, 1);
    pass(1000);
    cr_assert_str_eq(storage_said, "works");
    failing_order(0);
    cr_assert_eq(add_agent("b"), EG_CODE_internal, "no memory for the call itself");
    cr_assert(failing_done());
}

/* In a process of its own: the hook ends it with 75. */
static int fate_of(enum memstore_fate commit, enum bad_call bad)
{
    const pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        settings = eg_settings_new();
        if (start()) {
            _exit(2);
        }
        memstore_fail_commits(storage, commit, 0, commit ? 1 : 0);
        if (bad == BAD_READ) { /* for ever: not even a refusal succeeds */
            badstore_order(bad, 0, INT_MAX, EG_EIO);
            call((struct eg_call){.kind = EG_CALL_SESSION_INFO, .session_id = EG_LIT("s")});
        } else if (bad != BAD_CALLS) {
            badstore_order(bad, 0, 1, EG_EUNKNOWN);
        }
        call((struct eg_call){.kind = EG_CALL_CHECKPOINT});
        add_agent("a");
        if (bad == BAD_PROBE) {
            pass(1000);
        }
        sync_with();
        eg_core_stop(core);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

Test(core_alone, an_unknown_outcome_or_no_way_out_ends_the_process, .timeout = 30)
{
    sem_init(&waiting, 0, 0);
    eg_clock_replace(fake_now);
    cr_expect_eq(fate_of(MEMSTORE_OK, BAD_CALLS), 0);
    cr_expect_eq(fate_of(MEMSTORE_UNKNOWN_GONE, BAD_CALLS), 75);
    cr_expect_eq(fate_of(MEMSTORE_OK, BAD_MAINTAIN), 75);
    cr_expect_eq(fate_of(MEMSTORE_OK, BAD_CHECKPOINT), 75);
    cr_expect_eq(fate_of(MEMSTORE_FULL, BAD_PROBE), 75);
    cr_expect_eq(fate_of(MEMSTORE_OK, BAD_READ), 75);
}

/* --- batches --- */

static void attach(eg_conn_id conn, const char *sub)
{
    struct eg_cmd *const hello = eg_cmd_new(EG_CMD_ATTACH, conn);
    struct eg_frame_error why;
    cr_assert_eq(
        eg_frame_parse(EG_LIT("{\"type\":\"hello\",\"agent_id\":\"a\"}"), &hello->frame, &why),
        EG_OK);
    hello->identity.sub = strdup(sub);
    eg_core_post(core, hello);
    sync_with();
}

/* Appends a message with so much content in its tail to the list of commands. */
static void line_up(struct eg_cmd **first, struct eg_cmd **last, eg_conn_id conn, size_t n)
{
    struct eg_cmd *const cmd = eg_cmd_new(EG_CMD_FRAME, conn);
    struct eg_frame_error why;
    cr_assert_eq(
        eg_frame_parse(EG_LIT("{\"type\":\"message\",\"content\":\"x\"}"), &cmd->frame, &why),
        EG_OK);
    eg_buf_str(&cmd->tail, "\"data\":{\"content\":\"");
    while (cmd->tail.n < n) {
        eg_buf_str(&cmd->tail, "0123456789012345678901234567890123456789012345678901234567890123");
    }
    eg_buf_str(&cmd->tail, "\"}");
    if (*last) {
        (*last)->node.next = &cmd->node;
    } else {
        *first = cmd;
    }
    *last = cmd;
}

Test(core, a_batch_is_of_bounded_size)
{
    struct eg_cmd *first = NULL, *last = NULL;
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    attach(1, "ann");
    long commits = memstore_commits(storage);
    for (int i = 0; i < 5; i++) {
        line_up(&first, &last, 1, 9 << 20);
    }
    eg_core_post_list(core, first, last);
    sync_conn(1);
    cr_assert_eq(memstore_commits(storage), commits + 5, "a large one has a batch to itself");
    cr_assert_eq(last_event, 5);
    cr_assert_geq(most_behind, 4, "what waits is counted");
    cr_assert_eq(eg_metric_get(EG_M_core_queue), 0);

    commits = memstore_commits(storage);
    first = last = NULL;
    for (int i = 0; i < 24; i++) {
        line_up(&first, &last, 1, 20 << 10);
    }
    eg_core_post_list(core, first, last);
    sync_conn(1);
    cr_assert_eq(memstore_commits(storage), commits + 4, "of the others six are 128 KiB");
    cr_assert_eq(last_event, 29);
}

/* An event of session number sid that its row does not know of: its next one has no place. */
static void damage(int64_t sid)
{
    static const uint8_t hash[EG_CHAIN_BYTES];
    cr_assert_eq(storage->ops->begin(storage), EG_OK);
    storage->ops->event_append(
        storage,
        &(struct eg_event_row){.sid = sid, .cursor = 1, .hash = hash, .body = EG_LIT("x")});
    cr_assert_eq(storage->ops->commit(storage), EG_OK);
}

Test(core, a_damaged_session_costs_its_own_writes)
{
    struct eg_cmd *first = NULL, *last = NULL;
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    attach(1, "ann");
    attach(2, "bob");
    attach(3, "eve");
    damage(2);
    for (eg_conn_id conn = 1; conn <= 3; conn++) {
        line_up(&first, &last, conn, 100);
        line_up(&first, &last, conn, 100);
        last->frame.message_id = EG_LIT("m1"); /* which is looked for */
    }
    eg_core_post_list(core, first, last);
    sync_with();
    cr_assert_eq(accepted, 4, "what is for others is stored, batch or not");
    cr_assert_eq(refused, 2);
    cr_assert_eq(storage_calls, 0, "the storage works");

    first = last = NULL;
    line_up(&first, &last, 2, 100);
    eg_core_post(core, first);
    sync_with();
    cr_assert_eq(refused, 3, "by itself, too");
    cr_assert_eq(storage_calls, 0);
    cr_assert_eq(add_agent("b"), EG_CODE_NONE, "and the next one is not concerned");
}

Test(core, who_says_little_does_not_wait_for_who_says_much)
{
    struct eg_cmd *first = NULL, *last = NULL;
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    attach(1, "ann");
    attach(2, "bob");
    const long commits = memstore_commits(storage);
    for (int i = 0; i < 3; i++) {
        line_up(&first, &last, 1, 1 << 20);
    }
    for (int i = 0; i < 3; i++) {
        line_up(&first, &last, 2, 1);
    }
    eg_core_post_list(core, first, last);
    sync_conn(1);
    /* The first large one; what is small; the other two. */
    cr_assert_eq(memstore_commits(storage), commits + 4);
    cr_assert_eq(last_event, 3);
}

Test(core, new_settings_are_taken_between_batches)
{
    struct eg_settings *const fresh = eg_settings_new();
    char **const own = fresh->agents;
    fresh->agents = (char *[]){(char[]){"named"}, NULL};
    eg_core_settings(core, fresh);
    eg_core_settings(core, fresh); /* one not yet taken is replaced */
    sync_with();
    sync_with();
    struct eg_call info = {.kind = EG_CALL_AGENTS_INFO};
    eg_core_call(core, &info);
    cr_assert(memmem(info.json.p, info.json.n, "\"named\"", 7));
    eg_buf_free(&info.json);
    fresh->agents = own;
    struct eg_settings *const again = eg_settings_new();
    eg_core_settings(core, again);
    sync_with();
    sync_with();
    eg_settings_unref(again);
    eg_settings_unref(fresh);
}

Test(core, revocations_are_told_after_their_commit)
{
    cr_assert_eq(
        call((struct eg_call){.kind = EG_CALL_REVOKE, .text = EG_LIT("sub:x"), .until_ms = 5}),
        EG_CODE_NONE);
    cr_assert_eq(revocations, 1);
    char epoch[EG_EPOCH_MAX + 1];
    eg_core_epoch(core, 0, epoch);
    cr_assert_str_eq(epoch, "epoch-1");
    cr_assert_eq(eg_core_open_turns(core), 0);
    cr_assert_geq(eg_core_progress_ms(core), 1000000);
}

/* --- the end --- */

static enum eg_code fork_code;

static void *fork_in_thread(void *arg)
{
    (void)arg;
    fork_code =
        call((struct eg_call){.kind = EG_CALL_FORK, .session_id = EG_LIT("s"), .cursor = 250});
    return NULL;
}

static sem_t copying, go_on;

static void at_copy(void)
{
    sem_post(&copying);
    while (sem_wait(&go_on)) {
    }
}

static void *stop_in_thread(void *arg)
{
    eg_core_stop(core);
    core = NULL;
    return arg;
}

Test(core, a_fork_under_way_is_told_that_it_ends)
{
    pthread_t asks, stops;
    cr_assert_eq(add_agent("a"), EG_CODE_NONE);
    cr_assert_eq(add_session("s"), EG_CODE_NONE);
    for (int i = 0; i < 250; i++) {
        cr_assert_eq(say(), EG_CODE_NONE);
    }
    sem_init(&copying, 0, 0);
    sem_init(&go_on, 0, 0);
    badstore_before_events = at_copy;
    cr_assert_eq(pthread_create(&asks, NULL, fork_in_thread, NULL), 0);
    while (sem_wait(&copying)) { /* 100 of 250 are being copied */
    }
    watch_join = true;
    cr_assert_eq(pthread_create(&stops, NULL, stop_in_thread, NULL), 0);
    while (sem_wait(&joining)) { /* the core has been told to stop */
    }
    watch_join = false;
    sem_post(&go_on); /* the last batch may copy a hundred more, not all */
    sem_post(&go_on);
    cr_assert_eq(__real_pthread_join(asks, NULL), 0);
    cr_assert_eq(__real_pthread_join(stops, NULL), 0);
    cr_assert_eq(fork_code, EG_CODE_draining);
    badstore_before_events = NULL;
}

static pthread_t late;
static enum eg_code late_code;

static void *say_in_thread(void *out)
{
    *(enum eg_code *)out = say();
    return NULL;
}

/* The thread has ended: what is posted now is answered all the same, or freed. */
static void post_late(void)
{
    while (sem_trywait(&waiting) == 0) { /* those before */
    }
    cr_assert_eq(__real_pthread_create(&late, NULL, say_in_thread, &late_code), 0);
    while (sem_wait(&waiting)) {
    }
    eg_core_post(core, eg_cmd_new(EG_CMD_DETACH, 1));
}

Test(core, a_call_that_comes_too_late_is_answered)
{
    after_join = post_late;
    eg_core_stop(core);
    core = NULL;
    cr_assert_eq(__real_pthread_join(late, NULL), 0);
    cr_assert_eq(late_code, EG_CODE_draining);
}

Test(core, stopping_without_memory)
{
    failing_order(0); /* for the command that wakes the thread: it wakes by itself */
    eg_core_stop(core);
    cr_assert(failing_done());
    core = NULL;
}

/* --- starts that fail --- */

Test(core_alone, a_start_that_fails_leaves_nothing)
{
    sem_init(&waiting, 0, 0);
    settings = eg_settings_new();
    no_eventfd = true;
    cr_expect_eq(start(), EG_EIO);
    no_eventfd = false;
    no_thread = true;
    cr_expect_eq(start(), EG_EIO);
    no_thread = false;
    /* The core itself, the machine, its outputs. */
    for (int n = 0; n < 3; n++) {
        storage = memstore_new("epoch-1");
        failing_order(n);
        cr_expect_eq(eg_core_start(storage, settings, 1, &hooks, &core), EG_ENOMEM, "%d", n);
        cr_expect(failing_done());
    }
    /* Each thing that is read at the start. */
    for (int n = 0; n < 4; n++) {
        storage = memstore_new("epoch-1");
        badstore_over(storage);
        badstore_order(BAD_READ, n, 1, EG_ECORRUPT);
        cr_expect_eq(eg_core_start(storage, settings, 1, &hooks, &core), EG_ECORRUPT, "%d", n);
        cr_expect(badstore_done());
    }
    eg_core_stop(NULL);
    eg_settings_unref(settings);
}

/* --- lines of commands without memory for them --- */

static uint64_t group_by_third(void *arg, const struct eg_cmd *cmd)
{
    (void)arg;
    return cmd->conn % 3 + 1;
}

#define LINES 12

/* Commands of twelve connections, three of each, the nth allocation failing. */
static bool stand_in_line(int n)
{
    struct eg_fair *const f = eg_fair_new(group_by_third, NULL);
    int64_t last[LINES + 1] = {0};
    cr_assert(f);
    eg_fair_add(f, eg_cmd_new(EG_CMD_FRAME, 99)); /* the tables exist */
    struct eg_cmd *cmd[LINES * 3];
    for (int i = 0; i < LINES * 3; i++) {
        cmd[i] = eg_cmd_new(EG_CMD_FRAME, (eg_conn_id)(i % LINES + 1));
        cmd[i]->frame.cursor = i / LINES + 1;
    }
    failing_order(n);
    for (int i = 0; i < LINES * 3; i++) {
        eg_fair_add(f, cmd[i]);
    }
    const bool failed = failing_done();
    cr_expect_eq(eg_fair_count(f), LINES * 3 + 1);
    while (eg_fair_peek(f)) {
        struct eg_cmd *const c = eg_fair_take(f, 100);
        if (c->conn != 99) {
            cr_expect_eq(c->frame.cursor, last[c->conn] + 1, "allocation %d: conn %d out of order",
                         n, (int)c->conn);
            last[c->conn] = c->frame.cursor;
        }
        eg_cmd_free(c);
    }
    for (int i = 1; i <= LINES; i++) {
        cr_expect_eq(last[i], 3, "allocation %d: conn %d lost one", n, i);
    }
    eg_fair_free(f);
    return failed;
}

Test(core_alone, lines_without_memory_keep_their_order)
{
    int n = 0;
    while (stand_in_line(n)) {
        n++;
    }
    cr_assert_gt(n, 10, "%d", n);
}
