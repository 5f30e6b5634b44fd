-- The contents of backups: a cache of sealed indexes, which can be filled again from them.
--
-- Keys begin with the host, so that the tables can be partitioned or distributed by it.

-- Folder 0 is above the root: it holds the root's own entry. Folders are never removed while their host has backups.
CREATE TABLE folders (
    host   integer NOT NULL,
    folder bigint GENERATED ALWAYS AS IDENTITY,
    parent bigint NOT NULL,
    name   bytea NOT NULL,
    PRIMARY KEY (host, parent, name)
);
CREATE UNIQUE INDEX folders_by_key ON folders (host, folder);

-- One row: one state of one path in one job, from first_seq to last_seq (2147483647 while current).
-- Wide columns first, so that none is padded.
CREATE TABLE file_versions (
    host         integer NOT NULL,
    job          integer NOT NULL,
    folder       bigint NOT NULL,
    size         bigint NOT NULL,
    mtime_s      bigint NOT NULL,
    -- The first eight bytes of the content's digest, big-endian; 0 without content. The rest is digest_tail.
    digest_head  bigint NOT NULL,
    -- Digest of everything restorable and of the flags: equal states, equal numbers.
    state        bigint NOT NULL,
    first_seq    integer NOT NULL,
    last_seq     integer NOT NULL,
    mtime_ns     integer NOT NULL,
    uid          integer NOT NULL,
    gid          integer NOT NULL,
    mode         smallint NOT NULL,
    -- The entry's flags in the index, and 8 (content in base), which is right for the whole interval.
    flags        smallint NOT NULL,
    kind         "char" NOT NULL CHECK (kind IN ('f', 'd', 'l', 'p', 'c', 'b')),
    name         bytea NOT NULL,
    digest_tail  bytea NOT NULL,
    link_target  bytea NOT NULL,
    CHECK (first_seq <= last_seq)
);
CREATE INDEX file_versions_folder ON file_versions (host, job, folder);
CREATE INDEX file_versions_opened ON file_versions (host, job, first_seq);
CREATE INDEX file_versions_closed ON file_versions (host, job, last_seq) WHERE last_seq < 2147483647;
CREATE INDEX file_versions_digest ON file_versions (digest_head) WHERE digest_head <> 0;

-- Blocks of an index as they arrive. Not logged: after a crash of the server both are empty, and the blocks are asked for again.
CREATE UNLOGGED TABLE staged_blocks (
    backup bigint NOT NULL,
    number bigint NOT NULL,
    last   boolean NOT NULL,
    PRIMARY KEY (backup, number)
);
CREATE UNLOGGED TABLE staged_entries (
    backup       bigint NOT NULL,
    folder       bigint NOT NULL,
    size         bigint NOT NULL,
    mtime_s      bigint NOT NULL,
    digest_head  bigint NOT NULL,
    state        bigint NOT NULL,
    mtime_ns     integer NOT NULL,
    uid          integer NOT NULL,
    gid          integer NOT NULL,
    mode         smallint NOT NULL,
    flags        smallint NOT NULL,
    -- 't': the path does not exist any more.
    kind         "char" NOT NULL CHECK (kind IN ('f', 'd', 'l', 'p', 'c', 'b', 't')),
    name         bytea NOT NULL,
    digest_tail  bytea NOT NULL,
    link_target  bytea NOT NULL
);
CREATE INDEX staged_entries_folder ON staged_entries (backup, folder);
