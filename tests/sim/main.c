/*
 * sim - runs schedules of the simulator until told to stop.
 *
 *   sim [--seconds N] [--steps N] [--seed N] [--seeds FILE]
 *
 * Without --seed, seeds are 1, 2, 3 ... for the given seconds; with --seeds, those of the file (one
 * a line, kept from earlier faults). The first fault prints its seed and the end of its story;
 * exit 1.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "sim.h"

static struct sim world;

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static unsigned long batches, crashes, failures, damages, events, reloads, resumes,
    done[EG_CALL_KICK + 1];

static bool one(uint64_t seed, unsigned steps)
{
    const bool ok = sim_run(&world, seed, steps);
    if (!ok) {
        const unsigned first = world.told > SIM_STORY ? world.told - SIM_STORY : 0;
        for (unsigned i = first; i < world.told; i++) {
            printf("%s\n", world.story[i % SIM_STORY]);
        }
        printf("seed %llu, %u steps: %s\n", (unsigned long long)seed, steps, world.fault);
        fflush(stdout); /* a machine that is wrong may not survive its end */
    }
    batches += world.batches;
    crashes += world.crashes;
    failures += world.failures;
    damages += world.damages;
    events += world.events;
    reloads += world.reloads;
    resumes += world.resumes;
    for (int i = 0; i <= EG_CALL_KICK; i++) {
        done[i] += world.done[i];
    }
    sim_end(&world);
    return ok;
}

static bool from_file(const char *path, unsigned steps, unsigned long *n)
{
    char line[64];
    bool ok = true;
    FILE *f = fopen(path, "r");
    if (!f) {
        perror(path);
        return false;
    }
    while (ok && fgets(line, sizeof line, f)) {
        if (line[0] >= '0' && line[0] <= '9') {
            ok = one(strtoull(line, NULL, 10), steps);
            ++*n;
        }
    }
    fclose(f);
    return ok;
}

/* What happened in all of them. */
static void report(unsigned long n, double seconds)
{
    printf("%lu schedules in %.1f s: %lu batches, %lu failed commits, %lu crashes, "
           "%lu damaged messages, %lu events seen\n",
           n, seconds, batches, failures, crashes, damages, events);
    printf("operators: %lu sessions closed, %lu deleted, %lu copied, %lu trimmed, %lu dead turns "
           "tried "
           "again, %lu turns aborted, %lu messages, %lu agents made known, %lu forgotten, "
           "%lu disconnected, %lu revoked, %lu reloads\n",
           done[EG_CALL_CLOSE], done[EG_CALL_DELETE], done[EG_CALL_FORK], done[EG_CALL_TRIM],
           done[EG_CALL_TURN_RETRY], done[EG_CALL_ABORT], done[EG_CALL_MESSAGE],
           done[EG_CALL_AGENT_PUT], done[EG_CALL_AGENT_DELETE], done[EG_CALL_KICK],
           done[EG_CALL_REVOKE], reloads);
    printf("clients: %lu sessions asked for by HTTP, %lu resumes from what was acknowledged\n",
           done[EG_CALL_CREATE], resumes);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                            {"steps", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 'r'},
                                            {"seeds", required_argument, NULL, 'f'},
                                            {NULL, 0, NULL, 0}};
    double seconds = 10;
    unsigned steps = 400;
    uint64_t seed = 0;
    const char *file = NULL;
    unsigned long n = 0;
    struct timespec start;
    bool ok = true;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            seconds = strtod(optarg, NULL);
            break;
        case 'n':
            steps = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            file = optarg;
            break;
        default:
            return 64;
        }
    }
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT); /* damaged messages are warned of */
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (seed) {
        ok = one(seed, steps);
        n = 1;
    } else if (file) {
        ok = from_file(file, steps, &n);
    } else {
        while (ok && seconds_since(&start) < seconds) {
            ok = one(++n, steps);
        }
    }
    report(n, seconds_since(&start));
    printf("%lu passed, %d failed\n", ok ? n : n - 1, !ok);
    return !ok;
}
