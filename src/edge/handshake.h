/*
 * handshake.h - what a request must look like before anything acts on it: HTTP framing, the
 * WebSocket upgrade (RFC 6455 4.2), the token it carries, and the answer when it is refused.
 *
 * Pure. A request is a view of header lines somebody else owns; names compare without case, values
 * without the blanks around them.
 */
#ifndef EG_EDGE_HANDSHAKE_H
#define EG_EDGE_HANDSHAKE_H

#include "base/bytes.h"
#include "ebbgate/codes.h"

#define EG_HEADERS_MAX 64

struct eg_header {
    const char *name, *value;
};

struct eg_request {
    const char *method, *path, *version; /* version: "1.1" */
    const char *query;                   /* without '?'; NULL none */
    int headers;
    struct eg_header header[EG_HEADERS_MAX];
};

/* Why a request is refused; all texts static. */
struct eg_refusal {
    int status; /* HTTP */
    enum eg_code code;
    const char *detail;
    const char *fields; /* further header lines, each with its CRLF, or NULL */
};

/* The only header named name; NULL when there is none or, with *twice set, more than one. */
const char *eg_request_header(const struct eg_request *r, const char *name, bool *twice);
/* Whether a comma-separated list in any header called name holds token (without case). */
bool eg_request_has_token(const struct eg_request *r, const char *name, const char *token);

/*
 * Framing that two readers could understand differently is refused (RFC 9112 3.2, 6.3): Host
 * missing or repeated, Content-Length repeated or no plain number, Transfer-Encoding of any kind,
 * as many header lines as fit (there may have been more). EG_EINVALID fills why.
 */
enum eg_err eg_request_check(const struct eg_request *r, struct eg_refusal *why) EG_MUST;
/* The rules of RFC 6455 4.2.1 for a request to the WebSocket path. EG_EINVALID fills why. */
enum eg_err eg_upgrade_check(const struct eg_request *r, struct eg_refusal *why) EG_MUST;
/* Whether the client offers EG_SUBPROTOCOL. */
bool eg_upgrade_offers_protocol(const struct eg_request *r);
/* The token that an Authorization header bears (RFC 6750 2.1); p NULL: it bears none. */
struct eg_slice eg_bearer_token(struct eg_slice authorization);
/*
 * The token: Authorization: Bearer, else a subprotocol bearer.<token>, else the query parameter
 * token (then *from_query). malloc'ed; *out NULL when there is none.
 */
enum eg_err eg_upgrade_token(const struct eg_request *r, char **out, bool *from_query) EG_MUST;

/* Whether a browser's EventSource asks. It takes an error status for the end and never comes back,
 * but comes back after a connection that closes without an answer (WHATWG HTML, 9.2.3). */
bool eg_request_is_event_source(const struct eg_request *r);

/* Where the header block of n received bytes ends (after its blank line), 0 when it has not ended,
 * -1 when a byte stands in it that no request has. */
long eg_header_end(const char *p, size_t n);

/* A complete answer: status line, header fields, Connection: close, problem+json (RFC 9457). */
void eg_refusal_write(const struct eg_refusal *why, struct eg_buf *out);
/* The reason phrase of an HTTP status. */
const char *eg_http_reason(int status);

#endif
