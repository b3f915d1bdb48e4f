/*
 * frame.h - one inbound frame as a struct, or the error that names what is wrong with it.
 *
 * Pure. A frame owns a scratch buffer for decoded strings; its slices live until eg_frame_free.
 * Raw slices (content, data, ...) are compact JSON, byte for byte what is stored.
 */
#ifndef EG_WIRE_FRAME_H
#define EG_WIRE_FRAME_H

#include "base/bytes.h"
#include "ebbgate/codes.h"
#include "ebbgate/protocol.h"

/* X(enum name, type on the wire). message_abort is read as abort. */
#define EG_FRAMES(X)                                                                               \
    X(HELLO, "hello")                                                                              \
    X(JOIN, "join")                                                                                \
    X(MESSAGE, "message")                                                                          \
    X(ABORT, "abort")                                                                              \
    X(LEAVE, "leave")                                                                              \
    X(ACK, "ack")                                                                                  \
    X(HISTORY, "history")                                                                          \
    X(PING, "ping")                                                                                \
    X(PONG, "pong")                                                                                \
    X(PRESENCE, "presence")                                                                        \
    X(TYPING, "typing")                                                                            \
    X(AUTH, "auth")                                                                                \
    X(EMIT, "emit")                                                                                \
    X(FINAL, "final")                                                                              \
    X(FAIL, "fail")                                                                                \
    X(EXTEND, "extend")                                                                            \
    X(PUBLISH, "publish")

enum eg_frame_type {
#define EG_F_ENUM(name, wire) EG_FRAME_##name,
    EG_FRAMES(EG_F_ENUM)
#undef EG_F_ENUM
        EG_FRAME_COUNT
};

enum eg_role { EG_ROLE_CLIENT, EG_ROLE_AGENT };
enum eg_outcome { EG_OUTCOME_OK, EG_OUTCOME_ERROR, EG_OUTCOME_ABORTED, EG_OUTCOME_REJECTED };

/* All fields of all frames; what a type does not have, or the sender left out, is empty or -1. */
struct eg_frame {
    enum eg_frame_type type;
    /* handshake */
    struct eg_slice agent_id, session_id, epoch, token, client_name, client_version;
    int64_t protocol_min, protocol_max; /* 1 when absent */
    unsigned caps;                      /* enum eg_cap */
    enum eg_role role;
    int64_t concurrency; /* 1 when absent */
    bool create, since_acked;
    /* positions: -1 when absent */
    int64_t since, before, limit, cursor, turn;
    /* publishing */
    struct eg_slice message_id, event_id, event, reason, status, traceparent;
    struct eg_slice content, metadata, data, outcome,
        error;                    /* raw compact JSON; n == 0 when absent */
    struct eg_slice id;           /* raw JSON of ping's id */
    struct eg_slice content_text; /* content decoded when it is a string of at most 16 bytes */
    enum eg_outcome outcome_status;
    bool ephemeral, retry;  /* retry is true when absent */
    int64_t retry_after_ms; /* -1 when absent */
    struct eg_buf scratch;
};

/* Why a frame was refused. message is ready for the peer; field is "" when no one field is to
 * blame. */
struct eg_frame_error {
    enum eg_code code; /* invalid_json, invalid_frame, unknown_type, invalid_request */
    char message[160];
    char field[40];
    char
        ref[EG_ID_MAX + 1]; /* message_id or event_id of the refused frame, when it could be read */
};

/*
 * Reads one text message. *out is valid (and to be freed) on EG_OK only. EG_EINVALID fills err;
 * EG_ENOMEM without memory. Ranges and types of every field are checked here: ids 1-128 bytes,
 * session_id of create from A-Za-z0-9._:-, cursors 0..2^53-1, content neither null nor "",
 * event one of the stream events or starting "x." (publish: see eg_publish_name_valid),
 * outcome.status one of the four.
 */
enum eg_err eg_frame_parse(struct eg_slice text, struct eg_frame *out,
                           struct eg_frame_error *err) EG_MUST;
/* The same with the memory of *spare for the frame's texts, if there is enough, which is taken
 * then: *spare is empty afterwards. */
enum eg_err eg_frame_parse_into(struct eg_slice text, struct eg_buf *spare, struct eg_frame *out,
                                struct eg_frame_error *err) EG_MUST;
void eg_frame_free(struct eg_frame *f);
const char *eg_frame_name(enum eg_frame_type t);

/* W3C Trace Context 3.2: version-traceid-parentid-flags; later versions may append to it. */
bool eg_traceparent_valid(struct eg_slice t);

/* Whether id is 1-128 characters of A-Za-z0-9._:- */
bool eg_session_id_valid(struct eg_slice id);
/* Whether name is an event that a worker may publish outside of turns: 1-128 of A-Za-z0-9._:- and
 * none of the names under which the gateway speaks. */
bool eg_publish_name_valid(struct eg_slice name);
/* Whether name is an event that a worker may emit: one of the stream events, or of those that it
 * may publish one that begins with x. */
bool eg_event_name_valid(struct eg_slice name);
/* Whether type is one that only clients with the capability streaming are sent, in a turn or not;
 * see eg_event_needs_streaming for names of the worker's own. */
bool eg_event_is_stream(struct eg_slice type);

#endif
