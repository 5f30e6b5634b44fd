-- Targets of archives: the folder in which a host's agent keeps them. Several hosts may share one; they then say the same id. NULL: the agent has
-- not said, and the host counts as a target of its own.
ALTER TABLE hosts ADD COLUMN archive_store uuid;
-- A limit of each target is one of the scope 'host' that counts the hosts of a target together. A coordinator that does not know the column
-- takes it for a limit of each host, which is never narrower than what was asked for, and goes on claiming.
ALTER TABLE limits ADD COLUMN each_target boolean NOT NULL DEFAULT false;
-- The runs that wait because their host let a lease lapse: few, and asked for with each run that is about to begin.
CREATE INDEX runs_lapsed ON runs (host) WHERE state = 'queued' AND reaped;
