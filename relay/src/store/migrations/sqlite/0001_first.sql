-- Times are microseconds since 1970 UTC. Identifiers and keys are raw bytes. Labels are a JSON object:
-- they are always read and written whole.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
-- Grows with every change that an admin makes, so that a relay can tell it from its own presence rows.
INSERT INTO meta (key, value) VALUES ('access_version', '1');

CREATE TABLE users (
    name     TEXT   NOT NULL PRIMARY KEY,
    created  BIGINT NOT NULL,
    disabled BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE user_roles (
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    role      TEXT NOT NULL,
    PRIMARY KEY (user_name, role)
);

-- One key belongs to one user: who somebody is follows from the key that was proved.
CREATE TABLE user_keys (
    fingerprint TEXT   NOT NULL PRIMARY KEY,
    user_name   TEXT   NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    public_key  TEXT   NOT NULL,
    comment     TEXT   NOT NULL,
    added       BIGINT NOT NULL
);
CREATE INDEX user_keys_user ON user_keys (user_name);

CREATE TABLE tokens (
    id          TEXT   NOT NULL PRIMARY KEY,
    secret_hash BLOB   NOT NULL UNIQUE,
    uses        BIGINT NOT NULL,
    uses_left   BIGINT NOT NULL CHECK (uses_left >= 0),
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    labels      TEXT   NOT NULL
);

-- A revoked device keeps its row, so that its key is answered "revoked" for ever; its name is free.
CREATE TABLE devices (
    id            BLOB   NOT NULL PRIMARY KEY,
    public_key    BLOB   NOT NULL UNIQUE,
    name          TEXT   NOT NULL,
    labels        TEXT   NOT NULL,
    enrolled      BIGINT NOT NULL,
    agent_version TEXT   NOT NULL,
    target        TEXT   NOT NULL,
    revoked       BIGINT
);
CREATE UNIQUE INDEX devices_name ON devices (name) WHERE revoked IS NULL;
CREATE INDEX devices_any_name ON devices (name);

-- One run of one relay process. Its tunnels count only while its heartbeat is fresh.
CREATE TABLE relays (
    id        BLOB   NOT NULL PRIMARY KEY,
    heartbeat BIGINT NOT NULL,
    stopped   BIGINT
);

-- The newest tunnel of each device. The row stays when the tunnel closes: it holds the generation.
CREATE TABLE tunnels (
    device         BLOB   NOT NULL PRIMARY KEY REFERENCES devices (id),
    relay          BLOB   NOT NULL,
    generation     BIGINT NOT NULL,
    opened         BIGINT NOT NULL,
    closed         BIGINT,
    last_heard     BIGINT NOT NULL,
    keepalive_secs BIGINT NOT NULL,
    address        TEXT   NOT NULL,
    local_address  TEXT
);
CREATE INDEX tunnels_relay ON tunnels (relay);
