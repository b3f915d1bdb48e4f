/*
 * reader_int.h - private to src/store: a reader's state and the steps its calls are made of.
 */
#ifndef EG_STORE_READER_INT_H
#define EG_STORE_READER_INT_H

#include "store/db.h"
#include "store/heads.h"
#include "store/reader.h"
#include "store/walk.h"

/* After a session's columns: up to which change the tables are. */
#define EG_READER_SETTLED                                                                          \
    ", coalesce((SELECT value FROM meta WHERE key='settled'),0) FROM sessions s WHERE "

#define EG_READER_STATEMENTS(X)                                                                    \
    X(BEGIN, "BEGIN")                                                                              \
    X(COMMIT, "COMMIT")                                                                            \
    X(SESSION_BY_ID, "SELECT " EG_DB_SESSION_COLUMNS EG_READER_SETTLED "s.id=?1")                  \
    X(SESSION_BY_SID, "SELECT " EG_DB_SESSION_COLUMNS EG_READER_SETTLED "s.sid=?1")                \
    X(NAMES, "SELECT id, agent FROM sessions WHERE sid=?1")                                        \
    X(TURNS, "SELECT " EG_DB_TURN_COLUMNS " FROM turns t"                                          \
             " WHERE (t.sid,t.turn)>(?3,?4) AND (?2<0 OR t.state=?2) ORDER BY t.sid, t.turn")      \
    X(TURNS_OF, "SELECT " EG_DB_TURN_COLUMNS " FROM turns t WHERE t.sid=?1"                        \
                " AND (t.sid,t.turn)>(?3,?4) AND (?2<0 OR t.state=?2) ORDER BY t.sid, t.turn")     \
    X(AGENT_TURNS, "SELECT t.state, count(*), min(t.created_ms) FROM turns t"                      \
                   " CROSS JOIN sessions s ON s.sid=t.sid WHERE s.agent=?1"                        \
                   " AND NOT eg_changed(t.sid,t.turn) GROUP BY t.state")                           \
    X(WAITING_TURNS, "SELECT count(*) FROM turns t WHERE t.state IN (?1,?2)"                       \
                     " AND NOT eg_changed(t.sid,t.turn)")                                          \
    X(ACKS, "SELECT sub, cursor FROM acks WHERE sid=?1 ORDER BY sub")                              \
    X(ACK, "SELECT cursor FROM acks WHERE sid=?1 AND sub=?2")                                      \
    X(AGENTS, "SELECT id, created_ms FROM agents ORDER BY id")                                     \
    X(REVOKED, "SELECT what, until_ms FROM revoked ORDER BY what")                                 \
    X(AUDIT, "SELECT id, at_ms, who, origin, action, detail FROM audit WHERE id<?1"                \
             " ORDER BY id DESC LIMIT ?2")                                                         \
    X(STATS, "SELECT (SELECT count(*) FROM sessions),"                                             \
             "(SELECT count(*) FROM sessions WHERE state=?1),"                                     \
             "(SELECT page_count FROM pragma_page_count)*"                                         \
             "(SELECT page_size FROM pragma_page_size)")                                           \
    X(FROM_SID, "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s WHERE s.sid>?1"                  \
                " ORDER BY s.sid LIMIT ?2")                                                        \
    X(UNSETTLED, "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s"                                \
                 " INDEXED BY sessions_unsettled WHERE s.state>=2 AND s.sid>?1"                    \
                 " ORDER BY s.sid LIMIT ?2")                                                       \
    X(OF_HOUR,                                                                                     \
      "SELECT " EG_DB_SESSION_COLUMNS " FROM sessions s"                                           \
      " INDEXED BY sessions_active WHERE s.active_hour=?3 AND s.sid>?1 ORDER BY s.sid LIMIT ?2")

enum eg_reader_statement {
#define EG_RS_ENUM(name, sql) EG_RS_##name,
    EG_READER_STATEMENTS(EG_RS_ENUM)
#undef EG_RS_ENUM
        EG_RS_COUNT
};

struct eg_reader {
    sqlite3 *db;
    sqlite3_stmt *st[EG_RS_COUNT];
    struct eg_walk walk;
    struct eg_heads *heads; /* what its transaction sees beyond the tables */
    char path[PATH_MAX];
    char why[EG_DB_WHY];
};

/* The statement, prepared at its first use; NULL on failure, which goes to *e. */
sqlite3_stmt *eg_reader_statement(struct eg_reader *r, enum eg_reader_statement which,
                                  enum eg_err *e);
/* Steps: true for a row; false at the end (*e EG_OK) or on failure (*e set). */
bool eg_reader_step(struct eg_reader *r, sqlite3_stmt *st, enum eg_err *e);
/* Ends the read: resets st and leaves the gate. Every eg_reader_begin is followed by it. */
void eg_reader_end(struct eg_reader *r, sqlite3_stmt *st);
/* Enters the gate and gives the statement. On NULL the gate has been left. */
sqlite3_stmt *eg_reader_begin(struct eg_reader *r, enum eg_reader_statement which, enum eg_err *e);
/* The same in a transaction of its own, with r->heads up to it. */
sqlite3_stmt *eg_reader_begin_heads(struct eg_reader *r, enum eg_reader_statement which,
                                    enum eg_err *e);
/* Enters the gate and begins such a transaction; on failure the gate has been left. */
enum eg_err eg_reader_enter(struct eg_reader *r);

/* Gives back the memory of large heads. After eg_reader_end. */
void eg_reader_relax(struct eg_reader *r);
/* At opening: heads of its own, and the SQL functions that ask them. */
enum eg_err eg_reader_heads_open(struct eg_reader *r) EG_MUST;

/* Notes why and translates. */
enum eg_err eg_reader_failed(struct eg_reader *r, int rc);

#endif
