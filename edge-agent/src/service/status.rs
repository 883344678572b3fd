//! The agent's report about itself: `edge-agent status` asks the running agent over a Unix socket in the state folder,
//! so that nothing is written to flash for it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;
use serde::{Deserialize, Serialize};

use crate::os::state::{StateDir, StateDirError};
use crate::recording::SpoolStatus;
use crate::service::digest::Digest;
use crate::service::limits::{MAX_STATUS, SELF_TEST_TIMEOUT, STATUS_TIMEOUT};
use crate::tunnel::membership::Membership;

pub(super) const SOCKET: &str = "agent.sock";

/// The request on the socket for [`Question::Upload`]; for a status, nothing.
const UPLOAD: &str = "upload";

/// The same for [`Question::Upgrade`]; the digest, the seconds of the trial and the version follow.
const UPGRADE: &str = "upgrade";

/// A question to a running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// For its status.
    Status,
    /// To upload recordings now; it answers with its status.
    Upload,
    /// To let the staged program take its place.
    Upgrade(Successor),
}

/// A new program that is to take the place of the running one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The staged file's.
    pub digest: Digest,
    /// The name that it gives itself.
    pub version: String,
    /// The time that it has to get a tunnel.
    pub trial: Duration,
}

impl Question {
    fn text(&self) -> String {
        match self {
            Self::Status => String::new(),
            Self::Upload => UPLOAD.to_owned(),
            Self::Upgrade(by) => {
                let secs = by.trial.as_secs();
                format!("{UPGRADE} {} {secs} {}", by.digest, by.version)
            }
        }
    }

    /// Parses a text; `None` if this version does not know it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        match words.next()? {
            "" => Some(Self::Status),
            UPLOAD => Some(Self::Upload),
            UPGRADE => Some(Self::Upgrade(Successor {
                digest: Digest::from_hex(words.next()?)?,
                trial: Duration::from_secs(words.next()?.parse().ok()?),
                version: words.next()?.to_owned(),
            })),
            _ => None,
        }
    }
}

/// One answer of `status --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The device's name.
    pub name: String,
    /// Its identifier, in hexadecimal.
    pub id: String,
    /// `online`, `connecting`, or `stopped` when no agent runs.
    pub state: String,
    /// The relay that the tunnel goes to, or that is tried now.
    pub relay: Option<String>,
    /// The tunnel's generation.
    pub generation: Option<u64>,
    /// The device's address as the relay sees it.
    pub observed_address: Option<String>,
    /// For how many seconds the state has been what it is.
    pub for_seconds: Option<u64>,
    /// Live sessions.
    pub sessions: u32,
    /// The reason why the last attempt or tunnel failed.
    pub last_error: Option<String>,
    /// The agent's version.
    pub agent_version: String,
    /// The recordings that wait; `None` where no agent runs.
    #[serde(default)]
    pub spool: Option<SpoolStatus>,
    /// The bound on the processes of sessions.
    #[serde(default)]
    pub tasks: Option<String>,
    /// The path of the running program.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// The arguments that it was started with.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The outcome of the last upgrade, if it did not go well or is not over.
    #[serde(default)]
    pub upgrade: Option<String>,
    /// The reason why what was asked for was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl AgentStatus {
    /// Returns the status of an agent that does not run.
    #[must_use]
    pub fn stopped(membership: &Membership) -> Self {
        Self {
            name: membership.name().to_string(),
            id: membership.id().to_string(),
            state: "stopped".into(),
            relay: membership
                .roster()
                .relays
                .first()
                .map(|relay| relay.address.clone()),
            generation: None,
            observed_address: None,
            for_seconds: None,
            sessions: 0,
            last_error: None,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            spool: None,
            tasks: None,
            program: None,
            arguments: Vec::new(),
            upgrade: None,
            refused: None,
        }
    }
}

impl fmt::Display for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {}): {}", self.name, self.id, self.state)?;
        if let Some(seconds) = self.for_seconds {
            write!(f, " for {seconds} s")?;
        }
        if let Some(relay) = &self.relay {
            write!(f, ", relay {relay}")?;
        }
        if let Some(address) = &self.observed_address {
            write!(f, ", seen as {address}")?;
        }
        if self.state == "online" {
            write!(f, ", {}", Count(self.sessions.into(), "session"))?;
        }
        if let Some(error) = &self.last_error {
            write!(f, "\nlast error: {}", Escaped(error))?;
        }
        if let Some(spool) = &self.spool {
            write!(f, "\n{spool}")?;
        }
        if let Some(tasks) = &self.tasks {
            write!(f, "\ntasks: {}", Escaped(tasks))?;
        }
        if let Some(upgrade) = &self.upgrade {
            write!(f, "\nupgrade: {}", Escaped(upgrade))?;
        }
        Ok(())
    }
}

/// Asks the running agent; `None` if none runs.
///
/// # Errors
/// [`StateDirError`] if the folder cannot be opened, or this account may not ask.
pub fn ask(state: &StateDir, question: Question) -> Result<Option<AgentStatus>, StateDirError> {
    let (_dir, path) = state.short_path(SOCKET)?;
    let answer = || -> io::Result<AgentStatus> {
        let mut stream = UnixStream::connect(&path)?;
        let timeout = match question {
            // It writes to flash first.
            Question::Upgrade(_) => SELF_TEST_TIMEOUT,
            Question::Status | Question::Upload => STATUS_TIMEOUT,
        };
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(question.text().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        stream.take(MAX_STATUS).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match answer() {
        Ok(status) => Ok(Some(status)),
        // One may run, or none.
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Err(StateDirError::Io {
            verb: "ask the agent at",
            path: state.file(SOCKET),
            source,
        }),
        Err(_) => Ok(None),
    }
}
