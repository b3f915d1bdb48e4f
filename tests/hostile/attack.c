/*
 * attack.c - see attack.h.
 *
 * Each attack opens its connections up to a stage (TCP, upgraded, in a session), then goes round
 * them and on each sends some bytes of a prepared text, reads what is there or nothing at all, and
 * opens it anew when it is closed or when the attack says so. Addresses are spread over 127.66.0.0
 * where the attack comes from many. Failure modes: what does not connect is tried again.
 */
#include "attack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tl_buf.h"
#include "tl_ws.h"

enum stage { TCP, UPGRADED, JOINED };

struct attack {
    const char *name, *text;
    enum stage stage;
    int conns;
    size_t piece;      /* bytes sent at a time; 0: as many as go */
    unsigned pause_us; /* after each round over the connections */
    bool reads;        /* takes what comes */
    bool anew;         /* opened anew when all is sent */
    bool many;         /* from many addresses */
    bool scales;       /* more connections with --scale */
    void (*prepare)(struct tl_buf *out);
    const char *hello;
};

static struct attack_at at;
static size_t lead; /* sent at once, before pieces */

/* --- what they send --- */

static void frame(struct tl_buf *b, unsigned first, const void *p, size_t n)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    tl_buf_room(b, n + 16);
    b->len += tl_frame_build(b->p + b->len, first, mask, TL_LEN_AUTO, p, n);
}

static void text_frame(struct tl_buf *b, const char *text)
{
    frame(b, 0x81, text, strlen(text));
}

static void request(struct tl_buf *b, const char *token, const char *more)
{
    tl_buf_addf(b,
                "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: "
                "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                "dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s%s\r\n",
                at.port, token ? "Authorization: Bearer " : "", token ? token : "",
                token ? "\r\n" : "", more);
}

static void nothing(struct tl_buf *b)
{
    (void)b;
}

static void pings(struct tl_buf *b)
{
    for (int i = 0; i < 200; i++) {
        text_frame(b, "{\"type\":\"ping\"}");
        frame(b, 0x89, "x", 1);
    }
}

static void dribble(struct tl_buf *b)
{
    text_frame(b,
               "{\"type\":\"message\",\"content\":\"one byte at a time, and never in a hurry\"}");
}

static void slow_header(struct tl_buf *b)
{
    request(b, at.token,
            "X-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
}

static void slow_body(struct tl_buf *b)
{
    tl_buf_addf(b,
                "POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                "Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n",
                at.port, at.token);
    lead = b->len;
    for (int i = 0; i < 4000; i++) {
        tl_buf_add(b, " ", 1);
    }
}

static void giant_header(struct tl_buf *b)
{
    char line[1024];
    memset(line, 'a', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    tl_buf_addf(b, "GET /ws HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 256; i++) {
        tl_buf_addf(b, "X-%d: %s\r\n", i, line);
    }
}

static void fragments(struct tl_buf *b)
{
    static char part[4096];
    memset(part, 'a', sizeof part);
    frame(b, 0x01, "\"", 1);
    for (int i = 0; i < 512; i++) { /* two MiB, and no end */
        frame(b, 0x00, part, i % 2 ? 1 : sizeof part);
        frame(b, 0x00, "", 0);
    }
}

static void publishes(struct tl_buf *b)
{
    for (int i = 0; i < 100; i++) {
        text_frame(b,
                   "{\"type\":\"message\",\"content\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}");
    }
}

static void big_text(struct tl_buf *b, size_t n)
{
    char *text = malloc(n + 64);
    if (text) {
        strcpy(text, "{\"type\":\"message\",\"content\":\"");
        const size_t head = strlen(text);
        memset(text + head, 'b', n);
        strcpy(text + head + n, "\"}");
        text_frame(b, text);
    }
    free(text);
}

static void large(struct tl_buf *b)
{
    big_text(b, (1 << 20) - 400);
}

static void middling(struct tl_buf *b)
{
    for (int i = 0; i < 8; i++) {
        big_text(b, 16 << 10);
    }
}

static void bombs(struct tl_buf *b)
{
    static char text[(1 << 20) - 64];
    const size_t n = sizeof text - 1;
    for (size_t i = 0; i < n; i++) {
        text[i] = '[';
    }
    text_frame(b, text);
    memcpy(text, "{\"type\":\"message\",\"content\":[", 29);
    for (size_t i = 29; i < n - 2; i++) {
        text[i] = i % 2 ? '1' : ',';
    }
    memcpy(text + n - 3, "1]}", 3);
    text_frame(b, text);
    size_t at_key = 1;
    for (int k = 0; at_key < n - 32; k++) {
        at_key += (size_t)sprintf(text + at_key, "\"k%d\":1,", k);
    }
    text[0] = '{';
    strcpy(text + at_key, "\"k0\":2}");
    text_frame(b, text);
    memset(text, '\\', n);
    text[0] = '"';
    text[n] = '\0';
    text_frame(b, text);
}

static void guesses(struct tl_buf *b)
{
    char token[600];
    snprintf(token, sizeof token, "%.500s", at.token);
    token[strlen(token) - 5] = token[strlen(token) - 5] == 'A' ? 'B' : 'A';
    request(b, token, "");
    text_frame(b, "{\"type\":\"hello\",\"agent_id\":\"a\"}");
}

#define SESSION_OF(agent, id)                                                                      \
    "{\"type\":\"hello\",\"agent_id\":\"" agent "\",\"create\":true,\"session_id\":\"" id          \
    "\",\"since\":0,\"capabilities\":[\"streaming\"]}"
#define SESSION(id) SESSION_OF("a", id)

/* name, what, stage, conns, piece, pause, reads, anew, many, scales, text, hello */
static const struct attack attacks[] = {
    {"frames", "pings and empty frames as fast as they go", JOINED, 4, 0, 0, true, false, false,
     false, pings, SESSION("x-frames")},
    {"dribble", "frames of one byte at a time", JOINED, 100, 1, 10000, true, false, true, true,
     dribble, SESSION("x-dribble")},
    {"half-open", "connections on which nothing comes", TCP, 300, 0, 20000, false, false, true,
     true, nothing, NULL},
    {"slow-headers", "more slow requests than HTTP workers", TCP, 96, 1, 20000, false, true, true,
     true, slow_header, NULL},
    {"slow-bodies", "requests whose body drips", TCP, 96, 1, 20000, false, true, true, true,
     slow_body, NULL},
    {"headers", "a quarter MiB of headers", TCP, 8, 0, 1000, false, true, true, false, giant_header,
     NULL},
    {"handshakes", "upgrades from many addresses, dropped at once", UPGRADED, 32, 0, 0, false, true,
     true, true, nothing, NULL},
    {"tokens", "forged tokens from many addresses", TCP, 16, 0, 1000, true, true, true, true,
     guesses, NULL},
    {"fragments", "messages of fragments without end", JOINED, 16, 0, 0, true, false, true, false,
     fragments, SESSION("x-fragments")},
    {"bombs", "JSON of a MiB: deep, wide, many keys, escapes", JOINED, 4, 0, 0, true, false, true,
     false, bombs, SESSION("x-bombs")},
    {"publish", "messages as fast as they go", JOINED, 4, 0, 0, true, false, false, false,
     publishes, SESSION("x-publish")},
    {"large", "messages of a MiB", JOINED, 2, 0, 0, true, false, false, false, large,
     SESSION("x-large")},
    {"deaf", "publishers that never read, all in one session", JOINED, 16, 0, 1000, false, false,
     true, true, middling, SESSION("x-deaf")},
    {"resume", "everybody resumes a long session from its start, again and again", JOINED, 100, 0,
     20000, true, true, true, true, nothing, SESSION("x-publish")},
    {"million", "everybody reads a session of a million events, again and again", JOINED, 50, 0,
     1000, true, false, true, true, nothing, SESSION_OF("b", "x-million")},
    {"unread", "readers of that session that never read", JOINED, 100, 0, 20000, false, false, true,
     true, nothing, SESSION_OF("b", "x-million")},
};
#define ATTACKS (sizeof attacks / sizeof attacks[0])

const char *attack_name(size_t i)
{
    return i < ATTACKS ? attacks[i].name : NULL;
}

const char *attack_text(size_t i)
{
    return attacks[i].text;
}

int attack_conns(size_t i, int scale)
{
    return attacks[i].conns * (attacks[i].scales ? scale : 1);
}

/* --- connections --- */

struct bot {
    int fd;
    size_t sent;
    int rounds;
};

static bool wait_for(int fd, short events, int ms)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, ms) == 1;
}

static bool answered(int fd, const char *end)
{
    char in[4096];
    size_t n = 0;
    while (n < sizeof in - 1 && wait_for(fd, POLLIN, 300)) {
        const ssize_t r = recv(fd, in + n, sizeof in - 1 - n, 0);
        if (r <= 0) {
            return false;
        }
        n += (size_t)r;
        in[n] = '\0';
        if (strstr(in, end)) {
            return true;
        }
    }
    return n == sizeof in - 1;
}

static void open_bot(const struct attack *a, struct bot *k, unsigned number)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)at.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    const int one = 1;
    const struct timeval soon = {.tv_usec = 200000};
    struct tl_buf b = {0};
    from.sin_addr.s_addr = htonl(a->many ? 0x7f420001u + number % 4000 : 0x7f420001u);
    *k = (struct bot){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(k->fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    bool ok = k->fd >= 0 && bind(k->fd, (const struct sockaddr *)&from, sizeof from) == 0 &&
              connect(k->fd, (const struct sockaddr *)&to, sizeof to) == 0;
    if (ok && a->stage >= UPGRADED) {
        request(&b, at.token, "");
        ok = send(k->fd, b.p, b.len, MSG_NOSIGNAL) == (ssize_t)b.len && answered(k->fd, "\r\n\r\n");
    }
    if (ok && a->stage == JOINED) {
        b.len = 0;
        text_frame(&b, a->hello);
        ok = send(k->fd, b.p, b.len, MSG_NOSIGNAL) == (ssize_t)b.len;
    }
    tl_buf_free(&b);
    if (!ok && k->fd >= 0) {
        close(k->fd);
        k->fd = -1;
    }
}

/* False: the other side has ended it. */
static bool drain(int fd)
{
    static char in[1 << 16];
    ssize_t n = 1;
    for (int i = 0; i < 16 && n > 0; i++) {
        n = recv(fd, in, sizeof in, MSG_DONTWAIT);
    }
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static bool act(const struct attack *a, struct bot *k, const struct tl_buf *text)
{
    size_t n = text->len - k->sent;
    if (a->piece && n > a->piece) {
        n = k->sent < lead ? lead - k->sent : a->piece;
    }
    if (n > 0) {
        const ssize_t s = send(k->fd, text->p + k->sent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (s < 0 && errno != EAGAIN) {
            return false;
        }
        k->sent += s > 0 ? (size_t)s : 0;
    }
    if (a->reads && !drain(k->fd)) {
        return false;
    }
    k->rounds++;
    if (k->sent == text->len) {
        if (a->anew && k->rounds > 3) {
            return false;
        }
        k->sent = a->anew ? k->sent : 0;
    }
    return true;
}

static void run(const struct attack *a)
{
    struct tl_buf text = {0};
    const int conns = a->conns * (a->scales ? at.scale : 1);
    struct bot *bots = calloc((size_t)conns, sizeof *bots);
    const int64_t end = tl_now_ms() + at.seconds * 1000;
    unsigned number = 0;
    a->prepare(&text);
    for (int i = 0; bots && i < conns; i++) {
        bots[i].fd = -1;
    }
    while (bots && tl_now_ms() < end) {
        for (int i = 0; i < conns && tl_now_ms() < end; i++) {
            if (bots[i].fd < 0) {
                open_bot(a, &bots[i], number++);
            } else if (!act(a, &bots[i], &text)) {
                close(bots[i].fd);
                bots[i].fd = -1;
            }
        }
        if (a->pause_us) {
            usleep(a->pause_us);
        }
    }
}

void attack_aside(void)
{
    const struct sched_param none = {0};
    (void)!nice(19); /* where the policy is refused */
    (void)sched_setscheduler(0, SCHED_IDLE, &none);
}

pid_t attack_start(size_t i, const struct attack_at *where)
{
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        signal(SIGPIPE, SIG_IGN);
        at = *where;
        attack_aside();
        run(&attacks[i]);
        _exit(0);
    }
    return pid;
}
