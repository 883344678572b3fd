//! A device of the fleet, as it was at the time of a look-up.

use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, DeviceName, PublicKey};

use crate::clock::Timestamp;
use crate::model::labels::Labels;
use crate::model::limits::CLONE_MEMORY;

/// A device of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The id, which it has for as long as it keeps its key.
    pub id: DeviceId,
    /// Unique among the devices that are not revoked.
    pub name: DeviceName,
    /// The key that it proves on the tunnel.
    pub key: PublicKey,
    /// The admin's words about it.
    pub labels: Labels,
    /// The time at which it joined.
    pub enrolled: Timestamp,
    /// The presence: whether it can be reached, at the time of the look-up.
    pub presence: Presence,
    /// The agent's version, as it last said: from outside, so escape it.
    pub agent_version: String,
    /// The agent's target triple, as it last said: from outside, so escape it.
    pub target: String,
    /// The time at which it was last seen to be two machines with one key, and the addresses of both.
    pub cloned: Option<ClonedDevice>,
    /// The token that it enrolled with; `None` if that was before the store kept it.
    pub token: Option<String>,
    /// The time at which an admin revoked it. Such a device may do nothing and nothing may reach it.
    pub revoked: Option<Timestamp>,
}

/// Two machines that are one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClonePair {
    /// The address of the one that was there first.
    pub first: SocketAddr,
    /// The address of the second one.
    pub second: SocketAddr,
}

/// A device that is two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClonedDevice {
    /// The time at which they were last seen at odds.
    pub seen: Timestamp,
    /// The addresses of both.
    pub pair: ClonePair,
}

impl ClonedDevice {
    /// Returns whether it is so still, for all that is known.
    #[must_use]
    pub(crate) fn is_current(&self, now: Timestamp) -> bool {
        now.since(self.seen) < CLONE_MEMORY
    }
}

/// The presence of a device: whether it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    /// The verdict.
    pub state: PresenceState,
    /// The time since which it is offline; `None` if it is online or never had a tunnel.
    pub since: Option<Timestamp>,
    /// The time at which it was last heard on a tunnel.
    pub last_seen: Option<Timestamp>,
    /// The address that it was last heard from.
    pub address: Option<SocketAddr>,
}

/// The verdict about a device's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PresenceState {
    /// Its tunnel is established on a living relay.
    Online,
    /// Its tunnel is established, but two keepalives passed without a word.
    Stale,
    /// It has no tunnel.
    Offline,
}

impl PresenceState {
    /// Returns the word for listings.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }
}
