/*
 * selftest.h - proves at start that adoption works with the library that is loaded: real clients
 * upgrade on our own listener and must be found again, bytes and all, at the sockets taken over.
 *
 * Threads: the test runs on the starting thread; sockets come to it from civetweb's workers
 * through eg_selftest_take. Owns the sockets of both ends.
 */
#ifndef EG_EDGE_SELFTEST_H
#define EG_EDGE_SELFTEST_H

#include "edge/reactor.h"

/* The header that marks a request of the test; its value is the key. */
#define EG_SELFTEST_HEADER "X-Ebbgate-Self-Test"
#define EG_SELFTEST_KEY_CHARS 32

struct eg_selftest;

enum eg_err eg_selftest_new(struct eg_selftest **out) EG_MUST;
void eg_selftest_free(struct eg_selftest *t);
/* Random, made anew for each start. */
const char *eg_selftest_key(const struct eg_selftest *t);
/* An eg_adopt_sink: takes a. */
void eg_selftest_take(void *test, struct eg_adopted *a);
/* Runs it against host:port. EG_ECORRUPT: why says what did not hold. */
enum eg_err eg_selftest_run(struct eg_selftest *t, const char *host, uint16_t port, char *why,
                            size_t why_size) EG_MUST;

/* A connection to host:port, waited for at most ms; -1 on failure. */
int eg_selftest_connect(const char *host, uint16_t port, int ms);

#endif
