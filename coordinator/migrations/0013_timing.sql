-- How long a due run may wait for its beginning and how long it may take, as the version of the policy says that it was made by. Null: as
-- long as it likes.
ALTER TABLE runs
    -- The first attempt begins before this, any other before closes_at.
    ADD COLUMN start_by       timestamptz,
    ADD COLUMN closes_at      timestamptz,
    -- Why it is missed if it does not.
    ADD COLUMN late_reason    text NOT NULL DEFAULT '',
    ADD COLUMN max_duration_s integer CHECK (max_duration_s > 0),
    -- Why the coordinator stops it; what its host says then counts less.
    ADD COLUMN stop_fault     jsonb;
CREATE INDEX runs_waiting ON runs ((CASE WHEN attempt = 0 THEN start_by ELSE closes_at END)) WHERE state = 'queued';
CREATE INDEX runs_limited ON runs (started_at)
    WHERE max_duration_s IS NOT NULL AND state IN ('queued', 'leased', 'running', 'verifying');

-- Backups that are to make up for missed ones.
ALTER TABLE jobs
    ADD COLUMN owed_runs   integer NOT NULL DEFAULT 0 CHECK (owed_runs >= 0),
    -- The newest missed instant of them, and why it was missed.
    ADD COLUMN owed_due_at timestamptz,
    ADD COLUMN owed_reason text NOT NULL DEFAULT '',
    -- When the next of them may begin. Null: none is owed.
    ADD COLUMN owed_from   timestamptz;
CREATE INDEX jobs_owing ON jobs (owed_from) WHERE state = 'active' AND owed_from IS NOT NULL;
