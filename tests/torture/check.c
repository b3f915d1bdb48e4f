/*
 * check.c - reads every session whole, by a resume from 0, and holds it against all that was told.
 */
#include "torture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One session as it is read. */
static struct reading {
    int session;
    bool done;
    uint64_t have;
    unsigned char *kind; /* by cursor: 'm' message, 'r' response, 'o' other */
    uint64_t *turn;
    char (*id)[24]; /* of messages */
    size_t cap;
} r;

static void grow(uint64_t cursor)
{
    if (cursor < r.cap) {
        return;
    }
    r.cap = r.cap ? r.cap * 2 : 4096;
    r.kind = realloc(r.kind, r.cap);
    r.turn = realloc(r.turn, r.cap * sizeof *r.turn);
    r.id = realloc(r.id, r.cap * sizeof *r.id);
    if (!r.kind || !r.turn || !r.id) {
        load_die("out of memory");
    }
}

static void take(const char *event, size_t n)
{
    const uint64_t cursor = (uint64_t)load_int(event, n, "\"cursor\":");
    if (cursor != r.have + 1) {
        load_die("session %d: cursor %llu after %llu in the log", r.session,
                 (unsigned long long)cursor, (unsigned long long)r.have);
    }
    r.have = cursor;
    grow(cursor);
    t_saw(r.session, cursor, event, n);
    const size_t head = n < 30 ? n : 30;
    r.kind[cursor] = load_has(event, head, "\"message\"")    ? 'm'
                     : load_has(event, head, "\"response\"") ? 'r'
                                                             : 'o';
    const int64_t turn = load_int(event, n, "\"turn\":");
    r.turn[cursor] = turn > 0 ? (uint64_t)turn : 0;
    const char *id = memmem(event, n, "\"message_id\":\"", 14);
    snprintf(r.id[cursor], sizeof r.id[cursor], "%.*s", id ? (int)strcspn(id + 14, "\"") : 0,
             id ? id + 14 : "");
}

static void on_text(struct lc *c, const char *text, size_t n)
{
    (void)c;
    if (load_has(text, n < 30 ? n : 30, "\"replay_end\"")) {
        r.done = true;
    } else if (load_has(text, n < 20 ? n : 20, "\"replay\"")) {
        const char *data = memmem(text, n, ",\"data\":{\"type\":", 16);
        take(data + 8, n - (size_t)(data + 8 - text) - 2);
    }
}

static void on_open(struct lc *c)
{
    char name[32];
    t_session_name(r.session, name);
    load_sendf(c,
               "{\"type\":\"hello\",\"agent_id\":\"torture\",\"session_id\":\"%s\",\"since\":0,"
               "\"capabilities\":[\"streaming\"]}",
               name);
}

static void read_session(int session)
{
    struct lc c = {.on_open = on_open, .on_text = on_text};
    r.session = session;
    r.done = false;
    r.have = 0;
    load_connect(&c, &t.client_at);
    if (!load_run(&r.done, 60000000)) {
        load_die("session %d cannot be read", session);
    }
    load_close(&c);
}

/* Every turn ended exactly once, and nothing of it comes after its end. */
static bool turns_ended(void)
{
    uint64_t *end = calloc(r.have + 1, sizeof *end);
    bool all = true;
    for (uint64_t i = 1; i <= r.have; i++) {
        const uint64_t turn = r.turn[i];
        if (!turn) {
            continue;
        }
        if (turn > i || r.kind[turn] != 'm') {
            load_die("session %d: event %llu is of turn %llu, which is no message", r.session,
                     (unsigned long long)i, (unsigned long long)turn);
        }
        if (end[turn]) {
            load_die("session %d: event %llu of turn %llu comes after its end at %llu", r.session,
                     (unsigned long long)i, (unsigned long long)turn,
                     (unsigned long long)end[turn]);
        }
        if (r.kind[i] == 'r') {
            end[turn] = i;
        }
    }
    for (uint64_t i = 1; i <= r.have; i++) {
        all = all && (r.kind[i] != 'm' || end[i]);
    }
    free(end);
    return all;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void check_promises(size_t count)
{
    char want[24];
    for (size_t i = 0; i < count; i++) {
        const struct promise *p = &t.promises[i];
        if (p->session != r.session) {
            continue;
        }
        snprintf(want, sizeof want, "c%d-%u", p->client, p->number);
        if (p->cursor > r.have || strcmp(r.id[p->cursor], want) != 0) {
            load_die("session %d: %s was accepted at %llu, where %s is", r.session, want,
                     (unsigned long long)p->cursor,
                     p->cursor > r.have ? "nothing" : r.id[p->cursor]);
        }
    }
    /* Sorting ruins the positions: last. */
    qsort(r.id + 1, r.have, sizeof *r.id, by_text);
    for (uint64_t i = 2; i <= r.have; i++) {
        if (r.id[i][0] && strcmp(r.id[i], r.id[i - 1]) == 0) {
            load_die("session %d: %s is stored twice", r.session, r.id[i]);
        }
    }
}

/* One pass over all sessions; false while turns are open. What somebody is told of while a session
 * is read may come after the end of what is read. */
static bool all_ended(void)
{
    bool ended = true;
    for (int s = 0; s < SESSIONS; s++) {
        const uint64_t told = t.truth[s].top;
        const size_t promised = t.promise_count;
        read_session(s);
        if (r.have < told) {
            load_die("session %d: %llu was told of, the log ends at %llu", s,
                     (unsigned long long)told, (unsigned long long)r.have);
        }
        ended = turns_ended() && ended;
        check_promises(promised);
    }
    return ended;
}

/* How far everybody has got, in all sessions together. */
static uint64_t all_told(void)
{
    uint64_t n = 0;
    for (int s = 0; s < SESSIONS; s++) {
        n += t.truth[s].top;
    }
    return n;
}

void t_check(void)
{
    const char *args[] = {"verify", "--data", tl_gate_dir(t.gate), NULL};
    char *out = NULL, *err = NULL;
    /* Without new messages the workers come to an end with what there is. */
    t.calm = true;
    uint64_t last = 0;
    int rounds = 0;
    do {
        const uint64_t now = all_told();
        rounds = now > last ? 0 : rounds + 1;
        last = now;
        if (rounds > 60) {
            load_die("turns stay open although workers are there");
        }
        for (int i = 0; i < 20; i++) {
            t_play(50000);
        }
    } while (!all_ended());
    t.calm = false;
    if (tl_gate_run(t.gate, args, &out, &err, 120000) != 0) {
        load_die("verify: %s%s", out ? out : "", err ? err : "");
    }
    free(out);
    free(err);
}
