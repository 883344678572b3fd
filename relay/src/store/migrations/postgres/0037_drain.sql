-- What is left of a relay that drains. What a column means is said in the file of the same number for SQLite.
ALTER TABLE members ADD COLUMN drain_until BIGINT;

ALTER TABLE relays ADD COLUMN drain_tunnels BIGINT;
ALTER TABLE relays ADD COLUMN drain_sessions BIGINT;
