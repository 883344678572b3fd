//! What the agent knows of itself: `edge-agent status` asks the running agent over a Unix socket in the
//! state folder, so that nothing is written to flash for it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::wire::Welcome;
use serde::{Deserialize, Serialize};
use smol::Timer;
use smol::net::unix::UnixListener;

use crate::limits::{MAX_QUESTION, MAX_STATUS, SELF_TEST_TIMEOUT, STATUS_TIMEOUT};
use crate::membership::Membership;
use crate::recording::SpoolStatus;
use crate::session::Sessions;
use crate::state::{StateDir, StateError};
use crate::upgrade::digest::Digest;
use crate::upgrade::trial::{Successor, Upgrades};
use crate::{runtime, warn};

const SOCKET: &str = "agent.sock";

/// What is said on the socket for [`Question::Upload`]; for a status, nothing.
const UPLOAD: &str = "upload";

/// The same for [`Question::Upgrade`]; the digest, the seconds of the trial and the version follow.
const UPGRADE: &str = "upgrade";

/// What a running agent is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// For its status.
    Status,
    /// To upload recordings now; it answers with its status.
    Upload,
    /// To let the staged program take its place.
    Upgrade(Successor),
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

    /// `None` for what this version does not know.
    fn parse(text: &str) -> Option<Self> {
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
pub struct Status {
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
    /// Why the last attempt or tunnel failed.
    pub last_error: Option<String>,
    /// The agent's version.
    pub agent_version: String,
    /// The recordings that wait; `None` where no agent runs.
    #[serde(default)]
    pub spool: Option<SpoolStatus>,
    /// What bounds the processes of sessions.
    #[serde(default)]
    pub tasks: Option<String>,
    /// Where the running program stands.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// What it was started with.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// How the last upgrade went, if it did not go well or is not over.
    #[serde(default)]
    pub upgrade: Option<String>,
    /// Why what was asked for was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Where the tunnel's driver writes and `status` reads.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<(Status, Instant)>,
    /// Something has changed.
    changed: Event,
}

impl Status {
    /// The status of an agent that does not run.
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

impl fmt::Display for Status {
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
            write!(f, ", {} sessions", self.sessions)?;
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

impl Board {
    /// A board for an agent that has just started.
    #[must_use]
    pub fn new(membership: &Membership) -> Arc<Self> {
        let status = Status {
            state: "connecting".into(),
            ..Status::stopped(membership)
        };
        Arc::new(Self {
            inner: Mutex::new((status, Instant::now())),
            changed: Event::new(),
        })
    }

    /// A relay is being tried.
    pub fn connecting(&self, relay: &str) {
        self.change(|status, _| {
            if status.state != "online" {
                status.relay = Some(relay.to_owned());
            }
        });
    }

    /// A tunnel stands.
    pub fn connected(&self, relay: &str, name: &DeviceName, welcome: &Welcome) {
        self.change(|status, since| {
            *since = Instant::now();
            status.state = "online".into();
            status.name = name.to_string();
            status.relay = Some(relay.to_owned());
            status.generation = Some(welcome.generation.0);
            status.observed_address = Some(welcome.observed_address.to_string());
            status.last_error = None;
        });
    }

    /// The tunnel is gone.
    pub fn disconnected(&self, why: &str) {
        self.change(|status, since| {
            *since = Instant::now();
            status.state = "connecting".into();
            status.generation = None;
            status.observed_address = None;
            status.last_error = Some(why.to_owned());
        });
    }

    /// An attempt failed.
    pub fn failed(&self, why: &str) {
        self.change(|status, _| status.last_error = Some(why.to_owned()));
    }

    /// The state in a few words, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let inner = self.lock();
        let (status, _) = &*inner;
        match &status.relay {
            Some(relay) => format!("{}, relay {}", status.state, Escaped(relay)),
            None => status.state.clone(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Status, &mut Instant)) {
        let mut inner = self.lock();
        let (status, since) = &mut *inner;
        change(status, since);
        drop(inner);
        self.changed.notify(usize::MAX);
    }

    /// Resolves when a tunnel stands.
    pub async fn online(&self) {
        loop {
            let changed = self.changed.listen();
            if self.lock().0.state == "online" {
                return;
            }
            changed.await;
        }
    }

    /// Why the last attempt or tunnel failed.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.lock().0.last_error.clone()
    }

    fn lock(&self) -> MutexGuard<'_, (Status, Instant)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, sessions: &Sessions, upgrades: &Upgrades) -> Status {
        let inner = self.lock();
        let (status, since) = &*inner;
        Status {
            for_seconds: Some(since.elapsed().as_secs()),
            sessions: sessions.live(),
            spool: Some(sessions.recorder().status()),
            tasks: Some(sessions.task_limit().to_string()),
            program: Some(upgrades.program().to_owned()),
            arguments: std::env::args_os()
                .skip(1)
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
            upgrade: upgrades.last().and_then(|journal| journal.trouble()),
            ..status.clone()
        }
    }
}

/// Answers `status` for as long as the agent runs. An agent without its socket still serves.
pub fn serve(
    state: &StateDir,
    board: Arc<Board>,
    sessions: Arc<Sessions>,
    upgrades: Arc<Upgrades>,
) {
    let listener = match bind(state) {
        Ok(listener) => listener,
        Err(error) => return warn!("`edge-agent status` will not see this agent: {error}"),
    };
    let answer_all = async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                Timer::after(Duration::from_secs(1)).await;
                continue;
            };
            let answer = async {
                let mut asked = String::new();
                let most = MAX_QUESTION;
                (&mut stream).take(most).read_to_string(&mut asked).await?;
                let refused = match Question::parse(&asked) {
                    Some(Question::Upload) => {
                        sessions.recorder().request_upload();
                        None
                    }
                    Some(Question::Upgrade(by)) => {
                        upgrades.replace(by).err().map(|why| why.to_string())
                    }
                    Some(Question::Status) | None => None,
                };
                let status = board.read(&sessions, &upgrades);
                let answer = Status { refused, ..status };
                let answer = serde_json::to_vec(&answer).unwrap_or_default();
                stream.write_all(&answer).await
            };
            let late = async {
                Timer::after(STATUS_TIMEOUT).await;
                Ok(())
            };
            let _ = answer.or(late).await;
        }
    };
    runtime::spawn(answer_all).detach();
}

fn bind(state: &StateDir) -> Result<UnixListener, Box<dyn std::error::Error>> {
    // The lock is held: a socket that is there is a dead agent's.
    match std::fs::remove_file(state.file(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (_dir, path) = state.short_path(SOCKET)?;
    Ok(UnixListener::bind(path)?)
}

/// Asks the running agent; `None` if none runs.
///
/// # Errors
/// [`StateError`] if the folder cannot be opened.
pub fn ask(state: &StateDir, question: Question) -> Result<Option<Status>, StateError> {
    let (_dir, path) = state.short_path(SOCKET)?;
    let answer = || -> io::Result<Status> {
        let mut stream = UnixStream::connect(&path)?;
        let patience = match question {
            // It writes to flash first.
            Question::Upgrade(_) => SELF_TEST_TIMEOUT,
            Question::Status | Question::Upload => STATUS_TIMEOUT,
        };
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(question.text().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        stream.take(MAX_STATUS).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    Ok(answer().ok())
}
