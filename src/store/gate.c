/*
 * gate.c - see gate.h. One mutex, one counter, two conditions; a reader pays two uncontended locks
 * for a page of events.
 */
#include "store/gate.h"

#include <errno.h>
#include <stdbool.h>
#include <time.h>

#include "base/lock.h"

EG_MUTEX(gate);

static struct {
    struct gate_mutex lock;
    pthread_cond_t opened, empty;
    pthread_once_t once; /* makes empty */
    int inside EG_GUARDED_BY(gate_mutex);
    int shut EG_GUARDED_BY(gate_mutex); /* writers that hold it shut */
} gate = {.lock = {PTHREAD_MUTEX_INITIALIZER},
          .opened = PTHREAD_COND_INITIALIZER,
          .once = PTHREAD_ONCE_INIT};

static void make_empty(void)
{
    eg_cond_init(&gate.empty);
}

void eg_gate_enter(void)
{
    gate_lock(&gate.lock);
    while (gate.shut > 0) {
        gate_wait(&gate.opened, &gate.lock);
    }
    gate.inside++;
    gate_unlock(&gate.lock);
}

void eg_gate_leave(void)
{
    gate_lock(&gate.lock);
    if (--gate.inside == 0 && gate.shut > 0) {
        (void)pthread_cond_broadcast(&gate.empty);
    }
    gate_unlock(&gate.lock);
}

void eg_gate_shut(int wait_ms)
{
    (void)pthread_once(&gate.once, make_empty); /* nobody signals it while the gate is open */
    const struct timespec until = eg_cond_until(wait_ms);
    gate_lock(&gate.lock);
    gate.shut++;
    while (gate.inside > 0) {
        if (gate_wait_until(&gate.empty, &gate.lock, &until) == ETIMEDOUT) {
            break;
        }
    }
    gate_unlock(&gate.lock);
}

void eg_gate_open(void)
{
    gate_lock(&gate.lock);
    if (--gate.shut == 0) {
        (void)pthread_cond_broadcast(&gate.opened);
    }
    gate_unlock(&gate.lock);
}
