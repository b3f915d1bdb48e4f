#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/metrics.h"

#define EVENTS_LIMITED 64
#define BURST_PER_SECOND 10

static int level_now = EG_LOG_INFO;
static int format_now = EG_LOG_TEXT;

static const char *const level_name[] = {"error", "warn", "info", "debug"};
static const char *const format_name[] = {"auto", "text", "json", "journal"};
static const int journal_priority[] = {3, 4, 6, 7};

void eg_log_setup(enum eg_log_level level, enum eg_log_format format)
{
    if (format == EG_LOG_AUTO) {
        format = getenv("JOURNAL_STREAM") ? EG_LOG_JOURNAL : EG_LOG_TEXT;
    }
    __atomic_store_n(&level_now, (int)level, __ATOMIC_RELAXED);
    __atomic_store_n(&format_now, (int)format, __ATOMIC_RELAXED);
}

static int index_of(const char *const *names, int n, const char *text)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

enum eg_err eg_log_level_parse(const char *text, enum eg_log_level *out)
{
    const int i = index_of(level_name, 4, text);
    if (i < 0) {
        return EG_EINVALID;
    }
    *out = (enum eg_log_level)i;
    return EG_OK;
}

enum eg_err eg_log_format_parse(const char *text, enum eg_log_format *out)
{
    const int i = index_of(format_name, 4, text);
    if (i < 0) {
        return EG_EINVALID;
    }
    *out = (enum eg_log_format)i;
    return EG_OK;
}

enum eg_log_level eg_log_level(void)
{
    return (enum eg_log_level)__atomic_load_n(&level_now, __ATOMIC_RELAXED);
}

void eg_log_time(struct eg_buf *out, int64_t wall_ms)
{
    const time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[40];
    gmtime_r(&s, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    eg_buf_printf(out, "%s.%03dZ", text, (int)(wall_ms % 1000));
}

/* Values come from peers: everything that could break a line or a terminal is escaped. */
static void add_escaped(struct eg_buf *b, struct eg_slice s, bool json)
{
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            eg_buf_char(b, '\\');
            eg_buf_char(b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            eg_buf_printf(b, json ? "\\u%04x" : "\\x%02x", c);
        } else if (c >= 0x80 && !json) {
            eg_buf_printf(b, "\\x%02x", c);
        } else if (c >= 0x80) {
            eg_buf_printf(b, "\\u%04x", c); /* bytes as Latin-1: a log stays valid UTF-8 */
        } else {
            eg_buf_char(b, (char)c);
        }
    }
}

static bool plain(struct eg_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '=') {
            return false;
        }
    }
    return s.n > 0;
}

static void add_field(struct eg_buf *b, struct eg_slice pair, bool json)
{
    const char *eq = memchr(pair.p, '=', pair.n);
    if (!eq) {
        return;
    }
    const struct eg_slice key = {pair.p, (size_t)(eq - pair.p)};
    const struct eg_slice value = {eq + 1, pair.n - key.n - 1};
    eg_buf_str(b, json ? ",\"" : " ");
    eg_buf_slice(b, key);
    eg_buf_str(b, json ? "\":\"" : "=");
    if (json) {
        add_escaped(b, value, true);
        eg_buf_char(b, '"');
    } else if (plain(value)) {
        eg_buf_slice(b, value);
    } else {
        eg_buf_char(b, '"');
        add_escaped(b, value, false);
        eg_buf_char(b, '"');
    }
}

static void write_entry(enum eg_log_level level, const char *event, const char *fields)
{
    const int format = __atomic_load_n(&format_now, __ATOMIC_RELAXED);
    const bool json = format == EG_LOG_JSON;
    struct eg_buf b = {0};
    if (json) {
        eg_buf_str(&b, "{\"time\":\"");
        eg_log_time(&b, eg_clock_now().wall_ms);
        eg_buf_printf(&b, "\",\"level\":\"%s\",\"event\":\"%s\"", level_name[level], event);
    } else if (format == EG_LOG_JOURNAL) {
        eg_buf_printf(&b, "<%d>%s", journal_priority[level], event);
    } else {
        eg_log_time(&b, eg_clock_now().wall_ms);
        eg_buf_printf(&b, " %-5s %s", level_name[level], event);
    }
    for (const char *p = fields; *p;) {
        const size_t n = strcspn(p, EG_F);
        add_field(&b, (struct eg_slice){p, n}, json);
        p += n + (p[n] != '\0');
    }
    eg_buf_str(&b, json ? "}\n" : "\n");
    if (!b.err) {
        /* One write an entry, so that lines of several threads do not mix. A full pipe loses the
         * line. */
        const ssize_t ignored = write(STDERR_FILENO, b.p, b.n);
        (void)ignored;
    }
    eg_buf_free(&b);
}

static void log_list(enum eg_log_level level, const char *event, const char *fields, va_list ap)
{
    char text[2048] = "";
    if (fields) {
        vsnprintf(text, sizeof text, fields, ap);
    }
    write_entry(level, event, text);
}

void eg_log(enum eg_log_level level, const char *event, const char *fields, ...)
{
    if (level > eg_log_level()) {
        return;
    }
    va_list ap;
    va_start(ap, fields);
    log_list(level, event, fields, ap);
    va_end(ap);
}

/* A slot for each event name seen: the second it counts, and how many came in it. Races only
 * miscount. */
static bool within_burst(const char *event)
{
    static struct {
        int64_t second;
        int count;
    } slot[EVENTS_LIMITED];
    const int64_t second = eg_clock_mono_ms() / 1000;
    uint32_t h = 2166136261u;
    for (const char *p = event; *p; p++) {
        h = (h ^ (unsigned char)*p) * 16777619u;
    }
    const uint32_t i = h % EVENTS_LIMITED;
    if (__atomic_exchange_n(&slot[i].second, second, __ATOMIC_RELAXED) != second) {
        __atomic_store_n(&slot[i].count, 0, __ATOMIC_RELAXED);
    }
    return __atomic_add_fetch(&slot[i].count, 1, __ATOMIC_RELAXED) <= BURST_PER_SECOND;
}

void eg_log_limited(enum eg_log_level level, const char *event, const char *fields, ...)
{
    if (level > eg_log_level()) {
        return;
    }
    if (!within_burst(event)) {
        eg_metric_add(EG_M_log_suppressed_total, 1);
        return;
    }
    va_list ap;
    va_start(ap, fields);
    log_list(level, event, fields, ap);
    va_end(ap);
}
