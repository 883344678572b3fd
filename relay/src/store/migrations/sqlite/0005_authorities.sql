-- Certificate authorities whose user certificates are taken. The fingerprint is `SHA256:…`.
CREATE TABLE authorities (
    fingerprint TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL UNIQUE,
    public_key  TEXT   NOT NULL,
    comment     TEXT   NOT NULL,
    added       BIGINT NOT NULL
);

-- What is revoked: a key (`value` is its fingerprint, SHA256 or SHA1), certificates by serial number
-- (`first` to `last`, eight bytes each in network order, so that bytes compare as numbers), or certificates
-- by key id (`value`). `authority` is the fingerprint of who signed them; empty: whoever did.
CREATE TABLE revocations (
    id        BIGINT NOT NULL PRIMARY KEY,
    kind      TEXT   NOT NULL,
    authority TEXT   NOT NULL,
    value     TEXT   NOT NULL,
    first     BLOB   NOT NULL,
    last      BLOB   NOT NULL,
    added     BIGINT NOT NULL,
    UNIQUE (kind, value, authority, first, last)
);
CREATE INDEX revocations_serials ON revocations (kind, authority, first);
