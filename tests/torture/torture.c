/*
 * torture.c - kills the daemon at random instants under the load of play.c. See torture.h.
 *
 *   torture [--kills N] [--seed N]
 */
#include "torture.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static void kill_and_restart(void)
{
    tl_gate_kill(t.gate);
    t.kills++;
    t_hang_up();
    if (!tl_gate_start(t.gate)) {
        load_die("the gateway does not start after kill %lu: %s", t.kills, tl_gate_error(t.gate));
    }
    t_aim();
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"kills", required_argument, NULL, 'k'},
                                            {"seed", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    unsigned long kills = 50;
    t.rng = (uint64_t)load_now_us();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'k') {
            kills = strtoul(optarg, NULL, 10);
        } else if (c == 's') {
            t.rng = strtoull(optarg, NULL, 10);
        } else {
            return 64;
        }
    }
    printf("seed %llu\n", (unsigned long long)t.rng);
    t_start(NULL);
    for (unsigned long i = 0; i < kills; i++) {
        t_play(20000 + (int64_t)t_random(i % 10 == 9 ? 1500000 : 200000));
        kill_and_restart();
        if (i % 50 == 49) {
            t_check();
        }
    }
    t_check();
    printf("%lu kills: %zu accepted messages, %lu sights of events, %lu repeats, %lu aborts; "
           "nothing lost, "
           "nothing twice\n1 passed, 0 failed\n",
           t.kills, t.promise_count, t.events, t.repeats, t.aborts);
    if (tl_gate_stop(t.gate, 30000) != 0) {
        load_die("the gateway does not stop");
    }
    char *reports = tl_gate_reports(t.gate);
    if (reports) {
        load_die("sanitizer: %s", reports);
    }
    tl_gate_free(t.gate);
    return 0;
}
