/*
 * sqlite.c - the writer's connection: opening and closing it, checkpoints, the probe after a
 * failure. Writes and reads inside transactions are in sqlite_write.c.
 *
 * Threads: one, the core's, after opening. Owns the lock on the folder and the only connection
 * that ever writes or checkpoints. SQLite before 3.51.3 can damage a database when two connections
 * start the write-ahead log over at once; with a single writer, automatic checkpoints off and
 * read-only readers that cannot happen.
 *
 * Failure modes: a checkpoint that fails for want of room or with a write error leaves everything
 * in the log and may be tried again. One whose flush fails means that the kernel may have dropped
 * pages it claimed to hold: EG_EUNKNOWN, the process has to end and start again from disk.
 */
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/gate.h"
#include "store/sqlite_int.h"
#include "store/wal_vfs.h"

#define CHECKPOINT_PAGES 500
#define GATE_PAGES 2000 /* length of the log from which on readers are held back */
#define GATE_WAIT_MS 50
#define PROBE_ROOM (16 << 20) /* free bytes from which on a disk that was full is tried again */

static const char *const statement_sql[EG_ST_COUNT] = {
#define EG_ST_SQL(name, sql) sql,
    EG_STATEMENTS(EG_ST_SQL)
#undef EG_ST_SQL
};

enum eg_err eg_sqlite_failed(struct eg_sqlite *s, const char *what, int rc)
{
    eg_db_explain(s->why, sizeof(s->why), s->path, what, s->db, rc);
    s->full = (rc & 0xff) == SQLITE_FULL;
    return eg_db_map(rc);
}

static int on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct eg_sqlite *s = arg;
    (void)db;
    (void)name;
    s->wal_total = pages;
    /* Fewer pages than at the last full checkpoint: the log was started over. */
    if (pages < s->wal_base) {
        s->wal_base = 0;
    }
    s->wal_since = pages - s->wal_base;
    return SQLITE_OK;
}

/* A passive checkpoint; *whole says whether all of the log is now in the database file. */
static enum eg_err checkpoint(struct eg_sqlite *s, bool *whole)
{
    int in_log = 0;
    int done = 0;
    *whole = false;
    int rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &done);
    if (rc != SQLITE_OK) {
        enum eg_err e = eg_sqlite_failed(s, "checkpoint", rc);
        if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC) {
            s->dead = true;
            e = EG_EUNKNOWN;
        }
        return e;
    }
    if (in_log == done) {
        *whole = true;
        s->wal_base = in_log > 0 ? in_log : 0;
        s->wal_since = 0;
    }
    return EG_OK;
}

static int set_up(struct eg_sqlite *s)
{
    int rc = sqlite3_exec(s->db,
                          "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                          "PRAGMA cache_size=-65536; PRAGMA mmap_size=0; PRAGMA secure_delete=OFF;"
                          "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY;"
                          "PRAGMA foreign_keys=OFF; PRAGMA trusted_schema=OFF",
                          NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_wal_hook(s->db, on_commit, s); /* takes the place of automatic checkpoints */
    }
    return rc;
}

/* The database file must be as long as its header says once the log is in it. */
static enum eg_err check_length(struct eg_sqlite *s)
{
    struct stat st;
    int64_t pages = 0;
    int64_t size = 0;
    enum eg_err e = eg_db_int(s->db, "PRAGMA page_count", &pages);
    if (e == EG_OK) {
        e = eg_db_int(s->db, "PRAGMA page_size", &size);
    }
    if (e != EG_OK) {
        return eg_sqlite_failed(s, "cannot measure", sqlite3_extended_errcode(s->db));
    }
    const int64_t whole = pages * size;
    if (stat(s->path, &st) == 0 && st.st_size < whole) {
        (void)snprintf(s->why, sizeof(s->why), "%.400s: cut short: %lld bytes where %lld belong",
                       s->path, (long long)st.st_size, (long long)whole);
        e = EG_ECORRUPT;
    }
    return e;
}

/* What a crash may have left, and what may be forgotten. Nothing is written when there is none. */
static enum eg_err settle(struct eg_sqlite *s)
{
    char sql[256];
    int64_t found = 0;
    (void)snprintf(sql, sizeof(sql),
                   "SELECT (SELECT count(*) FROM sessions WHERE state>=2 AND state=%d)"
                   "+(SELECT count(*) FROM revoked WHERE until_ms BETWEEN 1 AND %lld)",
                   (int)EG_SESSION_FORKING, (long long)eg_clock_now().wall_ms);
    enum eg_err e = eg_db_int(s->db, sql, &found);
    if (e != EG_OK) {
        return eg_sqlite_failed(s, "cannot read", sqlite3_extended_errcode(s->db));
    }
    if (found == 0) {
        return EG_OK;
    }
    (void)snprintf(sql, sizeof(sql),
                   "BEGIN IMMEDIATE; UPDATE sessions SET state=%d WHERE state>=2 AND state=%d;"
                   "DELETE FROM revoked WHERE until_ms BETWEEN 1 AND %lld; COMMIT",
                   (int)EG_SESSION_DELETING, (int)EG_SESSION_FORKING,
                   (long long)eg_clock_now().wall_ms);
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        (void)eg_sqlite_failed(s, "cannot settle what was left", rc);
        if (!sqlite3_get_autocommit(s->db)) {
            (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    return eg_db_map(rc);
}

/* What the log holds comes into the database file. A full disk does not keep the gateway from
 * starting: it can still be read. */
static enum eg_err bring_home(struct eg_sqlite *s, char *why, size_t why_size)
{
    bool whole = false;
    enum eg_err e = checkpoint(s, &whole);
    if (e == EG_OK && whole) {
        e = check_length(s);
    }
    if (e == EG_OK) {
        e = settle(s); /* also where a reader of another process kept the log from being emptied */
    }
    if (e != EG_OK && e != EG_EFULL) {
        (void)snprintf(why, why_size, "%s", s->why);
        return e;
    }
    return EG_OK;
}

static enum eg_err prepare(struct eg_sqlite *s, char *why, size_t why_size)
{
    int rc = eg_sq_batch_open(s);
    for (int i = 0; rc == SQLITE_OK && i < EG_ST_COUNT; i++) {
        rc = sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->st[i],
                                NULL);
    }
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, s->path, "cannot prepare", s->db, rc);
    }
    return eg_db_map(rc);
}

/* What is kept in memory of it, and offered to readers. */
static enum eg_err load(struct eg_sqlite *s, char *why, size_t why_size)
{
    struct eg_epoch epoch = {0};
    enum eg_err e = eg_sq_epoch(&s->base, &epoch);
    if (e == EG_ENOTFOUND || (e == EG_OK && !epoch.id[0])) {
        (void)snprintf(
            why, why_size,
            "%.400s: damaged: its epoch is missing; nothing was changed; restore a backup",
            s->path);
        return EG_ECORRUPT;
    }
    if (e == EG_OK) {
        e = eg_sq_heads_load(s);
    }
    if (e == EG_OK) {
        e = eg_sq_index_load(s);
    }
    if (e == EG_OK) {
        eg_tail_publish(s->tail, s->path);
    } else {
        (void)snprintf(why, why_size, "%s", s->why);
    }
    return e;
}

static enum eg_err connect_db(struct eg_sqlite *s, char *why, size_t why_size)
{
    int version = 0;
    int rc =
        sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, eg_wal_vfs());
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, s->path, "cannot open", s->db, rc);
        return eg_db_map(rc);
    }
    (void)sqlite3_extended_result_codes(s->db, 1);
    (void)sqlite3_busy_timeout(s->db, 1000);
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    enum eg_err e = eg_db_check_identity(s->db, s->path, &version, why, why_size);
    if (e != EG_OK) {
        return e;
    }
    rc = set_up(s);
    if (rc != SQLITE_OK) {
        eg_db_explain(why, why_size, s->path, "cannot set up", s->db, rc);
        return eg_db_map(rc);
    }
    return eg_sqlite_migrate(s->db, s->path, version, why, why_size);
}

enum eg_err eg_sqlite_open(const char *dir, struct eg_storage **out, char *why, size_t why_size)
{
    bool missing = false;
    *out = NULL;
    eg_db_init();
    struct eg_sqlite *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return EG_ENOMEM;
    }
    s->base.ops = &eg_sqlite_write_ops;
    s->lock_fd = -1;
    s->dead = true; /* until it is open: no checkpoint on the way out */
    s->seen = calloc(EG_SEEN_SLOTS, sizeof(*s->seen));
    s->tail = eg_tail_new();
    enum eg_err e = s->seen != NULL && s->tail != NULL ? EG_OK : EG_ENOMEM;
    if (e == EG_OK) {
        e = eg_sqlite_make_dir(dir, why, why_size);
    }
    if (e == EG_OK) {
        e = eg_db_path(s->path, dir, EG_DB_NAME);
    }
    if (e == EG_OK) {
        e = eg_db_path(s->lock_path, dir, EG_DB_LOCK);
    }
    if (e == EG_OK) {
        e = eg_sqlite_lock(dir, &s->lock_fd, why, why_size);
    }
    if (e == EG_OK) {
        e = eg_sqlite_inspect(s->path, &missing, why, why_size);
    }
    if (e == EG_OK && missing) {
        e = eg_sqlite_create(dir, s->path, why, why_size);
    }
    if (e == EG_OK) {
        e = connect_db(s, why, why_size);
    }
    if (e == EG_OK) {
        e = bring_home(s, why, why_size);
    }
    if (e == EG_OK) {
        e = prepare(s, why, why_size);
    }
    if (e == EG_OK) {
        e = load(s, why, why_size);
    }
    if (e != EG_OK) {
        eg_sqlite_close(&s->base);
        return e;
    }
    s->dead = false;
    s->why[0] = '\0';
    *out = &s->base;
    return EG_OK;
}

void eg_sqlite_close(struct eg_storage *base)
{
    struct eg_sqlite *s = (struct eg_sqlite *)base;
    bool whole = false;
    if (s == NULL) {
        return;
    }
    if (s->in_tx) {
        s->base.ops->rollback(base);
    }
    if (!s->dead) {
        eg_sq_index_settle(s);
        /* What cannot be written now is read again from the changes at the next start. */
        (void)!eg_sq_heads_settle(s);
    }
    eg_buf_free(&s->change.body);
    eg_heads_drop(&s->open);
    eg_sq_batch_close(s);
    if (s->tail != NULL) {
        eg_tail_withdraw(s->tail);
        eg_tail_unref(s->tail);
        eg_walk_close(&s->walk);
        eg_runs_close(s);
    }
    for (int i = 0; i < EG_ST_COUNT; i++) {
        (void)sqlite3_finalize(s->st[i]);
    }
    if (s->db != NULL && !s->dead && checkpoint(s, &whole) == EG_OK && whole) {
        /* The last one out removes the log files, now that all of it is in the database. */
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    }
    (void)sqlite3_close(s->db);
    if (s->lock_fd >= 0) {
        (void)close(s->lock_fd);
    }
    free(s->seen);
    free(s->tops);
    free(s);
}

int eg_sqlite_wal_pages(struct eg_storage *base)
{
    return ((struct eg_sqlite *)base)->wal_since;
}

enum eg_err eg_sqlite_checkpoint(struct eg_storage *base)
{
    struct eg_sqlite *s = (struct eg_sqlite *)base;
    bool whole = false;
    if (s->dead) {
        return EG_EUNKNOWN;
    }
    if (s->wal_total < GATE_PAGES) {
        return checkpoint(s, &whole);
    }
    eg_gate_shut(GATE_WAIT_MS);
    enum eg_err e = checkpoint(s, &whole);
    eg_gate_open();
    return e;
}

/* A checkpoint whenever this much was written since the last one that emptied the log, and after a
 * large event: others wait for the pages of one of these at a time. */
enum eg_err eg_sqlite_maintain(struct eg_storage *base)
{
    struct eg_sqlite *const s = (struct eg_sqlite *)base;
    const bool large = s->large && s->wal_total < GATE_PAGES;
    s->large = false;
    return large || s->wal_since >= CHECKPOINT_PAGES ? eg_sqlite_checkpoint(base) : EG_OK;
}

/* Room for a batch and its checkpoint, as far as the file system tells. */
static bool room(const struct eg_sqlite *s)
{
    struct statvfs v;
    return fstatvfs(s->lock_fd, &v) != 0 ||
           (uint64_t)v.f_bavail >= PROBE_ROOM / (v.f_frsize ? v.f_frsize : 1);
}

enum eg_err eg_sqlite_probe(struct eg_storage *base)
{
    struct eg_sqlite *s = (struct eg_sqlite *)base;
    /* With just enough room for this probe the next batch would fail again. */
    if (s->full && !room(s)) {
        return EG_EFULL;
    }
    enum eg_err e = s->base.ops->begin(base);
    if (e != EG_OK) {
        return e;
    }
    int rc = sqlite3_step(s->st[EG_ST_PROBE]);
    (void)sqlite3_reset(s->st[EG_ST_PROBE]);
    if (rc != SQLITE_DONE) {
        s->err = eg_sqlite_failed(s, "probe", rc);
    }
    return s->base.ops->commit(base);
}

const char *eg_sqlite_why(struct eg_storage *base)
{
    return ((struct eg_sqlite *)base)->why;
}
