/*
 * probe.c - see probe.h.
 */
#include "http/probe.h"

#include <civetweb.h>
#include <string.h>

#include "base/bytes.h"
#include "base/metrics.h"
#include "ebbgate/codes.h"
#include "ebbgate/protocol.h"

static int answer(struct mg_connection *conn, int status, const char *text, const char *type,
                  const struct eg_buf *body)
{
    struct eg_buf out = {0};
    eg_buf_printf(&out,
                  "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n",
                  status, text, type, body->n);
    eg_buf_add(&out, body->p, body->n);
    if (out.err == EG_OK)
        mg_write(conn, out.p, out.n);
    eg_buf_free(&out);
    return status;
}

static int ready(struct mg_connection *conn)
{
    struct eg_buf b = {0};
    bool draining = eg_metric_get(EG_M_draining) != 0;
    bool storage = eg_metric_get(EG_M_storage_ok) != 0;
    bool ok = storage && !draining;
    eg_buf_printf(&b, "{\"status\":\"%s\",\"failing\":[%s%s%s]}\n", ok ? "ready" : "unavailable",
                  draining ? "\"draining\"" : "", draining && !storage ? "," : "",
                  storage ? "" : "\"storage\"");
    int status =
        answer(conn, ok ? 200 : 503, ok ? "OK" : "Service Unavailable", "application/json", &b);
    eg_buf_free(&b);
    return status;
}

int eg_probe_request(void *arg, struct mg_connection *conn)
{
    (void)arg;
    int status;
    struct eg_buf b = {0};
    const struct mg_request_info *r = mg_get_request_info(conn);
    const char *path = r->local_uri ? r->local_uri : "";
    if (strcmp(path, "/ready") == 0)
        return ready(conn);
    if (strcmp(path, "/live") == 0) {
        eg_buf_str(&b, "{\"status\":\"live\"}\n");
        status = answer(conn, 200, "OK", "application/json", &b);
    } else if (strcmp(path, "/health") == 0) {
        eg_buf_printf(&b, "{\"status\":\"ok\",\"version\":\"%s\",\"connections\":%lld}\n",
                      EG_VERSION, (long long)eg_metric_get(EG_M_connections));
        status = answer(conn, 200, "OK", "application/json", &b);
    } else {
        eg_buf_str(&b, "{\"title\":\"nothing is here\",\"status\":404,\"code\":\"not_found\"}\n");
        status = answer(conn, 404, "Not Found", "application/problem+json", &b);
    }
    eg_buf_free(&b);
    return status;
}
