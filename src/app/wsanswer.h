/*
 * wsanswer.h - the HTTP answer to a WebSocket's opening handshake (RFC 6455 4.1, 4.2.2), as bytes.
 * Pure.
 */
#ifndef EG_APP_WSANSWER_H
#define EG_APP_WSANSWER_H

#include "base/bytes.h"

#define EG_WSANSWER_MAX 65536 /* bytes of an answer that are waited for */

enum eg_wsanswer_kind {
    EG_WSANSWER_MORE,    /* its end is not there yet */
    EG_WSANSWER_OPEN,    /* upgraded */
    EG_WSANSWER_REFUSED, /* an answer of HTTP, but no upgrade */
    EG_WSANSWER_BROKEN   /* nothing that HTTP or RFC 6455 knows */
};

struct eg_wsanswer {
    struct eg_slice frames; /* OPEN: what came behind the answer; points into the bytes given */
    int status;             /* REFUSED */
    char code[64];          /* REFUSED: protocol code of the problem; "" none */
    char reason[256];       /* REFUSED, BROKEN: for people */
    int64_t retry_after_ms; /* REFUSED: as told by the gateway; -1: not told */
};

/*
 * Looks at what came so far. accept: the Sec-WebSocket-Accept that must be in it. ended: no more
 * will come, so the answer is never MORE. Without memory a problem's code and reason are left out.
 */
enum eg_wsanswer_kind eg_wsanswer_read(struct eg_slice bytes, bool ended, const char *accept,
                                       struct eg_wsanswer *out) EG_MUST;

#endif
