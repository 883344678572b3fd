//! Watches whether the log can be written, and decides what follows if not.

use std::str::FromStr;

use tracing::{error, info};

use super::AuditError;
use crate::model::invalid::Fault;
use crate::sync::Mutex;

/// The policy for new sessions while the log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WhenUnwritable {
    /// They are refused.
    #[default]
    Refuse,
    /// They start.
    Continue,
}

impl FromStr for WhenUnwritable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "continue" => Ok(Self::Continue),
            _ => Err("expected \"refuse\" or \"continue\""),
        }
    }
}

/// A place that the log is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogTarget {
    /// The table.
    Store,
    /// The file, or stdout.
    File,
}

/// The state of both targets.
#[derive(Debug)]
pub(super) struct Health {
    policy: WhenUnwritable,
    /// The reason why they cannot be written, if they can't.
    broken: Mutex<[Option<Fault>; 2]>,
}

impl Health {
    pub(super) fn new(policy: WhenUnwritable) -> Self {
        Self {
            policy,
            broken: Mutex::default(),
        }
    }

    pub(super) fn policy(&self) -> WhenUnwritable {
        self.policy
    }

    /// Returns whether new sessions may start: see [`super::Audit::admits`].
    pub(super) fn admits(&self) -> Result<(), AuditError> {
        let broken = self.broken.lock();
        match self.policy {
            WhenUnwritable::Refuse if broken.iter().any(Option::is_some) => {
                Err(AuditError::Unwritable)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_broken(&self, place: LogTarget) -> bool {
        let broken = self.broken.lock();
        broken[place as usize].is_some()
    }

    /// Returns the reason why the log cannot be written, if it cannot.
    pub(super) fn fault(&self) -> Option<Fault> {
        let broken = self.broken.lock();
        broken.iter().flatten().next().cloned()
    }

    /// Notes how the last attempt went, and says a change, and only a change, in the relay's own log.
    pub(super) fn note(&self, place: LogTarget, outcome: Result<(), Fault>) {
        let mut broken = self.broken.lock();
        let before = &mut broken[place as usize];
        let follows = match self.policy {
            WhenUnwritable::Refuse => "until then new sessions are refused",
            WhenUnwritable::Continue => "sessions go on, as `audit.when_unwritable` says",
        };
        match (&outcome, &before) {
            (Err(reason), None) => {
                error!(
                    ?place,
                    "the audit log cannot be written: {reason}; {follows}"
                );
            }
            (Ok(()), Some(_)) => info!(?place, "the audit log can be written again"),
            _ => {}
        }
        *before = outcome.err();
    }
}
