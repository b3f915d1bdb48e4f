/*
 * queue.h - many producers, one consumer: an intrusive stack of nodes swapped out whole and
 * reversed, with an eventfd that is written only when the consumer may be asleep.
 *
 * The consumer polls eg_queue_fd, then calls eg_queue_take until it is empty.
 */
#ifndef EG_BASE_QUEUE_H
#define EG_BASE_QUEUE_H

#include <stdbool.h>

#include "base/err.h"

struct eg_qnode {
    struct eg_qnode *next;
};

struct eg_queue {
    struct eg_qnode *head; /* atomic */
    int sleeping;          /* atomic: the consumer waits on fd */
    int fd;
};

enum eg_err eg_queue_init(struct eg_queue *q) EG_MUST;
void eg_queue_close(struct eg_queue *q);
int eg_queue_fd(const struct eg_queue *q);
/* Adds a list of nodes linked by next, first to last, in that order. Any thread. */
void eg_queue_push_list(struct eg_queue *q, struct eg_qnode *first, struct eg_qnode *last);
void eg_queue_push(struct eg_queue *q, struct eg_qnode *n);
/* All waiting nodes, oldest first, linked by next; NULL when there are none. Consumer only. */
struct eg_qnode *eg_queue_take(struct eg_queue *q);
/*
 * Announces that the consumer will wait on fd; returns false when something is waiting already
 * (then do not wait). After waking call eg_queue_awake.
 */
bool eg_queue_sleep(struct eg_queue *q);
void eg_queue_awake(struct eg_queue *q);

#endif
