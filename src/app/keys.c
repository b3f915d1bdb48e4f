/*
 * keys.c - see keys.h.
 */
#include "app/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum eg_err eg_keys_load(const struct eg_settings *s, bool make, struct eg_keyring **out,
                         char *made, size_t made_size, char *why, size_t why_size)
{
    enum eg_err err;
    char *dir = NULL;
    char kid[64];
    if (made_size)
        *made = '\0';
    if (*s->key_file)
        return eg_keyring_load(NULL, s->key_file, out, why, why_size);
    if (asprintf(&dir, "%s/keys", s->data) < 0)
        return EG_ENOMEM;
    err = eg_keyring_load(dir, NULL, out, why, why_size);
    if (err == EG_ENOTFOUND && make) {
        err = eg_key_generate(dir, eg_clock_now().wall_ms, kid, made, made_size);
        if (err == EG_OK)
            err = eg_keyring_load(dir, NULL, out, why, why_size);
        else
            snprintf(why, why_size, "cannot make a key in %s: %s", dir, eg_err_text(err));
    } else if (err == EG_ENOTFOUND) {
        snprintf(why, why_size,
                 "there is no key in %s; the first `ebbgate serve` on this folder makes one", dir);
    }
    free(dir);
    return err;
}

static void list_free(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

/* A NULL-terminated list of comma-separated text. NULL with *err set when it cannot be. */
static char **list_of(const char *text, enum eg_err *err)
{
    size_t cap = 2, n = 0;
    for (const char *p = text; *p; p++)
        cap += *p == ',';
    char **list = calloc(cap, sizeof *list);
    *err = list ? EG_OK : EG_ENOMEM;
    for (const char *p = text; list && *err == EG_OK;) {
        size_t len = strcspn(p, ",");
        if (len == 0 || len > EG_ID_MAX)
            *err = EG_EINVALID;
        else if (!(list[n++] = strndup(p, len)))
            *err = EG_ENOMEM;
        if (!p[len])
            break;
        p += len + 1;
    }
    if (*err != EG_OK) {
        list_free(list);
        list = NULL;
    }
    return list;
}

enum eg_err eg_keys_mint(const struct eg_keyring *ring, const struct eg_mint *what,
                         struct eg_buf *out, char *why, size_t why_size)
{
    enum eg_err err = EG_OK;
    struct eg_claims c = {0};
    int64_t now_s = eg_clock_now().wall_ms / 1000;
    if (!*what->sub || strlen(what->sub) > EG_ID_MAX) {
        snprintf(why, why_size, "sub must have 1 to %d bytes", EG_ID_MAX);
        return EG_EINVALID;
    }
    if (eg_scopes_parse(what->scope, &c.scopes) != EG_OK || c.scopes == 0) {
        snprintf(why, why_size,
                 "scope must be words of read, write, agent, admin and admin:read, not \"%s\"",
                 what->scope);
        return EG_EINVALID;
    }
    c.sub = strdup(what->sub);
    err = c.sub ? EG_OK : EG_ENOMEM;
    if (err == EG_OK && what->agents)
        c.agents = list_of(what->agents, &err);
    if (err == EG_OK && what->sessions)
        c.sessions = list_of(what->sessions, &err);
    if (err == EG_OK && what->audience)
        c.aud = list_of(what->audience, &err);
    if (err == EG_EINVALID)
        snprintf(why, why_size, "lists are comma-separated ids of 1 to %d bytes", EG_ID_MAX);
    c.iat_s = now_s;
    c.exp_s = now_s + what->ttl_ms / 1000;
    if (err == EG_OK) {
        err = eg_token_mint(ring, &c, out);
        snprintf(why, why_size, "%s",
                 err == EG_ENOTFOUND ? "there is no private key to sign with" : eg_err_text(err));
    }
    eg_claims_free(&c);
    return err;
}

int eg_cli_data(const struct eg_command *cmd, const struct eg_data_opts *o, struct eg_config *out)
{
    struct eg_config_args args = {.file = o->file, .env = environ, .quiet = true};
    if (o->data) {
        strcpy(args.flags[args.nflags].name, "data");
        args.flags[args.nflags++].value = o->data;
    }
    if (o->key) {
        strcpy(args.flags[args.nflags].name, "key_file");
        args.flags[args.nflags++].value = o->key;
    }
    return eg_cli_config(cmd, &args, out);
}
