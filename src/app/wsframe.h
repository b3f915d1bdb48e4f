/*
 * wsframe.h - the client's half of RFC 6455 as bytes: frames to send, frames received, and the key
 * of the opening handshake. Pure.
 *
 * The gateway's own half is edge/ws.c. The two have nothing in common but the frame header, and a
 * client must see every close code as it was sent.
 */
#ifndef EG_APP_WSFRAME_H
#define EG_APP_WSFRAME_H

#include "base/bytes.h"

enum eg_ws_opcode {
    EG_WS_CONTINUATION = 0,
    EG_WS_TEXT = 1,
    EG_WS_BINARY = 2,
    EG_WS_CLOSE = 8,
    EG_WS_PING = 9,
    EG_WS_PONG = 10
};

/* Appends one unfragmented frame, masked with mask (RFC 6455 5.3). */
void eg_wsframe_write(struct eg_buf *out, enum eg_ws_opcode op, struct eg_slice payload,
                      const uint8_t mask[4]);

/* Bytes received, and the message that is being put together. All zeros is empty. */
struct eg_wsframe_in {
    struct eg_buf bytes;   /* append what was received here */
    size_t at;             /* where the next frame starts */
    struct eg_buf message; /* of fragments so far */
    int opcode;            /* of the message under way; 0 none */
    size_t max_message;
    const char *error; /* static; set when eg_wsframe_next returned -1 */
    int close_code;    /* to send then */
};
void eg_wsframe_in_free(struct eg_wsframe_in *in);

/*
 * The next whole message or control frame: 1 with *op and *payload (valid until the next call), 0
 * when more bytes are needed, -1 when the peer broke the protocol. A text is checked to be UTF-8, a
 * close body to be well-formed (RFC 6455 5.4, 5.5, 8.1).
 */
int eg_wsframe_next(struct eg_wsframe_in *in, enum eg_ws_opcode *op, struct eg_slice *payload);

/* The opening handshake's key for 16 random bytes, and the answer to it (RFC 6455 4.2.2). */
void eg_wskey_make(const uint8_t random[16], char key[25]);
void eg_wskey_accept(const char *key, char accept[29]);

#endif
