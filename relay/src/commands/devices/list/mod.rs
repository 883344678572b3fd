//! `devices`: the fleet.

pub(crate) mod revoke;
mod show;

use std::collections::HashMap;

use clap::Subcommand;
use holdfast_protocol::ids::{DeviceId, DeviceName};
use serde::Serialize;

use crate::audit::{Event, EventKind};
use crate::clock::{Coarse, Timestamp};
use crate::commands::Done;
use crate::commands::answer::table::{
    Narrow, RELAY, labels, narrowed, or_dash, shown_relay, table,
};
use crate::commands::args::LabelChange;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Caller, Context, Failure, json};
use crate::store::{Device, Labels, PresenceState, named_device};

/// The way in which the table with the ids gives way in a narrow terminal: no command takes a part of one.
const NARROW: Narrow<'static> = Narrow {
    left_out: &[5, 3, 6, 4, 2, 1],
    kept: &[(0, 24), (7, 32)],
};

/// The fleet: list, show, rename, label, revoke
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay devices
  relay devices --json | jq -r '.[] | select(.state == \"offline\") | .name'
  relay devices show kitchen-cam
  relay devices label kitchen-cam site=berlin role=
  relay devices revoke kitchen-cam --token")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<DevicesCommand>,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum DevicesCommand {
    /// List the devices: what happens without a subcommand
    #[command(visible_alias = "list")]
    Ls {
        /// The revoked ones too, and the id of each
        #[arg(long)]
        all: bool,
    },
    /// Show one device in full
    Show {
        /// The name or the id of the device
        #[arg(value_parser = named_device)]
        name: DeviceName,
    },
    /// Give a device another name
    Rename {
        /// Its name now, or its id
        #[arg(value_parser = named_device)]
        old: DeviceName,
        /// Its name from now on
        new: DeviceName,
    },
    /// Set labels (KEY=VALUE) or remove them (KEY=)
    Label {
        /// The name or the id of the device
        #[arg(value_parser = named_device)]
        name: DeviceName,
        /// The labels to change
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<LabelChange>,
    },
    /// End trust in a device permanently: its tunnel is closed, its key refused, its name free
    #[command(
        after_help = "If others can still join with the token that the device enrolled with, the answer names it."
    )]
    Revoke {
        /// The name or the id of the device
        #[arg(value_parser = named_device)]
        name: DeviceName,
        /// Remove the token that it enrolled with, too, if uses of it are left
        #[arg(long)]
        token: bool,
    },
}

/// A device, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    name: String,
    id: String,
    state: &'static str,
    last_seen: Option<String>,
    offline_since: Option<String>,
    labels: Labels,
    address: Option<String>,
    agent_version: String,
    target: String,
    enrolled: String,
    enrolled_with: Option<String>,
    cloned: Option<ClonedRow>,
    revoked: Option<String>,
    public_key: String,
    /// The relay that has its tunnel; `null` if it is offline.
    relay: Option<String>,
}

/// Two machines with one key, for machines.
#[derive(Serialize)]
struct ClonedRow {
    seen: String,
    addresses: [String; 2],
    current: bool,
}

impl Args {
    fn only_reads(&self) -> bool {
        use DevicesCommand::{Ls, Show};
        matches!(self.command, None | Some(Ls { .. } | Show { .. }))
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        // Everybody sees the devices that they may know of.
        Right::to_read_or_change(self.only_reads(), Right::AnyRole)
    }

    /// Returns the audit event of a change; the store adds the device.
    fn event(&self) -> Option<Event> {
        let changed = |what: &str, name: &DeviceName| {
            let event = Event::new(EventKind::AccessChanged).with("change", what);
            event.with("target", name.as_str())
        };
        match self.command.as_ref()? {
            DevicesCommand::Rename { old, new } => {
                Some(changed("device.rename", old).with("name", new.as_str()))
            }
            DevicesCommand::Label { name, labels } => {
                let change = |LabelChange(key, value): &LabelChange| match value {
                    Some(value) => format!("{key}={value}"),
                    None => format!("{key}="),
                };
                let labels: Vec<String> = labels.iter().map(change).collect();
                Some(changed("device.label", name).with("labels", labels))
            }
            DevicesCommand::Revoke { name, .. } => {
                Some(Event::new(EventKind::DeviceRevoked).with("target", name.as_str()))
            }
            DevicesCommand::Ls { .. } | DevicesCommand::Show { .. } => None,
        }
    }

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context).await.map(Done::from)
    }
}

async fn run(args: Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    let (name, text) = match args.command {
        None => return list(caller, context, false, args.json).await,
        Some(DevicesCommand::Ls { all }) => return list(caller, context, all, args.json).await,
        Some(DevicesCommand::Show { name }) => {
            let device = find(caller, context, &name).await?;
            let text = show::show(&device, context.now);
            (name, text)
        }
        Some(DevicesCommand::Rename { old, new }) => {
            let mut tx = context.begin().await?;
            tx.rename_device(&old, &new).await?;
            tx.commit().await?;
            let text = format!("device {old} is now {new}\n");
            (new, text)
        }
        Some(DevicesCommand::Label {
            name,
            labels: changes,
        }) => {
            let changes: Vec<_> = changes
                .into_iter()
                .map(|change| (change.0, change.1))
                .collect();
            let mut tx = context.begin().await?;
            let now = tx.label_device(&name, &changes).await?;
            tx.commit().await?;
            let text = format!("{name}: {}\n", labels(&now));
            (name, text)
        }
        Some(DevicesCommand::Revoke { name, token }) => {
            return revoke::run(caller, context, &name, token, args.json).await;
        }
    };
    if args.json {
        let device = find(caller, context, &name).await?;
        let relays = context.store.names_of_devices().await?;
        return json(&Row::of(&device, &relays));
    }
    Ok(text)
}

async fn list(
    caller: &Caller,
    context: &Context,
    all: bool,
    as_json: bool,
) -> Result<String, Failure> {
    let mut devices = context.store.devices(context.now).await?;
    devices.retain(|device| caller.may_see(&device.labels) && (all || device.revoked.is_none()));
    if as_json {
        let relays = context.store.names_of_devices().await?;
        let row = |device| Row::of(device, &relays);
        return json(&devices.iter().map(row).collect::<Vec<_>>());
    }
    let relays = match context.store.has_several_members().await? {
        true => Some(context.store.names_of_devices().await?),
        false => None,
    };
    let row = |device: &Device| -> [String; 7] {
        let relay = relays.as_ref().map(|relays| relay_of(device, relays));
        [
            device.name.to_string(),
            marked_state(device, context.now),
            seen(device, context.now),
            or_dash(&address(device).unwrap_or_default()),
            labels(&device.labels),
            agent(device),
            shown_relay(relay),
        ]
    };
    let relay = relays.as_ref().map_or("", |_| RELAY);
    let head = ["NAME", "STATE", "SEEN", "ADDRESS", "LABELS", "AGENT", relay];
    if !all {
        let rows: Vec<_> = devices.iter().map(row).collect();
        return Ok(table(context.width, head, &rows));
    }
    // A revoked device may have shared its name with others: each is named by its id.
    let row = |device: &Device| {
        let [name, state, seen, address, labels, agent, relay] = row(device);
        let id = device.id.to_string();
        [name, state, seen, address, labels, agent, relay, id]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    let [name, state, seen, address, labels, agent, relay] = head;
    let head = [name, state, seen, address, labels, agent, relay, "ID"];
    Ok(narrowed(context.width, head, &rows, NARROW))
}

/// Returns the device of that name or identifier, if the caller may know of it: one sentence for both that are not found.
pub(crate) async fn find(
    caller: &Caller,
    context: &Context,
    name: &DeviceName,
) -> Result<Device, Failure> {
    let device = context.store.device_named(name).await?;
    let device = device.filter(|device| caller.may_see(&device.labels));
    device.ok_or_else(|| unknown(name))
}

/// Returns the failure that there is no such device, or that the caller may not know of it.
pub(crate) fn unknown(name: &DeviceName) -> Failure {
    Failure(format!("no device \"{name}\": see `devices`"))
}

fn state(device: &Device) -> &'static str {
    match device.revoked {
        Some(_) => "revoked",
        None => device.presence.state.as_str(),
    }
}

/// Returns the state, with a mark if the device is two machines.
fn marked_state(device: &Device, now: Timestamp) -> String {
    match device.cloned {
        Some(cloned) if device.revoked.is_none() && cloned.is_current(now) => {
            format!("{}, cloned", state(device))
        }
        _ => state(device).to_owned(),
    }
}

fn seen(device: &Device, now: Timestamp) -> String {
    match (device.presence.state, device.presence.last_seen) {
        (PresenceState::Online, _) => "now".to_owned(),
        (_, Some(last)) => format!("{} ago", Coarse(now.since(last))),
        (_, None) => "never".to_owned(),
    }
}

/// Returns the address of the device, while it is there.
fn address(device: &Device) -> Option<String> {
    let there = device.presence.state != PresenceState::Offline;
    device
        .presence
        .address
        .filter(|_| there)
        .map(|a| a.to_string())
}

/// Returns the relay that has the tunnel of the device, while it is there.
fn relay_of(device: &Device, relays: &HashMap<DeviceId, String>) -> Option<String> {
    let there = device.presence.state != PresenceState::Offline;
    relays.get(&device.id).filter(|_| there).cloned()
}

/// Returns `0.1.0 armv7`: version and processor.
fn agent(device: &Device) -> String {
    let processor = device.target.split('-').next().unwrap_or_default();
    or_dash(format!("{} {processor}", device.agent_version).trim())
}

impl Row {
    fn of(device: &Device, relays: &HashMap<DeviceId, String>) -> Self {
        let presence = &device.presence;
        Self {
            name: device.name.to_string(),
            id: device.id.to_string(),
            // A revoked device is offline for ever, and `revoked` says since when.
            state: presence.state.as_str(),
            last_seen: presence.last_seen.map(Timestamp::rfc3339),
            offline_since: presence.since.map(Timestamp::rfc3339),
            labels: device.labels.clone(),
            address: address(device),
            agent_version: device.agent_version.clone(),
            target: device.target.clone(),
            enrolled: device.enrolled.rfc3339(),
            enrolled_with: device.token.clone(),
            cloned: device.cloned.map(|cloned| ClonedRow {
                seen: cloned.seen.rfc3339(),
                addresses: [cloned.pair.first, cloned.pair.second].map(|at| at.to_string()),
                current: cloned.is_current(Timestamp::now()),
            }),
            revoked: device.revoked.map(Timestamp::rfc3339),
            public_key: device.key.to_string(),
            relay: relay_of(device, relays),
        }
    }
}
