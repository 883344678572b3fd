//! A session's process: its end, its signals, its pipes.

pub mod left;

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Child;
use std::task::{Context, Poll};

use futures_lite::Stream as _;
use holdfast_protocol::wire::{Exit, Signal};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal as Number, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group,
    pidfd_open, waitid,
};
use smol::{Async, Timer};

use crate::os::limits::{EXIT_POLL, PIPE_BYTES};

/// The leader of a session's process group. It stays a zombie until [`Self::reap`], so that neither its
/// number nor its group's can be given to another process while signals may still be sent.
#[derive(Debug)]
pub(crate) struct SessionProcess {
    pid: Pid,
    watch: ExitWatch,
    /// It ran when it was last looked at.
    looked: bool,
    reaped: bool,
}

#[derive(Debug)]
enum ExitWatch {
    Pidfd(Async<OwnedFd>),
    /// Kernels before 5.3 have no pidfd: one looks from time to time.
    Polled(Timer),
}

impl SessionProcess {
    /// Takes over a child that was just started and not waited for.
    pub(crate) fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let watch = pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(Async::new)
            .map_or_else(
                |_| ExitWatch::Polled(Timer::interval(EXIT_POLL)),
                ExitWatch::Pidfd,
            );
        Self {
            pid,
            watch,
            looked: false,
            reaped: false,
        }
    }

    /// Returns its number.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// Becomes ready when the process has ended, with its exit.
    pub(crate) fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        loop {
            if self.looked {
                let pending = match &mut self.watch {
                    ExitWatch::Pidfd(fd) => fd.poll_readable(cx).is_pending(),
                    ExitWatch::Polled(timer) => Pin::new(timer).poll_next(cx).is_pending(),
                };
                if pending {
                    return Poll::Pending;
                }
            }
            self.looked = true;
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(WaitId::Pid(self.pid), look) {
                Ok(Some(status)) => return Poll::Ready(exit_of(&status)),
                Ok(None) | Err(Errno::INTR) => {}
                // It was reaped elsewhere: how it ended can't be known any more.
                Err(_) => return Poll::Ready(Exit::Status(255)),
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn exited(&mut self) -> Exit {
        std::future::poll_fn(|cx| self.poll_exit(cx)).await
    }

    /// Sends `signal` to the process group, as sshd does. A group that is gone is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(number) = number_of(signal)
            && !self.reaped
        {
            let _ = kill_process_group(self.pid, number);
        }
    }

    /// Sends `signal` to the process alone: the helper has no group of its own yet.
    pub(crate) fn kill_alone(&self) {
        if !self.reaped {
            let _ = rustix::process::kill_process(self.pid, Number::KILL);
        }
    }

    /// Lets it go on by itself: from now on nothing is sent to it, and its end concerns only the kernel.
    pub(crate) fn leave(mut self) {
        left::add(self.pid);
        self.reaped = true;
    }

    /// Takes the process off the kernel's table. After its end only.
    pub(crate) fn reap(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        self.reaped = matches!(waitid(WaitId::Pid(self.pid), options), Ok(Some(_)) | Err(_));
    }
}

impl Drop for SessionProcess {
    /// Sends HUP to what still runs of a session that is dropped before its end.
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::Hup);
            self.reap();
        }
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match status.terminating_signal() {
        Some(number) => Exit::Signal {
            signal: signal_of(number),
            core_dumped: status.dumped(),
        },
        None => Exit::Status(status.exit_status().map_or(255, i32::cast_unsigned)),
    }
}

/// Returns how a process has ended, from what `wait` gives.
pub(crate) fn exit_of_wait(status: u32) -> Exit {
    match status & 0x7f {
        0 => Exit::Status(status >> 8 & 0xff),
        number => Exit::Signal {
            signal: signal_of(number.cast_signed()),
            core_dumped: status & 0x80 != 0,
        },
    }
}

/// The name that both ends use for a signal, beside this kernel's number of it.
const SIGNALS: [(Signal, Number); 19] = [
    (Signal::Abrt, Number::ABORT),
    (Signal::Alrm, Number::ALARM),
    (Signal::Fpe, Number::FPE),
    (Signal::Hup, Number::HUP),
    (Signal::Ill, Number::ILL),
    (Signal::Int, Number::INT),
    (Signal::Kill, Number::KILL),
    (Signal::Pipe, Number::PIPE),
    (Signal::Quit, Number::QUIT),
    (Signal::Segv, Number::SEGV),
    (Signal::Term, Number::TERM),
    (Signal::Usr1, Number::USR1),
    (Signal::Usr2, Number::USR2),
    (Signal::Winch, Number::WINCH),
    (Signal::Bus, Number::BUS),
    (Signal::Sys, Number::SYS),
    (Signal::Trap, Number::TRAP),
    (Signal::Xcpu, Number::XCPU),
    (Signal::Xfsz, Number::XFSZ),
];

fn number_of(signal: Signal) -> Option<Number> {
    if let Signal::Other(number) = signal {
        return Number::from_named_raw(number.into());
    }
    SIGNALS
        .iter()
        .find(|(name, _)| *name == signal)
        .map(|(_, number)| *number)
}

fn signal_of(number: i32) -> Signal {
    let known = SIGNALS.iter().find(|(_, known)| known.as_raw() == number);
    known.map_or(
        Signal::Other(u8::try_from(number).unwrap_or(u8::MAX)),
        |(name, _)| *name,
    )
}

/// The ends of the pipes of a process without a terminal.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// For the process, in the order of its descriptors 0, 1, 2.
    pub(crate) theirs: [OwnedFd; 3],
    /// The writing end of its stdin.
    pub(crate) stdin: Async<OwnedFd>,
    /// The reading end of its stdout.
    pub(crate) stdout: Async<OwnedFd>,
    /// The reading end of its stderr.
    pub(crate) stderr: Async<OwnedFd>,
}

impl Pipes {
    /// Makes three pipes.
    ///
    /// # Errors
    /// What the kernel says when it has no more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        for bulk in [&stdin, &stdout] {
            // Best effort: an account that holds many pipes already is refused.
            let _ = fcntl_setpipe_size(bulk, PIPE_BYTES);
        }
        Ok(Self {
            theirs: [their_stdin, their_stdout, their_stderr],
            stdin: Async::new(stdin)?,
            stdout: Async::new(stdout)?,
            stderr: Async::new(stderr)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_one_name_and_one_number() {
        for (name, number) in SIGNALS {
            assert_eq!(number_of(name), Some(number));
            assert_eq!(signal_of(number.as_raw()), name);
        }
        assert_eq!(signal_of(64), Signal::Other(64));
        assert_eq!(number_of(Signal::Other(200)), None);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "to wait for it is what is tested")]
    fn the_end_is_seen_with_and_without_a_pidfd() {
        for polled in [false, true] {
            let child = std::process::Command::new("sh")
                .args(["-c", "exit 3"])
                .spawn()
                .unwrap();
            let mut process = SessionProcess::new(&child);
            if polled {
                process.watch = ExitWatch::Polled(Timer::interval(EXIT_POLL));
            }
            assert_eq!(smol::block_on(process.exited()), Exit::Status(3));
            assert_eq!(
                smol::block_on(process.exited()),
                Exit::Status(3),
                "it is a zombie still"
            );
            process.reap();
            assert!(process.reaped);
        }
    }
}
