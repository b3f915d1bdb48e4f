/*
 * figures.h - what a run measured: every figure once a round, in the end its median and range.
 *
 * One thread. Figures are known by name and by who was measured ("ebbgate", "machine", a peer).
 */
#ifndef EG_BENCH_FIGURES_H
#define EG_BENCH_FIGURES_H

#include <stdbool.h>

/* Whom the reports from now on are about; "ebbgate" at first. The text is kept, not copied. */
void figures_who(const char *who);
/* A figure of this round; p50 and p99 in microseconds, negative: none. Printed at once. */
void report(const char *name, double value, const char *unit, double p50, double p99);
/* A fact about the run or about a participant: a version, what its acknowledgement means, why it
 * was left out. The last of a kind stands. */
void figures_fact(const char *who, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The machine's facts: processor, cores, memory, kernel, load. when: "start" or "end". */
void figures_machine(const char *when);
/* Medians and ranges on stdout, when there was more than one round. */
void figures_summary(void);
/* The same as JSON lines, one object a fact or figure, to path; "-": stdout. False: cannot. */
bool figures_json(const char *path);

#endif
