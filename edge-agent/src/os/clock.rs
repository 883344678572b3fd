//! The device's clock on the wall: shown and noted, never trusted. It may stand in 1970, in 2106, or before the
//! epoch.
//!
//! Where pointers have 32 bits, musl's `clock_gettime` under the name that Rust's standard library calls fills 32 bits
//! of seconds, and fails from 2038-01-19T03:14:08Z on; `SystemTime::now` panics then. So the kernel is asked for 64
//! bits (`clock_gettime64`) directly. Everything here goes through this module.

use std::time::{Duration, Instant};

#[cfg(target_pointer_width = "32")]
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Returns the present moment of the clock that never goes back.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Seconds since 1970, rounded down, and the nanoseconds behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WallTime {
    secs: i64,
    nanos: u32,
}

impl WallTime {
    /// Returns what the clock shows.
    #[cfg(target_pointer_width = "32")]
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Realtime);
        Self {
            secs: time.tv_sec,
            nanos: u32::try_from(time.tv_nsec).unwrap_or(0),
        }
    }

    /// Returns what the clock shows.
    #[cfg(not(target_pointer_width = "32"))]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn now() -> Self {
        use std::time::SystemTime;

        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        match since {
            Ok(passed) => Self::after_1970(passed),
            Err(before) => Self::before_1970(before.duration()),
        }
    }

    /// Seconds since 1970.
    pub(crate) fn secs(self) -> i64 {
        self.secs
    }

    /// Microseconds since 1970; what no number holds is the last that one does.
    pub(crate) fn micros(self) -> i64 {
        let micros = i128::from(self.secs) * 1_000_000 + i128::from(self.nanos / 1_000);
        let beyond = if self.secs < 0 { i64::MIN } else { i64::MAX };
        i64::try_from(micros).unwrap_or(beyond)
    }

    /// Returns the time since 1970; zero before it.
    pub(crate) fn since_1970(self) -> Duration {
        match u64::try_from(self.secs) {
            Ok(secs) => Duration::new(secs, self.nanos),
            Err(_) => Duration::ZERO,
        }
    }

    #[cfg_attr(
        target_pointer_width = "32",
        expect(dead_code, reason = "the kernel gives it in this form there")
    )]
    fn after_1970(passed: Duration) -> Self {
        match i64::try_from(passed.as_secs()) {
            Ok(secs) => Self {
                secs,
                nanos: passed.subsec_nanos(),
            },
            Err(_) => Self {
                secs: i64::MAX,
                nanos: 999_999_999,
            },
        }
    }

    #[cfg_attr(
        target_pointer_width = "32",
        expect(dead_code, reason = "the kernel gives it in this form there")
    )]
    fn before_1970(left: Duration) -> Self {
        let whole = i64::try_from(left.as_secs());
        match (whole, left.subsec_nanos()) {
            (Ok(secs), 0) => Self {
                secs: -secs,
                nanos: 0,
            },
            (Ok(secs), nanos) => Self {
                secs: -secs - 1,
                nanos: 1_000_000_000 - nanos,
            },
            (Err(_), _) => Self {
                secs: i64::MIN,
                nanos: 0,
            },
        }
    }
}

/// For TLS, where it decides nothing: no certificate has dates here. rustls' own clock panics before 1970.
#[derive(Debug)]
pub(crate) struct TlsClock;

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(WallTime::now().since_1970()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_instant_is_what_it_is() {
        for (passed, secs) in [
            (0, 0),
            (0x7fff_ffff, 2_147_483_647),
            // 2038-01-19T03:14:08Z and 2106-02-07T06:28:16Z: the first seconds beyond 32 bits, with a sign and
            // without.
            (0x8000_0000, 2_147_483_648),
            (0x1_0000_0000, 4_294_967_296),
            (u64::MAX, i64::MAX),
        ] {
            let time = WallTime::after_1970(Duration::from_secs(passed));
            assert_eq!(time.secs(), secs);
            assert_eq!(time.micros(), secs.saturating_mul(1_000_000));
            assert_eq!(i64::try_from(time.since_1970().as_secs()), Ok(secs));
        }
        let before = WallTime::before_1970(Duration::from_millis(1_500));
        assert_eq!((before.secs(), before.micros()), (-2, -1_500_000));
        assert_eq!(before.since_1970(), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_time_panics_and_none_is_out_of_order(one: Duration, two: Duration) {
            let (earlier, later) = (one.min(two), one.max(two));
            let after = [earlier, later].map(WallTime::after_1970);
            let before = [later, earlier].map(WallTime::before_1970);
            for pair in [after, before, [before[0], after[0]]] {
                prop_assert!(pair[0].secs() <= pair[1].secs());
                prop_assert!(pair[0].micros() <= pair[1].micros());
                prop_assert!(pair[0].since_1970() <= pair[1].since_1970());
                prop_assert!(pair[0].nanos < 1_000_000_000);
            }
        }
    }
}
