//! An operator's TCP connection that can be cut from outside, and that bounds what an unauthenticated
//! peer may send. russh itself has neither.

pub(crate) mod balancer;
pub(crate) mod proxy_header;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ssh::limits::MAX_UNAUTHENTICATED_BYTES;

/// Cuts a [`GuardedStream`], and tells it that its peer has authenticated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    cut: CancellationToken,
    authenticated: Arc<AtomicBool>,
    has_proxy_header: Arc<AtomicBool>,
}

/// The stream.
pub(crate) struct GuardedStream<S> {
    inner: S,
    guard: Guard,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    received: u64,
    /// Bytes of [`GREETING`] that have come.
    greeted: usize,
}

/// The first bytes of every client (RFC 4253 section 4.2). Only a server may say other lines before it.
const GREETING: &[u8] = b"SSH-";

/// The answer to anything else; OpenSSH's server has the same.
const NOT_SSH: &[u8] = b"Invalid SSH identification string.\r\n";

impl Guard {
    /// Cuts the stream: every read and write fails from now on.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Returns whether it is cut.
    #[must_use]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Notes that the peer was authenticated: it may send what it likes.
    pub(crate) fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Returns whether it has.
    #[must_use]
    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Returns whether the peer began with a header of the PROXY protocol, for which the stream has ended.
    #[must_use]
    pub(crate) fn has_proxy_header(&self) -> bool {
        self.has_proxy_header.load(Ordering::Relaxed)
    }
}

impl<S> GuardedStream<S> {
    /// Guards `inner`.
    pub(crate) fn new(inner: S, guard: Guard) -> Self {
        let cut = Box::pin(guard.cut.clone().cancelled_owned());
        Self {
            inner,
            guard,
            cut,
            received: 0,
            greeted: 0,
        }
    }

    /// Compares what came with the greeting. A peer that says something else is no SSH client, and russh would wait for
    /// a version until the login grace time is over.
    fn is_greeting(&mut self, bytes: &[u8]) -> bool {
        let expected = GREETING.get(self.greeted..).unwrap_or_default();
        let is_same = expected.iter().zip(bytes).all(|(want, got)| want == got);
        if !is_same && self.greeted == 0 && proxy_header::begins(bytes) {
            self.guard.has_proxy_header.store(true, Ordering::Relaxed);
        }
        self.greeted = GREETING.len().min(self.greeted + bytes.len());
        is_same
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let cut = self.cut.as_mut().poll(cx).is_ready();
        let flood = self.received > MAX_UNAUTHENTICATED_BYTES && !self.guard.is_authenticated();
        if cut || flood {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if !self.guard.is_authenticated() {
            let came = buffer.filled().get(before..).unwrap_or_default();
            self.received += came.len() as u64;
            if !self.is_greeting(came) {
                // Who reads may take it that an error comes without bytes.
                buffer.set_filled(before);
                // As far as the socket takes it at once.
                let _ = Pin::new(&mut self.inner).poll_write(cx, NOT_SSH);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_cut_wakes_a_reader_that_waits() {
        let guard = Guard::default();
        let (_peer, ours) = tokio::io::duplex(64);
        let mut stream = GuardedStream::new(ours, guard.clone());
        let reader = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        guard.cut();
        let error = reader.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn only_an_authenticated_peer_may_send_much() {
        for authenticated in [false, true] {
            let guard = Guard::default();
            if authenticated {
                guard.set_authenticated();
            }
            let (mut peer, ours) = tokio::io::duplex(1 << 16);
            let mut stream = GuardedStream::new(ours, guard);
            let send = tokio::spawn(async move {
                let flood = [GREETING, &vec![0; 1 << 20]].concat();
                let _ = peer.write_all(&flood).await;
            });
            let mut sink = Vec::new();
            let outcome = stream.read_to_end(&mut sink).await;
            drop(stream);
            send.await.unwrap();
            assert_eq!(outcome.is_ok(), authenticated);
            assert!(authenticated || (500_000..600_000).contains(&sink.len()));
        }
    }

    #[tokio::test]
    async fn other_first_line_ends_the_stream() {
        for (first, is_ssh) in [
            (&b"SSH-2.0-test\r\n"[..], true),
            (b"\r\n", false),
            (b"\nSSH-2.0-test\r\n", false),
            (b"GET / HTTP/1.1\r\n", false),
            (b"SSX", false),
        ] {
            let (mut peer, ours) = tokio::io::duplex(1 << 10);
            let mut stream = GuardedStream::new(ours, Guard::default());
            // Byte by byte, as a terminal sends it.
            let reader = tokio::spawn(async move {
                let mut sink = Vec::new();
                stream.read_to_end(&mut sink).await.is_ok()
            });
            for byte in first {
                let _ = peer.write_all(&[*byte]).await;
                tokio::task::yield_now().await;
            }
            peer.shutdown().await.unwrap();
            assert_eq!(reader.await.unwrap(), is_ssh, "{first:?}");
            let mut said = String::new();
            peer.read_to_string(&mut said).await.unwrap();
            assert_eq!(said.starts_with("Invalid SSH"), !is_ssh, "{first:?}");
        }
    }
}
