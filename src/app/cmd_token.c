/*
 * cmd_token.c - `ebbgate token` prints a token made with the data folder's key, and nothing else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/keys.h"

/* --ttl: seconds or a duration; negative seconds make a token that has expired. */
static bool parse_ttl(const char *text, int64_t *ms)
{
    bool negative = text[0] == '-';
    if (!eg_duration_parse(text + negative, ms))
        return false;
    *ms = negative ? -*ms : *ms;
    return true;
}

static int mint(const struct eg_command *cmd, const struct eg_settings *s, struct eg_mint *what)
{
    char why[512] = "", made[8];
    struct eg_keyring *ring = NULL;
    struct eg_buf out = {0};
    unsigned scopes = 0;
    int code = EG_EXIT_OK;
    enum eg_err err = eg_keys_load(s, false, &ring, made, sizeof made, why, sizeof why);
    if (err != EG_OK) {
        eg_complain(cmd, "%s", *why ? why : eg_err_text(err));
        return err == EG_ENOMEM ? EG_EXIT_RETRY : EG_EXIT_CONFIG;
    }
    err = eg_keys_mint(ring, what, &out, why, sizeof why);
    if (err == EG_OK) {
        eg_buf_char(&out, '\n');
        fwrite(out.p, 1, out.n, stdout);
        if (eg_scopes_parse(what->scope, &scopes) == EG_OK && (scopes & EG_SCOPE_AGENT) &&
            !what->agents)
            eg_complain(cmd, "note: without --agents a worker with this token can serve nothing");
    } else if (err == EG_EINVALID) {
        code = eg_usage(cmd, "%s", why);
    } else {
        eg_complain(cmd, "%s", why);
        code = err == EG_ENOTFOUND ? EG_EXIT_CONFIG : EG_EXIT_RETRY;
    }
    eg_buf_free(&out);
    eg_keyring_unref(ring);
    return eg_cli_done(cmd, code);
}

static int run(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_data_opts where = {0};
    struct eg_config c;
    struct eg_mint what = {.scope = "read write"};
    const char *ttl = "3600";
    const struct eg_opt opts[] = {
        {"sub", 0, EG_OPT_TEXT, "S", "who the token is for (needed)", &what.sub, 0, 0},
        {"scope", 0, EG_OPT_TEXT, "WORDS",
         "rights: read write agent admin admin:read (default \"read write\")", &what.scope, 0, 0},
        {"agents", 0, EG_OPT_TEXT, "A,B",
         "agents it may talk to or serve; \"*\" is all (default: talk to all, serve none)",
         &what.agents, 0, 0},
        {"sessions", 0, EG_OPT_TEXT, "S,T", "sessions it may enter beside its own; \"*\" is all",
         &what.sessions, 0, 0},
        {"audience", 0, EG_OPT_TEXT, "AUD", "the aud claim (default: the configured audience)",
         &what.audience, 0, 0},
        {"ttl", 0, EG_OPT_TEXT, "SECONDS",
         "how long it is good (default 3600; also 12h, 7d; below 0: it has ended already)", &ttl, 0,
         0},
        {"key", 0, EG_OPT_TEXT, "FILE", "the private key (default: the data folder's newest)",
         &where.key, 0, 0},
        EG_DATA_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (!what.sub)
        return eg_usage(cmd, "--sub is needed");
    if (!parse_ttl(ttl, &what.ttl_ms))
        return eg_usage(cmd, "--ttl wants seconds or such as 12h or 7d, not \"%s\"", ttl);
    code = eg_cli_data(cmd, &where, &c);
    if (code != EG_PROCEED)
        return code;
    if (what.ttl_ms > c.settings->max_token_lifetime_ms)
        code =
            eg_usage(cmd, "--ttl is longer than max_token_lifetime, the gateway would refuse it");
    if (code == EG_PROCEED && !what.audience && *c.settings->audience)
        what.audience = c.settings->audience;
    if (code == EG_PROCEED)
        code = mint(cmd, c.settings, &what);
    eg_config_free(&c);
    return code;
}

const struct eg_command eg_cmd_token = {
    .name = "token",
    .summary = "Print a token, signed with the data folder's key",
    .usage = "--sub S [--scope \"read write\"] [--agents A,B] [--sessions S,T] [--ttl SECONDS]",
    .details = "A worker's token needs --scope agent and --agents with what it serves.\n",
    .run = run,
    .group = "The gateway"};
