/* tl_json: JSON frames for tests. See tl_json.h. */
#define _GNU_SOURCE 1
#include "tl_json.h"
#include "tl_buf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *tl_json_why(int kind)
{
    switch (kind) {
    case TL_TEXT:
        return "text";
    case TL_BINARY:
        return "binary";
    case TL_CLOSE:
        return "close";
    case TL_PING:
        return "ping";
    case TL_PONG:
        return "pong";
    case TL_EOF:
        return "end of stream";
    case TL_TIMEOUT:
        return "timeout";
    case TL_RESET:
        return "reset";
    default:
        return "protocol violation";
    }
}

bool tl_json_send(struct tl_ws *ws, cJSON *take)
{
    char *text = cJSON_PrintUnformatted(take);
    bool ok = text && tl_ws_text(ws, text);

    free(text);
    cJSON_Delete(take);
    return ok;
}

cJSON *tl_json_any(struct tl_ws *ws, int timeout_ms, int *why)
{
    int64_t deadline = tl_now_ms() + timeout_ms;
    cJSON *o = NULL;
    int rc;

    do {
        int64_t left = deadline - tl_now_ms();
        rc = tl_ws_recv(ws, left > 0 ? (int)left : 0);
    } while (rc == TL_PONG || rc == TL_PING);
    if (rc == TL_TEXT) {
        o = cJSON_ParseWithLength(tl_ws_data(ws), tl_ws_len(ws));
        if (!cJSON_IsObject(o)) {
            cJSON_Delete(o);
            o = NULL;
            rc = TL_BAD;
        }
    }
    if (why)
        *why = rc;
    return o;
}

cJSON *tl_json_next(struct tl_ws *ws, int timeout_ms, int *why)
{
    int64_t deadline = tl_now_ms() + timeout_ms;

    for (;;) {
        int64_t left = deadline - tl_now_ms();
        cJSON *o = tl_json_any(ws, left > 0 ? (int)left : 0, why);
        if (!o || !tl_is(o, "type", "ping"))
            return o;
        cJSON_Delete(o);
    }
}

cJSON *tl_json_wait(struct tl_ws *ws, const char *type, int timeout_ms)
{
    int64_t deadline = tl_now_ms() + timeout_ms;

    for (;;) {
        int64_t left = deadline - tl_now_ms();
        cJSON *o = tl_json_any(ws, left > 0 ? (int)left : 0, NULL);
        if (!o || tl_is(o, "type", type))
            return o;
        cJSON_Delete(o);
    }
}

bool tl_json_quiet(struct tl_ws *ws, int for_ms)
{
    int why;
    cJSON *o = tl_json_next(ws, for_ms, &why);

    cJSON_Delete(o);
    return !o && why == TL_TIMEOUT;
}

const cJSON *tl_get(const cJSON *o, const char *path)
{
    char part[128];

    while (o && *path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        o = cJSON_IsArray(o) ? cJSON_GetArrayItem(o, atoi(part))
                             : cJSON_GetObjectItemCaseSensitive(o, part);
        path += n + (path[n] == '.');
    }
    return o;
}

const char *tl_str(const cJSON *o, const char *path)
{
    const cJSON *v = tl_get(o, path);
    return cJSON_IsString(v) ? v->valuestring : "";
}

int64_t tl_int(const cJSON *o, const char *path)
{
    const cJSON *v = tl_get(o, path);

    if (!cJSON_IsNumber(v) || fabs(v->valuedouble) > 9007199254740992.0 ||
        v->valuedouble < floor(v->valuedouble) || v->valuedouble > floor(v->valuedouble))
        return INT64_MIN;
    return (int64_t)v->valuedouble;
}

bool tl_bool(const cJSON *o, const char *path)
{
    return cJSON_IsTrue(tl_get(o, path));
}

bool tl_has(const cJSON *o, const char *path)
{
    return tl_get(o, path) != NULL;
}

bool tl_is(const cJSON *o, const char *path, const char *value)
{
    const cJSON *v = tl_get(o, path);
    return cJSON_IsString(v) && strcmp(v->valuestring, value) == 0;
}

bool tl_in(const cJSON *o, const char *path, const char *value)
{
    const cJSON *item, *array = tl_get(o, path);

    cJSON_ArrayForEach(item, array)
    {
        if (cJSON_IsString(item) && !strcmp(item->valuestring, value))
            return true;
    }
    return false;
}

/* The end of the JSON value at p (which is valid JSON), or NULL. */
static const char *skip_value(const char *p)
{
    int depth = 0;

    for (; *p; p++) {
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                p += *p == '\\' && p[1];
            if (!*p)
                return NULL;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p;
            depth--;
        } else if (depth == 0 && *p == ',') {
            return p;
        } else {
            continue;
        }
        if (depth == 0)
            return p + 1;
    }
    return depth ? NULL : p;
}

const char *tl_raw(const char *text, const char *path, size_t *len)
{
    const char *p = text;

    while (*path) {
        size_t n = strcspn(path, ".");
        if (*p++ != '{')
            return NULL;
        for (;;) {
            p += strspn(p, " \t\r\n,");
            if (*p != '"')
                return NULL;
            const char *name = p + 1;
            const char *end = skip_value(p);
            if (!end)
                return NULL;
            p = end + strspn(end, " \t\r\n");
            if (*p++ != ':')
                return NULL;
            p += strspn(p, " \t\r\n");
            if ((size_t)(end - 1 - name) == n && !memcmp(name, path, n))
                break;
            p = skip_value(p);
            if (!p)
                return NULL;
        }
        path += n + (path[n] == '.');
    }
    const char *end = skip_value(p);
    *len = end ? (size_t)(end - p) : 0;
    return end ? p : NULL;
}

int64_t tl_scan_int(const char *text, const char *name, int64_t fallback)
{
    size_t n = strlen(name);

    for (const char *p = text; (p = strstr(p, name)); p += n) {
        if (p > text && p[-1] == '"' && p[n] == '"' && p[n + 1] == ':')
            return strtoll(p + n + 2, NULL, 10);
    }
    return fallback;
}

cJSON *tl_hello(struct tl_ws *ws, const char *agent, const char *token, const char *extra,
                int timeout_ms)
{
    struct tl_buf b = {0};

    tl_buf_addf(&b, "{\"type\":\"hello\",\"agent_id\":\"%s\"", agent);
    if (token)
        tl_buf_addf(&b, ",\"token\":\"%s\"", token);
    if (extra && *extra)
        tl_buf_addf(&b, ",%s", extra);
    tl_buf_add(&b, "}", 1);
    bool sent = tl_ws_text_n(ws, (char *)b.p, b.len);
    tl_buf_free(&b);
    return sent ? tl_json_next(ws, timeout_ms, NULL) : NULL;
}
