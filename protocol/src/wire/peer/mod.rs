//! The messages between two relays of a cluster, ALPN [`PEER_ALPN`]. `docs/protocol.md` describes when each is sent.
//!
//! The relay of the operator dials and opens the streams; the relay that has the device's tunnel joins each to a stream
//! of the tunnel. They are framed as control messages ([`crate::codec::control`]), and grow as those do: variants and
//! fields are only appended. Golden bytes in `wire/peer/tests.rs` hold that.

mod reset;

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Generation};
#[cfg(doc)]
use crate::limits::PEER_ALPN;

pub use self::reset::TunnelLoss;

/// A message between two relays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// The first message of the relay that dials, on its first stream.
    Hello(PeerHello),
    /// The answer to it: the link is established.
    Welcome(PeerWelcome),
    /// The first message on each further stream.
    Open(PeerOpen),
    /// The answer to an [`PeerPurpose::Facts`].
    Facts(PeerFacts),
    /// The answer to any other: what follows in both directions are the bytes of a session's stream.
    Opened,
    /// There is no such stream.
    Refused(PeerRefused),
    /// The device was heard since the message before. Only behind [`PeerMessage::Facts`].
    Heard(PeerHeard),
}

/// Says who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The newest minor version that it speaks; the lower of the two is used.
    pub minor: u16,
}

/// The link is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWelcome {
    /// The minor version that both speak.
    pub minor: u16,
}

/// Asks for a stream to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOpen {
    /// The device.
    pub device: DeviceId,
    /// The tunnel that is meant: with another one the answer is [`PeerRefused::NotHere`].
    pub generation: Generation,
    /// The purpose of the stream.
    pub purpose: PeerPurpose,
}

/// The purpose of a stream between two relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerPurpose {
    /// To learn of the tunnel, until it ends.
    Facts,
    /// A session without a terminal.
    Session,
    /// A session with a terminal.
    Terminal,
    /// A forward, a port, or a recording of forwards.
    Forward,
}

/// The facts about a device's tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// The minor version that the device and its relay speak.
    pub minor: u16,
    /// The seconds by which the device's clock was ahead.
    pub clock_skew: i64,
    /// The address that the device sends from, before any NAT, as it says.
    pub local_address: Option<SocketAddr>,
    /// The addresses of the two machines that use the device's key, if there are two.
    pub clones: Option<(SocketAddr, SocketAddr)>,
    /// The state of the tunnel now.
    pub heard: PeerHeard,
}

/// The state of a device's tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHeard {
    /// The milliseconds for which the device has been silent.
    pub silent_ms: u64,
    /// The microseconds that a packet takes to the device and back.
    pub rtt_us: u32,
}

/// The reason why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRefused {
    /// The device has no tunnel of this generation here.
    NotHere,
    /// The device takes no more streams.
    Busy,
    /// The relay stops.
    Stopping,
}

#[cfg(test)]
mod tests;
