//! Small messages that wait together.

use std::sync::MutexGuard;

use bytes::{Bytes, BytesMut};

use crate::session::limits::MESSAGE_CHUNK;
use crate::sync::Mutex;

/// Small messages that wait as one, until they are taken.
#[derive(Debug)]
pub(super) struct Chunk(Mutex<Option<BytesMut>>);

impl Chunk {
    /// Returns a chunk that begins with `data`.
    pub(super) fn new(data: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(MESSAGE_CHUNK);
        bytes.extend_from_slice(data);
        Self(Mutex::new(Some(bytes)))
    }

    /// Returns whether there was room for `data`, and the chunk is not taken yet.
    pub(super) fn append(&self, data: &[u8]) -> bool {
        match &mut *self.lock() {
            Some(bytes) if bytes.len() + data.len() <= MESSAGE_CHUNK => {
                bytes.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }

    /// Takes all that is in it: nothing more can be added.
    pub(super) fn take(&self) -> Bytes {
        self.lock().take().unwrap_or_default().freeze()
    }

    fn lock(&self) -> MutexGuard<'_, Option<BytesMut>> {
        self.0.lock()
    }
}
