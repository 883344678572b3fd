//! Locks that a panic of another task does not take away: what they guard is whole between any two statements.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

/// A mutex without poison.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "this is the lock")]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Returns a mutex that guards `value`.
    #[expect(clippy::disallowed_types, reason = "this is the lock")]
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of the lock until `work` is notified, or `time` has passed.
pub(crate) fn wait<'a, T>(
    work: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Option<Duration>,
) -> MutexGuard<'a, T> {
    match time {
        None => work.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(time) => {
            let woken = work.wait_timeout(guard, time);
            woken.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
