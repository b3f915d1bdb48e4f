/*
 * event.h - the bytes of an event, made once, and the frames around it. Pure.
 */
#ifndef EG_WIRE_EVENT_H
#define EG_WIRE_EVENT_H

#include "base/bytes.h"
#include "base/clock.h"
#include "ebbgate/codes.h"
#include "wire/frame.h"

/* Everything that goes into an event. Slices are borrowed. */
struct eg_event {
    struct eg_slice type, session_id, event_id, source;
    uint64_t cursor;
    uint64_t turn; /* 0: belongs to no turn */
    int64_t timestamp_ms;
    struct eg_slice traceparent; /* empty: none */
    struct eg_slice tail;        /* the last members, raw, without braces: "data":{...} */
};

/* The event object; member order is fixed, see eg_event_read. NULL without memory. */
struct eg_bytes *eg_event_make(const struct eg_event *e);

/* The head of a stored event. Slices point into it; strings are still escaped, without quotes. */
struct eg_event_head {
    struct eg_slice type, session_id, event_id, source, traceparent;
    struct eg_slice timestamp; /* as written */
    uint64_t cursor, turn;
    int64_t timestamp_ms;
    struct eg_slice tail; /* what follows source, turn and traceparent, without the last brace */
};
/* Reads bytes that eg_event_make wrote. EG_ECORRUPT for anything else. */
enum eg_err eg_event_read(struct eg_slice event, struct eg_event_head *out) EG_MUST;

/* Appends the replay frame around a stored event. EG_ECORRUPT when it is none. */
enum eg_err eg_replay_wrap(struct eg_buf *out, struct eg_slice event) EG_MUST;

/* Whether a stored event is one that only clients with the capability streaming are sent: a stream
 * event by its name, or one of the worker's own names (x.) that belongs to a turn. */
bool eg_event_needs_streaming(struct eg_slice event);

/* The member of a stored event's tail named key, raw ("content" inside data: path "data.content").
 */
struct eg_slice eg_event_field(struct eg_slice event, const char *path);

/*
 * Appends the last members of the event that frame makes: "data":{"content":...} for a message,
 * "data":... for emit and publish ({} when there is none), "status":"final","content":...,
 * "outcome":... for final. Nothing for other frames.
 */
void eg_frame_tail(const struct eg_frame *frame, struct eg_buf *out);

/* Appends {"type":"error",...}. message NULL: the table's text. ref, field, scope NULL or "": left
 * out. retry_after_s < 0: left out. */
void eg_error_frame(struct eg_buf *out, enum eg_code code, const char *message, const char *field,
                    struct eg_slice ref, const char *required_scope, int64_t retry_after_s);

#endif
