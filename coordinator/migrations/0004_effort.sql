-- Where the time of a backup went, beside its phases. Null for what an older agent or coordinator left.
ALTER TABLE backups
    -- Processor and waiting time of the packer by kind of work, in microseconds of all its threads.
    ADD COLUMN effort jsonb,
    -- Milliseconds of the transaction that made the entries searchable.
    ADD COLUMN catalog_ms bigint;
