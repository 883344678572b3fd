//! The output of a session: to an operator's channel, or to bulk work that gathers the output of many sessions.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_protocol::escape::OneLine;
use holdfast_protocol::wire::Exit;
use tokio::sync::mpsc;

use crate::session::limits::BULK_PIECES;
use crate::sync::Mutex;

/// The reader of an output is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// Resolves when the output was taken.
pub(crate) type TakenOutput<'a> = BoxFuture<'a, Result<(), Gone>>;

/// Takes the output of one session, at the pace of its reader: each method waits until there is room.
pub(crate) trait Output: fmt::Debug + Send + Sync {
    /// Takes standard output.
    fn stdout(&self, data: Bytes) -> TakenOutput<'_>;

    /// Takes standard error output.
    fn stderr(&self, data: Bytes) -> TakenOutput<'_>;

    /// Takes a sentence of the relay's own, which belongs to neither, as a line that ends with `newline`.
    fn notice(&self, sentence: &str, newline: &str) -> TakenOutput<'_>;

    /// Returns whether a sentence is shown when it comes, and not kept as how the session ended.
    fn shows_notices(&self) -> bool {
        true
    }

    /// Takes how the process ended; `None` for a session without a process, or one that was cut off.
    fn exit(&self, exit: Option<Exit>) -> TakenOutput<'_>;

    /// Takes the end of the output.
    fn eof(&self) -> TakenOutput<'_>;

    /// Closes the output: nothing more comes.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Output of a session.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A piece of the standard output.
    Stdout(Bytes),
    /// A piece of the standard error output.
    Stderr(Bytes),
}

/// The way a session ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    /// The exit of its process; `None` if there was none, or it was cut off.
    pub(crate) exit: Option<Exit>,
    /// The last message of the relay beside the output: why it was refused or cut off.
    pub(crate) notice: Option<String>,
}

/// The session's end of what is gathered.
#[derive(Debug)]
pub(crate) struct Gatherer {
    pieces: mpsc::Sender<Piece>,
    last: Arc<Mutex<Last>>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Gathered {
    pieces: mpsc::Receiver<Piece>,
    last: Arc<Mutex<Last>>,
}

/// Returns a sentence of the relay's own as a line for a client's error output or terminal. Everything that the relay
/// says beside the output of a device passes here, so that it can be distinguished from that output.
#[must_use]
pub(crate) fn notice(sentence: &str, newline: &str) -> String {
    format!("[holdfast] {}{newline}", OneLine(sentence))
}

/// Returns an output that gathers, and its reader's end.
#[must_use]
pub(crate) fn gather() -> (Gatherer, Gathered) {
    let (sender, pieces) = mpsc::channel(BULK_PIECES);
    let last = Arc::<Mutex<Last>>::default();
    let gatherer = Gatherer {
        pieces: sender,
        last: last.clone(),
    };
    (gatherer, Gathered { pieces, last })
}

impl Gathered {
    /// Returns the next piece of output; `None` when the session is over.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }

    /// Returns how the session ended, as far as it has.
    #[must_use]
    pub(crate) fn last(&self) -> Last {
        let last = self.last.lock();
        last.clone()
    }
}

impl Gatherer {
    fn take(&self, piece: Piece) -> TakenOutput<'_> {
        Box::pin(async { self.pieces.send(piece).await.map_err(|_| Gone) })
    }

    /// Notes something of the end, which has a place of its own beside the pieces and never waits.
    fn note(&self, note: impl FnOnce(&mut Last)) -> TakenOutput<'_> {
        note(&mut self.last.lock());
        Box::pin(async { Ok(()) })
    }
}

impl Output for Gatherer {
    fn stdout(&self, data: Bytes) -> TakenOutput<'_> {
        self.take(Piece::Stdout(data))
    }

    fn stderr(&self, data: Bytes) -> TakenOutput<'_> {
        self.take(Piece::Stderr(data))
    }

    fn notice(&self, sentence: &str, _newline: &str) -> TakenOutput<'_> {
        let sentence = sentence.to_owned();
        self.note(|last| last.notice = Some(sentence))
    }

    fn shows_notices(&self) -> bool {
        false
    }

    fn exit(&self, exit: Option<Exit>) -> TakenOutput<'_> {
        self.note(|last| last.exit = exit)
    }

    /// Does nothing: the output ends when the session lets go of it.
    fn eof(&self) -> TakenOutput<'_> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
