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

#define FIRST_CAP 2 /* entries in a new ring: a block that malloc keeps at hand */
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

static struct eg_outent *entry(struct eg_outq *q, uint32_t i)
{
    return &q->ent[(q->first + i) & (q->cap - 1)];
}

static size_t entry_size(const struct eg_outent *ent)
{
    return (size_t)ent->head_n + ent->n;
}

/* Room for one more entry. */
static bool grow(struct eg_outbox *o)
{
    struct eg_outq *const old = o->q;
    const uint32_t cap = old ? old->cap * 2 : FIRST_CAP;
    struct eg_outq *const q = malloc(sizeof *q + cap * sizeof q->ent[0]);
    if (!q) {
        return false;
    }
    if (old) {
        *q = *old;
        for (uint32_t i = 0; i < old->count; i++) {
            q->ent[i] = *entry(old, i);
        }
        free(old);
    } else {
        *q = (struct eg_outq){0};
    }
    q->cap = cap;
    q->first = 0;
    o->q = q;
    return true;
}

enum eg_err eg_outbox_take(struct eg_outbox *o, const struct eg_outent *ent)
{
    if ((!o->q || o->q->count == o->q->cap) && !grow(o)) {
        eg_bytes_unref(ent->bytes);
        return EG_ENOMEM;
    }
    struct eg_outq *const q = o->q;
    *entry(q, q->count++) = *ent;
    if (ent->paged) {
        q->page_bytes += entry_size(ent);
    } else {
        q->bytes += entry_size(ent);
        q->frames += ent->frames;
    }
    return EG_OK;
}

size_t eg_outbox_behind(const struct eg_outbox *o)
{
    if (!o->q) {
        return 0;
    }
    const struct eg_outent *const first = entry(o->q, 0);
    return o->q->bytes - (first->paged ? 0 : entry_size(first) - o->q->sent);
}

/* Takes the first entry off; frees the ring with its last one. */
static void drop_first(struct eg_outbox *o)
{
    struct eg_outq *const q = o->q;
    const struct eg_outent *const ent = entry(q, 0);
    const size_t left = entry_size(ent) - q->sent;
    if (ent->paged) {
        q->page_bytes -= left;
    } else {
        q->bytes -= left;
        q->frames -= ent->frames;
    }
    eg_bytes_unref(ent->bytes);
    q->sent = 0;
    q->count--;
    q->first = (q->first + 1) & (q->cap - 1);
    if (q->count == 0) {
        free(q);
        o->q = NULL;
    }
}

/* n bytes were written. */
static void advance(struct eg_outbox *o, size_t n)
{
    while (n && o->q) {
        struct eg_outq *const q = o->q;
        const struct eg_outent *const ent = entry(q, 0);
        const size_t left = entry_size(ent) - q->sent;
        const size_t take = n < left ? n : left;
        *(ent->paged ? &q->page_bytes : &q->bytes) -= take;
        q->sent += take;
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

static void gather(struct eg_outq *q, struct parts *w)
{
    for (uint32_t i = 0; i < q->count; i++) {
        const struct eg_outent *const ent = entry(q, i);
        const size_t skip = i ? 0 : q->sent;
        const size_t head_skip = skip < ent->head_n ? skip : ent->head_n;
        if (!add_part(w, ent->head + head_skip, ent->head_n - head_skip) ||
            !add_part(w, ent->bytes->data + (skip - head_skip), ent->n - (skip - head_skip))) {
            break;
        }
    }
}

enum eg_err eg_outbox_write(struct eg_outbox *o, int fd, struct eg_outbuf *buf, size_t *written)
{
    while (o->q) {
        struct parts w;
        w.n = 0;
        w.total = 0;
        w.at = buf->p;
        w.end = buf->p + buf->size;
        gather(o->q, &w);
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
    struct eg_outq *const q = o->q;
    if (!q || !q->sent) {
        eg_outbox_free(o);
        return;
    }
    struct eg_outent *const ent = entry(q, 0);
    for (uint32_t i = 1; i < q->count; i++) {
        eg_bytes_unref(entry(q, i)->bytes);
    }
    q->count = 1;
    if (ent->head_n == 0) {
        ent->n = frame_end(ent, q->sent);
    }
    const size_t left = entry_size(ent) - q->sent;
    ent->frames = ent->paged ? ent->frames : 1;
    q->frames = ent->paged ? 0 : 1;
    q->bytes = ent->paged ? 0 : left;
    q->page_bytes = ent->paged ? left : 0;
    if (left == 0) {
        drop_first(o);
    }
}

void eg_outbox_free(struct eg_outbox *o)
{
    while (o->q) {
        drop_first(o);
    }
}
