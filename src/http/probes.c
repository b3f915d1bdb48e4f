/*
 * probes.c - GET /live, /ready and /health, for load balancers and service managers. No token; made
 * from the process's gauges alone.
 */
#include "base/clock.h"
#include "ebbgate/protocol.h"
#include "http/http_int.h"

/* Appends the names of what fails as an array; true when there is none. */
static bool add_failing(const struct eg_exchange *x, struct eg_buf *b)
{
    const struct {
        const char *name;
        bool is;
    } all[] = {{"starting", __atomic_load_n(&x->http->started, __ATOMIC_ACQUIRE) == 0},
               {"draining", eg_metric_get(EG_M_draining) != 0},
               {"storage", eg_metric_get(EG_M_storage_ok) == 0}};
    int n = 0;
    eg_json_key(b, "failing");
    eg_buf_char(b, '[');
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].is)
            eg_buf_printf(b, "%s\"%s\"", n++ ? "," : "", all[i].name);
    }
    eg_buf_char(b, ']');
    return n == 0;
}

static void add_warnings(const struct eg_exchange *x, struct eg_buf *b)
{
    const int64_t room = eg_metric_get(EG_M_disk_free_bytes);
    const bool low = room < x->settings->min_free_bytes;
    eg_json_key(b, "warnings");
    eg_buf_str(b, low ? "[\"disk\"]" : "[]");
}

void eg_h_live(struct eg_exchange *x)
{
    struct eg_buf b = {0};
    eg_buf_str(&b, "{\"status\":\"live\"}");
    eg_x_json(x, 200, &b);
}

void eg_h_ready(struct eg_exchange *x)
{
    struct eg_buf parts = {0}, b = {0};
    eg_buf_char(&parts, '{');
    const bool ok = add_failing(x, &parts);
    add_warnings(x, &parts);
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "status", ok ? "ready" : "unavailable");
    eg_buf_char(&b, ',');
    if (parts.n)
        eg_buf_add(&b, parts.p + 1, parts.n - 1);
    eg_buf_char(&b, '}');
    b.err = b.err != EG_OK ? b.err : parts.err;
    eg_buf_free(&parts);
    eg_x_json(x, ok ? 200 : 503, &b);
}

void eg_h_health(struct eg_exchange *x)
{
    struct eg_buf parts = {0}, b = {0};
    eg_buf_char(&parts, '{');
    const bool ok = add_failing(x, &parts);
    add_warnings(x, &parts);
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "status", ok ? "ok" : "degraded");
    eg_json_kcstr(&b, "version", EG_VERSION);
    eg_json_kint(&b, "uptime_seconds", (eg_clock_mono_ms() - x->http->started_mono_ms) / 1000);
    eg_json_kint(&b, "connections", eg_metric_get(EG_M_connections));
    eg_buf_char(&b, ',');
    if (parts.n)
        eg_buf_add(&b, parts.p + 1, parts.n - 1);
    eg_buf_char(&b, '}');
    b.err = b.err != EG_OK ? b.err : parts.err;
    eg_buf_free(&parts);
    eg_x_json(x, 200, &b);
}
