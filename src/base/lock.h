/*
 * lock.h - locks of a named kind, for the analysis of annotations.h.
 *
 * EG_MUTEX(pool); declares struct pool_mutex, the functions below for it, and the name pool_mutex
 * for EG_GUARDED_BY and EG_REQUIRES. EG_RWLOCK(auth); the same for struct auth_rwlock. Each
 * function is the pthread call it is named after; they fail only by misuse.
 */
#ifndef EG_BASE_LOCK_H
#define EG_BASE_LOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "base/annotations.h"

#define EG_LOCK_FN __attribute__((unused)) static inline

/* pool_init, pool_destroy, pool_lock, pool_unlock; pool_wait and pool_wait_until for a condition
 * with the lock held. pool_unshared: no other thread knows the object, it is made or freed, or all
 * who knew it have ended. pool_only_writer: this thread alone ever writes what the lock guards, so
 * it reads without. */
#define EG_MUTEX(name)                                                                             \
    struct EG_CAPABILITY("mutex") name##_mutex {                                                   \
        pthread_mutex_t mutex;                                                                     \
    };                                                                                             \
    extern struct name##_mutex name##_mutex;                                                       \
    EG_LOCK_FN void name##_init(struct name##_mutex *m)                                            \
    {                                                                                              \
        (void)pthread_mutex_init(&m->mutex, NULL);                                                 \
    }                                                                                              \
    EG_LOCK_FN void name##_destroy(struct name##_mutex *m)                                         \
    {                                                                                              \
        (void)pthread_mutex_destroy(&m->mutex);                                                    \
    }                                                                                              \
    EG_ACQUIRE(name##_mutex) EG_UNCHECKED EG_LOCK_FN void name##_lock(struct name##_mutex *m)      \
    {                                                                                              \
        (void)pthread_mutex_lock(&m->mutex);                                                       \
    }                                                                                              \
    EG_RELEASE(name##_mutex) EG_UNCHECKED EG_LOCK_FN void name##_unlock(struct name##_mutex *m)    \
    {                                                                                              \
        (void)pthread_mutex_unlock(&m->mutex);                                                     \
    }                                                                                              \
    EG_REQUIRES(name##_mutex)                                                                      \
    EG_LOCK_FN void name##_wait(pthread_cond_t *cond, struct name##_mutex *m)                      \
    {                                                                                              \
        (void)pthread_cond_wait(cond, &m->mutex);                                                  \
    }                                                                                              \
    /* 0, or an errno: ETIMEDOUT. */                                                               \
    EG_REQUIRES(name##_mutex)                                                                      \
    EG_LOCK_FN int name##_wait_until(pthread_cond_t *cond, struct name##_mutex *m,                 \
                                     const struct timespec *until)                                 \
    {                                                                                              \
        return pthread_cond_timedwait(cond, &m->mutex, until);                                     \
    }                                                                                              \
    EG_ASSERTS_SHARED(name##_mutex)                                                                \
    EG_LOCK_FN void name##_only_writer(const struct name##_mutex *m)                               \
    {                                                                                              \
        (void)m;                                                                                   \
    }                                                                                              \
    EG_ASSERTS(name##_mutex) EG_LOCK_FN void name##_unshared(const struct name##_mutex *m)         \
    {                                                                                              \
        (void)m;                                                                                   \
    }                                                                                              \
    struct name##_mutex

/* auth_init, auth_destroy, auth_read, auth_end_read, auth_write, auth_end_write, auth_unshared. */
#define EG_RWLOCK(name)                                                                            \
    struct EG_CAPABILITY("rwlock") name##_rwlock {                                                 \
        pthread_rwlock_t rwlock;                                                                   \
    };                                                                                             \
    extern struct name##_rwlock name##_rwlock;                                                     \
    EG_LOCK_FN void name##_init(struct name##_rwlock *l)                                           \
    {                                                                                              \
        (void)pthread_rwlock_init(&l->rwlock, NULL);                                               \
    }                                                                                              \
    EG_LOCK_FN void name##_destroy(struct name##_rwlock *l)                                        \
    {                                                                                              \
        (void)pthread_rwlock_destroy(&l->rwlock);                                                  \
    }                                                                                              \
    EG_ACQUIRE_SHARED(name##_rwlock)                                                               \
    EG_UNCHECKED EG_LOCK_FN void name##_read(struct name##_rwlock *l)                              \
    {                                                                                              \
        (void)pthread_rwlock_rdlock(&l->rwlock);                                                   \
    }                                                                                              \
    EG_RELEASE_SHARED(name##_rwlock)                                                               \
    EG_UNCHECKED EG_LOCK_FN void name##_end_read(struct name##_rwlock *l)                          \
    {                                                                                              \
        (void)pthread_rwlock_unlock(&l->rwlock);                                                   \
    }                                                                                              \
    EG_ACQUIRE(name##_rwlock) EG_UNCHECKED EG_LOCK_FN void name##_write(struct name##_rwlock *l)   \
    {                                                                                              \
        (void)pthread_rwlock_wrlock(&l->rwlock);                                                   \
    }                                                                                              \
    EG_RELEASE(name##_rwlock)                                                                      \
    EG_UNCHECKED EG_LOCK_FN void name##_end_write(struct name##_rwlock *l)                         \
    {                                                                                              \
        (void)pthread_rwlock_unlock(&l->rwlock);                                                   \
    }                                                                                              \
    EG_ASSERTS(name##_rwlock) EG_LOCK_FN void name##_unshared(const struct name##_rwlock *l)       \
    {                                                                                              \
        (void)l;                                                                                   \
    }                                                                                              \
    struct name##_rwlock

/* A condition whose waits end by the monotonic clock. */
static inline void eg_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

/* When such a wait ends that is to last this long, for name_wait_until. */
static inline struct timespec eg_cond_until(int64_t ms)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += ms % 1000 * 1000000;
    t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

#endif
