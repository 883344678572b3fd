//! The output of a command that streams, held up while the fence is closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;

use crate::fence::StoreFence;

/// Writes to what is behind it, whenever the fence is open.
pub(super) struct FencedWriter<W> {
    inner: W,
    /// The fence, if there is one.
    fence: Option<StoreFence>,
    /// Resolves when the fence is open, while it was found closed.
    opening: Option<BoxFuture<'static, ()>>,
}

impl<W> FencedWriter<W> {
    /// Writes to `inner`.
    pub(super) fn new(inner: W, fence: Option<StoreFence>) -> Self {
        Self {
            inner,
            fence,
            opening: None,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(fence) = &self.fence else {
            return Poll::Ready(());
        };
        while !fence.is_open() {
            let opening = self.opening.get_or_insert_with(|| {
                let fence = fence.clone();
                Box::pin(async move { fence.opened().await })
            });
            ready!(opening.as_mut().poll(cx));
            self.opening = None;
        }
        Poll::Ready(())
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for FencedWriter<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx));
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx));
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx));
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::yield_now;

    use super::*;
    use crate::clock;
    use crate::fence::OnStoreLoss;

    #[tokio::test]
    async fn writer_waits_while_the_fence_is_closed() {
        let long_ago = clock::since_boot().saturating_sub(Duration::from_secs(9));
        let fence = StoreFence::new(OnStoreLoss::Freeze, long_ago);
        let (to, mut from) = tokio::io::duplex(64);
        let mut writer = FencedWriter::new(to, Some(fence.clone()));
        let writing = tokio::spawn(async move { writer.write_all(b"shown").await });
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!writing.is_finished());
        fence.beat(clock::since_boot());
        fence.enforced(clock::since_boot());
        writing.await.unwrap().unwrap();
        let mut shown = String::new();
        from.read_to_string(&mut shown).await.unwrap();
        assert_eq!(shown, "shown");
    }
}
