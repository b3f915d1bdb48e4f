/*
 * disk.h - a folder as a power cut would have left it, made from the recorder's records.
 *
 * The model: what a file's contents were when its flush began is on the disk when the flush has
 * returned; the same for a folder's names. Of later writes any may be on the disk or not, in any
 * order, whole or by sectors, with zeros or rubbish where a file grew and its data did not arrive.
 * Of later names the first few are there (file systems keep the order of names). SQLite's -shm is
 * not recorded: it is left out, or full of rubbish.
 */
#ifndef EG_POWER_DISK_H
#define EG_POWER_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;

/* Which of the unflushed changes arrive. */
enum survival {
    KEEP_NONE,
    KEEP_ALL,
    KEEP_PREFIX,  /* the first ones; the last of them torn */
    KEEP_512,     /* any, in pieces of 512 bytes */
    KEEP_4096,    /* any, in pieces of 4 KiB */
    KEEP_RUBBISH, /* as KEEP_512, and rubbish in some of the lost pieces */
    KEEP_KINDS
};

/* Reads a record file; NULL with a message on stderr. late: each flush counts only when the same
 * file's next one has come, a disk that lies: for proving that the check sees losses. */
struct disk *disk_open(const char *records, bool late);
void disk_close(struct disk *d);

/* Positions right after each flush, ascending. */
size_t disk_flushes(const struct disk *d, const uint64_t **positions);
/* Position of the record before this one, for a cut in the middle of things. */
uint64_t disk_size(const struct disk *d);
/* How many records of writes, and flushes of files whose name ends in suffix. */
size_t disk_writes(const struct disk *d);
size_t disk_flushes_of(const struct disk *d, const char *suffix);

/* Moves forward: everything recorded before `position` has happened. Never back. */
void disk_forward(struct disk *d, uint64_t position);
/* Writes the folder as of now. The same seed gives the same folder. */
bool disk_make(const struct disk *d, const char *folder, enum survival keep, uint64_t seed);

#endif
