/*
 * ws.c - frames to messages with wslay.
 *
 * Threads: a pool and its readers belong to one reactor.
 * Owns: wslay frame contexts and message buffers, both pooled.
 * Happy path: the head of a frame is collected and judged here (wslay reports a frame only with its
 * first payload byte, accepts unmasked ones, and takes any length), then head and payload are
 * handed to wslay, never more than one frame at a time, so that its context is empty again at every
 * frame boundary and can serve another connection. Payload comes back in pieces; a message is
 * collected from them, its UTF-8 checked on the way. wslay unmasks byte by byte, which would be the
 * dearest step of a short message: it is given the head without the mask, and the mask is taken off
 * here, eight bytes at a time, on the way into the message.
 * Failure modes: every breach of the RFC yields EG_WS_BROKEN with the close code to send; a reader
 * that saw one is not used again. No memory: 1011.
 *
 * Why wslay's frame interface and not its event interface: that one answers close codes 1012-1014
 * with 1002, accepts a close body of one byte, fails framing errors without a code, buffers control
 * frames of its own and limits frames, not messages.
 */
#include "edge/ws.h"

#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "ebbgate/codes.h"

#define POOL_MAX 64           /* idle readers kept */
#define KEEP_BUFFER_MAX 16384 /* a larger message buffer is freed with its message */

struct eg_ws_reader {
    wslay_frame_context_ptr ctx;
    struct eg_ws_reader *next;
    const uint8_t *give; /* what wslay may take now */
    size_t give_n;
    struct eg_buf msg; /* the message so far */
    uint64_t left;     /* payload bytes of this frame still to come */
    unsigned fragments;
    struct eg_utf8 utf8;
    uint8_t head[14]; /* of the frame that begins */
    uint8_t head_n, head_need;
    uint8_t mask[4];
    uint8_t mask_at; /* where in the mask the next payload byte is */
    uint8_t opcode, fin;
    uint8_t message; /* opcode of the message under way, 0: none */
    bool in_payload, done, control_open;
    uint8_t control_n;
    uint8_t control[EG_WS_CONTROL_MAX];
};

static ssize_t give_bytes(uint8_t *buf, size_t len, int flags, void *user_data)
{
    struct eg_ws_reader *const rd = user_data;
    const size_t n = len < rd->give_n ? len : rd->give_n;
    (void)flags;
    if (n == 0) {
        return -1;
    }
    memcpy(buf, rd->give, n);
    rd->give += n;
    rd->give_n -= n;
    return (ssize_t)n;
}

static struct eg_ws_reader *take_reader(struct eg_ws_pool *pool)
{
    struct eg_ws_reader *rd = pool->free;
    if (rd) {
        pool->free = rd->next;
        pool->count--;
        rd->next = NULL;
        return rd;
    }
    rd = calloc(1, sizeof *rd);
    const struct wslay_frame_callbacks callbacks = {.recv_callback = give_bytes};
    if (rd && wslay_frame_context_init(&rd->ctx, &callbacks, rd) != 0) {
        free(rd);
        rd = NULL;
    }
    return rd;
}

static void free_reader(struct eg_ws_reader *rd)
{
    wslay_frame_context_free(rd->ctx);
    eg_buf_free(&rd->msg);
    free(rd);
}

/* Ready for the next message. */
static void reset_message(struct eg_ws_reader *rd)
{
    if (rd->msg.cap > KEEP_BUFFER_MAX) {
        eg_buf_free(&rd->msg);
    } else {
        eg_buf_reset(&rd->msg);
    }
    rd->message = 0;
    rd->fragments = 0;
    rd->utf8 = (struct eg_utf8){0};
}

static void finish_item(struct eg_ws_reader *rd)
{
    if (!rd->done) {
        return;
    }
    rd->done = false;
    if (rd->control_open) {
        rd->control_open = false;
        rd->control_n = 0;
    } else {
        reset_message(rd);
    }
}

void eg_ws_rest(struct eg_ws_pool *pool, struct eg_ws_reader **reader)
{
    struct eg_ws_reader *const rd = *reader;
    if (!rd) {
        return;
    }
    finish_item(rd);
    if (rd->message || rd->in_payload || rd->head_n) {
        return;
    }
    *reader = NULL;
    if (pool->count >= POOL_MAX) {
        free_reader(rd);
        return;
    }
    rd->next = pool->free;
    pool->free = rd;
    pool->count++;
}

void eg_ws_drop(struct eg_ws_pool *pool, struct eg_ws_reader **reader)
{
    eg_ws_rest(pool, reader);
    if (*reader) {
        free_reader(*reader);
        *reader = NULL;
    }
}

void eg_ws_pool_free(struct eg_ws_pool *pool)
{
    while (pool->free) {
        struct eg_ws_reader *const rd = pool->free;
        pool->free = rd->next;
        free_reader(rd);
    }
    pool->count = 0;
}

static enum eg_ws_what broken(struct eg_ws_item *out, enum eg_close code, const char *reason)
{
    *out = (struct eg_ws_item){.code = (unsigned short)code, .reason = reason};
    return EG_WS_BROKEN;
}

/* RFC 6455 5.2, 5.4, 5.5: what the first two bytes tell. */
static enum eg_ws_what judge_first(const struct eg_ws_reader *rd, struct eg_ws_item *out)
{
    const uint8_t b0 = rd->head[0];
    const uint8_t opcode = b0 & 0x0f;
    if (b0 & 0x70) {
        return broken(out, EG_CLOSE_PROTOCOL, "reserved bit set");
    }
    if ((opcode > EG_WS_OP_BINARY && opcode < EG_WS_OP_CLOSE) || opcode > EG_WS_OP_PONG) {
        return broken(out, EG_CLOSE_PROTOCOL, "unknown opcode");
    }
    if (opcode >= EG_WS_OP_CLOSE) {
        if (!(b0 & 0x80)) {
            return broken(out, EG_CLOSE_PROTOCOL, "fragmented control frame");
        }
    } else if (opcode == EG_WS_OP_CONT ? !rd->message : rd->message != 0) {
        return broken(out, EG_CLOSE_PROTOCOL,
                      rd->message ? "message within a message" : "nothing to continue");
    }
    if (rd->head_n < 2) {
        return EG_WS_NONE;
    }
    if (!(rd->head[1] & 0x80)) {
        return broken(out, EG_CLOSE_PROTOCOL, "frame is not masked");
    }
    if (opcode >= EG_WS_OP_CLOSE && (rd->head[1] & 0x7f) > EG_WS_CONTROL_MAX) {
        return broken(out, EG_CLOSE_PROTOCOL, "control frame too long");
    }
    return EG_WS_NONE;
}

/* The payload length is known: is it allowed? */
static enum eg_ws_what judge_length(struct eg_ws_reader *rd, uint64_t max, struct eg_ws_item *out)
{
    const uint8_t n7 = rd->head[1] & 0x7f;
    uint64_t n = n7;
    if (n7 >= 126) {
        n = 0;
        for (unsigned i = 2; i < (n7 == 126 ? 4U : 10U); i++) {
            n = n << 8 | rd->head[i];
        }
        if (n7 == 126 ? n < 126 : (n < 65536 || n >> 63)) {
            return broken(out, EG_CLOSE_PROTOCOL, "length not in its shortest form");
        }
    }
    rd->opcode = rd->head[0] & 0x0f;
    rd->fin = rd->head[0] >> 7;
    rd->left = n;
    if (rd->opcode < EG_WS_OP_CLOSE) {
        if (n > max || rd->msg.n > max - n) {
            return broken(out, EG_CLOSE_TOO_BIG, "message too long");
        }
        if (++rd->fragments > EG_WS_FRAGMENTS_MAX) {
            return broken(out, EG_CLOSE_TOO_BIG, "message in too many fragments");
        }
    }
    return EG_WS_NONE;
}

/*
 * Collects the head byte by byte as far as needed. NONE with in_payload set once it is complete and
 * wslay has it.
 */
static enum eg_ws_what read_head(struct eg_ws_reader *rd, uint64_t max, struct eg_slice *in,
                                 struct eg_ws_item *out)
{
    while (in->n) {
        rd->head[rd->head_n++] = (uint8_t)*in->p++;
        in->n--;
        enum eg_ws_what what = EG_WS_NONE;
        if (rd->head_n <= 2) {
            what = judge_first(rd, out);
            if (what || rd->head_n < 2) {
                if (what) {
                    return what;
                }
                continue;
            }
            const uint8_t n7 = rd->head[1] & 0x7f;
            rd->head_need = n7 == 127 ? 14 : n7 == 126 ? 8 : 6;
        }
        if (rd->head_n == rd->head_need - 4) {
            what = judge_length(rd, max, out);
            if (what) {
                return what;
            }
        }
        if (rd->head_n == rd->head_need) {
            memcpy(rd->mask, rd->head + rd->head_n - sizeof rd->mask, sizeof rd->mask);
            rd->mask_at = 0;
            rd->head[1] &= 0x7f;
            rd->give = rd->head;
            rd->give_n = rd->head_n - sizeof rd->mask;
            rd->head_n = 0;
            rd->in_payload = true;
            break;
        }
    }
    return EG_WS_NONE;
}

/* Copies n payload bytes to `to` without their mask (RFC 6455 5.3). */
static void unmask(struct eg_ws_reader *rd, uint8_t *to, const uint8_t *p, size_t n)
{
    uint8_t turned[8];
    uint64_t mask;
    size_t i = 0;
    for (unsigned k = 0; k < sizeof turned; k++) {
        turned[k] = rd->mask[(rd->mask_at + k) & 3];
    }
    memcpy(&mask, turned, sizeof mask);
    for (; n - i >= sizeof mask; i += sizeof mask) {
        uint64_t word;
        memcpy(&word, p + i, sizeof word);
        word ^= mask;
        memcpy(to + i, &word, sizeof word);
    }
    for (; i < n; i++) {
        to[i] = p[i] ^ turned[i & 7];
    }
    rd->mask_at = (uint8_t)((rd->mask_at + n) & 3);
}

/* One piece of payload, as it came. */
static enum eg_ws_what take_piece(struct eg_ws_reader *rd, const uint8_t *p, size_t n,
                                  struct eg_ws_item *out)
{
    if (rd->opcode >= EG_WS_OP_CLOSE) {
        unmask(rd, rd->control + rd->control_n, p, n);
        rd->control_n = (uint8_t)(rd->control_n + n);
        return EG_WS_NONE;
    }
    uint8_t *const to = (uint8_t *)eg_buf_reserve(&rd->msg, n);
    if (!to) {
        return broken(out, EG_CLOSE_INTERNAL, "out of memory");
    }
    unmask(rd, to, p, n);
    rd->msg.n += n;
    if (rd->message == EG_WS_OP_TEXT && !eg_utf8_feed(&rd->utf8, to, n)) {
        return broken(out, EG_CLOSE_UTF8, "not valid UTF-8");
    }
    return EG_WS_NONE;
}

bool eg_ws_close_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* RFC 6455 5.5.1, 7.1.5: the body of a close frame. */
static enum eg_ws_what close_body(struct eg_ws_reader *rd, struct eg_ws_item *out)
{
    struct eg_utf8 utf8 = {0};
    *out = (struct eg_ws_item){{(const char *)rd->control, rd->control_n}, 0, NULL};
    if (rd->control_n == 0) {
        return EG_WS_CLOSED;
    }
    if (rd->control_n == 1) {
        return broken(out, EG_CLOSE_PROTOCOL, "close body of one byte");
    }
    const unsigned code = (unsigned)rd->control[0] << 8 | rd->control[1];
    if (!eg_ws_close_code_valid(code)) {
        return broken(out, EG_CLOSE_PROTOCOL, "invalid close code");
    }
    if (!eg_utf8_feed(&utf8, rd->control + 2, rd->control_n - 2U) || utf8.need) {
        return broken(out, EG_CLOSE_UTF8, "close reason is not valid UTF-8");
    }
    out->code = (unsigned short)code;
    out->payload = (struct eg_slice){(const char *)rd->control + 2, rd->control_n - 2U};
    return EG_WS_CLOSED;
}

/* A frame is complete: what it means. */
static enum eg_ws_what frame_end(struct eg_ws_reader *rd, struct eg_ws_item *out)
{
    rd->in_payload = false;
    if (rd->opcode >= EG_WS_OP_CLOSE) {
        rd->done = rd->control_open = true;
        if (rd->opcode == EG_WS_OP_CLOSE) {
            return close_body(rd, out);
        }
        *out = (struct eg_ws_item){{(const char *)rd->control, rd->control_n}, 0, NULL};
        return rd->opcode == EG_WS_OP_PING ? EG_WS_PING : EG_WS_PONG;
    }
    if (!rd->fin) {
        return EG_WS_NONE;
    }
    if (rd->message == EG_WS_OP_TEXT && rd->utf8.need) {
        return broken(out, EG_CLOSE_UTF8, "text ends within a character");
    }
    rd->done = true;
    *out = (struct eg_ws_item){{rd->msg.p ? rd->msg.p : "", rd->msg.n}, 0, NULL};
    return rd->message == EG_WS_OP_TEXT ? EG_WS_TEXT : EG_WS_BINARY;
}

/* Hands wslay what there is of this frame and takes what comes out. */
static enum eg_ws_what read_payload(struct eg_ws_reader *rd, struct eg_slice *in,
                                    struct eg_ws_item *out)
{
    if (rd->opcode == EG_WS_OP_TEXT || rd->opcode == EG_WS_OP_BINARY) {
        rd->message = rd->opcode;
    }
    for (;;) {
        struct wslay_frame_iocb io;
        if (rd->give_n == 0 && rd->left && in->n) {
            rd->give = (const uint8_t *)in->p;
            rd->give_n = in->n < rd->left ? in->n : (size_t)rd->left;
            in->p += rd->give_n;
            in->n -= rd->give_n;
        }
        memset(&io, 0, sizeof io);
        const ssize_t n = wslay_frame_recv(rd->ctx, &io);
        if (n == WSLAY_ERR_WANT_READ) {
            if (rd->give_n || (rd->left && in->n)) {
                continue;
            }
            return EG_WS_NONE;
        }
        if (n < 0 || io.data_length > rd->left) {
            return broken(out, EG_CLOSE_PROTOCOL, "framing error");
        }
        if (io.data_length) {
            const enum eg_ws_what what = take_piece(rd, io.data, io.data_length, out);
            if (what) {
                return what;
            }
            rd->left -= io.data_length;
        }
        if (rd->left == 0) {
            return frame_end(rd, out);
        }
    }
}

enum eg_ws_what eg_ws_read(struct eg_ws_pool *pool, struct eg_ws_reader **reader, uint64_t max,
                           struct eg_slice *in, struct eg_ws_item *out)
{
    struct eg_ws_reader *rd = *reader;
    *out = (struct eg_ws_item){0};
    if (!rd) {
        if (in->n == 0) {
            return EG_WS_NONE;
        }
        rd = *reader = take_reader(pool);
        if (!rd) {
            return broken(out, EG_CLOSE_INTERNAL, "out of memory");
        }
    }
    finish_item(rd);
    while (in->n || rd->in_payload) {
        enum eg_ws_what what;
        if (!rd->in_payload) {
            what = read_head(rd, max, in, out);
            if (what) {
                return what;
            }
            if (!rd->in_payload) {
                break;
            }
        }
        what = read_payload(rd, in, out);
        if (what || rd->in_payload) {
            return what;
        }
    }
    return EG_WS_NONE;
}

unsigned eg_ws_head(uint8_t head[EG_WS_HEAD_MAX], enum eg_ws_opcode opcode, uint64_t n)
{
    unsigned bytes = 0;
    head[0] = (uint8_t)(0x80 | opcode);
    if (n <= 125) {
        head[1] = (uint8_t)n;
    } else if (n <= 65535) {
        head[1] = 126;
        bytes = 2;
    } else {
        head[1] = 127;
        bytes = 8;
    }
    for (unsigned i = 0; i < bytes; i++) {
        head[2 + i] = (uint8_t)(n >> (8 * (bytes - 1 - i)));
    }
    return 2 + bytes;
}
