/*
 * instructions.c - how many instructions the gateway takes for one publish, one delivery, one
 * replayed event and one welcome. Times differ from run to run; these hardly do.
 *
 * Each load runs twice, small and large, in a gateway of its own under valgrind's callgrind; the
 * difference is divided by how much larger it was, so that start and end cancel out. Needs
 * EBBGATE_BIN to run under callgrind and to write to BENCH_CALLGRIND (callgrind.sh);
 * run by name only.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTENT_BYTES 256

static struct {
    struct lc *conns;
    int n, ready, wanted;
    bool all_ready, done;
    long left, awaited;
    char session[64];
} q;

static void say(struct lc *c)
{
    char frame[CONTENT_BYTES + 128];
    const int n = snprintf(frame, sizeof frame,
                           "{\"type\":\"message\",\"message_id\":\"m%llu\",\"content\":\"%0*d\"}",
                           (unsigned long long)c->user[0]++, CONTENT_BYTES, 7);
    load_send(c, frame, (size_t)n);
}

/* Every frame that matters counts down; a client's own answer lets it go on. */
static void on_text(struct lc *c, const char *text, size_t n)
{
    const size_t head = n < 60 ? n : 60;
    if (load_has(text, n < 30 ? n : 30, "\"hello_ok\"")) {
        if (!q.session[0]) {
            snprintf(q.session, sizeof q.session, "%.36s",
                     (const char *)memmem(text, n, "\"session_id\":\"", 14) + 14);
        }
        q.all_ready = ++q.ready == q.wanted;
    } else if (load_has(text, head, "\"accepted\"")) {
        q.done = --q.awaited == 0;
        if (--q.left >= 0) {
            say(c);
        }
    } else if (load_has(text, head, "\"message\"") || load_has(text, head, "\"replay\"")) {
        q.done = --q.awaited == 0;
    } else if (load_has(text, head, "error\"")) {
        load_die("instructions: %.*s", (int)n, text);
    }
}

static void on_open(struct lc *c)
{
    if (c->user[1] == 2) {
        load_sendf(c,
                   "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"%s\",\"since\":0}",
                   q.session);
    } else if (c->user[1] == 1 && q.session[0]) {
        load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\",\"session_id\":\"%s\"}",
                   q.session);
    } else {
        load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\"}");
    }
}

/* kind 0: a session each; 1: all in one; 2: all resume that one from its beginning. */
static void connect_all(struct bench *b, int n, int kind)
{
    for (int i = 0; i < n; i++) {
        struct lc *c = &q.conns[q.n++];
        *c = (struct lc){.on_open = on_open, .on_text = on_text, .user = {0, (uint64_t)kind}};
        q.all_ready = false;
        q.wanted++;
        load_connect(c, &b->client);
        if (!load_run(&q.all_ready, 60000000)) {
            load_die("instructions: no welcome");
        }
    }
}

/* The clients say until n messages are accepted, each heard by all others of its session. */
static void speak(int clients, long n, int hearers)
{
    q.left = n - clients;
    q.awaited = n * (1 + hearers);
    q.done = n == 0;
    for (int i = 0; i < clients && n; i++) {
        say(&q.conns[i]);
    }
    if (!load_run(&q.done, 120000000)) {
        load_die("instructions: %ld frames did not come", q.awaited);
    }
}

/* "totals: N" of the callgrind file, which is then removed. */
static double totals(void)
{
    char line[256];
    double n = -1;
    const char *path = getenv("BENCH_CALLGRIND");
    FILE *f = path ? fopen(path, "r") : NULL;
    while (f && n < 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, "totals: ", 8) == 0 || strncmp(line, "summary: ", 9) == 0) {
            n = strtod(strchr(line, ' '), NULL);
        }
    }
    if (!f || n < 0) {
        load_die("no counts in BENCH_CALLGRIND; run make bench-instructions");
    }
    fclose(f);
    return n;
}

struct measure {
    const char *name, *keep; /* keep: the large run's file stays as BENCH_CALLGRIND.keep */
    long small, large;
    long per; /* of what is counted, in each unit of small and large */
};

enum { PUBLISH_1, PUBLISH_50, DELIVERY, REPLAY, WELCOME, MEASURES };

static const struct measure measures[MEASURES] = {
    [PUBLISH_1] = {"publish, 1 client", "publish", 200, 1200, 1},
    [PUBLISH_50] = {"publish, 50 clients", "publish50", 500, 5500, 1},
    [DELIVERY] = {"delivery, 50 followers", "delivery", 50, 250, 50},
    [REPLAY] = {"replayed event", "replay", 1, 11, 1000},
    [WELCOME] = {"welcome", NULL, 20, 120, 1},
};

static double run(struct bench *b, int which, long size)
{
    memset(&q, 0, sizeof q);
    q.conns = calloc(512, sizeof *q.conns);
    bench_gate(b, NULL);
    if (which == PUBLISH_1 || which == PUBLISH_50) {
        const int clients = which == PUBLISH_1 ? 1 : 50;
        connect_all(b, clients, 0);
        speak(clients, size, 0);
    } else if (which == DELIVERY) {
        connect_all(b, 51, 1);
        speak(1, size, 50);
    } else if (which == REPLAY) {
        connect_all(b, 1, 1);
        speak(1, 1000, 0);
        for (long i = 0; i < size; i++) {
            q.awaited = 1000;
            q.done = false;
            connect_all(b, 1, 2);
            if (!load_run(&q.done, 60000000)) {
                load_die("instructions: no replay");
            }
        }
    } else {
        connect_all(b, (int)size, 0);
    }
    if (tl_gate_stop(b->gate, 60000) != 0) {
        load_die("the gateway does not end: %s", tl_gate_error(b->gate));
    }
    for (int i = 0; i < q.n; i++) {
        load_close(&q.conns[i]);
    }
    free(q.conns);
    return totals();
}

void bench_instructions(struct bench *b)
{
    for (int i = 0; i < MEASURES; i++) {
        const struct measure *m = &measures[i];
        double n = -run(b, i, m->small);
        n += run(b, i, m->large);
        n /= (double)((m->large - m->small) * m->per);
        if (i == DELIVERY) {
            /* What a publish costs by itself is not the delivery's. */
            const double one = -run(b, PUBLISH_1, m->small) + run(b, PUBLISH_1, m->large);
            n -= one / (double)((m->large - m->small) * m->per);
        }
        report(m->name, n, "instructions", -1, -1);
        if (m->keep) {
            char to[512];
            const char *path = getenv("BENCH_CALLGRIND");
            snprintf(to, sizeof to, "%.400s.%s", path, m->keep);
            if (rename(path, to) != 0) {
                load_die("%s cannot be kept", to);
            }
        }
    }
}
