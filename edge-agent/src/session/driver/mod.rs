//! Drives one session: reads, feeds the state machine, does what it says.

mod connection;
mod forwards;
mod listening;
mod turn;

use crate::os::clock;
use std::future::poll_fn;
use std::mem::take;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::FutureExt as _;
use futures_lite::future::yield_now;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::Login;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::session::{Departure, DeviceAction, DeviceSession};
use holdfast_protocol::wire::{Exit, ForwardLogRef, Open, SessionRefusal, Signal, Work};
use smol::{Async, Timer};

use self::listening::ListenTarget;
use self::turn::SessionEvent;
use super::agent_socket::AgentSocket;
use super::gone::PeerGone;
use super::inbound::{Inbound, InputSink};
use super::outbound::Outbound;
use super::registry::{AgentSessions, SessionSlot, SlotKind};
use crate::os::process::SessionProcess;
use crate::os::{accounts, environment, pty};
use crate::recording::{LoggedForward, NotRecordable, Recording};
use crate::session::launch::{Common, Ends, PamSession, launch};
use crate::session::limits::{
    BULK_PRIORITY, FINISH_TIMEOUT, INTERACTIVE_PRIORITY, WITHDRAWAL_TURNS,
};
use crate::warn;

/// One session.
pub(super) struct SessionDriver {
    pub(super) sessions: Arc<AgentSessions>,
    pub(super) core: DeviceSession,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Since the `Open`, unless it was refused.
    pub(super) slot: Option<SessionSlot>,
    process: Option<SessionProcess>,
    /// The PAM session of `process`.
    login: Option<PamSession>,
    /// Holds how `process` has ended, if it has; it is reaped only when the session is over.
    exited: Option<Exit>,
    pub(super) recording: Recording,
    /// The shared log in which a forward is to be recorded, and its entry there.
    pub(super) forward_log: Option<ForwardLogRef>,
    pub(super) logged: Option<LoggedForward>,
    terminal: Option<Arc<Async<OwnedFd>>>,
    /// The connection that a forward has dialled, in the place of a process.
    socket: Option<Arc<Async<OwnedFd>>>,
    /// Other logins with the user id of the session's account, until they were reported to the relay.
    names: Vec<Login>,
    /// The address that was dialled, until it was reported to the relay.
    address: Option<SocketAddr>,
    /// Holds where the session's processes reach the operator's SSH agent.
    agent: Option<AgentSocket>,
    /// The state machine's time begins here.
    pub(super) epoch: Instant,
    opened: bool,
    timer: Timer,
    /// The end that `timer` is set to.
    timer_at: Option<Duration>,
    /// The relay is not there any more: nothing need be sent.
    gone: Option<PeerGone>,
    /// The recording takes no more: nothing more may be shown or typed.
    pub(super) cut_off: bool,
}

impl AgentSessions {
    /// Runs one session to its end, from its `Open` on. A relay that has lost its client resets its half
    /// of the stream; one that merely finishes it before the exit status has gone away too.
    pub async fn serve(self: Arc<Self>, send: quinn::SendStream, recv: quinn::RecvStream) {
        SessionDriver::new(self, send, recv).run().await;
    }
}

impl SessionDriver {
    pub(super) fn new(
        sessions: Arc<AgentSessions>,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Self {
        Self {
            recording: Recording::none(Arc::clone(&sessions.recorder)),
            sessions,
            forward_log: None,
            logged: None,
            core: DeviceSession::default(),
            inbound: Inbound::new(recv),
            outbound: Outbound::new(send),
            slot: None,
            process: None,
            login: None,
            exited: None,
            terminal: None,
            socket: None,
            names: Vec::new(),
            address: None,
            agent: None,
            epoch: clock::instant(),
            opened: false,
            timer: Timer::never(),
            timer_at: None,
            gone: None,
            cut_off: false,
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(&mut self) {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action).await;
            }
            if self.core.is_done() && self.gone.is_some() {
                self.end_recording();
                break self.outbound.reset();
            }
            match poll_fn(|cx| self.poll(cx)).await {
                SessionEvent::Flushed => break self.finish().await,
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

    fn handle(&mut self, event: SessionEvent) {
        let now = self.epoch.elapsed();
        match event {
            SessionEvent::Message(message) => {
                if self.core.handle_message(message).is_err() {
                    self.peer_gone(now, PeerGone::Client);
                }
            }
            SessionEvent::PeerGone(gone) => self.peer_gone(now, gone),
            SessionEvent::Unrecordable(why) => self.cut_off(now, why),
            SessionEvent::Tell(message) => self.send(&message),
            SessionEvent::OutputEnded => self.core.handle_output_ended(),
            SessionEvent::Exited(exit) => {
                self.exited = Some(exit);
                self.inbound.stdin.close();
                self.core.handle_exited(now, exit);
            }
            SessionEvent::Timeout if self.opened => self.core.handle_timeout(now),
            SessionEvent::Timeout => self.peer_gone(now, PeerGone::Client),
            SessionEvent::Flushed => {}
        }
    }

    pub(super) fn peer_gone(&mut self, now: Duration, gone: PeerGone) {
        self.gone.get_or_insert(gone);
        self.core.handle_peer_gone(now, gone.departure());
    }

    /// Ends a session that can't be recorded any more: the operator gets the reason, and the process is hung up.
    fn cut_off(&mut self, now: Duration, NotRecordable(why): NotRecordable) {
        let refusal = SessionMessage::Refused(SessionRefusal::RecordingUnavailable(why));
        let Ok(frame) = refusal.encode() else {
            return self.peer_gone(now, PeerGone::Client);
        };
        self.cut_off = true;
        self.inbound.stop();
        self.inbound.stdin.close();
        self.outbound.cut_off(frame.into());
        self.core.handle_peer_gone(now, Departure::Ordered);
    }

    fn end_recording(&mut self) {
        let why = match (self.cut_off, self.gone) {
            (true, _) => EndReason::SpoolFull,
            (false, Some(PeerGone::Tunnel)) => EndReason::TunnelLost,
            (false, Some(PeerGone::Client | PeerGone::Ended)) => EndReason::ClientGone,
            (false, None) if self.process.is_some() => EndReason::Exited,
            (false, None) => EndReason::NotStarted,
        };
        let exit = self.exited.filter(|_| self.process.is_some());
        self.recording.end(exit, why);
        if let Some(logged) = self.logged.take() {
            logged.end(forwards::ended(self.exited, self.gone));
        }
    }

    async fn act(&mut self, action: DeviceAction) {
        match action {
            DeviceAction::Start(open) => self.start(open).await,
            DeviceAction::Send(message) => {
                if message == SessionMessage::Accepted && !self.names.is_empty() {
                    let names = take(&mut self.names);
                    self.send(&SessionMessage::Names(names));
                }
                self.send(&message);
                if message == SessionMessage::Accepted
                    && let Some(address) = self.address.take()
                {
                    self.send(&SessionMessage::Address(address));
                }
            }
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
            DeviceAction::Detach => self.detach(),
            DeviceAction::Leave => self.leave(),
            DeviceAction::StopOutput => self.outbound.stop_sources(),
            DeviceAction::Finish => {}
        }
    }

    pub(super) fn send(&mut self, message: &SessionMessage) {
        match message.encode() {
            Ok(frame) => self.outbound.push(frame.into()),
            // Every text of ours is cut to its bound; if one was not, the stream can't go on.
            Err(_) => self.peer_gone(self.epoch.elapsed(), PeerGone::Client),
        }
    }

    async fn start(&mut self, mut open: Open) {
        self.opened = true;
        self.forward_log = open.forward_log;
        if let Some(gone) = self.withdrawn().await {
            return self.cancelled_before_start(gone);
        }
        let denied = open.terms.denied_logins.clone();
        if !matches!(open.work, Work::Forwards) {
            self.names = accounts::other_names(&open.login);
        }
        match open.work {
            Work::Connect(to) => return self.dial(open.login, denied, to).await,
            // Boxed: a session with a process would hold the room for all that a port needs.
            Work::Listen(at) => {
                let target = ListenTarget::Port(at);
                return Box::pin(self.listen(open.session, open.login, denied, target)).await;
            }
            Work::ListenPath(at) => {
                let target = ListenTarget::Path(at);
                return Box::pin(self.listen(open.session, open.login, denied, target)).await;
            }
            Work::ConnectPath(at) => {
                return Box::pin(self.dial_path(open.login, denied, at)).await;
            }
            Work::Take(take) => return self.take(take).await,
            Work::Forwards => return Box::pin(self.keep_forwards(&open)).await,
            Work::Shell | Work::Exec(_) | Work::Subsystem(_) => {}
        }
        if let Err(full) = self.occupy(SlotKind::Session) {
            return self.core.handle_refused(full);
        }
        let is_interactive = open.pty.is_some();
        let priority = if is_interactive {
            INTERACTIVE_PRIORITY
        } else {
            BULK_PRIORITY
        };
        self.outbound.set_priority(priority);
        // Before the recording begins: a value that the session does not get is kept nowhere.
        let accepted = &self.sessions.config.accept_env;
        let filtered = environment::filter(take(&mut open.env), accepted);
        open.env = filtered.allowed;
        let recorded = match self.recording.begin(&open) {
            Ok(()) => Box::pin(self.recording.refused_environment(&filtered.refused)).await,
            Err(why) => Err(why),
        };
        if let Err(NotRecordable(why)) = recorded {
            let why = SessionRefusal::RecordingUnavailable(why);
            return self.core.handle_refused(why);
        }
        if open.terms.agent {
            let sessions = Arc::clone(&self.sessions);
            let made = AgentSocket::make(sessions, open.session, open.login.clone(), denied);
            match Box::pin(made).await {
                Ok(agent) => self.agent = Some(agent),
                // As with sshd, the session does without.
                Err(why) => warn!(
                    "session {}: no socket for its SSH agent: {why:?}",
                    open.session
                ),
            }
        }
        let agent_socket = self.agent.as_ref().and_then(AgentSocket::path);
        let config = &self.sessions.config;
        // Boxed: what a start needs would otherwise be held for the session's whole life.
        let common = Common {
            program: &config.program,
            sftp_server: &config.sftp_server,
            tasks: &config.tasks,
            login: config.login,
        };
        match Box::pin(launch(common, open, agent_socket)).await {
            Ok(launched) => {
                self.recording.started(launched.process.id());
                self.process = Some(launched.process);
                self.login = launched.login;
                self.connect(launched.ends);
                self.core.handle_started(self.epoch.elapsed());
            }
            Err(why) => self.core.handle_refused(why),
        }
    }

    /// Takes a place of this kind, if there is one.
    pub(super) fn occupy(&mut self, kind: SlotKind) -> Result<(), SessionRefusal> {
        let slot = self.sessions.slot(kind).map_err(|max| match kind {
            SlotKind::Session => SessionRefusal::TooManySessions(max),
            SlotKind::Forward | SlotKind::Recording => SessionRefusal::TooManyForwards(max),
        })?;
        self.slot = Some(slot);
        Ok(())
    }

    /// Ends what was about to begin and is not wanted any more.
    pub(super) fn cancelled_before_start(&mut self, gone: PeerGone) {
        self.peer_gone(self.epoch.elapsed(), gone);
        let why = SessionRefusal::Unreachable("it was cancelled before it started".to_owned());
        self.core.handle_refused(why);
    }

    /// Says that what was asked for has begun, where the state machine's actions are not taken as ever.
    pub(super) fn send_answer(&mut self) {
        while let Some(action) = self.core.poll_action() {
            if let DeviceAction::Send(message) = action {
                self.send(&message);
            }
        }
    }

    /// Returns whether what was asked for is not wanted any more. A device that slept finds the request in its socket
    /// and the withdrawal behind it: what waits there is read before anything is started.
    async fn withdrawn(&mut self) -> Option<PeerGone> {
        for _ in 0..WITHDRAWAL_TURNS {
            yield_now().await;
            let gone = poll_fn(|cx| Poll::Ready(self.inbound.poll_gone(cx))).await;
            if let Poll::Ready(gone) = gone {
                return Some(gone);
            }
        }
        None
    }

    fn connect(&mut self, ends: Ends) {
        match ends {
            Ends::Terminal(master) => {
                let master = Arc::new(master);
                let stdin = &mut self.inbound.stdin;
                stdin.open(Arc::clone(&master), InputSink::Terminal);
                self.outbound.open(Some(Arc::clone(&master)), None);
                self.terminal = Some(master);
            }
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                self.inbound.stdin.open(Arc::new(stdin), InputSink::Pipe);
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
    /// of it: its foreground group gets HUP too, and no process stays blocked on it.
    fn hang_up(&mut self) {
        if let Some(socket) = self.socket.take() {
            return self.break_off(&socket);
        }
        self.signal(Signal::Hup);
        self.inbound.stdin.close();
        if self.terminal.take().is_none() {
            return;
        }
        if self.cut_off {
            self.outbound.close_sources();
        } else {
            self.outbound.close();
        }
    }

    /// The observer is lost: what reads, writes or holds a terminal finds it closed, as when sshd's connection closes.
    /// The kernel sends HUP where there was a terminal; nothing is sent here.
    fn detach(&mut self) {
        self.inbound.stdin.close();
        self.outbound.close();
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
        self.inbound.stdin.close();
        self.outbound.reset();
        if let Some(slot) = &mut self.slot {
            slot.leave();
        }
    }

    pub(super) fn ended(&mut self, exit: Exit) {
        self.exited = Some(exit);
        self.core.handle_exited(self.epoch.elapsed(), exit);
    }

    /// Says that nothing more comes, and waits until the relay has it all, but not for ever.
    async fn finish(&mut self) {
        self.end_recording();
        self.inbound.stop();
        let acknowledged = self.outbound.finish();
        let too_long = async {
            Timer::after(FINISH_TIMEOUT).await;
            PeerGone::Client
        };
        acknowledged.or(too_long).await;
    }
}
