-- The tables of version 34, as SQLite has them after its files 0001 to 0034: what a column means is said there. From here
-- on each number exists for both databases.
--
-- Texts are compared and sorted by their bytes, as SQLite does, whatever the server's locale is.

CREATE TABLE meta (
    key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
INSERT INTO meta (key, value) VALUES ('access_version', '1'), ('audit_removed_before', '0');

CREATE TABLE users (
    name     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created  BIGINT  NOT NULL,
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    email    TEXT COLLATE "C",
    id       BIGINT  NOT NULL DEFAULT 0
);

CREATE TABLE user_ids (
    id      BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL
);
CREATE FUNCTION users_have_ids() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    new_id BIGINT;
BEGIN
    INSERT INTO user_ids (name, created) VALUES (NEW.name, NEW.created) RETURNING user_ids.id INTO new_id;
    UPDATE users SET id = new_id WHERE users.name = NEW.name;
    RETURN NULL;
END
$$;
CREATE TRIGGER users_have_ids AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION users_have_ids();

CREATE TABLE user_roles (
    user_name TEXT COLLATE "C" NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    role      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (user_name, role)
);
CREATE INDEX user_roles_role ON user_roles (role);

CREATE TABLE user_keys (
    fingerprint TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_name   TEXT COLLATE "C" NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    public_key  TEXT COLLATE "C" NOT NULL,
    comment     TEXT COLLATE "C" NOT NULL,
    added       BIGINT NOT NULL
);
CREATE INDEX user_keys_user ON user_keys (user_name);

CREATE TABLE user_principals (
    principal TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_name TEXT COLLATE "C" NOT NULL REFERENCES users (name) ON DELETE CASCADE
);
CREATE INDEX user_principals_user ON user_principals (user_name);

CREATE TABLE roles (
    name    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    body    TEXT COLLATE "C" NOT NULL,
    changed BIGINT NOT NULL
);

CREATE TABLE tokens (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_hash BYTEA  NOT NULL UNIQUE,
    uses        BIGINT NOT NULL,
    uses_left   BIGINT NOT NULL CHECK (uses_left >= 0),
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    labels      TEXT COLLATE "C" NOT NULL
);

CREATE TABLE devices (
    id            BYTEA  NOT NULL PRIMARY KEY,
    public_key    BYTEA  NOT NULL UNIQUE,
    name          TEXT COLLATE "C" NOT NULL,
    labels        TEXT COLLATE "C" NOT NULL,
    enrolled      BIGINT NOT NULL,
    agent_version TEXT COLLATE "C" NOT NULL,
    target        TEXT COLLATE "C" NOT NULL,
    revoked       BIGINT,
    token         TEXT COLLATE "C",
    cloned        BIGINT,
    cloned_first  TEXT COLLATE "C",
    cloned_second TEXT COLLATE "C"
);
CREATE UNIQUE INDEX devices_name ON devices (name) WHERE revoked IS NULL;
CREATE INDEX devices_any_name ON devices (name);

CREATE TABLE relays (
    id                  BYTEA  NOT NULL PRIMARY KEY,
    heartbeat           BIGINT NOT NULL,
    stopped             BIGINT,
    seen                BIGINT NOT NULL DEFAULT 0,
    refused_connections BIGINT NOT NULL DEFAULT 0,
    refused_sessions    BIGINT NOT NULL DEFAULT 0,
    refused_channels    BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE tunnels (
    device         BYTEA  NOT NULL PRIMARY KEY REFERENCES devices (id),
    relay          BYTEA  NOT NULL,
    generation     BIGINT NOT NULL,
    opened         BIGINT NOT NULL,
    closed         BIGINT,
    last_heard     BIGINT NOT NULL,
    keepalive_secs BIGINT NOT NULL,
    address        TEXT COLLATE "C" NOT NULL,
    local_address  TEXT COLLATE "C",
    connection_id  BYTEA
);
CREATE INDEX tunnels_relay ON tunnels (relay);

CREATE TABLE leases (
    relay     BYTEA  NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    number    BIGINT NOT NULL,
    kind      TEXT COLLATE "C" NOT NULL,
    user_name TEXT COLLATE "C" NOT NULL,
    taken     BIGINT NOT NULL,
    PRIMARY KEY (relay, number)
);
CREATE INDEX leases_user ON leases (user_name, kind, relay);

CREATE TABLE sessions (
    id          BYTEA  NOT NULL PRIMARY KEY,
    relay       BYTEA  NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    user_name   TEXT COLLATE "C" NOT NULL,
    device      BYTEA  NOT NULL,
    device_name TEXT COLLATE "C" NOT NULL,
    login       TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    command     TEXT COLLATE "C",
    client      TEXT COLLATE "C" NOT NULL,
    started     BIGINT NOT NULL,
    active      BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    user_id     BIGINT
);
CREATE INDEX sessions_relay ON sessions (relay);
CREATE INDEX sessions_user ON sessions (user_name);

CREATE TABLE kills (
    session BYTEA NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    message TEXT COLLATE "C" NOT NULL,
    by_user TEXT COLLATE "C"
);

CREATE TABLE console_streams (
    id        BYTEA  NOT NULL PRIMARY KEY,
    relay     BYTEA  NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    user_name TEXT COLLATE "C" NOT NULL,
    command   TEXT COLLATE "C" NOT NULL,
    client    TEXT COLLATE "C" NOT NULL,
    started   BIGINT NOT NULL,
    active    BIGINT NOT NULL,
    bytes_in  BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    killed    BIGINT NOT NULL DEFAULT 0,
    message   TEXT COLLATE "C" NOT NULL DEFAULT '',
    by_user   TEXT COLLATE "C"
);
CREATE INDEX console_streams_relay ON console_streams (relay);

CREATE TABLE locks (
    id      BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target  TEXT COLLATE "C" NOT NULL,
    value   TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    by_user TEXT COLLATE "C",
    created BIGINT NOT NULL,
    expires BIGINT
);

CREATE TABLE authorities (
    fingerprint TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    public_key  TEXT COLLATE "C" NOT NULL,
    comment     TEXT COLLATE "C" NOT NULL,
    added       BIGINT NOT NULL
);

CREATE TABLE revocations (
    id        BIGINT NOT NULL PRIMARY KEY,
    kind      TEXT COLLATE "C" NOT NULL,
    authority TEXT COLLATE "C" NOT NULL,
    value     TEXT COLLATE "C" NOT NULL,
    first     BYTEA  NOT NULL,
    last      BYTEA  NOT NULL,
    added     BIGINT NOT NULL,
    UNIQUE (kind, value, authority, first, last)
);
CREATE INDEX revocations_serials ON revocations (kind, authority, first);

CREATE TABLE recordings (
    id          BYTEA   NOT NULL PRIMARY KEY,
    relay       BYTEA   NOT NULL,
    user_name   TEXT COLLATE "C" NOT NULL,
    device      BYTEA   NOT NULL,
    device_name TEXT COLLATE "C" NOT NULL,
    login       TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    command     TEXT COLLATE "C",
    client      TEXT COLLATE "C" NOT NULL,
    started     BIGINT  NOT NULL,
    ended       BIGINT,
    exited      BOOLEAN NOT NULL DEFAULT FALSE,
    refused     BOOLEAN NOT NULL DEFAULT FALSE,
    expected    BIGINT,
    state       TEXT COLLATE "C" NOT NULL,
    reason      TEXT COLLATE "C",
    offered     BIGINT  NOT NULL DEFAULT 0,
    chain_key   BYTEA,
    seen        BYTEA   NOT NULL,
    report      BYTEA,
    verified    BOOLEAN,
    verdict     TEXT COLLATE "C",
    signature   BYTEA,
    hold_since  BIGINT,
    hold_by     TEXT COLLATE "C",
    hold_reason TEXT COLLATE "C",
    begun       BYTEA,
    control     BYTEA,
    closing     BYTEA,
    unfollowed  TEXT COLLATE "C",
    user_id     BIGINT,
    forwards    BIGINT,
    booked      BIGINT  NOT NULL DEFAULT 0,
    content     BYTEA,
    terminal    BOOLEAN,
    files       BYTEA
);
CREATE INDEX recordings_started ON recordings (started);
CREATE INDEX recordings_device ON recordings (device, started);
CREATE INDEX recordings_user ON recordings (user_name, started);
CREATE INDEX recordings_user_id ON recordings (user_id, started);
CREATE INDEX recordings_open ON recordings (expected) WHERE chain_key IS NOT NULL;

CREATE TABLE recording_segments (
    recording BYTEA  NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    segment   BIGINT NOT NULL,
    length    BIGINT NOT NULL,
    hash      BYTEA  NOT NULL,
    PRIMARY KEY (recording, segment)
);

CREATE TABLE recording_forwards (
    recording BYTEA  NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    number    BIGINT NOT NULL,
    seen      BYTEA  NOT NULL,
    PRIMARY KEY (recording, number)
);

CREATE TABLE audit (
    id             BIGINT NOT NULL PRIMARY KEY,
    time           BIGINT NOT NULL,
    event          TEXT COLLATE "C" NOT NULL,
    user_name      TEXT COLLATE "C",
    key            TEXT COLLATE "C",
    email          TEXT COLLATE "C",
    client         TEXT COLLATE "C",
    relay          TEXT COLLATE "C",
    device         TEXT COLLATE "C",
    device_id      TEXT COLLATE "C",
    device_address TEXT COLLATE "C",
    login          TEXT COLLATE "C",
    session        TEXT COLLATE "C",
    outcome        TEXT COLLATE "C" NOT NULL,
    reason         TEXT COLLATE "C",
    more           TEXT COLLATE "C" NOT NULL
);
CREATE INDEX audit_time ON audit (time, id);
CREATE INDEX audit_event ON audit (event, time, id);
CREATE INDEX audit_user ON audit (user_name, time, id, event, device) WHERE user_name IS NOT NULL;
CREATE INDEX audit_device ON audit (device, time, id, event) WHERE device IS NOT NULL;
CREATE INDEX audit_device_id ON audit (device_id, time, id, event) WHERE device_id IS NOT NULL;
CREATE INDEX audit_session ON audit (session, time, id) WHERE session IS NOT NULL;

-- The highest id that the audit log ever had. An identity column leaves a gap where a transaction is rolled back, and a
-- gap is what shows that a row is missing.
CREATE TABLE audit_head (
    id BIGINT NOT NULL
);
INSERT INTO audit_head (id) VALUES (0);
CREATE FUNCTION audit_has_no_gap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_head SET id = id + 1 RETURNING id INTO NEW.id;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_has_no_gap BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_has_no_gap();

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit FOR EACH STATEMENT
    EXECUTE FUNCTION audit_is_append_only();
CREATE FUNCTION audit_is_never_cut() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.time >= (SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'audit_removed_before') THEN
        RAISE EXCEPTION 'the audit log is append-only';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_never_cut();
