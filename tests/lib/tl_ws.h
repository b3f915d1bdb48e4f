/*
 * tl_ws: a WebSocket and HTTP client for tests, with full control of every byte.
 *
 * Purpose: drive the gateway the way a good, a careless or a hostile client would. The easy calls
 * (tl_ws_open, tl_ws_sendf, tl_ws_recv) behave; the raw calls (tl_ws_tcp, tl_ws_write,
 * tl_frame_build) send whatever they are told.
 * Threads: a struct tl_ws belongs to one thread at a time. Nothing global.
 * Owns: one socket and its receive buffer.
 * Happy path: tl_ws_open -> tl_ws_sendf / tl_ws_recv ... -> tl_ws_free.
 * Failure modes: calls return a negative TL_* value or NULL and never exit the process; the reason
 * of the last failure is in tl_ws_error().
 */
#ifndef TL_WS_H
#define TL_WS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What tl_ws_recv returned: an opcode, or why there is none. */
enum tl_kind {
    TL_TEXT = 1,
    TL_BINARY = 2,
    TL_CLOSE = 8,
    TL_PING = 9,
    TL_PONG = 10,
    TL_EOF = -1,     /* the peer closed without a close frame */
    TL_TIMEOUT = -2, /* nothing whole arrived in time; what came is kept for the next call */
    TL_RESET = -3,   /* connection reset, or another socket error */
    TL_BAD = -4,     /* the peer broke RFC 6455 (masked, RSV, long form, bad opcode) */
};

/* How a payload length is written. RFC 6455 5.2 asks for the shortest; the others are for tests. */
enum tl_len_form { TL_LEN_AUTO, TL_LEN_16, TL_LEN_64 };

/* Close codes that are never on the wire (RFC 6455 7.4.1), used as results. */
#define TL_CLOSE_NO_CODE 1005
#define TL_CLOSE_ABNORMAL 1006

struct tl_ws;

struct tl_ws_opts {
    const char *host;    /* dotted address; NULL: 127.0.0.1 */
    int port;            /* required */
    int local_port;      /* 0: any */
    const char *method;  /* NULL: GET */
    const char *path;    /* NULL: /ws */
    const char *version; /* NULL: HTTP/1.1 */
    const char *bearer;  /* token for Authorization: Bearer, or NULL */
    const char *offer;   /* Sec-WebSocket-Protocol value, or NULL */
    const char *origin;  /* Origin value, or NULL */
    const char *headers; /* further header lines, each ended with CRLF, or NULL */
    int timeout_ms;      /* 0: 10000 */
};

/* --- connecting ------------------------------------------------------------------------------ */

/* Connects TCP. local_port 0 lets the kernel choose. Returns a descriptor or -1 with errno. */
int tl_tcp(const char *host, int port, int local_port, int timeout_ms);

/* A connection with nothing sent yet. NULL when it cannot be made. */
struct tl_ws *tl_ws_tcp(const char *host, int port, int local_port, int timeout_ms);

/* Sends the upgrade request of `o` on `ws` without waiting for the answer. False on failure. */
bool tl_ws_upgrade_send(struct tl_ws *ws, const struct tl_ws_opts *o);

/*
 * Reads the answer to an upgrade up to the end of its headers, and a refused one's body too.
 * Returns the HTTP status, or TL_EOF, TL_TIMEOUT, TL_RESET, TL_BAD (no status line).
 */
int tl_ws_upgrade_recv(struct tl_ws *ws, int timeout_ms);

/*
 * Connects, upgrades and checks the answer (101, Sec-WebSocket-Accept, RFC 6455 4.2.2). The caller
 * owns the result. NULL on any failure; `*status`, when given, then holds the HTTP status or a
 * negative TL_* value.
 */
struct tl_ws *tl_ws_open(const struct tl_ws_opts *o, int *status);

/* Shortest form: /ws on 127.0.0.1 without a token. */
struct tl_ws *tl_ws_connect(int port);

/* The answer to the upgrade: the whole header block, one header's value (into buf), the body. */
const char *tl_ws_head(const struct tl_ws *ws);
bool tl_ws_header(const struct tl_ws *ws, const char *name, char *buf, size_t cap);
const char *tl_ws_body(const struct tl_ws *ws);

/* --- sending --------------------------------------------------------------------------------- */

/*
 * Writes one frame to `out`, which has room for len + 14 bytes. `first` is the whole first byte
 * (FIN, RSV, opcode). `mask` NULL leaves the frame unmasked. Returns the frame's size in bytes.
 */
size_t tl_frame_build(uint8_t *out, unsigned first, const uint8_t mask[4], enum tl_len_form form,
                      const void *payload, size_t len);

/* Writes raw bytes, waiting for room as long as the connection's timeout. False on failure. */
bool tl_ws_write(struct tl_ws *ws, const void *bytes, size_t len);

/* Writes bytes one at a time, `pause_us` microseconds apart. */
bool tl_ws_dribble(struct tl_ws *ws, const void *bytes, size_t len, unsigned pause_us);

/* Sends one masked frame with `first` as its first byte: 0x81 is a whole text message. */
bool tl_ws_frame(struct tl_ws *ws, unsigned first, const void *payload, size_t len);

/* One whole text message. */
bool tl_ws_text(struct tl_ws *ws, const char *text);
bool tl_ws_text_n(struct tl_ws *ws, const char *text, size_t len);
bool tl_ws_sendf(struct tl_ws *ws, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A close frame with a code (0: no body) and an optional reason. */
bool tl_ws_close(struct tl_ws *ws, unsigned code, const char *reason);

/* --- receiving ------------------------------------------------------------------------------- */

/*
 * The next message or control frame. Fragments are put together. A ping is answered and skipped
 * unless tl_ws_auto_pong(ws, false); pongs are returned. A close frame is recorded, answered and
 * returned. The payload is in tl_ws_data() until the next call, with a NUL after it.
 * timeout_ms 0 polls. Returns an enum tl_kind value.
 */
int tl_ws_recv(struct tl_ws *ws, int timeout_ms);
const char *tl_ws_data(const struct tl_ws *ws);
size_t tl_ws_len(const struct tl_ws *ws);

/*
 * Discards everything until the connection ends. Returns the close code, TL_CLOSE_NO_CODE for an
 * empty close frame, TL_CLOSE_ABNORMAL for an end without a close frame, or TL_TIMEOUT, TL_BAD.
 */
int tl_ws_wait_close(struct tl_ws *ws, int timeout_ms);

/* After a close: does TCP end too (EOF or reset) within the time? */
bool tl_ws_wait_eof(struct tl_ws *ws, int timeout_ms);

/* The code and reason of the close frame that was received; 0 and "" before one. */
int tl_ws_close_code(const struct tl_ws *ws);
const char *tl_ws_close_reason(const struct tl_ws *ws);

/* --- odds and ends --------------------------------------------------------------------------- */

void tl_ws_auto_pong(struct tl_ws *ws, bool on);
void tl_ws_auto_close(struct tl_ws *ws, bool on);
/* How long sending may wait for room, milliseconds. */
void tl_ws_send_timeout(struct tl_ws *ws, int timeout_ms);
int tl_ws_fd(const struct tl_ws *ws);
int tl_ws_local_port(const struct tl_ws *ws);
/* Bytes received but not yet returned by tl_ws_recv: poll() alone does not see them. */
size_t tl_ws_pending(const struct tl_ws *ws);
const char *tl_ws_error(const struct tl_ws *ws);

/* Closes the socket with a TCP reset (SO_LINGER 0) and frees. NULL is allowed. */
void tl_ws_reset(struct tl_ws *ws);
/* Closes the socket without a close frame and frees. NULL is allowed. */
void tl_ws_free(struct tl_ws *ws);

/* --- plain HTTP ------------------------------------------------------------------------------ */

struct tl_http {
    int status;    /* HTTP status, or a negative TL_* value */
    char *head;    /* status line and headers */
    char *body;    /* NUL-terminated */
    size_t len;    /* body bytes */
    bool complete; /* the body had its announced length, or the peer closed without announcing */
};

/* Sends raw request bytes and reads one whole answer. Free `out` with tl_http_free. */
int tl_http_raw(const char *host, int port, const void *request, size_t len, int timeout_ms,
                struct tl_http *out);

/* An ordinary request. `headers` are lines ended with CRLF, or NULL; `body` may be NULL. */
int tl_http(int port, const char *method, const char *path, const char *headers, const char *body,
            struct tl_http *out);
bool tl_http_header(const struct tl_http *h, const char *name, char *buf, size_t cap);
void tl_http_free(struct tl_http *h);

/* Monotonic milliseconds. */
int64_t tl_now_ms(void);

#endif
