/*
 * ops.c - numbers, settings, the audit log, metrics, and the acts of operation: drain, checkpoint.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "ebbgate/protocol.h"
#include "http/http_int.h"

/* --- numbers --- */

static const char *bound(struct eg_http *h, bool admin)
{
    struct eg_listener *l = __atomic_load_n(&h->listener[admin], __ATOMIC_ACQUIRE);
    return l ? eg_listener_bound(l) : "";
}

static void metric(struct eg_buf *b, const char *key, enum eg_metric m)
{
    const int64_t v = eg_metric_get(m);
    eg_json_kint(b, key, v > 0 ? v : 0);
}

static void quantile(struct eg_buf *b, const char *key, enum eg_hist h, double q)
{
    eg_json_kint(b, key, eg_hist_quantile(h, q));
}

static bool read_stats(struct eg_exchange *x, struct eg_store_stats *out)
{
    struct eg_reader *r = eg_x_reader(x);
    if (!r)
        return false;
    int64_t waiting = 0;
    enum eg_err err = eg_reader_stats(r, out);
    if (err == EG_OK)
        err = eg_reader_waiting_turns(r, &waiting);
    if (err == EG_OK)
        eg_metric_set(EG_M_turns_waiting, waiting);
    else
        eg_x_read_failed(x, err, eg_reader_why(r));
    eg_x_return(x, r);
    return err == EG_OK;
}

static void add_turns(struct eg_buf *b)
{
    eg_buf_str(b, ",\"turns\":{");
    metric(b, "waiting", EG_M_turns_waiting);
    metric(b, "running", EG_M_turns_running);
    metric(b, "ok", EG_M_turns_ok_total);
    metric(b, "error", EG_M_turns_error_total);
    metric(b, "rejected", EG_M_turns_rejected_total);
    metric(b, "aborted", EG_M_turns_aborted_total);
    metric(b, "dead", EG_M_turns_dead_total);
    metric(b, "retried", EG_M_turns_retried_total);
    eg_buf_char(b, '}');
}

static void add_log(struct eg_buf *b)
{
    eg_buf_str(b, ",\"log\":{");
    metric(b, "events", EG_M_events_total);
    metric(b, "event_bytes", EG_M_event_bytes_total);
    metric(b, "commits", EG_M_commits_total);
    metric(b, "commit_failures", EG_M_commit_failures_total);
    metric(b, "duplicates", EG_M_duplicates_total);
    metric(b, "queue", EG_M_core_queue);
    eg_buf_str(b, "},\"latency\":{");
    quantile(b, "commit_p50_us", EG_H_COMMIT_US, 0.5);
    quantile(b, "commit_p99_us", EG_H_COMMIT_US, 0.99);
    quantile(b, "publish_p50_us", EG_H_PUBLISH_US, 0.5);
    quantile(b, "publish_p99_us", EG_H_PUBLISH_US, 0.99);
    quantile(b, "batch_p50", EG_H_BATCH, 0.5);
    eg_buf_char(b, '}');
}

void eg_h_stats(struct eg_exchange *x)
{
    struct eg_store_stats s;
    struct eg_buf b = {0};
    char epoch[EG_EPOCH_MAX + 1];
    if (!read_stats(x, &s))
        return;
    eg_core_epoch(x->http->config.core, 0, epoch);
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "version", EG_VERSION);
    eg_json_kcstr(&b, "epoch", epoch);
    eg_json_kcstr(&b, "public", bound(x->http, false));
    eg_json_kcstr(&b, "admin", bound(x->http, true));
    eg_json_ktime(&b, "started", x->http->started_ms);
    eg_json_ktime(&b, "now", eg_clock_now().wall_ms);
    metric(&b, "connections", EG_M_connections);
    metric(&b, "workers", EG_M_workers);
    eg_buf_str(&b, ",\"sessions\":{");
    eg_json_kint(&b, "total", s.sessions);
    eg_json_kint(&b, "open", s.open_sessions);
    metric(&b, "cached", EG_M_sessions_cached);
    eg_buf_char(&b, '}');
    add_turns(&b);
    add_log(&b);
    eg_buf_str(&b, ",\"storage\":{");
    eg_json_kbool(&b, "ok", eg_metric_get(EG_M_storage_ok) != 0);
    eg_json_kint(&b, "db_bytes", s.db_bytes);
    eg_json_kint(&b, "wal_bytes", s.wal_bytes);
    metric(&b, "disk_free_bytes", EG_M_disk_free_bytes);
    eg_buf_char(&b, '}');
    eg_json_kbool(&b, "draining", eg_metric_get(EG_M_draining) != 0);
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
}

void eg_h_metrics(struct eg_exchange *x)
{
    struct eg_store_stats s;
    struct eg_buf b = {0};
    if (!read_stats(x, &s))
        return;
    eg_metric_set(EG_M_wal_bytes, s.wal_bytes);
    eg_metrics_page(&b);
    eg_buf_printf(&b,
                  "# HELP ebbgate_db_bytes size of the database\n"
                  "# TYPE ebbgate_db_bytes gauge\n"
                  "ebbgate_db_bytes %lld\n"
                  "# HELP ebbgate_sessions stored sessions\n"
                  "# TYPE ebbgate_sessions gauge\n"
                  "ebbgate_sessions{state=\"open\"} %lld\n"
                  "ebbgate_sessions{state=\"closed\"} %lld\n"
                  "# HELP ebbgate_uptime_seconds time since the start\n"
                  "# TYPE ebbgate_uptime_seconds gauge\n"
                  "ebbgate_uptime_seconds %lld\n",
                  (long long)s.db_bytes, (long long)s.open_sessions,
                  (long long)(s.sessions - s.open_sessions),
                  (long long)((eg_clock_mono_ms() - x->http->started_mono_ms) / 1000));
    eg_x_answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

void eg_h_config(struct eg_exchange *x)
{
    struct eg_buf b = {0};
    x->http->config.config(x->http->config.arg, &b);
    eg_x_json(x, 200, &b);
}

/* --- the audit log --- */

struct entries {
    struct eg_buf out;
    int n, limit;
    int64_t last;
    bool more;
};

static void take_entry(void *arg, int64_t id, int64_t at_ms, const char *who, const char *from,
                       const char *action, const char *detail)
{
    struct entries *l = arg;
    if (l->n == l->limit) {
        l->more = true;
        return;
    }
    eg_buf_str(&l->out, l->n++ ? ",{" : "{");
    eg_json_kint(&l->out, "id", id);
    eg_json_ktime(&l->out, "at", at_ms);
    eg_json_kcstr(&l->out, "who", who);
    eg_json_kcstr(&l->out, "from", from);
    eg_json_kcstr(&l->out, "action", action);
    eg_json_kcstr(&l->out, "detail", detail);
    eg_buf_char(&l->out, '}');
    l->last = id;
}

void eg_h_audit_list(struct eg_exchange *x)
{
    struct entries l = {.n = 0};
    int64_t before = 0;
    bool bad;
    if (!eg_x_limit(x, &l.limit))
        return;
    (void)eg_page_read(x, 'l', &before, 1, NULL, &bad);
    struct eg_reader *r = bad ? NULL : eg_x_reader(x);
    if (!r)
        return;
    eg_buf_str(&l.out, "{\"entries\":[");
    const enum eg_err err = eg_reader_audit(r, before, l.limit + 1, take_entry, &l);
    if (err != EG_OK)
        eg_x_read_failed(x, err, eg_reader_why(r));
    eg_x_return(x, r);
    if (err == EG_OK) {
        eg_buf_char(&l.out, ']');
        if (l.more)
            eg_page_next(&l.out, "l:%lld", (long long)l.last);
        else
            eg_page_end(&l.out);
        eg_buf_char(&l.out, '}');
        eg_x_json(x, 200, &l.out);
    }
    eg_buf_free(&l.out);
}

/* --- acts --- */

void eg_h_drain(struct eg_exchange *x)
{
    struct eg_buf b = {0};
    if (!eg_x_check_body(x, "") || !eg_x_audit(x, "drain", ""))
        return;
    eg_buf_str(&b, "{\"draining\":true}");
    eg_x_json(x, 202, &b);
    /* A second signal would cut the first short. */
    if (!__atomic_exchange_n(&x->http->drained, 1, __ATOMIC_ACQ_REL) &&
        !eg_metric_get(EG_M_draining))
        x->http->config.drain(x->http->config.arg);
}

void eg_h_checkpoint(struct eg_exchange *x)
{
    struct eg_call call = {.kind = EG_CALL_CHECKPOINT, .turn = -1};
    struct eg_store_stats s;
    struct eg_buf b = {0};
    if (!eg_x_check_body(x, "") || !eg_x_call(x, &call, "checkpoint", "") || !read_stats(x, &s))
        return;
    eg_buf_char(&b, '{');
    eg_json_kint(&b, "wal_bytes", s.wal_bytes);
    eg_buf_char(&b, '}');
    eg_x_json(x, 200, &b);
}
