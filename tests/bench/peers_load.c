/*
 * peers_load.c - the scenarios for peers: the same loads, windows and names as for the gateway.
 */
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTENT_BYTES 256
#define SHORT_BYTES 100
#define PIPE_SESSIONS 100
#define PIPE_WINDOW 100
#define FANOUT_WINDOW 8

static const bool never = false;

static struct {
    struct peer *peer;
    int ready, wanted;
    bool all_ready;
    bool measuring, over;
    unsigned spread;       /* sessions that one publisher goes through; 0: its own only */
    int bytes;             /* of a message */
    bool paced;            /* not sent as soon as the one before is answered */
    unsigned long to_send; /* a fill: how many; 0: no end */
    bool filled;
    struct lat lat;
    int64_t last_us, stall_us;
    unsigned long events, wanted_events;
    bool all_events;
    bool churn;
    unsigned long hellos;
    char content[CONTENT_BYTES];
} s;

static void say(struct pc *c)
{
    const unsigned session = s.spread ? (unsigned)(c->sent % s.spread) : c->session;
    c->sent_us[c->sent % PEER_WINDOW] = load_now_us();
    c->peer->publish(c, session, s.content, (size_t)s.bytes);
    c->sent++;
}

static void connect_one(struct pc *c, struct peer *p, enum peer_role role, unsigned number,
                        unsigned session)
{
    char place[2][64];
    memcpy(place, c->place, sizeof place);
    *c = (struct pc){.peer = p, .role = role, .number = number, .session = session};
    memcpy(c->place, place, sizeof place);
    p->connect(c);
}

/* One of the churn came through: away, and again. */
static void again(struct pc *c)
{
    s.hellos++;
    const unsigned number = c->number;
    load_close(&c->lc);
    if (!s.over) {
        connect_one(c, s.peer, ROLE_IDLE, number, 0);
    }
}

void peer_ready(struct pc *c)
{
    if (c->ready) {
        return;
    }
    c->ready = true;
    if (s.churn) {
        again(c);
        return;
    }
    s.all_ready = ++s.ready == s.wanted;
}

void peer_acked(struct pc *c)
{
    if (s.measuring && s.peer->can) {
        const int64_t now = load_now_us();
        lat_add(&s.lat, now - c->sent_us[c->acked % PEER_WINDOW]);
        s.stall_us = now - s.last_us > s.stall_us ? now - s.last_us : s.stall_us;
        s.last_us = now;
    }
    c->acked++;
    if (s.to_send) {
        s.filled = c->acked == s.to_send;
    }
    if (!s.over && !s.paced && (!s.to_send || c->sent < s.to_send)) {
        say(c);
        /* Several answers in one read are answered by one write. */
        if (c->acked % 16 == 0 || c->sent - c->acked <= FANOUT_WINDOW || s.spread == 0) {
            load_flush(&c->lc);
        }
    } else if (s.to_send) {
        load_flush(&c->lc);
    }
}

void peer_event(struct pc *c, unsigned events)
{
    (void)c;
    s.events += s.measuring ? events : 0;
    s.all_events = s.wanted_events && s.events >= s.wanted_events;
}

static void begin(struct peer *p)
{
    lat_free(&s.lat);
    memset(&s, 0, sizeof s);
    s.peer = p;
    s.bytes = CONTENT_BYTES;
    memset(s.content, 'x', sizeof s.content);
}

static void close_all(struct pc *c, int n)
{
    s.over = true;
    for (int i = 0; i < n; i++) {
        if (c[i].lc.fd > 0) {
            load_close(&c[i].lc);
        }
    }
    free(c);
}

/* n connections of a role; in a session each, or all in session 0. NULL after failure. */
static struct pc *connect_all(struct peer *p, enum peer_role role, int n, bool own)
{
    struct pc *c = calloc((size_t)n, sizeof *c);
    s.ready = 0;
    s.wanted = n;
    s.all_ready = false;
    for (int i = 0; i < n; i++) {
        connect_one(&c[i], p, role, (unsigned)i + (role == ROLE_FOLLOWER ? 1000 : 0),
                    own ? (unsigned)i : 0);
        if (i % 200 == 199) {
            load_run(&s.all_ready, 20000);
        }
    }
    if (!load_run(&s.all_ready, 15000000)) {
        peer_left_out(p, "only %d of %d connections were welcomed", s.ready, n);
        close_all(c, n);
        return NULL;
    }
    return c;
}

/* A started peer with what it needs made; false: left out. */
static bool ready(struct peer *p)
{
    if (p->away || !peer_start(p)) {
        return false;
    }
    figures_who(p->name);
    begin(p);
    if (p->setup) {
        struct pc *c = connect_all(p, ROLE_SETUP, 1, false);
        if (!c) {
            return false;
        }
        close_all(c, 1);
        s.over = false;
    }
    return true;
}

static void report_rate(const char *name, double seconds)
{
    report(name, (double)s.lat.n / seconds, s.peer == &peer_ws ? "round trips/s" : "accepted/s",
           lat_q(&s.lat, 0.5), lat_q(&s.lat, 0.99));
}

/* Measures for the run's time after a third of it; seconds that it took. */
static double measure(struct bench *b)
{
    load_run(&never, b->measure_us / 3);
    s.measuring = true;
    const int64_t start = s.last_us = load_now_us();
    load_run(&never, b->measure_us);
    s.measuring = false;
    s.over = true;
    return (double)(load_now_us() - start) / 1e6;
}

static void closed_loop(struct bench *b, struct peer *p, int n, const char *what)
{
    char name[64];
    struct pc *c = ready(p) ? connect_all(p, ROLE_PUBLISHER, n, true) : NULL;
    if (c) {
        for (int i = 0; i < n; i++) {
            say(&c[i]);
            load_flush(&c[i].lc);
        }
        const double seconds = measure(b);
        snprintf(name, sizeof name, "%s, %d clients", what, n);
        report_rate(name, seconds);
        if (p != &peer_ws) {
            snprintf(name, sizeof name, "longest stall, %d clients", n);
            report(name, (double)s.stall_us / 1000, "ms", -1, -1);
        }
        close_all(c, n);
    }
    peer_stop(p);
}

static void echo(struct bench *b, struct peer *p)
{
    closed_loop(b, p, 1, "echo");
    closed_loop(b, p, 50, "echo");
    closed_loop(b, p, 500, "echo");
}

static void publish(struct bench *b, struct peer *p)
{
    closed_loop(b, p, 1, "publish");
    closed_loop(b, p, 50, "publish");
    closed_loop(b, p, 500, "publish");
}

static void pipelined(struct bench *b, struct peer *p)
{
    struct pc *c = ready(p) ? connect_all(p, ROLE_PUBLISHER, 1, false) : NULL;
    if (c) {
        s.spread = PIPE_SESSIONS;
        for (int i = 0; i < PIPE_WINDOW; i++) {
            say(c);
        }
        load_flush(&c->lc);
        report_rate("publish, 1 connection, 100 in flight", measure(b));
        close_all(c, 1);
    }
    peer_stop(p);
}

static void paced(struct bench *b, struct peer *p)
{
    const int clients = 100, rate = 2000;
    struct pc *c = ready(p) ? connect_all(p, ROLE_PUBLISHER, clients, true) : NULL;
    if (c) {
        s.paced = s.measuring = true;
        const int64_t start = s.last_us = load_now_us();
        int64_t due = start;
        for (int i = 0; due < start + b->measure_us; i++, due += 1000000 / rate) {
            for (int64_t left; (left = due - load_now_us()) > 0;) {
                load_run(&never, left);
            }
            if (c[i % clients].sent == c[i % clients].acked) {
                say(&c[i % clients]);
                load_flush(&c[i % clients].lc);
            }
        }
        load_run(&never, 200000);
        report_rate("latency at 2,000 messages/s", (double)b->measure_us / 1e6);
        close_all(c, clients);
    }
    peer_stop(p);
}

static void fan_out(struct bench *b, struct peer *p, int n)
{
    char name[64];
    struct pc *f = ready(p) ? connect_all(p, ROLE_FOLLOWER, n, false) : NULL;
    struct pc *c = f ? connect_all(p, ROLE_SPEAKER, 1, false) : NULL;
    if (c) {
        s.bytes = SHORT_BYTES;
        for (int i = 0; i < FANOUT_WINDOW; i++) {
            say(c);
        }
        load_flush(&c->lc);
        const double seconds = measure(b);
        snprintf(name, sizeof name, "fan-out, %d followers", n);
        report(name, (double)s.events / seconds, "deliveries/s", -1, -1);
        int lost = 0;
        for (int i = 0; i < n; i++) {
            lost += f[i].lc.closed;
        }
        if (lost) {
            figures_fact(p->name, "fan-out", "%d of %d followers were disconnected", lost, n);
        }
        close_all(c, 1);
    }
    if (f) {
        close_all(f, n);
    }
    peer_stop(p);
}

static void fanout(struct bench *b, struct peer *p)
{
    fan_out(b, p, 100);
    fan_out(b, p, 1000);
}

/* Publishes events into session 0. */
static bool fill(struct peer *p, unsigned long events, bool more)
{
    struct pc *c = connect_all(p, ROLE_PUBLISHER, 1, false);
    if (!c) {
        return false;
    }
    s.bytes = SHORT_BYTES;
    s.to_send = events;
    s.filled = false;
    s.spread = 1;
    for (unsigned i = 0; i < PIPE_WINDOW && c->sent < events; i++) {
        say(c);
    }
    load_flush(&c->lc);
    const bool ok = load_run(&s.filled, 30000000);
    if (!ok) {
        peer_left_out(p, "its log is not filled: %lu of %lu", c->acked, events);
    }
    s.to_send = 0;
    close_all(c, 1);
    s.over = !more;
    return ok;
}

/* Connections that are in the session before the events come, and then away. */
static bool take_places(struct peer *p, struct pc *c, int n)
{
    s.ready = 0;
    s.wanted = n;
    s.all_ready = false;
    for (int i = 0; i < n; i++) {
        connect_one(&c[i], p, ROLE_PLACER, (unsigned)i, 0);
    }
    if (!load_run(&s.all_ready, 15000000)) {
        peer_left_out(p, "only %d of %d joined", s.ready, n);
        return false;
    }
    s.wanted_events = (unsigned long)n;
    s.measuring = true;
    if (!fill(p, 1, true) || !load_run(&s.all_events, 5000000)) {
        return false;
    }
    s.measuring = false;
    s.events = s.wanted_events = 0;
    s.all_events = false;
    for (int i = 0; i < n; i++) {
        load_close(&c[i].lc);
    }
    load_run(&never, 50000);
    return true;
}

static void resume(struct peer *p, int n, unsigned long events, const char *name)
{
    struct pc *c = calloc((size_t)n, sizeof *c);
    if (!ready(p) || (p->place && !take_places(p, c, n)) || !fill(p, events, true)) {
        goto out;
    }
    s.wanted_events = events * (unsigned long)n;
    s.measuring = true;
    const int64_t start = load_now_us();
    for (int i = 0; i < n; i++) {
        connect_one(&c[i], p, ROLE_REPLAYER, (unsigned)i, 0);
    }
    if (load_run(&s.all_events, 30000000)) {
        const double ms = (double)(load_now_us() - start) / 1000;
        report(name, ms, "ms", -1, -1);
    } else {
        peer_left_out(p, "%s: %lu of %lu events came", name, s.events, s.wanted_events);
    }
out:
    close_all(c, n);
    peer_stop(p);
}

static void replay(struct bench *b, struct peer *p)
{
    (void)b;
    resume(p, 1, 10000, "replay 10,000 events to one");
    resume(p, 100, 1000, "replay 1,000 events to each of 100");
}

static void hello(struct bench *b, struct peer *p)
{
    enum { CONNS = 100 };
    struct pc *c = calloc(CONNS, sizeof *c);
    if (ready(p)) {
        s.churn = true;
        for (unsigned i = 0; i < CONNS; i++) {
            connect_one(&c[i], p, ROLE_IDLE, i, 0);
        }
        load_run(&never, b->measure_us / 3);
        s.hellos = 0;
        const int64_t start = load_now_us();
        load_run(&never, b->measure_us);
        report("new connections welcomed",
               (double)s.hellos / ((double)(load_now_us() - start) / 1e6), "hello_ok/s", -1, -1);
    }
    close_all(c, CONNS);
    peer_stop(p);
}

static void idle(struct bench *b, struct peer *p)
{
    const int n = 10000 / b->scale;
    if (ready(p)) {
        const long before = peer_rss(p);
        struct pc *c = connect_all(p, ROLE_IDLE, n, true);
        if (c) {
            load_run(&never, 500000);
            const long after = peer_rss(p);
            report("idle gateway", (double)before / 1048576, "MiB resident", -1, -1);
            report("idle connection", (double)(after - before) / n, "bytes resident", -1, -1);
            close_all(c, n);
        }
    }
    peer_stop(p);
}

void peers_scenario(struct bench *b, const char *name)
{
    static const struct {
        const char *name;
        unsigned needs;
        void (*run)(struct bench *b, struct peer *p);
    } table[] = {{"echo", CAN_ECHO, echo},
                 {"publish", CAN_PUBLISH, publish},
                 {"pipelined", CAN_PIPELINE, pipelined},
                 {"paced", CAN_PUBLISH, paced},
                 {"fanout", CAN_FANOUT, fanout},
                 {"replay", CAN_REPLAY, replay},
                 {"hello", CAN_HELLO, hello},
                 {"idle", CAN_HELLO, idle}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (int p = 0; strcmp(table[i].name, name) == 0 && peers[p]; p++) {
            if (!peers[p]->away && (peers[p]->can & table[i].needs)) {
                table[i].run(b, peers[p]);
            }
        }
    }
}
