//! Drives one session: reads, feeds the state machine, does what it says.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{Future as _, FutureExt as _};
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::session::{DeviceAction, DeviceSession};
use holdfast_protocol::wire::{Exit, Open, SessionRefusal, Signal};
use smol::{Async, Timer};

use super::inbound::{Inbound, Input};
use super::outbound::{Outbound, Output};
use super::{Sessions, Slot};
use crate::launch::{Ends, launch};
use crate::limits::{
    BULK_PRIORITY, FINISH_TIMEOUT, INTERACTIVE_PRIORITY, OPEN_TIMEOUT, TURN_BYTES,
};
use crate::process::Process;
use crate::{environment, pty};

/// One session.
pub(super) struct Driver {
    sessions: Arc<Sessions>,
    core: DeviceSession,
    inbound: Inbound,
    outbound: Outbound,
    /// Since the `Open`, unless it was refused.
    slot: Option<Slot>,
    process: Option<Process>,
    /// Whether `process` has ended; it is reaped only when the session is over.
    exited: bool,
    terminal: Option<Arc<Async<OwnedFd>>>,
    /// The state machine's time begins here.
    epoch: Instant,
    opened: bool,
    timer: Timer,
    /// What `timer` is set to.
    timer_at: Option<Duration>,
    /// The relay is not there any more: nothing need be sent.
    gone: bool,
}

/// What can happen to a session.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Event {
    Message(SessionMessage),
    PeerGone,
    OutputEnded,
    Exited(Exit),
    Timeout,
    /// The session is over, and its last word is on its way.
    Flushed,
}

impl Driver {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Self {
        Self {
            sessions,
            core: DeviceSession::default(),
            inbound: Inbound::new(recv),
            outbound: Outbound::new(send),
            slot: None,
            process: None,
            exited: false,
            terminal: None,
            epoch: Instant::now(),
            opened: false,
            timer: Timer::never(),
            timer_at: None,
            gone: false,
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(&mut self) {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action).await;
            }
            if self.core.is_done() && self.gone {
                break self.outbound.reset();
            }
            match poll_fn(|cx| self.poll(cx)).await {
                Event::Flushed => break self.finish().await,
                event => self.handle(event),
            }
        }
        if let Some(process) = &mut self.process {
            process.reap();
        }
        drop(self.slot.take());
    }

    fn handle(&mut self, event: Event) {
        let now = self.epoch.elapsed();
        match event {
            Event::Message(message) => {
                if self.core.handle_message(message).is_err() {
                    self.peer_gone(now);
                }
            }
            Event::PeerGone => self.peer_gone(now),
            Event::OutputEnded => self.core.handle_output_ended(),
            Event::Exited(exit) => {
                self.exited = true;
                self.inbound.stdin.close();
                self.core.handle_exited(now, exit);
            }
            Event::Timeout if self.opened => self.core.handle_timeout(now),
            Event::Timeout => self.peer_gone(now),
            Event::Flushed => {}
        }
    }

    fn peer_gone(&mut self, now: Duration) {
        self.gone = true;
        self.core.handle_peer_gone(now);
    }

    async fn act(&mut self, action: DeviceAction) {
        match action {
            DeviceAction::Start(open) => self.start(open).await,
            DeviceAction::Send(message) => match message.encode() {
                Ok(frame) => self.outbound.push(frame.into()),
                // Every text of ours is cut to its bound; if one was not, the stream can't go on.
                Err(_) => self.peer_gone(self.epoch.elapsed()),
            },
            // As with sshd, the end of the client's input does not end a terminal's: a pipe into
            // `ssh -tt` leaves the shell waiting. So `close_after_queue` knows pipes only.
            DeviceAction::CloseStdin if self.terminal.is_some() => {}
            DeviceAction::CloseStdin => self.inbound.stdin.close_after_queue(),
            DeviceAction::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    pty::resize(terminal, size);
                }
            }
            DeviceAction::Signal(signal) => self.signal(signal),
            DeviceAction::Hangup => self.hang_up(),
            DeviceAction::Kill => self.signal(Signal::Kill),
            DeviceAction::StopOutput => self.outbound.stop_sources(),
            DeviceAction::Finish => {}
        }
    }

    async fn start(&mut self, mut open: Open) {
        self.opened = true;
        self.slot = self.sessions.slot();
        if self.slot.is_none() {
            let max = self.sessions.config.max_sessions;
            return self
                .core
                .handle_refused(SessionRefusal::TooManySessions(max));
        }
        let is_interactive = open.pty.is_some();
        let priority = if is_interactive {
            INTERACTIVE_PRIORITY
        } else {
            BULK_PRIORITY
        };
        self.outbound.set_priority(priority);
        let config = &self.sessions.config;
        open.env = environment::filter(open.env, &config.accept_env);
        // Boxed: what a start needs would otherwise be held for the session's whole life.
        match Box::pin(launch(&config.program, open)).await {
            Ok(launched) => {
                self.process = Some(launched.process);
                self.connect(launched.ends);
                self.core.handle_started(self.epoch.elapsed());
            }
            Err(why) => self.core.handle_refused(why),
        }
    }

    fn connect(&mut self, ends: Ends) {
        match ends {
            Ends::Terminal(master) => {
                let master = Arc::new(master);
                self.inbound.stdin.open(Arc::clone(&master));
                self.outbound.open(Some(Arc::clone(&master)), None);
                self.terminal = Some(master);
            }
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                self.inbound.stdin.open(Arc::new(stdin));
                self.outbound
                    .open(Some(Arc::new(stdout)), Some(Arc::new(stderr)));
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Says HUP and ends the input. A terminal hangs up by itself when the last holder of our end lets go
    /// of it: its foreground group gets HUP too, and nobody stays blocked on it.
    fn hang_up(&mut self) {
        self.signal(Signal::Hup);
        self.inbound.stdin.close();
        if self.terminal.take().is_some() {
            self.outbound.close();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let (mut turn_in, mut turn_out) = (TURN_BYTES, TURN_BYTES);
        if let Some(process) = self.process.as_mut().filter(|_| !self.exited)
            && let Poll::Ready(exit) = process.poll_exit(cx)
        {
            return Poll::Ready(Event::Exited(exit));
        }
        if self.gone {
            self.outbound.poll_discard(cx, &mut turn_out);
        } else {
            match self.inbound.poll(cx, &self.core, &mut turn_in) {
                Poll::Ready(Input::Message(message)) => {
                    return Poll::Ready(Event::Message(message));
                }
                Poll::Ready(Input::Gone) => return Poll::Ready(Event::PeerGone),
                Poll::Pending => {}
            }
            match self.outbound.poll(cx, &mut turn_out) {
                Poll::Ready(Output::Ended) => return Poll::Ready(Event::OutputEnded),
                Poll::Ready(Output::Flushed) if self.core.is_done() => {
                    return Poll::Ready(Event::Flushed);
                }
                Poll::Ready(Output::Gone) => return Poll::Ready(Event::PeerGone),
                Poll::Ready(Output::Flushed) | Poll::Pending => {}
            }
        }
        if self.poll_timer(cx).is_ready() {
            return Poll::Ready(Event::Timeout);
        }
        if turn_in == 0 || turn_out == 0 {
            // Others first; then on.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = if self.opened {
            self.core.poll_timeout()
        } else {
            Some(OPEN_TIMEOUT)
        };
        if at != self.timer_at {
            self.timer_at = at;
            match at {
                Some(at) => self.timer.set_at(self.epoch + at),
                None => self.timer.clear(),
            }
        }
        if at.is_none() || Pin::new(&mut self.timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // A timer fires once: if the state machine asks for the same moment again, it is set again.
        self.timer_at = None;
        Poll::Ready(())
    }

    /// Says that nothing more comes, and waits until the relay has it all, but not for ever.
    async fn finish(&mut self) {
        self.inbound.stop();
        let acknowledged = self.outbound.finish();
        let too_long = async {
            Timer::after(FINISH_TIMEOUT).await;
        };
        acknowledged.or(too_long).await;
    }
}
