/*
 * live.h - live traffic beside a load: twenty clients that each publish 50 times a second and wait
 * for the answer, in a process of their own.
 */
#ifndef EG_BENCH_LIVE_H
#define EG_BENCH_LIVE_H

#include "load.h"

struct live;

/* Returns when all are welcomed: the quiet phase begins. */
struct live *live_start(const struct load_target *target);
/* The quiet phase ends, the load begins. */
void live_next(struct live *l);
/* The load is over: the 99th percentiles of both phases. Frees l. */
void live_end(struct live *l, double *quiet_us, double *meanwhile_us);

#endif
