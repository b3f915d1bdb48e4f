-- Schema version 3. The index of the log is packed in runs (see src/store/runs.h) instead of a row
-- an event and id in places and ids. It is made anew from the log when the database is opened.
DROP TABLE places;
DROP TABLE ids;
INSERT OR REPLACE INTO meta(key,value) VALUES('indexed',0);

-- A run covers the events first_seq to last_seq of the log. The runs in use lie side by side and
-- end at meta 'indexed'.
CREATE TABLE runs(
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL,          -- 0 being made, 1 in use, 2 being removed
    level INTEGER NOT NULL,          -- how often its entries were merged
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    stale INTEGER NOT NULL,          -- entries whose events have been removed since
    max_sid INTEGER NOT NULL
) STRICT;

-- Where consecutive events of a session are, up to the cursor `last`. See src/store/pack.h for the
-- bytes of seqs and ids.
CREATE TABLE run_places(
    run INTEGER NOT NULL,
    sid INTEGER NOT NULL,
    last INTEGER NOT NULL,
    seqs BLOB NOT NULL,
    PRIMARY KEY(run, sid, last)
) STRICT, WITHOUT ROWID;

-- Which events may have an id: place is the run times 2^40, and the hash of the first id.
CREATE TABLE run_ids(
    place INTEGER PRIMARY KEY,
    ids BLOB NOT NULL
) STRICT;
