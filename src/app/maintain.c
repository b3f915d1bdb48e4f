/*
 * maintain.c - retention: by age, count and bytes of a session's events, by age of closed sessions;
 * and what a restart interrupted: the deletion of sessions, the trimming of those that a rule is
 * for.
 *
 * One thread with a reader of its own. A pass goes over sessions in small steps with rests between:
 * over those on their way out, and where a rule is set over those that had events since the pass
 * before. A pass over all sessions finds the others, and what only time makes due; the longer it
 * takes, the seldomer it is made. What a step found is asked of the core, which moves the floor
 * first and removes rows later, some each batch. Whoever then asks for what is gone is told of the
 * gap. Failures are logged and tried again with the next pass.
 */
#include "app/maintain.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "store/reader.h"

#define PASS_MS 10000 /* rest between passes */
#define STEP_MS 20    /* rest between steps */
#define STEP_FOUND 50
/* A walk over all sessions is followed by as many times as long without one. */
#define ALL_SHARE 20
#define HOURS_MOST 4 /* since the last pass, to be walked by themselves */

EG_MUTEX(maintain);

struct eg_maintain {
    pthread_t thread;
    struct maintain_mutex lock;
    pthread_cond_t wake;
    bool stopping EG_GUARDED_BY(maintain_mutex);
    struct eg_settings *settings EG_GUARDED_BY(maintain_mutex);
    bool fresh EG_GUARDED_BY(maintain_mutex); /* the settings are new */
    struct eg_core *core;
    /* The thread's own while it runs. */
    struct eg_reader *reader;
    int64_t all_at_ms; /* when all sessions are walked next, by the steady clock */
    int64_t hour;      /* in which the last pass began */
};

struct found {
    char id[EG_ID_MAX + 1];
    int64_t sid;
    uint64_t keep_from; /* 0: the whole session goes */
    bool deleting;
};

struct step {
    struct found found[STEP_FOUND];
    int n;
};

static void collect(void *arg, const struct eg_session_row *row, uint64_t keep_from)
{
    struct step *s = arg;
    if (s->n < STEP_FOUND) {
        struct found *f = &s->found[s->n++];
        memcpy(f->id, row->id, sizeof f->id);
        f->sid = row->sid;
        f->keep_from = keep_from;
        f->deleting = row->state == EG_SESSION_DELETING;
    }
}

static void act(struct eg_maintain *m, const struct found *f)
{
    struct eg_call call = {.session_id = eg_slice_cstr(f->id), .sid = f->sid};
    if (f->deleting) {
        call.kind = EG_CALL_REAP;
        call.cursor = (uint64_t)f->sid;
    } else if (f->keep_from == 0) {
        call.kind = EG_CALL_DELETE;
        call.audit_who = EG_LIT("gateway");
        call.audit_action = EG_LIT("session.expire");
        call.audit_detail = call.session_id;
    } else {
        call.kind = EG_CALL_TRIM;
        call.cursor = f->keep_from;
    }
    eg_core_call(m->core, &call);
    eg_buf_free(&call.json);
    if (call.code != EG_CODE_NONE && call.code != EG_CODE_session_not_found) {
        eg_log_limited(EG_LOG_WARN, "retention.refused", "session=%s" EG_F "code=%s", f->id,
                       eg_code_info(call.code)->name);
    }
}

/* Waits; false when it is time to stop. */
static bool rest(struct eg_maintain *m, int64_t ms)
{
    const struct timespec until = eg_cond_until(ms);
    maintain_lock(&m->lock);
    while (!m->stopping && maintain_wait_until(&m->wake, &m->lock, &until) == 0) {
    }
    const bool go_on = !m->stopping;
    maintain_unlock(&m->lock);
    return go_on;
}

/* *fresh: the settings are others than the last time. */
static struct eg_retention rule(struct eg_maintain *m, bool *fresh)
{
    const int64_t now = eg_clock_now().wall_ms;
    maintain_lock(&m->lock);
    const struct eg_settings *s = m->settings;
    const struct eg_retention r = {
        .events_before_ms = s->retention_age_ms ? now - s->retention_age_ms : 0,
        .max_events = s->retention_events,
        .max_bytes = s->retention_bytes,
        .closed_before_ms = s->retention_closed_ms ? now - s->retention_closed_ms : 0};
    *fresh = m->fresh;
    m->fresh = false;
    maintain_unlock(&m->lock);
    return r;
}

/* Goes over the sessions that r names; false when it cannot go on now. */
static bool walk(struct eg_maintain *m, const struct eg_retention *r)
{
    int64_t after = 0;
    do {
        struct step step = {.n = 0};
        const enum eg_err e =
            eg_reader_retention(m->reader, r, after, STEP_FOUND, collect, &step, &after);
        if (e != EG_OK) {
            eg_log_limited(EG_LOG_WARN, "retention.failed", "why=%s", eg_reader_why(m->reader));
            return false;
        }
        for (int i = 0; i < step.n; i++) {
            act(m, &step.found[i]);
        }
    } while (after != 0 && rest(m, STEP_MS));
    return after == 0;
}

/* Over all sessions, and when again: as soon as a pass may be, where they are few. */
static void walk_all(struct eg_maintain *m, struct eg_retention *r)
{
    const int64_t begun = eg_clock_mono_ms();
    r->hour = EG_RETAIN_ALL;
    if (walk(m, r)) {
        const int64_t now = eg_clock_mono_ms();
        const int64_t later = (now - begun) * ALL_SHARE;
        m->all_at_ms = now + (later < EG_HOUR_MS ? later : EG_HOUR_MS);
    }
}

static void pass(struct eg_maintain *m)
{
    bool fresh = false;
    struct eg_retention r = rule(m, &fresh);
    const int64_t hour = eg_clock_now().wall_ms / EG_HOUR_MS;
    if (fresh || hour - m->hour > HOURS_MOST) {
        m->all_at_ms = 0;
    }
    if (!r.events_before_ms && !r.max_events && !r.max_bytes && !r.closed_before_ms) {
        r.hour = EG_RETAIN_UNSETTLED;
        (void)walk(m, &r);
        m->all_at_ms = 0;
    } else if (eg_clock_mono_ms() >= m->all_at_ms) {
        walk_all(m, &r);
    } else {
        r.hour = EG_RETAIN_UNSETTLED;
        bool more = walk(m, &r);
        for (r.hour = m->hour; more && r.hour <= hour; r.hour++) {
            more = walk(m, &r);
        }
    }
    m->hour = hour;
}

static void *maintain_main(void *arg)
{
    struct eg_maintain *m = arg;
    do {
        pass(m);
    } while (rest(m, PASS_MS));
    return NULL;
}

enum eg_err eg_maintain_start(struct eg_core *core, struct eg_settings *settings,
                              struct eg_maintain **out, char *why, size_t why_size)
{
    struct eg_maintain *m = calloc(1, sizeof *m);
    if (!m) {
        return EG_ENOMEM;
    }
    const enum eg_err e = eg_reader_open(settings->data, &m->reader, why, why_size);
    if (e != EG_OK) {
        free(m);
        return e;
    }
    m->core = core;
    maintain_unshared(&m->lock);
    m->settings = eg_settings_ref(settings);
    maintain_init(&m->lock);
    eg_cond_init(&m->wake);
    if (pthread_create(&m->thread, NULL, maintain_main, m) != 0) {
        eg_reader_close(m->reader);
        eg_settings_unref(m->settings);
        free(m);
        return EG_EIO;
    }
    *out = m;
    return EG_OK;
}

void eg_maintain_settings(struct eg_maintain *m, struct eg_settings *settings)
{
    maintain_lock(&m->lock);
    eg_settings_ref(settings);
    eg_settings_unref(m->settings);
    m->settings = settings;
    m->fresh = true;
    maintain_unlock(&m->lock);
}

void eg_maintain_stop(struct eg_maintain *m)
{
    if (!m) {
        return;
    }
    maintain_lock(&m->lock);
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    maintain_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    maintain_unshared(&m->lock);
    pthread_cond_destroy(&m->wake);
    maintain_destroy(&m->lock);
    eg_reader_close(m->reader);
    eg_settings_unref(m->settings);
    free(m);
}
