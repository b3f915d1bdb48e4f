/*
 * fair.h - who comes next when more commands wait than one batch takes.
 *
 * Fair queueing as in a router (deficit round robin with a list for newcomers, RFC 8290 4.1 and
 * 4.2), twice over: among groups (all connections of one sub; a worker by itself; all that still
 * shake hands together), and within a group among its flows (connections, calls). Whoever asks for
 * little is served at once, whoever asks for much waits for his own backlog and not others for it.
 * The commands of one flow keep their order.
 *
 * Not thread-safe: the core's. Owns the commands that wait in it. Failure mode: without memory for
 * a flow its commands join a common one, in order, until that is empty again.
 */
#ifndef EG_CORE_FAIR_H
#define EG_CORE_FAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eg_cmd;
struct eg_fair;

#define EG_FAIR_QUANTUM 65536 /* what a flow, and a group, may cost before it is another's turn */

/* Which group a command belongs to; asked when a flow begins. */
typedef uint64_t eg_fair_group_fn(void *arg, const struct eg_cmd *cmd);

/* NULL without memory. */
struct eg_fair *eg_fair_new(eg_fair_group_fn *group, void *arg);
/* Frees what waits, too. */
void eg_fair_free(struct eg_fair *f);
/* Takes cmd. */
void eg_fair_add(struct eg_fair *f, struct eg_cmd *cmd);
/* The command whose turn it is; it stays. NULL: none waits. */
struct eg_cmd *eg_fair_peek(struct eg_fair *f);
/* Takes out what peek has just told. cost: what it is charged, in bytes or what weighs as much. */
struct eg_cmd *eg_fair_take(struct eg_fair *f, size_t cost);
size_t eg_fair_count(const struct eg_fair *f); /* how many wait */

#endif
