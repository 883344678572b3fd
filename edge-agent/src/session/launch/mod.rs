//! Starts a session's process, without `unsafe`.
//!
//! Between a fork and an exec one may do little in a program with threads, and Rust has no safe way to
//! do it. So the agent runs *itself* as a helper of one thread, which takes a terminal or pipes, becomes
//! the account and turns into its shell ([`helper`]). What it shall do comes over a socket, descriptors
//! and all, because every user of the device can read the arguments of every process, and a command may
//! hold a secret. Over the same socket a refusal comes back; its end without one means that the shell runs.

mod account;
mod helper;
pub mod login;
mod tasks;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use holdfast_protocol::limits::{MAX_OPEN_MESSAGE, MAX_SESSION_MESSAGE};
use holdfast_protocol::wire::{Open, SessionRefusal, SessionTerms};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use smol::{Async, Timer};

use self::login::{LoginMode, PamResult};
use crate::os::process::{Pipes, SessionProcess};
use crate::os::pty::OpenTerminal;
use crate::os::runtime;
use crate::session::limits::{LAUNCH_TIMEOUT, MAX_LOGIN_ANSWER};
use crate::session::subsystem::SftpServer;

pub use helper::main;
pub use tasks::TaskLimit;

pub(crate) use account::become_account;
pub(crate) use helper::close_inherited;
pub(crate) use login::{HeldLogin, LoginSessions};

/// The first argument of the agent when it is to be the helper.
pub const ARGUMENT: &str = "internal-launch";

/// Largest instructions: an `Open`, three paths and a time zone, and what PAM gave.
const MAX_INSTRUCTIONS: u64 = (MAX_OPEN_MESSAGE + MAX_LOGIN_ANSWER) as u64 + 8 * 1024;

/// Largest answer: the byte [`READY`], the byte [`REFUSED`] and a refusal.
const MAX_ANSWER: u64 = MAX_SESSION_MESSAGE as u64;

/// The helper is about to become the shell.
const READY: u8 = 1;

/// A [`SessionRefusal`] follows, in postcard.
const REFUSED: u8 = 2;

/// The task for the helper. Its descriptors come beside: the terminal, or three pipes.
#[derive(Serialize, Deserialize)]
struct Instructions {
    /// With `env` already filtered.
    open: Open,
    /// The terminal's path, when there is one.
    tty: Option<String>,
    /// The agent's own `TZ`.
    time_zone: Option<String>,
    /// The server of sftp.
    sftp_server: SftpServer,
    /// The terms of `open`, which do not travel within it.
    terms: SessionTerms,
    /// The socket of the operator's SSH agent.
    agent_socket: Option<String>,
    /// The bound on the session's tasks.
    tasks: TaskLimit,
    /// The result of PAM, where it opened the session.
    given: Option<PamResult>,
}

/// The parts that all sessions of this agent share.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    /// The agent itself.
    pub(crate) program: &'a Path,
    /// The server of sftp.
    pub(crate) sftp_server: &'a SftpServer,
    /// The bound on the processes.
    pub(crate) tasks: &'a TaskLimit,
    /// The way in which login sessions are opened.
    pub(crate) mode: LoginMode,
    /// Those that are open.
    pub(crate) logins: &'a Arc<LoginSessions>,
}

/// A process that runs, and our ends of what it reads and writes.
#[derive(Debug)]
pub(crate) struct Launched {
    /// It.
    pub(crate) process: SessionProcess,
    /// Our ends.
    pub(crate) ends: Ends,
    /// The PAM session, for as long as the process runs.
    pub(crate) login: Option<HeldLogin>,
}

/// Our ends of a process's standard streams.
#[derive(Debug)]
pub(crate) enum Ends {
    /// One terminal for all of them.
    Terminal(Async<OwnedFd>),
    /// Pipes.
    Pipes {
        /// Written.
        stdin: Async<OwnedFd>,
        /// Read.
        stdout: Async<OwnedFd>,
        /// Read.
        stderr: Async<OwnedFd>,
    },
}

/// Starts what `open` asks for, as the account that it names. At `agent_socket` the operator's SSH agent is reached.
///
/// # Errors
/// Why there is no process, for the operator.
pub(crate) async fn launch(
    common: Common<'_>,
    open: Open,
    agent_socket: Option<String>,
) -> Result<Launched, SessionRefusal> {
    // It starts while PAM opens the session.
    let (control, mut process) =
        start_helper(common.program, ARGUMENT).map_err(|e| failed("no process", e))?;
    match instruct(&control, common, open, agent_socket).await {
        Ok((login, ends)) => Ok(Launched {
            process,
            ends,
            login,
        }),
        Err(refusal) => {
            process.kill_alone();
            // A helper that hangs in a dead file system dies when the kernel lets it: not waited for here.
            runtime::spawn(async move {
                process.exited().await;
                process.reap();
            })
            .detach();
            Err(refusal)
        }
    }
}

/// Has the helper become what `open` asks for.
async fn instruct(
    control: &Async<UnixStream>,
    common: Common<'_>,
    open: Open,
    agent_socket: Option<String>,
) -> Result<(Option<HeldLogin>, Ends), SessionRefusal> {
    let Common {
        program,
        sftp_server,
        tasks,
        mode,
        logins,
    } = common;
    let (login, given) = logins.open(program, &open, mode).await?.unzip();
    let (tty, theirs, ends) = open_ends(&open)?;
    let instructions = Instructions {
        terms: open.terms.clone(),
        agent_socket,
        tasks: tasks.clone(),
        given,
        open,
        tty,
        time_zone: std::env::var("TZ").ok(),
        sftp_server: sftp_server.clone(),
    };
    let instructions = postcard::to_allocvec(&instructions)
        .map_err(|_| SessionRefusal::Failed("the request can't be passed on".to_owned()))?;
    let answer = async { converse(control, instructions, theirs).await }
        .or(async {
            Timer::after(LAUNCH_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await;
    let answer = answer.map_err(|error| failed("the account's shell did not start", error))?;
    match refusal_in(&answer) {
        None => Ok((login, ends)),
        Some(refusal) => Err(refusal),
    }
}

/// Opens a terminal or pipes. Returns the terminal's path, the process's ends, and ours.
fn open_ends(open: &Open) -> Result<(Option<String>, Vec<OwnedFd>, Ends), SessionRefusal> {
    if let Some(asked) = &open.pty {
        let terminal = OpenTerminal::open(asked).map_err(|e| failed("no terminal", e))?;
        let tty = terminal.path.to_string_lossy().into_owned();
        let ends = Ends::Terminal(terminal.master);
        return Ok((Some(tty), vec![terminal.slave], ends));
    }
    let Pipes {
        theirs,
        stdin,
        stdout,
        stderr,
    } = Pipes::new().map_err(|e| failed("no pipes", e))?;
    let ends = Ends::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((None, theirs.into(), ends))
}

fn failed(what: &str, error: io::Error) -> SessionRefusal {
    SessionRefusal::Failed(format!("{what}: {error}"))
}

/// Starts the agent as a helper of the kind that `argument` names, with the way to it as its standard input.
pub(crate) fn start_helper(
    program: &Path,
    argument: &str,
) -> io::Result<(Async<UnixStream>, SessionProcess)> {
    let (control, theirs) = UnixStream::pair()?;
    let child = Command::new(program)
        .arg0("edge-agent")
        .arg(argument)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Async::new(control)?, SessionProcess::new(&child)))
}

/// Sends instructions and descriptors, and returns what is answered. Our copies of the descriptors are
/// closed: the process alone holds its ends from then on.
async fn converse(
    control: &Async<UnixStream>,
    instructions: Vec<u8>,
    theirs: Vec<OwnedFd>,
) -> io::Result<Vec<u8>> {
    let first = control
        .write_with(|control| send_with(control, &instructions, &theirs))
        .await?;
    drop(theirs);
    let mut control = control;
    control
        .write_all(instructions.get(first..).unwrap_or_default())
        .await?;
    control.get_ref().shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    control.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn send_with(control: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(
        control,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}

/// Returns what an answer of the helper says; `None` if the shell runs.
fn refusal_in(answer: &[u8]) -> Option<SessionRefusal> {
    let unclear =
        || SessionRefusal::Failed("the session's helper ended without an answer".to_owned());
    let after_ready = answer.strip_prefix(&[READY]);
    match after_ready.unwrap_or(answer) {
        [] if after_ready.is_some() => None,
        [REFUSED, refusal @ ..] => {
            Some(postcard::from_bytes(refusal).unwrap_or_else(|_| unclear()))
        }
        _ => Some(unclear()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_start_a_refusal_or_a_failure() {
        let refusal = postcard::to_allocvec(&SessionRefusal::NoShell).unwrap();
        assert_eq!(refusal_in(&[READY]), None);
        let refused = [&[REFUSED], refusal.as_slice()].concat();
        assert_eq!(refusal_in(&refused), Some(SessionRefusal::NoShell));
        assert_eq!(
            refusal_in(&[&[READY], refused.as_slice()].concat()),
            Some(SessionRefusal::NoShell)
        );
        for unclear in [&[][..], &[REFUSED], &[9], &[READY, READY], &[READY, 9]] {
            assert!(
                matches!(refusal_in(unclear), Some(SessionRefusal::Failed(_))),
                "{unclear:?}"
            );
        }
    }
}
