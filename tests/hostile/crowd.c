/*
 * crowd.c - a session of a million events, and a crowd that comes back at once after a restart.
 *
 * The crowd is honest but large: each resumes a session of its own from the start, from an address
 * of its own, and tries again when the connection ends before it has everything. Each process ends
 * with 1 when something is missing or it takes too long.
 */
#include "../bench/load.h"
#include "attack.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define AT_ONCE 200        /* of those that settle */
#define IN_FLIGHT 500      /* publishes */
#define LIMIT_US 300000000 /* for everything */
#define CROWD_NET 0x7f430001u

struct one {
    struct lc c; /* first */
    int number, got;
    bool begun, done;
};

static struct attack_at at;
static struct one *ones;
static int done, sent, got, tries;
static bool returning;

static void on_text(struct lc *c, const char *text, size_t n)
{
    struct one *const k = (struct one *)c;
    const size_t head = n < 80 ? n : 80;
    if (load_has(text, head, returning ? "\"type\":\"replay\"" : "\"accepted\"")) {
        k->got++;
    } else if (load_has(text, head, "error\"")) {
        load_die("crowd: %.*s", (int)n, text);
    }
    const bool end = returning ? load_has(text, head, "\"replay_end\"") : k->got == CROWD_EVENTS;
    if (end && !k->done) {
        if (k->got != CROWD_EVENTS) {
            load_die("crowd: %d resumed %d events of %d", k->number, k->got, CROWD_EVENTS);
        }
        k->done = true;
        done++;
    }
}

static void on_open(struct lc *c)
{
    const struct one *const k = (struct one *)c;
    char text[256];
    int n = snprintf(text, sizeof text,
                     "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"x-crowd-%d\",%s}",
                     k->number, returning ? "\"since\":0" : "\"create\":true");
    load_queue(c, text, (size_t)n);
    for (int i = 0; !returning && i < CROWD_EVENTS; i++) {
        n = snprintf(text, sizeof text, "{\"type\":\"message\",\"content\":\"number %d of %d\"}", i,
                     k->number);
        load_queue(c, text, (size_t)n);
    }
    load_flush(c);
}

static void come(struct one *k)
{
    const unsigned i = (unsigned)k->number;
    const struct load_target t = {at.port, "/ws", at.token, CROWD_NET + (i / 250 << 8) + i % 250};
    k->begun = true;
    k->got = 0;
    k->c = (struct lc){.on_text = on_text, .on_open = on_open};
    load_connect(&k->c, &t);
    tries++;
}

/* All of the crowd, at most so many connections at a time. */
static void play_crowd(int at_once)
{
    static const bool never = false;
    const int64_t start = load_now_us();
    int first = 0, open = 0;
    ones = calloc((size_t)at.crowd, sizeof *ones);
    for (int i = 0; ones && i < at.crowd; i++) {
        ones[i].number = i;
    }
    while (ones && done < at.crowd) {
        while (first < at.crowd && open < at_once) {
            come(&ones[first++]);
            open++;
        }
        load_run(&never, 5000);
        for (int i = 0; i < first; i++) {
            struct one *const k = &ones[i];
            if (k->done ? !returning && k->c.fd >= 0 : k->c.closed) {
                load_close(&k->c);
                open -= k->done;
                if (!k->done) {
                    come(k);
                }
            }
        }
        if (load_now_us() - start > LIMIT_US) {
            load_die("crowd: %d of %d in time", done, at.crowd);
        }
    }
    if (returning) {
        printf("%-13s %d clients with %d missed events each: all have them after %.2f s, %d "
               "connections\n",
               "", done, CROWD_EVENTS, (double)(load_now_us() - start) / 1e6, tries);
    }
}

/* --- the long session --- */

static bool owner_in;

static void owner_text(struct lc *c, const char *text, size_t n)
{
    (void)c;
    if (!load_has(text, n < 60 ? n : 60, "\"hello_ok\"")) {
        load_die("long session: %.*s", (int)n, text);
    }
    owner_in = true;
}

static void owner_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"b\",\"session_id\":\"x-million\","
                  "\"create\":true}");
}

static void more(struct lc *c)
{
    char text[200];
    for (; sent < at.events && sent - got < IN_FLIGHT; sent++) {
        const int n = snprintf(text, sizeof text,
                               "{\"type\":\"publish\",\"session_id\":\"x-million\",\"event\":"
                               "\"x.tick\",\"data\":{\"number\":%d}}",
                               sent);
        load_queue(c, text, (size_t)n);
    }
    load_flush(c);
}

static void worker_text(struct lc *c, const char *text, size_t n)
{
    const size_t head = n < 80 ? n : 80;
    got += load_has(text, head, "\"emitted\"");
    if (load_has(text, head, "error\"")) {
        load_die("long session: %.*s", (int)n, text);
    }
    if (sent - got < IN_FLIGHT / 2) {
        more(c);
    }
}

static void worker_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"b\",\"role\":\"agent\",\"capabilities\":"
                  "[\"ack\"]}");
}

static void fill(void)
{
    static const bool never = false;
    const struct load_target owner_at = {at.port, "/ws", at.token, 0};
    const struct load_target worker_at = {at.port, "/ws", at.worker, 0};
    struct lc owner = {.on_text = owner_text, .on_open = owner_open};
    struct lc worker = {.on_text = worker_text, .on_open = worker_open};
    const int64_t start = load_now_us();
    load_connect(&owner, &owner_at);
    if (!load_run(&owner_in, 10000000)) {
        load_die("long session: nobody is let in");
    }
    load_close(&owner);
    load_connect(&worker, &worker_at);
    while (got < at.events) {
        load_run(&never, 10000);
        if (worker.closed || load_now_us() - start > LIMIT_US) {
            load_die("long session: %d of %d events in time, close code %u", got, at.events,
                     worker.close_code);
        }
    }
}

pid_t crowd_start(enum crowd_work work, const struct attack_at *where)
{
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        struct rlimit files;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        getrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        at = *where;
        returning = work == CROWD_RETURN;
        load_forked();
        attack_aside();
        if (work == CROWD_LONG_SESSION) {
            fill();
        } else {
            play_crowd(returning ? at.crowd : AT_ONCE);
        }
        fflush(stdout);
        _exit(0);
    }
    return pid;
}
