#include "edge/selftest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/lock.h"
#include "edge/adopt.h"

#define WAIT_MS 5000
#define ROUNDS 8
#define IDENTITY_BYTES 32
#define ANSWER_MAX 1024
/* RFC 6455 1.3: a key and the answer it must get. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

EG_MUTEX(selftest);

struct eg_selftest {
    char key[EG_SELFTEST_KEY_CHARS + 1];
    struct selftest_mutex lock;
    pthread_cond_t came;
    struct eg_adopted *waiting EG_GUARDED_BY(selftest_mutex); /* taken over and not asked for yet */
};

enum eg_err eg_selftest_new(struct eg_selftest **out)
{
    uint8_t random[EG_SELFTEST_KEY_CHARS / 2];
    struct eg_selftest *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return EG_ENOMEM;
    }
    eg_random(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++) {
        snprintf(t->key + 2 * i, 3, "%02x", random[i]);
    }
    selftest_init(&t->lock);
    eg_cond_init(&t->came);
    *out = t;
    return EG_OK;
}

void eg_selftest_free(struct eg_selftest *t)
{
    if (t == NULL) {
        return;
    }
    selftest_unshared(&t->lock);
    eg_adopted_free(t->waiting);
    pthread_cond_destroy(&t->came);
    selftest_destroy(&t->lock);
    free(t);
}

const char *eg_selftest_key(const struct eg_selftest *t)
{
    return t->key;
}

void eg_selftest_take(void *test, struct eg_adopted *a)
{
    struct eg_selftest *t = test;
    selftest_lock(&t->lock);
    struct eg_adopted *old = t->waiting;
    t->waiting = a;
    pthread_cond_signal(&t->came);
    selftest_unlock(&t->lock);
    eg_adopted_free(old);
}

/* The socket taken over next; NULL when none comes in time. */
static struct eg_adopted *await_adopted(struct eg_selftest *t)
{
    const struct timespec until = eg_cond_until(WAIT_MS);
    int late = 0;
    selftest_lock(&t->lock);
    while (t->waiting == NULL && late == 0) {
        late = selftest_wait_until(&t->came, &t->lock, &until);
    }
    struct eg_adopted *a = t->waiting;
    t->waiting = NULL;
    selftest_unlock(&t->lock);
    return a;
}

int eg_selftest_connect(const char *host, uint16_t port, int ms)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    int error = 0;
    socklen_t n = sizeof error;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    const bool any = strcmp(host, "0.0.0.0") == 0;
    if (inet_pton(AF_INET, any ? "127.0.0.1" : host, &sa.sin_addr) == 1 &&
        (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0 ||
         (errno == EINPROGRESS && poll(&p, 1, ms) == 1 &&
          getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0))) {
        return fd;
    }
    close(fd);
    return -1;
}

/* Reads until n bytes are there or, with end, until the text ends with it. Bytes read; what the
 * peer sends later than WAIT_MS is not waited for. */
static size_t read_some(int fd, char *buf, size_t n, const char *end)
{
    const int64_t until = eg_clock_mono_ms() + WAIT_MS;
    const size_t end_n = end != NULL ? strlen(end) : 0;
    size_t got = 0;
    while (got < n) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int64_t left = until - eg_clock_mono_ms();
        /* byte by byte where the end matters, so that nothing behind it is taken */
        const size_t want = end != NULL ? 1 : n - got;
        if (left <= 0 || poll(&p, 1, (int)left) != 1) {
            break;
        }
        const ssize_t r = recvfrom(fd, buf + got, want, MSG_DONTWAIT, NULL, NULL);
        if (r <= 0) {
            break;
        }
        got += (size_t)r;
        if (end_n > 0 && got >= end_n && memcmp(buf + got - end_n, end, end_n) == 0) {
            break;
        }
    }
    return got;
}

static bool send_request(int fd, const struct eg_selftest *t, bool offer)
{
    char request[512];
    const int n = snprintf(
        request, sizeof request,
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: " KEY "\r\n" EG_SELFTEST_HEADER ": %s\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n%s\r\n",
        t->key, offer ? "Sec-WebSocket-Protocol: other, " EG_SUBPROTOCOL " , last\r\n" : "");
    return send(fd, request, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

/* What is wrong with the answer to the upgrade; NULL when it is right. */
static const char *judge_answer(int fd, bool offered)
{
    char answer[ANSWER_MAX + 1];
    const size_t n = read_some(fd, answer, ANSWER_MAX, "\r\n\r\n");
    answer[n] = '\0';
    if (strncmp(answer, "HTTP/1.1 101 ", 13) != 0) {
        return "the upgrade was not granted";
    }
    if (strcasestr(answer, "\r\nSec-WebSocket-Accept: " ACCEPT "\r\n") == NULL) {
        return "the upgrade's key was answered wrong";
    }
    if (strcasestr(answer, "\r\nSec-WebSocket-Extensions:") != NULL) {
        return "the library granted an extension";
    }
    const bool granted = strcasestr(answer, "\r\nSec-WebSocket-Protocol:") != NULL;
    const bool right =
        strcasestr(answer, "\r\nSec-WebSocket-Protocol: " EG_SUBPROTOCOL "\r\n") != NULL;
    return granted == offered && right == offered ? NULL : "the subprotocol was answered wrong";
}

/* Sends identity one way and looks whether it comes out at the other end. */
static bool passes(int from, int to)
{
    uint8_t identity[IDENTITY_BYTES];
    char out[IDENTITY_BYTES];
    eg_random(identity, sizeof identity);
    return send(from, identity, sizeof identity, MSG_NOSIGNAL) == IDENTITY_BYTES &&
           read_some(to, out, sizeof out, NULL) == sizeof out &&
           memcmp(out, identity, sizeof out) == 0;
}

static const char *round_of(struct eg_selftest *t, const char *host, uint16_t port, bool offer)
{
    const char *fault = NULL;
    struct eg_adopted *a = NULL;
    const int fd = eg_selftest_connect(host, port, WAIT_MS);
    if (fd < 0) {
        return "the listener cannot be reached";
    }
    fault = send_request(fd, t, offer) ? judge_answer(fd, offer) : "the listener does not read";
    if (fault == NULL && (a = await_adopted(t)) == NULL) {
        fault = "the socket was not handed over";
    }
    /* twice each way: the second time nothing of the library may stand between */
    for (int i = 0; i < 2 && fault == NULL; i++) {
        if (!passes(fd, a->fd) || !passes(a->fd, fd)) {
            fault = "another socket was handed over";
        }
    }
    eg_adopted_free(a);
    close(fd);
    return fault;
}

enum eg_err eg_selftest_run(struct eg_selftest *t, const char *host, uint16_t port, char *why,
                            size_t why_size)
{
    for (int i = 0; i < ROUNDS; i++) {
        const char *fault = round_of(t, host, port, i % 2 == 0);
        if (fault != NULL) {
            snprintf(why, why_size, "adoption does not work with this libcivetweb: %s", fault);
            return EG_ECORRUPT;
        }
    }
    return EG_OK;
}
