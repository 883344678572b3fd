-- Console commands that stream, as their relays publish them: for listings, and to find the relay that can end one. A copy
-- of what the relays know, a second behind, as `sessions` is. A request to end one is a part of its row.
CREATE TABLE console_streams (
    id        BLOB   NOT NULL PRIMARY KEY,
    relay     BLOB   NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    user_name TEXT   NOT NULL,
    command   TEXT   NOT NULL,
    client    TEXT   NOT NULL,
    started   BIGINT NOT NULL,
    active    BIGINT NOT NULL,
    bytes_in  BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    killed    BIGINT NOT NULL DEFAULT 0,
    message   TEXT   NOT NULL DEFAULT '',
    by_user   TEXT
);
CREATE INDEX console_streams_relay ON console_streams (relay);
