//! The restrictions of a session on the device, besides its recording.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::RecordingMode;
#[cfg(doc)]
use super::{ForwardRequest, Incoming};
use crate::ids::{Login, SessionId};

/// The restrictions of a session. The default restricts nothing, and is not sent.
///
/// On the wire these are two parts of an `Open` (`codec/open.rs`): the fields of minor version 3, which other parts
/// follow and which therefore never grow, and, behind all other parts, the fields since minor version 5, to which more
/// are appended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    /// The operations that an sftp session may do; `None`: those of its account.
    pub sftp: Option<SftpTerms>,
    /// True if the session gets a socket to the operator's SSH agent. What connects there is reported as [`Incoming`]
    /// of the session, and taken as what comes to a port.
    pub agent: bool,
    /// Logins that the operator's roles deny here: an account with the user id of one of them is refused, whatever its
    /// name. `root` is user id 0. At most `MAX_DENIED_LOGINS`. (Minor version 5.)
    pub denied_logins: Vec<Login>,
    /// The treatment of the process when its observer is lost. `None`: the relay does not say, and cannot tell an
    /// order to stop from a loss, so every reset of the stream is taken for an order. (Minor version 5.)
    pub on_disconnect: Option<OnDisconnect>,
    /// The bytes of content that the recording keeps of each stream, where the session has no terminal: the frame that
    /// reaches it is the last one, and what follows is digested only. `None`: all. (Minor version 5.)
    pub content_max: Option<u64>,
}

/// The treatment of a session's process when its observer is lost: the client went away, the relay restarted,
/// the tunnel was lost, or the agent restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDisconnect {
    /// As a closed connection under sshd: the input ends and the output is closed; a terminal hangs up, and the
    /// kernel sends HUP. Nothing else is sent.
    Hup,
    /// The process keeps its terminal; what it writes is discarded. Only its input ends.
    Leave,
    /// HUP to the process group, and KILL after a grace, as for an order to stop.
    Kill,
}

/// The operations that an sftp session may do. A device that knows of them serves such a session itself, whatever else
/// serves sftp there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftpTerms {
    /// True if it may change nothing.
    pub read_only: bool,
    /// The folder where its paths begin and end: absolute, at most `MAX_SFTP_ROOT` bytes.
    pub root: Option<String>,
}

/// Describes where a forward is recorded: its beginning before the first byte passes, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardLogRef {
    /// The session of the recording: a [`ForwardRequest::Log`] that is open.
    pub session: SessionId,
    /// The number of the forward in that recording.
    pub number: u32,
    /// The action if it can't be recorded: under `Strict` there is no forward, otherwise it goes on
    /// unrecorded.
    pub mode: RecordingMode,
}
