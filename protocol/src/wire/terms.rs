//! What a session is held to on the device, besides its recording.

use alloc::string::String;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Incoming;

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
