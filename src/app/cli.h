/*
 * cli.h - what the commands share: the table of commands, options, exit codes, messages.
 *
 * Threads: the main thread. Options are tables; parsing fills the variables they point to and
 * answers --help by itself. Wrong usage is one line on stderr and exit code 64.
 */
#ifndef EG_APP_CLI_H
#define EG_APP_CLI_H

#include "app/config.h"

/* Exit codes (sysexits.h numbers; docs/operations.md). */
enum eg_exit {
    EG_EXIT_OK = 0,
    EG_EXIT_FAILED = 1,    /* a client command did not get what it asked for */
    EG_EXIT_USAGE = 64,    /* wrong usage */
    EG_EXIT_INTERNAL = 70, /* a bug, or a library that does not do what it must */
    EG_EXIT_RETRY = 75,    /* in use, out of room or memory: try again */
    EG_EXIT_CONFIG = 78,   /* configuration, keys, or a database that is not ours */
    EG_EXIT_SIGINT = 130
};

struct eg_command {
    const char *name;
    const char *summary; /* half a sentence */
    const char *usage;   /* what stands behind the name */
    const char *details; /* further text of --help, or NULL */
    int (*run)(const struct eg_command *cmd, int argc, char **argv); /* argv[0] is the name */
    const char *group; /* heading in the list of commands */
};

extern const struct eg_command eg_cmd_serve, eg_cmd_check_config, eg_cmd_config, eg_cmd_token,
    eg_cmd_chat, eg_cmd_agent, eg_cmd_verify, eg_cmd_check, eg_cmd_backup, eg_cmd_restore,
    eg_cmd_sessions, eg_cmd_agents, eg_cmd_connections, eg_cmd_turns, eg_cmd_tail, eg_cmd_export,
    eg_cmd_stats, eg_cmd_drain, eg_cmd_revoke;

enum eg_opt_kind { EG_OPT_FLAG, EG_OPT_TEXT, EG_OPT_INT, EG_OPT_SECONDS };

/* One option. to: bool (FLAG), const char * (TEXT), int64_t (INT; SECONDS in milliseconds). */
struct eg_opt {
    const char *name; /* without dashes; NULL ends the table */
    char letter;      /* or 0 */
    enum eg_opt_kind kind;
    const char *arg; /* name of its value in --help */
    const char *help;
    void *to;
    int64_t min, max;
};

enum { EG_PROCEED = -1 };

/*
 * Reads argv[1..]. Options come before other arguments or among them; `--` ends them. settings not
 * NULL: flags of the settings' table are taken too and collected there. rest gets the other
 * arguments (at most rest_max; more are wrong usage), *nrest their number. An option whose name is
 * stop (or NULL) takes everything behind it: *tail points there. Returns EG_PROCEED, or the exit
 * code when --help was answered or the usage was wrong.
 */
int eg_opts_parse(const struct eg_command *cmd, const struct eg_opt *opts, int argc, char **argv,
                  struct eg_config_args *settings, const char **rest, int rest_max, int *nrest,
                  const char *stop, char ***tail);

/* One line "ebbgate NAME: text" on stderr; usage adds where help is and returns EG_EXIT_USAGE. */
int eg_usage(const struct eg_command *cmd, const char *fmt, ...) EG_PRINTF(2, 3);
void eg_complain(const struct eg_command *cmd, const char *fmt, ...) EG_PRINTF(2, 3);

/* EG_PROCEED when text, given with option, can be an id (a gateway would close on another one again
 * and again), else wrong usage. */
int eg_cli_id(const struct eg_command *cmd, const char *option, const char *text);

/*
 * Reads the configuration of a command; mistakes and warnings go to stderr. Returns EG_PROCEED with
 * *out set, or an exit code.
 */
int eg_cli_config(const struct eg_command *cmd, const struct eg_config_args *args,
                  struct eg_config *out);

/* Flushes stdout; EG_EXIT_FAILED when anything written to it was lost, else code. */
int eg_cli_done(const struct eg_command *cmd, int code);

#endif
