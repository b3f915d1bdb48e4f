/*
 * faultvfs.h - a wrapper over SQLite's default VFS that fails calls on order.
 *
 * faultvfs_install makes it the default for connections opened afterwards. One order is in force at
 * a time; calls are counted per kind over all files whose name ends as the order says.
 */
#ifndef EG_TEST_FAULTVFS_H
#define EG_TEST_FAULTVFS_H

enum fault_call {
    FAULT_WRITE,
    FAULT_SYNC,
    FAULT_TRUNCATE,
    FAULT_READ,
    FAULT_SHM,      /* mapping the shared memory */
    FAULT_SHM_GROW, /* mapping it where that has to extend it */
    FAULT_CALLS
};

void faultvfs_install(void);

/* Fails call number `nth` from now on (1: the next) and `times` - 1 after it (times < 0: all) of
 * this kind on files whose name ends in suffix ("" any; "-wal", ".db") with the SQLite result rc.
 * A failing write writes `partial` bytes first. */
void faultvfs_order(enum fault_call call, const char *suffix, int nth, int times, int rc,
                    int partial);
void faultvfs_clear(void);

/* Calls of this kind on files of this suffix since faultvfs_count_reset, failed ones too. */
int faultvfs_count(enum fault_call call);
void faultvfs_count_reset(const char *suffix);
/* How many calls were failed by the order in force. */
int faultvfs_hits(void);

#endif
