/*
 * config.c - see config.h: a configuration's mistakes and origins, and how it is printed.
 */
#include "app/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json.h"

void eg_config_mistake(struct eg_config *c, const char *where, int line, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    eg_buf_str(&c->mistakes, where);
    if (line > 0)
        eg_buf_printf(&c->mistakes, ":%d", line);
    eg_buf_printf(&c->mistakes, ": %s\n", text);
    c->mistake_count++;
    c->flag_mistakes += strncmp(where, "--", 2) == 0;
}

bool eg_config_origin(struct eg_config *c, const struct eg_setting *d, const char *where, int line)
{
    struct eg_buf b = {0};
    eg_buf_str(&b, where);
    if (line > 0)
        eg_buf_printf(&b, ":%d", line);
    char *text = eg_buf_take(&b);
    if (!text)
        return false;
    free(c->origin[d - eg_setting_table]);
    c->origin[d - eg_setting_table] = text;
    return true;
}

bool eg_config_is_flag(const char *name)
{
    bool ms;
    return eg_setting_find(name, &ms) != NULL;
}

void eg_config_free(struct eg_config *c)
{
    eg_settings_unref(c->settings);
    for (int i = 0; i < EG_SETTING_COUNT; i++)
        free(c->origin[i]);
    free(c->file);
    eg_buf_free(&c->mistakes);
    eg_buf_free(&c->warnings);
    memset(c, 0, sizeof *c);
}

static void print_text(const struct eg_config *c, struct eg_buf *out)
{
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        size_t from = out->n;
        eg_buf_printf(out, "%s = ", d->name);
        eg_setting_print(d, c->settings, out);
        eg_buf_char(out, ';');
        for (size_t n = out->n - from; n < 44; n++)
            eg_buf_char(out, ' ');
        eg_buf_printf(out, " # %s\n", c->origin[i] ? c->origin[i] : "default");
    }
}

void eg_config_print(const struct eg_config *c, bool json, struct eg_buf *out)
{
    if (!json) {
        print_text(c, out);
        return;
    }
    eg_buf_char(out, '{');
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        char key[64];
        snprintf(key, sizeof key, "%s%s", d->name, d->type == EG_SETTING_DUR ? "_ms" : "");
        eg_json_key(out, key);
        eg_buf_str(out, "{\"value\":");
        eg_setting_json(d, c->settings, out);
        eg_json_kcstr(out, "from", c->origin[i] ? c->origin[i] : "default");
        eg_json_kbool(out, "reloadable", d->reloadable);
        eg_buf_char(out, '}');
    }
    eg_buf_str(out, "}\n");
}
