/*
 * frame.c - from one text message to a struct, or to the error that names what is wrong with it.
 *
 * Pure, any thread. The guard looks at every byte first; then the type picks its rows from one
 * table of fields, and each row is read by the reader of its kind. hello and join have readers of
 * their own (frame_hello.c). Owns the frame's scratch buffer, as large as the text, until the
 * frame is freed; a refused frame leaves nothing behind.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "wire/frame_fields.h"
#include "wire/json.h"
#include "wire/json_text.h"

static const char *const names[EG_FRAME_COUNT] = {
#define EG_F_NAME(name, wire) [EG_FRAME_##name] = wire,
    EG_FRAMES(EG_F_NAME)
#undef EG_F_NAME
};

enum kind {
    ID,      /* 1-128 bytes */
    TEXT,    /* any string */
    CURSOR,  /* 0..2^53-1 */
    TURN,    /* 1..2^53-1 */
    LIMIT,   /* from 1; more than a page counts as a page */
    FLAG,    /* true or false */
    RAW,     /* any JSON */
    OBJECT,  /* an object */
    CONTENT, /* any JSON but "" */
    EVENT,   /* the name of an event */
    TRACE,   /* a W3C traceparent */
    SECONDS, /* a number of seconds, kept as milliseconds */
    OUTCOME  /* an object with a status */
};

/* One field of some types of frames (a set of bits); at is where it goes in struct eg_frame. */
struct field {
    unsigned types, required; /* required: the types that cannot do without it */
    const char *name;
    enum kind kind;
    size_t at;
};

/* Bytes beside the text for every field at once, and the short texts decoded beside their raw form.
 */
#define SCRATCH_BESIDE 256

#define T(name) (1u << EG_FRAME_##name)
#define AT(member) offsetof(struct eg_frame, member)
#define APPENDS (T(EMIT) | T(FINAL) | T(PUBLISH))
#define OF_TURN (T(EMIT) | T(FINAL) | T(FAIL) | T(EXTEND))

static const struct field fields[] = {
    {OF_TURN | T(PUBLISH) | T(HISTORY), OF_TURN | T(PUBLISH), "session_id", ID, AT(session_id)},
    {OF_TURN | T(ABORT), OF_TURN, "turn", TURN, AT(turn)},
    {OF_TURN, 0, "epoch", ID, AT(epoch)},
    {T(MESSAGE), T(MESSAGE), "content", CONTENT, AT(content)},
    {T(MESSAGE), 0, "message_id", ID, AT(message_id)},
    {T(MESSAGE), 0, "metadata", OBJECT, AT(metadata)},
    {T(ABORT), 0, "reason", TEXT, AT(reason)},
    {T(ACK), T(ACK), "cursor", CURSOR, AT(cursor)},
    {T(HISTORY), 0, "since", CURSOR, AT(since)},
    {T(HISTORY), 0, "before", CURSOR, AT(before)},
    {T(HISTORY), 0, "limit", LIMIT, AT(limit)},
    {T(PING), 0, "id", RAW, AT(id)},
    {T(PRESENCE), T(PRESENCE), "status", ID, AT(status)},
    {T(AUTH), T(AUTH), "token", TEXT, AT(token)},
    {T(EMIT) | T(PUBLISH), T(EMIT) | T(PUBLISH), "event", EVENT, AT(event)},
    {T(EMIT) | T(PUBLISH) | T(PRESENCE), 0, "data", RAW, AT(data)},
    {APPENDS, 0, "event_id", ID, AT(event_id)},
    {T(EMIT), 0, "ephemeral", FLAG, AT(ephemeral)},
    {T(FINAL), 0, "outcome", OUTCOME, AT(outcome)},
    {T(FINAL), 0, "content", RAW, AT(content)},
    {T(FAIL), T(FAIL), "error", RAW, AT(error)},
    {T(FAIL), 0, "retry", FLAG, AT(retry)},
    {T(FAIL), 0, "retry_after_seconds", SECONDS, AT(retry_after_ms)},
    {APPENDS | T(MESSAGE), 0, "traceparent", TRACE, AT(traceparent)},
};

const char *eg_frame_name(enum eg_frame_type t)
{
    return (unsigned)t < EG_FRAME_COUNT ? names[t] : "";
}

bool eg_session_id_valid(struct eg_slice id)
{
    if (id.n < 1 || id.n > EG_ID_MAX)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        unsigned char c = (unsigned char)id.p[i], low = c | 32;

        if (!(low >= 'a' && low <= 'z') && !(c >= '0' && c <= ':') && c != '.' && c != '_' &&
            c != '-')
            return false;
    }
    return true;
}

static const char *const stream_events[] = {
    "token_stream",
    "tool_call_stream",
    "tool_result_stream",
    "reasoning_stream",
    "tool_progress_stream",
    "stream_error",
    "stream_end",
    "model_fallback_stream",
    "retry_stream",
    "todo_stream",
    "status",
};

bool eg_event_is_stream(struct eg_slice type)
{
    for (size_t i = 0; i < sizeof(stream_events) / sizeof(*stream_events); i++)
        if (eg_slice_is(type, stream_events[i]))
            return true;
    return false;
}

bool eg_publish_name_valid(struct eg_slice name)
{
    /* What the gateway itself says under these names must not be said by others. */
    static const char *const taken[] = {"message",
                                        "response",
                                        "message_abort",
                                        "session_end",
                                        "hello_ok",
                                        "hello_error",
                                        "joined",
                                        "replay",
                                        "replay_end",
                                        "snapshot",
                                        "history",
                                        "error",
                                        "ping",
                                        "pong",
                                        "aborted",
                                        "turn",
                                        "emitted",
                                        "auth_ok",
                                        "no_active_turn",
                                        "left",
                                        "reconnect",
                                        "resync",
                                        "typing",
                                        "token_expiring",
                                        "message_ack",
                                        "message_nack",
                                        "delivery_retry",
                                        "presence_join",
                                        "presence_update",
                                        "presence_leave"};

    for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++)
        if (eg_slice_is(name, taken[i]))
            return false;
    return eg_session_id_valid(name);
}

bool eg_event_name_valid(struct eg_slice name)
{
    return eg_event_is_stream(name) ||
           (name.n >= 2 && memcmp(name.p, "x.", 2) == 0 && eg_publish_name_valid(name));
}

static bool lower_hex(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(p[i] >= '0' && p[i] <= '9') && !(p[i] >= 'a' && p[i] <= 'f'))
            return false;
    return true;
}

bool eg_traceparent_valid(struct eg_slice t)
{
    static const char zeros[33] = "00000000000000000000000000000000";

    if (t.n < 55 || t.n > EG_ID_MAX || t.p[2] != '-' || t.p[35] != '-' || t.p[52] != '-' ||
        !lower_hex(t.p, 2) || !lower_hex(t.p + 3, 32) || !lower_hex(t.p + 36, 16) ||
        !lower_hex(t.p + 53, 2))
        return false;
    if (memcmp(t.p, "ff", 2) == 0 || memcmp(t.p + 3, zeros, 32) == 0 ||
        memcmp(t.p + 36, zeros, 16) == 0)
        return false;
    if (t.n == 55)
        return true;
    for (size_t i = 55; i < t.n; i++)
        if (t.p[i] <= ' ' || t.p[i] > '~')
            return false;
    return memcmp(t.p, "00", 2) != 0 && t.p[55] == '-';
}

static bool read_trace(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                       struct eg_slice *out)
{
    if (!eg_read_string(p, m, field, out))
        return false;
    return eg_traceparent_valid(*out) || eg_refuse(p, field, "must be a W3C traceparent");
}

static bool read_event(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                       struct eg_slice *out)
{
    if (!eg_read_string(p, m, field, out))
        return false;
    if (p->frame->type == EG_FRAME_PUBLISH)
        return eg_publish_name_valid(*out) ||
               eg_refuse(p, field, "must be 1-128 of A-Za-z0-9._:- and not a name of the gateway");
    return eg_event_name_valid(*out) ||
           eg_refuse(p, field,
                     "must be a stream event, or x. and then at most 126 of A-Za-z0-9._:-");
}

static bool read_content(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                         struct eg_slice *out)
{
    eg_read_raw(p, m, out);
    if (m->kind != EG_JSON_STRING)
        return true;
    if (out->n == 2)
        return eg_refuse(p, field, "must not be empty");
    if (out->n <= 98) { /* at most six bytes stand for one of the 16 */
        struct eg_slice text = eg_parse_text(p, *out);

        if (text.n <= 16)
            p->frame->content_text = text;
    }
    return true;
}

static bool read_outcome(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                         struct eg_slice *out)
{
    static const char *const known[] = {[EG_OUTCOME_OK] = "\"ok\"",
                                        [EG_OUTCOME_ERROR] = "\"error\"",
                                        [EG_OUTCOME_ABORTED] = "\"aborted\"",
                                        [EG_OUTCOME_REJECTED] = "\"rejected\""};
    struct eg_json_member status;

    if (m->kind != EG_JSON_OBJECT)
        return eg_refuse(p, field, "must be an object");
    eg_read_raw(p, m, out);
    if (eg_json_find(m->value, "status", &status) && status.kind == EG_JSON_STRING)
        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
            if (eg_json_same(status.value, eg_slice_cstr(known[i]))) {
                p->frame->outcome_status = (enum eg_outcome)i;
                return true;
            }
    return eg_refuse(p, "outcome.status", "must be ok, error, aborted or rejected");
}

static bool read_seconds(struct eg_parse *p, const struct eg_json_member *m, const char *field,
                         int64_t *out)
{
    double seconds = m->kind == EG_JSON_NUMBER ? eg_json_double(m->value) : -1;

    if (!(seconds >= 0 && seconds <= 1e9))
        return eg_refuse(p, field, "must be a number from 0 to 1000000000");
    *out = (int64_t)(seconds * 1000 + 0.5);
    return true;
}

static bool read_field(struct eg_parse *p, const struct field *f, const struct eg_json_member *m)
{
    void *at = (char *)p->frame + f->at;

    switch (f->kind) {
    case ID:
        return eg_read_id(p, m, f->name, at);
    case TEXT:
        return eg_read_string(p, m, f->name, at);
    case CURSOR:
        return eg_read_integer(p, m, f->name, 0, EG_JSON_INT_MAX, at);
    case TURN:
        return eg_read_integer(p, m, f->name, 1, EG_JSON_INT_MAX, at);
    case LIMIT:
        if (!eg_read_integer(p, m, f->name, 1, EG_JSON_INT_MAX, at))
            return false;
        if (p->frame->limit > EG_HISTORY_MAX)
            p->frame->limit = EG_HISTORY_MAX;
        return true;
    case FLAG:
        return eg_read_bool(p, m, f->name, at);
    case OBJECT:
        if (m->kind != EG_JSON_OBJECT)
            return eg_refuse(p, f->name, "must be an object");
        return eg_read_raw(p, m, at);
    case CONTENT:
        return read_content(p, m, f->name, at);
    case EVENT:
        return read_event(p, m, f->name, at);
    case TRACE:
        return read_trace(p, m, f->name, at);
    case SECONDS:
        return read_seconds(p, m, f->name, at);
    case OUTCOME:
        return read_outcome(p, m, f->name, at);
    case RAW:
        break;
    }
    return eg_read_raw(p, m, at);
}

static bool read_fields(struct eg_parse *p)
{
    struct eg_frame *frame = p->frame;
    unsigned bit = 1u << frame->type;
    struct eg_json_member m;

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        const struct field *f = &fields[i];

        if (!(f->types & bit))
            continue;
        if (!eg_parse_get(p, f->name, &m)) {
            if (f->required & bit)
                return eg_refuse(p, f->name, "is required");
        } else if (m.kind == EG_JSON_NULL) {
            if (f->required & bit)
                return eg_refuse(p, f->name, "must not be null");
        } else if (!read_field(p, f, &m)) {
            return false;
        }
    }
    /* A turn that did not end well may have nothing to say. */
    if (frame->type == EG_FRAME_FINAL && frame->content.n == 0 &&
        frame->outcome_status == EG_OUTCOME_OK)
        return eg_refuse(p, "content", "is required");
    /* Kept for each connection, and all of a session's sent to each that joins. */
    if (frame->type == EG_FRAME_PRESENCE && frame->data.n > EG_PRESENCE_BYTES_MAX)
        return eg_refuse(p, "data", "must have at most 4096 bytes");
    if (frame->type == EG_FRAME_HISTORY && frame->since >= 0 && frame->before >= 0)
        return eg_refuse(p, "before", "cannot be given together with since");
    return true;
}

/* Remembers the id by which the sender knows the frame, before anything can be refused. */
static void read_ref(struct eg_parse *p)
{
    static const char *const keys[] = {"message_id", "event_id"};
    struct eg_json_member m;

    for (size_t i = 0; i < 2 && !p->err->ref[0]; i++) {
        struct eg_buf *b = &p->frame->scratch;
        size_t from = b->n;

        if (!eg_parse_get(p, keys[i], &m) || m.kind != EG_JSON_STRING)
            continue;
        eg_json_unquote(m.value, b);
        if (b->n - from <= EG_ID_MAX) {
            memcpy(p->err->ref, b->p + from, b->n - from);
            p->err->ref[b->n - from] = '\0';
        }
        b->n = from;
    }
}

static bool refuse_frame(struct eg_parse *p, enum eg_code code, const char *message)
{
    p->err->code = code;
    snprintf(p->err->message, sizeof(p->err->message), "%s", message);
    return false;
}

static bool read_type(struct eg_parse *p)
{
    struct eg_json_member m;
    struct eg_slice type;

    if (p->doc->kind != EG_JSON_OBJECT)
        return refuse_frame(p, EG_CODE_invalid_frame, "a frame is a JSON object");
    read_ref(p);
    if (!eg_parse_get(p, "type", &m))
        return refuse_frame(p, EG_CODE_invalid_frame, "the frame has no type");
    if (m.kind != EG_JSON_STRING)
        return refuse_frame(p, EG_CODE_invalid_frame, "type must be a string");
    type = eg_parse_text(p, m.value);
    for (int i = 0; i < EG_FRAME_COUNT; i++)
        if (eg_slice_is(type, names[i])) {
            p->frame->type = (enum eg_frame_type)i;
            return true;
        }
    if (eg_slice_is(type, "message_abort")) {
        p->frame->type = EG_FRAME_ABORT;
        return true;
    }
    refuse_frame(p, EG_CODE_unknown_type, "unknown frame type");
    if (type.n > 0 && type.n <= 64)
        snprintf(p->err->message, sizeof(p->err->message), "unknown frame type %.*s", (int)type.n,
                 type.p);
    return false;
}

static bool parse(struct eg_parse *p)
{
    if (!read_type(p))
        return false;
    if (p->frame->type == EG_FRAME_HELLO || p->frame->type == EG_FRAME_JOIN)
        return eg_read_hello(p);
    return read_fields(p);
}

enum eg_err eg_frame_parse(struct eg_slice text, struct eg_frame *out, struct eg_frame_error *err)
{
    struct eg_buf none = {0};

    return eg_frame_parse_into(text, &none, out, err);
}

enum eg_err eg_frame_parse_into(struct eg_slice text, struct eg_buf *spare, struct eg_frame *out,
                                struct eg_frame_error *err)
{
    struct eg_json_doc doc;
    struct eg_parse p = {.text = text, .doc = &doc, .frame = out, .err = err};
    enum eg_err e;
    bool ok;

    *out = (struct eg_frame){.protocol_min = 1,
                             .protocol_max = 1,
                             .concurrency = 1,
                             .since = -1,
                             .before = -1,
                             .limit = -1,
                             .cursor = -1,
                             .turn = -1,
                             .retry = true,
                             .retry_after_ms = -1};
    *err = (struct eg_frame_error){.code = EG_CODE_NONE};
    e = eg_json_scan(text, EG_JSON_DEPTH_MAX, &doc);
    if (e == EG_EINVALID) {
        err->code = EG_CODE_invalid_json;
        snprintf(err->message, sizeof(err->message), "byte %zu: %s", doc.offset, doc.reason);
    }
    if (e)
        return e;
    if (spare->cap >= text.n + SCRATCH_BESIDE) {
        out->scratch = *spare;
        *spare = (struct eg_buf){0};
        eg_buf_reset(&out->scratch);
    } else {
        out->scratch.cap = text.n + SCRATCH_BESIDE;
        out->scratch.p = malloc(out->scratch.cap);
        if (!out->scratch.p)
            return EG_ENOMEM;
    }
    ok = parse(&p);
    if (ok && !out->scratch.err)
        return EG_OK;
    e = out->scratch.err ? EG_ENOMEM : EG_EINVALID;
    eg_frame_free(out);
    return e;
}

void eg_frame_free(struct eg_frame *f)
{
    eg_buf_free(&f->scratch);
}
