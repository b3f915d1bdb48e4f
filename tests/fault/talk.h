/*
 * talk.h - one scripted talk with a gateway, all of its methods once, and what it was told.
 *
 * The gateway may fail at any point of it: the talk ends early then. talk_check holds the log
 * against what the talk was told: same events at the same cursors, no hole, each id once, and every
 * turn can be brought to its one end.
 */
#ifndef EG_FAULT_TALK_H
#define EG_FAULT_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "tl_gate.h"
#include "tl_json.h"

#define TALK_CURSORS 64

struct talk {
    char session[48];
    int wait_ms;                  /* for each answer */
    uint64_t print[TALK_CURSORS]; /* of events seen, by cursor */
    uint64_t top;
    uint64_t accepted[3]; /* cursors of messages "m1", "m2", "h1"; 0: not accepted */
    bool whole;           /* came to its end as without faults */
    char why[256];        /* of a check that failed */
};

/* Tokens for any gateway on this data folder. */
struct talk_tokens {
    char *client, *worker;
};
bool talk_tokens(struct tl_gate *g, struct talk_tokens *out);

void talk_run(struct talk *k, struct tl_gate *g, const struct talk_tokens *tokens);
bool talk_check(struct talk *k, struct tl_gate *g, const struct talk_tokens *tokens);

#endif
