-- Up to where the content of a session's streams is kept: the bound, and where each stream came to it. NULL: all of it is.
ALTER TABLE recordings ADD COLUMN content BLOB;
