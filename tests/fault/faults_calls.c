/*
 * faults_calls.c - cases that fail the Nth call of a kind, for N until nothing fails any more.
 *
 * Each N: one talk (talk.h) during which the Nth call fails, once or for ever after; then calls
 * work again, a daemon that ended is started anew, and the log is held against what the talk was
 * told.
 */
#include "faults.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG                                                                                     \
    "agents = [\"talk\"];\nmax_attempts = 1000;\nretry_backoff_ms = 5;\nabort_grace_ms = 50;\n"
#define EACH_TOLD 100 /* points after which a long run says how far it is */
#define ENDS_MS 5000  /* a gateway that said that it ends, does so */
#define EXIT_RETRY 75
#define EXIT_INTERNAL 70
#define EXIT_CONFIG 78

static struct {
    struct tl_gate *gate;
    struct talk_tokens tokens;
    unsigned talks;
} c;

struct tally {
    unsigned long points, ended, whole, cut;
    int64_t calls;
};

static void start(void)
{
    const struct tl_gate_opts o = {.config = CONFIG};
    c.gate = tl_gate_prepare(&o);
    faults_load(tl_gate_dir(c.gate));
    if (!tl_gate_start(c.gate)) {
        case_fail("the gateway does not start: %s", tl_gate_error(c.gate));
    }
    if (!talk_tokens(c.gate, &c.tokens)) {
        case_fail("no tokens");
    }
}

static void stop(void)
{
    faults_clear();
    if (tl_gate_stop(c.gate, 30000) != 0) {
        case_fail("the gateway does not stop: %s", tl_gate_error(c.gate));
    }
    tl_gate_free(c.gate);
}

static struct talk new_talk(int wait_ms)
{
    struct talk k = {.wait_ms = wait_ms};
    snprintf(k.session, sizeof k.session, "talk-%u", c.talks++);
    return k;
}

/* Calls of a kind in a talk that nothing disturbs; not in the first, which warms up. */
static int64_t count_calls(enum fault_kind kind)
{
    for (int i = 0; i < 2; i++) {
        struct talk k = new_talk(5000);
        faults_order(kind, 0, 0, 0);
        talk_run(&k, c.gate, &c.tokens);
        if (!k.whole) {
            case_fail("a talk that nothing disturbs does not come to its end: %s", k.why);
        }
    }
    return __atomic_load_n(&faults->count, __ATOMIC_SEQ_CST);
}

/* A gateway that ended: with a code that says try again, and it does start again. */
static void start_again(const char *what, int64_t nth, struct tally *sum)
{
    const int code = tl_gate_wait(c.gate, 10000);
    /* SQLite calls a page that the disk does not give damage, which a person must look at. */
    const bool damage = code == EXIT_CONFIG && faults_last == FAULT_PREAD;
    if (code != EXIT_RETRY && code != EXIT_INTERNAL && !damage) {
        char *log = tl_gate_log(c.gate);
        const size_t n = strlen(log);
        case_fail("%s, call %" PRId64 " (%s): the gateway ended with %d: %s", what, nth,
                  faults->where, code, log + (n > 1500 ? n - 1500 : 0));
    }
    sum->ended++;
    if (!tl_gate_start(c.gate)) {
        case_fail("%s, call %" PRId64 " (%s): it does not start again: %s", what, nth,
                  faults->where, tl_gate_error(c.gate));
    }
}

/* After the talk: alive, or ended as it may; whatever it is, told things are there. */
static void settle(struct talk *k, const char *what, int64_t nth, struct tally *sum)
{
    const struct talk told = *k;
    faults_clear();
    if (!tl_gate_running(c.gate)) {
        start_again(what, nth, sum);
    }
    bool ok = talk_check(k, c.gate, &c.tokens);
    if (!ok && !told.why[0] && tl_gate_wait(c.gate, ENDS_MS) >= 0) { /* it was about to end */
        start_again(what, nth, sum);
        *k = told;
        ok = talk_check(k, c.gate, &c.tokens);
    }
    if (!ok) {
        char *log = tl_gate_log(c.gate);
        const size_t n = strlen(log);
        case_fail("%s, call %" PRId64 " (%s): %s; %s", what, nth, faults->where, k->why,
                  log + (n > 1500 ? n - 1500 : 0));
    }
    alarm(CASE_SECONDS); /* the limit is of each point */
    sum->points++;
    sum->whole += told.whole;
    sum->cut += !told.whole;
}

static int64_t step_of(int64_t calls)
{
    return fault_points && calls > (int64_t)fault_points ? calls / (int64_t)fault_points : 1;
}

static void fail_each(const char *what, enum fault_kind kind, int error, int64_t times)
{
    struct tally sum = {.calls = count_calls(kind)};
    const int64_t step = step_of(sum.calls);
    int untouched = 0;
    /* Until nothing fails any more, three times running: calls vary a little from talk to talk. */
    for (int64_t nth = 1; untouched < 3 && nth < 100000; nth += step) {
        struct talk k = new_talk(250);
        faults_order(kind, error, nth, times);
        talk_run(&k, c.gate, &c.tokens);
        untouched = __atomic_load_n(&faults->hits, __ATOMIC_SEQ_CST) ? 0 : untouched + 1;
        settle(&k, what, nth, &sum);
        if (sum.points % EACH_TOLD == 0) {
            case_note("%s: %lu tried, of about %" PRId64, what, sum.points, sum.calls / step);
        }
    }
    case_note("%s, %s: about %" PRId64 " calls a talk, %lu tried in turn: %lu talks went on to "
              "their end, %lu ended early, the gateway ended %lu times and was started again",
              what,
              times < 0   ? "that and all after it"
              : times > 1 ? "20 at a time"
                          : "once",
              sum.calls, sum.points, sum.whole, sum.cut, sum.ended);
}

void case_disk(void)
{
    static const struct {
        const char *what;
        enum fault_kind kind;
        int error;
    } order[] = {{"write, EIO", FAULT_PWRITE, EIO},  {"write, ENOSPC", FAULT_PWRITE, ENOSPC},
                 {"flush, EIO", FAULT_FLUSH, EIO},   {"read, EIO", FAULT_PREAD, EIO},
                 {"truncate, EIO", FAULT_CUT, EIO},  {"open, EMFILE", FAULT_OPEN, EMFILE},
                 {"map, ENOMEM", FAULT_MAP, ENOMEM}, {"lock, ENOLCK", FAULT_LOCK, ENOLCK}};
    start();
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        fail_each(order[i].what, order[i].kind, order[i].error, 1);
        fail_each(order[i].what, order[i].kind, order[i].error, -1);
    }
    stop();
}

void case_memory(void)
{
    start();
    fail_each("memory", FAULT_MALLOC, ENOMEM, 1);
    stop();
}

void case_memory_some(void)
{
    start();
    fail_each("memory", FAULT_MALLOC, ENOMEM, 20);
    stop();
}

void case_memory_gone(void)
{
    start();
    fail_each("memory", FAULT_MALLOC, ENOMEM, -1);
    stop();
}

/* --- at the start --- */

/* Flags, not a file: libconfig does not ask whether it got memory, and nothing is served yet. */
static const char *const flags[] = {
    "--agents", "talk",          "--max-attempts", "1000", "--retry-backoff",
    "5ms",      "--abort-grace", "50ms",           NULL};

static void fail_starts(const char *what, enum fault_kind kind, int error, bool fresh)
{
    struct tally sum = {0};
    int64_t nth = 1, step = 1;
    for (int untouched = 0; untouched < 3 && nth < 1000000; nth += step) {
        const struct tl_gate_opts o = {.args = flags, .ready_timeout_ms = 20000};
        struct talk k = new_talk(5000);
        const bool made = !c.gate;
        if (made) {
            c.gate = tl_gate_prepare(&o);
            faults_load(tl_gate_dir(c.gate));
        }
        faults_order(kind, error, sum.points ? nth : 0, 1);
        const bool started = tl_gate_start(c.gate);
        if (sum.points == 0) {
            step = step_of(sum.calls = __atomic_load_n(&faults->count, __ATOMIC_SEQ_CST));
            nth = 0;
        } else {
            untouched = __atomic_load_n(&faults->hits, __ATOMIC_SEQ_CST) ? 0 : untouched + 1;
        }
        faults_clear();
        if (!started) {
            start_again(what, nth, &sum);
        }
        alarm(CASE_SECONDS);
        sum.points++;
        if (made && !talk_tokens(c.gate, &c.tokens)) {
            case_fail("no tokens");
        }
        if (sum.points % 8 == 1) {
            talk_run(&k, c.gate, &c.tokens);
            if (!k.whole || !talk_check(&k, c.gate, &c.tokens)) {
                case_fail("%s at the start, call %" PRId64 ": no talk afterwards: %s", what, nth,
                          k.why);
            }
        }
        if (tl_gate_stop(c.gate, 30000) != 0) {
            case_fail("%s at the start, call %" PRId64 ": no stop: %s", what, nth,
                      tl_gate_error(c.gate));
        }
        if (fresh) {
            tl_gate_free(c.gate);
            c.gate = NULL;
        }
    }
    tl_gate_free(c.gate);
    c.gate = NULL;
    case_note("%s at the start of %s folder: about %" PRId64 " calls, %lu tried in turn: %lu times "
              "the gateway ended with a code of its own, else it started",
              what, fresh ? "an empty" : "a used", sum.calls, sum.points, sum.ended);
}

void case_disk_start(void)
{
    fail_starts("write", FAULT_PWRITE, EIO, true);
    fail_starts("flush", FAULT_FLUSH, EIO, true);
    fail_starts("open", FAULT_OPEN, EIO, true);
    fail_starts("truncate", FAULT_CUT, EIO, false);
    fail_starts("read", FAULT_PREAD, EIO, false);
    fail_starts("map", FAULT_MAP, ENOMEM, false);
    fail_starts("lock", FAULT_LOCK, ENOLCK, false);
    fail_starts("write", FAULT_PWRITE, ENOSPC, false);
}

void case_memory_start(void)
{
    fail_starts("memory", FAULT_MALLOC, ENOMEM, true);
}
