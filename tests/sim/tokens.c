/*
 * tokens.c - who may come in. Tokens and subs are revoked by operators; the core remembers that and
 * tells the edge, which is played here as src/edge/auth.c does it: it knows what it was told since
 * the start, ends connections, and lets nobody in.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memstore.h"

const char *const sim_sub[SIM_SUBS] = {"u", "g"};

static struct revoked *find(struct revoked_list *l, const char *what)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].what, what) == 0) {
            return &l->v[i];
        }
    }
    return NULL;
}

/* Of two for the same the later end holds. */
static void note(struct revoked_list *l, const char *what, int64_t until_ms)
{
    struct revoked *r = find(l, what);
    if (!r && l->n < SIM_REVOKED) {
        r = &l->v[l->n++];
        *r = (struct revoked){.until_ms = until_ms};
        snprintf(r->what, sizeof r->what, "%.39s", what);
    }
    if (r && r->until_ms < until_ms) {
        r->until_ms = until_ms;
    }
}

static bool is_revoked(struct sim *w, struct revoked_list *l, const char *kind, const char *who)
{
    char what[SIM_NAME + 8];
    snprintf(what, sizeof what, "%s:%s", kind, who);
    const struct revoked *r = find(l, what);
    return r && w->now.wall_ms <= r->until_ms;
}

/* --- operators --- */

void sim_revokes(struct sim *w)
{
    const uint64_t who = sim_random(w, SIM_CLIENTS + SIM_WORKERS);
    struct sim_call *k = w->revoked.n < SIM_REVOKED / 2 ? sim_new_call(w, EG_CALL_REVOKE) : NULL;
    if (!k) {
        return;
    }
    if (w->revoked.n && sim_random(w, 3) == 0) { /* once more */
        memcpy(k->name, w->revoked.v[sim_random(w, w->revoked.n)].what, sizeof k->name);
    } else if (sim_random(w, 4) == 0) {
        snprintf(k->name, sizeof k->name, "sub:%s",
                 who < SIM_CLIENTS ? sim_sub[w->client[who].sub] : "w");
    } else {
        snprintf(k->name, sizeof k->name, "jti:t%u",
                 who < SIM_CLIENTS ? w->client[who].jti : w->worker[who - SIM_CLIENTS].jti);
    }
    /* Of a sub nobody comes back before that is over. */
    const uint64_t ms = strncmp(k->name, "sub:", 4) == 0 ? 2000 : 4 * EG_HOUR_MS;
    k->call.until_ms = w->now.wall_ms + (int64_t)sim_random(w, ms);
    k->call.text = eg_slice_cstr(k->name);
    sim_tell(w, "operator revokes %s for %lld ms", k->name,
             (long long)(k->call.until_ms - w->now.wall_ms));
    sim_ask(w, k);
}

void sim_judge_revoke(struct sim *w, const struct sim_call *k)
{
    if (k->call.code == EG_CODE_NONE) {
        note(&w->revoked, k->name, k->call.until_ms);
    } else if (k->call.code != EG_CODE_storage_unavailable || !w->refuses) {
        sim_wrong(w, k, "it can be revoked");
    }
}

/* --- the edge --- */

static bool is_out(struct sim *w, const char *sub, unsigned jti)
{
    char text[SIM_NAME];
    snprintf(text, sizeof text, "t%u", jti);
    return is_revoked(w, &w->gate, "jti", text) || is_revoked(w, &w->gate, "sub", sub);
}

bool sim_token_stands(struct sim *w, const char *sub, unsigned *jti)
{
    if (is_out(w, sub, *jti)) {
        *jti = w->jtis++; /* it tries another the next time */
        return false;
    }
    return true;
}

void sim_tokens_told(struct sim *w)
{
    struct eg_machine *m = w->machine;
    const bool news = m->revoked_count > 0;
    for (unsigned i = 0; i < m->revoked_count; i++) {
        note(&w->gate, m->revoked[i].what, m->revoked[i].until_ms);
        free(m->revoked[i].what);
    }
    m->revoked_count = 0;
    for (int i = 0; i < SIM_CLIENTS && news; i++) {
        struct sim_client *c = &w->client[i];
        if (c->conn && !c->closing && is_out(w, sim_sub[c->sub], c->jti)) {
            sim_tell(w, "client %d is sent away", i);
            c->attached = false;
            c->closing = true;
        }
    }
    for (int i = 0; i < SIM_WORKERS && news; i++) {
        struct sim_worker *k = &w->worker[i];
        if (k->conn && !k->closing && is_out(w, "w", k->jti)) {
            sim_tell(w, "worker %d is sent away", i);
            k->attached = false;
            k->closing = true;
        }
    }
}

struct stored {
    struct sim *w;
    unsigned n;
};

static void look(void *arg, const char *text, int64_t number)
{
    struct stored *s = arg;
    const struct revoked *r = find(&s->w->revoked, text);
    s->n++;
    if (!r || r->until_ms != number) {
        sim_fault(s->w, "%s is revoked until %lld, and %lld is stored", text,
                  r ? (long long)r->until_ms : 0, (long long)number);
    }
}

/* What was revoked is stored, and the edge knows it. */
void sim_tokens_check(struct sim *w)
{
    struct stored s = {w, 0};
    if (w->storage->ops->revoked(w->storage, look, &s) != EG_OK || s.n != w->revoked.n) {
        sim_fault(w, "%u revocations are stored, of %u", s.n, w->revoked.n);
    }
    for (unsigned i = 0; i < w->revoked.n; i++) {
        const struct revoked *r = &w->revoked.v[i], *t = find(&w->gate, r->what);
        if (!t || t->until_ms != r->until_ms) {
            sim_fault(w, "%s is revoked, and who has it would be let in", r->what);
        }
    }
    if (w->gate.n != w->revoked.n) {
        sim_fault(w, "%u revocations are in force, of %u", w->gate.n, w->revoked.n);
    }
}

void sim_tokens_restarted(struct sim *w)
{
    unsigned n = 0;
    memstore_forget(w->storage, w->now.wall_ms);
    for (unsigned i = 0; i < w->revoked.n; i++) {
        if (w->revoked.v[i].until_ms > w->now.wall_ms) {
            w->revoked.v[n++] = w->revoked.v[i];
        }
    }
    w->revoked.n = n;
    w->gate.n = 0;
}

void sim_tokens_expire(struct sim *w)
{
    for (unsigned i = 0; i < w->revoked.n; i++) {
        const struct revoked *r = &w->revoked.v[i];
        if (strncmp(r->what, "sub:", 4) == 0 && w->now.wall_ms <= r->until_ms) {
            w->now.wall_ms = r->until_ms + 1;
        }
    }
}
