-- Schema version 1. Run in one transaction with PRAGMA user_version; never edited after a release.

-- Facts about the database itself: 'epoch' is the random id of this log; 'indexed' is the seq up
-- to which places and ids are complete.
CREATE TABLE meta(
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a session. What every publish changes (cursor, hash, updated_ms, bytes) is in no index:
-- such a change dirties this table's page alone. active_hour is updated_ms in whole hours; it
-- orders listings and changes an index at most once an hour and session.
CREATE TABLE sessions(
    sid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    state INTEGER NOT NULL,          -- enum eg_session_state
    active_hour INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    closed_ms INTEGER NOT NULL,      -- 0: never closed
    cursor INTEGER NOT NULL,         -- head of the log, 0: empty
    oldest INTEGER NOT NULL,         -- the floor: first cursor that can be read
    bytes INTEGER NOT NULL,          -- of the events still stored
    hash BLOB NOT NULL,              -- of the event at cursor
    floor_hash BLOB NOT NULL,        -- of the event at oldest - 1; empty: 32 zero bytes
    last_worker TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_active ON sessions(active_hour);
CREATE INDEX sessions_agent ON sessions(agent, active_hour);
CREATE INDEX sessions_owner ON sessions(owner, state);
-- Sessions on their way in or out (FORKING, DELETING): found after a restart.
CREATE INDEX sessions_unsettled ON sessions(state) WHERE state >= 2;

-- The log of all sessions in the order of commits. body is the event as it was first sent, byte
-- for byte; hash = BLAKE2b-256(hash of the event before in this session || body).
CREATE TABLE events(
    seq INTEGER PRIMARY KEY,
    sid INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    hash BLOB NOT NULL,
    idkey BLOB,                      -- 16 bytes, of the id the sender chose; NULL: none
    body BLOB NOT NULL
) STRICT;

-- The index of the log, filled from it some time after the event (see src/store/tail.h): where each
-- event of a session is, and which one an id stands for. key is the first eight bytes of the idkey,
-- big-endian, 0 taken as 1.
CREATE TABLE places(
    sid INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY(sid, cursor)
) STRICT, WITHOUT ROWID;
CREATE TABLE ids(
    sid INTEGER NOT NULL,
    key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY(sid, key)
) STRICT, WITHOUT ROWID;

-- Turns that have not ended, and dead ones.
CREATE TABLE turns(
    sid INTEGER NOT NULL,
    turn INTEGER NOT NULL,           -- cursor of its message
    state INTEGER NOT NULL,          -- enum eg_turn_state
    attempt INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    worker TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY(sid, turn)
) STRICT, WITHOUT ROWID;

-- How far each reader of a session has read.
CREATE TABLE acks(
    sid INTEGER NOT NULL,
    sub TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    PRIMARY KEY(sid, sub)
) STRICT, WITHOUT ROWID;

CREATE TABLE agents(
    id TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- 'jti:...' or 'sub:...', and when the entry may be forgotten.
CREATE TABLE revoked(
    what TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    origin TEXT NOT NULL,            -- address it came from
    action TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
