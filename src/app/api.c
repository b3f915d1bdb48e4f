/*
 * api.c - see api.h.
 */
#include "app/api.h"

#include <curl/curl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "app/trust.h"
#include "base/clock.h"

#define OWN_TTL_MS (15 * 60 * 1000LL)

static int make_token(struct eg_api *a, const struct eg_settings *s)
{
    char why[512] = "", made[8];
    struct eg_keyring *ring = NULL;
    const struct passwd *pw = getpwuid(getuid());
    struct eg_mint what = {
        .sub = pw && *pw->pw_name ? pw->pw_name : "local", .scope = "admin", .ttl_ms = OWN_TTL_MS};
    if (*s->audience)
        what.audience = s->audience;
    enum eg_err err = eg_keys_load(s, false, &ring, made, sizeof made, why, sizeof why);
    if (err == EG_OK)
        err = eg_keys_mint(ring, &what, &a->token, why, sizeof why);
    eg_keyring_unref(ring);
    if (err == EG_OK)
        return EG_PROCEED;
    eg_complain(a->cmd, "no --token, and none can be made: %s", *why ? why : eg_err_text(err));
    return EG_EXIT_CONFIG;
}

/* Notes where the admin listener is; an address without a scheme is one of HTTP. */
static int set_base(struct eg_api *a, const char *url)
{
    const char *const scheme = strstr(url, "://") ? "" : "http://";
    size_t n = strlen(url);
    if (!*scheme && strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
        return eg_usage(a->cmd, "\"%s\" is no URL such as http://127.0.0.1:7071", url);
    while (n > 0 && url[n - 1] == '/')
        n--;
    if (asprintf(&a->base, "%s%.*s", scheme, (int)n, url) < 0)
        a->base = NULL;
    return EG_PROCEED;
}

int eg_api_init(struct eg_api *a, const struct eg_command *cmd, const struct eg_api_opts *o)
{
    const char *url = o->url ? o->url : getenv("EBBGATE_ADMIN_URL");
    const char *token = o->token ? o->token : getenv("EBBGATE_TOKEN");
    struct eg_config c;
    memset(a, 0, sizeof *a);
    a->cmd = cmd;
    int code = eg_cli_data(cmd, &o->data, &c);
    if (code != EG_PROCEED)
        return code;
    a->silence_ms = 4 * c.settings->heartbeat_ms + 5000;
    code = set_base(a, url && *url ? url : c.settings->admin);
    if (code != EG_PROCEED) {
        eg_config_free(&c);
        return code;
    }
    if (token && *token) {
        eg_buf_str(&a->token, token);
    } else {
        a->own = o;
        code = make_token(a, c.settings);
    }
    eg_buf_char(&a->token, '\0');
    eg_config_free(&c);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    a->curl = curl_easy_init();
    if (code == EG_PROCEED && (!a->base || !a->curl || a->token.err != EG_OK)) {
        eg_complain(cmd, "out of memory");
        code = EG_EXIT_RETRY;
    }
    return code;
}

int eg_api_renew(struct eg_api *a)
{
    struct eg_config c;
    if (!a->own)
        return EG_PROCEED;
    int code = eg_cli_data(a->cmd, &a->own->data, &c);
    if (code != EG_PROCEED)
        return code;
    eg_buf_reset(&a->token);
    code = make_token(a, c.settings);
    eg_buf_char(&a->token, '\0');
    eg_config_free(&c);
    if (code == EG_PROCEED && a->token.err != EG_OK) {
        eg_complain(a->cmd, "out of memory");
        code = EG_EXIT_RETRY;
    }
    return code;
}

void eg_api_free(struct eg_api *a)
{
    curl_easy_cleanup(a->curl);
    free(a->base);
    eg_buf_free(&a->token);
}

void eg_api_encode(struct eg_buf *b, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++) {
        if (strchr(plain, *text))
            eg_buf_char(b, *text);
        else
            eg_buf_printf(b, "%%%02X", (unsigned)(uint8_t)*text);
    }
}

void eg_api_param(struct eg_buf *path, const char *key, const char *value)
{
    if (!value)
        return;
    eg_buf_char(path, path->n && memchr(path->p, '?', path->n) ? '&' : '?');
    eg_buf_str(path, key);
    eg_buf_char(path, '=');
    eg_api_encode(path, value);
}

const char *eg_api_path(struct eg_buf *path)
{
    eg_buf_char(path, '\0');
    path->n -= path->err == EG_OK;
    return path->err == EG_OK ? path->p : NULL;
}

/* Where an answer goes: what is no 2xx is kept for the message. */
struct answer {
    CURL *curl;
    const struct eg_api_request *r;
    struct eg_buf *out;
    struct eg_buf problem;
    int64_t heard_ms; /* when the gateway last said something */
    int64_t silence_ms;
    bool stopped;
};

static const char *wanted(const struct eg_api_request *r)
{
    return r->accept ? r->accept : "application/json";
}

/* Whether a 2xx answer is of the kind asked for: a page of whatever else listens there is not. */
static bool is_wanted(const struct answer *a)
{
    const char *type = NULL;
    const size_t n = strlen(wanted(a->r));
    curl_easy_getinfo(a->curl, CURLINFO_CONTENT_TYPE, &type);
    return type && strncasecmp(type, wanted(a->r), n) == 0 && strchr("; \t", type[n]) != NULL;
}

static size_t take_piece(struct answer *a, char *p, size_t n)
{
    long status = 0;
    curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299 || !is_wanted(a)) {
        if (a->problem.n < 65536)
            eg_buf_add(&a->problem, p, n);
    } else if (a->r->sink) {
        a->stopped = !a->r->sink(a->r->arg, p, n);
        return a->stopped ? 0 : n;
    } else {
        eg_buf_add(a->out, p, n);
        return a->out->err == EG_OK ? n : 0;
    }
    return n;
}

static size_t take(char *p, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;
    n = take_piece(a, p, size * n);
    a->heard_ms = eg_clock_mono_ms(); /* after a sink that may have waited for its reader */
    return n;
}

/* libcurl asks about once a second whether to go on. */
static int is_silent(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct answer *answer = arg;
    (void)a, (void)b, (void)c, (void)d;
    return eg_clock_mono_ms() - answer->heard_ms > answer->silence_ms;
}

static int refused(const struct eg_api *a, const struct eg_buf *problem)
{
    struct eg_json_doc doc;
    char *code = NULL, *detail = NULL, *field = NULL, *scope = NULL;
    bool elsewhere = true;
    if (problem->n &&
        eg_json_scan((struct eg_slice){problem->p, problem->n}, EG_JSON_DEPTH_MAX, &doc) == EG_OK) {
        code = eg_field_text(&doc, "code");
        detail = eg_field_text(&doc, "detail");
        field = eg_field_text(&doc, "field");
        scope = eg_field_text(&doc, "required_scope");
        elsewhere = !code || (a->status == 404 && !detail && strcmp(code, "not_found") == 0);
        if (!detail)
            detail = eg_field_text(&doc, "title");
    }
    eg_complain(a->cmd, "%s%s%s%s%s (%s, status %ld)%s%s%s", field ? field : "", field ? ": " : "",
                detail ? detail : "the gateway refused", scope ? ": " : "", scope ? scope : "",
                code ? code : "no code", a->status, elsewhere ? " (is the admin listener at " : "",
                elsewhere ? a->base : "", elsewhere ? "?)" : "");
    free(code);
    free(detail);
    free(field);
    free(scope);
    return EG_EXIT_FAILED;
}

/* A 2xx answer: EG_PROCEED if it is a gateway's. One that no sink took must be whole JSON too. */
static int accepted(const struct eg_api *a, const struct answer *answer)
{
    struct eg_json_doc doc;
    const struct eg_buf *out = answer->out;
    if (a->status == 204 ||
        (is_wanted(answer) && (answer->r->sink || eg_json_scan((struct eg_slice){out->p, out->n},
                                                               EG_JSON_DEPTH_MAX, &doc) == EG_OK)))
        return EG_PROCEED;
    if (!a->quiet)
        eg_complain(a->cmd, "%s: what answers there is no gateway (is the admin listener there?)",
                    a->base);
    return EG_EXIT_FAILED;
}

bool eg_api_away(const struct eg_api *a)
{
    return a->status == 0 || a->status == 408 || a->status == 425 || a->status == 429 ||
           a->status >= 500;
}

/* The request's header lines; NULL without memory. */
static struct curl_slist *headers_of(const struct eg_api *a, const struct eg_api_request *r)
{
    struct eg_buf b = {0};
    eg_buf_printf(&b, "Authorization: Bearer %s", a->token.p);
    eg_buf_char(&b, '\0');
    const size_t accept = b.n;
    eg_buf_printf(&b, "Accept: %s", wanted(r));
    eg_buf_char(&b, '\0');
    struct curl_slist *list = b.err == EG_OK ? curl_slist_append(NULL, b.p) : NULL;
    if (list && (!curl_slist_append(list, b.p + accept) ||
                 !curl_slist_append(list, "Content-Type: application/json"))) {
        curl_slist_free_all(list);
        list = NULL;
    }
    eg_buf_free(&b);
    return list;
}

/* All of the request but its header lines; false without memory. */
static bool set_request(struct eg_api *a, const struct eg_api_request *r, struct answer *answer)
{
    struct eg_buf url = {0};
    curl_easy_reset(a->curl);
    eg_buf_printf(&url, "%s/api/v1%s", a->base, r->path ? r->path : "");
    eg_buf_char(&url, '\0');
    const bool ok = url.err == EG_OK && curl_easy_setopt(a->curl, CURLOPT_URL, url.p) == CURLE_OK;
    eg_buf_free(&url);
    curl_easy_setopt(a->curl, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(a->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(a->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    eg_trust(a->curl);
    curl_easy_setopt(a->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(a->curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(a->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(a->curl, CURLOPT_XFERINFOFUNCTION, is_silent);
    curl_easy_setopt(a->curl, CURLOPT_XFERINFODATA, answer);
    if (strncmp(a->base, "http://127.", 11) == 0 || strncmp(a->base, "http://localhost", 16) == 0)
        curl_easy_setopt(a->curl, CURLOPT_NOPROXY, "*");
    if (r->body) {
        curl_easy_setopt(a->curl, CURLOPT_POSTFIELDSIZE, (long)r->body->n);
        curl_easy_setopt(a->curl, CURLOPT_POSTFIELDS, r->body->p);
    }
    return ok;
}

/* Sends what is set; says what is wrong with the answer, if anything. The command's exit code. */
static int perform(struct eg_api *a, struct answer *answer)
{
    char error[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(a->curl, CURLOPT_ERRORBUFFER, error);
    const CURLcode rc = curl_easy_perform(a->curl);
    curl_easy_setopt(a->curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (a->quiet && (eg_api_away(a) || (a->status == 200 && rc != CURLE_OK)))
        return EG_EXIT_FAILED;
    if (rc != CURLE_OK && !answer->stopped) {
        const bool silent = rc == CURLE_ABORTED_BY_CALLBACK;
        eg_complain(a->cmd, "%s: %s (is the gateway running?)", a->base,
                    silent   ? "it accepts requests and says nothing"
                    : *error ? error
                             : curl_easy_strerror(rc));
        return EG_EXIT_FAILED;
    }
    return a->status < 200 || a->status > 299 ? refused(a, &answer->problem) : accepted(a, answer);
}

int eg_api_call(struct eg_api *a, const struct eg_api_request *r, struct eg_buf *out)
{
    struct answer answer = {.curl = a->curl,
                            .r = r,
                            .out = out,
                            .heard_ms = eg_clock_mono_ms(),
                            .silence_ms = a->silence_ms};
    struct curl_slist *headers = headers_of(a, r);
    int code = EG_EXIT_RETRY;
    if (headers && set_request(a, r, &answer)) {
        curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, headers);
        code = perform(a, &answer);
    }
    if (code == EG_EXIT_RETRY)
        eg_complain(a->cmd, "out of memory");
    curl_slist_free_all(headers);
    eg_buf_free(&answer.problem);
    return code;
}
