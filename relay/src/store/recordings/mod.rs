//! Recordings: whose, of what, where they stand, and which of their segments are stored.

mod facts;
mod read;
mod rows;
mod write;

use holdfast_protocol::ids::UserName;
use holdfast_protocol::recording::chain::{
    ChainKey, Closing, ContentPoints, ControlDigest, SeenFiles, SessionStart, StreamDigest,
};
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::clock::Timestamp;
use crate::store::sessions::facts::SessionFacts;

pub(crate) use facts::{RecordingFacts, RecordingRow, recorded_kind};
pub(crate) use read::RecordingFilter;

/// The state of a recording, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordingState {
    /// The session runs.
    Recording,
    /// It has ended; not everything has come.
    Uploading,
    /// Everything has come, and nothing contradicts it.
    Complete,
    /// It ends early.
    Truncated,
    /// It is not what was recorded, or not what the relay saw.
    Tampered,
    /// Nothing of it came, and nothing will.
    Lost,
}

impl RecordingState {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Recording,
        Self::Uploading,
        Self::Complete,
        Self::Truncated,
        Self::Tampered,
        Self::Lost,
    ];

    /// Returns its word.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Uploading => "uploading",
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Tampered => "tampered",
            Self::Lost => "lost",
        }
    }

    /// Returns whether it stays so for good.
    #[must_use]
    pub(crate) const fn is_terminal(self) -> bool {
        !matches!(self, Self::Recording | Self::Uploading)
    }
}

/// A recording that begins.
#[derive(Clone, Debug)]
pub(crate) struct NewRecording {
    /// The session's facts.
    pub session: SessionFacts,
    /// The key of its streams' digests.
    pub key: ChainKey,
    /// The parameters that the session is begun with.
    pub begun: SessionStart,
    /// The digests before anything has passed.
    pub seen: SeenSession,
}

/// The digests of what the relay has seen pass of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenSession {
    /// The digests of its three streams.
    pub streams: [StreamDigest; 3],
    /// The digest of what is sent beside them.
    pub control: ControlDigest,
    /// The maximum that the records of its file operations or forwards take.
    pub booked: u64,
    /// The number of forwards that have a number in it.
    pub forwards: u32,
    /// The points up to which the content of the streams is kept; `None`: all of it is.
    pub content: Option<ContentPoints>,
    /// The file operations of sftp; `None` of any other session.
    pub files: Option<SeenFiles>,
}

/// A legal hold: the recording stays until it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The time since which it holds.
    pub since: Timestamp,
    /// The user who placed it; `None`: a command at the relay itself.
    pub by: Option<UserName>,
    /// The reason; may be empty. Escape it.
    pub reason: String,
}

/// A verdict, and what signs it.
#[derive(Clone, Debug)]
pub(crate) struct SignedVerdict {
    /// The text.
    pub text: String,
    /// The cluster key's signature on it.
    pub signature: [u8; 64],
    /// True if everything is proved.
    pub verified: bool,
}

/// The end of a recorded session, as the relay saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    /// The time of the end.
    pub ended: Timestamp,
    /// The way it closed, with the exit status if there is one.
    pub closing: Closing,
    /// True if the device started nothing.
    pub refused: bool,
    /// The time by which its recording is expected.
    pub expected: Timestamp,
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| corrupt())
}

fn corrupt() -> StoreError {
    StoreError::Corrupt("a recording")
}
