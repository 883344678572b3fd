//! When a session that is idle or reaches its longest duration is warned, and when it ends. No clock in here: all times
//! are counted from the session's beginning, and come from the caller.

use std::fmt;
use std::time::Duration;

use super::policy;
use crate::model::role::RoleName;

/// The warning time before an idle session ends, or half the timeout if that is shorter.
pub(crate) const WARNING: Duration = Duration::from_secs(60);

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Say [`IdleTimer::warning`]; then ask again.
    Warn,
    /// End it, and say [`IdleTimer::reason`].
    Close,
    /// Nothing before this time.
    Wait(Duration),
    /// Nothing, ever: it has no timeout.
    Never,
}

/// The quantity that a timer measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// The time since the last activity.
    Idle,
    /// The time since the beginning.
    Whole,
}

/// The idle clock of one session, or of one connection; or the clock of a session's longest duration.
#[derive(Clone, Debug)]
pub(crate) struct IdleTimer {
    measure: Measure,
    after: Option<Duration>,
    role: Option<RoleName>,
    /// The time of the last activity.
    active: Duration,
    /// It does not end before this: a warning under new terms has its full time.
    not_before: Duration,
    warned: bool,
}

impl IdleTimer {
    /// Creates a timer that starts now, at time zero.
    #[must_use]
    pub(crate) fn new(terms: &policy::Idle) -> Self {
        Self::of(Measure::Idle, terms.after, terms.role.clone())
    }

    /// Creates a timer of a session's longest duration, which starts now, at time zero. No activity moves it.
    #[must_use]
    pub(crate) fn longest(terms: &policy::Longest) -> Self {
        Self::of(Measure::Whole, terms.after, terms.role.clone())
    }

    fn of(measure: Measure, after: Option<Duration>, role: Option<RoleName>) -> Self {
        Self {
            measure,
            after,
            role,
            active: Duration::ZERO,
            not_before: Duration::ZERO,
            warned: false,
        }
    }

    /// Sets new terms from `now` on. What was idle for longer than they allow is warned first, and has the
    /// whole time of the warning. A longer timeout, or none, lifts a warning that was given.
    pub(crate) fn change(&mut self, terms: &policy::Idle, now: Duration) {
        self.change_to(terms.after, terms.role.as_ref(), now);
    }

    /// Does the same for the longest duration.
    pub(crate) fn change_longest(&mut self, terms: &policy::Longest, now: Duration) {
        self.change_to(terms.after, terms.role.as_ref(), now);
    }

    fn change_to(&mut self, after: Option<Duration>, role: Option<&RoleName>, now: Duration) {
        self.role = role.cloned();
        if self.after == after {
            return;
        }
        self.after = after;
        self.not_before = now.saturating_add(self.warning_time());
        self.warned = false;
    }

    /// Notes activity at that time. A time before the last one changes nothing.
    pub(crate) fn activity(&mut self, at: Duration) {
        if self.measure == Measure::Idle && at > self.active {
            self.active = at;
            self.warned = false;
        }
    }

    /// Returns what is to be done at `now`. Each warning is given once.
    pub(crate) fn poll(&mut self, now: Duration) -> Step {
        let Some(after) = self.after else {
            return Step::Never;
        };
        let end = self.end(after);
        let warning = end.saturating_sub(self.warning_time());
        if now >= end {
            Step::Close
        } else if self.warned {
            Step::Wait(end)
        } else if now >= warning {
            self.warned = true;
            Step::Warn
        } else {
            Step::Wait(warning)
        }
    }

    /// Returns the warning's sentence. `keys`: whether any key will do, as on a terminal.
    #[must_use]
    pub(crate) fn warning(&self, keys: bool) -> String {
        let warning_time = self.warning_time();
        let end = self.end(self.after.unwrap_or_default());
        let seconds = Exact(warning_time).short();
        if self.measure == Measure::Whole {
            return format!("{}: this session closes in {seconds}.", self.limit());
        }
        let silent = Exact(end.saturating_sub(warning_time).saturating_sub(self.active));
        let stay = if keys { " Press any key to stay." } else { "" };
        format!("no input for {silent}: this session closes in {seconds}.{stay}")
    }

    /// Returns the reason of the end: `idle for 15 minutes (role operator)`.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        if self.measure == Measure::Whole {
            return self.limit();
        }
        let after = Exact(self.after.unwrap_or_default());
        match &self.role {
            Some(role) => format!("idle for {after} (role {role})"),
            None => format!("idle for {after} (the default)"),
        }
    }

    /// Returns `a session lasts at most 8 hours (role operator)`.
    fn limit(&self) -> String {
        let after = Exact(self.after.unwrap_or_default());
        match &self.role {
            Some(role) => format!("a session lasts at most {after} (role {role})"),
            None => format!("a session lasts at most {after}"),
        }
    }

    fn end(&self, after: Duration) -> Duration {
        self.active.saturating_add(after).max(self.not_before)
    }

    fn warning_time(&self) -> Duration {
        WARNING.min(self.after.unwrap_or_default() / 2)
    }
}

/// A span of time in words, with nothing rounded away but parts of a second: `15 minutes`, `90 seconds`.
struct Exact(Duration);

impl Exact {
    /// Returns `60 s`.
    fn short(&self) -> String {
        match self.0.subsec_millis() {
            0 => format!("{} s", self.0.as_secs()),
            _ => format!("{:.1} s", self.0.as_secs_f64()),
        }
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0 => return write!(f, "{:.1} seconds", self.0.as_secs_f64()),
            s if s % 86_400 == 0 => (s / 86_400, "day"),
            s if s % 3_600 == 0 => (s / 3_600, "hour"),
            s if s % 60 == 0 => (s / 60, "minute"),
            s => (s, "second"),
        };
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timer(after: Option<u64>, role: Option<&str>) -> IdleTimer {
        IdleTimer::new(&policy::Idle {
            after: after.map(Duration::from_secs),
            role: role.map(|role| RoleName::new(role).unwrap()),
        })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_quiet_session_is_warned_once_and_then_ends() {
        let mut timer = timer(Some(900), Some("operator"));
        assert_eq!(timer.poll(at(0)), Step::Wait(at(840)));
        assert_eq!(timer.poll(at(839)), Step::Wait(at(840)));
        assert_eq!(timer.poll(at(840)), Step::Warn);
        assert_eq!(timer.poll(at(840)), Step::Wait(at(900)));
        assert_eq!(timer.poll(at(899)), Step::Wait(at(900)));
        assert_eq!(timer.poll(at(900)), Step::Close);
    }

    #[test]
    fn activity_after_a_warning_begins_anew() {
        let mut timer = timer(Some(900), None);
        assert_eq!(timer.poll(at(850)), Step::Warn);
        timer.activity(at(860));
        assert_eq!(timer.poll(at(860)), Step::Wait(at(860 + 840)));
        assert_eq!(timer.poll(at(860 + 840)), Step::Warn);
        // What was seen earlier and reported later.
        timer.activity(at(100));
        assert_eq!(timer.poll(at(860 + 900)), Step::Close);
    }

    #[test]
    fn the_lead_is_half_a_short_timeout() {
        for (after, warned) in [
            (4, 2),
            (60, 30),
            (119, 59),
            (120, 60),
            (121, 61),
            (3_600, 3_540),
        ] {
            let mut timer = timer(Some(after), None);
            assert_ne!(
                timer.poll(at(warned) - Duration::from_millis(1)),
                Step::Warn,
                "{after}"
            );
            assert_eq!(
                timer.poll(at(warned) + Duration::from_millis(500)),
                Step::Warn,
                "{after}"
            );
        }
    }

    #[test]
    fn the_longest_duration_is_warned_of_and_no_activity_moves_it() {
        let terms = |hours: Option<u64>| policy::Longest {
            after: hours.map(|hours| at(hours * 3_600)),
            role: Some(RoleName::new("operator").unwrap()),
        };
        let mut timer = IdleTimer::longest(&terms(Some(8)));
        timer.activity(at(8 * 3_600 - 61));
        assert_eq!(timer.poll(at(0)), Step::Wait(at(8 * 3_600 - 60)));
        assert_eq!(timer.poll(at(8 * 3_600 - 60)), Step::Warn);
        assert_eq!(
            timer.warning(true),
            "a session lasts at most 8 hours (role operator): this session closes in 60 s."
        );
        timer.activity(at(8 * 3_600 - 1));
        assert_eq!(timer.poll(at(8 * 3_600)), Step::Close);
        assert_eq!(
            timer.reason(),
            "a session lasts at most 8 hours (role operator)"
        );
        // A shorter one than the session is old warns first; none lifts it.
        timer.change_longest(&terms(Some(1)), at(7 * 3_600));
        assert_eq!(timer.poll(at(7 * 3_600)), Step::Warn);
        assert_eq!(timer.poll(at(7 * 3_600)), Step::Wait(at(7 * 3_600 + 60)));
        timer.change_longest(&terms(None), at(7 * 3_600 + 1));
        assert_eq!(timer.poll(Duration::MAX), Step::Never);
    }

    #[test]
    fn never_is_never() {
        let mut timer = timer(None, Some("kiosk"));
        assert_eq!(timer.poll(Duration::MAX), Step::Never);
    }

    #[test]
    fn the_sentences_are_exact() {
        let fifteen = timer(Some(900), Some("operator"));
        assert_eq!(
            fifteen.warning(true),
            "no input for 14 minutes: this session closes in 60 s. Press any key to stay."
        );
        assert_eq!(fifteen.reason(), "idle for 15 minutes (role operator)");
        let four = timer(Some(4), None);
        assert_eq!(
            four.warning(false),
            "no input for 2 seconds: this session closes in 2 s."
        );
        assert_eq!(four.reason(), "idle for 4 seconds (the default)");
        assert_eq!(
            timer(Some(1), None).warning(false),
            "no input for 0.5 seconds: this session closes in 0.5 s."
        );
        for (seconds, text) in [
            (90, "90 seconds"),
            (3_600, "1 hour"),
            (86_400, "1 day"),
            (60, "1 minute"),
        ] {
            assert!(timer(Some(seconds), None).reason().contains(text), "{text}");
        }
    }

    #[test]
    fn new_terms_hold_at_once_and_never_without_a_warning() {
        let terms = |after: Option<u64>| policy::Idle {
            after: after.map(Duration::from_secs),
            role: Some(RoleName::new("tech").unwrap()),
        };
        // Timeout before, idle for so long, timeout after, and what follows: a warning, and the end.
        let table = [
            // Shorter, with time left.
            (Some(900), 100, Some(300), Some((240, 300))),
            // Shorter than it has been idle already: the whole time of the warning is left.
            (Some(900), 500, Some(300), Some((500, 560))),
            (Some(900), 299, Some(300), Some((299, 359))),
            (Some(900), 500, Some(10), Some((500, 505))),
            (None, 5_000, Some(900), Some((5_000, 5_060))),
            (None, 10, Some(900), Some((840, 900))),
            // Longer.
            (Some(300), 100, Some(900), Some((840, 900))),
            // Longer or none, when a warning was given already.
            (Some(300), 250, Some(900), Some((840, 900))),
            (Some(300), 250, None, None),
            (Some(300), 10, None, None),
            // The same, as after a change of something else: as if nothing had been.
            (Some(300), 250, Some(300), Some((u64::MAX, 300))),
            (None, 250, None, None),
        ];
        for (before, idle, after, expected) in table {
            let shown = format!("{before:?} -> {after:?} at {idle}");
            let mut timer = timer(before, None);
            let warned = before.is_some_and(|before| idle >= before - 60);
            assert_eq!(timer.poll(at(idle)) == Step::Warn, warned, "{shown}");
            timer.change(&terms(after), at(idle));
            let Some((warning, end)) = expected else {
                assert_eq!(timer.poll(Duration::MAX), Step::Never, "{shown}");
                continue;
            };
            if warning != u64::MAX {
                if warning > idle {
                    assert_eq!(timer.poll(at(idle)), Step::Wait(at(warning)), "{shown}");
                }
                assert_eq!(timer.poll(at(warning)), Step::Warn, "{shown}");
            }
            assert_eq!(timer.poll(at(end - 1)), Step::Wait(at(end)), "{shown}");
            assert_eq!(timer.poll(at(end)), Step::Close, "{shown}");
        }
    }

    #[test]
    fn a_warning_under_new_terms_tells_how_long_it_was_quiet() {
        let mut timer = timer(Some(900), None);
        timer.activity(at(100));
        let terms = policy::Idle {
            after: Some(at(240)),
            role: Some(RoleName::new("tech").unwrap()),
        };
        timer.change(&terms, at(700));
        assert_eq!(timer.poll(at(700)), Step::Warn);
        assert_eq!(
            timer.warning(false),
            "no input for 10 minutes: this session closes in 60 s."
        );
        assert_eq!(timer.reason(), "idle for 4 minutes (role tech)");
        // A user who types in time goes on under the new terms.
        timer.activity(at(720));
        assert_eq!(timer.poll(at(720)), Step::Wait(at(720 + 180)));
        assert_eq!(timer.poll(at(720 + 180)), Step::Warn);
        assert_eq!(
            timer.warning(false),
            "no input for 3 minutes: this session closes in 60 s."
        );
    }

    proptest! {
        /// Checks changes of terms at any time: nothing ends unless it was idle for as long as the current ones say,
        /// and not without a warning, which has its full time.
        #[test]
        fn no_change_of_terms_ends_a_session_unwarned(
            steps in proptest::collection::vec((0u64..100, 0u8..4, 1u64..400), 1..200),
        ) {
            let mut timer = timer(Some(100), None);
            let (mut now, mut active, mut after) = (at(0), at(0), at(100));
            let mut warned = None;
            for (delta, what, value) in steps {
                // It is asked exactly when it wants to be.
                let then = now + at(delta);
                while now <= then {
                    match timer.poll(now) {
                        Step::Close => {
                            prop_assert!(now - active >= after);
                            prop_assert_eq!(warned, Some(now - WARNING.min(after / 2)));
                            return Ok(());
                        }
                        Step::Warn => {
                            prop_assert_eq!(warned, None);
                            warned = Some(now);
                        }
                        Step::Wait(until) if until <= then => {
                            prop_assert!(until > now);
                            now = until;
                        }
                        Step::Wait(_) => break,
                        Step::Never => prop_assert!(false),
                    }
                }
                now = then;
                if what == 0 && now > active {
                    timer.activity(now);
                    (active, warned) = (now, None);
                }
                if what == 1 && at(value) != after {
                    let terms = policy::Idle { after: Some(at(value)), role: None };
                    timer.change(&terms, now);
                    (after, warned) = (at(value), None);
                }
            }
        }

        /// Checks any order of activity and polls: never closed early, never late, and warned before.
        #[test]
        fn it_ends_exactly_a_timeout_after_the_last_activity(
            after in 1u64..2_000,
            steps in proptest::collection::vec((0u64..700, any::<bool>()), 1..100),
        ) {
            let mut timer = timer(Some(after), None);
            let (mut now, mut last, mut warned) = (0, 0, false);
            for (delta, active) in steps {
                now += delta;
                let idle = now - last;
                match timer.poll(at(now)) {
                    Step::Close => { prop_assert!(idle >= after); break }
                    Step::Warn => { prop_assert!(!warned && idle < after); warned = true }
                    Step::Wait(until) => { prop_assert!(idle < after && until > at(now) && until <= at(last + after)) }
                    Step::Never => prop_assert!(false),
                }
                if active {
                    timer.activity(at(now));
                    if now > last { (last, warned) = (now, false) }
                }
            }
        }
    }
}
