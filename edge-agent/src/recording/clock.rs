//! The device's clocks, as far as they can be believed.

use rustix::time::{ClockId, clock_gettime};

use crate::os::clock::WallTime;
use crate::recording::limits::EARLIEST_CLOCK;

/// Seconds since 1970, unless the clock has plainly never been set.
pub(super) fn trusted_clock() -> Option<i64> {
    let seconds = WallTime::now().secs();
    (seconds >= EARLIEST_CLOCK).then_some(seconds)
}

/// Returns the minute of the day in UTC, if the clock can be trusted.
pub(super) fn minute_of_day() -> Option<u16> {
    let seconds = trusted_clock()?;
    u16::try_from(seconds.rem_euclid(86_400) / 60).ok()
}

/// Microseconds since 1970 by the device's clock, which may be years off.
pub(super) fn wall_clock() -> i64 {
    WallTime::now().micros()
}

/// Microseconds since the device booted.
pub(super) fn monotonic_clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanos / 1_000)
}
