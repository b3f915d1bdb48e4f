/*
 * cli.c - see cli.h.
 */
#include "app/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "ebbgate/protocol.h"
#include "wire/json.h"

static void complain(const struct eg_command *cmd, const char *fmt, va_list ap, const char *end)
{
    char text[600];
    struct eg_buf safe = {0}; /* it may hold words of a gateway, a proxy or a command */
    vsnprintf(text, sizeof text, fmt, ap);
    eg_text_show(&safe, eg_slice_cstr(text));
    fprintf(stderr, "ebbgate%s%s: %.*s%s\n", cmd ? " " : "", cmd ? cmd->name : "",
            safe.err == EG_OK ? (int)safe.n : 0, safe.p ? safe.p : "", end);
    eg_buf_free(&safe);
}

int eg_usage(const struct eg_command *cmd, const char *fmt, ...)
{
    char end[96];
    va_list ap;
    va_start(ap, fmt);
    snprintf(end, sizeof end, " (see ebbgate%s%s --help)", cmd ? " " : "", cmd ? cmd->name : "");
    complain(cmd, fmt, ap, end);
    va_end(ap);
    return EG_EXIT_USAGE;
}

int eg_cli_id(const struct eg_command *cmd, const char *option, const char *text)
{
    const struct eg_slice id = eg_slice_cstr(text);
    if (id.n >= 1 && id.n <= EG_ID_MAX && eg_utf8_valid(id, NULL))
        return EG_PROCEED;
    return eg_usage(cmd, "%s wants an id of 1 to %d bytes of UTF-8", option, EG_ID_MAX);
}

void eg_complain(const struct eg_command *cmd, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(cmd, fmt, ap, "");
    va_end(ap);
}

int eg_cli_done(const struct eg_command *cmd, int code)
{
    errno = 0; /* a write that failed before has left none that is to be trusted */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        eg_complain(cmd, "cannot write to stdout%s%s", errno ? ": " : "",
                    errno ? strerror(errno) : "");
        return code == EG_EXIT_OK ? EG_EXIT_FAILED : code;
    }
    return code;
}

/* "  -c, --config FILE      help", help wrapped behind column 30. */
static void print_option(char letter, const char *name, const char *arg, const char *help)
{
    enum { COLUMN = 30, WIDTH = 98 };
    char head[96];
    if (letter)
        snprintf(head, sizeof head, "  -%c, --%s%s%s", letter, name, arg ? " " : "",
                 arg ? arg : "");
    else
        snprintf(head, sizeof head, "      --%s%s%s", name, arg ? " " : "", arg ? arg : "");
    int at = printf("%s", head);
    if (at >= COLUMN - 1) {
        putchar('\n');
        at = 0;
    }
    printf("%*s", COLUMN - at, "");
    at = COLUMN;
    for (const char *p = help; *p;) {
        const int n = (int)strcspn(p, " ");
        const bool first = at == COLUMN;
        if (!first && at + 1 + n > WIDTH) {
            printf("\n%*s", COLUMN, "");
            at = COLUMN;
        } else if (!first) {
            at += printf(" ");
        }
        at += printf("%.*s", n, p);
        p += n + (p[n] == ' ');
    }
    putchar('\n');
}

static void print_setting(const struct eg_setting *d)
{
    static const char *const args[] = {
        [EG_SETTING_INT] = "N",    [EG_SETTING_SIZE] = "SIZE", [EG_SETTING_DUR] = "TIME",
        [EG_SETTING_STR] = "TEXT", [EG_SETTING_LIST] = "A,B",  [EG_SETTING_BOOL] = "BOOL"};
    char name[64], help[256];
    struct eg_buf b = {0};
    size_t n = 0;
    for (; n < sizeof name - 1 && d->name[n]; n++)
        name[n] = d->name[n] == '_' ? '-' : d->name[n];
    name[n] = '\0';
    if (d->type == EG_SETTING_INT || d->type == EG_SETTING_SIZE || d->type == EG_SETTING_DUR)
        eg_setting_print_number(d, d->def, &b);
    else if (d->type == EG_SETTING_STR)
        eg_buf_str(&b, d->def_text);
    char *def = eg_buf_take(&b);
    snprintf(help, sizeof help, "%s%s%s%s", d->help, def && *def ? " (default " : "",
             def && *def ? def : "", def && *def ? ")" : "");
    free(def);
    print_option(0, name, args[d->type], help);
}

static int print_help(const struct eg_command *cmd, const struct eg_opt *opts, bool settings)
{
    printf("Usage: ebbgate %s%s%s\n\n%s.\n", cmd->name, *cmd->usage ? " " : "", cmd->usage,
           cmd->summary);
    if (cmd->details)
        printf("\n%s", cmd->details);
    printf("\nOptions:\n");
    for (const struct eg_opt *o = opts; o->name; o++)
        print_option(o->letter, o->name, o->arg, o->help);
    print_option('h', "help", NULL, "this text");
    if (settings) {
        puts(
            "\nSettings, also in the configuration file (with _ for -) and as EBBGATE_NAME in the\n"
            "environment. TIME is a number of seconds or such as 500ms, 10s, 5m, 2h, 7d; SIZE is\n"
            "a number of bytes or such as 64k, 16m, 1g (1024, 1024^2, 1024^3 bytes):");
        for (int i = 0; i < EG_SETTING_COUNT; i++)
            print_setting(&eg_setting_table[i]);
    }
    return eg_cli_done(cmd, EG_EXIT_OK);
}

static const struct eg_opt *find_long(const struct eg_opt *opts, const char *name, size_t n)
{
    for (; opts->name; opts++) {
        if (strlen(opts->name) == n && memcmp(opts->name, name, n) == 0)
            return opts;
    }
    return NULL;
}

static const struct eg_opt *find_letter(const struct eg_opt *opts, char letter)
{
    for (; opts->name; opts++) {
        if (opts->letter == letter)
            return opts;
    }
    return NULL;
}

/* Sets an option's variable. EG_PROCEED or 64. */
static int set_option(const struct eg_command *cmd, const struct eg_opt *o, const char *value)
{
    int64_t v = 0;
    char *end = NULL;
    switch (o->kind) {
    case EG_OPT_FLAG:
        *(bool *)o->to = true;
        return EG_PROCEED;
    case EG_OPT_TEXT:
        *(const char **)o->to = value;
        return EG_PROCEED;
    case EG_OPT_INT:
        errno = 0;
        v = strtoll(value, &end, 10);
        if (errno || end == value || *end)
            return eg_usage(cmd, "--%s wants a whole number, not \"%s\"", o->name, value);
        if (v < o->min || v > o->max)
            return eg_usage(cmd, "--%s wants a number from %lld to %lld", o->name,
                            (long long)o->min, (long long)o->max);
        break;
    case EG_OPT_SECONDS:
        if (!eg_duration_parse(value, &v))
            return eg_usage(cmd, "--%s wants seconds or such as 500ms, 10s, 5m, 2h, not \"%s\"",
                            o->name, value);
        if (v < o->min || v > o->max)
            return eg_usage(cmd, "--%s is out of range", o->name);
        break;
    }
    *(int64_t *)o->to = v;
    return EG_PROCEED;
}

/* State of one parse. */
struct parse {
    const struct eg_command *cmd;
    const struct eg_opt *opts;
    int argc, at;
    char **argv;
    struct eg_config_args *settings;
    const char *stop;
    char ***tail;
};

/* The value of the option at hand: behind = or the next argument. NULL when there is none. */
static const char *take_value(struct parse *p, const char *inline_value)
{
    if (inline_value)
        return inline_value;
    return p->at + 1 < p->argc ? p->argv[++p->at] : NULL;
}

/* The option that name is one or two changes away from, or NULL. */
static const struct eg_opt *near_option(const struct eg_opt *opts, const char *name, size_t n)
{
    const struct eg_opt *best = NULL;
    char text[48];
    size_t least = 3;
    snprintf(text, sizeof text, "%.*s", (int)n, name);
    for (; opts->name; opts++) {
        const size_t d = eg_text_distance(text, opts->name);
        if (d < least && d + 1 < n) {
            best = opts;
            least = d;
        }
    }
    return best;
}

static int parse_setting(struct parse *p, const char *name, size_t n, const char *inline_value)
{
    char key[sizeof p->settings->flags[0].name];
    struct eg_config_args *s = p->settings;
    if (s && n < sizeof key) {
        memcpy(key, name, n);
        key[n] = '\0';
        if (eg_config_is_flag(key)) {
            const char *value = take_value(p, inline_value);
            if (!value)
                return eg_usage(p->cmd, "--%s wants a value", key);
            if (s->nflags == EG_CONFIG_FLAGS_MAX)
                return eg_usage(p->cmd, "too many options");
            snprintf(s->flags[s->nflags].name, sizeof s->flags[0].name, "%s", key);
            s->flags[s->nflags++].value = value;
            return EG_PROCEED;
        }
        const char *near = eg_setting_suggest(key);
        char dashed[64] = "";
        for (size_t i = 0; near && near[i] && i < sizeof dashed - 1; i++)
            dashed[i] = near[i] == '_' ? '-' : near[i];
        if (near)
            return eg_usage(p->cmd, "unknown option --%s; did you mean --%s?", key, dashed);
    }
    const struct eg_opt *own = near_option(p->opts, name, n);
    if (own)
        return eg_usage(p->cmd, "unknown option --%.*s; did you mean --%s?", (int)n, name,
                        own->name);
    return eg_usage(p->cmd, "unknown option --%.*s", (int)n, name);
}

/* The option at argv[at]. *help is set for --help. */
static int parse_option(struct parse *p, bool *help)
{
    const char *arg = p->argv[p->at];
    const struct eg_opt *o = NULL;
    const char *inline_value = NULL;
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
        *help = true;
        return EG_PROCEED;
    }
    if (arg[1] == '-') {
        size_t n = strcspn(arg + 2, "=");
        inline_value = arg[2 + n] ? arg + 3 + n : NULL;
        o = find_long(p->opts, arg + 2, n);
        if (!o)
            return parse_setting(p, arg + 2, n, inline_value);
    } else {
        o = find_letter(p->opts, arg[1]);
        inline_value = arg[2] ? arg + 2 : NULL;
        if (!o || (o->kind == EG_OPT_FLAG && inline_value))
            return eg_usage(p->cmd, "unknown option %s", arg);
    }
    if (o->kind == EG_OPT_FLAG) {
        if (inline_value)
            return eg_usage(p->cmd, "--%s takes no value", o->name);
        return set_option(p->cmd, o, NULL);
    }
    if (p->stop && strcmp(o->name, p->stop) == 0 && !inline_value) {
        if (p->at + 1 >= p->argc)
            return eg_usage(p->cmd, "--%s wants a command", o->name);
        *p->tail = p->argv + p->at + 1;
        p->at = p->argc;
        return EG_PROCEED;
    }
    const char *value = take_value(p, inline_value);
    if (!value)
        return eg_usage(p->cmd, "--%s wants a value", o->name);
    return set_option(p->cmd, o, value);
}

int eg_opts_parse(const struct eg_command *cmd, const struct eg_opt *opts, int argc, char **argv,
                  struct eg_config_args *settings, const char **rest, int rest_max, int *nrest,
                  const char *stop, char ***tail)
{
    struct parse p = {cmd, opts, argc, 1, argv, settings, stop, tail};
    bool only_rest = false;
    int n = 0;
    for (; p.at < argc; p.at++) {
        const char *arg = argv[p.at];
        if (!only_rest && strcmp(arg, "--") == 0) {
            only_rest = true;
        } else if (!only_rest && arg[0] == '-' && arg[1]) {
            bool help = false;
            int code = parse_option(&p, &help);
            if (help)
                return print_help(cmd, opts, settings != NULL);
            if (code != EG_PROCEED)
                return code;
        } else if (n < rest_max) {
            rest[n++] = arg;
        } else {
            return eg_usage(cmd, "unexpected argument \"%s\"", arg);
        }
    }
    if (nrest)
        *nrest = n;
    return EG_PROCEED;
}

int eg_cli_config(const struct eg_command *cmd, const struct eg_config_args *args,
                  struct eg_config *out)
{
    int code = EG_PROCEED;
    enum eg_err err = eg_config_load(args, out);
    if (err == EG_ENOMEM) {
        eg_complain(cmd, "out of memory");
        return EG_EXIT_RETRY;
    }
    if (out->warnings.n)
        fprintf(stderr, "%.*s", (int)out->warnings.n, out->warnings.p);
    if (err != EG_OK) {
        fprintf(stderr, "%.*s", (int)out->mistakes.n, out->mistakes.p);
        code = out->mistake_count == out->flag_mistakes ? EG_EXIT_USAGE : EG_EXIT_CONFIG;
        eg_config_free(out);
    }
    return code;
}
