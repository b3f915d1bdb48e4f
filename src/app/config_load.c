/*
 * config_load.c - see config.h: all sources into one snapshot.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/config.h"
#include "wire/token.h"

/* EBBGATE_ names that are no settings. */
static const char *const other_names[] = {"CONFIG",  "TOKEN", "URL",    "AGENT", "SESSION",
                                          "ATTEMPT", "TURN",  "SOURCE", "BIN",   "ADMIN_URL"};

/* Sets d from text and notes origin or mistake. False without memory. */
static bool set_text(struct eg_config *c, const struct eg_setting *d, bool ms, const char *where,
                     const char *text)
{
    char why[160] = "";
    switch (eg_setting_set_text(d, c->settings, text, ms, why, sizeof why)) {
    case EG_OK:
        return eg_config_origin(c, d, where, 0);
    case EG_ENOMEM:
        return false;
    default:
        eg_config_mistake(c, where, 0, "%s", why);
        return true;
    }
}

static int conf_only(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".conf") == 0;
}

/* NAME.conf of the folder conf.d beside file, in order of name. */
static bool read_folder(struct eg_config *c, const char *file)
{
    bool ok = true;
    char *dir = NULL;
    struct dirent **names = NULL;
    const char *slash = strrchr(file, '/');
    if (asprintf(&dir, "%.*sconf.d", slash ? (int)(slash - file + 1) : 0, file) < 0)
        return false;
    int n = scandir(dir, &names, conf_only, alphasort);
    if (n < 0 && errno == ENOMEM)
        ok = false;
    else if (n < 0 && errno != ENOENT && errno != ENOTDIR)
        eg_config_mistake(c, dir, 0, "cannot be read: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        if (ok && asprintf(&path, "%s/%s", dir, names[i]->d_name) > 0) {
            ok = eg_config_read_file(c, path);
            free(path);
        }
        free(names[i]);
    }
    free(names);
    free(dir);
    return ok;
}

static bool is_other(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++) {
        if (strlen(other_names[i]) == n && memcmp(other_names[i], name, n) == 0)
            return true;
    }
    return false;
}

/* EBBGATE_NAME=value; an unknown one is worth a warning, not a refusal. */
static bool read_env(struct eg_config *c, char **env, bool quiet)
{
    for (; env && *env; env++) {
        const char *eq = strchr(*env, '=');
        if (strncmp(*env, "EBBGATE_", 8) != 0 || !eq)
            continue;
        const char *name = *env + 8;
        size_t n = (size_t)(eq - name);
        char lower[64], where[96];
        bool ms = false;
        if (is_other(name, n) || n >= sizeof lower)
            continue;
        for (size_t i = 0; i < n; i++)
            lower[i] = (char)tolower((unsigned char)name[i]);
        lower[n] = '\0';
        snprintf(where, sizeof where, "environment EBBGATE_%.*s", (int)n, name);
        const struct eg_setting *d = eg_setting_find(lower, &ms);
        if (d) {
            if (!set_text(c, d, ms, where, eq + 1))
                return false;
            continue;
        }
        if (quiet)
            continue;
        const char *near = eg_setting_suggest(lower);
        char upper[64] = "";
        for (size_t i = 0; near && near[i] && i < sizeof upper - 1; i++)
            upper[i] = (char)toupper((unsigned char)near[i]);
        if (near)
            eg_buf_printf(&c->warnings, "%s: names no setting; did you mean EBBGATE_%s?\n", where,
                          upper);
        else
            eg_buf_printf(&c->warnings, "%s: names no setting\n", where);
    }
    return true;
}

static bool read_flags(struct eg_config *c, const struct eg_config_args *args)
{
    for (int i = 0; i < args->nflags; i++) {
        char where[80];
        bool ms = false;
        const struct eg_setting *d = eg_setting_find(args->flags[i].name, &ms);
        snprintf(where, sizeof where, "--%s", args->flags[i].name);
        if (!d)
            eg_config_mistake(c, where, 0, "unknown flag");
        else if (!set_text(c, d, ms, where, args->flags[i].value))
            return false;
    }
    return true;
}

/* An empty data setting becomes the user's data folder. */
static bool resolve_data(struct eg_config *c, char **env)
{
    const char *xdg = NULL, *home = NULL;
    char *path = NULL;
    if (*c->settings->data)
        return true;
    for (char **e = env; e && *e; e++) {
        if (strncmp(*e, "XDG_DATA_HOME=/", 15) == 0)
            xdg = *e + 14;
        else if (strncmp(*e, "HOME=/", 6) == 0)
            home = *e + 5;
    }
    const struct passwd *pw = home || xdg ? NULL : getpwuid(getuid());
    if (pw && pw->pw_dir && pw->pw_dir[0] == '/')
        home = pw->pw_dir;
    if (!xdg && !home) {
        eg_config_mistake(c, "data", 0, "there is no home folder to put it in; name one");
        return true;
    }
    if (asprintf(&path, "%s%s/ebbgate", xdg ? xdg : home, xdg ? "" : "/.local/share") < 0)
        return false;
    free(c->settings->data);
    c->settings->data = path;
    return true;
}

static void note_check(void *arg, const struct eg_setting *d, const char *text)
{
    struct eg_config *c = arg;
    const char *origin = c->origin[d - eg_setting_table];
    eg_config_mistake(c, origin ? origin : "default", 0, "%s %s", d->name, text);
}

static const char *env_get(char **env, const char *name)
{
    size_t n = strlen(name);
    for (; env && *env; env++) {
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=' && (*env)[n + 1])
            return *env + n + 1;
    }
    return NULL;
}

/* Without a key_file, a credential of the service manager is the key, when there is one. */
static bool resolve_key(struct eg_config *c, char **env)
{
    bool ms;
    char *path = NULL;
    const char *dir = env_get(env, "CREDENTIALS_DIRECTORY");
    if (*c->settings->key_file || !dir)
        return true;
    if (asprintf(&path, "%s/" EG_CREDENTIAL, dir) < 0)
        return false;
    if (access(path, F_OK) != 0) {
        free(path);
        return true;
    }
    free(c->settings->key_file);
    c->settings->key_file = path;
    return eg_config_origin(c, eg_setting_find("key_file", &ms), "credential " EG_CREDENTIAL, 0);
}

/* A key that cannot be used is a mistake, told as `serve` would. */
static bool look_at_key(struct eg_config *c)
{
    char why[512] = "";
    struct eg_keyring *ring = NULL;
    if (!*c->settings->key_file)
        return true;
    const enum eg_err err = eg_keyring_load(NULL, c->settings->key_file, &ring, why, sizeof why);
    if (err != EG_OK && err != EG_ENOMEM)
        eg_config_mistake(c, "key_file", 0, "%s", *why ? why : eg_err_text(err));
    eg_keyring_unref(ring);
    return err != EG_ENOMEM;
}

/* The file to read when none was named: the environment's, else the system's if we may. */
static const char *default_file(char **env)
{
    const char *file = env_get(env, "EBBGATE_CONFIG");
#ifdef EG_CONFIG_FILE
    if (!file && access(EG_CONFIG_FILE, R_OK) == 0)
        file = EG_CONFIG_FILE;
#endif
    return file;
}

enum eg_err eg_config_load(const struct eg_config_args *args, struct eg_config *out)
{
    memset(out, 0, sizeof *out);
    const char *file = args->file ? args->file : default_file(args->env);
    out->settings = eg_settings_new();
    bool ok = out->settings != NULL;
    if (ok && file) {
        out->file = strdup(file);
        ok = out->file && eg_config_read_file(out, file) && read_folder(out, file);
    }
    ok = ok && read_env(out, args->env, args->quiet) && read_flags(out, args);
    ok = ok && resolve_data(out, args->env) && resolve_key(out, args->env);
    if (ok)
        eg_settings_check(out->settings, note_check, out);
    ok = ok && (!args->look || look_at_key(out));
    if (!ok) {
        eg_config_free(out);
        return EG_ENOMEM;
    }
    return out->mistake_count ? EG_EINVALID : EG_OK;
}
