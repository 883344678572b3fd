//! The delay before the next attempt to dial: capped exponential back-off with full jitter.

use core::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_CAP};

/// Counts failed attempts. It never says "stop": a device that gives up needs a van and a ladder.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more failure, and returns the delay before the next attempt. `random` is any uniformly
    /// distributed number; the delay is uniform in `0..=min(cap, base * 2^failures)` (full jitter, so
    /// that a fleet which lost its relay in one moment does not come back in one moment).
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let ceiling = BACKOFF_BASE
            .checked_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .unwrap_or(BACKOFF_CAP)
            .min(BACKOFF_CAP);
        self.failures = self.failures.saturating_add(1);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % micros.saturating_add(1))
    }

    /// Resets after a tunnel is established: the next failure starts from the base again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns how many attempts failed since the last tunnel.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_the_cap_for_ever() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for i in 0..10_000_u64 {
            let delay = backoff.next_delay(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(delay <= BACKOFF_CAP);
            longest = longest.max(delay);
        }
        assert!(
            longest > BACKOFF_CAP / 2,
            "jitter is spread over the whole range"
        );
        backoff.failures = u32::MAX;
        assert!(backoff.next_delay(u64::MAX) <= BACKOFF_CAP);
    }

    #[test]
    fn the_first_delay_is_short_and_reset_brings_it_back() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_delay(u64::MAX) <= BACKOFF_BASE);
        for _ in 0..20 {
            backoff.next_delay(u64::MAX);
        }
        backoff.reset();
        assert!(backoff.next_delay(u64::MAX) <= BACKOFF_BASE);
    }
}
