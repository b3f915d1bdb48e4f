/*
 * Our side of the token interoperability test:
 *   tokens verify KEYS AUDIENCE   a token a line on stdin; a line "ok SUB" or "denied CAUSE" each
 *   tokens mint KEYS SUB          makes a key in KEYS when it has none, prints a token
 *   tokens jwks KEYS              prints the public keys
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "wire/token.h"

static int verify(const struct eg_keyring *r, const char *audience)
{
    struct eg_token_rules rules = {
        .audience = audience, .max_lifetime_s = 86400, .now_s = eg_clock_now().wall_ms / 1000};
    char *line = NULL;
    size_t size = 0;
    ssize_t n;

    while ((n = getline(&line, &size, stdin)) > 0) {
        struct eg_claims c;
        const char *cause;

        if (line[n - 1] == '\n')
            n--;
        if (eg_token_verify(r, (struct eg_slice){line, (size_t)n}, &rules, &c, &cause) == EG_OK)
            printf("ok %s\n", c.sub);
        else
            printf("denied %s\n", cause);
        eg_claims_free(&c);
    }
    free(line);
    return 0;
}

static int mint(const struct eg_keyring *r, char *sub)
{
    int64_t now = eg_clock_now().wall_ms / 1000;
    char support[] = "support", here[] = "here", star[] = "*";
    char *agents[] = {support, NULL}, *sessions[] = {star, NULL}, *aud[] = {here, NULL};
    struct eg_claims c = {.sub = sub,
                          .iat_s = now,
                          .nbf_s = now,
                          .exp_s = now + 600,
                          .scopes = EG_SCOPE_READ | EG_SCOPE_WRITE,
                          .agents = agents,
                          .sessions = sessions,
                          .aud = aud};
    struct eg_buf b = {0};
    enum eg_err e = eg_token_mint(r, &c, &b);

    if (!e)
        printf("%.*s\n", (int)b.n, b.p);
    eg_buf_free(&b);
    return e != EG_OK;
}

static int jwks(const struct eg_keyring *r)
{
    struct eg_buf b = {0};

    eg_keyring_jwks(r, &b);
    printf("%.*s\n", (int)b.n, b.p);
    eg_buf_free(&b);
    return 0;
}

int main(int argc, char **argv)
{
    struct eg_keyring *r;
    char why[300], kid[64];
    enum eg_err e;
    int status = 64;

    if (argc < 3)
        return 64;
    e = eg_keyring_load(argv[2], NULL, &r, why, sizeof(why));
    if (e == EG_ENOTFOUND && strcmp(argv[1], "mint") == 0 &&
        eg_key_generate(argv[2], eg_clock_now().wall_ms, kid, NULL, 0) == EG_OK)
        e = eg_keyring_load(argv[2], NULL, &r, why, sizeof(why));
    if (e) {
        fprintf(stderr, "tokens: %s\n", why);
        return 1;
    }
    if (strcmp(argv[1], "verify") == 0 && argc == 4)
        status = verify(r, argv[3]);
    else if (strcmp(argv[1], "mint") == 0 && argc == 4)
        status = mint(r, argv[3]);
    else if (strcmp(argv[1], "jwks") == 0)
        status = jwks(r);
    eg_keyring_unref(r);
    return status;
}
