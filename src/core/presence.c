/*
 * presence.c - who is there and who types: told to the others of a session that have the
 * capability, kept only as long as the connection lives, never stored.
 */
#include "core/machine.h"

#include <stdlib.h>
#include <string.h>

#include "wire/json.h"

static void write_frame(struct eg_buf *b, const struct eg_conn *c, const char *type)
{
    eg_buf_char(b, '{');
    eg_json_kcstr(b, "type", type);
    eg_json_kcstr(b, "session_id", c->session->id);
    eg_buf_printf(b, ",\"connection_id\":\"" EG_CONN_HEX "\"", c->id);
    eg_json_kcstr(b, "sub", c->sub->sub);
    if (c->presence && strcmp(type, "typing") != 0) {
        eg_json_kcstr(b, "status", c->presence);
        if (c->presence_data) {
            eg_json_kraw(b, "data", eg_slice_cstr(c->presence_data));
        }
    }
    eg_buf_char(b, '}');
}

static void tell(struct eg_machine *m, struct eg_conn *c, const char *type, bool stays)
{
    struct eg_buf b = {0};
    write_frame(&b, c, type);
    eg_out_notice(m, c->session, EG_CAP_PRESENCE, c->id, stays, &b);
}

/* A newcomer learns who was there before it. */
static void tell_newcomer(struct eg_machine *m, const struct eg_conn *newcomer)
{
    struct eg_conn *other;
    DL_FOREACH(newcomer->session->conns, other)
    {
        if (other != newcomer && other->presence) {
            struct eg_buf b = {0};
            write_frame(&b, other, "presence_join");
            eg_out_buf(m, newcomer->id, &b);
        }
    }
}

void eg_presence_frame(struct eg_machine *m, struct eg_conn *c, const struct eg_frame *f)
{
    const bool joined = !c->presence;
    char *status = eg_slice_dup(f->status);
    char *data = f->data.n ? eg_slice_dup(f->data) : NULL;
    if (!status || (f->data.n && !data)) {
        free(status);
        free(data);
        m->failed = true;
        return;
    }
    free(c->presence);
    free(c->presence_data);
    c->presence = status;
    c->presence_data = data;
    tell(m, c, joined ? "presence_join" : "presence_update", false);
    if (joined) {
        c->present_since = m->batch;
        tell_newcomer(m, c);
    }
}

void eg_presence_leave(struct eg_machine *m, struct eg_conn *c)
{
    /* It detaches only once, however often its command comes. Of one that became present in this
     * batch nobody knows when that is undone. */
    tell(m, c, "presence_leave", c->present_since != m->batch);
}

void eg_presence_rolled_back(struct eg_machine *m)
{
    struct eg_conn *c, *next;
    HASH_ITER(hh, m->conns, c, next)
    {
        if (c->presence && c->present_since == m->batch) {
            free(c->presence);
            free(c->presence_data);
            c->presence = c->presence_data = NULL;
        }
    }
}

void eg_presence_typing(struct eg_machine *m, struct eg_conn *c)
{
    tell(m, c, "typing", false);
}
