-- The night of each job's next full, where fulls are levelled over the fleet. A date in the policy's zone.
CREATE TABLE full_plan (
    job        integer PRIMARY KEY REFERENCES jobs,
    night      date NOT NULL,
    -- What it is expected to store, before compression.
    bytes      bigint NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now()
);
