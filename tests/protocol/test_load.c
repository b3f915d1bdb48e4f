/*
 * Resume under load, and kill -9 under load. Several publishers and followers on one session, each
 * a thread with its own connections; followers drop and resume at random. Sizes: PT_LOAD messages,
 * PT_KILLS rounds.
 */
#include "pt.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

PT_SUITE_FOR(load, 900);

enum { MAX_PUBLISHERS = 4, MAX_FOLLOWERS = 6 };

struct shared {
    int port;
    const char *token;
    const char *hello; /* members of hello that name the session */
    atomic_bool stop;
};

struct publisher {
    pthread_t thread;
    struct shared *s;
    int id;
    int first, count; /* message numbers first..first+count-1 */
    int window;
    int64_t *cursor; /* by number, 0: not acknowledged */
    atomic_int acked;
    bool until_broken; /* a broken connection ends it quietly */
    char error[256];
};

struct follower {
    pthread_t thread;
    struct shared *s;
    unsigned seed;
    int64_t until;
    int64_t since;
    int resumes;
    char error[256];
};

/* A greeted connection, or NULL. */
static struct tl_ws *greet(struct shared *s, const char *extra, cJSON **hello)
{
    struct tl_ws_opts o = {.port = s->port};
    char members[512];
    struct tl_ws *ws = tl_ws_open(&o, NULL);

    snprintf(members, sizeof members, "%s%s", s->hello, extra);
    *hello = ws ? tl_hello(ws, "echo", s->token, members, PT_WAIT_MS) : NULL;
    if (*hello && tl_is(*hello, "type", "hello_ok"))
        return ws;
    tl_ws_free(ws);
    return NULL;
}

/* Takes one answer of a publisher. False ends it. */
static bool take_answer(struct publisher *p, struct tl_ws *ws, int timeout_ms)
{
    int why;
    cJSON *o = tl_json_next(ws, timeout_ms, &why);

    if (!o) {
        if (!p->until_broken || why == TL_TIMEOUT || why == TL_BAD)
            snprintf(p->error, sizeof p->error, "publisher %d got %s %d", p->id, tl_json_why(why),
                     tl_ws_close_code(ws));
        return false;
    }
    if (tl_is(o, "type", "response") && tl_is(o, "status", "accepted")) {
        int n = atoi(tl_str(o, "message_id") + 1);
        if (n < p->first || n >= p->first + p->count)
            snprintf(p->error, sizeof p->error, "answer to a strange id %s",
                     tl_str(o, "message_id"));
        else if (p->cursor[n] && p->cursor[n] != tl_int(o, "cursor"))
            snprintf(p->error, sizeof p->error, "%s has two cursors", tl_str(o, "message_id"));
        else {
            p->cursor[n] = tl_int(o, "cursor");
            atomic_fetch_add(&p->acked, 1);
        }
    } else if (tl_is(o, "type", "error")) {
        snprintf(p->error, sizeof p->error, "publisher got %.200s", tl_ws_data(ws));
    }
    cJSON_Delete(o);
    return !p->error[0];
}

/* Publishes its numbers with a window of unanswered ones. */
static void *publish(void *arg)
{
    struct publisher *p = arg;
    cJSON *hello = NULL;
    int sent = 0;
    struct tl_ws *ws = greet(p->s, "", &hello);

    cJSON_Delete(hello);
    if (!ws && !p->until_broken)
        snprintf(p->error, sizeof p->error, "publisher %d was not greeted", p->id);
    int before = atomic_load(&p->acked);
    while (ws && atomic_load(&p->acked) - before < p->count) {
        while (sent < p->count && sent - (atomic_load(&p->acked) - before) < p->window) {
            int n = p->first + sent++;
            if (!tl_ws_sendf(ws,
                             "{\"type\":\"message\",\"content\":{\"n\":%d},\"message_id\":\"m%d\"}",
                             n, n)) {
                if (!p->until_broken)
                    snprintf(p->error, sizeof p->error, "cannot send: %.200s", tl_ws_error(ws));
                goto out;
            }
        }
        if (!take_answer(p, ws, 30000))
            break;
    }
out:
    tl_ws_free(ws);
    return NULL;
}

/* Takes one frame of a follower, checks that its cursor is the next. False: connection over. */
static bool follow_one(struct follower *f, struct tl_ws *ws)
{
    int kind = tl_ws_recv(ws, 30000);

    if (kind != TL_TEXT) {
        if (kind == TL_TIMEOUT || kind == TL_BAD)
            snprintf(f->error, sizeof f->error, "follower at %d got %s", (int)f->since,
                     tl_json_why(kind));
        return false;
    }
    const char *text = tl_ws_data(ws);
    if (!strncmp(text, "{\"type\":\"replay_end\"", 20) || !strncmp(text, "{\"type\":\"ping\"", 14))
        return true;
    int64_t seq = tl_scan_int(text, "seq", -1);
    if (seq != f->since + 1) {
        snprintf(f->error, sizeof f->error, "follower after %d got %.150s", (int)f->since, text);
        return false;
    }
    f->since = seq;
    return true;
}

/* Follows up to `until`, dropping its connection at random and resuming. */
static void *follow(void *arg)
{
    struct follower *f = arg;
    char extra[64];

    while (f->since < f->until && !f->error[0]) {
        cJSON *hello = NULL;
        snprintf(extra, sizeof extra, ",\"since\":%d", (int)f->since);
        struct tl_ws *ws = greet(f->s, extra, &hello);
        if (ws && tl_bool(hello, "resync_required"))
            snprintf(f->error, sizeof f->error, "a gap at %d", (int)f->since);
        else if (!ws)
            snprintf(f->error, sizeof f->error, "follower was not greeted");
        cJSON_Delete(hello);
        int64_t leave_at = f->since + 1 + rand_r(&f->seed) % 150;
        while (ws && f->since < f->until && f->since < leave_at && follow_one(f, ws)) {
        }
        f->resumes++;
        if (f->seed & 1)
            tl_ws_reset(ws);
        else
            tl_ws_free(ws);
    }
    return NULL;
}

PT_TEST(load, followers_that_drop_and_resume_see_each_event_once_in_order)
{
    int total = (int)pt_size("PT_LOAD", 2000), publishers = 3, followers = 4;
    struct publisher p[MAX_PUBLISHERS] = {0};
    struct follower f[MAX_FOLLOWERS] = {0};

    pt_start(NULL);
    struct shared s = {.port = tl_gate_port(pt_gate), .token = pt_alice()};
    pt_drop(pt_client("echo", NULL));
    s.hello = pt_sid();
    int each = total / publishers;
    total = each * publishers;
    int64_t *cursor = calloc((size_t)total + 1, sizeof *cursor);
    for (int i = 0; i < followers; i++) {
        f[i] = (struct follower){.s = &s, .seed = (unsigned)i + 1, .until = total};
        pthread_create(&f[i].thread, NULL, follow, &f[i]);
    }
    for (int i = 0; i < publishers; i++) {
        p[i] = (struct publisher){
            .s = &s, .id = i, .first = i * each, .count = each, .window = 8, .cursor = cursor};
        pthread_create(&p[i].thread, NULL, publish, &p[i]);
    }
    for (int i = 0; i < publishers; i++)
        pthread_join(p[i].thread, NULL);
    for (int i = 0; i < followers; i++)
        pthread_join(f[i].thread, NULL);
    for (int i = 0; i < publishers; i++)
        cr_assert(!p[i].error[0], "%s", p[i].error);
    for (int i = 0; i < followers; i++) {
        cr_assert(!f[i].error[0], "%s (after %d resumes)", f[i].error, f[i].resumes);
        cr_assert_eq(f[i].since, total);
    }
    char *used = calloc((size_t)total + 1, 1);
    for (int n = 0; n < total; n++) {
        cr_assert(cursor[n] >= 1 && cursor[n] <= total && !used[cursor[n]], "m%d at %d", n,
                  (int)cursor[n]);
        used[cursor[n]] = 1;
    }
    free(used);
    free(cursor);
}

/*
 * Reads the whole log and compares: cursors 1..head without holes, each acknowledged number at its
 * cursor, no number twice. Returns the head.
 */
static int64_t compare_log(struct shared *s, const int64_t *cursor, int count)
{
    cJSON *hello = NULL;
    struct tl_ws *ws = greet(s, ",\"since\":0", &hello);
    int64_t *found = calloc((size_t)count, sizeof *found);

    cr_assert(ws, "not greeted after a restart: %s", pt_text(hello));
    int64_t head = tl_int(hello, "cursor"), at = 0;
    cJSON_Delete(hello);
    while (at < head) {
        cr_assert_eq(tl_ws_recv(ws, PT_WAIT_MS), TL_TEXT);
        int64_t seq = tl_scan_int(tl_ws_data(ws), "seq", -1);
        cr_assert_eq(seq, at + 1, "after %d came %s", (int)at, tl_ws_data(ws));
        at = seq;
        int64_t n = tl_scan_int(tl_ws_data(ws), "n", -1);
        cr_assert(n >= 0 && n < count && !found[n], "%s", tl_ws_data(ws));
        found[n] = seq;
    }
    for (int n = 0; n < count; n++)
        cr_assert(!cursor[n] || cursor[n] == found[n],
                  "m%d was acknowledged at %d, the log has it at %d", n, (int)cursor[n],
                  (int)found[n]);
    tl_ws_free(ws);
    free(found);
    return head;
}

PT_TEST(load, kill_under_load_loses_nothing_acknowledged)
{
    int rounds = (int)pt_size("PT_KILLS", 5), publishers = 4, each = 3000;
    int count = rounds * publishers * each;
    int64_t *cursor = calloc((size_t)count, sizeof *cursor);
    struct publisher p[MAX_PUBLISHERS];
    unsigned seed = (unsigned)pt_size("PT_SEED", 1);

    pt_start(NULL);
    struct shared s = {.token = pt_alice()};
    pt_drop(pt_client("echo", NULL));
    s.hello = pt_sid();
    for (int round = 0; round < rounds; round++) {
        int acked, wanted = 50 + (int)(rand_r(&seed) % 1500);
        s.port = tl_gate_port(pt_gate);
        for (int i = 0; i < publishers; i++) {
            p[i] = (struct publisher){.s = &s,
                                      .id = i,
                                      .count = each,
                                      .window = 16,
                                      .first = (round * publishers + i) * each,
                                      .cursor = cursor,
                                      .until_broken = true};
            pthread_create(&p[i].thread, NULL, publish, &p[i]);
        }
        int64_t end = tl_now_ms() + 60000;
        do {
            usleep(200);
            acked = 0;
            for (int i = 0; i < publishers; i++)
                acked += atomic_load(&p[i].acked);
        } while (acked < wanted && tl_now_ms() < end);
        tl_gate_kill(pt_gate);
        for (int i = 0; i < publishers; i++)
            pthread_join(p[i].thread, NULL);
        for (int i = 0; i < publishers; i++)
            cr_assert(!p[i].error[0], "round %d: %s", round, p[i].error);
        cr_assert(acked >= wanted, "only %d acknowledged", acked);
        cr_assert(tl_gate_start(pt_gate), "%s", tl_gate_error(pt_gate));
        s.port = tl_gate_port(pt_gate);
        int64_t head = compare_log(&s, cursor, count);
        /* What was sent and not answered is repeated: it must not be stored twice. */
        struct publisher again = {
            .s = &s, .first = p[0].first, .count = 100, .window = 10, .cursor = cursor};
        publish(&again);
        cr_assert(!again.error[0], "%s", again.error);
        cr_assert(compare_log(&s, cursor, count) >= head);
    }
    /* The chain of hashes over the log holds too. */
    cr_assert_eq(tl_gate_stop(pt_gate, 30000), 0);
    const char *args[] = {"verify", "--data", tl_gate_dir(pt_gate), NULL};
    char *out = NULL, *err = NULL;
    int code = tl_gate_run(pt_gate, args, &out, &err, 60000);
    cr_assert_eq(code, 0, "verify: %d %s%s", code, out, err);
    free(out);
    free(err);
    free(cursor);
}

/* A worker that serves until its connection breaks, or the flag says stop. */
static void *serve(void *arg)
{
    struct shared *s = arg;
    struct tl_ws_opts o = {.port = s->port};
    struct tl_ws *ws = tl_ws_open(&o, NULL);
    cJSON *hello =
        ws ? tl_hello(ws, "echo", s->token, "\"role\":\"agent\",\"concurrency\":4", PT_WAIT_MS)
           : NULL;

    cJSON_Delete(hello);
    while (hello && !atomic_load(&s->stop)) {
        int why;
        cJSON *t = tl_json_next(ws, 50, &why);
        if (!t && why != TL_TIMEOUT)
            break;
        if (t && tl_is(t, "type", "turn")) {
            char on[200];
            snprintf(on, sizeof on, "\"session_id\":\"%s\",\"turn\":%d", tl_str(t, "session_id"),
                     (int)tl_int(t, "turn"));
            tl_ws_sendf(ws, "{\"type\":\"emit\",%s,\"event\":\"status\",\"data\":{\"a\":%d}}", on,
                        (int)tl_int(t, "attempt"));
            tl_ws_sendf(ws, "{\"type\":\"final\",%s,\"content\":\"x\"}", on);
        }
        cJSON_Delete(t);
    }
    tl_ws_free(ws);
    return NULL;
}

/* Every message of the log has one final response, in the order of the messages. */
static bool all_turns_ended(const char *sid, int count)
{
    struct tl_ws *r = pt_client("echo", pt_f("%s,\"since\":0", sid));
    int64_t turn[200] = {0};
    int messages = 0, finals = 0;

    for (;;) {
        const cJSON *o = pt_next(r);
        if (tl_is(o, "type", "replay_end"))
            break;
        if (tl_is(o, "event.type", "message"))
            turn[messages++] = tl_int(o, "seq");
        if (tl_is(o, "event.type", "response")) {
            cr_assert(finals < messages, "a response before its message");
            pt_int(o, "event.data.turn", turn[finals++]);
            pt_is(o, "event.data.outcome.status", "ok");
        }
    }
    pt_drop(r);
    cr_assert_eq(messages, count);
    return finals == count;
}

PT_TEST(load, turns_end_once_and_in_order_through_kills)
{
    enum { SESSIONS = 6, EACH = 25, WORKERS = 2 };
    int rounds = (int)pt_size("PT_KILLS", 5);
    const char *sid[SESSIONS];
    pthread_t thread[WORKERS];
    struct shared s = {.port = 0};

    pt_start("turn_lease_ms = 300; retry_backoff_ms = 5; max_attempts = 1000;");
    s.token = pt_worker_token("echo");
    for (int i = 0; i < SESSIONS; i++) {
        struct tl_ws *a = pt_client("echo", NULL);
        sid[i] = pt_sid();
        for (int k = 0; k < EACH; k++)
            pt_say(a, "x");
        pt_drop(a);
    }
    for (int round = 0; round <= rounds; round++) {
        struct tl_ws *watch = pt_client("echo", pt_f("%s", sid[round % SESSIONS]));
        s.port = tl_gate_port(pt_gate);
        for (int i = 0; i < WORKERS; i++)
            pthread_create(&thread[i], NULL, serve, &s);
        if (round < rounds) {
            /* Let some of it happen, then kill in the middle. */
            for (int i = 0; i < 3; i++) {
                cJSON *o = tl_json_next(watch, 3000, NULL);
                cJSON_Delete(o);
            }
            tl_gate_kill(pt_gate);
        } else {
            int64_t end = tl_now_ms() + 60000;
            for (int i = 0; i < SESSIONS; i++) {
                while (!all_turns_ended(sid[i], EACH))
                    cr_assert(tl_now_ms() < end, "turns of session %d do not end", i);
            }
            atomic_store(&s.stop, true);
        }
        for (int i = 0; i < WORKERS; i++)
            pthread_join(thread[i], NULL);
        if (round < rounds)
            cr_assert(tl_gate_start(pt_gate), "%s", tl_gate_error(pt_gate));
    }
}
