//! The messages of a session's stream: how it is opened, and what is said of its process and its end.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ForwardLogRef, RecordingTerms, SessionRequest, SessionTerms};
use crate::ids::{Login, SessionId, UserName};

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
    /// The process or forward that is asked for.
    pub request: SessionRequest,
    /// The pseudo-terminal that was asked for.
    pub pty: Option<Pty>,
    /// Environment variables that passed the relay's allow-list.
    pub env: Vec<(String, String)>,
    /// The operator's address as the relay saw it: for `SSH_CONNECTION` and `SSH_CLIENT`.
    pub client: SocketAddr,
    /// The relay's address that the operator connected to.
    pub server: SocketAddr,
    /// The command that the operator asked for where `request` is forced on them: for `SSH_ORIGINAL_COMMAND`, at most
    /// `MAX_ORIGINAL_COMMAND` bytes.
    pub original_command: Option<Vec<u8>>,
    /// The recording terms; `None` from a relay that knows of no recordings. It follows the
    /// other fields, in a part of its own (`codec/open.rs`): an old relay ends before it.
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
    /// Creates a size from SSH's 32-bit numbers; what a kernel's 16 bits cannot hold is clamped.
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
            .field("request", &self.request)
            .field("pty", &self.pty.is_some())
            .field("env", &self.env.len())
            .field("client", &self.client)
            .field("recording", &self.recording)
            .field("terms", &self.terms)
            .field("forward_log", &self.forward_log)
            .finish_non_exhaustive()
    }
}
