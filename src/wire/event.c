/*
 * event.c - the bytes of an event and the frames around it.
 *
 * Pure, any thread. An event is written once, in one allocation of its size, in a fixed order of
 * members; eg_event_read relies on that order, so that nothing has to be parsed when a stored event
 * is replayed. What does not have it is EG_ECORRUPT.
 */
#include <string.h>

#include "wire/event.h"
#include "wire/json.h"
#include "wire/json_text.h"

struct eg_bytes *eg_event_make(const struct eg_event *e)
{
    /* Every word of an event that has all parts, with room for its numbers. */
    static const char words[] = "{'type':,'session_id':,'cursor':,'seq':,'event_id':,'timestamp':"
                                ".000,'source':,'turn':,'traceparent':,}";
    uint64_t ms = e->timestamp_ms < 0 ? 0 : (uint64_t)e->timestamp_ms;
    struct eg_decimal cursor, seconds, milli, turn;
    struct eg_bytes *b;
    char *o;

    eg_decimal_set(&cursor, e->cursor);
    eg_decimal_set(&seconds, ms / 1000);
    eg_decimal_set(&milli, 1000 + ms % 1000);
    eg_decimal_set(&turn, e->turn);
    b = eg_bytes_new(sizeof(words) + eg_json_quoted_size(e->type) +
                     eg_json_quoted_size(e->session_id) + eg_json_quoted_size(e->event_id) +
                     eg_json_quoted_size(e->source) + eg_json_quoted_size(e->traceparent) +
                     2 * eg_decimal(&cursor).n + eg_decimal(&seconds).n + eg_decimal(&turn).n +
                     e->tail.n);
    if (!b)
        return NULL;
    o = eg_put(b->data, EG_LIT("{\"type\":"));
    o = eg_json_quote_to(o, e->type);
    o = eg_put(o, EG_LIT(",\"session_id\":"));
    o = eg_json_quote_to(o, e->session_id);
    o = eg_put(o, EG_LIT(",\"cursor\":"));
    o = eg_put(o, eg_decimal(&cursor));
    o = eg_put(o, EG_LIT(",\"seq\":"));
    o = eg_put(o, eg_decimal(&cursor));
    o = eg_put(o, EG_LIT(",\"event_id\":"));
    o = eg_json_quote_to(o, e->event_id);
    o = eg_put(o, EG_LIT(",\"timestamp\":"));
    o = eg_put(o, eg_decimal(&seconds));
    milli.digit[milli.from] = '.';
    o = eg_put(o, eg_decimal(&milli));
    o = eg_put(o, EG_LIT(",\"source\":"));
    o = eg_json_quote_to(o, e->source);
    if (e->turn) {
        o = eg_put(o, EG_LIT(",\"turn\":"));
        o = eg_put(o, eg_decimal(&turn));
    }
    if (e->traceparent.n) {
        o = eg_put(o, EG_LIT(",\"traceparent\":"));
        o = eg_json_quote_to(o, e->traceparent);
    }
    if (e->tail.n) {
        o = eg_put(o, EG_LIT(","));
        o = eg_put(o, e->tail);
    }
    o = eg_put(o, EG_LIT("}"));
    *o = '\0';
    b->n = (size_t)(o - b->data);
    return b;
}

/* Steps over word at *p; false when something else is there. */
static bool take(const char **p, const char *end, struct eg_slice word)
{
    if ((size_t)(end - *p) < word.n || memcmp(*p, word.p, word.n) != 0)
        return false;
    *p += word.n;
    return true;
}

/* The inside of a string whose opening quote has been passed, and its closing quote. */
static bool take_string(const char **p, const char *end, struct eg_slice *out)
{
    const char *stop = memchr(*p, '"', (size_t)(end - *p));

    if (stop && memchr(*p, '\\', (size_t)(stop - *p))) /* rarely: the quote may be escaped */
        for (stop = *p; stop < end && *stop != '"';)
            stop += *stop == '\\' ? 2 : 1;
    if (!stop || stop >= end)
        return false;
    *out = (struct eg_slice){*p, (size_t)(stop - *p)};
    *p = stop + 1;
    return true;
}

static bool take_number(const char **p, const char *end, uint64_t *out)
{
    const char *from = *p;
    uint64_t v = 0;

    while (*p < end && **p >= '0' && **p <= '9' && *p - from < EG_DIGITS_MAX - 1)
        v = v * 10 + (uint64_t)(*(*p)++ - '0');
    *out = v;
    return *p > from;
}

/* Seconds with three decimals. */
static bool take_time(const char **p, const char *end, struct eg_event_head *out)
{
    const char *from = *p, *point;
    uint64_t seconds, milli;

    if (!take_number(p, end, &seconds) || !take(p, end, EG_LIT(".")))
        return false;
    point = *p;
    if (!take_number(p, end, &milli) || *p - point != 3 || seconds > INT64_MAX / 1000 - 1)
        return false;
    out->timestamp = (struct eg_slice){from, (size_t)(*p - from)};
    out->timestamp_ms = (int64_t)(seconds * 1000 + milli);
    return true;
}

enum eg_err eg_event_read(struct eg_slice event, struct eg_event_head *out)
{
    const char *p = event.p, *end;
    uint64_t seq;

    *out = (struct eg_event_head){0};
    if (event.n < 2 || p[event.n - 1] != '}')
        return EG_ECORRUPT;
    end = p + event.n - 1;
    if (!take(&p, end, EG_LIT("{\"type\":\"")) || !take_string(&p, end, &out->type) ||
        !take(&p, end, EG_LIT(",\"session_id\":\"")) || !take_string(&p, end, &out->session_id) ||
        !take(&p, end, EG_LIT(",\"cursor\":")) || !take_number(&p, end, &out->cursor) ||
        !take(&p, end, EG_LIT(",\"seq\":")) || !take_number(&p, end, &seq) || seq != out->cursor ||
        !take(&p, end, EG_LIT(",\"event_id\":\"")) || !take_string(&p, end, &out->event_id) ||
        !take(&p, end, EG_LIT(",\"timestamp\":")) || !take_time(&p, end, out) ||
        !take(&p, end, EG_LIT(",\"source\":\"")) || !take_string(&p, end, &out->source))
        return EG_ECORRUPT;
    if (take(&p, end, EG_LIT(",\"turn\":")) && !take_number(&p, end, &out->turn))
        return EG_ECORRUPT;
    if (take(&p, end, EG_LIT(",\"traceparent\":\"")) && !take_string(&p, end, &out->traceparent))
        return EG_ECORRUPT;
    if (p < end && !take(&p, end, EG_LIT(",")))
        return EG_ECORRUPT;
    out->tail = (struct eg_slice){p, (size_t)(end - p)};
    return EG_OK;
}

bool eg_event_needs_streaming(struct eg_slice event)
{
    const char *p = event.p, *end;
    struct eg_slice type;
    struct eg_event_head h;

    if (event.n == 0)
        return false;
    end = p + event.n;
    if (!take(&p, end, EG_LIT("{\"type\":\"")) || !take_string(&p, end, &type))
        return false;
    if (eg_event_is_stream(type))
        return true;
    return type.n > 2 && memcmp(type.p, "x.", 2) == 0 && eg_event_read(event, &h) == EG_OK &&
           h.turn != 0;
}

enum eg_err eg_replay_wrap(struct eg_buf *out, struct eg_slice event)
{
    struct eg_event_head h;
    struct eg_decimal seq;
    enum eg_err e = eg_event_read(event, &h);
    char *o;

    if (e)
        return e;
    o = eg_buf_reserve(out, event.n + h.type.n + h.event_id.n + h.timestamp.n + h.source.n + 160 +
                                EG_DIGITS_MAX + EG_DIGITS_MAX);
    if (!o)
        return EG_ENOMEM;
    eg_decimal_set(&seq, h.cursor);
    o = eg_put(o, EG_LIT("{\"type\":\"replay\",\"seq\":"));
    o = eg_put(o, eg_decimal(&seq));
    o = eg_put(o, EG_LIT(",\"event\":{\"type\":\""));
    o = eg_put(o, h.type);
    o = eg_put(o, EG_LIT("\",\"event_id\":\""));
    o = eg_put(o, h.event_id);
    o = eg_put(o, EG_LIT("\",\"timestamp\":"));
    o = eg_put(o, h.timestamp);
    o = eg_put(o, EG_LIT(",\"source\":\""));
    o = eg_put(o, h.source);
    o = eg_put(o, EG_LIT("\",\"target\":null,\"sequence\":"));
    o = eg_put(o, eg_decimal(&seq));
    o = eg_put(o, EG_LIT(",\"data\":"));
    o = eg_put(o, event);
    o = eg_put(o, EG_LIT("}}"));
    out->n = (size_t)(o - out->p);
    return EG_OK;
}

struct eg_slice eg_event_field(struct eg_slice event, const char *path)
{
    struct eg_event_head h;
    struct eg_json_member m;
    const char *p, *end;
    char name[64];

    if (eg_event_read(event, &h))
        return (struct eg_slice){NULL, 0};
    p = h.tail.p;
    end = h.tail.p + h.tail.n;
    for (;;) {
        size_t n = strcspn(path, ".");
        bool found = false;

        if (n >= sizeof(name))
            return (struct eg_slice){NULL, 0};
        memcpy(name, path, n);
        name[n] = '\0';
        while (!found && eg_json_next(&p, end, true, &m))
            found = eg_json_key_is(m.key, name);
        if (!found)
            return (struct eg_slice){NULL, 0};
        if (path[n] == '\0')
            return m.value;
        if (m.kind != EG_JSON_OBJECT)
            return (struct eg_slice){NULL, 0};
        p = m.value.p + 1;
        end = m.value.p + m.value.n;
        path += n + 1;
    }
}

void eg_frame_tail(const struct eg_frame *frame, struct eg_buf *out)
{
    static const struct eg_slice nothing = {"\"\"", 2};

    /* At once what it will take, but for ids full of escapes. */
    (void)eg_buf_reserve(out, frame->content.n + frame->metadata.n + frame->data.n +
                                  frame->outcome.n + frame->message_id.n + 96);
    switch (frame->type) {
    case EG_FRAME_MESSAGE:
        eg_buf_str(out, "\"data\":{\"content\":");
        eg_buf_slice(out, frame->content);
        if (frame->message_id.n)
            eg_json_kstr(out, "message_id", frame->message_id);
        if (frame->metadata.n)
            eg_json_kraw(out, "metadata", frame->metadata);
        eg_buf_char(out, '}');
        break;
    case EG_FRAME_EMIT:
    case EG_FRAME_PUBLISH:
        eg_buf_str(out, "\"data\":");
        eg_buf_slice(out, frame->data.n ? frame->data : EG_LIT("{}"));
        break;
    case EG_FRAME_FINAL:
        eg_buf_str(out, "\"status\":\"final\",\"content\":");
        eg_buf_slice(out, frame->content.n ? frame->content : nothing);
        eg_buf_str(out, ",\"outcome\":");
        eg_buf_slice(out, frame->outcome.n ? frame->outcome : EG_LIT("{\"status\":\"ok\"}"));
        break;
    default:
        break;
    }
}

void eg_error_frame(struct eg_buf *out, enum eg_code code, const char *message, const char *field,
                    struct eg_slice ref, const char *required_scope, int64_t retry_after_s)
{
    const struct eg_code_info *info = eg_code_info(code);

    eg_buf_str(out, "{\"type\":\"error\"");
    eg_json_kcstr(out, "code", info->name);
    eg_json_kcstr(out, "message", message && *message ? message : info->text);
    if (ref.n)
        eg_json_kstr(out, "ref", ref);
    if (field && *field)
        eg_json_kcstr(out, "field", field);
    if (required_scope && *required_scope)
        eg_json_kcstr(out, "required_scope", required_scope);
    if (retry_after_s >= 0)
        eg_json_kint(out, "retry_after_seconds", retry_after_s);
    eg_buf_char(out, '}');
}
