/* storefix.c - see storefix.h. */
#include "storefix.h"

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/event.h"

static void fatal(const char *what, const char *detail)
{
    (void)fprintf(stderr, "storefix: %s: %s\n", what, detail);
    abort();
}

void scratch_make(char out[64])
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(out, 64, "%s/egstore.XXXXXX", tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
    if (mkdtemp(out) == NULL) {
        fatal("mkdtemp", strerror(errno));
    }
}

void scratch_drop(const char *dir)
{
    char path[4096];
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (unlink(path) != 0) {
            scratch_drop(path);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    (void)rmdir(dir);
}

int scratch_count(const char *dir, const char *begin)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        n += strncmp(e->d_name, begin, strlen(begin)) == 0;
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return n;
}

const char *scratch_path(const char *dir, const char *name)
{
    static char buf[4][4096];
    static int at;
    at = (at + 1) % 4;
    (void)snprintf(buf[at], sizeof(buf[at]), "%s/%s", dir, name);
    return buf[at];
}

void scratch_write(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (f == NULL || (n > 0 && fwrite(p, 1, n, f) != n) || fclose(f) != 0) {
        fatal("write", path);
    }
}

char *scratch_read(const char *path, size_t *n)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (f == NULL || fstat(fileno(f), &st) != 0) {
        fatal("read", path);
    }
    char *p = malloc((size_t)st.st_size + 1);
    *n = (size_t)st.st_size;
    if (p == NULL || fread(p, 1, *n, f) != *n) {
        fatal("read", path);
    }
    (void)fclose(f);
    return p;
}

struct eg_storage *store_must_open(const char *dir)
{
    struct eg_storage *s = NULL;
    char why[512] = "";
    if (eg_sqlite_open(dir, &s, why, sizeof(why)) != EG_OK) {
        fatal("open", why);
    }
    return s;
}

void store_close(struct eg_storage *s)
{
    s->ops->close(s);
}

void store_begin(struct eg_storage *s)
{
    enum eg_err e = s->ops->begin(s);
    if (e != EG_OK) {
        fatal("begin", eg_err_text(e));
    }
}

void store_commit(struct eg_storage *s)
{
    enum eg_err e = s->ops->commit(s);
    if (e != EG_OK) {
        fatal("commit", eg_err_text(e));
    }
}

struct eg_session_row store_session(struct eg_storage *s, const char *id)
{
    struct eg_session_row row = {.oldest = 1};
    (void)snprintf(row.id, sizeof(row.id), "%s", id);
    (void)snprintf(row.agent, sizeof(row.agent), "a");
    (void)snprintf(row.owner, sizeof(row.owner), "o");
    row.created_ms = row.updated_ms = STOREFIX_TIME;
    s->ops->session_insert(s, &row);
    return row;
}

void store_event(struct eg_storage *s, struct eg_session_row *row, const char *text,
                 const uint8_t *idkey, int64_t at_ms)
{
    struct eg_buf tail = {0};
    char event_id[37];
    eg_uuid7(at_ms, event_id);
    eg_buf_printf(&tail, "\"data\":{\"content\":\"%s\"}", text);
    row->cursor++;
    struct eg_event e = {.type = EG_LIT("message"),
                         .session_id = eg_slice_cstr(row->id),
                         .event_id = eg_slice_cstr(event_id),
                         .source = EG_LIT("client:o"),
                         .cursor = row->cursor,
                         .turn = row->cursor,
                         .timestamp_ms = at_ms,
                         .tail = {tail.p, tail.n}};
    struct eg_bytes *body = eg_event_make(&e);
    if (body == NULL) {
        fatal("event", "no memory");
    }
    eg_chain_next(row->hash, eg_bytes_slice(body), row->hash);
    struct eg_event_row ev = {row->sid, row->cursor, row->hash, idkey, eg_bytes_slice(body)};
    s->ops->event_append(s, &ev);
    row->bytes += (int64_t)body->n;
    row->updated_ms = at_ms;
    eg_bytes_unref(body);
    eg_buf_free(&tail);
}

struct eg_session_row store_filled(struct eg_storage *s, const char *id, int n, const char *text)
{
    store_begin(s);
    struct eg_session_row row = store_session(s, id);
    for (int i = 0; i < n; i++) {
        store_event(s, &row, text, NULL, STOREFIX_TIME + i * 1000LL);
    }
    s->ops->session_update(s, &row);
    store_commit(s);
    return row;
}

struct eg_session_row store_queued(struct eg_storage *s, const char *id, int n)
{
    store_begin(s);
    struct eg_session_row row = store_session(s, id);
    for (int i = 0; i < n; i++) {
        store_event(s, &row, "x", NULL, row.updated_ms);
        const struct eg_turn_row turn = {.sid = row.sid, .turn = row.cursor};
        s->ops->turn_put(s, &turn);
    }
    s->ops->session_update(s, &row);
    store_commit(s);
    return row;
}

int64_t store_sql(const char *dir, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    const char *rest = sql;
    int64_t out = 0;
    if (sqlite3_open_v2(scratch_path(dir, "ebbgate.db"), &db, SQLITE_OPEN_READWRITE, NULL) !=
        SQLITE_OK) {
        fatal("sql", sqlite3_errmsg(db));
    }
    (void)sqlite3_busy_timeout(db, 5000);
    while (*rest != '\0') {
        if (sqlite3_prepare_v2(db, rest, -1, &st, &rest) != SQLITE_OK) {
            fatal(sql, sqlite3_errmsg(db));
        }
        int rc = st != NULL ? sqlite3_step(st) : SQLITE_DONE;
        if (rc == SQLITE_ROW) {
            out = sqlite3_column_int64(st, 0);
        } else if (rc != SQLITE_DONE) {
            fatal(sql, sqlite3_errmsg(db));
        }
        (void)sqlite3_finalize(st);
    }
    (void)sqlite3_close(db);
    return out;
}

struct eg_check_result store_must_be_whole(const char *dir)
{
    struct eg_check_result out;
    char why[512] = "";
    if (eg_sqlite_verify(dir, NULL, true, NULL, NULL, NULL, &out, why, sizeof(why)) != EG_OK ||
        out.faults != 0) {
        fatal("not whole", why);
    }
    return out;
}
