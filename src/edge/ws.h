/*
 * ws.h - RFC 6455 from the server's side: bytes of a socket in, messages out; and the heads of
 * outgoing frames.
 *
 * wslay is named in ws.c only. A connection that stands on a frame boundary holds nothing but a
 * NULL pointer: readers (a wslay context, a message buffer) come from a pool of the reactor and go
 * back to it. Not thread-safe: one pool, one thread.
 */
#ifndef EG_EDGE_WS_H
#define EG_EDGE_WS_H

#include "base/bytes.h"
#include "edge/utf8.h"

#define EG_WS_FRAGMENTS_MAX 4096 /* frames of one message */
#define EG_WS_HEAD_MAX 10        /* longest head of a frame that we send */
#define EG_WS_CONTROL_MAX 125

enum eg_ws_opcode {
    EG_WS_OP_CONT = 0,
    EG_WS_OP_TEXT = 1,
    EG_WS_OP_BINARY = 2,
    EG_WS_OP_CLOSE = 8,
    EG_WS_OP_PING = 9,
    EG_WS_OP_PONG = 10
};

/* What eg_ws_read found. */
enum eg_ws_what {
    EG_WS_NONE, /* the input is used up, nothing is complete */
    EG_WS_TEXT, /* a whole message */
    EG_WS_BINARY,
    EG_WS_PING,
    EG_WS_PONG,
    EG_WS_CLOSED, /* the peer's close frame: code (0: none given) */
    EG_WS_BROKEN  /* the connection has to be failed with code: 1002, 1007, 1009, 1011 */
};

struct eg_ws_item {
    struct eg_slice payload; /* valid until the next call for this connection */
    unsigned short code;
    const char *reason; /* static; BROKEN only */
};

struct eg_ws_reader;

/* Free readers of one reactor. All zeros is an empty pool. */
struct eg_ws_pool {
    struct eg_ws_reader *free;
    unsigned count;
};

/*
 * Reads on from *in, which is moved on behind what was used. *reader belongs to the connection and
 * starts as NULL. max: longest message in bytes; a frame that would pass it is refused as soon as
 * its length is known, before any of it is kept. After BROKEN or CLOSED nothing more may be read.
 */
enum eg_ws_what eg_ws_read(struct eg_ws_pool *pool, struct eg_ws_reader **reader, uint64_t max,
                           struct eg_slice *in, struct eg_ws_item *out);
/* Gives the reader back when the connection stands on a frame boundary outside of a message. */
void eg_ws_rest(struct eg_ws_pool *pool, struct eg_ws_reader **reader);
/* Gives the reader back in any state. */
void eg_ws_drop(struct eg_ws_pool *pool, struct eg_ws_reader **reader);
void eg_ws_pool_free(struct eg_ws_pool *pool);

/* Writes the head of a final, unmasked frame with n bytes of payload; returns its length. */
unsigned eg_ws_head(uint8_t head[EG_WS_HEAD_MAX], enum eg_ws_opcode opcode, uint64_t n);
/* Whether a peer may send this close code (RFC 6455 7.4, with the registered 1012-1014). */
bool eg_ws_close_code_valid(unsigned code);

#endif
