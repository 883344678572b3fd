-- Which token a device enrolled with, so that revoking the device can name what is left of it. NULL for devices that
-- enrolled before this was kept. Not a reference: a token may be removed, and its identifier stays true.
ALTER TABLE devices ADD COLUMN token TEXT;
