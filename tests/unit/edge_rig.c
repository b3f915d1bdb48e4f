/*
 * edge_rig.c - see edge_rig.h.
 */
#include "edge_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/pool.h"

#define WAIT_MS 5000

static void take_commands(void *arg, struct eg_cmd *first, struct eg_cmd *last)
{
    struct rig *const rig = arg;
    pthread_mutex_lock(&rig->lock);
    last->node.next = NULL;
    if (rig->last) {
        rig->last->node.next = &first->node;
    } else {
        rig->first = first;
    }
    rig->last = last;
    pthread_cond_signal(&rig->wake);
    pthread_mutex_unlock(&rig->lock);
}

/* The log is reached through this: readers get no argument of ours. */
static struct rig *the_rig;

static enum eg_err log_open(const char *dir, void **out)
{
    (void)dir;
    *out = the_rig;
    return EG_OK;
}

static void log_close(void *log)
{
    (void)log;
}

static enum eg_err log_row(struct rig *rig, int64_t sid, struct eg_session_row *out)
{
    if (sid < 1 || sid > RIG_SESSIONS) {
        return EG_ENOTFOUND;
    }
    *out = (struct eg_session_row){.sid = sid, .state = EG_SESSION_OPEN};
    snprintf(out->id, sizeof out->id, "s%d", (int)sid);
    snprintf(out->agent, sizeof out->agent, "echo");
    pthread_mutex_lock(&rig->lock);
    out->cursor = rig->log[sid - 1].count;
    out->oldest = rig->log[sid - 1].oldest;
    pthread_mutex_unlock(&rig->lock);
    return EG_OK;
}

static enum eg_err log_session(void *log, struct eg_slice id, struct eg_session_row *out)
{
    for (int s = 1; s <= RIG_SESSIONS; s++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", s);
        if (eg_slice_is(id, name)) {
            return log_row(log, s, out);
        }
    }
    return EG_ENOTFOUND;
}

static enum eg_err log_session_sid(void *log, int64_t sid, struct eg_session_row *out)
{
    return log_row(log, sid, out);
}

static enum eg_err log_events(void *log, const struct eg_page *page, eg_event_fn *fn, void *arg)
{
    struct rig *const rig = log;
    const struct rig_log *const l = &rig->log[page->sid - 1];
    size_t bytes = 0;
    int n = 0;
    if (rig->before_read) {
        rig->before_read();
    }
    pthread_mutex_lock(&rig->lock);
    rig->reads++;
    if (rig->log_broken) {
        pthread_mutex_unlock(&rig->lock);
        return EG_EIO;
    }
    const uint64_t from = page->from < l->oldest ? l->oldest : page->from;
    const uint64_t to = page->to > l->count ? l->count : page->to;
    for (uint64_t i = 0; from + i <= to && n < page->max; i++, n++) {
        const uint64_t cursor = page->descending ? to - i : from + i;
        const struct eg_slice body = eg_bytes_slice(l->event[cursor - 1]);
        if (n && bytes + body.n > page->max_bytes) {
            break;
        }
        bytes += body.n;
        fn(arg, cursor, body);
    }
    pthread_mutex_unlock(&rig->lock);
    return EG_OK;
}

static const struct eg_log_ops log_ops = {.open = log_open,
                                          .close = log_close,
                                          .session = log_session,
                                          .session_sid = log_session_sid,
                                          .events = log_events};

struct rig *rig_new(void)
{
    struct rig *const rig = calloc(1, sizeof *rig);
    char kid[64], path[256], why[256];
    pthread_mutex_init(&rig->lock, NULL);
    pthread_cond_init(&rig->wake, NULL);
    strcpy(rig->dir, "/tmp/edge-rig-XXXXXX");
    cr_assert_not_null(mkdtemp(rig->dir));
    cr_assert_eq(eg_key_generate(rig->dir, 1700000000000, kid, path, sizeof path), EG_OK);
    cr_assert_eq(eg_keyring_load(rig->dir, NULL, &rig->ring, why, sizeof why), EG_OK, "%s", why);
    unlink(path);
    rmdir(rig->dir);
    rig->settings = eg_settings_new();
    for (int s = 0; s < RIG_SESSIONS; s++) {
        rig->log[s].oldest = 1;
    }
    the_rig = rig;
    return rig;
}

static void count_rest(void *arg, int64_t us)
{
    (void)us;
    __atomic_add_fetch(&((struct rig *)arg)->rest_count, 1, __ATOMIC_ACQ_REL);
}

static void make_reactors(struct rig *rig, unsigned reactors)
{
    cr_assert_eq(eg_auth_new(rig->ring, rig->settings, &rig->auth), EG_OK);
    cr_assert_eq(eg_limits_new(rig->settings, &rig->limits), EG_OK);
    const struct eg_reactors_config config = {.count = reactors,
                                              .settings = rig->settings,
                                              .auth = rig->auth,
                                              .limits = rig->limits,
                                              .dir = rig->dir};
    const struct eg_reactor_seams seams = {.post = take_commands,
                                           .rest = rig->counts_rests ? count_rest : NULL,
                                           .log = &log_ops,
                                           .arg = rig};
    cr_assert_eq(eg_reactors_new(&config, &rig->rs), EG_OK);
    eg_reactors_seams(rig->rs, &seams);
}

void rig_run(struct rig *rig, unsigned reactors)
{
    make_reactors(rig, reactors);
    cr_assert_eq(eg_reactors_start(rig->rs, NULL), EG_OK);
}

struct rig *rig_start(void)
{
    struct rig *const rig = rig_new();
    rig_run(rig, 1);
    return rig;
}

void rig_run_by_hand(struct rig *rig)
{
    make_reactors(rig, 1);
    cr_assert_eq(eg_pool_start(&log_ops, rig->dir, 1, &rig->rs->pool), EG_OK);
}

void rig_turn(struct rig *rig)
{
    struct eg_reactor *const r = &rig->rs->reactor[0];
    if (!rig->rests) {
        r->rest_until_us = 0; /* how long it was does not matter to a test */
    }
    eg_loop_turn(r, false);
}

void rig_rest(struct rig *rig)
{
    rig->rests = true;
    rig->rs->reactor[0].rest_until_us = eg_clock_mono_us() + 60000000;
}

void rig_wake(struct rig *rig)
{
    rig->rests = false;
    rig->rs->reactor[0].rest_until_us = 0;
}

void rig_free(struct rig *rig)
{
    struct eg_cmd *cmd;
    if (rig->rs && !rig->rs->reactor[0].started) { /* by hand: the end, too */
        eg_mail_post_own(&rig->rs->reactor[0], EG_MAIL_STOP);
        eg_loop_turn(&rig->rs->reactor[0], false);
    }
    if (rig->rs) {
        eg_reactors_end(rig->rs);
        eg_reactors_stop(rig->rs);
    }
    while ((cmd = rig_try_cmd(rig))) {
        eg_cmd_free(cmd);
    }
    eg_auth_free(rig->auth);
    eg_limits_free(rig->limits);
    eg_keyring_unref(rig->ring);
    eg_settings_unref(rig->settings);
    for (int s = 0; s < RIG_SESSIONS; s++) {
        for (uint64_t i = 0; i < rig->log[s].count; i++) {
            eg_bytes_unref(rig->log[s].event[i]);
        }
        free(rig->log[s].event);
        free(rig->log[s].stream);
    }
    free(rig);
    eg_clock_replace(NULL);
}

static int64_t fake_ms; /* atomic */

static struct eg_now fake_now(void)
{
    const int64_t ms = __atomic_load_n(&fake_ms, __ATOMIC_ACQUIRE);
    return (struct eg_now){.mono_ms = ms, .wall_ms = 1800000000000 + ms};
}

void rig_fake_clock(void)
{
    fake_ms = 1000000;
    eg_clock_replace(fake_now);
}

void rig_tick(struct rig *rig, int64_t ms)
{
    __atomic_add_fetch(&fake_ms, ms, __ATOMIC_ACQ_REL);
    eg_reactors_judge(rig->rs); /* harmless, and wakes them */
}

char *rig_token(struct rig *rig, const char *sub, const char *scope, const char *agents,
                int64_t ttl_s)
{
    struct eg_buf out = {0};
    char *list[] = {(char *)(uintptr_t)agents, NULL};
    const int64_t now_s = eg_clock_now().wall_ms / 1000;
    struct eg_claims claims = {.sub = (char *)(uintptr_t)(sub ? sub : "ann"),
                               .iat_s = now_s,
                               .exp_s = now_s + ttl_s,
                               .agents = agents ? list : NULL};
    cr_assert_eq(eg_scopes_parse(scope, &claims.scopes), EG_OK);
    cr_assert_eq(eg_token_mint(rig->ring, &claims, &out), EG_OK);
    return eg_buf_take(&out);
}

struct client *rig_connect(struct rig *rig, const struct eg_adopted *a)
{
    int fd[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    return rig_connect_over(rig, a, fd);
}

struct client *rig_connect_over(struct rig *rig, const struct eg_adopted *a, const int fd[2])
{
    struct eg_adopted mine = {.origin_allowed = true, .since = -1};
    struct client *const c = calloc(1, sizeof *c);
    if (a) {
        mine = *a;
    }
    mine.fd = fd[0];
    c->fd = fd[1];
    eg_reactors_adopt(rig->rs, &mine);
    return c;
}

void client_free(struct client *c)
{
    close(c->fd);
    eg_buf_free(&c->in);
    free(c);
}

void client_bytes(struct client *c, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        const ssize_t sent = send(c->fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd pfd = {.fd = c->fd, .events = POLLOUT};
            cr_assert_gt(poll(&pfd, 1, WAIT_MS), 0, "the peer does not read");
            continue;
        }
        if (sent < 0) {
            return; /* closed by the other side: what it said is read later */
        }
        at += sent;
        n -= (size_t)sent;
    }
}

void client_frame(struct client *c, unsigned b0, const void *payload, size_t n)
{
    static const uint8_t mask[4] = {0xa1, 0x02, 0x3c, 0x9d};
    struct eg_buf b = {0};
    eg_buf_char(&b, (char)b0);
    if (n < 126) {
        eg_buf_char(&b, (char)(0x80 | n));
    } else if (n < 65536) {
        eg_buf_char(&b, (char)0xfe);
        eg_buf_char(&b, (char)(n >> 8));
        eg_buf_char(&b, (char)n);
    } else {
        eg_buf_char(&b, (char)0xff);
        for (int i = 7; i >= 0; i--) {
            eg_buf_char(&b, (char)((uint64_t)n >> (8 * i)));
        }
    }
    eg_buf_add(&b, mask, 4);
    for (size_t i = 0; i < n; i++) {
        eg_buf_char(&b, (char)(((const uint8_t *)payload)[i] ^ mask[i % 4]));
    }
    client_bytes(c, b.p, b.n);
    eg_buf_free(&b);
}

void client_text(struct client *c, const char *json)
{
    client_frame(c, 0x81, json, strlen(json));
}

void client_hello(struct rig *rig, struct client *c, const char *type, const char *members,
                  const char *scope)
{
    char text[4096];
    char *const token = scope ? rig_token(rig, NULL, scope, "echo", 3600) : NULL;
    snprintf(text, sizeof text, "{\"type\":\"%s\",%s%s%s%s}", type, members,
             token ? ",\"token\":\"" : "", token ? token : "", token ? "\"" : "");
    free(token);
    client_text(c, text);
}

void rig_has(const char *text, const char *part, bool want, int line)
{
    cr_expect((strstr(text, part) != NULL) == want, "line %d: %s%s in %s", line, want ? "no " : "",
              part, text);
}

void client_poll(struct client *c)
{
    char b[16384];
    ssize_t n;
    while ((n = recv(c->fd, b, sizeof b, 0)) > 0) {
        eg_buf_add(&c->in, b, (size_t)n);
    }
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        c->eof = true;
    }
}

/* The next whole frame in what has come. */
static bool parse(struct client *c, unsigned *opcode, size_t *payload, size_t *n)
{
    const uint8_t *const h = (const uint8_t *)c->in.p + c->at;
    const size_t have = c->in.n - c->at;
    size_t head = 2;
    if (have < 2) {
        return false;
    }
    cr_assert_eq(h[0] & 0x70, 0, "no reserved bit is ever sent");
    cr_assert_neq(h[0] & 0x80, 0, "no fragment is ever sent");
    cr_assert_eq(h[1] & 0x80, 0, "a server does not mask");
    *n = h[1] & 0x7f;
    if (*n >= 126) {
        const size_t more = *n == 126 ? 2 : 8;
        if (have < 2 + more) {
            return false;
        }
        *n = 0;
        for (size_t i = 0; i < more; i++) {
            *n = *n << 8 | h[2 + i];
        }
        head += more;
    }
    if (have < head + *n) {
        return false;
    }
    *opcode = h[0] & 0x0f;
    *payload = c->at + head;
    return true;
}

const char *client_try(struct client *c, unsigned *opcode)
{
    static char *copy;
    unsigned op;
    size_t at, n;
    client_poll(c);
    if (!parse(c, &op, &at, &n)) {
        return NULL;
    }
    c->at = at + n;
    if (opcode) {
        *opcode = op;
    } else {
        cr_assert_eq(op, 1, "a text frame was expected, opcode %u came", op);
    }
    free(copy);
    copy = malloc(n + 1);
    memcpy(copy, c->in.p + at, n);
    copy[n] = '\0';
    return copy;
}

const char *client_next(struct client *c, unsigned *opcode)
{
    for (;;) {
        const char *const got = client_try(c, opcode);
        if (got) {
            return got;
        }
        cr_assert(!c->eof, "the connection ended");
        struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
        cr_assert_gt(poll(&pfd, 1, WAIT_MS), 0, "nothing came");
    }
}

unsigned client_close_code(struct client *c, char reason[126])
{
    for (;;) {
        unsigned op = 0;
        const uint8_t *const p = (const uint8_t *)client_next(c, &op);
        if (op == 8) {
            if (reason) {
                snprintf(reason, 126, "%s", p[0] || p[1] ? (const char *)p + 2 : "");
            }
            return (unsigned)p[0] << 8 | p[1];
        }
    }
}

void client_eof(struct client *c)
{
    for (;;) {
        client_poll(c);
        if (c->eof) {
            return;
        }
        struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
        cr_assert_gt(poll(&pfd, 1, WAIT_MS), 0, "the connection does not end");
    }
}

struct eg_cmd *rig_try_cmd(struct rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    struct eg_cmd *const cmd = rig->first;
    if (cmd) {
        rig->first = (struct eg_cmd *)cmd->node.next;
        if (!rig->first) {
            rig->last = NULL;
        }
    }
    pthread_mutex_unlock(&rig->lock);
    return cmd;
}

struct eg_cmd *rig_cmd(struct rig *rig)
{
    struct timespec until;
    int err = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&rig->lock);
    while (!rig->first && err == 0) {
        err = pthread_cond_timedwait(&rig->wake, &rig->lock, &until);
    }
    pthread_mutex_unlock(&rig->lock);
    struct eg_cmd *const cmd = rig_try_cmd(rig);
    cr_assert_not_null(cmd, "no command came");
    return cmd;
}

struct eg_cmd *rig_attach(struct rig *rig)
{
    for (;;) {
        struct eg_cmd *const cmd = rig_cmd(rig);
        if (cmd->kind != EG_CMD_DETACH) {
            cr_assert_eq(cmd->kind, EG_CMD_ATTACH);
            return cmd;
        }
        eg_cmd_free(cmd);
    }
}

static void release_one(struct rig *rig, unsigned reactor, const struct eg_out *out)
{
    struct eg_release *const r = calloc(1, sizeof *r);
    r->out = malloc(sizeof *r->out);
    r->out[0] = *out;
    r->n = r->cap = 1;
    eg_reactors_release(rig->rs, reactor, r);
}

void rig_out(struct rig *rig, struct eg_out out)
{
    if (out.kind != EG_OUT_EVENT && out.kind != EG_OUT_NOTICE) {
        release_one(rig, EG_CONN_REACTOR(out.conn), &out);
        return;
    }
    for (unsigned i = 0; i < rig->rs->count; i++) {
        eg_bytes_ref(out.bytes);
        release_one(rig, i, &out);
    }
    eg_bytes_unref(out.bytes);
}

void rig_welcome(struct rig *rig, struct eg_cmd *cmd, struct eg_welcome w)
{
    struct eg_welcome *const copy = malloc(sizeof *copy);
    cr_assert_eq(cmd->kind, EG_CMD_ATTACH);
    *copy = w;
    snprintf(copy->epoch, sizeof copy->epoch, "epoch-1");
    if (!w.worker && !copy->session_id[0]) {
        snprintf(copy->session_id, sizeof copy->session_id, "s%d", (int)w.sid);
    }
    snprintf(copy->agent_id, sizeof copy->agent_id, "echo");
    rig_out(rig, (struct eg_out){.kind = EG_OUT_WELCOME,
                                 .conn = cmd->conn,
                                 .sid = w.sid,
                                 .cursor = w.cursor,
                                 .welcome = copy});
    eg_cmd_free(cmd);
}

struct eg_bytes *rig_append(struct rig *rig, int s, const char *type, const char *data)
{
    struct rig_log *const l = &rig->log[s - 1];
    char id[40], session[8], tail[256];
    const uint64_t cursor = l->count + 1;
    snprintf(id, sizeof id, "e-%d-%llu", s, (unsigned long long)cursor);
    snprintf(session, sizeof session, "s%d", s);
    snprintf(tail, sizeof tail, "\"data\":%s", data);
    const struct eg_event e = {.type = eg_slice_cstr(type),
                               .session_id = eg_slice_cstr(session),
                               .event_id = eg_slice_cstr(id),
                               .source = EG_LIT("agent:echo"),
                               .cursor = cursor,
                               .timestamp_ms = 1700000000000 + (int64_t)cursor,
                               .tail = eg_slice_cstr(tail)};
    struct eg_bytes *const bytes = eg_event_make(&e);
    cr_assert_not_null(bytes);
    pthread_mutex_lock(&rig->lock);
    if ((l->count & (l->count - 1)) == 0) {
        const size_t cap = l->count ? l->count * 2 : 1;
        l->event = realloc(l->event, cap * sizeof *l->event);
        l->stream = realloc(l->stream, cap * sizeof *l->stream);
    }
    l->event[l->count] = bytes;
    l->stream[l->count] = eg_event_is_stream(eg_slice_cstr(type));
    l->count = cursor;
    pthread_mutex_unlock(&rig->lock);
    return bytes;
}

struct client *rig_join(struct rig *rig, const char *scope, const char *caps, eg_conn_id *id)
{
    struct client *const c = rig_connect(rig, NULL);
    char hello[2048];
    char *const token = rig_token(rig, NULL, scope, NULL, 3600);
    snprintf(hello, sizeof hello,
             "{\"type\":\"hello\",\"agent_id\":\"echo\",\"capabilities\":[%s],\"token\":\"%s\"}",
             caps, token);
    free(token);
    client_text(c, hello);
    struct eg_cmd *const cmd = rig_attach(rig);
    if (id) {
        *id = cmd->conn;
    }
    rig_welcome(rig, cmd,
                (struct eg_welcome){.sid = 1,
                                    .cursor = rig->log[0].count,
                                    .sequence = rig->log[0].count,
                                    .oldest = rig->log[0].oldest});
    const char *const ok = client_next(c, NULL);
    cr_assert_not_null(strstr(ok, "\"type\":\"hello_ok\""), "%s", ok);
    return c;
}

eg_conn_id rig_join_by_hand(struct rig *rig, struct client *c)
{
    rig_turn(rig);
    client_hello(rig, c, "hello", AGENT, "read write");
    rig_turn(rig);
    struct eg_cmd *const cmd = rig_attach(rig);
    const eg_conn_id id = cmd->conn;
    rig_welcome(rig, cmd, (struct eg_welcome){.sid = 1});
    rig_turn(rig);
    HAS(client_next(c, NULL), "hello_ok");
    return id;
}
