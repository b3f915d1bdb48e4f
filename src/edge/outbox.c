/*
 * outbox.c - see outbox.h.
 *
 * Happy path: entries are appended while the reactor handles what woke it; at the end of its loop
 * each box is written once: small frames are copied side by side into the reactor's buffer, large
 * ones are sent from where they are, all with one sendmsg.
 * Failure modes: no memory for the ring: the entry is dropped and EG_ENOMEM told. A full socket:
 * what was written of the first entry is remembered.
 */
#include "edge/outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define IOV_MAX_HERE 128
#define COPY_MAX 4096 /* larger payloads are not copied */

void eg_outent_frame(struct eg_outent *ent, struct eg_bytes *bytes, enum eg_ws_opcode opcode)
{
    *ent = (struct eg_outent){.bytes = bytes, .n = (uint32_t)bytes->n, .frames = 1};
    ent->head_n = (uint8_t)eg_ws_head(ent->head, opcode, bytes->n);
}

void eg_outent_raw(struct eg_outent *ent, struct eg_bytes *bytes, uint32_t frames)
{
    *ent = (struct eg_outent){.bytes = bytes, .n = (uint32_t)bytes->n, .frames = frames};
}

static struct eg_outent *entry(struct eg_outbox *o, uint32_t i)
{
    return o->q ? &o->q[(o->first + i) & (o->cap - 1)] : &o->one;
}

static size_t entry_size(const struct eg_outent *ent)
{
    return (size_t)ent->head_n + ent->n;
}

static bool grow(struct eg_outbox *o)
{
    const uint32_t cap = o->q ? o->cap * 2 : 4;
    struct eg_outent *const q = malloc(cap * sizeof *q);
    if (!q) {
        return false;
    }
    for (uint32_t i = 0; i < o->count; i++) {
        q[i] = *entry(o, i);
    }
    free(o->q);
    o->q = q;
    o->cap = cap;
    o->first = 0;
    return true;
}

enum eg_err eg_outbox_take(struct eg_outbox *o, const struct eg_outent *ent)
{
    if (o->count == (o->q ? o->cap : 1) && !grow(o)) {
        eg_bytes_unref(ent->bytes);
        return EG_ENOMEM;
    }
    *entry(o, o->count++) = *ent;
    if (ent->paged) {
        o->page_bytes += entry_size(ent);
    } else {
        o->bytes += entry_size(ent);
        o->frames += ent->frames;
    }
    return EG_OK;
}

size_t eg_outbox_behind(const struct eg_outbox *o)
{
    if (o->count == 0) {
        return 0;
    }
    const struct eg_outent *const first = o->q ? &o->q[o->first] : &o->one;
    return o->bytes - (first->paged ? 0 : entry_size(first) - o->sent);
}

/* Takes the first entry off. */
static void drop_first(struct eg_outbox *o)
{
    struct eg_outent *const ent = entry(o, 0);
    const size_t left = entry_size(ent) - o->sent;
    if (ent->paged) {
        o->page_bytes -= left;
    } else {
        o->bytes -= left;
        o->frames -= ent->frames;
    }
    eg_bytes_unref(ent->bytes);
    o->sent = 0;
    o->count--;
    if (o->q) {
        o->first = (o->first + 1) & (o->cap - 1);
        if (o->count == 0) {
            free(o->q);
            o->q = NULL;
            o->first = o->cap = 0;
        }
    }
}

/* n bytes were written. */
static void advance(struct eg_outbox *o, size_t n)
{
    while (n) {
        const struct eg_outent *const ent = entry(o, 0);
        const size_t left = entry_size(ent) - o->sent;
        const size_t take = n < left ? n : left;
        *(ent->paged ? &o->page_bytes : &o->bytes) -= take;
        o->sent += take;
        n -= take;
        if (take == left) {
            drop_first(o);
        }
    }
}

/* The parts of one write. */
struct parts {
    struct iovec iov[IOV_MAX_HERE];
    int n;
    size_t total;
    char *at, *end; /* free part of the buffer */
};

/* Adds len bytes, by copy when they are few and there is room; false when no more fits. */
static bool add_part(struct parts *w, const void *p, size_t len)
{
    if (len == 0) {
        return true;
    }
    struct iovec *const last = w->n ? &w->iov[w->n - 1] : NULL;
    if (len <= COPY_MAX) {
        if ((size_t)(w->end - w->at) < len) {
            return false;
        }
        memcpy(w->at, p, len);
        if (last && (char *)last->iov_base + last->iov_len == w->at) {
            last->iov_len += len;
        } else if (w->n < IOV_MAX_HERE) {
            w->iov[w->n++] = (struct iovec){w->at, len};
        } else {
            return false;
        }
        w->at += len;
    } else {
        if (w->n == IOV_MAX_HERE) {
            return false;
        }
        w->iov[w->n++] = (struct iovec){(void *)(uintptr_t)p, len};
    }
    w->total += len;
    return true;
}

static void gather(struct eg_outbox *o, struct parts *w)
{
    for (uint32_t i = 0; i < o->count; i++) {
        const struct eg_outent *const ent = entry(o, i);
        const size_t skip = i ? 0 : o->sent;
        const size_t head_skip = skip < ent->head_n ? skip : ent->head_n;
        if (!add_part(w, ent->head + head_skip, ent->head_n - head_skip) ||
            !add_part(w, ent->bytes->data + (skip - head_skip), ent->n - (skip - head_skip))) {
            break;
        }
    }
}

enum eg_err eg_outbox_write(struct eg_outbox *o, int fd, struct eg_outbuf *buf, size_t *written)
{
    while (o->count) {
        struct parts w = {.at = buf->p, .end = buf->p + buf->size};
        gather(o, &w);
        if (w.total == 0) { /* entries without bytes */
            drop_first(o);
            continue;
        }
        const struct msghdr msg = {.msg_iov = w.iov, .msg_iovlen = (size_t)w.n};
        const ssize_t n = w.n == 1 ? send(fd, w.iov[0].iov_base, w.iov[0].iov_len, MSG_NOSIGNAL)
                                   : sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? EG_EAGAIN : EG_EIO;
        }
        *written += (size_t)n;
        advance(o, (size_t)n);
        if ((size_t)n < w.total) {
            return EG_EAGAIN;
        }
    }
    return EG_OK;
}

/* Where the frame ends that byte at of ready-made frames lies in. */
static uint32_t frame_end(const struct eg_outent *ent, size_t at)
{
    size_t end = 0;
    while (end < at && ent->n - end >= 2) {
        const uint8_t *const head = (const uint8_t *)ent->bytes->data + end;
        const unsigned more = head[1] == 127 ? 8 : head[1] == 126 ? 2 : 0;
        uint64_t n = more ? 0 : head[1];
        for (unsigned i = 0; i < more; i++) {
            n = n << 8 | head[2 + i];
        }
        end += 2 + more + n;
    }
    return end < ent->n ? (uint32_t)end : ent->n;
}

void eg_outbox_cut(struct eg_outbox *o)
{
    struct eg_outbox rest = {0};
    if (o->count && o->sent) {
        rest.one = *entry(o, 0);
        if (rest.one.head_n == 0) {
            rest.one.n = frame_end(&rest.one, o->sent);
        }
    }
    if (rest.one.bytes && entry_size(&rest.one) > o->sent) {
        const size_t left = entry_size(&rest.one) - o->sent;
        eg_bytes_ref(rest.one.bytes);
        rest.count = 1;
        rest.sent = o->sent;
        rest.one.frames = rest.one.paged ? rest.one.frames : 1;
        rest.frames = rest.one.paged ? 0 : 1;
        *(rest.one.paged ? &rest.page_bytes : &rest.bytes) = left;
    }
    eg_outbox_free(o);
    *o = rest;
}

void eg_outbox_free(struct eg_outbox *o)
{
    while (o->count) {
        drop_first(o);
    }
    free(o->q);
    *o = (struct eg_outbox){0};
}
