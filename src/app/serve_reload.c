/*
 * serve_reload.c - SIGHUP: configuration and keys are read again while everything runs.
 *
 * Main thread. Says what changed and what needs a restart; on a mistake lists it and keeps what was
 * in force. Configuration and keys are judged apart: a mistake in one does not hold up the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/keys.h"
#include "app/serve.h"
#include "base/log.h"
#include "wire/json.h"

/* One log entry for each line of text. */
static void log_lines(const struct eg_buf *text, enum eg_log_level level, const char *event)
{
    for (size_t at = 0; at < text->n;) {
        const char *line = text->p + at;
        const char *end = memchr(line, '\n', text->n - at);
        size_t n = end ? (size_t)(end - line) : text->n - at;
        eg_log(level, event, "text=%.*s", (int)n, line);
        at += n + 1;
    }
}

static void log_change(const struct eg_setting *d, const struct eg_settings *old,
                       const struct eg_settings *new, enum eg_log_level level, const char *event)
{
    struct eg_buf a = {0}, b = {0};
    eg_setting_print(d, old, &a);
    eg_setting_print(d, new, &b);
    char *from = eg_buf_take(&a), *to = eg_buf_take(&b);
    eg_log(level, event, "name=%s" EG_F "from=%s" EG_F "to=%s", d->name, from ? from : "?",
           to ? to : "?");
    free(from);
    free(to);
}

/*
 * Compares and says what differs. What cannot change at run time gets its old value in new.
 * Returns how many values changed, -1 without memory.
 */
static int settle(const struct eg_settings *old, struct eg_settings *new)
{
    int changed = 0;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        if (eg_setting_same(d, old, new))
            continue;
        if (d->reloadable) {
            log_change(d, old, new, EG_LOG_INFO, "reload.changed");
            changed++;
            continue;
        }
        log_change(d, old, new, EG_LOG_WARN, "reload.needs_restart");
        if (eg_setting_copy(d, old, new) != EG_OK)
            return -1;
    }
    return changed;
}

static void hand_out(struct eg_serve *s, struct eg_settings *new)
{
    enum eg_log_level level;
    enum eg_log_format format;
    if (eg_log_level_parse(new->log_level, &level) == EG_OK &&
        eg_log_format_parse(new->log_format, &format) == EG_OK)
        eg_log_setup(level, format);
    eg_auth_settings(s->auth, new);
    eg_limits_settings(s->limits, new);
    eg_reactors_settings(s->reactors, new);
    eg_core_settings(s->core, new);
    eg_maintain_settings(s->maintain, new);
    eg_listener_settings(s->public_listener, new);
    eg_listener_settings(s->admin_listener, new);
    eg_http_settings(s->http, new);
    eg_serve_lock(&s->lock);
    eg_settings_unref(s->settings);
    s->settings = eg_settings_ref(new);
    eg_serve_unlock(&s->lock);
}

static void reload_config(struct eg_serve *s)
{
    struct eg_config c;
    enum eg_err err = eg_config_load(&s->args, &c);
    if (err == EG_ENOMEM) {
        eg_log(EG_LOG_ERROR, "reload.refused", "why=%s", eg_err_text(err));
        return;
    }
    log_lines(&c.warnings, EG_LOG_WARN, "reload.warning");
    if (err != EG_OK) {
        log_lines(&c.mistakes, EG_LOG_ERROR, "reload.mistake");
        eg_log(EG_LOG_ERROR, "reload.refused", "mistakes=%d" EG_F "kept=%s", c.mistake_count,
               "the configuration in force");
    } else {
        eg_serve_fit_files(c.settings);
        eg_serve_only_writer(&s->lock);
        int changed = settle(s->settings, c.settings);
        if (changed > 0)
            hand_out(s, c.settings);
        if (changed >= 0)
            eg_log(EG_LOG_INFO, "reload.config", "changed=%d", changed);
        else
            eg_log(EG_LOG_ERROR, "reload.refused", "why=%s", eg_err_text(EG_ENOMEM));
    }
    eg_config_free(&c);
}

static bool has_kid(const struct eg_keyring *r, const char *kid)
{
    for (int i = 0; i < eg_keyring_count(r); i++) {
        if (strcmp(eg_keyring_at(r, i)->kid, kid) == 0)
            return true;
    }
    return false;
}

/* Says which keys of a are not in b. Returns how many. */
static int missing_keys(const struct eg_keyring *a, const struct eg_keyring *b, const char *event)
{
    int n = 0;
    for (int i = 0; i < eg_keyring_count(a); i++) {
        const char *kid = eg_keyring_at(a, i)->kid;
        if (!has_kid(b, kid)) {
            eg_log(EG_LOG_INFO, event, "kid=%s", kid);
            n++;
        }
    }
    return n;
}

enum eg_err eg_serve_reload_keys(struct eg_serve *s, char *why, size_t why_size)
{
    char made[8];
    struct eg_keyring *new = NULL;
    eg_serve_lock(&s->lock);
    enum eg_err err = eg_keys_load(s->settings, false, &new, made, sizeof made, why, why_size);
    if (err != EG_OK) {
        if (!*why)
            snprintf(why, why_size, "%s", eg_err_text(err));
        goto out;
    }
    struct eg_keyring *old = eg_auth_ring(s->auth);
    int changed =
        missing_keys(new, old, "reload.key_added") + missing_keys(old, new, "reload.key_withdrawn");
    eg_keyring_unref(old);
    if (changed) {
        eg_auth_keyring(s->auth, new);
        eg_reactors_judge(s->reactors);
    }
    eg_log(EG_LOG_INFO, "reload.keys", "changed=%d", changed);
    eg_keyring_unref(new);
out:
    eg_serve_unlock(&s->lock);
    return err;
}

void eg_serve_print_config(struct eg_serve *s, struct eg_buf *out)
{
    eg_serve_lock(&s->lock);
    struct eg_settings *now = eg_settings_ref(s->settings);
    eg_serve_unlock(&s->lock);
    eg_buf_char(out, '{');
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        char key[64];
        snprintf(key, sizeof key, "%s%s", d->name, d->type == EG_SETTING_DUR ? "_ms" : "");
        eg_json_key(out, key);
        eg_setting_json(d, now, out);
    }
    eg_buf_char(out, '}');
    eg_settings_unref(now);
}

void eg_serve_reload(struct eg_serve *s)
{
    char why[512] = "";
    eg_log(EG_LOG_INFO, "reload.start", NULL);
    reload_config(s);
    if (eg_serve_reload_keys(s, why, sizeof why) != EG_OK)
        eg_log(EG_LOG_ERROR, "reload.keys_refused", "why=%s" EG_F "kept=%s", why,
               "the keys in force");
    eg_log(EG_LOG_INFO, "reload.done", NULL);
}
