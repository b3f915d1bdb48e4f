/*
 * recorder.c - preloaded into the daemon: records every change below RECORD_DIR in its order.
 *
 * Purpose: with the records, the folder can be made as a power cut would have left it (disk.c).
 * Threads: any; one lock around a change and its record, so that their order is the same. Flushes
 * run outside of it: what is changed meanwhile is not counted as flushed.
 * Owns: the record file; the shared state belongs to the test.
 * Happy path: the constructor maps the state; each wrapper calls the next definition.
 * Failure modes: without the environment nothing is recorded; when recording fails the process
 * aborts, because a record with gaps proves nothing.
 *
 * Memory maps are not seen: SQLite maps only its -shm, which no recovery reads.
 */
#include "record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS 65536
#define SHOWN __attribute__((visibility("default")))

static struct recorder_state *state;
static const char *dir;
static size_t dir_n;
static int out = -1;
/* What a descriptor is: 0 not ours, else file number, or -1 and the folder's name. */
static struct {
    int file;
    char *path;
} fds[FDS];

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) {
        abort();
    }
    return f;
}

/* A function pointer is not an object pointer: copied by its bytes. */
#define NEXT(var, name)                                                                            \
    do {                                                                                           \
        void *found = next(name);                                                                  \
        memcpy(&(var), &found, sizeof(var));                                                       \
    } while (0)

__attribute__((constructor)) static void begin_recording(void)
{
    const char *file = getenv("RECORD_FILE"), *shared = getenv("RECORD_STATE");
    dir = getenv("RECORD_DIR");
    if (!dir || !file || !shared) {
        return;
    }
    dir_n = strlen(dir);
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, shared, O_RDWR | O_CLOEXEC);
    const int f =
        (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    out = f < 0 ? -1 : fcntl(f, F_DUPFD_CLOEXEC, 500); /* out of the way of the program's own */
    void *p = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || out < 0 || p == MAP_FAILED) {
        abort();
    }
    syscall(SYS_close, fd);
    syscall(SYS_close, f);
    state = p;
}

static void lock(void)
{
    if (pthread_mutex_lock(&state->lock) == EOWNERDEAD) {
        pthread_mutex_consistent(&state->lock);
    }
}

static void unlock(void)
{
    pthread_mutex_unlock(&state->lock);
}

static void put(const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        const ssize_t w = syscall(SYS_write, out, at, n);
        if (w <= 0) {
            abort();
        }
        at += w;
        n -= (size_t)w;
    }
}

/* Under the lock. */
static void record(struct record r, const char *path, const void *data)
{
    put(&r, sizeof r);
    put(path, r.path);
    put(data, r.data);
    __atomic_add_fetch(&state->position, sizeof r + r.path + r.data, __ATOMIC_SEQ_CST);
}

static void record_path(enum record_kind kind, uint32_t file, const char *path)
{
    record((struct record){.kind = kind, .file = file, .path = (uint32_t)strlen(path)}, path, NULL);
}

static uint64_t position(void)
{
    return __atomic_load_n(&state->position, __ATOMIC_SEQ_CST);
}

/* The name below the folder, or NULL when it is not ours. */
static const char *ours(const char *path)
{
    if (!state || !path || strncmp(path, dir, dir_n) != 0) {
        return NULL;
    }
    if (path[dir_n] == '\0') {
        return ".";
    }
    if (path[dir_n] != '/') {
        return NULL;
    }
    const char *name = path + dir_n + strspn(path + dir_n, "/");
    const size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, "-shm") == 0 ? NULL : name;
}

static int slot_of(const char *path)
{
    for (int i = 0; i < RECORD_NAMES; i++) {
        if (strcmp(state->name[i].path, path) == 0) {
            return i;
        }
    }
    return -1;
}

static void name_it(const char *path, uint32_t file)
{
    int i = slot_of(path);
    i = i < 0 ? slot_of("") : i;
    if (i < 0 || strlen(path) >= RECORD_PATH) {
        abort();
    }
    strcpy(state->name[i].path, path);
    state->name[i].file = file;
}

/* --- opening and closing --- */

/* After a file of ours was opened; under the lock. */
static void opened(int fd, const char *name, int flags)
{
    struct stat st;
    if (fd < 0 || fd >= FDS || fstat(fd, &st) != 0) {
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        fds[fd].file = -1;
        fds[fd].path = strdup(name);
        return;
    }
    int i = slot_of(name);
    if (i < 0) {
        record_path(RECORD_CREATE, ++state->files, name);
        name_it(name, state->files);
        i = slot_of(name);
    }
    fds[fd].file = (int)state->name[i].file;
    if (flags & O_TRUNC) {
        record((struct record){.kind = RECORD_TRUNCATE, .file = state->name[i].file}, "", NULL);
    }
}

static int open_any(const char *symbol, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...);
    NEXT(real, symbol);
    const char *name = ours(path);
    if (!name) {
        return real(path, flags, mode);
    }
    lock();
    const int fd = real(path, flags, mode);
    const int e = errno;
    opened(fd, name, flags);
    unlock();
    errno = e;
    return fd;
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, mode_t);                                                                 \
        va_end(ap);                                                                                \
    }

SHOWN int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any("open", path, flags, mode);
}

SHOWN int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any("open64", path, flags, mode);
}

SHOWN int mkostemp(char *template, int flags)
{
    int (*real)(char *, int);
    NEXT(real, "mkostemp");
    if (!ours(template)) {
        return real(template, flags);
    }
    lock();
    const int fd = real(template, flags);
    const int e = errno;
    opened(fd, ours(template), 0);
    unlock();
    errno = e;
    return fd;
}

SHOWN int close(int fd)
{
    if (state && fd >= 0 && fd < FDS && fds[fd].file) {
        fds[fd].file = 0;
        free(fds[fd].path);
        fds[fd].path = NULL;
    }
    return (int)syscall(SYS_close, fd);
}

/* --- contents --- */

static uint32_t file_of(int fd)
{
    return state && fd >= 0 && fd < FDS && fds[fd].file > 0 ? (uint32_t)fds[fd].file : 0;
}

static ssize_t write_at(int fd, const void *p, size_t n, off_t at, bool moves)
{
    const uint32_t file = file_of(fd);
    if (!file) {
        return moves ? syscall(SYS_write, fd, p, n) : syscall(SYS_pwrite64, fd, p, n, at);
    }
    lock();
    const off_t place = moves ? lseek(fd, 0, SEEK_CUR) : at;
    const ssize_t w = moves ? syscall(SYS_write, fd, p, n) : syscall(SYS_pwrite64, fd, p, n, at);
    const int e = errno;
    if (w > 0) {
        record(
            (struct record){
                .kind = RECORD_WRITE, .file = file, .at = (uint64_t)place, .data = (uint32_t)w},
            "", p);
    }
    unlock();
    errno = e;
    return w;
}

SHOWN ssize_t write(int fd, const void *p, size_t n)
{
    return write_at(fd, p, n, 0, true);
}

SHOWN ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return write_at(fd, p, n, at, false);
}

SHOWN ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    return write_at(fd, p, n, at, false);
}

static int cut(int fd, off_t size)
{
    const uint32_t file = file_of(fd);
    if (!file) {
        return (int)syscall(SYS_ftruncate, fd, size);
    }
    lock();
    const int rc = (int)syscall(SYS_ftruncate, fd, size);
    const int e = errno;
    if (rc == 0) {
        record((struct record){.kind = RECORD_TRUNCATE, .file = file, .at = (uint64_t)size}, "",
               NULL);
    }
    unlock();
    errno = e;
    return rc;
}

SHOWN int ftruncate(int fd, off_t size)
{
    return cut(fd, size);
}

SHOWN int ftruncate64(int fd, off64_t size)
{
    return cut(fd, size);
}

/* --- flushes --- */

static int flush(int fd, long call)
{
    const bool known = state && fd >= 0 && fd < FDS && fds[fd].file;
    const uint64_t begin = known ? position() : 0;
    const int rc = (int)syscall(call, fd);
    const int e = errno;
    if (known && rc == 0) {
        lock();
        if (fds[fd].file > 0) {
            record((struct record){.kind = RECORD_FLUSH,
                                   .file = (uint32_t)fds[fd].file,
                                   .begin = begin},
                   "", NULL);
        } else {
            record((struct record){.kind = RECORD_FLUSH_DIR,
                                   .begin = begin,
                                   .path = (uint32_t)strlen(fds[fd].path)},
                   fds[fd].path, NULL);
        }
        unlock();
    }
    errno = e;
    return rc;
}

SHOWN int fsync(int fd)
{
    return flush(fd, SYS_fsync);
}

SHOWN int fdatasync(int fd)
{
    return flush(fd, SYS_fdatasync);
}

/* --- names --- */

SHOWN int mkdir(const char *path, mode_t mode)
{
    const char *name = ours(path);
    if (!name) {
        return (int)syscall(SYS_mkdir, path, mode);
    }
    lock();
    const int rc = (int)syscall(SYS_mkdir, path, mode);
    const int e = errno;
    if (rc == 0) {
        record_path(RECORD_MKDIR, 0, name);
    }
    unlock();
    errno = e;
    return rc;
}

SHOWN int unlink(const char *path)
{
    const char *name = ours(path);
    if (!name) {
        return (int)syscall(SYS_unlink, path);
    }
    lock();
    const int rc = (int)syscall(SYS_unlink, path);
    const int e = errno;
    if (rc == 0) {
        const int i = slot_of(name);
        if (i >= 0) {
            state->name[i].path[0] = '\0';
        }
        record_path(RECORD_UNLINK, 0, name);
    }
    unlock();
    errno = e;
    return rc;
}

/* A second name, or another one. */
static int second_name(enum record_kind kind, const char *from, const char *to, unsigned flags)
{
    char both[2 * RECORD_PATH];
    const char *a = ours(from), *b = ours(to);
    if (a && b) {
        lock();
    }
    const int rc =
        (int)(kind == RECORD_LINK ? syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)
                                  : syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags));
    const int e = errno;
    if (a && b) {
        const int i = slot_of(a);
        if (rc == 0 && i >= 0) {
            const uint32_t file = state->name[i].file;
            const int n = snprintf(both, sizeof both, "%s%c%s", a, 0, b);
            if (kind == RECORD_RENAME) {
                state->name[i].path[0] = '\0';
            }
            name_it(b, file);
            record((struct record){.kind = kind, .file = file, .path = (uint32_t)n}, both, NULL);
        }
        unlock();
    }
    errno = e;
    return rc;
}

SHOWN int rename(const char *from, const char *to)
{
    return second_name(RECORD_RENAME, from, to, 0);
}

SHOWN int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    if (a != AT_FDCWD || b != AT_FDCWD) {
        abort();
    }
    return second_name(RECORD_RENAME, from, to, flags);
}

SHOWN int link(const char *from, const char *to)
{
    return second_name(RECORD_LINK, from, to, 0);
}
