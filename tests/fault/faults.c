/*
 * faults.c - the real daemon with failing calls: a clear error or a deliberate exit, and nothing
 * lost.
 *
 *   faults --library FILE [--points N] [--play MS] [CASE...]
 *
 * Threads: none; each case is a process of its own and has its own folder, daemon and time limit.
 */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

struct fault_state *faults;
enum fault_kind faults_last;
unsigned long fault_points = 30, play_ms = 1500;
static char library[PATH_MAX], page[PATH_MAX], base[96];

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"disk", case_disk},
    {"disk-start", case_disk_start},
    {"memory", case_memory},
    {"memory-some", case_memory_some},
    {"memory-gone", case_memory_gone},
    {"memory-start", case_memory_start},
    {"full", case_full},
    {"descriptors", case_descriptors},
    {"interrupts", case_interrupts},
    {"clock", case_clock},
};
#define CASES (sizeof cases / sizeof cases[0])

static void say(const char *word, const char *fmt, va_list ap)
{
    fputs(word, stdout);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
}

void case_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("  FAILED: ", fmt, ap);
    va_end(ap);
    exit(1);
}

void case_skip(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("  skipped: ", fmt, ap);
    va_end(ap);
    exit(SKIPPED);
}

void case_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("  ", fmt, ap);
    va_end(ap);
}

void faults_load(const char *data_dir)
{
    snprintf(page, sizeof page, "%s/page", base);
    unlink(page);
    const int fd = open(page, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *faults) != 0) {
        case_fail("%s: %s", page, strerror(errno));
    }
    faults = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (faults == MAP_FAILED) {
        case_fail("mmap: %s", strerror(errno));
    }
    setenv("FAULT_STATE", page, 1);
    setenv("FAULT_DIR", data_dir, 1);
    setenv("LD_PRELOAD", library, 1);
}

static void set(int64_t *at, int64_t v)
{
    __atomic_store_n(at, v, __ATOMIC_SEQ_CST);
}

void faults_order(enum fault_kind kind, int error, int64_t nth, int64_t times)
{
    faults_clear();
    faults_last = kind;
    set(&faults->count, 0);
    set(&faults->hits, 0);
    set(&faults->nth, nth);
    set(&faults->times, times);
    __atomic_store_n(&faults->error, error, __ATOMIC_SEQ_CST);
    __atomic_store_n(&faults->kind, (int32_t)kind, __ATOMIC_SEQ_CST);
}

void faults_clear(void)
{
    __atomic_store_n(&faults->kind, (int32_t)FAULT_NONE, __ATOMIC_SEQ_CST);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

/* Runs one case in a process of its own; its folders are below one that is removed here. */
static int run_case(size_t i)
{
    int status = 0;
    char tmp[96];
    snprintf(tmp, sizeof tmp, "%.32s/ebbgate-faults.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(tmp)) {
        perror(tmp);
        return 1;
    }
    printf("-- %s\n", cases[i].name);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        snprintf(base, sizeof base, "%s", tmp);
        setenv("TMPDIR", base, 1);
        alarm(CASE_SECONDS);
        cases[i].run();
        exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("  FAILED: the case ended by signal %d\n", WTERMSIG(status));
    }
    if (!getenv("TL_KEEP")) {
        nftw(tmp, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Whether each of names is a case; says which is not. */
static bool known(char **names)
{
    for (; *names; names++) {
        size_t i = 0;
        while (i < CASES && strcmp(*names, cases[i].name) != 0) {
            i++;
        }
        if (i == CASES) {
            printf("FAILED: no case has the name %s\n", *names);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"library", required_argument, NULL, 'l'},
                                            {"points", required_argument, NULL, 'n'},
                                            {"play", required_argument, NULL, 'p'},
                                            {NULL, 0, NULL, 0}};
    int passed = 0, failed = 0, skipped = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'l' && realpath(optarg, library)) {
            continue;
        } else if (c == 'n') {
            fault_points = strcmp(optarg, "all") == 0 ? 0 : strtoul(optarg, NULL, 10);
        } else if (c == 'p') {
            play_ms = strtoul(optarg, NULL, 10);
        } else {
            return 64;
        }
    }
    if (!library[0] || !known(argv + optind)) {
        return 64;
    }
    if (tl_gate_sanitized()) {
        puts("skipped: faults cannot be preloaded into a sanitizer's build");
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < CASES; i++) {
        bool wanted = optind >= argc;
        for (int a = optind; a < argc; a++) {
            wanted = wanted || strcmp(argv[a], cases[i].name) == 0;
        }
        if (wanted) {
            const int code = run_case(i);
            passed += code == 0;
            skipped += code == SKIPPED;
            failed += code != 0 && code != SKIPPED;
        }
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed > 0;
}
