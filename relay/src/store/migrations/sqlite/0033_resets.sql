-- The QUIC connection id by which a device speaks on its tunnel: a relay that died without a word resets by it, at its
-- next start, what is left of the connection. NULL when the tunnel is closed in good order.
ALTER TABLE tunnels ADD COLUMN connection_id BLOB;
