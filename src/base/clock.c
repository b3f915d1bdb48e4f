#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static struct eg_now (*replaced)(void);

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

struct eg_now eg_clock_now(void)
{
    if (replaced) {
        return replaced();
    }
    return (struct eg_now){.mono_ms = read_us(CLOCK_MONOTONIC) / 1000,
                           .wall_ms = read_us(CLOCK_REALTIME) / 1000};
}

int64_t eg_clock_mono_ms(void)
{
    return replaced ? replaced().mono_ms : read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t eg_clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

void eg_clock_replace(struct eg_now (*now)(void))
{
    replaced = now;
}

void eg_random(void *p, size_t n)
{
    char *at = p;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            abort();
        }
        at += got;
        n -= (size_t)got;
    }
}

/* Random bytes for ids come in blocks, so that an id costs no system call. */
static void pooled_random(uint8_t *out, size_t n)
{
    static __thread uint8_t pool[1024];
    static __thread size_t left;
    if (left < n) {
        eg_random(pool, sizeof pool);
        left = sizeof pool;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = pool[--left];
        pool[left] = 0;
    }
}

void eg_uuid7(int64_t wall_ms, char out[37])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t b[16];
    pooled_random(b + 6, 10);
    for (int i = 0; i < 6; i++) {
        b[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
    }
    b[6] = (uint8_t)(0x70 | (b[6] & 0x0f));
    b[8] = (uint8_t)(0x80 | (b[8] & 0x3f));
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }
        *p++ = hex[b[i] >> 4];
        *p++ = hex[b[i] & 15];
    }
    *p = '\0';
}
