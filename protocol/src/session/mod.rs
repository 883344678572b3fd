//! The life of one session, as state machines. An `Open` asks for a process or for a forward, and each has a machine of
//! its own at both ends: [`DeviceProcess`] and [`DeviceForward`] on the device, [`RelayProcess`] and [`RelayForward`]
//! on the relay. Data does not pass through them; they say what may come when, and what follows from what.

mod device;
pub mod fence;
mod kind;
mod relay;

pub use device::{Departure, DeviceForward, DeviceProcess, ForwardAction, ProcessAction, opening};
pub use kind::ForwardKind;
pub use relay::{ForwardReport, ProcessReport, RelayForward, RelayProcess};

use thiserror::Error;

/// The other end sent something that has no place at this point of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionViolation {
    /// Anything before `Open`, or a second `Open`.
    #[error("a session begins with exactly one Open")]
    Open,
    /// `Accepted` or `Refused` twice, or anything of the session before them.
    #[error("a session is accepted or refused once, before anything else")]
    Answer,
    /// Data or a second end after the end of a stream.
    #[error("data after the end of its stream")]
    AfterEof,
    /// A frame that only the other direction carries.
    #[error("a frame that this direction does not carry")]
    Direction,
    /// A message that may come only once, a second time.
    #[error("a message that comes once came again")]
    Repeated,
    /// A message that this kind of session does not have.
    #[error("a message that this kind of session does not have")]
    Kind,
    /// An `Incoming` whose number does not follow the one before.
    #[error("a connection whose number does not follow the one before")]
    Number,
    /// Anything after `Exit`.
    #[error("a frame after the exit status")]
    AfterExit,
}
