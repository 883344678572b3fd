//! quinn's window to the system: timers and tasks on the agent's one executor, and a UDP socket made for
//! little memory.
//!
//! quinn's own socket makes the endpoint hold 32 receive buffers of 64 segments each, 3 MB that musl
//! makes resident. This one receives into a single buffer of 64 KiB, which takes a whole batch that the
//! kernel has joined (UDP GRO), and hands it out segment by segment.

use crate::os::sync::Mutex;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use smol::{Async, Timer};

/// The most that the kernel hands over at once: a batch of joined datagrams is at most 64 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Receive errors in a row after which the socket is given up, and with it the connection.
const MAX_RECEIVE_ERRORS: u32 = 64;

/// The agent's executor and sockets, as quinn wants them.
#[derive(Debug)]
pub(super) struct AgentRuntime;

impl Runtime for AgentRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(QuicTimer(Timer::at(at)))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        crate::os::runtime::spawn(future).detach();
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(LeanSocket::new(socket)?))
    }
}

#[derive(Debug)]
struct QuicTimer(Timer);

impl AsyncTimer for QuicTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.0.set_at(at);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(Pin::new(&mut self.0), cx).map(drop)
    }
}

struct LeanSocket {
    io: Async<UdpSocket>,
    state: UdpSocketState,
    received: Mutex<Batch>,
}

/// A batch of datagrams from one sender, as the kernel joined them: all of `stride` bytes but the last.
struct Batch {
    buffer: Box<[u8]>,
    meta: RecvMeta,
    taken: usize,
    errors: u32,
}

impl LeanSocket {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let batch = Batch {
            buffer: vec![0; RECEIVE_BUFFER].into(),
            meta: RecvMeta {
                len: 0,
                stride: 0,
                ..RecvMeta::default()
            },
            taken: 0,
            errors: 0,
        };
        Ok(Self {
            io: Async::new_nonblocking(socket)?,
            state,
            received: Mutex::new(batch),
        })
    }

    fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        let mut meta = [RecvMeta::default()];
        let count = self.state.recv(
            (&self.io).into(),
            &mut [IoSliceMut::new(&mut batch.buffer)],
            &mut meta,
        )?;
        [batch.meta] = meta;
        batch.taken = 0;
        if count == 0 {
            batch.meta.len = 0;
        }
        Ok(())
    }
}

impl Batch {
    /// Copies datagrams out, one to a buffer, and returns how many.
    fn hand_out(&mut self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (to, meta) in buffers.iter_mut().zip(metas) {
            let rest = self
                .buffer
                .get(self.taken..self.meta.len)
                .unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let length = rest.len().min(self.meta.stride.max(1));
            // A datagram longer than quinn's buffer is longer than we said we take: it is cut, and
            // fails its authentication.
            let copied = length.min(to.len());
            to[..copied].copy_from_slice(&rest[..copied]);
            *meta = RecvMeta {
                len: copied,
                stride: copied,
                ..self.meta
            };
            self.taken += length;
            count += 1;
        }
        count
    }
}

impl AsyncUdpSocket for LeanSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // `send` swallows all errors but `WouldBlock`: an unreachable network is a lost packet, and
        // must not end the connection.
        self.state.send((&self.io).into(), transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut batch = self.received.lock();
        loop {
            let count = batch.hand_out(buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            match self.receive(&mut batch) {
                Ok(()) => batch.errors = 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.io.poll_readable(cx))?;
                }
                Err(error) => {
                    batch.errors += 1;
                    if batch.errors >= MAX_RECEIVE_ERRORS {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for LeanSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeanSocket")
            .field("local_addr", &self.local_addr().ok())
            .finish()
    }
}

/// One endpoint of the agent carries one connection, so one waker for writing is enough.
#[derive(Debug)]
struct WritePoller(Arc<LeanSocket>);

impl UdpPoller for WritePoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_writable(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_batch_comes_out_segment_by_segment() {
        let mut batch = Batch {
            buffer: (0..=255_u8).collect(),
            meta: RecvMeta {
                len: 25,
                stride: 10,
                ..RecvMeta::default()
            },
            taken: 0,
            errors: 0,
        };
        let mut space = [[0_u8; 16]; 2];
        let mut lengths = vec![];
        loop {
            let mut metas = [RecvMeta::default(); 2];
            let [a, b] = &mut space;
            let count = batch.hand_out(&mut [IoSliceMut::new(a), IoSliceMut::new(b)], &mut metas);
            if count == 0 {
                break;
            }
            lengths.extend(metas[..count].iter().map(|meta| meta.len));
        }
        assert_eq!(lengths, [10, 10, 5]);
        assert_eq!(space[0][..5], [20, 21, 22, 23, 24]);
    }
}
