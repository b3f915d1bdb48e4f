/* test_edge_tables.c - who follows which session, and who is due when, against plain lists. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "edge/peer.h"

#define PEERS 400

static uint32_t state = 12345;

static uint32_t dice(uint32_t n)
{
    state = state * 1664525 + 1013904223;
    return (state >> 8) % n;
}

Test(edge_tables, each_session_finds_those_that_follow_it)
{
    static struct eg_peer peer[PEERS];
    struct eg_follows follows = {0};
    for (int round = 0; round < 20000; round++) {
        struct eg_peer *const p = &peer[dice(PEERS)];
        if (p->sid) {
            eg_follow_remove(&follows, p);
        } else {
            p->sid = 1 + dice(PEERS);
            cr_assert_eq(eg_follow_add(&follows, p), EG_OK);
        }
        const int64_t sid = 1 + dice(PEERS);
        int want = 0, got = 0;
        for (int i = 0; i < PEERS; i++) {
            want += peer[i].sid == sid;
        }
        for (const struct eg_peer *f = eg_follow_first(&follows, sid); f; f = f->next) {
            cr_assert_eq(f->sid, sid);
            got++;
        }
        cr_assert_eq(got, want, "session %lld in round %d", (long long)sid, round);
    }
    free(follows.table);
}

Test(edge_tables, the_earliest_alarm_comes_first)
{
    static struct eg_peer peer[PEERS];
    struct eg_alarms alarms = {0};
    for (int i = 0; i < PEERS; i++) {
        peer[i].alarm = UINT32_MAX;
    }
    for (int round = 0; round < 20000; round++) {
        struct eg_peer *const p = &peer[dice(PEERS)];
        if (dice(4) == 0) {
            eg_alarm_clear(&alarms, p);
        } else {
            cr_assert_eq(eg_alarm_set(&alarms, p, 1 + dice(1000)), EG_OK);
        }
        const struct eg_peer *first = NULL;
        for (int i = 0; i < PEERS; i++) {
            if (peer[i].alarm != UINT32_MAX && (!first || peer[i].due_ms < first->due_ms)) {
                first = &peer[i];
            }
        }
        cr_assert_eq(eg_alarm_wait(&alarms, 0), first ? (int)first->due_ms : -1, "round %d", round);
    }
    int64_t last = 0;
    for (const struct eg_peer *p; (p = eg_alarm_due(&alarms, 1000)); last = p->due_ms) {
        cr_assert_geq(p->due_ms, last);
    }
    cr_expect_eq(eg_alarm_wait(&alarms, 0), -1);
    free(alarms.heap);
}
