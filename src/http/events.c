/*
 * events.c - the log of a session over HTTP: a page, an export line by line, a live stream.
 *
 * HTTP threads. A page is read whole, then written; an export goes on page by page and holds
 * neither a reader nor more than a page of memory while its client reads. A live stream is handed
 * to the reactors and costs no thread.
 * Failure modes: an export whose reading fails in the middle, or whose events are removed before
 * they are read, ends without its last chunk, so that the client sees that it is not complete.
 */
#include <stdlib.h>
#include <string.h>

#include "http/http_int.h"
#include "wire/event.h"
#include "wire/frame.h"

#define SCAN_MAX 20000          /* events looked at for one page */
#define SCAN_STEP 256           /* in one read transaction */
#define EXPORT_BYTES (1u << 18) /* of one chunk of an export */

/* What to give: cursors in low..high, of the types named. */
struct range {
    uint64_t low, high;
    bool desc;
    struct eg_slice types; /* comma-separated; empty: all */
};

struct page {
    const struct range *range;
    struct eg_buf out;
    int n, max;
    size_t max_bytes;
    char separator;
    uint64_t last; /* cursor looked at last; 0: none */
    int looked;
    bool full; /* stopped before `last` */
};

static bool is_type(struct eg_slice types, struct eg_slice type)
{
    for (size_t at = 0; at <= types.n;) {
        const char *comma = memchr(types.p + at, ',', types.n - at);
        const size_t n = comma ? (size_t)(comma - types.p) - at : types.n - at;
        if (n == type.n && memcmp(types.p + at, type.p, n) == 0)
            return true;
        at += n + 1;
    }
    return false;
}

static void take_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct page *p = arg;
    struct eg_event_head head;
    if (p->full)
        return;
    if (p->range->types.n &&
        (eg_event_read(body, &head) != EG_OK || !is_type(p->range->types, head.type))) {
        p->last = cursor;
        p->looked++;
        return;
    }
    if (p->n == p->max || (p->n > 0 && p->out.n + body.n > p->max_bytes)) {
        p->full = true;
        return;
    }
    if (p->separator == ',' && p->n)
        eg_buf_char(&p->out, ',');
    eg_buf_slice(&p->out, body);
    if (p->separator == '\n')
        eg_buf_char(&p->out, '\n');
    p->n++;
    p->last = cursor;
    p->looked++;
}

/* Fills the page from p->range; *rest becomes what is left of it. */
static enum eg_err fill(struct eg_reader *r, int64_t sid, struct page *p, struct range *rest)
{
    enum eg_err err = EG_OK;
    *rest = *p->range;
    while (err == EG_OK && !p->full && p->looked < SCAN_MAX && rest->low <= rest->high) {
        const struct eg_page want = {.sid = sid,
                                     .from = rest->low,
                                     .to = rest->high,
                                     .max = SCAN_STEP,
                                     .max_bytes = p->max_bytes,
                                     .descending = rest->desc};
        const int looked = p->looked;
        err = eg_reader_events(r, &want, take_event, p);
        if (p->looked > looked && rest->desc)
            rest->high = p->last - 1;
        else if (p->looked > looked)
            rest->low = p->last + 1;
        else if (!p->full)
            rest->low = rest->high + 1; /* nothing is left there */
    }
    return err == EG_OK ? p->out.err : err;
}

/* --- what is asked for --- */

static bool take_range(struct eg_exchange *x, const struct eg_session_row *row, struct range *out)
{
    int64_t since = 0, before = INT64_MAX;
    const struct eg_slice order = eg_x_query(x, "order");
    if (!eg_x_query_int(x, "since", 0, EG_JSON_INT_MAX, &since) ||
        !eg_x_query_int(x, "before", 0, EG_JSON_INT_MAX, &before))
        return false;
    if (order.p && !eg_slice_is(order, "asc") && !eg_slice_is(order, "desc")) {
        eg_x_invalid(x, "order", "must be asc or desc");
        return false;
    }
    out->desc = order.p && eg_slice_is(order, "desc");
    out->types = eg_x_query(x, "type");
    if (out->types.n > 512) {
        eg_x_invalid(x, "type", "must have at most 512 bytes");
        return false;
    }
    out->low = (uint64_t)since + 1;
    if (out->low < row->oldest)
        out->low = row->oldest;
    out->high = row->cursor;
    if ((uint64_t)before <= out->high)
        out->high = before > 0 ? (uint64_t)before - 1 : 0;
    return true;
}

/* Goes on where the page before stopped. */
static bool take_position(struct eg_exchange *x, struct range *range)
{
    int64_t at[2];
    bool bad;
    if (eg_page_read(x, 'e', at, 2, NULL, &bad)) {
        if (at[0] != range->desc) {
            eg_x_invalid(x, "next", "belongs to the other order");
            return false;
        }
        if (range->desc && (uint64_t)at[1] < range->high)
            range->high = (uint64_t)at[1];
        else if (!range->desc && (uint64_t)at[1] > range->low)
            range->low = (uint64_t)at[1];
    }
    return !bad;
}

/* --- a page --- */

static void write_page(struct eg_exchange *x, const struct eg_session_row *row,
                       const struct range *range)
{
    struct page p = {
        .range = range, .max_bytes = (size_t)x->settings->max_payload, .separator = ','};
    struct range rest;
    struct eg_buf b = {0};
    if (!eg_x_limit(x, &p.max))
        return;
    struct eg_reader *r = eg_x_reader(x);
    if (!r)
        return;
    const enum eg_err err = fill(r, row->sid, &p, &rest);
    if (err != EG_OK)
        eg_x_read_failed(x, err, eg_reader_why(r));
    eg_x_return(x, r);
    if (err == EG_OK) {
        eg_buf_str(&b, "{\"events\":[");
        eg_buf_add(&b, p.out.p, p.out.n);
        eg_buf_char(&b, ']');
        eg_json_kint(&b, "cursor", (int64_t)row->cursor);
        eg_json_kint(&b, "oldest_cursor", (int64_t)row->oldest);
        if (rest.low <= rest.high)
            eg_page_next(&b, "e:%d:%llu", rest.desc,
                         (unsigned long long)(rest.desc ? rest.high : rest.low));
        else
            eg_page_end(&b);
        eg_buf_char(&b, '}');
        eg_x_json(x, 200, &b);
    }
    eg_buf_free(&p.out);
}

/* --- an export --- */

static uint64_t cursors_in(const struct range *range)
{
    return range->low <= range->high ? range->high - range->low + 1 : 0;
}

/* False also when events are missing: the session is being trimmed or deleted meanwhile. */
static bool export_some(struct eg_exchange *x, int64_t sid, struct range *range)
{
    struct page p = {
        .range = range, .max = INT32_MAX, .max_bytes = EXPORT_BYTES, .separator = '\n'};
    struct range rest = *range;
    struct eg_reader *r = eg_x_reader(x);
    bool ok = false;
    if (!r)
        return false;
    const enum eg_err err = fill(r, sid, &p, &rest);
    if (err != EG_OK)
        eg_log_limited(EG_LOG_ERROR, "http.export_failed", "why=%s", eg_reader_why(r));
    eg_x_return(x, r);
    const bool whole = (uint64_t)p.looked == cursors_in(range) - cursors_in(&rest);
    ok = err == EG_OK && whole && (p.out.n == 0 || eg_x_chunk(x, p.out.p, p.out.n));
    eg_buf_free(&p.out);
    *range = rest;
    return ok;
}

static void write_export(struct eg_exchange *x, const struct eg_session_row *row,
                         struct range *range)
{
    struct eg_buf head = {0};
    bool ok = true;
    if (eg_x_query(x, "limit").p || eg_x_query(x, "next").p) {
        eg_x_invalid(x, eg_x_query(x, "limit").p ? "limit" : "next", "is not for an export");
        return;
    }
    if (__atomic_add_fetch(&x->http->exports, 1, __ATOMIC_ACQ_REL) > EG_EXPORTS_MAX) {
        eg_x_problem(x, 0, EG_CODE_rate_limited, "too many exports are under way", NULL);
        goto out;
    }
    eg_x_head(x, &head, 200, "application/x-ndjson", -1);
    ok = head.err == EG_OK && eg_x_write(x, head.p, head.n);
    while (ok && !x->head && range->low <= range->high)
        ok = export_some(x, row->sid, range);
    if (ok && !x->head)
        (void)eg_x_chunk(x, "", 0);
out:
    __atomic_sub_fetch(&x->http->exports, 1, __ATOMIC_ACQ_REL);
    eg_buf_free(&head);
}

/* --- a live stream --- */

/* Where the stream begins: Last-Event-ID, else since, else now (-1). */
static bool take_since(struct eg_exchange *x, int64_t *since)
{
    const char *last = eg_x_header(x, "Last-Event-ID");
    char *end = NULL;
    *since = -1;
    if (!eg_x_query_int(x, "since", 0, EG_JSON_INT_MAX, since))
        return false;
    if (!last || !*last)
        return true;
    const size_t n = strspn(last, "0123456789");
    if (n == 0 || n > 16 || last[n] || (*since = strtoll(last, &end, 10)) > EG_JSON_INT_MAX) {
        eg_x_invalid(x, "Last-Event-ID", "must be a cursor");
        return false;
    }
    return true;
}

/* The token's claims for the reactor; an operator may enter every session. */
static bool lend_claims(struct eg_exchange *x, struct eg_adopted *a)
{
    a->claims = x->claims;
    memset(&x->claims, 0, sizeof x->claims);
    if (!x->admin)
        return true;
    eg_list_free(a->claims.sessions);
    a->claims.sessions = calloc(2, sizeof *a->claims.sessions);
    a->claims.scopes |= EG_SCOPE_READ;
    return a->claims.sessions && (a->claims.sessions[0] = strdup("*"));
}

/*
 * Whether a client of a closed session has all there ever will be. Not if its place is in another
 * log; but an EventSource comes again with the same epoch, so with Last-Event-ID that is not asked.
 */
static bool has_all(struct eg_exchange *x, const struct eg_session_row *row, int64_t since,
                    struct eg_slice epoch)
{
    const char *last = eg_x_header(x, "Last-Event-ID");
    char now[EG_EPOCH_MAX + 1];
    if (row->state != EG_SESSION_CLOSED || (since >= 0 && (uint64_t)since != row->cursor))
        return false;
    eg_core_epoch(x->http->config.core, row->sid, now);
    return since < 0 || (last && *last) || !epoch.n || eg_slice_is(epoch, now);
}

static void write_stream(struct eg_exchange *x, const struct eg_session_row *row)
{
    struct eg_buf head = {0};
    struct eg_adopted *a = NULL;
    int64_t since;
    const struct eg_slice epoch = eg_x_query(x, "epoch");
    if (!eg_x_check_query(x, "since epoch token") || !take_since(x, &since))
        return;
    if (eg_metric_get(EG_M_draining) || !__atomic_load_n(&x->http->listener[0], __ATOMIC_ACQUIRE)) {
        if (x->origin || eg_x_header(x, "Sec-Fetch-Mode"))
            x->status = 503; /* closes: see eg_request_is_event_source */
        eg_x_problem(x, 0, EG_CODE_draining, NULL, NULL);
        return;
    }
    if (has_all(x, row, since, epoch)) {
        eg_x_nothing(x); /* which tells an EventSource not to come again */
        return;
    }
    eg_buf_str(&x->fields, "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n");
    eg_x_head(x, &head, 200, "text/event-stream", -2);
    if (x->head) {
        (void)eg_x_write(x, head.p, head.n);
        goto out;
    }
    a = calloc(1, sizeof *a);
    if (!a || head.err != EG_OK || !lend_claims(x, a))
        goto no_memory;
    a->fd = -1;
    a->mode = EG_CONN_SSE;
    a->since = since;
    a->origin_allowed = true;
    strcpy(a->sse_session, row->id);
    a->session_id = eg_slice_cstr(a->sse_session);
    if (epoch.n && !(a->epoch = eg_slice_dup(epoch)))
        goto no_memory;
    const enum eg_err err = eg_x_adopt(x, (struct eg_slice){head.p, head.n}, a);
    if (err == EG_EFULL || err == EG_EAGAIN) {
        x->status = 0;
        eg_buf_reset(&x->fields);
        eg_x_problem(x, 0, err == EG_EFULL ? EG_CODE_too_many_connections : EG_CODE_rate_limited,
                     NULL, NULL);
    }
    goto out;
no_memory:
    x->status = 0;
    eg_buf_reset(&x->fields);
    if (a) {
        eg_claims_free(&a->claims);
        free(a->epoch);
        free(a);
    }
    eg_x_problem(x, 0, EG_CODE_internal, NULL, NULL);
out:
    eg_buf_free(&head);
}

/* --- which of them --- */

/* Whether the parameters of an element of Accept give it the weight 0: it is not wanted. */
static bool weightless(const char *p)
{
    const char *const end = p + strcspn(p, ",");
    while ((p += strcspn(p, ";,")) < end) {
        p++;
        p += strspn(p, " \t");
        if (strncasecmp(p, "q=0", 3) == 0) {
            p += 3;
            p += *p == '.';
            p += strspn(p, "0");
            return strspn(p, "123456789") == 0;
        }
    }
    return false;
}

/* Whether a comma-separated list of media types (RFC 9110 12.5.1) names type. */
bool eg_x_wants(const struct eg_exchange *x, const char *type)
{
    const char *p = eg_x_header(x, "Accept");
    const size_t n = strlen(type);
    while (p && *p) {
        p += strspn(p, " \t,");
        if (strncasecmp(p, type, n) == 0 && (p[n] == '\0' || strchr(" \t,;", p[n])) &&
            !weightless(p + n))
            return true;
        p += strcspn(p, ",");
    }
    return false;
}

/* Whether JSON will do. */
static bool wants_json(struct eg_exchange *x)
{
    const char *accept = eg_x_header(x, "Accept");
    if (!accept || !*accept || eg_x_wants(x, "application/json") || eg_x_wants(x, "*/*") ||
        eg_x_wants(x, "application/*"))
        return true;
    eg_x_problem(x, 406, EG_CODE_invalid_request, "there is no such form of this", "Accept");
    return false;
}

/* The row is read with a reader that is given back before anything is written. */
static bool find_session(struct eg_exchange *x, struct eg_session_row *row)
{
    struct eg_reader *r = eg_x_reader(x);
    if (!r)
        return false;
    const bool found = eg_x_session(x, r, eg_x_id(x), row);
    eg_x_return(x, r);
    return found;
}

void eg_h_session_events(struct eg_exchange *x)
{
    struct eg_session_row row;
    struct range range;
    const bool stream = eg_x_wants(x, "text/event-stream");
    if (eg_x_query(x, "token").p && !stream) {
        eg_x_invalid(x, "token", "is for event streams; send Authorization: Bearer");
        return;
    }
    if (!find_session(x, &row))
        return;
    if (stream) {
        write_stream(x, &row);
        return;
    }
    if (!take_range(x, &row, &range))
        return;
    if (eg_x_wants(x, "application/x-ndjson"))
        write_export(x, &row, &range);
    else if (wants_json(x) && take_position(x, &range))
        write_page(x, &row, &range);
}

/* Whether the caller may enter the session, as the core judges (core/session.c). */
static bool may_enter(const struct eg_exchange *x, const struct eg_session_row *row)
{
    const struct eg_claims *c = &x->claims;
    return (strcmp(row->owner, c->sub) == 0 ||
            eg_claims_list_has(c->sessions, eg_slice_cstr(row->id), false)) &&
           eg_claims_list_has(c->agents, eg_slice_cstr(row->agent), true);
}

void eg_h_client_events(struct eg_exchange *x)
{
    struct eg_session_row row;
    struct range range;
    if (!find_session(x, &row))
        return;
    if (!may_enter(x, &row)) {
        eg_x_problem(x, 0, EG_CODE_auth_unauthorized, NULL, NULL);
        return;
    }
    if (eg_x_wants(x, "text/event-stream")) {
        write_stream(x, &row);
    } else if (wants_json(x) && take_range(x, &row, &range) && take_position(x, &range)) {
        write_page(x, &row, &range);
    }
}
