-- The time at which a member that drains closes the sessions that are left.
ALTER TABLE members ADD COLUMN drain_until BIGINT;

-- The devices' tunnels that a run which drains still has, and the sessions with operators or devices at it; NULL: it does
-- not drain, as far as it knows.
ALTER TABLE relays ADD COLUMN drain_tunnels BIGINT;
ALTER TABLE relays ADD COLUMN drain_sessions BIGINT;
