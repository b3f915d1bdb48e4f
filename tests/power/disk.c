/*
 * disk.c - see disk.h.
 *
 * Threads: none. Owns: the records, mapped; an image of each file as flushed, and the list of
 * changes since. Happy path: disk_open, then disk_forward and disk_make in turns. Failure modes:
 * records that make no sense end the program; what cannot be written is returned.
 */
#include "disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

struct change {
    struct record r;
    const char *path;
    const unsigned char *data;
    uint64_t position;
};

struct file {
    unsigned char *p; /* as flushed */
    size_t n, cap;
    struct change *change; /* since */
    size_t changes, change_cap;
    uint64_t flushed; /* when late: begin of the flush before */
};

struct disk {
    const unsigned char *map;
    size_t size, at;
    bool late;
    struct file *file; /* by number */
    size_t files;
    struct change *name; /* all changes of names so far, in order */
    bool *durable;
    size_t names, name_cap;
    uint64_t *flush;
    size_t flushes, writes;
};

static void *must(void *p)
{
    if (!p) {
        fputs("power: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

/* Bytes p[n..size) become zero where the buffer grows. */
static void resize(struct file *f, size_t size)
{
    if (size > f->cap) {
        f->cap = size * 2;
        f->p = must(realloc(f->p, f->cap));
    }
    if (size > f->n) {
        memset(f->p + f->n, 0, size - f->n);
    }
    f->n = size;
}

static void put(struct file *f, uint64_t at, const unsigned char *p, size_t n)
{
    if (at + n > f->n) {
        resize(f, at + n);
    }
    memcpy(f->p + at, p, n);
}

static bool read_record(const struct disk *d, size_t at, struct change *c)
{
    if (at + sizeof c->r > d->size) {
        return false;
    }
    memcpy(&c->r, d->map + at, sizeof c->r);
    c->position = at;
    c->path = (const char *)d->map + at + sizeof c->r;
    c->data = d->map + at + sizeof c->r + c->r.path;
    return at + sizeof c->r + c->r.path + c->r.data <= d->size;
}

static size_t record_size(const struct change *c)
{
    return sizeof c->r + c->r.path + c->r.data;
}

struct disk *disk_open(const char *records, bool late)
{
    struct disk *d = must(calloc(1, sizeof *d));
    struct stat st;
    struct change c;
    const int fd = open(records, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0) {
        perror(records);
        exit(1);
    }
    d->size = (size_t)st.st_size;
    d->late = late;
    d->map = mmap(NULL, d->size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (d->map == MAP_FAILED) {
        perror(records);
        exit(1);
    }
    for (size_t at = 0; read_record(d, at, &c); at += record_size(&c)) {
        d->files = c.r.file > d->files ? c.r.file : d->files;
        d->writes += c.r.kind == RECORD_WRITE;
        if (c.r.kind == RECORD_FLUSH || c.r.kind == RECORD_FLUSH_DIR) {
            d->flush = must(realloc(d->flush, (d->flushes + 1) * sizeof *d->flush));
            d->flush[d->flushes++] = at + record_size(&c);
        }
    }
    d->file = must(calloc(d->files + 1, sizeof *d->file));
    return d;
}

void disk_close(struct disk *d)
{
    for (size_t i = 0; i <= d->files; i++) {
        free(d->file[i].p);
        free(d->file[i].change);
    }
    munmap((void *)(uintptr_t)d->map, d->size);
    free(d->file);
    free(d->name);
    free(d->durable);
    free(d->flush);
    free(d);
}

size_t disk_flushes(const struct disk *d, const uint64_t **positions)
{
    *positions = d->flush;
    return d->flushes;
}

uint64_t disk_size(const struct disk *d)
{
    return d->size;
}

size_t disk_writes(const struct disk *d)
{
    return d->writes;
}

size_t disk_flushes_of(const struct disk *d, const char *suffix)
{
    unsigned char *mine = must(calloc(d->files + 1, 1));
    struct change c;
    size_t n = 0;
    for (size_t at = 0; read_record(d, at, &c); at += record_size(&c)) {
        const size_t s = strlen(suffix);
        if (c.r.kind == RECORD_CREATE || c.r.kind == RECORD_RENAME) {
            mine[c.r.file] = c.r.path >= s && memcmp(c.path + c.r.path - s, suffix, s) == 0;
        }
        n += c.r.kind == RECORD_FLUSH && mine[c.r.file];
    }
    free(mine);
    return n;
}

/* --- going forward --- */

static void apply(struct file *f, const struct change *c)
{
    if (c->r.kind == RECORD_WRITE) {
        put(f, c->r.at, c->data, c->r.data);
    } else {
        resize(f, c->r.at);
    }
}

static void flush_file(struct file *f, uint64_t begin, bool late)
{
    const uint64_t upto = late ? f->flushed : begin;
    size_t done = 0;
    f->flushed = begin;
    while (done < f->changes && f->change[done].position < upto) {
        apply(f, &f->change[done++]);
    }
    f->changes -= done;
    memmove(f->change, f->change + done, f->changes * sizeof *f->change);
}

/* Whether the change of a name is one in this folder ("." or a name). */
static bool in_folder(const char *path, size_t n, const char *folder, size_t folder_n)
{
    const char *slash = memrchr(path, '/', n);
    if (!slash) {
        return folder_n == 1 && folder[0] == '.';
    }
    return (size_t)(slash - path) == folder_n && memcmp(path, folder, folder_n) == 0;
}

static void forward_one(struct disk *d, const struct change *c)
{
    struct file *f = &d->file[c->r.file];
    switch (c->r.kind) {
    case RECORD_WRITE:
    case RECORD_TRUNCATE:
        if (f->changes == f->change_cap) {
            f->change_cap = f->change_cap ? f->change_cap * 2 : 64;
            f->change = must(realloc(f->change, f->change_cap * sizeof *f->change));
        }
        f->change[f->changes++] = *c;
        break;
    case RECORD_FLUSH:
        flush_file(f, c->r.begin, d->late);
        break;
    case RECORD_FLUSH_DIR:
        for (size_t i = 0; i < d->names; i++) {
            d->durable[i] |= d->name[i].position < c->r.begin &&
                             in_folder(d->name[i].path, strnlen(d->name[i].path, d->name[i].r.path),
                                       c->path, c->r.path);
        }
        break;
    default:
        if (d->names == d->name_cap) {
            d->name_cap = d->name_cap ? d->name_cap * 2 : 64;
            d->name = must(realloc(d->name, d->name_cap * sizeof *d->name));
            d->durable = must(realloc(d->durable, d->name_cap * sizeof *d->durable));
        }
        d->durable[d->names] = false;
        d->name[d->names++] = *c;
        break;
    }
}

void disk_forward(struct disk *d, uint64_t position)
{
    struct change c;
    while (d->at < position && read_record(d, d->at, &c)) {
        forward_one(d, &c);
        d->at += record_size(&c);
    }
}

/* --- making a folder --- */

static uint64_t draw(uint64_t *seed, uint64_t below)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void rubbish(struct file *f, uint64_t at, size_t n, uint64_t *seed)
{
    unsigned char piece[4096];
    for (size_t i = 0; i < n; i++) {
        piece[i] = (unsigned char)draw(seed, 256);
    }
    put(f, at, piece, n);
}

/* Some sectors of one write. */
static void put_pieces(struct file *f, const struct change *c, enum survival keep, uint64_t odds,
                       uint64_t *seed)
{
    const size_t unit = keep == KEEP_4096 ? 4096 : 512;
    for (size_t i = 0; i < c->r.data;) {
        const uint64_t at = c->r.at + i;
        size_t n = unit - at % unit;
        n = n > c->r.data - i ? c->r.data - i : n;
        if (draw(seed, 8) < odds) {
            put(f, at, c->data + i, n);
        } else if (keep == KEEP_RUBBISH && draw(seed, 4) == 0) {
            rubbish(f, at, n, seed);
        } else if (at + n > f->n && draw(seed, 4) == 0) {
            resize(f, at + n); /* grown, and nothing written there */
        }
        i += n;
    }
}

static void survive(struct file *f, const struct file *from, enum survival keep, uint64_t *seed)
{
    const uint64_t odds = 1 + draw(seed, 7);
    const size_t whole = keep == KEEP_NONE                      ? 0
                         : keep == KEEP_PREFIX && from->changes ? draw(seed, from->changes)
                                                                : from->changes;
    resize(f, from->n);
    if (from->n) {
        memcpy(f->p, from->p, from->n);
    }
    for (size_t i = 0; i < whole; i++) {
        const struct change *c = &from->change[i];
        if (keep == KEEP_ALL || keep == KEEP_PREFIX) {
            apply(f, c);
        } else if (c->r.kind == RECORD_WRITE) {
            put_pieces(f, c, keep, odds, seed);
        } else if (draw(seed, 8) < odds) {
            apply(f, c);
        }
    }
    if (keep == KEEP_PREFIX && whole < from->changes) {
        struct change torn = from->change[whole];
        if (torn.r.kind == RECORD_WRITE) {
            torn.r.data = (uint32_t)draw(seed, torn.r.data + 1);
            apply(f, &torn);
        }
    }
}

/* Names as they are on the disk: what they stand for, 0 for a folder. */
struct names {
    char path[RECORD_NAMES][RECORD_PATH];
    uint32_t file[RECORD_NAMES];
    size_t n;
};

static void drop_name(struct names *t, const char *path)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->path[i], path) == 0) {
            t->n--;
            memmove(t->path[i], t->path[t->n], RECORD_PATH);
            t->file[i] = t->file[t->n];
            return;
        }
    }
}

static void add_name(struct names *t, const char *path, uint32_t file)
{
    drop_name(t, path);
    if (t->n == RECORD_NAMES) {
        fputs("power: too many names\n", stderr);
        exit(1);
    }
    snprintf(t->path[t->n], RECORD_PATH, "%s", path);
    t->file[t->n++] = file;
}

static void change_name(struct names *t, const struct change *c)
{
    char a[RECORD_PATH], b[RECORD_PATH] = "";
    const size_t n = strnlen(c->path, c->r.path);
    snprintf(a, sizeof a, "%.*s", (int)n, c->path);
    if (n < c->r.path) {
        snprintf(b, sizeof b, "%.*s", (int)(c->r.path - n - 1), c->path + n + 1);
    }
    switch (c->r.kind) {
    case RECORD_CREATE:
    case RECORD_MKDIR:
        add_name(t, a, c->r.file);
        break;
    case RECORD_UNLINK:
        drop_name(t, a);
        break;
    case RECORD_RENAME:
        drop_name(t, a);
        add_name(t, b, c->r.file);
        break;
    case RECORD_LINK:
        add_name(t, b, c->r.file);
        break;
    default:
        break;
    }
}

static bool write_file(const char *path, const unsigned char *p, size_t n)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0;
    for (size_t at = 0; ok && at < n;) {
        const ssize_t w = write(fd, p + at, n - at);
        ok = w > 0;
        at += ok ? (size_t)w : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* Folders first, so that what is in them has a place; a file without its folder is lost with it. */
static bool write_names(const struct disk *d, const struct names *t, const char *folder,
                        enum survival keep, uint64_t *seed)
{
    char path[4096];
    bool ok = true;
    for (size_t i = 0; i < t->n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, t->path[i]);
        ok = ok && (t->file[i] || mkdir(path, 0700) == 0);
    }
    for (size_t i = 0; ok && i < t->n; i++) {
        struct file made = {0};
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, t->path[i]);
        char *slash = strrchr(path, '/');
        *slash = '\0';
        const bool there = stat(path, &st) == 0;
        *slash = '/';
        if (t->file[i] && there) {
            survive(&made, &d->file[t->file[i]], keep, seed);
            ok = write_file(path, made.p, made.n);
            free(made.p);
        }
    }
    return ok;
}

bool disk_make(const struct disk *d, const char *folder, enum survival keep, uint64_t seed)
{
    static struct names t;
    static unsigned char shm[32768];
    char path[4096];
    size_t pending = 0;
    t.n = 0;
    for (size_t i = 0; i < d->names; i++) {
        pending += !d->durable[i];
    }
    size_t kept = keep == KEEP_NONE ? 0 : keep == KEEP_ALL ? pending : draw(&seed, pending + 1);
    for (size_t i = 0; i < d->names; i++) {
        if (d->durable[i]) {
            change_name(&t, &d->name[i]);
        } else if (kept > 0) {
            kept--;
            change_name(&t, &d->name[i]);
        }
    }
    if (keep == KEEP_RUBBISH) {
        for (size_t i = 0; i < sizeof shm; i++) {
            shm[i] = (unsigned char)draw(&seed, 256);
        }
        snprintf(path, sizeof path, "%s/ebbgate.db-shm", folder);
        if (!write_file(path, shm, sizeof shm)) {
            return false;
        }
    }
    return write_names(d, &t, folder, keep, &seed);
}
