/*
 * http.c - the state that both listeners' requests share: made, told of changes, freed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/http_int.h"

enum eg_err eg_http_new(const struct eg_http_config *config, struct eg_http **out)
{
    struct eg_http *h = calloc(1, sizeof *h);
    if (!h)
        return EG_ENOMEM;
    h->config = *config;
    h->dir = strdup(config->dir);
    if (!h->dir) {
        free(h);
        return EG_ENOMEM;
    }
    h->config.dir = h->dir;
    eg_http_unshared(&h->lock);
    h->settings = eg_settings_ref(config->settings);
    h->started_ms = eg_clock_now().wall_ms;
    h->started_mono_ms = eg_clock_mono_ms();
    eg_http_init(&h->lock);
    eg_http_keys_init(&h->keys);
    eg_cond_init(&h->returned);
    *out = h;
    return EG_OK;
}

void eg_http_stop(struct eg_http *h)
{
    if (h)
        __atomic_store_n(&h->stopping, 1, __ATOMIC_RELEASE);
}

void eg_http_free(struct eg_http *h)
{
    if (!h)
        return;
    eg_http_unshared(&h->lock);
    if (h->backup.joinable)
        pthread_join(h->backup.thread, NULL);
    eg_http_close_readers(h);
    eg_settings_unref(h->settings);
    pthread_cond_destroy(&h->returned);
    eg_http_keys_destroy(&h->keys);
    eg_http_destroy(&h->lock);
    free(h->backup.to);
    free(h->dir);
    free(h);
}

void eg_http_settings(struct eg_http *h, struct eg_settings *settings)
{
    eg_http_lock(&h->lock);
    struct eg_settings *old = h->settings;
    h->settings = eg_settings_ref(settings);
    eg_http_unlock(&h->lock);
    eg_settings_unref(old);
}

void eg_http_listener(struct eg_http *h, bool admin, struct eg_listener *l)
{
    __atomic_store_n(&h->listener[admin], l, __ATOMIC_RELEASE);
}

void eg_http_started(struct eg_http *h)
{
    __atomic_store_n(&h->started, 1, __ATOMIC_RELEASE);
}
