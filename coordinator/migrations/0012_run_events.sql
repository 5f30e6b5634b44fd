-- What happened to a run, step by step, for people who look for the reason of something. Written in the transaction of each step, whoever
-- makes it, so that no step is left out. Runs of before have no rows.
CREATE TABLE run_events (
    run_id  uuid NOT NULL REFERENCES runs,
    event   bigint GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt integer NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('queued', 'leased', 'running', 'verifying', 'succeeded', 'failed', 'cancelled', 'missed',
        'cancelling', 'phase', 'decided', 'warnings', 'searchable', 'not_searchable')),
    detail  text NOT NULL,
    PRIMARY KEY (run_id, event)
);

-- The first 500 events of a run, each with at most 500 characters.
CREATE FUNCTION tell_run(run uuid, attempt integer, kind text, detail text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO run_events (run_id, attempt, kind, detail)
    SELECT $1, $2, $3, left(coalesce($4, ''), 500) WHERE (SELECT count(*) FROM run_events e WHERE e.run_id = $1) < 500
$$;

CREATE FUNCTION tell_of_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was_told boolean := TG_OP = 'UPDATE';
BEGIN
    IF NOT was_told OR OLD.state <> NEW.state OR OLD.attempt <> NEW.attempt THEN
        PERFORM tell_run(NEW.run_id, NEW.attempt, NEW.state, CASE
            WHEN NEW.state = 'missed' THEN NEW.reason
            WHEN NEW.state = 'queued' AND NOT was_told THEN 'asked for by ' || NEW.asked_by
            WHEN NEW.state IN ('queued', 'failed', 'cancelled') THEN NEW.fault ->> 'message'
        END);
    END IF;
    IF was_told AND NEW.cancelling AND NOT OLD.cancelling THEN
        PERFORM tell_run(NEW.run_id, NEW.attempt, 'cancelling', '');
    END IF;
    IF was_told AND NEW.progress ->> 'phase' IS DISTINCT FROM OLD.progress ->> 'phase' AND NEW.progress ->> 'phase' IS NOT NULL THEN
        PERFORM tell_run(NEW.run_id, NEW.attempt, 'phase', NEW.progress ->> 'phase');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_new_run AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION tell_of_step();
CREATE TRIGGER tell_of_step AFTER UPDATE OF state, attempt, cancelling, progress ON runs FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.attempt <> NEW.attempt OR OLD.cancelling <> NEW.cancelling
        OR OLD.progress ->> 'phase' IS DISTINCT FROM NEW.progress ->> 'phase')
    EXECUTE FUNCTION tell_of_step();

CREATE FUNCTION tell_of_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_run(NEW.run_id, NEW.attempt, 'decided', NEW.level || ', ' || NEW.reason);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_decision AFTER INSERT ON decisions FOR EACH ROW EXECUTE FUNCTION tell_of_decision();

CREATE FUNCTION tell_of_warnings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_run(told.run_id, told.attempt, 'warnings', count(*)::text) FROM told GROUP BY told.run_id, told.attempt;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_warnings AFTER INSERT ON run_warnings REFERENCING NEW TABLE AS told FOR EACH STATEMENT
    EXECUTE FUNCTION tell_of_warnings();

CREATE FUNCTION tell_of_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_run(NEW.run_id, NEW.attempt, NEW.searchable, NEW.searchable_reason);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_entries AFTER UPDATE OF searchable ON backups FOR EACH ROW
    WHEN (OLD.searchable <> NEW.searchable AND NEW.searchable <> 'pending') EXECUTE FUNCTION tell_of_entries();
