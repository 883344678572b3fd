//! Slots of quotas, held as long as a value lives. Taking one waits for the store; giving it back is a
//! signal to one task, so that it also happens where nothing can be waited for: in a drop, in a panic.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use holdfast_protocol::ids::UserName;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{sleep, timeout, timeout_at};
use tracing::warn;

use crate::clock::{self, Timestamp};
use crate::limits::STORE_TIMEOUT;
use crate::model::quota::{Full, Quota};
use crate::session::limits::{
    LEASE_BATCH, LEASE_POLL, LEASE_RELEASE_TIMEOUT, LEASE_RETRY, LEASE_TIMEOUT, MAX_LEASE_WAITERS,
    MAX_LEASES,
};
use crate::store::{Durability, LeaseRow, RelayId, Store, StoreError};

/// So many groups of users share a wake-up: one that was meant for a neighbour costs a look.
const WAKES: usize = 64;

/// The slots of this relay.
#[derive(Debug)]
pub(crate) struct Leases {
    store: Store,
    relay: RelayId,
    next: AtomicI64,
    freed: mpsc::Sender<Freed>,
    wakes: [Notify; WAKES],
    waiters: Semaphore,
    refused: LeaseRefused,
}

/// The number of refusals of each quota since the relay began.
#[derive(Debug, Default)]
pub(crate) struct LeaseRefused {
    connections: AtomicU64,
    sessions: AtomicU64,
    channels: AtomicU64,
}

/// Gives slots back to the store.
#[derive(Debug)]
pub(crate) struct Releaser(mpsc::Receiver<Freed>);

/// One slot. It is given back once: by [`Self::release`], or else by its drop.
#[derive(Debug)]
pub(crate) struct Lease {
    row: LeaseRow,
    /// A place in the releaser's queue that was reserved beforehand: giving back never waits and never fails.
    place: Option<OwnedPermit<Freed>>,
}

/// The reason why no slot was had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// The quota says no.
    #[error(transparent)]
    Full(#[from] Full),
    /// This relay has reached its limit.
    #[error(
        "the relay has reached its limit of {MAX_LEASES} connections and sessions: try again in a minute"
    )]
    Busy,
    /// Nothing gives slots back any more.
    #[error("the relay is stopping")]
    Stopping,
    /// The store fails.
    #[error("the relay's store does not answer: try again in a minute")]
    Unavailable,
}

#[derive(Debug)]
struct Freed {
    row: LeaseRow,
    done: Option<oneshot::Sender<()>>,
}

impl Leases {
    /// Returns the slots of a relay that starts, and what gives them back: [`Releaser::run`] must run.
    #[must_use]
    pub(crate) fn new(store: Store, relay: RelayId) -> (Arc<Self>, Releaser) {
        let (freed, queue) = mpsc::channel(MAX_LEASES);
        let leases = Self {
            store,
            relay,
            next: AtomicI64::new(0),
            freed,
            wakes: [const { Notify::const_new() }; WAKES],
            waiters: Semaphore::new(MAX_LEASE_WAITERS),
            refused: LeaseRefused::default(),
        };
        (Arc::new(leases), Releaser(queue))
    }

    /// Takes a slot, and waits a moment for one that is just being given back.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub(crate) async fn take(
        &self,
        quota: Quota,
        user: &UserName,
        limit: Option<NonZeroU32>,
    ) -> Result<Lease, LeaseError> {
        let place = self.freed.clone().try_reserve_owned();
        let mut lease = Lease {
            row: LeaseRow {
                relay: self.relay,
                number: self.next.fetch_add(1, Ordering::Relaxed),
                quota,
                user: user.clone(),
            },
            // From here on: should we be dropped half-way, what may have been taken is given back.
            place: Some(place.map_err(|error| match error {
                TrySendError::Full(_) => LeaseError::Busy,
                TrySendError::Closed(_) => LeaseError::Stopping,
            })?),
        };
        let taken = self.take_patiently(&lease.row, limit).await;
        if let Err(LeaseError::Full(full)) = &taken {
            self.refused.count(full.quota);
            lease.place = None;
        }
        taken.map(|()| lease)
    }

    /// Says no for a connection whose channels are counted by itself.
    pub(crate) fn count_refusal(&self, quota: Quota) {
        self.refused.count(quota);
    }

    /// Returns how often each quota refused since the relay began: connections, sessions, channels.
    #[must_use]
    pub(crate) fn refusals(&self) -> [u64; 3] {
        let LeaseRefused {
            connections,
            sessions,
            channels,
        } = &self.refused;
        [connections, sessions, channels].map(|count| count.load(Ordering::Relaxed))
    }

    async fn take_patiently(
        &self,
        row: &LeaseRow,
        limit: Option<NonZeroU32>,
    ) -> Result<(), LeaseError> {
        let Err(full) = self.try_take(row, limit).await? else {
            return Ok(());
        };
        // Too many wait already: who floods a quota gets its answer at once.
        let Ok(_waiter) = self.waiters.try_acquire() else {
            return Err(full.into());
        };
        let deadline = clock::instant() + LEASE_TIMEOUT;
        let wake = &self.wakes[bucket(&row.user)];
        loop {
            // Slots that another relay gives back are not announced here: they are looked for.
            let until = deadline.min(clock::instant() + LEASE_POLL);
            let _ = timeout_at(until, wake.notified()).await;
            let Err(full) = self.try_take(row, limit).await? else {
                return Ok(());
            };
            if clock::instant() >= deadline {
                return Err(full.into());
            }
        }
    }

    async fn try_take(
        &self,
        row: &LeaseRow,
        limit: Option<NonZeroU32>,
    ) -> Result<Result<(), Full>, LeaseError> {
        let taken = async {
            let mut tx = self.store.begin(Durability::Process).await?;
            let taken = tx.take_lease(row, limit, Timestamp::now()).await?;
            if taken.is_ok() {
                tx.commit().await?;
            }
            Ok::<_, StoreError>(taken)
        };
        match timeout(STORE_TIMEOUT, taken).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => {
                warn!(%error, "cannot take a slot in the store");
                Err(LeaseError::Unavailable)
            }
            Err(_) => Err(LeaseError::Unavailable),
        }
    }

    fn wake(&self, user: &UserName) {
        self.wakes[bucket(user)].notify_one();
    }
}

impl Lease {
    /// Gives the slot back, and waits until the store knows: who asks next finds it free.
    pub(crate) async fn release(mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        let (done, wait) = oneshot::channel();
        place.send(Freed {
            row: self.row.clone(),
            done: Some(done),
        });
        // A slow disk must not hold up the end of a session: the slot is given back later, then.
        let _ = timeout(LEASE_RELEASE_TIMEOUT, wait).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.send(Freed {
                row: self.row.clone(),
                done: None,
            });
        }
    }
}

impl Releaser {
    /// Runs until it is aborted, or every slot and their keeper are gone.
    pub(crate) async fn run(mut self, leases: std::sync::Weak<Leases>) {
        let mut batch: Vec<Freed> = Vec::with_capacity(LEASE_BATCH);
        while self.0.recv_many(&mut batch, LEASE_BATCH).await > 0 {
            let Some(leases) = leases.upgrade() else {
                return;
            };
            while let Err(error) = leases.give_back(&batch).await {
                warn!(%error, "cannot release slots in the store");
                sleep(LEASE_RETRY).await;
            }
            for freed in batch.drain(..) {
                leases.wake(&freed.row.user);
                if let Some(done) = freed.done {
                    // Who waited may have stopped waiting.
                    let _ = done.send(());
                }
            }
        }
    }
}

impl Leases {
    async fn give_back(&self, batch: &[Freed]) -> Result<(), StoreError> {
        let numbers = batch.iter().map(|freed| freed.row.number);
        let mut tx = self.store.begin(Durability::Process).await?;
        tx.release_leases(self.relay, numbers).await?;
        tx.commit().await
    }
}

impl LeaseRefused {
    fn count(&self, quota: Quota) {
        let count = match quota {
            Quota::Connections => &self.connections,
            Quota::Sessions => &self.sessions,
            Quota::Channels => &self.channels,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn bucket(user: &UserName) -> usize {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    let wakes = WAKES as u64;
    usize::try_from(hasher.finish() % wakes).unwrap_or(0)
}

#[cfg(test)]
mod tests;
