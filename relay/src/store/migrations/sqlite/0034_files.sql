-- What the relay has seen of the file operations of an sftp session: a recording is compared with it. NULL: of no such
-- session, or an older relay began it and kept none.
ALTER TABLE recordings ADD COLUMN files BLOB;
