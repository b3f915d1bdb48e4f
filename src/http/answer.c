/*
 * answer.c - answers: header block, JSON, problem+json (RFC 9457).
 *
 * Any HTTP thread. Each answer closes its connection; a body is never cached; nothing here lets a
 * browser guess types, frame a page, or send a token on.
 */
#include <string.h>

#include "edge/handshake.h"
#include "http/http_int.h"

static void cors(const struct eg_exchange *x, struct eg_buf *out)
{
    if (x->admin)
        return;
    eg_buf_str(out, "Vary: Origin\r\n");
    if (x->origin_listed)
        eg_buf_printf(out,
                      "Access-Control-Allow-Origin: %s\r\n"
                      "Access-Control-Expose-Headers: WWW-Authenticate, Retry-After\r\n",
                      x->origin);
}

void eg_x_head(struct eg_exchange *x, struct eg_buf *out, int status, const char *type,
               int64_t length)
{
    x->status = status;
    eg_buf_printf(out, "HTTP/1.1 %d %s\r\n", status, eg_http_reason(status));
    if (type)
        eg_buf_printf(out, "Content-Type: %s\r\n", type);
    if (length >= 0 && status != 204 && status != 304)
        eg_buf_printf(out, "Content-Length: %lld\r\n", (long long)length);
    else if (length == -1 && strcmp(x->version, "1.0") != 0)
        eg_buf_str(out, "Transfer-Encoding: chunked\r\n");
    cors(x, out);
    if (x->fields.n)
        eg_buf_add(out, x->fields.p, x->fields.n);
    else
        eg_buf_str(out, "Cache-Control: no-store\r\n"
                        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n");
    eg_buf_str(out, "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    if (x->admin)
        eg_buf_str(out, "X-Frame-Options: DENY\r\nCross-Origin-Resource-Policy: same-origin\r\n"
                        "Cross-Origin-Opener-Policy: same-origin\r\n");
    eg_buf_str(out, "Connection: close\r\n\r\n");
}

void eg_x_answer(struct eg_exchange *x, int status, const char *type, struct eg_buf *body)
{
    struct eg_buf out = {0};
    if (x->status == 0) {
        if (body->err != EG_OK) {
            status = 500;
            eg_buf_free(body);
        }
        eg_x_head(x, &out, status, type, (int64_t)body->n);
        if (!x->head && status != 204 && body->n)
            eg_buf_add(&out, body->p, body->n);
        if (out.err == EG_OK)
            (void)eg_x_write(x, out.p, out.n);
        eg_buf_free(&out);
    }
    eg_buf_free(body);
}

void eg_x_json(struct eg_exchange *x, int status, struct eg_buf *body)
{
    eg_buf_char(body, '\n');
    eg_x_answer(x, status, "application/json", body);
}

void eg_x_nothing(struct eg_exchange *x)
{
    struct eg_buf none = {0};
    eg_x_answer(x, 204, NULL, &none);
}

/* The header lines that belong to a code. */
static void fields_of(struct eg_exchange *x, int status, enum eg_code code, const char *scope,
                      int retry_s)
{
    struct eg_buf *f = &x->fields;
    eg_buf_str(f, "Cache-Control: no-store\r\n"
                  "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n");
    if (retry_s >= 0)
        eg_buf_printf(f, "Retry-After: %d\r\n", retry_s);
    if (status == 401)
        eg_buf_printf(f, "WWW-Authenticate: Bearer realm=\"ebbgate\"%s\r\n",
                      code == EG_CODE_auth_required ? "" : ", error=\"invalid_token\"");
    else if (scope)
        eg_buf_printf(f,
                      "WWW-Authenticate: Bearer realm=\"ebbgate\", error=\"insufficient_scope\", "
                      "scope=\"%s\"\r\n",
                      scope);
}

static void problem(struct eg_exchange *x, int status, enum eg_code code, const char *detail,
                    const char *field, const char *scope)
{
    const struct eg_code_info *info = eg_code_info(code);
    const bool waits = strcmp(info->next_step, "wait_then_retry") == 0;
    const int retry_s = !waits ? -1 : x->retry_s ? x->retry_s : 1;
    struct eg_buf b = {0};
    if (x->status)
        return;
    if (status == 0)
        status = info->http_status;
    eg_metric_error(code);
    eg_buf_str(&b, "{\"type\":\"about:blank\"");
    eg_json_kcstr(&b, "title", info->text);
    eg_json_kint(&b, "status", status);
    eg_json_kcstr(&b, "code", info->name);
    eg_json_kcstr(&b, "next_step", info->next_step);
    if (detail)
        eg_json_kcstr(&b, "detail", detail);
    if (field)
        eg_json_kcstr(&b, "field", field);
    if (scope)
        eg_json_kcstr(&b, "required_scope", scope);
    if (retry_s >= 0)
        eg_json_kint(&b, "retry_after_seconds", retry_s);
    eg_buf_str(&b, "}\n");
    fields_of(x, status, code, scope, retry_s);
    eg_x_answer(x, status, "application/problem+json", &b);
}

void eg_x_problem(struct eg_exchange *x, int status, enum eg_code code, const char *detail,
                  const char *field)
{
    problem(x, status, code, detail, field, NULL);
}

void eg_x_invalid(struct eg_exchange *x, const char *field, const char *detail)
{
    problem(x, 0, EG_CODE_invalid_request, detail, field, NULL);
}

void eg_x_need_scope(struct eg_exchange *x, const char *scope)
{
    problem(x, 0, EG_CODE_insufficient_scope, NULL, NULL, scope);
}

void eg_x_read_failed(struct eg_exchange *x, enum eg_err err, const char *why)
{
    eg_log_limited(EG_LOG_ERROR, "http.read_failed", "error=%s" EG_F "why=%s", eg_err_text(err),
                   why ? why : "");
    problem(x, 0, err == EG_ENOMEM ? EG_CODE_internal : EG_CODE_storage_unavailable,
            "the log cannot be read now", NULL, NULL);
}
