//! Seeded randomness: the same seed gives the same run, on every machine.

use std::ops::Range;
use std::time::Duration;

/// Runs `test` with seeds from 0 up, as many as `usual`.
pub(crate) fn for_seeds(usual: u64, test: impl Fn(&mut Random)) {
    let variable = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let seeds = match variable("HOLDFAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let times = variable("HOLDFAST_SEEDS_TIMES").unwrap_or(1);
            0..variable("HOLDFAST_SEEDS").unwrap_or(usual * times)
        }
    };
    for seed in seeds {
        let _shown = ShownOnFailure(seed);
        test(&mut Random::new(seed));
    }
}

struct ShownOnFailure(u64);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with HOLDFAST_SEED={}", self.0);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough to choose by.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `range`.
    pub(crate) fn pick(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// The same, as a length or an index.
    pub(crate) fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.pick(0..below as u64)).unwrap()
    }

    /// Returns whether something of this probability happens.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.pick(0..100) < percent
    }

    /// Another generator, whose numbers do not depend on how many this one gives.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// So many milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.pick(range))
    }
}
