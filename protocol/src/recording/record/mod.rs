//! Records: what a recording says, in the order in which it happened.
//!
//! postcard, as on the wire: variants are only appended, new fields go to the end of a variant's struct.
//! Each record follows its length, so that a reader skips the kinds that it does not know. Records
//! borrow what they hold, from the session when they are written and from the block when they are read.

mod codec;
mod file;
mod forward;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::codec::{RecordError, decode};
pub use self::file::{FileKind, FileOperation};
pub use self::forward::{ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, SSH_AGENT};
use super::digest::{DigestPoint, Tag};
use crate::codec::frame::DataStream;
use crate::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
use crate::limits::{MAX_ENV, MAX_ENV_NAME, MAX_RECORD_COMMAND};
pub use crate::wire::EndReason;
use crate::wire::{
    Exit, ProcessRequest, RecordingMode, SessionRequest, Signal, StdinMode, WindowSize,
};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Microseconds since the record before it, of a clock that never goes back. The first has 0.
    pub delta: u64,
    /// The event.
    #[serde(borrow)]
    pub event: Event<'a>,
}

/// The event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event<'a> {
    /// First, once.
    #[serde(borrow)]
    Start(RecordingStart<'a>),
    /// More bytes of the command line that [`RecordingStart`] began.
    CommandLine(RecordedBytes<'a>),
    /// A whole frame, or the last part of one.
    Data(Stream, RecordedBytes<'a>),
    /// A part of a frame; another of the same stream follows.
    Part(Stream, RecordedBytes<'a>),
    /// A frame of stdin that was typed while the terminal's echo was off.
    Redacted(Redacted),
    /// No more data comes on this stream.
    Eof(Stream),
    /// The terminal's new size.
    Resize(WindowSize),
    /// A signal that the operator sent.
    Signal(Signal),
    /// The exit of the process.
    Exit(Exit),
    /// One operation of file transfer.
    File(FileOperation<'a>),
    /// A forwarded connection began.
    ForwardOpened(ForwardOpened<'a>),
    /// A forwarded connection ended.
    ForwardClosed(ForwardClosed),
    /// Here data is missing.
    Gap(Gap),
    /// A process of the session ran a program.
    Command(CommandRun<'a>),
    /// A process of the session ended.
    CommandExit(CommandExit),
    /// There are no [`Event::Command`] records, for this reason, in a word or two.
    CommandsUnavailable(&'a str),
    /// Last, once.
    End(RecordingEnd),
    /// From here on there are no [`Event::File`] records, whatever is done with files, for this reason.
    FilesUnfollowed(&'a str),
    /// Environment variables that were asked for, and that the session did not get.
    #[serde(borrow)]
    EnvironmentRefused(EnvironmentRefused<'a>),
    /// The content of a stream is kept up to here, and what follows is digested only.
    ContentEnds(ContentEnds),
}

/// The number of kinds of events that this version knows.
pub(super) const KNOWN_EVENTS: u8 = 20;

/// The session, its device and operator, its work, and the time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingStart<'a> {
    /// The session.
    pub session: SessionId,
    /// The device that records.
    pub device: DeviceId,
    /// Its name, as far as it knew.
    pub name: DeviceName,
    /// Its version.
    pub agent: &'a str,
    /// The operator.
    pub user: UserName,
    /// The account on the device.
    pub login: Login,
    /// The work that was asked for.
    #[serde(borrow)]
    pub work: StartedWork<'a>,
    /// The pseudo-terminal, if there is one.
    #[serde(borrow)]
    pub terminal: Option<RecordedTerminal<'a>>,
    /// The environment that was asked for, names and values.
    #[serde(borrow)]
    pub env: Vec<(&'a str, &'a str)>,
    /// The operator's address as the relay saw it.
    pub client: SocketAddr,
    /// The device's clock at the start, in microseconds since 1970. An estimate: it may be years off.
    pub wall: i64,
    /// Its monotonic clock at the start, in microseconds since it booted.
    pub monotonic: u64,
    /// The action when no room is left.
    pub mode: RecordingMode,
    /// The part of stdin that is recorded.
    pub stdin: StdinMode,
    /// True if the data of the streams is recorded, or only counted: not for file transfer and forwarding.
    pub streams: bool,
    /// True if the spool lies in memory: a power cut loses it.
    pub volatile: bool,
}

/// A [`SessionRequest`], of which a long command line goes on in [`Event::CommandLine`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartedWork<'a> {
    /// The login shell.
    Shell,
    /// A command line.
    Exec {
        /// Its length.
        length: u32,
        /// Its first `MAX_RECORD_COMMAND` bytes.
        #[serde(borrow)]
        head: RecordedBytes<'a>,
    },
    /// A subsystem.
    Subsystem(&'a str),
    /// Forwards of one connection.
    Forwards,
}

impl<'a> StartedWork<'a> {
    /// Returns that of what was asked for, and what of its command line [`Event::CommandLine`] has to carry.
    #[must_use]
    pub fn of(request: &'a SessionRequest) -> (Self, &'a [u8]) {
        let request = match request {
            SessionRequest::Process(request) => request,
            // One forward has no recording of its own: only the shared log has.
            SessionRequest::Forward(_) => return (Self::Forwards, &[]),
        };
        match request {
            ProcessRequest::Shell => (Self::Shell, &[]),
            ProcessRequest::Subsystem(name) => (Self::Subsystem(name), &[]),
            ProcessRequest::Exec(command) => {
                let (head, rest) = command.split_at(command.len().min(MAX_RECORD_COMMAND));
                // A command has at most `MAX_COMMAND` bytes.
                let length = u32::try_from(command.len()).unwrap_or(u32::MAX);
                let head = RecordedBytes(head);
                (Self::Exec { length, head }, rest)
            }
        }
    }
}

/// The pseudo-terminal at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTerminal<'a> {
    /// `TERM`.
    pub term: &'a str,
    /// Its size.
    pub size: WindowSize,
}

/// One of the three streams. The numbers are those of the file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// The input of the operator.
    Stdin,
    /// The output of the process; a terminal has only this one.
    Stdout,
    /// The output to stderr.
    Stderr,
}

impl Stream {
    /// All three, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

    /// Returns its number, to index a table of three.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl From<DataStream> for Stream {
    fn from(stream: DataStream) -> Self {
        match stream {
            DataStream::Stdin => Self::Stdin,
            DataStream::Stdout => Self::Stdout,
            DataStream::Stderr => Self::Stderr,
        }
    }
}

/// Bytes of a session. `Debug` shows only how many: they may be anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordedBytes<'a>(pub &'a [u8]);

/// The facts of a frame whose bytes are not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redacted {
    /// The number of its bytes.
    pub length: u32,
    /// Its tag in the stream's chain, which lets the chain be followed past it. It is keyed with the
    /// session's chain key, which the relay erases: nothing can be guessed from it afterwards.
    pub tag: Tag,
}

/// Data that the spool could not take, under `best-effort`. Its record takes the place of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The time when it began: microseconds before this record.
    pub micros: u64,
    /// Bytes that are missing, of each stream.
    pub bytes: [u64; 3],
    /// The points of the streams' chains behind it.
    pub after: [DigestPoint; 3],
    /// Records of other kinds that are missing.
    pub records: u64,
    /// The reason.
    pub why: GapReason,
}

impl Gap {
    /// Returns the bytes that are missing, of all streams.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.bytes.into_iter().fold(0, u64::saturating_add)
    }
}

/// The reason why data is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// The spool's byte budget was used up.
    SpoolFull,
    /// The file system had no more room than the reserve.
    DiskFull,
    /// The medium failed.
    Medium,
}

/// The end of a stream's content, which has reached the bound of the session's terms. The digest at the end of
/// the recording covers the rest as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentEnds {
    /// The stream.
    pub stream: Stream,
    /// The point behind the last frame that is kept.
    pub from: DigestPoint,
}

/// Variables whose values the device does not keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentRefused<'a> {
    /// Their names, each cut to `MAX_ENV_NAME` bytes, and at most `MAX_ENV` of them.
    #[serde(borrow)]
    pub names: Vec<&'a str>,
    /// The count of further ones.
    pub more: u32,
}

impl<'a> EnvironmentRefused<'a> {
    /// Creates it of these names, within the bounds.
    #[must_use]
    pub fn of(names: &'a [String]) -> Self {
        let more = names.len().saturating_sub(MAX_ENV);
        Self {
            names: names
                .iter()
                .take(MAX_ENV)
                .map(|name| cut_name(name))
                .collect(),
            more: u32::try_from(more).unwrap_or(u32::MAX),
        }
    }
}

/// Returns as much of a variable's name as a record has.
pub(super) fn cut_name(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_ENV_NAME))
        .unwrap_or(name)
}

/// A program that was run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRun<'a> {
    /// Its process.
    pub pid: u32,
    /// The process that started it.
    pub parent: u32,
    /// Its arguments, as far as they fit.
    #[serde(borrow)]
    pub argv: Vec<RecordedBytes<'a>>,
    /// True if arguments were left out or cut short.
    pub cut: bool,
    /// Its working directory, where it could be read.
    #[serde(borrow)]
    pub cwd: Option<RecordedBytes<'a>>,
}

/// A process that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandExit {
    /// The process.
    pub pid: u32,
    /// The exit of the process.
    pub exit: Exit,
}

/// The end of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    /// The reason of the end.
    pub why: EndReason,
    /// The points of the streams' chains: stdin, stdout, stderr.
    pub streams: [DigestPoint; 3],
}

impl fmt::Debug for RecordedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for RecordingStart<'_> {
    /// Leaves out what may hold a secret: the values of the environment and the command's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("session", &self.session)
            .field("user", &self.user)
            .field("login", &self.login)
            .field("work", &self.work)
            .field("terminal", &self.terminal)
            .field("env", &self.env.len())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StartedWork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell => f.write_str("Shell"),
            Self::Exec { length, .. } => write!(f, "Exec({length} bytes)"),
            Self::Subsystem(name) => write!(f, "Subsystem({name:?})"),
            Self::Forwards => f.write_str("Forwards"),
        }
    }
}

impl fmt::Debug for CommandRun<'_> {
    /// Leaves out the arguments: people type passwords there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("pid", &self.pid)
            .field("parent", &self.parent)
            .field("argv", &self.argv.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
