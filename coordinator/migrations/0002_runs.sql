-- Intent (policies, jobs) and what comes of it (runs, decisions, backups).

CREATE TABLE policies (
    policy     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    policy_id  uuid NOT NULL UNIQUE,
    name       text NOT NULL UNIQUE,
    version    bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE policy_versions (
    policy     integer NOT NULL REFERENCES policies,
    version    bigint NOT NULL,
    toml       text NOT NULL,
    spec       jsonb NOT NULL,
    applied_by text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (policy, version)
);

CREATE TABLE jobs (
    job           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id        uuid NOT NULL UNIQUE,
    host          integer NOT NULL REFERENCES hosts,
    policy        integer NOT NULL REFERENCES policies,
    state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'ended')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- The next due instant of each kind; NULL: not worked out for the policy's present version.
    backup_due_at timestamptz,
    verify_due_at timestamptz,
    -- The highest ordinal that the job's backups have had.
    last_ordinal  bigint NOT NULL DEFAULT 0,
    -- Every entry of this job is in the catalog up to and including this seq.
    ingested_seq  integer NOT NULL DEFAULT 0,
    UNIQUE (host, policy)
) WITH (fillfactor = 70);
CREATE INDEX jobs_policy ON jobs (policy);
CREATE INDEX jobs_due ON jobs (least(coalesce(backup_due_at, '-infinity'), verify_due_at), job) WHERE state = 'active';

CREATE TABLE runs (
    run_id         uuid PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('backup', 'verify', 'restore')),
    host           integer NOT NULL REFERENCES hosts,
    job            integer REFERENCES jobs,
    policy_version bigint,
    due_at         timestamptz NOT NULL,
    state          text NOT NULL
        CHECK (state IN ('queued', 'leased', 'running', 'verifying', 'succeeded', 'failed', 'cancelled', 'missed')),
    -- The newest claimed attempt: the fencing token.
    attempt        integer NOT NULL DEFAULT 0,
    max_attempts   integer NOT NULL CHECK (max_attempts > 0),
    -- The newest attempt was given up because its lease ran out; its result still counts.
    reaped         boolean NOT NULL DEFAULT false,
    cancelling     boolean NOT NULL DEFAULT false,
    lease_session  bigint,
    lease_until    timestamptz,
    run_after      timestamptz NOT NULL,
    priority       integer NOT NULL,
    asked_by       text NOT NULL,
    level          text CHECK (level IN ('full', 'differential')),
    reason         text NOT NULL DEFAULT '',
    -- What to do, for kinds and wishes that no policy says.
    spec           jsonb NOT NULL,
    backup_id      uuid,
    fault          jsonb,
    progress       jsonb,
    result         jsonb,
    warnings_total bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    ended_at       timestamptz,
    UNIQUE (job, kind, due_at),
    CHECK (kind = 'restore' OR job IS NOT NULL),
    CHECK ((state IN ('leased', 'running', 'verifying')) = (lease_until IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX runs_one_open_backup ON runs (job)
    WHERE kind = 'backup' AND state IN ('queued', 'leased', 'running', 'verifying');
CREATE INDEX runs_queue ON runs (host, priority DESC, run_after) WHERE state = 'queued';
CREATE INDEX runs_leases ON runs (lease_until) WHERE state IN ('leased', 'running', 'verifying');
CREATE INDEX runs_of_host ON runs (host, due_at DESC);
CREATE INDEX runs_of_job ON runs (job, due_at DESC);
CREATE INDEX runs_due ON runs (due_at DESC);

CREATE TABLE attempts (
    run_id     uuid NOT NULL REFERENCES runs,
    attempt    integer NOT NULL CHECK (attempt > 0),
    session    bigint NOT NULL,
    leased_at  timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at   timestamptz,
    outcome    text CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'lapsed')),
    fault      jsonb,
    PRIMARY KEY (run_id, attempt)
);

-- Reports that were taken: a repeated one changes nothing.
CREATE TABLE run_reports (
    run_id   uuid NOT NULL REFERENCES runs,
    attempt  integer NOT NULL,
    sequence bigint NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, attempt, sequence)
);

-- The first notes of a run; the total is in the run.
CREATE TABLE run_warnings (
    run_id   uuid NOT NULL REFERENCES runs,
    attempt  integer NOT NULL,
    sequence bigint NOT NULL,
    position integer NOT NULL,
    path     bytea NOT NULL,
    kind     text NOT NULL,
    detail   text NOT NULL,
    PRIMARY KEY (run_id, attempt, sequence, position)
);

CREATE TABLE decisions (
    decision   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     uuid NOT NULL REFERENCES runs,
    job        integer NOT NULL REFERENCES jobs,
    attempt    integer NOT NULL,
    stage      text NOT NULL CHECK (stage IN ('before_scan', 'after_scan')),
    level      text NOT NULL CHECK (level IN ('full', 'differential')),
    rule       text NOT NULL,
    reason     text NOT NULL,
    inputs     jsonb NOT NULL,
    options    jsonb NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, attempt, stage)
);
CREATE INDEX decisions_of_job ON decisions (job, decision DESC);

-- Run ids promised to agents for the time they may be cut off.
CREATE TABLE planned_runs (
    run_id         uuid PRIMARY KEY,
    job            integer NOT NULL REFERENCES jobs,
    kind           text NOT NULL CHECK (kind IN ('backup', 'verify', 'restore')),
    due_at         timestamptz NOT NULL,
    level          text NOT NULL CHECK (level IN ('full', 'differential')),
    policy_version bigint NOT NULL,
    UNIQUE (job, kind, due_at)
);

CREATE TABLE backups (
    backup             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backup_id          uuid NOT NULL UNIQUE,
    host               integer NOT NULL REFERENCES hosts,
    job                integer NOT NULL REFERENCES jobs,
    -- The order of the job's backups: that of their ordinals.
    seq                integer NOT NULL CHECK (seq > 0),
    ordinal            bigint NOT NULL,
    level              text NOT NULL CHECK (level IN ('full', 'differential')),
    -- The full this one stands on.
    base               bigint REFERENCES backups,
    -- The backup whose archive this one names; its own key when it has an archive.
    archive_of         bigint NOT NULL REFERENCES backups,
    run_id             uuid NOT NULL REFERENCES runs,
    attempt            integer NOT NULL,
    policy_version     bigint NOT NULL,
    location_folder    bytea NOT NULL,
    location_key       text NOT NULL,
    archive_digest     bytea NOT NULL,
    stored_bytes       bigint NOT NULL,
    codec              text NOT NULL CHECK (codec IN ('zstd', 'gzip')),
    selection_digest   bytea NOT NULL,
    started_at         timestamptz NOT NULL,
    captured_at        timestamptz NOT NULL,
    clock_offset_us    bigint NOT NULL,
    entries            bigint NOT NULL,
    files              bigint NOT NULL,
    content_bytes      bigint NOT NULL,
    source_files       bigint NOT NULL,
    source_bytes       bigint NOT NULL,
    changed_files      bigint NOT NULL,
    changed_bytes      bigint NOT NULL,
    removed            bigint NOT NULL,
    index_blocks       bigint NOT NULL,
    unreadable         bigint NOT NULL,
    changed_while_read bigint NOT NULL,
    scan_ms            bigint NOT NULL,
    pack_ms            bigint NOT NULL,
    seal_ms            bigint NOT NULL,
    verify_ms          bigint NOT NULL,
    status             text NOT NULL CHECK (status IN ('protected', 'damaged')),
    searchable         text NOT NULL CHECK (searchable IN ('pending', 'searchable', 'not_searchable')),
    searchable_reason  text NOT NULL DEFAULT '',
    checks             jsonb NOT NULL,
    committed_at       timestamptz NOT NULL DEFAULT now(),
    verified_at        timestamptz,
    UNIQUE (job, seq),
    UNIQUE (job, ordinal),
    CHECK ((level = 'full') = (base IS NULL))
);
CREATE INDEX backups_captured ON backups (job, captured_at DESC);
CREATE INDEX backups_of_host ON backups (host, captured_at DESC);
CREATE INDEX backups_of_run ON backups (run_id);
CREATE INDEX backups_of_base ON backups (base) WHERE base IS NOT NULL;
CREATE INDEX backups_same_archive ON backups (archive_of) WHERE archive_of <> backup;
CREATE INDEX backups_pending ON backups (job, seq) WHERE searchable = 'pending';
