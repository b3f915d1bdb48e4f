/*
 * hostile.c - twenty well-behaved clients beside hostile ones.
 *
 *   hostile [--seconds N] [--scale N] [ATTACK...]
 *
 * The good clients publish and wait for their answers all the time; printed is the 99th percentile
 * of that wait, alone and beside each attack, and the gateway's memory beside the bound that its
 * configuration implies. Asserted: nobody good is dropped, refused or left waiting for 10 s, memory
 * stays under the bound, the gateway lives, stops cleanly, and its log is whole. The wait itself is
 * not asserted: attackers and gateway share the processors of this machine.
 */
#include "../bench/load.h"
#include "tl_gate.h"

#include "attack.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GOOD 20
#define EVERY_US 20000
#define PATIENCE_US 10000000
#define MIB 1048576L
/* What the configuration below allows. */
#define MAX_PAYLOAD (1L << 20)
#define MAX_BUFFERED (2L << 20)
#define FIXED (192 * MIB) /* database cache, one batch with its events, threads */

static const char config[] = "agents = [\"a\"];\n"
                             "max_buffered_bytes = 2097152;\n"
                             "handshake_timeout = \"2s\";\n"
                             "max_connections_per_address = 500;\n"
                             "max_handshakes_per_address = 64;\n"
                             "handshake_rate = 500;\n"
                             "message_rate = 1000;\n"
                             "byte_rate = 16777216;\n"
                             "max_queued_turns = 1000000;\n"
                             "log_level = \"error\";\n";

struct good {
    struct lc c; /* first */
    int number;
    bool joined, waiting;
    int64_t asked_at, act_at;
    uint64_t accepted;
};

static struct good good[GOOD];
static struct lat waits;
static struct load_target target;

static void on_text(struct lc *c, const char *text, size_t n)
{
    struct good *k = (struct good *)c;
    const size_t head = n < 60 ? n : 60;
    if (load_has(text, head, "\"hello_ok\"")) {
        k->joined = true;
    } else if (load_has(text, head, "\"accepted\"")) {
        lat_add(&waits, load_now_us() - k->asked_at);
        k->waiting = false;
        k->accepted++;
        if ((uint64_t)load_int(text, n, "\"cursor\":") != k->accepted) {
            load_die("good client %d: cursor %" PRId64 " for message %" PRIu64, k->number,
                     load_int(text, n, "\"cursor\":"), k->accepted);
        }
    } else if (load_has(text, head, "error\"")) {
        load_die("good client %d: %.*s", k->number, (int)n, text);
    }
}

static void on_open(struct lc *c)
{
    struct good *k = (struct good *)c;
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"good-%d\",\"create\":true}",
               k->number);
}

static void play(int64_t us)
{
    static const bool never = false;
    const int64_t end = load_now_us() + us;
    for (int64_t now; (now = load_now_us()) < end;) {
        for (int i = 0; i < GOOD; i++) {
            struct good *k = &good[i];
            if (k->c.closed) {
                load_die("good client %d was dropped, code %u", i, k->c.close_code);
            }
            if (k->waiting && now - k->asked_at > PATIENCE_US) {
                load_die("good client %d waits for 10 s", i);
            }
            if (k->joined && !k->waiting && k->act_at <= now) {
                k->waiting = true;
                k->asked_at = now;
                k->act_at = now + EVERY_US;
                load_sendf(&k->c, "{\"type\":\"message\",\"content\":\"hello from %d\"}", i);
            }
        }
        load_run(&never, 500);
    }
}

static void come_in(struct tl_gate *g)
{
    static const struct tl_claims claims = {.sub = "good", .scope = "read write"};
    target = (struct load_target){tl_gate_port(g), "/ws", tl_gate_token(g, &claims)};
    for (int i = 0; i < GOOD; i++) {
        good[i] = (struct good){.number = i, .c = {.on_text = on_text, .on_open = on_open}};
        load_connect(&good[i].c, &target);
    }
    play(300000);
}

static double p99(double *p50, size_t *n)
{
    const double q = lat_q(&waits, 0.99) / 1000;
    *p50 = lat_q(&waits, 0.5) / 1000;
    *n = waits.n;
    lat_free(&waits);
    return q;
}

/* Plays while the attack runs; returns the highest memory seen. */
static long beside(pid_t attacker, struct tl_gate *g)
{
    long peak = 0;
    while (waitpid(attacker, NULL, WNOHANG) == 0) {
        play(50000);
        const long rss = tl_gate_rss(g);
        peak = rss > peak ? rss : peak;
        if (!tl_gate_running(g)) {
            load_die("the gateway ended with %d", tl_gate_wait(g, 0));
        }
    }
    return peak;
}

static bool wanted(const char *name, char **names)
{
    bool any = !*names;
    for (; *names; names++) {
        any = any || strcmp(*names, name) == 0;
    }
    return any;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 'n'},
                                            {"scale", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    static const struct tl_claims bad = {.sub = "bad", .scope = "read write"};
    const struct tl_gate_opts o = {.config = config};
    struct attack_at at = {.seconds = 2, .scale = 1};
    double p50, quiet;
    size_t n;
    int ran = 0, over = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'n') {
            at.seconds = atoi(optarg);
        } else if (c == 's') {
            at.scale = atoi(optarg);
        } else {
            return 64;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct tl_gate *g = tl_gate_new(&o);
    if (!g) {
        load_die("the gateway does not start");
    }
    at.port = tl_gate_port(g);
    at.token = tl_gate_token(g, &bad);
    come_in(g);
    lat_free(&waits);
    play((int64_t)at.seconds * 1000000);
    const long alone = tl_gate_rss(g);
    quiet = p99(&p50, &n);
    printf("%-13s p50 %6.2f ms  p99 %7.2f ms               memory %4ld MiB  (%zu messages)\n",
           "alone", p50, quiet, alone / MIB, n);
    for (size_t i = 0; attack_name(i); i++) {
        if (!wanted(attack_name(i), argv + optind)) {
            continue;
        }
        const long bound =
            FIXED + (attack_conns(i, at.scale) + GOOD) * (MAX_PAYLOAD + MAX_BUFFERED);
        const long peak = beside(attack_start(i, &at), g);
        const double q = p99(&p50, &n);
        printf("%-13s p50 %6.2f ms  p99 %7.2f ms = %5.1f x  memory %4ld of %4ld MiB  (%zu) %s\n",
               attack_name(i), p50, q, q / quiet, peak / MIB, bound / MIB, n, attack_text(i));
        over += q > 3 * quiet;
        ran++;
        if (peak > bound) {
            load_die("%s: memory is over the bound", attack_name(i));
        }
        play(300000); /* what is left of it goes */
        lat_free(&waits);
    }
    play((int64_t)at.seconds * 500000);
    const double after = p99(&p50, &n);
    printf("%-13s p50 %6.2f ms  p99 %7.2f ms = %5.1f x  memory %4ld MiB\n", "afterwards", p50,
           after, after / quiet, tl_gate_rss(g) / MIB);
    for (int i = 0; i < GOOD; i++) {
        load_close(&good[i].c);
    }
    const char *args[] = {"verify", "--data", tl_gate_dir(g), NULL};
    char *out = NULL;
    if (tl_gate_stop(g, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(g));
    }
    if (tl_gate_run(g, args, &out, NULL, 120000) != 0) {
        load_die("verify: %s", out ? out : "");
    }
    char *reports = tl_gate_reports(g);
    if (reports) {
        load_die("sanitizer: %s", reports);
    }
    printf(
        "%d attacks, %d of them above 3 x the quiet 99th percentile; nobody good dropped, the log "
        "whole\n%d passed, 0 failed\n",
        ran, over, ran);
    tl_gate_free(g);
    return 0;
}
