//! `whoami`: the one command that every user may run. Who they are, what they have, under which terms.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::access::policy::{Subject, Terms};
use crate::audit::Event;
use crate::clock::{Coarse, Timestamp};
use crate::commands::Done;
use crate::commands::answer::table::card;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Caller, Context, Failure, json};
use crate::model::form::inline;
use crate::model::role::{ContentBound, OnDisconnect, RecordingMode, StdinMode};
use crate::model::sftp::HeldRoot;

/// Print the user that the relay takes you for
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  ssh -p 2222 relay.example.com whoami
  ssh -p 2222 relay.example.com whoami --json")]
pub(crate) struct Args {
    /// Print an object for machines
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::Nothing
    }

    fn event(&self) -> Option<Event> {
        None
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.caller, call.context).await.map(Done::from)
    }
}

/// The answer for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row<'a> {
    /// `null` for who is at the relay's own shell.
    user: Option<&'a str>,
    email: Option<&'a str>,
    roles: &'a [String],
    /// Those of them that do not count from where the caller is, or are none of the relay's.
    roles_without_effect: Vec<&'a str>,
    disabled: bool,
    /// `null` for who is at the relay's own shell.
    terms: Option<TermsRow>,
}

#[derive(Serialize)]
struct TermsRow {
    max_connections: LimitRow,
    max_sessions: LimitRow,
    max_channels: LimitRow,
    /// `null`: never.
    idle_timeout_seconds: Option<u64>,
    /// The role that sets the timeout; `null`: the default.
    idle_timeout_role: Option<String>,
    /// `null`: no limit.
    max_session_seconds: Option<u64>,
    /// The role that sets the limit.
    max_session_role: Option<String>,
    on_disconnect: &'static str,
    recording: &'static str,
    record_stdin: &'static str,
    /// The bytes of a stream's content that are kept without a terminal; `null`: all of them.
    record_content_bytes: Option<u64>,
    /// True if sftp may change nothing.
    sftp_read_only: bool,
    /// The folder that sftp is restricted to; `null`: none, or several that lie apart.
    sftp_root: Option<String>,
}

/// A limit; `null`: there is none, or it is not counted.
#[derive(Clone, Copy, Serialize)]
struct LimitRow {
    max: Option<NonZeroU32>,
    in_use: Option<u32>,
    left: Option<u32>,
}

/// The user's sessions and channels at the moment, over all relays.
#[derive(Clone, Copy, Debug, Default)]
struct QuotaInUse {
    connections: Option<u32>,
    sessions: Option<u32>,
}

/// Returns what the user has by the leases in the store.
async fn in_use(context: &Context, subject: &Subject) -> Result<QuotaInUse, Failure> {
    let user = &subject.user.name;
    let in_use = context.store.leases_in_use(user, Timestamp::now()).await?;
    Ok(QuotaInUse {
        connections: Some(in_use.connections),
        sessions: Some(in_use.sessions),
    })
}

async fn run(args: &Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    let Caller::User(subject) = caller else {
        return local(args);
    };
    let (terms, in_use) = (subject.terms(), in_use(context, subject).await?);
    let row = TermsRow::of(&terms, in_use);
    if args.json {
        let user = &subject.user;
        return json(&Row {
            user: Some(user.name.as_str()),
            email: user.email.as_deref(),
            roles: &user.roles,
            roles_without_effect: without_effect(subject),
            disabled: user.disabled,
            terms: Some(row),
        });
    }
    let mut text = format!("{}: {}\n", subject.user.name, roles(subject));
    if !subject.roles.is_empty() {
        text.push_str(&card(&[
            ("idle timeout", idle(&terms)),
            ("max session", longest(&terms)),
            ("lost client", lost(&terms).to_owned()),
            ("connections", shown(row.max_connections)),
            ("sessions", shown(row.max_sessions)),
            (
                "channels",
                format!("{} per connection", shown(row.max_channels)),
            ),
            ("recording", recording(&terms)),
            ("content", content(&terms)),
            ("sftp", terms.sftp.to_string()),
        ]));
    }
    Ok(text)
}

fn local(args: &Args) -> Result<String, Failure> {
    if args.json {
        return json(&Row {
            user: None,
            email: None,
            roles: &[],
            roles_without_effect: vec![],
            disabled: false,
            terms: None,
        });
    }
    let text =
        "the relay's own administrator: anyone who can read the state folder may do everything\n";
    Ok(text.to_owned())
}

fn roles(subject: &Subject) -> String {
    if subject.user.roles.is_empty() {
        return "no role: may do nothing yet".to_owned();
    }
    let idle = without_effect(subject);
    let shown = |name: &String| match idle.contains(&name.as_str()) {
        true => format!("{name} (without effect from here)"),
        false => name.clone(),
    };
    let roles: Vec<String> = subject.user.roles.iter().map(shown).collect();
    format!("roles {}", roles.join(", "))
}

fn without_effect(subject: &Subject) -> Vec<&str> {
    let counts = |name: &&String| subject.roles.iter().any(|role| role.name.as_str() == *name);
    let names = subject.user.roles.iter();
    names
        .filter(|name| !counts(name))
        .map(String::as_str)
        .collect()
}

fn idle(terms: &Terms) -> String {
    let whose = match &terms.cutoffs.idle.role {
        Some(role) => format!("role {role}"),
        None => "the default".to_owned(),
    };
    match terms.cutoffs.idle.after {
        Some(after) => format!("{} ({whose})", Coarse(after).words()),
        None => format!("never ({whose})"),
    }
}

fn longest(terms: &Terms) -> String {
    let longest = &terms.cutoffs.longest;
    match (longest.after, &longest.role) {
        (Some(after), Some(role)) => format!("{} (role {role})", Coarse(after).words()),
        (Some(after), None) => Coarse(after).words(),
        (None, _) => "no limit".to_owned(),
    }
}

fn lost(terms: &Terms) -> &'static str {
    match terms.on_disconnect {
        OnDisconnect::Hup => "the terminal is hung up; processes that ignore SIGHUP continue",
        OnDisconnect::Leave => "the process continues, with its terminal",
        OnDisconnect::Kill => "the process is ended",
    }
}

fn recording(terms: &Terms) -> String {
    let stdin = match terms.record_stdin {
        StdinMode::Redact => "what is typed without an echo is redacted",
        StdinMode::Full => "all that is typed is recorded",
        StdinMode::Off => "what is typed is not recorded",
    };
    match terms.recording {
        RecordingMode::Off => "off".to_owned(),
        mode => format!("{}, {stdin}", mode.as_str()),
    }
}

/// Returns how much is recorded of what has no terminal.
fn content(terms: &Terms) -> String {
    match (terms.recording, &terms.record_content) {
        (RecordingMode::Off, _) => "-".to_owned(),
        (_, ContentBound::Unlimited) => "all of it is recorded".to_owned(),
        (_, bound) => {
            let size = inline(bound);
            let size = size.trim_matches('"');
            format!("{size} of each stream are recorded where there is no terminal")
        }
    }
}

fn shown(limit: LimitRow) -> String {
    match (limit.max, limit.in_use, limit.left) {
        (Some(max), Some(in_use), Some(left)) => {
            format!("at most {max}: {in_use} in use, {left} left")
        }
        (Some(max), ..) => format!("at most {max}"),
        (None, Some(in_use), _) => format!("no limit: {in_use} in use"),
        (None, ..) => "no limit".to_owned(),
    }
}

impl TermsRow {
    fn of(terms: &Terms, in_use: QuotaInUse) -> Self {
        let limit = |max: Option<NonZeroU32>, in_use: Option<u32>| LimitRow {
            max,
            in_use,
            // A limit that was lowered below what is in use leaves nothing.
            left: max
                .zip(in_use)
                .map(|(max, in_use)| max.get().saturating_sub(in_use)),
        };
        Self {
            max_connections: limit(terms.limits.max_connections, in_use.connections),
            max_sessions: limit(terms.limits.max_sessions, in_use.sessions),
            max_channels: limit(terms.limits.max_channels, None),
            idle_timeout_seconds: terms.cutoffs.idle.after.map(|after| after.as_secs()),
            idle_timeout_role: terms.cutoffs.idle.role.as_ref().map(ToString::to_string),
            max_session_seconds: terms.cutoffs.longest.after.map(|after| after.as_secs()),
            max_session_role: terms.cutoffs.longest.role.as_ref().map(ToString::to_string),
            on_disconnect: terms.on_disconnect.as_str(),
            recording: terms.recording.as_str(),
            record_stdin: terms.record_stdin.as_str(),
            record_content_bytes: terms.record_content.bytes(),
            sftp_read_only: terms.sftp.read_only,
            sftp_root: match &terms.sftp.root {
                HeldRoot::Within(root) => Some(root.to_string()),
                HeldRoot::Whole | HeldRoot::Apart(..) => None,
            },
        }
    }
}
