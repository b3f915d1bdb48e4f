/*
 * peers.c - the other servers' processes: started in private folders, ended by process id.
 */
#include "peers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct peer *const peers[] = {&peer_redis,    &peer_nats, &peer_mosquitto, &peer_nchan, &peer_ws,
                              &peer_socketio, NULL};

void peer_left_out(struct peer *p, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    p->away = true;
    printf("%-10s left out: %s\n", p->name, why);
    figures_fact(p->name, "left out", "%s", why);
}

void peer_file(struct peer *p, const char *name, const char *fmt, ...)
{
    char path[128];
    va_list ap;
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    FILE *f = fopen(path, "w");
    if (!f) {
        load_die("%s: %s", path, strerror(errno));
    }
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    fclose(f);
}

static int loopback(int port, struct sockaddr_in *at)
{
    *at = (struct sockaddr_in){.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        load_die("socket: %s", strerror(errno));
    }
    return fd;
}

/* A port that nobody has at this moment. */
static int free_port(void)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    const int fd = loopback(0, &at);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        load_die("bind: %s", strerror(errno));
    }
    close(fd);
    return ntohs(at.sin_port);
}

static bool listens(int port)
{
    struct sockaddr_in at;
    const int fd = loopback(port, &at);
    const bool yes = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return yes;
}

/* The first line that a shell command prints; false when it fails. */
static bool first_line(const char *command, char *out, size_t size)
{
    char rest[256];
    FILE *f = popen(command, "r");
    out[0] = 0;
    if (f && fgets(out, (int)size, f)) {
        out[strcspn(out, "\n")] = 0;
        while (fgets(rest, sizeof rest, f)) {
        }
    }
    return f && pclose(f) == 0 && out[0];
}

static void stop_all(void)
{
    for (int i = 0; peers[i]; i++) {
        peer_stop(peers[i]);
    }
}

static void child(const struct peer *p, const char **argv)
{
    char log[128];
    snprintf(log, sizeof log, "%s/log", p->dir);
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
        _exit(126);
    }
    execvp(argv[0], (char *const *)argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

bool peer_start(struct peer *p)
{
    static bool registered;
    const char *argv[32] = {0};
    char version[256], why[256] = "";
    if (!registered) {
        const char *path = getenv("PATH");
        snprintf(why, sizeof why, "%.200s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
        registered = setenv("PATH", why, 1) == 0 && atexit(stop_all) == 0;
        why[0] = 0;
    }
    if (!first_line(p->version, version, sizeof version)) {
        peer_left_out(p, "not installed (scripts/deps.sh bench)");
        return false;
    }
    figures_fact(p->name, "version", "%s", version);
    figures_fact(p->name, "acknowledgement", "%s", p->ack);
    snprintf(p->dir, sizeof p->dir, "/tmp/ebbgate-bench.XXXXXX");
    if (!mkdtemp(p->dir)) {
        load_die("%s: %s", p->dir, strerror(errno));
    }
    p->port = free_port();
    p->command(p, argv);
    p->pid = fork();
    if (p->pid == 0) {
        child(p, argv);
    }
    for (int i = 0; i < 2000; i++) {
        if (waitpid(p->pid, NULL, WNOHANG) != 0) {
            snprintf(version, sizeof version, "tail -n 1 %s/log", p->dir);
            (void)first_line(version, why, sizeof why);
            p->pid = 0;
            peer_stop(p);
            peer_left_out(p, "does not start: %s", why);
            return false;
        }
        if (listens(p->port)) {
            return true;
        }
        usleep(5000);
    }
    peer_stop(p);
    peer_left_out(p, "does not listen within 10 s");
    return false;
}

void peer_stop(struct peer *p)
{
    char command[96];
    if (p->pid > 0) {
        /* Its group is its own: workers that it started end with it. */
        kill(-p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    p->pid = 0;
    if (p->dir[0]) {
        snprintf(command, sizeof command, "rm -rf %s", p->dir);
        if (system(command) != 0) {
            fprintf(stderr, "bench: %s stays\n", p->dir);
        }
    }
    p->dir[0] = 0;
}

/* Resident bytes of its process group. */
long peer_rss(const struct peer *p)
{
    char command[128], out[64];
    snprintf(command, sizeof command,
             "ps -eo pgid=,rss= | awk '$1 == %d {n += $2} END {print n * 1024}'", (int)p->pid);
    return first_line(command, out, sizeof out) ? strtol(out, NULL, 10) : -1;
}
