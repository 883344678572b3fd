//! `recordings`: what was recorded, where it stands, and whether it can be believed.

mod grep;
mod hold;
mod show;
mod words;

use std::time::Duration;

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::UserName;
use serde::Serialize;

use super::args::Moment;
use super::table::table;
use super::{Caller, Context, Done, Failure, Out, json};
use crate::access::policy::Ability;
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::session::console::Shows;
use crate::store::{RecordingFacts, RecordingFilter, RecordingRow, RecordingState};

pub(crate) use words::own_state;

/// As many digits of an id as the table shows: of a million recordings, hardly two share them.
const SHORT_ID: usize = 10;

#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  relay recordings --device kitchen-cam --since 1d --state tampered
  relay recordings show 3f9a
  relay recordings verify 3f9a
  relay recordings grep 'sudo ' --since 7d
  relay recordings hold 3f9a --reason 'case 17'

Who may `review` sees all, who may `review-own` sees their own. Each look into a recording is an audit event."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<RecordingsCommand>,
    #[command(flatten)]
    filter: Filter,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

const VERIFY_CODES: &str = "The exit status:
  0  complete and verified: all of it is what the operator was shown and sent
  1  it could not be verified: the message says why
  3  complete, but not all of it is proved
  4  truncated: it ends early
  5  tampered, or altered after it was stored
  6  lost: nothing of it came
  7  no verdict yet: the session runs, or the recording is on its way";

#[derive(Clone, Debug, Subcommand)]
enum RecordingsCommand {
    /// One recording: who, when, streams, digests, state, commands
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Print JSON for machines
        #[arg(long)]
        json: bool,
    },
    /// Read a recording again, and compare it with what the relay signed
    #[command(after_help = VERIFY_CODES)]
    Verify {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Remove a recording for good
    Rm {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Keep a recording until it is released: neither `rm` nor `keep` in the configuration removes it
    #[command(after_help = "Examples:
  relay recordings hold 3f9a --reason 'case 17'
  relay recordings release 3f9a")]
    Hold {
        /// Its id, or the beginning of it
        id: String,
        /// Why: shown to who looks at it
        #[arg(long, value_name = "TEXT", value_parser = super::lock::message, default_value = "")]
        reason: String,
    },
    /// Let go of a recording that is held
    Release {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Look for a text in what was shown
    Grep {
        /// The text, as it stands
        pattern: String,
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which recordings.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// By this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// On the device that had this name then
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Begun not before: a span back from now (30m, 1d) or a time (2026-11-22, '2026-11-22 05:06')
    #[arg(long, value_name = "SPAN|TIME")]
    since: Option<Moment>,
    /// In this state: recording, uploading, complete, truncated, tampered or lost
    /// (`--state` with such a word is the same; with any other it is the folder)
    #[arg(long, value_name = "STATE", value_parser = state)]
    in_state: Option<RecordingState>,
}

fn state(text: &str) -> Result<RecordingState, String> {
    let found = RecordingState::ALL
        .into_iter()
        .find(|state| state.as_str() == text);
    found.ok_or_else(|| {
        let words = RecordingState::ALL.map(RecordingState::as_str);
        format!("the states are {}", words.join(", "))
    })
}

/// A recording, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
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
}

#[derive(Serialize)]
struct HoldRow {
    since: String,
    /// `null` for somebody at the relay itself.
    by: Option<String>,
    /// `null` if none was given.
    reason: Option<String>,
}

impl Args {
    pub(super) fn only_reads(&self) -> bool {
        use RecordingsCommand::{Hold, Release, Rm};
        let command = self.command.as_ref();
        command.is_none_or(|command| !matches!(command, Rm { .. } | Hold { .. } | Release { .. }))
    }

    /// Whether the answer is as long as what was recorded.
    pub(super) fn streams(&self) -> bool {
        matches!(
            self.command,
            Some(
                RecordingsCommand::Grep { .. }
                    | RecordingsCommand::Show { .. }
                    | RecordingsCommand::Verify { .. }
            )
        )
    }

    pub(super) fn event(&self) -> Option<Event> {
        match self.command.as_ref()? {
            RecordingsCommand::Rm { id } => Some(Event::recording(EventKind::RecordingRemoved, id)),
            RecordingsCommand::Hold { id, reason } => {
                let event = Event::recording(EventKind::RecordingHeld, id);
                Some(event.with("why", reason.as_str()))
            }
            RecordingsCommand::Release { id } => {
                Some(Event::recording(EventKind::RecordingReleased, id))
            }
            RecordingsCommand::Show { id, .. } => Some(looked(id, "show")),
            RecordingsCommand::Verify { id } => Some(looked(id, "verify")),
            RecordingsCommand::Grep { pattern, .. } => {
                let event = Event::new(EventKind::RecordingPlayed).with("how", "grep");
                Some(event.with("pattern", pattern.as_str()))
            }
        }
    }
}

/// Somebody looks into a recording.
pub(super) fn looked(id: &str, how: &str) -> Event {
    Event::recording(EventKind::RecordingPlayed, id).with("how", how)
}

/// Writes down that somebody looks into a recording. Nothing of it is shown before that.
pub(super) async fn look(
    context: &Context,
    facts: &RecordingFacts,
    event: Event,
) -> Result<(), Failure> {
    let event = event
        .with("recording", facts.row.session.id.to_string())
        .with("recorded_user", facts.row.session.user.as_str())
        .session(facts.row.session.id);
    let recorded = context.audit.record(context.event(event)).await;
    recorded.map_err(|error| Failure(error.to_string()))
}

pub(super) async fn run(
    args: Args,
    caller: &Caller,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let event = args.event();
    let text = match args.command {
        None => {
            let filter = args.filter.picks(caller, context);
            let rows = context.store.recordings(&filter).await?;
            match args.json {
                true => json(&rows.iter().map(row).collect::<Vec<_>>())?,
                false => list(&rows),
            }
        }
        Some(RecordingsCommand::Show { id, json }) => {
            let facts = find(&id, caller, context).await?;
            look(context, &facts, looked(&id, "show")).await?;
            show::show(&facts, context, json).await?
        }
        Some(RecordingsCommand::Verify { id }) => {
            let facts = find(&id, caller, context).await?;
            look(context, &facts, looked(&id, "verify")).await?;
            return show::verify(&facts, context).await;
        }
        Some(RecordingsCommand::Rm { id }) => remove(&id, caller, context).await?,
        Some(RecordingsCommand::Hold { id, reason }) => {
            hold::hold(&id, reason, caller, context).await?
        }
        Some(RecordingsCommand::Release { id }) => hold::release(&id, caller, context).await?,
        Some(RecordingsCommand::Grep { pattern, filter }) => {
            if let Some(event) = event {
                let recorded = context.audit.record(context.event(event)).await;
                recorded.map_err(|error| Failure(error.to_string()))?;
            }
            grep::run(&pattern, &filter.picks(caller, context), context, out).await?
        }
    };
    Ok(text.into())
}

impl Filter {
    /// What is asked for, as far as the caller may see it.
    fn picks(&self, caller: &Caller, context: &Context) -> RecordingFilter {
        RecordingFilter {
            user: self.user.clone(),
            own: own(caller).cloned(),
            device: self.device.clone(),
            since: self.since.as_ref().map(|since| since.at(context.now)),
            state: self.in_state,
        }
    }
}

/// Whose recordings are all that the caller may see; `None`: everybody's.
fn own(caller: &Caller) -> Option<&UserName> {
    let all = caller.may(Ability::Admin) || caller.may(Ability::Review);
    let user = caller.user().filter(|_| !all)?;
    Some(&user.name)
}

/// Which recordings a command of this caller shows, before it has found the one that it is about.
pub(super) fn shown(caller: &Caller) -> Shows {
    match own(caller) {
        Some(user) => Shows::Of(user.clone()),
        None => Shows::All,
    }
}

/// The one recording whose id begins so, if the caller may see it.
pub(super) async fn find(
    id: &str,
    caller: &Caller,
    context: &Context,
) -> Result<RecordingFacts, Failure> {
    let wanted = id.to_ascii_lowercase();
    let rows = context.store.recordings_named(&wanted, own(caller)).await?;
    let mut found = rows.iter();
    let none = || {
        let id = Escaped(id);
        Failure(format!("no recording \"{id}\": see `relay recordings`"))
    };
    match (found.next(), found.next()) {
        (Some(row), None) => {
            if let Some(stream) = &context.stream {
                stream.shows_only(&row.session.user);
            }
            let facts = context.store.recording(row.session.id).await?;
            facts.ok_or_else(none)
        }
        (None, _) => Err(none()),
        (Some(_), Some(_)) => Err(Failure(format!(
            "more than one recording begins with \"{}\": give more of the id, as `relay recordings --json` prints it",
            Escaped(id)
        ))),
    }
}

async fn remove(id: &str, caller: &Caller, context: &Context) -> Result<String, Failure> {
    let facts = find(id, caller, context).await?;
    let id = facts.row.session.id;
    if facts.row.ended.is_none() {
        let how = match facts.row.session.kind {
            Ability::Forward => "its SSH connection has to end first".to_owned(),
            _ => format!("end its session first, with `relay sessions kill {id}`"),
        };
        return Err(Failure(format!("recording {id} is being made: {how}")));
    }
    let event = Event::recording(EventKind::RecordingRemoved, &id.to_string()).session(id);
    let event = context.event(event.with("recorded_user", facts.row.session.user.as_str()));
    let (store, _) = context.store.attributed(vec![context.audit.entry(event)]);
    if !store.recording_removed(id).await? {
        let facts = find(&id.to_string(), caller, context).await?;
        return Err(hold::keeps(&facts));
    }
    let removed = context.facts.archive.remove(&facts).await;
    removed.map_err(|error| {
        Failure(format!(
            "recording {id} is forgotten, but its files cannot be removed: {error}"
        ))
    })?;
    Ok(format!("recording {id} removed\n"))
}

fn row(row: &RecordingRow) -> Row {
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
    }
}

fn list(rows: &[RecordingRow]) -> String {
    let line = |row: &RecordingRow| {
        let id = row.session.id.to_string();
        [
            id.get(..SHORT_ID).unwrap_or(&id).to_owned(),
            row.session.started.to_string(),
            length(row),
            row.session.user.to_string(),
            row.session.device_name.to_string(),
            row.session.login.to_string(),
            what(row),
            row.state.as_str().to_owned(),
            detail(row),
        ]
    };
    let head = [
        "ID", "STARTED", "LENGTH", "USER", "DEVICE", "LOGIN", "WHAT", "STATE", "",
    ];
    table(head, &rows.iter().map(line).collect::<Vec<_>>())
}

/// How long the session took, or has taken.
fn length(row: &RecordingRow) -> String {
    let span: Duration = row
        .ended
        .unwrap_or_else(Timestamp::now)
        .since(row.session.started);
    let seconds = span.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `shell`, or `exec: uptime`.
pub(super) fn what(row: &RecordingRow) -> String {
    match &row.session.command {
        Some(command) => format!("{}: {command}", row.session.kind.as_str()),
        None => row.session.kind.as_str().to_owned(),
    }
}

fn detail(row: &RecordingRow) -> String {
    let held = row.hold.as_ref().map(|_| "held".to_owned());
    let said = Some(standing(row)).filter(|said| !said.is_empty());
    let both: Vec<String> = [said, held].into_iter().flatten().collect();
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
