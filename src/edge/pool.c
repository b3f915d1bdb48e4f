/*
 * pool.c - the reader threads. Each has its own read-only connection, opened when first needed and
 * again after a failure. The queue is first in, first out.
 */
#include "edge/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/log.h"
#include "edge/rest.h"

EG_MUTEX(pool);

struct eg_pool {
    const struct eg_log_ops *ops;
    char *dir;
    struct pool_mutex lock;
    pthread_cond_t wake;
    struct eg_job *first EG_GUARDED_BY(pool_mutex), *last EG_GUARDED_BY(pool_mutex);
    bool stopping EG_GUARDED_BY(pool_mutex);
    unsigned threads; /* set before the object is shared, as are ops and dir */
    pthread_t thread[];
};

struct eg_job *eg_job_new(enum eg_job_kind kind, const struct eg_peer *p)
{
    struct eg_job *const job = calloc(1, sizeof *job);
    if (job) {
        job->mail.kind = EG_MAIL_JOB;
        job->kind = kind;
        job->reactor = p->r;
        job->conn = eg_peer_id(p);
        job->sid = p->sid;
    }
    return job;
}

void eg_job_free(struct eg_job *job)
{
    if (!job) {
        return;
    }
    for (int i = 0; i < job->found_count; i++) {
        eg_bytes_unref(job->found[i]);
    }
    free(job->found);
    eg_bytes_unref(job->bytes);
    free(job);
}

void eg_job_abandon(struct eg_job *job)
{
    if (job) {
        __atomic_store_n(&job->abandoned, 1, __ATOMIC_RELEASE);
    }
}

static void enqueue(struct eg_pool *pool, struct eg_job *job)
{
    job->next = NULL;
    pool_lock(&pool->lock);
    if (pool->last) {
        pool->last->next = job;
    } else {
        pool->first = job;
    }
    pool->last = job;
    pthread_cond_signal(&pool->wake);
    pool_unlock(&pool->lock);
}

void eg_pool_give(struct eg_pool *pool, struct eg_job *job)
{
    enqueue(pool, job);
}

/* The next job; NULL at the end. *more: others wait. */
static struct eg_job *dequeue(struct eg_pool *pool, bool *more)
{
    pool_lock(&pool->lock);
    while (!pool->first && !pool->stopping) {
        pool_wait(&pool->wake, &pool->lock);
    }
    struct eg_job *const job = pool->stopping ? NULL : pool->first;
    if (job) {
        pool->first = job->next;
        if (!pool->first) {
            pool->last = NULL;
        }
    }
    *more = pool->first != NULL;
    pool_unlock(&pool->lock);
    return job;
}

static void *read_log(void *arg)
{
    struct eg_pool *const pool = arg;
    struct eg_job *job;
    void *log = NULL;
    bool more;
    while ((job = dequeue(pool, &more))) {
        const struct eg_reactors *const rs = job->reactor->set;
        const int64_t start = eg_clock_mono_us();
        if (!log && pool->ops->open(pool->dir, &log) != EG_OK) {
            log = NULL;
        }
        if (!eg_job_step(job, pool->ops, log)) {
            enqueue(pool, job);
        } else {
            if (job->err != EG_OK && job->err != EG_ENOTFOUND && log) {
                pool->ops->close(log);
                log = NULL;
            }
            eg_queue_push(&job->reactor->mail, &job->mail.node);
        }
        if (more) {
            eg_rest(rs, start);
        }
    }
    if (log) {
        pool->ops->close(log);
    }
    return NULL;
}

enum eg_err eg_pool_start(const struct eg_log_ops *ops, const char *dir, unsigned threads,
                          struct eg_pool **out)
{
    struct eg_pool *const pool = calloc(1, sizeof *pool + threads * sizeof pool->thread[0]);
    enum eg_err err = EG_ENOMEM;
    if (!pool) {
        goto out;
    }
    pool->ops = ops;
    pool_init(&pool->lock);
    pthread_cond_init(&pool->wake, NULL);
    pool->dir = strdup(dir);
    if (!pool->dir) {
        goto out;
    }
    while (pool->threads < threads) {
        if (pthread_create(&pool->thread[pool->threads], NULL, read_log, pool) != 0) {
            goto out;
        }
        pool->threads++;
    }
    err = EG_OK;
out:
    if (err != EG_OK) {
        eg_pool_stop(pool);
    } else {
        *out = pool;
    }
    return err;
}

void eg_pool_stop(struct eg_pool *pool)
{
    if (!pool) {
        return;
    }
    pool_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pool_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pool_unshared(&pool->lock);
    while (pool->first) {
        struct eg_job *const job = pool->first;
        pool->first = job->next;
        eg_job_free(job);
    }
    pthread_cond_destroy(&pool->wake);
    pool_destroy(&pool->lock);
    free(pool->dir);
    free(pool);
}

static enum eg_err store_open(const char *dir, void **out)
{
    struct eg_reader *reader = NULL;
    char why[256] = "";
    const enum eg_err err = eg_reader_open(dir, &reader, why, sizeof why);
    if (err != EG_OK) {
        eg_log_limited(EG_LOG_ERROR, "reader.open", "why=%s", why);
    }
    *out = reader;
    return err;
}

static void store_close(void *log)
{
    eg_reader_close(log);
}

static enum eg_err store_session(void *log, struct eg_slice id, struct eg_session_row *out)
{
    return eg_reader_session(log, id, out);
}

static enum eg_err store_session_sid(void *log, int64_t sid, struct eg_session_row *out)
{
    return eg_reader_session_sid(log, sid, out);
}

static enum eg_err store_events(void *log, const struct eg_page *page, eg_event_fn *fn, void *arg)
{
    const enum eg_err err = eg_reader_events(log, page, fn, arg);
    if (err != EG_OK) {
        eg_log_limited(EG_LOG_ERROR, "reader.events", "why=%s", eg_reader_why(log));
    }
    return err;
}

const struct eg_log_ops eg_log_store = {.open = store_open,
                                        .close = store_close,
                                        .session = store_session,
                                        .session_sid = store_session_sid,
                                        .events = store_events};
