/*
 * serve.c - `ebbgate serve`: the gateway as a process, from its first line to its exit code.
 *
 * Threads: the main thread only waits for signals, feeds the watchdog and looks at the disk; the
 * others are the modules'. Owns every module through struct eg_serve.
 * Happy path: configuration, start, one line on stdout, signals, drain, stop, exit 0.
 * Failure modes: see serve_start.c. SIGTERM and SIGINT drain: turns that run may end within
 * drain_timeout while /ready says 503; a second one stops at once. Either way everything that was
 * acknowledged is on disk. SIGHUP reloads.
 */
#include "app/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "app/notify.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#define TICK_MS 1000
#define DRAIN_TICK_MS 50
#define FAREWELL_MS 2000
#define STOP_MS 30000 /* for farewells, the last batch and the last checkpoint */
#define SPREAD_MS_MIN 500
#define SPREAD_MS_MAX 30000

/* Blocks the signals we act on, in this and all later threads, and opens a descriptor for them. */
static int catch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The next signal within timeout_ms; 0 when there was none. */
static int next_signal(int fd, int timeout_ms)
{
    struct signalfd_siginfo info;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) < 0 && errno != EINTR)
        return SIGTERM;
    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

static void look_at_disk(const struct eg_serve *s)
{
    static bool low;
    struct statvfs v;
    eg_serve_only_writer(&s->lock);
    if (statvfs(s->settings->data, &v) != 0)
        return;
    int64_t room = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    eg_metric_set(EG_M_disk_free_bytes, room);
    bool now = room < s->settings->min_free_bytes;
    if (now != low)
        eg_log(now ? EG_LOG_WARN : EG_LOG_INFO, now ? "disk.low" : "disk.enough", "free_bytes=%lld",
               (long long)room);
    low = now;
}

/* Feeds the watchdog while the core makes progress: a stuck core gets us restarted. */
static void feed_watchdog(const struct eg_serve *s, int64_t interval_ms)
{
    if (interval_ms <= 0)
        return;
    int64_t silent_ms = eg_clock_mono_ms() - eg_core_progress_ms(s->core);
    if (silent_ms < interval_ms / 2 || silent_ms < 2 * TICK_MS)
        eg_notify("WATCHDOG=1");
    else
        eg_log_limited(EG_LOG_ERROR, "core.stuck", "silent_ms=%lld", (long long)silent_ms);
}

/* Serves until it is told to end. */
static void wait_for_end(struct eg_serve *s)
{
    int64_t watchdog_ms = eg_notify_watchdog_ms();
    int tick = watchdog_ms > 0 && watchdog_ms / 3 < TICK_MS ? (int)(watchdog_ms / 3) + 1 : TICK_MS;
    for (;;) {
        int sig = next_signal(s->signals, tick);
        if (sig == SIGTERM || sig == SIGINT) {
            eg_log(EG_LOG_INFO, "stop.signal", "signal=%s", sig == SIGTERM ? "TERM" : "INT");
            return;
        }
        if (sig == SIGHUP) {
            eg_notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)eg_clock_mono_us());
            eg_serve_reload(s);
            eg_notify("READY=1");
        }
        feed_watchdog(s, watchdog_ms);
        look_at_disk(s);
    }
}

/* Lets open turns end. Returns false when it was cut short by another signal. */
static bool drain(struct eg_serve *s)
{
    eg_serve_only_writer(&s->lock);
    int64_t watchdog_ms = eg_notify_watchdog_ms();
    int64_t until = eg_clock_mono_ms() + s->settings->drain_timeout_ms;
    int64_t open;
    eg_metric_set(EG_M_draining, 1);
    eg_notify("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%lld",
              (long long)(s->settings->drain_timeout_ms + STOP_MS) * 1000);
    eg_listener_draining(s->public_listener);
    eg_reactors_drain(s->reactors);
    eg_core_drain(s->core);
    while ((open = eg_core_open_turns(s->core)) > 0 && eg_clock_mono_ms() < until) {
        int sig = next_signal(s->signals, DRAIN_TICK_MS);
        if (sig == SIGTERM || sig == SIGINT) {
            eg_log(EG_LOG_INFO, "stop.now", "open_turns=%lld", (long long)open);
            return false;
        }
        feed_watchdog(s, watchdog_ms);
    }
    eg_log(EG_LOG_INFO, "stop.drained", "open_turns=%lld", (long long)open);
    return true;
}

static int64_t spread_ms(void)
{
    int64_t n = eg_metric_get(EG_M_connections);
    return n < SPREAD_MS_MIN ? SPREAD_MS_MIN : n > SPREAD_MS_MAX ? SPREAD_MS_MAX : n;
}

static void announce(const struct eg_serve *s)
{
    eg_serve_only_writer(&s->lock);
    const char *public = eg_listener_bound(s->public_listener);
    const char *admin = eg_listener_bound(s->admin_listener);
    char epoch[EG_EPOCH_MAX + 1];
    eg_core_epoch(s->core, 0, epoch);
    printf("ebbgate ready public=%s admin=%s\n", public, admin);
    fflush(stdout);
    eg_log(EG_LOG_INFO, "ready", "public=%s" EG_F "admin=%s" EG_F "data=%s" EG_F "epoch=%s", public,
           admin, s->settings->data, epoch);
    if (strncmp(s->settings->admin, "127.", 4) != 0)
        eg_log(EG_LOG_WARN, "admin.exposed", "address=%s" EG_F "hint=%s", admin,
               "the admin listener is meant for loopback");
    eg_notify("READY=1\nSTATUS=serving\nMAINPID=%ld", (long)getpid());
}

static int serve(struct eg_serve *s)
{
    s->signals = catch_signals();
    if (s->signals < 0) {
        eg_complain(s->cmd, "cannot wait for signals: %s", strerror(errno));
        return EG_EXIT_INTERNAL;
    }
    int code = eg_serve_start(s);
    if (code == EG_PROCEED) {
        look_at_disk(s);
        eg_http_started(s->http);
        announce(s);
        wait_for_end(s);
        bool calm = drain(s);
        eg_reactors_farewell(s->reactors, spread_ms(), calm ? FAREWELL_MS : FAREWELL_MS / 10);
        code = EG_EXIT_OK;
    }
    eg_serve_stop(s);
    if (code == EG_EXIT_OK)
        eg_log(EG_LOG_INFO, "stopped", NULL);
    close(s->signals);
    return code;
}

static int run(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_serve s = {
        .cmd = cmd, .args = {.env = environ}, .lock = {PTHREAD_MUTEX_INITIALIZER}, .signals = -1};
    struct eg_config c;
    enum eg_log_level level = EG_LOG_INFO;
    enum eg_log_format format = EG_LOG_AUTO;
    const struct eg_opt opts[] = {
        {"config", 'c', EG_OPT_TEXT, "FILE",
         "the configuration file, with conf.d/*.conf beside it (" EG_CONFIG_DEFAULT ")",
         &s.args.file, 0, 0},
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, &s.args, NULL, 0, NULL, NULL, NULL);
    if (code == EG_PROCEED)
        code = eg_cli_config(cmd, &s.args, &c);
    if (code != EG_PROCEED)
        return code;
    if (eg_log_level_parse(c.settings->log_level, &level) == EG_OK &&
        eg_log_format_parse(c.settings->log_format, &format) == EG_OK)
        eg_log_setup(level, format);
    eg_serve_unshared(&s.lock);
    s.settings = eg_settings_ref(c.settings);
    eg_config_free(&c);
    code = serve(&s);
    eg_settings_unref(s.settings);
    return code;
}

const struct eg_command eg_cmd_serve = {
    .name = "serve",
    .summary = "Run the gateway",
    .usage =
        "[-c FILE] [--data DIR] [--listen ADDR:PORT] [--admin ADDR:PORT] [--SETTING VALUE ...]",
    .details =
        "Prints one line on stdout when it serves:\n"
        "    ebbgate ready public=HOST:PORT admin=HOST:PORT\n"
        "Logs go to stderr. Port 0 takes any free port. SIGTERM lets open turns end, a second one\n"
        "stops at once; SIGHUP reads configuration and keys again.\n"
        "Exit codes: 0 told to stop, 64 usage, 70 internal, 75 try again, 78 configuration.\n",
    .run = run,
    .group = "The gateway"};
