/*
 * figures.c - see figures.h.
 */
#include "figures.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define ROUNDS_MAX 64

struct figure {
    char name[80], who[32], unit[32];
    int n;
    double value[ROUNDS_MAX], p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

struct fact {
    char who[32], key[32], text[512];
};

static struct {
    struct figure *figure;
    struct fact *fact;
    int figures, facts;
    const char *who;
} all = {.who = "ebbgate"};

void figures_who(const char *who)
{
    all.who = who;
}

static struct figure *find(const char *name, const char *unit)
{
    for (int i = 0; i < all.figures; i++) {
        if (strcmp(all.figure[i].name, name) == 0 && strcmp(all.figure[i].who, all.who) == 0) {
            return &all.figure[i];
        }
    }
    all.figure = realloc(all.figure, (size_t)(all.figures + 1) * sizeof *all.figure);
    if (!all.figure) {
        load_die("out of memory");
    }
    struct figure *f = &all.figure[all.figures++];
    memset(f, 0, sizeof *f);
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->who, sizeof f->who, "%s", all.who);
    snprintf(f->unit, sizeof f->unit, "%s", unit);
    return f;
}

static void line(const char *who, const char *name, double value, const char *unit)
{
    printf("%-10s %-42s %14.1f %-14s", who, name, value, unit);
}

void report(const char *name, double value, const char *unit, double p50, double p99)
{
    struct figure *f = find(name, unit);
    if (f->n < ROUNDS_MAX) {
        f->value[f->n] = value;
        f->p50[f->n] = p50;
        f->p99[f->n++] = p99;
    }
    line(all.who, name, value, unit);
    if (p50 >= 0) {
        printf(" p50 %8.0f us  p99 %8.0f us", p50, p99);
    }
    putchar('\n');
    fflush(stdout);
}

void figures_fact(const char *who, const char *key, const char *fmt, ...)
{
    struct fact *f = NULL;
    va_list ap;
    for (int i = 0; i < all.facts; i++) {
        if (strcmp(all.fact[i].who, who) == 0 && strcmp(all.fact[i].key, key) == 0) {
            f = &all.fact[i];
        }
    }
    if (!f) {
        all.fact = realloc(all.fact, (size_t)(all.facts + 1) * sizeof *all.fact);
        if (!all.fact) {
            load_die("out of memory");
        }
        f = &all.fact[all.facts++];
        snprintf(f->who, sizeof f->who, "%s", who);
        snprintf(f->key, sizeof f->key, "%s", key);
    }
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
}

/* The value after "key ... :" on the first such line of a file; empty when there is none. */
static void from_proc(const char *path, const char *key, char *out, size_t size)
{
    char text[512];
    FILE *f = fopen(path, "r");
    out[0] = 0;
    while (f && !out[0] && fgets(text, sizeof text, f)) {
        const char *at = strchr(text, ':');
        if (strncmp(text, key, strlen(key)) == 0 && at) {
            text[strcspn(text, "\n")] = 0;
            snprintf(out, size, "%s", at + 1 + strspn(at + 1, " \t"));
        }
    }
    if (f) {
        fclose(f);
    }
}

void figures_machine(const char *when)
{
    char text[256], key[32];
    struct utsname u;
    double load = 0;
    time_t now = time(NULL);
    struct tm tm;
    from_proc("/proc/cpuinfo", "model name", text, sizeof text);
    figures_fact("machine", "processor", "%s", text);
    figures_fact("machine", "cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    from_proc("/proc/meminfo", "MemTotal", text, sizeof text);
    figures_fact("machine", "memory", "%s", text);
    if (uname(&u) == 0) {
        figures_fact("machine", "kernel", "%s %s %s", u.sysname, u.release, u.machine);
    }
    if (getloadavg(&load, 1) == 1) {
        snprintf(key, sizeof key, "load at %s", when);
        figures_fact("machine", key, "%.2f", load);
    }
    if (gmtime_r(&now, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &tm)) {
        snprintf(key, sizeof key, "time at %s", when);
        figures_fact("machine", key, "%s", text);
    }
}

void figures_summary(void)
{
    bool rounds = false;
    for (int i = 0; i < all.figures; i++) {
        rounds = rounds || all.figure[i].n > 1;
    }
    if (!rounds) {
        return;
    }
    printf("\nMedians of the rounds, and their range\n");
    for (int i = 0; i < all.figures; i++) {
        struct figure *f = &all.figure[i];
        const double mid = load_median(f->value, f->n);
        line(f->who, f->name, mid, f->unit);
        printf(" %.1f-%.1f", f->value[0], f->value[f->n - 1]);
        if (f->p50[0] >= 0) {
            printf("  p50 %.0f us  p99 %.0f us", load_median(f->p50, f->n),
                   load_median(f->p99, f->n));
        }
        printf("  (%d)\n", f->n);
    }
}

static void json_text(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\":\"", key);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            fputc('\\', out);
        }
        fputc((unsigned char)*p < 0x20 ? ' ' : *p, out);
    }
    fputc('"', out);
}

static void json_figure(FILE *out, struct figure *f)
{
    const double mid = load_median(f->value, f->n);
    fputc('{', out);
    json_text(out, "who", f->who);
    fputc(',', out);
    json_text(out, "figure", f->name);
    fputc(',', out);
    json_text(out, "unit", f->unit);
    fprintf(out, ",\"rounds\":%d,\"median\":%.3f,\"min\":%.3f,\"max\":%.3f", f->n, mid, f->value[0],
            f->value[f->n - 1]);
    if (f->p50[0] >= 0) {
        fprintf(out, ",\"p50_us\":%.1f,\"p99_us\":%.1f", load_median(f->p50, f->n),
                load_median(f->p99, f->n));
    }
    fputs("}\n", out);
}

bool figures_json(const char *path)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!out) {
        return false;
    }
    for (int i = 0; i < all.facts; i++) {
        fputc('{', out);
        json_text(out, "who", all.fact[i].who);
        fputc(',', out);
        json_text(out, "fact", all.fact[i].key);
        fputc(',', out);
        json_text(out, "text", all.fact[i].text);
        fputs("}\n", out);
    }
    for (int i = 0; i < all.figures; i++) {
        json_figure(out, &all.figure[i]);
    }
    return out == stdout ? fflush(out) == 0 : fclose(out) == 0;
}
