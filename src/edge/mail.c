/*
 * mail.c - letters to the reactors: what other threads, and the readers' and the parser's, want of
 * one of them goes into its mail and is opened on its own thread, in order.
 *
 * Threads: any thread posts; eg_reactors_each and eg_reactors_farewell wait for the answer.
 * Owns: a letter that waits, and what is in it.
 * Failure modes: without memory a socket is closed and a list is short; letters that must get
 * through have one of each kind with the reactor, and need none.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "edge/parser.h"
#include "edge/pool.h"

struct adopt_mail {
    struct eg_mail mail;
    struct eg_adopted a;
};

EG_MUTEX(farewell);

/* One wait for all reactors. */
struct eg_farewell {
    struct farewell_mutex lock;
    pthread_cond_t done;
    unsigned open EG_GUARDED_BY(farewell_mutex); /* reactors that still have connections */
    bool said EG_GUARDED_BY(farewell_mutex);
    int64_t spread_ms; /* set before the reactors hear of it */
};

/* A copy of what is told of one connection; the texts follow. */
struct copied {
    struct copied *next;
    struct eg_conn_info info;
    char texts[];
};

struct each_mail {
    struct eg_mail mail;
    struct copied **list;
    sem_t *done;
};

/* A zeroed letter of this size; aborting is no choice, so callers cope with NULL. */
static void *letter(enum eg_mail_kind kind, size_t size)
{
    struct eg_mail *const mail = calloc(1, size);
    if (mail) {
        mail->kind = kind;
    }
    return mail;
}

static void post_mail(struct eg_reactor *r, struct eg_mail *mail)
{
    eg_queue_push(&r->mail, &mail->node);
}

void eg_mail_post_own(struct eg_reactor *r, enum eg_mail_kind kind)
{
    r->own[kind].kind = kind;
    post_mail(r, &r->own[kind]);
}

static void free_adopted(struct eg_reactors *rs, struct eg_adopted *a)
{
    if (a->fd >= 0) {
        close(a->fd);
    }
    if (a->refuse == EG_CODE_NONE && a->addr[0]) {
        eg_limits_leave(rs->limits, a->addr, false);
    }
    free(a->token);
    free(a->epoch);
    eg_claims_free(&a->claims);
}

void eg_reactors_adopt(struct eg_reactors *rs, struct eg_adopted *a)
{
    struct adopt_mail *const m = letter(EG_MAIL_ADOPT, sizeof *m);
    const unsigned ix = __atomic_fetch_add(&rs->next, 1, __ATOMIC_RELAXED) % rs->count;
    if (!m || __atomic_load_n(&rs->ended, __ATOMIC_ACQUIRE)) {
        free(m);
        free_adopted(rs, a);
    } else {
        m->a = *a;
        post_mail(&rs->reactor[ix], &m->mail);
    }
    a->fd = -1;
    a->token = a->epoch = NULL;
    a->claims = (struct eg_claims){0};
}

void eg_reactors_settings(struct eg_reactors *rs, struct eg_settings *settings)
{
    for (unsigned i = 0; i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        struct eg_settings *const unread =
            __atomic_exchange_n(&r->new_settings, eg_settings_ref(settings), __ATOMIC_ACQ_REL);
        if (!unread) {
            eg_mail_post_own(r, EG_MAIL_SETTINGS);
        }
        eg_settings_unref(unread);
    }
}

void eg_reactors_judge(struct eg_reactors *rs)
{
    for (unsigned i = 0; i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        if (!__atomic_exchange_n(&r->judge_posted, 1, __ATOMIC_ACQ_REL)) {
            eg_mail_post_own(r, EG_MAIL_JUDGE);
        }
    }
}

struct eg_farewell *eg_farewell_new(void)
{
    struct eg_farewell *const f = calloc(1, sizeof *f);
    if (f) {
        farewell_init(&f->lock);
        eg_cond_init(&f->done);
    }
    return f;
}

void eg_farewell_free(struct eg_farewell *f)
{
    if (f) {
        pthread_cond_destroy(&f->done);
        farewell_destroy(&f->lock);
        free(f);
    }
}

void eg_farewell_check(struct eg_reactor *r)
{
    struct eg_farewell *const f = r->set->farewell;
    if (!r->parting || (r->peers > r->lingering && !r->stopping)) {
        return;
    }
    r->parting = false;
    farewell_lock(&f->lock);
    f->open--;
    pthread_cond_signal(&f->done);
    farewell_unlock(&f->lock);
}

/* To all whose thread runs; once. */
static void tell_farewell(struct eg_reactors *rs, int64_t spread_ms)
{
    struct eg_farewell *const f = rs->farewell;
    farewell_lock(&f->lock);
    if (!f->said) {
        f->said = true;
        f->spread_ms = spread_ms;
        for (unsigned i = 0; i < rs->count; i++) {
            if (rs->reactor[i].started) {
                f->open++;
                eg_mail_post_own(&rs->reactor[i], EG_MAIL_FAREWELL);
            }
        }
    }
    farewell_unlock(&f->lock);
}

void eg_reactors_farewell(struct eg_reactors *rs, int64_t spread_ms, int64_t timeout_ms)
{
    struct eg_farewell *const f = rs->farewell;
    tell_farewell(rs, spread_ms);
    const struct timespec until = eg_cond_until(timeout_ms);
    farewell_lock(&f->lock);
    while (f->open && farewell_wait_until(&f->done, &f->lock, &until) != ETIMEDOUT) {
    }
    farewell_unlock(&f->lock);
}

static const char *const mode_names[] = {"ws", "sse", "echo"};

/* A copy of what there is to tell of p; NULL without memory. */
static struct copied *copy_info(const struct eg_peer *p)
{
    size_t n = 0;
    for (int i = 0; i < EG_TEXT_COUNT; i++) {
        n += strlen(p->texts + n) + 1;
    }
    struct copied *const c = malloc(sizeof *c + n);
    const char *text[EG_TEXT_COUNT];
    if (!c) {
        return NULL;
    }
    memcpy(c->texts, p->texts, n);
    n = 0;
    for (int i = 0; i < EG_TEXT_COUNT; i++) {
        text[i] = c->texts + n;
        n += strlen(text[i]) + 1;
    }
    c->info = (struct eg_conn_info){.id = eg_peer_id(p),
                                    .sub = text[EG_TEXT_SUB],
                                    .addr = text[EG_TEXT_ADDR],
                                    .agent = text[EG_TEXT_AGENT],
                                    .session = text[EG_TEXT_SESSION],
                                    .client_name = text[EG_TEXT_CLIENT_NAME],
                                    .client_version = text[EG_TEXT_CLIENT_VERSION],
                                    .worker_id = text[EG_TEXT_WORKER],
                                    .mode = mode_names[p->mode],
                                    .since_ms = p->since_ms,
                                    .queued_frames = eg_outbox_frames(&p->out),
                                    .queued_bytes = (int64_t)eg_outbox_waiting(&p->out),
                                    .received_frames = p->frames_in,
                                    .sent_frames = p->frames_out,
                                    .cursor = p->sent};
    return c;
}

void eg_reactors_each(struct eg_reactors *rs,
                      void (*fn)(void *arg, const struct eg_conn_info *info), void *arg)
{
    sem_t done;
    sem_init(&done, 0, 0);
    for (unsigned i = 0; i < rs->count; i++) {
        struct copied *list = NULL;
        struct each_mail *const m = rs->reactor[i].started ? letter(EG_MAIL_EACH, sizeof *m) : NULL;
        if (!m) {
            continue;
        }
        m->list = &list;
        m->done = &done;
        post_mail(&rs->reactor[i], &m->mail);
        while (sem_wait(&done) != 0 && errno == EINTR) {
        }
        while (list) {
            struct copied *const c = list;
            list = c->next;
            fn(arg, &c->info);
            free(c);
        }
    }
    sem_destroy(&done);
}

/* Copies all of r's connections; in the order of their places. */
static void open_each(struct eg_reactor *r, const struct each_mail *m)
{
    for (uint32_t i = r->slot_count; i-- > 0;) {
        const struct eg_peer *const p = r->slots[i].peer;
        struct copied *const c = p && p->state < EG_PEER_CLOSING ? copy_info(p) : NULL;
        if (c) {
            c->next = *m->list;
            *m->list = c;
        }
    }
    sem_post(m->done);
}

static void say_farewell(struct eg_peer *p, int64_t spread_ms)
{
    uint32_t random;
    eg_random(&random, sizeof random);
    const long long after = spread_ms > 0 ? (long long)(random % (uint64_t)(spread_ms + 1)) : 0;
    if (p->state == EG_PEER_JOINED && p->mode == EG_CONN_WS) {
        eg_buf_reset(&p->r->text);
        eg_buf_printf(&p->r->text,
                      "{\"type\":\"reconnect\",\"reason\":\"drain\",\"retry_after_ms\":%lld}",
                      after);
        eg_peer_send_text(p);
    } else if (p->mode == EG_CONN_SSE) { /* the answer's head went out before it came here */
        char line[48];
        snprintf(line, sizeof line, "retry: %lld\n\n", after);
        eg_sse_say(p, line);
    }
    eg_peer_close(p, EG_CLOSE_RESTART, "drain");
}

/* Every connection of r, also while the callback ends some. */
static void for_all(struct eg_reactor *r, void (*fn)(struct eg_peer *p, int64_t n), int64_t n)
{
    for (uint32_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i].peer) {
            fn(r->slots[i].peer, n);
        }
    }
}

static void judge(struct eg_peer *p, int64_t n)
{
    (void)n;
    if (p->state < EG_PEER_CLOSING) {
        eg_live_judge(p);
    }
}

static void begin_heartbeat(struct eg_peer *p, int64_t n)
{
    (void)n;
    p->pinged = false; /* that was at the pace of before */
    if (p->state < EG_PEER_CLOSING) {
        eg_live_schedule(p);
    }
}

/* The newest that were handed over. */
static void take_settings(struct eg_reactor *r)
{
    const int64_t beat = r->settings->heartbeat_ms;
    eg_settings_unref(r->settings);
    r->settings = __atomic_exchange_n(&r->new_settings, NULL, __ATOMIC_ACQ_REL);
    if (r->settings->heartbeat_ms != beat) {
        for_all(r, begin_heartbeat, 0);
    }
}

static void end(struct eg_peer *p, int64_t n)
{
    (void)n;
    eg_peer_end(p);
}

/* Who comes after the farewell. A stream has no hello that could be refused; a WebSocket that says
 * none does not hold up the end. */
static void open_adopted(struct eg_reactor *r, struct eg_adopted *a)
{
    struct eg_peer *const p = eg_peer_open(r, a);
    if (!p || p->gone || r->spread_ms < 0) {
        return;
    }
    if (p->mode == EG_CONN_SSE) {
        say_farewell(p, r->spread_ms);
    } else if (p->deadline_ms > r->now.mono_ms + EG_LATE_MS) {
        p->deadline_ms = r->now.mono_ms + EG_LATE_MS;
        eg_live_schedule(p);
    }
}

static void open_job(struct eg_reactor *r, struct eg_job *job)
{
    struct eg_peer *const p = eg_peer_find(r, job->conn);
    if (job->kind == EG_JOB_HISTORY) {
        eg_method_history(p, job);
    } else {
        eg_catchup_page(p, job);
    }
    eg_job_free(job);
}

/* Frees a letter that nobody will open. */
static void drop_mail(struct eg_reactor *r, struct eg_mail *mail)
{
    switch (mail->kind) {
    case EG_MAIL_ADOPT:
        free_adopted(r->set, &((struct adopt_mail *)mail)->a);
        break;
    case EG_MAIL_JOB:
        eg_job_free((struct eg_job *)mail);
        return;
    case EG_MAIL_LARGE:
        eg_large_free((struct eg_large *)mail);
        return;
    case EG_MAIL_EACH:
        sem_post(((struct each_mail *)mail)->done);
        break;
    case EG_MAIL_FAREWELL:
        r->parting = true;
        eg_farewell_check(r);
        return;
    case EG_MAIL_SETTINGS: /* freed with the reactor, if nobody opens it */
    case EG_MAIL_JUDGE:
    case EG_MAIL_STOP:
    case EG_MAIL_KINDS:
        return;
    }
    free(mail);
}

void eg_mail_drop_all(struct eg_reactor *r)
{
    struct eg_qnode *n = eg_queue_take(&r->mail);
    r->stopping = true;
    while (n) {
        struct eg_qnode *const next = n->next;
        drop_mail(r, (struct eg_mail *)n);
        n = next;
    }
}

void eg_mail_open(struct eg_reactor *r, struct eg_mail *mail)
{
    if (r->stopping) {
        drop_mail(r, mail);
        return;
    }
    switch (mail->kind) {
    case EG_MAIL_ADOPT:
        open_adopted(r, &((struct adopt_mail *)mail)->a);
        break;
    case EG_MAIL_JOB:
        open_job(r, (struct eg_job *)mail);
        return;
    case EG_MAIL_LARGE: {
        struct eg_large *const large = (struct eg_large *)mail;
        eg_method_large(eg_peer_find(r, large->conn), large);
        return;
    }
    case EG_MAIL_EACH:
        open_each(r, (struct each_mail *)mail);
        break;
    case EG_MAIL_SETTINGS:
        take_settings(r);
        return;
    case EG_MAIL_JUDGE:
        __atomic_store_n(&r->judge_posted, 0, __ATOMIC_SEQ_CST); /* what comes now is judged anew */
        for_all(r, judge, 0);
        return;
    case EG_MAIL_FAREWELL:
        r->parting = true;
        r->spread_ms = r->set->farewell->spread_ms;
        for_all(r, say_farewell, r->spread_ms);
        return;
    case EG_MAIL_STOP:
        for_all(r, end, 0);
        r->stopping = true;
        return;
    case EG_MAIL_KINDS:
        return;
    }
    free(mail);
}
