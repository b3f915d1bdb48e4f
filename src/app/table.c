/*
 * table.c - see table.h.
 */
#include "app/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/fields.h"
#include "app/text.h"
#include "base/log.h"
#include "ebbgate/protocol.h"

static int count_columns(const struct eg_column *c)
{
    int n = 0;
    while (c[n].title)
        n++;
    return n;
}

void eg_each_element(struct eg_slice array, void (*fn)(void *arg, struct eg_slice text), void *arg)
{
    int depth = 0;
    bool in_string = false;
    size_t from = 1;
    for (size_t i = 0; i < array.n; i++) {
        char c = array.p[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if (c == '{' || c == '[')
            depth++;
        bool ends = depth == 1 && (c == ',' || c == ']');
        if (ends) {
            struct eg_slice e = {array.p + from, i - from};
            while (e.n > 0 && strchr(" \t\r\n", *e.p)) {
                e.p++;
                e.n--;
            }
            while (e.n > 0 && strchr(" \t\r\n", e.p[e.n - 1]))
                e.n--;
            if (e.n > 0)
                fn(arg, e);
            from = i + 1;
        }
        if (c == '}' || c == ']')
            depth--;
    }
}

static void count_one(void *arg, struct eg_slice text)
{
    (void)text;
    ++*(int *)arg;
}

static void print_age(struct eg_slice raw, int64_t now_ms, struct eg_buf *out)
{
    int64_t s = now_ms / 1000 - (int64_t)eg_json_double(raw);
    if (s < 0)
        s = 0;
    if (s < 120)
        eg_buf_printf(out, "%llds", (long long)s);
    else if (s < 7200)
        eg_buf_printf(out, "%lldm", (long long)(s / 60));
    else if (s < 172800)
        eg_buf_printf(out, "%lldh", (long long)(s / 3600));
    else
        eg_buf_printf(out, "%lldd", (long long)(s / 86400));
}

static void print_bytes(struct eg_slice raw, struct eg_buf *out)
{
    static const char units[] = "BKMGT";
    double v = eg_json_double(raw);
    int u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    eg_buf_printf(out, u == 0 || v >= 10 ? "%.0f%c" : "%.1f%c", v, units[u]);
}

/* The text, safe for a terminal and on one line; NULL without memory. Frees text. */
static char *shown(struct eg_buf *text)
{
    struct eg_buf safe = {0};
    for (size_t i = 0; i < text->n; i++) {
        if (text->p[i] == '\n' || text->p[i] == '\t')
            text->p[i] = ' ';
    }
    eg_text_show(&safe, (struct eg_slice){text->p, text->n});
    eg_buf_free(text);
    return eg_buf_take(&safe);
}

/* The cells of one more row, to be filled; NULL without memory. */
static char **add_row(struct eg_table *t)
{
    if (t->rows == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        char **grown = realloc(t->cells, cap * (size_t)t->width * sizeof *grown);
        if (!grown)
            return NULL;
        t->cells = grown;
        t->cap = cap;
    }
    return t->cells + t->rows++ * (size_t)t->width;
}

static char *cell(const struct eg_json_doc *doc, const struct eg_column *c, int64_t now_ms)
{
    struct eg_buf text = {0};
    struct eg_slice raw = eg_field_raw(doc, c->member);
    int n = 0;
    if (raw.n == 0) {
        eg_buf_char(&text, '-');
    } else if (c->kind == EG_COLUMN_AGE) {
        print_age(raw, now_ms, &text);
    } else if (c->kind == EG_COLUMN_BYTES) {
        print_bytes(raw, &text);
    } else if (c->kind == EG_COLUMN_COUNT) {
        eg_each_element(raw, count_one, &n);
        eg_buf_int(&text, n);
    } else {
        eg_content_text(raw, &text);
    }
    return shown(&text);
}

bool eg_table_row(struct eg_table *t, struct eg_slice object, int64_t now_ms)
{
    struct eg_json_doc doc;
    bool ok = true;
    t->width = count_columns(t->columns);
    if (eg_json_scan(object, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return true;
    char **row = add_row(t);
    if (!row)
        return false;
    for (int i = 0; i < t->width; i++) {
        row[i] = cell(&doc, &t->columns[i], now_ms);
        ok = ok && row[i];
    }
    return ok;
}

/* How many columns of a terminal a text takes, near enough: one a character. */
static int shown_width(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((uint8_t)*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(struct eg_buf *out, const char *text, int width, bool last)
{
    eg_buf_str(out, text);
    for (int n = shown_width(text); !last && n < width + 2; n++)
        eg_buf_char(out, ' ');
}

void eg_table_print(const struct eg_table *t, struct eg_buf *out)
{
    int width[EG_COLUMNS_MAX] = {0};
    int columns = count_columns(t->columns);
    for (int i = 0; i < columns; i++) {
        width[i] = shown_width(t->columns[i].title);
        for (size_t r = 0; r < t->rows; r++) {
            const char *text = t->cells[r * (size_t)columns + (size_t)i];
            int n = text ? shown_width(text) : 0;
            width[i] = n > width[i] ? n : width[i];
        }
    }
    for (int i = 0; i < columns; i++)
        print_cell(out, t->columns[i].title, width[i], i == columns - 1);
    eg_buf_char(out, '\n');
    for (size_t r = 0; r < t->rows; r++) {
        for (int i = 0; i < columns; i++) {
            const char *text = t->cells[r * (size_t)columns + (size_t)i];
            print_cell(out, text ? text : "?", width[i], i == columns - 1);
        }
        eg_buf_char(out, '\n');
    }
}

/* Names of members that are times, in seconds since 1970. */
static bool is_time(struct eg_slice name)
{
    static const char *const names[] = {"created", "last_activity", "closed",        "registered",
                                        "started", "finished",      "now",           "since",
                                        "until",   "expires",       "oldest_waiting"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (eg_slice_is(name, names[i]))
            return true;
    }
    return false;
}

/* Lines of name and value under way: a table of two columns. */
struct lines {
    struct eg_table t;
    struct eg_slice prefix; /* name of the object that the members belong to, with a dot behind */
    struct eg_slice name;   /* of the array whose elements come */
    bool failed;
};

/* Frees value. */
static void add_line(struct lines *l, struct eg_slice name, struct eg_buf *value)
{
    struct eg_buf full = {0};
    char **row = add_row(&l->t);
    l->failed = l->failed || !row || value->err != EG_OK;
    if (!row) {
        eg_buf_free(value);
        return;
    }
    if (value->n == 0)
        eg_buf_char(value, '-');
    eg_buf_slice(&full, l->prefix);
    eg_buf_slice(&full, name);
    row[0] = eg_buf_take(&full);
    row[1] = shown(value);
    eg_buf_free(&full);
    l->failed = l->failed || !row[0] || !row[1];
}

static void add_element(void *arg, struct eg_slice text)
{
    struct lines *l = arg;
    struct eg_buf value = {0};
    eg_content_text(text, &value);
    add_line(l, l->name, &value);
}

/* Adds a member that is no object. */
static void add_member(struct lines *l, const struct eg_json_member *m)
{
    struct eg_buf value = {0};
    const size_t before = l->t.rows;
    if (m->kind == EG_JSON_ARRAY) {
        l->name = m->key;
        eg_each_element(m->value, add_element, l);
        if (l->t.rows > before)
            return;
    } else if (m->kind == EG_JSON_NUMBER && is_time(m->key)) {
        eg_log_time(&value, (int64_t)(eg_json_double(m->value) * 1000 + 0.5));
    } else if (m->kind != EG_JSON_NULL) {
        eg_content_text(m->value, &value);
    }
    add_line(l, m->key, &value);
}

/* The members of the object at one level below: NAME.MEMBER. */
static void add_inner(struct lines *l, const struct eg_json_member *outer)
{
    struct eg_json_doc doc;
    struct eg_buf prefix = {0};
    if (eg_json_scan(outer->value, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return;
    eg_buf_slice(&prefix, outer->key);
    eg_buf_char(&prefix, '.');
    l->prefix = (struct eg_slice){prefix.p, prefix.n};
    for (int i = 0; i < doc.members; i++)
        add_member(l, &doc.member[i]);
    l->prefix = (struct eg_slice){NULL, 0};
    l->failed = l->failed || prefix.err != EG_OK;
    eg_buf_free(&prefix);
}

bool eg_record_print(struct eg_slice object, struct eg_buf *out)
{
    struct eg_json_doc doc;
    struct lines l = {.t = {.width = 2}};
    int width = 0;
    if (eg_json_scan(object, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return true;
    for (int i = 0; i < doc.members; i++) {
        if (doc.member[i].kind == EG_JSON_OBJECT)
            add_inner(&l, &doc.member[i]);
        else
            add_member(&l, &doc.member[i]);
    }
    for (size_t i = 0; !l.failed && i < l.t.rows; i++) {
        const int n = shown_width(l.t.cells[i * 2]);
        width = n > width ? n : width;
    }
    for (size_t i = 0; !l.failed && i < l.t.rows; i++) {
        print_cell(out, l.t.cells[i * 2], width, false);
        eg_buf_str(out, l.t.cells[i * 2 + 1]);
        eg_buf_char(out, '\n');
    }
    eg_table_free(&l.t);
    return !l.failed && out->err == EG_OK;
}

void eg_table_free(struct eg_table *t)
{
    for (size_t i = 0; i < t->rows * (size_t)t->width; i++)
        free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->rows = t->cap = 0;
}
