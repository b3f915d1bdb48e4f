/*
 * fuzz_store.c - a damaged database: as a backup that is restored, or as what the disk gives when
 * the gateway starts. It is refused with a sentence, or it is opened, and then verified, read and
 * written to: nothing breaks, and what `verify` calls intact has every event as it was.
 *
 * Input: the first byte says how: bit 0, the file is put in place instead of restored; bit 1, the
 * rest is the file itself; else the rest are changes of three bytes to a small good database: which
 * mark of it (an event, a row's text, the start of a page), how far after it, and what to XOR the
 * byte there with (0: cut the file there). With FUZZ_STORY set in the environment the verdicts are
 * printed.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "core/machine.h"
#include "store/reader.h"
#include "store/sqlite.h"
#include "wire/event.h"

#define SESSIONS 3
#define EVENTS 40
#define MARKS 512
#define PAGE 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[48], dir[64], file[64];
static char *good, *work; /* the good database, and a copy to damage */
static size_t good_n;
static size_t mark[MARKS], marks;
static struct eg_bytes *event[SESSIONS][EVENTS + 1];
static struct eg_now now = {.mono_ms = 1000000, .wall_ms = 1800000000000};

#define must(holds)                                                                                \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #holds);                            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct eg_now fake_now(void)
{
    return now;
}

static void empty_dir(void)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

static void put_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "w");
    must(f && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

/* --- the good database --- */

static void fill_session(struct eg_storage *s, int n)
{
    struct eg_session_row row = {.state = n == 2 ? EG_SESSION_CLOSED : EG_SESSION_OPEN,
                                 .oldest = 1,
                                 .agent = "a",
                                 .owner = "u",
                                 .created_ms = now.wall_ms,
                                 .updated_ms = now.wall_ms};
    snprintf(row.id, sizeof row.id, "session-%d", n);
    s->ops->session_insert(s, &row);
    for (uint64_t c = 1; c <= EVENTS; c++) {
        char id[40], tail[80];
        uint8_t idkey[EG_IDKEY_BYTES] = {(uint8_t)n, (uint8_t)c};
        snprintf(id, sizeof id, "event-%d-%d", n, (int)c);
        snprintf(tail, sizeof tail, "\"data\":{\"content\":\"said %d\"}", (int)c);
        const struct eg_event e = {.type = EG_LIT("message"),
                                   .session_id = eg_slice_cstr(row.id),
                                   .event_id = eg_slice_cstr(id),
                                   .source = EG_LIT("client:u"),
                                   .cursor = c,
                                   .turn = c,
                                   .timestamp_ms = now.wall_ms,
                                   .tail = eg_slice_cstr(tail)};
        struct eg_bytes *b = event[n][c] = eg_event_make(&e);
        must(b);
        eg_chain_next(row.hash, eg_bytes_slice(b), row.hash);
        s->ops->event_append(s, &(struct eg_event_row){.sid = row.sid,
                                                       .cursor = c,
                                                       .hash = row.hash,
                                                       .idkey = c % 2 ? idkey : NULL,
                                                       .body = eg_bytes_slice(b)});
        row.cursor = c;
        row.bytes += (int64_t)b->n;
    }
    s->ops->session_update(s, &row);
    for (uint64_t c = EVENTS - 2; c <= EVENTS && n == 0; c++)
        s->ops->turn_put(
            s, &(struct eg_turn_row){.sid = row.sid,
                                     .turn = c,
                                     .state = c == EVENTS - 2 ? EG_TURN_RUNNING : EG_TURN_QUEUED,
                                     .attempt = 1,
                                     .created_ms = now.wall_ms,
                                     .until_ms = now.wall_ms + 1000,
                                     .worker = "worker-1"});
    s->ops->turn_put(s, &(struct eg_turn_row){.sid = row.sid,
                                              .turn = 1,
                                              .state = EG_TURN_DEAD,
                                              .created_ms = now.wall_ms,
                                              .error = "no attempt"});
    s->ops->ack_put(s, row.sid, EG_LIT("u"), 3);
}

static void find_marks(void)
{
    static const char *const text[] = {"{\"type\":", "session-", "event-",  "worker-", "agent",
                                       "jti:",       "tester",   "CREATE ", "epoch"};
    for (size_t at = 0; at < good_n; at += PAGE)
        mark[marks++] = at;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        for (char *p = good; (p = memmem(p, (size_t)(good + good_n - p), text[i], strlen(text[i])));
             p++) {
            if (marks < MARKS)
                mark[marks++] = (size_t)(p - good) - (p - good > 32 ? 32 : 0);
        }
    }
}

static void clean_up(void)
{
    empty_dir();
    unlink(file);
    rmdir(base);
}

static void set_up(void)
{
    struct eg_storage *s = NULL;
    char why[300];
    snprintf(base, sizeof base, "%s/ebbgate-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    must(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/data", base);
    snprintf(file, sizeof file, "%s/copy", base);
    atexit(clean_up);
    eg_clock_replace(fake_now);
    eg_log_setup(EG_LOG_ERROR, EG_LOG_TEXT);
    must(eg_sqlite_open(dir, &s, why, sizeof why) == EG_OK);
    must(s->ops->begin(s) == EG_OK);
    s->ops->agent_put(s, EG_LIT("a"), now.wall_ms);
    for (int n = 0; n < SESSIONS; n++)
        fill_session(s, n);
    s->ops->revoke(s, "jti:gone", now.wall_ms * 2);
    s->ops->audit(s, now.wall_ms, EG_LIT("tester"), EG_LIT("::1"), EG_LIT("act"), EG_LIT("x"));
    must(s->ops->commit(s) == EG_OK);
    s->ops->close(s);
    must(eg_sqlite_backup(dir, file, NULL, NULL, why, sizeof why) == EG_OK);
    FILE *f = fopen(file, "r");
    must(f && fseek(f, 0, SEEK_END) == 0 && (good_n = (size_t)ftell(f)) > PAGE);
    rewind(f);
    good = malloc(good_n);
    work = malloc(good_n);
    must(good && work && fread(good, 1, good_n, f) == good_n);
    fclose(f);
    find_marks();
}

/* --- what is opened is used --- */

struct seen {
    int session;
    uint64_t next;
    bool intact;
};

static void see(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct seen *s = arg;
    if (s->intact) {
        must(cursor == s->next && cursor <= EVENTS);
        must(eg_slice_eq(body, eg_bytes_slice(event[s->session][cursor])));
    }
    s->next = cursor + 1;
}

static void count_row(void *arg, const struct eg_session_row *row)
{
    must(strlen(row->id) <= EG_ID_MAX && strlen(row->agent) <= EG_ID_MAX);
    ++*(int *)arg;
}

static void count_turn(void *arg, const struct eg_turn_row *row, const char *id, const char *agent)
{
    must(row->state <= EG_TURN_DEAD && id && agent);
    ++*(int *)arg;
}

static void count_text(void *arg, const char *text, int64_t number)
{
    (void)number;
    must(text);
    ++*(int *)arg;
}

static void count_entry(void *arg, int64_t id, int64_t at_ms, const char *who, const char *from,
                        const char *action, const char *detail)
{
    (void)id;
    (void)at_ms;
    must(who && from && action && detail);
    ++*(int *)arg;
}

static void use_reader(bool intact)
{
    struct eg_reader *r = NULL;
    struct eg_session_row row;
    const struct eg_session_query all = {.state = -1, .limit = 50};
    char why[300] = "";
    int n = 0;
    if (eg_reader_open(dir, &r, why, sizeof why) != EG_OK) {
        must(why[0]);
        return;
    }
    for (int s = 0; s < SESSIONS; s++) {
        char id[24];
        snprintf(id, sizeof id, "session-%d", s);
        if (eg_reader_session(r, eg_slice_cstr(id), &row) != EG_OK)
            continue;
        const bool there =
            row.state <= EG_SESSION_CLOSED && row.cursor == EVENTS && row.oldest == 1;
        struct seen seen = {.session = s, .next = 1, .intact = intact && there};
        const struct eg_page page = {
            .sid = row.sid, .from = 1, .to = EVENTS, .max = EVENTS, .max_bytes = 1 << 20};
        const enum eg_err e = eg_reader_events(r, &page, see, &seen);
        must(!seen.intact || (e == EG_OK && seen.next == EVENTS + 1));
    }
    (void)!eg_reader_sessions(r, &all, count_row, &n);
    (void)!eg_reader_turns(r, 0, -1, 0, 0, 50, count_turn, &n);
    (void)!eg_reader_agents(r, count_text, &n);
    (void)!eg_reader_revoked(r, count_text, &n);
    (void)!eg_reader_acks(r, 1, count_text, &n);
    (void)!eg_reader_audit(r, 0, 10, count_entry, &n);
    eg_reader_close(r);
}

static bool ended; /* the core would have ended the process */

/* One batch; a failing one is tried again read-only, as the core does. One that cannot even be
 * refused, since what it needs cannot be read, ends the process there. */
static void batch(struct eg_machine *m, struct eg_cmd *cmd)
{
    for (int i = 0; !ended; i++) {
        if (cmd)
            eg_machine_step(m, cmd, now);
        eg_machine_tick(m, now);
        const bool writes = eg_machine_flush(m);
        enum eg_err e = EG_OK;
        if (!m->failed && writes) {
            e = m->storage->ops->commit(m->storage);
            m->writing = false;
        }
        if (!m->failed && e == EG_OK) {
            eg_machine_committed(m);
            break;
        }
        eg_machine_rolled_back(m);
        ended = i == 2;
    }
    eg_release_free(m->release[0]);
    m->release[0] = NULL;
    for (unsigned i = 0; i < m->revoked_count; i++)
        free(m->revoked[i].what);
    m->revoked_count = m->done_count = 0;
}

static void said(struct eg_machine *m, eg_conn_id id, enum eg_cmd_kind kind, const char *json)
{
    struct eg_cmd *cmd = eg_cmd_new(kind, id);
    struct eg_frame_error err;
    must(cmd && eg_frame_parse(eg_slice_cstr(json), &cmd->frame, &err) == EG_OK);
    if (kind == EG_CMD_FRAME)
        eg_frame_tail(&cmd->frame, &cmd->tail);
    else
        cmd->identity = (struct eg_identity){.sub = strdup("u"), .scopes = 7};
    batch(m, cmd);
    eg_cmd_free(cmd);
}

static void use_machine(struct eg_storage *storage)
{
    struct eg_settings *settings = eg_settings_new();
    struct eg_machine *m = NULL;
    must(settings);
    ended = false;
    if (eg_machine_new(storage, settings, 1, now, &m) == EG_OK) {
        batch(m, NULL);
        said(m, 1, EG_CMD_ATTACH,
             "{\"type\":\"hello\",\"agent_id\":\"a\",\"role\":\"agent\",\"concurrency\":9}");
        for (eg_conn_id id = 2; id < 2 + SESSIONS; id++) {
            char json[160];
            snprintf(json, sizeof json,
                     "{\"type\":\"hello\",\"agent_id\":\"a\",\"session_id\":\"session-%d\","
                     "\"since\":\"acked\"}",
                     (int)id - 2);
            said(m, id, EG_CMD_ATTACH, json);
            said(m, id, EG_CMD_FRAME, "{\"type\":\"message\",\"content\":1,\"message_id\":\"m\"}");
            said(m, id, EG_CMD_FRAME, "{\"type\":\"abort\"}");
        }
        struct eg_call retry = {
            .kind = EG_CALL_TURN_RETRY, .session_id = EG_LIT("session-0"), .turn = 1};
        struct eg_cmd *cmd = eg_cmd_new(EG_CMD_CALL, 0);
        must(cmd);
        cmd->call = &retry;
        batch(m, cmd);
        eg_cmd_free(cmd);
        eg_machine_free(m);
    }
    eg_settings_unref(settings);
}

static void note_fault(void *arg, const char *text)
{
    must(text && *text);
    ++*(int64_t *)arg;
}

static void progress(void *arg, int64_t done, int64_t total)
{
    (void)arg;
    must(done <= total); /* nonsense when rows are */
}

static void use_folder(void)
{
    struct eg_storage *storage = NULL;
    struct eg_check_result result = {0};
    char why[600] = "";
    int64_t faults = 0;
    enum eg_err e =
        eg_sqlite_verify(dir, NULL, true, note_fault, progress, &faults, &result, why, sizeof why);
    if (getenv("FUZZ_STORY"))
        fprintf(stderr, "verify: %s, %lld faults %s\n", eg_err_text(e), (long long)faults, why);
    must(e == EG_OK || why[0]);
    must(e != EG_OK || (result.faults > 0) == (faults > 0));
    use_reader(e == EG_OK && !result.faults);
    why[0] = '\0';
    if (eg_sqlite_open(dir, &storage, why, sizeof why) != EG_OK) {
        must(why[0]);
        return;
    }
    use_machine(storage);
    storage->ops->close(storage);
}

static size_t damage(const uint8_t *p, size_t n)
{
    size_t length = good_n;
    memcpy(work, good, good_n);
    for (; n >= 3; p += 3, n -= 3) {
        const size_t at = mark[p[0] % marks] + p[1];
        if (at < good_n && p[2])
            work[at] = (char)(work[at] ^ p[2]);
        else if (at < length)
            length = at;
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[600] = "";
    if (!good)
        set_up();
    if (size < 1)
        return 0;
    const bool raw = data[0] & 2;
    const size_t n = raw ? size - 1 : damage(data + 1, size - 1);
    const void *p = raw ? (const void *)(data + 1) : work;
    empty_dir();
    if (data[0] & 1) {
        char path[100];
        must(mkdir(dir, 0700) == 0);
        snprintf(path, sizeof path, "%s/ebbgate.db", dir);
        put_file(path, p, n);
        use_folder();
    } else {
        put_file(file, p, n);
        if (eg_sqlite_restore(file, dir, why, sizeof why) == EG_OK)
            use_folder();
        else
            must(why[0]);
    }
    return 0;
}
