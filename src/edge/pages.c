/*
 * pages.c - the reader threads' work: pages of replay, snapshots, history. Pure but for the log.
 *
 * A page becomes one block of ready-made frames. Snapshots and history collect what fits, reading
 * page by page, and become one frame's payload.
 */
#include <stdlib.h>
#include <string.h>

#include "edge/pool.h"
#include "wire/json.h"

/* Bytes left free for the head of a frame; most frames need just this form. */
#define HEAD_USUAL 4

/* Makes the bytes of out from `start` on, HEAD_USUAL of them free, a whole frame. */
static void close_frame(struct eg_buf *out, size_t start)
{
    uint8_t head[EG_WS_HEAD_MAX];
    if (out->err) {
        return;
    }
    const size_t n = out->n - start - HEAD_USUAL;
    const unsigned head_n = eg_ws_head(head, EG_WS_OP_TEXT, n);
    if (head_n != HEAD_USUAL) {
        if (head_n > HEAD_USUAL && !eg_buf_reserve(out, head_n - HEAD_USUAL)) {
            return;
        }
        memmove(out->p + start + head_n, out->p + start + HEAD_USUAL, n);
        out->n = start + head_n + n;
    }
    memcpy(out->p + start, head, head_n);
}

struct page_state {
    struct eg_job *job;
    struct eg_buf out;
    uint64_t next;
    enum eg_err err;
};

/* The type of a stored event, which is its first member. */
static struct eg_slice type_of(struct eg_slice body)
{
    static const char start[] = "{\"type\":\"";
    const size_t n = sizeof start - 1;
    const char *const end =
        body.n > n && memcmp(body.p, start, n) == 0 ? memchr(body.p + n, '"', body.n - n) : NULL;
    return end ? (struct eg_slice){body.p + n, (size_t)(end - body.p) - n} : (struct eg_slice){0};
}

static void page_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct page_state *const s = arg;
    struct eg_job *const job = s->job;
    const size_t start = s->out.n;
    if (s->err != EG_OK || job->gap) {
        return;
    }
    if (cursor != s->next) {
        job->gap = true;
        return;
    }
    s->next++;
    if (!job->streaming && eg_event_needs_streaming(body)) {
        return;
    }
    if (job->shape == EG_SHAPE_SSE) {
        eg_sse_event(&s->out, body);
    } else {
        eg_buf_add(&s->out, "\0\0\0\0", HEAD_USUAL);
        if (job->shape == EG_SHAPE_REPLAY) {
            s->err = eg_replay_wrap(&s->out, body);
        } else {
            eg_buf_slice(&s->out, body);
        }
        close_frame(&s->out, start);
    }
    job->frames++;
}

static void read_page(struct eg_job *job, const struct eg_log_ops *ops, void *log)
{
    struct page_state s = {.job = job, .next = job->from};
    const struct eg_page page = {.sid = job->sid,
                                 .from = job->from,
                                 .to = job->to,
                                 .max = EG_PAGE_EVENTS,
                                 .max_bytes = job->max_bytes};
    job->err = ops->events(log, &page, page_event, &s);
    if (job->err == EG_OK) {
        job->err = s.err;
    }
    job->last = s.next - 1;
    if (s.next == job->from) {
        job->gap = true; /* there should be one at least */
    }
    if (job->err == EG_OK && s.out.n) {
        job->bytes = eg_buf_bytes(&s.out);
        job->err = job->bytes ? EG_OK : EG_ENOMEM;
    }
    if (job->err == EG_OK) {
        eg_metric_add(EG_M_replay_events_total, job->frames);
    }
    eg_buf_free(&s.out);
}

/* Whether a snapshot holds it: messages, and what ended a turn. */
static bool is_answer(struct eg_slice body)
{
    const struct eg_slice type = type_of(body);
    return eg_slice_is(type, "message") ||
           (eg_slice_is(type, "response") &&
            eg_slice_is(eg_event_field(body, "status"), "\"final\""));
}

static bool wanted(const struct eg_job *job, struct eg_slice body)
{
    if (job->only_answers) {
        return is_answer(body);
    }
    return job->streaming || !eg_event_needs_streaming(body);
}

struct find_state {
    struct eg_job *job;
    bool full;
    int seen;
    enum eg_err err;
};

static bool keep(struct eg_job *job, struct eg_slice body)
{
    if (job->found_count == job->found_cap) {
        const int cap = job->found_cap ? job->found_cap * 2 : 32;
        struct eg_bytes **const found = realloc(job->found, (size_t)cap * sizeof *found);
        if (!found) {
            return false;
        }
        job->found = found;
        job->found_cap = cap;
    }
    job->found[job->found_count] = eg_bytes_copy(body.p, body.n);
    if (!job->found[job->found_count]) {
        return false;
    }
    job->found_count++;
    job->found_bytes += body.n + 1;
    return true;
}

static void find_event(void *arg, uint64_t cursor, struct eg_slice body)
{
    struct find_state *const s = arg;
    struct eg_job *const job = s->job;
    if (s->full || s->err != EG_OK) {
        return;
    }
    s->seen++;
    job->at = job->descending ? cursor - 1 : cursor + 1;
    if (!wanted(job, body)) {
        return;
    }
    const bool first_of_page = job->kind == EG_JOB_HISTORY && job->found_count == 0;
    if (job->found_bytes + body.n + 1 > job->max_bytes && !first_of_page) {
        s->full = true;
    } else if (!keep(job, body)) {
        s->err = EG_ENOMEM;
    } else if (job->limit && job->found_count == job->limit) {
        s->full = true;
    }
}

/* One page of a search; true when nothing more is to be read. */
static bool find_page(struct eg_job *job, const struct eg_log_ops *ops, void *log)
{
    struct find_state s = {.job = job};
    const struct eg_page page = {.sid = job->sid,
                                 .from = job->descending ? job->from : job->at,
                                 .to = job->descending ? job->at : job->to,
                                 .max = EG_PAGE_EVENTS,
                                 .max_bytes = EG_PAGE_BYTES,
                                 .descending = job->descending};
    if (page.from > page.to) {
        return true;
    }
    job->err = ops->events(log, &page, find_event, &s);
    if (job->err == EG_OK) {
        job->err = s.err;
    }
    return job->err != EG_OK || s.full || s.seen == 0;
}

static void add_found(const struct eg_job *job, struct eg_buf *out)
{
    for (int i = 0; i < job->found_count; i++) {
        const int at = job->descending ? job->found_count - 1 - i : i;
        if (i) {
            eg_buf_char(out, ',');
        }
        eg_buf_slice(out, eg_bytes_slice(job->found[at]));
    }
}

static void make_snapshot(const struct eg_job *job, struct eg_buf *out)
{
    eg_buf_str(out, "{\"type\":\"snapshot\",\"state\":{");
    eg_json_kcstr(out, "session_id", job->row.id);
    eg_json_kcstr(out, "agent_id", job->row.agent);
    eg_json_kcstr(out, "state", job->row.state == EG_SESSION_OPEN ? "open" : "closed");
    eg_json_kcstr(out, "epoch", job->epoch);
    eg_json_kint(out, "oldest_cursor", (int64_t)job->row.oldest);
    eg_json_kint(out, "event_cursor", (int64_t)job->to);
    eg_buf_str(out, ",\"messages\":[");
    add_found(job, out);
    eg_buf_str(out, "]}}");
}

static void make_history(const struct eg_job *job, struct eg_buf *out)
{
    eg_buf_str(out, "{\"type\":\"history\"");
    eg_json_kcstr(out, "session_id", job->row.id);
    eg_buf_str(out, ",\"events\":[");
    add_found(job, out);
    eg_buf_char(out, ']');
    eg_json_kint(out, "oldest_cursor", (int64_t)job->row.oldest);
    eg_json_kint(out, "cursor", (int64_t)job->row.cursor);
    eg_buf_char(out, '}');
}

static void make_frame(const struct eg_job *job, struct eg_buf *out)
{
    (job->kind == EG_JOB_SNAPSHOT ? make_snapshot : make_history)(job, out);
}

/* Leaves of max_bytes what is for the events, each counted with a comma. */
static enum eg_err take_off_the_rest(struct eg_job *job)
{
    struct eg_buf rest = {0};
    make_frame(job, &rest);
    const enum eg_err err = rest.err;
    /* the first event has no comma */
    job->max_bytes = job->max_bytes >= rest.n ? job->max_bytes - rest.n + 1 : 0;
    eg_buf_free(&rest);
    return err;
}

/* Which session, and from where. */
static enum eg_err begin(struct eg_job *job, const struct eg_log_ops *ops, void *log)
{
    const enum eg_err err = job->session[0]
                                ? ops->session(log, eg_slice_cstr(job->session), &job->row)
                                : ops->session_sid(log, job->sid, &job->row);
    if (err != EG_OK) {
        return err;
    }
    if (job->agent[0] && strcmp(job->agent, job->row.agent) != 0) {
        return EG_ENOTFOUND;
    }
    job->sid = job->row.sid;
    if (job->to > job->row.cursor && job->kind == EG_JOB_HISTORY) {
        job->to = job->row.cursor;
    }
    if (job->from < job->row.oldest) {
        job->from = job->row.oldest;
    }
    job->at = job->descending ? job->to : job->from;
    job->begun = true;
    return take_off_the_rest(job);
}

bool eg_job_step(struct eg_job *job, const struct eg_log_ops *ops, void *log)
{
    struct eg_buf out = {0};
    if (__atomic_load_n(&job->abandoned, __ATOMIC_ACQUIRE)) {
        return true; /* a search may have millions of events to go */
    }
    if (!log) {
        job->err = EG_EIO;
        return true;
    }
    if (job->kind == EG_JOB_PAGE) {
        read_page(job, ops, log);
        return true;
    }
    if (!job->begun) {
        job->err = begin(job, ops, log);
    }
    if (job->err != EG_OK) {
        return true;
    }
    if (!find_page(job, ops, log)) {
        return false;
    }
    if (job->err == EG_OK) {
        make_frame(job, &out);
        eg_metric_add(EG_M_snapshots_total, job->kind == EG_JOB_SNAPSHOT);
        job->bytes = eg_buf_bytes(&out);
        job->err = job->bytes ? EG_OK : EG_ENOMEM;
    }
    eg_buf_free(&out);
    return true;
}
