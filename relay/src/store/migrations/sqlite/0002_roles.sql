-- A role's body is a JSON object in the words of a policy document: it is always read and written whole.
-- The presets are in no table: they are the program's.
CREATE TABLE roles (
    name    TEXT   NOT NULL PRIMARY KEY,
    body    TEXT   NOT NULL,
    changed BIGINT NOT NULL
);

ALTER TABLE users ADD COLUMN email TEXT;

-- What a certificate may name a user by. One principal belongs to one user, as a key does.
CREATE TABLE user_principals (
    principal TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE
);
CREATE INDEX user_principals_user ON user_principals (user_name);

-- For "who has this role?"
CREATE INDEX user_roles_role ON user_roles (role);
