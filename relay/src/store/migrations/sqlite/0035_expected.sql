-- Each tunnel's list of recordings asks for those that a device has not delivered: the settled ones of years are not
-- looked at.
CREATE INDEX recordings_expected ON recordings (device, started) WHERE chain_key IS NOT NULL;
