//! Where a session's output goes: to an operator's channel, or to bulk work that gathers what many sessions say.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_protocol::wire::Exit;
use tokio::sync::mpsc;

use crate::limits::FLEET_PIECES;
use crate::session::process::ending::FAILED;
use crate::ssh::channels::outlet::{Gone, Outlet};

/// Takes the output of one session, at the pace of whoever reads it.
#[derive(Debug)]
pub(crate) enum Sink {
    /// One channel of an SSH connection.
    Channel(Outlet),
    /// One of many sessions, gathered.
    Gathered(Gatherer),
}

/// Output of a session.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Of its standard output.
    Stdout(Bytes),
    /// Of its standard error output.
    Stderr(Bytes),
}

/// How a session ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    /// How its process did; `None` if there was none, or it was cut off.
    pub exit: Option<Exit>,
    /// What the relay said last beside the output: why it was refused or cut off.
    pub notice: Option<String>,
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

/// A sink that gathers, and what it gathers.
#[must_use]
pub(crate) fn gather() -> (Sink, Gathered) {
    let (sender, pieces) = mpsc::channel(FLEET_PIECES);
    let last = Arc::<Mutex<Last>>::default();
    let gatherer = Gatherer {
        pieces: sender,
        last: last.clone(),
    };
    (Sink::Gathered(gatherer), Gathered { pieces, last })
}

impl Gathered {
    /// The next piece of output; `None` when the session is over.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }

    /// How the session ended, as far as it has.
    #[must_use]
    pub(crate) fn last(&self) -> Last {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

impl Gatherer {
    async fn take(&self, piece: Piece) -> Result<(), Gone> {
        self.pieces.send(piece).await.map_err(|_| Gone)
    }

    /// The end waits for nobody: it has a place of its own beside the pieces.
    fn note(&self, note: impl FnOnce(&mut Last)) {
        note(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Sink {
    /// Takes output.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn stdout(&self, data: Bytes) -> Result<(), Gone> {
        match self {
            Self::Channel(outlet) => outlet.stdout(data).await,
            Self::Gathered(gatherer) => gatherer.take(Piece::Stdout(data)).await,
        }
    }

    /// Takes error output.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn stderr(&self, data: Bytes) -> Result<(), Gone> {
        match self {
            Self::Channel(outlet) => outlet.stderr(data).await,
            Self::Gathered(gatherer) => gatherer.take(Piece::Stderr(data)).await,
        }
    }

    /// Takes a line of the relay's own, which belongs to neither. A channel has no other place for it than
    /// its error output.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn notice(&self, line: String) -> Result<(), Gone> {
        match self {
            Self::Channel(outlet) => outlet.stderr(line.into()).await,
            Self::Gathered(gatherer) => {
                gatherer.note(|last| last.notice = Some(line.trim().to_owned()));
                Ok(())
            }
        }
    }

    /// Takes how the process ended; `None` for a session without a process, or one that was cut off.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn exit(&self, exit: Option<Exit>) -> Result<(), Gone> {
        match self {
            Self::Channel(outlet) => outlet.exit(exit.unwrap_or(FAILED)).await,
            Self::Gathered(gatherer) => {
                gatherer.note(|last| last.exit = exit);
                Ok(())
            }
        }
    }

    /// No more output comes.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn eof(&self) -> Result<(), Gone> {
        match self {
            Self::Channel(outlet) => outlet.eof().await,
            // It ends when the session lets go of it.
            Self::Gathered(_) => Ok(()),
        }
    }

    /// Closes the channel.
    pub(crate) async fn close(&self) {
        if let Self::Channel(outlet) = self {
            outlet.close().await;
        }
    }
}
