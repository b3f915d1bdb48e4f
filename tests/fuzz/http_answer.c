/*
 * http_answer.c - see http_answer.h: the form of an answer, and whether admin/openapi.yaml, as it
 * is compiled in, knows of it.
 */
#include "http_answer.h"

#include <stdio.h>
#include <string.h>

#include "base/embed.h"
#include "ebbgate/codes.h"
#include "ebbgate/protocol.h"
#include "wire/json.h"

#define must(holds) http_must(holds, now->out)

static const struct http_answer *now; /* the answer that is looked at */

/* The part of the description that is about this path and method; empty: there is none. */
static struct eg_slice described(const char *method, const char *path)
{
    const struct eg_embedded *f = eg_files;
    while (f->name && strcmp(f->name, "admin/openapi.yaml") != 0)
        f++;
    must(f->name);
    char op[24] = "\n    ";
    for (size_t i = 0; method[i] && i < 16; i++)
        op[5 + i] = (char)(method[i] | 0x20);
    strcat(op, ":\n");
    const char *at = strstr((const char *)f->data, "\npaths:\n");
    const char *stop = strstr(at, "\ncomponents:\n");
    must(at && stop);
    while ((at = strstr(at + 1, "\n  /")) && at < stop) {
        const char *p = at + 3, *want = path;
        while (*p != ':' && *want) {
            if (*p == '{') {
                const size_t n = strcspn(want, "/");
                if (n == 0)
                    break;
                want += n;
                p += strcspn(p, "}") + 1;
            } else if (*p++ != *want++) {
                p--;
                break;
            }
        }
        if (*p != ':' || *want)
            continue;
        const char *end = strstr(at + 1, "\n  /");
        end = end && end < stop ? end : stop;
        const char *from = memmem(at, (size_t)(end - at), op, strlen(op));
        if (!from)
            return (struct eg_slice){"", 0};
        const char *next = from + strlen(op);
        while (next < end && strncmp(next, "     ", 5) == 0)
            next = strchr(next, '\n') + 1;
        return (struct eg_slice){from, (size_t)(next - from)};
    }
    return (struct eg_slice){"", 0};
}

static struct eg_slice header(struct eg_slice head, const char *name)
{
    char line[64];
    snprintf(line, sizeof line, "\r\n%s: ", name);
    const char *at = memmem(head.p, head.n, line, strlen(line));
    if (!at)
        return (struct eg_slice){NULL, 0};
    at += strlen(line);
    const char *end = memmem(at, (size_t)(head.p + head.n - at), "\r\n", 2);
    must(end);
    return (struct eg_slice){at, (size_t)(end - at)};
}

/* Lines of name: value without anything that would start another one, none twice. */
static void check_head(struct eg_slice head)
{
    struct eg_slice seen[32];
    int n = 0;
    const char *at = memmem(head.p, head.n, "\r\n", 2), *end = head.p + head.n;
    must(at);
    for (at += 2; at < end;) {
        const char *stop = memmem(at, (size_t)(end - at), "\r\n", 2);
        must(stop);
        const char *colon = memchr(at, ':', (size_t)(stop - at));
        must(colon && colon > at && colon[1] == ' ' && n < 32);
        seen[n++] = (struct eg_slice){at, (size_t)(colon - at)};
        for (int i = 0; i < n - 1; i++)
            must(!eg_slice_eq(seen[i], seen[n - 1]));
        for (; at < stop; at++)
            must((unsigned char)*at >= ' ' && *at != 0x7f);
        at = stop + 2;
    }
    must(header(head, "X-Content-Type-Options").n);
    must(eg_slice_is(header(head, "Connection"), "close"));
}

static void check_json(struct eg_slice body, struct eg_json_doc *doc)
{
    must(body.n > 2 && body.p[body.n - 1] == '\n');
    body.n--;
    must(eg_json_scan(body, EG_JSON_DEPTH_MAX + 4, doc) == EG_OK);
    must(doc->kind == EG_JSON_OBJECT);
}

static bool known_code(struct eg_slice quoted)
{
    for (int c = 0; c < EG_CODE_COUNT; c++) {
        const char *name = eg_code_info((enum eg_code)c)->name;
        if (name && quoted.n == strlen(name) + 2 && memcmp(quoted.p + 1, name, quoted.n - 2) == 0)
            return true;
    }
    return false;
}

static void check_problem(struct eg_slice head, struct eg_slice body, int status, bool has_body)
{
    struct eg_json_doc doc;
    int64_t n = 0;
    must(eg_slice_is(header(head, "Content-Type"), "application/problem+json"));
    must(status != 401 || header(head, "WWW-Authenticate").n);
    must(status != 405 || header(head, "Allow").n);
    must(status != 429 || header(head, "Retry-After").n);
    if (!has_body)
        return;
    check_json(body, &doc);
    const struct eg_json_member *code = eg_json_get(&doc, "code");
    const struct eg_json_member *step_ = eg_json_get(&doc, "next_step");
    const struct eg_json_member *said_ = eg_json_get(&doc, "status");
    must(code && step_ && said_ && eg_json_get(&doc, "title") && eg_json_get(&doc, "type"));
    must(known_code(code->value) && step_->value.n > 2);
    must(eg_json_integer(said_->value, &n) && n == status);
}

/* Takes the chunks apart in place. */
static struct eg_slice unchunk(struct eg_slice body)
{
    char *to = now->out->p + (body.p - now->out->p), *from = to, *end = to + body.n;
    const char *start = to;
    for (;;) {
        char *stop = NULL;
        const unsigned long n = strtoul(from, &stop, 16);
        must(stop > from && stop + 2 + n + 2 <= end && memcmp(stop, "\r\n", 2) == 0);
        memmove(to, stop + 2, n);
        to += n;
        from = stop + 2 + n + 2;
        must(memcmp(from - 2, "\r\n", 2) == 0);
        if (n == 0)
            break;
    }
    must(from == end);
    return (struct eg_slice){start, (size_t)(to - start)};
}

static void check_lines(struct eg_slice body)
{
    struct eg_json_doc doc;
    while (body.n) {
        const char *stop = memchr(body.p, '\n', body.n);
        must(stop);
        const struct eg_slice line = {body.p, (size_t)(stop - body.p)};
        must(eg_json_scan(line, EG_JSON_DEPTH_MAX + 2, &doc) == EG_OK);
        body.n -= line.n + 1;
        body.p += line.n + 1;
    }
}

static void check_documented(const char *method, const char *path, int status)
{
    char key[16];
    const bool head = strcmp(method, "HEAD") == 0;
    const struct eg_slice op = described(head ? "GET" : method, path);
    snprintf(key, sizeof key, "'%d':", status);
    if (op.n && !memmem(op.p, op.n, key, strlen(key)))
        must(status >= 400 && memmem(op.p, op.n, "default:", 8));
    if (!op.n && status < 400)
        must((status == 204 && strcmp(method, "OPTIONS") == 0) ||
             ((status == 200 || status == 304) && strncmp(path, "/api/", 5) != 0));
}

void http_answer_check(const struct http_answer *a)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct eg_slice all = {a->out->p, a->out->n};
    struct eg_json_doc doc;
    int status = 0;
    now = a;
    eg_buf_char(a->out, '\0'); /* for strtoul */
    must(a->out->err == EG_OK);
    all.p = a->out->p;
    if (all.n >= sizeof go_on - 1 && memcmp(all.p, go_on, sizeof go_on - 1) == 0) {
        must(a->expects);
        all.p += sizeof go_on - 1;
        all.n -= sizeof go_on - 1;
    }
    if (all.n == 0) {
        must((a->gone && a->status == 400) || (a->may_close && a->status == 503));
        return;
    }
    const char *end = memmem(all.p, all.n, "\r\n\r\n", 4);
    must(end && sscanf(all.p, "HTTP/1.1 %3d ", &status) == 1 && status >= 200 && status < 600);
    const struct eg_slice head = {all.p, (size_t)(end + 2 - all.p)};
    struct eg_slice body = {end + 4, (size_t)(all.p + all.n - end - 4)};
    must(status == a->status);
    check_head(head);
    const bool has_body = strcmp(a->method, "HEAD") != 0 && status != 204 && status != 304;
    const struct eg_slice length = header(head, "Content-Length");
    if (length.n && has_body)
        must(strtoul(length.p, NULL, 10) == body.n);
    else if (header(head, "Transfer-Encoding").n && has_body)
        body = unchunk(body);
    must(has_body || body.n == 0);
    const struct eg_slice type = header(head, "Content-Type");
    const bool json = eg_slice_is(type, "application/json");
    if (status >= 400 && !(json && status == 503 && strstr(a->path, "/ready")))
        check_problem(head, body, status, has_body);
    else if (has_body && json && strncmp(a->path, "/lib", 4) != 0)
        check_json(body, &doc);
    else if (has_body && eg_slice_is(type, "application/x-ndjson"))
        check_lines(body);
    must(!a->adopted || eg_slice_is(type, "text/event-stream"));
    check_documented(a->method, a->path, status);
}
