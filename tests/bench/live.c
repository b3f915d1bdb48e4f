/*
 * live.c - see live.h.
 *
 * A child process, so that what its parent does meanwhile delays no answer. They share a page: the
 * parent says which phase it is, the child leaves its figures there when the phase ends.
 */
#include "live.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 20
#define EVERY_US 20000 /* each of them */
#define PHASES_MAX 2

struct live {
    pid_t pid;
    int ready, phase; /* atomic; phase PHASES_MAX: end */
    double p99_us[PHASES_MAX];
};

struct one {
    struct lc c; /* first */
    bool joined;
    int64_t asked_at, act_at;
};

static struct one ones[CLIENTS];
static struct lat waits[PHASES_MAX];
static int phase, joined;

static void on_open(struct lc *c)
{
    load_sendf(c, "{\"type\":\"hello\",\"agent_id\":\"bench\"}");
}

static void on_text(struct lc *c, const char *text, size_t n)
{
    struct one *k = (struct one *)c;
    if (load_has(text, n, "\"hello_ok\"")) {
        k->joined = true;
        joined++;
    } else if (load_has(text, n, "\"accepted\"")) {
        lat_add(&waits[phase], load_now_us() - k->asked_at);
        k->asked_at = 0;
    } else if (!load_has(text, n, "\"ping\"")) {
        load_die("live: %.*s", (int)n, text);
    }
}

static void act(struct one *k, int64_t now)
{
    if (k->c.closed) {
        load_die("live: dropped with %u", k->c.close_code);
    }
    if (k->joined && k->asked_at == 0 && k->act_at <= now) {
        k->asked_at = now;
        k->act_at = now + EVERY_US;
        load_sendf(&k->c, "{\"type\":\"message\",\"content\":\"still here\"}");
    }
}

static void run(struct live *l, const struct load_target *target)
{
    static const bool never = false;
    load_forked();
    for (int i = 0; i < CLIENTS; i++) {
        ones[i] = (struct one){.c = {.on_open = on_open, .on_text = on_text}, .act_at = i};
        load_connect(&ones[i].c, target);
    }
    while ((phase = __atomic_load_n(&l->phase, __ATOMIC_ACQUIRE)) < PHASES_MAX) {
        for (int i = 0; i < CLIENTS; i++) {
            act(&ones[i], load_now_us());
        }
        load_run(&never, 500);
        __atomic_store_n(&l->ready, joined == CLIENTS, __ATOMIC_RELEASE);
    }
    for (int i = 0; i < PHASES_MAX; i++) {
        l->p99_us[i] = lat_q(&waits[i], 0.99);
    }
}

struct live *live_start(const struct load_target *target)
{
    struct live *l =
        mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (l == MAP_FAILED) {
        load_die("live: no memory");
    }
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(l, target);
        _exit(0);
    }
    l->pid = pid;
    while (!__atomic_load_n(&l->ready, __ATOMIC_ACQUIRE)) {
        if (waitpid(pid, NULL, WNOHANG) != 0) {
            load_die("live: ended early");
        }
        usleep(1000);
    }
    return l;
}

void live_next(struct live *l)
{
    __atomic_add_fetch(&l->phase, 1, __ATOMIC_ACQ_REL);
}

void live_end(struct live *l, double *quiet_us, double *meanwhile_us)
{
    int status = 1;
    live_next(l);
    if (waitpid(l->pid, &status, 0) != l->pid || status != 0) {
        load_die("live: did not go as it should");
    }
    *quiet_us = l->p99_us[0];
    *meanwhile_us = l->p99_us[1];
    munmap(l, sizeof *l);
}
