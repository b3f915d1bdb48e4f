/*
 * world.c - schedules: who acts next, what goes wrong, and how it all comes to an end.
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

void sim_session_name(int session, char out[SIM_NAME])
{
    snprintf(out, SIM_NAME, "s%d", session);
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
    w->jtis = SIM_CLIENTS + SIM_WORKERS;
    sim_start(w);
    /* Serving makes the agent known: clients come after the first worker did. */
    sim_worker_connects(w, &w->worker[0]);
    const bool calm = w->calm;
    w->calm = true;
    sim_batch(w);
    w->calm = calm;
    for (int i = 0; i < SIM_CLIENTS; i++) {
        sim_session_name(i % SIM_SESSIONS, w->client[i].name);
        w->client[i].creates = true;
        w->client[i].sub = i % 4 == 3;
        w->client[i].jti = (unsigned)i;
    }
    for (int i = 0; i < SIM_WORKERS; i++) {
        w->worker[i].jti = (unsigned)(SIM_CLIENTS + i);
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

/* Whether nothing is left to be done: no turn is open but one that cannot end since its message is
 * damaged, nobody is away, nothing is being copied, trimmed or removed. */
static bool all_done(struct sim *w)
{
    struct open_count open = {.but_sid = w->damaged_sid};
    bool done = !w->machine->chores && !w->machine->resting;
    if (w->storage->ops->open_turns(w->storage, count_open, &open) != EG_OK) {
        sim_fault(w, "the log cannot be read");
    }
    for (int i = 0; i < SIM_CLIENTS; i++) {
        done = done && w->client[i].attached && !w->client[i].reads;
    }
    for (unsigned i = 0; i < w->lives; i++) {
        done = done && !sim_life_left(w, &w->life[i]);
    }
    return done && !open.n;
}

static void tell_what_is_open(struct sim *w)
{
    for (const struct eg_session *s = w->machine->sessions; s; s = s->hh.next) {
        const struct eg_turn *t = eg_turn_head(s);
        if (t) {
            sim_tell(w, "%s: turn %llu is %s, attempt %d, due in %lld", s->id,
                     (unsigned long long)t->turn, eg_turn_state_name(t->state), t->attempt,
                     (long long)(t->deadline_mono - w->now.mono_ms));
        }
    }
    for (const struct eg_chore *c = w->machine->chores; c; c = c->next) {
        sim_tell(w, "work %d on session %lld goes on", (int)c->kind, (long long)c->sid);
    }
    for (int i = 0; i < SIM_CLIENTS; i++) {
        if (!w->client[i].attached) {
            sim_tell(w, "client %d is away from %s", i, w->client[i].name);
        }
    }
    for (unsigned i = 0; i < w->lives; i++) {
        if (sim_life_left(w, &w->life[i])) {
            sim_tell(w, "of %s is left what is to go", w->life[i].name);
        }
    }
}

/* Faults stop; workers and clients stay until nothing is open. */
static void come_to_an_end(struct sim *w)
{
    w->calm = true;
    sim_unlimited(w);
    sim_tokens_expire(w);
    if (w->machine->draining) {
        sim_crash(w);
    }
    for (unsigned round = 0; round < 6000 && !w->fault[0]; round++) {
        for (int i = 0; i < SIM_WORKERS; i++) {
            sim_worker_acts(w, &w->worker[i]);
        }
        for (int i = 0; i < SIM_CLIENTS; i++) {
            sim_client_returns(w, &w->client[i]);
        }
        sim_maintain(w);
        time_passes(w);
        sim_batch(w);
        if (round > 3 && all_done(w)) {
            return;
        }
    }
    tell_what_is_open(w);
    sim_fault(w, "something stays open although workers are there");
}

/* The newest event of a session, perhaps a message that nobody has had yet, is lost on the disk. */
static void damage(struct sim *w)
{
    struct eg_session_row row;
    char name[SIM_NAME];
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
        sim_client_acts(w, &w->client[i < SIM_CLIENTS ? i : session]);
    }
}

static void one_step(struct sim *w)
{
    const uint64_t what = sim_random(w, 100);
    if (what < 55) {
        sim_client_acts(w, &w->client[sim_random(w, SIM_CLIENTS)]);
    } else if (what < 91) {
        sim_worker_acts(w, &w->worker[sim_random(w, SIM_WORKERS)]);
    } else if (what < 97) {
        sim_operator_acts(w);
    } else if (what == 97 && sim_random(w, 4) == 0) {
        sim_crash(w);
    } else if (what == 97 && sim_random(w, 16) == 0) {
        damage(w);
    } else if (what > 97) {
        burst(w);
    }
    if (sim_random(w, 3) == 0 || w->queued > SIM_QUEUE / 2) {
        time_passes(w);
        sim_batch(w);
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
    sim_lives_free(w);
    free(w->promise);
    free(w->stopped.v);
    free(w->again.v);
    free(w->handed);
}
