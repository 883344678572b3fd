-- The relays of a cluster. What a column means is said in the file of the same number for SQLite.
CREATE TABLE members (
    id             BYTEA  NOT NULL PRIMARY KEY,
    name           TEXT COLLATE "C" NOT NULL,
    tunnel_key     BYTEA  NOT NULL UNIQUE,
    public         TEXT COLLATE "C",
    tunnel_address TEXT COLLATE "C",
    ssh_address    TEXT COLLATE "C",
    bound_ssh      TEXT COLLATE "C",
    added          BIGINT NOT NULL,
    state          TEXT COLLATE "C" NOT NULL DEFAULT 'active'
);
CREATE UNIQUE INDEX members_name ON members (name) WHERE state <> 'removed';

ALTER TABLE relays ADD COLUMN member BYTEA NOT NULL DEFAULT '\x00000000000000000000000000000000';
ALTER TABLE relays ADD COLUMN version TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE relays ADD COLUMN clock_offset BIGINT NOT NULL DEFAULT 0;
CREATE INDEX relays_member ON relays (member);

ALTER TABLE tunnels ADD COLUMN member BYTEA NOT NULL DEFAULT '\x00000000000000000000000000000000';
ALTER TABLE recordings ADD COLUMN member BYTEA NOT NULL DEFAULT '\x00000000000000000000000000000000';

CREATE TABLE replaced_tunnels (
    relay      BYTEA  NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    device     BYTEA  NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (relay, device)
);

ALTER TABLE tokens ADD COLUMN for_relay BOOLEAN NOT NULL DEFAULT FALSE;
