/*
 * table.c - see table.h.
 */
#include "base/table.h"

#include <pthread.h>
#include <sodium.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define EXIT_RETRY 75 /* as EG_EXIT_RETRY of app/cli.h, which is above this folder */

void eg_table_fatal(const char *what)
{
    eg_log(EG_LOG_ERROR, "memory.exhausted", "what=%s" EG_F "exit=%d", what, EXIT_RETRY);
    _exit(EXIT_RETRY);
}

static struct {
    uint64_t a, b; /* odd */
    unsigned char key[crypto_shorthash_KEYBYTES];
} secret;

static void choose_secret(void)
{
    eg_random(&secret, sizeof secret);
    secret.a |= 1;
    secret.b |= 1;
}

unsigned eg_table_hash(const void *key, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint64_t h;
    pthread_once(&once, choose_secret);
    if (n == sizeof h) {
        memcpy(&h, key, sizeof h);
        h *= secret.a;
        h ^= h >> 32;
        h *= secret.b;
        return (unsigned)(h >> 32);
    }
    crypto_shorthash((unsigned char *)&h, key, n, secret.key);
    return (unsigned)h;
}
