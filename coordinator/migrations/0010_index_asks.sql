-- Indexes that hosts were asked for because they are not in the catalog.
CREATE TABLE index_asks (
    backup     bigint PRIMARY KEY REFERENCES backups ON DELETE CASCADE,
    -- When the host was asked last; NULL: it is to be asked at once.
    asked_at   timestamptz,
    -- How often in a row, without a block more than before.
    asks       integer NOT NULL DEFAULT 0,
    -- How long that has been, less the time that the host was away.
    asked_for  interval NOT NULL DEFAULT '0',
    -- The first block that was missing.
    next_block bigint NOT NULL DEFAULT 0,
    -- Why the host does not send it, in its own words.
    said       text NOT NULL DEFAULT ''
);
