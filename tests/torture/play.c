/*
 * play.c - what clients and workers do, and what they note of it. See torture.h.
 */
#include "torture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct torture t;

uint64_t t_random(uint64_t below)
{
    uint64_t z = (t.rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

uint64_t t_print(const char *p, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)p[i]) * 1099511628211u;
    }
    return h ? h : 1;
}

void t_session_name(int session, char out[32])
{
    snprintf(out, 32, "torture-%d", session);
}

void t_saw(int session, uint64_t cursor, const char *event, size_t n)
{
    struct truth *k = &t.truth[session];
    if (cursor == 0 || cursor >= CURSORS_MAX) {
        load_die("cursor %llu is out of range", (unsigned long long)cursor);
    }
    if (cursor > k->top) {
        k->top = cursor;
    }
    if (t.position && !k->at[cursor]) {
        k->at[cursor] = t.position();
    }
    if (!event) {
        return; /* told of by an answer only */
    }
    const uint64_t print = t_print(event, n);
    if (k->print[cursor] && k->print[cursor] != print) {
        load_die("session %d, cursor %llu was another event before: %.*s", session,
                 (unsigned long long)cursor, (int)n, event);
    }
    k->print[cursor] = print;
    t.events++;
}

/* A refusal that the faults of this run explain. */
static bool excused(const char *text, size_t n)
{
    for (const char *const *p = t.excuses; p && *p; p++) {
        if (load_has(text, n, *p)) {
            t.refusals++;
            return true;
        }
    }
    return false;
}

/* --- clients --- */

static void saw_next(struct client *k, uint64_t cursor, const char *event, size_t n)
{
    if (cursor != k->have + 1) {
        load_die("client %d: cursor %llu after %llu", k->number, (unsigned long long)cursor,
                 (unsigned long long)k->have);
    }
    k->have = cursor;
    t_saw(k->session, cursor, event, n);
}

static void accepted(struct client *k, const char *text, size_t n)
{
    const uint64_t cursor = (uint64_t)load_int(text, n, "\"cursor\":");
    const char *id = memmem(text, n, "\"message_id\":\"c", 15);
    const char *dash = id ? strchr(id, '-') : NULL;
    if (!dash) {
        load_die("client %d: an answer without its id: %.*s", k->number, (int)n, text);
    }
    const unsigned number = (unsigned)strtoul(dash + 1, NULL, 10);
    if (load_has(text, n, "\"duplicate\":true")) {
        t.repeats++;
    } else {
        saw_next(k, cursor, NULL, 0);
    }
    if (t.promise_count == t.promise_cap) {
        t.promise_cap = t.promise_cap ? t.promise_cap * 2 : 1024;
        t.promises = realloc(t.promises, t.promise_cap * sizeof *t.promises);
    }
    t.promises[t.promise_count++] =
        (struct promise){k->session, cursor, k->number, number, t.position ? t.position() : 0};
    if (k->pending == number) {
        k->pending = 0;
    }
}

static void client_text(struct lc *c, const char *text, size_t n)
{
    struct client *k = (struct client *)c;
    const size_t head = n < 60 ? n : 60;
    if (load_has(text, head, "\"accepted\"")) {
        accepted(k, text, n);
    } else if (load_has(text, head, "{\"type\":\"replay\"")) {
        const char *at = memmem(text, n, "\"sequence\":", 11);
        const char *data = memmem(text, n, ",\"data\":{\"type\":", 16);
        if (!at || !data) {
            load_die("a replay of another shape: %.*s", (int)n, text);
        }
        saw_next(k, strtoull(at + 11, NULL, 10), data + 8, n - (size_t)(data + 8 - text) - 2);
    } else if (load_has(text, head, "\"hello_ok\"")) {
        k->joined = true;
        if (load_has(text, n, "\"resync_required\":true")) {
            load_die("client %d: resync at %llu: %.*s", k->number, (unsigned long long)k->have,
                     (int)n, text);
        }
    } else if (load_has(text, n, "\"seq\":")) {
        saw_next(k, (uint64_t)load_int(text, n, "\"cursor\":"), text, n);
    } else if (load_has(text, head, "error\"") && !excused(text, n)) {
        load_die("client %d: %.*s", k->number, (int)n, text);
    }
}

static void client_open(struct lc *c)
{
    struct client *k = (struct client *)c;
    char name[32];
    t_session_name(k->session, name);
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"torture\",\"session_id\":\"%s\",\"create\":true,"
               "\"since\":%llu,\"capabilities\":[\"streaming\"]}",
               name, (unsigned long long)k->have);
}

static void connect_client(struct client *k)
{
    const struct client keep = *k;
    load_close(&k->c);
    k->c = (struct lc){.on_open = client_open, .on_text = client_text};
    k->joined = false;
    k->act_at = keep.act_at;
    load_connect(&k->c, &t.client_at);
}

static void client_acts(struct client *k, int64_t now)
{
    k->act_at = now + (200 + (int64_t)t_random(20000)) * (t.pace ? t.pace : 1);
    if (k->c.closed || k->c.fd < 0) {
        connect_client(k);
        return;
    }
    if (!k->joined) {
        return;
    }
    const uint64_t what = t_random(40);
    if (what == 0 && !t.calm) {
        load_close(&k->c); /* drops off without a word */
    } else if (what == 1 && !t.calm) {
        t.aborts++;
        load_sendf(&k->c, "{\"type\":\"abort\"}");
    } else if (k->pending || (!t.calm && what < 25)) {
        if (!k->pending) {
            k->pending = ++k->next;
        }
        load_sendf(&k->c, "{\"type\":\"message\",\"message_id\":\"c%d-%u\",\"content\":\"c%d-%u\"}",
                   k->number, k->pending, k->number, k->pending);
    } else if (what == 30 && k->have) {
        load_sendf(&k->c, "{\"type\":\"ack\",\"cursor\":%llu}", (unsigned long long)k->have);
    }
}

/* --- workers --- */

static int session_of(const char *text, size_t n)
{
    const char *at = memmem(text, n, "\"session_id\":\"torture-", 22);
    return at ? atoi(at + 22) : -1;
}

/* Obeys, or says nothing, so that the grace runs out. */
static void told_to_stop(struct worker *w, int session, uint64_t turn)
{
    char name[32];
    for (int i = 0; i < w->jobs; i++) {
        if (w->job[i].session == session && w->job[i].turn == turn) {
            w->job[i] = w->job[--w->jobs];
        }
    }
    t_session_name(session, name);
    if (t_random(3)) {
        load_sendf(&w->c,
                   "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":%llu,"
                   "\"outcome\":{\"status\":\"aborted\"}}",
                   name, (unsigned long long)turn);
    }
}

static void worker_text(struct lc *c, const char *text, size_t n)
{
    struct worker *w = (struct worker *)c;
    const size_t head = n < 20 ? n : 20;
    if (load_has(text, head, "\"hello_ok\"")) {
        w->joined = true;
        w->jobs = 0;
    } else if (load_has(text, head, "\"type\":\"turn\"")) {
        if (w->jobs == HELD) {
            load_die("worker %d: more turns than it takes", w->number);
        }
        w->job[w->jobs++] =
            (struct job){session_of(text, n), (uint64_t)load_int(text, n, "\"turn\":"),
                         (int)load_int(text, n, "\"attempt\":"), 0};
    } else if (load_has(text, head, "\"type\":\"abort\"")) {
        told_to_stop(w, session_of(text, n), (uint64_t)load_int(text, n, "\"turn\":"));
    } else if (load_has(text, head, "error\"") && !load_has(text, n, "turn_closed") &&
               !excused(text, n)) {
        load_die("worker %d: %.*s", w->number, (int)n, text);
    }
}

static void worker_open(struct lc *c)
{
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"torture\",\"role\":\"agent\",\"concurrency\":%d,"
               "\"capabilities\":[\"ack\"]}",
               HELD);
}

static void worker_acts(struct worker *w, int64_t now)
{
    char name[32];
    w->act_at = now + 100 + (int64_t)t_random(3000);
    if (w->c.closed || w->c.fd < 0) {
        load_close(&w->c);
        w->c = (struct lc){.on_open = worker_open, .on_text = worker_text};
        w->joined = false;
        w->jobs = 0;
        load_connect(&w->c, &t.worker_at);
        return;
    }
    if (!w->joined || w->jobs == 0) {
        return;
    }
    const uint64_t what = t_random(200);
    struct job *j = &w->job[t_random((uint64_t)w->jobs)];
    t_session_name(j->session, name);
    if (what == 0 && !t.calm) {
        load_close(&w->c);
    } else if (what < 4 && !t.calm) {
        load_sendf(&w->c,
                   "{\"type\":\"fail\",\"session_id\":\"%s\",\"turn\":%llu,\"error\":\"no\","
                   "\"retry_after_seconds\":0}",
                   name, (unsigned long long)j->turn);
        *j = w->job[--w->jobs];
    } else if (j->emits < 4 && what < 120) {
        load_sendf(
            &w->c,
            "{\"type\":\"emit\",\"session_id\":\"%s\",\"turn\":%llu,\"event\":\"token_stream\","
            "\"data\":{\"token\":\"%d/%d\"},\"event_id\":\"e%llu-%d-%d\"}",
            name, (unsigned long long)j->turn, j->attempt, j->emits, (unsigned long long)j->turn,
            j->attempt, j->emits);
        j->emits++;
    } else {
        load_sendf(&w->c,
                   "{\"type\":\"final\",\"session_id\":\"%s\",\"turn\":%llu,\"content\":\"done\","
                   "\"event_id\":\"f%llu-%d\"}",
                   name, (unsigned long long)j->turn, (unsigned long long)j->turn, j->attempt);
        *j = w->job[--w->jobs];
    }
}

/* --- the run --- */

void t_play(int64_t us)
{
    static const bool never = false;
    const int64_t end = load_now_us() + us;
    for (int64_t now; (now = load_now_us()) < end;) {
        for (int i = 0; i < CLIENTS; i++) {
            if (t.client[i].act_at <= now) {
                client_acts(&t.client[i], now);
            }
        }
        for (int i = 0; i < WORKERS; i++) {
            if (t.worker[i].act_at <= now) {
                worker_acts(&t.worker[i], now);
            }
        }
        load_run(&never, 300);
    }
}

void t_aim(void)
{
    const int port = t.port ? t.port : tl_gate_port(t.gate);
    t.client_at = (struct load_target){.port = port, .path = "/ws", .token = t.client_token};
    t.worker_at = (struct load_target){.port = port, .path = "/ws", .token = t.worker_token};
}

void t_start(const struct tl_gate_opts *with)
{
    static const struct tl_claims client = {.sub = "c", .scope = "read write", .ttl = 864000};
    static const struct tl_claims worker = {
        .sub = "w", .scope = "agent", .agents = "torture", .ttl = 864000};
    struct tl_gate_opts o = with ? *with : (struct tl_gate_opts){0};
    if (!o.config) {
        o.config = T_CONFIG;
    }
    t.gate = tl_gate_prepare(&o);
    if (t.gate && t.prepared) {
        t.prepared();
    }
    if (!t.gate || !tl_gate_start(t.gate)) {
        load_die("the gateway does not start: %s", t.gate ? tl_gate_error(t.gate) : "no folder");
    }
    t.client_token = tl_gate_token(t.gate, &client);
    t.worker_token = tl_gate_token(t.gate, &worker);
    t_aim();
    for (int i = 0; i < SESSIONS; i++) {
        t.truth[i].print = calloc(CURSORS_MAX, sizeof *t.truth[i].print);
        t.truth[i].at = t.position ? calloc(CURSORS_MAX, sizeof *t.truth[i].at) : NULL;
    }
    for (int i = 0; i < CLIENTS; i++) {
        t.client[i].number = i;
        t.client[i].session = i % SESSIONS;
        t.client[i].c.fd = -1;
    }
    for (int i = 0; i < WORKERS; i++) {
        t.worker[i].number = i;
        t.worker[i].c.fd = -1;
    }
}

void t_hang_up(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        load_close(&t.client[i].c);
    }
    for (int i = 0; i < WORKERS; i++) {
        load_close(&t.worker[i].c);
    }
}
