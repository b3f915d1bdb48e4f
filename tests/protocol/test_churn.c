/*
 * Connections that come and go: nothing stays behind, and adoption never gives one connection
 * another one's socket. Sizes: PT_CONNECTIONS, PT_CHURN (rounds a thread).
 */
#include "pt.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

PT_SUITE_FOR(churn, 900);

struct visitor {
    pthread_t thread;
    int port;
    int id;
    int rounds;
    unsigned seed;
    bool fixed_port;
    const char *token;
    char session[64];
    int mixups;
    int greeted;
    char error[256];
};

/* Says hello for this visitor's session and proves that the answer is its own. */
static bool identify(struct visitor *v, struct tl_ws *ws, int round)
{
    char extra[160], id[64];
    bool ok = false;

    snprintf(extra, sizeof extra, "\"session_id\":\"%s\",\"create\":true", v->session);
    cJSON *hello = tl_hello(ws, "echo", v->token, extra, PT_WAIT_MS), *pong = NULL;
    if (!hello) {
        snprintf(v->error, sizeof v->error, "visitor %d: no hello_ok: %.150s", v->id,
                 tl_ws_error(ws));
        goto out;
    }
    if (!tl_is(hello, "session_id", v->session)) {
        v->mixups++;
        snprintf(v->error, sizeof v->error, "visitor %d got %.200s", v->id, tl_ws_data(ws));
        goto out;
    }
    snprintf(id, sizeof id, "v%d-%d", v->id, round);
    if (!tl_ws_sendf(ws, "{\"type\":\"ping\",\"id\":\"%s\"}", id))
        goto out;
    pong = tl_json_next(ws, PT_WAIT_MS, NULL);
    if (!pong || !tl_is(pong, "id", id)) {
        v->mixups++;
        snprintf(v->error, sizeof v->error, "visitor %d pinged %s, got %.150s", v->id, id,
                 pong ? tl_ws_data(ws) : "nothing");
        goto out;
    }
    v->greeted++;
    ok = true;
out:
    cJSON_Delete(hello);
    cJSON_Delete(pong);
    return ok;
}

/* Starts an upgrade and goes away in the middle of it. */
static void rude_start(struct visitor *v, struct tl_ws *ws, unsigned how)
{
    static const char half[] = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: web";
    struct tl_ws_opts o = {.port = v->port};
    bool sent = false;

    switch (how) {
    case 0: /* half a request, then a reset */
        sent = tl_ws_write(ws, half, sizeof half - 1);
        break;
    case 1: /* a whole request, reset before the 101 is read */
        sent = tl_ws_upgrade_send(ws, &o);
        break;
    default: /* a whole request, half-closed */
        sent = tl_ws_upgrade_send(ws, &o);
        shutdown(tl_ws_fd(ws), SHUT_WR);
        break;
    }
    (void)sent;
    tl_ws_reset(ws);
}

static void *visit(void *arg)
{
    struct visitor *v = arg;
    int local = 0;

    for (int round = 0; round < v->rounds && !v->error[0]; round++) {
        struct tl_ws_opts o = {.port = v->port};
        struct tl_ws *ws = tl_ws_tcp(NULL, v->port, local, 5000);
        if (!ws) /* the old pair of ports is still in TIME_WAIT */
            ws = tl_ws_tcp(NULL, v->port, local = 0, 5000);
        if (!ws) {
            snprintf(v->error, sizeof v->error, "visitor %d cannot connect", v->id);
            break;
        }
        if (v->fixed_port)
            local = tl_ws_local_port(ws);
        unsigned how = (unsigned)rand_r(&v->seed) % 8;
        if (how < 3) {
            rude_start(v, ws, how);
            continue;
        }
        if (!tl_ws_upgrade_send(ws, &o) || tl_ws_upgrade_recv(ws, PT_WAIT_MS) != 101) {
            snprintf(v->error, sizeof v->error, "visitor %d was not upgraded: %.150s", v->id,
                     tl_ws_head(ws));
            tl_ws_free(ws);
            break;
        }
        if (how != 3 && !identify(v, ws, round)) {
            tl_ws_free(ws);
            break;
        }
        if (how == 4) {
            shutdown(tl_ws_fd(ws), SHUT_WR); /* half-open, then gone */
            tl_ws_free(ws);
        } else if (how == 5 && tl_ws_close(ws, 1000, NULL)) {
            tl_ws_free(ws); /* does not wait for the answer */
        } else {
            tl_ws_reset(ws);
        }
    }
    return NULL;
}

/* Lets the gateway finish with connections that ended: descriptors are back at `fds` or fewer. */
static long settled_fds(long fds)
{
    int64_t end = tl_now_ms() + PT_WAIT_MS;
    long now;

    while ((now = tl_gate_fds(pt_gate)) > fds && tl_now_ms() < end)
        usleep(20000);
    return now;
}

PT_TEST(churn, identity_holds_through_resets_and_port_reuse)
{
    enum { VISITORS = 12 };
    struct visitor v[VISITORS];
    int greeted = 0;

    pt_start("handshake_timeout_ms = 3000;");
    const char *token = pt_alice();
    pt_drop(pt_client("echo", NULL));
    long fds = tl_gate_fds(pt_gate);
    for (int i = 0; i < VISITORS; i++) {
        v[i] = (struct visitor){.port = tl_gate_port(pt_gate),
                                .id = i,
                                .token = token,
                                .rounds = (int)pt_size("PT_CHURN", 150),
                                .seed = (unsigned)i * 77 + 1,
                                .fixed_port = i % 2};
        snprintf(v[i].session, sizeof v[i].session, "visitor-%d", i);
        pthread_create(&v[i].thread, NULL, visit, &v[i]);
    }
    for (int i = 0; i < VISITORS; i++)
        pthread_join(v[i].thread, NULL);
    for (int i = 0; i < VISITORS; i++) {
        cr_assert(!v[i].error[0], "%s", v[i].error);
        greeted += v[i].greeted;
    }
    cr_assert(greeted > VISITORS, "only %d were greeted", greeted);
    long now = settled_fds(fds + 2);
    cr_assert(now <= fds + 2, "%ld descriptors, %ld before", now, fds);
    pt_client("echo", NULL);
}

/* Opens and closes `count` connections, `batch` at a time, in every manner. */
static void open_and_close(const char *sid, int count)
{
    enum { BATCH = 50 };
    struct tl_ws *ws[BATCH];

    for (int done = 0; done < count; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            struct tl_ws_opts o = {.port = tl_gate_port(pt_gate)};
            ws[i] = tl_ws_open(&o, NULL);
            cr_assert(ws[i], "connection %d", done + i);
            if (i % 5 == 0)
                continue; /* never says hello */
            cJSON *h = tl_hello(ws[i], "echo", pt_alice(), sid, PT_WAIT_MS);
            cr_assert(h && tl_is(h, "type", "hello_ok"), "connection %d", done + i);
            cJSON_Delete(h);
        }
        for (int i = 0; i < BATCH; i++) {
            if (i % 5 == 1) {
                tl_ws_close(ws[i], 1000, NULL);
                tl_ws_wait_close(ws[i], PT_WAIT_MS);
            }
            if (i % 5 == 2)
                tl_ws_text(ws[i], "{\"type\":\"leave\"}");
            if (i % 5 == 3)
                tl_ws_reset(ws[i]);
            else
                tl_ws_free(ws[i]);
        }
    }
}

PT_TEST(churn, ten_thousand_connections_leave_nothing_behind)
{
    int count = (int)pt_size("PT_CONNECTIONS", 3000);

    pt_start(NULL);
    pt_drop(pt_client("echo", NULL));
    const char *sid = pt_sid();
    long fds = tl_gate_fds(pt_gate);
    open_and_close(sid, count / 2); /* warms every pool and thread */
    long now = settled_fds(fds + 2);
    cr_assert(now <= fds + 2, "%ld descriptors, %ld before", now, fds);
    long rss = tl_gate_rss(pt_gate);
    open_and_close(sid, count);
    now = settled_fds(fds + 2);
    cr_assert(now <= fds + 2, "%ld descriptors, %ld before", now, fds);
    long grown = tl_gate_rss(pt_gate) - rss;
    cr_assert(tl_gate_sanitized() || grown < 4 * 1024 * 1024, "grew by %ld bytes", grown);
}

PT_TEST(churn, many_at_once)
{
    int count = (int)pt_size("PT_CONNECTIONS", 3000);
    struct tl_ws **ws = calloc((size_t)count, sizeof *ws);

    if (count > 8000)
        count = 8000; /* two descriptors each, on one machine */
    pt_start(NULL);
    pt_drop(pt_client("echo", NULL));
    const char *sid = pt_sid();
    long fds = tl_gate_fds(pt_gate);
    for (int i = 0; i < count; i++) {
        struct tl_ws_opts o = {.port = tl_gate_port(pt_gate)};
        ws[i] = tl_ws_open(&o, NULL);
        cr_assert(ws[i], "connection %d", i);
        cJSON *h = tl_hello(ws[i], "echo", pt_alice(), sid, PT_WAIT_MS);
        cr_assert(h && tl_is(h, "type", "hello_ok"), "connection %d", i);
        cJSON_Delete(h);
    }
    /* All are live and each is itself; pings are sent first, then answered. */
    for (int i = 0; i < count; i++)
        cr_assert(tl_ws_sendf(ws[i], "{\"type\":\"ping\",\"id\":\"n%d\"}", i));
    for (int i = 0; i < count; i++) {
        cJSON *o = tl_json_wait(ws[i], "pong", PT_WAIT_MS);
        cr_assert(o && tl_is(o, "id", pt_f("n%d", i)), "connection %d", i);
        cJSON_Delete(o);
    }
    for (int i = 0; i < count; i++)
        tl_ws_free(ws[i]);
    long now = settled_fds(fds + 2);
    cr_assert(now <= fds + 2, "%ld descriptors, %ld before", now, fds);
    free(ws);
}
