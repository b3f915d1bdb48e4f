/*
 * fuzz_http.c - any request to the HTTP API of both listeners: router, checks, handlers and answers
 * of src/http, with the real core state machine and the real readers over a small database.
 *
 * The HTTP library is replaced by a connection in memory, the core's thread by one that steps the
 * machine at once and undoes it after the request, so that each input meets the same database.
 *
 * Input: two bytes, then the request as text: METHOD SP path, header lines, an empty line, the
 * body. Byte 0: bit 0 the admin listener; bits 1-3 which token (the last two: none); bit 4
 * HTTP/1.0; bit 5 the commit fails; bit 6 draining; bit 7 the client goes away within the body.
 * Byte 1: bit 0 a page of an allowed origin asks; bit 1 the token comes in the query; bit 2 too
 * many connections for an event stream.
 *
 * Held: exactly one answer, well formed, with a length that is true and no control characters in
 * its head; its status is one that admin/openapi.yaml names for the route, or an error with the
 * body that is described there for errors; JSON is strict; no reader, export or thread is kept.
 */
#include <civetweb.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sodium.h>
#include <unistd.h>

#include "app/setting.h"
#include "core/machine.h"
#include "http/http_int.h"
#include "http_answer.h"
#include "store/sqlite.h"
#include "wire/token.h"
#include "wire/token_text.h"

#define NOW_S 1800000000
#define TOKENS 6
#define HEADERS_MAX 64
#define ORIGIN "https://app.example"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(holds) http_must(holds, &conn.out)

struct mg_connection {
    struct mg_request_info info;
    char *text, *body; /* the request, cut into strings; what the client sends of the body */
    size_t body_n, body_at;
    struct eg_buf out;
    bool adopted;
};

static struct mg_connection conn;
static struct eg_http *http;
static struct eg_auth *auth;
static struct eg_settings *settings;
static struct eg_storage *storage;
static struct eg_machine *machine;
static struct eg_keyring *ring;
static char *token[TOKENS];
static char dir[40], keys[64], key_path[2][128], key_text[2][512];
static bool fails, full, changed_keys, stepped;
static int drains;

/* --- the HTTP library --- */

const struct mg_request_info *mg_get_request_info(const struct mg_connection *c)
{
    return &c->info;
}

const char *mg_get_header(const struct mg_connection *c, const char *name)
{
    for (int i = 0; i < c->info.num_headers; i++) {
        if (strcasecmp(c->info.http_headers[i].name, name) == 0)
            return c->info.http_headers[i].value;
    }
    return NULL;
}

int mg_read(struct mg_connection *c, void *p, size_t n)
{
    const size_t left = c->body_n - c->body_at;
    n = n < left ? n : left;
    memcpy(p, c->body + c->body_at, n);
    c->body_at += n;
    return (int)n;
}

int mg_write(struct mg_connection *c, const void *p, size_t n)
{
    eg_buf_add(&c->out, p, n);
    return (int)n;
}

void mg_disable_connection_keep_alive(struct mg_connection *c)
{
    must(c == &conn);
}

/* --- what else is not here: sockets, listeners, reactors, the core's thread --- */

int __wrap_eg_adopt_fd(void);
int __wrap_eg_adopt_fd(void)
{
    return -1;
}

size_t __wrap_eg_adopt_beyond_head(void);
size_t __wrap_eg_adopt_beyond_head(void)
{
    return 0;
}

enum eg_err __wrap_eg_adopt_stream(struct eg_listener *l, struct mg_connection *c,
                                   struct eg_slice head, struct eg_adopted *a);
enum eg_err __wrap_eg_adopt_stream(struct eg_listener *l, struct mg_connection *c,
                                   struct eg_slice head, struct eg_adopted *a)
{
    must(l && a->mode == EG_CONN_SSE && a->claims.sub && a->since >= -1);
    must(eg_slice_is(a->session_id, a->sse_session));
    if (!full) {
        eg_buf_slice(&c->out, head);
        c->adopted = true;
    }
    free(a->epoch);
    eg_claims_free(&a->claims);
    free(a);
    return full ? EG_EFULL : EG_OK;
}

void __wrap_eg_listener_client_addr(struct eg_listener *l, const struct mg_connection *c,
                                    char out[64]);
void __wrap_eg_listener_client_addr(struct eg_listener *l, const struct mg_connection *c,
                                    char out[64])
{
    must(l && c == &conn);
    strcpy(out, "192.0.2.7");
}

const char *__wrap_eg_listener_bound(const struct eg_listener *l);
const char *__wrap_eg_listener_bound(const struct eg_listener *l)
{
    return l ? "127.0.0.1:7070" : "";
}

void __wrap_eg_reactors_each(struct eg_reactors *rs,
                             void (*fn)(void *arg, const struct eg_conn_info *info), void *arg);
void __wrap_eg_reactors_each(struct eg_reactors *rs,
                             void (*fn)(void *arg, const struct eg_conn_info *info), void *arg)
{
    const struct eg_conn_info info[] = {
        {.id = 1, .addr = "192.0.2.1"},
        {.id = 3, .sub = "u", .addr = "192.0.2.2", .agent = "a", .session = "s0", .mode = "sse"},
        {.id = 2,
         .sub = "w\n\"",
         .addr = "::1",
         .agent = "a",
         .client_name = "x",
         .worker_id = "k",
         .mode = "ws"}};
    (void)rs;
    for (size_t i = 0; i < sizeof info / sizeof *info; i++)
        fn(arg, &info[i]);
}

enum eg_err __wrap_eg_sqlite_backup(const char *from, const char *to,
                                    bool (*progress)(void *arg, int64_t done, int64_t total),
                                    void *arg, char *why, size_t why_size);
enum eg_err __wrap_eg_sqlite_backup(const char *from, const char *to,
                                    bool (*progress)(void *arg, int64_t done, int64_t total),
                                    void *arg, char *why, size_t why_size)
{
    must(strcmp(from, dir) == 0 && to[0] == '/');
    must(progress(arg, 5, 5));
    snprintf(why, why_size, "no room");
    return strlen(to) % 2 ? EG_OK : EG_EFULL;
}

void __wrap_eg_core_epoch(struct eg_core *core, int64_t sid, char out[EG_EPOCH_MAX + 1]);
void __wrap_eg_core_epoch(struct eg_core *core, int64_t sid, char out[EG_EPOCH_MAX + 1])
{
    (void)core;
    eg_epoch_of(&machine->epoch, sid, out);
}

static bool is_done(const struct eg_call *call)
{
    for (unsigned i = 0; i < machine->done_count; i++) {
        if (machine->done[i] == call)
            return true;
    }
    return false;
}

/* One batch of this command alone; what it writes stays in the transaction. */
static void step(struct eg_cmd *cmd, const struct eg_call *call)
{
    const struct eg_now now = eg_clock_now();
    if (cmd)
        eg_machine_step(machine, cmd, now);
    for (int i = 0; i < 20 && (i == 0 || (call && !is_done(call))); i++) {
        eg_machine_tick(machine, now);
        const bool writes = eg_machine_flush(machine);
        must(!machine->failed);
        if (writes && fails) {
            eg_machine_rolled_back(machine);
            eg_machine_step(machine, cmd, now);
            must(!eg_machine_flush(machine) && is_done(call));
        }
        eg_machine_committed(machine);
        machine->writing = writes && !fails; /* not really: the transaction goes on */
    }
}

static void release(void)
{
    eg_release_free(machine->release[0]);
    machine->release[0] = NULL;
    for (unsigned i = 0; i < machine->revoked_count; i++)
        free(machine->revoked[i].what);
    machine->revoked_count = machine->done_count = 0;
}

void __wrap_eg_core_call(struct eg_core *core, struct eg_call *call);
void __wrap_eg_core_call(struct eg_core *core, struct eg_call *call)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    (void)core;
    pthread_mutex_lock(&lock);
    struct eg_cmd *cmd = eg_cmd_new(EG_CMD_CALL, 0);
    must(cmd);
    cmd->call = call;
    stepped = true;
    step(cmd, call);
    must(is_done(call));
    release();
    cmd->call = NULL;
    eg_cmd_free(cmd);
    changed_keys =
        changed_keys || (call->audit_action.n > 4 && !memcmp(call->audit_action.p, "key.", 4));
    pthread_mutex_unlock(&lock);
}

/* --- the world, made once --- */

static struct eg_now fake_now(void)
{
    return (struct eg_now){.mono_ms = 1000000, .wall_ms = NOW_S * 1000LL};
}

static void on_drain(void *arg)
{
    (void)arg;
    drains++;
}

static void on_config(void *arg, struct eg_buf *out)
{
    (void)arg;
    eg_buf_str(out, "{\"a\":1}");
}

static enum eg_err on_reload(void *arg, char *why, size_t why_size)
{
    struct eg_keyring *fresh = NULL;
    (void)arg;
    changed_keys = true;
    const enum eg_err e = eg_keyring_load(keys, NULL, &fresh, why, why_size);
    if (e == EG_OK)
        eg_auth_keyring(auth, fresh);
    eg_keyring_unref(fresh);
    return e;
}

/* Exactly the two key files there were. */
static void put_keys(void)
{
    DIR *d = opendir(keys);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", keys, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(key_path[i], "w");
        must(f && fputs(key_text[i], f) >= 0 && fclose(f) == 0 && chmod(key_path[i], 0600) == 0);
    }
}

static void make_keys(void)
{
    char why[256];
    snprintf(keys, sizeof keys, "%s/keys", dir);
    must(mkdir(keys, 0700) == 0);
    for (int i = 0; i < 2; i++) {
        struct eg_key_info info = {.kid = ""};
        uint8_t seed[32], secret[64];
        memset(seed, 1 + i, sizeof seed);
        crypto_sign_seed_keypair(info.public_key, secret, seed);
        snprintf(info.kid, sizeof info.kid, "k%d", i);
        snprintf(key_path[i], sizeof key_path[i], "%s/2026010%dT000000000-k%d.key", keys, i, i);
        key_text[i][eg_jwk_private(&info, seed, key_text[i], sizeof key_text[i] - 1)] = '\0';
    }
    put_keys();
    must(eg_keyring_load(keys, NULL, &ring, why, sizeof why) == EG_OK);
    must(eg_auth_new(ring, settings, &auth) == EG_OK);
}

static char *mint(const char *sub, unsigned scopes, char *agent, char *session)
{
    struct eg_buf out = {0};
    char name[16];
    char *agents[] = {agent, NULL}, *sessions[] = {session, NULL};
    snprintf(name, sizeof name, "%s", sub);
    const struct eg_claims c = {.sub = name,
                                .jti = name,
                                .iat_s = NOW_S,
                                .exp_s = NOW_S + 7200,
                                .scopes = scopes,
                                .agents = agent ? agents : NULL,
                                .sessions = session ? sessions : NULL};
    must(eg_token_mint(ring, &c, &out) == EG_OK);
    return eg_buf_take(&out);
}

static void make_tokens(void)
{
    char all[] = "*", a[] = "a";
    const unsigned own = EG_SCOPE_READ | EG_SCOPE_WRITE;
    token[0] = mint("root", EG_SCOPE_ADMIN | EG_SCOPE_AGENT | own, all, all);
    token[1] = mint("watch", EG_SCOPE_ADMIN_READ, NULL, NULL);
    token[2] = mint("u", own, NULL, NULL);
    token[3] = mint("v", own, a, all);
    token[4] = mint("ops", EG_SCOPE_ADMIN, NULL, NULL);
    token[5] = mint("u", EG_SCOPE_READ, NULL, NULL);
}

static void said(eg_conn_id id, enum eg_cmd_kind kind, const char *json)
{
    struct eg_cmd *cmd = eg_cmd_new(kind, id);
    struct eg_frame_error err;
    must(cmd && eg_frame_parse(eg_slice_cstr(json), &cmd->frame, &err) == EG_OK);
    if (kind == EG_CMD_FRAME)
        eg_frame_tail(&cmd->frame, &cmd->tail);
    else
        cmd->identity = (struct eg_identity){
            .sub = strdup("u"), .scopes = EG_SCOPE_READ | EG_SCOPE_WRITE | EG_SCOPE_AGENT};
    step(cmd, NULL);
    release();
    eg_cmd_free(cmd);
}

static void called(struct eg_call call)
{
    __wrap_eg_core_call(NULL, &call);
    must(call.code == EG_CODE_NONE);
    eg_buf_free(&call.json);
}

static void new_machine(void)
{
    must(eg_machine_new(storage, settings, 1, eg_clock_now(), &machine) == EG_OK);
    eg_machine_committed(machine);
    release();
}

/* Sessions in each state, turns in each state, a revocation, entries of the audit log. */
static void make_data(void)
{
    char why[256];
    must(eg_sqlite_open(dir, &storage, why, sizeof why) == EG_OK);
    new_machine();
    said(1, EG_CMD_ATTACH,
         "{\"type\":\"hello\",\"agent_id\":\"a\",\"role\":\"agent\","
         "\"concurrency\":2}");
    called((struct eg_call){.kind = EG_CALL_AGENT_PUT,
                            .agent = EG_LIT("b"),
                            .audit_who = EG_LIT("root"),
                            .audit_action = EG_LIT("agent.put")});
    for (eg_conn_id id = 2; id < 6; id++) {
        char json[200];
        snprintf(json, sizeof json,
                 "{\"type\":\"hello\",\"agent_id\":\"%s\",\"session_id\":\"s%d\",\"create\":true}",
                 id == 5 ? "b" : "a", (int)id - 2);
        said(id, EG_CMD_ATTACH, json);
        said(id, EG_CMD_FRAME,
             "{\"type\":\"message\",\"content\":{\"x\":1},\"message_id\":\"m1\"}");
        said(id, EG_CMD_FRAME, "{\"type\":\"message\",\"content\":\"y\"}");
    }
    said(1, EG_CMD_FRAME,
         "{\"type\":\"emit\",\"session_id\":\"s0\",\"turn\":1,\"event\":"
         "\"token_stream\",\"data\":\"z\"}");
    said(1, EG_CMD_FRAME, "{\"type\":\"final\",\"session_id\":\"s0\",\"turn\":1,\"content\":1}");
    said(1, EG_CMD_FRAME,
         "{\"type\":\"fail\",\"session_id\":\"s1\",\"turn\":1,\"error\":\"no\","
         "\"retry\":false}");
    said(2, EG_CMD_FRAME, "{\"type\":\"ack\",\"cursor\":2}");
    called((struct eg_call){.kind = EG_CALL_CLOSE, .session_id = EG_LIT("s2")});
    called((struct eg_call){
        .kind = EG_CALL_REVOKE, .text = EG_LIT("jti:gone"), .until_ms = NOW_S * 2000LL});
    called((struct eg_call){
        .kind = EG_CALL_REVOKE, .text = EG_LIT("sub:gone"), .until_ms = NOW_S * 2000LL});
    must(machine->writing && storage->ops->commit(storage) == EG_OK);
    eg_machine_free(machine);
    new_machine();
}

static void clean_up(void)
{
    char command[80];
    eg_http_free(http);
    eg_machine_free(machine);
    storage->ops->close(storage);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    (void)!system(command);
}

static void set_up(void)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    static char origin[] = ORIGIN;
    char why[64];
    const char *const origins[] = {origin};
    bool ms;
    snprintf(dir, sizeof dir, "%s/ebbgate-fuzz-XXXXXX", base);
    must(mkdtemp(dir));
    eg_clock_replace(fake_now);
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    eg_sodium_ready();
    settings = eg_settings_new();
    must(settings);
    settings->max_payload = 65536;
    must(eg_setting_set_list(eg_setting_find("allowed_origins", &ms), settings, origins, 1, why,
                             sizeof why) == EG_OK);
    make_keys();
    make_tokens();
    make_data();
    const struct eg_http_config config = {.auth = auth,
                                          .settings = settings,
                                          .dir = dir,
                                          .drain = on_drain,
                                          .config = on_config,
                                          .reload_keys = on_reload};
    must(eg_http_new(&config, &http) == EG_OK);
    eg_http_listener(http, false, (struct eg_listener *)(void *)&conn);
    eg_http_listener(http, true, (struct eg_listener *)(void *)&conn);
    eg_http_started(http);
    eg_metric_set(EG_M_storage_ok, 1);
    atexit(clean_up);
}

/* --- the request --- */

static bool plain(const char *s)
{
    for (; *s; s++) {
        if (*s <= ' ' || *s > '~')
            return false;
    }
    return true;
}

static void add_header(const char *name, const char *value)
{
    struct mg_request_info *i = &conn.info;
    if (i->num_headers < HEADERS_MAX)
        i->http_headers[i->num_headers++] = (struct mg_header){name, value};
}

static bool is_method(const char *s)
{
    const size_t n = strlen(s);
    return n > 0 && n <= 16 && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == n;
}

static bool read_headers(char *at)
{
    while (at && *at) {
        char *name = strsep(&at, "\n"), *value = strchr(name, ':');
        if (!value || value == name)
            return false;
        *value++ = '\0';
        value += strspn(value, " \t");
        value[strcspn(value, "\r")] = '\0';
        if (!plain(name))
            return false;
        add_header(name, value);
    }
    return true;
}

/* What the client sends of the body, and how long it says that it is. */
static bool read_body(const char *p, size_t n, bool goes_away)
{
    const char *given = mg_get_header(&conn, "Content-Length");
    if (given && (!*given || strspn(given, "0123456789") != strlen(given) || strlen(given) > 9))
        return false;
    conn.body = malloc(n + 1);
    must(conn.body);
    memcpy(conn.body, p, n);
    conn.info.content_length = given ? atoi(given) : n ? (long long)n : -1;
    conn.body_n =
        given && (size_t)conn.info.content_length < n ? (size_t)conn.info.content_length : n;
    if (goes_away)
        conn.body_n /= 2;
    return true;
}

/* As the library and the listener's own checks let it pass; false: they would not. */
static bool read_request(const uint8_t *data, size_t size, unsigned bits, unsigned more)
{
    static char authorization[1024];
    struct mg_request_info *i = &conn.info;
    const unsigned who = bits >> 1 & 7;
    const uint8_t *blank = memmem(data, size, "\n\n", 2);
    const size_t head = blank ? (size_t)(blank - data) : size, body = blank ? head + 2 : size;
    conn.text = strndup((const char *)data, head);
    must(conn.text);
    char *rest = conn.text, *line = strsep(&rest, "\n"), *path = strchr(line, ' ');
    if (strnlen((const char *)data, head) < head || !path || path[1] != '/')
        return false;
    *path++ = '\0';
    if (!is_method(line) || !plain(path))
        return false;
    i->request_method = line;
    i->http_version = bits & 16 ? "1.0" : "1.1";
    i->request_uri = i->local_uri_raw = i->local_uri = path;
    char *query = strchr(path, '?');
    if (query)
        *query++ = '\0';
    i->query_string = query;
    strcpy(i->remote_addr, "192.0.2.9");
    if (who < TOKENS && !(more & 2)) {
        snprintf(authorization, sizeof authorization, "Bearer %s", token[who]);
        add_header("Authorization", authorization);
    }
    if (more & 1)
        add_header("Origin", ORIGIN);
    return read_headers(rest) &&
           read_body((const char *)data + body, size - body, (bits & 128) != 0);
}

/* --- after the request --- */

static void undo(void)
{
    eg_http_lock(&http->lock);
    const bool joinable = http->backup.joinable;
    const pthread_t thread = http->backup.thread;
    eg_http_unlock(&http->lock);
    if (joinable)
        pthread_join(thread, NULL);
    eg_http_lock(&http->lock);
    if (joinable) {
        must(http->backup.state == EG_BACKUP_DONE || http->backup.state == EG_BACKUP_FAILED);
        free(http->backup.to);
        memset(&http->backup, 0, sizeof http->backup);
    }
    must(http->idle_count == http->opened && http->exports == 0);
    eg_http_unlock(&http->lock);
    http->drained = 0;
    drains = 0;
    if (stepped) {
        if (machine->writing)
            storage->ops->rollback(storage);
        machine->writing = false;
        eg_machine_free(machine);
        new_machine();
        stepped = false;
    }
    if (changed_keys) {
        put_keys();
        eg_auth_keyring(auth, ring);
        changed_keys = false;
    }
}

/* See eg_request_is_event_source: such a client comes again when it is not answered. */
static bool may_close(unsigned bits)
{
    const char *accept = mg_get_header(&conn, "Accept");
    return bits & 64 && accept && strcasestr(accept, "text/event-stream") &&
           (mg_get_header(&conn, "Origin") || mg_get_header(&conn, "Sec-Fetch-Mode"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *query = NULL;
    if (!http)
        set_up();
    if (size < 2 || size > 100000)
        return 0;
    const unsigned bits = data[0], more = data[1], who = bits >> 1 & 7;
    if (read_request(data + 2, size - 2, bits, more)) {
        if (more & 2 && who < TOKENS) {
            must(asprintf(&query, "%s%stoken=%s",
                          conn.info.query_string ? conn.info.query_string : "",
                          conn.info.query_string ? "&" : "", token[who]) > 0);
            conn.info.query_string = query;
        }
        fails = bits & 32;
        full = more & 4;
        eg_metric_set(EG_M_draining, (bits & 64) != 0);
        const bool gone = conn.info.content_length > (long long)conn.body_n;
        const int status = bits & 1 ? eg_http_admin(http, &conn) : eg_http_public(http, &conn);
        if (getenv("FUZZ_STORY"))
            fprintf(stderr, "%s %s: %d, %zu bytes\n", conn.info.request_method,
                    conn.info.local_uri_raw, status, conn.out.n);
        must(drains <= 1);
        http_answer_check(&(struct http_answer){.method = conn.info.request_method,
                                                .path = conn.info.local_uri_raw,
                                                .status = status,
                                                .adopted = conn.adopted,
                                                .expects = mg_get_header(&conn, "Expect"),
                                                .gone = gone,
                                                .may_close = may_close(bits),
                                                .out = &conn.out});
        undo();
    }
    free(query);
    free(conn.text);
    free(conn.body);
    eg_buf_free(&conn.out);
    memset(&conn, 0, sizeof conn);
    return 0;
}
