//! The helper: the parent of the `su` that holds a PAM session open.

use crate::os::clock;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::wire::SessionRefusal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, Signal, kill_process, setsid};
use rustix::stdio::stdin;

use super::{LoginAnswer, LoginMode, LoginTask, PamResult, bounded_length, no_pam};
use crate::os::accounts;
use crate::session::launch::account::{prepare, take_loginuid};
use crate::session::launch::helper::{close_inherited, default_signals};
use crate::session::limits::{
    MAX_LOGIN_TASK, MAX_LOGIN_TEXT, PAM_CLOSE_TIMEOUT, PAM_END_POLL, PAM_END_TIMEOUT, PAM_TIMEOUT,
};

/// The first words of the waiting shell; its number follows.
const MARK: &[u8] = b"holdfast-login ";

/// The script that it runs: only what is a part of the shell itself. It waits on its standard output, which is a
/// socket, because PAM is to find no one at its standard input: what it asks there would wait for ever.
const WAIT: &str = "echo holdfast-login $$; exec 2>/dev/null; read -r end <&1";

/// The messages of PAM's modules, in English as no language is set, about a password that must be changed before
/// anything else.
const CHANGE: [&str; 2] = ["change your password", "password has expired"];

/// The name of the account by which is seen whether PAM works at all.
const ROOT: &str = "root";

/// Runs the helper's whole life.
pub fn main() -> ! {
    if let Ok(control) = fcntl_dupfd_cloexec(stdin(), 3) {
        let mut control = UnixStream::from(control);
        close_inherited(control.as_raw_fd());
        // What ends the agent's group from a keyboard leaves time to close the session.
        let _ = setsid();
        serve(&mut control);
    }
    std::process::exit(0)
}

/// Tries whether PAM opens a session by this `su`.
///
/// # Errors
/// What PAM or `su` says.
pub fn probe(su: &Path) -> Result<(), String> {
    WaitingShell::start(su, ROOT, 0).map(|(_, waiting)| waiting.close())
}

fn serve(control: &mut UnixStream) {
    let (answer, session) = match read_task(control) {
        Ok(task) => open(&task),
        Err(error) => (LoginAnswer::Refused(no_pam(&error.to_string())), None),
    };
    let answer = postcard::to_allocvec(&answer).unwrap_or_default();
    let length = u32::try_from(answer.len()).unwrap_or(0);
    let said = control.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat());
    if let Some(session) = session {
        if said.is_ok() {
            session.wait(control);
            // From here on no other session takes it, however long it takes to close.
            let _ = control.shutdown(Shutdown::Both);
        }
        session.close();
    }
}

fn read_task(control: &mut UnixStream) -> io::Result<LoginTask> {
    let mut length = [0; 4];
    control.read_exact(&mut length)?;
    let mut task = vec![0; bounded_length(length, MAX_LOGIN_TASK)?];
    control.read_exact(&mut task)?;
    postcard::from_bytes(&task).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn open(task: &LoginTask) -> (LoginAnswer, Option<WaitingShell>) {
    // PAM is asked only for who the agent itself lets in.
    let account = match accounts::admit(&task.login, &task.denied) {
        Ok(account) => account,
        Err(refusal) => return (LoginAnswer::Refused(refusal), None),
    };
    if let Err(error) = prepare() {
        return (LoginAnswer::Refused(no_pam(&error.to_string())), None);
    }
    default_signals();
    take_loginuid(account.uid);
    let why = match WaitingShell::start(&task.su, &account.name, account.uid) {
        Ok((given, waiting)) => return (LoginAnswer::Opened(given), Some(waiting)),
        Err(why) => why,
    };
    // Root must get in to mend it; and what refuses even root is no verdict on an account.
    let is_broken = || probe(&task.su).is_err();
    if task.mode == LoginMode::Auto && (account.uid == 0 || is_broken()) {
        return (LoginAnswer::Bare(why), None);
    }
    let name = Escaped(&account.name);
    let text = match CHANGE.iter().any(|words| why.contains(words)) {
        true => format!(
            "the password of {name} on the device must be changed first: as root, with `passwd {name}`"
        ),
        false => format!("PAM on the device refuses \"{name}\": {why}"),
    };
    let refusal = SessionRefusal::Failed(accounts::bounded(text));
    (LoginAnswer::Refused(refusal), None)
}

/// `su`, and the shell below it that waits until the socket closes.
struct WaitingShell {
    su: Child,
    /// The shell, once it is known to be a child of `su`.
    shell: Option<Pid>,
    socket: UnixStream,
}

impl WaitingShell {
    /// Has `su` open a session, and reads what it gave.
    fn start(su: &Path, name: &str, uid: u32) -> Result<(PamResult, Self), String> {
        let failed = |error: io::Error| error.to_string();
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        let errors = theirs.try_clone().map_err(failed)?;
        let child = Command::new(su)
            .args(["-s", "/bin/sh", "-c", WAIT, "--", name])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(theirs))
            .stderr(OwnedFd::from(errors))
            .spawn()
            .map_err(|error| format!("{}: {error}", su.display()))?;
        let mut waiting = Self {
            su: child,
            shell: None,
            socket,
        };
        let started = said(&mut waiting.socket).and_then(|(pid, notice)| {
            let given = PamResult::of(pid, waiting.su.id(), uid, notice).map_err(failed)?;
            waiting.shell = i32::try_from(pid).ok().and_then(Pid::from_raw);
            Ok(given)
        });
        match started {
            Ok(given) => Ok((given, waiting)),
            Err(why) => {
                waiting.end();
                Err(why)
            }
        }
    }

    /// Waits until the agent has no more use for it, or is gone, or the shell is. Nothing is ever said on either socket.
    fn wait(&self, control: &UnixStream) {
        let mut ends = [
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
        ];
        while poll(&mut ends, None) == Err(Errno::INTR) {}
    }

    /// Closes the PAM session.
    fn close(self) {
        let Self {
            mut su,
            shell,
            socket,
        } = self;
        drop(socket);
        // Its account may have stopped the shell, and with it `su` stops itself: woken, it wakes the shell.
        let _ = kill_process(Pid::from_child(&su), Signal::CONT);
        if has_ended(&mut su, PAM_CLOSE_TIMEOUT) {
            return;
        }
        if let Some(shell) = shell {
            let _ = kill_process(shell, Signal::KILL);
        }
        let _ = kill_process(Pid::from_child(&su), Signal::CONT);
        end(&mut su);
    }

    /// Ends what may not have come so far: `su` closes the session when it is asked to end.
    fn end(self) {
        let Self { mut su, socket, .. } = self;
        drop(socket);
        end(&mut su);
    }
}

/// Asks `su` to end, and kills it if it does not.
fn end(su: &mut Child) {
    let _ = kill_process(Pid::from_child(su), Signal::TERM);
    if !has_ended(su, PAM_END_TIMEOUT) {
        let _ = su.kill();
        let _ = su.wait();
    }
}

/// Waits for the end of `su`; returns whether it came in time.
fn has_ended(su: &mut Child, time: Duration) -> bool {
    let deadline = clock::instant() + time;
    while clock::instant() < deadline {
        match su.try_wait() {
            Ok(None) => sleep(PAM_END_POLL),
            _ => return true,
        }
    }
    false
}

/// Reads up to the mark: the number behind it, and what PAM had to say before.
fn said(socket: &mut UnixStream) -> Result<(u32, String), String> {
    let deadline = clock::instant() + PAM_TIMEOUT;
    let late = || format!("no answer within {} s", PAM_TIMEOUT.as_secs());
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return Err(late());
        }
        let mut piece = [0; 1024];
        let read = socket
            .set_read_timeout(Some(left))
            .and_then(|()| socket.read(&mut piece));
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error.to_string()),
        };
        text.extend_from_slice(piece.get(..count).unwrap_or_default());
        if let Some(found) = marked(&text) {
            return Ok(found);
        }
        if count == 0 || text.len() > MAX_LOGIN_TEXT {
            return Err(words(&text));
        }
    }
}

/// Returns the text before the mark, and the number behind it.
fn marked(text: &[u8]) -> Option<(u32, String)> {
    let at = text.windows(MARK.len()).position(|part| part == MARK)?;
    let (notice, rest) = (text.get(..at)?, text.get(at + MARK.len()..)?);
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let number = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some((
        number.trim().parse().ok()?,
        String::from_utf8_lossy(notice).into_owned(),
    ))
}

/// Returns a message of `su`, on one line.
fn words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "it says nothing".to_owned(),
        false => lines.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mark_is_found_behind_what_pam_says() {
        let text = b"Your password will expire in 3 days\nholdfast-login 4711\nmore";
        let notice = "Your password will expire in 3 days\n".to_owned();
        assert_eq!(marked(text), Some((4711, notice)));
        for early in [
            "",
            "holdfast-login ",
            "holdfast-login 47",
            "holdfast-login x\n",
        ] {
            assert_eq!(marked(early.as_bytes()), None, "{early}");
        }
        assert_eq!(words(b"one\n\n two \n"), "one; two");
        assert_eq!(words(b"\n"), "it says nothing");
    }

    proptest! {
        #[test]
        fn nothing_that_su_says_panics(text: Vec<u8>, close in "(holdfast-login )?[0-9x]{0,12}\n?") {
            marked(&text);
            marked(close.as_bytes());
            words(&text);
        }
    }
}
