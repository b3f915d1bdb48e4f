/*
 * wsframe.c - see wsframe.h.
 */
#include "app/wsframe.h"

#include <string.h>

#include "wire/json.h"

void eg_wsframe_write(struct eg_buf *out, enum eg_ws_opcode op, struct eg_slice payload,
                      const uint8_t mask[4])
{
    eg_buf_char(out, (char)(0x80 | op));
    if (payload.n < 126) {
        eg_buf_char(out, (char)(0x80 | payload.n));
    } else if (payload.n < 65536) {
        eg_buf_char(out, (char)(0x80 | 126));
        for (int shift = 8; shift >= 0; shift -= 8)
            eg_buf_char(out, (char)(payload.n >> shift & 0xff));
    } else {
        eg_buf_char(out, (char)(0x80 | 127));
        for (int shift = 56; shift >= 0; shift -= 8)
            eg_buf_char(out, (char)((uint64_t)payload.n >> shift & 0xff));
    }
    eg_buf_add(out, mask, 4);
    char *to = eg_buf_reserve(out, payload.n);
    if (!to)
        return;
    for (size_t i = 0; i < payload.n; i++)
        to[i] = (char)((uint8_t)payload.p[i] ^ mask[i & 3]);
    out->n += payload.n;
}

void eg_wsframe_in_free(struct eg_wsframe_in *in)
{
    eg_buf_free(&in->bytes);
    eg_buf_free(&in->message);
    in->at = 0;
    in->opcode = 0;
}

static int broken(struct eg_wsframe_in *in, int code, const char *why)
{
    in->close_code = code;
    in->error = why;
    return -1;
}

/* One frame's header, and where its payload is. */
struct head {
    bool fin;
    unsigned opcode;
    uint64_t length;
    size_t size; /* of the header */
};

/* Reads the header at in->at: 1 whole, 0 more is needed, -1 broken. */
static int read_head(struct eg_wsframe_in *in, struct head *h)
{
    const uint8_t *p = (const uint8_t *)in->bytes.p + in->at;
    size_t n = in->bytes.n - in->at;
    if (n < 2)
        return 0;
    h->fin = p[0] & 0x80;
    h->opcode = p[0] & 0x0f;
    h->length = p[1] & 0x7f;
    h->size = 2;
    bool control = h->opcode >= 8;
    if (p[0] & 0x70)
        return broken(in, 1002, "reserved bits are set");
    if (p[1] & 0x80)
        return broken(in, 1002, "a server's frame is masked");
    if (h->opcode > 2 && (h->opcode < 8 || h->opcode > 10))
        return broken(in, 1002, "unknown opcode");
    if (control && (!h->fin || h->length > 125))
        return broken(in, 1002, "malformed control frame");
    if (!control && (h->opcode == EG_WS_CONTINUATION) != (in->opcode != 0))
        return broken(in, 1002, "fragments out of order");
    int extra = h->length == 126 ? 2 : h->length == 127 ? 8 : 0;
    if (n < 2 + (size_t)extra)
        return 0;
    if (extra > 0) {
        h->length = 0;
        for (int i = 0; i < extra; i++)
            h->length = h->length << 8 | p[2 + i];
        h->size += (size_t)extra;
    }
    size_t have = control ? 0 : in->message.n;
    if (h->length > in->max_message || have > in->max_message - h->length)
        return broken(in, 1009, "message is too long");
    return 1;
}

static int check_payload(struct eg_wsframe_in *in, unsigned op, struct eg_slice payload)
{
    size_t offset;
    if (op == EG_WS_TEXT && !eg_utf8_valid(payload, &offset))
        return broken(in, 1007, "text is not UTF-8");
    if (op == EG_WS_CLOSE && payload.n == 1)
        return broken(in, 1002, "malformed close frame");
    if (op == EG_WS_CLOSE && payload.n > 2 &&
        !eg_utf8_valid((struct eg_slice){payload.p + 2, payload.n - 2}, &offset))
        return broken(in, 1007, "close reason is not UTF-8");
    return 1;
}

int eg_wsframe_next(struct eg_wsframe_in *in, enum eg_ws_opcode *op, struct eg_slice *payload)
{
    for (;;) {
        struct head h;
        if (in->error)
            return -1;
        if (in->opcode == 0)
            eg_buf_reset(&in->message);
        int got = read_head(in, &h);
        if (got == 1 && in->bytes.n - in->at - h.size < h.length)
            got = 0;
        if (got == 0 && in->at > 0) {
            memmove(in->bytes.p, in->bytes.p + in->at, in->bytes.n - in->at);
            in->bytes.n -= in->at;
            in->at = 0;
        }
        if (got != 1)
            return got;
        *payload = (struct eg_slice){in->bytes.p + in->at + h.size, (size_t)h.length};
        in->at += h.size + (size_t)h.length;
        if (h.opcode >= 8 || (h.fin && in->opcode == 0)) {
            *op = (enum eg_ws_opcode)h.opcode;
            return check_payload(in, h.opcode, *payload);
        }
        eg_buf_slice(&in->message, *payload);
        if (in->message.err != EG_OK)
            return broken(in, 1009, "out of memory");
        if (in->opcode == 0)
            in->opcode = (int)h.opcode;
        if (h.fin) {
            *op = (enum eg_ws_opcode)in->opcode;
            *payload = (struct eg_slice){in->message.p, in->message.n};
            in->opcode = 0;
            return check_payload(in, *op, *payload);
        }
    }
}

/* SHA-1 (FIPS 180-4 6.1) of at most 64 bytes of text: all that RFC 6455 needs it for. */
static void sha1_short(const char *text, size_t n, uint8_t digest[20])
{
    uint8_t block[128] = {0};
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    size_t blocks = n + 9 <= 64 ? 1 : 2;
    memcpy(block, text, n);
    block[n] = 0x80;
    for (int i = 0; i < 8; i++)
        block[blocks * 64 - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
    for (size_t b = 0; b < blocks; b++) {
        uint32_t w[80], v[5];
        memcpy(v, h, sizeof v);
        for (size_t t = 0; t < 80; t++) {
            const uint8_t *p = block + b * 64 + t * 4;
            if (t < 16) {
                w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
            } else {
                uint32_t x = w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16];
                w[t] = x << 1 | x >> 31;
            }
            uint32_t f, k;
            if (t < 20) {
                f = (v[1] & v[2]) | (~v[1] & v[3]);
                k = 0x5a827999;
            } else if (t < 40) {
                f = v[1] ^ v[2] ^ v[3];
                k = 0x6ed9eba1;
            } else if (t < 60) {
                f = (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]);
                k = 0x8f1bbcdc;
            } else {
                f = v[1] ^ v[2] ^ v[3];
                k = 0xca62c1d6;
            }
            uint32_t sum = (v[0] << 5 | v[0] >> 27) + f + v[4] + k + w[t];
            v[4] = v[3];
            v[3] = v[2];
            v[2] = v[1] << 30 | v[1] >> 2;
            v[1] = v[0];
            v[0] = sum;
        }
        for (int i = 0; i < 5; i++)
            h[i] += v[i];
    }
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *p, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
        v |= i + 2 < n ? p[i + 2] : 0;
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *out = '\0';
}

void eg_wskey_make(const uint8_t random[16], char key[25])
{
    base64(random, 16, key);
}

void eg_wskey_accept(const char *key, char accept[29])
{
    char text[64];
    uint8_t digest[20];
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1_short(text, 60, digest);
    base64(digest, sizeof digest, accept);
}
