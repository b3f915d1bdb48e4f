/*
 * router.c - where the listeners' requests come in. With transport.c the only file here that names
 * civetweb.
 *
 * Threads: the listeners' workers, one request at a time each. An exchange is on the heap, since a
 * worker's stack is small.
 * Happy path: request hook -> eg_x_serve (routes.c) -> handler -> answer -> hook returns its
 * status. Failure modes: a client that sends its body too slowly is answered 408 and closed; one
 * that takes its answer too slowly is closed; without memory: a fixed 500.
 */
#include <civetweb.h>
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"

static void finish(struct eg_exchange *x)
{
    eg_claims_free(&x->claims);
    eg_settings_unref(x->settings);
    eg_buf_free(&x->body);
    eg_buf_free(&x->fields);
    for (size_t i = 0; i < sizeof x->texts / sizeof *x->texts; i++)
        eg_buf_free(&x->texts[i]);
    if (x->text)
        explicit_bzero(x->text, strlen(x->text)); /* may hold a token */
    free(x->text);
    free(x);
}

/* Blanks around a value are no part of it (RFC 9110 section 5.5), and the library leaves those
 * behind it. The request is the library's own, writable memory of this connection. */
static void trim_headers(const struct mg_request_info *ri)
{
    for (int i = 0; i < ri->num_headers; i++) {
        char *value = (char *)ri->http_headers[i].value;
        size_t n = strlen(value);
        while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t')) {
            value[--n] = '\0';
        }
    }
}

static int serve(struct eg_http *h, struct mg_connection *conn, bool admin)
{
    static const char no_memory[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n"
                                    "Connection: close\r\n\r\n";
    const struct mg_request_info *ri = mg_get_request_info(conn);
    struct eg_exchange *x = calloc(1, sizeof *x);
    mg_disable_connection_keep_alive(conn);
    if (!x) {
        mg_write(conn, no_memory, sizeof no_memory - 1);
        return 500;
    }
    trim_headers(ri);
    x->http = h;
    x->conn = conn;
    x->admin = admin;
    x->method = ri->request_method;
    x->head = strcmp(x->method, "HEAD") == 0;
    x->version = ri->http_version ? ri->http_version : "1.1";
    eg_http_lock(&h->lock);
    x->settings = eg_settings_ref(h->settings);
    eg_http_unlock(&h->lock);
    struct eg_listener *l = __atomic_load_n(&h->listener[admin], __ATOMIC_ACQUIRE);
    if (l)
        eg_listener_client_addr(l, conn, x->addr);
    else
        strncpy(x->addr, ri->remote_addr, sizeof x->addr - 1);
    eg_x_serve(x, ri->local_uri_raw ? ri->local_uri_raw : ri->request_uri, ri->query_string);
    const int status = x->status ? x->status : 500;
    finish(x);
    return status;
}

int eg_http_public(void *arg, struct mg_connection *conn)
{
    return serve(arg, conn, false);
}

int eg_http_admin(void *arg, struct mg_connection *conn)
{
    return serve(arg, conn, true);
}
