-- How often the quotas of a relay refused since it began.
ALTER TABLE relays ADD COLUMN refused_connections BIGINT NOT NULL DEFAULT 0;
ALTER TABLE relays ADD COLUMN refused_sessions BIGINT NOT NULL DEFAULT 0;
ALTER TABLE relays ADD COLUMN refused_channels BIGINT NOT NULL DEFAULT 0;
