-- Times in which an operator lets nothing begin but restores: of the fleet, of a host, of a policy, or of a policy on a host.
CREATE TABLE pauses (
    pause     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Null: every host, every policy.
    host      integer REFERENCES hosts,
    policy    integer REFERENCES policies,
    since     timestamptz NOT NULL DEFAULT now(),
    -- It ends by itself then. Null: when somebody ends it.
    until     timestamptz,
    reason    text NOT NULL,
    paused_by text NOT NULL,
    -- When somebody ended it, or until when it was, once that was seen to be over.
    ended_at  timestamptz,
    ended_by  text,
    CHECK (until > since)
);
-- One in force for each thing that can be paused.
CREATE UNIQUE INDEX pauses_open ON pauses (coalesce(host, 0), coalesce(policy, 0)) WHERE ended_at IS NULL;
