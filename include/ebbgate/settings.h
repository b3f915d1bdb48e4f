/*
 * settings.h - every setting of the gateway, in one table.
 *
 * The table drives the configuration file, the EBBGATE_* environment, the --flags, `ebbgate
 * config`, the manual page and the struct below. A snapshot in force is immutable and
 * reference-counted; a reload makes a new one and hands it to each owner (core, reactors, HTTP).
 *
 * Types: INT (a number within min..max), SIZE (bytes: a whole number, or text such as "64k", "16m",
 * "1g": 1024, 1024^2, 1024^3 of them), DUR (a duration, held in milliseconds; in a file or flag
 * a number of seconds or text such as "500ms", "10s", "5m", "2h", "7d"; NAME_ms is accepted for a
 * whole number of milliseconds), STR (text), LIST (list of texts), BOOL.
 */
#ifndef EBBGATE_SETTINGS_H
#define EBBGATE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EG_HOUR_MS 3600000
#define EG_DAY_MS (24LL * EG_HOUR_MS)

/*
 * INT (name, default, min, max, reloadable, help)
 * SIZE(name, default bytes, min bytes, max bytes, reloadable, help)
 * DUR (name, default ms, min ms, max ms, reloadable, help)
 * STR (name, default, reloadable, help)
 * LIST(name, reloadable, help)
 * BOOL(name, default, reloadable, help)
 */
#define EG_SETTINGS(INT, SIZE, DUR, STR, LIST, BOOL)                                               \
    STR(listen, "127.0.0.1:7070", 0, "address and port of the public listener")                    \
    STR(admin, "127.0.0.1:7071", 0, "address and port of the admin listener")                      \
    STR(data, "", 0, "data folder; empty means $XDG_DATA_HOME/ebbgate")                            \
    LIST(agents, 1, "agent ids known from the start")                                              \
    LIST(allowed_origins, 1, "web origins that may connect, exactly as browsers send them")        \
    LIST(trusted_proxies, 1, "addresses or CIDR ranges whose X-Forwarded-For is believed")         \
    STR(audience, "", 1, "required aud claim of tokens; empty means none is required")             \
    STR(key_file, "", 0, "Ed25519 signing key; empty means keys/ in the data folder")              \
    DUR(max_token_lifetime, 30 * EG_DAY_MS, 60000, 3650 * EG_DAY_MS, 1, "longest exp - iat")       \
    SIZE(max_payload, 1048576, 1024, 67108864, 1, "longest message in bytes")                      \
    SIZE(max_buffered_bytes, 8388608, 65536, 1073741824, 1, "bytes that may wait for one client")  \
    INT(max_queued_frames, 1000, 10, 1000000, 1, "frames that may wait for one client")            \
    INT(heartbeat_ms, 15000, 100, 600000, 1, "silence after which a ping is sent, milliseconds")   \
    DUR(handshake_timeout, 10000, 100, 120000, 1, "time for hello after the connection opened")    \
    INT(max_connections, 16000, 1, 1000000, 0, "open connections in total")                        \
    INT(max_connections_per_address, 0, 0, 1000000, 1,                                             \
        "open connections of one address; 0: 1024, and no limit on loopback")                      \
    INT(max_handshakes_per_address, 0, 0, 1000000, 1,                                              \
        "unfinished handshakes of one address; 0: 64, and no limit on loopback")                   \
    INT(handshake_rate, 0, 0, 1000000, 1,                                                          \
        "new connections a second of one address; 0: 200, and no limit on loopback")               \
    INT(message_rate, 0, 0, 1000000, 1, "frames a second from one connection; 0: no limit")        \
    SIZE(byte_rate, 0, 0, 1073741824, 1, "bytes a second from one connection; 0: no limit")        \
    INT(message_rate_per_sub, 0, 0, 1000000, 1, "messages a second of one sub; 0: no limit")       \
    SIZE(byte_rate_per_sub, 0, 0, 1073741824, 1, "message bytes a second of one sub; 0: no limit") \
    INT(max_sessions_per_sub, 0, 0, 100000000, 1, "open sessions of one sub; 0: no limit")         \
    INT(max_queued_turns, 100000, 1, 1000000, 1, "waiting turns of one session")                   \
    INT(max_refused_frames, 10, 1, 100000, 1, "refused frames a minute before close 4028")         \
    DUR(turn_lease, 60000, 100, EG_DAY_MS, 1, "time a worker may be silent about its turn")        \
    DUR(abort_grace, 5000, 0, 600000, 1, "time a worker has to end an aborted turn")               \
    INT(max_attempts, 5, 1, 1000, 1, "attempts at a turn before it is dead")                       \
    DUR(max_turn_age, EG_DAY_MS, 1000, 3650 * EG_DAY_MS, 1, "age at which a turn is not retried")  \
    DUR(retry_backoff, 1000, 1, 3600000, 1, "wait before the second attempt; doubles, up to 60 s") \
    DUR(drain_timeout, 10000, 0, 3600000, 1, "time that open turns have to end at shutdown")       \
    INT(reactors, 0, 0, 64, 0, "network threads; 0: as many as processors, at most 4")             \
    INT(readers, 2, 1, 16, 0, "threads that read the log for replay")                              \
    INT(workers, 32, 4, 512, 0, "HTTP threads of the public listener")                             \
    INT(session_cache, 20000, 100, 10000000, 1, "idle sessions kept in memory")                    \
    DUR(retention_age, 0, 0, 36500 * EG_DAY_MS, 1, "events older than this are trimmed; 0: never") \
    INT(retention_events, 0, 0, 1000000000, 1, "newest events kept a session; 0: all")             \
    SIZE(retention_bytes, 0, 0, 1099511627776, 1, "newest bytes kept a session; 0: all")           \
    DUR(retention_closed, 0, 0, 36500 * EG_DAY_MS, 1,                                              \
        "closed sessions older than this are deleted; 0: never")                                   \
    SIZE(min_free_bytes, 67108864, 0, 1099511627776, 1, "free disk space below which we warn")     \
    STR(log_level, "info", 1, "error, warn, info or debug")                                        \
    STR(log_format, "auto", 0, "text, json, journal or auto")

/* A snapshot of all settings. Lists are NULL-terminated. */
struct eg_settings {
#define EG_S_INT(name, def, min, max, reload, help) int64_t name;
#define EG_S_SIZE(name, def, min, max, reload, help) int64_t name;
#define EG_S_DUR(name, def, min, max, reload, help) int64_t name##_ms;
#define EG_S_STR(name, def, reload, help) char *name;
#define EG_S_LIST(name, reload, help) char **name;
#define EG_S_BOOL(name, def, reload, help) bool name;
    EG_SETTINGS(EG_S_INT, EG_S_SIZE, EG_S_DUR, EG_S_STR, EG_S_LIST, EG_S_BOOL)
#undef EG_S_INT
#undef EG_S_SIZE
#undef EG_S_DUR
#undef EG_S_STR
#undef EG_S_LIST
#undef EG_S_BOOL
    int refs; /* atomic; use the functions */
};

/* A new snapshot with the defaults, one reference; NULL without memory. */
struct eg_settings *eg_settings_new(void);
/* A deep copy with one reference; NULL without memory. */
struct eg_settings *eg_settings_copy(const struct eg_settings *s);
struct eg_settings *eg_settings_ref(struct eg_settings *s);
/* Drops one reference; frees with the last. NULL is fine. */
void eg_settings_unref(struct eg_settings *s);

#endif
