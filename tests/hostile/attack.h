/*
 * attack.h - the hostile clients: a table of attacks, each run in a process of its own.
 */
#ifndef EG_HOSTILE_ATTACK_H
#define EG_HOSTILE_ATTACK_H

#include <stddef.h>
#include <sys/types.h>

struct attack_at {
    int port;
    const char *token; /* of a sub that may write */
    int seconds, scale;
};

/* Names and what they do, in the order they run; NULL ends. */
const char *attack_name(size_t i);
const char *attack_text(size_t i);
/* How many connections it keeps open at this scale. */
int attack_conns(size_t i, int scale);
/* Starts it; ends by itself after the seconds, or with this process. */
pid_t attack_start(size_t i, const struct attack_at *at);

#endif
