/*
 * sse.c - event streams over HTTP (WHATWG HTML, server-sent events): the same events, read-only.
 *
 * The answer's head was written before the socket came here. An event is id (its cursor), event
 * (its type) and data (the event object); the stream ends with session_end, with the token, or when
 * the client goes.
 */
#include "edge/peer.h"
#include "wire/json.h"

/* data lines: one for each line of text. */
static void data_lines(struct eg_buf *out, struct eg_slice text)
{
    size_t at = 0;
    do {
        size_t end = at;
        while (end < text.n && text.p[end] != '\n' && text.p[end] != '\r') {
            end++;
        }
        eg_buf_str(out, "data: ");
        eg_buf_add(out, text.p + at, end - at);
        eg_buf_char(out, '\n');
        at = end + 1;
    } while (at <= text.n);
}

void eg_sse_event(struct eg_buf *out, struct eg_slice event)
{
    struct eg_event_head head;
    if (eg_event_read(event, &head) != EG_OK) {
        out->err = EG_ECORRUPT;
        return;
    }
    eg_buf_printf(out, "id: %llu\nevent: ", (unsigned long long)head.cursor);
    eg_buf_slice(out, head.type);
    eg_buf_char(out, '\n');
    data_lines(out, event);
    eg_buf_char(out, '\n');
}

bool eg_sse_is_end(struct eg_slice event)
{
    struct eg_event_head head;
    return eg_event_read(event, &head) == EG_OK && eg_slice_is(head.type, "session_end");
}

/* What is in r->text, as it is. */
static void send_raw(struct eg_peer *p)
{
    struct eg_outent ent;
    struct eg_bytes *const bytes = eg_buf_bytes(&p->r->text);
    eg_buf_reset(&p->r->text);
    if (!bytes) {
        eg_peer_end(p);
        return;
    }
    eg_outent_raw(&ent, bytes, 1);
    eg_peer_take(p, &ent);
}

void eg_sse_send(struct eg_peer *p, struct eg_bytes *event)
{
    const bool last = eg_sse_is_end(eg_bytes_slice(event));
    eg_buf_reset(&p->r->text);
    eg_sse_event(&p->r->text, eg_bytes_slice(event));
    eg_bytes_unref(event);
    send_raw(p);
    if (last) {
        eg_peer_close(p, EG_CLOSE_NORMAL, "session_closed");
    }
}

void eg_sse_say(struct eg_peer *p, const char *text)
{
    eg_buf_reset(&p->r->text);
    eg_buf_str(&p->r->text, text);
    send_raw(p);
}

void eg_sse_welcome(struct eg_peer *p, const struct eg_welcome *w)
{
    struct eg_buf *const out = &p->r->text;
    if (w->resync == EG_RESYNC_NONE) {
        eg_sse_say(p, ":\n\n"); /* the first bytes: the stream is open */
        return;
    }
    eg_buf_reset(out);
    eg_buf_printf(out, "id: %llu\nevent: resync\ndata: {", (unsigned long long)w->cursor);
    eg_json_kcstr(out, "reason", eg_resync_reason(w->resync));
    eg_json_kint(out, "oldest_cursor", (int64_t)w->oldest);
    eg_json_kint(out, "cursor", (int64_t)w->cursor);
    eg_json_kcstr(out, "epoch", w->epoch);
    eg_buf_str(out, "}\n\n");
    send_raw(p);
}

void eg_sse_refuse(struct eg_peer *p, enum eg_code code, const char *message)
{
    struct eg_buf *const out = &p->r->text;
    const struct eg_code_info *const info = eg_code_info(code);
    eg_metric_error(code);
    eg_buf_reset(out);
    eg_buf_str(out, "event: error\ndata: {");
    eg_json_kcstr(out, "code", info->name);
    eg_json_kcstr(out, "message", message ? message : info->text);
    eg_json_kcstr(out, "next_step", info->next_step);
    eg_buf_str(out, "}\n\n");
    send_raw(p);
    eg_peer_close(p, info->close_code, info->name);
}
