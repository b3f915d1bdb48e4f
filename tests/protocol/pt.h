/*
 * pt: what every black-box test here shares. One gateway a test, on port 0, on a folder of its own.
 *
 * Threads: the calls below assert with Criterion, so they belong to the test's main thread. Threads
 * of a test use tl_* directly and report through their own struct.
 * Owns: the gate, every connection from pt_open and its kin, every frame from pt_next and its kin;
 * all are released after the test by pt_fini.
 * Happy path: pt_start(NULL) -> pt_client(...) -> pt_send / pt_expect ...
 * Failure modes: each call fails the test with what came instead, and the end of the log.
 */
#ifndef PT_H
#define PT_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <criterion/criterion.h>

#include "tl_buf.h"
#include "tl_gate.h"
#include "tl_json.h"
#include "tl_ws.h"

/* How long a test waits for something that must happen, and for something that must not. */
#define PT_WAIT_MS 15000
#define PT_QUIET_MS 150

/* A suite whose tests start their own gateway and are bounded in time. */
#define PT_SUITE(name) PT_SUITE_FOR(name, 120)
#define PT_SUITE_FOR(name, seconds)                                                                \
    TestSuite(name, .init = pt_init, .fini = pt_fini, .timeout = seconds)

/*
 * A test whose last act is to stop the gateway, asking for exit code 0 and no sanitizer report.
 * (What a suite's fini finds would be printed but not counted.)
 */
#define PT_TEST(suite, name)                                                                       \
    static void suite##_##name##_body(void);                                                       \
    Test(suite, name)                                                                              \
    {                                                                                              \
        suite##_##name##_body();                                                                   \
        pt_end();                                                                                  \
    }                                                                                              \
    static void suite##_##name##_body(void)

void pt_init(void);
void pt_end(void);
void pt_fini(void);

/* Starts the gateway with the agents "echo" and "support" and these further settings (or NULL). */
struct tl_gate *pt_start(const char *settings);
struct tl_gate *pt_start_with(const struct tl_gate_opts *o);
extern struct tl_gate *pt_gate;

/* Restarts after a clean stop (exit code 0 asked for) or after kill -9. */
void pt_restart(void);
void pt_kill_restart(void);

/* A size from the environment, or its default. */
long pt_size(const char *name, long fallback);

/* Tokens live as long as the test. pt_alice: scope "read write", sub alice. */
const char *pt_alice(void);
const char *pt_token(const char *sub, const char *scope);
const char *pt_token_for(const struct tl_claims *claims);
const char *pt_worker_token(const char *agent);

/* Connections. `extra` is a fragment of hello's members, or NULL. */
struct tl_ws *pt_open(void);
struct tl_ws *pt_keep(struct tl_ws *ws); /* puts a connection into the test's care */
void pt_drop(struct tl_ws *ws);          /* closes one early, without a close frame */
void pt_drop_reset(struct tl_ws *ws);
struct tl_ws *pt_client(const char *agent, const char *extra);
struct tl_ws *pt_client_as(const char *token, const char *agent, const char *extra);
struct tl_ws *pt_worker(const char *agent, const char *extra);
/* The hello_ok of the latest pt_client or pt_worker. */
extern const cJSON *pt_hello;
/* `"session_id":"..."` of the latest hello_ok, for the next hello. */
const char *pt_sid(void);
/* printf into storage that lives as long as the test. */
char *pt_f(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Frames. */
void pt_send(struct tl_ws *ws, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
cJSON *pt_next(struct tl_ws *ws);
cJSON *pt_expect(struct tl_ws *ws, const char *type); /* the next frame, of this type */
cJSON *pt_wait(struct tl_ws *ws, const char *type);   /* skips frames of other types */
cJSON *pt_error(struct tl_ws *ws, const char *code);  /* the next frame is this error */
void pt_refused(struct tl_ws *ws, const char *code, const char *next_step, int close_code);
void pt_closed(struct tl_ws *ws, int code); /* closes with this code, other frames skipped */
void pt_quiet(struct tl_ws *ws);            /* answers a ping with pong and nothing before it */
int64_t pt_say(struct tl_ws *ws, const char *text); /* publishes; returns the cursor */
char *pt_text(const cJSON *o);                      /* the frame as text, for messages */

/* Turns: the next frame is a turn; ends it with a final of this content; the common members. */
cJSON *pt_turn(struct tl_ws *worker);
void pt_final(struct tl_ws *worker, const cJSON *turn, const char *content);
const char *pt_on(const cJSON *turn); /* "session_id":"...","turn":N */
/* The next frame is the final response to this turn with this outcome. */
cJSON *pt_outcome(struct tl_ws *ws, int64_t turn, const char *status);

/* Keeps a frame until the end of the test. */
cJSON *pt_keep_json(cJSON *take);

/* What a frame must hold. `o` may wait for a frame: it is evaluated once, on failure too. */
#define pt_frame_(o, right, ...)                                                                   \
    do {                                                                                           \
        const cJSON *const pt_o_ = (o);                                                            \
        cr_assert(right, __VA_ARGS__, pt_text(pt_o_));                                             \
    } while (0)
#define pt_is(o, path, value)                                                                      \
    pt_frame_(o, tl_is(pt_o_, path, value), "%s is not \"%s\" in %s", path, value)
#define pt_int(o, path, value)                                                                     \
    pt_frame_(o, tl_int(pt_o_, path) == (int64_t)(value), "%s is not %" PRId64 " in %s", path,     \
              (int64_t)(value))
#define pt_has(o, path) pt_frame_(o, tl_has(pt_o_, path), "no %s in %s", path)
#define pt_hasnt(o, path) pt_frame_(o, !tl_has(pt_o_, path), "unexpected %s in %s", path)
#define pt_true(o, path) pt_frame_(o, tl_bool(pt_o_, path), "%s is not true in %s", path)
#define pt_false(o, path)                                                                          \
    pt_frame_(o, cJSON_IsFalse(tl_get(pt_o_, path)), "%s is not false in %s", path)

#endif
