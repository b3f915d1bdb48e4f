/* faultvfs.c - see faultvfs.h. One thread at a time. */
#include "faultvfs.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct fault_file {
    sqlite3_file base; /* first */
    char name[512];
    sqlite3_file *real; /* behind this struct */
};

static sqlite3_vfs fault_vfs;
static sqlite3_vfs *real_vfs;

static struct {
    bool armed;
    enum fault_call call;
    char suffix[32];
    int nth, times, rc, partial, hits;
} fault_order;

static int counts[FAULT_CALLS];
static char count_suffix[32];

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name);
    size_t m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

/* Whether this call is to fail. */
static bool failing(struct fault_file *f, enum fault_call call)
{
    if (ends_with(f->name, count_suffix)) {
        counts[call]++;
    }
    if (!fault_order.armed || fault_order.call != call || !ends_with(f->name, fault_order.suffix)) {
        return false;
    }
    if (fault_order.nth > 1) {
        fault_order.nth--;
        return false;
    }
    if (fault_order.times == 0) {
        return false;
    }
    if (fault_order.times > 0) {
        fault_order.times--;
    }
    fault_order.hits++;
    return true;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct fault_file *)f)->real;
}

static int f_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    if (failing((struct fault_file *)f, FAULT_READ)) {
        return fault_order.rc;
    }
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    if (failing((struct fault_file *)f, FAULT_WRITE)) {
        int some = fault_order.partial < n ? fault_order.partial : n;
        if (some > 0) {
            (void)real_of(f)->pMethods->xWrite(real_of(f), p, some, at);
        }
        return fault_order.rc;
    }
    return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    if (failing((struct fault_file *)f, FAULT_TRUNCATE)) {
        return fault_order.rc;
    }
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
    if (failing((struct fault_file *)f, FAULT_SYNC)) {
        return fault_order.rc;
    }
    return real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int f_size(sqlite3_file *f, sqlite3_int64 *out)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), out);
}

static int f_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int f_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int f_check_lock(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int f_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int f_device(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    if (failing((struct fault_file *)f, FAULT_SHM)) {
        return fault_order.rc;
    }
    void volatile *there = NULL;
    int rc = real_of(f)->pMethods->xShmMap(real_of(f), page, size, 0, &there);
    if (rc == SQLITE_OK && there != NULL) {
        *out = there;
        return rc;
    }
    if (extend && failing((struct fault_file *)f, FAULT_SHM_GROW)) {
        return fault_order.rc;
    }
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int f_shm_unmap(sqlite3_file *f, int delete_it)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), delete_it);
}

static const sqlite3_io_methods fault_methods = {.iVersion = 2,
                                                 .xClose = f_close,
                                                 .xRead = f_read,
                                                 .xWrite = f_write,
                                                 .xTruncate = f_truncate,
                                                 .xSync = f_sync,
                                                 .xFileSize = f_size,
                                                 .xLock = f_lock,
                                                 .xUnlock = f_unlock,
                                                 .xCheckReservedLock = f_check_lock,
                                                 .xFileControl = f_control,
                                                 .xSectorSize = f_sector,
                                                 .xDeviceCharacteristics = f_device,
                                                 .xShmMap = f_shm_map,
                                                 .xShmLock = f_shm_lock,
                                                 .xShmBarrier = f_shm_barrier,
                                                 .xShmUnmap = f_shm_unmap};

static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct fault_file *f = (struct fault_file *)file;
    (void)vfs;
    memset(f, 0, sizeof(*f));
    f->real = (sqlite3_file *)(f + 1);
    if (name != NULL) {
        strncpy(f->name, name, sizeof(f->name) - 1);
    }
    int rc = real_vfs->xOpen(real_vfs, name, f->real, flags, out);
    f->base.pMethods = f->real->pMethods != NULL ? &fault_methods : NULL;
    return rc;
}

void faultvfs_install(void)
{
    if (real_vfs != NULL) {
        return;
    }
    real_vfs = sqlite3_vfs_find(NULL);
    fault_vfs = *real_vfs;
    fault_vfs.zName = "fault";
    fault_vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs->szOsFile;
    fault_vfs.xOpen = v_open;
    if (sqlite3_vfs_register(&fault_vfs, 1) != SQLITE_OK) {
        abort();
    }
}

void faultvfs_order(enum fault_call call, const char *suffix, int nth, int times, int rc,
                    int partial)
{
    fault_order.armed = true;
    fault_order.call = call;
    strncpy(fault_order.suffix, suffix, sizeof(fault_order.suffix) - 1);
    fault_order.nth = nth;
    fault_order.times = times;
    fault_order.rc = rc;
    fault_order.partial = partial;
    fault_order.hits = 0;
}

void faultvfs_clear(void)
{
    memset(&fault_order, 0, sizeof(fault_order));
}

int faultvfs_count(enum fault_call call)
{
    return counts[call];
}

void faultvfs_count_reset(const char *suffix)
{
    memset(counts, 0, sizeof(counts));
    strncpy(count_suffix, suffix, sizeof(count_suffix) - 1);
}

int faultvfs_hits(void)
{
    return fault_order.hits;
}
