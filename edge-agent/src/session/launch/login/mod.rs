//! Login sessions by the device's PAM, which gives a session variables, limits, groups, a runtime folder, and its
//! consent.
//!
//! A static program cannot load PAM's modules. `su` can: it is a program of the device, opens a PAM session for the
//! account that root names, and closes it when what it started ends. So a helper of the agent has `su` start a shell
//! that only waits, reads from the kernel what that shell was given (its environment, limits and groups), and hands it
//! on. The session itself stays a child of the agent: with the exact end of its process, its own group and terminal,
//! and no stranger among its children. The waiting shell holds the PAM session open until the agent closes the helper's
//! socket.
//!
//! What belongs to a process and cannot be handed on stays with the waiting shell: a mount namespace (pam_namespace),
//! an SELinux context, the cgroup of logind's session.

mod given;
mod helper;
mod shared;
mod waiting;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{Open, SessionRefusal};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use smol::{Async, Timer};

use super::start_helper;
use crate::os::process::SessionProcess;
use crate::os::{accounts, clock, runtime};
use crate::session::limits::{
    LAUNCH_TIMEOUT, MAX_CLOSING_LOGINS, MAX_LOGIN_ANSWER, PAM_CLOSE_TIMEOUT, PAM_END_POLL,
};
use crate::warn;

pub(super) use given::PamResult;
pub(crate) use shared::{HeldLogin, LoginSessions};

pub use helper::{main, probe};

/// The first argument of the agent when it is to be this helper.
pub const ARGUMENT: &str = "internal-login";

/// The place where `su` is, on distributions and on NixOS.
const SU: [&str; 4] = [
    "/usr/bin/su",
    "/bin/su",
    "/run/current-system/sw/bin/su",
    "/usr/local/bin/su",
];

/// The place where PAM's rules for `su` are.
const RULES: [&str; 2] = ["/etc/pam.d/su", "/usr/lib/pam.d/su"];

/// The name of the account by which is seen whether PAM works at all.
const ROOT: &str = "root";

/// The reason of a refusal where earlier sessions do not end.
const TOO_MANY: &str = "too many earlier sessions are still being closed; try again in a moment";

/// Names who makes a session a login session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum LoginMode {
    /// PAM where it is and works, else as bare
    #[default]
    Auto,
    /// PAM; without it there is no session
    Pam,
    /// The agent alone, with /etc/environment and loginuid
    Bare,
}

/// The reason why PAM opens no sessions on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No account but the agent's own is served.
    Root,
    /// There is no `su`, or it is one that knows no PAM.
    Su,
    /// PAM has no rules for it.
    Rules,
}

impl Missing {
    /// Returns what is missing.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Root => "the agent is not root",
            Self::Su => "there is no su that uses PAM",
            Self::Rules => "PAM has no rules for su (/etc/pam.d/su)",
        }
    }
}

/// Returns the `su` by which PAM opens sessions here.
///
/// # Errors
/// Why there is none.
pub fn find_su() -> Result<PathBuf, Missing> {
    if !geteuid().is_root() {
        return Err(Missing::Root);
    }
    let su = SU.into_iter().find_map(|path| {
        // BusyBox, and what else is many programs in one, is a link to another name.
        let real = Path::new(path).canonicalize().ok()?;
        (real.file_name()? == "su").then(|| PathBuf::from(path))
    });
    let su = su.ok_or(Missing::Su)?;
    match RULES.iter().any(|path| Path::new(path).exists()) {
        true => Ok(su),
        false => Err(Missing::Rules),
    }
}

/// The task for the helper.
#[derive(Serialize, Deserialize)]
struct LoginTask {
    su: PathBuf,
    login: Login,
    denied: Vec<Login>,
    mode: LoginMode,
}

/// The helper's result.
#[derive(Serialize, Deserialize)]
enum LoginAnswer {
    /// The session is open.
    Opened(PamResult),
    /// PAM does not work on this device, for this reason: the session does without.
    Bare(String),
    /// There is no session.
    Refused(SessionRefusal),
}

/// An open PAM session. It is closed when this is dropped.
#[derive(Debug)]
struct PamSession {
    control: Async<UnixStream>,
    process: Option<SessionProcess>,
}

impl PamSession {
    /// Returns whether it is open still: the helper closes its socket when the waiting shell has ended.
    fn is_open(&self) -> bool {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.control, &mut [0; 1], look).is_err_and(|error| error == Errno::AGAIN)
    }
}

/// The number of helpers that close their sessions.
static CLOSING: AtomicUsize = AtomicUsize::new(0);

impl Drop for PamSession {
    fn drop(&mut self) {
        // The helper ends when its socket closes.
        if let Some(mut process) = self.process.take() {
            CLOSING.fetch_add(1, Ordering::Relaxed);
            runtime::spawn(async move {
                process.exited().await;
                process.reap();
                CLOSING.fetch_sub(1, Ordering::Relaxed);
            })
            .detach();
        }
    }
}

/// Waits until few enough sessions are being closed that another may be opened; returns whether that came in time.
async fn is_free(time: Duration) -> bool {
    let deadline = clock::instant() + time;
    while CLOSING.load(Ordering::Relaxed) >= MAX_CLOSING_LOGINS {
        if clock::instant() >= deadline {
            return false;
        }
        Timer::after(PAM_END_POLL).await;
    }
    true
}

/// Opens a PAM session for the login of `open`, where `mode` and the device have it so.
///
/// # Errors
/// The refusal, for the operator.
async fn open(
    program: &Path,
    open: &Open,
    mode: LoginMode,
) -> Result<Option<(PamSession, PamResult)>, SessionRefusal> {
    let su = match (mode, find_su()) {
        (LoginMode::Bare, _) | (LoginMode::Auto, Err(_)) => return Ok(None),
        (LoginMode::Pam, Err(missing)) => return Err(no_pam(missing.text())),
        (LoginMode::Auto | LoginMode::Pam, Ok(su)) => su,
    };
    if !is_free(PAM_CLOSE_TIMEOUT).await {
        return match (mode, open.login.as_str()) {
            // Root must get in to mend it.
            (LoginMode::Auto, ROOT) => Ok(None),
            _ => Err(no_pam(TOO_MANY)),
        };
    }
    let task = LoginTask {
        su,
        login: open.login.clone(),
        denied: open.terms.denied_logins.clone(),
        mode,
    };
    let task = postcard::to_allocvec(&task).map_err(|_| no_pam("the request is too large"))?;
    let failed = |error: io::Error| no_pam(&error.to_string());
    let (control, process) = start_helper(program, ARGUMENT).map_err(failed)?;
    let held = PamSession {
        control,
        process: Some(process),
    };
    let answer = async { converse(&held.control, &task).await }
        .or(async {
            Timer::after(LAUNCH_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await;
    match answer.map_err(failed)? {
        LoginAnswer::Opened(given) => Ok(Some((held, given))),
        LoginAnswer::Bare(why) => {
            warn!("session {}: without PAM: {why}", open.session);
            Ok(None)
        }
        LoginAnswer::Refused(refusal) => Err(refusal),
    }
}

fn no_pam(why: &str) -> SessionRefusal {
    SessionRefusal::Failed(accounts::bounded(format!(
        "the device's PAM opens no session (edge-agent run --login bare does without it): {why}"
    )))
}

async fn converse(mut control: &Async<UnixStream>, task: &[u8]) -> io::Result<LoginAnswer> {
    let length = u32::try_from(task.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    control
        .write_all(&[&length.to_be_bytes(), task].concat())
        .await?;
    let mut length = [0; 4];
    control.read_exact(&mut length).await?;
    let mut answer = vec![0; bounded_length(length, MAX_LOGIN_ANSWER)?];
    control.read_exact(&mut answer).await?;
    postcard::from_bytes(&answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn bounded_length(length: [u8; 4], most: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).ok();
    let length = length.filter(|length| *length <= most);
    length.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Starts a helper that stays until its input ends, and returns it with that.
    #[expect(
        clippy::zombie_processes,
        reason = "the session reaps it, which is what is tested"
    )]
    fn helper() -> (PamSession, std::process::ChildStdin) {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let (control, _) = UnixStream::pair().unwrap();
        let session = PamSession {
            control: Async::new(control).unwrap(),
            process: Some(SessionProcess::new(&child)),
        };
        (session, input)
    }

    #[test]
    fn none_is_opened_while_too_many_are_being_closed() {
        runtime::run(async {
            let mut helpers: Vec<_> = (0..MAX_CLOSING_LOGINS).map(|_| helper()).collect();
            assert!(is_free(Duration::ZERO).await, "all of them are open");
            let mut inputs = Vec::new();
            for (session, input) in helpers.drain(..) {
                assert!(is_free(Duration::ZERO).await);
                drop(session);
                inputs.push(input);
            }
            assert!(!is_free(PAM_END_POLL).await);
            inputs.pop();
            assert!(is_free(Duration::from_secs(30)).await, "one has ended");
        });
    }
}
