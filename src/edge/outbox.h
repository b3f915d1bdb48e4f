/*
 * outbox.h - what waits to be written to one socket: shared bytes with a frame head each.
 *
 * An empty box is a pointer and no more: thousands of connections have nothing to say. Entries are
 * either counted against the limits of a slow consumer, or paged: replay and history, of which more
 * is produced only when the last was written. One thread.
 */
#ifndef EG_EDGE_OUTBOX_H
#define EG_EDGE_OUTBOX_H

#include "base/bytes.h"
#include "edge/ws.h"

/* A frame (head and payload), or several ready-made ones (no head). */
struct eg_outent {
    struct eg_bytes *bytes; /* one reference */
    uint32_t n;             /* of its bytes, from the start */
    uint32_t frames;
    bool paged;
    uint8_t head_n;
    uint8_t head[EG_WS_HEAD_MAX];
};

struct eg_outbox {
    struct eg_outq *q; /* NULL: empty */
};

/* What is in a box that is not empty, oldest first in a ring. */
struct eg_outq {
    uint32_t first, count, cap;
    uint32_t frames;   /* waiting, counted ones */
    size_t sent;       /* bytes of the first entry that are written */
    size_t bytes;      /* waiting, counted ones; what is written of the first is taken off */
    size_t page_bytes; /* waiting, paged ones */
    struct eg_outent ent[];
};

static inline uint32_t eg_outbox_frames(const struct eg_outbox *o)
{
    return o->q ? o->q->frames : 0;
}

static inline size_t eg_outbox_bytes(const struct eg_outbox *o)
{
    return o->q ? o->q->bytes : 0;
}

static inline size_t eg_outbox_page_bytes(const struct eg_outbox *o)
{
    return o->q ? o->q->page_bytes : 0;
}

/* All that is not written. */
static inline size_t eg_outbox_waiting(const struct eg_outbox *o)
{
    return eg_outbox_bytes(o) + eg_outbox_page_bytes(o);
}

/* Fills *ent for one frame of this opcode; does not touch the reference. */
void eg_outent_frame(struct eg_outent *ent, struct eg_bytes *bytes, enum eg_ws_opcode opcode);
/* Fills *ent for bytes that go out as they are. */
void eg_outent_raw(struct eg_outent *ent, struct eg_bytes *bytes, uint32_t frames);

/* Appends; takes ent's reference, on failure too. */
enum eg_err eg_outbox_take(struct eg_outbox *o, const struct eg_outent *ent) EG_MUST;

/* Memory for gathering small frames into one write; of the reactor. */
struct eg_outbuf {
    char *p;
    size_t size;
};

/*
 * Writes as much as fd takes. EG_OK: all is written. EG_EAGAIN: fd is full. EG_EIO: fd is broken.
 * *written is increased by the bytes that went out.
 */
enum eg_err eg_outbox_write(struct eg_outbox *o, int fd, struct eg_outbuf *buf,
                            size_t *written) EG_MUST;
/* Bytes of counted entries behind the first one: an event that is larger than all limits must not
 * make its receiver a slow one. */
size_t eg_outbox_behind(const struct eg_outbox *o);
/* Drops all that is not begun: what remains is at most the rest of one frame. WebSocket only. */
void eg_outbox_cut(struct eg_outbox *o);
void eg_outbox_free(struct eg_outbox *o);

#endif
