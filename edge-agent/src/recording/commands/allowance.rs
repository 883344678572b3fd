//! Bounds what a session's programs add to its recording: an honest recording has to stay within what the relay expects
//! of such a session, whatever runs in it. Pure: the caller gives the time.

use std::time::Duration;

use crate::recording::limits::{COMMAND_BYTES_AT_ONCE, COMMAND_BYTES_PER_SECOND};

/// The allowance of one session. It fills up by the second.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
    /// The time when it was filled up last.
    at: Duration,
}

impl Allowance {
    /// Returns a full allowance.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            left: COMMAND_BYTES_AT_ONCE,
            at: now,
        }
    }

    /// Takes so many bytes, if there are so many.
    pub(super) fn take(&mut self, now: Duration, bytes: u64) -> bool {
        let passed = now.saturating_sub(self.at).as_micros();
        let more = passed.saturating_mul(u128::from(COMMAND_BYTES_PER_SECOND)) / 1_000_000;
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(COMMAND_BYTES_AT_ONCE);
            self.at = now;
        }
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::limits::RECORDING_PER_SECOND_OF_COMMANDS;

    use super::*;

    #[test]
    fn flood_of_programs_stays_within_what_the_relay_expects() {
        let mut allowance = Allowance::new(Duration::ZERO);
        let mut taken = 0;
        for millis in 0..60_000 {
            // A thousand programs a second with the longest arguments.
            if allowance.take(Duration::from_millis(millis), 4_096) {
                taken += 4_096;
            }
        }
        assert!(taken > 50 * COMMAND_BYTES_PER_SECOND, "{taken}");
        assert!(
            taken <= 60 * COMMAND_BYTES_PER_SECOND + COMMAND_BYTES_AT_ONCE,
            "{taken}"
        );
        assert!(taken < 60 * RECORDING_PER_SECOND_OF_COMMANDS, "{taken}");
    }

    #[test]
    fn what_a_person_runs_is_always_allowed() {
        let mut allowance = Allowance::new(Duration::ZERO);
        for second in 0..3_600 {
            let now = Duration::from_secs(second);
            assert!((0..100).all(|_| allowance.take(now, 300)), "{second}");
        }
    }
}
