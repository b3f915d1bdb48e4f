/*
 * tl_ws_int: what tl_ws.c and tl_http.c share: the connection itself. Not for users of the library.
 */
#ifndef TL_WS_INT_H
#define TL_WS_INT_H

#include "tl_buf.h"
#include "tl_ws.h"

struct tl_ws {
    int fd;
    int send_timeout_ms;
    bool auto_pong;
    bool auto_close;
    struct tl_buf in;
    size_t in_off; /* bytes of `in` already consumed */
    struct tl_buf msg;
    int msg_kind; /* opcode of the fragmented message in hand, 0: none */
    char *head;
    char *body;
    int close_code;
    char close_reason[124];
    char error[160];
};

/* Reads more bytes into `in`. Returns 1, or TL_EOF, TL_TIMEOUT, TL_RESET. */
int tl_ws_fill(struct tl_ws *ws, int64_t deadline);

/*
 * Reads one HTTP answer into head and body. `*complete`: the body has its announced length, or none
 * was announced and the peer closed. Returns the status or a negative TL_* value.
 */
int tl_ws_answer(struct tl_ws *ws, int64_t deadline, bool *complete, size_t *body_len);

/* Finds a header in a block of header lines; the first one wins. */
bool tl_find_header(const char *head, const char *name, char *buf, size_t cap);

#endif
