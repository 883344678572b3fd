//! Recordings: what happens in a session is written into the spool before anybody sees it, and goes to the
//! relay when the link has room.
//!
//! The rules stand in [`holdfast_protocol::recording`]. Here are the folder ([`spool_fs`]), the thread that
//! writes into it ([`recorder`]), a session's way into it (`session`), and the stream to the relay
//! ([`upload`]).

mod adopted;
mod boot;
mod clock;
mod commands;
pub(crate) mod limits;
mod recorder;
mod session;
mod sftp;
pub mod spool_fs;
mod status;
pub mod upload;

pub use recorder::{Recorder, RecorderConfig, RecordingDevice};
pub use status::SpoolStatus;

pub(crate) use recorder::NotRecordable;
pub(crate) use recorder::forwards::{ByteCounters, ForwardBeginning, LoggedForward};
pub(crate) use session::Recording;
