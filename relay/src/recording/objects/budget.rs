//! Bounds what all recordings may take, what those of one device may, and how much of the disk is left alone. Pure: the
//! caller says what is free.

use std::collections::{HashMap, HashSet};

use holdfast_protocol::ids::DeviceId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::recording::limits::{RECORDINGS_DEVICE_MAX, RECORDINGS_MIN_FREE};
use crate::store::{Store, StoreError, Tx, meta};

/// The bounds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// The bound of the recordings of one device; `None`: as much as all may have.
    pub device_max: Option<u64>,
    /// The bound of all recordings; `None`: as much as there is room for.
    pub max: Option<u64>,
    /// The free space to keep on the file system on which segments are received.
    pub min_free: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            device_max: Some(RECORDINGS_DEVICE_MAX),
            max: None,
            min_free: RECORDINGS_MIN_FREE,
        }
    }
}

impl Bounds {
    /// Remembers them for commands that do not read the configuration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remember(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let text = crate::json::compact(self);
        tx.meta_set(meta::RECORDING_BOUNDS, &text).await
    }

    /// Returns the bounds that the relay that served last has remembered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remembered(store: &Store) -> Result<Self, StoreError> {
        match store.meta_get(meta::RECORDING_BOUNDS).await? {
            None => Ok(Self::default()),
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| StoreError::Corrupt("the bounds of recordings")),
        }
    }
}

/// The bound that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub(crate) enum Shortage {
    /// The device's budget.
    #[error("the recordings of this device have reached `device_max` of [recordings]")]
    Device(DeviceId),
    /// All recordings together are at their bound.
    #[error("all recordings together have reached `max` of [recordings]")]
    All,
    /// The disk.
    #[error(
        "the file system of the state folder has less free space than `min_free` of [recordings]"
    )]
    Disk,
}

/// The bytes that are claimed of the bounds.
#[derive(Debug)]
pub(crate) struct StorageBudget {
    bounds: Bounds,
    all: u64,
    devices: HashMap<DeviceId, u64>,
    /// The bounds that were found short, until they have room again.
    short: HashSet<Shortage>,
}

/// A claim that was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// The bound that is short.
    pub(crate) shortage: Shortage,
    /// True if it is so since just now.
    pub(crate) is_new: bool,
}

/// The bytes that a segment would take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) device: DeviceId,
    /// The bytes that its recording has claimed before, and has with it.
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// The bytes of the segment itself.
    pub(crate) segment: u64,
}

impl StorageBudget {
    pub(crate) fn new(bounds: Bounds, used: Vec<(DeviceId, u64)>) -> Self {
        let mut budget = Self {
            bounds,
            all: 0,
            devices: HashMap::new(),
            short: HashSet::new(),
        };
        budget.count(used);
        budget
    }

    /// Counts what all devices' recordings take by the store: some may have been removed.
    pub(crate) fn count(&mut self, used: Vec<(DeviceId, u64)>) {
        let sizes = used.iter().map(|(_, bytes)| *bytes);
        self.all = sizes.fold(0, u64::saturating_add);
        self.devices = used.into_iter().collect();
    }

    /// Returns whether something was short when it was claimed last: then it is worth counting anew.
    pub(crate) fn is_short(&self) -> bool {
        !self.short.is_empty()
    }

    /// Claims room for a segment, where so much of the disk is free.
    pub(crate) fn claim(&mut self, claim: Claim, free: u64) -> Result<(), NoRoom> {
        let more = claim.after.saturating_sub(claim.before);
        let used = self.devices.get(&claim.device).copied().unwrap_or(0);
        let (used, all) = (used.saturating_add(more), self.all.saturating_add(more));
        let beyond = |most: Option<u64>, bytes: u64| most.is_some_and(|most| bytes > most);
        let checks = [
            (
                Shortage::Disk,
                free < self.bounds.min_free.saturating_add(claim.segment),
            ),
            (Shortage::All, more > 0 && beyond(self.bounds.max, all)),
            (
                Shortage::Device(claim.device),
                more > 0 && beyond(self.bounds.device_max, used),
            ),
        ];
        for (shortage, is_short) in checks {
            if is_short {
                let is_new = self.short.insert(shortage);
                return Err(NoRoom { shortage, is_new });
            }
            // What is claimed already shows no room: a device could have the shortage begin again at will.
            if more > 0 || shortage == Shortage::Disk {
                self.short.remove(&shortage);
            }
        }
        self.all = all;
        self.devices.insert(claim.device, used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: DeviceId = DeviceId([1; 16]);
    const B: DeviceId = DeviceId([2; 16]);
    const PLENTY: u64 = 1 << 40;

    fn bounds() -> Bounds {
        Bounds {
            device_max: Some(100),
            max: Some(150),
            min_free: 1_000,
        }
    }

    fn claim(device: DeviceId, before: u64, after: u64) -> Claim {
        Claim {
            device,
            before,
            after,
            segment: after - before,
        }
    }

    fn shortage(claimed: Result<(), NoRoom>) -> Option<(Shortage, bool)> {
        claimed.err().map(|none| (none.shortage, none.is_new))
    }

    #[test]
    fn device_and_all_have_a_budget() {
        let mut budget = StorageBudget::new(bounds(), vec![(A, 60)]);
        assert_eq!(budget.claim(claim(A, 0, 40), PLENTY), Ok(()));
        // What is claimed already costs nothing.
        assert_eq!(budget.claim(claim(A, 40, 40), PLENTY), Ok(()));
        let full = budget.claim(claim(A, 40, 41), PLENTY);
        assert_eq!(shortage(full), Some((Shortage::Device(A), true)));
        let again = budget.claim(claim(A, 40, 41), PLENTY);
        assert_eq!(shortage(again), Some((Shortage::Device(A), false)));
        assert_eq!(budget.claim(claim(B, 0, 50), PLENTY), Ok(()));
        let full = budget.claim(claim(B, 50, 51), PLENTY);
        assert_eq!(shortage(full), Some((Shortage::All, true)));
        assert!(budget.is_short());
        budget.count(vec![(A, 10)]);
        assert_eq!(budget.claim(claim(A, 40, 41), PLENTY), Ok(()));
        assert!(!budget.is_short());
    }

    #[test]
    fn offer_that_is_claimed_ends_no_shortage() {
        let mut budget = StorageBudget::new(bounds(), vec![(A, 60)]);
        assert_eq!(budget.claim(claim(A, 0, 40), PLENTY), Ok(()));
        let begun: Vec<_> = (0..10)
            .filter_map(|_| {
                assert_eq!(budget.claim(claim(A, 40, 40), PLENTY), Ok(()));
                shortage(budget.claim(claim(A, 40, 41), PLENTY))
            })
            .filter(|(_, is_new)| *is_new)
            .collect();
        assert_eq!(begun, [(Shortage::Device(A), true)]);
    }

    #[test]
    fn floor_of_the_disk_is_kept_whole() {
        let mut budget = StorageBudget::new(bounds(), vec![]);
        assert_eq!(budget.claim(claim(A, 0, 10), 1_010), Ok(()));
        let low = budget.claim(claim(A, 10, 20), 1_009);
        assert_eq!(shortage(low), Some((Shortage::Disk, true)));
        // Also for what is claimed, and of which nothing may have come.
        let held = Claim {
            segment: 10,
            ..claim(A, 10, 10)
        };
        assert_eq!(
            shortage(budget.claim(held, 1_009)),
            Some((Shortage::Disk, false))
        );
    }

    proptest! {
        #[test]
        fn no_sequence_of_claims_exceeds_a_bound(
            claims in proptest::collection::vec((any::<bool>(), 0_u64..80), 0..50)
        ) {
            let mut budget = StorageBudget::new(bounds(), vec![]);
            let mut granted = [0_u64; 2];
            for (of_a, bytes) in claims {
                let device = if of_a { A } else { B };
                let sum = &mut granted[usize::from(of_a)];
                if budget.claim(claim(device, *sum, *sum + bytes), PLENTY).is_ok() {
                    *sum += bytes;
                }
            }
            prop_assert!(granted.iter().all(|sum| *sum <= 100));
            prop_assert!(granted.iter().sum::<u64>() <= 150);
        }
    }
}
