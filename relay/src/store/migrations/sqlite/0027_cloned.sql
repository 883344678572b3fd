-- When a device was last seen to be two machines with one key, and the addresses of both, the first one's first.
ALTER TABLE devices ADD COLUMN cloned BIGINT;
ALTER TABLE devices ADD COLUMN cloned_first TEXT;
ALTER TABLE devices ADD COLUMN cloned_second TEXT;
