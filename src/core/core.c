/*
 * core.c - the core thread: takes the commands that wait, steps the machine, commits, releases.
 *
 * Happy path: one batch, one commit, then outputs and replies leave. When more waits than one batch
 * is to take, who comes next is decided by fairness (fair.h), and what comes meanwhile takes part
 * in the next decision: however much somebody sends, others wait for one batch of it. A batch that
 * fails for what is stored of one session is tried again command by command, so that only whoever
 * writes there is refused. Any other that cannot be committed is rolled back and stepped again in
 * read-only mode, so that each command gets its honest answer; the storage is then probed, ever
 * more seldom, until it works. The process ends (hooks.fatal) when the outcome of a flush is
 * unknown, and when for a second not even refusals are possible: then there is no memory, or the
 * disk cannot be read.
 */
#include "core/core.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "core/fair.h"
#include "core/machine.h"

#define PROBE_MS 100       /* after a failure; twice as long after each probe that fails, up to */
#define PROBE_MOST_MS 2000 /* this */
#define REFUSAL_TRIES 100  /* of a batch in read-only mode, one each */
#define REFUSAL_WAIT_MS 10
#define IDLE_WAKE_MS 1000 /* the watchdog sees progress this often */
/* What commands cost: their bytes, and what takes as long as so many bytes of a large message. */
#define COST_BATCH (128 << 10) /* a batch is committed when it has this much, whatever waits */
#define COST_LARGE (64 << 10)  /* a command that costs more does not share a batch with others */
#define COST_ATTACH (16 << 10)
#define COST_CALL (4 << 10)
#define COST_FRAME 512
#define COST_LEAST 128
#define GROUP_OPERATOR 1
#define GROUP_NEWCOMERS 2

EG_ROLE(core_thread);

struct eg_core {
    pthread_t thread;
    struct eg_queue queue;
    struct eg_machine *machine EG_PT_GUARDED_BY(core_thread);
    struct eg_storage *storage EG_PT_GUARDED_BY(core_thread);
    const struct eg_epoch *epoch; /* of machine */
    struct eg_core_hooks hooks;
    unsigned reactors;
    struct eg_settings *new_settings;            /* atomic hand-over; NULL none */
    int draining, stopping;                      /* atomic */
    int64_t running, progress_ms;                /* atomic */
    int64_t probe_at EG_GUARDED_BY(core_thread); /* mono ms; 0: not */
    int64_t probe_ms EG_GUARDED_BY(core_thread); /* from one probe to the next */
    /* What waits for a later batch. */
    struct eg_fair *fair EG_PT_GUARDED_BY(core_thread);
    bool put_off EG_GUARDED_BY(core_thread); /* a large command was left out of the last batch */
};

EG_MUTEX(waiter);

/* What a caller waits on. */
struct waiter {
    struct waiter_mutex lock;
    pthread_cond_t cond;
    bool done EG_GUARDED_BY(waiter_mutex);
};

static void answer(struct eg_call *call)
{
    struct waiter *w = call->waiter;
    waiter_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->cond);
    waiter_unlock(&w->lock);
}

void eg_core_call(struct eg_core *core, struct eg_call *call)
{
    struct waiter w = {.lock = {PTHREAD_MUTEX_INITIALIZER}, .cond = PTHREAD_COND_INITIALIZER};
    struct eg_cmd *cmd = eg_cmd_new(EG_CMD_CALL, 0);
    if (!cmd) {
        call->code = EG_CODE_internal;
        return;
    }
    cmd->call = call;
    call->waiter = &w;
    eg_core_post(core, cmd);
    waiter_lock(&w.lock);
    while (!w.done) {
        waiter_wait(&w.cond, &w.lock);
    }
    waiter_unlock(&w.lock);
    waiter_destroy(&w.lock);
    pthread_cond_destroy(&w.cond);
}

void eg_core_post(struct eg_core *core, struct eg_cmd *cmd)
{
    eg_queue_push(&core->queue, &cmd->node);
}

void eg_core_post_list(struct eg_core *core, struct eg_cmd *first, struct eg_cmd *last)
{
    eg_queue_push_list(&core->queue, &first->node, &last->node);
}

/* --- after the commit --- */

EG_REQUIRES(core_thread)
static void release(struct eg_core *core)
{
    struct eg_machine *m = core->machine;
    for (unsigned r = 0; r < core->reactors; r++) {
        if (m->release[r]) {
            core->hooks.release(core->hooks.arg, r, m->release[r]);
            m->release[r] = NULL;
        }
    }
    for (unsigned i = 0; i < m->revoked_count; i++) {
        if (core->hooks.revoked) {
            core->hooks.revoked(core->hooks.arg, m->revoked[i].what, m->revoked[i].until_ms);
        }
        free(m->revoked[i].what);
    }
    m->revoked_count = 0;
    for (unsigned i = 0; i < m->done_count; i++) {
        answer(m->done[i]);
    }
    m->done_count = 0;
}

EG_REQUIRES(core_thread)
static void fatal(struct eg_core *core)
{
    core->hooks.fatal(core->hooks.arg, core->storage->ops->why(core->storage));
    abort(); /* fatal does not return */
}

EG_REQUIRES(core_thread)
static void storage_failed(struct eg_core *core, struct eg_now now)
{
    const char *why = core->storage->ops->why(core->storage);
    eg_metric_add(EG_M_commit_failures_total, 1);
    if (core->probe_at == 0) {
        eg_metric_set(EG_M_storage_ok, 0);
        eg_log(EG_LOG_ERROR, "storage.failed", "why=%s", why && *why ? why : "out of memory");
        core->hooks.storage(core->hooks.arg, why && *why ? why : "out of memory");
    }
    core->probe_ms = PROBE_MS;
    core->probe_at = now.mono_ms + core->probe_ms;
}

EG_REQUIRES(core_thread)
static void probe(struct eg_core *core, struct eg_now now)
{
    const enum eg_err e = core->storage->ops->probe(core->storage);
    if (e == EG_EUNKNOWN) {
        fatal(core);
    }
    if (e != EG_OK) {
        core->probe_ms = core->probe_ms < PROBE_MOST_MS / 2 ? core->probe_ms * 2 : PROBE_MOST_MS;
        core->probe_at = now.mono_ms + core->probe_ms;
        return;
    }
    core->probe_at = 0;
    eg_metric_set(EG_M_storage_ok, 1);
    eg_log(EG_LOG_INFO, "storage.recovered", NULL);
    core->hooks.storage(core->hooks.arg, NULL);
    core->machine->now = now;
    eg_machine_resume(core->machine);
}

/* --- one batch --- */

/* The part of a batch's calls that is not the machine's. */
EG_REQUIRES(core_thread)
static void before_batch(struct eg_core *core, const struct eg_qnode *list)
{
    for (; list; list = list->next) {
        const struct eg_cmd *const cmd = (const struct eg_cmd *)list;
        if (cmd->kind == EG_CMD_CALL && cmd->call->kind == EG_CALL_CHECKPOINT &&
            core->storage->ops->checkpoint &&
            core->storage->ops->checkpoint(core->storage) == EG_EUNKNOWN) {
            fatal(core);
        }
    }
}

/* What one transaction is to hold. */
struct batch {
    struct eg_qnode *first; /* by next */
    int n;
    bool tick; /* then the machine's own work */
    struct eg_now now;
    int64_t start_us;
};

/* Steps all of b and commits. After a failure it is rolled back, and the machine read-only. */
EG_REQUIRES(core_thread)
static enum eg_err run_batch(struct eg_core *core, const struct batch *b)
{
    struct eg_machine *m = core->machine;
    struct eg_qnode *node = b->first;
    enum eg_err e = EG_OK;
    for (int n = b->n; n > 0; node = node->next, n--) {
        eg_machine_step(m, (struct eg_cmd *)node, b->now);
    }
    if (b->tick) {
        eg_machine_tick(m, b->now);
    }
    const bool writes = eg_machine_flush(m);
    if (m->failed) {
        e = m->writing ? m->storage->ops->latched(m->storage) : EG_OK;
        e = e == EG_OK ? EG_ENOMEM : e;
    } else if (writes) {
        const int64_t start = eg_clock_mono_us();
        e = m->storage->ops->commit(m->storage);
        m->writing = false;
        eg_metric_add(EG_M_commits_total, e == EG_OK);
        eg_hist_add(EG_H_COMMIT_US, eg_clock_mono_us() - start);
    }
    if (e == EG_EUNKNOWN) {
        fatal(core);
    }
    if (e == EG_OK) {
        eg_machine_committed(m);
    } else {
        eg_machine_rolled_back(m);
    }
    return e;
}

/* Puts the frames of a batch into the releases that go where they came from; what is left is
 * returned, linked. */
EG_REQUIRES(core_thread)
static struct eg_qnode *send_back(struct eg_core *core, struct eg_qnode *first, int n)
{
    struct eg_qnode *left = NULL;
    for (; n > 0; n--) {
        struct eg_qnode *const next = first->next;
        struct eg_cmd *const cmd = (struct eg_cmd *)first;
        const unsigned reactor = EG_CONN_REACTOR(cmd->conn);
        struct eg_release *const r = cmd->kind == EG_CMD_FRAME && reactor < core->reactors
                                         ? core->machine->release[reactor]
                                         : NULL;
        first->next = r ? (struct eg_qnode *)r->spent : left;
        if (r) {
            r->spent = cmd;
        } else {
            left = first;
        }
        first = next;
    }
    return left;
}

/* Whether a commit failed for what is stored of one session, not for the storage. */
static bool damage(enum eg_err e)
{
    return e == EG_EEXISTS || e == EG_ENOTFOUND || e == EG_ECORRUPT;
}

/* What failed is run again in read-only mode, for its answers. */
EG_REQUIRES(core_thread)
static void refuse(struct eg_core *core, const struct batch *b, enum eg_err e)
{
    if (b->n && damage(e)) {
        eg_metric_add(EG_M_commit_failures_total, 1);
        eg_log_limited(EG_LOG_ERROR, "write.refused", "why=%s",
                       core->storage->ops->why(core->storage));
    } else {
        storage_failed(core, b->now);
    }
    for (int tries = 0; run_batch(core, b) != EG_OK; tries++) {
        /* Only want of memory, or a disk that cannot be read, can fail now. */
        if (tries == REFUSAL_TRIES) {
            fatal(core);
        }
        poll(NULL, 0, REFUSAL_WAIT_MS);
    }
}

/* The answers of b, which ended with e, leave. */
EG_REQUIRES(core_thread)
static void conclude(struct eg_core *core, const struct batch *b, enum eg_err e)
{
    if (e != EG_OK) {
        refuse(core, b, e);
    }
    /* Before anybody hears of a turn, whoever asks for open turns knows of it. */
    __atomic_store_n(&core->running, core->machine->running, __ATOMIC_RELEASE);
    if (b->n) {
        eg_hist_add(EG_H_BATCH, b->n);
        eg_hist_add(EG_H_PUBLISH_US, eg_clock_mono_us() - b->start_us);
    }
    struct eg_qnode *const left = send_back(core, b->first, b->n);
    release(core);
    eg_cmds_free((struct eg_cmd *)left);
}

/* Runs the commands of a batch that met damage, each by itself. */
EG_REQUIRES(core_thread)
static void run_apart(struct eg_core *core, const struct batch *all)
{
    struct eg_machine *m = core->machine;
    struct batch one = {.n = 1, .now = all->now, .start_us = all->start_us};
    struct eg_qnode *next = all->first;
    m->readonly = false;
    for (int n = all->n; n > 0; n--) {
        one.first = next;
        next = next->next;
        conclude(core, &one, run_batch(core, &one));
        m->readonly = core->probe_at != 0;
    }
    if (!m->readonly) {
        eg_machine_resume(m);
    }
}

/* Runs a batch to its answers. */
EG_REQUIRES(core_thread)
static void batch(struct eg_core *core, struct eg_qnode *first, int n)
{
    struct batch b = {first, n, true, eg_clock_now(), eg_clock_mono_us()};
    enum eg_err e = run_batch(core, &b);
    if (n && damage(e)) {
        run_apart(core, &b);
        b.first = NULL; /* what is left is the machine's own work */
        b.n = 0;
        e = run_batch(core, &b);
    }
    conclude(core, &b, e);
    if (core->storage->ops->maintain(core->storage) == EG_EUNKNOWN) {
        fatal(core);
    }
}

/* --- which commands make a batch --- */

static size_t cost_of(const struct eg_cmd *cmd)
{
    switch (cmd->kind) {
    case EG_CMD_ATTACH:
        return COST_ATTACH;
    case EG_CMD_FRAME:
        return COST_FRAME +
               (cmd->frame.scratch.n > cmd->tail.n ? cmd->frame.scratch.n : cmd->tail.n);
    case EG_CMD_CALL:
        return COST_CALL + cmd->call->content.n + cmd->call->metadata.n;
    case EG_CMD_DETACH:
    case EG_CMD_SYNC:
        break;
    }
    return COST_LEAST;
}

/* Whether list can be one batch as it came: nothing waits, nothing in it is large. */
EG_REQUIRES(core_thread)
static bool plain(const struct eg_core *core, const struct eg_qnode *list, int *n)
{
    size_t cost = 0;
    *n = 0;
    for (; list; list = list->next, ++*n) {
        const struct eg_cmd *const cmd = (const struct eg_cmd *)list;
        const size_t one = cost_of(cmd);
        cost += one;
        if (one > COST_LARGE || cost > COST_BATCH) {
            return false;
        }
    }
    return eg_fair_count(core->fair) == 0;
}

/* The next batch of what waits: small commands together; a large one ends it, and is put off once
 * when small ones are there, so that they need not wait for it. */
EG_REQUIRES(core_thread)
static struct eg_qnode *choose(struct eg_core *core, int *n)
{
    struct eg_qnode *first = NULL, **end = &first;
    size_t cost = 0;
    bool full = false;
    for (struct eg_cmd *cmd; !full && (cmd = eg_fair_peek(core->fair));) {
        const size_t one = cost_of(cmd);
        const bool large = one > COST_LARGE;
        if (*n && (large ? !core->put_off : cost + one > COST_BATCH)) {
            core->put_off = core->put_off || large;
            break;
        }
        cmd = eg_fair_take(core->fair, one);
        cmd->node.next = NULL;
        *end = &cmd->node;
        end = &cmd->node.next;
        ++*n;
        cost += one;
        full = large;
        core->put_off = core->put_off && !large;
    }
    return first;
}

/* One batch: of list, if that is all and not too much, else of what fairness chooses. */
EG_REQUIRES(core_thread)
static void run(struct eg_core *core, struct eg_qnode *list)
{
    int n = 0;
    if (!plain(core, list, &n)) {
        for (struct eg_qnode *next; list; list = next) {
            next = list->next;
            eg_fair_add(core->fair, (struct eg_cmd *)list);
        }
        n = 0;
        list = choose(core, &n);
    }
    eg_metric_set(EG_M_core_queue, (int64_t)eg_fair_count(core->fair));
    before_batch(core, list);
    batch(core, list, n);
}

/* --- the thread --- */

EG_REQUIRES(core_thread)
static void take_settings(struct eg_core *core)
{
    struct eg_settings *s = __atomic_exchange_n(&core->new_settings, NULL, __ATOMIC_ACQ_REL);
    if (s) {
        eg_machine_settings(core->machine, s);
        eg_settings_unref(s);
    }
}

EG_REQUIRES(core_thread)
static int wait_ms(const struct eg_core *core, int64_t now_mono)
{
    int64_t until = eg_machine_deadline(core->machine);
    if (core->probe_at && core->probe_at < until) {
        until = core->probe_at;
    }
    if (until <= now_mono) {
        return 0;
    }
    return until - now_mono < IDLE_WAKE_MS ? (int)(until - now_mono) : IDLE_WAKE_MS;
}

EG_REQUIRES(core_thread)
static struct eg_qnode *next_commands(struct eg_core *core)
{
    struct eg_qnode *list = eg_queue_take(&core->queue);
    const int64_t now = eg_clock_mono_ms();
    const int ms = list || eg_fair_count(core->fair) ? 0 : wait_ms(core, now);
    if (ms > 0 && eg_queue_sleep(&core->queue)) {
        struct pollfd p = {.fd = eg_queue_fd(&core->queue), .events = POLLIN};
        poll(&p, 1, ms);
        eg_queue_awake(&core->queue);
        list = eg_queue_take(&core->queue);
    }
    return list;
}

static void *core_main(void *arg)
{
    struct eg_core *core = arg;
    core_thread_is_here();
    for (;;) {
        struct eg_qnode *list = next_commands(core);
        const struct eg_now now = eg_clock_now();
        take_settings(core);
        core->machine->draining = __atomic_load_n(&core->draining, __ATOMIC_ACQUIRE);
        if (core->probe_at && core->probe_at <= now.mono_ms) {
            probe(core, now);
        }
        run(core, list);
        __atomic_store_n(&core->progress_ms, now.mono_ms, __ATOMIC_RELEASE);
        if (__atomic_load_n(&core->stopping, __ATOMIC_ACQUIRE)) {
            do {
                run(core, eg_queue_take(&core->queue));
            } while (eg_fair_count(core->fair));
            return NULL;
        }
    }
}

/* Whose share a command is part of: the sub's, a worker's own, the operator's, or that of all who
 * are not in yet. */
static uint64_t group_of(void *arg, const struct eg_cmd *cmd)
{
    const struct eg_core *const core = arg;
    core_thread_is_here(); /* that adds commands */
    if (cmd->kind == EG_CMD_CALL) {
        return cmd->call->identity ? eg_machine_sub_key(cmd->call->identity->sub) : GROUP_OPERATOR;
    }
    return eg_machine_group(core->machine, cmd->conn, GROUP_NEWCOMERS);
}

enum eg_err eg_core_start(struct eg_storage *storage, struct eg_settings *settings,
                          unsigned reactors, const struct eg_core_hooks *hooks,
                          struct eg_core **out)
{
    enum eg_err e = EG_ENOMEM;
    struct eg_core *core = calloc(1, sizeof *core);
    if (!core) {
        goto fail;
    }
    core->storage = storage;
    core->hooks = *hooks;
    core->reactors = reactors;
    core->queue.fd = -1;
    core->progress_ms = eg_clock_mono_ms();
    core->fair = eg_fair_new(group_of, core);
    if (!core->fair) {
        goto fail;
    }
    if ((e = eg_queue_init(&core->queue)) ||
        (e = eg_machine_new(storage, settings, reactors, eg_clock_now(), &core->machine))) {
        goto fail;
    }
    core_thread_is_here(); /* not yet, so this one stands in for it */
    core->epoch = &core->machine->epoch;
    eg_metric_set(EG_M_storage_ok, 1);
    batch(core, NULL,
          0); /* what starting changed is on disk, and revocations are known, before we serve */
    if (pthread_create(&core->thread, NULL, core_main, core) != 0) {
        e = EG_EIO;
        goto fail;
    }
    *out = core;
    return EG_OK;
fail:
    if (core) {
        eg_machine_free(core->machine);
        eg_queue_close(&core->queue);
        eg_fair_free(core->fair);
        free(core);
    }
    storage->ops->close(storage);
    return e;
}

void eg_core_settings(struct eg_core *core, struct eg_settings *settings)
{
    eg_settings_unref(
        __atomic_exchange_n(&core->new_settings, eg_settings_ref(settings), __ATOMIC_ACQ_REL));
}

void eg_core_drain(struct eg_core *core)
{
    __atomic_store_n(&core->draining, 1, __ATOMIC_RELEASE);
}

int64_t eg_core_open_turns(struct eg_core *core)
{
    return __atomic_load_n(&core->running, __ATOMIC_ACQUIRE);
}

int64_t eg_core_progress_ms(struct eg_core *core)
{
    return __atomic_load_n(&core->progress_ms, __ATOMIC_ACQUIRE);
}

void eg_core_epoch(struct eg_core *core, int64_t sid, char out[EG_EPOCH_MAX + 1])
{
    eg_epoch_of(core->epoch, sid, out);
}

void eg_core_stop(struct eg_core *core)
{
    struct eg_cmd *wake;
    if (!core) {
        return;
    }
    __atomic_store_n(&core->stopping, 1, __ATOMIC_RELEASE);
    wake = eg_cmd_new(EG_CMD_DETACH, 0);
    if (wake) {
        eg_core_post(core, wake);
    }
    pthread_join(core->thread, NULL);
    core_thread_is_here(); /* it has ended */
    /* Forks that were under way: their half is removed at the next start. */
    struct eg_chore *c;
    DL_FOREACH(core->machine->chores, c)
    {
        if (c->call) {
            c->call->code = EG_CODE_draining;
            answer(c->call);
        }
    }
    for (struct eg_qnode *n = eg_queue_take(&core->queue), *next; n; n = next) {
        next = n->next;
        struct eg_cmd *cmd = (struct eg_cmd *)n;
        if (cmd->kind == EG_CMD_CALL) {
            cmd->call->code = EG_CODE_draining;
            answer(cmd->call);
        }
        eg_cmd_free(cmd);
    }
    eg_machine_free(core->machine);
    core->storage->ops->close(core->storage);
    eg_queue_close(&core->queue);
    eg_settings_unref(core->new_settings);
    eg_fair_free(core->fair);
    free(core);
}
