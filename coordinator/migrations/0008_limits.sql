-- How many runs may go on at once: over the fleet, on each host, on the hosts that a selector means.
CREATE TABLE limits (
    name       text PRIMARY KEY,
    scope      text NOT NULL CHECK (scope IN ('fleet', 'host', 'group')),
    selector   text NOT NULL DEFAULT '',
    runs       integer NOT NULL CHECK (runs > 0),
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((scope = 'group') = (selector <> ''))
);
-- The default: what reads a host's disks side by side is bounded before anybody thinks of it.
INSERT INTO limits (name, scope, runs, changed_by) VALUES ('each-host', 'host', 2, 'coord');

-- What somebody called their wish for a backup, so that asking again is answered with the same run.
CREATE TABLE run_keys (
    job      integer NOT NULL REFERENCES jobs,
    key      text NOT NULL,
    run_id   uuid NOT NULL REFERENCES runs,
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, key)
);
