/*
 * wal_vfs.h - private to src/store: how the writer's connection writes its write-ahead log.
 */
#ifndef EG_STORE_WAL_VFS_H
#define EG_STORE_WAL_VFS_H

/* The name to open the writer's connection with; NULL (SQLite's own way of writing) without memory.
 * Any thread. */
const char *eg_wal_vfs(void);

#endif
