/*
 * power.c - power cuts: the real daemon's folder at every kind of instant, held to what it told.
 *
 *   power --recorder FILE [--cuts N] [--seed N]
 *
 * First the daemon runs under the torture's load with the recorder preloaded, through a clean
 * restart and a kill, and each thing a client is told is noted with the recorder's position at that
 * time. Then the folder is made as a cut would have left it (disk.h): right after flushes and at
 * random places between, with every kind of survival. In each folder `ebbgate verify` must find
 * nothing wrong, each session must have its events without a hole, up to at least the last that
 * anybody had been told of, byte for byte; every fifth gets a daemon, which must start, serve
 * the same and take a message.
 *
 * Before all that the same is done with a disk that lies about its last flush: the check must see
 * losses there, or it would prove nothing.
 */
#include "../torture/torture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "record.h"
#include "tl_json.h"

static struct {
    const char *recorder;
    char base[64], records[96], shared[96];
    struct recorder_state *state;
    uint64_t ready_at; /* when the daemon first said that it serves */
    char key_name[256];
    char key[1024];
    char why[1024]; /* the first fault of the folder at hand */
    char *token;
    unsigned long started, verified, empty, events;
} p;

/* --- recording --- */

static uint64_t position(void)
{
    return __atomic_load_n(&p.state->position, __ATOMIC_SEQ_CST);
}

static void make_state(void)
{
    pthread_mutexattr_t shared;
    const int fd = open(p.shared, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *p.state) != 0) {
        load_die("%s: %s", p.shared, strerror(errno));
    }
    p.state = mmap(NULL, sizeof *p.state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p.state == MAP_FAILED) {
        load_die("mmap: %s", strerror(errno));
    }
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&p.state->lock, &shared);
}

static void prepared(void)
{
    char full[PATH_MAX];
    if (!realpath(p.recorder, full)) {
        load_die("%s: %s", p.recorder, strerror(errno));
    }
    setenv("RECORD_DIR", tl_gate_dir(t.gate), 1);
    setenv("RECORD_FILE", p.records, 1);
    setenv("RECORD_STATE", p.shared, 1);
    setenv("LD_PRELOAD", full, 1);
}

static void again(bool clean)
{
    if (clean && tl_gate_stop(t.gate, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(t.gate));
    }
    tl_gate_kill(t.gate);
    t_hang_up();
    if (!tl_gate_start(t.gate)) {
        load_die("the gateway does not start: %s", tl_gate_error(t.gate));
    }
    t_aim();
}

/* The signing key, which tokens in the hands of clients depend on. */
static void note_key(void)
{
    char path[PATH_MAX];
    struct dirent *e;
    snprintf(path, sizeof path, "%s/keys", tl_gate_dir(t.gate));
    DIR *d = opendir(path);
    while (d && (e = readdir(d))) {
        if (e->d_name[0] != '.') {
            snprintf(p.key_name, sizeof p.key_name, "keys/%.200s", e->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
    snprintf(path, sizeof path, "%s/%s", tl_gate_dir(t.gate), p.key_name);
    FILE *f = fopen(path, "r");
    if (!f || fread(p.key, 1, sizeof p.key - 1, f) == 0) {
        load_die("%s: no key", path);
    }
    fclose(f);
}

static void record_run(void)
{
    t.position = position;
    t.prepared = prepared;
    t_start(NULL);
    p.ready_at = position();
    if (p.ready_at == 0) {
        load_die("the recorder recorded nothing");
    }
    note_key();
    t_play(900000);
    again(true);
    t_play(400000);
    again(false);
    t_play(400000);
    t_check();
    p.token = strdup(t.client_token);
    if (tl_gate_stop(t.gate, 30000) != 0) {
        load_die("the gateway does not stop: %s", tl_gate_error(t.gate));
    }
    tl_gate_free(t.gate);
    t.gate = NULL;
    t_hang_up();
    unsetenv("LD_PRELOAD");
    printf("recorded: %.1f MB, %zu accepted messages, %lu sights of events\n",
           (double)position() / 1e6, t.promise_count, t.events);
}

/* --- one folder --- */

static bool fault(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool fault(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p.why, sizeof p.why, fmt, ap);
    va_end(ap);
    return false;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void remove_folder(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Highest cursor of a session that somebody had been told of before the cut. */
static uint64_t told(int session, uint64_t cut)
{
    const struct truth *k = &t.truth[session];
    uint64_t c = k->top;
    while (c > 0 && !(k->at[c] && k->at[c] <= cut)) {
        c--;
    }
    return c;
}

static bool promises_kept(int session, uint64_t cut, uint64_t have, char (*ids)[24])
{
    char want[24];
    for (size_t i = 0; i < t.promise_count; i++) {
        const struct promise *m = &t.promises[i];
        if (m->session != session || (m->cursor > have && m->at > cut)) {
            continue;
        }
        snprintf(want, sizeof want, "c%d-%u", m->client, m->number);
        if (m->cursor > have || strcmp(ids[m->cursor], want) != 0) {
            return fault("session %d: %s was accepted at %" PRIu64 ", the log has %" PRIu64
                         " events",
                         session, want, m->cursor, have);
        }
    }
    return true;
}

static bool session_whole(sqlite3_stmt *st, int session, uint64_t cut)
{
    static char ids[CURSORS_MAX][24];
    const struct truth *k = &t.truth[session];
    char name[32];
    uint64_t have = 0;
    t_session_name(session, name);
    sqlite3_bind_text(st, 1, name, -1, SQLITE_TRANSIENT);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        const uint64_t cursor = (uint64_t)sqlite3_column_int64(st, 0);
        const char *body = sqlite3_column_blob(st, 1);
        const size_t n = (size_t)sqlite3_column_bytes(st, 1);
        if (cursor != ++have || cursor >= CURSORS_MAX) {
            return fault("session %d: cursor %" PRIu64 " where %" PRIu64 " belongs", session,
                         cursor, have);
        }
        if (k->print[cursor] && k->print[cursor] != t_print(body, n)) {
            return fault("session %d: cursor %" PRIu64 " is another event: %.*s", session, cursor,
                         (int)(n > 300 ? 300 : n), body);
        }
        const char *id = memmem(body, n, "\"message_id\":\"", 14);
        snprintf(ids[cursor], sizeof ids[cursor], "%.*s", id ? (int)strcspn(id + 14, "\"") : 0,
                 id ? id + 14 : "");
        p.events++;
    }
    sqlite3_reset(st);
    if (rc != SQLITE_DONE) {
        return fault("session %d cannot be read: sqlite %d", session, rc);
    }
    if (have < told(session, cut)) {
        return fault("session %d: %" PRIu64 " was told of, the log ends at %" PRIu64, session,
                     told(session, cut), have);
    }
    return promises_kept(session, cut, have, ids);
}

static bool anything_told(uint64_t cut)
{
    for (int s = 0; s < SESSIONS; s++) {
        if (told(s, cut)) {
            return true;
        }
    }
    return false;
}

static bool key_there(const char *folder, uint64_t cut)
{
    char path[PATH_MAX], now[1024] = "";
    if (cut < p.ready_at) {
        return true;
    }
    snprintf(path, sizeof path, "%s/%s", folder, p.key_name);
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(now, 1, sizeof now - 1, f) : 0;
    if (f) {
        fclose(f);
    }
    return (n > 0 && strcmp(now, p.key) == 0) ? true : fault("the key is lost or another one");
}

static bool log_whole(const char *folder, uint64_t cut)
{
    char path[PATH_MAX];
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    bool ok = true;
    snprintf(path, sizeof path, "%s/ebbgate.db", folder);
    if (access(path, F_OK) != 0) {
        p.empty++;
        return anything_told(cut) ? fault("the database is gone") : true;
    }
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db,
                           "SELECT cursor, body FROM events WHERE sid ="
                           " (SELECT sid FROM sessions WHERE id = ?1) ORDER BY cursor",
                           -1, &st, NULL) != SQLITE_OK) {
        ok = fault("the database cannot be read: %s", sqlite3_errmsg(db));
    }
    for (int s = 0; ok && s < SESSIONS; s++) {
        ok = session_whole(st, s, cut);
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
    return ok;
}

static bool verified(const char *folder)
{
    char path[PATH_MAX], out[4096] = "";
    int ends[2], status = 0;
    snprintf(path, sizeof path, "%s/ebbgate.db", folder);
    if (access(path, F_OK) != 0) {
        return true;
    }
    if (pipe(ends) != 0) {
        load_die("pipe: %s", strerror(errno));
    }
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        execl(tl_gate_bin(), tl_gate_bin(), "verify", "--data", folder, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t r; (r = read(ends[0], out + n, sizeof out - 1 - n)) > 0;) {
        n += (size_t)r;
    }
    close(ends[0]);
    waitpid(pid, &status, 0);
    p.verified++;
    return status == 0 ? true : fault("verify: %s", out);
}

/* --- a daemon on a folder --- */

static bool same_events(struct tl_ws *ws, int session, uint64_t *have)
{
    int why = 0;
    bool end = false;
    for (*have = 0; !end;) {
        cJSON *o = tl_json_next(ws, 20000, &why);
        if (!o) {
            return fault("session %d: no whole replay: %s", session, tl_json_why(why));
        }
        end = tl_is(o, "type", "replay_end");
        if (tl_is(o, "type", "replay")) {
            size_t n = 0;
            const char *event = tl_raw(tl_ws_data(ws), "event.data", &n);
            const uint64_t cursor = (uint64_t)tl_int(o, "seq");
            if (cursor != ++*have) {
                cJSON_Delete(o);
                return fault("session %d: a hole at %" PRIu64 " in the replay", session, *have);
            }
            const uint64_t print = t.truth[session].print[cursor];
            /* What the daemon has added by itself since its start is not of the recorded run. */
            if (print && cursor <= t.truth[session].top && event && n &&
                print != t_print(event, n) && !strstr(tl_ws_data(ws), "\"source\":\"gateway\"")) {
                cJSON_Delete(o);
                return fault("session %d: cursor %" PRIu64 " is another event", session, cursor);
            }
        }
        cJSON_Delete(o);
    }
    return true;
}

static bool serves(struct tl_gate *g, int session, uint64_t cut)
{
    const struct tl_ws_opts o = {.port = tl_gate_port(g), .bearer = p.token};
    char name[32], extra[128];
    uint64_t have = 0;
    bool ok = true;
    t_session_name(session, name);
    snprintf(extra, sizeof extra,
             "\"session_id\":\"%s\",\"create\":true,\"since\":0,\"capabilities\":[\"streaming\"]",
             name);
    struct tl_ws *ws = tl_ws_open(&o, NULL);
    if (!ws) {
        return fault("no connection");
    }
    cJSON *hello = tl_hello(ws, "torture", NULL, extra, 10000);
    if (!tl_is(hello, "type", "hello_ok")) {
        /* Without its key the folder knows no token; that is fine before anybody was told. */
        ok = cut < p.ready_at ? true : fault("session %d: hello was refused", session);
        goto out;
    }
    if (!tl_has(hello, "resumed") || tl_bool(hello, "resumed")) {
        ok = same_events(ws, session, &have);
    }
    if (ok && have < told(session, cut)) {
        ok = fault("session %d: %" PRIu64 " was told of, the replay ends at %" PRIu64, session,
                   told(session, cut), have);
    }
    if (ok) {
        tl_ws_sendf(ws, "{\"type\":\"message\",\"message_id\":\"after\",\"content\":\"x\"}");
        cJSON *answer = tl_json_wait(ws, "response", 10000);
        if (!tl_is(answer, "status", "accepted") || tl_int(answer, "cursor") <= (int64_t)have) {
            ok = fault("session %d: no message is accepted after %" PRIu64, session, have);
        }
        cJSON_Delete(answer);
    }
out:
    cJSON_Delete(hello);
    tl_ws_free(ws);
    return ok;
}

/* The gate of the test library brings its own folder; the cut is made there. */
static bool daemon_serves(const struct disk *d, enum survival keep, uint64_t seed, uint64_t cut)
{
    const struct tl_gate_opts o = {.config = T_CONFIG};
    struct tl_gate *g = tl_gate_prepare(&o);
    bool ok = g && disk_make(d, tl_gate_dir(g), keep, seed);
    if (!ok) {
        load_die("the folder cannot be made: %s", strerror(errno));
    }
    if (!tl_gate_start(g)) {
        ok = fault("the daemon does not start: %s", tl_gate_error(g));
    }
    for (int s = 0; ok && s < SESSIONS; s++) {
        ok = serves(g, s, cut);
    }
    if (ok && tl_gate_stop(g, 30000) != 0) {
        ok = fault("the daemon does not stop: %s", tl_gate_error(g));
    }
    p.started++;
    tl_gate_free(g);
    return ok;
}

/* --- the cuts --- */

static bool check_cut(const struct disk *d, unsigned long number, enum survival keep, uint64_t seed,
                      uint64_t cut)
{
    char folder[96];
    snprintf(folder, sizeof folder, "%s/cut", p.base);
    if (mkdir(folder, 0700) != 0 || !disk_make(d, folder, keep, seed)) {
        load_die("%s: %s", folder, strerror(errno));
    }
    /* Whoever comes first recovers the log: now the one, now the other. */
    bool ok = key_there(folder, cut);
    if (number % 2) {
        ok = ok && verified(folder) && log_whole(folder, cut);
    } else {
        ok = ok && log_whole(folder, cut) && verified(folder);
    }
    if (ok && number % 5 == 0) {
        ok = daemon_serves(d, keep, seed, cut);
    }
    remove_folder(folder);
    return ok;
}

/* n cuts; returns how many folders were at fault. */
static unsigned long cuts(unsigned long n, bool lying)
{
    static const char *const kept[KEEP_KINDS] = {
        "nothing", "all", "a prefix", "512-byte pieces", "4-KiB pieces", "pieces and rubbish"};
    struct disk *d = disk_open(p.records, lying);
    const uint64_t *flush;
    const size_t flushes = disk_flushes(d, &flush);
    unsigned long bad = 0;
    if (!lying) {
        printf("%zu writes, %zu flushes (%zu of the log, %zu of the database)\n", disk_writes(d),
               flushes, disk_flushes_of(d, "-wal"), disk_flushes_of(d, "ebbgate.db"));
    }
    for (unsigned long i = 0; i < n; i++) {
        /* Spread over the flushes: right after one, or somewhere before the next. */
        const size_t at = (size_t)((double)i / (double)n * (double)flushes);
        const uint64_t end = at + 1 < flushes ? flush[at + 1] : disk_size(d);
        const uint64_t cut = i % 3 == 0 ? flush[at] : flush[at] + t_random(end - flush[at] + 1);
        const enum survival keep = (enum survival)(lying ? KEEP_NONE : t_random(KEEP_KINDS));
        const uint64_t seed = t_random(UINT64_MAX);
        disk_forward(d, cut);
        if (!check_cut(d, lying ? 1 : i, keep, seed, cut)) {
            bad++;
            if (!lying) {
                printf("cut %lu at %" PRIu64 ", %s of the unflushed survived (seed %" PRIu64
                       "): %s\n",
                       i, cut, kept[keep], seed, p.why);
            }
        }
    }
    disk_close(d);
    return bad;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"recorder", required_argument, NULL, 'r'},
                                            {"cuts", required_argument, NULL, 'c'},
                                            {"seed", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    unsigned long n = 300;
    t.rng = (uint64_t)load_now_us();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r') {
            p.recorder = optarg;
        } else if (c == 'c') {
            n = strtoul(optarg, NULL, 10);
        } else if (c == 's') {
            t.rng = strtoull(optarg, NULL, 10);
        } else {
            return 64;
        }
    }
    if (!p.recorder || n == 0) {
        return 64;
    }
    if (tl_gate_sanitized()) {
        puts("skipped: the recorder cannot be preloaded into a sanitizer's build");
        return 0;
    }
    if (access("/dev/shm", W_OK) == 0 && !getenv("TMPDIR")) {
        setenv("TMPDIR", "/dev/shm", 1); /* thousands of folders: not on the disk */
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %" PRIu64 "\n", t.rng);
    snprintf(p.base, sizeof p.base, "%.32s/ebbgate-power.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(p.base)) {
        load_die("%s: %s", p.base, strerror(errno));
    }
    snprintf(p.records, sizeof p.records, "%s/records", p.base);
    snprintf(p.shared, sizeof p.shared, "%s/state", p.base);
    make_state();
    record_run();
    const unsigned long seen = cuts(20, true);
    const unsigned long bad = cuts(n, false);
    remove_folder(p.base);
    printf("a disk that lies about its last flush: a loss was seen in %lu of 20 cuts\n", seen);
    printf("%lu cuts (%lu verified, %lu before there was a database, %lu daemons started), %lu "
           "events compared: %lu folders at fault\n%lu passed, %lu failed\n",
           n, p.verified, p.empty, p.started, p.events, bad, n - bad, bad + (seen == 0));
    return bad || seen == 0;
}
