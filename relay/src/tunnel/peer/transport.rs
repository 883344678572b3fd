//! QUIC's parameters of a link. The relay that dials sets the idle timeout and the keep-alive for both; the other one has
//! those of tunnels until it knows that a member speaks.

use std::sync::Arc;

use holdfast_protocol::limits::ACK_EVERY;
use holdfast_protocol::tunnel::congestion::quinn::Factory;
use quinn::{AckFrequencyConfig, Connection, IdleTimeout, TransportConfig, VarInt};

use crate::tunnel::limits::STREAM_WINDOW;
use crate::tunnel::peer::limits::{
    MAX_PEER_STREAMS, PEER_IDLE_TIMEOUT, PEER_KEEPALIVE, PEER_SEND_WINDOW,
};

/// Returns those of a link that is dialled.
pub(super) fn dialled() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(PEER_IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(PEER_KEEPALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        // Each stream has its own bound, and their number has one: as with tunnels, a session whose client does not
        // read must not hold up the others.
        .receive_window(VarInt::MAX)
        .send_window(PEER_SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acknowledgements))
        .congestion_controller_factory(Arc::new(Factory));
    transport
}

/// Gives a link that a member has dialled the room of a link, in place of a tunnel's.
pub(super) fn widen(connection: &Connection) {
    connection.set_receive_window(VarInt::MAX);
    connection.set_send_window(PEER_SEND_WINDOW);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(MAX_PEER_STREAMS));
}
