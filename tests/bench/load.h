/*
 * load.h - the load generator's engine: many WebSocket connections on one epoll loop in one thread.
 *
 * A connection sends whole text frames and calls back for each that comes; what it is used for is
 * the scenario's business. Times are microseconds of the monotonic clock. Everything exits the
 * program with a sentence when the gateway does not do what a benchmark needs.
 */
#ifndef EG_BENCH_LOAD_H
#define EG_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lc;

typedef void lc_text_fn(struct lc *c, const char *text, size_t n);
/* Takes what has come on a connection that is not WebSocket; returns how many bytes were used. */
typedef size_t lc_bytes_fn(struct lc *c, const char *bytes, size_t n);

/* One connection. */
struct lc {
    int fd;
    bool open;   /* upgraded */
    bool closed; /* by the other side */
    unsigned short close_code;
    unsigned char *in;
    size_t in_n, in_cap;
    unsigned char *out;
    size_t out_n, out_at, out_cap;
    bool waits; /* for the socket to take more */
    lc_text_fn *on_text;
    lc_bytes_fn *on_bytes; /* not WebSocket: instead of on_text */
    void (*on_open)(struct lc *c);
    void *scenario; /* the scenario's own */
    uint64_t user[6];
    char text[64];
};

int64_t load_now_us(void);
void load_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Where to connect; token may be NULL. Set before load_connect. */
struct load_target {
    int port;
    const char *path; /* "/ws" */
    const char *token;
    uint32_t from; /* address to come from; 0: any */
};
/* In a child process: forgets the parent's connections. */
void load_forked(void);

/* Starts connecting; the upgrade is sent and read by the loop. The caller owns c (zeroed before).
 */
void load_connect(struct lc *c, const struct load_target *t);
/* The same for another protocol: on_open when connected, on_bytes for what comes. */
void load_connect_bytes(struct lc *c, int port);
/* Queues bytes as they are. */
void load_bytes(struct lc *c, const void *p, size_t n);
/* Queues one text frame and tries to send. */
void load_send(struct lc *c, const char *text, size_t n);
void load_sendf(struct lc *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void load_close(struct lc *c); /* abruptly */
/* From now on SIGINT and SIGTERM end the program by exit(), at the next step of the loop. */
void load_heed_signals(void);
/* Runs the loop until *stop, or timeout_us have passed; returns whether *stop was reached. */
bool load_run(const bool *stop, int64_t timeout_us);
/* Queues one text frame without sending; load_flush sends what is queued. */
void load_flush(struct lc *c);
void load_queue(struct lc *c, const char *text, size_t n);

/* A growing list of latencies. */
struct lat {
    uint32_t *us;
    size_t n, cap;
};
void lat_add(struct lat *l, int64_t us);
/* Quantile q in microseconds; sorts. */
double lat_q(struct lat *l, double q);
void lat_free(struct lat *l);
/* Sorts v; the lower of the two in the middle. */
double load_median(double *v, int n);

/* An integer member of a JSON text, found by its key with quotes and colon; -1: none. */
int64_t load_int(const char *text, size_t n, const char *key);
bool load_has(const char *text, size_t n, const char *part);

#endif
