//! The difference between two states, for people to review and for the audit log. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Snapshot, UserState};
use crate::model::form::{RoleForm, SftpForm, inline};
use crate::model::role::Role;
use crate::store::UserKey;

/// One change. It shows as `+ role field-tech`, `~ user alice: roles field-tech -> operator`, `- user bob`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The kind of change.
    pub sign: Sign,
    /// The kind of thing that changed.
    pub kind: ChangeKind,
    /// Its name.
    pub name: String,
    /// The details of the change. Nothing in it can drive a terminal.
    pub detail: Option<String>,
}

/// The kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// `+`
    Added,
    /// `~`
    Changed,
    /// `-`
    Removed,
}

/// The kind of thing that a document names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// A role.
    Role,
    /// A user.
    User,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            Sign::Added => '+',
            Sign::Changed => '~',
            Sign::Removed => '-',
        };
        let kind = match self.kind {
            ChangeKind::Role => "role",
            ChangeKind::User => "user",
        };
        write!(f, "{sign} {kind} {}", self.name)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// Returns one line for each thing that came or went, and for each part of a thing that changed: roles first.
pub(crate) fn diff(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    let names = before.roles.keys().chain(after.roles.keys());
    for name in names.collect::<BTreeSet<_>>() {
        let pair = (before.roles.get(name), after.roles.get(name));
        compare(
            ChangeKind::Role,
            name.as_str(),
            pair,
            role_details,
            &mut changes,
        );
    }
    let names = before.users.keys().chain(after.users.keys());
    for name in names.collect::<BTreeSet<_>>() {
        let pair = (before.users.get(name), after.users.get(name));
        compare(
            ChangeKind::User,
            name.as_str(),
            pair,
            user_details,
            &mut changes,
        );
    }
    changes
}

fn compare<T>(
    kind: ChangeKind,
    name: &str,
    pair: (Option<&T>, Option<&T>),
    details: impl Fn(&T, &T) -> Vec<String>,
    changes: &mut Vec<Change>,
) {
    let change = |sign, detail| Change {
        sign,
        kind,
        name: name.to_owned(),
        detail,
    };
    match pair {
        (None, None) => {}
        (None, Some(_)) => changes.push(change(Sign::Added, None)),
        (Some(_), None) => changes.push(change(Sign::Removed, None)),
        (Some(before), Some(after)) => {
            let details = details(before, after).into_iter();
            changes.extend(details.map(|detail| change(Sign::Changed, Some(detail))));
        }
    }
}

fn role_details(before: &Role, after: &Role) -> Vec<String> {
    let (before, after) = (RoleForm::of(before), RoleForm::of(after));
    let mut details = Vec::new();
    let mut part = |what: &str, before: String, after: String| {
        if before != after {
            details.push(format!("{what} {before} -> {after}"));
        }
    };
    part(
        "idle_timeout",
        shown(before.idle_timeout),
        shown(after.idle_timeout),
    );
    part(
        "max_session",
        shown(before.max_session),
        shown(after.max_session),
    );
    part(
        "on_disconnect",
        shown(before.on_disconnect),
        shown(after.on_disconnect),
    );
    part("recording", shown(before.recording), shown(after.recording));
    part(
        "record_stdin",
        shown(before.record_stdin),
        shown(after.record_stdin),
    );
    part(
        "record_content",
        shown(before.record_content),
        shown(after.record_content),
    );
    part("source", list(&before.source), list(&after.source));
    let limits = before.limits.named().into_iter().zip(after.limits.named());
    for ((name, before), (_, after)) in limits {
        part(name, shown(before), shown(after));
    }
    part(
        "forward.connect",
        shown(before.forward.connect),
        shown(after.forward.connect),
    );
    part(
        "forward.listen",
        shown(before.forward.listen),
        shown(after.forward.listen),
    );
    part(
        "forward.deny",
        list(&before.forward.deny),
        list(&after.forward.deny),
    );
    part(
        "forward.connect_paths",
        shown(before.forward.connect_paths),
        shown(after.forward.connect_paths),
    );
    part(
        "forward.listen_paths",
        shown(before.forward.listen_paths),
        shown(after.forward.listen_paths),
    );
    let read_only = |sftp: &SftpForm| shown(Some(sftp.read_only));
    part(
        "sftp.read_only",
        read_only(&before.sftp),
        read_only(&after.sftp),
    );
    part("sftp.root", shown(before.sftp.root), shown(after.sftp.root));
    part("allow", list(&before.allow), list(&after.allow));
    part("deny", list(&before.deny), list(&after.deny));
    details
}

fn user_details(before: &UserState, after: &UserState) -> Vec<String> {
    let mut details = Vec::new();
    let mut part = |what: &str, before: String, after: String| {
        if before != after {
            details.push(format!("{what} {before} -> {after}"));
        }
    };
    let words = |words: &[String]| match words {
        [] => "-".to_owned(),
        words => words.join(","),
    };
    part(
        "email",
        shown_text(before.email.as_ref()),
        shown_text(after.email.as_ref()),
    );
    let state = |disabled| if disabled { "disabled" } else { "enabled" }.to_owned();
    part("is", state(before.disabled), state(after.disabled));
    part("roles", words(&before.roles), words(&after.roles));
    part(
        "principals",
        words(&before.principals),
        words(&after.principals),
    );
    details.extend(key_details(&before.keys, &after.keys));
    details
}

fn key_details(before: &[UserKey], after: &[UserKey]) -> Vec<String> {
    let has = |keys: &[UserKey], key: &UserKey| {
        keys.iter()
            .any(|other| other.fingerprint == key.fingerprint)
    };
    let gone = before.iter().filter(|key| !has(after, key));
    let new = after.iter().filter(|key| !has(before, key));
    let mut details: Vec<String> = gone
        .map(|key| format!("key {} removed", key.fingerprint))
        .chain(new.map(|key| format!("key {} added", key.fingerprint)))
        .collect();
    // The same keys with other comments, or in another order.
    if details.is_empty() && before != after {
        details.push("comments or order of the keys".to_owned());
    }
    details
}

fn shown<T: Serialize>(value: Option<T>) -> String {
    let text = value.map(|value| inline(&value));
    text.map_or_else(|| "-".to_owned(), |text| text.trim_matches('"').to_owned())
}

fn shown_text(value: Option<&String>) -> String {
    shown(value)
}

fn list<T: Serialize>(values: &[T]) -> String {
    match values {
        [] => "-".to_owned(),
        values => inline(&values),
    }
}
