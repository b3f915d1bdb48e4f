/*
 * err.h - the one enum of internal errors. 0 is success. What a peer is told is an eg_code
 * (ebbgate/codes.h), which is data; these are for us.
 */
#ifndef EG_BASE_ERR_H
#define EG_BASE_ERR_H

#define EG_ERRS(X)                                                                                 \
    X(OK, "ok")                                                                                    \
    X(NOMEM, "out of memory")                                                                      \
    X(INVALID, "not valid")                                                                        \
    X(NOTFOUND, "not found")                                                                       \
    X(EXISTS, "exists already")                                                                    \
    X(FULL, "no room")                                                                             \
    X(BUSY, "in use")                                                                              \
    X(AGAIN, "not now")                                                                            \
    X(IO, "input or output error")                                                                 \
    X(UNKNOWN, "outcome unknown")                                                                  \
    X(CORRUPT, "corrupt")                                                                          \
    X(TOONEW, "made by a newer version")                                                           \
    X(DENIED, "not permitted")                                                                     \
    X(CLOSED, "closed")

enum eg_err {
#define EG_ERR_ENUM(name, text) EG_E##name,
    EG_ERRS(EG_ERR_ENUM)
#undef EG_ERR_ENUM
};
#define EG_OK EG_EOK

#define EG_MUST __attribute__((warn_unused_result))
#define EG_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

/* Static text for e. Never NULL. */
const char *eg_err_text(enum eg_err e);

#endif
