/*
 * cmd_store.c - commands on a data folder without a gateway: verify, check, backup, restore.
 *
 * verify and check only read and may run beside a gateway; backup copies while it writes; restore
 * fills an empty folder. Progress goes to stderr when that is a terminal.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app/api.h"
#include "base/clock.h"
#include "store/sqlite.h"

/* Where progress is shown: at most five times a second. */
struct progress {
    const char *what;
    int64_t shown_ms;
    bool tty, any;
};

static void show_progress(void *arg, int64_t done, int64_t total)
{
    struct progress *p = arg;
    int64_t now = eg_clock_mono_ms();
    if (!p->tty || total <= 0 || (now - p->shown_ms < 200 && done < total))
        return;
    p->shown_ms = now;
    p->any = true;
    fprintf(stderr, "\r%s %3d%%", p->what, (int)(done * 100 / total));
}

static bool show_and_go_on(void *arg, int64_t done, int64_t total)
{
    show_progress(arg, done, total);
    return true;
}

static void end_progress(struct progress *p)
{
    if (p->any)
        fprintf(stderr, "\r%*s\r", (int)strlen(p->what) + 6, "");
}

static void print_fault(void *arg, const char *text)
{
    (void)arg;
    printf("fault: %s\n", text);
}

/* What an error of the store means for the caller. */
static int exit_of(enum eg_err err)
{
    switch (err) {
    case EG_OK:
        return EG_EXIT_OK;
    case EG_EBUSY:
    case EG_EIO:
    case EG_EFULL:
    case EG_ENOMEM:
        return EG_EXIT_RETRY;
    case EG_ENOTFOUND:
    case EG_ECORRUPT:
    case EG_ETOONEW:
    case EG_EDENIED:
        return EG_EXIT_CONFIG;
    default:
        return EG_EXIT_FAILED;
    }
}

static void print_result(const struct eg_check_result *r, bool quiet)
{
    if (quiet && !r->faults && !r->missed)
        return;
    printf("%s: %lld sessions, %lld events, %lld faults",
           r->faults   ? "damaged"
           : r->missed ? "incomplete"
                       : "intact",
           (long long)r->sessions, (long long)r->events, (long long)r->faults);
    if (r->missed)
        printf("; %lld of the sessions were trimmed while they were read and are not checked",
               (long long)r->missed);
    printf("\n");
}

static int verify(const struct eg_command *cmd, int argc, char **argv, bool deep)
{
    struct eg_data_opts where = {0};
    struct eg_config c;
    struct eg_check_result r = {0};
    struct progress p = {.what = deep ? "checking" : "verifying", .tty = isatty(2)};
    const char *session = NULL;
    char why[512] = "";
    bool quiet = false;
    const struct eg_opt opts[] = {
        {"session", 0, EG_OPT_TEXT, "S", "this session only", &session, 0, 0},
        {"quiet", 'q', EG_OPT_FLAG, NULL, "print faults only", &quiet, 0, 0},
        EG_DATA_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, NULL, 0, NULL, NULL, NULL);
    if (code == EG_PROCEED)
        code = eg_cli_data(cmd, &where, &c);
    if (code != EG_PROCEED)
        return code;
    enum eg_err err = eg_sqlite_verify(c.settings->data, session, deep, print_fault, show_progress,
                                       &p, &r, why, sizeof why);
    end_progress(&p);
    if (err != EG_OK) {
        eg_complain(cmd, "%s", *why ? why : eg_err_text(err));
        code = r.no_such ? EG_EXIT_FAILED : exit_of(err);
    } else {
        print_result(&r, quiet);
        code = r.faults ? EG_EXIT_FAILED : r.missed ? EG_EXIT_RETRY : EG_EXIT_OK;
    }
    eg_config_free(&c);
    return eg_cli_done(cmd, code);
}

static int run_verify(const struct eg_command *cmd, int argc, char **argv)
{
    return verify(cmd, argc, argv, false);
}

static int run_check(const struct eg_command *cmd, int argc, char **argv)
{
    return verify(cmd, argc, argv, true);
}

/* The gateway's own backup, followed until it is done. to: absolute. */
static int ask_backup(const struct eg_command *cmd, const struct eg_api_opts *where, const char *to)
{
    struct eg_api api;
    struct eg_buf body = {0}, out = {0};
    struct eg_json_doc doc;
    struct progress p = {.what = "copying", .tty = isatty(2)};
    int code = eg_api_init(&api, cmd, where);
    eg_buf_char(&body, '{');
    eg_json_kcstr(&body, "to", to);
    eg_buf_char(&body, '}');
    const struct eg_api_request begin = {.method = "POST", .path = "/backup", .body = &body};
    const struct eg_api_request look = {.method = "GET", .path = "/backup"};
    if (code == EG_PROCEED)
        code = eg_api_call(&api, &begin, &out);
    while (code == EG_PROCEED) {
        const struct timespec pause = {.tv_nsec = 100000000};
        eg_buf_reset(&out);
        code = eg_api_call(&api, &look, &out);
        if (code != EG_PROCEED ||
            eg_json_scan((struct eg_slice){out.p, out.n}, EG_JSON_DEPTH_MAX, &doc) != EG_OK)
            break;
        show_progress(&p, eg_field_int_or(&doc, "pages_done", 0),
                      eg_field_int_or(&doc, "pages_total", 0));
        if (eg_field_is(&doc, "state", "done")) {
            code = EG_EXIT_OK;
        } else if (!eg_field_is(&doc, "state", "running")) {
            char *why = eg_field_text(&doc, "error");
            end_progress(&p);
            eg_complain(cmd, "%s", why ? why : "the backup failed");
            free(why);
            code = EG_EXIT_FAILED;
        } else {
            nanosleep(&pause, NULL);
        }
    }
    end_progress(&p);
    if (code == EG_EXIT_OK)
        printf("%s\n", to);
    eg_buf_free(&body);
    eg_buf_free(&out);
    eg_api_free(&api);
    return eg_cli_done(cmd, code == EG_PROCEED ? EG_EXIT_FAILED : code);
}

static int run_backup(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_data_opts where = {0};
    struct eg_config c;
    struct progress p = {.what = "copying", .tty = isatty(2)};
    struct eg_api_opts remote = {{0}, NULL, NULL};
    const char *to = NULL;
    char why[512] = "";
    int n = 0;
    const struct eg_opt opts[] = {
        {"url", 0, EG_OPT_TEXT, "URL",
         "let the running gateway at this admin listener do it; FILE is an absolute path there",
         &remote.url, 0, 0},
        {"token", 0, EG_OPT_TEXT, "TOKEN", "with --url: a token (default as for sessions)",
         &remote.token, 0, 0},
        EG_DATA_OPTS(&where),
        {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, &to, 1, &n, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (n < 1)
        return eg_usage(cmd, "name the file to write");
    if (remote.url) {
        remote.data = where;
        return ask_backup(cmd, &remote, to);
    }
    code = eg_cli_data(cmd, &where, &c);
    if (code != EG_PROCEED)
        return code;
    enum eg_err err = eg_sqlite_backup(c.settings->data, to, show_and_go_on, &p, why, sizeof why);
    end_progress(&p);
    if (err == EG_OK)
        printf("%s\n", to);
    else
        eg_complain(cmd, "%s", *why ? why : eg_err_text(err));
    eg_config_free(&c);
    return eg_cli_done(cmd, err == EG_EEXISTS ? EG_EXIT_USAGE : exit_of(err));
}

/*
 * What root made in the data folder goes to the folder's owner, who else could not open it. False
 * with errno when it could not be given.
 */
static bool give_to_owner(const char *dir)
{
    struct stat st;
    bool ok = true;
    DIR *d = geteuid() == 0 ? opendir(dir) : NULL;
    if (!d)
        return geteuid() != 0;
    ok = fstat(dirfd(d), &st) == 0;
    for (struct dirent *e; ok && st.st_uid != 0 && (e = readdir(d));) {
        if (e->d_name[0] != '.')
            ok = fchownat(dirfd(d), e->d_name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) == 0;
    }
    closedir(d);
    return ok;
}

static int run_restore(const struct eg_command *cmd, int argc, char **argv)
{
    struct eg_data_opts where = {0};
    struct eg_config c;
    const char *from = NULL;
    char why[512] = "";
    int n = 0;
    const struct eg_opt opts[] = {EG_DATA_OPTS(&where),
                                  {NULL, 0, EG_OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    int code = eg_opts_parse(cmd, opts, argc, argv, NULL, &from, 1, &n, NULL, NULL);
    if (code != EG_PROCEED)
        return code;
    if (n < 1)
        return eg_usage(cmd, "name the backup file");
    code = eg_cli_data(cmd, &where, &c);
    if (code != EG_PROCEED)
        return code;
    enum eg_err err = eg_sqlite_restore(from, c.settings->data, why, sizeof why);
    if (err == EG_OK && !give_to_owner(c.settings->data)) {
        snprintf(why, sizeof why, "%s: restored, but not given to the folder's owner: %s",
                 c.settings->data, strerror(errno));
        err = EG_EIO;
    }
    if (err == EG_OK)
        printf("restored into %s\n", c.settings->data);
    else
        eg_complain(cmd, "%s", *why ? why : eg_err_text(err));
    eg_config_free(&c);
    return eg_cli_done(cmd, err == EG_EEXISTS ? EG_EXIT_USAGE : exit_of(err));
}

const struct eg_command eg_cmd_verify = {
    .name = "verify",
    .summary = "Prove that the log was neither altered nor cut",
    .usage = "[--data DIR] [--session S]",
    .details =
        "Goes through the hash chain of every session. Exit code 1 when a fault was found, or no\n"
        "session with the id that was asked for.\n",
    .run = run_verify,
    .group = "The data folder"};

const struct eg_command eg_cmd_check = {
    .name = "check",
    .summary = "Verify the log and the database's own structure",
    .usage = "[--data DIR]",
    .details = "As verify, and SQLite's integrity check. Exit code 1 when a fault was found.\n",
    .run = run_check,
    .group = "The data folder"};

const struct eg_command eg_cmd_backup = {
    .name = "backup",
    .summary = "Copy the database into a file, also while the gateway runs",
    .usage = "[--data DIR | --url URL] FILE",
    .details = "The copy is checked before it gets its name. FILE must not exist. Keys are not\n"
               "part of it: copy the folder keys/ of the data folder to a safe place yourself.\n",
    .run = run_backup,
    .group = "The data folder"};

const struct eg_command eg_cmd_restore = {
    .name = "restore",
    .summary = "Put a backup into an empty data folder",
    .usage = "[--data DIR] FILE",
    .details = "The log gets a new epoch, so that clients are told to read it anew.\n",
    .run = run_restore,
    .group = "The data folder"};
