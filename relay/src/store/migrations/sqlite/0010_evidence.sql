-- What a recording is compared with: what its session was begun with, the sizes and signals that were passed on, and
-- how it ended. NULL: not kept by the relay that ran the session, or `closing`: the relay was killed before it did.
ALTER TABLE recordings ADD COLUMN begun BLOB;
ALTER TABLE recordings ADD COLUMN control BLOB;
ALTER TABLE recordings ADD COLUMN closing BLOB;
