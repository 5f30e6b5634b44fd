-- What made each version of a policy. A deleted policy keeps its rows, and so do its jobs and their backups: its last version is for no
-- host, so that a program that does not know of deletion has nothing due for it either.
ALTER TABLE policy_versions
    ADD COLUMN origin text NOT NULL DEFAULT 'applied' CHECK (origin IN ('applied', 'rolled_back', 'deleted')),
    -- The version that a rollback went back to.
    ADD COLUMN equals bigint;
