//! The addresses of a device's forwards, and what it has seen of those that are recorded, until their recording is
//! written.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{
    Event, ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened,
};
use holdfast_protocol::wire::{ForwardLogRef, ForwardRequest, Open};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{SOON, Tape};

/// The port that is said where the operator asked for any.
pub(super) const SOME_PORT: u16 = 4242;

/// The forwards of one recording, by their numbers.
pub type HostileForwards = BTreeMap<u32, Forward>;

/// All of them, by their recordings.
#[derive(Debug, Default)]
pub struct ForwardLogs(watch::Sender<BTreeMap<SessionId, HostileForwards>>);

/// A forward.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The request in its `Open`.
    pub asked: Arc<Open>,
    /// Bytes sent and received, when it is over.
    pub closed: Option<(u64, u64)>,
}

impl ForwardLogs {
    /// A forward begins.
    pub fn begin(&self, at: ForwardLogRef, open: &Open) {
        let forward = Forward {
            asked: Arc::new(open.clone()),
            closed: None,
        };
        self.0.send_modify(|all| {
            all.entry(at.session)
                .or_default()
                .insert(at.number, forward);
        });
    }

    /// It is over, and so many bytes went each way.
    pub fn end(&self, at: ForwardLogRef, sent: u64, received: u64) {
        self.0.send_modify(|all| {
            let forwards = all.entry(at.session).or_default();
            if let Some(forward) = forwards.get_mut(&at.number) {
                forward.closed.get_or_insert((sent, received));
            }
        });
    }

    /// Those of a recording, when all of them are over.
    pub async fn of(&self, recording: SessionId) -> HostileForwards {
        let over = |all: &BTreeMap<SessionId, HostileForwards>| {
            let of = all.get(&recording);
            of.is_none_or(|of| of.values().all(|forward| forward.closed.is_some()))
        };
        let mut changes = self.0.subscribe();
        let _ = timeout(SOON, changes.wait_for(over)).await;
        let all = self.0.borrow();
        all.get(&recording).cloned().unwrap_or_default()
    }
}

/// Writes the beginning and the end of each.
pub fn write(tape: &mut Tape, forwards: &HostileForwards) {
    for (id, forward) in forwards {
        let (to, direction, address) = match forward.asked.request.forward() {
            Some(ForwardRequest::Connect(to)) => (
                format!("{}:{}", to.host, to.port),
                ForwardDirection::Out,
                Some(address_of(to.port)),
            ),
            Some(ForwardRequest::ConnectPath(to)) => (to.path.clone(), ForwardDirection::Out, None),
            Some(ForwardRequest::Listen(at)) => (
                format!("{}:{}", at.host, at.port),
                ForwardDirection::Listen,
                Some(address_of(at.port)),
            ),
            Some(ForwardRequest::ListenPath(at)) => {
                (at.path.clone(), ForwardDirection::Listen, None)
            }
            // Its peer was invented.
            _ => continue,
        };
        tape.event(Event::ForwardOpened(ForwardOpened {
            id: *id,
            to: &to,
            from: "",
            direction,
            address,
        }));
        let (sent, received) = forward.closed.unwrap_or_default();
        tape.event(Event::ForwardClosed(ForwardClosed {
            id: *id,
            sent,
            received,
            why: ForwardEnding::Closed,
        }));
    }
}

/// An address of this device.
#[must_use]
pub fn address(port: u16) -> SessionMessage {
    SessionMessage::Address(address_of(port))
}

/// The address of a port of this device.
#[must_use]
pub fn address_of(port: u16) -> SocketAddr {
    SocketAddr::from((
        Ipv4Addr::LOCALHOST,
        if port == 0 { SOME_PORT } else { port },
    ))
}
