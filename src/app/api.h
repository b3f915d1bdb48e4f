/*
 * api.h - the admin API as the command line sees it: one HTTP request at a time, by libcurl.
 *
 * Threads: the main one. Owns the token and the connection. Failure modes: one line on stderr and
 * EG_EXIT_FAILED; an answer that is a problem is told by its code and detail; a 2xx answer of
 * another type than was asked for is nobody's yes: something else listens there. A gateway that
 * takes a request and falls silent (stopped, or behind a connection that is gone) is given up after
 * four heartbeats and 5 s.
 */
#ifndef EG_APP_API_H
#define EG_APP_API_H

#include "app/fields.h"
#include "app/keys.h"

/* Options; texts are borrowed. */
struct eg_api_opts {
    struct eg_data_opts data;
    const char *url, *token;
};
/* The rows for a command's option table. */
#define EG_API_OPTS(o)                                                                             \
    {"url",                                                                                        \
     0,                                                                                            \
     EG_OPT_TEXT,                                                                                  \
     "URL",                                                                                        \
     "the admin listener (default $EBBGATE_ADMIN_URL, else as configured)",                        \
     &(o)->url,                                                                                    \
     0,                                                                                            \
     0},                                                                                           \
        {"token",                                                                                  \
         0,                                                                                        \
         EG_OPT_TEXT,                                                                              \
         "TOKEN",                                                                                  \
         "a token (default $EBBGATE_TOKEN, else one is made with the data folder's key)",          \
         &(o)->token,                                                                              \
         0,                                                                                        \
         0},                                                                                       \
        EG_DATA_OPTS(&(o)->data)

struct eg_api {
    const struct eg_command *cmd;
    void *curl;
    char *base;                    /* http://HOST:PORT */
    struct eg_buf token;           /* NUL-terminated */
    const struct eg_api_opts *own; /* what the token was made with; NULL: it was given */
    bool quiet;                    /* say nothing when the gateway cannot be reached or is busy */
    long status;                   /* HTTP status of the last answer; 0: there was none */
    int64_t silence_ms;            /* how long the gateway may say nothing while it is asked */
};

/* EG_PROCEED or an exit code, said why. */
int eg_api_init(struct eg_api *a, const struct eg_command *cmd, const struct eg_api_opts *o);
void eg_api_free(struct eg_api *a);
/* Makes the token anew if it is one of our own; o of eg_api_init must still be there. EG_PROCEED or
 * an exit code, said why. */
int eg_api_renew(struct eg_api *a);

/* Takes a piece of an answer as it comes; false ends the request. */
typedef bool eg_api_sink(void *arg, const char *p, size_t n);

/* One request. path is below /api/v1 with its query, encoded. body NULL: none. accept NULL: JSON.
 */
struct eg_api_request {
    const char *method, *path, *accept;
    const struct eg_buf *body;
    eg_api_sink *sink; /* NULL: into out */
    void *arg;
};
/* EG_PROCEED for a 2xx answer, in out; else an exit code, said why. */
int eg_api_call(struct eg_api *a, const struct eg_api_request *r, struct eg_buf *out);

/* Whether the last answer says that the gateway is not there now, or that a proxy before it thinks
 * so.
 */
bool eg_api_away(const struct eg_api *a);

/* Appends text percent-encoded for a path or a query. */
void eg_api_encode(struct eg_buf *b, const char *text);
/* Appends ?key=value or &key=value when value is not NULL. */
void eg_api_param(struct eg_buf *path, const char *key, const char *value);
/* The path as a C string; NULL without memory. Valid until path changes. */
const char *eg_api_path(struct eg_buf *path);

#endif
