//! Seeds of the simulation, and the numbers that follow from one.

use std::ops::Range;
use std::time::Duration;

use crate::output;

/// Returns the seeds of one part of this run: so many, or as many as the environment says.
pub(super) fn seeds(part: u64, usual: u64) -> Range<u64> {
    let variable = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    if let Some(seed) = variable("HOLDFAST_SEED") {
        return seed..seed + 1;
    }
    let times = variable("HOLDFAST_SEEDS_TIMES").unwrap_or(1);
    let count = variable("HOLDFAST_SEEDS").unwrap_or(usual * times);
    part * count..(part + 1) * count
}

/// Prints the seed if the test fails.
pub(super) struct ShownOnFailure(pub(super) u64);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            output::complain(format_args!("failed with HOLDFAST_SEED={}", self.0));
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same seed gives the same numbers everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn pick(&mut self, from: u64, below: u64) -> u64 {
        from + self.next() % (below - from)
    }

    pub(super) fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.pick(0, below as u64)).unwrap()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.pick(0, 100) < percent
    }

    pub(super) fn millis(&mut self, from: u64, below: u64) -> Duration {
        Duration::from_millis(self.pick(from, below))
    }
}
