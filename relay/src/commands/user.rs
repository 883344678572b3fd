//! `user`: operators, their keys and roles.

use std::io::Read as _;

use clap::Subcommand;
use holdfast_protocol::ids::UserName;
use serde::Serialize;

use super::table::{card, count, or_dash, table};
use super::{Caller, Context, Failure, MAX_INPUT, json, keys};
use crate::access::policy::ROLES;
use crate::audit::{Event, EventKind};
use crate::store::{UserKey, UserRow};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: UserCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum UserCommand {
    /// Add a user by public keys
    #[command(after_help = "Examples:
  relay user add alice --key alice.pub --role admin
  ssh-add -L | relay user add alice --key -
  curl -s https://github.com/alice.keys | relay user add alice --key -

The same command a second time changes nothing. A user without a role may do nothing yet.")]
    Add {
        /// How logs and refusals call the user
        name: UserName,
        #[command(flatten)]
        key: KeyArg,
        /// What the user may do; can be given more than once
        #[arg(long, value_name = "ROLE")]
        role: Vec<String>,
    },
    /// List the users
    #[command(visible_alias = "list")]
    Ls,
    /// Show one user with all keys
    Show {
        /// Whom
        name: UserName,
    },
    /// Remove a user and all keys
    Rm {
        /// Whom
        name: UserName,
    },
    /// Add or remove a key of a user
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Clone, Debug, Subcommand)]
enum KeyCommand {
    /// Add keys to a user
    #[command(after_help = "Example:
  relay user key add alice --key laptop.pub")]
    Add {
        /// Whose
        name: UserName,
        #[command(flatten)]
        key: KeyArg,
    },
    /// Take a key from a user
    #[command(after_help = "Example:
  relay user key rm alice SHA256:3fQ…

`relay user show alice` prints the fingerprints.")]
    Rm {
        /// Whose
        name: UserName,
        /// `SHA256:…`, as `user show` and `ssh-keygen -l` print it
        fingerprint: String,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct KeyArg {
    /// File with one or more public keys; - reads stdin
    #[arg(long, value_name = "FILE|-", required = true)]
    key: Vec<String>,
}

/// A user, for machines.
#[derive(Serialize)]
struct Row {
    name: String,
    roles: Vec<String>,
    disabled: bool,
    created: String,
    keys: Vec<KeyRow>,
}

#[derive(Serialize)]
struct KeyRow {
    fingerprint: String,
    public_key: String,
    comment: String,
}

impl Args {
    pub(super) fn wants_stdin(&self) -> bool {
        match &self.command {
            UserCommand::Add { key, .. } | UserCommand::Key(KeyCommand::Add { key, .. }) => {
                key.key.iter().any(|file| file == "-")
            }
            _ => false,
        }
    }

    /// What a change is recorded as; the store adds the keys.
    pub(super) fn event(&self) -> Option<Event> {
        let changed = |what: &str, name: &UserName| {
            let event = Event::new(EventKind::AccessChanged).with("change", what);
            event.with("target", name.as_str())
        };
        match &self.command {
            UserCommand::Add { name, role, .. } => {
                Some(changed("user.add", name).with("roles", role.as_slice()))
            }
            UserCommand::Rm { name } => Some(changed("user.rm", name)),
            UserCommand::Key(KeyCommand::Add { name, .. }) => Some(changed("user.key.add", name)),
            UserCommand::Key(KeyCommand::Rm { name, fingerprint }) => {
                let removed = vec![fingerprint.as_str()];
                Some(changed("user.key.rm", name).with("keys", removed))
            }
            UserCommand::Ls | UserCommand::Show { .. } => None,
        }
    }
}

pub(super) async fn run(
    args: Args,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
) -> Result<String, Failure> {
    let store = &context.store;
    let row_or = |user: Option<UserRow>, text: String| match user {
        Some(user) if args.json => json(&Row::of(&user)),
        _ => Ok(text),
    };
    match args.command {
        UserCommand::Add { name, key, role } => {
            check_roles(&role)?;
            let keys = read_keys(&key, caller, stdin)?;
            let did = store.add_user(&name, &keys, &role, context.now).await?;
            let user = find(context, &name).await?;
            let verb = match (did.new_user, did.new_roles) {
                (true, _) => "added",
                (false, 0) => "unchanged",
                (false, _) => "changed",
            };
            let text = summary(&user, verb);
            row_or(Some(user), text)
        }
        UserCommand::Ls => list(&store.users().await?, args.json),
        UserCommand::Show { name } => {
            let user = find(context, &name).await?;
            let text = show(&user);
            row_or(Some(user), text)
        }
        UserCommand::Rm { name } => {
            if !store.remove_user(&name).await? {
                return Err(unknown(&name));
            }
            row_or(None, format!("user {name} removed\n"))
        }
        UserCommand::Key(KeyCommand::Add { name, key }) => {
            let keys = read_keys(&key, caller, stdin)?;
            let added = store.add_keys(&name, &keys, context.now).await?;
            let text = match added {
                0 => format!("user {name} unchanged: {}\n", fingerprints(&keys)),
                _ => format!(
                    "user {name}: {} added ({})\n",
                    count(added, "key"),
                    fingerprints(&keys)
                ),
            };
            row_or(Some(find(context, &name).await?), text)
        }
        UserCommand::Key(KeyCommand::Rm { name, fingerprint }) => {
            store.remove_key(&name, &fingerprint).await?;
            let text = format!("user {name}: key {fingerprint} removed\n");
            row_or(Some(find(context, &name).await?), text)
        }
    }
}

/// Reads all keys that the arguments name.
fn read_keys(arg: &KeyArg, caller: &Caller, stdin: Option<&[u8]>) -> Result<Vec<UserKey>, Failure> {
    let mut all: Vec<UserKey> = Vec::new();
    for file in &arg.key {
        let text = match (file.as_str(), caller) {
            ("-", _) => stdin.unwrap_or_default().to_vec(),
            // An operator's path means nothing on the relay, and must not open its files.
            (_, Caller::User(_)) => {
                return Err(Failure::new(
                    "over ssh, keys come by stdin: `ssh RELAY user add NAME --key - < alice.pub`",
                ));
            }
            (path, Caller::Local) => read_file(path)?,
        };
        let name = if file == "-" { "stdin" } else { file };
        for key in keys::parse(name, &text)? {
            if all.iter().all(|other| other.fingerprint != key.fingerprint) {
                all.push(key);
            }
        }
    }
    Ok(all)
}

fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    // One byte more than is allowed tells a file that is too long.
    let limit = MAX_INPUT as u64 + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
    read.map_err(|error| Failure(format!("cannot read {path}: {error}")))?;
    if text.len() > MAX_INPUT {
        return Err(Failure(format!(
            "{path} is larger than {MAX_INPUT} bytes: that is no public key"
        )));
    }
    Ok(text)
}

fn check_roles(roles: &[String]) -> Result<(), Failure> {
    let Some(unknown) = roles.iter().find(|role| !ROLES.contains(&role.as_str())) else {
        return Ok(());
    };
    Err(Failure(format!(
        "no role \"{}\": the roles are {}; without --role a user may do nothing yet",
        holdfast_protocol::escape::Escaped(unknown),
        ROLES.join(", ")
    )))
}

async fn find(context: &Context, name: &UserName) -> Result<UserRow, Failure> {
    let users = context.store.users().await?;
    let user = users.into_iter().find(|row| &row.user.name == name);
    user.ok_or_else(|| unknown(name))
}

fn unknown(name: &UserName) -> Failure {
    Failure(format!("no user \"{name}\": see `relay user ls`"))
}

fn list(users: &[UserRow], as_json: bool) -> Result<String, Failure> {
    if as_json {
        return json(&users.iter().map(Row::of).collect::<Vec<_>>());
    }
    let row = |row: &UserRow| {
        [
            row.user.name.to_string(),
            or_dash(&row.user.roles.join(",")),
            row.keys.len().to_string(),
            row.created.to_string(),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    Ok(table(["NAME", "ROLES", "KEYS", "ADDED"], &rows))
}

fn show(row: &UserRow) -> String {
    let mut lines = vec![
        ("name", row.user.name.to_string()),
        ("roles", or_dash(&row.user.roles.join(", "))),
        ("added", row.created.to_string()),
    ];
    for key in &row.keys {
        let kind = key.public_key.split(' ').next().unwrap_or_default();
        let text = format!("{} {kind} {}", key.fingerprint, key.comment);
        lines.push(("key", text.trim_end().to_owned()));
    }
    card(&lines)
}

fn summary(row: &UserRow, verb: &str) -> String {
    let roles = match row.user.roles.as_slice() {
        [] => "no role: may do nothing yet".to_owned(),
        roles => format!("roles {}", roles.join(", ")),
    };
    let (name, keys) = (&row.user.name, count(row.keys.len(), "key"));
    format!(
        "user {name} {verb}: {keys} ({}), {roles}\n",
        fingerprints(&row.keys)
    )
}

fn fingerprints(keys: &[UserKey]) -> String {
    let all: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
    all.join(", ")
}

impl Row {
    fn of(row: &UserRow) -> Self {
        let key = |key: &UserKey| KeyRow {
            fingerprint: key.fingerprint.clone(),
            public_key: key.public_key.clone(),
            comment: key.comment.clone(),
        };
        Self {
            name: row.user.name.to_string(),
            roles: row.user.roles.clone(),
            disabled: row.user.disabled,
            created: row.created.rfc3339(),
            keys: row.keys.iter().map(key).collect(),
        }
    }
}
