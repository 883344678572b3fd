//! The agent's sessions and forwards: how many there are, how many there may be, and what they share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_listener::Event;
use futures_lite::FutureExt as _;
use holdfast_protocol::wire::SessionRefusal;
use smol::Timer;

use super::arrivals::WaitingConnections;
use super::launch::login::LoginMode;
use super::launch::{LoginSessions, TaskLimit};
use super::limits::{MAX_FORWARD_RECORDINGS, MAX_FORWARDS, MAX_SESSIONS};
use super::subsystem::SftpServer;
use crate::recording::Recorder;

/// The part of the config that concerns sessions.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Patterns (`*` and `?`) of environment variables that a client may set, besides `LANG`, `LC_*`,
    /// `COLORTERM` and `NO_COLOR`. What would choose the code that runs (`LD_*`, `PATH`, `BASH_ENV`, …)
    /// stays forbidden whatever is given here.
    pub accept_env: Vec<String>,
    /// The server of the subsystem sftp.
    pub sftp_server: SftpServer,
    /// Most sessions at once.
    pub max_sessions: u32,
    /// The bound on the tasks of sessions.
    pub tasks: TaskLimit,
    /// The way in which login sessions are opened.
    pub login: LoginMode,
    /// The program that runs as the helper of [`crate::session::launch`]: this very one.
    pub program: PathBuf,
}

impl Default for SessionConfig {
    fn default() -> Self {
        // By this name the kernel finds the program even after an update has replaced its file.
        let program = PathBuf::from("/proc/self/exe");
        Self {
            accept_env: Vec::new(),
            sftp_server: SftpServer::Internal,
            max_sessions: MAX_SESSIONS,
            tasks: TaskLimit::None,
            login: LoginMode::Bare,
            program,
        }
    }
}

/// All sessions of the agent.
#[derive(Debug)]
pub struct AgentSessions {
    pub(super) config: SessionConfig,
    pub(super) recorder: Arc<Recorder>,
    live: AtomicU32,
    /// Those of them whose observer is lost, and whose process keeps its terminal until it exits by itself.
    left: AtomicU32,
    forwards: AtomicU32,
    /// Recordings of forwards.
    recordings: AtomicU32,
    pub(super) arrivals: WaitingConnections,
    pub(super) logins: Arc<LoginSessions>,
    changed: Event,
}

impl AgentSessions {
    /// Creates an empty registry. Removes the cgroups of an earlier agent in which nothing runs any more.
    #[must_use]
    pub fn new(config: SessionConfig, recorder: Arc<Recorder>) -> Arc<Self> {
        config.tasks.sweep();
        Arc::new(Self {
            config,
            recorder,
            live: AtomicU32::new(0),
            left: AtomicU32::new(0),
            forwards: AtomicU32::new(0),
            recordings: AtomicU32::new(0),
            arrivals: WaitingConnections::default(),
            logins: Arc::default(),
            changed: Event::new(),
        })
    }

    /// Returns what records them.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Returns what bounds their tasks.
    #[must_use]
    pub fn task_limit(&self) -> &TaskLimit {
        &self.config.tasks
    }

    /// Removes the cgroups of sessions that have ended.
    pub(super) fn sweep_tasks(&self) {
        let tasks = self.config.tasks.clone();
        if matches!(tasks, TaskLimit::Cgroup { .. }) {
            smol::unblock(move || tasks.sweep()).detach();
        }
    }

    /// Returns how many sessions have a process, or are starting or ending one.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// Returns how many forwarded connections are open, or are being dialled or ended.
    #[must_use]
    pub fn forwards(&self) -> u32 {
        self.forwards.load(Ordering::Acquire)
    }

    /// Resolves when one of the counts has changed since this call. Call it before [`Self::live`], and no change
    /// is missed.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.changed.listen()
    }

    /// Resolves when all sessions have ended but those that may go on unobserved, or after `timeout`.
    pub async fn ended(&self, timeout: Duration) {
        let none = async {
            loop {
                let changed = self.changed();
                if self.live() <= self.left.load(Ordering::Acquire) {
                    return;
                }
                changed.await;
            }
        };
        let late = async {
            Timer::after(timeout).await;
        };
        none.or(late).await;
    }

    /// Takes a slot for one more of a kind; the error is the maximum.
    fn slot(self: &Arc<Self>, kind: SlotKind) -> Result<SessionSlot, u32> {
        let max = match kind {
            SlotKind::Session => self.config.max_sessions,
            SlotKind::Forward => MAX_FORWARDS,
            SlotKind::Recording => MAX_FORWARD_RECORDINGS,
        };
        let more = |live| (live < max).then_some(live + 1);
        let taken = self
            .count(kind)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.map_err(|_| max)?;
        self.changed.notify(usize::MAX);
        Ok(SessionSlot {
            sessions: Arc::clone(self),
            kind,
            left: false,
        })
    }

    /// Takes a slot for one more of a kind; the error is for the operator.
    pub(super) fn occupy(self: &Arc<Self>, kind: SlotKind) -> Result<SessionSlot, SessionRefusal> {
        self.slot(kind).map_err(|max| match kind {
            SlotKind::Session => SessionRefusal::TooManySessions(max),
            SlotKind::Forward | SlotKind::Recording => SessionRefusal::TooManyForwards(max),
        })
    }

    fn count(&self, kind: SlotKind) -> &AtomicU32 {
        match kind {
            SlotKind::Session => &self.live,
            SlotKind::Forward => &self.forwards,
            SlotKind::Recording => &self.recordings,
        }
    }
}

/// The purpose of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotKind {
    /// A process.
    Session,
    /// A forwarded connection.
    Forward,
    /// A shared log of forwards: nothing waits for it, and nothing is kept up for it.
    Recording,
}

/// Counts one session or forward for as long as it lives.
pub(super) struct SessionSlot {
    sessions: Arc<AgentSessions>,
    kind: SlotKind,
    /// True if its process goes on unobserved.
    left: bool,
}

impl SessionSlot {
    /// Notes that the observer is lost, and the process goes on.
    pub(super) fn leave(&mut self) {
        self.left = true;
        self.sessions.left.fetch_add(1, Ordering::AcqRel);
        self.sessions.changed.notify(usize::MAX);
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        if self.left {
            self.sessions.left.fetch_sub(1, Ordering::AcqRel);
        }
        self.sessions
            .count(self.kind)
            .fetch_sub(1, Ordering::AcqRel);
        self.sessions.changed.notify(usize::MAX);
    }
}
