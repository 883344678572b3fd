//! `sessions`: what is live now, and ending it.

use std::collections::HashMap;
use std::net::SocketAddr;

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
use serde::Serialize;

use super::args::ambiguous;
use super::devices::list as devices;
use super::{Caller, Context, Failure, json};
use crate::access::policy::Ability;
use crate::audit::Event;
use crate::clock::{Coarse, Timestamp};
use crate::commands::Done;
use crate::commands::access::lock::message;
use crate::commands::answer::table::{Narrow, RELAY, narrowed, or_dash, shown_relay};
use crate::commands::call::{Call, Command, Right};
use crate::store::{
    ConsoleRow, Durability, Kill, RelayId, SessionRow, Traffic, UserId, named_device,
};

/// The number of digits of an id that the table shows: of a million sessions, hardly two share them.
const SHORT_ID: usize = 10;

/// The way in which the table gives way in a narrow terminal: CLIENT, IN, OUT and RELAY go, and what a session is can be
/// read.
const NARROW: Narrow<'static> = Narrow {
    left_out: &[8, 6, 7, 9],
    kept: &[(2, 16), (4, 10), (9, 10), (10, 16)],
};

/// Live sessions: list, kill
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  relay sessions
  relay sessions --device kitchen-cam --user alice
  relay sessions kill 3f9a --message \"maintenance begins\"

Admins and auditors see all sessions, other users their own. Admins may end all, other users their own."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<SessionsCommand>,
    #[command(flatten)]
    listing: SessionListing,
}

/// The filter and the form of a listing.
#[derive(Clone, Debug, Default, clap::Args)]
struct SessionListing {
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// On this device, by its name or its id
    #[arg(long, value_name = "NAME|ID", value_parser = named_device)]
    device: Option<DeviceName>,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum SessionsCommand {
    /// List the sessions: what happens without a subcommand
    #[command(visible_alias = "list")]
    Ls(SessionListing),
    /// End one session
    Kill {
        /// Its id, or the beginning of it
        id: String,
        /// The text that its operator reads
        #[arg(long, value_parser = message, default_value = "")]
        message: String,
    },
}

/// A session, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    id: String,
    user: String,
    /// `null` of a console command.
    device: Option<String>,
    device_id: Option<String>,
    login: Option<String>,
    /// The kind of session, or `console`.
    kind: &'static str,
    /// `null` if it is no command.
    command: Option<String>,
    started: String,
    idle_seconds: u64,
    bytes_in: u64,
    bytes_out: u64,
    client: String,
    /// The relay that the operator is at.
    relay: Option<String>,
}

impl Command for Args {
    fn need(&self) -> Right {
        // Everybody sees and ends their own sessions: a user at a limit must be able to.
        Right::AnyRole
    }

    fn event(&self) -> Option<Event> {
        // The `client.disconnect` event of a session says who ended it.
        None
    }

    fn is_deed(&self) -> bool {
        matches!(self.command, Some(SessionsCommand::Kill { .. }))
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context).await.map(Done::from)
    }
}

pub(super) async fn run(args: Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    // Live or not is a matter of heartbeats, and those go by the clock on the wall.
    let now = Timestamp::now();
    let sessions = context.store.sessions(now).await?;
    let consoles = context.store.console_streams(now).await?;
    let sessions = sessions.into_iter().map(Listed::from);
    let mut sessions: Vec<Listed> = sessions
        .chain(consoles.into_iter().map(Listed::from))
        .collect();
    sessions.sort_by_key(|session| (session.started, session.id.0));
    let own = caller.user().map(|user| &user.name);
    let own_id = caller.user().map(|user| user.id);
    let all = caller.may(Ability::Admin) || caller.may(Ability::Review);
    let is_own = |session: &Listed| session.user_id.is_some() && session.user_id == own_id;
    sessions.retain(|session| all || is_own(session));
    let listing = match args.command {
        None => args.listing,
        Some(SessionsCommand::Ls(listing)) => listing,
        Some(SessionsCommand::Kill { id, message }) => {
            let session = find(&sessions, &id)?;
            if let Some(name) = own
                && !caller.may(Ability::Admin)
                && !is_own(session)
            {
                return Err(Failure(format!(
                    "user \"{name}\" may not end the session of another user: it needs the ability {}; ask an admin, and see `whoami`",
                    Ability::Admin.as_str()
                )));
            }
            let asked = Kill {
                session: session.id,
                message,
                by: own.cloned(),
            };
            // Lost with the power, like the session itself.
            let mut tx = context.store.begin(Durability::Process).await?;
            if !tx.kill_session(&asked).await? {
                return Err(none(&id));
            }
            tx.commit().await?;
            let Listed { id, user, .. } = session;
            return Ok(match &session.at {
                Some(At { device, login, .. }) => {
                    format!("session {id} of {user} ({login} on {device}) ended\n")
                }
                None => format!("console command {id} of {user} ended\n"),
            });
        }
    };
    listing.pick(&mut sessions, caller, context).await?;
    match listing.json {
        true => {
            let relays = context.store.names_of_runs().await?;
            let row = |session| row(session, &relays);
            json(&sessions.iter().map(row).collect::<Vec<_>>())
        }
        false => {
            let relays = match context.store.has_several_members().await? {
                true => Some(context.store.names_of_runs().await?),
                false => None,
            };
            Ok(list(&sessions, relays.as_ref(), context.width))
        }
    }
}

impl SessionListing {
    /// Keeps the sessions that are asked for.
    async fn pick(
        &self,
        sessions: &mut Vec<Listed>,
        caller: &Caller,
        context: &Context,
    ) -> Result<(), Failure> {
        if let Some(user) = &self.user {
            let is_theirs = |session: &Listed| session.user.as_str() == user;
            // Who sees only their own sessions does not hear here which users there are.
            let may_know = caller.may(Ability::Admin) || caller.may(Ability::Review);
            if may_know && !sessions.iter().any(is_theirs) {
                known_user(user, context).await?;
            }
            sessions.retain(is_theirs);
        }
        if let Some(name) = &self.device {
            let device = devices::find(caller, context, name).await?.id;
            let is_there = |at: &At| at.device_id == device;
            sessions.retain(|session| session.at.as_ref().is_some_and(is_there));
        }
        Ok(())
    }
}

/// A session, or a console command that streams, with the run of the relay that has it.
struct Listed {
    relay: RelayId,
    id: SessionId,
    user: UserName,
    user_id: Option<UserId>,
    /// The device and account; `None` of a console command.
    at: Option<At>,
    kind: &'static str,
    command: Option<String>,
    client: SocketAddr,
    started: Timestamp,
    traffic: Traffic,
}

struct At {
    device: DeviceName,
    device_id: DeviceId,
    login: Login,
}

impl From<(RelayId, SessionRow)> for Listed {
    fn from((relay, SessionRow { session, traffic }): (RelayId, SessionRow)) -> Self {
        Self {
            relay,
            id: session.id,
            user: session.user,
            user_id: session.user_id,
            at: Some(At {
                device: session.device_name,
                device_id: session.device,
                login: session.login,
            }),
            kind: session.kind.as_str(),
            command: session.command,
            client: session.client,
            started: session.started,
            traffic,
        }
    }
}

impl From<(RelayId, ConsoleRow)> for Listed {
    fn from((relay, row): (RelayId, ConsoleRow)) -> Self {
        Self {
            relay,
            id: row.id,
            user: row.user,
            user_id: row.user_id,
            at: None,
            kind: "console",
            command: Some(row.command),
            client: row.client,
            started: row.started,
            traffic: row.traffic,
        }
    }
}

/// Checks that there is such a user.
async fn known_user(text: &str, context: &Context) -> Result<(), Failure> {
    match context.store.user_of(text).await? {
        Some(_) => Ok(()),
        None => Err(Failure(format!(
            "no user \"{}\": see `relay user ls`",
            Escaped(text)
        ))),
    }
}

/// Returns the one session whose id begins so.
fn find<'s>(sessions: &'s [Listed], id: &str) -> Result<&'s Listed, Failure> {
    let wanted = id.to_ascii_lowercase();
    let mut found = sessions
        .iter()
        .filter(|session| !wanted.is_empty() && session.id.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(session), None) => Ok(session),
        (None, _) => Err(none(id)),
        (Some(first), Some(second)) => {
            let ids = [first, second].into_iter().chain(found);
            let ids: Vec<String> = ids.map(|session| session.id.to_string()).collect();
            Err(ambiguous("session", id, &ids))
        }
    }
}

fn none(id: &str) -> Failure {
    let id = Escaped(id);
    Failure(format!("no live session \"{id}\": see `relay sessions`"))
}

fn row(session: &Listed, relays: &HashMap<RelayId, String>) -> Row {
    let at = session.at.as_ref();
    Row {
        id: session.id.to_string(),
        user: session.user.to_string(),
        device: at.map(|at| at.device.to_string()),
        device_id: at.map(|at| at.device_id.to_string()),
        login: at.map(|at| at.login.to_string()),
        kind: session.kind,
        command: session.command.clone(),
        started: session.started.rfc3339(),
        idle_seconds: idle(session).as_secs(),
        bytes_in: session.traffic.bytes_in,
        bytes_out: session.traffic.bytes_out,
        client: session.client.to_string(),
        relay: relays.get(&session.relay).cloned(),
    }
}

fn list(
    sessions: &[Listed],
    relays: Option<&HashMap<RelayId, String>>,
    width: Option<usize>,
) -> String {
    let row = |session: &Listed| {
        let id = session.id.to_string();
        let place = session.at.as_ref();
        let place = place.map(|at| format!("{}@{}", at.login, at.device));
        [
            id.get(..SHORT_ID).unwrap_or(&id).to_owned(),
            session.user.to_string(),
            or_dash(&place.unwrap_or_default()),
            session.kind.to_owned(),
            format!("{} ago", Coarse(Timestamp::now().since(session.started))),
            Coarse(idle(session)).to_string(),
            bytes(session.traffic.bytes_in),
            bytes(session.traffic.bytes_out),
            session.client.to_string(),
            shown_relay(relays.map(|relays| relays.get(&session.relay).cloned())),
            or_dash(session.command.as_deref().unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let relay = relays.map_or("", |_| RELAY);
    let head = [
        "ID", "USER", "WHERE", "KIND", "STARTED", "IDLE", "IN", "OUT", "CLIENT", relay, "COMMAND",
    ];
    narrowed(width, head, &rows, NARROW)
}

fn idle(session: &Listed) -> std::time::Duration {
    Timestamp::now().since(session.traffic.active)
}

/// Returns `17 B`, `4 KiB`, `12 MiB`.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{} GiB", count / 1_073_741_824),
    }
}
