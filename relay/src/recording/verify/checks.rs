//! Orders the checks of recordings: each device has one turn at a time, so that one with many recordings, or with long
//! ones, keeps no other's waiting longer than one check.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ids::DeviceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::recording::RecordingError;
use crate::sync::Mutex;

/// The places for checks.
#[derive(Debug)]
pub(crate) struct Checks {
    places: Arc<Semaphore>,
    /// The permits of devices that have a check, or wait for one.
    devices: Mutex<HashMap<DeviceId, Arc<Semaphore>>>,
}

/// A place for one check.
#[derive(Debug)]
pub(crate) struct CheckTurn<'c> {
    checks: &'c Checks,
    device: DeviceId,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Checks {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            devices: Mutex::default(),
        }
    }

    /// Waits for a turn of the device. The places are given in the order in which devices come for them, and a device
    /// comes for one only when it has none.
    ///
    /// # Errors
    /// [`RecordingError::Cancelled`]: the relay stops.
    pub(crate) async fn turn(&self, device: DeviceId) -> Result<CheckTurn<'_>, RecordingError> {
        let mut turn = CheckTurn {
            checks: self,
            device,
            permits: None,
        };
        let own = {
            let mut devices = self.devices.lock();
            let one = || Arc::new(Semaphore::new(1));
            devices.entry(device).or_insert_with(one).clone()
        };
        let stops = |_| RecordingError::Cancelled;
        let own = own.acquire_owned().await.map_err(stops)?;
        let place = self.places.clone().acquire_owned().await.map_err(stops)?;
        turn.permits = Some([place, own]);
        Ok(turn)
    }
}

impl Drop for CheckTurn<'_> {
    fn drop(&mut self) {
        self.permits = None;
        let mut devices = self.checks.devices.lock();
        // Others get theirs under the same lock: with one reference, which is the table's, nothing waits.
        if devices
            .get(&self.device)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            devices.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: DeviceId = DeviceId([1; 16]);
    const OTHER: DeviceId = DeviceId([2; 16]);

    #[tokio::test]
    async fn one_device_does_not_starve_another() {
        let checks = Arc::new(Checks::new(2));
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let first = checks.turn(FLOOD).await.unwrap();
        let begin = |device| {
            let (checks, done) = (checks.clone(), done.clone());
            tokio::spawn(async move {
                let _turn = checks.turn(device).await.unwrap();
                done.send(device).unwrap();
            })
        };
        let flood: Vec<_> = (0..50).map(|_| begin(FLOOD)).collect();
        tokio::task::yield_now().await;
        // The second place is free, although the flood has come first.
        begin(OTHER).await.unwrap();
        assert_eq!(order.recv().await, Some(OTHER));
        drop(first);
        for turn in flood {
            turn.await.unwrap();
        }
        assert!(checks.devices.lock().is_empty());
    }

    #[tokio::test]
    async fn devices_take_turns_at_a_single_place() {
        let checks = Arc::new(Checks::new(1));
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let first = checks.turn(FLOOD).await.unwrap();
        let begin = |device| {
            let (checks, done) = (checks.clone(), done.clone());
            tokio::spawn(async move {
                let _turn = checks.turn(device).await.unwrap();
                done.send(device).unwrap();
            })
        };
        for _ in 0..50 {
            begin(FLOOD);
        }
        tokio::task::yield_now().await;
        begin(OTHER);
        tokio::task::yield_now().await;
        drop(first);
        let two = [order.recv().await.unwrap(), order.recv().await.unwrap()];
        assert!(two.contains(&OTHER), "{two:?}");
    }
}
