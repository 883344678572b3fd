//! Devices that say of forwards what they may not, or more often than they may.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::wire::{ForwardRequest, Incoming, Open};

use super::sessions::is_process;
use crate::Outcome;
use crate::device::{DeviceCase, GREETING, HostileDevice, HostileSession, Lie};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "incoming-flood",
        what: "Claims COUNT connections on a port of `ssh -R` at once.",
        lie: Lie::Session {
            on: is_listener,
            play: |device, session| Box::pin(incoming_on_listener(device, session)),
        },
    },
    DeviceCase {
        name: "incoming-and-drop",
        what: "Claims COUNT connections on a port of `ssh -R` at once, and breaks each off when its channel is open.",
        lie: Lie::Session {
            on: is_listener,
            // Each is taken in another session, which is served in good order: it is accepted, and ends.
            play: |device, session| Box::pin(incoming_on_listener(device, session)),
        },
    },
    DeviceCase {
        name: "incoming-on-agent",
        what: "Claims COUNT connections to the agent socket of a session with `ssh -A` at once.",
        lie: Lie::Session {
            on: |open| is_process(open) && open.terms.agent,
            play: |device, session| Box::pin(incoming_on_session(device, session)),
        },
    },
    DeviceCase {
        name: "incoming-on-session",
        what: "Claims COUNT connections in a session that has no agent socket.",
        lie: Lie::Session {
            on: |open| is_process(open) && !open.terms.agent,
            play: |device, session| Box::pin(incoming_on_session(device, session)),
        },
    },
    DeviceCase {
        name: "incoming-on-connect",
        what: "Claims COUNT connections on a forward that it dialled (`ssh -L`).",
        lie: Lie::Session {
            on: is_connect,
            play: |device, session| Box::pin(incoming_on_listener(device, session)),
        },
    },
    DeviceCase {
        name: "address-flood",
        what: "Says COUNT times where a forward of `ssh -L` leads.",
        lie: Lie::Session {
            on: is_connect,
            play: |device, session| Box::pin(addresses(device, session)),
        },
    },
    DeviceCase {
        name: "address-flood-listen",
        what: "Says COUNT times where a port of `ssh -R` listens.",
        lie: Lie::Session {
            on: is_listener,
            play: |device, session| Box::pin(addresses(device, session)),
        },
    },
    DeviceCase {
        name: "address-on-session",
        what: "Says COUNT times where a session without forward leads.",
        lie: Lie::Session {
            on: is_process,
            play: |device, session| Box::pin(addresses(device, session)),
        },
    },
    DeviceCase {
        name: "data-on-listener",
        what: "Sends COUNT frames of data on a port of `ssh -R`, which carries none.",
        lie: Lie::Session {
            on: is_listener,
            play: |device, session| Box::pin(data_on_listener(device, session)),
        },
    },
];

fn is_listener(open: &Open) -> bool {
    matches!(
        open.request.forward(),
        Some(ForwardRequest::Listen(_) | ForwardRequest::ListenPath(_))
    )
}

fn is_connect(open: &Open) -> bool {
    matches!(open.request.forward(), Some(ForwardRequest::Connect(_)))
}

/// An address of this device that differs each time.
fn address(number: u32) -> SocketAddr {
    let [a, b, c, _] = number.to_le_bytes();
    SocketAddr::from((Ipv4Addr::new(127, a, b, c), 4242))
}

fn incoming(number: u32) -> SessionMessage {
    let peer = address(number);
    SessionMessage::Incoming(Incoming { number, peer })
}

async fn incoming_on_listener(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    let request = session.open.request.forward();
    if !matches!(request, Some(ForwardRequest::ListenPath(_))) {
        let port = match request {
            Some(ForwardRequest::Listen(listen)) if listen.port != 0 => listen.port,
            _ => 4242,
        };
        let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        session.say(&SessionMessage::Address(bound)).await?;
    }
    flood(device, session, incoming).await
}

async fn incoming_on_session(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    session.data(DataStream::Stdout, GREETING).await?;
    flood(device, session, incoming).await
}

async fn addresses(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    flood(device, session, |number| {
        SessionMessage::Address(address(number))
    })
    .await
}

async fn data_on_listener(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, 4242));
    session.say(&SessionMessage::Address(bound)).await?;
    let mut sent = 0;
    while sent < device.count() && session.data(DataStream::Stdout, GREETING).await.is_ok() {
        sent += 1;
    }
    let within = device.door.run.within;
    Ok(session.verdict(within, format!("{sent} frames sent")).await)
}

async fn flood(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    message: impl Fn(u32) -> SessionMessage,
) -> Result<Outcome> {
    let within = device.door.run.within;
    // What the relay does not read holds us up: that is an outcome, too.
    let flooding = session.flood(message, device.count());
    match tokio::time::timeout(within, flooding).await {
        Ok(sent) => Ok(session
            .verdict(within, format!("{sent} messages sent"))
            .await),
        Err(_) => Ok(Outcome::Done("the relay holds the flood back".to_owned())),
    }
}
