-- What a decision was taken by in figures: the bytes that history let expect of a differential, and those that the scan found. Null for
-- what an older coordinator decided, and where there was nothing to go by.
ALTER TABLE decisions
    ADD COLUMN estimate_bytes bigint,
    ADD COLUMN exact_bytes bigint;
