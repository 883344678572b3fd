-- Recordings, each named by its session. No references to users and devices: a recording outlives both.
-- `chain_key` is the key of the streams' digests, and is erased with the verdict.
CREATE TABLE recordings (
    id          BLOB    NOT NULL PRIMARY KEY,
    relay       BLOB    NOT NULL,
    user_name   TEXT    NOT NULL,
    device      BLOB    NOT NULL,
    device_name TEXT    NOT NULL,
    login       TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    command     TEXT,
    client      TEXT    NOT NULL,
    started     BIGINT  NOT NULL,
    ended       BIGINT,
    exited      BOOLEAN NOT NULL DEFAULT FALSE,
    refused     BOOLEAN NOT NULL DEFAULT FALSE,
    expected    BIGINT,
    state       TEXT    NOT NULL,
    reason      TEXT,
    offered     BIGINT  NOT NULL DEFAULT 0,
    chain_key   BLOB,
    seen        BLOB    NOT NULL,
    report      BLOB,
    verified    BOOLEAN,
    verdict     TEXT,
    signature   BLOB
);
CREATE INDEX recordings_started ON recordings (started);
CREATE INDEX recordings_device ON recordings (device, started);
CREATE INDEX recordings_user ON recordings (user_name, started);
-- What is still to be done for.
CREATE INDEX recordings_open ON recordings (expected) WHERE chain_key IS NOT NULL;

CREATE TABLE recording_segments (
    recording BLOB   NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    segment   BIGINT NOT NULL,
    length    BIGINT NOT NULL,
    hash      BLOB   NOT NULL,
    PRIMARY KEY (recording, segment)
);
