/*
 * rest.h - leaves the processors to those who ask for little. Private to src/edge.
 *
 * Where threads are more than processors, a client with one small frame waits until the system lets
 * the threads run that serve it, behind all that work for somebody who asks for much. So a thread
 * that has worked for such a one (a reactor for its line, a reader for a queue of replays, the
 * parser) rests as long as that took, while others who ask for little are being served. With nobody
 * else about it goes on at once. Who sends now much, now little, is one of either kind each time.
 *
 * Threads: any.
 */
#ifndef EG_EDGE_REST_H
#define EG_EDGE_REST_H

#include <stdint.h>

struct eg_reactors;

#define EG_REST_MOST_US 10000
#define EG_REST_FOR_MS 100 /* after one who asks for little was last served */

/* One who asks for little is being served. */
void eg_rest_seen(struct eg_reactors *rs, int64_t now_mono_ms);
/* How long to rest after what began at start_us (monotonic) and ends now, in microseconds. */
int64_t eg_rest_us(const struct eg_reactors *rs, int64_t start_us);
/* Sleeps as long. */
void eg_rest(const struct eg_reactors *rs, int64_t start_us);

#endif
