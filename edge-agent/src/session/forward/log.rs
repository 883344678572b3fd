//! Records forwards: the stream of their shared log, and what each of them adds to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use event_listener::EventListener;
use futures_lite::Future as _;
use holdfast_protocol::recording::record::{EndReason, ForwardDirection, ForwardEnding, SSH_AGENT};
use holdfast_protocol::wire::{Exit, Open, SessionRefusal};
use smol::Timer;

use super::{BROKEN_OFF, ForwardDriver};
use crate::recording::{ForwardBeginning, LoggedForward, NotRecordable};
use crate::session::arrivals::{AcceptedConnection, ArrivedAt};
use crate::session::limits::FORWARDS_GRACE;
use crate::session::pump::PeerGone;
use crate::session::registry::SlotKind;

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

impl ForwardDriver {
    /// Records that a forward begins, if the relay names a log. Nothing may pass before that.
    pub(super) async fn log_forward(
        &mut self,
        beginning: &ForwardBeginning,
    ) -> Result<(), SessionRefusal> {
        let Some(log) = self.log.take() else {
            return Ok(());
        };
        let begun = LoggedForward::begin(self.sessions.recorder(), log, beginning).await;
        let begun = begun.map_err(|NotRecordable(why)| SessionRefusal::RecordingUnavailable(why));
        self.logged = begun?;
        if let Some(logged) = &self.logged {
            self.pump.inbound.stdin.passed = Some(logged.passed.clone());
            self.pump.outbound.passed = Some(logged.passed.clone());
        }
        Ok(())
    }

    /// Ends the forward's entry in the shared log.
    pub(super) fn end_log_entry(&mut self) {
        if let Some(logged) = self.logged.take() {
            logged.end(ended(self.exit, self.pump.gone));
        }
    }

    /// Keeps the recording of a connection's forwards until the relay ends it, and the ends of its forwards are
    /// recorded, or had their time for that. A strict recording that can take no more says so; then the relay ends what
    /// is under way.
    pub(super) async fn keep_log(&mut self, open: &Open) {
        self.begin_log(open);
        let session = open.session;
        let (mut full, mut gone) = (false, false);
        let mut grace = Timer::never();
        let mut changed: Option<EventListener> = None;
        self.drive(|driver, cx| {
            if driver.pump.gone.is_some() && !gone {
                gone = true;
                grace.set_after(FORWARDS_GRACE);
            }
            loop {
                let listener = changed.get_or_insert_with(|| {
                    // Before the count is read, so that no change is missed.
                    driver.sessions.recorder().forwards_changed()
                });
                let (open, why) = driver.sessions.recorder().forwards_of(session);
                if gone && open == 0 {
                    driver.ended(Exit::Status(0));
                    return Poll::Ready(());
                }
                if let Some(why) = why.filter(|_| !full) {
                    full = true;
                    grace.set_after(FORWARDS_GRACE);
                    let why = SessionRefusal::RecordingUnavailable(why);
                    driver.core.handle_full(why);
                    return Poll::Ready(());
                }
                if Pin::new(listener).poll(cx).is_pending() {
                    break;
                }
                changed = None;
            }
            if Pin::new(&mut grace).poll(cx).is_pending() {
                return Poll::Pending;
            }
            driver.peer_gone(PeerGone::Client);
            driver.ended(Exit::Status(0));
            Poll::Ready(())
        })
        .await;
        let why = match full {
            true => EndReason::SpoolFull,
            false => self.pump.end_reason().unwrap_or(EndReason::NotStarted),
        };
        self.pump.recording.end(None, why);
    }

    /// Begins the recording, and reports that, or why it can't be.
    fn begin_log(&mut self, open: &Open) {
        match self.sessions.occupy(SlotKind::Recording) {
            Ok(slot) => self.slot = Some(slot),
            Err(full) => return self.core.handle_refused(full),
        }
        match self.pump.recording.begin(open) {
            Ok(()) => self.core.handle_started(Vec::new(), None),
            Err(NotRecordable(why)) => {
                let why = SessionRefusal::RecordingUnavailable(why);
                self.core.handle_refused(why);
            }
        }
    }
}
