-- Schema version 4. Run in one transaction with PRAGMA user_version; never edited after a release.

-- What each transaction made of sessions and turns, one row a transaction (format: src/store/heads.c).
-- The tables sessions and turns lag behind: they hold all of this up to seq meta.settled, and some
-- of what comes after it. Whoever reads cursor, oldest, hash, floor_hash, updated_ms, closed_ms,
-- bytes and last_worker of a session, or turns, has to look here too (src/store/heads.h).
CREATE TABLE changes(
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;
