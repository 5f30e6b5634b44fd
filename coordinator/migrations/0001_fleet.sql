-- Who belongs to the fleet: coordinators, hosts, certificates, operators, tokens; and who did what.
--
-- Integer keys stay inside the catalog, UUIDs go on the wire. CHECK lists equal the enums of the code; a test compares them.

CREATE TABLE fleet (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Processes of coordinators. While quiet_until lies ahead nobody reaps, because hosts may not have found their way back yet.
CREATE TABLE coordinators (
    coordinator_id uuid PRIMARY KEY,
    endpoint       text NOT NULL,
    version        text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    last_beat_at   timestamptz NOT NULL DEFAULT now(),
    quiet_until    timestamptz NOT NULL
);

-- A host's name is never given to another host, so rows are never deleted.
CREATE TABLE hosts (
    host                integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host_id             uuid NOT NULL UNIQUE,
    name                text NOT NULL UNIQUE,
    labels              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
    state               text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    hostname            text NOT NULL DEFAULT '',
    operating_system    text NOT NULL DEFAULT '',
    version             text NOT NULL DEFAULT '',
    archive_folder      bytea NOT NULL DEFAULT '',
    clock_offset_us     bigint NOT NULL DEFAULT 0,
    joined_at           timestamptz NOT NULL DEFAULT now(),
    -- The live session, if any. The number fences: only ever rises.
    session_number      bigint NOT NULL DEFAULT 0,
    session_open        boolean NOT NULL DEFAULT false,
    session_instance    uuid,
    session_coordinator uuid,
    last_seen_at        timestamptz,
    CHECK (NOT session_open OR (session_instance IS NOT NULL AND session_coordinator IS NOT NULL))
) WITH (fillfactor = 70);

-- The allow-list: a certificate that has no active row here does not count. Rows outlive expiry.
CREATE TABLE certificates (
    serial            text PRIMARY KEY,
    subject_kind      text NOT NULL CHECK (subject_kind IN ('agent', 'operator', 'coordinator')),
    subject_id        text NOT NULL,
    generation        integer NOT NULL CHECK (generation > 0),
    public_key_sha256 bytea NOT NULL CHECK (octet_length(public_key_sha256) = 32),
    state             text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'replaced', 'revoked')),
    pem               text NOT NULL,
    issued_at         timestamptz NOT NULL DEFAULT now(),
    not_after         timestamptz NOT NULL,
    first_used_at     timestamptz,
    UNIQUE (subject_kind, subject_id, generation),
    UNIQUE (subject_kind, subject_id, public_key_sha256)
);

CREATE TABLE operators (
    name       text PRIMARY KEY,
    role       text NOT NULL CHECK (role IN ('viewer', 'restorer', 'operator', 'admin')),
    state      text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tokens (
    token_id      uuid PRIMARY KEY,
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    kind          text NOT NULL CHECK (kind IN ('agent', 'operator')),
    labels        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
    host_name     text,
    operator_name text,
    operator_role text CHECK (operator_role IN ('viewer', 'restorer', 'operator', 'admin')),
    uses_left     integer NOT NULL CHECK (uses_left >= 0),
    failures      integer NOT NULL DEFAULT 0,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    CHECK ((kind = 'operator') = (operator_name IS NOT NULL AND operator_role IS NOT NULL))
);

-- What a token was redeemed for: the same key gets the same certificate again.
CREATE TABLE token_redemptions (
    token_id          uuid NOT NULL REFERENCES tokens,
    public_key_sha256 bytea NOT NULL,
    subject_kind      text NOT NULL CHECK (subject_kind IN ('agent', 'operator', 'coordinator')),
    subject_id        text NOT NULL,
    serial            text NOT NULL REFERENCES certificates,
    redeemed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token_id, public_key_sha256)
);

CREATE TABLE audit (
    audit      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor_kind text NOT NULL CHECK (actor_kind IN ('agent', 'operator', 'coordinator')),
    actor      text NOT NULL,
    action     text NOT NULL,
    subject    text NOT NULL,
    details    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_at ON audit (at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
