-- The audit log. Its ids grow by one with each row and are never given again, so that a row that is missing
-- shows. `more` is a JSON object: what the event adds to the columns that all events share.
CREATE TABLE audit (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    time           BIGINT NOT NULL,
    event          TEXT   NOT NULL,
    user_name      TEXT,
    key            TEXT,
    email          TEXT,
    client         TEXT,
    relay          TEXT,
    device         TEXT,
    device_id      TEXT,
    device_address TEXT,
    login          TEXT,
    session        TEXT,
    outcome        TEXT   NOT NULL,
    reason         TEXT,
    more           TEXT   NOT NULL
);

-- Each way of asking has an index in the order of the answer. The columns behind the order let a second
-- condition be judged without a look at the row.
CREATE INDEX audit_time ON audit (time, id);
CREATE INDEX audit_event ON audit (event, time, id);
CREATE INDEX audit_user ON audit (user_name, time, id, event, device) WHERE user_name IS NOT NULL;
CREATE INDEX audit_device ON audit (device, time, id, event) WHERE device IS NOT NULL;
CREATE INDEX audit_device_id ON audit (device_id, time, id, event) WHERE device_id IS NOT NULL;
CREATE INDEX audit_session ON audit (session, time, id) WHERE session IS NOT NULL;

-- Append-only: nothing in this program can change a row, and only what retention has named before goes.
INSERT INTO meta (key, value) VALUES ('audit_removed_before', '0');
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit
WHEN OLD.time >= (SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'audit_removed_before')
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
