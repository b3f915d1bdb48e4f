/*
 * settings.c - the settings of include/ebbgate/settings.h as a list for ebbgate.conf(5), on stdout.
 *
 * Runs while the manual pages are built, so that a setting cannot be missing there.
 */
#include <stdio.h>
#include <string.h>

#include "ebbgate/settings.h"

/* A duration as it would be written in the file, exact. */
static void print_duration(int64_t ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"d", EG_DAY_MS}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    size_t i = 0;
    while (ms != 0 && i < 4 && ms % units[i].ms != 0)
        i++;
    if (ms == 0)
        i = 3;
    printf("%lld%s", (long long)(ms / units[i].ms), units[i].unit);
}

/* A text as mdoc reads it. */
static void print_text(const char *s)
{
    for (; *s; s++)
        printf(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : "%c", *s);
}

static void begin(const char *name, const char *type)
{
    printf(".It Va %s\n.Pq %s", name, type);
}

static void end(const char *help, int reload)
{
    printf("\n.br\n");
    print_text(help);
    printf(".\n");
    if (!reload)
        printf("Takes a restart.\n");
}

static void print_int(const char *name, int64_t def, int64_t min, int64_t max, int reload,
                      const char *help)
{
    begin(name, "number");
    printf(", default %lld, %lld to %lld", (long long)def, (long long)min, (long long)max);
    end(help, reload);
}

/* A number of bytes as it would be written in the file, exact. */
static void print_bytes(int64_t bytes)
{
    static const char units[] = {'g', 'm', 'k'};
    for (int i = 0; i < 3 && bytes != 0; i++) {
        const int64_t unit = INT64_C(1) << (30 - 10 * i);
        if (bytes % unit == 0) {
            printf("%lld%c", (long long)(bytes / unit), units[i]);
            return;
        }
    }
    printf("%lld", (long long)bytes);
}

static void print_size(const char *name, int64_t def, int64_t min, int64_t max, int reload,
                       const char *help)
{
    begin(name, "size");
    printf(", default ");
    print_bytes(def);
    printf(", ");
    print_bytes(min);
    printf(" to ");
    print_bytes(max);
    end(help, reload);
}

static void print_dur(const char *name, int64_t def, int64_t min, int64_t max, int reload,
                      const char *help)
{
    begin(name, "time");
    printf(", default ");
    print_duration(def);
    printf(", ");
    print_duration(min);
    printf(" to ");
    print_duration(max);
    end(help, reload);
}

static void print_str(const char *name, const char *def, int reload, const char *help)
{
    begin(name, "text");
    printf(", default \\(dq");
    print_text(def);
    printf("\\(dq");
    end(help, reload);
}

static void print_list(const char *name, int reload, const char *help)
{
    begin(name, "list of texts");
    printf(", default []");
    end(help, reload);
}

int main(void)
{
#define P_INT(name, def, min, max, reload, help) print_int(#name, def, min, max, reload, help);
#define P_SIZE(name, def, min, max, reload, help) print_size(#name, def, min, max, reload, help);
#define P_DUR(name, def, min, max, reload, help) print_dur(#name, def, min, max, reload, help);
#define P_STR(name, def, reload, help) print_str(#name, def, reload, help);
#define P_LIST(name, reload, help) print_list(#name, reload, help);
#define P_BOOL(name, def, reload, help) print_str(#name, def ? "true" : "false", reload, help);
    EG_SETTINGS(P_INT, P_SIZE, P_DUR, P_STR, P_LIST, P_BOOL)
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
