//! `recordings`: what was recorded, its state, and whether it can be believed.

pub(crate) mod export;
mod filter;
mod grep;
mod hold;
pub(crate) mod play;
mod rows;
mod show;
mod words;

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::SessionId;

use super::args::ambiguous;
use super::{Caller, Context, Done, FAILED, Failure, Out};
use crate::access::policy::Ability;
use crate::audit::{Event, EventKind};
use crate::commands::call::{Call, Command, Right};
use crate::session::registry::console::Shows;
use crate::store::{Durability, RecordingFacts, RecordingState};

use filter::{Filter, RecordingListing, own};

pub(crate) use filter::recording_states;
pub(crate) use words::own_state;

/// Recorded sessions: list, show, verify, search, remove
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  relay recordings --device kitchen-cam --since 1d --state tampered
  relay recordings --interactive --since 7d              what people did at a terminal
  relay recordings show 3f9a
  relay recordings verify 3f9a
  relay recordings grep 'sudo ' --since 7d
  relay recordings hold 3f9a --reason 'case 17'

Users with `review` see all recordings, users with `review-own` their own. Each access is an audit event."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<RecordingsCommand>,
    #[command(flatten)]
    listing: RecordingListing,
}

const VERIFY_CODES: &str = "The exit status:
  0  complete and verified: all of it is what the operator was shown and sent
  1  it could not be verified: the message says why, such as a stored segment that is gone
  3  complete, but not all of it is proved
  4  truncated: it ends early
  5  tampered, or altered after it was stored
  6  lost: nothing of it came (also of `play` and `export`)
  7  no verdict yet: the session runs, or the recording is on its way
  8  complete, content not kept: all that passed is proved, and its content is here up to the role's `record_content`";

const GREP_HELP: &str = "Examples:
  relay recordings grep 'sudo ' --since 7d
  relay recordings grep 'sudo ' --json | jq -r .recording | sort -u

The exit status is that of grep:
  0  the text was found
  1  it was not found
  2  the search failed, or a recording could not be read whole";

#[derive(Clone, Debug, Subcommand)]
enum RecordingsCommand {
    /// List the recordings: what happens without a subcommand
    #[command(visible_alias = "list")]
    Ls(RecordingListing),
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
        /// The reason: shown to those who look at it
        #[arg(long, value_name = "TEXT", value_parser = crate::commands::access::lock::message, default_value = "")]
        reason: String,
    },
    /// Release a held recording
    Release {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Look for a text in what was shown
    #[command(after_help = GREP_HELP)]
    Grep {
        /// The text, literally
        pattern: String,
        #[command(flatten)]
        filter: Filter,
        /// Print one JSON object a line for each line that has it, for machines
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    fn only_reads(&self) -> bool {
        use RecordingsCommand::{Hold, Release, Rm};
        let command = self.command.as_ref();
        command.is_none_or(|command| !matches!(command, Rm { .. } | Hold { .. } | Release { .. }))
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::to_read_or_change(self.only_reads(), Right::Recordings)
    }

    fn event(&self) -> Option<Event> {
        match self.command.as_ref()? {
            RecordingsCommand::Ls(_) => None,
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

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    /// Returns whether the answer is as long as what was recorded.
    fn streams(&self) -> bool {
        matches!(
            self.command,
            Some(
                RecordingsCommand::Grep { .. }
                    | RecordingsCommand::Show { .. }
                    | RecordingsCommand::Verify { .. }
            )
        )
    }

    fn shows(&self, caller: &Caller) -> Shows {
        shown(caller)
    }

    fn failure_code(&self) -> u8 {
        match self.command {
            Some(RecordingsCommand::Grep { .. }) => grep::FAILED,
            _ => FAILED,
        }
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context, call.out).await
    }
}

/// Returns the state of a recording that has not arrived yet.
pub(super) fn unfinished(facts: &RecordingFacts) -> Option<RecordingState> {
    let state = facts.row.state;
    (!state.is_terminal()).then_some(state)
}

/// Returns the failure that a recording was shown as far as it has arrived, which may be nothing.
pub(super) fn not_whole(id: SessionId, state: RecordingState, shown: bool) -> Failure {
    let state = state.as_str();
    Failure(match shown {
        true => format!("recording {id} is incomplete: it is {state}, and more of it may follow"),
        false => format!("recording {id} is not here yet: it is {state}"),
    })
}

/// Returns the end of an answer that shows a recording which is not what passed, for this reason.
pub(super) fn distrusted(id: SessionId, why: &str) -> Done {
    Done::complaining(format!("recording {id} {why}"), show::TAMPERED)
}

/// Returns the end of an answer that would show a recording of which nothing came; `None` of any other.
pub(super) fn lost(facts: &RecordingFacts) -> Option<Done> {
    let row = &facts.row;
    (row.state == RecordingState::Lost).then(|| {
        let (id, reason) = (row.session.id, row.reason.as_deref());
        let reason = reason.unwrap_or("no reason known");
        let said = format!("recording {id} is lost, nothing of it can be shown: {reason}");
        Done::complaining(said, show::LOST)
    })
}

/// Returns the audit event for a look into a recording.
pub(super) fn looked(id: &str, how: &str) -> Event {
    Event::recording(EventKind::RecordingPlayed, id).with("how", how)
}

/// Writes a look into a recording to the audit log. Nothing of it is shown before that.
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
        None => args.listing.answer(caller, context).await?,
        Some(RecordingsCommand::Ls(listing)) => listing.answer(caller, context).await?,
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
        Some(RecordingsCommand::Grep {
            pattern,
            filter,
            json,
        }) => {
            if let Some(event) = event {
                let recorded = context.audit.record(context.event(event)).await;
                recorded.map_err(|error| Failure(error.to_string()))?;
            }
            filter.check_names(caller, context).await?;
            let filter = filter.picks(caller, context);
            return grep::run(&pattern, &filter, json, context, out).await;
        }
    };
    Ok(text.into())
}

/// Returns the recordings that a command of this caller shows, before it has found the one that it is about.
pub(super) fn shown(caller: &Caller) -> Shows {
    match own(caller) {
        Some(user) => Shows::Of(user),
        None => Shows::All,
    }
}

/// Returns the one recording whose id begins so, if the caller may see it.
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
                stream.shows_only(row.session.user_id);
            }
            let facts = context.store.recording(row.session.id).await?;
            facts.ok_or_else(none)
        }
        (None, _) => Err(none()),
        (Some(_), Some(_)) => {
            let ids = rows.iter().map(|row| row.session.id.to_string());
            Err(ambiguous("recording", id, &ids.collect::<Vec<_>>()))
        }
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
    let mut tx = context.store.begin(Durability::Disk).await?;
    tx.audit(context.audit.entry(event));
    if !tx.recording_removed(id).await? {
        drop(tx);
        let facts = find(&id.to_string(), caller, context).await?;
        return Err(hold::keeps(&facts));
    }
    tx.commit().await?;
    let removed = context.facts.archive.remove(&facts).await;
    removed.map_err(|error| {
        Failure(format!(
            "the entry of recording {id} is removed, but its files cannot be removed: {error}"
        ))
    })?;
    Ok(format!("recording {id} removed\n"))
}
