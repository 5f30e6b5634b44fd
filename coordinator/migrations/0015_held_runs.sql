-- What a host holds, and what is to be cancelled, are asked for at every Hello and every second: without these, each would be a look at
-- every run that ever was.
CREATE INDEX runs_held ON runs (host) WHERE state IN ('leased', 'running', 'verifying');
CREATE INDEX runs_cancelling ON runs (host) WHERE cancelling AND state IN ('leased', 'running', 'verifying');
