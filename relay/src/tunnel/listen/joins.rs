//! Permits for devices that join: any client that knows the address can ask for one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, MutexGuard};

use crate::sync::Mutex;
use crate::tunnel::limits::{MAX_JOINS, MAX_JOINS_OF_SOURCE};

/// The joins under way, by source.
#[derive(Debug)]
pub(crate) struct Joins<S>(Arc<Mutex<HashMap<S, usize>>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct JoinPermit<S: Hash + Eq + Copy> {
    joins: Joins<S>,
    source: S,
}

impl<S> Clone for Joins<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Default for Joins<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Hash + Eq + Copy> Joins<S> {
    /// Returns a place for one of this source; `None` if it has as many as it may, or all are taken.
    #[must_use]
    pub(crate) fn take(&self, source: S) -> Option<JoinPermit<S>> {
        let mut joins = self.lock();
        let in_all: usize = joins.values().sum();
        let of_source = joins.get(&source).copied().unwrap_or_default();
        if in_all >= MAX_JOINS || of_source >= MAX_JOINS_OF_SOURCE {
            return None;
        }
        joins.insert(source, of_source + 1);
        Some(JoinPermit {
            joins: self.clone(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<S, usize>> {
        self.0.lock()
    }
}

impl<S: Hash + Eq + Copy> Drop for JoinPermit<S> {
    fn drop(&mut self) {
        let mut joins = self.joins.lock();
        match joins.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                joins.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_bounded_by_source_and_in_all() {
        let joins = Joins::default();
        let of = |source: usize| std::iter::from_fn(|| joins.take(source)).collect::<Vec<_>>();
        let first = of(0);
        assert_eq!(first.len(), MAX_JOINS_OF_SOURCE);
        let others: Vec<_> = (1..100).flat_map(of).collect();
        assert_eq!(first.len() + others.len(), MAX_JOINS);
        drop(first);
        assert_eq!(of(0).len(), MAX_JOINS_OF_SOURCE);
        drop(others);
        assert!(joins.lock().is_empty());
    }
}
