#include "base/metrics.h"

static int64_t value[EG_METRIC_COUNT];
static int64_t errors[EG_CODE_COUNT];

static const struct {
    const char *name, *help;
    bool gauge;
} about[] = {
#define EG_M_COUNTER(n, h) {#n, h, false},
#define EG_M_GAUGE(n, h) {#n, h, true},
    EG_METRICS(EG_M_COUNTER, EG_M_GAUGE)
#undef EG_M_COUNTER
#undef EG_M_GAUGE
};

#define BUCKETS 24

/* Upper bounds are 2^i of the unit; the last bucket is the rest. */
static struct {
    int64_t count[BUCKETS + 1], sum;
} hist[EG_HIST_COUNT];

static const struct {
    const char *name, *help;
    double scale;
} hist_about[EG_HIST_COUNT] = {
    {"commit_seconds", "time of a commit", 1e-6},
    {"batch_commands", "commands in a commit", 1},
    {"publish_seconds", "time from a command's arrival at the core to its release", 1e-6},
};

void eg_metric_add(enum eg_metric m, int64_t n)
{
    __atomic_add_fetch(&value[m], n, __ATOMIC_RELAXED);
}

void eg_metric_set(enum eg_metric m, int64_t v)
{
    __atomic_store_n(&value[m], v, __ATOMIC_RELAXED);
}

int64_t eg_metric_get(enum eg_metric m)
{
    return __atomic_load_n(&value[m], __ATOMIC_RELAXED);
}

void eg_metric_error(enum eg_code code)
{
    if ((unsigned)code < EG_CODE_COUNT) {
        __atomic_add_fetch(&errors[code], 1, __ATOMIC_RELAXED);
    }
}

void eg_hist_add(enum eg_hist h, int64_t v)
{
    int i = 0;
    while (i < BUCKETS && v > (1LL << i)) {
        i++;
    }
    __atomic_add_fetch(&hist[h].count[i], 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&hist[h].sum, v, __ATOMIC_RELAXED);
}

int64_t eg_hist_quantile(enum eg_hist h, double q)
{
    int64_t total = 0, seen = 0;
    for (int i = 0; i <= BUCKETS; i++) {
        total += __atomic_load_n(&hist[h].count[i], __ATOMIC_RELAXED);
    }
    for (int i = 0; i <= BUCKETS && total; i++) {
        seen += __atomic_load_n(&hist[h].count[i], __ATOMIC_RELAXED);
        if ((double)seen >= q * (double)total) {
            return INT64_C(1) << i;
        }
    }
    return 0;
}

static void page_hist(struct eg_buf *out, enum eg_hist h)
{
    const char *name = hist_about[h].name;
    int64_t total = 0;
    eg_buf_printf(out, "# HELP ebbgate_%s %s\n# TYPE ebbgate_%s histogram\n", name,
                  hist_about[h].help, name);
    for (int i = 0; i <= BUCKETS; i++) {
        total += __atomic_load_n(&hist[h].count[i], __ATOMIC_RELAXED);
        if (i < BUCKETS) {
            eg_buf_printf(out, "ebbgate_%s_bucket{le=\"%.9g\"} %lld\n", name,
                          (double)(1LL << i) * hist_about[h].scale, (long long)total);
        }
    }
    eg_buf_printf(out, "ebbgate_%s_bucket{le=\"+Inf\"} %lld\n", name, (long long)total);
    eg_buf_printf(out, "ebbgate_%s_sum %.9g\nebbgate_%s_count %lld\n", name,
                  (double)__atomic_load_n(&hist[h].sum, __ATOMIC_RELAXED) * hist_about[h].scale,
                  name, (long long)total);
}

void eg_metrics_page(struct eg_buf *out)
{
    for (int i = 0; i < EG_METRIC_COUNT; i++) {
        eg_buf_printf(out, "# HELP ebbgate_%s %s\n# TYPE ebbgate_%s %s\nebbgate_%s %lld\n",
                      about[i].name, about[i].help, about[i].name,
                      about[i].gauge ? "gauge" : "counter", about[i].name,
                      (long long)eg_metric_get((enum eg_metric)i));
    }
    eg_buf_str(out, "# HELP ebbgate_errors_total errors told to peers, by code\n"
                    "# TYPE ebbgate_errors_total counter\n");
    for (int c = 1; c < EG_CODE_COUNT; c++) {
        eg_buf_printf(out, "ebbgate_errors_total{code=\"%s\"} %lld\n",
                      eg_code_info((enum eg_code)c)->name,
                      (long long)__atomic_load_n(&errors[c], __ATOMIC_RELAXED));
    }
    for (int h = 0; h < EG_HIST_COUNT; h++) {
        page_hist(out, (enum eg_hist)h);
    }
}
