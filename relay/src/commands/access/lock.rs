//! `lock` and `unlock`: shutting a user, device, account or network out.

use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use holdfast_protocol::ids::{Login, UserName};
use ipnet::IpNet;
use serde::Serialize;

use crate::audit::{Event, EventKind};
use crate::clock::Coarse;
use crate::commands::Done;
use crate::commands::answer::leftover::{LeftoverToken, about_token};
use crate::commands::answer::table::{or_dash, table};
use crate::commands::args::ttl;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::MAX_LOCK_MESSAGE;
use crate::commands::{Caller, Context, Failure, json};
use crate::model::invalid::Invalid;
use crate::model::lock::{By, Lock, LockTarget, network, with_excess_bits};
use crate::model::presets;
use crate::model::role::RoleName;
use crate::store::{Device, NewLock};

/// Shut out a user, role, login, device or address: nothing new, and live sessions end
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay lock user alice --message \"laptop reported stolen\"
  relay lock address 203.0.113.0/24 --ttl 1h
  relay lock ls

A lock is in force when the command returns: live sessions that it matches have ended, on every relay.
The relay's own shell is never locked.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: LockCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum LockCommand {
    /// Shut out one user
    User(LockArgs<UserName>),
    /// Lock out all users of a role
    Role(LockArgs<RoleName>),
    /// End and refuse every session under an account, on all devices
    Login(LockArgs<Login>),
    /// End and refuse every session on a device: NAME or its id
    Device(LockArgs<String>),
    /// Shut out an address or a network
    Address(LockArgs<Network>),
    /// List the active locks
    #[command(visible_alias = "list")]
    Ls,
}

#[derive(Clone, Debug, clap::Args)]
struct LockArgs<T: FromStr + Clone + Send + Sync + 'static>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    /// The subject to lock
    value: T,
    /// The text for those who are locked out
    #[arg(long, value_parser = message, default_value = "")]
    message: String,
    /// The duration: 30s, 10m, 1h, 7d [default: until `unlock`]
    #[arg(long, value_parser = ttl)]
    ttl: Option<Duration>,
}

/// Remove a lock
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay lock ls
  relay unlock 7")]
pub(crate) struct UnlockArgs {
    /// The lock's number, as `lock ls` prints it
    #[arg(value_parser = number)]
    id: i64,
}

fn number(text: &str) -> Result<i64, &'static str> {
    text.parse()
        .map_err(|_| "expected a lock's number, as `lock ls` prints it")
}

impl Args {
    /// Returns whether it changes nothing.
    fn only_reads(&self) -> bool {
        matches!(self.command, LockCommand::Ls)
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::to_read_or_change(self.only_reads(), Right::REVIEW)
    }

    /// Returns the audit event of a new lock; the store adds its number.
    fn event(&self) -> Option<Event> {
        let (kind, value, message) = match &self.command {
            LockCommand::User(new) => ("user", new.value.to_string(), &new.message),
            LockCommand::Role(new) => ("role", new.value.to_string(), &new.message),
            LockCommand::Login(new) => ("login", new.value.to_string(), &new.message),
            LockCommand::Device(new) => ("device", new.value.clone(), &new.message),
            LockCommand::Address(new) => ("address", new.value.text.clone(), &new.message),
            LockCommand::Ls => return None,
        };
        let event = Event::new(EventKind::LockCreated).with("target", kind);
        Some(event.with("value", value).with("message", message.as_str()))
    }

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context).await.map(Done::from)
    }
}

impl Command for UnlockArgs {
    fn need(&self) -> Right {
        Right::ADMIN
    }

    fn event(&self) -> Option<Event> {
        Some(Event::new(EventKind::LockRemoved).with("lock", self.id))
    }

    fn is_deed(&self) -> bool {
        true
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        unlock(&self, call.context).await.map(Done::from)
    }
}

/// A lock, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    id: i64,
    target: &'static str,
    value: String,
    message: String,
    /// `null`: a command at the relay itself.
    by: Option<String>,
    created: String,
    /// `null`: it lasts until it is removed.
    expires: Option<String>,
}

/// A new lock, for machines.
#[derive(Serialize)]
struct LockAnswer {
    #[serde(flatten)]
    lock: Row,
    /// The token that a device enrolled with, if others can still join with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leftover_token: Option<LeftoverToken>,
}

async fn run(args: Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    let as_json = args.json;
    let (target, message, ttl) = match args.command {
        LockCommand::Ls => return list(as_json, context).await,
        LockCommand::User(target) => (
            user(target.value, context).await?,
            target.message,
            target.ttl,
        ),
        LockCommand::Role(target) => (
            role(target.value, context).await?,
            target.message,
            target.ttl,
        ),
        LockCommand::Login(target) => (LockTarget::Login(target.value), target.message, target.ttl),
        LockCommand::Device(target) => (
            device(&target.value, context).await?,
            target.message,
            target.ttl,
        ),
        LockCommand::Address(target) => (
            LockTarget::Address(target.value.network),
            target.message,
            target.ttl,
        ),
    };
    let new = NewLock {
        target,
        message,
        by: caller.user().map(|user| user.name.clone()),
        expires: ttl.map(|ttl| context.now.after(ttl)),
    };
    let (target, expires) = (new.target.clone(), new.expires);
    let mut tx = context.begin().await?;
    let id = tx.add_lock(new.clone(), context.now).await?;
    tx.commit().await?;
    // Who has the device may have the token as well, and would join again with it as another device.
    let token = match &target {
        LockTarget::Device(device) => context.store.token_left_of(*device, context.now).await?,
        _ => None,
    };
    if as_json {
        let lock = Lock {
            id,
            target,
            message: new.message,
            by: new.by,
            created: context.now,
            expires,
        };
        return json(&LockAnswer {
            lock: row(&lock, &context.store.devices(context.now).await?),
            leftover_token: token.map(|token| LeftoverToken::of(token, false)),
        });
    }
    let until = expires.map_or(String::new(), |time| format!(" until {time}"));
    let (kind, value) = (
        target.kind(),
        named(&target, &context.store.devices(context.now).await?),
    );
    let token = token.map(|token| about_token(&token, context.now, false));
    let token = token.unwrap_or_default();
    Ok(format!(
        "lock {id}: {kind} {value} is locked{until}\n{token}"
    ))
}

async fn unlock(args: &UnlockArgs, context: &Context) -> Result<String, Failure> {
    let id = args.id;
    let mut tx = context.begin().await?;
    if !tx.remove_lock(id).await? {
        return Err(Failure(format!("no lock {id}: see `relay lock ls`")));
    }
    tx.commit().await?;
    Ok(format!("lock {id} removed\n"))
}

async fn list(as_json: bool, context: &Context) -> Result<String, Failure> {
    let locks = context.store.locks(context.now).await?;
    let devices = context.store.devices(context.now).await?;
    if as_json {
        let rows: Vec<Row> = locks.iter().map(|lock| row(lock, &devices)).collect();
        return json(&rows);
    }
    let row = |lock: &Lock| {
        let expires = lock
            .expires
            .map(|time| format!("in {}", Coarse(time.since(context.now))));
        [
            lock.id.to_string(),
            lock.target.kind().to_owned(),
            named(&lock.target, &devices),
            expires.unwrap_or_else(|| "never".to_owned()),
            By(lock.by.as_ref()).to_string(),
            or_dash(&lock.message),
        ]
    };
    let rows: Vec<_> = locks.iter().map(row).collect();
    let head = ["ID", "TARGET", "VALUE", "EXPIRES", "BY", "MESSAGE"];
    Ok(table(context.width, head, &rows))
}

fn row(lock: &Lock, devices: &[Device]) -> Row {
    Row {
        id: lock.id,
        target: lock.target.kind(),
        value: named(&lock.target, devices),
        message: lock.message.clone(),
        by: lock.by.as_ref().map(ToString::to_string),
        created: lock.created.rfc3339(),
        expires: lock.expires.map(crate::clock::Timestamp::rfc3339),
    }
}

/// Returns a target's value for people: a device's name, where it still has one.
fn named(target: &LockTarget, devices: &[Device]) -> String {
    let LockTarget::Device(id) = target else {
        return target.value();
    };
    let device = devices.iter().find(|device| device.id == *id);
    device.map_or_else(|| id.to_string(), |device| device.name.to_string())
}

/// Checks the name: one that no user has locks no user, which is better reported now.
async fn user(name: UserName, context: &Context) -> Result<LockTarget, Failure> {
    if context.store.user(&name).await?.is_none() {
        return Err(Failure(format!("no user \"{name}\": see `relay user ls`")));
    }
    Ok(LockTarget::User(name))
}

async fn role(name: RoleName, context: &Context) -> Result<LockTarget, Failure> {
    let roles = context.store.roles().await?;
    if !presets::is_preset(name.as_str()) && !roles.iter().any(|role| role.name == name) {
        return Err(Failure(format!("no role \"{name}\": see `relay role ls`")));
    }
    Ok(LockTarget::Role(name))
}

async fn device(text: &str, context: &Context) -> Result<LockTarget, Failure> {
    match context.store.device_of(text).await? {
        Some(device) => Ok(LockTarget::Device(device.id)),
        None => {
            let text = holdfast_protocol::escape::Escaped(text);
            Err(Failure(format!(
                "no device \"{text}\": see `relay devices`"
            )))
        }
    }
}

/// An address or a network, and how it was typed.
#[derive(Clone, Debug)]
struct Network {
    text: String,
    network: IpNet,
}

impl FromStr for Network {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(network) = with_excess_bits(text) {
            return Err(format!("it has bits beyond its prefix: write {network}").into());
        }
        let expected = "expected an address or network such as 203.0.113.7 or 203.0.113.0/24";
        Ok(Self {
            text: text.to_owned(),
            network: network(text).ok_or(expected)?,
        })
    }
}

/// Checks a text that is shown on the terminals of others.
pub(crate) fn message(text: &str) -> Result<String, Invalid> {
    if text.len() > MAX_LOCK_MESSAGE {
        return Err(format!("must have at most {MAX_LOCK_MESSAGE} bytes").into());
    }
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".into());
    }
    Ok(text.trim().to_owned())
}
