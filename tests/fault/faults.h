/*
 * faults.h - what the fault cases share. Each case runs in a process of its own, with its own gate.
 */
#ifndef EG_FAULT_FAULTS_H
#define EG_FAULT_FAULTS_H

#include "faultlib.h"
#include "talk.h"

/* For a case without points, or from one point to the next. */
#define CASE_SECONDS 600

/* The page that the fault library in the daemon reads. */
extern struct fault_state *faults;
extern enum fault_kind faults_last; /* the kind ordered last */
extern unsigned long fault_points;  /* how many Nths of each kind are tried; 0: all */
extern unsigned long play_ms;       /* how long a case with load plays */

/* Ends the case as failed; as not possible here. */
void case_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void case_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* One line about what a case did. */
void case_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Makes the page and puts the library into the environment of what is started from now on. */
void faults_load(const char *data_dir);
void faults_order(enum fault_kind kind, int error, int64_t nth, int64_t times);
void faults_clear(void);

/* The case functions: faults_calls.c, faults_load.c. */
void case_disk(void);
void case_disk_start(void);
void case_memory(void);
void case_memory_some(void);
void case_memory_gone(void);
void case_memory_start(void);
void case_full(void);
void case_descriptors(void);
void case_interrupts(void);
void case_clock(void);

#endif
