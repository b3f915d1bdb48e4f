#include "edge/handshake.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ebbgate/protocol.h"

#define KEY_CHARS 24 /* base64 of 16 bytes */
/* RFC 9110 15.5.22 and 7.8, RFC 6455 4.4 */
#define UPGRADE_FIELDS "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct eg_slice trim(struct eg_slice s)
{
    while (s.n > 0 && blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

static bool same_text(struct eg_slice a, const char *b)
{
    return a.n == strlen(b) && strncasecmp(a.p, b, a.n) == 0;
}

/* Takes the next element off a comma-separated list; false when there is none. */
static bool next_element(struct eg_slice *list, struct eg_slice *element)
{
    if (list->p == NULL) {
        return false;
    }
    const char *comma = list->n > 0 ? memchr(list->p, ',', list->n) : NULL;
    if (comma == NULL) {
        *element = trim(*list);
        list->p = NULL;
        list->n = 0;
    } else {
        const size_t n = (size_t)(comma - list->p);
        *element = trim((struct eg_slice){list->p, n});
        list->p = comma + 1;
        list->n -= n + 1;
    }
    return true;
}

static int count(const struct eg_request *r, const char *name)
{
    int n = 0;
    for (int i = 0; i < r->headers; i++) {
        n += strcasecmp(r->header[i].name, name) == 0;
    }
    return n;
}

const char *eg_request_header(const struct eg_request *r, const char *name, bool *twice)
{
    const char *value = NULL;
    *twice = false;
    for (int i = 0; i < r->headers; i++) {
        if (strcasecmp(r->header[i].name, name) == 0) {
            *twice = value != NULL;
            value = r->header[i].value;
            if (*twice) {
                return NULL;
            }
        }
    }
    return value;
}

/* The only header called name, trimmed; p NULL when there is not exactly one. */
static struct eg_slice only(const struct eg_request *r, const char *name)
{
    bool twice = false;
    return trim(eg_slice_cstr(eg_request_header(r, name, &twice)));
}

/* Whether a list header has an element that is token in the sense of same. */
static bool has_element(const struct eg_request *r, const char *name, const char *token,
                        bool (*same)(struct eg_slice, const char *))
{
    for (int i = 0; i < r->headers; i++) {
        struct eg_slice list = eg_slice_cstr(r->header[i].value), element;
        if (strcasecmp(r->header[i].name, name) != 0) {
            continue;
        }
        while (next_element(&list, &element)) {
            if (same(element, token)) {
                return true;
            }
        }
    }
    return false;
}

bool eg_request_has_token(const struct eg_request *r, const char *name, const char *token)
{
    return has_element(r, name, token, same_text);
}

static enum eg_err refuse(struct eg_refusal *why, int status, enum eg_code code, const char *detail,
                          const char *fields)
{
    *why = (struct eg_refusal){status, code, detail, fields};
    return EG_EINVALID;
}

static enum eg_err bad(struct eg_refusal *why, const char *detail)
{
    return refuse(why, 400, EG_CODE_invalid_request, detail, NULL);
}

static bool plain_number(struct eg_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!isdigit((unsigned char)s.p[i])) {
            return false;
        }
    }
    return s.n > 0 && s.n <= 18;
}

/* Whether text may be an authority: no blanks, no second address. An empty one is allowed by RFC
 * 9112 but addresses nobody here. */
static bool host_like(struct eg_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        if (c <= ' ' || c >= 127 || strchr(",/?#@\\", c) != NULL) {
            return false;
        }
    }
    return s.n > 0;
}

enum eg_err eg_request_check(const struct eg_request *r, struct eg_refusal *why)
{
    const int hosts = count(r, "Host"), lengths = count(r, "Content-Length");
    if (r->headers >= EG_HEADERS_MAX) {
        return refuse(why, 431, EG_CODE_invalid_request, "too many header fields", NULL);
    }
    if (hosts > 1 || (hosts == 0 && strcmp(r->version, "1.0") != 0)) {
        return bad(why, "exactly one Host header is needed");
    }
    if (hosts == 1 && !host_like(only(r, "Host"))) {
        return bad(why, "the Host header is not a host");
    }
    if (count(r, "Transfer-Encoding") > 0) {
        return lengths > 0
                   ? bad(why, "Transfer-Encoding and Content-Length in one request")
                   : refuse(why, 411, EG_CODE_invalid_request,
                            "send a Content-Length; transfer codings are not accepted", NULL);
    }
    if (lengths > 1 || (lengths == 1 && !plain_number(only(r, "Content-Length")))) {
        return bad(why, "Content-Length must be one plain number");
    }
    if (count(r, "Authorization") > 1) {
        return bad(why, "more than one Authorization header");
    }
    return EG_OK;
}

/* Whether s is the base64 text of 16 bytes. Bits beyond them are not looked at: the example in RFC
 * 6455 1.3 itself has some set. */
static bool key_like(struct eg_slice s)
{
    if (s.n != KEY_CHARS || s.p[22] != '=' || s.p[23] != '=') {
        return false;
    }
    for (size_t i = 0; i < 22; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        if (!isalnum(c) && c != '+' && c != '/') {
            return false;
        }
    }
    return true;
}

static bool has_body(const struct eg_request *r)
{
    const struct eg_slice length = only(r, "Content-Length");
    return length.p != NULL && !eg_slice_is(length, "0");
}

enum eg_err eg_upgrade_check(const struct eg_request *r, struct eg_refusal *why)
{
    if (strcmp(r->method, "GET") != 0) {
        return refuse(why, 405, EG_CODE_method_not_allowed, "a WebSocket is opened with GET",
                      "Allow: GET\r\n");
    }
    if (strcmp(r->version, "1.1") != 0) {
        return bad(why, "a WebSocket needs HTTP/1.1");
    }
    if (!eg_request_has_token(r, "Upgrade", "websocket")) {
        return refuse(why, 426, EG_CODE_invalid_request, "this path speaks WebSocket only",
                      UPGRADE_FIELDS);
    }
    if (!eg_request_has_token(r, "Connection", "upgrade")) {
        return bad(why, "the Connection header must contain Upgrade");
    }
    if (!eg_slice_is(only(r, "Sec-WebSocket-Version"), "13")) {
        return refuse(why, 426, EG_CODE_invalid_request, "WebSocket version 13 is needed",
                      UPGRADE_FIELDS);
    }
    if (!key_like(only(r, "Sec-WebSocket-Key"))) {
        return bad(why, "Sec-WebSocket-Key must be the base64 text of 16 bytes");
    }
    if (has_body(r)) {
        return bad(why, "a WebSocket request has no body");
    }
    if (count(r, "Origin") > 1) {
        return bad(why, "more than one Origin header");
    }
    return EG_OK;
}

bool eg_upgrade_offers_protocol(const struct eg_request *r)
{
    /* Names of subprotocols are compared with case (RFC 6455 section 4.1): the answer must be one
     * that was offered. */
    return has_element(r, "Sec-WebSocket-Protocol", EG_SUBPROTOCOL, eg_slice_is);
}

/* What follows prefix (without case) in s; p NULL when it does not start so. */
static struct eg_slice after(struct eg_slice s, const char *prefix)
{
    const size_t n = strlen(prefix);
    if (s.n <= n || strncasecmp(s.p, prefix, n) != 0) {
        return (struct eg_slice){NULL, 0};
    }
    return trim((struct eg_slice){s.p + n, s.n - n});
}

static struct eg_slice protocol_token(const struct eg_request *r)
{
    for (int i = 0; i < r->headers; i++) {
        struct eg_slice list = eg_slice_cstr(r->header[i].value), element;
        if (strcasecmp(r->header[i].name, "Sec-WebSocket-Protocol") != 0) {
            continue;
        }
        while (next_element(&list, &element)) {
            const struct eg_slice token = after(element, "bearer.");
            if (token.n > 0) {
                return token;
            }
        }
    }
    return (struct eg_slice){NULL, 0};
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The value with its percent escapes read; malformed ones are left as they stand, since no valid
 * token has any. */
static char *unescape(struct eg_slice s)
{
    char *out = malloc(s.n + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < s.n; i++) {
        if (s.p[i] == '%' && i + 2 < s.n && hex(s.p[i + 1]) >= 0 && hex(s.p[i + 2]) >= 0) {
            out[n++] = (char)(hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]));
            i += 2;
        } else {
            out[n++] = s.p[i];
        }
    }
    if (out != NULL) {
        out[n] = '\0';
    }
    return out;
}

static struct eg_slice query_token(const char *query)
{
    while (query != NULL && *query != '\0') {
        const size_t n = strcspn(query, "&");
        if (strncmp(query, "token=", 6) == 0 && n > 6) {
            return (struct eg_slice){query + 6, n - 6};
        }
        query += n;
        query += *query == '&';
    }
    return (struct eg_slice){NULL, 0};
}

struct eg_slice eg_bearer_token(struct eg_slice authorization)
{
    return after(authorization, "Bearer ");
}

enum eg_err eg_upgrade_token(const struct eg_request *r, char **out, bool *from_query)
{
    struct eg_slice token = eg_bearer_token(only(r, "Authorization"));
    *out = NULL;
    *from_query = false;
    if (token.n == 0) {
        token = protocol_token(r);
    }
    if (token.n > 0) {
        *out = eg_slice_dup(token);
        return *out != NULL ? EG_OK : EG_ENOMEM;
    }
    token = query_token(r->query);
    if (token.n == 0) {
        return EG_OK;
    }
    *from_query = true;
    *out = unescape(token);
    return *out != NULL ? EG_OK : EG_ENOMEM;
}

long eg_header_end(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)p[i];
        if (c >= ' ' && c != 0x7f) {
            continue;
        }
        if (c == '\n') {
            if (i >= 1 && (p[i - 1] == '\n' || (i >= 3 && memcmp(p + i - 3, "\r\n\r", 3) == 0))) {
                return (long)i + 1;
            }
        } else if (c != '\r') {
            return -1;
        }
    }
    return 0;
}

bool eg_request_is_event_source(const struct eg_request *r)
{
    bool twice = false;
    return eg_request_has_token(r, "Accept", "text/event-stream") &&
           (eg_request_header(r, "Origin", &twice) != NULL ||
            eg_request_header(r, "Sec-Fetch-Mode", &twice) != NULL);
}

const char *eg_http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } table[] = {{200, "OK"},
                 {201, "Created"},
                 {202, "Accepted"},
                 {204, "No Content"},
                 {304, "Not Modified"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {406, "Not Acceptable"},
                 {408, "Request Timeout"},
                 {409, "Conflict"},
                 {411, "Length Required"},
                 {413, "Content Too Large"},
                 {414, "URI Too Long"},
                 {417, "Expectation Failed"},
                 {421, "Misdirected Request"},
                 {426, "Upgrade Required"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status) {
            return table[i].reason;
        }
    }
    return status < 500 ? "Bad Request" : "Internal Server Error";
}

void eg_refusal_write(const struct eg_refusal *why, struct eg_buf *out)
{
    struct eg_buf body = {0};
    const struct eg_code_info *info = eg_code_info(why->code);
    eg_buf_printf(&body,
                  "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\","
                  "\"next_step\":\"%s\"",
                  info->text, why->status, info->name, info->next_step);
    if (why->detail != NULL) {
        eg_buf_printf(&body, ",\"detail\":\"%s\"", why->detail);
    }
    eg_buf_char(&body, '}');
    eg_buf_printf(out, "HTTP/1.1 %d %s\r\n", why->status, eg_http_reason(why->status));
    eg_buf_str(out, why->fields != NULL ? why->fields : "");
    eg_buf_printf(out,
                  "Content-Type: application/problem+json\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                  "Connection: close\r\n\r\n",
                  body.n);
    eg_buf_slice(out, (struct eg_slice){body.p, body.n});
    if (body.err != EG_OK && out->err == EG_OK) {
        out->err = body.err;
    }
    eg_buf_free(&body);
}
