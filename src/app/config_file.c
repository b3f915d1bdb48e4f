/*
 * config_file.c - one configuration file in libconfig's format into settings.
 *
 * libconfig 1.5 cuts whole numbers that do not fit into 32 bits, silently, unless they end in L. So
 * the text is gone through first: such numbers get their L (those beyond 64 bits become the largest
 * there is), and @include and units without quotes are mistakes. Threads: one. Failure modes: every
 * mistake is noted with file and line and reading goes on; libconfig itself stops at the first
 * fault of syntax.
 */
#include "app/config.h"

#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX_BYTES = 1 << 20 };

/* The file's text, or NULL with the mistake noted (*oom when it was memory). */
static char *read_text(struct eg_config *c, const char *path, bool *oom)
{
    struct eg_buf b = {0};
    char *text = NULL;
    FILE *f = fopen(path, "re");
    if (!f) {
        *oom = errno == ENOMEM;
        if (!*oom)
            eg_config_mistake(c, path, 0, "cannot be read: %s", strerror(errno));
        return NULL;
    }
    for (;;) {
        char *to = eg_buf_reserve(&b, 4096);
        if (!to)
            break;
        size_t n = fread(to, 1, 4096, f);
        b.n += n;
        if (n < 4096 || b.n > FILE_MAX_BYTES)
            break;
    }
    if (ferror(f)) {
        eg_config_mistake(c, path, 0, "cannot be read: %s", strerror(errno));
    } else if (b.n > FILE_MAX_BYTES) {
        eg_config_mistake(c, path, 0, "is longer than 1 MiB");
    } else if (b.p && memchr(b.p, '\0', b.n)) {
        eg_config_mistake(c, path, 0, "is no text: it holds a zero byte");
    } else {
        text = eg_buf_take(&b);
        *oom = !text;
    }
    eg_buf_free(&b);
    fclose(f);
    return text;
}

/* Skips a string or a comment at *p, counting lines. False when there is none here. */
static bool skip_opaque(const char **p, int *line)
{
    const char *s = *p;
    if (*s == '"') {
        for (s++; *s && *s != '"'; s++) {
            if (*s == '\\' && s[1])
                s++;
            *line += *s == '\n';
        }
        s += *s == '"';
    } else if (*s == '#' || (*s == '/' && s[1] == '/')) {
        s += strcspn(s, "\n");
    } else if (*s == '/' && s[1] == '*') {
        for (s += 2; *s && !(*s == '*' && s[1] == '/'); s++)
            *line += *s == '\n';
        s += *s ? 2 : 0;
    } else {
        return false;
    }
    *p = s;
    return true;
}

/* The end of a number that starts at s; *wide when it is whole and needs an L. */
static const char *number_end(const char *s, bool *wide, bool *too_long)
{
    const char *end = s;
    *wide = *too_long = false;
    if (*s == '0' && (s[1] == 'x' || s[1] == 'X'))
        return s + 2 + strspn(s + 2, "0123456789abcdefABCDEFL");
    end += strspn(s, "0123456789");
    if (*end == '.' || *end == 'e' || *end == 'E')
        return end + strspn(end, "0123456789.eE+-");
    errno = 0;
    long long v = strtoll(s, NULL, 10);
    *too_long = errno == ERANGE;
    *wide = *too_long || (*end != 'L' && v > 2147483647LL);
    return end + strspn(end, "L");
}

/* A number with a unit but without quotes is a mistake, and goes on as text. Returns its end. */
static const char *quote_unit(struct eg_config *c, const char *path, int line, const char *s,
                              struct eg_buf *out)
{
    size_t n = strspn(s, "0123456789.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    eg_config_mistake(c, path, line, "a number with a unit needs quotes: \"%.*s\"",
                      n > 40 ? 40 : (int)n, s);
    eg_buf_char(out, '"');
    eg_buf_add(out, s, n);
    eg_buf_char(out, '"');
    return s + n;
}

/* The text with L after wide numbers. NULL without memory. */
static char *widen_numbers(struct eg_config *c, const char *path, const char *text)
{
    struct eg_buf b = {0};
    int line = 1;
    for (const char *p = text; *p;) {
        const char *from = p;
        bool wide = false, too_long = false;
        if (skip_opaque(&p, &line)) {
            eg_buf_add(&b, from, (size_t)(p - from));
            continue;
        }
        if (isalpha((unsigned char)*p) || *p == '_' || *p == '*') {
            p += strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_*-");
        } else if (isdigit((unsigned char)*p)) {
            p = number_end(p, &wide, &too_long);
            if (isalpha((unsigned char)*p)) {
                p = quote_unit(c, path, line, from, &b);
                continue;
            }
        } else if (strncmp(p, "@include", 8) == 0) {
            eg_config_mistake(c, path, line,
                              "@include is not supported; put the file into conf.d/");
            eg_buf_char(&b, '#');
            p += strcspn(p, "\n");
        } else {
            line += *p == '\n';
            p++;
        }
        if (too_long)
            eg_buf_int(&b, INT64_MAX);
        else
            eg_buf_add(&b, from, (size_t)(p - from));
        if (wide)
            eg_buf_char(&b, 'L');
    }
    return eg_buf_take(&b);
}

/* The number of a scalar in the setting's unit: false when it is not exact or no number. */
static bool scalar_number(const config_setting_t *e, const struct eg_setting *d, bool ms,
                          int64_t *out)
{
    bool seconds = d->type == EG_SETTING_DUR && !ms;
    if (config_setting_type(e) == CONFIG_TYPE_FLOAT) {
        double v = config_setting_get_float(e) * (seconds ? 1000.0 : 1.0);
        if (!(v > -9e15 && v < 9e15))
            return false;
        *out = (int64_t)(v < 0 ? v - 0.5 : v + 0.5);
        return seconds || (double)*out == v;
    }
    int64_t v = config_setting_get_int64(e);
    if (seconds && (v > INT64_MAX / 1000 || v < INT64_MIN / 1000))
        return false;
    *out = seconds ? v * 1000 : v;
    return true;
}

static enum eg_err set_list(struct eg_config *c, const struct eg_setting *d,
                            const config_setting_t *e, char *why, size_t why_size)
{
    enum eg_err err = EG_EINVALID;
    int n = config_setting_length(e);
    const char **items = calloc((size_t)n + 1, sizeof *items);
    if (!items)
        return EG_ENOMEM;
    for (int i = 0; i < n; i++) {
        items[i] = config_setting_get_string_elem(e, i);
        if (!items[i]) {
            snprintf(why, why_size, "must be a list of texts: [\"one\", \"two\"]");
            goto out;
        }
    }
    err = eg_setting_set_list(d, c->settings, items, (size_t)n, why, why_size);
out:
    free(items);
    return err;
}

/* Sets d from e. */
static enum eg_err set_value(struct eg_config *c, const struct eg_setting *d, bool ms,
                             const config_setting_t *e, char *why, size_t why_size)
{
    int64_t v = 0;
    switch (config_setting_type(e)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
    case CONFIG_TYPE_FLOAT:
        if (!scalar_number(e, d, ms, &v)) {
            snprintf(why, why_size, "must be a whole number");
            return EG_EINVALID;
        }
        return eg_setting_set_number(d, c->settings, v, why, why_size);
    case CONFIG_TYPE_STRING:
        if (d->type == EG_SETTING_LIST) {
            snprintf(why, why_size, "must be a list of texts: [\"one\", \"two\"]");
            return EG_EINVALID;
        }
        if (d->type == EG_SETTING_INT || (d->type == EG_SETTING_DUR && ms)) {
            snprintf(why, why_size, "must be a number without quotes");
            return EG_EINVALID;
        }
        return eg_setting_set_text(d, c->settings, config_setting_get_string(e), ms, why, why_size);
    case CONFIG_TYPE_BOOL:
        if (d->type != EG_SETTING_BOOL) {
            snprintf(why, why_size, "must not be true or false");
            return EG_EINVALID;
        }
        return eg_setting_set_number(d, c->settings, config_setting_get_bool(e), why, why_size);
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST:
        return set_list(c, d, e, why, why_size);
    default:
        snprintf(why, why_size, "must be a value, not a group");
        return EG_EINVALID;
    }
}

/* One entry of the file. seen remembers the line of each setting in this file. */
static bool read_entry(struct eg_config *c, const char *path, const config_setting_t *e, int *seen)
{
    char why[160] = "";
    bool ms = false;
    const char *name = config_setting_name(e);
    int line = (int)config_setting_source_line(e);
    const struct eg_setting *d = eg_setting_find(name, &ms);
    if (!d) {
        const char *near = eg_setting_suggest(name);
        if (near)
            eg_config_mistake(c, path, line, "unknown setting %s; did you mean %s?", name, near);
        else
            eg_config_mistake(c, path, line, "unknown setting %s", name);
        return true;
    }
    int *at = &seen[d - eg_setting_table];
    if (*at) {
        eg_config_mistake(c, path, line, "%s was given already in line %d", d->name, *at);
        return true;
    }
    *at = line;
    switch (set_value(c, d, ms, e, why, sizeof why)) {
    case EG_OK:
        return eg_config_origin(c, d, path, line);
    case EG_ENOMEM:
        return false;
    default:
        eg_config_mistake(c, path, line, "%s %s", name, why);
        return true;
    }
}

bool eg_config_read_file(struct eg_config *c, const char *path)
{
    bool ok = true, oom = false;
    int seen[EG_SETTING_COUNT] = {0};
    config_t lc;
    config_init(&lc);
    char *wide = NULL, *text = read_text(c, path, &oom);
    if (!text) {
        ok = !oom;
        goto out;
    }
    wide = widen_numbers(c, path, text);
    if (!wide) {
        ok = false;
        goto out;
    }
    if (!config_read_string(&lc, wide)) {
        eg_config_mistake(c, path, config_error_line(&lc), "%s", config_error_text(&lc));
        goto out;
    }
    const config_setting_t *root = config_root_setting(&lc);
    for (int i = 0; ok && i < config_setting_length(root); i++)
        ok = read_entry(c, path, config_setting_get_elem(root, (unsigned)i), seen);
out:
    config_destroy(&lc);
    free(text);
    free(wide);
    return ok;
}
