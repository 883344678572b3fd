-- The relays of a cluster, each with the key by which devices and the others know it. The one that made the database has
-- an id of zeros. `public` is what its administrator calls it, the addresses are what it serves at: NULL until it has
-- served. The row of a removed one stays, for what names it.
CREATE TABLE members (
    id             BLOB   NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL,
    tunnel_key     BLOB   NOT NULL UNIQUE,
    public         TEXT,
    tunnel_address TEXT,
    ssh_address    TEXT,
    bound_ssh      TEXT,
    added          BIGINT NOT NULL,
    state          TEXT   NOT NULL DEFAULT 'active'
);
CREATE UNIQUE INDEX members_name ON members (name) WHERE state <> 'removed';

-- The member whose run it is, the version of its program, and by how many microseconds its machine's clock is ahead of
-- the database's.
ALTER TABLE relays ADD COLUMN member BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
ALTER TABLE relays ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE relays ADD COLUMN clock_offset BIGINT NOT NULL DEFAULT 0;
CREATE INDEX relays_member ON relays (member);

-- Runs are forgotten; the member stays known: of a tunnel, to reset it after a crash, and of a recording.
ALTER TABLE tunnels ADD COLUMN member BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
ALTER TABLE recordings ADD COLUMN member BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';

-- Tunnels that a run still has, and in whose place their device has a newer one at another run.
CREATE TABLE replaced_tunnels (
    relay      BLOB   NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    device     BLOB   NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (relay, device)
);

-- Whether a relay joins the cluster with it, and no device.
ALTER TABLE tokens ADD COLUMN for_relay BOOLEAN NOT NULL DEFAULT FALSE;
