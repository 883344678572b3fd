//! The refusal of something that an operator asks for: one value from the decision to the edge. Its text is for the
//! operator, and is made where it leaves the relay.

pub(crate) mod device;

use holdfast_protocol::ids::{DeviceName, UserName};
use holdfast_protocol::limits::{MAX_DENIED_LOGINS, MAX_FORWARD_HOST, MAX_SOCKET_PATH};
use thiserror::Error;

use crate::access::decision::Denied;
use crate::access::recording::Unrecordable;
use crate::audit::AuditError;
use crate::clock::Timestamp;
use crate::model::lock::Lock;
use crate::model::quota::Full;
use crate::model::sftp::RootsApart;
use crate::session::client::lease::LeaseError;
use crate::session::client::target::TargetError;
use crate::session::ending::Ending;
use crate::session::limits::{MAX_AGENT_CHANNELS, MAX_LISTENERS};
use crate::store::Device;

/// The reason why something is not done.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// The client has proved no user.
    #[error("no user is authenticated on this connection")]
    NotAuthenticated,
    /// The rules do not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A lock is in the way.
    #[error("{}", .0.refusal())]
    Locked(Box<Lock>),
    /// A quota is full.
    #[error(transparent)]
    Full(#[from] Full),
    /// The user has as many sessions as they may.
    #[error("{full}: close one, or see `{console} sessions`")]
    FullSessions {
        /// The quota.
        full: Full,
        /// The beginning of a console command.
        console: String,
    },
    /// There is no slot.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The audit log takes nothing.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store does not answer.
    #[error("the relay's store does not answer: try again in a minute")]
    Store,
    /// The system gives no random numbers.
    #[error("the relay has no random numbers")]
    Random,
    /// The request was allowed and is not allowed any more.
    #[error("your access to this relay was changed")]
    AccessChanged,
    /// The user is gone.
    #[error("user \"{0}\" was removed")]
    UserRemoved(UserName),
    /// The client is about to be closed.
    #[error("{}", .0.why)]
    Closing(Ending),
    /// The request names nothing.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The device has no tunnel.
    #[error("{}", device::offline(.device, *.now, .console))]
    Offline {
        /// The device.
        device: Box<Device>,
        /// The time at which it was looked for.
        now: Timestamp,
        /// The beginning of a console command.
        console: String,
    },
    /// The device has its tunnel at another relay, which cannot be reached.
    #[error("{device} is connected to relay {relay}, which this relay cannot reach {failure}")]
    RelayOfDevice {
        /// The device.
        device: DeviceName,
        /// The name of the relay.
        relay: String,
        /// The reason, in brackets, and the remedy.
        failure: String,
    },
    /// mosh needs a way that there is not.
    #[error("{}", device::mosh(.0))]
    Mosh(DeviceName),
    /// The device's agent cannot do it.
    #[error("the agent on {device} is too old to {what}: update it")]
    OldAgent {
        /// The device.
        device: DeviceName,
        /// The thing that it cannot do.
        what: String,
    },
    /// The user's roles name more logins than a request can carry.
    #[error(
        "the roles of user \"{user}\" deny {count} logins between them; the maximum is {MAX_DENIED_LOGINS}: tell an admin"
    )]
    DeniedLogins {
        /// The user with these roles.
        user: UserName,
        /// The number of logins.
        count: usize,
    },
    /// The user's roles name more addresses or paths than a request can carry.
    #[error(
        "the roles of user \"{0}\" name more addresses or paths between them than a forward can carry: tell an admin"
    )]
    ForwardRules(UserName),
    /// The user's roles restrict sftp to folders of which none lies within the other.
    #[error(transparent)]
    Roots(#[from] RootsApart),
    /// The certificate does not permit it.
    #[error("your certificate does not permit {0}")]
    Certificate(&'static str),
    /// The certificate forces a command.
    #[error("your certificate forces a command, so you may not give others to a fleet")]
    ForcedCommand,
    /// It has to be recorded and cannot be.
    #[error(transparent)]
    Unrecordable(#[from] Unrecordable),
    /// The device could not do it.
    #[error(transparent)]
    Forward(Box<ForwardEnd>),
    /// No TCP port has this number.
    #[error("there is no port {0}")]
    Port(u32),
    /// The host is longer than any.
    #[error("a host has at most {MAX_FORWARD_HOST} bytes")]
    Host,
    /// The path is none that a Unix socket can have.
    #[error("a Unix socket is named by an absolute path of at most {MAX_SOCKET_PATH} bytes")]
    SocketPath,
    /// An SSH agent is no place to listen on.
    #[error("an SSH agent is not a port")]
    AgentIsNoPort,
    /// The session has as many channels to the SSH agent as it may.
    #[error("a session has at most {MAX_AGENT_CHANNELS} of them at once")]
    AgentChannels,
    /// The client has as many ports as it may.
    #[error("too many forwarded ports on one connection (max {MAX_LISTENERS})")]
    Listeners,
    /// The client has as many channels as any may.
    #[error("too many {what} on one connection (max {most})")]
    Channels {
        /// The kind of channel.
        what: &'static str,
        /// The maximum.
        most: usize,
    },
    /// It is asked of the relay itself, which does not do it.
    #[error("the relay {0}: name a device")]
    NotAtRelay(&'static str),
    /// A request came after the session had begun.
    #[error("the session has begun without it")]
    Begun,
    /// No device that the user may reach is meant.
    #[error("no device that you may reach matches \"{0}\": `devices` shows their labels")]
    NoDevices(String),
    /// The name is not a device's.
    #[error("it is not a device")]
    NotADevice,
    /// Another device has the name now.
    #[error("another device has this name now")]
    OtherDevice,
    /// A sentence of a command.
    #[error("{0}")]
    Command(String),
}

/// The way a forward ended.
#[derive(Debug, Error)]
pub(crate) enum ForwardEnd {
    /// Both ends have said all.
    #[error("closed")]
    Closed,
    /// Its target broke it off.
    #[error("the target broke the connection off")]
    BrokenOff,
    /// The operator's client broke it off.
    #[error("the client broke the connection off")]
    ClientGone,
    /// The relay ended it.
    #[error("{}", .0.why)]
    Ordered(Ending),
    /// It is refused.
    #[error(transparent)]
    Refused(Refusal),
    /// A rule forbids it, as the device says.
    #[error("{0}")]
    Prohibited(String),
    /// The device could not make it.
    #[error("{0}")]
    Failed(String),
    /// The tunnel is gone.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device said what it may not.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

impl From<ForwardEnd> for Refusal {
    fn from(end: ForwardEnd) -> Self {
        Self::Forward(Box::new(end))
    }
}
