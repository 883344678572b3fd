//! The order of the devices: so many at a time, and those that are offline when they are back.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_protocol::ids::DeviceId;
use tokio::time::Instant;

use crate::store::Device;

/// The number of devices at a time, and how long each may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// So many at a time.
    pub parallel: usize,
    /// So long each, from its turn on; `None`: as long as its session may.
    pub timeout: Option<Duration>,
    /// So long it is waited for those that are offline; `None`: they are not.
    pub wait: Option<Duration>,
}

impl Pace {
    /// Returns the same, with no more than `most` at a time.
    #[must_use]
    pub(crate) fn within(self, most: usize) -> Self {
        let parallel = self.parallel.min(most).max(1);
        Self { parallel, ..self }
    }
}

/// The order of the devices.
#[derive(Debug)]
pub(super) struct Scheduler {
    ready: VecDeque<Device>,
    /// Offline; their turn comes when they are back, or at the deadline, to be refused like any other.
    waiting: Vec<Device>,
    deadline: Option<Instant>,
    pace: Pace,
}

impl Scheduler {
    pub(super) fn new(devices: Vec<Device>, pace: Pace, now: Instant) -> Self {
        let deadline = pace.wait.map(|wait| now + wait);
        let (ready, waiting) = match deadline {
            None => (devices.into(), vec![]),
            // A device that is there is seen at the first look.
            Some(_) => (VecDeque::new(), devices),
        };
        Self {
            ready,
            waiting,
            deadline,
            pace,
        }
    }

    /// Returns the next device, if so many running ones leave room for it.
    pub(super) fn next(&mut self, running: usize) -> Option<Device> {
        match running < self.pace.parallel {
            true => self.ready.pop_front(),
            false => None,
        }
    }

    /// Looks who is back.
    pub(super) fn look(&mut self, is_online: impl Fn(DeviceId) -> bool, now: Instant) {
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        let back = self
            .waiting
            .extract_if(.., |device| late || is_online(device.id));
        self.ready.extend(back);
    }

    /// Returns how long each may take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.pace.timeout
    }

    /// Returns the number of devices that are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether everybody had their turn.
    pub(super) fn is_over(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::fixture;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn devices(count: u8) -> Vec<Device> {
        let device = |id| Device {
            id: DeviceId([id; 16]),
            ..fixture::device(Default::default(), None)
        };
        (1..=count).map(device).collect()
    }

    fn pace(parallel: usize, wait: Option<Duration>) -> Pace {
        Pace {
            parallel,
            timeout: None,
            wait,
        }
    }

    #[test]
    fn no_more_run_at_a_time_than_the_pace_allows() {
        let mut turns = Scheduler::new(devices(5), pace(2, None), clock::instant());
        assert!(turns.next(0).is_some() && turns.next(1).is_some());
        assert!(turns.next(2).is_none() && !turns.is_over());
        assert!((0..3).all(|_| turns.next(1).is_some()));
        assert!(turns.next(0).is_none() && turns.is_over());
        // A limit of the user's lowers it, and nothing raises it; none is left without a turn.
        assert_eq!(pace(20, None).within(3), pace(3, None));
        assert_eq!(pace(2, None).within(64), pace(2, None));
        assert_eq!(pace(0, None).within(64), pace(1, None));
    }

    #[test]
    fn offline_device_is_awaited_and_then_served() {
        let now = clock::instant();
        let devices = devices(3);
        let ids: Vec<_> = devices.iter().map(|device| device.id).collect();
        let mut turns = Scheduler::new(devices, pace(9, Some(SECOND * 10)), now);
        assert!(turns.next(0).is_none());
        turns.look(|id| id == ids[1], now);
        assert_eq!(turns.next(0).unwrap().id, ids[1]);
        assert!(turns.next(0).is_none() && turns.waiting() == 2);
        turns.look(|_| false, now + SECOND * 9);
        assert!(turns.next(0).is_none() && !turns.is_over());
        turns.look(|_| false, now + SECOND * 10);
        assert!(turns.next(0).is_some() && turns.next(1).is_some() && turns.is_over());
    }
}
