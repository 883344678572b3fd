//! The relay's own row of the session, which a recording is compared with. Nothing in here comes from the device.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ChainKey, ContentPoints, SeenFiles, SeenForwards, StreamDigest, Tag};
use crate::ids::{DeviceId, Login, UserName};
use crate::recording::digest::Mac;
use crate::wire::{
    Exit, ProcessRequest, Pty, RecordingTerms, SFTP, SessionRequest, Signal, WindowSize,
};

/// The relay's facts of a session that was recorded.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The operator.
    pub user: UserName,
    /// The device that was asked to record.
    pub device: DeviceId,
    /// The account on the device.
    pub login: Login,
    /// The operator's address.
    pub client: SocketAddr,
    /// The kind of the session.
    pub kind: RecordedKind,
    /// The facts that it was begun with; `None` where an older relay did not keep them.
    pub begun: Option<SessionStart>,
    /// The digests of the three streams.
    pub seen: [StreamDigest; 3],
    /// The sizes and signals that were passed on; `None` where an older relay did not keep them.
    pub control: Option<ControlDigest>,
    /// The points up to which the content of the streams is kept; `None`: all of it is.
    pub content: Option<ContentPoints>,
    /// The session's end; `None` if the relay was killed before it kept that. What it saw pass may then be
    /// older than the end.
    pub closing: Option<Closing>,
    /// The relay's facts of each forward in a recording of forwards; `None` of any other recording, and where an
    /// older relay did not keep it.
    pub forwards: Option<SeenForwards>,
    /// The file operations that the relay has seen; `None` of any session but sftp, and where an older relay did not
    /// keep them.
    pub files: Option<SeenFiles>,
}

/// The kind of a session, as far as it decides what its recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedKind {
    /// A shell.
    Shell,
    /// A command.
    Exec,
    /// File transfer.
    Sftp,
    /// The forwards of one connection.
    Forwards,
}

/// The facts that a session was begun with. Command and environment are kept as keyed tags alone: when the relay
/// erases the session's key, nothing can be guessed from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStart {
    /// Length and tag of the command line.
    pub command: Option<(u64, Tag)>,
    /// The subsystem.
    pub subsystem: Option<String>,
    /// `TERM` and the terminal's size.
    pub terminal: Option<(String, WindowSize)>,
    /// The names of the environment, each with the tag of name and value.
    pub env: Vec<(String, Tag)>,
    /// The terms of its recording: everything of the terms but the key.
    pub mode: crate::wire::RecordingMode,
    /// The part of stdin that was to be recorded.
    pub stdin: crate::wire::StdinMode,
    /// True if the session was let begin although it might not be recorded.
    pub recover: bool,
}

/// Describes how a session ended, as the relay saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The exit status that the relay passed on; `None`: the session was cut off before one came.
    pub exit: Option<Exit>,
}

/// A message of the relay on a session beside data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum SentControl {
    /// The terminal's new size.
    Resize(WindowSize),
    /// A signal.
    Signal(Signal),
}

/// The digest of sizes and signals, each bound to its place among the frames of stdin. Where a recording does not hold
/// the data, that place is always 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlDigest {
    /// The chain of them.
    pub seen: StreamDigest,
    /// Frames of stdin before its end, if its end was sent.
    pub eof: Option<u64>,
}

impl RecordedKind {
    /// Returns whether a recording of this kind holds the streams' data. Of a subsystem the name decides.
    #[must_use]
    pub fn holds_data(self, begun: Option<&SessionStart>) -> bool {
        let subsystem = begun.and_then(|begun| begun.subsystem.as_deref());
        match self {
            Self::Shell | Self::Exec => true,
            Self::Sftp => subsystem.is_some_and(|name| name != SFTP),
            Self::Forwards => false,
        }
    }
}

impl SessionStart {
    /// Returns whether its recording may lack what found no room.
    pub(super) fn may_have_gaps(&self) -> bool {
        self.mode != crate::wire::RecordingMode::Strict || self.recover
    }

    /// Returns what a session is begun with.
    #[must_use]
    pub fn of(
        request: &SessionRequest,
        pty: Option<&Pty>,
        env: &[(String, String)],
        terms: &RecordingTerms,
    ) -> Self {
        let key = &terms.key;
        let tagged = |(name, value): &(String, String)| (name.clone(), env_tag(key, name, value));
        Self {
            command: match request.process() {
                Some(ProcessRequest::Exec(command)) => {
                    let mut tag = command_tag(key);
                    tag.update(command);
                    Some((command.len() as u64, tag.finalize()))
                }
                _ => None,
            },
            subsystem: match request.process() {
                Some(ProcessRequest::Subsystem(name)) => Some(name.to_string()),
                _ => None,
            },
            terminal: pty.map(|pty| (pty.term.clone(), pty.size)),
            env: env.iter().map(tagged).collect(),
            mode: terms.mode,
            stdin: terms.stdin,
            recover: terms.recover,
        }
    }
}

impl SentControl {
    /// Returns the frame that represents it on the chain, behind so many frames of stdin.
    #[must_use]
    pub fn frame(self, stdin: u64) -> Vec<u8> {
        // Numbers and enums always can be encoded.
        postcard::to_allocvec(&(stdin, self)).unwrap_or_default()
    }
}

/// Takes a command line, in any pieces.
pub(super) fn command_tag(key: &ChainKey) -> Mac {
    let mut mac = Mac::new(&key.0);
    mac.update(&[3]);
    mac
}

pub(super) fn env_tag(key: &ChainKey, name: &str, value: &str) -> Tag {
    let mut mac = Mac::new(&key.0);
    mac.update(&[4]);
    mac.update(&(name.len() as u64).to_be_bytes());
    mac.update(name.as_bytes());
    mac.update(value.as_bytes());
    mac.finalize()
}
