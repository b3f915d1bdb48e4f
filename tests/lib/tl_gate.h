/*
 * tl_gate: a real gateway process on a folder of its own, for tests and benchmarks.
 *
 * Purpose: start, stop, kill and restart the daemon, mint tokens, read its log, find sanitizer
 * reports, and leave nothing behind.
 * Threads: one gate, one thread. The process dies with the thread that started it (Linux
 * PR_SET_PDEATHSIG), so start it from a thread that lives as long as the test.
 * Owns: the data folder, the log file and the child process.
 * Happy path: tl_gate_new -> tl_gate_token ... -> tl_gate_stop -> tl_gate_free.
 * Failure modes: calls return false or NULL; tl_gate_error() says why, with the end of the log.
 *
 * Environment: EBBGATE_BIN, the program (default build/ebbgate); TL_KEEP=1 keeps the folders.
 */
#ifndef TL_GATE_H
#define TL_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct tl_gate;

struct tl_gate_opts {
    const char *config;      /* text of the configuration file, or NULL for none */
    const char *const *args; /* further arguments of serve, NULL-terminated, or NULL */
    const char *const *env;  /* NAME=VALUE, NULL-terminated, or NULL */
    const char *listen;      /* NULL: 127.0.0.1:0 */
    int ready_timeout_ms;    /* 0: 30000 */
};

/* The claims of a token, as the command line takes them. NULL and 0 leave a flag away. */
struct tl_claims {
    const char *sub;      /* NULL: "alice" */
    const char *scope;    /* NULL: "read write" */
    const char *agents;   /* comma-separated */
    const char *sessions; /* comma-separated */
    long ttl;             /* seconds */
};

/* Path of the program under test. */
const char *tl_gate_bin(void);

/* Makes a folder and starts the daemon. NULL on failure (the reason goes to stderr). */
struct tl_gate *tl_gate_new(const struct tl_gate_opts *o);

/* Makes the folder only; tl_gate_start starts. */
struct tl_gate *tl_gate_prepare(const struct tl_gate_opts *o);

/* Starts the daemon on the gate's folder and waits for its ready line. */
bool tl_gate_start(struct tl_gate *g);

/* Replaces the configuration text for the next start. */
bool tl_gate_config(struct tl_gate *g, const char *config);

/* SIGTERM, then waits. Returns the exit code, 128 + signal, or -1 when it did not end in time. */
int tl_gate_stop(struct tl_gate *g, int timeout_ms);

/* Sends a signal; tl_gate_wait collects the exit as tl_gate_stop does. */
void tl_gate_signal(struct tl_gate *g, int sig);
int tl_gate_wait(struct tl_gate *g, int timeout_ms);

/* kill -9 and reap. */
void tl_gate_kill(struct tl_gate *g);

bool tl_gate_running(struct tl_gate *g);
pid_t tl_gate_pid(const struct tl_gate *g);
int tl_gate_port(const struct tl_gate *g);
int tl_gate_admin(const struct tl_gate *g);
const char *tl_gate_dir(const struct tl_gate *g);   /* the data folder */
const char *tl_gate_ready(const struct tl_gate *g); /* the ready line */
const char *tl_gate_error(const struct tl_gate *g);

/* The daemon's log so far; the caller frees. */
char *tl_gate_log(const struct tl_gate *g);

/*
 * Mints a token with `ebbgate token --data DIR`. The caller frees. NULL on failure. A TTL below
 * zero makes a token that has already expired, where the program allows it.
 */
char *tl_gate_token(struct tl_gate *g, const struct tl_claims *c);

/*
 * Runs the program with arguments (NULL-terminated, without the program name). Its output is given
 * to the caller to free where a pointer is passed. Returns the exit code, or 128 + signal, or -1.
 */
int tl_gate_run(const struct tl_gate *g, const char *const *args, char **out, char **err,
                int timeout_ms);

/* Sanitizer reports of any process of this gate, joined; NULL when there are none. Caller frees. */
char *tl_gate_reports(const struct tl_gate *g);

/* Open descriptors and resident bytes of the daemon (from /proc); -1 on failure. */
long tl_gate_fds(const struct tl_gate *g);
long tl_gate_rss(const struct tl_gate *g);

/* Is this a build with a sanitizer (for generous bounds)? Known by the program's symbols. */
bool tl_gate_sanitized(void);

/* Kills what still runs and removes the folder (unless TL_KEEP is set). NULL is allowed. */
void tl_gate_free(struct tl_gate *g);

/* Frees every gate of this process that is still there. For a test's clean-up. */
void tl_gate_free_all(void);

#endif
