/*
 * http_answer.h - what has to be true of every answer of the HTTP API; ends the process when it is
 * not. For fuzz_http.c.
 */
#ifndef EG_TESTS_FUZZ_HTTP_ANSWER_H
#define EG_TESTS_FUZZ_HTTP_ANSWER_H

#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"

#define http_must(holds, out)                                                                      \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            fprintf(stderr, "line %d: not so: %s\nanswer: %.*s\n", __LINE__, #holds,               \
                    (int)((out)->n < 2000 ? (out)->n : 2000), (out)->p ? (out)->p : "");           \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct http_answer {
    const char *method, *path; /* of the request */
    int status;                /* as the handler says */
    bool adopted;              /* the socket was handed on after the head */
    bool expects;              /* the request has Expect */
    bool gone;                 /* the client left before the whole body was there */
    bool may_close;            /* a browser's event stream, while draining: closed without a word */
    struct eg_buf *out;        /* all that was written; a NUL is added, chunks are joined */
};

void http_answer_check(const struct http_answer *a);

#endif
