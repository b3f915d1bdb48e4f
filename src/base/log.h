/*
 * log.h - structured log to stderr: one line an entry, key=value text, JSON, or journald
 * priorities.
 *
 * Any thread. No token and, at level info and above, no message content may be given as a value.
 * Peers can cause entries: those go through eg_log_limited, which lets at most a burst a second of
 * one event name through and counts the rest.
 */
#ifndef EG_BASE_LOG_H
#define EG_BASE_LOG_H

#include <stdint.h>

#include "base/err.h"

struct eg_buf;

enum eg_log_level { EG_LOG_ERROR, EG_LOG_WARN, EG_LOG_INFO, EG_LOG_DEBUG };
enum eg_log_format { EG_LOG_AUTO, EG_LOG_TEXT, EG_LOG_JSON, EG_LOG_JOURNAL };

/* level and format in force; may be called again at run time. AUTO: journal under systemd, else
 * text. */
void eg_log_setup(enum eg_log_level level, enum eg_log_format format);
enum eg_err eg_log_level_parse(const char *text, enum eg_log_level *out) EG_MUST;
enum eg_err eg_log_format_parse(const char *text, enum eg_log_format *out) EG_MUST;
enum eg_log_level eg_log_level(void);

/*
 * One entry. event is a short fixed name ("conn.open"); fields is a printf format that yields
 * key=value pairs separated by \x1f (EG_F), NULL for none:
 *   eg_log(EG_LOG_INFO, "conn.open", "conn=%s" EG_F "addr=%s", id, addr);
 */
#define EG_F "\x1f"
void eg_log(enum eg_log_level level, const char *event, const char *fields, ...) EG_PRINTF(3, 4);
void eg_log_limited(enum eg_log_level level, const char *event, const char *fields, ...)
    EG_PRINTF(3, 4);
/* Appends a time (ms since 1970) as entries have it: 2026-11-21T12:00:00.125Z. */
void eg_log_time(struct eg_buf *out, int64_t wall_ms);

#endif
