//! `su`, and the shell below it that waits for the end of the PAM session.

use std::io::{self, ErrorKind, Read as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::PamResult;
use crate::os::clock;
use crate::session::limits::{
    MAX_LOGIN_TEXT, PAM_CLOSE_TIMEOUT, PAM_END_POLL, PAM_END_TIMEOUT, PAM_TIMEOUT,
    PAM_UNMOUNT_TIMEOUT,
};

/// The first words of the waiting shell; its number follows.
const MARK: &[u8] = b"holdfast-login ";

/// The script that it runs: only what is a part of the shell itself. It waits on its standard output, which is a
/// socket, because PAM is to find no one at its standard input: what it asks there would wait for ever.
const WAIT: &str = "echo holdfast-login $$; exec 2>/dev/null; read -r end <&1";

/// `su`, and the shell below it that waits until the socket closes.
pub(super) struct WaitingShell {
    su: Child,
    /// The shell, by a descriptor: its number is free as soon as `su` has taken its end. `None` before Linux 5.3.
    shell: Option<OwnedFd>,
    socket: UnixStream,
}

impl WaitingShell {
    /// Has `su` open a session, and reads what it gave.
    ///
    /// # Errors
    /// What PAM or `su` says.
    pub(super) fn start(su: &Path, name: &str, uid: u32) -> Result<(PamResult, Self), String> {
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
            // Opened before it is looked at, so that it is the process that is looked at.
            let shell = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            let given = PamResult::of(pid, waiting.su.id(), uid, notice).map_err(failed)?;
            waiting.shell = shell;
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

    /// Waits until the agent has no more use for it, or is gone, or the shell is.
    pub(super) fn wait(&self, control: &UnixStream) {
        while !self.is_over(control, None) {}
    }

    /// Returns whether one of the ends of [`Self::wait`] has come. It waits for it as long as `time` says.
    fn is_over(&self, control: &UnixStream, time: Option<&Timespec>) -> bool {
        let shell = match &self.shell {
            Some(shell) => PollFd::new(shell, PollFlags::IN),
            // Only its end counts, because PAM's modules may write there at any time. It comes with that of `su`.
            None => PollFd::new(&self.socket, PollFlags::empty()),
        };
        let mut ends = [PollFd::new(control, PollFlags::IN), shell];
        !matches!(poll(&mut ends, time), Ok(0) | Err(Errno::INTR))
    }

    /// Closes the PAM session. Whatever its account does with the shell, `su` begins with it soon; it then has the time
    /// that PAM's modules need.
    pub(super) fn close(mut self) {
        self.hang_up();
        // Its account may have stopped the shell, and with it `su` stops itself: woken, it wakes the shell.
        self.signal(Signal::CONT);
        if self.has_ended(PAM_CLOSE_TIMEOUT) {
            return;
        }
        let is_closing = self.shell.as_ref().is_some_and(|shell| {
            is_soon(PAM_END_TIMEOUT, || {
                // There is none to kill if `su` has taken its end: then PAM is closing the session.
                let is_taken = pidfd_send_signal(shell, Signal::KILL) == Err(Errno::SRCH);
                self.signal(Signal::CONT);
                is_taken
            })
        });
        // A shell that its account traces is kept from `su`.
        if !is_closing {
            self.signal(Signal::TERM);
            self.signal(Signal::CONT);
        }
        if !self.has_ended(PAM_UNMOUNT_TIMEOUT) {
            self.kill();
        }
    }

    /// Has the PAM session closed, and waits for that no longer than a person does who asks whether PAM works. What takes
    /// longer is not cut off.
    pub(super) fn leave(mut self) {
        self.hang_up();
        self.has_ended(PAM_CLOSE_TIMEOUT);
    }

    /// Ends what may not have come so far: `su` closes the session when it is asked to end.
    fn end(mut self) {
        self.hang_up();
        self.signal(Signal::TERM);
        if !self.has_ended(PAM_END_TIMEOUT) {
            self.kill();
        }
    }

    /// Has the shell read the end of its input. The socket stays open, because a module that writes there would be
    /// ended by SIGPIPE.
    fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let _ = self.socket.set_nonblocking(true);
    }

    /// Sends `signal` to `su`, whose number stays its own until [`Self::has_ended`] has seen its end.
    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.su), signal);
    }

    fn kill(&mut self) {
        let _ = self.su.kill();
        let _ = self.su.wait();
    }

    /// Waits for the end of `su`; returns whether it came in time.
    fn has_ended(&mut self, time: Duration) -> bool {
        is_soon(time, || {
            // So that who writes there does not wait for room. Not all of it, because there may be no end of it.
            let _ = self.socket.read(&mut [0; 4096]);
            !matches!(self.su.try_wait(), Ok(None))
        })
    }
}

/// Waits until `is_so`; returns whether that came in time.
fn is_soon(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = clock::instant() + time;
    while clock::instant() < deadline {
        if is_so() {
            return true;
        }
        sleep(PAM_END_POLL);
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
    use rustix::net::{RecvFlags, recv};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

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

    /// Starts a script in the place of `su`. Its `$4` is what `su` has the shell run, and `$0.go` the file that
    /// [`go`] makes.
    fn start(folder: &Path, script: &str) -> WaitingShell {
        let su = folder.join("su");
        fs::write(&su, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&su, Permissions::from_mode(0o755)).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        WaitingShell::start(&su, "root", uid).unwrap().1
    }

    fn go(folder: &Path) {
        fs::write(folder.join("su.go"), "").unwrap();
    }

    const GO: &str = "while [ ! -e \"$0.go\" ]; do sleep 0.01; done";
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    const SOON: Timespec = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };

    #[test]
    fn what_a_module_writes_does_not_end_the_session() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("sh -c \"$4\" & {GO}; echo late; wait");
        let mut waiting = start(folder.path(), &script);
        let (control, agent) = UnixStream::pair().unwrap();
        go(folder.path());
        let mut byte = [0; 1];
        let (count, _) = recv(&waiting.socket, &mut byte, RecvFlags::PEEK).unwrap();
        assert_eq!((count, byte), (1, *b"l"));
        let shell = waiting.shell.take();
        assert!(!waiting.is_over(&control, Some(&NOW)), "without a pidfd");
        waiting.shell = shell;
        assert!(waiting.shell.is_some() && !waiting.is_over(&control, Some(&NOW)));
        drop(agent);
        assert!(waiting.is_over(&control, Some(&NOW)));
        waiting.close();
    }

    #[test]
    fn a_session_whose_shell_has_ended_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut waiting = start(folder.path(), &format!("sh -c \"$4\"; {GO}"));
        let (control, _agent) = UnixStream::pair().unwrap();
        assert!(!waiting.is_over(&control, Some(&NOW)));
        let shell = waiting.shell.take().unwrap();
        pidfd_send_signal(&shell, Signal::KILL).unwrap();
        waiting.shell = Some(shell);
        assert!(
            waiting.is_over(&control, Some(&SOON)),
            "while PAM closes it"
        );
        // Before Linux 5.3 the end of `su` is what is seen.
        waiting.shell = None;
        assert!(!waiting.is_over(&control, Some(&NOW)));
        go(folder.path());
        assert!(waiting.is_over(&control, Some(&SOON)));
        waiting.close();
    }

    #[test]
    fn who_only_asks_does_not_wait_for_a_slow_close() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("sh -c \"$4\"; : >\"$0.closing\"; {GO}; : >\"$0.closed\"");
        let waiting = start(folder.path(), &script);
        let asked = clock::instant();
        waiting.leave();
        assert!(asked.elapsed() < PAM_CLOSE_TIMEOUT * 3);
        let exists = |end: &str| folder.path().join(end).exists();
        assert!(exists("su.closing") && !exists("su.closed"));
        go(folder.path());
        let closed = is_soon(Duration::from_secs(30), || exists("su.closed"));
        assert!(closed, "it was cut off");
    }

    // A home may be written back and unmounted: that is not cut off, however the shell has come to its end.
    #[test]
    fn su_has_time_to_close_a_session() {
        let stays = "sh -c 'echo holdfast-login $$; exec sleep 600'";
        let closes = "echo closing; sleep 4; : >\"$0.closed\"";
        let slow = PAM_CLOSE_TIMEOUT + PAM_END_TIMEOUT + Duration::from_secs(1);
        let scripts = [
            // The shell ends, but the session takes its time.
            (
                format!(
                    "trap : TERM; sh -c \"$4\"; sleep {}; {closes}",
                    slow.as_secs()
                ),
                true,
            ),
            // The shell does not end.
            (format!("trap : TERM; {stays}; {closes}"), true),
            (
                format!("trap 'kill $!; {closes}; exit' TERM; {stays} & wait"),
                false,
            ),
        ];
        let closing = scripts.map(|(script, by_pidfd)| {
            thread::spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                let mut waiting = start(folder.path(), &script);
                if !by_pidfd {
                    waiting.shell = None;
                }
                waiting.close();
                assert!(folder.path().join("su.closed").exists(), "{script}");
            })
        });
        for closing in closing {
            closing.join().unwrap();
        }
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
