//! Members that send on their control stream what they may not.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::control;
use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::wire::{AgentMessage, Beat, Enrol, Intent};

use crate::Outcome;
use crate::device::{DeviceCase, HostileDevice, Lie};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "hello-twice",
        what: "Says Hello once more on an established tunnel.",
        lie: Lie::Tunnel(|device| {
            Box::pin(async move {
                let hello = AgentMessage::Hello(device.door.hello(Intent::Run));
                once(device, hello).await
            })
        }),
    },
    DeviceCase {
        name: "enrol-as-member",
        what: "Asks to enrol on an established tunnel.",
        lie: Lie::Tunnel(|device| {
            Box::pin(async move {
                let enrol = AgentMessage::Enrol(Enrol {
                    secret: TokenSecret([7; 20]),
                    name: None,
                    labels: vec![],
                });
                once(device, enrol).await
            })
        }),
    },
    DeviceCase {
        name: "beat-flood",
        what: "Beats COUNT times in one breath, and asks for an echo each time.",
        lie: Lie::Tunnel(|device| Box::pin(beats(device))),
    },
    DeviceCase {
        name: "control-garbage",
        what: "Sends COUNT bytes of garbage on the control stream.",
        lie: Lie::Tunnel(|device| Box::pin(garbage(device))),
    },
    DeviceCase {
        name: "reconnect-flood",
        what: "Opens a tunnel COUNT times, each in place of the one before.",
        lie: Lie::Door(|door| {
            Box::pin(async move {
                let mut last = None;
                for _ in 0..door.run.count {
                    last = Some(HostileDevice::stand(door.clone()).await?);
                }
                drop(last);
                Ok(Outcome::Done(format!("{} tunnels stood", door.run.count)))
            })
        }),
    },
];

async fn once(device: Arc<HostileDevice>, message: AgentMessage) -> Result<Outcome> {
    device.say(&message).await?;
    Ok(device.verdict("said once").await)
}

async fn beats(device: Arc<HostileDevice>) -> Result<Outcome> {
    const BATCH: u32 = 1024;
    let beat = control::encode(&AgentMessage::Beat(Beat { echo: true }))?;
    let mut sent = 0;
    while sent < device.count() {
        let now = BATCH.min(device.count() - sent);
        let bytes = beat.repeat(usize::try_from(now)?);
        if device.write(&bytes).await.is_err() {
            break;
        }
        sent += now;
    }
    Ok(device.verdict(&format!("{sent} beats sent")).await)
}

async fn garbage(device: Arc<HostileDevice>) -> Result<Outcome> {
    let bytes = vec![0xff; usize::try_from(device.count())?];
    // The relay may close it halfway.
    let _ = device.write(&bytes).await;
    Ok(device.verdict("garbage sent").await)
}
