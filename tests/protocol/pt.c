/* pt: shared parts of the black-box tests. See pt.h. */
#define _GNU_SOURCE 1
#include "pt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/hooks.h>

struct tl_gate *pt_gate;
const cJSON *pt_hello;

/* Everything that is released after the test. */
#define PT_POOL 40000
static struct tl_ws *pool_ws[PT_POOL];
static size_t pool_ws_n;
static cJSON **pool_json;
static size_t pool_json_n, pool_json_cap;
static char *pool_text[PT_POOL];
static size_t pool_text_n;
static const char *alice;

/* A filter that matches nothing is a mistake. */
ReportHook(POST_ALL)(struct criterion_global_stats *all)
{
    if (all->tests_passed + all->tests_failed + all->tests_crashed == 0) {
        fputs("FAILED: no test has this name\n", stderr);
        _exit(1);
    }
}

void pt_init(void)
{
    setvbuf(stderr, NULL, _IOLBF, 0);
}

static char *keep_text(char *take)
{
    cr_assert(pool_text_n < PT_POOL);
    pool_text[pool_text_n++] = take;
    return take;
}

void pt_end(void)
{
    while (pool_ws_n)
        tl_ws_free(pool_ws[--pool_ws_n]);
    if (!pt_gate)
        return;
    int code = tl_gate_running(pt_gate) ? tl_gate_stop(pt_gate, 30000) : tl_gate_wait(pt_gate, 0);
    char *reports = tl_gate_reports(pt_gate);
    cr_expect(reports == NULL, "sanitizer reports:\n%s", reports);
    cr_expect(code == 0, "the gateway ended with %d; %s", code, tl_gate_error(pt_gate));
    free(reports);
}

void pt_fini(void)
{
    while (pool_ws_n)
        tl_ws_free(pool_ws[--pool_ws_n]);
    while (pool_json_n)
        cJSON_Delete(pool_json[--pool_json_n]);
    free(pool_json);
    tl_gate_free_all();
    while (pool_text_n)
        free(pool_text[--pool_text_n]);
}

struct tl_gate *pt_start_with(const struct tl_gate_opts *o)
{
    pt_gate = tl_gate_prepare(o);
    cr_assert(pt_gate);
    bool ok = tl_gate_start(pt_gate);
    if (!ok)
        tl_gate_kill(pt_gate);
    cr_assert(ok, "the gateway does not start: %s", tl_gate_error(pt_gate));
    return pt_gate;
}

struct tl_gate *pt_start(const char *settings)
{
    char *config = pt_f("agents = [\"echo\", \"support\"];\ndrain_timeout_ms = 300;\n%s\n",
                        settings ? settings : "");
    struct tl_gate_opts o = {.config = config};
    return pt_start_with(&o);
}

void pt_restart(void)
{
    int code = tl_gate_stop(pt_gate, 30000);
    cr_assert(code == 0, "stopping: exit %d, %s", code, tl_gate_error(pt_gate));
    cr_assert(tl_gate_start(pt_gate), "restart: %s", tl_gate_error(pt_gate));
}

void pt_kill_restart(void)
{
    tl_gate_kill(pt_gate);
    cr_assert(tl_gate_start(pt_gate), "restart: %s", tl_gate_error(pt_gate));
}

long pt_size(const char *name, long fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : fallback;
}

const char *pt_token_for(const struct tl_claims *claims)
{
    char *token = tl_gate_token(pt_gate, claims);
    cr_assert(token, "no token: %s", tl_gate_error(pt_gate));
    return keep_text(token);
}

const char *pt_token(const char *sub, const char *scope)
{
    struct tl_claims claims = {.sub = sub, .scope = scope};
    return pt_token_for(&claims);
}

const char *pt_alice(void)
{
    if (!alice)
        alice = pt_token("alice", "read write");
    return alice;
}

const char *pt_worker_token(const char *agent)
{
    struct tl_claims claims = {.sub = "worker", .scope = "agent", .agents = agent};
    return pt_token_for(&claims);
}

struct tl_ws *pt_keep(struct tl_ws *ws)
{
    cr_assert(ws, "no connection");
    cr_assert(pool_ws_n < PT_POOL);
    pool_ws[pool_ws_n++] = ws;
    return ws;
}

static void forget(const struct tl_ws *ws)
{
    for (size_t i = 0; i < pool_ws_n; i++) {
        if (pool_ws[i] == ws) {
            pool_ws[i] = pool_ws[--pool_ws_n];
            return;
        }
    }
}

void pt_drop(struct tl_ws *ws)
{
    forget(ws);
    tl_ws_free(ws);
}

void pt_drop_reset(struct tl_ws *ws)
{
    forget(ws);
    tl_ws_reset(ws);
}

struct tl_ws *pt_open(void)
{
    struct tl_ws_opts o = {.port = tl_gate_port(pt_gate)};
    int status = 0;
    struct tl_ws *ws = tl_ws_open(&o, &status);
    cr_assert(ws, "no upgrade: %d", status);
    return pt_keep(ws);
}

cJSON *pt_keep_json(cJSON *take)
{
    if (pool_json_n == pool_json_cap) {
        pool_json_cap = pool_json_cap ? 2 * pool_json_cap : 256;
        pool_json = realloc(pool_json, pool_json_cap * sizeof *pool_json);
        cr_assert(pool_json);
    }
    pool_json[pool_json_n++] = take;
    return take;
}

char *pt_text(const cJSON *o)
{
    char *text = cJSON_PrintUnformatted(o);
    if (!text)
        text = strdup("(nothing)");
    if (strlen(text) > 2000)
        strcpy(text + 1990, " ...");
    return keep_text(text);
}

char *pt_f(const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    cr_assert(n >= 0);
    return keep_text(text);
}

struct tl_ws *pt_client_as(const char *token, const char *agent, const char *extra)
{
    struct tl_ws *ws = pt_open();
    cJSON *o = tl_hello(ws, agent, token, extra, PT_WAIT_MS);

    cr_assert(o, "no answer to hello");
    pt_hello = pt_keep_json(o);
    pt_is(o, "type", "hello_ok");
    return ws;
}

struct tl_ws *pt_client(const char *agent, const char *extra)
{
    return pt_client_as(pt_alice(), agent, extra);
}

struct tl_ws *pt_worker(const char *agent, const char *extra)
{
    const char *role = "\"role\":\"agent\"";
    return pt_client_as(pt_worker_token(agent), agent, extra ? pt_f("%s,%s", role, extra) : role);
}

const char *pt_sid(void)
{
    cr_assert(*tl_str(pt_hello, "session_id"), "no session in %s", pt_text(pt_hello));
    return pt_f("\"session_id\":\"%s\"", tl_str(pt_hello, "session_id"));
}

void pt_send(struct tl_ws *ws, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    cr_assert(n >= 0);
    bool ok = tl_ws_text_n(ws, text, (size_t)n);
    cr_assert(ok, "cannot send %.200s: %s", text, tl_ws_error(ws));
    free(text);
}

cJSON *pt_next(struct tl_ws *ws)
{
    int why;
    cJSON *o = tl_json_next(ws, PT_WAIT_MS, &why);

    cr_assert(o, "expected a frame, got %s %d %s", tl_json_why(why), tl_ws_close_code(ws),
              tl_ws_close_reason(ws));
    return pt_keep_json(o);
}

cJSON *pt_expect(struct tl_ws *ws, const char *type)
{
    cJSON *o = pt_next(ws);
    pt_is(o, "type", type);
    return o;
}

cJSON *pt_wait(struct tl_ws *ws, const char *type)
{
    cJSON *o = tl_json_wait(ws, type, PT_WAIT_MS);
    cr_assert(o, "no %s came; close code %d %s", type, tl_ws_close_code(ws),
              tl_ws_close_reason(ws));
    return pt_keep_json(o);
}

cJSON *pt_error(struct tl_ws *ws, const char *code)
{
    cJSON *o = pt_expect(ws, "error");
    pt_is(o, "code", code);
    cr_assert(*tl_str(o, "message"), "no message in %s", pt_text(o));
    return o;
}

void pt_closed(struct tl_ws *ws, int code)
{
    int got = tl_ws_wait_close(ws, PT_WAIT_MS);
    cr_assert(got == code, "closed with %d (%s), not %d", got, tl_ws_close_reason(ws), code);
}

void pt_refused(struct tl_ws *ws, const char *code, const char *next_step, int close_code)
{
    cJSON *o = pt_expect(ws, "hello_error");

    pt_is(o, "code", code);
    cr_assert(*tl_str(o, "message"), "no message in %s", pt_text(o));
    pt_is(o, "next_step", next_step);
    pt_is(o, "next", next_step);
    if (!strcmp(next_step, "wait_then_retry"))
        cr_assert(tl_int(o, "retry_after_seconds") > 0, "no delay in %s", pt_text(o));
    else
        pt_hasnt(o, "retry_after_seconds");
    pt_hello = o;
    pt_closed(ws, close_code);
}

void pt_quiet(struct tl_ws *ws)
{
    static int n;

    pt_send(ws, "{\"type\":\"ping\",\"id\":\"quiet-%d\"}", ++n);
    cJSON *o = pt_expect(ws, "pong");
    pt_is(o, "id", pt_f("quiet-%d", n));
}

int64_t pt_say(struct tl_ws *ws, const char *text)
{
    pt_send(ws, "{\"type\":\"message\",\"content\":\"%s\"}", text);
    for (;;) {
        cJSON *o = pt_wait(ws, "response");
        if (tl_is(o, "status", "accepted"))
            return tl_int(o, "cursor");
    }
}

cJSON *pt_turn(struct tl_ws *worker)
{
    cJSON *o = pt_expect(worker, "turn");

    cr_assert(*tl_str(o, "session_id") && tl_int(o, "turn") > 0 && tl_int(o, "attempt") > 0, "%s",
              pt_text(o));
    return o;
}

const char *pt_on(const cJSON *turn)
{
    return pt_f("\"session_id\":\"%s\",\"turn\":%" PRId64, tl_str(turn, "session_id"),
                tl_int(turn, "turn"));
}

void pt_final(struct tl_ws *worker, const cJSON *turn, const char *content)
{
    pt_send(worker, "{\"type\":\"final\",%s,\"content\":\"%s\"}", pt_on(turn), content);
}

cJSON *pt_outcome(struct tl_ws *ws, int64_t turn, const char *status)
{
    cJSON *o = pt_expect(ws, "response");

    pt_is(o, "status", "final");
    pt_int(o, "turn", turn);
    pt_is(o, "outcome.status", status);
    return o;
}
