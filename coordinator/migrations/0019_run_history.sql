-- Runs that ended long ago are forgotten. Of those whose row stays, only the steps are: 'infinity' says that a restore point keeps it. Others, such as
-- the newest run of a job, are looked at again after a while.
ALTER TABLE runs ADD COLUMN steps_forgotten_at timestamptz;
CREATE INDEX runs_ended ON runs ((coalesce(ended_at, created_at)))
    WHERE state IN ('succeeded', 'failed', 'cancelled', 'missed') AND steps_forgotten_at IS NULL;
CREATE INDEX runs_kept ON runs (steps_forgotten_at) WHERE steps_forgotten_at < 'infinity';
-- Without it, each run that goes would be a look at every key.
CREATE INDEX run_keys_of_run ON run_keys (run_id);
