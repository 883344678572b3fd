//! The streams of one tunnel that its relay has opened: the tunnel is kept for them when the device goes to another relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use event_listener::Event;

/// Counts the streams of a tunnel.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct OpenStreams {
    count: AtomicU32,
    changed: Event,
}

/// One of them, until it is dropped.
pub(in crate::tunnel) struct OpenStream(Arc<OpenStreams>);

impl OpenStreams {
    /// Counts one more.
    pub(in crate::tunnel) fn enter(self: &Arc<Self>) -> OpenStream {
        self.count.fetch_add(1, Ordering::AcqRel);
        OpenStream(Arc::clone(self))
    }

    /// Returns whether there is none.
    pub(in crate::tunnel) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Resolves when there is none.
    pub(in crate::tunnel) async fn empty(&self) {
        loop {
            let changed = self.changed.listen();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify(usize::MAX);
    }
}
