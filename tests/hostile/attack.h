/*
 * attack.h - the hostile clients: a table of attacks, each run in a process of its own.
 */
#ifndef EG_HOSTILE_ATTACK_H
#define EG_HOSTILE_ATTACK_H

#include <stddef.h>
#include <sys/types.h>

struct attack_at {
    int port;
    const char *token;  /* of a sub that may write */
    const char *worker; /* of a worker of the agent b */
    int seconds, scale;
    int events; /* of the long session */
    int crowd;  /* how many come back at once after a restart */
};

/* Names and what they do, in the order they run; NULL ends. */
const char *attack_name(size_t i);
const char *attack_text(size_t i);
/* How many connections it keeps open at this scale. */
int attack_conns(size_t i, int scale);
/* In a process of attackers: it gets what processor time the others leave. A real attacker brings
 * processors of its own. */
void attack_aside(void);
/* Starts it; ends by itself after the seconds, or with this process. */
pid_t attack_start(size_t i, const struct attack_at *at);

/* What takes more than a row of the table (crowd.c); each in a process of its own, which exits with
 * 0 when all of it went as it should. */
enum crowd_work {
    CROWD_LONG_SESSION, /* events into the session x-million */
    CROWD_SETTLE,       /* a session with some messages for each of the crowd */
    CROWD_RETURN        /* all of them resume at once, from the start of their sessions */
};
#define CROWD_EVENTS 20
pid_t crowd_start(enum crowd_work work, const struct attack_at *at);

#endif
