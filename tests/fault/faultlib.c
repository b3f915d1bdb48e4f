/*
 * faultlib.c - preloaded into the daemon: calls fail, are interrupted, or see another time, on
 * order.
 *
 * Threads: any; no locks, the page is atomic. Owns: a table of which descriptors are in the data
 * folder. Happy path: nothing ordered, every call passes. Failure modes: without its page it does
 * nothing.
 *
 * Interrupted are calls of the gateway itself and of SQLite: nothing in the gateway's other
 * libraries can be, since no thread of it has a signal handler. Adopted sockets are known by their
 * descriptors (EG_ADOPT_FD_BASE).
 */
#include "faultlib.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "edge/adopt.h"

#define FDS 65536
#define SHOWN __attribute__((visibility("default")))

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static struct fault_state *state;
static const char *dir;
static size_t dir_n;
static bool in_dir[FDS];

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("FAULT_STATE");
    dir = getenv("FAULT_DIR");
    if (!file || !dir) {
        return;
    }
    dir_n = strlen(dir);
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC);
    void *p = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (p != MAP_FAILED) {
        state = p;
    }
}

static int64_t get(int64_t *v)
{
    return __atomic_load_n(v, __ATOMIC_SEQ_CST);
}

static bool due(enum fault_kind kind)
{
    if (!state || __atomic_load_n(&state->kind, __ATOMIC_SEQ_CST) != (int32_t)kind) {
        return false;
    }
    const int64_t n = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    const int64_t nth = get(&state->nth), times = get(&state->times);
    if (nth <= 0 || n < nth || (times >= 0 && n >= nth + times)) {
        return false;
    }
    __atomic_add_fetch(&state->hits, 1, __ATOMIC_SEQ_CST);
    return true;
}

static bool refused(enum fault_kind kind)
{
    if (!due(kind)) {
        return false;
    }
    errno = __atomic_load_n(&state->error, __ATOMIC_SEQ_CST);
    return true;
}

static bool interrupted(void)
{
    const int64_t every = state ? get(&state->eintr_every) : 0;
    if (every == 0 || __atomic_add_fetch(&state->eintr_count, 1, __ATOMIC_SEQ_CST) % every) {
        return false;
    }
    __atomic_add_fetch(&state->eintr_hits, 1, __ATOMIC_SEQ_CST);
    errno = EINTR;
    return true;
}

static bool known(int fd)
{
    return state && fd >= 0 && fd < FDS && in_dir[fd];
}

/* --- memory --- */

static bool memory_off;

/* A build that counts what ran asks for this before it writes its counts (tests/cover/flush.c). */
SHOWN void fault_memory_off(void);
SHOWN void fault_memory_off(void)
{
    __atomic_store_n(&memory_off, true, __ATOMIC_SEQ_CST);
}

static bool no_memory(const void *caller)
{
    Dl_info info;
    if (__atomic_load_n(&memory_off, __ATOMIC_SEQ_CST) || !due(FAULT_MALLOC)) {
        return false;
    }
    if (dladdr(caller, &info) && info.dli_fname) {
        const char *slash = strrchr(info.dli_fname, '/');
        strncpy(state->where, slash ? slash + 1 : info.dli_fname, sizeof state->where - 1);
    }
    errno = ENOMEM;
    return true;
}

SHOWN void *malloc(size_t n)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

SHOWN void *calloc(size_t n, size_t size)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

SHOWN void *realloc(void *p, size_t n)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

/* --- files --- */

static int open_any(const char *path, int flags, mode_t mode)
{
    const bool ours = state && strncmp(path, dir, dir_n) == 0;
    if (ours && (refused(FAULT_OPEN) || interrupted())) {
        return -1;
    }
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        in_dir[fd] = ours;
    }
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
    return open_any(path, flags, mode);
}

SHOWN int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(path, flags, mode);
}

SHOWN int close(int fd)
{
    if (fd >= 0 && fd < FDS) {
        in_dir[fd] = false;
    }
    return (int)syscall(SYS_close, fd);
}

SHOWN ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    if (known(fd) && (refused(FAULT_PWRITE) || interrupted())) {
        return -1;
    }
    return syscall(SYS_pwrite64, fd, p, n, at);
}

SHOWN ssize_t pread64(int fd, void *p, size_t n, off64_t at)
{
    if (known(fd) && (refused(FAULT_PREAD) || interrupted())) {
        return -1;
    }
    return syscall(SYS_pread64, fd, p, n, at);
}

SHOWN int ftruncate64(int fd, off64_t size)
{
    return known(fd) && refused(FAULT_CUT) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

SHOWN int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

static void *map_any(void *at, size_t n, int prot, int flags, int fd, off64_t from)
{
    if (known(fd) && refused(FAULT_MAP)) {
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, from);
}

SHOWN void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    return map_any(at, n, prot, flags, fd, from);
}

SHOWN void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t from)
{
    return map_any(at, n, prot, flags, fd, from);
}

/* Taking a lock may fail; the kernel lets go of one without asking for anything. */
static int control_any(int fd, int what, void *arg)
{
    const bool sets = what == F_SETLK || what == F_SETLKW;
    if (sets && known(fd) && ((const struct flock *)arg)->l_type != F_UNLCK &&
        refused(FAULT_LOCK)) {
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, what, arg);
}

/* The third argument is a number or a pointer; the kernel takes either as it comes. */
#define CONTROL(fd, what)                                                                          \
    va_list ap;                                                                                    \
    va_start(ap, what);                                                                            \
    void *const arg = va_arg(ap, void *);                                                          \
    va_end(ap);                                                                                    \
    return control_any(fd, what, arg);

SHOWN int fcntl(int fd, int what, ...){CONTROL(fd, what)}

SHOWN int fcntl64(int fd, int what, ...){CONTROL(fd, what)}

SHOWN int fdatasync(int fd)
{
    return known(fd) && refused(FAULT_FLUSH) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

SHOWN int fsync(int fd)
{
    return known(fd) && refused(FAULT_FLUSH) ? -1 : (int)syscall(SYS_fsync, fd);
}

/* --- interruptions --- */

SHOWN ssize_t read(int fd, void *p, size_t n)
{
    return interrupted() ? -1 : syscall(SYS_read, fd, p, n);
}

SHOWN ssize_t write(int fd, const void *p, size_t n)
{
    return interrupted() ? -1 : syscall(SYS_write, fd, p, n);
}

/* Without <sys/socket.h>, whose transparent unions no definition matches in ISO C. */
ssize_t recvfrom(int fd, void *p, size_t n, int flags, void *from, void *len);
ssize_t sendmsg(int fd, const void *m, int flags);
int accept4(int fd, void *from, void *len, int flags);

SHOWN ssize_t recvfrom(int fd, void *p, size_t n, int flags, void *from, void *len)
{
    return fd >= EG_ADOPT_FD_BASE && interrupted()
               ? -1
               : syscall(SYS_recvfrom, fd, p, n, flags, from, len);
}

SHOWN ssize_t sendmsg(int fd, const void *m, int flags)
{
    return fd >= EG_ADOPT_FD_BASE && interrupted() ? -1 : syscall(SYS_sendmsg, fd, m, flags);
}

SHOWN int accept4(int fd, void *from, void *len, int flags)
{
    return interrupted() ? -1 : (int)syscall(SYS_accept4, fd, from, len, flags);
}

SHOWN int epoll_wait(int fd, struct epoll_event *e, int max, int ms)
{
    return interrupted() ? -1 : (int)syscall(SYS_epoll_wait, fd, e, max, ms);
}

/* --- the clock --- */

SHOWN int clock_gettime(clockid_t id, struct timespec *ts)
{
    const int rc = (int)syscall(SYS_clock_gettime, id, ts);
    const int64_t shift = state && id == CLOCK_REALTIME ? get(&state->shift_ms) : 0;
    if (rc == 0 && shift) {
        const int64_t ns = ts->tv_nsec + shift % 1000 * 1000000;
        ts->tv_sec += shift / 1000 + (ns < 0 ? -1 : ns / 1000000000);
        ts->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
    }
    return rc;
}
