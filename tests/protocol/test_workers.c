/* Several workers an agent: concurrency, order in a session, affinity, fairness, one writer. */
#include "pt.h"

#include <poll.h>

PT_SUITE(workers);

PT_TEST(workers, concurrency_is_how_many_turns_at_once)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", "\"concurrency\":2");
    struct tl_ws *a[3];
    for (int i = 0; i < 3; i++) {
        a[i] = pt_client("echo", NULL);
        pt_say(a[i], pt_f("c%d", i));
    }
    const cJSON *t0 = pt_turn(w), *t1 = pt_turn(w);
    cr_assert(strcmp(tl_str(t0, "session_id"), tl_str(t1, "session_id")));
    pt_quiet(w);
    pt_final(w, t1, "x");
    const cJSON *t2 = pt_turn(w);
    pt_is(t2, "message.data.content", "c2");
    pt_final(w, t0, "x");
    pt_final(w, t2, "x");
    for (int i = 0; i < 3; i++)
        pt_outcome(a[i], 1, "ok");
}

PT_TEST(workers, the_default_is_one)
{
    pt_start(NULL);
    struct tl_ws *w = pt_worker("echo", NULL);
    pt_say(pt_client("echo", NULL), "x");
    pt_say(pt_client("echo", NULL), "y");
    const cJSON *t = pt_turn(w);
    pt_quiet(w);
    pt_final(w, t, "x");
    pt_turn(w);
}

PT_TEST(workers, sessions_are_spread)
{
    pt_start(NULL);
    struct tl_ws *w[4];
    for (int i = 0; i < 4; i++)
        w[i] = pt_worker("echo", NULL);
    for (int i = 0; i < 4; i++)
        pt_say(pt_client("echo", NULL), "x");
    for (int i = 0; i < 4; i++)
        pt_turn(w[i]);
}

PT_TEST(workers, a_session_prefers_the_worker_that_served_it_last)
{
    pt_start(NULL);
    struct tl_ws *w[3];
    for (int i = 0; i < 3; i++)
        w[i] = pt_worker("echo", "\"concurrency\":4");
    struct tl_ws *a = pt_client("echo", NULL);
    int served_by = -1;
    for (int round = 0; round < 6; round++) {
        pt_say(a, "x");
        struct pollfd p[3];
        for (int i = 0; i < 3; i++)
            p[i] = (struct pollfd){.fd = tl_ws_fd(w[i]), .events = POLLIN};
        cr_assert(poll(p, 3, PT_WAIT_MS) > 0, "no worker got the turn");
        int who = p[0].revents ? 0 : p[1].revents ? 1 : 2;
        cr_assert(served_by < 0 || who == served_by, "worker %d, then worker %d", served_by, who);
        served_by = who;
        const cJSON *t = pt_turn(w[who]);
        pt_final(w[who], t, "y");
        pt_outcome(a, tl_int(t, "turn"), "ok");
    }
}

PT_TEST(workers, a_long_queue_does_not_starve_other_sessions)
{
    pt_start(NULL);
    struct tl_ws *busy = pt_client("echo", NULL);
    for (int i = 0; i < 40; i++)
        pt_say(busy, "busy");
    struct tl_ws *other = pt_client("echo", NULL);
    pt_say(other, "other");
    struct tl_ws *w = pt_worker("echo", NULL);
    for (int i = 0;; i++) {
        cr_assert(i < 5, "the other session waits behind %d turns of the busy one", i);
        const cJSON *t = pt_turn(w);
        pt_final(w, t, "x");
        if (tl_is(t, "message.data.content", "other"))
            break;
    }
}

/* Many sessions, several workers that come and go: order kept, every turn ended exactly once. */
PT_TEST(workers, order_holds_while_workers_come_and_go)
{
    enum { SESSIONS = 12, EACH = 8, WORKERS = 4 };
    struct tl_ws *c[SESSIONS], *w[WORKERS];
    const char *id[SESSIONS];
    int64_t next[SESSIONS];
    int done = 0, drops = 0;
    unsigned seed = 7;

    pt_start("retry_backoff_ms = 5; max_attempts = 1000;");
    const char *token = pt_worker_token("echo");
    for (int i = 0; i < SESSIONS; i++) {
        c[i] = pt_client("echo", NULL);
        id[i] = pt_f("%s", tl_str(pt_hello, "session_id"));
        next[i] = 0;
        for (int k = 0; k < EACH; k++)
            pt_send(c[i], "{\"type\":\"message\",\"content\":%d}", k);
    }
    for (int i = 0; i < WORKERS; i++)
        w[i] = pt_client_as(token, "echo", "\"role\":\"agent\",\"concurrency\":3");
    int64_t end = tl_now_ms() + 60000;
    while (done < SESSIONS * EACH && tl_now_ms() < end) {
        for (int i = 0; i < WORKERS; i++) {
            cJSON *t = tl_json_next(w[i], 5, NULL);
            if (!t)
                continue;
            pt_keep_json(t);
            pt_is(t, "type", "turn");
            int s = 0;
            while (s < SESSIONS && !tl_is(t, "session_id", id[s]))
                s++;
            cr_assert(s < SESSIONS);
            if (tl_int(t, "attempt") > 1 && tl_int(t, "message.data.content") == next[s] - 1) {
                next[s]--; /* its final was cut off by the reset of that worker's connection */
                done--;
            }
            pt_int(t, "message.data.content", next[s]);
            if (rand_r(&seed) % 5 == 0 && drops < 40) {
                drops++;
                pt_drop_reset(w[i]);
                w[i] = pt_client_as(token, "echo", "\"role\":\"agent\",\"concurrency\":3");
                continue;
            }
            next[s]++;
            done++;
            pt_final(w[i], t, "x");
        }
    }
    cr_assert_eq(done, SESSIONS * EACH);
    for (int i = 0; i < SESSIONS; i++) {
        struct tl_ws *r = pt_client("echo", pt_f("\"session_id\":\"%s\",\"since\":0", id[i]));
        int finals = 0, messages = 0;
        for (;;) {
            const cJSON *o = pt_next(r);
            if (tl_is(o, "type", "replay_end"))
                break;
            finals += tl_is(o, "event.type", "response");
            messages += tl_is(o, "event.type", "message");
        }
        cr_assert(finals == EACH && messages == EACH, "%d messages, %d responses", messages,
                  finals);
    }
}
