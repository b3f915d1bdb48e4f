/*
 * Any bytes as a frame and as a stored event. What is accepted makes an event that is strict JSON
 * and reads back; what is refused makes an error frame that is.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"
#include "wire/frame.h"
#include "wire/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static struct eg_slice of(const struct eg_buf *b)
{
    must(!b->err);
    return (struct eg_slice){b->p, b->n};
}

static void strict(struct eg_slice text)
{
    struct eg_json_doc doc;

    must(eg_json_scan(text, EG_JSON_DEPTH_MAX + 2, &doc) == EG_OK && doc.kind == EG_JSON_OBJECT);
}

static void check_fields(const struct eg_frame *f)
{
    struct eg_slice raw[] = {f->content, f->metadata, f->data, f->outcome, f->error, f->id};
    struct eg_slice ids[] = {f->agent_id, f->session_id, f->epoch, f->message_id, f->event_id};
    struct eg_json_doc doc;

    for (size_t i = 0; i < sizeof(raw) / sizeof(*raw); i++)
        must(raw[i].n == 0 || eg_json_scan(raw[i], EG_JSON_DEPTH_MAX, &doc) == EG_OK);
    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
        must(ids[i].n <= EG_ID_MAX && eg_utf8_valid(ids[i], NULL));
    must(f->since >= -1 && f->since <= EG_JSON_INT_MAX && (f->turn == -1 || f->turn >= 1));
    must(f->protocol_min <= f->protocol_max && f->limit <= EG_HISTORY_MAX);
    must(f->concurrency >= 1 && f->concurrency <= EG_CONCURRENCY_MAX);
    must(!f->create || f->session_id.n == 0 || eg_session_id_valid(f->session_id));
    must(f->content_text.n <= 16);
    must(f->type != EG_FRAME_MESSAGE || f->content.n > 0);
}

static void check_event(const struct eg_frame *f)
{
    struct eg_buf tail = {0}, replay = {0};
    struct eg_event e = {.type = f->event.n ? f->event : EG_LIT("message"),
                         .session_id = f->session_id,
                         .event_id = f->event_id,
                         .source = f->message_id,
                         .cursor = 7,
                         .turn = f->turn > 0 ? (uint64_t)f->turn : 0,
                         .timestamp_ms = 1,
                         .traceparent = f->traceparent};
    struct eg_event_head h;
    struct eg_bytes *b;

    eg_frame_tail(f, &tail);
    e.tail = of(&tail);
    b = eg_event_make(&e);
    must(b != NULL && strlen(b->data) == b->n);
    strict(eg_bytes_slice(b));
    must(eg_event_read(eg_bytes_slice(b), &h) == EG_OK);
    must(eg_slice_eq(h.tail, e.tail) && h.turn == e.turn && h.cursor == 7);
    must(eg_replay_wrap(&replay, eg_bytes_slice(b)) == EG_OK);
    strict(of(&replay));
    if (f->type == EG_FRAME_MESSAGE)
        must(eg_slice_eq(eg_event_field(eg_bytes_slice(b), "data.content"), f->content));
    eg_bytes_unref(b);
    eg_buf_free(&tail);
    eg_buf_free(&replay);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct eg_slice text = {(const char *)data, size};
    struct eg_frame f;
    struct eg_frame_error err;
    struct eg_buf out = {0};
    struct eg_event_head h;
    struct eg_slice field;

    if (eg_frame_parse(text, &f, &err) == EG_OK) {
        check_fields(&f);
        check_event(&f);
        eg_frame_free(&f);
    } else {
        must(err.code != EG_CODE_NONE && err.message[0]);
        must((err.code == EG_CODE_invalid_request) == (err.field[0] != '\0'));
        eg_error_frame(&out, err.code, err.message, err.field, eg_slice_cstr(err.ref), NULL, -1);
        strict(of(&out));
    }
    /* A damaged log must not do harm either. */
    if (eg_event_read(text, &h) == EG_OK) {
        out.n = 0;
        must(eg_replay_wrap(&out, text) == EG_OK);
        field = eg_event_field(text, "data.content");
        must(field.n == 0 || (field.p > text.p && field.p + field.n < text.p + text.n));
        out.n = 0;
        eg_json_compact(&out, field);
        if (field.n && *field.p == '"')
            eg_json_unquote(field, &out);
        must(eg_event_field(text, "outcome.status").n < text.n);
    }
    eg_buf_free(&out);
    return 0;
}
