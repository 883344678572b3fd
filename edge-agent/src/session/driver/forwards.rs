//! How forwards are recorded: the stream of their shared log, and what each of them adds to it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use futures_lite::Future as _;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{ForwardDirection, ForwardEnding, SSH_AGENT};
use holdfast_protocol::wire::{Exit, Open, SessionRefusal};
use smol::Timer;

use super::super::arrivals::{AcceptedConnection, ArrivedAt};
use super::super::gone::PeerGone;
use super::super::registry::SlotKind;
use super::SessionDriver;
use super::connection::BROKEN_OFF;
use crate::recording::{ForwardBeginning, LoggedForward, NotRecordable};
use crate::session::limits::FORWARDS_GRACE;

/// Returns a connection that the device has dialled.
pub(super) fn out(to: String, address: Option<SocketAddr>) -> ForwardBeginning {
    ForwardBeginning {
        direction: ForwardDirection::Out,
        to,
        from: None,
        address,
    }
}

/// Returns a connection that was accepted.
pub(super) fn coming(connection: &AcceptedConnection) -> ForwardBeginning {
    let (to, address) = match &connection.to {
        ArrivedAt::Port(address) => (address.to_string(), Some(*address)),
        ArrivedAt::Path(path) => (path.to_string(), None),
        ArrivedAt::Agent => (SSH_AGENT.to_owned(), None),
    };
    ForwardBeginning {
        direction: ForwardDirection::In,
        to,
        from: connection.peer,
        address,
    }
}

/// Returns `host:port`, of an IPv6 address in brackets.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Returns how a forward has ended.
pub(super) fn ended(exit: Option<Exit>, gone: Option<PeerGone>) -> ForwardEnding {
    match (gone, exit) {
        (Some(PeerGone::Tunnel), _) => ForwardEnding::TunnelLost,
        (Some(PeerGone::Client | PeerGone::Ended), _) => ForwardEnding::ClientGone,
        (None, Some(exit)) if exit == BROKEN_OFF => ForwardEnding::BrokenOff,
        (None, _) => ForwardEnding::Closed,
    }
}

impl SessionDriver {
    /// Records that a forward begins, if the relay names a log. Nothing may pass before that.
    pub(super) async fn log_forward(
        &mut self,
        beginning: &ForwardBeginning,
    ) -> Result<(), SessionRefusal> {
        let Some(log) = self.forward_log.take() else {
            return Ok(());
        };
        let begun = LoggedForward::begin(self.sessions.recorder(), log, beginning).await;
        let begun = begun.map_err(|NotRecordable(why)| SessionRefusal::RecordingUnavailable(why));
        self.logged = begun?;
        if let Some(logged) = &self.logged {
            self.inbound.stdin.passed = Some(logged.passed.clone());
            self.outbound.passed = Some(logged.passed.clone());
        }
        Ok(())
    }

    /// Keeps the recording of a connection's forwards until the relay ends it.
    pub(super) async fn keep_forwards(&mut self, open: &Open) {
        if let Err(full) = self.occupy(SlotKind::Recording) {
            return self.core.handle_refused(full);
        }
        if let Err(NotRecordable(why)) = self.recording.begin(open) {
            let why = SessionRefusal::RecordingUnavailable(why);
            return self.core.handle_refused(why);
        }
        self.core.handle_started(self.epoch.elapsed());
        self.send_answer();
        let gone = self.forwards_end(open.session).await;
        self.peer_gone(self.epoch.elapsed(), gone);
        self.ended(Exit::Status(0));
    }

    /// Resolves when the relay wants no more, and the ends of its forwards are recorded, or had their time for that. A strict
    /// recording that can take no more says so; then the relay ends what is under way.
    async fn forwards_end(&mut self, session: SessionId) -> PeerGone {
        let mut gone = None;
        let mut grace = Timer::never();
        loop {
            let changed = self.sessions.recorder().forwards_changed();
            let (open, full) = self.sessions.recorder().forwards_of(session);
            if let Some(gone) = gone.filter(|_| open == 0) {
                return gone;
            }
            if let Some(why) = full.filter(|_| !self.cut_off) {
                self.cut_off = true;
                let why = SessionRefusal::RecordingUnavailable(why);
                self.send(&SessionMessage::Refused(why));
                grace.set_after(FORWARDS_GRACE);
            }
            let mut changed = changed;
            let next = poll_fn(|cx| {
                if gone.is_none()
                    && let Poll::Ready(gone) = self.poll_relay(cx)
                {
                    return Poll::Ready(Next::Gone(gone));
                }
                if Pin::new(&mut changed).poll(cx).is_ready() {
                    return Poll::Ready(Next::Changed);
                }
                Pin::new(&mut grace).poll(cx).map(|_| Next::Late)
            });
            match next.await {
                Next::Changed => {}
                Next::Late => return gone.unwrap_or(PeerGone::Client),
                Next::Gone(now) => {
                    gone = Some(now);
                    grace.set_after(FORWARDS_GRACE);
                }
            }
        }
    }
}

/// An event of a recording of forwards.
enum Next {
    Changed,
    Gone(PeerGone),
    Late,
}
