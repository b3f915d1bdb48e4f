/*
 * maintain.h - the thread that trims: it looks for sessions that retention has work on and asks the
 * core, a few at a time, so that a busy gateway never waits for it.
 */
#ifndef EG_APP_MAINTAIN_H
#define EG_APP_MAINTAIN_H

#include "core/core.h"

struct eg_maintain;

/* Starts the thread. core is borrowed until eg_maintain_stop returns. */
enum eg_err eg_maintain_start(struct eg_core *core, struct eg_settings *settings,
                              struct eg_maintain **out, char *why, size_t why_size) EG_MUST;
void eg_maintain_settings(struct eg_maintain *m, struct eg_settings *settings); /* a new snapshot */
void eg_maintain_stop(struct eg_maintain *m);                                   /* NULL is fine */

#endif
