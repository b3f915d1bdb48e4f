/*
 * acks.c - how far each sub has said that it read: that is kept with the batch in which it was said
 * unless the client was told otherwise, never goes back, and whoever comes with since "acked" goes
 * on from there.
 */
#include "sim.h"

#include <stdio.h>

#define FAR 100000 /* events that no session has */

void sim_client_acks(struct sim *w, struct sim_client *c)
{
    char json[100];
    const uint64_t what = sim_random(w, 8);
    uint64_t cursor = c->have;
    if (what == 0) {
        cursor += FAR;
        c->past = true;
    } else if (what < 4) {
        cursor = sim_random(w, c->have + 1); /* it may have said more before */
    }
    sim_tell(w, "client %d has read %s to %llu", (int)(c - w->client), c->name,
             (unsigned long long)cursor);
    snprintf(json, sizeof json, "{\"type\":\"ack\",\"cursor\":%llu}", (unsigned long long)cursor);
    if (sim_post_frame(w, c->conn, json) && cursor < FAR) {
        w->said[w->saids++] = (struct said_ack){.life = (unsigned)(sim_life(w, c->sid) - w->life),
                                                .sub = c->sub,
                                                .cursor = cursor,
                                                .conn = c->conn};
    }
}

/* What is stored of l is what was said. */
static void check_life(struct sim *w, const struct life *l)
{
    for (int sub = 0; sub < SIM_SUBS && l->state != LIFE_REMOVED; sub++) {
        uint64_t cursor = 0;
        const enum eg_err e =
            w->storage->ops->ack_get(w->storage, l->sid, eg_slice_cstr(sim_sub[sub]), &cursor);
        if ((e != EG_OK && e != EG_ENOTFOUND) || cursor != l->acked[sub]) {
            sim_fault(w, "%s: %s has read to %llu, and %llu is stored", l->name, sim_sub[sub],
                      (unsigned long long)l->acked[sub], (unsigned long long)cursor);
        }
    }
}

void sim_acks_keep(struct sim *w)
{
    /* Where the storage fails all are refused: nothing of the batch before that remains. */
    for (unsigned i = 0; i < w->saids && !w->refuses; i++) {
        const struct said_ack *a = &w->said[i];
        uint64_t *acked = &w->life[a->life].acked[a->sub];
        *acked = *acked > a->cursor ? *acked : a->cursor;
    }
    for (unsigned i = 0; i < w->saids; i++) {
        check_life(w, &w->life[w->said[i].life]);
    }
}

void sim_acks_not_stored(struct sim *w, const struct sim_client *c)
{
    unsigned i = 0;
    while (i < w->saids && (w->said[i].conn != c->conn || w->said[i].refused)) {
        i++;
    }
    if (i < w->saids) {
        w->said[i].refused = true;
    }
}

void sim_acks_refused(struct sim *w)
{
    for (unsigned i = 0; i < w->saids && w->refuses; i++) {
        for (int k = 0; k < SIM_CLIENTS && !w->said[i].refused; k++) {
            if (w->client[k].attached && w->client[k].conn == w->said[i].conn) {
                sim_fault(w, "client %d was not told that what it read is not stored", k);
            }
        }
    }
}

void sim_acks_check(struct sim *w)
{
    for (unsigned i = 0; i < w->lives; i++) {
        check_life(w, &w->life[i]);
    }
}

void sim_acks_welcome(struct sim *w, struct sim_client *c, const struct life *l,
                      const struct eg_welcome *wel)
{
    if (wel->acked < l->acked_before[c->sub] || wel->acked > l->acked[c->sub] ||
        wel->guest != (l->owner != c->sub)) {
        sim_fault(w, "client %d, as %s %s, is told that it has read %s to %llu, of %llu",
                  (int)(c - w->client), wel->guest ? "guest" : "owner", sim_sub[c->sub], l->name,
                  (unsigned long long)wel->acked, (unsigned long long)l->acked[c->sub]);
    }
    if (c->from_acked) { /* it has kept nothing but that */
        const bool reads = c->reads;
        sim_tell(w, "client %d goes on from %llu", (int)(c - w->client),
                 (unsigned long long)wel->acked);
        sim_client_forgets(w, c);
        c->reads = reads;
        c->have = wel->acked;
        c->from_acked = false;
        w->resumes++;
    }
}
