#include "edge/listener.h"

#include <civetweb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "edge/adopt.h"
#include "edge/lobby.h"
#include "edge/handshake.h"
#include "edge/listen_address.h"
#include "edge/origin.h"
#include "edge/proxy.h"
#include "edge/selftest.h"

#define PATH "/ws"
#define START_WAIT_S 10 /* for workers to start, for the lobby to stand */
#define WAITING_MAX                                                                                \
    8192 /* sockets without a complete request head; everybody may come back at once */
#define POLITE_PER_SECOND 100 /* refusals by limits that are told in a hello_error */
#define RETRY_FIELD "Retry-After: 1\r\n"

EG_RWLOCK(listener);
EG_MUTEX(count);

struct eg_listener {
    struct eg_listener_config config; /* address is a copy, settings under lock */
    struct eg_listen_address address;
    char bound[80];
    struct mg_context *ctx;
    struct eg_lobby *lobby;
    struct eg_selftest *selftest; /* while starting */
    int ready, draining;          /* atomic */

    struct listener_rwlock lock; /* of what a reload changes: */
    struct eg_settings *settings EG_GUARDED_BY(listener_rwlock);
    struct eg_proxies *proxies EG_GUARDED_BY(listener_rwlock);

    struct count_mutex count_lock;
    pthread_cond_t counted;
    int workers EG_GUARDED_BY(count_mutex); /* threads that started */
    struct eg_bucket polite EG_GUARDED_BY(count_mutex);
};

/* What the library complained of while this thread was starting it. */
static _Thread_local char *complaint;
static _Thread_local size_t complaint_size;

static const char *subprotocol[] = {EG_SUBPROTOCOL};
static struct mg_websocket_subprotocols subprotocols = {1, subprotocol};

/* --- answers ------------------------------------------------------------------------------- */

static void view(const struct mg_request_info *ri, struct eg_request *r)
{
    r->method = ri->request_method;
    r->path = ri->local_uri_raw != NULL ? ri->local_uri_raw : "";
    r->version = ri->http_version;
    r->query = ri->query_string;
    r->headers = ri->num_headers;
    for (int i = 0; i < ri->num_headers; i++) {
        r->header[i] = (struct eg_header){ri->http_headers[i].name, ri->http_headers[i].value};
    }
}

/* Writes a complete answer. The library's own lack a status line when an upgrade was asked for. */
static int answer(struct mg_connection *conn, const struct eg_refusal *why)
{
    const struct mg_request_info *ri = mg_get_request_info(conn);
    struct eg_buf text = {0};
    mg_disable_connection_keep_alive(conn);
    eg_refusal_write(why, &text);
    if (text.err == EG_OK) {
        size_t n = text.n;
        if (ri != NULL && ri->request_method != NULL && strcmp(ri->request_method, "HEAD") == 0) {
            n = (size_t)((char *)memmem(text.p, text.n, "\r\n\r\n", 4) - text.p) + 4;
        }
        (void)mg_write(conn, text.p, n);
    }
    eg_buf_free(&text);
    eg_log_limited(EG_LOG_INFO, "http.refused", "addr=%s" EG_F "status=%d" EG_F "why=%s",
                   ri != NULL ? ri->remote_addr : "", why->status,
                   why->detail != NULL ? why->detail : eg_code_info(why->code)->text);
    return why->status;
}

static int answer_code(struct mg_connection *conn, enum eg_code code, const char *detail,
                       const char *fields)
{
    const struct eg_refusal why = {eg_code_info(code)->http_status, code, detail, fields};
    return answer(conn, &why);
}

/* --- the upgrade --------------------------------------------------------------------------- */

/* Whether the library, which looks at the first of each header only, sees an upgrade too. */
static bool library_agrees(const struct mg_connection *conn)
{
    const char *connection = mg_get_header(conn, "Connection");
    const char *to = mg_get_header(conn, "Upgrade");
    return connection != NULL && strcasestr(connection, "upgrade") != NULL && to != NULL &&
           strcasestr(to, "websocket") != NULL;
}

/*
 * Shows the library the request as it shall answer it: no extension to grant, our subprotocol or
 * none. Version 1.15 would also repeat to a client that offers none what it answered the one
 * before. The request is the library's own, writable memory of this connection.
 */
static void mould(const struct mg_request_info *const_ri, bool offered)
{
    struct mg_request_info *ri = (struct mg_request_info *)const_ri;
    bool shown = !offered;
    for (int i = 0; i < ri->num_headers; i++) {
        struct mg_header *h = &ri->http_headers[i];
        if (strcasecmp(h->name, "Sec-WebSocket-Extensions") == 0) {
            h->name = "X-Unused";
        } else if (strcasecmp(h->name, "Sec-WebSocket-Protocol") == 0) {
            h->name = shown ? "X-Unused" : h->name;
            h->value = EG_SUBPROTOCOL;
            shown = true;
        }
    }
    ri->acceptedWebSocketSubprotocol = offered ? EG_SUBPROTOCOL : NULL;
}

static bool is_selftest(struct eg_listener *l, const struct eg_request *r)
{
    bool twice = false;
    const char *key = eg_request_header(r, EG_SELFTEST_HEADER, &twice);
    return key != NULL && strlen(key) == EG_SELFTEST_KEY_CHARS &&
           memcmp(key, eg_selftest_key(l->selftest), EG_SELFTEST_KEY_CHARS) == 0;
}

/* Whether a refusal by code may be told in a hello_error, which needs a socket for a while. */
static bool polite(struct eg_listener *l)
{
    count_lock(&l->count_lock);
    const bool ok = eg_bucket_take(&l->polite, POLITE_PER_SECOND, 1, eg_clock_mono_ms());
    count_unlock(&l->count_lock);
    listener_read(&l->lock);
    const int64_t most = l->settings->max_connections;
    listener_end_read(&l->lock);
    return ok && eg_metric_get(EG_M_connections) < most + (most / 16 > 64 ? most / 16 : 64);
}

static void to_reactor(void *listener, struct eg_adopted *a)
{
    struct eg_listener *l = listener;
    eg_reactors_adopt(l->config.reactors, a);
    free(a);
}

/* Fills in what the request tells of the client. */
static enum eg_err describe(struct eg_listener *l, const struct mg_request_info *ri,
                            const struct eg_request *r, struct eg_adopted *a)
{
    bool twice = false;
    a->mode = EG_CONN_WS;
    a->draining = __atomic_load_n(&l->draining, __ATOMIC_RELAXED) != 0;
    listener_read(&l->lock);
    eg_proxies_client(l->proxies, ri->remote_addr, r, a->addr);
    a->origin_allowed = eg_origin_allowed(eg_request_header(r, "Origin", &twice),
                                          l->settings->allowed_origins, l->address.loopback);
    listener_end_read(&l->lock);
    return eg_upgrade_token(r, &a->token, &a->token_from_query);
}

/* Answers a request for /ws: 0 to let the library upgrade it, or the status of the refusal. */
static int upgrade(struct eg_listener *l, struct mg_connection *conn,
                   const struct mg_request_info *ri, const struct eg_request *r, bool selftest)
{
    struct eg_refusal why = {400, EG_CODE_invalid_request, NULL, NULL};
    struct eg_limits *limits = l->config.limits;
    if (eg_upgrade_check(r, &why) != EG_OK) {
        return answer(conn, &why);
    }
    if (eg_adopt_beyond_head() > 0) {
        why.detail = "nothing may be sent before the upgrade is answered";
        return answer(conn, &why);
    }
    if (!library_agrees(conn)) {
        why.detail = "the first Connection and Upgrade headers must ask for the upgrade";
        return answer(conn, &why);
    }
    struct eg_adopted *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return answer_code(conn, EG_CODE_internal, "out of memory", NULL);
    }
    a->fd = -1;
    if (describe(l, ri, r, a) != EG_OK) {
        eg_adopted_free(a);
        return answer_code(conn, EG_CODE_internal, "out of memory", NULL);
    }
    if (selftest) {
        limits = NULL;
    } else if (limits != NULL) {
        a->refuse = eg_limits_enter(limits, a->addr, eg_clock_mono_ms());
    }
    if (a->refuse != EG_CODE_NONE) {
        const enum eg_code code = a->refuse;
        limits = NULL;
        eg_metric_add(EG_M_connections_refused_total, 1);
        if (!polite(l)) {
            eg_adopted_free(a);
            return answer_code(conn, code, NULL, RETRY_FIELD);
        }
    }
    mould(ri, eg_upgrade_offers_protocol(r));
    eg_adopt_prepare(a, limits, selftest ? eg_selftest_take : to_reactor,
                     selftest ? (void *)l->selftest : l);
    return 0;
}

/* --- what the library calls ---------------------------------------------------------------- */

static int on_request(struct mg_connection *conn)
{
    struct eg_listener *l = mg_get_user_context_data(conn);
    const struct mg_request_info *ri = mg_get_request_info(conn);
    struct eg_refusal why;
    struct eg_request r;
    int status = 0;
    bool twice = false;

    view(ri, &r);
    const char *host = eg_request_header(&r, "Host", &twice);
    const bool ready = __atomic_load_n(&l->ready, __ATOMIC_ACQUIRE) != 0;
    const bool selftest = !ready && is_selftest(l, &r);
    const bool socket = l->config.reactors != NULL && strcmp(r.path, PATH) == 0;
    if (eg_request_check(&r, &why) != EG_OK) {
        status = answer(conn, &why);
    } else if (!ready && !selftest && eg_request_is_event_source(&r)) {
        status = 503; /* closes */
    } else if (!ready && !selftest) {
        status = answer_code(conn, EG_CODE_draining, "the gateway is starting", RETRY_FIELD);
    } else if (l->config.reactors == NULL && l->address.loopback && host != NULL &&
               !eg_host_is_local(host, l->bound)) {
        status = answer_code(conn, EG_CODE_origin_not_allowed,
                             "this Host is not served on this address", NULL);
    } else if (socket) {
        status = upgrade(l, conn, ri, &r, selftest);
    } else if (l->config.reactors != NULL && strcmp(ri->local_uri, PATH) == 0) {
        status = answer_code(conn, EG_CODE_not_found, NULL, NULL); /* //ws, /a/../ws */
    } else {
        mg_disable_connection_keep_alive(conn);
        status = l->config.request(l->config.arg, conn);
        status = status > 0 ? status : 500;
    }
    if (socket && status > 0) {
        eg_metric_add(EG_M_upgrades_refused_total, 1);
    }
    if (status > 0) {
        mg_disable_connection_keep_alive(conn);
        const int unread = eg_adopt_unread(ri->content_length);
        if (unread >= 0) {
            eg_lobby_linger(l->lobby, unread);
        }
    }
    return status;
}

/* Who may is judged by on_request and by hello; without this the library looks for a file of
 * passwords at every request. */
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
    (void)answer(conn, &why);
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
    const struct mg_callbacks callbacks = {.begin_request = on_request,
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
    mg_set_websocket_handler_with_subprotocols(l->ctx, PATH "$", &subprotocols, NULL,
                                               eg_adopt_ready, eg_adopt_data, eg_adopt_close, l);
    mg_set_auth_handler(l->ctx, PATH "$", on_authorization, l);
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

void eg_listener_client_addr(struct eg_listener *l, const struct mg_connection *conn, char out[64])
{
    struct eg_request r;
    const struct mg_request_info *ri = mg_get_request_info(conn);
    view(ri, &r);
    listener_read(&l->lock);
    eg_proxies_client(l->proxies, ri->remote_addr, &r, out);
    listener_end_read(&l->lock);
}

enum eg_err eg_adopt_stream(struct eg_listener *l, struct mg_connection *conn, struct eg_slice head,
                            struct eg_adopted *a)
{
    enum eg_err err = EG_OK;
    struct eg_limits *limits = l->config.limits;
    a->fd = -1;
    eg_listener_client_addr(l, conn, a->addr);
    const enum eg_code full =
        limits != NULL ? eg_limits_enter(limits, a->addr, eg_clock_mono_ms()) : EG_CODE_NONE;
    if (full != EG_CODE_NONE) {
        eg_metric_add(EG_M_connections_refused_total, 1);
        eg_adopted_free(a);
        return full == EG_CODE_rate_limited ? EG_EAGAIN : EG_EFULL;
    }
    err = eg_adopt_plain(conn, head, a);
    if (err == EG_OK) {
        eg_reactors_adopt(l->config.reactors, a);
        free(a);
        return EG_OK;
    }
    if (limits != NULL) {
        eg_limits_leave(limits, a->addr, false);
    }
    eg_adopted_free(a);
    return err;
}
