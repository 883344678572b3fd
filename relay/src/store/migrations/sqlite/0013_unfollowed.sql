-- Why the relay could not follow the file operations of a session to its end.
ALTER TABLE recordings ADD COLUMN unfollowed TEXT;
