//! Devices without membership that misuse the relay's endpoint.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::wire::{AgentMessage, Enrol, Intent, RelayMessage};
use quinn::{Connection, Endpoint};
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::device::{ControlStream, DeviceCase, Door, Lie, SOON, tls};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "join-and-wait",
        what: "Opens COUNT connections with keys of their own that ask to join, and say nothing more.",
        lie: Lie::Door(|door| Box::pin(join_and_wait(door))),
    },
    DeviceCase {
        name: "join-with-wrong-secret",
        what: "Asks to join COUNT times with a secret that no token has.",
        lie: Lie::Door(|door| Box::pin(wrong_secrets(door))),
    },
    DeviceCase {
        name: "hello-never",
        what: "Opens COUNT connections that never say Hello.",
        lie: Lie::Door(|door| Box::pin(hello_never(door))),
    },
    DeviceCase {
        name: "run-as-stranger",
        what: "Asks COUNT times for a tunnel with a key that no member has.",
        lie: Lie::Door(|door| Box::pin(strangers(door))),
    },
    DeviceCase {
        name: "garbage-as-stranger",
        what: "Opens COUNT connections that send garbage instead of a Hello.",
        lie: Lie::Door(|door| Box::pin(garbage(door))),
    },
];

/// A connection that asks to join, as far as the relay's `Identity`; `None` if the relay does not let it.
pub async fn ask_to_join(
    door: &Door,
    endpoint: &Endpoint,
) -> Option<(Connection, ControlStream<RelayMessage>)> {
    let connection = tls::connect(endpoint, door.relay).await.ok()?;
    let mut stream = ControlStream::open(&connection).await.ok()?;
    let hello = AgentMessage::Hello(door.hello(Intent::Join));
    stream.say(&hello).await.ok()?;
    match timeout(SOON, stream.next()).await.ok()? {
        Some(RelayMessage::Identity(_)) => Some((connection, stream)),
        _ => None,
    }
}

/// An endpoint whose connections have a key of their own.
fn stranger() -> Result<Endpoint> {
    let mut endpoint = Endpoint::client((std::net::Ipv4Addr::UNSPECIFIED, 0).into())?;
    endpoint.set_default_client_config(tls::config(Some(tls::random_key()))?);
    Ok(endpoint)
}

async fn join_and_wait(door: Arc<Door>) -> Result<Outcome> {
    let endpoint = stranger()?;
    let mut held = vec![];
    let mut refused = 0;
    for _ in 0..door.run.count {
        match ask_to_join(&door, &endpoint).await {
            Some(asking) => held.push(asking),
            None => refused += 1,
        }
    }
    let standing = held
        .iter()
        .filter(|(connection, _)| connection.close_reason().is_none())
        .count();
    println!("{standing} connections wait, {refused} were refused");
    sleep(door.run.within).await;
    match refused {
        0 => Ok(Outcome::Done(format!("{standing} connections waited"))),
        refused => Ok(Outcome::Refused(format!("{refused} connections"))),
    }
}

async fn wrong_secrets(door: Arc<Door>) -> Result<Outcome> {
    let endpoint = stranger()?;
    let mut refused = 0;
    for _ in 0..door.run.count {
        let Some((_connection, mut stream)) = ask_to_join(&door, &endpoint).await else {
            continue;
        };
        let enrol = AgentMessage::Enrol(Enrol {
            secret: TokenSecret([7; 20]),
            name: None,
            labels: vec![],
        });
        stream.say(&enrol).await?;
        if let Ok(Some(RelayMessage::Refused(_))) = timeout(SOON, stream.next()).await {
            refused += 1;
        }
    }
    Ok(Outcome::Refused(format!("{refused} secrets")))
}

async fn hello_never(door: Arc<Door>) -> Result<Outcome> {
    let endpoint = stranger()?;
    let mut held = vec![];
    for _ in 0..door.run.count {
        if let Ok(connection) = tls::connect(&endpoint, door.relay).await {
            held.push(connection);
        }
    }
    sleep(door.run.within).await;
    let standing = held.iter().filter(|held| held.close_reason().is_none());
    match standing.count() {
        0 => Ok(Outcome::Refused("all connections were closed".to_owned())),
        standing => Ok(Outcome::Done(format!("{standing} connections still stand"))),
    }
}

async fn strangers(door: Arc<Door>) -> Result<Outcome> {
    let endpoint = stranger()?;
    let mut refused = 0;
    for _ in 0..door.run.count {
        let Ok(connection) = tls::connect(&endpoint, door.relay).await else {
            continue;
        };
        let mut stream = ControlStream::<RelayMessage>::open(&connection).await?;
        let hello = AgentMessage::Hello(door.hello(Intent::Run));
        stream.say(&hello).await?;
        if let Ok(Some(RelayMessage::Refused(_))) = timeout(SOON, stream.next()).await {
            refused += 1;
        }
    }
    Ok(Outcome::Refused(format!("{refused} connections")))
}

async fn garbage(door: Arc<Door>) -> Result<Outcome> {
    let endpoint = stranger()?;
    for _ in 0..door.run.count {
        let Ok(connection) = tls::connect(&endpoint, door.relay).await else {
            continue;
        };
        let mut stream = ControlStream::<RelayMessage>::open(&connection).await?;
        // The relay may close it before.
        let _ = stream.send.write_all(&[0xff; 64]).await;
        let _ = timeout(SOON, connection.closed()).await;
    }
    Ok(Outcome::Refused(format!("{} connections", door.run.count)))
}
