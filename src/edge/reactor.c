/*
 * reactor.c - the public calls around the reactors, and their mail.
 *
 * Threads: any thread calls these; what they want of a reactor goes into its mail and is opened on
 * its own thread. eg_reactors_each and eg_reactors_farewell wait for the answer.
 * Owns: the reactors, the reader pool, one reference to the settings for each reactor.
 */
#include "edge/reactor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
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

static enum eg_err init_reactor(struct eg_reactors *rs, unsigned ix, struct eg_settings *settings)
{
    struct eg_reactor *const r = &rs->reactor[ix];
    r->set = rs;
    r->ix = ix;
    r->slot_free = UINT32_MAX;
    r->spread_ms = -1;
    r->settings = eg_settings_ref(settings);
    r->now = eg_clock_now();
    r->releases.fd = r->mail.fd = -1;
    r->epfd = epoll_create1(EPOLL_CLOEXEC);
    r->inbuf = malloc(EG_IN_BYTES);
    r->outbuf = (struct eg_outbuf){malloc(EG_OUT_BYTES), EG_OUT_BYTES};
    if (r->epfd < 0 || !r->inbuf || !r->outbuf.p || eg_queue_init(&r->releases) != EG_OK ||
        eg_queue_init(&r->mail) != EG_OK) {
        return EG_EIO;
    }
    /* Edge-triggered: each write is told once, so the counters need not be read. */
    struct epoll_event a = {.events = EPOLLIN | EPOLLET, .data.ptr = &r->releases};
    struct epoll_event b = {.events = EPOLLIN | EPOLLET, .data.ptr = &r->mail};
    if (epoll_ctl(r->epfd, EPOLL_CTL_ADD, eg_queue_fd(&r->releases), &a) != 0 ||
        epoll_ctl(r->epfd, EPOLL_CTL_ADD, eg_queue_fd(&r->mail), &b) != 0) {
        return EG_EIO;
    }
    return EG_OK;
}

static void free_reactor(struct eg_reactor *r)
{
    struct eg_qnode *n = eg_queue_take(&r->releases);
    while (n) {
        struct eg_qnode *const next = n->next;
        eg_release_free((struct eg_release *)n);
        n = next;
    }
    eg_cmds_free(r->spare);
    eg_queue_close(&r->releases);
    eg_queue_close(&r->mail);
    if (r->epfd >= 0) {
        close(r->epfd);
    }
    eg_ws_pool_free(&r->readers);
    eg_settings_unref(r->settings);
    eg_settings_unref(r->new_settings);
    eg_buf_free(&r->text);
    for (size_t i = 0; i < EG_FEATURES_KEPT; i++) {
        eg_buf_free(&r->features[i].text);
    }
    free(r->slots);
    free(r->follows.table);
    free(r->alarms.heap);
    free(r->inbuf);
    free(r->outbuf.p);
}

enum eg_err eg_reactors_new(const struct eg_reactors_config *config, struct eg_reactors **out)
{
    struct eg_reactors *const rs = calloc(1, sizeof *rs);
    enum eg_err err = EG_ENOMEM;
    if (!rs) {
        return err;
    }
    rs->count = config->count ? config->count : 1;
    rs->auth = config->auth;
    rs->limits = config->limits;
    rs->dir = config->dir ? strdup(config->dir) : NULL;
    rs->reactor = calloc(rs->count, sizeof *rs->reactor);
    rs->farewell = calloc(1, sizeof *rs->farewell);
    if (rs->farewell) {
        farewell_init(&rs->farewell->lock);
        eg_cond_init(&rs->farewell->done);
    }
    if (!rs->reactor || !rs->farewell || (config->dir && !rs->dir)) {
        goto out;
    }
    for (unsigned i = 0; i < rs->count; i++) {
        rs->reactor[i].epfd = rs->reactor[i].releases.fd = rs->reactor[i].mail.fd = -1;
    }
    for (unsigned i = 0; i < rs->count; i++) {
        err = init_reactor(rs, i, config->settings);
        if (err != EG_OK) {
            goto out;
        }
    }
out:
    if (err != EG_OK) {
        eg_reactors_stop(rs);
    } else {
        *out = rs;
    }
    return err;
}

void eg_reactors_seams(struct eg_reactors *rs, const struct eg_reactor_seams *seams,
                       const char *epoch)
{
    rs->seams = *seams;
    *stpncpy(rs->epoch, epoch, sizeof rs->epoch - 1) = '\0';
}

enum eg_err eg_reactors_start(struct eg_reactors *rs, struct eg_core *core)
{
    const struct eg_log_ops *const log = rs->seams.log ? rs->seams.log : &eg_log_store;
    const int64_t readers = rs->reactor[0].settings->readers;
    rs->core = core;
    if (core) {
        *stpncpy(rs->epoch, eg_core_epoch(core), sizeof rs->epoch - 1) = '\0';
    }
    enum eg_err err = eg_pool_start(log, rs->dir ? rs->dir : "", (unsigned)readers, &rs->pool);
    if (err == EG_OK) {
        err = eg_parser_start(&rs->parser);
    }
    for (unsigned i = 0; err == EG_OK && i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        if (pthread_create(&r->thread, NULL, eg_loop_run, r) != 0) {
            err = EG_EIO;
        } else {
            r->started = true;
        }
    }
    if (err != EG_OK) {
        eg_reactors_end(rs);
    }
    return err;
}

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

/* The one of this kind; only when it does not wait already. */
static void post_own(struct eg_reactor *r, enum eg_mail_kind kind)
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

void eg_reactors_release(void *arg, unsigned reactor, struct eg_release *r)
{
    struct eg_reactors *const rs = arg;
    if (reactor >= rs->count || __atomic_load_n(&rs->ended, __ATOMIC_ACQUIRE)) {
        eg_release_free(r);
        return;
    }
    eg_queue_push(&rs->reactor[reactor].releases, &r->node);
}

void eg_reactors_settings(struct eg_reactors *rs, struct eg_settings *settings)
{
    for (unsigned i = 0; i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        struct eg_settings *const unread =
            __atomic_exchange_n(&r->new_settings, eg_settings_ref(settings), __ATOMIC_ACQ_REL);
        if (!unread) {
            post_own(r, EG_MAIL_SETTINGS);
        }
        eg_settings_unref(unread);
    }
}

void eg_reactors_judge(struct eg_reactors *rs)
{
    for (unsigned i = 0; i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        if (!__atomic_exchange_n(&r->judge_posted, 1, __ATOMIC_ACQ_REL)) {
            post_own(r, EG_MAIL_JUDGE);
        }
    }
}

void eg_reactors_drain(struct eg_reactors *rs)
{
    __atomic_store_n(&rs->draining, 1, __ATOMIC_RELEASE);
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
                post_own(&rs->reactor[i], EG_MAIL_FAREWELL);
            }
        }
    }
    farewell_unlock(&f->lock);
}

void eg_reactors_farewell(struct eg_reactors *rs, int64_t spread_ms, int64_t timeout_ms)
{
    struct eg_farewell *const f = rs->farewell;
    struct timespec until;
    tell_farewell(rs, spread_ms);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    farewell_lock(&f->lock);
    while (f->open && farewell_wait_until(&f->done, &f->lock, &until) != ETIMEDOUT) {
    }
    farewell_unlock(&f->lock);
}

void eg_reactors_end(struct eg_reactors *rs)
{
    if (__atomic_exchange_n(&rs->ended, 1, __ATOMIC_ACQ_REL)) {
        return;
    }
    for (unsigned i = 0; rs->reactor && i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        if (r->started) {
            post_own(r, EG_MAIL_STOP);
            pthread_join(r->thread, NULL);
            r->started = false;
        }
    }
    eg_pool_stop(rs->pool);
    rs->pool = NULL;
    eg_parser_stop(rs->parser);
    rs->parser = NULL;
    for (unsigned i = 0; rs->reactor && i < rs->count; i++) {
        if (rs->reactor[i].mail.fd >= 0) {
            eg_mail_drop_all(&rs->reactor[i]);
        }
    }
}

void eg_reactors_stop(struct eg_reactors *rs)
{
    eg_reactors_end(rs);
    for (unsigned i = 0; rs->reactor && i < rs->count; i++) {
        free_reactor(&rs->reactor[i]);
    }
    if (rs->farewell) {
        pthread_cond_destroy(&rs->farewell->done);
        farewell_destroy(&rs->farewell->lock);
    }
    free(rs->farewell);
    free(rs->reactor);
    free(rs->dir);
    free(rs);
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
    c->info = (struct eg_conn_info){
        .id = eg_peer_id(p),
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
        .queued_bytes = (int64_t)(eg_outbox_bytes(&p->out) + eg_outbox_page_bytes(&p->out)),
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

static void reschedule(struct eg_peer *p, int64_t n)
{
    (void)n;
    if (p->state < EG_PEER_CLOSING) {
        eg_live_schedule(p);
    }
}

/* The newest that were handed over. */
static void take_settings(struct eg_reactor *r)
{
    eg_settings_unref(r->settings);
    r->settings = __atomic_exchange_n(&r->new_settings, NULL, __ATOMIC_ACQ_REL);
    for_all(r, reschedule, 0);
}

static void end(struct eg_peer *p, int64_t n)
{
    (void)n;
    eg_peer_end(p);
}

/* Who asks for a stream has no hello that could be refused. */
static void open_adopted(struct eg_reactor *r, struct eg_adopted *a)
{
    struct eg_peer *const p = eg_peer_open(r, a);
    if (p && p->mode == EG_CONN_SSE && r->spread_ms >= 0) {
        say_farewell(p, r->spread_ms);
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
