//! The end of a session: why it was ordered, how it came, and what becomes of the process.

use holdfast_protocol::limits::ON_DISCONNECT_MINOR;
use holdfast_protocol::session::SessionViolation;
use holdfast_protocol::wire::{CloseCode, Exit};
use quinn::{ConnectionError, VarInt};
use thiserror::Error;

use crate::model::role::OnDisconnect;

/// The exit status that OpenSSH's client gives for any failure of its own, and we for a session that did not happen or
/// was cut.
pub(crate) const FAILED: Exit = Exit::Status(255);

/// The close code of an agent that is replaced.
const UPGRADING: VarInt = VarInt::from_u32(CloseCode::Upgrading as u32);

/// The exit status that a shell gives for a command that is not there.
pub(crate) const NOT_FOUND: Exit = Exit::Status(127);

/// The reason why a session was ordered to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The cause, for reports.
    pub cause: Cause,
    /// The text that the operator reads behind `[holdfast] closed: `.
    pub why: String,
}

/// The cause that ends a session or a connection that would go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its idle timeout.
    Idle,
    /// Its longest duration is over.
    MaxSession,
    /// The time that its command was given is over.
    Timeout,
    /// Its operator gave it up.
    Interrupted,
    /// A lock.
    Locked,
    /// A user ended this one session.
    Killed,
    /// The user, their key, the roles or the device changed so that it is not allowed any more.
    Access,
    /// The relay stops.
    Stopping,
    /// The connection or the session that it belonged to is over.
    Over,
    /// It has to be recorded, and can't be any more.
    Unrecorded,
    /// The relay has lost its store for too long.
    StoreLost,
}

impl Ending {
    /// Returns the ending of what a change of access does not allow any more.
    #[must_use]
    pub(crate) fn access_changed() -> Self {
        Self {
            cause: Cause::Access,
            why: "your access to this relay was changed".into(),
        }
    }
}

impl Cause {
    /// Returns whether the process is to stop. A relay that stops, or has lost its store, only loses sight of it.
    #[must_use]
    pub(crate) const fn is_order(self) -> bool {
        !matches!(self, Self::Stopping | Self::StoreLost)
    }

    /// Returns its word in the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::MaxSession => "max-session",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Locked => "locked",
            Self::Killed => "killed",
            Self::Access => "access-changed",
            Self::Stopping => "relay-stopping",
            Self::Over => "session-over",
            Self::Unrecorded => "recording-unavailable",
            Self::StoreLost => "store-lost",
        }
    }
}

/// The way a session ended.
#[derive(Debug, Error)]
pub(crate) enum End {
    /// Its process did.
    #[error("exited: {0:?}")]
    Exited(Exit),
    /// The device or the relay started nothing, for the reason in this sentence.
    #[error("{0}")]
    Refused(String),
    /// The device said nothing at all.
    #[error("{0}")]
    NoAnswer(String),
    /// The client is gone.
    #[error("the client went away")]
    ClientGone,
    /// The relay ended it.
    #[error("{}", .0.why)]
    Ordered(Ending),
    /// The device's agent closed the tunnel, to be replaced.
    #[error("the device's agent was upgraded")]
    Upgrading,
    /// The tunnel is gone.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device said what it may not.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

impl From<&ConnectionError> for End {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == UPGRADING => {
                Self::Upgrading
            }
            _ => Self::DeviceLost(error.to_string()),
        }
    }
}

impl From<SessionViolation> for End {
    fn from(violation: SessionViolation) -> Self {
        Self::Protocol(violation.to_string())
    }
}

impl End {
    /// Returns whether the stream to the device came to its end in good order.
    #[must_use]
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Refused(_))
    }

    /// Returns whether the process is to stop, rather than only to lose its observer.
    #[must_use]
    pub(crate) fn is_order(&self) -> bool {
        match self {
            Self::Ordered(ending) => ending.cause.is_order(),
            Self::Exited(_) | Self::ClientGone | Self::Upgrading | Self::DeviceLost(_) => false,
            // The start was not observed, or what the process does is not to be trusted.
            Self::Refused(_) | Self::NoAnswer(_) | Self::Protocol(_) => true,
        }
    }

    /// Returns how the process ended; `None` if it did not by itself, or there was none.
    #[must_use]
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exited(exit) => Some(*exit),
            _ => None,
        }
    }
}

/// The state of a process that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It goes on, without its input.
    Left,
    /// Its terminal was hung up: what ignores HUP goes on.
    HungUp,
    /// It got HUP, and KILL if it did not end.
    Killed,
}

impl Process {
    /// Returns what the device does with a session's process; `None` if it has ended by itself.
    #[must_use]
    pub(crate) fn of(
        end: &End,
        on_disconnect: OnDisconnect,
        (terminal, minor): (bool, u16),
    ) -> Option<Self> {
        if matches!(end, End::Exited(_)) {
            return None;
        }
        // An older device cannot tell the loss of an observer from an order.
        let is_lost = !end.is_order() && minor >= ON_DISCONNECT_MINOR;
        Some(match on_disconnect {
            OnDisconnect::Leave if is_lost => Self::Left,
            OnDisconnect::Hup if is_lost && terminal => Self::HungUp,
            OnDisconnect::Hup if is_lost => Self::Left,
            OnDisconnect::Leave | OnDisconnect::Hup | OnDisconnect::Kill => Self::Killed,
        })
    }

    /// Returns its word in the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::HungUp => "hung-up",
            Self::Killed => "killed",
        }
    }
}
