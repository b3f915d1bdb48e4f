/*
 * baseline.c - what the machine gives at best: the disk alone, and the reactors alone.
 *
 * The echo server is a process of its own: the gateway's reactors behind a minimal acceptor, no
 * HTTP server, no core, no disk.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/core.h"
#include "edge/reactor.h"

#define FLUSH_LOOK_US 200000

/* Appends 512 bytes and flushes them, again and again for so long; how many a second. */
static double flushes(int64_t us, struct lat *lat)
{
    char path[] = "/var/tmp/ebbgate-bench-XXXXXX", block[512] = {0};
    const int fd = mkstemp(path);
    if (fd < 0) {
        load_die("%s: %s", path, strerror(errno));
    }
    unlink(path);
    const int64_t start = load_now_us();
    while (load_now_us() - start < us) {
        const int64_t one = load_now_us();
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block || fdatasync(fd) != 0) {
            load_die("fdatasync: %s", strerror(errno));
        }
        lat_add(lat, load_now_us() - one);
    }
    close(fd);
    return (double)lat->n * 1e6 / (double)(load_now_us() - start);
}

void bench_fdatasync(struct bench *b)
{
    struct lat lat = {0};
    const double rate = flushes(b->measure_us / 2, &lat);
    figures_who("machine");
    report("fdatasync of 512 appended bytes", rate, "flushes/s", lat_q(&lat, 0.5),
           lat_q(&lat, 0.99));
    lat_free(&lat);
}

double bench_flush_us(void)
{
    struct lat lat = {0};
    (void)flushes(FLUSH_LOOK_US, &lat);
    const double median = (double)lat_q(&lat, 0.5);
    lat_free(&lat);
    return median;
}

/* --- the echo server --- */

/* The upgrade's answer to the one key that the load generator uses (the example of RFC 6455 1.3).
 */
static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void echo_server(int listener)
{
    struct eg_settings *settings = eg_settings_new();
    struct eg_limits *limits = NULL;
    struct eg_auth *auth = NULL;
    struct eg_reactors *reactors = NULL;
    char dir[] = "/tmp/ebbgate-echo-XXXXXX";
    if (!mkdtemp(dir) || eg_limits_new(settings, &limits) != EG_OK) {
        _exit(1);
    }
    rmdir(dir);
    const struct eg_reactors_config config = {
        .count = 2, .settings = settings, .auth = auth, .limits = limits, .dir = dir};
    if (eg_reactors_new(&config, &reactors) != EG_OK ||
        eg_reactors_start(reactors, NULL) != EG_OK) {
        _exit(1);
    }
    for (;;) {
        char request[4096];
        const int one = 1;
        const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            _exit(1);
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (recv(fd, request, sizeof request, 0) <= 0 ||
            send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) {
            close(fd);
            continue;
        }
        fcntl(fd, F_SETFL, O_NONBLOCK);
        struct eg_adopted a = {
            .fd = fd, .mode = EG_CONN_ECHO, .addr = "127.0.0.1", .origin_allowed = true};
        eg_reactors_adopt(reactors, &a);
    }
}

static struct {
    bool measuring, over;
    int ready, wanted;
    bool all_ready;
    struct lat lat;
    char frame[300];
} e;

static void echo_say(struct lc *c)
{
    c->user[0] = (uint64_t)load_now_us();
    load_send(c, e.frame, sizeof e.frame);
}

static void echo_open(struct lc *c)
{
    (void)c;
    e.all_ready = ++e.ready == e.wanted;
}

static void echo_text(struct lc *c, const char *text, size_t n)
{
    (void)text;
    (void)n;
    if (e.measuring) {
        lat_add(&e.lat, load_now_us() - (int64_t)c->user[0]);
    }
    if (!e.over) {
        echo_say(c);
    }
}

static void echo_size(struct bench *b, const struct load_target *t, int n)
{
    static const bool never = false;
    char name[64];
    struct lc *conns = calloc((size_t)n, sizeof *conns);
    memset(&e, 0, sizeof e);
    memset(e.frame, 'x', sizeof e.frame);
    e.wanted = n;
    for (int i = 0; i < n; i++) {
        conns[i] = (struct lc){.on_open = echo_open, .on_text = echo_text};
        load_connect(&conns[i], t);
    }
    if (!load_run(&e.all_ready, 10000000)) {
        load_die("echo: %d of %d connected", e.ready, n);
    }
    for (int i = 0; i < n; i++) {
        echo_say(&conns[i]);
    }
    load_run(&never, b->measure_us / 3);
    e.measuring = true;
    const int64_t start = load_now_us();
    load_run(&never, b->measure_us);
    const double seconds = (double)(load_now_us() - start) / 1e6;
    e.over = true;
    snprintf(name, sizeof name, "echo, %d clients", n);
    const double rate = (double)e.lat.n / seconds;
    report(name, rate, "round trips/s", lat_q(&e.lat, 0.5), lat_q(&e.lat, 0.99));
    for (int i = 0; i < n; i++) {
        load_close(&conns[i]);
    }
    free(conns);
    lat_free(&e.lat);
}

void bench_echo(struct bench *b)
{
    static const int sizes[] = {1, 50, 500};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(listener, 1024) != 0 || getsockname(listener, (struct sockaddr *)&at, &len) != 0) {
        load_die("echo: %s", strerror(errno));
    }
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        echo_server(listener);
    }
    close(listener);
    const struct load_target t = {.port = ntohs(at.sin_port), .path = "/ws"};
    for (int i = 0; i < 3; i++) {
        echo_size(b, &t, sizes[i]);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
