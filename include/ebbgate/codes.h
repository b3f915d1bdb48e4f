/*
 * codes.h - the one table of protocol error codes.
 *
 * Every code that can appear in hello_error, error or problem+json is a row here: its name on the
 * wire, the sentence a person reads, the next_step for the program, the WebSocket close code used
 * when it refuses a handshake, and the HTTP status it has on the REST side.
 */
#ifndef EBBGATE_CODES_H
#define EBBGATE_CODES_H

/* X(name, text, next_step, close code of a refused handshake, HTTP status) */
#define EG_CODES(X)                                                                                \
    X(auth_required, "a token is required", "reauthenticate", 4003, 401)                           \
    X(auth_unauthorized, "the token does not allow this", "reauthenticate", 4003, 401)             \
    X(protocol_unsupported, "no common protocol version", "upgrade_client", 4003, 400)             \
    X(agent_not_found, "no such agent", "do_not_retry", 4003, 404)                                 \
    X(session_not_found, "no such session", "do_not_retry", 4003, 404)                             \
    X(session_closed, "the session is closed", "do_not_retry", 4003, 409)                          \
    X(invalid_request, "the request is not valid", "do_not_retry", 4003, 400)                      \
    X(origin_not_allowed, "this origin is not allowed", "do_not_retry", 4003, 403)                 \
    X(rate_limited, "too many requests", "wait_then_retry", 4008, 429)                             \
    X(too_many_connections, "too many connections", "wait_then_retry", 4029, 503)                  \
    X(draining, "the gateway is shutting down", "wait_then_retry", 1012, 503)                      \
    X(storage_unavailable, "the log cannot be written now", "wait_then_retry", 1013, 503)          \
    X(invalid_json, "not valid JSON", "do_not_retry", 4003, 400)                                   \
    X(invalid_frame, "not a valid frame", "do_not_retry", 4003, 400)                               \
    X(unknown_type, "unknown frame type", "do_not_retry", 4003, 400)                               \
    X(not_joined, "say hello first", "do_not_retry", 4003, 409)                                    \
    X(insufficient_scope, "the token lacks a scope", "reauthenticate", 4003, 403)                  \
    X(payload_too_large, "larger than max_payload", "do_not_retry", 1009, 413)                     \
    X(queue_full, "the session has too many waiting turns", "wait_then_retry", 1013, 429)          \
    X(id_conflict, "this id was used with other content", "do_not_retry", 4003, 409)               \
    X(turn_closed, "the turn is not this worker's any more", "do_not_retry", 4003, 409)            \
    X(internal, "internal error", "wait_then_retry", 1011, 500)                                    \
    X(not_found, "nothing is here", "do_not_retry", 4003, 404)                                     \
    X(method_not_allowed, "this method is not allowed here", "do_not_retry", 4003, 405)            \
    X(conflict, "the present state does not allow this", "do_not_retry", 4003, 409)

enum eg_code {
    EG_CODE_NONE = 0,
#define EG_CODE_ENUM(name, text, step, close, http) EG_CODE_##name,
    EG_CODES(EG_CODE_ENUM)
#undef EG_CODE_ENUM
        EG_CODE_COUNT
};

/* One row of the table; strings are static. */
struct eg_code_info {
    const char *name;
    const char *text;
    const char *next_step;
    unsigned short close_code;
    unsigned short http_status;
};

/* The row of code; for EG_CODE_NONE and anything out of range that of `internal`. Never NULL. */
const struct eg_code_info *eg_code_info(enum eg_code code);

/* WebSocket close codes in use (RFC 6455 7.4 and the gateway's own 4xxx range). */
enum eg_close {
    EG_CLOSE_NORMAL = 1000,
    EG_CLOSE_PROTOCOL = 1002,
    EG_CLOSE_UTF8 = 1007,
    EG_CLOSE_TOO_BIG = 1009,
    EG_CLOSE_INTERNAL = 1011,
    EG_CLOSE_RESTART = 1012,
    EG_CLOSE_TRY_LATER = 1013,
    EG_CLOSE_CREDENTIALS = 4001,
    EG_CLOSE_LIVENESS = 4002,
    EG_CLOSE_REFUSED = 4003,
    EG_CLOSE_RATE = 4008,
    EG_CLOSE_BAD_FRAMES = 4028,
    EG_CLOSE_CONN_LIMIT = 4029
};

#endif
