-- A name is given again, an id never is: what belongs to a person belongs to an id. AUTOINCREMENT: no id comes twice.
CREATE TABLE user_ids (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name    TEXT    NOT NULL,
    created BIGINT  NOT NULL
);
ALTER TABLE users ADD COLUMN id BIGINT NOT NULL DEFAULT 0;
INSERT INTO user_ids (name, created) SELECT name, created FROM users ORDER BY created, name;
UPDATE users SET id = (SELECT u.id FROM user_ids u WHERE u.name = users.name);
CREATE TRIGGER users_have_ids AFTER INSERT ON users
BEGIN
    INSERT INTO user_ids (name, created) VALUES (NEW.name, NEW.created);
    UPDATE users SET id = (SELECT MAX(id) FROM user_ids) WHERE name = NEW.name;
END;

-- Whose a recording is. One that is older than the user of its name belonged to somebody else.
ALTER TABLE recordings ADD COLUMN user_id BIGINT;
UPDATE recordings SET user_id = (SELECT u.id FROM users u
    WHERE u.name = recordings.user_name AND u.created <= recordings.started);
CREATE INDEX recordings_user_id ON recordings (user_id, started);

-- Sessions that live end with the user, within a second; until then they belong to nobody else.
ALTER TABLE sessions ADD COLUMN user_id BIGINT;
