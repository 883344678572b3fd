//! Drives one session: reads, feeds the state machine, does what it says.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::future::yield_now;
use futures_lite::{Future as _, FutureExt as _};
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::Login;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::session::{DeviceAction, DeviceSession};
use holdfast_protocol::wire::{
    Connect, Exit, Open, SessionRefusal, Signal, SocketPath, Take, ToldIn, Work,
};
use rustix::net::sockopt::set_socket_linger;
use smol::{Async, Timer};

use super::agent::AgentSocket;
use super::forwards::{self, coming, host_and_port, out};
use super::inbound::{Inbound, Input, Sink};
use super::listening::Place;
use super::outbound::{Outbound, Output};
use super::{Gone, Kind, Sessions, Slot};
use crate::forward::{self, Dialled};
use crate::launch::{Ends, launch};
use crate::limits::{
    BULK_PRIORITY, FINISH_TIMEOUT, INTERACTIVE_PRIORITY, OPEN_TIMEOUT, TURN_BYTES, WITHDRAWAL_TURNS,
};
use crate::process::Process;
use crate::recording::{Beginning, Recording, Told, Unrecordable};
use crate::{environment, pty, unix, warn};

/// One session.
pub(super) struct Driver {
    pub(super) sessions: Arc<Sessions>,
    pub(super) core: DeviceSession,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Since the `Open`, unless it was refused.
    pub(super) slot: Option<Slot>,
    process: Option<Process>,
    /// How `process` has ended, if it has; it is reaped only when the session is over.
    exited: Option<Exit>,
    pub(super) recording: Recording,
    /// Where a forward is to be told, and how it is.
    pub(super) told_in: Option<ToldIn>,
    pub(super) told: Option<Told>,
    terminal: Option<Arc<Async<OwnedFd>>>,
    /// The connection that a forward has dialled, in the place of a process.
    socket: Option<Arc<Async<OwnedFd>>>,
    /// Where it leads, until the relay was told.
    address: Option<SocketAddr>,
    /// Where the session's processes reach the operator's SSH agent.
    agent: Option<AgentSocket>,
    /// The state machine's time begins here.
    pub(super) epoch: Instant,
    opened: bool,
    timer: Timer,
    /// What `timer` is set to.
    timer_at: Option<Duration>,
    /// The relay is not there any more: nothing need be sent.
    gone: Option<Gone>,
    /// The recording takes no more: nothing more may be shown or typed.
    pub(super) cut_off: bool,
}

/// How a forward's connection ended that its other end broke off.
pub(super) const BROKEN_OFF: Exit = Exit::Status(1);

/// What can happen to a session.
enum Event {
    Message(SessionMessage),
    PeerGone(Gone),
    Unrecordable(Unrecordable),
    OutputEnded,
    Exited(Exit),
    /// Something for the relay that is none of the state machine's business.
    Tell(SessionMessage),
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
            recording: Recording::none(Arc::clone(&sessions.recorder)),
            sessions,
            told_in: None,
            told: None,
            core: DeviceSession::default(),
            inbound: Inbound::new(recv),
            outbound: Outbound::new(send),
            slot: None,
            process: None,
            exited: None,
            terminal: None,
            socket: None,
            address: None,
            agent: None,
            epoch: Instant::now(),
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
                Event::Flushed => break self.finish().await,
                event => self.handle(event),
            }
        }
        if let Some(process) = &mut self.process {
            process.reap();
        }
        if let Some(agent) = self.agent.take() {
            agent.close();
        }
        drop(self.slot.take());
    }

    fn handle(&mut self, event: Event) {
        let now = self.epoch.elapsed();
        match event {
            Event::Message(message) => {
                if self.core.handle_message(message).is_err() {
                    self.peer_gone(now, Gone::Client);
                }
            }
            Event::PeerGone(gone) => self.peer_gone(now, gone),
            Event::Unrecordable(why) => self.cut_off(now, why),
            Event::Tell(message) => self.send(&message),
            Event::OutputEnded => self.core.handle_output_ended(),
            Event::Exited(exit) => {
                self.exited = Some(exit);
                self.inbound.stdin.close();
                self.core.handle_exited(now, exit);
            }
            Event::Timeout if self.opened => self.core.handle_timeout(now),
            Event::Timeout => self.peer_gone(now, Gone::Client),
            Event::Flushed => {}
        }
    }

    pub(super) fn peer_gone(&mut self, now: Duration, gone: Gone) {
        self.gone.get_or_insert(gone);
        self.core.handle_peer_gone(now);
    }

    /// Ends a session that can't be recorded any more: the operator is told, and the process hung up.
    fn cut_off(&mut self, now: Duration, Unrecordable(why): Unrecordable) {
        let refusal = SessionMessage::Refused(SessionRefusal::RecordingUnavailable(why));
        let Ok(frame) = refusal.encode() else {
            return self.peer_gone(now, Gone::Client);
        };
        self.cut_off = true;
        self.inbound.stop();
        self.inbound.stdin.close();
        self.outbound.cut_off(frame.into());
        self.core.handle_peer_gone(now);
    }

    fn end_recording(&mut self) {
        let why = match (self.cut_off, self.gone) {
            (true, _) => EndReason::SpoolFull,
            (false, Some(Gone::Tunnel)) => EndReason::TunnelLost,
            (false, Some(Gone::Client)) => EndReason::ClientGone,
            (false, None) if self.process.is_some() => EndReason::Exited,
            (false, None) => EndReason::NotStarted,
        };
        let exit = self.exited.filter(|_| self.process.is_some());
        self.recording.end(exit, why);
        if let Some(told) = self.told.take() {
            told.end(forwards::ended(self.exited, self.gone));
        }
    }

    async fn act(&mut self, action: DeviceAction) {
        match action {
            DeviceAction::Start(open) => self.start(open).await,
            DeviceAction::Send(message) => {
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
            DeviceAction::StopOutput => self.outbound.stop_sources(),
            DeviceAction::Finish => {}
        }
    }

    pub(super) fn send(&mut self, message: &SessionMessage) {
        match message.encode() {
            Ok(frame) => self.outbound.push(frame.into()),
            // Every text of ours is cut to its bound; if one was not, the stream can't go on.
            Err(_) => self.peer_gone(self.epoch.elapsed(), Gone::Client),
        }
    }

    async fn start(&mut self, mut open: Open) {
        self.opened = true;
        self.told_in = open.told;
        if let Some(gone) = self.withdrawn().await {
            return self.nobody_waits(gone);
        }
        match open.work {
            Work::Connect(to) => return self.dial(open.login, to).await,
            // Boxed: a session with a process would hold the room for all that a port needs.
            Work::Listen(at) => {
                let place = Place::Port(at);
                return Box::pin(self.listen(open.session, open.login, place)).await;
            }
            Work::ListenPath(at) => {
                let place = Place::Path(at);
                return Box::pin(self.listen(open.session, open.login, place)).await;
            }
            Work::ConnectPath(at) => return Box::pin(self.dial_path(open.login, at)).await,
            Work::Take(take) => return self.take(take).await,
            Work::Forwards => return Box::pin(self.keep_forwards(&open)).await,
            Work::Shell | Work::Exec(_) | Work::Subsystem(_) => {}
        }
        if let Err(full) = self.occupy(Kind::Session) {
            return self.core.handle_refused(full);
        }
        let is_interactive = open.pty.is_some();
        let priority = if is_interactive {
            INTERACTIVE_PRIORITY
        } else {
            BULK_PRIORITY
        };
        self.outbound.set_priority(priority);
        if let Err(Unrecordable(why)) = self.recording.begin(&open) {
            let why = SessionRefusal::RecordingUnavailable(why);
            return self.core.handle_refused(why);
        }
        if open.terms.agent {
            let sessions = Arc::clone(&self.sessions);
            let made = AgentSocket::make(sessions, open.session, open.login.clone());
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
        open.env = environment::filter(open.env, &config.accept_env);
        // Boxed: what a start needs would otherwise be held for the session's whole life.
        match Box::pin(launch(
            &config.program,
            open,
            &config.sftp_server,
            agent_socket,
        ))
        .await
        {
            Ok(launched) => {
                self.recording.started(launched.process.id());
                self.process = Some(launched.process);
                self.connect(launched.ends);
                self.core.handle_started(self.epoch.elapsed());
            }
            Err(why) => self.core.handle_refused(why),
        }
    }

    /// Takes a place of this kind, if there is one.
    pub(super) fn occupy(&mut self, kind: Kind) -> Result<(), SessionRefusal> {
        let slot = self.sessions.slot(kind).map_err(|max| match kind {
            Kind::Session => SessionRefusal::TooManySessions(max),
            Kind::Forward | Kind::Recording => SessionRefusal::TooManyForwards(max),
        })?;
        self.slot = Some(slot);
        Ok(())
    }

    /// Starts a forward: the connection stands where a session has its process.
    async fn dial(&mut self, login: Login, to: Connect) {
        if let Err(full) = self.occupy(Kind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let asked = host_and_port(&to.host, to.port);
        // An operator who gives up does not leave a dial behind.
        let dialled = async { Ok(Box::pin(forward::dial(login, to)).await) };
        let gone = async { Err(self.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(Dialled { socket, address })) => {
                let beginning = out(asked, Some(address));
                self.carry(socket, Some(address), beginning).await;
            }
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.nobody_waits(gone),
        }
    }

    /// Starts a forward to a Unix socket.
    async fn dial_path(&mut self, login: Login, to: SocketPath) {
        if let Err(full) = self.occupy(Kind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let (program, asked) = (self.sessions.config.program.clone(), to.path.clone());
        let dialled = async { Ok(unix::dial(&program, login, to).await) };
        let gone = async { Err(self.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(socket)) => self.carry(socket, None, out(asked, None)).await,
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.nobody_waits(gone),
        }
    }

    /// Starts a forward on a connection that has come to a port.
    async fn take(&mut self, Take { listener, number }: Take) {
        if let Err(full) = self.occupy(Kind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let taken = self.sessions.arrivals.take(listener, number);
        let carried = taken.map(|come| {
            let beginning = coming(&come);
            Ok::<_, io::Error>((Async::new(come.socket)?, come.peer, beginning))
        });
        match carried {
            Some(Ok((socket, peer, beginning))) => self.carry(socket, peer, beginning).await,
            Some(Err(_)) | None => {
                let why = SessionRefusal::Unreachable("it is gone already".to_owned());
                self.core.handle_refused(why);
            }
        }
    }

    /// The connection of a forward stands. One to a Unix socket has no address.
    async fn carry(
        &mut self,
        socket: Async<OwnedFd>,
        address: Option<SocketAddr>,
        beginning: Beginning,
    ) {
        if let Err(why) = self.tell(&beginning).await {
            return self.core.handle_refused(why);
        }
        let socket = Arc::new(socket);
        self.inbound.stdin.open(Arc::clone(&socket), Sink::Socket);
        self.outbound.open_socket(Arc::clone(&socket));
        (self.socket, self.address) = (Some(socket), address);
        self.core.handle_started(self.epoch.elapsed());
    }

    /// Nobody wants what was about to begin.
    pub(super) fn nobody_waits(&mut self, gone: Gone) {
        self.peer_gone(self.epoch.elapsed(), gone);
        let why = SessionRefusal::Unreachable("nobody waits for it".to_owned());
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

    /// Whether what was asked for is not wanted any more. A device that slept finds the request in its socket
    /// and the withdrawal behind it: what waits there is read before anything is started.
    async fn withdrawn(&mut self) -> Option<Gone> {
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
                stdin.open(Arc::clone(&master), Sink::Terminal);
                self.outbound.open(Some(Arc::clone(&master)), None);
                self.terminal = Some(master);
            }
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                self.inbound.stdin.open(Arc::new(stdin), Sink::Pipe);
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

    /// Lets go of a connection whose operator is gone: its other end sees that it did not end in good order.
    fn break_off(&mut self, socket: &Async<OwnedFd>) {
        let _ = set_socket_linger(socket.get_ref(), Some(Duration::ZERO));
        self.inbound.stdin.close();
        self.outbound.close();
        self.ended(BROKEN_OFF);
    }

    /// Whether a connection has come to its end both ways, and how.
    fn connection_end(&mut self) -> Option<Exit> {
        self.socket.as_ref()?;
        if self.outbound.is_broken() {
            // What is still to go in goes nowhere.
            self.inbound.stdin.close();
        }
        let over = self.inbound.stdin.is_closed() && self.outbound.has_ended();
        over.then(|| match self.outbound.is_broken() {
            true => BROKEN_OFF,
            false => Exit::Status(0),
        })
    }

    pub(super) fn ended(&mut self, exit: Exit) {
        self.exited = Some(exit);
        self.core.handle_exited(self.epoch.elapsed(), exit);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let (mut turn_in, mut turn_out) = (TURN_BYTES, TURN_BYTES);
        if let Some(process) = self.process.as_mut().filter(|_| self.exited.is_none())
            && let Poll::Ready(exit) = process.poll_exit(cx)
        {
            return Poll::Ready(Event::Exited(exit));
        }
        if let Poll::Ready(event) = self.poll_streams(cx, &mut turn_in, &mut turn_out) {
            return Poll::Ready(event);
        }
        let lives = self.process.is_some() && self.exited.is_none() && self.gone.is_none();
        if let Some(agent) = self.agent.as_mut().filter(|_| lives && !self.cut_off)
            && let Poll::Ready(message) = agent.poll_arrival(cx)
        {
            return Poll::Ready(Event::Tell(message));
        }
        if self.exited.is_none()
            && let Some(exit) = self.connection_end()
        {
            return Poll::Ready(Event::Exited(exit));
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

    fn poll_streams(
        &mut self,
        cx: &mut Context<'_>,
        turn_in: &mut usize,
        turn_out: &mut usize,
    ) -> Poll<Event> {
        if self.gone.is_some() {
            self.outbound.clear();
            self.outbound.poll_discard(cx, turn_out);
            return Poll::Pending;
        }
        let output = if self.cut_off {
            self.outbound.poll_discard(cx, turn_out);
            self.outbound.poll_last(cx)
        } else {
            let recording = &mut self.recording;
            match self.inbound.poll(cx, &self.core, recording, turn_in) {
                Poll::Ready(Input::Message(message)) => {
                    return Poll::Ready(Event::Message(message));
                }
                Poll::Ready(Input::Gone(gone)) => return Poll::Ready(Event::PeerGone(gone)),
                Poll::Ready(Input::Unrecordable(why)) => {
                    return Poll::Ready(Event::Unrecordable(why));
                }
                Poll::Pending => {}
            }
            self.outbound.poll(cx, recording, turn_out)
        };
        match output {
            Poll::Ready(Output::Ended) => Poll::Ready(Event::OutputEnded),
            Poll::Ready(Output::Flushed) if self.core.is_done() => Poll::Ready(Event::Flushed),
            Poll::Ready(Output::Gone(gone)) => Poll::Ready(Event::PeerGone(gone)),
            Poll::Ready(Output::Unrecordable(why)) => Poll::Ready(Event::Unrecordable(why)),
            Poll::Ready(Output::Flushed) | Poll::Pending => Poll::Pending,
        }
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
        self.end_recording();
        self.inbound.stop();
        let acknowledged = self.outbound.finish();
        let too_long = async {
            Timer::after(FINISH_TIMEOUT).await;
            Gone::Client
        };
        acknowledged.or(too_long).await;
    }
}
