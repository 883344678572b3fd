//! The records of each forward in a shared log.

use core::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};

/// The target of a forward that leads to the operator's SSH agent, which has no address.
pub const SSH_AGENT: &str = "ssh-agent";

/// A forwarded connection began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardOpened<'a> {
    /// Its number within the recording.
    pub id: u32,
    /// `host:port` or the path of a socket, as it was asked for; of a connection that has come, where it has come to.
    pub to: &'a str,
    /// The peer, as the kernel reports it; empty where the device dials or listens.
    pub from: &'a str,
    /// The direction.
    #[serde(deserialize_with = "or_default")]
    pub direction: ForwardDirection,
    /// The meaning of `to` on the device: what was dialled, or is listened on. A path has none.
    #[serde(deserialize_with = "or_default")]
    pub address: Option<SocketAddr>,
}

/// The direction of a forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardDirection {
    /// The device has dialled.
    #[default]
    Out,
    /// The device listens; nothing passes on this one itself.
    Listen,
    /// A connection was accepted where it listens.
    In,
}

/// A forwarded connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardClosed {
    /// The number that [`ForwardOpened`] gave.
    pub id: u32,
    /// Bytes to the place that was connected to.
    pub sent: u64,
    /// Bytes that came from it.
    pub received: u64,
    /// The reason of the end.
    #[serde(deserialize_with = "or_default")]
    pub why: ForwardEnding,
}

/// Describes how a forward ended, as the device saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardEnding {
    /// Both sides have said all.
    #[default]
    Closed,
    /// Its target broke it off.
    BrokenOff,
    /// The relay ended it, or its client went away.
    ClientGone,
    /// The tunnel was lost.
    TunnelLost,
    /// The recording ended before it did.
    StillOpen,
}

/// Returns a field that was appended to the last struct of a record: what was written before it ends there.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(T::deserialize(from).unwrap_or_default())
}
