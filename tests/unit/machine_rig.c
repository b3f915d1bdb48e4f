#include "machine_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/event.h"

static void start(struct machine_rig *r)
{
    cr_assert_eq(eg_machine_new(r->storage, r->settings, 1, r->now, &r->m), EG_OK);
}

static void drop_outs(struct machine_rig *r)
{
    for (int i = 0; i < r->outs; i++) {
        eg_bytes_unref(r->out[i].bytes);
        free(r->out[i].welcome);
    }
    r->outs = 0;
}

/* Takes over what is to leave. */
static void collect(struct machine_rig *r)
{
    struct eg_release *rel = r->m->release[0];
    r->m->release[0] = NULL;
    for (int i = 0; rel && i < rel->n; i++) {
        cr_assert_lt(r->outs, MR_OUTS);
        r->out[r->outs] = rel->out[i];
        eg_bytes_ref(rel->out[i].bytes);
        rel->out[i].welcome = NULL;
        r->outs++;
    }
    eg_release_free(rel);
    r->m->done_count = 0;
    for (unsigned i = 0; i < r->m->revoked_count; i++) {
        free(r->m->revoked[i].what);
    }
    r->m->revoked_count = 0;
}

static void around(const struct machine_rig *r, enum mr_part part, bool begins)
{
    if (r->around) {
        r->around(part, begins);
    }
}

static bool roll_back(struct machine_rig *r)
{
    r->failures++;
    around(r, MR_ROLLBACK, true);
    eg_machine_rolled_back(r->m);
    around(r, MR_ROLLBACK, false);
    return false;
}

/* cmd: the first of them, linked by node; NULL: none. */
static bool attempt(struct machine_rig *r, struct eg_cmd *cmd)
{
    around(r, MR_STEP, true);
    for (; cmd; cmd = (struct eg_cmd *)cmd->node.next) {
        eg_machine_step(r->m, cmd, r->now);
    }
    eg_machine_tick(r->m, r->now);
    const bool writes = eg_machine_flush(r->m);
    around(r, MR_STEP, false);
    if (r->m->failed) {
        return roll_back(r);
    }
    if (writes) {
        const enum eg_err e = r->storage->ops->commit(r->storage);
        r->m->writing = false;
        if (e != EG_OK) {
            return roll_back(r);
        }
    }
    eg_machine_committed(r->m);
    return true;
}

static void batch(struct machine_rig *r, struct eg_cmd *cmd)
{
    drop_outs(r);
    if (!attempt(r, cmd)) {
        cr_assert(attempt(r, cmd), "a batch in read-only mode cannot fail");
    }
    collect(r);
    eg_cmds_free(cmd);
}

struct machine_rig *mr_new(void)
{
    struct machine_rig *r = calloc(1, sizeof *r);
    r->storage = memstore_new("epoch-1");
    r->settings = eg_settings_new();
    r->now = (struct eg_now){.mono_ms = 1000, .wall_ms = 1700000000000};
    r->next_conn = 1;
    start(r);
    struct eg_call call = {.kind = EG_CALL_AGENT_PUT, .agent = EG_LIT("a")};
    cr_assert_eq(mr_call(r, &call), EG_CODE_NONE);
    return r;
}

void mr_free(struct machine_rig *r)
{
    drop_outs(r);
    eg_machine_free(r->m);
    r->storage->ops->close(r->storage);
    eg_settings_unref(r->settings);
    free(r);
}

void mr_restart(struct machine_rig *r)
{
    drop_outs(r);
    eg_machine_free(r->m);
    r->storage = memstore_restart(r->storage);
    start(r);
    mr_tick(r, 0);
}

void mr_tick(struct machine_rig *r, int64_t ms)
{
    r->now.mono_ms += ms;
    r->now.wall_ms += ms;
    batch(r, NULL);
}

static struct eg_cmd *command(enum eg_cmd_kind kind, eg_conn_id conn, const char *json)
{
    struct eg_frame_error why = {0};
    struct eg_cmd *cmd = eg_cmd_new(kind, conn);
    cr_assert_eq(eg_frame_parse(eg_slice_cstr(json), &cmd->frame, &why), EG_OK, "%s: %s", json,
                 why.message);
    eg_frame_tail(&cmd->frame, &cmd->tail);
    return cmd;
}

static eg_conn_id attach(struct machine_rig *r, const char *sub, unsigned scopes, const char *json)
{
    const eg_conn_id conn = r->next_conn++;
    struct eg_cmd *cmd = command(EG_CMD_ATTACH, conn, json);
    cmd->identity = (struct eg_identity){.sub = strdup(sub), .scopes = scopes};
    batch(r, cmd);
    return conn;
}

eg_conn_id mr_client(struct machine_rig *r, const char *sub, const char *extra)
{
    char json[512];
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"capabilities\":[\"streaming\",\"ack\","
             "\"presence\"]%s}",
             extra);
    return attach(r, sub, EG_SCOPE_READ | EG_SCOPE_WRITE, json);
}

eg_conn_id mr_worker(struct machine_rig *r, const char *agent, const char *extra)
{
    char json[512];
    snprintf(
        json, sizeof json,
        "{\"type\":\"hello\",\"agent_id\":\"%s\",\"role\":\"agent\",\"capabilities\":[\"ack\"]%s}",
        agent, extra);
    return attach(r, "worker", EG_SCOPE_AGENT, json);
}

void mr_detach(struct machine_rig *r, eg_conn_id conn)
{
    batch(r, eg_cmd_new(EG_CMD_DETACH, conn));
}

void mr_frame(struct machine_rig *r, eg_conn_id conn, const char *json)
{
    batch(r, command(EG_CMD_FRAME, conn, json));
}

void mr_frames(struct machine_rig *r, eg_conn_id conn, const char *const json[], int n)
{
    struct eg_cmd *first = NULL;
    while (n-- > 0) {
        struct eg_cmd *const cmd = command(EG_CMD_FRAME, conn, json[n]);
        cmd->node.next = (struct eg_qnode *)first;
        first = cmd;
    }
    batch(r, first);
}

void mr_frame_and_detach(struct machine_rig *r, eg_conn_id conn, const char *json, eg_conn_id gone)
{
    struct eg_cmd *const cmd = command(EG_CMD_FRAME, conn, json);
    cmd->node.next = &eg_cmd_new(EG_CMD_DETACH, gone)->node;
    batch(r, cmd);
}

enum eg_code mr_call(struct machine_rig *r, struct eg_call *call)
{
    struct eg_cmd *cmd = eg_cmd_new(EG_CMD_CALL, 0);
    cmd->call = call;
    batch(r, cmd);
    return call->code;
}

const struct eg_out *mr_out(const struct machine_rig *r, enum eg_out_kind kind, eg_conn_id conn,
                            int n)
{
    for (int i = 0; i < r->outs; i++) {
        if (r->out[i].kind == kind && (!conn || r->out[i].conn == conn) && n-- == 0) {
            return &r->out[i];
        }
    }
    return NULL;
}

static const char *find(const struct machine_rig *r, enum eg_out_kind kind, eg_conn_id conn,
                        const char *part)
{
    for (int i = 0; i < r->outs; i++) {
        const struct eg_out *o = &r->out[i];
        if (o->kind == kind && (!conn || o->conn == conn) && o->bytes &&
            strstr(o->bytes->data, part)) {
            return o->bytes->data;
        }
    }
    return NULL;
}

const char *mr_text(const struct machine_rig *r, eg_conn_id conn, const char *part)
{
    return find(r, EG_OUT_FRAME, conn, part);
}

const char *mr_event(const struct machine_rig *r, const char *part)
{
    return find(r, EG_OUT_EVENT, 0, part);
}

const struct eg_welcome *mr_welcome(const struct machine_rig *r, eg_conn_id conn)
{
    const struct eg_out *o = mr_out(r, EG_OUT_WELCOME, conn, 0);
    cr_assert(o && o->welcome, "no welcome");
    return o->welcome;
}

int64_t mr_int(const char *json, const char *key)
{
    const char *at = json ? strstr(json, key) : NULL;
    cr_assert(at, "%s is not in %s", key, json ? json : "nothing");
    return strtoll(at + strlen(key), NULL, 10);
}
