/*
 * tl_http: HTTP answers for tests: the one to an upgrade, and those to plain requests. See tl_ws.h.
 *
 * Threads and ownership as tl_ws. Failure modes: negative TL_* values; an answer that is cut short
 * is returned with complete false.
 */
#define _GNU_SOURCE 1
#include "tl_ws_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tl_find_header(const char *head, const char *name, char *buf, size_t cap)
{
    size_t n = strlen(name);

    for (const char *line = head; line && *line; line = strstr(line, "\r\n")) {
        if (line != head)
            line += 2;
        if (strncasecmp(line, name, n) || line[n] != ':')
            continue;
        const char *v = line + n + 1;
        v += strspn(v, " \t");
        snprintf(buf, cap, "%.*s", (int)strcspn(v, "\r\n"), v);
        return true;
    }
    return false;
}

int tl_ws_answer(struct tl_ws *ws, int64_t deadline, bool *complete, size_t *body_len)
{
    char *end;
    int rc;

    *complete = false;
    *body_len = 0;
    for (;;) {
        const char *start = ws->in.p ? (char *)ws->in.p + ws->in_off : NULL;
        size_t have = ws->in.len - ws->in_off;
        if (have && (end = memmem(start, have, "\r\n\r\n", 4)))
            break;
        if ((rc = tl_ws_fill(ws, deadline)) < 0)
            return rc == TL_EOF && ws->in.len > ws->in_off ? TL_BAD : rc;
    }
    size_t head_len = (size_t)(end + 4 - ((char *)ws->in.p + ws->in_off));
    free(ws->head);
    free(ws->body);
    ws->body = NULL;
    ws->head = strndup((char *)ws->in.p + ws->in_off, head_len);
    ws->in_off += head_len;
    int major, minor, status;
    if (!ws->head || sscanf(ws->head, "HTTP/%d.%d %3d ", &major, &minor, &status) != 3)
        return TL_BAD;
    if (status == 101)
        return *complete = true, status;

    char value[64];
    size_t want = SIZE_MAX;
    if (tl_ws_header(ws, "Content-Length", value, sizeof value))
        want = (size_t)strtoull(value, NULL, 10);
    while (ws->in.len - ws->in_off < want) {
        if ((rc = tl_ws_fill(ws, deadline)) < 0) {
            *complete = rc == TL_EOF && want == SIZE_MAX;
            break;
        }
    }
    size_t have = ws->in.len - ws->in_off;
    if (want != SIZE_MAX && have >= want) {
        *complete = true;
        have = want;
    }
    ws->body = have ? strndup((char *)ws->in.p + ws->in_off, have) : strdup("");
    *body_len = have;
    ws->in_off += have;
    return status;
}

int tl_ws_upgrade_recv(struct tl_ws *ws, int timeout_ms)
{
    bool complete;
    size_t len;
    return tl_ws_answer(ws, tl_now_ms() + timeout_ms, &complete, &len);
}

int tl_http_raw(const char *host, int port, const void *request, size_t len, int timeout_ms,
                struct tl_http *out)
{
    memset(out, 0, sizeof *out);
    out->status = TL_RESET;
    struct tl_ws *ws = tl_ws_tcp(host, port, 0, timeout_ms);
    if (ws) {
        /* A server may refuse and close before it has read everything: read its answer anyway. */
        bool sent = tl_ws_write(ws, request, len);
        (void)sent;
        out->status = tl_ws_answer(ws, tl_now_ms() + timeout_ms, &out->complete, &out->len);
        out->head = ws->head;
        out->body = ws->body;
        ws->head = ws->body = NULL;
        tl_ws_free(ws);
    }
    if (!out->head)
        out->head = strdup("");
    if (!out->body)
        out->body = strdup("");
    return out->status;
}

int tl_http(int port, const char *method, const char *path, const char *headers, const char *body,
            struct tl_http *out)
{
    struct tl_buf b = {0};

    tl_buf_addf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s", method, path,
                port, headers ? headers : "");
    if (body)
        tl_buf_addf(&b, "Content-Length: %zu\r\n", strlen(body));
    tl_buf_addf(&b, "\r\n%s", body ? body : "");
    int rc = tl_http_raw(NULL, port, b.p, b.len, 10000, out);
    tl_buf_free(&b);
    return rc;
}

bool tl_http_header(const struct tl_http *h, const char *name, char *buf, size_t cap)
{
    return h->head && tl_find_header(h->head, name, buf, cap);
}

void tl_http_free(struct tl_http *h)
{
    free(h->head);
    free(h->body);
    memset(h, 0, sizeof *h);
}
