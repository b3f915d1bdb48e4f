/*
 * fuzz_core.c - the state machine under any sequence of commands: handshakes of clients, workers
 * and event streams, every frame and every call of operators, in batches whose commits and writes
 * fail on order, with restarts, changed settings and a clock that jumps. The storage is the one in
 * memory that the simulator uses.
 *
 * Input: a byte chooses a step, the bytes after it its details; missing ones are 0. Where the
 * simulator (fuzz_sim) plays sides that behave, here nobody does. Held after each batch: nothing
 * fails that was not ordered to, each connection sees each event once and in order, with the bytes
 * that are stored; calls are answered once; the machine's counts, rings and timers agree with its
 * sessions; nothing waits beside a free worker. At the end: every log whole, each turn ended at
 * most once and lost never. With FUZZ_STORY set in the environment each step is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/memstore.h"
#include "app/setting.h"
#include "core/machine.h"
#include "core_check.h"
#include "wire/event.h"
#include "wire/json.h"

#define CONNS 6
#define CALLS 64
#define QUEUE 48
#define STEPS 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct conn {
    eg_conn_id id; /* 0: free */
    bool attached, worker, streaming;
    int64_t sid;
    uint64_t upto; /* the last event it was given */
};

/* A call with what it borrows. */
struct call {
    struct eg_call call;
    struct eg_identity who;
    char *sub, *sessions[2], id[8], content[40], message_id[8];
    bool waits;
};

static struct world {
    const uint8_t *at, *end;
    struct eg_storage *storage;
    struct eg_settings *settings;
    struct eg_machine *m;
    struct eg_now now;
    struct conn conn[CONNS];
    struct eg_cmd *queue[QUEUE];
    int queued;
    struct call *call[CALLS];
    uint64_t next_conn;
    bool ordered; /* a failure, in this batch */
} w;

static bool told; /* FUZZ_STORY */

#define tell(...) (void)(told && fprintf(stderr, __VA_ARGS__))

static unsigned take(unsigned below)
{
    return w.at < w.end ? *w.at++ % below : 0;
}

/* --- what is sent --- */

static void post(struct eg_cmd *cmd)
{
    must(cmd);
    if (w.queued < QUEUE) {
        w.queue[w.queued++] = cmd;
    } else {
        eg_cmd_free(cmd);
    }
}

/* Whether the reactors hand this frame to the core (edge/methods.c). */
static bool of_core(enum eg_frame_type type)
{
    return type == EG_FRAME_MESSAGE || type == EG_FRAME_ABORT || type == EG_FRAME_ACK ||
           type == EG_FRAME_PRESENCE || type == EG_FRAME_TYPING || type == EG_FRAME_EMIT ||
           type == EG_FRAME_FINAL || type == EG_FRAME_FAIL || type == EG_FRAME_EXTEND ||
           type == EG_FRAME_PUBLISH;
}

static struct eg_cmd *command(enum eg_cmd_kind kind, eg_conn_id conn, struct eg_slice json)
{
    struct eg_cmd *cmd = eg_cmd_new(kind, conn);
    struct eg_frame_error err;
    must(cmd);
    tell("%llx: %.*s\n", (unsigned long long)conn, (int)json.n, json.p);
    if (eg_frame_parse(json, &cmd->frame, &err) != EG_OK) {
        eg_cmd_free(cmd);
        return NULL;
    }
    const enum eg_frame_type t = cmd->frame.type;
    if (t == EG_FRAME_MESSAGE || t == EG_FRAME_ABORT || t == EG_FRAME_EMIT || t == EG_FRAME_FINAL ||
        t == EG_FRAME_PUBLISH) {
        eg_frame_tail(&cmd->frame, &cmd->tail);
    }
    return cmd;
}

static const char *agent_id(void)
{
    static const char *const ids[] = {"a", "b", "a", "c"};
    return ids[take(4)];
}

/* Reactor in the top byte, as connections have it. */
static eg_conn_id new_conn(unsigned reactor)
{
    return (uint64_t)reactor << 56 | w.next_conn++;
}

static void attach_client(struct conn *c, bool stream)
{
    static const char *const caps[] = {"[]", "[\"streaming\",\"ack\"]",
                                       "[\"streaming\",\"ack\",\"presence\"]", "[\"presence\"]"};
    static const char *const since[] = {"",
                                        ",\"since\":0",
                                        ",\"since\":2",
                                        ",\"since\":\"acked\"",
                                        ",\"since\":999",
                                        ",\"since\":0,\"epoch\":\"fuzz\"",
                                        ",\"since\":1,\"epoch\":\"other\""};
    char json[300], session[40] = "";
    const unsigned s = take(6), how = take(16);
    if (s < 5 || stream) { /* a stream is of a session that there was, and makes none */
        snprintf(session, sizeof session, ",\"session_id\":\"s%u\"%s", s % 5,
                 how & 8 || stream ? "" : ",\"create\":true");
    }
    snprintf(json, sizeof json, "{\"type\":\"hello\",\"agent_id\":\"%s\",\"capabilities\":%s%s%s}",
             how & 4 ? "b" : "a", caps[how & 3], session, since[take(7)]);
    c->id = new_conn(take(REACTORS));
    struct eg_cmd *cmd = command(EG_CMD_ATTACH, c->id, eg_slice_cstr(json));
    must(cmd);
    cmd->stream = stream;
    c->streaming = stream || (cmd->frame.caps & EG_CAP_STREAMING);
    cmd->legacy = !stream && how == 15;
    cmd->identity.sub = strdup(take(4) ? "u" : "v");
    cmd->identity.scopes = EG_SCOPE_READ | EG_SCOPE_WRITE;
    if (take(3) == 1) {
        cmd->identity.sessions = calloc(2, sizeof(char *));
        cmd->identity.sessions[0] = strdup("*");
    }
    post(cmd);
}

static void attach_worker(struct conn *c)
{
    char json[200];
    snprintf(json, sizeof json,
             "{\"type\":\"hello\",\"agent_id\":\"%s\",\"role\":\"agent\",\"concurrency\":%u,"
             "\"capabilities\":[\"ack\"]}",
             agent_id(), 1 + take(3));
    c->id = new_conn(take(REACTORS));
    c->worker = true;
    struct eg_cmd *cmd = command(EG_CMD_ATTACH, c->id, eg_slice_cstr(json));
    must(cmd);
    cmd->identity.sub = strdup("k");
    cmd->identity.scopes = EG_SCOPE_AGENT;
    post(cmd);
}

static void leave(struct conn *c)
{
    if (c->id) {
        tell("%llx leaves\n", (unsigned long long)c->id);
        post(eg_cmd_new(EG_CMD_DETACH, c->id));
    }
    *c = (struct conn){0};
}

static void say(struct conn *c)
{
    static const char *const content[] = {"\"x\"", "\"/stop\"", "{\"a\":[1,2]}", "7"};
    char json[200];
    const unsigned id = take(6), kind = take(12);
    switch (kind) {
    case 0:
        snprintf(json, sizeof json, "{\"type\":\"ack\",\"cursor\":%u}", take(12));
        break;
    case 1:
        snprintf(json, sizeof json, "{\"type\":\"abort\",\"turn\":%u}", 1 + take(12));
        break;
    case 2:
        snprintf(json, sizeof json, "{\"type\":\"abort\",\"reason\":\"no\"}");
        break;
    case 3:
        snprintf(json, sizeof json, "{\"type\":\"presence\",\"status\":\"p%u\",\"data\":%u}", id,
                 take(3));
        break;
    case 4:
        snprintf(json, sizeof json, "{\"type\":\"typing\"}");
        break;
    case 5:
        snprintf(json, sizeof json, "{\"type\":\"message\",\"content\":%s,\"metadata\":{\"m\":1}}",
                 content[take(4)]);
        break;
    default:
        snprintf(json, sizeof json, "{\"type\":\"message\",\"content\":%s,\"message_id\":\"m%u\"}",
                 content[take(4)], id);
        break;
    }
    struct eg_cmd *cmd = command(EG_CMD_FRAME, c->id, eg_slice_cstr(json));
    must(cmd);
    post(cmd);
}

static void work(struct conn *c)
{
    static const char *const what[] = {
        "\"type\":\"emit\",\"event\":\"token_stream\",\"data\":1",
        "\"type\":\"emit\",\"event\":\"x.y\",\"data\":{},\"ephemeral\":true",
        "\"type\":\"final\",\"content\":\"done\"",
        "\"type\":\"final\",\"content\":null,\"outcome\":{\"status\":\"aborted\"}",
        "\"type\":\"fail\",\"error\":\"no\",\"retry\":true",
        "\"type\":\"fail\",\"error\":{\"why\":2},\"retry\":false",
        "\"type\":\"fail\",\"error\":\"no\",\"retry\":true,\"retry_after_seconds\":5",
        "\"type\":\"extend\"",
        "\"type\":\"final\",\"content\":\"bad\",\"outcome\":{\"status\":\"error\"}",
        "\"type\":\"publish\",\"event\":\"status\",\"data\":1"};
    char json[300], id[32] = "";
    const unsigned kind = take(10), session = take(5), number = take(8);
    if (number) {
        snprintf(id, sizeof id, ",\"event_id\":\"e%u\"", number);
    }
    snprintf(json, sizeof json, "{%s,\"session_id\":\"s%u\",\"turn\":%u%s}", what[kind], session,
             1 + take(24), id);
    struct eg_cmd *cmd = command(EG_CMD_FRAME, c->id, eg_slice_cstr(json));
    must(cmd);
    post(cmd);
}

/* The worker's answer to the turn that it really has. */
static void work_well(struct conn *c)
{
    static const char *const what[] = {"\"type\":\"emit\",\"event\":\"token_stream\",\"data\":1",
                                       "\"type\":\"final\",\"content\":\"done\"",
                                       "\"type\":\"fail\",\"error\":\"no\"", "\"type\":\"extend\""};
    const struct eg_session *s, *next;
    char json[300];
    const unsigned kind = take(4), nth = take(4);
    unsigned i = 0;
    HASH_ITER(hh_sid, w.m->by_sid, s, next)
    {
        const struct eg_turn *t = eg_turn_head(s);
        if (!t || !t->worker || t->worker->conn->id != c->id || i++ != nth % 2) {
            continue;
        }
        snprintf(json, sizeof json, "{%s,\"session_id\":\"%s\",\"turn\":%llu}", what[kind], s->id,
                 (unsigned long long)t->turn);
        struct eg_cmd *cmd = command(EG_CMD_FRAME, c->id, eg_slice_cstr(json));
        must(cmd);
        post(cmd);
        return;
    }
}

/* Bytes of the input as a frame. */
static void say_raw(struct conn *c)
{
    const size_t want = take(256), left = (size_t)(w.end - w.at), n = want < left ? want : left;
    struct eg_cmd *cmd = command(EG_CMD_FRAME, c->id, (struct eg_slice){(const char *)w.at, n});
    w.at += n;
    if (cmd && of_core(cmd->frame.type)) {
        post(cmd);
    } else {
        eg_cmd_free(cmd);
    }
}

static void free_call(struct call *k)
{
    eg_buf_free(&k->call.json);
    free(k->sub);
    free(k);
}

static void ask(void)
{
    struct call *k = NULL;
    int slot = 0;
    while (slot < CALLS && w.call[slot]) {
        slot++;
    }
    struct eg_cmd *cmd = slot < CALLS && w.queued < QUEUE ? eg_cmd_new(EG_CMD_CALL, 0) : NULL;
    if (!cmd || !(k = calloc(1, sizeof *k))) {
        eg_cmd_free(cmd);
        return;
    }
    const unsigned kind = take(EG_CALL_KICK + 1), bits = take(256);
    k->sub = strdup(bits & 1 ? "v" : "u");
    k->sessions[0] = k->sub;
    k->who = (struct eg_identity){.sub = k->sub, .sessions = bits & 2 ? k->sessions : NULL};
    k->call.kind = (enum eg_call_kind)kind;
    snprintf(k->id, sizeof k->id, "s%u", take(6));
    snprintf(k->message_id, sizeof k->message_id, "m%u", take(6));
    snprintf(k->content, sizeof k->content, "{\"n\":%u}", take(4));
    k->call.session_id = eg_slice_cstr(kind == EG_CALL_CREATE && (bits & 12) == 12 ? "" : k->id);
    k->call.agent = eg_slice_cstr(agent_id());
    k->call.content = eg_slice_cstr(k->content);
    if (bits & 4) {
        k->call.message_id = eg_slice_cstr(k->message_id);
    }
    if (kind == EG_CALL_CREATE || bits & 8) {
        k->call.identity = &k->who;
    } else {
        k->call.source = EG_LIT("operator:o");
    }
    k->call.turn = bits & 16 ? -1 : (int64_t)take(12);
    k->call.cursor = take(16);
    k->call.text = bits & 32 ? EG_LIT("jti:j") : EG_LIT("sub:u");
    k->call.until_ms = w.now.wall_ms + 1000;
    k->call.conn = w.conn[take(CONNS)].id;
    if (kind == EG_CALL_AUDIT || bits & 64) {
        k->call.audit_who = EG_LIT("o");
        k->call.audit_action = EG_LIT("act");
    }
    tell("call %u of %s, agent %.*s, turn %lld, cursor %llu\n", kind, k->id, (int)k->call.agent.n,
         k->call.agent.p, (long long)k->call.turn, (unsigned long long)k->call.cursor);
    k->waits = true;
    w.call[slot] = k;
    cmd->call = &k->call;
    post(cmd);
}

/* --- what comes back --- */

static struct conn *conn_of(eg_conn_id id)
{
    for (int i = 0; i < CONNS; i++) {
        if (id && w.conn[i].id == id) {
            return &w.conn[i];
        }
    }
    return NULL;
}

/* Durable before visible: what is released is what is stored. */
static void check_stored(int64_t sid, uint64_t cursor, const struct eg_bytes *bytes)
{
    struct eg_bytes *body = NULL;
    struct eg_session_row row;
    if (w.storage->ops->session_by_sid(w.storage, sid, &row) != EG_OK || cursor < row.oldest) {
        return; /* removed in the same batch */
    }
    must(cursor <= row.cursor);
    const enum eg_err e = w.storage->ops->event_get(w.storage, sid, cursor, &body);
    must(e == EG_OK || row.state >= EG_SESSION_DELETING);
    must(e != EG_OK || !bytes || eg_slice_eq(eg_bytes_slice(body), eg_bytes_slice(bytes)));
    eg_bytes_unref(body);
}

static void check_frame(const struct eg_bytes *b)
{
    struct eg_json_doc doc;
    must(b && eg_json_scan(eg_bytes_slice(b), EG_JSON_DEPTH_MAX + 2, &doc) == EG_OK);
    must(doc.kind == EG_JSON_OBJECT && eg_json_get(&doc, "type"));
}

/* A turn comes with its own message, as it is stored. */
static void check_turn_text(struct eg_slice text)
{
    struct eg_json_doc doc;
    struct eg_session_row row;
    struct eg_bytes *body = NULL;
    int64_t turn = 0;
    must(eg_json_scan(text, EG_JSON_DEPTH_MAX + 2, &doc) == EG_OK);
    if (!eg_slice_is(eg_json_get(&doc, "type")->value, "\"turn\"")) {
        return;
    }
    const struct eg_slice id = eg_json_get(&doc, "session_id")->value;
    must(eg_json_integer(eg_json_get(&doc, "turn")->value, &turn));
    if (w.storage->ops->session_by_id(w.storage, (struct eg_slice){id.p + 1, id.n - 2}, &row) !=
            EG_OK ||
        w.storage->ops->event_get(w.storage, row.sid, (uint64_t)turn, &body) != EG_OK) {
        return; /* removed in the same batch */
    }
    must(eg_slice_eq(eg_json_get(&doc, "message")->value, eg_bytes_slice(body)));
    eg_bytes_unref(body);
}

static void deliver(unsigned reactor, const struct eg_out *o)
{
    struct conn *c = conn_of(o->conn);
    switch (o->kind) {
    case EG_OUT_WELCOME:
        must(o->welcome->cursor + 1 >= o->welcome->oldest);
        must(o->welcome->sequence <= o->welcome->cursor);
        must(!o->welcome->replay || o->welcome->sequence + 1 >= o->welcome->oldest);
        if (c) {
            must(c->worker == o->welcome->worker && !c->attached);
            c->attached = true;
            c->sid = o->welcome->sid;
            c->upto = o->welcome->cursor;
        }
        break;
    case EG_OUT_REFUSE:
        must(o->code != EG_CODE_NONE && eg_code_info(o->code)->name);
        must(o->code != EG_CODE_storage_unavailable || w.m->readonly || o->message);
        if (c) {
            must(!c->attached);
            *c = (struct conn){0};
        }
        break;
    case EG_OUT_FRAME:
        check_frame(o->bytes);
        check_turn_text(eg_bytes_slice(o->bytes));
        if (o->cursor) {
            check_stored(o->sid, o->cursor, NULL);
            if (c && c->attached) {
                must(c->sid == o->sid && o->cursor == c->upto + 1);
                c->upto = o->cursor;
            }
        }
        break;
    case EG_OUT_EVENT:
        check_frame(o->bytes);
        for (int i = 0; i < CONNS; i++) {
            struct conn *f = &w.conn[i];
            if (f->attached && !f->worker && f->sid == o->sid && f->id != o->except &&
                EG_CONN_REACTOR(f->id) == reactor) {
                must(o->cursor == f->upto + 1);
                f->upto = o->cursor;
            }
        }
        check_stored(o->sid, o->cursor, o->bytes);
        break;
    case EG_OUT_NOTICE:
        check_frame(o->bytes);
        break;
    case EG_OUT_CLOSE:
        if (c) {
            leave(c);
        }
        break;
    case EG_OUT_SYNC:
        break;
    }
}

/* Both reactors get their part; events of one are the events of all that follow there. */
static void release(void)
{
    for (unsigned r = 0; r < REACTORS; r++) {
        struct eg_release *rel = w.m->release[r];
        w.m->release[r] = NULL;
        for (int i = 0; rel && i < rel->n; i++) {
            deliver(r, &rel->out[i]);
        }
        eg_release_free(rel);
    }
    for (unsigned i = 0; i < w.m->revoked_count; i++) {
        free(w.m->revoked[i].what);
    }
    w.m->revoked_count = 0;
    for (unsigned i = 0; i < w.m->done_count; i++) {
        int slot = 0;
        while (slot < CALLS && !(w.call[slot] && &w.call[slot]->call == w.m->done[i])) {
            slot++;
        }
        must(slot < CALLS && w.call[slot]->waits);
        must(w.call[slot]->call.code != EG_CODE_internal);
        free_call(w.call[slot]);
        w.call[slot] = NULL;
    }
    w.m->done_count = 0;
}

/* --- batches --- */

static void start(void)
{
    must(eg_machine_new(w.storage, w.settings, REACTORS, w.now, &w.m) == EG_OK);
    if (w.m->writing) {
        must(w.storage->ops->commit(w.storage) == EG_OK);
        w.m->writing = false;
    }
    eg_machine_committed(w.m);
    release();
}

static void drop_queue(void)
{
    for (int i = 0; i < w.queued; i++) {
        eg_cmd_free(w.queue[i]);
    }
    w.queued = 0;
}

static void crash(void)
{
    tell("crash\n");
    if (w.m->writing) {
        w.storage->ops->rollback(w.storage);
    }
    eg_machine_free(w.m);
    memset(w.conn, 0, sizeof w.conn);
    drop_queue();
    for (int i = 0; i < CALLS; i++) {
        if (w.call[i]) {
            free_call(w.call[i]);
            w.call[i] = NULL;
        }
    }
    w.storage = memstore_restart(w.storage);
    must(w.storage);
    start();
}

enum outcome { DONE, AGAIN, DEAD };

static enum outcome attempt(void)
{
    struct eg_machine *m = w.m;
    enum eg_err e = EG_OK;
    for (int i = 0; i < w.queued; i++) {
        eg_machine_step(m, w.queue[i], w.now);
    }
    eg_machine_tick(m, w.now);
    const bool writes = eg_machine_flush(m);
    if (!m->failed && writes) {
        e = m->storage->ops->commit(m->storage);
        m->writing = false;
    }
    if (e == EG_EUNKNOWN) {
        must(w.ordered);
        return DEAD;
    }
    if (m->failed || e != EG_OK) {
        if (!w.ordered) {
            fprintf(stderr, "nothing was to fail: %s\n", eg_err_text(e));
            abort();
        }
        eg_machine_rolled_back(m);
        return AGAIN;
    }
    eg_machine_committed(m);
    return DONE;
}

static void batch(void)
{
    enum outcome o;
    int tries = 0;
    tell("batch\n");
    while ((o = attempt()) == AGAIN) {
        tell("failed%s\n", w.m->readonly ? ", read-only now" : "");
        must(++tries < 3);
    }
    memstore_fail_commits(w.storage, MEMSTORE_OK, 0, 0);
    memstore_fail_write(w.storage, 0, EG_OK);
    w.ordered = false;
    if (o == DEAD) {
        crash();
        return;
    }
    drop_queue();
    core_check_machine(w.m);
    release();
}

static void order_failure(void)
{
    static const enum memstore_fate fate[] = {MEMSTORE_FULL, MEMSTORE_IO, MEMSTORE_UNKNOWN_GONE,
                                              MEMSTORE_UNKNOWN_KEPT};
    const unsigned how = take(12);
    tell("failure %u is ordered\n", how);
    w.ordered = true;
    if (how < 4) {
        memstore_fail_commits(w.storage, fate[how], 0, 1);
    } else {
        memstore_fail_write(w.storage, 1 + (int)(how - 4), EG_EFULL);
    }
}

static void pass_time(void)
{
    static const int64_t ms[] = {1, 50, 1000, 6000, 61000, 3600000};
    const unsigned how = take(8);
    if (how < 6) {
        w.now.mono_ms += ms[how];
        w.now.wall_ms += ms[how];
    } else {
        w.now.wall_ms += how == 6 ? 7200000 : -7200000;
    }
}

static void change_settings(void)
{
    struct eg_settings *s = eg_settings_copy(w.settings);
    const unsigned how = take(32);
    must(s);
    s->max_queued_turns = how & 1 ? 2 : 6;
    s->message_rate_per_sub = how & 2 ? 3 : 0;
    s->max_sessions_per_sub = how & 4 ? 3 : 0;
    s->session_cache = how & 8 ? 1 : CACHE_MOST;
    s->max_attempts = how & 16 ? 1 : 3;
    eg_settings_unref(w.settings);
    w.settings = s;
    eg_machine_settings(w.m, s);
}

static void step(void)
{
    const unsigned what = take(32);
    struct conn *c = &w.conn[take(CONNS)];
    if (what < 10) {
        if (!c->id) {
            attach_client(c, what == 9);
        } else if (what < 2) {
            leave(c);
        } else if (c->attached && c->worker) {
            work_well(c);
        } else if (c->attached) {
            say(c);
        }
    } else if (what < 14) {
        if (!c->id) {
            attach_worker(c);
        } else if (c->attached && c->worker) {
            work(c);
        }
    } else if (what < 16 && c->attached) {
        say_raw(c);
    } else if (what < 22) {
        ask();
    } else if (what < 23) {
        order_failure();
    } else if (what < 24) {
        pass_time();
        batch();
    } else if (what < 25) {
        tell("resume\n");
        eg_machine_resume(w.m);
        batch();
    } else if (what < 26 && take(8) == 1) {
        crash();
    } else if (what < 27) {
        change_settings();
    } else if (what < 28) {
        w.m->draining = w.m->draining || take(8) == 1; /* there is no way back */
        tell("draining: %d\n", w.m->draining);
    } else {
        batch();
    }
}

/* --- the end --- */

static void come_to_an_end(void)
{
    for (int i = 0; i < 200 && (w.m->chores || i < 2); i++) {
        if (w.m->readonly) {
            eg_machine_resume(w.m);
        }
        batch();
    }
    must(!w.m->chores);
    for (int i = 0; i < CALLS; i++) {
        must(!w.call[i]);
    }
    for (int64_t sid = 1; sid <= STEPS; sid++) {
        core_check_log(w.storage, sid);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&w, 0, sizeof w);
    told = getenv("FUZZ_STORY") != NULL;
    w.at = data;
    w.end = data + size;
    w.now = (struct eg_now){.mono_ms = 1000000, .wall_ms = 1700000000000};
    w.storage = memstore_new("fuzz");
    w.settings = eg_settings_new();
    must(w.storage && w.settings);
    w.settings->max_attempts = 3;
    w.settings->max_queued_turns = 6;
    w.settings->session_cache = 2;
    const char *const agents[] = {"b"};
    bool ms;
    char why[64];
    must(eg_setting_set_list(eg_setting_find("agents", &ms), w.settings, agents, 1, why,
                             sizeof why) == EG_OK);
    w.next_conn = 1;
    start();
    for (int i = 0; i < STEPS && w.at < w.end; i++) {
        step();
    }
    come_to_an_end();
    eg_machine_free(w.m);
    w.storage->ops->close(w.storage);
    eg_settings_unref(w.settings);
    drop_queue();
    return 0;
}
