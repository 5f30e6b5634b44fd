-- The fleet's defaults for policies. What a policy became by them is in its own versions.
CREATE TABLE policy_defaults (
    version    bigint PRIMARY KEY CHECK (version > 0),
    toml       text NOT NULL,
    applied_by text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
