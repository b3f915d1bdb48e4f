/*
 * limits.c - settings that change while the gateway runs. What is written must be allowed by the
 * limits in force at that moment, what is refused must be refused by them, and what was promised
 * under earlier ones holds: messages that wait, sessions that are open, leases.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include "wire/event.h"

/* --- reload --- */

bool sim_names_agent(const struct sim *w)
{
    return w->settings->agents && w->settings->agents[0];
}

static void take(struct sim *w, struct eg_settings *s)
{
    const int64_t rate[2] = {s->message_rate_per_sub, s->byte_rate_per_sub};
    for (int sub = 0; sub < SIM_SUBS; sub++) {
        for (int i = 0; i < 2; i++) {
            struct sim_rate *r = &w->rate[sub][i];
            /* Without any rate buckets may go with the last connection. */
            r->least = rate[0] || rate[1] ? r->least : 0;
            r->slow = rate[i] && (!r->slow || rate[i] < r->slow) ? rate[i] : r->slow;
            r->fast = rate[i] > r->fast ? rate[i] : r->fast;
        }
    }
    eg_machine_settings(w->machine, s);
    eg_settings_unref(w->settings);
    w->settings = s;
    w->naming = w->naming || sim_names_agent(w);
    w->reloads++;
}

void sim_reloads(struct sim *w)
{
    struct eg_settings *s = eg_settings_copy(w->settings);
    const bool slow = sim_random(w, 3) == 0;
    s->max_queued_turns = 1 + (int64_t)sim_random(w, 8);
    s->max_sessions_per_sub = sim_random(w, 2) ? 1 + (int64_t)sim_random(w, 8) : 0;
    s->message_rate_per_sub = slow && sim_random(w, 2) ? 1 + (int64_t)sim_random(w, 20) : 0;
    s->byte_rate_per_sub = slow && !s->message_rate_per_sub ? 10 + (int64_t)sim_random(w, 100) : 0;
    s->turn_lease_ms = sim_random(w, 2) ? 100 + (int64_t)sim_random(w, 2000) : 60000;
    s->abort_grace_ms = sim_random(w, 2) ? (int64_t)sim_random(w, 500) : 5000;
    s->max_attempts = 1 + (int64_t)sim_random(w, 5);
    s->max_turn_age_ms = sim_random(w, 4) ? EG_DAY_MS : 1000 + (int64_t)sim_random(w, 5000);
    s->retry_backoff_ms = 1 + (int64_t)sim_random(w, 2000);
    s->session_cache = 1 + (int64_t)sim_random(w, 4);
    if (sim_random(w, 4) == 0 && !sim_names_agent(w)) {
        free(s->agents);
        s->agents = calloc(2, sizeof *s->agents);
        s->agents[0] = strdup("c");
    }
    sim_tell(w,
             "reload: %lld turns, %lld sessions, %lld messages/s, %lld bytes/s, lease %lld, "
             "%lld attempts, age %lld%s",
             (long long)s->max_queued_turns, (long long)s->max_sessions_per_sub,
             (long long)s->message_rate_per_sub, (long long)s->byte_rate_per_sub,
             (long long)s->turn_lease_ms, (long long)s->max_attempts, (long long)s->max_turn_age_ms,
             s->agents && s->agents[0] ? ", agent c" : "");
    take(w, s);
}

void sim_unlimited(struct sim *w)
{
    struct eg_settings *s = eg_settings_copy(w->settings);
    s->max_sessions_per_sub = s->message_rate_per_sub = s->byte_rate_per_sub = 0;
    s->max_turn_age_ms = EG_DAY_MS;
    take(w, s);
}

void sim_limits_restarted(struct sim *w)
{
    memset(w->rate, 0, sizeof w->rate);
    w->naming = sim_names_agent(w);
    for (unsigned i = 0; i < w->hands; i++) {
        w->handed[i].due_mono = 0;
    }
}

/* --- sessions of one sub --- */

static unsigned open_sessions(const struct sim *w, int sub)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->lives; i++) {
        n += w->life[i].state == LIFE_OPEN && w->life[i].owner == sub;
    }
    return n;
}

void sim_limits_begin(struct sim *w)
{
    for (int sub = 0; sub < SIM_SUBS; sub++) {
        w->open_most[sub] = open_sessions(w, sub);
    }
}

void sim_limits_session(struct sim *w, const struct life *l)
{
    /* What a batch closes counts until it is over, for the gateway as for us. */
    const unsigned n = open_sessions(w, l->owner);
    const int64_t max = w->settings->max_sessions_per_sub;
    w->open_most[l->owner] = n > w->open_most[l->owner] ? n : w->open_most[l->owner];
    if (l->state == LIFE_OPEN && max && n > max) {
        sim_fault(w, "%s is made: %u sessions of %s are open, of at most %lld", l->name, n,
                  sim_sub[l->owner], (long long)max);
    }
}

bool sim_sessions_full(const struct sim *w, int sub)
{
    const int64_t max = w->settings->max_sessions_per_sub;
    return max && w->open_most[sub] >= max;
}

/* --- rates --- */

static int64_t after(int64_t used, int64_t rate, int64_t ms)
{
    return used > rate * ms ? used - rate * ms : 0;
}

/* A message of n units was taken. */
static void use(struct sim *w, struct sim_rate *r, int64_t rate, int64_t n)
{
    const int64_t ms = w->now.mono_ms - r->at_mono;
    if (!rate) {
        return;
    }
    r->least = after(r->least, r->fast, ms);
    r->most = after(r->most, r->slow, ms);
    r->at_mono = w->now.mono_ms;
    r->slow = r->fast = rate;
    if (r->least && r->least + n * 1000 > rate * 1000) {
        sim_fault(w, "%lld units are taken at once, at %lld a second", (long long)n,
                  (long long)rate);
    }
    r->least += n * 1000;
    r->most += n * 1000;
}

static bool used(const struct sim *w, const struct sim_rate *r, int64_t rate, int64_t n)
{
    const int64_t most = after(r->most, r->slow, w->now.mono_ms - r->at_mono);
    return rate && most && most + n * 1000 > rate * 1000;
}

bool sim_rate_used(const struct sim *w, int sub)
{
    return used(w, &w->rate[sub][0], w->settings->message_rate_per_sub, 1) ||
           used(w, &w->rate[sub][1], w->settings->byte_rate_per_sub, SIM_NAME);
}

/* --- turns --- */

/* A turn is given up for a reason. */
static void check_given_up(struct sim *w, const struct life *l, const struct seen *e, uint64_t turn)
{
    const struct eg_slice body = eg_bytes_slice(e->bytes);
    const struct eg_slice why = eg_event_field(body, "outcome.message");
    const struct eg_slice attempts = eg_event_field(body, "outcome.attempts");
    const struct seen *message = sim_life_event(l, turn);
    const int64_t n = attempts.n ? strtoll(attempts.p, NULL, 10) : 0;
    const int64_t age = message ? e->wall_ms - message->wall_ms : 0;
    if (n < w->settings->max_attempts && age < w->settings->max_turn_age_ms &&
        !eg_slice_is(why, "\"never\"") &&
        !eg_slice_is(why, "\"its message is missing in the log\"")) {
        sim_fault(w, "%s turn %llu is given up after %lld attempts and %lld ms: %.*s", l->name,
                  (unsigned long long)turn, (long long)n, (long long)age, (int)why.n, why.p);
    }
}

/* Messages of clients count, unless an operator has them said again. */
static void count_message(struct sim *w, const struct seen *e, const struct eg_event_head *head)
{
    const struct eg_slice body = eg_bytes_slice(e->bytes);
    for (int sub = 0; sub < SIM_SUBS; sub++) {
        if (head->source.n == 8 && memcmp(head->source.p, "client:", 7) == 0 &&
            head->source.p[7] == sim_sub[sub][0] && eg_event_field(body, "data.message_id").n) {
            use(w, &w->rate[sub][0], w->settings->message_rate_per_sub, 1);
            use(w, &w->rate[sub][1], w->settings->byte_rate_per_sub,
                (int64_t)eg_event_field(body, "data.content").n);
        }
    }
}

void sim_limits_event(struct sim *w, struct life *l)
{
    struct seen *e = &l->event[l->n - 1];
    struct eg_event_head head;
    e->wall_ms = w->now.wall_ms;
    if (l->state == LIFE_COPYING || eg_event_read(eg_bytes_slice(e->bytes), &head) != EG_OK) {
        return; /* a copy has no turns */
    }
    if (eg_slice_is(head.type, "message")) {
        if (l->waiting >= w->settings->max_queued_turns) {
            sim_fault(w, "%s: %u turns wait, of at most %lld, and one comes", l->name, l->waiting,
                      (long long)w->settings->max_queued_turns);
        }
        l->waiting++;
        l->waiting_most = l->waiting > l->waiting_most ? l->waiting : l->waiting_most;
        count_message(w, e, &head);
    } else if (eg_slice_is(head.type, "response")) {
        l->waiting--;
        if (eg_slice_is(eg_event_field(eg_bytes_slice(e->bytes), "outcome.code"),
                        "\"dead_letter\"")) {
            check_given_up(w, l, e, head.turn);
        }
    }
}

bool sim_queue_full(const struct sim *w, const struct life *l)
{
    return l->waiting_most >= w->settings->max_queued_turns;
}

void sim_limits_hand(struct sim *w, const struct seen *message, struct handed *h, int attempt)
{
    const int64_t age = w->now.wall_ms - message->wall_ms;
    h->due_mono = w->now.mono_ms + w->settings->turn_lease_ms;
    if (attempt > w->settings->max_attempts ||
        (attempt > 1 && age >= w->settings->max_turn_age_ms)) {
        sim_fault(w, "turn %llu is handed out in attempt %d of %lld, %lld ms old",
                  (unsigned long long)h->turn, attempt, (long long)w->settings->max_attempts,
                  (long long)age);
    }
}

/* --- leases --- */

static struct handed *newest_hand(struct sim *w, unsigned life, uint64_t turn)
{
    for (unsigned i = w->hands; i > 0; i--) {
        if (w->handed[i - 1].life == life && w->handed[i - 1].turn == turn) {
            return &w->handed[i - 1];
        }
    }
    return NULL;
}

void sim_lease_sign(struct sim *w, eg_conn_id conn, const struct held_turn *h)
{
    struct handed *last = newest_hand(w, h->life, h->turn);
    if (last && last->conn == conn) {
        last->sign = true;
    }
}

void sim_leases_keep(struct sim *w)
{
    for (unsigned i = 0; i < w->hands; i++) {
        struct handed *h = &w->handed[i];
        h->due_mono = h->sign ? w->now.mono_ms + w->settings->turn_lease_ms : h->due_mono;
        h->sign = false;
    }
}

void sim_lease_over(struct sim *w, unsigned life, uint64_t turn)
{
    const struct handed *h = newest_hand(w, life, turn);
    for (int i = 0; h && i < SIM_WORKERS; i++) {
        if (w->worker[i].conn == h->conn && w->now.mono_ms < h->due_mono) {
            sim_fault(w, "%s turn %llu: the lease ran out %lld ms too soon", w->life[life].name,
                      (unsigned long long)turn, (long long)(h->due_mono - w->now.mono_ms));
        }
    }
}
