//! Decides when an upload may go on: behind interactive data, within its window, rate and daily budget.

use core::time::Duration;

use crate::limits::{UPLOAD_IN_FLIGHT, UPLOAD_PAUSE};

/// Describes how uploads behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadConfig {
    /// The policy.
    pub policy: UploadPolicy,
    /// At most so many bytes a second.
    pub rate: Option<u64>,
    /// At most so many bytes a day.
    pub daily: Option<u64>,
}

/// Describes when recordings are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadPolicy {
    /// While no interactive data passed within the last second.
    Idle,
    /// At any time: interactive data goes first all the same.
    Always,
    /// As `Idle`, between two minutes of the day. A window may go over midnight. A device that does not
    /// know the time does not upload.
    Window {
        /// From this minute of the day.
        from: u16,
        /// To this minute, without it.
        to: u16,
    },
    /// Only on request.
    Manual,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct UploadPace {
    config: UploadConfig,
    interactive: Option<Duration>,
    requested: bool,
    /// Bytes that may be sent at once, by the rate, and when that was counted. Below zero a message was
    /// larger than what was left, and is waited for.
    credit: i64,
    counted: Duration,
    /// Bytes sent since the present day began.
    today: u64,
    day: Duration,
}

impl UploadPace {
    pub(super) fn new(config: UploadConfig) -> Self {
        Self {
            config,
            interactive: None,
            requested: false,
            credit: 0,
            counted: Duration::ZERO,
            today: 0,
            day: Duration::ZERO,
        }
    }

    pub(super) fn handle_interactive(&mut self, now: Duration) {
        self.interactive = Some(now);
    }

    pub(super) fn handle_request(&mut self) {
        self.requested = true;
    }

    /// Notes that nothing waits any more: what is recorded later was not requested.
    pub(super) fn handle_all_sent(&mut self) {
        self.requested = false;
    }

    pub(super) fn handle_sent(&mut self, now: Duration, bytes: u64) {
        self.refill(now);
        self.credit = self
            .credit
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.today = self.today.saturating_add(bytes);
    }

    pub(super) fn allows(&mut self, now: Duration, minute: Option<u16>) -> bool {
        self.refill(now);
        let quiet = self.quiet_at().is_none_or(|at| now >= at);
        let by_policy = match self.config.policy {
            UploadPolicy::Idle => quiet,
            UploadPolicy::Always => true,
            UploadPolicy::Window { from, to } => {
                quiet && minute.is_some_and(|minute| is_within(minute, from, to))
            }
            UploadPolicy::Manual => quiet && self.requested,
        };
        let by_rate = self.config.rate.is_none() || self.credit > 0;
        let by_day = self.config.daily.is_none_or(|daily| self.today < daily);
        (by_policy || self.requested && quiet) && by_rate && by_day
    }

    /// Returns the next moment at which it may be allowed again.
    pub(super) fn timeout(&self, now: Duration) -> Option<Duration> {
        let quiet = self.quiet_at();
        let rate = (self.config.rate.is_some() && self.credit <= 0)
            .then(|| self.counted + Duration::from_millis(100));
        let day = self
            .config
            .daily
            .is_some_and(|daily| self.today >= daily)
            .then(|| self.day + DAY);
        let window = matches!(self.config.policy, UploadPolicy::Window { .. })
            .then(|| now + Duration::from_secs(60));
        let times = [quiet, rate, day, window];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }

    fn quiet_at(&self) -> Option<Duration> {
        self.interactive.map(|at| at + UPLOAD_PAUSE)
    }

    fn refill(&mut self, now: Duration) {
        while now >= self.day + DAY {
            self.day += DAY;
            self.today = 0;
        }
        let Some(rate) = self.config.rate else {
            return;
        };
        let passed = now.saturating_sub(self.counted).as_millis();
        let earned = u128::from(rate).saturating_mul(passed) / 1_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            // What was not used in a quiet hour is not made up for in one burst.
            let most = i64::try_from(rate.clamp(1, UPLOAD_IN_FLIGHT)).unwrap_or(i64::MAX);
            self.credit = self.credit.saturating_add(earned).min(most);
            self.counted = now;
        }
    }
}

fn is_within(minute: u16, from: u16, to: u16) -> bool {
    if from <= to {
        (from..to).contains(&minute)
    } else {
        minute >= from || minute < to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(policy: UploadPolicy) -> UploadPace {
        UploadPace::new(UploadConfig {
            policy,
            rate: None,
            daily: None,
        })
    }

    #[test]
    fn an_upload_waits_a_second_behind_each_keystroke() {
        let mut idle = pace(UploadPolicy::Idle);
        let mut always = pace(UploadPolicy::Always);
        assert!(idle.allows(SECOND, None));
        idle.handle_interactive(SECOND);
        always.handle_interactive(SECOND);
        assert!(!idle.allows(SECOND, None));
        assert!(always.allows(SECOND, None));
        assert_eq!(idle.timeout(SECOND), Some(SECOND * 2));
        assert!(idle.allows(SECOND * 2, None));
    }

    #[test]
    fn a_window_may_go_over_midnight_and_needs_a_clock() {
        let mut night = pace(UploadPolicy::Window {
            from: 1_380,
            to: 300,
        });
        for (minute, open) in [
            (1_379, false),
            (1_380, true),
            (0, true),
            (299, true),
            (300, false),
        ] {
            assert_eq!(night.allows(SECOND, Some(minute)), open, "{minute}");
        }
        assert!(!night.allows(SECOND, None));
        night.handle_request();
        assert!(night.allows(SECOND, None), "asked for");
        night.handle_all_sent();
        assert!(!night.allows(SECOND, None), "once");
    }

    #[test]
    fn rate_and_daily_budget_hold() {
        let mut pace = UploadPace::new(UploadConfig {
            policy: UploadPolicy::Always,
            rate: Some(1_000),
            daily: Some(50_000),
        });
        let mut sent = 0_u64;
        let mut now = Duration::ZERO;
        while now < SECOND * 40 {
            now += Duration::from_millis(10);
            if pace.allows(now, None) {
                pace.handle_sent(now, 100);
                sent += 100;
            }
        }
        assert!((39_000..=41_100).contains(&sent), "{sent} bytes in 40 s");
        while now < DAY * 3 {
            now += SECOND;
            if pace.allows(now, None) {
                pace.handle_sent(now, 100);
                sent += 100;
            }
        }
        assert!(
            (150_000..=150_300).contains(&sent),
            "{sent} bytes in three days"
        );
    }
}
