//! Recordings as rows: for machines one each, for people one for each run.

use std::hash::Hash;

use serde::Serialize;

use super::super::Context;
use crate::clock::Timestamp;
use crate::commands::answer::fold::{Fold, Group, Span};
use crate::commands::answer::table::{self, Narrow, RELAY, shown_relay};
use crate::store::{RecordingRow, RecordingState};

/// The number of digits of an id that the table shows: of a million recordings, hardly two share them.
pub(super) const SHORT_ID: usize = 10;

/// The way in which the table gives way in a narrow terminal: RELAY, LOGIN, LENGTH and N go first, and what a recording
/// is worth never does.
const NARROW: Narrow<'static> = Narrow {
    left_out: &[7, 6, 2, 3, 8, 1, 4, 5],
    kept: &[(1, 11), (9, 10), (10, 14)],
};

/// A recording, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
pub(super) struct Row {
    id: String,
    session: String,
    user: String,
    device: String,
    device_id: String,
    login: String,
    kind: &'static str,
    /// `null` if it is no command.
    command: Option<String>,
    started: String,
    /// `null` while the session runs.
    ended: Option<String>,
    state: &'static str,
    /// `null` where the state says all.
    reason: Option<String>,
    /// Bytes that are stored.
    bytes: u64,
    /// `null` before there is a verdict.
    verified: Option<bool>,
    /// `null` unless it is held.
    hold: Option<HoldRow>,
    terminal: bool,
    /// The relay that the operator was at; `null` of what was recorded before relays had names.
    relay: Option<String>,
    /// The id of the oldest listed recording of the same run: what the table shows as one row.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

#[derive(Serialize)]
struct HoldRow {
    since: String,
    /// `null` for a command at the relay itself.
    by: Option<String>,
    /// `null` if none was given.
    reason: Option<String>,
}

pub(super) fn row(row: &RecordingRow) -> Row {
    let id = row.session.id.to_string();
    Row {
        session: id.clone(),
        id,
        user: row.session.user.to_string(),
        device: row.session.device_name.to_string(),
        device_id: row.session.device.to_string(),
        login: row.session.login.to_string(),
        kind: row.session.kind.as_str(),
        command: row.session.command.clone(),
        started: row.session.started.rfc3339(),
        ended: row.ended.map(Timestamp::rfc3339),
        state: row.state.as_str(),
        reason: row.reason.clone(),
        bytes: row.bytes,
        verified: row.verified,
        hold: row.hold.as_ref().map(|hold| HoldRow {
            since: hold.since.rfc3339(),
            by: hold.by.as_ref().map(ToString::to_string),
            reason: Some(hold.reason.clone()).filter(|reason| !reason.is_empty()),
        }),
        terminal: row.session.terminal,
        relay: row.relay.clone(),
        group: None,
    }
}

/// Returns the rows, each with the run that it belongs to.
pub(super) fn listed(rows: &[RecordingRow]) -> Vec<Row> {
    let mut listed: Vec<Row> = rows.iter().map(row).collect();
    let mut fold = Fold::new();
    for (at, row) in rows.iter().enumerate() {
        fold.add(key(row), span(row), at);
    }
    for group in fold.groups() {
        let oldest = group.rows.last().and_then(|at| rows.get(*at));
        let id = oldest.map(|row| row.session.id.to_string());
        for at in group.rows {
            if let Some(row) = listed.get_mut(at) {
                row.group.clone_from(&id);
            }
        }
    }
    listed
}

/// Returns the table, a row for each run or, with `all`, for each recording; `has_relay` says whether it names relays.
pub(super) fn table(
    rows: &[RecordingRow],
    all: bool,
    has_relay: bool,
    context: &Context,
) -> String {
    let mut fold = Fold::new();
    for row in rows {
        let key = key(row).filter(|_| !all);
        fold.add(key, span(row), row);
    }
    let groups = fold.groups();
    let line = |group| line(group, has_relay);
    let lines: Vec<[String; 11]> = groups.iter().filter_map(line).collect();
    let relay = if has_relay { RELAY } else { "" };
    let mut head = [
        "ID", "STARTED", "LENGTH", "N", "USER", "DEVICE", "LOGIN", relay, "WHAT", "STATE", "",
    ];
    let whole = table::table(None, head, &lines);
    let fits = |width| whole.lines().all(|line| line.chars().count() <= width);
    if context.width.is_none_or(fits) {
        return whole;
    }
    let [_, started, ..] = &mut head;
    *started = "STARTED UTC";
    let lines: Vec<[String; 11]> = groups
        .iter()
        .zip(lines)
        .map(|(group, mut line)| {
            let [_, started, ..] = &mut line;
            *started = short(group.span.from, context.now);
            line
        })
        .collect();
    table::narrowed(context.width, head, &lines, NARROW)
}

/// Returns a time in few characters: `11-22 05:06` of this year, else `2025-11-22`.
fn short(time: Timestamp, now: Timestamp) -> String {
    let (time, now) = (time.rfc3339(), now.rfc3339());
    match (time.get(..4) == now.get(..4), time.get(5..16)) {
        (true, Some(short)) => short.replace('T', " "),
        _ => time.get(..10).unwrap_or(&time).to_owned(),
    }
}

/// Returns what recordings of one run have in common. `None`: what had a terminal, runs, or is held is a row of its
/// own. Their state is among it, so that no row hides one that is worse off.
fn key(row: &RecordingRow) -> Option<impl Eq + Hash + use<>> {
    let session = &row.session;
    let alone = session.terminal || row.hold.is_some() || row.ended.is_none();
    (!alone).then(|| {
        let who = (session.user.clone(), session.device, session.login.clone());
        let how = (row.state.as_str(), row.reason.clone(), row.verified);
        (who, how, row.relay.clone())
    })
}

fn span(row: &RecordingRow) -> Span {
    Span {
        from: row.session.started,
        to: row.ended.unwrap_or_else(Timestamp::now),
        client: Some(row.session.client),
    }
}

fn line(group: &Group<&RecordingRow>, has_relay: bool) -> Option<[String; 11]> {
    let newest = group.rows.first()?;
    let id = newest.session.id.to_string();
    let seconds = group.span.to.since(group.span.from).as_secs();
    Some([
        id.get(..SHORT_ID).unwrap_or(&id).to_owned(),
        group.span.from.to_string(),
        format!("{}:{:02}", seconds / 60, seconds % 60),
        group.rows.len().to_string(),
        newest.session.user.to_string(),
        newest.session.device_name.to_string(),
        newest.session.login.to_string(),
        shown_relay(has_relay.then(|| newest.relay.clone())),
        all_of(group),
        newest.state.as_str().to_owned(),
        detail(newest),
    ])
}

/// Returns what was run: in full where it is the same in all rows, else the kinds.
fn all_of(group: &Group<&RecordingRow>) -> String {
    let mut all: Vec<String> = group.rows.iter().map(|row| what(row)).collect();
    all.dedup();
    if let [one] = &*all {
        return one.clone();
    }
    let mut kinds: Vec<&str> = Vec::new();
    for row in &group.rows {
        let kind = row.session.kind.as_str();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(", ")
}

/// Returns `shell`, or `exec: uptime`.
pub(super) fn what(row: &RecordingRow) -> String {
    match &row.session.command {
        Some(command) => format!("{}: {command}", row.session.kind.as_str()),
        None => row.session.kind.as_str().to_owned(),
    }
}

fn detail(row: &RecordingRow) -> String {
    let held = row.hold.as_ref().map(|_| "held".to_owned());
    let said = Some(standing(row)).filter(|said| !said.is_empty());
    // A long reason is cut at its end: what keeps the recording is before it.
    let both: Vec<String> = [held, said].into_iter().flatten().collect();
    both.join(", ")
}

fn standing(row: &RecordingRow) -> String {
    match (row.state, &row.reason, row.verified) {
        (_, Some(reason), _) => reason.clone(),
        (RecordingState::Uploading, None, _) if row.offered > 0 => {
            format!("{} %", row.bytes.saturating_mul(100) / row.offered)
        }
        (RecordingState::Complete, None, Some(true)) => "verified".to_owned(),
        (RecordingState::Complete, None, _) => "not verified".to_owned(),
        _ => String::new(),
    }
}
