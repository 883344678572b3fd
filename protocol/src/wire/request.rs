//! The purpose of a session's stream: a process or a forward. They are distinguished as soon as an `Open` is decoded.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::forward::{AddressPolicy, PathPolicy};
use crate::ids::SessionId;

/// The subsystem of file transfer, by the name that SSH clients ask for.
pub const SFTP: &str = "sftp";

/// The request of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EncodedRequest", into = "EncodedRequest")]
pub enum SessionRequest {
    /// A process.
    Process(ProcessRequest),
    /// No process: a connection, a listener or the log of them.
    Forward(ForwardRequest),
}

/// The process that a session runs.
#[derive(Clone, PartialEq, Eq)]
pub enum ProcessRequest {
    /// The account's login shell.
    Shell,
    /// A command line, for the account's shell with `-c`. Bytes, as SSH carries them.
    Exec(Vec<u8>),
    /// A subsystem, such as `sftp`.
    Subsystem(String),
}

/// The purpose of a session without a process.
#[derive(Clone, PartialEq, Eq)]
pub enum ForwardRequest {
    /// A TCP connection, which the device dials.
    Connect(Connect),
    /// A TCP port, on which the device listens.
    Listen(Listen),
    /// A connection that has come on such a port.
    Take(Take),
    /// A connection to a Unix socket of the device.
    ConnectPath(SocketPath),
    /// A Unix socket, which the device makes and listens on. What comes there is taken as what comes to a port.
    ListenPath(SocketPath),
    /// No data: the shared log of forwards, for as long as the stream is open.
    Log,
}

/// A request as it is sent: both kinds in one list, in the order in which they were added to the protocol.
#[derive(Serialize, Deserialize)]
enum EncodedRequest {
    Shell,
    Exec(Vec<u8>),
    Subsystem(String),
    Connect(Connect),
    Listen(Listen),
    Take(Take),
    ConnectPath(SocketPath),
    ListenPath(SocketPath),
    Log,
}

impl From<EncodedRequest> for SessionRequest {
    fn from(encoded: EncodedRequest) -> Self {
        match encoded {
            EncodedRequest::Shell => ProcessRequest::Shell.into(),
            EncodedRequest::Exec(command) => ProcessRequest::Exec(command).into(),
            EncodedRequest::Subsystem(name) => ProcessRequest::Subsystem(name).into(),
            EncodedRequest::Connect(to) => ForwardRequest::Connect(to).into(),
            EncodedRequest::Listen(at) => ForwardRequest::Listen(at).into(),
            EncodedRequest::Take(take) => ForwardRequest::Take(take).into(),
            EncodedRequest::ConnectPath(to) => ForwardRequest::ConnectPath(to).into(),
            EncodedRequest::ListenPath(at) => ForwardRequest::ListenPath(at).into(),
            EncodedRequest::Log => ForwardRequest::Log.into(),
        }
    }
}

impl From<SessionRequest> for EncodedRequest {
    fn from(request: SessionRequest) -> Self {
        match request {
            SessionRequest::Process(request) => match request {
                ProcessRequest::Shell => Self::Shell,
                ProcessRequest::Exec(command) => Self::Exec(command),
                ProcessRequest::Subsystem(name) => Self::Subsystem(name),
            },
            SessionRequest::Forward(request) => match request {
                ForwardRequest::Connect(to) => Self::Connect(to),
                ForwardRequest::Listen(at) => Self::Listen(at),
                ForwardRequest::Take(take) => Self::Take(take),
                ForwardRequest::ConnectPath(to) => Self::ConnectPath(to),
                ForwardRequest::ListenPath(at) => Self::ListenPath(at),
                ForwardRequest::Log => Self::Log,
            },
        }
    }
}

impl From<ProcessRequest> for SessionRequest {
    fn from(request: ProcessRequest) -> Self {
        Self::Process(request)
    }
}

impl From<ForwardRequest> for SessionRequest {
    fn from(request: ForwardRequest) -> Self {
        Self::Forward(request)
    }
}

impl SessionRequest {
    /// Returns the process that is asked for, if it is one.
    #[must_use]
    pub fn process(&self) -> Option<&ProcessRequest> {
        match self {
            Self::Process(request) => Some(request),
            Self::Forward(_) => None,
        }
    }

    /// Returns the forward that is asked for, if it is one.
    #[must_use]
    pub fn forward(&self) -> Option<&ForwardRequest> {
        match self {
            Self::Process(_) => None,
            Self::Forward(request) => Some(request),
        }
    }

    /// Returns whether this is file transfer.
    #[must_use]
    pub fn is_sftp(&self) -> bool {
        matches!(self.process(), Some(ProcessRequest::Subsystem(name)) if name == SFTP)
    }

    /// Returns whether this is the shared log of forwards.
    #[must_use]
    pub fn is_forward_log(&self) -> bool {
        matches!(self.forward(), Some(ForwardRequest::Log))
    }
}

/// A TCP connection from a device (RFC 4254 section 7.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// An address or a name, as the operator wrote it: it is resolved on the device. At most
    /// `MAX_FORWARD_HOST` bytes.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The addresses that may be dialled.
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
    /// The addresses that may be listened on.
    pub policy: AddressPolicy,
}

/// A Unix socket of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPath {
    /// Its path, as the operator wrote it: at most `MAX_SOCKET_PATH` bytes.
    pub path: String,
    /// The paths that may be used.
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
    /// The address that has connected; 0.0.0.0 and port 0 where it came to a Unix socket.
    pub peer: SocketAddr,
}

impl fmt::Debug for ProcessRequest {
    /// Leaves out a command's words, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell => f.write_str("Shell"),
            Self::Exec(command) => write!(f, "Exec({} bytes)", command.len()),
            Self::Subsystem(name) => write!(f, "Subsystem({name:?})"),
        }
    }
}

impl fmt::Debug for ForwardRequest {
    /// Leaves out the policies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(to) => write!(f, "Connect({:?}, {})", to.host, to.port),
            Self::Listen(at) => write!(f, "Listen({:?}, {})", at.host, at.port),
            Self::Take(take) => write!(f, "Take({}, {})", take.listener, take.number),
            Self::ConnectPath(to) => write!(f, "ConnectPath({:?})", to.path),
            Self::ListenPath(at) => write!(f, "ListenPath({:?})", at.path),
            Self::Log => f.write_str("Log"),
        }
    }
}
