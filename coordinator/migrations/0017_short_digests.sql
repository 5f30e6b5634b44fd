-- Of a content's digest the catalog keeps the first sixteen bytes, in two numbers: enough to tell contents apart and to find one (nobody
-- can make two that agree in 128 bits), and a sixth of a row less. The whole digest is in the sealed index, and every check of
-- content is made against that.
--
-- New tables instead of changed ones: a column that was dropped would still cost each row its null bitmap. Before the first release; from
-- then on migrations add.

CREATE TABLE short_file_versions (
    host         integer NOT NULL,
    job          integer NOT NULL,
    folder       bigint NOT NULL,
    size         bigint NOT NULL,
    mtime_s      bigint NOT NULL,
    -- Bytes 0 to 7 and 8 to 15 of the content's digest, big-endian; both 0 without content.
    digest_head  bigint NOT NULL,
    digest_tail  bigint NOT NULL,
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
    kind         "char" NOT NULL CONSTRAINT file_versions_kind_check CHECK (kind IN ('f', 'd', 'l', 'p', 'c', 'b')),
    name         bytea NOT NULL,
    link_target  bytea NOT NULL,
    CONSTRAINT file_versions_check CHECK (first_seq <= last_seq)
);
INSERT INTO short_file_versions
    SELECT host, job, folder, size, mtime_s, digest_head,
        CASE WHEN digest_tail = '' THEN 0 ELSE ('x' || encode(substr(digest_tail, 1, 8), 'hex'))::bit(64)::bigint END,
        state, first_seq, last_seq, mtime_ns, uid, gid, mode, flags, kind, name, link_target
    FROM file_versions ORDER BY host, job, folder, name;
DROP TABLE file_versions;
ALTER TABLE short_file_versions RENAME TO file_versions;
CREATE INDEX file_versions_folder ON file_versions (host, job, folder);
CREATE INDEX file_versions_opened ON file_versions (host, job, first_seq);
CREATE INDEX file_versions_closed ON file_versions (host, job, last_seq) WHERE last_seq < 2147483647;
CREATE INDEX file_versions_digest ON file_versions (digest_head) WHERE digest_head <> 0;

-- What was staged is asked for again.
DROP TABLE staged_entries;
TRUNCATE staged_blocks;
CREATE UNLOGGED TABLE staged_entries (
    backup       bigint NOT NULL,
    folder       bigint NOT NULL,
    size         bigint NOT NULL,
    mtime_s      bigint NOT NULL,
    digest_head  bigint NOT NULL,
    digest_tail  bigint NOT NULL,
    state        bigint NOT NULL,
    mtime_ns     integer NOT NULL,
    uid          integer NOT NULL,
    gid          integer NOT NULL,
    mode         smallint NOT NULL,
    flags        smallint NOT NULL,
    -- 't': the path does not exist any more.
    kind         "char" NOT NULL CHECK (kind IN ('f', 'd', 'l', 'p', 'c', 'b', 't')),
    name         bytea NOT NULL,
    link_target  bytea NOT NULL
);
CREATE INDEX staged_entries_folder ON staged_entries (backup, folder);
