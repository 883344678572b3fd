//! Points in time as the relay stores and shows them.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_protocol::count::Count;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

/// Returns the present moment of the clock that never goes back, which timers wait by and which a test may stop.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Returns the time since the machine was started, by a clock that is never set, and that goes on while this process is
/// stopped and while the machine sleeps.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// Sleeps; for ever, if that is `None`.
pub(crate) async fn rest(span: Option<Duration>) {
    match span {
        Some(span) => sleep(span).await,
        None => std::future::pending().await,
    }
}

/// A point in time: microseconds since 1970-01-01 00:00 UTC, as the store keeps it.
///
/// Only the relay's clock makes these; what a device says about the time is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp(pub i64);

/// The last second that RFC 3339 can name with a year of four digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// The time of the clock that is followed when this process first asked, in microseconds; [`OWN`]: none is.
static FOLLOWED: AtomicI64 = AtomicI64::new(OWN);
const OWN: i64 = i64::MIN;

impl Timestamp {
    /// Returns the time now: by the wall clock of this machine, or by the clock that the process follows.
    #[must_use]
    pub(crate) fn now() -> Self {
        match FOLLOWED.load(Ordering::Relaxed) {
            OWN => Self::of_machine(),
            start => Self(start).after(running()),
        }
    }

    /// Makes this process follow a clock that shows this time now. A database that several relays share has one: what
    /// they compare is in its time, whatever the clocks of their machines show.
    pub(crate) fn follow(self) {
        FOLLOWED.store(self.before(running()).0, Ordering::Relaxed);
    }

    /// Returns the wall clock of this machine now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn of_machine() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Returns it as RFC 3339 in UTC with microseconds, for machines: `2026-11-22T05:06:07.000000Z`. What lies
    /// outside the years 1970 to 9999 is shown as the nearest time within.
    #[must_use]
    pub(crate) fn rfc3339(self) -> String {
        humantime::format_rfc3339_micros(self.system_time()).to_string()
    }

    /// Returns this time plus `duration`; stops at the end of time instead of wrapping.
    #[must_use]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns this time less `duration`.
    #[must_use]
    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Returns how long ago `earlier` was; zero if it was not.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Returns by how many seconds a clock that shows `theirs` (seconds since 1970) is ahead of this time.
    #[must_use]
    pub(crate) fn skew_of(self, theirs: i64) -> i64 {
        theirs.saturating_sub(self.0.div_euclid(1_000_000))
    }

    fn system_time(self) -> SystemTime {
        let since = Duration::from_micros(u64::try_from(self.0).unwrap_or(0));
        UNIX_EPOCH + since.min(Duration::from_secs(LAST_SECOND))
    }
}

/// The form for people, to the minute: `2026-11-22 05:06 UTC`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_rfc3339_seconds(self.system_time()).to_string();
        let (day, time) = text.split_once('T').unwrap_or((&text, ""));
        write!(f, "{day} {} UTC", time.get(..5).unwrap_or(time))
    }
}

/// A span of time in its largest unit, for people: `now`, `12 s`, `3 h`, `12 d`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coarse(pub Duration);

impl Coarse {
    /// Returns the same in words, for sentences: `12 minutes`, `1 hour`.
    #[must_use]
    pub(crate) fn words(self) -> String {
        let (count, _, unit) = self.largest();
        Count(count, unit).to_string()
    }

    fn largest(self) -> (u64, &'static str, &'static str) {
        match self.0.as_secs() {
            s @ 0..60 => (s, "s", "second"),
            s @ 60..3_600 => (s / 60, "min", "minute"),
            s @ 3_600..172_800 => (s / 3_600, "h", "hour"),
            s => (s / 86_400, "d", "day"),
        }
    }
}

impl fmt::Display for Coarse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit, _) = self.largest();
        write!(f, "{count} {unit}")
    }
}

/// Returns for how long this process has asked for the time, by a clock that is never set.
fn running() -> Duration {
    static START: OnceLock<Duration> = OnceLock::new();
    since_boot().saturating_sub(*START.get_or_init(since_boot))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_well_for_people_and_for_machines() {
        let time = Timestamp(1_795_323_960_000_000 + 7_000_001);
        assert_eq!(time.to_string(), "2026-11-22 05:06 UTC");
        assert_eq!(time.rfc3339(), "2026-11-22T05:06:07.000001Z");
    }

    #[test]
    fn a_clock_that_is_followed_goes_on_by_itself() {
        let machine = Timestamp::of_machine();
        assert!(Timestamp::now().since(machine) < Duration::from_secs(60));
        let theirs = machine.after(Duration::from_secs(3600));
        theirs.follow();
        let first = Timestamp::now();
        assert!(first >= theirs && first.since(theirs) < Duration::from_secs(60));
        assert!(Timestamp::now() >= first);
        assert!(first.since(Timestamp::of_machine()) > Duration::from_secs(3000));
    }

    #[test]
    fn no_time_panics() {
        for time in [i64::MIN, -1, 0, i64::MAX].map(Timestamp) {
            let shown = (time.to_string(), time.rfc3339());
            assert!(shown.0.ends_with(" UTC") && shown.1.ends_with('Z'));
            let _ = (
                time.after(Duration::MAX),
                time.before(Duration::MAX),
                time.since(Timestamp(0)),
            );
        }
        assert_eq!(Timestamp(0).since(Timestamp(5)), Duration::ZERO);
    }

    #[test]
    fn a_clock_of_any_year_has_a_skew() {
        let now = Timestamp(1_795_323_960_999_999);
        let day = 86_400;
        for (theirs, days) in [
            (1_795_323_960, 0),
            (0, -20_779),
            (2_147_483_648, 4_075),
            (4_294_967_296, 28_931),
        ] {
            assert_eq!(now.skew_of(theirs) / day, days, "{theirs}");
        }
        assert_eq!(now.skew_of(i64::MIN), i64::MIN);
        assert_eq!(Timestamp(i64::MIN).skew_of(i64::MAX), i64::MAX);
        assert_eq!(Timestamp(-1).skew_of(-1), 0);
    }

    #[test]
    fn spans_are_shown_in_their_largest_unit() {
        let shown = |secs| Coarse(Duration::from_secs(secs));
        assert_eq!(shown(59).to_string(), "59 s");
        assert_eq!(shown(3 * 3600 + 5).to_string(), "3 h");
        assert_eq!(shown(10 * 86_400).to_string(), "10 d");
        assert_eq!(shown(12 * 60).words(), "12 minutes");
        assert_eq!(shown(60).words(), "1 minute");
    }
}
