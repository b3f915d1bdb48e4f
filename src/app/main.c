/*
 * main.c - the program's commands.
 *
 * Threads: those of the command. Owns nothing. Happy path: find the command, run it, its result is
 * the exit code. Failure modes: an unknown command is one line and exit code 64.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/cli.h"
#include "app/text.h"
#include "ebbgate/protocol.h"

static const struct eg_command *const commands[] = {
    &eg_cmd_serve,  &eg_cmd_check_config, &eg_cmd_config, &eg_cmd_token,       &eg_cmd_chat,
    &eg_cmd_agent,  &eg_cmd_sessions,     &eg_cmd_agents, &eg_cmd_connections, &eg_cmd_turns,
    &eg_cmd_tail,   &eg_cmd_export,       &eg_cmd_stats,  &eg_cmd_revoke,      &eg_cmd_drain,
    &eg_cmd_verify, &eg_cmd_check,        &eg_cmd_backup, &eg_cmd_restore};

enum { COMMANDS = sizeof commands / sizeof *commands };

static int print_help(void)
{
    const char *group = "";
    printf(
        "Usage: ebbgate COMMAND [OPTIONS]\n\n"
        "A durable session gateway between AI agents and the people and apps that talk to them.\n");
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(group, commands[i]->group) != 0) {
            group = commands[i]->group;
            printf("\n%s:\n", group);
        }
        printf("  %-14s%s\n", commands[i]->name, commands[i]->summary);
    }
    printf("\n`ebbgate COMMAND --help` tells more. `ebbgate --version` (-V) prints the version.\n");
    return eg_cli_done(NULL, EG_EXIT_OK);
}

/* The command that the unknown one begins like, or is few changes away from, for the message. */
static const struct eg_command *nearest(const char *name)
{
    const struct eg_command *best = NULL;
    size_t least = 3;
    for (int i = 0; i < COMMANDS; i++) {
        const char *known = commands[i]->name;
        const size_t n = strlen(name), d = eg_text_distance(name, known);
        if (n >= 2 && (strncmp(known, name, n) == 0 || strncmp(known, name, strlen(known)) == 0))
            return commands[i];
        if (d < least && d < strlen(known) && d < n) {
            best = commands[i];
            least = d;
        }
    }
    return best;
}

/* Whoever starts us may have closed stdin, stdout or stderr; then the next file to be opened would
 * be taken for it, and get what we print. Reading gives the end, and writing to stdout still fails.
 */
static void hold_standard_files(void)
{
    while (true) {
        const int fd = open("/dev/null", O_RDONLY);
        if (fd > STDERR_FILENO)
            close(fd);
        if (fd < 0 || fd > STDERR_FILENO)
            return;
    }
}

int main(int argc, char **argv)
{
    hold_standard_files();
    if (argc < 2)
        return eg_usage(NULL, "a command is needed");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return print_help();
    if (strcmp(name, "help") == 0 && argc == 2)
        return print_help();
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0 || strcmp(name, "version") == 0) {
        printf("ebbgate %s\n", EG_VERSION);
        return eg_cli_done(NULL, EG_EXIT_OK);
    }
    static char help[] = "--help";
    char *help_argv[] = {argv[argc - 1], help, NULL};
    bool wants_help = strcmp(name, "help") == 0;
    if (wants_help)
        name = argv[2];
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return wants_help ? commands[i]->run(commands[i], 2, help_argv)
                              : commands[i]->run(commands[i], argc - 1, argv + 1);
    }
    const struct eg_command *near = nearest(name);
    if (near)
        return eg_usage(NULL, "unknown command \"%s\"; did you mean %s?", name, near->name);
    return eg_usage(NULL, "unknown command \"%s\"", name);
}
