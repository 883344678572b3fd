//! Text for a terminal in raw mode, where a line feed alone would make stairs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::session::limits::SPLICE_BUFFER;

/// Writes a carriage return before each line feed, and waits as what is behind it does.
pub(super) struct TerminalLines<W> {
    inner: W,
    /// The text that was taken and is not written yet: at most twice a [`SPLICE_BUFFER`].
    pending: Vec<u8>,
    written: usize,
}

impl<W: AsyncWrite + Unpin> TerminalLines<W> {
    /// Writes to `inner`.
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            pending: Vec::new(),
            written: 0,
        }
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .pending
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.pending.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for TerminalLines<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        text: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        let taken = text.get(..SPLICE_BUFFER).unwrap_or(text);
        for byte in taken {
            if *byte == b'\n' {
                self.pending.push(b'\r');
            }
            self.pending.push(*byte);
        }
        // What does not go now goes before the next text, or when it is flushed.
        if let Poll::Ready(Err(error)) = self.poll_pending(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn newlines_are_converted_at_any_chunk_size() {
        let (to, from) = tokio::io::duplex(3);
        let text = "a\n\nbc\n".repeat(20_000);
        let wanted = text.replace('\n', "\r\n");
        let writing = tokio::spawn(async move {
            let mut lines = TerminalLines::new(to);
            lines.write_all(text.as_bytes()).await.unwrap();
            lines.flush().await.unwrap();
        });
        let mut from = from;
        let mut got = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut from, &mut got)
            .await
            .unwrap();
        writing.await.unwrap();
        assert!(got == wanted);
    }
}
