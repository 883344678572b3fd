//! The filter and the form of a listing of recordings.

use holdfast_protocol::escape::Escaped;

use super::super::{Caller, Context, Failure, json};
use super::rows;
use crate::access::policy::Ability;
use crate::commands::args::Moment;
use crate::model::invalid::Invalid;
use crate::store::{RecordingFilter, RecordingState, UserId};

/// The filter and the form of a listing.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RecordingListing {
    #[command(flatten)]
    filter: Filter,
    /// A row for each, where a run of one user's sessions without a terminal on one device is one row
    #[arg(long)]
    all: bool,
    /// Print JSON for machines: always a row for each, with the run that it belongs to
    #[arg(long)]
    json: bool,
}

/// The filter of a listing.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// By this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// On this device: the name it had then, or its id
    #[arg(long, value_name = "NAME|ID")]
    device: Option<String>,
    /// Begun not before: a span back from now (30m, 1d) or a time (2026-11-22, '2026-11-22 05:06')
    #[arg(long, value_name = "SPAN|TIME")]
    since: Option<Moment>,
    /// In this state: recording, uploading, complete, truncated, tampered or lost
    /// (`--state` with such a word is the same; with any other it is the folder)
    #[arg(long, value_name = "STATE", value_parser = state)]
    in_state: Option<RecordingState>,
    /// Of this kind: shell, exec, sftp or forward
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Ability>,
    /// Only sessions with a terminal
    #[arg(long)]
    interactive: bool,
}

/// The kinds of what a recording may be of.
const KINDS: [Ability; 4] = [
    Ability::Shell,
    Ability::Exec,
    Ability::Sftp,
    Ability::Forward,
];

fn kind(text: &str) -> Result<Ability, Invalid> {
    let found = KINDS.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| {
        let words = KINDS.map(Ability::as_str);
        format!("the kinds are {}", words.join(", ")).into()
    })
}

fn state(text: &str) -> Result<RecordingState, Invalid> {
    let found = RecordingState::ALL
        .into_iter()
        .find(|state| state.as_str() == text);
    found.ok_or_else(|| format!("the states are {}", recording_states()).into())
}

/// Returns the words of all states that a recording may be in.
pub(crate) fn recording_states() -> String {
    RecordingState::ALL.map(RecordingState::as_str).join(", ")
}

impl RecordingListing {
    pub(super) async fn answer(
        &self,
        caller: &Caller,
        context: &Context,
    ) -> Result<String, Failure> {
        self.filter.check_names(caller, context).await?;
        let filter = self.filter.picks(caller, context);
        let rows = context.store.recordings(&filter).await?;
        match self.json {
            true => json(&rows::listed(&rows)),
            false => {
                let has_relay = context.store.has_several_members().await?;
                Ok(rows::table(&rows, self.all, has_relay, context))
            }
        }
    }
}

impl Filter {
    /// Checks that there is such a user and such a device, or that there was when something was recorded.
    pub(super) async fn check_names(
        &self,
        caller: &Caller,
        context: &Context,
    ) -> Result<(), Failure> {
        let (own, store) = (own(caller), &context.store);
        let seen = |filter: RecordingFilter| async move {
            let page = store.recordings_page(&filter, None, 1).await;
            page.map(|rows| !rows.is_empty())
        };
        if let Some(given) = &self.device {
            let device = store.device_of(given).await?;
            let is_known =
                device.is_some_and(|device| own.is_none() || caller.may_see(&device.labels));
            let device = Some(given.clone());
            let filter = RecordingFilter {
                own,
                device,
                ..RecordingFilter::default()
            };
            if !is_known && !seen(filter).await? {
                let given = Escaped(given);
                return Err(Failure(format!(
                    "no device \"{given}\", nor a recording of one: see `devices`"
                )));
            }
        }
        if let Some(given) = &self.user {
            let user = store.user_of(given).await?;
            // Who sees only their own recordings does not learn who else there is.
            let is_known = user.is_some_and(|user| own.is_none_or(|own| own == user.id));
            let user = Some(given.clone());
            let filter = RecordingFilter {
                own,
                user,
                ..RecordingFilter::default()
            };
            if !is_known && !seen(filter).await? {
                let given = Escaped(given);
                return Err(Failure(match own {
                    None => {
                        format!("no user \"{given}\", nor a recording of one: see `relay user ls`")
                    }
                    Some(_) => {
                        format!("no recording of a user \"{given}\" that you may look into")
                    }
                }));
            }
        }
        Ok(())
    }

    /// Returns the filter, limited to what the caller may see.
    pub(super) fn picks(&self, caller: &Caller, context: &Context) -> RecordingFilter {
        RecordingFilter {
            user: self.user.clone(),
            own: own(caller),
            device: self.device.clone(),
            since: self.since.as_ref().map(|since| since.at(context.now)),
            state: self.in_state,
            kind: self.kind,
            interactive: self.interactive,
        }
    }
}

/// Returns the user whose recordings are all that the caller may see; `None`: every user's.
pub(super) fn own(caller: &Caller) -> Option<UserId> {
    let all = caller.may(Ability::Admin) || caller.may(Ability::Review);
    let user = caller.user().filter(|_| !all)?;
    Some(user.id)
}
