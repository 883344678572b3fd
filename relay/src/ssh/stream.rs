//! An operator's TCP connection that can be cut from outside, and that bounds what an unauthenticated
//! peer may send. russh itself has neither.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::limits::MAX_UNAUTHENTICATED_BYTES;

/// Cuts a [`GuardedStream`], and tells it that its peer has authenticated.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    cut: CancellationToken,
    authenticated: Arc<AtomicBool>,
}

/// The stream.
pub struct GuardedStream<S> {
    inner: S,
    guard: Guard,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    received: u64,
}

impl Guard {
    /// Cuts the stream: every read and write fails from now on.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// The peer has authenticated: it may send what it likes.
    pub fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }
}

impl<S> GuardedStream<S> {
    /// Guards `inner`.
    pub fn new(inner: S, guard: Guard) -> Self {
        let cut = Box::pin(guard.cut.clone().cancelled_owned());
        Self {
            inner,
            guard,
            cut,
            received: 0,
        }
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

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if !self.guard.is_authenticated() {
            self.received += buffer.filled().len().saturating_sub(before) as u64;
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
                let _ = peer.write_all(&vec![0; 1 << 20]).await;
            });
            let mut sink = Vec::new();
            let outcome = stream.read_to_end(&mut sink).await;
            drop(stream);
            send.await.unwrap();
            assert_eq!(outcome.is_ok(), authenticated);
            assert!(authenticated || sink.len() < 600_000);
        }
    }
}
