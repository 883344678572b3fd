//! `user`: operators, their keys and roles.

mod args;
mod show;

use holdfast_protocol::ids::UserName;

use super::keys;
use crate::audit::{Event, EventKind};
use crate::commands::Done;
use crate::commands::answer::table::count;
use crate::commands::call::input;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::MAX_INPUT;
use crate::commands::{Caller, Context, Failure, json};
use crate::store::{NewUser, UserKey, UserRow};

pub(crate) use args::Args;
use args::{KeyArg, KeyCommand, PrincipalCommand, UserCommand, UserRoleCommand};
pub(crate) use show::list;
use show::{Row, card_of, fingerprints, summary};

impl Args {
    fn only_reads(&self) -> bool {
        matches!(self.command, UserCommand::Ls | UserCommand::Show { .. })
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::to_read_or_change(self.only_reads(), Right::REVIEW)
    }

    /// Returns the audit event of a change; the store adds the keys.
    fn event(&self) -> Option<Event> {
        let changed = |what: &str, name: &UserName| {
            let event = Event::new(EventKind::AccessChanged).with("change", what);
            event.with("target", name.as_str())
        };
        match &self.command {
            UserCommand::Add { name, role, .. } => {
                Some(changed("user.add", name).with("roles", role.as_slice()))
            }
            UserCommand::Rm { name } => Some(changed("user.rm", name)),
            UserCommand::Disable { name } => Some(changed("user.disable", name)),
            UserCommand::Enable { name } => Some(changed("user.enable", name)),
            UserCommand::Email { name, address } => {
                Some(changed("user.email", name).with("email", address.as_deref()))
            }
            UserCommand::Role(UserRoleCommand::Add { name, roles }) => {
                Some(changed("user.role.add", name).with("roles", roles.as_slice()))
            }
            UserCommand::Role(UserRoleCommand::Rm { name, role }) => {
                Some(changed("user.role.rm", name).with("roles", vec![role.as_str()]))
            }
            UserCommand::Principal(PrincipalCommand::Add { name, principals }) => {
                Some(changed("user.principal.add", name).with("principals", principals.as_slice()))
            }
            UserCommand::Principal(PrincipalCommand::Rm { name, principal }) => {
                let removed = vec![principal.as_str()];
                Some(changed("user.principal.rm", name).with("principals", removed))
            }
            UserCommand::Key(KeyCommand::Add { name, .. }) => Some(changed("user.key.add", name)),
            UserCommand::Key(KeyCommand::Rm { name, fingerprint }) => {
                let removed = vec![fingerprint.as_str()];
                Some(changed("user.key.rm", name).with("keys", removed))
            }
            UserCommand::Ls | UserCommand::Show { .. } => None,
        }
    }

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    fn wants_stdin(&self) -> bool {
        match &self.command {
            UserCommand::Add { key, .. }
            | UserCommand::Key(KeyCommand::Add {
                key: KeyArg { key },
                ..
            }) => key.iter().any(|file| file == "-"),
            _ => false,
        }
    }

    fn names_file(&self) -> bool {
        match &self.command {
            UserCommand::Add { key, .. }
            | UserCommand::Key(KeyCommand::Add {
                key: KeyArg { key },
                ..
            }) => key.iter().any(|file| file != "-"),
            _ => false,
        }
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context, call.stdin)
            .await
            .map(Done::from)
    }
}

async fn run(
    args: Args,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
) -> Result<String, Failure> {
    let keys = |files: &[String]| read_keys(files, caller, stdin);
    let (name, text) = match args.command {
        UserCommand::Ls => return list(&context.store.users().await?, args.json, context.width),
        UserCommand::Rm { name } => {
            let mut tx = context.begin().await?;
            if !tx.remove_user(&name).await? {
                return Err(unknown(&name));
            }
            tx.commit().await?;
            return Ok(format!("user {name} removed\n"));
        }
        UserCommand::Add {
            name,
            key,
            role,
            email,
            principal,
        } => {
            let user = NewUser {
                keys: keys(&key)?,
                roles: role,
                email,
                principals: principal,
            };
            let text = add(&name, &user, context).await?;
            (name, text)
        }
        UserCommand::Show { name } => {
            let text = card_of(&find(context, &name).await?);
            (name, text)
        }
        UserCommand::Disable { name } => disable(name, true, context).await?,
        UserCommand::Enable { name } => disable(name, false, context).await?,
        UserCommand::Email { name, address } => {
            let address = address.filter(|address| !address.is_empty());
            let mut tx = context.begin().await?;
            tx.set_email(&name, address.as_deref()).await?;
            tx.commit().await?;
            let shown = address.unwrap_or_else(|| "none".to_owned());
            let text = format!("user {name}: e-mail address {shown}\n");
            (name, text)
        }
        UserCommand::Role(command) => change_roles(command, context).await?,
        UserCommand::Principal(command) => change_principals(command, context).await?,
        UserCommand::Key(KeyCommand::Add { name, key }) => {
            let keys = keys(&key.key)?;
            add_keys(name, &keys, context).await?
        }
        UserCommand::Key(KeyCommand::Rm { name, fingerprint }) => {
            let mut tx = context.begin().await?;
            tx.remove_key(&name, &fingerprint).await?;
            tx.commit().await?;
            let text = format!("user {name}: key {fingerprint} removed\n");
            (name, text)
        }
    };
    if args.json {
        return json(&Row::of(&find(context, &name).await?));
    }
    Ok(text)
}

async fn add(name: &UserName, user: &NewUser, context: &Context) -> Result<String, Failure> {
    let mut tx = context.begin().await?;
    let did = tx.add_user(name, user, context.now).await?;
    tx.commit().await?;
    let verb = match (did.new_user, did.new_roles > 0 || did.new_facts) {
        (true, _) => "added",
        (false, false) => "unchanged",
        (false, true) => "changed",
    };
    Ok(summary(&find(context, name).await?, verb))
}

async fn add_keys(
    name: UserName,
    keys: &[UserKey],
    context: &Context,
) -> Result<(UserName, String), Failure> {
    let mut tx = context.begin().await?;
    let added = tx.add_keys(&name, keys, context.now).await?;
    tx.commit().await?;
    let shown = fingerprints(keys);
    let text = match added {
        0 => format!("user {name} unchanged: {shown}\n"),
        _ => format!("user {name}: {} added ({shown})\n", count(added, "key")),
    };
    Ok((name, text))
}

async fn disable(
    name: UserName,
    disabled: bool,
    context: &Context,
) -> Result<(UserName, String), Failure> {
    let mut tx = context.begin().await?;
    let changed = tx.set_disabled(&name, disabled).await?;
    tx.commit().await?;
    let text = match (disabled, changed) {
        (true, true) => format!("user {name} disabled: nothing is allowed from now on\n"),
        (true, false) => format!("user {name} unchanged: disabled already\n"),
        (false, true) => format!("user {name} enabled\n"),
        (false, false) => format!("user {name} unchanged: enabled already\n"),
    };
    Ok((name, text))
}

async fn change_roles(
    command: UserRoleCommand,
    context: &Context,
) -> Result<(UserName, String), Failure> {
    let mut tx = context.begin().await?;
    let (name, changed) = match command {
        UserRoleCommand::Add { name, roles } => {
            let added = tx.add_roles(&name, &roles).await?;
            (name, added > 0)
        }
        UserRoleCommand::Rm { name, role } => {
            tx.take_role(&name, &role).await?;
            (name, true)
        }
    };
    tx.commit().await?;
    let row = find(context, &name).await?;
    let verb = if changed { "changed" } else { "unchanged" };
    Ok((name, summary(&row, verb)))
}

async fn change_principals(
    command: PrincipalCommand,
    context: &Context,
) -> Result<(UserName, String), Failure> {
    let mut tx = context.begin().await?;
    let (name, text) = match command {
        PrincipalCommand::Add { name, principals } => {
            let added = tx.add_principals(&name, &principals).await?;
            let text = match added {
                0 => format!("user {name} unchanged: {}\n", principals.join(", ")),
                _ => format!("user {name}: {} added\n", count(added, "principal")),
            };
            (name, text)
        }
        PrincipalCommand::Rm { name, principal } => {
            tx.remove_principal(&name, &principal).await?;
            let text = format!("user {name}: principal {principal} removed\n");
            (name, text)
        }
    };
    tx.commit().await?;
    Ok((name, text))
}

/// Reads all keys that the arguments name.
fn read_keys(
    files: &[String],
    caller: &Caller,
    stdin: Option<&[u8]>,
) -> Result<Vec<UserKey>, Failure> {
    let remedy = "over ssh, keys come by stdin: `ssh RELAY user add NAME --key - < alice.pub`";
    let mut all: Vec<UserKey> = Vec::new();
    for file in files {
        let text = input::read(file, caller, stdin, MAX_INPUT, remedy)?;
        for key in keys::parse(input::name(file), &text)? {
            if all.iter().all(|other| other.fingerprint != key.fingerprint) {
                all.push(key);
            }
        }
    }
    Ok(all)
}

async fn find(context: &Context, name: &UserName) -> Result<UserRow, Failure> {
    let users = context.store.users().await?;
    let user = users.into_iter().find(|row| &row.user.name == name);
    user.ok_or_else(|| unknown(name))
}

fn unknown(name: &UserName) -> Failure {
    Failure(format!("no user \"{name}\": see `relay user ls`"))
}
