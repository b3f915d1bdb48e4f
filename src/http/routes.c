/*
 * routes.c - the one table of what is served where, to whom, and by which handler; and the way of a
 * request through it.
 *
 * Order of checks: origin, path (404), method (405), token (401), scope (403), query, body, and
 * then the handler's own. Each request of the admin API is in the access log, without its query.
 * The table is what admin/openapi.yaml describes; a test holds one against the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "edge/handshake.h"
#include "edge/origin.h"
#include "http/http_int.h"

#define API "/api/v1"
#define PAGE "limit next"

const struct eg_route eg_routes[] = {
    {"GET", API "/sessions", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false,
     "agent owner state active_since q " PAGE, eg_h_sessions_list},
    {"GET", API "/sessions/{id}", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_session_get},
    {"DELETE", API "/sessions/{id}", EG_ON_ADMIN, EG_NEED_ADMIN, false, "", eg_h_session_delete},
    {"GET", API "/sessions/{id}/events", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false,
     "since before type order epoch token " PAGE, eg_h_session_events},
    {"POST", API "/sessions/{id}/close", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_session_close},
    {"POST", API "/sessions/{id}/messages", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_session_say},
    {"POST", API "/sessions/{id}/fork", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_session_fork},
    {"POST", API "/sessions/{id}/abort", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_session_abort},
    {"GET", API "/agents", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, PAGE, eg_h_agents_list},
    {"GET", API "/agents/{id}", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_agent_get},
    {"PUT", API "/agents/{id}", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_agent_put},
    {"DELETE", API "/agents/{id}", EG_ON_ADMIN, EG_NEED_ADMIN, false, "", eg_h_agent_delete},
    {"GET", API "/turns", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "state session " PAGE,
     eg_h_turns_list},
    {"POST", API "/turns/{session}/{turn}/retry", EG_ON_ADMIN, EG_NEED_ADMIN, true, "",
     eg_h_turn_retry},
    {"GET", API "/connections", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "sub agent session " PAGE,
     eg_h_connections_list},
    {"DELETE", API "/connections/{id}", EG_ON_ADMIN, EG_NEED_ADMIN, false, "",
     eg_h_connection_delete},
    {"POST", API "/tokens", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_token_mint},
    {"POST", API "/tokens/revoke", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_token_revoke},
    {"GET", API "/tokens/revoked", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, PAGE, eg_h_revoked_list},
    {"GET", API "/keys", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_keys_list},
    {"POST", API "/keys/rotate", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_keys_rotate},
    {"DELETE", API "/keys/{kid}", EG_ON_ADMIN, EG_NEED_ADMIN, false, "", eg_h_key_delete},
    {"GET", API "/stats", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_stats},
    {"GET", API "/config", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_config},
    {"GET", API "/audit", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, PAGE, eg_h_audit_list},
    {"POST", API "/drain", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_drain},
    {"GET", API "/backup", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_backup_get},
    {"POST", API "/backup", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_backup_start},
    {"POST", API "/checkpoint", EG_ON_ADMIN, EG_NEED_ADMIN, true, "", eg_h_checkpoint},
    {"GET", "/metrics", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_metrics},
    {"GET", API "/metrics", EG_ON_ADMIN, EG_NEED_ADMIN_READ, false, "", eg_h_metrics},
    {"GET", "/live", EG_ON_BOTH, EG_NEED_NONE, false, "", eg_h_live},
    {"GET", API "/live", EG_ON_ADMIN, EG_NEED_NONE, false, "", eg_h_live},
    {"GET", "/ready", EG_ON_BOTH, EG_NEED_NONE, false, "", eg_h_ready},
    {"GET", API "/ready", EG_ON_ADMIN, EG_NEED_NONE, false, "", eg_h_ready},
    {"GET", "/health", EG_ON_BOTH, EG_NEED_NONE, false, "", eg_h_health},
    {"GET", API "/health", EG_ON_ADMIN, EG_NEED_NONE, false, "", eg_h_health},
    {"GET", "/openapi.yaml", EG_ON_ADMIN, EG_NEED_NONE, false, "", eg_h_openapi},
    {"GET", API "/openapi.yaml", EG_ON_ADMIN, EG_NEED_NONE, false, "", eg_h_openapi},
    {"POST", "/v1/sessions", EG_ON_PUBLIC, EG_NEED_WRITE, true, "token", eg_h_client_create},
    {"GET", "/v1/sessions/{id}/events", EG_ON_PUBLIC, EG_NEED_READ, false,
     "since before epoch token " PAGE, eg_h_client_events},
    {"POST", "/v1/sessions/{id}/messages", EG_ON_PUBLIC, EG_NEED_WRITE, true, "token",
     eg_h_client_message},
    {"POST", "/v1/sessions/{id}/abort", EG_ON_PUBLIC, EG_NEED_WRITE, true, "token",
     eg_h_client_abort},
    {"GET", "/.well-known/jwks.json", EG_ON_PUBLIC, EG_NEED_NONE, false, "", eg_h_jwks},
    {NULL, NULL, 0, EG_NEED_NONE, false, NULL, NULL}};

/* Whether the raw path is of this pattern; the parameters, still encoded, into raw. */
static bool matches(const char *pattern, const char *path, struct eg_slice raw[EG_PARAM_MAX])
{
    int params = 0;
    memset(raw, 0, EG_PARAM_MAX * sizeof *raw);
    while (*pattern == '/' && *path == '/') {
        pattern++;
        path++;
        const struct eg_slice want = {pattern, strcspn(pattern, "/")};
        const struct eg_slice got = {path, strcspn(path, "/")};
        if (want.n && want.p[0] == '{' ? got.n == 0 : !eg_slice_eq(want, got))
            return false;
        if (want.n && want.p[0] == '{')
            raw[params++] = got;
        pattern += want.n;
        path += got.n;
    }
    return *pattern == '\0' && *path == '\0';
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes a parameter of the path in x->texts. False: malformed, or no id: answered. */
static bool take_param(struct eg_exchange *x, int i, struct eg_slice raw)
{
    struct eg_buf *b = &x->texts[2 + i];
    size_t bad;
    for (size_t at = 0; at < raw.n; at++) {
        if (raw.p[at] != '%') {
            eg_buf_char(b, raw.p[at]);
            continue;
        }
        const int high = at + 2 < raw.n ? hex(raw.p[at + 1]) : -1;
        const int low = high >= 0 ? hex(raw.p[at + 2]) : -1;
        if (low < 0 || high * 16 + low == 0) {
            eg_x_invalid(x, NULL, "the path is not well encoded");
            return false;
        }
        eg_buf_char(b, (char)(high * 16 + low));
        at += 2;
    }
    eg_buf_char(b, '\0');
    x->param[i] = (struct eg_slice){b->p, b->n - 1};
    if (b->err == EG_OK && b->n <= EG_ID_MAX + 1 && eg_utf8_valid(x->param[i], &bad))
        return true;
    if (b->err == EG_OK && strcmp(x->method, "PUT") == 0) /* nothing of that name can be made */
        eg_x_invalid(x, "id", "must be 1 to 128 bytes of UTF-8");
    else
        eg_x_problem(x, 0, b->err != EG_OK ? EG_CODE_internal : EG_CODE_not_found, NULL, NULL);
    return false;
}

/* The route, or NULL with the methods that there are for this path in allow (empty: none). */
static const struct eg_route *find(struct eg_exchange *x, const char *path,
                                   struct eg_slice raw[EG_PARAM_MAX], struct eg_buf *allow)
{
    const unsigned here = x->admin ? EG_ON_ADMIN : EG_ON_PUBLIC;
    for (const struct eg_route *r = eg_routes; r->method; r++) {
        if (!(r->where & here) || !matches(r->path, path, raw))
            continue;
        if (strcmp(r->method, x->method) == 0)
            return r;
        eg_buf_printf(allow, "%s%s", allow->n ? ", " : "", r->method);
        if (strcmp(r->method, "GET") == 0) {
            if (x->head)
                return r;
            eg_buf_str(allow, ", HEAD");
        }
    }
    return NULL;
}

/* --- who asks --- */

/* Whether the page that asks (if it is one) may: on the admin listener only our own console. */
static bool check_origin(struct eg_exchange *x)
{
    x->origin = eg_x_header(x, "Origin");
    if (!x->origin)
        return true;
    if (x->admin) {
        const char *host = eg_x_header(x, "Host");
        const char *rest = strncmp(x->origin, "http://", 7) == 0    ? x->origin + 7
                           : strncmp(x->origin, "https://", 8) == 0 ? x->origin + 8
                                                                    : NULL;
        return rest && host && strcmp(rest, host) == 0;
    }
    char *const *allowed = x->settings->allowed_origins;
    if (eg_origin_allowed(x->origin, allowed, false)) {
        x->origin_listed = true;
        return true;
    }
    struct eg_listener *l = __atomic_load_n(&x->http->listener[0], __ATOMIC_ACQUIRE);
    const char *bound = l ? eg_listener_bound(l) : "";
    return eg_origin_allowed(x->origin, allowed, eg_host_is_local(bound, ""));
}

/* A browser asks before it sends (Fetch 3.2.2). */
static void preflight(struct eg_exchange *x)
{
    eg_buf_str(&x->fields, "Cache-Control: no-store\r\n"
                           "Access-Control-Allow-Methods: GET, POST\r\n"
                           "Access-Control-Allow-Headers: Authorization, Content-Type, "
                           "Idempotency-Key, Last-Event-ID, Traceparent\r\n"
                           "Access-Control-Max-Age: 600\r\n");
    eg_x_nothing(x);
}

/* The token of the request: header, or for those who cannot send one the query. */
static struct eg_slice token_of(struct eg_exchange *x)
{
    const struct eg_slice token = eg_bearer_token(eg_slice_cstr(eg_x_header(x, "Authorization")));
    if (token.n)
        return token;
    if (!strstr(x->route->query, "token"))
        return (struct eg_slice){NULL, 0};
    x->token_from_query = true;
    return eg_x_query(x, "token");
}

static bool has_scope(struct eg_exchange *x)
{
    static const struct {
        unsigned any;
        const char *name;
    } need[] = {[EG_NEED_READ] = {EG_SCOPE_READ, "read"},
                [EG_NEED_WRITE] = {EG_SCOPE_WRITE, "write"},
                [EG_NEED_ADMIN_READ] = {EG_SCOPE_ADMIN | EG_SCOPE_ADMIN_READ, "admin:read"},
                [EG_NEED_ADMIN] = {EG_SCOPE_ADMIN, "admin"}};
    if (x->claims.scopes & need[x->route->need].any)
        return true;
    eg_x_need_scope(x, need[x->route->need].name);
    return false;
}

static bool authorise(struct eg_exchange *x)
{
    const char *cause = "";
    if (x->route->need == EG_NEED_NONE)
        return true;
    const struct eg_slice token = token_of(x);
    if (token.n == 0) {
        eg_x_problem(x, 0, EG_CODE_auth_required, NULL, NULL);
        return false;
    }
    const enum eg_err err = token.n > EG_TOKEN_BYTES_MAX
                                ? EG_EDENIED
                                : eg_auth_check(x->http->config.auth, token, eg_clock_now().wall_ms,
                                                &x->claims, &cause);
    if (err == EG_EDENIED) {
        eg_log_limited(EG_LOG_INFO, "http.denied", "addr=%s" EG_F "path=%s" EG_F "cause=%s",
                       x->addr, x->path, cause);
        eg_x_problem(x, 0, EG_CODE_auth_unauthorized, NULL, NULL);
        return false;
    }
    if (err != EG_OK) {
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return false;
    }
    snprintf(x->who, sizeof x->who, "%s", x->claims.sub);
    return has_scope(x);
}

/* --- the way through --- */

static bool take_body(struct eg_exchange *x)
{
    const char *expect = eg_x_header(x, "Expect");
    if (expect && strcasecmp(expect, "100-continue") != 0) {
        eg_x_problem(x, 417, EG_CODE_invalid_request, "this expectation is not known", "Expect");
        return false;
    }
    switch (eg_x_read_body(x)) {
    case EG_OK:
        return true;
    case EG_EFULL:
        eg_x_problem(x, 0, EG_CODE_payload_too_large, NULL, NULL);
        return false;
    case EG_EAGAIN:
        eg_x_problem(x, 408, EG_CODE_invalid_request, "the body did not arrive in time", NULL);
        return false;
    case EG_ENOMEM:
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
        return false;
    default:
        x->status = 400; /* nobody is there to be answered */
        return false;
    }
}

static void not_here(struct eg_exchange *x, const struct eg_buf *allow)
{
    if (allow->n == 0) {
        if (!x->admin || strncmp(x->path, "/api/", 5) == 0 || !eg_x_file(x))
            eg_x_problem(x, 0, EG_CODE_not_found, NULL, NULL);
        return;
    }
    if (!x->admin && x->origin_listed && strcmp(x->method, "OPTIONS") == 0) {
        preflight(x);
        return;
    }
    eg_buf_printf(&x->fields, "Allow: %.*s\r\n", (int)allow->n, allow->p);
    eg_x_problem(x, 0, EG_CODE_method_not_allowed, NULL, NULL);
}

static void run(struct eg_exchange *x, const char *path)
{
    struct eg_buf allow = {0};
    struct eg_slice raw[EG_PARAM_MAX] = {{NULL, 0}};
    bool go = true;
    x->route = find(x, path, raw, &allow);
    if (!x->route) {
        not_here(x, &allow);
        go = false;
    }
    eg_buf_free(&allow);
    for (int i = 0; go && i < EG_PARAM_MAX && raw[i].n; i++)
        go = take_param(x, i, raw[i]);
    if (go && authorise(x) && eg_x_check_query(x, x->route->query) &&
        (!x->route->body || take_body(x)))
        x->route->handle(x);
    if (go && x->status == 0)
        eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
}

void eg_x_serve(struct eg_exchange *x, const char *path, const char *query)
{
    const int64_t start = eg_clock_mono_us();
    if (!eg_x_split(x, path, query))
        return;
    if (!check_origin(x))
        eg_x_problem(x, 0, EG_CODE_origin_not_allowed, NULL, NULL);
    else
        run(x, path);
    if (x->admin && strncmp(x->path, API "/", sizeof API) == 0)
        eg_log(EG_LOG_INFO, "admin.request",
               "method=%s" EG_F "path=%s" EG_F "status=%d" EG_F "sub=%s" EG_F "addr=%s" EG_F
               "us=%lld",
               x->method, x->path, x->status, *x->who ? x->who : "-", x->addr,
               (long long)(eg_clock_mono_us() - start));
}
