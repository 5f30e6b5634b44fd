-- What each rule of the selection left out of a backup run. Runs of before have no rows.
CREATE TABLE run_left_out (
    run_id   uuid NOT NULL REFERENCES runs,
    position integer NOT NULL,
    rule     text NOT NULL CHECK (rule IN ('pattern', 'if_present', 'cache', 'nodump', 'other_file_system', 'larger_than',
        'kernel_file_system', 'own', 'socket')),
    -- The pattern, the marker's name, the largest size in bytes.
    detail   text NOT NULL,
    files    bigint NOT NULL,
    -- What is in them was not looked at.
    folders  bigint NOT NULL,
    bytes    bigint NOT NULL,
    PRIMARY KEY (run_id, position)
);
