//! A session with a process on the device: between the stream to the relay and the process.

use alloc::vec::Vec;
use core::time::Duration;

use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::limits::{DRAIN_GRACE, HANGUP_GRACE};
use crate::session::SessionViolation;
use crate::wire::{Exit, OnDisconnect, Open, SessionRefusal, Signal, WindowSize};

/// The next action of the driver.
#[expect(clippy::large_enum_variant, reason = "each is made, done and gone")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessAction {
    /// Send this to the relay, behind all data that was read before.
    Send(SessionMessage),
    /// Close the process's stdin, behind all data that came before. With a PTY it does nothing, as in sshd.
    CloseStdin,
    /// Close our end of the process's stdout, so that it gets PIPE when it writes more. With a PTY it is read no more,
    /// as in sshd.
    CloseStdout,
    /// Set the terminal's size.
    Resize(WindowSize),
    /// Send a signal to the process group.
    Signal(Signal),
    /// The process is to stop: send HUP to the process group.
    Hangup,
    /// The observer is lost, as when sshd's connection closes: close the process's input, output and terminal, and let
    /// it go on. Nothing of it is observed any more.
    Detach,
    /// The observer is lost, and the process keeps its terminal: end its input, and discard its output until it exits.
    Leave,
    /// It did not go: send KILL to the process group.
    Kill,
    /// Stop reading output: what holds it open outlives the session (PTY only).
    StopOutput,
    /// The session is over: close the stream and forget it.
    Finish,
}

/// The reason why the relay's end of a session is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The observer is lost. What happens then is what the session's terms say.
    Lost,
    /// The session is to stop.
    Ordered,
}

/// The state machine of a session with a process. After each `handle_*`, call [`Self::poll_action`] until it gives
/// nothing.
#[derive(Debug)]
pub struct DeviceProcess {
    phase: ProcessPhase,
    pty: bool,
    stdin_ended: bool,
    output_ended: bool,
    /// The reason why the relay is gone, if it is.
    departure: Option<Departure>,
    /// The action when the observer is lost; `None`: as if the session were ordered to stop.
    on_disconnect: Option<OnDisconnect>,
    exit: Option<Exit>,
    timeout: Option<Duration>,
    actions: heapless::Deque<ProcessAction, 8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessPhase {
    Starting,
    Running,
    /// `Hangup` was said; the process has until the timeout.
    HangingUp,
    /// The observer is lost, and the process goes on until it exits.
    Left,
    Done,
}

impl DeviceProcess {
    /// Returns a session that was just opened: the process is to be started, which is reported with
    /// [`Self::handle_started`] or [`Self::handle_refused`].
    #[must_use]
    pub fn new(open: &Open) -> Self {
        Self {
            phase: ProcessPhase::Starting,
            pty: open.pty.is_some(),
            stdin_ended: false,
            output_ended: false,
            departure: None,
            on_disconnect: open.terms.on_disconnect,
            exit: None,
            timeout: None,
            actions: heapless::Deque::new(),
        }
    }

    /// Notes that a message came from the relay.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; treat it as [`Self::handle_peer_gone`].
    pub fn handle_message(&mut self, message: SessionMessage) -> Result<(), SessionViolation> {
        match message {
            SessionMessage::Open(_) => return Err(SessionViolation::Open),
            SessionMessage::Eof if self.stdin_ended => return Err(SessionViolation::AfterEof),
            SessionMessage::Eof => {
                self.stdin_ended = true;
                self.push(ProcessAction::CloseStdin);
            }
            SessionMessage::Resize(size) => self.push_live(ProcessAction::Resize(size)),
            SessionMessage::Signal(signal) => self.push_live(ProcessAction::Signal(signal)),
            SessionMessage::CloseStdout => self.push_live(ProcessAction::CloseStdout),
            SessionMessage::Accepted
            | SessionMessage::Refused(_)
            | SessionMessage::Exit(_)
            | SessionMessage::Address(_)
            | SessionMessage::Incoming(_)
            | SessionMessage::Names(_) => return Err(SessionViolation::Direction),
        }
        Ok(())
    }

    /// Notes that data came from the relay. The driver hands it to the process if this is `Ok(true)`, and drops it
    /// if `Ok(false)`: the process is gone.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&self, stream: DataStream) -> Result<bool, SessionViolation> {
        if stream != DataStream::Stdin {
            return Err(SessionViolation::Direction);
        }
        if self.stdin_ended {
            return Err(SessionViolation::AfterEof);
        }
        Ok(self.exit.is_none() && self.phase != ProcessPhase::Done)
    }

    /// Notes that the process runs; `names` are the other logins with the user id of its account.
    pub fn handle_started(&mut self, now: Duration, names: Vec<Login>) {
        if self.phase != ProcessPhase::Starting {
            return;
        }
        self.phase = ProcessPhase::Running;
        if let Some(departure) = self.departure {
            return self.depart(now, departure);
        }
        if !names.is_empty() {
            self.push(ProcessAction::Send(SessionMessage::Names(names)));
        }
        self.push(ProcessAction::Send(SessionMessage::Accepted));
    }

    /// Notes that no process was started.
    pub fn handle_refused(&mut self, why: SessionRefusal) {
        if self.phase == ProcessPhase::Starting {
            if self.departure.is_none() {
                self.push(ProcessAction::Send(SessionMessage::Refused(why)));
            }
            self.finish();
        }
    }

    /// Notes that the process (the leader of its group) has ended.
    pub fn handle_exited(&mut self, now: Duration, exit: Exit) {
        if self.exit.is_some() || self.phase == ProcessPhase::Done {
            return;
        }
        self.exit = Some(exit);
        if self.phase == ProcessPhase::Left {
            self.finish();
        } else if self.departure.is_some() {
            // The rest of the group has had its HUP; who ignores it is not waited for.
            self.push(ProcessAction::Kill);
            self.finish();
        } else if self.output_ended {
            self.conclude();
        } else if self.pty {
            // A job that was left in the background may hold the terminal open for ever, as with sshd;
            // without a PTY the pipes are waited for, as with sshd.
            self.timeout = Some(now + DRAIN_GRACE);
        }
    }

    /// Notes that every output of the process has come to its end and was handed to the relay's stream.
    pub fn handle_output_ended(&mut self) {
        if self.output_ended || self.phase == ProcessPhase::Done {
            return;
        }
        self.output_ended = true;
        if self.departure.is_none() {
            self.push(ProcessAction::Send(SessionMessage::Eof));
        }
        if self.exit.is_some() {
            self.conclude();
        }
    }

    /// Notes that the relay reset the stream, closed it before the end, broke the protocol, or the tunnel is lost.
    pub fn handle_peer_gone(&mut self, now: Duration, departure: Departure) {
        if self.departure.is_some() {
            return;
        }
        self.departure = Some(departure);
        match self.phase {
            ProcessPhase::Running if self.exit.is_some() => self.finish(),
            ProcessPhase::Running => self.depart(now, departure),
            ProcessPhase::Starting
            | ProcessPhase::HangingUp
            | ProcessPhase::Left
            | ProcessPhase::Done => {}
        }
    }

    /// Notes that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.timeout.is_none_or(|at| now < at) {
            return;
        }
        self.timeout = None;
        if self.phase == ProcessPhase::HangingUp {
            self.push(ProcessAction::Kill);
        } else if self.exit.is_some() && !self.output_ended {
            self.push(ProcessAction::StopOutput);
            self.handle_output_ended();
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns the next action, if any.
    pub fn poll_action(&mut self) -> Option<ProcessAction> {
        self.actions.pop_front()
    }

    /// Returns whether the session is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == ProcessPhase::Done
    }

    /// Handles the loss of the relay while the process runs.
    fn depart(&mut self, now: Duration, departure: Departure) {
        match (departure, self.on_disconnect) {
            (Departure::Lost, Some(OnDisconnect::Hup)) => {
                self.push(ProcessAction::Detach);
                self.finish();
            }
            (Departure::Lost, Some(OnDisconnect::Leave)) => {
                self.phase = ProcessPhase::Left;
                self.push(ProcessAction::Leave);
            }
            (Departure::Lost, Some(OnDisconnect::Kill) | None) | (Departure::Ordered, _) => {
                self.hang_up(now);
            }
        }
    }

    fn hang_up(&mut self, now: Duration) {
        self.phase = ProcessPhase::HangingUp;
        self.timeout = Some(now + HANGUP_GRACE);
        self.push(ProcessAction::Hangup);
    }

    /// Concludes a session whose output and process have both ended while the relay still listens.
    fn conclude(&mut self) {
        if let Some(exit) = self.exit
            && self.phase == ProcessPhase::Running
        {
            self.push(ProcessAction::Send(SessionMessage::Exit(exit)));
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.phase = ProcessPhase::Done;
        self.timeout = None;
        self.push(ProcessAction::Finish);
    }

    /// Pushes what makes sense only while a process runs.
    fn push_live(&mut self, action: ProcessAction) {
        if self.exit.is_none()
            && matches!(self.phase, ProcessPhase::Starting | ProcessPhase::Running)
        {
            self.push(action);
        }
    }

    fn push(&mut self, action: ProcessAction) {
        // One input yields at most four actions and the driver polls after each: nothing is dropped.
        let _ = self.actions.push_back(action);
    }
}

#[cfg(test)]
mod tests;
