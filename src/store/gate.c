/*
 * gate.c - see gate.h. One mutex, one counter, two conditions; a reader pays two uncontended locks
 * for a page of events.
 */
#include "store/gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened, empty;
    int inside;
    int shut; /* writers that hold it shut */
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

void eg_gate_enter(void)
{
    (void)pthread_mutex_lock(&gate.lock);
    while (gate.shut > 0) {
        (void)pthread_cond_wait(&gate.opened, &gate.lock);
    }
    gate.inside++;
    (void)pthread_mutex_unlock(&gate.lock);
}

void eg_gate_leave(void)
{
    (void)pthread_mutex_lock(&gate.lock);
    if (--gate.inside == 0 && gate.shut > 0) {
        (void)pthread_cond_broadcast(&gate.empty);
    }
    (void)pthread_mutex_unlock(&gate.lock);
}

void eg_gate_shut(int wait_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)wait_ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&gate.lock);
    gate.shut++;
    while (gate.inside > 0) {
        if (pthread_cond_timedwait(&gate.empty, &gate.lock, &until) == ETIMEDOUT) {
            break;
        }
    }
    (void)pthread_mutex_unlock(&gate.lock);
}

void eg_gate_open(void)
{
    (void)pthread_mutex_lock(&gate.lock);
    if (--gate.shut == 0) {
        (void)pthread_cond_broadcast(&gate.opened);
    }
    (void)pthread_mutex_unlock(&gate.lock);
}
