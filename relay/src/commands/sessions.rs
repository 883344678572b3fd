//! `sessions`: what is live now, and ending it.

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::SessionId;
use serde::Serialize;

use super::lock::message;
use super::table::{or_dash, table};
use super::{Caller, Context, Failure, json};
use crate::access::policy::Ability;
use crate::clock::{Coarse, Timestamp};
use crate::store::{Kill, RelayId, SessionFacts, SessionRow};

/// As many digits of an id as the table shows: of a million sessions, hardly two share them.
const SHORT_ID: usize = 10;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay sessions
  relay sessions kill 3f9a --message \"maintenance begins\"

Admins and auditors see all sessions, everybody else their own. Admins may end all, everybody else their own.")]
pub struct Args {
    #[command(subcommand)]
    command: Option<SessionsCommand>,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum SessionsCommand {
    /// End one session
    Kill {
        /// Its id, or the beginning of it
        id: String,
        /// What its operator reads
        #[arg(long, value_parser = message, default_value = "")]
        message: String,
    },
}

/// A session, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    id: String,
    user: String,
    device: String,
    device_id: String,
    login: String,
    kind: &'static str,
    /// `null` if it is no command.
    command: Option<String>,
    started: String,
    idle_seconds: u64,
    bytes_in: u64,
    bytes_out: u64,
    client: String,
    relay: String,
}

impl Args {
    /// Whether it ends a session.
    pub(super) fn kills(&self) -> bool {
        self.command.is_some()
    }
}

pub(super) async fn run(args: Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    // Live or not is a matter of heartbeats, and those go by the clock on the wall.
    let mut sessions = context.store.sessions(Timestamp::now()).await?;
    let own = caller.user().map(|user| &user.name);
    let kill = args.command.is_some();
    let all = caller.may(Ability::Admin) || (!kill && caller.may(Ability::Review));
    sessions.retain(|(_, session)| all || Some(&session.session.user) == own);
    match args.command {
        Some(SessionsCommand::Kill { id, message }) => {
            let session = find(&sessions, &id)?;
            let asked = Kill {
                session: session.session.id,
                message,
                by: own.cloned(),
            };
            if !context.store.kill_session(&asked).await? {
                return Err(none(&id));
            }
            let SessionFacts {
                id,
                user,
                login,
                device_name,
                ..
            } = &session.session;
            Ok(format!(
                "session {id} of {user} ({login} on {device_name}) ended\n"
            ))
        }
        None if args.json => json(&sessions.iter().map(row).collect::<Vec<_>>()),
        None => Ok(list(&sessions)),
    }
}

/// The one session whose id begins so.
fn find<'s>(sessions: &'s [(RelayId, SessionRow)], id: &str) -> Result<&'s SessionRow, Failure> {
    let wanted = id.to_ascii_lowercase();
    let mut found = sessions
        .iter()
        .map(|(_, session)| session)
        .filter(|session| {
            !wanted.is_empty() && session.session.id.to_string().starts_with(&wanted)
        });
    match (found.next(), found.next()) {
        (Some(session), None) => Ok(session),
        (None, _) => Err(none(id)),
        (Some(_), Some(_)) => Err(Failure(format!(
            "more than one session begins with \"{}\": give more of the id, as `relay sessions --json` prints it",
            Escaped(id)
        ))),
    }
}

fn none(id: &str) -> Failure {
    let id = Escaped(id);
    Failure(format!("no live session \"{id}\": see `relay sessions`"))
}

fn row((relay, session): &(RelayId, SessionRow)) -> Row {
    Row {
        id: session.session.id.to_string(),
        user: session.session.user.to_string(),
        device: session.session.device_name.to_string(),
        device_id: session.session.device.to_string(),
        login: session.session.login.to_string(),
        kind: session.session.kind.as_str(),
        command: session.session.command.clone(),
        started: session.session.started.rfc3339(),
        idle_seconds: idle(session).as_secs(),
        bytes_in: session.traffic.bytes_in,
        bytes_out: session.traffic.bytes_out,
        client: session.session.client.to_string(),
        relay: SessionId(relay.0).to_string(),
    }
}

fn list(sessions: &[(RelayId, SessionRow)]) -> String {
    let row = |(_, session): &(RelayId, SessionRow)| {
        let id = session.session.id.to_string();
        [
            id.get(..SHORT_ID).unwrap_or(&id).to_owned(),
            session.session.user.to_string(),
            format!("{}@{}", session.session.login, session.session.device_name),
            session.session.kind.as_str().to_owned(),
            format!(
                "{} ago",
                Coarse(Timestamp::now().since(session.session.started))
            ),
            Coarse(idle(session)).to_string(),
            bytes(session.traffic.bytes_in),
            bytes(session.traffic.bytes_out),
            session.session.client.to_string(),
            or_dash(session.session.command.as_deref().unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let head = [
        "ID", "USER", "WHERE", "KIND", "STARTED", "IDLE", "IN", "OUT", "CLIENT", "COMMAND",
    ];
    table(head, &rows)
}

fn idle(session: &SessionRow) -> std::time::Duration {
    Timestamp::now().since(session.traffic.active)
}

/// `17 B`, `4 KiB`, `12 MiB`.
fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{} GiB", count / 1_073_741_824),
    }
}
