//! What the relay notes of a session that is recorded: digests of what it passes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::chain::{ChainKey, Seen, Witness};
use holdfast_protocol::recording::record::Stream;

/// The digests of a session's three streams. Clones share them.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The session.
    pub id: SessionId,
    witnesses: Arc<Mutex<[Witness; 3]>>,
}

impl Watched {
    /// Of a session on which nothing has passed yet.
    #[must_use]
    pub fn new(id: SessionId, key: &ChainKey) -> Self {
        let witnesses = Stream::ALL.map(|stream| Witness::new(key, stream));
        Self {
            id,
            witnesses: Arc::new(Mutex::new(witnesses)),
        }
    }

    /// A piece of a frame is passed on, of which `remaining` more bytes are still to come.
    pub fn pass(&self, stream: impl Into<Stream>, piece: &[u8], remaining: usize) {
        let mut witnesses = self.lock();
        // Three streams, three witnesses.
        if let Some(witness) = witnesses.get_mut(stream.into().index()) {
            witness.update(piece, remaining);
        }
    }

    /// What has passed so far.
    #[must_use]
    pub fn seen(&self) -> [Seen; 3] {
        self.lock().each_ref().map(Witness::seen)
    }

    fn lock(&self) -> MutexGuard<'_, [Witness; 3]> {
        self.witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
