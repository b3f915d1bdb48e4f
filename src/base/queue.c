#include "base/queue.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum eg_err eg_queue_init(struct eg_queue *q)
{
    *q = (struct eg_queue){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    return q->fd < 0 ? EG_EIO : EG_OK;
}

void eg_queue_close(struct eg_queue *q)
{
    if (q->fd >= 0) {
        close(q->fd);
    }
    q->fd = -1;
}

int eg_queue_fd(const struct eg_queue *q)
{
    return q->fd;
}

/* The stack is newest first; a list goes in reversed so that taking reverses it back. */
static struct eg_qnode *reverse(struct eg_qnode *list)
{
    struct eg_qnode *out = NULL;
    while (list) {
        struct eg_qnode *next = list->next;
        list->next = out;
        out = list;
        list = next;
    }
    return out;
}

void eg_queue_push_list(struct eg_queue *q, struct eg_qnode *first, struct eg_qnode *last)
{
    last->next = NULL;
    struct eg_qnode *top = reverse(first); /* top == last, and first is now its tail */
    struct eg_qnode *old = __atomic_load_n(&q->head, __ATOMIC_RELAXED);
    do {
        first->next = old;
    } while (!__atomic_compare_exchange_n(&q->head, &old, top, true, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    if (__atomic_load_n(&q->sleeping, __ATOMIC_SEQ_CST) &&
        __atomic_exchange_n(&q->sleeping, 0, __ATOMIC_SEQ_CST)) {
        const uint64_t one = 1;
        while (write(q->fd, &one, sizeof one) < 0 && errno == EINTR) {
        }
    }
}

void eg_queue_push(struct eg_queue *q, struct eg_qnode *n)
{
    eg_queue_push_list(q, n, n);
}

struct eg_qnode *eg_queue_take(struct eg_queue *q)
{
    return reverse(__atomic_exchange_n(&q->head, NULL, __ATOMIC_SEQ_CST));
}

bool eg_queue_sleep(struct eg_queue *q)
{
    __atomic_store_n(&q->sleeping, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&q->head, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&q->sleeping, 0, __ATOMIC_SEQ_CST);
        return false;
    }
    return true;
}

void eg_queue_awake(struct eg_queue *q)
{
    uint64_t count;
    __atomic_store_n(&q->sleeping, 0, __ATOMIC_SEQ_CST);
    while (read(q->fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}
