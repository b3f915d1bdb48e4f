/*
 * reader.h - a read-only connection to the database, for one thread at a time. Sees only what is
 * committed. Each call is one short read transaction.
 */
#ifndef EG_STORE_READER_H
#define EG_STORE_READER_H

#include "store/storage.h"

struct eg_reader;

enum eg_err eg_reader_open(const char *dir, struct eg_reader **out, char *why,
                           size_t why_size) EG_MUST;
void eg_reader_close(struct eg_reader *r);
/* Why the last call failed: path, SQLite's text. */
const char *eg_reader_why(const struct eg_reader *r);

enum eg_err eg_reader_session(struct eg_reader *r, struct eg_slice id,
                              struct eg_session_row *out) EG_MUST;
enum eg_err eg_reader_session_sid(struct eg_reader *r, int64_t sid,
                                  struct eg_session_row *out) EG_MUST;

/* Events of sid with from <= cursor <= to (rising) or falling from `to` down when descending. Stops
 * after max events or when the next would pass max_bytes (the first is always given).
 * The callback may not call the reader. */
struct eg_page {
    int64_t sid;
    uint64_t from, to;
    int max;
    size_t max_bytes;
    bool descending;
};
enum eg_err eg_reader_events(struct eg_reader *r, const struct eg_page *page, eg_event_fn *fn,
                             void *arg) EG_MUST;

/* Sessions, newest activity first. Empty filters are all. after: position of the previous page. */
struct eg_session_query {
    struct eg_slice agent, owner, text; /* text: part of the id */
    int state;                          /* enum eg_session_state or -1 (OPEN and CLOSED) */
    int64_t active_since_ms;
    int64_t after_updated_ms, after_sid; /* 0: from the start */
    int limit;
};
typedef void eg_session_fn(void *arg, const struct eg_session_row *row);
enum eg_err eg_reader_sessions(struct eg_reader *r, const struct eg_session_query *q,
                               eg_session_fn *fn, void *arg) EG_MUST;

/* Turns: of one session (sid > 0) or all; state or -1. By (sid, turn) after (after_sid,
 * after_turn). */
typedef void eg_reader_turn_fn(void *arg, const struct eg_turn_row *row, const char *session_id,
                               const char *agent);
enum eg_err eg_reader_turns(struct eg_reader *r, int64_t sid, int state, int64_t after_sid,
                            uint64_t after_turn, int limit, eg_reader_turn_fn *fn,
                            void *arg) EG_MUST;
/* How many turns of agent are open, and the creation time of the oldest (0: none). */
enum eg_err eg_reader_agent_turns(struct eg_reader *r, struct eg_slice agent, int64_t *waiting,
                                  int64_t *running, int64_t *dead, int64_t *oldest_ms) EG_MUST;
/* How many turns wait for a worker, of all agents. */
enum eg_err eg_reader_waiting_turns(struct eg_reader *r, int64_t *out) EG_MUST;
enum eg_err eg_reader_acks(struct eg_reader *r, int64_t sid, eg_text_fn *fn, void *arg) EG_MUST;
enum eg_err eg_reader_agents(struct eg_reader *r, eg_text_fn *fn, void *arg) EG_MUST;
enum eg_err eg_reader_revoked(struct eg_reader *r, eg_text_fn *fn, void *arg) EG_MUST;
enum eg_err eg_reader_ack(struct eg_reader *r, int64_t sid, struct eg_slice sub,
                          uint64_t *out) EG_MUST;

/* Audit entries, newest first, with id < before (0: from the newest). */
typedef void eg_audit_fn(void *arg, int64_t id, int64_t at_ms, const char *who, const char *from,
                         const char *action, const char *detail);
enum eg_err eg_reader_audit(struct eg_reader *r, int64_t before, int limit, eg_audit_fn *fn,
                            void *arg) EG_MUST;

struct eg_store_stats {
    int64_t sessions, open_sessions, db_bytes, wal_bytes;
};
enum eg_err eg_reader_stats(struct eg_reader *r, struct eg_store_stats *out) EG_MUST;

/* Sessions that retention has work on: rows with updated_ms or bounds past the given limits, at
 * most max, sid > after. 0 in a bound: not asked. Calls fn with the row and the first cursor to
 * keep, or cursor 0 when the whole session is to be deleted: a closed one past its time, or any in
 * state DELETING. *last_sid is where to go on with the next call, 0 at the end; a call looks at a
 * bounded number of sessions, so it may find none and still not be at the end. */
struct eg_retention {
    int64_t events_before_ms, max_events, max_bytes, closed_before_ms;
    /* Which sessions are looked at: EG_RETAIN_ALL, EG_RETAIN_UNSETTLED (on their way in or out), or
     * those whose last event came in this hour since 1970. */
    int64_t hour;
};
#define EG_RETAIN_ALL 0
#define EG_RETAIN_UNSETTLED (-1)
typedef void eg_retain_fn(void *arg, const struct eg_session_row *row, uint64_t keep_from);
enum eg_err eg_reader_retention(struct eg_reader *r, const struct eg_retention *rule,
                                int64_t after_sid, int max, eg_retain_fn *fn, void *arg,
                                int64_t *last_sid) EG_MUST;

#endif
