/*
 * fuzz_sim.c - the simulator (tests/sim) with its choices taken from the input instead of a random
 * source: clients, workers, operators, failing commits, crashes and a jumping clock around the real
 * state machine, so that coverage leads to schedules that chance does not find. All that the
 * simulator holds true is held here; a fault prints the end of its story.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../sim/sim.h"
#include "base/log.h"

#define LAST_LINES 60

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sim world;
    if (size > 4096) {
        return 0;
    }
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    if (!sim_play(&world, data, size)) {
        for (unsigned i = world.told > LAST_LINES ? world.told - LAST_LINES : 0; i < world.told;
             i++) {
            fprintf(stderr, "%s\n", world.story[i % SIM_STORY]);
        }
        fprintf(stderr, "fault: %s\n", world.fault);
        abort();
    }
    sim_end(&world);
    return 0;
}
