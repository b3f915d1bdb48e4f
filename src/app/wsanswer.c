/*
 * wsanswer.c - see wsanswer.h.
 */
#include "app/wsanswer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ebbgate/protocol.h"
#include "wire/json.h"

/* The value of a header in the block, trimmed; empty when it is not there. */
static struct eg_slice header(struct eg_slice block, const char *name)
{
    size_t n = strlen(name);
    const char *p = block.p, *end = block.p + block.n;
    while (p < end) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        if (!eol)
            break;
        if ((size_t)(eol - p) > n && strncasecmp(p, name, n) == 0 && p[n] == ':') {
            p += n + 1;
            while (p < eol && (*p == ' ' || *p == '\t'))
                p++;
            while (eol > p && isspace((unsigned char)eol[-1]))
                eol--;
            return (struct eg_slice){p, (size_t)(eol - p)};
        }
        p = eol + 1;
    }
    return (struct eg_slice){NULL, 0};
}

/* Texts of a problem+json body into out. */
static void read_problem(struct eg_slice body, struct eg_wsanswer *out)
{
    struct eg_json_doc doc;
    struct eg_buf b = {0};
    const struct eg_json_member *m;
    int64_t seconds = 0;
    if (eg_json_scan(body, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
        return;
    if ((m = eg_json_get(&doc, "code")) && m->kind == EG_JSON_STRING) {
        eg_json_unquote(m->value, &b);
        snprintf(out->code, sizeof out->code, "%.*s", (int)b.n, b.p);
        eg_buf_reset(&b);
    }
    m = eg_json_get(&doc, "detail");
    if (!m)
        m = eg_json_get(&doc, "title");
    if (m && m->kind == EG_JSON_STRING) {
        eg_json_unquote(m->value, &b);
        snprintf(out->reason, sizeof out->reason, "%.*s", (int)b.n, b.p);
    }
    if ((m = eg_json_get(&doc, "retry_after_seconds")) && m->kind == EG_JSON_NUMBER &&
        eg_json_integer(m->value, &seconds) && seconds >= 0 && seconds < 86400)
        out->retry_after_ms = seconds * 1000;
    eg_buf_free(&b);
}

static bool upgrade_is_right(struct eg_slice head, const char *accept)
{
    struct eg_slice upgrade = header(head, "Upgrade");
    return upgrade.n == 9 && strncasecmp(upgrade.p, "websocket", 9) == 0 &&
           eg_slice_is(header(head, "Sec-WebSocket-Accept"), accept) &&
           header(head, "Sec-WebSocket-Extensions").n == 0;
}

/* Whether no more of the body will come, though the connection may stay. Chunks are not taken
 * apart: the gateway sends none here, and a proxy's page is of no use. */
static bool body_is_whole(struct eg_slice head, struct eg_slice body)
{
    static const char last[] = "0\r\n\r\n";
    struct eg_slice length = header(head, "Content-Length");
    if (header(head, "Transfer-Encoding").n > 0)
        return body.n >= 5 && memcmp(body.p + body.n - 5, last, 5) == 0;
    return length.n > 0 && body.n >= (size_t)strtoul(length.p, NULL, 10);
}

static enum eg_wsanswer_kind broken(struct eg_wsanswer *out, const char *why)
{
    snprintf(out->reason, sizeof out->reason, "%s", why);
    return EG_WSANSWER_BROKEN;
}

/* The status of a status line; -1 when it is none. Some proxies answer with HTTP/1.0. */
static int status_of(struct eg_slice head)
{
    if (head.n < 12 || strncmp(head.p, "HTTP/1.", 7) != 0 ||
        (head.p[7] != '0' && head.p[7] != '1') || head.p[8] != ' ')
        return -1;
    return (int)strtol(head.p + 9, NULL, 10);
}

enum eg_wsanswer_kind eg_wsanswer_read(struct eg_slice bytes, bool ended, const char *accept,
                                       struct eg_wsanswer *out)
{
    const char *end = bytes.n ? memmem(bytes.p, bytes.n, "\r\n\r\n", 4) : NULL;
    *out = (struct eg_wsanswer){.retry_after_ms = -1};
    if (!end && !ended && bytes.n <= EG_WSANSWER_MAX)
        return EG_WSANSWER_MORE;
    if (!end)
        return broken(out, bytes.n ? "no answer that HTTP knows" : "connection closed");
    struct eg_slice head = {bytes.p, (size_t)(end - bytes.p) + 2};
    struct eg_slice body = {end + 4, bytes.n - head.n - 2};
    int status = status_of(head);
    if (status == 101 && head.p[7] == '1' && upgrade_is_right(head, accept)) {
        out->frames = body;
        return EG_WSANSWER_OPEN;
    }
    if (status == 101 || status < 0)
        return broken(out, "the answer to the upgrade is wrong");
    if (!ended && !body_is_whole(head, body) && bytes.n <= EG_WSANSWER_MAX)
        return EG_WSANSWER_MORE;
    out->status = status;
    snprintf(out->reason, sizeof out->reason, "the gateway answered with status %d", status);
    struct eg_slice after = header(head, "Retry-After");
    if (after.n > 0 && after.n < 6 && isdigit((unsigned char)*after.p))
        out->retry_after_ms = 1000 * strtol(after.p, NULL, 10);
    read_problem(body, out);
    return EG_WSANSWER_REFUSED;
}
