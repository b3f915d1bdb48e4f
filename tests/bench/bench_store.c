/*
 * bench_store.c - group commit into the real store (raw.h), as its own program for profiling.
 *
 *   bench_store [--sessions N] [--batch N] [--seconds S] [--ids 0|1] [--turns 0|1] [--preload N]
 *
 * Prints one line.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "raw.h"

static int64_t cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec +
           u.ru_stime.tv_usec;
}

static long long written_bytes(void)
{
    long long n = 0;
    char line[128];
    FILE *f = fopen("/proc/self/io", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        (void)sscanf(line, "wchar: %lld", &n);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"sessions", 1, 0, 's'},
                                            {"batch", 1, 0, 'b'},
                                            {"seconds", 1, 0, 't'},
                                            {"ids", 1, 0, 'i'},
                                            {"turns", 1, 0, 'q'},
                                            {"preload", 1, 0, 'p'},
                                            {0, 0, 0, 0}};
    struct raw_options o = {.sessions = 500, .batch = 500, .ids = true, .turns = true};
    struct lat lat = {0};
    char dir[] = "/tmp/bench_store.XXXXXX";
    char command[64];
    double seconds = 5;
    long preload = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        const long v = optarg != NULL ? atol(optarg) : -1;
        switch (c) {
        case 's':
            o.sessions = v;
            break;
        case 'b':
            o.batch = v;
            break;
        case 't':
            seconds = strtod(optarg, NULL);
            break;
        case 'i':
            o.ids = v != 0;
            break;
        case 'q':
            o.turns = v != 0;
            break;
        case 'p':
            preload = v;
            break;
        default:
            return 64;
        }
    }
    if (o.sessions < 1 || o.batch < 1 || mkdtemp(dir) == NULL) {
        return 64;
    }
    struct raw *w = raw_open(dir, &o);
    raw_run(w, preload, -1, NULL);
    const int64_t cpu = cpu_us();
    const long long io = written_bytes();
    const double rate = raw_run(w, -1, (int64_t)(seconds * 1e6), &lat);
    const double n = (double)(raw_events(w) - preload);
    printf("sessions=%ld batch=%ld ids=%d turns=%d preload=%ld events_per_s=%.0f "
           "cpu_us_per_event=%.2f written_bytes_per_event=%.0f commit_p50_us=%.0f "
           "commit_p99_us=%.0f\n",
           o.sessions, o.batch, o.ids, o.turns, preload, rate, (double)(cpu_us() - cpu) / n,
           (double)(written_bytes() - io) / n, lat_q(&lat, 0.5), lat_q(&lat, 0.99));
    lat_free(&lat);
    raw_close(w);
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) == 0 ? 0 : 1;
}
