//! Drives one session with a process: reads, feeds the state machine, does what it says.

mod start;
mod turn;

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::session::{Departure, DeviceProcess, ProcessAction};
use holdfast_protocol::wire::{Exit, Open, SessionRefusal, Signal};
use smol::Async;

use self::turn::{Deadline, DriverEvent};
use super::agent_socket::AgentSocket;
use super::launch::HeldLogin;
use super::pump::{PeerGone, Pump};
use super::registry::{AgentSessions, SessionSlot};
use crate::os::process::SessionProcess;
use crate::os::{clock, pty};
use crate::recording::NotRecordable;

/// One session with a process.
pub(super) struct ProcessDriver {
    sessions: Arc<AgentSessions>,
    core: DeviceProcess,
    pump: Pump,
    /// Since the `Open`, unless it was refused.
    slot: Option<SessionSlot>,
    process: Option<SessionProcess>,
    /// Its share of a PAM session.
    login: Option<HeldLogin>,
    /// The exit of `process`, if it has ended; it is reaped only when the session is over.
    exited: Option<Exit>,
    terminal: Option<Arc<Async<OwnedFd>>>,
    /// The place where the session's processes reach the operator's SSH agent.
    agent: Option<AgentSocket>,
    /// The state machine's time begins here.
    epoch: Instant,
    deadline: Deadline,
}

impl ProcessDriver {
    /// Runs the session to its end.
    pub(super) async fn run(sessions: Arc<AgentSessions>, pump: Pump, open: Open) {
        let mut driver = Self {
            sessions,
            core: DeviceProcess::new(&open),
            pump,
            slot: None,
            process: None,
            login: None,
            exited: None,
            terminal: None,
            agent: None,
            epoch: clock::instant(),
            deadline: Deadline::never(),
        };
        // Boxed: what a start needs would otherwise be held for the session's whole life.
        Box::pin(driver.start(open)).await;
        driver.drive().await;
    }

    async fn drive(&mut self) {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action);
            }
            if self.core.is_done() && self.pump.gone.is_some() {
                self.end_recording();
                break self.pump.outbound.reset();
            }
            match poll_fn(|cx| self.poll(cx)).await {
                DriverEvent::Flushed => {
                    self.end_recording();
                    break self.pump.finish().await;
                }
                event => self.handle(event),
            }
        }
        if let Some(process) = &mut self.process {
            process.reap();
            self.sessions.sweep_tasks();
        }
        if let Some(agent) = self.agent.take() {
            agent.close();
        }
        drop(self.slot.take());
    }

    fn handle(&mut self, event: DriverEvent) {
        let now = self.epoch.elapsed();
        match event {
            DriverEvent::Message(message) => {
                if self.core.handle_message(message).is_err() {
                    self.peer_gone(PeerGone::Client);
                }
            }
            DriverEvent::PeerGone(gone) => self.peer_gone(gone),
            DriverEvent::Unrecordable(why) => self.cut_off(why),
            DriverEvent::Arrival(message) => self.send(&message),
            DriverEvent::OutputEnded => self.core.handle_output_ended(),
            DriverEvent::Exited(exit) => {
                self.exited = Some(exit);
                self.pump.inbound.stdin.close();
                self.core.handle_exited(now, exit);
            }
            DriverEvent::Timeout => self.core.handle_timeout(now),
            DriverEvent::Flushed => {}
        }
    }

    fn peer_gone(&mut self, gone: PeerGone) {
        self.pump.gone.get_or_insert(gone);
        let now = self.epoch.elapsed();
        self.core.handle_peer_gone(now, gone.departure());
    }

    /// Ends a session that can't be recorded any more: the operator gets the reason, and the process is hung up.
    fn cut_off(&mut self, NotRecordable(why): NotRecordable) {
        let refusal = SessionMessage::Refused(SessionRefusal::RecordingUnavailable(why));
        match self.pump.cut_off(&refusal) {
            Ok(()) => {
                let now = self.epoch.elapsed();
                self.core.handle_peer_gone(now, Departure::Ordered);
            }
            Err(_) => self.peer_gone(PeerGone::Client),
        }
    }

    fn end_recording(&mut self) {
        let ended = match self.process {
            Some(_) => EndReason::Exited,
            None => EndReason::NotStarted,
        };
        let why = self.pump.end_reason().unwrap_or(ended);
        let exit = self.exited.filter(|_| self.process.is_some());
        self.pump.recording.end(exit, why);
    }

    fn act(&mut self, action: ProcessAction) {
        match action {
            ProcessAction::Send(message) => self.send(&message),
            // As with sshd, the end of the client's input does not end a terminal's: a pipe into
            // `ssh -tt` leaves the shell waiting. So `close_after_queue` knows pipes only.
            ProcessAction::CloseStdin if self.terminal.is_some() => {}
            ProcessAction::CloseStdin => self.pump.inbound.stdin.close_after_queue(),
            ProcessAction::CloseStdout => self.pump.outbound.close_stdout(),
            ProcessAction::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    pty::resize(terminal, size);
                }
            }
            ProcessAction::Signal(signal) => self.signal(signal),
            ProcessAction::Hangup => self.hang_up(),
            ProcessAction::Kill => self.signal(Signal::Kill),
            ProcessAction::Detach => self.detach(),
            ProcessAction::Leave => self.leave(),
            ProcessAction::StopOutput => self.pump.outbound.stop_sources(),
            ProcessAction::Finish => {}
        }
    }

    fn send(&mut self, message: &SessionMessage) {
        if self.pump.send(message).is_err() {
            self.peer_gone(PeerGone::Client);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Says HUP and ends the input. A terminal hangs up by itself when the last holder of our end lets go
    /// of it: its foreground group gets HUP too, and no process stays blocked on it.
    fn hang_up(&mut self) {
        self.signal(Signal::Hup);
        self.pump.inbound.stdin.close();
        if self.terminal.take().is_none() {
            return;
        }
        if self.pump.is_cut_off() {
            self.pump.outbound.close_sources();
        } else {
            self.pump.outbound.close();
        }
    }

    /// Closes the streams and the terminal after the observer is lost, as when sshd's connection closes.
    /// The kernel sends HUP where there was a terminal; nothing is sent here.
    fn detach(&mut self) {
        self.pump.inbound.stdin.close();
        self.pump.outbound.close();
        self.terminal = None;
        if let Some(process) = self.process.take() {
            process.leave();
        }
        self.login = None;
    }

    /// Notes that the observer is lost, and the process keeps its terminal or its output. From here on nothing of it
    /// is shown, so the recording ends here.
    fn leave(&mut self) {
        self.end_recording();
        self.pump.inbound.stdin.close();
        self.pump.outbound.reset();
        if let Some(slot) = &mut self.slot {
            slot.leave();
        }
    }
}
