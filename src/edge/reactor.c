/*
 * reactor.c - the public calls around the reactors: their beginning and their end.
 *
 * Threads: any thread calls these.
 * Owns: the reactors, the reader pool, one reference to the settings for each reactor.
 */
#include "edge/reactor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "edge/parser.h"
#include "edge/pool.h"

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
    rs->farewell = eg_farewell_new();
    for (unsigned i = 0; rs->reactor && i < rs->count; i++) {
        rs->reactor[i].epfd = rs->reactor[i].releases.fd = rs->reactor[i].mail.fd = -1;
    }
    if (!rs->reactor || !rs->farewell || (config->dir && !rs->dir)) {
        goto out;
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

void eg_reactors_seams(struct eg_reactors *rs, const struct eg_reactor_seams *seams)
{
    rs->seams = *seams;
}

enum eg_err eg_reactors_start(struct eg_reactors *rs, struct eg_core *core)
{
    const struct eg_log_ops *const log = rs->seams.log ? rs->seams.log : &eg_log_store;
    const int64_t readers = rs->reactor[0].settings->readers;
    rs->core = core;
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

void eg_reactors_release(void *arg, unsigned reactor, struct eg_release *r)
{
    struct eg_reactors *const rs = arg;
    if (reactor >= rs->count || __atomic_load_n(&rs->ended, __ATOMIC_ACQUIRE)) {
        eg_release_free(r);
        return;
    }
    eg_queue_push(&rs->reactor[reactor].releases, &r->node);
}

void eg_reactors_drain(struct eg_reactors *rs)
{
    __atomic_store_n(&rs->draining, 1, __ATOMIC_RELEASE);
}

void eg_reactors_end(struct eg_reactors *rs)
{
    if (__atomic_exchange_n(&rs->ended, 1, __ATOMIC_ACQ_REL)) {
        return;
    }
    for (unsigned i = 0; rs->reactor && i < rs->count; i++) {
        struct eg_reactor *const r = &rs->reactor[i];
        if (r->started) {
            eg_mail_post_own(r, EG_MAIL_STOP);
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
    eg_farewell_free(rs->farewell);
    free(rs->reactor);
    free(rs->dir);
    free(rs);
}
