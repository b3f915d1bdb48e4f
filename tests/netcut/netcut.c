/*
 * netcut.c - the torture's clients and workers behind a bad network; same check.
 *
 *   netcut [--seconds N] [--seed N] [--pace N] [--drop PERCENT]
 *
 * Without --drop: a proxy of the tests' own (proxy.h) delays, splits, stalls, reorders and cuts;
 * the gateway is restarted and killed now and then. With --drop: a network namespace of its own,
 * where nftables drops that share of all packets on loopback; skipped where that is not permitted.
 */
#include "../torture/torture.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy.h"

#define CHECK_US INT64_C(300000000)

static struct proxy_state *state;

static void skip(const char *why)
{
    printf("skipped: %s%s%s\n", why, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(0);
}

static bool loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo"};
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &r) == 0;
    r.ifr_flags |= IFF_UP;
    ok = ok && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static int nft(const char *rules)
{
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        execl("/usr/sbin/nft", "nft", rules, (char *)NULL); /* not in everybody's PATH */
        execlp("nft", "nft", rules, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void own_network(void)
{
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
        skip("no network namespace");
    }
    if (!loopback_up()) {
        skip("loopback does not come up");
    }
    errno = 0;
    if (nft("add table inet loss; add chain inet loss in { type filter hook input priority 0; }") !=
        0) {
        skip("nft is missing or has no rights");
    }
}

static void drop(int percent)
{
    char rules[200];
    if (nft("flush chain inet loss in") != 0) {
        load_die("nft: flush");
    }
    snprintf(rules, sizeof rules,
             "add rule inet loss in meta l4proto tcp numgen random mod 100 < %d counter drop",
             percent);
    if (percent && nft(rules) != 0) {
        skip("nft has no random numbers");
    }
}

static void restart(bool clean)
{
    if (clean && tl_gate_stop(t.gate, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(t.gate));
    }
    tl_gate_kill(t.gate);
    if (!tl_gate_start(t.gate)) {
        load_die("the gateway does not start: %s", tl_gate_error(t.gate));
    }
    __atomic_store_n(&state->target, tl_gate_port(t.gate), __ATOMIC_SEQ_CST);
}

static void finish(void)
{
    t_hang_up();
    if (tl_gate_stop(t.gate, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(t.gate));
    }
    char *reports = tl_gate_reports(t.gate);
    if (reports) {
        load_die("sanitizer: %s", reports);
    }
    tl_gate_free(t.gate);
}

/* Long runs look at the log now and then, while the network is good. */
static bool look_at_log(int64_t *next)
{
    const bool due = load_now_us() >= *next;
    *next += due ? CHECK_US : 0;
    return due;
}

static void behind_proxy(int seconds)
{
    static const char *const excuses[] = {"\"draining\"", NULL};
    const int64_t end = load_now_us() + (int64_t)seconds * 1000000;
    int64_t check_at = load_now_us() + CHECK_US;
    int restarts = 0;
    t.excuses = excuses;
    const pid_t proxy = proxy_start(state, t.rng, &t.port);
    if (proxy < 0) {
        load_die("no proxy: %s", strerror(errno));
    }
    t_start(NULL);
    __atomic_store_n(&state->target, tl_gate_port(t.gate), __ATOMIC_SEQ_CST);
    for (int round = 0; load_now_us() < end; round++) {
        t_play(1000000 + (int64_t)t_random(1500000));
        if (round % 3 == 2) {
            restart(t_random(2));
            restarts++;
        }
        if (look_at_log(&check_at)) {
            __atomic_store_n(&state->calm, 1, __ATOMIC_SEQ_CST);
            t_check();
            __atomic_store_n(&state->calm, 0, __ATOMIC_SEQ_CST);
        }
    }
    __atomic_store_n(&state->calm, 1, __ATOMIC_SEQ_CST);
    t_check();
    printf("proxy, %d s: %" PRId64 " connections, %" PRId64 " cut, %" PRId64 " reset, %" PRId64
           " stalled, %" PRId64 " deliveries late, %" PRId64
           " in pieces, %d restarts; %zu accepted messages, %lu sights of events, %lu repeats; "
           "nothing lost, nothing twice\n",
           seconds, state->connections, state->cuts, state->resets, state->stalls, state->delays,
           state->pieces, restarts, t.promise_count, t.events, t.repeats);
    if (state->cuts + state->resets < seconds) {
        load_die("the network was hardly bad");
    }
    finish();
    kill(proxy, SIGKILL);
    waitpid(proxy, NULL, 0);
}

static void with_loss(int seconds, int percent)
{
    own_network();
    t_start(NULL);
    const int64_t end = load_now_us() + (int64_t)seconds * 1000000;
    int64_t check_at = load_now_us() + CHECK_US;
    while (load_now_us() < end) {
        drop(1 + (int)t_random((uint64_t)percent));
        t_play(1000000);
        if (look_at_log(&check_at)) {
            drop(0);
            t_check();
        }
    }
    drop(0);
    t_check();
    printf("packets, %d s: up to %d of 100 dropped; %zu accepted messages, %lu sights of events; "
           "nothing lost, nothing twice\n",
           seconds, percent, t.promise_count, t.events);
    finish();
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"drop", required_argument, NULL, 'd'},
                                            {"pace", required_argument, NULL, 'p'},
                                            {NULL, 0, NULL, 0}};
    int seconds = 20, percent = 0;
    t.rng = (uint64_t)load_now_us();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'n') {
            seconds = atoi(optarg);
        } else if (c == 's') {
            t.rng = strtoull(optarg, NULL, 10);
        } else if (c == 'd') {
            percent = atoi(optarg);
        } else if (c == 'p') {
            t.pace = atoi(optarg);
        } else {
            return 64;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %" PRIu64 "\n", t.rng);
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (state == MAP_FAILED) {
        load_die("mmap: %s", strerror(errno));
    }
    if (percent) {
        with_loss(seconds, percent);
    } else {
        behind_proxy(seconds);
    }
    puts("1 passed, 0 failed");
    return 0;
}
