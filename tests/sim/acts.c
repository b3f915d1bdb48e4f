/*
 * acts.c - what clients and workers do.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- clients --- */

void sim_client_gone(struct sim_client *c)
{
    c->conn = 0;
    c->attached = c->closing = c->present = false;
    memset(c->knows, 0, sizeof c->knows);
}

void sim_client_forgets(struct sim *w, struct sim_client *c)
{
    const struct life *l = sim_life(w, c->sid);
    for (unsigned i = 0; i < c->logged; i++) {
        const struct seen *e = l ? sim_life_event(l, c->log[i].cursor) : NULL;
        if (!e || !eg_slice_eq(eg_bytes_slice(e->bytes), eg_bytes_slice(c->log[i].bytes))) {
            sim_fault(w, "client %d saw another event %llu than was written", (int)(c - w->client),
                      (unsigned long long)c->log[i].cursor);
        }
        eg_bytes_unref(c->log[i].bytes);
    }
    c->logged = 0;
    c->sid = 0;
    c->epoch[0] = '\0';
    c->have = 0;
    c->pendings = 0;
    c->reads = false;
}

void sim_client_moves(struct sim *w, struct sim_client *c)
{
    const uint64_t where = w->calm ? 0 : sim_random(w, 4);
    const struct life *l = &w->life[sim_random(w, w->lives ? w->lives : 1)];
    sim_client_forgets(w, c);
    c->creates = true;
    if (where == 0 || !w->lives) {
        snprintf(c->name, sizeof c->name, "n%u", w->serial++);
    } else if (where == 1) {
        sim_session_name((int)sim_random(w, SIM_SESSIONS), c->name);
    } else {
        memcpy(c->name, l->name, sizeof c->name);
        c->creates = false;
    }
    sim_tell(w, "client %d turns to %s", (int)(c - w->client), c->name);
}

static void client_connects(struct sim *w, struct sim_client *c)
{
    char json[400], since[24], epoch[80] = "";
    if (!sim_token_stands(w, sim_sub[c->sub], &c->jti)) {
        return;
    }
    c->from_acked = !c->reads && !w->calm && sim_random(w, 6) == 0;
    snprintf(since, sizeof since, c->from_acked ? "\"acked\"" : "%llu",
             (unsigned long long)c->have);
    if (c->epoch[0]) {
        snprintf(epoch, sizeof epoch, ",\"epoch\":\"%s\"", c->epoch);
    }
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"%s\",\"create\":%s,"
             "\"since\":%s%s,\"capabilities\":[\"streaming\",\"ack\",\"presence\"]}",
             c->name, c->creates && !c->reads ? "true" : "false", since, epoch);
    c->conn = w->next_conn++;
    struct eg_cmd *cmd = sim_command(w, EG_CMD_ATTACH, c->conn, json);
    if (cmd) {
        char **all = calloc(2, sizeof *all); /* it may enter what is another sub's */
        all[0] = strdup("*");
        cmd->identity = (struct eg_identity){.sub = strdup(sim_sub[c->sub]),
                                             .scopes = EG_SCOPE_READ | EG_SCOPE_WRITE,
                                             .sessions = all};
        cmd->stream = c->reads;
        sim_post(w, cmd);
    }
}

static void client_drops(struct sim *w, struct sim_client *c)
{
    sim_post(w, sim_command(w, EG_CMD_DETACH, c->conn, NULL));
    sim_client_gone(c);
}

void sim_client_returns(struct sim *w, struct sim_client *c)
{
    if (c->closing) {
        client_drops(w, c);
    } else if (!c->conn) {
        client_connects(w, c);
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
    sim_tell(w, "client %d says m%d-%u in %s", number, number, id, c->name);
    snprintf(json, sizeof json,
             "{\"type\":\"message\",\"content\":\"m%d-%u\",\"message_id\":\"m%d-%u\"}", number, id,
             number, id);
    sim_post_frame(w, c->conn, json);
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
    sim_tell(w, "client %d in %s: %s", (int)(c - w->client), c->name, json);
    sim_post_frame(w, c->conn, json);
}

void sim_client_acts(struct sim *w, struct sim_client *c)
{
    char json[100];
    const uint64_t what = sim_random(w, 20);
    if (!c->conn || c->closing) {
        sim_client_returns(w, c);
    } else if (what < 2) {
        sim_tell(w, "client %d drops", (int)(c - w->client));
        client_drops(w, c);
    } else if (!c->attached || c->reads) {
        return;
    } else if (what == 19 && sim_random(w, 6) == 0) {
        client_drops(w, c);
        sim_client_moves(w, c);
    } else if (what < 13) {
        client_says(w, c);
    } else if (what < 16) {
        client_aborts(w, c);
    } else if (what < 18) {
        snprintf(json, sizeof json, "{\"type\":\"presence\",\"status\":\"p%u\"}", w->serial++);
        sim_tell(w, "client %d of %s is present", (int)(c - w->client), c->name);
        sim_post_frame(w, c->conn, json);
        c->present = true;
    } else if (c->have) {
        sim_client_acks(w, c);
    }
}

/* --- workers --- */

void sim_worker_gone(struct sim_worker *k)
{
    k->conn = 0;
    k->attached = k->closing = false;
    k->held_count = 0;
}

void sim_worker_connects(struct sim *w, struct sim_worker *k)
{
    char json[200];
    if (!sim_token_stands(w, "w", &k->jti)) {
        return;
    }
    k->concurrency = 1 + (int)sim_random(w, 3);
    k->held_count = 0;
    k->conn = w->next_conn++;
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"role\":\"agent\",\"concurrency\":%d,"
             "\"capabilities\":[\"ack\"]}",
             k->concurrency);
    struct eg_cmd *cmd = sim_command(w, EG_CMD_ATTACH, k->conn, json);
    if (cmd) {
        cmd->identity = (struct eg_identity){.sub = strdup("w"), .scopes = EG_SCOPE_AGENT};
        sim_post(w, cmd);
    }
}

/* What names the turn in a worker's frame. */
static const char *named(const struct sim *w, const struct held_turn *h, char out[300])
{
    snprintf(out, 300, "\"session_id\":\"%s\",\"turn\":%llu,\"epoch\":\"%s\"",
             w->life[h->life].name, (unsigned long long)h->turn, h->epoch);
    return out;
}

/* Data of what a worker writes says which worker it was, and for which log: check.c holds one
 * writer to a turn, and the work to its log. */
static void worker_writes(struct sim *w, struct sim_worker *k, struct held_turn *h, bool final)
{
    char json[500], name[300];
    const unsigned serial = w->serial++;
    if (final) {
        snprintf(json, sizeof json,
                 "{\"type\":\"final\",%s,\"content\":\"%llu.%u\",\"event_id\":\"f%u\"}",
                 named(w, h, name), (unsigned long long)k->conn, h->life, serial);
    } else {
        snprintf(json, sizeof json,
                 "{\"type\":\"emit\",%s,\"event\":\"token_stream\",\"data\":\"%llu.%u\","
                 "\"event_id\":\"e%u\"}",
                 named(w, h, name), (unsigned long long)k->conn, h->life, serial);
    }
    if (sim_post_frame(w, k->conn, json) && !final) {
        sim_lease_sign(w, k->conn, h);
    }
    if (sim_random(w, 5) == 0) {
        sim_post_frame(w, k->conn, json); /* the answer was late: said twice */
    }
}

/* Does something for a turn that it holds. */
static void worker_works(struct sim *w, struct sim_worker *k, uint64_t what)
{
    char json[500], full[300];
    const int number = (int)(k - w->worker);
    struct held_turn *h = &k->held[sim_random(w, (uint64_t)k->held_count)];
    const char *name = w->life[h->life].name;
    if (what < 4) {
        worker_writes(w, k, h, false);
    } else if (what < 7) {
        sim_tell(w, "worker %d ends %s turn %llu", number, name, (unsigned long long)h->turn);
        worker_writes(w, k, h, true);
        sim_let_go(k, h);
    } else if (what == 7) {
        sim_tell(w, "worker %d fails %s turn %llu", number, name, (unsigned long long)h->turn);
        const bool again = sim_random(w, 4) > 0;
        snprintf(json, sizeof json, "{\"type\":\"fail\",%s,\"error\":\"%s\",\"retry\":%s}",
                 named(w, h, full), again ? "no" : "never", again ? "true" : "false");
        sim_post_frame(w, k->conn, json);
        sim_let_go(k, h);
    } else if (what == 8) {
        snprintf(json, sizeof json, "{\"type\":\"extend\",%s}", named(w, h, full));
        if (sim_post_frame(w, k->conn, json)) {
            sim_lease_sign(w, k->conn, h);
        }
    }
}

void sim_worker_acts(struct sim *w, struct sim_worker *k)
{
    const uint64_t what = w->calm ? 5 : sim_random(w, 12);
    if (!k->conn) {
        sim_worker_connects(w, k);
    } else if (k->closing || what == 0) {
        sim_tell(w, "worker %d drops", (int)(k - w->worker));
        sim_post(w, sim_command(w, EG_CMD_DETACH, k->conn, NULL));
        sim_worker_gone(k);
    } else if (k->attached && k->held_count) {
        worker_works(w, k, what);
    }
}
