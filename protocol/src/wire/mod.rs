//! Every message of the tunnel. `docs/protocol.md` describes when each is sent.
//!
//! postcard is not self-describing: variants are only ever appended, new fields go to the end of the
//! outermost struct, and nothing is reordered. Golden bytes in `wire/golden.rs` hold that.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::forward::{AddressPolicy, PathPolicy};
use crate::identity::release::ReleaseKey;
use crate::identity::roster::SignedRoster;
use crate::identity::token::TokenSecret;
use crate::ids::{
    DeviceId, DeviceName, Generation, LabelKey, LabelValue, Login, SessionId, UserName,
};

mod recording;
mod terms;

pub use recording::{
    ChainKey, EndReason, OfferedSegment, RecordingMode, RecordingTerms, SegmentBytes, SegmentGone,
    SegmentHeld, SegmentLink, SegmentLost, SegmentRefusal, SegmentRefused, SessionFinished,
    StdinMode, UploadAnswer, UploadMessage,
};
pub use terms::{ForwardLogRef, OnDisconnect, SessionTerms, SftpTerms};

/// A message of an agent on its control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// First, always.
    Hello(Hello),
    /// After the relay's [`RelayMessage::Identity`] was checked against the token.
    Enrol(Enrol),
    /// "I am here". The only regular traffic of an idle tunnel.
    Beat(Beat),
    /// Before the `Hello` of a member: which run of the agent it is. An older relay skips it.
    Instance(Instance),
}

/// A message of a relay on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayMessage {
    /// The answer to a `Hello` that wants to join: who this relay is, before any secret is said.
    Identity(SignedRoster),
    /// The device is a member now.
    Enrolled(MembershipGrant),
    /// The answer to a `Hello` of a member: the tunnel is established.
    Welcome(Welcome),
    /// The answer to a `Hello` or `Enrol` that leads nowhere. The relay then closes the connection.
    Refused(Refusal),
    /// A newer roster.
    Roster(SignedRoster),
    /// The relay stops: dial again after this delay, in milliseconds, plus jitter.
    Drain(u32),
    /// The answer to a [`Beat`] that asked for one.
    Echo,
    /// The key that signs new versions of the agent: just before `Enrolled`, once in a device's life. An older agent
    /// skips it.
    ReleaseKey(ReleaseKey),
}

/// Opens the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest minor version that the agent speaks; the lower of the two is used.
    pub minor: u16,
    /// The intent of the agent.
    pub intent: Intent,
    /// Its version, at most `MAX_VERSION_TEXT` bytes.
    pub agent_version: String,
    /// The target triple it was built for, at most `MAX_VERSION_TEXT` bytes.
    pub target: String,
    /// Seconds between two beats of an idle agent.
    pub keepalive_secs: u16,
    /// Its clock, in seconds since 1970: noted, never trusted.
    pub clock: i64,
    /// The address that it sends from, before any NAT.
    pub local_address: Option<SocketAddr>,
}

/// Identifies the run of an agent, so that the relay can distinguish a device that comes again from a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Random, made at the agent's start.
    pub id: [u8; 16],
    /// The hardware's identifier, hashed with the device's; `None` where it has none.
    pub machine: Option<[u8; 16]>,
}

/// The purpose of a new connection of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// To become a member of the fleet.
    Join,
    /// To stand as a tunnel.
    Run,
}

/// Asks for membership. The device's key is the one that it proved in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// From the token.
    pub secret: TokenSecret,
    /// The name it would like; the relay picks one otherwise.
    pub name: Option<DeviceName>,
    /// The device's own labels, which the token's override. At most `MAX_LABELS`.
    pub labels: Vec<(LabelKey, LabelValue)>,
}

/// Membership of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipGrant {
    /// The device's identifier, for as long as it keeps its key.
    pub id: DeviceId,
    /// Its name, until an admin renames it.
    pub name: DeviceName,
    /// The relays that it may trust.
    pub roster: SignedRoster,
}

/// The tunnel is established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The minor version that both speak.
    pub minor: u16,
    /// Orders the tunnels of this device.
    pub generation: Generation,
    /// Id, present name and present roster.
    pub membership: MembershipGrant,
    /// The device's address as the relay sees it.
    pub observed_address: SocketAddr,
}

/// "I am here".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// True if the relay shall answer with an [`RelayMessage::Echo`]: what it sent before may have
    /// been lost on a dead path, and only an answer to something new makes QUIC notice at once.
    pub echo: bool,
}

/// The reason why a connection leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The device's key is in no registry: it never joined, or its entry was removed.
    UnknownDevice,
    /// An admin revoked this device.
    Revoked,
    /// The token's secret is unknown: it was removed, or belongs to another relay's store.
    TokenUnknown,
    /// Expired, so many seconds ago.
    TokenExpired {
        /// Seconds since it expired.
        ago_secs: u64,
    },
    /// All its uses are used.
    TokenUsedUp,
    /// Another device has this name.
    NameTaken {
        /// The name that was asked for.
        name: DeviceName,
        /// The device that has it.
        holder: DeviceId,
    },
    /// The relay does not speak with this agent's version.
    Version {
        /// The oldest minor version that it accepts.
        oldest: u16,
    },
    /// The relay cannot answer now (its store fails, or it is stopping): try again.
    Unavailable,
    /// Something that the protocol forbids, in words.
    Protocol(String),
    /// Another machine uses the same key, and keeps the tunnel. Only for an agent that said its [`Instance`].
    Cloned {
        /// The address of that one, as the relay sees it.
        holder: SocketAddr,
    },
}

/// The reason why a connection is closed: the application error code of QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong: the work is done, or the agent stops.
    Done = 0,
    /// A newer tunnel of the same device replaced this one.
    Replaced = 1,
    /// An admin revoked the device.
    Revoked = 2,
    /// The other end broke the protocol.
    Protocol = 3,
    /// The relay stops.
    Stopping = 4,
    /// The relay is loaded and takes no more connections now.
    Busy = 5,
    /// The agent starts again in a moment, as another version of itself.
    Upgrading = 6,
}

/// The reason why a relay resets its half of a session's stream, and stops the other: the application error code of
/// QUIC's RESET_STREAM and STOP_SENDING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetCode {
    /// The observer is lost: the client went away, or the relay stops. The only code before minor version 5.
    Lost = 0,
    /// The session is to end: it was killed or locked out, was idle, reached its longest duration, or lost its right.
    Ended = 1,
}

/// Opens a session: the first frame of each stream that the relay opens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The session's identifier, for logs on both ends.
    pub session: SessionId,
    /// The operator.
    pub user: UserName,
    /// The account to run as.
    pub login: Login,
    /// The work to run.
    pub work: Work,
    /// The pseudo-terminal that was asked for.
    pub pty: Option<Pty>,
    /// Environment variables that passed the relay's allow-list.
    pub env: Vec<(String, String)>,
    /// The operator's address as the relay saw it: for `SSH_CONNECTION` and `SSH_CLIENT`.
    pub client: SocketAddr,
    /// The relay's address that the operator connected to.
    pub server: SocketAddr,
    /// The command that the operator asked for where `work` is forced on them: for `SSH_ORIGINAL_COMMAND`, at most
    /// `MAX_ORIGINAL_COMMAND` bytes.
    pub original_command: Option<Vec<u8>>,
    /// Holds how the session is recorded; `None` from a relay that knows of no recordings. It follows the
    /// other fields, in a part of its own (`codec/frame.rs`): an old relay ends before it.
    #[serde(skip)]
    pub recording: Option<RecordingTerms>,
    /// The further restrictions of the session. They follow `recording`, in parts of their own, too.
    #[serde(skip)]
    pub terms: SessionTerms,
    /// The shared log in which a forward is recorded; `None` if it is in none. It follows `terms`, in a part of
    /// its own, too.
    #[serde(skip)]
    pub forward_log: Option<ForwardLogRef>,
}

/// The subsystem of file transfer, by the name that SSH clients ask for.
pub const SFTP: &str = "sftp";

/// The work of a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// The account's login shell.
    Shell,
    /// A command line, for the account's shell with `-c`. Bytes, as SSH carries them.
    Exec(Vec<u8>),
    /// A subsystem, such as `sftp`.
    Subsystem(String),
    /// No process: a TCP connection, which the device dials.
    Connect(Connect),
    /// No process: a TCP port, on which the device listens.
    Listen(Listen),
    /// No process: a connection that has come on such a port.
    Take(Take),
    /// No process: a connection to a Unix socket of the device.
    ConnectPath(SocketPath),
    /// No process: a Unix socket, which the device makes and listens on. What comes there is taken as what
    /// comes to a port.
    ListenPath(SocketPath),
    /// No process and no data: the shared log of forwards, for as long as the stream is open.
    Forwards,
}

/// A TCP connection from a device (RFC 4254 section 7.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// An address or a name, as the operator wrote it: it is resolved on the device. At most
    /// `MAX_FORWARD_HOST` bytes.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Holds which addresses may be dialled.
    pub policy: AddressPolicy,
}

/// A TCP port on a device (RFC 4254 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The address to listen on, as the operator wrote it: empty or `*` for all, `localhost` for loopback of both
    /// families. At most `MAX_FORWARD_HOST` bytes.
    pub host: String,
    /// The port; 0: any that is free.
    pub port: u16,
    /// Holds which addresses may be listened on.
    pub policy: AddressPolicy,
}

/// A Unix socket of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPath {
    /// Its path, as the operator wrote it: at most `MAX_SOCKET_PATH` bytes.
    pub path: String,
    /// Holds which paths may be used.
    pub policy: PathPolicy,
}

/// A connection that has come to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// The session of the port.
    pub listener: SessionId,
    /// The number of the connection.
    pub number: u32,
}

/// A connection has come to a port on which the device listens, and waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Names it to [`Take`], once.
    pub number: u32,
    /// Holds who has connected; 0.0.0.0 and port 0 where it came to a Unix socket.
    pub peer: SocketAddr,
}

/// A pseudo-terminal (RFC 4254 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    /// The value for `TERM`.
    pub term: String,
    /// Its size.
    pub size: WindowSize,
    /// Terminal modes: opcode and argument (RFC 4254 section 8), in the order they came.
    pub modes: Vec<(u8, u32)>,
}

/// The size of a terminal: characters, and pixels where they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns of characters.
    pub columns: u16,
    /// Rows of characters.
    pub rows: u16,
    /// Width in pixels, or 0.
    pub width: u16,
    /// Height in pixels, or 0.
    pub height: u16,
}

impl WindowSize {
    /// From SSH's 32-bit numbers; what a kernel's 16 bits cannot hold is clamped.
    #[must_use]
    pub fn clamped(columns: u32, rows: u32, width: u32, height: u32) -> Self {
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            columns: clamp(columns),
            rows: clamp(rows),
            width: clamp(width),
            height: clamp(height),
        }
    }
}

/// A signal that SSH can name (RFC 4254 section 6.10), and the others that people send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the POSIX signal of its name")]
pub enum Signal {
    Abrt,
    Alrm,
    Fpe,
    Hup,
    Ill,
    Int,
    Kill,
    Pipe,
    Quit,
    Segv,
    Term,
    Usr1,
    Usr2,
    /// OpenSSH sends it as `WINCH` on request of some clients.
    Winch,
    Bus,
    Sys,
    Trap,
    Xcpu,
    Xfsz,
    /// One that has no name here, by its number on the device.
    Other(u8),
}

/// Describes how a session's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By a signal.
    Signal {
        /// The signal.
        signal: Signal,
        /// True if a core was dumped.
        core_dumped: bool,
    },
}

/// The reason why the device starts no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRefusal {
    /// No such account.
    NoAccount,
    /// The account is locked or expired.
    AccountLocked,
    /// The account's shell refuses logins (`nologin`, `false`).
    NoShell,
    /// `/etc/nologin` exists; this is its text.
    NoLogin(String),
    /// The agent is not root and serves only this account.
    OnlyServes(Login),
    /// The device has nothing for the subsystem of this name.
    NoSubsystem(String),
    /// The agent has reached its limit of sessions.
    TooManySessions(u32),
    /// The kernel refused: no terminal, no memory, no process.
    Failed(String),
    /// The session has to be recorded and can't be; this is why. It may also come later than at the start,
    /// in place of the exit.
    RecordingUnavailable(String),
    /// The rules that came with a forward do not allow this address, which is what the host means here.
    NotPermitted(SocketAddr),
    /// The forward could not be made: there is no listener, the name is unknown, the way is closed.
    Unreachable(String),
    /// The agent has reached its limit of forwards.
    TooManyForwards(u32),
    /// The rules that came with a forward do not allow this path, which is what was asked for without links. It
    /// is cut to `MAX_REASON` bytes.
    NotPermittedPath(String),
    /// The account has the user id of this login, which the session's terms deny.
    DeniedAs(Login),
}

impl fmt::Debug for Open {
    /// Leaves out what may hold a secret: the values of the environment and the command's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("session", &self.session)
            .field("user", &self.user)
            .field("login", &self.login)
            .field("work", &self.work)
            .field("pty", &self.pty.is_some())
            .field("env", &self.env.len())
            .field("client", &self.client)
            .field("recording", &self.recording)
            .field("terms", &self.terms)
            .field("forward_log", &self.forward_log)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell => f.write_str("Shell"),
            Self::Exec(command) => write!(f, "Exec({} bytes)", command.len()),
            Self::Subsystem(name) => write!(f, "Subsystem({name:?})"),
            Self::Connect(to) => write!(f, "Connect({:?}, {})", to.host, to.port),
            Self::Listen(at) => write!(f, "Listen({:?}, {})", at.host, at.port),
            Self::Take(take) => write!(f, "Take({}, {})", take.listener, take.number),
            Self::ConnectPath(at) => write!(f, "ConnectPath({:?})", at.path),
            Self::ListenPath(at) => write!(f, "ListenPath({:?})", at.path),
            Self::Forwards => f.write_str("Forwards"),
        }
    }
}

impl Serialize for TokenSecret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for TokenSecret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(from).map(Self)
    }
}

#[cfg(test)]
mod golden;
