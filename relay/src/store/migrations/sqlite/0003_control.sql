-- Up to which access_version this run has acted: what a command waits for that takes something away.
ALTER TABLE relays ADD COLUMN seen BIGINT NOT NULL DEFAULT 0;

-- Slots of quotas that are in use. They end with the run of the relay that took them. No reference to
-- users: a removed user's slots live as long as what they stand for.
CREATE TABLE leases (
    relay     BLOB   NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    number    BIGINT NOT NULL,
    kind      TEXT   NOT NULL,
    user_name TEXT   NOT NULL,
    taken     BIGINT NOT NULL,
    PRIMARY KEY (relay, number)
);
CREATE INDEX leases_user ON leases (user_name, kind, relay);

-- Live sessions, for listings and kills: a copy of what the relays know, a second behind.
CREATE TABLE sessions (
    id          BLOB   NOT NULL PRIMARY KEY,
    relay       BLOB   NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    user_name   TEXT   NOT NULL,
    device      BLOB   NOT NULL,
    device_name TEXT   NOT NULL,
    login       TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    command     TEXT,
    client      TEXT   NOT NULL,
    started     BIGINT NOT NULL,
    active      BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL
);
CREATE INDEX sessions_relay ON sessions (relay);
CREATE INDEX sessions_user ON sessions (user_name);

-- AUTOINCREMENT: a number that an operator has read in a refusal never means another lock.
CREATE TABLE locks (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    target  TEXT    NOT NULL,
    value   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    by_user TEXT,
    created BIGINT  NOT NULL,
    expires BIGINT
);

-- Sessions that are to end. A request goes with its session.
CREATE TABLE kills (
    session BLOB NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    message TEXT NOT NULL,
    by_user TEXT
);
