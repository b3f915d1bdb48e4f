/*
 * settings.c - the settings' table, snapshots of all values, and values by row.
 *
 * Threads: the table is constant; a snapshot is immutable once shared, its count atomic.
 * Owns: the strings and lists of a snapshot.
 * Happy path: eg_settings_new -> eg_setting_set_* -> shared by reference -> eg_settings_unref.
 * Failure modes: a value that is malformed or out of range leaves the snapshot as it was.
 */
#include "app/setting.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "wire/json.h"

#define ROW_INT(name, def, min, max, reload, help)                                                 \
    {#name, EG_SETTING_INT, reload, help, offsetof(struct eg_settings, name), def, min, max, NULL},
#define ROW_SIZE(name, def, min, max, reload, help)                                                \
    {#name, EG_SETTING_SIZE, reload, help, offsetof(struct eg_settings, name), def, min, max, NULL},
#define ROW_DUR(name, def, min, max, reload, help)                                                 \
    {#name, EG_SETTING_DUR, reload, help, offsetof(struct eg_settings, name##_ms), def, min, max,  \
     NULL},
#define ROW_STR(name, def, reload, help)                                                           \
    {#name, EG_SETTING_STR, reload, help, offsetof(struct eg_settings, name), 0, 0, 0, def},
#define ROW_LIST(name, reload, help)                                                               \
    {#name, EG_SETTING_LIST, reload, help, offsetof(struct eg_settings, name), 0, 0, 0, NULL},
#define ROW_BOOL(name, def, reload, help)                                                          \
    {#name, EG_SETTING_BOOL, reload, help, offsetof(struct eg_settings, name), def, 0, 1, NULL},

const struct eg_setting eg_setting_table[EG_SETTING_COUNT] = {
    EG_SETTINGS(ROW_INT, ROW_SIZE, ROW_DUR, ROW_STR, ROW_LIST, ROW_BOOL)};

/* The places of a value; the row's type says which one applies. */
static int64_t *number_at(const struct eg_setting *d, const struct eg_settings *s)
{
    return (int64_t *)(void *)((char *)(uintptr_t)s + d->offset);
}

static char **text_at(const struct eg_setting *d, const struct eg_settings *s)
{
    return (char **)(void *)((char *)(uintptr_t)s + d->offset);
}

static char ***list_at(const struct eg_setting *d, const struct eg_settings *s)
{
    return (char ***)(void *)((char *)(uintptr_t)s + d->offset);
}

static bool *bool_at(const struct eg_setting *d, const struct eg_settings *s)
{
    return (bool *)(void *)((char *)(uintptr_t)s + d->offset);
}

static void list_free(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

static char **list_new(const char *const *items, size_t n)
{
    char **list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; list && i < n; i++) {
        list[i] = strdup(items[i]);
        if (!list[i]) {
            list_free(list);
            list = NULL;
        }
    }
    return list;
}

static size_t list_length(char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

struct eg_settings *eg_settings_new(void)
{
    struct eg_settings *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->refs = 1;
    bool ok = true;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        switch (d->type) {
        case EG_SETTING_INT:
        case EG_SETTING_SIZE:
        case EG_SETTING_DUR:
            *number_at(d, s) = d->def;
            break;
        case EG_SETTING_STR:
            ok = ok && (*text_at(d, s) = strdup(d->def_text)) != NULL;
            break;
        case EG_SETTING_LIST:
            ok = ok && (*list_at(d, s) = list_new(NULL, 0)) != NULL;
            break;
        case EG_SETTING_BOOL:
            *bool_at(d, s) = d->def != 0;
            break;
        }
    }
    if (!ok) {
        eg_settings_unref(s);
        s = NULL;
    }
    return s;
}

struct eg_settings *eg_settings_copy(const struct eg_settings *from)
{
    struct eg_settings *s = eg_settings_new();
    for (int i = 0; s && i < EG_SETTING_COUNT; i++) {
        if (eg_setting_copy(&eg_setting_table[i], from, s) != EG_OK) {
            eg_settings_unref(s);
            s = NULL;
        }
    }
    return s;
}

struct eg_settings *eg_settings_ref(struct eg_settings *s)
{
    if (s)
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void eg_settings_unref(struct eg_settings *s)
{
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        if (d->type == EG_SETTING_STR)
            free(*text_at(d, s));
        else if (d->type == EG_SETTING_LIST)
            list_free(*list_at(d, s));
    }
    free(s);
}

/* Whether two names are the same but for - and _. The first n bytes of name count. */
static bool name_is(const char *name, size_t n, const char *known)
{
    if (strlen(known) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = name[i] == '-' ? '_' : name[i];
        if (c != known[i])
            return false;
    }
    return true;
}

const struct eg_setting *eg_setting_find(const char *name, bool *ms)
{
    size_t n = strlen(name);
    bool suffix = n > 3 && (strcmp(name + n - 3, "_ms") == 0 || strcmp(name + n - 3, "-ms") == 0);
    *ms = false;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        if (name_is(name, n, d->name))
            return d;
        if (suffix && d->type == EG_SETTING_DUR && name_is(name, n - 3, d->name)) {
            *ms = true;
            return d;
        }
    }
    return NULL;
}

const char *eg_setting_suggest(const char *name)
{
    const char *best = NULL;
    size_t least = strlen(name) / 3 + 1;
    if (least > 4)
        least = 4;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        size_t n = eg_text_distance(name, eg_setting_table[i].name);
        if (n <= least && (!best || n < least)) {
            least = n;
            best = eg_setting_table[i].name;
        }
    }
    if (best)
        return best;
    /* A word of the name, or the name with more around it: "origins" for allowed_origins. */
    for (int i = 0; i < EG_SETTING_COUNT && strlen(name) >= 4; i++) {
        const char *known = eg_setting_table[i].name;
        if (strstr(known, name) || strstr(name, known))
            return known;
    }
    return NULL;
}

void eg_setting_print_number(const struct eg_setting *d, int64_t v, struct eg_buf *out)
{
    if (d->type == EG_SETTING_DUR)
        eg_duration_print(v, out);
    else if (d->type == EG_SETTING_SIZE)
        eg_size_print(v, out);
    else
        eg_buf_int(out, v);
}

enum eg_err eg_setting_set_number(const struct eg_setting *d, struct eg_settings *s, int64_t v,
                                  char *why, size_t why_size)
{
    if (d->type != EG_SETTING_INT && d->type != EG_SETTING_SIZE && d->type != EG_SETTING_DUR) {
        snprintf(why, why_size, "must be %s",
                 d->type == EG_SETTING_LIST   ? "a list of texts"
                 : d->type == EG_SETTING_BOOL ? "true or false"
                                              : "a text");
        return EG_EINVALID;
    }
    if (v < d->min || v > d->max) {
        struct eg_buf b = {0};
        eg_setting_print_number(d, d->min, &b);
        eg_buf_str(&b, " to ");
        eg_setting_print_number(d, d->max, &b);
        char *range = eg_buf_take(&b);
        snprintf(why, why_size, "must be in the range %s", range ? range : "allowed");
        free(range);
        return EG_EINVALID;
    }
    *number_at(d, s) = v;
    return EG_OK;
}

enum eg_err eg_setting_set_list(const struct eg_setting *d, struct eg_settings *s,
                                const char *const *items, size_t n, char *why, size_t why_size)
{
    if (d->type != EG_SETTING_LIST) {
        snprintf(why, why_size, "must be one value, not a list");
        return EG_EINVALID;
    }
    for (size_t i = 0; i < n; i++) {
        if (!*items[i]) {
            snprintf(why, why_size, "has an empty entry");
            return EG_EINVALID;
        }
    }
    char **list = list_new(items, n);
    if (!list)
        return EG_ENOMEM;
    list_free(*list_at(d, s));
    *list_at(d, s) = list;
    return EG_OK;
}

/* a,b , c: blanks around entries do not count; an empty text is an empty list. */
static enum eg_err set_list_text(const struct eg_setting *d, struct eg_settings *s,
                                 const char *text, char *why, size_t why_size)
{
    enum eg_err err = EG_ENOMEM;
    size_t n = 0, cap = 1;
    for (const char *p = text; *p; p++)
        cap += *p == ',';
    const char **items = calloc(cap, sizeof *items);
    char *copy = strdup(text);
    if (!items || !copy)
        goto out;
    if (text[strspn(text, " \t")]) {
        char *rest = copy, *item;
        while ((item = strsep(&rest, ",")) != NULL) {
            item += strspn(item, " \t");
            size_t len = strlen(item);
            while (len > 0 && (item[len - 1] == ' ' || item[len - 1] == '\t'))
                item[--len] = '\0';
            items[n++] = item;
        }
    }
    err = eg_setting_set_list(d, s, items, n, why, why_size);
out:
    free(items);
    free(copy);
    return err;
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i & 1;
            return true;
        }
    }
    return false;
}

static bool parse_whole(const char *text, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    if (!*text || strspn(text, "-0123456789") != strlen(text))
        return false;
    long long v = strtoll(text, &end, 10);
    *out = v;
    return errno == 0 && end != text && *end == '\0';
}

enum eg_err eg_setting_set_text(const struct eg_setting *d, struct eg_settings *s, const char *text,
                                bool ms, char *why, size_t why_size)
{
    int64_t v = 0;
    switch (d->type) {
    case EG_SETTING_INT:
        if (!parse_whole(text, &v)) {
            snprintf(why, why_size, "must be a whole number");
            return EG_EINVALID;
        }
        return eg_setting_set_number(d, s, v, why, why_size);
    case EG_SETTING_SIZE:
        if (!eg_size_parse(text, &v)) {
            snprintf(why, why_size,
                     "must be a whole number of bytes, or a size such as 64k, 16m or 1g");
            return EG_EINVALID;
        }
        return eg_setting_set_number(d, s, v, why, why_size);
    case EG_SETTING_DUR:
        if (ms ? !parse_whole(text, &v) : !eg_duration_parse(text, &v)) {
            snprintf(why, why_size,
                     ms ? "must be a whole number of milliseconds"
                        : "must be a duration such as 10, 500ms, 10s, 5m, 2h or 7d");
            return EG_EINVALID;
        }
        return eg_setting_set_number(d, s, v, why, why_size);
    case EG_SETTING_LIST:
        return set_list_text(d, s, text, why, why_size);
    case EG_SETTING_BOOL:
        if (!parse_bool(text, bool_at(d, s))) {
            snprintf(why, why_size, "must be true or false");
            return EG_EINVALID;
        }
        return EG_OK;
    case EG_SETTING_STR:
        break;
    }
    char *copy = strdup(text);
    if (!copy)
        return EG_ENOMEM;
    free(*text_at(d, s));
    *text_at(d, s) = copy;
    return EG_OK;
}

void eg_setting_print(const struct eg_setting *d, const struct eg_settings *s, struct eg_buf *out)
{
    switch (d->type) {
    case EG_SETTING_INT:
    case EG_SETTING_SIZE:
        eg_buf_int(out, *number_at(d, s));
        break;
    case EG_SETTING_DUR:
        eg_buf_char(out, '"');
        eg_duration_print(*number_at(d, s), out);
        eg_buf_char(out, '"');
        break;
    case EG_SETTING_BOOL:
        eg_buf_str(out, *bool_at(d, s) ? "true" : "false");
        break;
    case EG_SETTING_STR:
    case EG_SETTING_LIST:
        eg_setting_json(d, s, out);
        break;
    }
}

void eg_setting_json(const struct eg_setting *d, const struct eg_settings *s, struct eg_buf *out)
{
    switch (d->type) {
    case EG_SETTING_INT:
    case EG_SETTING_SIZE:
    case EG_SETTING_DUR:
        eg_buf_int(out, *number_at(d, s));
        break;
    case EG_SETTING_BOOL:
        eg_buf_str(out, *bool_at(d, s) ? "true" : "false");
        break;
    case EG_SETTING_STR:
        eg_json_quote(out, eg_slice_cstr(*text_at(d, s)));
        break;
    case EG_SETTING_LIST:
        eg_buf_char(out, '[');
        for (char **p = *list_at(d, s); p && *p; p++) {
            if (p != *list_at(d, s))
                eg_buf_str(out, ", ");
            eg_json_quote(out, eg_slice_cstr(*p));
        }
        eg_buf_char(out, ']');
        break;
    }
}

bool eg_setting_same(const struct eg_setting *d, const struct eg_settings *a,
                     const struct eg_settings *b)
{
    switch (d->type) {
    case EG_SETTING_INT:
    case EG_SETTING_SIZE:
    case EG_SETTING_DUR:
        return *number_at(d, a) == *number_at(d, b);
    case EG_SETTING_BOOL:
        return *bool_at(d, a) == *bool_at(d, b);
    case EG_SETTING_STR:
        return strcmp(*text_at(d, a), *text_at(d, b)) == 0;
    case EG_SETTING_LIST:
        break;
    }
    char **x = *list_at(d, a), **y = *list_at(d, b);
    while (*x && *y && strcmp(*x, *y) == 0) {
        x++;
        y++;
    }
    return !*x && !*y;
}

enum eg_err eg_setting_copy(const struct eg_setting *d, const struct eg_settings *from,
                            struct eg_settings *to)
{
    char why[64];
    switch (d->type) {
    case EG_SETTING_INT:
    case EG_SETTING_SIZE:
    case EG_SETTING_DUR:
        *number_at(d, to) = *number_at(d, from);
        return EG_OK;
    case EG_SETTING_BOOL:
        *bool_at(d, to) = *bool_at(d, from);
        return EG_OK;
    case EG_SETTING_STR:
        return eg_setting_set_text(d, to, *text_at(d, from), false, why, sizeof why);
    case EG_SETTING_LIST:
        break;
    }
    char **list = *list_at(d, from);
    return eg_setting_set_list(d, to, (const char *const *)list, list_length(list), why,
                               sizeof why);
}

bool eg_duration_parse(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"", 1000},   {"ms", 1},         {"s", 1000},
                 {"m", 60000}, {"h", EG_HOUR_MS}, {"d", EG_DAY_MS}};
    const int64_t limit = 100000LL * 365 * EG_DAY_MS;
    int64_t whole = 0, part = 0, scale = 1;
    const char *p = text;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (whole > limit / 10)
            return false;
        whole = whole * 10 + (*p - '0');
    }
    if (*p == '.') {
        p++;
        if (*p < '0' || *p > '9')
            return false;
        for (; *p >= '0' && *p <= '9'; p++) {
            if (scale < 1000000000) { /* further digits are below a microsecond of a day */
                part = part * 10 + (*p - '0');
                scale *= 10;
            }
        }
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(p, units[i].unit) != 0)
            continue;
        if (whole > limit / units[i].ms)
            return false;
        *ms = whole * units[i].ms + part * units[i].ms / scale;
        return true;
    }
    return false;
}

void eg_duration_print(int64_t ms, struct eg_buf *out)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"d", EG_DAY_MS}, {"h", EG_HOUR_MS}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (ms % units[i].ms == 0 && (ms != 0 || units[i].ms == 1000)) {
            eg_buf_int(out, ms / units[i].ms);
            eg_buf_str(out, units[i].unit);
            return;
        }
    }
}

bool eg_size_parse(const char *text, int64_t *bytes)
{
    static const char units[] = "kmg";
    int64_t v = 0, unit = 1;
    const char *p = text;
    bool fits = true;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        fits =
            fits && !__builtin_mul_overflow(v, 10, &v) && !__builtin_add_overflow(v, *p - '0', &v);
    if (*p) {
        const char *at = strchr(units, *p | 0x20);
        if (!at || p[1])
            return false;
        unit = INT64_C(1) << 10 * (at - units + 1);
    }
    *bytes = fits && !__builtin_mul_overflow(v, unit, &v) ? v : INT64_MAX;
    return true;
}

void eg_size_print(int64_t bytes, struct eg_buf *out)
{
    static const char units[] = {'g', 'm', 'k'};
    int64_t unit = INT64_C(1) << 30;
    for (size_t i = 0; i < sizeof units; i++, unit >>= 10) {
        if (bytes != 0 && bytes % unit == 0) {
            eg_buf_int(out, bytes / unit);
            eg_buf_char(out, units[i]);
            return;
        }
    }
    eg_buf_int(out, bytes);
}
