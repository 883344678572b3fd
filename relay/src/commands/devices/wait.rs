//! `wait`: until a device is there.

use std::time::Duration;

use holdfast_protocol::ids::DeviceName;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::Event;
use crate::clock;
use crate::commands::Done;
use crate::commands::args::ttl;
use crate::commands::call::{Call, Command, Right};
use crate::commands::devices::list as devices;
use crate::commands::limits::WAIT_POLL;
use crate::commands::{Caller, Context, Failure};
use crate::store::{Device, PresenceState, named_device};

/// Wait until a device is online
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay wait kitchen-cam
  relay wait kitchen-cam --timeout 5m && scp notes pi@kitchen-cam.fleet:

Exit status 0: the device is online. 1: it did not come in time, or there is no such device.")]
pub(crate) struct Args {
    /// The name or the id of the device
    #[arg(value_parser = named_device)]
    name: DeviceName,
    /// The longest time to wait: 30s, 10m, 1h, 7d
    #[arg(long, value_name = "SPAN", value_parser = ttl, default_value = "1h")]
    timeout: Duration,
}

impl Command for Args {
    fn need(&self) -> Right {
        // Each device is decided on by itself.
        Right::AnyRole
    }

    fn event(&self) -> Option<Event> {
        None
    }

    fn streams(&self) -> bool {
        true
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.caller, call.context).await.map(Done::from)
    }
}

async fn run(args: &Args, caller: &Caller, context: &Context) -> Result<String, Failure> {
    let Args { name, timeout } = args;
    let mut device = devices::find(caller, context, name).await?;
    let deadline = clock::instant() + *timeout;
    let mut poll = interval(WAIT_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll.tick().await;
    loop {
        if let Some(when) = device.revoked {
            return Err(Failure(format!(
                "{} was revoked {when}: it cannot reconnect",
                device.name
            )));
        }
        if device.presence.state == PresenceState::Online {
            return Ok(format!("{} is online\n", device.name));
        }
        tokio::select! {
            _ = poll.tick() => {}
            () = tokio::time::sleep_until(deadline) => return Err(late(args, &device)),
        }
        if let Some(now) = look_again(&device, name, caller, context).await? {
            device = now;
        }
    }
}

/// Returns the same device now, whatever its name is, if the caller may still know of it: a wait is long enough for
/// roles and labels to change. `None` if the caller may not run the command any more: the live-session registry ends it
/// then, with the reason, and an answer here would come before it or after it by chance.
async fn look_again(
    device: &Device,
    name: &DeviceName,
    caller: &Caller,
    context: &Context,
) -> Result<Option<Device>, Failure> {
    let caller = match (caller, context.client) {
        (Caller::User(subject), Some(client)) => {
            match Caller::over_ssh(&context.store, &subject.user, client.ip()).await {
                Ok(Caller::User(now)) if !now.user.disabled && !now.roles.is_empty() => {
                    Caller::User(now)
                }
                _ => return Ok(None),
            }
        }
        _ => caller.clone(),
    };
    let device = context.store.device(device.id).await?;
    let device = device.filter(|device| caller.may_see(&device.labels));
    device.map(Some).ok_or_else(|| devices::unknown(name))
}

fn late(args: &Args, device: &Device) -> Failure {
    let (name, state, span) = (
        &device.name,
        device.presence.state.as_str(),
        humantime::format_duration(args.timeout),
    );
    let since = match device.presence.last_seen {
        Some(last) => format!("last seen {last}"),
        None => "never seen yet".to_owned(),
    };
    Failure(format!("{name} is still {state} after {span} ({since})"))
}
