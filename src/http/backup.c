/*
 * backup.c - a copy of the database while the gateway serves.
 *
 * One backup at a time, on a thread of its own; everything goes on meanwhile. Failure modes: what
 * went wrong is told by GET /backup and the log. A stop of the gateway gives it up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/http_int.h"
#include "store/sqlite.h"

static bool on_progress(void *arg, int64_t done, int64_t total)
{
    struct eg_http *h = arg;
    eg_http_lock(&h->lock);
    h->backup.done = done;
    h->backup.total = total;
    eg_http_unlock(&h->lock);
    return !__atomic_load_n(&h->stopping, __ATOMIC_ACQUIRE);
}

static void *backup_main(void *arg)
{
    struct eg_http *h = arg;
    char why[512] = "";
    eg_http_lock(&h->lock);
    const char *to = h->backup.to; /* stays while this thread runs */
    eg_http_unlock(&h->lock);
    const enum eg_err err = eg_sqlite_backup(h->dir, to, on_progress, h, why, sizeof why);
    if (err != EG_OK)
        eg_log(EG_LOG_ERROR, "backup.failed", "to=%s" EG_F "why=%s", to,
               *why ? why : eg_err_text(err));
    else
        eg_log(EG_LOG_INFO, "backup.done", "to=%s", to);
    eg_http_lock(&h->lock);
    h->backup.state = err == EG_OK ? EG_BACKUP_DONE : EG_BACKUP_FAILED;
    h->backup.finished_ms = eg_clock_now().wall_ms;
    snprintf(h->backup.error, sizeof h->backup.error, "%s",
             err == EG_OK ? ""
             : *why       ? why
                          : eg_err_text(err));
    eg_http_unlock(&h->lock);
    return NULL;
}

static void time_or_null(struct eg_buf *b, const char *key, int64_t ms)
{
    if (ms)
        eg_json_ktime(b, key, ms);
    else
        eg_json_kcstr(b, key, NULL);
}

static void answer(struct eg_exchange *x, int status)
{
    static const char *const names[] = {[EG_BACKUP_NONE] = "none",
                                        [EG_BACKUP_RUNNING] = "running",
                                        [EG_BACKUP_DONE] = "done",
                                        [EG_BACKUP_FAILED] = "failed"};
    struct eg_http *h = x->http;
    struct eg_buf b = {0};
    eg_http_lock(&h->lock);
    eg_buf_char(&b, '{');
    eg_json_kcstr(&b, "state", names[h->backup.state]);
    eg_json_kcstr(&b, "to", h->backup.to);
    eg_json_kint(&b, "pages_done", h->backup.done);
    eg_json_kint(&b, "pages_total", h->backup.total);
    time_or_null(&b, "started", h->backup.started_ms);
    time_or_null(&b, "finished", h->backup.finished_ms);
    eg_json_kcstr(&b, "error", *h->backup.error ? h->backup.error : NULL);
    eg_buf_char(&b, '}');
    eg_http_unlock(&h->lock);
    eg_x_json(x, status, &b);
}

void eg_h_backup_get(struct eg_exchange *x)
{
    answer(x, 200);
}

/* Begins. EG_EBUSY: one is under way. */
EG_REQUIRES(eg_http_mutex) static enum eg_err begin(struct eg_http *h, const char *to)
{
    if (h->backup.state == EG_BACKUP_RUNNING)
        return EG_EBUSY;
    char *copy = strdup(to);
    if (!copy)
        return EG_ENOMEM;
    if (h->backup.joinable)
        pthread_join(h->backup.thread, NULL);
    free(h->backup.to);
    h->backup.to = copy;
    h->backup.joinable = false;
    h->backup.done = h->backup.total = h->backup.finished_ms = 0;
    h->backup.error[0] = '\0';
    h->backup.started_ms = eg_clock_now().wall_ms;
    h->backup.state = EG_BACKUP_RUNNING;
    if (pthread_create(&h->backup.thread, NULL, backup_main, h) != 0) {
        h->backup.state = EG_BACKUP_FAILED;
        snprintf(h->backup.error, sizeof h->backup.error, "no thread can be started");
        return EG_ENOMEM;
    }
    h->backup.joinable = true;
    return EG_OK;
}

static bool is_running(struct eg_http *h)
{
    eg_http_lock(&h->lock);
    const bool running = h->backup.state == EG_BACKUP_RUNNING;
    eg_http_unlock(&h->lock);
    return running;
}

/* Whether `to` could be made: its folder is there and may be written, and it is not. */
static bool is_free(const char *to)
{
    struct stat st;
    const char *slash = strrchr(to, '/');
    char *folder = strndup(to, slash == to ? 1 : (size_t)(slash - to));
    const bool ok =
        folder && access(folder, W_OK | X_OK) == 0 && lstat(to, &st) != 0 && errno == ENOENT;
    free(folder);
    return ok;
}

void eg_h_backup_start(struct eg_exchange *x)
{
    struct eg_http *h = x->http;
    struct eg_slice to;
    if (!eg_x_check_body(x, "to") || !eg_x_text(x, "to", true, 2, 4000, 0, &to))
        return;
    if (to.p[0] != '/' || to.p[to.n - 1] == '/') {
        eg_x_invalid(x, "to", "must be the absolute path of a file");
        return;
    }
    if (!is_free(to.p)) {
        eg_x_invalid(x, "to", "must be in a folder that can be written, and not exist yet");
        return;
    }
    if (is_running(h)) {
        eg_x_problem(x, 0, EG_CODE_conflict, "a backup is under way", NULL);
        return;
    }
    if (!eg_x_audit(x, "backup", to.p))
        return;
    eg_http_lock(&h->lock);
    const enum eg_err err = begin(h, to.p);
    eg_http_unlock(&h->lock);
    if (err == EG_OK)
        answer(x, 202);
    else
        eg_x_problem(x, 0, err == EG_EBUSY ? EG_CODE_conflict : EG_CODE_internal, NULL, NULL);
}
