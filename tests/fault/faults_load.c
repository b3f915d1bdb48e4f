/*
 * faults_load.c - cases under the torture's load: disk full, descriptors used up, interruptions, a
 * clock that jumps. The torture's check (tests/torture) is the judge.
 */
#include "faults.h"

#include "../torture/torture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge/adopt.h"

#define DAY_MS INT64_C(86400000)
#define FULL_BYTES "96m"
#define DROP_BYTES 262144

static void rules(void)
{
    faults_load(tl_gate_dir(t.gate));
}

static void finish(void)
{
    t_check();
    t_hang_up();
    if (!tl_gate_running(t.gate)) {
        case_fail("the gateway ended with %d", tl_gate_wait(t.gate, 0));
    }
    if (tl_gate_stop(t.gate, 30000) != 0) {
        case_fail("the gateway does not stop: %s", tl_gate_error(t.gate));
    }
    tl_gate_free(t.gate);
}

static int ready(void)
{
    struct tl_http h = {0};
    const int status = tl_http(tl_gate_port(t.gate), "GET", "/ready", NULL, NULL, &h);
    tl_http_free(&h);
    return status;
}

/* --- a full disk --- */

static void small_disk(void)
{
    if (mount("tmpfs", tl_gate_dir(t.gate), "tmpfs", 0, "size=" FULL_BYTES ",mode=0700") != 0) {
        case_skip("a small file system cannot be mounted here: %s", strerror(errno));
    }
}

/* Takes all the room there is. */
static void fill(char path[4096])
{
    static char block[4096];
    snprintf(path, 4096, "%s/ballast", tl_gate_dir(t.gate));
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    while (fd >= 0 && write(fd, block, sizeof block) > 0) {
    }
    if (fd < 0 || errno != ENOSPC) {
        case_fail("the disk cannot be filled: %s", strerror(errno));
    }
    close(fd);
}

static void read_while_full(void)
{
    const struct tl_ws_opts o = {.port = tl_gate_port(t.gate), .bearer = t.client_token};
    struct tl_ws *ws = tl_ws_open(&o, NULL);
    cJSON *hello = ws ? tl_hello(ws, "torture", NULL,
                                 "\"session_id\":\"torture-0\",\"since\":0,"
                                 "\"capabilities\":[\"streaming\"]",
                                 10000)
                      : NULL;
    cJSON *end = tl_is(hello, "type", "hello_ok") ? tl_json_wait(ws, "replay_end", 20000) : NULL;
    if (!end || tl_int(end, "cursor") < (int64_t)t.truth[0].top) {
        char *text = cJSON_PrintUnformatted(hello);
        case_fail("the log cannot be read while the disk is full: %s", text ? text : "no answer");
    }
    cJSON_Delete(hello);
    cJSON_Delete(end);
    tl_ws_free(ws);
}

/* Gives a little room back again and again: not enough to go on with. */
static void drop_by_drop(const char *ballast)
{
    struct stat st;
    for (int i = 0; i < 8; i++) {
        if (stat(ballast, &st) != 0 || truncate(ballast, st.st_size - DROP_BYTES) != 0) {
            case_fail("%s: %s", ballast, strerror(errno));
        }
        t_play((int64_t)play_ms * 200);
    }
}

static int lines_with(const char *word)
{
    int n = 0;
    char *log = tl_gate_log(t.gate);
    for (const char *p = log; p && (p = strstr(p, word)) != NULL; p++) {
        n++;
    }
    free(log);
    return n;
}

void case_full(void)
{
    static const char *const excuses[] = {"storage_unavailable", NULL};
    /* A final that is refused is not said again by these workers: the lease ends the attempt. */
    static const struct tl_gate_opts soon = {.config = T_CONFIG "turn_lease_ms = 1000;\n"};
    char ballast[4096];
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        case_skip("no mount namespace: %s", strerror(errno));
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        case_skip("the mount namespace cannot be made private: %s", strerror(errno));
    }
    t.excuses = excuses;
    t.prepared = small_disk;
    t_start(&soon);
    unsigned long refused = 0;
    for (int round = 0; round < 3; round++) {
        t_play((int64_t)play_ms * 200);
        const unsigned long before = t.refusals;
        fill(ballast);
        int status = 200;
        for (int i = 0; i < 100 && (status == 200 || t.refusals < before + 5); i++) {
            t_play(50000);
            status = ready();
        }
        if (t.refusals < before + 5 || status != 503) {
            case_fail("with no room left: %lu refusals, /ready says %d", t.refusals - before,
                      status);
        }
        drop_by_drop(ballast);
        read_while_full();
        refused += t.refusals - before;
        if (unlink(ballast) != 0) {
            case_fail("%s: %s", ballast, strerror(errno));
        }
        const size_t accepted = t.promise_count;
        for (int i = 0; i < 200 && (ready() != 200 || t.promise_count == accepted); i++) {
            t_play(50000);
        }
        if (t.promise_count == accepted) {
            case_fail("nothing is accepted although there is room again");
        }
    }
    const int failed = lines_with("storage.failed"), back = lines_with("storage.recovered");
    if (failed != 3 || back != 3) {
        case_fail("three times full, but the log says so %d times, and %d times that it works",
                  failed, back);
    }
    finish();
    case_note(
        "three times full: %lu refusals with storage_unavailable, the log read meanwhile, %zu "
        "messages accepted, all there",
        refused, t.promise_count);
}

/* --- no descriptors left --- */

void case_descriptors(void)
{
    struct rlimit old, few;
    struct tl_ws *more[64] = {0};
    int in = 0, out = 0;
    t_start(NULL);
    t_play((int64_t)play_ms * 300);
    const pid_t pid = tl_gate_pid(t.gate);
    if (prlimit(pid, RLIMIT_NOFILE, NULL, &old) != 0) {
        case_skip("prlimit: %s", strerror(errno));
    }
    /* Numbers count: the limit goes to just above the first adopted sockets. */
    few = (struct rlimit){EG_ADOPT_FD_BASE + 40, old.rlim_max};
    if (prlimit(pid, RLIMIT_NOFILE, &few, NULL) != 0) {
        case_skip("prlimit: %s", strerror(errno));
    }
    for (int i = 0; i < 64; i++) {
        const struct tl_ws_opts o = {
            .port = tl_gate_port(t.gate), .bearer = t.client_token, .timeout_ms = 500};
        more[i] = tl_ws_open(&o, NULL);
        cJSON *hello = more[i] ? tl_hello(more[i], "torture", NULL, NULL, 500) : NULL;
        const bool welcome = tl_is(hello, "type", "hello_ok");
        in += welcome;
        out += !welcome;
        cJSON_Delete(hello);
    }
    if (out == 0) {
        case_fail("64 more connections came in although descriptors were to run out");
    }
    const size_t accepted = t.promise_count;
    t_play((int64_t)play_ms * 300);
    const size_t served = t.promise_count - accepted;
    if (served == 0) {
        case_fail("nothing is accepted while there are no descriptors");
    }
    for (int i = 0; i < 64; i++) {
        tl_ws_free(more[i]);
    }
    if (prlimit(pid, RLIMIT_NOFILE, &old, NULL) != 0) {
        case_fail("prlimit: %s", strerror(errno));
    }
    finish();
    case_note("%d of 64 more connections came in, %d did not; meanwhile %zu messages accepted", in,
              out, served);
}

/* --- interruptions --- */

void case_interrupts(void)
{
    static const int64_t every[] = {50, 7, 3, 2};
    t.prepared = rules;
    t_start(NULL);
    for (size_t i = 0; i < sizeof every / sizeof every[0]; i++) {
        __atomic_store_n(&faults->eintr_every, every[i], __ATOMIC_SEQ_CST);
        for (int k = 0; k < 10; k++) {
            t_play((int64_t)play_ms * 20);
            tl_gate_signal(t.gate, SIGHUP);
            tl_gate_signal(t.gate, SIGSTOP); /* real ones: waiting calls end early */
            tl_gate_signal(t.gate, SIGCONT);
        }
    }
    const int64_t hits = __atomic_load_n(&faults->eintr_hits, __ATOMIC_SEQ_CST);
    if (hits < 1000) {
        case_fail("only %" PRId64 " calls were interrupted", hits);
    }
    __atomic_store_n(&faults->eintr_every, 0, __ATOMIC_SEQ_CST);
    finish();
    case_note("%" PRId64 " calls interrupted, every 50th to every 2nd; %zu messages accepted", hits,
              t.promise_count);
}

/* --- the clock --- */

/* Seconds since 1970 may not go back within a session. */
static void times_rise(void)
{
    const struct tl_ws_opts o = {.port = tl_gate_port(t.gate), .bearer = t.client_token};
    for (int s = 0; s < SESSIONS; s++) {
        char extra[128];
        double last = 0;
        struct tl_ws *ws = tl_ws_open(&o, NULL);
        snprintf(extra, sizeof extra,
                 "\"session_id\":\"torture-%d\",\"since\":0,\"capabilities\":[\"streaming\"]", s);
        cJSON_Delete(ws ? tl_hello(ws, "torture", NULL, extra, 10000) : NULL);
        for (bool end = false; !end;) {
            cJSON *e = ws ? tl_json_next(ws, 20000, NULL) : NULL;
            if (!e) {
                case_fail("session %d cannot be read", s);
            }
            end = tl_is(e, "type", "replay_end");
            const cJSON *at = tl_get(e, "event.timestamp");
            if (at && at->valuedouble < last) {
                case_fail("session %d: the time goes back at %" PRId64, s, tl_int(e, "seq"));
            }
            last = at ? at->valuedouble : last;
            cJSON_Delete(e);
        }
        tl_ws_free(ws);
    }
}

static void rules_in_the_past(void)
{
    rules();
    /* Tokens are minted two days ago, so that no jump puts their making into the future. */
    __atomic_store_n(&faults->shift_ms, -2 * DAY_MS, __ATOMIC_SEQ_CST);
}

void case_clock(void)
{
    int jumps = 0;
    t.prepared = rules_in_the_past;
    t_start(NULL);
    for (int64_t end = load_now_us() + (int64_t)play_ms * 2000; load_now_us() < end; jumps++) {
        const int64_t shift = (int64_t)t_random(4 * DAY_MS) - 2 * DAY_MS;
        __atomic_store_n(&faults->shift_ms, jumps % 3 ? shift : 0, __ATOMIC_SEQ_CST);
        t_play(20000 + (int64_t)t_random(40000));
    }
    times_rise();
    __atomic_store_n(&faults->shift_ms, 0, __ATOMIC_SEQ_CST);
    finish();
    case_note("%d jumps of up to two days either way; %zu messages accepted, times never go back",
              jumps, t.promise_count);
}
