/*
 * serve_start.c - the order in which the gateway's parts start and stop.
 *
 * Start: descriptors, storage (takes the data folder's lock), keys, auth and limits, reactors,
 * core, reactor threads, retention, admin listener, public listener. Stop is the reverse, except
 * that the reactors end before the core, whose last batch then goes nowhere, and are freed after
 * it, and that the admin listener, whose requests ask the public one, goes before that. Failure
 * modes: each is one line on stderr and an exit code: 75 what may pass by itself (folder or address
 * in use, disk full), 78 what a person must put right, 70 a library that fails its test.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/keys.h"
#include "app/notify.h"
#include "app/serve.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/sqlite.h"

/* Hooks of the core; its thread. */
static void on_release(void *arg, unsigned reactor, struct eg_release *r)
{
    struct eg_serve *s = arg;
    eg_reactors_release(s->reactors, reactor, r);
}

static void on_revoked(void *arg, const char *what, int64_t until_ms)
{
    struct eg_serve *s = arg;
    eg_auth_revoked(s->auth, what, until_ms);
    eg_reactors_judge(s->reactors);
}

static void on_storage(void *arg, const char *why)
{
    (void)arg;
    eg_notify("STATUS=%s", why ? "storage is unavailable" : "serving");
}

static void on_fatal(void *arg, const char *why)
{
    (void)arg;
    eg_log(EG_LOG_ERROR, "storage.unknown", "why=%s" EG_F "exit=%d", why, EG_EXIT_RETRY);
    eg_notify("STATUS=%s", "a flush failed; starting again from the disk");
    _exit(EG_EXIT_RETRY);
}

/* What an error at start means for who starts us again. */
static int exit_of(enum eg_err err)
{
    switch (err) {
    case EG_EINVALID:
    case EG_ECORRUPT:
    case EG_ETOONEW:
    case EG_EDENIED:
    case EG_ENOTFOUND:
        return EG_EXIT_CONFIG;
    default:
        return EG_EXIT_RETRY;
    }
}

static int fail(const struct eg_serve *s, enum eg_err err, const char *what, const char *why)
{
    eg_complain(s->cmd, "%s: %s", what, *why ? why : eg_err_text(err));
    return exit_of(err);
}

static int start_keys(struct eg_serve *s)
{
    char why[512] = "", made[512];
    struct eg_keyring *ring = NULL;
    eg_serve_only_writer(&s->lock);
    enum eg_err err = eg_keys_load(s->settings, true, &ring, made, sizeof made, why, sizeof why);
    if (err != EG_OK)
        return fail(s, err, "keys", why);
    if (*made)
        eg_log(EG_LOG_INFO, "key.made", "path=%s" EG_F "kid=%s", made, eg_keyring_at(ring, 0)->kid);
    err = eg_auth_new(ring, s->settings, &s->auth);
    eg_keyring_unref(ring);
    return err == EG_OK ? EG_PROCEED : fail(s, err, "tokens", "");
}

static int start_core(struct eg_serve *s, struct eg_storage *storage)
{
    eg_serve_only_writer(&s->lock);
    const struct eg_core_hooks hooks = {on_release, on_revoked, on_storage, on_fatal, s};
    const struct eg_reactors_config config = {.count = s->reactor_count,
                                              .settings = s->settings,
                                              .auth = s->auth,
                                              .limits = s->limits,
                                              .dir = s->settings->data};
    enum eg_err err = eg_reactors_new(&config, &s->reactors);
    if (err != EG_OK) {
        storage->ops->close(storage);
        return fail(s, err, "network threads", "");
    }
    err = eg_core_start(storage, s->settings, s->reactor_count, &hooks, &s->core);
    if (err != EG_OK)
        return fail(s, err, "core", "");
    err = eg_reactors_start(s->reactors, s->core);
    return err == EG_OK ? EG_PROCEED : fail(s, err, "network threads", "");
}

/* What the admin API asks of the app; HTTP threads. */
static void on_drain(void *arg)
{
    (void)arg;
    eg_log(EG_LOG_INFO, "stop.asked", NULL);
    kill(getpid(), SIGTERM);
}

static void on_config(void *arg, struct eg_buf *out)
{
    eg_serve_print_config(arg, out);
}

static enum eg_err on_reload_keys(void *arg, char *why, size_t why_size)
{
    return eg_serve_reload_keys(arg, why, why_size);
}

static int start_http(struct eg_serve *s)
{
    eg_serve_only_writer(&s->lock);
    const struct eg_http_config config = {.core = s->core,
                                          .reactors = s->reactors,
                                          .auth = s->auth,
                                          .settings = s->settings,
                                          .dir = s->settings->data,
                                          .arg = s,
                                          .drain = on_drain,
                                          .config = on_config,
                                          .reload_keys = on_reload_keys};
    enum eg_err err = eg_http_new(&config, &s->http);
    return err == EG_OK ? EG_PROCEED : fail(s, err, "HTTP", "");
}

static int start_listener(struct eg_serve *s, bool admin)
{
    struct eg_listener **to = admin ? &s->admin_listener : &s->public_listener;
    char why[512] = "";
    eg_serve_only_writer(&s->lock);
    const struct eg_listener_config config = {.address =
                                                  admin ? s->settings->admin : s->settings->listen,
                                              .workers = admin ? 8 : (int)s->settings->workers,
                                              .settings = s->settings,
                                              .reactors = admin ? NULL : s->reactors,
                                              .limits = admin ? NULL : s->limits,
                                              .request = admin ? eg_http_admin : eg_http_public,
                                              .arg = s->http};
    enum eg_err err = eg_listener_start(&config, to, why, sizeof why);
    if (err == EG_OK) {
        eg_http_listener(s->http, admin, *to);
        return EG_PROCEED;
    }
    int code = fail(s, err, admin ? "admin listener" : "public listener", why);
    return err == EG_ECORRUPT ? EG_EXIT_INTERNAL : code;
}

int eg_serve_start(struct eg_serve *s)
{
    char why[512] = "";
    struct eg_storage *storage = NULL;
    int code;
    eg_serve_only_writer(&s->lock);
    umask(077);
    eg_serve_fit_files(s->settings);
    s->reactor_count = (unsigned)s->settings->reactors;
    if (s->reactor_count == 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        s->reactor_count = n < 1 ? 1 : n > 4 ? 4 : (unsigned)n;
    }
    enum eg_err err = eg_sqlite_open(s->settings->data, &storage, why, sizeof why);
    if (err != EG_OK)
        return fail(s, err, "data folder", why);
    eg_metric_set(EG_M_storage_ok, 1);
    code = start_keys(s);
    if (code == EG_PROCEED && (err = eg_limits_new(s->settings, &s->limits)) != EG_OK)
        code = fail(s, err, "limits", "");
    if (code != EG_PROCEED) {
        storage->ops->close(storage);
        return code;
    }
    code = start_core(s, storage);
    if (code == EG_PROCEED) {
        err = eg_maintain_start(s->core, s->settings, &s->maintain, why, sizeof why);
        code = err == EG_OK ? EG_PROCEED : fail(s, err, "retention", why);
    }
    if (code == EG_PROCEED)
        code = start_http(s);
    if (code == EG_PROCEED)
        code = start_listener(s, true);
    if (code == EG_PROCEED)
        code = start_listener(s, false);
    return code;
}

void eg_serve_stop(struct eg_serve *s)
{
    eg_http_stop(s->http);
    if (s->admin_listener)
        eg_listener_stop(s->admin_listener);
    if (s->public_listener)
        eg_listener_stop(s->public_listener);
    eg_http_free(s->http);
    eg_maintain_stop(s->maintain);
    if (s->reactors && s->core)
        eg_reactors_end(s->reactors);
    if (s->core)
        eg_core_stop(s->core);
    if (s->reactors)
        eg_reactors_stop(s->reactors);
    eg_limits_free(s->limits);
    eg_auth_free(s->auth);
    s->public_listener = s->admin_listener = NULL;
    s->http = NULL;
    s->core = NULL;
    s->maintain = NULL;
    s->reactors = NULL;
    s->limits = NULL;
    s->auth = NULL;
}
