//! Many rows of one automation as one: what one user did on one device over one connection, or in one run of short
//! ones.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use crate::clock::Timestamp;
use crate::commands::limits::{CONNECTION_GAP, RUN_GAP};

/// The time and the connection of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// `None`: it is not known.
    pub(crate) client: Option<SocketAddr>,
}

impl Span {
    /// Returns whether both belong to one run.
    fn is_one_run_with(&self, other: &Self) -> bool {
        let gap = match self.from < other.from {
            true => other.from.since(self.to),
            false => self.from.since(other.to),
        };
        let same = self.client.is_some() && self.client == other.client;
        gap <= if same { CONNECTION_GAP } else { RUN_GAP }
    }
}

/// Rows that are shown as one.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) span: Span,
}

/// Puts rows into groups. Those of a group have equal keys and follow one another; each group is where its first
/// row was. A row without a key is alone.
#[derive(Debug)]
pub(crate) struct Fold<K, T> {
    groups: Vec<Group<T>>,
    newest: HashMap<K, usize>,
}

impl<K: Eq + Hash, T> Fold<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            groups: Vec::new(),
            newest: HashMap::new(),
        }
    }

    pub(crate) fn add(&mut self, key: Option<K>, span: Span, row: T) {
        let Some(key) = key else {
            return self.begin(span, row);
        };
        if let Some(group) = self
            .newest
            .get(&key)
            .and_then(|at| self.groups.get_mut(*at))
            && group.span.is_one_run_with(&span)
        {
            group.span.from = group.span.from.min(span.from);
            group.span.to = group.span.to.max(span.to);
            // The next one is compared with the connection that was looked at last.
            group.span.client = span.client;
            group.rows.push(row);
            return;
        }
        self.newest.insert(key, self.groups.len());
        self.begin(span, row);
    }

    fn begin(&mut self, span: Span, row: T) {
        let rows = vec![row];
        self.groups.push(Group { rows, span });
    }

    pub(crate) fn groups(self) -> Vec<Group<T>> {
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn span(at: u64, port: u16) -> Span {
        let at = Timestamp(1_795_323_960_000_000).after(Duration::from_secs(at));
        Span {
            from: at,
            to: at,
            client: Some(([203, 0, 113, 9], port).into()),
        }
    }

    fn sizes(spans: &[(Option<&'static str>, Span)]) -> Vec<usize> {
        let mut fold = Fold::new();
        for (key, span) in spans {
            fold.add(*key, *span, ());
        }
        let groups = fold.groups();
        groups.iter().map(|group| group.rows.len()).collect()
    }

    #[test]
    fn a_run_of_connections_is_one_row_and_a_pause_ends_it() {
        let run = RUN_GAP.as_secs();
        let own = Some("alice");
        assert_eq!(
            sizes(&[
                (own, span(0, 1)),
                (own, span(run, 2)),
                (own, span(2 * run, 3))
            ]),
            [3]
        );
        assert_eq!(sizes(&[(own, span(0, 1)), (own, span(run + 1, 2))]), [1, 1]);
        // Listings have the newest first.
        assert_eq!(sizes(&[(own, span(run, 1)), (own, span(0, 2))]), [2]);
    }

    #[test]
    fn a_connection_is_one_row_over_its_pauses() {
        let own = Some("alice");
        let pause = CONNECTION_GAP.as_secs();
        assert_eq!(sizes(&[(own, span(0, 1)), (own, span(pause, 1))]), [2]);
        assert_eq!(
            sizes(&[(own, span(0, 1)), (own, span(pause + 1, 1))]),
            [1, 1]
        );
    }

    #[test]
    fn other_keys_and_no_key_stand_apart() {
        let rows = [
            (Some("alice"), span(0, 1)),
            (None, span(1, 1)),
            (Some("bob"), span(2, 1)),
            (None, span(3, 1)),
            (Some("alice"), span(4, 1)),
        ];
        assert_eq!(sizes(&rows), [2, 1, 1, 1]);
    }
}
