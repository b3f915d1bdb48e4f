/*
 * world.c - the scheduler of the simulator and the two sides around the machine.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memstore.h"

/* One byte for a small choice, two for a large one; nothing but zeros once they are used up. */
static uint64_t scripted(struct sim *w, uint64_t below)
{
    uint64_t v = 0;
    for (uint64_t reach = 1; reach < below && w->script < w->script_end && reach < 65536;
         reach *= 256) {
        v = v * 256 + *w->script++;
    }
    return v % below;
}

uint64_t sim_random(struct sim *w, uint64_t below)
{
    if (w->script) {
        return scripted(w, below);
    }
    uint64_t z = (w->rng += 0x9e3779b97f4a7c15u); /* splitmix64, public domain, Vigna */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

void sim_tell(struct sim *w, const char *fmt, ...)
{
    char line[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    free(w->story[w->told % SIM_STORY]);
    w->story[w->told % SIM_STORY] = strdup(line);
    w->told++;
}

void sim_fault(struct sim *w, const char *fmt, ...)
{
    if (w->fault[0]) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->fault, sizeof w->fault, fmt, ap);
    va_end(ap);
}

void sim_session_name(int session, char out[32])
{
    snprintf(out, 32, "s%d", session);
}

/* --- commands: written as JSON and parsed by the real parser --- */

static struct eg_cmd *command(struct sim *w, enum eg_cmd_kind kind, eg_conn_id conn,
                              const char *json)
{
    struct eg_cmd *cmd = eg_cmd_new(kind, conn);
    struct eg_frame_error err;
    if (json) {
        if (eg_frame_parse(eg_slice_cstr(json), &cmd->frame, &err) != EG_OK) {
            sim_fault(w, "the simulator sent a bad frame: %s: %s", json, err.message);
            eg_cmd_free(cmd);
            return NULL;
        }
        eg_frame_tail(&cmd->frame, &cmd->tail);
    }
    return cmd;
}

static void post(struct sim *w, struct eg_cmd *cmd)
{
    if (cmd && w->queued < SIM_QUEUE) {
        w->queue[w->queued++] = cmd;
    } else {
        eg_cmd_free(cmd);
    }
}

static void post_frame(struct sim *w, eg_conn_id conn, const char *json)
{
    post(w, command(w, EG_CMD_FRAME, conn, json));
}

/* --- batches, failures, crashes --- */

static void client_gone(struct sim_client *c)
{
    c->conn = 0;
    c->attached = c->present = false;
    memset(c->knows, 0, sizeof c->knows);
}

static void forget_connections(struct sim *w)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        client_gone(&w->client[i]);
    }
    for (int i = 0; i < SIM_WORKERS; i++) {
        w->worker[i].conn = 0;
        w->worker[i].attached = false;
        w->worker[i].held_count = 0;
    }
}

static void start_machine(struct sim *w)
{
    if (eg_machine_new(w->storage, w->settings, 1, w->now, &w->machine) != EG_OK) {
        sim_fault(w, "the machine does not start");
    }
}

static void crash(struct sim *w)
{
    sim_tell(w, "CRASH");
    w->crashes++;
    if (w->machine->writing) {
        w->storage->ops->rollback(w->storage);
    }
    eg_machine_free(w->machine);
    forget_connections(w);
    for (int i = 0; i < w->queued; i++) {
        eg_cmd_free(w->queue[i]);
    }
    w->queued = 0;
    w->storage = memstore_restart(w->storage);
    start_machine(w);
}

static void release(struct sim *w)
{
    struct eg_machine *m = w->machine;
    struct eg_release *r = m->release[0];
    m->release[0] = NULL;
    for (int i = 0; r && i < r->n; i++) {
        sim_deliver(w, &r->out[i]);
    }
    eg_release_free(r);
}

/* One go at the queue; false when it was rolled back. Sets *dead when the outcome of the commit is
 * unknown. */
static bool attempt(struct sim *w, bool *dead)
{
    struct eg_machine *m = w->machine;
    for (int i = 0; i < w->queued; i++) {
        eg_machine_step(m, w->queue[i], w->now);
    }
    eg_machine_tick(m, w->now);
    const bool writes = eg_machine_flush(m);
    if (m->failed) {
        eg_machine_rolled_back(m);
        return false;
    }
    if (writes) {
        const enum eg_err e = m->storage->ops->commit(m->storage);
        m->writing = false;
        if (e == EG_EUNKNOWN) {
            *dead = true;
            return true;
        }
        if (e != EG_OK) {
            w->failures++;
            sim_tell(w, "commit failed: %s", eg_err_text(e));
            eg_machine_rolled_back(m);
            return false;
        }
    }
    eg_machine_committed(m);
    return true;
}

static void batch(struct sim *w)
{
    bool dead = false;
    w->batches++;
    if (!w->calm && sim_random(w, 40) == 0) {
        static const enum memstore_fate fate[] = {MEMSTORE_FULL, MEMSTORE_IO, MEMSTORE_UNKNOWN_GONE,
                                                  MEMSTORE_UNKNOWN_KEPT};
        memstore_fail_commits(w->storage, fate[sim_random(w, 4)], 0, 1);
    } else if (!w->calm && sim_random(w, 60) == 0) {
        memstore_fail_write(w->storage, 1 + (int)sim_random(w, 6), EG_EFULL);
    }
    while (!attempt(w, &dead) && !w->fault[0]) {
    }
    memstore_fail_commits(w->storage, MEMSTORE_OK, 0, 0);
    memstore_fail_write(w->storage, 0, EG_OK);
    if (dead) {
        crash(w);
        return;
    }
    release(w);
    sim_check_presence(w);
    for (int i = 0; i < w->queued; i++) {
        eg_cmd_free(w->queue[i]);
    }
    w->queued = 0;
    if (w->machine->readonly && (w->calm || sim_random(w, 3) == 0)) {
        eg_machine_resume(w->machine);
    }
}

/* --- what clients and workers do --- */

static void client_connect(struct sim *w, struct sim_client *c)
{
    char json[200];
    struct eg_cmd *cmd;
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"s%d\",\"create\":true,"
             "\"since\":%llu,\"capabilities\":[\"streaming\",\"ack\",\"presence\"]}",
             c->session, (unsigned long long)c->have);
    c->conn = w->next_conn++;
    cmd = command(w, EG_CMD_ATTACH, c->conn, json);
    if (cmd) {
        cmd->identity =
            (struct eg_identity){.sub = strdup("u"), .scopes = EG_SCOPE_READ | EG_SCOPE_WRITE};
        post(w, cmd);
    }
}

/* A new message, or again one that was not answered. */
static void client_says(struct sim *w, struct sim_client *c)
{
    char json[300];
    const int number = (int)(c - w->client);
    unsigned id;
    if (!c->pendings || (c->pendings < SIM_PENDING && sim_random(w, 2))) {
        id = c->pending[c->pendings++] = ++c->next_id;
    } else {
        id = c->pending[sim_random(w, c->pendings)];
    }
    sim_tell(w, "client %d says m%d-%u in s%d", number, number, id, c->session);
    snprintf(json, sizeof json,
             "{\"type\":\"message\",\"content\":\"m%d-%u\",\"message_id\":\"m%d-%u\"}", number, id,
             number, id);
    post_frame(w, c->conn, json);
}

/* The turn at work, or one named: an old one, or one whose message is not answered yet. */
static void client_aborts(struct sim *w, const struct sim_client *c)
{
    char json[100];
    const uint64_t turn = c->have + sim_random(w, 8);
    if (sim_random(w, 3) == 0 || turn < 3) {
        snprintf(json, sizeof json, "{\"type\":\"abort\"}");
    } else {
        snprintf(json, sizeof json, "{\"type\":\"abort\",\"turn\":%llu}",
                 (unsigned long long)turn - 2);
    }
    sim_tell(w, "client %d in s%d: %s", (int)(c - w->client), c->session, json);
    post_frame(w, c->conn, json);
}

static void client_acts(struct sim *w, struct sim_client *c)
{
    char json[300];
    const uint64_t what = sim_random(w, 20);
    if (!c->conn) {
        client_connect(w, c);
    } else if (what < 2) {
        sim_tell(w, "client %d drops", (int)(c - w->client));
        post(w, command(w, EG_CMD_DETACH, c->conn, NULL));
        client_gone(c);
    } else if (!c->attached) {
        return;
    } else if (what < 13) {
        client_says(w, c);
    } else if (what < 16) {
        client_aborts(w, c);
    } else if (what < 18) {
        snprintf(json, sizeof json, "{\"type\":\"presence\",\"status\":\"p%u\"}", w->serial++);
        sim_tell(w, "client %d of s%d is present", (int)(c - w->client), c->session);
        post_frame(w, c->conn, json);
        c->present = true;
    } else if (c->have) {
        snprintf(json, sizeof json, "{\"type\":\"ack\",\"cursor\":%llu}",
                 (unsigned long long)c->have);
        post_frame(w, c->conn, json);
    }
}

static void worker_connect(struct sim *w, struct sim_worker *k)
{
    char json[200];
    k->concurrency = 1 + (int)sim_random(w, 3);
    k->held_count = 0;
    k->conn = w->next_conn++;
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"role\":\"agent\",\"concurrency\":%d,"
             "\"capabilities\":[\"ack\"]}",
             k->concurrency);
    struct eg_cmd *cmd = command(w, EG_CMD_ATTACH, k->conn, json);
    if (cmd) {
        cmd->identity = (struct eg_identity){.sub = strdup("w"), .scopes = EG_SCOPE_AGENT};
        post(w, cmd);
    }
}

/* Data of what a worker writes says which worker and attempt it was: check.c holds one writer to a
 * turn. */
static void worker_writes(struct sim *w, struct sim_worker *k, struct held_turn *h, bool final)
{
    char json[400];
    const unsigned serial = w->serial++;
    if (final) {
        snprintf(json, sizeof json,
                 "{\"type\":\"final\",\"session_id\":\"s%d\",\"turn\":%llu,\"content\":\"%llu\","
                 "\"event_id\":\"f%u\"}",
                 h->session, (unsigned long long)h->turn, (unsigned long long)k->conn, serial);
    } else {
        snprintf(
            json, sizeof json,
            "{\"type\":\"emit\",\"session_id\":\"s%d\",\"turn\":%llu,\"event\":\"token_stream\","
            "\"data\":\"%llu\",\"event_id\":\"e%u\"}",
            h->session, (unsigned long long)h->turn, (unsigned long long)k->conn, serial);
    }
    post_frame(w, k->conn, json);
    if (sim_random(w, 5) == 0) {
        post_frame(w, k->conn, json); /* the answer was late: said twice */
    }
}

static void worker_acts(struct sim *w, struct sim_worker *k)
{
    char json[200];
    const int number = (int)(k - w->worker);
    const uint64_t what = w->calm ? 5 : sim_random(w, 12);
    if (!k->conn) {
        worker_connect(w, k);
        return;
    }
    if (what == 0) {
        sim_tell(w, "worker %d drops", number);
        post(w, command(w, EG_CMD_DETACH, k->conn, NULL));
        k->conn = 0;
        k->attached = false;
        k->held_count = 0;
        return;
    }
    if (!k->attached || !k->held_count) {
        return;
    }
    struct held_turn *h = &k->held[sim_random(w, (uint64_t)k->held_count)];
    if (what < 4) {
        worker_writes(w, k, h, false);
    } else if (what < 7) {
        sim_tell(w, "worker %d ends s%d turn %llu", number, h->session,
                 (unsigned long long)h->turn);
        worker_writes(w, k, h, true);
        sim_let_go(k, h);
    } else if (what == 7) {
        sim_tell(w, "worker %d fails s%d turn %llu", number, h->session,
                 (unsigned long long)h->turn);
        snprintf(json, sizeof json,
                 "{\"type\":\"fail\",\"session_id\":\"s%d\",\"turn\":%llu,\"error\":\"no\","
                 "\"retry\":%s}",
                 h->session, (unsigned long long)h->turn, sim_random(w, 4) ? "true" : "false");
        post_frame(w, k->conn, json);
        sim_let_go(k, h);
    } else if (what == 8) {
        snprintf(json, sizeof json, "{\"type\":\"extend\",\"session_id\":\"s%d\",\"turn\":%llu}",
                 h->session, (unsigned long long)h->turn);
        post_frame(w, k->conn, json);
    }
}

static void time_passes(struct sim *w)
{
    const uint64_t what = w->calm ? 1 : sim_random(w, 20);
    const int64_t ms = w->calm     ? 1000
                       : what == 0 ? 70000
                       : what < 4  ? 1500
                                   : (int64_t)sim_random(w, 50);
    w->now.mono_ms += ms;
    w->now.wall_ms += ms;
    if (what == 5) {
        w->now.wall_ms += (int64_t)sim_random(w, 7200000) - 3600000;
        sim_tell(w, "the wall clock jumps");
    } else if (what == 0) {
        sim_tell(w, "a minute passes");
    }
}

/* --- a schedule --- */

static void begin(struct sim *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = w->rng = seed;
    w->now = (struct eg_now){.mono_ms = 1000000, .wall_ms = 1700000000000};
    w->storage = memstore_new("simulated");
    w->settings = eg_settings_new();
    w->settings->max_attempts = 3;
    w->settings->max_queued_turns = 6;
    w->settings->session_cache = 2;
    w->next_conn = 1;
    start_machine(w);
    /* Serving makes the agent known: clients come after the first worker did. */
    worker_connect(w, &w->worker[0]);
    const bool calm = w->calm;
    w->calm = true;
    batch(w);
    w->calm = calm;
    for (int i = 0; i < SIM_CLIENTS; i++) {
        w->client[i].session = i % SIM_SESSIONS;
    }
}

struct open_count {
    int64_t but_sid;
    unsigned n;
};

static void count_open(void *arg, int64_t sid, const char *agent, enum eg_turn_state head)
{
    struct open_count *c = arg;
    (void)agent;
    (void)head;
    c->n += sid != c->but_sid;
}

/* Faults stop; workers and clients stay until nothing is open. */
static void come_to_an_end(struct sim *w)
{
    w->calm = true;
    for (unsigned round = 0; round < 6000 && !w->fault[0]; round++) {
        for (int i = 0; i < SIM_WORKERS; i++) {
            worker_acts(w, &w->worker[i]);
        }
        for (int i = 0; i < SIM_CLIENTS; i++) {
            if (!w->client[i].conn) {
                client_connect(w, &w->client[i]);
            }
        }
        time_passes(w);
        batch(w);
        struct open_count open = {.but_sid =
                                      w->damaged_sid}; /* its turn cannot end, all others do */
        if (w->storage->ops->open_turns(w->storage, count_open, &open) != EG_OK) {
            sim_fault(w, "the log cannot be read");
        }
        if (!open.n && round > 3) {
            return;
        }
    }
    for (const struct eg_session *s = w->machine->sessions; s; s = s->hh.next) {
        const struct eg_turn *t = eg_turn_head(s);
        if (t) {
            sim_tell(w, "%s: turn %llu is %s, attempt %d, due in %lld", s->id,
                     (unsigned long long)t->turn, eg_turn_state_name(t->state), t->attempt,
                     (long long)(t->deadline_mono - w->now.mono_ms));
        }
    }
    sim_fault(w, "turns stay open although workers are there");
}

/* The newest event of a session, perhaps a message that nobody has had yet, is lost on the disk. */
static void damage(struct sim *w)
{
    struct eg_session_row row;
    char name[32];
    sim_session_name((int)sim_random(w, SIM_SESSIONS), name);
    if (!w->damaged_sid && !w->machine->writing &&
        w->storage->ops->session_by_id(w->storage, eg_slice_cstr(name), &row) == EG_OK &&
        row.cursor) {
        sim_tell(w, "event %llu of %s is damaged", (unsigned long long)row.cursor, name);
        w->damages++;
        w->damaged_sid = row.sid;
        memstore_damage(w->storage, row.sid, row.cursor);
    }
}

/* Much in one session before the core comes to it: it is all one batch. */
static void burst(struct sim *w)
{
    const int session = (int)sim_random(w, SIM_SESSIONS);
    for (uint64_t n = 2 + sim_random(w, 5); n; n--) {
        const int i = session + (sim_random(w, 2) ? SIM_SESSIONS : 0);
        client_acts(w, &w->client[i < SIM_CLIENTS ? i : session]);
    }
}

static void one_step(struct sim *w)
{
    const uint64_t what = sim_random(w, 100);
    if (what < 55) {
        client_acts(w, &w->client[sim_random(w, SIM_CLIENTS)]);
    } else if (what < 97) {
        worker_acts(w, &w->worker[sim_random(w, SIM_WORKERS)]);
    } else if (what == 97 && sim_random(w, 4) == 0) {
        crash(w);
    } else if (what == 97 && sim_random(w, 16) == 0) {
        damage(w);
    } else if (what > 97) {
        burst(w);
    }
    if (sim_random(w, 3) == 0 || w->queued > SIM_QUEUE / 2) {
        time_passes(w);
        batch(w);
    }
}

static bool verdict(struct sim *w)
{
    if (!w->fault[0]) {
        come_to_an_end(w);
    }
    if (!w->fault[0]) {
        sim_check(w);
    }
    return !w->fault[0];
}

bool sim_run(struct sim *w, uint64_t seed, unsigned steps)
{
    begin(w, seed);
    for (unsigned i = 0; i < steps && !w->fault[0]; i++) {
        one_step(w);
    }
    return verdict(w);
}

bool sim_play(struct sim *w, const uint8_t *bytes, size_t n)
{
    begin(w, 1);
    w->script = bytes;
    w->script_end = bytes + n;
    while (w->script < w->script_end && !w->fault[0]) {
        one_step(w);
    }
    return verdict(w);
}

void sim_end(struct sim *w)
{
    eg_machine_free(w->machine);
    w->storage->ops->close(w->storage);
    eg_settings_unref(w->settings);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        for (unsigned j = 0; j < w->client[i].logged; j++) {
            eg_bytes_unref(w->client[i].log[j].bytes);
        }
        free(w->client[i].log);
    }
    for (int i = 0; i < SIM_STORY; i++) {
        free(w->story[i]);
    }
    for (int i = 0; i < w->queued; i++) {
        eg_cmd_free(w->queue[i]);
    }
    free(w->promise);
    free(w->stopped);
    free(w->handed);
}
