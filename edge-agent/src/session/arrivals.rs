//! Connections that have come to the device and wait there until the relay takes them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_protocol::ids::SessionId;

use super::limits::{ARRIVAL_PATIENCE, MAX_ARRIVALS};

/// Connections that have come and that the relay has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<SessionId, Vec<Arrival>>>);

#[derive(Debug)]
struct Arrival {
    number: u32,
    at: Instant,
    come: AcceptedConnection,
}

/// A connection that has come.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) socket: OwnedFd,
    /// From where; `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// Where to.
    pub(super) to: ArrivedAt,
}

/// Where a connection has come to.
#[derive(Debug)]
pub(super) enum ArrivedAt {
    /// An address of the device.
    Port(SocketAddr),
    /// A Unix socket.
    Path(Arc<str>),
    /// The socket of a session's SSH agent.
    Agent,
}

/// What stands for the peer of a Unix socket.
pub(super) const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Arrivals {
    /// Takes a connection, which its number names once.
    pub(super) fn take(&self, listener: SessionId, number: u32) -> Option<AcceptedConnection> {
        let mut all = self.lock();
        let waiting = all.get_mut(&listener)?;
        let at = waiting
            .iter()
            .position(|arrival| arrival.number == number)?;
        Some(waiting.swap_remove(at).come)
    }

    pub(super) fn keep(&self, listener: SessionId, number: u32, come: AcceptedConnection) {
        let at = Instant::now();
        let arrival = Arrival { number, at, come };
        self.lock().entry(listener).or_default().push(arrival);
    }

    /// Whether there is room for one more; what nobody took in time goes.
    pub(super) fn has_room(&self, listener: SessionId) -> bool {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&listener) else {
            return true;
        };
        waiting.retain(|arrival| arrival.at.elapsed() < ARRIVAL_PATIENCE);
        waiting.len() < MAX_ARRIVALS
    }

    pub(super) fn forget(&self, listener: SessionId) {
        self.lock().remove(&listener);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
