/*
 * sqlite_int.h - private to src/store: the writer's state and its prepared statements.
 */
#ifndef EG_STORE_SQLITE_INT_H
#define EG_STORE_SQLITE_INT_H

#include "store/db.h"
#include "store/heads.h"
#include "store/runs.h"
#include "store/sqlite.h"
#include "store/walk.h"

/* X(name, SQL): prepared once at opening. */
#define EG_STATEMENTS(X)                                                                           \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(ROLLBACK, "ROLLBACK")                                                                        \
    X(SESSION_BY_ID, "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s WHERE s.id=?1")             \
    X(SESSION_BY_SID, "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s WHERE s.sid=?1")           \
    X(SESSION_SEEN, "SELECT state, active_hour FROM sessions WHERE sid=?1")                        \
    X(TURNS, "SELECT " EG_DB_TURN_COLUMNS " FROM turns t WHERE t.sid=?1 ORDER BY t.turn")          \
    X(TURN_GET, "SELECT " EG_DB_TURN_COLUMNS " FROM turns t WHERE t.sid=?1 AND t.turn=?2")         \
    X(OPEN_TURNS,                                                                                  \
      "SELECT t.sid, s.agent, (SELECT h.state FROM turns h WHERE h.sid=t.sid AND "                 \
      "h.state BETWEEN 0 AND ?1-1 ORDER BY h.turn LIMIT 1), min(t.created_ms)"                     \
      " FROM turns t JOIN sessions s ON s.sid=t.sid"                                               \
      " WHERE t.state BETWEEN 0 AND ?1-1 GROUP BY t.sid ORDER BY min(t.created_ms), t.sid")        \
    X(EVENT_AT, "SELECT cursor, body, hash, sid, idkey FROM events WHERE seq=?1")                  \
    X(ACK_GET, "SELECT cursor FROM acks WHERE sid=?1 AND sub=?2")                                  \
    X(COUNT_OPEN, "SELECT count(*) FROM sessions WHERE owner=?1 AND state=?2")                     \
    X(AGENTS, "SELECT id, created_ms FROM agents ORDER BY id")                                     \
    X(REVOKED, "SELECT what, until_ms FROM revoked ORDER BY what")                                 \
    X(EPOCH, "SELECT value,(SELECT value FROM meta WHERE key='epoch_sid') FROM meta"               \
             " WHERE key='epoch'")                                                                 \
    X(SESSION_INSERT,                                                                              \
      "INSERT INTO sessions(id,agent,owner,state,active_hour,cursor,oldest,hash,floor_hash,"       \
      "created_ms,updated_ms,closed_ms,bytes,last_worker)"                                         \
      " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)")                                   \
    X(SESSION_UPDATE,                                                                              \
      "UPDATE sessions SET cursor=?2,oldest=?3,hash=?4,floor_hash=?5,updated_ms=?6,closed_ms=?7,"  \
      "bytes=?8,last_worker=?9 WHERE sid=?1")                                                      \
    X(SESSION_MOVE, "UPDATE sessions SET state=?2,active_hour=?3 WHERE sid=?1")                    \
    X(CHANGE_PUT, "INSERT INTO changes(seq,body) VALUES(?1,?2)")                                   \
    X(CHANGES_TRIM, "DELETE FROM changes WHERE seq<=?1")                                           \
    X(SETTLED, "INSERT OR REPLACE INTO meta(key,value) VALUES('settled',?1)")                      \
    X(EVENTS_APPEND, "INSERT OR ROLLBACK INTO events(seq,sid,cursor,hash,idkey,body)"              \
                     " SELECT seq,sid,cursor,hash,idkey,body FROM eg_batch")                       \
    X(INDEXED, "INSERT OR REPLACE INTO meta(key,value) VALUES('indexed',?1)")                      \
    X(EVENT_DELETE, "DELETE FROM events WHERE seq=?1")                                             \
    X(EVENT_THERE, "SELECT 1 FROM events WHERE seq=?1")                                            \
    X(RUNS, "SELECT run, state, level, first_seq, last_seq, entries, stale, max_sid FROM runs"     \
            " ORDER BY first_seq, run")                                                            \
    X(RUN_ADD, "INSERT INTO runs(state,level,first_seq,last_seq,entries,stale,max_sid)"            \
               " VALUES(0,?1,?2,?3,?4,0,?5)")                                                      \
    X(RUN_STATE, "UPDATE runs SET state=?2 WHERE run=?1")                                          \
    X(RUN_STALE, "UPDATE runs SET stale=stale+?2 WHERE run=?1")                                    \
    X(RUN_DELETE, "DELETE FROM runs WHERE run=?1")                                                 \
    X(RUN_PLACES_PUT, "INSERT INTO run_places(run,sid,last,seqs) VALUES(?1,?2,?3,?4)")             \
    X(RUN_PLACES_LAST, "SELECT sid, last FROM run_places WHERE run=?1"                             \
                       " ORDER BY sid DESC, last DESC LIMIT 1")                                    \
    X(RUN_PLACES_CUT, "DELETE FROM run_places WHERE run=?1 AND ?2=0 AND (sid,last)<=(SELECT sid,"  \
                      "last FROM run_places WHERE run=?1 ORDER BY sid, last LIMIT 1 OFFSET ?3)")   \
    X(RUN_PLACES_DELETE, "DELETE FROM run_places WHERE run=?1 AND ?2=0")                           \
    X(RUN_IDS_PUT, "INSERT INTO run_ids(place,ids) VALUES(?1,?2)")                                 \
    X(RUN_IDS_AT, "SELECT place, ids FROM run_ids WHERE place BETWEEN ?1 AND ?2"                   \
                  " ORDER BY place DESC LIMIT 1")                                                  \
    X(RUN_IDS_UP, "SELECT place, ids FROM run_ids WHERE place BETWEEN ?1 AND ?2 ORDER BY place")   \
    X(RUN_IDS_CUT, "DELETE FROM run_ids WHERE place>=?1 AND place<=(SELECT place FROM run_ids"     \
                   " WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT 1 OFFSET ?3)")             \
    X(RUN_IDS_DELETE, "DELETE FROM run_ids WHERE place BETWEEN ?1 AND ?2")                         \
    X(TURN_PUT, "INSERT OR REPLACE INTO turns(sid,turn,state,attempt,created_ms,until_ms,worker,"  \
                "error) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)")                                          \
    X(TURN_DELETE, "DELETE FROM turns WHERE sid=?1 AND turn=?2")                                   \
    X(ACK_PUT, "INSERT OR REPLACE INTO acks(sid,sub,cursor) VALUES(?1,?2,?3)")                     \
    X(AGENT_PUT, "INSERT OR IGNORE INTO agents(id,created_ms) VALUES(?1,?2)")                      \
    X(AGENT_DELETE, "DELETE FROM agents WHERE id=?1")                                              \
    X(REVOKE, "INSERT INTO revoked(what,until_ms) VALUES(?1,?2)"                                   \
              " ON CONFLICT(what) DO UPDATE SET until_ms=max(until_ms,excluded.until_ms)")         \
    X(AUDIT, "INSERT INTO audit(at_ms,who,origin,action,detail) VALUES(?1,?2,?3,?4,?5)")           \
    X(SESSION_DELETE, "DELETE FROM sessions WHERE sid=?1")                                         \
    X(EPOCH_END, "INSERT OR IGNORE INTO meta(key,value) SELECT 'epoch_sid',seq"                    \
                 " FROM sqlite_sequence WHERE name='sessions'")                                    \
    X(TURNS_DELETE, "DELETE FROM turns WHERE sid=?1")                                              \
    X(ACKS_DELETE, "DELETE FROM acks WHERE sid=?1")                                                \
    X(PROBE, "INSERT OR REPLACE INTO meta(key,value) VALUES('probe', randomblob(65536))")

/* Of each run that is merged: its rows behind a session and cursor; from the row on that may hold
 * the hash of ?2. */
#define EG_RUNS_PLACES_SQL                                                                         \
    "SELECT sid, last, seqs FROM run_places WHERE run=?1 AND (sid,last)>(?2,?3) ORDER BY sid, "    \
    "last"
#define EG_RUNS_IDS_SQL                                                                            \
    "SELECT place, ids FROM run_ids WHERE place>=coalesce((SELECT place FROM run_ids WHERE place"  \
    " BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1),?1) AND place<=?3 ORDER BY place"

enum eg_statement {
#define EG_ST_ENUM(name, sql) EG_ST_##name,
    EG_STATEMENTS(EG_ST_ENUM)
#undef EG_ST_ENUM
        EG_ST_COUNT
};

/* What sessions.state and active_hour are known to hold, so that unchanged ones are not written. */
struct eg_seen {
    int64_t sid;
    int64_t hour;
    int state;
};
#define EG_SEEN_SLOTS 65536 /* a power of two */

/* A session's newest event, where the tail does not say. */
struct eg_top {
    int64_t sid;
    uint64_t cursor;
};
#define EG_TOP_SLOTS 131072 /* a power of two */

/* Events of the running transaction that are not in the log yet (sqlite_batch.c). */
struct eg_batch_event {
    int64_t seq, sid;
    uint64_t cursor;
    size_t body, body_n; /* in bodies */
    bool has_id;
    uint8_t idkey[EG_IDKEY_KEPT];
    uint8_t hash[EG_CHAIN_BYTES];
};

struct eg_batch {
    struct eg_batch_event *v;
    uint32_t n, cap;
    struct eg_buf bodies;
};

#define EG_SQ_LARGE (512U << 10) /* bytes of an event after which a checkpoint is due */

struct eg_sqlite {
    struct eg_storage base; /* first */
    sqlite3 *db;
    int lock_fd;
    char lock_path[PATH_MAX];
    enum eg_err err; /* first failure of this transaction */
    bool in_tx;
    bool dead;                /* a flush failed: nothing is written any more */
    bool full;                /* the last failure was want of room */
    bool large;               /* an event of EG_SQ_LARGE came since the last maintenance */
    int wal_total, wal_since; /* pages in the log; those since the last full checkpoint */
    int wal_base;
    struct eg_seen *seen;
    struct eg_tail *tail;
    struct eg_walk walk;
    struct eg_runs runs;
    struct eg_top *tops;
    int64_t trimmed_sid; /* events were removed last of this session, up to before trimmed_to */
    uint64_t trimmed_to;
    struct eg_batch batch;
    struct eg_heads *heads;   /* the tail owns them */
    struct eg_change change;  /* what this transaction made of sessions and turns */
    struct eg_heads_gen open; /* its first `opened` bytes, when somebody has asked */
    size_t opened;
    int64_t next_change;             /* number of the next record */
    int64_t trimmed, trimmed_kept;   /* records up to here are removed; as of the last commit */
    bool settles;                    /* this transaction merges the last of what is frozen */
    int64_t next_seq, next_seq_kept; /* of the next event; as of the last commit */
    int appended, removed;           /* events of this transaction */
    bool merged;                     /* it writes out the last of what is frozen */
    /* The id last looked for in this transaction and not found: appending it needs no second look.
     */
    bool absent;
    int64_t absent_sid;
    uint8_t absent_idkey[EG_IDKEY_KEPT];
    sqlite3_stmt *st[EG_ST_COUNT];
    char path[PATH_MAX];
    char why[EG_DB_WHY];
};

extern const struct eg_storage_ops eg_sqlite_write_ops;

/* Notes why an operation failed and returns rc as an error. */
enum eg_err eg_sqlite_failed(struct eg_sqlite *s, const char *what, int rc);

/* sqlite.c: closes everything, checkpointing unless dead. */
void eg_sqlite_close(struct eg_storage *base);
enum eg_err eg_sqlite_maintain(struct eg_storage *base);

/* ---- sqlite_write.c: steps of the running transaction ---- */

struct eg_sqlite *eg_sq_self(struct eg_storage *base);
/* A statement ready to be bound; NULL when this transaction has failed already. */
sqlite3_stmt *eg_sq_writing(struct eg_sqlite *s, enum eg_statement which);
/* Notes a failed step, and returns the error. */
enum eg_err eg_sq_latch(struct eg_sqlite *s, const char *what, int rc);
/* Runs a bound statement that gives no rows; a failure is latched. */
void eg_sq_run(struct eg_sqlite *s, sqlite3_stmt *st, const char *what);
/* The first row: EG_OK (then read columns and reset), EG_ENOTFOUND, or a failure. */
enum eg_err eg_sq_first(struct eg_sqlite *s, sqlite3_stmt *st, const char *what) EG_MUST;
/* The row after the first; false at the end or on failure, which goes to *e. Resets. */
bool eg_sq_next(struct eg_sqlite *s, sqlite3_stmt *st, const char *what, enum eg_err *e);

/* ---- sqlite_read.c: the reads of struct eg_storage_ops ---- */

enum eg_err eg_sq_session_by_id(struct eg_storage *base, struct eg_slice id,
                                struct eg_session_row *out);
enum eg_err eg_sq_session_by_sid(struct eg_storage *base, int64_t sid, struct eg_session_row *out);
enum eg_err eg_sq_turns(struct eg_storage *base, int64_t sid, eg_turn_fn *fn, void *arg);
enum eg_err eg_sq_turn_get(struct eg_storage *base, int64_t sid, uint64_t turn,
                           struct eg_turn_row *out);
enum eg_err eg_sq_open_turns(struct eg_storage *base, eg_open_turn_fn *fn, void *arg);
enum eg_err eg_sq_event_by_idkey(struct eg_storage *base, int64_t sid, const uint8_t *idkey,
                                 uint64_t *cursor, struct eg_bytes **body);
enum eg_err eg_sq_event_get(struct eg_storage *base, int64_t sid, uint64_t cursor,
                            struct eg_bytes **body);
enum eg_err eg_sq_event_hash(struct eg_storage *base, int64_t sid, uint64_t cursor,
                             uint8_t hash[EG_CHAIN_BYTES]);
enum eg_err eg_sq_events(struct eg_storage *base, int64_t sid, uint64_t from, int max,
                         eg_event_fn *fn, void *arg);
enum eg_err eg_sq_ack_get(struct eg_storage *base, int64_t sid, struct eg_slice sub,
                          uint64_t *cursor);
enum eg_err eg_sq_count_open_sessions(struct eg_storage *base, struct eg_slice owner, int64_t *out);
enum eg_err eg_sq_agents(struct eg_storage *base, eg_text_fn *fn, void *arg);
enum eg_err eg_sq_revoked(struct eg_storage *base, eg_text_fn *fn, void *arg);
enum eg_err eg_sq_epoch(struct eg_storage *base, struct eg_epoch *out);

/* hash into a parameter; may_be_empty: zeros as an empty blob. */
void eg_sq_bind_hash(sqlite3_stmt *st, int at, const uint8_t *hash, bool may_be_empty);

/* ---- sqlite_batch.c ---- */

/* Before statements are prepared: the table that they read. SQLite result codes. */
int eg_sq_batch_open(struct eg_sqlite *s);
void eg_sq_batch_close(struct eg_sqlite *s);
void eg_sq_batch_add(struct eg_sqlite *s, const struct eg_event_row *row, int64_t seq);
/* Appends what has gathered to the log: before the log is read, and before COMMIT. */
void eg_sq_batch_flush(struct eg_sqlite *s);
void eg_sq_batch_drop(struct eg_sqlite *s);

/* ---- sqlite_heads.c: sessions and turns, ahead of their tables (heads.h) ---- */

/* How many sessions and turns gather before they are merged into the tables. Tests lower it. */
extern uint32_t eg_sq_gather_heads;

/* At opening, before the index: reads the changes that the tables lack. */
enum eg_err eg_sq_heads_load(struct eg_sqlite *s) EG_MUST;
/* A row of the table sessions as it is now. */
void eg_sq_heads_patch(struct eg_sqlite *s, struct eg_session_row *row);
/* False: not here, ask the table. */
bool eg_sq_heads_turn(struct eg_sqlite *s, int64_t sid, uint64_t turn, struct eg_turn_row *out,
                      enum eg_err *e);
/* All turns of a session, dead ones too. */
enum eg_err eg_sq_heads_turns(struct eg_sqlite *s, int64_t sid, eg_heads_turn_fn *fn,
                              void *arg) EG_MUST;
/* Whether the turn's message was appended in this transaction. */
bool eg_sq_heads_born(const struct eg_sqlite *s, int64_t sid, uint64_t turn);
/* The session's turns are gone. */
void eg_sq_heads_forget(struct eg_sqlite *s, int64_t sid);
/* Before COMMIT: writes the record, merges a few. */
void eg_sq_heads_write(struct eg_sqlite *s);
/* After it; and in place of it when the transaction was undone. */
void eg_sq_heads_committed(struct eg_sqlite *s);
void eg_sq_heads_clear(struct eg_sqlite *s);
/* Outside a transaction: brings everything to the tables. */
enum eg_err eg_sq_heads_settle(struct eg_sqlite *s) EG_MUST;

/* ---- sqlite_index.c: the log's index, its newest part in memory (tail.h) ---- */

/* How many events gather before they are written out. Tests lower it. */
extern uint32_t eg_sq_gather;

/* At opening: reads from the log what the runs lack, and where the log ends. */
enum eg_err eg_sq_index_load(struct eg_sqlite *s) EG_MUST;
/* At closing: writes out most of what is in memory, so that the next start need not read it. */
void eg_sq_index_settle(struct eg_sqlite *s);
/* Finds an event, or the one that idkey stands for: on EG_OK st[EVENT_AT] stands on its row and has
 * to be reset. */
enum eg_err eg_sq_index_find(struct eg_sqlite *s, int64_t sid, uint64_t cursor) EG_MUST;
enum eg_err eg_sq_index_find_id(struct eg_sqlite *s, int64_t sid, const uint8_t *idkey) EG_MUST;
/* Latches EG_EEXISTS when the session has this cursor or id already. */
void eg_sq_index_check(struct eg_sqlite *s, const struct eg_event_row *row);
/* The event was appended as number seq. */
void eg_sq_index_add(struct eg_sqlite *s, const struct eg_event_row *row, int64_t seq);
/* storage.h, events_trim. */
void eg_sq_trim(struct eg_storage *base, int64_t sid, uint64_t before, int max, int *removed,
                int64_t *removed_bytes);
/* Before COMMIT: writes out and merges a few. */
void eg_sq_index_merge(struct eg_sqlite *s);
/* After it. */
void eg_sq_index_committed(struct eg_sqlite *s);
void eg_sq_index_undo(struct eg_sqlite *s);

/*
 * sqlite_open.c. Makes the folder (0700) with the parents it lacks; takes DIR/lock; looks at the
 * database file without opening it as one; makes a new database with an epoch under a temporary
 * name and moves it into place; runs the migrations that an open database lacks.
 */
enum eg_err eg_sqlite_make_dir(const char *dir, char *why, size_t why_size) EG_MUST;
enum eg_err eg_sqlite_lock(const char *dir, int *fd, char *why, size_t why_size) EG_MUST;
/* Whether the lock at path is no longer the one that fd holds: the folder was moved away, or its
 * lock removed, and another gateway may be at work there. */
bool eg_sqlite_lock_lost(const char *path, int fd);
enum eg_err eg_sqlite_inspect(const char *path, bool *missing, char *why, size_t why_size) EG_MUST;
enum eg_err eg_sqlite_create(const char *dir, const char *path, char *why, size_t why_size) EG_MUST;
enum eg_err eg_sqlite_migrate(sqlite3 *db, const char *path, int from, char *why,
                              size_t why_size) EG_MUST;
/* Moves the finished file tmp to path, which must not exist, and makes the move last. */
enum eg_err eg_sqlite_place(const char *dir, const char *tmp, const char *path, char *why,
                            size_t why_size) EG_MUST;
/* Removes path and the files SQLite keeps beside it. */
void eg_sqlite_unlink(const char *path);
enum eg_err eg_sqlite_set_epoch(sqlite3 *db, const char *path, char *why, size_t why_size) EG_MUST;

#endif
