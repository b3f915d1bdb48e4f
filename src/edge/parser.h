/*
 * parser.h - the thread that reads large texts. Private to src/edge.
 *
 * A message of a MiB takes up to some twenty milliseconds to be judged, in which a reactor would
 * serve nobody else. So texts longer than EG_LARGE_BYTES are judged here, one after the other, and
 * mailed back; their connection is not read from meanwhile, which keeps the order of its frames.
 */
#ifndef EG_EDGE_PARSER_H
#define EG_EDGE_PARSER_H

#include "edge/peer.h"

#define EG_LARGE_BYTES (64U << 10)

/* What was read of one text. */
struct eg_reading {
    enum eg_err err; /* as of eg_frame_parse */
    struct eg_frame frame;
    struct eg_frame_error why;
    struct eg_buf tail; /* when made already, see eg_frame_tail */
    size_t n;           /* bytes of the text */
};

struct eg_large {
    struct eg_mail mail; /* first */
    struct eg_large *next;
    struct eg_reactor *reactor;
    eg_conn_id conn;
    struct eg_reading reading;
    char text[];
};

enum eg_err eg_parser_start(struct eg_parser **out) EG_MUST;
/* Copies text, and mails what was read of it back to p's reactor. EG_ENOMEM: nothing was done. */
enum eg_err eg_parser_give(struct eg_parser *parser, const struct eg_peer *p,
                           struct eg_slice text) EG_MUST;
void eg_parser_stop(struct eg_parser *parser); /* NULL is fine */
void eg_large_free(struct eg_large *large);    /* with its reading */

/* methods.c: reads text, and makes the tail of what will be appended. spare: as for
 * eg_frame_parse_into. */
void eg_method_read(struct eg_slice text, struct eg_buf *spare, struct eg_reading *out);
void eg_method_large(struct eg_peer *p, struct eg_large *large); /* takes large; p may be gone */

#endif
