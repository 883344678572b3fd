//! Compares what a device holds with what is expected of it: the rest is judged at once.
//!
//! Only sessions that began before the agent's start, or before this tunnel, are compared: of a session that begins
//! meanwhile, the device need not know yet. Which these are is decided by the relay's rows. What a device does not list
//! although it has it is not taken any more, as with anything that it reports as gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, SessionId};
use holdfast_protocol::limits::{INVENTORY_PART, MAX_INVENTORIES, MAX_INVENTORY_PARTS};
use holdfast_protocol::wire::{InventoryPart, SegmentLost};
use tracing::info;

use crate::clock::Timestamp;
use crate::recording::limits::MAX_INVENTORY_ROWS;
use crate::recording::{RecordingError, Recordings};

/// The inventories that may still come on a tunnel. Its streams share it.
#[derive(Clone, Debug)]
pub(in crate::recording) struct InventoryQuota(Arc<AtomicU32>);

/// The inventory that comes on one stream.
#[derive(Debug, Default)]
pub(in crate::recording) struct IncomingInventory {
    /// The number of the next part.
    next: u32,
    /// Recordings that are expected and were in no part.
    missing: HashSet<SessionId>,
}

/// The reason why an inventory is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recording) enum InventoryFault {
    /// One of its parts is out of place, or too large.
    Part,
    /// There were too many of them.
    TooMany,
}

impl Default for InventoryQuota {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(MAX_INVENTORIES)))
    }
}

impl InventoryQuota {
    fn take(&self) -> bool {
        let fewer = |left: u32| left.checked_sub(1);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(success, failure, fewer).is_ok()
    }
}

impl IncomingInventory {
    /// Checks the place of a part before it costs anything. Another inventory may follow one that is over: an agent whose
    /// first was not taken sends that one, and a while later that of the tunnel. All of a tunnel share the quota.
    pub(in crate::recording) fn check(
        &mut self,
        part: &InventoryPart,
        quota: &InventoryQuota,
    ) -> Result<(), InventoryFault> {
        let fits = part.part == self.next
            && part.part < MAX_INVENTORY_PARTS
            && part.sessions.len() <= INVENTORY_PART;
        if !fits {
            return Err(InventoryFault::Part);
        }
        if part.part == 0 && !quota.take() {
            return Err(InventoryFault::TooMany);
        }
        self.next = if part.last { 0 } else { part.part + 1 };
        Ok(())
    }
}

impl Recordings {
    /// Takes a checked part of what a device holds, on a tunnel that was opened then. After the last one, every
    /// recording that is expected and is not listed has its verdict.
    ///
    /// # Errors
    /// [`RecordingError`]: nothing is answered.
    pub(in crate::recording) async fn take_inventory(
        &self,
        device: DeviceId,
        opened: Timestamp,
        inventory: &mut IncomingInventory,
        part: &InventoryPart,
    ) -> Result<(), RecordingError> {
        if part.part == 0 {
            // The time that the device says counts only back to before this tunnel.
            let start = Timestamp::now().before(Duration::from_millis(part.age));
            let before = Timestamp(start.0.min(opened.0));
            let expected = self
                .0
                .store
                .recordings_expected(device, before, MAX_INVENTORY_ROWS);
            inventory.missing = expected.await?.into_iter().collect();
        }
        for session in &part.sessions {
            inventory.missing.remove(session);
        }
        if !part.last {
            return Ok(());
        }
        let missing = std::mem::take(&mut inventory.missing);
        if !missing.is_empty() {
            info!(%device, recordings = missing.len(), "recordings are not on their device any more");
        }
        for session in missing {
            self.not_held(session, part.why).await?;
        }
        Ok(())
    }

    /// Settles a recording that its device does not hold. While its session runs here, that waits.
    async fn not_held(&self, id: SessionId, why: SegmentLost) -> Result<(), RecordingError> {
        {
            let live = self.0.live.lock();
            if live.contains_key(&id) {
                self.0.not_held.lock().insert(id, why);
                return Ok(());
            }
        }
        // A session of before the agent's start ends in a moment. It is compared again with the next inventory.
        if self.runs_elsewhere(id).await? {
            return Ok(());
        }
        self.settle_not_held(id, why).await
    }

    /// Settles a recording that its device does not hold, and whose session is over.
    pub(in crate::recording) async fn settle_not_held(
        &self,
        id: SessionId,
        why: SegmentLost,
    ) -> Result<(), RecordingError> {
        self.with(id, |entry| entry.ingest.handle_not_held(why))
            .await?;
        self.forget(id);
        Ok(())
    }
}
