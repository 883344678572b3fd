//! Drives one session without a process: a connection, a listener, or the shared log of them.

mod connection;
mod listening;
mod log;

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::Login;
use holdfast_protocol::session::{DeviceForward, ForwardAction, ForwardKind};
use holdfast_protocol::wire::{Exit, ForwardLogRef, ForwardRequest, Open, SessionRefusal};
use smol::Async;

use self::listening::ListenTarget;
use super::pump::{PeerGone, Pump, PumpEvent, Turn};
use super::registry::{AgentSessions, SessionSlot};
use crate::os::accounts;
use crate::recording::LoggedForward;

/// The exit of a forward's connection that its other end reset.
const BROKEN_OFF: Exit = Exit::Status(1);

/// One forward.
pub(super) struct ForwardDriver {
    sessions: Arc<AgentSessions>,
    core: DeviceForward,
    pump: Pump,
    /// Since the `Open`, unless it was refused.
    slot: Option<SessionSlot>,
    /// The shared log in which it is to be recorded, until it is.
    log: Option<ForwardLogRef>,
    /// Its entry there.
    logged: Option<LoggedForward>,
    /// The connection that it carries.
    socket: Option<Arc<Async<OwnedFd>>>,
    /// The exit, if it has ended.
    exit: Option<Exit>,
}

/// The account that a forward acts as.
pub(super) struct ForwardAccount {
    login: Login,
    /// The logins whose user id it may not have.
    denied: Vec<Login>,
    /// The other logins with its user id.
    names: Vec<Login>,
}

impl ForwardDriver {
    /// Runs the forward to its end.
    pub(super) async fn run(
        sessions: Arc<AgentSessions>,
        pump: Pump,
        open: Open,
        request: ForwardRequest,
    ) {
        let mut driver = Self {
            sessions,
            core: DeviceForward::new(ForwardKind::of(&request)),
            pump,
            slot: None,
            log: open.forward_log,
            logged: None,
            socket: None,
            exit: None,
        };
        driver.serve(open, request).await;
        drop(driver.slot.take());
    }

    async fn serve(&mut self, open: Open, request: ForwardRequest) {
        if let Some(gone) = self.pump.withdrawn().await {
            self.cancelled_before_start(gone);
            return self.drive(|_, _| Poll::Pending).await;
        }
        if matches!(request, ForwardRequest::Log) {
            return Box::pin(self.keep_log(&open)).await;
        }
        let account = ForwardAccount {
            names: accounts::other_names(&open.login),
            login: open.login,
            denied: open.terms.denied_logins,
        };
        match request {
            ForwardRequest::Connect(to) => self.dial(account, to).await,
            ForwardRequest::ConnectPath(to) => Box::pin(self.dial_path(account, to)).await,
            ForwardRequest::Take(take) => self.take(account, take).await,
            // Boxed: a connection would hold the room for all that a listener needs.
            ForwardRequest::Listen(at) => {
                let target = ListenTarget::Port(at);
                return Box::pin(self.listen(open.session, account, target)).await;
            }
            ForwardRequest::ListenPath(at) => {
                let target = ListenTarget::Path(at);
                return Box::pin(self.listen(open.session, account, target)).await;
            }
            ForwardRequest::Log => {}
        }
        self.drive(Self::poll_connection).await;
    }

    /// Passes on what comes on the stream, and has `source` report to the state machine, until the forward is over.
    async fn drive(&mut self, mut source: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<()>) {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action);
            }
            if self.core.is_done() && self.pump.gone.is_some() {
                self.end_log_entry();
                return self.pump.outbound.reset();
            }
            let event = poll_fn(|cx| {
                if let Poll::Ready(event) = self.poll_stream(cx) {
                    return Poll::Ready(Some(event));
                }
                match self.core.is_done() {
                    true => Poll::Pending,
                    false => source(self, cx).map(|()| None),
                }
            });
            match event.await {
                Some(PumpEvent::Flushed) => {
                    self.end_log_entry();
                    return self.pump.finish().await;
                }
                Some(event) => self.handle(event),
                None => {}
            }
        }
    }

    /// Returns the next event of the stream; that all is sent is one only when the forward is over.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<PumpEvent> {
        let Self { core, pump, .. } = self;
        let mut turn = Turn::new();
        match pump.poll(cx, &|stream| core.handle_data(stream), &mut turn) {
            Poll::Ready(PumpEvent::Flushed) if !core.is_done() => {}
            Poll::Ready(event) => return Poll::Ready(event),
            Poll::Pending => {}
        }
        turn.end(cx);
        Poll::Pending
    }

    fn handle(&mut self, event: PumpEvent) {
        match event {
            PumpEvent::Message(message) => {
                if self.core.handle_message(message).is_err() {
                    self.peer_gone(PeerGone::Client);
                }
            }
            PumpEvent::Gone(gone) => self.peer_gone(gone),
            PumpEvent::OutputEnded => self.core.handle_output_ended(),
            // Its bytes are only counted: no recording refuses them.
            PumpEvent::Unrecordable(_) | PumpEvent::Flushed => {}
        }
    }

    fn act(&mut self, action: ForwardAction) {
        match action {
            ForwardAction::Send(message) => self.send(&message),
            ForwardAction::CloseInput => self.pump.inbound.stdin.close_after_queue(),
            ForwardAction::BreakOff => self.break_off(),
            ForwardAction::Finish => {}
        }
    }

    fn send(&mut self, message: &SessionMessage) {
        if self.pump.send(message).is_err() {
            self.peer_gone(PeerGone::Client);
        }
    }

    fn peer_gone(&mut self, gone: PeerGone) {
        self.pump.gone.get_or_insert(gone);
        self.core.handle_peer_gone();
    }

    fn ended(&mut self, exit: Exit) {
        self.exit = Some(exit);
        self.core.handle_ended(exit);
    }

    /// Ends what was about to begin and is not wanted any more.
    fn cancelled_before_start(&mut self, gone: PeerGone) {
        self.peer_gone(gone);
        let why = SessionRefusal::Unreachable("it was cancelled before it started".to_owned());
        self.core.handle_refused(why);
    }

    /// Ends what the forward has, because the relay is gone. The log ends later: forwards are still recorded in it.
    fn break_off(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.reset_connection(&socket);
            self.ended(BROKEN_OFF);
        }
    }
}
