/*
 * output.c - collects what a batch causes: per reactor an ordered list that leaves after the
 * commit. An output that finds no memory latches m->failed, so that the batch is rolled back.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "wire/event.h"

static struct eg_out *add(struct eg_machine *m, unsigned reactor)
{
    if (reactor >= m->reactors) {
        return NULL;
    }
    struct eg_release *r = m->release[reactor];
    if (!r) {
        r = m->release[reactor] = calloc(1, sizeof *r);
        if (!r) {
            m->failed = true;
            return NULL;
        }
    }
    if (r->n == r->cap) {
        const int cap = r->cap ? r->cap * 2 : 16;
        struct eg_out *out = realloc(r->out, (size_t)cap * sizeof *out);
        if (!out) {
            m->failed = true;
            return NULL;
        }
        r->out = out;
        r->cap = cap;
    }
    struct eg_out *o = &r->out[r->n++];
    *o = (struct eg_out){.retry_after_s = -1};
    return o;
}

static void drop_one(struct eg_out *o)
{
    eg_bytes_unref(o->bytes);
    free(o->welcome);
}

void eg_release_free(struct eg_release *r)
{
    if (!r) {
        return;
    }
    for (int i = 0; i < r->n; i++) {
        drop_one(&r->out[i]);
    }
    eg_cmds_free(r->spent);
    free(r->out);
    free(r);
}

void eg_out_frame(struct eg_machine *m, eg_conn_id conn, int64_t sid, uint64_t cursor,
                  struct eg_bytes *bytes)
{
    struct eg_out *o = bytes ? add(m, EG_CONN_REACTOR(conn)) : NULL;
    if (!o) {
        m->failed = m->failed || !bytes;
        eg_bytes_unref(bytes);
        return;
    }
    o->kind = EG_OUT_FRAME;
    o->conn = conn;
    o->sid = sid;
    o->cursor = cursor;
    o->bytes = bytes;
}

void eg_out_buf(struct eg_machine *m, eg_conn_id conn, struct eg_buf *take_buf)
{
    eg_out_frame(m, conn, 0, 0, eg_buf_bytes(take_buf));
    eg_buf_free(take_buf);
}

/* One output to each reactor that has a follower of s; bytes is borrowed. */
static void to_followers(struct eg_machine *m, struct eg_session *s, const struct eg_out *what)
{
    for (unsigned r = 0; s->conns && r < m->reactors; r++) {
        struct eg_out *o = s->followers[r] ? add(m, r) : NULL;
        if (o) {
            *o = *what;
            o->sid = s->sid;
            o->retry_after_s = -1;
            o->bytes = eg_bytes_ref(what->bytes);
        }
    }
}

void eg_out_event(struct eg_machine *m, struct eg_session *s, uint64_t cursor, bool stream,
                  eg_conn_id except, struct eg_bytes *bytes)
{
    to_followers(m, s,
                 &(struct eg_out){.kind = EG_OUT_EVENT,
                                  .cursor = cursor,
                                  .stream = stream,
                                  .except = except,
                                  .bytes = bytes});
    eg_bytes_unref(bytes);
}

void eg_out_notice(struct eg_machine *m, struct eg_session *s, unsigned caps, eg_conn_id except,
                   bool stays, struct eg_buf *take_buf)
{
    struct eg_bytes *bytes = eg_buf_bytes(take_buf);
    eg_buf_free(take_buf);
    if (!bytes) {
        m->failed = true;
        return;
    }
    to_followers(
        m, s,
        &(struct eg_out){
            .kind = EG_OUT_NOTICE, .caps = caps, .except = except, .stays = stays, .bytes = bytes});
    eg_bytes_unref(bytes);
}

void eg_out_close(struct eg_machine *m, eg_conn_id conn, struct eg_bytes *bytes,
                  unsigned short code, const char *reason)
{
    struct eg_out *o = add(m, EG_CONN_REACTOR(conn));
    if (!o) {
        eg_bytes_unref(bytes);
        return;
    }
    o->kind = EG_OUT_CLOSE;
    o->conn = conn;
    o->bytes = bytes;
    o->close_code = code;
    o->reason = reason;
}

void eg_out_end(struct eg_machine *m, const struct eg_session *s, eg_conn_id conn)
{
    struct eg_out *o = add(m, EG_CONN_REACTOR(conn));
    if (o) {
        o->kind = EG_OUT_CLOSE;
        o->conn = conn;
        o->sid = s->sid;
        o->close_code = EG_CLOSE_NORMAL;
        o->reason = "session_closed";
    }
}

void eg_out_refuse(struct eg_machine *m, eg_conn_id conn, enum eg_code code, const char *message,
                   const char *field, int retry_after_s)
{
    struct eg_out *o = add(m, EG_CONN_REACTOR(conn));
    if (o) {
        o->kind = EG_OUT_REFUSE;
        o->conn = conn;
        o->code = code;
        o->message = message;
        o->field = field;
        o->retry_after_s = retry_after_s;
    }
}

void eg_out_welcome(struct eg_machine *m, eg_conn_id conn, const struct eg_welcome *w)
{
    struct eg_welcome *copy = malloc(sizeof *copy);
    struct eg_out *o = copy ? add(m, EG_CONN_REACTOR(conn)) : NULL;
    if (!o) {
        free(copy);
        m->failed = true;
        return;
    }
    *copy = *w;
    o->kind = EG_OUT_WELCOME;
    o->conn = conn;
    o->sid = w->sid;
    o->cursor = w->cursor;
    o->welcome = copy;
}

void eg_out_error(struct eg_machine *m, eg_conn_id conn, enum eg_code code, const char *message,
                  const char *field, struct eg_slice ref, int retry_after_s)
{
    struct eg_buf b = {0};
    eg_error_frame(&b, code, message, field, ref, NULL, retry_after_s);
    struct eg_bytes *bytes = eg_buf_bytes(&b);
    eg_buf_free(&b);
    struct eg_out *o = bytes ? add(m, EG_CONN_REACTOR(conn)) : NULL;
    if (!o) {
        m->failed = true;
        eg_bytes_unref(bytes);
        return;
    }
    o->kind = EG_OUT_FRAME;
    o->conn = conn;
    o->code = code;
    o->bytes = bytes;
}

void eg_out_done(struct eg_machine *m, struct eg_call *call, enum eg_code code)
{
    call->code = code;
    if (m->done_count == m->done_cap) {
        const unsigned cap = m->done_cap ? m->done_cap * 2 : 16;
        struct eg_call **done = realloc(m->done, cap * sizeof(struct eg_call *));
        if (!done) {
            m->failed = true;
            return;
        }
        m->done = done;
        m->done_cap = cap;
    }
    m->done[m->done_count++] = call;
}

void eg_out_drop(struct eg_machine *m)
{
    for (unsigned i = 0; i < m->reactors; i++) {
        struct eg_release *r = m->release[i];
        int kept = 0;
        for (int o = 0; r && o < r->n; o++) {
            if (r->out[o].stays) {
                r->out[kept++] = r->out[o];
            } else {
                drop_one(&r->out[o]);
            }
        }
        if (r) {
            r->n = kept;
        }
        if (!kept) {
            eg_release_free(r);
            m->release[i] = NULL;
        }
    }
    m->done_count = 0;
    while (m->revoked_count > m->revoked_stored) {
        free(m->revoked[--m->revoked_count].what);
    }
}
