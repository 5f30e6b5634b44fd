-- The first full of a job is placed into file_versions block by block, instead of being staged and moved.
ALTER TABLE jobs ADD COLUMN placing_seq integer;

-- Its blocks. Logged, as their entries are.
CREATE TABLE placed_blocks (
    backup  bigint NOT NULL,
    number  bigint NOT NULL,
    entries integer NOT NULL,
    PRIMARY KEY (backup, number)
);

CREATE VIEW arrived_blocks AS
    SELECT backup, number FROM staged_blocks UNION SELECT backup, number FROM placed_blocks;

-- Who looks for what began, looks for what began after a backup: nobody looks for the versions of a job's first one, which are most.
DROP INDEX file_versions_opened;
CREATE INDEX file_versions_opened ON file_versions (host, job, first_seq) WHERE first_seq > 1;

-- Who looks for a content asks for one digest, seldom, and can wait for a second; a tree over all digests took a sixth of all that a version
-- takes, and half of the time that it takes to write one. A filter for every 32 pages says where a digest cannot be: about two bytes a version.
DROP INDEX file_versions_digest;
CREATE INDEX file_versions_digest ON file_versions
    USING brin (digest_head int8_bloom_ops (n_distinct_per_range = 2500, false_positive_rate = 0.001)) WITH (pages_per_range = 32);
