//! Locks that a panic of another task does not take away: what they guard is whole between any two statements.

use std::sync::{MutexGuard, PoisonError};

/// A mutex without poison.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "this is the lock")]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Returns a mutex that guards `value`.
    #[expect(clippy::disallowed_types, reason = "this is the lock")]
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_value_to_others() {
        let mutex = Mutex::new(1);
        let panics = std::panic::AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            panic!("while it holds the lock");
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        *mutex.lock() += 1;
        assert_eq!(*mutex.lock(), 2);
    }
}
