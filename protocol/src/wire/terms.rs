//! What a session is held to on the device, besides its recording.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::RecordingMode;
#[cfg(doc)]
use super::{Incoming, Work};
use crate::ids::SessionId;

/// What a session is held to. The default holds it to nothing, and is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    /// What an sftp session may do; `None`: what its account may.
    pub sftp: Option<SftpTerms>,
    /// Whether the session gets a socket to the operator's SSH agent. What connects there is told as [`Incoming`]
    /// of the session, and taken as what comes to a port.
    pub agent: bool,
}

/// What an sftp session may do. A device that knows of it serves such a session itself, whatever else
/// serves sftp there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftpTerms {
    /// Whether it may change nothing.
    pub read_only: bool,
    /// The folder where its paths begin and end: absolute, at most `MAX_SFTP_ROOT` bytes.
    pub root: Option<String>,
}

/// Where a forward is told: its beginning before the first byte passes, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldIn {
    /// The session of the recording: one of [`Work::Forwards`] that stands.
    pub session: SessionId,
    /// Which of that recording's forwards it is.
    pub number: u32,
    /// What happens if it can't be told: under `Strict` there is no forward, otherwise it goes on untold.
    pub mode: RecordingMode,
}
