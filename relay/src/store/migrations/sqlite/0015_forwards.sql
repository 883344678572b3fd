-- What the relay knows of each forward in a recording that has ended: where it led, and what passed. A recording is
-- compared with it. `forwards` is how many have a number; NULL: an older relay began it and did not count.
ALTER TABLE recordings ADD COLUMN forwards BIGINT;
CREATE TABLE recording_forwards (
    recording BLOB   NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    number    BIGINT NOT NULL,
    seen      BLOB   NOT NULL,
    PRIMARY KEY (recording, number)
);

-- The most bytes that the records of a session's file operations, or of its forwards, take.
ALTER TABLE recordings ADD COLUMN booked BIGINT NOT NULL DEFAULT 0;
