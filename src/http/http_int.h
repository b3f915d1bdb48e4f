/*
 * http_int.h - private to src/http: one request and its answer, the routing table, and what
 * handlers share.
 *
 * An exchange lives on one HTTP thread, from the request hook to its return. Handlers read its
 * parameters, ask the core (eg_x_call) or a reader, and answer exactly once.
 */
#ifndef EG_HTTP_INT_H
#define EG_HTTP_INT_H

#include <stdio.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "ebbgate/codes.h"
#include "http/http.h"
#include "store/reader.h"
#include "wire/json.h"

#define EG_QUERY_MAX 16
#define EG_PARAM_MAX 2
#define EG_PAGE_MAX 500 /* entries of a page */
#define EG_PAGE_DEFAULT 100
#define EG_READERS 4       /* connections to the database; requests wait for one */
#define EG_READER_WAIT_S 5 /* how long */
#define EG_EXPORTS_MAX 3   /* at the same time */
#define EG_BODY_MS 10000   /* time for a body, */
#define EG_WRITE_MS 5000   /* and for an answer, or a chunk of one, to be taken, */
#define EG_BYTES_A_MS 64   /* and a millisecond more for as many bytes */

enum eg_backup_state { EG_BACKUP_NONE, EG_BACKUP_RUNNING, EG_BACKUP_DONE, EG_BACKUP_FAILED };

EG_MUTEX(eg_http);
EG_MUTEX(eg_http_keys);

struct eg_http {
    struct eg_http_config config;
    char *dir;
    struct eg_listener *listener[2]; /* [admin]; atomic */
    int started;                     /* atomic */
    int stopping;                    /* atomic */
    int exports;                     /* atomic */
    int drained;                     /* atomic: POST /drain was taken */
    int64_t started_ms;              /* wall */
    int64_t started_mono_ms;
    struct eg_http_mutex lock;
    struct eg_settings *settings EG_GUARDED_BY(eg_http_mutex);
    pthread_cond_t returned; /* a reader */
    struct eg_reader *idle[EG_READERS] EG_GUARDED_BY(eg_http_mutex);
    int idle_count EG_GUARDED_BY(eg_http_mutex), opened EG_GUARDED_BY(eg_http_mutex);
    struct {
        pthread_t thread;
        bool joinable;
        enum eg_backup_state state;
        char *to;
        int64_t done, total, started_ms, finished_ms;
        char error[512];
    } backup EG_GUARDED_BY(eg_http_mutex);
    struct eg_http_keys_mutex keys; /* one change of the key files at a time */
};

struct eg_exchange;

/* What a token must hold for a route. */
enum eg_need {
    EG_NEED_NONE,       /* no token */
    EG_NEED_READ,       /* scope read */
    EG_NEED_WRITE,      /* scope write */
    EG_NEED_ADMIN_READ, /* scope admin or admin:read */
    EG_NEED_ADMIN       /* scope admin */
};

/* Where a route is served. */
#define EG_ON_PUBLIC 1u
#define EG_ON_ADMIN 2u
#define EG_ON_BOTH 3u

struct eg_route {
    const char *method;
    const char *path; /* segments in braces are parameters */
    unsigned where;
    enum eg_need need;
    bool body;         /* reads a JSON object; an empty body is {} */
    const char *query; /* names of parameters, space-separated */
    void (*handle)(struct eg_exchange *x);
};

extern const struct eg_route eg_routes[]; /* ended by a NULL method */

/* One name=value of the query, decoded, NUL-terminated. */
struct eg_query {
    const char *name;
    struct eg_slice value;
};

struct eg_exchange {
    struct eg_http *http;
    struct mg_connection *conn;
    struct eg_settings *settings; /* of this request; one reference */
    const struct eg_route *route;
    bool admin, head; /* head: the method is HEAD: the answer has no body */
    const char *method, *version;
    char *text; /* decoded path and query, which the slices below point into */
    char *path; /* decoded, NUL-terminated; for the log and for files */
    struct eg_slice param[EG_PARAM_MAX];
    struct eg_query query[EG_QUERY_MAX];
    int queries;
    struct eg_claims claims; /* verified; all zeros without a token */
    bool token_from_query;
    char who[EG_ID_MAX + 1]; /* sub of the token; "" without one */
    char addr[64];
    const char *origin; /* header, or NULL */
    bool origin_listed; /* in allowed_origins: CORS headers are given */
    struct eg_buf body; /* raw */
    struct eg_json_doc doc;
    struct eg_buf texts[4]; /* decoded strings of the body and the like, for handlers */
    int retry_s;            /* what a problem tells to wait; 0: a second */
    struct eg_buf fields;   /* further header lines of the answer */
    int status;             /* of the answer; 0: none yet */
};

/* --- transport.c: what touches civetweb --- */
const char *eg_x_header(const struct eg_exchange *x, const char *name);
bool eg_x_write(struct eg_exchange *x, const void *p, size_t n);
/* One chunk of a chunked answer (RFC 9112 7.1), or plain bytes to an HTTP/1.0 client. */
bool eg_x_chunk(struct eg_exchange *x, const void *p, size_t n);
/* Reads content-length bytes of body into x->body within their time. EG_EFULL: too long; EG_EAGAIN:
 * too slow; EG_EIO: the client is gone. */
enum eg_err eg_x_read_body(struct eg_exchange *x) EG_MUST;
enum eg_err eg_x_adopt(struct eg_exchange *x, struct eg_slice head, struct eg_adopted *a) EG_MUST;

/* --- answer.c --- */
/* Status line and header block into out. length -1: chunked; less: until the connection closes. */
void eg_x_head(struct eg_exchange *x, struct eg_buf *out, int status, const char *type,
               int64_t length);
/* Sends and frees body. */
void eg_x_answer(struct eg_exchange *x, int status, const char *type, struct eg_buf *body);
void eg_x_json(struct eg_exchange *x, int status, struct eg_buf *body);
void eg_x_nothing(struct eg_exchange *x); /* 204 */
/* problem+json (RFC 9457). detail and field may be NULL. status 0: the code's own. */
void eg_x_problem(struct eg_exchange *x, int status, enum eg_code code, const char *detail,
                  const char *field);
void eg_x_invalid(struct eg_exchange *x, const char *field, const char *detail);
void eg_x_need_scope(struct eg_exchange *x, const char *scope);
/* The problem for a failed read. */
void eg_x_read_failed(struct eg_exchange *x, enum eg_err err, const char *why);

/* --- routes.c --- */
void eg_x_serve(struct eg_exchange *x, const char *path, const char *query);

/* --- input.c: what callers send --- */
/* Splits path and query. False: answered. */
bool eg_x_split(struct eg_exchange *x, const char *path, const char *query);
/* Whether every parameter is one of names; if not, answered. */
bool eg_x_check_query(struct eg_exchange *x, const char *names);
/* A parameter; n == 0 and p NULL when absent. */
struct eg_slice eg_x_query(const struct eg_exchange *x, const char *name);
/* An integer parameter within min..max. False: answered. Absent: *out stays. */
bool eg_x_query_int(struct eg_exchange *x, const char *name, int64_t min, int64_t max,
                    int64_t *out);
bool eg_x_limit(struct eg_exchange *x, int *out);
/* Scans x->body into x->doc and checks that it is an object with members of names only. */
bool eg_x_check_body(struct eg_exchange *x, const char *names);
/* A string member of min..max bytes, decoded into x->texts[slot]. Absent: *out.p is NULL, and with
 * required it is answered. False: answered. */
bool eg_x_text(struct eg_exchange *x, const char *name, bool required, size_t min, size_t max,
               int slot, struct eg_slice *out);
/* An integer member. Absent: *out stays. */
bool eg_x_int(struct eg_exchange *x, const char *name, bool required, int64_t min, int64_t max,
              int64_t *out);
/* A list of ids as malloc'ed texts, NULL-terminated; absent: *out NULL. */
bool eg_x_list(struct eg_exchange *x, const char *name, char ***out);
void eg_list_free(char **list);

/* Positions of pages: base64url of text such as "s:123:4". */
void eg_page_next(struct eg_buf *out, const char *fmt, ...) EG_PRINTF(2, 3); /* ,"next":... */
void eg_page_end(struct eg_buf *out);                                        /* ,"next":null */
/* Reads the parameter next, which must have the form of kind and count numbers, and for text
 * (not NULL) a rest. Absent: false with *bad false. Otherwise answered when false. */
bool eg_page_read(struct eg_exchange *x, char kind, int64_t *number, int numbers,
                  struct eg_buf *text, bool *bad);

/* --- pool.c --- */
/* A reader for this thread; NULL: answered. */
struct eg_reader *eg_x_reader(struct eg_exchange *x);
void eg_x_return(struct eg_exchange *x, struct eg_reader *r);
EG_REQUIRES(eg_http_mutex) void eg_http_close_readers(struct eg_http *h);
/* The session named id, open or closed. False: answered. */
bool eg_x_session(struct eg_exchange *x, struct eg_reader *r, struct eg_slice id,
                  struct eg_session_row *row);

/* --- act.c: asking the core --- */
/* Fills the audit half of call (on the admin listener), asks the core and answers its refusal.
 * True: done. */
bool eg_x_call(struct eg_exchange *x, struct eg_call *call, const char *action, const char *detail);
/* An audit entry for an act that is not the core's. False: answered, and the act is not to be done.
 */
bool eg_x_audit(struct eg_exchange *x, const char *action, const char *detail);
/* Who the core shall take the caller for; borrows from x. */
struct eg_identity eg_x_identity(const struct eg_exchange *x);
struct eg_slice eg_x_id(const struct eg_exchange *x); /* the first parameter */
/* Say something, abort: after eg_x_check_body with these fields. */
#define EG_MESSAGE_FIELDS "content metadata"
#define EG_ABORT_FIELDS "turn reason"
bool eg_x_message(struct eg_exchange *x, const struct eg_identity *who, struct eg_slice source);
bool eg_x_abort(struct eg_exchange *x, const struct eg_identity *who);

/* --- people.c: live connections --- */
/* One connection as JSON. */
void eg_conn_json(struct eg_buf *b, const struct eg_conn_info *info);
/* Appends the connections of one session as a JSON array. */
void eg_session_connections(struct eg_http *h, const char *session, struct eg_buf *b);

/* --- events.c --- */
bool eg_x_wants(const struct eg_exchange *x, const char *type);

/* --- turns.c --- */
void eg_turn_json(struct eg_buf *b, const struct eg_turn_row *row, const char *session,
                  const char *agent);

/* --- files.c --- */
/* A console file, when path names one. */
bool eg_x_file(struct eg_exchange *x);

/* Handlers of the routing table. */
#define EG_HANDLERS(X)                                                                             \
    X(sessions_list)                                                                               \
    X(session_get)                                                                                 \
    X(session_delete)                                                                              \
    X(session_close)                                                                               \
    X(session_fork)                                                                                \
    X(session_say)                                                                                 \
    X(session_abort)                                                                               \
    X(session_events)                                                                              \
    X(agents_list)                                                                                 \
    X(agent_get)                                                                                   \
    X(agent_put)                                                                                   \
    X(agent_delete)                                                                                \
    X(turns_list)                                                                                  \
    X(turn_retry)                                                                                  \
    X(connections_list)                                                                            \
    X(connection_delete)                                                                           \
    X(token_mint)                                                                                  \
    X(token_revoke)                                                                                \
    X(revoked_list)                                                                                \
    X(keys_list)                                                                                   \
    X(keys_rotate)                                                                                 \
    X(key_delete)                                                                                  \
    X(stats)                                                                                       \
    X(config)                                                                                      \
    X(audit_list)                                                                                  \
    X(drain)                                                                                       \
    X(backup_get)                                                                                  \
    X(backup_start)                                                                                \
    X(checkpoint)                                                                                  \
    X(metrics)                                                                                     \
    X(live)                                                                                        \
    X(ready)                                                                                       \
    X(health)                                                                                      \
    X(openapi)                                                                                     \
    X(client_create)                                                                               \
    X(client_events)                                                                               \
    X(client_message)                                                                              \
    X(client_abort)                                                                                \
    X(jwks)
#define EG_HANDLER_DECL(name) void eg_h_##name(struct eg_exchange *x);
EG_HANDLERS(EG_HANDLER_DECL)
#undef EG_HANDLER_DECL

#endif
