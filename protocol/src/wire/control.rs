//! The messages of the control stream.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::release::ReleaseKey;
use crate::identity::roster::SignedRoster;
use crate::identity::token::TokenSecret;
use crate::ids::{DeviceId, DeviceName, Generation, LabelKey, LabelValue};

/// A message of an agent on its control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// First, always.
    Hello(Hello),
    /// After the relay's [`RelayMessage::Identity`] was checked against the token.
    Enrol(Enrol),
    /// "I am here". The only regular traffic of an idle tunnel.
    Beat(Beat),
    /// Before the `Hello` of a member: which run of the agent it is. An older relay skips it.
    Instance(Instance),
    /// Of a relay that joins the cluster, after the [`RelayMessage::Identity`] was checked against the token.
    EnrolRelay(EnrolRelay),
}

/// A message of a relay on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayMessage {
    /// The answer to a `Hello` that wants to join: who this relay is, before any secret is said.
    Identity(SignedRoster),
    /// The device is a member now.
    Enrolled(MembershipGrant),
    /// The answer to a `Hello` of a member: the tunnel is established.
    Welcome(Welcome),
    /// The answer to a `Hello` or `Enrol` that leads nowhere. The relay then closes the connection.
    Refused(Refusal),
    /// A newer roster.
    Roster(SignedRoster),
    /// The relay stops or drains: dial another one after this delay, in milliseconds, plus jitter. Since
    /// `DRAIN_MINOR` the tunnel is kept for the sessions over it.
    Drain(u32),
    /// The answer to a [`Beat`] that asked for one.
    Echo,
    /// The key that signs new versions of the agent: just before `Enrolled`, once in a device's life. An older agent
    /// skips it.
    ReleaseKey(ReleaseKey),
    /// The device has another name since its [`Welcome`]. An older agent skips it.
    Renamed(DeviceName),
    /// The relay that joins is a member of the cluster now. No device gets it.
    EnrolledRelay(RelayGrant),
}

/// Opens the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest minor version that the agent speaks; the lower of the two is used.
    pub minor: u16,
    /// The intent of the agent.
    pub intent: Intent,
    /// Its version, at most `MAX_VERSION_TEXT` bytes.
    pub agent_version: String,
    /// The target triple it was built for, at most `MAX_VERSION_TEXT` bytes.
    pub target: String,
    /// Seconds between two beats of an idle agent.
    pub keepalive_secs: u16,
    /// Its clock, in seconds since 1970: noted, never trusted.
    pub clock: i64,
    /// The address that it sends from, before any NAT.
    pub local_address: Option<SocketAddr>,
}

/// Identifies the run of an agent, so that the relay can distinguish a device that comes again from a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Random, made at the agent's start.
    pub id: [u8; 16],
    /// The hardware's identifier, hashed with the device's; `None` where it has none.
    pub machine: Option<[u8; 16]>,
}

/// The purpose of a new connection of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// To become a member of the fleet.
    Join,
    /// To stand as a tunnel.
    Run,
    /// To become a relay of the cluster.
    JoinRelay,
}

/// Asks for membership. The device's key is the one that it proved in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// From the token.
    pub secret: TokenSecret,
    /// The name it would like; the relay picks one otherwise.
    pub name: Option<DeviceName>,
    /// The device's own labels, which the token's override. At most `MAX_LABELS`.
    pub labels: Vec<(LabelKey, LabelValue)>,
}

/// Asks for membership of the cluster. The new relay's tunnel key is the one that it proved in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRelay {
    /// From the token.
    pub secret: TokenSecret,
    /// The `HOST` or `HOST:PORT` that others reach it by, at most `MAX_ADDRESS` bytes.
    pub public: String,
}

/// Membership of the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayGrant {
    /// The relay's identifier among the members.
    pub member: [u8; 16],
    /// Its name.
    pub name: String,
    /// The keys that all members have: names of files, and their contents. They are secret.
    pub keys: Vec<(String, Vec<u8>)>,
}

/// Shows no key.
impl fmt::Debug for RelayGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayGrant")
            .field("member", &self.member)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Membership of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipGrant {
    /// The device's identifier, for as long as it keeps its key.
    pub id: DeviceId,
    /// Its name, until an admin renames it.
    pub name: DeviceName,
    /// The relays that it may trust.
    pub roster: SignedRoster,
}

/// The tunnel is established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The minor version that both speak.
    pub minor: u16,
    /// Orders the tunnels of this device.
    pub generation: Generation,
    /// Id, present name and present roster.
    pub membership: MembershipGrant,
    /// The device's address as the relay sees it.
    pub observed_address: SocketAddr,
}

/// "I am here".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// True if the relay shall answer with an [`RelayMessage::Echo`]: what it sent before may have
    /// been lost on a dead path, and only an answer to something new makes QUIC notice at once.
    pub echo: bool,
}

/// The reason why a connection leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The device's key is in no registry: it never joined, or its entry was removed.
    UnknownDevice,
    /// An admin revoked this device.
    Revoked,
    /// The token's secret is unknown: it was removed, or belongs to another relay's store.
    TokenUnknown,
    /// Expired, so many seconds ago.
    TokenExpired {
        /// Seconds since it expired.
        ago_secs: u64,
    },
    /// All its uses are used.
    TokenUsedUp,
    /// Another device has this name.
    NameTaken {
        /// The name that was asked for.
        name: DeviceName,
        /// The device that has it.
        holder: DeviceId,
    },
    /// The relay does not speak with this agent's version.
    Version {
        /// The oldest minor version that it accepts.
        oldest: u16,
    },
    /// The relay cannot answer now (its store fails, or it is stopping): try again.
    Unavailable,
    /// Something that the protocol forbids, in words.
    Protocol(String),
    /// Another machine uses the same key, and keeps the tunnel. Only for an agent that said its [`Instance`].
    Cloned {
        /// The address of that one, as the relay sees it.
        holder: SocketAddr,
    },
}

/// The reason why a connection is closed: the application error code of QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong: the work is done, or the agent stops.
    Done = 0,
    /// A newer tunnel of the same device replaced this one.
    Replaced = 1,
    /// An admin revoked the device.
    Revoked = 2,
    /// The other end broke the protocol.
    Protocol = 3,
    /// The relay stops.
    Stopping = 4,
    /// The relay is loaded and takes no more connections now.
    Busy = 5,
    /// The agent starts again in a moment, as another version of itself.
    Upgrading = 6,
    /// Between relays: the one that dialled is no member of the cluster, or has left it.
    NoMember = 7,
}

impl Serialize for TokenSecret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for TokenSecret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(from).map(Self)
    }
}
