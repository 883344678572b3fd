//! Connections that have come to the device and wait there until the relay takes them.

use crate::os::clock;
use crate::os::sync::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use holdfast_protocol::ids::SessionId;

use super::limits::{ARRIVAL_TIMEOUT, MAX_ARRIVALS};

/// Accepted connections that the relay has not taken yet.
#[derive(Debug, Default)]
pub(super) struct WaitingConnections(Mutex<HashMap<SessionId, Vec<WaitingConnection>>>);

#[derive(Debug)]
struct WaitingConnection {
    number: u32,
    at: Instant,
    connection: AcceptedConnection,
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) socket: OwnedFd,
    /// The peer; `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// The endpoint that accepted it.
    pub(super) to: ArrivedAt,
}

/// The endpoint that accepted a connection.
#[derive(Debug)]
pub(super) enum ArrivedAt {
    /// An address of the device.
    Port(SocketAddr),
    /// A Unix socket.
    Path(Arc<str>),
    /// The socket of a session's SSH agent.
    Agent,
}

/// The address given in place of the peer of a Unix socket.
pub(super) const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl WaitingConnections {
    /// Takes a connection, which its number names once.
    pub(super) fn take(&self, listener: SessionId, number: u32) -> Option<AcceptedConnection> {
        let mut all = self.lock();
        let waiting = all.get_mut(&listener)?;
        let at = waiting
            .iter()
            .position(|arrival| arrival.number == number)?;
        Some(waiting.swap_remove(at).connection)
    }

    pub(super) fn keep(&self, listener: SessionId, number: u32, connection: AcceptedConnection) {
        let at = clock::instant();
        let arrival = WaitingConnection {
            number,
            at,
            connection,
        };
        self.lock().entry(listener).or_default().push(arrival);
    }

    /// Returns whether there is room for one more; what was not taken in time is dropped.
    pub(super) fn has_room(&self, listener: SessionId) -> bool {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&listener) else {
            return true;
        };
        waiting.retain(|arrival| arrival.at.elapsed() < ARRIVAL_TIMEOUT);
        waiting.len() < MAX_ARRIVALS
    }

    pub(super) fn forget(&self, listener: SessionId) {
        self.lock().remove(&listener);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<WaitingConnection>>> {
        self.0.lock()
    }
}
