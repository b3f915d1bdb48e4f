/*
 * cmd_config.c - `check-config` says whether a configuration would be accepted, `config` prints
 * what is in force and where each value came from. Neither touches anything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/cli.h"

/* Common to both: reads options, then the configuration. check-config (no json) looks at what it
 * names, too. */
static int load(const struct eg_command *cmd, int argc, char **argv, bool *json,
                struct eg_config *out)
{
    struct eg_config_args args = {.env = environ, .look = !json};
    const struct eg_opt plain[] = {{"config", 'c', EG_OPT_TEXT, "FILE",
                                    "the configuration file (" EG_CONFIG_DEFAULT ")", &args.file, 0,
                                    0},
                                   {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    const struct eg_opt with_json[] = {plain[0],
                                       {"json", 0, EG_OPT_FLAG, NULL,
                                        "one JSON object in place of a configuration file", json, 0,
                                        0},
                                       {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code =
        eg_opts_parse(cmd, json ? with_json : plain, argc, argv, &args, NULL, 0, NULL, NULL, NULL);
    return code != EG_PROCEED ? code : eg_cli_config(cmd, &args, out);
}

static int run_check(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_config c;
    int code = load(cmd, argc, argv, NULL, &c);
    if (code != EG_PROCEED)
        return code;
    printf("configuration ok%s%s\n", c.file ? ": " : "", c.file ? c.file : "");
    eg_config_free(&c);
    return eg_cli_done(cmd, EG_EXIT_OK);
}

static int run_config(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_config c;
    struct eg_buf out = {0};
    bool json = false;
    int code = load(cmd, argc, argv, &json, &c);
    if (code != EG_PROCEED)
        return code;
    eg_config_print(&c, json, &out);
    code = out.err == EG_OK ? EG_EXIT_OK : EG_EXIT_RETRY;
    fwrite(out.p, 1, out.n, stdout);
    eg_buf_free(&out);
    eg_config_free(&c);
    return eg_cli_done(cmd, code);
}

const struct eg_command eg_cmd_check_config = {
    .name = "check-config",
    .summary = "Check a configuration, listing every mistake",
    .usage = "[-c FILE] [--SETTING VALUE ...]",
    .details = "A key_file that is missing or not private is a mistake, too. Exit code 0 when it\n"
               "would be accepted, 78 when not.\n",
    .run = run_check,
    .group = "The gateway"};

const struct eg_command eg_cmd_config = {.name = "config",
                                         .summary =
                                             "Print the settings in force and where each came from",
                                         .usage = "[-c FILE] [--json] [--SETTING VALUE ...]",
                                         .run = run_config,
                                         .group = "The gateway"};
