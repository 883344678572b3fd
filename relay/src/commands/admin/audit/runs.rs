//! Equal events of one automation, as they come from the log: the first of them, and how many.

use std::collections::HashSet;
use std::mem::take;

use crate::audit::{AuditOutcome, EventKind};
use crate::commands::answer::fold::{Fold, Span};
use crate::commands::limits::MAX_AUDIT_HELD;
use crate::store::AuditEntry;

/// The events that sessions without a terminal write many of. Everything else is a row of its own.
const FOLDED: [EventKind; 8] = [
    EventKind::UserLogin,
    EventKind::SessionStart,
    EventKind::SessionEnd,
    EventKind::Exec,
    EventKind::Subsystem,
    EventKind::Sftp,
    EventKind::PortForward,
    EventKind::RecordingComplete,
];

/// Details that tell equal events apart: how something ended, and what was done with a file or a forward.
const TELLING: [&str; 8] = [
    "kind",
    "target",
    "exit",
    "signal",
    "operation",
    "state",
    "direction",
    "result",
];

/// The attributes that the events of one row have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    fields: [Option<String>; 7],
    details: Vec<(&'static str, String)>,
}

/// Events that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    fold: Option<Fold<Key, AuditEntry>>,
    /// Sessions with a terminal: theirs are not folded.
    interactive: HashSet<String>,
    held: usize,
}

impl Runs {
    pub(crate) fn add(&mut self, entry: AuditEntry) {
        if let Some(session) = &entry.session
            && entry
                .more
                .get("terminal")
                .and_then(serde_json::Value::as_bool)
                == Some(true)
        {
            self.interactive.insert(session.clone());
        }
        let span = Span {
            from: entry.time,
            to: entry.time,
            client: entry
                .client
                .as_deref()
                .and_then(|client| client.parse().ok()),
        };
        self.held += 1;
        let fold = self.fold.get_or_insert_with(Fold::new);
        fold.add(key(&entry, &self.interactive), span, entry);
    }

    /// Returns whether there are as many as are held.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= MAX_AUDIT_HELD
    }

    /// Takes them all: the first of each run, and how many there were.
    pub(crate) fn take(&mut self) -> Vec<(AuditEntry, usize)> {
        self.interactive.clear();
        self.held = 0;
        let groups = take(&mut self.fold).map(Fold::groups).unwrap_or_default();
        let row = groups.into_iter().filter_map(|group| {
            let count = group.rows.len();
            Some((group.rows.into_iter().next()?, count))
        });
        row.collect()
    }
}

fn key(entry: &AuditEntry, interactive: &HashSet<String>) -> Option<Key> {
    let is_folded = FOLDED.iter().any(|kind| kind.as_str() == entry.event);
    let session = entry.session.as_ref();
    let is_interactive = session.is_some_and(|session| interactive.contains(session));
    if !is_folded || is_interactive || entry.outcome != AuditOutcome::Success.as_str() {
        return None;
    }
    let details = TELLING.iter().filter_map(|name| {
        let value = entry.more.get(*name)?;
        Some((*name, value.to_string()))
    });
    Some(Key {
        fields: [
            Some(entry.event.clone()),
            entry.user.clone(),
            entry.key.clone(),
            entry.device_id.clone(),
            entry.login.clone(),
            entry.reason.clone(),
            entry.relay.clone(),
        ],
        details: details.collect(),
    })
}
