/*
 * failing_calls.c - see failing_calls.h.
 */
#include "failing_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

static enum failing_call which = FAILING_CALLS;
static int left, with;
static unsigned most;
static bool failed;

void failing_call_order(enum failing_call call, int n, int error)
{
    which = call;
    left = n;
    with = error;
    failed = false;
}

void failing_call_short(unsigned bytes)
{
    most = bytes;
}

bool failing_call_done(void)
{
    which = FAILING_CALLS;
    most = 0;
    return failed;
}

static bool fails(enum failing_call call)
{
    if (call != which || left-- > 0)
        return false;
    which = FAILING_CALLS; /* once */
    failed = true;
    errno = with;
    return true;
}

static size_t some(size_t n)
{
    return most && n > most ? most : n;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;

    if (flags & O_CREAT) {
        va_list ap;

        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    return fails(FAILING_OPEN) ? -1 : __real_open(path, flags, mode);
}

int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st)
{
    return fails(FAILING_FSTAT) ? -1 : __real_fstat(fd, st);
}

ssize_t __real_read(int fd, void *p, size_t n);
ssize_t __wrap_read(int fd, void *p, size_t n);
ssize_t __wrap_read(int fd, void *p, size_t n)
{
    return fails(FAILING_READ) ? -1 : __real_read(fd, p, some(n));
}

ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    return fails(FAILING_WRITE) ? -1 : __real_write(fd, p, some(n));
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return fails(FAILING_FSYNC) ? -1 : __real_fsync(fd);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    bool fail = fails(FAILING_CLOSE);
    int e = errno, r = __real_close(fd);

    if (fail)
        errno = e;
    return fail ? -1 : r;
}

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to)
{
    return fails(FAILING_LINK) ? -1 : __real_link(from, to);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    return fails(FAILING_UNLINK) ? -1 : __real_unlink(path);
}
