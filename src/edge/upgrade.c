/*
 * upgrade.c - part of listener.h: what a request gets: the upgrade on /ws, an answer, or the
 * handler of plain HTTP; and event streams, whose sockets leave the library, too.
 *
 * Threads: the library's workers.
 */
#include <civetweb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/metrics.h"
#include "edge/adopt.h"
#include "edge/listener_int.h"
#include "edge/origin.h"

#define POLITE_PER_SECOND 100 /* refusals by limits that are told in a hello_error */
#define RETRY_FIELD "Retry-After: 1\r\n"

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
int eg_listener_answer(struct mg_connection *conn, const struct eg_refusal *why)
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
    return eg_listener_answer(conn, &why);
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
        return eg_listener_answer(conn, &why);
    }
    if (eg_adopt_beyond_head() > 0) {
        why.detail = "nothing may be sent before the upgrade is answered";
        return eg_listener_answer(conn, &why);
    }
    if (!library_agrees(conn)) {
        why.detail = "the first Connection and Upgrade headers must ask for the upgrade";
        return eg_listener_answer(conn, &why);
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

/* --- requests ------------------------------------------------------------------------------ */

int eg_listener_request(struct mg_connection *conn)
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
    const bool socket = l->config.reactors != NULL && strcmp(r.path, EG_LISTENER_PATH) == 0;
    if (eg_request_check(&r, &why) != EG_OK) {
        status = eg_listener_answer(conn, &why);
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
    } else if (l->config.reactors != NULL && strcmp(ri->local_uri, EG_LISTENER_PATH) == 0) {
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

/* --- event streams ------------------------------------------------------------------------- */

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
