/*
 * create.c - sessions made by HTTP, with an id of one's own choice or without, and how that is
 * answered.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

static char *all_sessions[] = {(char[]){"*"}, NULL};

static bool is_there(const struct life *l)
{
    return l && (l->state == LIFE_OPEN || l->state == LIFE_CLOSED);
}

/* One that nobody has, the last again, or one of a session that is there, is on its way out, or was
 * there. */
static void choose_id(struct sim *w, struct sim_call *k)
{
    const uint64_t what = sim_random(w, 8);
    if (what < 2) {
        return; /* the gateway is to choose */
    }
    if (what == 2) {
        snprintf(k->name, sizeof k->name, "h%u", w->serial - (w->serial && sim_random(w, 2)));
        w->serial++;
    } else if (what < 5 || !w->lives) {
        sim_session_name((int)sim_random(w, SIM_SESSIONS), k->name);
    } else {
        memcpy(k->name, w->life[sim_random(w, w->lives)].name, sizeof k->name);
    }
    k->call.session_id = eg_slice_cstr(k->name);
}

static void creates(struct sim *w)
{
    struct sim_call *k = sim_new_call(w, EG_CALL_CREATE);
    if (!k) {
        return;
    }
    choose_id(w, k);
    const uint64_t agent = sim_random(w, 8);
    k->sub = (int)sim_random(w, SIM_SUBS);
    k->identity = (struct eg_identity){.sub = (char *)(uintptr_t)sim_sub[k->sub],
                                       .scopes = EG_SCOPE_WRITE,
                                       .sessions = sim_random(w, 2) ? all_sessions : NULL};
    k->call.identity = &k->identity;
    k->call.audit_who = (struct eg_slice){0}; /* not an operator */
    k->call.agent = agent == 0 ? EG_LIT("nobody") : EG_LIT("a");
    if (agent == 1 && is_there(sim_life_named(w, k->call.session_id))) {
        k->call.agent = EG_LIT("b"); /* whose session that is not; nobody serves it */
    }
    sim_tell(w, "%s makes %s for agent %.*s", sim_sub[k->sub], k->name[0] ? k->name : "a session",
             (int)k->call.agent.n, k->call.agent.p);
    sim_ask(w, k);
}

void sim_creates(struct sim *w)
{
    for (uint64_t n = 1 + sim_random(w, 3); n; n--) {
        creates(w);
    }
}

static bool may_enter(const struct sim_call *k, const struct life *l)
{
    return k->identity.sessions || l->owner == k->sub;
}

/* It was made just now, for this sub, and nobody else was told so. */
static bool is_new(struct sim *w, const struct sim_call *k, struct life *l)
{
    const bool right = l && l->born == w->batches && l->state == LIFE_OPEN && !l->claimed &&
                       l->owner == k->sub && k->call.out_cursor == 0 &&
                       eg_slice_is(k->call.agent, "a");
    if (right) {
        l->claimed = true;
    }
    return right;
}

/* It was there before. */
static bool is_known(const struct sim_call *k, const struct life *l)
{
    return l && k->name[0] && l->state == LIFE_OPEN && may_enter(k, l) &&
           eg_slice_is(k->call.agent, "a") && k->call.out_cursor + 1 >= l->first + l->kept_before &&
           k->call.out_cursor <= sim_life_last(l);
}

static bool agent_may_be_unknown(const struct sim *w, const struct sim_call *k)
{
    return eg_slice_is(k->call.agent, "b") ? !w->other_known
           : eg_slice_is(k->call.agent, "a")
               ? !w->known_before || !w->known || w->forgotten == w->batches
               : true;
}

static bool agent_may_be_known(struct sim *w, const struct sim_call *k)
{
    return eg_slice_is(k->call.agent, "b") ? w->other_known
           : eg_slice_is(k->call.agent, "a")
               ? w->known_before || w->forgotten == w->batches || sim_agent_stored(w, "a")
               : false;
}

static bool on_its_way(const struct sim *w, const struct life *l)
{
    return l && (l->state == LIFE_COPYING ||
                 (l->state == LIFE_REMOVED && (!l->gone || l->gone == w->batches)));
}

void sim_judge_create(struct sim *w, const struct sim_call *k)
{
    const bool done = k->call.code == EG_CODE_NONE;
    struct life *l =
        sim_life_named(w, done ? eg_slice_cstr(k->call.out_session_id) : eg_slice_cstr(k->name));
    bool right = false;
    if (done) {
        right = (!k->name[0] || strcmp(k->name, k->call.out_session_id) == 0) &&
                (k->call.created ? is_new(w, k, l) : is_known(k, l));
    } else if (k->call.code == EG_CODE_agent_not_found) {
        right = agent_may_be_unknown(w, k);
    } else if (k->call.code == EG_CODE_storage_unavailable) {
        /* Why, unless nothing can be written: then not with what was said when it still could. */
        right = w->refuses ? !k->call.message && !k->call.retry_after_s
                           : on_its_way(w, l) && k->call.message && k->call.retry_after_s == 1;
    } else if (k->call.code == EG_CODE_auth_unauthorized) {
        right = is_there(l) && (!may_enter(k, l) || !eg_slice_is(k->call.agent, "a"));
    } else if (k->call.code == EG_CODE_session_closed) {
        right = is_there(l) && l->state == LIFE_CLOSED && may_enter(k, l);
    } else if (k->call.code == EG_CODE_rate_limited) {
        /* Another may have been the one to make it, later. */
        right = (!is_there(l) || (l->born == w->batches && !l->claimed)) &&
                sim_sessions_full(w, k->sub);
    }
    if (k->call.code != EG_CODE_agent_not_found && !agent_may_be_known(w, k)) {
        right = false;
    }
    if (!right) {
        sim_wrong(w, k, k->call.out_session_id);
    }
}
