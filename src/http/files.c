/*
 * files.c - the console, the client library that it uses (below /lib/) and openapi.yaml, from the
 * files compiled into the program.
 *
 * A console page may load only what lies beside it, and connect only to its own origin and to the
 * public listener; no other page may frame it, and no text can become markup in it. Files carry an
 * ETag (their content's hash), so that a browser asks but seldom loads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embed.h"
#include "base/hash.h"
#include "edge/handshake.h"
#include "http/http_int.h"

static const struct eg_embedded *find(const char *path)
{
    const bool lib = strncmp(path, "lib/", 4) == 0;
    const char *folder = lib ? "clients/js/src/" : "admin/";
    const size_t n = strlen(folder);
    for (const struct eg_embedded *f = eg_files; f->name; f++) {
        if (strncmp(f->name, folder, n) == 0 && strcmp(f->name + n, path + (lib ? 4 : 0)) == 0)
            return f;
    }
    return NULL;
}

static const char *type_of(const char *name)
{
    static const struct {
        const char *end, *type;
    } types[] = {{".html", "text/html; charset=utf-8"},
                 {".css", "text/css; charset=utf-8"},
                 {".js", "text/javascript; charset=utf-8"},
                 {".mjs", "text/javascript; charset=utf-8"},
                 {".svg", "image/svg+xml"},
                 {".png", "image/png"},
                 {".ico", "image/x-icon"},
                 {".json", "application/json"},
                 {".webmanifest", "application/manifest+json"},
                 {".woff2", "font/woff2"},
                 {".yaml", "application/yaml"},
                 {".txt", "text/plain; charset=utf-8"}};
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const size_t k = strlen(types[i].end);
        if (n > k && strcmp(name + n - k, types[i].end) == 0)
            return types[i].type;
    }
    return "application/octet-stream";
}

/* The host of our own Host header, without port, when it is one that can stand in a policy. */
static size_t host_name(const struct eg_exchange *x, const char **out)
{
    const char *host = eg_x_header(x, "Host");
    if (!host)
        return 0;
    const size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    for (size_t i = 0; i < n; i++) {
        const char c = host[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            !strchr(".-[]:", c))
            return 0;
    }
    *out = host;
    return n;
}

/* Where a page may connect to: the public listener under the name this one was reached by. */
static void add_sources(const struct eg_exchange *x, struct eg_buf *b)
{
    const char *host = "";
    const size_t n = host_name(x, &host);
    struct eg_listener *l = __atomic_load_n(&x->http->listener[0], __ATOMIC_ACQUIRE);
    const char *port = l ? strrchr(eg_listener_bound(l), ':') : NULL;
    if (!port)
        return;
    eg_buf_printf(b, " ws://%s", eg_listener_bound(l));
    if (n)
        eg_buf_printf(b, " ws://%.*s%s wss://%.*s%s", (int)n, host, port, (int)n, host, port);
}

static void send_file(struct eg_exchange *x, const struct eg_embedded *f)
{
    struct eg_buf body = {0};
    struct eg_buf *b = &x->fields;
    uint8_t zero[EG_CHAIN_BYTES] = {0}, hash[EG_CHAIN_BYTES];
    char etag[20] = "\"";
    const char *known = eg_x_header(x, "If-None-Match");
    eg_chain_next(zero, (struct eg_slice){(const char *)f->data, f->size}, hash);
    for (int i = 0; i < 8; i++)
        snprintf(etag + 1 + 2 * i, 3, "%02x", hash[i]);
    strcat(etag, "\"");
    eg_buf_printf(b, "ETag: %s\r\nCache-Control: no-cache\r\n", etag);
    eg_buf_str(b,
               "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
               "img-src 'self' data:; font-src 'self'; manifest-src 'self'; connect-src 'self'");
    add_sources(x, b);
    eg_buf_str(b, "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                  "require-trusted-types-for 'script'; trusted-types 'none'\r\n"
                  "Permissions-Policy: camera=(), microphone=(), geolocation=()\r\n");
    if (known && strstr(known, etag)) {
        eg_x_answer(x, 304, NULL, &body);
        return;
    }
    eg_buf_add(&body, f->data, f->size);
    eg_x_answer(x, 200, type_of(f->name), &body);
}

bool eg_x_file(struct eg_exchange *x)
{
    const char *name = strcmp(x->path, "/") == 0 ? "index.html" : x->path + 1;
    const struct eg_embedded *f = find(name);
    if (!f)
        return false;
    if (strcmp(x->method, "GET") != 0 && !x->head) {
        eg_buf_str(&x->fields, "Allow: GET, HEAD\r\n");
        eg_x_problem(x, 0, EG_CODE_method_not_allowed, NULL, NULL);
    } else {
        send_file(x, f);
    }
    return true;
}

void eg_h_openapi(struct eg_exchange *x)
{
    const struct eg_embedded *f = find("openapi.yaml");
    if (f)
        send_file(x, f);
    else
        eg_x_problem(x, 0, EG_CODE_not_found, NULL, NULL);
}
