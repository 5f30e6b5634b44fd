-- What a coordinator says of itself with every beat, and what an operator wants of it. A coordinator that knows nothing of these
-- columns leaves them as they are.
ALTER TABLE coordinators
    -- 0: it did not say.
    ADD COLUMN schema_version  integer NOT NULL DEFAULT 0,
    -- host:port of its listeners, as the fleet reaches them.
    ADD COLUMN endpoints       text[] NOT NULL DEFAULT '{}',
    ADD COLUMN enrol_endpoints text[] NOT NULL DEFAULT '{}',
    ADD COLUMN sessions        integer NOT NULL DEFAULT 0,
    -- Name of each duty, and how many milliseconds before last_beat_at it was last done.
    ADD COLUMN duties          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(duties) = 'object'),
    ADD COLUMN draining_since  timestamptz,
    -- The operator who wants it to drain.
    ADD COLUMN drain_asked_by  text;
