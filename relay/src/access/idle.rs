//! Times the warning and the end of a session that is idle or reaches its longest duration. No clock in here: all times
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
mod tests;
