/*
 * listener.c - see listener.h: starting and stopping the library, and what it calls; requests are
 * upgrade.c's.
 */
#include <civetweb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "edge/adopt.h"
#include "edge/listener_int.h"

#define START_WAIT_S 10 /* for workers to start, for the lobby to stand */
#define WAITING_MAX                                                                                \
    8192 /* sockets without a complete request head; everybody may come back at once */

/* What the library complained of while this thread was starting it. */
static _Thread_local char *complaint;
static _Thread_local size_t complaint_size;

static const char *subprotocol[] = {EG_SUBPROTOCOL};
static struct mg_websocket_subprotocols subprotocols = {1, subprotocol};

/* --- what the library calls ---------------------------------------------------------------- */

/* Who may is judged by eg_listener_request and by hello; without this the library looks for a file
 * of passwords at every request. */
static int on_authorization(struct mg_connection *conn, void *listener)
{
    (void)conn;
    (void)listener;
    return 1;
}

/* The library is about to send an error of its own. 0: it was answered here. */
static int on_error(struct mg_connection *conn, int status, const char *text)
{
    const enum eg_code code = status == 404   ? EG_CODE_not_found
                              : status == 405 ? EG_CODE_method_not_allowed
                              : status == 413 ? EG_CODE_payload_too_large
                              : status >= 500 ? EG_CODE_internal
                                              : EG_CODE_invalid_request;
    const struct eg_refusal why = {status, code,
                                   status == 400 ? "the request cannot be read" : NULL, NULL};
    (void)text; /* may repeat what the peer sent */
    (void)eg_listener_answer(conn, &why);
    return 0;
}

static int on_log(const struct mg_connection *conn, const char *text)
{
    (void)conn;
    if (complaint != NULL && complaint[0] == '\0') {
        snprintf(complaint, complaint_size, "%s", text);
    }
    eg_log_limited(EG_LOG_DEBUG, "http.library", "text=%.*s", (int)strcspn(text, "?"), text);
    return 1;
}

static int on_connection(const struct mg_connection *conn, void **data)
{
    (void)conn;
    (void)data;
    eg_adopt_begin();
    return 0;
}

static void on_connection_close(const struct mg_connection *conn)
{
    (void)conn;
    eg_adopt_end();
}

static void *on_thread(const struct mg_context *ctx, int type)
{
    struct eg_listener *l = mg_get_user_data(ctx);
    if (type == 0) {
        eg_lobby_enter(l->lobby);
    } else if (type == 1) {
        count_lock(&l->count_lock);
        l->workers++;
        pthread_cond_signal(&l->counted);
        count_unlock(&l->count_lock);
    }
    return l;
}

static bool on_lobby_asks(void *listener, const char *addr)
{
    struct eg_listener *l = listener;
    listener_read(&l->lock);
    const bool trusted = eg_proxies_trusts(l->proxies, addr);
    listener_end_read(&l->lock);
    return trusted;
}

/* --- starting and stopping ----------------------------------------------------------------- */

#define OPTIONS_MAX 40

struct options {
    const char *text[OPTIONS_MAX + 1];
    int n;
};

static void option(struct options *o, const char *name, const char *value)
{
    for (const struct mg_option *known = mg_get_valid_options(); known->name != NULL; known++) {
        if (strcmp(known->name, name) == 0 && o->n + 2 <= OPTIONS_MAX) {
            o->text[o->n++] = name;
            o->text[o->n++] = value;
        }
    }
}

/* Starts the library's threads. */
static enum eg_err start_library(struct eg_listener *l, char *why, size_t why_size)
{
    listener_unshared(&l->lock);
    char ports[80], threads[16], timeout[24], head[16], said[200] = "";
    struct options o = {.n = 0};
    const struct mg_callbacks callbacks = {.begin_request = eg_listener_request,
                                           .http_error = on_error,
                                           .log_message = on_log,
                                           .init_thread = on_thread,
                                           .init_connection = on_connection,
                                           .connection_close = on_connection_close};
    int64_t timeout_ms = l->settings->handshake_timeout_ms;
    timeout_ms = timeout_ms < 1000 ? 1000 : timeout_ms > 10000 ? 10000 : timeout_ms;
    snprintf(ports, sizeof ports, "%s:%u", l->address.host, (unsigned)l->address.port);
    snprintf(threads, sizeof threads, "%d", l->config.workers);
    snprintf(timeout, sizeof timeout, "%lld", (long long)timeout_ms);
    snprintf(head, sizeof head, "%d", EG_LOBBY_HEAD_MAX + 1024);
    option(&o, "listening_ports", ports);
    option(&o, "num_threads", threads);
    option(&o, "prespawn_threads", threads);
    option(&o, "request_timeout_ms", timeout);
    option(&o, "max_request_size", head);
    option(&o, "tcp_nodelay", "1");
    option(&o, "enable_keep_alive", "no");
    option(&o, "listen_backlog", "4096");
    option(&o, "connection_queue", "128");
    option(&o, "access_control_allow_methods", "");
    option(&o, "access_control_allow_origin", "");
    option(&o, "access_control_allow_headers", "");
    option(&o, "enable_auth_domain_check", "no");
    option(&o, "enable_directory_listing", "no");
    option(&o, "cgi_pattern", "");
    option(&o, "ssi_pattern", "");
    option(&o, "decode_url", "no"); /* or /ws%00x would be /ws; the router decodes */
    option(&o, "decode_query_string", "no");
    /* should a socket ever stay with the library: it notices a dead one by itself */
    option(&o, "websocket_timeout_ms", "2000");
    option(&o, "enable_websocket_ping_pong", "yes");
    complaint = said;
    complaint_size = sizeof said;
    l->ctx = mg_start(&callbacks, l, o.text);
    complaint = NULL;
    if (l->ctx == NULL) {
        snprintf(why, why_size, "cannot start the listener on %s: %s", ports, said);
        return EG_EIO;
    }
    mg_set_websocket_handler_with_subprotocols(l->ctx, EG_LISTENER_PATH "$", &subprotocols, NULL,
                                               eg_adopt_ready, eg_adopt_data, eg_adopt_close, l);
    mg_set_auth_handler(l->ctx, EG_LISTENER_PATH "$", on_authorization, l);
    return EG_OK;
}

/* Waits until all workers run: the library only logs when one does not. Returns how many run. */
static int await_workers(struct eg_listener *l)
{
    const struct timespec until = eg_cond_until(START_WAIT_S * 1000);
    int late = 0;
    count_lock(&l->count_lock);
    while (l->workers < l->config.workers && late == 0) {
        late = count_wait_until(&l->counted, &l->count_lock, &until);
    }
    const int workers = l->workers;
    count_unlock(&l->count_lock);
    return workers;
}

/* Makes a first connection, with which the lobby takes its place. */
static bool await_lobby(struct eg_listener *l)
{
    const int64_t until = eg_clock_mono_ms() + START_WAIT_S * INT64_C(1000);
    const int fd = eg_selftest_connect(l->address.host, l->address.port, START_WAIT_S * 1000);
    while (fd >= 0 && !eg_lobby_stands(l->lobby) && eg_clock_mono_ms() < until) {
        (void)poll(NULL, 0, 1);
    }
    if (fd >= 0) {
        close(fd);
    }
    return eg_lobby_stands(l->lobby);
}

static enum eg_err prove(struct eg_listener *l, char *why, size_t why_size)
{
    struct mg_server_ports port = {0};
    const int workers = await_workers(l);
    if (workers < l->config.workers) {
        snprintf(why, why_size, "only %d of %d HTTP threads could be started", workers,
                 l->config.workers);
        return EG_EIO;
    }
    if (mg_get_server_ports(l->ctx, 1, &port) != 1) {
        snprintf(why, why_size, "the library does not say where it listens");
        return EG_EIO;
    }
    l->address.port = (uint16_t)port.port;
    snprintf(l->bound, sizeof l->bound, "%s:%d", l->address.host, port.port);
    if (!await_lobby(l)) {
        snprintf(why, why_size, "this libcivetweb does not accept connections as expected");
        return EG_ECORRUPT;
    }
    return l->config.reactors == NULL
               ? EG_OK
               : eg_selftest_run(l->selftest, l->address.host, l->address.port, why, why_size);
}

static enum eg_err make(const struct eg_listener_config *config, struct eg_listener **out,
                        char *why, size_t why_size)
{
    enum eg_err err = EG_ENOMEM;
    struct eg_listener *l = calloc(1, sizeof *l);
    if (l == NULL) {
        return EG_ENOMEM;
    }
    *out = l;
    l->config = *config;
    l->config.address = NULL;
    listener_unshared(&l->lock);
    l->settings = eg_settings_ref(config->settings);
    listener_init(&l->lock);
    count_init(&l->count_lock);
    eg_cond_init(&l->counted);
    mg_init_library(MG_FEATURES_DEFAULT);
    const struct eg_lobby_config lobby = {.limits = config->limits,
                                          .is_proxy = on_lobby_asks,
                                          .arg = l,
                                          .deadline_ms = l->settings->handshake_timeout_ms,
                                          .max_waiting = WAITING_MAX};
    err = eg_proxies_new(l->settings->trusted_proxies, &l->proxies, why, why_size);
    if (err == EG_OK) {
        err = eg_listen_address_parse(config->address, &l->address, why, why_size);
    }
    if (err == EG_OK) {
        err = eg_listen_address_try(&l->address, why, why_size);
    }
    if (err == EG_OK) {
        err = eg_lobby_new(&lobby, &l->lobby);
    }
    if (err == EG_OK) {
        err = eg_selftest_new(&l->selftest);
    }
    return err;
}

enum eg_err eg_listener_start(const struct eg_listener_config *config, struct eg_listener **out,
                              char *why, size_t why_size)
{
    struct eg_listener *l = NULL;
    enum eg_err err = EG_OK;
    snprintf(why, why_size, "cannot start the listener on %s", config->address);
    err = make(config, &l, why, why_size);
    if (err == EG_OK && config->reactors != NULL && mg_check_feature(MG_FEATURES_WEBSOCKET) == 0) {
        snprintf(why, why_size, "this libcivetweb was built without WebSocket");
        err = EG_ECORRUPT;
    }
    if (err == EG_OK) {
        err = start_library(l, why, why_size);
    }
    if (err == EG_OK) {
        err = prove(l, why, why_size);
    }
    if (err != EG_OK) {
        eg_listener_stop(l);
        return err;
    }
    __atomic_store_n(&l->ready, 1, __ATOMIC_RELEASE);
    *out = l;
    return EG_OK;
}

void eg_listener_stop(struct eg_listener *l)
{
    if (l == NULL) {
        return;
    }
    if (l->ctx != NULL) {
        eg_lobby_wake(l->lobby);
        mg_stop(l->ctx);
    }
    mg_exit_library();
    listener_unshared(&l->lock);
    eg_lobby_free(l->lobby);
    eg_selftest_free(l->selftest);
    eg_proxies_free(l->proxies);
    eg_settings_unref(l->settings);
    pthread_cond_destroy(&l->counted);
    count_destroy(&l->count_lock);
    listener_destroy(&l->lock);
    free(l);
}

const char *eg_listener_bound(const struct eg_listener *l)
{
    return l->bound;
}

void eg_listener_settings(struct eg_listener *l, struct eg_settings *settings)
{
    char why[200] = "out of memory";
    struct eg_proxies *proxies = NULL;
    if (eg_proxies_new(settings->trusted_proxies, &proxies, why, sizeof why) != EG_OK) {
        eg_log(EG_LOG_ERROR, "listener.settings", "why=%s" EG_F "kept=trusted_proxies", why);
    }
    listener_write(&l->lock);
    struct eg_settings *old_settings = l->settings;
    struct eg_proxies *old_proxies = proxies != NULL ? l->proxies : NULL;
    l->settings = eg_settings_ref(settings);
    l->proxies = proxies != NULL ? proxies : l->proxies;
    listener_end_write(&l->lock);
    eg_lobby_deadline(l->lobby, settings->handshake_timeout_ms);
    eg_settings_unref(old_settings);
    eg_proxies_free(old_proxies);
}

void eg_listener_draining(struct eg_listener *l)
{
    __atomic_store_n(&l->draining, 1, __ATOMIC_RELAXED);
}
