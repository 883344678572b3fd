//! The tunnel's UDP socket. It notes by which connection id each address speaks to the relay, which quinn shows
//! nowhere: a relay that died without a word knows by it, at its next start, how to reset what is left of a connection.
//! While the fence holds packets up, they are lost, as on a network that is down.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_proto::{ConnectionIdGenerator as _, HashedConnectionIdGenerator};

use crate::fence::StoreFence;
use crate::store::TunnelId;
use crate::sync::Mutex;
use crate::tunnel::limits::{MAX_NOTED_IDS, NOTED_IDS_SLACK};

/// The connection id by which each address spoke last. What is noted is not authenticated: it decides nothing but which
/// reset an address is sent, and a reset ends a connection only if its own id was noted.
pub(crate) struct NotedIds {
    ids: Mutex<HashMap<SocketAddr, TunnelId>>,
    /// Knows ids of our own.
    generator: HashedConnectionIdGenerator,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct TunnelSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    noted: Arc<NotedIds>,
    fence: OnceLock<StoreFence>,
}

impl NotedIds {
    /// Creates an empty table for ids that are made with `key`.
    #[must_use]
    pub(crate) fn new(key: u64) -> Arc<Self> {
        Arc::new(Self {
            ids: Mutex::default(),
            generator: HashedConnectionIdGenerator::from_key(key),
        })
    }

    /// Returns the id by which an address spoke last.
    #[must_use]
    pub(crate) fn of(&self, address: SocketAddr) -> Option<TunnelId> {
        self.lock().get(&address).copied()
    }

    /// Forgets all addresses but these, when more are noted than they explain: tunnels that are gone, and senders that
    /// never had one.
    pub(crate) fn prune(&self, addresses: impl ExactSizeIterator<Item = SocketAddr>) {
        let mut ids = self.lock();
        if ids.len() > 2 * addresses.len() + NOTED_IDS_SLACK {
            let kept: HashSet<SocketAddr> = addresses.collect();
            ids.retain(|address, _| kept.contains(address));
        }
    }

    /// Notes the id of a datagram, if it is a packet of an established connection.
    fn note(&self, address: SocketAddr, datagram: &[u8]) {
        // A short header (RFC 9000 section 17.3): one byte whose first bit is not set, and the id.
        let Some((first, rest)) = datagram.split_first() else {
            return;
        };
        let Some(id) = rest
            .first_chunk::<{ TunnelId::LENGTH }>()
            .filter(|_| first & 0x80 == 0)
        else {
            return;
        };
        let id = TunnelId(*id);
        let mut ids = self.lock();
        if ids.get(&address) == Some(&id) {
            return;
        }
        let is_ours = self
            .generator
            .validate(&quinn_proto::ConnectionId::new(&id.0));
        if is_ours.is_ok() && (ids.len() < MAX_NOTED_IDS || ids.contains_key(&address)) {
            ids.insert(address, id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, TunnelId>> {
        self.ids.lock()
    }
}

/// Shows how many there are.
impl fmt::Debug for NotedIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotedIds({})", self.lock().len())
    }
}

impl TunnelSocket {
    /// Wraps quinn's own socket.
    #[must_use]
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, noted: Arc<NotedIds>) -> Arc<Self> {
        let fence = OnceLock::new();
        Arc::new(Self {
            inner,
            noted,
            fence,
        })
    }

    /// Sends from now on only what this fence lets leave.
    pub(crate) fn obey(&self, fence: StoreFence) {
        let _ = self.fence.set(fence);
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.fence.get() {
            Some(fence) if !fence.may_send() => Ok(()),
            _ => self.inner.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, buffers, metas))?;
        for (buffer, meta) in buffers.iter().zip(metas.iter()).take(count) {
            // Datagrams that the kernel joined are of one connection: the first is enough.
            let datagram = buffer.get(..meta.len.min(meta.stride));
            self.noted.note(meta.addr, datagram.unwrap_or_default());
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;

    fn address(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(n), 1).into()
    }

    /// Returns a packet of an established connection by a new id of ours.
    fn packet(key: u64) -> Vec<u8> {
        let id = HashedConnectionIdGenerator::from_key(key).generate_cid();
        [&[0x40][..], &id, &[0; 30]].concat()
    }

    fn id(packet: &[u8]) -> TunnelId {
        TunnelId(packet[1..9].try_into().unwrap())
    }

    #[test]
    fn last_id_of_an_address_is_noted() {
        let noted = NotedIds::new(KEY);
        let (first, second) = (packet(KEY), packet(KEY));
        for packet in [&first, &second] {
            noted.note(address(1), packet);
            assert_eq!(noted.of(address(1)), Some(id(packet)));
        }
        assert_eq!(noted.of(address(2)), None);
    }

    #[test]
    fn foreign_packets_are_not_noted() {
        let noted = NotedIds::new(KEY);
        let mut long = packet(KEY);
        long[0] |= 0x80;
        for packet in [&packet(KEY + 1), &long, &packet(KEY)[..8].to_vec(), &vec![]] {
            noted.note(address(1), packet);
            assert_eq!(noted.of(address(1)), None, "{packet:?}");
        }
    }

    #[test]
    fn table_is_bounded_and_pruned() {
        let noted = NotedIds::new(KEY);
        let count = u32::try_from(MAX_NOTED_IDS).unwrap();
        let any = packet(KEY);
        for n in 0..count + 10 {
            noted.note(address(n), &any);
        }
        assert_eq!(noted.lock().len(), MAX_NOTED_IDS);
        // One that is known may still change.
        let other = packet(KEY);
        noted.note(address(0), &other);
        assert_eq!(noted.of(address(0)), Some(id(&other)));
        noted.prune([address(0), address(1)].into_iter());
        assert_eq!(noted.lock().len(), 2);
    }
}
