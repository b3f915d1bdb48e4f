/*
 * wal_vfs.c - a layer over SQLite's own VFS that writes what follows each other in a write-ahead
 * log in one call.
 *
 * A commit writes two pieces for each page it dirtied, a header of 24 bytes and the page, and each
 * is a system call. They lie one after the other, and nobody looks at them before they are flushed:
 * the log's index in shared memory names them only after that. So they are gathered and written
 * when the log is flushed, read, measured, cut or closed, when a piece comes that does not follow,
 * or when many have gathered. Everything else goes straight to the VFS below, which is SQLite's
 * default one at that moment.
 *
 * Threads: a file belongs to the thread of its connection. Owns the gathered bytes. Failure modes:
 * a write that fails is reported by the call that caused it, with its own result code: by xSync
 * before it has flushed, so a commit fails as it does when SQLite writes by itself, before it is
 * valid. What could not be written is dropped; SQLite writes over that place.
 */
#include "store/wal_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_BYTES 122880 /* SQLite's own VFS takes no more than 128 KiB - 1 at once */
#define ROOM 2048           /* for the file of the VFS below */

struct wal_file {
    sqlite3_file base; /* first */
    char *p;
    size_t n;
    sqlite3_int64 at; /* where p belongs */
    union {
        sqlite3_file file;
        double aligned;
        char room[ROOM];
    } below;
};

static sqlite3_file *below(sqlite3_file *f)
{
    return &((struct wal_file *)f)->below.file;
}

/* Writes what has gathered. */
static int spill(sqlite3_file *file)
{
    struct wal_file *f = (struct wal_file *)file;
    const size_t n = f->n;
    sqlite3_file *b = below(file);
    f->n = 0;
    return n > 0 ? b->pMethods->xWrite(b, f->p, (int)n, f->at) : SQLITE_OK;
}

static int wal_close(sqlite3_file *file)
{
    const int rc = spill(file);
    const int end = below(file)->pMethods->xClose(below(file));
    free(((struct wal_file *)file)->p);
    return rc != SQLITE_OK ? rc : end;
}

static int wal_read(sqlite3_file *file, void *to, int n, sqlite3_int64 at)
{
    const int rc = spill(file);
    return rc == SQLITE_OK ? below(file)->pMethods->xRead(below(file), to, n, at) : rc;
}

static int wal_write(sqlite3_file *file, const void *from, int n, sqlite3_int64 at)
{
    struct wal_file *f = (struct wal_file *)file;
    int rc = SQLITE_OK;
    if (f->n > 0 && (at != f->at + (sqlite3_int64)f->n || f->n + (size_t)n > GATHER_BYTES)) {
        rc = spill(file);
    }
    if (rc == SQLITE_OK && f->p == NULL) {
        f->p = malloc(GATHER_BYTES);
    }
    if (rc == SQLITE_OK && (f->p == NULL || n > GATHER_BYTES)) {
        return below(file)->pMethods->xWrite(below(file), from, n, at);
    }
    if (rc == SQLITE_OK) {
        f->at = f->n > 0 ? f->at : at;
        memcpy(f->p + f->n, from, (size_t)n);
        f->n += (size_t)n;
    }
    return rc;
}

static int wal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    const int rc = spill(file);
    return rc == SQLITE_OK ? below(file)->pMethods->xTruncate(below(file), size) : rc;
}

static int wal_sync(sqlite3_file *file, int flags)
{
    const int rc = spill(file);
    return rc == SQLITE_OK ? below(file)->pMethods->xSync(below(file), flags) : rc;
}

static int wal_size(sqlite3_file *file, sqlite3_int64 *out)
{
    const int rc = spill(file);
    return rc == SQLITE_OK ? below(file)->pMethods->xFileSize(below(file), out) : rc;
}

static int wal_lock(sqlite3_file *file, int how)
{
    return below(file)->pMethods->xLock(below(file), how);
}

static int wal_unlock(sqlite3_file *file, int how)
{
    return below(file)->pMethods->xUnlock(below(file), how);
}

static int wal_check(sqlite3_file *file, int *out)
{
    return below(file)->pMethods->xCheckReservedLock(below(file), out);
}

static int wal_control(sqlite3_file *file, int what, void *arg)
{
    return below(file)->pMethods->xFileControl(below(file), what, arg);
}

static int wal_sector(sqlite3_file *file)
{
    return below(file)->pMethods->xSectorSize(below(file));
}

static int wal_device(sqlite3_file *file)
{
    return below(file)->pMethods->xDeviceCharacteristics(below(file));
}

static const sqlite3_io_methods wal_methods = {
    .iVersion = 1,
    .xClose = wal_close,
    .xRead = wal_read,
    .xWrite = wal_write,
    .xTruncate = wal_truncate,
    .xSync = wal_sync,
    .xFileSize = wal_size,
    .xLock = wal_lock,
    .xUnlock = wal_unlock,
    .xCheckReservedLock = wal_check,
    .xFileControl = wal_control,
    .xSectorSize = wal_sector,
    .xDeviceCharacteristics = wal_device,
};

/* ---- the VFS ---- */

static sqlite3_vfs *lower(void)
{
    return sqlite3_vfs_find(NULL);
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct wal_file *f = (struct wal_file *)file;
    sqlite3_vfs *l = lower();
    (void)vfs;
    if ((flags & SQLITE_OPEN_WAL) == 0 || l->szOsFile > ROOM) {
        return l->xOpen(l, name, file, flags, out);
    }
    memset(f, 0, sizeof(*f));
    const int rc = l->xOpen(l, name, below(file), flags, out);
    if (rc == SQLITE_OK) {
        f->base.pMethods = &wal_methods;
    } else if (below(file)->pMethods != NULL) {
        (void)below(file)->pMethods->xClose(below(file));
    }
    return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    return lower()->xDelete(lower(), name, sync);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int what, int *out)
{
    (void)vfs;
    return lower()->xAccess(lower(), name, what, out);
}

static int vfs_full_name(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    (void)vfs;
    return lower()->xFullPathname(lower(), name, n, out);
}

static int vfs_random(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    return lower()->xRandomness(lower(), n, out);
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return lower()->xSleep(lower(), us);
}

static int vfs_time(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    return lower()->xCurrentTime(lower(), out);
}

static int vfs_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    return lower()->xGetLastError != NULL ? lower()->xGetLastError(lower(), n, out) : 0;
}

static sqlite3_vfs wal_vfs = {
    .iVersion = 1,
    .zName = "ebbgate-wal",
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_name,
    .xRandomness = vfs_random,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_time,
    .xGetLastError = vfs_error,
};

static void add(void)
{
    const sqlite3_vfs *l = lower();
    wal_vfs.szOsFile = (int)sizeof(struct wal_file);
    wal_vfs.mxPathname = l->mxPathname;
    if (l->szOsFile > wal_vfs.szOsFile || sqlite3_vfs_register(&wal_vfs, 0) != SQLITE_OK) {
        wal_vfs.zName = NULL;
    }
}

const char *eg_wal_vfs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, add);
    return wal_vfs.zName;
}
